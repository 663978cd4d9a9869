/* DPDK's secondary processes, which share all memory of their primary. dpdk_secondary refused: Tern does not run in one, and says so; nothing is started for that.
 * dpdk_secondary killed: this program is a primary in which Tern has links; another program looks on as a secondary (what dpdk-proc-info does) and is killed in the
 * middle of it, again and again, while frames go over a memif both ways; every byte is checked. Who looks at statistics holds no lock of DPDK's: ports are opened again
 * afterwards. Who walks the pools may be killed with the lock of their list, for which the next one that makes or frees a pool waits for ever (DPDK's, not ours):
 * traffic goes on. dpdk_secondary apart: Tern has started DPDK, no secondary gets in. Run by tests/link/huge, in a mount namespace of our own: the files of shared
 * hugepages go with it. Each onlooker is this program, dpdk_secondary look DESCRIPTOR statistics|pools. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_mempool.h>
#include "link/link.h"
#include "must.h"
#include "tern/error.h"

enum { ROUNDS = 12, BURST = 32, FRAME = 1400, PORT = 7400, WAIT_S = 20, MORE = 2000, LOOKS = 200, NOT_LET_IN = 3, LIMIT_S = 100, LONGER_S = 5 };

static const struct link_ops *ops;
static const char place[] = "/mnt"; /* hugepages and DPDK's runtime files, in a file system that only we see: nothing is left of it, however we end */

/* One end: what it sends, and what it has heard. Frame n is full of n, and begins with it. */
struct end {
	struct link *link;
	struct link_path *path;
	uint8_t memory[BURST][FRAME];
	struct frame frame[BURST], *free[BURST];
	size_t n_free;
	uint64_t next, heard, wrong;
};

/* A process of ours ends by itself, and with the one that started it: hugepages are held as long as one lives. fork passes neither on, exec both. */
static void mortal(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	alarm(LIMIT_S);
}

static struct link *open_link(const char *text, char error[512])
{
	struct link *l = NULL;
	struct link_config c = {.options = text, .listening = true, .port = PORT, .now_ns = now_ns(), .error = error, .error_bytes = 512};
	*error = 0;
	ops->open(&c, &l);
	return l;
}

static int refused(const char *eal, const char *words)
{
	char error[512];
	setenv("TERN_DPDK_EAL", eal, 1);
	struct link *l = open_link("dev=net_ring0&ip=10.9.0.1/24&twin=0", error);
	printf("%s: %s\n", eal, error);
	return l || !strstr(error, "secondary of another DPDK process") || !strstr(error, words) || !strstr(error, "leave --proc-type out");
}

static void end_open(struct end *e, int number)
{
	char text[256], error[512];
	snprintf(text, sizeof(text), "dev=net_memif%d,role=%s,socket-abstract=no,socket=%s/memif&twin=0&ip=10.99.0.%d/24", number,
	        number ? "client" : "server", place, number + 1);
	memset(e, 0, sizeof(*e));
	e->link = open_link(text, error);
	if (!e->link)
		printf("%s: %s\n", text, error);
	MUST(e->link);
	for (; e->n_free < BURST; e->n_free++)
		e->free[e->n_free] = &e->frame[e->n_free];
}

static void end_send(struct end *e)
{
	struct frame *out[BURST];
	size_t n = e->n_free;
	for (size_t i = 0; i < n; i++) {
		uint64_t number = e->next + i;
		uint8_t *at = e->memory[e->free[i] - e->frame];
		memset(at, (int)(number & 0xff), FRAME);
		memcpy(at, &number, sizeof(number));
		out[i] = e->free[i];
		*out[i] = (struct frame){.path = e->path, .segs = 1, .wire_bytes = FRAME, .seg[0] = {.addr = at, .bytes = FRAME}};
	}
	size_t taken = ops->tx(e->link, out, n, now_ns());
	memmove(e->free, e->free + taken, (n - taken) * sizeof(e->free[0]));
	e->n_free = n - taken;
	e->next += taken;
}

static void end_step(struct end *e)
{
	struct rx_frame in[BURST];
	uint8_t want[FRAME];
	uint64_t number;

	end_send(e);
	e->n_free += ops->reap(e->link, e->free + e->n_free, BURST - e->n_free, now_ns());
	size_t n = ops->rx(e->link, in, BURST, now_ns());
	for (size_t i = 0; i < n; i++) {
		memcpy(&number, in[i].head, sizeof(number));
		memset(want, (int)(number & 0xff), FRAME);
		memcpy(want, &number, sizeof(number));
		e->wrong += number != e->heard++ || in[i].head_bytes != FRAME || memcmp(in[i].head, want, FRAME);
	}
	ops->rx_free(e->link, in, n);
}

