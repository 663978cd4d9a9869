/* Shared by the tests of the small IP host: the station that captured.h's frames were sent to, and what to do with frames. */
#ifndef TESTS_LINK_NET_STATION_H
#define TESTS_LINK_NET_STATION_H
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include "unit.h"
#include "rand.h"
#include "captured.h"
#include "link/dpdk/net.h"
#include "tern/error.h"

static const uint8_t mac_a[6] = {2, 0, 0, 0, 0, 0xa}, mac_b[6] = {2, 0, 0, 0, 0, 0xb}, mac_evil[6] = {2, 6, 6, 6, 6, 6};
static const uint64_t second = 1000000000;

static struct net_config station_config(void)
{
	struct net_config c = {.mac = {2, 0, 0, 0, 0, 0xb}, .mtu_bytes = 1500, .prefix4 = 24, .prefix6 = 64};
	inet_pton(AF_INET, "10.9.0.2", &c.ip4);
	inet_pton(AF_INET, "10.9.0.1", &c.gateway4);
	inet_pton(AF_INET6, "fd09::2", &c.ip6);
	inet_pton(AF_INET6, "fd09::1", &c.gateway6);
	return c;
}

static struct net_host *station_new(const struct net_config *config)
{
	struct net_host *host = malloc(sizeof(*host));
	const char *why;
	if (!host || net_init(host, config, 0, &why))
		abort();
	net_port_open(host, 7400);
	return host;
}

static inline struct net_host *station(bool has_twin)
{
	struct net_config c = station_config();
	c.has_twin = has_twin;
	return station_new(&c);
}

/* Parses from a block of exactly this size, so that a sanitizer sees each byte too far. */
static inline enum net_kind parse_exact(struct net_host *host, const uint8_t *frame, size_t bytes, unsigned verified, struct net_packet *p)
{
	uint8_t *exact = malloc(bytes ? bytes : 1), out[2048];
	if (!exact)
		abort();
	memcpy(exact, frame, bytes);
	enum net_kind kind = net_parse(host, exact, bytes, verified, p);
	size_t length = net_answer(host, exact, bytes, p, out, sizeof(out));
	CU_ASSERT_TRUE(length <= (bytes > NET_FRAME_LEAST ? bytes : NET_FRAME_LEAST));
	net_learn(host, exact, p, 0);
	free(exact);
	return kind;
}

static inline union net_addr address(const char *text, uint16_t port)
{
	union net_addr a = {0};
	if (inet_pton(AF_INET, text, &a.v4.sin_addr) == 1) {
		a.v4.sin_family = AF_INET;
		a.v4.sin_port = htons(port);
	} else if (inet_pton(AF_INET6, text, &a.v6.sin6_addr) == 1) {
		a.v6.sin6_family = AF_INET6;
		a.v6.sin6_port = htons(port);
	} else
		abort();
	return a;
}

static inline bool same_address(const union net_addr *a, const char *text, uint16_t port)
{
	union net_addr b = address(text, port);
	if (a->sa.sa_family != b.sa.sa_family)
		return false;
	if (b.sa.sa_family == AF_INET)
		return a->v4.sin_port == b.v4.sin_port && a->v4.sin_addr.s_addr == b.v4.sin_addr.s_addr;
	return a->v6.sin6_port == b.v6.sin6_port && !memcmp(&a->v6.sin6_addr, &b.v6.sin6_addr, 16);
}

/* The slow, obvious checksum. */
static inline uint16_t plain_sum(const uint8_t *p, size_t bytes, uint64_t sum)
{
	for (size_t i = 0; i < bytes; i++)
		sum += i % 2 ? p[i] : (uint64_t)p[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

/* Whether all checksums of an untagged IP frame are right, by plain_sum. */
static inline bool sums_are_right(const uint8_t *frame)
{
	const uint8_t *ip = frame + 14;
	if (ip[0] >> 4 == 4) {
		size_t total = (size_t)ip[2] << 8 | ip[3], head = (ip[0] & 15) * 4u;
		uint64_t pseudo = ip[9] == 17 ? plain_sum(ip + 12, 8, 17 + total - head) : 0;
		return plain_sum(ip, head, 0) == 0xffff && plain_sum(ip + head, total - head, pseudo) == 0xffff;
	}
	size_t length = (size_t)ip[4] << 8 | ip[5], skip = ip[6] ? 0 : 8;
	uint8_t next = ip[6] ? ip[6] : ip[40];
	return plain_sum(ip + 40 + skip, length - skip, plain_sum(ip + 8, 32, length - skip + next)) == 0xffff;
}

#endif
