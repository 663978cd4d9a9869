/* The small IP host and the kernel twin against the kernel at the other end of a veth pair: it resolves us, pings us with every size, exchanges datagrams, and
 * with a twin talks TCP to us. Needs root (namespaces, packet sockets); otherwise it is a skip. */
#include "station.h"
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "link/dpdk/ifconf.h"
#include "pump.h"

enum { TRIES = 8 };
static struct pump pump;

static int far_socket(int family, int type, int protocol)
{
	pump_enter(pump.far);
	int fd = socket(family, type | SOCK_NONBLOCK, protocol);
	pump_enter(pump.near);
	CU_ASSERT_TRUE_FATAL(fd >= 0);
	return fd;
}

static socklen_t size_of(const union net_addr *a)
{
	return a->sa.sa_family == AF_INET ? sizeof(a->v4) : sizeof(a->v6);
}

/* One echo of so many bytes from the far kernel. @return how many equal replies came within 50 ms of the first; 0: none in time */
static int ping(int fd, const char *to, size_t bytes, uint16_t sequence)
{
	uint8_t out[9000], in[9200];
	union net_addr a = address(to, 0);
	bool is_ip6 = a.sa.sa_family == AF_INET6;
	int replies = 0;

	for (size_t i = 0; i < bytes; i++)
		out[i] = (uint8_t)rand_next();
	memcpy(out, (uint8_t[8]){is_ip6 ? 128 : 8, 0, 0, 0, 0x7e, 0x41, (uint8_t)(sequence >> 8), (uint8_t)sequence}, 8);
	uint16_t sum = (uint16_t)~plain_sum(out, bytes, 0); /* the kernel makes ICMPv6's itself */
	out[2] = (uint8_t)(sum >> 8);
	out[3] = (uint8_t)sum;
	CU_ASSERT_EQUAL(sendto(fd, out, bytes, 0, &a.sa, size_of(&a)), (ssize_t)bytes);
	for (int wait = 3000; pump_until(&pump, fd, POLLIN, wait);) {
		ssize_t n = recv(fd, in, sizeof(in), 0);
		size_t skip = is_ip6 ? 0 : 20;
		if (n == (ssize_t)(bytes + skip) && in[skip] == (is_ip6 ? 129 : 0) && !memcmp(in + skip + 4, out + 4, bytes - 4)) {
			replies++;
			wait = 50;
		}
	}
	return replies;
}

static void ping_sizes(uint32_t mtu)
{
	const size_t sizes[] = {8, 9, 64, 577, mtu / 2 + 1, mtu - 49, mtu - 48, mtu - 29, mtu - 28};
	int four = far_socket(AF_INET, SOCK_RAW, 1), six = far_socket(AF_INET6, SOCK_RAW, 58);
	uint16_t sequence = 0;

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		CU_ASSERT_EQUAL(ping(four, "10.9.0.2", sizes[i], ++sequence), 1);
		if (sizes[i] <= mtu - 48)
			CU_ASSERT_EQUAL(ping(six, "fd09::2", sizes[i], ++sequence), 1);
	}
	close(four);
	close(six);
}

/* A datagram to user space and back; lost ones (the first waits for ARP) are sent again. */
static bool datagram(int fd, const union net_addr *to, size_t bytes)
{
	uint8_t out[9000], in[9000];

	for (size_t i = 0; i < bytes; i++)
		out[i] = (uint8_t)rand_next();
	for (int tries = 0; tries < TRIES; tries++) {
		if (sendto(fd, out, bytes, 0, &to->sa, size_of(to)) != (ssize_t)bytes)
			return false;
		if (!pump_until(&pump, fd, POLLIN, 500))
			continue;
		union net_addr from;
		socklen_t length = sizeof(from);
		ssize_t n = recvfrom(fd, in, sizeof(in), 0, &from.sa, &length);
		return n == (ssize_t)bytes && !memcmp(in, out, bytes) && length == size_of(to);
	}
	return false;
}

