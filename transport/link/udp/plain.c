/* The engine on plain sockets: one sendmsg a batch, one recvmsg a GRO buffer, epoll for many sockets and for sleeping. Called through
 * udp_engine_plain by udp.c.
 *
 * Which sockets are read: up to PLAIN_FEW sockets the one that gave something last is read every time and the others in turn now and then, without
 * epoll: a ping-pong costs one system call a look. Above that epoll says which. */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "link/udp/udp.h"
#include "tern/error.h"

enum {
	PLAIN_FEW = 4,
	PLAIN_OTHERS_EVERY = 8, /* looks at the last giver between two looks at another socket */
	PLAIN_READY_MAX = 64,
	PLAIN_READS = 8, /* receives in one rx: half a MiB of full GRO buffers stays in the cache */
};

struct plain {
	int epoll;
	bool watching; /* sockets are in the epoll set: wait was called, or there are many */
	bool woken;    /* after a wait: ask epoll once who it was */
	bool said;     /* armed wait has given the set out */
	uint32_t hot, turn, looks;
	struct udp_sock *blocked; /* the last whose send buffer was full */
	struct udp_sock *ready[PLAIN_READY_MAX];
	uint32_t n_ready;
	struct iovec iov[UDP_BATCH_IOV_MAX], rx_iov[2 * UDP_BATCH_FRAMES_MAX + 1];
};

static int plain_open(struct udp_link *l)
{
	struct plain *e = calloc(1, sizeof(*e));
	if (!e)
		return -TERN_EIO;
	e->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (e->epoll < 0) {
		free(e);
		return -TERN_EIO;
	}
	l->engine_state = e;
	return 0;
}

static void plain_close(struct udp_link *l)
{
	struct plain *e = l->engine_state;
	close(e->epoll);
	free(e);
	l->engine_state = NULL;
}

static int plain_watch(struct plain *e, struct udp_sock *s)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = s};
	if (!s->watched && epoll_ctl(e->epoll, EPOLL_CTL_ADD, s->fd, &event))
		return -TERN_EIO;
	s->watched = true;
	return 0;
}

/* Sockets join the epoll set only when it is needed: each arrival at a watched socket costs the kernel a callback. */
static int plain_watch_all(struct udp_link *l)
{
	struct plain *e = l->engine_state;
	for (uint32_t i = 0; i < l->n_socks && !e->watching; i++)
		if (plain_watch(e, l->socks[i]))
			return -TERN_EIO;
	e->watching = true;
	return 0;
}

static int plain_sock_add(struct udp_link *l, struct udp_sock *s)
{
	struct plain *e = l->engine_state;
	if (!e->watching && l->n_socks > PLAIN_FEW)
		return plain_watch_all(l);
	return e->watching ? plain_watch(e, s) : 0;
}

static void plain_sock_del(struct udp_link *l, struct udp_sock *s)
{
	struct plain *e = l->engine_state;
	if (s->watched)
		epoll_ctl(e->epoll, EPOLL_CTL_DEL, s->fd, NULL);
	s->watched = false;
	for (uint32_t i = 0; i < e->n_ready; i++)
		if (e->ready[i] == s)
			e->ready[i--] = e->ready[--e->n_ready];
	if (e->blocked == s)
		e->blocked = NULL;
	e->hot = e->turn = 0;
}

static size_t plain_tx(struct udp_link *l, struct frame *const *frames, size_t n)
{
	struct plain *e = l->engine_state;
	size_t done = udp_send_now(l, frames, n, e->iov);
	if (done < n)
		e->blocked = &((struct udp_path *)frames[done]->path)->sock;
	return done;
}

/* One receive. @return bytes, or -errno; 0 or more: the message is in l->rest */
static long plain_recv(struct udp_link *l, struct udp_sock *s)
{
	struct udp_buf *b = udp_buf_get(l);
	_Alignas(struct cmsghdr) char control[UDP_CONTROL_BYTES];

	if (!b)
		return -ENOBUFS;
	struct plain *e = l->engine_state;
	struct udp_message m = {.buf = b, .path = s->path, .data = b->data};
	size_t iovs = s->path && s->path->post.bytes ? udp_scatter_iov(l, s->path, &m, e->rx_iov) : 0;
	if (!iovs) {
		e->rx_iov[0] = (struct iovec){.iov_base = b->data, .iov_len = UDP_BUF_DATA};
		iovs = 1;
	}
	struct msghdr msg = {.msg_iov = e->rx_iov, .msg_iovlen = iovs, .msg_control = control, .msg_controllen = sizeof(control)};
	if (!s->path) {
		msg.msg_name = &b->from;
		msg.msg_namelen = sizeof(b->from);
	}
	/* syscall: the library's wrapper is a cancellation point, whose bookkeeping took 7 % of a polling loop (perf record of tern-lat) */
	ssize_t bytes = syscall(SYS_recvmsg, s->fd, &msg, MSG_DONTWAIT);
	l->base.rx_calls++;
	if (bytes < 0) {
		int err = errno;
		udp_buf_put(l, b);
		if (err == ECONNREFUSED)
			l->refused++;
		return -err;
	}
	m.bytes = (uint32_t)bytes;
	udp_message_control(&m, &msg);
	if (m.pairs)
		udp_scatter_settle(l, s->path, &m);
	udp_split_start(l, &m);
	return bytes;
}

