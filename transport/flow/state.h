/* The flow's memory: embedded by peer, written by flow's files only. Split into what each file owns; fields that one frame touches lie together. */
#ifndef FLOW_STATE_H
#define FLOW_STATE_H
#include "flow/flow.h"
#include "flow/shared.h"

enum {
	FLOW_LOST_MEMORY = 64,   /* declared-lost runs that are remembered, to notice when they were not */
	FLOW_RANGES_MAX = 1024,  /* of the received set; beyond it the lowest is given up */
	FLOW_RANGES_TIGHT = 4,   /* ... and this many while less than a quarter of the shared pool is left */
	FLOW_MERGE_FRAMES = 256, /* an extent grows to this ... */
	FLOW_MERGE_NS = 100000,  /* ... or spans this much sending */
	FLOW_ACK_FRAMES = 16,    /* DESIGN 5.10 */
	FLOW_ACK_SPACE_NS = 50000,
	FLOW_ACK_HOLD_NS = 500000,
	FLOW_BURST_NS = 20000,
	FLOW_UNIT_NS = 50000,  /* of the pace, at most, is one unit: half a burst */
	FLOW_BURST_MAX = 65536,
	FLOW_LATE_NS = 100000, /* a caller that comes later than the pacer asked is made up for this much time, or for half the egress buffer if it is
	                          known ... */
	FLOW_LATE_MOST_NS = 5000000,
	FLOW_LATE_MAX_BYTES = 1 << 20, /* ... and this much data */
	FLOW_REBASE_SAMPLES = 8,
	FLOW_LINK_TRIES_NS = 100000000, /* a link that repeats by itself: some timeouts of its own before anybody else acts */
	FLOW_TAIL_FRAMES = 8,    /* fewer in flight than this look like a lost tail before they look like a dead path */
	FLOW_QUIET_FRAMES = 512, /* acknowledgements sent until the floor is worth saying although nothing was lost for certain */
};

struct flow_lost {
	uint64_t first;
	uint32_t frames, frame_bytes;
	uint64_t gone_ns; /* when it was declared lost; 0: it went again as a probe */
	uint64_t seen_ns; /* when this was written */
};

/* Minimum over a sliding window, from two halves. */
struct flow_min {
	int64_t old_value, value;
	uint64_t since_ns;
	uint64_t halves; /* 0: nothing yet, 1: only `value`, 2: both */
};

struct flow {
	/* sending */
	uint64_t next_number;
	uint64_t in_flight_bytes;
	uint64_t delivered_bytes;
	uint64_t app_limited_until;  /* delivered_bytes at which a pause of the sender no longer shows; 0: no pause */
	uint64_t probe_base_ns;      /* probe timeouts count from here: last eliciting commit, or last timeout */
	struct flow_shared *shared;
	const struct tern_cc *cc;
	uint32_t head, tail;         /* extents in flight, in number order */
	uint32_t link_head, link_tail; /* those that the link reports, in number order */
	bool has_done;               /* it has: one-way delays come from there, in this host's clock, and no longer from records */
	uint32_t pending, pending_tail; /* extents whose report did not fit; flow_reports hands them out */

	/* pacer, in billionths of a byte */
	int64_t tokens;
	uint64_t tokens_ns;          /* settled up to here */
	uint64_t pace_due_ns;        /* the time flow_tx_room asked to be called again; 0: it did not */
	uint64_t pace_bytes_per_s;   /* the pace that holds since tokens_ns */
	uint64_t burst_bytes;
	uint64_t frames_ns;          /* eight full frames at this pace */
	struct tern_cc_out out;

	/* acknowledgements */
	uint64_t newest_acked;       /* largest acknowledged number + 1; 0: none */
	uint64_t newest_sent_ns;
	uint64_t rack_ns;            /* from the newest acknowledged frame's leaving to its acknowledgement */
	uint64_t reo_ns;             /* reordering window; 0: not widened */
	uint64_t reo_changed_ns;
	uint64_t loss_when_ns;
	uint64_t srtt_ns, rttvar_ns, min_rtt_ns;
	uint64_t timeout_ns;         /* first probe timeout as the last sample makes it, peer_ack_delay_ns included; srtt_ns UINT64_MAX: none yet */
	struct flow_min rtt_floor;   /* min RTT over a long window */
	struct flow_min delay_base;  /* one-way delay, lowest over a long window */
	struct flow_min delay_now;   /* one-way delay, lowest over max(1 ms, 8 frames) */
	uint64_t high_rtt_min_ns;    /* lowest of the samples in a row above min RTT + buffer */
	uint32_t high_rtts;
	uint32_t ce_seen;
	uint64_t rate_delivered, rate_arrival_ns, rate_sent_ns; /* where the rate sample began; arrival 0: not begun */
	uint64_t floor_lost;         /* numbers below were declared lost: largest + 1 */
	uint64_t floor_said;
	uint64_t quiet_frames;       /* not eliciting, since the floor was said */

