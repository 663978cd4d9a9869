/* tern-bw: how fast messages move between two hosts, with many in flight: send and receive, writes or reads, one way or both. One program, both
 * sides; docs/man/tern-bw.1 is its manual. Uses include/tern only. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "lib/clock.h"
#include "lib/node.h"
#include "lib/num.h"
#include "lib/options.h"
#include "lib/stop.h"
#include "lib/stream.h"
#include "lib/talk.h"

#define TOOL "tern-bw"
#define FLIGHT_BYTES (4u << 20)   /* default in flight, where no contract says that more is needed */
#define VOLUME_BYTES (1ull << 30) /* default to move a size */
#define SERVER_MEMORY_MAX (16ull << 30)

enum { SIZE_LEAST = 64, SIZE_MOST = 256 << 20, SIZE_DEFAULT = 1 << 20, DEPTH_AUTO_MAX = 128, ITERATIONS_LEAST = 16, ITERATIONS_MOST = 100000 };

struct bw {
	struct options common;
	struct node node;
	struct stream stream;
	enum stream_mode mode;
	bool both, verify, gbits;
	uint64_t depth;  /* 0: found out */
	uint64_t rtt_ns; /* of a control message: an upper bound */
	bool corrupt;
	json_t *results;
};

/* What one side spent on a run. */
struct cost {
	uint64_t cpu_ns, copied_bytes, sealed_bytes;
};

enum { KEY_WRITE = 512, KEY_READ, KEY_VERIFY, KEY_GBITS };

