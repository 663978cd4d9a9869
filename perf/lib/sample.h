/* Times of single events: kept, sorted, summed up as perftest does. Called by tern-lat. Memory is taken once, at the start; a run longer than that
 * keeps every second, then every fourth sample and so on (the extremes stay exact). Knows nothing of Tern. */
#ifndef PERF_SAMPLE_H
#define PERF_SAMPLE_H
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { SAMPLES_MAX = 1 << 22, SAMPLES_MIN = 1024 };

struct samples {
	uint64_t *ns; /* in the order they came, until samples_summarize sorts them */
	size_t n, room;
	uint64_t seen, stride; /* of how many events; one in `stride` is kept */
	uint64_t min_ns, max_ns;
};

struct sample_summary {
	uint64_t n;
	double min_us, max_us, typical_us, avg_us, stdev_us, p99_us, p999_us; /* typical: the median */
};

/** @param expect  events that will come; 0: not known. @return 0, or -1: no memory */
int samples_open(struct samples *s, uint64_t expect);
void samples_close(struct samples *s);
void samples_reset(struct samples *s);
/** Halves what is kept when the room is used up: one pass in 2 million events, outside the times measured. */
void samples_thin(struct samples *s);

static inline void samples_add(struct samples *s, uint64_t ns)
{
	if (ns < s->min_ns)
		s->min_ns = ns;
	if (ns > s->max_ns)
		s->max_ns = ns;
	if (s->seen++ % s->stride)
		return;
	if (s->n == s->room)
		samples_thin(s);
	s->ns[s->n++] = ns;
}

/** Sorts, then sums up. All zero without a sample. */
void samples_summarize(struct samples *s, struct sample_summary *out);
/** One line a sample, in the present order: "number, usec". */
void samples_print(const struct samples *s, FILE *to);
/** Buckets of a quarter octave: from, to, count, share so far, a bar. After samples_summarize. */
void samples_histogram(const struct samples *s, FILE *to);

#endif
