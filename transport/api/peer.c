/* Peers: connecting, accepting, the control plane's callbacks, goodbyes. Under the lock; the callbacks come on the control thread and take it. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "api/context.h"
#include "base/clock.h"
#include "base/err.h"
#include "cc/cc.h"

enum { CLOSING_RTTS = 3 };
#define CLOSING_MIN_NS 100000000ull

struct api_peer *api_peer_find(tern_ctx *ctx, tern_peer peer)
{
	uint32_t slot = (uint32_t)peer - 1;
	if (slot >= ctx->config.max_peers || !ctx->peers[slot] || ctx->peers[slot]->id != peer)
		return NULL;
	return ctx->peers[slot];
}

struct api_peer *api_peer_of(const tern_ep *ep, tern_peer peer)
{
	struct api_peer *found = api_peer_find(ep->ctx, peer);
	return found && found->ep == ep ? found : NULL;
}

static struct api_peer *peer_by_control(tern_ctx *ctx, uint64_t id)
{
	for (uint32_t i = 0; i < ctx->config.max_peers; i++)
		if (ctx->peers[i] && ctx->peers[i]->control_id == id && !ctx->peers[i]->closed)
			return ctx->peers[i];
	return NULL;
}

void api_peer_forget(struct api_peer *peer)
{
	tern_ctx *ctx = peer->ep->ctx;
	uint32_t slot = (uint32_t)peer->id - 1;
	loop_peer_free(&peer->lp);
	api_mem_forget(ctx, peer->id, NULL);
	if (peer->via && !peer->accepted) /* the other ones are their listener's */
		api_link_drop(ctx, &peer->via);
	if (peer->draining || peer->closing)
		ctx->draining--;
	ctx->peers[slot] = NULL;
	__atomic_store_n(&ctx->peer_ep[slot], NULL, __ATOMIC_RELEASE);
	__atomic_store_n(&ctx->peer_gen[slot], (ctx->peer_gen[slot] + 1) & 0x7fffffff, __ATOMIC_RELEASE);
	free(peer);
}

/* A free slot; ended peers keep theirs (their number must stay stale, not strange) until it is needed. */
static int peer_slot(tern_ctx *ctx)
{
	int ended = -1;
	for (uint32_t i = 0; i < ctx->config.max_peers; i++) {
		if (!ctx->peers[i])
			return (int)i;
		if (ctx->peers[i]->closed && ended < 0)
			ended = (int)i;
	}
	if (ended < 0)
		return ended;
	struct loop_peer *lp = ctx->peers[ended]->lp;
	if (loop_event_take(lp)) /* its end was not told yet */
		api_peer_changed(ctx, lp);
	api_peer_forget(ctx->peers[ended]);
	return ended;
}

int api_peer_new(tern_ep *ep, struct api_peer **out)
{
	tern_ctx *ctx = ep->ctx;
	int slot = peer_slot(ctx);
	if (slot < 0)
		return ERR(TERN_ELIMIT, "%u peers are there already; raise config.max_peers or disconnect some", ctx->config.max_peers);
	struct api_peer *peer = calloc(1, sizeof(*peer));
	if (!peer)
		return ERR(TERN_ENOMEM, "no memory for a peer");
	peer->ep = ep;
	peer->id = (uint64_t)ctx->peer_gen[slot] << 32 | ((uint32_t)slot + 1);
	int err = loop_peer_open(ctx->loop, ep->msg, peer->id, peer, &peer->lp);
	if (err) {
		free(peer);
		return ERR(err, "no room for another peer");
	}
	ctx->peers[slot] = peer;
	__atomic_store_n(&ctx->peer_ep[slot], ep, __ATOMIC_RELEASE);
	*out = peer;
	return 0;
}

static void peer_event(struct api_peer *peer, uint32_t type, int status)
{
	tern_event e = {.type = type, .status = status, .user = peer->user, .peer = peer->id};
	api_event(peer->ep, &e);
}

