/* The state behind msg.h: what the files of this folder share, and nobody else includes. One struct msg a loop, one msg_pair a peer of an endpoint,
 * one msg_in a message that has begun to arrive. Numbers of messages are 64 bits inside and 32 on the wire; msg_seq_near brings them back. */
#ifndef MSG_STATE_H
#define MSG_STATE_H
#include <assert.h>
#include <string.h>
#include "base/copy.h"
#include "base/list.h"
#include "base/pool.h"
#include "msg/msg.h"
#include "tern/error.h"
#include "tern/tern.h"

enum {
	MSG_SMALL_BYTES = 65536,      /* up to here a message belongs to the class that goes first */
	MSG_ANNOUNCE_BYTES = 16384,   /* receives from here on are announced */
	MSG_HEAD_EVERY_BYTES = 65536, /* an unacknowledged HEAD is said again each */
	MSG_HEADS_MAX = 8,            /* and so many times */
	MSG_WINDOW = 256,             /* writes, and reads, of a pair under way */
	MSG_ANNOUNCED = 128,          /* announcements of a pair under way */
	MSG_CLASSES = 512,            /* classes of tags, see announce.c */
	MSG_TAGS = 64,                /* entries of the table behind hold_seq, see hold.c */
	MSG_CHUNK_BYTES = 4096,       /* unit of unmatched memory */
	MSG_LATE = 16,                /* late RESULTs remembered, to tell a copy */
	MSG_SCAN_MAX = 64,            /* steps of a search that may give up */
	MSG_AHEAD = 64,               /* messages with OP_AHEAD at a time: the receiver keeps what has come before its HEAD, for so many */
	MSG_RKEYS_PAIR = 512,         /* keys remembered of one peer */
	MSG_PATHS_MAX = 16,           /* PEER_PATHS_MAX; path ids are below it */
	MSG_RANGE_SPARE = 128,        /* nodes kept for frames between where and commit */
};
#define MSG_RECV_ID_MASK 0x7fffffffu /* recv_id is the order's low 31 bits, so that it never looks like none */
#define MSG_SEQ_AHEAD (1u << 30) /* nothing correct comes from further ahead */

/* flow_item.kind. ref: of an operation (RUN, HEAD, READ, CANCEL), of an incoming message (GRANT, RESULT), of the pair (the others, offset says which)
 * */
enum msg_item_kind {
	MSG_ITEM_RUN = 1,
	MSG_ITEM_HEAD,
	MSG_ITEM_READ,
	MSG_ITEM_CANCEL,
	MSG_ITEM_GRANT,
	MSG_ITEM_RESULT,
	MSG_ITEM_SKIP,     /* CANCEL of a message whose HEAD never left; offset is its number */
	MSG_ITEM_ANNOUNCE,
	MSG_ITEM_REVOKE,
	MSG_ITEM_ANSWER,
	MSG_ITEM_CREDIT,
	MSG_ITEM_KEY,
	MSG_ITEM_DIRECT,   /* a run that a reliable link carries: its memory is read until this is reported */
};

/* op->state */
enum msg_op_state {
	OP_HEAD_SENT = 1,     /* numbered, the way it goes is fixed */
	OP_HEAD_DUE = 2,      /* HEAD (or READ) is to be said, first or again */
	OP_HEAD_ACKED = 4,
	OP_GO = 8,            /* its bytes may leave */
	OP_INLINE = 16,
	OP_CLAIM = 32,
	OP_NAMED = 64,        /* goes to an announced receive: recv_id */
	OP_HOLD_ALL = 128,
	OP_RESULT = 256,      /* the RESULT that DONE_MATCHED waits for has come */
	OP_CANCEL = 512,      /* asked */
	OP_CANCEL_DUE = 1024, /* CANCEL is to be said */
	OP_POSTED = 2048,     /* receive: among those that match */
	OP_ANNOUNCED = 4096,  /* receive: recv_id is its announcement */
	OP_VOID = 8192,       /* receive: its announcement will not be used */
	OP_CANCEL_SENT = 1 << 15,
	OP_AHEAD = 1 << 16,   /* bytes went directly before its HEAD was acknowledged: counted in pair->ahead */
	OP_ENDED = 1 << 14,   /* waits for frames in links, or is in the done list */
};

enum msg_in_state {
	IN_HELD = 1,   /* an earlier message may want its receive */
	IN_UNMATCHED,  /* no receive yet */
	IN_FILLING,    /* into op, or into exported memory */
	IN_DROP,       /* only its RESULT or GRANT is still under way; bytes are dropped */
	IN_REFUSED,    /* a write without the right: nothing of it is acknowledged before its RESULT is */
	IN_NOTICE,     /* carries an event without an operation */
};
enum msg_in_say { IN_GRANT = 1, IN_RESULT = 2 };

