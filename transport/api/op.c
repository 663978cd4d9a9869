/* Operations: checked here, once, then put into the command ring. Any thread. */
#include <string.h>
#include "api/context.h"
#include "base/clock.h"
#include "base/copy.h"
#include "base/err.h"

void api_command(tern_ctx *ctx, void *entry)
{
	/* the ring holds three entries for every operation there can be: a cancel of its last life, a post and a cancel. It is never full for long */
	while (!ring_put_any(&ctx->commands, ctx->command_slots, entry))
		ck_pr_stall();
	atomic_thread_fence(memory_order_seq_cst); /* R2 */
	api_wake(ctx);
}

static const tern_args no_args;

static int op_inject(struct api_op *op, tern_ctx *ctx)
{
	uint64_t bytes = layout_bytes(&op->op.layout), copied = 0;
	if (bytes > API_INJECT_BYTES)
		return ERR(TERN_EINVAL, "TERN_INJECT takes at most %d bytes; the message has %llu", API_INJECT_BYTES, (unsigned long long)bytes);
	uint8_t *to = op->own;
	if (bytes > sizeof(op->own)) {
		to = op->inject = api_slab_get(&ctx->injects);
		if (!to)
			return -TERN_EAGAIN;
	}
	layout_copy_out(&op->op.layout, 0, to, bytes, &copied);
	layout_flat(&op->op.layout, to, bytes);
	return 0;
}

void api_list_put(void *object)
{
	struct api_list *list = object;
	for (uint32_t i = 0; i < list->n; i++)
		atomic_fetch_sub(&list->mem[i]->uses, 1);
	list->n = 0;
}

/* The region's number, if the memory holds all of the range; it is 0 until then. */
static int op_mem(const tern_mem *mem, const uint8_t *low, const uint8_t *end, uint32_t *number)
{
	if (!mem)
		return 0;
	*number = mem->number;
	if (low >= mem->addr && end <= mem->addr + mem->bytes)
		return 0;
	return ERR(TERN_EINVAL, "buffer: %p to %p is not in the registered memory given with it, %llu bytes at %p", (const void *)low,
	           (const void *)end, (unsigned long long)mem->bytes, (void *)mem->addr);
}

/* Every range is looked at before anything is kept. */
static int op_regions(struct layout *l, const tern_buf *buf)
{
	uint8_t *low, *end;
	if (l->kind == LAYOUT_LIST) {
		for (uint32_t i = 0; i < l->n; i++) {
			struct layout_range *r = &l->range[i];
			int err = op_mem(buf->iov[r->source].mem, r->addr, r->addr + (r->end - (i ? r[-1].end : 0)), &r->mem);
			if (err)
				return err;
		}
		return 0;
	}
	if (!l->bytes)
		return 0;
	layout_span(l, &low, &end);
	return op_mem(buf->tensor ? buf->tensor->mem : buf->iov[l->source].mem, low, end, &l->mem);
}

static void op_list_use(struct api_list *list, const tern_buf *buf)
{
	for (size_t i = 0; i < buf->n; i++) {
		if (!buf->iov[i].mem)
			continue;
		list->mem[list->n++] = buf->iov[i].mem;
		atomic_fetch_add(&buf->iov[i].mem->uses, 1);
	}
}

static bool op_has_dmabuf(const struct api_op *op)
{
	bool has = op->mem && op->mem->dmabuf_fd >= 0;
	for (uint32_t i = 0; op->ranges && i < op->ranges->n; i++)
		has |= op->ranges->mem[i]->dmabuf_fd >= 0;
	return has;
}

/* One run of memory, which is nearly every buffer. */
static int op_one(struct api_op *op, tern_mem *mem)
{
	struct layout *l = &op->op.layout;
	int err = l->bytes ? op_mem(mem, l->addr, l->addr + l->bytes, &l->mem) : 0;
	if (err || !mem)
		return err;
	op->mem = mem;
	atomic_fetch_add(&mem->uses, 1);
	op->has_dmabuf = mem->dmabuf_fd >= 0;
	api_op_mem(op, true);
	return 0;
}

static int op_buffer(struct api_op *op, tern_ctx *ctx, const tern_buf *buf, bool receiving)
{
	const char *why = "";
	if (layout_from_one(buf, &op->op.layout))
		return op_one(op, buf->iov->mem);
	if (buf && buf->n > 1) {
		op->ranges = api_slab_get(&ctx->lists);
		if (!op->ranges)
			return -TERN_EAGAIN;
		op->ranges->n = 0;
	}
	int err = layout_from_buf(buf, &op->op.layout, op->ranges ? op->ranges->range : NULL, &why);
	if (err)
		return ERR(TERN_EINVAL, "buffer: %s", why);
	if (receiving && layout_overlaps(&op->op.layout))
		return ERR(TERN_EINVAL, "buffer: elements of the tensor overlap; nothing can be received into it");
	err = op_regions(&op->op.layout, buf);
	if (err)
		return err;
	if (buf && buf->tensor) {
		const tern_tensor *t = buf->tensor;
		op->op.dtype = (uint8_t)t->dtype;
		op->op.dims = (uint8_t)t->dims;
		for (uint32_t i = 0; i < t->dims; i++)
			op->op.shape[i] = t->shape[i];
		op->mem = t->mem;
	} else if (buf && buf->n == 1) {
		op->mem = buf->iov[0].mem;
	} else if (op->ranges) { /* at most LAYOUT_RANGES_MAX: layout_from_buf has looked */
		op_list_use(op->ranges, buf);
	}
	if (op->mem)
		atomic_fetch_add(&op->mem->uses, 1);
	op->has_dmabuf = op_has_dmabuf(op);
	api_op_mem(op, true);
	return 0;
}

