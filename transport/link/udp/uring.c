/* The engine on io_uring: multishot recvmsg into provided buffers, sendmsg entries submitted once a tx. Called through udp_engine_uring by udp.c.
 * One ring a link, for one thread: completions are delivered when that thread asks (DEFER_TASKRUN), so an idle look costs no system call, and the
 * kernel writes into buffers at no other time. When another thread takes the link over, the link goes on with plain sockets (uring_moved). A
 * completion finds its socket through a table with generations: one that comes after its socket is gone only gives its buffer back. */
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include "link/udp/udp.h"
#include "tern/tern.h"

enum {
	URING_ENTRIES = 128,
	URING_CQ_ENTRIES = 1024,
	URING_SENDS_MAX = 64,   /* batches in the kernel */
	URING_IOV = 4096,       /* of the batches of one submit */
	URING_POSTED = 16,      /* buffers in the ring: 1 MiB stays in the cache */
	URING_SHARED_NAME = 32, /* a sockaddr_in6, rounded up so that the control messages behind it are aligned */
	URING_GROUP = 0,
};
_Static_assert(sizeof(struct io_uring_recvmsg_out) + URING_SHARED_NAME + UDP_CONTROL_BYTES <= UDP_BUF_ROOM, "io_uring's header fits before the data");

/* user_data: kind in the top byte, then index and generation */
enum uring_kind { URING_SEND = 1, URING_RECV = 2 };

struct uring_send {
	struct frame *frames[UDP_BATCH_FRAMES_MAX];
	struct udp_batch batch;
};

struct uring_id {
	struct udp_sock *sock;
	uint32_t generation;
};

struct uring {
	struct io_uring ring;
	struct io_uring_buf_ring *bufs;
	uint32_t posted;
	bool enabled;
	int event;             /* to sleep on, -1 before the first wait: the ring's own descriptor does not fire for deferred work */
	const void *thread;    /* &uring_here of the thread that enabled it */
	uint32_t unarmed;      /* sockets without a receive in the ring */
	struct msghdr name[2]; /* for recvmsg: path sockets, the shared one */
	struct uring_send send[URING_SENDS_MAX];
	uint32_t idle[URING_SENDS_MAX], n_idle;
	struct uring_id *ids; /* UDP_PATHS_MAX + 1 */
	uint32_t n_ids;
	struct udp_message got[UDP_BUFS]; /* received, not yet given out: a ring, each holds a buffer */
	uint32_t got_head, got_tail;
	struct iovec iov[URING_IOV], again[UDP_BATCH_IOV_MAX];
};

static _Thread_local char uring_here; /* its address names the thread */

static void uring_close(struct udp_link *l)
{
	struct uring *e = l->engine_state;
	io_uring_queue_exit(&e->ring);
	if (e->event >= 0)
		close(e->event);
	if (e->bufs)
		munmap(e->bufs, UDP_BUFS * sizeof(struct io_uring_buf));
	free(e->ids);
	free(e);
	l->engine_state = NULL;
}

