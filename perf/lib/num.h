/* Numbers as people write them on a command line and read them in a table. Called by the options of every perf program; knows nothing of Tern. */
#ifndef PERF_NUM_H
#define PERF_NUM_H
#include <stddef.h>
#include <stdint.h>

/** "64", "64K", "8M", "1G" (powers of 1024; "KiB" and "KB" mean the same). @return 0, or -1 when it is no size */
int num_bytes(const char *text, uint64_t *bytes);
/** A whole number from least to most, decimal. @return 0, or -1 */
int num_count(const char *text, uint64_t least, uint64_t most, uint64_t *count);
/** "10", "0.5", "200ms", "2s", "1m". @return 0, or -1 when it is no time above 0 */
int num_time(const char *text, uint64_t *ns);
/** Writes bytes as lower-case hex. @param text  2 * bytes + 1 characters */
void num_to_hex(const void *data, size_t bytes, char *text);
/** Reads what num_to_hex wrote. @param bytes  room before, length after. @return 0, or -1 */
int num_from_hex(const char *text, void *data, size_t *bytes);

#endif
