/* The sending end of tern-copy: lists the sources, connects, says HELLO, lets the reader post the pieces, takes events, shows progress. Main thread
 * only, but for what sender.h says is shared. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "address.h"
#include "bytes.h"
#include "sender.h"
#include "walk.h"

enum { WAIT_NS = 50000000, FAREWELL_NS = 3000000000u, CLOSE_NS = 2000000000u, EVENTS = 64, SLACK_CHUNKS = 4 };

static int connect_start(struct sender *s)
{
	char address[COPY_ADDRESS_MAX];
	tern_config config;
	tern_config_init(&config, sizeof(config));
	config.flags |= TERN_OWN_THREAD;
	config.max_ops = 4 * SENDER_FLIGHTS;
	config.key_file = s->o->key_file ? s->o->key_file : config.key_file;
	config.contract_file = s->o->contract_file ? s->o->contract_file : config.contract_file;
	config.log = report_log;
	config.log_arg = (void *)s->o;
	if (address_make(address, s->o->target, s->o->private_link, &s->error))
		return -1;
	int err = tern_open(&config, &s->ctx);
	if (err)
		return copy_fail_tern(&s->error, "cannot start", err);
	err = tern_ep_open(s->ctx, &s->ep);
	if (err)
		return copy_fail_tern(&s->error, "cannot start", err);
	s->connect_ns = copy_now_ns();
	err = tern_connect_text(s->ep, address, NULL, &s->peer);
	if (err)
		return copy_fail_tern(&s->error, s->o->target, err);
	report_say(&s->report, 1, "connecting to %s", address);
	return proto_open(&s->link, s->ctx, s->ep, s->peer, &s->error);
}

static void hello_send(struct sender *s)
{
	uint64_t payload = 0, limit = 0, rtt = proto_stat(&s->link, "srtt_ns");
	struct proto_msg *msg = &s->msg;
	if (!tern_path_limits(s->ep, s->peer, &payload, &limit))
		s->limit_bytes_per_s = limit;
	memset(msg, 0, sizeof(*msg));
	msg->type = PROTO_HELLO;
	msg->version = PROTO_VERSION;
	msg->flags = s->o->resume ? PROTO_RESUME : 0;
	msg->list_bytes = s->list_bytes;
	msg->files = s->m.n;
	msg->bytes = s->m.total_bytes;
	msg->limit_bytes_per_s = s->limit_bytes_per_s;
	/* The set-up took some three round trips: half of it is no less than one. */
	msg->rtt_ns = rtt ? rtt : (copy_now_ns() - s->connect_ns) / 2;
	report_say(&s->report, 1, "connected; %zu entries, frames of %llu bytes", s->m.n, (unsigned long long)payload);
	if (!proto_send(&s->link, msg, false))
		proto_list(&s->link, true, s->list, s->list_bytes);
}

static void answer_take(struct sender *s, const struct proto_msg *msg)
{
	s->chunk_bytes = msg->chunk_bytes;
	s->window_bytes = msg->window_bytes;
	s->answer_bytes = msg->list_bytes;
	bool sane = !s->answered && msg->chunk_bytes >= PLAN_CHUNK_MIN && msg->chunk_bytes <= PLAN_CHUNK_MAX &&
	            msg->window_bytes >= 4 * msg->chunk_bytes && msg->list_bytes % 12 == 0 && msg->list_bytes / 12 <= s->m.n;
	s->answered = true;
	if (!sane) {
		copy_fail(&s->error, COPY_FAILED, "the other end's answer makes no sense; use the same version of tern-copy at both ends");
		return;
	}
	s->answer = malloc(s->answer_bytes ? s->answer_bytes : 1);
	if (!s->answer)
		copy_fail(&s->error, COPY_FAILED, "no memory for the other end's answer");
	else
		proto_list(&s->link, false, s->answer, s->answer_bytes);
}

/* What the receiver has: {entry u32, bytes u64}; bytes == size of a file means that all of it is there. */
static int have_take(struct sender *s)
{
	struct bytes b = {.at = s->answer, .end = s->answer + s->answer_bytes};
	while (b.at < b.end) {
		uint32_t i = bytes_get32(&b);
		uint64_t have = bytes_get64(&b);
		struct manifest_entry *e = i < s->m.n ? &s->m.entry[i] : NULL;
		if (!e || e->kind == MANIFEST_FOLDER || (have != e->bytes && plan_floor(e, s->chunk_bytes, have) != have))
			return copy_fail(
			        &s->error, COPY_FAILED, "the other end's answer makes no sense; use the same version of tern-copy at both ends");
		if (have == e->bytes) {
			e->present = true;
			s->files_done++;
		} else {
			e->have_bytes = have;
		}
		s->skipped_bytes += have;
	}
	return 0;
}

