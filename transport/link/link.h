/* The contract between the loop and every link. A link moves frames and knows nothing of what is in them. Missing functions come from dummy.c (link_fill).
 *
 * Rules (tests/link/ holds every link to them):
 * - tx, reap, rx take arrays, return how many they took or gave, never block, never spin. tx takes a prefix; what it did not take is offered again, byte for byte.
 * - A tx frame is the link's from tx until reap; reap gives each taken frame back exactly once, in any order. A taken frame may be lost on the way, silently.
 * - An rx frame is lent until rx_free; several may share one buffer. rx lends at most what its buffers hold, then returns less; nothing is overwritten while lent.
 * - path_close has all frames of that path back (reapable) within 100 ms and no later write into posted memory.
 * - WRITES: a connection is reliable or not (link_path.is_reliable). A reliable one loses nothing while it stands; frames with a target are
 *   reported by done, and nobody else acknowledges them. Between frames of one lane the order of tx is the order of rx there,
 *   otherwise what arrives keeps its order nearly always. A frame with a target is given back by reap as soon as the link has noted it; its
 *   payload stays in use until `done` where the connection is reliable, else until reap.
 *   A path may change its kind with a new connection; that one stands only after rx has handed out everything that came over the one before.
 * - One thread (the loop's) calls everything on one link, but mem_map and mem_unmap.
 */
#ifndef LINK_LINK_H
#define LINK_LINK_H
#include <stdbool.h>
#include "base/frame.h"
#include "mem/what.h"

enum link_cap {
	LINK_BYTES = 1,        /* carries encoded datagrams; otherwise it reads descriptors */
	LINK_PLACES = 2,       /* rx_post is worth calling: it can put payloads where they belong */
	LINK_TX_ZERO_COPY = 4, /* the NIC reads the segments; otherwise the kernel or PMD copies them */
	LINK_TIMESTAMPS = 8,   /* rx_frame.time_ns is set */
	LINK_PACES = 16,       /* honours frame.depart_ns */
	LINK_VIRTUAL = 32,     /* time is simulated */
	LINK_WRITES = 64,      /* takes frames with a target: expose, hide, exposed */
	LINK_CONNECTS = 128,   /* makes the connection of a path itself, and anew when it broke; both ends open the path, with the session's token */
	LINK_PLAIN = 256,      /* cannot carry sealed frames: for sessions that are private at both ends */
	LINK_MAPS = 512,       /* a device reads or writes memory by itself: what is registered is mapped for it (mem_map, mem_scope) */
	LINK_MAPS_OPS = 1024,  /* and what is not, while a large operation uses it: mapping costs less than the copy that it saves */
};

enum { LINK_TOKEN_BYTES = 16, LINK_LANES_MAX = 16, LINK_PARTS_MAX = 4 };

/* An address as the link understands it: a sockaddr for udp, a node number for sim. */
struct link_addr {
	uint32_t bytes; /* used */
	uint8_t data[60];
};

struct link_config {
	const char *host;            /* where to bind; "" or NULL: any */
	uint16_t port;               /* 0: any */
	bool listening;              /* binds the port that peers know and takes frames from anyone */
	const struct link_addr *net; /* sim: which network and node; otherwise NULL */
	const char *options;         /* query of the address, "a=b&c=d", or NULL */
	uint64_t domain;             /* links of one trust domain (one site key) share registered memory */
	uint64_t now_ns;
	void (*log)(void *arg, int level, const char *file, int line, const char *text); /* may be NULL */
	void *log_arg;
	char *error;                 /* open failures say here, in words, what was wrong and what to do */
	size_t error_bytes;
};

/* What is known of the line below a path before it carries anything: its contract. 0: not known. */
struct link_line {
	uint64_t bytes_per_s; /* that this end sends, at most */
	uint64_t rtt_ns;      /* with empty queues */
	double loss;          /* of packets, that the line may have */
};

struct link_path_config {
	struct link_addr remote;
	struct link_addr local; /* which of our addresses it leaves from, as `to` said; bytes 0: as routed */
	uint32_t spread; /* which of the peer's paths: picks another source port, or wire */
	uint32_t address; /* which of the peer's addresses it leads to: picks one of the devices that the link was told to use */
	uint32_t mtu_bytes; /* 0: what the interface says */
	struct link_line line;
	const uint8_t *token; /* CONNECTS: LINK_TOKEN_BYTES that only the two ends know */
	bool is_acceptor;     /* CONNECTS: the peer connects; `remote` says at most from where */
};

