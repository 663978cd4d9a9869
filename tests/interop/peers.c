/* Ends of peers and of operations: receives that do not fit, clean closes, killed and silent processes, forks. Every operation ends, in bounded time.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "inter.h"

static struct inter_pair p;

/* ---- receives that do not fit -------------------------------------------------------------------------------------------------------- */

static void truncated(uint64_t bytes, uint64_t room, bool announced)
{
	uint8_t *from = malloc(bytes), *to = malloc(room + 1);
	char number[32];
	tern_op r = 0;
	inter_fill(from, bytes, 3);
	memset(to, 0xee, room + 1);
	if (announced) {
		r = inter_recv(&p.b, p.ba, to, room, 1, 0);
		inter_drive(3000000);
	}
	tern_op s = inter_send(&p.a, p.ab, from, bytes, 1, 0);
	if (!announced) {
		inter_drive(3000000);
		r = inter_recv(&p.b, p.ba, to, room, 1, 0);
	}
	tern_event e = inter_await(&p.b, TERN_EV_RECV, r);
	CHECK_EQ(e.status, -TERN_ETRUNC);
	CHECK_EQ(e.bytes, bytes);
	CHECK(inter_filled(to, room & ~7ull, 3)); /* what fits was placed */
	CHECK_EQ(to[room], 0xee);
	snprintf(number, sizeof(number), "%llu bytes", (unsigned long long)bytes);
	CHECK_SAYS(inter_detail(&p.b, r), number);
	snprintf(number, sizeof(number), "receive of %llu", (unsigned long long)room);
	CHECK_SAYS(inter_detail(&p.b, r), number);
	e = inter_await(&p.a, TERN_EV_SEND, s);
	if (e.status) {
		CHECK_EQ(e.status, -TERN_ETRUNC);
		CHECK_SAYS(inter_detail(&p.a, s), "larger");
	} else { /* it had been acknowledged: the news comes later */
		e = inter_await(&p.a, TERN_EV_MISMATCH, 0);
		CHECK_EQ(e.status, -TERN_ETRUNC);
		CHECK_EQ(e.tag, 1);
		CHECK_EQ(e.peer, p.ab);
	}
	free(from);
	free(to);
}

static void too_small(void)
{
	inter_pair(&p, "", 0);
	for (int announced = 0; announced < 2; announced++) {
		truncated(100, 10, announced);
		truncated(4096, 4095, announced);
		truncated(100000, 99999, announced);
		truncated(5000000, 70000, announced);
		truncated(50, 0, announced);
	}
	CHECK_EQ(p.a.events + p.b.events, 0);
	inter_pair_close(&p);
}

static void misfit(const tern_tensor *from, const tern_tensor *to, bool announced, const char *says)
{
	tern_op r = 0, s;
	tern_args args = {.size_bytes = sizeof(args), .tag = 9};
	if (announced) {
		CHECK_EQ(tern_recv(p.b.ep, p.ba, &(tern_buf){.tensor = to}, &args, &r), 0);
		inter_drive(3000000);
	}
	CHECK_EQ(tern_send(p.a.ep, p.ab, &(tern_buf){.tensor = from}, &args, &s), 0);
	if (!announced) {
		inter_drive(3000000);
		CHECK_EQ(tern_recv(p.b.ep, p.ba, &(tern_buf){.tensor = to}, &args, &r), 0);
	}
	CHECK_EQ(inter_await(&p.b, TERN_EV_RECV, r).status, -TERN_ESHAPE);
	CHECK_SAYS(inter_detail(&p.b, r), says);
	tern_event e = inter_await(&p.a, TERN_EV_SEND, s);
	if (e.status)
		CHECK_EQ(e.status, -TERN_ESHAPE);
	else
		CHECK_EQ(inter_await(&p.a, TERN_EV_MISMATCH, 0).status, -TERN_ESHAPE);
}

