/* Frames out: the peer fills descriptors, here they get header and seal and go to the link. Called by loop_step. What a link did not take waits, encoded and
 * sealed, and is offered again as it is (DESIGN 5.4). */
#include <string.h>
#include "loop/loop.h"
#include "tern/error.h"

static struct loop_chunk *loop_chunk_get(struct loop *lp)
{
	struct loop_chunk *c = lp->free_chunk;
	if (c)
		lp->free_chunk = c->next;
	return c;
}

static void loop_chunk_put(struct loop *lp, struct loop_chunk *c)
{
	c->next = lp->free_chunk;
	lp->free_chunk = c;
}

/* Header and segments of a frame that is sent from where its bytes are. */
static inline void loop_finish_bare(struct loop_path *path, struct frame *f)
{
	struct wire_header h = {.flags = f->flags, .number = f->number, .seq = f->seq, .offset = f->offset};
	wire_bulk_encode(path->tx_prefix, &h, f->head);
	f->path = path->via;
	f->wire_bytes = WIRE_BULK_HEADER_BYTES + f->payload_bytes;
	f->seg[0] = (struct frame_seg){.addr = f->head, .bytes = WIRE_BULK_HEADER_BYTES};
	((struct msg_op *)f->owner)->held++;
}

/* A frame without header: its link needs the segments and the target. */
static inline void loop_finish_direct(struct loop_path *path, struct frame *f)
{
	f->path = path->via;
	f->wire_bytes = f->payload_bytes;
	path->loop->count.tx_direct_bytes += f->payload_bytes;
	((struct msg_op *)f->owner)->held++;
}

/* Header, seal, segments of a frame that is made in its room. */
static void loop_finish(struct loop_path *path, struct frame *f, struct loop_chunk *chunk)
{
	struct wire_header h = {.version = WIRE_VERSION, .type = f->type, .flags = f->flags, .path_id = f->path_id, .flow_id = f->flow_id,
		.number = f->number, .channel = f->channel, .seq = f->seq, .offset = f->offset};
	uint8_t *head = f->room;
	uint32_t bytes = (uint32_t)wire_header_encode(&h, head);
	f->path = path->via;
	f->wire_bytes = bytes + f->payload_bytes;
	f->seg[0] = (struct frame_seg){.addr = head, .bytes = bytes, .mem = path->loop->chunk_mem};
	if (path->tx_seal) {
		seal_frame(path->tx_seal, f->number, head, bytes, f->seg + 1, f->segs - 1u, head + bytes);
		path->loop->count.sealed_bytes += f->payload_bytes;
		f->wire_bytes += FRAME_TAG_BYTES;
	}
	f->seg[0].bytes = f->wire_bytes;
	f->segs = 1;
	f->chunk = chunk;
	chunk->frames++;
}

void loop_frames_back(struct loop *lp, struct frame *const *frames, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct frame *f = frames[i];
		struct loop_chunk *c = f->chunk;
		struct msg_op *op = f->owner;
		if (c && --c->frames == 0)
			loop_chunk_put(lp, c);
		if (op && --op->held == 0)
			msg_reaped(lp->msg, op);
		f->chunk = f->owner = NULL;
		lp->free_frame[lp->free_frames++] = f;
	}
}

static void loop_reap_link(struct loop *lp, struct link *link, uint64_t now_ns)
{
	struct frame *back[LOOP_TRAY];
	size_t n;
	do {
		n = link->ops->reap(link, back, LOOP_TRAY, now_ns);
		loop_frames_back(lp, back, n);
	} while (n == LOOP_TRAY);
}

void loop_reap(struct loop *lp, uint64_t now_ns)
{
	if (lp->free_frames == LOOP_FRAMES)
		return; /* none is out */
	for (size_t i = 0; i < lp->links; i++)
		loop_reap_link(lp, lp->link[i], now_ns);
}

/* Offers what waits. @return true: all of it was taken */
static bool loop_offer(struct loop_path *path, uint64_t now_ns)
{
	struct link *link = path->link;
	if (!path->waiting_n)
		return true;
	size_t taken = link->ops->tx(link, path->waiting, path->waiting_n, now_ns);
	path->loop->is_moving |= taken > 0;
	if (taken)
		path->pp.blocked_ns = 0;
	path->waiting_n -= taken;
	if (path->waiting_n)
		memmove(path->waiting, path->waiting + taken, path->waiting_n * sizeof(path->waiting[0]));
	loop_reap_link(path->loop, link, now_ns);
	return path->waiting_n == 0;
}

