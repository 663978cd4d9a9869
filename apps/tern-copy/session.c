/* One transfer at the receiving end, main thread: takes the manifest, decides what is needed, starts the threads, takes the sender's hashes, notices the end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "bytes.h"
#include "session.h"
#include "units.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

enum { LIST_ENTRY_BYTES = 12, GOODBYE_NS = 2000000000u };
#define SILENCE_NS UINT64_C(60000000000) /* a sender has its list ready before it connects */
#define WINDOW_MIN (UINT64_C(64) << 20)
#define WINDOW_LONG (UINT64_C(256) << 20) /* rate unknown, and not a local link: 20 Gb/s x 100 ms */
#define WINDOW_MAX (UINT64_C(4) << 30)

struct session *session_open(const struct copy_options *o, tern_ctx *ctx, tern_ep *ep, tern_peer peer)
{
	struct session *s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	s->o = o;
	s->store.fd = -1;
	pthread_mutex_init(&s->error.lock, NULL);
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->arrived, NULL);
	pthread_cond_init(&s->finish, NULL);
	report_open(&s->report, o, "receive");
	proto_open(&s->link, ctx, ep, peer, &s->error);
	return s;
}

static void hello_take(struct session *s, const struct proto_msg *msg)
{
	if (s->greeted || msg->version != PROTO_VERSION) {
		copy_fail(&s->error, COPY_REFUSED,
		        "the sender speaks version %u of tern-copy's protocol, the receiver version %d; use the same at both ends", msg->version,
		        PROTO_VERSION);
		return;
	}
	s->greeted = true;
	s->hello_flags = msg->flags;
	s->sender_limit_bytes_per_s = msg->limit_bytes_per_s;
	s->sender_rtt_ns = msg->rtt_ns;
	s->list_bytes = msg->list_bytes;
	s->list = msg->list_bytes <= MANIFEST_BYTES_MAX ? malloc(msg->list_bytes ? msg->list_bytes : 1) : NULL;
	if (!s->list)
		copy_fail(&s->error, COPY_REFUSED, "the receiver has no memory for a list of %llu bytes", (unsigned long long)msg->list_bytes);
	else
		proto_list(&s->link, false, s->list, s->list_bytes);
}

/* Enough for twice the bandwidth-delay product, so that no round trip is waited for; at most a quarter of the memory. */
static void window_choose(struct session *s)
{
	uint64_t payload, limit = 0, rtt = proto_stat(&s->link, "srtt_ns"),
	                  pages = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	if (tern_path_limits(s->link.ep, s->link.peer, &payload, &limit))
		limit = 0;
	if (limit < s->sender_limit_bytes_per_s)
		limit = s->sender_limit_bytes_per_s;
	if (rtt < s->sender_rtt_ns)
		rtt = s->sender_rtt_ns;
	uint64_t window = limit ? (uint64_t)(2.0 * (double)limit * (double)rtt / 1e9) : rtt > 5000000 ? WINDOW_LONG : WINDOW_MIN;
	if (window > pages / 4)
		window = pages / 4;
	window = window < WINDOW_MIN ? WINDOW_MIN : window > WINDOW_MAX ? WINDOW_MAX : window;
	s->chunk_bytes = window / 64 < PLAN_CHUNK_MIN   ? PLAN_CHUNK_MIN
	                 : window / 64 > PLAN_CHUNK_MAX ? PLAN_CHUNK_MAX
	                                                : window / 64 & ~UINT64_C(4095);
	s->window_bytes = (window + s->chunk_bytes) & ~UINT64_C(4095); /* one more: what is skipped at the ring's end */
}

static int have_find(struct session *s, struct manifest_entry *e)
{
	if (!(s->hello_flags & PROTO_RESUME) || e->kind == MANIFEST_FOLDER)
		return 0;
	e->present = store_present(&s->store, e);
	if (!e->present && !plan_is_small(e)) {
		uint64_t have = journal_find(&s->journal, e), on_disk = have ? store_temp_bytes(&s->store, e) : 0;
		e->have_bytes = plan_floor(e, s->chunk_bytes, have < on_disk ? have : on_disk);
	}
	return 1;
}

/* Folders are made, and what is here already is found. */
static int entries_take(struct session *s)
{
	char need[UNITS_TEXT_MAX], room[UNITS_TEXT_MAX];
	uint64_t needed = 0, free_bytes = store_free_bytes(&s->store);
	for (size_t i = 0; i < s->m.n; i++) {
		struct manifest_entry *e = &s->m.entry[i];
		s->file[i].fd = -1;
		if (e->kind == MANIFEST_FOLDER && store_folder(&s->store, e))
			return -1;
		have_find(s, e);
		s->present_bytes += e->present ? e->bytes : e->have_bytes;
		s->to_send += plan_sends(e);
		needed += plan_sends(e) ? e->bytes - e->have_bytes : 0;
	}
	s->moving_bytes = needed;
	if (needed > free_bytes)
		return copy_fail(&s->error, COPY_TARGET,
		        "the disk is full: %s are to be written, '%.300s' has %s free; free some and go on with --resume",
		        units_bytes(need, sizeof(need), needed), s->store.name, units_bytes(room, sizeof(room), free_bytes));
	return 0;
}

