/* Events to the caller: poll, wait, descriptor, arm. One thread at a time on an endpoint. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include "api/context.h"
#include "base/clock.h"
#include "base/err.h"

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
static void event_timer(tern_ep *ep, uint64_t when_ns, uint64_t now_ns)
{
	struct itimerspec it = {0};
	if (ep->timer_ns > now_ns && ep->timer_ns <= when_ns)
		return;
	if (when_ns != UINT64_MAX) {
		it.it_value.tv_sec = (time_t)(when_ns / 1000000000);
		it.it_value.tv_nsec = (long)(when_ns % 1000000000);
	}
	timerfd_settime(ep->timer_fd, TFD_TIMER_ABSTIME, &it, NULL);
	ep->timer_ns = when_ns;
}

/* The flag is set after the write: what is missed here wakes once for nothing and is seen the next time. */
static void event_drain(int fd, _Atomic bool *written)
{
	uint64_t count;
	if (atomic_load(written) && atomic_exchange(written, false) && read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		atomic_store(written, true);
}

/* Under the lock, without a thread of the library: poll_fd fires for events of the endpoint, frames, commands of other threads, timers and `end_ns`.
 * @return -TERN_EAGAIN: there is something already */
static int event_arm(tern_ep *ep, uint64_t end_ns)
{
	tern_ctx *ctx = ep->ctx;
	event_drain(ep->event_fd, &ep->written);
	event_drain(ctx->wake_fd, &ctx->woken);
	atomic_store(&ep->armed, true); /* A1 */
	event_asleep(ep, true);         /* A2 */
	uint64_t when = api_arm_links(ctx);
	if (when <= ctx->now_ns || ring_entries(&ctx->commands) || ring_entries(&ep->events)) {
		event_asleep(ep, false);
		return -TERN_EAGAIN;
	}
	event_timer(ep, when < end_ns ? when : end_ns, ctx->now_ns);
	return 0;
}

static int event_arm_thread(tern_ep *ep)
{
	event_drain(ep->event_fd, &ep->written);
	atomic_store(&ep->armed, true); /* A1 */
	return ring_entries(&ep->events) ? -TERN_EAGAIN : 0;
}

int tern_arm(tern_ep *ep)
{
	if (!ep)
		return ERR(TERN_EINVAL, "endpoint is NULL");
	tern_ctx *ctx = ep->ctx;
	if (api_fork_check(ctx))
		return -TERN_EFORK;
	if (ctx->has_thread)
		return event_arm_thread(ep);
	if (!api_mutex_try(&ctx->lock))
		return -TERN_EAGAIN; /* somebody drives right now and may bring something */
	ctx->now_ns = clock_now_ns();
	int err = event_arm(ep, UINT64_MAX);
	api_mutex_drop(&ctx->lock);
	return err;
}

static uint64_t event_end(uint64_t now_ns, uint64_t timeout_ns)
{
	return timeout_ns < TERN_TIME_NONE - now_ns ? now_ns + timeout_ns : TERN_TIME_NONE;
}

/* The library's thread drives: all that can wake is event_fd. */
static int event_wait_thread(tern_ep *ep, tern_event *events, size_t n, uint64_t timeout_ns, size_t *got)
{
	struct pollfd fd = {.fd = ep->event_fd, .events = POLLIN};
	uint64_t now = clock_now_ns(), end = event_end(now, timeout_ns);
	while (!(*got = event_take(ep, events, n))) {
		now = clock_now_ns();
		if (now >= end)
			return -TERN_ETIMEDOUT;
		if (event_arm_thread(ep))
			continue;
		struct timespec ts = {.tv_sec = (time_t)((end - now) / 1000000000), .tv_nsec = (long)((end - now) % 1000000000)};
		if (ppoll(&fd, 1, end == TERN_TIME_NONE ? NULL : &ts, NULL) < 0 && errno != EINTR)
			return ERR(TERN_EIO, "poll: %s", strerror(errno));
	}
	return 0;
}

/* What was posted leaves, then the set is armed under the same lock; a whole step comes only if nothing was posted, if arming finds something, or
 * after a sleep that something else than the timer has ended. No looking around before a sleep: the answer to what was just sent cannot be there yet,
 * and a peer on the same core needs its turn. */
static int event_wait(tern_ep *ep, tern_event *events, size_t n, uint64_t timeout_ns, size_t *got)
{
	tern_ctx *ctx = ep->ctx;
	struct epoll_event fired;
	uint64_t end = 0;
	bool first = true, early = false;
	for (;; first = false) {
		int err = -TERN_EAGAIN; /* somebody else drives right now and may bring something */
		event_asleep(ep, false);
		bool mine = api_mutex_try(&ctx->lock);
		uint64_t now = clock_now_ns();
		end = first ? event_end(now, timeout_ns) : end;
		if (mine) {
			ctx->now_ns = now;
			if (now >= end || !(early || (first && api_send(ctx, now))))
				api_step(ctx, now);
			if (!ring_entries(&ep->events) && now < end)
				err = event_arm(ep, end);
			api_mutex_drop(&ctx->lock);
		}
		*got = err ? event_take(ep, events, n) : 0; /* armed: there was none */
		if (*got)
			return 0;
		if (now >= end)
			return -TERN_ETIMEDOUT;
		int n_fired = err ? 0 : epoll_wait(ep->poll_fd, &fired, 1, -1);
		if (n_fired < 0 && errno != EINTR)
			return ERR(TERN_EIO, "epoll: %s", strerror(errno));
		early = n_fired == 1 && fired.data.fd == ep->timer_fd; /* nearly always for a deadline that has moved on: arming tells */
	}
}

int tern_wait(tern_ep *ep, tern_event *events, size_t n, uint64_t timeout_ns, size_t *got)
{
	if (!ep || !events || !got)
		return ERR(TERN_EINVAL, "tern_wait: ep, events and got must not be NULL");
	*got = 0;
	if (api_fork_check(ep->ctx))
		return -TERN_EFORK;
	return ep->ctx->has_thread ? event_wait_thread(ep, events, n, timeout_ns, got) : event_wait(ep, events, n, timeout_ns, got);
}
