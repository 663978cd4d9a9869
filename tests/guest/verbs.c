/* What the RDMA devices here do with memory windows, UC and shared receive queues: each fact that transport/link/rdma builds on, checked in one
 * process over two devices (or one, twice). Run by tests/guest/suite. Lines "fact NAME VALUE" are for people; a check that fails is a fault of
 * the device or of our idea of it. Knows nothing of Tern: verbs only, so that a failure here tells device and link apart. */
#include <errno.h>
#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BUF_BYTES (64 * 1024)
#define MTU_BYTES 1024
#define WINDOW_AT 4096
#define WINDOW_BYTES 4096
#define WAIT_MS 2000
#define REBINDS 500
#define RXE_VENDOR 0xffffff // rxe 6.1 holds a window to the bounds of its region only

struct dev {
	struct ibv_context *ctx;
	struct ibv_device_attr attr;
	struct ibv_pd *pd;
	struct ibv_mr *mr;
	uint8_t *buf;
	union ibv_gid gid;
	int gid_index;
};

// One queue pair and its completion queue.
struct end {
	struct dev *dev;
	struct ibv_cq *cq;
	struct ibv_qp *qp;
	struct ibv_srq *srq;
};

// a writes into b.
struct pair {
	struct end a, b;
};

static struct dev devs[2];
static int failures;

#define CHECK(cond, ...) do { if (!(cond)) { failures++; printf("FAIL %s:%d: ", __func__, __LINE__); printf(__VA_ARGS__); putchar('\n'); } } while (0)

static void need(bool ok, const char *what)
{
	if (ok)
		return;
	printf("cannot go on: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

// A GID of RoCE v2 over IPv4, otherwise the last one of the table that is not zero.
static void find_gid(struct dev *d)
{
	struct ibv_gid_entry e;

	d->gid_index = -1;
	for (int i = 0; i < 16; i++) {
		if (ibv_query_gid_ex(d->ctx, 1, (uint32_t)i, &e, 0))
			continue;
		d->gid_index = i;
		d->gid = e.gid;
		if (e.gid_type == IBV_GID_TYPE_ROCE_V2 && e.gid.raw[10] == 0xff && e.gid.raw[11] == 0xff)
			return;
	}
	need(d->gid_index >= 0, "no GID");
}

static void dev_open(struct dev *d, struct ibv_device *device)
{
	d->ctx = ibv_open_device(device);
	need(d->ctx, "ibv_open_device");
	need(!ibv_query_device(d->ctx, &d->attr), "ibv_query_device");
	d->pd = ibv_alloc_pd(d->ctx);
	need(d->pd, "ibv_alloc_pd");
	d->buf = aligned_alloc(4096, BUF_BYTES);
	need(d->buf, "memory");
	d->mr = ibv_reg_mr(d->pd, d->buf, BUF_BYTES, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_MW_BIND);
	need(d->mr, "ibv_reg_mr with MW_BIND");
	find_gid(d);
}

static struct end end_open(struct dev *d, enum ibv_qp_type type, struct ibv_srq *srq)
{
	struct end e = {.dev = d, .srq = srq};
	struct ibv_qp_init_attr init = {.qp_type = type, .srq = srq, .cap = {.max_send_wr = 64, .max_recv_wr = srq ? 0 : 64, .max_send_sge = 1,
		.max_recv_sge = srq ? 0 : 1}};
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = IBV_ACCESS_REMOTE_WRITE};

	e.cq = ibv_create_cq(d->ctx, 256, NULL, NULL, 0);
	need(e.cq, "ibv_create_cq");
	init.send_cq = init.recv_cq = e.cq;
	e.qp = ibv_create_qp(d->pd, &init);
	if (!e.qp)
		return e;
	need(!ibv_modify_qp(e.qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS), "modify to INIT");
	return e;
}

static void end_close(struct end *e)
{
	if (e->qp)
		ibv_destroy_qp(e->qp);
	if (e->cq)
		ibv_destroy_cq(e->cq);
	*e = (struct end){0};
}

static void end_connect(struct end *e, const struct end *to)
{
	bool rc = e->qp->qp_type == IBV_QPT_RC;
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024, .dest_qp_num = to->qp->qp_num, .rq_psn = 7, .max_dest_rd_atomic = 1,
			.min_rnr_timer = 12,
		.ah_attr = {.is_global = 1, .port_num = 1, .grh = {.dgid = to->dev->gid, .sgid_index = (uint8_t)e->dev->gid_index, .hop_limit = 64}},
	};
	int mask = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;

	need(!ibv_modify_qp(e->qp, &attr, mask | (rc ? IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER : 0)), "modify to RTR");
	attr = (struct ibv_qp_attr){.qp_state = IBV_QPS_RTS, .sq_psn = 7, .timeout = 12, .retry_cnt = 3, .rnr_retry = 3, .max_rd_atomic = 1};
	mask = IBV_QP_STATE | IBV_QP_SQ_PSN;
	need(!ibv_modify_qp(e->qp, &attr, mask | (rc ? IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC : 0)),
		"modify to RTS");
}

