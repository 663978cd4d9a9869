/* The rdma link when something outside of it fails: the line, the peer's process, the limit on locked memory, addresses. Called by rdma_link.c. */
#include <arpa/inet.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "rdma_ends.h"

/* The guest's wire carries nothing any more, or again. @return false: this is no guest, or it has no netem */
static bool line(bool is_dead)
{
	char text[160];
	if (access("/sys/class/net/v0", F_OK) || access("/sys/class/net/v1", F_OK) || strcmp(hosts[0], "10.9.0.2"))
		return false;
	snprintf(text, sizeof(text), "PATH=$PATH:/usr/sbin:/sbin; for i in v0 v1; do tc qdisc %s dev $i root %s || exit 1; done",
	        is_dead ? "add" : "del", is_dead ? "netem loss 100%" : "");
	return system(text) == 0;
}

static size_t offer_writes(struct end *from, const struct frame_target *target, struct frame_seg seg, uint64_t number)
{
	static struct frame frames[BURST];
	struct frame *list[BURST];

	for (uint64_t i = 0; i < BURST; i++) {
		write_frame(&frames[i], from, target, number + i, &seg);
		list[i] = &frames[i];
	}
	return ops->tx(from->link, list, BURST, now());
}

/* RC gives up after its bounded retries, all writes are told once, and when the line is back so is the path. UC loses what was sent, and keeps its
 * connection. */
static void line_dead(void)
{
	struct end end[2];
	char keep[sizeof(link_options)];
	uint32_t key[2];

	memcpy(keep, link_options, sizeof(keep));
	snprintf(link_options, sizeof(link_options), "%.80s&timeout=13", keep); /* 4.096 us * 2^13 * 7 = 0.23 s instead of 1.9 s */
	open_both(end);
	memcpy(link_options, keep, sizeof(keep));
	uint8_t *source = map(&end[1], MEMORY, &key[0]), *to = map(&end[0], MEMORY, &key[1]);
	struct link_exposed x = expose(end, 0, to, MEMORY, key[1]);
	if (!line(true)) {
		printf("SKIP: no line here that may be cut\n");
		close_both(end);
		return;
	}
	uint64_t begin = now();
	size_t sent = offer_writes(&end[1], &x.target, (struct frame_seg){.addr = source, .bytes = end[1].path->max_write_bytes, .mem = key[0]}, 0);
	end[0].n_exposed = 0;
	CU_ASSERT(sent > 0);
	UNTIL(end, end[1].reaped == sent);
	if (!is_uc) {
		UNTIL(end, end[1].lost == sent);
		printf("    given up after %.1f s: %s\n", (double)(now() - begin) / 1e9, end[1].link->trouble);
		CU_ASSERT(now() - begin < 3000000000);
		CU_ASSERT_FALSE(end[1].path->is_connected);
		CU_ASSERT_EQUAL(end[1].arrived, 0);
	}
	CU_ASSERT(line(false));
	begin = now();
	UNTIL(end, end[0].path->is_connected && end[1].path->is_connected && (is_uc || end[0].path->connection == 2));
	printf("    back after %.1f s\n", (double)(now() - begin) / 1e9);
	CU_ASSERT(now() - begin < 8000000000);
	if (!is_uc) {
		CU_ASSERT_EQUAL(end[0].n_exposed, 1);
		CU_ASSERT_EQUAL(end[0].exposed[0].state, LINK_BROKEN);
		CU_ASSERT_EQUAL(end[1].lost, sent);
	}
	free_in(&end[0]);
	pass(end, 0, 0);
	pass(end, 1, 0);
	close_both(end);
	munmap(source, MEMORY);
	munmap(to, MEMORY);
}

int fault_serve(uint16_t port)
{
	struct end end[2] = {{0}, {0}};

	if (open_link(&end[0], 0, true, port) || open_path(&end[0], NULL, 0, true))
		return 1;
	for (;; doze(end)) {
		step(&end[0]);
		free_in(&end[0]);
	}
}

