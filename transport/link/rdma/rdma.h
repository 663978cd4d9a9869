/* Inside of the rdma link, shared by its files; nothing outside transport/link/rdma includes it. See docs/design/005.
 *   module.c  the link_ops: open, close, options, wait, the step that drives everything   memory.c  process-wide: devices, domains, registered
 * regions cm.c      rdma_cm: resolving, requests, answers, events                                path.c    a path's connection: set up, broken,
 * timers leg.c     one queue pair of a connection and its states                                tx.c      frames -> work requests, completions, done
 *   rx.c      receive queues, lent frames                                                  expose.c  memory windows
 *   line.c    RC or UC, and how deep the queues are: by the contract and by what is seen of the line
 * A path keeps its rings and receive buffers over its connections; what belongs to one connection (ids, queue pairs, completion queue) is made anew.
 */
#ifndef LINK_RDMA_RDMA_H
#define LINK_RDMA_RDMA_H
#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#include <sys/socket.h>
#include "link/link.h"
#include "link/log.h"

enum {
	RDMA_LANES_MAX = 8,
	RDMA_LEGS_MAX = 1 + 2 * RDMA_LANES_MAX,
	RDMA_PORTS_MAX = 16, /* devices of a link, and of a domain */
	RDMA_PATHS_MAX = 4096,
	RDMA_TAKEN_MAX = 1 << 16, /* frames taken and not yet reaped; a power of two */
	RDMA_FRAME_BYTES = 8192,
	RDMA_UC_BYTES = 1024, /* until the route says what a packet holds */
	RDMA_LANE_FRAME_BYTES = 512, /* frames without a target on a lane; longer ones go by queue pair 0 */
	RDMA_WRITE_BYTES = 1 << 20,
	RDMA_RQ_RC = 512,  /* of all paths of a link: what is too much waits */
	RDMA_RQ_UC = 1024, /* of each path: what is too much is lost */
	RDMA_LANE_RQ = 4096,
	RDMA_LANE_RQ_MIN = 256,
	RDMA_SQ_DEFAULT = 1024,
	RDMA_INLINE_BYTES = 220,
	RDMA_SEND_RING = 2 << 20,
	RDMA_LANE_RING = 256 << 10,
	RDMA_BATCH = 32, /* work requests of one post, completions of one poll */
	RDMA_SIGNAL_EVERY = 16,
	RDMA_POLLS_MAX = 64,   /* of one path in one step */
	RDMA_UNACKED_MAX = 64,
	RDMA_EVENTS_MAX = 256, /* of the connection manager in one step */
	RDMA_EXPOSED_MAX = 1 << 15,
	RDMA_STALE_MAX = 256, /* runs of writes that were lost before they were sent, to be told */
	RDMA_LKEYS = 256,          /* a link's cache of local keys; a power of two */
	RDMA_RETRIES = 6,          /* 7 would be for ever on some devices */
	RDMA_RNR_TIMER = 18,       /* 5.12 ms */
	RDMA_TIMEOUT_DEFAULT = 16, /* 4.096 us * 2^16 * 7 = 1.9 s */
	RDMA_RESOLVE_MS = 1000,
	RDMA_BACKLOG = 256,
};
#define RDMA_CM_PERIOD_NS 1000000ull /* while connections are being made; who sleeps is woken for it, this is for who polls */
#define RDMA_CM_SETTLED_NS 10000000ull
#define RDMA_BACKOFF_NS 5000000ull
#define RDMA_BACKOFF_MAX_NS 500000000ull
#define RDMA_SETUP_NS 1500000000ull /* then the attempt is given up: the kernel repeats a lost message of its own after 4 s only */
#define RDMA_ACCEPT_NS 10000000000ull

struct rdma_domain;
struct rdma_exposure;
struct rdma_link;
struct rdma_path;

/* One device as one domain uses it: shared by the domain's links. */
struct rdma_device {
	struct ibv_context *verbs;
	struct ibv_pd *pd;
	struct ibv_device_attr attr;
	uint32_t index; /* in the domain */
	uint32_t refs;
	bool has_windows;    /* type 2 */
	bool invalidates_uc; /* a window of a UC queue pair can be invalidated by a work request */
	bool has_odp;
	char name[64];
};

enum rdma_recv_state { RDMA_RECV_IDLE, RDMA_RECV_POSTED, RDMA_RECV_PENDING, RDMA_RECV_LENT };

struct rdma_recv {
	struct rdma_recv *next; /* idle in its queue, or pending in the link */
	struct rdma_rq *rq;
	struct rdma_path *path;
	uint8_t *data;
	uint32_t bytes, imm;
	uint8_t state, lane;
	bool is_placed;
};

