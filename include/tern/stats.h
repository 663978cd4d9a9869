/* Self-describing statistics: names and units come with the values, so that tools need no table of their own. */
#ifndef TERN_STATS_H
#define TERN_STATS_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

enum tern_stat_kind {
	TERN_STAT_COUNTER = 0, /* only grows */
	TERN_STAT_GAUGE = 1,   /* a present value */
};

typedef struct tern_stat {
	const char *name; /* such as "copied_bytes"; static */
	const char *unit; /* "bytes", "frames", "ns", "bytes_per_s", "1"; static */
	uint32_t kind;    /* enum tern_stat_kind */
	uint64_t value;
} tern_stat;

#ifdef __cplusplus
}
#endif
#endif