/* Ends the engine's part; the slot stays until it is needed. bye: what the other side is told, negative: it is not. */
void api_peer_close(struct api_peer *peer, int status, int bye)
{
	tern_ctx *ctx = peer->ep->ctx;
	if (peer->closed)
		return;
	if (peer->lp->peer.state == PEER_UP)
		loop_peer_flush(peer->lp);
	peer->closed = true;
	if (peer->draining || peer->closing)
		ctx->draining--;
	peer->draining = peer->closing = false;
	peer->status = status;
	loop_peer_end(peer->lp, status);
	if (bye >= 0 && peer->control_id)
		control_bye(ctx->control, peer->control_id, bye);
}

static const char *peer_who(const struct api_peer *peer, char *out, size_t bytes)
{
	const struct api_address *a = &peer->address;
	if (*a->host)
		snprintf(out, bytes, "peer %s port %u", a->host, a->port);
	else
		snprintf(out, bytes, "peer %s", *peer->name ? peer->name : "that had connected here");
	return out;
}

/* How it ended, in words a person can act on. */
static void peer_words(struct api_peer *peer, int status)
{
	char who[CONTROL_HOST_MAX + 32];
	const struct api_address *a = &peer->address;
	const struct link *via = peer->via ? peer->via->link : NULL;
	if (peer->text[0])
		return;
	if (via && (via->caps & LINK_CONNECTS) && *via->trouble && (status == -TERN_EBLOCKED || !peer->connected))
		snprintf(peer->text, sizeof(peer->text), "%s: the control connection (TCP) stands, but none for data: %.150s",
		         peer_who(peer, who, sizeof(who)), via->trouble);
	else if (status == -TERN_EBLOCKED && via && (via->caps & LINK_CONNECTS))
		snprintf(peer->text, sizeof(peer->text),
		         "%s: the control connection (TCP) stands, but none for data came about in %llu ms: the network between drops its packets "
		         "(RoCE: UDP port 4791), or one of the two is too busy; a longer peer_timeout helps against that",
		         peer_who(peer, who, sizeof(who)), (unsigned long long)(peer->lp->peer.timeout_ns / 1000000));
	else if (status == -TERN_EBLOCKED)
		snprintf(peer->text, sizeof(peer->text),
		         "UDP port %u of %s: the control connection (TCP) stands, but no datagram came through; open the UDP port in the firewall",
		         a->port, *a->host ? a->host : "the peer");
	else if (status == -TERN_EPEER)
		snprintf(peer->text, sizeof(peer->text), "%s: nothing was heard of it for %llu ms while something was owed",
		        peer_who(peer, who, sizeof(who)),
		        (unsigned long long)(peer->lp->peer.timeout_ns / (peer->lp->peer.control_lost ? 10 : 1) / 1000000));
	else
		snprintf(peer->text, sizeof(peer->text), "%s", tern_error_text(status));
}

/* The first path that comes up is the peer's own news. */
static void peer_paths_changed(struct api_peer *peer, bool is_first)
{
	const struct loop_peer *lp = peer->lp;
	unsigned changed = lp->told_up ^ lp->was_up;
	if (is_first)
		changed &= changed - 1;
	for (unsigned id = 0; id < PEER_PATHS_MAX && changed >> id; id++) {
		bool is_up = lp->told_up & 1u << id;
		if (!(changed & 1u << id))
			continue;
		tern_event e = {
		    .type = TERN_EV_PATH, .status = is_up ? 0 : -TERN_EPEER, .user = peer->user, .peer = peer->id, .imm = id};
		LOG(peer->ep->ctx, is_up ? TERN_LOG_INFO : TERN_LOG_WARN, "peer %llx: path %u %s", (unsigned long long)peer->id, id,
		    is_up ? "is up" : "is silent; what it carried goes over the others");
		if (atomic_load(&peer->ep->ctx->nodes_out) < API_NODES / 2) /* a path that flaps must not crowd out what matters to who does not poll */
			api_event(peer->ep, &e);
	}
}

