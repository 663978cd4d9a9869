/* Losses: by time against what was sent later and has arrived, and by probe timeout at the tail. No count of frames decides (reordering is a matter of time), silence
 * alone declares nothing but the one frame that is sent again as a probe: after an outage the far end still has what it had. Called by ack and by the flow's timer. */
#include "flow/state.h"

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* The reordering window without anything learnt: four frame times, at least 50 us, at most an eighth of the RTT. */
static uint64_t reo_base_ns(const struct flow *f)
{
	uint64_t base = f->pace_bytes_per_s ? f->frames_ns / 2 : UINT64_MAX;

	if (base < 50000)
		base = 50000;
	return min_u64(base, f->srtt_ns / 8);
}

static uint64_t reo_window_ns(const struct flow *f)
{
	uint64_t base = reo_base_ns(f);

	return min_u64(f->reo_ns > base ? f->reo_ns : base, f->srtt_ns / 4);
}

/* Keeps the memory ascending; old entries fall out. */
static void lost_remember(struct flow *f, const struct flow_extent *e, uint64_t gone_ns, uint64_t now_ns)
{
	uint32_t at = f->lost_at;

	if (e->flags & FLOW_EXTENT_JOINED)
		return;
	if (e->first + e->frames > f->floor_lost)
		f->floor_lost = e->first + e->frames;
	f->lost[at] = (struct flow_lost){e->first, e->frames, flow_extent_frame_wire(e), gone_ns, now_ns};
	f->lost_at = (at + 1) % FLOW_LOST_MEMORY;
	if (f->losts < FLOW_LOST_MEMORY)
		f->losts++;
}

static void lost_count(struct flow *f, const struct flow_extent *e, uint32_t frames, uint32_t wire_bytes)
{
	f->in_flight_bytes -= wire_bytes;
	f->count.lost_bytes += wire_bytes;
	if (!(e->flags & FLOW_EXTENT_JOINED))
		f->count.lost_frames += frames;
}

static void lost_tell_cc(struct flow *f, uint64_t bytes, uint64_t sent_ns, uint64_t now_ns)
{
	struct tern_cc_loss ev = {.lost_bytes = bytes, .sent_ns = sent_ns, .sent_bytes = f->count.tx_bytes};

	flow_cc_facts(f, now_ns, &ev.flow);
	flow_pacer_settle(f, now_ns);
	f->cc->on_loss(f->cc_state, &ev, &f->out);
	flow_pacer_retune(f);
}

/* What was sent before the newest acknowledged frame and is late by the reordering window is lost. Numbers are in order of sending, so the first that is not yet late
 * ends the walk and sets the timer. */
void flow_loss_detect(struct flow *f, uint64_t now_ns, struct flow_sink *sink)
{
	uint64_t reo, lost = 0, newest_ns = 0;

	f->loss_when_ns = UINT64_MAX;
	if (f->head == FLOW_NONE || f->shared->extent[f->head].first >= f->newest_acked)
		return;
	reo = reo_window_ns(f);
	while (f->head != FLOW_NONE) {
		uint32_t i = f->head;
		struct flow_extent *e = &f->shared->extent[i];
		uint64_t sent_ns = e->sent_ns + e->span_ns;

		if (e->first + e->frames > f->newest_acked)
			break;
		if (sent_ns + f->rack_ns + reo > now_ns) {
			f->loss_when_ns = sent_ns + f->rack_ns + reo;
			break;
		}
		lost += e->wire_bytes;
		newest_ns = sent_ns;
		lost_remember(f, e, now_ns, now_ns);
		lost_count(f, e, e->frames, e->wire_bytes);
		flow_extent_unlink(f, FLOW_NONE, i);
		flow_extent_report(f, i, FLOW_LOST, sink);
	}
	if (newest_ns)
		lost_tell_cc(f, lost, newest_ns, now_ns);
}

/* An acknowledgement of what was declared lost: the path reorders by more than the window, by as much as it came late. A frame that went again as a probe says
 * nothing about order (gone_ns 0). */