static int uring_open(struct udp_link *l)
{
	struct uring *e = calloc(1, sizeof(*e));
	struct io_uring_params params = {.cq_entries = URING_CQ_ENTRIES,
	                                 .flags = IORING_SETUP_CQSIZE | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
	                                          IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_R_DISABLED};
	if (!e)
		return -TERN_EIO;
	e->ids = calloc(UDP_PATHS_MAX + 1, sizeof(*e->ids));
	if (!e->ids || io_uring_queue_init_params(URING_ENTRIES, &e->ring, &params)) {
		free(e->ids);
		free(e);
		return -TERN_EIO;
	}
	l->engine_state = e;
	e->event = -1;
	void *memory = mmap(NULL, UDP_BUFS * sizeof(struct io_uring_buf), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct io_uring_buf_reg reg = {.ring_addr = (uintptr_t)memory, .ring_entries = UDP_BUFS, .bgid = URING_GROUP};
	if (memory == MAP_FAILED)
		goto fail;
	e->bufs = memory;
	if (io_uring_register_buf_ring(&e->ring, &reg, 0))
		goto fail;
	io_uring_buf_ring_init(e->bufs);
	for (uint32_t i = 0; i < URING_SENDS_MAX; i++)
		e->idle[e->n_idle++] = i;
	e->name[0] = (struct msghdr){.msg_controllen = UDP_CONTROL_BYTES};
	e->name[1] = (struct msghdr){.msg_controllen = UDP_CONTROL_BYTES, .msg_namelen = URING_SHARED_NAME};
	return 0;

fail:
	uring_close(l);
	return -TERN_EIO;
}

static uint64_t uring_data(enum uring_kind kind, uint32_t index, uint32_t generation)
{
	return (uint64_t)kind << 56 | (uint64_t)index << 32 | generation;
}

/* Buffers that came back go into the ring, up to URING_POSTED; the warmest first. */
static void uring_fill(struct udp_link *l, struct uring *e)
{
	int n = 0;
	while (e->posted < URING_POSTED && l->n_idle) {
		struct udp_buf *b = udp_buf_get(l);
		io_uring_buf_ring_add(e->bufs, b->data - UDP_BUF_ROOM, UDP_BUF_BYTES, (unsigned short)b->index, io_uring_buf_ring_mask(UDP_BUFS),
		                      n++);
		e->posted++;
	}
	if (n)
		io_uring_buf_ring_advance(e->bufs, n);
}

static void uring_arm(struct udp_link *l, struct uring *e)
{
	for (uint32_t i = 0; i < l->n_socks && e->unarmed; i++) {
		struct udp_sock *s = l->socks[i];
		struct io_uring_sqe *sqe = s->armed ? NULL : io_uring_get_sqe(&e->ring);
		if (s->armed)
			continue;
		if (!sqe)
			return;
		io_uring_prep_recvmsg_multishot(sqe, s->fd, &e->name[!s->path], 0);
		sqe->flags |= IOSQE_BUFFER_SELECT;
		sqe->buf_group = URING_GROUP;
		sqe->user_data = uring_data(URING_RECV, s->id, e->ids[s->id].generation);
		s->armed = true;
		e->unarmed--;
	}
}

/* A message has come: control messages and address stand before the data. */
static void uring_message(struct udp_link *l, struct uring *e, struct udp_sock *s, struct udp_buf *b, int bytes)
{
	struct msghdr *name = &e->name[!s->path];
	struct io_uring_recvmsg_out *o = io_uring_recvmsg_validate(b->data - UDP_BUF_ROOM, bytes, name);
	if (!o) {
		l->base.rx_dropped++;
		udp_buf_put(l, b);
		return;
	}
	struct udp_message m = {
	    .buf = b, .path = s->path, .data = io_uring_recvmsg_payload(o, name), .bytes = io_uring_recvmsg_payload_length(o, bytes, name)};
	struct msghdr msg = {.msg_control = (uint8_t *)(o + 1) + name->msg_namelen, .msg_controllen = o->controllen};
	udp_message_control(&m, &msg);
	if (!s->path)
		memcpy(&b->from, io_uring_recvmsg_name(o), sizeof(struct sockaddr_in6));
	b->path = s->path;
	e->got[e->got_head++ % UDP_BUFS] = m;
}

static void uring_received(struct udp_link *l, struct uring *e, const struct io_uring_cqe *cqe)
{
	struct uring_id *id = &e->ids[cqe->user_data >> 32 & 0xffffff];
	struct udp_sock *s = id->generation == (uint32_t)cqe->user_data ? id->sock : NULL;

	l->base.rx_calls++;
	if (cqe->flags & IORING_CQE_F_BUFFER) {
		struct udp_buf *b = &l->bufs[cqe->flags >> IORING_CQE_BUFFER_SHIFT];
		e->posted--;
		if (s && cqe->res >= 0)
			uring_message(l, e, s, b, cqe->res);
		else
			udp_buf_put(l, b);
	}
	if (cqe->res == -ECONNREFUSED)
		l->refused++;
	if (s && !(cqe->flags & IORING_CQE_F_MORE)) { /* out of buffers, or an ICMP answer */
		s->armed = false;
		e->unarmed++;
	}
}

static void uring_sent(struct udp_link *l, struct uring *e, const struct io_uring_cqe *cqe)
{
	uint32_t index = cqe->user_data >> 32 & 0xffffff;
	struct uring_send *x = &e->send[index];
	size_t n = x->batch.frames, done = n;

	x->batch.frames = 0;
	e->idle[e->n_idle++] = index;
	if (!n) /* given back when its path closed */
		return;
	x->batch.frames = n;
	if (cqe->res == -ECANCELED) { /* its path closed */
		for (size_t i = 0; i < n; i++)
			udp_done_put(l, x->frames[i]);
		l->base.tx_dropped += n;
	} else if (udp_batch_verdict(l, &x->batch, x->frames, cqe->res) != UDP_TAKEN) {
		done = udp_send_now(l, x->frames, n, e->again); /* the rare cases: one by one, now */
	}
	for (size_t i = done; i < n; i++, l->base.tx_dropped++)
		udp_done_put(l, x->frames[i]);
	x->batch.frames = 0;
}

static void uring_take(struct udp_link *l, struct uring *e)
{
	struct io_uring_cqe *cqe;
	unsigned head, n = 0;

	io_uring_for_each_cqe(&e->ring, head, cqe)
	{
		n++;
		if (cqe->user_data >> 56 == URING_RECV)
			uring_received(l, e, cqe);
		else if (cqe->user_data >> 56 == URING_SEND)
			uring_sent(l, e, cqe);
	}
	if (n)
		io_uring_cq_advance(&e->ring, n);
}

/* Frames of sends that will not complete any more. @param path of this path only; NULL: of all */
static void uring_give_back(struct udp_link *l, struct uring *e, const struct udp_path *path)
{
	for (uint32_t i = 0; i < URING_SENDS_MAX; i++) {
		struct udp_batch *b = &e->send[i].batch;
		if (path && b->path != path)
			continue;
		for (size_t k = 0; k < b->frames; k++, l->base.tx_dropped++)
			udp_done_put(l, e->send[i].frames[k]);
		b->frames = 0;
	}
}

/* Another thread uses the link than the ring's (known by its address, or by -EEXIST): on with plain sockets. Buffers that were in the ring are not
 * used again; what it held is lost on the way. @return false: not now */
static bool uring_moved(struct udp_link *l, struct uring *e)
{
	l->engine_state = NULL;
	if (udp_engine_plain.open(l)) {
		l->engine_state = e;
		return false;
	}
	void *plain = l->engine_state;
	l->engine_state = e;
	udp_log(l, TERN_LOG_WARN, "another thread took the link over: io_uring is left for plain sockets");
	uring_take(l, e);
	uring_give_back(l, e, NULL);
	for (; e->got_tail != e->got_head; e->got_tail++, l->base.rx_dropped++)
		udp_buf_put(l, e->got[e->got_tail % UDP_BUFS].buf);
	uring_close(l);
	l->engine_state = plain;
	l->engine = &udp_engine_plain;
	for (uint32_t i = 0, n = l->n_socks; i < n; i++) {
		l->n_socks = i + 1;
		l->engine->sock_add(l, l->socks[i]);
	}
	return true;
}

/* Takes completions; enters the kernel only if it has work for us. @return false: this is not the ring's thread */
static bool uring_poll(struct udp_link *l, struct uring *e)
{
	if (e->thread != &uring_here)
		return false;
	if (*e->ring.sq.kflags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW) && io_uring_get_events(&e->ring) == -EEXIST)
		return false;
	uring_take(l, e);
	return true;
}

