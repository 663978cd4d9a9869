/* No congestion control: the contract's rate, whatever happens. For tests, for links that pace themselves, and as the yardstick of the others. */
#include "cc/cc.h"

#define SECOND 1000000000ull
#define RATE_WITHOUT_CONTRACT (10 * SECOND) /* bytes/s */
#define RTT_UNKNOWN_NS (200 * SECOND / 1000)

enum { SLACK_NS = 2000000 };

struct fixed {
	uint64_t rate, rtt_ns;
};

static void fixed_decide(const struct fixed *s, struct tern_cc_out *out)
{
	out->pace_bytes_per_s = s->rate;
	out->window_bytes = (uint64_t)((unsigned __int128)s->rate * (s->rtt_ns + SLACK_NS) / SECOND);
	out->probe_ns = 0;
	out->state = "FIXED";
}

static void fixed_init(void *state, const struct tern_cc_init *ev, struct tern_cc_out *out)
{
	struct fixed *s = state;

	s->rate = ev->contract_bytes_per_s == TERN_CC_NONE ? RATE_WITHOUT_CONTRACT : ev->contract_bytes_per_s;
	s->rtt_ns = ev->contract_rtt_ns == TERN_CC_NONE ? RTT_UNKNOWN_NS : ev->contract_rtt_ns;
	fixed_decide(s, out);
}

static void fixed_on_sent(void *state, const struct tern_cc_sent *ev, struct tern_cc_out *out)
{
	(void)state;
	(void)ev;
	(void)out;
}

/* The window only ever grows: it is there to bound memory, not the rate. */
static void fixed_on_ack(void *state, const struct tern_cc_ack *ev, struct tern_cc_out *out)
{
	struct fixed *s = state;

	if (ev->flow.srtt_ns == TERN_CC_NONE || ev->flow.srtt_ns <= s->rtt_ns)
		return;
	s->rtt_ns = ev->flow.srtt_ns;
	fixed_decide(s, out);
}

static void fixed_on_loss(void *state, const struct tern_cc_loss *ev, struct tern_cc_out *out)
{
	(void)state;
	(void)ev;
	(void)out;
}

static void fixed_on_timeout(void *state, const struct tern_cc_timeout *ev, struct tern_cc_out *out)
{
	(void)state;
	(void)ev;
	(void)out;
}

const struct tern_cc cc_fixed = {"fixed", sizeof(struct fixed), fixed_init, fixed_on_sent, fixed_on_ack, fixed_on_loss, fixed_on_timeout};