void api_op_dmabuf(struct api_op *op, bool begins)
{
	bool writes = op->op.type == MSG_OP_RECV || op->op.type == MSG_OP_READ;
	if (op->is_open == begins)
		return;
	op->is_open = begins;
	if (op->mem)
		api_mem_op(op->mem, writes, begins);
	for (uint32_t i = 0; op->ranges && i < op->ranges->n; i++)
		api_mem_op(op->ranges->mem[i], writes, begins);
}

static void op_reset(struct api_op *op, tern_ep *ep, tern_peer peer, const tern_args *args)
{
	/* What neither the caller nor op_fill says. api_run_command finds pair and ep; links, and what comes behind the layout, are msg's, which sets them up
	 * in msg_post. */
	op->op.dtype = 0;
	op->op.dims = 0;
	op->op.pair = NULL;
	op->ranges = NULL;
	op->inject = NULL;
	op->mem = NULL;
	op->has_dmabuf = false;
	op->is_open = false;
	op->ep = ep;
	op->op.peer = peer;
	op->op.flags = args->flags;
	op->op.user = args->user;
	op->op.tag = args->tag;
	op->op.ignore = args->ignore;
	op->op.imm = args->imm;
	uint32_t gen = atomic_load(&op->gen) & 0x7fffffff;
	op->op.id = (uint64_t)gen << 32 | (api_slab_index(&ep->ctx->ops, op) + 1);
}

struct op_request {
	uint8_t type;
	tern_peer peer;
	const tern_buf *buf;
	const tern_args *args;
	uint64_t key, remote_offset, remote_bytes;
};

static int op_fill(struct api_op *op, const struct op_request *r, tern_ctx *ctx)
{
	bool receiving = r->type == MSG_OP_RECV || r->type == MSG_OP_READ;
	op->op.type = r->type;
	int err = op_buffer(op, ctx, r->buf, receiving);
	if (err)
		return err;
	uint64_t bytes = layout_bytes(&op->op.layout);
	op->op.key = r->key;
	op->op.remote_offset = r->remote_offset;
	if (r->key && (r->remote_offset > r->remote_bytes || bytes > r->remote_bytes - r->remote_offset))
		return ERR(TERN_EINVAL, "%llu bytes at offset %llu reach past the end of the peer's memory (%llu bytes)", (unsigned long long)bytes,
			   (unsigned long long)r->remote_offset, (unsigned long long)r->remote_bytes);
	return (op->op.flags & TERN_INJECT) && !receiving ? op_inject(op, ctx) : 0;
}

static int op_post(tern_ep *ep, const struct op_request *r, tern_op *out)
{
	if (!ep)
		return ERR(TERN_EINVAL, "endpoint is NULL");
	tern_ctx *ctx = ep->ctx;
	if (api_fork_check(ctx))
		return -TERN_EFORK;
	const tern_args *args = r->args ? r->args : &no_args;
	tern_args whole;
	if (r->args && args->size_bytes < offsetof(tern_args, imm))
		return ERR(TERN_EINVAL, "args.size_bytes is %zu; set it to sizeof(tern_args)", args->size_bytes);
	if (r->args && args->size_bytes < sizeof(whole)) { /* an older program's: it ends there */
		whole = no_args;
		memcpy(&whole, args, args->size_bytes);
		args = &whole;
	}
	struct api_op *op = api_slab_get(&ctx->ops);
	if (!op)
		return -TERN_EAGAIN;
	atomic_fetch_add(&ep->open_ops, 1);
	op_reset(op, ep, r->peer, args);
	int err = op_fill(op, r, ctx);
	if (err) {
		api_op_free(op);
		return err;
	}
	if (out)
		*out = op->op.id;
	atomic_store(&op->state, API_OP_POSTED);
	api_command(ctx, op);
	return 0;
}