/* One burst of the path, or with `last` set an acknowledgement alone. *drained: nothing more waits. @return false: nothing to send, or nothing to send it with */
static bool loop_burst(struct loop_path *path, bool last, bool *drained, uint64_t now_ns)
{
	struct loop *lp = path->loop;
	struct loop_chunk *chunk = loop_chunk_get(lp);
	if (!chunk)
		return false;
	size_t room = lp->free_frames < LOOP_TRAY ? lp->free_frames : LOOP_TRAY;
	struct frame **top = &lp->free_frame[lp->free_frames - room];
	struct peer_tray tray = {
		.frame = top, .room = room, .buf = chunk->data, .buf_bytes = sizeof(chunk->data), .front_bytes = path->via->front_bytes};
	size_t n = last ? peer_tx_last(&path->pp, &tray, now_ns) : peer_tx(&path->pp, &tray, now_ns);
	*drained = tray.is_drained;
	chunk->frames = 1; /* ours, until all are finished */
	for (size_t i = 0; i < n; i++) {
		if (top[i]->room)
			loop_finish(path, top[i], chunk);
		else if (top[i]->is_write)
			loop_finish_direct(path, top[i]);
		else
			loop_finish_bare(path, top[i]);
		path->waiting[i] = top[i];
	}
	path->waiting_n = n;
	if (n <= LOOP_TAKE_FEW) /* which ones are free matters, not their order */
		for (size_t i = 0; i < n && i < room - n; i++)
			top[i] = top[room - 1 - i];
	else
		memmove(top, top + n, (room - n) * sizeof(*top));
	lp->free_frames -= n;
	if (--chunk->frames == 0)
		loop_chunk_put(lp, chunk);
	return n > 0;
}

/* Its link takes nothing more now. A connection that is made, or a queue that is an RTT long, tells by its descriptor when there is room: no spinning. For
 * the others that is a matter of microseconds, unless something is wrong: meanwhile timers go on. */
static uint64_t loop_blocked(struct loop_path *path, uint64_t now_ns)
{
	if (path->link->caps & LINK_CONNECTS)
		return now_ns + LOOP_BLOCKED_NS;
	if (!path->pp.blocked_ns)
		path->pp.blocked_ns = now_ns;
	if (path->look_ns <= now_ns) {
		path->look_ns = now_ns + LOOP_BLOCKED_NS;
		heap_set(&path->loop->timers, path->slot, path->look_ns);
	}
	return 0;
}

/* @return when the path wants another turn: 0 in the next step, UINT64_MAX never by itself */
static uint64_t loop_path_tx(struct loop_path *path, uint64_t now_ns)
{
	bool drained = false;
	for (unsigned round = 0; path->via && round < LOOP_TX_ROUNDS; round++) {
		if (!loop_offer(path, now_ns))
			return loop_blocked(path, now_ns);
		bool asks = !path->is_woken;
		path->is_woken = false;
		uint64_t when = !asks ? 0 : drained ? peer_idle_when_ns(&path->pp, now_ns) : peer_when_ns(&path->pp, now_ns);
		if (when > now_ns)
			return when;
		if (loop_burst(path, false, &drained, now_ns))
			continue;
		when = asks ? 0 : peer_when_ns(&path->pp, now_ns);
		return when > now_ns ? when : now_ns + 1; /* it wants to but cannot, out of frames, chunks or extents: the timer brings it back */
	}
	return path->via && !loop_offer(path, now_ns) ? loop_blocked(path, now_ns) : peer_when_ns(&path->pp, now_ns);
}

void loop_peer_flush(struct loop_peer *peer)
{
	uint64_t now = peer->loop->now_ns;
	for (unsigned i = 0; i < peer->peer.paths; i++)
		for (unsigned round = 0; round < LOOP_LAST_ACKS; round++) {
			struct loop_path *path = peer->path[i];
			bool drained;
			if (path->via && loop_offer(path, now) && loop_burst(path, true, &drained, now))
				loop_offer(path, now);
		}
}

void loop_tx(struct loop *lp, uint64_t now_ns)
{
	struct list again;
	list_init(&again);
	struct list *at;
	while ((at = list_pop_front(&lp->active))) {
		struct loop_path *path = list_entry(at, struct loop_path, active);
		uint64_t when = loop_path_tx(path, now_ns);
		if (when <= now_ns) {
			list_push_back(&again, at);
			continue;
		}
		path->is_active = false;
		if (when == UINT64_MAX)
			heap_remove(&lp->timers, path->slot);
		else
			heap_set(&lp->timers, path->slot, when);
		loop_note(path->peer);
	}
	list_splice_back(&lp->active, &again);
}