static int memory_get(struct session *s)
{
	s->file = calloc(s->m.n ? s->m.n : 1, sizeof(*s->file));
	s->ready = calloc(s->m.n ? s->m.n : 1, sizeof(*s->ready));
	s->slot = calloc(SESSION_SLOTS, sizeof(*s->slot));
	s->answer = malloc(s->m.n ? s->m.n * LIST_ENTRY_BYTES : 1);
	if (!s->file || !s->ready || !s->slot || !s->answer)
		return copy_fail(&s->error, COPY_FAILED, "the receiver has no memory for a list of %zu files", s->m.n);
	return 0;
}

/* Pages are brought in now: the loop must not take their faults. */
static int ring_get(struct session *s)
{
	void *ring = NULL;
	int err = tern_mem_alloc(s->link.ctx, s->window_bytes, &ring, &s->ring_mem);
	if (err)
		return copy_fail_tern(&s->error, "the receiver cannot get its buffers", err);
	s->ring = ring;
	if (madvise(ring, s->window_bytes, MADV_POPULATE_WRITE))
		memset(ring, 0, s->window_bytes);
	return 0;
}

static int answer_send(struct session *s)
{
	struct bytes b = {.at = s->answer, .end = s->answer + s->m.n * LIST_ENTRY_BYTES};
	struct proto_msg *msg = &s->msg;
	for (size_t i = 0; i < s->m.n; i++) {
		const struct manifest_entry *e = &s->m.entry[i];
		if (!e->present && !e->have_bytes)
			continue;
		bytes_put32(&b, (uint32_t)i);
		bytes_put64(&b, e->present ? e->bytes : e->have_bytes);
	}
	memset(msg, 0, sizeof(*msg));
	msg->type = PROTO_ANSWER;
	msg->chunk_bytes = s->chunk_bytes;
	msg->window_bytes = s->window_bytes;
	msg->list_bytes = (uint64_t)(b.at - s->answer);
	return proto_send(&s->link, msg, false) || proto_list(&s->link, true, s->answer, msg->list_bytes) ? -1 : 0;
}

static int threads_start(struct session *s)
{
	if (pthread_create(&s->writer, NULL, writer_run, s))
		return copy_fail(&s->error, COPY_FAILED, "cannot start a thread");
	if (pthread_create(&s->finisher, NULL, finish_run, s)) {
		pthread_mutex_lock(&s->lock);
		s->stop = true;
		pthread_cond_broadcast(&s->arrived);
		pthread_mutex_unlock(&s->lock);
		pthread_join(s->writer, NULL);
		return copy_fail(&s->error, COPY_FAILED, "cannot start a thread");
	}
	s->running = true;
	return 0;
}

static void manifest_take(struct session *s, size_t bytes)
{
	if (bytes != s->list_bytes) {
		copy_fail(&s->error, COPY_REFUSED, "the sender's list of files is cut");
		return;
	}
	if (manifest_decode(&s->m, s->list, bytes, &s->error))
		return;
	free(s->list);
	s->list = NULL;
	window_choose(s);
	if (store_open(&s->store, s->o->target, &s->error))
		return;
	journal_load(&s->journal, &s->store);
	if (memory_get(s) || entries_take(s) || ring_get(s) || threads_start(s) || answer_send(s))
		return;
	report_start(&s->report, s->m.n, s->m.total_bytes, s->sender_limit_bytes_per_s, copy_now_ns());
	s->report.progress.sample[0].bytes = s->present_bytes;
	report_say(&s->report, 1, "%zu entries; pieces of %llu bytes, %llu posted ahead", s->m.n, (unsigned long long)s->chunk_bytes,
		   (unsigned long long)s->window_bytes);
}

static void hashes_take(struct session *s, const struct proto_msg *msg)
{
	pthread_mutex_lock(&s->lock);
	for (uint32_t i = 0; i < msg->n; i++) {
		size_t file = msg->file[i];
		if (!s->running || file >= s->m.n || !plan_sends(&s->m.entry[file]) || (s->file[file].state & FILE_HASHED)) {
			copy_fail(&s->error, COPY_REFUSED, "the sender sent a hash of entry %zu, which is not awaited", file);
			break;
		}
		s->file[file].sent_hash = msg->hash[i];
		finish_mark(s, file, FILE_HASHED);
	}
	pthread_mutex_unlock(&s->lock);
}

