/* Devices, domains and registered memory, shared by the links of a process: a region is registered once a domain and device, whoever maps it how
 * often. Called by the other files of this link from any thread; one mutex, which is not held while a device registers what a caller brings: 40 GB take it the better
 * part of a second, and a loop that needs a key meanwhile must not wait for it. Knows nothing of paths and connections. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "link/rdma/rdma.h"
#include "mem/index.h"
#include "tern/error.h"

enum { REGION_SLOT_BITS = 20, REGION_SLOT_MASK = (1 << REGION_SLOT_BITS) - 1, REGION_FIRST = 64 };

struct rdma_region {
	struct mem_range range; /* first */
	struct mem_what what;   /* dmabuf_fd: our own */
	uint32_t key; /* generation << REGION_SLOT_BITS | slot + 1 */
	uint32_t refs;
	struct ibv_mr *mr[RDMA_PORTS_MAX];
	bool is_read_only[RDMA_PORTS_MAX]; /* no window can be bound to it: the request would end the connection */
};

struct rdma_domain {
	struct rdma_domain *next;
	uint64_t number;
	uint32_t refs;
	bool odp;
	struct rdma_device *device[RDMA_PORTS_MAX];
	struct rdma_region **slot; /* by key */
	uint32_t *generation;
	uint32_t n_slots, first_free;
	struct mem_index index;
	_Atomic uint32_t wraps;      /* how often keys have begun to repeat */
};

static pthread_mutex_t memory_lock = PTHREAD_MUTEX_INITIALIZER;
static struct rdma_domain *domains;

int rdma_domain_get(uint64_t number, bool odp, struct rdma_domain **out)
{
	pthread_mutex_lock(&memory_lock);
	struct rdma_domain *d = domains;
	while (d && d->number != number)
		d = d->next;
	if (!d && (d = calloc(1, sizeof(*d)))) {
		d->number = number;
		d->odp = odp;
		d->next = domains;
		domains = d;
	}
	if (d)
		d->refs++;
	pthread_mutex_unlock(&memory_lock);
	*out = d;
	return d ? 0 : -TERN_ENOMEM;
}

static void region_free(struct rdma_region *r)
{
	for (uint32_t i = 0; i < RDMA_PORTS_MAX; i++)
		if (r->mr[i])
			ibv_dereg_mr(r->mr[i]);
	if (r->what.dmabuf_fd >= 0)
		close(r->what.dmabuf_fd);
	free(r);
}

static struct rdma_region *region_nth(const struct rdma_domain *d, uint32_t i)
{
	return (struct rdma_region *)d->index.sorted[i];
}

void rdma_domain_put(struct rdma_domain *d)
{
	pthread_mutex_lock(&memory_lock);
	if (!--d->refs) {
		struct rdma_domain **at = &domains;
		while (*at != d)
			at = &(*at)->next;
		*at = d->next;
		for (uint32_t i = 0; i < d->index.used; i++)
			region_free(region_nth(d, i));
		mem_index_fini(&d->index);
		free(d->slot);
		free(d->generation);
		free(d);
	}
	pthread_mutex_unlock(&memory_lock);
}

void rdma_words_locked(char *out, size_t room, uint64_t bytes)
{
	struct rlimit limit;
	unsigned long long need = (bytes + 1023) / 1024;

	if (getrlimit(RLIMIT_MEMLOCK, &limit) || limit.rlim_cur == RLIM_INFINITY)
		snprintf(out, room, "the system has no memory left to pin");
	else
		snprintf(out, room,
		        "`ulimit -l` is %llu KiB in all, this alone needs %llu KiB more: raise it (`ulimit -l unlimited`, or memlock in limits.conf)",
		        (unsigned long long)limit.rlim_cur / 1024, need);
}

static void region_words(char *why, size_t room, const struct rdma_region *r, const struct rdma_device *device, int error)
{
	unsigned long long bytes = r->what.bytes;
	char locked[200];

	if (r->what.dmabuf_fd >= 0 && (error == EOPNOTSUPP || error == ENOSYS || error == EPROTONOSUPPORT)) {
		snprintf(why, room,
		         "device %s takes no dma-buf (ibv_reg_dmabuf_mr: %s): its bytes are copied by the processor; a device that takes it (mlx5, "
		         "kernel 5.12 or later) does not need that", device->name, strerror(error));
	} else if (r->what.dmabuf_fd >= 0) {
		snprintf(why, room,
		         "%llu bytes at offset %llu of a dma-buf cannot be registered with device %s: %s; they are copied by the processor", bytes,
		         (unsigned long long)r->what.offset, device->name, strerror(error));
	} else if (error == ENOMEM) {
		rdma_words_locked(locked, sizeof(locked), bytes);
		snprintf(why, room, "%llu bytes cannot be registered: %s", bytes, locked);
	} else {
		snprintf(why, room, "%llu bytes at %p cannot be registered: %s%s", bytes, (void *)r->what.addr, strerror(error),
		        error == EFAULT ? " (not mapped, or a read-only file map: map it MAP_PRIVATE and writable, or copy it)" : "");
	}
}

