/* One queue pair of a path: made with verbs and moved by hand through its states with what rdma_cm knows, because rdma_cm itself makes no UC ones.
 * Called by cm.c and path.c. */
#include <errno.h>
#include <string.h>
#include "link/rdma/rdma.h"

int rdma_leg_create(struct rdma_leg *leg)
{
	struct rdma_path *p = leg->path;
	struct ibv_device_attr *device = &p->port->device->attr;
	bool is_in = leg->index && leg == rdma_path_in(p, leg->index > p->base.lanes ? leg->index - p->base.lanes : leg->index);
	struct ibv_qp_init_attr attr = {.send_cq = p->cq, .recv_cq = p->cq, .qp_type = p->is_uc ? IBV_QPT_UC : IBV_QPT_RC};

	attr.srq = p->is_uc ? NULL : leg->index ? p->port->lanes->srq : p->port->frames->srq;
	attr.cap.max_send_wr = leg->sq.depth;
	attr.cap.max_send_sge = is_in ? 1 : (uint32_t)(device->max_sge < FRAME_SEGS_MAX ? device->max_sge : FRAME_SEGS_MAX);
	attr.cap.max_recv_wr = attr.srq ? 0 : leg->rq ? leg->rq->n : 1;
	attr.cap.max_recv_sge = attr.srq ? 0 : 1;
	attr.cap.max_inline_data = is_in ? 0 : RDMA_INLINE_BYTES;
	leg->qp = ibv_create_qp(p->port->device->pd, &attr);
	if (!leg->qp && attr.cap.max_inline_data) {
		attr.cap.max_inline_data = 0;
		leg->qp = ibv_create_qp(p->port->device->pd, &attr);
	}
	while (!leg->qp && rdma_line_shallower(leg)) {
		attr.cap.max_send_wr = leg->sq.depth;
		leg->qp = ibv_create_qp(p->port->device->pd, &attr);
	}
	if (!leg->qp) {
		if (p->is_uc && (errno == EOPNOTSUPP || errno == EINVAL || errno == ENOSYS)) /* some devices have RC only */
			rdma_line_no_uc(p);
		rdma_path_fail(p, "device %s gives no queue pair %u of %u (depth %u): %s; close peers, or lower lanes= or sq=", p->port->device->name,
		        leg->index, p->n_legs, leg->sq.depth, strerror(errno));
		return -1;
	}
	leg->inline_bytes = attr.cap.max_inline_data;
	leg->max_sge = attr.cap.max_send_sge;
	if (leg->rq)
		leg->rq->qp = leg->qp;
	return 0;
}

static int leg_modify(struct rdma_leg *leg, struct ibv_qp_attr *attr, int mask, const char *what)
{
	int err = ibv_modify_qp(leg->qp, attr, mask);
	if (err)
		rdma_path_fail(leg->path, "queue pair %u does not get %s: %s", leg->index, what, strerror(err));
	return err ? -1 : 0;
}

static int leg_ask(struct rdma_leg *leg, struct ibv_qp_attr *attr, int *mask, enum ibv_qp_state state)
{
	memset(attr, 0, sizeof(*attr));
	attr->qp_state = state;
	*mask = 0;
	if (rdma_init_qp_attr(leg->id, attr, mask)) {
		rdma_path_fail(leg->path, "queue pair %u: the connection manager does not say how to connect it: %s", leg->index, strerror(errno));
		return -1;
	}
	return 0;
}

int rdma_leg_init(struct rdma_leg *leg)
{
	struct ibv_qp_attr attr;
	int mask;

	if (leg_ask(leg, &attr, &mask, IBV_QPS_INIT))
		return -1;
	attr.qp_access_flags = leg->index ? IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ : 0;
	if (leg->path->is_uc)
		attr.qp_access_flags &= IBV_ACCESS_REMOTE_WRITE;
	if (leg_modify(leg, &attr, mask | IBV_QP_ACCESS_FLAGS, "INIT"))
		return -1;
	if (leg->rq && !rdma_rq_post(leg->rq)) {
		rdma_path_fail(leg->path, "queue pair %u takes no receives: %s", leg->index, strerror(errno));
		return -1;
	}
	return 0;
}

static enum ibv_mtu leg_mtu(const struct rdma_path *p, enum ibv_mtu route)
{
	enum ibv_mtu mtu = route;
	while (mtu > IBV_MTU_256 && p->mtu_agreed && (128u << mtu) > p->mtu_agreed)
		mtu--;
	return mtu;
}

/* The path's frames follow from queue pair 0: all of them have one route. */
static void leg_learn_mtu(struct rdma_leg *leg, enum ibv_mtu mtu)
{
	struct rdma_path *p = leg->path;
	uint32_t bytes = 128u << mtu;

	p->mtu_agreed = p->base.packet_bytes = bytes;
	if (leg->path->is_uc)
		p->base.max_frame_bytes = p->base.max_write_bytes = bytes;
}

int rdma_leg_ready(struct rdma_leg *leg)
{
	const struct rdma_link *l = (const struct rdma_link *)leg->path->base.link;
	struct ibv_qp_attr attr;
	int mask;

	if (leg_ask(leg, &attr, &mask, IBV_QPS_RTR))
		return -1;
	attr.path_mtu = leg_mtu(leg->path, attr.path_mtu);
	leg_learn_mtu(leg, attr.path_mtu);
	attr.min_rnr_timer = RDMA_RNR_TIMER;
	attr.max_dest_rd_atomic = 1;
	if (leg->path->is_uc)
		mask &= IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;
	else
		mask |= IBV_QP_MIN_RNR_TIMER | IBV_QP_MAX_DEST_RD_ATOMIC;
	if (leg_modify(leg, &attr, mask, "RTR") || leg_ask(leg, &attr, &mask, IBV_QPS_RTS))
		return -1;
	attr.timeout = (uint8_t)l->options.timeout;
	attr.retry_cnt = attr.rnr_retry = RDMA_RETRIES;
	attr.max_rd_atomic = 1;
	if (leg->path->is_uc)
		mask &= IBV_QP_STATE | IBV_QP_SQ_PSN;
	else
		mask |= IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC;
	return leg_modify(leg, &attr, mask, "RTS");
}

void rdma_leg_destroy(struct rdma_leg *leg)
{
	if (leg->id)
		rdma_destroy_id(leg->id); /* tells the peer */
	leg->id = NULL;
	if (leg->qp)
		ibv_destroy_qp(leg->qp);
	leg->qp = NULL;
	leg->is_up = false;
	if (leg->rq)
		rdma_rq_detach(leg->rq);
}
