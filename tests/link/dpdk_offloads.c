/* What the dpdk link asks of a port that can do more than move frames, against the NICs of dpdk_model.h: dpdk_offloads runs|stamps. No driver here offers any of it.
 * `runs`: what UDP segmentation makes of chains is, byte for byte, what leaves without it. `stamps`: times of sending and arrival. */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "dpdk_ends.h"

enum { NEAR_NS = 200000, MS = 1000000, SOME = 40, WAIT_S = 5 };

static uint16_t sum16(const uint8_t *p, size_t n)
{
	uint32_t sum = 0;
	for (size_t i = 0; i < n; i += 2)
		sum += (uint32_t)p[i] << 8 | p[i + 1];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

/* ---- runs */

/* Some frames, with runs among them. @return how many */
static unsigned runs_make(void)
{
	unsigned n = 1 + (unsigned)rand_below(ENDS_FRAMES), i = 0;
	size_t at = 0;
	while (i < n) {
		struct link_path *path = to[0][rand_below(2)];
		uint32_t size = 1 + (uint32_t)rand_below(path->max_frame_bytes);
		for (unsigned end_at = i + 1 + (unsigned)rand_below(20); i < n && i < end_at; i++) {
			bool is_short = i + 1 == end_at && rand_below(2);
			struct frame *f = ends_frame(i, path, is_short ? 1 + (uint32_t)rand_below(size) : size, at);
			f->burst_end = !rand_below(30);
			at += f->wire_bytes;
		}
	}
	return n;
}

/* The datagrams of one call, and those of a call for each frame, from the same frames. */
static void runs_same(unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct model_datagram *a = &model_log[i], *b = &model_log[n + i];
		uint8_t *ip = b->bytes + 14;
		MUST(!b->chain && a->n == b->n);
		if (b->bytes[12] == 8) { /* the identification counts on, in both */
			MUST((uint16_t)(ip[4] << 8 | ip[5]) == (uint16_t)((a->bytes[18] << 8 | a->bytes[19]) + n));
			memcpy(ip + 4, a->bytes + 18, 2);
			memset(ip + 10, 0, 2);
			uint16_t sum = (uint16_t)~sum16(ip, 20);
			ip[10] = (uint8_t)(sum >> 8);
			ip[11] = (uint8_t)sum;
		}
		MUST(!memcmp(a->bytes, b->bytes, a->n));
		if (i && a->chain && a->chain == a[-1].chain)
			MUST(!frames[i - 1].burst_end && frames[i].path == frames[i - 1].path && frames[i].wire_bytes <= frames[i - 1].wire_bytes);
	}
}

static void runs_random(void)
{
	for (int round = 0; round < ENDS_ROUNDS; round++) {
		unsigned n = runs_make();
		model_logged = 0;
		ends_send(0, n);
		ends_reap(n);
		MUST(model_logged == n);
		for (unsigned i = 0; i < n; i++)
			ends_send(i, 1);
		ends_reap(n);
		MUST(model_logged == 2 * n);
		for (unsigned i = 0, at = 0; i < 2 * n; i++, at = i == n ? 0 : at + frames[(i - 1) % n].wire_bytes)
			ends_expect(1, memory + at, frames[i % n].wire_bytes);
		runs_same(n);
	}
}

/* Equal frames, a header and a payload each. */
static void runs_equal(unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		uint8_t *at = memory + 1400 * i;
		struct frame *f = list[i] = &frames[i];
		*f = (struct frame){.path = to[0][0], .wire_bytes = 1400, .segs = 2};
		f->seg[0] = (struct frame_seg){.addr = f->head, .bytes = 32};
		f->seg[1] = (struct frame_seg){.addr = at + 32, .bytes = 1368, .mem = 1};
		memcpy(f->head, at, 32);
	}
}

