/* Inside of the public API: the context, its endpoints, peers, operations. Included by api/ only. What api adds to loop/: handles with generations, rings between
 * threads, addresses, files, the control plane's callbacks.
 *
 * Threads: everything under `lock` belongs to whoever holds it: the loop thread or a polling caller during a step, the control thread in its callbacks, callers of
 * control-plane functions. Operations go past the lock: slab -> command ring -> loop -> event ring -> poller. */
#ifndef API_CONTEXT_H
#define API_CONTEXT_H
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include "api/lock.h"
#include "base/list.h"
#include "base/ring.h"
#include "control/contract.h"
#include "control/control.h"
#include "loop/loop.h"
#include "tern/tern.h"

enum {
	API_LIST_SLOTS = 256,      /* operations with more than one range at a time */
	API_INJECT_SLOTS = 256,
	API_INJECT_BYTES = 4096,
	API_INJECT_OWN = 64,       /* up to here they lie in the operation itself */
	API_NODES = 4096,          /* events of peers' writes and mismatches, waiting to be polled; beyond it the peer waits */
	API_NODES_PEER = 4,        /* and for each peer, of its own coming and going */
	API_NOTES = 64,            /* remembered failures with their texts */
	API_COMMANDS_STEP = 512,
	API_OPTIONS_MAX = 256,
	API_SPIN_NS = 30000,       /* the loop's own thread looks around this long before it sleeps */
	API_SLEEP_MIN_NS = 70000,  /* shorter naps are not worth their wake-up: spin */
};

/* Objects handed out to any thread without a lock. */
struct api_slab {
	_Alignas(16) ck_stack_t stack; /* its two words change together: cmpxchg16b wants them so */
	ck_stack_entry_t *entry; /* one an object */
	uint8_t *memory;
	size_t bytes; /* of one */
	uint32_t n;
	void (*on_put)(void *object); /* gives back what the object holds, before another may get it; or NULL */
};

/* The ranges of an operation that has more than one, and the registrations it keeps in use. */
struct api_list {
	struct layout_range range[LAYOUT_RANGES_MAX];
	tern_mem *mem[LAYOUT_RANGES_MAX];
	uint32_t n;     /* of mem */
};

struct api_address {
	char scheme[16];
	char host[CONTROL_HOST_MAX];
	char cc[TERN_CC_NAME_MAX];
	char emu[CONTROL_PATH_MAX / 4], contract[CONTROL_PATH_MAX / 4];
	char options[API_OPTIONS_MAX]; /* what the link reads itself */
	char ctl[CONTROL_HOST_MAX];    /* host of the control connection, "": the same */
	char also[API_OPTIONS_MAX];    /* further addresses of the peer, in digits, commas between them */
	uint8_t paths;                 /* to each address; 0: 1 */
	uint16_t ctl_port;             /* 0: the same */
	uint32_t mtu_bytes;
	uint16_t port;
	bool is_private;
};

enum api_op_state { API_OP_FREE = 0, API_OP_POSTED, API_OP_ENDED /* its event waits */, API_OP_TESTED /* ended, tern_test may take it */ };

struct api_op {
	struct msg_op op; /* first */
	tern_ep *ep;
	_Atomic uint32_t gen;
	uint32_t cancel_gen;    /* under the lock: the life, plus 1, that a cancel in the ring means */
	_Atomic uint32_t state; /* enum api_op_state; release by the loop (TESTED) pairs with acquire in tern_test */
	struct api_list *ranges; /* of api_lists, or NULL */
	uint8_t *inject;         /* of api_injects, or NULL */
	tern_mem *mem;
	bool has_dmabuf;         /* among what it names: then api_op_mem has something to do */
	bool is_open;            /* to the processor: api_op_mem */
	uint64_t time_ns;
	uint8_t own[API_INJECT_OWN]; /* the bytes of a short message with TERN_INJECT */
};

/* An event without an operation. */
struct api_node {
	tern_event event;
};

enum api_link_use { API_LINK_LISTEN = 1, API_LINK_DIAL = 2 };
/* An open link of the context, found again by what it was asked for. */
struct api_link {
	struct link *link;
	uint8_t use;
	uint32_t peers; /* DIAL: that use it; it closes with the last */
	uint64_t listener;
	struct api_address address;
};

struct api_listener {
	struct list link; /* in tern_ep.listeners */
	tern_ep *ep;
	struct api_link *via;
	uint64_t id;
	struct api_address address;
	struct contract contract;
	bool has_contract;
};

struct api_peer {
	struct loop_peer *lp; /* NULL: ended, waits for its slot to be used again */
	tern_ep *ep;
	uint64_t id;         /* tern_peer */
	uint64_t control_id;
	struct api_link *via;
	struct api_listener *listener; /* accepted ones */
	struct api_address address;
	struct contract contract;
	bool has_contract;
	bool accepted, connected, draining, closing, closed;
	uint8_t offered;     /* paths in its hello, if it was accepted */
	int bye_status;      /* of the peer's goodbye */
	uint64_t closing_ns; /* the peer said goodbye: what it still acknowledges counts until then */
	void *user;
	int status;
	char text[CONTROL_TEXT_MAX];
	/* of the session, once it stands */
	bool is_known;
	uint8_t node[WIRE_NODE_ID_BYTES];
	uint64_t epoch;
	char name[WIRE_HELLO_NAME_MAX + 1];
};

