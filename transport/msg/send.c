/* Sends, writes and replies on their way: queues, runs of bytes, reports, cancel. Called by msg.c for posting and by peer/ through msg.h. Knows no
 * format of records: head.c says them. */
#include "msg/state.h"

static struct list *number_bucket(struct msg_pair *pair, uint32_t seq)
{
	return &pair->m->send_hash[msg_hash_ptr(pair, seq) & pair->m->op_mask];
}

struct msg_op *send_find(struct msg_pair *pair, uint32_t seq)
{
	struct list *head = number_bucket(pair, seq);
	for (struct list *at = list_first(head); at; at = list_next(head, at)) {
		struct msg_op *op = list_entry(at, struct msg_op, hash);
		if (op->pair == pair && op->seq == seq && (op->state & OP_HEAD_SENT) && op->type != MSG_OP_READ && op->type != MSG_OP_RECV)
			return op;
	}
	return NULL;
}

/* A message in exactly one queue: what it has to say first, then its bytes. */
void send_queue(struct msg_op *op)
{
	struct msg_pair *pair = op->pair;
	list_remove(&op->link);
	if (op->state & (OP_HEAD_DUE | OP_CANCEL_DUE))
		list_push_back(&pair->heads, &op->link);
	else if ((op->state & OP_GO) && (op->sent_bytes < op->total_bytes || !rangeset_empty(&op->ranges)))
		list_push_back(op->total_bytes <= MSG_SMALL_BYTES ? &pair->small : &pair->bulk, &op->link);
	else
		return;
	msg_wake(pair);
}

void send_post(struct msg *m, struct msg_op *op)
{
	struct msg_pair *pair = op->pair;
	(void)m;
	if (op->type == MSG_OP_WRITE) {
		list_push_back(&pair->wait_write, &op->link);
		msg_wake(pair);
		return;
	}
	hold_number(pair, op);
	if (offer_take(op)) {
		op->state |= OP_HEAD_DUE;
		send_queue(op);
		return;
	}
	list_push_back(&pair->wait, &op->link);
	list_push_back(&m->send_hash[msg_hash_ptr(pair, op->tag) & m->op_mask], &op->hash);
	msg_wake(pair);
}

void msg_pair_turn(struct msg_pair *pair, unsigned path, uint32_t quantum_bytes)
{
	pair->tx_path = (uint8_t)path;
	pair->quantum_bytes = quantum_bytes;
}

unsigned msg_tx_want(const struct msg_pair *pair)
{
	if (!pair->is_up)
		return 0;
	unsigned want = (list_empty(&pair->small) ? 0 : MSG_WANT_SMALL) | (list_empty(&pair->bulk) ? 0 : MSG_WANT_BULK);
	if (!list_empty(&pair->due) || pair->credit_due || pair->answers_due || head_tx_want(pair) || announce_tx_want(pair) || read_tx_want(pair) ||
	    !list_empty(&pair->keys_due))
		want |= MSG_WANT_RECORDS;
	return want;
}

bool msg_tx_has_bytes(const struct msg_pair *pair)
{
	return pair->is_up && !(list_empty(&pair->small) && list_empty(&pair->bulk));
}

static uint64_t send_left(const struct msg_op *op)
{
	return op->total_bytes - op->done_bytes;
}

/* Whose turn is next: the message with least left to send, so that messages of one size end one after another and not all at once, and short ones pass long ones; each
 * fourth turn goes round in order, so that a long one always has a quarter. The search is bounded; beyond it order decides. */
static void bulk_turn(struct msg_pair *pair)
{
	struct list *best = list_first(&pair->bulk), *at = best;
	if (++pair->turns % 4 == 0) {
		list_remove(at);
		list_push_back(&pair->bulk, at);
		return;
	}
	for (unsigned i = 0; at && i < MSG_SCAN_MAX; i++, at = list_next(&pair->bulk, at))
		if (send_left(list_entry(at, struct msg_op, link)) < send_left(list_entry(best, struct msg_op, link)))
			best = at;
	list_remove(best);
	list_push_front(&pair->bulk, best);
}

/* The next bytes: lost ones first. Those go as bytes always: the receiver acknowledges what it has already, while a write into memory that it has taken back would
 * vanish each time. The others directly if they can be. */
