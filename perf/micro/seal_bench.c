/* Cost of sealing and opening one frame, both libraries, smallest of several rounds so that a busy neighbour does not count. No arguments:
 *   seal_bench
 * prints ns a frame and GB/s for 1400 B, 8 KiB and 64 KiB, contiguous and in 8 segments. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "seal/seal.h"

enum { FRAME_MAX_BYTES = 65536, ROUNDS = 15, ROUND_BYTES = 16 << 20, SEGS = 8 };

static uint8_t text[FRAME_MAX_BYTES], sealed[FRAME_MAX_BYTES + SEAL_TAG_BYTES];

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void cut(struct frame_seg *seg, size_t segs, size_t bytes)
{
	for (size_t i = 0; i < segs; i++)
		seg[i] = (struct frame_seg){text + bytes * i / segs, (uint32_t)(bytes * (i + 1) / segs - bytes * i / segs), 0};
}

/* @return ns a frame; 0: opening failed */
static double bench(struct seal *seal, size_t bytes, size_t segs, int unseal)
{
	uint8_t aad[32] = {1};
	struct frame_seg seg[SEGS];
	uint64_t best = UINT64_MAX, frames = ROUND_BYTES / bytes;

	cut(seg, segs, bytes);
	seal_frame(seal, 1, aad, sizeof(aad), seg, segs, sealed);
	for (int r = 0; r < ROUNDS; r++) {
		uint64_t start = now_ns();
		for (uint64_t i = 0; i < frames; i++) {
			if (!unseal)
				seal_frame(seal, 1, aad, sizeof(aad), seg, segs, sealed);
			else if (seal_unseal(seal, 1, aad, sizeof(aad), sealed, bytes, sealed + bytes, seg, segs))
				return 0;
		}
		uint64_t took = now_ns() - start;
		best = took < best ? took : best;
	}
	return (double)best / (double)frames;
}

int main(void)
{
	static const size_t sizes[] = {1400, 8192, 65536};
	uint8_t secret[SEAL_KEY_BYTES + SEAL_IV_BYTES] = {7};

	printf("%-9s %8s %5s %10s %10s %8s %8s\n", "library", "bytes", "segs", "seal ns", "open ns", "seal GB/s", "open GB/s");
	for (int evp = 0; evp < 2; evp++) {
		struct seal *seal;
		if (evp)
			setenv("TERN_SEAL", "evp", 1);
		if (seal_open(secret, &seal))
			return 1;
		for (size_t i = 0; i < 6; i++) {
			size_t bytes = sizes[i / 2], segs = i % 2 ? SEGS : 1;
			double out = bench(seal, bytes, segs, 0), in = bench(seal, bytes, segs, 1);
			if (in == 0)
				return 1;
			printf("%-9s %8zu %5zu %10.0f %10.0f %9.2f %9.2f\n", seal_library(), bytes, segs, out, in, (double)bytes / out,
			       (double)bytes / in);
		}
		seal_close(&seal);
	}
	return 0;
}
