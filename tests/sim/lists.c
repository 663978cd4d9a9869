/* Lists of ranges and strided tensors over simulated links that write: sent, and written into an export, at random, partly from registered memory. Checked: every byte,
 * and that what lies in regions, in runs of a few KiB, goes directly. The link refuses what is not mapped by its key. TERN_SEED replays a run. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/copy.h"
#include "base/rng.h"
#include "harness.h"
#include "tern/error.h"
#include "tern/tern.h"

enum { OPS = 40, ARENA_BYTES = 8 << 20, RUN_MAX = 40000, EXPORT = 77 };
#define MS 1000000ull

struct one {
	struct msg_op op, recv;
	struct layout_range range[LAYOUT_RANGES_MAX];
	uint8_t *want, *to; /* what must come out, and where */
	uint64_t registered;  /* bytes in regions */
};

static struct one one[OPS];
static unsigned failed;
static uint64_t seed = 1, state;

static void expect(bool ok, const char *what)
{
	if (ok)
		return;
	printf("    FAILED: %s\n", what);
	failed++;
}

static bool never(const struct harness *h)
{
	(void)h;
	return false;
}

/* Ranges all over the two arenas, of which the first is registered. `least`: of a range's bytes. */
static uint64_t make_list(struct one *o, uint8_t *const arena[2], uint64_t least)
{
	uint32_t n = 2 + (uint32_t)(rng_mix(&state) % (LAYOUT_RANGES_MAX - 1));
	uint64_t sum = 0;
	o->registered = 0;
	for (uint32_t i = 0; i < n; i++) {
		uint64_t bytes = least + rng_mix(&state) % (rng_mix(&state) % 3 ? RUN_MAX / 4 : RUN_MAX);
		unsigned which = least == 1 && rng_mix(&state) % 4 == 0;
		sum += bytes;
		o->registered += which ? 0 : bytes;
		o->range[i] = (struct layout_range){.addr = arena[which] + rng_mix(&state) % (ARENA_BYTES - bytes), .end = sum};
	}
	o->op.layout = (struct layout){.bytes = sum, .run = 1, .kind = LAYOUT_LIST, .n = (uint8_t)n, .range = o->range};
	return sum;
}

static uint64_t make_rows(struct one *o, uint8_t *const arena[2])
{
	uint64_t run = 1024 << rng_mix(&state) % 5, rows = 1 + rng_mix(&state) % 40, pitch = run + rng_mix(&state) % 4096;
	bool down = rng_mix(&state) % 2;
	uint8_t *base = arena[0] + (down ? (rows - 1) * pitch : 0);
	o->op.layout = (struct layout){.bytes = run * rows, .run = run, .kind = LAYOUT_STRIDED, .n = 1,
		.dim = {.base = base, .shape = {rows}, .stride = {down ? -(int64_t)pitch : (int64_t)pitch}}};
	o->registered = run >= 2048 ? run * rows : 0;
	return run * rows;
}

static void post(struct harness *h, struct one *o, unsigned i, bool is_write, uint64_t offset)
{
	o->op.type = is_write ? MSG_OP_WRITE : MSG_OP_SEND;
	o->op.id = i + 1;
	o->op.peer = 100;
	o->op.ep = h->ep[HARNESS_A];
	o->op.pair = h->peer[HARNESS_A]->peer.pair;
	o->op.tag = i;
	o->op.key = is_write ? EXPORT : 0;
	o->op.remote_offset = offset;
	loop_post(h->loop[HARNESS_A], &o->op);
}