static bool pair_open(struct pair *p, enum ibv_qp_type type, struct ibv_srq *srq)
{
	p->a = end_open(&devs[0], type, NULL);
	p->b = end_open(&devs[1], type, srq);
	if (!p->a.qp || !p->b.qp)
		return false;
	end_connect(&p->a, &p->b);
	end_connect(&p->b, &p->a);
	return true;
}

static void pair_close(struct pair *p)
{
	end_close(&p->a);
	end_close(&p->b);
}

// The next completion within ms; otherwise status -1.
static struct ibv_wc end_wait(struct end *e, uint64_t ms)
{
	struct ibv_wc wc = {.status = (enum ibv_wc_status)-1};
	uint64_t end = now_ms() + ms;

	while (ibv_poll_cq(e->cq, 1, &wc) == 0 && now_ms() < end)
		nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
	return wc;
}

static const char *status_name(struct ibv_wc wc)
{
	return (int)wc.status == -1 ? "nothing" : ibv_wc_status_str(wc.status);
}

static enum ibv_qp_state end_state(struct end *e)
{
	struct ibv_qp_attr attr;
	struct ibv_qp_init_attr init;

	need(!ibv_query_qp(e->qp, &attr, IBV_QP_STATE, &init), "ibv_query_qp");
	return attr.qp_state;
}

static const char *state_name(struct end *e)
{
	static const char *const names[] = {"RESET", "INIT", "RTR", "RTS", "SQD", "SQE", "ERR", "UNKNOWN"};

	return names[end_state(e)];
}

// A receive without any place: it only takes an immediate.
static int end_post_empty(struct end *e)
{
	struct ibv_recv_wr wr = {.wr_id = 99}, *bad;

	return e->srq ? ibv_post_srq_recv(e->srq, &wr, &bad) : ibv_post_recv(e->qp, &wr, &bad);
}

// Writes bytes of value at offset of the other device's memory, under key. Immediate 0: none.
static struct ibv_wc end_write(struct pair *p, uint8_t value, size_t offset, size_t bytes, uint32_t key, uint32_t imm)
{
	struct ibv_sge sge = {.addr = (uintptr_t)p->a.dev->buf, .length = (uint32_t)bytes, .lkey = p->a.dev->mr->lkey};
	struct ibv_send_wr *bad, wr = {
		.wr_id = value, .sg_list = &sge, .num_sge = 1, .opcode = imm ? IBV_WR_RDMA_WRITE_WITH_IMM : IBV_WR_RDMA_WRITE,
			.send_flags = IBV_SEND_SIGNALED,
		.imm_data = imm, .wr.rdma = {.remote_addr = (uintptr_t)p->b.dev->buf + offset, .rkey = key},
	};

	memset(p->a.dev->buf, value, bytes);
	need(!ibv_post_send(p->a.qp, &wr, &bad), "ibv_post_send");
	return end_wait(&p->a, WAIT_MS);
}

static bool landed(struct dev *d, uint8_t value, size_t offset, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		if (d->buf[offset + i] != value)
			return false;
	return true;
}

