/* Progress of a transfer for a person: one line redrawn on a terminal, a plain line each few seconds elsewhere. Time comes in as an argument; the
 * caller draws from one thread. Knows nothing of tern. */
#ifndef APPS_PROGRESS_H
#define APPS_PROGRESS_H
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { PROGRESS_LINE_MAX = 512, PROGRESS_SAMPLES = 16 };

struct progress {
	FILE *out;
	bool terminal, drawn;
	uint64_t total_bytes;        /* 0: not known, then no percentage */
	uint64_t limit_bytes_per_s;  /* of the contract; 0: none */
	uint64_t start_ns, last_ns;
	uint64_t plain_ns;           /* time between plain lines */
	struct { uint64_t ns, bytes; } sample[PROGRESS_SAMPLES]; /* a ring: the rate is that of the last few seconds */
	unsigned samples;
};

/** @param out  where it draws; a bar if that is a terminal */
void progress_open(struct progress *p, FILE *out, uint64_t total_bytes, uint64_t now_ns);
/**
 * Draws if it is time to (ten times a second on a terminal).
 * @param name   what is being moved, such as the file's name or "verifying"; cut from the left to fit
 * @param bytes  done so far
 */
void progress_step(struct progress *p, const char *name, uint64_t bytes, uint64_t now_ns);
/** The rate of the last few seconds, 0 before there is one. */
uint64_t progress_rate(const struct progress *p);
/** Removes the bar, so that other text can follow. */
void progress_clear(struct progress *p);

/** The text of one line, at most `width` columns; what progress_step draws. @return out */
char *progress_line(const struct progress *p, const char *name, uint64_t bytes, unsigned width, char out[PROGRESS_LINE_MAX]);

#endif
