/* The manifest: see manifest.h. The sender fills it (walk.c), encodes it and sends it as one message; the receiver decodes it. Both then derive the
 * same list of pieces from it (plan.c), so chunks need no headers. Must not touch files or sockets. */
#include "manifest.h"
#include <stdio.h>
#include <stdlib.h>
#include "bytes.h"

enum { ENTRY_FIXED_BYTES = 40, TENSOR_FIXED_BYTES = 16 };

struct manifest_entry *manifest_add(struct manifest *m, const char *path, size_t path_bytes)
{
	if (m->n == m->room) {
		size_t room = m->room ? 2 * m->room : 64;
		struct manifest_entry *entry = realloc(m->entry, room * sizeof(*entry));
		if (!entry)
			return NULL;
		m->entry = entry;
		m->room = room;
	}
	struct manifest_entry *e = &m->entry[m->n];
	memset(e, 0, sizeof(*e));
	e->path = strndup(path, path_bytes);
	if (!e->path)
		return NULL;
	m->n++;
	return e;
}

void manifest_fini(struct manifest *m)
{
	for (size_t i = 0; i < m->n; i++) {
		free(m->entry[i].path);
		free(m->entry[i].source);
		free(m->entry[i].tensor);
	}
	free(m->entry);
	memset(m, 0, sizeof(*m));
}

static size_t encoded_bytes(const struct manifest *m)
{
	size_t bytes = 0;
	for (size_t i = 0; i < m->n; i++) {
		bytes += ENTRY_FIXED_BYTES + strlen(m->entry[i].path);
		for (uint32_t t = 0; t < m->entry[i].tensors; t++)
			bytes += TENSOR_FIXED_BYTES + 8 * m->entry[i].tensor[t].dims;
	}
	return bytes;
}

/* A tensor's beginning is the end of the one before: it is not sent. */
static void entry_put(struct bytes *b, const struct manifest_entry *e)
{
	bytes_put32(b, e->kind);
	bytes_put32(b, e->mode);
	bytes_put64(b, e->bytes);
	bytes_put64(b, e->mtime_ns);
	bytes_put64(b, e->header_bytes);
	bytes_put32(b, e->tensors);
	bytes_put32(b, (uint32_t)strlen(e->path));
	bytes_put(b, e->path, strlen(e->path));
	for (uint32_t t = 0; t < e->tensors; t++) {
		const struct manifest_tensor *tensor = &e->tensor[t];
		bytes_put32(b, tensor->dtype);
		bytes_put32(b, tensor->dims);
		bytes_put64(b, tensor->end);
		for (uint32_t d = 0; d < tensor->dims; d++)
			bytes_put64(b, tensor->shape[d]);
	}
}

int manifest_encode(const struct manifest *m, uint8_t **out, uint64_t *bytes, struct copy_error *error)
{
	*bytes = encoded_bytes(m);
	if (m->n > MANIFEST_FILES_MAX || *bytes > MANIFEST_BYTES_MAX)
		return copy_fail(error, COPY_USAGE, "%zu files are too many for one transfer (limit %d, list of %d MiB); copy in parts", m->n,
				 MANIFEST_FILES_MAX, MANIFEST_BYTES_MAX >> 20);
	*out = malloc(*bytes ? *bytes : 1);
	if (!*out)
		return copy_fail(error, COPY_FAILED, "no memory for a list of %zu files", m->n);
	struct bytes b = {.at = *out, .end = *out + *bytes};
	for (size_t i = 0; i < m->n; i++)
		entry_put(&b, &m->entry[i]);
	return 0;
}

const char *manifest_path_wrong(const char *path)
{
	size_t suffix = strlen(MANIFEST_TEMP_SUFFIX);
	if (!*path)
		return "is empty";
	if (*path == '/')
		return "is absolute";
	if (strlen(path) > MANIFEST_PATH_MAX)
		return "is longer than 4095 bytes";
	for (const char *name = path;;) {
		size_t n = strcspn(name, "/");
		if (n == 0)
			return "has an empty name in it";
		if (n > MANIFEST_NAME_MAX)
			return "has a name longer than 255 bytes in it";
		if (n <= 2 && !strncmp(name, "..", n))
			return "has \".\" or \"..\" in it";
		if (n >= strlen(MANIFEST_JOURNAL) && !strncmp(name, MANIFEST_JOURNAL, strlen(MANIFEST_JOURNAL)))
			return "is the name of tern-copy's own journal";
		if (n > suffix && name[0] == '.' && !strncmp(name + n - suffix, MANIFEST_TEMP_SUFFIX, suffix))
			return "is a name that tern-copy gives to unfinished files";
		if (!name[n])
			return NULL;
		name += n + 1;
	}
}

/* Order in which a folder stands directly before what is in it: '/' sorts before every other byte. */
static int path_order(const char *a, const char *b)
{
	for (; *a && *a == *b; a++, b++)
		;
	int x = *a == '/' ? 1 : (unsigned char)*a + 1, y = *b == '/' ? 1 : (unsigned char)*b + 1;
	return (*a ? x : 0) - (*b ? y : 0);
}

