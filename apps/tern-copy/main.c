/* tern-copy: copies files between sites, verified and resumable. This file reads the command line; sender.c and receiver.c do the work. */
#include <argp.h>
#include <stdlib.h>
#include <string.h>
#include "copy.h"
#include "tern/version.h"

/* glibc finds it by name, which -fvisibility=hidden would keep from it */
__attribute__((visibility("default"))) const char *argp_program_version = "tern-copy " TERN_VERSION_TEXT;

enum { KEY_PRIVATE = 256, KEY_ONCE, KEY_JSON, KEY_RAW, KEY_CONTRACT };

static error_t option_parse(int key, char *arg, struct argp_state *state)
{
	struct copy_options *o = state->input;
	switch (key) {
	case 'l':
		o->listen = arg;
		return 0;
	case 'k':
		o->key_file = arg;
		return 0;
	case KEY_CONTRACT:
		o->contract_file = arg;
		return 0;
	case KEY_PRIVATE:
		o->private_link = true;
		return 0;
	case KEY_ONCE:
		o->once = true;
		return 0;
	case 'r':
		o->resume = true;
		return 0;
	case KEY_RAW:
		o->raw = true;
		return 0;
	case KEY_JSON:
		o->json = true;
		return 0;
	case 'q':
		o->quiet = true;
		return 0;
	case 'v':
		o->verbose++;
		return 0;
	case ARGP_KEY_ARGS:
		o->sources = state->argv + state->next;
		o->n_sources = (size_t)(state->argc - state->next);
		return 0;
	case ARGP_KEY_END:
		if (o->n_sources == 0 || (!o->listen && o->n_sources == 1))
			argp_error(state, o->listen ? "no folder to receive into" : "nothing to send: name FILE or DIR, and the ADDRESS last");
		if (o->listen && o->n_sources > 1)
			argp_error(state, "one folder to receive into is enough, \"%s\" is a second one", o->sources[1]);
		if (o->listen && o->resume)
			argp_error(state, "--resume is the sender's to say");
		if (!o->listen && o->once)
			argp_error(state, "--once is for --listen");
		o->target = o->sources[--o->n_sources];
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp_option options[] = {
	{"listen", 'l', "ADDRESS", 0, "Receive at ADDRESS (host:port) into DIR", 0},
	{"once", KEY_ONCE, NULL, 0, "End after one transfer, with its exit status", 0},
	{"resume", 'r', NULL, 0, "Go on with a transfer that was cut", 0},
	{"raw", KEY_RAW, NULL, 0, "Send safetensors files as plain bytes, unparsed", 0},
	{"contract", KEY_CONTRACT, "FILE", 0, "The link's contract (rate, delay): the sender starts at its rate", 1},
	{"key", 'k', "FILE", 0, "Site key made by tern-key; default $TERN_KEY, then ~/.config/tern/site.key", 1},
	{"private", KEY_PRIVATE, NULL, 0, "The link is private: do not encrypt (must be given at both ends)", 1},
	{"json", KEY_JSON, NULL, 0, "Print one JSON object a line instead of text", 2},
	{"quiet", 'q', NULL, 0, "Print errors only", 2},
	{"verbose", 'v', NULL, 0, "Say more; twice: much more", 2},
	{0},
};

int main(int argc, char **argv)
{
	static const struct argp argp = {
	        .options = options,
	        .parser = option_parse,
	        .args_doc = "FILE|DIR... ADDRESS\n--listen ADDRESS DIR",
	        .doc = "Copy files and folders to another site: safetensors files as tensors, all others as bytes."
	               "\vWhat arrives is written under a temporary name, compared by xxh3, synced and renamed. ADDRESS is host:port or "
	               "udp://host:port.\n"
	               "Exit status: 0 all copied, 1 transfer failed, 2 wrong use, 3 not verified, 4 source unreadable, malformed or changed, "
	               "5 the receiving side cannot write, 6 refused (key, private=1, version, address), 130 interrupted.",
	};
	struct copy_options o = {0};
	argp_err_exit_status = COPY_USAGE;
	argp_parse(&argp, argc, argv, 0, NULL, &o);
	copy_signals_set();
	return o.listen ? copy_receive(&o) : copy_send(&o);
}
