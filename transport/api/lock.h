/* The context's lock: an instruction or two where nobody else wants it, which is nearly always. pthread_mutex's trylock and unlock took 230 instructions a message of a
 * caller that drives the loop itself. Mutex 2 of Drepper, "Futexes Are Tricky". Whoever waits sleeps; no order among those. Used by api/ only. */
#ifndef API_LOCK_H
#define API_LOCK_H
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct api_mutex {
	_Atomic uint32_t state; /* 0: free, 1: held, 2: held, and somebody may sleep. Release by drop pairs with acquire by try and wait */
};

void api_mutex_wait(struct api_mutex *m);
void api_mutex_wake(struct api_mutex *m);

static inline bool api_mutex_try(struct api_mutex *m)
{
	uint32_t free = 0;
	return atomic_compare_exchange_strong_explicit(&m->state, &free, 1, memory_order_acquire, memory_order_relaxed);
}

static inline void api_mutex_take(struct api_mutex *m)
{
	if (!api_mutex_try(m))
		api_mutex_wait(m);
}

static inline void api_mutex_drop(struct api_mutex *m)
{
	if (atomic_exchange_explicit(&m->state, 0, memory_order_release) == 2)
		api_mutex_wake(m);
}

#endif
