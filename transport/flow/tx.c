/* The sending side: room (window and pacer), numbering and recording. Called by peer for every burst; cost is per run, not per frame.
 * The pacer is a bucket of billionths of a byte: pace x ns is exact, so nothing is lost to rounding and a change of pace is priced at the time it happened. */
#include "flow/state.h"
#include "tern/error.h"

#define NANO 1000000000ll

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Fills the bucket up to now at the pace that held. It holds one burst; only while a caller comes later than it was told to may it hold what it missed. */
void flow_pacer_settle(struct flow *f, uint64_t now_ns)
{
	int64_t depth = (int64_t)f->burst_bytes * NANO;
	unsigned __int128 gain;

	if (now_ns <= f->tokens_ns)
		return;
	gain = (unsigned __int128)f->pace_bytes_per_s * (now_ns - f->tokens_ns);
	f->tokens_ns = now_ns;
	if (f->pace_due_ns && now_ns > f->pace_due_ns) {
		unsigned __int128 late = (unsigned __int128)f->pace_bytes_per_s * min_u64(now_ns - f->pace_due_ns, f->late_ns);

		depth += late > (uint64_t)FLOW_LATE_MAX_BYTES * NANO ? (int64_t)FLOW_LATE_MAX_BYTES * NANO : (int64_t)late;
	}
	if (f->tokens >= depth || gain >= (unsigned __int128)(depth - f->tokens))
		f->tokens = depth;
	else
		f->tokens += (int64_t)gain;
}

/* Takes over the pace that the congestion control wants; the bucket must be settled. */
void flow_pacer_retune(struct flow *f)
{
	uint64_t pace = min_u64(f->out.pace_bytes_per_s, 1000ull * NANO), unit, least, burst;

	if (pace == f->pace_bytes_per_s && f->burst_bytes >= 2ull * f->frame_bytes)
		return;
	f->pace_bytes_per_s = pace;
	unit = min_u64(pace / (uint64_t)(NANO / FLOW_UNIT_NS), f->unit_bytes);
	f->frame_bytes = unit > f->frame_least ? (uint32_t)unit : f->frame_least;
	least = 2ull * f->frame_bytes;
	f->frames_ns = pace ? 8ull * NANO * f->frame_bytes / pace : 0;
	burst = min_u64(pace / (uint64_t)(NANO / FLOW_BURST_NS), FLOW_BURST_MAX);
	if (burst < least)
		burst = least;
	f->tokens += ((int64_t)burst - (int64_t)f->burst_bytes) * NANO; /* what was sent of the old burst counts against the new one */
	f->burst_bytes = burst;
}

void flow_cc_facts(const struct flow *f, uint64_t now_ns, struct tern_cc_flow *out)
{
	out->now_ns = now_ns;
	out->in_flight_bytes = f->in_flight_bytes;
	out->frame_bytes = f->frame_bytes;
	out->delivered_bytes = f->delivered_bytes;
	out->srtt_ns = f->srtt_ns;
	out->min_rtt_ns = f->min_rtt_ns;
}

void flow_frame(struct flow *f, uint32_t frame_bytes, uint32_t unit_bytes, uint64_t now_ns)
{
	flow_pacer_settle(f, now_ns);
	f->frame_least = frame_bytes;
	f->unit_bytes = unit_bytes;
	f->frame_bytes = UINT32_MAX; /* so that it is found anew */
	flow_pacer_retune(f);
}

int flow_init(struct flow *f, const struct flow_config *config)
{
	const struct tern_cc_init *in = &config->cc_init;
	struct tern_cc_init init = *in;

	if (config->cc->state_bytes > TERN_CC_STATE_MAX)
		return -TERN_ELIMIT;
	*f = (struct flow){
		.shared = config->shared, .cc = config->cc, .path_id = config->path_id, .head = FLOW_NONE, .tail = FLOW_NONE, .link_head = FLOW_NONE,
		.link_tail = FLOW_NONE, .pending = FLOW_NONE,
		.loss_when_ns = UINT64_MAX, .srtt_ns = UINT64_MAX, .min_rtt_ns = UINT64_MAX, .ack_when_ns = UINT64_MAX, .rx_pending_next = 1,
		.peer_ack_delay_ns = config->peer_ack_delay_ns, .contract_rtt_ns = in->contract_rtt_ns, .frame_bytes = in->frame_bytes,
		.frame_least = in->frame_bytes,
		.heard_ns = config->now_ns, .tokens_ns = config->now_ns,
	};
	if (in->buffer_bytes != TERN_CC_NONE && in->contract_bytes_per_s != TERN_CC_NONE && in->contract_bytes_per_s)
		f->buffer_ns = (uint64_t)((unsigned __int128)in->buffer_bytes * NANO / in->contract_bytes_per_s);
	f->late_ns = f->buffer_ns / 2 > FLOW_LATE_NS ? min_u64(f->buffer_ns / 2, FLOW_LATE_MOST_NS) : FLOW_LATE_NS;
	rangeset_init(&f->rx, &config->shared->ranges);
	init.now_ns = config->now_ns;
	f->cc->init(f->cc_state, &init, &f->out);
	f->pace_bytes_per_s = UINT64_MAX;
	flow_pacer_retune(f); /* fills the bucket: from no burst to a whole one */
	return 0;
}

