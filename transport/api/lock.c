/* The cold half of lock.h: sleeping and waking. */
#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "api/lock.h"

/* Whoever has slept leaves the mark of a sleeper: it does not know whether it was the only one. */
void api_mutex_wait(struct api_mutex *m)
{
	while (atomic_exchange_explicit(&m->state, 2, memory_order_acquire))
		syscall(SYS_futex, &m->state, FUTEX_WAIT_PRIVATE, 2, NULL, NULL, 0); /* returns at once if it is not 2 any more; errors mean: look again */
}

void api_mutex_wake(struct api_mutex *m)
{
	syscall(SYS_futex, &m->state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}
