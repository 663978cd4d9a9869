/* Tern: moves tensors between sites.
 *
 * A context owns loops, links and the node's identity. An endpoint has its own order, tags, events and file descriptor. A peer is one remote endpoint;
 * peers and operations are numbers with a generation, so that a stale one gives TERN_ESTALE and never means something else.
 *
 * Threads: any thread may call anything; one thread at a time polls an endpoint. Only tern_wait blocks.
 * Errors: every function returns 0 or -TERN_E...; tern_error_detail says more in words.
 * Order: messages of a pair of endpoints match in the order they were sent, whatever the tag and path.
 * Memory: given to an operation it stays in use until the operation's event.
 */
#ifndef TERN_H
#define TERN_H
#include <stddef.h>
#include <stdint.h>
#include "tern/error.h"
#include "tern/stats.h"
#include "tern/tensor.h"
#include "tern/version.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef struct tern_ctx tern_ctx;
typedef struct tern_ep tern_ep;
typedef struct tern_rmem tern_rmem; /* memory a peer exported, imported here */
typedef uint64_t tern_peer;
typedef uint64_t tern_op;

enum { TERN_ANY_PEER = 0, TERN_ADDR_MAX = 128, TERN_HANDLE_MAX = 256, TERN_TEXT_MAX = 512 };
#define TERN_TIME_NONE UINT64_MAX

/* ---- context ------------------------------------------------------------------------------------------------------------------------- */

enum tern_log_level { TERN_LOG_ERROR = 0, TERN_LOG_WARN, TERN_LOG_INFO, TERN_LOG_DEBUG };
enum tern_config_flags {
	TERN_OWN_THREAD = 1, /* a thread of the library drives the loop; otherwise tern_poll, tern_wait and tern_test do */
};

typedef struct tern_config {
	size_t size_bytes;         /* sizeof(tern_config): set by tern_config_init */
	uint32_t flags;            /* enum tern_config_flags */
	uint32_t max_peers;        /* default 1024 */
	uint32_t max_ops;          /* operations that have not ended, all endpoints together; default 4096. Past it calls give TERN_EAGAIN */
	uint32_t mtu_bytes;        /* largest frame that udp tries, IP header included; 0: found by probing. Environment TERN_MTU */
	uint64_t unmatched_bytes;  /* memory for messages that came before their receive, all peers together; default 16 MiB */
	const char *key_file;      /* site key made by tern-key; NULL: $TERN_KEY, then ~/.config/tern/site.key */
	const char *contract_file; /* INI (docs/tuning.md); NULL: $TERN_CONTRACT, otherwise none */
	const char *cc;            /* "lightpath", "cubic", "fixed"; NULL: $TERN_CC, then "lightpath" */
	/** Gets every message of the library; called from any of its threads, must not call back into it. NULL: silent. */
	void (*log)(void *arg, int level, const char *file, int line, const char *text);
	void *log_arg;
	uint64_t peer_timeout_ns;    /* a peer silent for so long while something is owed is dead; default 10 s */
	uint64_t connect_timeout_ns; /* for the whole set-up; default 10 s */
} tern_config;

/**
 * Fills in the defaults and then the TERN_* environment variables.
 * @param size_bytes  sizeof(tern_config), so that an older program works with a newer library
 */
void tern_config_init(tern_config *config, size_t size_bytes);

/**
 * Opens a context: threads, pools, the control plane. The key file is read here, when there is one.
 * @param config  NULL: all defaults. Read during the call only, but the hook and its argument stay in use
 * @param out     the context; closed by tern_close
 * @return 0, -TERN_EINVAL, -TERN_ENOMEM, -TERN_EKEY (malformed or readable by others), -TERN_EIO; on failure *out is NULL and
 *         tern_error_detail(NULL, ...) says why
 */
int tern_open(const tern_config *config, tern_ctx **out);

/**
 * Closes the context and every endpoint left in it: peers get a close, operations end with TERN_ECANCELED (their events are lost).
 * Takes up to 100 ms to have all memory back. Sets *ctx to NULL.
 */