void api_peer_changed(tern_ctx *ctx, struct loop_peer *lp)
{
	struct api_peer *peer = lp->owner;
	int status = lp->peer.status;
	if (lp->peer.state == PEER_UP) {
		bool is_first = !peer->connected;
		peer->connected = true;
		if (is_first)
			peer_event(peer, TERN_EV_CONNECTED, 0);
		peer_paths_changed(peer, is_first);
		return;
	}
	if (lp->peer.state != PEER_GONE)
		return;
	bool by_us = peer->closed;
	if (!by_us) { /* the engine found it dead */
		peer_words(peer, status);
		LOG(ctx, TERN_LOG_WARN, "peer %llx: %s", (unsigned long long)peer->id, peer->text);
		api_note(ctx, peer->id, status, peer->text);
		api_peer_close(peer, status, -status);
	}
	if (!peer->connected && (!peer->accepted || by_us))
		peer_event(peer, TERN_EV_CONNECTED, peer->status ? peer->status : -TERN_ECANCELED);
	else if (peer->connected)
		peer_event(peer, by_us && !peer->bye_status ? TERN_EV_PEER_CLOSED : TERN_EV_PEER_DEAD, by_us ? peer->bye_status : status);
}

/* Peers that leave when they are done: ours on tern_disconnect(drain), theirs after their goodbye. */
void api_peer_drain(tern_ctx *ctx)
{
	for (uint32_t i = 0; i < ctx->config.max_peers && ctx->draining; i++) {
		struct api_peer *peer = ctx->peers[i];
		if (!peer || peer->closed || (!peer->draining && !peer->closing))
			continue;
		if (peer->closing ? loop_peer_quiet(peer->lp) || ctx->now_ns >= peer->closing_ns : msg_pair_idle(peer->lp->peer.pair))
			api_peer_close(peer, !peer->closing ? -TERN_ECANCELED : peer->bye_status ? peer->bye_status : -TERN_EPEER, 0);
	}
}

/* ---- the control plane's callbacks --------------------------------------------------------------------------------------------------- */

static struct api_listener *peer_listener(tern_ctx *ctx, uint64_t id)
{
	for (struct list *e = list_first(&ctx->eps); e; e = list_next(&ctx->eps, e)) {
		tern_ep *ep = list_entry(e, tern_ep, link);
		for (struct list *at = list_first(&ep->listeners); at; at = list_next(&ep->listeners, at)) {
			struct api_listener *l = list_entry(at, struct api_listener, link);
			if (l->id == id)
				return l;
		}
	}
	return NULL;
}

static int peer_accept(tern_ctx *ctx, const struct control_ask *ask, struct api_peer **out)
{
	struct api_listener *l = peer_listener(ctx, ask->listener);
	if (!l || l->ep->is_closing)
		return -TERN_ECANCELED;
	int err = api_peer_new(l->ep, out);
	if (err)
		return err;
	struct api_peer *peer = *out;
	peer->accepted = true;
	peer->listener = l;
	peer->via = l->via;
	peer->control_id = ask->id;
	peer->address = l->address;
	*peer->address.host = 0;
	peer->contract = l->contract;
	peer->has_contract = l->has_contract;
	return 0;
}

static int peer_prepare(void *arg, const struct control_ask *ask, struct wire_hello *mine)
{
	tern_ctx *ctx = arg;
	struct api_peer *peer = NULL;
	struct msg_limits limits;
	api_lock(ctx);
	int err = 0;
	if (ask->is_initiator)
		peer = peer_by_control(ctx, ask->id);
	else
		err = peer_accept(ctx, ask, &peer);
	if (!peer) {
		api_unlock(ctx);
		return err ? err : -TERN_ECANCELED;
	}
	msg_pair_grant(ctx->loop->msg, peer->lp->peer.pair, &limits);
	mine->credit_bytes = limits.credit_bytes;
	mine->credit_heads = limits.credit_heads;
	mine->paths = 0;
	peer->offered = ask->is_initiator ? 0 : ask->theirs->paths;
	unsigned wanted = ask->is_initiator ? api_address_paths(&peer->address) : ask->theirs->paths;
	for (unsigned i = 0; i < wanted; i++) {
		uint8_t id = ask->is_initiator ? (uint8_t)i : ask->theirs->path[i].path_id;
		uint32_t flow_id = id < PEER_PATHS_MAX ? loop_peer_flow_id(peer->lp, id) : 0;
		if (flow_id)
			mine->path[mine->paths++] =
			    (struct wire_hello_path){.path_id = id, .flow_id = flow_id, .udp_port = ask->is_initiator ? 0 : peer->address.port};
	}
	if (!mine->paths)
		err = -TERN_ELIMIT;
	api_unlock(ctx);
	return err;
}

