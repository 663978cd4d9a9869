/* The command-line options that tern-lat and tern-bw share, and the exit codes. An argp child: its input is a struct options with the defaults in it.
 */
#ifndef PERF_OPTIONS_H
#define PERF_OPTIONS_H
#include <argp.h>
#include <stdbool.h>
#include <stdint.h>

enum exit_code {
	EXIT_OK = 0,
	EXIT_FAILED = 1,      /* no connection, the other side went away, the library or the system refused something */
	EXIT_USAGE = 2,       /* command line */
	EXIT_CORRUPT = 3,     /* --verify found bytes that differ */
	EXIT_INTERRUPTED = 4, /* SIGINT or SIGTERM: the results so far are printed */
};

enum { SIZE_LIST_MAX = 32 };

struct options {
	const char *address; /* of the server; at the server: to listen at */
	bool listen, one_off;
	bool all, size_given;
	uint64_t size_bytes;
	uint64_t size_least, size_most; /* what is allowed; the bounds of --all too */
	uint64_t iterations;            /* 0: the program's choice */
	uint64_t duration_ns;           /* 0: by iterations */
	bool events, own_thread, is_private, json, verbose;
	const char *key_file, *contract_file, *cc;
	uint64_t timeout_ns; /* without any progress */
};

extern const struct argp options_argp;

/** Sets the defaults and what argp prints for --version and returns on a usage error. */
void options_init(struct options *o, uint64_t size_least, uint64_t size_most);
/** The sizes to run, ascending. @return how many */
unsigned options_sizes(const struct options *o, uint64_t *size);

#endif
