/* What leaves on a path and in which turn (DESIGN 5.9): control and acknowledgements, small messages, bulk. Called by loop/ once a burst. Fills frame
 * descriptors and MIX payloads; knows no link and no key, but leaves room for the tag. */
#include <assert.h>
#include <string.h>
#include "base/copy.h"
#include "base/layout.h"
#include "peer/peer.h"

/* A MIX payload under construction. */
struct mix {
	struct peer_path *path;
	uint8_t *out;
	size_t used, room;
	bool eliciting;
	size_t items;
	struct flow_item item[PEER_ITEMS_MAX];
};

static uint32_t peer_tag_bytes(const struct peer_path *path)
{
	return path->sealed ? FRAME_TAG_BYTES : 0;
}

static void mix_record(struct mix *m, const struct wire_record *r, bool eliciting)
{
	size_t n = wire_record_encode(r, m->out + m->used, m->room - m->used);
	m->used += n;
	m->eliciting |= n && eliciting;
}

static void mix_control(struct mix *m, uint64_t now_ns)
{
	struct peer_path *path = m->path;
	struct wire_record r;
	uint64_t ack_when = flow_ack_when_ns(&path->flow);
	/* an acknowledgement rides along whenever there is something to say and a frame leaves anyway */
	if (ack_when != UINT64_MAX && flow_ack_build(&path->flow, now_ns, &r.ack)) {
		r.type = WIRE_ACK;
		mix_record(m, &r, false);
	}
	bool changed = false;
	uint64_t floor = flow_floor(&path->flow, &changed);
	if (changed) {
		r = (struct wire_record){.type = WIRE_FLOOR, .floor = {.path_id = path->id, .number = floor}};
		mix_record(m, &r, false);
		flow_floor_said(&path->flow);
	}
	while (path->pongs) {
		r = (struct wire_record){.type = WIRE_PONG, .ping = path->pong[--path->pongs]};
		mix_record(m, &r, false);
	}
}

/* The next frame of the tray. It comes without owner and chunk, channel and departure 0; seq and offset are BULK's. */
static struct frame *peer_frame(struct peer_path *path, struct peer_tray *t, uint8_t type)
{
	struct frame *f = t->frame[t->n++];
	f->type = type;
	f->flags = path->sealed ? WIRE_SEALED : 0;
	f->flow_id = path->remote_flow_id;
	f->path_id = path->id;
	f->room = NULL;
	f->is_write = false;
	f->lane = 0;
	f->burst_end = 0;
	f->segs = 1; /* 0 is the header's */
	return f;
}

/* Where the next room would be, and what it may hold. */
static uint8_t *tray_at(const struct peer_tray *t)
{
	return t->buf + t->buf_used + t->front_bytes;
}

static size_t tray_left(const struct peer_tray *t)
{
	size_t left = t->buf_bytes - t->buf_used;
	return left > t->front_bytes ? left - t->front_bytes : 0;
}

static void peer_room(struct peer_tray *t, struct frame *f, uint32_t bytes)
{
	assert(t->front_bytes + bytes <= t->buf_bytes - t->buf_used);
	f->room = tray_at(t);
	f->front_bytes = (uint8_t)t->front_bytes;
	t->buf_used += t->front_bytes + bytes;
	if (t->front_bytes)
		t->buf_used = (t->buf_used + FRAME_LINE_BYTES - 1) & ~(size_t)(FRAME_LINE_BYTES - 1);
	t->buf_used = t->buf_used < t->buf_bytes ? t->buf_used : t->buf_bytes;
}

static bool mix_open(struct mix *m, struct peer_path *path, struct peer_tray *t)
{
	uint32_t most = path->frame_max - WIRE_HEADER_BYTES - peer_tag_bytes(path);
	m->path = path;
	m->out = tray_at(t) + WIRE_HEADER_BYTES;
	m->room = most < PEER_MIX_MAX ? most : PEER_MIX_MAX;
	m->used = m->items = 0;
	m->eliciting = false;
	return t->n < t->room && tray_left(t) >= WIRE_HEADER_BYTES + m->room + FRAME_TAG_BYTES && flow_tx_spare(&path->flow) > 1;
}

