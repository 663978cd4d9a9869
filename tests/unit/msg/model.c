/* The two-ended model: random operations of a few nodes over channels that lose, repeat and reorder; afterwards every pair of message and receive is
 * checked against MPI's rule. MSG_SEEDS says how many seeds, TERN_SEED the first. */
#include "net.h"

enum { OPS = 400, BUFFER = 200 * 1024, EXPORT = 512 * 1024 };

struct model_op {
	struct msg_op op;
	struct layout_range ranges[LAYOUT_RANGES_MAX];
	int node, peer; /* peer -1: any */
	uint64_t uid, tag, ignore, bytes, order;
	bool used, ended, cancelled, refused;
	uint64_t met;   /* receive: uid + 1 of the message; send: order + 1 of the receive */
	int met_node;
	int32_t status;
	uint8_t *data;
};

struct model {
	struct net net;
	struct model_op op[OPS];
	unsigned n, open, written;
	uint8_t *exported[NET_NODES_MAX];
	uint64_t exported_used[NET_NODES_MAX];
	uint64_t cancels, imm_writes, imm_maybe, notices, mismatches;
};

static struct model model;

static uint64_t some_size(struct net *n)
{
	switch (net_below(n, 8)) {
	case 0:
		return 0;
	case 1:
	case 2:
		return net_below(n, 200);
	case 3:
		return net_below(n, 5000);
	case 4:
		return 16384 + net_below(n, 1000);
	case 5:
		return 4096 * net_below(n, 6);
	case 6:
		return net_below(n, 70000);
	default:
		return net_below(n, 4) ? net_below(n, 20000) : net_below(n, BUFFER);
	}
}

/* One run, or up to five ranges with gaps. */
static void some_layout(struct model_op *o, struct net *n, uint64_t bytes)
{
	o->bytes = bytes;
	o->data = malloc(bytes + 64);
	memset(o->data, 0xee, bytes + 64);
	if (net_chance(n, 70)) {
		layout_flat(&o->op.layout, o->data, bytes);
		return;
	}
	tern_iov iov[5];
	uint64_t at = 0;
	size_t parts = 1 + net_below(n, 5);
	for (size_t i = 0; i < parts; i++) {
		uint64_t part = i + 1 == parts ? bytes - at : net_below(n, bytes - at + 1);
		iov[i] = (tern_iov){.addr = o->data + at + i * 8, .bytes = part};
		at += part;
	}
	tern_buf buf = {.iov = iov, .n = parts};
	CU_ASSERT_EQUAL_FATAL(layout_from_buf(&buf, &o->op.layout, o->ranges, NULL), 0);
}

static void some_shape(struct msg_op *op, struct net *n)
{
	uint64_t bytes = layout_bytes(&op->layout);
	if (net_chance(n, 50))
		return;
	op->dtype = net_chance(n, 95) ? TERN_U8 : TERN_I8;
	op->dims = 1;
	op->shape[0] = bytes;
	if (bytes % 2 == 0 && net_chance(n, 4)) {
		op->dims = 2;
		op->shape[0] = bytes / 2;
		op->shape[1] = 2;
	}
}

static struct model_op *new_op(int node, int peer, uint8_t type)
{
	if (model.n == OPS)
		return NULL;
	struct model_op *o = &model.op[model.n];
	memset(o, 0, sizeof(*o));
	net_op(&o->op, &model.net, node, peer, type);
	o->node = node;
	o->peer = peer;
	o->uid = o->order = model.n;
	o->used = true;
	model.n++;
	model.open++;
	return o;
}

static int other_node(int node)
{
	int peer = (int)net_below(&model.net, (uint64_t)model.net.nodes - 1);
	return peer >= node ? peer + 1 : peer;
}

