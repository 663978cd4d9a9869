/* Direct placement over the simulated network: what is lost, late or doubled is so exactly, what is reliable comes in order and on time, and what a device would refuse
 * breaks the connection. */
#include "unit.h"
#include <string.h>
#include "../../link/map.h"
#include "link/sim/sim.h"
#include "tern/error.h"

#define US 1000ull
#define MS 1000000ull

enum { SLOT = 64, SLOTS = 4000, BATCH = 50 };

static uint64_t seed;

struct pair {
	struct sim_net *net;
	struct link *link[2];
	struct link_path *path[2];
	uint8_t *source, *target; /* SLOTS * SLOT bytes */
	uint32_t source_mem, target_mem, id;
	struct frame_target to;
	uint64_t now;
	uint64_t placed[2 * SLOTS]; /* numbers in order */
	uint64_t placed_ns[2 * SLOTS];
	size_t placed_n, done_n, lost_n;
	uint64_t next_done; /* they come in order */
	uint64_t done_ns;
};

static uint8_t source_memory[SLOTS * SLOT], target_memory[SLOTS * SLOT];

static void look(struct pair *p)
{
	struct rx_frame rx[64];
	struct link_done done[64];
	struct frame *back[64];

	for (size_t n; (n = link_sim_ops.rx(p->link[1], rx, 64, p->now)); link_sim_ops.rx_free(p->link[1], rx, n))
		for (size_t i = 0; i < n; i++) {
			CU_ASSERT_FATAL(rx[i].is_placed && p->placed_n < 2 * SLOTS);
			p->placed_ns[p->placed_n] = rx[i].time_ns;
			p->placed[p->placed_n++] = rx[i].placed_number;
		}
	for (size_t n; (n = link_sim_ops.done(p->link[0], done, 64, p->now));)
		for (size_t i = 0; i < n; i++) {
			CU_ASSERT_EQUAL(done[i].first, p->next_done);
			p->next_done = done[i].first + done[i].frames;
			*(done[i].is_lost ? &p->lost_n : &p->done_n) += done[i].frames;
			p->done_ns = p->now;
		}
	while (link_sim_ops.reap(p->link[0], back, 64, p->now))
		;
}

static void run_until(struct pair *p, uint64_t until_ns)
{
	for (uint64_t next; (next = sim_net_next_ns(p->net)) <= until_ns;) {
		p->now = next;
		look(p);
	}
	p->now = until_ns;
	look(p);
}

static void expose(struct pair *p, uint64_t takes_ns)
{
	struct link_expose what = {.addr = p->target, .bytes = SLOTS * SLOT, .mem = p->target_mem, .ref = 77};
	struct link_exposed event = {0};

	CU_ASSERT_EQUAL_FATAL(link_sim_ops.expose(p->link[1], p->path[1], &what, &p->id), 0);
	run_until(p, p->now + takes_ns - 1);
	CU_ASSERT_EQUAL(link_sim_ops.exposed(p->link[1], &event, 1, p->now), 0);
	run_until(p, p->now + 1);
	CU_ASSERT_EQUAL_FATAL(link_sim_ops.exposed(p->link[1], &event, 1, p->now), 1);
	CU_ASSERT(event.ref == 77 && event.state == LINK_EXPOSED && event.id == p->id);
	p->to = event.target;
}

static void open_pair(struct pair *p, const struct element_config *wire, const char *options)
{
	static const uint8_t token[LINK_TOKEN_BYTES] = "sixteen letters";
	struct link_addr addr;
	char error[200] = "";

	*p = (struct pair){.source = source_memory, .target = target_memory};
	CU_ASSERT_EQUAL_FATAL(sim_net_open(2, seed, &p->net), 0);
	CU_ASSERT_EQUAL_FATAL(sim_net_connect(p->net, 0, 1, wire, wire), 0);
	for (uint32_t i = 0; i < 2; i++) {
		struct link_config config = {.net = &addr, .options = options, .error = error, .error_bytes = sizeof(error)};
		sim_net_addr(p->net, i, &addr);
		CU_ASSERT_EQUAL_FATAL(link_sim_ops.open(&config, &p->link[i]), 0);
	}
	for (uint32_t i = 0; i < 2; i++) {
		struct link_path_config path = {.token = token, .is_acceptor = i == 1};
		sim_net_addr(p->net, !i, &path.remote);
		CU_ASSERT_EQUAL_FATAL(link_sim_ops.path_open(p->link[i], &path, &p->path[i]), 0);
	}
	for (size_t i = 0; i < sizeof(source_memory); i++)
		source_memory[i] = (uint8_t)(i * 7 + i / SLOT);
	memset(target_memory, 0, sizeof(target_memory));
	link_map(&link_sim_ops, p->link[0], p->source, SLOTS * SLOT, &p->source_mem);
	link_map(&link_sim_ops, p->link[1], p->target, SLOTS * SLOT, &p->target_mem);
	run_until(p, 2 * wire->delay_ns - 1);
	CU_ASSERT(!p->path[0]->is_connected && !p->path[1]->is_connected);
	run_until(p, 2 * wire->delay_ns);
	CU_ASSERT_FATAL(p->path[0]->is_connected && p->path[1]->is_connected);
	expose(p, strstr(options, "expose_ns=10000000") ? 10 * MS : US);
}

