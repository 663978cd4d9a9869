/* A small IP host: what makes a bare Ethernet port a neighbour on its network. Packet code only: bytes in, bytes out, time comes in as now_ns; no packet library, no
 * sockets, no clock, no allocation. The dpdk link calls it; tests pump frames between it and the kernel. One thread calls everything on one host.
 *   net_parse.c    what is in a received frame            net_answer.c     ARP, neighbour and echo answers
 *   net_resolve.c  routes, neighbours, what is due to be sent   net_header.c     headers of our datagrams
 *   net_sum.c      Internet checksums
 *
 * A received frame: net_parse, then by kind
 *   NET_UDP          ours: payload at payload_at
 *   NET_ARP, NET_ND  net_learn; then, without a twin, net_answer; with a twin, the frame goes to it
 *   NET_ECHO         without a twin net_answer; with a twin the frame goes to it
 *   NET_FOREIGN      the frame goes to the twin (without a twin this is a NET_DROP)
 *   NET_DROP         nothing; host->drops[packet.drop] was counted
 * Exactly one of twin and host answers: net_answer gives nothing for a host with has_twin. Requests of our own go out in both cases (net_poll).
 *
 * Neighbours: an entry is made only by net_neighbour, never by a packet, and only the answer to our own question sets a hardware address. Anything else that
 * speaks of a known neighbour (gratuitous ARP, unsolicited or second advertisement) makes us ask again, at most once a second; until the answer the old
 * address stays. So a moved gateway costs one more round trip, and a stranger must win a race against the owner. */
#ifndef LINK_DPDK_NET_H
#define LINK_DPDK_NET_H
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "base/frame.h"

enum {
	NET_MAC_BYTES = 6,
	NET_ETHER_BYTES = 14,
	NET_VLAN_BYTES = 4,
	NET_IP4_BYTES = 20,
	NET_IP6_BYTES = 40,
	NET_UDP_BYTES = 8,
	NET_HEADER_MAX = 66, /* Ethernet, VLAN tag, IPv6, UDP */
	NET_MTU_MIN = 1280,
	NET_MTU_MAX = 9216,
	NET_FRAME_LEAST = 60, /* without the checksum; senders pad */
	NET_POLL_MAX = 128,   /* the largest frame that net_poll makes */
	NET_EXTENSIONS_MAX = 8,
	NET_NEIGHBOURS_MAX = 16384, /* as many as a link may have paths */
	NET_BUCKETS = 4096,
	NET_TRIES = 4,        /* unanswered requests before a neighbour counts as unreachable */
};

enum net_kind { NET_DROP, NET_UDP, NET_ARP, NET_ND, NET_ECHO, NET_FOREIGN };

/* Why a frame was dropped. */
enum net_drop {
	NET_DROP_SHORT,    /* ends before its headers, or a length in it is beyond its end or too small */
	NET_DROP_MAC,      /* to another station, or from a source that cannot be: multicast, zero, ourselves */
	NET_DROP_VLAN,     /* not our VLAN */
	NET_DROP_VERSION,  /* the IP version is not the one the Ethernet type says, or the header length is below 20 */
	NET_DROP_IP_SUM,
	NET_DROP_SOURCE,   /* an IP source that cannot be: multicast, broadcast, loopback, ourselves */
	NET_DROP_FRAGMENT,
	NET_DROP_EXTENSION,/* more than NET_EXTENSIONS_MAX, out of order, or a jumbogram */
	NET_DROP_UDP_SUM,  /* also an IPv6 datagram without one */
	NET_DROP_ICMP_SUM,
	NET_DROP_ARP,      /* malformed */
	NET_DROP_ND,       /* malformed, or its hop limit says that it came through a router */
	NET_DROP_FOREIGN,  /* for a twin that is not there */
	NET_DROP_END
};

/* Of net_parse: what the hardware has verified; PARTIAL: the frame may come from this host's kernel, which leaves the pseudo header's bare sum to hardware that
 * never comes. */
enum net_verified { NET_IP_GOOD = 1, NET_L4_GOOD = 2, NET_L4_PARTIAL = 4 };

