/* AES-256-GCM by libipsec-mb's direct functions: one call for a contiguous payload, init/update/finalize for several segments. Called by seal.c.
 * The functions are stateless but for the key data and the context on the stack, so a manager is needed only to learn which variant suits this CPU:
 * it is asked once a process and freed again. */
#include <intel-ipsec-mb.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "seal/impl.h"
#include "tern/error.h"

enum { KEY_ALIGN = 64 };

static struct {
	aes_gcm_pre_t pre;
	aes_gcm_init_t init;
	aes_gcm_enc_dec_t enc, dec;
	aes_gcm_enc_dec_update_t enc_update, dec_update;
	aes_gcm_enc_dec_finalize_t enc_finalize, dec_finalize;
} fn;
static int usable;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void ipsec_choose(void)
{
	const uint64_t need = IMB_FEATURE_AESNI | IMB_FEATURE_PCLMULQDQ; /* without them the library emulates, slower than EVP */
	IMB_MGR *mgr = alloc_mb_mgr(0);

	if (!mgr)
		return;
	init_mb_mgr_auto(mgr, NULL);
	if (imb_get_errno(mgr) == 0 && (mgr->features & need) == need) {
		fn.pre = mgr->gcm256_pre;
		fn.init = mgr->gcm256_init;
		fn.enc = mgr->gcm256_enc;
		fn.dec = mgr->gcm256_dec;
		fn.enc_update = mgr->gcm256_enc_update;
		fn.dec_update = mgr->gcm256_dec_update;
		fn.enc_finalize = mgr->gcm256_enc_finalize;
		fn.dec_finalize = mgr->gcm256_dec_finalize;
		usable = 1;
	}
	free_mb_mgr(mgr);
}

static void *ipsec_open(const uint8_t *key)
{
	size_t bytes = (sizeof(struct gcm_key_data) + KEY_ALIGN - 1) / KEY_ALIGN * KEY_ALIGN;
	struct gcm_key_data *state = aligned_alloc(KEY_ALIGN, bytes);

	if (!state)
		return NULL;
	memset(state, 0, bytes); /* which fields are used depends on the variant */
	fn.pre(key, state);
	return state;
}

static void ipsec_close(void *state)
{
	explicit_bzero(state, sizeof(struct gcm_key_data));
	free(state);
}

static void ipsec_seal(void *state, const uint8_t *nonce, const struct frame_seg *aad, const struct frame_seg *seg, size_t n, uint8_t *out)
{
	struct gcm_context_data ctx;

	if (n == 1) {
		fn.enc(state, &ctx, out, seg->addr, seg->bytes, nonce, aad->addr, aad->bytes, out + seg->bytes, SEAL_TAG_BYTES);
		return;
	}
	fn.init(state, &ctx, nonce, aad->addr, aad->bytes);
	for (size_t i = 0; i < n; i++) {
		if (!seg[i].bytes)
			continue;
		fn.enc_update(state, &ctx, out, seg[i].addr, seg[i].bytes);
		out += seg[i].bytes;
	}
	fn.enc_finalize(state, &ctx, out, SEAL_TAG_BYTES);
}

static int ipsec_unseal(void *state, const uint8_t *nonce, const struct frame_seg *aad, const uint8_t *in, const struct frame_seg *dest, size_t n,
                        const uint8_t *tag)
{
	struct gcm_context_data ctx;
	uint8_t want[SEAL_TAG_BYTES];

	if (n == 1) {
		fn.dec(state, &ctx, dest->addr, in, dest->bytes, nonce, aad->addr, aad->bytes, want, SEAL_TAG_BYTES);
	} else {
		fn.init(state, &ctx, nonce, aad->addr, aad->bytes);
		for (size_t i = 0; i < n; i++) {
			if (!dest[i].bytes)
				continue;
			fn.dec_update(state, &ctx, dest[i].addr, in, dest[i].bytes);
			in += dest[i].bytes;
		}
		fn.dec_finalize(state, &ctx, want, SEAL_TAG_BYTES);
	}
	return CRYPTO_memcmp(want, tag, SEAL_TAG_BYTES) == 0 ? 0 : -TERN_EAUTH;
}

const struct seal_impl *seal_ipsec(void)
{
	static const struct seal_impl impl = {"ipsec-mb", ipsec_open, ipsec_close, ipsec_seal, ipsec_unseal};

	pthread_once(&once, ipsec_choose);
	return usable ? &impl : NULL;
}
