/* Which message meets which receive. Called when receives are posted and when messages arrive without naming an announced receive. Knows no records.
 *
 * MPI's rule: a message takes the earliest posted receive that fits, messages of a pair in their order. Messages arrive in any order here, so one may
 * be HELD:
 *   - until the message that its HEAD names, the last earlier one with its tag, has come and is not held itself (then all earlier ones of the tag
 *     have been through here). Where the one named went past others (to an announced receive, or away by CANCEL: rx_skipped), until every earlier
 *     HEAD has come;
 *   - if the receive it would take has a mask: until every earlier HEAD has come, for a missing one might fit that receive. A message that fits
 *     nothing is UNMATCHED and free: later ones pass it. When a receive with a mask is posted, unmatched messages that fit it but have holes before
 *     them are HELD again. A held message is tried again whenever a HEAD comes, in order of number; a hole always ends in one, so none is held for
 *     ever. Receives with an exact tag lie in buckets by (pair or endpoint, tag), those with a mask in a list of the pair or the endpoint. */
#include "msg/state.h"

static struct list *recv_bucket(const struct msg *m, const void *who, uint64_t tag)
{
	return &m->recv_tag[msg_hash_ptr(who, tag) & m->op_mask];
}

/* Every HEAD before this one has come. */
static bool has_no_hole(const struct msg_in *in)
{
	return in->seq < in->pair->rx_front;
}

/* ---- receives ---- */

static struct msg_op *first_exact(const struct msg *m, const struct msg_pair *pair, const struct msg_ep *ep, uint64_t tag)
{
	struct list *head = recv_bucket(m, pair ? (const void *)pair : (const void *)ep, tag);
	for (struct list *at = list_first(head); at; at = list_next(head, at)) {
		struct msg_op *op = list_entry(at, struct msg_op, link);
		if (op->tag == tag && op->pair == pair && op->ep == ep)
			return op;
	}
	return NULL;
}

static struct msg_op *first_masked(const struct list *head, uint64_t tag)
{
	for (struct list *at = list_first(head); at; at = list_next(head, at)) {
		struct msg_op *op = list_entry(at, struct msg_op, link);
		if (match_fits(op, tag))
			return op;
	}
	return NULL;
}

static struct msg_op *earlier(struct msg_op *a, struct msg_op *b)
{
	return !a || (b && b->order < a->order) ? b : a;
}

struct msg_op *match_first(struct msg_pair *pair, uint64_t tag)
{
	struct msg_op *op = first_exact(pair->m, pair, pair->ep, tag);
	if (pair->ep->anys)
		op = earlier(op, first_exact(pair->m, NULL, pair->ep, tag));
	op = earlier(op, first_masked(&pair->masked, tag));
	return earlier(op, first_masked(&pair->ep->masked, tag));
}

/* From any peer, with an exact tag. */
static bool is_any(const struct msg_op *op)
{
	return !op->pair && !op->ignore;
}

void match_unpost(struct msg_op *op)
{
	if (op->state & OP_POSTED) {
		list_remove(&op->link);
		op->ep->anys -= is_any(op);
	}
	list_remove(&op->hash);
	if (op->state & OP_ANNOUNCED)
		announce_gone(op);
	if (op->pair)
		op->pair->announce_check = true;
	op->state &= ~(uint32_t)(OP_POSTED | OP_ANNOUNCED | OP_VOID);
}

/* ---- unmatched messages ---- */

void match_unlink(struct msg_in *in)
{
	list_remove(&in->by_pair);
	list_remove(&in->by_ep);
	list_remove(&in->pair_tag);
	list_remove(&in->ep_tag);
}

static void insert_by_number(struct list *head, struct msg_in *in)
{
	struct list *at = head->prev;
	while (at != head && list_entry(at, struct msg_in, by_pair)->seq > in->seq)
		at = at->prev;
	list_insert_before(at->next, &in->by_pair);
}

static void hold(struct msg_in *in)
{
	match_unlink(in);
	in->state = IN_HELD;
	insert_by_number(&in->pair->held, in);
}

static void leave_unmatched(struct msg_in *in)
{
	struct msg_pair *pair = in->pair;
	struct msg *m = pair->m;
	in->state = IN_UNMATCHED;
	list_remove(&in->by_pair);
	insert_by_number(&pair->unmatched, in);
	list_push_back(&pair->ep->unmatched, &in->by_ep);
	list_push_back(&m->in_pair_tag[msg_hash_ptr(pair, in->tag) & m->in_mask], &in->pair_tag);
	list_push_back(&m->in_ep_tag[msg_hash_ptr(pair->ep, in->tag) & m->in_mask], &in->ep_tag);
}

