/* See inter.h. Cases are CUnit tests, so that a failed check ends its case only; in a child it ends the process. */
#include "inter.h"
#include <CUnit/Basic.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TAKE = 64, FILES = 32 };

static bool in_child;
static char dir[128], key_path[160];
static char files[FILES][256];
static uint64_t seed;
static struct inter_node *nodes[INTER_NODES_MAX];

/* ---- checks -------------------------------------------------------------------------------------------------------------------------- */

void inter_fail(const char *file, int line, const char *format, ...)
{
	char text[1024];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	printf("\n    %s:%d: %s%s\n", file, line, in_child ? "(child) " : "", text);
	fflush(stdout);
	if (in_child)
		_exit(1);
	CU_assertImplementation(CU_FALSE, (unsigned)line, text, file, "", CU_TRUE);
	abort(); /* CUnit jumps */
}

void inter_equal(const char *file, int line, const char *what, int64_t got, int64_t want)
{
	if (got != want)
		inter_fail(file, line, "%s is %lld, must be %lld", what, (long long)got, (long long)want);
}

void inter_text(const char *file, int line, const char *text, const char *part)
{
	if (!strstr(text, part))
		inter_fail(file, line, "the text does not say \"%s\": %s", part, text);
}

uint64_t inter_now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- files --------------------------------------------------------------------------------------------------------------------------- */

const char *inter_dir(void)
{
	return dir;
}

const char *inter_key(void)
{
	return key_path;
}

uint64_t inter_seed(void)
{
	return seed;
}

const char *inter_file(const char *name, const char *content, mode_t mode)
{
	size_t i = 0;
	char path[256];
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	while (i < FILES && *files[i] && strcmp(files[i], path))
		i++;
	CHECK(i < FILES);
	strcpy(files[i], path);
	unlink(path);
	FILE *f = fopen(path, "w");
	CHECK(f);
	fputs(content, f);
	fchmod(fileno(f), mode);
	fclose(f);
	return files[i];
}

static void inter_setup(void)
{
	char line[128] = "tern-site-key-v1 ";
	const char *given = getenv("TERN_SEED");
	seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
	printf("TERN_SEED=%llu\n", (unsigned long long)seed);
	const char *tmp = getenv("TMPDIR");
	snprintf(dir, sizeof(dir), "%.100s/tern-inter.XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(dir)) {
		perror(dir);
		exit(2);
	}
	for (unsigned i = 0; i < 32; i++)
		sprintf(line + strlen(line), "%02x", (unsigned)(seed >> (i % 8) * 8 & 0xff) ^ i);
	strcat(line, "\n");
	snprintf(key_path, sizeof(key_path), "%s", inter_file("site.key", line, 0600));
	/* nothing of the caller's surroundings may reach the tests */
	const char *names[] = {"TERN_KEY", "TERN_CONTRACT", "TERN_CC", "TERN_MTU"};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		unsetenv(names[i]);
	setenv("HOME", dir, 1);
}

static void inter_teardown(void)
{
	for (size_t i = 0; i < FILES; i++)
		if (*files[i])
			unlink(files[i]);
	if (rmdir(dir))
		printf("%s: %s\n", dir, strerror(errno));
}

/* ---- nodes --------------------------------------------------------------------------------------------------------------------------- */

static void inter_log(void *arg, int level, const char *file, int line, const char *text)
{
	const char *base = strrchr(file, '/');
	printf("    [%d %p] %s:%d %s\n", level, arg, base ? base + 1 : file, line, text);
}

tern_config inter_config(void)
{
	tern_config c;
	tern_config_init(&c, sizeof(c));
	c.key_file = key_path;
	c.max_peers = 64;
	if (getenv("TERN_TEST_LOG"))
		c.log = inter_log;
	return c;
}

void inter_open(struct inter_node *n, const tern_config *config)
{
	tern_config c = config ? *config : inter_config();
	memset(n, 0, sizeof(*n));
	c.log_arg = n;
	int err = tern_open(&c, &n->ctx);
	if (err)
		inter_fail(__FILE__, __LINE__, "tern_open: %d %s", err, inter_detail(n, 0));
	CHECK_EQ(tern_ep_open(n->ctx, &n->ep), 0);
	size_t i = 0;
	while (i < INTER_NODES_MAX && nodes[i])
		i++;
	CHECK(i < INTER_NODES_MAX);
	nodes[i] = n;
}

