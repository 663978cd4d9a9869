/* Sending: frames become work requests, a list of them one post; completions give room, frames (UC) and arrivals (`done`, RC) back. Called through
 * link_rdma_ops and by path.c. Each send queue is a ring of records: [reported, completed) is to be told, [completed, head) is under way. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "link/rdma/rdma.h"

int rdma_sq_open(struct rdma_sq *sq, uint32_t depth)
{
	sq->wr = calloc(depth, sizeof(*sq->wr));
	sq->depth = sq->wr ? depth : 0;
	return sq->wr ? 0 : -1;
}

void rdma_sq_close(struct rdma_sq *sq)
{
	free(sq->wr);
	memset(sq, 0, sizeof(*sq));
}

bool rdma_sq_has_room(const struct rdma_sq *sq)
{
	return sq->head - sq->reported < sq->depth;
}

static struct rdma_wr *sq_at(struct rdma_sq *sq, uint32_t index)
{
	return &sq->wr[index & (sq->depth - 1)];
}

static void tx_give_back(struct rdma_link *l, struct frame *f)
{
	l->back[l->back_head++ & (RDMA_TAKEN_MAX - 1)] = f;
}

/* Contiguous room in the send ring; behind the end it goes on at the start. */
static uint8_t *ring_take(struct rdma_sq *sq, uint32_t bytes)
{
	uint64_t head = sq->ring_head;
	if (bytes > sq->ring_bytes)
		return NULL;
	if (head % sq->ring_bytes + bytes > sq->ring_bytes)
		head += sq->ring_bytes - head % sq->ring_bytes;
	if (head + bytes - sq->ring_tail > sq->ring_bytes)
		return NULL;
	sq->ring_head = head + bytes;
	return sq->ring + head % sq->ring_bytes;
}

static uint32_t tx_sges(struct ibv_sge *sge, const struct frame *f, uint32_t first)
{
	uint32_t n = 0;
	for (uint32_t i = first; i < f->segs; i++)
		if (f->seg[i].bytes)
			sge[n++] = (struct ibv_sge){.addr = (uintptr_t)f->seg[i].addr, .length = f->seg[i].bytes};
	return n;
}

static uint64_t tx_bytes(const struct frame *f, uint32_t first)
{
	uint64_t bytes = 0;
	for (uint32_t i = first; i < f->segs; i++)
		bytes += f->seg[i].bytes;
	return bytes;
}

/* Payload of a frame with a target: all segments, or those behind an unused first one. */
static uint32_t tx_first(const struct frame *f)
{
	return tx_bytes(f, 0) == f->payload_bytes ? 0 : 1;
}

/* By copy, into the work request itself or into the send ring. */
static bool tx_copy(struct rdma_leg *leg, const struct frame *f, uint32_t first, struct ibv_send_wr *wr)
{
	uint32_t bytes = (uint32_t)tx_bytes(f, first);

	wr->num_sge = (int)tx_sges(wr->sg_list, f, first);
	if (bytes <= leg->inline_bytes && (uint32_t)wr->num_sge <= leg->max_sge) {
		wr->send_flags |= IBV_SEND_INLINE;
		return true;
	}
	uint8_t *to = ring_take(&leg->sq, bytes);
	if (!to)
		return false;
	((struct rdma_link *)leg->path->base.link)->base.copied_bytes += f->payload_bytes;
	*wr->sg_list = (struct ibv_sge){.addr = (uintptr_t)to, .length = bytes, .lkey = leg->sq.ring_lkey};
	wr->num_sge = 1;
	for (uint32_t i = first; i < f->segs; i++) {
		if (!f->seg[i].bytes)
			continue;
		memcpy(to, f->seg[i].addr, f->seg[i].bytes);
		to += f->seg[i].bytes;
	}
	return true;
}

static struct ibv_mr *tx_region(struct rdma_link *l, struct rdma_port *port, uint32_t key, const struct ibv_sge *sge)
{
	uint8_t *addr = (uint8_t *)(uintptr_t)sge->addr;
	uint32_t at = key & (RDMA_LKEYS - 1), wraps = rdma_region_wraps(l->domain);

