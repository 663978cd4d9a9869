/* What net.c (topology, clock, delivery), link.c (the link's functions), connect.c (connections) and write.c (direct placement) of the simulator share.
 * Nobody else includes it. */
#ifndef SIM_INNER_H
#define SIM_INNER_H
#include "link/sim/line.h"
#include "link/sim/sim.h"
#include "link/sim/slab.h"

#define SIM_NO_POS UINT32_MAX
#define SIM_ANYONE UINT32_MAX /* node of an acceptor's path that nobody has reached */

enum sim_kind {
	SIM_BYTES, /* a datagram */
	SIM_WRITE, /* a frame with a target: data begins with struct sim_write */
	SIM_ACK,   /* reliable: tells the writer that one has landed; data is struct sim_write */
};

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
	uint8_t kind;      /* enum sim_kind */
	bool is_reliable, goes_back;
	uint8_t lane;
	uint64_t stall_ns; /* its lane waits for so long, as a queue pair does that repeats a packet */
	uint16_t packets;  /* on the wire; each has its overhead */
	uint32_t epoch;    /* of the connection, or 0: the link makes none */
	uint32_t alloc_bytes;
	_Alignas(8) uint8_t data[];
};

struct sim_write {
	struct frame_target target;
	uint64_t number, seq; /* seq: which of its path's writes */
	uint32_t segs;        /* the payload as a list of them follows, in the sender's memory; 0: a copy of it */
	uint32_t lane;
};

enum sim_timer_kind {
	SIM_TIMER_CONNECT, /* of path and its peer */
	SIM_TIMER_BREAK,   /* path learns that its peer closed */
	SIM_TIMER_EXPOSED, /* exposure with key id of path's link */
	SIM_TIMER_HIDDEN,
};

struct sim_timer {
	struct line_item item;
	struct sim_path *path;
	uint32_t id;
	uint8_t kind; /* enum sim_timer_kind */
};

/* Items of one size, first in, first out. Never fails to take what was reserved. */
struct sim_fifo {
	uint8_t *items;
	uint32_t at, end, max;
};

struct sim_mem { /* of mem_map */
	uint8_t *addr;
	uint64_t bytes;
	uint32_t key; /* 0: free */
	uint32_t next_free;
};

struct sim_exposure {
	struct sim_path *path; /* NULL: free */
	struct link_expose what;
	uint32_t key, next_free;
	uint8_t lane;
	uint8_t state; /* enum link_exposed_state; 0: not yet exposed */
	bool is_hiding;
};

struct sim_wire { /* one direction */
	struct element element;
	struct line line;
	uint64_t back_ns; /* when the line of those that go back is free again */
	uint64_t lane_ns; /* the same for lanes, which do not wait for the others */
	uint64_t reliable_ns; /* arrival of the last reliable frame: they keep their order when the delay falls */
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
	struct line timers;       /* of struct sim_timer */
	struct sim_path *waiting; /* opened, without a peer yet */
	struct sim_mem *mem;      /* keys hold in the whole network */
	uint32_t mem_n, mem_max, mem_free, epochs;
	sim_filter filter;
	void *filter_arg;
};

/* As UDP's: a path is a remote address and a local port. Paths of a listening link leave from the shared port 0 unless another path to that address has it. */
struct sim_path {
	struct link_path base;
	struct sim_path *next; /* in a bucket */
	uint32_t node, port, own_port;
	uint16_t spread;
	/* links with LINK_CONNECTS */
	bool is_acceptor, is_any; /* is_any: from wherever */
	uint8_t token[LINK_TOKEN_BYTES];
	struct sim_path *peer, *waiting_next;
	uint32_t epoch;          /* of the connection that stands, the same at both ends; 0: none */
	uint32_t fell;           /* of the one before */
	struct sim_fifo writing; /* reliable: numbers not yet done */
	uint64_t written, done;  /* how many were sent, how many are done */
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
	bool is_writing, is_reliable; /* options writes=uc, writes=rc: of a path's first connection */
	bool turns;     /* option turns=1: each other connection is of the other kind */
	bool goes_back; /* option goback=1 */
	uint64_t stall_ppm, stall_ns, stall_rng; /* of frames with a lane, with writes=rc */
	uint32_t lanes, write_bytes, writes_n; /* writes_n: sent and not yet told by done */
	uint64_t expose_ns, expose_max;
	struct sim_exposure *exposures;
	uint32_t exposures_n, exposures_max, exposures_free, exposed_n; /* exposed_n: in use */
	struct sim_fifo told, exposed; /* struct link_done, struct link_exposed */
	uint32_t taken_at, taken_n; /* ring of frames to be reaped */
	struct frame *taken[SIM_TX_MAX];
};

