/* Memory that a device behind the port may read where it is: registered with DPDK and mapped for its DMA, once a process whatever the number of ports, since they
 * share one IOMMU domain (mlx5 has one a port). Ports whose driver reads with the CPU, or copies, need none of it. Called by dpdk.c's table, from the loop's thread and
 * from those that register memory; frames need only the key, which tx.c finds without a look in here. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_memory.h>
#include "link/dpdk/dpdk.h"
#include "tern/error.h"
#include "tern/tern.h"

struct dpdk_map {
	const void *scope;
	uint8_t *addr, *end;
	uint32_t uses; /* 0: free entry */
	bool is_dpdks; /* its own memory, mapped since it started */
	bool is_known; /* registered with DPDK by the host program */
};

/* A key is an entry's number plus one. */
static pthread_mutex_t map_lock = PTHREAD_MUTEX_INITIALIZER;
static struct dpdk_map maps[DPDK_MAPS_MAX];

static bool mem_is(const struct dpdk_port *p, const char *driver)
{
	return !strncmp(p->driver.name, driver, strlen(driver));
}

int dpdk_mem_queue(const struct dpdk_port *p, uint16_t queue, unsigned socket, const struct rte_eth_txconf *tx)
{
	struct rte_eth_txconf conf = *tx;
	int err = -EINVAL;

	if (!mem_is(p, "net_virtio") || p->driver.reader != DPDK_READ_DEVICE)
		return rte_eth_tx_queue_setup(p->id, queue, p->tx_ring, socket, tx);
	/* as late as can be: then it frees all that are done whenever it is given one to send. How many entries the queue has, the device alone knows */
	rte_log_set_level_pattern("pmd.net.virtio.driver", RTE_LOG_CRIT);
	for (uint32_t n = p->tx_ring; err == -EINVAL && n >= 32; n /= 2) {
		conf.tx_free_thresh = (uint16_t)(n - 4);
		err = rte_eth_tx_queue_setup(p->id, queue, p->tx_ring, socket, &conf);
	}
	rte_log_set_level_pattern("pmd.net.virtio.driver", RTE_LOG_NOTICE);
	return err;
}

bool dpdk_mem_clean(const struct dpdk_link *l)
{
	if (rte_eth_tx_done_cleanup(l->port.id, l->port.tx_queue, 0) >= 0)
		return true;
	if (l->port.driver.reader == DPDK_READ_DEVICE && mem_is(&l->port, "net_virtio"))
		return false;
	rte_eth_tx_descriptor_status(l->port.id, l->port.tx_queue, 0); /* mlx5 frees them while it looks */
	return true;
}

/* To ourselves, of a local experiment's type (IEEE 802, 0x88b5): a switch does not send it back where it came from, and nobody else takes it. */
void dpdk_mem_kick(struct dpdk_link *l)
{
	uint8_t frame[60] = {0};

	if (l->now_ns - l->kick_ns < DPDK_KICK_NS)
		return;
	l->kick_ns = l->now_ns;
	memcpy(frame, l->port.mac.addr_bytes, RTE_ETHER_ADDR_LEN);
	memcpy(frame + RTE_ETHER_ADDR_LEN, l->port.mac.addr_bytes, RTE_ETHER_ADDR_LEN);
	frame[12] = 0x88;
	frame[13] = 0xb5;
	dpdk_tx_host(l, frame, sizeof(frame));
}

/* Can the driver be asked for what the wire has taken? */
static bool mem_gives_back(struct dpdk_link *l)
{
	struct dpdk_token *t = &l->share->tx[l->port.tx_queue];

	if (mem_is(&l->port, "mlx5") || mem_is(&l->port, "net_virtio"))
		return true;
	while (!dpdk_token_try(t))
		sched_yield(); /* another link sends just now: a call of the driver */
	int err = rte_eth_tx_done_cleanup(l->port.id, l->port.tx_queue, 0);
	dpdk_token_give(t);
	return err != -ENOTSUP;
}

void dpdk_mem_open(struct dpdk_link *l)
{
	static const char shared; /* vfio's default container */

	if (l->port.driver.reader != DPDK_READ_DEVICE)
		return;
	if (!mem_gives_back(l)) {
		l->port.driver.reader = DPDK_READ_COPY;
		dpdk_log(l, TERN_LOG_INFO, "dpdk: port %s gives frames back only when it is given others: each is copied", l->port.name);
		return;
	}
	l->base.caps |= LINK_MAPS;
	l->base.mem_scope = mem_is(&l->port, "mlx5") ? l : (const void *)&shared;
}

/* An entry that holds the range; *clash: one that has a part of it only. */
static struct dpdk_map *map_of(const struct dpdk_link *l, const uint8_t *addr, const uint8_t *end, bool *clash)
{
	*clash = false;
	for (uint32_t i = 0; i < DPDK_MAPS_MAX; i++) {
		struct dpdk_map *m = &maps[i];
		if (!m->uses || m->scope != l->base.mem_scope || addr >= m->end || end <= m->addr)
			continue;
		if (addr >= m->addr && end <= m->end)
			return m;
		*clash = true;
	}
	return NULL;
}

