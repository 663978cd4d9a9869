/* The site key's file: what is read, what is refused and in which words; and that what tern-key writes is what the library reads. */
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "control/control.h"
#include "tern/error.h"
#include "unit.h"

#define HEX "00112233445566778899aabbccddeeff0123456789abcdefABCDEF0123456789"
static char folder[] = "/tmp/tern-key-test-XXXXXX", path[128];
static uint8_t key[CONTROL_KEY_BYTES];
static struct control_error error;

static int read_text(const char *text, size_t bytes, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	CU_ASSERT_FATAL(fd >= 0);
	CU_ASSERT_EQUAL(write(fd, text, bytes), (ssize_t)bytes);
	fchmod(fd, mode);
	close(fd);
	error.text[0] = 0;
	memset(key, 0, sizeof(key));
	return control_key_read(path, key, &error);
}

static void check_refused(const char *text, const char *words)
{
	CU_ASSERT_EQUAL(read_text(text, strlen(text), 0600), -TERN_EKEY);
	if (!strstr(error.text, words) || !strstr(error.text, path))
		printf("\n    \"%s\"", error.text);
	CU_ASSERT_PTR_NOT_NULL(strstr(error.text, words));
	CU_ASSERT_PTR_NOT_NULL(strstr(error.text, path));
	CU_ASSERT_PTR_NULL(strstr(error.text, "00112233")); /* never the key itself */
}

static void test_good(void)
{
	static const char *const good[] = {"tern-site-key-v1 " HEX "\n", "tern-site-key-v1 " HEX, "tern-site-key-v1 " HEX " \r\n",
	                                   "tern-site-key-v1\t " HEX "\n\n"};

	for (size_t i = 0; i < 4; i++) {
		CU_ASSERT_EQUAL(read_text(good[i], strlen(good[i]), i % 2 ? 0400 : 0600), 0);
		CU_ASSERT_EQUAL(key[0], 0x00);
		CU_ASSERT_EQUAL(key[1], 0x11);
		CU_ASSERT_EQUAL(key[15], 0xff);
		CU_ASSERT_EQUAL(key[24], 0xab);
		CU_ASSERT_EQUAL(key[31], 0x89);
		unlink(path);
	}
}

static void test_malformed(void)
{
	char long_line[600];

	check_refused("", "does not begin");
	check_refused("tern-site-key-v2 " HEX "\n", "does not begin");
	check_refused("tern-site-key-v1" HEX "\n", "does not begin");
	check_refused("tern-site-key-v1 " HEX "00\n", "66 hex digits");
	check_refused("tern-site-key-v1 001122\n", "6 hex digits");
	check_refused("tern-site-key-v1 " HEX " again\n", "more behind");
	check_refused("tern-site-key-v1 " HEX "\nsecond line\n", "more behind");
	check_refused("tern-site-key-v1 xyz\n", "0 hex digits");
	memset(long_line, 'a', sizeof(long_line));
	CU_ASSERT_EQUAL(read_text(long_line, sizeof(long_line), 0600), -TERN_EKEY);
	CU_ASSERT_PTR_NOT_NULL(strstr(error.text, "longer than"));
	CU_ASSERT_EQUAL(read_text("tern-site-key-v1 " HEX "\0x", 84, 0600), -TERN_EKEY);
}

static void test_mode(void)
{
	static const mode_t modes[] = {0644, 0640, 0604, 0620, 0601};
	char words[32];

	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		CU_ASSERT_EQUAL(read_text("tern-site-key-v1 " HEX "\n", 82, modes[i]), -TERN_EKEY);
		snprintf(words, sizeof(words), "mode %04o", (unsigned)modes[i]);
		CU_ASSERT_PTR_NOT_NULL(strstr(error.text, words));
		CU_ASSERT_PTR_NOT_NULL(strstr(error.text, "chmod 600 /tmp/tern-key-test"));
		CU_ASSERT_EQUAL(key[1], 0);
	}
}

static void test_owner(void)
{
	CU_ASSERT_EQUAL(read_text("tern-site-key-v1 " HEX "\n", 82, 0600), 0);
	if (geteuid() != 0) {
		printf("skipped: giving a file away needs root ");
		return;
	}
	CU_ASSERT_EQUAL_FATAL(chown(path, 65534, 65534), 0);
	CU_ASSERT_EQUAL(control_key_read(path, key, &error), -TERN_EKEY);
	CU_ASSERT_PTR_NOT_NULL(strstr(error.text, "user 65534"));
	unlink(path);
}

