/* RC or UC: which kind of connection two links agree on, by what their addresses say and what their contracts say of the line; and how deep their queues are then.
 * What is seen of a line that loses packets is for the script `kinds`. Two ends in one process, as in rdma_link.c. */
#include <stdio.h>
#include <stdlib.h>
#include "rdma_ends.h"

#define MS 1000000ull

static const struct link_line none, lossy = {.bytes_per_s = 125000000, .rtt_ns = 30 * MS, .loss = 1e-3},
                                    clean = {.bytes_per_s = 125000000, .rtt_ns = 30 * MS, .loss = 1e-6},
                                    near = {.bytes_per_s = 12500000000, .rtt_ns = 100000, .loss = 1e-2},
                                    far = {.bytes_per_s = 1250000000, .rtt_ns = 30 * MS}, furthest = {.bytes_per_s = 12500000000, .rtt_ns = 100 * MS};

/* End 0 listens. */
static void open_as(struct end end[2], const char *const options[2], const struct link_line *line[2])
{
	for (int i = 0; i < 2; i++) {
		snprintf(link_options, sizeof(link_options), "%s", options[i]);
		CU_ASSERT_EQUAL_FATAL(open_link(&end[i], i, !i, 0), 0);
	}
	for (int i = 0; i < 2; i++) {
		struct link_path_config config = {.token = tokens[0], .is_acceptor = !i, .line = *line[i]};
		if (i)
			config.remote = end[0].link->local;
		CU_ASSERT_EQUAL_FATAL(ops->path_open(end[i].link, &config, &end[i].path), 0);
	}
}

static bool stands(const struct end end[2])
{
	return end[0].path->is_connected && end[1].path->is_connected;
}

static bool is_both(const struct end end[2], bool reliable)
{
	return end[0].path->is_reliable == reliable && end[1].path->is_reliable == reliable;
}

struct meeting {
	const char *options[2];
	const struct link_line *line[2];
	bool is_uc;
};

static void meetings(void)
{
	static const struct meeting m[] = {
	        {{"", ""}, {&none, &none}, false},
	        {{"mode=auto", "mode=rc"}, {&none, &none}, false},
	        {{"mode=rc", "mode=auto"}, {&none, &none}, false},
	        {{"mode=auto", "mode=uc"}, {&none, &none}, true},
	        {{"mode=uc", "mode=auto"}, {&none, &none}, true},
	        {{"", ""}, {&none, &lossy}, true},
	        {{"", ""}, {&lossy, &none}, true},
	        {{"", ""}, {&lossy, &lossy}, true},
	        {{"", ""}, {&clean, &near}, false},
	        {{"mode=rc", ""}, {&none, &lossy}, false}, /* what the address says goes before what the contract says */
	        {{"", "mode=rc"}, {&lossy, &none}, false},
	};

	for (size_t i = 0; i < sizeof(m) / sizeof(m[0]); i++) {
		struct end end[2];
		open_as(end, m[i].options, (const struct link_line **)m[i].line);
		UNTIL(end, stands(end));
		CU_ASSERT(is_both(end, !m[i].is_uc));
		pass(end, 0, 0);
		pass(end, 1, 0);
		close_both(end);
	}
}

/* A link in mode auto goes with each of its paths: one of each kind at a time, and a peer that comes back with another address. */
static void one_of_each(void)
{
	struct end server, client[2];
	struct link_path *path[2];
	static const char *const modes[2] = {"mode=rc", "mode=uc"};

	snprintf(link_options, sizeof(link_options), "mode=auto");
	CU_ASSERT_EQUAL_FATAL(open_link(&server, 0, true, 0), 0);
	for (int i = 0; i < 2; i++) {
		struct end end[2];
		CU_ASSERT_EQUAL_FATAL(open_path(&server, NULL, i, true), 0);
		path[i] = server.path;
		snprintf(link_options, sizeof(link_options), "%s", modes[i]);
		CU_ASSERT_EQUAL_FATAL(open_link(&client[i], 1, false, 0), 0);
		CU_ASSERT_EQUAL_FATAL(open_path(&client[i], &server.link->local, i, false), 0);
		end[0] = server;
		end[1] = client[i];
		UNTIL(end, stands(end));
		CU_ASSERT(is_both(end, !i));
		pass(end, 1, 0);
		pass(end, 0, 0);
		server = end[0];
		client[i] = end[1];
	}
	CU_ASSERT(path[0]->is_reliable && !path[1]->is_reliable);
	for (int i = 0; i < 2; i++) {
		ops->path_close(client[i].link, &client[i].path);
		ops->close(&client[i].link);
	}
	server.path = path[0]; /* the first comes back in the other mode */
	struct end end[2] = {server};
	CU_ASSERT_EQUAL_FATAL(open_link(&end[1], 1, false, 0), 0);
	CU_ASSERT_EQUAL_FATAL(open_path(&end[1], &server.link->local, 0, false), 0);
	UNTIL(end, end[1].path->is_connected || end[1].path->fault);
	CU_ASSERT(end[1].path->fault && strstr(end[1].link->trouble, "mode=")); /* a path stays with what its peer has said */
	ops->path_close(end[1].link, &end[1].path);
	ops->close(&end[1].link);
	for (int i = 0; i < 2; i++)
		ops->path_close(end[0].link, &path[i]);
	ops->close(&end[0].link);
}

static void depths(void)
{
	static const struct {
		const char *options;
		const struct link_line *line;
		uint32_t least, most;
	} d[] = {{"", &none, 1024, 1024}, {"", &far, 2048, 2048}, {"", &furthest, 4096, 32768}, {"sq=64", &furthest, 64, 64},
	        {"mode=uc", &furthest, 1024, 1024}};

	for (size_t i = 0; i < sizeof(d) / sizeof(d[0]); i++) {
		struct end end[2];
		unsigned depth = 0;
		open_as(end, (const char *const[2]){d[i].options, d[i].options}, (const struct link_line *[2]){d[i].line, d[i].line});
		UNTIL(end, stands(end));
		const char *at = strstr(logged, "lanes of ");
		CU_ASSERT(at && sscanf(at, "lanes of %u writes", &depth) == 1);
		CU_ASSERT(depth >= d[i].least && depth <= d[i].most);
		pass(end, 0, 0);
		close_both(end);
	}
}

static const struct unit_case cases[] = {{"meetings", meetings}, {"one_of_each", one_of_each}, {"depths", depths}};

int main(void)
{
	struct end probe;

	setbuf(stdout, NULL);
	hosts[0] = getenv("TERN_RDMA_TO") ? getenv("TERN_RDMA_TO") : hosts[0];
	hosts[1] = getenv("TERN_RDMA_FROM") ? getenv("TERN_RDMA_FROM") : hosts[1];
	if (link_find("rdma", &ops, words, sizeof(words)) || open_link(&probe, 0, true, 0)) {
		printf("SKIP: %s\n", words);
		return 77;
	}
	ops->close(&probe.link);
	return unit_main("kinds", cases, sizeof(cases) / sizeof(cases[0]));
}
