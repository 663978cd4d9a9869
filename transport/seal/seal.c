/* Sealing: picks the cipher library when a seal is opened and makes the nonces. Called by loop/; knows no cipher. */
#include <stdlib.h>
#include <string.h>
#include "seal/impl.h"
#include "tern/error.h"

struct seal {
	const struct seal_impl *impl;
	void *state;
	uint8_t iv[SEAL_IV_BYTES];
};

static const struct seal_impl *seal_choose(void)
{
	const char *wish = getenv("TERN_SEAL");
	const struct seal_impl *impl = wish && strcmp(wish, "evp") == 0 ? NULL : seal_ipsec();

	return impl ? impl : seal_evp();
}

const char *seal_library(void)
{
	return seal_choose()->name;
}

int seal_open(const uint8_t *secret, struct seal **out)
{
	struct seal *seal = calloc(1, sizeof(*seal));

	*out = NULL;
	if (!seal)
		return -TERN_ENOMEM;
	seal->impl = seal_choose();
	seal->state = seal->impl->open(secret);
	if (!seal->state) {
		free(seal);
		return -TERN_ENOMEM;
	}
	memcpy(seal->iv, secret + SEAL_KEY_BYTES, SEAL_IV_BYTES);
	*out = seal;
	return 0;
}

void seal_close(struct seal **seal)
{
	struct seal *s = *seal;

	if (!s)
		return;
	s->impl->close(s->state);
	explicit_bzero(s, sizeof(*s));
	free(s);
	*seal = NULL;
}

/* RFC 8446 section 5.3: the number, big-endian and padded on the left, xor the IV. */
static void seal_nonce(const struct seal *seal, uint64_t number, uint8_t *nonce)
{
	uint64_t be = __builtin_bswap64(number), low;

	memcpy(nonce, seal->iv, SEAL_IV_BYTES);
	memcpy(&low, nonce + 4, 8);
	low ^= be;
	memcpy(nonce + 4, &low, 8);
}

void seal_frame(struct seal *seal, uint64_t number, const uint8_t *aad, size_t aad_bytes, const struct frame_seg *seg, size_t n, uint8_t *out)
{
	struct frame_seg head = {.addr = (uint8_t *)aad, .bytes = (uint32_t)aad_bytes};
	uint8_t nonce[SEAL_IV_BYTES];

	seal_nonce(seal, number, nonce);
	seal->impl->seal(seal->state, nonce, &head, seg, n, out);
}

int seal_unseal(struct seal *seal, uint64_t number, const uint8_t *aad, size_t aad_bytes, const uint8_t *in, size_t bytes, const uint8_t *tag,
                const struct frame_seg *dest, size_t n)
{
	struct frame_seg head = {.addr = (uint8_t *)aad, .bytes = (uint32_t)aad_bytes};
	uint8_t nonce[SEAL_IV_BYTES];
	size_t room = 0;

	for (size_t i = 0; i < n; i++)
		room += dest[i].bytes;
	if (room != bytes) /* a frame that does not fill its place exactly was not made by a sound peer */
		return -TERN_EAUTH;
	seal_nonce(seal, number, nonce);
	return seal->impl->unseal(seal->state, nonce, &head, in, dest, n, tag);
}
