/* What is to be copied: the list of files, folders and safetensors files with their tensors, as both ends know it; its bytes on the way, and the
 * checks that a receiver makes before it believes one. Knows neither files nor network. */
#ifndef COPY_MANIFEST_H
#define COPY_MANIFEST_H
#include "copy.h"
#include "tern/tensor.h"

enum {
	MANIFEST_FILES_MAX = 4000000,
	MANIFEST_TENSORS_MAX = 4000000, /* of all files together */
	MANIFEST_BYTES_MAX = 256 << 20,
	MANIFEST_PATH_MAX = 4095,
	MANIFEST_NAME_MAX = 255,
};
#define MANIFEST_JOURNAL ".tern-resume"
#define MANIFEST_TEMP_SUFFIX ".tern-part"

enum manifest_kind { MANIFEST_FILE = 0, MANIFEST_FOLDER = 1, MANIFEST_TENSORS = 2 };

/* A tensor as it is sent: never empty, dimensions beyond TERN_DIMS_MAX folded into the first. */
struct manifest_tensor {
	uint32_t dtype, dims;
	uint64_t shape[TERN_DIMS_MAX];
	uint64_t begin, end; /* bytes in the file */
};

struct manifest_entry {
	char *path;           /* relative, '/' between names: the same at both ends */
	char *source;         /* sender: what to open */
	uint64_t bytes, mtime_ns;
	uint64_t dev, ino;    /* sender: the file that was looked at */
	uint32_t mode;        /* permission bits */
	uint32_t kind;        /* enum manifest_kind */
	uint64_t header_bytes; /* TENSORS: where the first tensor begins */
	struct manifest_tensor *tensor; /* in file order, without holes */
	uint32_t tensors;
	bool present;         /* resume: the receiver has it all */
	uint64_t have_bytes;  /* resume: the receiver has this much of its beginning */
};

struct manifest {
	struct manifest_entry *entry;
	size_t n, room;
	uint64_t total_bytes;
};

/** Appends an entry (zeroed but for its copied path). @return NULL without memory */
struct manifest_entry *manifest_add(struct manifest *m, const char *path, size_t path_bytes);
void manifest_fini(struct manifest *m);

/** Encodes it. @param out  malloc'ed. @return 0, or -1 (too large or no memory) with words in error */
int manifest_encode(const struct manifest *m, uint8_t **out, uint64_t *bytes, struct copy_error *error);
/** Decodes what a peer sent; everything is checked: bounds, paths, duplicates, tensors that tile their file. @return 0, or -1 with words in error */
int manifest_decode(struct manifest *m, const uint8_t *data, size_t bytes, struct copy_error *error);
/** A path that may be created below a folder: relative, no empty, "." or ".." names, no control of tern-copy's own files. @return NULL or what is wrong */
const char *manifest_path_wrong(const char *path);
/** Finds two entries of one path, or a file that another entry uses as a folder. @return 0, or -1 with words in error */
int manifest_unique(const struct manifest *m, struct copy_error *error);

#endif
