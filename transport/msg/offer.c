/* Announcements, the sender's end: receives that the peer has said are waiting, and which message takes which. Called when sends are posted and for
 * records. The argument why both ends agree is in announce.c. */
#include "msg/state.h"

static struct msg_offer *offer_at(struct msg_pair *pair, uint32_t order)
{
	return &pair->offer[order % MSG_ANNOUNCED];
}

static uint32_t shape_hash(const uint64_t *shape, uint32_t dims)
{
	uint64_t h = dims;
	for (uint32_t i = 0; i < dims; i++)
		h = msg_hash(h, shape[i]);
	return (uint32_t)h;
}

/* The message goes to this receive. If the shapes differ, only its HEAD does: the receiver will say so. */
static void assign(struct msg_op *op, struct msg_offer *o)
{
	bool typed = op->dtype != TERN_RAW && o->dtype != TERN_RAW;
	o->state = OFFER_USED;
	op->state |= OP_NAMED | OP_HEAD_DUE;
	op->recv_id = o->order & MSG_RECV_ID_MASK;
	if (typed && (op->dtype != o->dtype || op->dims != o->dims || shape_hash(op->shape, op->dims) != o->shape))
		op->state |= OP_CLAIM;
	rkeys_take(op->pair, WIRE_KEY_RECV, o->order, op);
}

bool offer_take(struct msg_op *op)
{
	struct msg_pair *pair = op->pair;
	while (pair->offer_first != pair->offer_next && offer_at(pair, pair->offer_first)->state != OFFER_LIVE)
		pair->offer_first++;
	for (uint32_t k = pair->offer_first; k != pair->offer_next; k++) {
		struct msg_offer *o = offer_at(pair, k);
		if (o->state == OFFER_LIVE && o->tag == op->tag) {
			assign(op, o);
			return true;
		}
	}
	return false;
}

/* Entries a quarter of the numbers behind would soon look like ones ahead. No announcement is so old. */
static void forget_old(struct msg_pair *pair, uint32_t seq)
{
	for (uint32_t i = 0; i < MSG_CLASSES; i++)
		if (seq - pair->unnamed[i] > MSG_SEQ_AHEAD && pair->unnamed[i] != seq + 1)
			pair->unnamed[i] = seq - MSG_SEQ_AHEAD;
}

void offer_unnamed(struct msg_op *op)
{
	struct msg_pair *pair = op->pair;
	pair->unnamed[msg_class(op->tag)] = op->seq + 1;
	if (!(op->seq & 0xffffff) && op->seq)
		forget_old(pair, op->seq);
}

static struct msg_op *first_waiting(struct msg_pair *pair, uint64_t tag)
{
	struct list *head = &pair->m->send_hash[msg_hash_ptr(pair, tag) & pair->m->op_mask];
	for (struct list *at = list_first(head); at; at = list_next(head, at)) {
		struct msg_op *op = list_entry(at, struct msg_op, hash);
		if (op->type == MSG_OP_SEND && op->pair == pair && op->tag == tag && !(op->state & (OP_HEAD_SENT | OP_NAMED)))
			return op;
	}
	return NULL;
}

static void settle(struct msg_pair *pair, struct msg_offer *o)
{
	if ((int32_t)(pair->unnamed[msg_class(o->tag)] - o->matched_seq) > 0) {
		o->state = OFFER_NONE;
		return;
	}
	o->state = OFFER_LIVE;
	struct msg_op *op = first_waiting(pair, o->tag);
	if (!op)
		return;
	assign(op, o);
	list_remove(&op->hash);
	send_queue(op);
}

/* Takes in what has come in order. */
static void advance(struct msg_pair *pair)
{
	struct msg_offer *o = offer_at(pair, pair->offer_next);
	while ((o->state == OFFER_EARLY || o->state == OFFER_REVOKED) && o->order == pair->offer_next) {
		if (pair->offer_next - pair->offer_first == MSG_ANNOUNCED)
			pair->offer_first++;
		pair->offer_next++;
		if (o->state == OFFER_EARLY)
			settle(pair, o);
		else
			o->state = OFFER_NONE;
		o = offer_at(pair, pair->offer_next);
	}
}

