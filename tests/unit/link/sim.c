/* The simulated network: what is sent arrives once, whole, when and where it should; runs repeat; a gigabyte costs little. */
#include "unit.h"
#include <string.h>
#include "link/sim/sim.h"
#include "tern/error.h"

#define MS 1000000ull
#define SEC 1000000000ull
#define N 64

static uint64_t seed;

struct end {
	struct link *link;
	struct link_path *path;
};

static struct end open_end(struct sim_net *net, uint32_t node, uint32_t to, uint32_t spread, const char *options)
{
	struct end end = {0};
	struct link_addr addr;
	char error[200] = "";
	struct link_config config = {.net = &addr, .options = options, .error = error, .error_bytes = sizeof(error)};
	struct link_path_config path = {.spread = spread};

	sim_net_addr(net, node, &addr);
	CU_ASSERT_EQUAL_FATAL(link_sim_ops.open(&config, &end.link), 0);
	sim_net_addr(net, to, &path.remote);
	CU_ASSERT_EQUAL_FATAL(link_sim_ops.path_open(end.link, &path, &end.path), 0);
	return end;
}

static void close_end(struct end *end)
{
	link_sim_ops.path_close(end->link, &end->path);
	link_sim_ops.close(&end->link);
	CU_ASSERT_PTR_NULL(end->link);
	CU_ASSERT_PTR_NULL(end->path);
}

static struct sim_net *open_net(uint32_t nodes, uint64_t s)
{
	struct sim_net *net = NULL;

	CU_ASSERT_EQUAL_FATAL(sim_net_open(nodes, s, &net), 0);
	return net;
}

/* A frame of three segments whose bytes say which one it is. */
struct message {
	struct frame frame;
	uint8_t body[2][9000];
};

static void fill(struct message *m, struct link_path *path, uint32_t id, uint32_t first, uint32_t second)
{
	m->frame = (struct frame){.path = path, .number = id, .segs = second ? 3 : 2, .wire_bytes = 16 + first + second};
	memset(m->frame.head, (int)(id * 11 + 1), 16);
	memcpy(m->frame.head, &id, sizeof(id));
	memset(m->body[0], (int)(id * 3 + 5), first);
	memset(m->body[1], (int)(id * 5 + 7), second);
	m->frame.seg[0] = (struct frame_seg){m->frame.head, 16, 0};
	m->frame.seg[1] = (struct frame_seg){m->body[0], first, 0};
	m->frame.seg[2] = (struct frame_seg){m->body[1], second, 0};
}

static bool same(const struct message *m, const struct rx_frame *rx)
{
	uint8_t whole[20000], *to = whole;

	if (rx->head_bytes + rx->body_bytes != m->frame.wire_bytes)
		return false;
	memcpy(whole, rx->head, rx->head_bytes);
	if (rx->body_bytes)
		memcpy(whole + rx->head_bytes, rx->body, rx->body_bytes);
	for (uint32_t i = 0; i < m->frame.segs; to += m->frame.seg[i++].bytes)
		if (memcmp(to, m->frame.seg[i].addr, m->frame.seg[i].bytes))
			return false;
	return true;
}

static void send(struct end *end, struct message *m, uint64_t now)
{
	struct frame *one = &m->frame, *back = NULL;

	CU_ASSERT_EQUAL(link_sim_ops.tx(end->link, &one, 1, now), 1);
	CU_ASSERT_EQUAL(link_sim_ops.reap(end->link, &back, 1, now), 1);
	CU_ASSERT_PTR_EQUAL(back, one);
}

