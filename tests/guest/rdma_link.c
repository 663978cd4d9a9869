/* The rdma link alone, two of them in one process on two devices: set-up with tokens, frames, writes, exposures, broken connections, bad input.
 * rdma_link rc|uc [OPTIONS]. The two devices' addresses are in TERN_RDMA_FROM and TERN_RDMA_TO. Exit status 77: this machine has no device there. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <unistd.h>
#include "rdma_ends.h"

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

/* Pieces that nobody has mapped and that are not one range: they arrive, by a copy that is counted. */
static void scattered_writes(void)
{
	enum { PIECES = 4, BYTES = 16384 };
	static struct frame f;
	struct end end[2];
	uint32_t key;

	open_both(end);
	uint8_t *to = map(&end[0], MEMORY, &key), *source = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CU_ASSERT_FATAL(source != MAP_FAILED);
	uint32_t bytes = end[1].path->max_write_bytes / PIECES < BYTES ? end[1].path->max_write_bytes / PIECES : BYTES;
	fill(source, PIECES * 2 * BYTES);
	for (int i = 0; i < PIECES; i++)
		CU_ASSERT_EQUAL(munmap(source + (2 * i + 1) * BYTES, BYTES), 0);
	struct link_exposed x = expose(end, 0, to, MEMORY, key);
	struct frame_seg seg = {.addr = source, .bytes = bytes};
	write_frame(&f, &end[1], &x.target, 1, &seg);
	f.segs = 1 + PIECES;
	f.payload_bytes = f.wire_bytes = PIECES * bytes;
	for (int i = 0; i < PIECES; i++)
		f.seg[1 + i] = (struct frame_seg){.addr = source + 2 * i * BYTES, .bytes = bytes};
	uint64_t copied = end[1].link->copied_bytes;
	send_all(end, 1, &f, 1);
	UNTIL(end, end[0].n_in == 1 && (is_uc || end[1].arrived == 1));
	CU_ASSERT_EQUAL(end[1].link->copied_bytes - copied, PIECES * bytes);
	for (int i = 0; i < PIECES; i++)
		CU_ASSERT_EQUAL(memcmp(to + (uint32_t)i * bytes, source + 2 * i * BYTES, bytes), 0);
	CU_ASSERT_EQUAL(end[1].path->connection, 1);
	close_both(end);
	munmap(to, MEMORY);
	munmap(source, MEMORY);
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
	CU_ASSERT(is_zero(to, 65536));
	pass(end, 0, 0);
	pass(end, 1, 1);
	struct link_exposed fresh = expose(end, 0, to, 65536, key[1]);
	write_run(end, 1, fresh, (struct frame_seg){.addr = source, .bytes = 40000, .mem = key[0]}, 3);
	close_both(end);
	munmap(source, MEMORY);
	munmap(to, MEMORY);
}

/* Writes with keys of another connection: told as lost though only byte frames, which nobody waits for, went before them; in order with other writes. */
static void stale_writes(void)
{
	enum { N = 8 };
	static struct frame frames[N];
	static uint8_t memory[100];
	struct end end[2];
	uint32_t key[2];

	open_both(end);
	uint8_t *source = map(&end[1], MEMORY, &key[0]), *to = map(&end[0], MEMORY, &key[1]);
	fill(source, MEMORY);
	struct link_exposed x = expose(end, 0, to, MEMORY, key[1]);
	struct frame_target stale = x.target;
	struct frame_seg seg = {.addr = source, .bytes = end[1].path->max_write_bytes, .mem = key[0]};
	stale.connection++;
	for (int round = 0; round < 3; round++) { /* behind a byte frame of the same batch, of one before, behind a write that arrives */
		end[1].n_done = end[1].arrived = end[1].lost = 0;
		for (uint64_t i = 1; i < N; i++)
			write_frame(&frames[i], &end[1], &stale, 100 + i, &seg);
		if (round < 2)
			bytes_frame(&frames[0], end[1].path, memory, sizeof(memory), 1);
		else
			write_frame(&frames[0], &end[1], &x.target, 100, &seg);
		frames[0].lane = x.target.lane;
		send_all(end, 1, frames, round == 1 ? 1 : N);
		if (round == 1)
			send_all(end, 1, frames + 1, N - 1);
		UNTIL(end, end[0].n_in == 1 && (is_uc || (end[1].lost == N - 1 && end[1].arrived == (size_t)(round == 2))));
		CU_ASSERT(is_uc || round < 2 || (end[1].done[0].first == 100 && !end[1].done[0].is_lost));
		free_in(&end[0]);
	}
	CU_ASSERT_EQUAL(end[1].path->connection, 1);
	write_run(end, 1, x, seg, 1000);
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
	CU_ASSERT(is_zero(to, MEMORY));
	free_in(&end[0]);
	pass(end, 1, 0);
	x = expose(end, 0, to, MEMORY, key[1]);
	write_run(end, 1, x, (struct frame_seg){.addr = source, .bytes = end[1].path->max_write_bytes}, 100);
	close_both(end);
	munmap(source, MEMORY);
	munmap(mine, MEMORY);
	munmap(to, MEMORY);
}

