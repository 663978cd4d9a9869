/* A path: its connection is set up leg by leg, watched, taken down whole when any part of it fails, and (by the initiator) made again with backoff.
 * Called through link_rdma_ops, by rdma_step and by cm.c. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "link/rdma/rdma.h"
#include "tern/error.h"
#include "tern/tern.h"

enum { PATH_BIND_DEPTH = 512, OVERHEAD_V4 = 20 + 8 + 12 + 4, OVERHEAD_V6 = 40 + 8 + 12 + 4 };

struct rdma_leg *rdma_path_out(struct rdma_path *p, uint32_t lane)
{
	return &p->leg[p->is_acceptor ? p->base.lanes + lane : lane];
}

struct rdma_leg *rdma_path_in(struct rdma_path *p, uint32_t lane)
{
	return &p->leg[p->is_acceptor ? lane : p->base.lanes + lane];
}

void rdma_path_fail(struct rdma_path *p, const char *format, ...)
{
	va_list list;

	if (p->is_failing)
		return;
	p->is_failing = true;
	va_start(list, format);
	vsnprintf(p->why, sizeof(p->why), format, list);
	va_end(list);
}

static void path_free_buffers(struct rdma_path *p)
{
	struct rdma_link *l = (struct rdma_link *)p->base.link;

	for (uint32_t i = 0; i < RDMA_LEGS_MAX; i++) {
		rdma_sq_close(&p->leg[i].sq);
		if (p->leg[i].rq)
			rdma_rq_close(l, p->leg[i].rq);
		p->leg[i].rq = NULL;
	}
	if (p->rings_mr)
		ibv_dereg_mr(p->rings_mr);
	if (p->rings)
		munmap(p->rings, p->rings_bytes);
	p->rings_mr = NULL;
	p->rings = NULL;
	p->kept = NULL;
}

static int path_rings(struct rdma_path *p)
{
	p->rings_bytes = RDMA_SEND_RING + (uint64_t)p->base.lanes * RDMA_LANE_RING;
	p->rings = mmap(NULL, p->rings_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p->rings == MAP_FAILED)
		p->rings = NULL;
	p->rings_mr = p->rings ? ibv_reg_mr(p->port->device->pd, p->rings, p->rings_bytes, IBV_ACCESS_LOCAL_WRITE) : NULL;
	if (!p->rings_mr) {
		char locked[120];
		rdma_words_locked(locked, sizeof(locked), p->rings_bytes);
		rdma_path_fail(p, "no memory for a send ring: %s", locked);
		return -TERN_ENOMEM;
	}
	for (uint32_t lane = 0; lane <= p->base.lanes; lane++) {
		struct rdma_sq *sq = lane ? &rdma_path_out(p, lane)->sq : &p->leg[0].sq;
		sq->ring = p->rings + (lane ? RDMA_SEND_RING + (uint64_t)(lane - 1) * RDMA_LANE_RING : 0);
		sq->ring_bytes = lane ? RDMA_LANE_RING : RDMA_SEND_RING;
		sq->ring_lkey = p->rings_mr->lkey;
	}
	return 0;
}

/* Of queue pair 0; UC: RC has the port's. */
static uint32_t path_rq(const struct rdma_path *p)
{
	const struct rdma_link *l = (const struct rdma_link *)p->base.link;
	return l->options.rq ? l->options.rq : RDMA_RQ_UC;
}

static uint32_t path_lane_rq(const struct rdma_path *p, uint32_t sends)
{
	uint32_t n = RDMA_LANE_RQ;
	while (n > RDMA_LANE_RQ_MIN && sends + path_rq(p) + n * p->base.lanes > (uint32_t)p->port->device->attr.max_cqe)
		n /= 2;
	return n;
}

/* Queues, rings and (UC) receive buffers; kept as long as the route leads to the same device, the lanes are as many and the connection is of the same kind. */
static int path_buffers(struct rdma_path *p)
{
	struct rdma_link *l = (struct rdma_link *)p->base.link;

	if (p->kept)
		return 0;
	if (!p->is_uc && rdma_port_share(l, p->port)) {
		rdma_path_fail(p, "%.150s", l->base.trouble);
		return -TERN_ENOMEM;
	}
	uint32_t depth = rdma_line_depth(p);
	p->cq_depth = 0;
	for (uint32_t i = 0; i < p->n_legs; i++) {
		bool is_in = i && (i <= p->base.lanes) == p->is_acceptor;
		if (rdma_sq_open(&p->leg[i].sq, is_in ? PATH_BIND_DEPTH : i || l->options.sq ? depth : RDMA_SQ_DEFAULT))
			goto fail;
		p->cq_depth += p->leg[i].sq.depth;
	}
	if (path_rings(p))
		goto fail;
	uint32_t lane_rq = path_lane_rq(p, p->cq_depth);
	for (uint32_t lane = 0; p->is_uc && lane <= p->base.lanes; lane++) {
		struct rdma_leg *leg = lane ? rdma_path_in(p, lane) : &p->leg[0];
		leg->rq = rdma_rq_open(l, p->port, lane ? lane_rq : path_rq(p), lane ? RDMA_LANE_FRAME_BYTES : 4096, false);
		if (!leg->rq)
			goto fail;
		p->cq_depth += leg->rq->n;
	}
	if (!p->is_uc)
		p->cq_depth += p->port->frames->n + p->port->lanes->n;
	p->kept = p->port->device;
	p->kept_uc = p->is_uc;
	return 0;
fail:
	rdma_path_fail(p, "no memory for queues and buffers: %.100s", l->base.trouble);
	path_free_buffers(p);
	return -TERN_ENOMEM;
}

