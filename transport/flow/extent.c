/* Sent extents: cutting them at frame borders, taking them off the flow's list, and turning them into reports. Called by flow's ack, loss and close; knows
 * nothing of time-outs and rates. */
#include "flow/state.h"

/* Wire bytes of every frame but the last: what it carries and the mean overhead, which is the same for all frames of a run. */
uint32_t flow_extent_frame_wire(const struct flow_extent *e)
{
	if (e->frames <= 1)
		return e->wire_bytes;
	return e->stride_bytes + (e->wire_bytes > e->bytes ? (e->wire_bytes - e->bytes) / e->frames : 0);
}

static uint32_t span_part(const struct flow_extent *e, uint32_t frames)
{
	return e->span_ns ? (uint32_t)((uint64_t)e->span_ns * frames / e->frames) : 0;
}

/* Takes the first `frames` (fewer than all) off the extent. */
void flow_extent_trim(struct flow_extent *e, uint32_t frames)
{
	uint32_t span = span_part(e, frames);

	e->wire_bytes -= flow_extent_frame_wire(e) * frames;
	e->first += frames;
	e->offset += (uint64_t)frames * e->stride_bytes;
	e->bytes -= frames * e->stride_bytes;
	e->sent_ns += span;
	e->span_ns -= span;
	e->frames = (uint16_t)(e->frames - frames);
}

/* Cuts extent i behind its first `frames`. @return the new one, next in the list; FLOW_NONE: none is free */
uint32_t flow_extent_split(struct flow *f, uint32_t i, uint32_t frames)
{
	struct flow_extent *e = &f->shared->extent[i], *rest;
	uint32_t n = flow_extent_get(f->shared);

	if (n == FLOW_NONE)
		return n;
	rest = &f->shared->extent[n];
	*rest = *e;
	flow_extent_trim(rest, frames);
	e->wire_bytes -= rest->wire_bytes;
	e->bytes -= rest->bytes;
	e->span_ns -= rest->span_ns;
	e->frames = (uint16_t)frames;
	e->next = n;
	if (f->tail == i)
		f->tail = n;
	return n;
}

/* prev: the extent before i, FLOW_NONE if i is the head. */
void flow_extent_unlink(struct flow *f, uint32_t prev, uint32_t i)
{
	struct flow_extent *extent = f->shared->extent;

	if (prev == FLOW_NONE)
		f->head = extent[i].next;
	else
		extent[prev].next = extent[i].next;
	if (f->tail == i)
		f->tail = prev;
}

/* Reports an unlinked extent and gives it back, or keeps it for flow_reports. */
void flow_extent_report(struct flow *f, uint32_t i, uint32_t kind, struct flow_sink *sink)
{
	struct flow_extent *e = &f->shared->extent[i];

	if (!e->kind) {
		flow_extent_put(f->shared, i);
		return;
	}
	if (sink->n < sink->max) {
		sink->out[sink->n++] = (struct flow_report){kind, {e->ref, e->offset, e->bytes, e->kind}};
		flow_extent_put(f->shared, i);
		return;
	}
	e->flags = kind == FLOW_ACKED ? FLOW_EXTENT_ACKED : 0;
	e->next = FLOW_NONE;
	if (f->pending == FLOW_NONE)
		f->pending = i;
	else
		f->shared->extent[f->pending_tail].next = i;
	f->pending_tail = i;
}

/* Reports the first `frames` (fewer than all) of extent i, which stays in the list with the rest. @return wire bytes taken; 0: no room to keep the report */
uint32_t flow_extent_take_head(struct flow *f, uint32_t i, uint32_t frames, uint32_t kind, struct flow_sink *sink)
{
	struct flow_extent *e = &f->shared->extent[i];
	uint32_t wire = e->wire_bytes, n;

	if (sink->n < sink->max || !e->kind) {
		if (e->kind)
			sink->out[sink->n++] = (struct flow_report){kind, {e->ref, e->offset, frames * e->stride_bytes, e->kind}};
		flow_extent_trim(e, frames);
		return wire - e->wire_bytes;
	}
	n = flow_extent_get(f->shared);
	if (n == FLOW_NONE)
		return 0;
	f->shared->extent[n] = *e;
	f->shared->extent[n].bytes = frames * e->stride_bytes;
	flow_extent_trim(e, frames);
	flow_extent_report(f, n, kind, sink);
	return wire - e->wire_bytes;
}

size_t flow_reports(struct flow *f, struct flow_report *out, size_t max)
{
	size_t n = 0;

	while (n < max && f->pending != FLOW_NONE) {
		uint32_t i = f->pending;
		struct flow_extent *e = &f->shared->extent[i];

		out[n++] = (struct flow_report){e->flags & FLOW_EXTENT_ACKED ? FLOW_ACKED : FLOW_LOST, {e->ref, e->offset, e->bytes, e->kind}};
		f->pending = e->next;
		flow_extent_put(f->shared, i);
	}
	return n;
}