static void other_shapes(void)
{
	static float x[200000], y[200000];
	tern_tensor t = {.data = x, .dtype = TERN_F32, .dims = 2, .shape = {4, 6}};
	inter_pair(&p, "", 0);
	for (int announced = 0; announced < 2; announced++)
		for (int big = 0; big < 2; big++) {
			tern_tensor from = t, to = t;
			to.data = y;
			from.shape[1] = to.shape[1] = big ? 50000 : 6;
			tern_tensor other = to;
			other.dtype = TERN_I32; /* the same size */
			misfit(&from, &other, announced, "i32 [4, ");
			other = to;
			other.shape[0] = big ? 50000 : 6;
			other.shape[1] = 4;
			misfit(&from, &other, announced, big ? "f32 [50000, 4]" : "f32 [6, 4]");
			other = to;
			other.dims = 3;
			other.shape[2] = 1;
			misfit(&from, &other, announced, "f32 [4, ");
			CHECK(y[0] == 0); /* nothing was placed */
			/* untyped bytes meet anything */
			tern_iov iov = {.addr = y, .bytes = sizeof(y)};
			tern_op r;
			CHECK_EQ(tern_recv(p.b.ep, p.ba, &(tern_buf){.iov = &iov, .n = 1}, NULL, &r), 0);
			CHECK_EQ(tern_send(p.a.ep, p.ab, &(tern_buf){.tensor = &from}, NULL, NULL), 0);
			CHECK_EQ(inter_await(&p.b, TERN_EV_RECV, r).status, 0);
			CHECK_EQ(inter_await(&p.a, TERN_EV_SEND, 0).status, 0);
		}
	CHECK_EQ(p.a.events + p.b.events, 0);
	inter_pair_close(&p);
}

/* ---- clean ends ---------------------------------------------------------------------------------------------------------------------- */

/* Everything posted before a draining disconnect arrives; then both sides hear of the end. */
static void drained(uint32_t flags, uint64_t bytes)
{
	enum { N = 100 };
	tern_event e;
	tern_op r[N];
	inter_pair(&p, "", flags);
	uint8_t *from = malloc(bytes), *to = malloc(N * bytes);
	inter_fill(from, bytes, 1);
	for (uint64_t i = 0; i < N; i++)
		r[i] = inter_recv(&p.b, p.ba, to + i * bytes, bytes, 0, UINT64_MAX);
	char never;
	tern_op left = inter_recv(&p.b, p.ba, &never, 1, 0, UINT64_MAX);
	for (uint64_t i = 0; i < N; i++)
		inter_send(&p.a, p.ab, from, bytes, i, 0);
	CHECK_EQ(tern_disconnect(p.a.ep, p.ab, 1), 0);
	for (uint64_t i = 0; i < N; i++) {
		e = inter_await(&p.b, TERN_EV_RECV, r[i]);
		CHECK_EQ(e.status, 0);
		CHECK_EQ(e.tag, i);
		CHECK(inter_filled(to + i * bytes, bytes, 1));
		CHECK_EQ(inter_await(&p.a, TERN_EV_SEND, 0).status, 0);
	}
	CHECK_EQ(inter_await(&p.a, TERN_EV_PEER_CLOSED, 0).status, 0);
	e = inter_await(&p.b, TERN_EV_PEER_CLOSED, 0);
	CHECK_EQ(e.status, 0);
	CHECK_EQ(e.peer, p.ba);
	CHECK_EQ(inter_await(&p.b, TERN_EV_RECV, left).status, -TERN_EPEER);
	CHECK_EQ(tern_disconnect(p.a.ep, p.ab, 0), -TERN_ESTALE);
	/* a send to who has gone: refused, or ends at once */
	tern_op s = 0;
	int err = tern_send(p.b.ep, p.ba, NULL, NULL, &s);
	CHECK(err == 0 || err == -TERN_ESTALE);
	if (!err)
		CHECK_EQ(inter_await(&p.b, TERN_EV_SEND, s).status, -TERN_EPEER);
	CHECK_EQ(p.a.events + p.b.events, 0);
	inter_pair_close(&p);
	free(from);
	free(to);
}

static void drained_small(void)
{
	drained(0, 100);
}

static void drained_large(void)
{
	drained(0, 300000);
}

static void drained_thread(void)
{
	drained(TERN_OWN_THREAD, 5000);
}

/* Far more than one step of the loop takes over from the callers. */
static void drained_many(void)
{
	enum { N = 3000 };
	char to[N];
	inter_pair(&p, "", 0);
	for (uint64_t i = 0; i < N; i++)
		inter_recv(&p.b, p.ba, to + i, 1, 0, UINT64_MAX);
	inter_drive(20000000);
	for (uint64_t i = 0; i < N; i++)
		inter_send(&p.a, p.ab, "x", 1, i, 0);
	CHECK_EQ(tern_disconnect(p.a.ep, p.ab, 1), 0);
	for (uint64_t i = 0; i < N; i++) {
		CHECK_EQ(inter_await(&p.a, TERN_EV_SEND, 0).status, 0);
		CHECK_EQ(inter_await(&p.b, TERN_EV_RECV, 0).status, 0);
	}
	CHECK_EQ(inter_await(&p.a, TERN_EV_PEER_CLOSED, 0).status, 0);
	CHECK_EQ(inter_await(&p.b, TERN_EV_PEER_CLOSED, 0).status, 0);
	inter_pair_close(&p);
}

