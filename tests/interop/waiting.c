/* The ways to learn of events: poll, wait and its timeouts, test, a descriptor in epoll; with the library's thread and without; and manners of a
 * guest in a process: descriptors, signals, standard error. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "inter.h"

static struct inter_pair p;

static void wait_timeouts(uint32_t flags)
{
	tern_event e;
	size_t got = 7;
	inter_pair(&p, "", flags);
	uint64_t start = inter_now_ns();
	CHECK_EQ(tern_wait(p.a.ep, &e, 1, 0, &got), -TERN_ETIMEDOUT);
	CHECK_EQ(got, 0);
	CHECK_EQ(tern_wait(p.a.ep, &e, 1, 30000000, &got), -TERN_ETIMEDOUT);
	uint64_t took = inter_now_ns() - start;
	CHECK(took >= 30000000);
	CHECK(took < 2000000000);
	/* there already: comes at once, whatever the timeout */
	char x;
	tern_op r = inter_recv(&p.b, p.ba, &x, 1, 1, 0);
	CHECK_EQ(tern_cancel(p.b.ep, r), 0);
	CHECK_EQ(tern_wait(p.b.ep, &e, 1, TERN_TIME_NONE, &got), 0);
	CHECK_EQ(got, 1);
	CHECK_EQ(e.op, r);
	inter_pair_close(&p);
}

static void wait_polling(void)
{
	wait_timeouts(0);
}

static void wait_thread(void)
{
	wait_timeouts(TERN_OWN_THREAD);
}

/* Two processes, each sleeping in tern_wait without a bound: nothing but the wake-ups themselves keeps them going. */
static uint32_t pong_flags;
static void ponger(int fd)
{
	static struct inter_node n;
	tern_config c = inter_config();
	char x;
	c.flags = pong_flags;
	inter_open(&n, &c);
	inter_listen(&n, "127.0.0.1", "");
	inter_say(fd, &n.port, sizeof(n.port));
	tern_peer peer = inter_await(&n, TERN_EV_CONNECTED, 0).peer;
	for (int i = 0; i < 200; i++) {
		tern_event e = {0};
		size_t got;
		inter_recv(&n, peer, &x, 1, 1, 0);
		while (e.type != TERN_EV_RECV)
			CHECK_EQ(tern_wait(n.ep, &e, 1, TERN_TIME_NONE, &got), 0);
		CHECK_EQ(e.status, 0);
		inter_send(&n, peer, &x, 1, 2, TERN_QUIET | TERN_INJECT);
	}
	inter_await(&n, TERN_EV_PEER_CLOSED, 0);
	inter_close(&n);
}

static void ping_pong(uint32_t mine, uint32_t theirs)
{
	static struct inter_node n;
	struct inter_child child;
	uint16_t port;
	tern_config c = inter_config();
	pong_flags = theirs;
	c.flags = mine;
	inter_spawn(&child, ponger);
	inter_hear(child.fd, &port, sizeof(port));
	inter_open(&n, &c);
	tern_peer peer = inter_connect(&n, "127.0.0.1", port, "");
	CHECK_EQ(inter_await(&n, TERN_EV_CONNECTED, 0).status, 0);
	for (int i = 0; i < 200; i++) {
		char x = 0;
		tern_event e = {0};
		size_t got;
		inter_recv(&n, peer, &x, 1, 2, 0);
		inter_send(&n, peer, "a", 1, 1, TERN_QUIET | TERN_INJECT);
		while (e.type != TERN_EV_RECV)
			CHECK_EQ(tern_wait(n.ep, &e, 1, TERN_TIME_NONE, &got), 0);
		CHECK_EQ(x, 'a');
	}
	CHECK_EQ(tern_disconnect(n.ep, peer, 1), 0);
	CHECK_EQ(inter_await(&n, TERN_EV_PEER_CLOSED, 0).status, 0);
	inter_close(&n);
	int status = inter_reap(&child);
	CHECK(WIFEXITED(status));
	CHECK_EQ(WEXITSTATUS(status), 0);
}

static void sleepers_polling(void)
{
	ping_pong(0, 0);
}

static void sleepers_thread(void)
{
	ping_pong(TERN_OWN_THREAD, TERN_OWN_THREAD);
}

static void sleepers_mixed(void)
{
	ping_pong(0, TERN_OWN_THREAD);
}

