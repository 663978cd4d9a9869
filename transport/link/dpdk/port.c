/* One Ethernet port: found or attached, checked against what the options want, given back. Called by dpdk.c at open and close. What a
 * driver does not say of
 * itself is in the table here; nobody else asks for a driver's name. */
#include <errno.h>
#include <net/if.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <rte_alarm.h>
#include <rte_dev.h>
#include <rte_devargs.h>
#include <rte_errno.h>
#include "link/dpdk/dpdk.h"
#include "tern/tern.h"

/* Read in the sources of DPDK 22.11: who copies on transmit, who keeps a pointer, and into what. Others are hardware. */
static const struct dpdk_driver drivers[] = {
	{.name = "net_memif", .reader = DPDK_READ_CPU, .is_local = true, .copies_in = true, .any_mtu = true, .in_interrupt = true, .one_queue = true,
		.buffer = "bsize", .buffer_bytes = 2048}, /* chains of its buffers crash it */
	{.name = "net_vhost", .reader = DPDK_READ_CPU, .is_local = true, .copies_in = true, .has_interrupt = true, .one_queue = true},
	{.name = "net_virtio_user", .reader = DPDK_READ_COPY, .is_local = true, .any_mtu = true, .one_queue = true}, /* its peer maps DPDK's memory only */
	{.name = "net_ring", .reader = DPDK_READ_COPY, .is_local = true, .any_mtu = true, .one_queue = true}, /* the receiver gets the mbuf itself */
	{.name = "net_null", .reader = DPDK_READ_COPY, .is_local = true, .any_mtu = true},
	/* says 1500, and takes what its buffers hold behind the kernel's header (TPACKET2) and address */
	{.name = "net_af_packet", .reader = DPDK_READ_CPU, .is_kernel = true, .copies_in = true, .is_shared = true, .one_queue = true,
		.any_mtu = true, .buffer = "framesz", .buffer_bytes = 2048, .buffer_front = 128, .block_bytes = 4096},
	/* an mbuf of its own pool is sent as it is, another is copied */
	{.name = "net_af_xdp", .reader = DPDK_READ_COPY, .is_kernel = true, .one_queue = true, .stays = true, .own_bytes = 256, .in_page = true},
	/* says 16, and writes beyond an array of 8 with the descriptors of more than 4 and 4 queues (tap_mp_req_on_rxtx) */
	{.name = "net_tap", .reader = DPDK_READ_CPU, .is_kernel = true, .copies_in = true, .pairs = true, .spreads = true, .queues_max = 4},
};

/* Which leave everything without a rule on queue 0 when RSS is not asked for (read in the sources of DPDK 22.11). Not cxgbe, which spreads it all the same. */
static const char *const keeping[] = {"mlx5_pci", "mlx5_auxiliary", "net_i40e", "net_iavf", "net_ice", "net_sfc_efx", "net_bnxt",
	"net_hns3", "net_hns3_vf"};

enum { PORT_CLOSE_S = 2 };

static pthread_mutex_t port_lock = PTHREAD_MUTEX_INITIALIZER; /* finding and attaching; not held while a port runs */
static bool port_known[RTE_MAX_ETHPORTS]; /* configured by us before: stopped, not in use */
/* Ready to be started again. DPDK 22.11 counts wrongly when it closes an af_xdp port (eth_dev_close takes one off twice): its socket stays, and a second one is refused
 * until the process ends, with the driver's heap in disorder after that. */
static struct dpdk_port *port_kept[RTE_MAX_ETHPORTS];

#define PORT_FAIL(config, err, ...) (snprintf((config)->error, (config)->error_bytes, __VA_ARGS__), -(err))

/* Another part of the process may use a port without claiming it: then its first queue is set up. */
static bool port_is_used(uint16_t id, const struct rte_eth_dev_info *info)
{
	struct rte_eth_rxq_info queue;
	return info->nb_rx_queues && !port_known[id] && rte_eth_rx_queue_info_get(id, 0, &queue) != -EINVAL;
}

/* Claims a port that nobody has. */
static bool port_claim(struct dpdk_port *p, uint16_t id)
{
	struct rte_eth_dev_info info;
	struct rte_eth_dev_owner owner = {.name = "tern"};
	if (rte_eth_dev_info_get(id, &info) || (!p->is_ours && port_is_used(id, &info)) || rte_eth_dev_owner_new(&owner.id) ||
	    rte_eth_dev_owner_set(id, &owner))
		return false;
	p->id = id;
	p->owner = owner.id;
	return true;
}