/* This program once more, in the same mode, told by `name` what to do. */
static pid_t again(const char *name, uint32_t value)
{
	char text[16];
	pid_t child;

	snprintf(text, sizeof(text), "%u", value);
	setenv(name, text, 1);
	child = fork();
	if (!child) {
		execl("/proc/self/exe", "rdma_link", is_uc ? "uc" : "rc", strchr(link_options, '&') ? strchr(link_options, '&') + 1 : NULL, NULL);
		_exit(127);
	}
	unsetenv(name);
	CU_ASSERT_FATAL(child > 0);
	return child;
}

/* kill -9 of the process at the other end, in mid-traffic; another one with the same token is found. */
static void peer_killed(void)
{
	struct end end[2] = {{0}, {0}};
	struct sockaddr_in a;
	struct link_addr to;
	uint8_t memory[BURST];
	struct frame f;

	CU_ASSERT_EQUAL_FATAL(open_link(&end[0], 0, true, 0), 0); /* which port is free */
	to = end[0].link->local;
	ops->close(&end[0].link);
	memcpy(&a, to.data, sizeof(a));
	pid_t child = again("TERN_RDMA_SERVE", ntohs(a.sin_port));
	CU_ASSERT_EQUAL_FATAL(open_link(&end[1], 1, false, 0), 0);
	CU_ASSERT_EQUAL(open_path(&end[1], &to, 0, false), 0);
	for (uint32_t life = 1; life <= 3; life++) {
		UNTIL(end, end[1].path->is_connected);
		CU_ASSERT_EQUAL(end[1].path->connection, life);
		bytes_frame(&f, end[1].path, memory, sizeof(memory), 1);
		send_all(end, 1, &f, 1);
		uint64_t begin = now();
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		UNTIL(end, !end[1].path->is_connected);
		printf("    known after %.1f ms: %s\n", (double)(now() - begin) / 1e6, end[1].link->trouble);
		CU_ASSERT(now() - begin < 3000000000);
		if (life < 3)
			child = again("TERN_RDMA_SERVE", ntohs(a.sin_port));
	}
	CU_ASSERT_EQUAL(end[1].path->fault, 0);
	ops->close(&end[1].link);
}

/* Without the capability that lets root pass the limit. */
static bool must_not_lock(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &header, data))
		return false;
	data[0].effective &= ~(1u << CAP_IPC_LOCK);
	return !syscall(SYS_capset, &header, data);
}

static void limit_reached(void)
{
	struct end end[2];
	struct rlimit before, small = {64 << 10, 64 << 10};
	uint32_t key;

	open_both(end);
	CU_ASSERT_EQUAL(getrlimit(RLIMIT_MEMLOCK, &before), 0);
	small.rlim_max = before.rlim_max;
	uint8_t *m = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CU_ASSERT_EQUAL(setrlimit(RLIMIT_MEMLOCK, &small), 0);
	CU_ASSERT_EQUAL(link_map(ops, end[0].link, m, MEMORY, &key), -TERN_ENOMEM);
	CU_ASSERT_PTR_NOT_NULL(strstr(end[0].link->trouble, "ulimit -l"));
	CU_ASSERT_PTR_NOT_NULL(strstr(end[0].link->trouble, "64 KiB"));
	CU_ASSERT_PTR_NOT_NULL(strstr(end[0].link->trouble, "4096 KiB"));
	printf("    %s\n", end[0].link->trouble);
	ops->path_close(end[1].link, &end[1].path); /* a new path has no memory for its rings: said, and tried again */
	CU_ASSERT_EQUAL(open_path(&end[1], &end[0].link->local, 0, false), 0);
	UNTIL(end, strstr(end[1].link->trouble, "ulimit -l"));
	printf("    %s\n", end[1].link->trouble);
	CU_ASSERT_EQUAL(setrlimit(RLIMIT_MEMLOCK, &before), 0);
	UNTIL(end, end[1].path->is_connected && end[0].path->is_connected);
	CU_ASSERT_EQUAL(link_map(ops, end[0].link, m, MEMORY, &key), 0);
	close_both(end);
	munmap(m, MEMORY);
}

