/* Tests of wire/hello.c: hellos come back as they went, a stream may be cut anywhere, older and newer ends understand each other, malformed
 * ones are refused. */
#include <string.h>
#include "random.h"
#include "tern/error.h"
#include "unit.h"
#include "wire/bytes.h"
#include "wire/hello.h"
#include "wire/wire.h"

enum { ROUNDS = 3000 };
static uint64_t seed;

static void text_random(char *out, size_t max)
{
	size_t bytes = random_below(&seed, max + 1);
	for (size_t i = 0; i < bytes; i++)
		out[i] = (char)(0x20 + random_below(&seed, 0x5f));
	out[bytes] = 0;
}

static struct wire_hello hello_random(void)
{
	struct wire_hello h;
	wire_hello_init(&h);
	h.version_min = (uint8_t)(1 + random_below(&seed, 255));
	h.version_max = (uint8_t)(h.version_min + random_below(&seed, 256u - h.version_min));
	h.flags = random_below(&seed, 2) ? WIRE_HELLO_PRIVATE : 0;
	for (int i = 0; i < WIRE_NODE_ID_BYTES; i++)
		h.node_id[i] = (uint8_t)random_next(&seed);
	h.epoch = random_edge(&seed);
	h.credit_bytes = random_edge(&seed);
	h.credit_heads = (uint32_t)random_edge(&seed);
	h.max_message_bytes = random_edge(&seed);
	h.capabilities = random_edge(&seed);
	h.paths = (uint8_t)random_below(&seed, WIRE_HELLO_PATHS_MAX + 1);
	for (uint32_t i = 0; i < h.paths; i++) {
		struct wire_hello_path *p = &h.path[i];
		p->path_id = (uint8_t)(i * 16 + random_below(&seed, 16));
		p->flow_id = i << 28 | ((uint32_t)random_edge(&seed) & 0xfffffff);
		p->udp_port = (uint16_t)random_edge(&seed);
		p->mtu_bytes = (uint32_t)random_edge(&seed);
		p->link_bytes = (uint8_t)random_below(&seed, WIRE_HELLO_LINK_MAX + 1);
		for (int j = 0; j < p->link_bytes; j++)
			p->link[j] = (uint8_t)random_next(&seed);
	}
	text_random(h.name, WIRE_HELLO_NAME_MAX);
	if (random_below(&seed, 2)) {
		h.status = (uint8_t)(1 + random_below(&seed, 255));
		text_random(h.error_text, WIRE_HELLO_TEXT_MAX);
	}
	return h;
}

static bool path_same(const struct wire_hello_path *a, const struct wire_hello_path *b)
{
	return a->path_id == b->path_id && a->link_bytes == b->link_bytes && a->udp_port == b->udp_port && a->flow_id == b->flow_id &&
	       a->mtu_bytes == b->mtu_bytes && !memcmp(a->link, b->link, a->link_bytes);
}

static bool hello_same(const struct wire_hello *a, const struct wire_hello *b)
{
	for (uint32_t i = 0; i < a->paths && i < b->paths; i++)
		if (!path_same(&a->path[i], &b->path[i]))
			return false;
	return a->version_min == b->version_min && a->version_max == b->version_max && a->status == b->status && a->paths == b->paths &&
	       a->flags == b->flags && !memcmp(a->node_id, b->node_id, sizeof(a->node_id)) && a->epoch == b->epoch &&
	       a->credit_bytes == b->credit_bytes && a->credit_heads == b->credit_heads && a->max_message_bytes == b->max_message_bytes &&
	       a->capabilities == b->capabilities && !strcmp(a->name, b->name) && !strcmp(a->error_text, b->error_text);
}

/* Decodes from a block of exactly its size. */
static long decode(const uint8_t *from, size_t bytes, struct wire_hello *h)
{
	uint8_t *in = malloc(bytes ? bytes : 1);
	memcpy(in, from, bytes);
	memset(h, 0xa5, sizeof(*h));
	long used = wire_hello_decode(in, bytes, h);
	free(in);
	return used;
}

static void defaults(void)
{
	struct wire_hello h;
	wire_hello_init(&h);
	CU_ASSERT_EQUAL(h.version_min, WIRE_VERSION_MIN);
	CU_ASSERT_EQUAL(h.version_max, WIRE_VERSION);
	CU_ASSERT_EQUAL(h.max_message_bytes, UINT64_MAX);
	CU_ASSERT_EQUAL(h.credit_bytes, 0);
	CU_ASSERT_EQUAL(h.paths, 0);
}

