/* A peer: its paths, what leaves on them and in which turn, liveness, path MTU. Pure. Called by loop/, which lends frames and buffers and carries
 * the frames to links; pulls from msg/ and records in flow/. Knows no link, no socket, no key. */
#ifndef PEER_PEER_H
#define PEER_PEER_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/frame.h"
#include "flow/flow.h"
#include "flow/state.h"
#include "msg/msg.h"

enum {
	PEER_PATHS_MAX = 16,
	PEER_FRAME_MIN = 1232, /* UDP payload that every IPv6 path carries (1280 - 48): where a search starts */
	PEER_PONGS_MAX = 12,   /* a whole round of the size search, in any order */
	PEER_MIX_MAX = 8192,   /* largest MIX payload: enough small messages to make a frame pay, little enough to stay in the cache */
	PEER_ITEMS_MAX = 64,   /* records of one MIX frame that must be recovered */
	PEER_QUANTUM_MIN = 65536, /* bytes of one bulk message before the next has its turn */
	PEER_QUANTUM_MAX = 1 << 20,
	PEER_KEEPALIVE_S = 15,
	PEER_PING_BARE = 1,    /* a ping without padding, see peer_ping_next */
	PEER_LANES_MAX = 16,
	/* Where writes are direct a burst is two of them. Not reliable: each burst costs a RUN, its writes are packets (soft RoCE, 500 Mb/s: 34 MB/s
	 * without, 60 with). Reliable: a burst is one write, which leaves at the wire's speed; so not more than 100 us of the pace (there, at 10 ms:
	 * 49 MB/s, 41 without that bound) */
	PEER_WRITE_UNIT = 32768,
	PEER_RUNS = 64,        /* RUNs remembered: a frame that is later than so many bursts goes again */
	PEER_WAITS = 128,      /* placed runs whose HEAD has not come; twice what MSG_AHEAD lets a sender have */
	PEER_PING_GAP_FIRST_NS = 20000000, /* until the RTT is known, and for a dead path; doubled each time */
	PEER_YIELD_NS = 1000000, /* a path that leaves what waits to others looks again then */
	PEER_WAIT_NS = 1000000, /* they are looked at again so often, beside whenever records come */
};

enum peer_path_state {
	PEER_PATH_WAITING = 0, /* acceptor: the remote address is not known yet */
	PEER_PATH_VALIDATING,  /* pings go out; no data yet */
	PEER_PATH_UP,
	PEER_PATH_DEAD,       /* silent while others were heard, and pinged; or closed */
};

enum peer_state { PEER_OPENING = 0, PEER_UP, PEER_GONE };

struct peer;

struct peer_path_config {
	uint8_t path_id;
	bool sealed;
	bool initiator;
	uint32_t remote_flow_id;
	uint32_t frame_limit;    /* largest datagram the link takes */
	uint32_t overhead_bytes; /* of lower layers a datagram, as the contract's rate counts */
	struct peer_direct *direct; /* zeroed but for the owner's fields, or NULL */
	struct flow_config flow;
};

/* Frames [first, first + frames) carry so many bytes of message seq from offset on. */
struct peer_run {
	uint64_t first, offset;
	uint32_t frames, seq, stride_bytes, bytes;
	bool ack_last, by_link; /* by_link: of a reliable connection, which has acknowledged it */
};

/* Direct placement on a path whose link can: what was said to be on its way, and what lies in place but cannot be counted yet. */
struct peer_direct {
	bool is_reliable;
	uint32_t max_write_bytes, packet_bytes, packet_overhead;
	struct peer_run tx_lane[PEER_LANES_MAX + 1]; /* reliable: first is unused, offset + bytes is where the receiver expects the next frame */
	struct peer_run rx_lane[PEER_LANES_MAX + 1];
	struct peer_run said;             /* not reliable: the last RUN, repeated with the next */
	struct peer_run run[PEER_RUNS];   /* not reliable: a ring, newest before run_at */
	uint32_t run_at;
	uint32_t waits;
	struct peer_run wait[PEER_WAITS];
};

