/* Events to the caller: poll, wait, descriptor, arm. One thread at a time on an endpoint. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include "api/context.h"
#include "base/clock.h"
#include "base/err.h"

/* No looking around before a sleep: arming looks once more, and a peer on the same core needs its turn (8 B over soft RoCE: 41 us with 8 looks, 33 with one) */
#define POLL_SLACK_NS 200000ull /* a sleep that ends sooner is timed by a timer: the kernel lets a poll oversleep by 50 us */

static size_t event_take(tern_ep *ep, tern_event *events, size_t n)
{
	size_t got = 0;
	void *entry;
	while (got < n && (entry = ring_get(&ep->events, ep->slots))) {
		if ((uintptr_t)entry & 1) {
			struct api_node *node = (struct api_node *)((uintptr_t)entry & ~(uintptr_t)1);
			events[got++] = node->event;
			api_node_free(ep->ctx, node);
		} else {
			api_op_event(entry, &events[got++]);
			api_op_free(entry);
		}
	}
	return got;
}

/* Without a thread of the library: whether this endpoint's poller may be asleep. Others of the same context sleep and wake on their own. */
static void event_asleep(tern_ep *ep, bool asleep)
{
	if (ep->asleep != asleep)
		atomic_fetch_add(&ep->ctx->sleeping, asleep ? 1 : -1);
	ep->asleep = asleep;
	if (!asleep && atomic_load_explicit(&ep->armed, memory_order_relaxed))
		atomic_store(&ep->armed, false); /* whoever polls need not be woken */
}

int tern_poll(tern_ep *ep, tern_event *events, size_t n, size_t *got)
{
	if (!ep || !events || !got)
		return ERR(TERN_EINVAL, "tern_poll: ep, events and got must not be NULL");
	*got = 0;
	if (api_fork_check(ep->ctx))
		return -TERN_EFORK;
	if (!ep->ctx->has_thread) {
		event_asleep(ep, false);
		api_drive(ep->ctx);
	}
	*got = event_take(ep, events, n);
	return 0;
}

int tern_fd(tern_ep *ep)
{
	return ep ? ep->poll_fd : ERR(TERN_EINVAL, "endpoint is NULL");
}

/* One that fires too early wakes for nothing once; setting it each time costs a system call a message. Setting takes an expiry back. */
static void event_timer(tern_ctx *ctx, uint64_t when_ns)
{
	struct itimerspec it = {0};
	if (ctx->timer_ns > ctx->now_ns && ctx->timer_ns <= when_ns)
		return;
	if (when_ns != UINT64_MAX) {
		it.it_value.tv_sec = (time_t)(when_ns / 1000000000);
		it.it_value.tv_nsec = (long)(when_ns % 1000000000);
	}
	timerfd_settime(ctx->timer_fd, TFD_TIMER_ABSTIME, &it, NULL);
	ctx->timer_ns = when_ns;
}

/* Without a thread of its own the endpoint must also wake for frames, commands of other threads and timers: by poll_fd, or, asleep in tern_wait, by `fds` and *when_ns
 * themselves, which saves a timer and two layers of epoll. */
static int event_arm_context(tern_ep *ep, struct api_fds *fds, uint64_t *when_ns)
{
	tern_ctx *ctx = ep->ctx;
	if (pthread_mutex_trylock(&ctx->lock))
		return -TERN_EAGAIN; /* somebody drives right now and may bring something */
	ctx->now_ns = clock_now_ns();
	event_asleep(ep, true);
	*when_ns = api_arm_links(ctx, fds);
	bool ready = *when_ns <= ctx->now_ns || ring_entries(&ctx->commands);
	if (ready) {
		event_asleep(ep, false);
	} else if (!fds || *when_ns < ctx->now_ns + POLL_SLACK_NS) {
		event_timer(ctx, *when_ns);
		if (fds)
			fds->fd[fds->n++] = (struct pollfd){.fd = ctx->timer_fd, .events = POLLIN};
	}
	pthread_mutex_unlock(&ctx->lock);
	return ready ? -TERN_EAGAIN : 0;
}

/* The flag is set after the write: what is missed here wakes once for nothing and is seen the next time. */
static void event_drain(int fd, _Atomic bool *written)
{
	uint64_t count;
	if (atomic_load(written) && atomic_exchange(written, false) && read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		atomic_store(written, true);
}

static int event_arm(tern_ep *ep, struct api_fds *fds, uint64_t *when_ns)
{
	tern_ctx *ctx = ep->ctx;
	*when_ns = UINT64_MAX;
	event_drain(ep->event_fd, &ep->written);
	atomic_store(&ep->armed, true); /* A1 */
	if (!ctx->has_thread) {
		event_drain(ctx->wake_fd, &ctx->woken);
		int err = event_arm_context(ep, fds, when_ns);
		if (err)
			return err;
	}
	return ring_entries(&ep->events) ? -TERN_EAGAIN : 0;
}

int tern_arm(tern_ep *ep)
{
	uint64_t when;
	if (!ep)
		return ERR(TERN_EINVAL, "endpoint is NULL");
	if (api_fork_check(ep->ctx))
		return -TERN_EFORK;
	return event_arm(ep, NULL, &when);
}

static int event_sleep(tern_ep *ep, struct api_fds *fds, uint64_t end_ns)
{
	struct timespec ts, *timeout = NULL;
	fds->fd[fds->n++] = (struct pollfd){.fd = ep->event_fd, .events = POLLIN};
	if (!ep->ctx->has_thread)
		fds->fd[fds->n++] = (struct pollfd){.fd = ep->ctx->wake_fd, .events = POLLIN};
	if (end_ns != TERN_TIME_NONE) {
		uint64_t now = clock_now_ns(), left = end_ns > now ? end_ns - now : 0;
		ts = (struct timespec){.tv_sec = (time_t)(left / 1000000000), .tv_nsec = (long)(left % 1000000000)};
		timeout = &ts;
	}
	if (ppoll(fds->fd, fds->n, timeout, NULL) < 0 && errno != EINTR)
		return ERR(TERN_EIO, "poll: %s", strerror(errno));
	return 0;
}

int tern_wait(tern_ep *ep, tern_event *events, size_t n, uint64_t timeout_ns, size_t *got)
{
	uint64_t end = timeout_ns == TERN_TIME_NONE ? TERN_TIME_NONE : clock_now_ns() + timeout_ns;
	for (;;) {
		int err = tern_poll(ep, events, n, got);
		if (err || *got)
			return err;
		if (end != TERN_TIME_NONE && clock_now_ns() >= end)
			return -TERN_ETIMEDOUT;
		struct api_fds fds = {.n = 0};
		uint64_t when;
		if (event_arm(ep, &fds, &when))
			continue;
		err = event_sleep(ep, &fds, when < end ? when : end);
		if (err)
			return err;
	}
}
