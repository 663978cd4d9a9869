/* The loop: drives links, flows, messages and peers, and is the only one that reads the clock's time into them (the caller gives now_ns, so that the simulator can).
 * Called by api/ (one thread at a time) and by the simulator's tests. */
#ifndef LOOP_LOOP_H
#define LOOP_LOOP_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/heap.h"
#include "base/list.h"
#include "control/session.h"
#include "link/link.h"
#include "mem/map.h"
#include "mem/table.h"
#include "msg/msg.h"
#include "peer/peer.h"
#include "seal/seal.h"

enum {
	LOOP_LINKS_MAX = 64,
	LOOP_FRAMES = 512,          /* descriptors of frames to send, all links */
	LOOP_TRAY = 128,            /* frames of one call of peer_tx */
	LOOP_TAKE_FEW = 4,          /* so many are taken off the pool one by one, more at once */
	LOOP_CHUNK_BYTES = 160 << 10, /* two loopback frames and some records */
	LOOP_CHUNKS = 12,
	LOOP_RX_BATCH = 64,
	LOOP_RX_ROUNDS = 4,         /* batches of one link in one step */
	LOOP_TX_ROUNDS = 2,         /* bursts of one path in one step: 5.9 */
	LOOP_SCRATCH_BYTES = 66 << 10,
	LOOP_POST_PAYLOAD_MIN = 2048, /* scattered receives win from here on (docs/design/002): 1472 B lose 5 %, 4128 B win 20 to 40 % */
	LOOP_POST_BATCH_BYTES = 65536, /* with a receive posted, as much is taken at once as one call of the kernel brings: then the guess is made anew */
	LOOP_STASH_BYTES = 512 << 10,
	LOOP_JITTER_NS = 500000,    /* a sleeping loop notes an arrival so late: 60 us usually, 0.4 ms seen on a shared virtual machine */
	LOOP_LAST_ACKS = 2,         /* said before a goodbye: one may be lost */
	LOOP_KEYS = 4096,           /* memory exposed at once, and keys of peers remembered */
	LOOP_MAP_BYTES = 16384,     /* operations from here on have their memory mapped while they are posted: MSG_ANNOUNCE_BYTES */
	LOOP_INLINE_BYTES = 4096,   /* up to here a message is copied into a frame with others: where its memory lies matters to no link */
	LOOP_BLOCKED_NS = 1000000,  /* a path whose link takes nothing looks again then, if the link's descriptor has not said so before */
};

/* A buffer that sealed frames, MIX frames and packed runs are made in; free again when the last of its frames came back. */
struct loop_chunk {
	struct loop_chunk *next;
	uint32_t frames;
	_Alignas(FRAME_LINE_BYTES) uint8_t data[LOOP_CHUNK_BYTES];
};

struct loop_counters {
	uint64_t steps;
	uint64_t copied_bytes, sealed_bytes, opened_bytes;
	uint64_t rx_malformed;  /* no header of ours */
	uint64_t rx_strangers;  /* no such flow */
	uint64_t rx_forged;     /* tag did not verify, or plain where sealed is due */
	uint64_t rx_refused;    /* no place yet: not acknowledged */
	uint64_t rx_placed_bytes; /* that a scattered receive, or the peer's link, put where they belong */
	uint64_t tx_direct_bytes; /* that our link writes into the peer's memory */
};

struct loop;
struct loop_peer;

/* A registration in the making. */
struct loop_mapping {
	struct mem_what what;
	uint32_t number;              /* of the region, once it is registered */
	int err;
	struct link *link[MEM_KINDS_MAX]; /* that map it, by kind; they stay open until loop_map_end */
	uint32_t key[MEM_KINDS_MAX];
	char why[320];                /* words: the failure, or which link copies, and why; "" otherwise */
};

/* What a path needs from its contract; made by api. */
struct loop_path_params {
	const struct tern_cc *cc;
	struct tern_cc_init cc_init;
	int32_t layer_bytes; /* a datagram costs so much more on the layer that the contract's rate counts than IP and UDP headers */
	uint32_t mtu_bytes;   /* IP packet; 0: as found */
};