static int port_first(struct dpdk_port *p, const struct link_config *config)
{
	uint16_t id;
	unsigned n = 0;
	RTE_ETH_FOREACH_DEV(id)
		if (port_claim(p, id))
			return 0;
	n = rte_eth_dev_count_total();
	if (n)
		return PORT_FAIL(config, TERN_EADDR,
			"dpdk: all %u ports are in use in this process: give another one, dev=", n);
	return PORT_FAIL(config, TERN_EADDR, "dpdk: there is no port; bind a NIC to vfio-pci (dpdk-devbind.py), or name a virtual one, "
	                 "dev=net_af_packet0,iface=eth0");
}

/* Gives back a device that was probed and is no Ethernet port. */
static void port_forget(const char *name)
{
	static const char *const buses[] = {"vdev", "pci"};
	for (size_t i = 0; i < sizeof(buses) / sizeof(buses[0]); i++)
		if (!rte_eal_hotplug_remove(buses[i], name))
			return;
}

/* Arguments that a device gets unless the user says otherwise. af_xdp by itself polls its interface with a system call for each look at an empty ring, which pays only
 * where the interface's interrupts are held back (napi_defer_hard_irqs): tern-bw over a veth 0.59 -> 0.65 GB/s without. */
static void port_arguments(const char *dev, char *out, size_t bytes)
{
	size_t value;
	bool is_xdp = !strncmp(dev, "net_af_xdp", 10) && !dpdk_port_arg(dev, "busy_budget", &value);
	snprintf(out, bytes, "%s%s", dev, is_xdp ? ",busy_budget=0" : "");
}

/* A name, a PCI address, or a virtual device with its arguments, which is made. */
static int port_named(struct dpdk_port *p, const char *dev, const struct link_config *config)
{
	char args[256];
	char name[RTE_ETH_NAME_MAX_LEN], words[192], remedy[192];
	struct rte_eth_dev_info info;
	uint16_t id;

	snprintf(name, sizeof(name), "%.*s", (int)strcspn(dev, ","), dev);
	if (rte_eth_dev_get_port_by_name(name, &id)) {
		dpdk_eal_words(words, sizeof(words));
		port_arguments(dev, args, sizeof(args));
		int err = rte_dev_probe(args);
		bool is_port = !err && !rte_eth_dev_get_port_by_name(name, &id);
		if (!err && !is_port)
			port_forget(name);
		dpdk_memif_remedy(dev, remedy, sizeof(remedy));
		if (!is_port)
			return PORT_FAIL(config, TERN_EADDR, "dpdk: dev=%s: no such port, or in use by another process (%s%s)%s", dev,
			                 err ? rte_strerror(-err) : "it is no Ethernet port", dpdk_port_words(words, sizeof(words)), remedy);
		p->is_ours = true;
		dpdk_memif_keep(dev);
	}
	bool is_claimed = port_claim(p, id);
	if (!is_claimed && p->is_ours && !rte_eth_dev_info_get(id, &info)) {
		rte_eth_dev_close(id);
		rte_dev_remove(info.device);
	}
	if (!is_claimed)
		return PORT_FAIL(config, TERN_EADDR, "dpdk: port %s is in use by another part of this process: give another one, dev=", name);
	return 0;
}

/* @return the device's argument, `none` without it */
static uint32_t port_number(const struct rte_devargs *args, const char *key, uint32_t none)
{
	size_t bytes;
	const char *at = args && args->args ? dpdk_port_arg(args->args, key, &bytes) : NULL;

	return at ? (uint32_t)strtoul(at, NULL, 10) : none;
}

static void port_driver(struct dpdk_port *p, const struct rte_eth_dev_info *info)
{
	const struct rte_devargs *args = info->device ? rte_dev_devargs(info->device) : NULL;
	p->driver = (struct dpdk_driver){.name = info->driver_name, .reader = DPDK_READ_DEVICE, .has_interrupt = true};
	for (size_t i = 0; i < sizeof(drivers) / sizeof(drivers[0]); i++)
		if (!strcmp(drivers[i].name, info->driver_name))
			p->driver = drivers[i];
	for (size_t i = 0; i < sizeof(keeping) / sizeof(keeping[0]); i++)
		p->driver.keeps |= !strcmp(keeping[i], info->driver_name);
	uint16_t segs = RTE_MIN(info->tx_desc_lim.nb_seg_max, info->tx_desc_lim.nb_mtu_seg_max);
	p->frame_segs = segs ? segs : UINT16_MAX; /* i40e: 8 */
	uint32_t given = p->driver.buffer ? port_number(args, p->driver.buffer, 0) : 0;
	p->driver.buffer_given = given > 0;
	p->driver.buffer_bytes = given ? given : p->driver.buffer_bytes;
	p->driver.block_bytes = p->driver.block_bytes ? port_number(args, "blocksz", p->driver.block_bytes) : 0;
	/* memif zero-copy hands out DPDK's own memory; without chains everything must be in one mbuf */
	if (!(info->tx_offload_capa & RTE_ETH_TX_OFFLOAD_MULTI_SEGS) || (args && args->args && strstr(args->args, "zero-copy=yes")))
		p->driver.reader = DPDK_READ_COPY;
}

