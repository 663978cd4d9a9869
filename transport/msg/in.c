/* Messages that arrive: their HEADs, where their runs belong, what is said back about them, their end. Called by loop/ (runs) and record.c. Knows no
 * flow; which receive a message meets is match.c's. */
#include "msg/state.h"

struct msg_in *in_find(struct msg_pair *pair, uint64_t seq)
{
	struct msg *m = pair->m;
	struct list *head = &m->in_seq[msg_hash_ptr(pair, seq) & m->in_mask];
	for (struct list *at = list_first(head); at; at = list_next(head, at)) {
		struct msg_in *in = list_entry(at, struct msg_in, hash);
		if (in->pair == pair && in->seq == seq)
			return in;
	}
	return NULL;
}

struct msg_in *in_get(struct msg_pair *pair)
{
	struct msg_in *in = pool_get(&pair->m->ins);
	if (!in)
		return NULL;
	uint32_t gen = in->gen, epoch = in->epoch;
	memset(in, 0, offsetof(struct msg_in, shape));
	in->gen = gen;
	in->epoch = epoch;
	in->pair = pair;
	in->chunk = POOL_NONE;
	list_init(&in->hash);
	list_init(&in->by_pair);
	list_init(&in->by_ep);
	list_init(&in->pair_tag);
	list_init(&in->ep_tag);
	list_init(&in->due);
	rangeset_init(&in->ranges, &pair->m->rx_ranges);
	return in;
}

void in_put(struct msg *m, struct msg_in *in)
{
	if (in->pair->last == in)
		in->pair->last = NULL;
	if (in->state != IN_NOTICE)
		in->pair->said_flying -= (in->said & IN_GRANT ? 1 : 0) + (in->said & IN_RESULT ? 1 : 0);
	rangeset_clear(&in->ranges);
	list_remove(&in->hash);
	list_remove(&in->due);
	in->gen++;
	in->epoch++;
	pool_put(&m->ins, in);
}

/* Gone once nobody needs it: its bytes are dropped and nothing is to be said. */
static void in_try_put(struct msg *m, struct msg_in *in)
{
	if ((in->state == IN_DROP || in->state == IN_REFUSED) && !in->says && !in->said)
		in_put(m, in);
}

/* ---- what is said back ---- */

void in_say(struct msg_in *in, uint8_t what, int status)
{
	if (what == IN_RESULT)
		in->status = (uint8_t)-status;
	in->says |= what;
	if (!list_linked(&in->due))
		list_push_back(&in->pair->due, &in->due);
	msg_wake(in->pair);
}

void in_said(struct msg *m, struct msg_in *in, uint8_t what, bool acked)
{
	in->said &= (uint8_t)~what;
	in->pair->said_flying--;
	bool has_come = what == IN_GRANT && (in->front || !rangeset_empty(&in->ranges));
	if (!acked && !has_come)
		in_say(in, what, -(int)in->status);
	in_try_put(m, in);
}

static bool in_tx_one(struct msg_mix *x, struct msg_in *in, uint8_t what)
{
	struct flow_item item = {.ref = msg_in_ref(x->pair->m, in), .kind = what == IN_GRANT ? MSG_ITEM_GRANT : MSG_ITEM_RESULT};
	struct wire_record r = {.type = WIRE_GRANT, .grant = {.seq = (uint32_t)in->seq, .recv_id = WIRE_NONE32}};
	/* the message's tag travels in `bytes`: a sender that has forgotten the message can still say which it was */
	if (what == IN_RESULT)
		r = (struct wire_record){.type = WIRE_RESULT, .result = {.status = in->status, .seq = (uint32_t)in->seq, .tag = in->tag}};
	if ((in->said & what) || !msg_mix_put(x, &r, &item))
		return false;
	in->says &= (uint8_t)~what;
	in->said |= what;
	x->pair->said_flying++;
	return true;
}

