/* The rdma link's fixtures: two devices with the addresses in TERN_RDMA_FROM and TERN_RDMA_TO, as tests/guest/run gives them. Called by main.c. */
#include <poll.h>
#include <string.h>
#include "suite.h"

static bool rdma_configure(struct link_config end[2], int variant)
{
	const char *from = getenv("TERN_RDMA_FROM"), *to = getenv("TERN_RDMA_TO");

	if (variant)
		return false;
	end[0].host = to ? to : "10.9.0.2";
	end[1].host = from ? from : "10.9.0.1";
	return true;
}

static uint64_t rdma_now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void rdma_sleep(const struct link_wait *wait)
{
	struct pollfd p = {.fd = wait->fd, .events = POLLIN};
	if (wait->deadline_ns > rdma_now_ns())
		poll(&p, 1, 5);
}

/* Without SUITE_BOUNDS: soft RoCE does not hold a window's bounds, only its memory region's. */
const struct suite_fixture fixture_rdma_rc = {
        .name = "rdma_rc",
        .scheme = "rdma",
        .options = "mode=rc&lanes=2",
        .has = SUITE_HOSTS | SUITE_FD | SUITE_WRITES | SUITE_RELIABLE,
        .configure = rdma_configure,
        .now_ns = rdma_now_ns,
        .sleep = rdma_sleep,
};

const struct suite_fixture fixture_rdma_uc = {
        .name = "rdma_uc",
        .scheme = "rdma",
        .options = "mode=uc&lanes=2",
        .has = SUITE_HOSTS | SUITE_FD | SUITE_WRITES,
        .configure = rdma_configure,
        .now_ns = rdma_now_ns,
        .sleep = rdma_sleep,
};