static void close_pair(struct pair *p)
{
	run_until(p, p->now + 1000 * MS);
	CU_ASSERT_EQUAL(sim_net_in_flight(p->net), 0);
	for (int i = 0; i < 2; i++) {
		link_sim_ops.path_close(p->link[i], &p->path[i]);
		link_sim_ops.close(&p->link[i]);
	}
	sim_net_close(&p->net);
}

/* Slot i of the source to slot i of the target. */
static struct frame write_of(const struct pair *p, uint32_t i)
{
	struct frame f = {.path = p->path[0], .number = i, .is_write = true, .lane = p->to.lane, .target = p->to, .segs = 1};

	f.by_link = f.path->is_reliable;
	f.wire_bytes = f.payload_bytes = SLOT;
	f.target.addr += (uint64_t)i * SLOT;
	f.seg[0] = (struct frame_seg){p->source + (size_t)i * SLOT, SLOT, p->source_mem};
	return f;
}

static bool put(struct pair *p, struct frame *f)
{
	return link_sim_ops.tx(p->link[0], &f, 1, p->now) == 1;
}

/* All slots, in batches 1 us apart. */
static void put_all(struct pair *p)
{
	for (uint32_t i = 0; i < SLOTS; i++) {
		struct frame f = write_of(p, i);
		CU_ASSERT_FATAL(put(p, &f));
		if (i % BATCH == BATCH - 1)
			run_until(p, p->now + US);
	}
}

static const struct element_config bad_wire = {.delay_ns = 5 * MS,
                                               .rate_bits_per_s = 10000000000,
                                               .overhead_bytes = 66,
                                               .loss = 0.1,
                                               .reorder = 0.2,
                                               .reorder_extra_ns = 37 * US,
                                               .duplicate = 0.05};

static uint64_t unreliable_once(void)
{
	static uint16_t times[SLOTS];
	struct element_counters c;
	struct pair p;
	size_t landed = 0, disorder = 0;

	open_pair(&p, &bad_wire, "mtu=9000&writes=uc");
	CU_ASSERT_EQUAL(p.link[0]->caps & (LINK_WRITES | LINK_CONNECTS | LINK_PLAIN), LINK_WRITES | LINK_CONNECTS | LINK_PLAIN);
	CU_ASSERT(!p.path[0]->is_reliable);
	CU_ASSERT_EQUAL(p.path[0]->max_write_bytes, 4096);
	memset(times, 0, sizeof(times));
	put_all(&p);
	run_until(&p, p.now + 100 * MS);
	sim_net_counters(p.net, 0, false, &c);
	CU_ASSERT_EQUAL(c.frames, SLOTS);
	CU_ASSERT(c.drops[ELEMENT_DROP_LOSS] > SLOTS / 20 && c.duplicates > SLOTS / 50 && c.reordered > SLOTS / 10);
	CU_ASSERT_EQUAL(p.placed_n, c.passed_frames + c.duplicates);
	for (size_t i = 0; i < p.placed_n; i++) {
		landed += !times[p.placed[i]]++;
		disorder += i && p.placed[i] < p.placed[i - 1];
	}
	CU_ASSERT(disorder > SLOTS / 50);
	CU_ASSERT_EQUAL(landed, c.passed_frames);
	for (size_t i = 0; i < SLOTS; i++) {
		static const uint8_t nothing[SLOT];
		CU_ASSERT(!memcmp(p.target + i * SLOT, times[i] ? p.source + i * SLOT : nothing, SLOT));
	}
	CU_ASSERT_EQUAL(p.done_n + p.lost_n, 0);
	uint64_t hash = sim_net_hash(p.net);
	close_pair(&p);
	return hash;
}