/* What fits an mbuf that lies in a page with its headers (start.c). */
static uint32_t port_page_mtu(const struct dpdk_port *p)
{
	uint32_t front = rte_mempool_calc_obj_size(sizeof(struct rte_mbuf), RTE_MEMPOOL_F_NO_SPREAD, NULL);

	return (uint32_t)sysconf(_SC_PAGESIZE) - front - DPDK_ROOM_BESIDE - p->driver.own_bytes;
}

/* @param bytes  that a buffer must have */
static int port_buffers_small(const struct dpdk_port *p, uint32_t bytes, const struct link_config *config)
{
	char blocks[32] = "", front[48] = "";

	bytes = RTE_ALIGN_CEIL(bytes, p->driver.block_bytes ? 512 : 64);
	if (p->driver.block_bytes) /* whole pages */
		snprintf(blocks, sizeof(blocks), ",blocksz=%u", 8 * bytes);
	if (p->driver.buffer_front)
		snprintf(front, sizeof(front), ", %u of them the kernel's", p->driver.buffer_front);
	return PORT_FAIL(config, TERN_EADDR,
		"dpdk: an MTU of %u does not fit the buffers of port %s, %u bytes%s; give a smaller mtu=, or %s=%u%s in dev=", p->mtu_bytes, p->name,
		p->driver.buffer_bytes, front, p->driver.buffer, bytes, blocks);
}

/* The driver finds a buffer by its number, past what is left at the end of a block; and an mbuf must hold one. */
static int port_blocks(const struct dpdk_port *p, const struct link_config *config)
{
	uint32_t bytes = p->driver.buffer_bytes, most = (UINT16_MAX & ~(DPDK_ROOM_STEP - 1u)) - RTE_PKTMBUF_HEADROOM;

	if (!p->driver.block_bytes)
		return 0;
	if (bytes > most)
		return PORT_FAIL(config, TERN_EADDR, "dpdk: port %s: %s=%u is more than an mbuf holds, %u", p->name, p->driver.buffer, bytes, most);
	if (p->driver.block_bytes % bytes)
		return PORT_FAIL(config, TERN_EADDR, "dpdk: port %s: blocksz=%u is no multiple of %s=%u; give %s=%u,blocksz=%u in dev=", p->name,
			p->driver.block_bytes, p->driver.buffer, bytes, p->driver.buffer, RTE_ALIGN_CEIL(bytes, 512), 8 * RTE_ALIGN_CEIL(bytes, 512));
	return 0;
}

static int port_mtu(struct dpdk_port *p, const struct rte_eth_dev_info *info, const struct dpdk_options *o, const struct link_config *config,
                    uint16_t *given)
{
	uint32_t want = o->mtu_bytes;
	uint16_t now = RTE_ETHER_MTU;
	uint32_t most = info->max_mtu, frame = NET_ETHER_BYTES + NET_VLAN_BYTES, room = p->driver.buffer_bytes;

	room -= RTE_MIN(room, p->driver.buffer_front);
	rte_eth_dev_get_mtu(p->id, &now);
	if (info->max_rx_pktlen > frame && info->max_rx_pktlen - frame < most)
		most = info->max_rx_pktlen - frame;
	if (p->driver.in_page)
		most = RTE_MIN(most, port_page_mtu(p));
	if (!want && p->driver.buffer_given && p->driver.any_mtu && room > RTE_ETHER_MTU + frame)
		now = (uint16_t)(room - frame < NET_MTU_MAX ? room - frame : NET_MTU_MAX);
	p->mtu_bytes = want ? want : o->host_mtu_bytes ? o->host_mtu_bytes : now;
	if (!want && p->driver.buffer_bytes && room >= NET_MTU_MIN + frame && p->mtu_bytes + frame > room)
		p->mtu_bytes = room - frame;
	if (!want && p->mtu_bytes > most && !p->driver.any_mtu)
		p->mtu_bytes = most;
	if (p->mtu_bytes > NET_MTU_MAX)
		p->mtu_bytes = NET_MTU_MAX;
	*given = (uint16_t)(p->mtu_bytes <= most ? p->mtu_bytes : most < RTE_ETHER_MTU ? most : RTE_ETHER_MTU);
	if (p->driver.buffer_bytes && p->mtu_bytes + frame > room)
		return port_buffers_small(p, p->mtu_bytes + frame + p->driver.buffer_front, config);
	if (p->mtu_bytes > most && !p->driver.any_mtu && want)
		return PORT_FAIL(config, TERN_EADDR, "dpdk: an MTU of %u is larger than what port %s takes, %u; give a smaller mtu=", want, p->name,
			most);
	if (want > o->host_mtu_bytes && o->host_mtu_bytes && o->is_own_if && p->driver.is_shared)
		return PORT_FAIL(config, TERN_EADDR, "dpdk: an MTU of %u is larger than that of interface %s, %u; give a smaller mtu=, or raise it: "
		                 "ip link set %s mtu %u", want, o->host_if, o->host_mtu_bytes, o->host_if, want);
	return 0;
}