static const struct argp_option option_list[] = {{"bidirectional", 'b', NULL, 0, "Both ways at once; the sum is reported", 2},
        {"tx-depth", 't', "N", 0, "Operations in flight, 1 to 1024; default 4 MiB of them, or 2.5 BDP of the contract", 2},
        {"write", KEY_WRITE, NULL, 0, "Write into the server's memory instead of sending", 2},
        {"read", KEY_READ, NULL, 0, "Read from the server's memory instead of sending", 2},
        {"verify", KEY_VERIFY, NULL, 0, "Check every message (XXH3); costs speed at the receiver", 2},
        {"report-gbits", KEY_GBITS, NULL, 0, "Report Gb/s instead of MiB/s", 5},
        {"report_gbits", KEY_GBITS, NULL, OPTION_ALIAS | OPTION_HIDDEN, NULL, 5}, {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct bw *b = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &b->common;
		break;
	case 'b':
		b->both = true;
		break;
	case 't':
		if (num_count(arg, 1, STREAM_DEPTH_MAX, &b->depth))
			argp_error(state, "--tx-depth=%s: must be a number from 1 to %d", arg, STREAM_DEPTH_MAX);
		break;
	case KEY_WRITE:
	case KEY_READ:
		if (b->mode != STREAM_SEND)
			argp_error(state, "--write and --read exclude each other");
		b->mode = key == KEY_WRITE ? STREAM_WRITE : STREAM_READ;
		break;
	case KEY_VERIFY:
		b->verify = true;
		break;
	case KEY_GBITS:
		b->gbits = true;
		break;
	case ARGP_KEY_ARG:
		if (b->common.address)
			argp_error(state, "%s: there is an address already; a server takes --listen only, a client one address", arg);
		b->common.address = arg;
		break;
	case ARGP_KEY_END:
		if (!b->common.address)
			argp_error(state, "give the server's address, as in udp://host:7400, or --listen ADDR to be the server");
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static struct cost cost_now(struct bw *b)
{
	return (struct cost){clock_cpu_ns(), node_stat(&b->node, "copied_bytes"), node_stat(&b->node, "sealed_bytes")};
}

static struct cost cost_since(struct bw *b, const struct cost *before)
{
	struct cost c = cost_now(b);

	return (struct cost){c.cpu_ns - before->cpu_ns, c.copied_bytes - before->copied_bytes, c.sealed_bytes - before->sealed_bytes};
}

/* Hashes as JSON integers; they wrap through the sign and back. */
static json_t *pack_hashes(const uint64_t *hash, uint64_t n)
{
	json_t *list = json_array();

	for (uint64_t i = 0; i < n; i++)
		json_array_append_new(list, json_integer((json_int_t)hash[i]));
	return list;
}

/* What the peer's one-sided operations on our memory need: the handle, and for reads the hashes. */
static int pack_target(struct bw *b, json_t *object)
{
	char handle[STREAM_HANDLE_MAX], text[2 * STREAM_HANDLE_MAX + 1];
	size_t bytes = sizeof(handle);
	struct stream *s = &b->stream;

	if (s->plan.mode == STREAM_SEND || !s->plan.receives)
		return NODE_OK;
	if (stream_export(s, handle, &bytes))
		return NODE_FAILED;
	num_to_hex(handle, bytes, text);
	json_object_set_new(object, "handle", json_string(text));
	if (s->plan.mode == STREAM_READ) {
		json_object_set_new(object, "sources", json_integer((json_int_t)s->sources));
		json_object_set_new(object, "hashes", pack_hashes(s->source_hash, s->sources));
	}
	return NODE_OK;
}

/* The other side of pack_target. */
static int unpack_target(struct bw *b, const json_t *object)
{
	char handle[STREAM_HANDLE_MAX];
	size_t bytes = sizeof(handle);
	struct stream *s = &b->stream;
	const char *text = talk_text(object, "handle");
	const json_t *hashes = json_object_get(object, "hashes");

	if (s->plan.mode == STREAM_SEND || !s->plan.active)
		return NODE_OK;
	if (!text || num_from_hex(text, handle, &bytes))
		return node_error(&b->node, "the other side gave no handle of its memory");
	if (s->plan.mode == STREAM_READ) {
		s->remote_sources = talk_number(object, "sources", 0);
		if (!s->remote_sources || s->remote_sources > STREAM_DEPTH_MAX + 1 || json_array_size(hashes) != s->remote_sources)
			return node_error(&b->node, "the other side gave %zu hashes of its memory", json_array_size(hashes));
		s->remote_hash = calloc(s->remote_sources, sizeof(*s->remote_hash));
		for (uint64_t i = 0; s->remote_hash && i < s->remote_sources; i++)
			s->remote_hash[i] = (uint64_t)json_integer_value(json_array_get(hashes, i));
		if (!s->remote_hash)
			return node_error(&b->node, "no memory for hashes");
	}
	return stream_import(s, handle, bytes);
}

/* ---- server ---------------------------------------------------------------------------------------------------------------------------- */

static int server_plan(struct bw *b, const json_t *q, struct stream_plan *plan)
{
	bool both = json_is_true(json_object_get(q, "both"));

	plan->mode = (enum stream_mode)talk_number(q, "mode", STREAM_MODES);
	plan->active = both;
	plan->receives = true;
	plan->verify = json_is_true(json_object_get(q, "verify"));
	plan->bytes = talk_number(q, "bytes", 0);
	plan->depth = (uint32_t)talk_number(q, "depth", 0);
	plan->iterations = talk_number(q, "iterations", 0);
	plan->duration_ns = talk_number(q, "duration_ns", 0);
	if (plan->mode >= STREAM_MODES || plan->bytes < SIZE_LEAST || plan->bytes > SIZE_MOST || !plan->depth || plan->depth > STREAM_DEPTH_MAX ||
	        !plan->iterations == !plan->duration_ns)
		return talk_refuse(&b->node, "a run of %" PRIu64 " bytes, %u in flight, %" PRIu64 " times is not something this server does",
		        plan->bytes, plan->depth, plan->iterations);
	if (plan->depth * plan->bytes > SERVER_MEMORY_MAX)
		return talk_refuse(&b->node, "%u messages of %" PRIu64 " bytes need more than %llu GiB of memory; use a smaller --tx-depth",
		        plan->depth, plan->bytes, SERVER_MEMORY_MAX >> 30);
	return NODE_OK;
}

/* Which hash each slot of the peer's memory must have after our writes; null: never written. */
static json_t *pack_written(const struct stream *s)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < s->plan.depth; i++) {
		uint64_t source = s->slot[i].wrote;
		json_array_append_new(list, source == UINT64_MAX ? json_null() : json_integer((json_int_t)s->source_hash[source]));
	}
	return list;
}