static void test_carries(void)
{
	static struct message m[N];
	static const char *const options[] = {"mtu=20000", "mtu=20000&by_ref=1"};

	for (int by_ref = 0; by_ref < 2; by_ref++) {
		struct sim_net *net = open_net(2, seed);
		struct element_config wire = {.delay_ns = 5 * MS, .rate_bits_per_s = SEC};
		CU_ASSERT_EQUAL(sim_net_connect(net, 0, 1, &wire, &wire), 0);
		struct end a = open_end(net, 0, 1, 0, options[by_ref]), b = open_end(net, 1, 0, 0, NULL);
		uint64_t bits = 0;
		for (uint32_t i = 0; i < N; i++) {
			fill(&m[i], a.path, i, 1 + i * 137 % 9000, i % 2 ? 1 + i * 91 % 9000 : 0);
			send(&a, &m[i], 1000);
		}
		for (uint32_t i = 0; i < N; i++) {
			struct rx_frame rx;
			struct link_addr from;
			uint64_t next = sim_net_next_ns(net);
			bits += 8 * m[i].frame.wire_bytes;
			CU_ASSERT_EQUAL(next, 1000 + 5 * MS + bits);
			CU_ASSERT_EQUAL(link_sim_ops.rx(b.link, &rx, 1, next - 1), 0);
			CU_ASSERT_EQUAL_FATAL(link_sim_ops.rx(b.link, &rx, 1, next), 1);
			CU_ASSERT_EQUAL(rx.time_ns, next);
			CU_ASSERT_TRUE(same(&m[i], &rx));
			if (by_ref && m[i].frame.segs == 2 && m[i].frame.seg[1].bytes > 1000)
				CU_ASSERT_PTR_EQUAL(rx.body, m[i].body[0]);
			if (!by_ref || m[i].frame.segs == 3)
				CU_ASSERT_PTR_NULL(rx.body);
			CU_ASSERT_EQUAL(link_sim_ops.from(b.link, &rx, &from), 0);
			CU_ASSERT_TRUE(from.bytes == a.link->local.bytes && !memcmp(from.data, a.link->local.data, 4)); /* the node; the port is the path's */
			link_sim_ops.rx_free(b.link, &rx, 1);
		}
		CU_ASSERT_EQUAL(sim_net_next_ns(net), UINT64_MAX);
		CU_ASSERT_EQUAL(sim_net_in_flight(net), 0);
		close_end(&a);
		close_end(&b);
		sim_net_close(&net);
	}
}

/* Everything at once. @return a hash of what arrived, when, with which marks and which bytes */
static uint64_t storm(uint64_t s, uint64_t *arrived)
{
	static struct message m;
	struct sim_net *net = open_net(3, s);
	struct element_config wire = {.delay_ns = 2 * MS,
	                              .rate_bits_per_s = SEC,
	                              .queue_bytes = 100000,
	                              .ce_bytes = 50000,
	                              .loss = 0.01,
	                              .p_good_to_bad = 0.001,
	                              .p_bad_to_good = 0.1,
	                              .loss_bad = 0.9,
	                              .reorder = 0.02,
	                              .reorder_extra_ns = MS / 2,
	                              .duplicate = 0.01,
	                              .steps = 2,
	                              .step = {{20 * MS, 4 * MS}, {40 * MS, MS}},
	                              .outages = 1,
	                              .outage = {{60 * MS, MS}}};
	struct rng rng;
	uint64_t hash = 1, last = 0;

	sim_net_connect(net, 0, 1, &wire, &wire);
	sim_net_connect(net, 1, 2, &wire, &wire);
	struct end a = open_end(net, 0, 2, 0, NULL), b = open_end(net, 2, 0, 0, NULL);
	rng_init(&rng, 1);
	*arrived = 0;
	for (uint64_t now = 0; now < 100 * MS; now += 11000) {
		struct rx_frame rx[N];
		fill(&m, a.path, (uint32_t)now, 100 + (uint32_t)rng_below(&rng, 1300), 0);
		send(&a, &m, now);
		for (size_t n; (n = link_sim_ops.rx(b.link, rx, N, now)); link_sim_ops.rx_free(b.link, rx, n))
			for (size_t i = 0; i < n; i++) {
				uint64_t mix = hash ^ (rx[i].time_ns * 7 + rx[i].head_bytes + rx[i].head[0] * 1000003ull + rx[i].ecn);
				CU_ASSERT_FATAL(rx[i].time_ns >= last);
				last = rx[i].time_ns;
				hash = rng_mix(&mix);
				++*arrived;
			}
	}
	hash ^= sim_net_hash(net);
	close_end(&a);
	close_end(&b);
	sim_net_close(&net);
	return hash;
}

