/* A device's clock told from readings: of any rate, drifting, read with delays; what is told of it stays near the truth, both ways, and a clock that is set is
 * measured anew. */
#include <inttypes.h>
#include "unit.h"
#include "rand.h"
#include "link/dpdk/ticks.h"

/* Near: 10 us of a reading, and 20 us of each span, of which TICKS_HOLD and a retry may pass. */
enum { ROUNDS = 300, READINGS = 40, LOOKS = 20, NEAR_NS = 150000, PPM_MOST = 100, DRIFT_PPB = 500 };
#define SECOND 1000000000ull

/* Truth: ticks = zero + (ns - start) * rate, with rate changed a little at each step. */
struct device {
	uint64_t ns;
	double ticks, tick_ns;
	uint64_t zero;
};

static void pass(struct device *d, uint64_t ns)
{
	d->ticks += (double)(ns - d->ns) / d->tick_ns;
	d->ns = ns;
}

static uint64_t shows(const struct device *d, uint64_t ns)
{
	return d->zero + (uint64_t)(int64_t)(d->ticks + ((double)ns - (double)d->ns) / d->tick_ns);
}

static struct device device_new(void)
{
	static const double hz[] = {1e7, 78125000, 1.25e8, 1e9, 1.6e9, 1e10};
	double ppm = (double)rand_below(2 * PPM_MOST + 1) - PPM_MOST;
	return (struct device){.ns = SECOND + rand_below(SECOND), .tick_ns = 1e9 / hz[rand_below(6)] * (1 + ppm / 1e6), .zero = rand_next()};
}

/* One reading, the answer from somewhere within. @return how long it took */
static uint64_t reading(struct device *d, struct ticks *t, uint64_t ns, uint64_t most_ns)
{
	uint64_t took = rand_below(most_ns), at = ns + rand_below(took + 1);
	pass(d, at);
	ticks_read(t, ns, shows(d, at), ns + took);
	return took;
}

static uint64_t apart(uint64_t a, uint64_t b)
{
	return (int64_t)(a - b) < 0 ? b - a : a - b;
}

static void follows(void)
{
	uint64_t worst = 0;
	rand_start(unit_seed());
	for (int round = 0; round < ROUNDS; round++) {
		struct device d = device_new();
		struct ticks t = {0};
		reading(&d, &t, d.ns, TICKS_READ_NS);
		CU_ASSERT_FALSE(ticks_known(&t));
		for (int i = 0; i < READINGS; i++) {
			uint64_t late = rand_below(1000000), last = t.ns, due = t.due_ns + late;
			reading(&d, &t, due, rand_below(4) ? TICKS_READ_NS : 50 * TICKS_READ_NS); /* some took too long */
			CU_ASSERT_TRUE(t.due_ns > due && t.due_ns <= due + 2 * SECOND);
			CU_ASSERT_TRUE(i || !ticks_known(&t) || t.ns > last);
			for (int k = 0; ticks_known(&t) && k < LOOKS; k++) {
				uint64_t ns = t.ns + rand_below(t.due_ns > t.ns ? t.due_ns - t.ns : 1), told = ticks_at(&t, ns);
				uint64_t off = (uint64_t)((double)apart(told, shows(&d, ns)) * d.tick_ns);
				worst = off > worst ? off : worst;
				CU_ASSERT_TRUE(apart(ticks_ns(&t, told), ns) <= (uint64_t)d.tick_ns + 2);
			}
			d.tick_ns *= 1 + ((double)rand_below(2 * DRIFT_PPB + 1) - DRIFT_PPB) / 1e9;
		}
		for (int i = 0; i < 2; i++) /* the last ones may all have taken too long: then it is known again after two that have not */
			reading(&d, &t, t.due_ns, TICKS_READ_NS);
		CU_ASSERT_TRUE(ticks_known(&t));
	}
	printf(" worst %" PRIu64 " ns ", worst);
	CU_ASSERT_TRUE(worst < NEAR_NS);
}

/* Before the last reading too: what came or is to leave may be older than it. */
static void backwards(void)
{
	struct ticks t = {0};
	ticks_read(&t, 5 * SECOND, 1000, 5 * SECOND);
	ticks_read(&t, 6 * SECOND, 1000 + 250000000, 6 * SECOND);
	CU_ASSERT_EQUAL(ticks_at(&t, 6 * SECOND - 400), 1000 + 250000000 - 100);
	CU_ASSERT_EQUAL(ticks_ns(&t, 1000 + 250000000 - 100), 6 * SECOND - 400);
	CU_ASSERT_EQUAL(ticks_at(&t, 6 * SECOND + 400), 1000 + 250000000 + 100);
}

