/* Driving the loop: commands in, a step, events out; by the library's own thread or by whoever polls. Called by context.c and event.c. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>
#include "api/context.h"
#include "base/clock.h"

/* Entries of an endpoint's ring are op pointers, or node pointers marked by bit 0. */
static void api_ring_put(tern_ep *ep, void *entry)
{
	/* sized for every operation and every node there can be: it never overflows */
	ring_put(&ep->events, ep->slots, entry);
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&ep->armed, memory_order_relaxed) && atomic_exchange(&ep->armed, false)) {
		uint64_t one = 1;
		if (write(ep->event_fd, &one, sizeof(one)) < 0)
			LOG(ep->ctx, TERN_LOG_DEBUG, "eventfd: %s", strerror(errno));
		atomic_store(&ep->written, true);
	}
}

void api_event(tern_ep *ep, const tern_event *event)
{
	struct api_node *node = api_slab_get(&ep->ctx->nodes);
	if (!node) {
		LOG(ep->ctx, TERN_LOG_ERROR, "more than %u events wait to be polled: event %u of peer %llx is lost", api_nodes(ep->ctx), event->type,
		    (unsigned long long)event->peer);
		return;
	}
	atomic_fetch_add(&ep->ctx->nodes_out, 1);
	node->event = *event;
	node->event.time_ns = ep->ctx->now_ns;
	api_ring_put(ep, (void *)((uintptr_t)node | 1));
}

void api_op_free(struct api_op *op)
{
	tern_ctx *ctx = op->ep->ctx;
	api_op_mem(op, false);
	if (op->ranges)
		api_slab_put(&ctx->lists, op->ranges);
	if (op->inject)
		api_slab_put(&ctx->injects, op->inject);
	if (op->mem)
		atomic_fetch_sub(&op->mem->uses, 1);
	atomic_fetch_sub(&op->ep->open_ops, 1);
	atomic_store(&op->state, API_OP_FREE);
	atomic_fetch_add(&op->gen, 1);
	api_slab_put(&ctx->ops, op);
}

/* "bf16 [4, 128]" */
static void api_op_shape(const struct msg_op *op, char *out, size_t bytes)
{
	size_t n = (size_t)snprintf(out, bytes, "%s [", tern_dtype_name(op->dtype));
	for (unsigned i = 0; i < op->dims && n < bytes; i++)
		n += (size_t)snprintf(out + n, bytes - n, "%s%llu", i ? ", " : "", (unsigned long long)op->shape[i]);
	if (n < bytes)
		snprintf(out + n, bytes - n, "]");
}

/* Why an operation failed, with what this end knows. Ends of peers and cancels are told by the peer or the caller, and come by the thousand: not here. */
static void api_op_words(struct api_op *op)
{
	const struct msg_op *m = &op->op;
	bool receiving = m->type == MSG_OP_RECV;
	unsigned long long bytes = m->bytes, own = layout_bytes(&m->layout), tag = m->tag;
	char text[CONTROL_TEXT_MAX], shape[256];
	switch (-m->status) {
	case TERN_ETRUNC:
		if (receiving)
			snprintf(text, sizeof(text), "the message of %llu bytes (tag 0x%llx) met a receive of %llu bytes; post a larger one", bytes,
			         tag, own);
		else
			snprintf(text, sizeof(text), "the message of %llu bytes (tag 0x%llx) met a smaller receive; let the peer post a larger one",
			         own, tag);
		break;
	case TERN_ESHAPE:
		api_op_shape(m, shape, sizeof(shape));
		snprintf(text, sizeof(text), "%s %s (tag 0x%llx) met another dtype or shape; both ends must describe the same tensor",
		         receiving ? "the receive of" : "the tensor", shape, tag);
		break;
	case TERN_EAUTH:
		snprintf(text, sizeof(text),
		         "%s %llu bytes at offset %llu of the peer's memory: no right, or it was revoked; let the peer export it with %s",
		         m->type == MSG_OP_READ ? "reading" : "writing", own, (unsigned long long)m->remote_offset,
		         m->type == MSG_OP_READ ? "TERN_REMOTE_READ" : "TERN_REMOTE_WRITE");
		break;
	default:
		return;
	}
	api_note(op->ep->ctx, m->id, m->status, text);
	LOG(op->ep->ctx, TERN_LOG_DEBUG, "operation %llx: %s", (unsigned long long)m->id, text);
}

