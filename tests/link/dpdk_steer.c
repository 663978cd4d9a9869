/* Links of one port with a receive queue each, at the NICs of dpdk_model.h, whose driver takes rules: what comes by which queue, who is woken, what becomes of a
 * queue whose reader changes. The kernel's rules are in tests/interop/dpdk_queues.c; here no tap is needed, and frames come exactly when they are to. */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <rte_dev.h>
#include "dpdk_ends.h"

enum { BYTES = 500, MTU = 4200, QUEUES = 4, STEADY = 500 };

#define SPLITS (RTE_ETH_RX_OFFLOAD_BUFFER_SPLIT | RTE_ETH_RX_OFFLOAD_SCATTER)

static struct model_datagram sent[2]; /* to end 1, which has the common queue, and to end 2, which has one of its own */

/* The same datagram may come as often as it is wanted. */
static void catch(unsigned which, struct link_path *path)
{
	model_logged = 0;
	model[0].is_lost = true;
	ends_frame(0, path, BYTES, 0);
	ends_send(0, 1);
	ends_reap(1);
	model[0].is_lost = false;
	MUST(model_logged == 1);
	sent[which] = model_log[0];
}

static void capable(void)
{
	memset(model, 0, sizeof(model));
	for (int i = 0; i < 2; i++) {
		ends_capable(&model[i]);
		model[i].driver = "mlx5_pci";
	}
	model[1].takes_rules = true;
}

static void several_open(void)
{
	capable();
	ends_open(1500, 3);
	MUST(strstr(ends_said, "link 1 has receive queue 1 of its own"));
	for (unsigned which = 0; which < 2; which++)
		catch(which, to[which][0]);
}

/* ---- asleep: a frame comes by one queue while the other is armed */

static uint16_t when_armed, comes_by;

static void comes(uint16_t queue)
{
	if (queue == when_armed)
		model_deliver(&model[1], sent[comes_by].bytes, sent[comes_by].n);
}

static void wakes(void)
{
	struct link_wait w;
	struct rx_frame in;
	several_open();
	for (int round = 0; round < ENDS_ROUNDS; round++) {
		ops->wait(ends[1], true, &w); /* nobody else is awake: both queues are armed */
		when_armed = (uint16_t)rand_below(2);
		comes_by = (uint16_t)rand_below(2);
		model[1].armed = comes;
		ops->wait(ends[2], true, &w);
		model[1].armed = NULL;
		struct pollfd fd = {.fd = w.fd, .events = POLLIN};
		MUST(w.deadline_ns <= model_now_ns() || poll(&fd, 1, 0) == 1);
		ends_look(2, &in, comes_by);
		ends_look(1, &in, 0);
		if (comes_by)
			ops->rx_free(ends[2], &in, 1);
		else
			ends_expect(1, memory, BYTES);
	}
	ends_close();
}

/* What is handed over never ends: the link's own queue has its turn all the same. */
static void turns(void)
{
	static struct rx_frame in[ENDS_FRAMES];
	static const uint8_t arp[60] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 7, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 7, 10, 99,
		0, 7, 0, 0, 0, 0, 0, 0, 10, 99, 0, 8};
	several_open();
	for (int round = 0; round < ENDS_ROUNDS / 4; round++) {
		for (int i = 0; i < STEADY; i++)
			model_deliver(&model[1], arp, sizeof(arp));
		while (model[1].n_in[0])
			ends_look(1, in, 0);
		model_deliver(&model[1], sent[1].bytes, sent[1].n);
		MUST(model[1].n_in[1] == 1);
		ends_expect(2, memory, BYTES); /* by one call, which looks less often than that lasts */
		while (ends_look(2, in, ENDS_FRAMES))
			MUST(false);
	}
	ends_close();
}

/* Frames for the last reader of a queue are none for the next one. */
static void reader_changes(void)
{
	struct rx_frame in;
	char error[512];
	several_open();
	for (int i = 0; i < STEADY; i++)
		model_deliver(&model[1], sent[1].bytes, sent[1].n);
	MUST(model[1].n_in[1] == STEADY);
	unsigned before = rte_mempool_avail_count(model[1].pool[0]);
	ops->close(&ends[2]);
	ends[2] = ends_try(2, 1, "", error);
	MUST(ends[2] && !ends_look(2, &in, 1) && !model[1].n_in[1]);
	MUST(rte_mempool_avail_count(model[1].pool[0]) >= before + STEADY);
	model_deliver(&model[1], sent[1].bytes, sent[1].n);
	ends_expect(2, memory, BYTES);
	ends_close();
}

/* ---- a driver that refuses what it has offered: all the rest stays, and frames come */

