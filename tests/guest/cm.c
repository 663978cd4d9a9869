/* How queue pairs of RC and UC come about through librdmacm, as transport/link/rdma makes them: own queue pairs on RDMA_PS_TCP ids, private data
 * read at the request, several set-ups under way at one listener, a refusal, one end gone. Run by tests/guest/suite. One process, both ends,
 * between the addresses TERN_RDMA_FROM and TERN_RDMA_TO. Knows nothing of Tern. */
#include <arpa/inet.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <poll.h>
#include <rdma/rdma_cma.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SETUPS 5
#define WAIT_MS 5000
#define PORT 7471

// One connection: the initiator's side or the acceptor's. The queue pair is ours, not the id's: librdmacm would make RC ones only.
struct side {
	struct rdma_cm_id *id;
	struct ibv_pd *pd;
	struct ibv_cq *cq;
	struct ibv_qp *qp;
	bool up;
};

static struct sockaddr_in from, to;
static struct rdma_event_channel *chan;
static struct rdma_cm_id *listener;
static int failures;

#define CHECK(cond, ...) do { if (!(cond)) { failures++; printf("FAIL %s:%d: ", __func__, __LINE__); printf(__VA_ARGS__); putchar('\n'); } } while (0)

static void need(bool ok, const char *what)
{
	if (ok)
		return;
	printf("cannot go on: %s: %s\n", what, strerror(errno));
	exit(1);
}

static struct rdma_cm_event *event_wait(int ms)
{
	struct pollfd p = {.fd = chan->fd, .events = POLLIN};
	struct rdma_cm_event *e = NULL;

	if (poll(&p, 1, ms) == 1)
		need(!rdma_get_cm_event(chan, &e), "rdma_get_cm_event");
	return e;
}

// The next event, which must be the one named.
static void event_expect(enum rdma_cm_event_type type)
{
	struct rdma_cm_event *e = event_wait(WAIT_MS);

	if (!e || e->event != type) {
		printf("cannot go on: %s (status %d) came instead of %s\n", e ? rdma_event_str(e->event) : "nothing", e ? e->status : 0,
			rdma_event_str(type));
		exit(1);
	}
	rdma_ack_cm_event(e);
}

static void side_qp(struct side *s, enum ibv_qp_type type)
{
	struct ibv_qp_init_attr init = {.qp_type = type, .cap = {.max_send_wr = 16, .max_recv_wr = 16, .max_send_sge = 1, .max_recv_sge = 1}};

	s->pd = ibv_alloc_pd(s->id->verbs);
	s->cq = ibv_create_cq(s->id->verbs, 32, NULL, NULL, 0);
	need(s->pd && s->cq, "PD, CQ");
	init.send_cq = init.recv_cq = s->cq;
	s->qp = ibv_create_qp(s->pd, &init);
	need(s->qp, "ibv_create_qp");
}

// librdmacm fills in what RC needs; UC takes none of the retry and read fields.
static int side_state(struct side *s, enum ibv_qp_state state)
{
	struct ibv_qp_attr attr = {.qp_state = state};
	int mask = 0;

	if (rdma_init_qp_attr(s->id, &attr, &mask))
		return errno;
	if (s->qp->qp_type == IBV_QPT_UC)
		mask &= ~(IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
			IBV_QP_MAX_QP_RD_ATOMIC);
	return ibv_modify_qp(s->qp, &attr, mask);
}

static void side_close(struct side *s)
{
	if (s->qp)
		ibv_destroy_qp(s->qp);
	if (s->cq)
		ibv_destroy_cq(s->cq);
	if (s->pd)
		ibv_dealloc_pd(s->pd);
	if (s->id)
		rdma_destroy_id(s->id);
	*s = (struct side){0};
}

static void side_resolve(struct side *s)
{
	struct sockaddr_in src = from;

	need(!rdma_create_id(chan, &s->id, s, RDMA_PS_TCP), "rdma_create_id");
	need(!rdma_resolve_addr(s->id, (struct sockaddr *)&src, (struct sockaddr *)&to, 2000), "rdma_resolve_addr");
	event_expect(RDMA_CM_EVENT_ADDR_RESOLVED);
	need(!rdma_resolve_route(s->id, 2000), "rdma_resolve_route");
	event_expect(RDMA_CM_EVENT_ROUTE_RESOLVED);
}

static int side_connect(struct side *s, uint8_t number)
{
	uint8_t data[56] = {'T', number};
	struct rdma_conn_param param = {.private_data = data, .private_data_len = sizeof(data), .retry_count = 6, .rnr_retry_count = 6,
		.qp_num = s->qp->qp_num};
	int rc = side_state(s, IBV_QPS_INIT);

	return rc ? rc : rdma_connect(s->id, &param) ? errno : 0;
}

