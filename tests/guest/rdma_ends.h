/* Two ends of the rdma link in one process, for the cases of rdma_link.c and rdma_faults.c: opening, stepping, sleeping, frames, exposures. Every
 * helper asserts what must hold. */
#ifndef TESTS_GUEST_RDMA_ENDS_H
#define TESTS_GUEST_RDMA_ENDS_H
#include <stdbool.h>
#include <string.h>
#include "../link/map.h"
#include "../unit/unit.h"
#include "link/link.h"
#include "tern/error.h"

enum { BURST = 64, PATIENCE_MS = 20000, MEMORY = 4 << 20, EVENTS_MAX = 64 };

struct end {
	struct link *link;
	struct link_path *path;
	struct rx_frame in[BURST];
	size_t n_in;
	struct link_exposed exposed[EVENTS_MAX];
	size_t n_exposed;
	struct link_done done[EVENTS_MAX];
	size_t n_done, reaped, arrived, lost;
};

extern const struct link_ops *ops;
extern const char *hosts[2];
extern char link_options[128];
extern bool is_uc;
extern uint64_t random_state;
extern uint8_t tokens[2][LINK_TOKEN_BYTES];
extern char words[512];
extern char logged[256]; /* what a link has logged last */
extern uint64_t slowest_close_ns;

uint64_t random64(void);
uint64_t now(void);
int open_link(struct end *e, int which, bool listening, uint16_t port);
void step(struct end *e);
void doze(struct end end[2]);
void free_in(struct end *e);
int open_path(struct end *e, const struct link_addr *to, int token, bool is_acceptor);
void open_both(struct end end[2]);
void close_both(struct end end[2]);
void bytes_frame(struct frame *f, struct link_path *path, uint8_t *memory, uint32_t bytes, uint32_t segs);
void send_all(struct end end[2], int from, struct frame *frames, size_t n);
void pass(struct end end[2], int from, uint32_t lane);
uint8_t *map(struct end *e, size_t bytes, uint32_t *key);
void write_frame(struct frame *f, struct end *from, const struct frame_target *target, uint64_t number, const struct frame_seg *seg);
struct link_exposed expose(struct end end[2], int at, uint8_t *m, uint64_t bytes, uint32_t key);
void hide(struct end end[2], int at, uint32_t id);
void fill(uint8_t *m, size_t bytes);
bool is_zero(const uint8_t *m, size_t bytes);
void write_run(struct end end[2], int from, struct link_exposed x, struct frame_seg source, uint64_t number);

/* Steps both ends until it holds; asleep between two steps only while it does not. */
#define UNTIL(end, what)                                                                                                                             \
	for (uint64_t until_ns = now() + PATIENCE_MS * 1000000ull; !(what) && now() < until_ns;) {                                                   \
		step(&(end)[0]);                                                                                                                     \
		step(&(end)[1]);                                                                                                                     \
		if (!(what))                                                                                                                         \
			doze(end);                                                                                                                   \
	}                                                                                                                                            \
	CU_ASSERT(!!(what))

/* rdma_rogue.c: the connection manager spoken to by hand */
void rogue_hellos(void);

/* rdma_faults.c */
extern const struct unit_case fault_cases[];
extern const size_t fault_n_cases;
/** The other process of a case: accepts the first token's path until it is killed. */
int fault_serve(uint16_t port);
/** A case under a limit on locked memory. @return the exit status */
int fault_limited(void);

#endif
