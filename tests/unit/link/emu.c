/* The emulated link: over sim in virtual time, exactly; over udp in real time, at 1 Gb/s x 30 ms. */
#include "unit.h"
#include <poll.h>
#include <string.h>
#include "link/emu/emu.h"
#include "link/sim/sim.h"
#include "tern/error.h"

#define MS 1000000ull
#define SEC 1000000000ull

struct ends {
	struct sim_net *net;
	struct link *a, *b;
	struct link_path *path;
	struct frame frame[64];
	uint8_t bytes[64][1400];
};

static void open_ends(struct ends *e, const struct element_config *config)
{
	struct element_config wire = {0};
	struct link_addr addr[2];
	struct link *inner;

	memset(e, 0, sizeof(*e));
	CU_ASSERT_EQUAL_FATAL(sim_net_open(2, 1, &e->net), 0);
	CU_ASSERT_EQUAL_FATAL(sim_net_connect(e->net, 0, 1, &wire, &wire), 0);
	sim_net_addr(e->net, 0, &addr[0]);
	sim_net_addr(e->net, 1, &addr[1]);
	CU_ASSERT_EQUAL_FATAL(link_sim_ops.open(&(struct link_config){.net = &addr[0]}, &inner), 0);
	CU_ASSERT_EQUAL_FATAL(link_sim_ops.open(&(struct link_config){.net = &addr[1], .listening = true}, &e->b), 0);
	CU_ASSERT_EQUAL_FATAL(emu_wrap(inner, config, 0, &e->a), 0);
	CU_ASSERT_EQUAL_FATAL(e->a->ops->path_open(e->a, &(struct link_path_config){.remote = e->b->local}, &e->path), 0);
	for (int i = 0; i < 64; i++) {
		e->frame[i] =
		    (struct frame){.path = e->path, .segs = 2, .wire_bytes = 1250, .seg = {{e->bytes[i], 16, 0}, {e->bytes[i] + 16, 1234, 0}}};
		memset(e->bytes[i], i, sizeof(e->bytes[i]));
	}
}

static void close_ends(struct ends *e)
{
	e->a->ops->path_close(e->a, &e->path);
	e->a->ops->close(&e->a);
	e->b->ops->close(&e->b);
	sim_net_close(&e->net);
}

static void send(struct ends *e, int i, uint64_t now)
{
	struct frame *one = &e->frame[i], *back = NULL;

	CU_ASSERT_EQUAL(e->a->ops->tx(e->a, &one, 1, now), 1);
	CU_ASSERT_EQUAL(e->a->ops->reap(e->a, &back, 1, now), 1);
	CU_ASSERT_PTR_EQUAL(back, one);
}

/* Held frames leave when due, at most the batching time later and never before, and hold what was in them when they were taken. */
static void test_holds(void)
{
	static struct ends e;
	struct link_wait wait;
	uint64_t now = 0, got = 0;

	open_ends(&e, &(struct element_config){.delay_ns = 10 * MS, .rate_bits_per_s = SEC});
	for (int i = 0; i < 20; i++) {
		send(&e, i, 0); /* 10 us each on the line */
		memset(e.bytes[i], 0xee, sizeof(e.bytes[i]));
	}
	for (e.a->ops->wait(e.a, true, &wait); wait.deadline_ns != UINT64_MAX; e.a->ops->wait(e.a, true, &wait)) {
		struct rx_frame rx;
		struct frame *none;
		CU_ASSERT_FATAL(wait.deadline_ns >= now);
		now = wait.deadline_ns;
		e.a->ops->reap(e.a, &none, 1, now);
		for (; e.b->ops->rx(e.b, &rx, 1, now); e.b->ops->rx_free(e.b, &rx, 1)) {
			uint64_t due = 10 * MS + (got + 1) * 10000;
			CU_ASSERT_TRUE(now >= due && now <= due + EMU_BATCH_NS);
			CU_ASSERT_TRUE(rx.head_bytes == 1250 && rx.head[0] == got && rx.head[1249] == got);
			got++;
		}
	}
	struct emu_counters c;
	emu_counters(e.a, &c);
	CU_ASSERT_EQUAL(got, 20);
	CU_ASSERT_EQUAL(c.inner_frames, 20);
	CU_ASSERT_TRUE(c.inner_calls <= 5); /* 200 us of frames in batches of 50 us */
	CU_ASSERT_EQUAL(c.held_frames, 0);
	close_ends(&e);
}