static int window_bind(struct end *e, struct ibv_mw *mw, uint32_t *key)
{
	struct ibv_send_wr *bad, wr = {.wr_id = 1, .opcode = IBV_WR_BIND_MW, .send_flags = IBV_SEND_SIGNALED};
	struct ibv_wc wc;
	int rc;

	*key = ibv_inc_rkey(mw->rkey);
	wr.bind_mw.mw = mw;
	wr.bind_mw.rkey = *key;
	wr.bind_mw.bind_info = (struct ibv_mw_bind_info){.mr = e->dev->mr, .addr = (uintptr_t)e->dev->buf + WINDOW_AT, .length = WINDOW_BYTES,
		.mw_access_flags = IBV_ACCESS_REMOTE_WRITE};
	rc = ibv_post_send(e->qp, &wr, &bad);
	if (rc)
		return rc;
	wc = end_wait(e, WAIT_MS);
	if (wc.status)
		printf("bind: %s\n", status_name(wc));
	mw->rkey = *key;
	return (int)wc.status;
}

static int window_invalidate(struct end *e, uint32_t key)
{
	struct ibv_send_wr *bad, wr = {.wr_id = 2, .opcode = IBV_WR_LOCAL_INV, .send_flags = IBV_SEND_SIGNALED};

	wr.invalidate_rkey = key;
	if (ibv_post_send(e->qp, &wr, &bad))
		return -1;
	return (int)end_wait(e, WAIT_MS).status;
}

// rxe knows LOCAL_INV on RC only (elsewhere the queue pair breaks); freeing the window ends it on every device, for a system call.
static int window_end(struct end *e, struct ibv_mw *mw, uint32_t key)
{
	return e->qp->qp_type == IBV_QPT_RC ? window_invalidate(e, key) : ibv_dealloc_mw(mw);
}

// After a refused write: what became of the two ends, and does a right write still pass?
static void report_after_refusal(struct pair *p, const char *name, struct ibv_wc wc, uint32_t good_key)
{
	struct ibv_wc at_b, next = {0}, imm = {0};
	bool passes = false;

	at_b = end_wait(&p->b, 50);
	printf("fact %s.refused writer_completion=%s target_completion=%s "
		"writer_qp=%s target_qp=%s\n", name, status_name(wc), status_name(at_b), state_name(&p->a), state_name(&p->b));
	if (end_state(&p->a) == IBV_QPS_RTS) {
		end_post_empty(&p->b);
		next = end_write(p, 0x77, 0, MTU_BYTES, good_key, 5);
		imm = end_wait(&p->b, 300);
		passes = imm.status == IBV_WC_SUCCESS && landed(p->b.dev, 0x77, 0, MTU_BYTES);
	}
	CHECK(p->a.qp->qp_type == IBV_QPT_RC || p->b.srq || passes, "%s: UC does not go on after a refused write", name);
	printf("fact %s.after_refusal next_write=%s imm=%s works=%s\n", name, status_name(next), status_name(imm), passes ? "yes" : "no");
}

// A window's key on its own queue pair, on a sibling, past its end, after its end.
static void test_windows(enum ibv_qp_type type, struct ibv_srq *srq, const char *name)
{
	struct pair own, other;
	struct ibv_mw *mw = ibv_alloc_mw(devs[1].pd, IBV_MW_TYPE_2);
	uint32_t key, all = devs[1].mr->rkey;
	struct ibv_wc wc;

	memset(devs[1].buf, 0, BUF_BYTES);
	if (!mw) {
		printf("fact %s.window none (%s)\n", name, strerror(errno));
		return;
	}
	if (!pair_open(&own, type, srq) || !pair_open(&other, type, srq)) {
		printf("fact %s.pair cannot be made (%s)\n", name, strerror(errno));
		return;
	}
	CHECK(!window_bind(&own.b, mw, &key), "%s: bind", name);
	end_post_empty(&own.b);
	wc = end_write(&own, 0x11, WINDOW_AT, MTU_BYTES, key, 3);
	CHECK(wc.status == IBV_WC_SUCCESS, "%s: write by the bound queue pair: %s", name, status_name(wc));
	wc = end_wait(&own.b, WAIT_MS);
	CHECK(wc.status == IBV_WC_SUCCESS && wc.imm_data == 3, "%s: immediate: %s", name, status_name(wc));
	CHECK(landed(&devs[1], 0x11, WINDOW_AT, MTU_BYTES), "%s: bytes", name);

	end_post_empty(&other.b);
	wc = end_write(&other, 0x22, WINDOW_AT, MTU_BYTES, key, 4);
	report_after_refusal(&other, name, wc, all);
	CHECK(landed(&devs[1], 0x11, WINDOW_AT, MTU_BYTES), "%s: another queue pair of the domain wrote through the window", name);

	CHECK(!window_end(&own.b, mw, key), "%s: end of the window", name);
	wc = end_write(&own, 0x33, WINDOW_AT, MTU_BYTES, key, 0);
	printf("fact %s.after_invalidate:\n", name);
	report_after_refusal(&own, name, wc, all);
	CHECK(landed(&devs[1], 0x11, WINDOW_AT, MTU_BYTES), "%s: written after the window's end", name);
	if (type == IBV_QPT_RC)
		CHECK(!ibv_dealloc_mw(mw), "%s: dealloc: %s", name, strerror(errno));
	pair_close(&other);
	pair_close(&own);
}

