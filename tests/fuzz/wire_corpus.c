/* Writes the corpus of wire_fuzz.c into a folder: a MIX frame of each record type, one of several, a BULK header, hellos. Always the same files:
 *   build/tests/fuzz/wire_corpus tests/fuzz/corpus/wire
 * Run by hand after the format changed; what libFuzzer found beside them stays. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "unit/wire/record_make.h"
#include "wire/hello.h"

static int corpus_write(const char *folder, const char *name, const uint8_t *data, size_t bytes)
{
	char path[4096];
	if (snprintf(path, sizeof(path), "%s/%s", folder, name) >= (int)sizeof(path))
		return 1;
	FILE *file = fopen(path, "wb");
	if (!file || fwrite(data, 1, bytes, file) != bytes || fclose(file)) {
		perror(path);
		return 1;
	}
	return 0;
}

static size_t frame_begin(uint8_t type, uint8_t *out)
{
	struct wire_header h = {.version = WIRE_VERSION, .type = type, .flags = WIRE_SEALED, .path_id = 1, .flow_id = 0x1234, .number = 77,
				.channel = 2, .seq = 5, .offset = 65536};
	return wire_header_encode(&h, out);
}

/* A record short enough for a small corpus. */
static struct wire_record record_small(uint64_t *seed, uint8_t type, const uint8_t *data)
{
	struct wire_record r;
	do
		r = make_record(seed, type, data);
	while (wire_record_bytes(&r) > 160);
	return r;
}

static int frames_write(const char *folder)
{
	static const uint8_t data[WIRE_INLINE_MAX];
	uint8_t out[4096], all[4096];
	uint64_t seed = 1;
	size_t all_bytes = frame_begin(WIRE_MIX, all);
	for (uint8_t type = 1; type < WIRE_RECORD_END; type++) {
		char name[32];
		struct wire_record r = record_small(&seed, type, data);
		size_t bytes = frame_begin(WIRE_MIX, out);
		bytes += wire_record_encode(&r, out + bytes, sizeof(out) - bytes);
		all_bytes += wire_record_encode(&r, all + all_bytes, sizeof(all) - all_bytes);
		snprintf(name, sizeof(name), "mix_%02u", type);
		if (corpus_write(folder, name, out, bytes))
			return 1;
	}
	memcpy(all + all_bytes, (const uint8_t[]){200, WIRE_RECORD_OPTIONAL, 5, 0, 9, 0, 0}, 7); /* unknown but optional, and padding */
	if (corpus_write(folder, "mix_all", all, all_bytes + 7))
		return 1;
	for (uint8_t flags = 0; flags <= WIRE_HEAD_FLAGS_ALL; flags += 7) {
		char name[32];
		struct wire_record r;
		do
			r = record_small(&seed, WIRE_HEAD, data);
		while (r.head.flags != (flags & WIRE_HEAD_CLAIM ? flags & ~WIRE_HEAD_INLINE : flags));
		snprintf(name, sizeof(name), "head_%02u", flags);
		if (corpus_write(folder, name, out, wire_record_encode(&r, out, sizeof(out))))
			return 1;
	}
	memset(out, 0x42, 64);
	return corpus_write(folder, "bulk", out, frame_begin(WIRE_BULK, out) + 8);
}

static int hellos_write(const char *folder)
{
	struct wire_hello h;
	uint8_t out[WIRE_HELLO_MAX];
	wire_hello_init(&h);
	if (corpus_write(folder, "hello_least", out, wire_hello_encode(&h, out, sizeof(out))))
		return 1;
	h.paths = 2;
	h.path[0] = (struct wire_hello_path){.path_id = 0, .flow_id = 7, .udp_port = 7400, .mtu_bytes = 1472, .link_bytes = 4, .link = {10, 0, 0, 1}};
	h.path[1] = (struct wire_hello_path){.path_id = 1, .flow_id = 8};
	h.flags = WIRE_HELLO_PRIVATE;
	strcpy(h.name, "node a");
	if (corpus_write(folder, "hello_paths", out, wire_hello_encode(&h, out, sizeof(out))))
		return 1;
	h.paths = 0;
	h.status = 9;
	strcpy(h.error_text, "versions 2 to 3 here");
	return corpus_write(folder, "hello_refusal", out, wire_hello_encode(&h, out, sizeof(out)));
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
		return 2;
	}
	return frames_write(argv[1]) || hellos_write(argv[1]);
}
