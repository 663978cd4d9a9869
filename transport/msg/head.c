/* Says what a sender has to say: HEADs with small messages inside, CANCELs; and puts a frame of records together. Called through msg_tx_records.
 * Knows no flow: what must be followed up goes out as items. */
#include "msg/state.h"

bool msg_mix_put(struct msg_mix *x, const struct wire_record *r, const struct flow_item *item)
{
	if (x->items == x->max_items)
		return false;
	size_t bytes = wire_record_encode(r, x->out + x->used, x->room - x->used);
	if (!bytes)
		return false;
	x->used += bytes;
	x->item[x->items++] = *item;
	return true;
}

static void head_build(const struct msg_op *op, struct wire_head *h)
{
	h->channel = 0;
	h->kind = WIRE_KIND_SEND;
	h->flags = 0;
	h->seq = op->seq;
	h->hold_seq = op->hold;
	h->recv_id = WIRE_NONE32;
	h->tag = op->tag;
	h->bytes = op->total_bytes;
	h->imm = op->imm;
	h->data = NULL; /* head_said fills it in. Of the rest, what kind and flags do not ask for is not looked at */
	if (op->flags & TERN_IMM)
		h->flags |= WIRE_HEAD_IMM;
	if (op->dtype != TERN_RAW && op->type == MSG_OP_SEND) {
		h->flags |= WIRE_HEAD_SHAPE;
		h->dtype = op->dtype;
		h->dims = op->dims;
		memcpy(h->shape, op->shape, sizeof(h->shape));
	}
	if (op->state & OP_HOLD_ALL)
		h->flags |= WIRE_HEAD_HOLD_ALL;
	if (send_wants_result(op))
		h->flags |= WIRE_HEAD_WANT_RESULT;
	if (op->state & OP_NAMED)
		h->recv_id = op->recv_id;
	if (op->state & OP_CLAIM)
		h->flags |= WIRE_HEAD_CLAIM;
	if (op->type == MSG_OP_WRITE) {
		h->kind = WIRE_KIND_WRITE;
		h->tag = op->key;
		h->remote_offset = op->remote_offset;
	} else if (op->type == MSG_OP_REPLY) {
		h->kind = WIRE_KIND_READ_REPLY;
		h->recv_id = op->recv_id;
		h->tag = 0;
	}
	if (op->type != MSG_OP_SEND)
		h->hold_seq = WIRE_NONE32;
}

/* What follows from a HEAD that is in the frame. */
static void head_said(struct msg_mix *x, struct msg_op *op, const struct wire_record *r)
{
	if (r->head.flags & WIRE_HEAD_INLINE) {
		if (op->total_bytes)
			layout_copy_out(&op->layout, 0, x->out + x->used - op->total_bytes, op->total_bytes, x->copied);
		op->sent_bytes = op->total_bytes;
		op->state |= OP_INLINE;
	} else if (op->state & OP_INLINE) {
		op->state &= ~(uint32_t)OP_INLINE; /* frames have become smaller: it goes in runs */
		op->sent_bytes = 0;
	}
	if (!(op->state & OP_CLAIM))
		op->state |= OP_GO;
	op->state &= ~(uint32_t)OP_HEAD_DUE;
	op->head_bytes = 0;
	op->heads++;
	op->head_paths |= (uint16_t)(1u << x->pair->tx_path);
	if (!(op->state & OP_HEAD_SENT)) {
		op->state |= OP_HEAD_SENT;
		list_remove(&op->hash);
		list_push_back(&x->pair->m->send_hash[msg_hash_ptr(x->pair, op->seq) & x->pair->m->op_mask], &op->hash);
	}
	send_queue(op);
}

/* Says it, with room for the message inside if that fits, or will in the next frame; in an empty frame without. @return false: not in this frame */
static bool head_put(struct msg_mix *x, const struct msg_op *op, struct wire_record *r)
{
	struct flow_item item = {.ref = msg_op_ref(x->pair->m, op), .kind = MSG_ITEM_HEAD};
	bool again = (op->state & OP_HEAD_SENT) && !(op->state & OP_INLINE);
	if (!(r->head.flags & WIRE_HEAD_CLAIM) && op->total_bytes <= WIRE_INLINE_MAX && !again) {
		r->head.flags |= WIRE_HEAD_INLINE;
		if (msg_mix_put(x, r, &item))
			return true;
		if (x->items)
			return false;
		r->head.flags &= (uint8_t)~WIRE_HEAD_INLINE;
	}
	return msg_mix_put(x, r, &item);
}

/* Bytes of it are about to leave on a path that has not carried its HEAD: said there, too, whatever becomes of the first one. */
size_t head_again(struct msg_op *op, uint8_t *out, size_t room, struct flow_item *item)
{
	struct wire_record r = {.type = WIRE_HEAD};
	head_build(op, &r.head);
	size_t bytes = wire_record_encode(&r, out, room);
	if (!bytes)
		return 0;
	op->head_paths |= (uint16_t)(1u << op->pair->tx_path);
	*item = (struct flow_item){.ref = msg_op_ref(op->pair->m, op), .kind = MSG_ITEM_HEAD};
	return bytes;
}

