/* See harness.h. */
#include <assert.h>
#include <stdio.h>
#include <string.h>
#include "cc/cc.h"
#include "harness.h"
#include "tern/error.h"

static unsigned harness_paths(const struct harness_config *config)
{
	return config->paths ? config->paths : 1;
}

static void harness_session(struct session *s, const struct harness_config *config, bool initiator, uint32_t flow[HARNESS_PATHS_MAX][2],
                            const struct link_addr *remote)
{
	int self = initiator ? HARNESS_A : HARNESS_B;
	memset(s, 0, sizeof(*s));
	s->is_initiator = initiator;
	s->is_private = !config->sealed;
	s->version = WIRE_VERSION;
	s->paths = (uint8_t)harness_paths(config);
	for (unsigned i = 0; i < s->paths; i++) {
		struct session_path *p = &s->path[i];
		p->path_id = (uint8_t)i;
		p->local_flow_id = flow[i][self];
		p->remote_flow_id = flow[i][!self];
		p->remote = *remote;
		/* one secret a direction and path; any bytes do, as long as both ends have the same */
		memset(initiator ? p->tx_secret : p->rx_secret, 0x5a + (int)i, SESSION_SECRET_BYTES);
		memset(initiator ? p->rx_secret : p->tx_secret, 0xa5 + (int)i, SESSION_SECRET_BYTES);
		memset(p->token, (int)i + 1, sizeof(p->token));
	}
}

static uint64_t harness_patience(const struct harness_config *config)
{
	return config->patience_ns ? config->patience_ns : 10000000000ull;
}

static void harness_node(struct harness *h, const struct harness_config *config, int end)
{
	struct loop_config lc = {.max_peers = 4,
	                         .max_paths = 4 * HARNESS_PATHS_MAX,
	                         .max_inbound = 1024,
	                         .unmatched_bytes = config->unmatched_bytes ? config->unmatched_bytes : 1 << 20,
	                         .extents = 65536,
	                         .ranges = 65536,
	                         .peer_timeout_ns = harness_patience(config),
	                         .seed = config->seed + (uint64_t)end,
	                         .now_ns = 1};
	struct link_addr addr;
	char options[128], why[256] = "";
	snprintf(options, sizeof(options), "mtu=%u%s%s%s", config->mtu, config->by_ref ? "&by_ref=1" : "", config->options ? "&" : "",
	         config->options ? config->options : "");
	sim_net_addr(h->net, (uint32_t)end, &addr);
	struct link_config link = {.net = &addr,
	                           .options = options,
	                           .listening = end == HARNESS_B,
	                           .port = end == HARNESS_B ? 7400 : 0,
	                           .now_ns = 1,
	                           .error = why,
	                           .error_bytes = sizeof(why)};
	const struct link_ops *ops;
	int err = link_find("sim", &ops, why, sizeof(why));
	if (!err)
		err = ops->open(&link, &h->link[end]);
	if (!err)
		err = loop_open(&lc, &h->loop[end]);
	if (err)
		fprintf(stderr, "harness: node %d: %d %s\n", end, err, why);
	assert(!err);
	err = loop_link_add(h->loop[end], h->link[end], h->link[end]->trouble, sizeof(h->link[end]->trouble));
	assert(!err);
	err = msg_ep_open(h->loop[end]->msg, &h->ep[end]);
	assert(!err);
	err = loop_peer_open(h->loop[end], h->ep[end], 100 + (uint64_t)end, h, &h->peer[end]);
	assert(!err);
}

static void harness_params(const struct harness_config *config, struct loop_path_params *out)
{
	struct tern_cc_init init = {.contract_bytes_per_s = TERN_CC_NONE, .contract_rtt_ns = TERN_CC_NONE, .buffer_bytes = TERN_CC_NONE,
		.protection_ns = config->protection_ns, .frame_bytes = config->mtu, .dedicated = config->dedicated};
	if (config->buffer_bytes)
		init.buffer_bytes = config->buffer_bytes;
	if (config->contract_bytes_per_s) {
		init.contract_bytes_per_s = config->contract_bytes_per_s;
		init.contract_rtt_ns = config->contract_rtt_ns;
	}
	*out = (struct loop_path_params){.cc = cc_find(config->cc ? config->cc : "lightpath"), .cc_init = init, .mtu_bytes = config->mtu};
	assert(out->cc);
}

static bool harness_both_up(const struct harness *h)
{
	return h->up[0] && h->up[1];
}