static void peer_sockaddr(const char *host, uint16_t port, struct link_addr *out)
{
	union {
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} to = {.v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)}};
	out->bytes = sizeof(to.v6);
	if (inet_pton(AF_INET6, host, &to.v6.sin6_addr) != 1) {
		to.v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
		inet_pton(AF_INET, host, &to.v4.sin_addr);
		out->bytes = sizeof(to.v4);
	}
	memcpy(out->data, &to, out->bytes);
}

/* A path leads where the control connection does, or, with ctl=, to the address itself, or to one of also=. */
static void peer_remotes(const struct api_peer *peer, struct session *session)
{
	const struct api_address *a = &peer->address;
	char host[64];
	for (unsigned i = 0; i < session->paths && !peer->accepted; i++) {
		struct session_path *path = &session->path[i];
		path->address = path->path_id / (a->paths ? a->paths : 1);
		if (api_address_host(a, path->path_id, host, sizeof(host)))
			peer_sockaddr(host, a->port, &path->remote);
		else if (*a->ctl)
			peer_sockaddr(a->host, a->port, &path->remote);
	}
}

static void peer_established(void *arg, uint64_t id, const struct session *given)
{
	tern_ctx *ctx = arg;
	struct loop_path_params params;
	struct session own = *given, *session = &own;
	api_lock(ctx);
	struct api_peer *peer = peer_by_control(ctx, id);
	if (peer) {
		peer_remotes(peer, session);
		api_path_params(ctx, peer, &params);
		int err = loop_peer_up(peer->lp, session, peer->via->link, &params);
		peer->is_known = true;
		peer->epoch = session->peer_epoch;
		memcpy(peer->node, session->peer_node, sizeof(peer->node));
		memcpy(peer->name, session->peer_name, sizeof(peer->name));
		if (err) {
			snprintf(peer->text, sizeof(peer->text), "path could not be opened: %s",
			         err_last() == err ? err_text() : tern_error_text(err));
			api_note(ctx, peer->id, err, peer->text);
			api_peer_close(peer, err, -err);
		}
	}
	api_unlock(ctx);
	session_wipe(&own);
}

static void peer_failed(void *arg, uint64_t id, int err, const char *text)
{
	tern_ctx *ctx = arg;
	api_lock(ctx);
	struct api_peer *peer = peer_by_control(ctx, id);
	LOG(ctx, TERN_LOG_WARN, "%s: %s", peer && !peer->accepted ? "connecting" : "accepting", text);
	if (peer) {
		snprintf(peer->text, sizeof(peer->text), "%s", text);
		api_note(ctx, peer->id, err, text);
		peer->control_id = 0;
		api_peer_close(peer, err, -1);
	}
	api_unlock(ctx);
}

/* Of the longest path; UINT64_MAX: of none it is known. */
static uint64_t peer_rtt_ns(const struct loop_peer *lp)
{
	uint64_t most = 0;
	for (unsigned i = 0; i < lp->peer.paths; i++) {
		uint64_t rtt = flow_srtt_ns(&lp->path[i]->pp.flow);
		most = rtt != UINT64_MAX && rtt > most ? rtt : most;
	}
	return most ? most : UINT64_MAX;
}

