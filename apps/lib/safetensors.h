/* The safetensors format: a little-endian u64 with the header's length, a JSON header, then the tensors' bytes without holes. Parses a header that
 * may come from anywhere: everything in it is checked before a caller sees it. Used by tern-copy and by tests/fuzz; knows files only as bytes in
 * memory. */
#ifndef APPS_SAFETENSORS_H
#define APPS_SAFETENSORS_H
#include <stddef.h>
#include <stdint.h>

enum {
	ST_HEADER_MAX_BYTES = 100000000, /* the reference implementation's bound */
	ST_DIMS_MAX = 64,                /* ours; real files have up to 5 */
	ST_TENSORS_MAX = 1000000,
	ST_TEXT_MAX = 512,
	ST_DEPTH_MAX = 8,                /* of nested JSON; a valid header needs 3 */
};

/* One tensor; offsets count from the file's beginning. */
struct st_tensor {
	char *name;
	uint32_t dtype;         /* enum tern_dtype; TERN_RAW for a type that tern has no name for but whose size is known */
	uint32_t element_bytes;
	uint32_t dims;
	uint64_t *shape;        /* `dims` elements */
	uint64_t begin, end;    /* bytes in the file */
};

struct st_file {
	uint64_t data_offset;     /* where the header ends: 8 + its length */
	size_t n;
	struct st_tensor *tensor; /* ordered by begin, covering [data_offset, file's end) without holes */
	char error[ST_TEXT_MAX];  /* after a failure: what was wrong, with the value, and what to do */
};

/**
 * Parses the header of a safetensors file.
 * @param bytes       at least the first `room` bytes of the file, in memory
 * @param room        how many of them are readable; st_parse asks for no more than 8 + header length
 * @param file_bytes  size of the whole file
 * @param out         the tensors; freed by st_fini, also after a failure (it holds the error's text)
 * @return 0, or -1 with out->error
 */
int st_parse(const uint8_t *bytes, size_t room, uint64_t file_bytes, struct st_file *out);
void st_fini(struct st_file *file);

#endif