static void round_trip(void)
{
	for (int i = 0; i < ROUNDS; i++) {
		struct wire_hello h = hello_random(), back;
		uint8_t out[WIRE_HELLO_MAX];
		size_t bytes = wire_hello_encode(&h, out, sizeof(out));
		CU_ASSERT_FATAL(bytes > 0);
		CU_ASSERT_EQUAL_FATAL(decode(out, bytes, &back), (long)bytes);
		CU_ASSERT_FATAL(hello_same(&h, &back));
	}
}

static void room_is_kept(void)
{
	struct wire_hello h = hello_random();
	uint8_t whole[WIRE_HELLO_MAX];
	size_t bytes = wire_hello_encode(&h, whole, sizeof(whole));
	for (size_t room = 0; room <= bytes; room++) {
		uint8_t *out = malloc(room ? room : 1);
		CU_ASSERT_EQUAL_FATAL(wire_hello_encode(&h, out, room), room == bytes ? bytes : 0);
		free(out);
	}
}

/* A stream cut anywhere wants more; bytes behind the hello are left alone; a length that cuts it short is malformed or a smaller hello. */
static void truncation(void)
{
	for (int i = 0; i < 20; i++) {
		struct wire_hello h = hello_random(), back;
		uint8_t out[WIRE_HELLO_MAX + 5] = {0};
		size_t bytes = wire_hello_encode(&h, out, WIRE_HELLO_MAX);
		for (size_t cut = 0; cut < bytes; cut++)
			CU_ASSERT_EQUAL_FATAL(decode(out, cut, &back), 0);
		CU_ASSERT_EQUAL(decode(out, bytes + 5, &back), (long)bytes);
		for (size_t length = 0; length < bytes; length++) {
			wire_put32(out + 4, (uint32_t)length);
			long used = decode(out, length < 8 ? 8 : length, &back);
			CU_ASSERT_FATAL(used == -TERN_EPROTO || used == (long)length);
		}
	}
}

static void wrong_start_is_refused(void)
{
	struct wire_hello h = hello_random();
	uint8_t out[WIRE_HELLO_MAX];
	size_t bytes = wire_hello_encode(&h, out, sizeof(out));
	out[0] = 'G'; /* and at 8 bytes already, not when the rest has come */
	CU_ASSERT_EQUAL(decode(out, 8, &h), -TERN_EPROTO);
	out[0] = 'T';
	wire_put32(out + 4, WIRE_HELLO_MAX + 1);
	CU_ASSERT_EQUAL(decode(out, 8, &h), -TERN_EPROTO);
	wire_put32(out + 4, (uint32_t)bytes);
	CU_ASSERT_EQUAL(decode(out, bytes, &h), (long)bytes);
}

/* A hello made of the entries given, length filled in. */
static long decode_entries(const uint8_t *entries, size_t bytes, struct wire_hello *h)
{
	uint8_t in[WIRE_HELLO_MAX] = "TERN";
	if (bytes)
		memcpy(in + 8, entries, bytes);
	wire_put32(in + 4, (uint32_t)(8 + bytes));
	return decode(in, 8 + bytes, h);
}
#define ENTRIES(h, ...) decode_entries((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), h)
#define VERSIONS 1, 0, 2, 0, 1, 3
#define NODE 2, 0, 24, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 42, 0, 0, 0, 0, 0, 0, 0

static void other_versions(void)
{
	struct wire_hello h, fresh;
	wire_hello_init(&fresh);
	CU_ASSERT(ENTRIES(&h, VERSIONS, NODE) > 0); /* an older end: everything else by default */
	CU_ASSERT_EQUAL(h.version_max, 3);
	CU_ASSERT_EQUAL(h.epoch, 42);
	CU_ASSERT_EQUAL(h.node_id[15], 16);
	CU_ASSERT_EQUAL(h.max_message_bytes, fresh.max_message_bytes);
	CU_ASSERT_EQUAL(h.credit_bytes, fresh.credit_bytes);
	CU_ASSERT_EQUAL(h.capabilities, 0);
	CU_ASSERT_STRING_EQUAL(h.name, "");
	/* a newer end: entries nobody here knows, twice, in any order, and a flag nobody knows */
	CU_ASSERT(ENTRIES(&h, 0x34, 0x12, 3, 0, 7, 7, 7, NODE, 9, 0, 0, 0, 9, 0, 0, 0, VERSIONS, 3, 0, 4, 0, 3, 0, 0, 0x80) > 0);
	CU_ASSERT_EQUAL(h.epoch, 42);
	CU_ASSERT_EQUAL(h.flags, WIRE_HELLO_PRIVATE);
	/* a refusal needs no identity */
	CU_ASSERT(ENTRIES(&h, VERSIONS, 8, 0, 3, 0, TERN_EVERSION, 'n', 'o') > 0);
	CU_ASSERT_EQUAL(h.status, TERN_EVERSION);
	CU_ASSERT_STRING_EQUAL(h.error_text, "no");
}

