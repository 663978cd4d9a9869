/* The journal of a receiving folder, .tern-resume: which unfinished files have how much of their beginning safely on disk. One JSON object a line;
 * replaced as a whole (written beside, synced, renamed), so that a killed receiver leaves the old one or the new one. */
#ifndef COPY_JOURNAL_H
#define COPY_JOURNAL_H
#include "manifest.h"
#include "store.h"

struct journal_line {
	char *path;
	uint64_t bytes, mtime_ns;
	uint64_t synced_bytes;
};

/* Short: a transfer has one or two unfinished files at a time, the rest are of earlier ones. One thread at a time. */
struct journal {
	const struct store *store;
	struct journal_line *line;
	size_t n, room;
};

enum { JOURNAL_LINES_MAX = 4096, JOURNAL_BYTES_MAX = 32 << 20 };

/** Reads it; a missing, damaged or too large one counts as empty, line by line: all it can cost is sending again. */
void journal_load(struct journal *j, const struct store *store);
void journal_fini(struct journal *j);
/** @return how much of the entry's file is on disk, 0 if nothing is known or it was another version of it */
uint64_t journal_find(const struct journal *j, const struct manifest_entry *e);
/** Records progress (0: forgets the file) in memory. */
void journal_set(struct journal *j, const struct manifest_entry *e, uint64_t synced_bytes);
/** Replaces the file on disk; removes it when nothing is left. @return 0, -1 with words */
int journal_save(const struct journal *j);

#endif