/* A message that has begun to arrive: from its HEAD to its last byte, or to the acknowledgement of its RESULT. */
struct msg_in {
	struct list hash;     /* by pair and number */
	struct list by_pair;  /* pair->unmatched or pair->held, by number */
	struct list by_ep;    /* ep->unmatched, by arrival */
	struct list pair_tag, ep_tag; /* unmatched, hashed by tag */
	struct list due;      /* pair->due; m->notices */
	struct msg_pair *pair;
	struct msg_op *op;
	uint8_t *addr;        /* where byte 0 lies when the target is one run, otherwise NULL */
	uint64_t seq, tag, imm, bytes;
	uint64_t limit;       /* bytes that are placed; the rest is dropped */
	uint64_t front;       /* all below are placed */
	struct rangeset ranges; /* placed beyond the front */
	uint32_t gen, epoch;  /* of the entry's use; of the target */
	uint32_t hold, recv_id;
	uint32_t chunk, at, at_index; /* unmatched memory: first chunk, and the last one looked up */
	uint8_t state, kind, flags, dtype, dims, status, says, said; /* says: due; said: under way */
	bool credited;        /* it holds credit */
	uint64_t shape[TERN_DIMS_MAX];
};

/* What the sender knows of a receive that the peer has announced. */
struct msg_offer {
	uint64_t tag, bytes;
	uint32_t order, matched_seq, shape;
	uint8_t dtype, dims, state, answer;
};
enum msg_offer_state { OFFER_NONE = 0, OFFER_EARLY, OFFER_LIVE, OFFER_USED, OFFER_REVOKED };
enum msg_offer_answer { ANSWER_DUE = 1, ANSWER_TAKEN = 2 };

/* What the receiver keeps of an announcement, beside its operation */
enum msg_ann_state { ANN_DUE = 1, ANN_FLYING = 2, ANN_KNOWN = 4, ANN_REVOKE_DUE = 8, ANN_REVOKE_FLYING = 16, ANN_KEY = 32 /* its key comes first */ };

struct msg_tag { uint64_t tag, last_end, other_end; };

struct msg_pair {
	struct msg *m;
	struct msg_ep *ep;
	void *owner;
	uint64_t peer;
	uint32_t gen, ops;
	uint32_t quantum_bytes; /* of a bulk message's turn */
	uint8_t tx_path;        /* whose turn it is */
	uint32_t turns;
	bool is_up, is_awake, announce_check, credit_due;
	uint32_t connection[MSG_PATHS_MAX]; /* that direct placement goes over, for each path; 0: none */
	uint32_t connected;     /* a bit for each path that has one */
	uint32_t reliable;      /* and for each whose link reports what goes directly */
	uint32_t expose_next;   /* counts what is exposed: each connected path is the first in turn */
	uint32_t ahead, rkeys;
	struct list rkey_age;   /* the peer's keys, oldest first */
	struct list keys, keys_due, keys_rest, reads_wait; /* exposed to this peer; to be said; broken, for their path's next connection; reads that wait for their key */
	struct list link, wake;
	/* sending */
	struct list wait;       /* sends without a way, by number */
	struct list wait_write, heads, small, bulk;
	struct list wait_read, reads; /* reads not yet asked for; asked for, by req_id */
	uint64_t tx_next, tx_front; /* next number; all HEADs below are acknowledged */
	struct rangeset tx_acked;   /* and these beyond */
	struct rangeset skips;      /* cancelled before their HEAD left, to be said */
	uint64_t skip_next;         /* skips from here on are to be said */
	uint32_t writes, reads_due, req_next;
	uint64_t credit_order, credit_bytes, used_bytes;
	uint32_t credit_heads, used_heads;
	uint64_t late[MSG_LATE]; /* the last messages whose RESULT came after their end: number + 1 */
	uint32_t late_next;
	uint32_t offer_next, offer_first; /* next order to take; none below is live */
	uint32_t answers_due;
	/* receiving */
	struct msg_in *last;    /* the message of the last run */
	struct list due, held, unmatched, masked;
	uint64_t rx_front, unnamed_end; /* all HEADs below have come; the last one that went to no announced receive, + 1 */
	struct rangeset rx_seen, rx_skipped; /* beyond the front: come; among them those that did not wait for what they hold for */
	uint32_t said_flying;   /* GRANT, RESULT, ANSWER, ANNOUNCE, REVOKE, CREDIT under way */
	uint32_t grant_heads;   /* the window; what was freed and seen so far */
	uint64_t grant_bytes, freed_bytes, said_bytes, seen_bytes, said_order;
	uint32_t freed_heads, said_heads, seen_heads, grant_chunks;
	struct list announce;   /* receives that may be announced later, by posting */
	uint32_t ann_base, ann_next, ann_due;
	uint32_t read_next;     /* peer's READs: highest req_id + 1, and which of the last MSG_WINDOW came */
	uint64_t read_seen[MSG_WINDOW / 64];
	uint8_t ann_state[MSG_ANNOUNCED];
	struct msg_op *ann_op[MSG_ANNOUNCED];
	struct msg_tag tags[MSG_TAGS];
	struct msg_offer offer[MSG_ANNOUNCED];
	uint32_t unnamed[MSG_CLASSES]; /* sender: last message of a class that went to no announced receive, + 1 */
};

