/* What an acknowledgement says of the path: RTT (RFC 9002, section 5), queue from one-way delay, delivery rate. Called by ack; knows no extents. */
#include "flow/state.h"

#define SECOND 1000000000ull

enum {
	RTT_GUESS_NS = 10000000,       /* without contract or sample: the first probe costs one small frame if this is too early */
	GRANULARITY_NS = 100000,       /* what a busy loop is late by */
	QUEUE_WINDOW_NS = 1000000,     /* DESIGN 6: queue is the minimum over max(1 ms, 8 frames) */
	RATE_SPAN_MIN_NS = 100000,
};
#define FLOOR_WINDOW_NS (10 * SECOND) /* clocks drift by up to 100 us a second, and routes change: no minimum is for ever */

/* Adds a sample. @return the lowest of the window, which is window_ns long and slides by halves */
static int64_t min_add(struct flow_min *m, int64_t value, uint64_t now_ns, uint64_t window_ns)
{
	if (m->halves && now_ns - m->since_ns >= window_ns / 2) {
		m->old_value = m->value;
		m->halves = now_ns - m->since_ns >= window_ns ? 1 : 2;
		m->value = value;
		m->since_ns = now_ns;
	} else if (!m->halves) {
		*m = (struct flow_min){.value = value, .since_ns = now_ns, .halves = 1};
	}
	if (value < m->value)
		m->value = value;
	return m->halves == 2 && m->old_value < m->value ? m->old_value : m->value;
}

static void rtt_rebase(struct flow *f, uint64_t min_rtt_ns)
{
	f->min_rtt_ns = min_rtt_ns;
	f->high_rtts = 0;
	f->rtt_floor.halves = 0;
	f->delay_base.halves = 0;
	f->delay_now.halves = 0;
	f->count.rebases++;
}

/* A step of RTT by more than the buffer holds is no queue but another route (DESIGN 6, REBASE): 8 samples in a row above it make a new base. */
static void rtt_watch_route(struct flow *f, uint64_t rtt_ns)
{
	if (!f->buffer_ns || rtt_ns <= f->min_rtt_ns + f->buffer_ns + f->min_rtt_ns / 16) {
		f->high_rtts = 0;
		return;
	}
	if (!f->high_rtts++ || rtt_ns < f->high_rtt_min_ns)
		f->high_rtt_min_ns = rtt_ns;
	if (f->high_rtts >= FLOW_REBASE_SAMPLES)
		rtt_rebase(f, f->high_rtt_min_ns);
}

/* Anew with each sample, and only then: every turn asks for it several times. */
static void rtt_timeout(struct flow *f)
{
	uint64_t slack = 4 * f->rttvar_ns;

	if (slack < f->srtt_ns / 8)
		slack = f->srtt_ns / 8;
	if (slack < GRANULARITY_NS)
		slack = GRANULARITY_NS;
	f->timeout_ns = f->srtt_ns + slack + f->peer_ack_delay_ns;
}

/* @return the sample, without the time the receiver held it */
uint64_t flow_rtt_sample(struct flow *f, const struct wire_ack *ack, uint64_t sent_ns, uint64_t now_ns)
{
	uint64_t rtt = now_ns > sent_ns ? now_ns - sent_ns : 1, adjusted, off;

	if (f->srtt_ns == UINT64_MAX) {
		adjusted = rtt > ack->delay_ns ? rtt - ack->delay_ns : rtt;
		f->srtt_ns = adjusted;
		f->rttvar_ns = adjusted / 2;
		rtt_timeout(f);
		f->min_rtt_ns = (uint64_t)min_add(&f->rtt_floor, (int64_t)adjusted, now_ns, FLOOR_WINDOW_NS);
		return adjusted;
	}
	/* RFC 9002 5.3 trusts the delay only where the result is not below the minimum; ours is measured, not a promise, so the minimum may follow it */
	adjusted = rtt > ack->delay_ns ? rtt - ack->delay_ns : rtt;
	f->min_rtt_ns = (uint64_t)min_add(&f->rtt_floor, (int64_t)adjusted, now_ns, FLOOR_WINDOW_NS);
	off = adjusted > f->srtt_ns ? adjusted - f->srtt_ns : f->srtt_ns - adjusted;
	f->rttvar_ns = (3 * f->rttvar_ns + off) / 4;
	f->srtt_ns = (7 * f->srtt_ns + adjusted) / 8;
	rtt_timeout(f);
	rtt_watch_route(f, adjusted);
	return adjusted;
}

