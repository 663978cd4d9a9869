/* Memory as links are told of it: what it is, where, and for how long. Plain data. */
#ifndef MEM_WHAT_H
#define MEM_WHAT_H
#include <stdbool.h>
#include <stdint.h>

struct mem_what {
	uint8_t *addr; /* as the processor sees it */
	uint64_t bytes;
	int dmabuf_fd; /* -1: ordinary memory; otherwise the region is this dma-buf's, from `offset` on */
	uint64_t offset;
	bool is_sent_only; /* frames leave from it, nothing is received there: links that write need not know it */
	bool lasts;        /* registered until further notice; otherwise one operation's */
};

static inline struct mem_what mem_what_host(void *addr, uint64_t bytes, bool lasts)
{
	return (struct mem_what){.addr = (uint8_t *)addr, .bytes = bytes, .dmabuf_fd = -1, .lasts = lasts};
}

#endif