static void malformed_is_refused(void)
{
	struct wire_hello h;
	CU_ASSERT_EQUAL(decode_entries(NULL, 0, &h), -TERN_EPROTO);
	CU_ASSERT_EQUAL(ENTRIES(&h, VERSIONS), -TERN_EPROTO);
	CU_ASSERT_EQUAL(ENTRIES(&h, NODE), -TERN_EPROTO);
	CU_ASSERT_EQUAL(ENTRIES(&h, VERSIONS, VERSIONS, NODE), -TERN_EPROTO);
	CU_ASSERT_EQUAL(ENTRIES(&h, 1, 0, 2, 0, 0, 1, NODE), -TERN_EPROTO);             /* version 0 */
	CU_ASSERT_EQUAL(ENTRIES(&h, 1, 0, 2, 0, 2, 1, NODE), -TERN_EPROTO);             /* min > max */
	CU_ASSERT_EQUAL(ENTRIES(&h, 1, 0, 3, 0, 1, 1, 0, NODE), -TERN_EPROTO);          /* length of a fixed entry */
	CU_ASSERT_EQUAL(ENTRIES(&h, VERSIONS, NODE, 0, 0, 0, 0), -TERN_EPROTO);         /* type 0 */
	CU_ASSERT_EQUAL(ENTRIES(&h, VERSIONS, NODE, 9, 0, 1), -TERN_EPROTO);            /* half an entry header */
	CU_ASSERT_EQUAL(ENTRIES(&h, VERSIONS, NODE, 9, 0, 2, 0, 1), -TERN_EPROTO);      /* half a value */
	CU_ASSERT_EQUAL(ENTRIES(&h, VERSIONS, NODE, 7, 0, 0, 0), -TERN_EPROTO);         /* empty name */
	CU_ASSERT_EQUAL(ENTRIES(&h, VERSIONS, NODE, 7, 0, 1, 0, 0x1b), -TERN_EPROTO);   /* an escape in a name */
	CU_ASSERT_EQUAL(ENTRIES(&h, VERSIONS, NODE, 7, 0, 1, 0, 0), -TERN_EPROTO);
	CU_ASSERT_EQUAL(ENTRIES(&h, VERSIONS, NODE, 8, 0, 0, 0), -TERN_EPROTO);
	CU_ASSERT_EQUAL(ENTRIES(&h, VERSIONS, NODE, 8, 0, 2, 0, 0, 'x'), -TERN_EPROTO); /* a refusal with status 0 */
}

static void encoder_refuses(void)
{
	struct wire_hello good = hello_random(), h;
	uint8_t out[WIRE_HELLO_MAX];
	good.paths = 2;
	good.path[0] = (struct wire_hello_path){.path_id = 1, .flow_id = 1};
	good.path[1] = (struct wire_hello_path){.path_id = 2, .flow_id = 2};
	CU_ASSERT(wire_hello_encode(&good, out, sizeof(out)) > 0);
	h = good;
	h.path[1].path_id = 1;
	CU_ASSERT_EQUAL(wire_hello_encode(&h, out, sizeof(out)), 0);
	h = good;
	h.path[1].flow_id = 1;
	CU_ASSERT_EQUAL(wire_hello_encode(&h, out, sizeof(out)), 0);
	h = good;
	h.path[1].link_bytes = WIRE_HELLO_LINK_MAX + 1;
	CU_ASSERT_EQUAL(wire_hello_encode(&h, out, sizeof(out)), 0);
	h = good;
	h.paths = WIRE_HELLO_PATHS_MAX + 1;
	CU_ASSERT_EQUAL(wire_hello_encode(&h, out, sizeof(out)), 0);
	h = good;
	memset(h.name, 'x', sizeof(h.name)); /* not terminated */
	CU_ASSERT_EQUAL(wire_hello_encode(&h, out, sizeof(out)), 0);
	h = good;
	strcpy(h.name, "a\n");
	CU_ASSERT_EQUAL(wire_hello_encode(&h, out, sizeof(out)), 0);
	h = good;
	h.status = 0;
	strcpy(h.error_text, "why");
	CU_ASSERT_EQUAL(wire_hello_encode(&h, out, sizeof(out)), 0);
}