/* Remote rights are a window's only: a stranger's key finds nothing here. */
static struct ibv_mr *region_register(const struct rdma_domain *d, const struct rdma_device *device, struct rdma_region *r)
{
	int access = IBV_ACCESS_LOCAL_WRITE | (device->has_windows ? IBV_ACCESS_MW_BIND : 0);

	if (r->what.dmabuf_fd >= 0) /* its addresses there are the processor's, so that a segment means the same to both */
		return ibv_reg_dmabuf_mr(device->pd, r->what.offset, r->what.bytes, (uintptr_t)r->what.addr, r->what.dmabuf_fd, access);
	access |= d->odp && device->has_odp ? IBV_ACCESS_ON_DEMAND : 0;
	struct ibv_mr *mr = ibv_reg_mr(device->pd, r->what.addr, r->what.bytes, access);
	if (!mr && errno == EFAULT) { /* it can be sent from */
		mr = ibv_reg_mr(device->pd, r->what.addr, r->what.bytes, 0);
		r->is_read_only[device->index] = mr != NULL;
	}
	return mr;
}

/* With every device of the domain, as far as they take it. Under the mutex: for a device that has just come. */
static void region_register_all(struct rdma_domain *d, struct rdma_region *r)
{
	for (uint32_t i = 0; i < RDMA_PORTS_MAX; i++)
		if (d->device[i] && !r->mr[i])
			r->mr[i] = region_register(d, d->device[i], r);
}

static bool region_table_grow(struct rdma_domain *d)
{
	uint32_t n = d->n_slots ? d->n_slots * 2 : REGION_FIRST;
	if (n > REGION_SLOT_MASK)
		return false;
	struct rdma_region **slot = realloc(d->slot, n * sizeof(struct rdma_region *));
	d->slot = slot ? slot : d->slot;
	uint32_t *generation = realloc(d->generation, n * sizeof(*generation));
	d->generation = generation ? generation : d->generation;
	if (!slot || !generation)
		return false;
	memset(slot + d->n_slots, 0, (n - d->n_slots) * sizeof(struct rdma_region *));
	memset(generation + d->n_slots, 0, (n - d->n_slots) * sizeof(*generation));
	d->n_slots = n;
	return true;
}

/* A key of an earlier region of the slot differs, so that what a link remembers of it is not found again; `wraps` says when that ends. */
static void region_insert(struct rdma_domain *d, struct rdma_region *r)
{
	uint32_t slot = d->first_free;
	while (d->slot[slot])
		slot = slot + 1 < d->n_slots ? slot + 1 : 0;
	d->first_free = slot + 1 < d->n_slots ? slot + 1 : 0;
	d->slot[slot] = r;
	r->key = ++d->generation[slot] << REGION_SLOT_BITS | (slot + 1);
	if (!(r->key >> REGION_SLOT_BITS))
		atomic_fetch_add_explicit(&d->wraps, 1, memory_order_release);
	mem_index_insert(&d->index, &r->range);
}

static struct rdma_region *region_by_key(const struct rdma_domain *d, uint32_t key)
{
	uint32_t slot = (key & REGION_SLOT_MASK) - 1;
	return slot < d->n_slots && d->slot[slot] && d->slot[slot]->key == key ? d->slot[slot] : NULL;
}

uint32_t rdma_region_wraps(struct rdma_domain *d)
{
	return atomic_load_explicit(&d->wraps, memory_order_acquire);
}

static void region_remove(struct rdma_domain *d, struct rdma_region *r)
{
	mem_index_remove(&d->index, &r->range);
	d->slot[(r->key & REGION_SLOT_MASK) - 1] = NULL;
	region_free(r);
}

/* A registration shares with its like only: one inside another may outlive it, and the memory around it. */
static struct rdma_region *region_find(const struct rdma_domain *d, const struct mem_what *what)
{
	uint8_t *end = what->addr + what->bytes;
	struct mem_range *r = what->lasts ? mem_index_same(&d->index, what->addr, end) : mem_index_holding(&d->index, what->addr, end);
	return (struct rdma_region *)r;
}

