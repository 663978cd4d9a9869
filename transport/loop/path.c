/* Peers and their paths: made from a session, given an address, closed. Called by api/ through loop.h. Secrets are handed to seal/ and not kept. */
#include <stdlib.h>
#include <string.h>
#include "loop/loop.h"
#include "tern/error.h"

static uint64_t loop_random(struct loop *lp)
{
	/* splitmix64 (Steele, Lea, Flood 2014): flow ids only have to differ and to be hard to hit by chance */
	uint64_t z = lp->rng += 0x9e3779b97f4a7c15ull;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

int loop_peer_open(struct loop *lp, struct msg_ep *ep, uint64_t id, void *owner, struct loop_peer **out)
{
	struct loop_peer *peer = calloc(1, sizeof(*peer));
	struct msg_pair *pair;
	*out = NULL;
	if (!peer)
		return -TERN_ENOMEM;
	int err = msg_pair_open(lp->msg, ep, id, &pair);
	if (err) {
		free(peer);
		return err;
	}
	msg_pair_own(pair, peer);
	peer_init(&peer->peer, id, lp->msg, pair, lp->peer_timeout_ns);
	peer->loop = lp;
	peer->ep = ep;
	peer->owner = owner;
	list_init(&peer->event);
	*out = peer;
	return 0;
}

/* A path's memory and slot; the flow id is slot and random upper half, never 0. @return NULL: no slot, no memory */
static struct loop_path *loop_path_new(struct loop_peer *peer)
{
	struct loop *lp = peer->loop;
	uint32_t slot = 0;
	while (slot < lp->max_paths && lp->path[slot])
		slot++;
	if (slot == lp->max_paths)
		return NULL;
	struct loop_path *path = aligned_alloc(64, (sizeof(*path) + 63) & ~(size_t)63);
	if (!path)
		return NULL;
	memset(path, 0, sizeof(*path));
	list_init(&path->active);
	list_init(&path->expect);
	list_init(&path->connects);
	path->loop = lp;
	path->peer = peer;
	path->slot = slot;
	uint32_t high = (uint32_t)(loop_random(lp) >> 32) & 0xffff;
	path->flow_id = (high ? high : 1) << 16 | slot;
	return path;
}

uint32_t loop_peer_flow_id(struct loop_peer *peer, unsigned path_id)
{
	struct loop_path *path = NULL;
	unsigned i = 0;
	for (; i < PEER_PATHS_MAX && peer->path[i]; i++)
		if (peer->path[i]->pp.id == path_id)
			return peer->path[i]->flow_id;
	if (i < PEER_PATHS_MAX)
		path = loop_path_new(peer);
	if (!path)
		return 0;
	path->pp.id = (uint8_t)path_id;
	path->pp.state = PEER_PATH_WAITING;
	peer->path[i] = path;
	peer->loop->path[path->slot] = path;
	return path->flow_id;
}

uint32_t loop_frame_limit(const struct loop_path *path)
{
	uint32_t limit = path->via->max_frame_bytes;
	uint32_t cap = path->mtu_bytes > path->via->overhead_bytes ? path->mtu_bytes - path->via->overhead_bytes : 0;
	return cap && cap < limit ? cap : limit;
}

/* Points the path to an address, the first or a new one; local: ours, NULL: as routed. */
int loop_path_route(struct loop_path *path, const struct link_addr *remote, const struct link_addr *local)
{
	struct link_path_config config = {.remote = *remote, .spread = path->pp.id, .address = path->address, .mtu_bytes = path->mtu_bytes,
		.line = path->line, .token = path->token, .is_acceptor = path->is_acceptor};
	struct link_path *via;
	if (local)
		config.local = *local;
	int err = path->link->ops->path_open(path->link, &config, &via);
	if (err)
		return err;
	via->owner = path;
	if (path->via) {
		for (size_t i = 0; i < path->waiting_n; i++)
			path->waiting[i]->path = via;
		path->link->ops->path_close(path->link, &path->via);
		path->via = via;
		loop_activate(path);
		return 0;
	}
	path->via = via;
	peer_path_found(&path->pp, loop_frame_limit(path), path->loop->now_ns);
	loop_activate(path);
	return 0;
}

static struct link_line loop_path_line(const struct loop_path_params *params)
{
	const struct tern_cc_init *init = &params->cc_init;
	return (struct link_line){.bytes_per_s = init->contract_bytes_per_s == TERN_CC_NONE ? 0 : init->contract_bytes_per_s,
		.rtt_ns = init->contract_rtt_ns == TERN_CC_NONE ? 0 : init->contract_rtt_ns, .loss = init->loss_ceiling};
}

static int loop_path_keys(struct loop_path *path, const struct session *session, const struct session_path *sp)
{
	if (session->is_private)
		return 0;
	int err = seal_open(sp->tx_secret, &path->tx_seal);
	return err ? err : seal_open(sp->rx_secret, &path->rx_seal);
}

static int loop_path_up(struct loop_path *path, const struct session *session, const struct session_path *sp, const struct loop_path_params *params)
{
	struct loop_peer *peer = path->peer;
	int err = loop_path_keys(path, session, sp);
	if (err)
		return err;
	path->mtu_bytes = params->mtu_bytes;
	path->line = loop_path_line(params);
	path->address = sp->address;
	err = loop_direct_open(path, session, sp);
	if (err)
		return err;
	if (session->is_private) {
		path->rx_prefix = wire_bulk_prefix(sp->path_id, path->flow_id);
		path->tx_prefix = wire_bulk_prefix(sp->path_id, sp->remote_flow_id);
	}
	struct peer_path_config pc = {
	    .path_id = sp->path_id,
	    .sealed = !session->is_private,
	    .initiator = false, /* peer_path_found starts it, once the link has the route */
	    .remote_flow_id = sp->remote_flow_id,
	    .overhead_bytes = (uint32_t)(28 + params->layer_bytes),
	    .direct = path->direct,
	    .flow = {.path_id = sp->path_id,
	             .cc = params->cc,
	             .cc_init = params->cc_init,
	             .peer_ack_delay_ns = 500000,
	             .shared = path->loop->flows,
	             .now_ns = path->loop->now_ns},
	};
	pc.flow.cc_init.now_ns = path->loop->now_ns;
	pc.flow.cc_init.jitter_ns = path->link->caps & (LINK_TIMESTAMPS | LINK_VIRTUAL) ? 0 : LOOP_JITTER_NS;
	err = peer_path_init(&path->pp, &peer->peer, &pc);
	if (err)
		return err;
	if (!session->is_initiator && !(path->link->caps & LINK_CONNECTS))
		return 0;
	path->pp.initiator = session->is_initiator;
	err = loop_path_route(path, &sp->remote, NULL);
	if (err)
		peer_path_forget(&path->pp);
	return err;
}

static const struct session_path *session_path_of(const struct session *session, uint32_t flow_id)
{
	for (unsigned i = 0; i < session->paths; i++)
		if (session->path[i].local_flow_id == flow_id)
			return &session->path[i];
	return NULL;
}

static void loop_path_close(struct loop_path *path);

/* A path that was offered and is not part of the session, or cannot be opened. */
static void loop_path_drop(struct loop_peer *peer, unsigned at)
{
	struct loop_path *path = peer->path[at];
	loop_path_close(path);
	free(path->direct);
	free(path);
	for (; at + 1 < PEER_PATHS_MAX && peer->path[at]; at++)
		peer->path[at] = peer->path[at + 1];
	peer->path[PEER_PATHS_MAX - 1] = NULL;
}

int loop_peer_up(struct loop_peer *peer, const struct session *session, struct link *link, const struct loop_path_params *params)
{
	struct loop *lp = peer->loop;
	int err = -TERN_EINVAL, why = -TERN_EINVAL;
	if (!session->paths || peer->peer.paths)
		return -TERN_EINVAL;
	for (unsigned at = 0; at < PEER_PATHS_MAX && peer->path[at];) {
		struct loop_path *path = peer->path[at];
		const struct session_path *sp = session_path_of(session, path->flow_id);
		path->link = link;
		err = sp ? loop_path_up(path, session, sp, params) : -TERN_ENOENT;
		if (!err) {
			heap_set(&lp->timers, path->slot, lp->now_ns);
			loop_activate(path);
			at++;
			continue;
		}
		if (at == 0 && !peer->path[1])
			return err; /* the only one: the caller ends the peer */
		why = sp ? err : why;
		loop_path_drop(peer, at);
	}
	if (!peer->peer.paths)
		return why;
	struct msg_limits limits = {.credit_bytes = session->credit_bytes, .credit_heads = session->credit_heads};
	msg_pair_up(peer->peer.pair, &limits);
	return 0;
}

void loop_peer_lost(struct loop_peer *peer)
{
	peer_control_lost(&peer->peer, peer->loop->now_ns);
	loop_peer_activate(peer);
}

/* The peer has given the path up: what its link has not sent holds no operation any more. Numbers that were not sent are burnt (5.4). */
void loop_path_given_up(struct loop_path *path)
{
	struct loop *lp = path->loop;
	size_t n = path->waiting_n;
	path->pp.is_given_up = false;
	path->waiting_n = 0;
	for (size_t i = 0; i < n; i++) {
		struct flow_done never = {.first = path->waiting[i]->number, .frames = 1, .is_lost = true};
		if (path->waiting[i]->is_write && path->waiting[i]->by_link)
			peer_done(&path->pp, &never, lp->now_ns);
	}
	loop_frames_back(lp, path->waiting, n);
	loop_direct_void(path);
	if (path->via)
		path->link->ops->path_reset(path->link, path->via);
	loop_peer_activate(path->peer);
}

static void loop_path_close(struct loop_path *path)
{
	struct loop *lp = path->loop;
	lp->closes++;
	if (path->via)
		path->link->ops->path_close(path->link, &path->via);
	loop_frames_back(lp, path->waiting, path->waiting_n);
	path->waiting_n = 0;
	if (path->link)
		loop_reap(lp, lp->now_ns);
	list_remove(&path->active);
	list_remove(&path->expect);
	loop_direct_close(path);
	path->is_expecting = path->is_posted = false;
	path->is_active = false;
	heap_remove(&lp->timers, path->slot);
	lp->path[path->slot] = NULL;
	seal_close(&path->tx_seal);
	seal_close(&path->rx_seal);
}

void loop_peer_end(struct loop_peer *peer, int status)
{
	if (peer->peer.state == PEER_GONE)
		return;
	/* links first: nothing may be read from or written to operations that are about to end */
	for (unsigned i = 0; i < PEER_PATHS_MAX && peer->path[i]; i++)
		loop_path_close(peer->path[i]);
	peer_end(&peer->peer, status);
	loop_note(peer);
}

void loop_peer_free(struct loop_peer **pp)
{
	struct loop_peer *peer = *pp;
	*pp = NULL;
	if (!peer)
		return;
	loop_peer_end(peer, -TERN_ECANCELED);
	list_remove(&peer->event);
	for (unsigned i = 0; i < PEER_PATHS_MAX; i++) {
		if (peer->path[i])
			free(peer->path[i]->direct);
		free(peer->path[i]);
	}
	free(peer);
}
