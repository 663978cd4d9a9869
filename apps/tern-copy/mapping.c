/* Mapped files and SIGBUS: see mapping.h. Slots are static, because the handler walks them: it may only load, store and call mmap. */
#include "mapping.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#endif

static struct mapping slots[MAPPING_MAX];
static size_t page_bytes;
/* A slot that is looked at must not be closed meanwhile. The signal handler cannot take it, and needs not: who faults is a user of the mapping. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Everything from the page on becomes zeros: the rest of a truncated file is lost as well, and one fault says it for all. */
static int zeros_put(struct mapping *m, uintptr_t at)
{
	uintptr_t base = atomic_load(&m->base), end = base + atomic_load(&m->bytes);
	at &= ~(uintptr_t)(page_bytes - 1);
	atomic_store(&m->lost, true);
	return mmap((void *)at, end - at, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED ? -1 : 0;
}

static void on_sigbus(int number, siginfo_t *info, void *context)
{
	uintptr_t at = (uintptr_t)info->si_addr;
	int saved = errno;
	(void)context;
	for (size_t i = 0; i < MAPPING_MAX; i++) {
		uintptr_t base = atomic_load(&slots[i].base);
		if (base && at >= base && at < base + atomic_load(&slots[i].bytes) && !zeros_put(&slots[i], at)) {
			errno = saved;
			return;
		}
	}
	signal(number, SIG_DFL); /* not ours: the instruction faults again and the process ends as it would have */
}

void mapping_signals_set(void)
{
	struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_NODEFER};
	page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	sigaction(SIGBUS, &action, NULL);
}

struct mapping *mapping_open(int fd, size_t bytes, size_t file)
{
	for (size_t i = 0; i < MAPPING_MAX; i++) {
		struct mapping *m = &slots[i];
		if (atomic_load(&m->taken))
			continue; /* only one thread opens */
		void *base = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
		if (base == MAP_FAILED)
			return NULL;
		madvise(base, bytes, MADV_SEQUENTIAL);
		m->fd = fd;
		m->file = file;
		atomic_store(&m->taken, true);
		atomic_store(&m->lost, false);
		atomic_store(&m->users, 1);
		atomic_store(&m->bytes, bytes);
		atomic_store(&m->base, (uintptr_t)base); /* last: the handler takes a slot with a base for whole */
		return m;
	}
	errno = EMFILE;
	return NULL;
}

void mapping_put(struct mapping *m)
{
	if (atomic_fetch_sub(&m->users, 1) != 1)
		return;
	pthread_mutex_lock(&lock);
	void *base = (void *)atomic_exchange(&m->base, 0);
	munmap(base, atomic_load(&m->bytes));
	close(m->fd);
	atomic_store(&m->taken, false);
	pthread_mutex_unlock(&lock);
}

int mapping_populate(struct mapping *m, size_t offset, size_t bytes)
{
	uintptr_t from = (atomic_load(&m->base) + offset) & ~(uintptr_t)(page_bytes - 1), end = atomic_load(&m->base) + offset + bytes;
	if (!bytes || !madvise((void *)from, end - from, MADV_POPULATE_READ))
		return 0;
	if (errno == EFAULT || errno == EHWPOISON)
		return mapping_shrunk(m) || errno == EHWPOISON ? -1 : 0;
	/* An older kernel: touch each page. A lost one raises SIGBUS here, which the handler mends. */
	for (uintptr_t at = from; at < end; at += page_bytes)
		(void)*(volatile const uint8_t *)at;
	return atomic_load(&m->lost) ? -1 : 0;
}

bool mapping_shrunk(struct mapping *m)
{
	struct stat st;
	size_t bytes = atomic_load(&m->bytes);
	if (atomic_load(&m->lost))
		return true;
	if (fstat(m->fd, &st) || (uint64_t)st.st_size >= bytes)
		return false;
	size_t left = ((size_t)st.st_size + page_bytes - 1) & ~(page_bytes - 1);
	if (left < bytes)
		zeros_put(m, atomic_load(&m->base) + left);
	atomic_store(&m->lost, true);
	return true;
}

struct mapping *mapping_find_shrunk(void)
{
	struct mapping *found = NULL;
	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < MAPPING_MAX && !found; i++)
		if (atomic_load(&slots[i].base) && mapping_shrunk(&slots[i]))
			found = &slots[i];
	pthread_mutex_unlock(&lock);
	return found;
}
