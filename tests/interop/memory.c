/* Registered memory of every kind, sent from, received into, exported: malloc, huge pages, memfd, dma-bufs; what is refused, and in which words; what may
 * not be released. A dma-buf comes from /dev/udmabuf or from the vgem driver (modprobe vgem), a GPU's that has no GPU: tests/guest has it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/udmabuf.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include "inter.h"

enum { BYTES = 2 << 20, HUGE_BYTES = 2 << 20 };
static struct inter_pair p;
static char said[4096]; /* by both nodes' logs */
static bool is_counted;  /* private, over udp: nothing is copied at the sender, once at the receiver */

static void listen_log(void *arg, int level, const char *file, int line, const char *text)
{
	(void)arg, (void)file, (void)line;
	size_t used = strlen(said);
	if (level <= TERN_LOG_WARN)
		snprintf(said + used, sizeof(said) - used, "%s\n", text);
}

static void open_pair(const char *query)
{
	tern_config c = inter_config();
	*said = 0;
	is_counted = strstr(query, "private") && !getenv("TERN_TEST_RDMA");
	c.log = listen_log;
	inter_pair_with(&p, "127.0.0.1", query, &c);
	inter_drive(20000000);
}

/* ---- dma-bufs ---- */

/* linux/drm.h and drm_mode.h, which are not everywhere. */
struct dumb { uint32_t height, width, bpp, flags, handle, pitch; uint64_t size; };
struct prime { uint32_t handle, flags; int32_t fd; };
#define DUMB_CREATE _IOWR('d', 0xb2, struct dumb)
#define PRIME_TO_FD _IOWR('d', 0x2d, struct prime)

static int dmabuf_of_memfd(uint64_t bytes)
{
	int device = open("/dev/udmabuf", O_RDWR | O_CLOEXEC), fd = -1;
	int memory = device < 0 ? -1 : memfd_create("dmabuf", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (memory >= 0 && !ftruncate(memory, (off_t)bytes) && !fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK)) {
		struct udmabuf_create create = {.memfd = (uint32_t)memory, .flags = UDMABUF_FLAGS_CLOEXEC, .size = bytes};
		fd = ioctl(device, UDMABUF_CREATE, &create);
	}
	if (memory >= 0)
		close(memory);
	if (device >= 0)
		close(device);
	return fd;
}

/* flags: O_RDWR, or it cannot be mapped writable. */
static int dmabuf_of_card(uint64_t bytes, uint32_t flags)
{
	char path[32];
	struct prime prime = {.fd = -1};
	for (int i = 0; i < 8 && prime.fd < 0; i++) {
		struct dumb dumb = {.width = 1024, .height = (uint32_t)(bytes / 4096), .bpp = 32};
		snprintf(path, sizeof(path), "/dev/dri/card%d", i);
		int card = open(path, O_RDWR | O_CLOEXEC);
		if (card < 0)
			continue;
		if (!ioctl(card, DUMB_CREATE, &dumb) && dumb.size >= bytes) {
			prime = (struct prime){.handle = dumb.handle, .flags = flags | O_CLOEXEC, .fd = -1};
			if (ioctl(card, PRIME_TO_FD, &prime))
				prime.fd = -1;
		}
		close(card); /* the dma-buf keeps its memory */
	}
	return prime.fd;
}

static int dmabuf(uint64_t bytes)
{
	int fd = dmabuf_of_memfd(bytes);
	return fd >= 0 ? fd : dmabuf_of_card(bytes, O_RDWR);
}

static bool no_dmabuf(int fd)
{
	if (fd < 0)
		printf("\n    SKIP: no dma-buf: neither /dev/udmabuf nor a card in /dev/dri that makes one (modprobe vgem)\n");
	return fd < 0;
}

/* ---- there and back ---- */

static void release(tern_mem **mem)
{
	uint64_t end = inter_now_ns() + 5000000000ull;
	while (tern_mem_release(mem) == -TERN_EBUSY && inter_now_ns() < end)
		inter_pump(1000000);
	CHECK(!*mem);
}

