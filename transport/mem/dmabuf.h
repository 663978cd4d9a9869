/* Memory that another driver owns, as a file (dma-buf): mapped for the processor where its driver allows, and told when the processor begins and ends to look, so that
 * caches of device and processor agree. Used by api/; links get the file itself. */
#ifndef MEM_DMABUF_H
#define MEM_DMABUF_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Maps bytes [offset, offset + bytes) for the processor. @return 0; -TERN_EINVAL (no dma-buf, or it is shorter), -TERN_EIO (it cannot be mapped), words in why */
int mem_dmabuf_map(int fd, uint64_t offset, uint64_t bytes, void **addr, char *why, size_t why_bytes);
void mem_dmabuf_unmap(void *addr, uint64_t offset, uint64_t bytes);

/** The processor begins (or ends) to read, or to read and write. One system call. */
void mem_dmabuf_sync(int fd, bool writes, bool begins);

#endif
