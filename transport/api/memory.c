/* Registered memory, exports and imports. A handle is {mark, version, rights, key, bytes, epoch}: what a peer needs to name the memory, nothing of where it is. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include "api/context.h"
#include "base/clock.h"
#include "base/err.h"
#include "wire/bytes.h"

#define MEM_HIDE_NS 100000000ull
enum { HANDLE_MARK = 'M', HANDLE_VERSION = 1, HANDLE_BYTES = 2 + 1 + 5 + 8 + 8 + 8 };

static int mem_new(tern_ctx *ctx, void *addr, uint64_t bytes, bool owned, tern_mem **out)
{
	tern_mem *m = calloc(1, sizeof(*m));
	if (!m)
		return ERR(TERN_ENOMEM, "no memory for a registration");
	m->ctx = ctx;
	m->addr = addr;
	m->bytes = bytes;
	m->owned = owned;
	list_init(&m->link);
	api_lock(ctx);
	struct link *link = ctx->loop->mem_link;
	int err = loop_map(ctx->loop, addr, bytes, &m->key);
	if (!err)
		list_push_back(&ctx->mems, &m->link);
	else
		ERR(err, "%llu bytes at %p cannot be used by %s: %s", (unsigned long long)bytes, addr, link->ops->name,
		    *link->trouble ? link->trouble : tern_error_text(err));
	api_unlock(ctx);
	if (err)
		free(m);
	else
		*out = m;
	return err;
}

void api_mem_unmap(tern_ctx *ctx)
{
	for (struct list *at = list_first(&ctx->mems); at; at = list_next(&ctx->mems, at)) {
		tern_mem *m = list_entry(at, tern_mem, link);
		loop_unmap(ctx->loop, m->key);
		m->key = 0;
	}
}

/* Exports made before the link came can be written directly from now on, too. */
static void mem_export_map(const tern_mem *m)
{
	struct mem_table *t = m->ctx->loop->exports;
	for (uint32_t i = 0; t->used && i < MEM_EXPORTS_MAX * 2; i++)
		if (t->slot[i].key && t->slot[i].addr == m->addr && t->slot[i].bytes == m->bytes)
			t->slot[i].mem = m->key;
}

void api_mem_map(tern_ctx *ctx)
{
	for (struct list *at = list_first(&ctx->mems); at; at = list_next(&ctx->mems, at)) {
		tern_mem *m = list_entry(at, tern_mem, link);
		if (!m->key && loop_map(ctx->loop, m->addr, m->bytes, &m->key))
			LOG(ctx, TERN_LOG_WARN, "registered memory will be copied: %s", ctx->loop->mem_link->trouble);
		mem_export_map(m);
	}
}

int tern_mem_alloc(tern_ctx *ctx, uint64_t bytes, void **addr, tern_mem **out)
{
	if (!ctx || !addr || !out || !bytes)
		return ERR(TERN_EINVAL, "tern_mem_alloc: arguments must not be NULL, bytes not 0");
	if (api_fork_check(ctx))
		return -TERN_EFORK;
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return ERR(TERN_ENOMEM, "no memory for %llu bytes", (unsigned long long)bytes);
	int err = mem_new(ctx, p, bytes, true, out);
	if (err)
		munmap(p, bytes);
	else
		*addr = p;
	return err;
}

int tern_mem_register(tern_ctx *ctx, void *addr, uint64_t bytes, tern_mem **out)
{
	if (!ctx || !addr || !out || !bytes || (uintptr_t)addr + bytes < (uintptr_t)addr)
		return ERR(TERN_EINVAL, "tern_mem_register: %llu bytes at %p cannot be memory", (unsigned long long)bytes, addr);
	if (api_fork_check(ctx))
		return -TERN_EFORK;
	return mem_new(ctx, addr, bytes, false, out);
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
	api_mem_revoked(m->ctx); /* those that are left have an operation under way: busy */
	bool busy = atomic_load(&m->uses) || mem_exports(m, TERN_ANY_PEER, false, &found);
	uint64_t until = clock_now_ns() + MEM_HIDE_NS;
	while (!busy && mem_exports(m, TERN_ANY_PEER, true, &found)) { /* a link has to take it out of the peer's reach first */
		api_step(m->ctx, clock_now_ns());
		busy = clock_now_ns() > until;
	}
	if (!busy) {
		list_remove(&m->link);
		loop_unmap(m->ctx->loop, m->key);
	}
	api_unlock(m->ctx);
	if (busy)
		return ERR(TERN_EBUSY,
		           "operations use the memory still (%u of ours; the others are a peer's reads and writes); wait for their events, or revoke "
		           "and wait",
		           atomic_load(&m->uses));
	if (m->owned)
		munmap(m->addr, m->bytes);
	free(m);
	*mp = NULL;
	return 0;
}

int tern_mem_export(tern_ep *ep, tern_mem *mem, tern_peer only, uint32_t rights, void *blob, size_t *bytes)
{
	if (!ep || !mem || !blob || !bytes || !rights || (rights & ~(uint32_t)(TERN_REMOTE_READ | TERN_REMOTE_WRITE)))
		return ERR(TERN_EINVAL,
		           "tern_mem_export: rights must be TERN_REMOTE_READ, TERN_REMOTE_WRITE or both (they are %u), the rest not NULL", rights);
	if (*bytes < HANDLE_BYTES)
		return ERR(TERN_EINVAL, "a handle needs %d bytes, there is room for %zu", HANDLE_BYTES, *bytes);
	if (api_fork_check(ep->ctx))
		return -TERN_EFORK;
	struct mem_export e = {.peer = only, .addr = mem->addr, .bytes = mem->bytes, .rights = rights, .mem = mem->key};
	while (!e.key)
		if (getrandom(&e.key, sizeof(e.key), 0) < 0)
			return ERR(TERN_EIO, "getrandom failed");
	api_lock(ep->ctx);
	struct api_peer *peer = api_peer_of(ep, only);
	int err = peer && !peer->closed ? mem_table_add(ep->ctx->loop->exports, &e) : -TERN_ESTALE;
	if (!err) {
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
