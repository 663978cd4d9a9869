/* Memory that a device behind the port may read where it is. Ports whose driver reads with the CPU, or copies, need none of it. Called by dpdk.c's
 * table. */
#include <stdio.h>
#include <unistd.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_memory.h>
#include "link/dpdk/dpdk.h"
#include "tern/error.h"

/* A key is an entry's number plus one. */
static bool map_holds(const struct dpdk_map *m, const uint8_t *addr, uint64_t bytes)
{
	return m->uses && addr >= m->addr && bytes <= m->bytes && (uint64_t)(addr - m->addr) <= m->bytes - bytes;
}

static struct dpdk_map *map_of(struct dpdk_link *l, const uint8_t *addr, uint64_t bytes)
{
	uint32_t left = l->n_maps;
	if (map_holds(&l->maps[l->last_map], addr, bytes))
		return &l->maps[l->last_map];
	for (uint32_t i = 0; left && i < DPDK_MAPS_MAX; i++) {
		if (map_holds(&l->maps[i], addr, bytes)) {
			l->last_map = i;
			return &l->maps[i];
		}
		left -= l->maps[i].uses > 0;
	}
	return NULL;
}

bool dpdk_mem_has(struct dpdk_link *l, const uint8_t *addr, uint64_t bytes)
{
	return map_of(l, addr, bytes) != NULL;
}

static int map_new(struct dpdk_link *l, uint8_t *addr, uint64_t bytes, struct dpdk_map *m)
{
	int err = rte_extmem_register(addr, bytes, NULL, 0, (size_t)sysconf(_SC_PAGESIZE)) ? rte_errno : 0;
	bool known = err == EEXIST; /* by another link, or by the host program */
	if (!err || known)
		err = rte_dev_dma_map(l->port.device, addr, (rte_iova_t)(uintptr_t)addr, bytes) ? rte_errno : 0;
	if (err == EEXIST)
		err = 0;
	if (err) {
		if (!known)
			rte_extmem_unregister(addr, bytes);
		snprintf(l->base.trouble, sizeof(l->base.trouble),
		         "dpdk: port %s cannot reach %llu bytes at %p for DMA: %s; raise the memlock limit (ulimit -l), or leave it unregistered: "
		         "then each frame is copied", l->port.name, (unsigned long long)bytes, (void *)addr, rte_strerror(err));
		return -TERN_ENOMEM;
	}
	*m = (struct dpdk_map){.addr = addr, .bytes = bytes};
	return 0;
}

int dpdk_mem_map(struct link *link, void *addr, uint64_t bytes, uint32_t *key)
{
	struct dpdk_link *l = (struct dpdk_link *)link;
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)addr & ~(page - 1);
	uint64_t all = (((uintptr_t)addr + bytes + page - 1) & ~(page - 1)) - from;

	*key = 0;
	/* physical addresses of other people's pages may change under a device: such frames are copied */
	if (l->port.driver.reader != DPDK_READ_DEVICE || rte_eal_iova_mode() != RTE_IOVA_VA)
		return 0;
	struct dpdk_map *m = map_of(l, (uint8_t *)from, all);
	for (uint32_t i = 0; !m && i < DPDK_MAPS_MAX; i++)
		if (!l->maps[i].uses) {
			int err = map_new(l, (uint8_t *)from, all, &l->maps[i]);
			if (err)
				return err;
			m = &l->maps[i];
		}
	if (!m) {
		snprintf(l->base.trouble, sizeof(l->base.trouble), "dpdk: %d pieces of memory are mapped already; register larger ones",
			DPDK_MAPS_MAX);
		return -TERN_ENOMEM;
	}
	l->n_maps += !m->uses++;
	*key = (uint32_t)(m - l->maps) + 1;
	return 0;
}

void dpdk_mem_unmap(struct link *link, uint32_t key)
{
	struct dpdk_link *l = (struct dpdk_link *)link;
	if (!key || key > DPDK_MAPS_MAX)
		return;
	struct dpdk_map *m = &l->maps[key - 1];
	if (--m->uses)
		return;
	l->n_maps--;
	rte_dev_dma_unmap(l->port.device, m->addr, (rte_iova_t)(uintptr_t)m->addr, m->bytes);
	rte_extmem_unregister(m->addr, m->bytes);
}
