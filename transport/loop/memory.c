/* Memory for the links that want it mapped (docs/design/007-memory.md): regions and their numbers, registered or used by an operation, mapped for each kind of link;
 * links that come and go. Called by api/ for registrations, by loop_post and loop_done for operations. Knows no path. */
#include <string.h>
#include "loop/loop.h"
#include "tern/error.h"

enum { MEMORY_SPAN = 4 /* a strided tensor is mapped whole if it is at most so many times its bytes */ };

/* Frames made by the loop leave from its pool; links that write have a ring of their own for those. */
static bool memory_wants(const struct link *link, const struct mem_what *what)
{
	if (what->is_sent_only)
		return !(link->caps & LINK_WRITES);
	return what->lasts || (link->caps & LINK_MAPS_OPS);
}

/* What a link cannot map it copies, or has others copy: a failure only where somebody is promised better. */
static bool memory_must(const struct link *link, const struct mem_what *what)
{
	return what->lasts && what->dmabuf_fd < 0 && (link->caps & LINK_WRITES);
}

static struct link *memory_link(const struct loop *lp, int kind)
{
	return lp->mem.column[kind] ? lp->mapper[kind] : NULL;
}

static void memory_unmap(struct loop *lp, struct mem_region *r)
{
	for (int k = 0; k < MEM_KINDS_MAX; k++) {
		struct link *link = memory_link(lp, k);
		if (link && lp->mem.column[k][r->number])
			link->ops->mem_unmap(link, lp->mem.column[k][r->number]);
	}
	mem_region_free(&lp->mem, r);
}

static void memory_unused(struct loop *lp, struct mem_region *r)
{
	if (!r->registered && !r->uses)
		memory_unmap(lp, r);
}

/* ---- registrations: begun and ended by the loop's owner, mapped in between by whoever asked ---- */

void loop_map_begin(struct loop *lp, struct loop_mapping *job)
{
	struct mem_region *r = mem_region_find(&lp->mem, &job->what);
	job->number = job->err = 0;
	*job->why = 0;
	memset(job->link, 0, sizeof(job->link));
	memset(job->key, 0, sizeof(job->key));
	if (r && r->registered) {
		r->registered++;
		job->number = r->number;
		return;
	}
	for (int k = 0; k < MEM_KINDS_MAX; k++) {
		struct link *link = memory_link(lp, k);
		if (!link || !memory_wants(link, &job->what))
			continue;
		job->link[k] = link;
		link->pins++;
	}
}

static void mapping_link(struct loop_mapping *job, int k)
{
	struct link *link = job->link[k];
	char why[sizeof(job->why)] = "";
	int err = job->err ? 0 : link->ops->mem_map(link, &job->what, &job->key[k], why, sizeof(why));
	if (!err)
		return;
	job->key[k] = 0;
	if (!*job->why || memory_must(link, &job->what))
		memcpy(job->why, why, sizeof(why));
	if (memory_must(link, &job->what))
		job->err = err;
}

void loop_map_run(struct loop_mapping *job)
{
	for (int k = 0; !job->number && k < MEM_KINDS_MAX; k++)
		if (job->link[k])
			mapping_link(job, k);
}

static void mapping_unpin(struct loop *lp, struct loop_mapping *job)
{
	for (int k = 0; k < MEM_KINDS_MAX; k++)
		if (job->link[k] && !--job->link[k]->pins && job->link[k]->is_leaving)
			loop_link_remove(lp, job->link[k]);
}

int loop_map_end(struct loop *lp, struct loop_mapping *job)
{
	if (job->number)
		return 0;
	for (int k = 0; k < MEM_KINDS_MAX; k++) { /* a kind that came meanwhile */
		struct link *link = memory_link(lp, k);
		if (link && !job->link[k] && memory_wants(link, &job->what)) {
			job->link[k] = link;
			link->pins++;
			mapping_link(job, k);
		}
	}
	/* an operation may lie in the very same range: what it uses is registered from now on; two registrations at once are one */
	struct mem_region *r = job->err ? NULL : mem_region_find(&lp->mem, &job->what);
	bool is_new = !r;
	if (!job->err && !r)
		r = mem_region_new(&lp->mem, &job->what);
	if (!r && !job->err) {
		job->err = -TERN_ENOMEM;
		memcpy(job->why, "no memory for another region", sizeof("no memory for another region"));
	}
	for (int k = 0; k < MEM_KINDS_MAX; k++) {
		if (!job->link[k] || !job->key[k])
			continue;
		if (r && (is_new || !lp->mem.column[k][r->number]))
			lp->mem.column[k][r->number] = job->key[k];
		else
			job->link[k]->ops->mem_unmap(job->link[k], job->key[k]);
	}
	if (r) {
		r->what = job->what;
		r->registered++;
		job->number = r->number;
	}
	mapping_unpin(lp, job);
	return job->err;
}

int loop_map(struct loop *lp, void *addr, uint64_t bytes, uint32_t *number)
{
	struct loop_mapping job = {.what = mem_what_host(addr, bytes, true)};
	loop_map_begin(lp, &job);
	loop_map_run(&job);
	int err = loop_map_end(lp, &job);
	*number = job.number;
	return err;
}

