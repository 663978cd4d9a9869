/* A peer that knows the token and says in its requests what no tern would: called by rdma_link.c. The layout of the private data is that of link/rdma/cm.c. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <rdma/rdma_cma.h>
#include "rdma_ends.h"

enum { IDS_MAX = 8 };

struct hello {
	uint32_t magic;
	uint8_t version, leg, lanes, mode;
	uint32_t attempt, connection;
	uint16_t mtu, unused;
	uint8_t token[LINK_TOKEN_BYTES];
};

static uint8_t rogue_bits = 2; /* of the mode: it has no other */

struct rogue {
	struct end end[2]; /* end[0]: the link under attack */
	struct rdma_event_channel *channel;
	struct rdma_cm_id *id[IDS_MAX];
	int n;
};

/* Steps the link until the id has an event. @return what it was; -1: none came */
static int rogue_event(struct rogue *r)
{
	struct rdma_cm_event *event;
	for (uint64_t until = now() + PATIENCE_MS * 1000000ull; now() < until;) {
		step(&r->end[0]);
		if (!rdma_get_cm_event(r->channel, &event)) {
			int kind = (int)event->event;
			rdma_ack_cm_event(event);
			return kind;
		}
	}
	return -1;
}

static struct rdma_cm_id *rogue_dial(struct rogue *r)
{
	struct rdma_cm_id *id = NULL;
	struct sockaddr_storage to;
	struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = inet_addr(hosts[1])};

	memset(&to, 0, sizeof(to));
	memcpy(&to, r->end[0].link->local.data, r->end[0].link->local.bytes);
	CU_ASSERT_FATAL(r->n < IDS_MAX && !rdma_create_id(r->channel, &id, NULL, RDMA_PS_TCP));
	r->id[r->n++] = id;
	CU_ASSERT_EQUAL_FATAL(rdma_resolve_addr(id, (struct sockaddr *)&from, (struct sockaddr *)&to, 1000), 0);
	CU_ASSERT_EQUAL_FATAL(rogue_event(r), RDMA_CM_EVENT_ADDR_RESOLVED);
	CU_ASSERT_EQUAL_FATAL(rdma_resolve_route(id, 1000), 0);
	CU_ASSERT_EQUAL_FATAL(rogue_event(r), RDMA_CM_EVENT_ROUTE_RESOLVED);
	return id;
}

/* One request. @return the event that answers it; an accepted one is established */
static int rogue_says(struct rogue *r, uint8_t leg, uint8_t lanes, uint32_t connection, uint16_t mtu)
{
	struct hello hello = {.magic = htonl(0x7465726e), .version = 2, .leg = leg, .lanes = lanes, .attempt = htonl(77)};
	struct rdma_conn_param param = {.private_data = &hello, .private_data_len = sizeof(hello), .responder_resources = 1, .initiator_depth = 1,
	        .retry_count = 6, .rnr_retry_count = 6, .srq = 1};
	struct rdma_cm_id *id = rogue_dial(r);

	hello.mode = (uint8_t)(is_uc | rogue_bits);
	hello.connection = htonl(connection);
	hello.mtu = htons(mtu);
	memcpy(hello.token, tokens[0], sizeof(hello.token));
	param.qp_num = 100 + (uint32_t)r->n;
	CU_ASSERT_EQUAL_FATAL(rdma_connect(id, &param), 0);
	int kind = rogue_event(r);
	if (kind == RDMA_CM_EVENT_CONNECT_RESPONSE)
		CU_ASSERT_EQUAL(rdma_establish(id), 0);
	return kind;
}

static void rogue_ends(struct rogue *r)
{
	for (; r->n; r->n--)
		rdma_destroy_id(r->id[r->n - 1]);
	UNTIL(r->end, !r->end[0].path->is_connected);
}

/* A first leg, then others of the same attempt that do not belong to it: refused one by one, and an honest peer is served afterwards. */
void rogue_hellos(void)
{
	static struct rogue r;

	memset(&r, 0, sizeof(r));
	CU_ASSERT_EQUAL_FATAL(open_link(&r.end[0], 0, true, 0), 0);
	CU_ASSERT_EQUAL(open_path(&r.end[0], NULL, 0, true), 0);
	r.channel = rdma_create_event_channel();
	CU_ASSERT_FATAL(r.channel && !fcntl(r.channel->fd, F_SETFL, O_NONBLOCK));
	CU_ASSERT_EQUAL(rogue_says(&r, 0, 0, 1, 0), RDMA_CM_EVENT_REJECTED);
	CU_ASSERT_EQUAL(rogue_says(&r, 3, 1, 1, 0), RDMA_CM_EVENT_REJECTED);
	CU_ASSERT_EQUAL(rogue_says(&r, 0, 1, 0, 0), RDMA_CM_EVENT_REJECTED);
	rogue_bits = 4; /* means nothing */
	CU_ASSERT_EQUAL(rogue_says(&r, 0, 1, 1, 0), RDMA_CM_EVENT_REJECTED);
	rogue_bits = 2;
	rogue_ends(&r);
	CU_ASSERT_EQUAL(rogue_says(&r, 0, 1, 1, 0), RDMA_CM_EVENT_CONNECT_RESPONSE);
	CU_ASSERT_EQUAL(rogue_says(&r, 0, 1, 1, 0), RDMA_CM_EVENT_REJECTED); /* a leg that is there */
	CU_ASSERT_EQUAL(rogue_says(&r, 5, 4, 1, 0), RDMA_CM_EVENT_REJECTED); /* other lanes */
	CU_ASSERT_EQUAL(rogue_says(&r, 6, 4, 1, 0), RDMA_CM_EVENT_REJECTED);
	CU_ASSERT_EQUAL(rogue_says(&r, 1, 1, 2, 0), RDMA_CM_EVENT_REJECTED); /* another connection */
	CU_ASSERT_EQUAL(rogue_says(&r, 1, 1, 1, 1500), RDMA_CM_EVENT_REJECTED); /* other packets */
	CU_ASSERT_FALSE(r.end[0].path->is_connected);
	rogue_ends(&r);
	rdma_destroy_event_channel(r.channel);
	CU_ASSERT_EQUAL_FATAL(open_link(&r.end[1], 1, false, 0), 0);
	CU_ASSERT_EQUAL(open_path(&r.end[1], &r.end[0].link->local, 0, false), 0);
	UNTIL(r.end, r.end[0].path->is_connected && r.end[1].path->is_connected);
	pass(r.end, 0, 0);
	pass(r.end, 1, 0);
	close_both(r.end);
}
