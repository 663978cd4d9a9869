/* The dpdk link at work: both ends of a memif in one thread move frames, large ones from where they are and small ones copied, and nothing is allocated, freed or locked
 * for them. Allocation is seen by standing in for malloc and its like, locks by standing in for the mutex; only the thread that drives the links counts. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "link/link.h"

enum { BURST = 32, BURSTS = 400, WARM = 20, HEAD = 32, MEMORY = 1 << 16, SKIP = 77 };
#define GIVE_UP_NS 20000000000u

static __thread bool counting;
static unsigned long allocations, locks;
static const struct link_ops *ops;
static struct link *end[2];
static struct link_path *path[2];
static struct frame frames[BURST];
static uint8_t memory[MEMORY];

#ifndef __SANITIZE_ADDRESS__
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void __libc_free(void *);

void *malloc(size_t bytes)
{
	allocations += counting;
	return __libc_malloc(bytes);
}

void *calloc(size_t n, size_t bytes)
{
	allocations += counting;
	return __libc_calloc(n, bytes);
}

void *realloc(void *old, size_t bytes)
{
	allocations += counting;
	return __libc_realloc(old, bytes);
}

void free(void *memory_of)
{
	allocations += counting;
	__libc_free(memory_of);
}

int pthread_mutex_lock(pthread_mutex_t *mutex)
{
	static int (*next)(pthread_mutex_t *);
	if (!next)
		next = (int (*)(pthread_mutex_t *))dlsym(RTLD_NEXT, "pthread_mutex_lock");
	locks += counting;
	return next(mutex);
}
#endif

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int fail(const char *what, const char *why)
{
	printf("dpdk_steady: %s: %s\n", what, why);
	return 1;
}

static int links_open(void)
{
	char options[256], error[512] = "";

	if (link_find("dpdk", &ops, error, sizeof(error)))
		return fail("link_find", error);
	setenv("TERN_DPDK_EAL", "--no-huge -m 256 --no-pci", 0);
	for (int i = 0; i < 2; i++) {
		snprintf(options, sizeof(options),
		         "dev=net_memif%d,role=%s,socket-abstract=no,socket=/tmp/tern-steady-%d.sock&twin=0&ip=10.9.0.%d/24",
		         i, i ? "client" : "server", (int)getpid(), i + 1);
		struct link_config c = {.listening = true, .port = 7400, .options = options, .now_ns = now_ns()};
		c.error = error;
		c.error_bytes = sizeof(error);
		if (ops->open(&c, &end[i]))
			return fail("open", error);
	}
	for (int i = 0; i < 2; i++) {
		struct link_path_config to = {.remote = end[!i]->local};
		if (ops->path_open(end[i], &to, &path[i]))
			return fail("path_open", end[i]->trouble);
	}
	return 0;
}

/* One burst over, until all of it came and came back. @return 0, 1: it did not in time */
static int burst(uint32_t bytes)
{
	struct frame *list[BURST], *back[BURST];
	struct rx_frame in[BURST];
	size_t taken = 0, reaped = 0, came = 0;

	for (unsigned i = 0; i < BURST; i++) {
		frames[i] = (struct frame){.path = path[1], .segs = 2, .wire_bytes = HEAD + bytes, .payload_bytes = bytes};
		frames[i].seg[0] = (struct frame_seg){.addr = frames[i].head, .bytes = HEAD};
		frames[i].seg[1] = (struct frame_seg){.addr = memory + i * bytes, .bytes = bytes};
		list[i] = &frames[i];
	}
	for (uint64_t start = now_ns(), now = start; taken < BURST || reaped < BURST || came < BURST; now = now_ns()) {
		if (now - start > GIVE_UP_NS)
			return fail("burst", "not all of it arrived and came back");
		taken += ops->tx(end[1], list + taken, BURST - taken, now);
		reaped += ops->reap(end[1], back, BURST, now);
		for (int i = 0; i < 2; i++) {
			size_t n = ops->rx(end[i], in, BURST, now);
			came += i ? 0 : n;
			ops->rx_free(end[i], in, n);
		}
	}
	return 0;
}

int main(void)
{
	static const uint32_t sizes[] = {100, 1400};
#ifdef __SANITIZE_ADDRESS__
	printf("skip: the sanitizer stands in for malloc itself\n");
	return SKIP;
#endif
	if (links_open())
		return 1;
	for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++)
		for (int i = 0; i < WARM; i++)
			if (burst(sizes[s]))
				return 1;
	counting = true;
	for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++)
		for (int i = 0; i < BURSTS; i++)
			if (burst(sizes[s]))
				return 1;
	counting = false;
	printf("%d frames: %lu allocations, %lu locks\n", 2 * BURST * BURSTS, allocations, locks);
	for (int i = 0; i < 2; i++)
		ops->close(&end[i]);
	return allocations || locks;
}