/* Numbers the frame and records what it carried. @return wire bytes, 0: nothing was sent */
static uint32_t mix_close(struct mix *m, struct peer_tray *t, uint64_t now_ns)
{
	struct peer_path *path = m->path;
	if (!m->used)
		return 0;
	uint32_t datagram = WIRE_HEADER_BYTES + (uint32_t)m->used + peer_tag_bytes(path);
	struct flow_run run = {
	    .frames = 1, .stride_bytes = (uint32_t)m->used, .wire_bytes = datagram + path->overhead_bytes, .ack_eliciting = m->eliciting};
	if (m->items)
		run.item = m->item[0];
	run.app_limited = !msg_tx_has_bytes(path->peer->pair);
	uint64_t number = flow_tx_commit(&path->flow, &run, now_ns);
	if (number == UINT64_MAX) {
		for (size_t i = 0; i < m->items; i++)
			msg_lost(path->peer->msg, &m->item[i]);
		return 0;
	}
	for (size_t i = 1; i < m->items; i++)
		if (flow_tx_add(&path->flow, &m->item[i]))
			msg_lost(path->peer->msg, &m->item[i]); /* it leaves, but its fate is not followed: it will come again */
	struct frame *f = peer_frame(path, t, WIRE_MIX);
	f->number = number;
	f->payload_bytes = (uint32_t)m->used;
	f->seg[f->segs++] = (struct frame_seg){.addr = m->out, .bytes = (uint32_t)m->used};
	peer_room(t, f, datagram);
	return run.wire_bytes;
}

/* One ping in a frame of its own, padded to the size it tries. Not subject to window and pacer: one a round and size. */
static void peer_tx_ping(struct peer_path *path, struct peer_tray *t, uint32_t size, uint64_t now_ns)
{
	struct mix m;
	if (!mix_open(&m, path, t))
		return;
	if (size > PEER_PING_BARE)
		m.room = size - WIRE_HEADER_BYTES - peer_tag_bytes(path);
	if (tray_left(t) < WIRE_HEADER_BYTES + m.room + FRAME_TAG_BYTES)
		return;
	struct wire_record r = {.type = WIRE_PING,
	                        .ping = {.path_id = path->id, .size_bytes = size > PEER_PING_BARE ? size : 0, .token = ++path->ping_token}};
	mix_control(&m, now_ns);
	/* a size that the network drops must not look like congestion: padded pings are not in flight */
	mix_record(&m, &r, size <= PEER_PING_BARE && path->state == PEER_PATH_UP); /* nor does a path that is down owe anything */
	if (size > PEER_PING_BARE) {
		memset(m.out + m.used, WIRE_PAD, m.room - m.used);
		m.used = m.room;
	}
	mix_close(&m, t, now_ns);
}

/* Control and records. @return wire bytes that count against the room */
static uint64_t peer_tx_mix(struct peer_path *path, struct peer_tray *t, bool records, bool probe, uint64_t now_ns)
{
	struct mix m;
	if (!mix_open(&m, path, t))
		return 0;
	mix_control(&m, now_ns);
	if (probe) {
		struct wire_record r = {.type = WIRE_PING, .ping = {.path_id = path->id, .token = ++path->ping_token}};
		mix_record(&m, &r, true);
		path->ping_unanswered++;
	}
	if (records) {
		size_t spare = flow_tx_spare(&path->flow);
		m.items = spare < PEER_ITEMS_MAX ? spare : PEER_ITEMS_MAX;
		size_t n = msg_tx_records(path->peer->pair, m.out + m.used, m.room - m.used, m.item, &m.items, &path->peer->copied_bytes);
		m.used += n;
		m.eliciting |= n > 0;
	}
	return mix_close(&m, t, now_ns);
}