// Windows come and go under fresh keys on one queue pair, as one does a message: what one costs.
static void test_rebind(enum ibv_qp_type type, const char *name)
{
	struct pair p;
	struct ibv_mw *mw = ibv_alloc_mw(devs[1].pd, IBV_MW_TYPE_2);
	uint32_t key = 0, old;
	uint64_t from = now_ms();
	int done = 0;

	if (!mw || !pair_open(&p, type, NULL))
		return;
	for (; done < REBINDS && mw; done++) {
		old = key;
		if (window_bind(&p.b, mw, &key) || key == old || window_end(&p.b, mw, key))
			break;
		if (type != IBV_QPT_RC)
			mw = ibv_alloc_mw(devs[1].pd, IBV_MW_TYPE_2);
	}
	CHECK(done == REBINDS, "%s: rebinding stops at %d", name, done);
	printf("fact %s.rebind_us %llu\n", name, (unsigned long long)(now_ms() - from) * 1000 / REBINDS);
	if (mw)
		ibv_dealloc_mw(mw);
	pair_close(&p);
}

static void test_out_of_bounds(enum ibv_qp_type type, const char *name)
{
	struct pair p;
	struct ibv_mw *mw = ibv_alloc_mw(devs[1].pd, IBV_MW_TYPE_2);
	struct ibv_wc wc;
	uint32_t key;

	if (!mw || !pair_open(&p, type, NULL))
		return;
	memset(devs[1].buf, 0, BUF_BYTES);
	CHECK(!window_bind(&p.b, mw, &key), "%s: bind", name);
	wc = end_write(&p, 0x44, WINDOW_AT + WINDOW_BYTES - 512, MTU_BYTES, key, 0);
	report_after_refusal(&p, name, wc, devs[1].mr->rkey);
	if (devs[1].attr.vendor_id != RXE_VENDOR)
		CHECK(landed(&devs[1], 0, WINDOW_AT, WINDOW_BYTES + MTU_BYTES), "%s: bytes past the window, or half of a refused write", name);
	printf("fact %s.window_end_is_kept %s\n", name, landed(&devs[1], 0, WINDOW_AT, WINDOW_BYTES + MTU_BYTES) ? "yes" : "no");
	if (end_state(&p.a) != IBV_QPS_RTS) { // the refusal above broke it
		ibv_dealloc_mw(mw);
		pair_close(&p);
		mw = ibv_alloc_mw(devs[1].pd, IBV_MW_TYPE_2);
		need(mw && pair_open(&p, type, NULL), "pair");
		CHECK(!window_bind(&p.b, mw, &key), "%s: bind", name);
	}
	wc = end_write(&p, 0x45, BUF_BYTES - 512, MTU_BYTES, key, 0);
	report_after_refusal(&p, name, wc, devs[1].mr->rkey);
	CHECK(landed(&devs[1], 0, BUF_BYTES - 512, 512), "%s: half of a write past the region", name);
	ibv_dealloc_mw(mw); // before the queue pair: rxe waits 50 s in ibv_destroy_qp for a window that is still bound
	pair_close(&p);
}

