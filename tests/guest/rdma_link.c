/* The rdma link alone, two of them in one process on two devices: set-up with tokens, frames, writes, exposures, broken connections, bad input.
 * rdma_link rc|uc [OPTIONS]. The two devices' addresses are in TERN_RDMA_FROM and TERN_RDMA_TO. Exit status 77: this machine has no device there. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include "../unit/unit.h"
#include "link/link.h"
#include "tern/error.h"

enum { BURST = 64, PATIENCE_MS = 20000, MEMORY = 4 << 20, EVENTS_MAX = 64 };

struct end {
	struct link *link;
	struct link_path *path;
	struct rx_frame in[BURST];
	size_t n_in;
	struct link_exposed exposed[EVENTS_MAX];
	size_t n_exposed;
	struct link_done done[EVENTS_MAX];
	size_t n_done, reaped, arrived, lost;
};

static const struct link_ops *ops;
static const char *hosts[2] = {"10.9.0.1", "10.9.0.2"};
static char options[128];
static bool is_uc;
static uint64_t state;
static uint8_t tokens[2][LINK_TOKEN_BYTES] = {"the right token", "the wrong token"};
static char error[512];
static uint64_t slowest_close_ns;

static uint64_t random64(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	return state ^= state << 17;
}

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void print_log(void *arg, int level, const char *file, int line, const char *text)
{
	(void)arg, (void)level, (void)file, (void)line;
	printf("    %s\n", text);
}

static int open_link(struct end *e, int which, bool listening, uint16_t port)
{
	struct link_config config = {.host = hosts[which], .port = port, .listening = listening, .options = options, .domain = 7, .now_ns = now(), .log = print_log};
	memset(e, 0, sizeof(*e));
	config.error = error;
	config.error_bytes = sizeof(error);
	return ops->open(&config, &e->link);
}

/* One step of a link: everything it has is taken. */
static void step(struct end *e)
{
	struct frame *back[BURST];

	if (!e->link)
		return;
	for (size_t n; (n = ops->reap(e->link, back, BURST, now()));)
		e->reaped += n;
	e->n_in += ops->rx(e->link, e->in + e->n_in, BURST - e->n_in, now());
	e->n_exposed += ops->exposed(e->link, e->exposed + e->n_exposed, EVENTS_MAX - e->n_exposed, now());
	size_t got = ops->done(e->link, e->done + e->n_done, EVENTS_MAX - e->n_done, now());
	for (size_t i = e->n_done; i < e->n_done + got; i++)
		*(e->done[i].is_lost ? &e->lost : &e->arrived) += e->done[i].frames;
	e->n_done += got;
}

/* Asleep on both descriptors, as a loop is. */
static void doze(struct end end[2])
{
	struct pollfd p[2];
	uint64_t until = now() + 100000000;

	for (int i = 0; i < 2; i++) {
		struct link_wait wait = {.fd = -1, .deadline_ns = UINT64_MAX};
		if (end[i].link)
			ops->wait(end[i].link, true, &wait);
		p[i] = (struct pollfd){.fd = wait.fd, .events = POLLIN};
		until = wait.deadline_ns < until ? wait.deadline_ns : until;
	}
	uint64_t at = now();
	if (until > at)
		poll(p, 2, (int)((until - at + 999999) / 1000000));
}

#define UNTIL(end, what) \
	for (uint64_t until_ns = now() + PATIENCE_MS * 1000000ull; !(what) && now() < until_ns; doze(end)) { \
		step(&(end)[0]); \
		step(&(end)[1]); \
	} \
	CU_ASSERT(!!(what))

static void free_in(struct end *e)
{
	ops->rx_free(e->link, e->in, e->n_in);
	e->n_in = 0;
}

static int open_path(struct end *e, const struct link_addr *to, int token, bool is_acceptor)
{
	struct link_path_config config = {.token = tokens[token], .is_acceptor = is_acceptor};
	if (to)
		config.remote = *to;
	return ops->path_open(e->link, &config, &e->path);
}

