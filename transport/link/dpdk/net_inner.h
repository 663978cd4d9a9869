/* Shared by the files of the small IP host (net.h); nobody else includes it: numbers of the formats, big-endian access, IPv4 addresses as IPv6 ones so that
 * there is one neighbour table. */
#ifndef LINK_DPDK_NET_INNER_H
#define LINK_DPDK_NET_INNER_H
#include "link/dpdk/net.h"

enum {
	ETHER_IP4 = 0x0800,
	ETHER_ARP = 0x0806,
	ETHER_VLAN = 0x8100,
	ETHER_IP6 = 0x86dd,
	ETHER_LENGTHS = 0x600, /* below: a length, not a type */
	ARP_BYTES = 28,
	ARP_REQUEST = 1,
	ARP_REPLY = 2,
	IP_ICMP = 1,
	IP_UDP = 17,
	IP6_HOP_BY_HOP = 0,
	IP6_ROUTING = 43,
	IP6_FRAGMENT = 44,
	IP6_ICMP = 58,
	IP6_OPTIONS = 60,
	IP_HOPS = 64,
	ICMP_ECHO_REPLY = 0,
	ICMP_ECHO = 8,
	ICMP6_ECHO = 128,
	ICMP6_ECHO_REPLY = 129,
	ICMP6_LISTENER_QUERY = 130,
	ICMP6_SOLICIT = 135,
	ICMP6_ADVERTISE = 136,
	ICMP6_LISTENER_REPORT = 143,
	ICMP_BYTES = 8,
	ND_BYTES = 24,
	ND_OPTION_BYTES = 8,
	ND_SOURCE = 1, /* option: link-layer address of the source */
	ND_TARGET = 2,
	ND_HOPS = 255,
	ND_SOLICITED = 0x40,
	ND_OVERRIDE = 0x20,
};

static inline uint16_t net_get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t net_get32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline void net_put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

/* As it lies in memory, for sums. */
static inline uint16_t net_raw16(const uint8_t *p)
{
	uint16_t v;
	memcpy(&v, p, sizeof(v));
	return v;
}

static inline void net_put_raw16(uint8_t *p, uint16_t v)
{
	memcpy(p, &v, sizeof(v));
}

static inline struct in6_addr net_map4(struct in_addr a)
{
	struct in6_addr m = {.s6_addr = {[10] = 0xff, [11] = 0xff}};
	memcpy(m.s6_addr + 12, &a, 4);
	return m;
}

static inline bool net_is_mapped4(const struct in6_addr *a)
{
	return IN6_IS_ADDR_V4MAPPED(a);
}

static inline bool net_same(const struct in6_addr *a, const struct in6_addr *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

static inline bool net_same_mac(const uint8_t *a, const uint8_t *b)
{
	return memcmp(a, b, NET_MAC_BYTES) == 0;
}

/* Could be a station's. */
static inline bool net_is_station(const uint8_t *mac)
{
	return !(mac[0] & 1) && (mac[0] | mac[1] | mac[2] | mac[3] | mac[4] | mac[5]);
}

/* The unspecified address, ::. */
static inline bool net_is_nobody(const uint8_t *addr)
{
	static const uint8_t zero[16];
	return memcmp(addr, zero, 16) == 0;
}

static inline bool net_has_ip6(const struct net_host *host)
{
	return !IN6_IS_ADDR_UNSPECIFIED(&host->config.ip6);
}

/* One of ours: the link-local or the configured address. */
static inline bool net_is_ours6(const struct net_host *host, const uint8_t *addr)
{
	return memcmp(addr, &host->local6, 16) == 0 || (net_has_ip6(host) && memcmp(addr, &host->config.ip6, 16) == 0);
}

/* Solicited-node multicast, RFC 4291 section 2.7.1. */
static inline struct in6_addr net_solicited(const uint8_t *addr)
{
	struct in6_addr group = {.s6_addr = {0xff, 2, [11] = 1, [12] = 0xff}};
	memcpy(group.s6_addr + 13, addr + 13, 3);
	return group;
}

/* The broadcast address of our IPv4 network, in host byte order; 0 where there is none. */
static inline uint32_t net_broadcast4(const struct net_config *config)
{
	return config->prefix4 > 30 ? 0 : ntohl(config->ip4.s_addr) | (0xffffffffu >> config->prefix4);
}

/* net_parse.c: finds an option in the `bytes` of neighbour discovery options. @return its 6 address bytes, NULL: not there. *is_well false: malformed. */
const uint8_t *net_nd_option(const uint8_t *options, size_t bytes, uint8_t type, bool *is_well);
/* net_header.c: writes the Ethernet header, with tag. @return its bytes */
size_t net_put_ether(const struct net_host *host, uint8_t *out, const uint8_t *mac, uint16_t type);
/* net_header.c: an IPv4 header with DF, complete. */
void net_put_ip4(uint8_t *out, uint32_t total, uint8_t tos, uint8_t protocol, const uint8_t addrs[8]);
/* net_header.c: payload and what goes with it. addrs: source, destination. */
void net_put_ip6(uint8_t *out, uint32_t payload, uint8_t next, uint8_t hops, const struct in6_addr addrs[2]);
/* net_header.c: the sum of an IPv6 pseudo header; addrs: where source and destination lie, one behind the other. */
uint64_t net_pseudo6(const uint8_t *addrs, uint32_t bytes, uint8_t next);
/* net_resolve.c: next hop and own address to a remote, IPv4 as mapped. @return 0, -TERN_EADDR */
int net_route(const struct net_host *host, const union net_addr *remote, struct in6_addr *hop, struct in6_addr *source);

#endif
