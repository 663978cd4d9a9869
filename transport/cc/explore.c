/* The rate of a path without a contract; see explore.h. A local path (RTT below a millisecond) is bounded by its hosts and not by a queue worth protecting: there pace
 * stays well above the rate and only the window binds, or one late wake-up would be lost for good. */
#include "cc/explore.h"

#define SECOND 1000000000ull

enum {
	FIRST_WINDOW_FRAMES = 32,
	FIRST_WINDOW_BYTES = 65536,
	FIRST_RTT_NS = 1000000,        /* the first window leaves over this much; the path's own queue takes the rest */
	LOCAL_RTT_NS = 1000000,
	HOLD_MIN_NS = 50000,           /* an acknowledgement each 16 frames, but not closer and not further apart than these (DESIGN 5.10) */
	HOLD_MAX_NS = 500000,
	HOLD_FRAMES = 16,
	HOSTS_NS = 100000,             /* what the loops at both ends may be late */
	STALLS = 3,                    /* rounds without a quarter's growth that end START */
	CYCLE = 8,
	LOSS_FRAMES_MIN = 8,           /* fewer say nothing of a queue */
	LEAST_FRAMES = 16,             /* window, and what is paced in an RTT */
};
#define LOSS_FLOOR_INV 50              /* loss below 1/50 of a round is no sign of anything */

static uint64_t scaled(uint64_t rate, uint64_t ns)
{
	return (uint64_t)((unsigned __int128)rate * ns / SECOND);
}