int tern_close(tern_ctx **ctx);

/**
 * Says in words what the last error of this thread was, with the value and the remedy.
 * @param ctx    NULL: the last failing call of this thread. Otherwise, with `op`, the text of that operation's or peer's failure
 * @param what   an op or peer number, or 0
 * @param text   gets at most `bytes` bytes, terminator included
 * @return 0, -TERN_ENOENT if nothing is recorded (then text is "")
 */
int tern_error_detail(tern_ctx *ctx, uint64_t what, char *text, size_t bytes);

/* ---- endpoints and peers ------------------------------------------------------------------------------------------------------------- */

/** Opens an endpoint. @return 0, -TERN_ENOMEM, -TERN_ELIMIT, -TERN_EFORK */
int tern_ep_open(tern_ctx *ctx, tern_ep **out);

/** Closes it: operations end with TERN_ECANCELED, peers get a close, unread events are lost. Sets *ep to NULL. */
int tern_ep_close(tern_ep **ep);

/**
 * Accepts peers at a text address: "udp://host:port" (port 0: any), "udp://[::]:7400?private=1", "rdma://10.9.0.2:7400?private=1"
 * (needs private=1: payload leaves unsealed), "dpdk://10.0.0.1:7400".
 * Peers that arrive give TERN_EV_CONNECTED. TCP and UDP use the same port number. Several addresses may be listened on.
 * Query options: private=1 (frames not sealed; must be set at both ends), emu=FILE (frames leave through an emulated link, docs/tuning.md),
 * cc=NAME, contract=FILE, mtu=BYTES, ctl=HOST[:PORT] (the control connection, TCP, goes there instead: for addresses that the kernel does not have; in an
 * address to connect to it needs the host in digits). Others are the link's: engine= of udp, those of docs/rdma.md and docs/dpdk.md.
 * To connect over several paths (docs/paths.md): also=ADDRESS,ADDRESS (further addresses of the peer, in digits, same port) and paths=N (so many to each
 * address; they share its contract); 16 in all. A listener's contract is shared by all paths of a peer; with paths=N by so many.
 * @return 0, -TERN_EADDR (malformed, in use), -TERN_ESCHEME, -TERN_EKEY (no site key), -TERN_EINVAL (an unknown option), -TERN_EPRIVATE (rdma without
 *         private=1)
 */
int tern_listen(tern_ep *ep, const char *text);

/**
 * The endpoint's address for any store: hand it to peers, who give it to tern_connect.
 * @param blob   gets the bytes; *bytes is its size before (TERN_ADDR_MAX is always enough) and the address' length after
 * @return 0, -TERN_ENOENT before tern_listen, -TERN_EINVAL if too small
 */
int tern_ep_address(tern_ep *ep, void *blob, size_t *bytes);

/**
 * Turns a text address into a blob; same rules as tern_ep_address. Names are resolved when connecting. Options that name devices of this machine (dev=, eal=, if=,
 * ip=) are for tern_connect_text only.
 * @return 0, -TERN_EADDR, -TERN_ESCHEME, -TERN_EINVAL
 */
int tern_resolve(tern_ctx *ctx, const char *text, void *blob, size_t *bytes);

typedef struct tern_connopts {
	size_t size_bytes;
	uint64_t timeout_ns; /* for the set-up; 0: the config's */
	void *user;          /* comes back in TERN_EV_CONNECTED */
} tern_connopts;

/**
 * Starts a connection; never blocks. Operations may be posted at once and leave when the peer is up. TERN_EV_CONNECTED follows, its status says
 * whether it worked: TERN_EADDR, TERN_EAUTH, TERN_EVERSION, TERN_EBLOCKED, TERN_EPRIVATE, TERN_ETIMEDOUT; then everything posted ends with TERN_EPEER.
 * @param opts  NULL: zeros
 * @return 0, -TERN_EADDR, -TERN_ESCHEME, -TERN_EKEY, -TERN_ELIMIT (max_peers)
 */
