/* Frames that the dpdk link receives in pieces, wherever they are cut, are what they are in one: from a port that puts headers and payload into two buffers
 * (dpdk_model.h; no driver here offers it), and from one that cuts as it likes. */
#include <stdio.h>
#include <string.h>
#include "dpdk_ends.h"
#include "wire/wire.h"

enum { NEAR_NS = 1000000000 };

/* Sends to both links of the other port, by both protocols. */
static void split_random(bool wants_aligned)
{
	for (int round = 0; round < ENDS_ROUNDS; round++) {
		unsigned which = (unsigned)rand_below(2), six = (unsigned)rand_below(2), n = 1 + (unsigned)rand_below(8);
		struct link_path *path = to[which][six];
		struct rx_frame in[ENDS_FRAMES];
		size_t at[8], sum = 0;
		for (unsigned i = 0; i < n; i++) {
			uint32_t bytes = 1 + (uint32_t)rand_below(rand_below(2) ? 200 : path->max_frame_bytes);
			at[i] = sum;
			ends_frame(i, path, bytes, sum);
			sum += bytes;
		}
		ends_send(0, n);
		ends_reap(n);
		ends_look(!which + 1, in, 0); /* whoever reads the port hands it on */
		uint64_t now = model_now_ns();
		size_t got = ops->rx(ends[which + 1], in, ENDS_FRAMES, now);
		MUST(got == n);
		for (unsigned i = 0; i < n; i++) {
			MUST(in[i].head_bytes == frames[i].wire_bytes && !memcmp(in[i].head, memory + at[i], in[i].head_bytes));
			MUST(in[i].time_ns <= now && in[i].time_ns + NEAR_NS > now);
			MUST(!wants_aligned || six || in[i].head_bytes <= 32 || ((uintptr_t)in[i].head + 32) % 64 == 0);
		}
		ops->rx_free(ends[which + 1], in, got);
	}
}

/* What became of one frame: whether it was lent, what was in it. */
struct verdict {
	size_t got, bytes;
	uint64_t dropped;
	uint8_t data[MODEL_FRAME], ecn;
};

static void judge(const uint8_t *frame, size_t n, const struct model_cut *cut, struct verdict *v)
{
	struct rx_frame in;
	uint64_t dropped = ends[1]->rx_dropped;
	memset(v, 0, sizeof(*v));
	model[1].cut = *cut;
	model_deliver(&model[1], frame, n);
	model[1].cut = (struct model_cut){0};
	v->got = ends_look(1, &in, 1);
	v->dropped = ends[1]->rx_dropped - dropped;
	if (!v->got)
		return;
	v->bytes = in.head_bytes + in.body_bytes;
	v->ecn = in.ecn;
	memcpy(v->data, in.head, in.head_bytes);
	MUST(!in.body_bytes);
	ops->rx_free(ends[1], &in, 1);
}

/* Cut at each place in two, with and without room in front of the second piece; cut in more; as sent, and spoilt. In one piece the end is given the same. */
static void split_everywhere(void)
{
	static struct verdict whole, cut;
	static uint8_t spoilt[MODEL_FRAME];
	const struct model_cut none = {0};
	unsigned lent = 0, dropped = 0;
	for (unsigned six = 0; six < 2; six++) {
		model_logged = 0;
		model[0].is_lost = true;
		ends_frame(0, to[0][six], 250, 0);
		ends_frame(1, to[0][six], 1400, 250);
		ends_send(0, 2);
		ends_reap(2);
		model[0].is_lost = false;
		MUST(model_logged == 2);
		const struct model_datagram *d = &model_log[0];
		judge(d->bytes, d->n, &none, &whole);
		MUST(whole.got == 1 && whole.bytes == 250 && !memcmp(whole.data, memory, 250));
		for (unsigned room = 0; room < 2; room++)
			for (size_t at = 1; at < d->n; at++) {
				judge(d->bytes, d->n, &(struct model_cut){.cuts = 1, .at = {at}, .headroom = room ? RTE_PKTMBUF_HEADROOM : 0}, &cut);
				MUST(!memcmp(&cut, &whole, sizeof(cut)));
			}
		for (int round = 0; round < 4 * ENDS_ROUNDS; round++) {
			d = &model_log[rand_below(2)];
			size_t n = rand_below(3) ? d->n : 15 + rand_below(d->n - 15);
			memcpy(spoilt, d->bytes, d->n);
			for (uint64_t k = rand_below(3); k; k--)
				spoilt[12 + rand_below(RTE_MIN(n, (size_t)80) - 12)] ^= (uint8_t)(1 << rand_below(8));
			struct model_cut c = {.cuts = 1 + (unsigned)rand_below(MODEL_CUTS), .headroom = rand_below(2) ? RTE_PKTMBUF_HEADROOM : 0};
			for (unsigned k = 0; k < c.cuts; k++)
				c.at[k] = (k ? c.at[k - 1] : 0) + 1 + rand_below(200);
			judge(spoilt, n, &none, &whole);
			judge(spoilt, n, &c, &cut);
			MUST(!memcmp(&cut, &whole, sizeof(cut)));
			lent += whole.got == 1;
			dropped += whole.dropped == 1;
		}
	}
	printf("%u spoilt frames lent, %u dropped\n", lent, dropped);
	MUST(lent > ENDS_ROUNDS && dropped > ENDS_ROUNDS);
}

