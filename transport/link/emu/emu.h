/* A long link in real time: wraps any link that may lose frames and puts the elements of sim/element.h before its tx. Opened as link "emu" with options
 * "link=udp&emu=FILE" (config.h, docs/tuning.md; emu_direction=reverse takes the file's other direction), or by emu_wrap over an open link.
 * Taken frames are copied and reapable at once; what departs together is handed on together, so that batches (GSO) survive. */
#ifndef EMU_EMU_H
#define EMU_EMU_H
#include "link/link.h"
#include "link/sim/element.h"

enum {
	EMU_BATCH_NS = 50000,    /* departures within this are handed on in one call, after the last of them is due, never before */
	EMU_BATCH_SHARE = 64,    /* but no frame is held longer than this part of the delay */
	EMU_OUT_MAX = 256,       /* frames offered to the inner link in one call */
	EMU_TX_MAX = 1024,       /* taken and not yet reaped */
	EMU_RETRY_NS = 50000,    /* when the inner link has taken nothing */
	EMU_MEMORY_MIN_BYTES = 4 << 20,
};
#define EMU_MEMORY_MAX_BYTES (2ull << 30)
#define EMU_RATE_GUESS_BITS_PER_S 10000000000ull /* sizes the memory when the configuration gives no rate */

struct emu_counters {
	struct element_counters element;
	uint64_t memory_drops; /* more in flight than 2 x rate x delay + queue: no memory for it */
	uint64_t held_frames, held_bytes_max;
	uint64_t inner_calls, inner_frames;
	uint64_t ce_unmarked;  /* would have been marked CE, but a frame has no field that tells a link to */
};

extern const struct link_ops link_emu_ops;

/** Owns inner from success on; on failure inner stays the caller's. Times of the configuration count from now_ns.
 *  @return 0, -TERN_EINVAL (configuration; or inner CONNECTS: losing the frames of a reliable connection would break its promise, or not BYTES: its frames need
 *  memory that it maps), -TERN_ENOMEM */
int emu_wrap(struct link *inner, const struct element_config *config, uint64_t now_ns, struct link **out);
void emu_counters(const struct link *link, struct emu_counters *out);

#endif
