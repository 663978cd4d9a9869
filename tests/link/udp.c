/* The udp link's fixture, and cases that only a link over sockets has. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "suite.h"

static bool udp_configure(struct link_config end[2], int variant)
{
	end[0].host = end[1].host = variant ? "::1" : "127.0.0.1";
	if (!variant)
		return true;
	struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool there = fd >= 0 && !bind(fd, (struct sockaddr *)&a, sizeof(a));
	if (fd >= 0)
		close(fd);
	if (!there)
		printf("skip: no IPv6 on this machine ");
	return there;
}

static uint64_t udp_now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void udp_sleep(const struct link_wait *wait)
{
	struct pollfd p = {.fd = wait->fd, .events = POLLIN};
	if (wait->deadline_ns > udp_now_ns())
		poll(&p, 1, 5);
}

const struct suite_fixture fixture_udp = {
    .name = "udp",
    .scheme = "udp",
    .has = SUITE_HOSTS | SUITE_SOCKETS | SUITE_FD | SUITE_ECN | SUITE_PLACES | SUITE_ALONE,
    .configure = udp_configure,
    .now_ns = udp_now_ns,
    .sleep = udp_sleep,
};

static void udp_bad_host(void)
{
	char error[256] = "";
	struct suite_end end;
	static const char *const hosts[] = {"999.1.1.1", "not a host", "192.0.2.77", "::zz"};

	for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
		struct link_config config = {.host = hosts[i], .error = error, .error_bytes = sizeof(error)};
		CU_ASSERT_EQUAL(suite_open_link(&config, &end), -TERN_EADDR);
		CU_ASSERT_PTR_NOT_NULL(strstr(error, hosts[i]));
	}
	struct link_config config = {.host = "127.0.0.1", .options = "ecn=maybe", .error = error, .error_bytes = sizeof(error)};
	CU_ASSERT_EQUAL(suite_open_link(&config, &end), -TERN_EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(error, "ecn=maybe"));
}

static void udp_bad_remote(void)
{
	struct suite_end end[2];
	struct link_path *path;
	CU_ASSERT_FATAL(suite_open(end, 0));
	struct link_path_config to = {.remote = end[0].link->local};
	to.remote.bytes = 3;
	CU_ASSERT_EQUAL(suite_ops->path_open(end[1].link, &to, &path), -TERN_EADDR);
	CU_ASSERT_PTR_NULL(path);
	memset(&to, 0xff, sizeof(to));
	to.remote.bytes = 28;
	CU_ASSERT_EQUAL(suite_ops->path_open(end[1].link, &to, &path), -TERN_EADDR);
	suite_close(end);
}

static void udp_port_in_use(void)
{
	struct suite_end end[2], second;
	char error[256] = "", port[8];

	CU_ASSERT_FATAL(suite_open(end, 0));
	struct sockaddr_in a;
	memcpy(&a, end[0].link->local.data, sizeof(a));
	struct link_config config = {.host = "127.0.0.1", .port = ntohs(a.sin_port), .listening = true, .error = error, .error_bytes = sizeof(error)};
	CU_ASSERT_EQUAL(suite_open_link(&config, &second), -TERN_EADDR);
	snprintf(port, sizeof(port), "%u", config.port);
	CU_ASSERT_PTR_NOT_NULL(strstr(error, port));
	suite_close(end);
	CU_ASSERT_EQUAL(suite_open_link(&config, &second), 0);
	suite_ops->close(&second.link);
}

static void udp_ipv6(void)
{
	struct suite_end end[2];
	uint32_t sizes[5] = {1400, 1400, 1400, 1400, 12};
	if (!suite_open(end, 1))
		return;
	CU_ASSERT_EQUAL(end[1].path->overhead_bytes, 48);
	suite_pass(end, 0, sizes, 5, 2, false);
	suite_pass(end, 1, sizes, 5, 2, false);
	suite_pass(end, 1, &end[1].path->max_frame_bytes, 1, 2, false);
	uint32_t big[2] = {40000, 25000};
	suite_pass(end, 1, big, 2, 2, false);
	suite_close(end);
}

/* No host: both families reach it, and an IPv4 sender's address is an IPv4 address. */
static void udp_dual_stack(void)
{
	struct suite_end end[2] = {{0}, {0}}, four;
	struct link_config any = {.listening = true}, v4 = {.host = "127.0.0.1"}, v6 = {.host = "::1"};
	uint8_t memory[100];
	struct frame f;
	(void)end;
	struct suite_end server;
	CU_ASSERT_EQUAL_FATAL(suite_open_link(&any, &server), 0);
	struct sockaddr_in6 bound;
	memcpy(&bound, server.link->local.data, sizeof(bound));
	for (int six = 0; six < 2; six++) {
		struct link_path_config to = {0};
		if (six && (bound.sin6_family != AF_INET6 || suite_open_link(&v6, &four)))
			continue;
		if (!six)
			CU_ASSERT_EQUAL_FATAL(suite_open_link(&v4, &four), 0);
		struct sockaddr_in to4 = {.sin_family = AF_INET, .sin_port = bound.sin6_port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
		struct sockaddr_in6 to6 = {.sin6_family = AF_INET6, .sin6_port = bound.sin6_port, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
		to.remote.bytes = six ? sizeof(to6) : sizeof(to4);
		memcpy(to.remote.data, six ? (void *)&to6 : (void *)&to4, to.remote.bytes);
		CU_ASSERT_EQUAL_FATAL(suite_ops->path_open(four.link, &to, &four.path), 0);
		suite_frame(&f, four.path, memory, sizeof(memory), 1);
		suite_send(&four, &f, 1);
		CU_ASSERT_EQUAL_FATAL(suite_recv(&server, 1), 1);
		CU_ASSERT_EQUAL(server.in[0].ecn, 2);
		CU_ASSERT_EQUAL(suite_ops->from(server.link, server.in, &to.remote), 0);
		suite_free(&server);
		sa_family_t family;
		memcpy(&family, to.remote.data, sizeof(family));
		CU_ASSERT_EQUAL(family, six ? AF_INET6 : AF_INET);
		CU_ASSERT_EQUAL_FATAL(suite_ops->path_open(server.link, &to, &server.path), 0);
		struct suite_end pair[2] = {server, four};
		uint32_t size = 1000;
		suite_pass(pair, 0, &size, 1, 1, false);
		suite_pass(pair, 1, &size, 1, 1, false);
		suite_ops->path_close(server.link, &server.path);
		suite_ops->close(&four.link);
	}
	suite_ops->close(&server.link);
}

static int udp_stranger(const struct suite_end *end, int tos)
{
	struct sockaddr_in to;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	CU_ASSERT_FATAL(fd >= 0);
	memcpy(&to, end->link->local.data, sizeof(to));
	CU_ASSERT_EQUAL(setsockopt(fd, IPPROTO_IP, IP_TOS, &tos, sizeof(tos)), 0);
	CU_ASSERT_EQUAL_FATAL(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	return fd;
}

static void udp_ecn(void)
{
	struct suite_end end[2];
	uint8_t memory[64];
	struct frame f;

	CU_ASSERT_FATAL(suite_open(end, 0));
	suite_frame(&f, end[1].path, memory, sizeof(memory), 1);
	suite_send(&end[1], &f, 1);
	CU_ASSERT_EQUAL(suite_recv(&end[0], 1), 1);
	CU_ASSERT_EQUAL(end[0].in[0].ecn, 2);
	suite_free(&end[0]);
	for (int ecn = 0; ecn < 4; ecn++) {
		int fd = udp_stranger(&end[0], ecn);
		CU_ASSERT_EQUAL(send(fd, "x", 1, 0), 1);
		CU_ASSERT_EQUAL(suite_recv(&end[0], 1), 1);
		CU_ASSERT_EQUAL(end[0].in[0].ecn, ecn);
		suite_free(&end[0]);
		close(fd);
	}
	suite_close(end);
}

/* Random datagrams of random sizes: they come out as they are, through the shared socket, and the path works during and after. */
static void udp_strangers(void)
{
	static uint8_t junk[4096];
	struct suite_end end[2];
	size_t got = 0, sent = 0;

	CU_ASSERT_FATAL(suite_open(end, 0));
	int fd = udp_stranger(&end[0], 0);
	for (int i = 0; i < 10000; i++) {
		size_t n = suite_random() % 32 ? suite_random() % 300 : suite_random() % sizeof(junk);
		for (size_t k = 0; k < n; k++)
			junk[k] = (uint8_t)suite_random();
		sent += n > 0;
		CU_ASSERT(send(fd, junk, n, 0) == (ssize_t)n);
		if (i % 50)
			continue;
		while (got < sent && suite_recv(&end[0], 1)) {
			CU_ASSERT_PTR_NULL(end[0].in[0].path);
			got++;
			suite_free(&end[0]);
		}
	}
	while (got < sent && suite_recv(&end[0], 1)) {
		got++;
		suite_free(&end[0]);
	}
	CU_ASSERT_EQUAL(got, sent);
	uint32_t size = 1200;
	suite_pass(end, 1, &size, 1, 1, false);
	close(fd);
	suite_close(end);
}

/* Nobody listens there: the ICMP answers end nothing, frames count as lost on the way, and a listener that comes later is reached. */
static void udp_refused(void)
{
	struct suite_end end[2], late;
	uint8_t memory[100];
	struct frame f;
	char error[256] = "";

	CU_ASSERT_FATAL(suite_open(end, 0));
	struct sockaddr_in a;
	memcpy(&a, end[0].link->local.data, sizeof(a));
	end[0].path = NULL;
	suite_ops->close(&end[0].link);
	for (int i = 0; i < 20; i++) {
		suite_frame(&f, end[1].path, memory, sizeof(memory), 1);
		suite_send(&end[1], &f, 1);
		CU_ASSERT_EQUAL(suite_ops->rx(end[1].link, end[1].in, 1, suite_now()), 0);
	}
	struct link_config config = {.host = "127.0.0.1", .port = ntohs(a.sin_port), .listening = true, .error = error, .error_bytes = sizeof(error)};
	CU_ASSERT_EQUAL_FATAL(suite_open_link(&config, &late), 0);
	suite_frame(&f, end[1].path, memory, sizeof(memory), 1);
	suite_send(&end[1], &f, 1);
	CU_ASSERT_EQUAL(suite_recv(&late, 1), 1);
	suite_free(&late);
	suite_ops->close(&late.link);
	suite_ops->path_close(end[1].link, &end[1].path);
	suite_ops->close(&end[1].link);
}

static void udp_set_mtu(int mtu)
{
	struct ifreq r = {.ifr_name = "lo"};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	r.ifr_flags = IFF_UP | IFF_LOOPBACK | IFF_RUNNING;
	CU_ASSERT_EQUAL(ioctl(fd, SIOCSIFFLAGS, &r), 0);
	r.ifr_mtu = mtu;
	CU_ASSERT_EQUAL(ioctl(fd, SIOCSIFMTU, &r), 0);
	close(fd);
}

/* In a network namespace of its own the interface's MTU shrinks under an open path. */
static void udp_mtu_shrinks(void)
{
	struct suite_end end[2];
	int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (home < 0 || unshare(CLONE_NEWNET)) {
		printf("skip: no network namespace of our own (needs root) ");
		close(home);
		return;
	}
	udp_set_mtu(1500);
	CU_ASSERT_FATAL(suite_open(end, 0));
	CU_ASSERT_EQUAL(end[1].path->max_frame_bytes, 1472);
	uint32_t sizes[20];
	for (int i = 0; i < 20; i++)
		sizes[i] = 1472;
	suite_pass(end, 1, sizes, 20, 2, false);
	udp_set_mtu(1400);
	static uint8_t memory[20][1472];
	static struct frame frames[20];
	for (int i = 0; i < 20; i++)
		suite_frame(&frames[i], end[1].path, memory[i], 1472, 2);
	suite_send(&end[1], frames, 20);
	CU_ASSERT_EQUAL(end[1].path->max_frame_bytes, 1372);
	CU_ASSERT_EQUAL(end[1].link->tx_dropped, 20);
	for (int i = 0; i < 20; i++)
		sizes[i] = 1372;
	uint64_t calls = end[1].link->tx_calls;
	suite_pass(end, 1, sizes, 20, 2, false);
	CU_ASSERT_EQUAL(end[1].link->tx_calls - calls, 1); /* still one batch */
	suite_close(end);
	CU_ASSERT_EQUAL(setns(home, CLONE_NEWNET), 0);
	close(home);
}

static void *udp_echo(void *arg)
{
	int fd = *(int *)arg;
	char bytes[64];
	for (ssize_t n; (n = recv(fd, bytes, sizeof(bytes), 0)) > 1;)
		if (send(fd, bytes, (size_t)n, 0) != n)
			break;
	return NULL;
}

/* Asleep on the descriptor while another thread answers. */
static void udp_wakes_up(void)
{
	struct suite_end end[2];
	pthread_t thread;
	uint8_t memory[64];
	struct frame f;
	struct link_wait wait;

	CU_ASSERT_FATAL(suite_open(end, 0));
	int fd = udp_stranger(&end[0], 0);
	struct link_path_config to = {.remote.bytes = sizeof(struct sockaddr_in)};
	socklen_t n = sizeof(to.remote.data);
	struct link_path *path;
	CU_ASSERT_EQUAL_FATAL(getsockname(fd, (struct sockaddr *)to.remote.data, &n), 0);
	CU_ASSERT_EQUAL_FATAL(suite_ops->path_open(end[0].link, &to, &path), 0);
	CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, udp_echo, &fd), 0);
	for (int i = 0; i <= 300; i++) {
		suite_frame(&f, path, memory, i < 300 ? sizeof(memory) : 1, 1); /* one byte ends the thread */
		suite_send(&end[0], &f, 1);
		for (uint64_t until = suite_now() + SUITE_PATIENCE_MS * 1000000ull; i < 300 && !end[0].n_in && suite_now() < until;) {
			end[0].n_in = suite_ops->rx(end[0].link, end[0].in, 1, suite_now());
			if (end[0].n_in)
				break;
			suite_ops->wait(end[0].link, true, &wait);
			struct pollfd p = {.fd = wait.fd, .events = POLLIN};
			if (wait.deadline_ns > suite_now())
				CU_ASSERT_EQUAL_FATAL(poll(&p, 1, SUITE_PATIENCE_MS), 1);
		}
		CU_ASSERT_EQUAL_FATAL(end[0].n_in, i < 300);
		suite_free(&end[0]);
	}
	pthread_join(thread, NULL);
	close(fd);
	suite_close(end);
}

static void *udp_other_thread(void *arg)
{
	struct suite_end *end = arg;
	uint32_t sizes[8] = {1300, 1300, 1300, 1300, 1300, 1300, 1300, 40};
	for (int i = 0; i < 10; i++) {
		suite_pass(end, 0, sizes, 8, 2, false);
		suite_pass(end, 1, sizes, 8, 2, false);
	}
	return NULL;
}

/* Whoever polls drives the loop: a link may be used by one thread after another. */
static void udp_threads_take_turns(void)
{
	struct suite_end end[2];
	pthread_t thread;

	CU_ASSERT_FATAL(suite_open(end, 0));
	udp_other_thread(end);
	CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, udp_other_thread, end), 0);
	pthread_join(thread, NULL);
	udp_other_thread(end);
	suite_close(end);
}

