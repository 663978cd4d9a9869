/* Exposures: memory that a path's peer may write, each a type 2 memory window bound to the one queue pair that this peer writes on. Called through
 * link_rdma_ops and by path.c and tx.c. Binding and ending go through our end of that queue pair, whose send queue carries nothing else. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "link/rdma/rdma.h"
#include "tern/error.h"
#include "tern/tern.h"

static struct rdma_exposure *expose_find(struct rdma_link *l, uint32_t id)
{
	uint32_t index = (id & 0xffff) - 1;
	struct rdma_exposure *e = index < l->exposures_used ? &l->exposures[index] : NULL;
	return e && e->state != RDMA_EX_FREE && e->id == id ? e : NULL;
}

static struct rdma_exposure *expose_take(struct rdma_link *l)
{
	struct rdma_exposure *e = l->exposures_free;

	if (e)
		l->exposures_free = e->next;
	else if (l->exposures_used < RDMA_EXPOSED_MAX)
		e = &l->exposures[l->exposures_used++];
	else
		return NULL;
	uint32_t generation = (e->id >> 16) + 1;
	*e = (struct rdma_exposure){.id = generation << 16 | (uint32_t)(e - l->exposures + 1)};
	return e;
}

static void expose_free(struct rdma_link *l, struct rdma_exposure *e)
{
	if (e->prev)
		e->prev->next = e->next;
	else
		e->path->exposures = e->next;
	if (e->next)
		e->next->prev = e->prev;
	e->state = RDMA_EX_FREE;
	e->next = l->exposures_free;
	l->exposures_free = e;
}

static void expose_tell(struct rdma_link *l, struct rdma_exposure *e)
{
	if (e->is_queued)
		return;
	e->is_queued = true;
	e->next_event = NULL;
	*l->telling_end = e;
	l->telling_end = &e->next_event;
}

static void expose_over(struct rdma_link *l, struct rdma_exposure *e, uint8_t how)
{
	e->state = RDMA_EX_OVER;
	e->tells_end = how;
	rdma_region_put(l->domain, e->what.mem);
	expose_tell(l, e);
}

static struct rdma_window *window_get(struct rdma_port *port)
{
	struct rdma_window *w = port->windows;

	if (w) {
		port->windows = w->next;
		return w;
	}
	w = calloc(1, sizeof(*w));
	if (w)
		w->mw = ibv_alloc_mw(port->device->pd, IBV_MW_TYPE_2);
	if (!w || !w->mw) {
		free(w);
		return NULL;
	}
	w->rkey = w->mw->rkey;
	return w;
}

static void window_put(struct rdma_port *port, struct rdma_window *w)
{
	w->next = port->windows;
	port->windows = w;
}

/* Ends a bound one too, at once: what arrives later is refused. */
static void window_free(struct rdma_window *w)
{
	ibv_dealloc_mw(w->mw);
	free(w);
}

void rdma_windows_close(struct rdma_port *port)
{
	while (port->windows) {
		struct rdma_window *w = port->windows;
		port->windows = w->next;
		window_free(w);
	}
}

static int expose_own_region(struct rdma_link *l, struct rdma_exposure *e)
{
	e->own = ibv_reg_mr(e->path->port->device->pd, e->what.addr, e->what.bytes, IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_LOCAL_WRITE);
	if (!e->own) {
		rdma_trouble(l, "rdma: a region for %llu exposed bytes: %s", (unsigned long long)e->what.bytes, strerror(errno));
		return -TERN_ELIMIT;
	}
	e->target.key = e->own->rkey;
	e->state = RDMA_EX_BOUND;
	e->tells_exposed = true;
	expose_tell(l, e);
	return 0;
}

static void expose_queue(struct rdma_exposure *e)
{
	e->next_waiting = NULL;
	*e->leg->waiting_end = e;
	e->leg->waiting_end = &e->next_waiting;
	rdma_expose_flush(e->leg);
}

