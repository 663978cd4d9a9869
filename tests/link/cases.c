/* What every link must do (link.h's rules). Called by main.c for the link named on the command line. */
#include <poll.h>
#include <string.h>
#include "suite.h"

static void find_in_words(void)
{
	const struct link_ops *none, *again;
	char error[512] = "";

	CU_ASSERT_EQUAL(link_find("nosuch", &none, error, sizeof(error)), -TERN_ESCHEME);
	CU_ASSERT_PTR_NULL(none);
	CU_ASSERT_PTR_NOT_NULL(strstr(error, "nosuch"));
	CU_ASSERT_PTR_NOT_NULL(strstr(error, suite_fixture->scheme));
	CU_ASSERT_EQUAL(link_find("../udp", &none, error, sizeof(error)), -TERN_ESCHEME);
	CU_ASSERT_EQUAL(link_find(suite_fixture->scheme, &again, error, sizeof(error)), 0);
	CU_ASSERT_PTR_EQUAL(again, suite_ops);
	CU_ASSERT(again->path_open && again->path_close && again->mem_map && again->mem_unmap && again->tx && again->reap && again->rx &&
	          again->rx_free && again->from && again->rx_post && again->rx_revoke && again->wait);
}

static void open_close(void)
{
	struct suite_end end[2];
	for (int i = 0; i < 2; i++) {
		CU_ASSERT_FATAL(suite_open(end, 0));
		CU_ASSERT(end[0].link->local.bytes > 0);
		CU_ASSERT(end[1].path->max_frame_bytes >= 512);
		CU_ASSERT_PTR_EQUAL(end[1].path->link, end[1].link);
		suite_close(end);
	}
	/* closing a link with paths and lent frames */
	CU_ASSERT_FATAL(suite_open(end, 0));
	uint8_t memory[64];
	struct frame f;
	suite_frame(&f, end[1].path, memory, 64, 1);
	suite_send(&end[1], &f, 1);
	CU_ASSERT_EQUAL(suite_recv(&end[0], 1), 1);
	end[0].path = end[1].path = NULL;
	suite_close(end);
}

static void sizes_arrive(void)
{
	struct suite_end end[2];
	CU_ASSERT_FATAL(suite_open(end, 0));
	uint32_t max = end[1].path->max_frame_bytes;
	for (int from = 0; from < 2; from++)
		for (uint32_t size = 1; size < max; size = size * 3 + (uint32_t)(suite_random() % 7))
			suite_pass(end, from, &size, 1, 1, false);
	suite_pass(end, 0, &end[0].path->max_frame_bytes, 1, 3, false);
	suite_pass(end, 1, &max, 1, 3, false);
	suite_close(end);
}

static void segments_gathered(void)
{
	struct suite_end end[2];
	CU_ASSERT_FATAL(suite_open(end, 0));
	for (uint32_t segs = 1; segs <= end[1].link->max_segments; segs++) {
		uint32_t sizes[3] = {1300, 1300, 700};
		suite_pass(end, 1, sizes, 3, segs, false);
	}
	suite_close(end);
}

static void bursts_equal(void)
{
	struct suite_end end[2];
	uint32_t sizes[SUITE_BURST];
	CU_ASSERT_FATAL(suite_open(end, 0));
	for (size_t n = 2; n <= SUITE_BURST; n *= 2) {
		for (size_t i = 0; i < n; i++)
			sizes[i] = i + 1 < n ? 1400 : 333;
		suite_pass(end, (int)(n & 4) != 0, sizes, n, 2, false);
	}
	suite_close(end);
}

static void bursts_mixed(void)
{
	struct suite_end end[2];
	uint32_t sizes[SUITE_BURST];
	CU_ASSERT_FATAL(suite_open(end, 0));
	for (int round = 0; round < 100; round++) {
		size_t n = 1 + suite_random() % SUITE_BURST;
		for (size_t i = 0; i < n; i++)
			sizes[i] = i && suite_random() % 3 ? sizes[i - 1] : 8 + (uint32_t)(suite_random() % 1465);
		suite_pass(end, round & 1, sizes, n, 1 + (uint32_t)(suite_random() % 4), true);
	}
	suite_close(end);
}

