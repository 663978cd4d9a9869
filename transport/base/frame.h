/* Frames: what the pure engine and the links hand each other. The engine fills a tx frame's descriptor; byte links send its segments, links with their own
 * framing (RDMA) read the descriptor instead. Knows nothing of formats, flows or sockets. */
#ifndef BASE_FRAME_H
#define BASE_FRAME_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct link_path;

enum {
	FRAME_SEGS_MAX = 10,  /* header, tag, and up to 8 runs of a strided tensor */
	FRAME_HEAD_MAX = 64,  /* room for the largest header */
	FRAME_TAG_BYTES = 16, /* GCM tag behind a sealed payload */
	FRAME_LINE_BYTES = 64, /* a cache line */
};

struct frame_seg {
	uint8_t *addr;
	uint32_t bytes;
	uint32_t mem; /* number of the region that it lies in, by which links find their key (link_mem_key); 0: in none */
};

/* Memory that a peer's link has exposed, as its frames name it. Opaque to all but links; travels in records. */
struct frame_target {
	uint64_t addr;
	uint32_t key;
	uint8_t lane; /* 1..: the connection that may write there */
	uint8_t connection; /* low byte of the path's connection that it holds for; see link_path */
	uint8_t path;       /* engine's: id of that path */
};

/* A frame to send. The engine's until link tx takes it, the link's until reap gives it back; what its segments point to must not change or go away meanwhile. */
struct frame {
	struct link_path *path; /* where it leaves */
	void *chunk;            /* loop's: the buffer that `room` is part of, or NULL */
	uint8_t *room;          /* contiguous place for header, payload and tag: MIX, packed and sealed frames; NULL: segments are sent from where they are */
	void *owner;            /* the operation whose memory segments point into, or NULL: it is held until reap */
	uint64_t number;        /* flow's number, never reused */
	uint64_t offset;        /* BULK: byte offset in the message */
	uint64_t depart_ns;     /* for links that PACE: not before this; 0: now */
	uint32_t flow_id;       /* the receiver's */
	uint32_t seq;           /* BULK: message number within the channel */
	uint32_t payload_bytes; /* without header and tag */
	uint32_t wire_bytes;    /* sum of all segments: the datagram's length */
	uint16_t channel;
	uint8_t type;           /* enum wire_type */
	uint8_t flags;          /* enum wire_flags */
	uint8_t path_id;
	uint8_t segs;           /* used entries of seg */
	uint8_t burst_end;      /* 1: last of a burst; the next frame starts another GSO batch */
	uint8_t front_bytes;    /* where seg[0] begins with room: so many before it are the link's, for headers of its own */
	uint8_t lane;           /* links with LINK_WRITES: which of the path's connections carries it; 0: the one for everything without a target */
	bool is_write;          /* the payload goes to `target`; there is no header, the peer's link hands out number and length. All segments are payload */
	bool by_link;           /* is_write: over a reliable connection, whose link says by `done` what became of it */
	struct frame_target target;
	struct frame_seg seg[FRAME_SEGS_MAX]; /* in wire order; seg[0] is the header */
	uint8_t head[FRAME_HEAD_MAX];
};

/* A received datagram, lent by the link until rx_free. Contiguous (body_bytes 0: everything is at head), or split by a scattered receive. */
struct rx_frame {
	uint8_t *head;
	uint8_t *body;         /* where a posted receive put the bytes behind the first head_bytes; NULL when contiguous */
	uint32_t head_bytes;
	uint32_t body_bytes;
	uint64_t time_ns;      /* arrival, if the link stamps it in the loop's clock; 0: the step's time */
	struct link_path *path; /* the path whose socket it came through; NULL: the shared socket */
	void *lent;            /* link's own */
	uint32_t from;         /* link's index of the sender's address for link_ops.from; valid until rx_free */
	uint8_t ecn;           /* the two ECN bits: 3 is CE */
	bool is_placed;        /* a frame with a target: its payload lies where it belongs, head and body are NULL */
	uint32_t placed_number; /* low 32 bits of its number */
	uint32_t placed_bytes;
	uint8_t lane;          /* that it came on; within one, reliable connections keep the order of sending */
};

#endif
