/* What a frame costs the dpdk link beside its bare driver: both ends of a virtual device in one thread of one process, so that nothing but our own work is
 * in it: no second core, no engine. The bare side sends and receives as many whole mbufs of the same size. Run by perf/versus/dpdk.sh for cycles; under
 * callgrind by dpdk.sh beside this file for instructions.
 *   dpdk-frame memif|vhost|virtio PAYLOAD_BYTES FRAMES [CORE]
 * prints the cycles (time stamp counter) of sending and of receiving a frame; the lowest of some rounds: whatever else runs only adds. vhost: the vhost side
 * sends, virtio: the virtio-user side; both want hugepages. */
#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "link/link.h"

enum { HEAD = 32, LAYERS = 42, PAYLOAD_MAX = 8900, BURST_BYTES = 65536, BURST_MAX = 46, ROUNDS = 8, RING = 1024, MBUFS = 4096, SPREAD = 64 };
enum { RECEIVER, SENDER, DEVICE_BYTES = 256, SETTLE_US = 100000, TRIES = 1000 };
#define UP_NS 20000000000u /* under callgrind all of it is slow */

/* One end: a link's, or a port of the bare driver. */
struct end {
	struct link *link;
	struct link_path *path;
	uint16_t port;
	struct rte_mempool *pool;
	struct frame frames[BURST_MAX];
};

static const struct link_ops *ops;
static struct end end[2];
static uint8_t *memory;
static uint32_t payload, burst;
static char place[64];

static void die(const char *what, const char *why)
{
	fprintf(stderr, "dpdk-frame: %s: %s\n", what, why);
	exit(1);
}

static uint64_t clock_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* The device of an end; a second set of them is the bare driver's. */
static void device(const char *kind, unsigned set, int i, char out[DEVICE_BYTES])
{
	if (!strcmp(kind, "memif"))
		snprintf(out, DEVICE_BYTES, "net_memif%u,socket-abstract=no,socket=%s/%u,bsize=9216,role=%s", set * 2 + (unsigned)i, place, set,
		         i ? "client" : "server");
	else if (!strcmp(kind, "vhost") == (i == SENDER))
		snprintf(out, DEVICE_BYTES, "net_vhost%u,iface=%s/%u", set, place, set);
	else
		snprintf(out, DEVICE_BYTES, "net_virtio_user%u,path=%s/%u,queue_size=%d", set, place, set, RING);
}

/* Whose socket the other end connects to. */
static int listener(const char *kind)
{
	return strcmp(kind, "vhost") ? RECEIVER : SENDER;
}

/* ---- the link */

static void link_open(int i, const char *dev)
{
	char options[400], error[512] = "";
	snprintf(options, sizeof(options), "dev=%s&ip=10.9.0.%d/24&twin=0&mtu=%u", dev, i + 1, payload + HEAD + LAYERS);
	struct link_config config = {.listening = true, .port = 7400, .options = options, .now_ns = clock_ns()};
	config.error = error;
	config.error_bytes = sizeof(error);
	if (ops->open(&config, &end[i].link))
		die(dev, error);
}

static void link_frames(void)
{
	for (uint32_t i = 0; i < burst; i++) {
		struct frame *f = &end[SENDER].frames[i];
		*f = (struct frame){.path = end[SENDER].path, .segs = 2, .wire_bytes = HEAD + payload, .payload_bytes = payload};
		f->seg[0] = (struct frame_seg){.addr = f->head, .bytes = HEAD};
		f->seg[1] = (struct frame_seg){.addr = memory + (size_t)i * payload, .bytes = payload};
	}
}

static uint32_t link_take(uint64_t now_ns)
{
	struct rx_frame in[SPREAD];
	size_t n = ops->rx(end[RECEIVER].link, in, SPREAD, now_ns);
	if (n)
		ops->rx_free(end[RECEIVER].link, in, n);
	return (uint32_t)n;
}

/* The neighbour went stale: the sender asks again, the receiver answers. */
static void link_ask(uint32_t try)
{
	struct rx_frame in[SPREAD];
	if (try > TRIES)
		die("tx", "takes nothing");
	for (int i = 0; i < 2; i++)
		ops->rx_free(end[i].link, in, ops->rx(end[i].link, in, i == SENDER ? SPREAD : 0, clock_ns()));
}

