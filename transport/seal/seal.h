/* Sealing of frames with AES-256-GCM: four functions over a cipher library (libipsec-mb, else OpenSSL's EVP). The only place that knows a cipher.
 * Called by loop/. A key belongs to one path, direction and phase; the nonce is the key's 12-byte IV xor the frame's number (last 8 bytes,
 * big-endian), so a (key, number) must be sealed once (DESIGN 5.4); that is the caller's to keep. One thread at a time uses one seal. */
#ifndef SEAL_SEAL_H
#define SEAL_SEAL_H
#include <stddef.h>
#include <stdint.h>
#include "base/frame.h"

enum { SEAL_KEY_BYTES = 32, SEAL_IV_BYTES = 12, SEAL_TAG_BYTES = 16 };

struct seal;

/** @param secret  SEAL_KEY_BYTES + SEAL_IV_BYTES bytes, copied. @return 0, -TERN_ENOMEM */
int seal_open(const uint8_t *secret, struct seal **out);
/** Wipes and frees; sets NULL. */
void seal_close(struct seal **seal);
/**
 * Reads the payload segments, writes ciphertext and tag to out, one pass.
 * @param aad  the frame's clear header
 * @param out  room for the payload's bytes + SEAL_TAG_BYTES; may equal seg[0].addr when n is 1
 */
void seal_frame(struct seal *seal, uint64_t number, const uint8_t *aad, size_t aad_bytes, const struct frame_seg *seg, size_t n, uint8_t *out);
/**
 * Opens `bytes` of ciphertext (tag excluded) into the destination segments, one pass.
 * @return 0; -TERN_EAUTH: forged, damaged, or the segments are not exactly `bytes` long; then the destination's contents are undefined
 */
int seal_unseal(struct seal *seal, uint64_t number, const uint8_t *aad, size_t aad_bytes, const uint8_t *in, size_t bytes, const uint8_t *tag,
                const struct frame_seg *dest, size_t n);
/** Which library the next seal_open takes: "ipsec-mb" or "evp"; TERN_SEAL=evp in the environment forces the fallback. */
const char *seal_library(void);

#endif