static void api_op_done(struct api_op *op)
{
	op->time_ns = op->ep->ctx->now_ns;
	api_op_mem(op, false);
	if (op->op.status)
		api_op_words(op);
	if (op->ep->is_closing || ((op->op.flags & TERN_QUIET) && !op->op.status)) {
		api_op_free(op);
	} else if (op->op.flags & TERN_TESTED) {
		atomic_store_explicit(&op->state, API_OP_TESTED, memory_order_release);
	} else {
		atomic_store(&op->state, API_OP_ENDED);
		api_ring_put(op->ep, op);
	}
}

/* An event was taken: another may come in its place. */
void api_node_free(tern_ctx *ctx, struct api_node *node)
{
	api_slab_put(&ctx->nodes, node);
	if (atomic_fetch_sub(&ctx->nodes_out, 1) == API_NODES)
		api_wake(ctx);
}

static void api_run_command(tern_ctx *ctx, uintptr_t entry)
{
	struct api_op *op = (struct api_op *)(entry & ~(uintptr_t)1);
	if (entry & 1) {
		if (atomic_load(&op->state) == API_OP_POSTED && atomic_load(&op->gen) + 1 == op->cancel_gen)
			msg_cancel(ctx->loop->msg, &op->op);
		return;
	}
	if (op->ep->is_closing) {
		op->op.status = -TERN_ECANCELED;
		api_op_done(op);
		return;
	}
	if (op->op.peer != TERN_ANY_PEER) {
		struct api_peer *peer = api_peer_find(ctx, op->op.peer);
		if (!peer || !peer->lp || peer->lp->peer.state == PEER_GONE) {
			op->op.status = peer ? -TERN_EPEER : -TERN_ESTALE;
			api_op_done(op);
			return;
		}
		op->op.pair = peer->lp->peer.pair;
	}
	op->op.ep = op->ep->msg;
	loop_post(ctx->loop, &op->op);
}

static bool api_commands(tern_ctx *ctx)
{
	void *entry;
	unsigned n = 0;
	while (n < API_COMMANDS_STEP && (entry = ring_get(&ctx->commands, ctx->command_slots))) {
		api_run_command(ctx, (uintptr_t)entry);
		n++;
	}
	return n > 0;
}

void api_commands_flush(tern_ctx *ctx)
{
	/* bounded by what the ring holds now: others may go on posting */
	for (unsigned n = ring_entries(&ctx->commands), i = 0; i < n; i += API_COMMANDS_STEP)
		api_commands(ctx);
}

static void api_notice(tern_ctx *ctx, const struct msg_notice *n)
{
	tern_event e = {.type = n->type, .status = n->status, .peer = n->peer, .tag = n->tag, .imm = n->imm, .bytes = n->bytes};
	for (struct list *at = list_first(&ctx->eps); at; at = list_next(&ctx->eps, at)) {
		tern_ep *ep = list_entry(at, tern_ep, link);
		if (ep->msg == n->ep)
			api_event(ep, &e);
	}
}

static bool api_notices(tern_ctx *ctx)
{
	struct msg_notice notice;
	bool any = false;
	/* what nobody polls stays with msg, which then takes no more from the peer */
	while (atomic_load(&ctx->nodes_out) < API_NODES && msg_notice_pop(ctx->loop->msg, &notice)) {
		api_notice(ctx, &notice);
		any = true;
	}
	return any;
}

static bool api_results(tern_ctx *ctx)
{
	struct loop *loop = ctx->loop;
	struct msg_op *op;
	struct loop_peer *lp;
	bool any = false;
	while ((op = loop_done(loop))) {
		api_op_done((struct api_op *)op);
		any = true;
	}
	if (msg_has_notice(loop->msg))
		any |= api_notices(ctx);
	while (!list_empty(&loop->events) && (lp = loop_event(loop))) {
		api_peer_changed(ctx, lp);
		any = true;
	}
	return any;
}

