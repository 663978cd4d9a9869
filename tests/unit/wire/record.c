/* Tests of wire/record.c: every record comes back as it went, malformed ones are refused, a byte outside the given ones is never read or
 * written (under ASan). */
#include "record_make.h"
#include "tern/error.h"
#include "unit.h"

enum { ROUNDS = 3000 };
static uint64_t seed;
static uint8_t data[WIRE_INLINE_MAX];

/* A copy in a block of exactly its size. */
static uint8_t *exact(const uint8_t *from, size_t bytes)
{
	uint8_t *block = malloc(bytes ? bytes : 1);
	memcpy(block, from, bytes);
	return block;
}

/* Decodes from an exact block. */
static long decode(const uint8_t *from, size_t bytes)
{
	struct wire_record r;
	uint8_t *in = exact(from, bytes);
	long used = wire_record_decode(in, bytes, &r);
	free(in);
	return used;
}

static void bytes_known(void)
{
	static const uint16_t want[WIRE_RECORD_END] = {1, 40, 16, 20, 20, 28, 36, 44, 16, 20, 16, 36, 12, 8, 40, 40};
	for (uint8_t type = 0; type < WIRE_RECORD_END; type++) {
		struct wire_record r = {.type = type};
		if (type == WIRE_ACK)
			r.ack.ranges = 1;
		CU_ASSERT_EQUAL(wire_record_bytes(&r), want[type]);
	}
	struct wire_record r = {.type = WIRE_HEAD, .head = {.kind = WIRE_KIND_WRITE, .flags = WIRE_HEAD_IMM | WIRE_HEAD_SHAPE | WIRE_HEAD_INLINE,
							    .dims = TERN_DIMS_MAX, .bytes = WIRE_INLINE_MAX}};
	CU_ASSERT_EQUAL(wire_record_bytes(&r), 36 + 8 + 8 + 4 + 64 + 4096);
}

static void round_trip(void)
{
	for (int i = 0; i < ROUNDS; i++) {
		for (uint8_t type = 1; type < WIRE_RECORD_END; type++) {
			struct wire_record r = make_record(&seed, type, data), back;
			size_t bytes = wire_record_bytes(&r);
			uint8_t *out = malloc(bytes);
			CU_ASSERT_FATAL(bytes <= WIRE_RECORD_MAX);
			CU_ASSERT_EQUAL_FATAL(wire_record_encode(&r, out, bytes - 1), 0);
			CU_ASSERT_EQUAL_FATAL(wire_record_encode(&r, out, bytes), bytes);
			memset(&back, 0xa5, sizeof(back));
			CU_ASSERT_EQUAL_FATAL(wire_record_decode(out, bytes, &back), (long)bytes);
			CU_ASSERT_FATAL(same_record(&r, &back));
			free(out);
		}
	}
}

static void no_room_writes_nothing(void)
{
	for (uint8_t type = 0; type < WIRE_RECORD_END; type++) {
		struct wire_record r = make_record(&seed, type, data);
		uint8_t out[WIRE_RECORD_MAX] = {0};
		size_t bytes = wire_record_bytes(&r);
		memset(out, 0x5a, sizeof(out));
		CU_ASSERT_EQUAL(wire_record_encode(&r, out, bytes - 1), 0);
		for (size_t i = 0; i < sizeof(out); i++)
			CU_ASSERT_FATAL(out[i] == 0x5a);
	}
}

static void truncation_is_refused(void)
{
	for (int i = 0; i < 20; i++) {
		for (uint8_t type = 1; type < WIRE_RECORD_END; type++) {
			struct wire_record r = make_record(&seed, type, data);
			uint8_t out[WIRE_RECORD_MAX];
			size_t bytes = wire_record_encode(&r, out, sizeof(out));
			CU_ASSERT_EQUAL(decode(out, 0), 0);
			for (size_t cut = 1; cut < bytes; cut++)
				CU_ASSERT_EQUAL_FATAL(decode(out, cut), -TERN_EPROTO);
		}
	}
}

