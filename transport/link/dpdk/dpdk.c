/* The dpdk link: the udp link's datagrams, made and read in user space on any port that DPDK drives. Called by the loop through link_dpdk_ops; a
 * module of its own
 * (libtern-dpdk.so), so that libtern needs no DPDK. This file keeps the link's lists; knows nothing of what is in a frame. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <rte_random.h>
#include "link/dpdk/dpdk.h"
#include "tern/tern.h"

enum { PORT_LOW = 32768, PORT_COUNT = 28000, PORT_TRIES = 64 };

/* An open link names a table without empty slots. */
static struct link_ops dpdk_ops;
static pthread_once_t dpdk_ops_once = PTHREAD_ONCE_INIT;

static void dpdk_ops_fill(void)
{
	link_fill(&link_dpdk_ops, &dpdk_ops);
}

/* Where the kernel has our address too (a port that it sees as an interface, a twin), it would answer datagrams to our port with "port
 * unreachable": a socket of its own, deaf,
 * keeps it quiet and the port ours. *port 0: any. @return the socket, -1: not needed or not possible, -2: the port is somebody's */
static int reserve_open(const struct dpdk_link *l, int family, uint16_t *port)
{
	struct sock_filter none = BPF_STMT(BPF_RET | BPF_K, 0);
	struct sock_fprog filter = {.len = 1, .filter = &none};
	union net_addr a = {.sa.sa_family = (sa_family_t)family};
	socklen_t bytes = family == AF_INET6 ? sizeof(a.v6) : sizeof(a.v4);

	if (!*l->options.host_if && l->share->twin.fd < 0)
		return -1;
	if (family == AF_INET6)
		a.v6.sin6_addr = l->host.config.ip6, a.v6.sin6_port = htons(*port);
	else
		a.v4.sin_addr = l->host.config.ip4, a.v4.sin_port = htons(*port);
	int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -1;
	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)) || bind(fd, &a.sa, bytes) || getsockname(fd, &a.sa, &bytes)) {
		int err = errno;
		close(fd);
		return err == EADDRINUSE ? -2 : -1;
	}
	*port = ntohs(family == AF_INET6 ? a.v6.sin6_port : a.v4.sin_port);
	return fd;
}

/* A UDP port of ours that nobody uses. @param port  the wish, 0: any; gets it. @return 0, -TERN_EADDR */
static int port_take(struct dpdk_link *l, int family, uint16_t *port, int *fd)
{
	*fd = reserve_open(l, family, port);
	bool is_taken = *fd != -2 && *port && dpdk_share_take(l, *port);
	for (int i = 0; !*port && i < PORT_TRIES && !is_taken; i++) {
		uint16_t at = (uint16_t)(PORT_LOW + rte_rand_max(PORT_COUNT));
		is_taken = dpdk_share_take(l, at);
		*port = is_taken ? at : 0;
	}
	if (!is_taken) {
		if (*fd >= 0)
			close(*fd);
		*fd = -1;
		return -TERN_EADDR;
	}
	net_port_open(&l->host, *port);
	return 0;
}

static void port_give(struct dpdk_link *l, uint16_t port, int fd)
{
	net_port_close(&l->host, port);
	dpdk_share_give(l, port);
	if (fd >= 0)
		close(fd);
}

static int dpdk_listen(struct dpdk_link *l, const struct link_config *config)
{
	bool six = !l->host.config.ip4.s_addr || (config->host && strchr(config->host, ':'));
	union net_addr local = {.sa.sa_family = six ? AF_INET6 : AF_INET};

	l->listen_port = config->port;
	if (config->listening && port_take(l, local.sa.sa_family, &l->listen_port, &l->reserve_fd)) {
		snprintf(config->error, config->error_bytes,
		        "dpdk: UDP port %u is in use by another program, or another link of this port; choose another one, or 0 for any",
		        config->port);
		return -TERN_EADDR;
	}
	if (six)
		local.v6.sin6_addr = l->host.config.ip6, local.v6.sin6_port = htons(l->listen_port);
	else
		local.v4.sin_addr = l->host.config.ip4, local.v4.sin_port = htons(l->listen_port);
	dpdk_addr_out(&local, &l->base.local);
	return 0;
}

