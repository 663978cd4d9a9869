/* The chain of one direction; see element.h. All arithmetic of time is in integers: a serialiser keeps the remainder of its divisions, so 1e9 frames take
 * exactly their time, and two runs with one seed agree to the bit. */
#include "link/sim/element.h"
#include <assert.h>
#include <stdio.h>
#include <string.h>
#include "tern/error.h"

#define BIT_NS 8000000000ull /* ns on the line of a byte, times the rate in bit/s */

static int refuse(char *error, size_t error_bytes, const char *text)
{
	if (error && error_bytes)
		snprintf(error, error_bytes, "%s", text);
	return -TERN_EINVAL;
}

static bool is_probability(double p)
{
	return p >= 0 && p <= 1; /* false for NaN */
}

static int check_lists(const struct element_config *c, char *error, size_t n)
{
	if (c->outages > ELEMENT_STEPS_MAX || c->steps > ELEMENT_STEPS_MAX || c->rate_steps > ELEMENT_STEPS_MAX)
		return refuse(error, n, "at most 16 outages, 16 steps and 16 rate steps; leave some out");
	for (uint32_t i = 0; i < c->outages; i++)
		if (c->outage[i].start_ns > ELEMENT_TIME_MAX_NS || c->outage[i].length_ns > ELEMENT_TIME_MAX_NS || !c->outage[i].length_ns)
			return refuse(error, n, "an outage starts within 30 days and lasts more than nothing and at most 30 days");
	for (uint32_t i = 0; i < c->steps; i++)
		if (c->step[i].at_ns > ELEMENT_TIME_MAX_NS || c->step[i].value > ELEMENT_DELAY_MAX_NS)
			return refuse(error, n, "a step comes within 30 days and leads to a delay of at most 10s");
	for (uint32_t i = 0; i < c->rate_steps; i++)
		if (c->rate_step[i].at_ns > ELEMENT_TIME_MAX_NS || c->rate_step[i].value < ELEMENT_RATE_MIN ||
		    c->rate_step[i].value > ELEMENT_RATE_MAX)
			return refuse(error, n, "a rate step comes within 30 days and leads to a rate of 1kbit to 10000gbit");
	return 0;
}

int element_config_check(const struct element_config *c, char *error, size_t n)
{
	if (c->delay_ns > ELEMENT_DELAY_MAX_NS || c->reorder_extra_ns > ELEMENT_DELAY_MAX_NS)
		return refuse(error, n, "a delay is at most 10s (10 000 km of fibre are 50ms)");
	if (c->rate_bits_per_s && (c->rate_bits_per_s < ELEMENT_RATE_MIN || c->rate_bits_per_s > ELEMENT_RATE_MAX))
		return refuse(error, n, "a rate is 1kbit to 10000gbit; leave it out for no limit");
	if (c->overhead_bytes > ELEMENT_OVERHEAD_MAX)
		return refuse(error, n, "the overhead of a datagram is at most 1024b (66b for IP, UDP and Ethernet)");
	if (c->queue_bytes > ELEMENT_QUEUE_MAX_BYTES || c->ce_bytes > ELEMENT_QUEUE_MAX_BYTES)
		return refuse(error, n, "a queue is at most 65536mib");
	if (!is_probability(c->loss) || !is_probability(c->p_good_to_bad) || !is_probability(c->p_bad_to_good) || !is_probability(c->loss_good) ||
	    !is_probability(c->loss_bad) || !is_probability(c->reorder) || !is_probability(c->duplicate))
		return refuse(error, n, "a probability is 0 to 1, or 0% to 100%");
	if (c->p_good_to_bad > 0 && c->p_bad_to_good <= 0)
		return refuse(error, n, "a Gilbert-Elliott model that enters bursts must also leave them: give the second number");
	return check_lists(c, error, n);
}

static uint64_t threshold(double p)
{
	return p >= 1 ? UINT64_MAX : (uint64_t)(p * 18446744073709551616.0);
}

