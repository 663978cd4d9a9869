/* What a cipher library gives to seal.c: open, close, seal, unseal over its own key state. Seen only inside this folder; the nonce is made by seal.c.
 * One thread at a time uses one state (EVP's cipher context is not to be shared); different states may be used at once. */
#ifndef SEAL_IMPL_H
#define SEAL_IMPL_H
#include "seal/seal.h"

struct seal_impl {
	const char *name;
	/** @param key SEAL_KEY_BYTES. @return its state, NULL: no memory */
	void *(*open)(const uint8_t *key);
	/** Wipes and frees. */
	void (*close)(void *state);
	/** `out` takes the ciphertext and the tag behind it. Cannot fail in any way that would let plaintext out. */
	void (*seal)(void *state, const uint8_t *nonce, const struct frame_seg *aad, const struct frame_seg *seg, size_t n, uint8_t *out);
	/** Writes plaintext to the segments and compares tags in constant time. @return 0, -TERN_EAUTH */
	int (*unseal)(void *state, const uint8_t *nonce, const struct frame_seg *aad, const uint8_t *in, const struct frame_seg *dest, size_t n,
	              const uint8_t *tag);
};

/** @return libipsec-mb's table; NULL if it is not in this build or the CPU lacks AES and carry-less multiplication */
const struct seal_impl *seal_ipsec(void);
const struct seal_impl *seal_evp(void);

#endif