/* The decoder checks paths as the encoder does, on bytes no encoder of ours makes. */
static void paths_are_checked(void)
{
	struct wire_hello h, back;
	uint8_t out[WIRE_HELLO_MAX];
	wire_hello_init(&h);
	h.paths = WIRE_HELLO_PATHS_MAX;
	for (uint32_t i = 0; i < h.paths; i++)
		h.path[i] = (struct wire_hello_path){.path_id = (uint8_t)i, .flow_id = 100 + i};
	size_t bytes = wire_hello_encode(&h, out, sizeof(out));
	CU_ASSERT_EQUAL(decode(out, bytes, &back), (long)bytes);
	uint8_t *last = out + bytes - 16;
	last[4] = 0; /* path id of the first */
	CU_ASSERT_EQUAL(decode(out, bytes, &back), -TERN_EPROTO);
	last[4] = 15;
	last[5] = 1; /* reserved */
	CU_ASSERT_EQUAL(decode(out, bytes, &back), -TERN_EPROTO);
	last[5] = 0;
	last[8] = 100; /* flow id of the first */
	CU_ASSERT_EQUAL(decode(out, bytes, &back), -TERN_EPROTO);
	last[8] = 115;
	memcpy(last + 16, last, 16); /* a 17th */
	last[16 + 4] = 16;
	last[16 + 8] = 116;
	wire_put32(out + 4, (uint32_t)bytes + 16);
	CU_ASSERT_EQUAL(decode(out, bytes + 16, &back), -TERN_EPROTO);
}

static void mutation(void)
{
	for (int i = 0; i < ROUNDS; i++) {
		struct wire_hello h = hello_random(), back, third;
		uint8_t out[WIRE_HELLO_MAX], again[WIRE_HELLO_MAX];
		size_t bytes = wire_hello_encode(&h, out, sizeof(out));
		random_damage(&seed, out, bytes);
		long used = decode(out, bytes, &back);
		CU_ASSERT_FATAL(used == -TERN_EPROTO || (used >= 0 && (size_t)used <= bytes));
		if (used <= 0)
			continue;
		bytes = wire_hello_encode(&back, again, sizeof(again));
		CU_ASSERT_FATAL(bytes > 0);
		CU_ASSERT_EQUAL_FATAL(decode(again, bytes, &third), (long)bytes);
		CU_ASSERT_FATAL(hello_same(&back, &third));
	}
}

static void version_choose(void)
{
	CU_ASSERT_EQUAL(wire_version_choose(1, 1, 1, 1), 1);
	CU_ASSERT_EQUAL(wire_version_choose(1, 2, 2, 3), 2);
	CU_ASSERT_EQUAL(wire_version_choose(2, 3, 1, 2), 2);
	CU_ASSERT_EQUAL(wire_version_choose(1, 5, 1, 4), 4);
	CU_ASSERT_EQUAL(wire_version_choose(1, 1, 2, 3), 0);
	CU_ASSERT_EQUAL(wire_version_choose(3, 4, 1, 2), 0);
	CU_ASSERT_EQUAL(wire_version_choose(0, 1, 1, 1), 0);
	CU_ASSERT_EQUAL(wire_version_choose(2, 1, 1, 2), 0);
}

static void seed_print(void)
{
	seed = unit_seed();
}

static const struct unit_case cases[] = {
	{"seed", seed_print},
	{"defaults", defaults},
	{"round trip", round_trip},
	{"room is kept", room_is_kept},
	{"truncation", truncation},
	{"wrong start is refused", wrong_start_is_refused},
	{"other versions", other_versions},
	{"malformed is refused", malformed_is_refused},
	{"encoder refuses", encoder_refuses},
	{"paths are checked", paths_are_checked},
	{"mutation", mutation},
	{"version choose", version_choose},
};
UNIT_MAIN("wire hello", cases)