static void reo_widen(struct flow *f, uint64_t gone_ns, uint64_t now_ns)
{
	if (!gone_ns)
		return;
	f->reo_ns = min_u64(reo_window_ns(f) + (now_ns - gone_ns), f->srtt_ns / 4);
	f->reo_changed_ns = now_ns;
}

/* No spurious loss for 16 RTTs: an eighth of the way back. */
static void reo_narrow(struct flow *f, uint64_t now_ns)
{
	if (!f->reo_ns || now_ns - f->reo_changed_ns < 16 * f->srtt_ns)
		return;
	f->reo_ns -= f->reo_ns / 8;
	f->reo_changed_ns = now_ns;
}

/* Which of a remembered run the ranges cover. *hint is the range to look at first: runs and ranges both ascend, but for a few runs that went as probes. */
static bool lost_covered(const struct flow_lost *l, const struct wire_ack *ack, uint32_t *hint, struct wire_range *covered)
{
	uint32_t r = *hint;

	if (r + 1u < ack->ranges && ack->range[r + 1].last >= l->first)
		r = ack->ranges - 1u;
	while (r > 0 && ack->range[r].last < l->first)
		r--;
	*hint = r;
	covered->first = ack->range[r].first > l->first ? ack->range[r].first : l->first;
	covered->last = min_u64(ack->range[r].last, l->first + l->frames - 1);
	return covered->first <= covered->last;
}

/* Looks for remembered losses that have been acknowledged after all, and forgets those older than four RTTs. */
void flow_loss_unlearn(struct flow *f, const struct wire_ack *ack, uint64_t now_ns)
{
	uint32_t at = (f->lost_at + FLOW_LOST_MEMORY - f->losts) % FLOW_LOST_MEMORY, hint = ack->ranges - 1u;

	for (uint32_t n = f->losts; n-- > 0; at = (at + 1) % FLOW_LOST_MEMORY) {
		struct flow_lost *l = &f->lost[at];
		struct wire_range covered;

		if (n + 1 == f->losts && (!l->frames || now_ns - l->seen_ns > 4 * f->srtt_ns)) {
			f->losts--;
			continue;
		}
		if (!l->frames || !lost_covered(l, ack, &hint, &covered))
			continue;
		f->count.spurious_frames += covered.last - covered.first + 1;
		f->delivered_bytes += (covered.last - covered.first + 1) * l->frame_bytes;
		if (covered.first == l->first) {
			l->frames -= (uint32_t)(covered.last + 1 - covered.first);
			l->first = covered.last + 1;
		} else {
			l->frames = (uint32_t)(covered.first - l->first);
		}
		reo_widen(f, l->gone_ns, now_ns);
	}
	reo_narrow(f, now_ns);
}

/* The last frame that carries something is declared lost, so that it goes again as the probe; its acknowledgement (or the probe's) shows every hole before it. */
static void tail_resend(struct flow *f, uint64_t now_ns, struct flow_sink *sink)
{
	struct flow_extent *extent = f->shared->extent;
	uint32_t prev = FLOW_NONE, group = FLOW_NONE, group_prev = FLOW_NONE, more;
	uint64_t number, lost = 0, sent_ns;

	for (uint32_t i = f->head; i != FLOW_NONE; prev = i, i = extent[i].next)
		if (extent[i].kind && !(extent[i].flags & FLOW_EXTENT_JOINED && group != FLOW_NONE)) {
			group = i;
			group_prev = prev;
		}
	if (group == FLOW_NONE)
		return;
	if (extent[group].frames > 1) {
		more = flow_extent_split(f, group, extent[group].frames - 1u);
		if (more == FLOW_NONE)
			return;
		group_prev = group;
		group = more;
	}
	number = extent[group].first;
	sent_ns = extent[group].sent_ns;
	while (group != FLOW_NONE && extent[group].first == number) {
		uint32_t next = extent[group].next;

		lost += extent[group].wire_bytes;
		lost_remember(f, &extent[group], 0, now_ns);
		lost_count(f, &extent[group], 1, extent[group].wire_bytes);
		flow_extent_unlink(f, group_prev, group);
		flow_extent_report(f, group, FLOW_LOST, sink);
		group = next;
	}
	lost_tell_cc(f, lost, sent_ns, now_ns);
}

