/* One path's flow: numbers, sent extents, acknowledgements, losses, RTT, pacing, and the received set of the other direction. Pure. Called by peer/;
 * it never looks into what its frames carry: items come in with flow_tx_commit and go back in reports.
 *
 * Invariants (tests/unit/flow holds them):
 *   numbers: every number is committed once, in order, and never again.
 *   window:  a run is committed only while in_flight_bytes < cc window, so in_flight_bytes <= cc window + one burst when it is; probes excepted. (A control that lowers
 *            its window does not take back what is on its way.)
 *   pacer:   over any interval [t0, t1] the wire bytes committed are <= pace x (t1 - t0) + burst_bytes, also across changes of pace (each priced
 *            when it held); probes and acknowledgements do not wait but are charged. A caller that comes later than *when_ns said gets pace x its
 *            lateness on top (at most 100 us and 1 MiB), or every late wake-up would be rate lost for good. A punctual caller: no exception.
 *   items:   each committed item is reported exactly once per byte: acked or lost, or handed out by flow_close.
 */
#ifndef FLOW_FLOW_H
#define FLOW_FLOW_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "tern/cc.h"
#include "wire/wire.h"

/* What a run of frames carried. kind 0: nothing anyone wants to hear of (acknowledgements, padding); others are the owner's. */
struct flow_item {
	uint64_t ref;
	uint64_t offset; /* first byte; runs of one ref and kind that follow each other are merged when stride allows */
	uint32_t bytes;  /* 0: a record, not a byte run; never merged, never split */
	uint32_t kind;
};

/* A run of frames about to leave: numbers are consecutive, every frame but the last carries stride_bytes of the item. */
struct flow_run {
	struct flow_item item;
	uint32_t frames;
	uint32_t stride_bytes;
	uint32_t wire_bytes; /* of all frames of the run, overhead of lower layers included */
	bool app_limited;    /* nothing more is waiting behind it */
	bool ack_eliciting;  /* false: only acknowledgements; not in flight, not recovered */
	bool by_link;        /* eliciting, but it is the link that says what became of them (flow_on_done): neither records nor timers do */
};

enum flow_report_kind { FLOW_ACKED = 1, FLOW_LOST = 2 };
struct flow_report {
	uint32_t kind; /* enum flow_report_kind */
	struct flow_item item; /* the part of the committed item that this is about */
};

struct flow_shared;  /* extents and ranges of all flows of a context: pools, flow/shared.h */

struct flow_config {
	uint8_t path_id;
	const struct tern_cc *cc;
	struct tern_cc_init cc_init;   /* contract and frame size */
	uint64_t peer_ack_delay_ns;    /* longest the receiver holds an acknowledgement: 500 us */
	struct flow_shared *shared;
	uint64_t now_ns;
};

struct flow_counters {
	uint64_t tx_frames, tx_bytes;         /* committed, wire bytes */
	uint64_t lost_frames, lost_bytes;
	uint64_t spurious_frames;             /* declared lost, acknowledged later */
	uint64_t rx_frames, rx_bytes, rx_duplicates, rx_old, rx_ce;
	uint64_t acks_tx, acks_rx, probes, rebases;
};

struct flow; /* flow/state.h; peer embeds it */

/** Starts at number 0. Allocates nothing beyond the shared pools. @return 0, -TERN_ELIMIT */
int flow_init(struct flow *f, const struct flow_config *config);
/** Hands out every unacknowledged item as FLOW_LOST (up to max; call until it returns 0), then the flow is empty. */
size_t flow_close(struct flow *f, struct flow_report *out, size_t max);

/* ---- sending ---- */

/** Wire bytes that may leave now: at most a burst, 0 if window or pacer are shut. *when_ns: the time to ask again (UINT64_MAX: only an ack opens it). The pacer opens
 * when half a burst has gathered. Ask only with something to send. */
uint64_t flow_tx_room(struct flow *f, uint64_t now_ns, uint64_t *when_ns);
/** Present burst: clamp(pace x 20 us, 2 frames, 64 KB), DESIGN 5.9; two units where they are more than frames. */
uint64_t flow_burst_bytes(const struct flow *f);
/** The largest frame on the wire, lower layers included, has changed.
 * @param unit_bytes  what is sent at once has a fixed cost that makes so much worth while: bursts are two of them where the pace sends that in 100 us, less where
 *                    it does not, two frames at least. 0: frames */
void flow_frame(struct flow *f, uint32_t frame_bytes, uint32_t unit_bytes, uint64_t now_ns);
/** A probe is due: one frame may be sent although the room is 0. */
bool flow_probe_due(const struct flow *f, uint64_t now_ns);
/** The number the next frame gets. */
uint64_t flow_next_number(const struct flow *f);
/** Numbers and records a run. A MIX frame with several items: flow_tx_commit for the first, flow_tx_add for the others.
 * @return the first number; UINT64_MAX if no extent is free (nothing was recorded: do not send) */
