/* Sealing: NIST's vectors, both libraries against each other on random frames and segments, every kind of tampering, in place, no allocation on the
 * frame path. */
#include <openssl/crypto.h>
#include <string.h>
#include "seal/seal.h"
#include "tern/error.h"
#include "unit.h"

enum { BYTES_MAX = 9000, SEGS = 9, ROUNDS = 4000 };

static uint64_t rng_state;
static uint64_t allocations;

static uint64_t rng(void)
{
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return rng_state;
}

static void fill(uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(rng() >> 24);
}

static void *count_malloc(size_t n, const char *file, int line)
{
	(void)file, (void)line;
	__atomic_fetch_add(&allocations, 1, __ATOMIC_RELAXED);
	return malloc(n);
}

static void *count_realloc(void *p, size_t n, const char *file, int line)
{
	(void)file, (void)line;
	__atomic_fetch_add(&allocations, 1, __ATOMIC_RELAXED);
	return realloc(p, n);
}

static void count_free(void *p, const char *file, int line)
{
	(void)file, (void)line;
	free(p);
}

static struct seal *open_with(const char *library, const uint8_t *secret)
{
	struct seal *seal = NULL;

	if (library)
		setenv("TERN_SEAL", library, 1);
	else
		unsetenv("TERN_SEAL");
	CU_ASSERT_EQUAL_FATAL(seal_open(secret, &seal), 0);
	return seal;
}

static size_t hex(const char *text, uint8_t *out)
{
	size_t n = strlen(text) / 2;

	for (size_t i = 0; i < n; i++) {
		unsigned v = 0;
		sscanf(text + 2 * i, "%2x", &v);
		out[i] = (uint8_t)v;
	}
	return n;
}

/* Test cases 13 to 16 of "The Galois/Counter Mode of Operation" (McGrew, Viega), NIST's for AES-256. */
#define KEY_F "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"
#define KEY_0 "0000000000000000000000000000000000000000000000000000000000000000"
#define IV_F "cafebabefacedbaddecaf888"
#define IV_0 "000000000000000000000000"
#define PLAIN_60 "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
#define CIPHER_60 "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
static const struct {
	const char *key, *iv, *aad, *plain, *cipher, *tag;
} vectors[] = {
    {KEY_0, IV_0, "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"},
    {KEY_0, IV_0, "", "00000000000000000000000000000000", "cea7403d4d606b6e074ec5d3baf39d18", "d0d1c8a799996bf0265b98b5d48ab919"},
    {KEY_F, IV_F, "", PLAIN_60 "1aafd255", CIPHER_60 "898015ad", "b094dac5d93471bdec1a502270e3cc6c"},
    {KEY_F, IV_F, "feedfacedeadbeeffeedfacedeadbeefabaddad2", PLAIN_60, CIPHER_60, "76fc6ece0f4e1768cddf8853bb2d551b"},
};

static void check_vectors(const char *library)
{
	for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		uint8_t secret[SEAL_KEY_BYTES + SEAL_IV_BYTES], aad[64], plain[64], want[128], got[128], back[64];
		hex(vectors[i].key, secret);
		hex(vectors[i].iv, secret + SEAL_KEY_BYTES);
		size_t aad_bytes = hex(vectors[i].aad, aad), bytes = hex(vectors[i].plain, plain);
		hex(vectors[i].cipher, want);
		hex(vectors[i].tag, want + bytes);

		struct seal *seal = open_with(library, secret);
		struct frame_seg in = {plain, (uint32_t)bytes, 0}, dest = {back, (uint32_t)bytes, 0};
		seal_frame(seal, 0, aad, aad_bytes, &in, 1, got);
		CU_ASSERT_EQUAL(memcmp(got, want, bytes + SEAL_TAG_BYTES), 0);
		CU_ASSERT_EQUAL(seal_unseal(seal, 0, aad, aad_bytes, got, bytes, got + bytes, &dest, 1), 0);
		CU_ASSERT_EQUAL(memcmp(back, plain, bytes), 0);
		seal_close(&seal);
		CU_ASSERT_PTR_NULL(seal);
	}
}

static void test_vectors(void)
{
	check_vectors(NULL);
	check_vectors("evp");
}

static void test_library(void)
{
	setenv("TERN_SEAL", "evp", 1);
	CU_ASSERT_STRING_EQUAL(seal_library(), "evp");
	unsetenv("TERN_SEAL");
	printf("library: %s ", seal_library());
	CU_ASSERT(strcmp(seal_library(), "ipsec-mb") == 0 || strcmp(seal_library(), "evp") == 0);
}