void in_tx_due(struct msg_mix *x)
{
	struct list *at;
	while ((at = list_first(&x->pair->due))) {
		struct msg_in *in = list_entry(at, struct msg_in, due);
		if ((in->says & IN_GRANT) && !in_tx_one(x, in, IN_GRANT))
			return;
		if ((in->says & IN_RESULT) && !in_tx_one(x, in, IN_RESULT))
			return;
		list_remove(&in->due);
	}
}

/* Its bytes may come: directly, if the receive's memory is within the peer's reach, which is arranged first. */
void in_grant(struct msg_in *in)
{
	struct msg_op *op = in->op;
	if (op && op->exposed)
		key_renamed(op, WIRE_KEY_CLAIM, (uint32_t)in->seq);
	if (op && op->exposed ? key_pending(op) :
		op && key_wants(in->pair, op) && key_open(op, WIRE_KEY_CLAIM, (uint32_t)in->seq))
		return;
	in_say(in, IN_GRANT, 0);
}

void in_key(struct msg_op *op)
{
	if (op->in && op->in->op == op && op->in->state == IN_FILLING)
		in_say(op->in, IN_GRANT, 0);
}

/* ---- the end ---- */

void in_drop(struct msg *m, struct msg_in *in)
{
	match_unlink(in);
	credit_return(in);
	chunks_put(in);
	if (in->kind == WIRE_KIND_WRITE && in->state == IN_FILLING)
		write_end(in);
	if (in->state == IN_FILLING && in->kind != WIRE_KIND_WRITE && in->front < in->limit)
		in_say(in, IN_RESULT, -TERN_ECANCELED);
	in->says &= (uint8_t)~IN_GRANT;
	in->state = IN_DROP;
	in->addr = NULL;
	in->epoch++;
	rangeset_clear(&in->ranges);
	in_try_put(m, in);
}

void in_end(struct msg *m, struct msg_in *in)
{
	struct msg_op *op = in->op;
	bool write = in->kind == WIRE_KIND_WRITE;
	int status = in->bytes > in->limit ? -TERN_ETRUNC : 0;
	if (write)
		write_end(in);
	if (in->bytes)
		in->says &= (uint8_t)~IN_GRANT;
	in->state = IN_DROP;
	in->addr = NULL;
	in->op = NULL;
	in->epoch++;
	if (op) {
		op->in = NULL;
		op->bytes = in->bytes;
		op->imm = in->imm;
		if (status)
			in_say(in, IN_RESULT, status);
		msg_op_end(m, op, status);
	}
	if (write && (in->flags & WIRE_HEAD_IMM)) { /* the entry itself carries the event */
		list_remove(&in->hash);
		in->state = IN_NOTICE;
		if (in->pair->last == in)
			in->pair->last = NULL;
		in->seq = in->pair->peer;
		in->kind = TERN_EV_REMOTE_WRITE;
		in->recv_id = pool_index_of(&m->eps, in->pair->ep);
		in->tag = in->status = 0;
		list_push_back(&m->notices, &in->due);
		return;
	}
	in_try_put(m, in);
}

/* ---- placing ---- */

/* Counts [offset, offset + bytes) as placed. */
static void in_count(struct msg *m, struct msg_in *in, uint64_t offset, uint64_t bytes)
{
	uint64_t end = offset + bytes < in->limit ? offset + bytes : in->limit;
	if (offset < in->front)
		offset = in->front;
	if (offset < end && offset > in->front) {
		uint64_t added = rangeset_add(&in->ranges, offset, end);
		assert(added != RANGE_NO_ROOM); /* msg_rx_where keeps nodes back */
		(void)added;
		return;
	}
	if (end > in->front)
		in->front = end;
	uint32_t i = rangeset_first(&in->ranges);
	while (i && rangeset_at(&in->ranges, i)->first <= in->front) {
		uint64_t first, upto = rangeset_at(&in->ranges, i)->end;
		rangeset_pop_front(&in->ranges, UINT64_MAX, &first);
		in->front = in->front > upto ? in->front : upto;
		i = rangeset_first(&in->ranges);
	}
	if (in->front >= in->limit && in->state == IN_FILLING)
		in_end(m, in);
}