/* Payload segments of one frame: the operation's own memory, or packed where its runs are too short for the link. */
static inline void peer_segs(struct peer_path *path, struct peer_tray *t, struct frame *f, const struct msg_run *run)
{
	const struct layout *l = &run->op->layout;
	if (l->kind == LAYOUT_FLAT && !path->sealed) { /* the common case, without the questions */
		f->seg[1] = (struct frame_seg){.addr = l->addr + f->offset, .bytes = f->payload_bytes, .mem = l->mem};
		f->segs = 2;
		f->owner = run->op;
		return;
	}
	size_t n = layout_segs(l, f->offset, f->payload_bytes, f->seg + 1, FRAME_SEGS_MAX - 2);
	f->segs = (uint8_t)(1 + n);
	if (n && !path->sealed) {
		f->owner = run->op;
		return;
	}
	peer_room(t, f, WIRE_BULK_HEADER_BYTES + f->payload_bytes + peer_tag_bytes(path));
	if (n)
		return; /* the loop seals from the segments into the room */
	uint8_t *to = f->room + WIRE_BULK_HEADER_BYTES;
	layout_copy_out(l, f->offset, to, f->payload_bytes, &path->peer->copied_bytes);
	f->seg[1] = (struct frame_seg){.addr = to, .bytes = f->payload_bytes};
	f->segs = 2;
}

static void direct_frames(struct peer_path *path, struct peer_tray *t, const struct msg_run *run, uint32_t stride, uint64_t number)
{
	const struct layout *l = &run->op->layout;
	for (uint32_t at = 0; at < run->bytes; at += stride) {
		struct frame *f = peer_frame(path, t, WIRE_BULK);
		f->is_write = true;
		f->lane = run->target.lane;
		f->target = run->target;
		f->target.addr += at;
		f->number = number++;
		f->seq = run->seq;
		f->offset = run->offset + at;
		f->payload_bytes = run->bytes - at < stride ? run->bytes - at : stride;
		f->by_link = path->direct->is_reliable;
		f->owner = run->op;
		f->segs = (uint8_t)layout_segs(l, f->offset, f->payload_bytes, f->seg, FRAME_SEGS_MAX - 2);
	}
}

/* Says what the frames carry that follow, unless the receiver expects just that. @return false: no room for saying it */
static bool direct_say(struct peer_path *path, struct peer_tray *t, const struct msg_run *run, struct peer_run *next, uint64_t now_ns)
{
	struct peer_direct *d = path->direct;
	struct peer_run *lane = &d->tx_lane[run->target.lane];
	struct mix m;
	bool follows = d->is_reliable && lane->frames && lane->seq == next->seq && lane->offset == next->offset;
	if (!follows && !mix_open(&m, path, t))
		return false;
	next->first = flow_next_number(&path->flow) + 1;
	if (!follows) {
		struct wire_record r = {
		        .type = WIRE_RUN, .run = {.lane = run->target.lane, .seq = next->seq, .first = next->first, .offset = next->offset}};
		if (!d->is_reliable) {
			struct peer_run *old = &d->said;
			struct wire_record again = {.type = WIRE_RUN,
			        .run = {.lane = run->target.lane,
			                .seq = old->seq,
			                .frames = old->frames,
			                .first = old->first,
			                .offset = old->offset,
			                .stride_bytes = old->stride_bytes,
			                .bytes = old->bytes,
			                .ack_last = old->ack_last}};
			r.run.frames = next->frames;
			r.run.stride_bytes = next->stride_bytes;
			r.run.bytes = next->bytes;
			r.run.ack_last = next->ack_last;
			if (old->frames)
				mix_record(&m, &again, false);
		}
		mix_record(&m, &r, false);
		if (!mix_close(&m, t, now_ns))
			return false;
		t->frame[t->n - 1]->lane = run->target.lane;
	}
	d->said = *next;
	*lane = *next;
	lane->offset += next->bytes;
	return true;
}