/* These four are what callgrind counts, by name. */
__attribute__((noinline)) void link_tx(uint64_t now_ns)
{
	struct frame *list[BURST_MAX], *back[BURST_MAX];
	size_t taken = 0;
	for (uint32_t i = 0; i < burst; i++)
		list[i] = &end[SENDER].frames[i];
	for (uint32_t try = 0; taken < burst; try++) {
		taken += ops->tx(end[SENDER].link, list + taken, burst - taken, now_ns);
		if (taken < burst)
			link_ask(try);
	}
	for (size_t n = 0; n < burst;)
		n += ops->reap(end[SENDER].link, back, burst - n, now_ns);
}

__attribute__((noinline)) void link_rx(uint64_t now_ns)
{
	for (uint32_t got = 0; got < burst;)
		got += link_take(now_ns);
}

/* ---- the bare driver */

static void bare_open(int i, const char *dev)
{
	struct rte_eth_conf conf = {0};
	char name[RTE_ETH_NAME_MAX_LEN], pool[32];
	uint16_t ring = RING, ring_tx = RING;

	snprintf(name, sizeof(name), "%.*s", (int)strcspn(dev, ","), dev);
	snprintf(pool, sizeof(pool), "bare_%d", i);
	if (rte_eth_dev_get_port_by_name(name, &end[i].port) && (rte_dev_probe(dev) || rte_eth_dev_get_port_by_name(name, &end[i].port)))
		die(dev, "no such port");
	end[i].pool = rte_pktmbuf_pool_create(pool, MBUFS, 256, 0, (uint16_t)((RTE_PKTMBUF_HEADROOM + LAYERS + HEAD + payload + 512) & ~127u),
	                                      (int)rte_socket_id());
	if (!end[i].pool)
		die("mbufs", rte_strerror(rte_errno));
	if (rte_eth_dev_configure(end[i].port, 1, 1, &conf) || rte_eth_dev_adjust_nb_rx_tx_desc(end[i].port, &ring, &ring_tx) ||
	    rte_eth_rx_queue_setup(end[i].port, 0, ring, (unsigned)rte_socket_id(), NULL, end[i].pool) ||
	    rte_eth_tx_queue_setup(end[i].port, 0, ring_tx, (unsigned)rte_socket_id(), NULL) || rte_eth_dev_start(end[i].port))
		die(dev, "does not start");
}

static bool bare_is_up(void)
{
	struct rte_eth_link a = {0}, b = {0};
	rte_eth_link_get_nowait(end[RECEIVER].port, &a);
	rte_eth_link_get_nowait(end[SENDER].port, &b);
	return a.link_status && b.link_status;
}

__attribute__((noinline)) void bare_tx(void)
{
	struct rte_mbuf *m[BURST_MAX];
	if (rte_pktmbuf_alloc_bulk(end[SENDER].pool, m, burst))
		die("mbufs", "none left");
	for (uint32_t i = 0; i < burst; i++)
		m[i]->data_len = (uint16_t)(m[i]->pkt_len = LAYERS + HEAD + payload);
	for (uint32_t sent = 0; sent < burst;)
		sent += rte_eth_tx_burst(end[SENDER].port, 0, m + sent, (uint16_t)(burst - sent));
}

__attribute__((noinline)) void bare_rx(void)
{
	struct rte_mbuf *m[SPREAD];
	for (uint32_t got = 0; got < burst;) {
		uint16_t n = rte_eth_rx_burst(end[RECEIVER].port, 0, m, SPREAD);
		for (uint16_t i = 0; i < n; i++)
			rte_pktmbuf_free(m[i]);
		got += n;
	}
}

static void tidy(void)
{
	char path[sizeof(place) + 4];
	for (int set = 0; set < 2; set++) {
		snprintf(path, sizeof(path), "%s/%d", place, set);
		unlink(path);
	}
	rmdir(place);
}

/* ---- both */

static void turn(bool is_link, uint64_t cycles[2])
{
	uint64_t now = is_link ? clock_ns() : 0, a = rte_rdtsc();
	if (is_link)
		link_tx(now);
	else
		bare_tx();
	uint64_t b = rte_rdtsc();
	if (is_link)
		link_rx(now);
	else
		bare_rx();
	uint64_t c = rte_rdtsc();
	cycles[0] += b - a;
	cycles[1] += c - b;
}

