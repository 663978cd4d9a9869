/* Direct placement over the simulated network: memory that is mapped and exposed, frames with a target on their way, what becomes of them. Called by link.c and
 * connect.c; see sim.h for what "writes=" promises. Stricter than a NIC where it costs nothing: every byte read or written must be mapped at that moment. */
#include "base/rng.h"
#include "link/sim/inner.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tern/error.h"

enum {
	MEM_MAX = 1 << 20,
	MEM_INDEX_BITS = 20,      /* of a key; above it the count of its uses */
	EXPOSURE_INDEX_BITS = 16, /* SIM_EXPOSED_MAX */
	UC_WRITE_MAX = 65536,     /* slab's */
	RC_WRITE_MAX = 1 << 20,
	EXPOSE_MAX_NS = 1000000000,
};

const char *sim_write_open(struct sim_link *link, const char *options)
{
	const char *writes = options ? strstr(options, "writes=") : NULL;

	if (!writes)
		return NULL;
	writes += strlen("writes=");
	link->is_reliable = !strncmp(writes, "rc", 2);
	if ((!link->is_reliable && strncmp(writes, "uc", 2)) || (writes[2] && writes[2] != '&'))
		return "writes is uc or rc";
	uint32_t max = link->is_reliable ? RC_WRITE_MAX : UC_WRITE_MAX;
	uint64_t bytes = sim_option(options, "write_bytes", link->is_reliable ? RC_WRITE_MAX : 4096);
	uint64_t lanes = sim_option(options, "lanes", 1);
	link->expose_ns = sim_option(options, "expose_ns", 1000);
	link->expose_max = sim_option(options, "expose_max", SIM_EXPOSED_MAX);
	link->stall_ppm = link->is_reliable ? sim_option(options, "stall_ppm", 0) : 0;
	link->stall_ns = sim_option(options, "stall_ns", 0);
	link->goes_back = link->is_reliable && sim_option(options, "goback", 0);
	link->turns = sim_option(options, "turns", 0);
	link->stall_rng = sim_option(options, "stall_seed", 1);
	if (bytes < 64 || bytes > max)
		return link->is_reliable ? "write_bytes is 64 to 1048576" : "write_bytes is 64 to 65536 with writes=uc";
	if (!lanes || lanes > SIM_LANES_MAX || link->expose_ns > EXPOSE_MAX_NS)
		return "lanes is 1 to 16, expose_ns at most 1000000000";
	link->is_writing = true;
	link->lanes = (uint32_t)lanes;
	link->write_bytes = (uint32_t)bytes;
	link->base.mem_scope = link->net;
	link->base.caps |= LINK_MAPS | LINK_MAPS_OPS | LINK_WRITES | LINK_CONNECTS | LINK_PLAIN;
	return NULL;
}

void sim_write_lane(struct sim_link *link, struct sim_frame *frame, uint8_t lane)
{
	frame->lane = lane;
	if (lane && link->stall_ppm && rng_mix(&link->stall_rng) % 1000000 < link->stall_ppm)
		frame->stall_ns = link->stall_ns;
}

void sim_write_fini(struct sim_link *link)
{
	free(link->exposures);
	free(link->told.items);
	free(link->exposed.items);
}

/* Room for n items at a time. @return false without memory */
static bool fifo_reserve(struct sim_fifo *fifo, size_t item, uint32_t n)
{
	if (n <= fifo->max)
		return true;
	uint32_t max = n < 32 ? 64 : 2 * n; /* so that moving to the front is rare */
	uint8_t *items = realloc(fifo->items, max * item);
	if (!items)
		return false;
	fifo->items = items;
	fifo->max = max;
	return true;
}

static void *fifo_add(struct sim_fifo *fifo, size_t item)
{
	if (fifo->end == fifo->max) {
		memmove(fifo->items, fifo->items + fifo->at * item, (fifo->end - fifo->at) * item);
		fifo->end -= fifo->at;
		fifo->at = 0;
	}
	return fifo->items + fifo->end++ * item;
}

/* Mapped memory ------------------------------------------------------------------------------------------------------------------------------------ */

static uint32_t next_key(uint32_t key, uint32_t index, uint32_t bits)
{
	return (((key >> bits) + 1) << bits) | index;
}