/* What tx did not take must be a suffix, and taken frames come back before anything else is offered. */
static void prefix_taken(void)
{
	enum { N = 1024, SIZE = 512, ROUNDS = 16 };
	static struct frame frames[N];
	static uint8_t memory[SIZE];
	struct suite_end end[2];
	struct frame *list[N], *back[N];

	CU_ASSERT_FATAL(suite_open(end, 0));
	for (size_t i = 0; i < N; i++) {
		suite_frame(&frames[i], end[1].path, memory, SIZE, 1);
		list[i] = &frames[i];
	}
	for (int round = 0; round < ROUNDS; round++) {
		size_t k = suite_ops->tx(end[1].link, list, N, suite_now());
		uint8_t times[N] = {0};
		size_t reaped = 0;
		uint64_t until = suite_now() + SUITE_PATIENCE_MS * 1000000ull;
		CU_ASSERT_FATAL(k <= N);
		while (reaped < k && suite_now() < until)
			for (size_t r = suite_ops->reap(end[1].link, back, 100, suite_now()); r > 0; r--, reaped++) {
				CU_ASSERT_FATAL(back[r - 1] >= frames && back[r - 1] < frames + N);
				times[back[r - 1] - frames]++;
			}
		CU_ASSERT_EQUAL(reaped, k);
		for (size_t i = 0; i < N; i++)
			CU_ASSERT_EQUAL(times[i], i < k);
		while (suite_drain(&end[0]) == SUITE_BURST)
			suite_free(&end[0]);
		suite_free(&end[0]);
	}
	suite_close(end);
}

static void reaped_once(void)
{
	enum { N = 400 }; /* the shortest ring between two processes holds them all: nobody reads meanwhile */
	static struct frame frames[N];
	static uint8_t memory[N][32];
	struct suite_end end[2];
	size_t got = 0;

	CU_ASSERT_FATAL(suite_open(end, 0));
	for (size_t i = 0; i < N; i++)
		suite_frame(&frames[i], end[1].path, memory[i], 16 + (uint32_t)(i % 16), 1);
	uint64_t before = end[1].link->tx_frames;
	suite_send(&end[1], frames, N);
	CU_ASSERT_EQUAL(end[1].link->tx_frames - before, N);
	while (got < N && suite_recv(&end[0], 1)) {
		got += end[0].n_in;
		suite_free(&end[0]);
	}
	CU_ASSERT_EQUAL(got, N);
	suite_close(end);
}

/* Frames lent from the first burst keep their bytes while thousands more arrive, until buffers run out and after. */
static void lent_kept(void)
{
	enum { KEEP = 40, SIZE = 1200, MORE = 60 };
	static uint8_t memory[KEEP][SIZE], other[SUITE_BURST][SIZE];
	static struct frame frames[SUITE_BURST];
	struct suite_end end[2];
	struct rx_frame held[KEEP];

	CU_ASSERT_FATAL(suite_open(end, 0));
	for (size_t i = 0; i < KEEP; i++) {
		suite_frame(&frames[i], end[1].path, memory[i], SIZE, 2);
		frames[i].burst_end = i % 5 == 0;
	}
	suite_send(&end[1], frames, KEEP);
	CU_ASSERT_EQUAL_FATAL(suite_recv(&end[0], KEEP), KEEP);
	memcpy(held, end[0].in, sizeof(held));
	end[0].n_in = 0;
	for (int round = 0; round < MORE; round++) {
		for (size_t i = 0; i < SUITE_BURST; i++)
			suite_frame(&frames[i], end[1].path, other[i], SIZE, 1);
		suite_send(&end[1], frames, SUITE_BURST);
		suite_drain(&end[0]);
		suite_free(&end[0]);
	}
	bool seen[KEEP] = {false};
	for (size_t i = 0; i < KEEP; i++) {
		size_t j = 0;
		while (j < KEEP && (seen[j] || !suite_same(&held[i], memory[j], SIZE)))
			j++;
		CU_ASSERT_FATAL(j < KEEP);
		seen[j] = true;
	}
	suite_ops->rx_free(end[0].link, held, KEEP);
	uint32_t size = SIZE;
	suite_pass(end, 1, &size, 1, 1, false);
	suite_close(end);
}

