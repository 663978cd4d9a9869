/* Frames in: routed by flow id, checked, opened or copied into the place msg names, recorded, and only then acknowledged. Called by loop_step. */
#include <string.h>
#include "base/copy.h"
#include "loop/loop.h"
#include "tern/error.h"

/* A received frame on its way through. */
struct rx {
	struct loop *lp;
	struct link *link;
	struct rx_frame *frame;
	struct wire_header h;
	struct loop_path *path;
	uint8_t *head;       /* the clear header, contiguous */
	uint32_t head_bytes;
	uint8_t *payload;    /* without tag */
	uint32_t bytes;
	uint32_t datagram_bytes;
	uint64_t now_ns;
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

static int rx_bulk(struct rx *rx)
{
	struct loop *lp = rx->lp;
	struct msg_pair *pair = rx->path->peer->peer.pair;
	struct msg_arrival a = {.seq = rx->h.seq, .channel = rx->h.channel, .sealed = rx->path->rx_seal != NULL, .offset = rx->h.offset, .bytes = rx->bytes};
	struct msg_place place;
	int err = msg_rx_where(pair, &a, &place);
	if (err)
		return err;
	struct frame_seg scratch = {.addr = lp->scratch, .bytes = rx->bytes};
	bool aside = place.flags & (MSG_PLACE_DROP | MSG_PLACE_BOUNCE);
	if (a.sealed) {
		if (!rx_open(rx, aside ? &scratch : place.seg, aside ? 1 : place.segs))
			return -TERN_EAUTH;
		place.bounce = lp->scratch;
	} else if (place.flags & MSG_PLACE_BOUNCE) {
		place.bounce = rx->payload; /* plain bytes can be taken from where they are */
	} else if (!aside && place.segs == 1 && place.seg[0].addr == rx->payload) {
		lp->count.rx_placed_bytes += rx->bytes;
	} else if (!aside) {
		struct frame_seg from = {.addr = rx->payload, .bytes = rx->bytes};
		copy_segs(place.seg, place.segs, &from, 1, &lp->count.copied_bytes);
	}
	return msg_rx_commit(pair, &place, &lp->count.copied_bytes);
}

/* An authentic frame from elsewhere: the first one tells an acceptor where its peer is; later ones follow a NAT that rebinds, if they are the newest. */
static void rx_follow(struct rx *rx)
{
	struct loop_path *path = rx->path;
	struct link_addr from;
	if (path->via && (rx->frame->path == path->via || path->pp.initiator))
		return;
	if (rx->link->ops->from(rx->link, rx->frame, &from))
		return;
	if (path->via && from.bytes == path->via->remote.bytes && !memcmp(from.data, path->via->remote.data, from.bytes))
		return;
	loop_path_route(path, &from);
}

static void loop_rx_frame(struct rx *rx)
{
	bool eliciting = true;
	if (!rx_route(rx))
		return;
	struct loop_path *path = rx->path;
	if (flow_rx_check(&path->pp.flow, rx->h.number)) {
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

void loop_rx(struct loop *lp, uint64_t now_ns)
{
	struct rx_frame batch[LOOP_RX_BATCH];
	for (size_t i = 0; i < lp->links; i++) {
		struct link *link = lp->link[i];
		for (unsigned round = 0; round < LOOP_RX_ROUNDS; round++) {
			size_t n = link->ops->rx(link, batch, LOOP_RX_BATCH, now_ns);
			for (size_t k = 0; k < n; k++) {
				struct rx rx = {.lp = lp, .link = link, .frame = &batch[k], .now_ns = now_ns};
				loop_rx_frame(&rx);
			}
			if (n)
				link->ops->rx_free(link, batch, n);
			if (n < LOOP_RX_BATCH)
				break;
		}
	}
}
