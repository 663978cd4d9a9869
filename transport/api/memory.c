/* Registered memory, exports and imports. A handle is {mark, version, rights, key, bytes, epoch}: what a peer needs to name the memory, nothing of where it is. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include "api/context.h"
#include "base/err.h"
#include "wire/bytes.h"

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
	*out = m;
	return 0;
}

int tern_mem_alloc(tern_ctx *ctx, uint64_t bytes, void **addr, tern_mem **out)
{
	if (!ctx || !addr || !out || !bytes)
		return ERR(TERN_EINVAL, "tern_mem_alloc: arguments must not be NULL, bytes not 0");
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
	return mem_new(ctx, addr, bytes, false, out);
}

/* Exports of the registration. @return how many are in use by a peer's operation right now; those that are not are removed if asked */
static unsigned mem_exports(tern_mem *m, tern_peer only, bool remove, unsigned *found)
{
	struct mem_table *t = m->ctx->loop->exports;
	uint64_t keys[64];
	unsigned busy = 0, n;
	*found = 0;
	do { /* removal moves entries: collect keys first, a batch at a time */
		n = 0;
		for (uint32_t i = 0; i < MEM_EXPORTS_MAX * 2 && n < 64; i++) {
			const struct mem_export *e = &t->slot[i];
			if (!e->key || e->addr != m->addr || e->bytes != m->bytes || (only != TERN_ANY_PEER && e->peer != only))
				continue;
			if (e->uses)
				busy++;
			else
				keys[n++] = e->key;
		}
		*found += n;
		for (unsigned i = 0; remove && i < n; i++)
			mem_table_remove(t, keys[i]);
	} while (remove && n == 64);
	*found += busy;
	return busy;
}

int tern_mem_release(tern_mem **mp)
{
	unsigned found;
	if (!mp || !*mp)
		return ERR(TERN_EINVAL, "memory is NULL");
	tern_mem *m = *mp;
	api_lock(m->ctx);
	bool busy = atomic_load(&m->uses) || mem_exports(m, TERN_ANY_PEER, true, &found);
	api_unlock(m->ctx);
	if (busy)
		return ERR(TERN_EBUSY, "%u operations use the memory still; wait for their events, or revoke", atomic_load(&m->uses));
	if (m->owned)
		munmap(m->addr, m->bytes);
	free(m);
	*mp = NULL;
	return 0;
}

int tern_mem_export(tern_ep *ep, tern_mem *mem, tern_peer only, uint32_t rights, void *blob, size_t *bytes)
{
	if (!ep || !mem || !blob || !bytes || !rights || (rights & ~(uint32_t)(TERN_REMOTE_READ | TERN_REMOTE_WRITE)))
		return ERR(TERN_EINVAL, "tern_mem_export: rights must be TERN_REMOTE_READ, TERN_REMOTE_WRITE or both (they are %u), the rest not NULL", rights);
	if (*bytes < HANDLE_BYTES)
		return ERR(TERN_EINVAL, "a handle needs %d bytes, there is room for %zu", HANDLE_BYTES, *bytes);
	struct mem_export e = {.peer = only, .addr = mem->addr, .bytes = mem->bytes, .rights = rights};
	while (!e.key)
		if (getrandom(&e.key, sizeof(e.key), 0) < 0)
			return ERR(TERN_EIO, "getrandom failed");
	api_lock(ep->ctx);
	struct api_peer *peer = api_peer_find(ep->ctx, only);
	int err = peer && peer->ep == ep && !peer->closed ? mem_table_add(ep->ctx->loop->exports, &e) : -TERN_ESTALE;
	api_unlock(ep->ctx);
	if (err)
		return ERR(err, err == -TERN_ESTALE ? "peer %llx: no such peer now" : "peer %llx: 4096 exports are in use; revoke some", (unsigned long long)only);
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
	api_lock(ep->ctx);
	struct api_peer *peer = api_peer_find(ep->ctx, only);
	int err = peer ? 0 : -TERN_ESTALE;
	unsigned busy = err ? 0 : mem_exports(mem, only, true, &found);
	if (!err && !found)
		err = -TERN_ENOENT;
	if (!err && !busy) {
		/* placement looks a key up for every run: from here on nothing finds it */
		tern_event e = {.type = TERN_EV_REVOKED, .user = mem, .peer = only};
		api_event(ep, &e);
	}
	api_unlock(ep->ctx);
	if (busy)
		return ERR(TERN_EBUSY, "%u operations of the peer are under way in that memory; revoke again when they have ended", busy);
	return err ? ERR(err, "peer %llx has no export of that memory", (unsigned long long)only) : 0;
}

int tern_mem_import(tern_ep *ep, tern_peer id, const void *blob, size_t bytes, tern_rmem **out)
{
	const uint8_t *in = blob;
	if (!ep || !blob || !out || bytes != HANDLE_BYTES || in[0] != HANDLE_MARK || in[1] != HANDLE_VERSION)
		return ERR(TERN_EINVAL, "not a memory handle made by tern_mem_export (%zu bytes)", bytes);
	api_lock(ep->ctx);
	struct api_peer *peer = api_peer_find(ep->ctx, id);
	bool known = peer && !peer->closed, ours = known && peer->session.paths && peer->session.peer_epoch == wire_get64(in + 24);
	api_unlock(ep->ctx);
	if (!ours)
		return ERR(TERN_ESTALE, known ? "the handle is of another life of peer %llx, or of another node" : "peer %llx: no such peer now", (unsigned long long)id);
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