void harness_open(struct harness *h, const struct harness_config *config)
{
	struct msg_limits grant[2];
	struct loop_path_params params;
	struct session session;
	uint32_t flow[HARNESS_PATHS_MAX][2];
	memset(h, 0, sizeof(*h));
	h->now_ns = 1;
	int err = sim_net_open(2, config->seed, &h->net);
	assert(!err);
	err = sim_net_connect(h->net, 0, 1, &config->forward, &config->reverse);
	for (unsigned i = 1; i < harness_paths(config) && err >= 0; i++)
		err = sim_net_connect(h->net, 0, 1, &config->more[i - 1].forward, &config->more[i - 1].reverse);
	assert(err >= 0);
	for (int end = 0; end < 2; end++) {
		harness_node(h, config, end);
		for (unsigned i = 0; i < harness_paths(config); i++)
			flow[i][end] = loop_peer_flow_id(h->peer[end], i);
		msg_pair_grant(h->loop[end]->msg, h->peer[end]->peer.pair, &grant[end]);
	}
	harness_params(config, &params);
	for (int end = 0; end < 2; end++) {
		harness_session(&session, config, end == HARNESS_A, flow, &h->link[!end]->local);
		session.credit_bytes = grant[!end].credit_bytes;
		session.credit_heads = grant[!end].credit_heads;
		err = loop_peer_up(h->peer[end], &session, h->link[end], &params);
		assert(!err);
	}
	bool both = harness_run(h, harness_both_up, 2 * harness_patience(config));
	assert(both);
	(void)both;
}

static void harness_results(struct harness *h, int end)
{
	struct msg *m = h->loop[end]->msg;
	struct msg_op *op;
	struct msg_notice n;
	struct loop_peer *peer;
	while ((op = loop_done(h->loop[end]))) {
		h->ops_done++;
		if (h->done)
			h->done(h, end, op);
	}
	while (msg_notice_pop(m, &n))
		if (h->notice)
			h->notice(h, end, &n);
	while ((peer = loop_event(h->loop[end]))) {
		h->up[end] = peer->peer.state == PEER_UP;
		if (peer->peer.state == PEER_GONE)
			h->gone[end] = peer->peer.status;
	}
}

static uint64_t harness_next_ns(const struct harness *h)
{
	uint64_t next = sim_net_next_ns(h->net);
	if (h->tick_ns)
		return h->now_ns + h->tick_ns;
	for (int end = 0; end < 2; end++) {
		uint64_t when = h->asleep[end] ? UINT64_MAX : loop_when_ns(h->loop[end], h->now_ns);
		next = when < next ? when : next;
	}
	return next;
}

bool harness_run(struct harness *h, bool (*stop)(const struct harness *h), uint64_t end_ns)
{
	while (!stop(h)) {
		uint64_t next = harness_next_ns(h);
		if (next > end_ns) {
			h->now_ns = end_ns > h->now_ns ? end_ns : h->now_ns;
			return false;
		}
		if (next > h->now_ns)
			h->now_ns = next;
		sim_net_advance(h->net, h->now_ns);
		for (int end = 0; end < 2; end++) {
			if (h->asleep[end])
				continue;
			if (h->step)
				h->step(h, end);
			else
				loop_step(h->loop[end], h->now_ns);
			harness_results(h, end);
		}
		h->steps++;
	}
	return true;
}

void harness_post(struct harness *h, int end, struct msg_op *op, uint8_t type, void *memory, uint64_t bytes, uint64_t tag)
{
	memset(op, 0, sizeof(*op));
	op->type = type;
	op->id = h->ops_done + 1;
	op->peer = 100 + (uint64_t)end;
	op->ep = h->ep[end];
	op->pair = h->peer[end]->peer.pair;
	op->tag = tag;
	layout_flat(&op->layout, memory, bytes);
	loop_post(h->loop[end], op);
}

double harness_pinned_limit(const struct harness_config *config)
{
	double datagram = config->mtu - 28;
	double payload = datagram - WIRE_BULK_HEADER_BYTES - (config->sealed ? FRAME_TAG_BYTES : 0);
	return (double)config->contract_bytes_per_s * 0.985 * payload / (datagram + 28);
}

void harness_close(struct harness *h)
{
	for (int end = 0; end < 2; end++) {
		loop_peer_end(h->peer[end], -TERN_ECANCELED);
		msg_ep_close(h->loop[end]->msg, h->ep[end], -TERN_ECANCELED);
		harness_results(h, end);
		loop_peer_free(&h->peer[end]);
	}
	for (int end = 0; end < 2; end++)
		loop_close(&h->loop[end]);
	sim_net_close(&h->net);
}