/* A record that says a wrong length, with all those bytes there. */
static void wrong_length_is_refused(void)
{
	for (int i = 0; i < 20; i++) {
		for (uint8_t type = 1; type < WIRE_RECORD_END; type++) {
			struct wire_record r = make_record(&seed, type, data);
			uint8_t out[2 * WIRE_RECORD_MAX] = {0};
			size_t bytes = wire_record_encode(&r, out, sizeof(out));
			for (size_t length = 0; length < sizeof(out); length++) {
				out[2] = (uint8_t)length;
				out[3] = (uint8_t)(length >> 8);
				if (length < bytes)
					CU_ASSERT_EQUAL_FATAL(decode(out, length ? length : 4), -TERN_EPROTO);
				if (length != bytes)
					CU_ASSERT_EQUAL_FATAL(wire_record_decode(out, sizeof(out), &r), -TERN_EPROTO);
			}
		}
	}
}

static void sequence_and_padding(void)
{
	for (int round = 0; round < 200; round++) {
		uint8_t out[8 * WIRE_RECORD_MAX];
		struct wire_record sent[8], got;
		size_t at = 0, pad = random_below(&seed, 100);
		for (int i = 0; i < 8; i++) {
			sent[i] = make_record(&seed, (uint8_t)(1 + random_below(&seed, WIRE_RECORD_END - 1)), data);
			at += wire_record_encode(&sent[i], out + at, sizeof(out) - at);
		}
		if (pad > sizeof(out) - at)
			pad = 0;
		memset(out + at, 0, pad);
		uint8_t *in = exact(out, at + pad);
		size_t from = 0;
		for (int i = 0; i < 8; i++) {
			long used = wire_record_decode(in + from, at + pad - from, &got);
			CU_ASSERT_FATAL(used > 0 && same_record(&sent[i], &got));
			from += (size_t)used;
		}
		CU_ASSERT_EQUAL(wire_record_decode(in + from, at + pad - from, &got), 0);
		CU_ASSERT_EQUAL(got.type, WIRE_PAD);
		free(in);
	}
}

static void unknown_records(void)
{
	struct wire_record bye = {.type = WIRE_BYE, .bye = {7}}, got;
	uint8_t in[32] = {200, WIRE_RECORD_OPTIONAL | 5, 6, 0, 1, 2, 201, WIRE_RECORD_OPTIONAL, 4, 0};
	size_t bytes = 10 + wire_record_encode(&bye, in + 10, sizeof(in) - 10);
	CU_ASSERT_EQUAL(wire_record_decode(in, bytes, &got), (long)bytes);
	CU_ASSERT_EQUAL(got.type, WIRE_BYE);
	CU_ASSERT_EQUAL(got.bye.status, 7);
	CU_ASSERT_EQUAL(wire_record_decode(in, 10, &got), 0);
	CU_ASSERT_EQUAL(got.type, WIRE_PAD);
	in[7] = 0; /* the second is needed, and unknown */
	CU_ASSERT_EQUAL(wire_record_decode(in, bytes, &got), -TERN_EPROTO);
	in[7] = WIRE_RECORD_OPTIONAL;
	in[8] = 3; /* shorter than its own header */
	CU_ASSERT_EQUAL(wire_record_decode(in, bytes, &got), -TERN_EPROTO);
	in[8] = 100;
	CU_ASSERT_EQUAL(wire_record_decode(in, bytes, &got), -TERN_EPROTO);
}

/* A known type takes no flags, and reserved bytes are zero. */
static void reserved_is_refused(void)
{
	static const struct { uint8_t type, at, n; } reserved[] = {
		{WIRE_ACK, 6, 2}, {WIRE_FLOOR, 5, 3}, {WIRE_PING, 5, 3}, {WIRE_PONG, 5, 3}, {WIRE_CREDIT, 6, 2}, {WIRE_GRANT, 6, 2},
		{WIRE_RESULT, 7, 1}, {WIRE_READ, 6, 2}, {WIRE_CANCEL, 6, 2}, {WIRE_BYE, 5, 3}, {WIRE_KEY, 10, 2}};
	uint8_t out[WIRE_RECORD_MAX];
	for (uint8_t type = 1; type < WIRE_RECORD_END; type++) {
		struct wire_record r = make_record(&seed, type, data);
		size_t bytes = wire_record_encode(&r, out, sizeof(out));
		for (int bit = 0; bit < 8; bit++) {
			out[1] = (uint8_t)(1 << bit);
			CU_ASSERT_EQUAL(decode(out, bytes), -TERN_EPROTO);
		}
	}
	for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++) {
		struct wire_record r = make_record(&seed, reserved[i].type, data);
		size_t bytes = wire_record_encode(&r, out, sizeof(out));
		for (int n = 0; n < reserved[i].n; n++) {
			out[reserved[i].at + n] = 0x10;
			CU_ASSERT_EQUAL(decode(out, bytes), -TERN_EPROTO);
			out[reserved[i].at + n] = 0;
		}
		CU_ASSERT_EQUAL(decode(out, bytes), (long)bytes);
	}
}