void dpdk_free(struct dpdk_link *l)
{
	dpdk_tx_close(l);
	free(l->bucket);
	free(l->paths);
	free(l);
}

static struct dpdk_link *dpdk_alloc(const struct link_config *config)
{
	struct dpdk_link *l = calloc(1, sizeof(*l));
	if (!l)
		return NULL;
	link_log_open(&l->base, config);
	l->listening = config->listening;
	l->now_ns = config->now_ns;
	l->reserve_fd = l->wake_fd = l->set_fd = l->told_fd = -1;
	l->bucket = calloc(DPDK_BUCKETS, sizeof(*l->bucket));
	l->paths = calloc(DPDK_PATHS_MAX, sizeof(*l->paths));
	if (!l->bucket || !l->paths || dpdk_tx_open(l)) {
		dpdk_free(l);
		return NULL;
	}
	return l;
}

static int dpdk_open(const struct link_config *given, struct link **out)
{
	char none[1];
	struct link_config config = *given;

	*out = NULL;
	pthread_once(&dpdk_ops_once, dpdk_ops_fill);
	if (!config.error || !config.error_bytes) {
		config.error = none;
		config.error_bytes = sizeof(none);
	}
	struct dpdk_link *l = dpdk_alloc(&config);
	if (!l) {
		snprintf(config.error, config.error_bytes, "dpdk: no memory");
		return -TERN_ENOMEM;
	}
	dpdk_eal_log(l, true);
	int err = dpdk_options_read(&l->options, &config);
	if (!err)
		err = dpdk_eal_start(&config, l->options.eal);
	if (!err)
		err = dpdk_share_open(l, &config);
	if (err)
		goto fail;
	err = dpdk_listen(l, &config);
	if (err)
		goto fail_port;
	l->base.caps = LINK_BYTES | (l->port.driver.reader == DPDK_READ_DEVICE ? LINK_TX_ZERO_COPY : 0);
	dpdk_mem_open(l);
	dpdk_stamp_open(l);
	l->base.max_segments = FRAME_SEGS_MAX;
	l->base.ops = &dpdk_ops;
	*out = &l->base;
	return 0;

fail_port:
	dpdk_share_close(l); /* it has sent nothing: all is back */
fail:
	dpdk_eal_log(l, false);
	dpdk_free(l);
	return err;
}

/* The listening port belongs to the first path to a remote, as with udp: further ones (spread) take ports of their own. */
static int path_port(struct dpdk_link *l, struct dpdk_path *p, const union net_addr *remote)
{
	p->reserve_fd = -1;
	if (l->listening && !dpdk_paths_find(l, remote, l->listen_port)) {
		p->port = l->listen_port;
		return 0;
	}
	return port_take(l, remote->sa.sa_family, &p->port, &p->reserve_fd);
}

static void path_port_give(struct dpdk_link *l, struct dpdk_path *p)
{
	if (!l->listening || p->port != l->listen_port)
		port_give(l, p->port, p->reserve_fd);
}

static bool path_remote(const struct link_path_config *config, union net_addr *out)
{
	memset(out, 0, sizeof(*out));
	memcpy(out, config->remote.data, config->remote.bytes < sizeof(*out) ? config->remote.bytes : sizeof(*out));
	if (out->sa.sa_family == AF_INET)
		return config->remote.bytes >= sizeof(out->v4) && out->v4.sin_port;
	return out->sa.sa_family == AF_INET6 && config->remote.bytes >= sizeof(out->v6) && out->v6.sin6_port;
}

