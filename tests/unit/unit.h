/* Shared by the unit tests: a CUnit runner whose exit status is the result, and a seed that is printed and can be given again by TERN_SEED. */
#ifndef TESTS_UNIT_H
#define TESTS_UNIT_H
#include <CUnit/Basic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct unit_case { const char *name; void (*run)(void); };

static inline uint64_t unit_seed(void)
{
	const char *text = getenv("TERN_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
	printf("TERN_SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

static inline int unit_main(const char *suite, const struct unit_case *cases, size_t n)
{
	if (CU_initialize_registry() != CUE_SUCCESS)
		return 2;
	CU_pSuite s = CU_add_suite(suite, NULL, NULL);
	for (size_t i = 0; i < n; i++)
		if (!s || !CU_add_test(s, cases[i].name, cases[i].run))
			return 2;
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failed = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failed ? 1 : 0;
}
#define UNIT_MAIN(suite, cases) int main(void) { setbuf(stdout, NULL); return unit_main(suite, cases, sizeof(cases) / sizeof(cases[0])); }
#endif
