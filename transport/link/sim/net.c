/* The simulated network: nodes, wires, routes, the order of arrivals; see sim.h. Called by harnesses, and by link.c. Events are kept as one list a wire and a
 * heap of wires: a frame costs O(log wires), and with few wires next to nothing. */
#include "link/sim/inner.h"
#include <stdlib.h>
#include <string.h>
#include "tern/error.h"

#define NO_ROUTE UINT32_MAX

int sim_net_open(uint32_t nodes, uint64_t seed, struct sim_net **out)
{
	if (!nodes || nodes > SIM_NODES_MAX)
		return -TERN_EINVAL;
	struct sim_net *net = calloc(1, sizeof(*net));
	if (!net)
		return -TERN_ENOMEM;
	net->nodes = calloc(nodes, sizeof(*net->nodes));
	net->route = calloc(nodes, sizeof(*net->route));
	net->queue = calloc(nodes, sizeof(*net->queue));
	net->nodes_n = nodes;
	net->seed = seed;
	slab_init(&net->slab, 0);
	line_init(&net->timers);
	if (!net->nodes || !net->route || !net->queue) {
		sim_net_close(&net);
		return -TERN_ENOMEM;
	}
	*out = net;
	return 0;
}

static void forget_routes(struct sim_net *net)
{
	for (uint32_t i = 0; net->route && i < net->nodes_n; i++) {
		free(net->route[i]);
		net->route[i] = NULL;
	}
	net->routed = false;
}

void sim_net_close(struct sim_net **out)
{
	struct sim_net *net = *out;

	*out = NULL;
	if (!net)
		return;
	for (uint32_t i = 0; i < net->wires_n; i++) {
		line_fini(&net->wires[i]->line);
		free(net->wires[i]);
	}
	forget_routes(net);
	line_fini(&net->timers);
	slab_fini(&net->slab);
	free(net->mem);
	free(net->wires);
	free(net->heap);
	free(net->order);
	free(net->route);
	free(net->queue);
	free(net->nodes);
	free(net);
}

static int grow_wires(struct sim_net *net)
{
	if (net->wires_n + 2 > SIM_WIRES_MAX)
		return -TERN_ELIMIT;
	if (net->wires_n + 2 <= net->wires_max)
		return 0;
	uint32_t max = net->wires_max ? 2 * net->wires_max : 16;
	void *wires = realloc(net->wires, max * sizeof(*net->wires));
	if (wires)
		net->wires = wires;
	void *heap = realloc(net->heap, max * sizeof(*net->heap));
	if (heap)
		net->heap = heap;
	void *order = realloc(net->order, max * sizeof(*net->order));
	if (order)
		net->order = order;
	if (!wires || !heap || !order)
		return -TERN_ENOMEM;
	net->wires_max = max;
	return 0;
}

static int new_wire(struct sim_net *net, uint32_t from, uint32_t to, const struct element_config *config)
{
	struct sim_wire *wire = calloc(1, sizeof(*wire));

	if (!wire)
		return -TERN_ENOMEM;
	uint64_t seed = net->seed + 0x100000001b3u * (net->wires_n + 1);
	int rc = element_init(&wire->element, config, rng_mix(&seed), 0);
	if (rc) {
		free(wire);
		return rc;
	}
	line_init(&wire->line);
	wire->from = from;
	wire->to = to;
	wire->heap_pos = SIM_NO_POS;
	wire->next_ns = UINT64_MAX;
	net->wires[net->wires_n++] = wire;
	return 0;
}

int sim_net_connect(struct sim_net *net, uint32_t a, uint32_t b, const struct element_config *forward, const struct element_config *reverse)
{
	if (a >= net->nodes_n || b >= net->nodes_n || a == b)
		return -TERN_EINVAL;
	int rc = grow_wires(net);
	if (rc)
		return rc;
	rc = new_wire(net, a, b, forward);
	if (rc)
		return rc;
	rc = new_wire(net, b, a, reverse);
	if (rc) {
		free(net->wires[--net->wires_n]);
		return rc;
	}
	forget_routes(net);
	return (int)(net->wires_n / 2 - 1);
}

/* Sorts wires by (from, to, number), and counts the parallel ones. */
static int by_ends(const void *pa, const void *pb, void *arg)
{
	struct sim_wire *const *wires = arg;
	uint32_t a = *(const uint32_t *)pa, b = *(const uint32_t *)pb;

	if (wires[a]->from != wires[b]->from)
		return wires[a]->from < wires[b]->from ? -1 : 1;
	if (wires[a]->to != wires[b]->to)
		return wires[a]->to < wires[b]->to ? -1 : 1;
	return a < b ? -1 : a > b;
}

