/* The sender's helper thread: for each piece of the plan it brings the pages into memory, hashes them and posts the send, so that the library's loop
 * never takes a page fault from a disk. Runs ahead of the link by the window. Must not wait for events: the main thread takes them. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>
#include "sender.h"
#include "walk.h"

struct reader {
	struct sender *s;
	struct plan plan;
	struct mapping *map; /* the large file that is being sent */
	XXH3_state_t *state;
	struct proto_msg hashes;
};

/* Waits until a piece may be posted. @return the flight's number, -1: stop */
static int flight_take(struct sender *s, const struct piece *p)
{
	int taken = -1, small = -1;
	pthread_mutex_lock(&s->lock);
	while (!s->stop && taken < 0) {
		for (small = p->small ? 0 : -1; small >= 0 && small < SENDER_SMALL_BUFS && s->small[small].used; small++)
			;
		bool fits = s->free_flights && small < SENDER_SMALL_BUFS && (!s->flight_bytes || s->flight_bytes + p->bytes <= s->window_bytes);
		if (!fits) {
			pthread_cond_wait(&s->room, &s->lock);
			continue;
		}
		taken = (int)s->free_flight[--s->free_flights];
		s->flight[taken] =
		        (struct flight){.op = {.kind = PROTO_OP_PIECE, .index = (uint32_t)taken}, .bytes = p->bytes, .small = small, .used = true};
		s->flight_bytes += p->bytes;
		if (small >= 0)
			s->small[small].used = true;
	}
	pthread_mutex_unlock(&s->lock);
	return taken;
}

static int piece_post(struct reader *r, const struct piece *p, struct flight *f, void *data)
{
	struct sender *s = r->s;
	tern_iov iov = {.addr = data, .bytes = p->bytes};
	tern_tensor tensor = {.data = data, .dtype = p->dtype, .dims = p->dims};
	tern_args args = {.size_bytes = sizeof(args), .user = &f->op, .tag = PROTO_TAG_PIECE | p->number};
	tern_buf buf = {.iov = &iov, .n = p->bytes ? 1 : 0};
	memcpy(tensor.shape, p->shape, sizeof(tensor.shape));
	if (p->dtype != TERN_RAW)
		buf = (tern_buf){.tensor = &tensor};
	if (!atomic_load(&s->first_ns))
		atomic_store(&s->first_ns, copy_now_ns());
	return proto_post(&s->link, true, &buf, &args);
}

static void hash_add(struct reader *r, size_t file, uint64_t hash)
{
	r->hashes.type = PROTO_HASHES;
	r->hashes.file[r->hashes.n] = (uint32_t)file;
	r->hashes.hash[r->hashes.n++] = hash;
}

static int hashes_send(struct reader *r)
{
	if (!r->hashes.n)
		return 0;
	int rc = proto_send(&r->s->link, &r->hashes, false);
	r->hashes.n = 0;
	return rc;
}

static int small_read(struct sender *s, const struct manifest_entry *e, uint8_t *to)
{
	uint64_t have = 0;
	int fd = walk_open(e, &s->error), rc = fd < 0 ? -1 : 0;
	while (!rc && have < e->bytes) {
		ssize_t got = pread(fd, to + have, e->bytes - have, (off_t)have);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			rc = copy_fail(&s->error, COPY_SOURCE, "cannot read '%.400s': %s", e->source, strerror(errno));
		else if (!got)
			break;
		else
			have += (uint64_t)got;
	}
	if (!rc)
		rc = walk_unchanged(e, fd, &s->error);
	if (!rc && have < e->bytes)
		rc = copy_fail(&s->error, COPY_SOURCE, "'%.400s' became shorter while it was sent; copy it again when nothing writes it", e->source);
	if (fd >= 0)
		close(fd);
	return rc;
}