int tern_connect(tern_ep *ep, const void *blob, size_t bytes, const tern_connopts *opts, tern_peer *out);

/** The same for a text address, of any length. @return as tern_connect, -TERN_EINVAL (an unknown option) */
int tern_connect_text(tern_ep *ep, const char *text, const tern_connopts *opts, tern_peer *out);

/**
 * Closes a peer. drain 1: after everything posted to it has ended; drain 0: now, operations end with TERN_ECANCELED, the other side sees TERN_EV_PEER_CLOSED.
 * TERN_EV_PEER_CLOSED follows here too. @return 0, -TERN_ESTALE
 */
int tern_disconnect(tern_ep *ep, tern_peer peer, int drain);

/** The peer's node name (32 hex digits) and epoch; a restarted peer has another epoch. @return 0, -TERN_ESTALE, -TERN_EAGAIN while connecting */
int tern_peer_identity(tern_ep *ep, tern_peer peer, char *name, size_t bytes, uint64_t *epoch);

/* ---- memory -------------------------------------------------------------------------------------------------------------------------- */

enum tern_rights { TERN_REMOTE_READ = 1, TERN_REMOTE_WRITE = 2 };

enum tern_mem_kind {
	TERN_MEM_HOST = 0, /* the processor's: malloc, huge pages, memfd, files mapped writable */
	TERN_MEM_DMABUF,   /* another driver's, as a dma-buf */
	TERN_MEM_CUDA,     /* refused: register its dma-buf */
};

/* Memory to register. What a later version adds is 0 here. */
typedef struct tern_memdesc {
	size_t size_bytes; /* sizeof(tern_memdesc) */
	void *addr;        /* HOST: where it is. DMABUF: where the caller has mapped it, from `offset` on, or NULL: mapped by the library (tern_mem_address) */
	uint64_t bytes;
	uint64_t offset;   /* DMABUF: in the dma-buf */
	uint32_t kind;     /* enum tern_mem_kind */
	int device;        /* of the kinds that have several; 0 */
	int dmabuf_fd;     /* DMABUF: stays the caller's, who may close it after the call */
	uint32_t rights;   /* enum tern_rights: all that tern_mem_export may give; 0: both */
} tern_memdesc;

/**
 * Allocates memory that every open link takes without a copy; page-aligned, zeroed; 2 MiB and more in huge pages where the system has them. Freed by tern_mem_release.
 * @return 0, -TERN_ENOMEM, -TERN_EINVAL
 */
int tern_mem_alloc(tern_ctx *ctx, uint64_t bytes, void **addr, tern_mem **out);

/**
 * Registers memory for every link that is open or comes: once, whatever the number of peers. The memory must stay mapped until tern_mem_release. Pinning takes its time
 * (20 ms/GB) in the caller's thread; operations of others go on. Where a link cannot map it its frames are copied, which the log says in words.
 *
 * A dma-buf must be mappable for the processor: links without a device of their own, small messages and what was lost go through that mapping. Operations say `mem`
 * with it, always; its driver is told when the processor looks (DMA_BUF_IOCTL_SYNC): from the call to the operation's event, and while it is exported.
 * @param desc  read during the call only
 * @return 0; -TERN_ENOMEM (cannot be pinned), -TERN_EINVAL (no dma-buf, or it is shorter; another kind), -TERN_EIO (the dma-buf cannot be mapped)
 */
int tern_mem_register_desc(tern_ctx *ctx, const tern_memdesc *desc, tern_mem **out);

/** The same for ordinary memory. */
int tern_mem_register(tern_ctx *ctx, void *addr, uint64_t bytes, tern_mem **out);

/** Where registered memory is, for operations and for the processor. @return 0, -TERN_EINVAL */
int tern_mem_address(const tern_mem *mem, void **addr, uint64_t *bytes);

