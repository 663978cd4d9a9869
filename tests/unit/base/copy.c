/* copy_segs between random cuts of two buffers, and the count of what was copied. */
#include <string.h>
#include "base/copy.h"
#include "rand.h"
#include "unit.h"

enum { LONG = 101000, BYTES = 4096, SEGS = 40 };

/* Cuts `buffer` into segments with gaps between; some are empty. @return how many, *sum: their bytes */
static size_t cut(uint8_t *buffer, struct frame_seg *seg, uint64_t *sum)
{
	size_t n = rand_below(SEGS + 1), at = 0;
	*sum = 0;
	for (size_t i = 0; i < n; i++) {
		at += rand_below(20);
		seg[i] = (struct frame_seg){.addr = buffer + at, .bytes = rand_below(5) ? (uint32_t)rand_below(80) : 0};
		at += seg[i].bytes;
		*sum += seg[i].bytes;
	}
	return n;
}

static void random_cuts(void)
{
	static uint8_t src[BYTES], dst[BYTES], want[BYTES];
	uint64_t copied = 0, all = 0;
	rand_start(unit_seed());
	for (int step = 0; step < 20000; step++) {
		struct frame_seg to[SEGS], from[SEGS];
		uint64_t room, have, n;
		size_t nd = cut(dst, to, &room), ns = cut(src, from, &have), s = 0, sb = 0, d = 0, db = 0;
		for (size_t i = 0; i < BYTES; i += 8)
			memcpy(src + i, &(uint64_t){rand_next()}, 8);
		memcpy(want, dst, BYTES);
		n = room < have ? room : have;
		for (uint64_t b = 0; b < n; b++) {
			while (sb == from[s].bytes)
				s++, sb = 0;
			while (db == to[d].bytes)
				d++, db = 0;
			want[to[d].addr - dst + db++] = from[s].addr[sb++];
		}
		CU_ASSERT_EQUAL_FATAL(copy_segs(to, nd, from, ns, &copied), n);
		CU_ASSERT_EQUAL_FATAL(memcmp(dst, want, BYTES), 0);
		all += n;
	}
	CU_ASSERT_EQUAL(copied, all);
}

static void one_run(void)
{
	uint64_t copied = 7;
	char text[8] = "........";
	copy_bytes(text + 1, "tern", 4, &copied);
	copy_bytes(NULL, NULL, 0, &copied);
	CU_ASSERT_EQUAL(memcmp(text, ".tern...", 8), 0);
	CU_ASSERT_EQUAL(copied, 11);
}

/* Sizes around those that are copied in a way of their own, from and to any alignment; nothing beside them is touched. */
static void long_runs(void)
{
	static const size_t sizes[] = {4095, 4096, 4097, 4159, 4160, 8191, 8192, 8193, 9000, 65535, 65536, 65537, 100000};
	static uint8_t src[LONG], dst[LONG];
	rand_start(unit_seed());
	for (size_t i = 0; i < LONG; i++)
		src[i] = (uint8_t)rand_next();
	for (int step = 0; step < 2000; step++) {
		size_t bytes = sizes[(size_t)step % (sizeof(sizes) / sizeof(sizes[0]))], from = rand_below(200), to = 1 + rand_below(200);
		uint64_t copied = 0;
		memset(dst, 0xa5, LONG);
		copy_bytes(dst + to, src + from, bytes, &copied);
		CU_ASSERT_EQUAL(copied, bytes);
		CU_ASSERT_EQUAL_FATAL(memcmp(dst + to, src + from, bytes), 0);
		CU_ASSERT_FATAL(dst[to - 1] == 0xa5 && dst[to + bytes] == 0xa5);
	}
}

static const struct unit_case cases[] = {
	{"random cuts of two buffers", random_cuts},
	{"one run", one_run},
	{"long runs", long_runs},
};
UNIT_MAIN("base copy", cases)