/* One end alone for a while, so that the other one finds the end of a connection and the begin of the next in one step. */
static void step_alone(struct end *e)
{
	for (uint64_t until = now() + 100000000; now() < until;)
		step(e);
}

/* The peer comes back with other lanes, so with other queues, before what was under way has been told: it is told all the same. */
static void peer_changes_lanes(void)
{
	struct end end[2];
	static struct frame frames[BURST];
	struct frame *list[BURST];
	char keep[sizeof(link_options)];
	uint32_t key;

	open_both(end);
	uint8_t *source = map(&end[0], MEMORY, &key), *to = map(&end[1], MEMORY, &key);
	struct link_exposed x = expose(end, 1, to, MEMORY, key);
	for (uint64_t i = 0; i < BURST; i++) {
		struct frame_seg seg = {.addr = source, .bytes = 1000};
		write_frame(&frames[i], &end[0], &x.target, i, &seg);
		list[i] = &frames[i];
	}
	size_t sent = ops->tx(end[0].link, list, BURST, now());
	CU_ASSERT(sent > 0);
	ops->close(&end[1].link);
	memcpy(keep, link_options, sizeof(keep));
	snprintf(link_options, sizeof(link_options), "mode=%s&lanes=3", is_uc ? "uc" : "rc");
	CU_ASSERT_EQUAL_FATAL(open_link(&end[1], 1, false, 0), 0);
	memcpy(link_options, keep, sizeof(keep));
	CU_ASSERT_EQUAL(open_path(&end[1], &end[0].link->local, 0, false), 0);
	step_alone(&end[1]);
	UNTIL(end, end[0].reaped == sent && (is_uc || end[0].arrived + end[0].lost == sent));
	UNTIL(end, end[0].path->is_connected && end[1].path->is_connected && end[0].path->lanes == 3);
	pass(end, 0, 3);
	pass(end, 1, 3);
	close_both(end);
	munmap(source, MEMORY);
	munmap(to, MEMORY);
}

/* More writes than one look takes have arrived and count as arrived at the peer, which then connects anew: all of them are handed out. */
static void all_handed_out(void)
{
	enum { N = 4000 };
	static struct frame frames[N];
	struct end end[2];
	uint32_t key[2];
	size_t sent = 0, got = 0;

	if (is_uc) /* where nothing counts as arrived */
		return;
	open_both(end);
	uint8_t *source = map(&end[1], MEMORY, &key[0]), *to = map(&end[0], MEMORY, &key[1]);
	struct link_exposed x = expose(end, 0, to, MEMORY, key[1]);
	struct frame_seg seg = {.addr = source, .bytes = 8, .mem = key[0]};
	for (uint64_t i = 0; i < N; i++)
		write_frame(&frames[i], &end[1], &x.target, i, &seg);
	for (uint64_t until = now() + PATIENCE_MS * 1000000ull; end[1].arrived < N && now() < until; end[1].n_done = 0) {
		struct frame *f = &frames[sent];
		sent += sent < N ? ops->tx(end[1].link, &f, 1, now()) : 0;
		step(&end[1]);
	}
	CU_ASSERT_EQUAL(end[1].arrived, N);
	ops->path_close(end[1].link, &end[1].path);
	CU_ASSERT_EQUAL(open_path(&end[1], &end[0].link->local, 0, false), 0);
	step_alone(&end[1]);
	for (uint64_t until = now() + PATIENCE_MS * 1000000ull; got < N && now() < until; doze(end)) {
		step(&end[0]);
		step(&end[1]);
		for (size_t i = 0; i < end[0].n_in; i++)
			CU_ASSERT_FATAL(end[0].in[i].is_placed && end[0].in[i].placed_number == got + i);
		got += end[0].n_in;
		free_in(&end[0]);
	}
	CU_ASSERT_EQUAL(got, N);
	close_both(end);
	munmap(source, MEMORY);
	munmap(to, MEMORY);
}

