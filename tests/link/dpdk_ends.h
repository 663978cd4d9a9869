/* Links at the NICs of dpdk_model.h, and frames for them, for the programs that test what a port can do. One sends, at port 0; two receive, at port 1. */
#ifndef TESTS_LINK_DPDK_ENDS_H
#define TESTS_LINK_DPDK_ENDS_H
#include "dpdk_model.h"
#include "../unit/rand.h"
#include "link/link.h"

enum { ENDS_FRAMES = 64, ENDS_MEMORY = ENDS_FRAMES * 9000, ENDS_ROUNDS = 400 };

extern const struct link_ops *ops;
extern struct link *ends[3];           /* 0 and 1 at a port each, 2 at the port of 1 */
extern struct link_path *to[2][2];    /* of end 0, to 1 and 2, by IPv4 and IPv6 */
extern uint8_t memory[ENDS_MEMORY];   /* random */
extern struct frame frames[ENDS_FRAMES], *list[ENDS_FRAMES];

/** What the links have logged since ends_open began. */
extern char ends_said[1 << 16];

/** Prints the seed, finds the link. @return 0, 77: it is not here, said */
int ends_start(uint64_t *seed);
/** The port can cut runs of frames, and read what is mapped. */
void ends_capable(struct model *m);
/** Opens end i at this port, with more options. @return NULL: refused */
struct link *ends_try(unsigned i, unsigned port, const char *more, char error[512]);
/** Opens so many ends; then neighbours are known, and nothing is under way. */
void ends_open(unsigned mtu, unsigned n_ends);
void ends_close(void);
/** Frame i: so many bytes from this place of the memory on, in segments as they may come: a header first, or all in one. */
struct frame *ends_frame(unsigned i, struct link_path *path, uint32_t bytes, size_t at);
/** All of them are taken, in as many calls as it needs. */
void ends_send(size_t from, size_t n);
/** The first n frames come back, once each, and no more. */
void ends_reap(size_t n);
size_t ends_look(unsigned i, struct rx_frame *in, size_t n);
/** The next frame at an end is these bytes. */
void ends_expect(unsigned i, const uint8_t *bytes, size_t n);

#endif