int fault_limited(void)
{
	static const struct unit_case one = {"limit_reached", limit_reached};
	const struct rlimit enough = {256 << 20, 256 << 20};
	return !setrlimit(RLIMIT_MEMLOCK, &enough) && must_not_lock() ? unit_main("limited", &one, 1) : 2;
}

/* In a process of its own: the kernel refuses descriptors to who has changed his rights since they were opened. */
static void locked_memory(void)
{
	int status = 0;
	pid_t child = again("TERN_RDMA_LIMITED", 1);

	CU_ASSERT_EQUAL(waitpid(child, &status, 0), child);
	CU_ASSERT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* The device by name instead of by address; a GID that carries no address of a site is refused. */
static void device_named(void)
{
	struct end end[2];
	const char *host = hosts[1];
	char keep[sizeof(link_options)], name[64] = "";

	open_both(end);
	FILE *found = popen("ls /sys/class/infiniband | head -n 2 | tail -n 1", "r");
	CU_ASSERT_FATAL(found && fscanf(found, "%63s", name) == 1);
	pclose(found);
	close_both(end);
	memcpy(keep, link_options, sizeof(keep));
	hosts[1] = "";
	snprintf(link_options, sizeof(link_options), "mode=%s&dev=%s", is_uc ? "uc" : "rc", name);
	CU_ASSERT_EQUAL_FATAL(open_link(&end[1], 1, false, 0), 0);
	memcpy(link_options, keep, sizeof(keep));
	CU_ASSERT_EQUAL_FATAL(open_link(&end[0], 0, true, 0), 0);
	CU_ASSERT_EQUAL(open_path(&end[0], NULL, 0, true), 0);
	CU_ASSERT_EQUAL(open_path(&end[1], &end[0].link->local, 0, false), 0);
	UNTIL(end, end[0].path->is_connected && end[1].path->is_connected);
	close_both(end);
	snprintf(link_options, sizeof(link_options), "dev=%s&gid=200", name);
	CU_ASSERT_EQUAL(open_link(&end[1], 1, false, 0), -TERN_EADDR);
	CU_ASSERT_PTR_NOT_NULL(strstr(words, "GID 200"));
	memcpy(link_options, keep, sizeof(keep));
	hosts[1] = host;
}

/* A smaller packet wanted by one end is what both use. */
static void packets_agreed(void)
{
	struct end end[2];

	for (int wants = 0; wants < 2; wants++) {
		CU_ASSERT_EQUAL_FATAL(open_link(&end[0], 0, true, 0), 0);
		CU_ASSERT_EQUAL_FATAL(open_link(&end[1], 1, false, 0), 0);
		for (int i = 0; i < 2; i++) {
			struct link_path_config config = {.token = tokens[0], .is_acceptor = !i, .mtu_bytes = i == wants ? 1500 : 0};
			if (i)
				config.remote = end[0].link->local;
			CU_ASSERT_EQUAL(ops->path_open(end[i].link, &config, &end[i].path), 0);
		}
		UNTIL(end, end[0].path->is_connected && end[1].path->is_connected);
		for (int i = 0; i < 2; i++)
			CU_ASSERT_EQUAL(end[i].path->max_frame_bytes, is_uc ? 1024 : 8192);
		pass(end, 0, 0);
		pass(end, 1, 0);
		close_both(end);
	}
}

const struct unit_case fault_cases[] = {
        {"peer_killed", peer_killed},
        {"locked_memory", locked_memory},
        {"device_named", device_named},
        {"packets_agreed", packets_agreed},
        {"line_dead", line_dead},
};
const size_t fault_n_cases = sizeof(fault_cases) / sizeof(fault_cases[0]);