static struct msg_in *unmatched_exact(const struct msg *m, const struct msg_op *op)
{
	const void *who = op->pair ? (const void *)op->pair : (const void *)op->ep;
	struct list *head = (op->pair ? m->in_pair_tag : m->in_ep_tag) + (msg_hash_ptr(who, op->tag) & m->in_mask);
	for (struct list *at = list_first(head); at; at = list_next(head, at)) {
		struct msg_in *in = op->pair ? list_entry(at, struct msg_in, pair_tag) : list_entry(at, struct msg_in, ep_tag);
		if (in->tag == op->tag && (op->pair ? in->pair == op->pair : in->pair->ep == op->ep))
			return in;
	}
	return NULL;
}

static struct msg_in *unmatched_of_pair(const struct msg_pair *pair, const struct msg_op *op)
{
	for (struct list *at = list_first(&pair->unmatched); at; at = list_next(&pair->unmatched, at)) {
		struct msg_in *in = list_entry(at, struct msg_in, by_pair);
		if (match_fits(op, in->tag))
			return in;
	}
	return NULL;
}

/* For a receive with a mask. Fitting messages with a hole before them are held from now on, unless one without was found. */
static struct msg_in *unmatched_masked(const struct msg_op *op)
{
	struct msg_in *in;
	struct list *next;
	if (op->pair) {
		while ((in = unmatched_of_pair(op->pair, op)) && !has_no_hole(in))
			hold(in);
		return in;
	}
	for (struct list *at = list_first(&op->ep->unmatched); at; at = next) {
		next = list_next(&op->ep->unmatched, at);
		in = list_entry(at, struct msg_in, by_ep);
		if (match_fits(op, in->tag) && has_no_hole(in))
			return unmatched_of_pair(in->pair, op); /* the lowest number has no hole either */
	}
	for (struct list *at = list_first(&op->ep->unmatched); at; at = next) {
		next = list_next(&op->ep->unmatched, at);
		in = list_entry(at, struct msg_in, by_ep);
		if (match_fits(op, in->tag))
			hold(in);
	}
	return NULL;
}

/* ---- the meeting ---- */

static bool shapes_agree(const struct msg_in *in, const struct msg_op *op)
{
	if (!(in->flags & WIRE_HEAD_SHAPE) || in->dtype == TERN_RAW || op->dtype == TERN_RAW)
		return true;
	return in->dtype == op->dtype && in->dims == op->dims && !memcmp(in->shape, op->shape, in->dims * sizeof(in->shape[0]));
}

/* What has come already moves from unmatched memory to the receive: the one copy of an unmatched message. */
static void take_over(struct msg *m, struct msg_in *in, struct msg_op *op)
{
	uint64_t first = 0, end = in->front;
	uint32_t i = rangeset_first(&in->ranges);
	for (;;) {
		end = end < in->limit ? end : in->limit;
		for (uint64_t at = first, n; at < end; at += n) {
			struct frame_seg seg;
			n = end - at < MSG_CHUNK_BYTES - at % MSG_CHUNK_BYTES ? end - at : MSG_CHUNK_BYTES - at % MSG_CHUNK_BYTES;
			chunks_segs(in, at, n, &seg, 1);
			layout_copy_in(&op->layout, at, seg.addr, n, &m->copied_bytes);
		}
		if (!i)
			break;
		first = rangeset_at(&in->ranges, i)->first;
		end = rangeset_at(&in->ranges, i)->end;
		i = rangeset_next(&in->ranges, i);
	}
	if (in->front > in->limit)
		in->front = in->limit;
	chunks_put(in);
}

static void refuse(struct msg *m, struct msg_in *in, struct msg_op *op, int status)
{
	in_say(in, IN_RESULT, status);
	in_drop(m, in);
	msg_op_end(m, op, status);
}

void match_meets(struct msg_pair *pair, struct msg_op *op, uint64_t tag, uint64_t imm, uint64_t bytes)
{
	match_unpost(op);
	if (!op->pair) {
		op->pair = pair;
		pair->ops++;
	}
	op->peer = pair->peer;
	op->tag = tag;
	op->bytes = bytes;
	op->imm = imm;
}

