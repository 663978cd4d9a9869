/* Sizes and names of the element types: each known, each different, unknown ones harmless. */
#include <string.h>
#include "tern/tensor.h"
#include "unit.h"

static void all(void)
{
	for (uint32_t d = 0; d < TERN_DTYPE_END; d++) {
		size_t bytes = tern_dtype_bytes(d);
		const char *name = tern_dtype_name(d);
		CU_ASSERT(bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8);
		CU_ASSERT_STRING_NOT_EQUAL(name, "?");
		for (uint32_t e = 0; e < d; e++)
			CU_ASSERT_STRING_NOT_EQUAL(name, tern_dtype_name(e));
		const char *digits = strpbrk(name, "0123456789"); /* "bf16", "f8e4m3": the number is the bits */
		if (digits)
			CU_ASSERT_EQUAL(bytes * 8, (size_t)atoi(digits));
	}
	CU_ASSERT_EQUAL(tern_dtype_bytes(TERN_DTYPE_END), 0);
	CU_ASSERT_EQUAL(tern_dtype_bytes(UINT32_MAX), 0);
	CU_ASSERT_STRING_EQUAL(tern_dtype_name(UINT32_MAX), "?");
	CU_ASSERT_EQUAL(tern_dtype_bytes(TERN_RAW), 1);
}

static const struct unit_case cases[] = {{"sizes and names", all}};
UNIT_MAIN("base dtype", cases)