struct msg_ep {
	struct list link;
	struct list unmatched, masked; /* msg_in.by_ep; any-peer receives with a mask */
	uint32_t anys;         /* any-peer receives without one that wait */
};

/* Memory exposed to a peer, from the wish to the end. */
struct msg_key {
	struct list link;     /* m->expose, m->refused, m->hide, pair->keys_due or pair->keys_rest */
	struct list by_pair;
	struct msg_pair *pair;
	struct msg_op *op;    /* whose memory it is, NULL: an export's */
	struct msg_key *next; /* of the operation's */
	uint64_t id;          /* of the record, and with an export its key */
	uint8_t *addr;
	uint64_t bytes;
	struct frame_target target;
	uint32_t gen, expose_id, mem;
	uint8_t kind, state, path;
	bool again;           /* in the middle of a message: nobody waits for it */
};
enum msg_key_state { KEY_WANTED = 1 /* or refused */, KEY_RESTS, KEY_ASKED, KEY_READY, KEY_ENDING };

/* What a peer has exposed to us. */
struct msg_rkey {
	struct list hash, age;
	struct msg_pair *pair;
	uint64_t id, bytes;
	struct frame_target target;
	uint8_t kind;
};

struct msg_slot { struct msg_op *op; uint32_t gen, next; };

struct msg {
	struct msg_config config;
	struct pool pairs, eps, ins, replies, keys, rkeys;
	struct list all_pairs, done, notices, wake, expose, hide;
	struct list refused;    /* keys of exports that no link had room for: tried again when one has */
	bool exports_missed;    /* there was no key for an export */
	struct list *rkey_hash;
	struct msg_slot *slot;
	uint32_t slots, slot_free, op_mask, in_mask;
	struct list *recv_tag, *send_hash;          /* by tag; by tag or number */
	struct list *in_seq, *in_pair_tag, *in_ep_tag;
	struct range_pool tx_ranges, rx_ranges;
	uint8_t *chunks;
	uint32_t *chunk_next;
	uint32_t chunk_total, chunk_fresh, chunk_head, chunks_used, chunks_granted;
	uint32_t heads_total, heads_granted, ins_credited; /* credit for heads; messages that hold it */
	uint64_t order, copied_bytes;
};

static inline uint64_t msg_hash(uint64_t a, uint64_t b)
{
	uint64_t x = (a ^ b * 0x9e3779b97f4a7c15u) * 0xff51afd7ed558ccdu;
	return x ^ x >> 32;
}

static inline uint64_t msg_hash_ptr(const void *p, uint64_t b)
{
	return msg_hash((uint64_t)(uintptr_t)p, b);
}

/** The 64-bit number nearest to `near` with these low bits. */
static inline uint64_t msg_seq_near(uint64_t near, uint32_t seq)
{
	return near + (uint64_t)(int64_t)(int32_t)(seq - (uint32_t)near);
}

static inline uint64_t msg_op_ref(const struct msg *m, const struct msg_op *op)
{
	return (uint64_t)m->slot[op->slot].gen << 32 | op->slot;
}

static inline struct msg_op *msg_op_at(const struct msg *m, uint64_t ref)
{
	uint32_t i = (uint32_t)ref;
	return i < m->slots && m->slot[i].gen == ref >> 32 ? m->slot[i].op : NULL;
}

static inline uint64_t msg_in_ref(const struct msg *m, const struct msg_in *in)
{
	return (uint64_t)in->gen << 32 | pool_index_of(&m->ins, in);
}

static inline uint64_t msg_pair_ref(const struct msg *m, const struct msg_pair *pair)
{
	return (uint64_t)pair->gen << 32 | pool_index_of(&m->pairs, pair);
}