// The target's queue pair is moved to ERR while a window is bound to it: the window is dead, and can be freed before the queue pair.
static void test_window_of_dead_pair(enum ibv_qp_type type, const char *name)
{
	struct pair p;
	struct ibv_mw *mw = ibv_alloc_mw(devs[1].pd, IBV_MW_TYPE_2);
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
	struct ibv_wc wc;
	uint32_t key;
	int destroy, dealloc;

	if (!mw || !pair_open(&p, type, NULL))
		return;
	memset(devs[1].buf, 0, BUF_BYTES);
	CHECK(!window_bind(&p.b, mw, &key), "%s: bind", name);
	need(!ibv_modify_qp(p.b.qp, &attr, IBV_QP_STATE), "modify to ERR");
	wc = end_write(&p, 0x55, WINDOW_AT, MTU_BYTES, key, 0);
	end_wait(&p.b, 50);
	CHECK(landed(&devs[1], 0, WINDOW_AT, MTU_BYTES), "%s: a queue pair in ERR let a write through", name);
	dealloc = ibv_dealloc_mw(mw);
	destroy = ibv_destroy_qp(p.b.qp);
	p.b.qp = NULL;
	CHECK(!dealloc && !destroy, "%s: dealloc_mw in ERR: %s, destroy_qp: %s", name, strerror(dealloc), strerror(destroy));
	printf("fact %s.target_in_ERR writer_completion=%s\n", name, status_name(wc));
	pair_close(&p);
}

static void test_shared_queue(void)
{
	struct ibv_srq_init_attr init = {.attr = {.max_wr = 64, .max_sge = 1}};
	struct ibv_srq *srq = ibv_create_srq(devs[1].pd, &init);
	struct pair rc, uc;
	struct ibv_wc wc;

	if (!srq) {
		printf("fact srq none\n");
		return;
	}
	test_windows(IBV_QPT_RC, srq, "rc_srq");
	test_windows(IBV_QPT_UC, srq, "uc_srq");
	ibv_destroy_srq(srq);
	srq = ibv_create_srq(devs[1].pd, &init); // the tests above leave receives behind
	need(srq, "ibv_create_srq");
	if (!pair_open(&rc, IBV_QPT_RC, srq) || !pair_open(&uc, IBV_QPT_UC, srq)) {
		printf("fact srq.rc_and_uc_together no (%s)\n", strerror(errno));
		return;
	}
	end_post_empty(&rc.b);
	end_post_empty(&rc.b);
	end_write(&rc, 0x61, 0, MTU_BYTES, devs[1].mr->rkey, 61);
	wc = end_wait(&rc.b, WAIT_MS);
	CHECK(wc.status == IBV_WC_SUCCESS && wc.imm_data == 61, "RC on the shared queue: %s", status_name(wc));
	end_write(&uc, 0x62, 0, MTU_BYTES, devs[1].mr->rkey, 62);
	wc = end_wait(&uc.b, WAIT_MS);
	printf("fact srq.rc_and_uc_together %s\n", wc.status == IBV_WC_SUCCESS && wc.imm_data == 62 ? "yes" : "no");
	pair_close(&rc);
	pair_close(&uc);
	ibv_destroy_srq(srq);
}

// Started with PSN 9 lost on the writer's side (rdmanet losing v0 9): numbers begin at 7, a message has one packet, so the third is the one. UC
// loses it and goes on, RC mends it.
static void test_loss(enum ibv_qp_type type, const char *name, uint32_t lost)
{
	struct pair p;
	uint32_t imm;

	need(pair_open(&p, type, NULL), "pair");
	for (imm = 1; imm <= 5; imm++)
		end_post_empty(&p.b);
	for (imm = 1; imm <= 5; imm++)
		CHECK(end_write(&p, (uint8_t)imm, 0, MTU_BYTES, devs[1].mr->rkey, imm).status == IBV_WC_SUCCESS, "%s: write %u", name, imm);
	for (imm = 1; imm <= 5; imm++) {
		struct ibv_wc wc;

		if (imm == lost)
			continue;
		wc = end_wait(&p.b, WAIT_MS);
		CHECK(wc.status == IBV_WC_SUCCESS && wc.imm_data == imm, "%s: immediate %u came as %s %u", name, imm, status_name(wc), wc.imm_data);
	}
	CHECK((int)end_wait(&p.b, 50).status == -1, "%s: more came than was sent", name);
	pair_close(&p);
}

