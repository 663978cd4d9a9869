/* Announcements, the receiver's end: which receives are announced, and what becomes of each announcement. Called by match.c, in.c and for records.
 * offer.c is the sender's end; both must agree on who meets whom in every interleaving. The argument:
 *
 * Announced are receives with a named peer, an exact tag and at least MSG_ANNOUNCE_BYTES. An announcement A of receive R with tag t carries its order
 * (announcements are taken in order, and order is posting order for each tag) and s = rx_front: all HEADs below s have come and were matched or fit
 * no waiting receive. An unnamed message is one whose HEAD names no announced receive. classes(t) is msg_class, the same at both ends.
 *
 * Receiver. R is announced only when
 *   (1) no unnamed message with a number >= s has come (unnamed_end <= s): so each that comes later was unseen when A left;
 *   (2) every receive posted before R that waits and fits t is announced and not VOID. (Any-peer ones, masked ones and small ones are never
 *       announced, so they block.)
 * When an unnamed message x comes, every announced, waiting receive whose tag is in class(x) becomes VOID.
 *
 * Sender. A is dropped on arrival if an unnamed message of class(t) with a number >= s has been sent; otherwise it goes to the first message with tag
 * t that waits for a way, or lies ready: a message takes the first ready announcement with its tag when it is posted. So a ready announcement and a
 * waiting message of its tag never coexist, and messages of a tag take announcements of the tag in order.
 *
 * Claim 1: when message M takes A(R), no receive posted before R and still waiting fits M. Let Q be one. When A(R) left, Q was announced and not VOID
 * by (2). If the sender has A(Q) ready, M would have taken it: it has the lower order. So it was dropped, by an unnamed x of the class with x >=
 * s(Q). By (1) x came after A(Q) left; if it had come before A(R) left, Q would have been VOID; so x had not come, s(R) <= x, and A(R), taken after
 * A(Q) was dropped for x, was dropped too. Or Q's announcement was taken by another message: then Q is that one's.
 * Claim 2: no message E < M of tag t should have met R. E < s came before A(R) left and did not fit. E >= s and unnamed: if sent before A(R) was
 * taken in, it dropped A(R); sent later, it would have taken A(R) itself, being earlier. E named: it has its own receive.
 * Claim 3: no unnamed y meets R while M is on its way. y >= s as in (1), tag t. Sent before A(R) was taken in: dropped. Sent later than M took A(R):
 * y > M, so y holds for M (hold.c) and M is there first.
 * The class is coarser than the tag only in what it drops and VOIDs. What the sender drops for x the receiver VOIDs when x comes, with the same
 * class, and VOID where the sender dropped nothing only keeps later receives from being announced.
 * Cancel: the receive no longer meets unnamed messages, REVOKE asks; the answer says whether a message took it. An order never stays a hole at the
 * sender: if a receive ends before its ANNOUNCE is known to have come, REVOKE follows in its place. */
#include "msg/state.h"

static uint8_t *state_of(struct msg_pair *pair, uint32_t order)
{
	return &pair->ann_state[order % MSG_ANNOUNCED];
}

static struct msg_op **op_of(struct msg_pair *pair, uint32_t order)
{
	return &pair->ann_op[order % MSG_ANNOUNCED];
}

static bool in_window(const struct msg_pair *pair, uint32_t order)
{
	return order - pair->ann_base < pair->ann_next - pair->ann_base;
}

static void set_due(struct msg_pair *pair, uint32_t order, uint8_t what)
{
	uint8_t *state = state_of(pair, order);
	if (!(*state & (ANN_DUE | ANN_REVOKE_DUE)))
		pair->ann_due++;
	*state = (uint8_t)((*state & ~(ANN_DUE | ANN_REVOKE_DUE | ANN_KEY)) | what);
	msg_wake(pair);
}

static void clear_due(struct msg_pair *pair, uint32_t order)
{
	uint8_t *state = state_of(pair, order);
	if (*state & (ANN_DUE | ANN_REVOKE_DUE))
		pair->ann_due--;
	*state &= (uint8_t)~(ANN_DUE | ANN_REVOKE_DUE);
}

