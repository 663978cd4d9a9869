/* What the interop tests share: nodes (a context, an endpoint, a queue of its events) over loopback, driven until something happens or a deadline
 * passes, checks that print both values, and child processes. Uses the public API only, like any program; a child opens its contexts after the fork.
 */
#ifndef TESTS_INTER_H
#define TESTS_INTER_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "tern/tern.h"

enum { INTER_DEADLINE_S = 30, INTER_NODES_MAX = 8 };

struct inter_node {
	tern_ctx *ctx;
	tern_ep *ep;
	tern_event *queue; /* polled, not yet taken */
	size_t events, room;
	char text[TERN_TEXT_MAX];
	uint16_t port; /* after inter_listen */
};

/* Two nodes of this process that see each other as `ab` and `ba`. */
struct inter_pair {
	struct inter_node a, b;
	tern_peer ab, ba;
};

/* ---- checks: the first that fails ends the case (in a child: the process) ---- */

void inter_fail(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));
void inter_equal(const char *file, int line, const char *what, int64_t got, int64_t want);
void inter_text(const char *file, int line, const char *text, const char *part);
#define CHECK(x) ((x) ? (void)0 : inter_fail(__FILE__, __LINE__, "%s", #x))
#define CHECK_EQ(got, want) inter_equal(__FILE__, __LINE__, #got, (int64_t)(got), (int64_t)(want))
/* `text` says `part` */
#define CHECK_SAYS(text, part) inter_text(__FILE__, __LINE__, text, part)

/* ---- the place of the tests ---- */

/** The folder of this run, made by inter_main. */
const char *inter_dir(void);
/** Writes a file into it. @return its path, static until the next call with the same name */
const char *inter_file(const char *name, const char *content, mode_t mode);
/** The site key of this run. */
const char *inter_key(void);
uint64_t inter_seed(void);
uint64_t inter_now_ns(void);

/* ---- nodes ---- */

/** Defaults with the key of this run, silent (TERN_TEST_LOG=1 prints), short timeouts. */
tern_config inter_config(void);
void inter_open(struct inter_node *n, const tern_config *config);
void inter_close(struct inter_node *n);
/** Listens on `host` ("127.0.0.1", which TERN_TEST_RDMA changes into an RDMA device; "[::1]") at any port; `query` is "" or "?private=1". */
void inter_listen(struct inter_node *n, const char *host, const char *query);
void inter_listen_text(struct inter_node *n, const char *text);
/** Opens both, connects a to b, waits for both CONNECTED. `flags` of tern_config. */
void inter_pair(struct inter_pair *p, const char *query, uint32_t flags);
void inter_pair_with(struct inter_pair *p, const char *host, const char *query, const tern_config *config);
void inter_pair_close(struct inter_pair *p);
/** The text address behind inter_listen and inter_connect; port 0: to listen. */
void inter_address(char *text, size_t bytes, const char *host, uint16_t port, const char *query);
/** Connects to a port of this host. */
tern_peer inter_connect(struct inter_node *n, const char *host, uint16_t port, const char *query);
tern_peer inter_connect_text(struct inter_node *n, const char *text);

/* ---- events ---- */

/** Polls every open node once, and sleeps on their descriptors for up to `nap_ns` if none had anything. @return true: something came */
bool inter_pump(uint64_t nap_ns);
/** Drives all nodes until `n` has an event of that type (and op, unless 0) and takes it out of the queue; fails after `seconds`. */
tern_event inter_await_for(struct inter_node *n, uint32_t type, tern_op op, unsigned seconds);
tern_event inter_await(struct inter_node *n, uint32_t type, tern_op op);
/** Takes such an event if it is there. */
bool inter_take(struct inter_node *n, uint32_t type, tern_op op, tern_event *out);
/** Drives all nodes for a while: only to see that something does NOT happen. */
void inter_drive(uint64_t ns);
/** What tern_error_detail says of `what`, or of the last failing call. */
const char *inter_detail(struct inter_node *n, uint64_t what);
/** A counter by name; scope "" or a peer's number. Fails if there is none. */
uint64_t inter_stat(struct inter_node *n, tern_peer peer, const char *name);
/** The same by scope. */
uint64_t inter_stat_of(struct inter_node *n, const char *scope, const char *name);

/* ---- operations over plain memory ---- */

tern_op inter_send(struct inter_node *n, tern_peer peer, const void *data, uint64_t bytes, uint64_t tag, uint32_t flags);
tern_op inter_recv(struct inter_node *n, tern_peer peer, void *data, uint64_t bytes, uint64_t tag, uint64_t ignore);
/** Bytes that depend on seed and place. */
void inter_fill(void *data, uint64_t bytes, uint64_t seed);
bool inter_filled(const void *data, uint64_t bytes, uint64_t seed);

/* ---- processes ---- */

struct inter_child {
	pid_t pid;
	int fd; /* a stream socket between the two */
};
/** Forks; the child runs fn(fd) and exits with 0 (or by a failed check with 1). No context may be open in this process. */
void inter_spawn(struct inter_child *c, void (*fn)(int fd));
/** Waits for the child to end. @return its wait status */
int inter_reap(struct inter_child *c);
/** Whole writes and reads, with the deadline. */
void inter_say(int fd, const void *data, size_t bytes);
void inter_hear(int fd, void *data, size_t bytes);

/* ---- the program ---- */

struct inter_case {
	const char *name;
	void (*run)(void);
};
/** A TCP port that was free a moment ago. */
uint16_t inter_free_port(void);
/** Makes folder and key, runs the cases (or those named by arguments), removes the folder. @return exit status */
int inter_main(int argc, char **argv, const char *suite, const struct inter_case *cases, size_t n);
#define INTER_MAIN(suite, cases)                                                                                                                     \
	int main(int argc, char **argv)                                                                                                              \
	{                                                                                                                                            \
		return inter_main(argc, argv, suite, cases, sizeof(cases) / sizeof(cases[0]));                                                       \
	}

#endif
