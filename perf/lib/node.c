/* See node.h. */
#include "node.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "clock.h"
#include "stop.h"

enum { CLOCK_EACH = 4096, STATS_MAX = 256, EXTENSIONS_MAX = 10 };
#define SLEEP_NS 100000000u /* longest sleep, so that a signal is seen */
#define PART_NS 1000000000u
#define BUSY_NS 1000000000u

static void log_line(void *arg, int level, const char *file, int line, const char *text)
{
	static const char *const name[] = {"error", "warning", "info", "debug"};
	const struct options *o = arg;

	if (level > (o->verbose ? TERN_LOG_INFO : TERN_LOG_ERROR))
		return;
	fprintf(stderr, "tern %s: %s (%s:%d)\n", level >= 0 && level < 4 ? name[level] : "?", text, file, line);
}

int node_error(struct node *n, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(n->error, sizeof(n->error), format, args);
	va_end(args);
	return NODE_FAILED;
}

int node_fail(struct node *n, const char *what, int err)
{
	char detail[TERN_TEXT_MAX];

	if (tern_error_detail(NULL, 0, detail, sizeof(detail)) || !*detail)
		return node_error(n, "%s: %s", what, tern_error_text(err));
	return node_error(n, "%s: %s: %s", what, tern_error_text(err), detail);
}

int node_open(struct node *n, const struct options *o)
{
	tern_config config;

	memset(n, 0, sizeof(*n));
	n->options = o;
	tern_config_init(&config, sizeof(config));
	if (o->own_thread)
		config.flags |= TERN_OWN_THREAD;
	if (o->key_file)
		config.key_file = o->key_file;
	if (o->contract_file)
		config.contract_file = o->contract_file;
	if (o->cc)
		config.cc = o->cc;
	config.log = log_line;
	config.log_arg = (void *)o;
	int err = tern_open(&config, &n->ctx);
	if (err)
		return node_fail(n, "cannot start", err);
	err = tern_ep_open(n->ctx, &n->ep);
	return err ? node_fail(n, "cannot open an endpoint", err) : NODE_OK;
}

void node_close(struct node *n)
{
	if (n->ep)
		tern_ep_close(&n->ep);
	if (n->ctx)
		tern_close(&n->ctx);
	free(n->in);
	free(n->out);
	n->in = n->out = NULL;
}

/* The address as given, with private=1 where --private says so. */
static int full_address(struct node *n, char *text)
{
	const char *address = n->options->address;
	const char *add = !n->options->is_private ? "" : strchr(address, '?') ? "&private=1" : "?private=1";

	if (snprintf(text, NODE_ADDRESS_MAX, "%s%s", address, add) >= NODE_ADDRESS_MAX)
		return node_error(n, "the address is longer than %d bytes", NODE_ADDRESS_MAX - 1);
	return NODE_OK;
}

int node_listen(struct node *n)
{
	char text[NODE_ADDRESS_MAX];

	if (full_address(n, text))
		return NODE_FAILED;
	int err = tern_listen(n->ep, text);
	return err ? node_fail(n, "cannot listen", err) : NODE_OK;
}

/* One client at a time. The next one may come before the goodbye of the last: it waits a little. Whoever must wait longer, or comes third, is sent
 * away. */
static void other_peer(struct node *n, const tern_event *e)
{
	if (e->type != TERN_EV_CONNECTED) {
		if (e->peer == n->waiting)
			n->waiting = 0;
	} else if (!e->status && !n->waiting) {
		n->waiting = e->peer;
		n->waiting_ns = clock_ns();
	} else if (!e->status) {
		tern_disconnect(n->ep, e->peer, 0);
	}
}

static void send_away(struct node *n)
{
	if (clock_ns() - n->waiting_ns < BUSY_NS)
		return;
	tern_disconnect(n->ep, n->waiting, 0);
	n->waiting = 0;
}