/* Copies bytes to where they belong, whatever that is; all of them inside the limit. */
static void in_store(struct msg_in *in, uint64_t offset, const uint8_t *data, uint64_t bytes, uint64_t *copied)
{
	struct frame_seg to[FRAME_SEGS_MAX], from;
	if (in->addr) {
		copy_bytes(in->addr + offset, data, bytes, copied);
	} else if (in->op) {
		layout_copy_in(&in->op->layout, offset, data, bytes, copied);
	} else {
		for (uint64_t at = 0, n; at < bytes; at += n) {
			n = bytes - at < MSG_CHUNK_BYTES ? bytes - at : MSG_CHUNK_BYTES;
			from = (struct frame_seg){.addr = (uint8_t *)(uintptr_t)(data + at), .bytes = (uint32_t)n};
			copy_segs(to, chunks_segs(in, offset + at, n, to, FRAME_SEGS_MAX), &from, 1, copied);
		}
	}
}

/* Only the bytes that are not there yet. */
void in_fill(struct msg *m, struct msg_in *in, uint64_t offset, const uint8_t *data, uint64_t bytes, uint64_t *copied)
{
	uint64_t end = offset + bytes < in->limit ? offset + bytes : in->limit;
	uint64_t at = offset > in->front ? offset : in->front, first, upto;
	if (at < end && rangeset_empty(&in->ranges)) { /* no gap to look for: all of it is one */
		in_store(in, at, data + (at - offset), end - at, copied);
		at = end;
	}
	while (at < end && rangeset_next_gap(&in->ranges, at, end, &first, &upto)) {
		in_store(in, first, data + (first - offset), upto - first, copied);
		at = upto;
	}
	in_count(m, in, offset, bytes);
}

static int in_where(struct msg_pair *pair, struct msg_in *in, const struct msg_arrival *a, struct msg_place *out)
{
	uint64_t end = a->offset + a->bytes;
	out->target = in;
	out->epoch = in->epoch;
	if (end < a->offset || end > in->bytes)
		return -TERN_EPROTO;
	if (in->state == IN_REFUSED || ((in->flags & WIRE_HEAD_CLAIM) && (in->state == IN_HELD || in->state == IN_UNMATCHED)))
		return -TERN_EAGAIN;
	bool fresh = a->offset >= in->front && (rangeset_empty(&in->ranges) || !rangeset_overlap(&in->ranges, a->offset, end));
	if (in->state == IN_DROP || end <= in->front || a->offset >= in->limit ||
		(!fresh && rangeset_covers(&in->ranges, a->offset > in->front ? a->offset : in->front, end < in->limit ? end : in->limit))) {
		out->flags = MSG_PLACE_DROP;
		return 0;
	}
	if (a->offset > in->front && pair->m->rx_ranges.used + MSG_RANGE_SPARE > pair->m->rx_ranges.max)
		return -TERN_EAGAIN;
	if (!fresh || end > in->limit || (a->sealed && in->kind == WIRE_KIND_WRITE)) {
		out->flags = MSG_PLACE_BOUNCE;
		return 0;
	}
	if (in->addr) {
		out->seg[0] = (struct frame_seg){.addr = in->addr + a->offset, .bytes = a->bytes};
		out->segs = 1;
	} else if (in->op) {
		out->segs = (uint32_t)layout_segs(&in->op->layout, a->offset, a->bytes, out->seg, FRAME_SEGS_MAX);
	} else {
		out->segs = (uint32_t)chunks_segs(in, a->offset, a->bytes, out->seg, FRAME_SEGS_MAX);
	}
	if (!out->segs)
		out->flags = MSG_PLACE_BOUNCE;
	return 0;
}

static __attribute__((noinline)) int where_slow(struct msg_pair *pair, const struct msg_arrival *a, struct msg_place *out)
{
	uint64_t seq = msg_seq_near(pair->rx_front, a->seq);
	if (a->channel || !a->bytes)
		return -TERN_EPROTO;
	out->target = NULL;
	struct msg_in *in = in_find(pair, seq);
	if (in) {
		pair->last = in;
		return in_where(pair, in, a, out);
	}
	if (seq >= pair->rx_front && !rangeset_contains(&pair->rx_seen, seq))
		return -TERN_EAGAIN;
	out->flags = MSG_PLACE_DROP; /* it has ended */
	return 0;
}