static uint64_t run_take(struct msg_op *op, uint64_t max_bytes, uint64_t *offset, struct msg_run *out)
{
	uint64_t bytes;
	uint32_t lost = rangeset_first(&op->ranges);
	*offset = lost ? rangeset_at(&op->ranges, lost)->first : op->sent_bytes;
	bytes = (lost ? rangeset_at(&op->ranges, lost)->end : op->total_bytes) - *offset;
	bytes = bytes < max_bytes ? bytes : max_bytes;
	out->is_direct = !lost && key_run(op, *offset, &bytes, &out->target);
	if (lost)
		return rangeset_pop_front(&op->ranges, bytes, offset);
	op->sent_bytes += bytes;
	return bytes;
}

/* The queue whose turn it is; NULL: none. */
static struct list *run_queue(struct msg_pair *pair, unsigned want)
{
	struct list *queue = (want & MSG_WANT_SMALL) && !list_empty(&pair->small) ? &pair->small : &pair->bulk;
	return list_empty(queue) || (queue == &pair->bulk && !(want & MSG_WANT_BULK)) || !pair->is_up ? NULL : queue;
}

/* With one path at most that places anything there is nothing to share out. */
static bool is_shared(const struct msg_pair *pair)
{
	return pair->connected & (pair->connected - 1);
}

/* Brings the first message to the front that this path may take. @return NULL: all are for others */
static struct msg_op *run_op(struct msg_pair *pair, struct list *queue)
{
	struct list *at = list_first(queue);
	if (!is_shared(pair))
		return list_entry(at, struct msg_op, link);
	for (unsigned steps = 0; at && steps < MSG_SCAN_MAX; at = list_next(queue, at), steps++) {
		struct msg_op *op = list_entry(at, struct msg_op, link);
		if (key_share(op, pair->tx_path) == KEY_SHARE_NONE)
			continue;
		list_remove(at);
		list_push_front(queue, at);
		return op;
	}
	return NULL;
}

static enum key_share share_in(const struct list *queue, unsigned path)
{
	enum key_share most = KEY_SHARE_NONE;
	unsigned steps = 0;
	for (const struct list *at = list_first(queue); at && most != KEY_SHARE_OWN && steps < MSG_SCAN_MAX; at = list_next(queue, at), steps++) {
		enum key_share share = key_share(list_entry(at, struct msg_op, link), path);
		most = share > most ? share : most;
	}
	return most;
}

struct msg_share msg_tx_share(const struct msg_pair *pair, unsigned path)
{
	if (!is_shared(pair))
		return (struct msg_share){.may = MSG_WANT_SMALL | MSG_WANT_BULK};
	enum key_share small = share_in(&pair->small, path), bulk = share_in(&pair->bulk, path);
	return (struct msg_share){.may = (small ? MSG_WANT_SMALL : 0) | (bulk ? MSG_WANT_BULK : 0),
		.own = (small == KEY_SHARE_OWN ? MSG_WANT_SMALL : 0) | (bulk == KEY_SHARE_OWN ? MSG_WANT_BULK : 0)};
}

size_t msg_tx_head(struct msg_pair *pair, unsigned want, uint8_t *out, size_t room, struct flow_item *item)
{
	struct list *queue = run_queue(pair, want);
	struct msg_op *op = queue ? run_op(pair, queue) : NULL;
	if (!op || (op->state & OP_HEAD_ACKED) || (op->head_paths & 1u << pair->tx_path))
		return 0;
	return head_again(op, out, room, item);
}

static uint64_t waiting_in(const struct list *queue, uint64_t enough)
{
	uint64_t bytes = 0;
	unsigned steps = 0;
	for (const struct list *at = list_first(queue); at && bytes < enough && steps < MSG_SCAN_MAX; at = list_next(queue, at), steps++) {
		const struct msg_op *op = list_entry(at, struct msg_op, link);
		bytes += op->total_bytes - op->sent_bytes + (rangeset_empty(&op->ranges) ? 0 : MSG_SMALL_BYTES); /* what was lost is rarely more */
	}
	return bytes;
}

uint64_t msg_tx_waiting(const struct msg_pair *pair, uint64_t enough)
{
	uint64_t bytes = waiting_in(&pair->small, enough);
	return bytes < enough ? bytes + waiting_in(&pair->bulk, enough - bytes) : bytes;
}