static uint64_t most(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

void explore_init(struct explore *x, const struct tern_cc_init *ev, struct tern_cc_out *out)
{
	x->frame_bytes = ev->frame_bytes;
	x->window_bytes = most((uint64_t)FIRST_WINDOW_FRAMES * ev->frame_bytes, FIRST_WINDOW_BYTES);
	x->flight_cap = UINT64_MAX;
	x->phase = EXPLORE_START;
	out->window_bytes = x->window_bytes;
	out->pace_bytes_per_s = x->window_bytes * (SECOND / FIRST_RTT_NS);
	out->probe_ns = 0;
	out->state = "UNKNOWN";
}

/* The best of the last rounds; a round in which the sender had nothing to send may raise it but does not count. */
static void rate_note(struct explore *x, const struct tern_cc_ack *ev)
{
	uint64_t sample = ev->delivery_bytes_per_s;

	if (sample == TERN_CC_NONE)
		return;
	x->round_sampled = true;
	if (!ev->app_limited || sample > x->best)
		x->rate[x->rounds % EXPLORE_ROUNDS] = most(x->rate[x->rounds % EXPLORE_ROUNDS], sample);
	x->best = most(x->best, sample);
}

static void round_rates(struct explore *x, bool limited)
{
	if (limited && x->phase != EXPLORE_START)
		return; /* keep what the busy rounds have shown */
	uint64_t *oldest = &x->rate[++x->rounds % EXPLORE_ROUNDS], gone = *oldest;
	*oldest = 0;
	if (gone < x->best || !gone)
		return; /* best, the largest of them all, is another's */
	x->best = 0;
	for (uint32_t i = 0; i < EXPLORE_ROUNDS; i++)
		x->best = most(x->best, x->rate[i]);
}

/* Loss above the floor lowers the bound on flight to a little below what arrived in a round; quiet rounds raise it by an eighth. */
static void round_loss(struct explore *x, uint64_t in_flight)
{
	bool heavy = x->best && x->round_lost >= LOSS_FRAMES_MIN * x->frame_bytes &&
		x->round_lost * LOSS_FLOOR_INV > x->round_delivered + x->round_lost;

	if (heavy) {
		uint64_t base = x->round_delivered < in_flight ? most(x->round_delivered, in_flight / 2) : in_flight;

		x->flight_cap = most(base - base / 8, (uint64_t)LEAST_FRAMES * x->frame_bytes);
		if (x->phase == EXPLORE_START)
			x->phase = EXPLORE_DRAIN;
	} else if (x->flight_cap < UINT64_MAX / 2) { /* from there on it bounds nothing, and must not begin again at 0 */
		x->flight_cap += most(x->flight_cap / 8, x->frame_bytes);
	}
}

static void round_start(struct explore *x, bool limited)
{
	if (limited)
		return;
	if (x->best >= x->full_rate + x->full_rate / 4) {
		x->full_rate = x->best;
		x->stalled = 0;
	} else if (++x->stalled >= STALLS) {
		x->phase = EXPLORE_DRAIN;
	}
}

/* A round above that brought an eighth more is followed by another: capacity that appears is found in a few rounds. */
static void round_cruise(struct explore *x)
{
	x->cycle = (x->cycle + 1) % CYCLE;
	if (x->cycle == 2 && x->best > x->full_rate + x->full_rate / 8)
		x->cycle = 0;
	if (x->cycle == 0)
		x->full_rate = x->best;
}

/* What the rate says of a round waits for one in which it was measured: an RTT of microseconds is shorter than a measurement, and ten rounds of silence would
 * forget the best rate. */
static void round_over(struct explore *x, const struct tern_cc_ack *ev)
{
	if (x->round_sampled) {
		if (x->phase == EXPLORE_START && x->best)
			round_start(x, ev->app_limited);
		else if (x->phase == EXPLORE_CRUISE)
			round_cruise(x);
		round_rates(x, ev->app_limited);
	}
	round_loss(x, ev->flow.in_flight_bytes + ev->acked_bytes);
	x->round_lost = x->round_delivered = 0;
	x->round_end_bytes = ev->flow.delivered_bytes;
	x->round_sampled = false;
}

/* In quarters of the best rate: one round above, one below to drain what that left, six level. */
static uint64_t cruise_pace(const struct explore *x, uint64_t rtt_ns)
{
	if (rtt_ns < LOCAL_RTT_NS)
		return 2 * x->best;
	return x->cycle == 0 ? x->best + x->best / 4 : x->cycle == 1 ? x->best - x->best / 4 : x->best;
}

/* What arrives while the receiver holds an acknowledgement back. */
static uint64_t held_bytes(const struct explore *x)
{
	uint64_t bytes = (uint64_t)HOLD_FRAMES * x->frame_bytes;

	bytes = most(bytes, scaled(x->best, HOLD_MIN_NS));
	if (bytes > scaled(x->best, HOLD_MAX_NS))
		bytes = scaled(x->best, HOLD_MAX_NS);
	return bytes + scaled(x->best, HOSTS_NS);
}

void explore_on_ack(struct explore *x, const struct tern_cc_ack *ev, struct tern_cc_out *out)
{
	uint64_t rtt = ev->flow.min_rtt_ns, bdp, hold, srtt = ev->flow.srtt_ns;

	x->frame_bytes = (uint32_t)ev->flow.frame_bytes;
	rate_note(x, ev);
	x->round_delivered += ev->acked_bytes;
	if (ev->round_bytes >= x->round_end_bytes)
		round_over(x, ev);
	if (rtt == TERN_CC_NONE)
		return;
	if (x->phase == EXPLORE_START) {
		if (!ev->app_limited)
			x->window_bytes += ev->acked_bytes;
		out->window_bytes = x->window_bytes;
		out->pace_bytes_per_s = most((uint64_t)((unsigned __int128)2 * x->window_bytes * SECOND / most(srtt, 1)), 2 * x->best);
		return;
	}
	bdp = scaled(x->best, rtt);
	hold = held_bytes(x);
	if (x->phase == EXPLORE_DRAIN && ev->flow.in_flight_bytes <= bdp + hold) {
		x->phase = EXPLORE_CRUISE;
		x->cycle = 2;
	}
	out->pace_bytes_per_s = x->phase == EXPLORE_DRAIN && rtt >= LOCAL_RTT_NS ? x->best / 2 : cruise_pace(x, rtt);
	out->pace_bytes_per_s = most(out->pace_bytes_per_s, (uint64_t)LEAST_FRAMES * x->frame_bytes * SECOND / most(srtt, 1));
	out->window_bytes = most(2 * bdp + hold, (uint64_t)LEAST_FRAMES * x->frame_bytes);
	if (out->window_bytes > x->flight_cap)
		out->window_bytes = x->flight_cap;
}

void explore_on_loss(struct explore *x, const struct tern_cc_loss *ev)
{
	x->round_lost += ev->lost_bytes;
}