/* Holding everything must not lose the link: it lends less, and goes on after rx_free. */
static void buffers_run_out(void)
{
	enum { HOLD = 4096 };
	static struct rx_frame held[HOLD];
	struct suite_end end[2];
	uint8_t memory[100];
	struct frame f;
	size_t n = 0;

	CU_ASSERT_FATAL(suite_open(end, 0));
	for (int i = 0; i < 300; i++) {
		suite_frame(&f, end[1].path, memory, sizeof(memory), 1);
		suite_send(&end[1], &f, 1);
		n += suite_ops->rx(end[0].link, held + n, 8, suite_now());
	}
	for (int i = 0; i < 100; i++)
		n += suite_ops->rx(end[0].link, held + n, 8, suite_now());
	CU_ASSERT(n > 0);
	suite_ops->rx_free(end[0].link, held, n);
	while (n < 300 && suite_recv(&end[0], 1)) {
		n += end[0].n_in;
		suite_free(&end[0]);
	}
	CU_ASSERT_EQUAL(n, 300);
	uint32_t size = 1000;
	suite_pass(end, 1, &size, 1, 1, false);
	suite_close(end);
}

static void path_close_gives_back(void)
{
	enum { N = 32 };
	static uint8_t memory[N][1000];
	static struct frame frames[N];
	struct suite_end end[2];
	struct frame *list[N], *back[N];

	CU_ASSERT_FATAL(suite_open(end, 0));
	for (size_t i = 0; i < N; i++) {
		suite_frame(&frames[i], end[1].path, memory[i], 1000, 2);
		list[i] = &frames[i];
	}
	size_t taken = suite_ops->tx(end[1].link, list, N, suite_now()), reaped = 0;
	suite_ops->path_close(end[1].link, &end[1].path);
	CU_ASSERT_PTR_NULL(end[1].path);
	uint64_t until = suite_now() + 100000000;
	do
		reaped += suite_ops->reap(end[1].link, back + reaped, N - reaped, suite_now());
	while (reaped < taken && suite_now() < until);
	CU_ASSERT_EQUAL(reaped, taken);
	/* lent frames of a closed path stay readable, and say where they came from */
	if (taken && suite_recv(&end[0], 1)) {
		struct link_addr from, path = end[0].path->remote;
		suite_ops->path_close(end[0].link, &end[0].path);
		CU_ASSERT(suite_same(&end[0].in[0], memory[0], 1000));
		int err = suite_ops->from(end[0].link, &end[0].in[0], &from);
		CU_ASSERT(err == 0 || (err == -TERN_ENOENT && end[0].link->caps & LINK_CONNECTS));
		if (!err)
			CU_ASSERT(from.bytes == path.bytes && !memcmp(from.data, path.data, path.bytes));
	}
	suite_free(&end[0]);
	suite_close(end);
}

/* What a given-up path holds comes back at once, and it can be used again. */
static void path_reset_gives_back(void)
{
	enum { N = 32 };
	static uint8_t memory[N][1000];
	static struct frame frames[N];
	struct suite_end end[2];
	struct frame *list[N], *back[N];
	uint32_t size = 900;

	CU_ASSERT_FATAL(suite_open(end, 0));
	for (int round = 0; round < 4; round++) {
		for (size_t i = 0; i < N; i++) {
			suite_frame(&frames[i], end[1].path, memory[i], 1000, 2);
			list[i] = &frames[i];
		}
		size_t taken = suite_ops->tx(end[1].link, list, N, suite_now()), reaped = 0;
		suite_ops->path_reset(end[1].link, end[1].path);
		uint64_t until = suite_now() + 100000000;
		do
			reaped += suite_ops->reap(end[1].link, back + reaped, N - reaped, suite_now());
		while (reaped < taken && suite_now() < until);
		CU_ASSERT_EQUAL(reaped, taken);
		suite_drain(&end[0]);
		suite_free(&end[0]);
		suite_pass(end, 1, &size, 1, 1, false);
		suite_pass(end, 0, &size, 1, 1, false);
	}
	suite_close(end);
}

