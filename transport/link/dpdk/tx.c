/* Sending: frames -> mbufs -> the port, and back when nobody reads them any more. Called by dpdk.c's table. A frame's first segment is copied behind the headers
 * (it is a header, too); the rest stays where it is, under mbufs without a buffer, and the last of them to be freed gives the frame back. A frame with space before it
 * gets the headers there, and one mbuf. Where the driver cannot do that the frame is copied once, counted, and given back at once. */
#include <stdlib.h>
#include <string.h>
#include "link/dpdk/dpdk.h"
#include "tern/tern.h"

static inline void tx_done(struct dpdk_link *l, struct frame *f)
{
	l->done[l->done_head++ & (DPDK_DONE_MAX - 1)] = f;
}

/* Called when the last mbuf over a frame's memory is freed: in tx_burst, done_cleanup or stop, on the thread that drives the link. */
static void tx_released(void *addr, void *arg)
{
	struct dpdk_slot *s = arg;
	struct dpdk_link *l = s->link;
	(void)addr;
	if (s->frame)
		tx_done(l, s->frame);
	s->frame = NULL;
	s->next = l->free_slot;
	l->free_slot = s;
	l->n_free_slots++;
}

int dpdk_tx_open(struct dpdk_link *l)
{
	l->slots = calloc(DPDK_SLOTS, sizeof(*l->slots));
	l->done = calloc(DPDK_DONE_MAX, sizeof(*l->done));
	if (!l->slots || !l->done)
		return -TERN_ENOMEM;
	for (uint32_t i = 0; i < DPDK_SLOTS; i++) {
		struct dpdk_slot *s = &l->slots[i];
		*s = (struct dpdk_slot){.shared = {.free_cb = tx_released, .fcb_opaque = s}, .link = l, .next = l->free_slot};
		l->free_slot = s;
	}
	l->n_free_slots = DPDK_SLOTS;
	return 0;
}

void dpdk_tx_close(struct dpdk_link *l)
{
	free(l->slots);
	free(l->done);
	l->slots = NULL;
	l->done = NULL;
}

/* May a device read these segments where they are? It maps them, and takes so many. */
static __attribute__((noinline)) bool tx_is_mapped(struct dpdk_link *l, const struct frame *f)
{
	for (unsigned i = f->segs > 1; i < f->segs; i++)
		if (!link_mem_key(&l->base, f->seg[i].mem))
			return false;
	return f->segs < l->port.frame_segs;
}

/* May the port? */
static bool tx_in_place(struct dpdk_link *l, const struct frame *f)
{
	if (l->port.driver.reader == DPDK_READ_CPU)
		return true;
	if (l->port.driver.reader == DPDK_READ_COPY)
		return false;
	return tx_is_mapped(l, f);
}

/* A frame's own header has FRAME_HEAD_MAX bytes of room, and what it is copied to as well: a few moves instead of a call. */
static inline void tx_head(const struct frame *f, uint8_t *to)
{
	if (f->seg[0].addr == f->head)
		memcpy(to, f->head, FRAME_HEAD_MAX);
	else
		memcpy(to, f->seg[0].addr, f->seg[0].bytes);
}

static void tx_copy(struct dpdk_link *l, const struct frame *f, struct rte_mbuf *m)
{
	uint8_t *to = rte_pktmbuf_mtod_offset(m, uint8_t *, m->data_len);

	tx_head(f, to);
	for (unsigned i = 1; i < f->segs; i++) {
		to += f->seg[i - 1].bytes;
		memcpy(to, f->seg[i].addr, f->seg[i].bytes);
	}
	m->data_len = (uint16_t)(m->data_len + f->wire_bytes);
	uint32_t head = f->seg[0].bytes < FRAME_HEAD_MAX ? f->seg[0].bytes : FRAME_HEAD_MAX;
	l->base.copied_bytes += f->wire_bytes - head;
}

/* At least n mbufs at hand: the pool is asked for a burst at a time, not for each. */
static inline bool tx_stock(struct dpdk_stock *s, struct rte_mempool *pool, unsigned n)
{
	unsigned more = DPDK_BURST - s->n;

	if (s->n >= n)
		return true;
	if (rte_pktmbuf_alloc_bulk(pool, s->mbuf + s->n, more))
		return false;
	s->n = DPDK_BURST;
	return true;
}

