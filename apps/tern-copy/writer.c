/* The receiver's writer thread: posts receives ahead as far as the ring of buffers reaches, hashes and writes what has arrived in the order of the
 * plan. A slow disk fills the ring, then no receives are posted, and the sender waits: nothing is lost and the loop never touches a file. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>
#include "session.h"

enum { WRITEBACK_BYTES = 8 << 20, CHECKPOINT_NS = 500000000, READ_BYTES = 1 << 20 };

struct writer {
	struct session *s;
	XXH3_state_t *state;
	int fd;                 /* the large file that is being written, -1 */
	uint64_t flushed_bytes; /* writeback of it was begun up to here */
	uint64_t checkpoint_ns;
};

/* Gives the next contiguous room in the ring, skipping its end when the piece does not fit there. @return NULL: full */
static uint8_t *ring_take(struct session *s, uint64_t bytes, uint64_t *end)
{
	uint64_t at = s->ring_at, left = s->window_bytes - at % s->window_bytes;
	if (bytes > left)
		at += left;
	if (at + bytes - s->ring_free > s->window_bytes)
		return NULL;
	*end = s->ring_at = at + bytes;
	return s->ring + at % s->window_bytes;
}

static int piece_post(struct session *s, struct slot *slot)
{
	const struct piece *p = &slot->piece;
	tern_iov iov = {.addr = slot->data, .bytes = p->bytes, .mem = s->ring_mem};
	tern_tensor tensor = {.data = slot->data, .mem = s->ring_mem, .dtype = p->dtype, .dims = p->dims};
	tern_args args = {.size_bytes = sizeof(args), .user = &slot->op, .tag = PROTO_TAG_PIECE | p->number};
	tern_buf buf = {.iov = &iov, .n = p->bytes ? 1 : 0};
	memcpy(tensor.shape, p->shape, sizeof(tensor.shape));
	if (p->dtype != TERN_RAW)
		buf = (tern_buf){.tensor = &tensor};
	return proto_post(&s->link, false, &buf, &args);
}

static int receives_post(struct session *s)
{
	while (s->posted - s->written < SESSION_SLOTS) {
		struct slot *slot = &s->slot[s->posted % SESSION_SLOTS];
		if (!s->have_next && !plan_next(&s->plan, &s->next))
			return 0;
		s->have_next = true;
		slot->data = ring_take(s, s->next.bytes, &slot->ring_end);
		if (!slot->data)
			return 0;
		slot->piece = s->next;
		slot->op = (struct proto_op){.kind = PROTO_OP_PIECE, .index = (uint32_t)(s->posted % SESSION_SLOTS)};
		atomic_store(&slot->arrived, false);
		s->have_next = false;
		s->posted++;
		if (piece_post(s, slot))
			return -1;
	}
	return 0;
}