static void sort_steps(struct element_step *s, uint32_t n)
{
	for (uint32_t i = 1; i < n; i++)
		for (uint32_t k = i; k && s[k].at_ns < s[k - 1].at_ns; k--) {
			struct element_step t = s[k];
			s[k] = s[k - 1];
			s[k - 1] = t;
		}
}

static void sort_outages(struct element_outage *s, uint32_t n)
{
	for (uint32_t i = 1; i < n; i++)
		for (uint32_t k = i; k && s[k].start_ns < s[k - 1].start_ns; k--) {
			struct element_outage t = s[k];
			s[k] = s[k - 1];
			s[k - 1] = t;
		}
}

/* Bytes in this time on the line at a rate. */
static uint64_t line_bytes(uint64_t ns, uint64_t rem, uint64_t rate)
{
	return (uint64_t)(((unsigned __int128)ns * rate + rem) / BIT_NS);
}

static void fold_peak(const struct element *e, uint64_t *peak_bytes)
{
	uint64_t bytes = e->rate ? line_bytes(e->peak_ns, e->peak_rem, e->rate) : 0;

	if (bytes > *peak_bytes)
		*peak_bytes = bytes;
}

static void set_rate(struct element *e, uint64_t rate, uint64_t since_ns)
{
	fold_peak(e, &e->counters.queue_peak_bytes);
	e->peak_ns = e->peak_rem = 0;
	e->free_rem = 0;
	e->rate = rate;
	e->piece[e->pieces++] = (struct element_step){since_ns, rate};
	if (!rate)
		return;
	unsigned __int128 queue = (unsigned __int128)e->config.queue_bytes * BIT_NS, ce = (unsigned __int128)e->config.ce_bytes * BIT_NS;
	unsigned __int128 queue_ns = queue / rate, ce_ns = ce / rate;
	bool bounded = e->config.queue_bytes && queue_ns < UINT64_MAX;
	e->queue_ns = bounded ? (uint64_t)queue_ns : UINT64_MAX;
	e->queue_rem = bounded ? (uint64_t)(queue % rate) : 0;
	e->ce_ns = e->config.ce_bytes && ce_ns < UINT64_MAX ? (uint64_t)ce_ns : UINT64_MAX;
}

static uint64_t next_at(const struct element_step *s, uint32_t at, uint32_t n)
{
	return at < n ? s[at].at_ns : UINT64_MAX;
}

int element_init(struct element *e, const struct element_config *config, uint64_t seed, uint64_t origin_ns)
{
	int rc = element_config_check(config, NULL, 0);

	if (rc)
		return rc;
	memset(e, 0, sizeof(*e));
	e->config = *config;
	rng_init(&e->rng, rng_mix(&seed) ^ config->seed);
	sort_outages(e->config.outage, config->outages);
	sort_steps(e->config.step, config->steps);
	sort_steps(e->config.rate_step, config->rate_steps);
	for (uint32_t i = 0; i < ELEMENT_STEPS_MAX; i++) {
		e->config.outage[i].start_ns += origin_ns;
		e->config.step[i].at_ns += origin_ns;
		e->config.rate_step[i].at_ns += origin_ns;
	}
	e->free_ns = origin_ns;
	e->delay_ns = config->delay_ns;
	e->next_rate_ns = next_at(e->config.rate_step, 0, config->rate_steps);
	e->next_delay_ns = next_at(e->config.step, 0, config->steps);
	set_rate(e, config->rate_bits_per_s, origin_ns);
	e->loss = threshold(config->loss);
	e->good_to_bad = threshold(config->p_good_to_bad);
	e->bad_to_good = threshold(config->p_bad_to_good);
	e->loss_good = threshold(config->loss_good);
	e->loss_bad = threshold(config->loss_bad);
	e->reorder = threshold(config->reorder);
	e->duplicate = threshold(config->duplicate);
	return 0;
}

