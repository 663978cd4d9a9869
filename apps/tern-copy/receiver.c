/* The receiving end of tern-copy: listens, serves one sender at a time, lets others wait. Main thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "address.h"
#include "session.h"

enum { WAIT_NS = 50000000, FAREWELL_NS = 3000000000u, CLOSE_NS = 2000000000u, EVENTS = 64, WAITING_MAX = 64 };

struct receiver {
	const struct copy_options *o;
	struct copy_error error;
	tern_ctx *ctx;
	tern_ep *ep;
	struct session *active;
	tern_peer waiting[WAITING_MAX];
	size_t n_waiting;
};

static int listen_start(struct receiver *r)
{
	char address[COPY_ADDRESS_MAX];
	struct store store;
	tern_config config;
	tern_config_init(&config, sizeof(config));
	config.flags |= TERN_OWN_THREAD;
	config.max_ops = 4 * SESSION_SLOTS;
	config.key_file = r->o->key_file ? r->o->key_file : config.key_file;
	config.contract_file = r->o->contract_file ? r->o->contract_file : config.contract_file;
	config.log = report_log;
	config.log_arg = (void *)r->o;
	if (address_make(address, r->o->listen, r->o->private_link, &r->error) || store_open(&store, r->o->target, &r->error))
		return -1;
	store_close(&store); /* each session opens it anew: it may be another disk by then */
	int err = tern_open(&config, &r->ctx);
	if (!err)
		err = tern_ep_open(r->ctx, &r->ep);
	if (err)
		return copy_fail_tern(&r->error, "cannot start", err);
	err = tern_listen(r->ep, address);
	if (err)
		return copy_fail_tern(&r->error, address, err);
	if (r->o->json)
		printf("{\"event\":\"listening\",\"role\":\"receive\"}\n");
	else if (!r->o->quiet)
		printf("listening at %s, receiving into %s\n", address, r->o->target);
	fflush(stdout);
	return 0;
}

static void waiting_remove(struct receiver *r, tern_peer peer)
{
	for (size_t i = 0; i < r->n_waiting; i++) {
		if (r->waiting[i] != peer)
			continue;
		memmove(&r->waiting[i], &r->waiting[i + 1], (--r->n_waiting - i) * sizeof(r->waiting[0]));
		return;
	}
}

static void events_take(struct receiver *r, uint64_t wait_ns)
{
	tern_event ev[EVENTS];
	size_t n = 0;
	tern_wait(r->ep, ev, EVENTS, wait_ns, &n);
	for (size_t i = 0; i < n; i++) {
		if (r->active)
			session_event(r->active, &ev[i]);
		if (ev[i].type == TERN_EV_CONNECTED && !ev[i].status) {
			if (r->n_waiting < WAITING_MAX)
				r->waiting[r->n_waiting++] = ev[i].peer;
			else
				tern_disconnect(r->ep, ev[i].peer, 0);
		} else if (ev[i].type == TERN_EV_PEER_CLOSED || ev[i].type == TERN_EV_PEER_DEAD) {
			waiting_remove(r, ev[i].peer);
		}
	}
}

static int session_serve(struct receiver *r, tern_peer peer)
{
	struct session *s = r->active = session_open(r->o, r->ctx, r->ep, peer);
	if (!s)
		return COPY_FAILED;
	while (!session_step(s)) {
		events_take(r, WAIT_NS);
		if (copy_interrupted)
			copy_fail(&s->error, COPY_INTERRUPTED, "the receiver was interrupted; start it again and go on with --resume");
	}
	uint64_t until = copy_now_ns() + FAREWELL_NS;
	if (copy_failed(&s->error)) {
		proto_tell(&s->link);
		while (!atomic_load(&s->link.farewell_done) && !atomic_load(&s->link.gone) && copy_now_ns() < until)
			events_take(r, WAIT_NS);
	}
	int code = session_end(s);
	tern_disconnect(r->ep, peer, 0);
	/* Until each operation's event has come, the library may still write into the session's memory. */
	for (until = copy_now_ns() + CLOSE_NS; !session_idle(s) && copy_now_ns() < until;)
		events_take(r, WAIT_NS);
	r->active = NULL;
	if (session_idle(s))
		session_close(&s);
	return code;
}

int copy_receive(const struct copy_options *o)
{
	struct receiver r = {.o = o, .error = COPY_ERROR_INIT};
	int code = COPY_OK;
	if (listen_start(&r)) {
		struct report report;
		report_open(&report, o, "receive");
		code = report_end(&report, &(struct report_totals){0}, &r.error);
		tern_close(&r.ctx);
		return code;
	}
	while (!copy_interrupted) {
		if (!r.n_waiting) {
			events_take(&r, WAIT_NS);
			continue;
		}
		tern_peer peer = r.waiting[0];
		waiting_remove(&r, peer);
		code = session_serve(&r, peer);
		if (o->once)
			break;
	}
	tern_close(&r.ctx);
	return copy_interrupted ? COPY_INTERRUPTED : code;
}
