/* One end of a measurement: a context, an endpoint and one peer. Called by tern-lat and tern-bw, both sides. Turns everything that can go wrong
 * between two ends (peer gone, silence, a signal) into one return value, so that no loop above hangs. Uses include/tern only. */
#ifndef PERF_NODE_H
#define PERF_NODE_H
#include <stdbool.h>
#include <stdint.h>
#include "options.h"
#include "tern/tern.h"

enum node_result {
	NODE_OK = 0,
	NODE_FAILED = -1,  /* node.error says why */
	NODE_STOPPED = -2, /* a signal came; nothing is wrong with the peer */
	NODE_GONE = -3,    /* the peer closed; an end for a server, an error inside a run */
};

enum { NODE_EVENTS = 64, NODE_ERROR_MAX = 768, NODE_ADDRESS_MAX = 4096 };

struct node {
	tern_ctx *ctx;
	tern_ep *ep;
	tern_peer peer; /* 0: none */
	tern_peer last; /* the same, and after it has gone */
	tern_peer waiting; /* server: the next client, 0: none */
	int parted; /* what became of the peer while memory was released: the next wait says so */
	uint64_t waiting_ns;
	const struct options *options;
	uint64_t progress_ns; /* when something last happened */
	unsigned empty;       /* polls in a row that gave nothing */
	uint64_t frames;      /* received, when last looked at */
	unsigned extensions;  /* of the timeout, because of frames */
	char *in, *out; /* control messages: talk.c; here because an operation may use them until the context is closed */
	char error[NODE_ERROR_MAX];
};

/** Opens context and endpoint. @return NODE_OK or NODE_FAILED; node_close either way */
int node_open(struct node *n, const struct options *o);
void node_close(struct node *n);
/** Listens at the options' address. */
int node_listen(struct node *n);
/** Connects to it and waits until the peer is up. */
int node_connect(struct node *n);
/** Waits for a client, without a bound. @return also NODE_STOPPED */
int node_accept(struct node *n);
/** Says goodbye to the peer: drain after everything posted has ended, else at once. At most a second. */
void node_part(struct node *n, bool drain);

/**
 * Up to NODE_EVENTS events of operations; returns at once when polling. Events of peers are dealt with here, those of
 * operations with an earlier peer are dropped.
 * @return NODE_OK (also with *got 0), or why there will be no more
 */
int node_poll(struct node *n, tern_event *events, size_t *got);
/** Waits for the next one. */
int node_next(struct node *n, tern_event *event);

/** Records a failing call of the library: "what: its words". @return NODE_FAILED */
int node_fail(struct node *n, const char *what, int err);
/** Records any other failure. @return NODE_FAILED */
int node_error(struct node *n, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** Posts, polling away -TERN_EAGAIN. Events that come meanwhile are lost: for rare control messages only. */
int node_send(struct node *n, const void *data, uint64_t bytes, const tern_args *args);
int node_recv(struct node *n, void *data, uint64_t bytes, const tern_args *args, tern_op *op);

/** Gives memory back, waiting up to a second for operations of a peer that has gone to end. */
void node_release(struct node *n, tern_mem **mem);

/** A counter of the context by its name; 0 if the library has none of that name. */
uint64_t node_stat(struct node *n, const char *name);
/** Every counter of the context and of the peer that is not 0, to standard error: what a person needs when a run failed. */
void node_print_stats(struct node *n);

#endif