/* Two threads asleep on two endpoints of one context, woken by frames for the one, frames for the other, and posts of a third thread. */
static struct inter_node near_node, far_node;
static tern_ep *near_ep[2];
static tern_peer near_peer[2];
enum { ECHOES = 300 };

static void *echo_waiter(void *arg)
{
	uintptr_t k = (uintptr_t)arg;
	for (int i = 0; i < ECHOES; i++) {
		tern_event e = {0};
		size_t got = 0;
		char x = 0;
		tern_iov iov = {.addr = &x, .bytes = 1};
		tern_op r;
		if (tern_recv(near_ep[k], near_peer[k], &(tern_buf){.iov = &iov, .n = 1}, NULL, &r))
			return (void *)1;
		iov = (tern_iov){.addr = "e", .bytes = 1};
		tern_args args = {.size_bytes = sizeof(args), .flags = TERN_QUIET | TERN_INJECT};
		if (tern_send(near_ep[k], near_peer[k], &(tern_buf){.iov = &iov, .n = 1}, &args, NULL))
			return (void *)2;
		while (e.op != r)
			if (tern_wait(near_ep[k], &e, 1, 20000000000ull, &got))
				return (void *)3;
		if (e.status || x != 'e')
			return (void *)4;
	}
	return NULL;
}

static void two_waiters(void)
{
	pthread_t thread[2];
	tern_config c = inter_config();
	tern_event e;
	char x[64];
	size_t got;
	c.flags = TERN_OWN_THREAD;
	inter_open(&far_node, &c);
	inter_listen(&far_node, "127.0.0.1", "");
	inter_open(&near_node, NULL);
	near_ep[0] = near_node.ep;
	CHECK_EQ(tern_ep_open(near_node.ctx, &near_ep[1]), 0);
	for (int k = 0; k < 2; k++) {
		char text[512];
		inter_address(text, sizeof(text), "127.0.0.1", far_node.port, "");
		CHECK_EQ(tern_connect_text(near_ep[k], text, NULL, &near_peer[k]), 0);
		do
			CHECK_EQ(tern_wait(near_ep[k], &e, 1, 10000000000ull, &got), 0);
		while (e.type != TERN_EV_CONNECTED);
		CHECK_EQ(e.status, 0);
	}
	for (int i = 0; i < 64; i++)
		inter_recv(&far_node, TERN_ANY_PEER, x + i, 1, 0, UINT64_MAX);
	for (uintptr_t k = 0; k < 2; k++)
		CHECK_EQ(pthread_create(&thread[k], NULL, echo_waiter, (void *)k), 0);
	for (int left = 2 * ECHOES; left > 0;) {
		CHECK_EQ(tern_wait(far_node.ep, &e, 1, 20000000000ull, &got), 0);
		if (e.type != TERN_EV_RECV)
			continue;
		CHECK_EQ(e.status, 0);
		inter_send(&far_node, e.peer, "e", 1, 0, TERN_QUIET | TERN_INJECT);
		inter_recv(&far_node, TERN_ANY_PEER, x, 1, 0, UINT64_MAX);
		left--;
	}
	for (int k = 0; k < 2; k++) {
		void *bad;
		pthread_join(thread[k], &bad);
		CHECK_EQ((uintptr_t)bad, 0);
	}
	CHECK_EQ(tern_ep_close(&near_ep[1]), 0);
	inter_close(&near_node);
	inter_close(&far_node);
}

