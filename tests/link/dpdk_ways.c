/* What happens on the way, with both ends in this process: dpdk_ways unresolved|down over memif, dpdk_ways wakes over vhost (with hugepages).
 * `unresolved`: a station that does not answer holds up its own path only, and gets its frames when it appears. `down`: the other end goes and comes
 * back, frames are kept meanwhile. `wakes`: a sleeper is woken by the port's interrupt, and needs no other reason to look. */
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "link/link.h"
#include "must.h"
#include "tern/error.h"

enum { WAIT_S = 10, PORT = 7400, FRAMES = 64, BYTES = 100, PARKED_PATH = 32, DOZE_NS = 50000000 };

static const struct link_ops *ops;
static uint8_t memory[FRAMES * 4][BYTES];
static struct frame pool[FRAMES * 4];

static struct link *end_open_as(const char *text, const char *host)
{
	char error[512] = "";
	struct link *l = NULL;
	struct link_config c = {
	        .options = text, .listening = true, .port = PORT, .host = host, .now_ns = now_ns(), .error = error, .error_bytes = sizeof(error)};
	if (ops->open(&c, &l))
		printf("%s: %s\n", host, error);
	MUST(l);
	return l;
}

static struct link *end_open(int end, const char *host)
{
	char text[320];
	snprintf(text, sizeof(text),
	        "dev=net_memif%d,role=%s,mac=02:00:00:00:00:0%d,socket-abstract=no,socket=/tmp/tern-ways-%d.sock&twin=0&ip=%s/24", end,
	        end ? "client" : "server", end, (int)getpid(), host);
	return end_open_as(text, host);
}

static struct link_path *path_to(struct link *l, const char *host)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(PORT)};
	struct link_path_config c = {.remote.bytes = sizeof(a)};
	struct link_path *p;
	inet_pton(AF_INET, host, &a.sin_addr);
	memcpy(c.remote.data, &a, sizeof(a));
	MUST(!ops->path_open(l, &c, &p));
	return p;
}

/* Frame i says its number. */
static struct frame *make(unsigned i, struct link_path *path)
{
	memset(memory[i], (int)i, BYTES);
	pool[i] = (struct frame){.path = path, .segs = 1, .wire_bytes = BYTES, .seg[0] = {.addr = memory[i], .bytes = BYTES}};
	return &pool[i];
}

/* One look at a link. @return frames received, their numbers appended to seen */
static unsigned look(struct link *l, uint8_t *seen, unsigned have)
{
	struct rx_frame in[FRAMES];
	size_t n = ops->rx(l, in, FRAMES, now_ns());
	for (size_t i = 0; i < n; i++)
		if (seen && have + i < FRAMES * 4)
			seen[have + i] = in[i].head[0];
	ops->rx_free(l, in, n);
	return (unsigned)n;
}

/* Steps both until `to` has received n. */
static unsigned receive(struct link *from, struct link *to, uint8_t *seen, unsigned n)
{
	uint64_t until = now_ns() + WAIT_S * 1000000000ull;
	unsigned got = 0;
	while (got < n && now_ns() < until) {
		look(from, NULL, 0);
		got += look(to, seen, got);
	}
	return got;
}

static size_t back(struct link *l, uint64_t within_ns, size_t n)
{
	struct frame *f[FRAMES];
	uint64_t until = now_ns() + within_ns;
	size_t got = 0;
	do
		got += ops->reap(l, f, FRAMES, now_ns());
	while (got < n && now_ns() < until);
	return got;
}

static size_t send_all(struct link *l, struct frame **f, size_t n)
{
	uint64_t until = now_ns() + WAIT_S * 1000000000ull;
	size_t taken = 0;
	while (taken < n && now_ns() < until) {
		taken += ops->tx(l, f + taken, n - taken, now_ns());
		look(l, NULL, 0);
	}
	return taken;
}

static void unresolved(void)
{
	struct link *a = end_open(0, "10.99.0.1"), *b = end_open(1, "10.99.0.2");
	struct link_path *good = path_to(b, "10.99.0.1"), *nobody = path_to(b, "10.99.0.77"), *late = path_to(b, "10.99.0.79");
	struct frame *f[FRAMES * 4];
	uint8_t seen[FRAMES * 4];

	f[0] = make(0, good);
	MUST(send_all(b, f, 1) == 1);
	MUST(receive(b, a, seen, 1) == 1 && back(b, 1000000000, 1) == 1);
	/* one of three goes to nobody, more than may wait: all others pass, in order */
	for (unsigned i = 0; i < 180; i++)
		f[i] = make(i, i % 3 ? good : nobody);
	f[180] = make(180, good);
	MUST(send_all(b, f, 181) == 181);
	MUST(receive(b, a, seen, 121) == 121);
	for (unsigned i = 0, n = 0; i <= 180; i++)
		MUST(i < 180 && i % 3 == 0 ? true : seen[n++] == i);
	MUST(b->tx_dropped == 60 - PARKED_PATH);
	MUST(back(b, 1000000000, 181 - PARKED_PATH) == 181 - PARKED_PATH);
	/* alone it is not taken: kept by whoever has it, nothing is lost */
	f[0] = make(200, nobody);
	MUST(ops->tx(b, f, 1, now_ns()) == 0 && b->tx_dropped == 60 - PARKED_PATH);
	ops->path_close(b, &nobody);
	MUST(back(b, 100000000, PARKED_PATH) == PARKED_PATH);
	/* it appears: what waited comes, in order, and what was sent meanwhile behind it */
	nobody = path_to(b, "10.99.0.78");
	for (unsigned i = 0; i < 5; i++)
		f[i] = make(i, nobody);
	MUST(send_all(b, f, 5) == 5);
	ops->close(&a);
	a = end_open(0, "10.99.0.78");
	for (unsigned i = 5; i < 10; i++)
		f[i] = make(i, nobody);
	MUST(send_all(b, f + 5, 5) == 5);
	MUST(receive(b, a, seen, 10) == 10 && back(b, 1000000000, 10) == 10);
	for (unsigned i = 0; i < 10; i++)
		MUST(seen[i] == i);
	/* what waited for one that never came is given back when the path begins anew, and then nothing waits: it appears */
	for (unsigned i = 0; i < PARKED_PATH; i++)
		f[i] = make(i, late);
	MUST(send_all(b, f, PARKED_PATH) == PARKED_PATH);
	ops->path_reset(b, late);
	MUST(back(b, 1000000000, PARKED_PATH) == PARKED_PATH);
	ops->close(&a);
	a = end_open(0, "10.99.0.79");
	f[0] = make(7, late);
	MUST(send_all(b, f, 1) == 1 && receive(b, a, seen, 1) == 1 && seen[0] == 7 && back(b, 1000000000, 1) == 1);
	f[0] = make(8, late);
	MUST(ops->tx(b, f, 1, now_ns()) == 1 && receive(b, a, seen, 1) == 1 && seen[0] == 8);
	ops->close(&b);
	ops->close(&a);
}