/* Encodes (the encoder trusts its caller) and says whether the decoder takes it. */
static bool accepted(const struct wire_record *r)
{
	uint8_t out[WIRE_RECORD_MAX];
	return decode(out, wire_record_encode(r, out, sizeof(out))) > 0;
}

static bool ack_accepted(uint64_t first0, uint64_t last0, uint64_t first1, uint64_t last1)
{
	struct wire_record r = {.type = WIRE_ACK, .ack = {.ranges = 2, .range = {{first0, last0}, {first1, last1}}}};
	return accepted(&r);
}

/* Keys and runs that would make a frame land past 2^64, or frames that do not add up. */
static void keys_and_runs(void)
{
	struct wire_record key = {.type = WIRE_KEY, .key = {.lane = 1, .addr = UINT64_MAX - 10, .bytes = 10}}, run = {.type = WIRE_RUN};
	CU_ASSERT(accepted(&key));
	key.key.bytes = 11;
	CU_ASSERT(!accepted(&key));
	key.key = (struct wire_key){.lane = 0, .addr = 1, .bytes = 1};
	CU_ASSERT(!accepted(&key));
	key.key = (struct wire_key){.lane = 1, .kind = WIRE_KEY_KINDS};
	CU_ASSERT(!accepted(&key));
	static const struct { uint32_t frames, stride, bytes; bool ok; } runs[] = {{0, 0, 0, true}, {0, 1, 0, false}, {0, 0, 1, false},
		{1, 4096, 4096, true}, {1, 4096, 1, true}, {1, 4096, 0, false}, {1, 4096, 4097, false}, {3, 100, 201, true}, {3, 100, 200, false},
		{3, 100, 301, false}, {65536, 65536, UINT32_MAX, true}, {2, 0, 0, false}};
	for (size_t i = 0; i < sizeof(runs) / sizeof(runs[0]); i++) {
		run.run = (struct wire_run){.lane = 1, .frames = runs[i].frames, .stride_bytes = runs[i].stride, .bytes = runs[i].bytes};
		CU_ASSERT_EQUAL(accepted(&run), runs[i].ok);
	}
	run.run = (struct wire_run){.lane = 1, .frames = 2, .stride_bytes = 10, .bytes = 20, .offset = UINT64_MAX - 19};
	CU_ASSERT(!accepted(&run));
	run.run.offset--;
	CU_ASSERT(accepted(&run));
	run.run.first = UINT64_MAX - 1;
	CU_ASSERT(!accepted(&run));
	run.run = (struct wire_run){.lane = 0};
	CU_ASSERT(!accepted(&run));
}

static void ack_ranges(void)
{
	CU_ASSERT(ack_accepted(10, 20, 5, 8));
	CU_ASSERT(ack_accepted(2, UINT64_MAX, 0, 0));
	CU_ASSERT(!ack_accepted(10, 20, 5, 9));   /* touching */
	CU_ASSERT(!ack_accepted(10, 20, 5, 10));  /* overlapping */
	CU_ASSERT(!ack_accepted(10, 20, 30, 40)); /* ascending */
	CU_ASSERT(!ack_accepted(20, 10, 5, 8));   /* backwards */
	CU_ASSERT(!ack_accepted(10, 20, 8, 5));
	CU_ASSERT(!ack_accepted(0, 20, UINT64_MAX, UINT64_MAX)); /* no wrapping */
	struct wire_record r = {.type = WIRE_ACK, .ack = {.ranges = 1}};
	uint8_t out[WIRE_RECORD_MAX] = {0};
	size_t bytes = wire_record_encode(&r, out, sizeof(out));
	out[5] = 0;
	CU_ASSERT_EQUAL(decode(out, bytes), -TERN_EPROTO);
	out[5] = WIRE_ACK_RANGES_MAX + 1;
	out[2] = (uint8_t)(24 + 16 * 33);
	out[3] = (24 + 16 * 33) >> 8;
	CU_ASSERT_EQUAL(decode(out, 24 + 16 * 33), -TERN_EPROTO);
}