static struct rdma_region *region_new(const struct mem_what *what)
{
	struct rdma_region *r = calloc(1, sizeof(*r));
	if (!r)
		return NULL;
	r->range = (struct mem_range){.addr = what->addr, .end = what->addr + what->bytes};
	r->what = *what;
	if (what->dmabuf_fd >= 0) /* a device that comes later is told of it, too */
		r->what.dmabuf_fd = fcntl(what->dmabuf_fd, F_DUPFD_CLOEXEC, 0);
	if (what->dmabuf_fd < 0 || r->what.dmabuf_fd >= 0)
		return r;
	free(r);
	return NULL;
}

static void device_put(struct rdma_domain *d, struct rdma_device *device);

/* Registers a region that nobody else knows yet with all devices, the mutex let go meanwhile; a device cannot go away under it. Called and left with the mutex held. */
static int region_prepare(struct rdma_domain *d, struct rdma_region *r, char *why, size_t room)
{
	for (uint32_t i = 0; i < RDMA_PORTS_MAX; i++) {
		struct rdma_device *device = d->device[i];
		if (!device || r->mr[i])
			continue;
		device->refs++;
		pthread_mutex_unlock(&memory_lock);
		r->mr[i] = region_register(d, device, r);
		int error = errno;
		pthread_mutex_lock(&memory_lock);
		if (!r->mr[i])
			region_words(why, room, r, device, error);
		bool failed = !r->mr[i];
		if (device->refs == 1 && r->mr[i]) { /* all others have gone */
			ibv_dereg_mr(r->mr[i]);
			r->mr[i] = NULL;
		}
		device_put(d, device);
		if (failed)
			return error == ENOMEM || r->what.dmabuf_fd < 0 ? -TERN_ENOMEM : -TERN_EIO;
		i = UINT32_MAX; /* from the first again: one may have come or gone */
	}
	return 0;
}

int rdma_region_get(struct rdma_domain *d, const struct mem_what *what, uint32_t *key, char *why, size_t room)
{
	int err = 0;

	pthread_mutex_lock(&memory_lock);
	struct rdma_region *r = region_find(d, what), *fresh = NULL;
	if (!r) {
		fresh = region_new(what);
		snprintf(why, room, "no memory for another of %u registered regions", d->index.used);
		err = fresh ? region_prepare(d, fresh, why, room) : -TERN_ENOMEM;
		r = err ? NULL : region_find(d, what); /* another thread may have been faster */
	}
	if (!err && !r) {
		err = mem_index_grow(&d->index) && (d->index.used < d->n_slots || region_table_grow(d)) ? 0 : -TERN_ENOMEM;
		if (!err) {
			region_insert(d, fresh);
			r = fresh;
			fresh = NULL;
		}
	}
	if (r) {
		r->refs++;
		*key = r->key;
	}
	if (fresh)
		region_free(fresh);
	pthread_mutex_unlock(&memory_lock);
	return err;
}

void rdma_region_put(struct rdma_domain *d, uint32_t key)
{
	pthread_mutex_lock(&memory_lock);
	struct rdma_region *r = region_by_key(d, key);
	if (r && !--r->refs)
		region_remove(d, r);
	pthread_mutex_unlock(&memory_lock);
}

static struct ibv_mr *region_mr(
        const struct rdma_domain *d, const struct rdma_device *device, struct rdma_region *r, const uint8_t *addr, uint64_t bytes)
{
	if (!r || r->what.addr > addr || bytes > (uint64_t)(r->range.end - addr))
		return NULL;
	if (!r->mr[device->index])
		r->mr[device->index] = region_register(d, device, r);
	return r->mr[device->index];
}

struct ibv_mr *rdma_region_mr(struct rdma_domain *d, struct rdma_device *device, uint32_t key, const uint8_t *addr, uint64_t bytes)
{
	pthread_mutex_lock(&memory_lock);
	struct mem_range *held = key ? NULL : mem_index_holding(&d->index, addr, addr + bytes);
	struct ibv_mr *mr = region_mr(d, device, key ? region_by_key(d, key) : (struct rdma_region *)held, addr, bytes);
	pthread_mutex_unlock(&memory_lock);
	return mr;
}