int sim_mem_map(struct link *base, const struct mem_what *what, uint32_t *key, char *why, size_t why_bytes)
{
	struct sim_link *link = (struct sim_link *)base;
	struct sim_net *net = link->net;

	(void)why, (void)why_bytes;
	*key = 0;
	if (!link->is_writing)
		return 0;
	uint32_t i = net->mem_free ? net->mem_free : net->mem_n + 1; /* entry 0 is nobody's: key 0 stays wrong */
	if (i >= MEM_MAX)
		return -TERN_ENOMEM;
	if (i >= net->mem_max) {
		uint32_t max = net->mem_max ? 2 * net->mem_max : 64;
		struct sim_mem *mem = realloc(net->mem, max * sizeof(*mem));
		if (!mem)
			return -TERN_ENOMEM;
		memset(mem + net->mem_max, 0, (max - net->mem_max) * sizeof(*mem));
		net->mem = mem;
		net->mem_max = max;
	}
	struct sim_mem *mem = &net->mem[i];
	if (i == net->mem_free)
		net->mem_free = mem->next_free;
	else
		net->mem_n++;
	mem->key = next_key(mem->key, i, MEM_INDEX_BITS);
	mem->addr = what->addr;
	mem->bytes = what->bytes;
	*key = mem->key;
	return 0;
}

static struct sim_mem *mem_of(const struct sim_net *net, uint32_t key)
{
	uint32_t i = key & ((1u << MEM_INDEX_BITS) - 1);
	struct sim_mem *mem = i && i <= net->mem_n ? &net->mem[i] : NULL;

	return mem && mem->key == key && mem->addr ? mem : NULL;
}

void sim_mem_unmap(struct link *base, uint32_t key)
{
	struct sim_net *net = ((struct sim_link *)base)->net;
	struct sim_mem *mem = key ? mem_of(net, key) : NULL;

	if (!mem)
		return;
	mem->addr = NULL; /* the key stays, so that the next use gets another */
	mem->next_free = net->mem_free;
	net->mem_free = (uint32_t)(mem - net->mem);
}

static bool within(uint64_t addr, uint64_t bytes, uint64_t outer, uint64_t outer_bytes)
{
	return addr >= outer && bytes <= outer_bytes && addr - outer <= outer_bytes - bytes;
}

static bool is_mapped(const struct sim_net *net, uint32_t key, const uint8_t *addr, uint64_t bytes)
{
	const struct sim_mem *mem = mem_of(net, key);

	return mem && within((uintptr_t)addr, bytes, (uintptr_t)mem->addr, mem->bytes);
}

/* Sending ------------------------------------------------------------------------------------------------------------------------------------------ */

bool sim_write_ready(struct sim_link *link, const struct frame *tx)
{
	struct sim_path *path = (struct sim_path *)tx->path;
	uint32_t n = path->writing.end - path->writing.at;

	if (!path->epoch)
		return false;
	if (!tx->is_write || !tx->by_link)
		return true;
	return n < SIM_WRITES_MAX && fifo_reserve(&path->writing, sizeof(uint64_t), n + 1) &&
	       fifo_reserve(&link->told, sizeof(struct link_done), link->told.end - link->told.at + link->writes_n + 1);
}

/* @return what is wrong with it, or NULL */
static const char *fault_of(const struct sim_link *link, const struct frame *tx)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < tx->segs; i++) {
		if (!is_mapped(link->net, link_mem_key(&link->base, tx->seg[i].mem), tx->seg[i].addr, tx->seg[i].bytes))
			return "a segment is not mapped by its key";
		sum += tx->seg[i].bytes;
	}
	if (!sum || sum != tx->payload_bytes || sum != tx->wire_bytes)
		return "payload_bytes, wire_bytes and the sum of the segments are not one";
	if (sum > tx->path->max_write_bytes)
		return "longer than max_write_bytes";
	return tx->lane && tx->lane <= tx->path->lanes ? NULL : "no such lane";
}

/* The payload as a list of places when it stays with the sender until `done` or on request (by_ref), otherwise copied. */
static struct sim_frame *take(struct sim_link *link, const struct frame *tx)
{
	bool by_ref = tx->by_link || link->by_ref;
	struct sim_frame *frame = sim_frame_new(link->net, sizeof(struct sim_write) + (by_ref ? tx->segs * sizeof(tx->seg[0]) : tx->payload_bytes));