static int small_send(struct reader *r, const struct piece *p, struct flight *f)
{
	struct sender *s = r->s;
	int err = s->small[f->small].addr ? 0 : tern_mem_alloc(s->ctx, s->chunk_bytes, &s->small[f->small].addr, &s->small[f->small].mem);
	uint8_t *to = s->small[f->small].addr;
	if (err)
		return copy_fail_tern(&s->error, "cannot get a buffer", err);
	for (size_t i = p->file; i < p->files_end; i++) {
		const struct manifest_entry *e = &s->m.entry[i];
		if (!plan_sends(e))
			continue;
		atomic_store(&s->at_file, i);
		if (small_read(s, e, to))
			return -1;
		hash_add(r, i, XXH3_64bits(to, e->bytes));
		to += e->bytes;
	}
	return piece_post(r, p, f, s->small[f->small].addr) || hashes_send(r) ? -1 : 0;
}

static int lost_fail(struct reader *r, const struct manifest_entry *e)
{
	return copy_fail(&r->s->error, COPY_SOURCE,
	        "'%.400s' became shorter, or its disk failed, while it was sent; copy it again when nothing writes it", e->source);
}

static int range_hash(struct reader *r, const struct manifest_entry *e, uint64_t offset, uint64_t bytes)
{
	const uint8_t *base = (const uint8_t *)atomic_load(&r->map->base);
	if (mapping_populate(r->map, offset, bytes))
		return lost_fail(r, e);
	XXH3_64bits_update(r->state, base + offset, bytes);
	return atomic_load(&r->map->lost) ? lost_fail(r, e) : 0;
}

static int file_begin(struct reader *r, const struct piece *p)
{
	struct sender *s = r->s;
	const struct manifest_entry *e = &s->m.entry[p->file];
	int fd = walk_open(e, &s->error);
	if (fd < 0)
		return -1;
	atomic_store(&s->at_file, p->file);
	pthread_mutex_lock(&s->lock);
	while (!(r->map = mapping_open(fd, e->bytes, p->file)) && errno == EMFILE && !s->stop)
		pthread_cond_wait(&s->room, &s->lock); /* pieces in flight hold mappings */
	pthread_mutex_unlock(&s->lock);
	if (!r->map) {
		copy_fail(&s->error, COPY_SOURCE, "cannot map '%.400s': %s", e->source, strerror(errno));
		close(fd);
		return -1;
	}
	XXH3_64bits_reset(r->state);
	/* What the receiver has from an earlier attempt is hashed as well: the hash is that of the whole file, at both ends. */
	for (uint64_t at = 0, step; at < e->have_bytes && !s->stop; at += step) {
		step = e->have_bytes - at < s->chunk_bytes ? e->have_bytes - at : s->chunk_bytes;
		if (range_hash(r, e, at, step))
			return -1;
	}
	return 0;
}

static int file_end(struct reader *r, const struct piece *p)
{
	const struct manifest_entry *e = &r->s->m.entry[p->file];
	int rc = walk_unchanged(e, r->map->fd, &r->s->error);
	mapping_put(r->map);
	r->map = NULL;
	if (rc)
		return -1;
	hash_add(r, p->file, XXH3_64bits_digest(r->state));
	return hashes_send(r);
}

static int large_send(struct reader *r, const struct piece *p, struct flight *f)
{
	const struct manifest_entry *e = &r->s->m.entry[p->file];
	if (!r->map && file_begin(r, p))
		return -1;
	if (range_hash(r, e, p->offset, p->bytes))
		return -1;
	atomic_fetch_add(&r->map->users, 1);
	f->map = r->map;
	if (piece_post(r, p, f, (uint8_t *)atomic_load(&r->map->base) + p->offset)) {
		f->map = NULL;
		mapping_put(r->map);
		return -1;
	}
	return p->offset + p->bytes == e->bytes ? file_end(r, p) : 0;
}

void *reader_run(void *arg)
{
	struct reader r = {.s = arg, .state = XXH3_createState()};
	struct piece p;
	int at = 0, rc = r.state ? 0 : copy_fail(&r.s->error, COPY_FAILED, "no memory to hash with");
	plan_init(&r.plan, &r.s->m, r.s->chunk_bytes);
	while (!rc && plan_next(&r.plan, &p) && (at = flight_take(r.s, &p)) >= 0) {
		struct flight *f = &r.s->flight[at];
		rc = p.small ? small_send(&r, &p, f) : large_send(&r, &p, f);
	}
	if (r.map)
		mapping_put(r.map);
	XXH3_freeState(r.state);
	return NULL;
}