static void paths_come_and_go(void)
{
	enum { PATHS = 200 };
	struct suite_end end[2];
	struct link_path *extra[PATHS];
	uint8_t memory[64];
	struct frame f;

	CU_ASSERT_FATAL(suite_open(end, 0));
	struct link_path_config to = {.remote = end[0].link->local};
	for (uint32_t i = 0; i < PATHS; i++) {
		to.spread = i + 1;
		CU_ASSERT_EQUAL_FATAL(suite_ops->path_open(end[1].link, &to, &extra[i]), 0);
	}
	for (uint32_t i = 0; i < PATHS; i++) {
		suite_frame(&f, extra[i], memory, sizeof(memory), 1);
		suite_send(&end[1], &f, 1);
		CU_ASSERT_EQUAL(suite_recv(&end[0], 1), 1);
		CU_ASSERT(suite_same(end[0].in, memory, sizeof(memory)));
		CU_ASSERT_PTR_NULL(end[0].in[0].path);
		/* answered on a path of its own, and that answer comes in on the right path */
		struct link_path *answer;
		struct link_path_config back = {.spread = i};
		CU_ASSERT_EQUAL(suite_ops->from(end[0].link, end[0].in, &back.remote), 0);
		suite_free(&end[0]);
		CU_ASSERT_EQUAL_FATAL(suite_ops->path_open(end[0].link, &back, &answer), 0);
		suite_frame(&f, answer, memory, sizeof(memory), 1);
		suite_send(&end[0], &f, 1);
		CU_ASSERT_EQUAL_FATAL(suite_recv(&end[1], 1), 1);
		CU_ASSERT_PTR_EQUAL(end[1].in[0].path, extra[i]);
		suite_free(&end[1]);
		if (i % 3 == 0)
			suite_ops->path_close(end[0].link, &answer);
	}
	for (uint32_t i = 0; i < PATHS; i += 2)
		suite_ops->path_close(end[1].link, &extra[i]);
	uint32_t size = 900;
	suite_pass(end, 0, &size, 1, 1, false);
	suite_pass(end, 1, &size, 1, 1, false);
	suite_close(end);
}

static void oversize_passes_by(void)
{
	static uint8_t memory[66000];
	struct suite_end end[2];
	struct frame f;
	uint32_t size;

	CU_ASSERT_FATAL(suite_open(end, 0));
	suite_frame(&f, end[1].path, memory, sizeof(memory), 2);
	suite_send(&end[1], &f, 1);
	CU_ASSERT_EQUAL(suite_drain(&end[0]), 0);
	CU_ASSERT(end[1].link->tx_dropped >= 1);
	size = end[1].path->max_frame_bytes;
	suite_pass(end, 1, &size, 1, 1, false);
	suite_close(end);
}

static void wait_fires(void)
{
	struct suite_end end[2];
	struct link_wait wait;
	uint8_t memory[64];
	struct frame f;

	CU_ASSERT_FATAL(suite_open(end, 0));
	for (int i = 0; i < 20; i++) {
		suite_ops->wait(end[0].link, true, &wait);
		CU_ASSERT_FATAL(wait.fd >= 0);
		struct pollfd p = {.fd = wait.fd, .events = POLLIN};
		CU_ASSERT_EQUAL(poll(&p, 1, 0), 0);
		suite_frame(&f, end[1].path, memory, sizeof(memory), 1);
		suite_send(&end[1], &f, 1);
		CU_ASSERT_EQUAL(poll(&p, 1, SUITE_PATIENCE_MS), 1);
		CU_ASSERT_EQUAL(suite_recv(&end[0], 1), 1);
		suite_free(&end[0]);
		CU_ASSERT_EQUAL(suite_ops->rx(end[0].link, end[0].in, 1, suite_now()), 0);
	}
	suite_close(end);
}

