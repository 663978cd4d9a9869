/* What a link costs beside a bare loop over UDP sockets, on the loopback interface, in one run.
 *   link_bench [place | REPEATS [SCHEME?OPTIONS ...]]     default: 5 udp?engine=plain udp?engine=uring
 * Rows: throughput of 64 KiB bursts of one frame size, one thread doing both ends or two; half round trip of 8 bytes, both ends polling. Columns: the
 * bare loop, then the links. place: GB/s into a tensor, a copy from the link's buffer against posted receives (rx_post), one thread being both ends.
 * The best of the repeats is printed: other programs on the machine only make it worse. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/udp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#include "link/link.h"

enum { BURST_BYTES = 65487, WINDOW = 2 << 20, HEAD = 32, FRAMES_MAX = 64, RIVALS_MAX = 8, BENCH_ROWS = 9 };

struct bench_end {
	struct link *link;
	struct link_path *path;
	int fd; /* bare: instead of the link */
	struct frame frames[FRAMES_MAX];
	uint8_t sink[65536];
};

/* Who is measured: the bare sockets (ops NULL) or a link. */
struct bench_rival {
	char name[64];
	const struct link_ops *ops;
	const char *options;
	double best[BENCH_ROWS];
};

static const struct link_ops *ops;
static struct bench_end end[2];
static uint8_t memory[BURST_BYTES + HEAD];
static size_t n_frames;
static uint32_t frame_bytes;
static _Atomic uint64_t received;
static uint64_t total;

static uint64_t bench_now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void bench_die(const char *what, const char *why)
{
	fprintf(stderr, "link_bench: %s: %s\n", what, why);
	exit(1);
}

/* ---- bare sockets */

static void bare_open(void)
{
	struct sockaddr_in a[2];
	socklen_t n = sizeof(a[0]);
	int one = 1, size = 32 << 20;
	for (int i = 0; i < 2; i++) {
		a[i] = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
		end[i].fd = socket(AF_INET, SOCK_DGRAM, 0);
		if (bind(end[i].fd, (struct sockaddr *)&a[i], n) || getsockname(end[i].fd, (struct sockaddr *)&a[i], &n))
			bench_die("bind", strerror(errno));
		if (setsockopt(end[i].fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)))
			setsockopt(end[i].fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
		setsockopt(end[i].fd, SOL_UDP, UDP_GRO, &one, sizeof(one));
	}
	for (int i = 0; i < 2; i++)
		if (connect(end[i].fd, (struct sockaddr *)&a[!i], n))
			bench_die("connect", strerror(errno));
}

static void bare_send(struct bench_end *e, size_t n)
{
	struct iovec iov[2 * FRAMES_MAX];
	char control[CMSG_SPACE(2)] = {0};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 0};
	uint16_t stride = (uint16_t)frame_bytes;
	for (size_t i = 0; i < n; i++)
		for (int s = 0; s < e->frames[i].segs; s++)
			iov[msg.msg_iovlen++] = (struct iovec){e->frames[i].seg[s].addr, e->frames[i].seg[s].bytes};
	if (n > 1) {
		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		*c = (struct cmsghdr){.cmsg_level = SOL_UDP, .cmsg_type = UDP_SEGMENT, .cmsg_len = CMSG_LEN(2)};
		memcpy(CMSG_DATA(c), &stride, 2);
	}
	while (sendmsg(e->fd, &msg, MSG_DONTWAIT) < 0)
		if (errno != EAGAIN && errno != ENOBUFS)
			bench_die("sendmsg", strerror(errno));
}

