/* Tests of tern-copy's store, journal and mappings, on a folder of their own: nothing escapes the folder, the journal says again what it was told,
 * and a file that shrinks under a mapping is noticed instead of killing the process. */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "journal.h"
#include "mapping.h"
#include "unit/unit.h"

static char folder[] = "/tmp/tern-store-XXXXXX";
static struct copy_error error;
static struct store store;

static struct manifest_entry *entry(struct manifest *m, const char *path)
{
	struct manifest_entry *e = manifest_add(m, path, strlen(path));
	e->mode = 0640;
	e->mtime_ns = UINT64_C(1234567890123456789);
	return e;
}

static void error_reset(void)
{
	memset(&error, 0, sizeof(error));
	pthread_mutex_init(&error.lock, NULL);
}

static void test_publish(void)
{
	struct manifest m = {0};
	struct manifest_entry *e = entry(&m, "new/deep/a");
	struct stat st;
	char path[64];
	e->bytes = 3;
	CU_ASSERT(!store_present(&store, e));
	int fd = store_temp_open(&store, e, false);
	CU_ASSERT_FATAL(fd >= 0);
	CU_ASSERT_EQUAL(write(fd, "abc", 3), 3);
	snprintf(path, sizeof(path), "%s/new/deep/a", folder);
	CU_ASSERT(stat(path, &st) != 0); /* not there before it is published */
	CU_ASSERT_EQUAL(store_temp_bytes(&store, e), 3);
	CU_ASSERT(!store_publish(&store, e, fd));
	close(fd);
	CU_ASSERT_FATAL(!stat(path, &st));
	CU_ASSERT_EQUAL(st.st_mode & 0777, 0640);
	CU_ASSERT(store_present(&store, e));
	CU_ASSERT_EQUAL(store_temp_bytes(&store, e), 0);
	e->mtime_ns++;
	CU_ASSERT(!store_present(&store, e));
	manifest_fini(&m);
}

static void test_links(void)
{
	struct manifest m = {0};
	struct manifest_entry *e = entry(&m, "out/a");
	char path[64], temp[64];
	snprintf(path, sizeof(path), "%s/out", folder);
	CU_ASSERT_FATAL(!symlink("/tmp", path));
	CU_ASSERT(store_temp_open(&store, e, false) < 0);
	CU_ASSERT_EQUAL(error.exit, COPY_TARGET);
	CU_ASSERT_PTR_NOT_NULL(strstr(error.text, "symbolic link"));
	e->kind = MANIFEST_FOLDER;
	error_reset();
	CU_ASSERT(store_folder(&store, e));
	error_reset();
	e = entry(&m, "b");
	snprintf(temp, sizeof(temp), "%s/.b.tern-part", folder);
	CU_ASSERT_FATAL(!symlink("/tmp/tern-store-stolen", temp));
	CU_ASSERT(store_temp_open(&store, e, false) < 0);
	CU_ASSERT(access("/tmp/tern-store-stolen", F_OK) != 0);
	error_reset();
	unlink(temp);
	unlink(path);
	manifest_fini(&m);
}

static void test_long_name(void)
{
	struct manifest m = {0};
	char name[256];
	memset(name, 'n', 255);
	name[255] = 0;
	struct manifest_entry *e = entry(&m, name);
	int fd = store_temp_open(&store, e, false);
	CU_ASSERT_FATAL(fd >= 0);
	CU_ASSERT(!store_publish(&store, e, fd));
	close(fd);
	manifest_fini(&m);
}

static void test_journal(void)
{
	struct journal j, again;
	struct manifest m = {0};
	struct manifest_entry *a = entry(&m, "odd \"n\xff\xfe%me\n");
	a->bytes = 1000;
	journal_load(&j, &store);
	CU_ASSERT_EQUAL(j.n, 0);
	journal_set(&j, a, 500);
	CU_ASSERT(!journal_save(&j));
	journal_load(&again, &store);
	CU_ASSERT_EQUAL(journal_find(&again, a), 500);
	a->mtime_ns++;
	CU_ASSERT_EQUAL(journal_find(&again, a), 0);
	a->mtime_ns--;
	a->bytes++;
	CU_ASSERT_EQUAL(journal_find(&again, a), 0);
	journal_set(&again, a, 0);
	CU_ASSERT(!journal_save(&again));
	journal_fini(&again);
	int fd = openat(store.fd, MANIFEST_JOURNAL, O_RDONLY);
	CU_ASSERT(fd < 0); /* an empty one is removed */
	fd = openat(store.fd, MANIFEST_JOURNAL, O_WRONLY | O_CREAT, 0600);
	static const char damaged[] = "{\"path\":\"../"
	                              "x\",\"bytes\":9,\"mtime_ns\":1,\"synced_bytes\":9}\n{bad\n\n{\"path\":\"y\",\"bytes\":9,\"mtime_ns\":1,"
	                              "\"synced_bytes\":5}\n{\"path\":\"z\",\"bytes\":9";
	CU_ASSERT(write(fd, damaged, sizeof(damaged) - 1) > 0);
	close(fd);
	journal_load(&again, &store);
	CU_ASSERT_EQUAL(again.n, 1);
	journal_fini(&again);
	journal_fini(&j);
	manifest_fini(&m);
	unlinkat(store.fd, MANIFEST_JOURNAL, 0);
}

static void test_shrink(void)
{
	size_t bytes = 1 << 20;
	int fd = openat(store.fd, "shrink", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CU_ASSERT_FATAL(fd >= 0 && !ftruncate(fd, (off_t)bytes) && pwrite(fd, "x", 1, 0) == 1);
	mapping_signals_set();
	struct mapping *m = mapping_open(dup(fd), bytes, 0);
	CU_ASSERT_PTR_NOT_NULL_FATAL(m);
	CU_ASSERT(!mapping_populate(m, 0, bytes));
	CU_ASSERT_PTR_NULL(mapping_find_shrunk());
	CU_ASSERT(!ftruncate(fd, 5000));
	const volatile uint8_t *at = (const uint8_t *)m->base;
	CU_ASSERT_EQUAL(at[0], 'x');
	CU_ASSERT(!m->lost);
	CU_ASSERT_EQUAL(at[500000], 0); /* raises SIGBUS */
	CU_ASSERT(m->lost);
	CU_ASSERT_EQUAL(at[bytes - 1], 0);
	CU_ASSERT_PTR_EQUAL(mapping_find_shrunk(), m);
	mapping_put(m);
	/* noticed without a fault too */
	CU_ASSERT(!ftruncate(fd, (off_t)bytes));
	m = mapping_open(dup(fd), bytes, 0);
	CU_ASSERT(!ftruncate(fd, 5000));
	CU_ASSERT(mapping_populate(m, 0, bytes) < 0);
	CU_ASSERT_PTR_EQUAL(mapping_find_shrunk(), m);
	mapping_put(m);
	CU_ASSERT_PTR_NULL(mapping_find_shrunk());
	close(fd);
}

static void test_end(void)
{
	char command[64];
	store_close(&store);
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	CU_ASSERT(!system(command));
}

static void test_open(void)
{
	error_reset();
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(folder));
	CU_ASSERT_FATAL(!store_open(&store, folder, &error));
}

static const struct unit_case cases[] = {
	{"open", test_open}, {"publish", test_publish}, {"links", test_links}, {"long_name", test_long_name},
	{"journal", test_journal}, {"shrink", test_shrink}, {"end", test_end},
};
UNIT_MAIN("store", cases)
