/* The NICs of dpdk_model.h. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include <rte_errno.h>
#include <rte_ether.h>
#include <rte_flow.h>
#include <rte_ip.h>
#include <rte_mbuf_dyn.h>
#include <rte_udp.h>
#include "dpdk_model.h"

enum { TICK_NS = 8 }; /* 125 MHz, 30 ppm too fast, that started some time ago */
#define TICKS_AGO 123456789012345u

struct model model[2];
unsigned model_mbufs_most;
uint64_t model_back_ns;
struct model_datagram model_log[MODEL_LOG];
size_t model_logged;
static uint64_t rx_flag, tx_flag;
static int field = -1;

void model_must(bool x, const char *what, int line)
{
	if (x)
		return;
	printf("FAILED line %d: %s\n", line, what);
	exit(1);
}

uint64_t model_now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

uint64_t model_ticks(uint64_t ns)
{
	ns -= model_back_ns;
	return TICKS_AGO + ns / TICK_NS + ns / TICK_NS / 1000 * 30 / 1000;
}

uint64_t model_ns(uint64_t ticks)
{
	uint64_t high = (ticks - TICKS_AGO) * TICK_NS + model_back_ns, low = high / 2;
	while (low < high) {
		uint64_t mid = low + (high - low) / 2;
		if (model_ticks(mid) < ticks)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* ---- what stands in for DPDK's functions */

static struct model *model_of(uint16_t port)
{
	char name[RTE_ETH_NAME_MAX_LEN];
	if (rte_eth_dev_get_name_by_port(port, name) || strncmp(name, "net_null", 8))
		return NULL;
	return &model[name[8] == '1'];
}

int rte_eth_dev_info_get(uint16_t port, struct rte_eth_dev_info *info)
{
	int (*next)(uint16_t, struct rte_eth_dev_info *) = (int (*)(uint16_t, struct rte_eth_dev_info *))dlsym(RTLD_NEXT, __func__);
	struct model *m = model_of(port);
	int err = next(port, info);
	if (err || !m)
		return err;
	info->driver_name = m->driver;
	info->tx_offload_capa = m->tx_capa;
	info->rx_offload_capa = m->rx_capa;
	info->tx_desc_lim.nb_seg_max = m->nb_seg_max;
	info->tx_desc_lim.nb_mtu_seg_max = m->nb_mtu_seg_max ? m->nb_mtu_seg_max : UINT16_MAX;
	info->max_mtu = 9216;
	info->max_tx_queues = info->max_rx_queues = MODEL_QUEUES;
	if (m->rx_capa & RTE_ETH_RX_OFFLOAD_BUFFER_SPLIT) {
		info->rx_seg_capa.max_nseg = 2;
		info->rx_seg_capa.multi_pools = info->rx_seg_capa.offset_allowed = 1;
	}
	return 0;
}

/* As drivers do: a line in the log. */
static int refuse(int err)
{
	rte_log(RTE_LOG_ERR, RTE_LOGTYPE_PMD, "the model refuses it\n");
	return err;
}

int rte_eth_dev_configure(uint16_t port, uint16_t rx, uint16_t tx, const struct rte_eth_conf *conf)
{
	int (*next)(uint16_t, uint16_t, uint16_t, const struct rte_eth_conf *) =
		(int (*)(uint16_t, uint16_t, uint16_t, const struct rte_eth_conf *))dlsym(RTLD_NEXT, __func__);
	struct rte_eth_conf plain = *conf;
	struct model *m = model_of(port);
	m->tx_asked = conf->txmode.offloads;
	m->rx_asked = conf->rxmode.offloads;
	MUST(!(m->tx_asked & ~m->tx_capa) && !(m->rx_asked & ~m->rx_capa));
	m->rx_queues = rx;
	m->tries++;
	if (m->refuses_all)
		return m->refuses_all;
	if (m->refuses_offloads && ((m->rx_asked & RTE_ETH_RX_OFFLOAD_TIMESTAMP) ||
	                            (m->tx_asked & (RTE_ETH_TX_OFFLOAD_UDP_TSO | RTE_ETH_TX_OFFLOAD_SEND_ON_TIMESTAMP))))
		return refuse(m->refuses_offloads);
	plain.txmode.offloads = plain.rxmode.offloads = 0;
	return next(port, rx, RTE_MIN(tx, 1), &plain);
}

struct rte_mempool *rte_pktmbuf_pool_create(const char *name, unsigned n, unsigned cache, uint16_t priv, uint16_t room, int socket)
{
	struct rte_mempool *(*next)(const char *, unsigned, unsigned, uint16_t, uint16_t, int) =
		(struct rte_mempool * (*)(const char *, unsigned, unsigned, uint16_t, uint16_t, int)) dlsym(RTLD_NEXT, __func__);
	rte_errno = ENOMEM;
	return !strncmp(name, "tern_data", 9) && model_mbufs_most && n > model_mbufs_most ? NULL : next(name, n, cache, priv, room, socket);
}

int rte_eth_rx_queue_setup(uint16_t port, uint16_t queue, uint16_t n, unsigned socket, const struct rte_eth_rxconf *conf, struct rte_mempool *pool)
{
	int (*next)(uint16_t, uint16_t, uint16_t, unsigned, const struct rte_eth_rxconf *, struct rte_mempool *) =
		(int (*)(uint16_t, uint16_t, uint16_t, unsigned, const struct rte_eth_rxconf *, struct rte_mempool *))dlsym(RTLD_NEXT, __func__);
	struct model *m = model_of(port);
	if (queue && m->refuses_queues)
		return refuse(m->refuses_queues);
	m->split_bytes = 0;
	m->clock_ns[0] = 0;
	m->pool[0] = m->pool[1] = pool;
	if (conf->rx_nseg) {
		const struct rte_eth_rxseg_split *s = &conf->rx_seg[0].split, *t = &conf->rx_seg[1].split;
		MUST(!pool && conf->rx_nseg == 2 && m->rx_asked & conf->offloads & RTE_ETH_RX_OFFLOAD_BUFFER_SPLIT);
		if (!(conf->offloads & RTE_ETH_RX_OFFLOAD_SCATTER)) /* as mlx5 */
			return refuse(-ENOSPC);
		MUST(RTE_PKTMBUF_HEADROOM + s->offset + s->length <= rte_pktmbuf_data_room_size(s->mp) && !s->offset);
		MUST(t->length && t->offset + t->length <= rte_pktmbuf_data_room_size(t->mp));
		if (m->refuses_split)
			return refuse(-EINVAL);
		m->split_bytes = s->length;
		m->split_offset = t->offset;
		m->pool[0] = s->mp;
		m->pool[1] = t->mp;
	} else {
		MUST(pool && !(m->rx_asked & (RTE_ETH_RX_OFFLOAD_BUFFER_SPLIT | RTE_ETH_RX_OFFLOAD_SCATTER)));
	}
	return next(port, queue, n, socket, NULL, m->pool[1]);
}

int rte_eth_tx_queue_setup(uint16_t port, uint16_t queue, uint16_t n, unsigned socket, const struct rte_eth_txconf *conf)
{
	int (*next)(uint16_t, uint16_t, uint16_t, unsigned, const struct rte_eth_txconf *) =
		(int (*)(uint16_t, uint16_t, uint16_t, unsigned, const struct rte_eth_txconf *))dlsym(RTLD_NEXT, __func__);
	(void)conf;
	return queue ? 0 : next(port, queue, n, socket, NULL);
}

int rte_eth_read_clock(uint16_t port, uint64_t *clock)
{
	struct model *m = model_of(port);
	if (!(m->rx_capa & RTE_ETH_RX_OFFLOAD_TIMESTAMP) && !(m->tx_capa & RTE_ETH_TX_OFFLOAD_SEND_ON_TIMESTAMP))
		return -ENOTSUP;
	m->clock_ns[1] = model_now_ns();
	m->clock_ns[0] = m->clock_ns[0] ? m->clock_ns[0] : m->clock_ns[1];
	*clock = model_ticks(m->clock_ns[1]);
	return 0;
}

int rte_eth_tx_done_cleanup(uint16_t port, uint16_t queue, uint32_t n)
{
	(void)port, (void)queue, (void)n;
	return 0; /* what it was given is back already */
}

int rte_flow_validate(uint16_t port, const struct rte_flow_attr *attr, const struct rte_flow_item items[], const struct rte_flow_action actions[],
                      struct rte_flow_error *error)
{
	(void)attr, (void)items, (void)actions;
	if (model_of(port)->takes_rules)
		return 0;
	return rte_flow_error_set(error, ENOSYS, RTE_FLOW_ERROR_TYPE_UNSPECIFIED, NULL, "none here");
}

struct rte_flow *rte_flow_create(uint16_t port, const struct rte_flow_attr *attr, const struct rte_flow_item items[],
                                 const struct rte_flow_action actions[], struct rte_flow_error *error)
{
	struct model *m = model_of(port);
	struct model_rule r = {.is_used = true, .queue = ((const struct rte_flow_action_queue *)actions[0].conf)->index};
	MUST(attr->ingress && actions[0].type == RTE_FLOW_ACTION_TYPE_QUEUE && r.queue < m->rx_queues);
	for (; items->type != RTE_FLOW_ITEM_TYPE_END; items++) {
		r.is_ip6 |= items->type == RTE_FLOW_ITEM_TYPE_IPV6;
		if (items->type == RTE_FLOW_ITEM_TYPE_UDP)
			r.port = rte_be_to_cpu_16(((const struct rte_flow_item_udp *)items->spec)->hdr.dst_port);
	}
	MUST(r.port);
	if (m->refuses_rules) {
		rte_flow_error_set(error, EINVAL, RTE_FLOW_ERROR_TYPE_UNSPECIFIED, NULL, "not this one");
		return NULL;
	}
	for (unsigned i = 0; i < (m->rules_max ? m->rules_max : MODEL_RULES); i++)
		if (!m->rules[i].is_used) {
			m->rules[i] = r;
			return (struct rte_flow *)&m->rules[i];
		}
	rte_flow_error_set(error, ENOSPC, RTE_FLOW_ERROR_TYPE_UNSPECIFIED, NULL, "the table is full");
	return NULL;
}

int rte_flow_destroy(uint16_t port, struct rte_flow *flow, struct rte_flow_error *error)
{
	struct model_rule *r = (struct model_rule *)flow;
	(void)port, (void)error;
	MUST(r->is_used);
	r->is_used = false;
	return 0;
}

int rte_eth_dev_rx_intr_ctl_q_get_fd(uint16_t port, uint16_t queue)
{
	struct model *m = model_of(port);
	if (!m->interrupt[queue])
		m->interrupt[queue] = eventfd(0, EFD_NONBLOCK);
	return m->interrupt[queue];
}

int rte_eth_dev_rx_intr_enable(uint16_t port, uint16_t queue)
{
	struct model *m = model_of(port);
	m->is_on[queue] = true;
	if (m->armed)
		m->armed(queue);
	return 0;
}

int rte_eth_dev_rx_intr_disable(uint16_t port, uint16_t queue)
{
	model_of(port)->is_on[queue] = false;
	return 0;
}

/* ---- sending */

static uint16_t sum16(const uint8_t *p, size_t n, uint32_t sum)
{
	for (size_t i = 0; i + 1 < n; i += 2)
		sum += (uint32_t)p[i] << 8 | p[i + 1];
	if (n & 1)
		sum += (uint32_t)p[n - 1] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

/* One datagram leaves. @param udp_at  0: no UDP */
static void wire(struct model *from, const uint8_t *frame, size_t n, const struct rte_mbuf *m, size_t udp_at)
{
	if (from == &model[0] && udp_at) {
		MUST(model_logged < MODEL_LOG && n <= MODEL_FRAME);
		struct model_datagram *d = &model_log[model_logged++];
		memcpy(d->bytes, frame, n);
		d->n = n;
		d->chain = m->ol_flags & RTE_MBUF_F_TX_UDP_SEG ? from->chains : 0;
		d->has_stamp = tx_flag && m->ol_flags & tx_flag;
		d->stamp = d->has_stamp ? *RTE_MBUF_DYNFIELD(m, field, uint64_t *) : 0;
	}
	if (!from->is_lost)
		model_deliver(from == &model[0] ? &model[1] : &model[0], frame, n);
}

/* The checksum that the hardware was asked for: what is in its place already is added to it. */
static void finish_udp(uint8_t *udp, size_t n)
{
	uint16_t sum = (uint16_t)~sum16(udp, n, 0);
	put16(udp + 6, sum ? sum : 0xffff);
}

/* Of a packet on the wire: the device reads its bytes from so many buffers, and in a chain the headers from the first. */
static void count_segs(struct model *from, const struct rte_mbuf *m, size_t start, size_t end)
{
	size_t at = 0;
	unsigned segs = start > 0;
	for (; m; at += m->data_len, m = m->next)
		segs += at < end && at + m->data_len > start;
	from->packet_segs_max = RTE_MAX(from->packet_segs_max, segs);
	MUST(!from->nb_mtu_seg_max || segs <= from->nb_mtu_seg_max);
}

/* What comes out of a chain, one after the other, in which lengths, identification and checksums are mended. */
static void segment(struct model *from, uint8_t *frame, size_t n, const struct rte_mbuf *m)
{
	size_t ip_at = m->l2_len, udp_at = ip_at + m->l3_len, head = udp_at + m->l4_len;
	bool is_ip6 = m->ol_flags & RTE_MBUF_F_TX_IPV6;
	unsigned id = (unsigned)frame[ip_at + 4] << 8 | frame[ip_at + 5];
	uint8_t out[MODEL_FRAME];

	MUST(from->tx_asked & RTE_ETH_TX_OFFLOAD_UDP_TSO && m->l4_len == 8 && m->tso_segsz && n > head + m->tso_segsz);
	MUST(is_ip6 ? m->l3_len == 40 : m->l3_len == 20 && m->ol_flags & RTE_MBUF_F_TX_IP_CKSUM && !frame[ip_at + 10] && !frame[ip_at + 11]);
	for (size_t at = head, k = 0; at < n; at += m->tso_segsz, k++) {
		size_t part = RTE_MIN((size_t)m->tso_segsz, n - at);
		count_segs(from, m, k ? at : 0, at + part);
		memcpy(out, frame, head);
		memcpy(out + head, frame + at, part);
		put16(out + udp_at + 4, (unsigned)(8 + part));
		if (is_ip6) {
			put16(out + ip_at + 4, (unsigned)(8 + part));
		} else {
			put16(out + ip_at + 2, (unsigned)(28 + part));
			put16(out + ip_at + 4, id + (unsigned)k);
			put16(out + ip_at + 10, (uint16_t)~sum16(out + ip_at, 20, 0));
		}
		/* the pseudo header's length is not in the sum that was given */
		put16(out + udp_at + 6, sum16(out + udp_at + 6, 2, (uint32_t)(8 + part)));
		finish_udp(out + udp_at, 8 + part);
		wire(from, out, head + part, m, udp_at);
	}
}

static void send_one(struct model *from, struct rte_mbuf *m)
{
	static uint8_t flat[1 << 17];
	size_t n = 0, udp_at = 0;
	unsigned segs = 0;

	for (const struct rte_mbuf *s = m; s; s = s->next, segs++) {
		MUST(s->data_len && n + s->data_len <= sizeof(flat));
		memcpy(flat + n, rte_pktmbuf_mtod(s, const uint8_t *), s->data_len);
		n += s->data_len;
	}
	MUST(n <= RTE_ETHER_HDR_LEN + UINT16_MAX && n == m->pkt_len && segs == m->nb_segs && segs <= from->nb_seg_max && !rte_validate_tx_offload(m));
	if (m->ol_flags & RTE_MBUF_F_TX_UDP_SEG) {
		from->chains++;
		from->chain_segs_max = RTE_MAX(from->chain_segs_max, segs);
		segment(from, flat, n, m);
		return;
	}
	count_segs(from, m, 0, n);
	if (m->ol_flags & RTE_MBUF_F_TX_UDP_CKSUM) {
		udp_at = m->l2_len + (size_t)m->l3_len;
		finish_udp(flat + udp_at, n - udp_at);
	} else if (n > 42 && ((flat[12] == 8 && !flat[13] && flat[23] == 17) || (flat[12] == 0x86 && flat[20] == 17))) {
		udp_at = flat[12] == 8 ? 34 : 54;
	}
	wire(from, flat, n, m, udp_at);
}

static uint16_t send_all(struct model *from, struct rte_mbuf **m, uint16_t n)
{
	for (uint16_t i = 0; i < n; i++) {
		send_one(from, m[i]);
		rte_pktmbuf_free(m[i]);
	}
	return n;
}

static uint16_t tx0(void *queue, struct rte_mbuf **m, uint16_t n)
{
	(void)queue;
	return send_all(&model[0], m, n);
}

static uint16_t tx1(void *queue, struct rte_mbuf **m, uint16_t n)
{
	(void)queue;
	return send_all(&model[1], m, n);
}

static uint16_t prepare0(void *queue, struct rte_mbuf **m, uint16_t n)
{
	(void)queue, (void)m;
	return model[0].refuses_chain ? 0 : n;
}

/* ---- receiving */

static struct rte_mbuf *piece(struct rte_mempool *pool, const uint8_t *bytes, size_t n, uint16_t headroom)
{
	struct rte_mbuf *m = rte_pktmbuf_alloc(pool);
	MUST(m && (size_t)headroom + n <= m->buf_len);
	m->data_off = headroom;
	m->data_len = (uint16_t)n;
	memcpy(rte_pktmbuf_mtod(m, uint8_t *), bytes, n);
	return m;
}

static uint16_t queue_for(const struct model *to, const uint8_t *frame, size_t n)
{
	bool is_ip6 = n > 62 && frame[12] == 0x86 && frame[13] == 0xdd && frame[20] == 17;
	bool is_ip4 = n > 42 && frame[12] == 8 && !frame[13] && frame[23] == 17;
	const uint8_t *port = frame + (is_ip6 ? 56 : 36);
	for (unsigned i = 0; (is_ip4 || is_ip6) && i < MODEL_RULES; i++)
		if (to->rules[i].is_used && to->rules[i].is_ip6 == is_ip6 && to->rules[i].port == (port[0] << 8 | port[1]))
			return to->rules[i].queue;
	return 0;
}

void model_deliver(struct model *to, const uint8_t *bytes, size_t n)
{
	struct model_cut cut = to->cut;
	struct rte_mbuf *first = NULL, **at = &first;
	size_t from = 0;
	unsigned k = 0;

	if (!cut.cuts && to->split_bytes && n > to->split_bytes)
		cut = (struct model_cut){.cuts = 1, .at = {to->split_bytes}, .headroom = to->split_offset};
	for (; from < n; k++) {
		size_t end = k < cut.cuts && cut.at[k] < n ? cut.at[k] : n;
		/* a first piece that is too long for the headers' pool was not what the port was set up for */
		bool in_head = !k && end <= RTE_PKTMBUF_HEADROOM;
		*at = piece(to->pool[!in_head], bytes + from, end - from, k ? cut.headroom : RTE_PKTMBUF_HEADROOM);
		at = &(*at)->next;
		from = end;
	}
	first->nb_segs = (uint16_t)k;
	first->pkt_len = (uint32_t)n;
	if (to->rx_asked & RTE_ETH_RX_OFFLOAD_TIMESTAMP) {
		*RTE_MBUF_DYNFIELD(first, field, uint64_t *) = model_ticks(model_now_ns() + to->stamp_ahead_ns - to->stamp_behind_ns);
		first->ol_flags |= rx_flag;
	}
	uint16_t queue = queue_for(to, bytes, n);
	MUST(to->n_in[queue] < MODEL_QUEUE);
	to->in[queue][to->n_in[queue]++] = first;
	if (to->is_on[queue])
		MUST(!eventfd_write(to->interrupt[queue], 1));
}

static uint16_t queue_of(const struct model *m, const void *queue)
{
	uint16_t i = 0;
	while (rte_eth_fp_ops[m->id].rxq.data[i] != queue)
		MUST(++i < m->rx_queues);
	return i;
}

static uint16_t receive(struct model *to, const void *queue, struct rte_mbuf **m, uint16_t n)
{
	uint16_t q = queue_of(to, queue), k = (uint16_t)RTE_MIN((size_t)n, to->n_in[q]);
	memcpy(m, to->in[q], k * sizeof(*m));
	to->n_in[q] -= k;
	memmove(to->in[q], to->in[q] + k, to->n_in[q] * sizeof(*m));
	return k;
}

static uint32_t count1(void *queue)
{
	return (uint32_t)model[1].n_in[queue_of(&model[1], queue)];
}

static uint16_t rx0(void *queue, struct rte_mbuf **m, uint16_t n)
{
	return receive(&model[0], queue, m, n);
}

static uint16_t rx1(void *queue, struct rte_mbuf **m, uint16_t n)
{
	return receive(&model[1], queue, m, n);
}

void model_attach(unsigned i)
{
	char name[16];
	snprintf(name, sizeof(name), "net_null%u", i);
	MUST(!rte_eth_dev_get_port_by_name(name, &model[i].id));
	struct rte_eth_fp_ops *fp = &rte_eth_fp_ops[model[i].id];
	fp->tx_pkt_burst = i ? tx1 : tx0;
	fp->rx_pkt_burst = i ? rx1 : rx0;
	memset(model[i].n_in, 0, sizeof(model[i].n_in)); /* what was there went with its pool */
	fp->rx_queue_count = i ? count1 : NULL;
	fp->tx_pkt_prepare = i ? NULL : prepare0;
	int at = rte_mbuf_dynflag_lookup(RTE_MBUF_DYNFLAG_RX_TIMESTAMP_NAME, NULL);
	rx_flag = at < 0 ? 0 : RTE_BIT64(at);
	at = rte_mbuf_dynflag_lookup(RTE_MBUF_DYNFLAG_TX_TIMESTAMP_NAME, NULL);
	tx_flag = at < 0 ? 0 : RTE_BIT64(at);
	field = rte_mbuf_dynfield_lookup(RTE_MBUF_DYNFIELD_TIMESTAMP_NAME, NULL);
}
