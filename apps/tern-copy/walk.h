/* What the sender finds on disk: files and folders into a manifest, safetensors files parsed. Knows no network. */
#ifndef COPY_WALK_H
#define COPY_WALK_H
#include "manifest.h"

/**
 * Lists the sources. FILE becomes NAME; DIR becomes DIR's name with all below; "DIR/", "." and ".." give what is in them. Symbolic links are followed
 * (caches of models are made of them); sockets, devices and dangling links are skipped with a line on standard error.
 * @return 0, -1 with words in error
 */
int walk_sources(const struct copy_options *o, struct manifest *m, struct copy_error *error);
/** Opens a source again and tells whether it still is the file that was listed. @return descriptor, -1 with words in error */
int walk_open(const struct manifest_entry *e, struct copy_error *error);
/** Looks at the file behind the descriptor and its name once more, after its last byte was read. @return 0, -1 with words in error */
int walk_unchanged(const struct manifest_entry *e, int fd, struct copy_error *error);

#endif
