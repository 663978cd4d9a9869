/* Fuzz target over all of wire/: the header, the records behind it and at the very start, and the hello. What decodes must encode again:
 * headers and records to the very bytes they came from, as each has one accepted encoding; a hello to one that decodes to the same. */
#include <stdlib.h>
#include <string.h>
#include "wire/hello.h"
#include "wire/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void require(int holds)
{
	if (!holds)
		abort();
}

static size_t fuzz_header(const uint8_t *data, size_t bytes)
{
	struct wire_header h;
	uint8_t again[WIRE_BULK_HEADER_BYTES];
	size_t used = wire_header_decode(data, bytes, &h);
	require(used <= bytes);
	if (used)
		require(wire_header_encode(&h, again) == used && !memcmp(again, data, used));
	return used;
}

/* `at` may be behind unknown optional records that decoding skipped: the record is the last of `used` bytes. */
static void fuzz_record(const struct wire_record *r, const uint8_t *at, size_t used)
{
	uint8_t again[WIRE_RECORD_MAX];
	size_t bytes = wire_record_bytes(r);
	require(bytes <= used && bytes <= sizeof(again));
	require(wire_record_encode(r, again, bytes - 1) == 0);
	require(wire_record_encode(r, again, bytes) == bytes);
	require(!memcmp(again, at + used - bytes, bytes));
	if (r->type == WIRE_HEAD && r->head.data) /* inline bytes lie inside the record */
		require(r->head.data >= at && r->head.data + r->head.bytes == at + used);
}

static void fuzz_records(const uint8_t *data, size_t bytes)
{
	size_t at = 0;
	while (at <= bytes) {
		struct wire_record r;
		long used = wire_record_decode(data + at, bytes - at, &r);
		require(used <= (long)(bytes - at));
		if (used <= 0)
			return;
		fuzz_record(&r, data + at, (size_t)used);
		at += (size_t)used;
	}
}

static void fuzz_hello(const uint8_t *data, size_t bytes)
{
	struct wire_hello h;
	uint8_t first[WIRE_HELLO_MAX], second[WIRE_HELLO_MAX];
	long used = wire_hello_decode(data, bytes, &h);
	require(used <= (long)bytes);
	if (used <= 0)
		return;
	size_t length = wire_hello_encode(&h, first, sizeof(first));
	require(length > 0);
	require(wire_hello_decode(first, length, &h) == (long)length);
	require(wire_hello_encode(&h, second, sizeof(second)) == length && !memcmp(first, second, length));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	size_t header = fuzz_header(data, bytes);
	fuzz_records(data, bytes);
	if (header)
		fuzz_records(data + header, bytes - header);
	fuzz_hello(data, bytes);
	return 0;
}