/* Both ends until each has heard so many more, in order, none lost. @return they have */
static bool go_on(struct end end[2], uint64_t frames)
{
	uint64_t until = now_ns() + WAIT_S * 1000000000ull, want[2] = {end[0].heard + frames, end[1].heard + frames};
	while ((end[0].heard < want[0] || end[1].heard < want[1]) && now_ns() < until)
		for (int i = 0; i < 2; i++)
			end_step(&end[i]);
	return end[0].heard >= want[0] && end[1].heard >= want[1] && !end[0].wrong && !end[1].wrong;
}

static void ends_open(struct end end[2])
{
	for (int i = 0; i < 2; i++)
		end_open(&end[i], i);
	for (int i = 0; i < 2; i++) {
		struct link_path_config to = {.remote = end[!i].link->local};
		MUST(!ops->path_open(end[i].link, &to, &end[i].path));
	}
}

static void pool_look(struct rte_mempool *pool, void *arg)
{
	*(unsigned *)arg += rte_mempool_avail_count(pool);
}

/* The onlooker: a DPDK program of somebody's. In it Tern is refused. */
static _Noreturn void look(int out, bool walks)
{
	char text[3][96], error[512];
	snprintf(text[0], sizeof(text[0]), "--file-prefix=tern");
	snprintf(text[1], sizeof(text[1]), "--huge-dir=%s/huge", getenv("TERN_TEST_PLACE"));
	char *argv[] = {(char *)"look", text[0], text[1], (char *)"--proc-type=secondary", (char *)"--no-pci", (char *)"--no-telemetry",
		(char *)"--log-level=lib.eal:error", NULL};
	struct rte_eth_stats stats;
	struct rte_eth_dev_info info;
	struct rte_eth_link state;
	uint16_t id;
	unsigned free_mbufs;
	uint64_t seen = 0;

	if (rte_eal_init(7, argv) < 0)
		exit(NOT_LET_IN);
	MUST(rte_eal_process_type() == RTE_PROC_SECONDARY);
	MUST(rte_eth_dev_count_total() >= 2); /* owned by Tern */
	MUST(!open_link("dev=net_memif0&ip=10.9.0.1/24&twin=0", error));
	MUST(strstr(error, "secondary of another DPDK process (the program has started it so)"));
	for (unsigned i = 0;; i++) {
		free_mbufs = 0;
		for (id = 0; id < rte_eth_dev_count_total(); id++) {
			MUST(!rte_eth_dev_info_get(id, &info) && !rte_eth_link_get_nowait(id, &state) && !rte_eth_stats_get(id, &stats));
			seen += stats.ipackets;
		}
		if (walks)
			rte_mempool_walk(pool_look, &free_mbufs);
		if (i == LOOKS)
			MUST(seen && (free_mbufs || !walks) && write(out, "1", 1) == 1); /* it has seen traffic */
	}
}

static pid_t onlooker(int *in, const char *looks_at)
{
	int fd[2];
	char text[16];
	MUST(!pipe2(fd, O_NONBLOCK));
	pid_t self = getpid(), child = fork();
	if (!child) {
		mortal(self);
		close(fd[0]);
		snprintf(text, sizeof(text), "%d", fd[1]);
		execl("/proc/self/exe", "dpdk_secondary", "look", text, looks_at, (char *)NULL);
		_exit(127);
	}
	close(fd[1]);
	*in = fd[0];
	return child;
}

static void seed(void)
{
	unsigned n = getenv("TERN_SEED") ? (unsigned)strtoul(getenv("TERN_SEED"), NULL, 0) : (unsigned)now_ns();
	printf("TERN_SEED=%u\n", n);
	srand(n);
}

static void primary(void)
{
	char huge[96];
	char *argv[] = {(char *)"primary", (char *)"--file-prefix=tern", huge, (char *)"--no-pci", (char *)"--no-telemetry",
		(char *)"--lcores=0@(0-1)", (char *)"-m128", (char *)"--log-level=lib.eal:error", (char *)"--base-virtaddr=0x200000000000", NULL};
	snprintf(huge, sizeof(huge), "--huge-dir=%s/huge", place); /* the address: free in sanitized programs, too */
	MUST(rte_eal_init(9, argv) >= 0 && rte_eal_process_type() == RTE_PROC_PRIMARY);
}

/* The thread that drives Tern's links has taken part in DPDK, which rules secondaries out from then on (rte_thread_register). */
static int apart(void)
{
	static struct end end[2];
	char eal[256];
	int in, status;

	snprintf(eal, sizeof(eal), "--file-prefix=tern --huge-dir=%s/huge --no-pci -m 128", place);
	setenv("TERN_DPDK_EAL", eal, 1);
	ends_open(end);
	MUST(go_on(end, MORE));
	pid_t child = onlooker(&in, "statistics");
	while (waitpid(child, &status, WNOHANG) == 0)
		MUST(go_on(end, 1));
	MUST(WIFEXITED(status) && WEXITSTATUS(status) == NOT_LET_IN);
	MUST(go_on(end, MORE));
	for (int i = 0; i < 2; i++)
		ops->close(&end[i].link);
	return 0;
}

