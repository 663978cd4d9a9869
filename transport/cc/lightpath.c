/* Congestion control for a provisioned optical path: the contract's rate from the first frame. Corruption is no congestion; only a standing queue, CE, or a delivery that
 * stays below what was sent lower the rate (docs: DESIGN section 6). States:
 *   PINNED    at the contract's rate
 *   YIELD     below it after a queue or a wrong contract; comes back additively
 *   BLACKOUT  silence with a full window: goes on at full rate for the protection time, then probes each millisecond
 *   UNKNOWN   no contract: explore.c finds the rate
 * A step of the RTT larger than the egress buffer is another route: flow moves min_rtt_ns, the rate does not change. A smaller one is a queue until one drain has failed
 * to remove it (rebase below). */
#include <stdbool.h>
#include "cc/cc.h"
#include "cc/explore.h"

#define SECOND 1000000000ull
#define PIN 985 / 1000                 /* of the contract: leaves room for repair, and lets any queue drain */

enum {
	SLACK_NS = 2000000,            /* in flight: rate x (RTT + this) */
	RTT_UNKNOWN_NS = 200000000,    /* bound on flight until a sample is there */
	QUEUE_DEDICATED_NS = 50000,
	QUEUE_SHARED_NS = 200000,
	QUEUE_LASTS_NS = 1000000,
	DEDICATED_LASTS_NS = 20000000,
	QUICK_AGAIN_NS = 1000000000,   /* corrections closer together than this are not a host's, ... */
	ROUND_MIN_NS = 5000000,        /* shorter rounds are noise of the hosts */
	SILENCE_NS = 1500000,          /* with a full window: no acknowledgement for this long is an outage */
	PROBE_NS = 1000000,
	LEAST_SHARE = 20,              /* never below 1/20 of the share */
};
#define LOSS_CEILING 0.05
#define DISTRUST_NS 30000000000ull     /* ... and for so long none is taken for one */

enum lightpath_state { PINNED, YIELD, BLACKOUT, UNKNOWN };
static const char *const state_names[] = {"PINNED", "YIELD", "BLACKOUT", "UNKNOWN"};

struct lightpath {
	uint64_t ceiling, least;       /* bytes/s: contract x PIN, and the floor */
	uint64_t rate;
	uint64_t contract_rtt_ns, protection_ns, queue_limit_ns;
	uint64_t last_rtt_ns;
	uint64_t heard_ns;             /* last acknowledgement */
	uint64_t grown_ns;             /* the rate came back up to here */
	uint64_t round_least_ns;       /* lowest queue of the round */
	uint64_t queue_cut_ns;         /* the last correction for a queue */
	uint64_t distrust_ns;          /* until then no correction is undone quickly */
	uint64_t queue_since_ns;       /* the queue is above its limit since; 0: it is not */
	uint64_t buffer_ns;            /* the egress buffer in time; more delay than this is no queue */
	uint64_t shift_ns;             /* delay that no drain removed: the route's, on top of flow's lowest */
	uint64_t drain_queue_ns, drain_rate; /* queue and rate before the last correction by queue; 0: none */
	uint64_t round_queue_ns;       /* lowest since that correction had time to work */
	uint64_t corrected_bytes;      /* samples of frames sent before this was delivered know nothing of the last correction */
	double loss_ceiling;
	/* the round: what was sent in the last one should have come in this one */
	uint64_t round_end_bytes, round_ns, sent, lost, delivered, limited_sent;
	double sent_before;            /* rate of sending in the round before, bytes/s */
	uint32_t bad_rounds;
	uint32_t state;
	bool dedicated, app_limited, broken; /* broken: an outage lies in this round, nothing follows from it */
	bool broken_before;
	bool quick;                    /* the last correction is undone quickly */
	struct explore explore;
};

static uint64_t scaled(uint64_t rate, uint64_t ns)
{
	return (uint64_t)((unsigned __int128)rate * ns / SECOND);
}

