/* A device's clock beside the loop's: which of its ticks is which nanosecond, from readings of both, whatever its rate and however it drifts. The dpdk link reads
 * (offload.c) and converts; nothing here knows a clock. A reading says: the device showed `ticks` at some time between two of ours. */
#ifndef LINK_DPDK_TICKS_H
#define LINK_DPDK_TICKS_H
#include <stdbool.h>
#include <stdint.h>

enum {
	TICKS_READ_NS = 20000,          /* a reading that took longer says too little */
	TICKS_SPAN_NS = 20000000,       /* least time between two that give the rate */
	TICKS_SPAN_MAX_NS = 1000000000, /* and how seldom it is read at last */
	TICKS_HOLD = 4,                 /* no good reading for so many times what the rate was measured over: it is forgotten */
};

/* Caller's memory; zeros: nothing is known yet. */
struct ticks {
	uint64_t ns, ticks;  /* the last good reading */
	uint64_t tick_q32;   /* nanoseconds a tick, times 2^32; 0: not known */
	uint64_t span_ns;    /* that it was measured over */
	uint64_t due_ns;     /* when to read again */
	uint64_t retry_ns;   /* after a reading that said too little; 0: the last one was good */
};

/**
 * Takes a reading in. The rate is that between this one and the last; they grow further apart, so that it is known better and better, and no time is told from
 * much further away than the rate was measured over. A clock that was set, or went back, is measured anew; one that cannot be read well is asked ever more seldom.
 * @param from_ns, to_ns  of the loop's clock, around the reading
 */
void ticks_read(struct ticks *t, uint64_t from_ns, uint64_t ticks, uint64_t to_ns);

static inline bool ticks_known(const struct ticks *t)
{
	return t->tick_q32 != 0;
}

/** What the device shows at ns, before or after the last reading. Only when known. */
uint64_t ticks_at(const struct ticks *t, uint64_t ns);
/** When the device shows `ticks`. Only when known. */
uint64_t ticks_ns(const struct ticks *t, uint64_t ticks);

#endif
