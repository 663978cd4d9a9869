/* The congestion-control plug-in contract.
 * A plug-in is a constant table of functions over a state block inside the flow (one per path and direction). It is pure: time comes in as now_ns, it
 * allocates nothing, reads no clock, and writes only its state and *out. Chosen per path by name ("lightpath", "cubic", "fixed").
 * Called by flow/; all calls on one state come from one thread. */
#ifndef TERN_CC_H
#define TERN_CC_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

enum { TERN_CC_STATE_MAX = 512, TERN_CC_NAME_MAX = 16 };
#define TERN_CC_NONE UINT64_MAX /* "not known" in every field below that may be unknown */

/* What is known of the path before the first frame. Rates count the wire bytes of the layer that the contract names, overhead included. */
struct tern_cc_init {
	uint64_t now_ns;
	uint64_t contract_bytes_per_s; /* this flow's share of the contract's rate; TERN_CC_NONE without a contract */
	uint64_t contract_rtt_ns;      /* base RTT; TERN_CC_NONE if not known */
	uint64_t buffer_bytes;         /* egress buffer B; TERN_CC_NONE if not known */
	uint64_t jitter_ns;            /* how late the hosts may be in noting an arrival: added to a delay it says nothing of a queue. 0 where the link stamps */
	uint64_t protection_ns;        /* how long a protection switch may take; 0: none */
	double loss_ceiling;           /* loss ratio above which loss is a sign of something else; 0: plug-in's default */
	uint32_t frame_bytes;          /* largest frame on the wire, to begin with */
	uint32_t dedicated;            /* 1: nobody else is on the path */
};

/* State of the flow, part of every event. */
struct tern_cc_flow {
	uint64_t now_ns;
	uint64_t in_flight_bytes;  /* after the event */
	uint64_t frame_bytes;      /* largest frame on the wire now: the path MTU search raises it */
	uint64_t delivered_bytes;  /* acknowledged since the flow began, monotonic */
	uint64_t srtt_ns;          /* TERN_CC_NONE before the first sample */
	uint64_t min_rtt_ns;       /* over the path's life since the last rebase; TERN_CC_NONE before the first sample */
};

struct tern_cc_sent {
	struct tern_cc_flow flow;
	uint64_t bytes;
	uint32_t app_limited; /* 1: the sender ran out of data, not of window */
};

struct tern_cc_ack {
	struct tern_cc_flow flow;
	uint64_t acked_bytes;            /* newly, by this acknowledgement */
	uint64_t rtt_ns;                 /* sample; TERN_CC_NONE if this acknowledgement gives none */
	uint64_t queue_ns;               /* one-way delay above its lowest, minimum over the frames of this acknowledgement; TERN_CC_NONE if not known */
	uint64_t sent_ns;                /* when the newest acknowledged frame left */
	uint64_t delivery_bytes_per_s;   /* rate sample between two acknowledgements, TERN_CC_NONE if none */
	uint64_t round_bytes;            /* delivered_bytes when the newest acknowledged frame left: marks rounds */
	uint32_t ce_frames;              /* newly reported as marked CE */
	uint32_t app_limited;            /* the rate sample was taken while the sender had nothing to send */
};

struct tern_cc_loss {
	struct tern_cc_flow flow;
	uint64_t lost_bytes;  /* newly declared lost */
	uint64_t sent_ns;     /* when the newest of them had left */
	uint64_t sent_bytes;  /* sent since the flow began: lost / sent is the ratio */
};

struct tern_cc_timeout {
	struct tern_cc_flow flow;
	uint64_t silent_ns;    /* since the last frame heard on the path */
	uint32_t probes;       /* probe timeouts in a row */
	uint32_t data_owed;    /* 1: unacknowledged data is outstanding */
};

/* What the plug-in decides; the flow obeys both. */
struct tern_cc_out {
	uint64_t window_bytes;      /* most bytes in flight */
	uint64_t pace_bytes_per_s;  /* wire bytes; 0 stops all but probes */
	uint64_t probe_ns;          /* while silent: send a probe each so many ns; 0: the flow's own probe timeout */
	const char *state;          /* for statistics and traces, such as "PINNED"; static */
};

struct tern_cc {
	const char *name;
	size_t state_bytes; /* <= TERN_CC_STATE_MAX */
	/** Starts: the state is zeroed. Must set every field of *out. */
	void (*init)(void *state, const struct tern_cc_init *ev, struct tern_cc_out *out);
	/** A run of frames has left. Called once a burst. */
	void (*on_sent)(void *state, const struct tern_cc_sent *ev, struct tern_cc_out *out);
	/** An acknowledgement that acknowledged something new. */
	void (*on_ack)(void *state, const struct tern_cc_ack *ev, struct tern_cc_out *out);
	/** Frames were declared lost. Called after on_ack of the same acknowledgement. */
	void (*on_loss)(void *state, const struct tern_cc_loss *ev, struct tern_cc_out *out);
	/** A probe timeout fired: the path is silent. */
	void (*on_timeout)(void *state, const struct tern_cc_timeout *ev, struct tern_cc_out *out);
	/** The link's connection broke, or stands again: that what was sent before did not arrive says nothing of the path. NULL: the plug-in need not know. */
	void (*on_break)(void *state, const struct tern_cc_flow *ev, struct tern_cc_out *out);
};

#ifdef __cplusplus
}
#endif
#endif