void match_pair(struct msg *m, struct msg_in *in, struct msg_op *op)
{
	bool cancelled = op->state & OP_CANCEL;
	match_meets(in->pair, op, in->tag, in->imm, in->bytes);
	match_unlink(in);
	in->epoch++;
	credit_return(in);
	if (cancelled || !shapes_agree(in, op)) {
		refuse(m, in, op, cancelled ? -TERN_ECANCELED : -TERN_ESHAPE);
		return;
	}
	in->limit = in->bytes < layout_bytes(&op->layout) ? in->bytes : layout_bytes(&op->layout);
	if (in->chunk != POOL_NONE)
		take_over(m, in, op);
	in->op = op;
	op->in = in;
	in->addr = op->layout.kind == LAYOUT_FLAT ? op->layout.addr : NULL;
	in->state = IN_FILLING;
	if (!in->pair->last)
		in->pair->last = in; /* its bytes come next: a receive can be posted for them */
	if ((in->flags & WIRE_HEAD_CLAIM) && (in->limit || !in->bytes))
		in_grant(in);
	if ((in->flags & WIRE_HEAD_WANT_RESULT) && in->limit == in->bytes)
		in_say(in, IN_RESULT, 0);
	if (in->front >= in->limit)
		in_end(m, in);
}

/* ---- messages ---- */

/* Have all earlier messages of its tag been through? */
static bool is_free(const struct msg_in *in)
{
	struct msg_pair *pair = in->pair;
	if (has_no_hole(in))
		return true;
	if (in->flags & WIRE_HEAD_HOLD_ALL)
		return false;
	if (in->hold == WIRE_NONE32)
		return true;
	uint64_t seq = msg_seq_near(in->seq, in->hold);
	if (seq < pair->rx_front)
		return true;
	if (!rangeset_contains(&pair->rx_seen, seq) || rangeset_contains(&pair->rx_skipped, seq))
		return false;
	const struct msg_in *before = in_find(pair, seq);
	return !before || before->state != IN_HELD;
}

static void try_match(struct msg_in *in)
{
	struct msg_pair *pair = in->pair;
	bool free = is_free(in);
	struct msg_op *op = free ? match_first(pair, in->tag) : NULL;
	if (!free || (op && op->ignore && !has_no_hole(in)))
		return;
	if (op)
		match_pair(pair->m, in, op);
	else
		leave_unmatched(in);
}

void match_release(struct msg_pair *pair)
{
	struct list *next;
	for (struct list *at = list_first(&pair->held); at; at = next) {
		next = list_next(&pair->held, at);
		try_match(list_entry(at, struct msg_in, by_pair));
	}
}

void match_arrived(struct msg_pair *pair, struct msg_in *in)
{
	uint32_t gen = in->gen;
	bool alone = list_empty(&pair->held);
	in->state = IN_HELD;
	if (alone)
		try_match(in);
	if (in->gen == gen && in->state == IN_HELD)
		hold(in);
	if (!alone)
		match_release(pair);
	if (in->gen == gen && (in->state == IN_HELD || in->state == IN_UNMATCHED) && !(in->flags & WIRE_HEAD_CLAIM)) {
		bool has_room = chunks_get(in); /* credit_take has seen to it */
		assert(has_room);
		(void)has_room;
	}
}

void match_post(struct msg *m, struct msg_op *op)
{
	struct msg_in *in = list_empty(&op->ep->unmatched) ? NULL : op->ignore ? unmatched_masked(op) : unmatched_exact(m, op);
	op->imm = 0;
	if (in) {
		match_pair(m, in, op);
		return;
	}
	op->state |= OP_POSTED;
	op->ep->anys += is_any(op);
	if (op->ignore)
		list_push_back(op->pair ? &op->pair->masked : &op->ep->masked, &op->link);
	else
		list_push_back(recv_bucket(m, op->pair ? (void *)op->pair : (void *)op->ep, op->tag), &op->link);
	if (op->pair && !op->ignore)
		announce_post(op);
}

/* An announced one must hear from the sender first: a message may be on its way to it. Until then it meets only a message that names it. */
void match_cancel(struct msg *m, struct msg_op *op)
{
	if (op->in || !(op->state & OP_ANNOUNCED)) {
		msg_op_end(m, op, -TERN_ECANCELED);
		return;
	}
	op->state |= OP_CANCEL;
	if (op->state & OP_POSTED)
		list_remove(&op->link);
	op->state &= ~(uint32_t)OP_POSTED;
	announce_cancel(op);
}
