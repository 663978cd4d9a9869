/* Connections of the simulator's links with LINK_CONNECTS: two paths with one token find each other, stand, break and stand again; and the timers for that. Called
 * by link.c and net.c. What frames with a target do is write.c's. */
#include <string.h>
#include "link/sim/inner.h"
#include "tern/error.h"

enum { TURN_FRAME_BYTES = 1024 };

int sim_timer_set(struct sim_net *net, enum sim_timer_kind kind, struct sim_path *path, uint32_t id, uint64_t at_ns)
{
	struct sim_timer *timer = slab_get(&net->slab, sizeof(*timer));

	if (!timer)
		return -TERN_ENOMEM;
	*timer = (struct sim_timer){.path = path, .id = id, .kind = (uint8_t)kind};
	if (line_push(&net->timers, &timer->item, at_ns, false)) {
		slab_put(&net->slab, timer, sizeof(*timer));
		return -TERN_ENOMEM;
	}
	return 0;
}

static struct sim_net *net_of(const struct sim_path *path)
{
	return ((struct sim_link *)path->base.link)->net;
}

static bool is_of(const struct line_item *item, const void *arg)
{
	const struct sim_timer *timer = (const struct sim_timer *)item;
	const struct sim_path *path = arg;

	return timer->path == path || (timer->kind == SIM_TIMER_CONNECT && timer->path == path->peer);
}

static bool is_connecting(const struct line_item *item, const void *arg)
{
	return is_of(item, arg) && ((const struct sim_timer *)item)->kind <= SIM_TIMER_BREAK;
}

static void forget_timers(struct sim_path *path, bool (*match)(const struct line_item *item, const void *arg))
{
	struct sim_net *net = net_of(path);
	struct line_item *item = line_remove(&net->timers, match, path);

	while (item) {
		struct line_item *next = item->next;
		slab_put(&net->slab, item, sizeof(struct sim_timer));
		item = next;
	}
}

/* After a round trip both stand. */
static void connect_later(struct sim_path *path)
{
	struct sim_net *net = net_of(path);
	uint32_t here = ((struct sim_link *)path->base.link)->node;
	uint64_t rtt_ns = sim_net_delay_ns(net, here, path->node, path->spread) + sim_net_delay_ns(net, path->node, here, path->spread);

	if (sim_timer_set(net, SIM_TIMER_CONNECT, path, 0, net->now_ns + rtt_ns))
		path->base.fault = path->peer->base.fault = -TERN_ENOMEM;
}

static void stand(struct sim_path *path, uint32_t epoch, uint32_t connection)
{
	path->epoch = epoch;
	path->base.connection = connection;
	path->base.is_connected = true;
	sim_net_wake(net_of(path), (struct sim_link *)path->base.link);
}

static bool has_left(const struct sim_path *path)
{
	const struct line_item *item = (const struct line_item *)((const struct sim_link *)path->base.link)->inbox;

	while (item && ((const struct sim_frame *)item)->epoch != path->fell)
		item = item->next;
	return item && path->fell;
}

/* With turns, UC's frames are as small as those over an Ethernet of 1500 bytes, where RC's stay long. */
static void set_kind(struct sim_path *path, bool is_reliable)
{
	const struct sim_link *link = (const struct sim_link *)path->base.link;
	uint32_t frame = link->mtu_bytes - SIM_UDP_OVERHEAD_BYTES;

	if (link->turns) {
		path->base.max_frame_bytes = is_reliable || frame < TURN_FRAME_BYTES ? frame : TURN_FRAME_BYTES;
		path->base.max_write_bytes = is_reliable ? link->write_bytes : path->base.max_frame_bytes;
	}
	path->base.is_reliable = is_reliable;
	path->base.packet_bytes = is_reliable ? path->base.max_frame_bytes : 0;
}

static void connected(struct sim_path *path)
{
	struct sim_net *net = net_of(path);
	const struct sim_link *link = (const struct sim_link *)path->base.link;
	uint32_t a = path->base.connection, b = path->peer->base.connection, next = (a > b ? a : b) + 1;

	if (link->turns && (has_left(path) || has_left(path->peer))) {
		connect_later(path); /* of another kind: rx has to hand out what came over the last one first */
		return;
	}
	if (link->turns) {
		set_kind(path, next % 2 == link->is_reliable);
		set_kind(path->peer, path->base.is_reliable);
	}
	net->epochs++;
	stand(path, net->epochs, next);
	stand(path->peer, net->epochs, next);
}

static void fall(struct sim_path *path)
{
	path->fell = path->epoch;
	path->epoch = 0;
	path->base.is_connected = false;
	sim_write_broken(path);
	sim_net_wake(net_of(path), (struct sim_link *)path->base.link);
}

static bool is_closing(const struct link *base)
{
	const struct sim_link *link = (const struct sim_link *)base;

	return link->net->nodes[link->node].link != link;
}

