/* A port that was found is configured, given its pools and queues, and started. What drivers say of themselves beforehand is not all that they want: where
 * something that frames do not need is refused (two buffers a frame, segmentation, times, several queues), or there is no memory for it, the port is tried again
 * without. Called by port.c at open. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <rte_errno.h>
#include <rte_mbuf_pool_ops.h>
#include "link/dpdk/dpdk.h"
#include "tern/tern.h"

/* What a port can do without. */
enum { LESS_SPLIT = 1, LESS_OFFLOADS = 2, LESS_QUEUES = 4, LESS_END = 8 };

#define START_FAIL(config, err, ...) (snprintf((config)->error, (config)->error_bytes, __VA_ARGS__), -(err))

const char *dpdk_port_words(char *out, size_t bytes)
{
	char words[160];
	dpdk_eal_words(words, sizeof(words));
	snprintf(out, bytes, *words ? "; DPDK says: %s" : "%s", words);
	return out;
}

/* Descriptors wanted each way. Between processes both cores go round and round in the ring's buffers: more of them than the caches hold cost more than they help, and
 * a full ring holds the sender back, nothing is lost. tern-bw, virtio-user side sending 8 KiB frames to a core of the same cache: 1000 ns a frame with 1024
 * descriptors (8 MiB), 590 with 256. What comes from a wire is lost while nobody looks: there the ring is as long as it may be. */
static uint16_t start_ring(const struct dpdk_port *p)
{
	uint32_t ring = DPDK_RING;
	while (p->driver.is_local && ring > DPDK_RING_LEAST && ring * p->mtu_bytes > DPDK_LOCAL_BYTES + DPDK_LOCAL_BYTES / 8)
		ring /= 2;
	return (uint16_t)ring;
}

/* A driver that keeps our copies until its ring is full (virtio-user with queue_size=1024) goes round in all of them: 1400 B frames cost 750 cycles to send with 1024 on
 * their way, 200 with 512 (dpdk-frame), and the pair of processes 310 and 175 ns a frame. */
static uint16_t start_tx_ring(const struct dpdk_port *p)
{
	uint16_t ring = start_ring(p);
	return p->driver.is_local && p->driver.reader == DPDK_READ_COPY && ring > DPDK_COPIES_RING ? DPDK_COPIES_RING : ring;
}

/* Frames that are taken at once, and in a step of the loop. What the driver has copied into mbufs with this core is in its second cache until it is placed: 8 KiB
 * frames over memif cost 640 ns each if 64 of them are taken, 565 if 32, and no less if fewer. */
static uint16_t start_take(const struct dpdk_port *p)
{
	uint32_t take = DPDK_BURST;
	while (p->driver.copies_in && take * p->mtu_bytes > DPDK_TAKE_BYTES + DPDK_TAKE_BYTES / 8)
		take /= 2;
	return (uint16_t)take;
}

static int start_configure(struct dpdk_port *p, const struct rte_eth_dev_info *info, uint16_t mtu, const struct link_config *config)
{
	const uint64_t rx_sums = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
	const uint64_t tx_sums = RTE_ETH_TX_OFFLOAD_UDP_CKSUM; /* the IPv4 header's costs nothing: its template has it */
	struct rte_eth_conf conf = {.rxmode.mtu = mtu};
	char words[192];

	if (p->driver.reader != DPDK_READ_COPY)
		p->tx_offloads |= RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
	if (!p->driver.is_local && (info->rx_offload_capa & rx_sums) == rx_sums)
		p->rx_offloads |= rx_sums;
	if (!p->driver.is_local && (info->tx_offload_capa & tx_sums) == tx_sums)
		p->tx_offloads |= tx_sums;
	conf.rxmode.offloads = p->rx_offloads;
	conf.txmode.offloads = p->tx_offloads;
	conf.intr_conf.rxq = p->driver.has_interrupt;
	p->tx_queues = p->driver.one_queue ? 1 : (uint16_t)RTE_MIN((unsigned)info->max_tx_queues, (unsigned)DPDK_LINKS_MAX);
	if (p->driver.pairs)
		p->tx_queues = p->rx_queues;
	int err = rte_eth_dev_configure(p->id, p->rx_queues, p->tx_queues, &conf);
	if (err && conf.intr_conf.rxq) {
		conf.intr_conf.rxq = 0;
		p->driver.has_interrupt = false;
		err = rte_eth_dev_configure(p->id, p->rx_queues, p->tx_queues, &conf);
	}
	if (err)
		return START_FAIL(config, TERN_EIO, "dpdk: port %s does not take its configuration: %s%s", p->name, rte_strerror(-err),
		                  dpdk_port_words(words, sizeof(words)));
	err = mtu == p->mtu_bytes && !p->driver.is_shared ? rte_eth_dev_set_mtu(p->id, mtu) : 0; /* the kernel's own is not ours to change */
	if (err && err != -ENOTSUP)
		return START_FAIL(config, TERN_EADDR, "dpdk: port %s does not take an MTU of %u: %s%s", p->name, mtu, rte_strerror(-err),
		                  dpdk_port_words(words, sizeof(words)));
	p->rx_ring = start_ring(p);
	p->tx_ring = start_tx_ring(p);
	p->rx_take = start_take(p);
	rte_eth_dev_adjust_nb_rx_tx_desc(p->id, &p->rx_ring, &p->tx_ring);
	return 0;
}

