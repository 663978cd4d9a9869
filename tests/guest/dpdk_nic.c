/* The dpdk link on real ports, two network cards of a guest at one wire (tests/guest/dpdknet), through the public API: what the card reads from where it is, and what is
 * copied once. dpdk_nic vfio: memory is mapped for the cards' DMA. dpdk_nic uio: physical addresses, nothing is. Every byte is checked: the IOMMU refuses a card whatever
 * was not mapped for it, and then nothing arrives. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "../interop/inter.h"

enum { BYTES = 1 << 20, AREA = 4 << 20 };
static struct inter_pair p;
static bool is_vfio;
static char said[8192];

static void listen_log(void *arg, int level, const char *file, int line, const char *text)
{
	(void)arg, (void)file, (void)line;
	size_t used = strlen(said);
	if (level <= TERN_LOG_WARN)
		snprintf(said + used, sizeof(said) - used, "%s\n", text);
}

static void open_pair(bool private)
{
	tern_config c = inter_config();
	char text[512];
	const char *more = private ? "&private=1" : "";
	memset(&p, 0, sizeof(p));
	*said = 0;
	c.log = listen_log;
	inter_open(&p.a, &c);
	inter_open(&p.b, &c);
	snprintf(text, sizeof(text), "dpdk://10.9.0.2:7411?ctl=127.0.0.1:7411&dev=0000:00:1e.0&ip=10.9.0.2/24%s", more);
	int err = tern_listen(p.b.ep, text);
	if (err)
		inter_fail(__FILE__, __LINE__, "%s: %d %s", text, err, inter_detail(&p.b, 0));
	snprintf(text, sizeof(text), "dpdk://10.9.0.2:7411?ctl=127.0.0.1:7411&dev=0000:00:1d.0&ip=10.9.0.1/24%s", more);
	err = tern_connect_text(p.a.ep, text, NULL, &p.ab);
	if (err)
		inter_fail(__FILE__, __LINE__, "%s: %d %s", text, err, inter_detail(&p.a, 0));
	tern_event e = inter_await(&p.a, TERN_EV_CONNECTED, 0);
	if (e.status)
		inter_fail(__FILE__, __LINE__, "connecting: %d %s\n%s", e.status, inter_detail(&p.a, e.peer), said);
	p.ba = inter_await(&p.b, TERN_EV_CONNECTED, 0).peer;
	inter_drive(50000000);
}

/* @return how often the sender copied the bytes of a large announced message, in hundredths */
static unsigned copies(void *from, tern_mem *mem)
{
	static uint8_t to[BYTES];
	unsigned least = UINT32_MAX;
	for (uint64_t i = 0; i < 3; i++) { /* what was taken for lost is sent again */
		tern_iov out = {.addr = from, .bytes = BYTES, .mem = mem};
		tern_op s, r = inter_recv(&p.b, p.ba, to, BYTES, 1, 0);
		inter_fill(from, BYTES, i);
		memset(to, 0, BYTES);
		inter_drive(10000000);
		uint64_t before = inter_stat(&p.a, 0, "copied_bytes");
		CHECK_EQ(tern_send(p.a.ep, p.ab, &(tern_buf){.iov = &out, .n = 1}, &(tern_args){.size_bytes = sizeof(tern_args), .tag = 1}, &s), 0);
		CHECK_EQ(inter_await(&p.b, TERN_EV_RECV, r).status, 0);
		CHECK_EQ(inter_await(&p.a, TERN_EV_SEND, s).status, 0);
		CHECK(inter_filled(to, BYTES, i));
		unsigned now = (unsigned)((inter_stat(&p.a, 0, "copied_bytes") - before) * 100 / BYTES);
		least = now < least ? now : least;
	}
	return least;
}

static void kind(const char *what, uint8_t *area)
{
	tern_mem *mem;
	if (area == MAP_FAILED) {
		printf("\n    SKIP: no %s\n", what);
		return;
	}
	CHECK_EQ(tern_mem_register(p.a.ctx, area, AREA, &mem), 0);
	unsigned named = copies(area + 4096, mem), found = copies(area + BYTES + 4096, NULL);
	CHECK_EQ(tern_mem_release(&mem), 0);
	unsigned after = copies(area, NULL);
	printf("\n    fact %s: copied %u %% registered, %u %% found by address, %u %% not registered\n", what, named, found, after);
	CHECK(is_vfio ? named < 5 && found < 5 : named >= 95);
	CHECK(after >= 95);
}

static uint8_t *pages(int flags, int fd)
{
	return mmap(NULL, AREA, PROT_READ | PROT_WRITE, flags, fd, 0);
}

static void host_kinds(void)
{
	uint8_t *heap = aligned_alloc(4096, AREA);
	int fd = memfd_create("area", MFD_CLOEXEC);
	CHECK_EQ(ftruncate(fd, AREA), 0);
	open_pair(true);
	kind("malloc", heap);
	kind("huge pages", pages(MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1));
	kind("memfd", pages(MAP_SHARED, fd));
	if (!is_vfio)
		CHECK_SAYS(said, "addresses memory physically");
	inter_pair_close(&p);
	free(heap);
	close(fd);
}

/* Sealed frames lie in the engine's pool: the card reads them there. */
static void sealed(void)
{
	uint8_t *area = aligned_alloc(4096, AREA);
	open_pair(false);
	unsigned n = copies(area, NULL);
	printf("\n    fact sealed: copied %u %%\n", n);
	CHECK(is_vfio ? n < 5 : n >= 95);
	inter_pair_close(&p);
	free(area);
}

/* Two registrations that share a page: the second cannot be mapped, says so, and goes with a copy. Both contexts register one region: mapped once, for both. */
static void shared_pages(void)
{
	uint8_t *area = aligned_alloc(4096, AREA);
	tern_mem *first, *second, *other;
	if (!is_vfio)
		return;
	open_pair(true);
	CHECK_EQ(tern_mem_register(p.a.ctx, area, 2 * BYTES - 100, &first), 0);
	CHECK_EQ(tern_mem_register(p.b.ctx, area, 2 * BYTES - 100, &other), 0);
	CHECK_EQ(tern_mem_release(&other), 0);
	CHECK(copies(area, first) < 5);
	*said = 0;
	CHECK_EQ(tern_mem_register(p.a.ctx, area + 2 * BYTES - 100, BYTES + 100, &second), 0);
	CHECK_SAYS(said, "mapped already, by page");
	CHECK_SAYS(said, "copied");
	CHECK(copies(area + 2 * BYTES - 100, second) >= 95);
	CHECK_EQ(tern_mem_release(&first), 0);
	CHECK_EQ(tern_mem_release(&second), 0);
	CHECK_EQ(tern_mem_register(p.a.ctx, area + 2 * BYTES - 100, BYTES + 100, &second), 0);
	CHECK(copies(area + 2 * BYTES - 100, second) < 5);
	CHECK_EQ(tern_mem_release(&second), 0);
	inter_pair_close(&p);
	free(area);
}

static const struct inter_case cases[] = {
        {"host_kinds", host_kinds},
        {"sealed", sealed},
        {"shared_pages", shared_pages},
};

int main(int argc, char **argv)
{
	is_vfio = argc > 1 && !strcmp(argv[1], "vfio");
	setenv("TERN_DPDK_EAL", "--in-memory -m 128 -a 0000:00:1d.0 -a 0000:00:1e.0", 0);
	return inter_main(1, argv, "dpdk_nic", cases, sizeof(cases) / sizeof(cases[0]));
}