/* One-way delay above its lowest. Clocks of two hosts drift apart and fake a queue; the RTT's excess does not, so the smaller of the two counts. */
uint64_t flow_queue_sample(struct flow *f, const struct wire_ack *ack, uint64_t sent_ns, uint64_t rtt_ns, uint64_t now_ns)
{
	int64_t delay = (int64_t)(ack->arrival_ns - sent_ns);
	int64_t base = min_add(&f->delay_base, delay, now_ns, FLOOR_WINDOW_NS);
	int64_t queue = min_add(&f->delay_now, delay, now_ns, f->frames_ns > QUEUE_WINDOW_NS ? f->frames_ns : QUEUE_WINDOW_NS) - base;
	int64_t excess = (int64_t)(rtt_ns - f->min_rtt_ns);

	if (queue > excess)
		queue = excess;
	return queue > 0 ? (uint64_t)queue : 0;
}

/* Bytes delivered between two acknowledgements over the time between the arrivals they speak of, by the receiver's clock: acknowledgements that were held up or
 * bunched on their way do not show. Frames may have been sent apart further than they arrived, so the longer of the two times counts. */
uint64_t flow_rate_sample(struct flow *f, const struct wire_ack *ack, uint64_t sent_ns)
{
	uint64_t arrival = ack->arrival_ns ? ack->arrival_ns : 1, span, sent_span, rate;

	if (!f->rate_arrival_ns) {
		f->rate_delivered = f->delivered_bytes;
		f->rate_arrival_ns = arrival;
		f->rate_sent_ns = sent_ns;
		return UINT64_MAX;
	}
	span = arrival > f->rate_arrival_ns ? arrival - f->rate_arrival_ns : 0;
	sent_span = sent_ns > f->rate_sent_ns ? sent_ns - f->rate_sent_ns : 0;
	if (span < sent_span)
		span = sent_span;
	if (span < RATE_SPAN_MIN_NS || span < f->srtt_ns / 8)
		return UINT64_MAX;
	rate = (uint64_t)((unsigned __int128)(f->delivered_bytes - f->rate_delivered) * SECOND / span);
	f->rate_delivered = f->delivered_bytes;
	f->rate_arrival_ns = arrival;
	f->rate_sent_ns = sent_ns;
	return rate;
}

/* Grows with the timeouts in a row, by quarters, to twice: a path that came back is found within two RTTs. */
uint64_t flow_probe_timeout_ns(const struct flow *f)
{
	uint64_t timeout;

	if (f->probes && f->out.probe_ns)
		return f->out.probe_ns;
	if (f->srtt_ns == UINT64_MAX) {
		timeout = f->contract_rtt_ns == UINT64_MAX || !f->contract_rtt_ns ? RTT_GUESS_NS : f->contract_rtt_ns + f->contract_rtt_ns / 4;
		timeout += f->peer_ack_delay_ns;
		/* nothing is known: double, or a path of 150 ms would be probed dozens of times */
		return f->contract_rtt_ns == UINT64_MAX ? timeout << (f->probes < 5 ? f->probes : 5) : timeout;
	}
	return f->timeout_ns + f->timeout_ns / 4 * (f->probes < 4 ? f->probes : 4);
}

uint64_t flow_srtt_ns(const struct flow *f)
{
	return f->srtt_ns;
}

uint64_t flow_min_rtt_ns(const struct flow *f)
{
	return f->min_rtt_ns;
}