/* A receive queue's buffers: of a link (shared receive queue) or of a path (UC; they outlive its queue pairs). */
struct rdma_rq {
	struct ibv_srq *srq;
	struct ibv_qp *qp; /* one of the two, or neither while a UC path is not connected */
	struct ibv_mr *mr;
	uint8_t *data;
	uint64_t data_bytes;
	struct rdma_recv *recv;
	uint32_t n, buffer_bytes;
	struct rdma_recv *idle;
	uint32_t n_idle;
	uint32_t out; /* pending or lent */
	bool is_dead; /* its path is closed: freed with the last lent buffer */
	struct rdma_rq *next_dead, *prev_dead;
};

struct rdma_window {
	struct rdma_window *next;
	struct ibv_mw *mw;
	uint32_t rkey; /* the last it was bound with */
};

/* One device as one link uses it. */
struct rdma_port {
	struct rdma_device *device;
	struct ibv_comp_channel *channel;
	struct rdma_rq *frames, *lanes; /* RC: shared by the link's paths */
	struct rdma_window *windows;    /* not bound */
	struct {
		uint32_t key;
		struct ibv_mr *mr;
	} lkey[RDMA_LKEYS];
	uint32_t lkey_wraps; /* rdma_region_wraps when the cache was empty */
};

/* WRITE: over RC, told by `done`. SPRAY: over UC, its frame is given back when it is sent. */
enum rdma_wr_kind { RDMA_WR_BYTES, RDMA_WR_WRITE, RDMA_WR_SPRAY, RDMA_WR_BIND, RDMA_WR_HIDE };

struct rdma_wr {
	struct frame *frame; /* of a SPRAY */
	uint64_t number;
	uint64_t ring_end; /* of the send ring, behind its bytes */
	uint32_t adhoc;    /* region registered for this request only */
	uint8_t *bounce;   /* that region, where it is a copy */
	uint64_t bounce_bytes;
	struct rdma_exposure *exposure;
	uint8_t kind;
	bool is_lost;
};

/* A send queue: [reported, completed) is known and to be told, [completed, head) is under way. */
struct rdma_sq {
	struct rdma_wr *wr;
	uint32_t depth; /* a power of two; 0: none */
	uint32_t head, completed, reported;
	uint32_t since_signal;
	uint32_t writes; /* RC: not yet told */
	uint8_t *ring;
	uint32_t ring_bytes, ring_lkey;
	uint64_t ring_head, ring_tail;
};

/* One queue pair of a path. */
struct rdma_leg {
	struct rdma_path *path;
	uint32_t index;
	struct rdma_cm_id *id;
	struct ibv_qp *qp;
	struct rdma_sq sq;
	struct rdma_rq *rq;
	uint32_t inline_bytes, max_sge;
	bool is_up;
	struct rdma_exposure *waiting, **waiting_end; /* for room in sq */
};

/* How often a RC path repeats packets, by what its writes show: one at a time is timed, from its posting to its completion (line.c). */
struct rdma_watch {
	struct rdma_leg *leg; /* NULL: none is timed */
	uint32_t index;
	uint64_t since_ns;
	uint64_t least_ns;           /* the shortest with this device, 0: none yet */
	uint64_t busy_ns, extra_ns;  /* sums: of all, and by how much the late ones were later than that */
	uint32_t timed, late, vain;  /* vain: how often in a row there was nothing in it */
	uint64_t pause_ns;           /* until then nothing is timed */
	struct rdma_repeats { uint64_t lost, unready; bool known; } repeats; /* of the device, when the first of the sums was late */
	const struct rdma_device *device;
};

/* What wakes a sleeper: frames of the peer only, or our own completions too. */
enum rdma_armed { RDMA_UNARMED, RDMA_ARMED_FRAMES, RDMA_ARMED_ALL };

enum rdma_path_state { RDMA_PATH_DOWN, RDMA_PATH_SETUP, RDMA_PATH_UP };