static void reading_start(struct sender *s)
{
	if (have_take(s))
		return;
	/* More than twice what the link holds only costs: memory that is read and may have changed, pieces that a cut leaves half sent. */
	uint64_t rtt = proto_stat(&s->link, "srtt_ns");
	uint64_t enough = (uint64_t)(2.0 * (double)s->limit_bytes_per_s * (double)rtt / 1e9) + SLACK_CHUNKS * s->chunk_bytes;
	if (s->limit_bytes_per_s && rtt && s->window_bytes > enough)
		s->window_bytes = enough;
	report_start(&s->report, s->m.n, s->m.total_bytes, s->limit_bytes_per_s, copy_now_ns());
	s->report.progress.sample[0].bytes = s->skipped_bytes;
	if (pthread_create(&s->reader, NULL, reader_run, s))
		copy_fail(&s->error, COPY_FAILED, "cannot start a thread");
	else
		s->reading = true;
}

static void flight_back(struct sender *s, struct flight *f, bool acknowledged)
{
	if (f->map)
		mapping_put(f->map);
	if (acknowledged) {
		s->acked_bytes += f->bytes;
		s->last_ns = copy_now_ns();
	}
	pthread_mutex_lock(&s->lock);
	s->flight_bytes -= f->bytes;
	if (f->small >= 0)
		s->small[f->small].used = false;
	f->used = false;
	s->free_flight[s->free_flights++] = f->op.index;
	pthread_cond_signal(&s->room);
	pthread_mutex_unlock(&s->lock);
}

static void ctrl_take(struct sender *s, const struct proto_op *op, size_t bytes)
{
	if (proto_take(&s->link, op, bytes, &s->msg))
		return;
	switch (s->msg.type) {
	case PROTO_ANSWER:
		answer_take(s, &s->msg);
		break;
	case PROTO_DONE:
		s->files_done += s->msg.n;
		break;
	case PROTO_FINAL:
		s->final = true;
		break;
	default:
		copy_fail(&s->error, COPY_FAILED, "the other end sent message %u, which a receiver does not send", s->msg.type);
	}
}

static void op_ended(struct sender *s, struct proto_op *op, const tern_event *ev)
{
	/* Before the connection stands its own event says more; after the peer's words, or its end, failures of operations say nothing new. */
	if (ev->status && s->connected && !copy_failed(&s->error) && ev->status != -TERN_EPEER && ev->status != -TERN_ECANCELED)
		copy_fail_tern(&s->error, "a message failed", ev->status);
	switch (op->kind) {
	case PROTO_OP_PIECE:
		flight_back(s, &s->flight[op->index], !ev->status);
		break;
	case PROTO_OP_CTRL_RECV:
		if (!ev->status)
			ctrl_take(s, op, ev->bytes);
		break;
	case PROTO_OP_LIST:
		if (!ev->status && ev->type == TERN_EV_RECV && !s->reading)
			ev->bytes == s->answer_bytes ? reading_start(s) : (void)copy_fail(&s->error, COPY_FAILED, "the other end's answer is cut");
		break;
	}
}

static void connected_take(struct sender *s, const tern_event *ev)
{
	char detail[TERN_TEXT_MAX] = "";
	s->connected = true;
	if (!ev->status) {
		hello_send(s);
		return;
	}
	atomic_store(&s->link.gone, true);
	tern_error_detail(s->ctx, s->peer, detail, sizeof(detail));
	copy_fail(&s->error, ev->status == -TERN_ETIMEDOUT || ev->status == -TERN_EPEER ? COPY_FAILED : COPY_REFUSED,
	        "cannot connect to %.200s: %s%s%s", s->o->target, tern_error_text(ev->status), detail[0] ? ": " : "", detail);
}