static void tx_stock_back(struct dpdk_stock *s)
{
	rte_pktmbuf_free_bulk(s->mbuf, s->n);
	s->n = 0;
}

/* A slot for n mbufs over the frame's memory; there must be one. */
static inline struct dpdk_slot *tx_slot(struct dpdk_link *l, struct frame *f, unsigned n)
{
	struct dpdk_slot *s = l->free_slot;

	l->free_slot = s->next;
	l->n_free_slots--;
	s->frame = f;
	rte_mbuf_ext_refcnt_set(&s->shared, (uint16_t)n);
	return s;
}

static inline struct rte_mbuf *tx_over(struct rte_mbuf *m, struct dpdk_slot *s, uint8_t *addr, uint32_t bytes)
{
	rte_pktmbuf_attach_extbuf(m, addr, (rte_iova_t)(uintptr_t)addr, (uint16_t)bytes, &s->shared);
	m->data_len = (uint16_t)bytes;
	return m;
}

/* Chains an mbuf over each segment from `first` on to *at. They come from the pool of the header before them: drivers give runs of one pool back at once. */
static inline __attribute__((always_inline)) void tx_attach(struct dpdk_link *l, struct frame *f, unsigned first, struct rte_mbuf **at)
{
	unsigned n = f->segs - first;
	struct dpdk_slot *s = tx_slot(l, f, n);

	for (const struct frame_seg *seg = &f->seg[first], *end = seg + n; seg < end; seg++) {
		*at = tx_over(l->heads.mbuf[--l->heads.n], s, seg->addr, seg->bytes);
		at = &(*at)->next;
	}
}

/* @param is_whole  the datagram is all in this mbuf: summed there, where the copy has left it in the first cache */
static void tx_sums(const struct dpdk_link *l, const struct dpdk_path *p, const struct frame *f, struct rte_mbuf *m, bool is_whole)
{
	const struct frame_seg whole = {.addr = rte_pktmbuf_mtod_offset(m, uint8_t *, p->flow.header_bytes), .bytes = f->wire_bytes};
	const struct net_flow *flow = &p->flow;
	uint8_t *head = rte_pktmbuf_mtod(m, uint8_t *);

	if (l->port.tx_offloads & RTE_ETH_TX_OFFLOAD_UDP_CKSUM) {
		m->l2_len = flow->ip_at;
		m->l3_len = flow->udp_at - flow->ip_at;
		m->ol_flags |= RTE_MBUF_F_TX_UDP_CKSUM | (flow->is_ip6 ? RTE_MBUF_F_TX_IPV6 : RTE_MBUF_F_TX_IPV4);
	} else if (l->port.driver.is_local && !flow->is_ip6) {
		memset(head + flow->udp_at + 6, 0, 2); /* RFC 768: none; it would guard memory against itself */
	} else {
		net_udp_sum(flow, head, is_whole ? &whole : f->seg, is_whole ? 1 : f->segs);
	}
}

/* A frame made in a room, with space before it: one mbuf over all of it. */
static struct rte_mbuf *tx_front(struct dpdk_link *l, const struct dpdk_path *p, struct frame *f)
{
	uint8_t *at = f->seg[0].addr - p->flow.header_bytes;

	if (!tx_stock(&l->heads, l->port.heads, 1) || !l->free_slot)
		return NULL;
	struct rte_mbuf *m = tx_over(l->heads.mbuf[--l->heads.n], tx_slot(l, f, 1), at, p->flow.header_bytes + f->wire_bytes);
	m->pkt_len = m->data_len;
	net_udp_header(&p->flow, at, f->wire_bytes, l->ip_id++);
	tx_sums(l, p, f, m, false);
	return m;
}

/* @param is_behind  another in a chain: without headers
 * @return NULL: out of mbufs or slots; the frame was not touched */
