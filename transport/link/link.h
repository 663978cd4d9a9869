/* The contract between the loop and every link. A link moves frames and knows nothing of what is in them. Missing functions come from dummy.c (link_fill).
 *
 * Rules (tests/link/ holds every link to them):
 * - tx, reap, rx take arrays, return how many they took or gave, never block, never spin. tx takes a prefix; what it did not take is offered again, byte for byte.
 * - A tx frame is the link's from tx until reap; reap gives each taken frame back exactly once, in any order. A taken frame may be lost on the way, silently.
 * - An rx frame is lent until rx_free; several may share one buffer. rx lends at most what its buffers hold, then returns less; nothing is overwritten while lent.
 * - path_close has all frames of that path back (reapable) within 100 ms and no later write into posted memory.
 * - One thread (the loop's) calls everything on one link.
 */
#ifndef LINK_LINK_H
#define LINK_LINK_H
#include <stdbool.h>
#include "base/frame.h"

enum link_cap {
	LINK_BYTES = 1,        /* carries encoded datagrams; otherwise it reads descriptors */
	LINK_RELIABLE = 2,     /* loses nothing while the path stands; completion = ack */
	LINK_PLACES = 4,       /* rx_post is worth calling: it can put payloads where they belong */
	LINK_TX_ZERO_COPY = 8, /* the NIC reads the segments; otherwise the kernel or PMD copies them */
	LINK_TIMESTAMPS = 16,  /* rx_frame.time_ns is set */
	LINK_PACES = 32,       /* honours frame.depart_ns */
	LINK_VIRTUAL = 64,     /* time is simulated */
};

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
	uint64_t now_ns;
	void (*log)(void *arg, int level, const char *file, int line, const char *text); /* may be NULL */
	void *log_arg;
	char *error;                 /* open failures say here, in words, what was wrong and what to do */
	size_t error_bytes;
};

struct link_path_config {
	struct link_addr remote;
	uint32_t spread; /* which of the several paths to one remote: picks another source port */
	uint32_t mtu_bytes; /* 0: what the interface says */
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
	uint64_t deadline_ns; /* when the link must be stepped again for its own timers; UINT64_MAX: never */
};

struct link_ops;

/* Every link's state begins with this. */
struct link {
	const struct link_ops *ops;
	uint32_t caps;         /* enum link_cap */
	uint32_t max_segments; /* of a tx frame */
	struct link_addr local; /* after open: the bound address */
	uint64_t rx_frames, rx_bytes, tx_frames, tx_bytes, tx_calls, rx_calls, rx_dropped, tx_dropped; /* counters, datagram bytes */
};

/* Every link's path begins with this. */
struct link_path {
	struct link *link;
	void *owner;               /* loop's */
	uint32_t max_frame_bytes;  /* largest datagram now (UDP payload); the link lowers it when the system says so (EMSGSIZE) */
	uint32_t overhead_bytes;   /* of the network layers below, a datagram: 28 for IPv4, 48 for IPv6 */
	struct link_addr remote;
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
	/** Makes memory usable without a copy; *key goes into frame_seg.mem. dummy: key 0. @return 0, -TERN_ENOMEM */
	int (*mem_map)(struct link *link, void *addr, uint64_t bytes, uint32_t *key);
	void (*mem_unmap)(struct link *link, uint32_t key);
	/** @return how many of the first frames were taken */
	size_t (*tx)(struct link *link, struct frame *const *frames, size_t n, uint64_t now_ns);
	size_t (*reap)(struct link *link, struct frame **out, size_t n, uint64_t now_ns);
	size_t (*rx)(struct link *link, struct rx_frame *out, size_t n, uint64_t now_ns);
	void (*rx_free)(struct link *link, struct rx_frame *frames, size_t n);
	/** The sender's address of a lent frame. @return 0, -TERN_ENOENT */
	int (*from)(struct link *link, const struct rx_frame *frame, struct link_addr *out);
	/** Posts the path's one guess, replacing the last. dummy: -TERN_EINVAL */
	int (*rx_post)(struct link *link, struct link_path *path, const struct link_post *post);
	/** Takes it back: afterwards nothing is written there. */
	void (*rx_revoke)(struct link *link, struct link_path *path);
	/** What to sleep on. dummy: fd -1, no deadline. With armed true the fd must fire for anything from now on. */
	void (*wait)(struct link *link, bool armed, struct link_wait *out);
};

/** Completes a table: missing functions become dummy.c's. @param out gets the completed copy */
void link_fill(const struct link_ops *ops, struct link_ops *out);

/** Finds a built-in link, or loads libtern-<name>.so. @return 0, -TERN_ESCHEME with words in error */
int link_find(const char *name, const struct link_ops **out, char *error, size_t error_bytes);

#endif