static void runs(uint64_t seed)
{
	ends_capable(&model[0]);
	model[1].driver = "net_igc"; /* offers nothing */
	model[1].nb_seg_max = 255;
	ends_open(1500, 2);
	MUST(model[0].tx_asked & RTE_ETH_TX_OFFLOAD_UDP_TSO && !model[1].tx_asked && !(ends[0]->caps & (LINK_PACES | LINK_TIMESTAMPS)));
	/* 64 KiB of frames are one chain: a header, then two buffers a frame */
	runs_equal(46);
	ends_send(0, 46);
	ends_reap(46);
	MUST(model[0].chains == 1 && model[0].chain_segs_max == 92 && model_logged == 46);
	for (unsigned i = 0; i < 46; i++)
		ends_expect(1, memory + 1400 * i, 1400);
	/* and 92 KiB are two, where each frame is one buffer */
	for (unsigned i = 0; i < ENDS_FRAMES; i++) {
		ends_frame(i, to[0][1], 1440, 1440 * i);
		frames[i].segs = 1;
		frames[i].seg[0] = (struct frame_seg){.addr = memory + 1440 * i, .bytes = 1440, .mem = 1};
	}
	ends_send(0, ENDS_FRAMES);
	ends_reap(ENDS_FRAMES);
	MUST(model[0].chains == 3 && model[0].chain_segs_max == 92);
	for (unsigned i = 0; i < ENDS_FRAMES; i++)
		ends_expect(1, memory + 1440 * i, 1440);
	runs_random();
	printf("%u chains of up to %u buffers, packets of up to %u\n", model[0].chains, model[0].chain_segs_max, model[0].packet_segs_max);
	MUST(model[0].chains > ENDS_ROUNDS && model[0].chain_segs_max <= 128);
	/* the driver refuses one: its frames are lost, all later ones go by themselves */
	unsigned before = model[0].chains;
	uint64_t dropped = ends[0]->tx_dropped;
	model[0].refuses_chain = true;
	runs_equal(46);
	for (int k = 0; k < 2; k++) {
		model_logged = 0;
		ends_send(0, 46);
		ends_reap(46);
		MUST(model_logged == (k ? 46 : 0) && ends[0]->tx_dropped == dropped + 46);
	}
	MUST(model[0].chains == before);
	ends_close();
	/* a port with few buffers a frame; then a driver that means something else by it */
	model[0].refuses_chain = false;
	model[0].nb_seg_max = 8;
	model[0].chain_segs_max = 0;
	ends_open(1500, 2);
	runs_equal(46);
	ends_send(0, 46);
	ends_reap(46);
	MUST(model[0].chain_segs_max > 4 && model[0].chain_segs_max <= 8 && model_logged == 46);
	ends_close();
	/* few buffers a packet: what has more is copied, and leaves by itself */
	uint64_t copied[2];
	for (unsigned k = 0; k < 2; k++) {
		model[0].nb_seg_max = 255;
		model[0].nb_mtu_seg_max = k ? 4 : 0;
		model[0].chains = model[0].packet_segs_max = 0;
		ends_open(1500, 2);
		rand_start(seed);
		runs_random();
		copied[k] = ends[0]->copied_bytes;
		printf("%u chains, packets of up to %u buffers, %llu bytes copied\n", model[0].chains, model[0].packet_segs_max,
		       (unsigned long long)copied[k]);
		ends_close();
	}
	MUST(copied[1] > copied[0] && model[0].chains > ENDS_ROUNDS / 2 && model[0].packet_segs_max == 4);
	model[0].nb_mtu_seg_max = 0;
	model[0].driver = "net_nfp";
	ends_open(1500, 2);
	MUST(!(model[0].tx_asked & RTE_ETH_TX_OFFLOAD_UDP_TSO));
	ends_close();
}

/* ---- stamps */

static bool is_near(uint64_t a, uint64_t b)
{
	return a < b + NEAR_NS && b < a + NEAR_NS;
}

static void stamps_departures(void)
{
	uint64_t now = model_now_ns(), last = 0;
	unsigned chains = model[0].chains;
	model_logged = 0;
	for (unsigned i = 0; i < SOME; i++) {
		ends_frame(i, to[0][0], 1000, 1000 * i);
		frames[i].depart_ns = i % 8 == 7 ? 0 : now + i / 4 * MS; /* by fours, of which one may leave now */
	}
	ends_send(0, SOME);
	ends_reap(SOME);
	MUST(model_logged == SOME);
	for (unsigned i = 0; i < SOME; i++) {
		const struct model_datagram *d = &model_log[i];
		MUST(d->has_stamp == (i % 8 != 7));
		if (!d->has_stamp)
			continue;
		MUST(is_near(model_ns(d->stamp), frames[i].depart_ns) && d->stamp >= last);
		last = d->stamp;
	}
	MUST(model[0].chains == chains + SOME / 4); /* none with frames of two times */
	/* out of order they leave in order */
	for (unsigned i = 0; i < 2; i++) {
		ends_frame(i, to[0][0], 1000, 0)->depart_ns = now + (i ? 1 : 50) * MS;
		ends_send(i, 1);
	}
	ends_reap(2);
	MUST(model_logged == SOME + 2 && is_near(model_ns(model_log[SOME].stamp), now + 50 * MS) &&
	     model_log[SOME + 1].stamp == model_log[SOME].stamp);
}