enum { POST_HEAD = 32, POST_PAYLOAD = 1368, POST_FRAMES = 40, POST_GUARD = 4096, POST_TAIL = 500 };
static uint8_t post_area[POST_GUARD + (POST_FRAMES + 64) * POST_PAYLOAD + POST_GUARD];

/* Posts room for POST_FRAMES frames of which the last is short. @return false: this link does not place */
static bool post_open(struct suite_end end[2])
{
	CU_ASSERT_FATAL(suite_open(end, 0));
	memset(post_area, 0x5a, sizeof(post_area));
	struct link_post post = {.addr = post_area + POST_GUARD,
	                         .bytes = (POST_FRAMES - 1) * POST_PAYLOAD + POST_TAIL,
	                         .header_bytes = POST_HEAD,
	                         .payload_bytes = POST_PAYLOAD};
	int err = suite_ops->rx_post(end[0].link, end[0].path, &post);
	if (end[0].link->caps & LINK_PLACES) {
		CU_ASSERT_EQUAL(err, 0);
		return true;
	}
	CU_ASSERT_EQUAL(err, -TERN_EINVAL);
	suite_close(end);
	return false;
}

static void post_close(struct suite_end end[2])
{
	suite_ops->rx_revoke(end[0].link, end[0].path);
	suite_close(end);
}

static bool post_guards_whole(void)
{
	size_t end = POST_GUARD + (POST_FRAMES - 1) * POST_PAYLOAD + POST_TAIL;
	for (size_t i = 0; i < sizeof(post_area); i++)
		if ((i < POST_GUARD || i >= end) && post_area[i] != 0x5a)
			return false;
	return true;
}

static void posts_place(void)
{
	static uint8_t memory[POST_FRAMES][POST_HEAD + POST_PAYLOAD];
	static struct frame frames[POST_FRAMES];
	struct suite_end end[2];

	if (!post_open(end))
		return;
	uint32_t small = 100; /* an acknowledgement between takes no place */
	suite_pass(end, 1, &small, 1, 1, false);
	for (uint32_t i = 0; i < POST_FRAMES; i++)
		suite_frame(&frames[i], end[1].path, memory[i], POST_HEAD + (i + 1 < POST_FRAMES ? POST_PAYLOAD : POST_TAIL), 2);
	suite_send(&end[1], frames, POST_FRAMES);
	CU_ASSERT_EQUAL_FATAL(suite_recv(&end[0], POST_FRAMES), POST_FRAMES);
	for (uint32_t i = 0; i < POST_FRAMES; i++) { /* sent in order over a link that keeps it: the guess is right */
		CU_ASSERT_EQUAL(end[0].in[i].head_bytes, POST_HEAD);
		CU_ASSERT_PTR_EQUAL(end[0].in[i].body, post_area + POST_GUARD + (size_t)i * POST_PAYLOAD);
		CU_ASSERT(suite_same(&end[0].in[i], memory[i], frames[i].wire_bytes));
	}
	suite_free(&end[0]);
	CU_ASSERT(post_guards_whole());
	uint32_t sizes[5] = {1400, 1400, 90, 1400, 5000}; /* the post is used up */
	suite_pass(end, 1, sizes, 5, 2, false);
	CU_ASSERT(post_guards_whole());
	post_close(end);
}