int rdma_path_attach(struct rdma_path *p, const char *device, uint32_t lanes)
{
	struct rdma_link *l = (struct rdma_link *)p->base.link;
	struct rdma_port *port = rdma_port_get(l, device);

	if (!port) {
		rdma_path_fail(p, "%.150s", l->base.trouble);
		return -TERN_EIO;
	}
	if (p->cq)
		return p->port == port ? 0 : -TERN_EIO;
	bool is_same = p->kept == port->device && lanes == p->base.lanes && p->kept_uc == p->is_uc;
	for (uint32_t i = 0; !is_same && i < RDMA_LEGS_MAX; i++)
		if (p->leg[i].sq.writes) {
			rdma_path_fail(p, "writes of the connection before are not told yet");
			return -TERN_EAGAIN;
		}
	if (!is_same)
		path_free_buffers(p);
	if (p->port != port)
		p->depth_most = 0; /* another device gives other depths */
	p->port = port;
	p->base.lanes = lanes;
	p->n_legs = 1 + 2 * lanes;
	int err = path_buffers(p);
	if (err)
		return err;
	uint32_t most = (uint32_t)port->device->attr.max_cqe;
	p->cq = ibv_create_cq(port->device->verbs, (int)(p->cq_depth < most ? p->cq_depth : most), p, port->channel, 0);
	if (!p->cq) {
		rdma_path_fail(
		        p, "device %s gives no completion queue of %u: %s; close peers, or lower rq= or sq=", device, p->cq_depth, strerror(errno));
		return -TERN_EIO;
	}
	p->cq_armed = RDMA_UNARMED;
	p->awaited = 0;
	p->wants_room = false;
	return 0;
}

bool rdma_path_kind(struct rdma_path *p, bool is_uc)
{
	if (p->is_uc != is_uc && rdma_rx_has_pending((struct rdma_link *)p->base.link, p))
		return false;
	p->is_uc = is_uc;
	p->base.is_reliable = !is_uc;
	if (!is_uc || p->base.max_write_bytes > RDMA_FRAME_BYTES) { /* UC's are what the last connection's route allowed */
		p->base.max_frame_bytes = is_uc ? RDMA_UC_BYTES : RDMA_FRAME_BYTES;
		p->base.max_write_bytes = is_uc ? RDMA_UC_BYTES : RDMA_WRITE_BYTES;
	}
	return true;
}

void rdma_path_leg_up(struct rdma_leg *leg)
{
	struct rdma_path *p = leg->path;
	char text[80];

	if (leg->is_up || p->state != RDMA_PATH_SETUP || p->is_failing)
		return;
	leg->is_up = true;
	if (++p->n_up < p->n_legs)
		return;
	p->state = RDMA_PATH_UP;
	p->base.is_connected = true;
	p->base.connection++;
	p->backoff_ns = RDMA_BACKOFF_NS;
	p->next_ns = UINT64_MAX;
	rdma_line_start(p);
	rdma_log((struct rdma_link *)p->base.link, TERN_LOG_INFO,
	        "rdma: connection %u with %s on %s, mode %s, %u lanes of %u writes, packets of %u bytes", p->base.connection,
	        rdma_addr_text(p->base.remote.data, text, sizeof(text)), p->port->device->name, p->is_uc ? "uc" : "rc", p->base.lanes,
	        rdma_path_out(p, 1)->sq.depth, p->mtu_agreed);
}