/* What became of a peer that was being set up, is ours, or knocks while we have one. */
static int peer_event(struct node *n, const tern_event *e)
{
	char detail[TERN_TEXT_MAX] = "";

	if (e->type == TERN_EV_PATH) /* the log tells (-v); nothing is lost */
		return NODE_OK;
	if (e->peer != n->peer) {
		other_peer(n, e);
		return NODE_OK;
	}
	if (!n->peer || (e->type == TERN_EV_CONNECTED && !e->status))
		return NODE_OK;
	tern_error_detail(n->ctx, e->peer, detail, sizeof(detail));
	n->peer = 0;
	if (e->type == TERN_EV_PEER_CLOSED && !e->status) {
		node_error(n, "the other side closed the connection (if it serves another client, try again later)");
		return NODE_GONE;
	}
	return node_error(n, "%s: %s%s%s", e->type == TERN_EV_CONNECTED ? "cannot connect" : "lost the other side", tern_error_text(e->status),
	        *detail ? ": " : "", detail);
}

static bool is_operation(const tern_event *e)
{
	return e->type <= TERN_EV_REMOTE_WRITE || e->type == TERN_EV_REVOKED || e->type == TERN_EV_MISMATCH;
}

static void progress(struct node *n)
{
	n->progress_ns = 0;
	n->extensions = 0;
}

/* Not of a peer of before, and not ended because the peer left: the peer's own event follows that and says why. */
static bool is_ours(const struct node *n, const tern_event *e)
{
	return e->peer == n->peer && e->status != -TERN_EPEER;
}

/* Nothing came: is it time to give up? The clock is read once in many polls. */
static int silence(struct node *n)
{
	if (stop_asked)
		return NODE_STOPPED;
	if (!n->options->events && ++n->empty % CLOCK_EACH)
		return NODE_OK;
	uint64_t now = clock_ns();
	if (!n->progress_ns) {
		n->progress_ns = now;
		n->frames = node_stat(n, "rx_frames");
	}
	if (now - n->progress_ns < n->options->timeout_ns)
		return NODE_OK;
	/* one message may take longer than the timeout on a slow link: frames are progress too, but not for ever */
	uint64_t frames = node_stat(n, "rx_frames");
	if (frames != n->frames && n->extensions++ < EXTENSIONS_MAX) {
		n->frames = frames;
		n->progress_ns = now;
		return NODE_OK;
	}
	return node_error(n, "no answer for %.3g s (--timeout)", (double)n->options->timeout_ns / 1e9);
}

/* Takes events, drives the loop. */
static int fetch(struct node *n, tern_event *events, size_t room, size_t *got)
{
	int err = n->options->events ? tern_wait(n->ep, events, room, SLEEP_NS, got) : tern_poll(n->ep, events, room, got);

	if (n->waiting)
		send_away(n);
	if (err && err != -TERN_ETIMEDOUT && err != -TERN_EAGAIN) {
		*got = 0;
		return node_fail(n, "cannot poll", err);
	}
	return NODE_OK;
}

int node_poll(struct node *n, tern_event *events, size_t *got)
{
	size_t taken = 0, kept = 0;
	int result = fetch(n, events, NODE_EVENTS, &taken);

	*got = 0;
	if (result)
		return result;
	if (!taken)
		return silence(n);
	progress(n);
	for (size_t i = 0; i < taken; i++) {
		if (is_operation(&events[i])) {
			if (is_ours(n, &events[i]))
				events[kept++] = events[i];
			continue;
		}
		int r = peer_event(n, &events[i]);
		if (r)
			result = r;
	}
	*got = kept;
	return result;
}

int node_next(struct node *n, tern_event *event)
{
	if (n->parted && !n->peer)
		return n->parted;
	for (;;) {
		size_t got = 0;
		int result = fetch(n, event, 1, &got);
		if (!result && !got)
			result = silence(n);
		if (result)
			return result;
		if (!got)
			continue;
		progress(n);
		if (is_operation(event)) {
			if (is_ours(n, event))
				return NODE_OK;
			continue;
		}
		result = peer_event(n, event);
		if (result)
			return result;
	}
}

int node_connect(struct node *n)
{
	char text[NODE_ADDRESS_MAX];
	tern_event event;
	size_t got;
	tern_connopts opts = {.size_bytes = sizeof(opts), .timeout_ns = n->options->timeout_ns < 10000000000u ? n->options->timeout_ns : 0};

	if (full_address(n, text))
		return NODE_FAILED;
	int err = tern_connect_text(n->ep, text, &opts, &n->peer);
	if (err)
		return node_fail(n, "cannot connect", err);
	n->last = n->peer;
	for (;;) {
		got = 0;
		int result = fetch(n, &event, 1, &got);
		if (result)
			return result;
		if (got && event.type == TERN_EV_CONNECTED && event.peer == n->peer)
			return event.status ? peer_event(n, &event) : NODE_OK;
		result = got ? peer_event(n, &event) : silence(n);
		if (result)
			return result;
	}
}