/* The other end goes. */
static void down(void)
{
	struct link *a = end_open(0, "10.99.0.1"), *b = end_open(1, "10.99.0.2");
	struct link_path *path = path_to(b, "10.99.0.1");
	struct frame *f[FRAMES];
	uint8_t seen[FRAMES * 4];
	const struct timespec nap = {.tv_nsec = 20000000};

	f[0] = make(0, path);
	MUST(send_all(b, f, 1) == 1 && receive(b, a, seen, 1) == 1 && back(b, 1000000000, 1) == 1);
	ops->close(&a);
	nanosleep(&nap, NULL); /* longer than the port's state is believed */
	look(b, NULL, 0);
	for (unsigned i = 0; i < FRAMES; i++)
		f[i] = make(i, path);
	size_t taken = ops->tx(b, f, FRAMES, now_ns());
	MUST(taken == 0 && b->tx_dropped == 0); /* the engine keeps them */
	a = end_open(0, "10.99.0.1"); /* the client's port connects again by itself */
	MUST(send_all(b, f, FRAMES) == FRAMES);
	MUST(receive(b, a, seen, FRAMES) == FRAMES && back(b, 1000000000, FRAMES) == FRAMES);
	for (unsigned i = 0; i < FRAMES; i++)
		MUST(seen[i] == i);
	ops->close(&b);
	ops->close(&a);
}

static struct link_wait armed; /* as `sleeps` left it */

/* Does its descriptor say that there is something, within so long? */
static bool woken(int timeout_ms)
{
	struct pollfd set = {.fd = armed.fd, .events = POLLIN};
	return poll(&set, 1, timeout_ms) > 0;
}

/* Arms it when it has been quiet for long enough: the next look is not due for DOZE_NS then, fifty times as long as a nap without an interrupt. */
static void sleeps(struct link *l)
{
	uint64_t until = now_ns() + WAIT_S * 1000000000ull;
	do {
		look(l, NULL, 0);
		ops->wait(l, true, &armed);
	} while (armed.deadline_ns < now_ns() + DOZE_NS && now_ns() < until);
	MUST(armed.fd >= 0 && armed.deadline_ns >= now_ns());
}

static void wakes(void)
{
	char text[2][256];
	struct frame *f[1];
	uint8_t seen[FRAMES * 4];

	snprintf(text[0], sizeof(text[0]), "dev=net_vhost0,iface=/tmp/tern-wakes-%d.sock&twin=0&ip=10.99.0.1/24", (int)getpid());
	snprintf(text[1], sizeof(text[1]), "dev=net_virtio_user0,path=/tmp/tern-wakes-%d.sock&twin=0&ip=10.99.0.2/24", (int)getpid());
	struct link *a = end_open_as(text[0], "10.99.0.1"), *b = end_open_as(text[1], "10.99.0.2");
	struct link_path *path = path_to(b, "10.99.0.1");
	f[0] = make(0, path);
	MUST(send_all(b, f, 1) == 1 && receive(b, a, seen, 1) == 1 && back(b, 1000000000, 1) == 1);
	for (unsigned i = 0; i < 40; i++) {
		sleeps(a);
		MUST(!woken(i % 10 ? 0 : 50)); /* nothing comes: it sleeps on */
		f[0] = make(i, path);
		MUST(ops->tx(b, f, 1, now_ns()) == 1 && back(b, 1000000000, 1) == 1);
		MUST(woken(5000));
		MUST(look(a, seen, 0) == 1 && seen[0] == i);
	}
	ops->close(&b);
	ops->close(&a);
}

int main(int argc, char **argv)
{
	char error[512];

	setbuf(stdout, NULL);
	alarm(50);
	bool is_huge = argc == 2 && !strcmp(argv[1], "wakes");
	setenv("TERN_DPDK_EAL", is_huge ? "--in-memory --single-file-segments --no-pci -m 256" : "--no-huge -m 320 --no-pci", 0);
	if (link_find("dpdk", &ops, error, sizeof(error))) {
		printf("skip: %s\n", error);
		return 77;
	}
	if (argc == 2 && !strcmp(argv[1], "unresolved"))
		unresolved();
	else if (argc == 2 && !strcmp(argv[1], "down"))
		down();
	else if (is_huge)
		wakes();
	else
		return 2;
	printf("%s: as it should be\n", argv[1]);
	return 0;
}