/* A look without the lock: says whether the number could be a living peer of the endpoint; the loop looks again. */
static int op_peer_check(tern_ep *ep, tern_peer peer)
{
	if (!ep)
		return ERR(TERN_EINVAL, "endpoint is NULL");
	uint32_t slot = (uint32_t)peer - 1;
	if (slot >= ep->ctx->config.max_peers || __atomic_load_n(&ep->ctx->peer_gen[slot], __ATOMIC_ACQUIRE) != (uint32_t)(peer >> 32) ||
	    __atomic_load_n(&ep->ctx->peer_ep[slot], __ATOMIC_ACQUIRE) != ep)
		return ERR(TERN_ESTALE, "peer %llx: this endpoint has no such peer now; use the number of its TERN_EV_CONNECTED",
		           (unsigned long long)peer);
	return 0;
}

int tern_send(tern_ep *ep, tern_peer peer, const tern_buf *buf, const tern_args *args, tern_op *out)
{
	int err = op_peer_check(ep, peer);
	struct op_request r = {.type = MSG_OP_SEND, .peer = peer, .buf = buf, .args = args};
	return err ? err : op_post(ep, &r, out);
}

int tern_recv(tern_ep *ep, tern_peer peer, const tern_buf *buf, const tern_args *args, tern_op *out)
{
	int err = peer == TERN_ANY_PEER ? 0 : op_peer_check(ep, peer);
	struct op_request r = {.type = MSG_OP_RECV, .peer = peer, .buf = buf, .args = args};
	return err ? err : op_post(ep, &r, out);
}

static int op_remote(tern_ep *ep, uint8_t type, tern_rmem *remote, uint64_t offset, const tern_buf *buf, const tern_args *args, tern_op *out)
{
	if (!remote || remote->ep != ep)
		return ERR(TERN_EINVAL, "remote memory is NULL or was imported by another endpoint");
	int err = op_peer_check(ep, remote->peer);
	struct op_request r = {
	    .type = type, .peer = remote->peer, .buf = buf, .args = args, .key = remote->key, .remote_offset = offset, .remote_bytes = remote->bytes};
	return err ? err : op_post(ep, &r, out);
}

int tern_write(tern_ep *ep, tern_rmem *remote, uint64_t remote_offset, const tern_buf *buf, const tern_args *args, tern_op *op)
{
	return op_remote(ep, MSG_OP_WRITE, remote, remote_offset, buf, args, op);
}

int tern_read(tern_ep *ep, tern_rmem *remote, uint64_t remote_offset, const tern_buf *buf, const tern_args *args, tern_op *op)
{
	return op_remote(ep, MSG_OP_READ, remote, remote_offset, buf, args, op);
}

static struct api_op *op_find(tern_ep *ep, tern_op id)
{
	struct api_slab *ops = &ep->ctx->ops;
	uint32_t index = (uint32_t)id - 1;
	if (index >= ops->n)
		return NULL;
	struct api_op *op = (struct api_op *)(ops->memory + ops->bytes * index);
	if ((atomic_load(&op->gen) & 0x7fffffff) != id >> 32 || atomic_load(&op->state) == API_OP_FREE || op->ep != ep)
		return NULL;
	return op;
}

int tern_cancel(tern_ep *ep, tern_op id)
{
	if (!ep)
		return ERR(TERN_EINVAL, "endpoint is NULL");
	if (api_fork_check(ep->ctx))
		return -TERN_EFORK;
	api_lock(ep->ctx);
	/* under the lock nothing ends */
	struct api_op *op = op_find(ep, id);
	bool open = op && atomic_load(&op->state) == API_OP_POSTED;
	if (open && op->cancel_gen != atomic_load(&op->gen) + 1) { /* once is enough, and keeps the ring's bound */
		op->cancel_gen = atomic_load(&op->gen) + 1;
		api_command(ep->ctx, (void *)((uintptr_t)op | 1));
	}
	api_unlock(ep->ctx);
	return open ? 0 : ERR(TERN_ESTALE, "operation %llx has ended", (unsigned long long)id);
}

void api_op_event(struct api_op *op, tern_event *out)
{
	static const uint32_t type[] = {
	    [MSG_OP_SEND] = TERN_EV_SEND, [MSG_OP_RECV] = TERN_EV_RECV, [MSG_OP_WRITE] = TERN_EV_WRITE, [MSG_OP_READ] = TERN_EV_READ};
	*out = (tern_event){.type = type[op->op.type], .status = op->op.status, .user = op->op.user, .op = op->op.id, .peer = op->op.peer, .tag = op->op.tag,
		.imm = op->op.imm, .bytes = op->op.bytes, .time_ns = op->time_ns};
}

int tern_test(tern_ep *ep, tern_op id, tern_event *event)
{
	struct api_op *op = ep && event ? op_find(ep, id) : NULL;
	if (!op)
		return ERR(TERN_ESTALE, "operation %llx has ended", (unsigned long long)id);
	if (api_fork_check(ep->ctx))
		return -TERN_EFORK;
	if (!ep->ctx->has_thread)
		api_drive(ep->ctx);
	if (atomic_load_explicit(&op->state, memory_order_acquire) != API_OP_TESTED)
		return -TERN_EAGAIN;
	api_op_event(op, event);
	api_op_free(op);
	return 0;
}
