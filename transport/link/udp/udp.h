/* Inside of the udp link, shared by its files; nothing outside transport/link/udp includes it.
 *   udp.c    the link_ops: open, paths, wait, which engine          sock.c   sockets and their options
 *   batch.c  tx: frames -> one sendmsg with UDP_SEGMENT, errors      split.c  rx: buffers, control messages, one GRO buffer -> many frames
 *   plain.c  engine: sendmsg, recvmsg, epoll                         uring.c  engine: io_uring
 *   scatter.c  rx_post: the kernel's copy lands in the posted memory (plain.c only: io_uring's provided buffers are contiguous)
 * An engine only moves messages; what is in one (grouping, splitting, counting, errors) is batch.c's and split.c's, the same for both. */
#ifndef LINK_UDP_UDP_H
#define LINK_UDP_UDP_H
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include "link/link.h"
#include "link/log.h"

enum {
	UDP_PATHS_MAX = 16384,
	UDP_FRAME_MAX = 65507,       /* 65535 less IPv4 and UDP headers */
	UDP_BATCH_BYTES_MAX = 65487, /* of one UDP_SEGMENT send: fits IPv4 and IPv6 */
	UDP_BATCH_FRAMES_MAX = 64,   /* UDP_MAX_SEGMENTS of kernels before 6.9; later 128 */
	UDP_BATCH_IOV_MAX = 1024,    /* UIO_MAXIOV */
	UDP_DONE_MAX = 8192,         /* taken and not yet reaped, a power of two */
	UDP_BUFS = 64,
	UDP_BUF_ROOM = 192,   /* before the data: io_uring puts its own header, address and control messages there */
	UDP_BUF_DATA = 65536, /* the largest GRO buffer */
	UDP_BUF_BYTES = UDP_BUF_ROOM + UDP_BUF_DATA,
	UDP_POST_PAYLOAD_MIN = 512,
	UDP_CONTROL_BYTES = 128,     /* UDP_GRO, IP_TOS and IPV6_TCLASS, IPV6_PKTINFO */
	UDP_RCVBUF_BYTES = 32 << 20, /* wanted: 2.5 ms at 100 Gb/s */
	UDP_SNDBUF_BYTES = 4 << 20,
};

struct udp_link;

/* One kernel socket: the shared one (path NULL) or a path's connected one. */
struct udp_sock {
	int fd;
	uint32_t slot;   /* index in udp_link.socks */
	uint32_t streak; /* receives in a row that gave something */
	bool watched;    /* in the epoll set */
	bool ready;      /* in the ready list */
	struct udp_path *path;
	uint32_t id; /* uring.c: entry of the table that completions find it by */
	bool armed;  /* uring.c: its receive is in the ring */
};

struct udp_path {
	struct link_path base;
	struct link_addr local; /* wanted; bytes 0: any */
	struct udp_sock sock;
	bool gso;              /* until the kernel refuses it */
	struct link_post post; /* bytes 0: none */
	uint64_t posted_at;    /* bytes of it that were used */
	uint32_t index;        /* in udp_link.paths */
};

/* A receive buffer, or what is left of it, shared by the frames in it. */
struct udp_buf {
	uint8_t *data; /* UDP_BUF_ROOM bytes before it are usable too */
	uint32_t refs;
	uint32_t index;
	struct udp_path *path; /* NULL: it came through the shared socket and `from` says whose */
	struct sockaddr_storage from;
	struct sockaddr_storage to; /* our address, port 0; of the shared socket only. Family 0: not known */
};

/* What the kernel said about a received message. */
struct udp_message {
	struct udp_buf *buf;
	struct udp_path *path;
	uint8_t *data;
	uint32_t bytes;
	uint32_t stride; /* of the datagrams in it; the last may be shorter */
	uint8_t ecn;
	/* a scattered receive: the first `pairs` times header_bytes lie at data, payload_bytes at body, and so on; what is behind them at overflow */
	uint32_t pairs, header_bytes, payload_bytes, last_bytes; /* last_bytes: the last pair's payload area */
	uint8_t *body, *overflow;
};

/* One send: consecutive frames of one path. */
struct udp_batch {
	struct udp_path *path;
	size_t frames;
	uint64_t bytes;
	size_t iovs;
	uint32_t tries; /* 0 before the first send */
	struct msghdr msg;
	struct iovec *iov; /* the caller's, UDP_BATCH_IOV_MAX free entries */
	union {
		char bytes[CMSG_SPACE(sizeof(uint16_t))];
		struct cmsghdr align;
	} control;
};

enum udp_verdict {
	UDP_TAKEN,  /* its frames are reapable */
	UDP_AGAIN,  /* not taken; nothing more goes out on this path now */
	UDP_SINGLE, /* not taken; send its first frame alone */
	UDP_RETRY,  /* not taken, an old error was in the way: once more */
};

struct udp_options {
	const char *engine; /* "plain", "uring", NULL: chosen */
	bool ecn, gso, gro;
	uint8_t dscp;
};