	if (!frame)
		return NULL;
	struct sim_write *write = (struct sim_write *)frame->data;
	uint8_t *to = (uint8_t *)(write + 1);
	*write = (struct sim_write){.target = tx->target, .number = tx->number, .segs = by_ref ? tx->segs : 0, .lane = tx->lane};
	for (uint32_t i = 0; by_ref && i < tx->segs; i++) {
		struct frame_seg seg = tx->seg[i];
		seg.mem = link_mem_key(&link->base, seg.mem); /* the receiver's link looks at it */
		memcpy(to + i * sizeof(seg), &seg, sizeof(seg));
	}
	for (uint32_t i = 0; !by_ref && i < tx->segs; i++) {
		memcpy(to, tx->seg[i].addr, tx->seg[i].bytes);
		to += tx->seg[i].bytes;
	}
	frame->kind = SIM_WRITE;
	frame->head_bytes = tx->payload_bytes;
	return frame;
}

static void send(struct sim_path *path, struct sim_frame *frame)
{
	struct sim_link *link = (struct sim_link *)path->base.link;

	frame->from = link->node;
	frame->to = path->node;
	frame->from_port = path->own_port;
	frame->to_port = path->port;
	frame->spread = path->spread;
	frame->epoch = path->epoch;
	frame->is_reliable = path->base.is_reliable;
	frame->packets = (uint16_t)(1 + (frame->head_bytes ? frame->head_bytes - 1 : 0) / path->base.max_frame_bytes);
	sim_net_send(link->net, link->node, frame);
}

/* The oldest n of a path's writes are done, or lost. tx has reserved room. */
static void tell(struct sim_path *path, uint64_t n, bool is_lost)
{
	struct sim_link *link = (struct sim_link *)path->base.link;

	for (; n; n--, path->done++, link->writes_n--) {
		uint64_t number;
		memcpy(&number, path->writing.items + path->writing.at++ * sizeof(number), sizeof(number));
		struct link_done *last = link->told.end == link->told.at ? NULL : (struct link_done *)link->told.items + link->told.end - 1;
		if (last && last->path == &path->base && last->is_lost == is_lost && last->first + last->frames == number)
			last->frames++;
		else
			*(struct link_done *)fifo_add(&link->told, sizeof(*last)) =
			    (struct link_done){.path = &path->base, .first = number, .frames = 1, .is_lost = is_lost};
	}
	if (path->writing.at == path->writing.end)
		path->writing.at = path->writing.end = 0;
	sim_net_wake(link->net, link);
}

void sim_write_send(struct sim_link *link, const struct frame *tx)
{
	struct sim_path *path = (struct sim_path *)tx->path;
	struct sim_net *net = link->net;
	const char *fault = fault_of(link, tx);

	if (tx->by_link) {
		memcpy(fifo_add(&path->writing, sizeof(uint64_t)), &tx->number, sizeof(uint64_t));
		path->written++;
		link->writes_n++;
	}
	if (tx->by_link != path->base.is_reliable) { /* made for the connection before, which was of the other kind */
		link->base.tx_dropped++;
		tell(path, tx->by_link, true);
		return;
	}
	if (fault)
		snprintf(link->base.trouble, sizeof(link->base.trouble), "sim: frame %llu with a target: %s", (unsigned long long)tx->number, fault);
	bool wanted = !fault && (!net->filter || net->filter(net->filter_arg, link->node, path->node, tx));
	struct sim_frame *frame = wanted ? take(link, tx) : NULL;
	if (!frame) {
		link->base.tx_dropped++;
		if (fault || tx->by_link)
			sim_connect_break(path);
		return;
	}
	((struct sim_write *)frame->data)->seq = path->written;
	sim_write_lane(link, frame, tx->lane);
	frame->goes_back = link->goes_back;
	send(path, frame);
}

/* Arriving ----------------------------------------------------------------------------------------------------------------------------------------- */

/* @return where the payload goes, or NULL: the target does not hold */
static uint8_t *place_of(const struct sim_link *link, const struct sim_path *path, const struct sim_write *write, uint32_t bytes)
{
	const struct frame_target *target = &write->target;
	uint32_t i = target->key & ((1u << EXPOSURE_INDEX_BITS) - 1);
	const struct sim_exposure *e = i < link->exposures_n ? &link->exposures[i] : NULL;

	if (!e || e->path != path || e->key != target->key || e->state != LINK_EXPOSED)
		return NULL;
	if (target->connection != (uint8_t)path->base.connection || target->lane != e->lane || write->lane != e->lane)
		return NULL;
	if (!within(target->addr, bytes, (uintptr_t)e->what.addr, e->what.bytes))
		return NULL;
	uint8_t *place = e->what.addr + (target->addr - (uintptr_t)e->what.addr);
	return is_mapped(link->net, e->what.mem, place, bytes) ? place : NULL;
}

