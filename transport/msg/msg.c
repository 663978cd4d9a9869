/* A loop's messages: memory, endpoints, pairs, the end of operations, and the way of posts and reports into the other files. Called by loop/ and
 * peer/. Knows no record's meaning. */
#include "msg/state.h"

enum { ALIGN = 64, OPS_DEFAULT = 16384 };

static uint32_t slots_of(const struct msg_config *c)
{
	return (c->max_ops ? c->max_ops : OPS_DEFAULT) + c->max_replies;
}

static uint32_t ins_of(const struct msg_config *c)
{
	return c->max_inbound + c->max_pairs;
}

static uint32_t buckets_for(uint32_t n)
{
	uint32_t buckets = 64;
	while (buckets < n / 2)
		buckets *= 2;
	return buckets;
}

/* Walks the parts of the memory given: returns the present one and steps over it. */
static void *part(uint8_t **at, size_t bytes)
{
	void *here = *at;
	*at += (bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
	return here;
}

static struct list *part_lists(uint8_t **at, uint32_t n)
{
	return part(at, n * sizeof(struct list));
}

/* Lays everything out from `base` on; with `m` not yet valid only the length counts. */
static size_t lay_out(const struct msg_config *c, struct msg *m, uint8_t *base)
{
	uint8_t *at = base;
	uint32_t ops = buckets_for(slots_of(c)), ins = buckets_for(ins_of(c));
	part(&at, sizeof(*m));
	void *pairs = part(&at, pool_bytes(sizeof(struct msg_pair), c->max_pairs));
	void *eps = part(&at, pool_bytes(sizeof(struct msg_ep), c->max_pairs));
	void *in = part(&at, pool_bytes(sizeof(struct msg_in), ins_of(c)));
	void *replies = part(&at, pool_bytes(sizeof(struct msg_op), c->max_replies));
	void *keys = part(&at, pool_bytes(sizeof(struct msg_key), c->max_keys)), *rkeys = part(&at, pool_bytes(sizeof(struct msg_rkey), c->max_keys));
	struct list *rkey_hash = part_lists(&at, c->max_keys ? MSG_RKEY_BUCKETS : 0);
	void *slot = part(&at, slots_of(c) * sizeof(struct msg_slot));
	void *tx = part(&at, range_pool_bytes(c->ranges)), *rx = part(&at, range_pool_bytes(c->ranges));
	struct list *recv_tag = part_lists(&at, ops), *send_hash = part_lists(&at, ops);
	struct list *in_seq = part_lists(&at, ins), *in_pair_tag = part_lists(&at, ins), *in_ep_tag = part_lists(&at, ins);
	void *chunks = part(&at, credit_chunks_bytes(c));
	if (!m)
		return (size_t)(at - base);
	pool_init(&m->pairs, pairs, sizeof(struct msg_pair), c->max_pairs);
	pool_init(&m->eps, eps, sizeof(struct msg_ep), c->max_pairs);
	pool_init(&m->ins, in, sizeof(struct msg_in), ins_of(c));
	pool_init(&m->replies, replies, sizeof(struct msg_op), c->max_replies);
	pool_init(&m->keys, keys, sizeof(struct msg_key), c->max_keys);
	pool_init(&m->rkeys, rkeys, sizeof(struct msg_rkey), c->max_keys);
	m->rkey_hash = rkey_hash;
	m->slot = slot;
	m->slots = slots_of(c);
	range_pool_init(&m->tx_ranges, tx, c->ranges);
	range_pool_init(&m->rx_ranges, rx, c->ranges);
	m->recv_tag = recv_tag;
	m->send_hash = send_hash;
	m->in_seq = in_seq;
	m->in_pair_tag = in_pair_tag;
	m->in_ep_tag = in_ep_tag;
	m->op_mask = ops - 1;
	m->in_mask = ins - 1;
	m->chunk_next = chunks;
	return (size_t)(at - base);
}

size_t msg_bytes(const struct msg_config *config)
{
	return lay_out(config, NULL, (uint8_t *)(uintptr_t)ALIGN);
}

int msg_init(struct msg **out, const struct msg_config *config, void *memory, void *unmatched)
{
	struct msg *m = memory;
	memset(m, 0, sizeof(*m));
	m->config = *config;
	lay_out(config, m, memory);
	list_init(&m->all_pairs);
	list_init(&m->done);
	list_init(&m->notices);
	list_init(&m->wake);
	list_init(&m->expose);
	list_init(&m->refused);
	list_init(&m->hide);
	for (uint32_t i = 0; config->max_keys && i < MSG_RKEY_BUCKETS; i++)
		list_init(&m->rkey_hash[i]);
	for (uint32_t i = 0; i <= m->op_mask; i++) {
		list_init(&m->recv_tag[i]);
		list_init(&m->send_hash[i]);
	}
	for (uint32_t i = 0; i <= m->in_mask; i++) {
		list_init(&m->in_seq[i]);
		list_init(&m->in_pair_tag[i]);
		list_init(&m->in_ep_tag[i]);
	}
	/* the last slot is never given out: its number with generation 2^32 - 1 would look like no reference */
	for (uint32_t i = 0; i < m->slots; i++)
		m->slot[i] = (struct msg_slot){.gen = 1, .next = i + 1};
	/* pairs and incoming messages keep their generation over their uses: it begins at the 0 that the memory came with, so their pages are not
	 * touched before they are used */
	credit_init(m, m->chunk_next, unmatched);
	*out = m;
	return 0;
}

/* ---- endpoints and pairs ---- */

int msg_ep_open(struct msg *m, struct msg_ep **out)
{
	struct msg_ep *ep = pool_get(&m->eps);
	*out = ep;
	if (!ep)
		return -TERN_ELIMIT;
	ep->anys = 0;
	list_init(&ep->unmatched);
	list_init(&ep->masked);
	return 0;
}

void msg_ep_close(struct msg *m, struct msg_ep *ep, int status)
{
	struct list *next;
	for (struct list *at = list_first(&m->all_pairs); at; at = next) {
		struct msg_pair *pair = list_entry(at, struct msg_pair, link);
		next = list_next(&m->all_pairs, at);
		if (pair->ep == ep)
			msg_pair_close(m, pair, status);
	}
	for (uint32_t i = 0; i < m->slots; i++)
		if (m->slot[i].op && m->slot[i].op->ep == ep && m->slot[i].op->state != OP_ENDED)
			msg_op_end(m, m->slot[i].op, status);
	for (struct list *at = list_first(&m->notices); at; at = next) {
		struct msg_in *in = list_entry(at, struct msg_in, due);
		next = list_next(&m->notices, at);
		if (in->recv_id == pool_index_of(&m->eps, ep))
			in_put(m, in);
	}
	pool_put(&m->eps, ep);
}

static void pair_lists(struct msg_pair *pair)
{
	struct list *all[] = {&pair->wait, &pair->wait_write, &pair->heads, &pair->small, &pair->bulk, &pair->wait_read, &pair->reads,
		&pair->due, &pair->held, &pair->unmatched, &pair->masked, &pair->announce, &pair->wake, &pair->keys,
		&pair->keys_due, &pair->keys_rest, &pair->reads_wait, &pair->rkey_age};
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		list_init(all[i]);
}

int msg_pair_open(struct msg *m, struct msg_ep *ep, uint64_t peer, struct msg_pair **out)
{
	struct msg_pair *pair = pool_get(&m->pairs);
	*out = pair;
	if (!pair)
		return -TERN_ELIMIT;
	uint32_t gen = pair->gen + 1;
	memset(pair, 0, sizeof(*pair));
	pair->gen = gen;
	pair->quantum_bytes = MSG_SMALL_BYTES;
	pair->m = m;
	pair->ep = ep;
	pair->peer = peer;
	pair_lists(pair);
	rangeset_init(&pair->tx_acked, &m->tx_ranges);
	rangeset_init(&pair->skips, &m->tx_ranges);
	rangeset_init(&pair->rx_seen, &m->rx_ranges);
	rangeset_init(&pair->rx_skipped, &m->rx_ranges);
	list_push_back(&m->all_pairs, &pair->link);
	return 0;
}

void msg_pair_up(struct msg_pair *pair, const struct msg_limits *peer)
{
	pair->is_up = true;
	pair->credit_bytes = peer->credit_bytes;
	pair->credit_heads = peer->credit_heads;
	pair->announce_check = true;
	msg_wake(pair);
}

void msg_pair_close(struct msg *m, struct msg_pair *pair, int status)
{
	keys_close(pair);
	for (uint32_t i = 0; i < m->slots; i++)
		if (m->slot[i].op && m->slot[i].op->pair == pair)
			msg_op_end(m, m->slot[i].op, status);
	uint32_t ins = ins_of(&m->config);
	for (uint32_t i = 0; i < ins; i++) {
		struct msg_in *in = pool_at(&m->ins, i);
		if (pool_is_used(&m->ins, i) && in->pair == pair && in->state != IN_NOTICE) {
			uint32_t gen = in->gen;
			in_drop(m, in);
			if (in->gen == gen)
				in_put(m, in);
		}
	}
	credit_close(pair);
	rangeset_clear(&pair->tx_acked);
	rangeset_clear(&pair->skips);
	rangeset_clear(&pair->rx_seen);
	rangeset_clear(&pair->rx_skipped);
	list_remove(&pair->link);
	list_remove(&pair->wake);
	uint32_t gen = pair->gen;
	memset(pair, 0, sizeof(*pair));
	pair->gen = gen + 1; /* items still out in flows name the old one */
	pool_put(&m->pairs, pair);
}

bool msg_pair_idle(const struct msg_pair *pair)
{
	return !pair->ops && !pair->said_flying && rangeset_empty(&pair->skips) && list_empty(&pair->due) && !pair->answers_due &&
		!pair->ann_due && !pair->credit_due;
}

void msg_pair_own(struct msg_pair *pair, void *owner)
{
	pair->owner = owner;
}

void *msg_pair_owner(const struct msg_pair *pair)
{
	return pair->owner;
}

struct msg_pair *msg_woken(struct msg *m)
{
	struct list *at = list_pop_front(&m->wake);
	if (!at)
		return NULL;
	struct msg_pair *pair = list_entry(at, struct msg_pair, wake);
	pair->is_awake = false;
	return pair;
}

uint64_t msg_copied_bytes(const struct msg *m)
{
	return m->copied_bytes;
}

/* ---- operations ---- */

bool msg_slot_get(struct msg *m, struct msg_op *op)
{
	uint32_t i = m->slot_free;
	op->slot = i;
	if (i == m->slots)
		return false;
	m->slot_free = m->slot[i].next;
	m->slot[i].op = op;
	return true;
}

static void slot_put(struct msg *m, struct msg_op *op)
{
	struct msg_slot *s = &m->slot[op->slot];
	s->op = NULL;
	s->gen++;
	s->next = m->slot_free;
	m->slot_free = op->slot;
}

/* Its memory is free: hand it back. */
static void op_out(struct msg *m, struct msg_op *op)
{
	if (op->type == MSG_OP_REPLY)
		reply_end(m, op);
	else
		list_push_back(&m->done, &op->link);
}

void msg_op_end(struct msg *m, struct msg_op *op, int status)
{
	struct msg_pair *pair = op->pair;
	if (op->state & (OP_POSTED | OP_ANNOUNCED)) /* a receive that has met nothing */
		match_unpost(op);
	if (op->in) {
		struct msg_in *in = op->in;
		op->in = NULL;
		in->op = NULL;
		in_drop(m, in);
	}
	list_remove(&op->link);
	list_remove(&op->hash);
	rangeset_clear(&op->ranges);
	if (pair) {
		pair->ops--;
		send_not_ahead(op);
		if (op->type == MSG_OP_WRITE && (op->state & OP_HEAD_SENT))
			pair->writes--;
		if (op->type == MSG_OP_READ && (op->state & (OP_HEAD_SENT | OP_HEAD_DUE)) == (OP_HEAD_SENT | OP_HEAD_DUE))
			pair->reads_due--;
		msg_wake(pair);
	}
	if (!op->flying_bytes)
		slot_put(m, op);
	op->state = OP_ENDED;
	op->status = status;
	op->pair = NULL;
	if (op->exposed)
		keys_end(m, op);
	else if (!op->held)
		op_out(m, op);
}

void msg_op_landed(struct msg *m, struct msg_op *op, uint32_t bytes)
{
	op->flying_bytes -= bytes;
	if (op->flying_bytes)
		return;
	op->held--;
	if (op->state != OP_ENDED)
		return;
	slot_put(m, op);
	if (!op->held)
		op_out(m, op);
}

void msg_reaped(struct msg *m, struct msg_op *op)
{
	if (op->state == OP_ENDED && !list_linked(&op->link))
		op_out(m, op);
}

static void op_start(struct msg *m, struct msg_op *op)
{
	list_init(&op->link);
	list_init(&op->hash);
	op->status = 0;
	op->held = 0;
	op->bytes = 0;
	op->seq = op->recv_id = op->gen = op->state = op->hold = 0;
	op->heads = op->head_paths = 0;
	op->sent_bytes = op->done_bytes = op->head_bytes = 0;
	op->total_bytes = layout_bytes(&op->layout);
	op->in = NULL;
	op->exposed = NULL;
	for (unsigned i = 0; i < MSG_TARGETS; i++)
		op->to[i].lane = 0;
	op->to_bytes = op->flying_bytes = 0;
	op->turn_bytes = 0;
	op->order = m->order++;
	rangeset_init(&op->ranges, &m->tx_ranges);
}

void msg_post(struct msg *m, struct msg_op *op)
{
	op_start(m, op);
	if (!msg_slot_get(m, op)) {
		op->status = -TERN_ELIMIT;
		op->state = OP_ENDED;
		op->pair = NULL;
		list_push_back(&m->done, &op->link);
		return;
	}
	if (op->pair)
		op->pair->ops++;
	switch (op->type) {
	case MSG_OP_SEND:
	case MSG_OP_WRITE:
		send_post(m, op);
		break;
	case MSG_OP_READ:
		read_post(m, op);
		break;
	default:
		match_post(m, op);
	}
}

void msg_cancel(struct msg *m, struct msg_op *op)
{
	if (op->state == OP_ENDED || (op->state & OP_CANCEL))
		return;
	if (op->type == MSG_OP_RECV)
		match_cancel(m, op);
	else if (op->type == MSG_OP_READ)
		msg_op_end(m, op, -TERN_ECANCELED);
	else
		send_cancel(m, op);
}

bool msg_has_notice(const struct msg *m)
{
	return !list_empty(&m->notices);
}

bool msg_has_exposing(const struct msg *m)
{
	return !list_empty(&m->expose) || !list_empty(&m->hide);
}

bool msg_has_done(const struct msg *m)
{
	return !list_empty(&m->done);
}

void msg_each(struct msg *m, void (*fn)(void *arg, struct msg_op *op), void *arg)
{
	for (uint32_t i = 0; i < m->slots; i++)
		if (m->slot[i].op)
			fn(arg, m->slot[i].op);
	for (struct list *at = list_first(&m->done); at; at = list_next(&m->done, at))
		fn(arg, list_entry(at, struct msg_op, link));
}

struct msg_op *msg_done(struct msg *m)
{
	struct list *at = list_pop_front(&m->done);
	return at ? list_entry(at, struct msg_op, link) : NULL;
}

bool msg_notice_pop(struct msg *m, struct msg_notice *out)
{
	struct list *at = list_first(&m->notices);
	if (!at)
		return false;
	struct msg_in *in = list_entry(at, struct msg_in, due);
	*out = (struct msg_notice){.ep = pool_at(&m->eps, in->recv_id), .peer = in->seq, .tag = in->tag, .imm = in->imm, .bytes = in->bytes,
		.type = in->kind, .status = -(int32_t)in->status};
	in_put(m, in);
	return true;
}
