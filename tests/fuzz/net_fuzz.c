/* Fuzz target over the small IP host of the dpdk link: frames off the wire through parse, learn, answer and poll. Input: a byte of options, then frames, each
 * behind a byte of what the hardware verified and two of length. A frame that only its ICMP checksum stopped is mended and tried again: fuzzers find no checksums.
 * Held: nothing is read outside a frame, what was found lies inside it, an answer is no longer than its question or the smallest frame, and no frame makes
 * neighbours. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include "link/dpdk/net.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

enum { TWIN = 1, VLAN = 2, NO_IP4 = 4, NO_IP6 = 8, ASKING = 16 };

static struct net_host host;

static void require(int holds)
{
	if (!holds)
		abort();
}

static void start(uint8_t options)
{
	struct net_config c = {.mac = {2, 0, 0, 0, 0, 0xb}, .mtu_bytes = 1500, .prefix4 = 24, .prefix6 = 64};
	const char *why;

	if (!(options & NO_IP4)) {
		inet_pton(AF_INET, "10.9.0.2", &c.ip4);
		inet_pton(AF_INET, "10.9.0.1", &c.gateway4);
	}
	if (!(options & NO_IP6)) {
		inet_pton(AF_INET6, "fd09::2", &c.ip6);
		inet_pton(AF_INET6, "fd09::1", &c.gateway6);
	}
	c.vlan = options & VLAN ? 100 : 0;
	c.has_twin = options & TWIN;
	require(net_init(&host, &c, 0, &why) == 0);
	net_port_open(&host, 7400);
	net_port_open(&host, 5001);
}

/* Neighbours that answers may be about. */
static uint16_t ask(uint64_t now)
{
	union net_addr a = {.v4 = {.sin_family = AF_INET}}, b = {.v6 = {.sin6_family = AF_INET6}};
	uint8_t mac[NET_MAC_BYTES];

	a.v4.sin_addr.s_addr = htonl(0x0a090001);
	inet_pton(AF_INET6, "fd09::1", &b.v6.sin6_addr);
	net_neighbour(&host, &a, now, mac);
	net_neighbour(&host, &b, now, mac);
	return host.neighbours;
}

static int mend(uint8_t *frame, const struct net_packet *p)
{
	uint8_t *ip = frame + p->ip_at, *icmp = frame + p->l4_at;
	size_t end = p->ip_at + (p->is_ip6 ? 40u + (ip[4] << 8 | ip[5]) : (size_t)(ip[2] << 8 | ip[3])), length = end - p->l4_at;

	memset(icmp + 2, 0, 2);
	uint64_t pseudo = p->is_ip6 ? net_sum(ip + 8, 32, (uint64_t)htonl((uint32_t)length) + htonl(58)) : 0;
	uint16_t sum = net_checksum(icmp, length, pseudo);
	memcpy(icmp + 2, &sum, 2);
	return 1;
}

static void frame_in(const uint8_t *data, size_t bytes, uint8_t verified, uint64_t now)
{
	uint8_t *frame = malloc(bytes ? bytes : 1), out[2048];
	struct net_packet p;

	require(frame != NULL);
	if (bytes)
		memcpy(frame, data, bytes);
	enum net_kind kind = net_parse(&host, frame, bytes, verified, &p);
	if (kind == NET_DROP && p.drop == NET_DROP_ICMP_SUM && mend(frame, &p))
		kind = net_parse(&host, frame, bytes, verified, &p);
	require(kind == p.kind && (kind != NET_FOREIGN || host.config.has_twin));
	if (kind == NET_UDP || kind == NET_ECHO || kind == NET_ND)
		require((size_t)p.payload_at + p.payload_bytes <= bytes);
	int to = net_steer(frame, bytes); /* another link of the port may have it */
	require(to >= NET_STEER_ALL && to <= 65535 && (kind != NET_ARP || to == NET_STEER_ALL));
	if (kind == NET_UDP)
		require(to == ntohs(p.is_ip6 ? p.to.v6.sin6_port : p.to.v4.sin_port));
	uint16_t neighbours = host.neighbours;
	net_learn(&host, frame, &p, now);
	require(host.neighbours == neighbours);
	size_t length = net_answer(&host, frame, bytes, &p, out, sizeof(out));
	require(length <= (bytes > NET_FRAME_LEAST ? bytes : NET_FRAME_LEAST) && length <= host.config.mtu_bytes + host.ether_bytes);
	free(frame);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	uint64_t now = 0;

	if (!bytes)
		return 0;
	start(data[0]);
	for (size_t at = 1; at + 3 <= bytes;) {
		size_t length = (size_t)data[at + 1] << 8 | data[at + 2];
		uint8_t out[NET_POLL_MAX], verified = data[at];
		at += 3;
		length = length < bytes - at ? length : bytes - at;
		if (data[0] & ASKING)
			ask(now);
		for (int i = 0; i < 20 && net_poll(&host, now, out, sizeof(out)); i++)
			;
		frame_in(data + at, length, verified, now);
		at += length;
		now += (uint64_t)(verified >> 2) << 28; /* up to 17 s */
	}
	return 0;
}