static void udp_no_gso(void)
{
	struct suite_end end[2];
	char options[64];
	const char *before = suite_options;
	uint32_t sizes[30];
	for (int i = 0; i < 30; i++)
		sizes[i] = 1000;
	snprintf(options, sizeof(options), "%s&gso=0&gro=0&ecn=0", before ? before : "");
	suite_options = options;
	CU_ASSERT_FATAL(suite_open(end, 0));
	suite_pass(end, 1, sizes, 30, 2, false);
	suite_pass(end, 0, sizes, 30, 2, false);
	suite_close(end);
	suite_options = before;
}

const struct suite_case udp_cases[] = {
    {"udp_bad_host", udp_bad_host, SUITE_SOCKETS},
    {"udp_bad_remote", udp_bad_remote, SUITE_SOCKETS},
    {"udp_port_in_use", udp_port_in_use, SUITE_SOCKETS},
    {"udp_ipv6", udp_ipv6, SUITE_SOCKETS},
    {"udp_dual_stack", udp_dual_stack, SUITE_SOCKETS},
    {"udp_ecn", udp_ecn, SUITE_SOCKETS},
    {"udp_strangers", udp_strangers, SUITE_SOCKETS},
    {"udp_refused", udp_refused, SUITE_SOCKETS},
    {"udp_mtu_shrinks", udp_mtu_shrinks, SUITE_SOCKETS},
    {"udp_wakes_up", udp_wakes_up, SUITE_SOCKETS},
    {"udp_threads_take_turns", udp_threads_take_turns, SUITE_SOCKETS},
    {"udp_no_gso", udp_no_gso, SUITE_SOCKETS},
};
const size_t udp_n_cases = sizeof(udp_cases) / sizeof(udp_cases[0]);