static void post_send(unsigned tags)
{
	struct net *n = &model.net;
	int node = (int)net_below(n, (uint64_t)n->nodes);
	struct model_op *o = new_op(node, other_node(node), MSG_OP_SEND);
	if (!o)
		return;
	some_layout(o, n, some_size(n));
	uint64_t ignored = 0;
	uint8_t *flat = malloc(o->bytes + 1);
	net_fill(flat, o->uid, o->bytes);
	if (o->bytes)
		layout_copy_in(&o->op.layout, 0, flat, o->bytes, &ignored);
	free(flat);
	some_shape(&o->op, n);
	o->tag = o->op.tag = net_below(n, tags);
	o->op.imm = o->uid + 1;
	o->op.flags = TERN_IMM | (net_chance(n, 15) ? TERN_DONE_MATCHED : 0);
	msg_post(n->node[node].m, &o->op);
}

static void post_recv(unsigned tags, unsigned masked_percent, unsigned any_percent)
{
	struct net *n = &model.net;
	int node = (int)net_below(n, (uint64_t)n->nodes);
	struct model_op *o = new_op(node, net_chance(n, any_percent) ? -1 : other_node(node), MSG_OP_RECV);
	if (!o)
		return;
	some_layout(o, n, net_chance(n, 60) ? BUFFER : some_size(n));
	some_shape(&o->op, n);
	o->tag = o->op.tag = net_below(n, tags);
	if (net_chance(n, masked_percent))
		o->ignore = o->op.ignore = net_chance(n, 30) ? UINT64_MAX : 1;
	msg_post(n->node[node].m, &o->op);
}

static void post_write(void)
{
	struct net *n = &model.net;
	int node = (int)net_below(n, (uint64_t)n->nodes), peer = other_node(node);
	uint64_t bytes = some_size(n) / 4;
	if (model.exported_used[peer] + bytes > EXPORT)
		return;
	struct model_op *o = new_op(node, peer, MSG_OP_WRITE);
	if (!o)
		return;
	some_layout(o, n, bytes);
	uint64_t ignored = 0;
	uint8_t *flat = malloc(bytes + 1);
	net_fill(flat, o->uid, bytes);
	if (bytes)
		layout_copy_in(&o->op.layout, 0, flat, bytes, &ignored);
	free(flat);
	o->refused = net_chance(n, 10);
	o->op.key = o->refused ? 999 : 100 + (uint64_t)node;
	o->op.remote_offset = model.exported_used[peer];
	model.exported_used[peer] += bytes;
	if (net_chance(n, 50)) {
		o->op.flags = TERN_IMM;
		o->op.imm = o->uid;
	}
	msg_post(n->node[node].m, &o->op);
}

static void post_read(void)
{
	struct net *n = &model.net;
	int node = (int)net_below(n, (uint64_t)n->nodes);
	struct model_op *o = new_op(node, other_node(node), MSG_OP_READ);
	if (!o)
		return;
	some_layout(o, n, net_below(n, 40000));
	o->refused = net_chance(n, 10);
	o->op.key = o->refused ? 999 : 200 + (uint64_t)node;
	msg_post(n->node[node].m, &o->op);
}

static void check_recv(struct model_op *o)
{
	const struct msg_op *op = &o->op;
	if (op->status == -TERN_ECANCELED) {
		o->cancelled = true;
		if (op->imm) /* a message went with it */
			model.op[op->imm - 1].cancelled = true;
		return;
	}
	CU_ASSERT_FATAL(op->imm && op->imm <= model.n);
	struct model_op *from = &model.op[op->imm - 1];
	CU_ASSERT_EQUAL(from->op.type, MSG_OP_SEND);
	CU_ASSERT_EQUAL(from->met, 0);
	CU_ASSERT_EQUAL(from->peer, o->node);
	CU_ASSERT_EQUAL(op->peer, (uint64_t)from->node + 1);
	CU_ASSERT(o->peer < 0 || o->peer == from->node);
	CU_ASSERT_EQUAL(op->tag, from->tag);
	CU_ASSERT_EQUAL((from->tag ^ o->tag) & ~o->ignore, 0);
	CU_ASSERT_EQUAL(op->bytes, from->bytes);
	from->met = o->order + 1;
	o->met = from->uid + 1;
	if (op->status == -TERN_ESHAPE) {
		CU_ASSERT(op->dtype && from->op.dtype);
		return;
	}
	CU_ASSERT_EQUAL(op->status, from->bytes > o->bytes ? -TERN_ETRUNC : 0);
	uint64_t bytes = from->bytes < o->bytes ? from->bytes : o->bytes, ignored = 0;
	uint8_t *flat = malloc(bytes + 1);
	if (bytes)
		layout_copy_out(&op->layout, 0, flat, bytes, &ignored);
	CU_ASSERT(net_same(flat, from->uid, bytes));
	free(flat);
}