struct rdma_path {
	struct link_path base;
	uint32_t index; /* in the link's paths */
	uint8_t token[LINK_TOKEN_BYTES];
	bool is_acceptor;
	bool is_uc;     /* the connection, or the attempt; base.is_reliable is the opposite */
	bool wants_uc;  /* the next one is to be */
	bool is_bound;  /* the peer, or a device, leaves no choice */
	bool has_no_uc; /* ours */
	uint32_t depth_most; /* of send queues, that the device has given; 0: not known */
	struct link_line line;
	struct rdma_watch watch;
	struct sockaddr_storage to, from; /* from: family 0: as routed */
	uint32_t mtu_bytes; /* wanted; 0: the route's */
	uint32_t mtu_agreed;
	uint16_t mtu_wanted; /* acceptor: by the peer, as in its hello */
	uint8_t state;
	uint32_t attempt;
	uint64_t backoff_ns, next_ns; /* DOWN: when to try; SETUP: when to give up */
	struct rdma_port *port;
	struct rdma_device *kept; /* the device that rings and receive buffers are registered with */
	bool kept_uc;             /* and for which kind of connection */
	struct ibv_cq *cq;
	uint32_t cq_depth;
	uint8_t cq_armed; /* enum rdma_armed */
	uint32_t cq_unacked; /* events taken and not acknowledged: that costs a lock, so it is done for many */
	uint32_t awaited; /* requests whose completion somebody waits for: writes, windows */
	bool wants_room;  /* tx took fewer than it was offered */
	struct rdma_leg leg[RDMA_LEGS_MAX];
	uint32_t n_legs, n_up;
	uint8_t *rings;
	uint64_t rings_bytes;
	struct ibv_mr *rings_mr;
	struct rdma_exposure *exposures;
	uint32_t next_lane;
	bool is_failing;
	char why[160];
};

enum rdma_exposure_state { RDMA_EX_FREE, RDMA_EX_BINDING, RDMA_EX_BOUND, RDMA_EX_HIDING, RDMA_EX_OVER };

struct rdma_exposure {
	struct rdma_path *path;
	uint64_t ref;
	uint32_t id; /* generation << 16 | index + 1 */
	uint8_t state;
	bool hide_wanted;
	bool is_queued;     /* in the link's list of events */
	bool tells_exposed; /* events not yet handed out */
	uint8_t tells_end;  /* 0, LINK_HIDDEN, LINK_BROKEN */
	struct link_expose what;
	struct frame_target target;
	struct rdma_window *window;
	struct rdma_leg *leg;              /* the queue pair it holds for */
	struct ibv_mr *region;             /* window's memory */
	struct ibv_mr *own;                /* isolation=mr: a region of its own */
	struct rdma_exposure *next, *prev; /* of the path; next: of the free ones */
	struct rdma_exposure *next_event, *next_waiting;
};

/* What mode= says. AUTO: RC, and UC where the contract's loss or the losses seen make that faster, if the peer agrees. */
enum rdma_mode { RDMA_MODE_AUTO, RDMA_MODE_RC, RDMA_MODE_UC };

struct rdma_options {
	char dev[128]; /* one name, or several with commas between them: one for each of the peer's addresses */
	int gid; /* -1: any */
	uint8_t mode; /* enum rdma_mode */
	bool odp, isolation_mr;
	uint32_t lanes, timeout;
	uint32_t sq, rq; /* 0: as the line wants it, as the kind of connection wants it */
};

struct rdma_link {
	struct link base;
	struct rdma_options options;
	struct rdma_domain *domain;
	bool listening;
	struct sockaddr_storage host; /* to bind; family 0: any */
	struct sockaddr_storage device_host[RDMA_PORTS_MAX]; /* of the devices named by dev=, if there are several */
	uint32_t n_device_hosts;
	struct rdma_event_channel *events;
	struct rdma_cm_id *listener;
	int epoll;
	uint32_t said_ports; /* ports, plus one, whose descriptors wait has given out */
	bool is_armed;  /* wait has armed completion queues: their events are to be taken */
	bool looks_cm;  /* look for events of the connection manager in the next step */
	bool is_settled; /* every path was connected at the last step */
	uint64_t cm_ns; /* last look */
	uint64_t step_ns;
	struct rdma_port port[RDMA_PORTS_MAX];
	uint32_t n_ports;
	struct rdma_path **paths;
	uint32_t n_paths, attempts;
	struct frame **back; /* ring of RDMA_TAKEN_MAX: to be reaped */
	uint32_t back_head, back_tail, taken;
	uint64_t untold; /* frames with a target that are over and done has not told */
	struct link_done stale[RDMA_STALE_MAX]; /* of them those that were never sent: no queue has them */
	uint32_t n_stale;
	struct rdma_recv *pending, **pending_end;
	struct rdma_rq *dead;
	struct rdma_exposure *exposures; /* by index */
	uint32_t exposures_used;         /* high water */
	struct rdma_exposure *exposures_free;
	struct rdma_exposure *telling, **telling_end; /* have an event to hand out */
	bool said_no_windows;
	struct ibv_send_wr wr[RDMA_BATCH];
	struct ibv_sge sge[RDMA_BATCH][FRAME_SEGS_MAX];
};