static void test_repeats(void)
{
	uint64_t n[3], one = storm(seed, &n[0]), two = storm(seed, &n[1]), other = storm(seed + 1, &n[2]);

	CU_ASSERT_EQUAL(one, two);
	CU_ASSERT_EQUAL(n[0], n[1]);
	CU_ASSERT_NOT_EQUAL(one, other);
	CU_ASSERT_TRUE(n[0] > 5000);
}

/* A delay that becomes shorter lets later frames overtake; a reordered one does not hold up others. */
static void test_overtaking(void)
{
	static struct message m[3];
	struct sim_net *net = open_net(2, seed);
	struct element_config wire = {.delay_ns = 10 * MS, .steps = 1, .step = {{5 * MS, 2 * MS}}};
	uint32_t id[3];

	sim_net_connect(net, 0, 1, &wire, &wire);
	struct end a = open_end(net, 0, 1, 0, NULL), b = open_end(net, 1, 0, 0, NULL);
	for (uint32_t i = 0; i < 3; i++)
		fill(&m[i], a.path, i, 100, 0);
	send(&a, &m[0], 0);
	send(&a, &m[1], 5 * MS);
	send(&a, &m[2], 6 * MS);
	for (uint32_t i = 0; i < 3; i++) {
		struct rx_frame rx;
		CU_ASSERT_EQUAL_FATAL(link_sim_ops.rx(b.link, &rx, 1, sim_net_next_ns(net)), 1);
		memcpy(&id[i], rx.head, sizeof(id[i]));
		link_sim_ops.rx_free(b.link, &rx, 1);
	}
	CU_ASSERT_TRUE(id[0] == 1 && id[1] == 2 && id[2] == 0);
	close_end(&a);
	close_end(&b);
	sim_net_close(&net);
}

/* Two wires in parallel, a router, a way round: spread picks the wire, the router forwards, the bottleneck's queue is shared. */
static void test_topology(void)
{
	static struct message m;
	struct sim_net *net = open_net(6, seed);
	struct element_config fast = {.delay_ns = MS}, slow = {.delay_ns = 3 * MS}, neck = {.delay_ns = MS, .rate_bits_per_s = SEC / 1000};
	struct element_counters c[2];

	sim_net_connect(net, 0, 1, &fast, &fast); /* 0 - 1 by two wires, 1 - 2 - 3 */
	sim_net_connect(net, 0, 1, &slow, &slow);
	sim_net_connect(net, 1, 2, &neck, &fast);
	sim_net_connect(net, 2, 3, &fast, &fast);
	struct end a = open_end(net, 0, 3, 0, NULL), b = open_end(net, 3, 0, 0, NULL), other = open_end(net, 1, 3, 0, NULL);
	struct link_path *second = NULL, *none = NULL;
	struct link_path_config config = {.spread = 1, .remote = b.link->local};
	CU_ASSERT_EQUAL(link_sim_ops.path_open(a.link, &config, &second), 0);
	sim_net_addr(net, 5, &config.remote);
	CU_ASSERT_EQUAL(link_sim_ops.path_open(a.link, &config, &none), -TERN_EADDR);
	fill(&m, a.path, 1, 100 - 16, 0);
	send(&a, &m, 0);
	m.frame.path = second;
	send(&a, &m, 0);
	fill(&m, other.path, 2, 100 - 16, 0);
	send(&other, &m, 0);
	/* 100 bytes take 0.8 ms at the neck: other's is first there, at 0, then a's by the fast wire at 1 ms, by the slow one at 3 ms */
	static const uint64_t due[] = {8 * MS / 10 + 2 * MS, MS + 8 * MS / 10 + 2 * MS, 3 * MS + 8 * MS / 10 + 2 * MS};
	for (int i = 0; i < 3; i++) {
		struct rx_frame rx = {0};
		sim_net_advance(net, due[i] - 1);
		CU_ASSERT_PTR_NULL(sim_net_ready(net));
		sim_net_advance(net, due[i]);
		CU_ASSERT_PTR_EQUAL(sim_net_ready(net), b.link);
		CU_ASSERT_EQUAL_FATAL(link_sim_ops.rx(b.link, &rx, 1, due[i]), 1);
		CU_ASSERT_EQUAL(rx.from, i ? 0 : 1);
		link_sim_ops.rx_free(b.link, &rx, 1);
	}
	sim_net_counters(net, 0, false, &c[0]);
	sim_net_counters(net, 1, false, &c[1]);
	CU_ASSERT_TRUE(c[0].frames == 1 && c[1].frames == 1);
	link_sim_ops.path_close(a.link, &second);
	close_end(&a);
	close_end(&b);
	close_end(&other);
	CU_ASSERT_EQUAL(sim_net_in_flight(net), 0);
	sim_net_close(&net);
}