/* A new use of its entry. */
static struct msg_offer *fresh(struct msg_pair *pair, uint32_t order)
{
	struct msg_offer *o = offer_at(pair, order);
	if (o->answer & ANSWER_DUE)
		pair->answers_due--;
	*o = (struct msg_offer){.order = order};
	return o;
}

int offer_rx_announce(struct msg_pair *pair, const struct wire_announce *r)
{
	uint32_t ahead = r->order - pair->offer_next;
	if (r->ignore || r->recv_id != (r->order & MSG_RECV_ID_MASK))
		return -TERN_EPROTO;
	if (ahead >= MSG_ANNOUNCED)
		return (int32_t)ahead < 0 ? 0 : -TERN_EPROTO; /* a copy of one taken in */
	struct msg_offer *o = offer_at(pair, r->order);
	if (o->order == r->order && (o->state == OFFER_EARLY || o->state == OFFER_REVOKED))
		return 0;
	o = fresh(pair, r->order);
	o->tag = r->tag;
	o->bytes = r->bytes;
	o->matched_seq = r->matched_seq;
	o->dtype = r->dtype;
	o->dims = r->dims;
	o->shape = shape_hash(r->shape, r->dims);
	o->state = OFFER_EARLY;
	advance(pair);
	return 0;
}

static void answer(struct msg_pair *pair, struct msg_offer *o, bool taken)
{
	if (!(o->answer & ANSWER_DUE))
		pair->answers_due++;
	o->answer = ANSWER_DUE | (taken ? ANSWER_TAKEN : 0);
	msg_wake(pair);
}

int offer_rx_revoke(struct msg_pair *pair, const struct wire_revoke *r)
{
	uint32_t ahead = r->order - pair->offer_next;
	struct msg_offer *o = offer_at(pair, r->order);
	if (ahead >= MSG_ANNOUNCED) {
		if ((int32_t)ahead >= 0)
			return -TERN_EPROTO;
		if (o->order != r->order)
			return 0; /* answered long ago */
		if (o->state == OFFER_LIVE)
			o->state = OFFER_NONE;
		answer(pair, o, o->state == OFFER_USED);
		return 0;
	}
	if (o->order != r->order || o->state == OFFER_NONE)
		o = fresh(pair, r->order);
	o->state = OFFER_REVOKED;
	answer(pair, o, false);
	advance(pair);
	return 0;
}

void offer_tx(struct msg_mix *x)
{
	struct msg_pair *pair = x->pair;
	for (uint32_t i = 0; pair->answers_due && i < MSG_ANNOUNCED; i++) {
		struct msg_offer *o = &pair->offer[i];
		if (!(o->answer & ANSWER_DUE))
			continue;
		struct wire_record r = {.type = WIRE_REVOKE, .revoke = {.answer = 1, .taken = o->answer & ANSWER_TAKEN ? 1 : 0, .order = o->order,
			.recv_id = o->order & MSG_RECV_ID_MASK}};
		struct flow_item item = {.ref = msg_pair_ref(pair->m, pair), .offset = o->order, .kind = MSG_ITEM_ANSWER};
		if (!msg_mix_put(x, &r, &item))
			return;
		o->answer &= ANSWER_TAKEN;
		pair->answers_due--;
		pair->said_flying++;
	}
}

void offer_answered(struct msg_pair *pair, const struct flow_item *item, bool acked)
{
	struct msg_offer *o = offer_at(pair, (uint32_t)item->offset);
	pair->said_flying--;
	if (!acked && o->order == (uint32_t)item->offset)
		answer(pair, o, o->answer & ANSWER_TAKEN);
}
