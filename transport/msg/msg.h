/* Messages of a loop: order, matching, announcements, claims and credit, placement, one-sided, cancel. Pure. Called by peer/ (tx, reports) and loop/
 * (rx, posting). Knows operations, channels and records; knows no path, no flow, no link.
 *
 * Invariants (tests/unit/msg and tests/sim hold them):
 *   every posted operation comes out of msg_done exactly once;
 *   a byte of a message is placed once and counted once; nothing is placed into a receive that has ended;
 *   messages of a pair match in send order, receives in posting order (DESIGN 5.6, 5.7);
 *   memory for unmatched messages never exceeds the credit given, and announced data needs none (5.8);
 *   every record handler is idempotent: records may come twice and in any order.
 */
#ifndef MSG_MSG_H
#define MSG_MSG_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/frame.h"
#include "flow/flow.h"
#include "mem/table.h"
#include "msg/op.h"
#include "wire/wire.h"

struct msg;      /* one a loop */
struct msg_ep;   /* one an endpoint */
struct msg_pair; /* one a peer of an endpoint; msg/state.h defines all three */

struct msg_config {
	uint32_t max_pairs, max_replies;  /* peers' READs answered at once */
	uint32_t max_ops;             /* operations posted at once, all endpoints; 0: 16384. Past it an operation ends with TERN_ELIMIT */
	uint32_t max_inbound;             /* unmatched messages and incoming writes, all pairs */
	uint64_t unmatched_bytes;         /* all pairs */
	uint32_t ranges;                  /* nodes for holes, all operations */
	uint32_t max_keys;                /* exposures at once, and keys of peers remembered; 0: no direct placement */
	struct mem_table *exports;        /* what peers may read and write; msg counts uses in it */
};

/** Memory that msg_init needs, aligned to 64; the unmatched_bytes are given separately, so that they may be lazily mapped pages. */
size_t msg_bytes(const struct msg_config *config);
/** @param memory  msg_bytes of zeroes */
int msg_init(struct msg **out, const struct msg_config *config, void *memory, void *unmatched);

int msg_ep_open(struct msg *m, struct msg_ep **out);   /* -TERN_ELIMIT */
/** Every operation of it ends with `status`. */
void msg_ep_close(struct msg *m, struct msg_ep *ep, int status);
/** A peer that may not be up yet: sends queue, nothing is offered for sending. @param peer  tern_peer, comes back in events */
int msg_pair_open(struct msg *m, struct msg_ep *ep, uint64_t peer, struct msg_pair **out);
struct msg_limits { uint64_t credit_bytes; uint32_t credit_heads; };
/** What this side grants a new peer: goes into the session's hello. */
void msg_pair_grant(struct msg *m, struct msg_pair *pair, struct msg_limits *out);
/** It is up: what the peer grants us. */
void msg_pair_up(struct msg_pair *pair, const struct msg_limits *peer);
/** Every operation with it ends with `status` (also any-peer receives it had begun to fill); its memory is free once the done list is taken. */
void msg_pair_close(struct msg *m, struct msg_pair *pair, int status);
bool msg_pair_idle(const struct msg_pair *pair); /* nothing posted, nothing unacknowledged */
/** The loop's own pointer, kept in the pair. */
void msg_pair_own(struct msg_pair *pair, void *owner);
void *msg_pair_owner(const struct msg_pair *pair);
/** The next pair that has come to have something to send since this was last asked (a receive just posted may owe a GRANT to any peer). NULL: none */
struct msg_pair *msg_woken(struct msg *m);
/** Bytes copied outside msg_tx_records and msg_rx_commit: small and unmatched messages into their receives. */
uint64_t msg_copied_bytes(const struct msg *m);

/* ---- operations ---- */

