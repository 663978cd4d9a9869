/* Headers that we send: templates of our datagrams, filled in for each packet, and the headers under requests and answers. Called by the dpdk link for every
 * datagram (net_udp_header) and by the other files of the host. */
#include "link/dpdk/net_inner.h"
#include "tern/error.h"

enum { FLOW_CHECK_NS = 1000000000 };

size_t net_put_ether(const struct net_host *host, uint8_t *out, const uint8_t *mac, uint16_t type)
{
	memcpy(out, mac, NET_MAC_BYTES);
	memcpy(out + 6, host->config.mac, NET_MAC_BYTES);
	size_t at = 12;
	if (host->config.vlan) {
		net_put16(out + 12, ETHER_VLAN);
		net_put16(out + 14, (uint32_t)host->config.vlan_priority << 13 | host->config.vlan);
		at = 16;
	}
	net_put16(out + at, type);
	return at + 2;
}

void net_put_ip4(uint8_t *out, uint32_t total, uint8_t tos, uint8_t protocol, const uint8_t addrs[8])
{
	const uint8_t head[12] = {0x45, tos, [6] = 0x40, [8] = IP_HOPS, [9] = protocol};

	memcpy(out, head, sizeof(head));
	memcpy(out + 12, addrs, 8);
	net_put16(out + 2, total);
	net_put_raw16(out + 10, net_checksum(out, NET_IP4_BYTES, 0));
}

void net_put_ip6(uint8_t *out, uint32_t payload, uint8_t next, uint8_t hops, const struct in6_addr addrs[2])
{
	const uint8_t head[8] = {0x60, [6] = next, [7] = hops};

	memcpy(out, head, sizeof(head));
	net_put16(out + 4, payload);
	memcpy(out + 8, addrs, 32);
}

uint64_t net_pseudo6(const uint8_t *addrs, uint32_t bytes, uint8_t next)
{
	return net_sum(addrs, 32, (uint64_t)htonl(bytes) + htonl(next));
}

int net_source(const struct net_host *host, const union net_addr *remote, uint16_t port, union net_addr *out)
{
	struct in6_addr hop, source;
	int err = net_route(host, remote, &hop, &source);

	if (err)
		return err;
	memset(out, 0, sizeof(*out));
	if (net_is_mapped4(&source)) {
		out->v4.sin_family = AF_INET;
		out->v4.sin_port = htons(port);
		memcpy(&out->v4.sin_addr, source.s6_addr + 12, 4);
	} else {
		out->v6.sin6_family = AF_INET6;
		out->v6.sin6_port = htons(port);
		out->v6.sin6_addr = source;
	}
	return 0;
}

/* Routers spread over equal paths by the label where they do not look at ports; RFC 6437 wants it to differ between flows and to stay within one. */
static uint32_t flow_label(const struct in6_addr *source, const struct in6_addr *remote, const uint8_t ports[4])
{
	uint32_t h = 2166136261u;

	for (int i = 0; i < 16; i++)
		h = ((h ^ source->s6_addr[i]) * 16777619u ^ remote->s6_addr[i]) * 16777619u;
	for (int i = 0; i < 4; i++)
		h = (h ^ ports[i]) * 16777619u;
	h = (h >> 12 ^ h) & 0xfffff;
	return h ? h : 1;
}

static void flow_ip4(struct net_flow *flow, uint8_t tos, const struct in6_addr *source, const struct in6_addr *remote)
{
	uint8_t *ip = flow->header + flow->ip_at, addrs[8];

	memcpy(addrs, source->s6_addr + 12, 4);
	memcpy(addrs + 4, remote->s6_addr + 12, 4);
	net_put_ip4(ip, 0, tos, IP_UDP, addrs);
	net_put16(ip + 10, 0);
	flow->ip_sum = net_fold(net_sum(ip, NET_IP4_BYTES, 0));
	flow->pseudo_sum = net_fold(net_sum(addrs, 8, htons(IP_UDP)));
}

static void flow_ip6(struct net_flow *flow, uint8_t tos, const struct in6_addr addrs[2], const uint8_t *ports)
{
	uint8_t *ip = flow->header + flow->ip_at;
	uint32_t label = flow_label(&addrs[0], &addrs[1], ports);

	net_put_ip6(ip, 0, IP_UDP, IP_HOPS, addrs);
	ip[0] |= tos >> 4;
	ip[1] = (uint8_t)(tos << 4 | label >> 16);
	net_put16(ip + 2, label);
	flow->pseudo_sum = net_fold(net_pseudo6(ip + 8, 0, IP_UDP));
}

