/* Memory for datagrams in flight: pieces of about the size asked for, from large chunks, recycled by size, all given back at fini. Called by sim and emu;
 * one thread. Grows with use up to a limit, so a simulated 100 Gb/s x 100 ms takes what is really in flight and an idle one nothing. */
#ifndef SIM_SLAB_H
#define SIM_SLAB_H
#include <stddef.h>
#include <stdint.h>

enum {
	SLAB_SMALL_CLASSES = 32, /* multiples of 64 bytes up to 2 KiB */
	SLAB_LARGE_CLASSES = 65, /* multiples of 1 KiB above, up to 67 KiB */
	SLAB_CLASSES = SLAB_SMALL_CLASSES + SLAB_LARGE_CLASSES,
	SLAB_ITEM_MAX = (SLAB_LARGE_CLASSES + 2) * 1024,
	SLAB_CHUNK_BYTES = 256 * 1024,
};

struct slab_item;
struct slab_chunk;

struct slab {
	struct slab_item *free[SLAB_CLASSES];
	struct slab_chunk *chunks;
	uint8_t *fresh[SLAB_CLASSES], *fresh_end[SLAB_CLASSES]; /* not yet handed out rest of the newest chunk of a class */
	uint64_t limit_bytes, used_bytes;                       /* handed out now */
	uint64_t chunk_bytes;                                   /* of all chunks: every size keeps what it once needed */
	uint64_t items;                                         /* handed out now */
};

/** @param limit_bytes  most handed out at a time; 0: no limit */
void slab_init(struct slab *slab, uint64_t limit_bytes);
void slab_fini(struct slab *slab);
/** @return at least bytes (<= SLAB_ITEM_MAX), 64-byte aligned, or NULL at the limit or without memory */
void *slab_get(struct slab *slab, size_t bytes);
/** @param bytes  as asked for */
void slab_put(struct slab *slab, void *item, size_t bytes);

#endif
