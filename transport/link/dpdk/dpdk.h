/* Inside of the dpdk link, shared by its files; nothing outside transport/link/dpdk includes it. The only files that know DPDK are those that include this one.
 *   dpdk.c   the link_ops: open, paths, wait          eal.c   DPDK's environment, once a process, and its log
 *   port.c   one Ethernet port: found, checked, given back        start.c   what it is started with        tx.c, rx.c   frames <-> mbufs
 *   share.c  the port's links: who reads it, who gets what        steer.c   links that have a receive queue of their own
 *   memif.c  memif's own ways      host.c   the port's place in the network, which its links agree on
 *   mem.c    memory that a DMA port may read          offload.c   what the port does beyond moving frames
 *   net.h, twin.h   the IP host behind the port, ticks.h its clock; they know no DPDK */
#ifndef LINK_DPDK_DPDK_H
#define LINK_DPDK_DPDK_H
#include <pthread.h>
#include <stdatomic.h>
#include <rte_ethdev.h>
#include <rte_flow.h>
#include <rte_mbuf.h>
#include <rte_ring.h>
#include "link/dpdk/net.h"
#include "link/dpdk/net_known.h"
#include "link/dpdk/ticks.h"
#include "link/dpdk/twin.h"
#include "link/link.h"
#include "link/log.h"

enum {
	DPDK_PATHS_MAX = 16384,
	DPDK_BUCKETS = 4096,   /* of the table of paths, a power of two */
	DPDK_BURST = 64,       /* mbufs to or from the port in one call */
	DPDK_RING = 1024,      /* descriptors wanted each way */
	DPDK_RING_LEAST = 128,
	DPDK_COPIES_RING = 512, /* to send, at most, where another process gets copies of ours */
	DPDK_LOCAL_BYTES = 2 << 20, /* of frames in a ring between processes */
	DPDK_TAKE_BYTES = 256 << 10, /* of frames, about, taken at once where the driver copies them with our core */
	DPDK_SLOTS = 8192,     /* frames whose memory the port may still read */
	DPDK_PARKED_MAX = 256, /* frames that wait for a neighbour, */
	DPDK_PARKED_PATH = 32, /* of one path */
	DPDK_DONE_MAX = 16384, /* taken and not yet reaped, a power of two */
	DPDK_LENT_MAX = 4096,  /* received and not yet given back, by all links of a port */
	DPDK_LINKS_MAX = 8,    /* of a port */
	DPDK_QUEUES = 4,       /* to receive, where the port takes rules, unless queues= says otherwise; up to DPDK_LINKS_MAX */
	DPDK_RULES_MAX = 256,  /* UDP ports of a link that rules bring to its queue; the others' frames are handed to it */
	DPDK_REST_TURNS = 16,  /* a link with its own queue looks at the common one so often: each so many looks, or when it has nothing, */
	DPDK_OWN_TURNS = 4,    /* and at its own before all else */
	DPDK_HANDED_MAX = 2048, /* read by one link of a port for the others, and not yet taken by them, a power of two */
	DPDK_INLINE_BYTES = 256, /* frames up to this size are copied behind their headers: cheaper than a second mbuf */
	DPDK_RUN_BYTES = 65535 - NET_HEADER_MAX, /* of frames that leave behind one header, to be taken apart by the port */
	DPDK_RUN_SEGS = 128,
	DPDK_SPLIT_MTU = 4096, /* frames from this size on are received in two buffers, */
	DPDK_SPLIT_HEAD = 32,  /* with the BULK header (wire.h) of theirs in the first */
	DPDK_ROOM_BESIDE = RTE_PKTMBUF_HEADROOM + NET_ETHER_BYTES + NET_VLAN_BYTES + RTE_ETHER_CRC_LEN, /* of a whole frame's mbuf, beside the MTU */
	DPDK_ROOM_STEP = 128, /* in which NICs (i40e) count a buffer */
	DPDK_HEAD_ROOM = RTE_PKTMBUF_HEADROOM + NET_HEADER_MAX + DPDK_INLINE_BYTES,
	DPDK_MAPS_MAX = 1024,
	DPDK_BUSY_NS = 2000000,     /* after the last frame: polled without a pause */
	DPDK_NAP_MIN_NS = 100000,   /* then the pauses grow to the larger one */
	DPDK_NAP_MAX_NS = 1000000,
	DPDK_DOZE_NS = 100000000,   /* with an interrupt, where the peer is another process */
	DPDK_STATE_NS = 1000000,    /* how often the port is asked whether it is up */
	DPDK_TWIN_NS = 50000,  /* how often the kernel's frames are fetched: it costs a system call */
	DPDK_PART_NS = 20000000,       /* closing with a twin: at least so long its frames still pass, */
	DPDK_PART_QUIET_NS = 5000000,  /* then until nothing has for this long, */
	DPDK_PART_MAX_NS = 100000000,  /* but not longer */
	DPDK_TWIN_FRAMES = 32, /* at a time */
	DPDK_KICK_NS = 100000,      /* a driver that has to be given a frame for it is asked so often at most */
	DPDK_FLUSH_NS = 20000,      /* how long finished frames may stay with the port before it is asked for them */
};

