/* Instructions that the flow costs a data frame, both ends, loss-free bulk: bursts of 44 frames, an acknowledgement for 16 frames, as counted by callgrind:
 *   valgrind --tool=callgrind --toggle-collect=pass build/perf/micro_flow_count
 * prints "Collected : N"; N / FRAMES is the number. Two more toggles tell the ends apart: --toggle-collect=send_burst, --toggle-collect=receive_burst.
 * Without valgrind it prints ns a frame. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "cc/cc.h"
#include "flow/state.h"

enum { FRAMES = 440000, BURST = 44, ACK_EACH = 16, WIRE = 1460, STRIDE = 1400 };

static struct flow tx, rx;
static uint64_t now = 1000000, offset, acked, reports;

__attribute__((noinline)) uint64_t send_burst(void)
{
	struct flow_run run = {
		.item = {1, offset, BURST * STRIDE, 1}, .frames = BURST, .stride_bytes = STRIDE, .wire_bytes = BURST * WIRE, .ack_eliciting = true,
	};
	uint64_t when;

	if (!flow_tx_room(&tx, now, &when))
		return UINT64_MAX;
	offset += BURST * STRIDE;
	return flow_tx_commit(&tx, &run, now);
}

__attribute__((noinline)) static void take_ack(const struct wire_ack *ack)
{
	struct flow_report out[16];
	long n = flow_on_ack(&tx, ack, now, out, 16);

	for (long i = 0; i < n; i++)
		acked += out[i].item.bytes;
	reports += (uint64_t)n;
}

__attribute__((noinline)) void receive_burst(uint64_t first)
{
	struct flow_arrival a = {.wire_bytes = WIRE, .ack_eliciting = true};
	struct wire_ack ack;

	for (uint64_t number = first; number < first + BURST; number++) {
		if (flow_rx_check(&rx, number))
			abort();
		a.number = number;
		flow_rx_commit(&rx, &a, now);
		if (number % ACK_EACH == ACK_EACH - 1) {
			flow_ack_build(&rx, now, &ack);
			take_ack(&ack);
		}
	}
}

__attribute__((noinline)) void pass(void)
{
	for (uint32_t sent = 0; sent < FRAMES; sent += BURST) {
		uint64_t first = send_burst();

		while (first == UINT64_MAX) {
			now += 1000;
			first = send_burst();
		}
		receive_burst(first);
		now += 10000;
	}
}

int main(int argc, char **argv)
{
	size_t bytes = flow_shared_bytes(4096, 4096);
	void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
	const struct tern_cc *cc = cc_find(argc > 1 ? argv[1] : "lightpath");
	struct flow_config config = {
		.cc = cc, .shared = flow_shared_init(memory, 4096, 4096), .now_ns = now, .peer_ack_delay_ns = 500000,
		.cc_init = {.contract_bytes_per_s = 12500000000, .contract_rtt_ns = 100000, .frame_bytes = WIRE, .buffer_bytes = UINT64_MAX,
			.dedicated = 1},
	};
	struct timespec from, to;

	if (!cc || flow_init(&tx, &config) || flow_init(&rx, &config))
		return 2;
	clock_gettime(CLOCK_MONOTONIC, &from);
	pass();
	clock_gettime(CLOCK_MONOTONIC, &to);
	printf("%d frames, %.1f ns a frame, %llu reports, %llu bytes acknowledged\n", FRAMES,
	       (double)((to.tv_sec - from.tv_sec) * 1000000000 + to.tv_nsec - from.tv_nsec) / FRAMES, (unsigned long long)reports,
		(unsigned long long)acked);
	free(memory);
	return acked ? 0 : 1;
}
