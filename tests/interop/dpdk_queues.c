/* Several links of one DPDK port, each with a receive queue of its own to which the port brings its UDP ports' datagrams: a tap port, whose rules are the kernel's
 * (tc flower), with plain udp contexts at the other side, in a namespace of our own. Where the kernel lacks it (`rules` as first argument: it must not; the guest's does
 * not), and where a driver knows no rules, one queue does for all and the log says why. Every byte is checked. */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "inter.h"

enum { BIG = 1 << 18, ROUNDS = 2, LINKS = 3, FEW = 64 };

/* One link under test and who talks to it. */
struct wire {
	struct inter_node port, kernel;
	tern_peer to, back;
};

static bool must_have_rules, has_rules;
static pthread_mutex_t said_lock = PTHREAD_MUTEX_INITIALIZER;
static char said[1 << 16]; /* by all contexts, since the case began */

static void note(void *arg, int level, const char *file, int line, const char *text)
{
	(void)arg, (void)level, (void)file, (void)line;
	if (!strstr(text, "dpdk port") && level > TERN_LOG_WARN)
		return;
	if (getenv("TERN_TEST_LOG"))
		printf("%s\n", text);
	pthread_mutex_lock(&said_lock);
	size_t used = strlen(said);
	snprintf(said + used, sizeof(said) - used, "%s\n", text);
	pthread_mutex_unlock(&said_lock);
}

static bool command(const char *text)
{
	char quiet[1024];
	snprintf(quiet, sizeof(quiet), "(%s) >/dev/null 2>&1", text);
	return system(quiet) == 0;
}

/* The rules that the kernel has: so many lines say this. */
static int rules_that(const char *device, const char *say)
{
	char text[256], line[64] = "";
	snprintf(text, sizeof(text), "tc filter show dev %s parent 1: 2>/dev/null | grep -Ec '%s'", device, say);
	FILE *f = popen(text, "r");
	CHECK(f && fgets(line, sizeof(line), f));
	pclose(f);
	return atoi(line);
}

static int rules_of(const char *device, uint16_t port)
{
	char text[32];
	snprintf(text, sizeof(text), "dst_port %u$", port);
	return rules_that(device, text);
}

static void node(struct inter_node *n, uint32_t flags)
{
	tern_config c = inter_config();
	c.flags = flags;
	c.log = note;
	inter_open(n, &c);
}

static void port_listen(struct inter_node *n, const char *options)
{
	char text[512];
	node(n, TERN_OWN_THREAD);
	n->port = inter_free_port();
	snprintf(text, sizeof(text), "dpdk://10.9.0.1:%u?ctl=127.0.0.1:%u&%s", n->port, n->port, options);
	int err = tern_listen(n->ep, text);
	if (err)
		inter_fail(__FILE__, __LINE__, "tern_listen %s: %d %s", text, err, inter_detail(n, 0));
}

/* The kernel's side of the tap: another station than the port. */
static void kernel_side(const char *device, const char *vlan)
{
	char text[512];
	snprintf(text, sizeof(text),
	        "ip link set %s address 02:00:00:00:09:99 && { [ -z '%s' ] || ip link add link %s name %s%s type vlan id 5; } && "
	        "ip addr add 10.9.0.2/24 dev %s%s && ip -6 addr add fd00:9::2/64 dev %s%s nodad && ip link set %s%s up",
	        device, vlan, device, device, vlan, device, vlan, device, vlan, device, vlan);
	CHECK(command(text));
}

static void join(struct wire *w, const char *host)
{
	char text[256];
	node(&w->kernel, TERN_OWN_THREAD);
	snprintf(text, sizeof(text), "udp://%s:%u?ctl=127.0.0.1:%u", host, w->port.port, w->port.port);
	w->to = inter_connect_text(&w->kernel, text);
	tern_event e = inter_await(&w->kernel, TERN_EV_CONNECTED, 0);
	if (e.status)
		inter_fail(__FILE__, __LINE__, "connecting: %d %s", e.status, inter_detail(&w->kernel, e.peer));
	w->back = inter_await(&w->port, TERN_EV_CONNECTED, 0).peer;
}

