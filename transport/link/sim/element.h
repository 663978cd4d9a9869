/* What one direction of a long link does to datagrams: a queue with tail drop and CE marks, a serialiser of exact rate, losses, outages, a delay with steps,
 * reordering, duplicates. Called by sim (virtual clock) and emu (real time), one chain a direction; knows nothing of frames, buffers or links.
 *
 * A datagram meets, in this order: queue -> serialiser -> outage and loss (a lost one has used its time on the line) -> delay -> reordering, duplication. */
#ifndef SIM_ELEMENT_H
#define SIM_ELEMENT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/rng.h"

enum {
	ELEMENT_STEPS_MAX = 16,
	ELEMENT_OVERHEAD_MAX = 1024,
	ELEMENT_FRAME_MAX = 1 << 24, /* bytes of a datagram, overhead included */
};

#define ELEMENT_DELAY_MAX_NS (10u * 1000000000ull)
#define ELEMENT_TIME_MAX_NS (30ull * 86400 * 1000000000ull) /* of outages and steps */
#define ELEMENT_RATE_MIN 1000ull
#define ELEMENT_RATE_MAX 10000000000000ull
#define ELEMENT_QUEUE_MAX_BYTES (1ull << 36)

/* A time when nothing gets through: datagrams that would enter the fibre in [start, start + length) are lost. Times count from element_init's origin. */
struct element_outage {
	uint64_t start_ns, length_ns;
};

/* From at_ns on (counted from the origin) the delay, or the rate, is value. */
struct element_step {
	uint64_t at_ns, value;
};

/* All zero: a perfect wire. Probabilities are plain numbers in 0..1; they become 64-bit thresholds once, at init. */
struct element_config {
	uint64_t delay_ns;         /* one way */
	uint64_t rate_bits_per_s;  /* 0: infinite, then there is no queue either */
	uint32_t overhead_bytes;   /* added to each datagram where rate and queue count: 28 for IP and UDP, 66 with Ethernet, preamble and gap */
	uint64_t queue_bytes;      /* tail drop above; counts unsent bytes, those of the datagram on the line included; 0: no bound */
	uint64_t ce_bytes;         /* mark CE when more than this is unsent before the datagram; 0: never */
	double loss;               /* independent losses */
	double p_good_to_bad;      /* Gilbert-Elliott: chance a datagram of entering a burst, ... */
	double p_bad_to_good;      /* ... of leaving it (mean burst 1 / p_bad_to_good datagrams) */
	double loss_good, loss_bad;
	double reorder;            /* this part of the datagrams comes reorder_extra_ns later */
	uint64_t reorder_extra_ns;
	double duplicate;
	struct element_outage outage[ELEMENT_STEPS_MAX];
	struct element_step step[ELEMENT_STEPS_MAX];      /* of delay_ns */
	struct element_step rate_step[ELEMENT_STEPS_MAX]; /* of rate_bits_per_s */
	uint32_t outages, steps, rate_steps;
	uint64_t seed;             /* 0: the caller's */
};

enum element_drop {
	ELEMENT_PASSED,
	ELEMENT_DROP_QUEUE,  /* tail drop */
	ELEMENT_DROP_LOSS,   /* independent */
	ELEMENT_DROP_BURST,  /* Gilbert-Elliott */
	ELEMENT_DROP_OUTAGE,
	ELEMENT_DROPS
};

struct element_verdict {
	uint64_t at_ns[2];  /* when it arrives, and its duplicate */
	uint64_t depart_ns; /* when its last bit entered the fibre */
	uint8_t copies;     /* 0: dropped, 1, 2 */
	uint8_t drop;       /* enum element_drop */
	uint8_t ce;
	uint8_t late;       /* at_ns[0] was put back by reordering */
	uint8_t reliable;   /* element_push_reliable's: no tail drop */
};

/* Bytes are datagram bytes; queue bytes include the overhead. */
struct element_counters {
	uint64_t frames, bytes;         /* offered */
	uint64_t passed_frames, passed_bytes; /* without duplicates */
	uint64_t drops[ELEMENT_DROPS];  /* by enum element_drop; [0] is unused */
	uint64_t ce_marks, duplicates, reordered;
	uint64_t queue_peak_bytes;
};

struct element {
	struct element_config config; /* steps and outages sorted, times absolute */
	struct rng rng;
	/* The line is busy until free_ns + free_rem / rate: a rate is exact over any number of frames. */
	uint64_t free_ns, free_rem;
	uint64_t rate, delay_ns;
	uint64_t queue_ns, queue_rem; /* queue_bytes as time on the line, exact in the same way */
	uint64_t ce_ns;
	uint64_t peak_ns, peak_rem;   /* largest queue since the rate last changed */
	uint64_t next_rate_ns, next_delay_ns;
	uint32_t rate_at, delay_at, outage_at; /* next of each list */
	uint32_t pieces;                       /* rates used so far: the queue may hold datagrams sent at several */
	struct element_step piece[ELEMENT_STEPS_MAX + 1];
	uint64_t loss, good_to_bad, bad_to_good, loss_good, loss_bad, reorder, duplicate; /* thresholds */
	bool bad;
	struct element_counters counters;
};

/** Says whether a configuration makes sense. @return 0, -TERN_EINVAL with words in error (may be NULL) */
int element_config_check(const struct element_config *config, char *error, size_t error_bytes);

/** @param seed      of this direction, mixed with config->seed
 *  @param origin_ns the now from which outages and steps count
 *  @return 0, -TERN_EINVAL (see element_config_check) */
int element_init(struct element *element, const struct element_config *config, uint64_t seed, uint64_t origin_ns);

/** One datagram at the entrance. now_ns must not go back; bytes + overhead at most ELEMENT_FRAME_MAX. Costs about 10 ns. */
void element_push(struct element *element, uint64_t now_ns, uint32_t bytes, struct element_verdict *verdict);

/** One datagram, or several in a row, of a connection that sends again by itself: takes its time on the line and never gets lost, late or doubled. A full queue
 *  holds it back, an outage delays it to its end. */
void element_push_reliable(struct element *element, uint64_t now_ns, uint32_t bytes, struct element_verdict *verdict);

/** How often one of so many packets is lost until each has got through (config.loss alone), for connections that send again by themselves. Counted as drops. */
uint32_t element_losses(struct element *element, uint32_t packets);

/** The delay of the fibre for what enters it at now_ns. */
uint64_t element_delay_ns(const struct element *element, uint64_t now_ns);

/** Unsent bytes at now_ns, not before the last push. */
uint64_t element_queue_bytes(const struct element *element, uint64_t now_ns);

void element_counters(const struct element *element, struct element_counters *out);

/** "queue", "loss", "burst", "outage" */
const char *element_drop_name(enum element_drop drop);

#endif
