/* Element types: sizes and names. Called by applications (tern/tensor.h) and by layout and wire. Pure. */
#include "tern/tensor.h"

struct dtype {
	uint8_t bytes;
	const char *name;
};

static const struct dtype dtypes[TERN_DTYPE_END] = {
	[TERN_RAW] = {1, "raw"},
	[TERN_F64] = {8, "f64"},
	[TERN_F32] = {4, "f32"},
	[TERN_F16] = {2, "f16"},
	[TERN_BF16] = {2, "bf16"},
	[TERN_F8E4M3] = {1, "f8e4m3"},
	[TERN_F8E5M2] = {1, "f8e5m2"},
	[TERN_I64] = {8, "i64"},
	[TERN_I32] = {4, "i32"},
	[TERN_I16] = {2, "i16"},
	[TERN_I8] = {1, "i8"},
	[TERN_U8] = {1, "u8"},
	[TERN_BOOL] = {1, "bool"},
	[TERN_U16] = {2, "u16"},
	[TERN_U32] = {4, "u32"},
	[TERN_U64] = {8, "u64"},
};

size_t tern_dtype_bytes(uint32_t dtype)
{
	return dtype < TERN_DTYPE_END ? dtypes[dtype].bytes : 0;
}

const char *tern_dtype_name(uint32_t dtype)
{
	return dtype < TERN_DTYPE_END ? dtypes[dtype].name : "?";
}
