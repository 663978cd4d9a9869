/* Runs the conformance suite for one link: link_suite NAME [OPTIONS]. Exit status 0 passed, 1 failed, 77 this machine refuses the link (skip). */
#include <string.h>
#include "suite.h"

/* A link joins here with one line. */
static const struct suite_fixture *const fixtures[] = {
	&fixture_udp,
	&fixture_sim,
	&fixture_sim_uc,
	&fixture_sim_rc,
	&fixture_emu_sim,
	&fixture_emu_udp,
	&fixture_rdma_rc,
	&fixture_rdma_uc,
	&fixture_dpdk_memif,
	&fixture_dpdk_packet,
	&fixture_dpdk_xdp,
	&fixture_dpdk_vhost,
};

enum { SUITE_CASES_MAX = 64 };

static size_t main_select(struct unit_case *out, size_t have, const struct suite_case *cases, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if ((cases[i].needs & suite_fixture->has) != cases[i].needs)
			printf("skip: %s has nothing for %s\n", suite_fixture->name, cases[i].name);
		else if (have < SUITE_CASES_MAX)
			out[have++] = (struct unit_case){cases[i].name, cases[i].run};
	}
	return have;
}

/* Opens the link once, so that a refused one is a skip and not twenty failures. */
static int main_probe(void)
{
	struct link_config config[2] = {{.listening = true}, {0}};
	struct link *link;
	char error[256] = "";

	config[0].error = error;
	config[0].error_bytes = sizeof(error);
	config[0].options = suite_options;
	config[0].now_ns = suite_now();
	if (!suite_fixture->configure(config, 0))
		return 77;
	int err = suite_ops->open(&config[0], &link);
	if (err) {
		printf("%s: open gives %d: %s\n", err == -TERN_EIO ? "skip" : "failed", err, error);
		return err == -TERN_EIO ? 77 : 1;
	}
	suite_ops->close(&link);
	return 0;
}

int main(int argc, char **argv)
{
	struct unit_case cases[SUITE_CASES_MAX];
	char error[512];

	setbuf(stdout, NULL);
	for (size_t i = 0; argc > 1 && i < sizeof(fixtures) / sizeof(fixtures[0]); i++)
		if (!strcmp(fixtures[i]->name, argv[1]))
			suite_fixture = fixtures[i];
	if (!suite_fixture) {
		printf("usage: link_suite NAME [OPTIONS]\n");
		return 2;
	}
	suite_options = argc > 2 ? argv[2] : suite_fixture->options;
	if (link_find(suite_fixture->scheme, &suite_ops, error, sizeof(error))) {
		printf("skip: %s\n", error);
		return 77;
	}
	suite_state = unit_seed() * 2654435761u + 1;
	int err = main_probe();
	if (err)
		return err;
	size_t n = main_select(cases, 0, suite_cases, suite_n_cases);
	n = main_select(cases, n, write_cases, write_n_cases);
	n = main_select(cases, n, break_cases, break_n_cases);
	n = main_select(cases, n, udp_cases, udp_n_cases);
	return unit_main(argv[1], cases, n);
}
