/* Parser of safetensors headers. Called by tern-copy before a file is sent and by the fuzzer with anything. Trusts no byte: bounds first, then JSON
 * (by jansson, duplicate keys refused), then each tensor, then all of them together. Must not open files. */
#include "safetensors.h"
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tern/tensor.h"

/* Sizes in bits: the packed 4- and 6-bit types of newer files are legal as long as a tensor ends on a byte. */
struct st_type {
	const char *name;
	uint32_t bits, dtype;
};

static const struct st_type types[] = {
	{"F64", 64, TERN_F64}, {"F32", 32, TERN_F32}, {"F16", 16, TERN_F16}, {"BF16", 16, TERN_BF16}, {"F8_E4M3", 8, TERN_F8E4M3},
	{"F8_E5M2", 8, TERN_F8E5M2}, {"I64", 64, TERN_I64}, {"I32", 32, TERN_I32}, {"I16", 16, TERN_I16}, {"I8", 8, TERN_I8}, {"U8", 8, TERN_U8},
	{"BOOL", 8, TERN_BOOL}, {"U16", 16, TERN_U16}, {"U32", 32, TERN_U32}, {"U64", 64, TERN_U64}, {"F8_E8M0", 8, TERN_RAW}, {"C64", 64, TERN_RAW},
	{"F4", 4, TERN_RAW}, {"F6_E2M3", 6, TERN_RAW}, {"F6_E3M2", 6, TERN_RAW},
};

__attribute__((format(printf, 2, 3))) static int fail(struct st_file *f, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(f->error, sizeof(f->error), format, args);
	va_end(args);
	return -1;
}

static const struct st_type *type_find(const char *name)
{
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (!strcmp(types[i].name, name))
			return &types[i];
	return NULL;
}

/* A bound before jansson's own recursion (2048) costs stack: brackets outside strings are counted. */
static int depth_check(struct st_file *f, const char *json, size_t n)
{
	unsigned depth = 0;
	int in_string = 0;
	for (size_t i = 0; i < n; i++) {
		char c = json[i];
		if (in_string) {
			if (c == '\\')
				i++;
			else if (c == '"')
				in_string = 0;
			continue;
		}
		if (c == '"')
			in_string = 1;
		else if ((c == '{' || c == '[') && ++depth > ST_DEPTH_MAX)
			return fail(f,
			        "the header nests deeper than %d levels at byte %zu: this is not a safetensors header; copy the file with --raw",
			        ST_DEPTH_MAX, i + 8);
		else if ((c == '}' || c == ']') && depth)
			depth--;
	}
	return 0;
}

static int u64_get(const json_t *value, uint64_t *out)
{
	if (!json_is_integer(value) || json_integer_value(value) < 0)
		return -1;
	*out = (uint64_t)json_integer_value(value);
	return 0;
}

static int shape_get(struct st_file *f, struct st_tensor *t, const json_t *shape)
{
	if (!json_is_array(shape))
		return fail(f, "tensor '%.100s': shape is not a list of numbers; write the file again", t->name);
	if (json_array_size(shape) > ST_DIMS_MAX)
		return fail(f, "tensor '%.100s' has %zu dimensions, the limit is %d; copy the file with --raw", t->name, json_array_size(shape),
		        ST_DIMS_MAX);
	t->dims = (uint32_t)json_array_size(shape);
	t->shape = calloc(t->dims ? t->dims : 1, sizeof(*t->shape));
	if (!t->shape)
		return fail(f, "tensor '%.100s': no memory", t->name);
	for (uint32_t i = 0; i < t->dims; i++)
		if (u64_get(json_array_get(shape, i), &t->shape[i]))
			return fail(f, "tensor '%.100s': dimension %u is not a number >= 0; write the file again", t->name, i);
	return 0;
}

