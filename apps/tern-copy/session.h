/* One transfer at the receiving end: session.c (what comes from the peer; main thread), writer.c (posts receives, hashes, writes), finish.c (syncs,
 * renames, journal, tells the sender). The writer never waits for a sync, and the library's loop for neither. */
#ifndef COPY_SESSION_H
#define COPY_SESSION_H
#include "journal.h"
#include "plan.h"
#include "proto.h"
#include "report.h"
#include "store.h"

enum {
	SESSION_SLOTS = 2048,       /* receives posted at once */
	SESSION_OPEN_FILES = 256,   /* written and not yet renamed */
};

/* A piece whose receive is posted, or that has arrived and is not written yet. */
struct slot {
	struct proto_op op;
	struct piece piece;
	uint8_t *data;
	uint64_t ring_end;  /* position in the ring, counted without end, behind this piece */
	_Atomic bool arrived;
};

enum session_file_state { FILE_HASHED = 1 /* the sender's hash is here */, FILE_WRITTEN = 2, FILE_DONE = 4 };

struct session_file {
	uint64_t sent_hash, hash;
	int fd;         /* while WRITTEN and not DONE */
	uint32_t state; /* enum session_file_state */
};

struct session {
	const struct copy_options *o;
	struct copy_error error;
	struct report report;
	struct store store;
	struct journal journal;
	struct manifest m;
	struct proto_link link;
	struct proto_msg msg;           /* main thread's scratch */
	uint32_t hello_flags;
	uint64_t sender_limit_bytes_per_s, sender_rtt_ns;
	uint8_t *list, *answer;
	uint64_t list_bytes;
	uint64_t chunk_bytes, window_bytes;
	uint64_t present_bytes, arrived_bytes, first_ns, last_ns, moving_bytes;
	size_t to_send;                 /* files that travel */
	bool greeted, running, final;
	size_t name_at;                 /* entry shown in the progress line */
	/* the writer's own */
	struct plan plan;
	struct piece next;
	bool have_next;
	uint64_t posted, written;       /* pieces */
	uint64_t ring_at, ring_free;    /* positions counted without end: next to give, first not yet free */
	uint8_t *ring;
	tern_mem *ring_mem;
	struct slot *slot;              /* SESSION_SLOTS, by piece number */
	/* shared under lock */
	pthread_t writer, finisher;
	pthread_mutex_t lock;
	pthread_cond_t arrived, finish; /* for the writer; for the finisher */
	bool stop;
	struct session_file *file;
	uint32_t *ready;                /* ring of files that are WRITTEN and HASHED, room for all */
	size_t ready_at, ready_n;
	uint32_t open_files;
	size_t done;
	struct { bool wanted; size_t file; int fd; uint64_t bytes; } checkpoint; /* of the file that is being written */
	struct { size_t file; uint64_t bytes; bool active; } partial;            /* as far as the writer is; read after the threads have ended */
};

/** @return NULL without memory */
struct session *session_open(const struct copy_options *o, tern_ctx *ctx, tern_ep *ep, tern_peer peer);
/** An event; those of other peers do nothing. */
void session_event(struct session *s, const tern_event *ev);
/** Regular work: notices the end, shows progress. @return true: it is over, session_end may be called */
bool session_step(struct session *s);
/** Stops the threads, keeps what can be resumed, and prints the result. @return the exit code. Then events go on to session_event until session_idle */
int session_end(struct session *s);
bool session_idle(const struct session *s);
void session_close(struct session **s);

/** @param arg  struct session */
void *writer_run(void *arg);
void *finish_run(void *arg);
/** With the lock held: the file is written, or its hash has come; both: it goes to the finisher. */
void finish_mark(struct session *s, size_t file, uint32_t state);
/** After the threads have ended: records what an unfinished transfer can go on from. */
void finish_keep(struct session *s);

#endif
