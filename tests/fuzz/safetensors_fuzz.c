/* Fuzz target: safetensors headers. The first byte says how much longer the file claims to be than the bytes given (tensor data is never read), the
 * rest is the file's beginning. What parses must hold what st_parse promises: tensors in order, inside the file, without holes. */
#include <stdlib.h>
#include <string.h>
#include "safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct st_file file;
	if (!bytes)
		return 0;
	uint64_t file_bytes = bytes - 1 + (uint64_t)data[0] * (data[0] > 250 ? UINT64_C(1) << 50 : 1), at;
	if (st_parse(data + 1, bytes - 1, file_bytes, &file)) {
		if (!file.error[0] || !memchr(file.error, 0, sizeof(file.error)))
			abort();
		st_fini(&file);
		return 0;
	}
	at = file.data_offset;
	for (size_t i = 0; i < file.n; i++) {
		const struct st_tensor *t = &file.tensor[i];
		if (t->begin != at || t->end < t->begin || t->end > file_bytes || t->dims > ST_DIMS_MAX || !t->name || !t->element_bytes)
			abort();
		at = t->end;
	}
	if (at != file_bytes)
		abort();
	st_fini(&file);
	return 0;
}
