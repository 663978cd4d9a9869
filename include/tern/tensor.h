/* Memory that messages are sent from and received into: plain ranges, lists of ranges, strided tensors. */
#ifndef TERN_TENSOR_H
#define TERN_TENSOR_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

typedef struct tern_mem tern_mem; /* registered memory, see tern.h */

enum { TERN_DIMS_MAX = 8 };

/* Element types. TERN_RAW is untyped bytes and matches any type. */
enum tern_dtype {
	TERN_RAW = 0,
	TERN_F64,
	TERN_F32,
	TERN_F16,
	TERN_BF16,
	TERN_F8E4M3,
	TERN_F8E5M2,
	TERN_I64,
	TERN_I32,
	TERN_I16,
	TERN_I8,
	TERN_U8,
	TERN_BOOL,
	TERN_U16,
	TERN_U32,
	TERN_U64,
	TERN_DTYPE_END
};

/** @return bytes of one element of `dtype` (TERN_RAW: 1), 0 for an unknown one */
size_t tern_dtype_bytes(uint32_t dtype);
/** @return the name, such as "bf16"; "?" for an unknown one; static */
const char *tern_dtype_name(uint32_t dtype);

/**
 * A tensor in memory. The library reads the description during the call only; the elements stay the caller's, and must
 * not change (send, write) or be read (receive, read) until the operation's event.
 * Elements travel in row-major order of `shape`, last dimension fastest, whatever the strides of either end.
 */
typedef struct tern_tensor {
	void *data;                           /* the element at index 0,0,... */
	tern_mem *mem;                        /* registered memory that holds it, or NULL: found or registered on the way */
	uint32_t dtype;                       /* enum tern_dtype */
	uint32_t dims;                        /* 0 (one element) to 8 */
	uint64_t shape[TERN_DIMS_MAX];        /* elements; a 0 makes it empty, and an empty tensor is a valid message */
	int64_t stride_bytes[TERN_DIMS_MAX];  /* bytes between neighbours; may be negative. All 0: contiguous, row-major */
} tern_tensor;

/* A contiguous range; the caller's memory, same rule as tern_tensor's elements. */
typedef struct tern_iov {
	void *addr;
	uint64_t bytes;
	tern_mem *mem; /* or NULL */
} tern_iov;

/* What an operation sends from or receives into: a list of ranges, or one tensor. Both empty is a message of 0 bytes. */
typedef struct tern_buf {
	const tern_iov *iov; /* `n` ranges, at most 64; read during the call only */
	size_t n;
	const tern_tensor *tensor; /* instead of iov: then n is 0 */
} tern_buf;

#ifdef __cplusplus
}
#endif
#endif
