/* Links that write into the peer's memory (docs/design/005-rdma.md): their connections, what they report, memory exposed and hidden. Called by loop_step and
 * by path.c. Knows records and keys only as msg hands them out. */
#include <stdlib.h>
#include <string.h>
#include "loop/loop.h"
#include "tern/error.h"

enum { DIRECT_BATCH = 32, DIRECT_ROUNDS = 64 };

/* What peer needs to know of the link's ways is known only once it is connected. */
static void direct_params(struct loop_path *path)
{
	const struct link_path *via = path->via;
	struct peer_direct *d = path->direct;
	d->is_reliable = via->is_reliable;
	d->max_write_bytes = via->max_write_bytes;
	d->packet_bytes = via->packet_bytes;
	d->packet_overhead = path->pp.overhead_bytes;
}

/* Another path of the peer whose link has not given up. */
static bool direct_has_other(const struct loop_path *path)
{
	const struct loop_peer *peer = path->peer;
	for (unsigned i = 0; i < peer->peer.paths; i++)
		if (peer->path[i] != path && peer->path[i]->via && !peer->path[i]->via->fault)
			return true;
	return false;
}

void loop_direct_void(struct loop_path *path)
{
	if (path->direct)
		msg_pair_direct(path->peer->peer.pair, path->pp.id, 0, path->direct->is_reliable);
}

static uint32_t direct_connected(const struct loop_path *path)
{
	const struct link_path *via = path->via;
	return via && via->is_connected ? via->connection : 0;
}

/* A connection came, went, or gave way to another since this was last asked. */
static void direct_connection(struct loop_path *path, uint64_t now_ns)
{
	const struct link_path *via = path->via;
	uint32_t now = direct_connected(path);
	if (via && via->fault && !direct_has_other(path)) {
		loop_peer_end(path->peer, via->fault);
		return;
	}
	if (path->waiting_n)
		loop_activate(path); /* there may be room again */
	if (now == path->connection)
		return;
	path->connection = now;
	peer_path_broken(&path->pp, !now, now_ns);
	loop_activate(path);
	if (path->pp.is_given_up) {
		loop_path_given_up(path);
		return;
	}
	if (!path->direct)
		return;
	if (now) {
		direct_params(path);
		uint32_t limit = loop_frame_limit(path);
		if (limit != path->pp.frame_limit) /* now the link knows its route */
			peer_path_shrunk(&path->pp, limit, now_ns);
		peer_direct_start(&path->pp, now_ns);
	}
	msg_pair_direct(path->peer->peer.pair, path->pp.id, now, path->direct->is_reliable);
}

void loop_direct_notice(struct loop_path *path, uint64_t now_ns)
{
	if (path->via && path->via->is_connected && path->via->connection != path->connection)
		direct_connection(path, now_ns);
}

int loop_direct_open(struct loop_path *path, const struct session *session, const struct session_path *sp)
{
	struct loop *lp = path->loop;
	if (path->link->caps & LINK_CONNECTS) {
		memcpy(path->token, sp->token, sizeof(path->token));
		path->is_acceptor = !session->is_initiator;
		list_push_back(&lp->connects, &path->connects);
	}
	if (!(path->link->caps & LINK_WRITES))
		return 0;
	path->direct = calloc(1, sizeof(*path->direct));
	return path->direct ? 0 : -TERN_ENOMEM;
}

void loop_direct_close(struct loop_path *path)
{
	list_remove(&path->connects);
	path->connection = 0;
}

static struct loop_path *direct_path(const struct loop_peer *peer, unsigned id)
{
	for (unsigned i = 0; i < peer->peer.paths; i++)
		if (peer->path[i]->pp.id == id)
			return peer->path[i];
	return NULL;
}

