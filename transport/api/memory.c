/* Registered memory, exports and imports. A handle is {mark, version, rights, key, bytes, epoch}: what a peer needs to name the memory, nothing of where it is. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>
#include "api/context.h"
#include "base/clock.h"
#include "base/err.h"
#include "mem/dmabuf.h"
#include "wire/bytes.h"

#define MEM_HIDE_NS 100000000ull
#define MEM_HUGE_BYTES (2ull << 20)
enum { HANDLE_MARK = 'M', HANDLE_VERSION = 1, HANDLE_BYTES = 2 + 1 + 5 + 8 + 8 + 8 };

static int mem_map(tern_mem *m)
{
	tern_ctx *ctx = m->ctx;
	struct loop_mapping job = {
	    .what = {.addr = m->addr, .bytes = m->bytes, .dmabuf_fd = m->dmabuf_fd, .offset = m->offset, .lasts = true}};
	api_lock(ctx);
	loop_map_begin(ctx->loop, &job);
	api_unlock(ctx);
	loop_map_run(&job); /* the loop goes on meanwhile */
	api_lock(ctx);
	int err = loop_map_end(ctx->loop, &job);
	m->number = job.number;
	if (!err)
		list_push_back(&ctx->mems, &m->link);
	api_unlock(ctx);
	if (err)
		return ERR(err, "%llu bytes at %p: %s", (unsigned long long)m->bytes, (void *)m->addr, *job.why ? job.why : tern_error_text(err));
	if (*job.why)
		LOG(ctx, TERN_LOG_WARN, "%s", job.why);
	return 0;
}

/* The dma-buf as the processor sees it: where the caller has mapped it, or mapped here. */
static int mem_dmabuf(tern_mem *m, const tern_memdesc *d)
{
	char why[320];
	void *addr;
	int err = mem_dmabuf_map(d->dmabuf_fd, d->offset, d->bytes, &addr, why, sizeof(why));
	if (err)
		return ERR(err, "%s", why);
	if (d->addr)
		mem_dmabuf_unmap(addr, d->offset, d->bytes);
	else
		m->addr = addr;
	m->is_mapped = !d->addr;
	m->dmabuf_fd = fcntl(d->dmabuf_fd, F_DUPFD_CLOEXEC, 0);
	return m->dmabuf_fd < 0 ? ERR(TERN_EIO, "dma-buf: %s", strerror(errno)) : 0;
}

static void mem_free(tern_mem *m)
{
	if (m->is_open)
		mem_dmabuf_sync(m->dmabuf_fd, true, false);
	if (m->is_mapped)
		mem_dmabuf_unmap(m->addr, m->offset, m->bytes);
	if (m->dmabuf_fd >= 0)
		close(m->dmabuf_fd);
	if (m->owned)
		munmap(m->addr, m->bytes);
	free(m);
}

static int mem_new(tern_ctx *ctx, const tern_memdesc *d, bool owned, tern_mem **out)
{
	tern_mem *m = calloc(1, sizeof(*m));
	if (!m)
		return ERR(TERN_ENOMEM, "no memory for a registration");
	*m = (struct tern_mem){.ctx = ctx, .addr = d->addr, .bytes = d->bytes, .offset = d->offset, .dmabuf_fd = -1,
		.rights = d->rights ? d->rights : TERN_REMOTE_READ | TERN_REMOTE_WRITE};
	list_init(&m->link);
	int err = d->kind == TERN_MEM_DMABUF ? mem_dmabuf(m, d) : 0;
	if (!err)
		err = mem_map(m);
	m->owned = owned && !err;
	if (err)
		mem_free(m);
	else
		*out = m;
	return err;
}

void api_mem_op(const tern_mem *mem, bool writes, bool begins)
{
	if (mem->dmabuf_fd >= 0)
		mem_dmabuf_sync(mem->dmabuf_fd, writes, begins);
}

/* Large ones begin on a huge page and get such pages where the system has them: a device then has fewer of them to look up, and registering takes fewer. */
static void *mem_pages(uint64_t bytes)
{
	uint64_t more = bytes >= MEM_HUGE_BYTES ? MEM_HUGE_BYTES : 0;
	if (bytes + more < bytes)
		return NULL;
	uint8_t *p = mmap(NULL, bytes + more, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	if (!more)
		return p;
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), used = (bytes + page - 1) / page * page;
	uint64_t skip = (MEM_HUGE_BYTES - (uintptr_t)p % MEM_HUGE_BYTES) % MEM_HUGE_BYTES;
	if (skip)
		munmap(p, skip);
	if (more + bytes > skip + used)
		munmap(p + skip + used, more + bytes - skip - used);
	madvise(p + skip, used, MADV_HUGEPAGE);
	return p + skip;
}