static void piece_arrived(struct session *s, struct slot *slot, const tern_event *ev)
{
	if (ev->bytes != slot->piece.bytes) {
		copy_fail(&s->error, COPY_FAILED,
		        "a piece of '%.300s' has %llu bytes, %llu were awaited; use the same version of tern-copy at both ends",
		        s->m.entry[slot->piece.file].path, (unsigned long long)ev->bytes, (unsigned long long)slot->piece.bytes);
		return;
	}
	s->last_ns = copy_now_ns();
	if (!s->first_ns)
		s->first_ns = s->last_ns;
	s->arrived_bytes += ev->bytes;
	s->name_at = slot->piece.files_end - 1;
	pthread_mutex_lock(&s->lock);
	atomic_store(&slot->arrived, true);
	pthread_cond_signal(&s->arrived);
	pthread_mutex_unlock(&s->lock);
}

static void ctrl_take(struct session *s, const struct proto_op *op, size_t bytes)
{
	if (proto_take(&s->link, op, bytes, &s->msg))
		return;
	if (s->msg.type == PROTO_HELLO)
		hello_take(s, &s->msg);
	else if (s->msg.type == PROTO_HASHES)
		hashes_take(s, &s->msg);
	else
		copy_fail(&s->error, COPY_REFUSED, "the sender sent message %u, which a sender does not send", s->msg.type);
}

void session_event(struct session *s, const tern_event *ev)
{
	struct proto_op *op = proto_event(&s->link, ev);
	if (!op)
		return;
	if (ev->status) {
		if (ev->status != -TERN_EPEER && ev->status != -TERN_ECANCELED)
			copy_fail_tern(&s->error, "a message failed", ev->status);
		return;
	}
	if (op->kind == PROTO_OP_PIECE)
		piece_arrived(s, &s->slot[op->index], ev);
	else if (op->kind == PROTO_OP_CTRL_RECV)
		ctrl_take(s, op, ev->bytes);
	else if (op->kind == PROTO_OP_LIST && ev->type == TERN_EV_RECV)
		manifest_take(s, ev->bytes);
}

bool session_step(struct session *s)
{
	uint64_t now = copy_now_ns();
	pthread_mutex_lock(&s->lock);
	bool all = s->running && s->done == s->to_send;
	pthread_mutex_unlock(&s->lock);
	if (all && !s->final && !copy_failed(&s->error)) {
		s->msg.type = PROTO_FINAL;
		s->msg.files = s->to_send;
		s->msg.bytes = s->m.total_bytes;
		s->final = !proto_send(&s->link, &s->msg, true);
		report_say(&s->report, 2, "all verified and renamed");
	}
	if (copy_failed(&s->error))
		return true;
	if (s->final)
		return atomic_load(&s->link.gone) || (atomic_load(&s->link.farewell_done) && now - s->last_ns > GOODBYE_NS);
	if (atomic_load(&s->link.gone)) {
		copy_fail(&s->error, COPY_FAILED, "the sender is gone (killed, or the link is down); what arrived is kept for --resume");
		return true;
	}
	if (!s->running && now - s->report.start_ns > SILENCE_NS) {
		copy_fail(&s->error, COPY_FAILED, "a sender connected and said nothing for %d s", (int)(SILENCE_NS / 1000000000));
		return true;
	}
	if (s->running)
		report_step(&s->report, s->arrived_bytes == s->moving_bytes ? "verifying" : s->m.entry[s->name_at].path,
		        s->present_bytes + s->arrived_bytes, now);
	return false;
}

int session_end(struct session *s)
{
	uint64_t files = 0;
	atomic_store(&s->link.gone, true); /* nobody waits for room any more */
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_broadcast(&s->arrived);
	pthread_cond_broadcast(&s->finish);
	pthread_mutex_unlock(&s->lock);
	if (s->running) {
		pthread_join(s->writer, NULL);
		pthread_join(s->finisher, NULL);
		if (s->checkpoint.wanted)
			close(s->checkpoint.fd);
		finish_keep(s);
	}
	for (size_t i = 0; i < s->m.n; i++)
		files += s->m.entry[i].kind != MANIFEST_FOLDER;
	struct report_totals totals = {.files = s->final ? files : s->done,
	        .bytes = s->final ? s->m.total_bytes : s->present_bytes + s->arrived_bytes,
	        .moved_bytes = s->arrived_bytes,
	        .move_ns = s->last_ns - s->first_ns,
	        .limit_bytes_per_s = s->sender_limit_bytes_per_s};
	return report_end(&s->report, &totals, &s->error);
}

bool session_idle(const struct session *s)
{
	return !atomic_load(&s->link.owed);
}

void session_close(struct session **session)
{
	struct session *s = *session;
	*session = NULL;
	if (s->ring_mem)
		tern_mem_release(&s->ring_mem);
	journal_fini(&s->journal);
	store_close(&s->store);
	manifest_fini(&s->m);
	free(s->file);
	free(s->ready);
	free(s->slot);
	free(s->list);
	free(s->answer);
	free(s);
}