static bool shape_accepted(uint8_t dtype, uint8_t dims, const uint64_t *shape, uint64_t bytes)
{
	struct wire_record h = {.type = WIRE_HEAD, .head = {.flags = WIRE_HEAD_SHAPE, .bytes = bytes, .dtype = dtype, .dims = dims}};
	struct wire_record a = {.type = WIRE_ANNOUNCE, .announce = {.bytes = bytes, .dtype = dtype, .dims = dims}};
	memcpy(h.head.shape, shape, 8u * dims);
	memcpy(a.announce.shape, shape, 8u * dims);
	CU_ASSERT_EQUAL(accepted(&h), accepted(&a));
	return accepted(&h);
}

static void shapes(void)
{
	CU_ASSERT(shape_accepted(TERN_F32, 2, (uint64_t[]){3, 5}, 60));
	CU_ASSERT(!shape_accepted(TERN_F32, 2, (uint64_t[]){3, 5}, 59));
	CU_ASSERT(!shape_accepted(TERN_F32, 2, (uint64_t[]){3, 5}, 15));
	CU_ASSERT(shape_accepted(TERN_U64, 0, (uint64_t[]){0}, 8));
	CU_ASSERT(!shape_accepted(TERN_U64, 0, (uint64_t[]){0}, 0));
	CU_ASSERT(shape_accepted(TERN_U8, 2, (uint64_t[]){UINT64_MAX, 1}, UINT64_MAX));
	CU_ASSERT(!shape_accepted(TERN_BF16, 2, (uint64_t[]){1ull << 63, 1}, 0)); /* wraps to 0 */
	CU_ASSERT(!shape_accepted(TERN_U8, 3, (uint64_t[]){1ull << 32, 1ull << 32, 1}, 0));
	CU_ASSERT(shape_accepted(TERN_U8, 3, (uint64_t[]){1ull << 63, 1ull << 63, 0}, 0)); /* empty */
	CU_ASSERT(!shape_accepted(TERN_U8, 3, (uint64_t[]){1ull << 63, 1ull << 63, 0}, 1));
	CU_ASSERT(!shape_accepted(TERN_DTYPE_END, 1, (uint64_t[]){1}, 1));
	CU_ASSERT(!shape_accepted(255, 1, (uint64_t[]){1}, 1));
	struct wire_record a = {.type = WIRE_ANNOUNCE, .announce = {.bytes = 12345}};
	CU_ASSERT(accepted(&a)); /* bytes without a shape */
	a.announce.recv_id = WIRE_NONE32;
	CU_ASSERT(!accepted(&a));
	uint8_t out[WIRE_RECORD_MAX] = {0};
	struct wire_record h = {.type = WIRE_HEAD, .head = {.flags = WIRE_HEAD_SHAPE, .dtype = TERN_U8, .dims = 8}};
	wire_record_encode(&h, out, sizeof(out));
	out[37] = 9; /* dims */
	out[2] = 36 + 4 + 72;
	CU_ASSERT_EQUAL(decode(out, 36 + 4 + 72), -TERN_EPROTO);
}

