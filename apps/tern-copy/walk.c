/* Listing the sources: see walk.h. Called by sender.c before the connection, and by reader.c for each file. */
#include "walk.h"
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "safetensors.h"
#include "units.h"

struct walk {
	const struct copy_options *o;
	struct manifest *m;
	struct copy_error *error;
};

static uint64_t mtime_ns(const struct stat *st)
{
	return (uint64_t)((int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec);
}

static void skip(const struct walk *w, const char *path, const char *why)
{
	char shown[1024];
	snprintf(shown, sizeof(shown), "%s", path);
	if (!w->o->quiet)
		fprintf(stderr, "tern-copy: skipped '%s': %s\n", units_printable(shown), why);
}

/* Folds leading dimensions beyond what tern sends; types without a name of tern's go as bytes. */
static void tensor_take(struct manifest_tensor *out, const struct st_tensor *t)
{
	uint32_t folded = t->dims > TERN_DIMS_MAX ? t->dims - TERN_DIMS_MAX : 0;
	out->begin = t->begin;
	out->end = t->end;
	out->dtype = t->dtype;
	if (t->dtype == TERN_RAW) {
		out->dims = 1;
		out->shape[0] = t->end - t->begin;
		return;
	}
	out->dims = t->dims - folded;
	for (uint32_t d = 0; d < out->dims; d++)
		out->shape[d] = t->shape[folded + d];
	for (uint32_t d = 0; d < folded; d++)
		out->shape[0] *= t->shape[d];
}

static int tensors_take(struct manifest_entry *e, const struct st_file *f)
{
	e->tensor = calloc(f->n ? f->n : 1, sizeof(*e->tensor));
	if (!e->tensor)
		return -1;
	e->kind = MANIFEST_TENSORS;
	e->header_bytes = f->data_offset;
	for (size_t i = 0; i < f->n; i++)
		if (f->tensor[i].end > f->tensor[i].begin)
			tensor_take(&e->tensor[e->tensors++], &f->tensor[i]);
	return 0;
}

/* The header is read, not mapped: a file that shrinks here is an error, not a signal. */
static int tensors_read(const struct walk *w, struct manifest_entry *e, int fd)
{
	uint8_t head[8] = {0};
	uint64_t header = 0;
	struct st_file f = {0};
	ssize_t got = pread(fd, head, sizeof(head), 0);
	for (int i = 7; i >= 0; i--)
		header = header << 8 | head[i];
	size_t room = got < 8 ? 8 : header > ST_HEADER_MAX_BYTES ? 8 : 8 + (size_t)header;
	if (room > e->bytes)
		room = (size_t)e->bytes;
	uint8_t *bytes = malloc(room ? room : 1);
	size_t have = 0;
	while (bytes && have < room && (got = pread(fd, bytes + have, room - have, (off_t)have)) > 0)
		have += (size_t)got;
	int rc = bytes ? st_parse(bytes, have, e->bytes, &f) : -1;
	if (rc)
		copy_fail(w->error, COPY_SOURCE, "'%.200s' is not a sound safetensors file: %s", e->source, bytes ? f.error : "no memory to read it");
	else if ((rc = tensors_take(e, &f)))
		copy_fail(w->error, COPY_FAILED, "no memory for the tensors of '%.300s'", e->source);
	st_fini(&f);
	free(bytes);
	return rc;
}

static bool is_tensors(const char *path)
{
	static const char suffix[] = ".safetensors";
	size_t n = strlen(path);
	return n >= sizeof(suffix) && !strcmp(path + n - sizeof(suffix) + 1, suffix);
}

static int file_add(const struct walk *w, const char *source, const char *path)
{
	struct stat st;
	int fd = open(source, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc = 0;
	if (fd < 0 || fstat(fd, &st)) {
		int err = errno;
		if (fd >= 0)
			close(fd);
		return copy_fail(w->error, COPY_SOURCE, "cannot read '%.400s': %s", source, strerror(err));
	}
	struct manifest_entry *e = S_ISREG(st.st_mode) ? manifest_add(w->m, path, strlen(path)) : NULL;
	if (e)
		e->source = strdup(source);
	if (!e || !e->source) {
		close(fd);
		return copy_fail(w->error, COPY_SOURCE, "cannot read '%.400s': not a regular file any more, or no memory", source);
	}
	e->bytes = (uint64_t)st.st_size;
	e->mtime_ns = mtime_ns(&st);
	e->mode = st.st_mode & 0777;
	e->dev = st.st_dev;
	e->ino = st.st_ino;
	w->m->total_bytes += e->bytes;
	if (!w->o->raw && is_tensors(source))
		rc = tensors_read(w, e, fd);
	close(fd);
	return rc;
}

static int folder_add(const struct walk *w, const FTSENT *at, const char *path)
{
	struct manifest_entry *e = manifest_add(w->m, path, strlen(path));
	if (!e)
		return copy_fail(w->error, COPY_FAILED, "no memory for '%.400s'", path);
	e->kind = MANIFEST_FOLDER;
	e->mode = at->fts_statp->st_mode & 0777;
	return 0;
}

static int visit(const struct walk *w, const FTSENT *at, const char *path)
{
	const char *wrong = *path ? manifest_path_wrong(path) : NULL;
	switch (at->fts_info) {
	case FTS_DP:
		return 0;
	case FTS_DNR:
	case FTS_ERR:
	case FTS_NS:
		return copy_fail(w->error, COPY_SOURCE, "cannot read '%.400s': %s", at->fts_path, strerror(at->fts_errno));
	case FTS_DC:
		skip(w, at->fts_path, "a link back to a folder above it");
		return 0;
	case FTS_SL:
	case FTS_SLNONE:
		skip(w, at->fts_path, "a symbolic link to nothing");
		return 0;
	}
	if (wrong) {
		skip(w, at->fts_path, wrong);
		return 0;
	}
	if (at->fts_info == FTS_D)
		return *path ? folder_add(w, at, path) : 0;
	if (at->fts_info == FTS_F)
		return file_add(w, at->fts_accpath, path);
	skip(w, at->fts_path, "not a file or folder");
	return 0;
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

/* Where the part of fts_path begins that the receiver sees: the last name of the source, or what is below it. */
static size_t prefix_bytes(const char *source)
{
	size_t n = strlen(source);
	const char *slash = strrchr(source, '/'), *last = slash ? slash + 1 : source;
	if (!*last || !strcmp(last, ".") || !strcmp(last, ".."))
		return *last ? n + 1 : n;
	return (size_t)(last - source);
}

static int source_walk(struct walk *w, char *source)
{
	char *roots[] = {source, NULL};
	size_t prefix = prefix_bytes(source);
	int rc = 0;
	/* NOCHDIR: sources are opened again later by the path found here */
	FTS *fts = fts_open(roots, FTS_LOGICAL | FTS_NOCHDIR, by_name);
	if (!fts)
		return copy_fail(w->error, COPY_SOURCE, "cannot read '%.400s': %s", source, strerror(errno));
	for (FTSENT *at; !rc && (errno = 0, at = fts_read(fts));) {
		if (at->fts_level == 0 && at->fts_info == FTS_SLNONE)
			rc = copy_fail(w->error, COPY_SOURCE, "cannot read '%.400s': a symbolic link to nothing", source);
		else
			rc = visit(w, at, strlen(at->fts_path) > prefix ? at->fts_path + prefix : "");
	}
	if (!rc && errno)
		rc = copy_fail(w->error, COPY_SOURCE, "cannot read '%.400s': %s", source, strerror(errno));
	fts_close(fts);
	return rc;
}

int walk_sources(const struct copy_options *o, struct manifest *m, struct copy_error *error)
{
	struct walk w = {.o = o, .m = m, .error = error};
	for (size_t i = 0; i < o->n_sources; i++)
		if (source_walk(&w, o->sources[i]))
			return -1;
	return manifest_unique(m, error);
}

int walk_open(const struct manifest_entry *e, struct copy_error *error)
{
	struct stat st;
	int fd = open(e->source, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return copy_fail(error, COPY_SOURCE, "'%.400s' vanished or became unreadable before it was sent: %s", e->source, strerror(errno));
	if (fstat(fd, &st) || (uint64_t)st.st_size != e->bytes || mtime_ns(&st) != e->mtime_ns || st.st_dev != e->dev || st.st_ino != e->ino) {
		copy_fail(error, COPY_SOURCE,
		        "'%.400s' changed before it was sent (%llu bytes listed, %lld now); copy it again when nothing writes it", e->source,
		        (unsigned long long)e->bytes, (long long)st.st_size);
		close(fd);
		return -1;
	}
	return fd;
}

int walk_unchanged(const struct manifest_entry *e, int fd, struct copy_error *error)
{
	struct stat st, named;
	if (fstat(fd, &st))
		return copy_fail(error, COPY_SOURCE, "cannot read '%.400s': %s", e->source, strerror(errno));
	if ((uint64_t)st.st_size < e->bytes)
		return copy_fail(error, COPY_SOURCE,
		        "'%.400s' became shorter while it was sent (%llu bytes, then %lld); copy it again when nothing writes it", e->source,
		        (unsigned long long)e->bytes, (long long)st.st_size);
	if ((uint64_t)st.st_size != e->bytes || mtime_ns(&st) != e->mtime_ns)
		return copy_fail(error, COPY_SOURCE, "'%.400s' changed while it was sent; copy it again when nothing writes it", e->source);
	if (stat(e->source, &named) || named.st_ino != st.st_ino || named.st_dev != st.st_dev)
		return copy_fail(error, COPY_SOURCE, "'%.400s' vanished while it was sent; copy it again", e->source);
	return 0;
}