/* @return false: this is not the ring's thread */
static bool uring_ready(struct udp_link *l, struct uring *e)
{
	if (!e->enabled &&
	    io_uring_register(e->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) >= 0) { /* liburing 2.3 forgets to export the call for it */
		e->enabled = true;
		e->thread = &uring_here;
	}
	if (e->thread != &uring_here)
		return false;
	if (e->posted < URING_POSTED && l->n_idle)
		uring_fill(l, e);
	if (e->unarmed && e->posted)
		uring_arm(l, e);
	return !io_uring_sq_ready(&e->ring) || io_uring_submit(&e->ring) != -EEXIST;
}

static int uring_sock_add(struct udp_link *l, struct udp_sock *s)
{
	struct uring *e = l->engine_state;
	uint32_t id = 0;
	while (id < e->n_ids && e->ids[id].sock)
		id++;
	if (id == e->n_ids)
		e->n_ids++;
	e->ids[id].sock = s;
	e->ids[id].generation++;
	s->id = id;
	s->armed = false;
	e->unarmed++;
	return 0;
}

static void uring_sock_del(struct udp_link *l, struct udp_sock *s)
{
	struct uring *e = l->engine_state;
	struct io_uring_sync_cancel_reg cancel = {
	    .fd = s->fd, .flags = IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ALL, .timeout = {.tv_nsec = 50000000}};

	if (e->enabled && (e->thread != &uring_here || io_uring_register_sync_cancel(&e->ring, &cancel) == -EEXIST || !uring_poll(l, e)) &&
	    uring_moved(l, e)) {
		l->engine->sock_del(l, s);
		return;
	}
	if (s->path)
		uring_give_back(l, e, s->path);
	if (!s->armed)
		e->unarmed--;
	e->ids[s->id].sock = NULL;
	e->ids[s->id].generation++;
	for (uint32_t i = e->got_tail; i != e->got_head; i++) { /* what it received and nobody saw */
		struct udp_message *m = &e->got[i % UDP_BUFS];
		if (s->path && m->path == s->path) {
			m->path = NULL;
			m->bytes = 0;
		}
	}
}

