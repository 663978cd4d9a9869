/* Shared inside control/ only: the context, connections, listeners, and which file does what. Everything but the command queue belongs to the control
 * thread. */
#ifndef CONTROL_INNER_H
#define CONTROL_INNER_H
#include <errno.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/types.h>
#include "control/control.h"
#include "tern/error.h"
#include "tern/tern.h"

enum {
	CONN_ADDRS_MAX = 8,       /* of one name, tried in order */
	MESSAGE_HEADER_BYTES = 3, /* u16 length of the whole, u8 type */
	MESSAGE_MAX_BYTES = 512,
	MESSAGES_A_TURN_MAX = 256, /* a peer that sends more at once is broken */
	OUT_SMALL_BYTES = 64,
	RESOLVERS_MAX = 16, /* threads looking up names */
};
#define CONTROL_SETUP_NS 10000000000ull
#define CONTROL_KEEPALIVE_NS 15000000000ull
#define CONTROL_LINGER_NS 1000000000ull /* for the last words to get out and the peer to hang up */
#define CONTROL_CLOSE_NS 100000000ull
#define CONTROL_ATTEMPT_NS 2000000000ull /* for one address of several: survives one lost SYN */
#define CONTROL_GRACE_NS 1000000000ull   /* a handshake younger than this is not dropped for a newer one */
#define CONTROL_ACCEPT_PAUSE_NS 100000000ull

/* After the hello. A receiver skips unknown types with the OPTIONAL bit; others end the connection. */
enum message_type { MESSAGE_PING = 1, MESSAGE_BYE = 2, MESSAGE_REKEY = 3 /* reserved */, MESSAGE_OPTIONAL = 0x80 };

/* What epoll points to; first in everything that is watched. */
struct watch {
	void (*ready)(struct control *ct, struct watch *w, uint32_t events);
};

struct listener {
	struct watch watch;
	struct listener *next;
	uint64_t id;
	int fd;
	bool is_private;
};

enum conn_state {
	CONN_RESOLVE, /* waits for addresses */
	CONN_TCP,
	CONN_TLS,
	CONN_HELLO, /* waits for the peer's hello */
	CONN_OPEN,
	CONN_LINGER, /* the owner has heard the last of it; our last bytes go out */
	CONN_DEAD,   /* freed at the end of the turn */
};

/* Needed only until the hello is out: an idle peer should be small. */
struct conn_setup {
	char host[CONTROL_HOST_MAX];
	uint16_t port;
	bool resolving; /* a thread is at it */
	struct sockaddr_storage addr[CONN_ADDRS_MAX];
	size_t addrs, next_addr;
	int last_errno;
	struct wire_hello mine, theirs;
	uint8_t in[WIRE_HELLO_MAX], out[WIRE_HELLO_MAX + OUT_SMALL_BYTES];
	size_t in_have;
};

struct conn {
	struct watch watch;
	struct conn *prev, *next;
	uint64_t id, listener, serial; /* serial: never used again, names the connection to resolver threads */
	int fd;
	uint32_t watched; /* epoll events asked for; 0: not in epoll */
	enum conn_state state;
	bool is_initiator, is_private;
	bool counted; /* among the unfinished handshakes */
	bool shut;    /* LINGER: nothing more goes out */
	SSL *ssl;
	bool want_write;             /* TLS needs the socket writable */
	uint64_t began_ns, setup_ns; /* setup_ns: when the set-up must have ended */
	uint64_t timer_ns;           /* when conn_timer is due */
	uint64_t heard_ns, said_ns;
	struct sockaddr_storage peer;
	struct conn_setup *setup;
	uint8_t *out; /* setup's or small_out */
	size_t out_have, out_sent, out_room;
	uint8_t small_out[OUT_SMALL_BYTES];
	uint8_t in[MESSAGE_MAX_BYTES];
	size_t in_have;
};

enum command_type { COMMAND_LISTEN, COMMAND_UNLISTEN, COMMAND_CONNECT, COMMAND_BYE };
struct command {
	struct command *next;
	enum command_type type;
	struct listener *listener;
	struct conn *conn;
	uint64_t id;
	int status;
	int *answer; /* UNLISTEN: the caller waits for it */
};

/* Where resolver threads put their finds; outlives the context while one is still at it. */
struct resolver;