/* All of them at once, both ways, so often. */
static void pass(struct wire *const *w, size_t n, int rounds)
{
	static uint8_t out[LINKS][2][BIG], in[LINKS][2][BIG];
	static uint64_t tag;
	tern_op op[LINKS][4];

	for (int round = 0; round < rounds; round++) {
		tag++;
		memset(in, 0, sizeof(in));
		for (size_t i = 0; i < n; i++) {
			for (int d = 0; d < 2; d++)
				inter_fill(out[i][d], BIG, tag * LINKS * 2 + i * 2 + (uint64_t)d);
			op[i][0] = inter_recv(&w[i]->port, w[i]->back, in[i][0], BIG, tag, 0);
			op[i][1] = inter_recv(&w[i]->kernel, w[i]->to, in[i][1], BIG, tag, 0);
			op[i][2] = inter_send(&w[i]->kernel, w[i]->to, out[i][0], BIG, tag, 0);
			op[i][3] = inter_send(&w[i]->port, w[i]->back, out[i][1], BIG, tag, 0);
		}
		for (size_t i = 0; i < n; i++) {
			CHECK_EQ(inter_await(&w[i]->port, TERN_EV_RECV, op[i][0]).status, 0);
			CHECK_EQ(inter_await(&w[i]->kernel, TERN_EV_RECV, op[i][1]).status, 0);
			CHECK_EQ(inter_await(&w[i]->kernel, TERN_EV_SEND, op[i][2]).status, 0);
			CHECK_EQ(inter_await(&w[i]->port, TERN_EV_SEND, op[i][3]).status, 0);
			CHECK(inter_filled(in[i][0], BIG, tag * LINKS * 2 + i * 2) && inter_filled(in[i][1], BIG, tag * LINKS * 2 + i * 2 + 1));
		}
	}
}

/* What a link that was closed has said: frames by its own queue, frames read for it. */
static void counted(unsigned link, unsigned long long *own, unsigned long long *handed)
{
	char start[64];
	unsigned queue;
	*own = *handed = 0;
	snprintf(start, sizeof(start), ": link %u: ", link);
	const char *at = strstr(said, start);
	if (at && sscanf(at + strlen(start), "%llu frames by its own queue %u, %llu", own, &queue, handed) == 3)
		printf("\n    fact link %u: %llu frames by its own queue %u, %llu by others", link, *own, queue, *handed);
}

static void leave(struct wire *w)
{
	inter_close(&w->kernel);
	inter_close(&w->port);
}

/* @param more  options of the port @param vlan  ".5" or "" @param second  the address at which the second link is dialled */
static void steered_as(const char *device, const char *more, const char *vlan, const char *second)
{
	static struct wire w[LINKS];
	struct wire *const both[] = {&w[0], &w[1]}, *const all[] = {&w[0], &w[1], &w[2]}, *const rest[] = {&w[1], &w[2]};
	char text[256];
	unsigned long long own, handed;
	const unsigned long long least = ROUNDS * BIG / 1500;

	*said = 0;
	snprintf(text, sizeof(text), "dev=net_%s,iface=%s&ip=10.9.0.1/24&ip6=fd00:9::1/64&twin=0%s", device, device, more);
	port_listen(&w[0].port, text);
	kernel_side(device, vlan);
	join(&w[0], "10.9.0.1");
	snprintf(text, sizeof(text), "dev=net_%s", device);
	port_listen(&w[1].port, text);
	has_rules = strstr(said, "link 1 has receive queue 1 of its own");
	if (!has_rules)
		CHECK_SAYS(said, "one receive queue for all links, whose frames are told apart in software: its driver refuses rules");
	if (!has_rules && must_have_rules)
		inter_fail(__FILE__, __LINE__, "no rules here:\n%s", said);
	CHECK_EQ(rules_of(device, w[0].port.port), 0);
	CHECK_EQ(rules_of(device, w[1].port.port), has_rules ? 2 : 0); /* IPv4 and IPv6 */
	join(&w[1], second);
	pass(both, 2, ROUNDS);
	/* a third one comes under traffic, and the second goes: its rule goes with it, its queue is free again */
	port_listen(&w[2].port, text);
	join(&w[2], "10.9.0.1");
	pass(all, 3, ROUNDS);
	uint16_t gone = w[1].port.port;
	leave(&w[1]);
	counted(1, &own, &handed);
	CHECK(has_rules ? own >= least && handed < FEW : own == 0 && handed > 0);
	CHECK_EQ(rules_of(device, gone), 0);
	pass((struct wire *const[]){&w[0], &w[2]}, 2, 1);
	port_listen(&w[1].port, text);
	CHECK_EQ(rules_of(device, w[1].port.port), has_rules ? 2 : 0);
	join(&w[1], second);
	pass(all, 3, 1);
	/* nobody has the common queue for its own: neighbours are answered all the same */
	leave(&w[0]);
	snprintf(text, sizeof(text), "ip neigh flush dev %s%s", device, vlan);
	CHECK(command(text));
	pass(rest, 2, 1);
	usleep(300000); /* all asleep */
	pass(rest, 2, 1);
	leave(&w[1]);
	leave(&w[2]);
	counted(2, &own, &handed);
	CHECK(has_rules ? own >= least && handed < FEW : own == 0 && handed > 0);
	CHECK(!command(text)); /* the port is gone, and its interface */
}

static void steered(void)
{
	steered_as("tap0", "", "", "10.9.0.1");
}

static void steered_ip6(void)
{
	steered_as("tap1", "&queues=8", "", "[fd00:9::1]");
	CHECK_SAYS(said, has_rules ? "queues=8: it gets 4: as many as it takes" : "queues=8: it gets 1: its driver refuses rules");
}