/* From a's memory into b's, in a message and in pieces; then b's memory is written by a, and read. */
static void use(tern_mem *from, tern_mem *to)
{
	static const uint64_t lengths[] = {100, 5000, 70000, BYTES - 8192};
	uint8_t *source, *target, blob[TERN_HANDLE_MAX];
	uint64_t bytes;
	tern_rmem *remote;
	size_t n = sizeof(blob);
	CHECK_EQ(tern_mem_address(from, (void **)&source, &bytes), 0);
	CHECK_EQ(tern_mem_address(to, (void **)&target, &bytes), 0);
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		tern_iov out = {source + 4096, lengths[i], from}, in = {target + 100, lengths[i], to};
		tern_op r, s;
		inter_fill(source + 4096, lengths[i], i);
		memset(target, 0, BYTES);
		CHECK_EQ(tern_recv(p.b.ep, p.ba, &(tern_buf){.iov = &in, .n = 1}, NULL, &r), 0);
		CHECK_EQ(tern_mem_release(&to), -TERN_EBUSY);
		inter_drive(5000000);
		uint64_t before[2] = {inter_stat(&p.a, 0, "copied_bytes"), inter_stat(&p.b, 0, "copied_bytes")};
		CHECK_EQ(tern_send(p.a.ep, p.ab, &(tern_buf){.iov = &out, .n = 1}, NULL, &s), 0);
		CHECK_EQ(inter_await(&p.b, TERN_EV_RECV, r).status, 0);
		CHECK_EQ(inter_await(&p.a, TERN_EV_SEND, s).status, 0);
		if (is_counted && lengths[i] > 65536) {
			CHECK_EQ(inter_stat(&p.a, 0, "copied_bytes") - before[0], 0);
			CHECK(inter_stat(&p.b, 0, "copied_bytes") - before[1] + inter_stat(&p.b, 0, "placed_bytes") >= lengths[i]);
		}
		CHECK(inter_filled(target + 100, lengths[i], i));
	}
	CHECK_EQ(tern_mem_export(p.b.ep, to, p.ba, TERN_REMOTE_READ | TERN_REMOTE_WRITE, blob, &n), 0);
	CHECK_EQ(tern_mem_import(p.a.ep, p.ab, blob, n, &remote), 0);
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		tern_iov iov = {source, lengths[i], from};
		tern_op op;
		inter_fill(source, lengths[i], 100 + i);
		CHECK_EQ(tern_write(p.a.ep, remote, 200, &(tern_buf){.iov = &iov, .n = 1}, NULL, &op), 0);
		CHECK_EQ(inter_await(&p.a, TERN_EV_WRITE, op).status, 0);
		CHECK(inter_filled(target + 200, lengths[i], 100 + i));
		memset(source, 0, lengths[i]);
		CHECK_EQ(tern_read(p.a.ep, remote, 200, &(tern_buf){.iov = &iov, .n = 1}, NULL, &op), 0);
		CHECK_EQ(inter_await(&p.a, TERN_EV_READ, op).status, 0);
		CHECK(inter_filled(source, lengths[i], 100 + i));
	}
	CHECK_EQ(tern_rmem_release(&remote), 0);
}

static void host_kind(const char *what, void *from, void *to)
{
	tern_mem *mem[2];
	if (from == MAP_FAILED || to == MAP_FAILED) {
		printf("\n    SKIP: %s: %s\n", what, strerror(errno));
		return;
	}
	CHECK_EQ(tern_mem_register(p.a.ctx, from, BYTES, &mem[0]), 0);
	CHECK_EQ(tern_mem_register(p.b.ctx, to, BYTES, &mem[1]), 0);
	use(mem[0], mem[1]);
	release(&mem[0]);
	release(&mem[1]);
}

static void *pages(int flags, int fd)
{
	return mmap(NULL, BYTES, PROT_READ | PROT_WRITE, flags, fd, 0);
}