/* A frame's number goes into the nonce's last 8 bytes, big-endian: number n under IV equals number 0 under IV xor n. */
static void test_nonce(void)
{
	uint8_t secret[SEAL_KEY_BYTES + SEAL_IV_BYTES], a[48], b[48], aad[16], text[32];
	fill(secret, sizeof(secret));
	fill(aad, sizeof(aad));
	fill(text, sizeof(text));
	struct frame_seg seg = {text, sizeof(text), 0};
	struct seal *one = open_with(NULL, secret);
	secret[SEAL_KEY_BYTES + 4] ^= 0x81;
	secret[SEAL_KEY_BYTES + 11] ^= 0x02;
	struct seal *two = open_with(NULL, secret);
	seal_frame(one, 0x8100000000000002, aad, sizeof(aad), &seg, 1, a);
	seal_frame(two, 0, aad, sizeof(aad), &seg, 1, b);
	CU_ASSERT_EQUAL(memcmp(a, b, sizeof(a)), 0);
	seal_frame(two, 1, aad, sizeof(aad), &seg, 1, b);
	CU_ASSERT_NOT_EQUAL(memcmp(a, b, sizeof(a)), 0);
	seal_close(&one);
	seal_close(&two);
}

/* Cuts `bytes` into at most SEGS segments, some of them empty. */
static size_t cut(uint8_t *base, size_t bytes, struct frame_seg *seg)
{
	size_t n = rng() % SEGS, used = 0;

	for (size_t i = 0; i < n; i++) {
		size_t take = rng() % 4 == 0 ? rng() % 40 : rng() % (bytes + 1);
		take = take > bytes - used ? bytes - used : take;
		seg[i] = (struct frame_seg){base + used, (uint32_t)take, 0};
		used += take;
	}
	seg[n] = (struct frame_seg){base + used, (uint32_t)(bytes - used), 0};
	return n + 1;
}

static uint8_t text_buf[BYTES_MAX], one_buf[BYTES_MAX + SEAL_TAG_BYTES], two_buf[BYTES_MAX + SEAL_TAG_BYTES], back_buf[BYTES_MAX];

static void test_agree(void)
{
	uint8_t secret[SEAL_KEY_BYTES + SEAL_IV_BYTES], aad[64];

	for (int round = 0; round < ROUNDS; round++) {
		size_t bytes = round < 300 ? (size_t)round : rng() % (BYTES_MAX + 1), aad_bytes = rng() % 2 ? 16 : 32;
		uint64_t number = rng();
		struct frame_seg seg[SEGS + 1];
		fill(secret, sizeof(secret));
		fill(aad, sizeof(aad));
		fill(text_buf, bytes);
		struct seal *fast = open_with(NULL, secret), *slow = open_with("evp", secret);

		seal_frame(fast, number, aad, aad_bytes, seg, cut(text_buf, bytes, seg), one_buf);
		seal_frame(slow, number, aad, aad_bytes, seg, cut(text_buf, bytes, seg), two_buf);
		CU_ASSERT_EQUAL_FATAL(memcmp(one_buf, two_buf, bytes + SEAL_TAG_BYTES), 0);
		for (int which = 0; which < 2; which++) {
			memset(back_buf, 0xee, sizeof(back_buf));
			size_t n = cut(back_buf, bytes, seg);
			CU_ASSERT_EQUAL_FATAL(seal_unseal(which ? fast : slow, number, aad, aad_bytes, one_buf, bytes, one_buf + bytes, seg, n), 0);
			CU_ASSERT_EQUAL_FATAL(memcmp(back_buf, text_buf, bytes), 0);
		}
		seal_close(&fast);
		seal_close(&slow);
	}
}