static void at_once(void)
{
	static uint8_t buf[4 << 20];
	inter_pair(&p, "", 0);
	tern_op r = inter_recv(&p.a, p.ab, buf, sizeof(buf), 1, 0);
	tern_op s = inter_send(&p.a, p.ab, buf, sizeof(buf), 2, 0);
	tern_op rb = inter_recv(&p.b, p.ba, buf, sizeof(buf), 3, 0);
	CHECK_EQ(tern_disconnect(p.a.ep, p.ab, 0), 0);
	CHECK_EQ(inter_await(&p.a, TERN_EV_RECV, r).status, -TERN_ECANCELED);
	CHECK_EQ(inter_await(&p.a, TERN_EV_SEND, s).status, -TERN_ECANCELED);
	CHECK_EQ(inter_await(&p.a, TERN_EV_PEER_CLOSED, 0).status, 0);
	CHECK_EQ(inter_await(&p.b, TERN_EV_PEER_CLOSED, 0).status, 0);
	CHECK_EQ(inter_await(&p.b, TERN_EV_RECV, rb).status, -TERN_EPEER);
	inter_pair_close(&p);
}

/* The last words of a process that sends, sees its events and leaves. */
static void last_words(int fd)
{
	static struct inter_node n;
	uint16_t port;
	uint8_t *from = malloc(1 << 20);
	inter_hear(fd, &port, sizeof(port));
	inter_fill(from, 1 << 20, 2);
	inter_open(&n, NULL);
	tern_peer peer = inter_connect(&n, "127.0.0.1", port, "");
	for (uint64_t i = 0; i < 20; i++)
		inter_send(&n, peer, from, i % 2 ? 1 << 20 : 100, i, 0);
	for (int i = 0; i < 20; i++)
		CHECK_EQ(inter_await(&n, TERN_EV_SEND, 0).status, 0);
	inter_close(&n);
}

static void leaves_after_its_events(void)
{
	static struct inter_node n;
	static uint8_t to[20][1 << 20];
	struct inter_child child;
	tern_op r[20];
	inter_spawn(&child, last_words);
	inter_open(&n, NULL);
	inter_listen(&n, "127.0.0.1", "");
	inter_say(child.fd, &n.port, sizeof(n.port));
	for (uint64_t i = 0; i < 20; i++)
		r[i] = inter_recv(&n, TERN_ANY_PEER, to[i], sizeof(to[i]), i, 0);
	for (uint64_t i = 0; i < 20; i++) {
		CHECK_EQ(inter_await(&n, TERN_EV_RECV, r[i]).status, 0);
		CHECK(inter_filled(to[i], i % 2 ? 1 << 20 : 96, 2));
	}
	CHECK_EQ(inter_await(&n, TERN_EV_PEER_CLOSED, 0).status, 0);
	CHECK_EQ(inter_reap(&child), 0);
	inter_close(&n);
}

/* ---- peers that die ------------------------------------------------------------------------------------------------------------------ */

static void victim(int fd)
{
	static struct inter_node n;
	uint16_t port;
	uint8_t *buf = malloc(256 << 20);
	inter_hear(fd, &port, sizeof(port));
	inter_open(&n, NULL);
	tern_peer peer = inter_connect(&n, "127.0.0.1", port, "");
	CHECK_EQ(inter_await(&n, TERN_EV_CONNECTED, 0).status, 0);
	inter_recv(&n, peer, buf, 128 << 20, 1, 0);
	inter_recv(&n, peer, buf + (128 << 20), 128 << 20, 1, 0);
	char word;
	inter_hear(fd, &word, 1); /* drives, until it is killed or told to go */
}