/* Longer than any buffer, and nothing else comes. @param path  its headers say that it goes there */
static void split_giant(struct link_path *path)
{
	static uint8_t giant[MODEL_FRAME * 3];
	struct rx_frame in;
	model_logged = 0;
	model[0].is_lost = true;
	ends_frame(0, path, 1000, 0);
	ends_send(0, 1);
	ends_reap(1);
	model[0].is_lost = false;
	memcpy(giant, model_log[0].bytes, model_log[0].n);
	uint64_t dropped = ends[1]->rx_dropped + (ends[2] ? ends[2]->rx_dropped : 0);
	model[1].cut = (struct model_cut){.cuts = 2, .at = {9000, 18000}};
	model_deliver(&model[1], giant, 27000);
	model[1].cut = (struct model_cut){0};
	MUST(!ends_look(1, &in, 1) && (!ends[2] || !ends_look(2, &in, 1)));
	MUST(ends[1]->rx_dropped + (ends[2] ? ends[2]->rx_dropped : 0) == dropped + 1);
}

static void split_all(void)
{
	ends_open(9000, 3);
	MUST(model[1].split_bytes == 14 + 20 + 8 + WIRE_BULK_HEADER_BYTES && !model[0].split_bytes);
	MUST(!strstr(ends_said, "link 1 has receive queue 1 of its own") == !model[1].takes_rules);
	split_random(true);
	unsigned pools[2] = {rte_mempool_avail_count(model[1].pool[0]), rte_mempool_avail_count(model[1].pool[1])};
	split_random(true);
	MUST(pools[0] == rte_mempool_avail_count(model[1].pool[0]) && pools[1] == rte_mempool_avail_count(model[1].pool[1]));
	for (unsigned which = 0; which < 2; which++)
		split_giant(to[which][which]);
	MUST(pools[1] == rte_mempool_avail_count(model[1].pool[1]));
	ends_close();
}

int main(void)
{
	uint64_t seed;
	int err = ends_start(&seed);
	if (err)
		return err;
	rand_start(seed);
	for (int i = 0; i < 2; i++) {
		ends_capable(&model[i]);
		model[i].driver = "mlx5_pci";
	}
	model[1].rx_capa = RTE_ETH_RX_OFFLOAD_BUFFER_SPLIT | RTE_ETH_RX_OFFLOAD_SCATTER | RTE_ETH_RX_OFFLOAD_TIMESTAMP;
	split_all(); /* by one queue, then by two */
	model[1].takes_rules = true;
	split_all();
	model[1].takes_rules = false;
	ends_open(9000, 2);
	split_giant(to[0][0]); /* to a link alone at its port, which sorts nothing */
	ends_close();
	/* a driver that cannot do what it offered; frames too small to be worth it; then all ways to cut a frame */
	model[1].refuses_split = true;
	ends_open(9000, 3);
	MUST(!model[1].split_bytes && strstr(ends_said, "tried again without headers split off"));
	split_random(false);
	ends_close();
	model[1].refuses_split = false;
	model[1].rx_capa &= ~(uint64_t)RTE_ETH_RX_OFFLOAD_SCATTER;
	ends_open(9000, 2);
	MUST(!model[1].split_bytes && !(model[1].rx_asked & RTE_ETH_RX_OFFLOAD_BUFFER_SPLIT));
	ends_close();
	model[1].rx_capa |= RTE_ETH_RX_OFFLOAD_SCATTER;
	ends_open(1500, 2);
	MUST(!model[1].split_bytes);
	split_everywhere();
	ends_close();
	printf("as it should be\n");
	return 0;
}
