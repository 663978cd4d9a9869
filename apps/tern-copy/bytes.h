/* Little-endian fields in a bounded buffer, for messages. A write or read past the end sets `bad` and does nothing, so that callers check once. */
#ifndef COPY_BYTES_H
#define COPY_BYTES_H
#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct bytes {
	uint8_t *at, *end;
	bool bad;
};

static inline void bytes_put(struct bytes *b, const void *data, size_t n)
{
	if ((size_t)(b->end - b->at) < n) {
		b->bad = true;
		return;
	}
	if (n)
		memcpy(b->at, data, n);
	b->at += n;
}

static inline void bytes_put32(struct bytes *b, uint32_t v)
{
	v = htole32(v);
	bytes_put(b, &v, sizeof(v));
}

static inline void bytes_put64(struct bytes *b, uint64_t v)
{
	v = htole64(v);
	bytes_put(b, &v, sizeof(v));
}

/* @return the n bytes in place, NULL past the end */
static inline const uint8_t *bytes_get(struct bytes *b, size_t n)
{
	const uint8_t *at = b->at;
	if (b->bad || (size_t)(b->end - b->at) < n) {
		b->bad = true;
		return NULL;
	}
	b->at += n;
	return at;
}

static inline uint32_t bytes_get32(struct bytes *b)
{
	uint32_t v = 0;
	const uint8_t *at = bytes_get(b, sizeof(v));
	if (at)
		memcpy(&v, at, sizeof(v));
	return le32toh(v);
}

static inline uint64_t bytes_get64(struct bytes *b)
{
	uint64_t v = 0;
	const uint8_t *at = bytes_get(b, sizeof(v));
	if (at)
		memcpy(&v, at, sizeof(v));
	return le64toh(v);
}

#endif