/* Who reads a frame's memory when it leaves. */
enum dpdk_reader {
	DPDK_READ_COPY,   /* nobody but us: one copy into an mbuf of the port's own pool, counted */
	DPDK_READ_CPU,    /* the driver, with the CPU: any memory */
	DPDK_READ_DEVICE, /* a device: memory that was mapped for it */
};

/* What is known of a driver beyond what it says itself; port.c has the table. */
struct dpdk_driver {
	const char *name;
	uint8_t reader;
	bool is_local;    /* frames stay in this host's memory: an IPv4 checksum of UDP protects nothing */
	bool is_shared;   /* the kernel gets each frame too, and answers where it has our address */
	bool is_kernel;   /* frames come from the kernel, which leaves checksums unfinished when it believes that hardware follows */
	bool has_interrupt; /* on receive */
	bool copies_in;   /* what comes, with the core that looks */
	bool in_interrupt;     /* served by the interrupt thread without a lock: closed there */
	const char *buffer;    /* its argument that says how large one buffer is, */
	uint32_t buffer_bytes; /* without it; a frame must fit one. 0: no such limit */
	uint16_t buffer_front; /* of each buffer, which is not for the frame */
	uint32_t block_bytes;  /* in which such buffers lie; an mbuf must hold one of those, however small the MTU. 0: neither */
	uint16_t own_bytes;    /* of each mbuf's room, kept by it or the kernel (XDP_PACKET_HEADROOM); */
	bool in_page;          /* an mbuf must lie in a page, with its headers */
	bool buffer_given;     /* then the MTU is what fits, unless another is wanted */
	bool any_mtu;     /* takes what fits its buffers, whatever MTU it was told */
	bool stays;       /* does not let go of its device when it is closed: stopped instead, and started for the next link of this process */
	bool one_queue;   /* a transmit queue beyond the first reaches nobody: its other end reads each of them by itself */
	bool pairs;       /* as many transmit queues as receive queues, or none at all */
	uint8_t queues_max; /* to receive; 0: what it says itself */
	bool keeps;       /* without RSS, what no rule is for comes on queue 0; */
	bool spreads;     /* or on any receive queue, but for a last rule for it */
};

/* Whoever takes it may do one thing alone, for as long as one call of the driver takes. Who comes second does something else meanwhile: nobody waits, but
 * where links are opened and closed, and in DPDK's interrupt thread. */
struct dpdk_token {
	_Alignas(RTE_CACHE_LINE_SIZE) atomic_bool is_taken;
};

