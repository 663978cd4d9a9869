/* The conformance suite of links: cases over struct link_ops (cases.c), helpers (suite.c), and what a link must say about itself to join (struct
 * suite_fixture, one line in main.c). Cases know nothing of sockets or simulators: time and waiting go through the fixture. */
#ifndef TESTS_LINK_SUITE_H
#define TESTS_LINK_SUITE_H
#include "link/link.h"
#include "tern/error.h"
#include "unit.h"

enum suite_needs {
	SUITE_HOSTS = 1,   /* host names and ports mean something */
	SUITE_SOCKETS = 2, /* UDP sockets of other programs can reach it */
	SUITE_FD = 4,      /* wait gives a descriptor */
	SUITE_ECN = 8,     /* frames leave with ECT(0) and arrive so */
	SUITE_PLACES = 16, /* LINK_PLACES may be there */
	SUITE_ALONE = 32,  /* a path is opened by one end alone: not LINK_CONNECTS */
	SUITE_WRITES = 64, /* LINK_WRITES and LINK_CONNECTS */
	SUITE_RELIABLE = 128,
	SUITE_BREAKS = 256, /* the fixture can break a connection */
	SUITE_BOUNDS = 512, /* an exposure's bounds hold to the byte */
	SUITE_ANSWERS = 1024, /* the other end's link must be stepped for a frame to leave: it answers questions of the network in rx */
};
enum { SUITE_BURST = 64, SUITE_PATIENCE_MS = 5000 };

struct suite_fixture {
	const char *name;    /* as on the command line */
	const char *scheme;  /* for link_find */
	const char *options; /* of both ends; NULL: from the command line */
	uint32_t has;        /* enum suite_needs */
	/** Fills the two configurations (end 0 listens). variant 0: the usual, 1: IPv6. @return false: not on this machine */
	bool (*configure)(struct link_config end[2], int variant);
	/** Called between the cases; may be NULL. */
	void (*reset)(void);
	/** The links' clock. */
	uint64_t (*now_ns)(void);
	/** Waits for the link (its fd, or the virtual clock to its deadline). */
	void (*sleep)(const struct link_wait *wait);
	/** SUITE_BREAKS: breaks the connection between the two links, as a fault in between would. */
	void (*break_connection)(void);
};

struct suite_end {
	struct link *link;
	struct link_path *path;
	const struct link_ops *ops;
	struct rx_frame in[SUITE_BURST]; /* lent, until suite_free */
	size_t n_in;
};

struct suite_case {
	const char *name;
	void (*run)(void);
	uint32_t needs;
};

extern const struct suite_fixture *suite_fixture;
extern const struct link_ops *suite_ops;
extern const char *suite_options;
extern uint64_t suite_state; /* of suite_random */

uint64_t suite_random(void);
uint64_t suite_now(void);
/** Opens end 0 (listening) and end 1 and a path each way: end 1 says hello, end 0 answers to its address. @return false: variant not on this machine
 */
bool suite_open(struct suite_end end[2], int variant);
/** The links alone, without paths. */
bool suite_open_links(struct suite_end end[2], int variant);
/** LINK_CONNECTS: opens end's path, end 0 as the acceptor. @param token  LINK_TOKEN_BYTES */
void suite_open_path(struct suite_end end[2], int at, const uint8_t *token);
/** Steps both links, up to the patience, until both paths are connected. @return whether they are */
bool suite_connected(struct suite_end end[2]);
/** Sleeps until the link has something, or a moment. */
void suite_pause(struct suite_end *end);
void suite_close(struct suite_end end[2]);
int suite_open_link(struct link_config *config, struct suite_end *end);
/** Sends all and reaps all, each exactly once; asserts it. */
void suite_send(struct suite_end *end, struct frame *frames, size_t n);
/** Receives until `n` frames are lent (at most SUITE_BURST) or the patience is over. @return how many are lent */
size_t suite_recv(struct suite_end *end, size_t n);
/** Receives with short patience: what is there. */
size_t suite_drain(struct suite_end *end);
void suite_free(struct suite_end *end);
/** A frame of `bytes` bytes in `segs` segments over `memory` (random bytes that say their own number at the start when there is room). */
void suite_frame(struct frame *f, struct link_path *path, uint8_t *memory, uint32_t bytes, uint32_t segs);
/** True if the lent frame holds exactly these bytes. */
bool suite_same(const struct rx_frame *in, const uint8_t *bytes, uint32_t n);
/** Frames of the sizes given, each sent by end `from`, in one tx; asserts that they arrive at the other, in any order, each once. */
void suite_pass(struct suite_end end[2], int from, const uint32_t *sizes, size_t n, uint32_t segs, bool burst_ends);

extern const struct suite_case suite_cases[];
extern const size_t suite_n_cases;
extern const struct suite_case udp_cases[];
extern const size_t udp_n_cases;
extern const struct suite_case write_cases[];
extern const size_t write_n_cases;
extern const struct suite_case break_cases[];
extern const size_t break_n_cases;
extern const struct suite_fixture fixture_udp, fixture_sim, fixture_sim_uc, fixture_sim_rc, fixture_emu_sim, fixture_emu_udp;
extern const struct suite_fixture fixture_rdma_rc, fixture_rdma_uc;
extern const struct suite_fixture fixture_dpdk_memif, fixture_dpdk_packet, fixture_dpdk_xdp, fixture_dpdk_vhost;

#endif