	/* silence */
	uint64_t owed_since_ns;      /* 0: nothing is owed */
	uint64_t heard_ns;           /* last authentic arrival */
	uint64_t tail_resent_ns;
	uint32_t probes;             /* timeouts in a row */
	bool probe_due;
	bool last_elicits;           /* the frame committed last is recorded: flow_tx_add may add to it */

	/* receiving */
	struct rangeset rx;
	uint64_t rx_newest_end;      /* newest number received + 1; 0: none */
	uint64_t rx_floor;           /* numbers below are refused */
	uint64_t rx_newest_ns;       /* when the newest number arrived */
	uint64_t ack_when_ns;
	uint64_t ack_cursor;         /* ranges below it are said next, when there are too many for one record; 0: from the top */
	uint64_t acked_ns;           /* when the last acknowledgement left */
	uint32_t rx_pending;         /* eliciting frames since the last acknowledgement */
	uint32_t rx_pending_next;    /* at which of them something is to be decided */
	uint32_t rx_ce;

	struct flow_counters count;
	uint64_t peer_ack_delay_ns, contract_rtt_ns, buffer_ns, late_ns;
	uint32_t frame_bytes;        /* what pacer and control count in: frame_least, or up to unit_bytes where FLOW_UNIT_NS of the pace hold more */
	uint32_t frame_least, unit_bytes;
	uint8_t path_id;
	uint32_t lost_at, losts;     /* ring of remembered losses, ascending numbers; losts entries end before lost_at */
	struct flow_lost lost[FLOW_LOST_MEMORY];
	_Alignas(16) unsigned char cc_state[TERN_CC_STATE_MAX];
};

/* Where reports of one call go: the caller's array first, then the pending list. */
struct flow_sink {
	struct flow_report *out;
	size_t n, max;
};

/* tx.c */
void flow_pacer_settle(struct flow *f, uint64_t now_ns);
void flow_pacer_retune(struct flow *f);
void flow_cc_facts(const struct flow *f, uint64_t now_ns, struct tern_cc_flow *out);
/* extent.c */
uint32_t flow_extent_frame_wire(const struct flow_extent *e);
void flow_extent_trim(struct flow_extent *e, uint32_t frames);
uint32_t flow_extent_split(struct flow *f, uint32_t i, uint32_t frames);
void flow_extent_unlink(struct flow *f, uint32_t prev, uint32_t i);
void flow_extent_report(struct flow *f, uint32_t i, uint32_t kind, struct flow_sink *sink);
uint32_t flow_extent_take_head(struct flow *f, uint32_t i, uint32_t frames, uint32_t kind, struct flow_sink *sink);
/* ack.c */
/* What one acknowledgement newly covers. */
struct flow_news {
	uint64_t wire_bytes;
	uint64_t end;      /* newest number + 1; 0: nothing new */
	uint64_t sent_ns;  /* of the newest */
	uint32_t delivered_64;
	uint32_t app_limited;
};
void flow_news_tell(struct flow *f, const struct wire_ack *ack, const struct flow_news *news, uint64_t now_ns);
/* done.c */
void flow_done_close(struct flow *f, struct flow_sink *sink);
/* loss.c */
void flow_loss_detect(struct flow *f, uint64_t now_ns, struct flow_sink *sink);
void flow_loss_unlearn(struct flow *f, const struct wire_ack *ack, uint64_t now_ns);
/* rtt.c */
uint64_t flow_rtt_sample(struct flow *f, const struct wire_ack *ack, uint64_t sent_ns, uint64_t now_ns);
uint64_t flow_queue_sample(struct flow *f, const struct wire_ack *ack, uint64_t sent_ns, uint64_t rtt_ns, uint64_t now_ns);
uint64_t flow_rate_sample(struct flow *f, const struct wire_ack *ack, uint64_t sent_ns);
uint64_t flow_probe_timeout_ns(const struct flow *f);
#endif