static void check_one_sided(struct model_op *o)
{
	int32_t status = o->op.status;
	if (status == -TERN_ECANCELED) {
		CU_ASSERT(o->cancelled);
		model.imm_maybe += (o->op.flags & TERN_IMM) != 0;
		return;
	}
	CU_ASSERT_EQUAL(status, o->refused ? -TERN_EAUTH : 0);
	if (status)
		return;
	if (o->op.type == MSG_OP_WRITE) {
		CU_ASSERT(net_same(model.exported[o->peer] + o->op.remote_offset, o->uid, o->bytes));
		model.imm_writes += (o->op.flags & TERN_IMM) != 0;
		return;
	}
	uint64_t ignored = 0;
	uint8_t *flat = malloc(o->bytes + 1);
	if (o->bytes)
		layout_copy_out(&o->op.layout, 0, flat, o->bytes, &ignored);
	CU_ASSERT(net_same(flat, 1000 + (uint64_t)o->peer, o->bytes));
	free(flat);
}

static void take_done(void)
{
	for (int i = 0; i < model.net.nodes; i++) {
		struct msg_op *op;
		struct msg_notice notice;
		while ((op = msg_done(model.net.node[i].m))) {
			struct model_op *o = list_entry(op, struct model_op, op);
			CU_ASSERT_FALSE(o->ended);
			CU_ASSERT_EQUAL(o->node, i);
			o->ended = true;
			o->status = op->status;
			model.open--;
			if (op->type == MSG_OP_RECV)
				check_recv(o);
			else if (op->type != MSG_OP_SEND)
				check_one_sided(o);
			memset(&op->state, 0xff, sizeof(op->state)); /* ours again */
			free(o->data);
			o->data = NULL;
		}
		while (msg_notice_pop(model.net.node[i].m, &notice)) {
			CU_ASSERT_PTR_EQUAL(notice.ep, model.net.node[i].ep);
			if (notice.type == TERN_EV_REMOTE_WRITE)
				model.notices++;
			else if (++model.mismatches)
				CU_ASSERT(notice.type == TERN_EV_MISMATCH && (notice.status == -TERN_ESHAPE || notice.status == -TERN_ETRUNC));
		}
	}
}

/* MPI's rule, between message m and receive r that met. */
static void check_meeting(const struct model_op *m, const struct model_op *r)
{
	for (unsigned i = 0; i < model.n; i++) {
		const struct model_op *o = &model.op[i];
		if (o->cancelled || !o->used)
			continue;
		/* an earlier message that fits r met a receive posted before r */
		if (o->op.type == MSG_OP_SEND && o->node == m->node && o->peer == m->peer && o->uid < m->uid && ((o->tag ^ r->tag) & ~r->ignore) == 0)
			CU_ASSERT(o->met && o->met - 1 < r->order);
		/* an earlier receive that fits m met an earlier message of this pair, or one of another pair */
		if (o->op.type == MSG_OP_RECV && o->node == m->peer && (o->peer < 0 || o->peer == m->node) && o->order < r->order &&
			((o->tag ^ m->tag) & ~o->ignore) == 0)
			CU_ASSERT(o->met && (model.op[o->met - 1].node != m->node || o->met - 1 < m->uid));
	}
}