/* One run straight into the peer's memory. @return wire bytes, 0: nothing was sent */
static uint64_t peer_tx_direct(struct peer_path *path, struct peer_tray *t, const struct msg_run *run, uint64_t now_ns)
{
	const struct peer_direct *d = path->direct;
	uint32_t stride = d->max_write_bytes, frames = (run->bytes + stride - 1) / stride;
	uint32_t packets = d->packet_bytes ? (run->bytes + d->packet_bytes - 1) / d->packet_bytes : frames;
	struct flow_run fr = {.item = run->item, .frames = frames, .stride_bytes = frames > 1 ? stride : run->bytes, .app_limited = run->last,
		.wire_bytes = run->bytes + packets * d->packet_overhead, .ack_eliciting = true, .by_link = d->is_reliable};
	struct peer_run next = {.offset = run->offset, .frames = frames, .seq = run->seq, .stride_bytes = stride, .bytes = run->bytes};
	next.ack_last = !d->is_reliable &&
		(run->last || flow_in_flight_bytes(&path->flow) + fr.wire_bytes >= flow_cc(&path->flow)->window_bytes);
	if (run->target.lane > PEER_LANES_MAX || !direct_say(path, t, run, &next, now_ns)) {
		msg_lost(path->peer->msg, &run->item);
		return 0;
	}
	uint64_t number = flow_tx_commit(&path->flow, &fr, now_ns);
	if (number == UINT64_MAX) {
		memset(&path->direct->tx_lane[run->target.lane], 0, sizeof(next)); /* what was said does not follow */
		msg_lost(path->peer->msg, &run->item);
		return 0;
	}
	direct_frames(path, t, run, stride, number);
	return fr.wire_bytes;
}

/* The HEAD of the message whose bytes come next, if it was said on other paths only. */
static void peer_tx_head(struct peer_path *path, struct peer_tray *t, unsigned want, uint64_t now_ns)
{
	struct mix m;
	if (!mix_open(&m, path, t))
		return;
	m.used = msg_tx_head(path->peer->pair, want, m.out, m.room, m.item);
	m.items = m.used > 0;
	m.eliciting = true;
	mix_close(&m, t, now_ns);
}

/* One run of bulk bytes. @return wire bytes, 0: nothing to send or no room in the tray */
static uint64_t peer_tx_run(struct peer_path *path, struct peer_tray *t, unsigned want, uint64_t room, uint64_t now_ns)
{
	uint32_t head = WIRE_BULK_HEADER_BYTES + peer_tag_bytes(path);
	uint32_t payload = path->frame_max - head;
	uint64_t frames = room / (path->frame_max + path->overhead_bytes);
	if (path->peer->paths > 1)
		peer_tx_head(path, t, want, now_ns);
	size_t spread = t->front_bytes ? t->front_bytes + FRAME_LINE_BYTES : 0;
	size_t by_buf = (t->buf_bytes - t->buf_used) / (path->frame_max + spread); /* sealed or packed bytes need the buffer */
	struct msg_run run;
	frames = frames ? frames : 1;
	frames = frames < t->room - t->n ? frames : t->room - t->n;
	frames = frames < by_buf ? frames : by_buf;
	if (path->direct && frames == t->room - t->n)
		frames--; /* a RUN may come first */
	if (!frames || flow_tx_spare(&path->flow) < 2 || !msg_tx_run(path->peer->pair, want, (uint32_t)frames * payload, &run))
		return 0;
	if (run.is_direct)
		return peer_tx_direct(path, t, &run, now_ns);
	frames = (run.bytes + payload - 1) / payload;
	struct flow_run fr = {.item = run.item, .frames = (uint32_t)frames, .stride_bytes = payload, .app_limited = run.last, .ack_eliciting = true};
	fr.wire_bytes = run.bytes + (uint32_t)frames * (head + path->overhead_bytes);
	uint64_t number = flow_tx_commit(&path->flow, &fr, now_ns);
	if (number == UINT64_MAX) {
		msg_lost(path->peer->msg, &run.item);
		return 0;
	}
	struct frame *f = NULL;
	for (uint32_t at = 0; at < run.bytes; at += payload) {
		f = peer_frame(path, t, WIRE_BULK);
		f->number = number++;
		f->seq = run.seq;
		f->offset = run.offset + at;
		f->payload_bytes = run.bytes - at < payload ? run.bytes - at : payload;
		peer_segs(path, t, f, &run);
	}
	f->burst_end = 1;
	/* nobody sends on until this is acknowledged: the receiver need not wait for more */
	if (run.last || flow_in_flight_bytes(&path->flow) >= flow_cc(&path->flow)->window_bytes)
		f->flags |= WIRE_ACK_NOW;
	return fr.wire_bytes;
}