static inline bool dpdk_token_try(struct dpdk_token *t)
{
	/* T0 pairs with T1: what the last holder did is seen */
	return !atomic_load_explicit(&t->is_taken, memory_order_relaxed) && !atomic_exchange_explicit(&t->is_taken, true, memory_order_acquire);
}

static inline void dpdk_token_give(struct dpdk_token *t)
{
	atomic_store_explicit(&t->is_taken, false, memory_order_release); /* T1 */
}

struct dpdk_port {
	uint16_t id;
	char name[RTE_ETH_NAME_MAX_LEN];
	struct dpdk_driver driver;
	struct rte_device *device;
	uint64_t tx_offloads, rx_offloads; /* switched on */
	uint32_t mtu_bytes;
	uint16_t tx_ring, rx_ring;
	uint16_t rx_take;      /* frames taken at once */
	uint16_t tx_queues, rx_queues;
	uint16_t tx_queue;     /* this link's */
	struct rte_flow *rest; /* brings what no other rule is for to queue 0; NULL: it comes there by itself */
	uint64_t owner;        /* of rte_eth_dev_owner_set */
	bool is_ours;          /* probed by this link: removed with it */
	bool is_started;
	uint16_t run_segs;     /* of a run of frames that the port takes apart; 1: none, but it sends at a time; 0: nothing of both */
	uint16_t frame_segs;   /* mbufs that a device takes for one frame on the wire */
	uint16_t split_bytes;  /* of a received frame, in a buffer of their own; 0: all of it is in one */
	uint64_t rx_stamp, tx_stamp; /* flags of mbufs with the device's time; 0: it gives and wants none */
	int stamp_at;          /* the dynamic field that it is in */
	struct rte_ether_addr mac;
	struct rte_mempool *data, *heads; /* whole frames; headers, and mbufs over memory of others */
};

struct dpdk_options {
	char dev[192], eal[256], host_if[16];
	struct net_config net;
	uint16_t queues;    /* to receive; 0: DPDK_QUEUES */
	uint32_t mtu_bytes; /* asked for; 0: the interface's, as far as the port takes it, */
	uint32_t host_mtu_bytes; /* 0: the port's */
	uint8_t dscp;
	bool ecn;
	bool twin;          /* wanted, where the kernel does not have our address */
	bool is_own_if;     /* host_if is how the kernel sees the port */
	uint8_t mac[NET_MAC_BYTES]; /* of host_if, where it is another */
};

struct dpdk_path {
	struct link_path base;
	struct net_flow flow;
	struct dpdk_path *next; /* in its bucket */
	uint32_t index;         /* in dpdk_link.paths */
	uint32_t bucket;
	uint16_t port;          /* ours */
	int reserve_fd;         /* the kernel's socket that keeps the port, -1: none */
	uint16_t parked;        /* in dpdk_link.parked */
	struct net_known known; /* what comes on it */
};

/* A frame whose memory mbufs point to. */
struct dpdk_slot {
	struct rte_mbuf_ext_shared_info shared;
	struct dpdk_link *link;
	struct frame *frame;
	struct dpdk_slot *next;
};

/* Mbufs of one pool, ready to be filled. */
struct dpdk_stock {
	unsigned n;
	struct rte_mbuf *mbuf[DPDK_BURST];
};

/* An open port and its links. What changes while they run is said with each member; share_lock is share.c's. */
struct dpdk_share {
	struct dpdk_token rx;                      /* reading the port, and giving others theirs */
	struct dpdk_token tx[DPDK_LINKS_MAX];      /* a transmit queue each */
	struct dpdk_link *link[DPDK_LINKS_MAX];    /* under share_lock and rx */
	_Atomic uint32_t links;
	_Atomic uint8_t owner[65536];              /* of each UDP port: the link's slot plus one, 0: nobody */
	bool is_stopped;                           /* for want of a peer: bursts are not for it; under rx and tx */
	unsigned armed;                            /* links that sleep by the port's interrupt; under rx */
	struct dpdk_port port;
	struct dpdk_options options;               /* of the first link */
	struct net_config net;                     /* of all */
	struct twin twin;                          /* fd -1: none. Whoever reads the port, or has time, serves it */
	struct dpdk_link *leftover;                /* closed, and the port may still read memory of theirs */
	struct dpdk_memif *memif;                  /* memif.c's, NULL: another driver */
	struct dpdk_link *reader[DPDK_LINKS_MAX];  /* of each receive queue but the first, NULL: nobody; under share_lock */
	char one_why[128];                         /* why there is one receive queue; said once, when a second link comes: then "" */
};

