/* Receiving: mbufs -> what the host says of them -> frames lent to the loop, found their path by remote address and port. Called by dpdk.c's table. An mbuf is lent
 * as it came and freed by rx_free; the sender's address is read from it again when somebody asks. */
#include <stddef.h>
#include <string.h>
#include "link/dpdk/dpdk.h"
#include "tern/error.h"

enum { RX_TRIES = 4 };

static uint32_t path_hash(const union net_addr *remote, uint16_t port)
{
	uint32_t words[4] = {0}, h = port;
	if (remote->sa.sa_family == AF_INET6)
		memcpy(words, &remote->v6.sin6_addr, sizeof(words));
	else
		memcpy(words, &remote->v4.sin_addr, 4);
	h = (h << 16 | (remote->sa.sa_family == AF_INET6 ? remote->v6.sin6_port : remote->v4.sin_port)) * 0x9e3779b1u;
	for (int i = 0; i < 4; i++)
		h = (h ^ words[i]) * 0x85ebca6bu, h ^= h >> 15;
	return h & (DPDK_BUCKETS - 1);
}

static bool path_is(const struct dpdk_path *p, const union net_addr *remote, uint16_t port)
{
	const union net_addr *a = &p->flow.remote;
	if (p->port != port || a->sa.sa_family != remote->sa.sa_family)
		return false;
	if (a->sa.sa_family == AF_INET)
		return a->v4.sin_port == remote->v4.sin_port && a->v4.sin_addr.s_addr == remote->v4.sin_addr.s_addr;
	return a->v6.sin6_port == remote->v6.sin6_port && !memcmp(&a->v6.sin6_addr, &remote->v6.sin6_addr, sizeof(a->v6.sin6_addr));
}

struct dpdk_path *dpdk_paths_find(struct dpdk_link *l, const union net_addr *remote, uint16_t port)
{
	if (l->last && path_is(l->last, remote, port))
		return l->last;
	struct dpdk_path *p = l->bucket[path_hash(remote, port)];
	while (p && !path_is(p, remote, port))
		p = p->next;
	if (p)
		l->last = p;
	return p;
}

void dpdk_paths_add(struct dpdk_link *l, struct dpdk_path *p)
{
	p->bucket = path_hash(&p->flow.remote, p->port);
	p->next = l->bucket[p->bucket];
	l->bucket[p->bucket] = p;
	p->index = l->n_paths;
	l->paths[l->n_paths++] = p;
}

void dpdk_paths_remove(struct dpdk_link *l, struct dpdk_path *p)
{
	struct dpdk_path **at = &l->bucket[p->bucket];
	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	if (l->last == p)
		l->last = NULL;
	l->paths[p->index] = l->paths[--l->n_paths];
	l->paths[p->index]->index = p->index;
}

static unsigned rx_verified(const struct dpdk_link *l, const struct rte_mbuf *m)
{
	unsigned good = 0;
	if ((m->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) == RTE_MBUF_F_RX_IP_CKSUM_GOOD)
		good |= NET_IP_GOOD;
	if ((m->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) == RTE_MBUF_F_RX_L4_CKSUM_GOOD)
		good |= NET_L4_GOOD;
	return l->port.driver.is_kernel ? good | NET_L4_PARTIAL : good;
}

/* Everything that is not a datagram of ours. */
static void rx_other(struct dpdk_link *l, const struct rte_mbuf *m, const struct net_packet *k, uint64_t now_ns)
{
	const uint8_t *frame = rte_pktmbuf_mtod(m, const uint8_t *);
	uint8_t answer[NET_MTU_MAX + NET_HEADER_MAX];

	if (k->kind == NET_ARP || k->kind == NET_ND)
		net_learn(&l->host, frame, k, now_ns);
	if (l->in_handed) /* whoever read it has answered, or given it to the kernel */
		return;
	if (l->share->twin.fd >= 0 && k->kind != NET_DROP) {
		twin_tx(&l->share->twin, frame, m->pkt_len);
		return;
	}
	switch (k->kind) {
	case NET_ARP:
	case NET_ND:
	case NET_ECHO: {
		size_t n = net_answer(&l->host, frame, m->pkt_len, k, answer, sizeof(answer));
		if (n)
			dpdk_tx_host(l, answer, n);
		break;
	}
	default:
		l->base.rx_dropped++;
	}
}

enum rx_verdict { RX_USED, RX_LENT, RX_LATER };

