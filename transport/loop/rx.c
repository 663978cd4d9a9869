/* Frames in: routed by flow id, checked, opened or copied into the place msg names, recorded, and only then acknowledged. Called by loop_step. */
#include <assert.h>
#include <string.h>
#include "base/copy.h"
#include "loop/loop.h"
#include "tern/error.h"

/* A received frame on its way through. */
struct rx {
	struct loop *lp;
	struct link *link;
	struct rx_frame *frame; /* of the batch */
	struct rx_frame *last;  /* of the batch */
	struct wire_header h;
	struct loop_path *path;
	uint8_t *head;       /* the clear header, contiguous */
	uint32_t head_bytes;
	uint8_t *payload;    /* without tag */
	uint32_t bytes;
	uint32_t datagram_bytes;
	uint64_t now_ns;
	uint64_t closes;     /* lp->closes when the batch was taken */
};

static struct loop_path *loop_path_of(struct loop *lp, uint32_t flow_id)
{
	uint32_t slot = flow_id & 0xffff;
	struct loop_path *path = slot < lp->max_paths ? lp->path[slot] : NULL;
	return path && path->flow_id == flow_id ? path : NULL;
}

/* A frame that a scattered receive split where it should not be (not BULK, or sealed): put together again. */
static void rx_gather(struct rx *rx)
{
	struct rx_frame *f = rx->frame;
	struct frame_seg from[2] = {{.addr = f->head, .bytes = f->head_bytes}, {.addr = f->body, .bytes = f->body_bytes}};
	struct frame_seg to = {.addr = rx->lp->scratch, .bytes = LOOP_SCRATCH_BYTES};
	copy_segs(&to, 1, from, 2, &rx->lp->count.copied_bytes);
	rx->head = rx->lp->scratch;
	rx->payload = rx->head + rx->head_bytes;
}

/* Came it from where the path leads, though not through its own socket? The first frames do, which were waiting in the shared one. */
static bool rx_from_remote(const struct rx *rx)
{
	const struct link_addr *remote = &rx->path->via->remote;
	struct link_addr from;
	return !rx->link->ops->from(rx->link, rx->frame, &from) && from.bytes == remote->bytes && !memcmp(from.data, remote->data, from.bytes);
}

/* Finds the flow and the payload. @return false: not for us (counted) */
static bool rx_route(struct rx *rx)
{
	struct rx_frame *f = rx->frame;
	struct loop_counters *count = &rx->lp->count;
	rx->head_bytes = (uint32_t)wire_header_decode(f->head, f->head_bytes, &rx->h);
	rx->datagram_bytes = f->head_bytes + f->body_bytes;
	if (!rx->head_bytes) {
		count->rx_malformed++;
		return false;
	}
	rx->path = loop_path_of(rx->lp, rx->h.flow_id);
	if (!rx->path || !rx->path->link || rx->path->pp.id != rx->h.path_id || rx->path->peer->peer.state == PEER_GONE) {
		count->rx_strangers++;
		return false;
	}
	bool sealed = rx->h.flags & WIRE_SEALED;
	uint32_t tag = sealed ? FRAME_TAG_BYTES : 0;
	if (sealed != (rx->path->rx_seal != NULL) || rx->datagram_bytes < rx->head_bytes + tag) {
		count->rx_forged++;
		return false;
	}
	if (!sealed && rx->path->via && f->path != rx->path->via && !rx_from_remote(rx)) {
		count->rx_strangers++; /* nothing vouches for a plain frame but the address it came from */
		return false;
	}
	rx->head = f->head;
	rx->payload = f->head + rx->head_bytes;
	rx->bytes = rx->datagram_bytes - rx->head_bytes - tag;
	if (!f->body_bytes)
		return true;
	if (rx->h.type != WIRE_BULK || sealed || f->head_bytes != rx->head_bytes)
		rx_gather(rx);
	else
		rx->payload = f->body;
	return true;
}

