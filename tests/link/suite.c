/* Helpers of the conformance suite: opening two ends, sending, receiving, comparing. Called by the cases. */
#include <string.h>
#include "suite.h"

const struct suite_fixture *suite_fixture;
const struct link_ops *suite_ops;
const char *suite_options;
uint64_t suite_state;

uint64_t suite_random(void)
{
	suite_state ^= suite_state << 13;
	suite_state ^= suite_state >> 7;
	suite_state ^= suite_state << 17;
	return suite_state;
}

uint64_t suite_now(void)
{
	return suite_fixture->now_ns();
}

int suite_open_link(struct link_config *config, struct suite_end *end)
{
	memset(end, 0, sizeof(*end));
	config->now_ns = suite_now();
	if (!config->options)
		config->options = suite_options;
	int err = suite_ops->open(config, &end->link);
	if (!err) {
		CU_ASSERT_PTR_NOT_NULL_FATAL(end->link);
		CU_ASSERT_PTR_NOT_NULL_FATAL(end->link->ops);
		end->ops = suite_ops;
	}
	return err;
}

void suite_frame(struct frame *f, struct link_path *path, uint8_t *memory, uint32_t bytes, uint32_t segs)
{
	memset(f, 0, sizeof(*f));
	f->path = path;
	f->wire_bytes = bytes;
	f->segs = (uint8_t)(bytes < segs ? (bytes ? bytes : 1) : segs);
	for (uint32_t i = 0, at = 0; i < f->segs; i++) {
		uint32_t part = i + 1u == f->segs ? bytes - at : bytes / f->segs;
		f->seg[i] = (struct frame_seg){.addr = memory + at, .bytes = part};
		at += part;
	}
	for (uint32_t i = 0; i < bytes; i++)
		memory[i] = i % 64 ? (uint8_t)(memory[i - 1] + 37) : (uint8_t)suite_random();
}

bool suite_same(const struct rx_frame *in, const uint8_t *bytes, uint32_t n)
{
	return in->head_bytes + in->body_bytes == n && !memcmp(in->head, bytes, in->head_bytes) &&
	       (!in->body_bytes || !memcmp(in->body, bytes + in->head_bytes, in->body_bytes));
}

static struct suite_end *suite_ends; /* open now */

void suite_pause(struct suite_end *end)
{
	struct link_wait wait;
	for (size_t i = 0; suite_ends && i < 2; i++)
		if ((suite_fixture->has & SUITE_ANSWERS) && suite_ends[i].link)
			suite_ends[i].ops->rx(suite_ends[i].link, NULL, 0, suite_now());
	end->ops->wait(end->link, true, &wait);
	suite_fixture->sleep(&wait);
}

void suite_send(struct suite_end *end, struct frame *frames, size_t n)
{
	struct frame *list[1024], *back[1024];
	size_t taken = 0, reaped = 0;
	uint64_t until = suite_now() + SUITE_PATIENCE_MS * 1000000ull;

	CU_ASSERT_FATAL(n <= 1024);
	for (size_t i = 0; i < n; i++)
		list[i] = &frames[i];
	while (reaped < n && suite_now() < until) {
		size_t k = end->ops->tx(end->link, list + taken, n - taken, suite_now());
		CU_ASSERT_FATAL(k <= n - taken);
		taken += k;
		size_t r = end->ops->reap(end->link, back + reaped, n - reaped, suite_now());
		reaped += r;
		CU_ASSERT_FATAL(reaped <= taken);
		if (!k && !r)
			suite_pause(end);
	}
	CU_ASSERT_EQUAL_FATAL(reaped, n);
	for (size_t i = 0; i < n; i++) { /* each exactly once */
		size_t times = 0;
		for (size_t j = 0; j < n; j++)
			times += back[j] == list[i];
		CU_ASSERT_EQUAL(times, 1);
	}
	CU_ASSERT_EQUAL(end->ops->reap(end->link, back, 1, suite_now()), 0);
}

static size_t suite_take(struct suite_end *end, size_t n, uint64_t patience_ns)
{
	uint64_t until = suite_now() + patience_ns;
	while (end->n_in < n && suite_now() < until) {
		size_t got = end->ops->rx(end->link, end->in + end->n_in, n - end->n_in, suite_now());
		CU_ASSERT_FATAL(got <= n - end->n_in);
		end->n_in += got;
		if (!got)
			suite_pause(end);
	}
	return end->n_in;
}

size_t suite_recv(struct suite_end *end, size_t n)
{
	return suite_take(end, n < SUITE_BURST ? n : SUITE_BURST, SUITE_PATIENCE_MS * 1000000ull);
}

