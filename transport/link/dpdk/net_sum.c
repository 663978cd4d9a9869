/* Internet checksums (RFC 1071) over plain memory: 32-bit words added up in 64-bit lanes of the compiler's vectors; once for any CPU, once for AVX2,
 * chosen at run time. Called for every frame whose checksum the hardware does not do. */
#include "link/dpdk/net_inner.h"

typedef uint64_t sum_lanes __attribute__((vector_size(32)));
typedef uint64_t sum_loads __attribute__((vector_size(32), aligned(1), may_alias));

/* 64-byte blocks, as 64-bit words: the low and high halves add up apart, so that no carry is lost below 2^32 words. */
static inline __attribute__((always_inline)) uint64_t sum_blocks(const uint8_t *p, size_t blocks)
{
	sum_lanes low = {0}, high = {0}, more_low = {0}, more_high = {0};

	for (size_t b = 0; b < blocks; b++, p += 2 * sizeof(sum_lanes)) {
		sum_lanes first = *(const sum_loads *)p, second = *(const sum_loads *)(p + sizeof(sum_lanes));
		low += first & 0xffffffff;
		high += first >> 32;
		more_low += second & 0xffffffff;
		more_high += second >> 32;
	}
	low += more_low + high + more_high; /* a datagram's are far from a carry */
	return low[0] + low[1] + low[2] + low[3];
}

static inline __attribute__((always_inline)) uint64_t sum_all(const uint8_t *p, size_t bytes, uint64_t sum)
{
	size_t blocks = bytes / 64, rest = bytes % 64;
	uint8_t tail[64] = {0};

	sum += sum_blocks(p, blocks);
	if (!rest)
		return sum;
	memcpy(tail, p + blocks * 64, rest);
	return sum + sum_blocks(tail, 1);
}

#ifdef __x86_64__
static __attribute__((target("avx2"))) uint64_t sum_avx2(const uint8_t *p, size_t bytes, uint64_t sum)
{
	return sum_all(p, bytes, sum);
}
#endif

uint64_t net_sum(const void *data, size_t bytes, uint64_t sum)
{
#ifdef __x86_64__
	if (bytes >= 256 && __builtin_cpu_supports("avx2"))
		return sum_avx2(data, bytes, sum);
#endif
	return sum_all(data, bytes, sum);
}

uint16_t net_checksum(const void *data, size_t bytes, uint64_t sum)
{
	return (uint16_t)~net_fold(net_sum(data, bytes, sum));
}

void net_udp_sum(const struct net_flow *flow, uint8_t *out, const struct frame_seg *seg, size_t segs)
{
	uint8_t *udp = out + flow->udp_at;
	uint64_t sum = net_sum(udp, NET_UDP_BYTES, 0);
	bool is_odd = false;

	for (size_t i = 0; i < segs; i++) {
		uint16_t part = net_fold(net_sum(seg[i].addr, seg[i].bytes, 0));
		sum += is_odd ? (uint16_t)(part << 8 | part >> 8) : part;
		is_odd ^= seg[i].bytes & 1;
	}
	uint16_t check = (uint16_t)~net_fold(sum);
	net_put_raw16(udp + 6, check ? check : 0xffff);
}
