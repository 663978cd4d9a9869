/* Takes received frames apart: what is ours, what is the kernel's, what cannot be. Called by the dpdk link for each frame; reads nothing beyond the frame, changes
 * nothing but counters. Rules are those of the kernel's UDP, so that both take the same datagrams. */
#include "link/dpdk/net_inner.h"

/* A frame on its way through the layers. */
struct parse {
	struct net_host *host;
	const uint8_t *frame;
	size_t bytes; /* shrinks to what the IP header says */
	unsigned verified;
	bool to_station; /* the Ethernet destination is ours, not a group's */
	struct net_packet *p;
};

static void parse_drop(struct parse *c, enum net_drop why)
{
	c->p->kind = NET_DROP;
	c->p->drop = (uint8_t)why;
}

static void parse_addr4(union net_addr *a, const uint8_t *ip, const uint8_t *port)
{
	a->v4 = (struct sockaddr_in){.sin_family = AF_INET};
	memcpy(&a->v4.sin_addr, ip, 4);
	if (port)
		memcpy(&a->v4.sin_port, port, 2);
}

static void parse_addr6(union net_addr *a, const uint8_t *ip, const uint8_t *port)
{
	a->v6 = (struct sockaddr_in6){.sin6_family = AF_INET6};
	memcpy(&a->v6.sin6_addr, ip, 16);
	if (port)
		memcpy(&a->v6.sin6_port, port, 2);
}

static uint64_t parse_pseudo(const struct parse *c, uint32_t bytes, uint8_t protocol)
{
	const uint8_t *ip = c->frame + c->p->ip_at;
	return c->p->is_ip6 ? net_pseudo6(ip + 8, bytes, protocol) : net_sum(ip + 12, 8, htonl((uint32_t)protocol << 16 | bytes));
}

static void parse_addrs(struct parse *c, const uint8_t *from_port, const uint8_t *to_port)
{
	const uint8_t *ip = c->frame + c->p->ip_at;

	if (c->p->is_ip6) {
		parse_addr6(&c->p->from, ip + 8, from_port);
		parse_addr6(&c->p->to, ip + 24, to_port);
	} else {
		parse_addr4(&c->p->from, ip + 12, from_port);
		parse_addr4(&c->p->to, ip + 16, to_port);
	}
}

static void parse_udp(struct parse *c)
{
	const uint8_t *udp = c->frame + c->p->l4_at;
	size_t left = c->bytes - c->p->l4_at;

	if (left < NET_UDP_BYTES)
		return parse_drop(c, NET_DROP_SHORT);
	uint32_t length = net_get16(udp + 4);
	if (length < NET_UDP_BYTES || length > left)
		return parse_drop(c, NET_DROP_SHORT);
	if (!net_port_is_open(c->host, net_get16(udp + 2)))
		return;
	bool has_sum = net_raw16(udp + 6) != 0;
	if (!has_sum && c->p->is_ip6) /* RFC 8200 section 8.1 */
		return parse_drop(c, NET_DROP_UDP_SUM);
	uint64_t pseudo = parse_pseudo(c, length, IP_UDP);
	bool is_partial = (c->verified & NET_L4_PARTIAL) && net_raw16(udp + 6) == net_fold(pseudo);
	c->p->is_hw_verified = has_sum && ((c->verified & NET_L4_GOOD) || is_partial);
	if (has_sum && !c->p->is_hw_verified && net_checksum(udp, length, pseudo))
		return parse_drop(c, NET_DROP_UDP_SUM);
	parse_addrs(c, udp, udp + 2);
	c->p->payload_at = c->p->l4_at + NET_UDP_BYTES;
	c->p->payload_bytes = length - NET_UDP_BYTES;
	c->p->kind = NET_UDP;
}

static void parse_icmp_whole(struct parse *c, enum net_kind kind)
{
	parse_addrs(c, NULL, NULL);
	c->p->payload_at = c->p->l4_at;
	c->p->payload_bytes = (uint32_t)(c->bytes - c->p->l4_at);
	c->p->kind = (uint8_t)kind;
}

/* News of a smaller path is the kernel's, for its own connections: anybody can send it. What our frames may be the engine finds out with probes. */
static void parse_icmp4(struct parse *c)
{
	const uint8_t *icmp = c->frame + c->p->l4_at;
	size_t left = c->bytes - c->p->l4_at;

	if (left < ICMP_BYTES)
		return parse_drop(c, NET_DROP_SHORT);
	if (net_checksum(icmp, left, 0))
		return parse_drop(c, NET_DROP_ICMP_SUM);
	if (icmp[0] == ICMP_ECHO && icmp[1] == 0)
		parse_icmp_whole(c, NET_ECHO);
}

