/* Receiving: buffers, their queues (one shared by a link's RC paths, one a UC queue pair), completions in arrival order, lent frames. Called through
 * link_rdma_ops and by path.c. Knows nothing of what is in a frame. */
#include <stdlib.h>
#include <sys/mman.h>
#include "link/rdma/rdma.h"

static int rq_memory(struct rdma_rq *rq, struct rdma_port *port)
{
	rq->data_bytes = (uint64_t)rq->n * rq->buffer_bytes;
	rq->data = mmap(NULL, rq->data_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (rq->data == MAP_FAILED) {
		rq->data = NULL;
		return -1;
	}
	rq->mr = ibv_reg_mr(port->device->pd, rq->data, rq->data_bytes, IBV_ACCESS_LOCAL_WRITE);
	rq->recv = calloc(rq->n, sizeof(*rq->recv));
	if (!rq->mr || !rq->recv)
		return -1;
	for (uint32_t i = rq->n; i-- > 0;) {
		rq->recv[i].rq = rq;
		rq->recv[i].data = rq->data + (uint64_t)i * rq->buffer_bytes;
		rq->recv[i].next = rq->idle;
		rq->idle = &rq->recv[i];
	}
	rq->n_idle = rq->n;
	return 0;
}

struct rdma_rq *rdma_rq_open(struct rdma_link *l, struct rdma_port *port, uint32_t n, uint32_t buffer_bytes, bool is_shared)
{
	struct rdma_rq *rq = calloc(1, sizeof(*rq));
	if (!rq)
		return NULL;
	uint32_t most = (uint32_t)(is_shared ? port->device->attr.max_srq_wr : port->device->attr.max_qp_wr);
	rq->n = n < most ? n : most;
	rq->buffer_bytes = buffer_bytes;
	if (rq_memory(rq, port)) {
		char locked[200];
		rdma_words_locked(locked, sizeof(locked), rq->data_bytes);
		rdma_trouble(l, "rdma: no memory for %u receive buffers: %s", rq->n, locked);
		goto fail;
	}
	if (!is_shared)
		return rq;
	struct ibv_srq_init_attr attr = {.attr = {.max_wr = rq->n, .max_sge = 1}};
	rq->srq = ibv_create_srq(port->device->pd, &attr);
	if (rq->srq && rdma_rq_post(rq))
		return rq;
	rdma_trouble(l, "rdma: device %s gives no shared receive queue of %u", port->device->name, rq->n);
fail:
	rdma_rq_free(rq);
	return NULL;
}

void rdma_rq_free(struct rdma_rq *rq)
{
	if (rq->srq)
		ibv_destroy_srq(rq->srq);
	if (rq->mr)
		ibv_dereg_mr(rq->mr);
	if (rq->data)
		munmap(rq->data, rq->data_bytes);
	free(rq->recv);
	free(rq);
}

void rdma_rq_close(struct rdma_link *l, struct rdma_rq *rq)
{
	if (!rq->out) {
		rdma_rq_free(rq);
		return;
	}
	rq->is_dead = true;
	rq->next_dead = l->dead;
	if (l->dead)
		l->dead->prev_dead = rq;
	l->dead = rq;
}

static void rq_bury(struct rdma_link *l, struct rdma_rq *rq)
{
	if (rq->prev_dead)
		rq->prev_dead->next_dead = rq->next_dead;
	else
		l->dead = rq->next_dead;
	if (rq->next_dead)
		rq->next_dead->prev_dead = rq->prev_dead;
	rdma_rq_free(rq);
}

static void rq_put(struct rdma_link *l, struct rdma_recv *recv)
{
	struct rdma_rq *rq = recv->rq;
	recv->state = RDMA_RECV_IDLE;
	recv->next = rq->idle;
	rq->idle = recv;
	rq->n_idle++;
	rq->out--;
	if (rq->is_dead && !rq->out)
		rq_bury(l, rq);
	else if (rdma_rq_is_low(rq))
		rdma_rq_post(rq);
}

bool rdma_rq_post(struct rdma_rq *rq)
{
	struct ibv_recv_wr wr[RDMA_BATCH], *bad = NULL;
	struct ibv_sge sge[RDMA_BATCH];

	while (rq->idle && (rq->srq || rq->qp)) {
		uint32_t n = 0;
		for (struct rdma_recv *r = rq->idle; r && n < RDMA_BATCH; r = r->next, n++) {
			sge[n] = (struct ibv_sge){.addr = (uintptr_t)r->data, .length = rq->buffer_bytes, .lkey = rq->mr->lkey};
			wr[n] = (struct ibv_recv_wr){.wr_id = (uintptr_t)r, .sg_list = &sge[n], .num_sge = 1, .next = &wr[n + 1]};
		}
		wr[n - 1].next = NULL;
		int err = rq->srq ? ibv_post_srq_recv(rq->srq, wr, &bad) : ibv_post_recv(rq->qp, wr, &bad);
		uint32_t took = err && bad ? (uint32_t)(bad - wr) : err ? 0 : n;
		for (uint32_t i = 0; i < took; i++) {
			rq->idle->state = RDMA_RECV_POSTED;
			rq->idle = rq->idle->next;
		}
		rq->n_idle -= took;
		if (err)
			return false;
	}
	return true;
}

void rdma_rq_detach(struct rdma_rq *rq)
{
	rq->qp = NULL;
	for (uint32_t i = 0; i < rq->n; i++)
		if (rq->recv[i].state == RDMA_RECV_POSTED) {
			rq->recv[i].state = RDMA_RECV_IDLE;
			rq->recv[i].next = rq->idle;
			rq->idle = &rq->recv[i];
			rq->n_idle++;
		}
}

static uint32_t rx_lane(struct rdma_path *p, uint32_t qp_num)
{
	if (p->leg[0].qp && p->leg[0].qp->qp_num == qp_num)
		return 0;
	for (uint32_t lane = p->base.lanes; lane > 0; lane--) {
		const struct ibv_qp *qp = rdma_path_in(p, lane)->qp;
		if (qp && qp->qp_num == qp_num)
			return lane;
	}
	return 0;
}

void rdma_rx_completed(struct rdma_path *p, const struct ibv_wc *wc)
{
	struct rdma_link *l = (struct rdma_link *)p->base.link;
	struct rdma_recv *r = (struct rdma_recv *)(uintptr_t)wc->wr_id;

	r->rq->out++;
	r->path = p;
	r->bytes = wc->byte_len;
	r->lane = (uint8_t)rx_lane(p, wc->qp_num);
	r->is_placed = wc->opcode == IBV_WC_RECV_RDMA_WITH_IMM;
	r->imm = r->is_placed ? ntohl(wc->imm_data) : 0;
	r->next = NULL;
	r->state = RDMA_RECV_PENDING;
	if (wc->status != IBV_WC_SUCCESS) { /* of a queue pair that fails; a shared queue's buffer is still good */
		rq_put(l, r);
		return;
	}
	*l->pending_end = r;
	l->pending_end = &r->next;
	l->base.rx_frames++;
	l->base.rx_bytes += r->bytes;
}

bool rdma_rx_has_pending(const struct rdma_link *l, const struct rdma_path *p)
{
	const struct rdma_recv *r = l->pending;

	while (r && r->path != p)
		r = r->next;
	return r;
}

static void rq_forget(struct rdma_rq *rq, const struct rdma_path *p)
{
	for (uint32_t i = 0; rq && i < rq->n; i++)
		if (rq->recv[i].path == p)
			rq->recv[i].path = NULL;
}

/* Frames that are lent stay so; what they came by is no more. */
void rdma_rx_forget(struct rdma_link *l, const struct rdma_path *p)
{
	struct rdma_recv **at = &l->pending;

	l->pending_end = at;
	while (*at) {
		struct rdma_recv *r = *at;
		if (r->path == p) {
			*at = r->next;
			rq_put(l, r);
		} else {
			at = &r->next;
		}
		l->pending_end = at;
	}
	for (uint32_t i = 0; i < l->n_ports; i++) {
		rq_forget(l->port[i].frames, p);
		rq_forget(l->port[i].lanes, p);
	}
	for (uint32_t i = 0; i < RDMA_LEGS_MAX; i++)
		rq_forget(p->leg[i].rq, p);
}

size_t rdma_rx(struct link *link, struct rx_frame *out, size_t n, uint64_t now_ns)
{
	struct rdma_link *l = (struct rdma_link *)link;
	size_t got = 0;

	if (!l->pending)
		rdma_step(l, now_ns);
	l->base.rx_calls++;
	while (got < n && l->pending) {
		struct rdma_recv *r = l->pending;
		l->pending = r->next;
		if (!l->pending)
			l->pending_end = &l->pending;
		out[got] = (struct rx_frame){.path = &r->path->base, .lane = r->lane};
		if (r->is_placed) {
			out[got].is_placed = true;
			out[got].placed_number = r->imm;
			out[got].placed_bytes = r->bytes;
			rq_put(l, r);
		} else {
			r->state = RDMA_RECV_LENT;
			out[got].head = r->data;
			out[got].head_bytes = r->bytes;
			out[got].lent = r;
		}
		got++;
	}
	return got;
}

void rdma_rx_free(struct link *link, struct rx_frame *frames, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (frames[i].lent)
			rq_put((struct rdma_link *)link, frames[i].lent);
}