static void open_both(struct end end[2])
{
	CU_ASSERT_EQUAL_FATAL(open_link(&end[0], 0, true, 0), 0);
	CU_ASSERT_EQUAL_FATAL(open_link(&end[1], 1, false, 0), 0);
	CU_ASSERT_EQUAL(open_path(&end[0], NULL, 0, true), 0);
	CU_ASSERT_EQUAL(open_path(&end[1], &end[0].link->local, 0, false), 0);
	UNTIL(end, end[0].path->is_connected && end[1].path->is_connected);
	CU_ASSERT_FATAL(end[0].path->is_connected && end[1].path->is_connected);
}

static void close_both(struct end end[2])
{
	for (int i = 0; i < 2; i++) {
		uint64_t begin = now();
		ops->path_close(end[i].link, &end[i].path);
		slowest_close_ns = now() - begin > slowest_close_ns ? now() - begin : slowest_close_ns;
		ops->close(&end[i].link);
	}
}

static void bytes_frame(struct frame *f, struct link_path *path, uint8_t *memory, uint32_t bytes, uint32_t segs)
{
	memset(f, 0, sizeof(*f));
	f->path = path;
	f->segs = (uint8_t)segs;
	f->wire_bytes = bytes;
	for (uint32_t i = 0, at = 0; i < segs; i++) {
		uint32_t n = i + 1 < segs ? bytes / segs : bytes - at;
		f->seg[i] = (struct frame_seg){.addr = memory + at, .bytes = n};
		at += n;
	}
}

static void send_all(struct end end[2], int from, struct frame *frames, size_t n)
{
	struct frame *list[BURST];
	size_t sent = 0;
	for (size_t i = 0; i < n; i++)
		list[i] = &frames[i];
	end[from].reaped = 0;
	UNTIL(end, (sent += ops->tx(end[from].link, list + sent, n - sent, now())) == n);
	UNTIL(end, end[from].reaped == n);
}

static void pass(struct end end[2], int from, uint32_t lane)
{
	static uint8_t memory[BURST][8192];
	static struct frame frames[BURST];
	struct end *to = &end[!from];
	uint32_t most = lane ? 512 : end[from].path->max_frame_bytes;

	for (int i = 0; i < BURST; i++) {
		for (uint32_t k = 0; k < most; k++)
			memory[i][k] = (uint8_t)random64();
		uint32_t bytes = i == 0 ? most : i == 1 ? 1 : 1 + (uint32_t)(random64() % most);
		bytes_frame(&frames[i], end[from].path, memory[i], bytes, 1 + (uint32_t)(random64() % 3));
		frames[i].lane = (uint8_t)lane;
	}
	send_all(end, from, frames, BURST);
	UNTIL(end, to->n_in == BURST);
	for (size_t i = 0; i < to->n_in; i++) {
		CU_ASSERT_EQUAL(to->in[i].head_bytes, frames[i].wire_bytes);
		CU_ASSERT_EQUAL(to->in[i].path, to->path);
		CU_ASSERT(to->in[i].head_bytes == frames[i].wire_bytes && !memcmp(to->in[i].head, memory[i], frames[i].wire_bytes));
	}
	free_in(to);
}

static void frames_both_ways(void)
{
	struct end end[2];
	open_both(end);
	CU_ASSERT_EQUAL(end[0].path->connection, 1);
	CU_ASSERT_EQUAL(end[1].path->connection, 1);
	for (int i = 0; i < 10; i++) {
		pass(end, i & 1, 0);
		pass(end, i & 1, 1 + (uint32_t)i % end[0].path->lanes);
	}
	close_both(end);
}

static void wrong_token(void)
{
	struct end end[2];
	CU_ASSERT_EQUAL_FATAL(open_link(&end[0], 0, true, 0), 0);
	CU_ASSERT_EQUAL_FATAL(open_link(&end[1], 1, false, 0), 0);
	CU_ASSERT_EQUAL(open_path(&end[0], NULL, 1, true), 0);
	CU_ASSERT_EQUAL(open_path(&end[1], &end[0].link->local, 0, false), 0);
	UNTIL(end, strstr(end[1].link->trouble, "does not expect"));
	CU_ASSERT_FALSE(end[0].path->is_connected || end[1].path->is_connected);
	ops->path_close(end[0].link, &end[0].path);
	CU_ASSERT_EQUAL(open_path(&end[0], NULL, 0, true), 0);
	UNTIL(end, end[0].path->is_connected && end[1].path->is_connected);
	CU_ASSERT_EQUAL(end[1].path->fault, 0);
	pass(end, 0, 0);
	close_both(end);
}