static int dpdk_path_open(struct link *link, const struct link_path_config *config, struct link_path **out)
{
	struct dpdk_link *l = (struct dpdk_link *)link;
	struct net_flow_config fc = {.dscp = l->options.dscp, .ecn = l->options.ecn ? 2 : 0};

	*out = NULL;
	if (l->n_paths == DPDK_PATHS_MAX) {
		snprintf(l->base.trouble, sizeof(l->base.trouble), "dpdk: port %s has %d paths, as many as there can be; close some, or use "
		         "another port", l->port.name, DPDK_PATHS_MAX);
		return -TERN_ELIMIT;
	}
	if (!path_remote(config, &fc.remote))
		return -TERN_EADDR;
	struct dpdk_path *p = calloc(1, sizeof(*p));
	if (!p)
		return -TERN_ENOMEM;
	int err = path_port(l, p, &fc.remote);
	if (err)
		goto fail;
	fc.port = p->port;
	err = net_flow_init(&l->host, &fc, &p->flow);
	if (!err)
		err = net_flow_hold(&l->host, &p->flow, l->now_ns);
	if (err == -TERN_ELIMIT)
		snprintf(l->base.trouble, sizeof(l->base.trouble), "dpdk: port %s has paths to %d neighbours, as many as there can be; close "
		         "some, or use another port", l->port.name, NET_NEIGHBOURS_MAX);
	if (err)
		goto fail_port;
	p->base.link = link;
	p->base.remote = config->remote;
	p->base.overhead_bytes = p->flow.is_ip6 ? 48 : 28;
	p->base.front_bytes = l->port.driver.reader == DPDK_READ_COPY ? 0 : p->flow.header_bytes;
	uint32_t mtu = config->mtu_bytes && config->mtu_bytes < l->port.mtu_bytes ? config->mtu_bytes : l->port.mtu_bytes;
	p->base.max_frame_bytes = mtu - p->base.overhead_bytes;
	dpdk_paths_add(l, p);
	net_flow_ready(&l->host, &p->flow, l->now_ns); /* the neighbour is asked for before the first frame waits for it */
	*out = &p->base;
	return 0;

fail_port:
	path_port_give(l, p);
fail:
	free(p);
	return err;
}

static void dpdk_path_close(struct link *link, struct link_path **path)
{
	struct dpdk_link *l = (struct dpdk_link *)link;
	struct dpdk_path *p = (struct dpdk_path *)*path;

	if (!p)
		return;
	dpdk_tx_drop(l, p);
	dpdk_paths_remove(l, p);
	net_flow_release(&l->host, &p->flow);
	path_port_give(l, p);
	/* received and not yet handed out: its port's frames find no path any more, those of the listening port go on as anybody's */
	free(p);
	*path = NULL;
}

static void dpdk_path_reset(struct link *link, struct link_path *path)
{
	dpdk_tx_drop((struct dpdk_link *)link, (struct dpdk_path *)path);
}

/* What was dropped and why, for whoever looks for lost frames. */
static void dpdk_tell_drops(const struct dpdk_link *l)
{
	static const char *const why[NET_DROP_END] = {"short", "other station", "other VLAN", "IP version", "IP checksum", "source", "fragment",
		"IPv6 extension", "UDP checksum", "ICMP checksum", "ARP", "ND", "foreign"};
	struct rte_eth_stats stats = {0};
	if (l->handed_frames || l->own_frames)
		dpdk_log(l, TERN_LOG_DEBUG, "dpdk port %s: link %u: %llu frames by its own queue %u, %llu read for it by other links", l->port.name,
			(unsigned)l->slot, (unsigned long long)l->own_frames, (unsigned)l->rx_queue, (unsigned long long)l->handed_frames);
	for (int i = 0; i < NET_DROP_END; i++)
		if (l->host.drops[i])
			dpdk_log(l, TERN_LOG_DEBUG, "dpdk port %s: %llu frames dropped: %s", l->port.name, (unsigned long long)l->host.drops[i],
				why[i]);
	if (!rte_eth_stats_get(l->port.id, &stats))
		dpdk_log(l, TERN_LOG_DEBUG,
			"dpdk port %s: in %llu frames, out %llu, missed %llu, no buffer %llu, errors %llu in, %llu out; copied %llu bytes",
		         l->port.name, (unsigned long long)stats.ipackets, (unsigned long long)stats.opackets, (unsigned long long)stats.imissed,
		         (unsigned long long)stats.rx_nombuf, (unsigned long long)stats.ierrors, (unsigned long long)stats.oerrors,
		         (unsigned long long)l->base.copied_bytes);
}