/* Brings the datagrams of a UDP port to a receive queue. */
struct dpdk_rule {
	uint16_t port;
	struct rte_flow *flow[2]; /* IPv4, IPv6; NULL: no address of it */
};

struct dpdk_link {
	struct link base;
	struct dpdk_port port;     /* of the share, but for what is this link's own */
	struct dpdk_share *share;
	uint8_t slot;              /* in share->link */
	struct rte_ring *handed;   /* from whoever read the port */
	bool in_handed;            /* `in` came from there */
	uint16_t rx_queue;         /* its own; 0: none, it reads the common one as all may */
	uint32_t turn;             /* looks, if it has one */
	atomic_int sleep;          /* enum share_sleep */
	int wake_fd, set_fd;       /* to wake this link; both it and the port's interrupt, -1: not made yet */
	int told_fd;               /* which of them the last arming gave */
	struct dpdk_link *leftover;
	struct dpdk_options options;
	struct net_host host;
	uint64_t twin_ns;    /* last look at it */
	bool listening;
	uint16_t listen_port;
	int reserve_fd;
	uint64_t now_ns;
	/* tx */
	struct dpdk_slot *slots, *free_slot;
	uint32_t n_free_slots;
	struct dpdk_stock heads, data;
	struct rte_mbuf *hold[DPDK_BURST]; /* taken, the port's ring was full */
	struct dpdk_path *hold_path[DPDK_BURST];
	uint16_t n_hold;
	struct frame *parked[DPDK_PARKED_MAX]; /* taken, their neighbour is not known yet; by age */
	uint16_t n_parked;
	struct frame **done; /* ring of DPDK_DONE_MAX */
	uint32_t done_head, done_tail;
	uint32_t out;        /* taken and not reaped */
	uint64_t asked_ns;   /* when the port was last asked for finished mbufs */
	uint64_t kick_ns;    /* when it was last given a frame for that */
	uint16_t ip_id;
	bool is_up;
	uint64_t state_ns;   /* when to look again */
	struct ticks ticks;  /* the port's clock; due_ns UINT64_MAX: it is not looked at */
	uint64_t departs;    /* the latest time given to the port, in its ticks, */
	uint64_t arrived_ns; /* and taken from it */
	/* rx */
	struct rte_mbuf *in[DPDK_BURST];
	uint16_t in_at, in_n;
	uint32_t lent;
	uint64_t heard_ns;
	struct dpdk_path *last;
	struct dpdk_path **bucket;
	struct dpdk_path **paths;
	uint32_t n_paths;
	uint64_t own_frames, handed_frames; /* read from rx_queue; read by others for this link */
	bool is_armed;       /* counted in share->armed */
	bool is_own_armed;   /* the interrupt of rx_queue is on */
	bool dozes;          /* nobody wakes it for the common queue: others are awake, who look at it */
	bool wakes;          /* the last arming gave a descriptor */
	/* of rx_queue; not touched for frames */
	bool is_unruled;     /* a port without a rule was told of */
	uint16_t n_rules;
	struct dpdk_rule rules[DPDK_RULES_MAX]; /* in no order */
};

/* eal.c */
/**
 * Starts DPDK's environment unless it runs already, ours or the host program's.
 * @param args  blank- or comma-separated, "" for what TERN_DPDK_EAL says
 * @return 0, -TERN_EIO with words in config->error
 */