/* One frame to leave so much later. @return its datagram */
static const struct model_datagram *stamps_one(uint64_t ahead_ns)
{
	model_logged = 0;
	ends_frame(0, to[0][0], 1000, 0)->depart_ns = model_now_ns() + ahead_ns;
	ends_send(0, 1);
	ends_reap(1);
	MUST(model_logged == 1);
	return &model_log[0];
}

/* Somebody sets the device's clock back: once that is seen no time is told until it is known again, and then what was told before does not hold the new ones back. */
static void stamps_back(void)
{
	struct rx_frame in;
	uint64_t until = model_now_ns() + WAIT_S * 1000ull * MS;
	model_back_ns = 60000ull * MS;
	while (stamps_one(5 * MS)->has_stamp && model_now_ns() < until)
		ends_look(0, &in, 0);
	while (!stamps_one(5 * MS)->has_stamp && model_now_ns() < until)
		ends_look(0, &in, 0);
	MUST(stamps_one(5 * MS)->has_stamp && is_near(model_ns(model_log[0].stamp), frames[0].depart_ns));
	model_back_ns = 0;
}

static void stamps_arrivals(void)
{
	static const struct { uint64_t ahead_ns, behind_ns; } cases[] = {{0, 3 * MS}, {0, 2 * MS}, {20 * MS, 0}, {0, 20 * MS}, {0, 0}};
	const struct timespec nap = {.tv_nsec = 5 * MS}; /* the last one is older than what is told of the next */
	struct rx_frame in[ENDS_FRAMES];
	uint64_t last = 0;
	ops->rx_free(ends[1], in, ends_look(1, in, ENDS_FRAMES));
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		model[1].stamp_ahead_ns = cases[i].ahead_ns;
		model[1].stamp_behind_ns = cases[i].behind_ns;
		nanosleep(&nap, NULL);
		ends_frame(0, to[0][i & 1], 500, 0);
		uint64_t sent = model_now_ns(), now;
		ends_send(0, 1);
		ends_reap(1);
		now = model_now_ns();
		MUST(ops->rx(ends[1], in, 1, now) == 1);
		MUST(in[0].time_ns && in[0].time_ns <= now && in[0].time_ns >= last);
		uint64_t told = sent + cases[i].ahead_ns - cases[i].behind_ns;
		if (cases[i].behind_ns < 10 * MS) /* in the future is now; from before the last one is like the last one */
			MUST(in[0].time_ns + NEAR_NS > (cases[i].ahead_ns ? sent : told) && in[0].time_ns < told + NEAR_NS + (now - sent));
		last = in[0].time_ns;
		ops->rx_free(ends[1], in, 1);
	}
}

/* Opening does not wait for the clock: a loop's other paths would stand still. Until it is known no time is told. */
static void stamps_at_once(void)
{
	char error[512];
	ends[0] = ends_try(0, 0, "mtu=1500", error);
	MUST(ends[0] && model[0].clock_ns[0] && model[0].clock_ns[1] - model[0].clock_ns[0] < 10 * MS);
	ends_close();
}

static void stamps(void)
{
	ends_capable(&model[0]);
	model[0].tx_capa |= RTE_ETH_TX_OFFLOAD_SEND_ON_TIMESTAMP;
	model[1].driver = "mlx5_pci";
	model[1].nb_seg_max = 255;
	model[1].rx_capa = RTE_ETH_RX_OFFLOAD_TIMESTAMP;
	stamps_at_once();
	ends_open(1500, 2);
	MUST((ends[0]->caps & (LINK_PACES | LINK_TIMESTAMPS)) == LINK_PACES && (ends[1]->caps & (LINK_PACES | LINK_TIMESTAMPS)) == LINK_TIMESTAMPS);
	stamps_departures();
	stamps_arrivals();
	ends_close();
	/* without UDP segmentation */
	model[0].tx_capa &= ~RTE_ETH_TX_OFFLOAD_UDP_TSO;
	ends_open(1500, 2);
	ends_frame(0, to[0][1], 300, 0)->depart_ns = model_now_ns() + 5 * MS;
	ends_send(0, 1);
	ends_reap(1);
	MUST(model_logged == 1 && model_log[0].has_stamp && is_near(model_ns(model_log[0].stamp), frames[0].depart_ns));
	model[0].is_lost = true;
	stamps_back();
	ends_close();
}

int main(int argc, char **argv)
{
	uint64_t seed;
	int err = ends_start(&seed);
	if (err)
		return err;
	rand_start(seed);
	if (argc == 2 && !strcmp(argv[1], "runs"))
		runs(seed);
	else if (argc == 2 && !strcmp(argv[1], "stamps"))
		stamps();
	else
		return 2;
	printf("%s: as it should be\n", argv[1]);
	return 0;
}