static uint8_t *map(struct end *e, size_t bytes, uint32_t *key)
{
	uint8_t *m = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CU_ASSERT_FATAL(m != MAP_FAILED);
	CU_ASSERT_EQUAL(ops->mem_map(e->link, m, bytes, key), 0);
	return m;
}

static void write_frame(struct frame *f, struct end *from, const struct frame_target *target, uint64_t number, const struct frame_seg *seg)
{
	memset(f, 0, sizeof(*f));
	f->path = from->path;
	f->number = number;
	f->is_write = true;
	f->target = *target;
	f->lane = target->lane;
	f->segs = 2;
	f->seg[1] = *seg;
	f->payload_bytes = f->wire_bytes = seg->bytes;
}

static struct link_exposed expose(struct end end[2], int at, uint8_t *m, uint64_t bytes, uint32_t key)
{
	struct link_expose what = {.addr = m, .bytes = bytes, .mem = key, .is_write = true, .ref = random64()};
	struct link_exposed none = {0};
	uint32_t id = 0;

	end[at].n_exposed = 0;
	CU_ASSERT_EQUAL(ops->expose(end[at].link, end[at].path, &what, &id), 0);
	UNTIL(end, end[at].n_exposed == 1);
	if (end[at].n_exposed != 1)
		return none;
	CU_ASSERT_EQUAL(end[at].exposed[0].id, id);
	CU_ASSERT_EQUAL(end[at].exposed[0].ref, what.ref);
	CU_ASSERT_EQUAL(end[at].exposed[0].state, LINK_EXPOSED);
	CU_ASSERT_EQUAL(end[at].exposed[0].target.connection, (uint8_t)end[at].path->connection);
	return end[at].exposed[0];
}

static void hide(struct end end[2], int at, uint32_t id)
{
	end[at].n_exposed = 0;
	ops->hide(end[at].link, id);
	UNTIL(end, end[at].n_exposed == 1);
	CU_ASSERT_EQUAL(end[at].exposed[0].id, id);
	CU_ASSERT_EQUAL(end[at].exposed[0].state, LINK_HIDDEN);
}

static void fill(uint8_t *m, size_t bytes)
{
	for (size_t i = 0; i + 8 <= bytes; i += 8) {
		uint64_t r = random64();
		memcpy(m + i, &r, 8);
	}
}

/* Writes of `bytes` in all, from `source`; asserts that each is told at both ends and lies there. */
static void write_run(struct end end[2], int from, struct link_exposed x, struct frame_seg source, uint64_t number)
{
	static struct frame frames[BURST];
	struct end *to = &end[!from];
	uint32_t most = end[from].path->max_write_bytes, n = 0;

	for (uint32_t at = 0; at < source.bytes && n < BURST; at += most, n++) {
		struct frame_seg seg = {.addr = source.addr + at, .bytes = source.bytes - at < most ? source.bytes - at : most, .mem = source.mem};
		struct frame_target target = x.target;
		target.addr += at;
		write_frame(&frames[n], &end[from], &target, number + n, &seg);
	}
	end[from].n_done = end[from].arrived = end[from].lost = 0;
	send_all(end, from, frames, n);
	UNTIL(end, to->n_in == n);
	for (uint32_t i = 0; i < to->n_in; i++) {
		CU_ASSERT(to->in[i].is_placed);
		CU_ASSERT_EQUAL(to->in[i].placed_number, (uint32_t)(number + i));
		CU_ASSERT_EQUAL(to->in[i].placed_bytes, frames[i].seg[1].bytes);
		CU_ASSERT_PTR_NULL(to->in[i].head);
	}
	free_in(to);
	if (!is_uc) {
		UNTIL(end, end[from].arrived == n);
		CU_ASSERT_EQUAL(end[from].done[0].first, number);
	}
	CU_ASSERT_EQUAL(end[from].lost, 0);
	CU_ASSERT_EQUAL(memcmp((void *)(uintptr_t)x.target.addr, source.addr, source.bytes), 0);
}