static void test_unreliable(void)
{
	uint64_t first = unreliable_once();

	CU_ASSERT_EQUAL(unreliable_once(), first);
	seed++;
	CU_ASSERT_NOT_EQUAL(unreliable_once(), first);
	seed--;
}

/* A late duplicate, or a late write, after hide: hits nothing. */
static void test_late(void)
{
	struct element_config wire = {.delay_ns = MS, .duplicate = 1, .reorder = 1, .reorder_extra_ns = 100 * US};
	struct link_exposed event;
	struct pair p;

	open_pair(&p, &wire, "writes=uc");
	struct frame f = write_of(&p, 0);
	CU_ASSERT(put(&p, &f));
	run_until(&p, p.now + MS + 50 * US);
	CU_ASSERT_EQUAL(p.placed_n, 1);
	link_sim_ops.hide(p.link[1], p.id);
	run_until(&p, p.now + US); /* the event is there, and nobody has fetched it yet */
	memset(p.target, 0, SLOT);
	uint64_t dropped = p.link[1]->rx_dropped;
	run_until(&p, p.now + 10 * MS);
	CU_ASSERT_EQUAL(p.placed_n, 1);
	CU_ASSERT_EQUAL(p.link[1]->rx_dropped, dropped + 1);
	CU_ASSERT_EQUAL(p.target[1], 0);
	CU_ASSERT_EQUAL(link_sim_ops.exposed(p.link[1], &event, 1, p.now), 1);
	CU_ASSERT_EQUAL(event.state, LINK_HIDDEN);
	close_pair(&p);
}

/* The same wire, an outage, a delay that falls: everything lands, in order, and done follows in order. */
static void test_reliable(void)
{
	struct element_config wire = bad_wire;
	struct element_counters c;
	struct pair p;

	wire.queue_bytes = 3000;
	wire.outages = 1;
	wire.outage[0] = (struct element_outage){10 * MS + 20 * US, 6 * MS};
	wire.steps = 1;
	wire.step[0] = (struct element_step){10 * MS + 10 * US, MS}; /* those sent from then on would overtake */
	open_pair(&p, &wire, "mtu=9000&writes=rc");
	CU_ASSERT(p.path[0]->is_reliable);
	CU_ASSERT_EQUAL(p.path[0]->max_write_bytes, 1 << 20);
	put_all(&p);
	run_until(&p, p.now + 100 * MS);
	CU_ASSERT_EQUAL(p.placed_n, SLOTS);
	CU_ASSERT_EQUAL(p.done_n, SLOTS);
	CU_ASSERT_EQUAL(p.lost_n, 0);
	for (size_t i = 0; i < SLOTS; i++)
		CU_ASSERT_EQUAL(p.placed[i], i);
	CU_ASSERT(!memcmp(p.target, p.source, SLOTS * SLOT));
	size_t i = 0;
	while (i < SLOTS && p.placed_ns[i] < 15 * MS + 10 * US)
		i++;
	CU_ASSERT(i > 10);
	while (i < SLOTS && p.placed_ns[i] < 15 * MS + 11 * US)
		i++;
	CU_ASSERT(i < SLOTS && p.placed_ns[i] == wire.outage[0].start_ns + wire.outage[0].length_ns + MS);
	sim_net_counters(p.net, 0, false, &c);
	CU_ASSERT_EQUAL(c.passed_frames, SLOTS);
	close_pair(&p);
}

