/* The object pool: every size gives back distinct, aligned objects, indices round-trip, a double put aborts. */
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/pool.h"
#include "rand.h"
#include "unit.h"

static void all_sizes(void)
{
	for (uint32_t bytes = 1; bytes <= 300; bytes++) {
		uint32_t n = 57;
		void *memory = malloc(pool_bytes(bytes, n));
		struct pool pool;
		void *object[57];
		pool_init(&pool, memory, bytes, n);
		for (uint32_t i = 0; i < n; i++) {
			object[i] = pool_get(&pool);
			CU_ASSERT_FATAL(object[i] != NULL);
			CU_ASSERT_EQUAL((uintptr_t)object[i] % 8, 0);
			memset(object[i], (int)i, bytes);
			CU_ASSERT_EQUAL(pool_index_of(&pool, object[i]), i);
			CU_ASSERT_PTR_EQUAL(pool_at(&pool, i), object[i]);
		}
		CU_ASSERT_PTR_NULL(pool_get(&pool));
		CU_ASSERT_EQUAL(pool_used(&pool), n);
		for (uint32_t i = 0; i < n; i++) {
			for (uint32_t b = 0; b < bytes; b++)
				CU_ASSERT_EQUAL_FATAL(((uint8_t *)object[i])[b], i);
			pool_put(&pool, object[i]);
		}
		CU_ASSERT_EQUAL(pool_used(&pool), 0);
		free(memory);
	}
}

static void random_gets_and_puts(void)
{
	enum { N = 1000 };
	struct pool pool;
	void *memory = malloc(pool_bytes(40, N)), *out[N];
	uint32_t used = 0;
	pool_init(&pool, memory, 40, N);
	rand_start(unit_seed());
	for (int step = 0; step < 1000000; step++) {
		if (rand_next() >> 63 || !used) {
			uint64_t *object = pool_get(&pool);
			CU_ASSERT_EQUAL_FATAL(object == NULL, used == N);
			if (!object)
				continue;
			CU_ASSERT_FATAL(pool_is_used(&pool, pool_index_of(&pool, object)));
			object[0] = object[4] = pool_index_of(&pool, object);
			out[used++] = object;
		} else {
			uint32_t pick = (uint32_t)rand_below(used);
			uint64_t *object = out[pick];
			CU_ASSERT_FATAL(object[0] == pool_index_of(&pool, object) && object[4] == object[0]);
			out[pick] = out[--used];
			pool_put(&pool, object);
			CU_ASSERT_FATAL(!pool_is_used(&pool, pool_index_of(&pool, object)));
		}
		CU_ASSERT_EQUAL_FATAL(pool_used(&pool), used);
	}
	free(memory);
}

static void empty_pool(void)
{
	struct pool pool;
	uint64_t memory[1];
	pool_init(&pool, memory, 8, 0);
	CU_ASSERT_PTR_NULL(pool_get(&pool));
	CU_ASSERT_FALSE(pool_is_used(&pool, 0));
}

static void double_put_aborts(void)
{
	pid_t child = fork();
	if (child == 0) {
		uint64_t memory[8];
		struct pool pool;
		freopen("/dev/null", "w", stderr);
		signal(SIGABRT, SIG_DFL);
		pool_init(&pool, memory, 8, 4);
		void *object = pool_get(&pool);
		pool_put(&pool, object);
		pool_put(&pool, object);
		_exit(0);
	}
	int status = 0;
	CU_ASSERT_EQUAL(waitpid(child, &status, 0), child);
	CU_ASSERT(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static const struct unit_case cases[] = {
	{"every object size: distinct, aligned, indices round-trip", all_sizes},
	{"random gets and puts", random_gets_and_puts},
	{"a pool of none", empty_pool},
	{"a double put aborts", double_put_aborts},
};
UNIT_MAIN("base pool", cases)