static void test_refuses(void)
{
	struct sim_net *net = open_net(2, seed);
	struct link_addr addr;
	char error[200] = "";
	struct link *link = NULL;
	struct link_config config = {.error = error, .error_bytes = sizeof(error)};
	struct element_config good = {0}, bad = {.loss = 2};

	CU_ASSERT_EQUAL(link_sim_ops.open(&config, &link), -TERN_EADDR);
	CU_ASSERT_PTR_NOT_NULL(strstr(error, "sim_net_addr"));
	CU_ASSERT_EQUAL(sim_net_connect(net, 0, 0, &good, &good), -TERN_EINVAL);
	CU_ASSERT_EQUAL(sim_net_connect(net, 0, 2, &good, &good), -TERN_EINVAL);
	CU_ASSERT_EQUAL(sim_net_connect(net, 0, 1, &good, &bad), -TERN_EINVAL);
	CU_ASSERT_EQUAL(sim_net_connect(net, 0, 1, &good, &good), 0);
	struct end a = open_end(net, 0, 1, 0, NULL);
	sim_net_addr(net, 0, &addr);
	config.net = &addr;
	CU_ASSERT_EQUAL(link_sim_ops.open(&config, &link), -TERN_EADDR);
	static struct message m;
	fill(&m, a.path, 1, 1473 - 16, 0); /* larger than the path carries: taken, lost, counted */
	send(&a, &m, 0);
	CU_ASSERT_EQUAL(a.link->tx_dropped, 1);
	CU_ASSERT_EQUAL(sim_net_in_flight(net), 0);
	close_end(&a);
	sim_net_close(&net);
}

static bool lose_second(void *arg, uint32_t from, uint32_t to, const struct frame *frame)
{
	(void)from;
	(void)to;
	++*(int *)arg;
	return frame->number != 2;
}

/* Descriptors and lent frames are bounded: tx takes a prefix, rx stops lending, nothing is lost by that. */
static void test_bounds(void)
{
	static struct message m[SIM_TX_MAX + 10];
	static struct frame *list[SIM_TX_MAX + 10];
	static struct rx_frame rx[SIM_LENT_MAX + 10];
	struct sim_net *net = open_net(2, seed);
	struct element_config wire = {.delay_ns = 1};
	int seen = 0;

	sim_net_connect(net, 0, 1, &wire, &wire);
	struct end a = open_end(net, 0, 1, 0, NULL), b = open_end(net, 1, 0, 0, NULL);
	sim_net_filter(net, lose_second, &seen);
	for (uint32_t i = 0; i < SIM_TX_MAX + 10; i++) {
		fill(&m[i], a.path, i, 4, 0);
		list[i] = &m[i].frame;
	}
	CU_ASSERT_EQUAL(link_sim_ops.tx(a.link, list, SIM_TX_MAX + 10, 0), SIM_TX_MAX);
	CU_ASSERT_EQUAL(seen, SIM_TX_MAX);
	CU_ASSERT_EQUAL(link_sim_ops.tx(a.link, list + SIM_TX_MAX, 10, 0), 0);
	CU_ASSERT_EQUAL(link_sim_ops.reap(a.link, list, SIM_TX_MAX + 10, 0), SIM_TX_MAX);
	for (int k = 1; k < SIM_LENT_MAX / SIM_TX_MAX + 1; k++) {
		CU_ASSERT_EQUAL(link_sim_ops.tx(a.link, list, SIM_TX_MAX, 0), SIM_TX_MAX);
		CU_ASSERT_EQUAL(link_sim_ops.reap(a.link, list, SIM_TX_MAX, 0), SIM_TX_MAX);
	}
	CU_ASSERT_EQUAL(link_sim_ops.rx(b.link, rx, SIM_LENT_MAX + 10, 1), SIM_LENT_MAX);
	link_sim_ops.rx_free(b.link, rx, SIM_LENT_MAX);
	size_t rest = SIM_TX_MAX - SIM_LENT_MAX / SIM_TX_MAX - 1; /* each round lost number 2 */
	CU_ASSERT_EQUAL(link_sim_ops.rx(b.link, rx, SIM_LENT_MAX, 1), rest);
	close_end(&a);
	close_end(&b); /* with frames lent */
	sim_net_close(&net);
}