bool api_step(tern_ctx *ctx, uint64_t now_ns)
{
	ctx->now_ns = now_ns;
	bool any = api_commands(ctx);
	any |= loop_step(ctx->loop, now_ns);
	any |= api_results(ctx);
	if (ctx->draining)
		api_peer_drain(ctx);
	if (!list_empty(&ctx->revokes))
		api_mem_revoked(ctx);
	return any;
}

bool api_send(tern_ctx *ctx, uint64_t now_ns)
{
	ctx->now_ns = now_ns;
	if (!api_commands(ctx))
		return false;
	loop_send(ctx->loop, now_ns);
	api_results(ctx);
	return true;
}

void api_drive(tern_ctx *ctx)
{
	if (!api_mutex_try(&ctx->lock))
		return;
	api_step(ctx, clock_now_ns());
	api_mutex_drop(&ctx->lock);
}

uint64_t api_arm_links(tern_ctx *ctx)
{
	uint64_t when = loop_due_ns(ctx->loop, ctx->now_ns);
	if (msg_has_notice(ctx->loop->msg) && atomic_load(&ctx->nodes_out) < API_NODES)
		return 0;
	if (ctx->draining) {
		uint64_t soon = ctx->now_ns + 1000000;
		when = when < soon ? when : soon;
	}
	for (size_t i = 0; when && i < ctx->loop->links; i++) {
		struct link_wait w = {.fd = -1, .deadline_ns = UINT64_MAX};
		ctx->loop->link[i]->ops->wait(ctx->loop->link[i], true, &w);
		if (!w.is_same || ctx->is_unwatched)
			api_link_watch(ctx, &w);
		when = w.deadline_ns < when ? w.deadline_ns : when;
	}
	ctx->is_unwatched &= when == 0; /* then not every link was asked */
	return when;
}

/* Sleeps until a descriptor, a command or `when`. The lock is not held; `sleeping` was set while it was (A2), so that whoever changed something since then wrote to
 * wake_fd, and the command ring is looked at after it. */
static void api_sleep(tern_ctx *ctx, uint64_t when_ns)
{
	uint64_t now = clock_now_ns(), count;
	struct epoll_event ev[4];
	struct timespec ts = {.tv_sec = 3600};
	if (when_ns != UINT64_MAX) {
		uint64_t nap = when_ns > now + API_SLEEP_MIN_NS / 2 ? when_ns - now - API_SLEEP_MIN_NS / 2 : 0;
		ts.tv_sec = (time_t)(nap / 1000000000);
		ts.tv_nsec = (long)(nap % 1000000000);
	}
	if (!ring_entries(&ctx->commands) && !atomic_load(&ctx->waiters) && !atomic_load(&ctx->stop))
		epoll_pwait2(ctx->epoll_fd, ev, 4, &ts, NULL);
	if (read(ctx->wake_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		LOG(ctx, TERN_LOG_WARN, "eventfd: %s", strerror(errno));
}

static void api_thread_signals(void)
{
	/* Signals are the program's; only those that a thread brings on itself stay open, so that a program may catch a SIGBUS on a mapped file. */
	sigset_t all;
	sigfillset(&all);
	const int own[] = {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGABRT};
	for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
		sigdelset(&all, own[i]);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
}

void *api_thread(void *arg)
{
	tern_ctx *ctx = arg;
	uint64_t busy_ns = 0;
	api_thread_signals();
	prctl(PR_SET_NAME, "tern-loop");
	prctl(PR_SET_TIMERSLACK, 1);
	while (!atomic_load(&ctx->stop)) {
		uint64_t now = clock_now_ns(), when = 0;
		api_mutex_take(&ctx->lock);
		if (api_step(ctx, now))
			busy_ns = now;
		else if (now - busy_ns > API_SPIN_NS) {
			atomic_store(&ctx->sleeping, 1); /* A2 */
			when = api_arm_links(ctx);
		}
		api_mutex_drop(&ctx->lock);
		/* bounded: a waiter takes the lock as soon as it runs */
		for (unsigned i = 0; i < 1000 && atomic_load(&ctx->waiters); i++)
			sched_yield();
		if (when > now + API_SLEEP_MIN_NS)
			api_sleep(ctx, when);
		atomic_store(&ctx->sleeping, 0);
	}
	return NULL;
}