/* One epoll over both descriptors carries a transfer with retransmission timers and all; tern_poll only when a descriptor says so. */
static void epoll_driven(uint32_t flags)
{
	enum { BYTES = 8 << 20 };
	uint8_t *from = malloc(BYTES), *to = calloc(1, BYTES);
	tern_event e[8];
	size_t got, done = 0, idle = 0;
	inter_fill(from, BYTES, 1);
	inter_pair(&p, "", flags);
	tern_ep *ep[2] = {p.a.ep, p.b.ep};
	int ring = epoll_create1(EPOLL_CLOEXEC);
	for (uint32_t i = 0; i < 2; i++)
		CHECK_EQ(epoll_ctl(ring, EPOLL_CTL_ADD, tern_fd(ep[i]), &(struct epoll_event){.events = EPOLLIN, .data.u32 = i}), 0);
	inter_recv(&p.b, p.ba, to, BYTES, 1, 0);
	inter_send(&p.a, p.ab, from, BYTES, 1, 0);
	while (done < 2) {
		bool ready = false;
		for (int i = 0; i < 2; i++)
			ready |= tern_arm(ep[i]) != 0;
		struct epoll_event ev;
		if (!ready && epoll_wait(ring, &ev, 1, 5000) == 0)
			CHECK(++idle < 3); /* it may sleep 5 s for nothing at all, but not again and again */
		for (int i = 0; i < 2; i++) {
			CHECK_EQ(tern_poll(ep[i], e, 8, &got), 0);
			for (size_t k = 0; k < got; k++) {
				CHECK_EQ(e[k].status, 0);
				done++;
			}
		}
	}
	CHECK(inter_filled(to, BYTES, 1));
	CHECK_EQ(idle, 0);
	/* with nothing to do the descriptors are quiet: at most timers, a few in 100 ms */
	unsigned fired = 0;
	uint64_t end = inter_now_ns() + 100000000;
	while (inter_now_ns() < end) {
		bool ready = false;
		for (int i = 0; i < 2; i++)
			ready |= tern_arm(ep[i]) != 0;
		struct epoll_event ev;
		fired += ready || epoll_wait(ring, &ev, 1, 100) > 0;
		for (int i = 0; i < 2; i++)
			CHECK_EQ(tern_poll(ep[i], e, 8, &got), 0);
	}
	if (fired > 200)
		inter_fail(__FILE__, __LINE__, "idle descriptors fired %u times in 100 ms", fired);
	close(ring);
	inter_pair_close(&p);
	free(from);
	free(to);
}

static void epoll_polling(void)
{
	epoll_driven(0);
}

static void epoll_thread(void)
{
	epoll_driven(TERN_OWN_THREAD);
}

static void test_instead(uint32_t flags)
{
	static uint8_t from[100000], to[100000];
	tern_event e;
	size_t got;
	inter_pair(&p, "", flags);
	inter_fill(from, sizeof(from), 5);
	tern_iov iov = {.addr = to, .bytes = sizeof(to)};
	tern_args args = {.size_bytes = sizeof(args), .flags = TERN_TESTED, .tag = 1};
	tern_op r;
	CHECK_EQ(tern_recv(p.b.ep, p.ba, &(tern_buf){.iov = &iov, .n = 1}, &args, &r), 0);
	CHECK_EQ(tern_test(p.b.ep, r, &e), -TERN_EAGAIN);
	tern_op s = inter_send(&p.a, p.ab, from, sizeof(from), 1, TERN_TESTED);
	uint64_t end = inter_now_ns() + INTER_DEADLINE_S * 1000000000ull;
	int err;
	while ((err = tern_test(p.b.ep, r, &e)) == -TERN_EAGAIN && inter_now_ns() < end)
		CHECK_EQ(tern_poll(p.a.ep, &e, 1, &got), 0);
	CHECK_EQ(err, 0);
	CHECK_EQ(e.status, 0);
	CHECK_EQ(e.op, r);
	CHECK_EQ(e.bytes, sizeof(to));
	CHECK(inter_filled(to, sizeof(to), 5));
	CHECK_EQ(tern_test(p.b.ep, r, &e), -TERN_ESTALE);
	while ((err = tern_test(p.a.ep, s, &e)) == -TERN_EAGAIN && inter_now_ns() < end)
		CHECK_EQ(tern_poll(p.b.ep, &e, 1, &got), 0);
	CHECK_EQ(err, 0);
	/* none of them came as an event; one that nobody asks for does not hold up closing */
	CHECK_EQ(p.a.events + p.b.events, 0);
	inter_send(&p.a, p.ab, from, 10, 9, TERN_TESTED);
	inter_drive(3000000);
	uint64_t start = inter_now_ns();
	inter_pair_close(&p);
	CHECK(inter_now_ns() - start < 900000000);
}

static void test_polling(void)
{
	test_instead(0);
}

static void test_thread(void)
{
	test_instead(TERN_OWN_THREAD);
}

/* ---- manners ------------------------------------------------------------------------------------------------------------------------- */

static bool open_fds[4096];
static void look_at_fds(bool new_ones)
{
	for (int fd = 0; fd < 4096; fd++) {
		int f = fcntl(fd, F_GETFD);
		if (new_ones && f >= 0 && !open_fds[fd] && !(f & FD_CLOEXEC)) {
			char link[64], name[256] = "";
			snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
			if (readlink(link, name, sizeof(name) - 1) < 0)
				name[0] = '?';
			inter_fail(__FILE__, __LINE__, "descriptor %d (%s) would live on in programs that this one starts", fd, name);
		}
		if (!new_ones)
			open_fds[fd] = f >= 0;
	}
}