int dpdk_eal_start(const struct link_config *config, const char *args);
/** DPDK's log goes to this link from now on / no longer. */
void dpdk_eal_log(struct dpdk_link *l, bool on);
/** The last line DPDK has logged as an error, for messages; "" if none since the last call. */
void dpdk_eal_words(char *out, size_t bytes);
/** All lines of this log type come to dpdk_memif_heard, also where the host program has started DPDK; on and off in pairs, one at a time. */
void dpdk_eal_overhear(const char *type, bool on);
/** The calling thread gets DPDK's per-thread caches, if there is room; once a thread, cheap afterwards. */
void dpdk_eal_thread(void);
#define dpdk_log(l, level, ...) link_log(&(l)->base, level, __VA_ARGS__)

/* share.c */
/** Opens the port that the options name, or joins those who have it open; then what is the network's: addresses, twin, host.
 *  @return 0, -TERN_EADDR, -TERN_EIO, -TERN_ENOMEM, -TERN_ELIMIT, words in config->error */
int dpdk_share_open(struct dpdk_link *l, const struct link_config *config);
/** Leaves the port; the last one closes it. @return false: the port may still read memory of this link, which is freed with the port */
bool dpdk_share_close(struct dpdk_link *l);
/** Mbufs for this link into l->in: what others have read for it, otherwise from the port. @return how many */
uint16_t dpdk_share_rx(struct dpdk_link *l);
/** A UDP port becomes this link's. @return false: it is another's, or this link's already */
bool dpdk_share_take(struct dpdk_link *l, uint16_t port);
void dpdk_share_give(struct dpdk_link *l, uint16_t port);
/** From now on others wake this link by its descriptor when they have something for it. @return false: they have already */
bool dpdk_share_arm(struct dpdk_link *l);
/** The port's interrupt is switched on, if it has one. @return a descriptor that tells of it, and of what others have for this link; -1: there is none, or another link
 *  is at the port just now; -2: frames are there already */
int dpdk_share_interrupt(struct dpdk_link *l);
/** Awake again. */
void dpdk_share_disarm(struct dpdk_link *l);
/** Sends on this link's queue. @return how many the port took; 0 also when another link is at the queue now */
static inline uint16_t dpdk_share_tx(struct dpdk_link *l, struct rte_mbuf **m, uint16_t n)
{
	struct dpdk_token *t = &l->share->tx[l->port.tx_queue];
	if (!dpdk_token_try(t))
		return 0;
	uint16_t sent = l->share->is_stopped ? 0 : rte_eth_tx_burst(l->port.id, l->port.tx_queue, m, n);
	dpdk_token_give(t);
	return sent;
}
/** Makes the port give back what it has sent. */
void dpdk_share_clean(struct dpdk_link *l);
/** How many received frames a link may hold. */
static inline uint32_t dpdk_share_lent_max(const struct dpdk_link *l)
{
	return DPDK_LENT_MAX / atomic_load_explicit(&l->share->links, memory_order_relaxed);
}

/* host.c */
/** The first link's options become the port's; the kernel gets an interface, if it should. @return 0, -TERN_EADDR, -TERN_EIO, words in config->error */
int dpdk_host_first(struct dpdk_link *l, const struct link_config *config);
/** A further link takes part in what the first has said. @return 0, -TERN_EADDR, words in config->error */
int dpdk_host_join(struct dpdk_link *l, const struct link_config *config);

/* steer.c */
/** How many receive queues the port is to have: one where it cannot be told what goes where, with the reason in share->one_why. */
uint16_t dpdk_steer_queues(struct dpdk_link *l, const struct rte_eth_dev_info *info);
/** Says it where fewer queues than asked for are open. */
void dpdk_steer_tell(struct dpdk_link *l);
/** Why the port has one queue. */
void dpdk_steer_one(struct dpdk_link *l, const char *why);
/** After it is started: tries rules in earnest. @return false: they are refused */
bool dpdk_steer_open(struct dpdk_link *l);
/** A link gets a queue, if one is free; and gives it back. Under share_lock. */
void dpdk_steer_enter(struct dpdk_link *l);
void dpdk_steer_leave(struct dpdk_link *l);
/** A UDP port of this link's, which has a queue: its frames come there from now on; or, without room for a rule, as everybody's. */
void dpdk_steer_add(struct dpdk_link *l, uint16_t port);
void dpdk_steer_remove(struct dpdk_link *l, uint16_t port);