/* Orders that are done with make room for new ones. */
static void retire(struct msg_pair *pair)
{
	while (pair->ann_base != pair->ann_next && !*op_of(pair, pair->ann_base) && *state_of(pair, pair->ann_base) == ANN_KNOWN) {
		pair->ann_base++;
		pair->announce_check = true;
	}
}

/* ---- which ---- */

/* Condition 2 of the argument. */
static bool is_first(const struct msg_pair *pair, const struct msg_op *op)
{
	const struct msg *m = pair->m;
	const struct list *own = &m->recv_tag[msg_hash_ptr(pair, op->tag) & m->op_mask];
	const struct list *any = &m->recv_tag[msg_hash_ptr(pair->ep, op->tag) & m->op_mask];
	const struct list *masked[] = {&pair->masked, &pair->ep->masked};
	unsigned steps = 0;
	for (const struct list *at = op->link.prev; at != own; at = at->prev) {
		const struct msg_op *o = list_entry(at, struct msg_op, link);
		if (++steps > MSG_SCAN_MAX)
			return false;
		if (o->pair != pair || o->tag != op->tag)
			continue;
		if (!(o->state & OP_ANNOUNCED) || (o->state & OP_VOID))
			return false;
		break; /* the same was true of those before it */
	}
	for (const struct list *at = list_first(any); at; at = list_next(any, at)) {
		const struct msg_op *o = list_entry(at, struct msg_op, link);
		if (o->order > op->order)
			break;
		if (++steps > MSG_SCAN_MAX || (o->ep == op->ep && !o->pair && o->tag == op->tag))
			return false;
	}
	for (unsigned i = 0; i < 2; i++)
		for (const struct list *at = list_first(masked[i]); at; at = list_next(masked[i], at)) {
			const struct msg_op *o = list_entry(at, struct msg_op, link);
			if (o->order > op->order)
				break;
			if (++steps > MSG_SCAN_MAX || match_fits(o, op->tag))
				return false;
		}
	return true;
}

static void announce(struct msg_pair *pair, struct msg_op *op)
{
	list_remove(&op->hash);
	op->state |= OP_ANNOUNCED;
	op->recv_id = pair->ann_next++;
	op->seq = (uint32_t)pair->rx_front;
	*op_of(pair, op->recv_id) = op;
	*state_of(pair, op->recv_id) = ANN_KEY;
	if (!key_wants(pair, op) || !key_open(op, WIRE_KEY_RECV, op->recv_id))
		announce_key(op);
}

/* Its key is to be said first, or there is none. */
void announce_key(struct msg_op *op)
{
	struct msg_pair *pair = op->pair;
	if (!(op->state & OP_ANNOUNCED) || !(*state_of(pair, op->recv_id) & ANN_KEY))
		return;
	*state_of(pair, op->recv_id) = 0;
	set_due(pair, op->recv_id, ANN_DUE);
}

void announce_again(struct msg_pair *pair, unsigned path)
{
	for (uint32_t k = pair->ann_base; k != pair->ann_next; k++) {
		struct msg_op *op = *op_of(pair, k);
		if (op && (op->state & OP_POSTED) && !(*state_of(pair, k) & ANN_KEY) && (op->exposed || key_wants(pair, op)))
			key_add(op, WIRE_KEY_RECV, k, path);
	}
}

/* Goes through those that wait to be announced, as far as a bounded number of steps leads. */
static void announce_more(struct msg_pair *pair)
{
	struct list *next;
	unsigned steps = 0;
	pair->announce_check = false;
	for (struct list *at = list_first(&pair->announce); at && steps < MSG_SCAN_MAX; at = next, steps++) {
		struct msg_op *op = list_entry(at, struct msg_op, hash);
		next = list_next(&pair->announce, at);
		if (pair->ann_next - pair->ann_base == MSG_ANNOUNCED || pair->unnamed_end > pair->rx_front)
			return;
		if (is_first(pair, op))
			announce(pair, op);
	}
}

void announce_post(struct msg_op *op)
{
	struct msg_pair *pair = op->pair;
	if (layout_bytes(&op->layout) < MSG_ANNOUNCE_BYTES)
		return;
	list_push_back(&pair->announce, &op->hash);
	pair->announce_check = true;
	msg_wake(pair);
}

