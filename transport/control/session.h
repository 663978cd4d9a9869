/* What a finished set-up gives: all that the engine needs to know of a peer. Made by control/ (or by hand, in the simulator), taken by loop/. Plain
 * data: no pointers, no sockets, no TLS. Holds secrets: whoever copies it wipes the copy with session_wipe. */
#ifndef CONTROL_SESSION_H
#define CONTROL_SESSION_H
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include "link/link.h"
#include "seal/seal.h"
#include "wire/hello.h"

enum {
	SESSION_PATHS_MAX = WIRE_HELLO_PATHS_MAX,
	SESSION_SECRET_BYTES = SEAL_KEY_BYTES + SEAL_IV_BYTES, /* as seal_open takes it */
};

/* A path that both ends offered. */
struct session_path {
	uint8_t path_id;
	uint32_t local_flow_id;  /* in frames that come in: chosen here */
	uint32_t remote_flow_id; /* in frames that go out: chosen by the peer */
	uint32_t mtu_bytes;      /* largest datagram both take; 0: found by probing */
	struct link_addr remote; /* the link's own form where the peer gave one, otherwise the sockaddr of the control connection's peer with the
	                            path's UDP port */
	uint8_t address;         /* which of the peer's addresses that is: 0, or as counted in also= */
	uint16_t udp_port;       /* the peer's, as in its hello; 0: as `remote` says, or not known (the first authenticated frame tells) */
	uint8_t tx_secret[SESSION_SECRET_BYTES]; /* phase 0; all zero when private */
	uint8_t rx_secret[SESSION_SECRET_BYTES];
	uint8_t token[LINK_TOKEN_BYTES]; /* that links which connect by themselves show each other; nobody else knows it */
};

struct session {
	uint8_t peer_node[WIRE_NODE_ID_BYTES];
	uint64_t peer_epoch;
	char peer_name[WIRE_HELLO_NAME_MAX + 1];
	bool is_initiator; /* this end opened the control connection; it also sends the first datagram */
	bool is_private;   /* frames are not sealed */
	uint8_t version;   /* of frames: the highest in common */
	/* What the peer takes to begin with, per channel; later raised by CREDIT. */
	uint64_t credit_bytes;
	uint32_t credit_heads;
	uint64_t max_message_bytes;
	uint64_t capabilities;                        /* in common; enum wire_capabilities */
	struct link_addr control_peer, control_local; /* sockaddr of the TCP connection's two ends; an IPv4 address is never wrapped into IPv6 */
	uint8_t paths;
	struct session_path path[SESSION_PATHS_MAX]; /* ordered as in this end's hello */
};

static inline void session_wipe(struct session *s)
{
	explicit_bzero(s, sizeof(*s));
}

#endif