static inline __attribute__((always_inline)) void rx_lend(struct dpdk_link *l, struct rte_mbuf *m, const struct net_packet *k, struct dpdk_path *p,
                                                          struct rx_frame *out)
{
	*out = (struct rx_frame){.head = rte_pktmbuf_mtod_offset(m, uint8_t *, k->payload_at), .head_bytes = k->payload_bytes, .path = p ? &p->base : NULL,
		.lent = m, .ecn = k->ecn};
	if (m->ol_flags & l->port.rx_stamp)
		out->time_ns = dpdk_stamp_rx(l, m);
	m->tx_offload = k->ip_at | (uint64_t)k->l4_at << 16; /* for from; unused on receive */
	l->base.rx_bytes += k->payload_bytes;
}

/* The next datagram of the path that the last one was of: nearly all are. */
static inline __attribute__((always_inline)) bool rx_known(struct dpdk_link *l, struct rte_mbuf *m, struct rx_frame *out)
{
	struct dpdk_path *p = l->last;
	struct net_known_datagram d;

	if (!p || !net_known_is(&p->known, rte_pktmbuf_mtod(m, uint8_t *), m->data_len, m->pkt_len, rx_verified(l, m), &d))
		return false;
	const struct net_packet k = {.ip_at = p->known.ip_at, .l4_at = p->known.l4_at, .payload_at = p->known.header_bytes,
		.payload_bytes = d.payload_bytes, .ecn = d.ecn};
	rx_lend(l, m, &k, p, out);
	return true;
}

/* Any other mbuf; kept apart, or the common one would pay for its registers. @param out  NULL: no room for another frame */
static __attribute__((noinline)) enum rx_verdict rx_judge(struct dpdk_link *l, struct rte_mbuf *m, struct rx_frame *out, uint64_t now_ns)
{
	const struct dpdk_path *last = l->last;
	struct net_packet k;
	uint8_t *frame = rte_pktmbuf_mtod(m, uint8_t *);
	if (net_parse(&l->host, frame, m->pkt_len, rx_verified(l, m), &k) != NET_UDP) {
		rx_other(l, m, &k, now_ns);
		return RX_USED;
	}
	if (!out)
		return RX_LATER;
	if (!k.payload_bytes) {
		l->base.rx_dropped++; /* an empty datagram carries nothing */
		return RX_USED;
	}
	uint16_t port = ntohs(k.to.sa.sa_family == AF_INET6 ? k.to.v6.sin6_port : k.to.v4.sin_port);
	struct dpdk_path *p = dpdk_paths_find(l, &k.from, port);
	if (!p && (!l->listening || port != l->listen_port)) {
		l->base.rx_dropped++; /* a connected path's port hears its peer only */
		return RX_USED;
	}
	if (p && (p == last || !p->known.parts)) /* it was not known, or looks different now */
		net_known_make(&p->known, frame, &k);
	rx_lend(l, m, &k, p, out);
	return RX_LENT;
}

/* A short first piece goes in front of the second, where a port that splits leaves room for it, so that the payload stays where it is; the rest into the first of
 * those that are left. @return NULL: longer than our MTU, no mbuf of the pool holds it in one */
static struct rte_mbuf *rx_whole(const struct dpdk_link *l, struct rte_mbuf *m)
{
	struct rte_mbuf *body = m->next;

	if (RTE_MBUF_DIRECT(m) && RTE_MBUF_DIRECT(body) && rte_mbuf_refcnt_read(body) == 1 && m->data_len <= rte_pktmbuf_headroom(body)) {
		body->data_off = (uint16_t)(body->data_off - m->data_len);
		body->data_len = (uint16_t)(body->data_len + m->data_len);
		memcpy(rte_pktmbuf_mtod(body, void *), rte_pktmbuf_mtod(m, const void *), m->data_len);
		body->pkt_len = m->pkt_len;
		body->nb_segs = (uint16_t)(m->nb_segs - 1);
		body->ol_flags = m->ol_flags;
		if (m->ol_flags & l->port.rx_stamp)
			*RTE_MBUF_DYNFIELD(body, l->port.stamp_at, uint64_t *) = *RTE_MBUF_DYNFIELD(m, l->port.stamp_at, uint64_t *);
		m->next = NULL;
		m->nb_segs = 1;
		rte_pktmbuf_free_seg(m);
		m = body;
	}
	if (m->nb_segs == 1 || !rte_pktmbuf_linearize(m))
		return m;
	rte_pktmbuf_free(m);
	return NULL;
}

uint16_t dpdk_rx_whole(struct dpdk_link *l, uint16_t n)
{
	uint16_t kept = 0;

	for (uint16_t i = 0; i < n; i++) {
		struct rte_mbuf *m = l->in[i]->nb_segs > 1 ? rx_whole(l, l->in[i]) : l->in[i];
		l->in[kept] = m;
		kept = (uint16_t)(kept + (m != NULL));
	}
	l->base.rx_dropped += (uint64_t)(n - kept);
	return kept;
}

