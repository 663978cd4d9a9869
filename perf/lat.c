/* tern-lat: half the round-trip time of messages between two hosts, by ping-pong over send and receive. One program, both sides; docs/man/tern-lat.1
 * is its manual. Uses include/tern only. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "lib/clock.h"
#include "lib/node.h"
#include "lib/num.h"
#include "lib/options.h"
#include "lib/sample.h"
#include "lib/stop.h"
#include "lib/talk.h"

#define TOOL "tern-lat"
#define TAG_PING 1u
#define TAG_PONG 2u
#define IMM_LAST 1u

enum {
	SIZE_LEAST = 2,
	SIZE_MOST = 8 << 20,
	ITERATIONS = 10000,
	ITERATIONS_LARGE = 1000,
	LARGE_BYTES = 64 << 10,
	WARMUP = 100,
	INJECT = 256,
	INJECT_MOST = 4096
};

struct lat {
	struct options common;
	struct node node;
	struct samples samples;
	uint64_t warmup, inject_bytes;
	bool unsorted, histogram;
	void *out, *in; /* what is sent, what is received into */
	uint64_t room;  /* bytes of each */
	tern_mem *out_mem, *in_mem;
	uint64_t held; /* polls in which a send had to wait for acknowledgements of earlier ones */
	json_t *results;
};

enum { KEY_WARMUP = 512 };