static inline __attribute__((always_inline)) struct rte_mbuf *tx_frame(struct dpdk_link *l, struct dpdk_path *p, struct frame *f, bool is_behind)
{
	bool small = f->wire_bytes <= DPDK_INLINE_BYTES, copy = small || !tx_in_place(l, f);
	bool own = l->port.driver.reader == DPDK_READ_COPY || (copy && !small); /* some drivers send mbufs of the port's own pool as they are */
	unsigned head = f->segs > 1 && f->seg[0].bytes <= FRAME_HEAD_MAX, outer = copy ? 0 : f->segs - head;
	bool is_bare = is_behind && !copy && !head; /* nothing of it is copied */
	struct dpdk_stock *stock = own ? &l->data : &l->heads;
	struct rte_mbuf *m = NULL;

	if (f->room && f->seg[0].addr == f->room && f->segs == 1 && f->front_bytes >= p->flow.header_bytes && !copy && !is_behind)
		return tx_front(l, p, f);
	if (!tx_stock(stock, own ? l->port.data : l->port.heads, !is_bare + outer) || (outer && !l->free_slot))
		return NULL;
	if (is_bare) {
		tx_attach(l, f, 0, &m);
		m->pkt_len = f->wire_bytes;
		m->nb_segs = (uint16_t)outer;
		return m;
	}
	m = stock->mbuf[--stock->n];
	uint32_t front = is_behind ? 0 : p->flow.header_bytes;
	if (!is_behind)
		net_udp_header(&p->flow, rte_pktmbuf_mtod(m, uint8_t *), f->wire_bytes, l->ip_id++);
	m->data_len = (uint16_t)front;
	m->pkt_len = front + f->wire_bytes;
	if (copy) {
		tx_copy(l, f, m);
	} else {
		if (head) {
			tx_head(f, rte_pktmbuf_mtod_offset(m, uint8_t *, m->data_len));
			m->data_len = (uint16_t)(m->data_len + f->seg[0].bytes);
		}
		tx_attach(l, f, head, &m->next);
		m->nb_segs = (uint16_t)(1 + outer);
	}
	if (!is_behind)
		tx_sums(l, p, f, m, copy);
	if (copy)
		tx_done(l, f);
	return m;
}

static struct rte_mbuf *tx_build(struct dpdk_link *l, struct dpdk_path *p, struct frame *f)
{
	return tx_frame(l, p, f, false);
}

static struct rte_mbuf *tx_build_behind(struct dpdk_link *l, struct dpdk_path *p, struct frame *f)
{
	return tx_frame(l, p, f, true);
}

/* For frames[0], which is the last in hold, the port may have more to do: send it at its time, and with it those that may leave behind one header. If the driver takes
 * no such chain they are lost, like frames on the way, and the last to be chained. @return how many */
static __attribute__((noinline)) size_t tx_run(struct dpdk_link *l, struct dpdk_path *p, struct frame *const *frames, size_t n)
{
	struct rte_mbuf **m = &l->hold[l->n_hold - 1], *next, *last = rte_pktmbuf_lastseg(*m);
	size_t most = dpdk_run_frames(&l->port, frames, n), k = 1;

	if (l->port.tx_stamp && frames[0]->depart_ns)
		dpdk_stamp_tx(l, *m, frames[0]->depart_ns);
	for (; k < most && l->out + 1 < DPDK_DONE_MAX && (next = tx_build_behind(l, p, frames[k])); k++) {
		m[0]->nb_segs = (uint16_t)(m[0]->nb_segs + next->nb_segs);
		m[0]->pkt_len += next->pkt_len;
		next->nb_segs = 1;
		last->next = next;
		last = rte_pktmbuf_lastseg(next);
		l->base.tx_frames++;
		l->base.tx_bytes += frames[k]->wire_bytes;
		l->out++;
	}
	if (k == 1)
		return 0;
	dpdk_run_close(*m, &p->flow, frames[0]->wire_bytes, (uint16_t)(l->ip_id - 1));
	l->ip_id = (uint16_t)(l->ip_id + k - 1);
	if (rte_eth_tx_prepare(l->port.id, l->port.tx_queue, m, 1) == 1)
		return k - 1;
	dpdk_log(l, TERN_LOG_WARN, "dpdk port %s does not take %zu frames in a chain of %u: each goes by itself now", l->port.name, k,
	         m[0]->nb_segs);
	l->port.run_segs = 1;
	l->base.tx_dropped += k;
	rte_pktmbuf_free(*m);
	l->n_hold--;
	return k - 1;
}