/** Takes an operation. Never fails: what is wrong with it becomes its status. */
void msg_post(struct msg *m, struct msg_op *op);
/** Asks for an early end; the operation still comes out of msg_done. */
void msg_cancel(struct msg *m, struct msg_op *op);
/** Frames of an operation came back from a link and op->held fell to 0. */
void msg_reaped(struct msg *m, struct msg_op *op);
/** Calls fn with every operation that msg holds, ended ones included. */
void msg_each(struct msg *m, void (*fn)(void *arg, struct msg_op *op), void *arg);
/** The next ended operation (status, bytes, peer, tag, imm are final), NULL: none. It is the caller's again. */
struct msg_op *msg_done(struct msg *m);
/** Does msg_done have something? */
bool msg_has_done(const struct msg *m);
bool msg_has_notice(const struct msg *m);
/** Do msg_expose_next or msg_hide_next have something? */
bool msg_has_exposing(const struct msg *m);
/** Events without an operation: TERN_EV_REMOTE_WRITE, TERN_EV_MISMATCH. */
struct msg_notice { struct msg_ep *ep; uint64_t peer, tag, imm, bytes; uint32_t type; int32_t status; };
bool msg_notice_pop(struct msg *m, struct msg_notice *out);

/* ---- sending: peer/ pulls ---- */

enum msg_want { MSG_WANT_RECORDS = 1, MSG_WANT_SMALL = 2 /* runs of messages up to 64 KiB */, MSG_WANT_BULK = 4 };
/** What the pair has to send now; a few instructions. */
unsigned msg_tx_want(const struct msg_pair *pair);
/** Does it have bytes of messages to send, beside records? */
bool msg_tx_has_bytes(const struct msg_pair *pair);
/**
 * Fills a MIX payload with records (heads with inline messages, announcements, grants, credit ...).
 * @param items  what must be committed to the flow for this frame, at most *n_items (set to how many); each comes back by msg_acked or msg_lost
 * @param copied counts the bytes of inline messages (through base/copy.h)
 * @return bytes written, 0: nothing (more) to say or nothing fits
 */
size_t msg_tx_records(struct msg_pair *pair, uint8_t *out, size_t room, struct flow_item *items, size_t *n_items, uint64_t *copied);

struct msg_run {
	struct msg_op *op;  /* payload: layout_segs(&op->layout, offset, ...) */
	uint64_t offset;
	uint32_t bytes;
	uint32_t seq;
	uint16_t channel;
	bool last;          /* nothing more of this class waits */
	bool is_direct;     /* to `target`, whole, by frames without header */
	struct frame_target target;
	struct flow_item item;
};
/** Which of the peer's paths (0..15) the following calls are for, and the bytes of one bulk message before the next has its turn (64 KiB to begin with). */
void msg_pair_turn(struct msg_pair *pair, unsigned path, uint32_t quantum_bytes);
/**
 * The HEAD that has to be said on this path before msg_tx_run gives bytes of its message: it was said on another only, and is not acknowledged yet.
 * @return bytes written, with one item; 0: none is due
 */
size_t msg_tx_head(struct msg_pair *pair, unsigned want, uint8_t *out, size_t room, struct flow_item *item);
/** Of the classes of bytes that wait, which may this path take (what other paths have keys for is left to them), and which of those can only it place? */
struct msg_share { unsigned may, own; }; /* enum msg_want */
struct msg_share msg_tx_share(const struct msg_pair *pair, unsigned path);
/** Bytes that wait in msg_tx_run's queues; counts no further than `enough`, nor past some dozens of messages. */
uint64_t msg_tx_waiting(const struct msg_pair *pair, uint64_t enough);
/**
 * Takes the next run of bytes: resends first, then messages in turn, a quantum each (shortest first, each fourth turn in order). It must be committed, or given back by
 * msg_lost(item).
 * @return false: nothing (all waits for credit, grants, a HEAD to be sent first, or is for other paths) */
bool msg_tx_run(struct msg_pair *pair, unsigned want, uint32_t max_bytes, struct msg_run *out);

void msg_acked(struct msg *m, const struct flow_item *item);
void msg_lost(struct msg *m, const struct flow_item *item);

/* ---- direct placement (docs/design/005): links that write into the peer's memory ---- */

/** One of the pair's paths can do it now, over this connection; 0: it cannot. With every change exports are exposed anew there, keys of its earlier connections are void.
 * is_reliable: runs that go directly stay `flying` until acked or lost. */