static void start_memory_free(struct rte_mempool_memhdr *chunk, void *memory)
{
	(void)chunk;
	rte_memzone_free(memory);
}

/* The af_xdp driver registers `objects x size` bytes from the first object on, and the kernel takes no buffer that crosses from one page into a foreign one: an object
 * is a power of two, in a page, and all of them are one piece. A usual pool in pages of 4 KiB has one object of 2368 bytes in each, and two in five lie beyond what
 * is registered; in huge pages it is as many pieces as those are apart. */
static int start_one_piece(struct rte_mempool *pool, const char *name)
{
	size_t size = pool->header_size + pool->elt_size + pool->trailer_size;
	struct rte_pktmbuf_pool_private priv = {.mbuf_data_room_size = (uint16_t)(pool->elt_size - sizeof(struct rte_mbuf))};
	const struct rte_memzone *memory = rte_memzone_reserve_aligned(name, pool->size * size, pool->socket_id, 0, (unsigned)sysconf(_SC_PAGESIZE));

	if (!memory)
		return -ENOMEM;
	rte_pktmbuf_pool_init(pool, &priv);
	if (rte_mempool_set_ops_byname(pool, rte_mbuf_best_mempool_ops(), NULL) ||
	    rte_mempool_populate_iova(pool, memory->addr, RTE_BAD_IOVA, memory->len, start_memory_free, (void *)(uintptr_t)memory) !=
	        (int)pool->size) {
		if (!pool->nb_mem_chunks)
			rte_memzone_free(memory);
		return -ENOMEM;
	}
	rte_mempool_obj_iter(pool, rte_pktmbuf_init, NULL);
	return 0;
}

/* Whole frames, each in an mbuf with so much room. */
static struct rte_mempool *start_data_pool(const struct dpdk_port *p, const char *name, unsigned n, unsigned cache, uint16_t room)
{
	int socket = rte_eth_dev_socket_id(p->id);

	if (!p->driver.in_page)
		return rte_pktmbuf_pool_create(name, n, cache, 0, room, socket);
	struct rte_mempool *pool = rte_mempool_create_empty(name, n, sizeof(struct rte_mbuf) + room, cache,
		sizeof(struct rte_pktmbuf_pool_private), socket, RTE_MEMPOOL_F_NO_SPREAD | RTE_MEMPOOL_F_NO_IOVA_CONTIG);
	if (!pool || !start_one_piece(pool, name))
		return pool;
	rte_mempool_free(pool);
	return NULL;
}

static uint32_t start_room(const struct dpdk_port *p)
{
	uint32_t front = rte_mempool_calc_obj_size(sizeof(struct rte_mbuf), RTE_MEMPOOL_F_NO_SPREAD, NULL);
	uint32_t frame = DPDK_ROOM_BESIDE + p->driver.own_bytes + p->mtu_bytes;

	if (p->driver.in_page)
		return rte_align32pow2(front + frame) - front;
	if (p->driver.block_bytes)
		frame = RTE_MAX(frame, RTE_PKTMBUF_HEADROOM + p->driver.buffer_bytes);
	return frame > RTE_MBUF_DEFAULT_BUF_SIZE ? RTE_ALIGN_CEIL(frame, DPDK_ROOM_STEP) : RTE_MBUF_DEFAULT_BUF_SIZE;
}