size_t suite_drain(struct suite_end *end)
{
	return suite_take(end, SUITE_BURST, 20000000);
}

void suite_free(struct suite_end *end)
{
	end->ops->rx_free(end->link, end->in, end->n_in);
	end->n_in = 0;
}

bool suite_open_links(struct suite_end end[2], int variant)
{
	struct link_config config[2] = {{.listening = true}, {.listening = false}};
	char error[256] = "";

	config[0].error = config[1].error = error;
	config[0].error_bytes = config[1].error_bytes = sizeof(error);
	if (!suite_fixture->configure(config, variant))
		return false;
	memset(end, 0, 2 * sizeof(*end));
	suite_ends = end;
	for (int i = 0; i < 2; i++) {
		int err = suite_open_link(&config[i], &end[i]);
		if (err)
			printf("open: %d %s\n", err, error);
		CU_ASSERT_EQUAL_FATAL(err, 0);
	}
	return true;
}

void suite_open_path(struct suite_end end[2], int at, const uint8_t *token)
{
	struct link_path_config to = {.token = token, .is_acceptor = !at};

	if (at)
		to.remote = end[0].link->local;
	CU_ASSERT_EQUAL_FATAL(suite_ops->path_open(end[at].link, &to, &end[at].path), 0);
}

bool suite_connected(struct suite_end end[2])
{
	uint64_t until = suite_now() + SUITE_PATIENCE_MS * 1000000ull;

	for (int turn = 0; suite_now() < until; turn ^= 1) {
		for (int i = 0; i < 2; i++)
			CU_ASSERT_EQUAL_FATAL(suite_ops->rx(end[i].link, end[i].in, SUITE_BURST, suite_now()), 0);
		if (end[0].path->is_connected && end[1].path->is_connected)
			return true;
		suite_pause(&end[turn]);
	}
	return false;
}

bool suite_open(struct suite_end end[2], int variant)
{
	uint8_t hello[32], token[LINK_TOKEN_BYTES];
	struct frame f;

	if (!suite_open_links(end, variant))
		return false;
	if (end[0].link->caps & LINK_CONNECTS) {
		for (size_t i = 0; i < sizeof(token); i++)
			token[i] = (uint8_t)suite_random();
		suite_open_path(end, 0, token);
		suite_open_path(end, 1, token);
		CU_ASSERT_FATAL(suite_connected(end));
		return true;
	}
	struct link_path_config to = {.remote = end[0].link->local};
	CU_ASSERT_EQUAL_FATAL(suite_ops->path_open(end[1].link, &to, &end[1].path), 0);
	suite_frame(&f, end[1].path, hello, sizeof(hello), 2);
	suite_send(&end[1], &f, 1);
	CU_ASSERT_EQUAL_FATAL(suite_recv(&end[0], 1), 1);
	CU_ASSERT(suite_same(end[0].in, hello, sizeof(hello)));
	CU_ASSERT_EQUAL_FATAL(suite_ops->from(end[0].link, &end[0].in[0], &to.remote), 0);
	suite_free(&end[0]);
	CU_ASSERT_EQUAL_FATAL(suite_ops->path_open(end[0].link, &to, &end[0].path), 0);
	return true;
}

void suite_close(struct suite_end end[2])
{
	suite_ends = NULL;
	for (int i = 0; i < 2; i++) {
		if (end[i].path)
			suite_ops->path_close(end[i].link, &end[i].path);
		CU_ASSERT_PTR_NULL(end[i].path);
		suite_ops->close(&end[i].link);
		CU_ASSERT_PTR_NULL(end[i].link);
	}
}

void suite_pass(struct suite_end end[2], int from, const uint32_t *sizes, size_t n, uint32_t segs, bool burst_ends)
{
	static uint8_t memory[SUITE_BURST][66000];
	static struct frame frames[SUITE_BURST];
	bool seen[SUITE_BURST] = {false};
	struct suite_end *other = &end[!from];

	for (size_t i = 0; i < n; i++) {
		suite_frame(&frames[i], end[from].path, memory[i], sizes[i], segs);
		frames[i].burst_end = burst_ends && suite_random() % 4 == 0;
	}
	suite_send(&end[from], frames, n);
	CU_ASSERT_EQUAL(suite_recv(other, n), n);
	for (size_t i = 0; i < other->n_in; i++) {
		size_t j = 0;
		while (j < n && (seen[j] || !suite_same(&other->in[i], memory[j], sizes[j])))
			j++;
		CU_ASSERT(j < n);
		if (j < n)
			seen[j] = true;
		CU_ASSERT_PTR_EQUAL(other->in[i].path, other->path);
	}
	suite_free(other);
}
