/* What net.c (topology, clock, delivery) and link.c (the link's functions) of the simulator share. Nobody else includes it. */
#ifndef SIM_INNER_H
#define SIM_INNER_H
#include "link/sim/line.h"
#include "link/sim/sim.h"
#include "link/sim/slab.h"

#define SIM_NO_POS UINT32_MAX

/* A datagram on its way. data holds what was copied; body, if any, follows it on the wire. When pieces > 0 data begins with that many struct frame_seg in
 * wire order and is put together at rx. */
struct sim_frame {
	struct line_item item;
	uint8_t *body;
	uint32_t head_bytes, body_bytes;
	uint32_t from, to;           /* nodes */
	uint32_t from_port, to_port; /* 0: the link's shared one, otherwise a path's own */
	uint16_t spread;
	uint8_t ce, pieces;
	uint32_t alloc_bytes;
	_Alignas(8) uint8_t data[];
};

struct sim_wire { /* one direction */
	struct element element;
	struct line line;
	uint64_t next_ns;  /* line's, as the event heap knows it */
	uint32_t heap_pos; /* SIM_NO_POS: not in the heap */
	uint32_t from, to;
	uint32_t parallel; /* at the first of a group in net->order: how many wires join the same two nodes */
};

struct sim_link;

struct sim_node {
	struct sim_link *link; /* NULL: nobody, or a router */
	uint32_t order_from, order_to; /* its outgoing wires in net->order */
};

struct sim_net {
	struct sim_node *nodes;
	struct sim_wire **wires;  /* 2 * i: a to b, 2 * i + 1: back */
	uint32_t *heap;           /* of wires by (next_ns, number) */
	uint32_t *order;          /* wires by (from, to, number) */
	uint32_t **route;         /* [to][at]: place in order of the first wire of the group to take; rows made when first needed */
	uint32_t *queue;          /* of route's search */
	uint32_t nodes_n, wires_n, wires_max, heap_n;
	bool routed;              /* order is up to date */
	uint64_t now_ns, seed, hash;
	struct sim_link *ready, *ready_last;
	struct slab slab;
	sim_filter filter;
	void *filter_arg;
};

/* As UDP's: a path is a remote address and a local port. Paths of a listening link leave from the shared port 0 unless another path to that address has it. */
struct sim_path {
	struct link_path base;
	struct sim_path *next; /* in a bucket */
	uint32_t node, port, own_port;
	uint16_t spread;
};

struct sim_link {
	struct link base;
	struct sim_net *net;
	struct sim_link *ready_next;
	bool is_ready, by_ref, listening;
	uint32_t node, mtu_bytes;
	struct sim_frame *inbox, *inbox_last;
	uint32_t inbox_n, lent_n;
	struct sim_path **buckets; /* by own port and remote address; a power of two of them, at least as many as paths */
	uint32_t buckets_n, paths_n, last_port;
	uint32_t taken_at, taken_n; /* ring of frames to be reaped */
	struct frame *taken[SIM_TX_MAX];
};

/** Hands a frame to the wire from node at towards frame->to, or loses it. Takes the frame. */
void sim_net_send(struct sim_net *net, uint32_t at, struct sim_frame *frame);
void sim_frame_free(struct sim_net *net, struct sim_frame *frame);
/** @return whether there is a way between two nodes */
bool sim_net_reaches(struct sim_net *net, uint32_t from, uint32_t to);

#endif