static void path_completion(struct rdma_path *p, const struct ibv_wc *wc)
{
	if (wc->wr_id >> 63) {
		struct rdma_leg *leg = &p->leg[wc->wr_id >> 32 & 0x7fffffff];
		if (wc->status == IBV_WC_SUCCESS)
			rdma_tx_completed(leg, (uint32_t)wc->wr_id);
		else
			rdma_path_fail(p, "queue pair %u: %s", leg->index, ibv_wc_status_str(wc->status));
		return;
	}
	if (wc->status != IBV_WC_SUCCESS)
		rdma_path_fail(p, "receiving: %s", ibv_wc_status_str(wc->status));
	rdma_rx_completed(p, wc);
	for (uint32_t i = 0; p->state == RDMA_PATH_SETUP && i < p->n_legs; i++)
		if (p->leg[i].qp && p->leg[i].qp->qp_num == wc->qp_num) /* data before the manager's last message: it stands */
			rdma_path_leg_up(&p->leg[i]);
}

static void path_take(struct rdma_path *p, uint32_t polls)
{
	struct ibv_wc wc[RDMA_BATCH];

	for (int n = RDMA_BATCH; p->cq && n == RDMA_BATCH && polls > 0; polls--) {
		n = ibv_poll_cq(p->cq, RDMA_BATCH, wc);
		for (int i = 0; i < n; i++)
			path_completion(p, &wc[i]);
	}
}

void rdma_path_poll(struct rdma_path *p)
{
	path_take(p, RDMA_POLLS_MAX);
	for (uint32_t i = 0; p->leg[0].rq && i < p->n_legs; i++) /* queues of its own: UC */
		if (p->leg[i].rq && p->leg[i].qp && rdma_rq_is_low(p->leg[i].rq))
			rdma_rq_post(p->leg[i].rq);
}

/* Completions of sends wake nobody who does not wait for them. A look before: arming is the dearest call of a small message, and for nothing if its answer is here. */
void rdma_path_arm(struct rdma_path *p)
{
	const struct rdma_link *l = (const struct rdma_link *)p->base.link;
	rdma_path_poll(p);
	if (l->pending)
		return;
	uint8_t wanted = p->awaited || p->wants_room ? RDMA_ARMED_ALL : RDMA_ARMED_FRAMES;

	if (p->cq_armed < wanted) {
		ibv_req_notify_cq(p->cq, wanted == RDMA_ARMED_FRAMES);
		p->cq_armed = wanted;
	}
	rdma_path_poll(p);
}

/* First nothing can arrive or leave any more, then all is told: so nothing of this connection lands after its end was said. */
void rdma_path_down(struct rdma_path *p, uint64_t now_ns)
{
	struct ibv_qp_attr error = {.qp_state = IBV_QPS_ERR};
	bool was_up = p->state == RDMA_PATH_UP;

	for (uint32_t i = 0; i < p->n_legs; i++) {
		if (p->leg[i].qp)
			ibv_modify_qp(p->leg[i].qp, &error, IBV_QP_STATE);
		if (p->leg[i].rq)
			p->leg[i].rq->qp = NULL; /* what is flushed does not go back into it */
	}
	p->is_failing = true; /* the flushed requests are no news */
	if (p->cq) /* all of it: what has arrived the peer counts as arrived */
		path_take(p, (uint32_t)p->cq->cqe / RDMA_BATCH + 1);
	rdma_line_end(p);
	rdma_expose_end_windows(p);
	for (uint32_t i = 0; i < RDMA_LEGS_MAX; i++)
		rdma_leg_destroy(&p->leg[i]);
	if (p->cq) {
		ibv_ack_cq_events(p->cq, p->cq_unacked); /* or destroying waits for ever */
		ibv_destroy_cq(p->cq);
	}
	p->cq = NULL;
	p->cq_unacked = 0;
	for (uint32_t i = 0; i < p->n_legs; i++)
		rdma_tx_lost(&p->leg[i]);
	rdma_expose_broken(p);
	p->base.is_connected = false;
	p->is_failing = false;
	p->n_up = 0;
	p->state = RDMA_PATH_DOWN;
	p->next_ns = p->is_acceptor || p->base.fault ? UINT64_MAX : now_ns + p->backoff_ns;
	p->backoff_ns = p->backoff_ns * 2 < RDMA_BACKOFF_MAX_NS ? p->backoff_ns * 2 : RDMA_BACKOFF_MAX_NS;
	if (was_up)
		rdma_log((struct rdma_link *)p->base.link, TERN_LOG_WARN, "rdma: connection %u is over: %s", p->base.connection, p->why);
}

static void path_attempt(struct rdma_path *p, uint64_t now_ns)
{
	struct rdma_link *l = (struct rdma_link *)p->base.link;

	if (!rdma_path_kind(p, p->wants_uc)) {
		p->next_ns = now_ns + RDMA_CM_PERIOD_NS;
		return;
	}
	p->state = RDMA_PATH_SETUP;
	p->attempt = ++l->attempts;
	p->mtu_agreed = p->mtu_bytes;
	p->next_ns = now_ns + RDMA_SETUP_NS;
	p->n_legs = 1 + 2 * p->base.lanes;
	for (uint32_t i = 0; i < p->n_legs; i++)
		if (rdma_cm_dial(&p->leg[i]))
			return;
}