static int size_check(struct st_file *f, const struct st_tensor *t, const struct st_type *type)
{
	uint64_t bits = type->bits;
	for (uint32_t i = 0; i < t->dims; i++)
		if (t->shape[i] == 0)
			bits = 0;
	for (uint32_t i = 0; i < t->dims && bits; i++)
		if (__builtin_mul_overflow(bits, t->shape[i], &bits))
			return fail(f, "tensor '%.100s': the product of its shape overflows 64 bits at dimension %u (%llu); write the file again",
			        t->name, i, (unsigned long long)t->shape[i]);
	if (bits % 8 || bits / 8 != t->end - t->begin)
		return fail(f, "tensor '%.100s': shape and %s need %llu bytes, data_offsets give %llu; write the file again", t->name, type->name,
			    (unsigned long long)(bits / 8), (unsigned long long)(t->end - t->begin));
	return 0;
}

static int offsets_get(struct st_file *f, struct st_tensor *t, const json_t *offsets, uint64_t file_bytes)
{
	uint64_t begin, end, data = file_bytes - f->data_offset;
	if (!json_is_array(offsets) || json_array_size(offsets) != 2 || u64_get(json_array_get(offsets, 0), &begin) ||
	    u64_get(json_array_get(offsets, 1), &end))
		return fail(f, "tensor '%.100s': data_offsets is not [begin, end]; write the file again", t->name);
	if (begin > end)
		return fail(f, "tensor '%.100s': data_offsets begin at %llu behind their end %llu; write the file again", t->name,
		        (unsigned long long)begin, (unsigned long long)end);
	if (end > data)
		return fail(f, "tensor '%.100s' ends at data byte %llu, but the file holds only %llu: it is truncated, fetch it again", t->name,
			    (unsigned long long)end, (unsigned long long)data);
	t->begin = f->data_offset + begin;
	t->end = f->data_offset + end;
	return 0;
}

static int tensor_get(struct st_file *f, const char *name, const json_t *value, uint64_t file_bytes)
{
	struct st_tensor *t = &f->tensor[f->n];
	const char *key;
	json_t *unused;
	t->name = strdup(name);
	f->n++; /* counted first: st_fini frees what a failure below leaves half done */
	if (!t->name)
		return fail(f, "tensor '%.100s': no memory", name);
	if (!json_is_object(value))
		return fail(f, "tensor '%.100s' is not described by an object; write the file again", name);
	json_object_foreach((json_t *)value, key, unused)
		if (strcmp(key, "dtype") && strcmp(key, "shape") && strcmp(key, "data_offsets"))
			return fail(f, "tensor '%.100s' has the unknown key '%.60s'; copy the file with --raw", name, key);
	const char *dtype = json_string_value(json_object_get(value, "dtype"));
	const struct st_type *type = dtype ? type_find(dtype) : NULL;
	if (!type)
		return fail(f, "tensor '%.100s' has the unknown dtype '%.40s'; copy the file with --raw", name, dtype ? dtype : "(none)");
	t->dtype = type->dtype;
	t->element_bytes = type->dtype == TERN_RAW ? 1 : type->bits / 8;
	if (shape_get(f, t, json_object_get(value, "shape")) || offsets_get(f, t, json_object_get(value, "data_offsets"), file_bytes))
		return -1;
	return size_check(f, t, type);
}

static int metadata_check(struct st_file *f, const json_t *metadata)
{
	const char *key;
	json_t *value;
	if (!json_is_object(metadata))
		return fail(f, "__metadata__ is not an object; write the file again");
	json_object_foreach((json_t *)metadata, key, value)
		if (!json_is_string(value))
			return fail(f, "__metadata__ key '%.100s' is not a string; write the file again", key);
	return 0;
}

static int by_begin(const void *a, const void *b)
{
	const struct st_tensor *x = a, *y = b;
	if (x->begin != y->begin)
		return x->begin < y->begin ? -1 : 1;
	return x->end < y->end ? -1 : x->end > y->end; /* empty tensors before the one that begins there */
}