static json_t *pack_placed(const struct stream *s)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < s->plan.depth; i++)
		json_array_append_new(list, json_integer((json_int_t)stream_target_hash(s, i)));
	return list;
}

static int server_report(struct bw *b, const struct cost *c)
{
	const struct stream *s = &b->stream;
	json_t *answer = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "out", (json_int_t)s->result.out, "in", (json_int_t)s->result.in, "bad",
	        (json_int_t)s->result.bad, "elapsed_ns", (json_int_t)s->result.elapsed_ns, "cpu_ns", (json_int_t)c->cpu_ns, "copied_bytes",
	        (json_int_t)c->copied_bytes, "sealed_bytes", (json_int_t)c->sealed_bytes);

	if (s->plan.verify && s->plan.mode == STREAM_WRITE) {
		json_object_set_new(answer, "placed", pack_placed(s));
		if (s->plan.active)
			json_object_set_new(answer, "written", pack_written(s));
	}
	return talk_answer(&b->node, answer);
}

/* One run, after its question. */
static int serve_run(struct bw *b, const json_t *question)
{
	struct stream_plan plan;
	int result = server_plan(b, question, &plan);

	if (result)
		return result;
	json_t *answer = json_pack("{s:b}", "ok", 1), *end = NULL;
	result = stream_open(&b->stream, &b->node, &plan, 2);
	if (!result)
		result = pack_target(b, answer);
	if (!result)
		result = unpack_target(b, question);
	if (result) {
		json_decref(answer);
		return talk_refuse(&b->node, "%s", b->node.error);
	}
	result = stream_announce(&b->stream);
	struct cost before = cost_now(b);
	if (!result)
		result = talk_answer(&b->node, answer);
	else
		json_decref(answer);
	if (!result)
		result = stream_run(&b->stream);
	if (!result)
		result = talk_hear(&b->node, &end);
	json_decref(end);
	struct cost spent = cost_since(b, &before);
	return result ? result : server_report(b, &spent);
}

static int serve_client(struct bw *b)
{
	int result = talk_welcome(&b->node, TOOL);

	while (!result) {
		json_t *question;
		result = talk_hear(&b->node, &question);
		if (result)
			break;
		result = serve_run(b, question);
		json_decref(question);
		stream_close(&b->stream);
	}
	return result;
}

/* A client's failure is not the server's: it goes on to the next one. */
static int serve_all(struct bw *b)
{
	int result = node_open(&b->node, &b->common);

	if (!result)
		result = node_listen(&b->node);
	while (!result) {
		result = node_accept(&b->node);
		if (result)
			return result;
		int client = serve_client(b);
		if (client == NODE_FAILED)
			fprintf(stderr, TOOL ": %s\n", b->node.error);
		if (client == NODE_FAILED && b->common.verbose)
			node_print_stats(&b->node);
		node_part(&b->node, client != NODE_STOPPED);
		if (client == NODE_STOPPED || b->common.one_off)
			return client == NODE_GONE ? NODE_OK : client;
	}
	return result;
}

static int serve(struct bw *b)
{
	int result = serve_all(b);

	if (result == NODE_FAILED)
		fprintf(stderr, TOOL ": %s\n", b->node.error);
	node_close(&b->node);
	return result == NODE_FAILED ? EXIT_FAILED : EXIT_OK;
}

/* ---- client: what a run came to -------------------------------------------------------------------------------------------------------- */

struct row {
	uint64_t bytes, messages;
	double peak, average, messages_per_s, limit; /* bytes/s; limit 0: no contract */
	double percent;
	struct cost client, server;
};