/**
 * Ends a registration or frees an allocation and revokes its exports. Takes up to 100 ms where a link lets peers write there by itself.
 * @return 0 and *mem = NULL; -TERN_EBUSY while an operation uses it, named or found to lie in it (nothing was done), or if a link did not give it back in time (its
 *         exports are revoked: call again)
 */
int tern_mem_release(tern_mem **mem);

/**
 * Lets one peer read or write the memory.
 * @param rights  enum tern_rights; no others than it was registered with
 * @param blob    gets a handle for that peer (TERN_HANDLE_MAX is always enough); it carries this node's epoch
 * @return 0, -TERN_ESTALE, -TERN_EINVAL, -TERN_ELIMIT (4096 exports)
 */
int tern_mem_export(tern_ep *ep, tern_mem *mem, tern_peer only, uint32_t rights, void *blob, size_t *bytes);

/** Takes the exports for a peer back. TERN_EV_REVOKED follows when nothing more can land. @return 0, -TERN_ENOENT, -TERN_ESTALE */
int tern_mem_revoke(tern_ep *ep, tern_mem *mem, tern_peer only);

/** Makes a peer's handle usable here. @return 0, -TERN_EINVAL (malformed), -TERN_ESTALE (of another epoch of that peer) */
int tern_mem_import(tern_ep *ep, tern_peer peer, const void *blob, size_t bytes, tern_rmem **out);
int tern_rmem_release(tern_rmem **rmem);

/* ---- operations ---------------------------------------------------------------------------------------------------------------------- */

enum tern_op_flags {
	TERN_INJECT = 1,       /* send, write: the buffer (at most 4096 bytes) is free on return */
	TERN_DONE_MATCHED = 8, /* send: ends when a receive took it; default: when acknowledged */
	TERN_QUIET = 16,       /* only failures give an event */
	TERN_TESTED = 32,      /* tern_test instead of an event */
	TERN_IMM = 256,        /* `imm` travels along */
};

typedef struct tern_args {
	size_t size_bytes; /* sizeof(tern_args) */
	uint32_t flags;    /* enum tern_op_flags */
	void *user;        /* comes back in the event */
	uint64_t tag;
	uint64_t ignore;   /* receive: bits of the tag that do not matter; UINT64_MAX: any tag */
	uint64_t imm;
} tern_args;

/**
 * Sends a message. Ends (TERN_EV_SEND) when every byte is acknowledged; the memory must not change until then. Tensors are gathered from their strides
 * without a packing copy while the inner runs are at least a frame's payload.
 * @param args  NULL: zeros
 * @param op    gets the operation's number; may be NULL
 * @return 0; -TERN_EAGAIN (max_ops: poll, then again), -TERN_EINVAL, -TERN_ESTALE, -TERN_EFORK: the buffer is not taken.
 *         Event status: TERN_EPEER, TERN_ECANCELED, TERN_ESHAPE, TERN_ETRUNC (the receive was smaller)
 */
int tern_send(tern_ep *ep, tern_peer peer, const tern_buf *buf, const tern_args *args, tern_op *op);

/**
 * Receives the first message, in send order, whose tag agrees in the bits not ignored. Receives match in the order they were posted.
 * @param peer  TERN_ANY_PEER: from anyone
 * @return as tern_send. Event (TERN_EV_RECV): `bytes` is the message's size, `tag`, `imm` and `peer` the sender's.
 *         Status TERN_ETRUNC: the rest was dropped. TERN_ESHAPE: nothing was placed. On any failure the contents are undefined
 */
int tern_recv(tern_ep *ep, tern_peer peer, const tern_buf *buf, const tern_args *args, tern_op *op);

/**
 * Writes into exported memory of the peer. Ends (TERN_EV_WRITE) when acknowledged: every byte is placed. With TERN_IMM the owner
 * gets TERN_EV_REMOTE_WRITE after the data.
 * @return as tern_send; also -TERN_EINVAL when it reaches past the end. Event status TERN_EAUTH: revoked or no right
 */