/* From here on msg/ answers for this path. A turn of bulk is half a millisecond of the path, at most 1 MiB: messages share fairly on the scale
 * anyone notices, and what follows each other on the wire follows each other in memory, so that the receiver's guess where it belongs holds. */
static void peer_turn_begin(struct peer_path *path)
{
	uint64_t pace = flow_cc(&path->flow)->pace_bytes_per_s;
	uint64_t bytes = pace / 2000;
	bytes = bytes < PEER_QUANTUM_MIN ? PEER_QUANTUM_MIN : bytes > PEER_QUANTUM_MAX ? PEER_QUANTUM_MAX : bytes;
	msg_pair_turn(path->peer->pair, path->id, (uint32_t)bytes);
}

/* Small messages go first, but when bulk waits they may take a quarter: each byte costs 3 of debt that bulk pays back. */
static unsigned peer_turn(struct peer_path *path, unsigned want)
{
	if ((want & MSG_WANT_SMALL) && (!(want & MSG_WANT_BULK) || path->small_debt_bytes < flow_burst_bytes(&path->flow)))
		return MSG_WANT_SMALL;
	return want & MSG_WANT_BULK;
}

static void peer_turn_paid(struct peer_path *path, unsigned turn, unsigned want, uint64_t bytes)
{
	if (turn == MSG_WANT_SMALL && (want & MSG_WANT_BULK))
		path->small_debt_bytes += (uint32_t)bytes * 3;
	else
		path->small_debt_bytes -= path->small_debt_bytes < bytes ? path->small_debt_bytes : (uint32_t)bytes;
}

static void peer_tx_control(struct peer_path *path, struct peer_tray *t, uint64_t now_ns)
{
	uint32_t size;
	while (path->ping_when_ns <= now_ns && t->n < t->room && (size = peer_ping_next(path, now_ns)))
		peer_tx_ping(path, t, size, now_ns);
	bool probe = flow_probe_due(&path->flow, now_ns);
	if (probe || path->pongs || flow_ack_when_ns(&path->flow) <= now_ns)
		peer_tx_mix(path, t, path->state == PEER_PATH_UP && peer_path_want(path, MSG_WANT_RECORDS, now_ns), probe, now_ns);
}

size_t peer_tx_last(struct peer_path *path, struct peer_tray *t, uint64_t now_ns)
{
	struct mix m;
	struct wire_record r = {.type = WIRE_ACK};
	if (path->state == PEER_PATH_WAITING || !mix_open(&m, path, t) || !flow_ack_build(&path->flow, now_ns, &r.ack))
		return 0;
	mix_record(&m, &r, false);
	mix_close(&m, t, now_ns);
	return t->n;
}

/* Records and bytes, as far as window, pacer and tray go. */
static void peer_tx_wanted(struct peer_path *path, struct peer_tray *t, uint64_t now_ns)
{
	struct msg_pair *pair = path->peer->pair;
	uint64_t when, room;
	while (t->n < t->room) {
		unsigned want = msg_tx_want(pair);
		t->is_drained = !want;
		if (!want || !(room = flow_tx_room(&path->flow, now_ns, &when)))
			return;
		if (path->peer->paths > 1)
			want = peer_path_want(path, want, now_ns);
		uint64_t sent = 0;
		if (want & MSG_WANT_RECORDS)
			sent = peer_tx_mix(path, t, true, false, now_ns);
		unsigned turn = peer_turn(path, want);
		if (!sent && turn) {
			sent = peer_tx_run(path, t, turn, room, now_ns);
			peer_turn_paid(path, turn, want, sent);
		}
		if (!sent)
			return;
	}
}

size_t peer_tx(struct peer_path *path, struct peer_tray *t, uint64_t now_ns)
{
	if (path->peer->state == PEER_GONE || path->state == PEER_PATH_WAITING)
		return 0;
	peer_turn_begin(path);
	peer_tx_control(path, t, now_ns);
	if (path->state == PEER_PATH_UP)
		peer_tx_wanted(path, t, now_ns);
	peer_owe(path->peer, now_ns);
	return t->n;
}