	if (port->lkey_wraps != wraps)
		memset(port->lkey, 0, sizeof(port->lkey));
	port->lkey_wraps = wraps;
	struct ibv_mr *mr = key && port->lkey[at].key == key ? port->lkey[at].mr : NULL;
	if (mr && addr >= (uint8_t *)mr->addr && addr + sge->length <= (uint8_t *)mr->addr + mr->length)
		return mr;
	mr = key ? rdma_region_mr(l->domain, port->device, key, addr, sge->length) : NULL;
	if (mr) {
		port->lkey[at].key = key;
		port->lkey[at].mr = mr;
	}
	return mr ? mr : rdma_region_mr(l->domain, port->device, 0, addr, sge->length);
}

static void tx_adhoc_put(struct rdma_link *l, struct rdma_wr *record)
{
	if (record->adhoc)
		rdma_region_put(l->domain, record->adhoc);
	if (record->bounce)
		munmap(record->bounce, record->bounce_bytes);
	record->adhoc = 0;
	record->bounce = NULL;
}

static struct ibv_mr *tx_adhoc_get(struct rdma_leg *leg, struct rdma_wr *record, uint8_t *begin, uint64_t bytes, char *why, size_t room)
{
	struct rdma_link *l = (struct rdma_link *)leg->path->base.link;

	struct mem_what what = mem_what_host(begin, bytes, false);
	if (rdma_region_get(l->domain, &what, &record->adhoc, why, room))
		return NULL;
	return rdma_region_mr(l->domain, leg->path->port->device, record->adhoc, begin, bytes);
}

/* What the device cannot gather is copied into pages of its own: more pieces than it takes, or pieces that are not one registrable range. */
static bool tx_bounce(struct rdma_leg *leg, const struct frame *f, struct rdma_wr *record, struct ibv_send_wr *wr)
{
	uint32_t bytes = (uint32_t)f->payload_bytes, first = tx_first(f);
	char why[256] = "no memory";

	record->bounce_bytes = bytes;
	record->bounce = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (record->bounce == MAP_FAILED)
		record->bounce = NULL;
	struct ibv_mr *mr = record->bounce ? tx_adhoc_get(leg, record, record->bounce, bytes, why, sizeof(why)) : NULL;
	if (!mr) {
		rdma_path_fail(leg->path, "memory of a send: %s", why);
		return false;
	}
	uint8_t *to = record->bounce;
	for (uint32_t i = first; i < f->segs; to += f->seg[i++].bytes)
		if (f->seg[i].bytes)
			memcpy(to, f->seg[i].addr, f->seg[i].bytes);
	*wr->sg_list = (struct ibv_sge){.addr = (uintptr_t)record->bounce, .length = bytes, .lkey = mr->lkey};
	wr->num_sge = 1;
	leg->path->base.link->copied_bytes += bytes;
	return true;
}

/* Registers the pieces that no region holds, for this request alone: longer would outlive the memory. Rows of one tensor make one region. */
static bool tx_adhoc(struct rdma_leg *leg, struct rdma_wr *record, struct ibv_send_wr *wr)
{
	uint64_t begin = UINT64_MAX, end = 0;
	char why[256];

	for (int i = 0; i < wr->num_sge; i++) {
		const struct ibv_sge *sge = &wr->sg_list[i];
		if (sge->lkey)
			continue;
		begin = sge->addr < begin ? sge->addr : begin;
		end = sge->addr + sge->length > end ? sge->addr + sge->length : end;
	}
	struct ibv_mr *mr = tx_adhoc_get(leg, record, (uint8_t *)(uintptr_t)begin, end - begin, why, sizeof(why));
	for (int i = 0; mr && i < wr->num_sge; i++)
		if (!wr->sg_list[i].lkey)
			wr->sg_list[i].lkey = mr->lkey;
	return mr != NULL;
}

