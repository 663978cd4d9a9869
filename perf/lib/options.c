/* See options.h. */
#include "options.h"
#include <string.h>
#include "num.h"
#include "tern/tern.h"

enum { KEY_LISTEN = 256, KEY_KEY, KEY_PRIVATE, KEY_JSON, KEY_CONTRACT, KEY_CC, KEY_OWN_THREAD, KEY_TIMEOUT };

static const struct argp_option option_list[] = {{"listen", KEY_LISTEN, "ADDR", 0, "Be the server at this address, such as udp://0.0.0.0:7400", 1},
        {"one-off", '1', NULL, 0, "Server: end after the first client", 1},
        {"size", 's', "BYTES", 0, "Size of a message; K, M and G are powers of 1024", 2},
        {"all", 'a', NULL, 0, "Run all sizes, each twice the one before", 2}, {"iterations", 'n', "N", 0, "Messages a size", 2},
        {"duration", 'D', "TIME", 0, "Run so long a size instead, such as 10 (seconds) or 500ms", 2},
        {"events", 'e', NULL, 0, "Sleep while nothing happens instead of polling (each side decides for itself)", 3},
        {"own-thread", KEY_OWN_THREAD, NULL, 0, "Let a thread of the library drive the loop", 3},
        {"private", KEY_PRIVATE, NULL, 0, "Frames are not sealed (both sides must say so)", 4},
        {"key", KEY_KEY, "FILE", 0, "Site key; default: $TERN_KEY, then ~/.config/tern/site.key", 4},
        {"contract", KEY_CONTRACT, "FILE", 0, "What was bought of the path (docs/contract.md)", 4},
        {"cc", KEY_CC, "NAME", 0, "Congestion control", 4},
        {"timeout", KEY_TIMEOUT, "TIME", 0, "Give up after so long without any progress; default 20 s", 4},
        {"json", KEY_JSON, NULL, 0, "Print one JSON object instead of the table", 5},
        {"verbose", 'v', NULL, 0, "Say more: processor time a byte, counters, messages of the library", 5}, {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *o = state->input;

	switch (key) {
	case KEY_LISTEN:
		o->listen = true;
		o->address = arg;
		break;
	case '1':
		o->one_off = true;
		break;
	case 's':
		if (num_bytes(arg, &o->size_bytes) || o->size_bytes < o->size_least || o->size_bytes > o->size_most)
			argp_error(state, "--size=%s: must be %llu to %llu bytes, as in 65536, 64K or 1M", arg, (unsigned long long)o->size_least,
			        (unsigned long long)o->size_most);
		o->size_given = true;
		break;
	case 'a':
		o->all = true;
		break;
	case 'n':
		if (num_count(arg, 1, 1ull << 40, &o->iterations))
			argp_error(state, "--iterations=%s: must be a number from 1 to 2^40", arg);
		break;
	case 'D':
		if (num_time(arg, &o->duration_ns))
			argp_error(state, "--duration=%s: must be a time such as 10, 10s or 500ms", arg);
		break;
	case 'e':
		o->events = true;
		break;
	case KEY_OWN_THREAD:
		o->own_thread = true;
		break;
	case KEY_PRIVATE:
		o->is_private = true;
		break;
	case KEY_KEY:
		o->key_file = arg;
		break;
	case KEY_CONTRACT:
		o->contract_file = arg;
		break;
	case KEY_CC:
		o->cc = arg;
		break;
	case KEY_TIMEOUT:
		if (num_time(arg, &o->timeout_ns))
			argp_error(state, "--timeout=%s: must be a time such as 20 or 500ms", arg);
		break;
	case KEY_JSON:
		o->json = true;
		break;
	case 'v':
		o->verbose = true;
		break;
	case ARGP_KEY_END:
		if (o->iterations && o->duration_ns)
			argp_error(state, "--iterations and --duration exclude each other");
		if (o->all && o->size_given)
			argp_error(state, "--all and --size exclude each other");
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

const struct argp options_argp = {option_list, parse, NULL, NULL, NULL, NULL, NULL};

static void print_version(FILE *to, struct argp_state *state)
{
	fprintf(to, "%s %s (library %s)\n", state->name, TERN_VERSION_TEXT, tern_version());
}

void options_init(struct options *o, uint64_t size_least, uint64_t size_most)
{
	memset(o, 0, sizeof(*o));
	o->size_least = size_least;
	o->size_most = size_most;
	o->timeout_ns = 20000000000u;
	argp_program_version_hook = print_version;
	argp_err_exit_status = EXIT_USAGE;
}

unsigned options_sizes(const struct options *o, uint64_t *size)
{
	unsigned n = 0;

	if (!o->all) {
		size[0] = o->size_bytes;
		return 1;
	}
	for (uint64_t s = o->size_least; s <= o->size_most && n < SIZE_LIST_MAX; s *= 2)
		size[n++] = s;
	return n;
}
