/* CUBIC (RFC 9438) with pacing at 5/4 of window/RTT and HyStart++ (RFC 9406) reduced to its delay test. For paths shared with TCP, and as a peer to measure against.
 * Floating point in segments, as the RFC writes it. */
#include <stdbool.h>
#include "cc/cc.h"

#define SECOND 1000000000ull
#define CUBIC_C 0.4
#define CUBIC_BETA 0.7
#define CUBIC_ALPHA (3 * (1 - CUBIC_BETA) / (1 + CUBIC_BETA)) /* RFC 9438, section 4.3 */

enum { FIRST_SEGMENTS = 10, LEAST_SEGMENTS = 2, HYSTART_SAMPLES = 8, HYSTART_MIN_NS = 4000000, HYSTART_MAX_NS = 16000000 };

struct cubic {
	double cwnd, ssthresh, w_max, w_est, origin, k; /* segments */
	uint64_t epoch_ns;       /* congestion avoidance began; 0: not begun */
	uint64_t recovery_ns;    /* losses of frames sent before belong to the last reduction */
	uint64_t round_end_bytes, round_rtt_ns, last_rtt_ns;
	uint32_t samples;
	double segment;
};

static double cube_root(double x)
{
	double r = x > 1 ? x : 1;

	if (x <= 0)
		return 0;
	for (int i = 0; i < 64; i++) {
		double next = (2 * r + x / (r * r)) / 3;

		if (next >= r * (1 - 1e-12) && next <= r * (1 + 1e-12))
			return next;
		r = next;
	}
	return r;
}

static void decide(const struct cubic *s, const struct tern_cc_flow *flow, struct tern_cc_out *out)
{
	double rtt = flow->srtt_ns == TERN_CC_NONE ? 1e6 : (double)flow->srtt_ns, gain = s->cwnd < s->ssthresh ? 2.0 : 1.25;

	out->window_bytes = (uint64_t)(s->cwnd * s->segment);
	out->pace_bytes_per_s = (uint64_t)(gain * s->cwnd * s->segment * 1e9 / (rtt > 1 ? rtt : 1));
	out->probe_ns = 0;
	out->state = s->cwnd < s->ssthresh ? "SLOW_START" : "CUBIC";
}

static void cubic_init(void *state, const struct tern_cc_init *ev, struct tern_cc_out *out)
{
	struct cubic *s = state;
	struct tern_cc_flow flow = {.now_ns = ev->now_ns, .srtt_ns = ev->contract_rtt_ns};

	s->segment = ev->frame_bytes;
	s->cwnd = FIRST_SEGMENTS;
	s->ssthresh = 1e18;
	s->round_rtt_ns = s->last_rtt_ns = UINT64_MAX;
	decide(s, &flow, out);
}

static void cubic_on_sent(void *state, const struct tern_cc_sent *ev, struct tern_cc_out *out)
{
	(void)state;
	(void)ev;
	(void)out;
}

/* HyStart++: a round whose lowest RTT is an eighth above the last one's ends slow start. */
static void hystart(struct cubic *s, const struct tern_cc_ack *ev)
{
	uint64_t margin;

	if (ev->round_bytes >= s->round_end_bytes) {
		s->last_rtt_ns = s->round_rtt_ns;
		s->round_rtt_ns = UINT64_MAX;
		s->round_end_bytes = ev->flow.delivered_bytes;
		s->samples = 0;
	}
	if (ev->rtt_ns == TERN_CC_NONE)
		return;
	s->samples++;
	if (ev->rtt_ns < s->round_rtt_ns)
		s->round_rtt_ns = ev->rtt_ns;
	margin = s->last_rtt_ns / 8;
	margin = margin < HYSTART_MIN_NS ? HYSTART_MIN_NS : margin > HYSTART_MAX_NS ? HYSTART_MAX_NS : margin;
	if (s->samples >= HYSTART_SAMPLES && s->last_rtt_ns != UINT64_MAX && s->round_rtt_ns > s->last_rtt_ns + margin)
		s->ssthresh = s->cwnd;
}

static void avoid(struct cubic *s, const struct tern_cc_ack *ev, double acked)
{
	double rtt = ev->flow.srtt_ns == TERN_CC_NONE ? 0 : (double)ev->flow.srtt_ns / 1e9, t, target;

	if (!s->epoch_ns) {
		s->epoch_ns = ev->flow.now_ns;
		s->w_est = s->cwnd;
		s->origin = s->w_max > s->cwnd ? s->w_max : s->cwnd;
		s->k = cube_root((s->origin - s->cwnd) / CUBIC_C);
	}
	t = (double)(ev->flow.now_ns - s->epoch_ns) / 1e9 + rtt - s->k;
	target = s->origin + CUBIC_C * t * t * t;
	target = target < s->cwnd ? s->cwnd : target > 1.5 * s->cwnd ? 1.5 * s->cwnd : target;
	s->w_est += (s->w_est >= s->w_max ? 1 : CUBIC_ALPHA) * acked / s->cwnd;
	s->cwnd += (target - s->cwnd) / s->cwnd * acked;
	if (s->cwnd < s->w_est)
		s->cwnd = s->w_est;
}

static void cubic_on_ack(void *state, const struct tern_cc_ack *ev, struct tern_cc_out *out)
{
	struct cubic *s = state;
	double acked = (double)ev->acked_bytes / s->segment;

	if (s->cwnd < s->ssthresh) {
		hystart(s, ev);
		if (!ev->app_limited)
			s->cwnd += acked;
	} else if (!ev->app_limited && ev->sent_ns > s->recovery_ns) {
		avoid(s, ev, acked);
	}
	decide(s, &ev->flow, out);
}

static void cubic_on_loss(void *state, const struct tern_cc_loss *ev, struct tern_cc_out *out)
{
	struct cubic *s = state;

	if (ev->sent_ns <= s->recovery_ns)
		return;
	s->recovery_ns = ev->flow.now_ns;
	s->epoch_ns = 0;
	s->w_max = s->cwnd < s->w_max ? s->cwnd * (1 + CUBIC_BETA) / 2 : s->cwnd; /* fast convergence, section 4.7 */
	s->cwnd *= CUBIC_BETA;
	if (s->cwnd < LEAST_SEGMENTS)
		s->cwnd = LEAST_SEGMENTS;
	s->ssthresh = s->cwnd;
	decide(s, &ev->flow, out);
}

/* Silence halves nothing: what it lost shows when the path speaks again. Three timeouts in a row restart from the least window, as TCP's timeout does. */
static void cubic_on_timeout(void *state, const struct tern_cc_timeout *ev, struct tern_cc_out *out)
{
	struct cubic *s = state;

	if (ev->probes != 3)
		return;
	s->ssthresh = s->cwnd * CUBIC_BETA > LEAST_SEGMENTS ? s->cwnd * CUBIC_BETA : LEAST_SEGMENTS;
	s->w_max = s->cwnd;
	s->cwnd = LEAST_SEGMENTS;
	s->epoch_ns = 0;
	s->recovery_ns = ev->flow.now_ns;
	decide(s, &ev->flow, out);
}

const struct tern_cc cc_cubic = {"cubic", sizeof(struct cubic), cubic_init, cubic_on_sent, cubic_on_ack, cubic_on_loss, cubic_on_timeout};