/* The queue drops, not the memory; the loss of a path that closes does not touch others. */
static void test_bounds(void)
{
	static struct ends e;
	struct link_path *other = NULL;
	struct emu_counters c;

	open_ends(&e, &(struct element_config){.delay_ns = 10 * MS, .rate_bits_per_s = SEC, .queue_bytes = 125000, .ce_bytes = 60000});
	CU_ASSERT_EQUAL(e.a->ops->path_open(e.a, &(struct link_path_config){.remote = e.b->local}, &other), 0);
	e.frame[1].path = other;
	for (int i = 0; i < 1000; i++)
		send(&e, i & 1, 0);
	emu_counters(e.a, &c);
	CU_ASSERT_EQUAL(c.element.drops[ELEMENT_DROP_QUEUE], 900);
	CU_ASSERT_EQUAL(c.element.queue_peak_bytes, 125000);
	CU_ASSERT_EQUAL(c.memory_drops, 0);
	CU_ASSERT_EQUAL(c.ce_unmarked, 51);
	CU_ASSERT_EQUAL(c.held_frames, 100);
	e.a->ops->path_close(e.a, &other);
	emu_counters(e.a, &c);
	CU_ASSERT_EQUAL(c.held_frames, 50);
	struct frame *none;
	struct rx_frame rx[64];
	e.a->ops->reap(e.a, &none, 1, SEC);
	CU_ASSERT_EQUAL(e.b->ops->rx(e.b, rx, 64, SEC), 50);
	for (int i = 0; i < 50; i++)
		CU_ASSERT_EQUAL(rx[i].head[0], 0);
	close_ends(&e); /* with frames lent */
}

/* A rate of 1 kbit/s and much in flight: past the memory's bound frames are lost and counted. */
static void test_memory(void)
{
	static struct ends e;
	struct emu_counters c;

	open_ends(&e, &(struct element_config){.delay_ns = 10 * MS, .rate_bits_per_s = 1000});
	for (int i = 0; i < 10000; i++)
		send(&e, i & 63, 0);
	emu_counters(e.a, &c);
	CU_ASSERT_TRUE(c.memory_drops > 1000 && c.held_frames + c.memory_drops == 10000);
	CU_ASSERT_TRUE(c.held_bytes_max <= EMU_MEMORY_MIN_BYTES + 100000);
	close_ends(&e);
}

static void test_refuses(void)
{
	struct link reliable = {.caps = LINK_BYTES | LINK_CONNECTS}, *out;
	char error[300] = "";

	CU_ASSERT_EQUAL(emu_wrap(&reliable, &(struct element_config){0}, 0, &out), -TERN_EINVAL);
	struct link_config config = {.options = "link=udp&emu=/nonexistent/file", .error = error, .error_bytes = sizeof(error)};
	CU_ASSERT_EQUAL(link_emu_ops.open(&config, &out), -TERN_EIO);
	CU_ASSERT_PTR_NOT_NULL(strstr(error, "/nonexistent/file"));
	config.options = "link=udp&emu_direction=up";
	CU_ASSERT_EQUAL(link_emu_ops.open(&config, &out), -TERN_EADDR);
	config.options = "link=emu";
	CU_ASSERT_EQUAL(link_emu_ops.open(&config, &out), -TERN_EADDR);
	config.options = "link=nosuch";
	CU_ASSERT_EQUAL(link_emu_ops.open(&config, &out), -TERN_ESCHEME);
}

static uint64_t now_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * SEC + (uint64_t)t.tv_nsec;
}

struct udp_run {
	struct link *a, *b;
	struct link_path *path;
	uint64_t sent, got, late_ns, early, deadline;
};

static void udp_step(struct udp_run *r, uint64_t now)
{
	struct frame *back[64];
	struct rx_frame rx[64];
	size_t n;

	while (r->a->ops->reap(r->a, back, 64, now))
		;
	for (; (n = r->b->ops->rx(r->b, rx, 64, now)); r->b->ops->rx_free(r->b, rx, n))
		for (size_t i = 0; i < n; i++) {
			uint64_t sent_ns;
			memcpy(&sent_ns, rx[i].head, sizeof(sent_ns));
			r->early += now < sent_ns + 15 * MS;
			r->got++;
		}
}