static void measure(const char *kind, bool is_link, uint64_t frames)
{
	double best[2] = {0}, each;
	uint64_t turns = frames / ROUNDS / burst + 1;

	for (int round = 0; round < ROUNDS; round++) {
		uint64_t cycles[2] = {0};
		for (uint64_t t = 0; t < turns; t++)
			turn(is_link, cycles);
		for (int i = 0; i < 2; i++) {
			each = (double)cycles[i] / (double)(turns * burst);
			best[i] = !round || each < best[i] ? each : best[i];
		}
	}
	printf("%s %s %u: tx %.0f rx %.0f cycles a frame, %llu frames\n", is_link ? "link" : "bare", kind, payload, best[0], best[1],
	       (unsigned long long)(ROUNDS * turns * burst));
}

/* The neighbour is asked, the answer comes, then frames pass. */
static void link_first(const char *kind)
{
	struct frame *first = &end[SENDER].frames[0], *back;
	struct rx_frame in[SPREAD];
	uint64_t now = clock_ns(), until = now + UP_NS;
	bool sent = false;

	for (uint32_t got = 0, reaped = 0; !got || !reaped; now = clock_ns()) {
		if (now > until)
			die(kind, "the first frame does not arrive");
		sent = sent || ops->tx(end[SENDER].link, &first, 1, now);
		got += link_take(now);
		reaped += ops->reap(end[SENDER].link, &back, 1, now);
		ops->rx_free(end[SENDER].link, in, ops->rx(end[SENDER].link, in, SPREAD, now));
		usleep(100); /* DPDK's own thread is to connect the two */
	}
}

static void link_start(const char *kind)
{
	char dev[DEVICE_BYTES];
	for (int k = 0, i = listener(kind); k < 2; k++, i = !i) {
		device(kind, 0, i, dev);
		link_open(i, dev);
	}
	for (int i = 0; i < 2; i++) {
		struct link_path_config to = {.remote = end[!i].link->local};
		if (ops->path_open(end[i].link, &to, &end[i].path))
			die(kind, end[i].link->trouble);
	}
	link_frames();
	link_first(kind);
}

static void bare_start(const char *kind)
{
	char dev[DEVICE_BYTES];
	for (int k = 0, i = listener(kind); k < 2; k++, i = !i) {
		device(kind, 1, i, dev);
		bare_open(i, dev);
	}
	for (uint64_t until = clock_ns() + UP_NS; !bare_is_up(); usleep(100))
		if (clock_ns() > until)
			die(kind, "the bare ports do not come up");
	usleep(SETTLE_US); /* vhost says that it is up before its queues are */
}

static void environment(const char *kind, const char *core)
{
	bool huge = !strcmp(kind, "vhost") || !strcmp(kind, "virtio");
	char *args[] = {"dpdk-frame", "-l", (char *)(uintptr_t)core, "--no-pci", "--no-telemetry", "--no-shconf", "-m", "320",
	                huge ? "--in-memory" : "--no-huge", huge ? "--single-file-segments" : NULL, NULL};
	rte_log_set_global_level(RTE_LOG_ERR);
	if (rte_eal_init(huge ? 10 : 9, args) < 0)
		die("EAL", rte_strerror(rte_errno));
}

int main(int argc, char **argv)
{
	char error[256];
	uint64_t frames = argc > 3 ? strtoull(argv[3], NULL, 0) : 0;

	payload = argc > 3 ? (uint32_t)strtoul(argv[2], NULL, 0) : 0;
	if (argc < 4 || !payload || payload > PAYLOAD_MAX || !frames || !strstr(" memif vhost virtio ", argv[1])) {
		fprintf(stderr, "usage: %s memif|vhost|virtio PAYLOAD_BYTES FRAMES [CORE]; at most %d bytes\n", argv[0], PAYLOAD_MAX);
		return 2;
	}
	burst = BURST_BYTES / (payload + HEAD + LAYERS);
	burst = burst < BURST_MAX ? burst : BURST_MAX;
	memory = calloc(burst, payload);
	snprintf(place, sizeof(place), "/tmp/dpdk-frame.XXXXXX");
	if (!memory || !mkdtemp(place))
		die(place, "cannot be made");
	atexit(tidy);
	memset(memory, 1, (size_t)burst * payload);
	environment(argv[1], argc > 4 ? argv[4] : "0");
	if (link_find("dpdk", &ops, error, sizeof(error)))
		die("the module, see TERN_MODULES", error);
	link_start(argv[1]);
	measure(argv[1], true, frames);
	for (int i = 0; i < 2; i++)
		ops->close(&end[i].link);
	bare_start(argv[1]);
	measure(argv[1], false, frames);
	fflush(stdout);
	_exit(0); /* drivers in pairs in one process do not all end well, and nothing is left to end */
}
