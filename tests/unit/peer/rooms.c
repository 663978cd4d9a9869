/* Where peer_tx makes frames: rooms in a buffer of any size, for sealed and packed bulk, with and without space for a link's headers before each. Nothing lies on
 * anything else, nothing beyond the buffer. */
#include <stdlib.h>
#include <string.h>
#include "cc/cc.h"
#include "flow/shared.h"
#include "peer/peer.h"
#include "rand.h"
#include "unit.h"

enum { FRAMES = 128, BUF = 160 << 10, GUARD = 4096, BYTES = 1 << 20, ROUNDS = 200, US = 1000 };
#define SECOND 1000000000ull

static struct msg *m;
static struct msg_ep *ep;
static struct peer peer;
static struct peer_path path;
static void *memory[3];
static struct frame frame[FRAMES], *list[FRAMES];
static _Alignas(FRAME_LINE_BYTES) uint8_t buf[BUF + GUARD];
static uint8_t data[4 * BYTES];
static struct msg_op op;

static void open_path(bool sealed, uint64_t now_ns)
{
	struct msg_config mc = {.max_pairs = 1, .max_replies = 1, .max_ops = 16, .max_inbound = 16, .unmatched_bytes = 1 << 20, .ranges = 64};
	struct msg_pair *pair;
	size_t flows = (flow_shared_bytes(4096, 4096) + 63) & ~(size_t)63, msgs = (msg_bytes(&mc) + 63) & ~(size_t)63;

	memory[0] = memset(aligned_alloc(64, msgs), 0, msgs);
	memory[1] = aligned_alloc(64, 1 << 20);
	memory[2] = aligned_alloc(64, flows);
	CU_ASSERT_EQUAL_FATAL(msg_init(&m, &mc, memory[0], memory[1]), 0);
	CU_ASSERT_EQUAL_FATAL(msg_ep_open(m, &ep), 0);
	CU_ASSERT_EQUAL_FATAL(msg_pair_open(m, ep, 7, &pair), 0);
	memset(&peer, 0, sizeof(peer));
	memset(&path, 0, sizeof(path));
	peer_init(&peer, 7, m, pair, SECOND);
	struct tern_cc_init ci = {.contract_bytes_per_s = 12500000000, .contract_rtt_ns = 10000000, .buffer_bytes = TERN_CC_NONE, .frame_bytes = 1500,
		.now_ns = now_ns};
	struct peer_path_config pc = {.path_id = 3, .sealed = sealed, .initiator = true, .remote_flow_id = 1, .frame_limit = 9000,
		.overhead_bytes = 28, .flow = {.path_id = 3, .cc = cc_find("fixed"), .peer_ack_delay_ns = 500000, .now_ns = now_ns, .cc_init = ci}};
	pc.flow.shared = flow_shared_init(memory[2], 4096, 4096);
	CU_ASSERT_EQUAL_FATAL(peer_path_init(&path, &peer, &pc), 0);
	msg_pair_up(pair, &(struct msg_limits){.credit_bytes = 2 * BYTES, .credit_heads = 16});
	path.state = PEER_PATH_UP;
	peer_frame_size(&path, 1200 + (uint32_t)rand_below(7800), now_ns);
	memset(&op, 0, sizeof(op));
	op.type = MSG_OP_SEND;
	op.ep = ep;
	op.pair = pair;
	op.peer = 7;
}

static void close_path(void)
{
	peer_end(&peer, -1);
	while (msg_done(m))
		;
	for (int i = 0; i < 3; i++)
		free(memory[i]);
}

/* As loop and link will fill it: all of each room, and the space before it. @return bulk bytes */
static uint64_t fill(const struct peer_tray *t, size_t n)
{
	uint64_t bulk = 0;
	const uint8_t *free_at = t->buf;

	for (size_t i = 0; i < n; i++) {
		const struct frame *f = list[i];
		uint32_t head = f->type == WIRE_BULK ? WIRE_BULK_HEADER_BYTES : WIRE_HEADER_BYTES, tag = path.sealed ? FRAME_TAG_BYTES : 0;
		bulk += f->type == WIRE_BULK ? f->payload_bytes : 0;
		if (!f->room) { /* a frame's worth of few runs is sent from where it is */
			CU_ASSERT(!path.sealed && f->segs > 1);
			continue;
		}
		CU_ASSERT_EQUAL(f->front_bytes, t->front_bytes);
		CU_ASSERT_FATAL(f->room - f->front_bytes >= free_at);
		CU_ASSERT(!t->front_bytes || (uintptr_t)(f->room - f->front_bytes) % FRAME_LINE_BYTES == 0);
		CU_ASSERT(head + f->payload_bytes + tag <= (f->type == WIRE_BULK ? path.frame_max : path.frame_limit));
		free_at = f->room + head + f->payload_bytes + tag;
		CU_ASSERT_FATAL(free_at <= t->buf + t->buf_bytes);
	}
	return bulk;
}

static void rooms(bool sealed, bool packed, uint32_t front_bytes)
{
	uint64_t now = SECOND, bulk = 0, full = 0;
	struct tern_tensor strided = {.data = data, .dtype = TERN_U8, .dims = 2, .shape = {BYTES / 2, 2}, .stride_bytes = {8, 1}};
	tern_buf b = {.tensor = &strided};
	struct layout_range storage[1];
	const char *why;

	open_path(sealed, now);
	layout_flat(&op.layout, data, BYTES);
	CU_ASSERT_EQUAL_FATAL(packed ? layout_from_buf(&b, &op.layout, storage, &why) : 0, 0);
	msg_post(m, &op);
	for (int i = 0; i < 1000 && bulk < BYTES; i++, now += 50 * US) {
		struct peer_tray t = {.frame = list, .room = FRAMES, .buf = buf, .front_bytes = front_bytes};
		t.buf_bytes = 20000 + rand_below(BUF - 20000 + 1);
		for (size_t k = 0; k < FRAMES; k++) {
			list[k] = &frame[k];
			frame[k].room = NULL;
		}
		memset(buf + t.buf_bytes, 0xa5, GUARD);
		size_t n = peer_tx(&path, &t, now);
		bulk += fill(&t, n);
		full += t.buf_bytes - t.buf_used < path.frame_max + front_bytes + FRAME_LINE_BYTES;
		for (size_t k = 0; k < GUARD; k++)
			CU_ASSERT_FATAL(buf[t.buf_bytes + k] == 0xa5);
	}
	CU_ASSERT_EQUAL(bulk, BYTES);
	CU_ASSERT(full > 0); /* the buffer's end was met */
	close_path();
}

static void sealed_bulk(void)
{
	for (int i = 0; i < ROUNDS; i++)
		rooms(true, false, i % 3 == 0 ? 0 : i % 3 == 1 ? 42 : 66);
}

static void packed_bulk(void)
{
	for (int i = 0; i < ROUNDS; i++)
		rooms(i % 2, true, i % 3 == 0 ? 0 : i % 3 == 1 ? 42 : 66);
}

static const struct unit_case cases[] = {{"sealed bulk", sealed_bulk}, {"packed bulk", packed_bulk}};

int main(void)
{
	rand_start(unit_seed());
	return unit_main("peer rooms", cases, sizeof(cases) / sizeof(cases[0]));
}