int node_accept(struct node *n)
{
	tern_event event;
	size_t got;

	n->peer = 0;
	while (!n->waiting) {
		if (stop_asked)
			return NODE_STOPPED;
		/* always asleep here: a server that waits for its next client must not cost a core */
		int err = tern_wait(n->ep, &event, 1, SLEEP_NS, &got);
		if (err && err != -TERN_ETIMEDOUT && err != -TERN_EAGAIN)
			return node_fail(n, "cannot wait for a client", err);
		if (!err && got && !is_operation(&event))
			other_peer(n, &event);
	}
	n->peer = n->last = n->waiting;
	n->waiting = 0;
	n->parted = 0;
	progress(n);
	return NODE_OK;
}

void node_part(struct node *n, bool drain)
{
	tern_event event;
	size_t got;
	uint64_t until = clock_ns() + PART_NS;

	if (!n->peer || tern_disconnect(n->ep, n->peer, drain))
		return;
	while (clock_ns() < until) {
		int err = tern_wait(n->ep, &event, 1, SLEEP_NS, &got);
		if (err && err != -TERN_ETIMEDOUT && err != -TERN_EAGAIN)
			break;
		if (err || !got || is_operation(&event))
			continue;
		if (event.peer == n->peer && event.type != TERN_EV_CONNECTED)
			break;
		other_peer(n, &event);
	}
	n->peer = 0;
}

void node_release(struct node *n, tern_mem **mem)
{
	tern_event event;
	size_t got;
	uint64_t until = clock_ns() + PART_NS;

	while (*mem && tern_mem_release(mem) == -TERN_EBUSY && clock_ns() < until) {
		int err = tern_wait(n->ep, &event, 1, SLEEP_NS / 10, &got);
		if (!err && got && !is_operation(&event))
			n->parted = peer_event(n, &event);
	}
	*mem = NULL;
}

int node_send(struct node *n, const void *data, uint64_t bytes, const tern_args *args)
{
	tern_iov iov = {.addr = (void *)data, .bytes = bytes};
	tern_buf buf = {.iov = &iov, .n = 1};
	tern_event events[NODE_EVENTS];
	size_t got;
	int err;

	while ((err = tern_send(n->ep, n->peer, &buf, args, NULL)) == -TERN_EAGAIN) {
		int result = node_poll(n, events, &got);
		if (result)
			return result;
	}
	return err ? node_fail(n, "cannot send", err) : NODE_OK;
}

int node_recv(struct node *n, void *data, uint64_t bytes, const tern_args *args, tern_op *op)
{
	tern_iov iov = {.addr = data, .bytes = bytes};
	tern_buf buf = {.iov = &iov, .n = 1};

	if (n->parted && !n->peer)
		return n->parted;
	int err = tern_recv(n->ep, n->peer, &buf, args, op);

	return err ? node_fail(n, "cannot receive", err) : NODE_OK;
}

uint64_t node_stat(struct node *n, const char *name)
{
	tern_stat stat[STATS_MAX];
	size_t count = STATS_MAX;

	if (tern_stats_get(n->ctx, NULL, stat, &count))
		return 0;
	for (size_t i = 0; i < count && i < STATS_MAX; i++)
		if (!strcmp(stat[i].name, name))
			return stat[i].value;
	return 0;
}

static void print_scope(struct node *n, const char *scope)
{
	tern_stat stat[STATS_MAX];
	size_t count = STATS_MAX;

	if (tern_stats_get(n->ctx, scope, stat, &count))
		return;
	for (size_t i = 0; i < count && i < STATS_MAX; i++)
		if (stat[i].value && stat[i].value != TERN_TIME_NONE)
			fprintf(stderr, "#   %s%s%s: %llu %s\n", scope, *scope ? " " : "", stat[i].name, (unsigned long long)stat[i].value,
			        stat[i].unit);
}

void node_print_stats(struct node *n)
{
	char scope[40];

	if (!n->ctx)
		return;
	print_scope(n, "");
	snprintf(scope, sizeof(scope), "peer/%llu", (unsigned long long)n->last);
	if (n->last)
		print_scope(n, scope);
}