static void expose_request(struct rdma_exposure *e, struct ibv_send_wr *wr)
{
	if (e->state == RDMA_EX_HIDING) {
		wr->opcode = IBV_WR_LOCAL_INV;
		wr->invalidate_rkey = e->window->rkey;
		return;
	}
	e->window->rkey = ibv_inc_rkey(e->window->rkey);
	e->target.key = e->window->rkey;
	wr->opcode = IBV_WR_BIND_MW;
	wr->bind_mw.mw = e->window->mw;
	wr->bind_mw.rkey = e->window->rkey;
	wr->bind_mw.bind_info = (struct ibv_mw_bind_info){
	        .mr = e->region, .addr = (uintptr_t)e->what.addr, .length = e->what.bytes, .mw_access_flags = IBV_ACCESS_REMOTE_WRITE};
}

void rdma_expose_flush(struct rdma_leg *leg)
{
	struct rdma_sq *sq = &leg->sq;

	while (leg->waiting && rdma_sq_has_room(sq) && !leg->path->is_failing) {
		struct rdma_exposure *e = leg->waiting;
		struct ibv_send_wr *bad, wr = {.wr_id = (uint64_t)1 << 63 | (uint64_t)leg->index << 32 | sq->head, .send_flags = IBV_SEND_SIGNALED};

		leg->waiting = e->next_waiting;
		if (!leg->waiting)
			leg->waiting_end = &leg->waiting;
		sq->wr[sq->head++ & (sq->depth - 1)] = (struct rdma_wr){.kind = e->state == RDMA_EX_HIDING ? RDMA_WR_HIDE : RDMA_WR_BIND,
		        .exposure = e,
		        .ring_end = sq->ring_head};
		expose_request(e, &wr);
		leg->path->awaited++;
		int err = ibv_post_send(leg->qp, &wr, &bad);
		e->window->mw->rkey = e->window->rkey; /* ibv_alloc_mw's caller keeps it: a provider names the window by it in the next bind */
		if (err)
			rdma_path_fail(leg->path, "a memory window: %s", strerror(err));
	}
}

static int expose_begin(struct rdma_link *l, struct rdma_exposure *e)
{
	struct rdma_path *p = e->path;

	if (!p->port->device->has_windows)
		return expose_own_region(l, e);
	e->window = window_get(p->port);
	if (!e->window) {
		rdma_trouble(l, "rdma: device %s gives no more memory windows (it has %d): %s", p->port->device->name, p->port->device->attr.max_mw,
		        strerror(errno));
		return -TERN_ELIMIT;
	}
	e->state = RDMA_EX_BINDING;
	expose_queue(e);
	return 0;
}

static int expose_allowed(struct rdma_link *l, struct rdma_path *p, const struct link_expose *what)
{
	if (!p->base.is_connected || p->is_failing)
		return -TERN_EAGAIN;
	if (!what->bytes)
		return -TERN_EINVAL;
	if (p->port->device->has_windows || l->options.isolation_mr)
		return 0;
	if (!l->said_no_windows)
		rdma_log(l, TERN_LOG_WARN,
		        "rdma: device %s has no type 2 memory windows: payloads go with a copy; isolation=mr allows whole regions, "
		        "which every peer of this domain could write to",
		        p->port->device->name);
	l->said_no_windows = true;
	return -TERN_EINVAL;
}

int rdma_expose(struct link *link, struct link_path *path, const struct link_expose *what, uint32_t *id)
{
	struct rdma_link *l = (struct rdma_link *)link;
	struct rdma_path *p = (struct rdma_path *)path;
	int err = expose_allowed(l, p, what);
	struct ibv_mr *mr;

	*id = 0;
	if (err)
		return err;
	mr = what->mem ? rdma_region_hold(l->domain, p->port->device, what) : NULL;
	if (!mr) {
		rdma_trouble(l, "rdma: %llu bytes to expose are not in registered memory, or it is read-only", (unsigned long long)what->bytes);
		return -TERN_EINVAL;
	}
	struct rdma_exposure *e = expose_take(l);
	if (!e) {
		rdma_trouble(l, "rdma: %d exposures at once are the limit", RDMA_EXPOSED_MAX);
		rdma_region_put(l->domain, what->mem);
		return -TERN_ELIMIT;
	}
	uint32_t lane = p->next_lane++ % p->base.lanes + 1;
	e->path = p;
	e->what = *what;
	e->ref = what->ref;
	e->region = mr;
	e->leg = rdma_path_in(p, lane);
	e->target = (struct frame_target){.addr = (uintptr_t)what->addr, .lane = (uint8_t)lane, .connection = (uint8_t)p->base.connection};
	e->next = p->exposures;
	if (e->next)
		e->next->prev = e;
	p->exposures = e;
	err = expose_begin(l, e);
	if (err) {
		rdma_region_put(l->domain, what->mem);
		expose_free(l, e);
	} else {
		*id = e->id;
	}
	return err;
}