void announce_unnamed(struct msg_pair *pair, uint64_t seq, uint64_t tag)
{
	if (pair->unnamed_end <= seq)
		pair->unnamed_end = seq + 1;
	for (uint32_t k = pair->ann_base; k != pair->ann_next; k++) {
		struct msg_op *op = *op_of(pair, k);
		if (op && msg_class(op->tag) == msg_class(tag))
			op->state |= OP_VOID;
	}
}

/* ---- what becomes of them ---- */

/* Its receive has met a message or ended. */
void announce_gone(struct msg_op *op)
{
	struct msg_pair *pair = op->pair;
	uint32_t order = op->recv_id;
	*op_of(pair, order) = NULL;
	if (*state_of(pair, order) & (ANN_DUE | ANN_KEY)) /* lost, or it never left */
		set_due(pair, order, ANN_REVOKE_DUE);
	retire(pair);
}

void announce_cancel(struct msg_op *op)
{
	set_due(op->pair, op->recv_id, ANN_REVOKE_DUE);
}

struct msg_op *announce_named(struct msg_pair *pair, uint32_t recv_id)
{
	uint32_t order = pair->ann_base + ((recv_id - pair->ann_base) & MSG_RECV_ID_MASK);
	if (!in_window(pair, order))
		return NULL;
	clear_due(pair, order); /* it has come, evidently */
	*state_of(pair, order) |= ANN_KNOWN;
	return *op_of(pair, order);
}

static bool announce_say(struct msg_mix *x, uint32_t order)
{
	struct msg_pair *pair = x->pair;
	struct msg_op *op = *op_of(pair, order);
	uint8_t *state = state_of(pair, order);
	bool revoke = *state & ANN_REVOKE_DUE;
	struct flow_item item = {.ref = msg_pair_ref(pair->m, pair), .offset = order, .kind = revoke ? MSG_ITEM_REVOKE : MSG_ITEM_ANNOUNCE};
	struct wire_record r = {.type = WIRE_REVOKE, .revoke = {.order = order, .recv_id = order & MSG_RECV_ID_MASK}};
	if (!revoke) {
		r = (struct wire_record){.type = WIRE_ANNOUNCE, .announce = {.order = order, .recv_id = order & MSG_RECV_ID_MASK,
			.matched_seq = op->seq, .tag = op->tag, .bytes = layout_bytes(&op->layout), .dtype = op->dtype,
			.dims = op->dtype == TERN_RAW ? 0 : op->dims}};
		memcpy(r.announce.shape, op->shape, sizeof(r.announce.shape));
	}
	if (!msg_mix_put(x, &r, &item))
		return false;
	clear_due(pair, order);
	*state |= revoke ? ANN_REVOKE_FLYING : ANN_FLYING;
	pair->said_flying++;
	return true;
}

void announce_tx(struct msg_mix *x)
{
	struct msg_pair *pair = x->pair;
	if (pair->announce_check)
		announce_more(pair);
	for (uint32_t k = pair->ann_base; pair->ann_due && k != pair->ann_next; k++)
		if ((*state_of(pair, k) & (ANN_DUE | ANN_REVOKE_DUE)) && !announce_say(x, k))
			return;
}

void announce_acked(struct msg_pair *pair, const struct flow_item *item, bool acked)
{
	uint32_t order = (uint32_t)item->offset;
	bool revoke = item->kind == MSG_ITEM_REVOKE;
	pair->said_flying--;
	if (!in_window(pair, order))
		return;
	uint8_t *state = state_of(pair, order);
	struct msg_op *op = *op_of(pair, order);
	*state &= (uint8_t)~(revoke ? ANN_REVOKE_FLYING : ANN_FLYING);
	if (acked)
		*state |= ANN_KNOWN;
	else if (revoke ? op || !(*state & ANN_KNOWN) : !(*state & (ANN_KNOWN | ANN_REVOKE_DUE | ANN_REVOKE_FLYING)))
		set_due(pair, order, op && !(op->state & OP_CANCEL) ? ANN_DUE : ANN_REVOKE_DUE);
	retire(pair);
}

int announce_rx_answer(struct msg_pair *pair, const struct wire_revoke *r)
{
	if (!in_window(pair, r->order))
		return 0;
	struct msg_op *op = *op_of(pair, r->order);
	if (op && (op->state & OP_CANCEL) && !r->taken)
		msg_op_end(pair->m, op, -TERN_ECANCELED);
	return 0;
}
