/* What a port does for us beyond moving frames, each where its driver offers it: takes runs of frames apart (UDP segmentation), sends at a time and says when a frame
 * came (its clock is held beside the loop's), puts a received frame's headers and payload into two buffers. port.c asks what to switch on; tx.c and rx.c use it. */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <rte_version.h>
#include "link/dpdk/dpdk.h"
#include "tern/tern.h"

enum { STAMP_TRIES = 8, STAMP_OLD_NS = 1000000000 };

/* Two buffers a frame are several: mlx5 sets such a queue up only with both, and ENOSPC otherwise (mlx5_rxq_new). */
static const uint64_t offload_splits = RTE_ETH_RX_OFFLOAD_BUFFER_SPLIT | RTE_ETH_RX_OFFLOAD_SCATTER;

/* Drivers mean three things by RTE_ETH_TX_OFFLOAD_UDP_TSO. These make datagrams (read in the sources of DPDK 22.11 to 26.07, with the first version that does).
 * Others make fragments of one (nfp, zxdh), or have offered it for years and send the chain as it is (txgbe and ngbe before 26.07). */
static const struct {
	const char *name;
	uint32_t version;
} segmenting[] = {
	{"net_igc", RTE_VERSION_NUM(22, 11, 0, 0)},
	{"net_bnxt", RTE_VERSION_NUM(24, 3, 0, 0)},
	{"net_ice", RTE_VERSION_NUM(26, 3, 0, 0)},
	{"net_i40e", RTE_VERSION_NUM(26, 3, 0, 0)},
	{"net_iavf", RTE_VERSION_NUM(26, 3, 0, 0)},
	{"net_txgbe", RTE_VERSION_NUM(26, 7, 0, 0)},
	{"net_ngbe", RTE_VERSION_NUM(26, 7, 0, 0)},
};

static bool offload_segments(const char *driver)
{
	for (size_t i = 0; i < sizeof(segmenting) / sizeof(segmenting[0]); i++)
		if (!strcmp(segmenting[i].name, driver))
			return RTE_VERSION >= segmenting[i].version;
	return false;
}

static void offload_runs(struct dpdk_port *p, const struct rte_eth_dev_info *info)
{
	const uint64_t want = RTE_ETH_TX_OFFLOAD_UDP_TSO | RTE_ETH_TX_OFFLOAD_UDP_CKSUM | RTE_ETH_TX_OFFLOAD_IPV4_CKSUM |
		RTE_ETH_TX_OFFLOAD_MULTI_SEGS;

	if (p->driver.reader == DPDK_READ_COPY || (info->tx_offload_capa & want) != want || !offload_segments(p->driver.name))
		return;
	p->tx_offloads |= want;
	p->run_segs = RTE_MIN(info->tx_desc_lim.nb_seg_max, (uint16_t)DPDK_RUN_SEGS);
}

/* A port that does not tell its clock can neither be given a time nor say one that means anything to us. */
static void offload_stamps(struct dpdk_port *p, const struct rte_eth_dev_info *info)
{
	const uint64_t rx = RTE_ETH_RX_OFFLOAD_TIMESTAMP, tx = RTE_ETH_TX_OFFLOAD_SEND_ON_TIMESTAMP;
	uint64_t ticks;

	if ((!(info->rx_offload_capa & rx) && !(info->tx_offload_capa & tx)) || rte_eth_read_clock(p->id, &ticks))
		return;
	if (info->rx_offload_capa & rx && !rte_mbuf_dyn_rx_timestamp_register(&p->stamp_at, &p->rx_stamp))
		p->rx_offloads |= rx;
	if (info->tx_offload_capa & tx && !rte_mbuf_dyn_tx_timestamp_register(&p->stamp_at, &p->tx_stamp))
		p->tx_offloads |= tx;
	if (p->tx_stamp && !p->run_segs)
		p->run_segs = 1;
}