static void steered_vlan(void)
{
	if (access("/proc/net/vlan", F_OK)) {
		printf("\n    SKIP: no VLAN devices in this kernel\n");
		return;
	}
	steered_as("tap2", "&vlan=5", ".5", "10.9.0.1");
}

/* A link that dials, by two paths: each has a UDP port of its own, and a rule for each IP version. */
static void steered_paths(void)
{
	static struct wire w;
	static struct inter_node first;
	struct wire *const one[] = {&w};
	char text[256];
	unsigned long long own, handed;

	*said = 0;
	port_listen(&first, "dev=net_tap4,iface=tap4&ip=10.9.0.1/24&ip6=fd00:9::1/64&twin=0");
	kernel_side("tap4", "");
	node(&w.kernel, TERN_OWN_THREAD);
	w.kernel.port = inter_free_port();
	snprintf(text, sizeof(text), "udp://10.9.0.2:%u?ctl=127.0.0.1:%u", w.kernel.port, w.kernel.port);
	CHECK_EQ(tern_listen(w.kernel.ep, text), 0);
	node(&w.port, TERN_OWN_THREAD);
	snprintf(text, sizeof(text), "dpdk://10.9.0.2:%u?ctl=127.0.0.1:%u&dev=net_tap4&paths=2", w.kernel.port, w.kernel.port);
	w.back = inter_connect_text(&w.port, text);
	tern_event e = inter_await(&w.port, TERN_EV_CONNECTED, 0);
	if (e.status)
		inter_fail(__FILE__, __LINE__, "connecting: %d %s", e.status, inter_detail(&w.port, e.peer));
	w.to = inter_await(&w.kernel, TERN_EV_CONNECTED, 0).peer;
	CHECK_EQ(inter_await(&w.port, TERN_EV_PATH, 0).status, 0);
	has_rules = strstr(said, "link 1 has receive queue 1 of its own");
	CHECK(has_rules || !must_have_rules);
	CHECK_EQ(rules_that("tap4", "queue_mapping 1"), has_rules ? 4 : 0);
	pass(one, 1, 2 * ROUNDS);
	CHECK_EQ(inter_stat(&w.port, w.back, "paths_up"), 2);
	leave(&w);
	CHECK_EQ(rules_that("tap4", "queue_mapping 1"), 0);
	counted(1, &own, &handed);
	CHECK(has_rules ? own >= 2 * ROUNDS * BIG / 1500 && handed < FEW : own == 0);
	inter_close(&first);
}

/* One queue is asked for: as where there are no rules. */
static void one_queue(void)
{
	static struct wire w[2];
	static struct inter_node other;
	struct wire *const both[] = {&w[0], &w[1]};

	*said = 0;
	port_listen(&w[0].port, "dev=net_tap3,iface=tap3&ip=10.9.0.1/24&twin=0&queues=1");
	kernel_side("tap3", "");
	port_listen(&w[1].port, "dev=net_tap3&queues=1");
	CHECK_SAYS(said, "one receive queue for all links, whose frames are told apart in software: queues=1");
	for (int i = 0; i < 2; i++)
		join(&w[i], "10.9.0.1");
	pass(both, 2, 1);
	node(&other, 0);
	CHECK(tern_listen(other.ep, "dpdk://10.9.0.1:7400?ctl=127.0.0.1:7400&dev=net_tap3&queues=2") != 0);
	CHECK_SAYS(inter_detail(&other, 0), "queues=2: port net_tap3 is open in this process with 1");
	inter_close(&other);
	leave(&w[0]);
	leave(&w[1]);
}

/* Many queues, and nothing known of what it would do with them. */
static void no_rules(void)
{
	struct inter_node a, b;

	*said = 0;
	port_listen(&a, "dev=net_null0&ip=10.9.0.1/24&twin=0");
	CHECK(!strstr(said, "one receive queue")); /* a link alone is told nothing */
	port_listen(&b, "dev=net_null0");
	CHECK_SAYS(said, "one receive queue for all links, whose frames are told apart in software: its driver is not known to keep to queue 0");
	inter_close(&a);
	inter_close(&b);
}

static const struct inter_case cases[] = {
        {"steered", steered},
        {"steered_ip6", steered_ip6},
        {"steered_vlan", steered_vlan},
        {"steered_paths", steered_paths},
        {"one_queue", one_queue},
        {"no_rules", no_rules},
};

int main(int argc, char **argv)
{
	must_have_rules = argc > 1 && !strcmp(argv[1], "rules");
	setenv("TERN_DPDK_EAL", "--no-huge -m 320 --no-pci", 0);
	if (unshare(CLONE_NEWNET) || !command("ip link set lo up") || access("/dev/net/tun", R_OK | W_OK)) {
		printf("skip: no namespace of our own, or no tap devices (needs root): %s\n", strerror(errno));
		return 77;
	}
	return inter_main(argc - must_have_rules, argv + must_have_rules, "dpdk_queues", cases, sizeof(cases) / sizeof(cases[0]));
}