static void sort_wires(struct sim_net *net)
{
	uint32_t at = 0;

	for (uint32_t i = 0; i < net->wires_n; i++)
		net->order[i] = i;
	qsort_r(net->order, net->wires_n, sizeof(*net->order), by_ends, net->wires);
	for (uint32_t node = 0; node < net->nodes_n; node++) {
		net->nodes[node].order_from = at;
		while (at < net->wires_n && net->wires[net->order[at]]->from == node) {
			uint32_t first = at, to = net->wires[net->order[at]]->to;
			while (at < net->wires_n && net->wires[net->order[at]]->from == node && net->wires[net->order[at]]->to == to)
				at++;
			net->wires[net->order[first]]->parallel = at - first;
		}
		net->nodes[node].order_to = at;
	}
	net->routed = true;
}

/* Where in order the wires from node to neighbour begin; they exist, since wires go both ways. */
static uint32_t group(const struct sim_net *net, uint32_t node, uint32_t neighbour)
{
	uint32_t low = net->nodes[node].order_from, high = net->nodes[node].order_to;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (net->wires[net->order[middle]]->to < neighbour)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Breadth first from the target. @return the row, or NULL without memory */
static const uint32_t *route_to(struct sim_net *net, uint32_t to)
{
	uint32_t head = 0, tail = 0;

	if (!net->routed)
		sort_wires(net);
	if (net->route[to])
		return net->route[to];
	uint32_t *row = malloc(net->nodes_n * sizeof(*row));
	if (!row)
		return NULL;
	memset(row, 0xff, net->nodes_n * sizeof(*row));
	net->queue[tail++] = to;
	while (head < tail) {
		uint32_t at = net->queue[head++];
		for (uint32_t i = net->nodes[at].order_from; i < net->nodes[at].order_to; i++) {
			uint32_t next = net->wires[net->order[i]]->to;
			if (next == to || row[next] != NO_ROUTE)
				continue;
			row[next] = group(net, next, at);
			net->queue[tail++] = next;
		}
	}
	net->route[to] = row;
	return row;
}

bool sim_net_reaches(struct sim_net *net, uint32_t from, uint32_t to)
{
	const uint32_t *row = from < net->nodes_n && to < net->nodes_n ? route_to(net, to) : NULL;

	return row && row[from] != NO_ROUTE;
}

/* The wire that a frame at a node takes; a way exists. */
static uint32_t wire_of(const struct sim_net *net, const uint32_t *row, uint32_t at, uint16_t spread)
{
	return net->order[row[at] + spread % net->wires[net->order[row[at]]]->parallel];
}

uint64_t sim_net_delay_ns(struct sim_net *net, uint32_t from, uint32_t to, uint16_t spread)
{
	const uint32_t *row = route_to(net, to);
	uint64_t sum = 0;

	for (uint32_t at = from; row && at != to && row[at] != NO_ROUTE;) {
		const struct sim_wire *wire = net->wires[wire_of(net, row, at, spread)];
		sum += element_delay_ns(&wire->element, net->now_ns);
		at = wire->to;
	}
	return sum;
}

static bool before(const struct sim_net *net, uint32_t a, uint32_t b)
{
	uint64_t ta = net->wires[a]->next_ns, tb = net->wires[b]->next_ns;

	return ta < tb || (ta == tb && a < b);
}

static void place(struct sim_net *net, uint32_t pos, uint32_t wire)
{
	net->heap[pos] = wire;
	net->wires[wire]->heap_pos = pos;
}

static void sift_up(struct sim_net *net, uint32_t pos)
{
	uint32_t wire = net->heap[pos];

	for (; pos && before(net, wire, net->heap[(pos - 1) / 2]); pos = (pos - 1) / 2)
		place(net, pos, net->heap[(pos - 1) / 2]);
	place(net, pos, wire);
}

static void sift_down(struct sim_net *net, uint32_t pos)
{
	uint32_t wire = net->heap[pos];

	for (uint32_t child; (child = 2 * pos + 1) < net->heap_n; pos = child) {
		if (child + 1 < net->heap_n && before(net, net->heap[child + 1], net->heap[child]))
			child++;
		if (!before(net, net->heap[child], wire))
			break;
		place(net, pos, net->heap[child]);
	}
	place(net, pos, wire);
}

/* A line got an item, perhaps an earlier one. */
static void wire_filled(struct sim_net *net, uint32_t number)
{
	struct sim_wire *wire = net->wires[number];
	uint64_t next = line_next_ns(&wire->line);

	if (next == wire->next_ns)
		return;
	wire->next_ns = next;
	if (wire->heap_pos == SIM_NO_POS) {
		wire->heap_pos = net->heap_n;
		net->heap[net->heap_n++] = number;
	}
	sift_up(net, wire->heap_pos);
}

/* The top wire's line gave an item. */
static void top_drained(struct sim_net *net)
{
	struct sim_wire *wire = net->wires[net->heap[0]];

	wire->next_ns = line_next_ns(&wire->line);
	if (wire->next_ns == UINT64_MAX) {
		uint32_t last = net->heap[--net->heap_n];
		wire->heap_pos = SIM_NO_POS;
		if (!net->heap_n)
			return;
		net->heap[0] = last;
	}
	sift_down(net, 0);
}

void sim_frame_free(struct sim_net *net, struct sim_frame *frame)
{
	slab_put(&net->slab, frame, frame->alloc_bytes);
}

static struct sim_frame *copy_of(struct sim_net *net, const struct sim_frame *frame)
{
	struct sim_frame *copy = slab_get(&net->slab, frame->alloc_bytes);

	if (!copy)
		return NULL;
	memcpy(copy, frame, frame->alloc_bytes);
	if (frame->pieces) { /* those that were copied lie in data */
		struct frame_seg *seg = (struct frame_seg *)copy->data;
		uintptr_t from = (uintptr_t)frame->data, to = (uintptr_t)frame + frame->alloc_bytes;
		for (uint32_t i = 0; i < frame->pieces; i++)
			if ((uintptr_t)seg[i].addr >= from && (uintptr_t)seg[i].addr < to)
				seg[i].addr = copy->data + ((uintptr_t)seg[i].addr - from);
	}
	return copy;
}

/* Go back N, with N all that is in flight: what was sent behind a lost packet is thrown away by the receiver and sent again, so from its loss until it is sent once
 * more, a round trip later, the line's time is wasted. These frames have the line to themselves; records and acknowledgements beside them are few. In the connection's
 * favour: the receiver notes a loss at once, the last packet's too, and what it says about it is never lost. */
static void push_back(struct sim_net *net, struct sim_wire *wire, struct sim_frame *frame, struct element_verdict *v)
{
	const struct element_config *c = &wire->element.config;
	uint64_t bits = 8 * (frame->head_bytes + (uint64_t)frame->packets * c->overhead_bytes);
	uint64_t round_ns = sim_net_delay_ns(net, frame->from, frame->to, frame->spread) +
		sim_net_delay_ns(net, frame->to, frame->from, frame->spread);

	wire->back_ns = wire->back_ns > net->now_ns ? wire->back_ns : net->now_ns;
	wire->back_ns += c->rate_bits_per_s ? bits * 1000000000 / c->rate_bits_per_s : 0;
	wire->back_ns += element_losses(&wire->element, frame->packets) * round_ns;
	uint64_t at_ns = wire->back_ns + element_delay_ns(&wire->element, net->now_ns);
	wire->lane_ns = at_ns > wire->lane_ns ? at_ns : wire->lane_ns;
	*v = (struct element_verdict){.copies = 1, .late = 1, .at_ns[0] = wire->lane_ns};
}

void sim_net_send(struct sim_net *net, uint32_t at, struct sim_frame *frame)
{
	const uint32_t *row = route_to(net, frame->to);
	struct element_verdict v;

	if (!row || row[at] == NO_ROUTE) {
		sim_frame_free(net, frame);
		return;
	}
	uint32_t number = wire_of(net, row, at, frame->spread), bytes = frame->head_bytes + frame->body_bytes;
	struct sim_wire *wire = net->wires[number];
	if (frame->goes_back) {
		push_back(net, wire, frame, &v);
	} else if (frame->is_reliable) {
		element_push_reliable(&wire->element, net->now_ns, bytes + (frame->packets - 1u) * wire->element.config.overhead_bytes, &v);
		uint64_t *order_ns = frame->lane ? &wire->lane_ns : &wire->reliable_ns;
		v.at_ns[0] = (v.at_ns[0] > *order_ns ? v.at_ns[0] : *order_ns) + frame->stall_ns;
		v.late |= frame->stall_ns || *order_ns > net->now_ns;
		*order_ns = v.at_ns[0];
	} else {
		element_push(&wire->element, net->now_ns, bytes, &v);
	}
	if (!v.copies) {
		sim_frame_free(net, frame);
		return;
	}
	frame->ce |= v.ce;
	struct sim_frame *copy = v.copies > 1 ? copy_of(net, frame) : NULL;
	if (line_push(&wire->line, &frame->item, v.at_ns[0], v.late))
		sim_frame_free(net, frame);
	if (copy && line_push(&wire->line, &copy->item, v.at_ns[1], false))
		sim_frame_free(net, copy);
	wire_filled(net, number);
}

void sim_net_wake(struct sim_net *net, struct sim_link *link)
{
	if (link->is_ready)
		return;
	link->is_ready = true;
	link->ready_next = NULL;
	if (net->ready)
		net->ready_last->ready_next = link;
	else
		net->ready = link;
	net->ready_last = link;
}

static void arrive(struct sim_net *net, struct sim_wire *wire, struct sim_frame *frame)
{
	struct sim_link *link = net->nodes[frame->to].link;
	uint64_t mix = net->hash + frame->item.time_ns * 31 + ((uint64_t)frame->from << 40) + ((uint64_t)frame->to << 20) + frame->head_bytes +
	               frame->body_bytes;

	net->hash = rng_mix(&mix);
	if (wire->to != frame->to) {
		sim_net_send(net, wire->to, frame);
		return;
	}
	if (!link || link->inbox_n == SIM_INBOX_MAX) {
		if (link)
			link->base.rx_dropped++;
		sim_frame_free(net, frame);
		return;
	}
	if (frame->epoch && !sim_connect_arrive(net, link, frame))
		return;
	frame->item.next = NULL;
	if (link->inbox_n++)
		link->inbox_last->item.next = &frame->item;
	else
		link->inbox = frame;
	link->inbox_last = frame;
	sim_net_wake(net, link);
}

uint64_t sim_net_next_ns(const struct sim_net *net)
{
	uint64_t frame_ns = net->heap_n ? net->wires[net->heap[0]]->next_ns : UINT64_MAX, timer_ns = line_next_ns(&net->timers);

	return frame_ns < timer_ns ? frame_ns : timer_ns;
}

void sim_net_advance(struct sim_net *net, uint64_t now_ns)
{
	for (uint64_t next_ns; (next_ns = sim_net_next_ns(net)) <= now_ns && next_ns != UINT64_MAX;) {
		if (line_next_ns(&net->timers) == next_ns) {
			sim_timer_fire(net);
			continue;
		}
		struct sim_wire *wire = net->wires[net->heap[0]];
		struct sim_frame *frame = (struct sim_frame *)line_pop(&wire->line);
		net->now_ns = frame->item.time_ns; /* routers send at the time of arrival, whatever the step */
		top_drained(net);
		arrive(net, wire, frame);
	}
	if (now_ns > net->now_ns)
		net->now_ns = now_ns;
}

struct link *sim_net_ready(struct sim_net *net)
{
	struct sim_link *link = net->ready;

	if (!link)
		return NULL;
	net->ready = link->ready_next;
	link->is_ready = false;
	return &link->base;
}

void sim_net_addr(struct sim_net *net, uint32_t node, struct link_addr *out)
{
	*out = (struct link_addr){.bytes = 2 * sizeof(uint64_t)};
	memcpy(out->data, &(uint32_t[2]){node, 0}, sizeof(uint64_t));
	memcpy(out->data + sizeof(uint64_t), &net, sizeof(net));
}

void sim_net_counters(const struct sim_net *net, int wire, bool reverse, struct element_counters *out)
{
	element_counters(&net->wires[2 * wire + reverse]->element, out);
}

uint64_t sim_net_queue_bytes(const struct sim_net *net, int wire, bool reverse)
{
	return element_queue_bytes(&net->wires[2 * wire + reverse]->element, net->now_ns);
}

uint64_t sim_net_in_flight(const struct sim_net *net)
{
	return net->slab.items;
}

uint64_t sim_net_memory_bytes(const struct sim_net *net)
{
	return net->slab.chunk_bytes;
}

uint64_t sim_net_hash(const struct sim_net *net)
{
	return net->hash;
}

void sim_net_filter(struct sim_net *net, sim_filter filter, void *arg)
{
	net->filter = filter;
	net->filter_arg = arg;
}