/* Two buffers a frame, and drivers leave their fastest way for it (mlx5: no vectors): for frames of pages, where the copy out of the buffer is what costs. */
static void offload_split(struct dpdk_port *p, const struct rte_eth_dev_info *info, const struct dpdk_options *o)
{
	const struct rte_eth_rxseg_capa *can = &info->rx_seg_capa;
	uint32_t network = NET_ETHER_BYTES + (o->net.vlan ? NET_VLAN_BYTES : 0) + (o->net.ip4.s_addr ? NET_IP4_BYTES : NET_IP6_BYTES) + NET_UDP_BYTES;

	if ((info->rx_offload_capa & offload_splits) != offload_splits || p->mtu_bytes < DPDK_SPLIT_MTU)
		return;
	if (can->max_nseg < 2 || !can->multi_pools || !can->offset_allowed || RTE_PKTMBUF_HEADROOM % (1u << can->offset_align_log2))
		return;
	p->rx_offloads |= offload_splits;
	p->split_bytes = (uint16_t)(network + DPDK_SPLIT_HEAD);
}

void dpdk_offload_choose(struct dpdk_link *l, const struct rte_eth_dev_info *info)
{
	if (l->port.driver.is_local)
		return;
	offload_runs(&l->port, info);
	offload_stamps(&l->port, info);
	offload_split(&l->port, info, &l->options);
}

void dpdk_offload_no_split(struct dpdk_port *p)
{
	p->split_bytes = 0;
	p->rx_offloads &= ~offload_splits;
}

void dpdk_offload_none(struct dpdk_port *p)
{
	p->tx_offloads = 0;
	p->rx_offloads &= ~(uint64_t)RTE_ETH_RX_OFFLOAD_TIMESTAMP;
	p->run_segs = 0;
	p->rx_stamp = p->tx_stamp = 0;
}

const char *dpdk_offload_words(const struct dpdk_port *p, char *out, size_t bytes)
{
	snprintf(out, bytes, "%s%s%s%s", p->tx_offloads & RTE_ETH_TX_OFFLOAD_UDP_TSO ? ", it cuts runs of frames" : "",
	         p->tx_stamp ? ", sends at a time" : "", p->rx_stamp ? ", tells times of arrival" : "", p->split_bytes ? ", splits headers off" : "");
	return out;
}

int dpdk_split_queue(const struct dpdk_port *p, uint16_t queue, unsigned socket, struct rte_eth_rxconf *rx)
{
	if (!p->split_bytes)
		return rte_eth_rx_queue_setup(p->id, queue, p->rx_ring, socket, rx, p->data);
	const uint16_t front = RTE_PKTMBUF_HEADROOM; /* the headers are put in front of the payload, which begins with a cache line */
	union rte_eth_rxseg seg[2] = {{.split = {.mp = p->heads, .length = p->split_bytes}},
		{.split = {.mp = p->data, .offset = front, .length = (uint16_t)(rte_pktmbuf_data_room_size(p->data) - front)}}};

	rx->rx_seg = seg;
	rx->rx_nseg = 2;
	int err = rte_eth_rx_queue_setup(p->id, queue, p->rx_ring, socket, rx, NULL);
	rx->rx_seg = NULL;
	rx->rx_nseg = 0;
	return err;
}

size_t dpdk_run_frames(const struct dpdk_port *p, struct frame *const *frames, size_t n)
{
	const struct frame *first = frames[0];
	uint32_t bytes = first->wire_bytes, segs = first->segs + 1u; /* the network's header may be one more */
	size_t k = 1;

	if (first->wire_bytes <= DPDK_INLINE_BYTES || segs > p->frame_segs) /* less than some devices cut; copied */
		return 1;
	for (; k < n && k < DPDK_BURST; k++) {
		const struct frame *last = frames[k - 1], *f = frames[k];
		if (last->burst_end || last->wire_bytes < first->wire_bytes || f->path != first->path || f->wire_bytes > first->wire_bytes ||
		    f->depart_ns != first->depart_ns || f->segs + 1u > p->frame_segs) /* the headers come from a buffer of their own */
			break;
		bytes += f->wire_bytes;
		segs += f->segs;
		if (bytes > DPDK_RUN_BYTES || segs > p->run_segs)
			break;
	}
	return k;
}

