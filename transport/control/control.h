/* Session set-up: TCP with TLS 1.3 under the site key, then one hello each way, then a quiet connection that carries the goodbye. One thread a
 * context does it all; nothing here blocks a caller. Called by api/ (and loop/ for goodbyes); knows no flows, no messages. docs/control.md describes
 * the protocol.
 *
 * Callbacks run on the control thread, one at a time; they may call everything here but control_close. For one connection come, in order: prepare (at
 * most once), then established or failed; after established at last one of closed and lost. After control_bye for it only a callback that was already
 * running; after control_close none. */
#ifndef CONTROL_CONTROL_H
#define CONTROL_CONTROL_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "control/error.h"
#include "control/session.h"

struct control;

enum {
	CONTROL_KEY_BYTES = 32,
	CONTROL_HOST_MAX = 256,
	CONTROL_HANDSHAKES_MAX = 64, /* incoming connections whose set-up has not ended */
	CONTROL_CONNS_MAX = 4096,    /* default of max_conns */
	CONTROL_PATH_MAX = 4096,
};
#define CONTROL_ID_ACCEPTED (1ull << 63) /* ids of incoming connections have this bit; the caller's own must not */

/* Of prepare: whose hello is about to be written. */
struct control_ask {
	uint64_t id;       /* of the connection */
	uint64_t listener; /* incoming: which listener took it */
	bool is_initiator;
	bool is_private;
	struct link_addr peer, local;    /* sockaddr of the TCP connection */
	const struct wire_hello *theirs; /* incoming: the initiator's hello; otherwise NULL */
};

struct control_events {
	/**
	 * Fills in what control does not know: paths (flow ids, ports), credit, limits, capabilities, name. `mine` holds the defaults; versions,
	 * identity and the private flag are control's.
	 * @return 0, or -TERN_E: refused, the peer is told; failed follows
	 */
	int (*prepare)(void *arg, const struct control_ask *ask, struct wire_hello *mine);
	/** The session stands. It is wiped after the call: copy it. Datagrams of the peer may have come before. */
	void (*established)(void *arg, uint64_t id, const struct session *session);
	/** Set-up failed: -TERN_EADDR, ETIMEDOUT, EAUTH, EKEY, EVERSION, EPRIVATE, EPROTO, ELIMIT or what the peer's prepare said. Incoming ones fail
	 * too, also before prepare. */
	void (*failed)(void *arg, uint64_t id, int err, const char *text);
	/** The peer said goodbye. @param status 0: clean, or -TERN_E */
	void (*closed)(void *arg, uint64_t id, int status);
	/** The connection is gone without a goodbye. The session lives on: data goes its own way. */
	void (*lost)(void *arg, uint64_t id, const char *text);
};

struct control_config {
	const uint8_t *site_key; /* CONTROL_KEY_BYTES, copied; NULL: listening and connecting give -TERN_EKEY */
	uint8_t node_id[WIRE_NODE_ID_BYTES];
	uint64_t epoch;
	uint8_t version_min, version_max;    /* 0: what wire speaks */
	uint32_t max_conns;                  /* both directions; 0: CONTROL_CONNS_MAX */
	uint64_t accept_timeout_ns;          /* for the set-up of incoming connections; 0: 10 s */
	uint64_t keepalive_ns;               /* silence after which a ping is sent; three of them without a word is lost; 0: 15 s */
	const struct control_events *events; /* must outlive the control */
	void *arg;
	void (*log)(void *arg, int level, const char *file, int line, const char *text); /* NULL: silent */
	void *log_arg;
};

/** Starts the thread. @return 0, -TERN_EINVAL, -TERN_ENOMEM, -TERN_EIO; error (may be NULL) says why */
int control_open(const struct control_config *config, struct control **out, struct control_error *error);

/** Says goodbye on every connection, waits for them up to 100 ms, ends the thread, wipes the key. Sets NULL. In a forked child it only sets NULL. */
void control_close(struct control **control);

struct control_listen {
	const char *host; /* name or address to bind; NULL or "": every address, IPv6 and IPv4 */
	uint16_t port;    /* 0: any */
	bool is_private;
	uint64_t id; /* comes back in control_ask.listener */
};
/**
 * Binds at once, in the calling thread (a host that is a name is looked up here: give addresses).
 * @param port  gets the bound port
 * @return 0, -TERN_EADDR (in use, not of this host, not a name), -TERN_EKEY (no site key), -TERN_EIO, -TERN_ENOMEM, -TERN_EFORK
 */
int control_listen(struct control *control, const struct control_listen *listen, uint16_t *port, struct control_error *error);

/** Stops listening: on return the port is free. Connections taken before go on. @return 0, -TERN_ENOENT, -TERN_EFORK */
int control_unlisten(struct control *control, uint64_t id);

struct control_connect {
	const char *host;
	uint16_t port;
	bool is_private;
	uint64_t id;         /* the connection's; not in use, without CONTROL_ID_ACCEPTED */
	uint64_t timeout_ns; /* for everything: name, TCP, TLS, hello; 0: 10 s */
};
/** Starts a connection; established or failed follows. @return 0, -TERN_EINVAL, -TERN_EKEY, -TERN_ENOMEM, -TERN_EFORK */
int control_connect(struct control *control, const struct control_connect *connect, struct control_error *error);

/** Says goodbye with a status (0, or TERN_E of either sign) and forgets the connection; abandons it while it is being set up. Unknown ids are
 * ignored. */
void control_bye(struct control *control, uint64_t id, int status);

/* ---- the site key (key.c) ------------------------------------------------------------------------------------------------------------- */

/** Which file holds the key: `wish`, else $TERN_KEY, else ~/.config/tern/site.key. @return 0, -TERN_EKEY (no home, too long) */
int control_key_path(const char *wish, char *path, size_t bytes, struct control_error *error);

/**
 * Reads a key file made by tern-key.
 * @param key  CONTROL_KEY_BYTES; the caller wipes it
 * @return 0; -TERN_ENOENT: no such file (the text says how to make one); -TERN_EKEY: not ours, readable by others, malformed
 */
int control_key_read(const char *path, uint8_t *key, struct control_error *error);

#endif