static uint64_t close_now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* The twin's connections lose their network with the last link: a goodbye that was just written, or is about to be, still leaves. */
static void close_twin(struct dpdk_link *l)
{
	uint64_t start = close_now_ns(), now = start, busy = start;
	const struct timespec nap = {.tv_nsec = 200000};
	struct rx_frame in[DPDK_BURST];

	while (now - start < DPDK_PART_MAX_NS && (now - start < DPDK_PART_NS || now - busy < DPDK_PART_QUIET_NS)) {
		uint64_t moved = twin_moved(&l->share->twin);
		dpdk_rx_free(&l->base, in, dpdk_rx(&l->base, in, DPDK_BURST, now));
		nanosleep(&nap, NULL);
		now = close_now_ns();
		busy = twin_moved(&l->share->twin) != moved ? now : busy;
	}
}

static void dpdk_close(struct link **link)
{
	struct dpdk_link *l = (struct dpdk_link *)*link;

	if (!l)
		return;
	while (l->n_paths) {
		struct link_path *p = &l->paths[l->n_paths - 1]->base;
		dpdk_path_close(*link, &p);
	}
	if (l->share->twin.fd >= 0 && atomic_load(&l->share->links) == 1)
		close_twin(l);
	dpdk_tell_drops(l);
	dpdk_tx_drop(l, NULL);
	dpdk_rx_close(l);
	bool is_back = dpdk_share_close(l);
	if (l->reserve_fd >= 0)
		close(l->reserve_fd);
	dpdk_eal_log(l, false);
	if (is_back)
		dpdk_free(l);
	*link = NULL;
}

/* Without interrupts: polled at once while frames come, then with pauses that grow with the silence. Frames that another link reads for this one end them. */
static void dpdk_wait(struct link *link, bool armed, struct link_wait *out)
{
	struct dpdk_link *l = (struct dpdk_link *)link;
	uint64_t quiet = l->now_ns - l->heard_ns, nap = quiet / 16, due = net_deadline(&l->host);

	*out = (struct link_wait){.fd = l->wake_fd};
	if (l->n_hold || l->done_tail != l->done_head || l->in_at < l->in_n)
		return;
	if (!l->port.driver.has_interrupt && quiet < DPDK_BUSY_NS)
		return; /* looked at again at once: system calls that arm what nobody will sleep on cost more than the look */
	if (armed) {
		if (!dpdk_share_arm(l))
			return;
		int fd = dpdk_share_interrupt(l);
		if (fd == -2)
			return;
		l->wakes = fd >= 0;
		out->fd = fd >= 0 ? fd : out->fd;
		out->is_same = out->fd == l->told_fd;
		l->told_fd = out->fd;
	}
	if (!l->wakes && quiet < DPDK_BUSY_NS)
		return;
	nap = nap < DPDK_NAP_MIN_NS ? DPDK_NAP_MIN_NS : nap > DPDK_NAP_MAX_NS ? DPDK_NAP_MAX_NS : nap;
	if (l->wakes && l->share->twin.fd < 0) /* a peer that comes anew brings no interrupt of its own */
		out->deadline_ns = l->port.driver.is_local || l->dozes ? l->now_ns + DPDK_DOZE_NS : UINT64_MAX;
	else
		out->deadline_ns = l->now_ns + nap;
	if (l->n_free_slots < DPDK_SLOTS && l->now_ns + DPDK_NAP_MIN_NS < out->deadline_ns)
		out->deadline_ns = l->now_ns + DPDK_NAP_MIN_NS; /* no interrupt tells that the wire has taken them */
	out->deadline_ns = due < out->deadline_ns ? due : out->deadline_ns;
}

__attribute__((visibility("default"))) const struct link_ops link_dpdk_ops = {
	.name = "dpdk",
	.open = dpdk_open,
	.close = dpdk_close,
	.path_open = dpdk_path_open,
	.path_close = dpdk_path_close,
	.path_reset = dpdk_path_reset,
	.mem_map = dpdk_mem_map,
	.mem_unmap = dpdk_mem_unmap,
	.tx = dpdk_tx,
	.reap = dpdk_reap,
	.rx = dpdk_rx,
	.rx_free = dpdk_rx_free,
	.from = dpdk_from,
	.wait = dpdk_wait,
};
