/* Tests of send.c, head.c and credit.c: small messages share frames, claims, credit, cancel, HEADs said again. */
#include "two.h"

static uint8_t data[1 << 20], room[1 << 20];

static void test_coalesce(void)
{
	static struct msg_op send[20], recv[20];
	two_open(true);
	net_fill(data, 1, 20 * 40);
	for (int i = 0; i < 20; i++)
		two_post(&recv[i], 1, MSG_OP_RECV, room + i * 40, 40, 5);
	for (int i = 0; i < 20; i++)
		two_post(&send[i], 0, MSG_OP_SEND, data + i * 40, 40, 5);
	struct flow_item item[64];
	size_t n = 64;
	uint8_t frame[1400];
	uint64_t copied = 0;
	size_t bytes = msg_tx_records(two_pair(0), frame, sizeof(frame), item, &n, &copied);
	CU_ASSERT(n >= 16 && bytes > 1200);
	CU_ASSERT_EQUAL(copied, n * 40);
	for (size_t i = 0; i < n; i++)
		msg_lost(two.node[0].m, &item[i]); /* and again */
	two_run();
	for (int i = 0; i < 20; i++)
		CU_ASSERT(two_ended(&send[i], 0, 0) && two_ended(&recv[i], 1, 0));
	CU_ASSERT(net_same(room, 1, 20 * 40));
	two_close();
}

static void test_no_unmatched_copy_when_announced(void)
{
	struct msg_op send, recv;
	two_open(true);
	net_fill(data, 2, sizeof(data));
	two_post(&recv, 1, MSG_OP_RECV, room, sizeof(room), 5);
	two_run(); /* the announcement gets there */
	two_post(&send, 0, MSG_OP_SEND, data, sizeof(data), 5);
	CU_ASSERT(send.state & OP_NAMED);
	two_run();
	CU_ASSERT(two_ended(&send, 0, 0) && two_ended(&recv, 1, 0));
	CU_ASSERT(net_same(room, 2, sizeof(room)));
	CU_ASSERT_EQUAL(msg_copied_bytes(two.node[1].m), 0);
	CU_ASSERT_EQUAL(two_pair(0)->used_heads, 0);
	two_close();
}

static void test_claims_never_deadlock(void)
{
	static struct msg_op send[300], recv[300], big, taker;
	two_open(true);
	uint32_t heads = two_pair(0)->credit_heads;
	CU_ASSERT_FATAL(heads < 280);
	for (uint32_t i = 0; i < heads + 10; i++)
		two_post(&send[i], 0, MSG_OP_SEND, data, 100000, 7);
	two_run();
	CU_ASSERT_EQUAL(two_pair(0)->used_heads, heads); /* no credit is left, ten wait */
	CU_ASSERT(two_pair(0)->used_bytes <= two_pair(0)->credit_bytes);
	/* announced data passes them */
	two_post(&taker, 1, MSG_OP_RECV, room, 500000, 8);
	two_post(&big, 0, MSG_OP_SEND, data, 500000, 8);
	two_run();
	CU_ASSERT(two_ended(&big, 0, 0) && two_ended(&taker, 1, 0));
	for (uint32_t i = 0; i < heads + 10; i++)
		two_post(&recv[i], 1, MSG_OP_RECV, room, 100000, 7);
	two_run();
	for (uint32_t i = 0; i < heads + 10; i++)
		CU_ASSERT(two_ended(&send[i], 0, 0) && two_ended(&recv[i], 1, 0));
	two_close();
}

static void test_head_again(void)
{
	struct msg_op send, recv;
	struct msg_run run;
	two_open(true);
	two_post(&recv, 1, MSG_OP_RECV, room, sizeof(room), 5);
	two_run();
	two_post(&send, 0, MSG_OP_SEND, data, sizeof(data), 5);
	struct flow_item item;
	size_t n = 1;
	uint8_t frame[1400];
	uint64_t copied = 0, sent = 0;
	unsigned heads = 0;
	while (sent < sizeof(data)) {
		for (n = 1; (msg_tx_want(two_pair(0)) & MSG_WANT_RECORDS) &&
			msg_tx_records(two_pair(0), frame, sizeof(frame), &item, &n, &copied); n = 1)
			heads++;
		CU_ASSERT_FATAL(msg_tx_run(two_pair(0), MSG_WANT_BULK, 8192, &run));
		CU_ASSERT_EQUAL(run.offset, sent);
		sent += run.bytes;
	}
	CU_ASSERT(run.last);
	/* at the start, and after another 64 KiB, 256 KiB ... */
	unsigned expected = 1;
	for (uint64_t at = MSG_HEAD_EVERY_BYTES, step = at; at < sizeof(data) && expected < MSG_HEADS_MAX; at += step *= 4)
		expected++;
	CU_ASSERT_EQUAL(heads, expected);
	CU_ASSERT_FALSE(msg_tx_run(two_pair(0), MSG_WANT_BULK | MSG_WANT_SMALL, 8192, &run));
	msg_pair_close(two.node[0].m, two_pair(0), -TERN_EPEER);
	msg_ep_close(two.node[1].m, two.node[1].ep, -TERN_EPEER);
	net_close(&two);
}

static void test_cancel(void)
{
	struct msg_op gone, sent, recv, next;
	two_open(true);
	/* never left: ends at once and its number is no hole */
	two_post(&gone, 0, MSG_OP_SEND, data, 10, 1);
	two_post(&next, 0, MSG_OP_SEND, data, 20, 1);
	msg_cancel(two.node[0].m, &gone);
	CU_ASSERT(two_ended(&gone, 0, -TERN_ECANCELED));
	two_post(&recv, 1, MSG_OP_RECV, room, 100, 1);
	two_run();
	CU_ASSERT(two_ended(&next, 0, 0) && two_ended(&recv, 1, 0));
	CU_ASSERT_EQUAL(recv.bytes, 20);
	/* a claim on the way: given back, the receiver forgets it */
	two_post(&sent, 0, MSG_OP_SEND, data, sizeof(data), 1);
	two_run();
	CU_ASSERT((sent.state & OP_CLAIM) && pool_used(&two.node[1].m->ins) == 1);
	msg_cancel(two.node[0].m, &sent);
	two_run();
	CU_ASSERT(two_ended(&sent, 0, -TERN_ECANCELED));
	CU_ASSERT_EQUAL(pool_used(&two.node[1].m->ins), 0);
	two_close();
}

static void test_matched(void)
{
	struct msg_op send, recv;
	two_open(true);
	net_op(&send, &two, 0, 1, MSG_OP_SEND);
	layout_flat(&send.layout, data, 10);
	send.flags = TERN_DONE_MATCHED;
	msg_post(two.node[0].m, &send);
	two_run();
	CU_ASSERT_NOT_EQUAL(send.state, OP_ENDED);
	two_post(&recv, 1, MSG_OP_RECV, room, 10, 0);
	two_run();
	CU_ASSERT(two_ended(&send, 0, 0) && two_ended(&recv, 1, 0));
	two_close();
}

static const struct unit_case cases[] = {{"small messages share a frame", test_coalesce},
	{"announced: no copy, no credit", test_no_unmatched_copy_when_announced},
	{"claims, and announced data passes them", test_claims_never_deadlock}, {"HEAD is said again", test_head_again}, {"cancel", test_cancel},
	{"done when matched", test_matched}};
UNIT_MAIN("msg send", cases)