/* Anything but what was posted: every byte still comes out, and nothing outside the posted range is touched. */
static void posts_guess_wrong(void)
{
	struct suite_end end[2];
	uint32_t sizes[SUITE_BURST];

	for (int round = 0; round < 60; round++) {
		if (!post_open(end))
			return;
		for (int pass = 0; pass < 3; pass++) {
			size_t n = 1 + suite_random() % 30;
			for (size_t i = 0; i < n; i++) {
				static const uint32_t some[] = {
				    POST_HEAD + POST_PAYLOAD, POST_HEAD + POST_PAYLOAD, 100, POST_HEAD, 20, 1399, 1401, 3000, POST_HEAD + POST_TAIL};
				sizes[i] = i && suite_random() % 2 ? sizes[i - 1] : some[suite_random() % 9];
			}
			suite_pass(end, 1, sizes, n, 2, true);
			CU_ASSERT(post_guards_whole());
		}
		post_close(end);
	}
}

static void posts_revoked(void)
{
	static uint8_t memory[30][POST_HEAD + POST_PAYLOAD], before[sizeof(post_area)];
	static struct frame frames[30];
	struct suite_end end[2];

	if (!post_open(end))
		return;
	for (uint32_t i = 0; i < 30; i++)
		suite_frame(&frames[i], end[1].path, memory[i], POST_HEAD + POST_PAYLOAD, 2);
	suite_send(&end[1], frames, 30);
	CU_ASSERT_EQUAL_FATAL(suite_recv(&end[0], 5), 5); /* the others may be in the link already */
	for (uint32_t i = 0; i < 5; i++)
		CU_ASSERT(suite_same(&end[0].in[i], memory[i], POST_HEAD + POST_PAYLOAD));
	suite_free(&end[0]);
	suite_ops->rx_revoke(end[0].link, end[0].path);
	memset(post_area, 0xa5, sizeof(post_area)); /* the caller's again */
	memcpy(before, post_area, sizeof(before));
	suite_send(&end[1], frames, 10);
	CU_ASSERT_EQUAL_FATAL(suite_recv(&end[0], 35), 35);
	for (uint32_t i = 0; i < 35; i++)
		CU_ASSERT(suite_same(&end[0].in[i], memory[i < 25 ? i + 5 : i - 25], POST_HEAD + POST_PAYLOAD));
	suite_free(&end[0]);
	CU_ASSERT(!memcmp(before, post_area, sizeof(before)));
	suite_close(end);
}

static void posts_refused(void)
{
	struct suite_end end[2];
	CU_ASSERT_FATAL(suite_open(end, 0));
	struct link_post bad[] = {{.addr = NULL, .bytes = 9000, .header_bytes = 32, .payload_bytes = 1000},
	                          {.addr = post_area, .bytes = 9000, .header_bytes = 32},
	                          {.addr = post_area, .bytes = 9000, .header_bytes = 32, .payload_bytes = 0xffffffff}};
	for (size_t i = 0; i < 3; i++)
		CU_ASSERT_EQUAL(suite_ops->rx_post(end[0].link, end[0].path, &bad[i]), -TERN_EINVAL);
	suite_close(end);
}

const struct suite_case suite_cases[] = {
    {"find_in_words", find_in_words, 0},
    {"open_close", open_close, 0},
    {"sizes_arrive", sizes_arrive, 0},
    {"segments_gathered", segments_gathered, 0},
    {"bursts_equal", bursts_equal, 0},
    {"bursts_mixed", bursts_mixed, 0},
    {"prefix_taken", prefix_taken, 0},
    {"reaped_once", reaped_once, 0},
    {"lent_kept", lent_kept, 0},
    {"buffers_run_out", buffers_run_out, 0},
    {"path_close_gives_back", path_close_gives_back, 0},
    {"path_reset_gives_back", path_reset_gives_back, SUITE_ALONE},
    {"paths_come_and_go", paths_come_and_go, SUITE_ALONE},
    {"oversize_passes_by", oversize_passes_by, 0},
    {"wait_fires", wait_fires, SUITE_FD},
    {"posts_place", posts_place, SUITE_PLACES},
    {"posts_guess_wrong", posts_guess_wrong, SUITE_PLACES},
    {"posts_revoked", posts_revoked, SUITE_PLACES},
    {"posts_refused", posts_refused, SUITE_PLACES},
};
const size_t suite_n_cases = sizeof(suite_cases) / sizeof(suite_cases[0]);
