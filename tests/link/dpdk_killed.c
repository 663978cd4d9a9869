/* The other end of a memif is killed, over and over, while frames go both ways: dpdk_killed server|client [ROUNDS] is the survivor's role. DPDK unmaps the dead one's
 * memory in another thread than the one that reads it: the survivor must neither crash nor stay deaf to the next. Each other end is a process of its own (this
 * program, dpdk_killed peer ROLE SOCKET). */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "link/link.h"
#include "tern/error.h"

enum { BURST = 64, FRAME = 8192, HEARD = 256, WAIT_S = 20, PORT = 7400 };

static const struct link_ops *ops;
static uint8_t memory[FRAME];

/* One end: what it sends, again and again, as its link gives it back. */
struct end {
	struct link *link;
	struct link_path *path;
	struct frame frame[BURST], *free[BURST];
	size_t n_free;
	uint64_t heard;
};

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void log_line(void *arg, int level, const char *file, int line, const char *text)
{
	(void)arg, (void)file, (void)line;
	printf("%d [%d] %.3f %s\n", (int)getpid(), level, (double)now_ns() / 1e9, text);
}

/* 0: the survivor, which listens; 1: who is killed. */
static bool end_open(struct end *e, int number, const char *role, const char *socket)
{
	char text[400], error[512] = "";
	snprintf(text, sizeof(text), "dev=net_memif0,role=%s,socket-abstract=no,socket=%s,bsize=9216,rsize=8&mtu=9000&twin=0&ip=10.99.0.%d/24", role,
	        socket, number + 1);
	struct link_config c = {.options = text,
	        .listening = !number,
	        .port = number ? 0 : PORT,
	        .now_ns = now_ns(),
	        .error = error,
	        .error_bytes = sizeof(error),
	        .log = getenv("TERN_TEST_LOG") ? log_line : NULL};
	memset(e, 0, sizeof(*e));
	if (ops->open(&c, &e->link)) {
		printf("open %s: %s\n", role, error);
		return false;
	}
	for (; e->n_free < BURST; e->n_free++)
		e->free[e->n_free] = &e->frame[e->n_free];
	return true;
}

static bool end_path(struct end *e, const struct link_addr *remote)
{
	struct link_path_config to = {.remote = *remote};
	return ops->path_open(e->link, &to, &e->path) == 0;
}

static void end_send(struct end *e)
{
	struct frame *out[BURST];
	size_t n = e->n_free;
	if (!e->path)
		return;
	for (size_t i = 0; i < n; i++) {
		out[i] = e->free[i];
		*out[i] = (struct frame){.path = e->path, .segs = 2, .wire_bytes = FRAME, .seg = {{.addr = memory, .bytes = 32}, {.addr = memory, .bytes = FRAME - 32}}};
	}
	size_t taken = ops->tx(e->link, out, n, now_ns());
	memmove(e->free, e->free + taken, (n - taken) * sizeof(e->free[0]));
	e->n_free = n - taken;
}

static void end_step(struct end *e)
{
	struct rx_frame in[BURST];
	struct link_addr from;

	end_send(e);
	e->n_free += ops->reap(e->link, e->free + e->n_free, BURST - e->n_free, now_ns());
	size_t n = ops->rx(e->link, in, BURST, now_ns());
	if (n && !e->path && !ops->from(e->link, &in[0], &from))
		end_path(e, &from);
	e->heard += n;
	ops->rx_free(e->link, in, n);
}

static int peer(const char *role, const char *socket)
{
	struct end e;
	struct link_addr to = {.bytes = 16};
	uint8_t addr[16] = {2, 0, PORT >> 8, PORT & 255, 10, 99, 0, 1}; /* a sockaddr_in */

	for (int i = 0; i < 100 && !strcmp(role, "client") && access(socket, F_OK); i++)
		usleep(10000);
	memcpy(to.data, addr, sizeof(addr));
	if (!end_open(&e, 1, role, socket) || !end_path(&e, &to))
		return 1;
	for (;;)
		end_step(&e);
}

static pid_t spawn(const char *self, const char *role, const char *socket)
{
	pid_t child = fork();
	if (child)
		return child;
	execl(self, self, "peer", role, socket, (char *)NULL);
	_exit(127);
}

/* @return whether the next one is heard */
static bool hear(struct end *e, uint64_t frames)
{
	uint64_t until = now_ns() + WAIT_S * 1000000000ull, want = e->heard + frames;
	while (e->heard < want && now_ns() < until)
		end_step(e);
	return e->heard >= want;
}

/* The path's own frames come back when it is closed, whatever became of the other end. */
static bool forget(struct end *e)
{
	uint64_t until = now_ns() + 100000000;
	if (e->path)
		ops->path_close(e->link, &e->path);
	while (e->n_free < BURST && now_ns() < until)
		e->n_free += ops->reap(e->link, e->free + e->n_free, BURST - e->n_free, now_ns());
	return e->n_free == BURST;
}

static int survive(const char *self, const char *role, int rounds)
{
	const char *other = !strcmp(role, "server") ? "client" : "server";
	char socket[64];
	struct end e;
	int round = 0;

	snprintf(socket, sizeof(socket), "/tmp/tern-killed-%d.sock", (int)getpid());
	unsigned seed = getenv("TERN_SEED") ? (unsigned)strtoul(getenv("TERN_SEED"), NULL, 0) : (unsigned)now_ns();
	printf("TERN_SEED=%u\n", seed);
	srand(seed);
	pid_t child = spawn(self, other, socket);
	for (int i = 0; i < 500 && !strcmp(other, "server") && access(socket, F_OK); i++)
		usleep(10000);
	bool ok = end_open(&e, 0, role, socket);
	for (; ok && round < rounds; round++) {
		ok = hear(&e, HEARD + (uint64_t)(rand() % HEARD));
		if (!ok)
			printf("round %d: nothing is heard of the next one\n", round);
		kill(child, SIGKILL);
		while (waitpid(child, NULL, WNOHANG) == 0) /* traffic goes on while it dies */
			end_step(&e);
		if (!strcmp(other, "server"))
			unlink(socket); /* it could not */
		child = spawn(self, other, socket);
		if (!forget(&e)) {
			printf("round %d: %zu of %d frames came back\n", round, e.n_free, BURST);
			ok = false;
		}
	}
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	if (e.link)
		ops->close(&e.link);
	unlink(socket);
	printf("%s: %d peers killed, %llu frames heard\n", role, round, (unsigned long long)e.heard);
	return !ok;
}

int main(int argc, char **argv)
{
	char error[512];

	setbuf(stdout, NULL);
	setenv("TERN_DPDK_EAL", "--no-huge -m 192 --no-pci", 0);
	if (link_find("dpdk", &ops, error, sizeof(error))) {
		printf("skip: %s\n", error);
		return 77;
	}
	if (argc == 4 && !strcmp(argv[1], "peer"))
		return peer(argv[2], argv[3]);
	return argc >= 2 ? survive("/proc/self/exe", argv[1], argc > 2 ? atoi(argv[2]) : 24) : 2;
}