/* @param host  of the interface that is taken over; zeros: none */
static void port_mac(struct dpdk_port *p, const uint8_t *host)
{
	struct rte_ether_addr mac;
	memcpy(mac.addr_bytes, host, sizeof(mac.addr_bytes));
	if (rte_is_valid_assigned_ether_addr(&mac) && (!rte_eth_dev_default_mac_addr_set(p->id, &mac) || p->driver.is_local)) {
		p->mac = mac;
		return;
	}
	if (rte_eth_macaddr_get(p->id, &p->mac) || !rte_is_valid_assigned_ether_addr(&p->mac))
		rte_eth_random_addr(p->mac.addr_bytes); /* rings and memif filter nothing */
}

/* Drivers write to sockets whose other end may be gone (virtio-user): the program must not get a SIGPIPE for it. */
struct port_quiet {
	sigset_t pipe, before;
	bool was_pending;
};

static void port_quiet_begin(struct port_quiet *q)
{
	sigset_t pending;
	sigemptyset(&q->pipe);
	sigaddset(&q->pipe, SIGPIPE);
	sigpending(&pending);
	q->was_pending = sigismember(&pending, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &q->pipe, &q->before);
}

static void port_quiet_end(const struct port_quiet *q)
{
	const struct timespec now = {0};
	while (!q->was_pending && sigtimedwait(&q->pipe, NULL, &now) == SIGPIPE)
		;
	pthread_sigmask(SIG_SETMASK, &q->before, NULL);
}

/* Stops what cannot be closed and opened again. @return whether it is such a port, and was running */
static bool port_keep(struct dpdk_port *p)
{
	struct dpdk_port *kept = p->driver.stays && p->is_ours && p->is_started ? malloc(sizeof(*kept)) : NULL;

	if (!kept)
		return false;
	rte_eth_dev_stop(p->id);
	*kept = *p;
	pthread_mutex_lock(&port_lock);
	port_kept[p->id] = kept;
	port_known[p->id] = true;
	rte_eth_dev_owner_unset(p->id, p->owner);
	pthread_mutex_unlock(&port_lock);
	return true;
}

/* The interface is the kernel's again when the program ends. */
__attribute__((destructor)) static void port_kept_end(void)
{
	for (uint16_t id = 0; id < RTE_MAX_ETHPORTS; id++)
		if (port_kept[id])
			rte_eth_dev_close(id);
}

/* @param p  found and claimed, its MTU settled */
static int port_again(struct dpdk_port *p, const struct link_config *config)
{
	struct dpdk_port *kept = port_kept[p->id];
	struct rte_mbuf *old[DPDK_BURST];
	uint64_t owner = p->owner;
	uint16_t n;

	if (p->mtu_bytes != kept->mtu_bytes)
		return PORT_FAIL(config, TERN_EADDR, "dpdk: port %s keeps its MTU of %u for as long as the process lives: give mtu=%u", p->name,
		        kept->mtu_bytes, kept->mtu_bytes);
	*p = *kept;
	p->owner = owner;
	pthread_mutex_lock(&port_lock);
	port_kept[p->id] = NULL;
	pthread_mutex_unlock(&port_lock);
	free(kept);
	p->is_started = !rte_eth_dev_start(p->id);
	if (!p->is_started)
		return PORT_FAIL(config, TERN_EIO, "dpdk: port %s does not start again; run the program anew", p->name);
	for (int i = 0; i < DPDK_RING / DPDK_BURST && (n = rte_eth_rx_burst(p->id, 0, old, DPDK_BURST)); i++)
		rte_pktmbuf_free_bulk(old, n); /* came while nobody had the port */
	return 0;
}