/* What the port's ring had no room for. @return true: all is on its way */
static bool tx_flush(struct dpdk_link *l)
{
	if (!l->n_hold)
		return true;
	uint16_t sent = dpdk_share_tx(l, l->hold, l->n_hold);
	l->base.tx_calls++;
	l->n_hold = (uint16_t)(l->n_hold - sent);
	memmove(l->hold, l->hold + sent, l->n_hold * sizeof(l->hold[0]));
	memmove(l->hold_path, l->hold_path + sent, l->n_hold * sizeof(l->hold_path[0]));
	return l->n_hold == 0;
}

void dpdk_tx_drop(struct dpdk_link *l, struct dpdk_path *p)
{
	uint16_t kept = 0, parked = 0;

	for (uint16_t i = 0; i < l->n_parked; i++) {
		if (p && l->parked[i]->path != &p->base)
			l->parked[parked++] = l->parked[i];
		else {
			((struct dpdk_path *)l->parked[i]->path)->parked--;
			tx_done(l, l->parked[i]);
		}
	}
	l->n_parked = parked;
	for (uint16_t i = 0; i < l->n_hold; i++) {
		if (p && l->hold_path[i] != p) {
			l->hold[kept] = l->hold[i];
			l->hold_path[kept++] = l->hold_path[i];
			continue;
		}
		rte_pktmbuf_free(l->hold[i]);
	}
	l->n_hold = kept;
	if (!p) {
		tx_stock_back(&l->heads);
		tx_stock_back(&l->data);
	}
}

static bool tx_up(struct dpdk_link *l, uint64_t now_ns)
{
	struct rte_eth_link state = {0};
	if (now_ns < l->state_ns)
		return l->is_up;
	l->state_ns = now_ns + DPDK_STATE_NS;
	l->is_up = !rte_eth_link_get_nowait(l->port.id, &state) && state.link_status;
	return l->is_up;
}

/* What waited for a neighbour that has answered since. In order within a path: the first that stays keeps its later ones back, since nothing changes on the way. */
static void tx_unpark(struct dpdk_link *l, uint64_t now_ns)
{
	uint16_t kept = 0;

	for (uint16_t i = 0; i < l->n_parked; i++) {
		struct frame *f = l->parked[i];
		struct dpdk_path *p = (struct dpdk_path *)f->path;
		bool is_ready = l->n_hold < DPDK_BURST && !net_flow_ready(&l->host, &p->flow, now_ns);
		struct rte_mbuf *m = is_ready ? tx_build(l, p, f) : NULL;
		if (is_ready && !m) { /* out of mbufs: all the rest stays */
			memmove(l->parked + kept, l->parked + i, (l->n_parked - i) * sizeof(l->parked[0]));
			kept = (uint16_t)(kept + l->n_parked - i);
			break;
		}
		if (!m) {
			l->parked[kept++] = f;
			continue;
		}
		p->parked--;
		l->hold[l->n_hold] = m;
		l->hold_path[l->n_hold++] = p;
	}
	l->n_parked = kept;
}

/* A frame whose neighbour is not known waits beside the others: a station that does not answer holds up its own path only. Where no more may wait the path is offered
 * again; if that would hold others up, the frame is lost, as in any host (RFC 1122 section 2.3.2.2 wants one kept). @return whether it was taken */
static bool tx_park(struct dpdk_link *l, struct frame *const *frames, size_t n)
{
	struct dpdk_path *p = (struct dpdk_path *)frames[0]->path;
	size_t others = 1;

	if (l->n_parked < DPDK_PARKED_MAX && p->parked < DPDK_PARKED_PATH) {
		l->parked[l->n_parked++] = frames[0];
		p->parked++;
		return true;
	}
	while (others < n && frames[others]->path == &p->base)
		others++;
	if (others == n)
		return false;
	l->base.tx_dropped++;
	tx_done(l, frames[0]);
	return true;
}