static void direct_expose(struct loop *lp)
{
	struct msg_expose e;
	for (unsigned i = 0; i < DIRECT_ROUNDS && msg_expose_next(lp->msg, &e); i++) {
		struct loop_peer *peer = msg_pair_owner(e.pair);
		struct loop_path *path = direct_path(peer, e.path);
		struct link_expose what = {.addr = e.addr, .bytes = e.bytes, .mem = path ? link_mem_key(path->link, e.mem) : 0, .ref = e.ref};
		uint32_t id;
		int err = path && path->via ? path->link->ops->expose(path->link, path->via, &what, &id) : -TERN_EAGAIN;
		if (err)
			msg_expose_refused(lp->msg, e.ref, err == -TERN_ELIMIT);
		else
			msg_expose_asked(lp->msg, e.ref, id);
	}
}

static void direct_hide(struct loop *lp)
{
	struct msg_hide h;
	for (unsigned i = 0; i < DIRECT_ROUNDS && msg_hide_next(lp->msg, &h); i++) {
		const struct loop_path *path = direct_path(msg_pair_owner(h.pair), h.path);
		if (path)
			path->link->ops->hide(path->link, h.id);
	}
}

static void direct_exposed(struct loop *lp, struct link *link, uint64_t now_ns)
{
	struct link_exposed e[DIRECT_BATCH];
	size_t n;
	for (unsigned round = 0; round < DIRECT_ROUNDS && (n = link->ops->exposed(link, e, DIRECT_BATCH, now_ns)); round++)
		for (size_t i = 0; i < n; i++) {
			if (e[i].state == LINK_EXPOSED)
				msg_exposed(lp->msg, e[i].ref, &e[i].target);
			else
				msg_hidden(lp->msg, e[i].ref);
		}
}

static void direct_done(struct loop *lp, struct link *link, uint64_t now_ns)
{
	struct link_done d[DIRECT_BATCH];
	size_t n;
	for (unsigned round = 0; round < DIRECT_ROUNDS && (n = link->ops->done(link, d, DIRECT_BATCH, now_ns)); round++) {
		lp->is_moving = true;
		for (size_t i = 0; i < n; i++) {
			struct loop_path *path = d[i].path->owner;
			struct flow_done done = {.first = d[i].first, .frames = d[i].frames, .is_lost = d[i].is_lost};
			if (path->peer->peer.state == PEER_GONE)
				continue;
			peer_done(&path->pp, &done, now_ns);
			loop_activate(path);
		}
	}
}

void loop_direct(struct loop *lp, uint64_t now_ns)
{
	for (size_t i = 0; i < lp->links; i++) {
		struct link *link = lp->link[i];
		if (!loop_is_direct(link))
			continue;
		direct_exposed(lp, link, now_ns);
		direct_done(lp, link, now_ns);
	}
	for (struct list *at = list_first(&lp->connects), *next; at; at = next) {
		uint64_t closes = lp->closes;
		next = list_next(&lp->connects, at);
		direct_connection(list_entry(at, struct loop_path, connects), now_ns);
		if (lp->closes != closes) /* a peer went with all its paths, the next one may be among them */
			next = list_first(&lp->connects);
	}
	if (list_empty(&lp->connects))
		return; /* keys are for paths with a connection */
	direct_expose(lp);
	direct_hide(lp);
}

bool loop_direct_due(const struct loop *lp)
{
	for (struct list *at = list_first(&lp->connects); at; at = list_next(&lp->connects, at)) {
		const struct loop_path *path = list_entry(at, struct loop_path, connects);
		if (direct_connected(path) != path->connection || (path->via && path->via->fault && !direct_has_other(path)))
			return true;
	}
	return msg_has_exposing(lp->msg);
}

void loop_export(struct loop_peer *peer, uint64_t key)
{
	msg_export(peer->peer.pair, key);
	peer->loop->is_posted = true;
}

void loop_unexport(struct loop *lp, uint64_t key)
{
	msg_unexport(lp->msg, key);
	lp->is_posted = true;
}

void loop_post(struct loop *lp, struct msg_op *op)
{
	op->is_mapped = false;
	if (layout_bytes(&op->layout) > LOOP_INLINE_BYTES)
		loop_memory_op(lp, op);
	msg_post(lp->msg, op);
	lp->is_posted = true;
}

struct msg_op *loop_done(struct loop *lp)
{
	struct msg_op *op = msg_done(lp->msg);
	if (op && op->is_mapped)
		loop_memory_done(lp, op);
	return op;
}