static void host_kinds(void)
{
	void *heap[2] = {malloc(BYTES), malloc(BYTES)}, *m[2];
	open_pair("?private=1");
	host_kind("malloc", heap[0], heap[1]);
	for (int i = 0; i < 2; i++)
		m[i] = pages(MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1);
	host_kind("huge pages", m[0], m[1]);
	int fd[2] = {memfd_create("a", MFD_CLOEXEC), memfd_create("b", MFD_CLOEXEC)};
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(ftruncate(fd[i], BYTES), 0);
		m[i] = pages(MAP_SHARED, fd[i]);
		close(fd[i]);
	}
	host_kind("memfd", m[0], m[1]);
	for (int i = 0; i < 2; i++)
		munmap(m[i], BYTES);
	inter_pair_close(&p);
	free(heap[0]);
	free(heap[1]);
}

static void allocated(void)
{
	tern_mem *mem[2];
	void *addr[2];
	open_pair("");
	CHECK_EQ(tern_mem_alloc(p.a.ctx, BYTES, &addr[0], &mem[0]), 0);
	CHECK_EQ(tern_mem_alloc(p.b.ctx, BYTES + 100, &addr[1], &mem[1]), 0);
	CHECK_EQ((uintptr_t)addr[0] % HUGE_BYTES, 0); /* so that huge pages are possible */
	use(mem[0], mem[1]);
	release(&mem[0]);
	release(&mem[1]);
	inter_pair_close(&p);
}

static void dmabufs(const char *query)
{
	int fd[2] = {dmabuf(2 * BYTES), dmabuf(2 * BYTES)};
	tern_mem *mem[2];
	if (no_dmabuf(fd[0]))
		return;
	open_pair(query);
	for (int i = 0; i < 2; i++) {
		tern_memdesc d = {.size_bytes = sizeof(d), .bytes = BYTES, .offset = i ? 5000 : 0, .kind = TERN_MEM_DMABUF, .dmabuf_fd = fd[i]};
		int err = tern_mem_register_desc(i ? p.b.ctx : p.a.ctx, &d, &mem[i]);
		if (err)
			inter_fail(__FILE__, __LINE__, "dma-buf: %d %s", err, inter_detail(&p.a, 0));
		close(fd[i]); /* the registration has its own */
	}
	if (getenv("TERN_TEST_RDMA")) { /* soft RDMA takes none: its frames are copied, and the log says so */
		CHECK_SAYS(said, "takes no dma-buf");
		CHECK_SAYS(said, "copied by the processor");
	}
	use(mem[0], mem[1]);
	release(&mem[0]);
	release(&mem[1]);
	inter_pair_close(&p);
}

static void dmabufs_private(void)
{
	dmabufs("?private=1");
}

static void dmabufs_sealed(void)
{
	dmabufs("");
}

/* A dma-buf in other people's hands: the caller's own mapping, the same memory twice. */
static void dmabuf_mapped_by_caller(void)
{
	int fd = dmabuf(2 * BYTES);
	tern_mem *mem, *host;
	if (no_dmabuf(fd))
		return;
	open_pair("?private=1");
	void *at = mmap(NULL, 2 * BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), *addr;
	uint64_t bytes;
	CHECK(at != MAP_FAILED);
	tern_memdesc d = {.size_bytes = sizeof(d), .addr = at, .bytes = BYTES, .kind = TERN_MEM_DMABUF, .dmabuf_fd = fd};
	CHECK_EQ(tern_mem_register_desc(p.a.ctx, &d, &mem), 0);
	CHECK_EQ(tern_mem_address(mem, &addr, &bytes), 0);
	CHECK(addr == at && bytes == BYTES);
	CHECK_EQ(tern_mem_alloc(p.b.ctx, BYTES, &addr, &host), 0);
	use(mem, host);
	release(&mem);
	memset(at, 1, 2 * BYTES); /* still the caller's */
	release(&host);
	munmap(at, 2 * BYTES);
	close(fd);
	inter_pair_close(&p);
}

