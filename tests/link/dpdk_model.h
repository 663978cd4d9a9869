/* Two NICs that are not there, joined by a wire: DPDK's null ports, which say that they can do what no driver here can, and do it in software as DPDK's documents say:
 * UDP segmentation and checksums (rte_mbuf_core.h), times of sending and arrival, receiving into two buffers, interrupts (rte_ethdev.h), rules that bring UDP ports to
 * queues (rte_flow.h). It shows that the link asks for these things as the documents want it, not that a device does them. Functions of DPDK are stood in for by
 * name: the program's come before the library's. */
#ifndef TESTS_LINK_DPDK_MODEL_H
#define TESTS_LINK_DPDK_MODEL_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>

enum { MODEL_LOG = 8192, MODEL_FRAME = 10240, MODEL_QUEUE = 1024, MODEL_CUTS = 4, MODEL_QUEUES = 8, MODEL_RULES = 64 };

/* A datagram as it was on the wire. */
struct model_datagram {
	uint8_t bytes[MODEL_FRAME];
	size_t n;
	unsigned chain;    /* number of the chain it was cut from; 0: it came by itself */
	bool has_stamp;
	uint64_t stamp;
};

/* How the next frames are received. cuts 0: in one buffer, or in two if the port was set up so. */
struct model_cut {
	unsigned cuts;
	size_t at[MODEL_CUTS];
	uint16_t headroom; /* in all but the first */
};

/* A rule that brings the datagrams to a UDP port to a queue. */
struct model_rule {
	bool is_used, is_ip6;
	uint16_t port, queue;
};

struct model {
	/* what it says of itself; before the link is opened */
	const char *driver;
	uint64_t tx_capa, rx_capa;
	uint16_t nb_seg_max, nb_mtu_seg_max; /* buffers of what it is given, and of a packet on the wire; 0: any number */
	bool refuses_split; /* when the queue is set up, after having offered it */
	int refuses_queues;   /* what rte_eth_rx_queue_setup returns for all but the first; 0: it takes them */
	int refuses_offloads; /* what rte_eth_dev_configure returns to who asks for segmentation or times, */
	int refuses_all;      /* and to everybody */
	bool takes_rules, refuses_rules; /* in rte_flow_create */
	uint16_t rules_max; /* it has room for; 0: MODEL_RULES */
	bool is_lost;       /* frames go nowhere but into the log */
	bool refuses_chain; /* in tx_prepare */
	/* what was asked of it */
	uint64_t tx_asked, rx_asked;
	uint16_t split_bytes, split_offset;
	struct rte_mempool *pool[2];
	unsigned chains, chain_segs_max, packet_segs_max;
	uint16_t rx_queues;
	unsigned tries; /* to configure it */
	uint64_t clock_ns[2]; /* when its clock was first and last read since it got its queues */
	struct model_rule rules[MODEL_RULES];
	/* interrupts: a descriptor a queue. armed is called when one is switched on */
	int interrupt[MODEL_QUEUES];
	bool is_on[MODEL_QUEUES];
	void (*armed)(uint16_t queue);
	/* receiving */
	struct model_cut cut;
	uint64_t stamp_ahead_ns, stamp_behind_ns;
	uint16_t id;
	struct rte_mbuf *in[MODEL_QUEUES][MODEL_QUEUE];
	size_t n_in[MODEL_QUEUES];
};

extern struct model model[2];
extern unsigned model_mbufs_most; /* in a port's pool of whole frames; 0: as many as there is memory for */
/* UDP datagrams sent by port 0. */
extern struct model_datagram model_log[MODEL_LOG];
extern size_t model_logged;

/** Takes the port's ends; after its link is open. */
void model_attach(unsigned i);
/** Puts a frame into the receive queue that a rule says, or the first, in pieces as `cut` says. */
void model_deliver(struct model *to, const uint8_t *bytes, size_t n);
extern uint64_t model_back_ns; /* the device's clock was set back by so much */
/** The device's clock at a time of ours, and back. */
uint64_t model_ticks(uint64_t ns);
uint64_t model_ns(uint64_t ticks);
uint64_t model_now_ns(void);
/** Says what was wrong and ends the program. */
void model_must(bool x, const char *what, int line);
#define MUST(x) model_must((x), #x, __LINE__)

#endif