static void head_rules(void)
{
	struct wire_record r = {.type = WIRE_HEAD, .head = {.kind = WIRE_KIND_WRITE, .bytes = 2, .remote_offset = UINT64_MAX - 2}};
	CU_ASSERT(accepted(&r));
	r.head.remote_offset = UINT64_MAX - 1;
	CU_ASSERT(!accepted(&r));
	r = (struct wire_record){.type = WIRE_READ, .read = {.bytes = 2, .remote_offset = UINT64_MAX - 1}};
	CU_ASSERT(!accepted(&r));
	r = (struct wire_record){.type = WIRE_HEAD, .head = {.kind = 3}};
	CU_ASSERT(!accepted(&r));
	r.head = (struct wire_head){.flags = 64};
	CU_ASSERT(!accepted(&r));
	r.head = (struct wire_head){.flags = WIRE_HEAD_INLINE | WIRE_HEAD_CLAIM, .bytes = 1, .data = data};
	CU_ASSERT(!accepted(&r));
	r = (struct wire_record){.type = WIRE_REVOKE, .revoke = {.answer = 2}};
	CU_ASSERT(!accepted(&r));
	r.revoke = (struct wire_revoke){.taken = 1};
	CU_ASSERT(!accepted(&r));
	uint8_t out[2 * WIRE_RECORD_MAX] = {0};
	r = (struct wire_record){.type = WIRE_HEAD, .head = {.flags = WIRE_HEAD_INLINE, .bytes = WIRE_INLINE_MAX, .data = data}};
	size_t bytes = wire_record_encode(&r, out, sizeof(out));
	CU_ASSERT_EQUAL(decode(out, bytes), (long)bytes);
	out[28]++; /* one byte more, in both lengths: beyond the limit */
	out[2]++;
	CU_ASSERT_EQUAL(decode(out, bytes + 1), -TERN_EPROTO);
}

/* data NULL: the caller fills the bytes in, the encoder leaves them alone. */
static void inline_left_to_caller(void)
{
	struct wire_record r = {.type = WIRE_HEAD, .head = {.flags = WIRE_HEAD_INLINE, .bytes = 100}}, got;
	uint8_t out[136];
	memset(out, 0x77, sizeof(out));
	CU_ASSERT_EQUAL(wire_record_encode(&r, out, sizeof(out)), sizeof(out));
	for (size_t i = 36; i < sizeof(out); i++)
		CU_ASSERT_EQUAL(out[i], 0x77);
	CU_ASSERT_EQUAL(wire_record_decode(out, sizeof(out), &got), (long)sizeof(out));
	CU_ASSERT_PTR_EQUAL(got.head.data, out + 36);
}

/* Damaged records are refused or are other valid records: those encode to the very bytes they came from. */
static void mutation(void)
{
	for (int i = 0; i < ROUNDS; i++) {
		for (uint8_t type = 1; type < WIRE_RECORD_END; type++) {
			struct wire_record r = make_record(&seed, type, data);
			uint8_t out[WIRE_RECORD_MAX], again[WIRE_RECORD_MAX];
			size_t bytes = wire_record_encode(&r, out, sizeof(out));
			random_damage(&seed, out, random_below(&seed, 2) && bytes > 60 ? 60 : bytes);
			uint8_t *in = exact(out, bytes);
			long used = wire_record_decode(in, bytes, &r);
			CU_ASSERT_FATAL(used == -TERN_EPROTO || (used >= 0 && (size_t)used <= bytes));
			if (used > 0 && in[0] < WIRE_RECORD_END) {
				CU_ASSERT_EQUAL_FATAL(wire_record_encode(&r, again, sizeof(again)), (size_t)used);
				CU_ASSERT_EQUAL_FATAL(memcmp(in, again, (size_t)used), 0);
			}
			free(in);
		}
	}
}

static void seed_print(void)
{
	seed = unit_seed();
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)random_next(&seed);
}

static const struct unit_case cases[] = {
	{"seed", seed_print},
	{"bytes", bytes_known},
	{"round trip", round_trip},
	{"no room writes nothing", no_room_writes_nothing},
	{"truncation is refused", truncation_is_refused},
	{"wrong length is refused", wrong_length_is_refused},
	{"sequence and padding", sequence_and_padding},
	{"unknown records", unknown_records},
	{"reserved is refused", reserved_is_refused},
	{"ack ranges", ack_ranges},
	{"keys and runs", keys_and_runs},
	{"shapes", shapes},
	{"head rules", head_rules},
	{"inline left to caller", inline_left_to_caller},
	{"mutation", mutation},
};
UNIT_MAIN("wire record", cases)