static void refuses(bool split, bool offloads, int queues, bool rules)
{
	capable();
	model[1].rx_capa = SPLITS | RTE_ETH_RX_OFFLOAD_TIMESTAMP;
	model[1].refuses_split = split;
	model[1].refuses_offloads = offloads ? -ENOTSUP : 0;
	model[1].refuses_queues = queues;
	model[1].refuses_rules = rules;
	ends_open(MTU, 3);
	printf("%s%s%s%u tries\n", split ? "split, " : "", offloads ? "offloads, " : "", queues || rules ? "queues, " : "", model[1].tries);
	MUST(!(model[1].rx_asked & RTE_ETH_RX_OFFLOAD_TIMESTAMP) == offloads);
	MUST(!model[1].split_bytes == (split || offloads));
	MUST(model[1].rx_queues == (queues || rules ? 1 : QUEUES));
	MUST(!strstr(ends_said, "link 1 has receive queue 1 of its own") == (queues || rules));
	MUST(!(queues == -ENOMEM) == !strstr(ends_said, "there is no memory for more"));
	MUST(!(queues && queues != -ENOMEM) == !strstr(ends_said, "software: with more it does not start"));
	MUST(!(rules && !queues) == !strstr(ends_said, "its driver refuses rules by UDP port (not this one)"));
	MUST(!strstr(ends_said, "tried again with") == !(split || offloads || queues));
	for (unsigned which = 0; which < 2; which++) {
		ends_frame(0, to[which][0], MTU / 2, 0);
		ends_send(0, 1);
		ends_reap(1);
		struct rx_frame in;
		ends_look(!which + 1, &in, 0);
		ends_expect(which + 1, memory, MTU / 2);
	}
	ends_close();
}

static void refusals(void)
{
	static const int queues[] = {0, -EINVAL, -ENOMEM};
	for (unsigned i = 0; i < 8; i++)
		for (unsigned k = 0; k < 3; k++)
			refuses(i & 1, i & 2, queues[k], i & 4);
}

/* What a driver said when it refused something is not given as the reason of another port's failure. */
static void words(void)
{
	char error[512];
	capable();
	model[1].rx_capa = SPLITS;
	model[1].refuses_split = model[1].refuses_rules = true;
	ends[1] = ends_try(1, 1, "mtu=9000", error);
	MUST(ends[1] && !rte_eal_hotplug_add("vdev", "net_null0", ""));
	model[0].refuses_all = -EIO;
	MUST(!ends_try(0, 0, "mtu=9000", error));
	printf("%s\n", error);
	MUST(strstr(error, "does not take its configuration") && !strstr(error, "the model refuses"));
	MUST(!rte_eal_hotplug_remove("vdev", "net_null0"));
	ends_close();
}

/* There is memory for the packets of one queue, but not for those of four. */
static void memory_short(void)
{
	char error[512];
	capable();
	model[1].rx_capa = SPLITS;
	model_mbufs_most = 17000;
	ends_open(MTU, 3);
	MUST(model[1].rx_queues == 1 && model[1].split_bytes && strstr(ends_said, "there is no memory for more"));
	ends_close();
	model_mbufs_most = 16000;
	MUST(!ends_try(1, 1, "mtu=9000", error));
	printf("%s\n", error);
	MUST(strstr(error, "no memory for 16640 packets") && strstr(error, "a smaller mtu="));
	model_mbufs_most = 0;
}

/* Drivers of which it is not known that they leave on queue 0 what no rule is for (cxgbe spreads it) get one. */
static void drivers(void)
{
	static const struct {
		const char *name;
		bool several;
	} cases[] = {{"mlx5_auxiliary", true}, {"net_i40e", true}, {"net_iavf", true}, {"net_ice", true}, {"net_sfc_efx", true}, {"net_bnxt", true},
		{"net_hns3", true}, {"net_cxgbe", false}, {"net_cn10k", false}, {"net_new", false}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		capable();
		model[1].driver = cases[i].name;
		ends_open(1500, 3);
		MUST(model[1].rx_queues == (cases[i].several ? QUEUES : 1));
		MUST(cases[i].several || strstr(ends_said, "not known to keep to queue 0 what no rule is for"));
		ends_close();
	}
}

/* One queue more than the first link's is asked for, and two links come. And: many are asked for where there is one. */
static void told(void)
{
	char error[512];
	struct link *third;
	capable();
	*ends_said = 0;
	ends[1] = ends_try(1, 1, "queues=2", error);
	ends[2] = ends_try(2, 1, "", error);
	MUST(ends[1] && ends[2] && strstr(ends_said, "link 1 has receive queue 1 of its own") && !strstr(ends_said, "shares receive queue 0"));
	MUST(!strstr(ends_said, "queues=2: it gets"));
	third = ends_try(3, 1, "", error);
	MUST(third && strstr(ends_said, "link 2 shares receive queue 0: the 1 others are taken"));
	ops->close(&third);
	ends_close();
	model[1].driver = "net_new";
	ends[1] = ends_try(1, 1, "queues=8", error);
	MUST(ends[1] && strstr(ends_said, "queues=8: it gets 1: its driver is not known to keep"));
	ends_close();
	model[1].driver = "mlx5_pci";
	model[1].refuses_rules = true;
	ends[1] = ends_try(1, 1, "queues=8", error);
	MUST(ends[1] && strstr(ends_said, "queues=8: it gets 1: its driver refuses rules"));
	ends_close();
}

int main(void)
{
	uint64_t seed;
	int err = ends_start(&seed);
	if (err)
		return err;
	rand_start(seed);
	wakes();
	turns();
	reader_changes();
	drivers();
	told();
	words();
	refusals();
	memory_short();
	printf("as it should be\n");
	return 0;
}