static uint64_t base_rtt(const struct lightpath *s, const struct tern_cc_flow *flow)
{
	/* on a dedicated wave the RTT is the route's, and the newest sample knows of a step first; elsewhere a queue of others must not widen the window */
	uint64_t rtt = s->dedicated ? flow->srtt_ns : flow->min_rtt_ns;

	if (s->dedicated && rtt != TERN_CC_NONE && rtt < s->last_rtt_ns)
		rtt = s->last_rtt_ns;

	if (rtt == TERN_CC_NONE)
		return s->contract_rtt_ns == TERN_CC_NONE ? RTT_UNKNOWN_NS : s->contract_rtt_ns;
	return s->contract_rtt_ns != TERN_CC_NONE && s->contract_rtt_ns > rtt ? s->contract_rtt_ns : rtt;
}

/* Bytes declared lost leave the flight at once, so their repair needs no room of its own. */
static void decide(struct lightpath *s, const struct tern_cc_flow *flow, struct tern_cc_out *out)
{
	uint64_t time_ns = base_rtt(s, flow) + SLACK_NS + (s->state == BLACKOUT ? s->protection_ns : 0);

	out->pace_bytes_per_s = s->rate;
	out->window_bytes = scaled(s->rate, time_ns);
	out->state = state_names[s->state];
}

static void lightpath_init(void *state, const struct tern_cc_init *ev, struct tern_cc_out *out)
{
	struct lightpath *s = state;
	struct tern_cc_flow flow = {.now_ns = ev->now_ns, .srtt_ns = TERN_CC_NONE, .min_rtt_ns = TERN_CC_NONE};
	uint64_t frames_ns;

	if (ev->contract_bytes_per_s == TERN_CC_NONE || !ev->contract_bytes_per_s) {
		s->state = UNKNOWN;
		explore_init(&s->explore, ev, out);
		return;
	}
	s->state = PINNED;
	s->ceiling = s->rate = ev->contract_bytes_per_s * PIN;
	s->least = ev->contract_bytes_per_s / LEAST_SHARE;
	s->contract_rtt_ns = ev->contract_rtt_ns;
	s->protection_ns = ev->dedicated ? ev->protection_ns : 0;
	s->dedicated = ev->dedicated;
	frames_ns = 4 * SECOND * ev->frame_bytes / ev->contract_bytes_per_s;
	s->queue_limit_ns = ev->dedicated ? QUEUE_DEDICATED_NS : QUEUE_SHARED_NS;
	if (s->queue_limit_ns < frames_ns)
		s->queue_limit_ns = frames_ns;
	s->queue_limit_ns += ev->jitter_ns;
	s->buffer_ns = UINT64_MAX;
	if (ev->buffer_bytes != TERN_CC_NONE)
		s->buffer_ns = (uint64_t)((unsigned __int128)ev->buffer_bytes * SECOND / ev->contract_bytes_per_s);
	s->round_queue_ns = UINT64_MAX;
	s->loss_ceiling = ev->loss_ceiling > 0 ? ev->loss_ceiling : LOSS_CEILING;
	s->heard_ns = s->grown_ns = s->round_ns = ev->now_ns;
	out->probe_ns = 0;
	decide(s, &flow, out);
}

/* A full window in spite of its slack means that acknowledgements are overdue; if none came at all the path is dark. */
static void lightpath_on_sent(void *state, const struct tern_cc_sent *ev, struct tern_cc_out *out)
{
	struct lightpath *s = state;
	bool full = ev->flow.in_flight_bytes >= out->window_bytes;

	if (s->state == UNKNOWN)
		return;
	s->sent += ev->bytes;
	s->app_limited |= ev->app_limited;
	if (full)
		s->limited_sent += ev->bytes;
	if (!full || !s->protection_ns || s->state == BLACKOUT || ev->flow.now_ns < s->heard_ns + SILENCE_NS)
		return;
	s->state = BLACKOUT;
	s->broken = true;
	decide(s, &ev->flow, out);
}

static void correct(struct lightpath *s, const struct tern_cc_flow *flow, uint64_t rate)
{
	s->rate = rate < s->least ? s->least : rate > s->ceiling ? s->ceiling : rate;
	s->state = s->rate < s->ceiling ? YIELD : PINNED;
	s->corrected_bytes = flow->delivered_bytes + flow->in_flight_bytes;
	s->queue_since_ns = 0;
	s->grown_ns = flow->now_ns;
}