static void expose_end(struct rdma_link *l, struct rdma_exposure *e)
{
	if (e->own) {
		ibv_dereg_mr(e->own);
		e->own = NULL;
		expose_over(l, e, LINK_HIDDEN);
	} else if (e->path->is_uc && !e->path->port->device->invalidates_uc) {
		window_free(e->window);
		e->window = NULL;
		expose_over(l, e, LINK_HIDDEN);
	} else {
		e->state = RDMA_EX_HIDING;
		expose_queue(e);
	}
}

void rdma_hide(struct link *link, uint32_t id)
{
	struct rdma_link *l = (struct rdma_link *)link;
	struct rdma_exposure *e = expose_find(l, id);

	if (!e || e->hide_wanted)
		return;
	e->hide_wanted = true;
	if (e->state == RDMA_EX_BOUND) /* else after its binding: the two may not overtake each other */
		expose_end(l, e);
}

void rdma_expose_completed(struct rdma_leg *leg, const struct rdma_wr *wr)
{
	struct rdma_link *l = (struct rdma_link *)leg->path->base.link;
	struct rdma_exposure *e = wr->exposure;

	if (wr->kind == RDMA_WR_HIDE) {
		window_put(leg->path->port, e->window);
		e->window = NULL;
		expose_over(l, e, LINK_HIDDEN);
		return;
	}
	e->state = RDMA_EX_BOUND;
	e->tells_exposed = true;
	expose_tell(l, e);
	if (e->hide_wanted)
		expose_end(l, e);
}

void rdma_expose_end_windows(struct rdma_path *p)
{
	for (struct rdma_exposure *e = p->exposures; e; e = e->next) {
		if (e->window)
			window_free(e->window);
		if (e->own)
			ibv_dereg_mr(e->own);
		e->window = NULL;
		e->own = NULL;
	}
	for (uint32_t i = 0; i < p->n_legs; i++) {
		p->leg[i].waiting = NULL;
		p->leg[i].waiting_end = &p->leg[i].waiting;
	}
}

void rdma_expose_broken(struct rdma_path *p)
{
	for (struct rdma_exposure *e = p->exposures; e; e = e->next)
		if (e->state != RDMA_EX_OVER)
			expose_over((struct rdma_link *)p->base.link, e, e->hide_wanted ? LINK_HIDDEN : LINK_BROKEN);
}

void rdma_expose_forget(struct rdma_path *p)
{
	struct rdma_link *l = (struct rdma_link *)p->base.link;
	struct rdma_exposure **at = &l->telling;

	l->telling_end = at;
	while (*at) {
		if ((*at)->path == p)
			*at = (*at)->next_event;
		else
			at = &(*at)->next_event;
		l->telling_end = at;
	}
	while (p->exposures)
		expose_free(l, p->exposures);
}

size_t rdma_exposed(struct link *link, struct link_exposed *out, size_t n, uint64_t now_ns)
{
	struct rdma_link *l = (struct rdma_link *)link;
	size_t got = 0;

	if (!l->telling)
		rdma_step(l, now_ns);
	while (got < n && l->telling) {
		struct rdma_exposure *e = l->telling;
		out[got] = (struct link_exposed){.path = &e->path->base, .ref = e->ref, .id = e->id, .target = e->target};
		if (e->tells_exposed) {
			out[got++].state = LINK_EXPOSED;
			e->tells_exposed = false;
			if (e->tells_end)
				continue;
		} else {
			out[got++].state = e->tells_end;
		}
		l->telling = e->next_event;
		if (!l->telling)
			l->telling_end = &l->telling;
		e->is_queued = false;
		if (e->state == RDMA_EX_OVER)
			expose_free(l, e);
	}
	return got;
}
