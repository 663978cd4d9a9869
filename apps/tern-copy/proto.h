/* What the two ends of tern-copy say to each other, as tern messages. Three classes of tags:
 *
 *   CTRL   small messages of both directions, below
 *   LIST   one message after HELLO (the manifest) and one after ANSWER (what the receiver has)
 *   PIECE  | number: the pieces of the plan, from sender to receiver
 *
 *   sender                                  receiver
 *   HELLO, LIST (manifest)             ->
 *                                      <-   ANSWER, LIST (offsets to resume at); receives of the first pieces are posted
 *   PIECE 0, 1, 2 ...                  ->   written behind; further receives posted as memory comes free
 *   HASHES (of files sent whole)       ->
 *                                      <-   DONE (files verified, synced and renamed)
 *                                      <-   FINAL
 *   ERROR (exit code and words) in either direction ends it.
 */
#ifndef COPY_PROTO_H
#define COPY_PROTO_H
#include "copy.h"
#include "tern/tern.h"

enum {
	PROTO_VERSION = 1,
	PROTO_BYTES_MAX = 4096,  /* of a CTRL message: fits TERN_INJECT */
	PROTO_RECEIVES = 16,
	PROTO_FILES_MAX = 256,   /* in HASHES and DONE */
	PROTO_TEXT_MAX = 1024,
};
#define PROTO_TAG_CTRL (UINT64_C(1) << 56)
#define PROTO_TAG_LIST (UINT64_C(2) << 56)
#define PROTO_TAG_PIECE (UINT64_C(3) << 56)

enum proto_type { PROTO_HELLO = 1, PROTO_ANSWER, PROTO_HASHES, PROTO_DONE, PROTO_FINAL, PROTO_ERROR };
enum proto_hello_flags { PROTO_RESUME = 1 };

struct proto_msg {
	uint32_t type;              /* enum proto_type */
	uint32_t version, flags;    /* HELLO */
	uint64_t list_bytes;        /* HELLO, ANSWER: of the LIST message */
	uint64_t files, bytes;      /* HELLO, FINAL: totals */
	uint64_t limit_bytes_per_s; /* HELLO: contract's limit in payload bytes, 0 without one */
	uint64_t rtt_ns;            /* HELLO: as the sender knows it, 0 if it does not */
	uint64_t chunk_bytes, window_bytes; /* ANSWER */
	uint32_t n;                 /* HASHES, DONE: entries */
	uint32_t file[PROTO_FILES_MAX];
	uint64_t hash[PROTO_FILES_MAX]; /* HASHES: xxh3-64 */
	uint32_t exit;              /* ERROR: enum copy_exit */
	char text[PROTO_TEXT_MAX];  /* ERROR */
};

/** @return bytes written into out[PROTO_BYTES_MAX] */
size_t proto_encode(const struct proto_msg *msg, uint8_t *out);
/** @return 0, -1: not a message of this protocol */
int proto_decode(struct proto_msg *msg, const uint8_t *data, size_t bytes);

/* What an operation was for: its `user` points to one of these. */
enum proto_op_kind { PROTO_OP_CTRL_RECV = 1, PROTO_OP_CTRL_SEND, PROTO_OP_LIST, PROTO_OP_PIECE };
struct proto_op {
	uint32_t kind; /* enum proto_op_kind */
	uint32_t index;
};

/* One end's side of a conversation. */
struct proto_link {
	tern_ctx *ctx;
	tern_ep *ep;
	tern_peer peer;
	struct copy_error *error;
	_Atomic bool gone;      /* the peer closed, died, or was never reached */
	_Atomic bool farewell_done; /* the last message arrived at the other end, or never will */
	_Atomic uint32_t owed;  /* operations whose event has not come yet: they point into this struct and its owner */
	struct proto_op farewell, list;
	struct proto_op recv[PROTO_RECEIVES];
	uint8_t recv_buf[PROTO_RECEIVES][PROTO_BYTES_MAX];
};

/** Posts the receives of CTRL messages. @return 0, -1 with words in link->error */
int proto_open(struct proto_link *link, tern_ctx *ctx, tern_ep *ep, tern_peer peer, struct copy_error *error);
/** Takes a CTRL message out of its buffer and posts the receive again. PROTO_ERROR is turned into link->error. @return 0, -1 with words in link->error */
int proto_take(struct proto_link *link, const struct proto_op *op, size_t bytes, struct proto_msg *msg);
/** Sends a CTRL message; any thread; waits while the library has no room for operations. farewell: link->farewell_done says when it has arrived. */
int proto_send(struct proto_link *link, const struct proto_msg *msg, bool farewell);
/** Posts a send or receive, waiting while the library has no room for operations. @return 0, -1 with words in link->error */
int proto_post(struct proto_link *link, bool send, const tern_buf *buf, const tern_args *args);
/** Posts the LIST message. */
int proto_list(struct proto_link *link, bool send, void *data, size_t bytes);
/** To be called for each event before anything else. @return what the operation was for, NULL: not one of ours */
struct proto_op *proto_event(struct proto_link *link, const tern_event *ev);
/** Tells the peer the error, unless it came from there. */
void proto_tell(struct proto_link *link);
/** A peer's statistic by name, 0 if there is none. */
uint64_t proto_stat(const struct proto_link *link, const char *name);

#endif