/* Old probes that nobody waits for must not fill the pool while the path is dark. */
static void probes_forget(struct flow *f, uint64_t now_ns)
{
	struct flow_extent *extent = f->shared->extent;
	uint64_t age = f->srtt_ns == UINT64_MAX ? 0 : 2 * f->srtt_ns;
	uint32_t prev = FLOW_NONE, i = f->head;

	while (i != FLOW_NONE) {
		uint32_t next = extent[i].next;

		if (!extent[i].kind && extent[i].sent_ns + age <= now_ns && (next == FLOW_NONE || !(extent[next].flags & FLOW_EXTENT_JOINED))) {
			lost_count(f, &extent[i], extent[i].frames, extent[i].wire_bytes);
			flow_extent_unlink(f, prev, i);
			flow_extent_put(f->shared, i);
		} else {
			prev = i;
		}
		i = next;
	}
}

static uint64_t probe_when_ns(const struct flow *f)
{
	return f->owed_since_ns ? f->probe_base_ns + flow_probe_timeout_ns(f) : UINT64_MAX;
}

static void probe_expire(struct flow *f, uint64_t now_ns, struct flow_sink *sink)
{
	struct tern_cc_timeout ev;
	uint64_t timeout = flow_probe_timeout_ns(f);

	f->probes++;
	f->count.probes++;
	f->probe_due = true;
	f->probe_base_ns = now_ns;
	if (f->probes == 1 || now_ns - f->tail_resent_ns >= (f->srtt_ns == UINT64_MAX ? timeout : f->srtt_ns)) {
		f->tail_resent_ns = now_ns;
		tail_resend(f, now_ns, sink);
		if (!flow_tx_spare(f))
			probes_forget(f, now_ns);
	}
	flow_cc_facts(f, now_ns, &ev.flow);
	ev.silent_ns = flow_silent_ns(f, now_ns);
	ev.probes = f->probes;
	ev.data_owed = 1;
	flow_pacer_settle(f, now_ns);
	f->cc->on_timeout(f->cc_state, &ev, &f->out);
	flow_pacer_retune(f);
}

long flow_on_timer(struct flow *f, uint64_t now_ns, struct flow_report *out, size_t max)
{
	struct flow_sink sink = {out, 0, max};

	if (now_ns >= f->loss_when_ns)
		flow_loss_detect(f, now_ns, &sink);
	if (now_ns >= probe_when_ns(f))
		probe_expire(f, now_ns, &sink);
	return (long)sink.n;
}

uint64_t flow_deadline_ns(const struct flow *f)
{
	return min_u64(f->loss_when_ns, probe_when_ns(f));
}

bool flow_probe_due(const struct flow *f, uint64_t now_ns)
{
	return f->probe_due || now_ns >= probe_when_ns(f);
}

static uint64_t floor_of(const struct flow *f)
{
	uint64_t floor = f->head == FLOW_NONE ? f->next_number : f->shared->extent[f->head].first;

	return f->link_head == FLOW_NONE ? floor : min_u64(floor, f->shared->extent[f->link_head].first);
}

uint64_t flow_floor(const struct flow *f, bool *changed)
{
	uint64_t floor = floor_of(f);

	/* only what was given up is worth saying: below it the receiver still keeps holes. Of frames that nobody acknowledges it is not known; some will be lost */
	*changed = floor > f->floor_said && (f->floor_lost > f->floor_said || f->quiet_frames >= FLOW_QUIET_FRAMES);
	return floor;
}

void flow_floor_said(struct flow *f)
{
	f->quiet_frames = 0;
	f->floor_said = floor_of(f);
}

uint64_t flow_silent_ns(const struct flow *f, uint64_t now_ns)
{
	uint64_t since = f->owed_since_ns > f->heard_ns ? f->owed_since_ns : f->heard_ns;

	return f->owed_since_ns && now_ns > since ? now_ns - since : 0;
}
