/* Numbers with units, as people write them in contracts. Called by contract.c; the locale does not matter. */
#ifndef CONTROL_UNITS_H
#define CONTROL_UNITS_H
#include <stdbool.h>
#include <stdint.h>

/* Each takes the whole text. @return false: not of that form, or too large to hold */
bool units_rate(const char *text, uint64_t *bytes_per_s); /* 10Gbit, 2.5Gbit/s, 100Mb/s, 400Gbps, 1.25GB/s: bits are small, bytes are capital */
bool units_time(const char *text, uint64_t *ns);          /* 30ms, 1.5us, 10s, 250ns */
bool units_bytes(const char *text, uint64_t *bytes);      /* 65536, 64KiB, 1.5MB, 2GiB */
bool units_ratio(const char *text, double *ratio);        /* 0.5, 1e-4, 0.01% */
bool units_whole(const char *text, uint64_t max, uint64_t *out);
bool units_date(const char *text, int64_t *unix_s); /* 2026-11-20, 2026-11-20T12:30Z, 2026-11-20T12:30:00Z: UTC */

#endif
