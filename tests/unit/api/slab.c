/* Slabs: as many objects as there are, each to one taker at a time, for ever; also with several threads at it. */
#include <pthread.h>
#include <string.h>
#include "api/context.h"
#include "unit.h"

enum { N = 100, THREADS = 4, ROUNDS = 100000 };

static void all_and_again(void)
{
	struct api_slab s = {0};
	uint8_t *object[N];
	CU_ASSERT_EQUAL_FATAL(api_slab_open(&s, 40, N), 0);
	for (int round = 0; round < 1000; round++) {
		bool seen[N] = {false};
		for (int i = 0; i < N; i++) {
			object[i] = api_slab_get(&s);
			CU_ASSERT_PTR_NOT_NULL_FATAL(object[i]);
			uint32_t index = api_slab_index(&s, object[i]);
			CU_ASSERT_FATAL(index < N && !seen[index]);
			CU_ASSERT_EQUAL((uintptr_t)object[i] % 64, 0);
			seen[index] = true;
			memset(object[i], round, 40);
		}
		CU_ASSERT_PTR_NULL(api_slab_get(&s));
		for (int i = 0; i < N; i++)
			api_slab_put(&s, object[(i * 7 + round) % N]);
	}
	api_slab_close(&s);
	api_slab_close(&s); /* again is nothing */
}

static struct api_slab shared;

static void *taker(void *arg)
{
	uint64_t mine = (uintptr_t)arg, clashes = 0;
	for (int i = 0; i < ROUNDS; i++) {
		uint64_t *object = api_slab_get(&shared);
		if (!object)
			continue;
		__atomic_store_n(object, mine, __ATOMIC_RELAXED);
		for (int spin = 0; spin < 10; spin++)
			clashes += __atomic_load_n(object, __ATOMIC_RELAXED) != mine;
		api_slab_put(&shared, object);
	}
	return (void *)(uintptr_t)clashes;
}

static void threads(void)
{
	pthread_t t[THREADS];
	CU_ASSERT_EQUAL_FATAL(api_slab_open(&shared, 8, 3), 0);
	for (uintptr_t i = 0; i < THREADS; i++)
		CU_ASSERT_EQUAL_FATAL(pthread_create(&t[i], NULL, taker, (void *)(i + 1)), 0);
	for (int i = 0; i < THREADS; i++) {
		void *clashes;
		pthread_join(t[i], &clashes);
		CU_ASSERT_PTR_NULL(clashes);
	}
	for (int i = 0; i < 3; i++)
		CU_ASSERT_PTR_NOT_NULL(api_slab_get(&shared)); /* none was lost */
	CU_ASSERT_PTR_NULL(api_slab_get(&shared));
	api_slab_close(&shared);
}

static const struct unit_case cases[] = {{"all_and_again", all_and_again}, {"threads", threads}};
UNIT_MAIN("api_slab", cases)