static bool rx_open(struct rx *rx, const struct frame_seg *dest, size_t n)
{
	if (seal_unseal(rx->path->rx_seal, rx->h.number, rx->head, rx->head_bytes, rx->payload, rx->bytes, rx->payload + rx->bytes, dest, n)) {
		rx->lp->count.rx_forged++;
		return false;
	}
	rx->lp->count.opened_bytes += rx->bytes;
	return true;
}

/* @return 0, -TERN_EAGAIN: refused, -TERN_EAUTH: forged, or the peer's fault */
static int rx_mix(struct rx *rx, bool *eliciting)
{
	if (rx->path->rx_seal) {
		struct frame_seg self = {.addr = rx->payload, .bytes = rx->bytes};
		if (!rx_open(rx, &self, 1))
			return -TERN_EAUTH;
	}
	return peer_rx_mix(&rx->path->pp, rx->payload, rx->bytes, rx->now_ns, eliciting);
}

/* Payloads that lie where a guess put them are taken out of the way of whoever belongs there. */
static void rx_stash(struct loop *lp, struct rx_frame *first, const struct rx_frame *last)
{
	for (struct rx_frame *f = first; f <= last; f++) {
		if (!f->body_bytes || (f->body >= lp->stash && f->body < lp->stash + LOOP_STASH_BYTES))
			continue;
		assert(lp->stash_used + f->body_bytes <= LOOP_STASH_BYTES);
		uint8_t *to = lp->stash + lp->stash_used;
		copy_bytes(to, f->body, f->body_bytes, &lp->count.copied_bytes);
		f->body = to;
		lp->stash_used += f->body_bytes;
	}
}

static void rx_unpost(struct loop_path *path)
{
	if (path->is_posted)
		path->link->ops->rx_revoke(path->link, path->via);
	path->is_posted = false;
}

/* The guess was wrong for this frame: where it belongs a later one of the batch may lie, put there by the same guess. */
static void rx_rescue(struct rx *rx)
{
	bool own = rx->payload == rx->frame->body;
	rx_stash(rx->lp, rx->frame, rx->last);
	if (own)
		rx->payload = rx->frame->body;
	rx_unpost(rx->path);
}

/* Large plain frames come on this path: the next ones may be received into place. */
static void rx_expect(struct loop_path *path, uint32_t bytes, bool first)
{
	if (bytes >= path->rx_payload || first)
		path->rx_payload = bytes;
	if (path->is_expecting || !(path->link->caps & LINK_PLACES) || bytes < LOOP_POST_PAYLOAD_MIN)
		return;
	path->is_expecting = true;
	list_push_back(&path->loop->expect, &path->expect);
}

static int rx_bulk(struct rx *rx)
{
	struct loop *lp = rx->lp;
	struct msg_pair *pair = rx->path->peer->peer.pair;
	struct msg_arrival a = {
	    .seq = rx->h.seq, .channel = rx->h.channel, .sealed = rx->path->rx_seal != NULL, .offset = rx->h.offset, .bytes = rx->bytes};
	struct msg_place place;
	struct frame_seg scratch = {.addr = lp->scratch, .bytes = rx->bytes};
	int err = msg_rx_where(pair, &a, &place);
	if (err) /* who says so? a header that nobody vouches for must neither end the peer nor move the path */
		return a.sealed && !rx_open(rx, &scratch, 1) ? -TERN_EAUTH : err;
	if (a.sealed && rx->frame->path != rx->path->via && !(place.flags & MSG_PLACE_DROP))
		place.flags |= MSG_PLACE_BOUNCE; /* not through the connected socket: nothing into the tensor before it is known (5.3) */
	bool aside = place.flags & (MSG_PLACE_DROP | MSG_PLACE_BOUNCE);
	bool in_place = !aside && place.segs == 1 && place.seg[0].addr == rx->payload;
	if (rx->frame->body_bytes && !in_place && (rx->link->caps & LINK_PLACES))
		rx_rescue(rx);
	if (a.sealed) {
		if (!rx_open(rx, aside ? &scratch : place.seg, aside ? 1 : place.segs))
			return -TERN_EAUTH;
		place.bounce = lp->scratch;
	} else if (place.flags & MSG_PLACE_BOUNCE) {
		place.bounce = rx->payload; /* plain bytes can be taken from where they are */
	} else if (in_place) {
		lp->count.rx_placed_bytes += rx->bytes;
	} else if (!aside) {
		struct frame_seg from = {.addr = rx->payload, .bytes = rx->bytes};
		copy_segs(place.seg, place.segs, &from, 1, &lp->count.copied_bytes);
	}
	if (!a.sealed && rx->frame->path == rx->path->via)
		rx_expect(rx->path, rx->bytes, a.offset == 0);
	return msg_rx_commit(pair, &place, &lp->count.copied_bytes);
}

