/* Tests of in.c, match.c and onesided.c: where bytes belong (strides, lists, nothing), duplicates, mismatches and truncation at both ends,
 * masks, rights. */
#include "two.h"

static uint8_t data[1 << 20], room[1 << 20];

/* 8 dimensions, inner runs of 3 elements, against a dense one. */
static void strided(tern_tensor *t, uint8_t *at)
{
	*t = (tern_tensor){.data = at, .dtype = TERN_F32, .dims = 8, .shape = {2, 3, 2, 2, 3, 2, 5, 3}};
	int64_t stride = 4;
	for (int i = 7; i >= 0; i--) {
		t->stride_bytes[i] = stride;
		stride = stride * (int64_t)t->shape[i] + 4; /* a gap after each */
	}
}

static void post_tensor(struct msg_op *op, int node, uint8_t type, const tern_tensor *t)
{
	tern_buf buf = {.tensor = t};
	net_op(op, &two, node, 1 - node, type);
	CU_ASSERT_EQUAL_FATAL(layout_from_buf(&buf, &op->layout, NULL, NULL), 0);
	op->dtype = (uint8_t)t->dtype;
	op->dims = (uint8_t)t->dims;
	memcpy(op->shape, t->shape, sizeof(op->shape));
	msg_post(two.node[node].m, op);
}

static void test_strided(void)
{
	for (unsigned percent = 0; percent <= 100; percent += 50) {
		struct msg_op send, recv;
		tern_tensor from, to;
		uint64_t ignored = 0;
		two_open(true);
		two.sealed_percent = percent;
		two.loss_percent = percent / 3;
		strided(&from, data);
		strided(&to, room);
		net_fill(data, 9, sizeof(data));
		memset(room, 0, sizeof(room));
		post_tensor(&send, 0, MSG_OP_SEND, &from);
		post_tensor(&recv, 1, MSG_OP_RECV, &to);
		two_run();
		CU_ASSERT(two_ended(&send, 0, 0) && two_ended(&recv, 1, 0));
		uint64_t bytes = layout_bytes(&send.layout);
		CU_ASSERT(bytes > 6000);
		uint8_t *a = malloc(bytes), *b = malloc(bytes);
		layout_copy_out(&send.layout, 0, a, bytes, &ignored);
		layout_copy_out(&recv.layout, 0, b, bytes, &ignored);
		CU_ASSERT_EQUAL(memcmp(a, b, bytes), 0);
		free(a);
		free(b);
		two_close();
	}
}

static void test_lists_and_nothing(void)
{
	struct msg_op send, recv, none_send, none_recv;
	struct layout_range from[LAYOUT_RANGES_MAX], to[LAYOUT_RANGES_MAX];
	tern_iov out[] = {{data, 7, NULL}, {data + 100, 0, NULL}, {data + 200, 9000, NULL}, {data + 10000, 1, NULL}};
	tern_iov in[] = {{room + 5, 9000, NULL}, {room + 20000, 8, NULL}};
	tern_buf outs = {.iov = out, .n = 4}, ins = {.iov = in, .n = 2};
	two_open(true);
	net_fill(data, 4, sizeof(data));
	net_op(&send, &two, 0, 1, MSG_OP_SEND);
	net_op(&recv, &two, 1, 0, MSG_OP_RECV);
	CU_ASSERT_EQUAL(layout_from_buf(&outs, &send.layout, from, NULL), 0);
	CU_ASSERT_EQUAL(layout_from_buf(&ins, &recv.layout, to, NULL), 0);
	msg_post(two.node[0].m, &send);
	two_post(&none_send, 0, MSG_OP_SEND, NULL, 0, 1);
	two_run(); /* both wait unmatched */
	msg_post(two.node[1].m, &recv);
	two_post(&none_recv, 1, MSG_OP_RECV, NULL, 0, 1);
	two_run();
	CU_ASSERT(two_ended(&send, 0, 0) && two_ended(&recv, 1, 0) && two_ended(&none_send, 0, 0) && two_ended(&none_recv, 1, 0));
	CU_ASSERT_EQUAL(none_recv.bytes, 0);
	CU_ASSERT_EQUAL(memcmp(room + 5, data, 7), 0);
	CU_ASSERT_EQUAL(memcmp(room + 12, data + 200, 8993), 0);
	CU_ASSERT_EQUAL(memcmp(room + 20000, data + 9193, 7), 0);
	CU_ASSERT_EQUAL(room[20007], data[10000]);
	two_close();
}