static const struct argp_option option_list[] = {{"unsorted", 'U', NULL, 0, "Print every sample, in the order taken (usec)", 2},
        {"histogram", 'H', NULL, 0, "Print a histogram", 2}, {"warmup", KEY_WARMUP, "N", 0, "Pings before the samples; default 100", 2},
        {"inject", 'I', "BYTES", 0, "Messages up to this size are handed over by value; default 256, at most 4096", 2}, {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct lat *l = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &l->common;
		break;
	case 'U':
		l->unsorted = true;
		break;
	case 'H':
		l->histogram = true;
		break;
	case 'I':
		if (num_bytes(arg, &l->inject_bytes) || l->inject_bytes > INJECT_MOST)
			argp_error(state, "--inject=%s: must be 0 to %d bytes", arg, INJECT_MOST);
		break;
	case KEY_WARMUP:
		if (num_count(arg, 0, 1u << 30, &l->warmup))
			argp_error(state, "--warmup=%s: must be a number from 0 to 2^30", arg);
		break;
	case ARGP_KEY_ARG:
		if (l->common.address)
			argp_error(state, "%s: there is an address already; a server takes --listen only, a client one address", arg);
		l->common.address = arg;
		break;
	case ARGP_KEY_END:
		if (!l->common.address)
			argp_error(state, "give the server's address, as in udp://host:7400, or --listen ADDR to be the server");
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static void drop_buffers(struct lat *l)
{
	node_release(&l->node, &l->out_mem);
	node_release(&l->node, &l->in_mem);
	l->room = 0;
}

/* Both buffers, for messages up to `bytes`; a server keeps them for its next client. */
static int buffers(struct lat *l, uint64_t bytes)
{
	if (bytes <= l->room)
		return NODE_OK;
	drop_buffers(l);
	int err = tern_mem_alloc(l->node.ctx, bytes, &l->out, &l->out_mem);
	if (!err)
		err = tern_mem_alloc(l->node.ctx, bytes, &l->in, &l->in_mem);
	if (err)
		return node_fail(&l->node, "no memory for messages", err);
	l->room = bytes;
	return NODE_OK;
}

static int post_receive(struct lat *l, uint64_t bytes, uint64_t tag)
{
	tern_iov iov = {.addr = l->in, .bytes = bytes, .mem = l->in_mem};
	tern_buf buf = {.iov = &iov, .n = 1};
	tern_args args = {.size_bytes = sizeof(args), .user = l, .tag = tag};
	int err = tern_recv(l->node.ep, l->node.peer, &buf, &args, NULL);

	return err ? node_fail(&l->node, "cannot receive", err) : NODE_OK;
}

/* Ends of sends are not asked for: the answer says as much. */
static int post_send(struct lat *l, uint64_t bytes, uint64_t tag, bool last)
{
	tern_iov iov = {.addr = l->out, .bytes = bytes, .mem = l->out_mem};
	tern_buf buf = {.iov = &iov, .n = 1};
	tern_args args = {.size_bytes = sizeof(args), .flags = TERN_QUIET, .tag = tag};

	if (bytes <= l->inject_bytes)
		args.flags |= TERN_INJECT;
	if (last) {
		args.flags |= TERN_IMM;
		args.imm = IMM_LAST;
	}
	int err;
	while ((err = tern_send(l->node.ep, l->node.peer, &buf, &args, NULL)) == -TERN_EAGAIN) {
		tern_event events[NODE_EVENTS]; /* none can be the answer: that comes after what is sent here */
		size_t got;
		int result = node_poll(&l->node, events, &got);
		l->held++;
		if (result)
			return result;
	}
	return err ? node_fail(&l->node, "cannot send", err) : NODE_OK;
}

/* Waits until the message has come. */
static int take(struct lat *l, uint64_t bytes, bool *last)
{
	tern_event event;

	do {
		int result = node_next(&l->node, &event);
		if (result)
			return result;
		if (event.status)
			return node_error(&l->node, "message: %s", tern_error_text(event.status));
	} while (event.type != TERN_EV_RECV);
	if (event.bytes != bytes)
		return node_error(&l->node, "a message of %" PRIu64 " bytes came where one of %" PRIu64 " was expected", event.bytes, bytes);
	*last = event.imm == IMM_LAST;
	return NODE_OK;
}

/* ---- server ---------------------------------------------------------------------------------------------------------------------------- */

static int serve_step(struct lat *l, uint64_t bytes)
{
	bool last = false;
	int result = post_receive(l, bytes, TAG_PING); /* announced ahead of the first ping */

	if (!result)
		result = talk_answer(&l->node, json_pack("{s:b}", "ok", 1));
	while (!result && !last) {
		result = take(l, bytes, &last);
		if (!result && !last)
			result = post_receive(l, bytes, TAG_PING); /* before the pong: the next ping finds it announced */
		if (!result)
			result = post_send(l, bytes, TAG_PONG, last);
	}
	return result;
}

static int serve_client(struct lat *l)
{
	int result = talk_welcome(&l->node, TOOL);

	while (!result) {
		json_t *question;
		result = talk_hear(&l->node, &question);
		if (result)
			return result;
		uint64_t bytes = talk_number(question, "bytes", 0), most = talk_number(question, "most", 0);
		json_decref(question);
		if (bytes < SIZE_LEAST || bytes > most || most > SIZE_MOST)
			return talk_refuse(&l->node, "a message size must be %d to %d bytes, not %" PRIu64, SIZE_LEAST, SIZE_MOST, bytes);
		result = buffers(l, most);
		if (!result)
			result = serve_step(l, bytes);
	}
	return result;
}

/* A client's failure is not the server's: it goes on to the next one. */
static int serve_all(struct lat *l)
{
	int result = node_open(&l->node, &l->common);

	if (!result)
		result = node_listen(&l->node);
	while (!result) {
		result = node_accept(&l->node);
		if (result)
			return result;
		int client = serve_client(l);
		if (client == NODE_FAILED)
			fprintf(stderr, TOOL ": %s\n", l->node.error);
		if (client == NODE_FAILED && l->common.verbose)
			node_print_stats(&l->node);
		node_part(&l->node, client != NODE_STOPPED);
		if (client == NODE_STOPPED || l->common.one_off)
			return client == NODE_GONE ? NODE_OK : client;
	}
	return result;
}

static int serve(struct lat *l)
{
	int result = serve_all(l);

	if (result == NODE_FAILED)
		fprintf(stderr, TOOL ": %s\n", l->node.error);
	drop_buffers(l);
	node_close(&l->node);
	return result == NODE_FAILED ? EXIT_FAILED : EXIT_OK;
}

/* ---- client ---------------------------------------------------------------------------------------------------------------------------- */

static uint64_t iterations_for(const struct lat *l, uint64_t bytes)
{
	if (l->common.duration_ns)
		return UINT64_MAX;
	if (l->common.iterations)
		return l->common.iterations;
	return bytes > LARGE_BYTES ? ITERATIONS_LARGE : ITERATIONS;
}

/* The pings of one size. */
static int ping(struct lat *l, uint64_t bytes)
{
	uint64_t count = iterations_for(l, bytes), until = UINT64_MAX, before = clock_ns();
	bool last = false, echoed;
	int result = NODE_OK;

	for (uint64_t i = 0; !last && !result; i++) {
		if (i == l->warmup) {
			samples_reset(&l->samples);
			if (l->common.duration_ns)
				until = before + l->common.duration_ns;
		}
		last = i >= l->warmup && (i - l->warmup + 1 == count || before >= until);
		result = post_receive(l, bytes, TAG_PONG);
		if (!result)
			result = post_send(l, bytes, TAG_PING, last);
		if (!result)
			result = take(l, bytes, &echoed);
		uint64_t after = clock_ns();
		if (!result && i >= l->warmup)
			samples_add(&l->samples, (after - before) / 2);
		before = after;
	}
	return result;
}

static void print_head(void)
{
	printf(" %-10s %-14s %-13s %-13s %-17s %-13s %-15s %-22s %s\n", "#bytes", "#iterations", "t_min[usec]", "t_max[usec]", "t_typical[usec]",
	        "t_avg[usec]", "t_stdev[usec]", "99% percentile[usec]", "99.9% percentile[usec]");
}

static void print_row(uint64_t bytes, const struct sample_summary *s)
{
	printf(" %-10" PRIu64 " %-14" PRIu64 " %-13.2f %-13.2f %-17.2f %-13.2f %-15.2f %-22.2f %.2f\n", bytes, s->n, s->min_us, s->max_us,
	        s->typical_us, s->avg_us, s->stdev_us, s->p99_us, s->p999_us);
	fflush(stdout);
}

/* One size: rows also when the run ended early. */
static int measure(struct lat *l, uint64_t bytes, uint64_t most)
{
	struct sample_summary s;
	json_t *answer = NULL;
	int result = talk_ask(&l->node, json_pack("{s:I, s:I}", "bytes", (json_int_t)bytes, "most", (json_int_t)most), &answer);

	json_decref(answer);
	samples_reset(&l->samples);
	if (!result)
		result = ping(l, bytes);
	if (l->unsorted)
		samples_print(&l->samples, l->common.json ? stderr : stdout);
	samples_summarize(&l->samples, &s);
	if (!s.n)
		return result;
	if (!l->common.json)
		print_row(bytes, &s);
	if (l->histogram)
		samples_histogram(&l->samples, l->common.json ? stderr : stdout);
	json_array_append_new(
	        l->results, json_pack("{s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "bytes", (json_int_t)bytes, "iterations", (json_int_t)s.n,
	                            "t_min_usec", s.min_us, "t_max_usec", s.max_us, "t_typical_usec", s.typical_us, "t_avg_usec", s.avg_us,
	                            "t_stdev_usec", s.stdev_us, "t_99_usec", s.p99_us, "t_99.9_usec", s.p999_us));
	return result;
}

static int run_sizes(struct lat *l)
{
	uint64_t size[SIZE_LIST_MAX];
	unsigned sizes = options_sizes(&l->common, size);
	int result = node_open(&l->node, &l->common);

	if (!result)
		result = node_connect(&l->node);
	if (!result)
		result = talk_hello(&l->node, TOOL);
	if (!result)
		result = buffers(l, size[sizes - 1]);
	if (!result && !l->common.json)
		print_head();
	for (unsigned i = 0; i < sizes && !result; i++)
		result = measure(l, size[i], size[sizes - 1]);
	if (l->common.verbose)
		node_print_stats(&l->node);
	if (l->held && l->common.verbose)
		fprintf(stderr, TOOL ": sends waited %" PRIu64 " polls for earlier ones to be acknowledged\n", l->held);
	return result;
}

static int client(struct lat *l)
{
	l->results = json_array();
	if (!l->results || samples_open(&l->samples, l->common.iterations)) {
		fprintf(stderr, TOOL ": no memory for the samples\n");
		return EXIT_FAILED;
	}
	int result = run_sizes(l);
	if (l->common.json) {
		json_t *all = json_pack("{s:s, s:s, s:s, s:b, s:b, s:O}", "tool", TOOL, "version", tern_version(), "address", l->common.address,
		        "private", l->common.is_private, "events", l->common.events, "results", l->results);
		if (result == NODE_FAILED || result == NODE_GONE)
			json_object_set_new(all, "error", json_string(l->node.error));
		json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
		printf("\n");
		json_decref(all);
	}
	if (result == NODE_FAILED || result == NODE_GONE)
		fprintf(stderr, TOOL ": %s\n", l->node.error);
	node_part(&l->node, !result);
	drop_buffers(l);
	node_close(&l->node);
	samples_close(&l->samples);
	json_decref(l->results);
	return !result ? EXIT_OK : result == NODE_STOPPED ? EXIT_INTERRUPTED : EXIT_FAILED;
}

int main(int argc, char **argv)
{
	static const struct argp_child children[] = {{&options_argp, 0, NULL, 0}, {0}};
	static const struct argp argp = {option_list, parse, "ADDR\n--listen ADDR",
	        "Measure half the round-trip time of messages.\vThe server is started first: tern-lat --listen udp://0.0.0.0:7400. "
	        "Exit status: 0 done, 1 failed, 2 usage, 4 interrupted (results so far are printed). See tern-lat(1).",
	        children, NULL, NULL};
	struct lat lat = {.warmup = WARMUP, .inject_bytes = INJECT};

	options_init(&lat.common, SIZE_LEAST, SIZE_MOST);
	lat.common.size_bytes = SIZE_LEAST;
	argp_parse(&argp, argc, argv, 0, NULL, &lat);
	stop_install();
	return lat.common.listen ? serve(&lat) : client(&lat);
}