int tern_mem_alloc(tern_ctx *ctx, uint64_t bytes, void **addr, tern_mem **out)
{
	if (!ctx || !addr || !out || !bytes)
		return ERR(TERN_EINVAL, "tern_mem_alloc: arguments must not be NULL, bytes not 0");
	if (api_fork_check(ctx))
		return -TERN_EFORK;
	void *p = mem_pages(bytes);
	if (!p)
		return ERR(TERN_ENOMEM, "no memory for %llu bytes", (unsigned long long)bytes);
	tern_memdesc d = {.addr = p, .bytes = bytes};
	int err = mem_new(ctx, &d, true, out);
	if (err)
		munmap(p, bytes);
	else
		*addr = p;
	return err;
}

static int mem_desc_check(const tern_memdesc *d)
{
	if (d->kind == TERN_MEM_CUDA)
		return ERR(TERN_EINVAL,
		           "CUDA memory is not registered by its address: get its dma-buf (cuMemGetHandleForAddressRange) and register that, "
		           "TERN_MEM_DMABUF");
	if (d->kind > TERN_MEM_CUDA)
		return ERR(TERN_EINVAL, "memory of kind %u: there are TERN_MEM_HOST and TERN_MEM_DMABUF", d->kind);
	if (d->rights & ~(uint32_t)(TERN_REMOTE_READ | TERN_REMOTE_WRITE))
		return ERR(TERN_EINVAL, "rights are %u: TERN_REMOTE_READ, TERN_REMOTE_WRITE, both, or 0 for both", d->rights);
	if (d->kind == TERN_MEM_DMABUF && d->dmabuf_fd < 0)
		return ERR(TERN_EINVAL, "dmabuf_fd is %d: give the dma-buf's descriptor", d->dmabuf_fd);
	bool wraps = (uintptr_t)d->addr + d->bytes < (uintptr_t)d->addr || d->offset + d->bytes < d->offset;
	if (!d->bytes || (d->kind == TERN_MEM_HOST && !d->addr) || wraps)
		return ERR(TERN_EINVAL, "%llu bytes at %p cannot be memory", (unsigned long long)d->bytes, d->addr);
	return 0;
}

int tern_mem_register_desc(tern_ctx *ctx, const tern_memdesc *desc, tern_mem **out)
{
	tern_memdesc d = {.dmabuf_fd = -1};
	if (!ctx || !desc || !out)
		return ERR(TERN_EINVAL, "tern_mem_register_desc: arguments must not be NULL");
	if (desc->size_bytes < offsetof(tern_memdesc, rights))
		return ERR(TERN_EINVAL, "desc.size_bytes is %zu; set it to sizeof(tern_memdesc)", desc->size_bytes);
	memcpy(&d, desc, desc->size_bytes < sizeof(d) ? desc->size_bytes : sizeof(d)); /* an older program's ends earlier */
	if (api_fork_check(ctx))
		return -TERN_EFORK;
	int err = mem_desc_check(&d);
	return err ? err : mem_new(ctx, &d, false, out);
}

int tern_mem_register(tern_ctx *ctx, void *addr, uint64_t bytes, tern_mem **out)
{
	tern_memdesc d = {.size_bytes = sizeof(d), .addr = addr, .bytes = bytes};
	return tern_mem_register_desc(ctx, &d, out);
}

int tern_mem_address(const tern_mem *mem, void **addr, uint64_t *bytes)
{
	if (!mem || !addr || !bytes)
		return ERR(TERN_EINVAL, "tern_mem_address: arguments must not be NULL");
	*addr = mem->addr;
	*bytes = mem->bytes;
	return 0;
}

/* Exports of the registration to a peer, or to all. Those that no operation uses are removed if asked; the others lose their rights: what is under way ends, nothing
 * new begins. *found: all of them. @return how many are in use */
