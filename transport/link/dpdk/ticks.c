/* A device's clock beside the loop's; see ticks.h. */
#include "link/dpdk/ticks.h"

/* Quartzes differ by parts in ten thousand, and either rate is wrong by what its two readings were, half of TICKS_READ_NS each at most: more than that is a clock that
 * somebody has set. */
static bool ticks_same_rate(const struct ticks *t, uint64_t q32, uint64_t span_ns)
{
	uint64_t read = t->tick_q32 * TICKS_READ_NS, most = t->tick_q32 / 2000 + read / span_ns + read / t->span_ns;
	return (t->tick_q32 > q32 ? t->tick_q32 - q32 : q32 - t->tick_q32) <= most;
}

/* A reading that took too long. */
static void ticks_miss(struct ticks *t, uint64_t ns)
{
	uint64_t hold_ns = TICKS_HOLD * (t->tick_q32 ? t->span_ns : TICKS_SPAN_NS);

	t->retry_ns = !t->retry_ns ? TICKS_SPAN_NS : 2 * t->retry_ns < TICKS_SPAN_MAX_NS ? 2 * t->retry_ns : TICKS_SPAN_MAX_NS;
	t->due_ns = ns + t->retry_ns;
	if (t->ns && ns - t->ns > hold_ns)
		t->ns = t->tick_q32 = 0;
}

void ticks_read(struct ticks *t, uint64_t from_ns, uint64_t ticks, uint64_t to_ns)
{
	uint64_t ns = from_ns + (to_ns - from_ns) / 2, span = ns - t->ns;
	bool is_first = !t->ns, is_back = !is_first && ticks <= t->ticks;

	if (to_ns - from_ns > TICKS_READ_NS) {
		ticks_miss(t, to_ns);
		return;
	}
	if (!is_first && span < TICKS_SPAN_NS) {
		t->due_ns = to_ns + TICKS_SPAN_NS;
		return;
	}
	uint64_t q32 = is_first || is_back ? 0 : (uint64_t)(((unsigned __int128)span << 32) / (ticks - t->ticks));
	if (ticks_known(t) && !ticks_same_rate(t, q32, span))
		q32 = 0;
	t->due_ns = ns + (!q32 ? TICKS_SPAN_NS : 2 * span < TICKS_SPAN_MAX_NS ? 2 * span : TICKS_SPAN_MAX_NS);
	t->tick_q32 = q32;
	t->span_ns = span;
	t->retry_ns = 0;
	t->ns = ns;
	t->ticks = ticks;
}

uint64_t ticks_at(const struct ticks *t, uint64_t ns)
{
	__int128 away = (__int128)(int64_t)(ns - t->ns) * ((__int128)1 << 32);
	return t->ticks + (uint64_t)(int64_t)(away / (__int128)t->tick_q32);
}

uint64_t ticks_ns(const struct ticks *t, uint64_t ticks)
{
	__int128 away = (__int128)(int64_t)(ticks - t->ticks) * (__int128)t->tick_q32;
	return t->ns + (uint64_t)(int64_t)(away / ((__int128)1 << 32));
}