/* Unsent bytes at now when the line is busy until end: the integral of the rate, over every rate that was in force since. */
static uint64_t level_bytes(const struct element *e, uint64_t now_ns, uint64_t end_ns, uint64_t end_rem)
{
	uint64_t bytes = 0, until = end_ns, rem = end_rem;

	for (uint32_t i = e->pieces; i-- && until >= now_ns;) {
		uint64_t from = e->piece[i].at_ns > now_ns ? e->piece[i].at_ns : now_ns;
		if (until > from || rem)
			bytes += line_bytes(until - from, rem, e->piece[i].value);
		until = from;
		rem = 0;
		if (from == now_ns)
			break;
	}
	return bytes;
}

static bool above(uint64_t ns, uint64_t rem, uint64_t limit_ns, uint64_t limit_rem)
{
	return ns > limit_ns || (ns == limit_ns && rem > limit_rem);
}

/* The queue holds datagrams sent at an earlier rate: time on the line no longer measures bytes. @return whether the datagram fits */
static bool admit_mixed(struct element *e, uint64_t now_ns, uint64_t end_ns, uint64_t end_rem, struct element_verdict *v)
{
	bool bounded = e->config.queue_bytes && !v->reliable;
	uint64_t before = level_bytes(e, now_ns, e->free_ns, e->free_rem), after = level_bytes(e, now_ns, end_ns, end_rem);

	if (bounded && before && after > e->config.queue_bytes)
		return false;
	if (after > e->counters.queue_peak_bytes)
		e->counters.queue_peak_bytes = after;
	v->ce = e->config.ce_bytes && before > e->config.ce_bytes;
	return true;
}

static bool admit(struct element *e, uint64_t now_ns, uint64_t end_ns, uint64_t end_rem, struct element_verdict *v)
{
	uint64_t level_ns = end_ns - now_ns, before_ns = e->free_ns - now_ns;

	if (now_ns < e->piece[e->pieces - 1].at_ns)
		return admit_mixed(e, now_ns, end_ns, end_rem, v);
	if ((before_ns || e->free_rem) && above(level_ns, end_rem, e->queue_ns, e->queue_rem) && !v->reliable)
		return false; /* a datagram that meets an idle line always passes */
	if (above(level_ns, end_rem, e->peak_ns, e->peak_rem)) {
		e->peak_ns = level_ns;
		e->peak_rem = end_rem;
	}
	v->ce = before_ns > e->ce_ns;
	return true;
}

/* Queue and serialiser. @return false: dropped at the tail */
static bool serialise(struct element *e, uint64_t now_ns, uint32_t bytes, struct element_verdict *v)
{
	if (now_ns > e->free_ns) {
		e->free_ns = now_ns;
		e->free_rem = 0;
	}
	while (e->free_ns >= e->next_rate_ns) {
		set_rate(e, e->config.rate_step[e->rate_at].value, e->free_ns);
		e->next_rate_ns = next_at(e->config.rate_step, ++e->rate_at, e->config.rate_steps);
	}
	if (!e->rate) {
		v->depart_ns = e->free_ns;
		return true;
	}
	uint64_t work = (uint64_t)(bytes + e->config.overhead_bytes) * BIT_NS + e->free_rem;
	uint64_t end_ns = e->free_ns + work / e->rate, end_rem = work % e->rate;
	if (!admit(e, now_ns, end_ns, end_rem, v))
		return false;
	e->free_ns = end_ns;
	e->free_rem = end_rem;
	v->depart_ns = end_ns;
	return true;
}

/* What the fibre does to a datagram that enters it. @return why it is lost, or ELEMENT_PASSED */
static enum element_drop fibre(struct element *e, uint64_t depart_ns)
{
	const struct element_config *c = &e->config;

	while (e->outage_at < c->outages && depart_ns >= c->outage[e->outage_at].start_ns + c->outage[e->outage_at].length_ns)
		e->outage_at++;
	if (e->outage_at < c->outages && depart_ns >= c->outage[e->outage_at].start_ns)
		return ELEMENT_DROP_OUTAGE;
	if (rng_chance(&e->rng, e->loss))
		return ELEMENT_DROP_LOSS;
	if (!e->good_to_bad && !e->loss_good)
		return ELEMENT_PASSED;
	if (rng_chance(&e->rng, e->bad ? e->bad_to_good : e->good_to_bad))
		e->bad = !e->bad;
	return rng_chance(&e->rng, e->bad ? e->loss_bad : e->loss_good) ? ELEMENT_DROP_BURST : ELEMENT_PASSED;
}