struct peer_path {
	struct flow flow;
	struct peer *peer;
	uint8_t id;
	uint8_t state;          /* enum peer_path_state */
	bool sealed;
	bool initiator;
	bool is_broken;         /* its link's connection broke and does not stand again yet */
	bool is_given_up;       /* it has died since the loop last looked: for links with connections */
	uint32_t remote_flow_id;
	uint32_t frame_max;     /* datagram size in use */
	uint32_t frame_limit;
	uint32_t frame_min;     /* that every path is taken to carry, unless its link says less */
	uint32_t overhead_bytes;
	struct peer_direct *direct; /* the loop's memory; NULL: the link cannot */
	uint32_t small_debt_bytes; /* 5.9: what small messages took ahead of waiting bulk, times 3 */
	uint64_t opened_ns, heard_ns; /* heard: last authentic arrival */
	uint64_t suspect_ns;    /* when it was first seen overdue; 0: it is not */
	uint64_t alive_ns;      /* since then: the first moment of which another path shows that the peer was alive; 0: none */
	uint64_t blocked_ns;    /* since when its link has taken nothing of what waits there; 0: it takes. The loop's to say */
	uint64_t first_rtt_ns;  /* of its validation: what is known until acknowledgements come */
	/* pings */
	uint64_t ping_when_ns, ping_gap_ns;
	uint64_t ping_token;
	uint32_t ping_unanswered;
	uint32_t search_step;   /* next rung of the size ladder in this round */
	uint64_t round_ns[2], round_token[2]; /* when the last two rounds of pings left, the latest first, and their first tokens */
	uint64_t search_when_ns; /* next round while the size is below the link's */
	bool searching;
	uint8_t pongs;
	struct wire_ping pong[PEER_PONGS_MAX];
};

struct peer {
	uint64_t id;            /* tern_peer */
	struct msg *msg;
	struct msg_pair *pair;
	uint8_t state;          /* enum peer_state */
	uint8_t paths;
	bool control_lost;      /* the control connection went: look sooner */
	int32_t status;         /* why it is gone, -TERN_E... */
	uint64_t timeout_ns;    /* silence while something is owed */
	uint64_t owed_ns;       /* since when something has been owed; UINT64_MAX: nothing is. Silence before that was nobody's fault */
	uint64_t copied_bytes;  /* through base/copy.h */
	uint64_t failovers;     /* paths given up, so far */
	struct peer_path *path[PEER_PATHS_MAX];
};

/* What loop lends for one call of peer_tx. */
struct peer_tray {
	struct frame **frame; /* free frames */
	size_t room;          /* of them */
	size_t n;             /* filled */
	uint8_t *buf;         /* frame.room of MIX, packed and sealed frames is carved from here */
	size_t buf_bytes;
	size_t buf_used;
	uint32_t front_bytes; /* of the link's headers, before each room: buf is aligned to FRAME_LINE_BYTES then, and they begin so, too */
	bool is_drained;      /* peer_tx has found, last, that nothing more waits to be sent */
};

/** Starts a peer without paths. */
void peer_init(struct peer *peer, uint64_t id, struct msg *msg, struct msg_pair *pair, uint64_t timeout_ns);

/** Adds a path; its first pings are due at once (not while WAITING). @return 0, -TERN_ELIMIT */
int peer_path_init(struct peer_path *path, struct peer *peer, const struct peer_path_config *config);

/** The acceptor learned where the path leads: validation begins. */
void peer_path_found(struct peer_path *path, uint32_t frame_limit, uint64_t now_ns);

/** The link takes smaller datagrams than before, or larger ones: the size in use follows, the search starts again. */
void peer_path_shrunk(struct peer_path *path, uint32_t frame_limit, uint64_t now_ns);

/** The link has made a connection, the first or another: what was said on the last one is void. `direct` keeps the owner's fields is_reliable to packet_overhead, which
 * may differ from the last connection's. */
void peer_direct_start(struct peer_path *path, uint64_t now_ns);