/* ---- refused ---- */

static void refused(const tern_memdesc *d, int err, const char *words)
{
	tern_mem *mem = NULL;
	CHECK_EQ(tern_mem_register_desc(p.a.ctx, d, &mem), err);
	CHECK(!mem);
	CHECK_SAYS(inter_detail(&p.a, 0), words);
}

static void descriptions(void)
{
	static uint8_t x[8192];
	open_pair("");
	tern_memdesc d = {.size_bytes = sizeof(d), .addr = x, .bytes = sizeof(x), .dmabuf_fd = -1}, bad = d;
	bad.size_bytes = 8;
	refused(&bad, -TERN_EINVAL, "sizeof(tern_memdesc)");
	bad = d;
	bad.kind = TERN_MEM_CUDA;
	refused(&bad, -TERN_EINVAL, "cuMemGetHandleForAddressRange");
	bad.kind = 77;
	refused(&bad, -TERN_EINVAL, "kind 77");
	bad = d;
	bad.rights = 4;
	refused(&bad, -TERN_EINVAL, "rights are 4");
	bad = d;
	bad.bytes = 0;
	refused(&bad, -TERN_EINVAL, "cannot be memory");
	bad = d;
	bad.kind = TERN_MEM_DMABUF;
	refused(&bad, -TERN_EINVAL, "dmabuf_fd is -1");
	bad.dmabuf_fd = memfd_create("no dma-buf", MFD_CLOEXEC);
	refused(&bad, -TERN_EINVAL, "is no dma-buf");
	close(bad.dmabuf_fd);
	/* an older program's description ends before `rights` */
	tern_mem *mem;
	bad = d;
	bad.size_bytes = offsetof(tern_memdesc, rights);
	bad.rights = 99;
	CHECK_EQ(tern_mem_register_desc(p.a.ctx, &bad, &mem), 0);
	CHECK_EQ(tern_mem_release(&mem), 0);
	/* and rights bound what exports may give */
	uint8_t blob[TERN_HANDLE_MAX];
	size_t n = sizeof(blob);
	d.rights = TERN_REMOTE_READ;
	CHECK_EQ(tern_mem_register_desc(p.a.ctx, &d, &mem), 0);
	CHECK_EQ(tern_mem_export(p.a.ep, mem, p.ab, TERN_REMOTE_READ | TERN_REMOTE_WRITE, blob, &n), -TERN_EINVAL);
	CHECK_SAYS(inter_detail(&p.a, 0), "registered for 1 only");
	CHECK_EQ(tern_mem_export(p.a.ep, mem, p.ab, TERN_REMOTE_READ, blob, &n), 0);
	release(&mem);
	inter_pair_close(&p);
}

static void dmabufs_refused(void)
{
	int fd = dmabuf(BYTES), unmappable = dmabuf_of_card(BYTES, 0);
	if (no_dmabuf(fd))
		return;
	open_pair("");
	tern_memdesc d = {.size_bytes = sizeof(d), .bytes = BYTES, .kind = TERN_MEM_DMABUF, .dmabuf_fd = fd};
	d.bytes = 64 * (uint64_t)BYTES;
	refused(&d, -TERN_EINVAL, "reach past the end of the dma-buf");
	d.bytes = BYTES;
	d.offset = UINT64_MAX - 4096;
	refused(&d, -TERN_EINVAL, "cannot be memory");
	d.offset = 0;
	d.dmabuf_fd = unmappable;
	if (unmappable >= 0)
		refused(&d, -TERN_EIO, "cannot be mapped for the processor");
	else
		printf("\n    SKIP: every dma-buf here can be mapped\n");
	close(fd);
	close(unmappable);
	inter_pair_close(&p);
}

/* ---- in use ---- */