/* One run placed by hand. */
static void arrive(uint64_t offset, uint32_t bytes, uint32_t flags)
{
	struct msg_arrival a = {.seq = 0, .offset = offset, .bytes = bytes};
	struct msg_place place;
	uint64_t copied = 0;
	CU_ASSERT_EQUAL_FATAL(msg_rx_where(two_pair(1), &a, &place), 0);
	CU_ASSERT_EQUAL(place.flags, flags);
	place.bounce = data + offset;
	struct frame_seg from = {.addr = data + offset, .bytes = bytes};
	if (!flags)
		copy_segs(place.seg, place.segs, &from, 1, &copied);
	CU_ASSERT_EQUAL(msg_rx_commit(two_pair(1), &place, &copied), 0);
}

static void test_places(void)
{
	struct msg_op recv;
	two_open(true);
	net_fill(data, 6, 10000);
	memset(room, 0, sizeof(room));
	two_post(&recv, 1, MSG_OP_RECV, room, 9000, 1);
	struct wire_record head = {.type = WIRE_HEAD, .head = {.hold_seq = WIRE_NONE32, .recv_id = WIRE_NONE32, .tag = 1, .bytes = 10000}};
	struct msg_arrival early = {.seq = 0, .bytes = 100}, past = {.offset = 9990, .bytes = 11};
	struct msg_place place;
	CU_ASSERT_EQUAL(msg_rx_where(two_pair(1), &early, &place), -TERN_EAGAIN);
	CU_ASSERT_EQUAL(msg_rx_record(two_pair(1), &head, 0), 0);
	CU_ASSERT_EQUAL(msg_rx_record(two_pair(1), &head, 0), 0);
	CU_ASSERT_EQUAL(msg_rx_where(two_pair(1), &past, &place), -TERN_EPROTO);
	arrive(0, 1000, 0);
	arrive(2000, 1000, 0);
	arrive(2000, 1000, MSG_PLACE_DROP);
	arrive(500, 400, MSG_PLACE_DROP);
	arrive(500, 1000, MSG_PLACE_BOUNCE);
	arrive(1400, 700, MSG_PLACE_BOUNCE);
	CU_ASSERT_EQUAL(two_pair(1)->last->front, 3000);
	arrive(9500, 500, MSG_PLACE_DROP);
	arrive(8500, 1000, MSG_PLACE_BOUNCE); /* reaches past the receive */
	/* matched or cancelled between: nowhere */
	early.offset = 3000;
	CU_ASSERT_EQUAL(msg_rx_where(two_pair(1), &early, &place), 0);
	two_pair(1)->last->epoch++;
	uint64_t copied = 0;
	CU_ASSERT_EQUAL(msg_rx_commit(two_pair(1), &place, &copied), -TERN_EAGAIN);
	arrive(3000, 5500, 0);
	CU_ASSERT(two_ended(&recv, 1, -TERN_ETRUNC));
	CU_ASSERT_EQUAL(recv.bytes, 10000);
	CU_ASSERT(net_same(room, 6, 9000));
	CU_ASSERT_EQUAL(room[9000], 0);
	arrive(3000, 5500, MSG_PLACE_DROP);
	msg_pair_close(two.node[1].m, two_pair(1), -TERN_EPEER);
	net_close(&two);
}

static void test_mismatch(void)
{
	struct msg_op send, recv, late_send, late_recv;
	tern_tensor a = {.data = data, .dtype = TERN_F32, .dims = 1, .shape = {10}}, b = {.data = room, .dtype = TERN_I32, .dims = 1, .shape = {10}};
	struct msg_notice notice;
	two_open(true);
	/* it has ended when its receive comes: a notice says what became of it */
	post_tensor(&late_send, 0, MSG_OP_SEND, &a);
	two_run();
	CU_ASSERT(two_ended(&late_send, 0, 0));
	post_tensor(&late_recv, 1, MSG_OP_RECV, &b);
	CU_ASSERT(two_ended(&late_recv, 1, -TERN_ESHAPE));
	two_run();
	CU_ASSERT(msg_notice_pop(two.node[0].m, &notice));
	CU_ASSERT(notice.type == TERN_EV_MISMATCH && notice.status == -TERN_ESHAPE && notice.peer == 2);
	CU_ASSERT_FALSE(msg_notice_pop(two.node[0].m, &notice));
	/* the announcement shows it: no byte travels */
	a.shape[0] = b.shape[0] = 10000;
	post_tensor(&recv, 1, MSG_OP_RECV, &b);
	two_run();
	post_tensor(&send, 0, MSG_OP_SEND, &a);
	CU_ASSERT(send.state & OP_CLAIM);
	two_run();
	CU_ASSERT(two_ended(&send, 0, -TERN_ESHAPE) && two_ended(&recv, 1, -TERN_ESHAPE));
	two_close();
}