/** A frame without header has put its bytes where they belong. @return 0; -TERN_EAGAIN: not known yet what it is, it is not acknowledged; -TERN_EPROTO */
struct peer_placed { uint32_t number, bytes; uint8_t lane; };
int peer_rx_placed(struct peer_path *path, const struct peer_placed *placed, uint64_t now_ns);

/** The link reports frames that it carries reliably. */
void peer_done(struct peer_path *path, const struct flow_done *done, uint64_t now_ns);

/** May the path take a burst of the so many bytes that wait, or would the peer's other paths bring the last of them sooner? */
bool peer_path_turn(const struct peer_path *path, uint64_t waiting_bytes, uint64_t now_ns);

/** Gives what the flow still holds back to msg as lost. The peer goes on with its other paths. */
void peer_path_close(struct peer_path *path);

/** The control connection went: from now on a tenth of the timeout holds, and the path is asked at once. */
void peer_control_lost(struct peer *peer, uint64_t now_ns);

/** Notes whether something is owed now; after anything was sent. */
void peer_owe(struct peer *peer, uint64_t now_ns);

/** The peer is gone: all operations end with `status`, paths are emptied. */
void peer_end(struct peer *peer, int status);

/* ---- sending ---- */

/** Fills frames for up to one burst, control first. Frames come with payload segments from seg[1] on, without
 * header and tag: the loop encodes and seals. A payload that is in frame.room already lies behind the header's place. @return frames filled */
size_t peer_tx(struct peer_path *path, struct peer_tray *tray, uint64_t now_ns);

/** One frame that says what was received, whether or not that is due: for goodbyes. @return frames filled, 0 or 1 */
size_t peer_tx_last(struct peer_path *path, struct peer_tray *tray, uint64_t now_ns);

/** When the path wants peer_timers or peer_tx: 0 now, UINT64_MAX never. */
uint64_t peer_when_ns(struct peer_path *path, uint64_t now_ns);
/** The same while nothing waits to be sent. */
uint64_t peer_idle_when_ns(struct peer_path *path, uint64_t now_ns);

/* ---- receiving ---- */

/** Takes the records of an authentic MIX payload. *eliciting: it asks for an acknowledgement.
 * @return 0; -TERN_EAGAIN: something found no room, do not commit the frame; -TERN_EPROTO */
int peer_rx_mix(struct peer_path *path, const uint8_t *payload, size_t bytes, uint64_t now_ns, bool *eliciting);

/** An authentic frame arrived on the path. */
void peer_heard(struct peer_path *path, uint64_t now_ns);

/** The link says that the path's connection broke, or stands again: with other paths up nobody waits for it. */
void peer_path_broken(struct peer_path *path, bool is_broken, uint64_t now_ns);
/** The opening of the path that was added last has failed. */
void peer_path_forget(struct peer_path *path);
/** Any path that data can go over? */
bool peer_has_path(const struct peer *peer);

/* Between the files of peer/. */
unsigned peer_path_want(const struct peer_path *path, unsigned want, uint64_t now_ns); /* what of enum msg_want this path should take now */
void peer_path_watch(struct peer_path *path, uint64_t now_ns); /* has it gone silent while others are heard? */
uint64_t peer_path_when_ns(const struct peer_path *path, uint64_t now_ns); /* when that is to be asked again */
void peer_frame_size(struct peer_path *path, uint32_t frame_max, uint64_t now_ns);
void peer_reports(struct peer_path *path, struct flow_report *r, long n);
int peer_rx_run(struct peer_path *path, const struct wire_run *r);
void peer_direct_again(struct peer_path *path, uint64_t now_ns); /* HEADs may have come */
/* The ping that is due, PEER_PING_BARE or the datagram size to pad to; 0: none. */
uint32_t peer_ping_next(struct peer_path *path, uint64_t now_ns);

/* ---- time ---- */

/** Runs what is due. @return 0, or the status the whole peer must end with: -TERN_EPEER (silent), -TERN_EBLOCKED (never a datagram) */
int peer_timers(struct peer_path *path, uint64_t now_ns);

#endif
