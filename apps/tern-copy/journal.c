/* The journal: see journal.h. Called by receiver.c before, and by finish.c during a transfer. */
#include "journal.h"
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define JOURNAL_NEW MANIFEST_JOURNAL ".new"

/* Paths are bytes, JSON is UTF-8: bytes outside printable ASCII, '%' too, are written %XX. */
static void path_escape(char *out, size_t room, const char *path)
{
	size_t n = 0;
	for (; *path && n + 4 < room; path++) {
		if (*path > 0x20 && *path < 0x7f && *path != '%')
			out[n++] = *path;
		else
			n += (size_t)snprintf(out + n, room - n, "%%%02X", (unsigned char)*path);
	}
	out[n] = 0;
}

static bool path_unescape(char *out, size_t room, const char *text)
{
	size_t n = 0;
	unsigned byte;
	for (; *text && n + 1 < room; n++) {
		if (*text != '%') {
			out[n] = *text++;
			continue;
		}
		if (sscanf(text + 1, "%2X", &byte) != 1 || !text[1] || !text[2] || !byte)
			return false;
		out[n] = (char)byte;
		text += 3;
	}
	out[n] = 0;
	return !*text;
}

static struct journal_line *line_find(const struct journal *j, const char *path)
{
	for (size_t i = 0; i < j->n; i++)
		if (!strcmp(j->line[i].path, path))
			return &j->line[i];
	return NULL;
}

static struct journal_line *line_add(struct journal *j, const char *path)
{
	if (j->n == JOURNAL_LINES_MAX)
		return NULL;
	if (j->n == j->room) {
		size_t room = j->room ? 2 * j->room : 16;
		struct journal_line *line = realloc(j->line, room * sizeof(*line));
		if (!line)
			return NULL;
		j->line = line;
		j->room = room;
	}
	struct journal_line *line = &j->line[j->n];
	memset(line, 0, sizeof(*line));
	line->path = strdup(path);
	if (!line->path)
		return NULL;
	j->n++;
	return line;
}

static void line_parse(struct journal *j, const char *text)
{
	char path[MANIFEST_PATH_MAX + 1];
	const char *escaped;
	json_int_t bytes, mtime, synced;
	json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	if (root && !json_unpack(root, "{s:s, s:I, s:I, s:I}", "path", &escaped, "bytes", &bytes, "mtime_ns", &mtime, "synced_bytes", &synced) &&
	    path_unescape(path, sizeof(path), escaped) && !manifest_path_wrong(path) && synced > 0 && synced <= bytes && !line_find(j, path)) {
		struct journal_line *line = line_add(j, path);
		if (line) {
			line->bytes = (uint64_t)bytes;
			line->mtime_ns = (uint64_t)mtime;
			line->synced_bytes = (uint64_t)synced;
		}
	}
	json_decref(root);
}

void journal_load(struct journal *j, const struct store *store)
{
	char *text = NULL;
	size_t room = 0;
	struct stat st;
	*j = (struct journal){.store = store};
	int fd = openat(store->fd, MANIFEST_JOURNAL, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return;
	FILE *file = fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size > JOURNAL_BYTES_MAX ? NULL : fdopen(fd, "r");
	if (!file) {
		close(fd);
		return;
	}
	while (getline(&text, &room, file) > 0)
		line_parse(j, text);
	free(text);
	fclose(file);
}

void journal_fini(struct journal *j)
{
	for (size_t i = 0; i < j->n; i++)
		free(j->line[i].path);
	free(j->line);
	j->line = NULL;
	j->n = j->room = 0;
}

uint64_t journal_find(const struct journal *j, const struct manifest_entry *e)
{
	const struct journal_line *line = line_find(j, e->path);
	return line && line->bytes == e->bytes && line->mtime_ns == e->mtime_ns ? line->synced_bytes : 0;
}

void journal_set(struct journal *j, const struct manifest_entry *e, uint64_t synced_bytes)
{
	struct journal_line *line = line_find(j, e->path);
	if (!synced_bytes) {
		if (line) {
			free(line->path);
			*line = j->line[--j->n];
		}
		return;
	}
	if (!line)
		line = line_add(j, e->path);
	if (!line)
		return; /* the file will be sent from its beginning */
	line->bytes = e->bytes;
	line->mtime_ns = e->mtime_ns;
	line->synced_bytes = synced_bytes;
}

static int lines_write(const struct journal *j, FILE *file)
{
	char path[3 * MANIFEST_PATH_MAX + 8];
	for (size_t i = 0; i < j->n; i++) {
		path_escape(path, sizeof(path), j->line[i].path);
		json_t *text = json_string(path);
		char *quoted = text ? json_dumps(text, JSON_ENCODE_ANY) : NULL;
		if (quoted)
			fprintf(file, "{\"path\":%s,\"bytes\":%lld,\"mtime_ns\":%lld,\"synced_bytes\":%lld}\n", quoted, (long long)j->line[i].bytes,
				(long long)j->line[i].mtime_ns, (long long)j->line[i].synced_bytes);
		free(quoted);
		json_decref(text);
	}
	return fflush(file) || ferror(file) || fsync(fileno(file)) ? -1 : 0;
}

int journal_save(const struct journal *j)
{
	int dir = j->store->fd;
	if (!j->n) {
		unlinkat(dir, MANIFEST_JOURNAL, 0);
		return 0;
	}
	unlinkat(dir, JOURNAL_NEW, 0);
	int fd = openat(dir, JOURNAL_NEW, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
	if (!file) {
		if (fd >= 0)
			close(fd);
		return store_fail(j->store, "write the journal", MANIFEST_JOURNAL);
	}
	int rc = lines_write(j, file);
	if (fclose(file) || rc || renameat(dir, JOURNAL_NEW, dir, MANIFEST_JOURNAL) || fsync(dir))
		return store_fail(j->store, "write the journal", MANIFEST_JOURNAL);
	return 0;
}
