/* One memcpy of a frame, as a receiver that places payload has to do at least once: out of packet buffers, into a tensor. As many buffers as a port's
 * ring has and a tensor of 4 MiB, both used in turn, so that neither stays in the first caches. perf/versus/dpdk.sh adds it to what the bare driver costs.
 * Usage: frame-copy FRAME_BYTES SECONDS [CORE]; prints "FRAME_BYTES ns_a_frame", the best tenth of the time. Knows nothing of Tern. */
#include "udp_common.h"

enum { BUFFERS = 1024, TENSOR_BYTES = 4 << 20, ROOM_BYTES = 128, TENTHS = 10 };

int main(int argc, char **argv)
{
	size_t frame = argc > 2 ? strtoul(argv[1], NULL, 10) : 0;
	double seconds = argc > 2 ? strtod(argv[2], NULL) : 0, best = 0;

	if (!frame || frame > 65536 || seconds <= 0) {
		fprintf(stderr, "usage: %s FRAME_BYTES SECONDS [CORE]\n", argv[0]);
		return 2;
	}
	if (argc > 3)
		udp_pin(atoi(argv[3]));
	size_t stride = (frame + 2 * ROOM_BYTES - 1) & ~(size_t)(ROOM_BYTES - 1), at = 0;
	uint8_t *from = malloc(BUFFERS * stride), *to = malloc(TENSOR_BYTES);
	if (!from || !to)
		udp_die("malloc");
	memset(from, 1, BUFFERS * stride);
	memset(to, 2, TENSOR_BYTES);
	for (int tenth = 0; tenth < TENTHS; tenth++) {
		uint64_t start = udp_now_ns(), now = start, n = 0, limit = (uint64_t)(seconds * 1e9 / TENTHS);
		for (; now - start < limit; now = udp_now_ns())
			for (int i = 0; i < BUFFERS; i++, n++) {
				at = at + frame > TENSOR_BYTES ? 0 : at;
				memcpy(to + at, from + (size_t)i * stride, frame);
				__asm__ volatile("" ::: "memory");
				at += frame;
			}
		double each = (double)(now - start) / (double)n;
		best = !tenth || each < best ? each : best;
	}
	printf("%zu %.1f\n", frame, best);
	free(from);
	free(to);
	return 0;
}