static void descriptors(void)
{
	look_at_fds(false);
	inter_pair(&p, "", TERN_OWN_THREAD);
	look_at_fds(true);
	inter_pair_close(&p);
	for (int fd = 0; fd < 4096; fd++) {
		bool open = fcntl(fd, F_GETFD) >= 0;
		if (open && !open_fds[fd])
			inter_fail(__FILE__, __LINE__, "descriptor %d is left behind by tern_close", fd);
	}
}

/* Signals sent to the process are never delivered to threads of the library. */
static volatile sig_atomic_t strange, mine;
static pid_t main_tid;
static void on_signal(int sig)
{
	(void)sig;
	if (gettid() == main_tid)
		mine++;
	else
		strange++;
}

static void signals(void)
{
	sigset_t block, old;
	struct sigaction act = {.sa_handler = on_signal}, before;
	main_tid = gettid();
	inter_pair(&p, "", TERN_OWN_THREAD);
	CHECK_EQ(sigaction(SIGUSR1, &act, &before), 0);
	sigemptyset(&block);
	sigaddset(&block, SIGUSR1);
	sigprocmask(SIG_BLOCK, &block, &old);
	CHECK_EQ(kill(getpid(), SIGUSR1), 0);
	inter_drive(20000000); /* other threads could take it now */
	CHECK_EQ(strange, 0);
	sigprocmask(SIG_SETMASK, &old, NULL);
	CHECK_EQ(mine, 1);
	sigaction(SIGUSR1, &before, NULL);
	/* and SIGPIPE is still what it was */
	sigaction(SIGPIPE, NULL, &act);
	CHECK(act.sa_handler == SIG_DFL);
	inter_pair_close(&p);
}

/* A child with standard error in a file does what the library might want to complain about; the file stays empty. */
static int quiet_fd;
static const char *bad_key;
static void quiet_child(int fd)
{
	static struct inter_node n;
	char text[512];
	tern_ctx *ctx = NULL;
	tern_config c = inter_config();
	(void)fd;
	c.log = NULL;
	dup2(quiet_fd, 2);
	c.key_file = bad_key;
	CHECK_EQ(tern_open(&c, &ctx), -TERN_EKEY);
	c.key_file = inter_key();
	c.peer_timeout_ns = 500000000;
	inter_open(&n, &c);
	inter_listen(&n, "127.0.0.1", "");
	inter_address(text, sizeof(text), "127.0.0.1", n.port, "");
	CHECK_EQ(tern_listen(n.ep, text), -TERN_EADDR);
	CHECK_EQ(tern_listen(n.ep, "nonsense"), -TERN_EADDR);
	inter_connect(&n, "127.0.0.1", 1, "");
	CHECK_EQ(inter_await(&n, TERN_EV_CONNECTED, 0).status, -TERN_EADDR);
	inter_connect(&n, "127.0.0.1", n.port, "");
	inter_await(&n, TERN_EV_CONNECTED, 0);
	inter_close(&n);
}

static void quiet(void)
{
	struct inter_child child;
	struct stat st;
	char text[1024] = "";
	bad_key = inter_file("bad.key", "rubbish\n", 0600);
	quiet_fd = memfd_create("stderr", MFD_CLOEXEC);
	inter_spawn(&child, quiet_child);
	int status = inter_reap(&child);
	CHECK_EQ(fstat(quiet_fd, &st), 0);
	if (st.st_size && pread(quiet_fd, text, sizeof(text) - 1, 0) > 0)
		inter_fail(__FILE__, __LINE__, "standard error got: %s", text);
	CHECK_EQ(status, 0);
	close(quiet_fd);
}

static const struct inter_case cases[] = {
        {"wait_polling", wait_polling},
        {"wait_thread", wait_thread},
        {"sleepers_polling", sleepers_polling},
        {"sleepers_thread", sleepers_thread},
        {"sleepers_mixed", sleepers_mixed},
        {"two_waiters", two_waiters},
        {"epoll_polling", epoll_polling},
        {"epoll_thread", epoll_thread},
        {"test_polling", test_polling},
        {"test_thread", test_thread},
        {"descriptors", descriptors},
        {"signals", signals},
        {"quiet", quiet},
};
INTER_MAIN("waiting", cases)
