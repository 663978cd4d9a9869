/* AES-256-GCM by OpenSSL's EVP: where libipsec-mb is absent or the CPU has no AES instructions. Called by seal.c. Key schedules are made at open; a
 * frame sets only its nonce, and that allocates nothing in OpenSSL 3 (tests/unit/seal counts). */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include "seal/impl.h"
#include "tern/error.h"

struct evp_state {
	EVP_CIPHER_CTX *enc, *dec;
};

static void evp_close(void *state)
{
	struct evp_state *s = state;

	EVP_CIPHER_CTX_free(s->enc); /* cleanses the key schedule */
	EVP_CIPHER_CTX_free(s->dec);
	free(s);
}

static void *evp_open(const uint8_t *key)
{
	struct evp_state *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	/* a program may end while a loop seals: OpenSSL must not be taken apart under it */
	OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, NULL);
	s->enc = EVP_CIPHER_CTX_new();
	s->dec = EVP_CIPHER_CTX_new();
	if (!s->enc || !s->dec || EVP_EncryptInit_ex(s->enc, EVP_aes_256_gcm(), NULL, key, NULL) != 1 ||
	    EVP_DecryptInit_ex(s->dec, EVP_aes_256_gcm(), NULL, key, NULL) != 1) {
		evp_close(s);
		return NULL;
	}
	return s;
}

static int evp_seal_try(EVP_CIPHER_CTX *ctx, const uint8_t *nonce, const struct frame_seg *aad, const struct frame_seg *seg, size_t n, uint8_t *out)
{
	int done;

	if (EVP_EncryptInit_ex(ctx, NULL, NULL, NULL, nonce) != 1 || EVP_EncryptUpdate(ctx, NULL, &done, aad->addr, (int)aad->bytes) != 1)
		return -1;
	for (size_t i = 0; i < n; i++) {
		if (!seg[i].bytes)
			continue;
		if (EVP_EncryptUpdate(ctx, out, &done, seg[i].addr, (int)seg[i].bytes) != 1)
			return -1;
		out += seg[i].bytes;
	}
	if (EVP_EncryptFinal_ex(ctx, out, &done) != 1)
		return -1;
	return EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, SEAL_TAG_BYTES, out) == 1 ? 0 : -1;
}

static void evp_seal(void *state, const uint8_t *nonce, const struct frame_seg *aad, const struct frame_seg *seg, size_t n, uint8_t *out)
{
	size_t bytes = 0;

	if (evp_seal_try(((struct evp_state *)state)->enc, nonce, aad, seg, n, out) == 0)
		return;
	/* Not known to happen. What leaves then holds no plaintext and the peer refuses it: the frame counts as lost. */
	for (size_t i = 0; i < n; i++)
		bytes += seg[i].bytes;
	memset(out, 0, bytes + SEAL_TAG_BYTES);
}

static int evp_unseal(void *state, const uint8_t *nonce, const struct frame_seg *aad, const uint8_t *in, const struct frame_seg *dest, size_t n,
                      const uint8_t *tag)
{
	EVP_CIPHER_CTX *ctx = ((struct evp_state *)state)->dec;
	uint8_t none[SEAL_TAG_BYTES];
	int done;

	if (EVP_DecryptInit_ex(ctx, NULL, NULL, NULL, nonce) != 1 || EVP_DecryptUpdate(ctx, NULL, &done, aad->addr, (int)aad->bytes) != 1)
		return -TERN_EAUTH;
	for (size_t i = 0; i < n; i++) {
		if (!dest[i].bytes)
			continue;
		if (EVP_DecryptUpdate(ctx, dest[i].addr, &done, in, (int)dest[i].bytes) != 1)
			return -TERN_EAUTH;
		in += dest[i].bytes;
	}
	if (EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, SEAL_TAG_BYTES, (void *)tag) != 1)
		return -TERN_EAUTH;
	return EVP_DecryptFinal_ex(ctx, none, &done) == 1 ? 0 : -TERN_EAUTH; /* compares by CRYPTO_memcmp */
}

const struct seal_impl *seal_evp(void)
{
	static const struct seal_impl impl = {"evp", evp_open, evp_close, evp_seal, evp_unseal};

	return &impl;
}