static size_t uring_tx(struct udp_link *l, struct frame *const *frames, size_t n)
{
	struct uring *e = l->engine_state;
	size_t done = 0, iovs = 0;

	if (!uring_ready(l, e))
		return uring_moved(l, e) ? l->engine->tx(l, frames, n) : 0;
	if (io_uring_sq_ready(&e->ring)) /* the kernel did not take the last ones: their iovecs must stay */
		return 0;
	while (done < n && e->n_idle && iovs + UDP_BATCH_IOV_MAX <= URING_IOV) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&e->ring);
		if (!sqe)
			break;
		uint32_t index = e->idle[--e->n_idle];
		struct uring_send *x = &e->send[index];
		x->batch.iov = e->iov + iovs;
		udp_batch_build(frames + done, n - done, false, &x->batch);
		memcpy(x->frames, frames + done, x->batch.frames * sizeof(*frames));
		iovs += x->batch.iovs;
		io_uring_prep_sendmsg(sqe, x->batch.path->sock.fd, &x->batch.msg, MSG_NOSIGNAL);
		sqe->user_data = uring_data(URING_SEND, index, 0);
		done += x->batch.frames;
	}
	if (done && !uring_ready(l, e))
		uring_moved(l, e);
	return done;
}

static void uring_reap(struct udp_link *l)
{
	struct uring *e = l->engine_state;
	if (e->n_idle < URING_SENDS_MAX && !uring_poll(l, e))
		uring_moved(l, e);
}

static size_t uring_rx(struct udp_link *l, struct rx_frame *out, size_t n)
{
	struct uring *e = l->engine_state;
	size_t got = 0;

	if (!uring_ready(l, e) || (e->got_head == e->got_tail && !uring_poll(l, e)))
		return uring_moved(l, e) ? l->engine->rx(l, out, n) : 0;
	while (got < n && e->got_head != e->got_tail) {
		udp_split_start(l, &e->got[e->got_tail++ % UDP_BUFS]);
		got += udp_split_next(l, out + got, n - got);
	}
	return got;
}

static void uring_wait(struct udp_link *l, bool armed, struct link_wait *out)
{
	struct uring *e = l->engine_state;
	if (!uring_ready(l, e) && uring_moved(l, e)) {
		l->engine->wait(l, armed, out);
		return;
	}
	if (e->event < 0) {
		e->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (e->event >= 0 && io_uring_register_eventfd(&e->ring, e->event)) {
			close(e->event);
			e->event = -1;
		}
	}
	uint64_t count;
	bool now = e->event < 0 || (armed && read(e->event, &count, sizeof(count)) < 0 && errno != EAGAIN); /* first cleared, then looked */
	now |= e->got_head != e->got_tail || io_uring_cq_ready(&e->ring) || (*e->ring.sq.kflags & IORING_SQ_TASKRUN) != 0;
	*out = (struct link_wait){.fd = e->event, .deadline_ns = now ? 0 : UINT64_MAX};
}

const struct udp_engine udp_engine_uring = {
    .name = "uring",
    .open = uring_open,
    .close = uring_close,
    .sock_add = uring_sock_add,
    .sock_del = uring_sock_del,
    .tx = uring_tx,
    .reap = uring_reap,
    .rx = uring_rx,
    .wait = uring_wait,
};