void inter_close(struct inter_node *n)
{
	for (size_t i = 0; i < INTER_NODES_MAX; i++)
		if (nodes[i] == n)
			nodes[i] = NULL;
	if (n->ep)
		tern_ep_close(&n->ep);
	if (n->ctx)
		tern_close(&n->ctx);
	free(n->queue);
	memset(n, 0, sizeof(*n));
}

/* What a failed case left open must not live into the next. */
static void inter_close_all(void)
{
	for (size_t i = 0; i < INTER_NODES_MAX; i++)
		if (nodes[i])
			inter_close(nodes[i]);
}

/* The port is in the address' text, behind the last colon: knowledge of the tests, not of programs. */
static uint16_t inter_port(tern_ep *ep)
{
	char blob[TERN_ADDR_MAX + 1] = "";
	size_t bytes = TERN_ADDR_MAX;
	CHECK_EQ(tern_ep_address(ep, blob, &bytes), 0);
	blob[bytes] = 0;
	const char *colon = strrchr(blob, ':');
	CHECK(colon);
	return (uint16_t)atoi(colon + 1);
}

/* With TERN_TEST_RDMA (options of the rdma link, as mode=uc) every case runs over the two devices of tests/guest instead, which are private always. */
void inter_address(char *text, size_t bytes, const char *host, uint16_t port, const char *query)
{
	const char *rdma = getenv("TERN_TEST_RDMA"), *to = getenv("TERN_RDMA_TO");
	if (!rdma || !to || strcmp(host, "127.0.0.1")) {
		snprintf(text, bytes, "udp://%s:%u%s", host, port, query);
		return;
	}
	bool is_private = strstr(query, "private=1") != NULL;
	snprintf(text, bytes, "rdma://%s:%u%s%s%s%s", to, port, query,
	        is_private ? "&"
	        : *query   ? "&private=1&"
	                   : "?private=1&",
	        port ? "dev=rxe0&" : "dev=rxe1&", rdma);
}

void inter_listen_text(struct inter_node *n, const char *text)
{
	int err = tern_listen(n->ep, text);
	if (err)
		inter_fail(__FILE__, __LINE__, "tern_listen %s: %d %s", text, err, inter_detail(n, 0));
	n->port = inter_port(n->ep);
	CHECK(n->port);
}

void inter_listen(struct inter_node *n, const char *host, const char *query)
{
	char text[512];
	inter_address(text, sizeof(text), host, 0, query);
	inter_listen_text(n, text);
}

tern_peer inter_connect_text(struct inter_node *n, const char *text)
{
	tern_peer peer = 0;
	int err = tern_connect_text(n->ep, text, NULL, &peer);
	if (err)
		inter_fail(__FILE__, __LINE__, "tern_connect_text %s: %d %s", text, err, inter_detail(n, 0));
	return peer;
}

tern_peer inter_connect(struct inter_node *n, const char *host, uint16_t port, const char *query)
{
	char text[512];
	inter_address(text, sizeof(text), host, port, query);
	return inter_connect_text(n, text);
}

void inter_pair_with(struct inter_pair *p, const char *host, const char *query, const tern_config *config)
{
	memset(p, 0, sizeof(*p));
	inter_open(&p->a, config);
	inter_open(&p->b, config);
	inter_listen(&p->b, host, query);
	p->ab = inter_connect(&p->a, host, p->b.port, query);
	tern_event e = inter_await(&p->a, TERN_EV_CONNECTED, 0);
	if (e.status)
		inter_fail(__FILE__, __LINE__, "connecting: %d %s", e.status, inter_detail(&p->a, e.peer));
	CHECK_EQ(e.peer, p->ab);
	e = inter_await(&p->b, TERN_EV_CONNECTED, 0);
	CHECK_EQ(e.status, 0);
	p->ba = e.peer;
}

void inter_pair(struct inter_pair *p, const char *query, uint32_t flags)
{
	tern_config c = inter_config();
	c.flags = flags;
	inter_pair_with(p, "127.0.0.1", query, &c);
}

void inter_pair_close(struct inter_pair *p)
{
	inter_close(&p->a);
	inter_close(&p->b);
}

/* ---- events -------------------------------------------------------------------------------------------------------------------------- */

