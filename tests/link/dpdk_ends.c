/* The ends of dpdk_ends.h. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "dpdk_ends.h"

enum { PORT = 7400, SEGS_MAX = 6, WARM = 1000, CLOCK_S = 5, ROOM = 9000 + 256, GUARD = 0xa5 };

const struct link_ops *ops;
struct link *ends[3]; /* 0 and 1 at a port each, 2 at the port of 1 */
struct link_path *to[2][2]; /* of end 0, to 1 and 2, by IPv4 and IPv6 */
uint8_t memory[ENDS_MEMORY];
struct frame frames[ENDS_FRAMES], *list[ENDS_FRAMES];
char ends_said[1 << 16];
static bool is_back[ENDS_FRAMES];
static uint8_t rooms[ENDS_FRAMES][ROOM];

static void note(void *arg, int level, const char *file, int line, const char *text)
{
	(void)arg, (void)level, (void)file, (void)line;
	size_t used = strlen(ends_said);
	snprintf(ends_said + used, sizeof(ends_said) - used, "%s\n", text);
}

struct link *ends_try(unsigned i, unsigned port, const char *more, char error[512])
{
	char text[256];
	struct link *l = NULL;
	struct link_config c = {.options = text, .listening = true, .port = (uint16_t)(PORT + i), .now_ns = model_now_ns(), .log = note,
		.error = error, .error_bytes = 512};
	*error = 0;
	if (i >= 2)
		snprintf(text, sizeof(text), "dev=net_null%u&twin=0", port);
	else
		snprintf(text, sizeof(text), "dev=net_null%u&twin=0&ip=10.99.0.%u/24&ip6=fd00:99::%u/64&%s", port, i + 1, i + 1, more);
	ops->open(&c, &l);
	return l;
}

static struct link *open_end(unsigned i, unsigned port, unsigned mtu)
{
	char more[64], error[512];
	snprintf(more, sizeof(more), "mtu=%u", mtu);
	struct link *l = ends_try(i, port, more, error);
	if (!l)
		printf("link %u: %s\n", i, error);
	MUST(l);
	return l;
}

static struct link_path *path_to(unsigned i, bool is_ip6)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)(PORT + i))};
	struct sockaddr_in6 b = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)(PORT + i))};
	struct link_path_config c = {.remote.bytes = is_ip6 ? sizeof(b) : sizeof(a)};
	struct link_path *p;
	inet_pton(AF_INET, "10.99.0.2", &a.sin_addr);
	inet_pton(AF_INET6, "fd00:99::2", &b.sin6_addr);
	memcpy(c.remote.data, is_ip6 ? (const void *)&b : (const void *)&a, c.remote.bytes);
	MUST(!ops->path_open(ends[0], &c, &p));
	return p;
}

/* As the engine makes sealed frames: in one piece, with space before it for the link's headers, now and then one byte too few. */
static void in_room(unsigned i, const uint8_t *from)
{
	struct frame *f = &frames[i];
	uint32_t front = f->path->front_bytes;
	f->front_bytes = (uint8_t)(front && !rand_below(8) ? front - 1 : front);
	f->room = rooms[i] + 64 + front;
	memset(rooms[i], GUARD, ROOM);
	memcpy(f->room, from, f->wire_bytes);
	f->segs = 1;
	f->seg[0] = (struct frame_seg){.addr = f->room, .bytes = f->wire_bytes, .mem = 1};
}

/* Nothing was written around a room and what lies before it. */
static void room_guarded(unsigned i)
{
	const struct frame *f = &frames[i];
	for (const uint8_t *p = rooms[i]; f->room && p < rooms[i] + ROOM; p++)
		MUST(*p == GUARD || (p >= f->room - f->front_bytes && p < f->room + f->wire_bytes));
}

struct frame *ends_frame(unsigned i, struct link_path *path, uint32_t bytes, size_t at)
{
	struct frame *f = &frames[i];
	uint32_t left = bytes, head = bytes > 32 && rand_below(4) ? 32 : 0;
	*f = (struct frame){.path = path, .wire_bytes = bytes};
	list[i] = f;
	if (!rand_below(4)) {
		in_room(i, memory + at);
		left = head = 0;
	}
	if (head) {
		memcpy(f->head, memory + at, head);
		f->seg[f->segs++] = (struct frame_seg){.addr = f->head, .bytes = head};
		left -= head;
		at += head;
	}
	while (left) {
		uint32_t part = f->segs + 1 == SEGS_MAX || rand_below(3) ? left : 1 + (uint32_t)rand_below(left);
		f->seg[f->segs++] = (struct frame_seg){.addr = memory + at, .bytes = part, .mem = 1};
		left -= part;
		at += part;
	}
	if (!rand_below(16))
		f->seg[f->segs - 1].mem = 0; /* the device cannot read it */
	return f;
}

