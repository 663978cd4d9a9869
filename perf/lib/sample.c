/* See sample.h. */
#include "sample.h"
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

int samples_open(struct samples *s, uint64_t expect)
{
	s->room = expect && expect < SAMPLES_MAX ? (size_t)expect : SAMPLES_MAX;
	if (s->room < SAMPLES_MIN)
		s->room = SAMPLES_MIN;
	s->ns = malloc(s->room * sizeof(*s->ns));
	if (!s->ns)
		return -1;
	memset(s->ns, 0, s->room * sizeof(*s->ns)); /* page faults now, not between two pings */
	samples_reset(s);
	return 0;
}

void samples_close(struct samples *s)
{
	free(s->ns);
	s->ns = NULL;
}

void samples_reset(struct samples *s)
{
	s->n = 0;
	s->seen = 0;
	s->stride = 1;
	s->min_ns = UINT64_MAX;
	s->max_ns = 0;
}

void samples_thin(struct samples *s)
{
	for (size_t i = 0; i < s->n / 2; i++)
		s->ns[i] = s->ns[2 * i];
	s->n /= 2;
	s->stride *= 2;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Nearest rank: the smallest sample that at least p of all are not above. */
static double quantile_us(const struct samples *s, double p)
{
	size_t rank = (size_t)ceil(p * (double)s->n);

	return (double)s->ns[rank ? rank - 1 : 0] / 1000;
}

void samples_summarize(struct samples *s, struct sample_summary *out)
{
	double sum = 0, squares = 0;

	memset(out, 0, sizeof(*out));
	if (!s->n)
		return;
	qsort(s->ns, s->n, sizeof(*s->ns), compare);
	for (size_t i = 0; i < s->n; i++)
		sum += (double)s->ns[i] / 1000;
	out->n = s->seen;
	out->avg_us = sum / (double)s->n;
	for (size_t i = 0; i < s->n; i++) {
		double d = (double)s->ns[i] / 1000 - out->avg_us;
		squares += d * d;
	}
	out->stdev_us = s->n > 1 ? sqrt(squares / (double)(s->n - 1)) : 0;
	out->min_us = (double)s->min_ns / 1000;
	out->max_us = (double)s->max_ns / 1000;
	out->typical_us = quantile_us(s, 0.5);
	out->p99_us = quantile_us(s, 0.99);
	out->p999_us = quantile_us(s, 0.999);
}

void samples_print(const struct samples *s, FILE *to)
{
	fprintf(to, "#, usec\n");
	for (size_t i = 0; i < s->n; i++)
		fprintf(to, "%zu, %.3f\n", i * (size_t)s->stride + 1, (double)s->ns[i] / 1000);
}

enum { BUCKETS = 4 * 64, BAR = 50 };

static unsigned bucket_of(uint64_t ns)
{
	if (ns < 4)
		return (unsigned)ns;
	unsigned octave = 63 - (unsigned)__builtin_clzll(ns);
	return 4 * octave + (unsigned)(ns >> (octave - 2) & 3);
}

static double bucket_from_us(unsigned b)
{
	return b < 4 ? b / 1e3 : ldexp(4 + (b & 3), (int)(b / 4) - 2) / 1e3;
}

void samples_histogram(const struct samples *s, FILE *to)
{
	uint64_t count[BUCKETS + 1] = {0}, most = 0, below = 0;

	for (size_t i = 0; i < s->n; i++) {
		uint64_t n = ++count[bucket_of(s->ns[i])];
		most = n > most ? n : most;
	}
	fprintf(to, "#   from[usec]     to[usec]        count  share[%%]\n");
	for (unsigned b = 0; b < BUCKETS; b++) {
		if (!count[b])
			continue;
		/* buckets 4 to 7 have no members: 4 ns begins octave 2 */
		double next = b == 3 ? 0.004 : bucket_from_us(b + 1);
		below += count[b];
		fprintf(to, " %12.3f %12.3f %12" PRIu64 " %9.4f  %.*s\n", bucket_from_us(b), next, count[b], 100.0 * (double)below / (double)s->n,
		        (int)((count[b] * BAR + most - 1) / most), "##################################################");
	}
}