static size_t inter_poll(struct inter_node *n)
{
	size_t got = 0;
	if (n->room - n->events < TAKE) {
		n->room = n->room ? n->room * 2 : 4 * TAKE;
		n->queue = realloc(n->queue, n->room * sizeof(*n->queue));
		CHECK(n->queue);
	}
	CHECK_EQ(tern_poll(n->ep, n->queue + n->events, TAKE, &got), 0);
	n->events += got;
	return got;
}

bool inter_pump(uint64_t nap_ns)
{
	struct pollfd fd[INTER_NODES_MAX];
	size_t fds = 0, got = 0;
	for (size_t i = 0; i < INTER_NODES_MAX; i++)
		if (nodes[i])
			got += inter_poll(nodes[i]);
	if (got || !nap_ns)
		return got > 0;
	for (size_t i = 0; i < INTER_NODES_MAX; i++) {
		if (!nodes[i])
			continue;
		if (tern_arm(nodes[i]->ep))
			return false;
		fd[fds++] = (struct pollfd){.fd = tern_fd(nodes[i]->ep), .events = POLLIN};
	}
	struct timespec ts = {.tv_sec = (time_t)(nap_ns / 1000000000), .tv_nsec = (long)(nap_ns % 1000000000)};
	ppoll(fd, fds, &ts, NULL);
	return false;
}

bool inter_take(struct inter_node *n, uint32_t type, tern_op op, tern_event *out)
{
	for (size_t i = 0; i < n->events; i++) {
		if (n->queue[i].type != type || (op && n->queue[i].op != op))
			continue;
		*out = n->queue[i];
		n->events--;
		memmove(n->queue + i, n->queue + i + 1, (n->events - i) * sizeof(*n->queue));
		return true;
	}
	return false;
}

tern_event inter_await_for(struct inter_node *n, uint32_t type, tern_op op, unsigned seconds)
{
	uint64_t end = inter_now_ns() + seconds * 1000000000ull, now;
	tern_event e;
	while (!inter_take(n, type, op, &e)) {
		now = inter_now_ns();
		if (now >= end) {
			for (size_t i = 0; i < n->events; i++)
				printf("\n    waiting instead: type %u status %d op %llx", n->queue[i].type, n->queue[i].status,
				        (unsigned long long)n->queue[i].op);
			inter_fail(__FILE__, __LINE__, "no event of type %u for operation %llx within %u s", type, (unsigned long long)op, seconds);
		}
		inter_pump(end - now);
	}
	return e;
}

tern_event inter_await(struct inter_node *n, uint32_t type, tern_op op)
{
	return inter_await_for(n, type, op, INTER_DEADLINE_S);
}

void inter_drive(uint64_t ns)
{
	uint64_t end = inter_now_ns() + ns, now;
	while ((now = inter_now_ns()) < end)
		inter_pump(end - now);
}

const char *inter_detail(struct inter_node *n, uint64_t what)
{
	tern_error_detail(n->ctx, what, n->text, sizeof(n->text));
	return n->text;
}

uint64_t inter_stat_of(struct inter_node *n, const char *scope, const char *name)
{
	tern_stat s[64];
	size_t count = 64;
	CHECK_EQ(tern_stats_get(n->ctx, scope, s, &count), 0);
	for (size_t i = 0; i < count; i++)
		if (!strcmp(s[i].name, name))
			return s[i].value;
	inter_fail(__FILE__, __LINE__, "there is no statistic %s in scope \"%s\"", name, scope);
	return 0;
}

uint64_t inter_stat(struct inter_node *n, tern_peer peer, const char *name)
{
	char scope[64] = "";
	if (peer)
		snprintf(scope, sizeof(scope), "peer/%llu", (unsigned long long)peer);
	return inter_stat_of(n, scope, name);
}

/* ---- operations ---------------------------------------------------------------------------------------------------------------------- */

tern_op inter_send(struct inter_node *n, tern_peer peer, const void *data, uint64_t bytes, uint64_t tag, uint32_t flags)
{
	tern_iov iov = {.addr = (void *)(uintptr_t)data, .bytes = bytes};
	tern_buf buf = {.iov = &iov, .n = 1};
	tern_args args = {.size_bytes = sizeof(args), .tag = tag, .flags = flags};
	tern_op op = 0;
	int err = tern_send(n->ep, peer, &buf, &args, &op);
	if (err)
		inter_fail(__FILE__, __LINE__, "tern_send: %d %s", err, inter_detail(n, 0));
	return op;
}

