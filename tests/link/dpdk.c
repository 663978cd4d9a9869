/* The dpdk link's fixtures: two ports in this process, joined by shared memory (memif; vhost and virtio-user, which wants hugepages) or by the two ends of a veth in a
 * namespace of our own (af_packet, af_xdp). No NIC. The vdevs are made anew for each case. */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "suite.h"

enum { DPDK_OPTIONS_MAX = 400 };
static char dpdk_text[2][DPDK_OPTIONS_MAX];

static void dpdk_environment(void)
{
	setenv("TERN_DPDK_EAL", "--no-huge -m 320 --no-pci", 0);
}

static const char *dpdk_address(int end, int variant)
{
	static const char *const text[2][2] = {{"ip=10.99.0.1/24", "ip=10.99.0.2/24"}, {"ip6=fd00:99::1/64", "ip6=fd00:99::2/64"}};
	return text[variant][end];
}

static uint64_t dpdk_now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* What the link wants: its descriptor or its deadline, whichever is first. */
static void dpdk_sleep(const struct link_wait *wait)
{
	uint64_t now = dpdk_now_ns(), nap = wait->deadline_ns > now ? wait->deadline_ns - now : 0;
	struct pollfd p = {.fd = wait->fd, .events = POLLIN};
	struct timespec t = {.tv_nsec = (long)(nap < 5000000 ? nap : 5000000)};
	if (nap)
		ppoll(&p, wait->fd >= 0, &t, NULL);
}

/* Both ends' options; a socket's name says whose it is. */
static bool dpdk_memif(struct link_config end[2], int variant)
{
	dpdk_environment();
	for (int i = 0; i < 2; i++) {
		snprintf(dpdk_text[i], sizeof(dpdk_text[i]),
		         "dev=net_memif%d,role=%s,id=0,socket-abstract=no,socket=/tmp/tern-suite-%d.sock&twin=0&%s", i, i ? "client" : "server",
		         (int)getpid(), dpdk_address(i, variant));
		end[i].options = dpdk_text[i];
	}
	return true;
}

const struct suite_fixture fixture_dpdk_memif = {
    .name = "dpdk_memif",
    .scheme = "dpdk",
    .has = SUITE_HOSTS | SUITE_ECN | SUITE_ALONE | SUITE_ANSWERS,
    .configure = dpdk_memif,
    .now_ns = dpdk_now_ns,
    .sleep = dpdk_sleep,
};

static bool dpdk_command(const char *command)
{
	char quiet[256];
	snprintf(quiet, sizeof(quiet), "%s >/dev/null 2>&1", command);
	return system(quiet) == 0;
}

/* Once: a namespace that goes with the process, in it the two ends of a veth. */
static bool dpdk_veth_up(void)
{
	static int state;
	if (!state && unshare(CLONE_NEWNET)) {
		printf("skip: no network namespace of our own (%s)\n", strerror(errno));
		state = -1;
	} else if (!state) {
		bool up = dpdk_command("ip link add tva type veth peer name tvb && ip link set tva up && ip link set tvb up");
		state = up ? 1 : -1;
		if (!up)
			printf("skip: no veth here\n");
	}
	return state > 0;
}

static bool dpdk_veth(struct link_config end[2], int variant, const char *device)
{
	dpdk_environment();
	if (!dpdk_veth_up())
		return false;
	for (int i = 0; i < 2; i++) {
		snprintf(dpdk_text[i], sizeof(dpdk_text[i]), "dev=%s%d,iface=tv%c%s&%s", device, i, i ? 'b' : 'a',
		        strstr(device, "packet") ? ",framecnt=2048" : "", dpdk_address(i, variant));
		end[i].options = dpdk_text[i];
	}
	return true;
}

static bool dpdk_packet(struct link_config end[2], int variant)
{
	return dpdk_veth(end, variant, "net_af_packet");
}

const struct suite_fixture fixture_dpdk_packet = {
    .name = "dpdk_packet",
    .scheme = "dpdk",
    .has = SUITE_HOSTS | SUITE_ECN | SUITE_ALONE | SUITE_ANSWERS,
    .configure = dpdk_packet,
    .now_ns = dpdk_now_ns,
    .sleep = dpdk_sleep,
};

/* What DPDK 22.11 leaves of an af_xdp port when it closes it at the end of the program: eth_dev_close counts wrongly. Asked by the leak sanitizer, if it is there. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:xsk_umem__create\n";
}

static bool dpdk_xdp(struct link_config end[2], int variant)
{
	return dpdk_veth(end, variant, "net_af_xdp");
}

const struct suite_fixture fixture_dpdk_xdp = {
    .name = "dpdk_xdp",
    .scheme = "dpdk",
    .has = SUITE_HOSTS | SUITE_ECN | SUITE_ALONE | SUITE_ANSWERS,
    .configure = dpdk_xdp,
    .now_ns = dpdk_now_ns,
    .sleep = dpdk_sleep,
};

/* The pages are there already: tests/link/huge. */
static bool dpdk_vhost(struct link_config end[2], int variant)
{
	setenv("TERN_DPDK_EAL", "--in-memory --single-file-segments --no-pci -m 256", 0);
	for (int i = 0; i < 2; i++) {
		snprintf(dpdk_text[i], sizeof(dpdk_text[i]), "dev=%s=/tmp/tern-suite-%d.sock&twin=0&%s",
		        i ? "net_virtio_user0,queue_size=1024,path" : "net_vhost0,iface", (int)getpid(), dpdk_address(i, variant));
		end[i].options = dpdk_text[i];
	}
	return true;
}

const struct suite_fixture fixture_dpdk_vhost = {
    .name = "dpdk_vhost",
    .scheme = "dpdk",
    .has = SUITE_HOSTS | SUITE_ECN | SUITE_ALONE | SUITE_ANSWERS,
    .configure = dpdk_vhost,
    .now_ns = dpdk_now_ns,
    .sleep = dpdk_sleep,
};