static void writes(void)
{
	struct end end[2];
	uint32_t key[2];

	open_both(end);
	for (int from = 0; from < 2; from++) {
		uint8_t *source = map(&end[from], MEMORY, &key[0]), *to = map(&end[!from], MEMORY, &key[1]);
		fill(source, MEMORY);
		uint32_t bytes = is_uc ? 32 * end[from].path->max_write_bytes + 100 : MEMORY - 12345;
		for (uint32_t i = 0; i < end[0].path->lanes + 1; i++) {
			struct link_exposed x = expose(end, !from, to + 4096, bytes, key[1]);
			write_run(end, from, x, (struct frame_seg){.addr = source, .bytes = bytes, .mem = key[0]}, 0xfffffff0 + 100ull * i);
			hide(end, !from, x.id);
			memset(to, 0, MEMORY);
		}
		ops->mem_unmap(end[from].link, key[0]);
		struct link_exposed x = expose(end, !from, to, MEMORY, key[1]); /* from memory that nobody has mapped */
		write_run(end, from, x, (struct frame_seg){.addr = source, .bytes = bytes}, 5);
		hide(end, !from, x.id);
		ops->mem_unmap(end[!from].link, key[1]);
		munmap(source, MEMORY);
		munmap(to, MEMORY);
	}
	close_both(end);
}

/* A peer that keeps writing with an old key: nothing lands. RC loses the connection by it and gets a new one; UC just loses the frame. */
static void hidden_is_hidden(void)
{
	struct end end[2];
	static struct frame f;
	uint32_t key[2];

	open_both(end);
	uint8_t *source = map(&end[1], MEMORY, &key[0]), *to = map(&end[0], MEMORY, &key[1]);
	fill(source, MEMORY);
	struct link_exposed old = expose(end, 0, to, 65536, key[1]);
	struct link_exposed other = expose(end, 0, to + 65536, 65536, key[1]);
	struct frame_seg seg = {.addr = source, .bytes = 1000, .mem = key[0]};
	hide(end, 0, old.id);
	end[0].n_exposed = 0;
	write_frame(&f, &end[1], &old.target, 1, &seg);
	send_all(end, 1, &f, 1);
	if (is_uc) {
		struct frame_seg more = {.addr = source, .bytes = end[1].path->max_write_bytes, .mem = key[0]};
		write_run(end, 1, other, more, 2);
		CU_ASSERT_EQUAL(end[1].path->connection, 1);
	} else {
		UNTIL(end, end[1].lost == 1 && end[0].n_exposed == 1);
		CU_ASSERT_EQUAL(end[0].exposed[0].state, LINK_BROKEN);
		CU_ASSERT_EQUAL(end[0].exposed[0].id, other.id);
		CU_ASSERT_EQUAL(end[0].n_in, 0);
		UNTIL(end, end[0].path->is_connected && end[1].path->is_connected && end[1].path->connection == 2);
		CU_ASSERT_EQUAL(end[0].path->connection, 2);
		write_frame(&f, &end[1], &other.target, 2, &seg); /* a key of the connection before */
		send_all(end, 1, &f, 1);
		UNTIL(end, end[1].lost == 2);
		CU_ASSERT_EQUAL(end[1].path->connection, 2);
	}
	for (int i = 0; i < 65536; i++)
		CU_ASSERT_FATAL(to[i] == 0);
	pass(end, 0, 0);
	pass(end, 1, 1);
	struct link_exposed fresh = expose(end, 0, to, 65536, key[1]);
	write_run(end, 1, fresh, (struct frame_seg){.addr = source, .bytes = 40000, .mem = key[0]}, 3);
	close_both(end);
	munmap(source, MEMORY);
	munmap(to, MEMORY);
}