static void check_sends(void)
{
	uint64_t late = 0;
	for (unsigned i = 0; i < model.n; i++) {
		const struct model_op *o = &model.op[i];
		if (o->op.type != MSG_OP_SEND || o->status == -TERN_ECANCELED)
			continue;
		CU_ASSERT(o->status == 0 || o->status == -TERN_ESHAPE || o->status == -TERN_ETRUNC);
		if (o->op.flags & TERN_DONE_MATCHED)
			CU_ASSERT(o->met || o->cancelled || o->status);
		if (!o->met)
			continue;
		/* what the receiver saw the sender saw too: by its status, or by a notice if it had ended */
		const struct model_op *r = &model.op[o->met - 1];
		late += !o->status && r->status;
		CU_ASSERT(!o->status || o->status == r->status);
		check_meeting(o, r);
	}
	CU_ASSERT(model.mismatches >= late && model.mismatches <= late + model.cancels);
}

static void some_event(unsigned tags, unsigned masked, unsigned any, unsigned cancel)
{
	struct net *n = &model.net;
	unsigned what = (unsigned)net_below(n, 100);
	if (what < 38)
		post_send(tags);
	else if (what < 76)
		post_recv(tags, masked, any);
	else if (what < 82)
		post_write();
	else if (what < 86)
		post_read();
	else if (model.n && what < 86 + cancel) {
		struct model_op *o = &model.op[net_below(n, model.n)];
		if (!o->ended && o->used) {
			o->cancelled = true;
			model.cancels++;
			msg_cancel(n->node[o->node].m, &o->op);
		}
	}
}

static void export_all(void)
{
	for (int i = 0; i < model.net.nodes; i++) {
		model.exported[i] = malloc(EXPORT + 65536);
		model.exported_used[i] = 0;
		net_fill(model.exported[i] + EXPORT, 1000 + (uint64_t)i, 65536);
		for (int k = 0; k < model.net.nodes; k++) {
			struct mem_export w = {.key = 100 + (uint64_t)k, .peer = (uint64_t)k + 1, .addr = model.exported[i], .bytes = EXPORT,
				.rights = TERN_REMOTE_WRITE};
			struct mem_export r = {.key = 200 + (uint64_t)k, .peer = (uint64_t)k + 1, .addr = model.exported[i] + EXPORT, .bytes = 65536,
				.rights = TERN_REMOTE_READ};
			mem_table_add(&model.net.node[i].exports, &w);
			mem_table_add(&model.net.node[i].exports, &r);
		}
	}
}

static bool sends_open(void)
{
	for (unsigned i = 0; i < model.n; i++)
		if (!model.op[i].ended && model.op[i].op.type != MSG_OP_RECV)
			return true;
	for (int i = 0; i < model.net.nodes; i++)
		if (!list_empty(&model.net.node[i].ep->unmatched))
			return true;
	return false;
}

/* Takes what is left with receives for anything, then cancels the rest. */
static bool wind_down(void)
{
	struct net *n = &model.net;
	n->loss_percent /= 2;
	for (unsigned round = 0; round < 400 && sends_open(); round++) {
		if (!net_run(n, 200000))
			return false;
		take_done();
		for (int i = 0; i < n->nodes && model.n < OPS && sends_open(); i++) {
			struct model_op *o = new_op(i, -1, MSG_OP_RECV);
			some_layout(o, n, BUFFER);
			o->op.ignore = o->ignore = UINT64_MAX;
			msg_post(n->node[i].m, &o->op);
		}
	}
	for (unsigned i = 0; i < model.n; i++)
		if (!model.op[i].ended) {
			model.op[i].cancelled = true;
			msg_cancel(n->node[model.op[i].node].m, &model.op[i].op);
		}
	bool rests = net_run(n, 200000);
	take_done();
	return rests;
}