/* A counter that wraps goes on; one that is set, or starts again, is not known until it is measured again. */
static void is_set(void)
{
	struct ticks t = {0};
	ticks_read(&t, SECOND, UINT64_MAX - 10, SECOND);
	ticks_read(&t, 2 * SECOND, UINT64_MAX - 10 + SECOND / 10, 2 * SECOND);
	CU_ASSERT_FALSE(ticks_known(&t)); /* looks like one that went back: one more second, and it is */
	ticks_read(&t, 3 * SECOND, UINT64_MAX - 10 + SECOND / 5, 3 * SECOND);
	CU_ASSERT_TRUE(ticks_known(&t));
	CU_ASSERT_EQUAL(ticks_at(&t, 3 * SECOND + 1000), UINT64_MAX - 10 + SECOND / 5 + 100);
	for (int sign = -1; sign <= 1; sign += 2) {
		uint64_t before = t.ticks, at = t.ns + SECOND, to = before + SECOND / 10 + (uint64_t)(sign * (int64_t)(SECOND / 100));
		ticks_read(&t, at, to, at);
		CU_ASSERT_FALSE(ticks_known(&t));
		CU_ASSERT_TRUE(t.due_ns <= at + TICKS_SPAN_NS);
		ticks_read(&t, at + SECOND / 10, to + SECOND / 100, at + SECOND / 10);
		CU_ASSERT_TRUE(ticks_known(&t));
		CU_ASSERT_EQUAL(ticks_at(&t, at), to);
	}
}

/* Steps that are small beside what lies between two readings are seen, too: two readings that far apart say the rate to some parts in ten thousand. */
static void is_set_a_little(void)
{
	for (int sign = -1; sign <= 1; sign += 2) {
		struct ticks t = {0};
		uint64_t at = SECOND, shown = SECOND;
		while (!ticks_known(&t) || t.due_ns - t.ns < TICKS_SPAN_MAX_NS) {
			ticks_read(&t, at, shown, at);
			shown += t.due_ns - at;
			at = t.due_ns;
		}
		ticks_read(&t, at, shown + (uint64_t)(sign * 100000), at); /* as quartzes drift: 100 us in a second */
		CU_ASSERT_TRUE(ticks_known(&t));
		at += SECOND;
		shown += SECOND + (uint64_t)(sign * 100000);
		ticks_read(&t, at, shown + (uint64_t)(sign * 2000000), at);
		CU_ASSERT_FALSE(ticks_known(&t));
	}
}

/* All readings take too long: no time is told from far behind the last good one, and the clock is asked ever more seldom; then it is quick again. */
static void is_slow(void)
{
	struct ticks t = {0};
	uint64_t at = SECOND, known = 0, tries = 0;
	while (t.due_ns - t.ns < TICKS_SPAN_MAX_NS || !ticks_known(&t)) {
		ticks_read(&t, at, at, at);
		at = t.due_ns;
	}
	for (uint64_t last = t.ns; at < last + 20 * SECOND; at = t.due_ns, tries++) {
		ticks_read(&t, at, at, at + 2 * TICKS_READ_NS);
		CU_ASSERT_TRUE_FATAL(t.due_ns > at);
		known = ticks_known(&t) ? at - last : known;
	}
	CU_ASSERT_TRUE(known >= SECOND && known <= 6 * SECOND);
	CU_ASSERT_TRUE(tries < 30);
	ticks_read(&t, at, at, at);
	CU_ASSERT_FALSE(ticks_known(&t));
	at = t.due_ns;
	ticks_read(&t, at, at, at);
	CU_ASSERT_TRUE(ticks_known(&t) && ticks_at(&t, at + 1000) == at + 1000 && t.due_ns <= at + 2 * TICKS_SPAN_NS);
}

static const struct unit_case cases[] = {{"follows a clock", follows}, {"tells the past", backwards}, {"sees that it was set", is_set},
	{"sees small steps", is_set_a_little}, {"gives up what it cannot read", is_slow}};
UNIT_MAIN("link_net_ticks", cases)