/* Placed after the delay, done after the round trip, the payload read when it lands. */
static void test_times(void)
{
	struct element_config wire = {.delay_ns = 5 * MS};
	struct pair p;

	open_pair(&p, &wire, "writes=rc");
	uint64_t start = p.now;
	struct frame f = write_of(&p, 0);
	CU_ASSERT(put(&p, &f));
	struct frame *back;
	CU_ASSERT_EQUAL(link_sim_ops.reap(p.link[0], &back, 1, p.now), 1);
	run_until(&p, start + 5 * MS - 1);
	CU_ASSERT(p.placed_n == 0 && p.target[3] == 0);
	p.source[3] = 0xee; /* not done: still in use, and so it is seen */
	run_until(&p, start + 5 * MS);
	CU_ASSERT(p.placed_n == 1 && p.target[3] == 0xee);
	run_until(&p, start + 10 * MS - 1);
	CU_ASSERT_EQUAL(p.done_n, 0);
	run_until(&p, start + 10 * MS);
	CU_ASSERT_EQUAL(p.done_n, 1);
	close_pair(&p);
	open_pair(&p, &wire, "writes=uc");
	f = write_of(&p, 0);
	uint8_t old = p.source[3];
	CU_ASSERT(put(&p, &f));
	CU_ASSERT_EQUAL(link_sim_ops.reap(p.link[0], &back, 1, p.now), 1);
	p.source[3] = (uint8_t)~old; /* reaped: the sender's again */
	run_until(&p, p.now + 5 * MS);
	CU_ASSERT_EQUAL(p.target[3], old);
	close_pair(&p);
}

/* A megabyte takes its time on the line, with each packet's overhead. */
static void test_rate(void)
{
	static uint8_t large[2][1 << 20];
	struct element_config wire = {.delay_ns = MS, .rate_bits_per_s = 8000000000, .overhead_bytes = 66, .queue_bytes = 1 << 20};
	struct link_exposed event;
	struct pair p;
	uint32_t from, to, id;

	open_pair(&p, &wire, "mtu=1528&writes=rc");
	link_map(&link_sim_ops, p.link[0], large[0], sizeof(large[0]), &from);
	link_map(&link_sim_ops, p.link[1], large[1], sizeof(large[1]), &to);
	struct link_expose what = {.addr = large[1], .bytes = sizeof(large[1]), .mem = to};
	CU_ASSERT_EQUAL(link_sim_ops.expose(p.link[1], p.path[1], &what, &id), 0);
	run_until(&p, p.now + US);
	CU_ASSERT_EQUAL_FATAL(link_sim_ops.exposed(p.link[1], &event, 1, p.now), 1);
	memset(large[0], 0x3c, sizeof(large[0]));
	struct frame f = write_of(&p, 0);
	f.target = event.target;
	f.payload_bytes = f.wire_bytes = 1 << 20;
	f.seg[0] = (struct frame_seg){large[0], 1 << 20, from};
	uint64_t start = p.now;
	for (; f.number < 4; f.number++) /* more than the queue holds: it waits */
		CU_ASSERT(put(&p, &f));
	run_until(&p, p.now + 100 * MS);
	CU_ASSERT_EQUAL(p.placed_n, 4);
	CU_ASSERT_EQUAL(p.done_n, 4);
	for (uint64_t i = 0; i < 4; i++) /* a byte a nanosecond */
		CU_ASSERT_EQUAL(p.placed_ns[i], start + MS + (i + 1) * ((1 << 20) + ((1 << 20) / 1500 + 1) * 66));
	CU_ASSERT(!memcmp(large[0], large[1], sizeof(large[0])));
	close_pair(&p);
}

static void test_refused(void)
{
	struct element_config wire = {.delay_ns = MS};
	struct pair p;

	for (int reliable = 0; reliable < 2; reliable++)
		for (int wrong = 0; wrong < 6; wrong++) {
			open_pair(&p, &wire, reliable ? "writes=rc&write_bytes=4096" : "writes=uc&write_bytes=4096");
			struct frame good = write_of(&p, 0), f = write_of(&p, 1), after = write_of(&p, 2);
			switch (wrong) {
			case 0: f.seg[0].mem ^= 1 << 25; break;
			case 1: f.seg[0].addr = p.source + sizeof(source_memory) - SLOT + 1; break;
			case 2: f.seg[0].bytes = f.payload_bytes = f.wire_bytes = 4097; break;
			case 3: f.lane = 0; break;
			case 4: f.lane = 2; break;
			case 5: f.payload_bytes--; break;
			}
			CU_ASSERT(put(&p, &good) && put(&p, &f));
			CU_ASSERT(!p.path[0]->is_connected && strstr(p.link[0]->trouble, "frame 1 with a target"));
			CU_ASSERT(!put(&p, &after));
			run_until(&p, p.now + 2 * MS);
			CU_ASSERT(p.path[0]->is_connected && p.path[1]->is_connected && p.path[0]->connection == 2);
			CU_ASSERT_EQUAL(p.lost_n, reliable ? 2 : 0);
			CU_ASSERT_EQUAL(p.placed_n, 0);
			run_until(&p, p.now + 20 * MS);
			CU_ASSERT(p.placed_n == 0 && p.done_n == 0);
			close_pair(&p);
		}
}