void rdma_path_step(struct rdma_path *p, uint64_t now_ns)
{
	if (p->cq)
		rdma_path_poll(p);
	if (p->state == RDMA_PATH_SETUP && now_ns >= p->next_ns)
		rdma_path_fail(p, "no answer within %llu ms", (unsigned long long)(p->is_acceptor ? RDMA_ACCEPT_NS : RDMA_SETUP_NS) / 1000000);
	if (p->is_failing) {
		char text[80];
		rdma_trouble((struct rdma_link *)p->base.link, "rdma: %s: %s", rdma_addr_text(p->base.remote.data, text, sizeof(text)), p->why);
		rdma_path_down(p, now_ns);
	} else if (p->state == RDMA_PATH_DOWN && now_ns >= p->next_ns) {
		path_attempt(p, now_ns);
	}
}

static int path_address(struct rdma_path *p, const struct link_path_config *config)
{
	struct rdma_link *l = (struct rdma_link *)p->base.link;
	sa_family_t family = 0;

	memcpy(&p->to, config->remote.data, config->remote.bytes < sizeof(config->remote.data) ? config->remote.bytes : sizeof(config->remote.data));
	if (config->remote.bytes >= sizeof(family))
		family = p->to.ss_family;
	if ((family == AF_INET && config->remote.bytes >= sizeof(struct sockaddr_in)) ||
	        (family == AF_INET6 && config->remote.bytes >= sizeof(struct sockaddr_in6)))
		return 0;
	if (config->is_acceptor && !config->remote.bytes)
		return 0;
	rdma_trouble(l, "rdma: an address of %u bytes and family %u is neither IPv4 nor IPv6", config->remote.bytes, family);
	return -TERN_EADDR;
}

int rdma_path_open(struct link *link, const struct link_path_config *config, struct link_path **out)
{
	struct rdma_link *l = (struct rdma_link *)link;

	*out = NULL;
	if (!config->token) {
		rdma_trouble(l, "rdma: a path without a token: queue pairs belong to a session");
		return -TERN_EINVAL;
	}
	if (l->n_paths == RDMA_PATHS_MAX) {
		rdma_trouble(l, "rdma: %d paths of one link are the limit", RDMA_PATHS_MAX);
		return -TERN_ELIMIT;
	}
	struct rdma_path *p = calloc(1, sizeof(*p));
	if (!p)
		return -TERN_ENOMEM;
	p->base.link = link;
	p->base.remote = config->remote;
	p->is_acceptor = config->is_acceptor;
	p->mtu_bytes = config->mtu_bytes && config->mtu_bytes < 256 ? 256 : config->mtu_bytes;
	int err = path_address(p, config);
	if (err) {
		free(p);
		return err;
	}
	p->from = l->n_device_hosts ? l->device_host[config->address % l->n_device_hosts] : l->host;
	memcpy(p->token, config->token, sizeof(p->token));
	p->base.lanes = l->options.lanes;
	p->base.max_write_bytes = RDMA_WRITE_BYTES; /* until its kind is known */
	p->line = config->line;
	rdma_line_open(p);
	p->base.overhead_bytes = p->to.ss_family == AF_INET6 ? OVERHEAD_V6 : OVERHEAD_V4;
	for (uint32_t i = 0; i < RDMA_LEGS_MAX; i++) {
		p->leg[i].path = p;
		p->leg[i].index = i;
		p->leg[i].waiting_end = &p->leg[i].waiting;
	}
	p->backoff_ns = RDMA_BACKOFF_NS;
	p->next_ns = p->is_acceptor ? UINT64_MAX : 0;
	p->index = l->n_paths;
	l->paths[l->n_paths++] = p;
	*out = &p->base;
	rdma_path_step(p, rdma_now_ns());
	return 0;
}

void rdma_path_reset(struct link *link, struct link_path *path)
{
	struct rdma_path *p = (struct rdma_path *)path;

	(void)link;
	if (p->state == RDMA_PATH_DOWN)
		return;
	rdma_path_fail(p, "given up for the peer's other paths");
	rdma_path_down(p, rdma_now_ns());
}

void rdma_path_close(struct link *link, struct link_path **path)
{
	struct rdma_link *l = (struct rdma_link *)link;
	struct rdma_path *p = (struct rdma_path *)*path;

	if (!p)
		return;
	rdma_path_fail(p, "closed");
	rdma_path_down(p, 0);
	rdma_expose_forget(p);
	rdma_tx_forget(p);
	rdma_rx_forget(l, p);
	path_free_buffers(p);
	l->paths[p->index] = l->paths[--l->n_paths];
	l->paths[p->index]->index = p->index;
	free(p);
	*path = NULL;
}