/* One onlooker comes, looks and is killed, under traffic. */
static void kill_one(struct end end[2], const char *looks_at)
{
	uint64_t until = now_ns() + WAIT_S * 1000000000ull;
	int in, status;
	char byte;
	ssize_t n;

	pid_t child = onlooker(&in, looks_at);
	while ((n = read(in, &byte, 1)) < 0 && errno == EAGAIN && now_ns() < until)
		MUST(go_on(end, 1));
	if (n != 1)
		printf("the onlooker has not seen anything\n");
	MUST(n == 1);
	MUST(go_on(end, (uint64_t)(rand() % MORE)));
	kill(child, SIGKILL);
	while (waitpid(child, &status, WNOHANG) == 0) /* traffic goes on while it dies */
		MUST(go_on(end, 1));
	MUST(WIFSIGNALED(status));
	MUST(go_on(end, MORE));
	close(in);
}

/* It is one because there is a primary. */
static int automatic(void)
{
	char eal[256];
	snprintf(eal, sizeof(eal), "--file-prefix=tern --huge-dir=%s/huge --no-pci --proc-type=auto", getenv("TERN_TEST_PLACE"));
	return refused(eal, "--proc-type=auto");
}

static _Noreturn void killed(void)
{
	static struct end end[2];
	char command[64];

	seed();
	primary();
	snprintf(command, sizeof(command), "/proc/%d/exe auto", (int)getpid());
	MUST(system(command) == 0);
	ends_open(end);
	for (int round = 0; round < ROUNDS; round++) {
		kill_one(end, "statistics");
		if (round % 4)
			continue;
		for (int i = 0; i < 2; i++) /* what is asked of all processes, the dead one too: memory, devices */
			ops->close(&end[i].link);
		ends_open(end);
	}
	for (int round = 0; round < ROUNDS; round++)
		kill_one(end, "pools");
	printf("%d onlookers killed, %llu and %llu frames heard since the last opening\n", 2 * ROUNDS, (unsigned long long)end[0].heard,
	        (unsigned long long)end[1].heard);
	_exit(0); /* closing might wait for a lock of the dead */
}

/* @return it stands: empty, in a mount namespace of ours */
static bool place_make(void)
{
	char text[96];
	snprintf(text, sizeof(text), "%s/huge", place);
	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return false;
	bool is_there = !mount("tern", place, "tmpfs", 0, NULL) && !mkdir(text, 0700) && !mount("tern", text, "hugetlbfs", 0, "pagesize=2M");
	setenv("TERN_TEST_PLACE", place, 1);
	setenv("RUNTIME_DIRECTORY", place, 1); /* DPDK's */
	return is_there;
}

static volatile sig_atomic_t primary_pid;

/* Out of time, or told to end: so does it. */
static void too_long(int signal)
{
	(void)signal;
	if (primary_pid > 0)
		kill(primary_pid, SIGKILL);
}

int main(int argc, char **argv)
{
	char error[512];

	setbuf(stdout, NULL);
	alarm(LIMIT_S);
	if (link_find("dpdk", &ops, error, sizeof(error))) {
		printf("skip: %s\n", error);
		return 77;
	}
	if (argc == 4 && !strcmp(argv[1], "look"))
		look(atoi(argv[2]), !strcmp(argv[3], "pools"));
	if (argc == 2 && !strcmp(argv[1], "refused"))
		return refused("--no-pci --proc-type=secondary", "--proc-type=secondary") ||
		       refused("--no-pci --proc-type secondary", "--proc-type=secondary");
	if (argc == 2 && !strcmp(argv[1], "auto"))
		return automatic();
	bool is_apart = argc == 2 && !strcmp(argv[1], "apart");
	if (argc != 2 || (!is_apart && strcmp(argv[1], "killed")))
		return 2;
	bool is_there = place_make();
	if (!is_there)
		printf("skip: no mount namespace or hugetlbfs here: %s\n", strerror(errno));
	pid_t self = getpid(), child = is_there ? fork() : -1; /* DPDK's files are in use until it ends */
	if (!child) {
		mortal(self);
		if (is_apart)
			exit(apart());
		killed();
	}
	int status = 77 << 8;
	primary_pid = child;
	signal(SIGALRM, too_long);
	signal(SIGTERM, too_long);
	alarm(LIMIT_S + LONGER_S);
	while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