/* What the survivor had posted ends with EPEER, after PEER_DEAD comes within `bound_ns` of `hit`. */
static void survivor(struct inter_node *n, struct inter_child *child, int sig, bool busy, uint64_t bound_ns)
{
	static uint8_t to[100];
	uint8_t *big = busy ? malloc(128 << 20) : NULL;
	tern_op s[2] = {0, 0};
	inter_say(child->fd, &n->port, sizeof(n->port));
	tern_peer peer = inter_await(n, TERN_EV_CONNECTED, 0).peer;
	tern_op r = inter_recv(n, peer, to, sizeof(to), 5, 0);
	if (busy) {
		memset(big, 1, 128 << 20);
		s[0] = inter_send(n, peer, big, 128 << 20, 1, 0);
		s[1] = inter_send(n, peer, big, 128 << 20, 1, 0);
		uint64_t end = inter_now_ns() + 10000000000ull;
		while (inter_stat(n, peer, "tx_bytes") < 5000000 && inter_now_ns() < end)
			inter_pump(0);
	}
	uint64_t hit = inter_now_ns();
	kill(child->pid, sig);
	tern_event e = inter_await(n, TERN_EV_PEER_DEAD, 0);
	uint64_t took = inter_now_ns() - hit;
	if (took > bound_ns)
		inter_fail(__FILE__, __LINE__, "PEER_DEAD came after %llu ms, bound %llu ms", (unsigned long long)took / 1000000,
		        (unsigned long long)bound_ns / 1000000);
	CHECK_EQ(e.status, -TERN_EPEER);
	CHECK_EQ(e.peer, peer);
	CHECK_SAYS(inter_detail(n, peer), "nothing was heard");
	CHECK_EQ(inter_await(n, TERN_EV_RECV, r).status, -TERN_EPEER);
	for (int i = 0; busy && i < 2; i++) {
		int status = inter_await(n, TERN_EV_SEND, s[i]).status;
		CHECK(status == -TERN_EPEER || (!status && getenv("TERN_TEST_RDMA"))); /* its network card goes on placing and acknowledging */
	}
	CHECK_EQ(n->events, 0);
	free(big);
}

static void dies(int sig, bool busy, uint32_t flags, uint64_t timeout_ns, uint64_t bound_ns)
{
	static struct inter_node n;
	struct inter_child child;
	tern_config c = inter_config();
	inter_spawn(&child, victim);
	c.flags = flags;
	c.peer_timeout_ns = timeout_ns;
	inter_open(&n, &c);
	inter_listen(&n, "127.0.0.1", "");
	survivor(&n, &child, sig, busy, bound_ns);
	kill(child.pid, SIGKILL);
	int status = inter_reap(&child);
	CHECK(WIFSIGNALED(status));
	inter_close(&n);
}

static void killed_busy(void)
{
	dies(SIGKILL, true, 0, 5000000000ull, 3000000000ull); /* the control connection's end halves the wait, and more */
}

static void killed_busy_thread(void)
{
	dies(SIGKILL, true, TERN_OWN_THREAD, 5000000000ull, 3000000000ull);
}

static void killed_idle(void)
{
	dies(SIGKILL, false, 0, 5000000000ull, 3000000000ull);
}

/* Stopped: its TCP connection stands, so only silence tells. */
static void silent_busy(void)
{
	dies(SIGSTOP, true, 0, 1000000000ull, 4000000000ull);
}

/* Silence of which nobody expected an end kills nobody, however long it is: only what is owed has a time. */
static void idle_then_busy(void)
{
	char x;
	tern_config c = inter_config();
	c.peer_timeout_ns = 400000000; /* to connect takes long in a busy guest */
	for (int mode = 0; mode < 2; mode++) {
		c.flags = mode ? TERN_OWN_THREAD : 0;
		inter_pair_with(&p, "127.0.0.1", "", &c);
		for (int i = 0; i < 3; i++) {
			inter_drive(900000000);
			CHECK_EQ(p.a.events + p.b.events, 0);
			tern_op r = inter_recv(&p.b, p.ba, &x, 1, 1, 0);
			inter_send(&p.a, p.ab, "x", 1, 1, TERN_QUIET);
			CHECK_EQ(inter_await(&p.b, TERN_EV_RECV, r).status, 0);
		}
		inter_pair_close(&p);
	}
}

/* ---- forks --------------------------------------------------------------------------------------------------------------------------- */