void element_push(struct element *e, uint64_t now_ns, uint32_t bytes, struct element_verdict *v)
{
	assert(bytes + e->config.overhead_bytes <= ELEMENT_FRAME_MAX);
	*v = (struct element_verdict){0};
	e->counters.frames++;
	e->counters.bytes += bytes;
	v->drop = serialise(e, now_ns, bytes, v) ? fibre(e, v->depart_ns) : ELEMENT_DROP_QUEUE;
	if (v->drop) {
		e->counters.drops[v->drop]++;
		return;
	}
	while (v->depart_ns >= e->next_delay_ns) {
		e->delay_ns = e->config.step[e->delay_at].value;
		e->next_delay_ns = next_at(e->config.step, ++e->delay_at, e->config.steps);
	}
	v->copies = 1;
	v->at_ns[0] = v->at_ns[1] = v->depart_ns + e->delay_ns;
	if (rng_chance(&e->rng, e->reorder)) {
		v->at_ns[0] += e->config.reorder_extra_ns;
		v->late = 1;
		e->counters.reordered++;
	}
	if (rng_chance(&e->rng, e->duplicate)) {
		v->copies = 2;
		e->counters.duplicates++;
	}
	e->counters.ce_marks += v->ce;
	e->counters.passed_frames++;
	e->counters.passed_bytes += bytes;
}

uint64_t element_delay_ns(const struct element *e, uint64_t now_ns)
{
	uint64_t delay_ns = e->config.delay_ns;

	for (uint32_t i = 0; i < e->config.steps && e->config.step[i].at_ns <= now_ns; i++)
		delay_ns = e->config.step[i].value;
	return delay_ns;
}

/* Looks at outages and steps without moving on in their lists: unreliable datagrams behind it may still depart earlier. */
uint32_t element_losses(struct element *e, uint32_t packets)
{
	uint32_t lost = 0;

	for (uint32_t i = 0; i < packets; i++)
		while (rng_chance(&e->rng, e->loss))
			lost++;
	e->counters.drops[ELEMENT_DROP_LOSS] += lost;
	return lost;
}

void element_push_reliable(struct element *e, uint64_t now_ns, uint32_t bytes, struct element_verdict *v)
{
	const struct element_config *c = &e->config;

	assert(bytes + c->overhead_bytes <= ELEMENT_FRAME_MAX);
	*v = (struct element_verdict){.reliable = 1, .copies = 1};
	e->counters.frames++;
	e->counters.bytes += bytes;
	serialise(e, now_ns, bytes, v);
	for (uint32_t i = 0; i < c->outages; i++)
		if (v->depart_ns >= c->outage[i].start_ns && v->depart_ns < c->outage[i].start_ns + c->outage[i].length_ns)
			v->depart_ns = c->outage[i].start_ns + c->outage[i].length_ns;
	v->at_ns[0] = v->at_ns[1] = v->depart_ns + element_delay_ns(e, v->depart_ns);
	e->counters.ce_marks += v->ce;
	e->counters.passed_frames++;
	e->counters.passed_bytes += bytes;
}

uint64_t element_queue_bytes(const struct element *e, uint64_t now_ns)
{
	return e->rate && e->free_ns >= now_ns ? level_bytes(e, now_ns, e->free_ns, e->free_rem) : 0;
}

void element_counters(const struct element *e, struct element_counters *out)
{
	*out = e->counters;
	fold_peak(e, &out->queue_peak_bytes);
}

const char *element_drop_name(enum element_drop drop)
{
	static const char *const name[ELEMENT_DROPS] = {"passed", "queue", "loss", "burst", "outage"};

	return drop < ELEMENT_DROPS ? name[drop] : "?";
}
