/* Makes the template of a known flow; see net_known.h. */
#include "link/dpdk/net_known.h"

/* What may differ between two datagrams of a flow that net_parse takes alike. */
static void known_free(uint8_t *mask, size_t from, size_t bytes)
{
	memset(mask + from, 0, bytes);
}

static void known_mask(uint8_t *mask, size_t ip, size_t udp, bool is_ip6)
{
	memset(mask, 0xff, NET_HEADER_MAX);
	if (is_ip6) {
		mask[ip] = 0xf0;              /* the version stays; traffic class and flow label, */
		known_free(mask, ip + 1, 5);  /* and length do not */
		known_free(mask, ip + 7, 1);  /* hop limit */
	} else {
		known_free(mask, ip + 1, 5);  /* type of service, length, identification */
		mask[ip + 6] = 0x3f;          /* of the flags only "more fragments" counts */
		known_free(mask, ip + 8, 1);  /* time to live */
		known_free(mask, ip + 10, 2); /* checksum */
	}
	known_free(mask, udp + 4, 4);         /* length, checksum */
}

void net_known_make(struct net_known *known, const uint8_t *frame, const struct net_packet *packet)
{
	uint8_t mask[NET_HEADER_MAX];
	unsigned header = packet->payload_at, parts = (header + 15u) / 16u;

	known->parts = 0;
	if (packet->kind != NET_UDP || packet->l4_at - packet->ip_at != (packet->is_ip6 ? NET_IP6_BYTES : NET_IP4_BYTES) || header > NET_HEADER_MAX)
		return;
	known_mask(mask, packet->ip_at, packet->l4_at, packet->is_ip6);
	for (unsigned i = 0; i < parts; i++) {
		size_t at = i + 1u < parts ? 16u * i : header - 16u;
		memcpy(&known->want[i], frame + at, 16);
		memcpy(&known->mask[i], mask + at, 16);
	}
	known->header_bytes = (uint8_t)header;
	known->ip_at = (uint8_t)packet->ip_at;
	known->l4_at = (uint8_t)packet->l4_at;
	known->is_ip6 = packet->is_ip6;
	known->parts = (uint8_t)parts;
}