/* Memory given back while it is in use: as on a device, the connection pays. */
static void test_unmapped_early(void)
{
	struct element_config wire = {.delay_ns = MS};
	struct pair p;

	for (int target = 0; target < 2; target++) {
		open_pair(&p, &wire, "writes=rc");
		struct frame f = write_of(&p, 0);
		CU_ASSERT(put(&p, &f));
		link_sim_ops.mem_unmap(p.link[target], target ? p.target_mem : p.source_mem);
		run_until(&p, p.now + 10 * MS);
		CU_ASSERT(p.lost_n == 1 && p.done_n == 0 && p.placed_n == 0 && p.target[3] == 0);
		CU_ASSERT_EQUAL(p.path[1]->connection, 2);
		close_pair(&p);
	}
}

/* A target is for one connection, one lane. */
static void test_wrong_target(void)
{
	struct element_config wire = {.delay_ns = MS};
	struct pair p;

	open_pair(&p, &wire, "writes=uc&lanes=2");
	for (uint32_t i = 0; i < 4; i++) {
		struct frame f = write_of(&p, i);
		f.target.connection ^= i == 1;
		f.target.lane ^= i == 2 ? 3 : 0;
		f.lane ^= i == 3 ? 3 : 0;
		CU_ASSERT(put(&p, &f));
	}
	run_until(&p, p.now + 10 * MS);
	CU_ASSERT(p.placed_n == 1 && p.placed[0] == 0);
	CU_ASSERT_EQUAL(p.link[1]->rx_dropped, 3);
	CU_ASSERT(!memcmp(p.target, p.source, SLOT) && p.target[SLOT + 1] == 0);
	close_pair(&p);
}

/* Datagrams of a connection that broke are gone, even those that an outage holds until the next one stands. */
static void test_datagrams_break(void)
{
	struct element_config wire = {.delay_ns = MS, .outages = 1, .outage = {{3 * MS, 20 * MS}}};
	struct pair p;

	for (int reliable = 0; reliable < 2; reliable++)
		for (int held = 0; held < 2; held++) {
			struct rx_frame rx;
			uint8_t text[100] = "hello";
			open_pair(&p, &wire, reliable ? "writes=rc" : "writes=uc");
			struct frame f = {.path = p.path[0], .segs = 1, .wire_bytes = sizeof(text), .seg = {{text, sizeof(text), 0}}};
			if (held)
				run_until(&p, 4 * MS);
			CU_ASSERT(put(&p, &f));
			sim_net_break(p.net, 0, 1);
			run_until(&p, p.now + 2 * MS);
			CU_ASSERT(p.path[0]->is_connected && p.path[1]->is_connected);
			p.now += 40 * MS;
			size_t n = link_sim_ops.rx(p.link[1], &rx, 1, p.now);
			CU_ASSERT_EQUAL(n, 0);
			link_sim_ops.rx_free(p.link[1], &rx, n);
			close_pair(&p);
		}
}

/* The timer of an exposure that broke must not act on the next one with its id. */
static void test_slow_exposing(void)
{
	struct element_config wire = {.delay_ns = MS};
	struct link_exposed event;
	struct pair p;
	uint32_t id;

	open_pair(&p, &wire, "writes=rc&expose_ns=10000000");
	struct link_expose what = {.addr = p.target, .bytes = SLOT, .mem = p.target_mem};
	uint64_t start = p.now;
	uint32_t first = p.id;
	sim_net_break(p.net, 0, 1);
	CU_ASSERT_EQUAL(link_sim_ops.exposed(p.link[1], &event, 1, p.now), 1);
	run_until(&p, start + 2 * MS);
	CU_ASSERT_EQUAL_FATAL(link_sim_ops.expose(p.link[1], p.path[1], &what, &id), 0);
	CU_ASSERT_EQUAL(id, first);
	run_until(&p, start + 3 * MS);
	sim_net_break(p.net, 0, 1);
	CU_ASSERT_EQUAL(link_sim_ops.exposed(p.link[1], &event, 1, p.now), 1);
	CU_ASSERT_EQUAL(event.state, LINK_BROKEN);
	run_until(&p, start + 5 * MS);
	CU_ASSERT_EQUAL_FATAL(link_sim_ops.expose(p.link[1], p.path[1], &what, &id), 0);
	CU_ASSERT_EQUAL(id, first);
	run_until(&p, start + 15 * MS - 1); /* at 12 ms the second would have been exposed */
	CU_ASSERT_EQUAL(link_sim_ops.exposed(p.link[1], &event, 1, p.now), 0);
	run_until(&p, start + 15 * MS);
	CU_ASSERT_EQUAL(link_sim_ops.exposed(p.link[1], &event, 1, p.now), 1);
	CU_ASSERT_EQUAL(event.state, LINK_EXPOSED);
	close_pair(&p);
}