/* The acceptor's path goes away in mid-traffic and comes back: what was under way is told once, exposures are broken once, then all works again. */
static void peer_comes_back(void)
{
	struct end end[2];
	static struct frame frames[BURST];
	struct frame *list[BURST];
	uint32_t key[2];

	open_both(end);
	uint8_t *source = map(&end[1], MEMORY, &key[0]), *to = map(&end[0], MEMORY, &key[1]), *mine = map(&end[1], MEMORY, &key[0]);
	struct link_exposed x = expose(end, 0, to, MEMORY, key[1]), held = expose(end, 1, mine, 65536, key[0]);
	for (uint64_t i = 0; i < BURST; i++) {
		struct frame_seg seg = {.addr = source, .bytes = end[1].path->max_write_bytes};
		write_frame(&frames[i], &end[1], &x.target, i, &seg);
		list[i] = &frames[i];
	}
	end[1].n_exposed = 0;
	size_t sent = ops->tx(end[1].link, list, BURST, now());
	CU_ASSERT(sent > 0);
	ops->path_close(end[0].link, &end[0].path);
	memset(to, 0, MEMORY);
	CU_ASSERT_EQUAL(open_path(&end[0], NULL, 0, true), 0);
	UNTIL(end, end[0].path->is_connected && end[1].path->is_connected && end[1].path->connection == 2);
	UNTIL(end, end[1].reaped == sent && (is_uc || end[1].arrived + end[1].lost == sent));
	UNTIL(end, end[1].n_exposed == 1);
	CU_ASSERT_EQUAL(end[1].exposed[0].state, LINK_BROKEN);
	CU_ASSERT_EQUAL(end[1].exposed[0].id, held.id);
	for (int i = 0; i < MEMORY; i++)
		CU_ASSERT_FATAL(to[i] == 0);
	free_in(&end[0]);
	pass(end, 1, 0);
	x = expose(end, 0, to, MEMORY, key[1]);
	write_run(end, 1, x, (struct frame_seg){.addr = source, .bytes = end[1].path->max_write_bytes}, 100);
	close_both(end);
	munmap(source, MEMORY);
	munmap(mine, MEMORY);
	munmap(to, MEMORY);
}

static void mode_differs(void)
{
	struct end end[2];
	char keep[sizeof(options)];

	CU_ASSERT_EQUAL_FATAL(open_link(&end[0], 0, true, 0), 0);
	memcpy(keep, options, sizeof(keep));
	snprintf(options, sizeof(options), "mode=%s", is_uc ? "rc" : "uc");
	CU_ASSERT_EQUAL_FATAL(open_link(&end[1], 1, false, 0), 0);
	memcpy(options, keep, sizeof(keep));
	CU_ASSERT_EQUAL(open_path(&end[0], NULL, 0, true), 0);
	CU_ASSERT_EQUAL(open_path(&end[1], &end[0].link->local, 0, false), 0);
	UNTIL(end, end[1].path->fault);
	CU_ASSERT_EQUAL(end[1].path->fault, -TERN_EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(end[1].link->trouble, "mode="));
	close_both(end);
}

static void bad_input(void)
{
	struct end end[2], second;
	char keep[sizeof(options)];
	static const char *const wrong[] = {"mode=ud", "lanes=0", "lanes=99", "sq=x", "timeout=40", "odp=2", "isolation=none"};

	memcpy(keep, options, sizeof(keep));
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		snprintf(options, sizeof(options), "%s", wrong[i]);
		CU_ASSERT_EQUAL(open_link(&end[0], 0, true, 0), -TERN_EINVAL);
		CU_ASSERT_PTR_NOT_NULL(strstr(error, wrong[i]));
	}
	snprintf(options, sizeof(options), "dev=nonesuch7");
	const char *host = hosts[0];
	hosts[0] = "";
	CU_ASSERT_EQUAL(open_link(&end[0], 0, true, 0), -TERN_EADDR);
	CU_ASSERT_PTR_NOT_NULL(strstr(error, "nonesuch7"));
	memcpy(options, keep, sizeof(keep));
	hosts[0] = "192.0.2.77";
	CU_ASSERT_EQUAL(open_link(&end[0], 0, true, 0), -TERN_EADDR);
	CU_ASSERT_PTR_NOT_NULL(strstr(error, "192.0.2.77"));
	hosts[0] = host;
	CU_ASSERT_EQUAL_FATAL(open_link(&end[0], 0, true, 0), 0);
	struct sockaddr_in a;
	memcpy(&a, end[0].link->local.data, sizeof(a));
	CU_ASSERT_EQUAL(open_link(&second, 0, true, ntohs(a.sin_port)), -TERN_EADDR);
	CU_ASSERT_PTR_NOT_NULL(strstr(error, "in use"));
	struct link_addr nowhere = {.bytes = 3};
	CU_ASSERT_EQUAL(open_path(&end[0], &nowhere, 0, false), -TERN_EADDR);
	CU_ASSERT_PTR_NULL(end[0].path);
	uint32_t key;
	CU_ASSERT_EQUAL(ops->path_open(end[0].link, &(struct link_path_config){.token = tokens[0], .is_acceptor = true}, &end[0].path), 0);
	CU_ASSERT_EQUAL(ops->expose(end[0].link, end[0].path, &(struct link_expose){.addr = tokens[0], .bytes = 16, .is_write = true}, &key), -TERN_EAGAIN);
	ops->close(&end[0].link);
}