static void datagrams(uint32_t mtu)
{
	union net_addr to[2] = {address("10.9.0.2", 7400), address("fd09::2", 7400)};

	for (int k = 0; k < 2; k++) {
		int fd = far_socket(to[k].sa.sa_family, SOCK_DGRAM, 0);
		uint64_t before = pump.echoed;
		for (int n = 0; n < 300; n++)
			CU_ASSERT_TRUE_FATAL(datagram(fd, &to[k], n < 3 ? (size_t)n : n == 3 ? mtu - 48 : rand_below(mtu - 47)));
		CU_ASSERT_TRUE(pump.echoed >= before + 300);
		close(fd);
	}
	CU_ASSERT_EQUAL(pump.host.drops[NET_DROP_UDP_SUM] + pump.host.drops[NET_DROP_IP_SUM] + pump.host.drops[NET_DROP_ICMP_SUM], 0);
	CU_ASSERT_EQUAL(pump.failed, 0);
}

static void test_alone(void)
{
	ping_sizes(1500);
	datagrams(1500);
	CU_ASSERT_TRUE(pump.host.answers > 10 && pump.host.requests >= 2);
}

static void test_jumbo(void)
{
	ping_sizes(9000);
	datagrams(9000);
}

/* bytes both ways between two connected sockets */
static bool tcp_exchange(int a, int b, size_t bytes)
{
	static uint8_t out[65536], in[65536];
	const int from[2] = {a, b}, to[2] = {b, a};

	for (int way = 0; way < 2; way++)
		for (size_t sent = 0, got = 0; got < bytes;) {
			size_t part = bytes - sent < sizeof(out) ? bytes - sent : sizeof(out);
			for (size_t i = 0; i < part; i++)
				out[i] = (uint8_t)((sent + i) * 2654435761u >> 24);
			ssize_t n = part ? send(from[way], out, part, MSG_NOSIGNAL) : 0;
			sent += n > 0 ? (size_t)n : 0;
			if (!pump_until(&pump, to[way], POLLIN, 10000))
				return false;
			n = recv(to[way], in, sizeof(in), 0);
			for (ssize_t i = 0; i < n; i++)
				if (in[i] != (uint8_t)((got + (size_t)i) * 2654435761u >> 24))
					return false;
			if (n == 0 || (n < 0 && errno != EAGAIN))
				return false;
			got += n > 0 ? (size_t)n : 0;
		}
	return true;
}