const uint8_t *net_nd_option(const uint8_t *options, size_t bytes, uint8_t type, bool *is_well)
{
	const uint8_t *found = NULL;

	*is_well = true;
	while (bytes) {
		size_t length = bytes < 2 ? 0 : (size_t)options[1] * 8;
		if (!length || length > bytes) {
			*is_well = false;
			return NULL;
		}
		if (options[0] == type && !found)
			found = options + 2;
		options += length;
		bytes -= length;
	}
	return found;
}

/* RFC 4861 sections 7.1.1 and 7.1.2. */
static void parse_nd(struct parse *c)
{
	const uint8_t *ip = c->frame + c->p->ip_at, *nd = c->frame + c->p->l4_at;
	size_t left = c->bytes - c->p->l4_at;
	bool is_well, is_solicit = nd[0] == ICMP6_SOLICIT;

	if (left < ND_BYTES || ip[7] != ND_HOPS || nd[1] || nd[8] == 0xff)
		return parse_drop(c, NET_DROP_ND);
	const uint8_t *source = net_nd_option(nd + ND_BYTES, left - ND_BYTES, ND_SOURCE, &is_well);
	if (!is_well)
		return parse_drop(c, NET_DROP_ND);
	bool is_nobody = net_is_nobody(ip + 8);
	if (is_nobody && (!is_solicit || source || ip[24] != 0xff))
		return parse_drop(c, NET_DROP_ND);
	if (!is_solicit && ip[24] == 0xff && nd[4] & ND_SOLICITED)
		return parse_drop(c, NET_DROP_ND);
	parse_icmp_whole(c, NET_ND);
}

static void parse_icmp6(struct parse *c, bool is_ours)
{
	const uint8_t *icmp = c->frame + c->p->l4_at;
	size_t left = c->bytes - c->p->l4_at;

	if (left < ICMP_BYTES)
		return parse_drop(c, NET_DROP_SHORT);
	if (net_checksum(icmp, left, parse_pseudo(c, (uint32_t)left, IP6_ICMP)))
		return parse_drop(c, NET_DROP_ICMP_SUM);
	bool is_nobody = net_is_nobody(c->frame + c->p->ip_at + 8);
	if (icmp[0] == ICMP6_SOLICIT || icmp[0] == ICMP6_ADVERTISE)
		parse_nd(c);
	else if (icmp[0] == ICMP6_LISTENER_QUERY && c->frame[c->p->ip_at + 7] == 1)
		parse_icmp_whole(c, NET_ND);
	else if (is_nobody && is_ours)
		parse_drop(c, NET_DROP_SOURCE);
	else if (icmp[0] == ICMP6_ECHO && icmp[1] == 0 && is_ours && c->to_station)
		parse_icmp_whole(c, NET_ECHO);
}

/* The kernel puts fragments together, but ours were never sent in fragments: a first one to an open port is refused here, so that the kernel never gets it whole. */
static void parse_fragment(struct parse *c, bool is_first, uint8_t protocol)
{
	const uint8_t *l4 = c->frame + c->p->l4_at;

	if (!c->host->config.has_twin)
		return parse_drop(c, NET_DROP_FRAGMENT);
	if (!is_first || protocol != IP_UDP)
		return;
	if (c->bytes - c->p->l4_at < NET_UDP_BYTES || net_port_is_open(c->host, net_get16(l4 + 2)))
		parse_drop(c, NET_DROP_FRAGMENT);
}

static bool parse_source4_is_bad(const struct net_config *config, uint32_t source)
{
	return !source || source >> 24 == 127 || source >> 28 == 14 || source == 0xffffffff || source == ntohl(config->ip4.s_addr) ||
	       source == net_broadcast4(config);
}

static void parse_ip4(struct parse *c)
{
	const uint8_t *ip = c->frame + c->p->ip_at;
	size_t left = c->bytes - c->p->ip_at;

	if (left < NET_IP4_BYTES)
		return parse_drop(c, NET_DROP_SHORT);
	size_t header = (size_t)(ip[0] & 15) * 4, total = net_get16(ip + 2);
	if (ip[0] >> 4 != 4 || header < NET_IP4_BYTES)
		return parse_drop(c, NET_DROP_VERSION);
	if (header > left || total < header || total > left)
		return parse_drop(c, NET_DROP_SHORT);
	if (!(c->verified & NET_IP_GOOD) && net_checksum(ip, header, 0))
		return parse_drop(c, NET_DROP_IP_SUM);
	c->bytes = c->p->ip_at + total;
	c->p->l4_at = (uint16_t)(c->p->ip_at + header);
	c->p->ecn = ip[1] & 3;
	if (!c->to_station || !c->host->config.ip4.s_addr || memcmp(ip + 16, &c->host->config.ip4, 4))
		return;
	if (parse_source4_is_bad(&c->host->config, net_get32(ip + 12)))
		return parse_drop(c, NET_DROP_SOURCE);
	uint32_t fragment = net_get16(ip + 6) & 0x3fff;
	if (fragment)
		return parse_fragment(c, !(fragment & 0x1fff), ip[9]);
	if (ip[9] == IP_UDP)
		parse_udp(c);
	else if (ip[9] == IP_ICMP)
		parse_icmp4(c);
}