struct tern_mem {
	struct list link; /* in tern_ctx.mems */
	tern_ctx *ctx;
	uint8_t *addr;
	uint64_t bytes;
	bool owned;       /* allocated here */
	uint32_t number;  /* of its region: what goes into frames and exports */
	uint32_t rights;  /* that exports may give */
	int dmabuf_fd;    /* our own; -1: ordinary memory */
	uint64_t offset;  /* in the dma-buf */
	bool is_mapped;   /* the dma-buf, here */
	bool is_open;     /* the dma-buf, to the processor, because peers reach it */
	_Atomic uint32_t uses;
};

/* A revocation that waits for operations of the peer that were under way. */
struct api_revoke {
	struct list link; /* in tern_ctx.revokes */
	tern_ep *ep;
	tern_mem *mem;
	tern_peer peer;
};

struct tern_rmem {
	tern_ep *ep;
	tern_peer peer;
	uint64_t key, bytes;
	uint32_t rights;
};

struct tern_ep {
	tern_ctx *ctx;
	struct list link;      /* in tern_ctx.eps */
	struct msg_ep *msg;
	struct list listeners;
	ck_ring_t events;      /* one producer: the loop; one consumer: the poller. Entries: struct api_op *, or struct api_node * with bit 0 set */
	ck_ring_buffer_t *slots;
	int event_fd, poll_fd; /* poll_fd: what tern_fd returns. Without a thread of the library a set of all that may wake:
	                          event_fd, timer_fd, wake_fd and the links' descriptors themselves, for each layer of sets
	                          costs a callback an arrival */
	int timer_fd;
	uint64_t timer_ns;     /* when timer_fd fires, or has fired; the poller's own */
	_Atomic bool armed;    /* A1: set by tern_arm, then the ring is looked at; R1: the loop fills the ring, then looks here. Both seq_cst */
	_Atomic bool written;  /* event_fd was */
	_Atomic uint32_t open_ops;
	bool is_closing;
	bool asleep;           /* the poller's own: armed since its last poll, counted in tern_ctx.sleeping */
};

struct api_note_text {
	uint64_t what;
	int err;
	char text[CONTROL_TEXT_MAX];
};

struct tern_ctx {
	tern_config config;
	char key_file[CONTROL_PATH_MAX], contract_file[CONTROL_PATH_MAX];
	struct contract contract;
	bool has_contract, has_key;
	char key_trouble[CONTROL_TEXT_MAX]; /* why there is no key */
	const struct tern_cc *cc;
	unsigned fork_count;
	struct api_mutex lock;
	_Atomic int waiters;   /* callers that want the lock: the loop's thread lets them in */
	struct loop *loop;
	struct control *control;
	uint8_t node_id[WIRE_NODE_ID_BYTES];
	uint64_t epoch;
	struct api_slab ops, lists, injects, nodes;
	_Atomic uint32_t nodes_out;
	ck_ring_t commands;    /* many producers, consumer: the loop. Entries: struct api_op *, with bit 0 set: cancel it */
	ck_ring_buffer_t *command_slots;
	struct list eps;
	struct api_peer **peers; /* by slot */
	uint32_t *peer_gen;
	tern_ep **peer_ep;     /* whose the slot is, NULL: nobody's; read without the lock by those who post */
	uint64_t next_id;      /* listeners and connections */
	struct api_link *links[LOOP_LINKS_MAX];
	size_t links_n;
	uint32_t draining;     /* peers that wait to be closed */
	struct list revokes;   /* struct api_revoke */
	struct list mems;      /* struct tern_mem */
	pthread_t thread;
	bool has_thread;
	_Atomic bool stop;
	_Atomic int sleeping; /* A2: raised, then the command ring is looked at; R2: a command is put in, then this is looked at. Both seq_cst. The
	                         thread, or each armed endpoint */
	int wake_fd, epoll_fd; /* epoll_fd: what the library's thread sleeps on */
	_Atomic bool woken;    /* wake_fd was written */
	bool is_unwatched;     /* an endpoint has come whose set lacks the links' descriptors */
	uint64_t now_ns;
	struct api_note_text note[API_NOTES];
	uint32_t notes;
	pthread_mutex_t note_lock;
};

static inline uint32_t api_nodes(const tern_ctx *ctx)
{
	return API_NODES + API_NODES_PEER * ctx->config.max_peers;
}

/* context.c */
extern unsigned api_fork_count;
static inline bool api_forked(const tern_ctx *ctx)
{
	return ctx->fork_count != api_fork_count;
}
int api_fork_refuse(void);
/** Before the lock: in a forked child it may be held by a thread that is not there. @return 0, -TERN_EFORK in words */
static inline int api_fork_check(const tern_ctx *ctx)
{
	return api_forked(ctx) ? api_fork_refuse() : 0;
}
void api_lock(tern_ctx *ctx);
void api_unlock(tern_ctx *ctx);
void api_wake(tern_ctx *ctx);
void api_log(tern_ctx *ctx, int level, const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 5, 6)));
void api_note(tern_ctx *ctx, uint64_t what, int err, const char *text);
#define LOG(ctx, level, ...) api_log(ctx, level, __FILE__, __LINE__, __VA_ARGS__)

