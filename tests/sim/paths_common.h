/* What the scenarios with several paths share: the wires and the contract of each path, outages, one message and its time, counting of failures. Used by paths.c and
 * paths_hard.c. */
#ifndef TESTS_PATHS_COMMON_H
#define TESTS_PATHS_COMMON_H
#include "harness.h"

enum { PATHS_BYTES = 256 << 20, PATHS_MTU = 9000 };
#define MS 1000000ull
#define GBIT 125000000ull

extern uint8_t *from, *to; /* PATHS_BYTES each; what `from` holds follows from the seed */

/** Reads TERN_SEED and says it, fills `from`. */
void paths_begin(void);
uint64_t paths_seed(void);
/** @return the exit status: 1 if anything was not as expected */
int paths_end(void);
void expect(bool ok, const char *what);

bool both_done(const struct harness *h);
bool never(const struct harness *h);

/** Paths of 1 Gb/s each over wires of their own, a contract for each. */
void base(struct harness_config *c, unsigned paths, const uint64_t *rtt_ms, double loss);
/** Both directions of a path are dark. */
void outage(struct harness_config *c, unsigned path, uint64_t start_ns, uint64_t length_ns);
/** Sent by A over that path. */
uint64_t tx_bytes(const struct harness *h, unsigned path);
/** One message from A to B, announced 120 ms ahead. @return ms from post to the last end; 0: it did not end well */
double send_one(struct harness *h, uint64_t bytes);
/** The time of so many bytes at the sum of the paths' rates. */
double ideal_ms(const struct harness_config *c, uint64_t bytes, unsigned paths);
#endif