/* Numbers that wrap around soon, as after years. */
static void age(void)
{
	struct net *n = &model.net;
	for (int a = 0; a < n->nodes; a++)
		for (int b = 0; b < n->nodes; b++) {
			if (a == b)
				continue;
			struct msg_pair *tx = n->node[a].pair[b], *rx = n->node[b].pair[a];
			tx->tx_next = tx->tx_front = rx->rx_front = (UINT64_C(1) << 32) - net_below(n, 60);
			for (unsigned i = 0; i < MSG_CLASSES; i++)
				tx->unnamed[i] = (uint32_t)tx->tx_next;
			tx->offer_next = tx->offer_first = rx->ann_base = rx->ann_next = 0u - (uint32_t)net_below(n, 20);
			tx->req_next = rx->read_next = 0u - 2 - (uint32_t)net_below(n, 10);
		}
}

static void one_seed(uint64_t seed)
{
	struct net *n = &model.net;
	memset(n->packet, 0, sizeof(n->packet));
	memset(&model.op, 0, sizeof(model.op));
	model.n = model.open = 0;
	model.cancels = model.imm_writes = model.imm_maybe = model.notices = model.mismatches = 0;
	n->rng = seed;
	n->proto_errors = 0;
	n->take = take_done;
	n->loss_percent = (unsigned)net_below(n, 3) * 12;
	n->repeat_percent = (unsigned)net_below(n, 2) * 10;
	n->sealed_percent = (unsigned)net_below(n, 3) * 50;
	n->frame_bytes = 300 + (uint32_t)net_below(n, 8700);
	struct msg_config c = {.max_pairs = 3, .max_replies = 2, .max_ops = 512, .max_inbound = 8 + (uint32_t)net_below(n, 100), .ranges = 4096,
		.unmatched_bytes = 4096 * (16 + net_below(n, 1000))};
	net_open(n, 2 + (int)net_below(n, 2), &c);
	export_all();
	unsigned tags = 1 + (unsigned)net_below(n, 6), masked = (unsigned)net_below(n, 3) * 15, any = (unsigned)net_below(n, 3) * 15;
	unsigned cancel = (unsigned)net_below(n, 2) * 14, events = 20 + (unsigned)net_below(n, 200), stir = 1 + (unsigned)net_below(n, 12);
	bool up = net_chance(n, 80);
	if (net_chance(n, 30))
		age();
	if (up)
		net_up_all(n);
	for (unsigned i = 0; i < events; i++) {
		some_event(tags, masked, any, cancel);
		if (!up && i == events / 3) {
			net_up_all(n);
			up = true;
		}
		for (unsigned k = 0; up && k < stir; k++) {
			int a = (int)net_below(n, (uint64_t)n->nodes);
			if (net_chance(n, 60))
				net_send(n, a, other_node(a), net_chance(n, 50) ? ~0u : MSG_WANT_RECORDS);
			net_stir(n);
		}
		take_done();
	}
	CU_ASSERT(wind_down());
	CU_ASSERT_EQUAL(model.open, 0);
	CU_ASSERT_EQUAL(n->proto_errors, 0);
	CU_ASSERT(model.notices >= model.imm_writes && model.notices <= model.imm_writes + model.imm_maybe);
	check_sends();
	net_check_empty(n);
	for (int i = 0; i < n->nodes; i++) {
		for (uint32_t k = 0; k < MEM_EXPORTS_MAX * 2; k++)
			CU_ASSERT_EQUAL(n->node[i].exports.slot[k].uses, 0);
		free(model.exported[i]);
	}
	net_close(n);
}

static void test_random(void)
{
	const char *text = getenv("MSG_SEEDS");
	uint64_t seed = unit_seed(), count = text ? strtoull(text, NULL, 0) : 600;
	for (uint64_t i = 0; i < count; i++) {
		unsigned before = CU_get_number_of_failures();
		one_seed(seed + i);
		if (CU_get_number_of_failures() != before) {
			printf("failed with TERN_SEED=%llu MSG_SEEDS=1\n", (unsigned long long)(seed + i));
			break;
		}
	}
	for (unsigned i = 0; i < model.n; i++)
		free(model.op[i].data);
}

static const struct unit_case cases[] = {{"random operations", test_random}};
UNIT_MAIN("msg model", cases)
