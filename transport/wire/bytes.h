/* Little-endian integers at any address. Used by wire's encoders and decoders only; each is one load or store on x86 and arm64. Knows nothing
 * of lengths: the caller has checked them. */
#ifndef WIRE_BYTES_H
#define WIRE_BYTES_H
#include <endian.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t wire_get16(const uint8_t *in)
{
	uint16_t v;
	memcpy(&v, in, sizeof(v));
	return le16toh(v);
}

static inline uint32_t wire_get32(const uint8_t *in)
{
	uint32_t v;
	memcpy(&v, in, sizeof(v));
	return le32toh(v);
}

static inline uint64_t wire_get64(const uint8_t *in)
{
	uint64_t v;
	memcpy(&v, in, sizeof(v));
	return le64toh(v);
}

static inline void wire_put16(uint8_t *out, uint16_t v)
{
	v = htole16(v);
	memcpy(out, &v, sizeof(v));
}

static inline void wire_put32(uint8_t *out, uint32_t v)
{
	v = htole32(v);
	memcpy(out, &v, sizeof(v));
}

static inline void wire_put64(uint8_t *out, uint64_t v)
{
	v = htole64(v);
	memcpy(out, &v, sizeof(v));
}

#endif
