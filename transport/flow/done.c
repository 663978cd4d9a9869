/* Frames that the link itself reports: on a reliable connection the completion is the acknowledgement. They have a list of their own, so that neither records of the
 * others nor timers touch them. Called by peer for what the link's `done` hands out. */
#include "flow/state.h"

static void link_unlink(struct flow *f, uint32_t prev, uint32_t i)
{
	struct flow_extent *extent = f->shared->extent;

	if (prev == FLOW_NONE)
		f->link_head = extent[i].next;
	else
		extent[prev].next = extent[i].next;
	if (f->link_tail == i)
		f->link_tail = prev;
}

/* The first `frames` of extent i. @return wire bytes taken; 0: no room to keep the report (never when it is all of them) */
static uint32_t done_take(struct flow *f, uint32_t prev, uint32_t frames, uint32_t kind, struct flow_sink *sink)
{
	uint32_t i = prev == FLOW_NONE ? f->link_head : f->shared->extent[prev].next, wire;
	struct flow_extent *e = &f->shared->extent[i];

	if (frames < e->frames)
		return flow_extent_take_head(f, i, frames, kind, sink);
	wire = e->wire_bytes;
	link_unlink(f, prev, i);
	flow_extent_report(f, i, kind, sink);
	return wire;
}

static void done_news(struct flow_news *news, const struct flow_extent *e, uint32_t frames)
{
	news->sent_ns = e->sent_ns + (e->span_ns ? (uint64_t)e->span_ns * frames / e->frames : 0);
	news->delivered_64 = e->delivered_64;
	news->app_limited = e->flags & FLOW_EXTENT_APP_LIMITED;
	news->end = e->first + frames;
}

static void done_arrived(struct flow *f, const struct flow_news *news, uint64_t now_ns)
{
	struct wire_ack ack = {.path_id = f->path_id, .ranges = 1, .ce_frames = f->ce_seen, .arrival_ns = now_ns};

	ack.range[0].last = news->end - 1;
	if (!f->has_done) { /* the clock of one-way delays changes with the first of a connection */
		f->has_done = true;
		f->delay_base.halves = f->delay_now.halves = 0;
		f->rate_arrival_ns = 0;
	}
	f->heard_ns = now_ns;
	f->delivered_bytes += news->wire_bytes;
	if (f->delivered_bytes > f->app_limited_until)
		f->app_limited_until = 0;
	flow_news_tell(f, &ack, news, now_ns);
}

/* Lanes report in their own order, so what is reported need not be at the head; within a lane it is in order, so it begins where an extent does. */
long flow_on_done(struct flow *f, const struct flow_done *done, uint64_t now_ns, struct flow_report *out, size_t max)
{
	struct flow_sink sink = {out, 0, max};
	struct flow_news news = {0};
	uint64_t end = done->first + done->frames;
	uint32_t prev = FLOW_NONE, i = f->link_head;

	while (i != FLOW_NONE && f->shared->extent[i].first < done->first) {
		prev = i;
		i = f->shared->extent[i].next;
	}
	while (i != FLOW_NONE && f->shared->extent[i].first < end) {
		const struct flow_extent *e = &f->shared->extent[i];
		uint32_t frames = end - e->first < e->frames ? (uint32_t)(end - e->first) : e->frames, next = e->next;
		struct flow_news now = news;

		done_news(&now, e, frames);
		uint32_t wire = done_take(f, prev, frames, done->is_lost ? FLOW_LOST : FLOW_ACKED, &sink);
		if (!wire)
			break;
		now.wire_bytes = news.wire_bytes + wire;
		news = now;
		i = next;
	}
	if (!news.wire_bytes)
		return (long)sink.n;
	f->in_flight_bytes -= news.wire_bytes;
	if (done->is_lost)
		f->count.lost_bytes += news.wire_bytes; /* no word of it to the congestion control: connections do not break of congestion (flow_on_break) */
	else
		done_arrived(f, &news, now_ns);
	return (long)sink.n;
}

void flow_on_break(struct flow *f, uint64_t now_ns)
{
	struct tern_cc_flow ev;

	f->has_done = false; /* the next one may be of the other kind: then records tell the delays again, in the receiver's clock */
	f->delay_base.halves = f->delay_now.halves = 0;
	f->rate_arrival_ns = 0;
	if (!f->cc->on_break)
		return;
	flow_cc_facts(f, now_ns, &ev);
	flow_pacer_settle(f, now_ns);
	f->cc->on_break(f->cc_state, &ev, &f->out);
	flow_pacer_retune(f);
}

void flow_done_close(struct flow *f, struct flow_sink *sink)
{
	while (f->link_head != FLOW_NONE && sink->n < sink->max) {
		uint32_t i = f->link_head;

		f->in_flight_bytes -= f->shared->extent[i].wire_bytes;
		link_unlink(f, FLOW_NONE, i);
		flow_extent_report(f, i, FLOW_LOST, sink);
	}
}
