/* Two nodes over channels that lose nothing unless told to: for the tests of single files. */
#ifndef TESTS_MSG_TWO_H
#define TESTS_MSG_TWO_H
#include "net.h"

static struct net two;

static inline void two_open(bool up)
{
	struct msg_config c = {.max_pairs = 2, .max_replies = 4, .max_ops = 2048, .max_inbound = 256, .ranges = 1024, .unmatched_bytes = 2 << 20};
	memset(&two, 0, sizeof(two));
	two.rng = 7;
	two.frame_bytes = 1400;
	net_open(&two, 2, &c);
	if (up)
		net_up_all(&two);
}

static inline void two_close(void)
{
	net_check_empty(&two);
	CU_ASSERT_EQUAL(two.proto_errors, 0);
	net_close(&two);
}

static inline void two_run(void)
{
	CU_ASSERT(net_run(&two, 100000));
}

/* Only one direction speaks; nothing is delivered. */
static inline unsigned two_speak(int from)
{
	unsigned frames = 0;
	while (net_send(&two, from, 1 - from, ~0u))
		frames++;
	return frames;
}

static inline void two_post(struct msg_op *op, int node, uint8_t type, void *data, uint64_t bytes, uint64_t tag)
{
	net_op(op, &two, node, 1 - node, type);
	layout_flat(&op->layout, data, bytes);
	op->tag = tag;
	msg_post(two.node[node].m, op);
}

static inline bool two_ended(struct msg_op *op, int node, int status)
{
	struct msg *m = two.node[node].m;
	if (op->state != OP_ENDED || op->status != status || list_empty(&m->done))
		return false;
	list_remove(&op->link);
	return true;
}

static inline struct msg_pair *two_pair(int node)
{
	return two.node[node].pair[1 - node];
}
#endif