/* As rte_mbuf_core.h wants it for TCP, and the drivers in the table for UDP: lengths of the whole, the IPv4 header's checksum 0, the pseudo header's sum without
 * its length. The port mends all of them, and counts the identification on. */
void dpdk_run_close(struct rte_mbuf *m, const struct net_flow *flow, uint32_t each_bytes, uint16_t ip_id)
{
	uint8_t *head = rte_pktmbuf_mtod(m, uint8_t *);

	net_udp_header(flow, head, m->pkt_len - flow->header_bytes, ip_id);
	net_put_raw16(head + flow->udp_at + 6, net_fold(flow->pseudo_sum));
	if (!flow->is_ip6)
		net_put_raw16(head + flow->ip_at + 10, 0);
	m->l2_len = flow->ip_at;
	m->l3_len = flow->udp_at - flow->ip_at;
	m->l4_len = NET_UDP_BYTES;
	m->tso_segsz = each_bytes;
	m->ol_flags |= RTE_MBUF_F_TX_UDP_SEG | RTE_MBUF_F_TX_UDP_CKSUM;
	m->ol_flags |= flow->is_ip6 ? RTE_MBUF_F_TX_IPV6 : RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM;
}

static uint64_t stamp_now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* The quickest of some readings: whoever was interrupted in one says little. */
void dpdk_stamp_tend(struct dpdk_link *l)
{
	uint64_t from = 0, to = UINT64_MAX, ticks = 0;

	for (int i = 0; i < STAMP_TRIES && to - from > TICKS_READ_NS / 8; i++) {
		uint64_t at, start = stamp_now_ns();
		if (rte_eth_read_clock(l->port.id, &at))
			break;
		uint64_t end = stamp_now_ns();
		if (end - start < to - from)
			from = start, to = end, ticks = at;
	}
	if (to == UINT64_MAX) { /* the port has stopped to tell it */
		l->ticks = (struct ticks){.due_ns = l->now_ns + STAMP_OLD_NS};
		l->departs = 0;
		return;
	}
	ticks_read(&l->ticks, from, ticks, to);
	if (!ticks_known(&l->ticks))
		l->departs = 0; /* of a clock that was set: later ones may be before it */
}

void dpdk_stamp_open(struct dpdk_link *l)
{
	l->ticks.due_ns = UINT64_MAX;
	if (!l->port.rx_stamp && !l->port.tx_stamp)
		return;
	l->base.caps |= (l->port.tx_stamp ? LINK_PACES : 0) | (l->port.rx_stamp ? LINK_TIMESTAMPS : 0);
	dpdk_stamp_tend(l); /* the second reading, which gives the rate, is due in TICKS_SPAN_NS: until then no time is told */
}

/* Devices want times in order. */
void dpdk_stamp_tx(struct dpdk_link *l, struct rte_mbuf *m, uint64_t depart_ns)
{
	if (!ticks_known(&l->ticks))
		return;
	uint64_t at = ticks_at(&l->ticks, depart_ns);
	l->departs = at > l->departs ? at : l->departs;
	*RTE_MBUF_DYNFIELD(m, l->port.stamp_at, rte_mbuf_timestamp_t *) = l->departs;
	m->ol_flags |= l->port.tx_stamp;
}

uint64_t dpdk_stamp_rx(struct dpdk_link *l, const struct rte_mbuf *m)
{
	if (!ticks_known(&l->ticks))
		return 0;
	uint64_t ns = ticks_ns(&l->ticks, *RTE_MBUF_DYNFIELD(m, l->port.stamp_at, const rte_mbuf_timestamp_t *));
	if ((int64_t)(ns - l->now_ns) > 0) /* the two clocks are known to some microseconds */
		ns = l->now_ns;
	if (l->now_ns - ns > STAMP_OLD_NS)
		return 0;
	l->arrived_ns = ns > l->arrived_ns ? ns : l->arrived_ns;
	return l->arrived_ns;
}