/* Nobody listens, no address, no route: said in words, tried again, and closed at once. */
static void nobody_there(void)
{
	struct end end[2] = {{0}, {0}};
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(1), .sin_addr.s_addr = inet_addr(hosts[0])};
	struct link_addr to = {.bytes = sizeof(a)};

	CU_ASSERT_EQUAL_FATAL(open_link(&end[1], 1, false, 0), 0);
	memcpy(to.data, &a, sizeof(a));
	CU_ASSERT_EQUAL(open_path(&end[1], &to, 0, false), 0);
	UNTIL(end, strstr(end[1].link->trouble, "nobody listens"));
	CU_ASSERT_EQUAL(end[1].path->fault, 0);
	ops->path_close(end[1].link, &end[1].path);
	a.sin_addr.s_addr = inet_addr("192.0.2.1");
	memcpy(to.data, &a, sizeof(a));
	CU_ASSERT_EQUAL(open_path(&end[1], &to, 0, false), 0);
	UNTIL(end, strstr(end[1].link->trouble, "192.0.2.1"));
	printf("    %s\n", end[1].link->trouble);
	ops->close(&end[1].link);
}

/* Needs locked memory of a first connection, then none more. As root the limit does not hold: the capability goes first, in a child. */
static void memory_regions(void)
{
	struct end end[2];
	uint32_t key[3];
	struct link_exposed x;

	open_both(end);
	uint8_t *m = map(&end[0], MEMORY, &key[0]);
	CU_ASSERT_EQUAL(ops->mem_map(end[0].link, m + 4096, 8192, &key[1]), 0);
	CU_ASSERT_EQUAL(key[1], key[0]); /* inside: the same region */
	CU_ASSERT_EQUAL(ops->mem_map(end[1].link, m, MEMORY, &key[2]), 0);
	CU_ASSERT_EQUAL(key[2], key[0]); /* of the domain, not of the link */
	ops->mem_unmap(end[0].link, key[0]);
	ops->mem_unmap(end[1].link, key[2]);
	x = expose(end, 0, m, 4096, key[1]);
	hide(end, 0, x.id);
	ops->mem_unmap(end[0].link, key[1]);
	struct link_expose what = {.addr = m, .bytes = 4096, .is_write = true};
	CU_ASSERT_EQUAL(ops->expose(end[0].link, end[0].path, &what, &key[1]), -TERN_EINVAL);
	munmap(m, MEMORY);
	CU_ASSERT_EQUAL(ops->mem_map(end[0].link, m, MEMORY, &key[0]), -TERN_ENOMEM);
	CU_ASSERT_PTR_NOT_NULL(strstr(end[0].link->trouble, "cannot be registered"));
	close_both(end);
}