void msg_pair_direct(struct msg_pair *pair, unsigned path, uint32_t connection, bool is_reliable);
struct msg_expose { uint64_t ref; struct msg_pair *pair; uint8_t *addr; uint64_t bytes; uint32_t mem; uint8_t path; };
/** The next memory to expose to a pair's peer, for writing. Answer by msg_exposed, now or later. */
bool msg_expose_next(struct msg *m, struct msg_expose *out);
/** id: the link's, for hiding. To be said before msg_exposed. */
void msg_expose_asked(struct msg *m, uint64_t ref, uint32_t id);
/** target NULL: it cannot be exposed; its bytes come the long way. */
void msg_exposed(struct msg *m, uint64_t ref, const struct frame_target *target);
/** It could not be asked for. is_full: for want of room at the link; an export, which outlives single messages, is tried again when something has been hidden. */
void msg_expose_refused(struct msg *m, uint64_t ref, bool is_full);
/** The next one to hide; answer by msg_hidden. */
struct msg_hide { struct msg_pair *pair; uint32_t id; uint8_t path; };
bool msg_hide_next(struct msg *m, struct msg_hide *out);
/** Nothing can land there any more, hidden or broken. */
void msg_hidden(struct msg *m, uint64_t ref);
/** An export was added, or is to be reachable no longer (mem_export.keys falls to 0 when nothing can land). */
void msg_export(struct msg_pair *pair, uint64_t key);
void msg_unexport(struct msg *m, uint64_t key);
/** Bytes [offset, offset + bytes) of a message lie where they belong. @return 0; -TERN_EAGAIN: its HEAD has not come; -TERN_EPROTO */
int msg_rx_placed(struct msg_pair *pair, uint32_t seq, uint64_t offset, uint32_t bytes);

/* ---- receiving ---- */

/** @return 0; -TERN_EAGAIN: no room now, the frame must not be acknowledged; -TERN_EPROTO: the peer broke the protocol */
int msg_rx_record(struct msg_pair *pair, const struct wire_record *r, uint64_t now_ns);

enum msg_place_flags {
	MSG_PLACE_DROP = 1,   /* nobody wants these bytes (truncated, cancelled, duplicate): verify, acknowledge, drop */
	/* open into a scratch buffer of the loop, msg_rx_commit copies from there: sealed one-sided targets, partly received runs, tiny strides */
	MSG_PLACE_BOUNCE = 2,
};
struct msg_place {
	uint32_t segs;
	struct frame_seg seg[FRAME_SEGS_MAX];
	uint64_t offset;
	uint32_t bytes;
	uint32_t flags;      /* not beside segs: two fresh stores read as one word wait until all before them are done, the last frame's copy too (10 ns a frame) */
	void *target;        /* msg's own */
	uint32_t epoch;      /* msg's own */
	const uint8_t *bounce; /* with BOUNCE the caller sets it before msg_rx_commit */
};
struct msg_arrival { uint32_t seq; uint16_t channel; bool sealed; uint64_t offset; uint32_t bytes; };
/** Where a BULK payload belongs. @return 0; -TERN_EAGAIN: refused, its HEAD is not here (do not acknowledge); -TERN_EPROTO: past the message's end */
int msg_rx_where(struct msg_pair *pair, const struct msg_arrival *a, struct msg_place *out);
/**
 * The bytes are there. `copied` counts what BOUNCE copies.
 * @return 0; -TERN_EAGAIN: since msg_rx_where the message was matched, cancelled or ended: they are nowhere, do not acknowledge.
 *         With at most 64 places uncommitted at a time, holes always find a node.
 */
int msg_rx_commit(struct msg_pair *pair, const struct msg_place *place, uint64_t *copied);
/** A guess for scattered receives: memory where the next bytes of this pair will belong if they come in order. @return false: none worth posting */
bool msg_rx_expect(struct msg_pair *pair, uint8_t **addr, uint64_t *bytes, struct msg_op **op);

#endif