/* The part of the delay that may be a queue. */
static uint64_t queue_of(struct lightpath *s, const struct tern_cc_ack *ev)
{
	uint64_t queue = ev->queue_ns;

	if (queue < s->shift_ns)
		s->shift_ns = queue;
	queue -= s->shift_ns;
	if (queue < s->round_queue_ns)
		s->round_queue_ns = queue;
	return queue > s->buffer_ns + s->buffer_ns / 16 ? 0 : queue;
}

/* How long a queue must stand before it means anything. Where nobody else is on the path only a wrong contract makes one, and that shows in every sample of a round trip;
 * a host that was late for some milliseconds shows in a few, and what it held back drains at 1.5 % of the rate. */
static uint64_t queue_lasts(const struct lightpath *s, uint64_t rtt)
{
	if (s->dedicated)
		return rtt > DEDICATED_LASTS_NS ? rtt : DEDICATED_LASTS_NS;
	return QUEUE_LASTS_NS > rtt / 8 ? QUEUE_LASTS_NS : rtt / 8;
}

/* At most once an RTT, in proportion to the own rate: enough to drain the queue in about one RTT, at most a third. */
static void queue_watch(struct lightpath *s, const struct tern_cc_ack *ev)
{
	uint64_t rtt = base_rtt(s, &ev->flow), lasts = queue_lasts(s, rtt), cut, queue;

	if (ev->round_bytes < s->corrected_bytes || ev->queue_ns == TERN_CC_NONE)
		return;
	queue = queue_of(s, ev);
	if (queue < s->round_least_ns)
		s->round_least_ns = queue;
	if (!ev->ce_frames && queue <= s->queue_limit_ns) {
		s->queue_since_ns = 0;
		return;
	}
	if (!s->queue_since_ns)
		s->queue_since_ns = ev->flow.now_ns;
	if (s->drain_queue_ns || (!ev->ce_frames && ev->flow.now_ns - s->queue_since_ns < lasts))
		return; /* the round that shows what the last correction did is not over */
	cut = (uint64_t)((unsigned __int128)s->rate * queue / (rtt + queue));
	if (cut < s->rate / 32)
		cut = s->rate / 32;
	if (cut > s->rate / 3)
		cut = s->rate / 3;
	s->drain_queue_ns = s->dedicated && !ev->ce_frames ? queue : 0;
	s->drain_rate = s->rate;
	correct(s, &ev->flow, s->rate - cut);
	s->round_queue_ns = UINT64_MAX;
	if (s->queue_cut_ns && ev->flow.now_ns - s->queue_cut_ns < QUICK_AGAIN_NS)
		s->distrust_ns = ev->flow.now_ns + DISTRUST_NS;
	s->quick = s->dedicated && ev->flow.now_ns >= s->distrust_ns;
	s->queue_cut_ns = ev->flow.now_ns;
}

/* The corrected rate has had its time: everything sent has come, yet three quarters of the delay are still there. Nobody else is on this wave: it is the route. */
static void rebase(struct lightpath *s, const struct tern_cc_flow *flow, bool all_came)
{
	if (all_came && s->round_queue_ns > s->drain_queue_ns / 4 * 3) {
		s->shift_ns += s->round_queue_ns;
		correct(s, flow, s->drain_rate);
	}
	s->drain_queue_ns = 0;
}

/* A tenth of the contract a second, the same for all who share it, whatever their RTT. On a dedicated path a correction that stays the only one for a while was a late
 * host, and nobody is there to be fair to: the rate is back after a tenth of a second. */
static void come_back(struct lightpath *s, uint64_t now_ns)
{
	if (s->rate < s->ceiling && !s->queue_since_ns) {
		s->rate += scaled(s->quick ? s->ceiling * 10 : s->ceiling / 10, now_ns - s->grown_ns);
		if (s->rate >= s->ceiling) {
			s->rate = s->ceiling;
			s->state = PINNED;
		}
	}
	s->grown_ns = now_ns;
}