static void test_rights(void)
{
	struct msg_op write, bad, read, small;
	struct msg_notice notice;
	two_open(true);
	struct mem_export e = {.key = 77, .peer = 1, .addr = room, .bytes = 50000, .rights = TERN_REMOTE_WRITE | TERN_REMOTE_READ};
	CU_ASSERT_EQUAL(mem_table_add(&two.node[1].exports, &e), 0);
	net_fill(data, 11, 100000);
	two.sealed_percent = 100;
	net_op(&write, &two, 0, 1, MSG_OP_WRITE);
	layout_flat(&write.layout, data, 40000);
	write.key = 77;
	write.remote_offset = 10000;
	write.flags = TERN_IMM;
	write.imm = 42;
	bad = small = write;
	bad.remote_offset = 10001;
	layout_flat(&small.layout, data, 10);
	small.key = 78;
	msg_post(two.node[0].m, &write);
	msg_post(two.node[0].m, &bad);
	msg_post(two.node[0].m, &small);
	two_run();
	CU_ASSERT(two_ended(&write, 0, 0) && two_ended(&bad, 0, -TERN_EAUTH) && two_ended(&small, 0, -TERN_EAUTH));
	CU_ASSERT(net_same(room + 10000, 11, 40000));
	CU_ASSERT(msg_notice_pop(two.node[1].m, &notice) && notice.type == TERN_EV_REMOTE_WRITE &&
		notice.imm == 42 && notice.bytes == 40000 && notice.peer == 1);
	CU_ASSERT_FALSE(msg_notice_pop(two.node[1].m, &notice));
	net_op(&read, &two, 0, 1, MSG_OP_READ);
	layout_flat(&read.layout, data + 500000, 40000);
	read.key = 77;
	read.remote_offset = 10000;
	msg_post(two.node[0].m, &read);
	two_run();
	CU_ASSERT(two_ended(&read, 0, 0));
	CU_ASSERT(net_same(data + 500000, 11, 40000));
	CU_ASSERT_EQUAL(mem_table_find(&two.node[1].exports, 77, 1)->uses, 0);
	two_close();
}

/* Messages 0 (tag 1) and 1 (tag 2) arrive in the wrong order: the exact receive is not kept waiting, the one for any tag is. */
static void test_masks_wait(void)
{
	struct msg_op exact, any;
	struct wire_record first = {.type = WIRE_HEAD, .head = {.seq = 0, .flags = WIRE_HEAD_INLINE, .hold_seq = WIRE_NONE32, .recv_id = WIRE_NONE32,
		.tag = 1, .bytes = 1, .data = data}};
	struct wire_record second = first, third = first;
	two_open(true);
	second.head.seq = 1;
	second.head.tag = 2;
	third.head.seq = 2;
	third.head.tag = 3;
	two_post(&exact, 1, MSG_OP_RECV, room, 10, 2);
	net_op(&any, &two, 1, 0, MSG_OP_RECV);
	layout_flat(&any.layout, room + 100, 10);
	any.ignore = UINT64_MAX;
	msg_post(two.node[1].m, &any);
	CU_ASSERT_EQUAL(msg_rx_record(two_pair(1), &third, 0), 0);
	CU_ASSERT_EQUAL(msg_rx_record(two_pair(1), &second, 0), 0);
	CU_ASSERT(two_ended(&exact, 1, 0));
	CU_ASSERT_NOT_EQUAL(any.state, OP_ENDED);
	CU_ASSERT_EQUAL(msg_rx_record(two_pair(1), &first, 0), 0);
	CU_ASSERT(two_ended(&any, 1, 0));
	CU_ASSERT_EQUAL(any.tag, 1);
	msg_pair_close(two.node[1].m, two_pair(1), -TERN_EPEER);
	CU_ASSERT_EQUAL(two.node[1].m->chunks_used, 0);
	net_close(&two);
}

