/* The site key's file: where it is, who may read it, what is in it. Called by api/. Written by apps/tern-key. Never prints a digit of the key. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "control/inner.h"

enum { KEY_FILE_MAX = 512 };
static const char key_word[] = "tern-site-key-v1";

int control_key_path(const char *wish, char *path, size_t bytes, struct control_error *error)
{
	const char *home = getenv("HOME");
	int n;

	if (!wish)
		wish = getenv("TERN_KEY");
	if (wish)
		n = snprintf(path, bytes, "%s", wish);
	else if (home && home[0])
		n = snprintf(path, bytes, "%s/.config/tern/site.key", home);
	else
		return control_say(error, -TERN_EKEY, "no key file is named and $HOME is not set: set TERN_KEY to the key file");
	if (n < 0 || (size_t)n >= bytes)
		return control_say(error, -TERN_EKEY, "the key file's name is longer than %zu bytes", bytes - 1);
	return 0;
}

static int key_owned(const char *path, int fd, struct control_error *error)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return control_say(error, -TERN_EKEY, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return control_say(error, -TERN_EKEY, "%s is not a file", path);
	if (st.st_uid != geteuid() && st.st_uid != 0)
		return control_say(error, -TERN_EKEY, "%s belongs to user %u, not to us (user %u): whoever owns it knows the key; chown %u %s", path,
		                   (unsigned)st.st_uid, (unsigned)geteuid(), (unsigned)geteuid(), path);
	if (st.st_mode & 077)
		return control_say(error, -TERN_EKEY, "%s has mode %04o: others can get at the site key; chmod 600 %s", path,
		                   (unsigned)(st.st_mode & 07777), path);
	return 0;
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One line: the word, blanks, 64 hex digits, nothing but blanks behind. */
static int key_parse(const char *path, const char *text, uint8_t *key, struct control_error *error)
{
	const char *at = text + sizeof(key_word) - 1;
	size_t digits = 0;

	if (strncmp(text, key_word, sizeof(key_word) - 1) != 0 || !isspace((unsigned char)*at))
		return control_say(error, -TERN_EKEY,
		                   "%s line 1 does not begin with \"%s\": it is no site key of this version; make one with tern-key", path, key_word);
	at += strspn(at, " \t");
	while (hex_value(at[digits]) >= 0)
		digits++;
	if (digits != 2 * CONTROL_KEY_BYTES)
		return control_say(error, -TERN_EKEY, "%s line 1 has %zu hex digits behind \"%s\", %d are needed", path, digits, key_word,
		                   2 * CONTROL_KEY_BYTES);
	if (at[digits + strspn(at + digits, " \t\r\n")] != 0)
		return control_say(error, -TERN_EKEY, "%s has more behind the key than it should: one line is all", path);
	for (size_t i = 0; i < CONTROL_KEY_BYTES; i++)
		key[i] = (uint8_t)(hex_value(at[2 * i]) << 4 | hex_value(at[2 * i + 1]));
	return 0;
}

int control_key_read(const char *path, uint8_t *key, struct control_error *error)
{
	char text[KEY_FILE_MAX + 1];
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), err; /* a FIFO must not hold us up */
	size_t have = 0;
	ssize_t n;

	if (fd < 0 && errno == ENOENT)
		return control_say(error, -TERN_ENOENT, "there is no site key at %s: make one with tern-key and copy it to the other site", path);
	if (fd < 0)
		return control_say(error, -TERN_EKEY, "cannot read the site key %s: %s", path, strerror(errno));
	err = key_owned(path, fd, error);
	while (!err && have < KEY_FILE_MAX && (n = read(fd, text + have, KEY_FILE_MAX - have)) != 0) {
		if (n > 0)
			have += (size_t)n;
		else if (errno != EINTR)
			err = control_say(error, -TERN_EKEY, "cannot read the site key %s: %s", path, strerror(errno));
	}
	close(fd);
	text[have] = 0;
	if (!err && (have == KEY_FILE_MAX || strlen(text) != have))
		err = control_say(error, -TERN_EKEY, "%s is no site key: it is longer than one line, or not text", path);
	if (!err)
		err = key_parse(path, text, key, error);
	explicit_bzero(text, sizeof(text));
	return err;
}