/* Is the path whose turn it is? */
static inline bool pair_is_reliable(const struct msg_pair *pair)
{
	return pair->reliable >> pair->tx_path & 1;
}

static inline void msg_wake(struct msg_pair *pair)
{
	if (pair->is_awake || !pair->is_up)
		return;
	pair->is_awake = true;
	list_push_back(&pair->m->wake, &pair->wake);
}

/* A frame of records in the making. */
struct msg_mix {
	struct msg_pair *pair;
	uint8_t *out;
	size_t room, used, items, max_items;
	struct flow_item *item;
	uint64_t *copied;
};
/** Appends a record and its item. @return false: it does not fit */
bool msg_mix_put(struct msg_mix *x, const struct wire_record *r, const struct flow_item *item);

/* msg.c */
void msg_op_end(struct msg *m, struct msg_op *op, int status);
void msg_op_landed(struct msg *m, struct msg_op *op, uint32_t bytes); /* of what a link had taken to write by itself */
bool msg_slot_get(struct msg *m, struct msg_op *op);

/* send.c */
void send_post(struct msg *m, struct msg_op *op);
void send_queue(struct msg_op *op);    /* into the queue that its state asks for */
bool send_wants_result(const struct msg_op *op);
void send_try_end(struct msg *m, struct msg_op *op);
void send_cancel(struct msg *m, struct msg_op *op);
struct msg_op *send_find(struct msg_pair *pair, uint32_t seq);
void send_not_ahead(struct msg_op *op);
void send_head_acked(struct msg *m, struct msg_op *op);
void send_seq_acked(struct msg_pair *pair, uint64_t seq);
int send_rx_grant(struct msg_pair *pair, const struct wire_grant *r);
int send_rx_result(struct msg_pair *pair, const struct wire_result *r);

/* hold.c */
void hold_number(struct msg_pair *pair, struct msg_op *op);

/* head.c */
void head_tx(struct msg_mix *x);
static inline uint32_t skip_due(const struct msg_pair *pair)
{
	return rangeset_empty(&pair->skips) ? 0 : rangeset_seek(&pair->skips, pair->skip_next);
}
static inline bool head_tx_want(const struct msg_pair *pair)
{
	return !list_empty(&pair->heads) || (!list_empty(&pair->wait) && pair->used_heads != pair->credit_heads) ||
		(!list_empty(&pair->wait_write) && pair->writes < MSG_WINDOW) || skip_due(pair);
}
size_t head_again(struct msg_op *op, uint8_t *out, size_t room, struct flow_item *item);

/* in.c */
struct msg_in *in_find(struct msg_pair *pair, uint64_t seq);
struct msg_in *in_get(struct msg_pair *pair);
void in_put(struct msg *m, struct msg_in *in);
void in_say(struct msg_in *in, uint8_t what, int status);
void in_said(struct msg *m, struct msg_in *in, uint8_t what, bool acked);
void in_end(struct msg *m, struct msg_in *in);          /* all placed that will be */
void in_drop(struct msg *m, struct msg_in *in);         /* its bytes go nowhere from now on */
void in_fill(struct msg *m, struct msg_in *in, uint64_t offset, const uint8_t *data, uint64_t bytes, uint64_t *copied);
int in_rx_head(struct msg_pair *pair, const struct wire_head *h);
int in_rx_cancel(struct msg_pair *pair, const struct wire_cancel *r);
void in_tx_due(struct msg_mix *x);
void in_grant(struct msg_in *in);                       /* a claim has met its receive */

/* match.c */
void match_post(struct msg *m, struct msg_op *op);
void match_unpost(struct msg_op *op);                   /* takes a receive out of those that match */
void match_arrived(struct msg_pair *pair, struct msg_in *in); /* a message without a named receive */
void match_pair(struct msg *m, struct msg_in *in, struct msg_op *op);
struct msg_op *match_first(struct msg_pair *pair, uint64_t tag); /* the earliest receive that waits and fits */
void match_meets(struct msg_pair *pair, struct msg_op *op, uint64_t tag, uint64_t imm, uint64_t bytes); /* from now on it is this message's */
void match_release(struct msg_pair *pair);              /* tries the held ones again, by number */
void match_cancel(struct msg *m, struct msg_op *op);
void match_unlink(struct msg_in *in);
static inline bool match_fits(const struct msg_op *op, uint64_t tag)
{
	return ((op->tag ^ tag) & ~op->ignore) == 0;
}