static void reopen(struct pair *p, int i)
{
	static const uint8_t token[LINK_TOKEN_BYTES] = "sixteen letters";
	struct link_path_config path = {.token = token, .is_acceptor = i == 1};

	sim_net_addr(p->net, (uint32_t)!i, &path.remote);
	CU_ASSERT_EQUAL_FATAL(link_sim_ops.path_open(p->link[i], &path, &p->path[i]), 0);
}

/* Paths closed while they connect, stand, expose or write leave nothing behind, and the other end takes the next one that has the token. */
static void test_closed_midway(void)
{
	struct element_config wire = {.delay_ns = MS};
	struct pair p;
	uint32_t id;

	for (int i = 0; i < 2; i++) {
		open_pair(&p, &wire, i ? "writes=uc" : "writes=rc");
		struct link_expose what = {.addr = p.target, .bytes = SLOT, .mem = p.target_mem};
		for (uint32_t round = 0; round < 5; round++) {
			uint32_t before = p.path[!i]->connection;
			CU_ASSERT_EQUAL(link_sim_ops.expose(p.link[1], p.path[1], &what, &id), 0);
			link_sim_ops.path_close(p.link[i], &p.path[i]);
			CU_ASSERT(p.path[!i]->is_connected); /* does not know yet */
			if (round % 2)
				reopen(&p, i);
			run_until(&p, p.now + MS);
			CU_ASSERT(!p.path[!i]->is_connected);
			for (uint32_t k = 0; k < round; k++) {
				if (!p.path[i])
					reopen(&p, i);
				run_until(&p, p.now + MS);
				link_sim_ops.path_close(p.link[i], &p.path[i]);
			}
			if (!p.path[i])
				reopen(&p, i);
			run_until(&p, p.now + 2 * MS - 1);
			CU_ASSERT(!p.path[0]->is_connected && !p.path[1]->is_connected);
			run_until(&p, p.now + 1);
			CU_ASSERT(p.path[0]->is_connected && p.path[1]->is_connected);
			CU_ASSERT(p.path[0]->connection == before + 1 && p.path[1]->connection == before + 1);
		}
		CU_ASSERT_EQUAL(link_sim_ops.expose(p.link[1], p.path[1], &what, &id), 0);
		CU_ASSERT_EQUAL(sim_net_in_flight(p.net), 1);
		link_sim_ops.path_close(p.link[1], &p.path[1]);
		link_sim_ops.path_close(p.link[0], &p.path[0]);
		CU_ASSERT_EQUAL(sim_net_in_flight(p.net), 0);
		reopen(&p, 0);
		reopen(&p, 1);
		CU_ASSERT_EQUAL(sim_net_in_flight(p.net), 1);
		link_sim_ops.path_close(p.link[i], &p.path[i]);
		CU_ASSERT_EQUAL(sim_net_in_flight(p.net), 0);
		close_pair(&p);
	}
}

static bool not_number_3(void *arg, uint32_t from, uint32_t to, const struct frame *frame)
{
	(void)arg, (void)from, (void)to;
	return !frame->is_write || frame->number != 3;
}

static void test_filter(void)
{
	struct element_config wire = {.delay_ns = MS};
	struct frame f[6], *list[6];
	struct pair p;

	for (int reliable = 0; reliable < 2; reliable++) {
		open_pair(&p, &wire, reliable ? "writes=rc" : "writes=uc");
		sim_net_filter(p.net, not_number_3, NULL);
		for (uint32_t i = 0; i < 6; i++) {
			f[i] = write_of(&p, i);
			list[i] = &f[i];
		}
		CU_ASSERT_EQUAL(link_sim_ops.tx(p.link[0], list, 6, p.now), reliable ? 4 : 6);
		CU_ASSERT_EQUAL(p.path[0]->is_connected, !reliable);
		run_until(&p, p.now + 10 * MS);
		CU_ASSERT_EQUAL(p.placed_n, reliable ? 0 : 5);
		CU_ASSERT_EQUAL(p.lost_n, reliable ? 4 : 0);
		close_pair(&p);
	}
}

