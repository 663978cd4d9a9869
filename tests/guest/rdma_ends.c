/* See rdma_ends.h. */
#include "rdma_ends.h"
#include <poll.h>
#include <sys/mman.h>

const struct link_ops *ops;
const char *hosts[2] = {"10.9.0.2", "10.9.0.1"};
char link_options[128];
bool is_uc;
uint64_t random_state;
uint8_t tokens[2][LINK_TOKEN_BYTES] = {"the right token", "the wrong token"};
char words[512];
uint64_t slowest_close_ns;

uint64_t random64(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	return random_state ^= random_state << 17;
}

uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

char logged[256];

static void print_log(void *arg, int level, const char *file, int line, const char *text)
{
	(void)arg, (void)level, (void)file, (void)line;
	printf("    %s\n", text);
	snprintf(logged, sizeof(logged), "%s", text);
}

int open_link(struct end *e, int which, bool listening, uint16_t port)
{
	struct link_config config = {
	        .host = hosts[which], .port = port, .listening = listening, .options = link_options, .domain = 7, .now_ns = now(), .log = print_log};
	memset(e, 0, sizeof(*e));
	config.error = words;
	config.error_bytes = sizeof(words);
	return ops->open(&config, &e->link);
}

/* One step of a link: everything it has is taken. */
void step(struct end *e)
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
void doze(struct end end[2])
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

void free_in(struct end *e)
{
	ops->rx_free(e->link, e->in, e->n_in);
	e->n_in = 0;
}

int open_path(struct end *e, const struct link_addr *to, int token, bool is_acceptor)
{
	struct link_path_config config = {.token = tokens[token], .is_acceptor = is_acceptor};
	if (to)
		config.remote = *to;
	return ops->path_open(e->link, &config, &e->path);
}

void open_both(struct end end[2])
{
	CU_ASSERT_EQUAL_FATAL(open_link(&end[0], 0, true, 0), 0);
	CU_ASSERT_EQUAL_FATAL(open_link(&end[1], 1, false, 0), 0);
	CU_ASSERT_EQUAL(open_path(&end[0], NULL, 0, true), 0);
	CU_ASSERT_EQUAL(open_path(&end[1], &end[0].link->local, 0, false), 0);
	UNTIL(end, end[0].path->is_connected && end[1].path->is_connected);
	CU_ASSERT_FATAL(end[0].path->is_connected && end[1].path->is_connected);
}

void close_both(struct end end[2])
{
	for (int i = 0; i < 2; i++) {
		uint64_t begin = now();
		ops->path_close(end[i].link, &end[i].path);
		slowest_close_ns = now() - begin > slowest_close_ns ? now() - begin : slowest_close_ns;
		ops->close(&end[i].link);
	}
}

void bytes_frame(struct frame *f, struct link_path *path, uint8_t *memory, uint32_t bytes, uint32_t segs)
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

void send_all(struct end end[2], int from, struct frame *frames, size_t n)
{
	struct frame *list[BURST];
	size_t sent = 0;
	for (size_t i = 0; i < n; i++)
		list[i] = &frames[i];
	end[from].reaped = 0;
	UNTIL(end, (sent += ops->tx(end[from].link, list + sent, n - sent, now())) == n);
	UNTIL(end, end[from].reaped == n);
}

void pass(struct end end[2], int from, uint32_t lane)
{
	static uint8_t memory[BURST][8192];
	static struct frame frames[BURST];
	struct end *to = &end[!from];
	uint32_t most = lane ? 512 : end[from].path->max_frame_bytes;

	for (int i = 0; i < BURST; i++) {
		fill(memory[i], sizeof(memory[i]));
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

uint8_t *map(struct end *e, size_t bytes, uint32_t *key)
{
	uint8_t *m = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CU_ASSERT_FATAL(m != MAP_FAILED);
	CU_ASSERT_EQUAL(link_map(ops, e->link, m, bytes, key), 0);
	return m;
}

void write_frame(struct frame *f, struct end *from, const struct frame_target *target, uint64_t number, const struct frame_seg *seg)
{
	memset(f, 0, sizeof(*f));
	f->path = from->path;
	f->number = number;
	f->is_write = true;
	f->by_link = f->path->is_reliable;
	f->target = *target;
	f->lane = target->lane;
	f->segs = 2;
	f->seg[1] = *seg;
	f->payload_bytes = f->wire_bytes = seg->bytes;
}

struct link_exposed expose(struct end end[2], int at, uint8_t *m, uint64_t bytes, uint32_t key)
{
	struct link_expose what = {.addr = m, .bytes = bytes, .mem = key, .ref = random64()};
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

void hide(struct end end[2], int at, uint32_t id)
{
	end[at].n_exposed = 0;
	ops->hide(end[at].link, id);
	UNTIL(end, end[at].n_exposed == 1);
	CU_ASSERT_EQUAL(end[at].exposed[0].id, id);
	CU_ASSERT_EQUAL(end[at].exposed[0].state, LINK_HIDDEN);
}

void fill(uint8_t *m, size_t bytes)
{
	for (size_t i = 0; i + 8 <= bytes; i += 8) {
		uint64_t r = random64();
		memcpy(m + i, &r, 8);
	}
}

bool is_zero(const uint8_t *m, size_t bytes)
{
	return !*m && !memcmp(m, m + 1, bytes - 1);
}

/* Writes of `bytes` in all, from `source`; asserts that each is told at both ends and lies there. */
void write_run(struct end end[2], int from, struct link_exposed x, struct frame_seg source, uint64_t number)
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