static void peer_closed(void *arg, uint64_t id, int status)
{
	tern_ctx *ctx = arg;
	api_lock(ctx);
	struct api_peer *peer = peer_by_control(ctx, id);
	if (peer) {
		uint64_t rtt = peer_rtt_ns(peer->lp);
		uint64_t grace = rtt == UINT64_MAX ? CLOSING_MIN_NS : rtt * CLOSING_RTTS + CLOSING_MIN_NS;
		peer->control_id = 0;
		peer->bye_status = status;
		if (status == -TERN_EBLOCKED) /* it waited for our datagrams as we did for its */
			peer_words(peer, status);
		else if (status)
			snprintf(peer->text, sizeof(peer->text), "the peer gave the connection up: %s", tern_error_text(status));
		else
			snprintf(peer->text, sizeof(peer->text), "the peer closed");
		api_note(ctx, peer->id, status ? status : -TERN_EPEER, peer->text);
		/* what it has acknowledged may still be on the way, the goodbye overtook it */
		if (!peer->draining && !peer->closing)
			ctx->draining++;
		peer->closing = true;
		peer->closing_ns = ctx->now_ns + grace;
	}
	api_unlock(ctx);
}

static void peer_lost(void *arg, uint64_t id, const char *text)
{
	tern_ctx *ctx = arg;
	api_lock(ctx);
	struct api_peer *peer = peer_by_control(ctx, id);
	LOG(ctx, TERN_LOG_WARN, "control connection lost: %s", text);
	if (peer) {
		peer->control_id = 0;
		loop_peer_lost(peer->lp);
	}
	api_unlock(ctx);
}

const struct control_events api_control_events = {
	.prepare = peer_prepare,
	.established = peer_established,
	.failed = peer_failed,
	.closed = peer_closed,
	.lost = peer_lost,
};

/* ---- public -------------------------------------------------------------------------------------------------------------------------- */

static int peer_dial(tern_ep *ep, const struct api_address *a, const tern_connopts *opts, tern_peer *out)
{
	tern_ctx *ctx = ep->ctx;
	struct control_error why;
	struct api_peer *peer;
	api_lock(ctx);
	int err = api_peer_new(ep, &peer);
	if (err)
		goto unlock;
	peer->address = *a;
	peer->user = opts ? opts->user : NULL;
	peer->control_id = ctx->next_id++;
	err = api_contract_load(ctx, a, &peer->contract, &peer->has_contract);
	if (!err)
		err = api_link_open(ctx, a, API_LINK_DIAL, 0, &peer->via);
	if (!err) {
		struct control_connect cc = {.host = *a->ctl ? a->ctl : a->host, .port = a->ctl_port ? a->ctl_port : a->port,
			.is_private = a->is_private, .id = peer->control_id,
			.timeout_ns = opts && opts->timeout_ns ? opts->timeout_ns : ctx->config.connect_timeout_ns};
		err = control_connect(ctx->control, &cc, &why);
		if (err)
			ERR(err, "%s", why.text);
	}
	if (err)
		api_peer_forget(peer);
	else
		*out = peer->id;
unlock:
	api_unlock(ctx);
	return err;
}

static int peer_connect(tern_ep *ep, const struct api_address *a, const tern_connopts *opts, tern_peer *out)
{
	const struct link_ops *ops;
	char why[CONTROL_TEXT_MAX];
	uint8_t bytes[16];
	int err = link_find(a->scheme, &ops, why, sizeof(why));
	if (err)
		return ERR(err, "scheme %s: %s", a->scheme, why);
	if (!*a->host || !a->port)
		return ERR(TERN_EADDR, "address %s://%s:%u: to connect, host and port must be given", a->scheme, a->host, a->port);
	if (*a->ctl && inet_pton(AF_INET, a->host, bytes) != 1 && inet_pton(AF_INET6, a->host, bytes) != 1)
		return ERR(TERN_EADDR, "address %s://%s:%u: with ctl= the host must be an address in digits", a->scheme, a->host, a->port);
	if (*a->cc && !cc_find(a->cc))
		return ERR(TERN_EINVAL, "option cc=%s: unknown; there are lightpath, cubic and fixed", a->cc);
	if (!ep->ctx->has_key)
		return ERR(TERN_EKEY, "%s", ep->ctx->key_trouble);
	return peer_dial(ep, a, opts, out);
}