/* What a peer is to reach, for writing. mem: of mem_map. ref comes back with each event. */
struct link_expose {
	uint8_t *addr;
	uint64_t bytes;
	uint32_t mem;
	uint64_t ref;
};

enum link_exposed_state {
	LINK_EXPOSED = 1, /* the target holds from now on */
	LINK_HIDDEN,      /* after hide: nothing is written there any more; the id is free again */
	LINK_BROKEN,      /* the same, because the connection broke or the device refused; without hide */
};

struct link_exposed {
	struct link_path *path;
	uint64_t ref;
	uint32_t id;
	uint8_t state; /* enum link_exposed_state */
	struct frame_target target;
};

/* What became of frames with a target (frame.by_link) of a reliable connection: numbers [first, first + frames) of the path. is_lost: the
 * connection broke; they may have arrived, but cannot any more. */
struct link_done {
	struct link_path *path;
	uint64_t first;
	uint32_t frames;
	bool is_lost;
};

/* Where the next datagrams of a path are expected to belong: header_bytes of each go to the link's own buffer, then payload_bytes to addr, the next to
 * addr + payload_bytes, and so on up to bytes. A guess only: rx says with body where each payload really went. */
struct link_post {
	uint8_t *addr;
	uint64_t bytes;
	uint32_t header_bytes;
	uint32_t payload_bytes;
};

struct link_wait {
	int fd;               /* readable when rx or reap has something; -1: none */
	bool is_same;         /* the link knows that it said this descriptor the last time it was armed */
	int part[LINK_PARTS_MAX]; /* the descriptors behind fd, if fd is a set of few: who sleeps on them alone is spared a layer. parts 0: fd is all there is */
	uint8_t parts;
	uint8_t edges;        /* bit i: whoever watches part i need be told of each arrival only once, for an armed wait has seen to what was there before */
	uint64_t deadline_ns; /* when the link must be stepped again for its own timers; UINT64_MAX: never */
};

struct link_ops;

/* Every link's state begins with this. */
struct link {
	const struct link_ops *ops;
	uint32_t caps;         /* enum link_cap */
	uint32_t max_segments; /* of a tx frame */
	struct link_addr local; /* after open: the bound address */
	char trouble[256];      /* words about the last failure of expose, path_open, or a path's fault */
	uint64_t rx_frames, rx_bytes, tx_frames, tx_bytes, tx_calls, rx_calls, rx_dropped, tx_dropped; /* counters, datagram bytes */
	uint64_t copied_bytes; /* of payload, where the device cannot read it from where it is */
	void (*log)(void *arg, int level, const char *file, int line, const char *text); /* of open; log.h */
	void *log_arg;
	const void *mem_scope;    /* MAPS: links with the same one share keys; set by open */
	const uint32_t *mem_keys; /* MAPS: by frame_seg.mem, the keys that mem_map gave; the loop's. NULL: frame_seg.mem is the key */
	uint32_t pins;    /* the loop's: mappings under way outside its thread */
	bool is_leaving;  /* the loop's: it goes with the last pin */
};

/** The link's own key of a segment's memory, 0: it has none. One load. */
static inline uint32_t link_mem_key(const struct link *link, uint32_t mem)
{
	return link->mem_keys ? link->mem_keys[mem] : mem;
}

/* Every link's path begins with this. */
struct link_path {
	struct link *link;
	void *owner;               /* loop's */
	uint32_t max_frame_bytes;  /* largest datagram now (UDP payload); the link lowers it when the system says so (EMSGSIZE) */
	uint32_t overhead_bytes;   /* of the network layers below, a datagram: 28 for IPv4, 48 for IPv6 */
	uint8_t front_bytes;       /* of headers that the link writes itself: frames made in a room get so many before it, at a cache line's beginning; 0: none */
	struct link_addr remote;
	/* CONNECTS and WRITES only */
	uint32_t connection;       /* counts the connections this path has had; 0: none yet. Targets hold for one */
	bool is_reliable;          /* what the connection is, or the next one is expected to be; see the rules */
	bool is_connected;         /* otherwise tx takes nothing; the descriptor of `wait` tells of changes */
	int fault;                 /* -TERN_E...: the link has given up, nothing will connect any more; 0 otherwise */
	uint32_t max_write_bytes;  /* payload of one frame with a target; where the connection is not reliable all but a run's last have exactly so many */
	uint32_t packet_bytes;     /* payload of one packet of a write: overhead_bytes come with each; 0: max_write_bytes */
	uint32_t lanes;            /* for writing to the peer: 1..lanes, at most LINK_LANES_MAX */
};

