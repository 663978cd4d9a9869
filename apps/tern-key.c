/* tern-key: makes a site key, the secret that two sites share. A program of its own: it uses nothing of the library but its version. The file's
 * format is read by the library: one line, "tern-site-key-v1" and 64 hex digits; readable by its owner only. */
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include "tern/version.h"

enum { KEY_BYTES = 32, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* glibc finds it by name, which -fvisibility=hidden would keep from it */
__attribute__((visibility("default"))) const char *argp_program_version = "tern-key " TERN_VERSION_TEXT;

struct options {
	const char *file;
	bool force;
};

static error_t option_parse(int key, char *arg, struct argp_state *state)
{
	struct options *o = state->input;

	switch (key) {
	case 'f':
		o->force = true;
		return 0;
	case ARGP_KEY_ARG:
		if (o->file)
			argp_error(state, "one FILE is enough, \"%s\" is a second one", arg);
		o->file = arg;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static int complain(const char *what, const char *path)
{
	fprintf(stderr, "tern-key: cannot %s %s: %s\n", what, path, strerror(errno));
	return -1;
}

/* Makes the folders above the file that are not there yet, for the owner only. */
static int folders_make(const char *path)
{
	char part[PATH_MAX];

	snprintf(part, sizeof(part), "%s", path);
	for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		if (mkdir(part, 0700) != 0 && errno != EEXIST)
			return complain("make the folder", part);
		*slash = '/';
	}
	return 0;
}

static int line_make(char *line, size_t bytes)
{
	uint8_t key[KEY_BYTES];
	int at = snprintf(line, bytes, "tern-site-key-v1 ");

	if (getrandom(key, sizeof(key), 0) != sizeof(key))
		return complain("get random bytes for", "the key");
	for (int i = 0; i < KEY_BYTES; i++)
		at += snprintf(line + at, bytes - (size_t)at, "%02x", key[i]);
	snprintf(line + at, bytes - (size_t)at, "\n");
	explicit_bzero(key, sizeof(key));
	return 0;
}

/* Writes and closes; a file that is not whole is removed. */
static int line_write(int fd, const char *path, const char *line)
{
	size_t bytes = strlen(line);
	bool good = fchmod(fd, 0600) == 0 && write(fd, line, bytes) == (ssize_t)bytes && fsync(fd) == 0;
	int saved = errno;

	close(fd);
	if (good)
		return 0;
	unlink(path);
	errno = saved;
	return complain("write", path);
}

static int key_write(const struct options *o, const char *line)
{
	char temp[PATH_MAX + 16];
	int fd;

	if (!o->force) {
		fd = open(o->file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd < 0 && errno == EEXIST) {
			fprintf(stderr, "tern-key: %s is there already and may be in use at another site; --force replaces it\n", o->file);
			return -1;
		}
		return fd < 0 ? complain("make", o->file) : line_write(fd, o->file, line);
	}
	/* Beside it and then in its place: whoever reads finds the old key or the new one. */
	snprintf(temp, sizeof(temp), "%s.XXXXXX", o->file);
	fd = mkostemp(temp, O_CLOEXEC);
	if (fd < 0)
		return complain("make", temp);
	if (line_write(fd, temp, line))
		return -1;
	if (rename(temp, o->file) != 0) {
		complain("replace", o->file);
		unlink(temp);
		return -1;
	}
	return 0;
}

static void say_next(const char *file, const char *standard)
{
	bool is_standard = standard[0] && strcmp(file, standard) == 0;
	const char *used = getenv("TERN_KEY");

	printf("Site key written to %s (mode 0600).\n"
	       "Both sites need the same key. Copy it to the other site, here called HOST:\n"
	       "    ssh HOST 'mkdir -p -m 700 ~/.config/tern'\n"
	       "    scp -p %s HOST:.config/tern/site.key\n",
	       file, file);
	if (used && strcmp(used, file) != 0)
		printf("TERN_KEY is set: on this host Tern reads %s instead.\n", used);
	else if (!is_standard && !used)
		printf("Tern looks at %s unless told otherwise: export TERN_KEY=%s\n", standard[0] ? standard : "~/.config/tern/site.key", file);
}

int main(int argc, char **argv)
{
	static const struct argp_option options[] = {
	    {"force", 'f', NULL, 0, "Replace a key that is there; sites that have the old one can no longer connect", 0},
	    {0},
	};
	static const struct argp argp = {
	    .options = options,
	    .parser = option_parse,
	    .args_doc = "[FILE]",
	    .doc = "Make a site key: the secret that two sites share, so that they trust each other and nobody else."
	           "\vFILE is ~/.config/tern/site.key unless given; missing folders are made. "
	           "Exit status: 0 made, 1 not made (it is there already, or cannot be written), 2 wrong use.",
	};
	char standard[PATH_MAX] = "", line[128];
	const char *home = getenv("HOME");
	struct options o = {0};

	argp_err_exit_status = EXIT_USAGE;
	argp_parse(&argp, argc, argv, 0, NULL, &o);
	if (home && home[0] && (size_t)snprintf(standard, sizeof(standard), "%s/.config/tern/site.key", home) >= sizeof(standard))
		standard[0] = 0;
	if (!o.file)
		o.file = standard;
	if (!o.file[0] || strlen(o.file) >= PATH_MAX) {
		fprintf(stderr, "tern-key: no place for the key: HOME is not set or FILE is too long; name a FILE\n");
		return EXIT_USAGE;
	}
	if (folders_make(o.file) || line_make(line, sizeof(line)))
		return EXIT_FAILED;
	int rc = key_write(&o, line);
	explicit_bzero(line, sizeof(line));
	if (rc)
		return EXIT_FAILED;
	say_next(o.file, standard);
	return 0;
}