static bool fits(const struct sim_path *acceptor, const struct sim_path *initiator)
{
	uint32_t acceptor_node = ((struct sim_link *)acceptor->base.link)->node, initiator_node = ((struct sim_link *)initiator->base.link)->node;

	if (is_closing(acceptor->base.link) || is_closing(initiator->base.link))
		return false;
	return acceptor->is_acceptor && !initiator->is_acceptor && initiator->node == acceptor_node &&
	       (acceptor->is_any || acceptor->node == initiator_node) && !memcmp(acceptor->token, initiator->token, LINK_TOKEN_BYTES);
}

/* Finds the other end among those that wait, or waits. */
static void find_peer(struct sim_path *path)
{
	struct sim_net *net = net_of(path);
	struct sim_path **at = &net->waiting, *peer;

	while (*at && !fits(*at, path) && !fits(path, *at))
		at = &(*at)->waiting_next;
	if (!(peer = *at)) { /* the last: who waits longest is found first */
		path->waiting_next = NULL;
		*at = path;
		return;
	}
	*at = peer->waiting_next;
	path->peer = peer;
	peer->peer = path;
	struct sim_path *acceptor = path->is_acceptor ? path : peer, *initiator = acceptor->peer;
	acceptor->spread = initiator->spread;
	sim_path_move(acceptor, ((struct sim_link *)initiator->base.link)->node, initiator->own_port);
	sim_path_move(initiator, initiator->node, acceptor->own_port);
	connect_later(initiator);
}

void sim_connect_open(struct sim_path *path, const struct link_path_config *config)
{
	const struct sim_link *link = (const struct sim_link *)path->base.link;

	memcpy(path->token, config->token, LINK_TOKEN_BYTES);
	path->is_acceptor = config->is_acceptor;
	path->is_any = path->node == SIM_ANYONE;
	path->base.max_write_bytes = link->write_bytes;
	path->base.lanes = link->lanes;
	set_kind(path, link->is_reliable);
	find_peer(path);
}

void sim_connect_close(struct sim_path *path)
{
	struct sim_net *net = net_of(path);
	struct sim_path *peer = path->peer;
	uint32_t here = ((struct sim_link *)path->base.link)->node;

	forget_timers(path, is_of);
	for (struct sim_path **at = &net->waiting; *at; at = &(*at)->waiting_next)
		if (*at == path) {
			*at = path->waiting_next;
			break;
		}
	if (peer) {
		uint64_t delay_ns = sim_net_delay_ns(net, here, path->node, path->spread);
		peer->peer = NULL;
		if (!peer->epoch)
			find_peer(peer);
		else if (sim_timer_set(net, SIM_TIMER_BREAK, peer, 0, net->now_ns + delay_ns))
			peer->base.fault = -TERN_ENOMEM;
	}
	sim_write_forget(path);
}

void sim_connect_break(struct sim_path *path)
{
	if (!path->epoch)
		return;
	forget_timers(path, is_connecting);
	fall(path);
	if (!path->peer) {
		find_peer(path);
		return;
	}
	fall(path->peer);
	connect_later(path);
}

uint32_t sim_net_break(struct sim_net *net, uint32_t a, uint32_t b)
{
	struct sim_link *link = a < net->nodes_n ? net->nodes[a].link : NULL;
	uint32_t n = 0;

	for (uint32_t i = 0; link && i < link->buckets_n; i++)
		for (struct sim_path *path = link->buckets[i]; path; path = path->next)
			if (path->epoch && path->peer && path->node == b) { /* without a peer it breaks anyway */
				sim_connect_break(path);
				n++;
			}
	return n;
}

bool sim_connect_arrive(struct sim_net *net, struct sim_link *link, struct sim_frame *frame)
{
	struct sim_path *path = sim_path_find(link, frame->to_port, frame->from, frame->from_port);
	struct sim_link *other = net->nodes[frame->from].link;
	struct sim_path *from = other ? sim_path_find(other, frame->from_port, frame->to, frame->to_port) : NULL;
	bool keep = false;

	if (!path || path->epoch != frame->epoch)
		link->base.rx_dropped++;
	else if (frame->kind == SIM_BYTES)
		keep = true;
	else if (from && from->epoch == frame->epoch)
		keep = sim_write_arrive(link, path, from, frame);
	if (!keep)
		sim_frame_free(net, frame);
	return keep;
}

void sim_timer_fire(struct sim_net *net)
{
	struct sim_timer *item = (struct sim_timer *)line_pop(&net->timers), timer = *item;

	net->now_ns = timer.item.time_ns;
	slab_put(&net->slab, item, sizeof(*item));
	if (timer.kind == SIM_TIMER_CONNECT)
		connected(timer.path);
	else if (timer.kind == SIM_TIMER_BREAK)
		sim_connect_break(timer.path);
	else
		sim_write_timer((struct sim_link *)timer.path->base.link, timer.id, timer.kind);
}