/* @return false: the sender's memory is not mapped any more */
static bool put_down(const struct sim_net *net, const struct sim_write *write, uint32_t bytes, uint8_t *place)
{
	const struct frame_seg *seg = (const struct frame_seg *)(write + 1);

	if (!write->segs)
		memcpy(place, write + 1, bytes);
	for (uint32_t i = 0; i < write->segs; i++) {
		if (!is_mapped(net, seg[i].mem, seg[i].addr, seg[i].bytes))
			return false;
		memmove(place, seg[i].addr, seg[i].bytes);
		place += seg[i].bytes;
	}
	return true;
}

static void acknowledge(struct sim_path *path, const struct sim_write *write)
{
	struct sim_frame *ack = sim_frame_new(((struct sim_link *)path->base.link)->net, sizeof(*write));

	if (!ack) {
		sim_connect_break(path);
		return;
	}
	memcpy(ack->data, write, sizeof(*write));
	ack->kind = SIM_ACK;
	ack->head_bytes = 0;
	send(path, ack);
}

bool sim_write_arrive(struct sim_link *link, struct sim_path *path, struct sim_path *from, struct sim_frame *frame)
{
	const struct sim_write *write = (const struct sim_write *)frame->data;

	if (frame->kind == SIM_ACK) {
		tell(path, write->seq - path->done, false);
		return false;
	}
	uint8_t *place = place_of(link, path, write, frame->head_bytes);
	if (!place || link->inbox_n == SIM_INBOX_MAX || !put_down(link->net, write, frame->head_bytes, place)) {
		link->base.rx_dropped++;
		snprintf(from->base.link->trouble, sizeof(from->base.link->trouble), "sim: frame %llu with a target: %s",
		         (unsigned long long)write->number, place ? "its memory is not mapped any more" : "the target does not hold");
		if (frame->is_reliable)
			sim_connect_break(path);
		return false;
	}
	if (frame->is_reliable)
		acknowledge(path, write);
	return true;
}

/* Exposing ----------------------------------------------------------------------------------------------------------------------------------------- */

/* @return a free entry's id, or UINT32_MAX */
static uint32_t new_exposure(struct sim_link *link)
{
	if (link->exposed_n == SIM_EXPOSED_MAX || link->exposed_n >= link->expose_max)
		return UINT32_MAX;
	/* each has at most two events that are not fetched */
	if (!fifo_reserve(&link->exposed, sizeof(struct link_exposed), 2 * (link->exposed_n + 1)))
		return UINT32_MAX;
	if (link->exposures_n > link->exposed_n) {
		uint32_t id = link->exposures_free;
		link->exposures_free = link->exposures[id].next_free;
		return id;
	}
	if (link->exposures_n == link->exposures_max) {
		uint32_t max = link->exposures_max ? 2 * link->exposures_max : 64;
		struct sim_exposure *more = realloc(link->exposures, max * sizeof(*more));
		if (!more)
			return UINT32_MAX;
		memset(more + link->exposures_max, 0, (max - link->exposures_max) * sizeof(*more));
		link->exposures = more;
		link->exposures_max = max;
	}
	return link->exposures_n++;
}

static void free_exposure(struct sim_link *link, uint32_t id)
{
	link->exposures[id].path = NULL;
	link->exposures[id].next_free = link->exposures_free;
	link->exposures_free = id;
	link->exposed_n--;
}

int sim_expose(struct link *base, struct link_path *path_base, const struct link_expose *what, uint32_t *id)
{
	struct sim_link *link = (struct sim_link *)base;
	struct sim_path *path = (struct sim_path *)path_base;

	*id = 0;
	if (!link->is_writing || !what->bytes || !is_mapped(link->net, what->mem, what->addr, what->bytes))
		return -TERN_EINVAL;
	if (!path->epoch)
		return -TERN_EAGAIN;
	uint32_t i = new_exposure(link);
	if (i == UINT32_MAX)
		return -TERN_ELIMIT;
	struct sim_exposure *e = &link->exposures[i];
	uint32_t key = next_key(e->key, i, EXPOSURE_INDEX_BITS);
	*e = (struct sim_exposure){.path = path, .what = *what, .key = key, .lane = (uint8_t)(1 + i % link->lanes)};
	link->exposed_n++;
	if (sim_timer_set(link->net, SIM_TIMER_EXPOSED, path, key, link->net->now_ns + link->expose_ns)) {
		free_exposure(link, i);
		return -TERN_ELIMIT;
	}
	*id = i;
	return 0;
}

