/* A flow that is known: its last datagram's headers, which the next one's are held against, 16 bytes at a time. What net_parse would say again is taken from
 * there; whatever differs by more than lengths, identification and the like goes the long way. Called by the dpdk link's receiver for each frame; the template
 * is made once a flow. Knows no more of a frame than net_parse does, and takes nothing that it would not. */
#ifndef LINK_DPDK_NET_KNOWN_H
#define LINK_DPDK_NET_KNOWN_H
#include "link/dpdk/net_inner.h"

typedef uint64_t net_known_part __attribute__((vector_size(16)));

enum { NET_KNOWN_PARTS = (NET_HEADER_MAX + 15) / 16 };

/* Caller's memory; zeros: nothing is known yet. */
struct net_known {
	net_known_part want[NET_KNOWN_PARTS], mask[NET_KNOWN_PARTS]; /* of the header; the last one ends with it, so that nothing behind it is read */
	uint8_t parts;      /* 0: none */
	uint8_t header_bytes, ip_at, l4_at;
	bool is_ip6;
};

/* What a frame of a known flow says that others of it do not. */
struct net_known_datagram {
	uint32_t payload_bytes;
	uint8_t ecn;
};

/** Makes the template from a frame that net_parse called NET_UDP. With IP options or extension headers it stays empty. */
void net_known_make(struct net_known *known, const uint8_t *frame, const struct net_packet *packet);

/* RFC 1071 over the 20 bytes of an IPv4 header. */
static inline bool net_known_sum_is_good(const uint8_t *ip)
{
	uint64_t front, middle;
	uint32_t last;
	memcpy(&front, ip, sizeof(front));
	memcpy(&middle, ip + 8, sizeof(middle));
	memcpy(&last, ip + 16, sizeof(last));
	return net_fold((front & 0xffffffff) + (front >> 32) + (middle & 0xffffffff) + (middle >> 32) + last) == 0xffff;
}

static inline bool net_known_matches(const struct net_known *k, const uint8_t *frame)
{
	net_known_part part, differs;
	unsigned last = k->parts - 1u;
	memcpy(&part, frame + k->header_bytes - sizeof(part), sizeof(part));
	differs = (part ^ k->want[last]) & k->mask[last];
	for (unsigned i = 0; i < last; i++) {
		memcpy(&part, frame + sizeof(part) * i, sizeof(part));
		differs |= (part ^ k->want[i]) & k->mask[i];
	}
	return !(differs[0] | differs[1]);
}

/**
 * Is this a sound datagram with payload, of the known flow? Reads frame[0, header_bytes) only: checksums over the payload are the long way's.
 * @param first     bytes of the frame that are contiguous
 * @param bytes     of the whole frame
 * @param verified  enum net_verified bits
 * @return false: net_parse must judge
 */
static inline bool net_known_is(const struct net_known *k, const uint8_t *frame, size_t first, size_t bytes, unsigned verified,
                                struct net_known_datagram *out)
{
	if (!k->parts || first < k->header_bytes || !net_known_matches(k, frame))
		return false;
	const uint8_t *ip = frame + k->ip_at, *udp = frame + k->l4_at;
	uint32_t length = net_get16(udp + 4), total = net_get16(ip + (k->is_ip6 ? 4 : 2)) - (k->is_ip6 ? 0u : NET_IP4_BYTES);
	bool has_sum = net_raw16(udp + 6) != 0;
	if (length <= NET_UDP_BYTES || total != length || k->l4_at + length > bytes || bytes > NET_MTU_MAX + 64)
		return false;
	if (has_sum ? !(verified & NET_L4_GOOD) : k->is_ip6)
		return false;
	if (!k->is_ip6 && !(verified & NET_IP_GOOD) && !net_known_sum_is_good(ip))
		return false;
	out->payload_bytes = length - NET_UDP_BYTES;
	out->ecn = k->is_ip6 ? ip[1] >> 4 & 3 : ip[1] & 3;
	return true;
}

#endif
