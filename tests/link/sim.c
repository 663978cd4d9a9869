/* The sim link's fixture, and emu's: the same cases under a virtual clock, and through emu's copies over sim and over udp. */
#include <string.h>
#include "link/sim/sim.h"
#include "suite.h"

static struct sim_net *net;
static uint64_t now = 1000;
static struct link_addr addr[2];

static bool sim_configure(struct link_config end[2], int variant)
{
	struct element_config wire = {.delay_ns = 100000, .rate_bits_per_s = 10000000000, .overhead_bytes = 66};

	(void)variant;
	sim_net_close(&net); /* its links are closed */
	if (sim_net_open(2, suite_random(), &net) || sim_net_connect(net, 0, 1, &wire, &wire))
		return false;
	for (uint32_t i = 0; i < 2; i++) {
		sim_net_addr(net, i, &addr[i]);
		end[i].net = &addr[i];
	}
	return true;
}

/* Time passes by being looked at, so that cases which only wait a while get on. */
static uint64_t sim_now_ns(void)
{
	return now += 1000;
}

static void sim_sleep(const struct link_wait *wait)
{
	now = wait->deadline_ns < now + 1000000 ? (wait->deadline_ns > now ? wait->deadline_ns : now + 1) : now + 1000000;
}

const struct suite_fixture fixture_sim = {
        .name = "sim",
        .scheme = "sim",
        .options = "mtu=9000",
        .has = SUITE_ECN | SUITE_ALONE,
        .configure = sim_configure,
        .now_ns = sim_now_ns,
        .sleep = sim_sleep,
};

static void sim_break(void)
{
	CU_ASSERT_EQUAL(sim_net_break(net, 0, 1), 1);
}

const struct suite_fixture fixture_sim_uc = {
    .name = "sim_uc",
    .scheme = "sim",
    .options = "mtu=9000&writes=uc",
    .has = SUITE_ECN | SUITE_WRITES | SUITE_BREAKS,
    .configure = sim_configure,
    .now_ns = sim_now_ns,
    .sleep = sim_sleep,
    .break_connection = sim_break,
};

const struct suite_fixture fixture_sim_rc = {
    .name = "sim_rc",
    .scheme = "sim",
    .options = "mtu=9000&writes=rc&lanes=3",
    .has = SUITE_ECN | SUITE_WRITES | SUITE_RELIABLE | SUITE_BREAKS,
    .configure = sim_configure,
    .now_ns = sim_now_ns,
    .sleep = sim_sleep,
    .break_connection = sim_break,
};

const struct suite_fixture fixture_emu_sim = {
    .name = "emu_sim",
    .scheme = "emu",
    .options = "link=sim&mtu=9000",
    .has = SUITE_ALONE,
    .configure = sim_configure,
    .now_ns = sim_now_ns,
    .sleep = sim_sleep,
};

static bool emu_udp_configure(struct link_config end[2], int variant)
{
	return fixture_udp.configure(end, variant);
}

static uint64_t emu_udp_now_ns(void)
{
	return fixture_udp.now_ns();
}

static void emu_udp_sleep(const struct link_wait *wait)
{
	fixture_udp.sleep(wait);
}

const struct suite_fixture fixture_emu_udp = {
    .name = "emu_udp",
    .scheme = "emu",
    .options = "link=udp",
    .has = SUITE_FD | SUITE_ALONE,
    .configure = emu_udp_configure,
    .now_ns = emu_udp_now_ns,
    .sleep = emu_udp_sleep,
};
