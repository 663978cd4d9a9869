/* The receiver's finisher thread: for files that are written and whose hash has come it compares, syncs, renames and tells the sender; between them
 * it syncs the file that is being written and notes in the journal how far it is. Works in batches: many small files share the cost of a journal
 * commit of the file system. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "session.h"

enum { BATCH = PROTO_FILES_MAX };

void finish_mark(struct session *s, size_t file, uint32_t state)
{
	struct session_file *f = &s->file[file];
	f->state |= state;
	if ((f->state & (FILE_HASHED | FILE_WRITTEN)) != (FILE_HASHED | FILE_WRITTEN))
		return;
	s->ready[(s->ready_at + s->ready_n++) % s->m.n] = (uint32_t)file;
	pthread_cond_signal(&s->finish);
}

static int hash_check(struct session *s, size_t file)
{
	struct session_file *f = &s->file[file];
	const struct manifest_entry *e = &s->m.entry[file];
	if (f->hash == f->sent_hash)
		return 0;
	copy_fail(&s->error, COPY_UNVERIFIED,
	        "'%.400s' arrived with xxh3 %016llx, the sender read %016llx: it changed while it was sent, or memory or a disk is bad; send it "
	        "again",
	        e->path, (unsigned long long)f->hash, (unsigned long long)f->sent_hash);
	/* what cannot be trusted is not gone on from */
	journal_set(&s->journal, e, 0);
	store_temp_remove(&s->store, e);
	return -1;
}

static bool same_folder(const char *a, const char *b)
{
	const char *x = strrchr(a, '/'), *y = strrchr(b, '/');
	size_t n = x ? (size_t)(x - a) : 0;
	return n == (y ? (size_t)(y - b) : 0) && !strncmp(a, b, n);
}

/* @return files published, less than n after an error */
static uint32_t batch_publish(struct session *s, const uint32_t *batch, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		sync_file_range(s->file[batch[i]].fd, 0, 0, SYNC_FILE_RANGE_WRITE); /* all start, then each is waited for */
	for (uint32_t i = 0; i < n; i++) {
		const struct manifest_entry *e = &s->m.entry[batch[i]];
		if (hash_check(s, batch[i]))
			return i;
		if (fsync(s->file[batch[i]].fd)) {
			store_fail(&s->store, "sync", e->path);
			return i;
		}
		if (store_publish(&s->store, e, s->file[batch[i]].fd))
			return i;
	}
	for (uint32_t i = 0; i < n; i++)
		if ((i + 1 == n || !same_folder(s->m.entry[batch[i]].path, s->m.entry[batch[i + 1]].path)) &&
		    store_sync_folder(&s->store, &s->m.entry[batch[i]]))
			return 0;
	return n;
}

static int batch_finish(struct session *s, const uint32_t *batch, uint32_t n)
{
	struct proto_msg msg = {.type = PROTO_DONE, .n = batch_publish(s, batch, n)};
	bool noted = false;
	for (uint32_t i = 0; i < msg.n; i++) {
		const struct manifest_entry *e = &s->m.entry[batch[i]];
		msg.file[i] = batch[i];
		noted |= journal_find(&s->journal, e) != 0;
		journal_set(&s->journal, e, 0);
	}
	if (noted)
		journal_save(&s->journal);
	pthread_mutex_lock(&s->lock);
	for (uint32_t i = 0; i < msg.n; i++) {
		close(s->file[batch[i]].fd);
		s->file[batch[i]].fd = -1;
		s->file[batch[i]].state |= FILE_DONE;
	}
	s->open_files -= msg.n;
	s->done += msg.n;
	pthread_cond_signal(&s->arrived);
	pthread_mutex_unlock(&s->lock);
	if (msg.n)
		proto_send(&s->link, &msg, false);
	return msg.n < n ? -1 : 0;
}

static int checkpoint_take(struct session *s, size_t file, int fd, uint64_t bytes)
{
	const struct manifest_entry *e = &s->m.entry[file];
	int rc = fdatasync(fd) ? store_fail(&s->store, "sync", e->path) : 0;
	close(fd);
	if (rc)
		return -1;
	journal_set(&s->journal, e, bytes);
	return journal_save(&s->journal);
}

/* Takes the next work out, with the lock held. @return files in batch; *fd >= 0: a checkpoint */
static uint32_t work_take(struct session *s, uint32_t *batch, int *fd, size_t *file, uint64_t *bytes)
{
	uint32_t n = 0;
	*fd = -1;
	if (s->checkpoint.wanted) {
		*fd = s->checkpoint.fd;
		*file = s->checkpoint.file;
		*bytes = s->checkpoint.bytes;
		s->checkpoint.wanted = false;
	}
	for (; n < BATCH && s->ready_n; s->ready_n--) {
		batch[n++] = s->ready[s->ready_at];
		s->ready_at = (s->ready_at + 1) % s->m.n;
	}
	return n;
}

void *finish_run(void *arg)
{
	struct session *s = arg;
	uint32_t batch[BATCH];
	int rc = 0;
	while (!rc) {
		int fd;
		size_t file = 0;
		uint64_t bytes = 0;
		pthread_mutex_lock(&s->lock);
		while (!s->stop && !s->ready_n && !s->checkpoint.wanted)
			pthread_cond_wait(&s->finish, &s->lock);
		bool stop = s->stop;
		uint32_t n = work_take(s, batch, &fd, &file, &bytes);
		pthread_mutex_unlock(&s->lock);
		if (fd >= 0)
			rc = checkpoint_take(s, file, fd, bytes);
		if (!rc && n)
			rc = batch_finish(s, batch, n);
		if (stop)
			break;
	}
	return NULL;
}

void finish_keep(struct session *s)
{
	bool unverified = atomic_load(&s->error.exit) == COPY_UNVERIFIED;
	for (size_t i = 0; i < s->m.n; i++) {
		struct session_file *f = &s->file[i];
		const struct manifest_entry *e = &s->m.entry[i];
		if (f->fd < 0)
			continue;
		bool wrong = unverified && (f->state & FILE_HASHED) && f->hash != f->sent_hash;
		if (plan_is_small(e) || wrong)
			store_temp_remove(&s->store, e); /* sent again sooner than noted */
		else if (!fdatasync(f->fd))
			journal_set(&s->journal, e, e->bytes);
		close(f->fd);
		f->fd = -1;
	}
	if (s->partial.active) {
		const struct manifest_entry *e = &s->m.entry[s->partial.file];
		int fd = store_temp_open(&s->store, e, true);
		if (fd >= 0) {
			if (!fdatasync(fd))
				journal_set(&s->journal, e, s->partial.bytes);
			close(fd);
		}
	}
	journal_save(&s->journal);
}