/** Hands a frame to the wire from node at towards frame->to, or loses it. Takes the frame. */
void sim_net_send(struct sim_net *net, uint32_t at, struct sim_frame *frame);
void sim_frame_free(struct sim_net *net, struct sim_frame *frame);
/** @return whether there is a way between two nodes */
bool sim_net_reaches(struct sim_net *net, uint32_t from, uint32_t to);

struct sim_frame *sim_frame_new(struct sim_net *net, size_t data_bytes);
/** The way's delay now, without queues. */
uint64_t sim_net_delay_ns(struct sim_net *net, uint32_t from, uint32_t to, uint16_t spread);
/** sim_net_ready will return it. */
void sim_net_wake(struct sim_net *net, struct sim_link *link);
struct sim_path *sim_path_find(const struct sim_link *link, uint32_t own_port, uint32_t node, uint32_t port);
/** Gives a path another remote address. */
void sim_path_move(struct sim_path *path, uint32_t node, uint32_t port);

/** connect.c. @return 0, -TERN_ENOMEM */
int sim_timer_set(struct sim_net *net, enum sim_timer_kind kind, struct sim_path *path, uint32_t id, uint64_t at_ns);
/** Runs the earliest. */
void sim_timer_fire(struct sim_net *net);
void sim_connect_open(struct sim_path *path, const struct link_path_config *config);
/** Before the path is freed: ends everything that knows it. */
void sim_connect_close(struct sim_path *path);
/** Both ends, at once: what is in flight is lost; connects again. */
void sim_connect_break(struct sim_path *path);
/** @return whether the frame goes into link's inbox; otherwise it is freed */
bool sim_connect_arrive(struct sim_net *net, struct sim_link *link, struct sim_frame *frame);

/** write.c. Options of a link that writes. @return NULL, or what is wrong in words */
const char *sim_write_open(struct sim_link *link, const char *options);
void sim_write_fini(struct sim_link *link);
void sim_write_lane(struct sim_link *link, struct sim_frame *frame, uint8_t lane);
/** @return whether tx may take the frame now */
bool sim_write_ready(struct sim_link *link, const struct frame *tx);
void sim_write_send(struct sim_link *link, const struct frame *tx);
/** A frame with a target, or its acknowledgement, of a connection that stands. @return whether it goes into the inbox; otherwise the caller frees it */
bool sim_write_arrive(struct sim_link *link, struct sim_path *path, struct sim_path *from, struct sim_frame *frame);
/** The connection is gone: what was written is lost, what was exposed is not. */
void sim_write_broken(struct sim_path *path);
/** The path goes: events of it too. */
void sim_write_forget(struct sim_path *path);
/** @param key  of the exposure */
void sim_write_timer(struct sim_link *link, uint32_t key, enum sim_timer_kind kind);
int sim_mem_map(struct link *link, const struct mem_what *what, uint32_t *key, char *why, size_t why_bytes);
void sim_mem_unmap(struct link *link, uint32_t key);
int sim_expose(struct link *link, struct link_path *path, const struct link_expose *what, uint32_t *id);
void sim_hide(struct link *link, uint32_t id);
size_t sim_exposed(struct link *link, struct link_exposed *out, size_t n, uint64_t now_ns);
size_t sim_done(struct link *link, struct link_done *out, size_t n, uint64_t now_ns);

/** @return the number behind "key=" in a query string, or otherwise */
uint64_t sim_option(const char *options, const char *key, uint64_t otherwise);

#endif
