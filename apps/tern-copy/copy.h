/* What all parts of tern-copy share: options, exit codes, the first error, time, the interrupt flag. */
#ifndef COPY_COPY_H
#define COPY_COPY_H
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Exit codes; docs/man/tern-copy.1 says them too. They travel in error messages, so that both ends end with the same one: numbers never change meaning. */
enum copy_exit {
	COPY_OK = 0,
	COPY_FAILED = 1,       /* the network, the peer, the library */
	COPY_USAGE = 2,
	COPY_UNVERIFIED = 3,   /* bytes arrived that differ from those sent */
	COPY_SOURCE = 4,       /* a file cannot be read, is malformed, or changed while it was sent */
	COPY_TARGET = 5,       /* the receiving side cannot write */
	COPY_REFUSED = 6,      /* key, private=1, version, address */
	COPY_INTERRUPTED = 130,
};

enum { COPY_TEXT_MAX = 768 };

struct copy_options {
	const char *listen;    /* address to listen at; NULL: this end sends */
	char **sources;
	size_t n_sources;
	const char *target;    /* sending: the address; listening: the folder */
	const char *key_file, *contract_file;
	bool private_link, once, resume, raw, json, quiet;
	int verbose;
};

/* The first error of a transfer; later ones are consequences. Any thread. */
struct copy_error {
	pthread_mutex_t lock;
	_Atomic int exit; /* enum copy_exit, COPY_OK while none */
	bool from_peer;   /* the peer said it: it needs not be told */
	char text[COPY_TEXT_MAX];
};

#define COPY_ERROR_INIT {.lock = PTHREAD_MUTEX_INITIALIZER}

/** Records the error if it is the first. @return -1, so that callers can return it */
__attribute__((format(printf, 3, 4))) int copy_fail(struct copy_error *error, enum copy_exit code, const char *format, ...);
/** The same with the library's words: its detail where there is one, otherwise the error number's text. @param tern_err  0 or a negative TERN_E number */
int copy_fail_tern(struct copy_error *error, const char *what, int tern_err);
static inline bool copy_failed(const struct copy_error *error)
{
	return atomic_load_explicit(&error->exit, memory_order_acquire) != COPY_OK;
}

uint64_t copy_now_ns(void);
/** Set by SIGINT and SIGTERM; a second signal ends the program at once. */
extern volatile sig_atomic_t copy_interrupted;
void copy_signals_set(void);

int copy_send(const struct copy_options *o);
int copy_receive(const struct copy_options *o);

#endif