struct ibv_mr *rdma_region_hold(struct rdma_domain *d, struct rdma_device *device, const struct link_expose *what)
{
	pthread_mutex_lock(&memory_lock);
	struct rdma_region *r = region_by_key(d, what->mem);
	struct ibv_mr *mr = region_mr(d, device, r, what->addr, what->bytes);
	if (mr && r->is_read_only[device->index])
		mr = NULL;
	if (mr)
		r->refs++;
	pthread_mutex_unlock(&memory_lock);
	return mr;
}

static struct ibv_context *device_open(const char *name, char *why, size_t room)
{
	int n = 0;
	struct ibv_device **list = ibv_get_device_list(&n);
	struct ibv_context *verbs = NULL;

	for (int i = 0; list && i < n; i++)
		if (!strcmp(ibv_get_device_name(list[i]), name)) {
			verbs = ibv_open_device(list[i]);
			break;
		}
	if (!verbs)
		snprintf(why, room, "device %s does not open: %s (is its provider installed: ibverbs-providers)", name, strerror(errno));
	if (list)
		ibv_free_device_list(list);
	return verbs;
}

enum { VENDOR_RXE = 0xffffff };

static int device_describe(struct rdma_device *device)
{
	struct ibv_device_attr_ex ex;

	if (ibv_query_device(device->verbs, &device->attr))
		return -1;
	device->has_windows = device->attr.device_cap_flags & (IBV_DEVICE_MEM_WINDOW_TYPE_2A | IBV_DEVICE_MEM_WINDOW_TYPE_2B);
	device->invalidates_uc = device->attr.vendor_id != VENDOR_RXE; /* 6.1: the request puts the queue pair into ERR */
	memset(&ex, 0, sizeof(ex));
	device->has_odp = !ibv_query_device_ex(device->verbs, NULL, &ex) && (ex.odp_caps.general_caps & IBV_ODP_SUPPORT);
	return 0;
}

static void device_free(struct rdma_device *device)
{
	if (device->pd)
		ibv_dealloc_pd(device->pd);
	if (device->verbs)
		ibv_close_device(device->verbs);
	free(device);
}

static int device_add(struct rdma_domain *d, const char *name, struct rdma_device **out, char *why, size_t room)
{
	uint32_t at = 0;
	while (at < RDMA_PORTS_MAX && d->device[at])
		at++;
	if (at == RDMA_PORTS_MAX) {
		snprintf(why, room, "more than %d devices in use", RDMA_PORTS_MAX);
		return -TERN_ELIMIT;
	}
	struct rdma_device *device = calloc(1, sizeof(*device));
	if (!device)
		return -TERN_ENOMEM;
	device->index = at;
	snprintf(device->name, sizeof(device->name), "%s", name);
	device->verbs = device_open(name, why, room);
	if (device->verbs && !device_describe(device))
		device->pd = ibv_alloc_pd(device->verbs);
	if (!device->pd) {
		if (device->verbs)
			snprintf(why, room, "device %s gives no protection domain: %s", name, strerror(errno));
		device_free(device);
		return -TERN_EIO;
	}
	d->device[at] = *out = device;
	return 0;
}

int rdma_device_get(struct rdma_domain *d, const char *name, struct rdma_device **out, char *why, size_t room)
{
	int err = 0;

	*out = NULL;
	pthread_mutex_lock(&memory_lock);
	for (uint32_t i = 0; i < RDMA_PORTS_MAX; i++)
		if (d->device[i] && !strcmp(d->device[i]->name, name))
			*out = d->device[i];
	if (!*out)
		err = device_add(d, name, out, why, room);
	if (!err)
		(*out)->refs++;
	for (uint32_t i = 0; !err && i < d->index.used; i++)
		region_register_all(d, region_nth(d, i)); /* what fails is tried again where it is used, and goes with a copy */
	pthread_mutex_unlock(&memory_lock);
	return err;
}

static void device_put(struct rdma_domain *d, struct rdma_device *device)
{
	if (--device->refs)
		return;
	for (uint32_t i = 0; i < d->index.used; i++) {
		struct rdma_region *r = region_nth(d, i);
		if (r->mr[device->index])
			ibv_dereg_mr(r->mr[device->index]);
		r->mr[device->index] = NULL;
		r->is_read_only[device->index] = false;
	}
	d->device[device->index] = NULL;
	device_free(device);
}

void rdma_device_put(struct rdma_domain *d, struct rdma_device *device)
{
	pthread_mutex_lock(&memory_lock);
	device_put(d, device);
	pthread_mutex_unlock(&memory_lock);
}