static int forked_calls(void)
{
	tern_event e;
	size_t got, bytes = TERN_ADDR_MAX, n = 0;
	uint8_t blob[TERN_HANDLE_MAX];
	tern_ep *ep;
	tern_peer peer;
	tern_mem *mem = NULL;
	tern_op op;
	char text[TERN_TEXT_MAX];
	const int got_err[] = {
	        tern_poll(p.a.ep, &e, 1, &got),
	        tern_wait(p.a.ep, &e, 1, 1000000, &got),
	        tern_send(p.a.ep, p.ab, NULL, NULL, &op),
	        tern_recv(p.a.ep, p.ab, NULL, NULL, &op),
	        tern_ep_open(p.a.ctx, &ep),
	        tern_listen(p.a.ep, "udp://127.0.0.1:0"),
	        tern_connect_text(p.a.ep, "udp://127.0.0.1:9", NULL, &peer),
	        tern_disconnect(p.a.ep, p.ab, 0),
	        tern_ep_address(p.b.ep, blob, &bytes),
	        tern_stats_get(p.a.ctx, NULL, NULL, &n),
	        tern_arm(p.a.ep),
	        tern_cancel(p.a.ep, 1),
	        tern_peer_identity(p.a.ep, p.ab, NULL, 0, NULL),
	};
	for (size_t i = 0; i < sizeof(got_err) / sizeof(got_err[0]); i++)
		if (got_err[i] != -TERN_EFORK) {
			printf("\n    call %zu gives %d in a forked child", i, got_err[i]);
			return 1;
		}
	tern_error_detail(NULL, 0, text, sizeof(text));
	if (!strstr(text, "fork"))
		return 2;
	(void)mem;
	tern_ctx *ctx = p.a.ctx, *fresh;
	if (tern_close(&ctx) != -TERN_EFORK)
		return 3;
	tern_config c = inter_config(); /* its own works */
	if (tern_open(&c, &fresh) || tern_close(&fresh))
		return 4;
	return 0;
}

static void forks(uint32_t flags)
{
	char x = 0;
	inter_pair(&p, "", flags);
	for (int i = 0; i < 5; i++) {
		fflush(stdout);
		pid_t pid = fork();
		if (!pid) {
			alarm(20); /* a deadlock is a failure too */
			_exit(forked_calls());
		}
		int status = -1;
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		CHECK(WIFEXITED(status));
		CHECK_EQ(WEXITSTATUS(status), 0);
		/* and the parent does not notice */
		tern_op r = inter_recv(&p.b, p.ba, &x, 1, 1, 0);
		inter_send(&p.a, p.ab, "x", 1, 1, TERN_QUIET);
		CHECK_EQ(inter_await(&p.b, TERN_EV_RECV, r).status, 0);
	}
	inter_pair_close(&p);
}

static void forks_polling(void)
{
	forks(0);
}

static void forks_thread(void)
{
	forks(TERN_OWN_THREAD);
}

/* ---- endpoints and contexts that close in the middle --------------------------------------------------------------------------------- */

static void closed_in_the_middle(void)
{
	enum { BYTES = 32 << 20 };
	uint8_t *from = malloc(BYTES), *to = malloc(BYTES);
	memset(from, 5, BYTES);
	for (int round = 0; round < 6; round++) {
		inter_pair(&p, "", round % 2 ? TERN_OWN_THREAD : 0);
		tern_op r = inter_recv(&p.b, p.ba, to, BYTES, 1, 0);
		inter_send(&p.a, p.ab, from, BYTES, 1, 0);
		for (int i = 0; i < round * 20; i++)
			inter_pump(0);
		uint64_t start = inter_now_ns();
		inter_close(&p.a); /* its memory is ours again */
		CHECK(inter_now_ns() - start < 2000000000);
		memset(from, 6 + round, BYTES);
		tern_event e = inter_await(&p.b, TERN_EV_RECV, r);
		CHECK(e.status == 0 || e.status == -TERN_EPEER);
		inter_await(&p.b, TERN_EV_PEER_CLOSED, 0);
		inter_close(&p.b);
	}
	free(from);
	free(to);
}

static const struct inter_case cases[] = {
        {"too_small", too_small},
        {"other_shapes", other_shapes},
        {"drained_small", drained_small},
        {"drained_large", drained_large},
        {"drained_thread", drained_thread},
        {"drained_many", drained_many},
        {"at_once", at_once},
        {"leaves_after_its_events", leaves_after_its_events},
        {"killed_busy", killed_busy},
        {"killed_busy_thread", killed_busy_thread},
        {"killed_idle", killed_idle},
        {"silent_busy", silent_busy},
        {"idle_then_busy", idle_then_busy},
        {"forks_polling", forks_polling},
        {"forks_thread", forks_thread},
        {"closed_in_the_middle", closed_in_the_middle},
};
INTER_MAIN("peers", cases)