tern_op inter_recv(struct inter_node *n, tern_peer peer, void *data, uint64_t bytes, uint64_t tag, uint64_t ignore)
{
	tern_iov iov = {.addr = data, .bytes = bytes};
	tern_buf buf = {.iov = &iov, .n = 1};
	tern_args args = {.size_bytes = sizeof(args), .tag = tag, .ignore = ignore};
	tern_op op = 0;
	int err = tern_recv(n->ep, peer, &buf, &args, &op);
	if (err)
		inter_fail(__FILE__, __LINE__, "tern_recv: %d %s", err, inter_detail(n, 0));
	return op;
}

static uint64_t inter_word(uint64_t at, uint64_t from)
{
	uint64_t z = (at + 1) * 0x9e3779b97f4a7c15ull ^ from;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	return z ^ z >> 31;
}

void inter_fill(void *data, uint64_t bytes, uint64_t from)
{
	uint8_t *p = data;
	for (uint64_t at = 0; at < bytes; at += 8) {
		uint64_t w = inter_word(at, from);
		memcpy(p + at, &w, bytes - at < 8 ? bytes - at : 8);
	}
}

bool inter_filled(const void *data, uint64_t bytes, uint64_t from)
{
	const uint8_t *p = data;
	for (uint64_t at = 0; at < bytes; at += 8) {
		uint64_t w = inter_word(at, from);
		if (memcmp(p + at, &w, bytes - at < 8 ? bytes - at : 8)) {
			printf("\n    byte %llu of %llu differs", (unsigned long long)at, (unsigned long long)bytes);
			return false;
		}
	}
	return true;
}

/* ---- processes ----------------------------------------------------------------------------------------------------------------------- */

void inter_spawn(struct inter_child *c, void (*fn)(int fd))
{
	int fd[2];
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
	fflush(stdout);
	c->pid = fork();
	CHECK(c->pid >= 0);
	if (!c->pid) {
		in_child = true;
		close(fd[0]);
		alarm(4 * INTER_DEADLINE_S); /* never outlives a parent that failed */
		fn(fd[1]);
		fflush(stdout);
		_exit(0);
	}
	close(fd[1]);
	c->fd = fd[0];
}

int inter_reap(struct inter_child *c)
{
	int status = -1;
	close(c->fd); /* a child that waits for a word sees the end */
	CHECK_EQ(waitpid(c->pid, &status, 0), c->pid);
	return status;
}

void inter_say(int fd, const void *data, size_t bytes)
{
	CHECK_EQ(send(fd, data, bytes, MSG_NOSIGNAL), (ssize_t)bytes);
}

void inter_hear(int fd, void *data, size_t bytes)
{
	uint64_t end = inter_now_ns() + INTER_DEADLINE_S * 1000000000ull;
	size_t have = 0;
	while (have < bytes) {
		ssize_t n = recv(fd, (uint8_t *)data + have, bytes - have, MSG_DONTWAIT);
		if (n > 0)
			have += (size_t)n;
		else if (n == 0 || errno != EAGAIN || inter_now_ns() > end)
			inter_fail(
			        __FILE__, __LINE__, "the other process said %zu of %zu bytes: %s", have, bytes, n ? strerror(errno) : "it is gone");
		else if (!inter_pump(0))
			poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 1);
	}
}

/* ---- the program --------------------------------------------------------------------------------------------------------------------- */

uint16_t inter_free_port(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t bytes = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	CHECK(fd >= 0 && !bind(fd, (struct sockaddr *)&a, sizeof(a)) && !getsockname(fd, (struct sockaddr *)&a, &bytes));
	close(fd);
	return ntohs(a.sin_port);
}

int inter_main(int argc, char **argv, const char *suite, const struct inter_case *cases, size_t n)
{
	setbuf(stdout, NULL);
	inter_setup();
	if (CU_initialize_registry() != CUE_SUCCESS)
		return 2;
	CU_pSuite s = CU_add_suite_with_setup_and_teardown(suite, NULL, NULL, NULL, inter_close_all);
	for (size_t i = 0; i < n && s; i++) {
		bool wanted = argc < 2;
		for (int k = 1; k < argc; k++)
			wanted |= !strcmp(argv[k], cases[i].name);
		if (wanted && !CU_add_test(s, cases[i].name, cases[i].run))
			return 2;
	}
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failed = CU_get_number_of_failures();
	unsigned run = CU_get_number_of_tests_run();
	CU_cleanup_registry();
	inter_teardown();
	return failed ? 1 : run ? 0 : 2;
}