static void mode_differs(void)
{
	struct end end[2];
	char keep[sizeof(link_options)];

	CU_ASSERT_EQUAL_FATAL(open_link(&end[0], 0, true, 0), 0);
	memcpy(keep, link_options, sizeof(keep));
	snprintf(link_options, sizeof(link_options), "mode=%s", is_uc ? "rc" : "uc");
	CU_ASSERT_EQUAL_FATAL(open_link(&end[1], 1, false, 0), 0);
	memcpy(link_options, keep, sizeof(keep));
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
	char keep[sizeof(link_options)];
	static const char *const wrong[] = {"mode=ud", "lanes=0", "lanes=99", "sq=x", "timeout=40", "odp=2", "isolation=none"};

	memcpy(keep, link_options, sizeof(keep));
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		snprintf(link_options, sizeof(link_options), "%s", wrong[i]);
		CU_ASSERT_EQUAL(open_link(&end[0], 0, true, 0), -TERN_EINVAL);
		CU_ASSERT_PTR_NOT_NULL(strstr(words, wrong[i]));
	}
	static const char *const unknown[] = {"colour=red", "colour=red&lanes=1", "lanes=1&colour=red", "odp=0&colour"};
	for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
		snprintf(link_options, sizeof(link_options), "%s", unknown[i]);
		CU_ASSERT_EQUAL(open_link(&end[0], 0, true, 0), -TERN_EINVAL);
		CU_ASSERT_PTR_NOT_NULL(strstr(words, "option colour: unknown"));
		CU_ASSERT_PTR_NOT_NULL(strstr(words, "isolation"));
	}
	snprintf(link_options, sizeof(link_options), "dev=nonesuch7");
	const char *host = hosts[0];
	hosts[0] = "";
	CU_ASSERT_EQUAL(open_link(&end[0], 0, true, 0), -TERN_EADDR);
	CU_ASSERT_PTR_NOT_NULL(strstr(words, "nonesuch7"));
	memcpy(link_options, keep, sizeof(keep));
	hosts[0] = "192.0.2.77";
	CU_ASSERT_EQUAL(open_link(&end[0], 0, true, 0), -TERN_EADDR);
	CU_ASSERT_PTR_NOT_NULL(strstr(words, "192.0.2.77"));
	hosts[0] = host;
	CU_ASSERT_EQUAL_FATAL(open_link(&end[0], 0, true, 0), 0);
	struct sockaddr_in a;
	memcpy(&a, end[0].link->local.data, sizeof(a));
	CU_ASSERT_EQUAL(open_link(&second, 0, true, ntohs(a.sin_port)), -TERN_EADDR);
	CU_ASSERT_PTR_NOT_NULL(strstr(words, "in use"));
	struct link_addr nowhere = {.bytes = 3};
	CU_ASSERT_EQUAL(open_path(&end[0], &nowhere, 0, false), -TERN_EADDR);
	CU_ASSERT_PTR_NULL(end[0].path);
	uint32_t key;
	CU_ASSERT_EQUAL(ops->path_open(end[0].link, &(struct link_path_config){.token = tokens[0], .is_acceptor = true}, &end[0].path), 0);
	CU_ASSERT_EQUAL(
	        ops->expose(end[0].link, end[0].path, &(struct link_expose){.addr = tokens[0], .bytes = 16}, &key), -TERN_EAGAIN);
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
	struct mem_what inside = mem_what_host(m + 4096, 8192, false);
	CU_ASSERT_EQUAL(ops->mem_map(end[0].link, &inside, &key[1], words, sizeof(words)), 0);
	CU_ASSERT_EQUAL(key[1], key[0]); /* an operation inside it needs nothing new */
	inside.lasts = true;
	CU_ASSERT_EQUAL(ops->mem_map(end[0].link, &inside, &key[2], words, sizeof(words)), 0);
	CU_ASSERT_NOT_EQUAL(key[2], key[0]); /* what is registered may outlive what is around it */
	ops->mem_unmap(end[0].link, key[2]);
	CU_ASSERT_EQUAL(link_map(ops, end[1].link, m, MEMORY, &key[2]), 0);
	CU_ASSERT_EQUAL(key[2], key[0]); /* of the domain, not of the link */
	ops->mem_unmap(end[0].link, key[0]);
	ops->mem_unmap(end[1].link, key[2]);
	x = expose(end, 0, m, 4096, key[1]);
	hide(end, 0, x.id);
	ops->mem_unmap(end[0].link, key[1]);
	struct link_expose what = {.addr = m, .bytes = 4096};
	CU_ASSERT_EQUAL(ops->expose(end[0].link, end[0].path, &what, &key[1]), -TERN_EINVAL);
	CU_ASSERT_EQUAL(mprotect(m, MEMORY, PROT_READ), 0);
	CU_ASSERT_EQUAL(link_map(ops, end[0].link, m, MEMORY, &what.mem), 0); /* to be sent from only */
	CU_ASSERT_EQUAL(ops->expose(end[0].link, end[0].path, &what, &key[1]), -TERN_EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(end[0].link->trouble, "read-only"));
	uint8_t *to = map(&end[1], MEMORY, &key[1]);
	x = expose(end, 1, to, MEMORY, key[1]);
	write_run(end, 0, x, (struct frame_seg){.addr = m, .bytes = end[0].path->max_write_bytes, .mem = what.mem}, 1);
	CU_ASSERT_EQUAL(end[0].path->connection, 1);
	ops->mem_unmap(end[0].link, what.mem);
	munmap(to, MEMORY);
	munmap(m, MEMORY);
	CU_ASSERT_EQUAL(link_map(ops, end[0].link, m, MEMORY, &key[0]), -TERN_ENOMEM);
	CU_ASSERT_PTR_NOT_NULL(strstr(end[0].link->trouble, "cannot be registered"));
	close_both(end);
}