/* slab.c */
int api_slab_open(struct api_slab *s, size_t bytes, uint32_t n);
void api_slab_close(struct api_slab *s);
void *api_slab_get(struct api_slab *s);
void api_slab_put(struct api_slab *s, void *object);
static inline uint32_t api_slab_index(const struct api_slab *s, const void *object)
{
	return (uint32_t)((size_t)((const uint8_t *)object - s->memory) / s->bytes);
}
ck_ring_buffer_t *api_ring_open(ck_ring_t *ring, uint32_t least);

/* drive.c */
/** One step and everything it brought, under the lock. @return true: something happened */
bool api_step(tern_ctx *ctx, uint64_t now_ns);
/** Sends what was posted, as a caller does before it sleeps; api_arm_links then says whether a step is due. Under the lock. @return false: nothing was */
bool api_send(tern_ctx *ctx, uint64_t now_ns);
/** Takes what was posted until now, for calls whose meaning depends on it. Under the lock. */
void api_commands_flush(tern_ctx *ctx);
/** A caller polls: a step if nobody else is at it. */
void api_drive(tern_ctx *ctx);
/** When nothing is left to do now: the links' descriptors are armed. @return when to come back, 0: at once */
uint64_t api_arm_links(tern_ctx *ctx);
void *api_thread(void *arg);
void api_event(tern_ep *ep, const tern_event *event);
void api_node_free(tern_ctx *ctx, struct api_node *node);
void api_op_free(struct api_op *op);
void api_op_event(struct api_op *op, tern_event *out);

/* address.c */
int api_address_parse(const char *text, struct api_address *out);
/** A blob for this machine, with everything that was asked for. */
int api_address_write_own(const struct api_address *a, void *blob, size_t *bytes);
/** A blob for others: without what the link reads itself (engine=), which is a choice of this machine. */
int api_address_write(const struct api_address *a, void *blob, size_t *bytes);
int api_address_read(const void *blob, size_t bytes, struct api_address *out);
/** Paths to all addresses together. */
unsigned api_address_paths(const struct api_address *a);
/** The address that a path leads to: the host itself (which may be a name) for the first ones, then those of also=. @return false: the host */
bool api_address_host(const struct api_address *a, unsigned path, char *out, size_t bytes);

/* link.c */
/** DIAL: an open one that fits is shared; each call is one use, given back by api_link_drop. */
int api_link_open(tern_ctx *ctx, const struct api_address *a, uint8_t use, uint16_t port, struct api_link **out);
void api_link_close(tern_ctx *ctx, struct api_link **link);
/** A peer no longer uses its DIAL link. Its paths must be gone. */
void api_link_drop(tern_ctx *ctx, struct api_link **link);
/** Whoever sleeps watches a link's descriptors too, from now on: they change when one engine gives way to another. */
void api_link_watch(tern_ctx *ctx, const struct link_wait *wait);
/** @return 0, or -1 with errno */
int api_watch(int set, int fd, bool is_edge);
int api_contract_load(tern_ctx *ctx, const struct api_address *a, struct contract *out, bool *has);
void api_path_params(tern_ctx *ctx, const struct api_peer *peer, struct loop_path_params *out);

/* peer.c */
extern const struct control_events api_control_events;
struct api_peer *api_peer_find(tern_ctx *ctx, tern_peer peer);
/** The same, and it must be this endpoint's. */
struct api_peer *api_peer_of(const tern_ep *ep, tern_peer peer);
int api_peer_new(tern_ep *ep, struct api_peer **out);
void api_peer_close(struct api_peer *peer, int status, int bye);
void api_peer_changed(tern_ctx *ctx, struct loop_peer *lp);
void api_peer_drain(tern_ctx *ctx);
void api_peer_forget(struct api_peer *peer);

/* memory.c */
/** Ends revocations whose last operation has ended. Under the lock. */
void api_mem_revoked(tern_ctx *ctx);
/** An operation begins, or ends, with memory of this registration. */
void api_mem_op(const tern_mem *mem, bool writes, bool begins);
/** A peer or an endpoint (the other is 0, NULL) goes: its exports and revocations too. */
void api_mem_forget(tern_ctx *ctx, tern_peer peer, const tern_ep *ep);

/* op.c */
void api_command(tern_ctx *ctx, void *entry);
/** The processor begins, or ends, to look at memory that the operation names: a dma-buf's driver wants to know. */
void api_op_dmabuf(struct api_op *op, bool begins);
static inline void api_op_mem(struct api_op *op, bool begins)
{
	if (op->has_dmabuf)
		api_op_dmabuf(op, begins);
}
/** on_put of tern_ctx.lists. */
void api_list_put(void *object);

#endif