/* An authentic frame from elsewhere: the first one tells an acceptor where its peer is; later ones follow a NAT that rebinds, if they are the newest. */
static void rx_follow(struct rx *rx)
{
	struct loop_path *path = rx->path;
	struct link_addr from, to;
	if (path->via && (rx->frame->path == path->via || path->pp.initiator || rx->h.number < path->pp.flow.rx_newest_end))
		return; /* an older frame, held back and sent on from elsewhere, moves nothing */
	if ((path->via && rx_from_remote(rx)) || rx->link->ops->from(rx->link, rx->frame, &from))
		return;
	bool known = !rx->link->ops->to(rx->link, rx->frame, &to);
	loop_path_route(path, &from, known ? &to : NULL);
}

/* A frame of the batch may have ended its peer: then the link's path is gone, too. */
static struct loop_path *rx_placed_path(const struct rx *rx)
{
	if (rx->lp->closes == rx->closes)
		return rx->frame->path->owner;
	for (struct list *at = list_first(&rx->lp->connects); at; at = list_next(&rx->lp->connects, at)) {
		struct loop_path *path = list_entry(at, struct loop_path, connects);
		if (path->via == rx->frame->path)
			return path;
	}
	return NULL;
}

/* Its bytes lie where they belong already. */
static void rx_placed(struct rx *rx)
{
	struct loop_path *path = rx_placed_path(rx);
	if (!path)
		return;
	loop_direct_notice(path, rx->now_ns);
	struct peer_placed p = {.number = rx->frame->placed_number, .bytes = rx->frame->placed_bytes, .lane = rx->frame->lane};
	peer_heard(&path->pp, rx->now_ns);
	loop_activate(path);
	int err = peer_rx_placed(&path->pp, &p, rx->now_ns);
	if (!err)
		rx->lp->count.rx_placed_bytes += p.bytes;
	else if (err == -TERN_EAGAIN)
		rx->lp->count.rx_refused++;
	else
		loop_peer_end(path->peer, err);
	loop_note(path->peer);
}

static void loop_rx_frame(struct rx *rx)
{
	bool eliciting = true;
	if (rx->frame->is_placed) {
		rx_placed(rx);
		return;
	}
	if (!rx_route(rx))
		return;
	struct loop_path *path = rx->path;
	if (path->direct)
		loop_direct_notice(path, rx->now_ns);
	/* a lane that keeps order may lag behind what the others said meanwhile (a FLOOR): there, order is the truth */
	bool in_order = path->direct && path->direct->is_reliable && rx->frame->lane;
	if (!in_order && flow_rx_check(&path->pp.flow, rx->h.number)) {
		loop_activate(path);
		return;
	}
	int err = rx->h.type == WIRE_MIX ? rx_mix(rx, &eliciting) : rx->h.type == WIRE_BULK ? rx_bulk(rx) : -TERN_EPROTO;
	if (err == -TERN_EAUTH)
		return;
	rx_follow(rx);
	peer_heard(&path->pp, rx->now_ns);
	loop_activate(path);
	if (err == -TERN_EAGAIN) {
		rx->lp->count.rx_refused++;
	} else if (err) {
		loop_peer_end(path->peer, err);
	} else {
		struct flow_arrival a = {.number = rx->h.number, .wire_bytes = rx->datagram_bytes + path->pp.overhead_bytes, .ecn = rx->frame->ecn,
			.ack_eliciting = eliciting, .ack_now = rx->h.flags & WIRE_ACK_NOW};
		flow_rx_commit(&path->pp.flow, &a, rx->frame->time_ns ? rx->frame->time_ns : rx->now_ns);
		loop_note(path->peer);
	}
}