/* Messages that lie in their HEAD and meet their receive at once: they leave nothing behind and count against the credit like others; what does not fit goes
 * the long way. */
static void test_whole(void)
{
	struct msg_op exact, any, small, left;
	struct wire_record head = {.type = WIRE_HEAD, .head = {.flags = WIRE_HEAD_INLINE | WIRE_HEAD_IMM, .hold_seq = WIRE_NONE32,
		.recv_id = WIRE_NONE32, .tag = 1, .bytes = 5, .imm = 77, .data = data}};
	two_open(true);
	struct msg_pair *pair = two_pair(1);
	net_fill(data, 3, 100);
	memset(room, 0, 100);
	two_post(&exact, 1, MSG_OP_RECV, room, 10, 1);
	net_op(&any, &two, 1, -1, MSG_OP_RECV);
	layout_flat(&any.layout, room + 20, 5);
	any.tag = 2;
	msg_post(two.node[1].m, &any);
	two_post(&small, 1, MSG_OP_RECV, room + 40, 4, 3);
	CU_ASSERT_EQUAL(msg_rx_record(pair, &head, 0), 0);
	CU_ASSERT(two_ended(&exact, 1, 0));
	CU_ASSERT(exact.bytes == 5 && exact.imm == 77 && exact.tag == 1 && exact.peer == 1);
	CU_ASSERT(!memcmp(room, data, 5) && !room[5]);
	CU_ASSERT_EQUAL(msg_rx_record(pair, &head, 0), 0); /* a copy of it */
	head.head.seq = 1;
	head.head.tag = 2;
	head.head.flags = WIRE_HEAD_INLINE;
	head.head.imm = 0;
	CU_ASSERT_EQUAL(msg_rx_record(pair, &head, 0), 0);
	CU_ASSERT(two_ended(&any, 1, 0));
	CU_ASSERT(any.peer == 1 && !any.imm && !memcmp(room + 20, data, 5));
	CU_ASSERT_EQUAL(pool_used(&two.node[1].m->ins), 0);
	CU_ASSERT(pair->seen_heads == 2 && pair->freed_heads == 2 && pair->seen_bytes == 10 && pair->freed_bytes == 10 && pair->rx_front == 2);
	head.head.seq = 2;
	head.head.tag = 3;
	CU_ASSERT_EQUAL(msg_rx_record(pair, &head, 0), 0);
	CU_ASSERT(two_ended(&small, 1, -TERN_ETRUNC));
	CU_ASSERT(!memcmp(room + 40, data, 4) && !room[44]);
	two_post(&left, 1, MSG_OP_RECV, room, 10, 4);
	pair->seen_heads = pair->grant_heads + pair->freed_heads;
	head.head.seq = 3;
	head.head.tag = 4;
	CU_ASSERT_EQUAL(msg_rx_record(pair, &head, 0), -TERN_EPROTO);
	CU_ASSERT(left.state != OP_ENDED && pair->rx_front == 3);
	msg_pair_close(two.node[1].m, pair, -TERN_EPEER);
	CU_ASSERT(two_ended(&left, 1, -TERN_EPEER));
	net_close(&two);
}

static void test_over_credit(void)
{
	struct wire_record head = {.type = WIRE_HEAD, .head = {.hold_seq = WIRE_NONE32, .recv_id = WIRE_NONE32, .tag = 1, .bytes = 1}};
	two_open(true);
	head.head.bytes = two_pair(1)->grant_bytes + 1;
	CU_ASSERT_EQUAL(msg_rx_record(two_pair(1), &head, 0), -TERN_EPROTO);
	head.head.channel = 1;
	CU_ASSERT_EQUAL(msg_rx_record(two_pair(1), &head, 0), -TERN_EPROTO);
	two_close();
}

static const struct unit_case cases[] = {{"strided tensors", test_strided}, {"lists and empty messages", test_lists_and_nothing},
	{"places", test_places}, {"mismatch", test_mismatch}, {"reads, writes, rights", test_rights}, {"masks wait for holes", test_masks_wait},
	{"whole in their heads", test_whole}, {"over credit", test_over_credit}};
UNIT_MAIN("msg in", cases)
