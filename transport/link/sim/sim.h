/* A simulated network under a virtual clock: nodes joined by wires, each direction a chain of elements (element.h). Links of it are opened through
 * link_sim_ops with link_config.net from sim_net_addr; the harness owns the clock:
 *
 *	while ((t = sim_net_next_ns(net)) ...) { sim_net_advance(net, t); while ((link = sim_net_ready(net))) step the loop of that link at t; }
 *
 * A node without a link of its own, and any node for frames to others, forwards along a shortest way: shared bottlenecks are routers. One thread for a
 * whole network. The same seed and calls give the same deliveries, bit by bit. */
#ifndef SIM_SIM_H
#define SIM_SIM_H
#include "link/link.h"
#include "link/sim/element.h"

enum {
	SIM_NODES_MAX = 65536,
	SIM_WIRES_MAX = 1 << 20,  /* directions */
	SIM_INBOX_MAX = 1 << 20,  /* frames that have arrived at a link and were not taken by rx; more are dropped (rx_dropped) */
	SIM_LENT_MAX = 1 << 16,   /* frames lent by one link; rx gives no more until rx_free */
	SIM_TX_MAX = 1024,        /* frames taken and not yet reaped */
	SIM_EXPOSED_MAX = 1 << 16, /* exposures of a link */
	SIM_WRITES_MAX = 1 << 20,  /* frames with a target of one path that are not done */
	SIM_LANES_MAX = 16,
	SIM_MTU_BYTES = 1500,
	SIM_UDP_OVERHEAD_BYTES = 28, /* an MTU counts IP and UDP headers */
};

struct sim_net;
extern const struct link_ops link_sim_ops;

/* Options of a sim link (link_config.options): "mtu=9000", and "by_ref=1": payload segments of frames without a chunk are not copied; the receiver's body
 * points into the sender's memory. That memory must then stay as it is until everything sent from it has arrived or the network is closed: not what a frame's
 * reap says, but the only way to hold 1 GB in flight without 1 GB.
 *
 * "writes=uc" or "writes=rc": direct placement (LINK_WRITES, LINK_CONNECTS) as RDMA's two services have it. uc: frames with a target are datagrams like all others
 * that put their payload into exposed memory when they arrive; one whose target does not hold is dropped (rx_dropped). rc (reliable): nothing on the link is
 * lost, late or doubled (queues hold it back, outages delay it); a write whose target does not hold breaks the connection, and so does at its own end a write
 * from memory that is not mapped, too long, or on a lane that is not there (link->trouble says so). Its payload is read as late as the contract allows: when it
 * arrives. With rc and "goback=1" writes lose packets as config.loss says, and are repeated as a card does that has a whole path in flight and goes back to what was
 * lost: each loss costs its lane a round trip in which the line carries nothing that counts. With rc "stall_ppm=" of the frames on lanes hold up their lane, and no
 * other, for "stall_ns=" ("stall_seed="). "write_bytes=" (uc 4096, rc 1048576), "lanes=1", "expose_ns=1000": how long exposing and hiding take, "expose_max=65536": so
 * many at a time. "turns=1": a path's first connection is what writes= says, each other one the other kind, where uc's frames and
 * writes are 1024 bytes at most. Both ends need the same.
 * A path connects one round trip after both ends have opened it with one token, and again one after it broke. */

/** @return 0, -TERN_EINVAL, -TERN_ENOMEM */
int sim_net_open(uint32_t nodes, uint64_t seed, struct sim_net **out);
/** Frees everything, lent frames too. Links must be closed before. Sets *net NULL. */
void sim_net_close(struct sim_net **net);
/** A wire between two nodes; several between the same two are parallel, link_path_config.spread picks one (modulo their number). Times in the configurations
 *  count from 0.
 *  @return the wire's number from 0 on, -TERN_EINVAL (see element_config_check), -TERN_ELIMIT, -TERN_ENOMEM */
int sim_net_connect(struct sim_net *net, uint32_t a, uint32_t b, const struct element_config *forward, const struct element_config *reverse);
/** The address of a node, for link_config.net and link_path_config.remote. */
void sim_net_addr(struct sim_net *net, uint32_t node, struct link_addr *out);

/** When the next frame arrives somewhere, a router included; UINT64_MAX: never. */
uint64_t sim_net_next_ns(const struct sim_net *net);
/** Delivers everything due up to now_ns. tx and rx of any link do it too. */
void sim_net_advance(struct sim_net *net, uint64_t now_ns);
/** The next link that has got frames since it was last returned here; NULL: none. */
struct link *sim_net_ready(struct sim_net *net);

/** Counters of a wire's direction: reverse is b to a. */
void sim_net_counters(const struct sim_net *net, int wire, bool reverse, struct element_counters *out);
/** Unsent bytes in a wire's queue now. */
uint64_t sim_net_queue_bytes(const struct sim_net *net, int wire, bool reverse);
/** Frames on wires, in inboxes and lent: 0 at the end of a run without leaks. */
uint64_t sim_net_in_flight(const struct sim_net *net);
/** Memory held for them. */
uint64_t sim_net_memory_bytes(const struct sim_net *net);
/** Grows with every arrival (time, nodes, length): equal for equal runs. */
uint64_t sim_net_hash(const struct sim_net *net);

/** Sees every frame a link sends, before the wire; false loses it. For tests that lose exactly this one. */
/* On a link with writes=rc false breaks the frame's connection, the frame being the first that is lost. */
typedef bool (*sim_filter)(void *arg, uint32_t from, uint32_t to, const struct frame *frame);
void sim_net_filter(struct sim_net *net, sim_filter filter, void *arg);

/** Breaks all connections between links of two nodes: everything in flight is lost, exposures are broken; they connect again after a round trip.
 *  @return how many were broken */
uint32_t sim_net_break(struct sim_net *net, uint32_t a, uint32_t b);

#endif
