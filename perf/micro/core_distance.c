/* How far apart two cores are: the round trip of one cache line between two threads that spin on it. Between cores of one cache it is several times shorter than between
 * two caches, and a virtual machine's cores may change from the one to the other while it runs; what two processes move through memory costs accordingly.
 * perf/versus/dpdk.sh holds only such measurements against each other that were made equally far apart. Usage: core-distance CORE CORE [MILLISECONDS];
 * prints "round_trip_ns cycles_per_ns", the best tenth of the time. Knows nothing of Tern. */
#include <pthread.h>
#include <stdatomic.h>
#include "udp_common.h"

enum { LINE = 128, TENTHS = 10, TRIPS = 200 };

static _Alignas(LINE) _Atomic uint64_t there;
static _Alignas(LINE) _Atomic uint64_t back;
static _Alignas(LINE) atomic_bool over;
static int other;

static uint64_t ticks(void)
{
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#else
	return udp_now_ns();
#endif
}

static void *answer(void *arg)
{
	udp_pin(other);
	while (!atomic_load(&over))
		atomic_store(&back, atomic_load(&there));
	return arg;
}

int main(int argc, char **argv)
{
	double ms = argc > 3 ? strtod(argv[3], NULL) : 10, best = 0;
	pthread_t thread;

	if (argc < 3 || ms <= 0) {
		fprintf(stderr, "usage: %s CORE CORE [MILLISECONDS]\n", argv[0]);
		return 2;
	}
	udp_pin(atoi(argv[1]));
	other = atoi(argv[2]);
	if (pthread_create(&thread, NULL, answer, NULL))
		udp_die("pthread_create");
	uint64_t n = 0, first = udp_now_ns(), first_ticks = ticks();
	for (int tenth = 0; tenth < TENTHS; tenth++) {
		uint64_t start = udp_now_ns(), now = start, trips = 0;
		for (; (double)(now - start) < ms * 1e6 / TENTHS; now = udp_now_ns(), trips += TRIPS)
			for (int i = 0; i < TRIPS; i++) {
				atomic_store(&there, ++n);
				while (atomic_load(&back) != n)
					;
			}
		double each = (double)(now - start) / (double)trips;
		best = !tenth || each < best ? each : best;
	}
	printf("%.0f %.3f\n", best, (double)(ticks() - first_ticks) / (double)(udp_now_ns() - first));
	atomic_store(&over, 1);
	pthread_join(thread, NULL);
	return 0;
}