static void in_flight(void)
{
	enum { BIG = 64 << 10 };
	uint8_t *x = aligned_alloc(4096, 4 * BIG);
	tern_mem *mem;
	tern_op op;
	open_pair("?private=1");
	CHECK_EQ(tern_mem_register(p.a.ctx, x, 4 * BIG, &mem), 0);
	/* memory that is not the registration's */
	tern_iov iov = {.addr = x + 3 * BIG, .bytes = 2 * BIG, .mem = mem};
	CHECK_EQ(tern_recv(p.a.ep, p.ab, &(tern_buf){.iov = &iov, .n = 1}, NULL, &op), -TERN_EINVAL);
	CHECK_SAYS(inter_detail(&p.a, 0), "not in the registered memory");
	tern_tensor rows = {.data = x + BIG, .mem = mem, .dtype = TERN_U8, .dims = 2, .shape = {3, 100}, .stride_bytes = {-BIG, 1}};
	CHECK_EQ(tern_recv(p.a.ep, p.ab, &(tern_buf){.tensor = &rows}, NULL, &op), -TERN_EINVAL);
	/* named, and where a link maps memory, found to lie in it */
	for (int named = 0; named < 2; named++) {
		iov = (tern_iov){.addr = x + BIG, .bytes = BIG, .mem = named ? mem : NULL};
		CHECK_EQ(tern_recv(p.a.ep, p.ab, &(tern_buf){.iov = &iov, .n = 1}, NULL, &op), 0);
		if (named || getenv("TERN_TEST_RDMA")) {
			CHECK_EQ(tern_mem_release(&mem), -TERN_EBUSY);
			CHECK_SAYS(inter_detail(&p.a, 0), "operations use the memory still");
			CHECK(mem);
		}
		CHECK_EQ(tern_cancel(p.a.ep, op), 0);
		CHECK_EQ(inter_await(&p.a, TERN_EV_RECV, op).status, -TERN_ECANCELED);
	}
	CHECK_EQ(tern_mem_release(&mem), 0);
	inter_pair_close(&p);
	free(x);
}

/* ---- while others go on ---- */

enum { LARGE = 192 << 20 };
static _Atomic bool registered;
static uint64_t registered_ns;

static void *register_large(void *addr)
{
	tern_mem *mem = NULL;
	uint64_t begin = inter_now_ns();
	int err = tern_mem_register(p.a.ctx, addr, LARGE, &mem);
	registered_ns = inter_now_ns() - begin;
	registered = true;
	return err ? NULL : mem;
}

/* Registering a large region is the caller's time, not everybody's: messages pass meanwhile, small ones and ones whose memory must be registered too. Without a link that
 * pins memory there is nothing to wait for. */
