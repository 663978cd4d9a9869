/* Bytes, rates and times as people write and read them. Used by every program of apps/; knows nothing of tern. */
#ifndef APPS_UNITS_H
#define APPS_UNITS_H
#include <stddef.h>
#include <stdint.h>

enum { UNITS_TEXT_MAX = 48 };

/** Writes bytes with a decimal unit and three or four digits: "0 B", "999 B", "1.23 GB". @return out */
char *units_bytes(char *out, size_t room, uint64_t bytes);
/** Writes a rate in bits and bytes a second: "985 Mb/s (123 MB/s)". @return out */
char *units_rate(char *out, size_t room, uint64_t bytes_per_s);
/** Writes a duration: "340 us", "12.5 ms", "3.25 s", "2m 05s", "1h 02m", "3d 04h". @return out */
char *units_time(char *out, size_t room, uint64_t ns);

/**
 * Reads a number with a unit, the space between them optional. Numbers may have a fraction; a bare number is in base units.
 * bytes: B, k, kB, KiB, M ... TiB. rate: b/s, bit/s, kb/s ... Tb/s (bits) and B/s, kB/s, MiB/s (bytes). time: ns, us, ms, s, min, h.
 * @return 0, or -1 when it is not a number, has an unknown unit, is negative or too large
 */
int units_parse_bytes(const char *text, uint64_t *bytes);
int units_parse_rate(const char *text, uint64_t *bytes_per_s);
int units_parse_time(const char *text, uint64_t *ns);

/** Replaces control characters by '?': names and texts of a peer must not steer the terminal. @return text */
char *units_printable(char *text);

#endif