int msg_rx_where(struct msg_pair *pair, const struct msg_arrival *a, struct msg_place *out)
{
	struct msg_in *in = pair->last;
	uint64_t end = a->offset + a->bytes;
	out->offset = a->offset;
	out->bytes = a->bytes;
	out->flags = 0;
	out->segs = 0;
	/* bytes in order into one run of memory; nothing beyond the front is there yet, so no byte can be a duplicate */
	if (in && (uint32_t)in->seq == a->seq && in->addr && a->offset == in->front && end <= in->limit && rangeset_empty(&in->ranges) && a->bytes &&
		!(a->sealed && in->kind == WIRE_KIND_WRITE) && !a->channel) {
		out->target = in;
		out->epoch = in->epoch;
		out->segs = 1;
		out->seg[0].addr = in->addr + a->offset;
		out->seg[0].bytes = a->bytes;
		out->seg[0].mem = 0;
		return 0;
	}
	return where_slow(pair, a, out);
}

/* Anything but the next bytes of a message that does not end with them. */
static __attribute__((noinline)) void commit_slow(struct msg_pair *pair, const struct msg_place *place, uint64_t *copied)
{
	if (place->flags & MSG_PLACE_BOUNCE)
		in_fill(pair->m, place->target, place->offset, place->bounce, place->bytes, copied);
	else
		in_count(pair->m, place->target, place->offset, place->bytes);
}

int msg_rx_commit(struct msg_pair *pair, const struct msg_place *place, uint64_t *copied)
{
	struct msg_in *in = place->target;
	if (place->flags & MSG_PLACE_DROP)
		return 0;
	if (in->epoch != place->epoch)
		return -TERN_EAGAIN;
	uint64_t end = place->offset + place->bytes;
	if (place->offset == in->front && end < in->limit && rangeset_empty(&in->ranges) && !(place->flags & MSG_PLACE_BOUNCE)) {
		in->front = end;
		return 0;
	}
	commit_slow(pair, place, copied);
	return 0;
}

bool msg_rx_expect(struct msg_pair *pair, uint8_t **addr, uint64_t *bytes, struct msg_op **op)
{
	struct msg_in *in = pair->last;
	if (!in || !in->addr || !in->op || in->state != IN_FILLING || !rangeset_empty(&in->ranges) || in->limit - in->front < MSG_SMALL_BYTES)
		return false;
	*addr = in->addr + in->front;
	*bytes = in->limit - in->front;
	*op = in->op;
	return true;
}

int msg_rx_placed(struct msg_pair *pair, uint32_t seq32, uint64_t offset, uint32_t bytes)
{
	uint64_t seq = msg_seq_near(pair->rx_front, seq32), end = offset + bytes;
	struct msg_in *in = in_find(pair, seq);
	if (!in)
		return seq >= pair->rx_front && !rangeset_contains(&pair->rx_seen, seq) ? -TERN_EAGAIN : 0;
	if (end < offset || end > in->bytes || in->state == IN_HELD || in->state == IN_UNMATCHED)
		return -TERN_EPROTO; /* nobody can have had a key for that */
	pair->last = in;
	if (in->state == IN_FILLING && offset < in->limit && end > in->front) {
		if (offset > in->front && pair->m->rx_ranges.used + MSG_RANGE_SPARE > pair->m->rx_ranges.max)
			return -TERN_EAGAIN;
		in_count(pair->m, in, offset, bytes);
	}
	return 0;
}

/* ---- HEAD and CANCEL ---- */