/* HEADs and CANCELs of messages whose way is known. */
static void heads_tx(struct msg_mix *x)
{
	struct list *at;
	while ((at = list_first(&x->pair->heads))) {
		struct msg_op *op = list_entry(at, struct msg_op, link);
		struct wire_record r;
		if (!(op->state & OP_HEAD_DUE)) {
			struct flow_item item = {.ref = msg_op_ref(x->pair->m, op), .kind = MSG_ITEM_CANCEL};
			r = (struct wire_record){.type = WIRE_CANCEL, .cancel = {.seq = op->seq}};
			if (!msg_mix_put(x, &r, &item))
				return;
			op->state = (op->state & ~(uint32_t)OP_CANCEL_DUE) | OP_CANCEL_SENT;
			send_queue(op);
			continue;
		}
		r.type = WIRE_HEAD;
		if (op->type == MSG_OP_REPLY && !(op->state & OP_HEAD_SENT))
			op->seq = (uint32_t)x->pair->tx_next;
		head_build(op, &r.head);
		if (!head_put(x, op, &r))
			return;
		if (op->type == MSG_OP_REPLY && !(op->state & OP_HEAD_SENT))
			x->pair->tx_next++;
		head_said(x, op, &r);
	}
}

/* Sends that no announcement has a place for: with credit their bytes go, with a head's credit only a claim. */
static void wait_tx(struct msg_mix *x)
{
	struct msg_pair *pair = x->pair;
	struct list *at;
	while ((at = list_first(&pair->wait)) && pair->used_heads != pair->credit_heads) {
		struct msg_op *op = list_entry(at, struct msg_op, link);
		struct wire_record r; /* head_build fills what counts */
		r.type = WIRE_HEAD;
		bool eager = op->total_bytes <= pair->credit_bytes - pair->used_bytes;
		head_build(op, &r.head);
		if (!eager)
			r.head.flags |= WIRE_HEAD_CLAIM;
		if (!head_put(x, op, &r))
			return;
		pair->used_heads++;
		if (eager)
			pair->used_bytes += op->total_bytes;
		else
			op->state |= OP_CLAIM;
		offer_unnamed(op);
		head_said(x, op, &r);
	}
}

/* Writes are numbered when they leave: a waiting one is no hole for messages that hold for all earlier ones. */
static void writes_tx(struct msg_mix *x)
{
	struct msg_pair *pair = x->pair;
	struct list *at;
	while ((at = list_first(&pair->wait_write)) && pair->writes < MSG_WINDOW) {
		struct msg_op *op = list_entry(at, struct msg_op, link);
		struct wire_record r;
		r.type = WIRE_HEAD;
		op->seq = (uint32_t)pair->tx_next;
		head_build(op, &r.head);
		if (!head_put(x, op, &r))
			return;
		rkeys_take(pair, WIRE_KEY_EXPORT, op->key, op);
		pair->tx_next++;
		pair->writes++;
		head_said(x, op, &r);
	}
}

static void skips_tx(struct msg_mix *x)
{
	struct msg_pair *pair = x->pair;
	uint32_t i;
	while ((i = skip_due(pair))) {
		uint64_t first = rangeset_at(&pair->skips, i)->first, seq = first > pair->skip_next ? first : pair->skip_next;
		struct wire_record r = {.type = WIRE_CANCEL, .cancel = {.seq = (uint32_t)seq}};
		struct flow_item item = {.ref = msg_pair_ref(pair->m, pair), .offset = seq, .kind = MSG_ITEM_SKIP};
		if (!msg_mix_put(x, &r, &item))
			return;
		pair->skip_next = seq + 1;
	}
}

void head_tx(struct msg_mix *x)
{
	if (!rangeset_empty(&x->pair->skips))
		skips_tx(x);
	if (!list_empty(&x->pair->heads))
		heads_tx(x);
	if (!list_empty(&x->pair->wait))
		wait_tx(x);
	if (!list_empty(&x->pair->wait_write))
		writes_tx(x);
}

size_t msg_tx_records(struct msg_pair *pair, uint8_t *out, size_t room, struct flow_item *items, size_t *n_items, uint64_t *copied)
{
	struct msg_mix x = {.pair = pair, .out = out, .room = room, .max_items = *n_items, .item = items, .copied = copied};
	if (pair->is_up) {
		if (!list_empty(&pair->keys_due))
			key_tx(&x); /* before what it belongs to */
		if (!list_empty(&pair->due))
			in_tx_due(&x);
		if (pair->credit_due)
			credit_tx(&x);
		if (pair->answers_due)
			offer_tx(&x);
		if (announce_tx_want(pair))
			announce_tx(&x);
		head_tx(&x);
		if (!x.items && read_tx_want(pair))
			read_tx(&x); /* in a frame of their own: one that is refused for want of replies would take with it what shares its frame */
	}
	*n_items = x.items;
	return x.used;
}