int loop_unmap(struct loop *lp, uint32_t number)
{
	struct mem_region *r = mem_region_at(&lp->mem, number);
	if (!r || !r->registered)
		return 0;
	if (r->registered == 1 && r->uses)
		return -TERN_EBUSY;
	r->registered--;
	memory_unused(lp, r);
	return 0;
}

/* ---- links ---- */

int loop_memory_link(struct loop *lp, struct link *link, char *why, size_t why_bytes)
{
	bool is_new;
	int failed = 0, kind = link->caps & LINK_MAPS ? mem_kind_get(&lp->mem, link->mem_scope, &is_new) : -1;
	if (kind < 0)
		return 0; /* or there are more kinds than we map for: they copy */
	link->mem_keys = lp->mem.column[kind];
	if (is_new || lp->mapper[kind]->is_leaving)
		lp->mapper[kind] = link;
	for (uint32_t i = 1; is_new && i < lp->mem.room; i++) {
		struct mem_region *r = lp->mem.region[i];
		uint32_t key = 0;
		if (!r || !r->registered || !memory_wants(link, &r->what))
			continue;
		if (link->ops->mem_map(link, &r->what, &key, why, why_bytes))
			failed++;
		else
			lp->mem.column[kind][i] = key;
	}
	return failed;
}

void loop_memory_unlink(struct loop *lp, struct link *link)
{
	for (int k = 0; k < MEM_KINDS_MAX; k++) {
		struct link *other = NULL;
		if (!lp->mem.column[k] || link->mem_keys != lp->mem.column[k])
			continue;
		for (size_t i = 0; i < lp->links; i++)
			if (lp->link[i] != link && lp->link[i]->mem_keys == link->mem_keys)
				other = lp->link[i];
		if (other) {
			lp->mapper[k] = lp->mapper[k] == link ? other : lp->mapper[k];
			return;
		}
		for (uint32_t i = 1; i < lp->mem.room; i++)
			if (lp->mem.region[i] && lp->mem.column[k][i])
				link->ops->mem_unmap(link, lp->mem.column[k][i]);
		mem_kind_put(&lp->mem, k);
	}
	link->mem_keys = NULL;
}

/* ---- operations ---- */

/* Failing costs speed only: the bytes are copied into memory that is mapped. */
static uint32_t memory_of(struct loop *lp, uint8_t *addr, uint64_t bytes, bool map)
{
	struct mem_what what = mem_what_host(addr, bytes, false);
	struct mem_region *r = mem_region_find(&lp->mem, &what);
	bool any = false;
	char why[64];
	if (!r && (!map || bytes < LOOP_MAP_BYTES))
		return 0;
	if (!r) {
		r = mem_region_new(&lp->mem, &what);
		for (int k = 0; r && k < MEM_KINDS_MAX; k++) {
			struct link *link = memory_link(lp, k);
			uint32_t *key = link ? &lp->mem.column[k][r->number] : NULL;
			if (link && memory_wants(link, &what) && !link->ops->mem_map(link, &what, key, why, sizeof(why)))
				any |= *key != 0;
		}
		if (r && !any) {
			mem_region_free(&lp->mem, r);
			r = NULL;
		}
	}
	if (r)
		r->uses++;
	return r ? r->number : 0;
}

/* Named by its owner: in use all the same. */
static uint32_t memory_use(struct loop *lp, uint32_t number)
{
	struct mem_region *r = mem_region_at(&lp->mem, number);
	if (r)
		r->uses++;
	return r ? number : 0;
}

static void memory_drop(struct loop *lp, uint32_t *number)
{
	struct mem_region *r = mem_region_at(&lp->mem, *number);
	*number = 0;
	if (!r)
		return;
	r->uses--;
	memory_unused(lp, r);
}

void loop_memory_op(struct loop *lp, struct msg_op *op)
{
	struct layout *l = &op->layout;
	uint64_t bytes = layout_bytes(l);
	uint8_t *low, *end;
	op->is_mapped = lp->mem.kinds > 0;
	if (!op->is_mapped)
		return;
	if (l->kind == LAYOUT_LIST) {
		for (uint32_t i = 0; i < l->n; i++) {
			struct layout_range *r = &l->range[i];
			uint64_t part = r->end - (i ? r[-1].end : 0);
			r->mem = r->mem ? memory_use(lp, r->mem) : memory_of(lp, r->addr, part, true);
		}
		return;
	}
	layout_span(l, &low, &end);
	if (l->mem)
		l->mem = memory_use(lp, l->mem);
	else
		l->mem = memory_of(lp, low, (uint64_t)(end - low), (uint64_t)(end - low) / MEMORY_SPAN <= bytes && bytes >= LOOP_MAP_BYTES);
}

void loop_memory_done(struct loop *lp, struct msg_op *op)
{
	struct layout *l = &op->layout;
	if (!op->is_mapped)
		return;
	op->is_mapped = false;
	for (uint32_t i = 0; l->kind == LAYOUT_LIST && i < l->n; i++)
		memory_drop(lp, &l->range[i].mem);
	if (l->kind != LAYOUT_LIST)
		memory_drop(lp, &l->mem);
}
