/* Finds the rate of a path that has no contract: doubling until delivery stops following, then the highest delivery rate of the last rounds with a small cycle around
 * it (the model of BBR, draft-cardwell-iccrg-bbr-congestion-control-02), and a bound on flight that only loss above a floor lowers. Used by lightpath. Pure. */
#ifndef CC_EXPLORE_H
#define CC_EXPLORE_H
#include <stdbool.h>
#include "tern/cc.h"

enum { EXPLORE_ROUNDS = 10 };

enum explore_phase { EXPLORE_START, EXPLORE_DRAIN, EXPLORE_CRUISE };

struct explore {
	uint64_t rate[EXPLORE_ROUNDS]; /* highest delivery rate of each of the last rounds, a ring */
	uint64_t best;                 /* highest of them */
	uint64_t window_bytes;         /* START: doubles each round */
	uint64_t flight_cap;           /* what loss allows */
	uint64_t round_end_bytes, round_lost, round_delivered;
	uint64_t full_rate;            /* START: the rate that growth is measured from */
	uint32_t rounds, stalled, phase, cycle;
	uint32_t frame_bytes;
	bool round_sampled;            /* a delivery rate was measured in it */
};

void explore_init(struct explore *x, const struct tern_cc_init *ev, struct tern_cc_out *out);
void explore_on_ack(struct explore *x, const struct tern_cc_ack *ev, struct tern_cc_out *out);
void explore_on_loss(struct explore *x, const struct tern_cc_loss *ev);
#endif