#define rdma_log(l, level, ...) link_log(&(l)->base, level, __VA_ARGS__)
/** Words into link->trouble. */
void rdma_trouble(struct rdma_link *l, const char *format, ...) __attribute__((format(printf, 2, 3)));
/** "10.9.0.1:7400" */
const char *rdma_addr_text(const void *sockaddr, char *out, size_t room);
uint64_t rdma_now_ns(void);

/* memory.c: everything here may be called from any thread */
int rdma_domain_get(uint64_t number, bool odp, struct rdma_domain **out);
void rdma_domain_put(struct rdma_domain *d);
/** Opens the device or takes the domain's; registers the domain's regions with it. @return 0, -TERN_EIO, -TERN_ENOMEM, -TERN_ELIMIT, words in why */
int rdma_device_get(struct rdma_domain *d, const char *name, struct rdma_device **out, char *why, size_t room);
void rdma_device_put(struct rdma_domain *d, struct rdma_device *device);
/** @return 0 and the key, -TERN_ENOMEM, -TERN_EIO (a device takes no such memory) with words in why */
int rdma_region_get(struct rdma_domain *d, const struct mem_what *what, uint32_t *key, char *why, size_t room);
void rdma_region_put(struct rdma_domain *d, uint32_t key);
/** The region's registration with a device, made now if it is missing. key 0: by address. @return NULL: no such region, or it does not hold all of
 * the range */
struct ibv_mr *rdma_region_mr(struct rdma_domain *d, struct rdma_device *device, uint32_t key, const uint8_t *addr, uint64_t bytes);
/** The same for memory to expose, which must be in one region and not read-only, and holds it until rdma_region_put. */
struct ibv_mr *rdma_region_hold(struct rdma_domain *d, struct rdma_device *device, const struct link_expose *what);
/** Changes when keys begin to repeat: what was remembered by key is void. */
uint32_t rdma_region_wraps(struct rdma_domain *d);
/** "...; the limit on locked memory is 64 KiB..." */
void rdma_words_locked(char *out, size_t room, uint64_t bytes);

/* module.c */
/** @return the port of a device, opened when it is new; NULL with words in link->trouble */
struct rdma_port *rdma_port_get(struct rdma_link *l, const char *name);
/** Opens the receive queues that its RC paths share, with the first of them. @return 0 or -TERN_ENOMEM with words in link->trouble */
int rdma_port_share(struct rdma_link *l, struct rdma_port *port);
/** Is it among those of dev=? Without dev= every one is. */
bool rdma_uses_device(const struct rdma_link *l, const char *name);
void rdma_step(struct rdma_link *l, uint64_t now_ns);

/* cm.c */
int rdma_cm_listen(struct rdma_link *l, uint16_t port, char *error, size_t room);
void rdma_cm_events(struct rdma_link *l, uint64_t now_ns);
/** Begins to resolve and connect one leg. @return 0 or -TERN_EIO with words in path->why */
int rdma_cm_dial(struct rdma_leg *leg);
/** The address of a device's GID, for binding. @return false with words in error */
bool rdma_cm_device_address(const char *dev, int gid, struct sockaddr_storage *out, char *error, size_t room);

/* line.c */
/** With what the contract says: which kind of connection the path begins with. */
void rdma_line_open(struct rdma_path *p);
/** Depth of a send queue for writes: the contract's rate x RTT, within the device's limits. A power of two */
uint32_t rdma_line_depth(const struct rdma_path *p);
/** The device gives no queue pair so deep: half of that? @return false: it is not the depth */
bool rdma_line_shallower(struct rdma_leg *leg);
/** RC: a request was posted, the leg's last, with a completion; one completed, index and all before it. */
void rdma_line_sent(struct rdma_leg *leg, uint64_t now_ns);
void rdma_line_completed(struct rdma_leg *leg, uint32_t index);
/** The device makes no UC queue pairs: with mode=auto the path stays with RC. */
void rdma_line_no_uc(struct rdma_path *p);
/** A connection begins; it ends. */
void rdma_line_start(struct rdma_path *p);
void rdma_line_end(struct rdma_path *p);

/* leg.c */
int rdma_leg_create(struct rdma_leg *leg);
/** INIT -> RTR -> RTS with what the connection manager knows. @return 0 or -1 with words in path->why */
int rdma_leg_init(struct rdma_leg *leg);
int rdma_leg_ready(struct rdma_leg *leg);
void rdma_leg_destroy(struct rdma_leg *leg);