/* Reads one socket: one message, more while it keeps giving (a stream), so that a lone one is answered before anything else is asked of the kernel.
 */
static size_t plain_read(struct udp_link *l, struct udp_sock *s, struct rx_frame *out, size_t n, uint32_t *reads)
{
	size_t got = 0;

	while (got < n && *reads) {
		long bytes = plain_recv(l, s);
		--*reads;
		if (bytes == -ECONNREFUSED)
			continue;
		if (bytes < 0) {
			s->streak = 0;
			break;
		}
		got += udp_split_next(l, out + got, n - got);
		if (++s->streak < 3)
			break;
	}
	return got;
}

/* Few sockets: the last giver always, one of the others now and then. */
static size_t plain_rx_few(struct udp_link *l, struct rx_frame *out, size_t n, uint32_t reads)
{
	struct plain *e = l->engine_state;
	size_t got = plain_read(l, l->socks[e->hot], out, n, &reads);

	if (l->n_socks > 1 && ++e->looks % PLAIN_OTHERS_EVERY == 0 && got < n && reads) {
		if (++e->turn >= l->n_socks)
			e->turn = 0;
		if (e->turn != e->hot) {
			size_t more = plain_read(l, l->socks[e->turn], out + got, n - got, &reads);
			if (more && !got)
				e->hot = e->turn;
			got += more;
		}
	}
	return got;
}

static void plain_ready(struct udp_link *l)
{
	struct plain *e = l->engine_state;
	struct epoll_event event[PLAIN_READY_MAX];
	int n = epoll_wait(e->epoll, event, PLAIN_READY_MAX, 0);

	l->base.rx_calls++;
	for (int i = 0; i < n; i++)
		e->ready[e->n_ready++] = event[i].data.ptr;
}

/* Many sockets: those that epoll named, each once a call until it is empty; when none is left epoll is asked again. */
static size_t plain_rx_ready(struct udp_link *l, struct rx_frame *out, size_t n, uint32_t reads)
{
	struct plain *e = l->engine_state;
	size_t got = 0;

	if (!e->n_ready)
		plain_ready(l);
	for (uint32_t i = 0, looks = e->n_ready; looks && got < n && reads; looks--) {
		struct udp_sock *s = e->ready[i];
		size_t more = plain_read(l, s, out + got, n - got, &reads);
		got += more;
		if (more && l->n_socks <= PLAIN_FEW)
			e->hot = s->slot;
		if (s->streak) /* may have more: stays */
			i++;
		else
			e->ready[i] = e->ready[--e->n_ready];
	}
	return got;
}

static void plain_unblock(struct plain *e)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = e->blocked};
	if (e->blocked && e->blocked->watched)
		epoll_ctl(e->epoll, EPOLL_CTL_MOD, e->blocked->fd, &event);
	e->blocked = NULL;
}

static size_t plain_rx(struct udp_link *l, struct rx_frame *out, size_t n)
{
	struct plain *e = l->engine_state;
	bool woken = e->woken;

	if (!l->n_socks || !l->n_idle || !n)
		return 0;
	if (woken) {
		plain_unblock(e);
		e->woken = false;
	}
	if (woken || e->n_ready || l->n_socks > PLAIN_FEW)
		return plain_rx_ready(l, out, n, PLAIN_READS);
	return plain_rx_few(l, out, n, PLAIN_READS);
}

/* The set is level-triggered: what is there already fires at once. A full send buffer is waited for too. */
static void plain_wait(struct udp_link *l, bool armed, struct link_wait *out)
{
	struct plain *e = l->engine_state;

	out->fd = e->epoll;
	out->deadline_ns = UINT64_MAX;
	if (plain_watch_all(l)) {
		out->fd = -1;
		out->deadline_ns = 0;
		return;
	}
	if (!armed)
		return;
	out->is_same = e->said;
	e->woken = e->said = true;
	if (e->blocked) {
		struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = e->blocked};
		epoll_ctl(e->epoll, EPOLL_CTL_MOD, e->blocked->fd, &event);
	}
}

const struct udp_engine udp_engine_plain = {
    .name = "plain",
    .open = plain_open,
    .close = plain_close,
    .sock_add = plain_sock_add,
    .sock_del = plain_sock_del,
    .tx = plain_tx,
    .rx = plain_rx,
    .wait = plain_wait,
};