union net_addr {
	struct sockaddr sa;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

struct net_config {
	uint8_t mac[NET_MAC_BYTES];
	uint16_t vlan;          /* 0: untagged; 1..4094 */
	uint8_t vlan_priority;  /* 0..7, of our frames */
	bool has_twin;          /* the kernel answers for our addresses; see above */
	uint32_t mtu_bytes;     /* of IP packets */
	struct in_addr ip4, gateway4; /* 0: none */
	uint8_t prefix4, prefix6;
	struct in6_addr ip6, gateway6; /* ::: none; the link-local address made from the MAC is there always */
	struct in6_addr local6; /* ::: made from the MAC; otherwise the one the kernel's interface had */
};

/* What net_parse found. Offsets are from the frame's first byte. */
struct net_packet {
	uint8_t kind;          /* enum net_kind */
	uint8_t drop;          /* enum net_drop, of NET_DROP */
	uint8_t ecn;           /* the two bits: 3 is CE */
	bool is_ip6;
	bool is_hw_verified;   /* the checksum was the hardware's to check; otherwise it was checked here (or an IPv4 datagram has none) */
	uint16_t ip_at;        /* the IP or ARP header */
	uint16_t l4_at;        /* UDP, ICMP */
	uint16_t payload_at;   /* NET_UDP: behind the UDP header; NET_ECHO, NET_ND: the whole ICMP message */
	uint32_t payload_bytes;
	union net_addr from, to; /* NET_UDP, NET_ECHO */
};

enum net_state {
	NET_FREE,
	NET_INCOMPLETE, /* asked, not answered: no hardware address */
	NET_REACHABLE,  /* answered lately */
	NET_STALE,      /* answered once; asked again when used */
};

struct net_neighbour_entry {
	struct in6_addr addr; /* IPv4 as ::ffff:a.b.c.d */
	uint8_t mac[NET_MAC_BYTES];
	uint8_t state;        /* enum net_state */
	uint8_t tries;        /* unanswered requests */
	bool is_asked;        /* an answer is awaited */
	bool is_lost;         /* NET_TRIES requests were not answered */
	bool is_moved;        /* another station spoke for it: ask everyone, not the old address */
	uint16_t next;        /* in its bucket, NET_NEIGHBOURS_MAX: none */
	uint16_t flows;       /* that hold it: with any it is not evicted */
	uint64_t used_ns;     /* by net_neighbour */
	uint64_t heard_ns;    /* last answer */
	uint64_t asked_ns;    /* last request */
	uint64_t due_ns;      /* next request; UINT64_MAX: none */
};

/* Caller's memory, about 1 MiB, most of it touched only when there are as many neighbours. `config`, `drops`, the counters and `version` may be read. */
struct net_host {
	struct net_config config;
	struct in6_addr local6;
	uint8_t ether_bytes;     /* 14 or 18 */
	uint32_t version;        /* grows when any neighbour's hardware address changes or goes */
	uint64_t due_ns;         /* of net_poll */
	uint64_t announce_ns;    /* next announcement; UINT64_MAX: none */
	uint8_t announced, announce_step;
	uint16_t neighbours;     /* used entries */
	uint16_t bucket[NET_BUCKETS];
	uint16_t polled;         /* the entry that net_poll looked at last */
	uint64_t ports[65536 / 64]; /* open UDP ports, a bit each */
	uint64_t drops[NET_DROP_END];
	uint64_t answers, requests, conflicts, evictions; /* conflicts: another station claimed our address */
	struct net_neighbour_entry entry[NET_NEIGHBOURS_MAX]; /* the last member: net_init leaves it alone */
};

/* One destination's headers, ready but for lengths, identification and checksums. Caller's memory. */
struct net_flow {
	uint8_t header[NET_HEADER_MAX + 6]; /* readable as whole words */
	uint8_t header_bytes;  /* all of it: 42..66 */
	uint8_t ip_at, udp_at;
	bool is_ip6;
	bool is_resolved;
	uint32_t ip_sum;       /* of the IPv4 header without length, identification and checksum */
	uint32_t pseudo_sum;   /* of addresses and protocol */
	uint32_t version;      /* of the host when the hardware address was taken */
	uint16_t neighbour;    /* held entry plus one, 0: none */
	uint64_t check_ns;     /* when the neighbour is to be looked up again, which also keeps it alive */
	union net_addr remote;
};

struct net_flow_config {
	union net_addr remote; /* an IPv4-mapped IPv6 address counts as IPv4 */
	uint16_t port;         /* ours, host byte order */
	uint8_t dscp;          /* 0..63 */
	uint8_t ecn;           /* the two bits */
};

/**
 * Checks the configuration and starts the host: addresses are announced by the next net_polls (gratuitous ARP, unsolicited advertisement, multicast listener reports).
 * @param why  gets static words on failure: what was wrong and what to do
 * @return 0, -TERN_EINVAL
 */
int net_init(struct net_host *host, const struct net_config *config, uint64_t now_ns, const char **why);

/** Our UDP ports (host byte order): datagrams to others are foreign. */
void net_port_open(struct net_host *host, uint16_t port);
void net_port_close(struct net_host *host, uint16_t port);
static inline bool net_port_is_open(const struct net_host *host, uint16_t port)
{
	return host->ports[port >> 6] >> (port & 63) & 1;
}

/**
 * Says what a received frame is; counts it if dropped. Reads frame[0, bytes) only. The whole frame must be contiguous.
 * @param bytes     without the Ethernet checksum; padding is fine
 * @param verified  enum net_verified bits: what the hardware found good; the rest is checked here
 * @return packet->kind
 */
enum net_kind net_parse(struct net_host *host, const uint8_t *frame, size_t bytes, unsigned verified, struct net_packet *packet);

enum { NET_STEER_ALL = -1, NET_STEER_NONE = 0 };

/**
 * Whose a frame is, where several hosts share a port and an address and have different UDP ports: without checking anything, which net_parse does.
 * @return the UDP port it goes to; NET_STEER_ALL: ARP or neighbour discovery, each host must learn from it; NET_STEER_NONE: anything else, one host is enough
 */
int net_steer(const uint8_t *frame, size_t bytes);

/** Takes in what a NET_ARP or NET_ND frame, as net_parse saw it, says of neighbours; other kinds do nothing. */
void net_learn(struct net_host *host, const uint8_t *frame, const struct net_packet *packet, uint64_t now_ns);

/**
 * Writes the answer to a NET_ARP, NET_ND or NET_ECHO frame. It goes to the station that asked, without any state. Never longer than the larger of the frame itself
 * and NET_FRAME_LEAST, nor than the MTU allows.
 * @param bytes  of the frame, as given to net_parse
 * @param out    may not overlap the frame
 * @return its bytes; 0: none is due, has_twin, or room is too small
 */
size_t net_answer(struct net_host *host, const uint8_t *frame, size_t bytes, const struct net_packet *packet, uint8_t *out, size_t room);

/**
 * The hardware address of the next hop to a destination (port ignored). Keeps the neighbour in use: it is asked again before it goes stale for good.
 * @return 0; -TERN_EAGAIN: asked for, poll net_poll; -TERN_EADDR: no address of that family, no route, no unicast address, or NET_TRIES requests were not answered
 *         (asking goes on slowly while this is called, so it may become 0 again); -TERN_ELIMIT: each of NET_NEIGHBOURS_MAX neighbours is held by a flow
 */
int net_neighbour(struct net_host *host, const union net_addr *remote, uint64_t now_ns, uint8_t mac[NET_MAC_BYTES]);

/** Writes one frame that is due (requests, announcements). @return its bytes, 0: nothing is due, or room < NET_POLL_MAX. Call until 0. */
size_t net_poll(struct net_host *host, uint64_t now_ns, uint8_t *out, size_t room);
/** @return when net_poll has something next, UINT64_MAX: never */
static inline uint64_t net_deadline(const struct net_host *host)
{
	return host->due_ns;
}

/** Our own address as that remote will see it, with the given port (host byte order). @return 0, -TERN_EADDR (no address of that family, no route) */
int net_source(const struct net_host *host, const union net_addr *remote, uint16_t port, union net_addr *out);

/** Builds the headers to a destination but for the hardware address. @return 0, -TERN_EADDR as net_neighbour (route only), -TERN_EINVAL */
int net_flow_init(const struct net_host *host, const struct net_flow_config *config, struct net_flow *flow);

/** Keeps the flow's neighbour in the table until net_flow_release; once a flow. @return 0, -TERN_EADDR, -TERN_ELIMIT as net_neighbour */
int net_flow_hold(struct net_host *host, struct net_flow *flow, uint64_t now_ns);
void net_flow_release(struct net_host *host, struct net_flow *flow);

/** The slow half of net_flow_ready. @return as net_neighbour */
int net_flow_resolve(struct net_host *host, struct net_flow *flow, uint64_t now_ns);

/** Before a burst: the flow's hardware address is there and fresh. @return as net_neighbour; 0: headers may be written */
static inline int net_flow_ready(struct net_host *host, struct net_flow *flow, uint64_t now_ns)
{
	if (flow->is_resolved && flow->version == host->version && now_ns < flow->check_ns)
		return 0;
	return net_flow_resolve(host, flow, now_ns);
}

/**
 * Writes the flow->header_bytes bytes of headers of one datagram. The IPv4 checksum is complete; the UDP checksum field holds the pseudo header's sum as NICs want it
 * for checksum offload; without offload net_udp_sum follows. DF is set.
 * @param out            room for flow->header_bytes, any alignment; nothing behind them is written
 * @param payload_bytes  behind the UDP header; header_bytes - ether + payload within the MTU is the caller's business
 * @param ip_id          IPv4 identification, any (a counter, or 0)
 */
void net_udp_header(const struct net_flow *flow, uint8_t *out, uint32_t payload_bytes, uint16_t ip_id);

/** Completes the UDP checksum of headers that net_udp_header wrote, over the payload's segments in order. */
void net_udp_sum(const struct net_flow *flow, uint8_t *out, const struct frame_seg *seg, size_t segs);

/** The codepoint of one datagram: as net_udp_header, then this; keeps the IPv4 checksum right. */
void net_set_ecn(const struct net_flow *flow, uint8_t *out, uint8_t ecn);

/**
 * Adds bytes to a ones' complement sum (RFC 1071), in native byte order. Uses AVX2 where the CPU has it. All but the last piece must be of even length.
 * @param sum  0 or what came back from the piece before
 */
uint64_t net_sum(const void *data, size_t bytes, uint64_t sum);
/** @return the folded, complemented sum as it goes into a header without swapping */
uint16_t net_checksum(const void *data, size_t bytes, uint64_t sum);

/** Folds to 16 bits, not complemented. */
static inline uint16_t net_fold32(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)(sum + (sum >> 16));
}

/** The same of a longer sum. */
static inline uint16_t net_fold(uint64_t sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	return net_fold32((uint32_t)sum);
}

#endif