int tern_connect(tern_ep *ep, const void *blob, size_t bytes, const tern_connopts *opts, tern_peer *out)
{
	struct api_address a;
	if (!ep || !out)
		return ERR(TERN_EINVAL, "tern_connect: ep and out must not be NULL");
	if (api_fork_check(ep->ctx))
		return -TERN_EFORK;
	int err = api_address_read(blob, bytes, &a);
	return err ? err : peer_connect(ep, &a, opts, out);
}

/* Not through a blob: what only this machine reads (a port and its arguments) may be longer than one. */
int tern_connect_text(tern_ep *ep, const char *text, const tern_connopts *opts, tern_peer *out)
{
	struct api_address a;
	if (!ep || !out)
		return ERR(TERN_EINVAL, "tern_connect_text: ep and out must not be NULL");
	if (api_fork_check(ep->ctx))
		return -TERN_EFORK;
	int err = api_address_parse(text, &a);
	return err ? err : peer_connect(ep, &a, opts, out);
}

int tern_disconnect(tern_ep *ep, tern_peer id, int drain)
{
	if (!ep)
		return ERR(TERN_EINVAL, "endpoint is NULL");
	if (api_fork_check(ep->ctx))
		return -TERN_EFORK;
	api_lock(ep->ctx);
	struct api_peer *peer = api_peer_of(ep, id);
	bool open = peer && !peer->closed;
	if (open)
		api_commands_flush(ep->ctx); /* what was posted before is to be drained, or canceled */
	if (open && drain && !peer->draining && !peer->closing) {
		peer->draining = true;
		ep->ctx->draining++;
	} else if (open && !drain) {
		api_peer_close(peer, -TERN_ECANCELED, 0);
	}
	api_unlock(ep->ctx);
	return open ? 0 : ERR(TERN_ESTALE, "peer %llx: no such peer now", (unsigned long long)id);
}

int tern_peer_identity(tern_ep *ep, tern_peer id, char *name, size_t bytes, uint64_t *epoch)
{
	if (!ep)
		return ERR(TERN_EINVAL, "endpoint is NULL");
	if (api_fork_check(ep->ctx))
		return -TERN_EFORK;
	api_lock(ep->ctx);
	struct api_peer *peer = api_peer_of(ep, id);
	int err = !peer ? -TERN_ESTALE : peer->is_known ? 0 : -TERN_EAGAIN;
	if (!err && name)
		for (size_t i = 0; i < WIRE_NODE_ID_BYTES && 2 * i + 2 < bytes; i++)
			snprintf(name + 2 * i, bytes - 2 * i, "%02x", peer->node[i]);
	if (!err && epoch)
		*epoch = peer->epoch;
	api_unlock(ep->ctx);
	return err;
}

int tern_path_limits(tern_ep *ep, tern_peer id, uint64_t *payload_bytes, uint64_t *limit_bytes_per_s)
{
	if (!ep || !payload_bytes || !limit_bytes_per_s)
		return ERR(TERN_EINVAL, "tern_path_limits: arguments must not be NULL");
	if (api_fork_check(ep->ctx))
		return -TERN_EFORK;
	api_lock(ep->ctx);
	struct api_peer *peer = api_peer_of(ep, id);
	int err = !peer ? -TERN_ESTALE : peer->lp && peer->lp->peer.paths ? 0 : -TERN_EAGAIN;
	if (!err) {
		struct loop_path_params params;
		api_path_params(ep->ctx, peer, &params);
		uint64_t rate = params.cc_init.contract_bytes_per_s;
		double sum = 0;
		for (unsigned i = 0; i < peer->lp->peer.paths; i++) {
			const struct peer_path *pp = &peer->lp->path[i]->pp;
			uint64_t payload = pp->frame_max - WIRE_BULK_HEADER_BYTES - (pp->sealed ? FRAME_TAG_BYTES : 0u);
			if (!i)
				*payload_bytes = payload;
			/* DESIGN 6: PINNED is 0.985 of the share, less what every frame carries besides payload */
			sum += (double)rate * 0.985 * (double)payload / (pp->frame_max + pp->overhead_bytes);
		}
		*limit_bytes_per_s = rate == TERN_CC_NONE ? 0 : (uint64_t)sum;
	}
	api_unlock(ep->ctx);
	return err;
}