struct udp_engine {
	const char *name;
	/** @return 0, -TERN_EIO (refused here; nothing is open) */
	int (*open)(struct udp_link *l);
	void (*close)(struct udp_link *l);
	int (*sock_add)(struct udp_link *l, struct udp_sock *s);
	/** After it no engine holds or writes anything of this socket. */
	void (*sock_del)(struct udp_link *l, struct udp_sock *s);
	size_t (*tx)(struct udp_link *l, struct frame *const *frames, size_t n);
	/** May be NULL: brings in completed sends before udp.c hands out the done ring. */
	void (*reap)(struct udp_link *l);
	/** Adds frames to what udp_split_next left. */
	size_t (*rx)(struct udp_link *l, struct rx_frame *out, size_t n);
	void (*wait)(struct udp_link *l, bool armed, struct link_wait *out);
};

struct udp_link {
	struct link base;
	const struct udp_engine *engine;
	void *engine_state;
	struct udp_options options;
	struct sockaddr_storage bound;
	bool listening;
	bool any; /* bound to no address: paths of either family */
	struct udp_sock shared;
	struct udp_sock **socks; /* those that are read */
	uint32_t n_socks;
	struct udp_path **paths;
	uint32_t n_paths;
	struct frame **done; /* ring of UDP_DONE_MAX */
	uint32_t done_head, done_tail;
	struct udp_buf bufs[UDP_BUFS];
	struct udp_buf *idle[UDP_BUFS]; /* last in, first out: the warmest buffer is used next */
	uint32_t n_idle;
	uint8_t *memory;
	struct udp_message rest; /* the message being split; bytes 0: none */
	uint64_t refused;        /* ICMP unreachable */
	uint64_t gso_refused;
};

/* sock.c */
/** Binds the shared socket; fills bound, any. @return 0, -TERN_EADDR, -TERN_EIO with words in config->error */
int udp_sock_bind(struct udp_link *l, const struct link_config *config);
/** Opens a path's connected socket. @return 0, -TERN_EADDR, -TERN_EIO */
int udp_sock_connect(struct udp_link *l, struct udp_path *p);
/** Largest datagram that the route's MTU lets through now. */
uint32_t udp_sock_max_bytes(const struct udp_path *p);
void udp_addr_from(const struct sockaddr_storage *from, struct link_addr *out);
#define udp_log(l, level, ...) link_log(&(l)->base, level, __VA_ARGS__)

/* batch.c */
/** Takes the frames that may go in one send, at least one. @param single only the first. b->iov is the caller's. */
void udp_batch_build(struct frame *const *frames, size_t n, bool single, struct udp_batch *b);
/** Counts, and says what the result of a send (bytes, or -errno) means for its frames. */
enum udp_verdict udp_batch_verdict(struct udp_link *l, struct udp_batch *b, struct frame *const *frames, long result);
/** Sends by sendmsg: batches, one by one where the kernel refuses a batch. @param iov room for UDP_BATCH_IOV_MAX. @return how many frames were taken
 */
size_t udp_send_now(struct udp_link *l, struct frame *const *frames, size_t n, struct iovec *iov);
static inline uint32_t udp_done_room(const struct udp_link *l)
{
	return UDP_DONE_MAX - (l->done_head - l->done_tail);
}
static inline void udp_done_put(struct udp_link *l, struct frame *f)
{
	l->done[l->done_head++ & (UDP_DONE_MAX - 1)] = f;
}

/* split.c */
int udp_bufs_open(struct udp_link *l);
void udp_bufs_close(struct udp_link *l);
/** @return NULL when all are lent */
struct udp_buf *udp_buf_get(struct udp_link *l);
void udp_buf_put(struct udp_link *l, struct udp_buf *b);
/** Forgets a path in lent buffers and in the message being split. */
void udp_bufs_forget(struct udp_link *l, struct udp_path *p);
/** Reads stride and ECN bits from a received header. */
void udp_message_control(struct udp_message *m, struct msghdr *msg);
/** Hands the message to udp_split_next; its buffer's reference goes with it. */
void udp_split_start(struct udp_link *l, const struct udp_message *m);
/** The next frames of the message. @return how many; less than n: it is used up */
size_t udp_split_next(struct udp_link *l, struct rx_frame *out, size_t n);

/* scatter.c */
int udp_scatter_post(struct udp_link *l, struct udp_path *p, const struct link_post *post);
void udp_scatter_revoke(struct udp_link *l, struct udp_path *p);
/** Lays a receive out over the posted memory. @param iov room for 2 UDP_BATCH_FRAMES_MAX + 1. @return entries, 0: nothing posted or no spare buffer
 */
size_t udp_scatter_iov(struct udp_link *l, struct udp_path *p, struct udp_message *m, struct iovec *iov);
/** After the receive, with bytes and stride known: keeps the layout if the datagrams fit it, otherwise gathers them. */
void udp_scatter_settle(struct udp_link *l, struct udp_path *p, struct udp_message *m);

extern const struct link_ops link_udp_ops;
extern const struct udp_engine udp_engine_plain;
extern const struct udp_engine udp_engine_uring;

#endif