bool msg_tx_run(struct msg_pair *pair, unsigned want, uint32_t max_bytes, struct msg_run *out)
{
	struct list *queue = run_queue(pair, want);
	struct msg_op *op = queue && max_bytes ? run_op(pair, queue) : NULL;
	if (!op)
		return false;
	uint64_t offset, bytes = run_take(op, max_bytes, &offset, out);
	op->head_bytes += bytes;
	op->turn_bytes += (uint32_t)bytes;
	bool turn_over = op->turn_bytes >= pair->quantum_bytes;
	/* said again after 64 KiB, then after four times as much each: what is refused for want of it stays a part of what was sent */
	uint32_t said = op->heads ? op->heads - 1 : 0;
	if (said < MSG_HEADS_MAX - 1 && !(op->state & OP_HEAD_ACKED) && op->head_bytes >= (uint64_t)MSG_HEAD_EVERY_BYTES << (2 * said))
		op->state |= OP_HEAD_DUE;
	if (turn_over)
		op->turn_bytes = 0;
	if ((op->state & OP_HEAD_DUE) || (op->sent_bytes == op->total_bytes && rangeset_empty(&op->ranges)))
		send_queue(op);
	else if (turn_over && queue == &pair->bulk && queue->next != queue->prev)
		bulk_turn(pair);
	out->op = op;
	out->offset = offset;
	out->bytes = (uint32_t)bytes;
	out->seq = op->seq;
	out->channel = 0;
	out->last = list_empty(queue);
	out->item = (struct flow_item){.ref = msg_op_ref(pair->m, op), .offset = offset, .bytes = (uint32_t)bytes, .kind = MSG_ITEM_RUN};
	if (out->is_direct && pair_is_reliable(pair)) {
		out->item.kind = MSG_ITEM_DIRECT;
		if (!(op->state & (OP_HEAD_ACKED | OP_AHEAD))) {
			op->state |= OP_AHEAD;
			pair->ahead++;
		}
		op->held += !op->flying_bytes;
		op->flying_bytes += bytes;
	}
	return true;
}

bool send_wants_result(const struct msg_op *op)
{
	return (op->flags & TERN_DONE_MATCHED) && op->type == MSG_OP_SEND;
}

/* All of it is acknowledged, and the RESULT is here if it waits for that. */
static bool send_is_over(const struct msg_op *op)
{
	return (op->state & OP_HEAD_ACKED) && op->done_bytes >= op->total_bytes && (op->state & (OP_GO | OP_INLINE)) &&
		((op->state & OP_RESULT) || !send_wants_result(op));
}

void send_try_end(struct msg *m, struct msg_op *op)
{
	if (!send_is_over(op))
		return;
	if (op->state & OP_CANCEL_SENT)
		return; /* bytes may have been acknowledged and dropped: only the answer to CANCEL ends it */
	op->bytes = op->total_bytes;
	msg_op_end(m, op, 0);
}

/* ---- reports ---- */

/* The front of numbers whose HEAD (or CANCEL) is known to have come. */
void send_seq_acked(struct msg_pair *pair, uint64_t seq)
{
	if (seq != pair->tx_front) {
		if (seq > pair->tx_front)
			rangeset_add(&pair->tx_acked, seq, seq + 1); /* without a node the front stays: later holds name more than they need */
		return;
	}
	pair->tx_front++;
	uint32_t i = rangeset_first(&pair->tx_acked);
	if (i && rangeset_at(&pair->tx_acked, i)->first <= pair->tx_front) {
		uint64_t end = rangeset_at(&pair->tx_acked, i)->end, first;
		rangeset_pop_front(&pair->tx_acked, UINT64_MAX, &first);
		pair->tx_front = end;
	}
}

void send_not_ahead(struct msg_op *op)
{
	if (op->state & OP_AHEAD)
		op->pair->ahead--;
	op->state &= ~(uint32_t)OP_AHEAD;
}

