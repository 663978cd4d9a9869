/* The receiving side: which numbers came (that set is the replay check), when to acknowledge, and the record that does. Called by peer for every frame: the frame
 * that comes in order touches the newest range only. */
#include "flow/state.h"
#include "tern/error.h"

enum { ECN_CE = 3 };

int flow_rx_check(struct flow *f, uint64_t number)
{
	if (number >= f->rx_floor && number >= f->rx_newest_end)
		return 0;
	if (number < f->rx_floor) {
		f->count.rx_old++;
		return -TERN_ESTALE;
	}
	if (rangeset_contains(&f->rx, number)) {
		f->count.rx_duplicates++;
		return -TERN_ESTALE;
	}
	return 0;
}

void flow_rx_floor(struct flow *f, uint64_t number)
{
	if (number <= f->rx_floor)
		return;
	f->rx_floor = number;
	/* the newest range stays, whole: acknowledgements speak of it */
	while (rangeset_count(&f->rx) > 1 && rangeset_at(&f->rx, rangeset_first(&f->rx))->end <= number) {
		uint64_t first;

		rangeset_pop_front(&f->rx, UINT64_MAX, &first);
	}
}

/* Gives the lowest range up: what is below its end will be refused, not taken twice. */
static void rx_forget_lowest(struct flow *f)
{
	uint64_t end = rangeset_at(&f->rx, rangeset_first(&f->rx))->end, first;

	rangeset_pop_front(&f->rx, UINT64_MAX, &first);
	if (end > f->rx_floor)
		f->rx_floor = end;
}

static void ack_by(struct flow *f, uint64_t when_ns)
{
	if (when_ns < f->ack_when_ns)
		f->ack_when_ns = when_ns;
}

static uint64_t ack_spaced(const struct flow *f, uint64_t now_ns)
{
	uint64_t when = f->acked_ns + FLOW_ACK_SPACE_NS;

	return when > now_ns ? when : now_ns;
}

static void rx_insert(struct flow *f, uint64_t number, uint64_t now_ns)
{
	uint32_t most;

	if (rangeset_add(&f->rx, number, number + 1) == RANGE_NO_ROOM) {
		if (!rangeset_empty(&f->rx))
			rx_forget_lowest(f);
		if (rangeset_add(&f->rx, number, number + 1) == RANGE_NO_ROOM && number >= f->rx_floor)
			f->rx_floor = number + 1; /* not one node left for this flow: it still must not be taken twice */
	}
	most = f->rx.pool->used > f->rx.pool->max / 4 * 3 ? FLOW_RANGES_TIGHT : FLOW_RANGES_MAX; /* no flow may starve the others of their first range */
	while (rangeset_count(&f->rx) > most)
		rx_forget_lowest(f);
	if (number >= f->rx_newest_end) {
		f->rx_newest_end = number + 1;
		f->rx_newest_ns = now_ns;
	}
}

/* What the frame in order does not need is kept out of line, so that it saves no registers for it.
 * The first frame to be acknowledged starts the clock, the sixteenth may end it. */
__attribute__((noinline)) static void ack_count(struct flow *f, uint64_t now_ns)
{
	ack_by(f, f->rx_pending < FLOW_ACK_FRAMES ? now_ns + FLOW_ACK_HOLD_NS : ack_spaced(f, now_ns));
	f->rx_pending_next = f->rx_pending < FLOW_ACK_FRAMES ? FLOW_ACK_FRAMES : UINT32_MAX;
}

/* Out of order, marked, asking for an acknowledgement, or the very first: that one is acknowledged at once, the sender has no RTT yet. */
__attribute__((noinline)) static void rx_odd(struct flow *f, const struct flow_arrival *a, uint64_t now_ns)
{
	if (f->rx.pool->node[f->rx.tail].end != a->number)
		ack_by(f, ack_spaced(f, now_ns));
	rx_insert(f, a->number, now_ns);
	if (a->ecn == ECN_CE) {
		f->rx_ce++;
		f->count.rx_ce++;
		ack_by(f, ack_spaced(f, now_ns));
	}
	if (a->ack_eliciting && ++f->rx_pending >= f->rx_pending_next)
		ack_count(f, now_ns);
	if (a->ack_now)
		ack_by(f, now_ns);
}

void flow_rx_commit(struct flow *f, const struct flow_arrival *a, uint64_t now_ns)
{
	struct range_node *newest = &f->rx.pool->node[f->rx.tail];

	f->count.rx_frames++;
	f->count.rx_bytes += a->wire_bytes;
	f->heard_ns = now_ns;
	if (newest->end != a->number || a->ecn == ECN_CE || a->ack_now) {
		rx_odd(f, a, now_ns);
		return;
	}
	newest->end++;
	f->rx.bytes++;
	f->rx_newest_end = a->number + 1;
	f->rx_newest_ns = now_ns;
	if (a->ack_eliciting && ++f->rx_pending >= f->rx_pending_next)
		ack_count(f, now_ns);
}

uint64_t flow_ack_when_ns(const struct flow *f)
{
	return f->ack_when_ns;
}

static uint32_t ranges_down(const struct flow *f, uint32_t i, uint32_t n, uint32_t max, struct wire_ack *out)
{
	for (; i && n < max; i = rangeset_prev(&f->rx, i)) {
		const struct range_node *node = rangeset_at(&f->rx, i);

		out->range[n].first = node->first;
		out->range[n++].last = node->end - 1;
	}
	return n;
}

/* More ranges than a record takes: half of it says the newest, the other half goes round the rest. Under heavy reordering the newest 32 would all lie in the
 * front of arrival, and what is complete behind it would never be said. */
static uint32_t ranges_rotate(struct flow *f, struct wire_ack *out)
{
	uint32_t n = ranges_down(f, rangeset_last(&f->rx), 0, WIRE_ACK_RANGES_MAX / 2, out), i;
	uint64_t below = out->range[n - 1].first;

	if (f->ack_cursor && f->ack_cursor < below)
		below = f->ack_cursor;
	i = rangeset_prev(&f->rx, rangeset_seek(&f->rx, below));
	n = ranges_down(f, i, n, WIRE_ACK_RANGES_MAX, out);
	f->ack_cursor = n < WIRE_ACK_RANGES_MAX || out->range[n - 1].first <= rangeset_at(&f->rx, rangeset_first(&f->rx))->first ?
		0 : out->range[n - 1].first;
	return n;
}

bool flow_ack_build(struct flow *f, uint64_t now_ns, struct wire_ack *out)
{
	uint64_t delay = now_ns - f->rx_newest_ns;

	if (rangeset_empty(&f->rx))
		return false;
	if (rangeset_count(&f->rx) > WIRE_ACK_RANGES_MAX)
		out->ranges = (uint8_t)ranges_rotate(f, out);
	else
		out->ranges = (uint8_t)ranges_down(f, rangeset_last(&f->rx), 0, WIRE_ACK_RANGES_MAX, out);
	out->path_id = f->path_id;
	out->delay_ns = delay < UINT32_MAX ? (uint32_t)delay : UINT32_MAX;
	out->ce_frames = f->rx_ce;
	out->arrival_ns = f->rx_newest_ns;
	f->rx_pending = 0;
	f->rx_pending_next = 1;
	f->acked_ns = now_ns;
	f->ack_when_ns = UINT64_MAX;
	f->count.acks_tx++;
	return true;
}