/* Two paths of a pair would guess the same memory, and what one call brings over both would lie on each other: one guess a pair. */
static bool rx_is_guessed(const struct loop_path *path)
{
	const struct loop_peer *peer = path->peer;
	for (unsigned i = 0; i < peer->peer.paths && peer->peer.paths > 1; i++)
		if (peer->path[i] != path && peer->path[i]->is_posted)
			return true;
	return false;
}

/* Makes the guess of each path of the link anew: what was expected may have come, ended, or belong to the caller again.
 * @return how many frames to take at once */
static size_t rx_post(struct loop *lp, struct link *link)
{
	size_t batch = LOOP_RX_BATCH;
	for (struct list *at = list_first(&lp->expect), *next; at; at = next) {
		struct loop_path *path = list_entry(at, struct loop_path, expect);
		struct link_post post = {.header_bytes = WIRE_BULK_HEADER_BYTES, .payload_bytes = path->rx_payload};
		struct msg_op *op;
		next = list_next(&lp->expect, at);
		if (path->link != link)
			continue;
		bool worth = path->rx_payload >= LOOP_POST_PAYLOAD_MIN && !rx_is_guessed(path) &&
			msg_rx_expect(path->peer->peer.pair, &post.addr, &post.bytes, &op);
		if (worth && link->ops->rx_post(link, path->via, &post) == 0) {
			size_t fit = LOOP_POST_BATCH_BYTES / (path->rx_payload + WIRE_BULK_HEADER_BYTES);
			path->is_posted = true;
			batch = fit < 1 ? 1 : fit < batch ? fit : batch;
		} else {
			rx_unpost(path);
		}
	}
	return batch;
}

/* The common frame, kept apart because it sets the price: plain BULK of a known path, new, in its place. Anything else about it, and the long way decides.
 * @return how many of the first frames of the batch were such; what concerns the path is done once for all of them */
