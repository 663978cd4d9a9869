/* The hello: what both ends tell each other inside TLS right after the handshake, once each way. Called by control/ and by the simulator,
 * which makes sessions by hand. A length and then type-length-value entries, so that versions N and N-1 understand each other; docs/wire.md
 * has the table. Pure, like all of wire/. */
#ifndef WIRE_HELLO_H
#define WIRE_HELLO_H
#include <stddef.h>
#include <stdint.h>

enum {
	WIRE_HELLO_MAX = 4096, /* whole message; a longer one is refused before it is read */
	WIRE_HELLO_HEADER_BYTES = 8,
	WIRE_HELLO_PATHS_MAX = 16,
	WIRE_HELLO_LINK_MAX = 60,
	WIRE_HELLO_NAME_MAX = 64,
	WIRE_HELLO_TEXT_MAX = 200,
	WIRE_NODE_ID_BYTES = 16,
};
enum wire_hello_flags {
	WIRE_HELLO_PRIVATE = 1, /* private=1: frames are not sealed; both ends must say it */
	WIRE_HELLO_FLAGS_ALL = 1,
};
/* What a sender of the hello can do with frames sent to it; both ends use a feature only if both say it. */
enum wire_capabilities {
	WIRE_CAP_PARITY = 1, /* reserved: takes PARITY frames */
};

/* One way to reach the sender of the hello. */
struct wire_hello_path {
	uint8_t path_id;    /* no two alike in a hello, never used again within a session */
	uint8_t link_bytes; /* used bytes of link */
	uint16_t udp_port;  /* 0: as the link address says */
	uint32_t flow_id;   /* to be put into frames sent to it on this path; no two alike */
	uint32_t mtu_bytes; /* largest datagram it takes here; 0: found by probing */
	uint8_t link[WIRE_HELLO_LINK_MAX]; /* the link's own form of an address; not looked into */
};

struct wire_hello {
	uint8_t version_min, version_max; /* frame versions it speaks: 1 <= min <= max */
	uint8_t status;                   /* 0, or TERN_E, positive: a refusal, error_text says why; then only the versions need be there */
	uint8_t paths;                    /* used entries of path */
	uint32_t flags;                   /* enum wire_hello_flags; unknown bits are dropped by decoding */
	uint8_t node_id[WIRE_NODE_ID_BYTES];
	uint64_t epoch;             /* random for each life of the node */
	uint64_t credit_bytes;      /* first limits of every channel towards it, later raised by CREDIT; absent: 0 */
	uint32_t credit_heads;
	uint64_t max_message_bytes; /* larger messages are refused; absent: UINT64_MAX */
	uint64_t capabilities;      /* enum wire_capabilities; unknown bits are kept; absent: 0 */
	struct wire_hello_path path[WIRE_HELLO_PATHS_MAX];
	char name[WIRE_HELLO_NAME_MAX + 1];       /* for people: printable ASCII, terminated; absent: "" */
	char error_text[WIRE_HELLO_TEXT_MAX + 1]; /* with status; as name */
};

/** Fills in what an absent entry means, and the versions this library speaks. */
void wire_hello_init(struct wire_hello *h);

/** @return bytes written; 0: more than `room`, or a field that wire_hello_decode would refuse (nothing useful is in out) */
size_t wire_hello_encode(const struct wire_hello *h, uint8_t *out, size_t room);

/**
 * Takes one hello from the front of a byte stream. Entries of an unknown type are skipped.
 * @return bytes used; 0: its end has not come yet, call again with more; -TERN_EPROTO: malformed, *out is undefined
 */
long wire_hello_decode(const uint8_t *in, size_t bytes, struct wire_hello *out);

/** @return the highest version in both ranges, both ends included; 0: none in common, or a range that is none */
uint8_t wire_version_choose(uint8_t a_min, uint8_t a_max, uint8_t b_min, uint8_t b_max);

#endif
