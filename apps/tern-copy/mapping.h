/* Files mapped for sending. A page that is lost while mapped (the file was truncated, the disk failed) raises SIGBUS in whichever thread touches it,
 * the library's included; the handler here puts zeros under it and marks the mapping, and the transfer ends with an error instead of the process.
 * Knows nothing of tern. */
#ifndef COPY_MAPPING_H
#define COPY_MAPPING_H
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MAPPING_MAX = 4096 };

struct mapping {
	_Atomic uintptr_t base; /* 0: free slot */
	_Atomic size_t bytes;
	_Atomic bool lost;      /* a page was lost */
	_Atomic bool taken;
	int fd;
	size_t file;            /* the manifest's entry */
	_Atomic uint32_t users; /* pieces in flight, plus the reader */
};

/** Installs the SIGBUS handler; once. */
void mapping_signals_set(void);
/** Maps `bytes` (> 0) of fd, read-only; owns fd from then on. @return NULL with errno (EMFILE: all slots are taken); fd is then still the caller's */
struct mapping *mapping_open(int fd, size_t bytes, size_t file);
/** Unmaps when the last user has gone. */
void mapping_put(struct mapping *m);
/** Brings pages into memory, so that who reads them next does not fault. @return 0, -1: they are lost */
int mapping_populate(struct mapping *m, size_t offset, size_t bytes);
/** Notices a file that became shorter, and puts zeros behind its end so that the kernel's own reads do not fail. @return true: it is shorter, or was lost */
bool mapping_shrunk(struct mapping *m);
/** Looks at all that are open. @return one that has shrunk, NULL */
struct mapping *mapping_find_shrunk(void);

#endif