// The acceptor's end goes to RTS before it answers: it may be written to as soon as the initiator hears of it.
static int side_accept(struct side *s)
{
	uint8_t data[8] = {'A'};
	struct rdma_conn_param param = {.private_data = data, .private_data_len = sizeof(data), .rnr_retry_count = 6, .qp_num = s->qp->qp_num};
	int rc = side_state(s, IBV_QPS_INIT);

	rc = rc ? rc : side_state(s, IBV_QPS_RTR);
	rc = rc ? rc : side_state(s, IBV_QPS_RTS);
	return rc ? rc : rdma_accept(s->id, &param) ? errno : 0;
}

// The answer came: the initiator's own queue pair goes to RTS, then the acceptor is told.
static int side_establish(struct side *s)
{
	int rc = side_state(s, IBV_QPS_RTR);

	rc = rc ? rc : side_state(s, IBV_QPS_RTS);
	return rc ? rc : rdma_establish(s->id) ? errno : 0;
}

// One SEND across proves that the two ends are joined.
static bool side_send(struct side *s, struct side *t)
{
	static uint8_t buf[2][64];
	struct ibv_mr *ms = ibv_reg_mr(s->pd, buf[0], 64, 0), *mt = ibv_reg_mr(t->pd, buf[1], 64, IBV_ACCESS_LOCAL_WRITE);
	struct ibv_sge gs = {.addr = (uintptr_t)buf[0], .length = 64}, gt = {.addr = (uintptr_t)buf[1], .length = 64};
	struct ibv_recv_wr *rbad, r = {.sg_list = &gt, .num_sge = 1};
	struct ibv_send_wr *sbad, w = {.sg_list = &gs, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED};
	struct ibv_wc wc = {.status = IBV_WC_GENERAL_ERR};
	bool ok;

	need(ms && mt, "ibv_reg_mr");
	gs.lkey = ms->lkey;
	gt.lkey = mt->lkey;
	memset(buf[0], 0x5a, 64);
	memset(buf[1], 0, 64);
	need(!ibv_post_recv(t->qp, &r, &rbad) && !ibv_post_send(s->qp, &w, &sbad), "post");
	for (int i = 0; i < 1000 && !ibv_poll_cq(t->cq, 1, &wc); i++)
		poll(NULL, 0, 1);
	ok = wc.status == IBV_WC_SUCCESS && !memcmp(buf[0], buf[1], 64);
	ibv_dereg_mr(ms);
	ibv_dereg_mr(mt);
	return ok;
}

// SETUPS requests are all under way before the first is answered; each is told apart by its private data.
static void test_many(enum ibv_qp_type type, const char *name)
{
	struct side a[SETUPS] = {0}, b[SETUPS] = {0};
	struct rdma_cm_event *e;
	int requests = 0, answers = 0, ups = 0;

	for (uint8_t i = 0; i < SETUPS; i++) {
		side_resolve(&a[i]);
		side_qp(&a[i], type);
	}
	for (uint8_t i = 0; i < SETUPS; i++)
		need(!side_connect(&a[i], i), "connect");
	while (requests < SETUPS && (e = event_wait(WAIT_MS))) {
		const uint8_t *data = e->param.conn.private_data;

		need(e->event == RDMA_CM_EVENT_CONNECT_REQUEST, "CONNECT_REQUEST");
		need(e->param.conn.private_data_len >= 2 && data[0] == 'T' && data[1] < SETUPS && !b[data[1]].id, "private data");
		b[data[1]].id = e->id;
		rdma_ack_cm_event(e);
		requests++;
	}
	need(requests == SETUPS, "requests");
	for (int i = SETUPS - 1; i >= 0; i--) { // not in the order of their coming
		side_qp(&b[i], type);
		need(!side_accept(&b[i]), "accept");
	}
	while ((answers < SETUPS || ups < SETUPS) && (e = event_wait(WAIT_MS))) {
		struct side *s = e->id->context;

		if (e->event == RDMA_CM_EVENT_CONNECT_RESPONSE) {
			CHECK(!side_establish(s), "%s: establish: %s", name, strerror(errno));
			answers++;
		} else {
			need(e->event == RDMA_CM_EVENT_ESTABLISHED, rdma_event_str(e->event));
			ups++;
		}
		rdma_ack_cm_event(e);
	}
	CHECK(answers == SETUPS && ups == SETUPS, "%s: %d answers, %d established", name, answers, ups);
	for (int i = 0; i < SETUPS; i++)
		CHECK(side_send(&a[i], &b[i]) && side_send(&b[i], &a[i]), "%s: set-up %d does not carry", name, i);
	printf("fact cm.%s setups_at_once=%d\n", name, ups);
	for (int i = 0; i < SETUPS; i++) {
		side_close(&a[i]);
		side_close(&b[i]);
	}
	while ((e = event_wait(0))) // DISCONNECTED of the others' closing
		rdma_ack_cm_event(e);
}

