/* The loop itself: pools, step, timers, posting. Called by api/ and the simulator's tests. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "flow/shared.h"
#include "loop/loop.h"
#include "tern/error.h"

static void *loop_keep(struct loop *lp, size_t at, size_t bytes, bool *failed)
{
	void *addr = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (addr == MAP_FAILED) {
		*failed = true;
		return NULL;
	}
	lp->memory[at].addr = addr;
	lp->memory[at].bytes = bytes;
	return addr;
}

static int loop_open_msg(struct loop *lp, const struct loop_config *config, bool *failed)
{
	struct msg_config mc = {
		.max_pairs = config->max_peers,
		.max_replies = 256,
		.max_ops = config->max_ops,
		.max_inbound = config->max_inbound,
		.unmatched_bytes = config->unmatched_bytes,
		.ranges = config->ranges,
		.max_keys = LOOP_KEYS,
		.exports = lp->exports,
	};
	void *unmatched = loop_keep(lp, 5, config->unmatched_bytes, failed);
	void *memory = loop_keep(lp, 6, msg_bytes(&mc), failed);
	return *failed ? -TERN_ENOMEM : msg_init(&lp->msg, &mc, memory, unmatched);
}

static void loop_open_pools(struct loop *lp, void *heap)
{
	heap_init(&lp->timers, heap, lp->max_paths);
	/* frames begin as zeroes; peer fills in what differs from one to the next */
	for (size_t i = 0; i < LOOP_FRAMES; i++)
		lp->free_frame[lp->free_frames++] = &lp->frame[LOOP_FRAMES - 1 - i];
	for (size_t i = 0; i < LOOP_CHUNKS; i++) {
		struct loop_chunk *c = &lp->chunks[i];
		c->frames = 0;
		c->next = lp->free_chunk;
		lp->free_chunk = c;
	}
	list_init(&lp->active);
	list_init(&lp->events);
	list_init(&lp->expect);
	list_init(&lp->connects);
}

int loop_open(const struct loop_config *config, struct loop **out)
{
	struct loop *lp = calloc(1, sizeof(*lp));
	bool failed = !lp;
	*out = NULL;
	if (!lp)
		return -TERN_ENOMEM;
	lp->max_paths = config->max_paths < 65536 ? config->max_paths : 65536;
	lp->peer_timeout_ns = config->peer_timeout_ns;
	lp->rng = config->seed;
	lp->now_ns = config->now_ns;
	lp->exports = calloc(1, sizeof(*lp->exports));
	lp->path = calloc(lp->max_paths, sizeof(*lp->path));
	lp->frame = loop_keep(lp, 0, LOOP_FRAMES * sizeof(struct frame), &failed);
	lp->chunks = loop_keep(lp, 1, LOOP_CHUNKS * sizeof(struct loop_chunk), &failed);
	lp->scratch = loop_keep(lp, 2, LOOP_SCRATCH_BYTES, &failed);
	lp->stash = loop_keep(lp, 7, LOOP_STASH_BYTES, &failed);
	void *heap = loop_keep(lp, 3, heap_bytes(lp->max_paths), &failed);
	void *flows = loop_keep(lp, 4, flow_shared_bytes(config->extents, config->ranges), &failed);
	if (failed || !lp->exports || !lp->path || loop_open_msg(lp, config, &failed)) {
		loop_close(&lp);
		return -TERN_ENOMEM;
	}
	lp->flows = flow_shared_init(flows, config->extents, config->ranges);
	loop_open_pools(lp, heap);
	struct loop_mapping pool = {.what = mem_what_host(lp->chunks, LOOP_CHUNKS * sizeof(struct loop_chunk), true)};
	pool.what.is_sent_only = true;
	if (loop_map_end(lp, &pool)) { /* no link is there yet */
		loop_close(&lp);
		return -TERN_ENOMEM;
	}
	lp->chunk_mem = pool.number;
	*out = lp;
	return 0;
}

void loop_close(struct loop **lpp)
{
	struct loop *lp = *lpp;
	*lpp = NULL;
	if (!lp)
		return;
	while (lp->links) {
		loop_memory_unlink(lp, lp->link[lp->links - 1]);
		lp->links--;
		lp->link[lp->links]->ops->close(&lp->link[lp->links]);
	}
	mem_map_fini(&lp->mem);
	for (size_t i = 0; i < sizeof(lp->memory) / sizeof(lp->memory[0]); i++)
		if (lp->memory[i].addr)
			munmap(lp->memory[i].addr, lp->memory[i].bytes);
	free(lp->exports);
	free(lp->path);
	free(lp);
}

int loop_link_add(struct loop *lp, struct link *link, char *why, size_t why_bytes)
{
	if (lp->links == LOOP_LINKS_MAX)
		return -TERN_ELIMIT;
	lp->link[lp->links++] = link;
	lp->directs += loop_is_direct(link);
	loop_memory_link(lp, link, why, why_bytes);
	return 0;
}

void loop_link_remove(struct loop *lp, struct link *link)
{
	size_t i = 0;
	while (i < lp->links && lp->link[i] != link)
		i++;
	if (i == lp->links)
		return;
	loop_reap(lp, lp->now_ns);
	link->is_leaving = link->pins > 0;
	if (link->is_leaving)
		return;
	loop_memory_unlink(lp, link);
	lp->link[i] = lp->link[--lp->links];
	lp->directs -= loop_is_direct(link);
	link->ops->close(&link);
}