/* Rates add up over directions. A one-sided peer knows best how long its own operations took. */
static void row_fill(struct bw *b, const json_t *report, struct row *row)
{
	const struct stream_result *r = &b->stream.result;
	uint64_t remote = b->stream.plan.mode != STREAM_SEND && report ? talk_number(report, "out", 0) : 0;
	uint64_t remote_ns = report ? talk_number(report, "elapsed_ns", 0) : 0, payload = 0, limit = 0;
	double seconds = (double)(r->elapsed_ns ? r->elapsed_ns : 1) / 1e9;
	double rate = (double)(r->out + r->in) / seconds, out_rate = (double)r->out / seconds;

	if (remote && remote_ns)
		rate += (double)remote / ((double)remote_ns / 1e9);
	row->bytes = b->stream.plan.bytes;
	row->messages = r->out + r->in + remote;
	row->messages_per_s = rate;
	row->average = rate * (double)row->bytes;
	row->peak = r->peak_ns ? (double)r->peak_bytes / (double)r->peak_ns * 1e9 : row->average;
	if (row->peak < row->average)
		row->peak = row->average;
	if (b->mode != STREAM_READ && b->node.peer && !tern_path_limits(b->node.ep, b->node.peer, &payload, &limit) && limit) {
		row->limit = (double)limit;
		row->percent = 100 * out_rate * (double)row->bytes / row->limit;
	}
	if (report)
		row->server = (struct cost){
		        talk_number(report, "cpu_ns", 0), talk_number(report, "copied_bytes", 0), talk_number(report, "sealed_bytes", 0)};
}

static double in_unit(const struct bw *b, double bytes_per_s)
{
	return b->gbits ? bytes_per_s * 8 / 1e9 : bytes_per_s / (1 << 20);
}

static void print_head(const struct bw *b)
{
	const char *unit = b->gbits ? "Gb/sec" : "MiB/sec";
	char peak[32], average[32];

	snprintf(peak, sizeof(peak), "BW peak[%s]", unit);
	snprintf(average, sizeof(average), "BW average[%s]", unit);
	printf(" %-10s %-14s %-18s %-21s %-15s%s\n", "#bytes", "#iterations", peak, average, "MsgRate[Mpps]",
	        b->common.contract_file ? " of limit[%]" : "");
}

static void print_cost(const char *side, const struct cost *c, double bytes)
{
	printf("#   %s: %.4f ns/byte of processor time, %.4f bytes copied and %.4f sealed or opened a byte moved\n", side, (double)c->cpu_ns / bytes,
	        (double)c->copied_bytes / bytes, (double)c->sealed_bytes / bytes);
}

static void print_row(const struct bw *b, const struct row *row)
{
	printf(" %-10" PRIu64 " %-14" PRIu64 " %-18.2f %-21.2f %-15.6f", row->bytes, row->messages, in_unit(b, row->peak), in_unit(b, row->average),
	        row->messages_per_s / 1e6);
	if (row->limit > 0)
		printf(" %.2f", row->percent);
	printf("\n");
	if (b->common.verbose) {
		double bytes = (double)row->bytes * (double)row->messages;
		print_cost("client", &row->client, bytes);
		print_cost("server", &row->server, bytes);
		if (row->limit > 0)
			printf("#   pinned limit of the path: %.2f %s\n", in_unit(b, row->limit), b->gbits ? "Gb/sec" : "MiB/sec");
	}
	fflush(stdout);
}

static void keep_row(struct bw *b, const struct row *row)
{
	const struct stream_result *r = &b->stream.result;
	json_t *o = json_pack("{s:I, s:I, s:I, s:f, s:f, s:f, s:f}", "message_bytes", (json_int_t)row->bytes, "iterations", (json_int_t)row->messages,
	        "bytes", (json_int_t)(row->bytes * row->messages), "seconds", (double)r->elapsed_ns / 1e9, "bits_per_second", row->average * 8,
	        "peak_bits_per_second", row->peak * 8, "messages_per_second", row->messages_per_s);
	const struct cost *side[] = {&row->client, &row->server};
	static const char *const name[] = {"client", "server"};

	json_object_set_new(o, "tx_depth", json_integer((json_int_t)b->stream.plan.depth));
	if (row->limit > 0) {
		json_object_set_new(o, "limit_bits_per_second", json_real(row->limit * 8));
		json_object_set_new(o, "limit_percent", json_real(row->percent));
	}
	if (b->verify)
		json_object_set_new(o, "corrupt", json_integer((json_int_t)r->bad));
	for (unsigned i = 0; i < 2; i++)
		json_object_set_new(o, name[i],
		        json_pack("{s:f, s:I, s:I}", "cpu_seconds", (double)side[i]->cpu_ns / 1e9, "copied_bytes", (json_int_t)side[i]->copied_bytes,
		                "sealed_bytes", (json_int_t)side[i]->sealed_bytes));
	json_array_append_new(b->results, o);
}