/* At any moment of a stream: what was told done has landed, nothing lands after lost, the next connection works. */
static void test_breaks(void)
{
	struct element_config wire = {.delay_ns = MS, .rate_bits_per_s = 1000000000, .overhead_bytes = 66};
	struct link_exposed event;
	struct pair p;

	for (uint32_t round = 0; round < 40; round++) {
		open_pair(&p, &wire, "writes=rc");
		for (uint32_t i = 0; i < SLOTS; i++) {
			struct frame f = write_of(&p, i);
			CU_ASSERT_FATAL(put(&p, &f));
			if (i % 1000 == 999)
				look(&p);
		}
		run_until(&p, p.now + round * 200 * US);
		CU_ASSERT_EQUAL(sim_net_break(p.net, round & 1, !(round & 1)), 1);
		look(&p);
		CU_ASSERT_EQUAL(p.done_n + p.lost_n, SLOTS);
		CU_ASSERT(p.placed_n >= p.done_n && !memcmp(p.target, p.source, p.done_n * SLOT));
		CU_ASSERT_EQUAL(link_sim_ops.exposed(p.link[1], &event, 1, p.now), 1);
		CU_ASSERT_EQUAL(event.state, LINK_BROKEN);
		link_sim_ops.hide(p.link[1], p.id); /* too late: nothing more comes of it */
		size_t placed = p.placed_n;
		memset(p.target, 0, SLOTS * SLOT);
		run_until(&p, p.now + 2 * MS);
		CU_ASSERT(p.path[0]->is_connected && p.path[0]->connection == 2 && p.path[1]->connection == 2);
		run_until(&p, p.now + 20 * MS);
		CU_ASSERT_EQUAL(p.placed_n, placed);
		for (size_t i = 0; i < SLOTS * SLOT; i++)
			CU_ASSERT_FATAL(p.target[i] == 0);
		CU_ASSERT_EQUAL(link_sim_ops.exposed(p.link[1], &event, 1, p.now), 0);
		expose(&p, US);
		CU_ASSERT_EQUAL(p.to.connection, 2);
		struct frame f = write_of(&p, 5);
		f.number = p.next_done;
		CU_ASSERT(put(&p, &f));
		run_until(&p, p.now + 10 * MS);
		CU_ASSERT_EQUAL(p.placed_n, placed + 1);
		close_pair(&p);
	}
}

static void test_options(void)
{
	static const char *const bad[] = {"writes=ud", "writes=", "writes=rcx", "writes=uc&write_bytes=100000",
	                                  "writes=rc&lanes=0", "writes=uc&lanes=17"};
	struct sim_net *net;
	struct link_addr addr;
	char error[200];
	struct link *link;

	CU_ASSERT_EQUAL_FATAL(sim_net_open(1, seed, &net), 0);
	sim_net_addr(net, 0, &addr);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct link_config config = {.net = &addr, .options = bad[i], .error = error, .error_bytes = sizeof(error)};
		error[0] = 0;
		CU_ASSERT_EQUAL(link_sim_ops.open(&config, &link), -TERN_EADDR);
		CU_ASSERT(strlen(error) > 10);
	}
	sim_net_close(&net);
}

static const struct unit_case cases[] = {
	{"unreliable writes are lost, late and doubled like datagrams", test_unreliable},
	{"what comes after hide hits nothing", test_late},
	{"reliable writes all come, in order", test_reliable},
	{"when they land and when they are done", test_times},
	{"a megabyte's time on the line", test_rate},
	{"what a device refuses", test_refused},
	{"memory given back too early", test_unmapped_early},
	{"a target for another connection or lane", test_wrong_target},
	{"datagrams of a broken connection", test_datagrams_break},
	{"a slow device that exposes", test_slow_exposing},
	{"paths closed midway", test_closed_midway},
	{"a filter loses exactly one, or the connection", test_filter},
	{"breaks at any moment", test_breaks},
	{"options in words", test_options},
};

int main(void)
{
	setbuf(stdout, NULL);
	seed = unit_seed();
	return unit_main("link/sim_write", cases, sizeof(cases) / sizeof(cases[0]));
}