struct loop_path {
	struct peer_path pp; /* first: pp <-> loop_path */
	struct loop *loop;
	struct loop_peer *peer;
	struct link *link;
	struct link_path *via; /* NULL: the remote address is not known yet */
	struct seal *tx_seal, *rx_seal;
	struct list active;    /* in loop.active while something may leave */
	bool is_active;
	bool is_woken;         /* its pair has something new to send: nearly always it may leave, it need not be asked first */
	uint32_t slot, flow_id;
	uint64_t rx_prefix, tx_prefix; /* wire_bulk_prefix of plain frames that come and leave; 0: sealed, no frame begins so */
	uint32_t mtu_bytes;
	struct link_line line; /* of its contract */
	struct frame *waiting[LOOP_TRAY]; /* encoded and sealed, not taken by the link: offered again as they are (5.4) */
	size_t waiting_n;
	uint64_t look_ns;      /* while its link takes nothing: when its timers run at the latest */
	struct list expect;    /* in loop.expect while its link places and large plain frames come */
	bool is_expecting, is_posted;
	uint32_t rx_payload;   /* of the last full frame: the stride of the next guess */
	struct list connects;  /* in loop.connects: its link connects it */
	uint32_t connection;   /* of `via`, as peer and msg know it; 0: none */
	bool is_acceptor;
	uint8_t address;       /* which of the peer's */
	uint8_t token[LINK_TOKEN_BYTES];
	struct peer_direct *direct;
};

struct loop_peer {
	struct peer peer; /* first */
	struct loop *loop;
	struct msg_ep *ep;
	void *owner;       /* api's */
	struct list event; /* in loop.events while told != state */
	uint8_t told;
	bool is_listed;
	uint16_t told_up, was_up; /* a bit for each path id that is up: as last told, and as told before */
	struct loop_path *path[PEER_PATHS_MAX];
};

struct loop_config {
	uint32_t max_peers, max_paths;
	uint32_t max_ops;         /* posted at once; 0: msg's default */
	uint32_t max_inbound;     /* unmatched messages and incoming writes */
	uint64_t unmatched_bytes;
	uint32_t extents, ranges; /* flow's pools and msg's */
	uint64_t peer_timeout_ns;
	uint64_t seed;            /* of flow ids */
	uint64_t now_ns;
};

struct loop {
	struct msg *msg;
	struct mem_table *exports;
	struct flow_shared *flows;
	struct link *link[LOOP_LINKS_MAX];
	size_t links;
	size_t directs;          /* of them that write or connect: loop_direct is for those */
	struct loop_path **path; /* by slot: the low 16 bits of a flow id */
	uint32_t max_paths;
	struct heap timers;      /* ref: slot */
	struct list active, events, expect, connects;
	struct mem_map mem;      /* regions, and the keys that each kind of link has for them */
	struct link *mapper[MEM_KINDS_MAX]; /* one of each kind */
	uint32_t chunk_mem;      /* the region of all chunks */
	struct frame *frame;     /* all of them */
	struct frame *free_frame[LOOP_FRAMES];
	size_t free_frames;
	struct loop_chunk *free_chunk;
	struct loop_counters count;
	bool is_posted;          /* something was posted since the last step */
	bool is_moving;          /* frames came or left in this step */
	bool is_put_off;         /* the last step left sending to this one */
	uint64_t now_ns;
	uint64_t closes;         /* paths closed so far */
	uint64_t peer_timeout_ns;
	uint64_t rng;
	uint8_t *scratch;        /* bounces, gathered split frames */
	uint8_t *stash;          /* payloads that a wrong guess put where others belong */
	size_t stash_used;
	struct { void *addr; size_t bytes; } memory[8]; /* mapped, so that what is never used costs nothing; what loop_close unmaps */
	struct loop_chunk *chunks;
};

/** @return 0, -TERN_ENOMEM */
int loop_open(const struct loop_config *config, struct loop **out);
/** Closes its links too. Operations still in msg are the caller's to end before. */
void loop_close(struct loop **lp);

/** One round: reap, rx, timers, tx. Afterwards take msg_done, msg_notice_pop, loop_event. @return true: frames came or left */
bool loop_step(struct loop *lp, uint64_t now_ns);
/** Sends what was posted and does nothing else: for a caller about to sleep, whom loop_due_ns and the links' wait tell of everything else. */
void loop_send(struct loop *lp, uint64_t now_ns);
/** When the next step has something to do, as far as timers say; 0: at once. Frames come at any time. */
uint64_t loop_when_ns(struct loop *lp, uint64_t now_ns);
/** The same without what the links say, for who asks them himself. */
uint64_t loop_due_ns(const struct loop *lp, uint64_t now_ns);

/** Takes a link over, and maps what is registered for it. @param why  gets words if it cannot map all of that ("" otherwise): frames from there are copied
 *  @return 0, -TERN_ELIMIT */
int loop_link_add(struct loop *lp, struct link *link, char *why, size_t why_bytes);
/** Closes a link that no path uses any more and lets it go; while a registration uses it, with the end of that. */
void loop_link_remove(struct loop *lp, struct link *link);

