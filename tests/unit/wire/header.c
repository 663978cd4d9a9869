/* Tests of wire/header.h: every field survives, what must be refused is, nothing outside the bytes is read (run under ASan). */
#include <string.h>
#include "unit.h"
#include "random.h"
#include "wire/wire.h"

enum { ROUNDS = 20000 };
static uint64_t seed;

static struct wire_header header_random(uint8_t type)
{
	struct wire_header h = {.version = WIRE_VERSION, .type = type, .path_id = (uint8_t)random_next(&seed)};
	h.flags = (uint8_t)random_next(&seed) & WIRE_FLAGS_ALL;
	h.flow_id = (uint32_t)random_edge(&seed);
	h.number = random_edge(&seed);
	if (type != WIRE_BULK)
		return h;
	h.channel = (uint16_t)random_edge(&seed);
	h.seq = (uint32_t)random_edge(&seed);
	h.offset = random_edge(&seed);
	return h;
}

static bool header_same(const struct wire_header *a, const struct wire_header *b)
{
	return a->version == b->version && a->type == b->type && a->flags == b->flags && a->path_id == b->path_id && a->flow_id == b->flow_id &&
	       a->number == b->number && a->channel == b->channel && a->seq == b->seq && a->offset == b->offset;
}

static void round_trip(void)
{
	for (int i = 0; i < ROUNDS; i++) {
		struct wire_header h = header_random(i & 1 ? WIRE_BULK : WIRE_MIX), back;
		size_t bytes = i & 1 ? WIRE_BULK_HEADER_BYTES : WIRE_HEADER_BYTES;
		uint8_t *out = malloc(bytes); /* exact: ASan sees a byte too many */
		CU_ASSERT_EQUAL_FATAL(wire_header_encode(&h, out), bytes);
		memset(&back, 0xa5, sizeof(back));
		CU_ASSERT_EQUAL_FATAL(wire_header_decode(out, bytes, &back), bytes);
		CU_ASSERT_FATAL(header_same(&h, &back));
		free(out);
	}
}

static void short_is_refused(void)
{
	for (int type = WIRE_MIX; type <= WIRE_BULK; type++) {
		struct wire_header h = header_random((uint8_t)type), back;
		uint8_t whole[WIRE_BULK_HEADER_BYTES];
		size_t bytes = wire_header_encode(&h, whole);
		for (size_t cut = 0; cut < bytes; cut++) {
			uint8_t *in = malloc(cut ? cut : 1);
			memcpy(in, whole, cut);
			CU_ASSERT_EQUAL(wire_header_decode(in, cut, &back), 0);
			free(in);
		}
	}
}

/* Every value of the bytes that are checked: only those the document allows pass. */
static void unknown_is_refused(void)
{
	struct wire_header h = header_random(WIRE_BULK), back;
	uint8_t good[WIRE_BULK_HEADER_BYTES], in[WIRE_BULK_HEADER_BYTES];
	wire_header_encode(&h, good);
	for (int v = 0; v < 256; v++) {
		memcpy(in, good, sizeof(in));
		in[0] = (uint8_t)v;
		CU_ASSERT_EQUAL(wire_header_decode(in, sizeof(in), &back) != 0, v == 1);
		in[0] = good[0];
		in[1] = (uint8_t)v;
		CU_ASSERT_EQUAL(wire_header_decode(in, sizeof(in), &back), v == WIRE_BULK ? 32 : v == WIRE_MIX ? 16 : 0);
		in[1] = good[1];
		in[2] = (uint8_t)v;
		CU_ASSERT_EQUAL(wire_header_decode(in, sizeof(in), &back) != 0, v < 8);
		in[2] = good[2];
		in[18] = (uint8_t)v;
		CU_ASSERT_EQUAL(wire_header_decode(in, sizeof(in), &back) != 0, v == 0);
		in[18] = 0;
		in[19] = (uint8_t)v;
		CU_ASSERT_EQUAL(wire_header_decode(in, sizeof(in), &back) != 0, v == 0);
	}
}

/* Random bytes: what decodes encodes to the same bytes. */
static void mutation(void)
{
	for (int i = 0; i < ROUNDS; i++) {
		struct wire_header h = header_random(i & 1 ? WIRE_BULK : WIRE_MIX), back;
		uint8_t in[WIRE_BULK_HEADER_BYTES], again[WIRE_BULK_HEADER_BYTES];
		size_t bytes = wire_header_encode(&h, in);
		random_damage(&seed, in, bytes);
		size_t used = wire_header_decode(in, bytes, &back);
		CU_ASSERT_FATAL(used <= bytes);
		if (used) {
			CU_ASSERT_EQUAL_FATAL(wire_header_encode(&back, again), used);
			CU_ASSERT_EQUAL_FATAL(memcmp(in, again, used), 0);
		}
	}
}

static void seed_print(void)
{
	seed = unit_seed();
}

static const struct unit_case cases[] = {
	{"seed", seed_print},
	{"round trip", round_trip},
	{"short is refused", short_is_refused},
	{"unknown is refused", unknown_is_refused},
	{"mutation", mutation},
};
UNIT_MAIN("wire header", cases)