/* What was exposed to one peer is out of another's reach, although both have a connection to the same link and it knows the key. */
static void another_peer(void)
{
	static struct frame f;
	struct end end[2], other[2] = {{0}, {0}};
	uint32_t key[3];

	open_both(end);
	other[0].link = end[0].link;
	CU_ASSERT_EQUAL_FATAL(open_link(&other[1], 1, false, 0), 0);
	CU_ASSERT_EQUAL(open_path(&other[0], NULL, 1, true), 0);
	CU_ASSERT_EQUAL(open_path(&other[1], &end[0].link->local, 1, false), 0);
	UNTIL(other, other[0].path->is_connected && other[1].path->is_connected);
	uint8_t *to = map(&end[0], MEMORY, &key[0]), *mine = map(&end[1], MEMORY, &key[1]), *theirs = map(&other[1], MEMORY, &key[2]);
	fill(mine, MEMORY);
	fill(theirs, MEMORY);
	struct link_exposed x = expose(end, 0, to, 65536, key[0]);
	struct frame_seg seg = {.addr = theirs, .bytes = 1000, .mem = key[2]};
	CU_ASSERT_EQUAL(x.target.connection, (uint8_t)other[1].path->connection); /* nothing but the window stands in the way */
	write_frame(&f, &other[1], &x.target, 1, &seg);
	send_all(other, 1, &f, 1);
	if (!is_uc) {
		UNTIL(other, other[1].lost == 1);
	}
	UNTIL(other, other[0].path->is_connected && other[1].path->is_connected && (is_uc || other[1].path->connection == 2));
	CU_ASSERT(is_zero(to, 65536));
	free_in(&other[0]);
	/* the peer that it is for has noticed nothing */
	CU_ASSERT_EQUAL(end[1].path->connection, 1);
	end[0].n_in = 0;
	uint32_t most = end[1].path->max_write_bytes < 40000 ? end[1].path->max_write_bytes : 40000;
	write_run(end, 1, x, (struct frame_seg){.addr = mine, .bytes = most, .mem = key[1]}, 2);
	ops->path_close(other[1].link, &other[1].path);
	ops->close(&other[1].link);
	ops->path_close(other[0].link, &other[0].path);
	close_both(end);
	munmap(to, MEMORY);
	munmap(mine, MEMORY);
	munmap(theirs, MEMORY);
}