static void tell_exposed(struct sim_link *link, uint32_t id, enum link_exposed_state state)
{
	struct sim_exposure *e = &link->exposures[id];

	e->state = (uint8_t)state;
	*(struct link_exposed *)fifo_add(&link->exposed, sizeof(struct link_exposed)) = (struct link_exposed){
	    .path = &e->path->base,
	    .ref = e->what.ref,
	    .id = id,
	    .state = (uint8_t)state,
	    .target = {.addr = (uintptr_t)e->what.addr, .key = e->key, .lane = e->lane, .connection = (uint8_t)e->path->base.connection},
	};
	sim_net_wake(link->net, link);
}

void sim_hide(struct link *base, uint32_t id)
{
	struct sim_link *link = (struct sim_link *)base;
	struct sim_exposure *e = id < link->exposures_n ? &link->exposures[id] : NULL;

	if (!e || !e->path || e->is_hiding || e->state > LINK_EXPOSED)
		return;
	e->is_hiding = true;
	if (sim_timer_set(link->net, SIM_TIMER_HIDDEN, e->path, e->key, link->net->now_ns + link->expose_ns))
		tell_exposed(link, id, LINK_HIDDEN); /* no memory for taking its time */
}

void sim_write_timer(struct sim_link *link, uint32_t key, enum sim_timer_kind kind)
{
	uint32_t id = key & ((1u << EXPOSURE_INDEX_BITS) - 1);

	if (link->exposures[id].path && link->exposures[id].key == key && link->exposures[id].state <= LINK_EXPOSED)
		tell_exposed(link, id, kind == SIM_TIMER_EXPOSED ? LINK_EXPOSED : LINK_HIDDEN);
}

size_t sim_exposed(struct link *base, struct link_exposed *out, size_t n, uint64_t now_ns)
{
	struct sim_link *link = (struct sim_link *)base;
	size_t i;

	sim_net_advance(link->net, now_ns);
	for (i = 0; i < n && link->exposed.at < link->exposed.end; i++) {
		out[i] = ((struct link_exposed *)link->exposed.items)[link->exposed.at++];
		if (out[i].state != LINK_EXPOSED)
			free_exposure(link, out[i].id);
	}
	return i;
}

size_t sim_done(struct link *base, struct link_done *out, size_t n, uint64_t now_ns)
{
	struct sim_link *link = (struct sim_link *)base;
	size_t i;

	sim_net_advance(link->net, now_ns);
	for (i = 0; i < n && link->told.at < link->told.end; i++)
		out[i] = ((struct link_done *)link->told.items)[link->told.at++];
	return i;
}

void sim_write_broken(struct sim_path *path)
{
	struct sim_link *link = (struct sim_link *)path->base.link;

	tell(path, path->writing.end - path->writing.at, true);
	for (uint32_t id = 0; id < link->exposures_n; id++)
		if (link->exposures[id].path == path && link->exposures[id].state <= LINK_EXPOSED)
			tell_exposed(link, id, link->exposures[id].is_hiding ? LINK_HIDDEN : LINK_BROKEN);
}

void sim_write_forget(struct sim_path *path)
{
	struct sim_link *link = (struct sim_link *)path->base.link;
	struct link_done *told = (struct link_done *)link->told.items;
	struct link_exposed *exposed = (struct link_exposed *)link->exposed.items;
	uint32_t kept = link->told.at;

	for (uint32_t i = link->told.at; i < link->told.end; i++)
		if (told[i].path != &path->base)
			told[kept++] = told[i];
	link->told.end = kept;
	kept = link->exposed.at;
	for (uint32_t i = link->exposed.at; i < link->exposed.end; i++)
		if (exposed[i].path != &path->base)
			exposed[kept++] = exposed[i];
	link->exposed.end = kept;
	for (uint32_t id = 0; id < link->exposures_n; id++)
		if (link->exposures[id].path == path)
			free_exposure(link, id);
	link->writes_n -= path->writing.end - path->writing.at;
	free(path->writing.items);
	path->writing = (struct sim_fifo){0};
}