/* One direction of 1 Gb/s, 15 ms, paced at 0.97 of it for 300 ms; both ends in this thread, which sleeps on wait. */
static void udp_run(uint32_t payload)
{
	enum { BURST = 8 };
	static struct frame frame[BURST];
	static uint8_t bytes[BURST][9000];
	struct udp_run r = {0};
	struct element_config config = {.delay_ns = 15 * MS, .rate_bits_per_s = SEC, .overhead_bytes = 66, .queue_bytes = 1 << 20};
	const struct link_ops *udp;
	char error[300];
	struct link *inner;
	struct frame *list[BURST];

	CU_ASSERT_EQUAL_FATAL(link_find("udp", &udp, error, sizeof(error)), 0);
	CU_ASSERT_EQUAL_FATAL(udp->open(&(struct link_config){.host = "127.0.0.1"}, &inner), 0);
	CU_ASSERT_EQUAL_FATAL(udp->open(&(struct link_config){.host = "127.0.0.1", .listening = true}, &r.b), 0);
	CU_ASSERT_EQUAL_FATAL(emu_wrap(inner, &config, now_ns(CLOCK_MONOTONIC), &r.a), 0);
	CU_ASSERT_EQUAL_FATAL(r.a->ops->path_open(r.a, &(struct link_path_config){.remote = r.b->local}, &r.path), 0);
	for (int i = 0; i < BURST; i++) {
		frame[i] =
		    (struct frame){.path = r.path, .segs = 2, .wire_bytes = payload, .seg = {{bytes[i], 32, 0}, {bytes[i] + 32, payload - 32, 0}}};
		list[i] = &frame[i];
	}
	uint64_t start = now_ns(CLOCK_MONOTONIC), cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID), gap = BURST * (payload + 66) * 8 * 100 / 97, next = start,
	         now = start;
	while (now < start + 400 * MS) {
		for (; next <= now && next < start + 300 * MS; next += gap) {
			for (int i = 0; i < BURST; i++)
				memcpy(bytes[i], &now, sizeof(now));
			r.sent += r.a->ops->tx(r.a, list, BURST, now);
			udp_step(&r, now);
		}
		struct link_wait wait;
		r.a->ops->wait(r.a, true, &wait);
		uint64_t until = wait.deadline_ns < next || next >= start + 300 * MS ? wait.deadline_ns : next;
		until = until < now + 5 * MS ? until : now + 5 * MS;
		if (until > now)
			ppoll(NULL, 0, &(struct timespec){.tv_nsec = (long)(until - now)}, NULL);
		now = now_ns(CLOCK_MONOTONIC);
		udp_step(&r, now);
	}
	struct emu_counters c;
	emu_counters(r.a, &c);
	double share = (double)(now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu) / (double)(now - start);
	printf("\n    %u B: %llu sent, %llu arrived, %llu dropped by the queue, %.1f frames a call, %.2f of a core (both ends) ", payload,
	       (unsigned long long)r.sent, (unsigned long long)r.got, (unsigned long long)c.element.drops[ELEMENT_DROP_QUEUE],
	       (double)c.inner_frames / (double)c.inner_calls, share);
	CU_ASSERT_EQUAL(r.early, 0);
	CU_ASSERT_EQUAL(c.inner_frames + c.element.drops[ELEMENT_DROP_QUEUE], r.sent);
	CU_ASSERT_TRUE(r.got <= c.inner_frames && r.got >= c.inner_frames * 9 / 10); /* a busy machine's socket buffer may overflow */
	CU_ASSERT_EQUAL(c.memory_drops, 0);
	CU_ASSERT_TRUE(r.sent > 300 * MS / gap * BURST / 2);
	r.a->ops->path_close(r.a, &r.path);
	r.a->ops->close(&r.a);
	r.b->ops->close(&r.b);
}

static void test_udp(void)
{
	udp_run(1434);
	udp_run(8934);
}

static const struct unit_case cases[] = {
	{"holds frames until their time", test_holds},
	{"queue bound, closing a path", test_bounds},
	{"memory bound", test_memory},
	{"refusals", test_refuses},
	{"over udp, in real time", test_udp},
};
UNIT_MAIN("link/emu", cases)
