/* Two nodes over a simulated long link, driven by the real loop under a virtual clock. Sessions are made by hand: everything below control/ runs as in the field.
 * Used by tests/sim and perf/micro. */
#ifndef TESTS_HARNESS_H
#define TESTS_HARNESS_H
#include "link/sim/sim.h"
#include "loop/loop.h"

enum { HARNESS_A = 0, HARNESS_B = 1, HARNESS_PATHS_MAX = 8 };

struct harness_config {
	struct element_config forward, reverse; /* A to B, B to A */
	uint64_t seed;
	uint64_t contract_bytes_per_s; /* both directions; 0: no contract */
	uint64_t contract_rtt_ns;
	uint64_t protection_ns;
	uint64_t buffer_bytes; /* of the contract; 0: not said */
	bool dedicated, sealed, by_ref;
	uint32_t mtu;
	const char *cc; /* NULL: lightpath */
	uint64_t unmatched_bytes; /* 0: 1 MiB */
	uint64_t patience_ns;     /* after so much silence a peer is gone, and twice as long they may take to find each other; 0: 10 s */
	const char *options; /* of the sim link, more than those that follow from the above; NULL: none */
	unsigned paths;      /* 0: 1. Further ones over wires of their own, as configured here: */
	struct { struct element_config forward, reverse; } more[HARNESS_PATHS_MAX - 1];
};

struct harness {
	struct sim_net *net;
	struct loop *loop[2];
	struct link *link[2];
	struct msg_ep *ep[2];
	struct loop_peer *peer[2];
	uint64_t now_ns;
	uint64_t steps;
	uint64_t ops_done; /* came out of msg_done, both ends */
	void (*done)(struct harness *h, int end, struct msg_op *op); /* may be NULL */
	void (*notice)(struct harness *h, int end, const struct msg_notice *n);
	int gone[2]; /* status of a peer that ended */
	bool up[2];
	bool asleep[2];   /* the process of that end gets no turn; its link goes on */
	uint64_t tick_ns; /* both ends look so often, whether or not anything is due; 0: when something is */
	void (*step)(struct harness *h, int end); /* instead of loop_step, which it calls; NULL: that */
	void *arg;
};

/** Opens both ends and runs until both peers are up. Asserts on anything that goes wrong: the tests have nothing to say before that. */
void harness_open(struct harness *h, const struct harness_config *config);
void harness_close(struct harness *h);
/** Runs until stop(h) or end_ns of virtual time. @return true: stop said so */
bool harness_run(struct harness *h, bool (*stop)(const struct harness *h), uint64_t end_ns);
/** Fills an operation over contiguous memory and posts it. */
void harness_post(struct harness *h, int end, struct msg_op *op, uint8_t type, void *memory, uint64_t bytes, uint64_t tag);
/** Payload bytes/s of the pinned limit: 0.985 of the contract less headers, for this configuration's frames. */
double harness_pinned_limit(const struct harness_config *config);
#endif