/* ---- client: a run --------------------------------------------------------------------------------------------------------------------- */

static uint32_t depth_for(struct bw *b, uint64_t bytes)
{
	uint64_t payload, limit, flight = FLIGHT_BYTES;

	if (b->depth)
		return (uint32_t)b->depth;
	if (!tern_path_limits(b->node.ep, b->node.peer, &payload, &limit) && limit) {
		double bdp = (double)limit * (double)b->rtt_ns / 1e9;
		if (2.5 * bdp > flight)
			flight = (uint64_t)(2.5 * bdp);
	}
	uint64_t depth = (flight + bytes - 1) / bytes, most = flight > FLIGHT_BYTES ? STREAM_DEPTH_MAX : DEPTH_AUTO_MAX;
	return (uint32_t)(depth < 2 ? 2 : depth > most ? most : depth);
}

static void client_plan(struct bw *b, uint64_t bytes, struct stream_plan *plan)
{
	memset(plan, 0, sizeof(*plan));
	plan->mode = b->mode;
	plan->active = true;
	plan->receives = b->both;
	plan->verify = b->verify;
	plan->bytes = bytes;
	plan->depth = depth_for(b, bytes);
	plan->duration_ns = b->common.duration_ns;
	plan->iterations = plan->duration_ns ? 0 : b->common.iterations;
	if (!plan->iterations && !plan->duration_ns) {
		uint64_t n = VOLUME_BYTES / bytes;
		plan->iterations = n < ITERATIONS_LEAST ? ITERATIONS_LEAST : n > ITERATIONS_MOST ? ITERATIONS_MOST : n;
	}
}

/* Asks for the run; after this both sides may begin. */
static int agree(struct bw *b, const struct stream_plan *p)
{
	json_t *answer = NULL, *question = json_pack("{s:i, s:I, s:I, s:I, s:I, s:b, s:b}", "mode", (int)p->mode, "bytes", (json_int_t)p->bytes,
	                               "depth", (json_int_t)p->depth, "iterations", (json_int_t)p->iterations, "duration_ns",
	                               (json_int_t)p->duration_ns, "both", (int)p->receives, "verify", (int)p->verify);
	int result = pack_target(b, question);

	if (!result)
		result = stream_announce(&b->stream);
	if (result)
		json_decref(question);
	else
		result = talk_ask(&b->node, question, &answer);
	if (!result)
		result = unpack_target(b, answer);
	json_decref(answer);
	return result;
}

/* Writes are checked where they landed, ours there and theirs here. */
static void check_writes(struct bw *b, const json_t *report)
{
	struct stream *s = &b->stream;
	const json_t *placed = json_object_get(report, "placed"), *written = json_object_get(report, "written");

	if (!s->plan.verify || s->plan.mode != STREAM_WRITE)
		return;
	for (uint32_t i = 0; i < s->plan.depth; i++) {
		uint64_t source = s->slot[i].wrote;
		if (source != UINT64_MAX && (uint64_t)json_integer_value(json_array_get(placed, i)) != s->source_hash[source])
			s->result.bad++;
		const json_t *theirs = json_array_get(written, i);
		if (json_is_integer(theirs) && (uint64_t)json_integer_value(theirs) != stream_target_hash(s, i))
			s->result.bad++;
	}
}