/* memif.c */
/** A memif port is about to start: it is guarded from now on. @return 0, -TERN_ENOMEM */
int dpdk_memif_open(struct dpdk_link *l);
void dpdk_memif_close(struct dpdk_share *s);
/** DPDK logs something; called before the line is passed on, in the thread that says it. */
void dpdk_memif_heard(void);
/** The line is about one of many tries to connect: no news. */
bool dpdk_memif_is_trying(void);
/** Connects again where the peer is gone. */
void dpdk_memif_tend(struct dpdk_link *l, uint64_t now_ns);
/** @return a value of DPDK's device arguments "key=value,...", behind a name or not, *bytes long; NULL: not there */
const char *dpdk_port_arg(const char *args, const char *key, size_t *bytes);
/** After a device is made by its arguments: the listening socket stays. */
void dpdk_memif_keep(const char *dev);
/** What to do where it could not be made, "" if nothing is known. */
void dpdk_memif_remedy(const char *dev, char *out, size_t bytes);

/* dpdk.c */
void dpdk_free(struct dpdk_link *l);

/* port.c */
/** Finds or attaches the port that the options name, configures and starts it. @return 0, -TERN_EADDR, -TERN_EIO, -TERN_ENOMEM, words in config->error */
int dpdk_port_open(struct dpdk_link *l, const struct link_config *config);
void dpdk_port_close(struct dpdk_link *l);

/* start.c */
/** Configures and starts a port that was found, its MTU settled, with what it offers; without what it then refuses. @return 0, -TERN_EADDR, -TERN_EIO, -TERN_ENOMEM,
 *  words in config->error */
int dpdk_port_start(struct dpdk_link *l, const struct rte_eth_dev_info *info, uint16_t mtu, const struct link_config *config);
/** What DPDK has said last, behind a semicolon; "" if nothing. */
const char *dpdk_port_words(char *out, size_t bytes);

/* options.c */
/** @return 0, -TERN_EINVAL, -TERN_EADDR with words in config->error */
int dpdk_options_read(struct dpdk_options *o, const struct link_config *config);
/** Addresses, gateway and MTU of a kernel interface, where the options leave them open. */
int dpdk_options_host(struct dpdk_options *o, const struct link_config *config);
/** A listener's host is our address. @return as dpdk_options_read */
int dpdk_options_listen(struct dpdk_options *o, const struct link_config *config);
/** For a link that joins others at their port: what it leaves open is theirs; what it says otherwise is an error. @return as dpdk_options_read */
int dpdk_options_join(struct dpdk_options *o, const struct dpdk_share *s, const struct link_config *config);

/* tx.c */
int dpdk_tx_open(struct dpdk_link *l);
void dpdk_tx_close(struct dpdk_link *l);
size_t dpdk_tx(struct link *link, struct frame *const *frames, size_t n, uint64_t now_ns);
size_t dpdk_reap(struct link *link, struct frame **out, size_t n, uint64_t now_ns);
/** Sends one ready-made frame of the host (ARP and the like), if the port takes it. */
void dpdk_tx_host(struct dpdk_link *l, const uint8_t *frame, size_t bytes);
/** Gives back what waits for the port of one path, NULL: of all. */
void dpdk_tx_drop(struct dpdk_link *l, struct dpdk_path *p);
/** Sends what the host and the kernel's twin have due. */
void dpdk_tx_due(struct dpdk_link *l, uint64_t now_ns);