/* path.c */
int rdma_path_open(struct link *link, const struct link_path_config *config, struct link_path **out);
void rdma_path_close(struct link *link, struct link_path **path);
void rdma_path_reset(struct link *link, struct link_path *path);
/** Everything a connection needs besides its queue pairs, with the device that the route leads to. @return 0 or an error with words in path->why */
int rdma_path_attach(struct rdma_path *p, const char *device, uint32_t lanes);
void rdma_path_leg_up(struct rdma_leg *leg);
/** Which kind the next connection is. @return false: not now, something of the last one, which was of the other kind, is still to be handed out */
bool rdma_path_kind(struct rdma_path *p, bool is_uc);
/** Notes a failure; rdma_step takes the connection down. */
void rdma_path_fail(struct rdma_path *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
/** Takes the connection down, now. */
void rdma_path_down(struct rdma_path *p, uint64_t now_ns);
void rdma_path_step(struct rdma_path *p, uint64_t now_ns);
void rdma_path_poll(struct rdma_path *p);
/** Arms the completion queue for what is waited for, then polls: what came before the arming would not fire. */
void rdma_path_arm(struct rdma_path *p);
/** The legs that carry our writes, and the peer's. lane 1.. */
struct rdma_leg *rdma_path_out(struct rdma_path *p, uint32_t lane);
struct rdma_leg *rdma_path_in(struct rdma_path *p, uint32_t lane);

/* tx.c */
int rdma_sq_open(struct rdma_sq *sq, uint32_t depth);
void rdma_sq_close(struct rdma_sq *sq);
size_t rdma_tx(struct link *link, struct frame *const *frames, size_t n, uint64_t now_ns);
size_t rdma_reap(struct link *link, struct frame **out, size_t n, uint64_t now_ns);
size_t rdma_done(struct link *link, struct link_done *out, size_t n, uint64_t now_ns);
void rdma_tx_completed(struct rdma_leg *leg, uint32_t index);
/** The queue pair is gone: what was under way is lost. */
void rdma_tx_lost(struct rdma_leg *leg);
/** The path is closed: what of it was not told yet never is. */
void rdma_tx_forget(struct rdma_path *p);
bool rdma_sq_has_room(const struct rdma_sq *sq);

/* rx.c */
/** qp NULL: a shared receive queue. */
struct rdma_rq *rdma_rq_open(struct rdma_link *l, struct rdma_port *port, uint32_t n, uint32_t buffer_bytes, bool is_shared);
/** Freed now, or with its last lent buffer. */
void rdma_rq_close(struct rdma_link *l, struct rdma_rq *rq);
void rdma_rq_free(struct rdma_rq *rq);
/** Has something come over the path that rx has not handed out? */
bool rdma_rx_has_pending(const struct rdma_link *l, const struct rdma_path *p);
/** Time to post: each post has a price, and a few buffers less do not matter while many are posted; `out` is back only when its owners like. */
static inline bool rdma_rq_is_low(const struct rdma_rq *rq)
{
	uint32_t posted = rq->n - rq->n_idle - rq->out;
	return rq->n_idle && (rq->n_idle >= RDMA_BATCH || posted < 4 * RDMA_BATCH);
}
/** Posts what is idle. @return false: the queue pair refuses */
bool rdma_rq_post(struct rdma_rq *rq);
/** The queue pair is gone: what was posted is idle again. */
void rdma_rq_detach(struct rdma_rq *rq);
void rdma_rx_completed(struct rdma_path *p, const struct ibv_wc *wc);
void rdma_rx_forget(struct rdma_link *l, const struct rdma_path *p);
size_t rdma_rx(struct link *link, struct rx_frame *out, size_t n, uint64_t now_ns);
void rdma_rx_free(struct link *link, struct rx_frame *frames, size_t n);

/* expose.c */
int rdma_expose(struct link *link, struct link_path *path, const struct link_expose *what, uint32_t *id);
void rdma_hide(struct link *link, uint32_t id);
size_t rdma_exposed(struct link *link, struct link_exposed *out, size_t n, uint64_t now_ns);
void rdma_expose_completed(struct rdma_leg *leg, const struct rdma_wr *wr);
/** Posts what waits for room in the leg's queue. */
void rdma_expose_flush(struct rdma_leg *leg);
/** Before the queue pairs go: ends every window of the path. */
void rdma_expose_end_windows(struct rdma_path *p);
/** After they are gone: all exposures of the path are broken. */
void rdma_expose_broken(struct rdma_path *p);
/** The path is closed: nothing is told of it any more. */
void rdma_expose_forget(struct rdma_path *p);
void rdma_windows_close(struct rdma_port *port);

#endif