size_t flow_close(struct flow *f, struct flow_report *out, size_t max)
{
	struct flow_sink sink = {out, flow_reports(f, out, max), max};

	rangeset_clear(&f->rx);
	flow_done_close(f, &sink);
	while (f->head != FLOW_NONE && (sink.n < sink.max || !f->shared->extent[f->head].kind)) {
		uint32_t i = f->head;

		f->in_flight_bytes -= f->shared->extent[i].wire_bytes;
		flow_extent_unlink(f, FLOW_NONE, i);
		flow_extent_report(f, i, FLOW_LOST, &sink);
	}
	return sink.n;
}

/* Half a burst must be there before any leaves: batches stay worth their system call, and a caller may be half a burst late without loss of rate. */
uint64_t flow_tx_room(struct flow *f, uint64_t now_ns, uint64_t *when_ns)
{
	uint64_t grain = f->burst_bytes / 2;
	int64_t want;

	*when_ns = UINT64_MAX;
	if (f->in_flight_bytes >= f->out.window_bytes || !f->pace_bytes_per_s) {
		f->pace_due_ns = 0; /* it is not the pacer that the caller waits for */
		return 0;
	}
	flow_pacer_settle(f, now_ns);
	if (grain < f->frame_bytes)
		grain = f->frame_bytes;
	want = (int64_t)grain * NANO;
	if (f->tokens < want) {
		f->pace_due_ns = now_ns + ((uint64_t)(want - f->tokens) + f->pace_bytes_per_s - 1) / f->pace_bytes_per_s;
		*when_ns = f->pace_due_ns;
		return 0;
	}
	f->pace_due_ns = 0;
	*when_ns = now_ns;
	return min_u64((uint64_t)(f->tokens / NANO), f->burst_bytes);
}

uint64_t flow_burst_bytes(const struct flow *f)
{
	return f->burst_bytes;
}

uint64_t flow_next_number(const struct flow *f)
{
	return f->next_number;
}

size_t flow_tx_spare(const struct flow *f)
{
	const struct flow_shared *s = f->shared;

	return s->extents_left > s->extent_reserve ? s->extents_left - s->extent_reserve : 0;
}

/* The run goes on where the last extent ended: same item, next bytes, next number, last frame full. */
static bool run_continues(const struct flow_extent *e, const struct flow_run *run, uint64_t number, uint64_t now_ns)
{
	return e->first + e->frames == number && e->ref == run->item.ref && e->kind == run->item.kind && run->item.bytes && e->bytes &&
	       e->offset + e->bytes == run->item.offset && e->stride_bytes == run->stride_bytes && e->bytes == e->frames * e->stride_bytes &&
	       e->frames + run->frames <= FLOW_MERGE_FRAMES && now_ns - e->sent_ns <= FLOW_MERGE_NS && !(e->flags & FLOW_EXTENT_JOINED);
}

/* A probe may take from the reserve: without it an empty pool would never hear of what could be given back. */
static struct flow_extent *extent_append(struct flow *f, bool by_link)
{
	struct flow_shared *s = f->shared;
	uint32_t *head = by_link ? &f->link_head : &f->head, *tail = by_link ? &f->link_tail : &f->tail;
	uint32_t i;

	if (s->extents_left <= (f->probe_due ? 0 : s->extent_reserve))
		return NULL;
	i = flow_extent_get(s);
	if (*tail == FLOW_NONE)
		*head = i;
	else
		s->extent[*tail].next = i;
	*tail = i;
	s->extent[i].next = FLOW_NONE;
	return &s->extent[i];
}

