/* Reads and writes of exported memory, both ends. Called by msg.c (posts), in.c (HEADs) and for READ records. Knows exports only by key.
 *
 * A READ is asked for by a record and answered by a message of kind READ_REPLY that names its req_id; a refusal is an empty reply whose immediate is
 * the error. At most MSG_WINDOW req_ids are out, so a bitmap of as many tells a repeated request from a new one. A write without the right is not
 * acknowledged before its RESULT is: otherwise its sender would take acknowledged bytes for placed ones. */
#include "msg/state.h"

static struct mem_export *export_find(struct msg_pair *pair, uint64_t key)
{
	return pair->m->config.exports ? mem_table_find(pair->m->config.exports, key, pair->peer) : NULL;
}

/* The bytes, if the peer has the right to them. */
static struct mem_export *export_open(struct msg_pair *pair, uint64_t key, uint64_t offset, uint64_t bytes, uint32_t right)
{
	struct mem_export *e = export_find(pair, key);
	if (!e || !(e->rights & right) || offset > e->bytes || bytes > e->bytes - offset)
		return NULL;
	e->uses++;
	return e;
}

static void export_close(struct msg *m, uint64_t key, uint64_t peer)
{
	struct mem_export *e = m->config.exports ? mem_table_find(m->config.exports, key, peer) : NULL;
	if (e && e->uses)
		e->uses--;
}

/* ---- the reader ---- */

static struct list *read_bucket(struct msg_pair *pair, uint32_t req_id)
{
	return &pair->m->send_hash[msg_hash_ptr(pair, req_id) & pair->m->op_mask];
}

struct msg_op *read_find(struct msg_pair *pair, uint32_t req_id)
{
	struct list *head = read_bucket(pair, req_id);
	for (struct list *at = list_first(head); at; at = list_next(head, at)) {
		struct msg_op *op = list_entry(at, struct msg_op, hash);
		if (op->type == MSG_OP_READ && op->pair == pair && op->recv_id == req_id && (op->state & OP_HEAD_SENT))
			return op;
	}
	return NULL;
}

void read_post(struct msg *m, struct msg_op *op)
{
	(void)m;
	if (key_wants(op->pair, op) && key_open(op, WIRE_KEY_READ, 0)) {
		list_push_back(&op->pair->reads_wait, &op->link);
		return;
	}
	list_push_back(&op->pair->wait_read, &op->link);
	msg_wake(op->pair);
}

void read_key(struct msg_op *op)
{
	if (op->state & (OP_HEAD_SENT | OP_CANCEL))
		return;
	list_remove(&op->link);
	list_push_back(&op->pair->wait_read, &op->link);
	msg_wake(op->pair);
}

static bool read_say(struct msg_mix *x, struct msg_op *op, uint32_t req_id)
{
	struct wire_record r = {.type = WIRE_READ, .read = {.req_id = req_id, .key = op->key, .remote_offset = op->remote_offset,
		.bytes = op->total_bytes}};
	struct flow_item item = {.ref = msg_op_ref(x->pair->m, op), .kind = MSG_ITEM_READ};
	for (struct msg_key *key = op->exposed; key; key = key->next) {
		if (key->state != KEY_READY)
			continue;
		key->id = req_id;
		list_remove(&key->link);
		if (!key_say(x, key)) /* it goes right before the READ: what comes after it is late */
			return false;
	}
	return msg_mix_put(x, &r, &item);
}

void read_tx(struct msg_mix *x)
{
	struct msg_pair *pair = x->pair;
	struct list *at, *next;
	for (at = list_first(&pair->reads); at && pair->reads_due; at = next) {
		struct msg_op *op = list_entry(at, struct msg_op, link);
		next = list_next(&pair->reads, at);
		if (!(op->state & OP_HEAD_DUE))
			continue;
		if (!read_say(x, op, op->recv_id))
			return;
		op->state &= ~(uint32_t)OP_HEAD_DUE;
		pair->reads_due--;
	}
	while ((at = list_first(&pair->wait_read)) && read_window(pair)) {
		struct msg_op *op = list_entry(at, struct msg_op, link);
		if (!read_say(x, op, pair->req_next))
			return;
		op->recv_id = pair->req_next;
		pair->req_next += pair->req_next + 1 == WIRE_NONE32 ? 2 : 1;
		op->state |= OP_HEAD_SENT;
		list_remove(&op->link);
		list_push_back(&pair->reads, &op->link);
		list_push_back(read_bucket(pair, op->recv_id), &op->hash);
	}
}