/* Turns frames into mbufs behind what is held. @param is_more  tx_run is to see them, too. @return how many frames were taken */
static inline __attribute__((always_inline)) size_t tx_fill(struct dpdk_link *l, struct frame *const *frames, size_t n, uint64_t now_ns,
                                                            bool is_more)
{
	struct dpdk_path *ready = NULL;
	size_t taken = 0;

	for (; taken < n && l->n_hold < DPDK_BURST && l->out < DPDK_DONE_MAX; taken++) {
		struct frame *f = frames[taken];
		struct dpdk_path *p = (struct dpdk_path *)f->path;
		if (f->wire_bytes > p->base.max_frame_bytes) { /* no mbuf holds it: lost on the way, as anywhere */
			l->base.tx_dropped++;
			tx_done(l, f);
		} else if (p->parked || (p != ready && net_flow_ready(&l->host, &p->flow, now_ns))) {
			if (!tx_park(l, frames + taken, n - taken))
				break;
		} else {
			struct rte_mbuf *m = tx_build(l, p, f);
			if (!m)
				break;
			ready = p;
			l->hold[l->n_hold] = m;
			l->hold_path[l->n_hold++] = p;
			if (is_more)
				taken += tx_run(l, p, frames + taken, n - taken);
		}
		l->base.tx_frames++;
		l->base.tx_bytes += f->wire_bytes;
		l->out++;
	}
	return taken;
}

size_t dpdk_tx(struct link *link, struct frame *const *frames, size_t n, uint64_t now_ns)
{
	struct dpdk_link *l = (struct dpdk_link *)link;
	size_t taken = 0;

	dpdk_eal_thread();
	if (!tx_up(l, now_ns) || !tx_flush(l))
		return 0;
	if (l->n_parked)
		tx_unpark(l, now_ns);
	while (taken < n) {
		size_t k = l->port.run_segs ? tx_fill(l, frames + taken, n - taken, now_ns, true)
		                            : tx_fill(l, frames + taken, n - taken, now_ns, false); /* the common way pays nothing for the other */
		taken += k;
		if (!k || !tx_flush(l))
			break;
	}
	if (taken < n || l->n_parked)
		dpdk_tx_due(l, now_ns); /* the question for a neighbour goes out at once */
	return taken;
}

size_t dpdk_reap(struct link *link, struct frame **out, size_t n, uint64_t now_ns)
{
	struct dpdk_link *l = (struct dpdk_link *)link;
	size_t got = 0;

	if (l->n_hold)
		tx_flush(l);
	if (l->n_free_slots < DPDK_SLOTS && now_ns - l->asked_ns >= DPDK_FLUSH_NS) {
		l->asked_ns = now_ns;
		dpdk_share_clean(l);
	}
	while (got < n && l->done_tail != l->done_head)
		out[got++] = l->done[l->done_tail++ & (DPDK_DONE_MAX - 1)];
	l->out -= (uint32_t)got;
	return got;
}

void dpdk_tx_host(struct dpdk_link *l, const uint8_t *frame, size_t bytes)
{
	struct rte_mbuf *m = rte_pktmbuf_alloc(l->port.data);
	char *at = m ? rte_pktmbuf_append(m, (uint16_t)bytes) : NULL;
	if (at)
		memcpy(at, frame, bytes);
	if (!m || (at && dpdk_share_tx(l, &m, 1)))
		return;
	if (!at || l->n_hold == DPDK_BURST || !l->is_up) {
		rte_pktmbuf_free(m); /* whoever asked will ask again */
		return;
	}
	l->hold[l->n_hold] = m;
	l->hold_path[l->n_hold++] = NULL;
}

static void tx_twin(struct dpdk_link *l, uint64_t now_ns)
{
	uint8_t frame[NET_MTU_MAX + NET_HEADER_MAX];
	size_t n;

	l->twin_ns = now_ns;
	for (int i = 0; i < DPDK_TWIN_FRAMES && (n = twin_rx(&l->share->twin, frame, sizeof(frame))); i++)
		dpdk_tx_host(l, frame, n);
}

void dpdk_tx_due(struct dpdk_link *l, uint64_t now_ns)
{
	uint8_t frame[NET_POLL_MAX];
	size_t n;

	if (l->n_parked && l->is_up)
		tx_unpark(l, now_ns);
	tx_flush(l); /* small frames were given back already: nobody else may come for what is held */
	if (l->share->twin.fd >= 0 && now_ns - l->twin_ns >= DPDK_TWIN_NS)
		tx_twin(l, now_ns);
	if (net_deadline(&l->host) > now_ns || !tx_up(l, now_ns))
		return;
	while ((n = net_poll(&l->host, now_ns, frame, sizeof(frame))))
		dpdk_tx_host(l, frame, n);
}