static bool run_record(struct flow *f, const struct flow_run *run, uint64_t now_ns)
{
	uint32_t last = run->by_link ? f->link_tail : f->tail;
	struct flow_extent *e = last == FLOW_NONE ? NULL : &f->shared->extent[last];

	if (e && run_continues(e, run, f->next_number, now_ns)) {
		e->bytes += run->item.bytes;
		e->wire_bytes += run->wire_bytes;
		e->frames = (uint16_t)(e->frames + run->frames);
		e->span_ns = (uint32_t)(now_ns - e->sent_ns);
	} else {
		e = extent_append(f, run->by_link);
		if (!e)
			return false;
		e->first = f->next_number;
		e->ref = run->item.ref;
		e->offset = run->item.offset;
		e->bytes = run->item.bytes;
		e->kind = run->item.kind;
		e->stride_bytes = run->stride_bytes;
		e->wire_bytes = run->wire_bytes;
		e->frames = (uint16_t)run->frames;
		e->sent_ns = now_ns;
		e->span_ns = 0;
		e->flags = 0;
	}
	e->delivered_64 = (uint32_t)(f->delivered_bytes / 64);
	if (f->app_limited_until)
		e->flags |= FLOW_EXTENT_APP_LIMITED;
	return true;
}

static void run_in_flight(struct flow *f, const struct flow_run *run, uint64_t now_ns)
{
	struct tern_cc_sent ev;

	if (!f->in_flight_bytes)
		f->rate_arrival_ns = 0; /* after a pause a rate sample would count the pause */
	f->in_flight_bytes += run->wire_bytes;
	if (run->app_limited)
		f->app_limited_until = f->delivered_bytes + f->in_flight_bytes;
	if (!run->by_link) {
		f->probe_base_ns = now_ns;
		f->probe_due = false;
		if (!f->owed_since_ns)
			f->owed_since_ns = now_ns ? now_ns : 1;
	}
	flow_cc_facts(f, now_ns, &ev.flow);
	ev.bytes = run->wire_bytes;
	ev.app_limited = run->app_limited;
	f->cc->on_sent(f->cc_state, &ev, &f->out);
	flow_pacer_retune(f);
}

uint64_t flow_tx_commit(struct flow *f, const struct flow_run *run, uint64_t now_ns)
{
	uint64_t number = f->next_number;

	flow_pacer_settle(f, now_ns);
	if (run->ack_eliciting && (run->frames > UINT16_MAX || !run_record(f, run, now_ns)))
		return UINT64_MAX;
	f->last_elicits = run->ack_eliciting && !run->by_link;
	f->next_number = number + run->frames;
	f->count.tx_frames += run->frames;
	f->count.tx_bytes += run->wire_bytes;
	f->pace_due_ns = 0;
	f->tokens -= (int64_t)run->wire_bytes * NANO;
	if (f->tokens < -(int64_t)FLOW_BURST_MAX * NANO)
		f->tokens = -(int64_t)FLOW_BURST_MAX * NANO; /* probes and acknowledgements do not wait for the pacer; what they owe stays bounded */
	if (run->ack_eliciting)
		run_in_flight(f, run, now_ns);
	else
		f->quiet_frames += run->frames;
	return number;
}

int flow_tx_add(struct flow *f, const struct flow_item *item)
{
	struct flow_extent *e;
	uint64_t sent_ns;
	uint32_t last = f->tail;

	if (!f->last_elicits || last == FLOW_NONE)
		return -TERN_EINVAL;
	e = extent_append(f, false);
	if (!e)
		return -TERN_ELIMIT;
	sent_ns = f->shared->extent[last].sent_ns + f->shared->extent[last].span_ns;
	*e = (struct flow_extent){
		.first = f->next_number - 1, .ref = item->ref, .offset = item->offset, .bytes = item->bytes, .kind = item->kind,
			.stride_bytes = item->bytes,
		.frames = 1, .sent_ns = sent_ns, .delivered_64 = (uint32_t)(f->delivered_bytes / 64), .next = FLOW_NONE,
		.flags = (uint16_t)(FLOW_EXTENT_JOINED | (f->shared->extent[last].flags & FLOW_EXTENT_APP_LIMITED)),
	};
	return 0;
}

const struct flow_counters *flow_count(const struct flow *f)
{
	return &f->count;
}

uint64_t flow_in_flight_bytes(const struct flow *f)
{
	return f->in_flight_bytes;
}

const struct tern_cc_out *flow_cc(const struct flow *f)
{
	return &f->out;
}