static unsigned mem_exports(const tern_mem *m, tern_peer only, bool remove, unsigned *found)
{
	struct mem_table *t = m->ctx->loop->exports;
	uint64_t keys[64];
	unsigned busy, n;
	*found = 0;
	do { /* removal moves entries: collect keys first, a batch at a time */
		busy = n = 0;
		for (uint32_t i = 0; i < MEM_EXPORTS_MAX * 2 && n < 64; i++) {
			struct mem_export *e = &t->slot[i];
			if (!e->key || e->addr != m->addr || e->bytes != m->bytes || (only != TERN_ANY_PEER && e->peer != only))
				continue;
			if (remove && e->keys)
				loop_unexport(m->ctx->loop, e->key);
			if (e->uses || (remove && e->keys))
				busy++;
			else
				keys[n++] = e->key;
			if (remove)
				e->rights = 0;
		}
		*found += n;
		for (unsigned i = 0; remove && i < n; i++)
			mem_table_remove(t, keys[i]);
	} while (remove && n == 64);
	*found += busy;
	return busy;
}

static void mem_revoked(tern_ep *ep, tern_mem *mem, tern_peer peer)
{
	tern_event e = {.type = TERN_EV_REVOKED, .user = mem, .peer = peer};
	api_event(ep, &e);
}

void api_mem_revoked(tern_ctx *ctx)
{
	unsigned found;
	for (struct list *at = list_first(&ctx->revokes), *next; at; at = next) {
		struct api_revoke *r = list_entry(at, struct api_revoke, link);
		next = list_next(&ctx->revokes, at);
		if (mem_exports(r->mem, r->peer, true, &found))
			continue;
		list_remove(&r->link);
		mem_revoked(r->ep, r->mem, r->peer);
		free(r);
	}
}

void api_mem_forget(tern_ctx *ctx, tern_peer peer, const tern_ep *ep)
{
	struct mem_table *t = ctx->loop->exports;
	for (struct list *at = list_first(&ctx->revokes), *next; at; at = next) {
		struct api_revoke *r = list_entry(at, struct api_revoke, link);
		next = list_next(&ctx->revokes, at);
		if (r->ep == ep) {
			list_remove(&r->link);
			free(r);
		}
	}
	for (uint32_t i = 0; peer && t->used && i < MEM_EXPORTS_MAX * 2;) {
		if (t->slot[i].key && t->slot[i].peer == peer && !t->slot[i].uses)
			mem_table_remove(t, t->slot[i].key); /* another may have moved here: look again */
		else
			i++;
	}
}

int tern_mem_release(tern_mem **mp)
{
	unsigned found;
	if (!mp || !*mp)
		return ERR(TERN_EINVAL, "memory is NULL");
	tern_mem *m = *mp;
	if (api_fork_check(m->ctx))
		return -TERN_EFORK;
	api_lock(m->ctx);
	api_commands_flush(m->ctx);
	api_mem_revoked(m->ctx); /* those that are left have an operation under way: busy */
	bool busy = atomic_load(&m->uses) || mem_exports(m, TERN_ANY_PEER, false, &found);
	uint64_t until = clock_now_ns() + MEM_HIDE_NS;
	while (!busy && mem_exports(m, TERN_ANY_PEER, true, &found)) { /* a link has to take it out of the peer's reach first */
		api_step(m->ctx, clock_now_ns());
		busy = clock_now_ns() > until;
	}
	busy = busy || loop_unmap(m->ctx->loop, m->number);
	if (!busy)
		list_remove(&m->link);
	api_unlock(m->ctx);
	if (busy)
		return ERR(TERN_EBUSY,
		           "operations use the memory still (%u of ours name it; the others lie in it, or are a peer's reads and writes); wait for "
		           "their events, or revoke and wait",
		           atomic_load(&m->uses));
	mem_free(m);
	*mp = NULL;
	return 0;
}

