/* Moves many messages with many operations in flight: the inner loop of tern-bw, the same on both sides. One side may send, receive, write, read or
 * be written to, or both ways at once. Knows no command line and no table. Uses include/tern only. */
#ifndef PERF_STREAM_H
#define PERF_STREAM_H
#include <stdbool.h>
#include <stdint.h>
#include "node.h"

enum stream_mode { STREAM_SEND = 0, STREAM_WRITE, STREAM_READ, STREAM_MODES };
enum { STREAM_DEPTH_MAX = 1024, STREAM_HANDLE_MAX = TERN_HANDLE_MAX };

struct stream_plan {
	enum stream_mode mode;
	bool active;   /* this side starts operations */
	bool receives; /* STREAM_SEND: this side receives */
	bool verify;
	uint64_t bytes;      /* of a message */
	uint32_t depth;      /* operations in flight */
	uint64_t iterations; /* 0: for duration_ns */
	uint64_t duration_ns;
};

struct stream_slot {
	uint64_t wrote;  /* source of what was last written there */
	uint64_t source; /* of the operation in flight */
	tern_op op;
	bool posted;
};

/* What a run came to. */
struct stream_result {
	uint64_t out, in; /* messages that ended well: started here; received here */
	uint64_t elapsed_ns;
	uint64_t peak_bytes, peak_ns; /* the best interval of at least 10 ms and PEAK_DEPTHS times what is in flight, both directions */
	uint64_t bad;                 /* verified and found to differ */
};

struct stream {
	struct node *node;
	struct stream_plan plan;
	uint8_t *source, *target; /* `sources` and plan.depth messages, `stride` apart */
	tern_mem *source_mem, *target_mem;
	uint64_t stride_bytes, sources;
	uint64_t *source_hash;
	tern_rmem *remote;
	uint64_t *remote_hash; /* of the peer's sources: reads are held against them */
	uint64_t remote_sources;
	struct stream_slot slot[STREAM_DEPTH_MAX];    /* of operations started here */
	struct stream_slot receive[STREAM_DEPTH_MAX]; /* of receives posted here */
	uint32_t free[STREAM_DEPTH_MAX], frees;
	uint64_t posted, total; /* total: UINT64_MAX until known */
	uint64_t in_posted, in_ended, in_total;
	uint64_t start_ns, until_ns, tick_ns, interval_ns, interval_bytes;
	bool cancelled;
	struct stream_result result;
};

/** Takes memory and fills the sources. @param seed  differs between the two sides. @return NODE_OK or NODE_FAILED; stream_close either way */
int stream_open(struct stream *s, struct node *node, const struct stream_plan *plan, uint64_t seed);
void stream_close(struct stream *s);
/** Exports what the peer's operations need; gives the handle. */
int stream_export(struct stream *s, void *handle, size_t *bytes);
/** Takes the peer's handle in. */
int stream_import(struct stream *s, const void *handle, size_t bytes);
/** Posts the first receives, so that they are announced before the peer begins. */
int stream_announce(struct stream *s);
/** Runs until everything in the plan has ended. s->result is valid whatever is returned. */
int stream_run(struct stream *s);
/** Hashes what is in a slot of the target now. */
uint64_t stream_target_hash(const struct stream *s, uint32_t slot);

#endif