static int run_size(struct bw *b, uint64_t bytes)
{
	struct stream_plan plan;
	struct row row = {0};
	json_t *report = NULL;

	client_plan(b, bytes, &plan);
	int result = stream_open(&b->stream, &b->node, &plan, 1);
	if (!result)
		result = agree(b, &plan);
	struct cost before = cost_now(b);
	if (!result)
		result = stream_run(&b->stream);
	row.client = cost_since(b, &before);
	if (!result)
		result = talk_ask(&b->node, json_pack("{s:b}", "end", 1), &report);
	if (report) {
		check_writes(b, report);
		b->stream.result.bad += talk_number(report, "bad", 0);
	}
	if (b->stream.result.out + b->stream.result.in) {
		row_fill(b, report, &row);
		keep_row(b, &row);
		if (!b->common.json)
			print_row(b, &row);
	}
	if (b->stream.result.bad) {
		fprintf(stderr, TOOL ": %" PRIu64 " of %" PRIu64 " messages of %" PRIu64 " bytes arrived with other bytes than were sent\n",
		        b->stream.result.bad, row.messages, bytes);
		b->corrupt = true;
	}
	json_decref(report);
	stream_close(&b->stream);
	return result;
}

static int run_sizes(struct bw *b)
{
	uint64_t size[SIZE_LIST_MAX];
	unsigned sizes = options_sizes(&b->common, size);
	int result = node_open(&b->node, &b->common);

	if (!result)
		result = node_connect(&b->node);
	uint64_t before = clock_ns();
	if (!result)
		result = talk_hello(&b->node, TOOL);
	b->rtt_ns = clock_ns() - before;
	if (!result && !b->common.json)
		print_head(b);
	for (unsigned i = 0; i < sizes && !result; i++)
		result = run_size(b, size[i]);
	if (b->common.verbose)
		node_print_stats(&b->node);
	return result;
}

static void print_json(struct bw *b, bool failed)
{
	static const char *const mode[] = {"send", "write", "read"};
	json_t *all = json_pack("{s:s, s:s, s:s, s:s, s:b, s:b, s:b, s:O}", "tool", TOOL, "version", tern_version(), "address", b->common.address,
	        "mode", mode[b->mode], "bidirectional", (int)b->both, "private", (int)b->common.is_private, "events", (int)b->common.events,
	        "results", b->results);

	if (failed)
		json_object_set_new(all, "error", json_string(b->node.error));
	json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
	printf("\n");
	json_decref(all);
}

static int client(struct bw *b)
{
	b->results = json_array();
	if (!b->results) {
		fprintf(stderr, TOOL ": no memory\n");
		return EXIT_FAILED;
	}
	int result = run_sizes(b);
	bool failed = result == NODE_FAILED || result == NODE_GONE;
	if (b->common.json)
		print_json(b, failed);
	if (failed)
		fprintf(stderr, TOOL ": %s\n", b->node.error);
	node_part(&b->node, !result);
	node_close(&b->node);
	json_decref(b->results);
	if (b->corrupt)
		return EXIT_CORRUPT;
	return !result ? EXIT_OK : result == NODE_STOPPED ? EXIT_INTERRUPTED : EXIT_FAILED;
}

int main(int argc, char **argv)
{
	static const struct argp_child children[] = {{&options_argp, 0, NULL, 0}, {0}};
	static const struct argp argp = {option_list, parse, "ADDR\n--listen ADDR",
	        "Measure how fast messages move.\vThe server is started first: tern-bw --listen udp://0.0.0.0:7400. "
	        "Exit status: 0 done, 1 failed, 2 usage, 3 bytes differ (--verify), 4 interrupted (results so far are printed). See tern-bw(1).",
	        children, NULL, NULL};
	static struct bw bw; /* the slots make it large */

	options_init(&bw.common, SIZE_LEAST, SIZE_MOST);
	bw.common.size_bytes = SIZE_DEFAULT;
	argp_parse(&argp, argc, argv, 0, NULL, &bw);
	stop_install();
	return bw.common.listen ? serve(&bw) : client(&bw);
}