void send_head_acked(struct msg *m, struct msg_op *op)
{
	if (op->state & OP_HEAD_ACKED)
		return;
	send_not_ahead(op);
	op->state |= OP_HEAD_ACKED;
	op->state &= ~(uint32_t)OP_HEAD_DUE;
	send_seq_acked(op->pair, msg_seq_near(op->pair->tx_next, op->seq));
	if (op->state & OP_INLINE)
		op->done_bytes = op->total_bytes;
	if ((op->state & OP_CANCEL) && !send_is_over(op))
		op->state |= OP_CANCEL_DUE;
	if (list_linked(&op->link) || (op->state & OP_CANCEL_DUE))
		send_queue(op);
	send_try_end(m, op);
}

static void run_lost(struct msg *m, struct msg_op *op, const struct flow_item *item)
{
	if (op->state & OP_CANCEL)
		return;
	if (rangeset_add(&op->ranges, item->offset, item->offset + item->bytes) == RANGE_NO_ROOM) {
		op->status = -TERN_ELIMIT; /* no node is free to remember the bytes by: the message is given up, and the receiver hears of it */
		send_cancel(m, op);
		return;
	}
	if (!(op->state & (OP_HEAD_DUE | OP_CANCEL_DUE)))
		send_queue(op);
}

static void op_report(struct msg *m, const struct flow_item *item, bool acked)
{
	struct msg_op *op = msg_op_at(m, item->ref);
	if (!op)
		return;
	bool ended = op->state == OP_ENDED; /* it waits for what the link still reads */
	if (item->kind == MSG_ITEM_DIRECT)
		msg_op_landed(m, op, item->bytes);
	if (ended)
		return;
	if (item->kind == MSG_ITEM_RUN || item->kind == MSG_ITEM_DIRECT) {
		if (!acked) {
			run_lost(m, op, item);
			return;
		}
		op->done_bytes += item->bytes;
		if (op->done_bytes >= op->total_bytes)
			send_try_end(m, op);
	} else if (item->kind == MSG_ITEM_HEAD) {
		if (acked) {
			send_head_acked(m, op);
		} else if (!(op->state & OP_HEAD_ACKED)) {
			op->state |= OP_HEAD_DUE;
			send_queue(op);
		}
	} else if (item->kind == MSG_ITEM_CANCEL) {
		if (acked) {
			msg_op_end(m, op, op->status ? op->status : -TERN_ECANCELED);
		} else {
			op->state |= OP_CANCEL_DUE;
			send_queue(op);
		}
	} else if (!acked) {
		read_lost(op);
	}
}

static void skip_report(struct msg_pair *pair, uint64_t seq, bool acked)
{
	if (acked) {
		send_seq_acked(pair, seq);
		rangeset_remove(&pair->skips, seq, seq + 1); /* without a node for the other half it is said again, which does no harm */
	} else if (seq < pair->skip_next) {
		pair->skip_next = seq;
	}
}

static void pair_report(struct msg *m, const struct flow_item *item, bool acked)
{
	uint32_t i = (uint32_t)item->ref;
	if (i >= m->config.max_pairs)
		return;
	struct msg_pair *pair = pool_at(&m->pairs, i);
	if (!pool_is_used(&m->pairs, i) || pair->gen != item->ref >> 32)
		return;
	if (item->kind == MSG_ITEM_SKIP)
		skip_report(pair, item->offset, acked);
	else if (item->kind == MSG_ITEM_ANSWER)
		offer_answered(pair, item, acked);
	else if (item->kind == MSG_ITEM_CREDIT)
		credit_said(pair, item, acked);
	else
		announce_acked(pair, item, acked);
	if (!acked)
		msg_wake(pair);
}

static void in_report(struct msg *m, const struct flow_item *item, bool acked)
{
	uint32_t i = (uint32_t)item->ref;
	struct msg_in *in = pool_is_used(&m->ins, i) ? pool_at(&m->ins, i) : NULL;
	if (in && in->gen == item->ref >> 32)
		in_said(m, in, item->kind == MSG_ITEM_GRANT ? IN_GRANT : IN_RESULT, acked);
}

static void report(struct msg *m, const struct flow_item *item, bool acked)
{
	switch (item->kind) {
	case MSG_ITEM_RUN:
	case MSG_ITEM_DIRECT:
	case MSG_ITEM_HEAD:
	case MSG_ITEM_READ:
	case MSG_ITEM_CANCEL:
		op_report(m, item, acked);
		break;
	case MSG_ITEM_GRANT:
	case MSG_ITEM_RESULT:
		in_report(m, item, acked);
		break;
	case MSG_ITEM_KEY:
		key_said(m, item, acked);
		break;
	case 0:
		break;
	default:
		pair_report(m, item, acked);
	}
}