/* TCP from one namespace to a listener in the other. */
static void tcp(int listen_ns, int dial_ns, const char *to)
{
	union net_addr a = address(to, 9001);
	int one = 1;

	pump_enter(listen_ns);
	int listener = socket(a.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	CU_ASSERT_TRUE_FATAL(!bind(listener, &a.sa, size_of(&a)) && !listen(listener, 1));
	pump_enter(dial_ns);
	int dialled = socket(a.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
	CU_ASSERT_TRUE_FATAL(connect(dialled, &a.sa, size_of(&a)) < 0 && errno == EINPROGRESS);
	pump_enter(pump.near);
	CU_ASSERT_TRUE_FATAL(pump_until(&pump, listener, POLLIN, 10000));
	int taken = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
	CU_ASSERT_TRUE_FATAL(taken >= 0);
	CU_ASSERT_TRUE(pump_until(&pump, dialled, POLLOUT, 5000));
	CU_ASSERT_TRUE(tcp_exchange(dialled, taken, 1 << 20));
	close(dialled);
	close(taken);
	close(listener);
}

static void test_twin(void)
{
	union net_addr own[2] = {address("10.9.0.2", 9999), address("fd09::2", 9999)};

	ping_sizes(1500); /* exactly one reply each: the kernel's */
	CU_ASSERT_EQUAL(pump.host.answers, 0);
	datagrams(1500);  /* ours are taken out in user space ... */
	for (int k = 0; k < 2; k++) { /* ... and others reach the kernel's sockets */
		uint8_t in[16];
		int there = socket(own[k].sa.sa_family, SOCK_DGRAM | SOCK_NONBLOCK, 0), here = far_socket(own[k].sa.sa_family, SOCK_DGRAM, 0);
		CU_ASSERT_EQUAL_FATAL(bind(there, &own[k].sa, size_of(&own[k])), 0);
		CU_ASSERT_EQUAL(sendto(here, "to the kernel", 13, 0, &own[k].sa, size_of(&own[k])), 13);
		CU_ASSERT_TRUE(pump_until(&pump, there, POLLIN, 3000) && recv(there, in, sizeof(in), 0) == 13);
		close(there);
		close(here);
	}
	tcp(pump.near, pump.far, "10.9.0.2");
	tcp(pump.near, pump.far, "fd09::2");
	tcp(pump.far, pump.near, "10.9.0.1");
	tcp(pump.far, pump.near, "fd09::1");
	CU_ASSERT_TRUE(pump.twin.rx_frames > 100 && pump.twin.tx_frames > 100 && !pump.twin.rx_dropped && !pump.twin.tx_dropped);
}

/* The twin as the kernel sees it, read back through the function that takes interfaces over: what went in comes out. */
static void test_taken_over(void)
{
	struct net_config c, want = pump.host.config;
	char error[300] = "";

	CU_ASSERT_EQUAL(net_from_interface("twin0", &c, error, sizeof(error)), 0);
	CU_ASSERT_STRING_EQUAL(error, "");
	CU_ASSERT_TRUE(!memcmp(c.mac, want.mac, 6) && c.mtu_bytes == want.mtu_bytes && c.vlan == 0);
	CU_ASSERT_TRUE(c.ip4.s_addr == want.ip4.s_addr && c.prefix4 == 24 && c.gateway4.s_addr == want.gateway4.s_addr);
	CU_ASSERT_TRUE(!memcmp(&c.ip6, &want.ip6, 16) && c.prefix6 == 64 && !memcmp(&c.gateway6, &want.gateway6, 16));
	CU_ASSERT_TRUE(!memcmp(&c.local6, &pump.host.local6, 16));
	CU_ASSERT_EQUAL(net_from_interface("nosuch0", &c, error, sizeof(error)), -TERN_EADDR);
	CU_ASSERT_PTR_NOT_NULL(strstr(error, "if=nosuch0: No such device"));
	CU_ASSERT_EQUAL(net_from_interface("lo", &c, error, sizeof(error)), -TERN_EADDR);
	CU_ASSERT_PTR_NOT_NULL(strstr(error, "not an Ethernet interface"));
	CU_ASSERT_EQUAL(net_from_interface("", &c, error, sizeof(error)), -TERN_EADDR);
}

static void test_twin_refused(void)
{
	struct twin t;
	char error[300] = "";

	CU_ASSERT_EQUAL(twin_open(&t, "twin0", &pump.host.config, error, sizeof(error)), -TERN_EADDR); /* the name is taken */
	CU_ASSERT_PTR_NOT_NULL(strstr(error, "twin0 cannot be made"));
	CU_ASSERT_EQUAL(twin_open(&t, "a-name-that-is-too-long", &pump.host.config, error, sizeof(error)), -TERN_EADDR);
	fflush(stdout);
	pid_t child = fork();
	if (!child) {
		bool is_well = !setresgid(65534, 65534, 65534) && !setresuid(65534, 65534, 65534) &&
		               twin_open(&t, NULL, &pump.host.config, error, sizeof(error)) == -TERN_EIO &&
		               (strstr(error, "CAP_NET_ADMIN") || strstr(error, "/dev/net/tun"));
		if (!is_well)
			printf("\n    %s", error);
		fflush(stdout);
		_exit(is_well ? 0 : 1);
	}
	int status = -1;
	CU_ASSERT_TRUE(waitpid(child, &status, 0) == child && status == 0);
}

static const struct { const char *name; struct unit_case run[3]; uint32_t mtu; uint16_t vlan; bool has_twin; } beds[] = {
	{"alone", {{"alone", test_alone}}, 1500, 0, false},
	{"jumbo", {{"MTU 9000", test_jumbo}}, 9000, 0, false},
	{"twin", {{"with a twin", test_twin}, {"taken over", test_taken_over}, {"twin refused", test_twin_refused}}, 1500, 0, true},
	{"vlan", {{"a VLAN", test_alone}}, 1500, 300, false},
	{"vlan_twin", {{"a VLAN with a twin", test_twin}}, 1500, 300, true},
};

int main(int argc, char **argv)
{
	setbuf(stdout, NULL);
	for (size_t i = 0; argc == 2 && i < sizeof(beds) / sizeof(beds[0]); i++) {
		if (strcmp(argv[1], beds[i].name))
			continue;
		struct net_config config = station_config();
		config.mtu_bytes = beds[i].mtu;
		config.vlan = beds[i].vlan;
		rand_start(unit_seed());
		int bad = pump_open(&pump, &config, beds[i].has_twin);
		size_t n = 0;
		while (n < 3 && beds[i].run[n].name)
			n++;
		if (!bad)
			bad = unit_main("link/dpdk against the kernel", beds[i].run, n);
		pump_close(&pump);
		return bad;
	}
	printf("usage: %s alone|jumbo|twin|vlan|vlan_twin\n", argv[0]);
	return 2;
}