static bool tx_lkeys(struct rdma_leg *leg, const struct frame *f, struct rdma_wr *record, struct ibv_send_wr *wr)
{
	struct rdma_link *l = (struct rdma_link *)leg->path->base.link;
	uint32_t missing = 0, first = tx_first(f);
	int n = 0;

	for (uint32_t i = first; i < f->segs; i++) {
		if (!f->seg[i].bytes)
			continue;
		struct ibv_mr *mr = tx_region(l, leg->path->port, link_mem_key(&l->base, f->seg[i].mem), &wr->sg_list[n]);
		wr->sg_list[n++].lkey = mr ? mr->lkey : 0;
		missing += !mr;
	}
	if (!missing && (uint32_t)n <= leg->max_sge)
		return true;
	if (f->payload_bytes <= RDMA_FRAME_BYTES)
		return tx_copy(leg, f, first, wr);
	if ((uint32_t)n <= leg->max_sge && tx_adhoc(leg, record, wr))
		return true;
	tx_adhoc_put(l, record);
	return tx_bounce(leg, f, record, wr);
}

/* @return false: no room now */
static bool tx_write(struct rdma_leg *leg, struct frame *f, struct rdma_wr *record, struct ibv_send_wr *wr)
{
	record->kind = f->by_link ? RDMA_WR_WRITE : RDMA_WR_SPRAY;
	record->number = f->number;
	record->frame = f->by_link ? NULL : f;
	wr->opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
	wr->imm_data = htonl((uint32_t)f->number);
	wr->wr.rdma.remote_addr = f->target.addr;
	wr->wr.rdma.rkey = f->target.key;
	wr->num_sge = (int)tx_sges(wr->sg_list, f, tx_first(f));
	if (f->payload_bytes <= leg->inline_bytes)
		return tx_copy(leg, f, tx_first(f), wr);
	return tx_lkeys(leg, f, record, wr);
}

static struct rdma_leg *tx_leg(const struct frame *f)
{
	struct rdma_path *p = (struct rdma_path *)f->path;
	uint32_t lane = f->is_write ? f->target.lane : f->lane;

	if (!p->base.is_connected || p->is_failing)
		return NULL;
	if (!f->is_write && f->wire_bytes > RDMA_LANE_FRAME_BYTES)
		lane = 0;
	if (lane > p->base.lanes || (f->is_write && !lane))
		return &p->leg[0];
	return lane ? rdma_path_out(p, lane) : &p->leg[0];
}

static bool tx_is_next(const struct link_done *d, const struct frame *f)
{
	return d && d->path == f->path && d->first + d->frames == f->number && d->frames < UINT32_MAX;
}

/* @return true: this path can never carry it, and it is over without a request: given back, and told. No queue has it: there it would
 * wait for a completion that byte frames before it need not have. *room false: not now; too many wait to be told, or writes of its queue, and those
 * are told in order */
static bool tx_stale(struct rdma_leg *leg, struct frame *f, bool *room)
{
	struct rdma_path *p = leg->path;
	struct rdma_link *l = (struct rdma_link *)p->base.link;
	bool is_sent = f->is_write ? leg->index && f->target.connection == (uint8_t)p->base.connection : f->wire_bytes <= p->base.max_frame_bytes;

	if (is_sent)
		return false;
	struct link_done *last = l->n_stale ? &l->stale[l->n_stale - 1] : NULL;
	if (f->is_write && f->by_link) {
		*room = !leg->sq.writes && (l->n_stale < RDMA_STALE_MAX || tx_is_next(last, f));
		if (!*room)
			return true;
		if (tx_is_next(last, f))
			last->frames++;
		else
			l->stale[l->n_stale++] = (struct link_done){.path = &p->base, .first = f->number, .frames = 1, .is_lost = true};
		l->untold++;
	}
	l->base.tx_dropped++;
	tx_give_back(l, f);
	return true;
}

/* Fills the next record and its work request. @return false: no room now */
static bool tx_build(struct rdma_leg *leg, struct frame *f, struct ibv_send_wr *wr)
{
	struct rdma_link *l = (struct rdma_link *)leg->path->base.link;
	struct rdma_sq *sq = &leg->sq;
	struct rdma_wr *record = sq_at(sq, sq->head);
	uint64_t ring_head = sq->ring_head;

	*record = (struct rdma_wr){.kind = RDMA_WR_BYTES};
	wr->wr_id = (uint64_t)1 << 63 | (uint64_t)leg->index << 32 | sq->head;
	wr->opcode = IBV_WR_SEND; /* other opcodes set what only they have; `next` is tx_run's */
	wr->send_flags = 0;
	bool ok = f->is_write ? tx_write(leg, f, record, wr) : tx_copy(leg, f, 0, wr);
	if (!ok) {
		sq->ring_head = ring_head;
		tx_adhoc_put(l, record);
		return false;
	}
	record->ring_end = sq->ring_head;
	sq->head++;
	sq->writes += record->kind == RDMA_WR_WRITE;
	l->base.tx_frames++;
	l->base.tx_bytes += f->is_write ? f->payload_bytes : f->wire_bytes;
	if (!record->frame)
		tx_give_back(l, f);
	return true;
}