/** A peer without paths; operations may be posted to it (peer->peer.pair). @return 0, -TERN_ELIMIT, -TERN_ENOMEM */
int loop_peer_open(struct loop *lp, struct msg_ep *ep, uint64_t id, void *owner, struct loop_peer **out);
/** Chooses the flow id of one of the peer's paths, for the hello; a second call gives the same. @return the id, 0: no slot is free */
uint32_t loop_peer_flow_id(struct loop_peer *peer, unsigned path_id);
/** The session stands: opens its paths over `link`; those chosen but not in the session, or that cannot be opened, are forgotten while others can.
 * @return 0, or why none could be opened */
int loop_peer_up(struct loop_peer *peer, const struct session *session, struct link *link, const struct loop_path_params *params);
/** The control connection went. */
void loop_peer_lost(struct loop_peer *peer);
/** Says what was received once more, before a goodbye: what the peer sent and is here must not look lost to it. */
void loop_peer_flush(struct loop_peer *peer);
/** Ends the peer: operations end with `status`, links give its memory back. loop_event tells of it, then loop_peer_free. */
void loop_peer_end(struct loop_peer *peer, int status);
void loop_peer_free(struct loop_peer **peer);

/** A peer whose state changed (peer.state is PEER_UP or PEER_GONE, peer.status says why), NULL: none. */
struct loop_peer *loop_event(struct loop *lp);

/** Nothing that was sent waits for its acknowledgement, nothing can be sent. */
bool loop_peer_quiet(const struct loop_peer *peer);

/** Takes one peer's news out of turn. @return true: there was some, tell it */
bool loop_event_take(struct loop_peer *peer);

/** The next operation that has ended, its memory unmapped; NULL: none. */
struct msg_op *loop_done(struct loop *lp);

/**
 * Registers job->what: memory that operations will use again and again, mapped for each kind of link that wants it. begin and end are the loop's owner's; run may
 * take long (20 ms/GB) and is for any thread, while the loop goes on.
 * @return end: 0 and job->number, which loop_unmap takes back; otherwise nothing is registered. job->why says more in both cases
 */
void loop_map_begin(struct loop *lp, struct loop_mapping *job);
void loop_map_run(struct loop_mapping *job);
int loop_map_end(struct loop *lp, struct loop_mapping *job);
/** All three at once, for ordinary memory. */
int loop_map(struct loop *lp, void *addr, uint64_t bytes, uint32_t *number);
/** @return 0; -TERN_EBUSY: an operation lies there, nothing was done */
int loop_unmap(struct loop *lp, uint32_t number);

/** An export was added to lp->exports, or is to be out of the peer's reach: its `keys` fall to 0 when no link lets the peer write there any more. */
void loop_export(struct loop_peer *peer, uint64_t key);
void loop_unexport(struct loop *lp, uint64_t key);

/** Posts an operation; it leaves with the next step. */
void loop_post(struct loop *lp, struct msg_op *op);

/* Between the files of loop/. */
void loop_activate(struct loop_path *path);
void loop_peer_activate(struct loop_peer *peer);
void loop_note_any(struct loop_peer *peer);
/* The peer's state may have changed, or with several paths that of one. */
static inline void loop_note(struct loop_peer *peer)
{
	if (peer->told != peer->peer.state || peer->peer.paths > 1)
		loop_note_any(peer);
}
void loop_rx(struct loop *lp, uint64_t now_ns);
void loop_tx(struct loop *lp, uint64_t now_ns);
void loop_reap(struct loop *lp, uint64_t now_ns);
void loop_frames_back(struct loop *lp, struct frame *const *frames, size_t n);
uint32_t loop_frame_limit(const struct loop_path *path);
int loop_path_route(struct loop_path *path, const struct link_addr *remote, const struct link_addr *local);
void loop_path_given_up(struct loop_path *path);
void loop_direct_notice(struct loop_path *path, uint64_t now_ns); /* links that write, before a frame is read: is its connection known? */
void loop_direct_void(struct loop_path *path); /* keys of its connection hold no more */
static inline bool loop_is_direct(const struct link *link)
{
	return link->caps & (LINK_WRITES | LINK_CONNECTS);
}
void loop_direct(struct loop *lp, uint64_t now_ns);
bool loop_direct_due(const struct loop *lp); /* would loop_direct do something, beside what the links' wait tells? */
int loop_direct_open(struct loop_path *path, const struct session *session, const struct session_path *sp);
void loop_direct_close(struct loop_path *path);
/** Maps what is registered for a link that has come. @return how many regions it cannot map */
int loop_memory_link(struct loop *lp, struct link *link, char *why, size_t why_bytes);
void loop_memory_unlink(struct loop *lp, struct link *link);
/** The regions that an operation's memory lies in, mapped for it if need be; in use until done. */
void loop_memory_op(struct loop *lp, struct msg_op *op);
void loop_memory_done(struct loop *lp, struct msg_op *op);
#endif