// rdma_create_qp itself, where the type is not RC.
static void test_own_or_theirs(void)
{
	struct side s = {0};
	struct ibv_qp_init_attr init = {.qp_type = IBV_QPT_UC, .cap = {.max_send_wr = 16, .max_recv_wr = 16, .max_send_sge = 1, .max_recv_sge = 1}};

	side_resolve(&s);
	printf("fact cm.rdma_create_qp_UC=%s\n", rdma_create_qp(s.id, NULL, &init) ? strerror(errno) : "made");
	if (s.id->qp)
		rdma_destroy_qp(s.id);
	side_close(&s);
}

static void test_refusal(void)
{
	struct side a = {0};
	struct rdma_cm_event *e;
	struct rdma_cm_id *asked;
	uint8_t why[4] = {'N', 'O', 7};

	side_resolve(&a);
	side_qp(&a, IBV_QPT_RC);
	need(!side_connect(&a, 1), "connect");
	e = event_wait(WAIT_MS);
	need(e && e->event == RDMA_CM_EVENT_CONNECT_REQUEST, "request");
	asked = e->id;
	rdma_ack_cm_event(e);
	need(!rdma_reject(asked, why, sizeof(why)), "rdma_reject");
	rdma_destroy_id(asked);
	e = event_wait(WAIT_MS);
	CHECK(e && e->event == RDMA_CM_EVENT_REJECTED && e->param.conn.private_data_len >= 3 && !memcmp(e->param.conn.private_data, why, 3),
		"refusal: %s",
		e ? rdma_event_str(e->event) : "nothing");
	if (e)
		rdma_ack_cm_event(e);
	side_close(&a);
}

// One end closes: the other hears of it.
static void test_disconnect(void)
{
	struct side a = {0}, b = {0};
	struct rdma_cm_event *e;

	side_resolve(&a);
	side_qp(&a, IBV_QPT_RC);
	need(!side_connect(&a, 1), "connect");
	e = event_wait(WAIT_MS);
	need(e && e->event == RDMA_CM_EVENT_CONNECT_REQUEST, "request");
	b.id = e->id;
	rdma_ack_cm_event(e);
	side_qp(&b, IBV_QPT_RC);
	need(!side_accept(&b), "accept");
	event_expect(RDMA_CM_EVENT_CONNECT_RESPONSE);
	need(!side_establish(&a), "establish");
	event_expect(RDMA_CM_EVENT_ESTABLISHED);
	side_close(&b);
	e = event_wait(WAIT_MS);
	CHECK(e && e->event == RDMA_CM_EVENT_DISCONNECTED, "the end closed, the other got %s", e ? rdma_event_str(e->event) : "nothing");
	if (e)
		rdma_ack_cm_event(e);
	side_close(&a);
}

// Nobody listens there: an answer, not a timeout.
static void test_nobody(void)
{
	struct side a = {0};
	struct rdma_cm_event *e;

	to.sin_port = htons(PORT + 1);
	side_resolve(&a);
	to.sin_port = htons(PORT);
	side_qp(&a, IBV_QPT_RC);
	need(!side_connect(&a, 1), "connect");
	e = event_wait(WAIT_MS);
	CHECK(e && e->event == RDMA_CM_EVENT_REJECTED, "nobody listens: %s", e ? rdma_event_str(e->event) : "nothing");
	if (e)
		rdma_ack_cm_event(e);
	side_close(&a);
}

static bool address(const char *name, struct sockaddr_in *out)
{
	const char *text = getenv(name);

	out->sin_family = AF_INET;
	return text && inet_pton(AF_INET, text, &out->sin_addr) == 1;
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!address("TERN_RDMA_FROM", &from) || !address("TERN_RDMA_TO", &to)) {
		printf("SKIP: TERN_RDMA_FROM and TERN_RDMA_TO do not name two addresses of RDMA devices\n");
		return 77;
	}
	to.sin_port = htons(PORT);
	chan = rdma_create_event_channel();
	need(chan, "rdma_create_event_channel");
	need(!rdma_create_id(chan, &listener, NULL, RDMA_PS_TCP), "rdma_create_id");
	need(!rdma_bind_addr(listener, (struct sockaddr *)&to) && !rdma_listen(listener, 64), "rdma_listen");
	test_many(IBV_QPT_RC, "rc");
	test_many(IBV_QPT_UC, "uc");
	test_own_or_theirs();
	test_refusal();
	test_disconnect();
	test_nobody();
	rdma_destroy_id(listener);
	rdma_destroy_event_channel(chan);
	printf("%s\n", failures ? "failed" : "ok");
	return failures != 0;
}
