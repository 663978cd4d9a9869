/* The sending end: sender.c (set-up, events, output; main thread) and reader.c (its helper thread: reads, hashes, posts). */
#ifndef COPY_SENDER_H
#define COPY_SENDER_H
#include "mapping.h"
#include "plan.h"
#include "proto.h"
#include "report.h"

enum { SENDER_FLIGHTS = 2048, SENDER_SMALL_BUFS = 64 };

/* A piece on its way. */
struct flight {
	struct proto_op op;
	uint64_t bytes;
	struct mapping *map;  /* what it is sent from, or */
	int small;            /* which buffer, -1: none */
	bool used;
};

struct sender {
	const struct copy_options *o;
	struct copy_error error;
	struct report report;
	struct manifest m;
	tern_ctx *ctx;
	tern_ep *ep;
	tern_peer peer;
	struct proto_link link;
	struct proto_msg msg;          /* main thread's scratch */
	uint64_t connect_ns, limit_bytes_per_s;
	uint8_t *list, *answer;
	uint64_t list_bytes, answer_bytes;
	uint64_t chunk_bytes, window_bytes;
	bool connected, answered, final, reading;
	uint64_t files_done;
	pthread_t reader;
	/* shared with the reader, under lock */
	pthread_mutex_t lock;
	pthread_cond_t room;           /* something came back, or stop */
	struct flight flight[SENDER_FLIGHTS];
	uint32_t free_flight[SENDER_FLIGHTS], free_flights;
	struct { void *addr; tern_mem *mem; bool used; } small[SENDER_SMALL_BUFS];
	uint64_t flight_bytes;         /* posted and not acknowledged */
	bool stop;
	_Atomic size_t at_file;        /* what the reader reads now */
	_Atomic uint64_t first_ns;     /* when the first piece was posted */
	uint64_t acked_bytes, last_ns, skipped_bytes; /* main thread's */
};

/** The helper thread. @param arg  struct sender. Ends when all is posted, when something failed (error is set), or at stop */
void *reader_run(void *arg);

#endif