static int write_all(const struct session *s, const struct manifest_entry *e, int fd, const uint8_t *data, uint64_t bytes, uint64_t offset)
{
	while (bytes) {
		ssize_t n = pwrite(fd, data, bytes, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			errno = n ? errno : ENOSPC;
			return store_fail(&s->store, "write", e->path);
		}
		data += n;
		bytes -= (uint64_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

/* Gives a written file to the finisher. Waits while too many are open. */
static void file_give(struct session *s, size_t file, int fd, uint64_t hash)
{
	pthread_mutex_lock(&s->lock);
	while (s->open_files >= SESSION_OPEN_FILES && !s->stop)
		pthread_cond_wait(&s->arrived, &s->lock);
	s->open_files++;
	s->file[file].fd = fd;
	s->file[file].hash = hash;
	finish_mark(s, file, FILE_WRITTEN);
	pthread_mutex_unlock(&s->lock);
}

static int small_write(struct writer *w, const struct slot *slot)
{
	struct session *s = w->s;
	const uint8_t *data = slot->data;
	for (size_t i = slot->piece.file; i < slot->piece.files_end; i++) {
		const struct manifest_entry *e = &s->m.entry[i];
		if (!plan_sends(e))
			continue;
		int fd = store_temp_open(&s->store, e, false);
		if (fd < 0)
			return -1;
		if (write_all(s, e, fd, data, e->bytes, 0)) {
			close(fd);
			store_temp_remove(&s->store, e);
			return -1;
		}
		file_give(s, i, fd, XXH3_64bits(data, e->bytes));
		data += e->bytes;
	}
	return 0;
}

/* Opens the temporary; what it has from an earlier attempt is hashed again from the disk: so that is verified too. */
static int large_open(struct writer *w, const struct piece *p)
{
	struct session *s = w->s;
	const struct manifest_entry *e = &s->m.entry[p->file];
	w->fd = store_temp_open(&s->store, e, e->have_bytes > 0);
	if (w->fd < 0)
		return -1;
	w->flushed_bytes = e->have_bytes;
	XXH3_64bits_reset(w->state);
	uint8_t *buffer = e->have_bytes ? malloc(READ_BYTES) : NULL;
	int rc = !e->have_bytes || (buffer && !ftruncate(w->fd, (off_t)e->have_bytes)) ? 0 : store_fail(&s->store, "go on with", e->path);
	for (uint64_t at = 0; !rc && at < e->have_bytes && !s->stop;) {
		uint64_t want = e->have_bytes - at < READ_BYTES ? e->have_bytes - at : READ_BYTES;
		ssize_t n = pread(w->fd, buffer, want, (off_t)at);
		if (n <= 0) {
			rc = store_fail(&s->store, "read the temporary of", e->path);
		} else {
			XXH3_64bits_update(w->state, buffer, (size_t)n);
			at += (uint64_t)n;
		}
	}
	free(buffer);
	return rc;
}

/* Begins writeback early, so that the sync at the end is short, and asks for a checkpoint now and then. */
static void large_flush(struct writer *w, const struct piece *p)
{
	struct session *s = w->s;
	uint64_t end = p->offset + p->bytes, now = copy_now_ns();
	if (end - w->flushed_bytes >= WRITEBACK_BYTES) {
		sync_file_range(w->fd, (off_t)w->flushed_bytes, (off_t)(end - w->flushed_bytes), SYNC_FILE_RANGE_WRITE);
		w->flushed_bytes = end;
	}
	pthread_mutex_lock(&s->lock);
	s->partial.file = p->file;
	s->partial.bytes = end;
	s->partial.active = true;
	if (now - w->checkpoint_ns >= CHECKPOINT_NS && !s->checkpoint.wanted) {
		s->checkpoint.fd = fcntl(w->fd, F_DUPFD_CLOEXEC, 3);
		s->checkpoint.wanted = s->checkpoint.fd >= 0;
		s->checkpoint.file = p->file;
		s->checkpoint.bytes = end;
		w->checkpoint_ns = now;
		pthread_cond_signal(&s->finish);
	}
	pthread_mutex_unlock(&s->lock);
}

static int large_write(struct writer *w, const struct slot *slot)
{
	struct session *s = w->s;
	const struct piece *p = &slot->piece;
	const struct manifest_entry *e = &s->m.entry[p->file];
	if (w->fd < 0 && large_open(w, p))
		return -1;
	XXH3_64bits_update(w->state, slot->data, p->bytes);
	if (write_all(s, e, w->fd, slot->data, p->bytes, p->offset))
		return -1;
	large_flush(w, p);
	if (p->offset + p->bytes < e->bytes)
		return 0;
	pthread_mutex_lock(&s->lock);
	s->partial.active = false;
	pthread_mutex_unlock(&s->lock);
	file_give(s, p->file, w->fd, XXH3_64bits_digest(w->state));
	w->fd = -1;
	return 0;
}

static bool piece_wait(struct session *s, const struct slot *slot)
{
	pthread_mutex_lock(&s->lock);
	while (!s->stop && !atomic_load(&slot->arrived))
		pthread_cond_wait(&s->arrived, &s->lock);
	bool stop = s->stop;
	pthread_mutex_unlock(&s->lock);
	return !stop;
}

void *writer_run(void *arg)
{
	struct session *s = arg;
	struct writer w = {.s = s, .fd = -1, .state = XXH3_createState(), .checkpoint_ns = copy_now_ns()};
	int rc = w.state ? 0 : copy_fail(&s->error, COPY_FAILED, "no memory to hash with");
	plan_init(&s->plan, &s->m, s->chunk_bytes);
	while (!rc && !receives_post(s) && s->written < s->posted) {
		struct slot *slot = &s->slot[s->written % SESSION_SLOTS];
		if (!piece_wait(s, slot))
			break;
		rc = slot->piece.small ? small_write(&w, slot) : large_write(&w, slot);
		s->ring_free = slot->ring_end;
		s->written++;
	}
	if (w.fd >= 0)
		close(w.fd);
	XXH3_freeState(w.state);
	return NULL;
}