static uint64_t bare_recv(struct bench_end *e)
{
	char control[64];
	struct iovec iov = {e->sink, sizeof(e->sink)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(e->fd, &msg, MSG_DONTWAIT);
	return n > 0 ? (uint64_t)n : 0;
}

/* ---- the link */

/* @return false: refused here */
static bool link_pair(const char *options)
{
	struct link_config config = {.host = "127.0.0.1", .listening = true, .options = options};
	struct link_path_config to = {0};
	char error[256];
	config.error = error;
	config.error_bytes = sizeof(error);
	for (int i = 0; i < 2; i++)
		if (ops->open(&config, &end[i].link)) {
			fprintf(stderr, "link_bench: %s\n", error);
			return false;
		}
	for (int i = 0; i < 2; i++) {
		to.remote = end[!i].link->local;
		if (ops->path_open(end[i].link, &to, &end[i].path))
			bench_die("path", "not opened");
	}
	return true;
}

static void link_send(struct bench_end *e, size_t n)
{
	struct frame *list[FRAMES_MAX], *back[FRAMES_MAX];
	size_t taken = 0, reaped = 0;
	for (size_t i = 0; i < n; i++) {
		e->frames[i].path = e->path;
		list[i] = &e->frames[i];
	}
	while (reaped < n) {
		if (taken < n)
			taken += ops->tx(e->link, list + taken, n - taken, 0);
		reaped += ops->reap(e->link, back, n, 0);
	}
}

static uint64_t link_recv(struct bench_end *e)
{
	struct rx_frame in[FRAMES_MAX];
	uint64_t bytes = 0;
	size_t n = ops->rx(e->link, in, FRAMES_MAX, 0);
	for (size_t i = 0; i < n; i++)
		bytes += in[i].head_bytes + in[i].body_bytes;
	if (n)
		ops->rx_free(e->link, in, n);
	return bytes;
}

static bool asleep; /* ends sleep on their descriptors instead of polling */

static void bench_sleep(struct bench_end *e)
{
	struct pollfd p = {.fd = e->fd, .events = POLLIN};
	struct link_wait wait;
	if (!asleep)
		return;
	if (ops) {
		ops->wait(e->link, true, &wait);
		p.fd = wait.fd;
		struct epoll_event event;
		if (epoll_wait(wait.fd, &event, 1, 100) >= 0 ||
		    errno != EINVAL) /* udp's plain engine: its epoll set; sleeping on it through poll costs more */
			return;
	}
	poll(&p, 1, 100);
}

/* ---- measurements; bare or link by the two functions */

static void (*bench_send)(struct bench_end *, size_t);
static uint64_t (*bench_recv)(struct bench_end *);

static void bench_frames(uint32_t bytes)
{
	frame_bytes = bytes;
	n_frames = bytes > HEAD ? BURST_BYTES / bytes : 1;
	for (size_t i = 0; i < 2 * n_frames; i++) {
		struct frame *f = &end[i & 1].frames[i / 2];
		uint32_t head = bytes > HEAD ? HEAD : bytes;
		memset(f, 0, sizeof(*f));
		f->wire_bytes = bytes;
		f->segs = bytes > HEAD ? 2 : 1;
		f->seg[0] = (struct frame_seg){.addr = f->head, .bytes = head};
		f->seg[1] = (struct frame_seg){.addr = memory + i / 2 * (bytes - head), .bytes = bytes - head};
		f->burst_end = i / 2 + 1 == n_frames;
	}
}

/* GB/s, one thread being both ends. */
static double bench_one(void)
{
	uint64_t burst = n_frames * frame_bytes, began = bench_now();
	for (uint64_t sent = 0; sent < total; sent += burst) {
		bench_send(&end[0], n_frames);
		for (uint64_t got = 0; got < burst;)
			got += bench_recv(&end[1]);
	}
	return (double)total / (double)(bench_now() - began);
}

static void *bench_receiver(void *arg)
{
	(void)arg;
	for (uint64_t got = 0; got < total;) {
		got += bench_recv(&end[1]);
		atomic_store_explicit(&received, got, memory_order_release); /* pairs with the window in bench_two */
	}
	return NULL;
}

static double bench_two(void)
{
	pthread_t thread;
	uint64_t burst = n_frames * frame_bytes, began = bench_now();
	received = 0;
	pthread_create(&thread, NULL, bench_receiver, NULL);
	for (uint64_t sent = 0; sent < total; sent += burst) {
		while (sent - atomic_load_explicit(&received, memory_order_acquire) > WINDOW)
			;
		bench_send(&end[0], n_frames);
	}
	pthread_join(thread, NULL);
	return (double)total / (double)(bench_now() - began);
}

static void *bench_ponger(void *arg)
{
	for (uint64_t rounds = *(uint64_t *)arg; rounds; rounds--) {
		while (!bench_recv(&end[1]))
			bench_sleep(&end[1]);
		bench_send(&end[1], 1);
	}
	return NULL;
}

/* Half round trip in ns. */
static double bench_ping(bool one, uint64_t rounds)
{
	pthread_t thread;
	uint64_t began = bench_now(), n = rounds;
	if (!one)
		pthread_create(&thread, NULL, bench_ponger, &n);
	for (uint64_t i = 0; i < rounds; i++) {
		bench_send(&end[0], 1);
		if (one) {
			while (!bench_recv(&end[1]))
				;
			bench_send(&end[1], 1);
		}
		while (!bench_recv(&end[0]))
			bench_sleep(&end[0]);
	}
	if (!one)
		pthread_join(thread, NULL);
	return (double)(bench_now() - began) / (double)rounds / 2;
}

/* Opens anew for each row: an engine may belong to the thread that used it first. */
static bool bench_row(struct bench_rival *r, int row)
{
	static const uint32_t sizes[] = {1472, 8972, BURST_BYTES};

	memset(end, 0, sizeof(end));
	if (!ops)
		bare_open();
	else if (!link_pair(r->options))
		return false;
	bench_frames(row < 6 ? sizes[row % 3] : 8);
	total = (256ull << 20) / (n_frames * frame_bytes) * (n_frames * frame_bytes);
	asleep = row == 8;
	double v = row < 3 ? bench_one() : row < 6 ? bench_two() : bench_ping(row == 6, 50000);
	if (r->best[row] == 0 || (row < 6 ? v > r->best[row] : v < r->best[row]))
		r->best[row] = v;
	for (int i = 0; i < 2; i++)
		if (ops)
			ops->close(&end[i].link);
		else
			close(end[i].fd);
	return true;
}

static void bench_rival(struct bench_rival *r)
{
	ops = r->ops;
	bench_send = ops ? link_send : bare_send;
	bench_recv = ops ? link_recv : bare_recv;
	for (int row = 0; row < BENCH_ROWS; row++)
		if (!bench_row(r, row))
			return;
}

static void bench_print(const struct bench_rival *rivals, size_t n)
{
	static const char *const rows[BENCH_ROWS] = {"1472 B, one thread, GB/s",     "8972 B, one thread, GB/s",      "65487 B, one thread, GB/s",
	                                             "1472 B, two threads, GB/s",    "8972 B, two threads, GB/s",     "65487 B, two threads, GB/s",
	                                             "8 B half RTT, one thread, ns", "8 B half RTT, two threads, ns", "8 B half RTT, asleep, ns"};
	printf("%-30s", "");
	for (size_t i = 0; i < n; i++)
		printf(" %24s", rivals[i].name);
	for (int row = 0; row < BENCH_ROWS; row++) {
		printf("\n%-30s", rows[row]);
		for (size_t i = 0; i < n; i++)
			printf(row < 6 ? " %15.2f" : " %15.0f", rivals[i].best[row]), printf(" (%.2f) ", rivals[i].best[row] / rivals[0].best[row]);
	}
	printf("\n");
}

/* ---- into a tensor */

/* Receives one message of `bytes` payload bytes into the tensor, frames in order. @return how many bytes had to be copied */
static uint64_t place_message(uint8_t *tensor, uint64_t bytes, bool post)
{
	uint32_t payload = frame_bytes - HEAD;
	struct link_post where = {.addr = tensor, .bytes = bytes, .header_bytes = HEAD, .payload_bytes = payload};
	uint64_t placed = 0, copied = 0, burst = n_frames * payload;

	if (post && ops->rx_post(end[1].link, end[1].path, &where))
		bench_die("rx_post", "refused");
	for (uint64_t sent = 0; placed < bytes;) {
		if (sent == placed) {
			link_send(&end[0], n_frames);
			sent += burst;
		}
		struct rx_frame in[FRAMES_MAX];
		size_t n = ops->rx(end[1].link, in, FRAMES_MAX, 0);
		for (size_t i = 0; i < n; i++, placed += payload)
			if (!in[i].body) {
				memcpy(tensor + placed, in[i].head + HEAD, payload);
				copied += payload;
			} else if (in[i].body != tensor + placed) {
				bench_die("rx", "a frame was lost or came out of order");
			}
		ops->rx_free(end[1].link, in, n);
	}
	if (post)
		ops->rx_revoke(end[1].link, end[1].path);
	return copied;
}

static void place_all(void)
{
	static const uint32_t sizes[] = {1472, 4128, 8972, BURST_BYTES};
	char error[256];

	if (link_find("udp", &ops, error, sizeof(error)) || !link_pair("engine=plain"))
		bench_die("link", error);
	for (uint64_t tensor_bytes = 1 << 20; tensor_bytes <= 64 << 20; tensor_bytes <<= 6)
		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			double best[2] = {0};
			bench_frames(sizes[i]);
			uint64_t burst = n_frames * (frame_bytes - HEAD), bytes = tensor_bytes / burst * burst;
			uint8_t *tensor = calloc(1, tensor_bytes);
			if (!tensor)
				bench_die("tensor", "no memory");
			memset(tensor, 1, tensor_bytes);
			for (int k = 0; k < 14; k++) {
				uint64_t rounds = (256ull << 20) / bytes, began = bench_now();
				for (uint64_t r = 0; r < rounds; r++)
					place_message(tensor, bytes, k & 1);
				double v = (double)(rounds * bytes) / (double)(bench_now() - began);
				best[k & 1] = v > best[k & 1] ? v : best[k & 1];
			}
			printf("%5u B frames into %2llu MiB: copied %5.2f GB/s, posted %5.2f (%.2f)\n", sizes[i],
			       (unsigned long long)tensor_bytes >> 20, best[0], best[1], best[1] / best[0]);
			free(tensor);
		}
}

int main(int argc, char **argv)
{
	static char *defaults[] = {"udp?engine=plain", "udp?engine=uring"};
	static struct bench_rival rivals[RIVALS_MAX] = {{.name = "bare"}};
	if (argc > 1 && !strcmp(argv[1], "place")) {
		place_all();
		return 0;
	}
	int repeats = argc > 1 ? atoi(argv[1]) : 5;
	char **names = argc > 2 ? argv + 2 : defaults, error[256];
	size_t n = 1, links = argc > 2 ? (size_t)argc - 2 : 2;

	for (size_t i = 0; i < links && n < RIVALS_MAX; i++) {
		char scheme[32];
		snprintf(scheme, sizeof(scheme), "%.*s", (int)strcspn(names[i], "?"), names[i]);
		if (link_find(scheme, &rivals[n].ops, error, sizeof(error)))
			bench_die("link", error);
		rivals[n].options = strchr(names[i], '?') ? strchr(names[i], '?') + 1 : "";
		snprintf(rivals[n++].name, sizeof(rivals[0].name), "%s", names[i]);
	}
	for (int i = 0; i < repeats; i++)
		for (size_t k = 0; k < n; k++)
			bench_rival(&rivals[k]);
	bench_print(rivals, n);
	return 0;
}