uint64_t flow_tx_commit(struct flow *f, const struct flow_run *run, uint64_t now_ns);
/** One more item in the frame committed last. @return 0, -TERN_ELIMIT: no extent is free, the item is not in this frame */
int flow_tx_add(struct flow *f, const struct flow_item *item);
/** Extents that can still be recorded before the shared pool is empty. */
size_t flow_tx_spare(const struct flow *f);

/** An acknowledgement came. Writes reports; if it returns max, call flow_reports for the rest before anything else. @return reports written,
 * or -TERN_EPROTO: it acknowledges what was never sent */
long flow_on_ack(struct flow *f, const struct wire_ack *ack, uint64_t now_ns, struct flow_report *out, size_t max);
/** The link says what became of numbers [first, first + frames) that were committed by_link: arrived, or lost with the connection. Reports as flow_on_ack. */
struct flow_done { uint64_t first; uint32_t frames; bool is_lost; };
long flow_on_done(struct flow *f, const struct flow_done *done, uint64_t now_ns, struct flow_report *out, size_t max);
/** The link's connection broke, or stands again: the congestion control draws no conclusions from what did not arrive. */
void flow_on_break(struct flow *f, uint64_t now_ns);
/** Losses by time and probe timeouts; call at flow_deadline_ns. Same rule for the result. */
long flow_on_timer(struct flow *f, uint64_t now_ns, struct flow_report *out, size_t max);
/** The rest of the reports of the last call. */
size_t flow_reports(struct flow *f, struct flow_report *out, size_t max);
/** When flow_on_timer wants to be called: loss time, probe timeout. UINT64_MAX: never. The acknowledgement timer is flow_ack_when_ns. */
uint64_t flow_deadline_ns(const struct flow *f);
/** The lowest number that is unacknowledged and not declared lost: a FLOOR record says it to the receiver. *changed: worth saying (holes below were given up, and the
 * receiver may still keep them) since the last flow_floor_said. */
uint64_t flow_floor(const struct flow *f, bool *changed);
void flow_floor_said(struct flow *f);

/* ---- among several paths (docs/design/008) ---- */

/** When something may leave: now_ns, or when the pacer opens, or UINT64_MAX: the window is shut and only an acknowledgement opens it. */
uint64_t flow_open_ns(const struct flow *f, uint64_t now_ns);
/** The path's RTT as its validation saw it: holds for probes until acknowledgements tell more, instead of the contract's. */
void flow_rtt_hint(struct flow *f, uint64_t rtt_ns);
/** Probe timeouts in a row, now. */
uint32_t flow_probes(const struct flow *f);
/** What the path carries: its pace, or its window in each RTT; whichever is less, or at_best more. */
uint64_t flow_rate_bytes_per_s(const struct flow *f, bool at_best);
/** When the oldest frame in flight should have been acknowledged at the latest, or when the last acknowledgement of anything came, whichever is later.
 * UINT64_MAX: nothing is in flight, or it may be a lost tail that is still being probed, or nothing is known of its RTT. What the link reports has as long again as
 * the link may take to try again. */
uint64_t flow_overdue_ns(const struct flow *f);
/** The path is given up: what is in flight is lost (up to max reports; call until it returns 0). Frames that the link reports stay until it does. The flow can be used
 * again. */
size_t flow_give_up(struct flow *f, struct flow_report *out, size_t max);

/* ---- receiving ---- */

/** May this number be taken? @return 0; -TERN_ESTALE: a duplicate or below the floor (counted) */
int flow_rx_check(struct flow *f, uint64_t number);
struct flow_arrival { uint64_t number; uint32_t wire_bytes; uint8_t ecn; bool ack_eliciting; bool ack_now; };
/** The frame verified and its bytes were taken. */
void flow_rx_commit(struct flow *f, const struct flow_arrival *a, uint64_t now_ns);
/** When an acknowledgement should leave: DESIGN 5.10 (16 frames or 50 us, whichever is later, at least each 500 us while data flows, gaps after
 * 50 us at most; the very first frame at once). UINT64_MAX: nothing to say */
uint64_t flow_ack_when_ns(const struct flow *f);
/** Fills the record and takes it as said. @return false: nothing was ever received */
bool flow_ack_build(struct flow *f, uint64_t now_ns, struct wire_ack *out);
/** The sender gave up everything below. */
void flow_rx_floor(struct flow *f, uint64_t number);

/* ---- looking in ---- */
const struct flow_counters *flow_count(const struct flow *f);
uint64_t flow_in_flight_bytes(const struct flow *f);
uint64_t flow_srtt_ns(const struct flow *f);    /* UINT64_MAX before the first sample */
uint64_t flow_min_rtt_ns(const struct flow *f);
uint64_t flow_silent_ns(const struct flow *f, uint64_t now_ns); /* since the last arrival of anything authentic; 0 while nothing is owed */
const struct tern_cc_out *flow_cc(const struct flow *f);
#endif