static void tx_over(struct rdma_leg *leg, struct rdma_wr *record)
{
	struct rdma_link *l = (struct rdma_link *)leg->path->base.link;

	leg->sq.ring_tail = record->ring_end;
	leg->path->awaited -= record->kind != RDMA_WR_BYTES;
	l->untold += record->kind == RDMA_WR_WRITE;
	tx_adhoc_put(l, record);
	if (record->frame)
		tx_give_back(l, record->frame);
	record->frame = NULL;
}

/* What nobody is to be told of leaves its place at once, unless something before it waits for `done`. */
static void sq_advance(struct rdma_leg *leg)
{
	struct rdma_sq *sq = &leg->sq;

	while (sq->reported != sq->completed && sq_at(sq, sq->reported)->kind != RDMA_WR_WRITE)
		sq->reported++;
}

static void tx_post(struct rdma_leg *leg, struct ibv_send_wr *first, struct ibv_send_wr *last, uint32_t awaited)
{
	struct ibv_send_wr *bad = NULL;

	last->send_flags |= IBV_SEND_SOLICITED;
	if (awaited) { /* a frame without a target is given back at once: its room may wait for the next signal */
		last->send_flags |= IBV_SEND_SIGNALED;
		leg->sq.since_signal = 0;
	}
	last->next = NULL;
	leg->path->awaited += awaited;
	int err = ibv_post_send(leg->qp, first, &bad);
	if (err) /* never below its depth, unless the queue pair has failed: the connection ends, and with it these are lost */
		rdma_path_fail(leg->path, "queue pair %u takes no more: %s", leg->index, strerror(err));
	leg->path->base.link->tx_calls++;
}

/* Consecutive frames of one queue pair: one list of work requests, one post. @return how many were taken */
static size_t tx_run(struct rdma_link *l, struct frame *const *frames, size_t n, uint64_t now_ns)
{
	struct rdma_leg *leg = tx_leg(frames[0]);
	struct rdma_sq *sq = leg ? &leg->sq : NULL;
	struct ibv_send_wr *last = NULL, *first = NULL, **link = &first;
	uint32_t posted = 0, awaited = 0;
	bool room = true;
	size_t taken = 0;

	for (; leg && taken < n && taken < RDMA_BATCH && (!taken || tx_leg(frames[taken]) == leg) && rdma_sq_has_room(sq); taken++) {
		struct ibv_send_wr *wr = &l->wr[posted];
		if (tx_stale(leg, frames[taken], &room)) {
			if (!room)
				break;
			continue;
		}
		wr->sg_list = l->sge[posted];
		if (!tx_build(leg, frames[taken], wr))
			break;
		*link = last = wr;
		link = &wr->next;
		posted++;
		awaited += frames[taken]->is_write;
		if (!frames[taken]->is_write || !frames[taken]->by_link)
			wr->send_flags |= IBV_SEND_SOLICITED;
		if (++sq->since_signal >= RDMA_SIGNAL_EVERY) {
			wr->send_flags |= IBV_SEND_SIGNALED;
			sq->since_signal = 0;
		}
	}
	if (last)
		tx_post(leg, first, last, awaited);
	if (last && !sq->since_signal && !leg->path->watch.leg)
		rdma_line_sent(leg, now_ns);
	l->taken += (uint32_t)taken;
	if (leg)
		leg->path->wants_room = !taken;
	return taken;
}

size_t rdma_tx(struct link *link, struct frame *const *frames, size_t n, uint64_t now_ns)
{
	struct rdma_link *l = (struct rdma_link *)link;
	size_t taken = 0, got, room = RDMA_TAKEN_MAX - l->taken;

	n = n < room ? n : room;
	while (taken < n && (got = tx_run(l, frames + taken, n - taken, now_ns)))
		taken += got;
	return taken;
}