// Under a delay of the wire (rdmanet with delay ..): an RC write is acknowledged after both ways.
static void test_delay(uint64_t both_ways_ms)
{
	struct pair p;
	uint64_t from, took;

	need(pair_open(&p, IBV_QPT_RC, NULL), "pair");
	from = now_ms();
	CHECK(end_write(&p, 1, 0, MTU_BYTES, devs[1].mr->rkey, 0).status == IBV_WC_SUCCESS, "write");
	took = now_ms() - from;
	CHECK(took + 1 >= both_ways_ms && took < both_ways_ms + 1000, "a write took %llu ms over %llu", (unsigned long long)took,
		(unsigned long long)both_ways_ms);
	printf("fact wire.write_ms %llu\n", (unsigned long long)took);
	pair_close(&p);
}

static void print_limits(struct dev *d)
{
	struct ibv_qp_init_attr init = {.qp_type = IBV_QPT_RC, .cap = {.max_send_wr = 16, .max_recv_wr = 16, .max_send_sge = 1, .max_recv_sge = 1}};
	uint32_t inline_bytes = 0;

	init.send_cq = init.recv_cq = ibv_create_cq(d->ctx, 16, NULL, NULL, 0);
	for (uint32_t n = 16; n <= 4096; n += 16) {
		struct ibv_qp *qp;

		init.cap.max_inline_data = n;
		qp = ibv_create_qp(d->pd, &init);
		if (!qp)
			break;
		inline_bytes = n;
		ibv_destroy_qp(qp);
	}
	ibv_destroy_cq(init.send_cq);
	printf("fact %s max_qp=%d max_qp_wr=%d max_sge=%d max_srq=%d max_srq_wr=%d "
		"max_mw=%d max_mr=%d max_cq=%d max_cqe=%d max_inline=%u "
		"mw2a=%d mw2b=%d mem_mgt_ext=%d\n",
		ibv_get_device_name(d->ctx->device), d->attr.max_qp, d->attr.max_qp_wr, d->attr.max_sge, d->attr.max_srq, d->attr.max_srq_wr,
			d->attr.max_mw, d->attr.max_mr,
		d->attr.max_cq, d->attr.max_cqe, inline_bytes, !!(d->attr.device_cap_flags & IBV_DEVICE_MEM_WINDOW_TYPE_2A),
		!!(d->attr.device_cap_flags & IBV_DEVICE_MEM_WINDOW_TYPE_2B), !!(d->attr.device_cap_flags & IBV_DEVICE_MEM_MGT_EXTENSIONS));
}

static void test_all(void)
{
	print_limits(&devs[0]);
	test_windows(IBV_QPT_RC, NULL, "rc");
	test_windows(IBV_QPT_UC, NULL, "uc");
	test_out_of_bounds(IBV_QPT_RC, "rc_bounds");
	test_out_of_bounds(IBV_QPT_UC, "uc_bounds");
	test_window_of_dead_pair(IBV_QPT_RC, "rc");
	test_window_of_dead_pair(IBV_QPT_UC, "uc");
	test_rebind(IBV_QPT_RC, "rc");
	test_rebind(IBV_QPT_UC, "uc");
	test_shared_queue();
}

// verbs: all that needs only devices; verbs lossy, verbs slow MS: on a wire prepared for it
int main(int argc, char **argv)
{
	struct ibv_device **list;
	int count;

	setvbuf(stdout, NULL, _IOLBF, 0);
	list = ibv_get_device_list(&count);
	if (!list || count == 0) {
		printf("SKIP: no RDMA device\n");
		return 77;
	}
	dev_open(&devs[0], list[0]);
	dev_open(&devs[1], list[count > 1 ? 1 : 0]);
	if (argc == 2 && !strcmp(argv[1], "lossy")) {
		test_loss(IBV_QPT_RC, "rc", 0); // first: its repetition leaves the filter where UC's packet is lost
		test_loss(IBV_QPT_UC, "uc", 3);
	} else if (argc == 3 && !strcmp(argv[1], "slow")) {
		test_delay(strtoull(argv[2], NULL, 10));
	} else {
		test_all();
	}
	printf("%s\n", failures ? "failed" : "ok");
	return failures != 0;
}
