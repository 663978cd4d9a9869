/* An operation: filled by api/, owned by msg/ from msg_post until it comes out of msg_done. One pool of them a context; nothing
 * else is allocated for an operation. */
#ifndef MSG_OP_H
#define MSG_OP_H
#include <stdbool.h>
#include <stdint.h>
#include "base/frame.h"
#include "base/layout.h"
#include "base/list.h"
#include "base/rangeset.h"

struct msg_pair;
struct msg_ep;
struct msg_in;
struct msg_key;

enum msg_op_type { MSG_OP_SEND = 1, MSG_OP_RECV, MSG_OP_WRITE, MSG_OP_READ, MSG_OP_REPLY /* msg's own: answers a peer's READ */ };

enum { MSG_TARGETS = 4 /* paths that one message can be placed over */ };

struct msg_op {
	struct list link;      /* the queue it is in: msg's while posted, then the done list */
	/* filled by api before msg_post, constant afterwards */
	uint8_t type;          /* enum msg_op_type */
	uint8_t dtype, dims;   /* of a tensor; dtype TERN_RAW and dims 0: untyped */
	bool is_mapped;        /* the loop's: the regions in `layout` are in use by it */
	uint32_t flags;        /* enum tern_op_flags */
	uint64_t id;           /* tern_op */
	uint64_t peer;         /* tern_peer; after a receive matched: the sender's */
	void *user;
	struct msg_ep *ep;
	struct msg_pair *pair; /* NULL: any peer, until matched */
	uint64_t tag, ignore, imm;
	uint64_t key, remote_offset; /* write, read */
	uint64_t shape[TERN_DIMS_MAX];
	struct layout layout;
	/* the end */
	int32_t status;
	uint32_t held;         /* frames in links whose segments point into the operation's memory: it does not end before 0 (loop counts) */
	uint64_t bytes;        /* event's */
	/* msg's state */
	uint32_t seq, recv_id, gen, state;
	uint64_t sent_bytes;   /* first byte never sent */
	uint64_t done_bytes;   /* acknowledged (sending), placed (receiving) */
	struct rangeset ranges; /* sending: lost, to be sent again. Receiving: placed beyond the contiguous front */
	uint64_t total_bytes;  /* of the message as it travels */
	struct list hash;      /* second queue: a send by its tag or number, a receive that waits to be announced */
	struct msg_in *in;     /* receive, read: the message that fills it */
	uint64_t order;        /* receive: when it was posted */
	uint64_t head_bytes;   /* sending: bytes sent since the last HEAD */
	uint32_t slot, hold;
	uint16_t heads;        /* sending: how often its HEAD was said, */
	uint16_t head_paths;   /* and on which paths */
	uint32_t turn_bytes;   /* sending: of the present turn */
	/* direct placement */
	struct msg_key *exposed; /* receive, read: its memory is exposed, or about to be; the first of several */
	struct frame_target to[MSG_TARGETS]; /* sending: where byte 0 goes by a link alone, for each path that has a key; lane 0: nowhere */
	uint64_t to_bytes;     /* so many from there on may */
	uint64_t flying_bytes; /* the link reads its memory until it reports them */
};
#endif