static struct dpdk_map *map_free(void)
{
	for (uint32_t i = 0; i < DPDK_MAPS_MAX; i++)
		if (!maps[i].uses)
			return &maps[i];
	return NULL;
}

static int map_new(struct dpdk_link *l, struct dpdk_map *m, char *why, size_t why_bytes)
{
	uint64_t bytes = (uint64_t)(m->end - m->addr);
	const struct rte_memseg_list *own = rte_mem_virt2memseg_list(m->addr);

	m->is_dpdks = own && !own->external && rte_mem_virt2memseg_list(m->end - 1) == own;
	if (m->is_dpdks)
		return 0;
	int err = rte_extmem_register(m->addr, bytes, NULL, 0, (size_t)sysconf(_SC_PAGESIZE)) ? rte_errno : 0;
	m->is_known = err == EEXIST;
	if (!err || m->is_known)
		err = rte_dev_dma_map(l->port.device, m->addr, (rte_iova_t)(uintptr_t)m->addr, bytes) ? rte_errno ? rte_errno : EIO : 0;
	if (!err)
		return 0;
	if (!m->is_known)
		rte_extmem_unregister(m->addr, bytes);
	snprintf(why, why_bytes,
	         "dpdk: port %s cannot reach %llu bytes at %p for DMA: %s; raise the memlock limit (ulimit -l), or leave them unregistered; frames "
	         "from there are copied", l->port.name, (unsigned long long)bytes, (void *)m->addr, rte_strerror(err));
	return -TERN_ENOMEM;
}

static int map_get(struct dpdk_link *l, uint8_t *addr, uint8_t *end, uint32_t *key, char *why, size_t why_bytes)
{
	bool clash;
	struct dpdk_map *m = map_of(l, addr, end, &clash);

	if (!m && clash) { /* the IOMMU takes no page twice */
		snprintf(why, why_bytes,
		         "dpdk: a part of %p to %p is mapped already, by page; register memory that begins and ends with one, or all in one piece; "
		         "frames from there are copied", (void *)addr, (void *)end);
		return -TERN_EIO;
	}
	if (!m) {
		m = map_free();
		if (!m) {
			snprintf(why, why_bytes, "dpdk: %d pieces of memory are mapped already; register larger ones; frames from there are copied",
			         DPDK_MAPS_MAX);
			return -TERN_ENOMEM;
		}
		*m = (struct dpdk_map){.scope = l->base.mem_scope, .addr = addr, .end = end};
		int err = map_new(l, m, why, why_bytes);
		if (err)
			return err;
	}
	m->uses++;
	*key = (uint32_t)(m - maps) + 1;
	return 0;
}

int dpdk_mem_map(struct link *link, const struct mem_what *what, uint32_t *key, char *why, size_t why_bytes)
{
	struct dpdk_link *l = (struct dpdk_link *)link;
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)what->addr & ~(page - 1);
	uintptr_t to = ((uintptr_t)what->addr + what->bytes + page - 1) & ~(page - 1);

	*key = 0;
	if (l->port.driver.reader != DPDK_READ_DEVICE)
		return 0;
	if (what->dmabuf_fd >= 0) {
		snprintf(why, why_bytes, "dpdk: DPDK maps no dma-buf for DMA; frames from there are copied");
		return -TERN_EIO;
	}
	if (rte_eal_iova_mode() != RTE_IOVA_VA) { /* the pages of others may move under the device */
		snprintf(why, why_bytes,
		         "dpdk: port %s addresses memory physically (no IOMMU): frames from registered memory are copied; with vfio-pci and the "
		         "IOMMU on (intel_iommu=on) they are not", l->port.name);
		return -TERN_EIO;
	}
	pthread_mutex_lock(&map_lock);
	int err = map_get(l, (uint8_t *)from, (uint8_t *)to, key, why, why_bytes);
	pthread_mutex_unlock(&map_lock);
	return err;
}

void dpdk_mem_unmap(struct link *link, uint32_t key)
{
	struct dpdk_link *l = (struct dpdk_link *)link;

	if (!key || key > DPDK_MAPS_MAX)
		return;
	pthread_mutex_lock(&map_lock);
	struct dpdk_map *m = &maps[key - 1];
	if (m->uses && !--m->uses && !m->is_dpdks) {
		rte_dev_dma_unmap(l->port.device, m->addr, (rte_iova_t)(uintptr_t)m->addr, (size_t)(m->end - m->addr));
		if (!m->is_known)
			rte_extmem_unregister(m->addr, (size_t)(m->end - m->addr));
	}
	pthread_mutex_unlock(&map_lock);
}
