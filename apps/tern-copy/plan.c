/* The pieces of a transfer: see plan.h. Called by both ends; must stay a function of its arguments alone, or the ends disagree. */
#include "plan.h"
#include <string.h>

bool plan_sends(const struct manifest_entry *e)
{
	return e->kind != MANIFEST_FOLDER && !e->present;
}

bool plan_is_small(const struct manifest_entry *e)
{
	/* safetensors files go as tensors however small; what is partly there is not sent again; an empty one has no tensor to send */
	return (e->kind == MANIFEST_FILE && e->bytes <= PLAN_SMALL_BYTES && !e->have_bytes) || !e->bytes;
}

void plan_init(struct plan *p, const struct manifest *m, uint64_t chunk_bytes)
{
	memset(p, 0, sizeof(*p));
	p->m = m;
	p->chunk_bytes = chunk_bytes;
	if (m->n)
		p->offset = m->entry[0].have_bytes;
}

static const struct manifest_tensor *tensor_at(const struct manifest_entry *e, size_t *from, uint64_t offset)
{
	size_t low = *from, high = e->tensors;
	if (low < high && e->tensor[low].begin <= offset && offset < e->tensor[low].end)
		return &e->tensor[low];
	if (low + 1 < high && e->tensor[low + 1].begin <= offset && offset < e->tensor[low + 1].end)
		return &e->tensor[*from = low + 1];
	for (low = 0; low < high;) {
		size_t middle = low + (high - low) / 2;
		if (e->tensor[middle].end <= offset)
			low = middle + 1;
		else
			high = middle;
	}
	*from = low;
	return &e->tensor[low];
}

/* A tensor is cut along its first dimension whose slabs fit into the limit and divide `at`, where the piece begins in it. @return bytes of one such
 * slab; *dim is that dimension */
static uint64_t slab_bytes(const struct manifest_tensor *t, uint64_t at, uint64_t most_bytes, uint32_t *dim)
{
	uint64_t slab = t->end - t->begin;
	for (*dim = 0; *dim < t->dims; ++*dim) {
		slab /= t->shape[*dim];
		if (slab <= most_bytes && at % slab == 0)
			break;
	}
	return slab;
}

/* Messages of one peer share the link in turn: pieces that are posted together end together, and the link would then idle until more are posted. So
 * the first ones grow step by step: they end one after the other, and so do all that follow them. */
static uint64_t limit_bytes(const struct plan *p)
{
	return p->number >= PLAN_RAMP ? p->chunk_bytes : p->chunk_bytes / PLAN_RAMP * (p->number + 1);
}

static void tensor_piece(const struct plan *p, const struct manifest_tensor *t, uint64_t limit, struct piece *out)
{
	uint32_t dim;
	uint64_t slab = slab_bytes(t, p->offset - t->begin, limit, &dim);
	out->dtype = t->dtype;
	if (!t->dims) {
		out->bytes = slab;
		return;
	}
	uint64_t index = (p->offset - t->begin) / slab % t->shape[dim], rows = t->shape[dim] - index;
	if (rows > limit / slab)
		rows = limit / slab;
	out->dims = t->dims - dim;
	out->shape[0] = rows;
	for (uint32_t d = 1; d < out->dims; d++)
		out->shape[d] = t->shape[dim + d];
	out->bytes = rows * slab;
}

/* Tiny tensors one behind the other go as one run of bytes: a message each would cost more than they hold, and messages below 16 KiB are not
 * announced, so that only some hundred of them can be under way (8000 tensors over 100 ms: 7.2 s, so 0.9 s). @return bytes of the run, 0: there is none */
static uint64_t tiny_run(const struct manifest_entry *e, size_t first, uint64_t limit)
{
	uint64_t bytes = 0;
	size_t i = first;
	for (; i < e->tensors; i++) {
		uint64_t more = e->tensor[i].end - e->tensor[i].begin;
		if (more >= PLAN_TINY_BYTES || bytes + more > limit)
			break;
		bytes += more;
	}
	return i - first > 1 ? bytes : 0;
}

static void file_piece(struct plan *p, const struct manifest_entry *e, struct piece *out)
{
	uint64_t end = e->kind == MANIFEST_TENSORS ? e->header_bytes : e->bytes, limit = limit_bytes(p);
	out->offset = p->offset;
	out->files_end = p->file + 1;
	if (p->offset < end)
		out->bytes = end - p->offset < limit ? end - p->offset : limit;
	if (out->bytes)
		return;
	const struct manifest_tensor *t = tensor_at(e, &p->tensor, p->offset);
	out->bytes = p->offset == t->begin ? tiny_run(e, p->tensor, limit) : 0;
	if (!out->bytes)
		tensor_piece(p, t, limit, out);
}

static void file_step(struct plan *p)
{
	p->file++;
	p->tensor = 0;
	p->offset = p->file < p->m->n ? p->m->entry[p->file].have_bytes : 0;
}

static void small_piece(struct plan *p, struct piece *out)
{
	unsigned files = 0;
	out->small = true;
	for (; p->file < p->m->n; file_step(p)) {
		const struct manifest_entry *e = &p->m->entry[p->file];
		if (!plan_sends(e))
			continue;
		if (!plan_is_small(e) || files == PLAN_SMALL_FILES || out->bytes + e->bytes > p->chunk_bytes)
			break;
		out->bytes += e->bytes;
		files++;
	}
	out->files_end = p->file;
}

bool plan_next(struct plan *p, struct piece *out)
{
	memset(out, 0, sizeof(*out));
	while (p->file < p->m->n) {
		const struct manifest_entry *e = &p->m->entry[p->file];
		bool rest = plan_sends(e) && (plan_is_small(e) || p->offset < e->bytes);
		if (rest)
			break;
		file_step(p);
	}
	if (p->file >= p->m->n)
		return false;
	out->number = p->number;
	out->file = p->file;
	if (plan_is_small(&p->m->entry[p->file])) {
		small_piece(p, out);
	} else {
		file_piece(p, &p->m->entry[p->file], out);
		p->offset += out->bytes;
	}
	p->number++;
	return true;
}

uint64_t plan_floor(const struct manifest_entry *e, uint64_t chunk_bytes, uint64_t bytes)
{
	uint32_t dim;
	size_t hint = 0;
	if (plan_is_small(e))
		return 0;
	if (bytes >= e->bytes)
		bytes = e->bytes - 1; /* one piece always travels: its arrival is what has a file checked and renamed */
	if (e->kind != MANIFEST_TENSORS || bytes < e->header_bytes)
		return bytes - bytes % PLAN_ALIGN;
	const struct manifest_tensor *t = tensor_at(e, &hint, bytes);
	return bytes - (bytes - t->begin) % slab_bytes(t, 0, chunk_bytes, &dim);
}