/* The format has no holes and no overlaps: sorted, each tensor begins where the one before ended, and the last ends the file. */
static int cover_check(struct st_file *f, uint64_t file_bytes)
{
	uint64_t at = f->data_offset;
	const char *before = "the header";
	for (size_t i = 0; i < f->n; i++) {
		const struct st_tensor *t = &f->tensor[i];
		if (t->begin < at)
			return fail(f, "tensor '%.100s' overlaps '%.100s' by %llu bytes; write the file again", t->name, before,
			        (unsigned long long)(at - t->begin));
		if (t->begin > at)
			return fail(f,
			        "%llu bytes between '%.100s' and tensor '%.100s' belong to no tensor; write the file again, or copy it with --raw",
			        (unsigned long long)(t->begin - at), before, t->name);
		at = t->end;
		before = t->name;
	}
	if (at != file_bytes)
		return fail(f, "%llu bytes behind '%.100s' belong to no tensor; write the file again, or copy it with --raw",
			    (unsigned long long)(file_bytes - at), before);
	return 0;
}

static int object_get(struct st_file *f, const json_t *root, uint64_t file_bytes)
{
	const char *name;
	json_t *value;
	size_t n = json_object_size(root);
	if (n > ST_TENSORS_MAX)
		return fail(f, "the header names %zu tensors, the limit is %d; copy the file with --raw", n, ST_TENSORS_MAX);
	f->tensor = calloc(n ? n : 1, sizeof(*f->tensor));
	if (!f->tensor)
		return fail(f, "no memory for %zu tensors", n);
	json_object_foreach((json_t *)root, name, value)
		if (!strcmp(name, "__metadata__") ? metadata_check(f, value) : tensor_get(f, name, value, file_bytes))
			return -1;
	qsort(f->tensor, f->n, sizeof(*f->tensor), by_begin);
	return cover_check(f, file_bytes);
}

int st_parse(const uint8_t *bytes, size_t room, uint64_t file_bytes, struct st_file *out)
{
	json_error_t error;
	uint64_t header = 0;
	memset(out, 0, sizeof(*out));
	if (room < 8 || file_bytes < 8)
		return fail(out, "the file has %llu bytes, a safetensors file has at least 10: it is truncated, fetch it again",
		        (unsigned long long)file_bytes);
	for (int i = 7; i >= 0; i--)
		header = header << 8 | bytes[i];
	if (header > ST_HEADER_MAX_BYTES)
		return fail(out, "the header's length is %llu bytes, the format's limit is %d: this is not a safetensors file; copy it with --raw",
			    (unsigned long long)header, ST_HEADER_MAX_BYTES);
	if (header > file_bytes - 8 || header > room - 8)
		return fail(out, "the header should have %llu bytes, the file has %llu: it is truncated, fetch it again", (unsigned long long)header,
			    (unsigned long long)file_bytes);
	if (header < 2 || bytes[8] != '{')
		return fail(out, "the header does not begin with '{': this is not a safetensors file; copy it with --raw");
	out->data_offset = 8 + header;
	if (depth_check(out, (const char *)bytes + 8, (size_t)header))
		return -1;
	/* The header may be padded with spaces behind the object, which jansson accepts. */
	json_t *root = json_loadb((const char *)bytes + 8, (size_t)header, JSON_REJECT_DUPLICATES, &error);
	if (!root)
		return fail(out, "the header is not valid JSON at byte %d: %.200s; fetch the file again", error.position + 8, error.text);
	int rc = json_is_object(root) ? object_get(out, root, file_bytes) : fail(out, "the header is not a JSON object; copy the file with --raw");
	json_decref(root);
	return rc;
}

void st_fini(struct st_file *file)
{
	for (size_t i = 0; i < file->n; i++) {
		free(file->tensor[i].name);
		free(file->tensor[i].shape);
	}
	free(file->tensor);
	file->tensor = NULL;
	file->n = 0;
}
