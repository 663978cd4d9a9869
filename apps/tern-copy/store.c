/* The receiving folder: see store.h. Called by receiver.c, writer.c, finish.c, from several threads; holds no state but the descriptor. */
#include "store.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <xxhash.h>
#include "units.h"

int store_fail(const struct store *s, const char *what, const char *path)
{
	char room[UNITS_TEXT_MAX];
	int err = errno;
	switch (err) {
	case ENOSPC:
	case EDQUOT:
		return copy_fail(s->error, COPY_TARGET,
		        "cannot %s '%.300s': the disk is full (%s free in '%.200s'); free some and go on with --resume", what, path,
		        units_bytes(room, sizeof(room), store_free_bytes(s)), s->name);
	case EACCES:
	case EPERM:
	case EROFS:
		return copy_fail(s->error, COPY_TARGET, "cannot %s '%.300s' in '%.200s': %s; give the receiving user the right to write there", what,
		        path, s->name, strerror(err));
	case ELOOP:
	case ENOTDIR:
		return copy_fail(s->error, COPY_TARGET,
		        "refused to %s '%.300s': a folder on the way in '%.200s' is a symbolic link or a file; remove it", what, path, s->name);
	default:
		return copy_fail(s->error, COPY_TARGET, "cannot %s '%.300s' in '%.200s': %s", what, path, s->name, strerror(err));
	}
}

int store_open(struct store *s, const char *folder, struct copy_error *error)
{
	*s = (struct store){.fd = -1, .name = folder, .error = error};
	if (mkdir(folder, 0777) && errno != EEXIST)
		return copy_fail(error, COPY_TARGET, "cannot make the folder '%.300s': %s", folder, strerror(errno));
	s->fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->fd < 0)
		return copy_fail(error, COPY_TARGET, "cannot open the folder '%.300s': %s", folder, strerror(errno));
	return 0;
}

void store_close(struct store *s)
{
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
}

/* Opens the folder that holds the path's last name, step by step: O_NOFOLLOW holds for the last name of each step only, so each name is one step. */
static int parent_open(const struct store *s, const char *path, bool make, const char **last)
{
	char name[MANIFEST_NAME_MAX + 1];
	int fd = fcntl(s->fd, F_DUPFD_CLOEXEC, 3);
	for (const char *slash; fd >= 0 && (slash = strchr(path, '/')); path = slash + 1) {
		snprintf(name, sizeof(name), "%.*s", (int)(slash - path), path);
		if (make && mkdirat(fd, name, 0777) && errno != EEXIST) {
			int err = errno;
			close(fd);
			errno = err;
			return -1;
		}
		int next = openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), err = errno;
		close(fd);
		errno = err;
		fd = next;
	}
	*last = path;
	return fd;
}

/* ".name.tern-part"; a name too long for that is replaced by its hash, which is the same at every attempt. */
static void temp_name(char out[MANIFEST_NAME_MAX + 1], const char *last)
{
	size_t n = strlen(last);
	if (n + 1 + strlen(MANIFEST_TEMP_SUFFIX) <= MANIFEST_NAME_MAX)
		snprintf(out, MANIFEST_NAME_MAX + 1, ".%.243s%s", last, MANIFEST_TEMP_SUFFIX);
	else
		snprintf(out, MANIFEST_NAME_MAX + 1, ".%016llx%s", (unsigned long long)XXH3_64bits(last, n), MANIFEST_TEMP_SUFFIX);
}

int store_folder(const struct store *s, const struct manifest_entry *e)
{
	const char *last;
	struct stat st;
	int fd = parent_open(s, e->path, true, &last);
	if (fd < 0)
		return store_fail(s, "make", e->path);
	int rc = mkdirat(fd, last, 0777);
	if (rc && errno == EEXIST) {
		rc = fstatat(fd, last, &st, AT_SYMLINK_NOFOLLOW);
		if (!rc && !S_ISDIR(st.st_mode)) {
			errno = ENOTDIR;
			rc = -1;
		}
	}
	if (rc)
		store_fail(s, "make", e->path);
	close(fd);
	return rc;
}

int store_temp_open(const struct store *s, const struct manifest_entry *e, bool keep)
{
	char name[MANIFEST_NAME_MAX + 1];
	const char *last;
	struct stat st;
	int parent = parent_open(s, e->path, true, &last);
	if (parent < 0)
		return store_fail(s, "make the folder of", e->path);
	temp_name(name, last);
	int fd = openat(parent, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | (keep ? 0 : O_TRUNC), 0600);
	if (fd >= 0 && (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_nlink != 1)) {
		close(fd);
		fd = -1;
		errno = EEXIST;
	}
	if (fd < 0)
		store_fail(s, "make the temporary of", e->path);
	close(parent);
	return fd;
}

uint64_t store_temp_bytes(const struct store *s, const struct manifest_entry *e)
{
	char name[MANIFEST_NAME_MAX + 1];
	const char *last;
	struct stat st;
	int parent = parent_open(s, e->path, false, &last);
	if (parent < 0)
		return 0;
	temp_name(name, last);
	int rc = fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW);
	close(parent);
	return rc || !S_ISREG(st.st_mode) ? 0 : (uint64_t)st.st_size;
}

void store_temp_remove(const struct store *s, const struct manifest_entry *e)
{
	char name[MANIFEST_NAME_MAX + 1];
	const char *last;
	int parent = parent_open(s, e->path, false, &last);
	if (parent < 0)
		return;
	temp_name(name, last);
	unlinkat(parent, name, 0);
	close(parent);
}

int store_publish(const struct store *s, const struct manifest_entry *e, int fd)
{
	char name[MANIFEST_NAME_MAX + 1];
	const char *last;
	int64_t mtime = (int64_t)e->mtime_ns, seconds = mtime / 1000000000;
	if (mtime % 1000000000 < 0)
		seconds--;
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = seconds, .tv_nsec = mtime - seconds * 1000000000}};
	int parent = parent_open(s, e->path, false, &last);
	if (parent < 0)
		return store_fail(s, "rename", e->path);
	temp_name(name, last);
	int rc = fchmod(fd, e->mode & 0777) || futimens(fd, times) || renameat(parent, name, parent, last) ? -1 : 0;
	if (rc && errno == EISDIR)
		copy_fail(s->error, COPY_TARGET, "cannot write '%.300s': a folder of that name is there in '%.200s'", e->path, s->name);
	else if (rc)
		store_fail(s, "rename", e->path);
	close(parent);
	return rc;
}

int store_sync_folder(const struct store *s, const struct manifest_entry *e)
{
	const char *last;
	int parent = parent_open(s, e->path, false, &last);
	if (parent < 0 || fsync(parent)) {
		store_fail(s, "sync the folder of", e->path);
		if (parent >= 0)
			close(parent);
		return -1;
	}
	return close(parent);
}

bool store_present(const struct store *s, const struct manifest_entry *e)
{
	const char *last;
	struct stat st;
	int parent = parent_open(s, e->path, false, &last);
	if (parent < 0)
		return false;
	int rc = fstatat(parent, last, &st, AT_SYMLINK_NOFOLLOW);
	close(parent);
	return !rc && S_ISREG(st.st_mode) && (uint64_t)st.st_size == e->bytes &&
	       (uint64_t)((int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec) == e->mtime_ns;
}

uint64_t store_free_bytes(const struct store *s)
{
	struct statvfs vfs;
	return fstatvfs(s->fd, &vfs) ? UINT64_MAX : (uint64_t)vfs.f_bavail * vfs.f_frsize;
}
