/* Tests of apps/lib/safetensors.c: what is accepted is described truly, what is refused is refused with words that name the tensor and the value. */
#include <string.h>
#include "safetensors.h"
#include "tern/tensor.h"
#include "unit/unit.h"

static struct st_file file;

/* Parses a header with so many bytes of data behind it. */
static int parse(const char *json, uint64_t data_bytes)
{
	static uint8_t bytes[65536];
	uint64_t n = strlen(json);
	for (int i = 0; i < 8; i++)
		bytes[i] = (uint8_t)(n >> 8 * i);
	memcpy(bytes + 8, json, n);
	st_fini(&file);
	return st_parse(bytes, 8 + n, 8 + n + data_bytes, &file);
}

static void refuse(const char *json, uint64_t data_bytes, const char *words)
{
	CU_ASSERT_EQUAL(parse(json, data_bytes), -1);
	if (!strstr(file.error, words)) {
		printf("\n'%s' lacks '%s'\n", file.error, words);
		CU_FAIL("error text");
	}
}

#define T(type, shape, begin, end) "{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"

static void test_accepts(void)
{
	CU_ASSERT_EQUAL(parse("{\"__metadata__\":{\"a\":\"b\"},\"w\":" T("BF16", "[2,3]", 4, 16) ",\"s\":" T("F32", "[]", 0, 4) ",\"z\":" T(
	                              "I8", "[0]", 16, 16) "}",
	                        12 + 4),
	        0);
	CU_ASSERT_EQUAL(file.n, 3);
	CU_ASSERT_STRING_EQUAL(file.tensor[0].name, "s");
	CU_ASSERT_EQUAL(file.tensor[0].dims, 0);
	CU_ASSERT_EQUAL(file.tensor[1].dtype, TERN_BF16);
	CU_ASSERT_EQUAL(file.tensor[1].dims, 2);
	CU_ASSERT_EQUAL(file.tensor[1].shape[1], 3);
	CU_ASSERT_EQUAL(file.tensor[1].begin, file.data_offset + 4);
	CU_ASSERT_EQUAL(file.tensor[2].end, file.data_offset + 16);
	CU_ASSERT_EQUAL(parse("{}", 0), 0);
	CU_ASSERT_EQUAL(parse("{}   ", 0), 0);
	CU_ASSERT_EQUAL(parse("{\"q\":" T("F4", "[4]", 0, 2) "}", 2), 0);
	CU_ASSERT_EQUAL(file.tensor[0].dtype, TERN_RAW);
}

static void test_refuses(void)
{
	refuse("{\"a\":" T("U8", "[8]", 0, 8) ",\"b\":" T("U8", "[8]", 4, 12) "}", 12, "'b' overlaps 'a' by 4");
	refuse("{\"a\":" T("U8", "[4]", 0, 4) ",\"b\":" T("U8", "[4]", 8, 12) "}", 12, "4 bytes between 'a' and tensor 'b'");
	refuse("{\"a\":" T("U8", "[4]", 0, 4) "}", 9, "5 bytes behind 'a'");
	refuse("{\"a\":" T("U8", "[40]", 0, 40) "}", 9, "holds only 9: it is truncated");
	refuse("{\"a\":" T("U8", "[4]", 4, 0) "}", 4, "behind their end");
	refuse("{\"a\":" T("F32", "[4]", 0, 4) "}", 4, "need 16 bytes, data_offsets give 4");
	refuse("{\"a\":" T("F64", "[4611686018427387904,4]", 0, 0) "}", 0, "overflows");
	refuse("{\"a\":" T("F64", "[-1]", 0, 8) "}", 8, "dimension 0");
	refuse("{\"a\":" T("F128", "[1]", 0, 16) "}", 16, "unknown dtype 'F128'");
	refuse("{\"a\":" T("U8", "[1]", 0, 1) ",\"a\":" T("U8", "[1]", 0, 1) "}", 1, "not valid JSON");
	refuse("{\"a\":[[[[[[[[[[]]]]]]]]]]}", 0, "nests deeper");
	refuse("{\"__metadata__\":{\"a\":1}}", 0, "__metadata__ key 'a'");
	refuse("[1]", 0, "does not begin with");
	refuse("{\"a\":{}} x", 0, "not valid JSON");
}

static void test_length(void)
{
	uint8_t bytes[16] = {255, 255, 255, 255, 255, 255, 255, 255, '{', '}'};
	st_fini(&file);
	CU_ASSERT_EQUAL(st_parse(bytes, 10, 10, &file), -1);
	CU_ASSERT_PTR_NOT_NULL(strstr(file.error, "limit"));
	CU_ASSERT_EQUAL(st_parse(bytes, 7, 7, &file), -1);
	CU_ASSERT_PTR_NOT_NULL(strstr(file.error, "truncated"));
	memset(bytes, 0, 8);
	bytes[0] = 3;
	CU_ASSERT_EQUAL(st_parse(bytes, 10, 10, &file), -1);
	CU_ASSERT_PTR_NOT_NULL(strstr(file.error, "should have 3 bytes"));
	bytes[0] = 2;
	CU_ASSERT_EQUAL(st_parse(bytes, 10, 10, &file), 0);
	st_fini(&file);
}

static const struct unit_case cases[] = {{"accepts", test_accepts}, {"refuses", test_refuses}, {"length", test_length}};
UNIT_MAIN("safetensors", cases)