/* @return 1: new; 0: it has come before; -TERN_EAGAIN, -TERN_EPROTO */
static int seq_check(const struct msg_pair *pair, uint64_t seq)
{
	if (seq < pair->rx_front || seq > UINT64_MAX - MSG_SEQ_AHEAD)
		return 0;
	if (seq - pair->rx_front > MSG_SEQ_AHEAD)
		return -TERN_EPROTO;
	if (rangeset_contains(&pair->rx_seen, seq))
		return 0;
	return seq != pair->rx_front && pair->m->rx_ranges.used + 4 > pair->m->rx_ranges.max ? -TERN_EAGAIN : 1;
}

/* Its HEAD has come, or never will; seq_check has seen to it that there is a node. */
static void seq_seen(struct msg_pair *pair, uint64_t seq)
{
	if (seq != pair->rx_front) {
		rangeset_add(&pair->rx_seen, seq, seq + 1);
		return;
	}
	pair->rx_front++;
	pair->announce_check = true;
	uint32_t i = rangeset_first(&pair->rx_seen);
	if (i && rangeset_at(&pair->rx_seen, i)->first == pair->rx_front) {
		uint64_t first;
		pair->rx_front = rangeset_at(&pair->rx_seen, i)->end;
		rangeset_pop_front(&pair->rx_seen, UINT64_MAX, &first);
	}
	while ((i = rangeset_first(&pair->rx_skipped)) && rangeset_at(&pair->rx_skipped, i)->first < pair->rx_front) {
		uint64_t first, left = pair->rx_front - rangeset_at(&pair->rx_skipped, i)->first;
		rangeset_pop_front(&pair->rx_skipped, left, &first);
	}
}

static struct msg_in *in_open(struct msg_pair *pair, const struct wire_head *h, uint64_t seq)
{
	struct msg *m = pair->m;
	struct msg_in *in = in_get(pair);
	if (!in)
		return NULL;
	in->seq = seq;
	in->tag = h->tag;
	in->imm = h->imm;
	in->bytes = in->limit = h->bytes;
	in->kind = h->kind;
	in->flags = h->flags;
	in->hold = h->hold_seq;
	in->recv_id = h->recv_id;
	in->dtype = h->dtype;
	in->dims = h->dims;
	memcpy(in->shape, h->shape, h->dims * sizeof(h->shape[0]));
	list_push_back(&m->in_seq[msg_hash_ptr(pair, seq) & m->in_mask], &in->hash);
	return in;
}

/* A send that names an announced receive. */
static void in_named(struct msg_pair *pair, struct msg_in *in)
{
	struct msg_op *op = announce_named(pair, in->recv_id);
	if (op) {
		match_pair(pair->m, in, op);
		return;
	}
	in_say(in, IN_RESULT, -TERN_ECANCELED); /* cancelled meanwhile */
	in_drop(pair->m, in);
}

/* Nearly every small message: all of it is in its HEAD, every HEAD before it has come, none is held, and its receive waits and has room. Nothing of it is left over,
 * so it needs no entry: the same as match_arrived and in_fill would do with one, in one go.
 * @return 1: it has ended; 0: it is not such a message; -TERN_EPROTO */
static int in_whole(struct msg_pair *pair, const struct wire_head *h, uint64_t seq)
{
	if ((h->flags & (uint8_t)~WIRE_HEAD_IMM) != WIRE_HEAD_INLINE || h->kind != WIRE_KIND_SEND || h->recv_id != WIRE_NONE32 ||
	        seq != pair->rx_front || !list_empty(&pair->held))
		return 0;
	struct msg_op *op = match_first(pair, h->tag);
	if (!op || h->bytes > layout_bytes(&op->layout))
		return 0;
	if (credit_pass(pair, h->bytes))
		return -TERN_EPROTO;
	seq_seen(pair, seq);
	announce_unnamed(pair, seq, h->tag);
	match_meets(pair, op, h->tag, h->imm, h->bytes);
	if (h->bytes)
		layout_copy_in(&op->layout, 0, h->data, h->bytes, &pair->m->copied_bytes);
	msg_op_end(pair->m, op, 0);
	return 1;
}

