/* dma-buf as linux/dma-buf.h has it. Nesting is the kernel's: each begin has its end. */
#include "mem/dmabuf.h"
#include <errno.h>
#include <linux/dma-buf.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include "tern/error.h"

static int dmabuf_sync(int fd, uint64_t flags)
{
	struct dma_buf_sync sync = {.flags = flags};
	int rc;
	do
		rc = ioctl(fd, DMA_BUF_IOCTL_SYNC, &sync);
	while (rc && (errno == EINTR || errno == EAGAIN));
	return rc;
}

void mem_dmabuf_sync(int fd, bool writes, bool begins)
{
	dmabuf_sync(fd, (writes ? DMA_BUF_SYNC_RW : DMA_BUF_SYNC_READ) | (begins ? DMA_BUF_SYNC_START : DMA_BUF_SYNC_END));
}

static uint64_t dmabuf_slack(uint64_t offset)
{
	return offset % (uint64_t)sysconf(_SC_PAGESIZE);
}

int mem_dmabuf_map(int fd, uint64_t offset, uint64_t bytes, void **addr, char *why, size_t why_bytes)
{
	uint64_t slack = dmabuf_slack(offset);
	off_t all = lseek(fd, 0, SEEK_END);

	*addr = NULL;
	if (dmabuf_sync(fd, DMA_BUF_SYNC_READ | DMA_BUF_SYNC_START)) {
		snprintf(why, why_bytes, "descriptor %d is no dma-buf: %s", fd, strerror(errno));
		return -TERN_EINVAL;
	}
	dmabuf_sync(fd, DMA_BUF_SYNC_READ | DMA_BUF_SYNC_END);
	if (all >= 0 && (offset > (uint64_t)all || bytes > (uint64_t)all - offset)) {
		snprintf(why, why_bytes, "%llu bytes at offset %llu reach past the end of the dma-buf, which has %lld", (unsigned long long)bytes,
		         (unsigned long long)offset, (long long)all);
		return -TERN_EINVAL;
	}
	uint8_t *p = mmap(NULL, bytes + slack, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)(offset - slack));
	if (p == MAP_FAILED) {
		snprintf(why, why_bytes,
		         "the dma-buf cannot be mapped for the processor: %s; small messages and what was lost go through it: export the memory so "
		         "that it can be (DRM_RDWR), or stage it in host memory", strerror(errno));
		return -TERN_EIO;
	}
	*addr = p + slack;
	return 0;
}

void mem_dmabuf_unmap(void *addr, uint64_t offset, uint64_t bytes)
{
	uint64_t slack = dmabuf_slack(offset);
	munmap((uint8_t *)addr - slack, bytes + slack);
}
