/* A program that uses DPDK itself: it has started the EAL, has a log and ports of its own, and opens tern contexts on one of them, again and again. Afterwards everything
 * is its own as before. Both ends of a memif in this process. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <rte_bus_vdev.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_log.h>
#include "inter.h"

enum { ROUNDS = 6, BIG = 1 << 20, PORT = 7411, BURST = 32 };

static struct rte_mempool *host_pool;
static FILE *host_log;
static char *host_said;
static size_t host_said_bytes;

static const char *socket_path(void)
{
	static char path[64];
	snprintf(path, sizeof(path), "/tmp/tern-host-%d.sock", (int)getpid());
	return path;
}

/* The host's own use of a port: frames out, and back where the device makes them. */
static void host_uses(uint16_t id)
{
	struct rte_mbuf *m[BURST];
	CHECK_EQ(rte_pktmbuf_alloc_bulk(host_pool, m, BURST), 0);
	for (int i = 0; i < BURST; i++)
		CHECK(rte_pktmbuf_append(m[i], 64));
	CHECK_EQ(rte_eth_tx_burst(id, 0, m, BURST), BURST);
	CHECK_EQ(rte_eth_rx_burst(id, 0, m, BURST), BURST);
	rte_pktmbuf_free_bulk(m, BURST);
}

static void host_starts(uint16_t id)
{
	struct rte_eth_conf conf = {0};
	CHECK_EQ(rte_eth_dev_configure(id, 1, 1, &conf), 0);
	CHECK_EQ(rte_eth_rx_queue_setup(id, 0, 512, SOCKET_ID_ANY, NULL, host_pool), 0);
	CHECK_EQ(rte_eth_tx_queue_setup(id, 0, 512, SOCKET_ID_ANY, NULL), 0);
	CHECK_EQ(rte_eth_dev_start(id), 0);
}

static uint16_t port_of(const char *name)
{
	uint16_t id = RTE_MAX_ETHPORTS;
	CHECK_EQ(rte_eth_dev_get_port_by_name(name, &id), 0);
	return id;
}

static void passes(struct inter_pair *p)
{
	static uint8_t out[BIG], in[BIG];
	for (int back = 0; back < 2; back++) {
		struct inter_node *from = back ? &p->b : &p->a, *to = back ? &p->a : &p->b;
		inter_fill(out, BIG, 7 + (uint64_t)back);
		tern_op r = inter_recv(to, back ? p->ab : p->ba, in, BIG, 1, 0), s = inter_send(from, back ? p->ba : p->ab, out, BIG, 1, 0);
		CHECK_EQ(inter_await(to, TERN_EV_RECV, r).status, 0);
		CHECK_EQ(inter_await(from, TERN_EV_SEND, s).status, 0);
		CHECK(inter_filled(in, BIG, 7 + (uint64_t)back));
	}
}

static void tern_over(const char *listens, const char *dials)
{
	static struct inter_pair p;
	char text[400];

	memset(&p, 0, sizeof(p));
	inter_open(&p.a, NULL);
	inter_open(&p.b, NULL);
	snprintf(text, sizeof(text), "dpdk://10.9.0.1:%d?ctl=127.0.0.1:%d&dev=%s", PORT, 20000 + (int)getpid() % 20000, listens);
	int err = tern_listen(p.b.ep, text);
	if (err)
		inter_fail(__FILE__, __LINE__, "tern_listen %s: %d %s", text, err, inter_detail(&p.b, 0));
	snprintf(text, sizeof(text), "dpdk://10.9.0.1:%d?ctl=127.0.0.1:%d&ip=10.9.0.2/24&dev=%s", PORT, 20000 + (int)getpid() % 20000, dials);
	err = tern_connect_text(p.a.ep, text, NULL, &p.ab);
	if (err)
		inter_fail(__FILE__, __LINE__, "tern_connect_text %s: %d %s", text, err, inter_detail(&p.a, 0));
	CHECK_EQ(inter_await(&p.a, TERN_EV_CONNECTED, 0).status, 0);
	p.ba = inter_await(&p.b, TERN_EV_CONNECTED, 0).peer;
	passes(&p);
	host_uses(port_of("net_null0"));
	inter_pair_close(&p);
}

/* Its port, which it has plugged in itself, is lent to a context and is its own afterwards: it starts it, unplugs it, plugs it in again. */
static void port_lent(void)
{
	char args[128], dials[256];
	int type = rte_log_register("pmd.net.memif"), level = rte_log_get_level((uint32_t)type);
	uint32_t global = rte_log_get_global_level();

	snprintf(args, sizeof(args), "role=server,socket-abstract=no,socket=%s", socket_path());
	snprintf(dials, sizeof(dials), "net_memif1,role=client,socket-abstract=no,socket=%s", socket_path());
	CHECK_EQ(rte_eal_hotplug_add("vdev", "net_memif0", args), 0);
	for (int i = 0; i < ROUNDS; i++) {
		tern_over("net_memif0", dials);
		uint16_t id = port_of("net_memif0"), other;
		CHECK(rte_eth_dev_get_port_by_name("net_memif1", &other) != 0); /* it made that one */
		CHECK(rte_log_get_stream() == host_log);
		CHECK_EQ(rte_log_get_level((uint32_t)type), level);
		CHECK_EQ(rte_log_get_global_level(), global);
		if (i % 2)
			continue;
		host_starts(id);
		CHECK_EQ(rte_eth_dev_stop(id), 0);
	}
	fflush(host_log);
	CHECK(!host_said || !strstr(host_said, "Received msg type")); /* what only the link wanted to hear */
	CHECK_EQ(rte_eal_hotplug_remove("vdev", "net_memif0"), 0);
	host_uses(port_of("net_null0"));
}

/* A port that the host uses, claimed or not, is not taken from it. */
static void port_used(void)
{
	static struct inter_node n;
	char text[200];

	inter_open(&n, NULL);
	snprintf(text, sizeof(text), "dpdk://10.9.0.1:%d?ctl=127.0.0.1:%d&dev=net_null0", PORT, 20000 + (int)getpid() % 20000);
	CHECK(tern_listen(n.ep, text) != 0);
	CHECK_SAYS(inter_detail(&n, 0), "port net_null0 is in use by another part of this process");
	*strstr(text, "&dev") = 0;
	CHECK(tern_listen(n.ep, text) != 0);
	CHECK_SAYS(inter_detail(&n, 0), "all 1 ports are in use");
	host_uses(port_of("net_null0"));
	inter_close(&n);
}

static const struct inter_case cases[] = {
	{"port_used", port_used},
	{"port_lent", port_lent},
};

int main(int argc, char **argv)
{
	char *eal[] = {"host", "--no-huge", "-m", "320", "--no-pci", "--no-shconf", "--no-telemetry", "--vdev=net_null0",
	        "--log-level=pmd.net.memif:notice", NULL};

	host_log = open_memstream(&host_said, &host_said_bytes);
	rte_openlog_stream(host_log);
	if (rte_eal_init(9, eal) < 0) {
		printf("skip: rte_eal_init is refused here\n");
		return 77;
	}
	host_pool = rte_pktmbuf_pool_create("host", 4095, 32, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	host_starts(port_of("net_null0"));
	int status = inter_main(argc, argv, "dpdk_host", cases, sizeof(cases) / sizeof(cases[0]));
	rte_eth_dev_stop(port_of("net_null0"));
	rte_eth_dev_close(port_of("net_null0"));
	if (rte_eal_cleanup())
		status = 1;
	return status;
}