int net_flow_init(const struct net_host *host, const struct net_flow_config *config, struct net_flow *flow)
{
	static const uint8_t no_mac[NET_MAC_BYTES];
	struct in6_addr hop, addrs[2];
	uint8_t ports[4];
	bool is_mapped = config->remote.sa.sa_family == AF_INET6 && net_is_mapped4(&config->remote.v6.sin6_addr);
	uint16_t remote_port = config->remote.sa.sa_family == AF_INET6 ? config->remote.v6.sin6_port : config->remote.v4.sin_port;

	if (config->dscp > 63 || config->ecn > 3 || !config->port || !remote_port)
		return -TERN_EINVAL;
	int err = net_route(host, &config->remote, &hop, &addrs[0]);
	if (err)
		return err;
	*flow = (struct net_flow){.remote = config->remote};
	flow->is_ip6 = config->remote.sa.sa_family == AF_INET6 && !is_mapped;
	flow->ip_at = (uint8_t)net_put_ether(host, flow->header, no_mac, flow->is_ip6 ? ETHER_IP6 : ETHER_IP4);
	flow->udp_at = flow->ip_at + (flow->is_ip6 ? NET_IP6_BYTES : NET_IP4_BYTES);
	flow->header_bytes = flow->udp_at + NET_UDP_BYTES;
	net_put16(ports, config->port);
	memcpy(ports + 2, &remote_port, 2);
	memcpy(flow->header + flow->udp_at, ports, 4);
	uint8_t tos = (uint8_t)(config->dscp << 2 | config->ecn);
	if (config->remote.sa.sa_family == AF_INET6)
		addrs[1] = config->remote.v6.sin6_addr;
	else
		addrs[1] = net_map4(config->remote.v4.sin_addr);
	if (flow->is_ip6)
		flow_ip6(flow, tos, addrs, ports);
	else
		flow_ip4(flow, tos, &addrs[0], &addrs[1]);
	return 0;
}

int net_flow_resolve(struct net_host *host, struct net_flow *flow, uint64_t now_ns)
{
	int err = net_neighbour(host, &flow->remote, now_ns, flow->header);

	flow->is_resolved = !err;
	flow->version = host->version;
	flow->check_ns = now_ns + FLOW_CHECK_NS;
	return err;
}

void net_udp_header(const struct net_flow *flow, uint8_t *out, uint32_t payload_bytes, uint16_t ip_id)
{
	uint32_t length = payload_bytes + NET_UDP_BYTES;
	uint16_t raw_length = htons((uint16_t)length);

	switch (flow->header_bytes) { /* each a few moves instead of a call */
	case 42: memcpy(out, flow->header, 42); break;
	case 46: memcpy(out, flow->header, 46); break;
	case 62: memcpy(out, flow->header, 62); break;
	default: memcpy(out, flow->header, 66); break;
	}
	uint8_t *ip = out + flow->ip_at, *udp = out + flow->udp_at;
	if (flow->is_ip6)
		net_put_raw16(ip + 4, raw_length);
	else {
		uint16_t total = htons((uint16_t)(length + NET_IP4_BYTES)), id = htons(ip_id);
		net_put_raw16(ip + 2, total);
		net_put_raw16(ip + 4, id);
		net_put_raw16(ip + 10, (uint16_t)~net_fold32(flow->ip_sum + total + id));
	}
	net_put_raw16(udp + 4, raw_length);
	net_put_raw16(udp + 6, net_fold32(flow->pseudo_sum + raw_length));
}

void net_set_ecn(const struct net_flow *flow, uint8_t *out, uint8_t ecn)
{
	uint8_t *ip = out + flow->ip_at;

	if (flow->is_ip6) {
		ip[1] = (uint8_t)((ip[1] & 0xcf) | (ecn & 3) << 4);
		return;
	}
	uint16_t before = net_raw16(ip);
	ip[1] = (uint8_t)((ip[1] & 0xfc) | (ecn & 3));
	uint64_t sum = (uint64_t)(uint16_t)~net_raw16(ip + 10) + (uint16_t)~before + net_raw16(ip); /* RFC 1624 equation 3 */
	net_put_raw16(ip + 10, (uint16_t)~net_fold(sum));
}