static int by_path(const void *a, const void *b)
{
	return path_order((*(struct manifest_entry *const *)a)->path, (*(struct manifest_entry *const *)b)->path);
}

int manifest_unique(const struct manifest *m, struct copy_error *error)
{
	const struct manifest_entry **sorted = malloc((m->n ? m->n : 1) * sizeof(*sorted));
	const char *twice = NULL;
	if (!sorted)
		return copy_fail(error, COPY_FAILED, "no memory for %zu files", m->n);
	for (size_t i = 0; i < m->n; i++)
		sorted[i] = &m->entry[i];
	qsort(sorted, m->n, sizeof(*sorted), by_path);
	for (size_t i = 0; i + 1 < m->n && !twice; i++) {
		size_t n = strlen(sorted[i]->path);
		bool below = !strncmp(sorted[i]->path, sorted[i + 1]->path, n) && sorted[i + 1]->path[n] == '/';
		if (!strcmp(sorted[i]->path, sorted[i + 1]->path) || (below && sorted[i]->kind != MANIFEST_FOLDER))
			twice = sorted[i]->path;
	}
	if (twice)
		copy_fail(error, COPY_USAGE, "two of the files would both become '%.300s'; copy them in two transfers", twice);
	free(sorted);
	return twice ? -1 : 0;
}

static bool tensor_fits(const struct manifest_tensor *t)
{
	uint64_t bytes = tern_dtype_bytes(t->dtype);
	if (t->dtype >= TERN_DTYPE_END || !bytes || t->dims > TERN_DIMS_MAX || t->end <= t->begin)
		return false;
	for (uint32_t d = 0; d < t->dims; d++)
		if (!t->shape[d] || __builtin_mul_overflow(bytes, t->shape[d], &bytes))
			return false;
	return bytes == t->end - t->begin;
}

static bool tensors_get(struct bytes *b, struct manifest_entry *e, uint32_t n)
{
	uint64_t at = e->header_bytes;
	if (n > MANIFEST_TENSORS_MAX || (size_t)(b->end - b->at) / TENSOR_FIXED_BYTES < n)
		return false;
	e->tensor = calloc(n ? n : 1, sizeof(*e->tensor));
	if (!e->tensor)
		return false;
	e->tensors = n;
	for (uint32_t i = 0; i < n; i++) {
		struct manifest_tensor *t = &e->tensor[i];
		t->dtype = bytes_get32(b);
		t->dims = bytes_get32(b);
		t->begin = at;
		t->end = bytes_get64(b);
		for (uint32_t d = 0; d < t->dims && d < TERN_DIMS_MAX; d++)
			t->shape[d] = bytes_get64(b);
		if (b->bad || !tensor_fits(t))
			return false;
		at = t->end;
	}
	return at == e->bytes;
}

static const char *entry_get(struct bytes *b, struct manifest *m)
{
	struct manifest_entry fixed = {.kind = bytes_get32(b)};
	fixed.mode = bytes_get32(b) & 07777;
	fixed.bytes = bytes_get64(b);
	fixed.mtime_ns = bytes_get64(b);
	fixed.header_bytes = bytes_get64(b);
	uint32_t tensors = bytes_get32(b), path_bytes = bytes_get32(b);
	const char *path = (const char *)bytes_get(b, path_bytes);
	if (!path)
		return "it ends early";
	if (memchr(path, 0, path_bytes))
		return "a path has a zero byte in it";
	struct manifest_entry *e = manifest_add(m, path, path_bytes);
	if (!e)
		return "no memory for it";
	fixed.path = e->path;
	*e = fixed;
	const char *wrong = manifest_path_wrong(e->path);
	if (wrong)
		return wrong;
	if (e->kind > MANIFEST_TENSORS || e->bytes > INT64_MAX || __builtin_add_overflow(m->total_bytes, e->bytes, &m->total_bytes))
		return "a kind or size is out of range";
	if (e->kind == MANIFEST_FOLDER ? e->bytes != 0 : e->header_bytes > e->bytes)
		return "a size is out of range";
	if (e->kind != MANIFEST_TENSORS)
		return tensors ? "a file of bytes has tensors" : NULL;
	return tensors_get(b, e, tensors) ? NULL : "the tensors do not tile their file";
}

int manifest_decode(struct manifest *m, const uint8_t *data, size_t bytes, struct copy_error *error)
{
	struct bytes b = {.at = (uint8_t *)data, .end = (uint8_t *)data + bytes};
	while (b.at < b.end) {
		const char *wrong = m->n < MANIFEST_FILES_MAX ? entry_get(&b, m) : "it has too many files";
		if (wrong)
			return copy_fail(error, COPY_REFUSED, "the sender's list of files is refused: entry %zu ('%.200s') %s", m->n,
					 m->n ? m->entry[m->n - 1].path : "", wrong);
	}
	return manifest_unique(m, error);
}
