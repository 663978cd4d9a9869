/* Devices, domains and registered memory, shared by the links of a process: a region is registered once a domain and device, whoever maps it how
 * often. Called by the other files of this link from any thread; one mutex. Knows nothing of paths and connections. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include "link/rdma/rdma.h"
#include "tern/error.h"

enum { REGION_SLOT_BITS = 20, REGION_SLOT_MASK = (1 << REGION_SLOT_BITS) - 1, REGION_FIRST = 64 };

struct rdma_region {
	uint8_t *addr, *end;
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
	uint32_t n_slots, used, first_free;
	struct rdma_region **sorted; /* by address */
	uint8_t **reach;             /* the largest end of sorted[0..i] */
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
	free(r);
}

void rdma_domain_put(struct rdma_domain *d)
{
	pthread_mutex_lock(&memory_lock);
	if (!--d->refs) {
		struct rdma_domain **at = &domains;
		while (*at != d)
			at = &(*at)->next;
		*at = d->next;
		for (uint32_t i = 0; i < d->used; i++)
			region_free(d->sorted[i]);
		free(d->slot);
		free(d->generation);
		free(d->sorted);
		free(d->reach);
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

static void region_words(char *why, size_t room, const struct rdma_region *r, int error)
{
	uint64_t bytes = (uint64_t)(r->end - r->addr);
	char locked[200];

	if (error == ENOMEM) {
		rdma_words_locked(locked, sizeof(locked), bytes);
		snprintf(why, room, "%llu bytes cannot be registered: %s", (unsigned long long)bytes, locked);
	} else {
		snprintf(why, room, "%llu bytes at %p cannot be registered: %s%s", (unsigned long long)bytes, (void *)r->addr, strerror(error),
		        error == EFAULT ? " (not mapped, or a read-only file map: map it MAP_PRIVATE and writable, or copy it)" : "");
	}
}

/* Remote rights are a window's only: a stranger's key finds nothing here. */
static struct ibv_mr *region_register(const struct rdma_domain *d, const struct rdma_device *device, struct rdma_region *r)
{
	int access = IBV_ACCESS_LOCAL_WRITE | (device->has_windows ? IBV_ACCESS_MW_BIND : 0) | (d->odp && device->has_odp ? IBV_ACCESS_ON_DEMAND : 0);
	struct ibv_mr *mr = ibv_reg_mr(device->pd, r->addr, (size_t)(r->end - r->addr), access);
	if (!mr && errno == EFAULT) { /* it can be sent from */
		mr = ibv_reg_mr(device->pd, r->addr, (size_t)(r->end - r->addr), 0);
		r->is_read_only[device->index] = mr != NULL;
	}
	return mr;
}

static int region_register_all(struct rdma_domain *d, struct rdma_region *r, char *why, size_t room)
{
	for (uint32_t i = 0; i < RDMA_PORTS_MAX; i++) {
		if (!d->device[i] || r->mr[i])
			continue;
		r->mr[i] = region_register(d, d->device[i], r);
		if (!r->mr[i]) {
			region_words(why, room, r, errno);
			return -TERN_ENOMEM;
		}
	}
	return 0;
}

/* The first entry that begins behind addr. */
static uint32_t region_upper(const struct rdma_domain *d, const uint8_t *addr)
{
	uint32_t low = 0, high = d->used;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (d->sorted[middle]->addr <= addr)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct rdma_region *region_holding(const struct rdma_domain *d, const uint8_t *addr, const uint8_t *end)
{
	for (uint32_t i = region_upper(d, addr); i > 0 && d->reach[i - 1] >= end; i--)
		if (d->sorted[i - 1]->end >= end)
			return d->sorted[i - 1];
	return NULL;
}

static void region_reach(struct rdma_domain *d, uint32_t from)
{
	for (uint32_t i = from; i < d->used; i++) {
		uint8_t *before = i ? d->reach[i - 1] : NULL;
		d->reach[i] = d->sorted[i]->end > before ? d->sorted[i]->end : before;
	}
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
	struct rdma_region **sorted = realloc(d->sorted, n * sizeof(struct rdma_region *));
	d->sorted = sorted ? sorted : d->sorted;
	uint8_t **reach = realloc(d->reach, n * sizeof(uint8_t *));
	d->reach = reach ? reach : d->reach;
	if (!slot || !generation || !sorted || !reach)
		return false;
	memset(slot + d->n_slots, 0, (n - d->n_slots) * sizeof(struct rdma_region *));
	memset(generation + d->n_slots, 0, (n - d->n_slots) * sizeof(*generation));
	d->n_slots = n;
	return true;
}

/* A key of an earlier region of the slot differs, so that what a link remembers of it is not found again; `wraps` says when that ends. */
static void region_insert(struct rdma_domain *d, struct rdma_region *r)
{
	uint32_t at = region_upper(d, r->addr), slot = d->first_free;
	while (d->slot[slot])
		slot = slot + 1 < d->n_slots ? slot + 1 : 0;
	d->first_free = slot + 1 < d->n_slots ? slot + 1 : 0;
	d->slot[slot] = r;
	r->key = ++d->generation[slot] << REGION_SLOT_BITS | (slot + 1);
	if (!(r->key >> REGION_SLOT_BITS))
		atomic_fetch_add_explicit(&d->wraps, 1, memory_order_release);
	memmove(d->sorted + at + 1, d->sorted + at, (d->used - at) * sizeof(struct rdma_region *));
	d->sorted[at] = r;
	d->used++;
	region_reach(d, at);
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
	uint32_t at = region_upper(d, r->addr) - 1;
	while (d->sorted[at] != r)
		at--;
	memmove(d->sorted + at, d->sorted + at + 1, (d->used - at - 1) * sizeof(struct rdma_region *));
	d->used--;
	region_reach(d, at);
	d->slot[(r->key & REGION_SLOT_MASK) - 1] = NULL;
	region_free(r);
}

int rdma_region_get(struct rdma_domain *d, void *addr, uint64_t bytes, uint32_t *key, char *why, size_t room)
{
	int err = 0;

	pthread_mutex_lock(&memory_lock);
	struct rdma_region *r = region_holding(d, addr, (uint8_t *)addr + bytes);
	if (!r) {
		r = d->used < d->n_slots || region_table_grow(d) ? calloc(1, sizeof(*r)) : NULL;
		if (!r) {
			snprintf(why, room, "no memory for another of %u registered regions", d->used);
			err = -TERN_ENOMEM;
			goto out;
		}
		r->addr = addr;
		r->end = r->addr + bytes;
		err = region_register_all(d, r, why, room);
		if (err) {
			region_free(r);
			goto out;
		}
		region_insert(d, r);
	}
	r->refs++;
	*key = r->key;
out:
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
	if (!r || r->addr > addr || bytes > (uint64_t)(r->end - addr))
		return NULL;
	if (!r->mr[device->index])
		r->mr[device->index] = region_register(d, device, r);
	return r->mr[device->index];
}

struct ibv_mr *rdma_region_mr(struct rdma_domain *d, struct rdma_device *device, uint32_t key, const uint8_t *addr, uint64_t bytes)
{
	pthread_mutex_lock(&memory_lock);
	struct ibv_mr *mr = region_mr(d, device, key ? region_by_key(d, key) : region_holding(d, addr, addr + bytes), addr, bytes);
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
	for (uint32_t i = 0; !err && i < d->used; i++)
		region_register_all(d, d->sorted[i], why, room); /* what fails is tried again, and told, where it is used */
	pthread_mutex_unlock(&memory_lock);
	return err;
}

void rdma_device_put(struct rdma_domain *d, struct rdma_device *device)
{
	pthread_mutex_lock(&memory_lock);
	if (!--device->refs) {
		for (uint32_t i = 0; i < d->used; i++)
			if (d->sorted[i]->mr[device->index]) {
				ibv_dereg_mr(d->sorted[i]->mr[device->index]);
				d->sorted[i]->mr[device->index] = NULL;
				d->sorted[i]->is_read_only[device->index] = false;
			}
		d->device[device->index] = NULL;
		device_free(device);
	}
	pthread_mutex_unlock(&memory_lock);
}