struct control {
	struct control_config config;
	struct watch wake;
	pid_t pid;
	pthread_t thread;
	int epfd, wakefd;
	SSL_CTX *tls_client, *tls_server;
	uint8_t key[CONTROL_KEY_BYTES];
	bool has_key;

	pthread_mutex_t lock;
	pthread_cond_t answered;
	struct command *first, **last; /* under lock */
	bool stop;                     /* under lock */

	/* the thread's own from here */
	struct listener *listeners, *dead_listeners;
	struct conn *conns, *dead; /* the dead are freed at the end of the turn: epoll may still speak of them */
	uint32_t conn_count, handshakes;
	uint64_t next_serial, next_accepted;
	uint64_t timer_ns;     /* no timer is due before */
	uint64_t accept_at_ns; /* listeners rest until then; 0: they do not */
	struct resolver *resolver;
};

uint64_t control_now_ns(void);
void control_log(struct control *ct, int level, int line, const char *text);
void control_wake(struct control *ct);

/* tls.c */
int tls_open(struct control *ct);
void tls_close(struct control *ct);
/** @return NULL: no memory */
SSL *tls_new(struct control *ct, int fd, bool is_initiator);
enum tls_result { TLS_DONE, TLS_WAIT, TLS_FAIL };
enum tls_result tls_handshake(struct conn *c, struct control_error *why, int *err);
/** @return > 0 bytes, 0: none now, < 0: gone or broken; why says */
long tls_read(struct conn *c, uint8_t *out, size_t bytes, struct control_error *why);
long tls_write(struct conn *c, const uint8_t *in, size_t bytes, struct control_error *why);
/** Says that nothing more comes; nothing to wait for. */
void tls_shutdown(struct conn *c);
void tls_free(struct conn *c);
/** The secret of a path, direction (0: initiator to acceptor) and phase. @return 0, -TERN_EIO */
int tls_secret(SSL *ssl, uint8_t path_id, uint8_t direction, uint8_t phase, uint8_t *out);

/* dial.c: from a name to a TCP connection */
int resolver_open(struct control *ct);
void resolver_close(struct control *ct);
void resolver_take(struct control *ct);
void dial_start(struct control *ct, struct conn *c);
void dial_ready(struct control *ct, struct conn *c);
void dial_timer(struct control *ct, struct conn *c);
const char *addr_text(const struct sockaddr_storage *addr, char *out, size_t bytes);
void addr_unmap(struct sockaddr_storage *addr);
struct link_addr addr_link(const struct sockaddr_storage *addr);

/* listen.c */
int listener_new(const struct control_listen *opts, struct listener **out, uint16_t *port, struct control_error *error);
void listener_add(struct control *ct, struct listener *l);
int listener_remove(struct control *ct, uint64_t id);
void listeners_rest(struct control *ct, uint64_t until_ns);
void listeners_resume(struct control *ct);
void listeners_bury(struct control *ct);
void listener_free(struct listener *l);

/* exchange.c: hellos */
void exchange_begin(struct control *ct, struct conn *c);
void exchange_read(struct control *ct, struct conn *c);

/* conn.c */
struct conn *conn_new(void);
void conn_free(struct conn *c);
void conn_add(struct control *ct, struct conn *c);
struct conn *conn_find(struct control *ct, uint64_t id);
void conn_connected(struct control *ct, struct conn *c);
/** Watches the socket for what the state needs. */
void conn_arm(struct control *ct, struct conn *c);
void conn_timer_set(struct control *ct, struct conn *c, uint64_t at_ns);
void conn_timer(struct control *ct, struct conn *c, uint64_t now_ns);
/** Appends to what goes out and sends what the socket takes. @return 0, -TERN_ELIMIT (no room), -TERN_EIO (gone) */
int conn_send(struct control *ct, struct conn *c, const uint8_t *bytes, size_t n);
void conn_opened(struct control *ct, struct conn *c);
/** Set-up ended well or badly: it no longer counts as an unfinished handshake. Once. */
void conn_settled(struct control *ct, struct conn *c);
/** Tells the owner (failed before OPEN, lost after), then lets the connection go. */
void conn_fail(struct control *ct, struct conn *c, int err, const char *format, ...) __attribute__((format(printf, 4, 5)));
void conn_bye(struct control *ct, struct conn *c, int status);
void conn_linger(struct control *ct, struct conn *c);
void conn_drop(struct control *ct, struct conn *c);

#endif