void ends_reap(size_t n)
{
	struct frame *back[ENDS_FRAMES];
	size_t got = 0, k;
	memset(is_back, 0, sizeof(is_back));
	while ((k = ops->reap(ends[0], back, ENDS_FRAMES, model_now_ns()))) {
		for (size_t i = 0; i < k; i++) {
			MUST(back[i] >= frames && back[i] < frames + n && !is_back[back[i] - frames]);
			is_back[back[i] - frames] = true;
			room_guarded((unsigned)(back[i] - frames));
		}
		got += k;
	}
	MUST(got == n);
}

void ends_send(size_t from, size_t n)
{
	size_t taken = 0;
	for (int i = 0; i < 100 && taken < n; i++)
		taken += ops->tx(ends[0], list + from + taken, n - taken, model_now_ns());
	MUST(taken == n);
}

size_t ends_look(unsigned i, struct rx_frame *in, size_t n)
{
	return ops->rx(ends[i], in, n, model_now_ns());
}

void ends_expect(unsigned i, const uint8_t *bytes, size_t n)
{
	struct rx_frame in;
	MUST(ends_look(i, &in, 1) == 1);
	MUST(in.head_bytes == n && !in.body_bytes && !memcmp(in.head, bytes, n));
	ops->rx_free(ends[i], &in, 1);
}

/* One byte by a path. @param told  gets the time of arrival */
static void pass(struct link_path *path, unsigned i, unsigned n_ends, uint64_t *told)
{
	static uint8_t first[1];
	struct rx_frame in[ENDS_FRAMES];
	size_t got = 0;
	frames[0] = (struct frame){.path = path, .segs = 1, .wire_bytes = 1, .seg[0] = {.addr = first, .bytes = 1}, .depart_ns = model_now_ns()};
	list[0] = &frames[0];
	ends_send(0, 1);
	for (int k = 0; k < WARM && !got; k++)
		for (unsigned e = 0; e < n_ends; e++) {
			size_t n = ends_look(e, in, ENDS_FRAMES);
			MUST(!n || e == i);
			*told = n ? in[0].time_ns : 0;
			ops->rx_free(ends[e], in, n);
			got += n;
			if (n)
				break;
		}
	MUST(got == 1);
	ends_reap(1);
}

/* The devices' clocks are known some time after their ports are open. */
static void clocks(unsigned n_ends)
{
	uint64_t until = model_now_ns() + CLOCK_S * 1000000000ull, told = 0;
	bool wants_told = model[1].rx_asked & RTE_ETH_RX_OFFLOAD_TIMESTAMP, has_stamp = false;
	bool wants_stamp = model[0].tx_asked & RTE_ETH_TX_OFFLOAD_SEND_ON_TIMESTAMP;
	for (unsigned i = 1; i < n_ends; i++)
		do {
			model_logged = 0;
			pass(to[i - 1][0], i, n_ends, &told);
			has_stamp = model_log[0].has_stamp;
			MUST(model_now_ns() < until);
		} while ((wants_told && !told) || (wants_stamp && !has_stamp));
}

void ends_open(unsigned mtu, unsigned n_ends)
{
	uint64_t told;
	*ends_said = 0;
	for (unsigned i = 0; i < n_ends; i++) {
		ends[i] = open_end(i, i > 0, mtu);
		if (i < 2)
			model_attach(i);
	}
	for (unsigned i = 1; i < n_ends; i++)
		for (unsigned six = 0; six < 2; six++) {
			to[i - 1][six] = path_to(i, six);
			pass(to[i - 1][six], i, n_ends, &told);
		}
	clocks(n_ends);
	model_logged = 0;
}

void ends_close(void)
{
	for (int i = 2; i >= 0; i--)
		if (ends[i])
			ops->close(&ends[i]);
}

int ends_start(uint64_t *seed)
{
	char error[512];
	const char *text = getenv("TERN_SEED");

	*seed = text ? strtoull(text, NULL, 0) : model_now_ns();
	setbuf(stdout, NULL);
	alarm(100);
	printf("TERN_SEED=%llu\n", (unsigned long long)*seed);
	rand_start(*seed);
	for (size_t i = 0; i < ENDS_MEMORY; i++)
		memory[i] = (uint8_t)(rand_next() >> 32);
	setenv("TERN_DPDK_EAL", "--no-huge -m 512 --no-pci", 0);
	if (!link_find("dpdk", &ops, error, sizeof(error)))
		return 0;
	printf("skip: %s\n", error);
	return 77;
}

void ends_capable(struct model *m)
{
	m->driver = "net_igc";
	m->tx_capa = RTE_ETH_TX_OFFLOAD_MULTI_SEGS | RTE_ETH_TX_OFFLOAD_UDP_CKSUM | RTE_ETH_TX_OFFLOAD_IPV4_CKSUM | RTE_ETH_TX_OFFLOAD_UDP_TSO;
	m->nb_seg_max = 255;
}