void read_lost(struct msg_op *op)
{
	if (op->in || (op->state & OP_HEAD_DUE))
		return;
	op->state |= OP_HEAD_DUE;
	op->pair->reads_due++;
	msg_wake(op->pair);
}

/* A reply begins. */
int read_rx_reply(struct msg_pair *pair, struct msg_in *in)
{
	struct msg *m = pair->m;
	struct msg_op *op = read_find(pair, in->recv_id);
	if (!op || op->in) {
		if (in->bytes)
			in_say(in, IN_RESULT, -TERN_ECANCELED);
		in_drop(m, in);
		return 0;
	}
	if (in->flags & WIRE_HEAD_IMM) {
		uint64_t why = in->imm;
		in_drop(m, in);
		if (!why || why >= TERN_ERR_END)
			return -TERN_EPROTO;
		msg_op_end(m, op, -(int)why);
		return 0;
	}
	if (in->bytes != op->total_bytes)
		return -TERN_EPROTO;
	op->bytes = in->bytes;
	op->in = in;
	in->op = op;
	in->addr = op->layout.kind == LAYOUT_FLAT ? op->layout.addr : NULL;
	in->state = IN_FILLING;
	return 0;
}

/* ---- the owner ---- */

static void read_known(struct msg_pair *pair, uint32_t req_id)
{
	if (req_id - pair->read_next < MSG_WINDOW * 2) { /* the highest so far: those skipped are not there yet */
		for (uint32_t i = pair->read_next; i != req_id; i++)
			pair->read_seen[i % MSG_WINDOW / 64] &= ~(UINT64_C(1) << i % 64);
		pair->read_next = req_id + 1;
	}
	pair->read_seen[req_id % MSG_WINDOW / 64] |= UINT64_C(1) << req_id % 64;
}

static bool read_is_known(const struct msg_pair *pair, uint32_t req_id)
{
	uint32_t behind = pair->read_next - req_id;
	bool is_seen = pair->read_seen[req_id % MSG_WINDOW / 64] >> req_id % 64 & 1;
	return behind && behind < UINT32_MAX - MSG_WINDOW * 2 && (behind > MSG_WINDOW || is_seen);
}

int read_rx(struct msg_pair *pair, const struct wire_read *r)
{
	struct msg *m = pair->m;
	if (read_is_known(pair, r->req_id))
		return 0;
	struct msg_op *op = pool_get(&m->replies);
	if (!op)
		return -TERN_EAGAIN;
	*op = (struct msg_op){.type = MSG_OP_REPLY, .ep = pair->ep, .pair = pair, .peer = pair->peer, .key = r->key, .state = OP_HEAD_DUE};
	list_init(&op->link);
	list_init(&op->hash);
	rangeset_init(&op->ranges, &m->tx_ranges);
	if (!msg_slot_get(m, op)) {
		pool_put(&m->replies, op);
		return -TERN_EAGAIN;
	}
	read_known(pair, r->req_id);
	op->recv_id = r->req_id;
	const struct mem_export *e = export_open(pair, r->key, r->remote_offset, r->bytes, TERN_REMOTE_READ);
	if (e) {
		layout_flat(&op->layout, e->addr + r->remote_offset, r->bytes);
		op->layout.mem = e->mem;
		op->total_bytes = r->bytes;
		rkeys_take(pair, WIRE_KEY_READ, r->req_id, op);
	} else {
		layout_flat(&op->layout, NULL, 0);
		op->key = 0;
		op->flags = TERN_IMM;
		op->imm = TERN_EAUTH;
	}
	pair->ops++;
	send_queue(op);
	return 0;
}

void reply_end(struct msg *m, struct msg_op *op)
{
	if (op->key)
		export_close(m, op->key, op->peer);
	pool_put(&m->replies, op);
}

void write_rx(struct msg_pair *pair, struct msg_in *in, const struct wire_head *h)
{
	const struct mem_export *e = export_open(pair, h->tag, h->remote_offset, h->bytes, TERN_REMOTE_WRITE);
	if (!e) {
		in->state = IN_REFUSED;
		in_say(in, IN_RESULT, -TERN_EAUTH);
		return;
	}
	in->addr = e->addr + h->remote_offset;
	in->state = IN_FILLING;
}

void write_end(struct msg_in *in)
{
	export_close(in->pair->m, in->tag, in->pair->peer);
}