void msg_acked(struct msg *m, const struct flow_item *item)
{
	report(m, item, true);
}

void msg_lost(struct msg *m, const struct flow_item *item)
{
	report(m, item, false);
}

/* ---- what the receiver says ---- */

int send_rx_grant(struct msg_pair *pair, const struct wire_grant *r)
{
	struct msg_op *op = send_find(pair, r->seq);
	if (!op || !(op->state & OP_CLAIM) || (op->state & (OP_GO | OP_CANCEL)))
		return 0;
	op->state |= OP_GO;
	send_queue(op);
	send_try_end(pair->m, op);
	return 0;
}

/* A copy of a RESULT may come when its message has been forgotten: it must not look like news. */
static void result_keep(struct msg_pair *pair, uint32_t seq)
{
	pair->late[pair->late_next++ % MSG_LATE] = seq + UINT64_C(1);
}

static int result_late(struct msg_pair *pair, const struct wire_result *r)
{
	if (r->status != TERN_ESHAPE && r->status != TERN_ETRUNC)
		return 0;
	struct msg *m = pair->m;
	for (unsigned i = 0; i < MSG_LATE; i++)
		if (pair->late[i] == r->seq + UINT64_C(1))
			return 0; /* the record has come before */
	struct msg_in *in = in_get(pair);
	if (!in)
		return -TERN_EAGAIN;
	result_keep(pair, r->seq);
	in->state = IN_NOTICE;
	in->kind = TERN_EV_MISMATCH;
	in->status = r->status;
	in->tag = r->tag;
	in->seq = pair->peer;
	in->recv_id = pool_index_of(&m->eps, pair->ep);
	list_push_back(&m->notices, &in->due);
	return 0;
}

int send_rx_result(struct msg_pair *pair, const struct wire_result *r)
{
	struct msg_op *op = send_find(pair, r->seq);
	if (r->status >= TERN_ERR_END)
		return -TERN_EPROTO;
	if (!op)
		return result_late(pair, r);
	op->state |= OP_RESULT;
	if (!r->status && !(op->state & OP_HEAD_ACKED)) {
		send_head_acked(pair->m, op); /* it came, or nobody could say so */
		return 0;
	}
	if (!r->status) {
		send_try_end(pair->m, op);
		return 0;
	}
	if (!(op->state & OP_HEAD_ACKED))
		send_seq_acked(pair, msg_seq_near(pair->tx_next, op->seq));
	op->bytes = op->total_bytes;
	result_keep(pair, r->seq);
	msg_op_end(pair->m, op, -(int)r->status);
	return 0;
}

/* ---- cancel ---- */

/* Three cases. Nothing has left: it ends now, and its number is filled by a CANCEL so that later messages do not wait for it. A HEAD is on its way:
 * it must arrive (credit was spent on it, both ends count it), then CANCEL says that no more comes. All bytes were acknowledged meanwhile: it ends as
 * it would have. */
void send_cancel(struct msg *m, struct msg_op *op)
{
	struct msg_pair *pair = op->pair;
	if (op->type == MSG_OP_REPLY)
		return;
	if (!(op->state & (OP_HEAD_SENT | OP_NAMED))) {
		if (op->type == MSG_OP_SEND) {
			uint64_t seq = msg_seq_near(pair->tx_next, op->seq);
			if (rangeset_add(&pair->skips, seq, seq + 1) == RANGE_NO_ROOM)
				return; /* it stays posted and ends as it would have */
			pair->skip_next = pair->skip_next < seq ? pair->skip_next : seq;
		}
		msg_op_end(m, op, -TERN_ECANCELED);
		return;
	}
	op->state |= OP_CANCEL;
	if (!(op->state & OP_HEAD_SENT))
		op->state |= OP_CLAIM; /* named: its receive is taken already, so its HEAD must go */
	if (op->state & OP_HEAD_ACKED)
		op->state |= OP_CANCEL_DUE;
	rangeset_clear(&op->ranges);
	op->sent_bytes = op->total_bytes;
	send_queue(op);
}