size_t rdma_reap(struct link *link, struct frame **out, size_t n, uint64_t now_ns)
{
	struct rdma_link *l = (struct rdma_link *)link;
	size_t got = 0;

	if (l->back_tail == l->back_head)
		rdma_step(l, now_ns);
	while (got < n && l->back_tail != l->back_head)
		out[got++] = l->back[l->back_tail++ & (RDMA_TAKEN_MAX - 1)];
	l->taken -= (uint32_t)got;
	return got;
}

/* A completion covers everything before it: one queue pair completes in order. */
void rdma_tx_completed(struct rdma_leg *leg, uint32_t index)
{
	struct rdma_sq *sq = &leg->sq;

	if (leg->path->watch.leg)
		rdma_line_completed(leg, index);
	while ((int32_t)(index - sq->completed) >= 0 && sq->completed != sq->head) {
		struct rdma_wr *record = sq_at(sq, sq->completed++);
		tx_over(leg, record);
		if (record->kind == RDMA_WR_BIND || record->kind == RDMA_WR_HIDE)
			rdma_expose_completed(leg, record);
	}
	sq_advance(leg);
	if (leg->waiting)
		rdma_expose_flush(leg);
}

void rdma_tx_lost(struct rdma_leg *leg)
{
	struct rdma_sq *sq = &leg->sq;

	while (sq->completed != sq->head) {
		struct rdma_wr *record = sq_at(sq, sq->completed++);
		tx_over(leg, record);
		record->is_lost = true;
	}
	sq->since_signal = 0;
	sq_advance(leg);
}

void rdma_tx_forget(struct rdma_path *p)
{
	struct rdma_link *l = (struct rdma_link *)p->base.link;
	uint32_t kept = 0;

	for (uint32_t i = 0; i < RDMA_LEGS_MAX; i++) { /* every queue is over: all of its writes are untold ones */
		l->untold -= p->leg[i].sq.writes;
		p->leg[i].sq.writes = 0;
	}
	for (uint32_t i = 0; i < l->n_stale; i++)
		if (l->stale[i].path == &p->base)
			l->untold -= l->stale[i].frames;
		else
			l->stale[kept++] = l->stale[i];
	l->n_stale = kept;
}

static size_t done_leg(struct rdma_link *l, struct rdma_leg *leg, struct link_done *out, size_t n)
{
	struct rdma_sq *sq = &leg->sq;
	size_t got = 0;

	for (; sq->reported != sq->completed; sq->reported++) {
		const struct rdma_wr *record = sq_at(sq, sq->reported);
		struct link_done *before = got ? &out[got - 1] : NULL;
		if (record->kind != RDMA_WR_WRITE)
			continue;
		if (before && before->first + before->frames == record->number && before->is_lost == record->is_lost)
			before->frames++;
		else if (got < n)
			out[got++] = (struct link_done){.path = &leg->path->base, .first = record->number, .frames = 1, .is_lost = record->is_lost};
		else
			break;
		l->untold--;
		sq->writes--;
	}
	return got;
}

static size_t done_stale(struct rdma_link *l, struct link_done *out, size_t n)
{
	uint32_t got = n < l->n_stale ? (uint32_t)n : l->n_stale;

	for (uint32_t i = 0; i < got; i++) {
		out[i] = l->stale[i];
		l->untold -= out[i].frames;
	}
	l->n_stale -= got;
	memmove(l->stale, l->stale + got, l->n_stale * sizeof(l->stale[0]));
	return got;
}

size_t rdma_done(struct link *link, struct link_done *out, size_t n, uint64_t now_ns)
{
	struct rdma_link *l = (struct rdma_link *)link;
	size_t got = 0;

	if (!l->untold)
		rdma_step(l, now_ns);
	if (l->n_stale) /* first: the writes of its queue came later */
		got = done_stale(l, out, n);
	for (uint32_t i = 0; l->untold && i < l->n_paths && got < n; i++)
		for (uint32_t k = 0; k < l->paths[i]->n_legs && got < n; k++)
			got += done_leg(l, &l->paths[i]->leg[k], out + got, n - got);
	return got;
}