int tern_write(tern_ep *ep, tern_rmem *remote, uint64_t remote_offset, const tern_buf *buf, const tern_args *args, tern_op *op);

/** Reads from exported memory of the peer. Ends (TERN_EV_READ) when every byte is in `buf`. Errors as tern_write. */
int tern_read(tern_ep *ep, tern_rmem *remote, uint64_t remote_offset, const tern_buf *buf, const tern_args *args, tern_op *op);

/** Asks to end an operation early. It always ends in its event: TERN_ECANCELED, or as it would have. @return 0, -TERN_ESTALE (has ended) */
int tern_cancel(tern_ep *ep, tern_op op);

/* ---- events -------------------------------------------------------------------------------------------------------------------------- */

enum tern_event_type {
	TERN_EV_SEND = 1,
	TERN_EV_RECV,
	TERN_EV_READ,
	TERN_EV_WRITE,
	TERN_EV_REMOTE_WRITE, /* a peer's write with TERN_IMM has landed; op is 0 */
	TERN_EV_CONNECTED,    /* status 0: up; otherwise the peer is gone */
	TERN_EV_PEER_DEAD,    /* silent for peer_timeout_ns, or it broke the protocol; status says */
	TERN_EV_PEER_CLOSED,  /* it, or we, closed cleanly */
	TERN_EV_REVOKED,
	TERN_EV_MISMATCH,     /* a send that had ended was refused by the receive it met: status TERN_ESHAPE or TERN_ETRUNC, tag is its tag */
	TERN_EV_PATH,         /* one of a peer's several paths (imm: its number) is up: status 0; or was given up for the others: -TERN_EPEER. Nothing is lost */
};

typedef struct tern_event {
	uint32_t type;   /* enum tern_event_type */
	int32_t status;  /* 0 or -TERN_E... */
	void *user;      /* as given with the operation */
	tern_op op;
	tern_peer peer;
	uint64_t tag, imm;
	uint64_t bytes;
	uint64_t time_ns; /* the loop's clock when it ended */
	uint64_t reserved[4];
} tern_event;

/** Takes up to n events without blocking; without TERN_OWN_THREAD it also drives the loop. @return 0 (also when *got is 0), -TERN_EFORK */
int tern_poll(tern_ep *ep, tern_event *events, size_t n, size_t *got);

/** Same, but waits up to timeout_ns (TERN_TIME_NONE: for ever) for the first. @return 0, -TERN_ETIMEDOUT with *got 0 */
int tern_wait(tern_ep *ep, tern_event *events, size_t n, uint64_t timeout_ns, size_t *got);

/** For an operation posted with TERN_TESTED: 0 and its event when it has ended (once), -TERN_EAGAIN before, -TERN_ESTALE after. Drives the loop like tern_poll. */
int tern_test(tern_ep *ep, tern_op op, tern_event *event);

/** A descriptor that becomes readable when tern_poll should be called (events, frames, timers). Owned by the endpoint. For epoll: tern_arm first. */
int tern_fd(tern_ep *ep);

/** Before sleeping on tern_fd. @return 0, -TERN_EAGAIN: there is something already, poll first */
int tern_arm(tern_ep *ep);

/* ---- statistics ---------------------------------------------------------------------------------------------------------------------- */

/**
 * Statistics with names and units.
 * @param scope  NULL or "": the context; "peer/<number>": a peer (decimal tern_peer)
 * @param out    gets up to *n entries; *n is the room before and the number there are after
 * @return 0, -TERN_ENOENT for an unknown scope
 */
int tern_stats_get(tern_ctx *ctx, const char *scope, tern_stat *out, size_t *n);

/** Bytes of the largest contiguous transfer unit ("frame payload") toward the peer now, and the pinned limit in payload bytes/s (0 without a contract). */
int tern_path_limits(tern_ep *ep, tern_peer peer, uint64_t *payload_bytes, uint64_t *limit_bytes_per_s);

#ifdef __cplusplus
}
#endif
#endif