/* announce.c: receiver */
void announce_post(struct msg_op *op);
void announce_unnamed(struct msg_pair *pair, uint64_t seq, uint64_t tag); /* a message came that names no receive */
void announce_gone(struct msg_op *op);
void announce_cancel(struct msg_op *op);
struct msg_op *announce_named(struct msg_pair *pair, uint32_t recv_id);
void announce_tx(struct msg_mix *x);
static inline bool announce_tx_want(const struct msg_pair *pair)
{
	return pair->ann_due || (pair->announce_check && !list_empty(&pair->announce));
}
void announce_acked(struct msg_pair *pair, const struct flow_item *item, bool acked);
int announce_rx_answer(struct msg_pair *pair, const struct wire_revoke *r);
/* offer.c: sender */
bool offer_take(struct msg_op *op);
void offer_unnamed(struct msg_op *op);
int offer_rx_announce(struct msg_pair *pair, const struct wire_announce *r);
int offer_rx_revoke(struct msg_pair *pair, const struct wire_revoke *r);
void offer_tx(struct msg_mix *x);
void offer_answered(struct msg_pair *pair, const struct flow_item *item, bool acked);
static inline uint32_t msg_class(uint64_t tag)
{
	return (uint32_t)(msg_hash(tag, 1) % MSG_CLASSES);
}

/* credit.c */
size_t credit_chunks_bytes(const struct msg_config *config);
void credit_init(struct msg *m, void *memory, void *unmatched);
void credit_close(struct msg_pair *pair);
int credit_take(struct msg_in *in);
int credit_pass(struct msg_pair *pair, uint64_t bytes); /* of a message that needs no memory: taken and given back at once. @return as credit_take */
void credit_return(struct msg_in *in);
void credit_tx(struct msg_mix *x);
void credit_said(struct msg_pair *pair, const struct flow_item *item, bool acked);
int credit_rx(struct msg_pair *pair, const struct wire_credit *r);
bool chunks_get(struct msg_in *in);
void chunks_put(struct msg_in *in);
size_t chunks_segs(struct msg_in *in, uint64_t offset, uint64_t bytes, struct frame_seg *out, size_t max);

/* key.c */
enum { MSG_RKEY_BUCKETS = 1024 };
bool key_wants(const struct msg_pair *pair, const struct msg_op *op); /* worth exposing, and possible? */
bool key_open(struct msg_op *op, uint8_t kind, uint64_t id);      /* on several paths; then what waits for them goes on, in any case */
bool key_pending(const struct msg_op *op);                        /* some are not there yet */
void key_renamed(struct msg_op *op, uint8_t kind, uint64_t id);   /* said again, under another name */
void key_add(struct msg_op *op, uint8_t kind, uint64_t id, unsigned path); /* one more path has come */
void keys_end(struct msg *m, struct msg_op *op);
void keys_close(struct msg_pair *pair);
void key_tx(struct msg_mix *x);
bool key_say(struct msg_mix *x, struct msg_key *key);
void key_said(struct msg *m, const struct flow_item *item, bool acked);
int rkey_rx(struct msg_pair *pair, const struct wire_key *r);
enum key_share { KEY_SHARE_NONE = 0, KEY_SHARE_ANY, KEY_SHARE_OWN };
enum key_share key_share(const struct msg_op *op, unsigned path); /* of the operation's next bytes: for others, anybody's, only this path's */
bool key_run(const struct msg_op *op, uint64_t offset, uint64_t *bytes, struct frame_target *out);
void rkeys_take(struct msg_pair *pair, uint8_t kind, uint64_t id, struct msg_op *op); /* into op->to */
/* what waits for a key goes on: announce.c, in.c, onesided.c */
void announce_key(struct msg_op *op);
void announce_again(struct msg_pair *pair, unsigned path); /* keys for receives announced before this path had its connection */
void in_key(struct msg_op *op);
void read_key(struct msg_op *op);

/* onesided.c */
struct msg_op *read_find(struct msg_pair *pair, uint32_t req_id);
void read_post(struct msg *m, struct msg_op *op);
void read_tx(struct msg_mix *x);
static inline bool read_window(const struct msg_pair *pair)
{
	const struct list *at = list_first(&pair->reads);
	return !at || pair->req_next - list_entry(at, struct msg_op, link)->recv_id < MSG_WINDOW;
}
static inline bool read_tx_want(const struct msg_pair *pair)
{
	return pair->reads_due || (!list_empty(&pair->wait_read) && read_window(pair));
}
void read_lost(struct msg_op *op);
int read_rx(struct msg_pair *pair, const struct wire_read *r);
int read_rx_reply(struct msg_pair *pair, struct msg_in *in);
void write_rx(struct msg_pair *pair, struct msg_in *in, const struct wire_head *h);
void write_end(struct msg_in *in);
void reply_end(struct msg *m, struct msg_op *op);
#endif
