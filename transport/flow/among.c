/* What a peer with several paths asks of one path's flow (docs/design/008): when may something leave, since when is something overdue; and the end of what
 * is in flight when the path is given up. Called by peer/; answering changes nothing. */
#include "flow/state.h"

#define NANO 1000000000ull

uint64_t flow_open_ns(const struct flow *f, uint64_t now_ns)
{
	uint64_t pace = f->pace_bytes_per_s, grain = f->burst_bytes / 2;
	__int128 have = f->tokens;

	if (f->in_flight_bytes >= f->out.window_bytes || !pace)
		return UINT64_MAX;
	if (now_ns > f->tokens_ns)
		have += (__int128)pace * (now_ns - f->tokens_ns);
	if (grain < f->frame_bytes)
		grain = f->frame_bytes;
	__int128 missing = (__int128)grain * NANO - have;
	return missing <= 0 ? now_ns : now_ns + (uint64_t)((missing + pace - 1) / pace);
}

void flow_rtt_hint(struct flow *f, uint64_t rtt_ns)
{
	f->contract_rtt_ns = rtt_ns;
}

uint32_t flow_probes(const struct flow *f)
{
	return f->probes;
}

uint64_t flow_rate_bytes_per_s(const struct flow *f, bool at_best)
{
	uint64_t pace = f->pace_bytes_per_s, rtt_ns = f->srtt_ns == UINT64_MAX ? f->contract_rtt_ns : f->srtt_ns;

	if (rtt_ns == UINT64_MAX || !rtt_ns)
		return pace;
	unsigned __int128 by_window = (unsigned __int128)f->out.window_bytes * NANO / rtt_ns;
	return (by_window < pace) != at_best ? (uint64_t)by_window : pace;
}

/* Before the first sample a hint has to do, three times as long. */
static uint64_t extent_due_ns(const struct flow *f, const struct flow_extent *e)
{
	uint64_t wait = f->srtt_ns == UINT64_MAX ? 3 * f->contract_rtt_ns : f->srtt_ns + 4 * f->rttvar_ns;

	return e->sent_ns + e->span_ns + wait + f->peer_ack_delay_ns;
}

uint64_t flow_overdue_ns(const struct flow *f)
{
	const struct flow_extent *extent = f->shared->extent;
	uint64_t due = UINT64_MAX, rtt = f->srtt_ns == UINT64_MAX ? f->contract_rtt_ns : f->srtt_ns;

	if (rtt == UINT64_MAX)
		return UINT64_MAX;
	/* a lone frame at the tail may just be lost: its second probe would have brought an answer */
	if (f->head != FLOW_NONE && (f->next_number - extent[f->head].first >= FLOW_TAIL_FRAMES || f->probes >= 2))
		due = extent_due_ns(f, &extent[f->head]);
	if (f->link_head != FLOW_NONE) {
		uint64_t by_link = extent_due_ns(f, &extent[f->link_head]) + FLOW_LINK_TRIES_NS + 4 * rtt;
		due = by_link < due ? by_link : due;
	}
	return due == UINT64_MAX || due > f->heard_ns ? due : f->heard_ns;
}

size_t flow_give_up(struct flow *f, struct flow_report *out, size_t max)
{
	struct flow_sink sink = {out, flow_reports(f, out, max), max};

	while (f->head != FLOW_NONE && (sink.n < sink.max || !f->shared->extent[f->head].kind)) {
		uint32_t i = f->head;
		const struct flow_extent *e = &f->shared->extent[i];

		f->in_flight_bytes -= e->wire_bytes;
		f->count.lost_bytes += e->wire_bytes;
		if (!(e->flags & FLOW_EXTENT_JOINED))
			f->count.lost_frames += e->frames;
		if (e->first + e->frames > f->floor_lost)
			f->floor_lost = e->first + e->frames;
		flow_extent_unlink(f, FLOW_NONE, i);
		flow_extent_report(f, i, FLOW_LOST, &sink);
	}
	if (f->head == FLOW_NONE) {
		f->owed_since_ns = 0;
		f->probes = 0;
		f->probe_due = false;
		f->loss_when_ns = UINT64_MAX;
	}
	return sink.n;
}