/* offload.c */
/** Says in l->port what to switch on beyond checksums; before it is configured. */
void dpdk_offload_choose(struct dpdk_link *l, const struct rte_eth_dev_info *info);
/** Not two buffers a frame; none of the rest. */
void dpdk_offload_no_split(struct dpdk_port *p);
void dpdk_offload_none(struct dpdk_port *p);
/** What is on, in words that begin with a comma; "" for nothing. */
const char *dpdk_offload_words(const struct dpdk_port *p, char *out, size_t bytes);
/** Sets a receiving queue up, with two buffers a frame where that was chosen. @return as rte_eth_rx_queue_setup */
int dpdk_split_queue(const struct dpdk_port *p, uint16_t queue, unsigned socket, struct rte_eth_rxconf *rx);
/** How many of the first frames may leave as one run: one path, size (but for a shorter last) and time, within what the port takes. Pure. */
size_t dpdk_run_frames(const struct dpdk_port *p, struct frame *const *frames, size_t n);
/** Completes the header of a chain of frames behind it, for the port to take apart. Pure. @param each_bytes  of all frames but the last */
void dpdk_run_close(struct rte_mbuf *m, const struct net_flow *flow, uint32_t each_bytes, uint16_t ip_id);
/** Reads the port's clock, if it takes or gives times; once the port is open, and when l->ticks.due_ns has come. */
void dpdk_stamp_open(struct dpdk_link *l);
void dpdk_stamp_tend(struct dpdk_link *l);
/** The port is to send it not before this. */
void dpdk_stamp_tx(struct dpdk_link *l, struct rte_mbuf *m, uint64_t depart_ns);
/** When the port says that it came, never later than l->now_ns, in order; 0: not known. */
uint64_t dpdk_stamp_rx(struct dpdk_link *l, const struct rte_mbuf *m);

/* rx.c */
/** Frames in l->in that came in pieces are put together; what no buffer holds is dropped. @return how many of n are left */
uint16_t dpdk_rx_whole(struct dpdk_link *l, uint16_t n);
size_t dpdk_rx(struct link *link, struct rx_frame *out, size_t n, uint64_t now_ns);
void dpdk_rx_free(struct link *link, struct rx_frame *frames, size_t n);
int dpdk_from(struct link *link, const struct rx_frame *frame, struct link_addr *out);
void dpdk_rx_close(struct dpdk_link *l);
void dpdk_paths_add(struct dpdk_link *l, struct dpdk_path *p);
void dpdk_paths_remove(struct dpdk_link *l, struct dpdk_path *p);
struct dpdk_path *dpdk_paths_find(struct dpdk_link *l, const union net_addr *remote, uint16_t port);
static inline void dpdk_addr_out(const union net_addr *from, struct link_addr *out)
{
	memset(out, 0, sizeof(*out));
	out->bytes = from->sa.sa_family == AF_INET6 ? sizeof(from->v6) : sizeof(from->v4);
	memcpy(out->data, from, out->bytes);
}

/* mem.c */
/** Sets a sending queue up so that the driver can be made to give frames back. @return as rte_eth_tx_queue_setup */
int dpdk_mem_queue(const struct dpdk_port *p, uint16_t queue, unsigned socket, const struct rte_eth_txconf *tx);
/** Says whether the port wants memory mapped; once it is open. */
void dpdk_mem_open(struct dpdk_link *l);
/** Has the driver look for what the wire has taken; under the queue's token. @return false: it looks only when it is given a frame (dpdk_mem_kick, without the token) */
bool dpdk_mem_clean(const struct dpdk_link *l);
/** Gives it one that goes nowhere, not too often. */
void dpdk_mem_kick(struct dpdk_link *l);
int dpdk_mem_map(struct link *link, const struct mem_what *what, uint32_t *key, char *why, size_t why_bytes);
void dpdk_mem_unmap(struct link *link, uint32_t key);

extern const struct link_ops link_dpdk_ops;

#endif