/* All that may be lent, on its way or waiting has its mbuf: sized once. A later try wants no more than the one that made them. */
static int start_pools(struct dpdk_port *p, const struct link_config *config)
{
	char name[32];
	int socket = rte_eth_dev_socket_id(p->id);
	unsigned cache = 256, slack = 4 * DPDK_BURST + cache * 2;
	uint32_t room = start_room(p);

	if (p->data)
		return 0;
	snprintf(name, sizeof(name), "tern_data_%u", p->id);
	unsigned stock = DPDK_BURST * DPDK_LINKS_MAX; /* ready in each link's hands */
	unsigned frames = p->rx_ring * p->rx_queues + p->tx_ring * p->tx_queues + DPDK_LENT_MAX + DPDK_HANDED_MAX + stock + slack;
	p->data = start_data_pool(p, name, frames, cache, (uint16_t)room);
	snprintf(name, sizeof(name), "tern_head_%u", p->id);
	unsigned held = DPDK_LINKS_MAX * 3 * DPDK_BURST; /* by links that nobody polls: in stock, and in chains of two */
	held += p->split_bytes ? p->rx_ring * p->rx_queues + DPDK_BURST : 0;
	if (p->data)
		p->heads = rte_pktmbuf_pool_create(name, 2u * p->tx_ring * (p->tx_queues + 1u) + held + slack, cache, 0, DPDK_HEAD_ROOM, socket);
	if (p->heads)
		return 0;
	rte_mempool_free(p->data);
	p->data = NULL;
	return START_FAIL(config, TERN_ENOMEM,
		"dpdk: no memory for %u packets of %u bytes; reserve more hugepages, or give more than -m says, or a smaller mtu=", frames, room);
}

/* Queues and start. @return as DPDK's functions */
static int start_queues(struct dpdk_port *p, const struct rte_eth_dev_info *info)
{
	struct rte_eth_rxconf rx = info->default_rxconf;
	struct rte_eth_txconf tx = info->default_txconf;
	unsigned socket = (unsigned)rte_eth_dev_socket_id(p->id);
	int err = 0;

	rx.offloads = p->rx_offloads;
	tx.offloads = p->tx_offloads;
	for (uint16_t i = 0; !err && i < p->rx_queues; i++)
		err = dpdk_split_queue(p, i, socket, &rx);
	for (uint16_t i = 0; !err && i < p->tx_queues; i++)
		err = dpdk_mem_queue(p, i, socket, &tx);
	return err ? err : rte_eth_dev_start(p->id);
}

static const char *start_remedy(const struct dpdk_link *l, int err)
{
	if (err == -ENOMEM)
		return "; reserve more hugepages, or give more than -m says, or a smaller mtu=";
	if (l->port.driver.in_page && err == -EINVAL)
		return "; XDP takes no interface whose MTU is near a page or above, nor a veth whose other end's is (ip link set DEV mtu 1500)";
	return "";
}

/* One try. */
static int start_try(struct dpdk_link *l, const struct rte_eth_dev_info *info, uint16_t mtu, const struct link_config *config)
{
	struct dpdk_port *p = &l->port;
	char words[192];

	int err = start_configure(p, info, mtu, config);
	if (!err)
		err = start_pools(p, config);
	if (!err && p->driver.in_interrupt)
		err = dpdk_memif_open(l);
	if (err)
		return err;
	err = start_queues(p, info);
	if (err)
		return START_FAIL(config, err == -ENOMEM ? TERN_ENOMEM : TERN_EIO, "dpdk: port %s does not start: %s%s%s", p->name,
			rte_strerror(-err), dpdk_port_words(words, sizeof(words)), start_remedy(l, err));
	p->is_started = true;
	return 0;
}

