/* Loss-free bulk through the whole engine at both ends: loop, peer, flow, msg, wire over a simulated link, plain. Run by engine.sh, which has
 * callgrind count the instructions inside loop_step and leave out the simulator, copies and clocks by name; prints what those are to be divided by.
 * Usage: engine_count [BYTES [MTU]]. Uses the same hand-made sessions as tests/sim. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "harness.h"

enum { WARMUP_BYTES = 16 << 20 };
#define TURN_NS 5000u /* of virtual time: about a burst of 64 KiB at 100 Gb/s, as often as a loop with that much to do comes round */
#define GIVE_UP_NS 100000000000u

static uint64_t turns;

static bool move(struct harness *h, uint8_t *from, uint8_t *to, uint64_t bytes)
{
	struct msg_op send, recv;
	uint64_t end_ns = h->now_ns + GIVE_UP_NS;
	unsigned ended = 0;

	harness_post(h, HARNESS_B, &recv, MSG_OP_RECV, to, bytes, 7);
	harness_post(h, HARNESS_A, &send, MSG_OP_SEND, from, bytes, 7);
	while (ended < 2 && h->now_ns < end_ns) {
		h->now_ns += TURN_NS;
		sim_net_advance(h->net, h->now_ns);
		for (int end = 0; end < 2; end++) {
			loop_step(h->loop[end], h->now_ns);
			while (msg_done(h->loop[end]->msg))
				ended++;
		}
		turns++;
	}
	return ended == 2 && !send.status && !recv.status;
}

int main(int argc, char **argv)
{
	uint64_t bytes = argc > 1 ? strtoull(argv[1], NULL, 0) : 256ull << 20, rate = 100000000000ull / 8, rtt = 10000000;
	uint32_t mtu = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 0) : 1500;
	struct harness_config config = {.seed = 1, .contract_bytes_per_s = rate, .contract_rtt_ns = rtt, .dedicated = true, .mtu = mtu};
	struct harness h;

	if (bytes < WARMUP_BYTES || mtu < 576 || mtu > 65535) {
		fprintf(stderr, "usage: engine_count [BYTES (16 MiB or more) [MTU (576 to 65535)]]\n");
		return 2;
	}
	config.forward = config.reverse =
	        (struct element_config){.delay_ns = rtt / 2, .rate_bits_per_s = rate * 8, .overhead_bytes = 28, .queue_bytes = 4 << 20};
	uint8_t *from = calloc(1, bytes), *to = calloc(1, bytes);
	if (!from || !to) {
		perror("calloc");
		return 1;
	}
	harness_open(&h, &config);
	if (!move(&h, from, to, WARMUP_BYTES)) {
		fprintf(stderr, "engine_count: the first message did not arrive\n");
		return 1;
	}
	const struct flow_counters *tx = flow_count(&h.peer[HARNESS_A]->path[0]->pp.flow), *rx = flow_count(&h.peer[HARNESS_B]->path[0]->pp.flow);
	struct flow_counters tx_before = *tx, rx_before = *rx;
	turns = 0;
	if (!move(&h, from, to, bytes)) {
		fprintf(stderr, "engine_count: the message did not arrive\n");
		return 1;
	}
	if (tx->lost_frames != tx_before.lost_frames) {
		fprintf(stderr, "engine_count: %llu frames were lost on a link without loss\n",
		        (unsigned long long)(tx->lost_frames - tx_before.lost_frames));
		return 1;
	}
	printf("FRAMES %llu\n", (unsigned long long)(tx->tx_frames - tx_before.tx_frames));
	printf("# %llu bytes, mtu %u, %llu frames back, %llu turns of each loop\n", (unsigned long long)bytes, mtu,
	        (unsigned long long)(rx->tx_frames - rx_before.tx_frames), (unsigned long long)turns);
	harness_close(&h);
	free(from);
	free(to);
	return 0;
}