static void others_go_on(void)
{
	enum { PART = 65536 };
	static uint8_t out[PART], in[PART];
	pthread_t thread;
	void *mem = NULL;
	uint64_t longest = 0, rounds = 0;
	uint8_t *large = mmap(NULL, LARGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(large != MAP_FAILED);
	open_pair("?private=1");
	registered = false;
	CHECK(!pthread_create(&thread, NULL, register_large, large));
	while (!registered) {
		uint64_t begin = inter_now_ns(), bytes = rounds++ % 2 ? PART : 8;
		tern_op r = inter_recv(&p.b, p.ba, in, bytes, 1, 0);
		tern_op s = inter_send(&p.a, p.ab, out, bytes, 1, 0);
		CHECK_EQ(inter_await(&p.b, TERN_EV_RECV, r).status, 0);
		CHECK_EQ(inter_await(&p.a, TERN_EV_SEND, s).status, 0);
		uint64_t took = inter_now_ns() - begin;
		longest = took > longest && !registered ? took : longest; /* the last one may begin with the end */
	}
	CHECK(!pthread_join(thread, &mem));
	CHECK(mem);
	printf("\n    fact %d MB registered in %.1f ms; meanwhile %llu messages, the slowest %.1f ms\n", LARGE >> 20, (double)registered_ns / 1e6,
	       (unsigned long long)rounds, (double)longest / 1e6);
	if (registered_ns > 200000000)
		CHECK(longest < registered_ns / 2);
	release((tern_mem **)&mem);
	inter_pair_close(&p);
	munmap(large, LARGE);
}

/* ---- once, not once a peer ---- */

static uint64_t pinned_bytes(void)
{
	char line[128];
	unsigned long long kib = 0;
	FILE *f = fopen("/proc/self/status", "r");
	CHECK(f);
	while (fgets(line, sizeof(line), f))
		sscanf(line, "VmPin: %llu kB", &kib);
	fclose(f);
	return kib * 1024;
}

/* A KV cache, exported to each of many peers and used by operations with all of them, is pinned once; released, not at all. */
static void registered_once(void)
{
	enum { CACHE = 64 << 20, PEERS = 4, PATH = 4 << 20 };
	struct inter_node more[PEERS];
	tern_mem *mem, *again;
	tern_peer to[PEERS];
	uint8_t blob[TERN_HANDLE_MAX];
	size_t n;
	open_pair("?private=1");
	uint8_t *cache = mmap(NULL, CACHE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(cache != MAP_FAILED);
	uint64_t before = pinned_bytes();
	CHECK_EQ(tern_mem_register(p.b.ctx, cache, CACHE, &mem), 0);
	CHECK_EQ(tern_mem_register(p.b.ctx, cache, CACHE, &again), 0);
	uint64_t once = pinned_bytes();
	/* both ends are in this process, one trust domain, each with a device */
	const char *from = getenv("TERN_RDMA_FROM"), *there = getenv("TERN_RDMA_TO");
	unsigned devices = !getenv("TERN_TEST_RDMA") ? 0 : from && there && strcmp(from, there) ? 2 : 1;
	CHECK_EQ(once - before, (uint64_t)devices * CACHE);
	for (int i = 0; i < PEERS; i++) {
		inter_open(&more[i], NULL);
		inter_connect(&more[i], "127.0.0.1", p.b.port, "?private=1");
		CHECK_EQ(inter_await(&more[i], TERN_EV_CONNECTED, 0).status, 0);
		to[i] = inter_await(&p.b, TERN_EV_CONNECTED, 0).peer;
		n = sizeof(blob);
		CHECK_EQ(tern_mem_export(p.b.ep, mem, to[i], TERN_REMOTE_READ | TERN_REMOTE_WRITE, blob, &n), 0);
		inter_recv(&p.b, to[i], cache + i * 65536, 65536, 1, 0);
		inter_drive(30000000);
	}
	printf("\n    fact pinned: %llu MB registered, %llu MB with %d peers more\n", (unsigned long long)(once - before) >> 20,
	       (unsigned long long)(pinned_bytes() - before) >> 20, PEERS);
	CHECK(pinned_bytes() - once < CACHE && pinned_bytes() - once < PEERS * 4 * (uint64_t)PATH);
	for (int i = 0; i < PEERS; i++)
		inter_close(&more[i]);
	for (int i = 0; i < PEERS; i++)
		CHECK_EQ(inter_await(&p.b, TERN_EV_RECV, 0).status, -TERN_EPEER);
	release(&again);
	release(&mem);
	inter_drive(30000000);
	CHECK(pinned_bytes() < once - (once - before) / 2 || once == before);
	inter_pair_close(&p);
	munmap(cache, CACHE);
}

static const struct inter_case cases[] = {
        {"host_kinds", host_kinds},
        {"allocated", allocated},
        {"dmabufs_private", dmabufs_private},
        {"dmabufs_sealed", dmabufs_sealed},
        {"dmabuf_mapped_by_caller", dmabuf_mapped_by_caller},
        {"descriptions", descriptions},
        {"dmabufs_refused", dmabufs_refused},
        {"in_flight", in_flight},
        {"others_go_on", others_go_on},
        {"registered_once", registered_once},
};
INTER_MAIN("memory", cases)