/* Steps over extension headers. @return the protocol behind them with l4_at set, -1: dropped, -2: for the kernel to judge */
static int parse_extensions(struct parse *c, uint8_t next)
{
	size_t at = c->p->ip_at + NET_IP6_BYTES;

	for (int n = 0; n <= NET_EXTENSIONS_MAX; n++) {
		const uint8_t *e = c->frame + at;
		c->p->l4_at = (uint16_t)at;
		if (next != IP6_HOP_BY_HOP && next != IP6_ROUTING && next != IP6_OPTIONS && next != IP6_FRAGMENT)
			return next;
		if (c->bytes - at < 8 || (next != IP6_FRAGMENT && c->bytes - at < ((size_t)e[1] + 1) * 8)) {
			parse_drop(c, NET_DROP_SHORT);
			return -1;
		}
		if (next == IP6_HOP_BY_HOP && n)
			break;
		if (next == IP6_FRAGMENT) {
			c->p->l4_at = (uint16_t)(at + 8);
			parse_fragment(c, !(net_get16(e + 2) & 0xfff8), e[0]);
			return c->p->kind == NET_DROP ? -1 : -2;
		}
		if (next == IP6_ROUTING && e[3]) /* segments left: we are no router */
			return -2;
		next = e[0];
		at += ((size_t)e[1] + 1) * 8;
	}
	parse_drop(c, NET_DROP_EXTENSION);
	return -1;
}

static bool parse_is_our_group(const struct net_host *host, const uint8_t *addr)
{
	static const struct in6_addr all_nodes = {.s6_addr = {0xff, 2, [15] = 1}};
	struct in6_addr a = net_solicited(host->local6.s6_addr), b = net_solicited(host->config.ip6.s6_addr);

	return !memcmp(addr, &all_nodes, 16) || !memcmp(addr, &a, 16) || (net_has_ip6(host) && !memcmp(addr, &b, 16));
}

static bool parse_source6_is_bad(const struct net_host *host, const uint8_t *addr)
{
	struct in6_addr source;

	memcpy(&source, addr, sizeof(source));
	return IN6_IS_ADDR_MULTICAST(&source) || IN6_IS_ADDR_LOOPBACK(&source) || IN6_IS_ADDR_V4MAPPED(&source) || net_is_ours6(host, addr);
}

static void parse_ip6(struct parse *c)
{
	const uint8_t *ip = c->frame + c->p->ip_at;
	size_t left = c->bytes - c->p->ip_at;

	c->p->is_ip6 = true;
	if (left < NET_IP6_BYTES)
		return parse_drop(c, NET_DROP_SHORT);
	if (ip[0] >> 4 != 6)
		return parse_drop(c, NET_DROP_VERSION);
	size_t payload = net_get16(ip + 4);
	if (payload > left - NET_IP6_BYTES)
		return parse_drop(c, NET_DROP_SHORT);
	if (!payload && ip[6] == IP6_HOP_BY_HOP)
		return parse_drop(c, NET_DROP_EXTENSION);
	c->bytes = c->p->ip_at + NET_IP6_BYTES + payload;
	c->p->ecn = ip[1] >> 4 & 3;
	bool is_ours = net_is_ours6(c->host, ip + 24);
	if (!is_ours && !parse_is_our_group(c->host, ip + 24))
		return;
	if (parse_source6_is_bad(c->host, ip + 8))
		return parse_drop(c, NET_DROP_SOURCE);
	int protocol = parse_extensions(c, ip[6]);
	if (protocol == IP6_ICMP)
		return parse_icmp6(c, is_ours);
	if (protocol != IP_UDP || !is_ours || !c->to_station)
		return;
	if (net_is_nobody(ip + 8))
		return parse_drop(c, NET_DROP_SOURCE);
	parse_udp(c);
}

static void parse_arp(struct parse *c)
{
	static const uint8_t ether_ip4[6] = {0, 1, 8, 0, 6, 4};
	const uint8_t *arp = c->frame + c->p->ip_at;

	if (c->bytes - c->p->ip_at < ARP_BYTES)
		return parse_drop(c, NET_DROP_SHORT);
	uint32_t op = net_get16(arp + 6), sender = net_get32(arp + 14);
	if (memcmp(arp, ether_ip4, 6) || (op != ARP_REQUEST && op != ARP_REPLY) || !net_is_station(arp + 8))
		return parse_drop(c, NET_DROP_ARP);
	if (sender >> 28 >= 14 || sender >> 24 == 127)
		return parse_drop(c, NET_DROP_ARP);
	if (c->host->config.ip4.s_addr)
		c->p->kind = NET_ARP;
}