bool loop_peer_quiet(const struct loop_peer *peer)
{
	for (unsigned i = 0; i < peer->peer.paths; i++)
		if (flow_in_flight_bytes(&peer->path[i]->pp.flow))
			return false;
	return !msg_tx_want(peer->peer.pair);
}

void loop_activate(struct loop_path *path)
{
	if (path->is_active)
		return;
	path->is_active = true;
	list_push_back(&path->loop->active, &path->active);
}

void loop_peer_activate(struct loop_peer *peer)
{
	for (unsigned i = 0; i < peer->peer.paths; i++)
		loop_activate(peer->path[i]);
}

/* Which of several paths are up; with one there is nothing to tell apart from the peer. */
static uint16_t loop_paths_up(const struct loop_peer *peer)
{
	uint16_t up = 0;
	for (unsigned i = 0; i < peer->peer.paths && peer->peer.paths > 1; i++)
		up |= (uint16_t)((peer->path[i]->pp.state == PEER_PATH_UP) << peer->path[i]->pp.id);
	return up;
}

static void loop_told(struct loop_peer *peer)
{
	peer->is_listed = false;
	peer->told = peer->peer.state;
	peer->was_up = peer->told_up;
	peer->told_up = loop_paths_up(peer);
}

/* Queues the news once per change of state. */
void loop_note_any(struct loop_peer *peer)
{
	if (peer->is_listed || (peer->told == peer->peer.state && peer->told_up == loop_paths_up(peer)))
		return;
	peer->is_listed = true;
	list_push_back(&peer->loop->events, &peer->event);
}

bool loop_event_take(struct loop_peer *peer)
{
	if (!peer->is_listed)
		return false;
	list_remove(&peer->event);
	loop_told(peer);
	return true;
}

struct loop_peer *loop_event(struct loop *lp)
{
	struct list *at = list_pop_front(&lp->events);
	if (!at)
		return NULL;
	struct loop_peer *peer = list_entry(at, struct loop_peer, event);
	loop_told(peer);
	return peer;
}

static void loop_timers(struct loop *lp, uint64_t now_ns)
{
	/* bounded: each path is taken out once and comes back through the active list */
	while (heap_min_key(&lp->timers) <= now_ns) {
		struct loop_path *path = lp->path[heap_pop(&lp->timers)];
		int status = peer_timers(&path->pp, now_ns);
		if (status) {
			loop_peer_end(path->peer, status);
			continue;
		}
		if (path->pp.suspect_ns)
			loop_peer_activate(path->peer); /* the others have been asked to ping, which a path that has nothing to do would not notice */
		else
			loop_activate(path);
		if (path->pp.is_given_up)
			loop_path_given_up(path);
		loop_note(path->peer);
	}
}

/* Pairs that a post, a record or a loss gave something to send: their paths get a turn. */
static void loop_wake(struct loop *lp)
{
	struct msg_pair *pair;
	while ((pair = msg_woken(lp->msg))) {
		struct loop_peer *peer = msg_pair_owner(pair);
		for (unsigned i = 0; i < peer->peer.paths; i++)
			peer->path[i]->is_woken = true;
		loop_peer_activate(peer);
	}
}

/* Something has ended: its owner is told first, the answer may leave together with the acknowledgement; but only once in a row. */
static bool loop_put_off(struct loop *lp, bool may)
{
	lp->is_put_off = may && msg_has_done(lp->msg);
	return lp->is_put_off;
}

void loop_send(struct loop *lp, uint64_t now_ns)
{
	lp->now_ns = now_ns;
	lp->count.steps++;
	lp->is_posted = lp->is_put_off = false; /* what was put off beside sending, loop_due_ns and the links remember */
	loop_reap(lp, now_ns);
	loop_wake(lp);
	loop_tx(lp, now_ns);
}

bool loop_step(struct loop *lp, uint64_t now_ns)
{
	bool may = !lp->is_put_off;
	lp->is_moving = false;
	lp->now_ns = now_ns;
	lp->count.steps++;
	loop_reap(lp, now_ns);
	if (lp->is_posted) { /* what the caller just posted need not wait for a look at the sockets: 0.35 us of a half round trip */
		lp->is_posted = false;
		loop_wake(lp);
		loop_tx(lp, now_ns);
	}
	loop_rx(lp, now_ns);
	if (loop_put_off(lp, may))
		return true;
	if (lp->directs) {
		loop_direct(lp, now_ns);
		if (loop_put_off(lp, may))
			return true;
	}
	loop_timers(lp, now_ns);
	loop_wake(lp);
	loop_tx(lp, now_ns);
	return lp->is_moving;
}

uint64_t loop_due_ns(const struct loop *lp, uint64_t now_ns)
{
	uint64_t when = heap_min_key(&lp->timers);
	bool now = lp->is_posted || lp->is_put_off || !list_empty(&lp->active) || !list_empty(&lp->events) || when <= now_ns;
	return now || loop_direct_due(lp) ? 0 : when;
}

uint64_t loop_when_ns(struct loop *lp, uint64_t now_ns)
{
	uint64_t when = loop_due_ns(lp, now_ns);
	for (size_t i = 0; when && i < lp->links; i++) {
		struct link_wait w = {.fd = -1, .deadline_ns = UINT64_MAX};
		lp->link[i]->ops->wait(lp->link[i], false, &w);
		when = w.deadline_ns < when ? w.deadline_ns : when;
	}
	return when;
}