static void events_take(struct sender *s, uint64_t wait_ns)
{
	tern_event ev[EVENTS];
	size_t n = 0;
	tern_wait(s->ep, ev, EVENTS, wait_ns, &n);
	for (size_t i = 0; i < n; i++) {
		struct proto_op *op = proto_event(&s->link, &ev[i]);
		if (op)
			op_ended(s, op, &ev[i]);
		else if (ev[i].type == TERN_EV_CONNECTED)
			connected_take(s, &ev[i]);
	}
	if (atomic_load(&s->link.gone) && !s->final)
		copy_fail(&s->error, COPY_FAILED, "the receiver is gone (killed, or the link is down); start it again and go on with --resume");
}

static void progress_show(struct sender *s)
{
	uint64_t done = s->skipped_bytes + s->acked_bytes;
	const char *name = "waiting for the receiver";
	if (s->reading)
		name = done == s->m.total_bytes ? "verifying" : s->m.entry[atomic_load(&s->at_file)].path;
	report_step(&s->report, name, done, copy_now_ns());
}

static void transfer_run(struct sender *s)
{
	uint64_t looked_ns = 0;
	while (!s->final && !copy_failed(&s->error)) {
		uint64_t now = copy_now_ns();
		events_take(s, WAIT_NS);
		if (copy_interrupted)
			copy_fail(&s->error, COPY_INTERRUPTED, "interrupted; go on with --resume");
		if (now - looked_ns > 100000000) {
			struct mapping *map = mapping_find_shrunk();
			looked_ns = now;
			if (map)
				copy_fail(&s->error, COPY_SOURCE, "'%.400s' became shorter while it was sent; copy it again when nothing writes it",
					  s->m.entry[map->file].source);
		}
		progress_show(s);
	}
}

static void reader_stop(struct sender *s)
{
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_broadcast(&s->room);
	pthread_mutex_unlock(&s->lock);
	if (s->reading)
		pthread_join(s->reader, NULL);
}

/* Says what went wrong, closes, and waits (bounded) for every operation's end: they point into this struct and into the files. */
static void transfer_end(struct sender *s)
{
	if (!s->ep || !s->peer)
		return;
	uint64_t until = copy_now_ns() + FAREWELL_NS;
	if (copy_failed(&s->error) && s->connected) {
		proto_tell(&s->link);
		while (!atomic_load(&s->link.farewell_done) && !atomic_load(&s->link.gone) && copy_now_ns() < until)
			events_take(s, WAIT_NS);
	}
	atomic_store(&s->link.gone, true); /* nobody waits for room any more */
	reader_stop(s);
	tern_disconnect(s->ep, s->peer, 0);
	for (until = copy_now_ns() + CLOSE_NS; atomic_load(&s->link.owed) && copy_now_ns() < until;)
		events_take(s, WAIT_NS);
}

static void sender_close(struct sender *s)
{
	for (unsigned i = 0; i < SENDER_SMALL_BUFS; i++)
		if (s->small[i].mem)
			tern_mem_release(&s->small[i].mem);
	tern_close(&s->ctx);
	manifest_fini(&s->m);
	free(s->list);
	free(s->answer);
	free(s);
}

int copy_send(const struct copy_options *o)
{
	struct sender *s = calloc(1, sizeof(*s));
	if (!s)
		return COPY_FAILED;
	s->o = o;
	pthread_mutex_init(&s->lock, NULL);
	pthread_mutex_init(&s->error.lock, NULL);
	pthread_cond_init(&s->room, NULL);
	for (uint32_t i = 0; i < SENDER_FLIGHTS; i++)
		s->free_flight[s->free_flights++] = SENDER_FLIGHTS - 1 - i;
	mapping_signals_set();
	report_open(&s->report, o, "send");
	if (!walk_sources(o, &s->m, &s->error) && !manifest_encode(&s->m, &s->list, &s->list_bytes, &s->error) && !connect_start(s))
		transfer_run(s);
	transfer_end(s);
	uint64_t files = 0, first = atomic_load(&s->first_ns);
	for (size_t i = 0; i < s->m.n; i++)
		files += s->m.entry[i].kind != MANIFEST_FOLDER;
	struct report_totals totals = {.files = s->final ? files : s->files_done,
	        .bytes = s->final ? s->m.total_bytes : s->skipped_bytes + s->acked_bytes,
	        .moved_bytes = s->acked_bytes,
	        .move_ns = first && s->last_ns > first ? s->last_ns - first : 0,
	        .limit_bytes_per_s = s->limit_bytes_per_s};
	int code = report_end(&s->report, &totals, &s->error);
	sender_close(s);
	return code;
}