int tern_mem_export(tern_ep *ep, tern_mem *mem, tern_peer only, uint32_t rights, void *blob, size_t *bytes)
{
	if (!ep || !mem || !blob || !bytes || !rights || (rights & ~(uint32_t)(TERN_REMOTE_READ | TERN_REMOTE_WRITE)))
		return ERR(TERN_EINVAL,
		           "tern_mem_export: rights must be TERN_REMOTE_READ, TERN_REMOTE_WRITE or both (they are %u), the rest not NULL", rights);
	if (rights & ~mem->rights)
		return ERR(TERN_EINVAL, "tern_mem_export: rights %u, the memory is registered for %u only", rights, mem->rights);
	if (*bytes < HANDLE_BYTES)
		return ERR(TERN_EINVAL, "a handle needs %d bytes, there is room for %zu", HANDLE_BYTES, *bytes);
	if (api_fork_check(ep->ctx))
		return -TERN_EFORK;
	struct mem_export e = {.peer = only, .addr = mem->addr, .bytes = mem->bytes, .rights = rights, .mem = mem->number};
	while (!e.key)
		if (getrandom(&e.key, sizeof(e.key), 0) < 0)
			return ERR(TERN_EIO, "getrandom failed");
	api_lock(ep->ctx);
	struct api_peer *peer = api_peer_of(ep, only);
	int err = peer && !peer->closed ? mem_table_add(ep->ctx->loop->exports, &e) : -TERN_ESTALE;
	if (!err) {
		if (mem->dmabuf_fd >= 0 && !mem->is_open) /* the peer reads and writes when it likes */
			mem_dmabuf_sync(mem->dmabuf_fd, true, true);
		mem->is_open = mem->dmabuf_fd >= 0;
		loop_export(peer->lp, e.key);
		api_wake(ep->ctx);
	}
	api_unlock(ep->ctx);
	if (err)
		return ERR(err, err == -TERN_ESTALE ? "peer %llx: no such peer now" : "peer %llx: 4096 exports are in use; revoke some",
		           (unsigned long long)only);
	uint8_t *out = blob;
	memset(out, 0, HANDLE_BYTES);
	out[0] = HANDLE_MARK;
	out[1] = HANDLE_VERSION;
	out[2] = (uint8_t)rights;
	wire_put64(out + 8, e.key);
	wire_put64(out + 16, e.bytes);
	wire_put64(out + 24, ep->ctx->epoch);
	*bytes = HANDLE_BYTES;
	return 0;
}

int tern_mem_revoke(tern_ep *ep, tern_mem *mem, tern_peer only)
{
	unsigned found;
	if (!ep || !mem)
		return ERR(TERN_EINVAL, "tern_mem_revoke: ep and mem must not be NULL");
	if (api_fork_check(ep->ctx))
		return -TERN_EFORK;
	struct api_revoke *later = malloc(sizeof(*later)); /* before anything is done that could not be undone */
	if (!later)
		return ERR(TERN_ENOMEM, "no memory for a revocation");
	*later = (struct api_revoke){.ep = ep, .mem = mem, .peer = only};
	api_lock(ep->ctx);
	struct api_peer *peer = api_peer_of(ep, only);
	int err = peer ? 0 : -TERN_ESTALE;
	unsigned busy = err ? 0 : mem_exports(mem, only, true, &found);
	if (!err && !found)
		err = -TERN_ENOENT;
	if (busy) {
		list_push_back(&ep->ctx->revokes, &later->link);
		later = NULL;
	} else if (!err) {
		mem_revoked(ep, mem, only);
	}
	api_unlock(ep->ctx);
	free(later);
	return err ? ERR(err, "peer %llx has no export of that memory", (unsigned long long)only) : 0;
}

int tern_mem_import(tern_ep *ep, tern_peer id, const void *blob, size_t bytes, tern_rmem **out)
{
	const uint8_t *in = blob;
	if (!ep || !blob || !out || bytes != HANDLE_BYTES || in[0] != HANDLE_MARK || in[1] != HANDLE_VERSION)
		return ERR(TERN_EINVAL, "not a memory handle made by tern_mem_export (%zu bytes)", bytes);
	if (api_fork_check(ep->ctx))
		return -TERN_EFORK;
	api_lock(ep->ctx);
	struct api_peer *peer = api_peer_of(ep, id);
	bool known = peer && !peer->closed, ours = known && peer->is_known && peer->epoch == wire_get64(in + 24);
	api_unlock(ep->ctx);
	if (!ours)
		return ERR(TERN_ESTALE, known ? "the handle is of another life of peer %llx, or of another node" : "peer %llx: no such peer now",
		           (unsigned long long)id);
	tern_rmem *r = calloc(1, sizeof(*r));
	if (!r)
		return ERR(TERN_ENOMEM, "no memory for a handle");
	*r = (tern_rmem){.ep = ep, .peer = id, .rights = in[2], .key = wire_get64(in + 8), .bytes = wire_get64(in + 16)};
	*out = r;
	return 0;
}

int tern_rmem_release(tern_rmem **rmem)
{
	if (!rmem || !*rmem)
		return ERR(TERN_EINVAL, "remote memory is NULL");
	free(*rmem);
	*rmem = NULL;
	return 0;
}