static void port_release(struct dpdk_port *p)
{
	if (port_keep(p))
		return;
	if (p->rest)
		rte_flow_destroy(p->id, p->rest, NULL);
	if (p->is_started)
		rte_eth_dev_stop(p->id);
	p->is_started = false;
	pthread_mutex_lock(&port_lock);
	port_known[p->id] = !p->is_ours;
	rte_eth_dev_owner_unset(p->id, p->owner);
	if (p->is_ours) {
		rte_eth_dev_close(p->id);
		if (p->device)
			rte_dev_remove(p->device);
	}
	pthread_mutex_unlock(&port_lock);
	rte_mempool_free(p->data);
	rte_mempool_free(p->heads);
}

static int port_find(struct dpdk_port *p, const struct dpdk_options *o, const struct link_config *config)
{
	pthread_mutex_lock(&port_lock);
	int err = *o->dev ? port_named(p, o->dev, config) : port_first(p, config);
	pthread_mutex_unlock(&port_lock);
	return err;
}

static int port_open(struct dpdk_link *l, const struct link_config *config)
{
	struct dpdk_port *p = &l->port;
	struct rte_eth_dev_info info;
	uint16_t mtu = 0;
	char words[128];

	int err = port_find(p, &l->options, config);
	if (err)
		return err;
	rte_eth_dev_info_get(p->id, &info);
	rte_eth_dev_get_name_by_port(p->id, p->name);
	p->device = info.device;
	if (!*l->options.host_if && info.if_index)
		l->options.is_own_if = if_indextoname(info.if_index, l->options.host_if) != NULL;
	err = dpdk_options_host(&l->options, config);
	port_driver(p, &info);
	if (!err)
		err = port_blocks(p, config);
	if (!err)
		err = port_mtu(p, &info, &l->options, config, &mtu);
	if (!err && port_kept[p->id]) {
		dpdk_steer_queues(l, &info); /* as it was, but why? */
		err = port_again(p, config);
	} else if (!err)
		err = dpdk_port_start(l, &info, mtu, config);
	if (err) {
		port_release(p);
		return err;
	}
	port_mac(p, l->options.mac);
	dpdk_log(l, TERN_LOG_INFO, "dpdk port %s (%s): MTU %u, transmit %s, checksums %s%s", p->name, p->driver.name, p->mtu_bytes,
	         p->driver.reader == DPDK_READ_COPY ? "copies each frame once" : "takes memory as it is",
	         p->tx_offloads & RTE_ETH_TX_OFFLOAD_UDP_CKSUM ? "by the port" : "in software", dpdk_offload_words(p, words, sizeof(words)));
	dpdk_steer_tell(l);
	return 0;
}

int dpdk_port_open(struct dpdk_link *l, const struct link_config *config)
{
	struct port_quiet q;
	port_quiet_begin(&q);
	int err = port_open(l, config);
	port_quiet_end(&q);
	return err;
}

/* memif's control sockets are served by DPDK's interrupt thread, without a lock against close: closed there, nothing runs beside it. */
struct port_task {
	struct dpdk_port *port;
	sem_t done;
};

static void port_release_there(void *arg)
{
	struct port_task *t = arg;
	port_release(t->port);
	sem_post(&t->done);
}

void dpdk_port_close(struct dpdk_link *l)
{
	struct port_quiet q;
	struct port_task t = {.port = &l->port};
	struct timespec end;
	int err = 0;

	port_quiet_begin(&q);
	sem_init(&t.done, 0, 0);
	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += PORT_CLOSE_S;
	if (l->port.driver.in_interrupt && !rte_eal_alarm_set(1, port_release_there, &t)) {
		while ((err = sem_timedwait(&t.done, &end)) && errno == EINTR)
			;
		if (err && rte_eal_alarm_cancel(port_release_there, &t) > 0) /* otherwise it has run by now */
			dpdk_log(l, TERN_LOG_WARN, "dpdk port %s: DPDK's interrupt thread does not answer; the port stays open", l->port.name);
	} else {
		port_release(&l->port);
	}
	sem_destroy(&t.done);
	port_quiet_end(&q);
}