static void test_no_file(void)
{
	unlink(path);
	CU_ASSERT_EQUAL(control_key_read(path, key, &error), -TERN_ENOENT);
	CU_ASSERT_PTR_NOT_NULL(strstr(error.text, "tern-key"));
	CU_ASSERT_EQUAL(control_key_read(folder, key, &error), -TERN_EKEY);
	CU_ASSERT_PTR_NOT_NULL(strstr(error.text, "not a file"));
	CU_ASSERT_EQUAL_FATAL(mkfifo(path, 0600), 0);
	CU_ASSERT_EQUAL(control_key_read(path, key, &error), -TERN_EKEY); /* and does not wait for a writer */
	unlink(path);
}

static void test_path(void)
{
	char out[64];

	setenv("HOME", "/nonexistent", 1);
	unsetenv("TERN_KEY");
	CU_ASSERT_EQUAL(control_key_path(NULL, out, sizeof(out), &error), 0);
	CU_ASSERT_STRING_EQUAL(out, "/nonexistent/.config/tern/site.key");
	setenv("TERN_KEY", "/etc/key", 1);
	CU_ASSERT_EQUAL(control_key_path(NULL, out, sizeof(out), &error), 0);
	CU_ASSERT_STRING_EQUAL(out, "/etc/key");
	CU_ASSERT_EQUAL(control_key_path("mine", out, sizeof(out), &error), 0);
	CU_ASSERT_STRING_EQUAL(out, "mine");
	CU_ASSERT_EQUAL(control_key_path("longer than that", out, 8, &error), -TERN_EKEY);
	unsetenv("TERN_KEY");
	unsetenv("HOME");
	CU_ASSERT_EQUAL(control_key_path(NULL, out, sizeof(out), &error), -TERN_EKEY);
}

/* The program lies beside this one in the build folder. */
static int run_program(const char *arguments)
{
	char self[PATH_MAX / 2] = "", command[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	for (int up = 0; up < 3 && n > 0; up++)
		*strrchr(self, '/') = 0;
	snprintf(command, sizeof(command), "%s/apps/tern-key %s", self, arguments);
	int rc = system(command);
	return WIFEXITED(rc) ? WEXITSTATUS(rc) : -1;
}

static void test_program(void)
{
	char arguments[512], deep[256];
	uint8_t first[CONTROL_KEY_BYTES];
	struct stat st;

	snprintf(deep, sizeof(deep), "%s/home/.config/tern/site.key", folder);
	snprintf(arguments, sizeof(arguments), "--help | grep -q FILE");
	CU_ASSERT_EQUAL(run_program(arguments), 0);
	CU_ASSERT_EQUAL(run_program("--version | grep -q ^tern-key"), 0);
	CU_ASSERT_EQUAL(run_program("one two 2>/dev/null"), 2);
	CU_ASSERT_EQUAL(run_program("--nonsense 2>/dev/null"), 2);
	snprintf(arguments, sizeof(arguments), "%s/home", folder);
	setenv("HOME", arguments, 1);
	CU_ASSERT_EQUAL(run_program("| grep -q 'scp -p .*/site.key HOST'"), 0);
	CU_ASSERT_EQUAL(control_key_read(deep, first, &error), 0);
	CU_ASSERT_EQUAL_FATAL(stat(deep, &st), 0);
	CU_ASSERT_EQUAL(st.st_mode & 07777, 0600);
	CU_ASSERT_EQUAL(run_program("2>/dev/null"), 1); /* it is there */
	CU_ASSERT_EQUAL(control_key_read(deep, key, &error), 0);
	CU_ASSERT_EQUAL(memcmp(key, first, sizeof(key)), 0);
	CU_ASSERT_EQUAL(run_program("--force >/dev/null"), 0);
	CU_ASSERT_EQUAL(control_key_read(deep, key, &error), 0);
	CU_ASSERT_NOT_EQUAL(memcmp(key, first, sizeof(key)), 0);
	*strrchr(deep, '/') = 0;
	CU_ASSERT_EQUAL_FATAL(stat(deep, &st), 0);
	CU_ASSERT_EQUAL(st.st_mode & 07777, 0700);
	CU_ASSERT_EQUAL(run_program("/proc/nowhere/key 2>/dev/null"), 1);
}

static const struct unit_case cases[] = {
    {"good files", test_good}, {"malformed files", test_malformed}, {"modes", test_mode},       {"owner", test_owner},
    {"no file", test_no_file}, {"which file", test_path},           {"tern-key", test_program},
};

int main(void)
{
	char command[128];

	setbuf(stdout, NULL);
	umask(022);
	if (!mkdtemp(folder))
		return 2;
	snprintf(path, sizeof(path), "%s/key", folder);
	int rc = unit_main("control_key", cases, sizeof(cases) / sizeof(cases[0]));
	snprintf(command, sizeof(command), "rm -r %s", folder);
	return system(command) == 0 ? rc : 2;
}