static void many_exposures(void)
{
	enum { N = 2000, STEP = 1024 };
	struct end end[2];
	uint32_t key, ids[N];
	size_t shown = 0, hidden = 0;

	open_both(end);
	uint8_t *m = map(&end[0], N * STEP, &key);
	uint64_t begin = now();
	for (int i = 0; i < N; i++) {
		struct link_expose what = {.addr = m + i * STEP, .bytes = STEP, .mem = key, .is_write = true, .ref = (uint64_t)i};
		CU_ASSERT_EQUAL_FATAL(ops->expose(end[0].link, end[0].path, &what, &ids[i]), 0);
	}
	for (uint64_t until = now() + PATIENCE_MS * 1000000ull; hidden < N && now() < until; doze(end)) {
		step(&end[0]);
		step(&end[1]);
		for (size_t i = 0; i < end[0].n_exposed; i++) {
			struct link_exposed *x = &end[0].exposed[i];
			CU_ASSERT_FATAL(x->ref < N && ids[x->ref] == x->id);
			if (x->state == LINK_EXPOSED)
				ops->hide(end[0].link, x->id);
			shown += x->state == LINK_EXPOSED;
			hidden += x->state == LINK_HIDDEN;
		}
		end[0].n_exposed = 0;
	}
	CU_ASSERT_EQUAL(shown, N);
	CU_ASSERT_EQUAL(hidden, N);
	printf("    %d exposed and hidden: %.1f us each\n", N, (double)(now() - begin) / 1000 / N);
	ops->mem_unmap(end[0].link, key);
	close_both(end);
	munmap(m, N * STEP);
}

/* A receiver that does not look for a while: UC loses what does not fit, RC waits or connects anew; afterwards all works. */
static void sleepy_receiver(void)
{
	enum { N = 3000 };
	static struct frame frames[N];
	static uint8_t memory[600];
	struct end end[2];
	size_t got = 0, sent = 0;
	struct frame *back[BURST];

	open_both(end);
	for (int i = 0; i < N; i++)
		bytes_frame(&frames[i], end[1].path, memory, 600, 1);
	for (uint64_t until = now() + 300000000; sent < N && now() < until;) {
		struct frame *f = &frames[sent];
		sent += ops->tx(end[1].link, &f, 1, now());
		ops->reap(end[1].link, back, BURST, now());
	}
	CU_ASSERT(sent > 1000);
	for (uint64_t until = now() + 500000000; got < sent && now() < until; doze(end)) {
		step(&end[0]);
		step(&end[1]);
		got += end[0].n_in;
		free_in(&end[0]);
	}
	printf("    %zu sent, %zu received, connection %u\n", sent, got, end[1].path->connection);
	UNTIL(end, end[0].path->is_connected && end[1].path->is_connected);
	CU_ASSERT(is_uc || got == sent || end[1].path->connection > 1);
	for (int i = 0; i < 4; i++)
		pass(end, i & 1, 0);
	close_both(end);
}

static const struct unit_case cases[] = {
	{"frames_both_ways", frames_both_ways}, {"wrong_token", wrong_token},	  {"writes", writes},		  {"hidden_is_hidden", hidden_is_hidden},
	{"peer_comes_back", peer_comes_back},	{"mode_differs", mode_differs},	  {"bad_input", bad_input},	  {"nobody_there", nobody_there},
	{"memory_regions", memory_regions},	{"many_exposures", many_exposures},
	{"sleepy_receiver", sleepy_receiver},
};

int main(int argc, char **argv)
{
	struct end probe;

	setbuf(stdout, NULL);
	if (argc < 2 || (strcmp(argv[1], "rc") && strcmp(argv[1], "uc"))) {
		printf("usage: rdma_link rc|uc [OPTIONS]\n");
		return 2;
	}
	is_uc = !strcmp(argv[1], "uc");
	hosts[0] = getenv("TERN_RDMA_TO") ? getenv("TERN_RDMA_TO") : hosts[0];
	hosts[1] = getenv("TERN_RDMA_FROM") ? getenv("TERN_RDMA_FROM") : hosts[1];
	snprintf(options, sizeof(options), "mode=%s%s%s", argv[1], argc > 2 ? "&" : "", argc > 2 ? argv[2] : "");
	if (link_find("rdma", &ops, error, sizeof(error)) || open_link(&probe, 0, true, 0)) {
		printf("skip: %s\n", error);
		return 77;
	}
	ops->close(&probe.link);
	state = unit_seed() * 2654435761u + 1;
	int failed = unit_main(argv[1], cases, sizeof(cases) / sizeof(cases[0]));
	printf("fact the slowest path_close took %.1f ms\n", (double)slowest_close_ns / 1e6);
	return failed;
}