static int in_head(struct msg_pair *pair, const struct wire_head *h, uint64_t seq)
{
	struct msg *m = pair->m;
	bool unnamed = h->kind == WIRE_KIND_SEND && h->recv_id == WIRE_NONE32;
	/* the last entries are for messages that have credit */
	if (!unnamed && pool_used(&m->ins) - m->ins_credited >= m->ins.n - m->heads_total)
		return -TERN_EAGAIN;
	struct msg_in *in = in_open(pair, h, seq);
	if (!in)
		return -TERN_EAGAIN;
	if (unnamed && credit_take(in)) {
		in_put(m, in);
		return -TERN_EPROTO;
	}
	seq_seen(pair, seq);
	uint32_t gen = in->gen;
	if (h->kind == WIRE_KIND_WRITE)
		write_rx(pair, in, h);
	if (h->kind == WIRE_KIND_READ_REPLY) {
		int err = read_rx_reply(pair, in);
		if (err)
			return err;
	} else if (unnamed) {
		announce_unnamed(pair, seq, h->tag);
		match_arrived(pair, in);
	} else if (h->kind == WIRE_KIND_SEND) {
		/* it need not wait for what it holds for, but a later one that holds for it must */
		if (seq > pair->rx_front && (in->hold != WIRE_NONE32 || (in->flags & WIRE_HEAD_HOLD_ALL)))
			rangeset_add(&pair->rx_skipped, seq, seq + 1);
		in_named(pair, in);
	}
	bool refused = in->gen == gen && in->state == IN_REFUSED;
	if ((h->flags & WIRE_HEAD_INLINE) && in->gen == gen && in->state != IN_DROP && !refused)
		in_fill(m, in, 0, h->data, h->bytes, &m->copied_bytes);
	else if (in->gen == gen && in->state == IN_FILLING && in->front >= in->limit)
		in_end(m, in);
	if (!list_empty(&pair->held))
		match_release(pair);
	return refused ? -TERN_EAGAIN : 0; /* its HEAD stays unacknowledged, or the sender would take the write for done */
}

int in_rx_head(struct msg_pair *pair, const struct wire_head *h)
{
	uint64_t seq = msg_seq_near(pair->rx_front, h->seq);
	int err = seq_check(pair, seq);
	if (err == 0 && h->kind == WIRE_KIND_WRITE) {
		const struct msg_in *in = in_find(pair, seq);
		return in && in->state == IN_REFUSED ? -TERN_EAGAIN : 0;
	}
	if (err <= 0)
		return err;
	if ((h->kind != WIRE_KIND_SEND && (h->flags & WIRE_HEAD_CLAIM)) || (h->kind == WIRE_KIND_READ_REPLY && h->recv_id == WIRE_NONE32))
		return -TERN_EPROTO;
	err = in_whole(pair, h, seq);
	return err ? err < 0 ? err : 0 : in_head(pair, h, seq);
}

/* The sender gives it up. A message that has met its receive takes that with it; one that waits is forgotten. */
int in_rx_cancel(struct msg_pair *pair, const struct wire_cancel *r)
{
	struct msg *m = pair->m;
	uint64_t seq = msg_seq_near(pair->rx_front, r->seq);
	int err = seq_check(pair, seq);
	if (err < 0)
		return err;
	struct msg_in *in = in_find(pair, seq);
	bool hides = err == 1 || (in && in->state == IN_HELD);
	/* later messages that hold for this one must not be freed by it while earlier ones are missing */
	if (hides && seq != pair->rx_front && rangeset_add(&pair->rx_skipped, seq, seq + 1) == RANGE_NO_ROOM)
		return -TERN_EAGAIN;
	if (err == 1)
		seq_seen(pair, seq);
	if (in && in->state == IN_FILLING && in->kind == WIRE_KIND_SEND) {
		struct msg_op *op = in->op;
		in->limit = in->front; /* nothing to tell the sender */
		msg_op_end(m, op, -TERN_ECANCELED);
	} else if (in && in->kind != WIRE_KIND_READ_REPLY && in->state != IN_DROP && in->state != IN_REFUSED) {
		in_drop(m, in);
	}
	if (!list_empty(&pair->held))
		match_release(pair);
	return 0;
}