/* Soft RDMA takes no dma-buf: refused in words, whatever the descriptor is. */
static void dmabuf_refused(void)
{
	struct end end[2];
	uint32_t key = 1;
	char why[320] = "";

	open_both(end);
	struct mem_what what = mem_what_host(tokens, 4096, true);
	what.dmabuf_fd = memfd_create("none", MFD_CLOEXEC);
	CU_ASSERT_FATAL(what.dmabuf_fd >= 0);
	CU_ASSERT_EQUAL(ops->mem_map(end[0].link, &what, &key, why, sizeof(why)), -TERN_EIO);
	CU_ASSERT(strstr(why, "takes no dma-buf") || strstr(why, "cannot be registered"));
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "copied by the processor"));
	printf("    %s\n", why);
	close(what.dmabuf_fd);
	pass(end, 0, 0);
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
		struct link_expose what = {.addr = m + i * STEP, .bytes = STEP, .mem = key, .ref = (uint64_t)i};
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
	CU_ASSERT(sent > 64); /* more than a receive queue holds, where it is a small one */
	uint64_t patience_ns = is_uc ? 500000000 : PATIENCE_MS * 1000000ull;
	for (uint64_t until = now() + patience_ns; got < sent && (is_uc || end[1].path->connection == 1) && now() < until; doze(end)) {
		step(&end[0]);
		step(&end[1]);
		got += end[0].n_in;
		free_in(&end[0]);
	}
	printf("    %zu sent, %zu received, connection %u\n", sent, got, end[1].path->connection);
	UNTIL(end, end[0].path->is_connected && end[1].path->is_connected);
	CU_ASSERT(is_uc || got == sent || end[1].path->connection > 1);
	do { /* what was still on its way */
		free_in(&end[0]);
		step(&end[0]);
	} while (end[0].n_in);
	for (int i = 0; i < 4; i++)
		pass(end, i & 1, 0);
	close_both(end);
}

static const struct unit_case cases[] = {
        {"frames_both_ways", frames_both_ways},
        {"wrong_token", wrong_token},
        {"writes", writes},
        {"hidden_is_hidden", hidden_is_hidden},
        {"scattered_writes", scattered_writes},
        {"stale_writes", stale_writes},
        {"peer_comes_back", peer_comes_back},
        {"peer_changes_lanes", peer_changes_lanes},
        {"all_handed_out", all_handed_out},
        {"mode_differs", mode_differs},
        {"bad_input", bad_input},
        {"nobody_there", nobody_there},
        {"memory_regions", memory_regions},
        {"another_peer", another_peer},
        {"dmabuf_refused", dmabuf_refused},
        {"many_exposures", many_exposures},
        {"sleepy_receiver", sleepy_receiver},
        {"rogue_hellos", rogue_hellos},
};

int main(int argc, char **argv)
{
	struct end probe;
	struct unit_case all[32];
	enum { N = sizeof(cases) / sizeof(cases[0]) };

	setbuf(stdout, NULL);
	if (argc < 2 || (strcmp(argv[1], "rc") && strcmp(argv[1], "uc"))) {
		printf("usage: rdma_link rc|uc [OPTIONS]\n");
		return 2;
	}
	is_uc = !strcmp(argv[1], "uc");
	hosts[0] = getenv("TERN_RDMA_TO") ? getenv("TERN_RDMA_TO") : hosts[0];
	hosts[1] = getenv("TERN_RDMA_FROM") ? getenv("TERN_RDMA_FROM") : hosts[1];
	snprintf(link_options, sizeof(link_options), "mode=%s%s%s", argv[1], argc > 2 ? "&" : "", argc > 2 ? argv[2] : "");
	if (link_find("rdma", &ops, words, sizeof(words))) {
		printf("skip: %s\n", words);
		return 77;
	}
	if (getenv("TERN_RDMA_SERVE"))
		return fault_serve((uint16_t)atoi(getenv("TERN_RDMA_SERVE")));
	if (getenv("TERN_RDMA_LIMITED"))
		return fault_limited();
	if (open_link(&probe, 0, true, 0)) {
		printf("skip: %s\n", words);
		return 77;
	}
	ops->close(&probe.link);
	random_state = unit_seed() * 2654435761u + 1;
	memcpy(all, cases, sizeof(cases));
	memcpy(all + N, fault_cases, fault_n_cases * sizeof(all[0]));
	int failed = unit_main(argv[1], all, N + fault_n_cases);
	printf("fact rdma %s: the slowest path_close took %.1f ms\n", argv[1], (double)slowest_close_ns / 1e6);
	return failed;
}
