/* Opening the dpdk link in a process of its own: dpdk_open refused|again|giant. `refused`: arguments that DPDK does not take give the same words twice and nothing on
 * stdout or stderr. `again`: both ends of a memif are opened, talk and are closed, 30 times;
 * descriptors do not grow.
 * `giant`: the peer's frames are longer than what this end was told, and come in pieces that no buffer holds together: dropped, whoever else is there. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "link/link.h"
#include "tern/error.h"

enum { ROUNDS = 30, WARM = 3, LINK_WAIT_S = 10, MTU = 1500 };

static const struct link_ops *ops;

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int link_try(const char *options, bool listening, char error[512], struct link **out)
{
	*error = 0;
	struct link_config c = {
	    .options = options, .listening = listening, .port = listening ? 7400 : 0, .now_ns = now_ns(), .error = error, .error_bytes = 512};
	return ops->open(&c, out);
}

static int refused(const char *eal)
{
	char first[512], second[512];
	int out = memfd_create("out", MFD_CLOEXEC), keep[2] = {dup(1), dup(2)};
	struct link *l;

	setenv("TERN_DPDK_EAL", eal, 1);
	fflush(NULL);
	dup2(out, 1);
	dup2(out, 2);
	int one = link_try("dev=net_ring0&ip=10.9.0.1/24&twin=0", true, first, &l);
	int two = link_try("dev=net_ring0&ip=10.9.0.1/24&twin=0", true, second, &l);
	fflush(NULL);
	off_t said = lseek(out, 0, SEEK_END);
	dup2(keep[0], 1);
	dup2(keep[1], 2);
	printf("%d %s\n%d %s\n%lld bytes to stdout and stderr\n", one, first, two, second, (long long)said);
	return one == -TERN_EIO && two == one && strstr(first, "EAL does not start") && !strcmp(first, second) && !said ? 0 : 1;
}

static int descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;
	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

static void drain(struct link *l)
{
	struct rx_frame in[32];
	l->ops->rx_free(l, in, l->ops->rx(l, in, 32, now_ns()));
}

/* One datagram from the client arrives at the server: the memif stands. One larger than an MTU is to be dropped there. */
static bool heard(struct link *server, struct link *client, uint32_t size)
{
	static uint8_t bytes[8000];
	struct link_path_config to = {.remote = server->local};
	struct link_path *path;
	struct rx_frame in[32];
	bool arrived = false;
	uint64_t dropped = server->rx_dropped;
	uint64_t end = now_ns() + LINK_WAIT_S * 1000000000ull;

	if (client->ops->path_open(client, &to, &path))
		return false;
	struct frame f = {.segs = 1, .wire_bytes = size, .path = path, .seg[0] = {.addr = bytes, .bytes = size}}, *one = &f, *back;
	for (bool is_out = false; !arrived && now_ns() < end;) {
		if (!is_out)
			is_out = client->ops->tx(client, &one, 1, now_ns());
		if (client->ops->reap(client, &back, 1, now_ns()))
			is_out = false;
		drain(client);
		size_t n = server->ops->rx(server, in, 32, now_ns());
		arrived = size > MTU ? server->rx_dropped > dropped : n;
		server->ops->rx_free(server, in, n);
		const struct timespec nap = {.tv_nsec = 200000};
		nanosleep(&nap, NULL);
	}
	client->ops->path_close(client, &path);
	return arrived;
}

static int again(void)
{
	char text[2][256], error[512];
	int first = 0, last = 0;

	setenv("TERN_DPDK_EAL", "--no-huge -m 320 --no-pci", 0);
	for (int i = 0; i < 2; i++)
		snprintf(text[i], sizeof(text[i]),
		         "dev=net_memif%d,role=%s,id=0,socket-abstract=no,socket=/tmp/tern-again-%d.sock&twin=0&ip=10.99.0.%d/24",
		         i, i ? "client" : "server", (int)getpid(), i + 1);
	for (int round = 0; round < ROUNDS; round++) {
		struct link *end[2] = {0};
		for (int i = 0; i < 2; i++)
			if (link_try(text[i], !i, error, &end[i])) {
				printf("round %d: open: %s\n", round, error);
				return 1;
			}
		if (!heard(end[0], end[1], 64)) {
			printf("round %d: nothing arrives\n", round);
			return 1;
		}
		ops->close(&end[round & 1]); /* either end first */
		ops->close(&end[!(round & 1)]);
		last = descriptors();
		first = round < WARM ? last : first;
	}
	printf("descriptors after %d rounds: %d, after %d: %d\n", WARM, first, ROUNDS, last);
	return last > first;
}

static int giant(void)
{
	char text[256], error[512];
	struct link *end[2] = {0};

	setenv("TERN_DPDK_EAL", "--no-huge -m 320 --no-pci", 0);
	for (int i = 0; i < 2; i++) {
		snprintf(text, sizeof(text),
		         "dev=net_memif%d,role=%s,id=0,socket-abstract=no,socket=/tmp/tern-giant-%d.sock,bsize=9216&twin=0&ip=10.99.0.%d/24&mtu=%d",
		         i, i ? "client" : "server", (int)getpid(), i + 1, i ? 9000 : MTU);
		if (link_try(text, !i, error, &end[i])) {
			printf("open: %s\n", error);
			return 1;
		}
	}
	bool is_heard = heard(end[0], end[1], 64), is_dropped = heard(end[0], end[1], 8000);
	ops->close(&end[1]);
	ops->close(&end[0]);
	printf("one of 64 bytes %s heard, one of 8000 %s dropped\n", is_heard ? "is" : "is not", is_dropped ? "is" : "is not");
	return !is_heard || !is_dropped;
}

int main(int argc, char **argv)
{
	char error[512];

	alarm(50);
	if (link_find("dpdk", &ops, error, sizeof(error))) {
		printf("skip: %s\n", error);
		return 77;
	}
	if (argc == 3 && !strcmp(argv[1], "refused"))
		return refused(argv[2]);
	if (argc == 2 && !strcmp(argv[1], "giant"))
		return giant();
	return argc == 2 && !strcmp(argv[1], "again") ? again() : 2;
}
