/* Tests of msg.c: life of pairs and endpoints, operations that cannot start, frames that are held. */
#include "two.h"

static uint8_t data[65536], room[65536];

static void test_close_ends_all(void)
{
	struct msg_op send, recv, named, any, read;
	two_open(true);
	two_post(&send, 0, MSG_OP_SEND, data, 60000, 1);
	two_post(&named, 0, MSG_OP_RECV, room, 60000, 1);
	two_post(&recv, 0, MSG_OP_RECV, room, 100, 2);
	two_post(&read, 0, MSG_OP_READ, room, 100, 2);
	net_op(&any, &two, 0, -1, MSG_OP_RECV);
	msg_post(two.node[0].m, &any);
	two_speak(0);
	CU_ASSERT_FALSE(msg_pair_idle(two_pair(0)));
	msg_pair_close(two.node[0].m, two_pair(0), -TERN_EPEER);
	CU_ASSERT(two_ended(&send, 0, -TERN_EPEER) && two_ended(&recv, 0, -TERN_EPEER));
	CU_ASSERT(two_ended(&named, 0, -TERN_EPEER) && two_ended(&read, 0, -TERN_EPEER));
	CU_ASSERT_NOT_EQUAL(any.state, OP_ENDED); /* another peer may still come */
	/* items that come back touch nothing */
	for (int i = 0; i < NET_PACKETS; i++)
		for (size_t k = 0; two.packet[i].used && k < two.packet[i].items; k++)
			(i % 2 ? msg_acked : msg_lost)(two.node[0].m, &two.packet[i].item[k]);
	CU_ASSERT_PTR_NULL(msg_done(two.node[0].m));
	msg_ep_close(two.node[0].m, two.node[0].ep, -TERN_ECANCELED);
	CU_ASSERT(two_ended(&any, 0, -TERN_ECANCELED));
	CU_ASSERT_EQUAL(two.node[0].m->chunks_granted, 0);
	CU_ASSERT_EQUAL(two.node[0].m->heads_granted, 0);
	CU_ASSERT_EQUAL(two.node[0].m->tx_ranges.used, 0);
	net_close(&two);
}

static void test_close_while_filling(void)
{
	struct msg_op send, recv;
	two_open(true);
	two_post(&send, 0, MSG_OP_SEND, data, 60000, 1);
	two_post(&recv, 1, MSG_OP_RECV, room, 60000, 1);
	while (!two_pair(1)->last || two_pair(1)->last->front < 3000) {
		net_send(&two, 0, 1, ~0u);
		net_send(&two, 1, 0, ~0u);
		net_stir(&two);
	}
	struct msg_op *expected;
	uint8_t *addr;
	uint64_t bytes;
	CU_ASSERT_FALSE(msg_rx_expect(two_pair(1), &addr, &bytes, &expected)); /* too little is left */
	msg_pair_close(two.node[1].m, two_pair(1), -TERN_EPEER);
	CU_ASSERT(two_ended(&recv, 1, -TERN_EPEER));
	CU_ASSERT_EQUAL(pool_used(&two.node[1].m->ins), 0);
	CU_ASSERT_EQUAL(two.node[1].m->chunks_used, 0);
	net_close(&two);
}

static void test_before_up(void)
{
	struct msg_op send, recv;
	two_open(false);
	net_fill(data, 3, 20000);
	two_post(&send, 0, MSG_OP_SEND, data, 20000, 1);
	two_post(&recv, 1, MSG_OP_RECV, room, 20000, 1);
	CU_ASSERT_EQUAL(msg_tx_want(two_pair(0)), 0);
	CU_ASSERT_EQUAL(msg_tx_want(two_pair(1)), 0);
	net_up_all(&two);
	CU_ASSERT_PTR_EQUAL(msg_woken(two.node[0].m), two_pair(0));
	CU_ASSERT_PTR_NULL(msg_woken(two.node[0].m));
	two_run();
	CU_ASSERT(two_ended(&send, 0, 0) && two_ended(&recv, 1, 0));
	CU_ASSERT(net_same(room, 3, 20000));
	two_close();
}

static void test_held(void)
{
	struct msg_op send, recv;
	two_open(true);
	two_post(&send, 0, MSG_OP_SEND, data, 10, 1);
	two_post(&recv, 1, MSG_OP_RECV, room, 10, 1);
	send.held = 1; /* a link still reads it */
	two_run();
	CU_ASSERT_EQUAL(send.state, OP_ENDED);
	CU_ASSERT_PTR_NULL(msg_done(two.node[0].m));
	send.held = 0;
	msg_reaped(two.node[0].m, &send);
	msg_reaped(two.node[0].m, &send);
	CU_ASSERT_PTR_EQUAL(msg_done(two.node[0].m), &send);
	CU_ASSERT_PTR_NULL(msg_done(two.node[0].m));
	CU_ASSERT_PTR_EQUAL(msg_done(two.node[1].m), &recv);
	two_close();
}

static void test_limit(void)
{
	static struct msg_op op[2100];
	unsigned refused = 0;
	two_open(false);
	for (int i = 0; i < 2100; i++)
		two_post(&op[i], 0, MSG_OP_SEND, data, 10, 1);
	struct msg_op *o;
	while ((o = msg_done(two.node[0].m))) {
		CU_ASSERT_EQUAL(o->status, -TERN_ELIMIT);
		refused++;
	}
	CU_ASSERT_EQUAL(refused, 2100 - 2048 - 4);
	msg_ep_close(two.node[0].m, two.node[0].ep, -TERN_ECANCELED);
	for (refused = 0; msg_done(two.node[0].m);)
		refused++;
	CU_ASSERT_EQUAL(refused, 2048 + 4);
	net_close(&two);
}

static const struct unit_case cases[] = {{"close ends all", test_close_ends_all}, {"close while filling", test_close_while_filling},
	{"posted before up", test_before_up}, {"held by a link", test_held}, {"limit of operations", test_limit}};
UNIT_MAIN("msg pair", cases)
