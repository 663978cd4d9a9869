/* The pieces of a transfer. A piece is one message: a run of a file, some rows of a tensor, or many small files one behind the other. Both ends
 * derive the same pieces in the same order from the manifest, so the receiver can post every receive ahead and pieces carry no header. Pure. */
#ifndef COPY_PLAN_H
#define COPY_PLAN_H
#include "manifest.h"

enum {
	PLAN_CHUNK_MIN = 1 << 20,
	PLAN_CHUNK_MAX = 16 << 20,
	PLAN_SMALL_BYTES = 256 << 10, /* files up to this size travel together */
	PLAN_SMALL_FILES = 256,       /* at most so many of them */
	PLAN_TINY_BYTES = 16 << 10,   /* tensors smaller than this travel together, untyped */
	PLAN_RAMP = 32,               /* the first pieces grow in so many steps */
	PLAN_ALIGN = 4096,            /* where a file of bytes may be gone on with */
};

struct piece {
	uint64_t number;  /* counts from 0 */
	uint64_t bytes;
	size_t file;      /* first entry */
	size_t files_end; /* small files: one past the last entry; otherwise file + 1 */
	bool small;       /* whole small files, one behind the other */
	uint64_t offset;  /* in the file, if not small */
	uint32_t dtype, dims; /* TERN_RAW, 0: bytes */
	uint64_t shape[TERN_DIMS_MAX];
};

struct plan {
	const struct manifest *m;
	uint64_t chunk_bytes;
	uint64_t number;
	size_t file;
	uint64_t offset;
	size_t tensor; /* the one that holds offset, or an earlier one */
};

/** Begins behind what the receiver has: entries' present and have_bytes. */
void plan_init(struct plan *p, const struct manifest *m, uint64_t chunk_bytes);
/** The next piece. @return false: that was all */
bool plan_next(struct plan *p, struct piece *out);
/** An entry whose bytes travel (also when it has 0 of them). */
bool plan_sends(const struct manifest_entry *e);
/** One of those that travel together. */
bool plan_is_small(const struct manifest_entry *e);
/** The largest offset <= `bytes` at which a transfer of the file may begin. */
uint64_t plan_floor(const struct manifest_entry *e, uint64_t chunk_bytes, uint64_t bytes);

#endif
