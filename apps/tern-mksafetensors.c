/* tern-mksafetensors: writes a safetensors file of a given size with made-up content, for trying out and testing transfers. The layout is that of a
 * small language model (embedding, layers, several element types and shapes, scalars and odd sizes among them), the values are random numbers from a
 * seed: the same seed and size give the same file. Uses nothing of the library but its version. */
#include <argp.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tern/version.h"
#include "units.h"

enum { EXIT_FAILED = 1, EXIT_USAGE = 2, TENSORS_MAX = 8192, HEADER_MAX = 4 << 20, BUFFER = 1 << 20 };

/* glibc finds it by name, which -fvisibility=hidden would keep from it */
__attribute__((visibility("default"))) const char *argp_program_version = "tern-mksafetensors " TERN_VERSION_TEXT;

struct options {
	const char *file;
	uint64_t bytes, seed;
};

struct tensor {
	char name[64];
	const char *dtype;
	uint64_t element_bytes, dims, shape[4], bytes;
};

struct plan {
	struct tensor tensor[TENSORS_MAX];
	size_t n;
	uint64_t bytes;
};

static error_t option_parse(int key, char *arg, struct argp_state *state)
{
	struct options *o = state->input;
	switch (key) {
	case 'b':
		if (units_parse_bytes(arg, &o->bytes))
			argp_error(state, "--bytes %s is not a size; write for example 256MiB", arg);
		return 0;
	case 's':
		o->seed = strtoull(arg, NULL, 0);
		return 0;
	case ARGP_KEY_ARG:
		if (o->file)
			argp_error(state, "one FILE is enough, \"%s\" is a second one", arg);
		o->file = arg;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "which FILE?");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static uint64_t random_next(uint64_t *state)
{
	/* splitmix64 (Steele, Lea, Flood 2014) */
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static void tensor_add(struct plan *p, const char *name, const char *dtype, uint64_t element_bytes, const uint64_t shape[3])
{
	if (p->n == TENSORS_MAX)
		return;
	struct tensor *t = &p->tensor[p->n++];
	snprintf(t->name, sizeof(t->name), "%s", name);
	t->dtype = dtype;
	t->bytes = t->element_bytes = element_bytes;
	for (t->dims = 0; t->dims < 3 && shape[t->dims]; t->dims++) {
		t->shape[t->dims] = shape[t->dims];
		t->bytes *= shape[t->dims];
	}
	p->bytes += t->bytes;
}

/* One layer: about 3.4 h^2 bytes for width h. */
static void layer_add(struct plan *p, unsigned layer, uint64_t h)
{
	static const struct { const char *name, *dtype; uint64_t element_bytes, rows_eighths, heads;
	} parts[] = {
	        {"attn.q.weight", "BF16", 2, 8, 0},
	        {"attn.kv.weight", "F8_E4M3", 1, 4, 0},
	        {"mlp.up.weight", "F16", 2, 4, 0},
	        {"mlp.gate.weight", "I8", 1, 4, 0},
	        {"mlp.down.weight", "F32", 4, 1, 8},
	};
	char name[64];
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		uint64_t rows = h * parts[i].rows_eighths / 8;
		uint64_t shape[3] = {rows, h, 0}, split[3] = {parts[i].heads, rows / (parts[i].heads ? parts[i].heads : 1), h};
		snprintf(name, sizeof(name), "layers.%u.%s", layer, parts[i].name);
		tensor_add(p, name, parts[i].dtype, parts[i].element_bytes, parts[i].heads ? split : shape);
	}
	snprintf(name, sizeof(name), "layers.%u.norm.weight", layer);
	tensor_add(p, name, "F32", 4, (const uint64_t[3]){h, 0, 0});
	snprintf(name, sizeof(name), "layers.%u.scale", layer);
	tensor_add(p, name, "F32", 4, (const uint64_t[3]){0, 0, 0});
}

/* The rest up to the size asked for is the embedding and a small tensor of an odd number of bytes. Widest types first keeps them aligned, as writers do. */
static void plan_make(struct plan *p, uint64_t bytes)
{
	uint64_t h = bytes >= 64 << 20 ? 2048 : bytes >= 4 << 20 ? 512 : 64, layer = h * h * 7 / 2 + 4096;
	uint64_t body = bytes > layer ? bytes - bytes / 8 : bytes, width[3] = {0, h, 0};
	tensor_add(p, "rope.inv_freq", "F64", 8, (const uint64_t[3]){h / 16, 0, 0});
	for (unsigned i = 0; p->bytes + 2 * layer < body && i < 1000; i++)
		layer_add(p, i, h);
	tensor_add(p, "position_ids", "I64", 8, (const uint64_t[3]){1, 512, 0});
	width[0] = p->bytes + 4096 < bytes ? (bytes - p->bytes - 1024) / (2 * h) : 1;
	tensor_add(p, "embed.weight", "BF16", 2, width);
	uint64_t rest = p->bytes < bytes ? bytes - p->bytes : 1;
	tensor_add(p, "mask", "BOOL", 1, (const uint64_t[3]){rest, 0, 0});
}

static size_t header_write(const struct plan *p, const struct options *o, char *out)
{
	uint64_t at = 0;
	size_t n = (size_t)snprintf(
	        out, HEADER_MAX, "{\"__metadata__\":{\"format\":\"pt\",\"note\":\"made-up content, seed %llu\"}", (unsigned long long)o->seed);
	for (size_t i = 0; i < p->n; i++) {
		const struct tensor *t = &p->tensor[i];
		n += (size_t)snprintf(out + n, HEADER_MAX - n, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t->name, t->dtype);
		for (uint64_t d = 0; d < t->dims; d++)
			n += (size_t)snprintf(out + n, HEADER_MAX - n, "%s%llu", d ? "," : "", (unsigned long long)t->shape[d]);
		n += (size_t)snprintf(
		        out + n, HEADER_MAX - n, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at, (unsigned long long)(at + t->bytes));
		at += t->bytes;
	}
	out[n++] = '}';
	while (n % 8)
		out[n++] = ' ';
	return n;
}

static int body_write(uint64_t bytes, uint64_t *state, FILE *file)
{
	static uint64_t buffer[BUFFER / 8];
	while (bytes) {
		uint64_t n = bytes < BUFFER ? bytes : BUFFER;
		for (size_t i = 0; i < (n + 7) / 8; i++)
			buffer[i] = random_next(state);
		if (fwrite(buffer, 1, n, file) != n)
			return -1;
		bytes -= n;
	}
	return 0;
}

static int file_write(const struct options *o, const struct plan *p)
{
	uint64_t state = o->seed;
	char *header = malloc(HEADER_MAX);
	FILE *file = fopen(o->file, "wb");
	int bad = !header || !file;
	if (!bad) {
		uint64_t n = header_write(p, o, header);
		for (int i = 0; i < 8; i++)
			fputc((int)(n >> 8 * i & 0xff), file);
		bad = fwrite(header, 1, n, file) != n || body_write(p->bytes, &state, file);
	}
	if (file && fclose(file))
		bad = 1;
	if (bad) {
		fprintf(stderr, "tern-mksafetensors: cannot write %s: %s\n", o->file, strerror(errno));
		if (file)
			remove(o->file);
	}
	free(header);
	return bad ? EXIT_FAILED : 0;
}

int main(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"bytes", 'b', "SIZE", 0, "Bytes of tensors, at least 64KiB; default 256MiB", 0},
		{"seed", 's', "NUMBER", 0, "Another content; default 1", 0},
		{0},
	};
	static const struct argp argp = {
		.options = options,
		.parser = option_parse,
		.args_doc = "FILE",
		.doc = "Write a safetensors file with made-up content: tensors of many types and shapes, random values from a seed."
		       "\vExit status: 0 written, 1 not written, 2 wrong use.",
	};
	struct options o = {.bytes = 256 << 20, .seed = 1};
	argp_err_exit_status = EXIT_USAGE;
	argp_parse(&argp, argc, argv, 0, NULL, &o);
	struct plan *p = calloc(1, sizeof(*p));
	if (!p || o.bytes < 64 << 10) {
		fprintf(stderr, "tern-mksafetensors: --bytes must be at least 64KiB\n");
		free(p);
		return EXIT_USAGE;
	}
	plan_make(p, o.bytes);
	int rc = file_write(&o, p);
	char text[UNITS_TEXT_MAX];
	if (!rc)
		printf("%s: %zu tensors, %s, made-up content from seed %llu\n", o.file, p->n, units_bytes(text, sizeof(text), p->bytes),
		        (unsigned long long)o.seed);
	free(p);
	return rc;
}
