/* The receiving folder: every access goes through its descriptor, name by name, and follows no symbolic link. Temporary names, publishing. Knows no network. */
#ifndef COPY_STORE_H
#define COPY_STORE_H
#include "manifest.h"

struct store {
	int fd;
	const char *name; /* for messages */
	struct copy_error *error;
};

/** Opens the folder, making it (not its parents) if it is missing, and tries that it can be written. @return 0, -1 with words */
int store_open(struct store *s, const char *folder, struct copy_error *error);
void store_close(struct store *s);
/** Makes a folder with its parents. @return 0, -1 with words */
int store_folder(const struct store *s, const struct manifest_entry *e);
/** Opens a file's temporary, with its parents made. keep: what is in it stays; otherwise it is emptied. @return descriptor, -1 with words */
int store_temp_open(const struct store *s, const struct manifest_entry *e, bool keep);
/** Bytes in a file's temporary, 0 if there is none. */
uint64_t store_temp_bytes(const struct store *s, const struct manifest_entry *e);
void store_temp_remove(const struct store *s, const struct manifest_entry *e);
/** Gives the synced temporary its mode, time and final name. @return 0, -1 with words */
int store_publish(const struct store *s, const struct manifest_entry *e, int fd);
/** Makes renames in the file's folder durable. */
int store_sync_folder(const struct store *s, const struct manifest_entry *e);
/** The file is there under its final name, with the size and the time (to the ns) of the entry. */
bool store_present(const struct store *s, const struct manifest_entry *e);
/** Free bytes for us. */
uint64_t store_free_bytes(const struct store *s);
/** Turns errno of a write into words: what could not be done, why, and what to do. @return -1 */
int store_fail(const struct store *s, const char *what, const char *path);

#endif