static bool rx_burst(struct dpdk_link *l, uint64_t now_ns)
{
	l->in_at = 0;
	l->in_n = dpdk_share_rx(l);
	l->base.rx_calls++;
	if (!l->in_n)
		return false;
	l->heard_ns = now_ns;
	unsigned pieces = 0;
	for (uint16_t i = 0; i < l->in_n; i++) {
		rte_prefetch0(rte_pktmbuf_mtod(l->in[i], void *));
		pieces += l->in[i]->nb_segs;
	}
	if (pieces == l->in_n)
		return true;
	l->in_n = dpdk_rx_whole(l, l->in_n);
	return l->in_n > 0;
}

/* Those of the burst that follow each other on the path of the last one. @return how many, n at most */
static size_t rx_run(struct dpdk_link *l, struct rx_frame *out, size_t n)
{
	struct rte_mbuf *const *in = l->in + l->in_at;
	size_t left = (size_t)(l->in_n - l->in_at), k = 0;

	n = n < left ? n : left;
	while (k < n && rx_known(l, in[k], &out[k]))
		k++;
	l->in_at = (uint16_t)(l->in_at + k);
	l->lent += (uint32_t)k;
	return k;
}

/* With room for none it still answers what the host is asked. */
size_t dpdk_rx(struct link *link, struct rx_frame *out, size_t n, uint64_t now_ns)
{
	struct dpdk_link *l = (struct dpdk_link *)link;
	size_t got = 0;

	dpdk_eal_thread();
	l->now_ns = now_ns;
	dpdk_share_disarm(l);
	if (now_ns >= l->ticks.due_ns)
		dpdk_stamp_tend(l);
	if (l->share->memif)
		dpdk_memif_tend(l, now_ns);
	dpdk_tx_due(l, now_ns);
	uint32_t lent_max = dpdk_share_lent_max(l);
	n = n < l->port.rx_take ? n : l->port.rx_take;
	for (int tries = 0; l->lent < lent_max && (got < n || !n); tries += l->in_at == l->in_n) {
		if (l->in_at == l->in_n && (tries == RX_TRIES || !rx_burst(l, now_ns)))
			break;
		size_t room = n - got, spare = lent_max - l->lent, most = room < spare ? room : spare, run = n ? rx_run(l, out + got, most) : 0;
		got += run;
		if (l->in_at == l->in_n || (n && run == most))
			continue;
		struct rte_mbuf *m = l->in[l->in_at];
		enum rx_verdict v = rx_judge(l, m, got < n ? &out[got] : NULL, now_ns);
		if (v == RX_LATER)
			break;
		l->in_at++;
		if (v == RX_LENT) {
			got++;
			l->lent++;
		} else {
			rte_pktmbuf_free(m);
		}
	}
	if (l->n_parked)
		dpdk_tx_due(l, now_ns); /* an answer may have come */
	l->base.rx_frames += got;
	return got;
}

void dpdk_rx_free(struct link *link, struct rx_frame *frames, size_t n)
{
	struct dpdk_link *l = (struct dpdk_link *)link;
	struct rte_mbuf *back[DPDK_BURST];
	dpdk_eal_thread();
	l->lent -= (uint32_t)n;
	while (n) { /* in bulk: a pool is asked once for all of them */
		unsigned k = n < DPDK_BURST ? (unsigned)n : DPDK_BURST;
		for (unsigned i = 0; i < k; i++)
			back[i] = frames[i].lent;
		rte_pktmbuf_free_bulk(back, k);
		frames += k;
		n -= k;
	}
}

int dpdk_from(struct link *link, const struct rx_frame *frame, struct link_addr *out)
{
	const struct rte_mbuf *m = frame->lent;
	(void)link;
	if (!m)
		return -TERN_ENOENT;
	const uint8_t *bytes = rte_pktmbuf_mtod(m, const uint8_t *), *ip = bytes + (m->tx_offload & 0xffff), *udp = bytes + (m->tx_offload >> 16);
	union net_addr from = {.sa.sa_family = *ip >> 4 == 6 ? AF_INET6 : AF_INET};
	if (from.sa.sa_family == AF_INET6) {
		memcpy(&from.v6.sin6_addr, ip + 8, 16);
		memcpy(&from.v6.sin6_port, udp, 2);
	} else {
		memcpy(&from.v4.sin_addr, ip + 12, 4);
		memcpy(&from.v4.sin_port, udp, 2);
	}
	dpdk_addr_out(&from, out);
	return 0;
}

void dpdk_rx_close(struct dpdk_link *l)
{
	while (l->in_at < l->in_n)
		rte_pktmbuf_free(l->in[l->in_at++]);
}
