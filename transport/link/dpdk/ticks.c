/* A device's clock beside the loop's; see ticks.h. */
#include "link/dpdk/ticks.h"

/* Quartzes differ by parts in ten thousand, readings by 20 us in 20 ms: more than one in 256 is a clock that somebody has set. */
static bool ticks_same_rate(uint64_t before, uint64_t q32)
{
	return (before > q32 ? before - q32 : q32 - before) <= before >> 8;
}

void ticks_read(struct ticks *t, uint64_t from_ns, uint64_t ticks, uint64_t to_ns)
{
	uint64_t ns = from_ns + (to_ns - from_ns) / 2, span = ns - t->ns;
	bool is_first = !t->ns, is_back = !is_first && ticks <= t->ticks;

	if (to_ns - from_ns > TICKS_READ_NS || (!is_first && span < TICKS_SPAN_NS)) {
		t->due_ns = to_ns + TICKS_SPAN_NS;
		return;
	}
	uint64_t q32 = is_first || is_back ? 0 : (uint64_t)(((unsigned __int128)span << 32) / (ticks - t->ticks));
	if (ticks_known(t) && !ticks_same_rate(t->tick_q32, q32))
		q32 = 0;
	t->due_ns = ns + (!q32 ? TICKS_SPAN_NS : 2 * span < TICKS_SPAN_MAX_NS ? 2 * span : TICKS_SPAN_MAX_NS);
	t->tick_q32 = q32;
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