struct link_ops {
	const char *name;
	/** Opens; fills in link->ops, caps, local. @return 0, -TERN_EADDR (in use, malformed), -TERN_EIO, -TERN_ENOMEM; config->error says why */
	int (*open)(const struct link_config *config, struct link **out);
	/** Closes with all paths; every lent or taken frame counts as given back. Sets *link NULL. */
	void (*close)(struct link **link);
	/** @return 0, -TERN_EADDR, -TERN_ELIMIT, -TERN_EIO */
	int (*path_open)(struct link *link, const struct link_path_config *config, struct link_path **out);
	/** Frees the path; see the rules. Sets *path NULL. */
	void (*path_close)(struct link *link, struct link_path **path);
	/** The path was given up for others: what it holds and has not sent is dropped and comes back by reap. CONNECTS: its connection is taken down
	 * and made anew, `done` tells what was under way as lost. dummy: nothing */
	void (*path_reset)(struct link *link, struct link_path *path);
	/** Makes memory usable without a copy. Memory inside a mapping costs a look-up; each call wants its own mem_unmap. Keys hold for all links of
	 *  one mem_scope. From any thread, several at a time, as long as the link is open. dummy: key 0.
	 *  @param key  0: the device does not reach such memory, and frames from it are copied
	 *  @param why  gets words about a failure and what to do
	 *  @return 0, -TERN_ENOMEM (it cannot be pinned), -TERN_EIO (the device takes no such memory) */
	int (*mem_map)(struct link *link, const struct mem_what *what, uint32_t *key, char *why, size_t why_bytes);
	void (*mem_unmap)(struct link *link, uint32_t key);
	/** @return how many of the first frames were taken */
	size_t (*tx)(struct link *link, struct frame *const *frames, size_t n, uint64_t now_ns);
	size_t (*reap)(struct link *link, struct frame **out, size_t n, uint64_t now_ns);
	size_t (*rx)(struct link *link, struct rx_frame *out, size_t n, uint64_t now_ns);
	void (*rx_free)(struct link *link, struct rx_frame *frames, size_t n);
	/** The sender's address of a lent frame. @return 0, -TERN_ENOENT */
	int (*from)(struct link *link, const struct rx_frame *frame, struct link_addr *out);
	/** Which of our addresses a lent frame was sent to, where there may be several. dummy: -TERN_ENOENT. @return 0, -TERN_ENOENT */
	int (*to)(struct link *link, const struct rx_frame *frame, struct link_addr *out);
	/** Posts the path's one guess, replacing the last. dummy: -TERN_EINVAL */
	int (*rx_post)(struct link *link, struct link_path *path, const struct link_post *post);
	/** Takes it back: afterwards nothing is written there. */
	void (*rx_revoke)(struct link *link, struct link_path *path);
	/** Lets the path's peer, and nobody else, write there. Its events come from `exposed`: LINK_EXPOSED, then at last HIDDEN or BROKEN.
	 *  @return 0; -TERN_EAGAIN: not connected; -TERN_ELIMIT; -TERN_EINVAL: not mapped. dummy: -TERN_EINVAL */
	int (*expose)(struct link *link, struct link_path *path, const struct link_expose *what, uint32_t *id);
	void (*hide)(struct link *link, uint32_t id);
	size_t (*exposed)(struct link *link, struct link_exposed *out, size_t n, uint64_t now_ns);
	size_t (*done)(struct link *link, struct link_done *out, size_t n, uint64_t now_ns);
	/** What to sleep on. dummy: fd -1, no deadline. With armed true the fd must fire for anything from now on. */
	void (*wait)(struct link *link, bool armed, struct link_wait *out);
};

/** Completes a table: missing functions become dummy.c's. @param out gets the completed copy */
void link_fill(const struct link_ops *ops, struct link_ops *out);

/** Finds a built-in link, or loads libtern-<name>.so. @return 0, -TERN_ESCHEME with words in error */
int link_find(const char *name, const struct link_ops **out, char *error, size_t error_bytes);

#endif
