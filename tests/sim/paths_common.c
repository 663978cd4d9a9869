/* See paths_common.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "paths_common.h"

uint8_t *from, *to;
static unsigned failed;
static uint64_t seed = 1;

void paths_begin(void)
{
	const char *text = getenv("TERN_SEED");
	seed = text ? strtoull(text, NULL, 0) : 1;
	setbuf(stdout, NULL);
	printf("TERN_SEED=%llu\n", (unsigned long long)seed);
	from = malloc(PATHS_BYTES);
	to = malloc(PATHS_BYTES);
	for (size_t i = 0; i < PATHS_BYTES / 8; i++)
		((uint64_t *)(void *)from)[i] = i * 0x9e3779b97f4a7c15ull ^ seed;
}

uint64_t paths_seed(void)
{
	return seed;
}

int paths_end(void)
{
	free(from);
	free(to);
	return failed ? 1 : 0;
}

void expect(bool ok, const char *what)
{
	if (ok)
		return;
	printf("    FAILED: %s\n", what);
	failed++;
}

bool both_done(const struct harness *h)
{
	return h->ops_done >= 2;
}

bool never(const struct harness *h)
{
	(void)h;
	return false;
}

static struct element_config wire(uint64_t rtt_ns, double loss)
{
	return (struct element_config){
	    .delay_ns = rtt_ns / 2, .rate_bits_per_s = GBIT * 8, .overhead_bytes = 28, .queue_bytes = 1 << 20, .loss = loss};
}

void base(struct harness_config *c, unsigned paths, const uint64_t *rtt_ms, double loss)
{
	*c = (struct harness_config){.seed = seed, .contract_bytes_per_s = GBIT, .contract_rtt_ns = rtt_ms[0] * MS, .dedicated = true,
		.mtu = PATHS_MTU, .buffer_bytes = 1 << 20, .paths = paths, .unmatched_bytes = 64 << 20};
	c->forward = c->reverse = wire(rtt_ms[0] * MS, loss);
	for (unsigned i = 1; i < paths; i++)
		c->more[i - 1].forward = c->more[i - 1].reverse = wire(rtt_ms[i] * MS, loss);
}

void outage(struct harness_config *c, unsigned path, uint64_t start_ns, uint64_t length_ns)
{
	struct element_config *way[] = {&c->forward, &c->reverse};
	if (path) {
		way[0] = &c->more[path - 1].forward;
		way[1] = &c->more[path - 1].reverse;
	}
	for (unsigned i = 0; i < 2; i++) {
		way[i]->outage[0] = (struct element_outage){.start_ns = start_ns, .length_ns = length_ns};
		way[i]->outages = 1;
	}
}

uint64_t tx_bytes(const struct harness *h, unsigned path)
{
	return flow_count(&h->peer[HARNESS_A]->path[path]->pp.flow)->tx_bytes;
}

double send_one(struct harness *h, uint64_t bytes)
{
	static struct msg_op send, recv;
	memset(to, 0, bytes);
	uint64_t ops = h->ops_done;
	harness_post(h, HARNESS_B, &recv, MSG_OP_RECV, to, bytes, 1);
	harness_run(h, never, h->now_ns + 120 * MS); /* announced ahead */
	uint64_t begin = h->now_ns;
	h->ops_done = 0;
	harness_post(h, HARNESS_A, &send, MSG_OP_SEND, from, bytes, 1);
	bool done = harness_run(h, both_done, begin + 100000 * MS);
	h->ops_done += ops;
	expect(done, "the message ends");
	expect(!done || (!send.status && !recv.status && !memcmp(from, to, bytes)), "well, with its bytes");
	return done ? (double)(h->now_ns - begin) / 1e6 : 0;
}

double ideal_ms(const struct harness_config *c, uint64_t bytes, unsigned paths)
{
	return (double)bytes / harness_pinned_limit(c) / paths * 1e3;
}