static void check_tamper(const char *library)
{
	enum { BYTES = 77, AAD = 32 };
	uint8_t secret[SEAL_KEY_BYTES + SEAL_IV_BYTES], frame[AAD + BYTES + SEAL_TAG_BYTES], text[BYTES], back[BYTES];
	fill(secret, sizeof(secret));
	fill(frame, AAD);
	fill(text, BYTES);
	struct seal *seal = open_with(library, secret);
	struct frame_seg seg = {text, BYTES, 0}, dest[2] = {{back, 50, 0}, {back + 50, BYTES - 50, 0}};
	seal_frame(seal, 9, frame, AAD, &seg, 1, frame + AAD);
	const uint8_t *in = frame + AAD, *tag = frame + AAD + BYTES;

	for (size_t bit = 0; bit < 8 * sizeof(frame); bit++) {
		frame[bit / 8] ^= (uint8_t)(1 << bit % 8);
		CU_ASSERT_EQUAL(seal_unseal(seal, 9, frame, AAD, in, BYTES, tag, dest, 2), -TERN_EAUTH);
		dest[0].bytes = BYTES;
		CU_ASSERT_EQUAL(seal_unseal(seal, 9, frame, AAD, in, BYTES, tag, dest, 1), -TERN_EAUTH);
		dest[0].bytes = 50;
		frame[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	CU_ASSERT_EQUAL(seal_unseal(seal, 10, frame, AAD, in, BYTES, tag, dest, 2), -TERN_EAUTH);
	CU_ASSERT_EQUAL(seal_unseal(seal, 9, frame, AAD - 1, in, BYTES, tag, dest, 2), -TERN_EAUTH);
	CU_ASSERT_EQUAL(seal_unseal(seal, 9, frame, AAD, in, BYTES - 1, tag, dest, 2), -TERN_EAUTH); /* and destinations that do not fit */
	CU_ASSERT_EQUAL(seal_unseal(seal, 9, frame, AAD, in, BYTES, tag, dest, 2), 0);
	CU_ASSERT_EQUAL(memcmp(back, text, BYTES), 0);
	seal_close(&seal);
}

static void test_tamper(void)
{
	check_tamper(NULL);
	check_tamper("evp");
}

static void check_in_place(const char *library)
{
	uint8_t secret[SEAL_KEY_BYTES + SEAL_IV_BYTES], aad[16];

	for (int round = 0; round < 300; round++) {
		size_t bytes = rng() % (BYTES_MAX + 1);
		fill(secret, sizeof(secret));
		fill(aad, sizeof(aad));
		fill(text_buf, bytes);
		memcpy(one_buf, text_buf, bytes);
		struct seal *seal = open_with(library, secret);
		struct frame_seg in = {text_buf, (uint32_t)bytes, 0}, same = {one_buf, (uint32_t)bytes, 0};
		seal_frame(seal, 1, aad, sizeof(aad), &in, 1, two_buf);
		seal_frame(seal, 1, aad, sizeof(aad), &same, 1, one_buf);
		CU_ASSERT_EQUAL(memcmp(one_buf, two_buf, bytes + SEAL_TAG_BYTES), 0);
		CU_ASSERT_EQUAL(seal_unseal(seal, 1, aad, sizeof(aad), one_buf, bytes, one_buf + bytes, &same, 1), 0);
		CU_ASSERT_EQUAL(memcmp(one_buf, text_buf, bytes), 0);
		seal_close(&seal);
	}
}

static void test_in_place(void)
{
	check_in_place(NULL);
	check_in_place("evp");
}

/* Counts what OpenSSL allocates; ipsec.c calls nothing that could. */
static void test_no_allocation(void)
{
	uint8_t secret[SEAL_KEY_BYTES + SEAL_IV_BYTES], aad[16], bad[SEAL_TAG_BYTES] = {0};
	fill(secret, sizeof(secret));
	fill(aad, sizeof(aad));
	struct seal *seal = open_with("evp", secret);
	struct frame_seg seg = {text_buf, 1400, 0}, dest = {back_buf, 1400, 0};
	uint64_t before = allocations;
	CU_ASSERT(before > 0); /* the hook counts */
	for (uint64_t number = 0; number < 100; number++) {
		seal_frame(seal, number, aad, sizeof(aad), &seg, 1, one_buf);
		CU_ASSERT_EQUAL(seal_unseal(seal, number, aad, sizeof(aad), one_buf, 1400, one_buf + 1400, &dest, 1), 0);
		CU_ASSERT_EQUAL(seal_unseal(seal, number, aad, sizeof(aad), one_buf, 1400, bad, &dest, 1), -TERN_EAUTH);
	}
	CU_ASSERT_EQUAL(allocations, before);
	seal_close(&seal);
}

static const struct unit_case cases[] = {
    {"vectors", test_vectors},
    {"library", test_library},
    {"nonce", test_nonce},
    {"both libraries agree", test_agree},
    {"tampering", test_tamper},
    {"in place", test_in_place},
    {"no allocation on the frame path", test_no_allocation},
};

int main(void)
{
	setbuf(stdout, NULL);
	if (CRYPTO_set_mem_functions(count_malloc, count_realloc, count_free) != 1)
		return 2;
	rng_state = unit_seed() | 1;
	return unit_main("seal", cases, sizeof(cases) / sizeof(cases[0]));
}