/* @return the Ethernet type with ip_at set, -1: dropped */
static int parse_ether(struct parse *c)
{
	const uint8_t *frame = c->frame, *mac = c->host->config.mac;

	if (c->bytes < NET_ETHER_BYTES) {
		parse_drop(c, NET_DROP_SHORT);
		return -1;
	}
	c->to_station = net_same_mac(frame, mac);
	if ((!c->to_station && !(frame[0] & 1)) || !net_is_station(frame + 6) || net_same_mac(frame + 6, mac)) {
		parse_drop(c, NET_DROP_MAC);
		return -1;
	}
	uint16_t type = net_get16(frame + 12), vlan = 0;
	c->p->ip_at = NET_ETHER_BYTES;
	if (type == ETHER_VLAN) {
		if (c->bytes < NET_ETHER_BYTES + NET_VLAN_BYTES) {
			parse_drop(c, NET_DROP_SHORT);
			return -1;
		}
		vlan = net_get16(frame + 14) & 0xfff; /* 0: priority only, the same as untagged */
		type = net_get16(frame + 16);
		c->p->ip_at = NET_ETHER_BYTES + NET_VLAN_BYTES;
	}
	if (vlan != c->host->config.vlan) {
		parse_drop(c, NET_DROP_VLAN);
		return -1;
	}
	return type;
}

enum net_kind net_parse(struct net_host *host, const uint8_t *frame, size_t bytes, unsigned verified, struct net_packet *packet)
{
	struct parse c = {host, frame, bytes, verified, false, packet};

	memset(packet, 0, offsetof(struct net_packet, from));
	packet->kind = NET_FOREIGN; /* until found to be ours or bad */
	if (bytes > NET_MTU_MAX + 64) /* offsets are 16 bits */
		parse_drop(&c, NET_DROP_SHORT);
	else {
		switch (parse_ether(&c)) {
		case ETHER_IP4: parse_ip4(&c); break;
		case ETHER_IP6: parse_ip6(&c); break;
		case ETHER_ARP: parse_arp(&c); break;
		default: break;
		}
	}
	if (packet->kind == NET_FOREIGN && !host->config.has_twin)
		parse_drop(&c, NET_DROP_FOREIGN);
	if (packet->kind == NET_DROP)
		host->drops[packet->drop]++;
	return packet->kind;
}

static int steer_ip4(const uint8_t *ip, size_t bytes)
{
	size_t header = bytes < NET_IP4_BYTES ? 0 : (size_t)(ip[0] & 15) * 4;

	if (header < NET_IP4_BYTES || bytes < header + 4 || ip[9] != IP_UDP || net_get16(ip + 6) & 0x3fff)
		return NET_STEER_NONE;
	return net_get16(ip + header + 2);
}

static int steer_ip6(const uint8_t *ip, size_t bytes)
{
	size_t at = NET_IP6_BYTES;
	uint8_t next = bytes < at ? IP6_FRAGMENT : ip[6];

	for (int n = 0; n < NET_EXTENSIONS_MAX && (next == IP6_HOP_BY_HOP || next == IP6_ROUTING || next == IP6_OPTIONS); n++) {
		if (bytes < at + 2)
			return NET_STEER_NONE;
		next = ip[at];
		at += ((size_t)ip[at + 1] + 1) * 8;
	}
	if (bytes < at + 4)
		return NET_STEER_NONE;
	if (next == IP_UDP)
		return net_get16(ip + at + 2);
	return next == IP6_ICMP && (ip[at] == ICMP6_SOLICIT || ip[at] == ICMP6_ADVERTISE) ? NET_STEER_ALL : NET_STEER_NONE;
}

int net_steer(const uint8_t *frame, size_t bytes)
{
	size_t at = NET_ETHER_BYTES;

	if (bytes < at + NET_VLAN_BYTES)
		return NET_STEER_NONE;
	uint16_t type = net_get16(frame + 12);
	if (type == ETHER_VLAN) {
		type = net_get16(frame + 16);
		at += NET_VLAN_BYTES;
	}
	if (type == ETHER_IP4)
		return steer_ip4(frame + at, bytes - at);
	if (type == ETHER_IP6)
		return steer_ip6(frame + at, bytes - at);
	return type == ETHER_ARP ? NET_STEER_ALL : NET_STEER_NONE;
}