static size_t rx_run(struct loop *lp, const struct link *link, struct rx_frame *batch, size_t n, uint64_t now_ns)
{
	if (batch->is_placed || batch->head_bytes < WIRE_BULK_HEADER_BYTES || batch->head[1] != WIRE_BULK)
		return 0;
	uint64_t prefix = wire_get64(batch->head), placed = 0;
	struct loop_path *path = loop_path_of(lp, (uint32_t)(prefix >> 32));
	if (!path || path->rx_prefix != prefix)
		return 0;
	struct msg_pair *pair = path->peer->peer.pair;
	struct flow *flow = &path->pp.flow;
	const struct link_path *via = path->via;
	uint32_t overhead = path->pp.overhead_bytes;
	struct msg_place place;
	uint32_t largest = 0;
	size_t k = 0;
	for (; k < n; k++) {
		const struct rx_frame *f = &batch[k];
		const uint8_t *head = f->head;
		bool split = f->body_bytes;
		if (f->is_placed || f->head_bytes < WIRE_BULK_HEADER_BYTES || wire_get64(head) != prefix || wire_get32(head + 16) || f->path != via)
			break;
		if (split && f->head_bytes != WIRE_BULK_HEADER_BYTES)
			break;
		const uint8_t *payload = split ? f->body : head + WIRE_BULK_HEADER_BYTES;
		uint32_t bytes = split ? f->body_bytes : f->head_bytes - WIRE_BULK_HEADER_BYTES;
		struct msg_arrival a = {.seq = wire_get32(head + 20), .offset = wire_get64(head + 24), .bytes = bytes};
		struct flow_arrival fa = {.number = wire_get64(head + 8),
		        .wire_bytes = bytes + WIRE_BULK_HEADER_BYTES + overhead,
		        .ecn = f->ecn,
		        .ack_eliciting = true};
		if (flow_rx_check(flow, fa.number) || msg_rx_where(pair, &a, &place) || place.flags || place.segs != 1)
			break;
		if (place.seg[0].addr == payload)
			placed += bytes;
		else if (split && (link->caps & LINK_PLACES))
			break; /* a wrong guess: it may be in the way of others */
		else
			copy_bytes(place.seg[0].addr, payload, bytes, &lp->count.copied_bytes);
		if (msg_rx_commit(pair, &place, &lp->count.copied_bytes))
			break;
		flow_rx_commit(flow, &fa, f->time_ns ? f->time_ns : now_ns);
		largest = bytes > largest ? bytes : largest;
	}
	if (!k)
		return 0;
	rx_expect(path, largest, false);
	lp->count.rx_placed_bytes += placed;
	peer_heard(&path->pp, now_ns);
	loop_activate(path);
	return k;
}

/* Whole frames among split ones: the copy of a whole one would land on a body that lies there by guess, in the batch or in what the link has not handed out yet. */
static void rx_settle(struct loop *lp, const struct link *link, struct rx_frame *batch, size_t n)
{
	bool split = false, whole = false;
	for (size_t i = 0; i < n; i++) {
		split |= batch[i].body_bytes != 0;
		whole |= batch[i].body_bytes == 0;
	}
	if (!split || !whole)
		return;
	rx_stash(lp, batch, &batch[n - 1]);
	for (struct list *at = list_first(&lp->expect); at; at = list_next(&lp->expect, at)) {
		struct loop_path *path = list_entry(at, struct loop_path, expect);
		if (path->link == link)
			rx_unpost(path);
	}
}

static void rx_batch(struct loop *lp, struct link *link, struct rx_frame *batch, size_t n, uint64_t now_ns)
{
	uint64_t closes = lp->closes;
	lp->stash_used = 0;
	lp->is_moving = true;
	if (link->caps & LINK_PLACES)
		rx_settle(lp, link, batch, n);
	for (size_t i = 0; i < n;) {
		size_t run = rx_run(lp, link, batch + i, n - i, now_ns);
		i += run;
		if (i == n)
			break;
		struct rx rx; /* the rest is rx_route's */
		rx.lp = lp;
		rx.link = link;
		rx.frame = &batch[i];
		rx.last = &batch[n - 1];
		rx.now_ns = now_ns;
		rx.closes = closes;
		loop_rx_frame(&rx);
		i++;
	}
	link->ops->rx_free(link, batch, n);
}

void loop_rx(struct loop *lp, uint64_t now_ns)
{
	struct rx_frame batch[LOOP_RX_BATCH];
	for (size_t i = 0; i < lp->links; i++) {
		struct link *link = lp->link[i];
		for (size_t taken = 0; taken < LOOP_RX_BATCH * LOOP_RX_ROUNDS;) {
			size_t most = link->caps & LINK_PLACES ? rx_post(lp, link) : LOOP_RX_BATCH;
			size_t n = link->ops->rx(link, batch, most, now_ns);
			if (n)
				rx_batch(lp, link, batch, n, now_ns);
			taken += n;
			if (n < most)
				break;
		}
		if (link->caps & LINK_PLACES)
			rx_post(lp, link); /* what has ended in this step is its owner's: no frame may lie there any more (5.1) */
	}
}
