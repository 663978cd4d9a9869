/* Answers of a host without a twin: ARP, neighbour advertisements, echo. Stateless: they go to the station that asked, and are never larger than the question
 * (or the smallest Ethernet frame), so that nobody gains by asking in another's name. */
#include "link/dpdk/net_inner.h"

static size_t answer_arp(const struct net_host *host, const uint8_t *arp, uint8_t *out)
{
	static const uint8_t head[8] = {0, 1, 8, 0, 6, 4, 0, ARP_REPLY};

	if (net_get16(arp + 6) != ARP_REQUEST || memcmp(arp + 24, &host->config.ip4, 4) || !memcmp(arp + 14, &host->config.ip4, 4) ||
	    net_same_mac(arp + 8, host->config.mac))
		return 0;
	size_t at = net_put_ether(host, out, arp + 8, ETHER_ARP);
	memcpy(out + at, head, 8);
	memcpy(out + at + 8, host->config.mac, NET_MAC_BYTES);
	memcpy(out + at + 14, &host->config.ip4, 4);
	memcpy(out + at + 18, arp + 8, NET_MAC_BYTES + 4); /* sender's addresses become the target's */
	return at + ARP_BYTES;
}

/* A short question (without room for its own option) is answered without ours: then the asker either has our address already, or only wants to know whether the
 * IP address is taken. */
static size_t answer_solicit(const struct net_host *host, const uint8_t *frame, size_t bytes, const struct net_packet *p, uint8_t *out)
{
	static const uint8_t all_nodes_mac[NET_MAC_BYTES] = {0x33, 0x33, 0, 0, 0, 1};
	static const struct in6_addr all_nodes = {.s6_addr = {0xff, 2, [15] = 1}};
	const uint8_t *nd = frame + p->payload_at, *ip = frame + p->ip_at;
	bool is_nobody = net_is_nobody(ip + 8), has_option = p->payload_bytes >= ND_BYTES + ND_OPTION_BYTES;
	struct in6_addr addrs[2];

	if (nd[0] != ICMP6_SOLICIT || !net_is_ours6(host, nd + 8))
		return 0;
	size_t length = ND_BYTES + (has_option ? ND_OPTION_BYTES : 0);
	size_t at = net_put_ether(host, out, is_nobody ? all_nodes_mac : frame + 6, ETHER_IP6);
	if (at + NET_IP6_BYTES + length > (bytes > NET_FRAME_LEAST ? bytes : NET_FRAME_LEAST))
		return 0;
	memcpy(&addrs[0], nd + 8, 16);
	memcpy(&addrs[1], is_nobody ? all_nodes.s6_addr : ip + 8, 16);
	net_put_ip6(out + at, (uint32_t)length, IP6_ICMP, ND_HOPS, addrs);
	uint8_t *na = out + at + NET_IP6_BYTES;
	memset(na, 0, length);
	na[0] = ICMP6_ADVERTISE;
	na[4] = is_nobody ? ND_OVERRIDE : ND_SOLICITED | ND_OVERRIDE;
	memcpy(na + 8, nd + 8, 16);
	if (has_option) {
		na[24] = ND_TARGET;
		na[25] = 1;
		memcpy(na + 26, host->config.mac, NET_MAC_BYTES);
	}
	net_put_raw16(na + 2, net_checksum(na, length, net_pseudo6(out + at + 8, (uint32_t)length, IP6_ICMP)));
	return at + NET_IP6_BYTES + length;
}

/* The ICMP message goes back as it came; only its type changes, and so the checksum by as much (RFC 1624 equation 3). */
static void answer_echo_message(const uint8_t *icmp, size_t bytes, uint8_t type, uint8_t *out)
{
	memcpy(out, icmp, bytes);
	out[0] = type;
	uint64_t sum = (uint64_t)(uint16_t)~net_raw16(icmp + 2) + (uint16_t)~net_raw16(icmp) + net_raw16(out);
	net_put_raw16(out + 2, (uint16_t)~net_fold(sum));
}

static size_t answer_echo(const struct net_host *host, const uint8_t *frame, const struct net_packet *p, uint8_t *out, size_t room)
{
	const uint8_t *ip = frame + p->ip_at;
	size_t header = p->is_ip6 ? NET_IP6_BYTES : NET_IP4_BYTES;

	if (header + p->payload_bytes > host->config.mtu_bytes || host->ether_bytes + header + p->payload_bytes > room)
		return 0;
	size_t at = net_put_ether(host, out, frame + 6, p->is_ip6 ? ETHER_IP6 : ETHER_IP4);
	if (p->is_ip6) {
		struct in6_addr addrs[2];
		memcpy(&addrs[0], ip + 24, 16);
		memcpy(&addrs[1], ip + 8, 16);
		net_put_ip6(out + at, p->payload_bytes, IP6_ICMP, IP_HOPS, addrs);
	} else {
		uint8_t addrs[8];
		memcpy(addrs, ip + 16, 4);
		memcpy(addrs + 4, ip + 12, 4);
		net_put_ip4(out + at, (uint32_t)(header + p->payload_bytes), ip[1] & 0xfc, IP_ICMP, addrs);
	}
	answer_echo_message(frame + p->payload_at, p->payload_bytes, p->is_ip6 ? ICMP6_ECHO_REPLY : ICMP_ECHO_REPLY, out + at + header);
	return at + header + p->payload_bytes;
}

size_t net_answer(struct net_host *host, const uint8_t *frame, size_t bytes, const struct net_packet *packet, uint8_t *out, size_t room)
{
	size_t length = 0;

	if (host->config.has_twin || room < NET_POLL_MAX)
		return 0;
	if (packet->kind == NET_ARP)
		length = answer_arp(host, frame + packet->ip_at, out);
	else if (packet->kind == NET_ND)
		length = answer_solicit(host, frame, bytes, packet, out);
	else if (packet->kind == NET_ECHO)
		length = answer_echo(host, frame, packet, out, room);
	host->answers += length != 0;
	return length;
}