/* Two rounds in which less came than was sent the round before, or more was lost than the contract allows: the capacity is what was delivered (RFC 8084's breaker). */
static void round_over(struct lightpath *s, const struct tern_cc_ack *ev)
{
	double seconds = (double)(ev->flow.now_ns - s->round_ns) / 1e9, arrived = (double)s->delivered / seconds;
	double accounted = (double)(s->delivered + s->lost) / seconds, lossy = (double)s->lost / (double)(s->delivered + s->lost + 1);
	bool valid = !s->app_limited && !s->broken && !s->broken_before && s->sent_before > 0;
	bool held = s->limited_sent > s->sent / 2 && accounted < 0.98 * (double)s->rate;

	/* what was sent and neither came nor was lost stands in a queue: if that was empty once in the round, a host was late and nothing is wrong with the path */
	bool stands = s->round_least_ns > s->queue_limit_ns || !s->dedicated;

	if (valid && (lossy > s->loss_ceiling || (stands && (held || accounted < 0.98 * s->sent_before))))
		s->bad_rounds++;
	else
		s->bad_rounds = 0;
	if (s->drain_queue_ns && s->round_queue_ns != UINT64_MAX)
		rebase(s, &ev->flow, valid && accounted >= 0.98 * s->sent_before && lossy <= s->loss_ceiling);
	if (s->bad_rounds >= 2 && arrived < (double)s->rate) {
		correct(s, &ev->flow, (uint64_t)(arrived * 0.97));
		s->distrust_ns = ev->flow.now_ns + DISTRUST_NS;
		s->quick = false;
		s->bad_rounds = 0;
	}
	s->sent_before = s->app_limited ? 0 : (double)s->sent / seconds;
	s->broken_before = s->broken;
	s->app_limited = s->broken = false;
	s->sent = s->lost = s->delivered = s->limited_sent = 0;
	s->round_least_ns = UINT64_MAX;
	s->round_ns = ev->flow.now_ns;
	s->round_end_bytes = ev->flow.delivered_bytes;
}

static void lightpath_on_ack(void *state, const struct tern_cc_ack *ev, struct tern_cc_out *out)
{
	struct lightpath *s = state;

	if (s->state == UNKNOWN) {
		explore_on_ack(&s->explore, ev, out);
		return;
	}
	if (s->state == BLACKOUT)
		s->state = s->rate < s->ceiling ? YIELD : PINNED;
	out->probe_ns = 0;
	s->heard_ns = ev->flow.now_ns;
	if (ev->rtt_ns != TERN_CC_NONE)
		s->last_rtt_ns = ev->rtt_ns;
	s->delivered += ev->acked_bytes;
	queue_watch(s, ev);
	come_back(s, ev->flow.now_ns);
	if (ev->round_bytes >= s->round_end_bytes && ev->flow.now_ns - s->round_ns >= ROUND_MIN_NS)
		round_over(s, ev);
	decide(s, &ev->flow, out);
}

static void lightpath_on_loss(void *state, const struct tern_cc_loss *ev, struct tern_cc_out *out)
{
	struct lightpath *s = state;

	(void)out;
	if (s->state == UNKNOWN)
		explore_on_loss(&s->explore, ev);
	s->lost += ev->lost_bytes;
}

/* The flow's own timeout tells of one lost tail; a second one, or the first in a blackout, of a dark path. */
static void lightpath_on_timeout(void *state, const struct tern_cc_timeout *ev, struct tern_cc_out *out)
{
	struct lightpath *s = state;

	if (s->state == UNKNOWN)
		return;
	s->broken = true;
	if (s->dedicated && ev->data_owed && (ev->probes > 1 || s->state == BLACKOUT)) {
		s->state = BLACKOUT;
		out->probe_ns = PROBE_NS;
		decide(s, &ev->flow, out);
	}
}

static void lightpath_on_break(void *state, const struct tern_cc_flow *ev, struct tern_cc_out *out)
{
	(void)ev, (void)out;
	((struct lightpath *)state)->broken = true;
}

const struct tern_cc cc_lightpath = {
	"lightpath", sizeof(struct lightpath), lightpath_init, lightpath_on_sent, lightpath_on_ack, lightpath_on_loss, lightpath_on_timeout,
	lightpath_on_break,
};
_Static_assert(sizeof(struct lightpath) <= TERN_CC_STATE_MAX, "the flow has this much room for a control's state");