/* 1 GiB at 100 Gb/s over 10 ms in frames of 1500 bytes, an ack every 16: the simulator alone. */
static void flood(const char *options, uint64_t delay_ns, const char *name)
{
	enum { PAYLOAD = 1440, FRAMES = (1 << 30) / PAYLOAD };
	static struct message m[N];
	static struct frame *list[N], *back[N];
	static struct rx_frame rx[N];
	struct sim_net *net = open_net(2, seed);
	struct element_config wire = {.delay_ns = delay_ns, .rate_bits_per_s = 100 * SEC, .overhead_bytes = 66, .queue_bytes = 4 << 20, .loss = 1e-5};
	uint64_t now = 0, sent = 0, got = 0, acks = 0, owed = 0, peak = 0;

	sim_net_connect(net, 0, 1, &wire, &wire);
	struct end a = open_end(net, 0, 1, 0, options), b = open_end(net, 1, 0, 0, options);
	for (uint32_t i = 0; i < N; i++) {
		fill(&m[i], a.path, i, PAYLOAD, 0);
		list[i] = &m[i].frame;
	}
	static struct message ack;
	fill(&ack, b.path, 0, 48, 0);
	clock_t start = clock();
	while (sent < FRAMES || sim_net_next_ns(net) != UINT64_MAX) {
		now = sent < FRAMES ? now + N * (PAYLOAD + 16 + 66) * 8 / 100 : sim_net_next_ns(net) + 1000;
		if (sent < FRAMES)
			sent += link_sim_ops.tx(a.link, list, N, now);
		link_sim_ops.reap(a.link, back, N, now);
		for (size_t n; (n = link_sim_ops.rx(b.link, rx, N, now)); link_sim_ops.rx_free(b.link, rx, n))
			got += n, owed += n;
		for (; owed >= 16; owed -= 16)
			send(&b, &ack, now);
		for (size_t n; (n = link_sim_ops.rx(a.link, rx, N, now)); link_sim_ops.rx_free(a.link, rx, n))
			acks += n;
		peak = sim_net_memory_bytes(net) > peak ? sim_net_memory_bytes(net) : peak;
	}
	double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
	printf("\n    %s: %llu frames, %llu acks in %.3f s CPU, %.0f ns a frame, %.1f MB peak ", name, (unsigned long long)got,
	       (unsigned long long)acks, seconds, seconds * 1e9 / (double)(got + acks), (double)peak / 1e6);
	CU_ASSERT_TRUE(got > FRAMES - FRAMES / 1000 && acks > FRAMES / 17);
	CU_ASSERT_EQUAL(sim_net_in_flight(net), 0);
	if (options && delay_ns == 100 * MS)
		CU_ASSERT_TRUE(peak < 160 * 1000 * 1000); /* a tenth of the 1.25 GB in flight */
	close_end(&a);
	close_end(&b);
	sim_net_close(&net);
}

static void test_speed(void)
{
	flood(NULL, 10 * MS, "copy, 10 ms");
	flood("by_ref=1", 10 * MS, "by reference, 10 ms");
	flood("by_ref=1", 100 * MS, "by reference, 100 ms");
}

static const struct unit_case cases[] = {
	{"frames arrive whole, in order, on time, by copy and by reference", test_carries},
	{"one seed, one course; another seed, another", test_repeats},
	{"shorter delays overtake", test_overtaking},
	{"parallel wires, routers", test_topology},
	{"refusals say why", test_refuses},
	{"bounds", test_bounds},
	{"a gigabyte", test_speed},
};

int main(void)
{
	setbuf(stdout, NULL);
	seed = unit_seed();
	return unit_main("link/sim", cases, sizeof(cases) / sizeof(cases[0]));
}