/* One after another, so that each has its receive announced, or its export known, before it leaves. */
static void run(const char *options, bool is_write, uint64_t least, double loss, unsigned breaks, double direct)
{
	struct harness h;
	struct harness_config config = {.seed = seed, .contract_bytes_per_s = 1250000000, .contract_rtt_ns = 4 * MS, .dedicated = true, .mtu = 4200,
		.options = options, .unmatched_bytes = 8 << 20};
	uint8_t *arena[2] = {malloc(ARENA_BYTES), malloc(ARENA_BYTES)}, *to = malloc(ARENA_BYTES);
	uint64_t registered = 0, bytes;
	uint32_t number;
	config.forward = config.reverse =
	    (struct element_config){.delay_ns = 2 * MS, .rate_bits_per_s = 10000000000, .overhead_bytes = 28, .queue_bytes = 4 << 20, .loss = loss};
	for (unsigned i = 0; i < ARENA_BYTES; i++) {
		arena[0][i] = (uint8_t)(i * 13 >> 3);
		arena[1][i] = (uint8_t)(i * 29 >> 4);
	}
	harness_open(&h, &config);
	struct mem_export e = {.key = EXPORT, .peer = 101, .addr = to, .bytes = ARENA_BYTES, .rights = TERN_REMOTE_WRITE};
	expect(!loop_map(h.loop[HARNESS_A], arena[0], ARENA_BYTES, &number) && !loop_map(h.loop[HARNESS_B], to, ARENA_BYTES, &e.mem) &&
	           !mem_table_add(h.loop[HARNESS_B]->exports, &e), "memory is registered");
	loop_export(h.peer[HARNESS_B], EXPORT);
	harness_run(&h, never, h.now_ns + 20 * MS);
	for (unsigned i = 0; i < OPS; i++) {
		struct one *o = &one[i];
		memset(o, 0, sizeof(*o));
		bytes = i % 3 ? make_list(o, arena, least) : make_rows(o, arena);
		uint64_t offset = rng_mix(&state) % (ARENA_BYTES - bytes), copied = 0, done = h.ops_done;
		registered += bytes >= 16384 ? o->registered : 0;
		o->want = malloc(bytes);
		layout_copy_out(&o->op.layout, 0, o->want, bytes, &copied);
		memset(to + offset, 0, bytes);
		if (!is_write) {
			harness_post(&h, HARNESS_B, &o->recv, MSG_OP_RECV, to + offset, bytes, i);
			harness_run(&h, never, h.now_ns + 6 * MS);
		}
		post(&h, o, i, is_write, offset);
		if (breaks && i % 4 == 0 && breaks--) {
			harness_run(&h, never, h.now_ns + MS / 4);
			sim_net_break(h.net, 0, 1);
		}
		for (unsigned k = 0; h.ops_done < done + 1 + !is_write && k < 4000; k++)
			harness_run(&h, never, h.now_ns + MS);
		expect(h.ops_done == done + 1 + !is_write && !o->op.status && !o->recv.status, "each operation ends well");
		expect(!memcmp(to + offset, o->want, bytes), "and its bytes lie where they belong, in order");
		free(o->want);
	}
	uint64_t went = h.loop[HARNESS_A]->count.tx_direct_bytes;
	printf("%s %s, ranges from %llu bytes, loss %g: %llu bytes directly, %llu lie in regions\n", options, is_write ? "write" : "send",
	       (unsigned long long)least, loss, (unsigned long long)went, (unsigned long long)registered);
	expect((double)went >= direct * (double)registered, "what can go directly does");
	expect(!h.gone[0] && !h.gone[1], "nobody is taken for dead");
	if (*h.link[0]->trouble && !breaks && !loss)
		printf("    trouble: %s\n", h.link[0]->trouble);
	harness_close(&h);
	for (int i = 0; i < 2; i++)
		free(arena[i]);
	free(to);
}

int main(void)
{
	const char *s = getenv("TERN_SEED");
	seed = s ? strtoull(s, NULL, 0) : 1;
	state = seed * 31 + 7;
	setbuf(stdout, NULL);
	printf("TERN_SEED=%llu\n", (unsigned long long)seed);
	run("writes=rc", false, 4096, 0, 0, 0.99);
	run("writes=rc", false, 1, 0, 0, 0.9);
	run("writes=rc", true, 4096, 0, 0, 0.99);
	run("writes=rc", true, 1, 0, 0, 0.9);
	run("writes=rc", true, 1, 0, 4, 0.4);
	run("writes=uc", false, 4096, 0, 0, 0.99);
	run("writes=uc", false, 1, 1e-3, 0, 0.9);
	return failed ? 1 : 0;
}