/* What is on that could be left out. */
static unsigned start_spare(const struct dpdk_port *p)
{
	bool has_offloads = p->run_segs || p->rx_stamp || p->tx_stamp;
	return (p->split_bytes ? LESS_SPLIT : 0) | (has_offloads ? LESS_OFFLOADS : 0) | (p->rx_queues > 1 ? LESS_QUEUES : 0);
}

static void start_without(struct dpdk_port *p, unsigned less)
{
	if (less & LESS_SPLIT)
		dpdk_offload_no_split(p);
	if (less & LESS_OFFLOADS)
		dpdk_offload_none(p);
	if (less & LESS_QUEUES)
		p->rx_queues = 1;
}

/* The rings of a try that found no memory for all of them are given back, then the pools, which nothing holds any more. Whatever the driver says to a port without a
 * receive queue, its queues are gone. */
static void start_forget(struct dpdk_port *p)
{
	const struct rte_eth_conf none = {0};
	char words[192];

	rte_eth_dev_configure(p->id, 0, 1, &none);
	rte_mempool_free(p->data);
	rte_mempool_free(p->heads);
	p->data = p->heads = NULL;
	dpdk_eal_words(words, sizeof(words));
}

/* The next try, of which all but the pools is as it was chosen. */
static void start_reset(struct dpdk_port *p, const struct dpdk_port *chosen, unsigned less)
{
	struct rte_mempool *data = p->data, *heads = p->heads;

	*p = *chosen;
	p->data = data;
	p->heads = heads;
	start_without(p, less);
}

/* A try failed: its rings are given back if there was no memory for all of them. @return what no later try is to have */
static unsigned start_failed(struct dpdk_link *l, int err, unsigned less)
{
	if (err != -TERN_ENOMEM)
		return 0;
	if (l->port.data)
		start_forget(&l->port);
	if (l->port.rx_queues > 1)
		dpdk_steer_one(l, "there is no memory for more");
	return less | LESS_QUEUES; /* which want the most */
}

/* Rules are refused: queues that none brings anything to would keep what comes there. */
static unsigned start_refused(struct dpdk_port *p, unsigned less)
{
	rte_eth_dev_stop(p->id);
	p->is_started = false;
	return less | LESS_QUEUES;
}

int dpdk_port_start(struct dpdk_link *l, const struct rte_eth_dev_info *info, uint16_t mtu, const struct link_config *config)
{
	static const unsigned order[] = {0, LESS_SPLIT, LESS_SPLIT | LESS_OFFLOADS, LESS_QUEUES, LESS_QUEUES | LESS_SPLIT,
		LESS_QUEUES | LESS_SPLIT | LESS_OFFLOADS};
	struct dpdk_port *p = &l->port;
	unsigned never = 0, tried = 0, at = 0;
	int err = 0;
	char words[192];

	dpdk_offload_choose(l, info);
	p->rx_queues = dpdk_steer_queues(l, info);
	const struct dpdk_port chosen = *p;
	const unsigned spare = start_spare(p);
	while (at < sizeof(order) / sizeof(order[0])) {
		unsigned less = (order[at] | never) & spare;
		if (tried & 1u << less) {
			at++;
			continue;
		}
		tried |= 1u << less;
		if (err)
			dpdk_log(l, TERN_LOG_INFO, "%s; tried again%s%s%s", config->error, less & LESS_QUEUES ? " with one receive queue" : "",
				less & LESS_SPLIT ? " without headers split off" : "",
				less & LESS_OFFLOADS ? " without segmentation and times" : "");
		if (less & LESS_QUEUES && !*l->share->one_why)
			dpdk_steer_one(l, "with more it does not start");
		start_reset(p, &chosen, less);
		err = start_try(l, info, mtu, config);
		if (!err && (p->rx_queues == 1 || dpdk_steer_open(l)))
			break;
		unsigned more = err ? start_failed(l, err, less) : start_refused(p, less);
		at = more ? 0 : at; /* tried before: passed over */
		never |= more;
		dpdk_eal_words(words, sizeof(words)); /* what the driver said of it is not the next error's */
	}
	if (err)
		return err;
	*config->error = 0;
	rte_eth_promiscuous_disable(p->id);
	rte_eth_allmulticast_enable(p->id); /* neighbour discovery; what does not filter needs no telling */
	return 0;
}
