/* See pump.h. */
#include "pump.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { FRAME_ROOM = 9300 };

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

int pump_shell(const char *format, ...)
{
	char text[1000];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return system(text);
}

void pump_enter(int ns)
{
	if (setns(ns, CLONE_NEWNET)) {
		perror("setns");
		abort();
	}
}

/* Checksums complete and no large segments, as they are on a wire. */
static void plain_frames(const char *name)
{
	static const uint32_t off[] = {ETHTOOL_STXCSUM, ETHTOOL_SGSO, ETHTOOL_STSO, ETHTOOL_SGRO};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	for (size_t i = 0; i < sizeof(off) / sizeof(off[0]); i++) {
		struct ethtool_value v = {.cmd = off[i]};
		struct ifreq ifr = {.ifr_data = (void *)&v};
		snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
		ioctl(fd, SIOCETHTOOL, &ifr);
	}
	close(fd);
}

static int new_namespace(void)
{
	return unshare(CLONE_NEWNET) ? -1 : open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
}

static bool port_open(struct pump *p)
{
	p->port = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, htons(ETH_P_ALL));
	struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = (int)if_nametoindex("p0")};
	struct packet_mreq all = {.mr_ifindex = at.sll_ifindex, .mr_type = PACKET_MR_PROMISC};
	return p->port >= 0 && !bind(p->port, (struct sockaddr *)&at, sizeof(at)) &&
	       !setsockopt(p->port, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof(all));
}

int pump_open(struct pump *p, const struct net_config *config, bool with_twin)
{
	char error[300];
	const char *why;

	memset(p, 0, sizeof(*p));
	p->port = p->twin.fd = p->near = -1;
	p->far = new_namespace();
	p->near = p->far < 0 ? -1 : new_namespace();
	if (p->near < 0) {
		printf("SKIP: no network namespaces here: %s\n", strerror(errno));
		return 77;
	}
	/* p0 has no addresses of its own: the kernel must not answer beside the host */
	if (pump_shell("ip link add p0 type veth peer name p1 netns /proc/%d/fd/%d", getpid(), p->far) ||
	    pump_shell("echo 1 >/proc/sys/net/ipv6/conf/p0/disable_ipv6; ip link set lo up && ip link set p0 mtu %u up", config->mtu_bytes) ||
	    !port_open(p)) {
		printf("SKIP: no veth pair or packet socket here\n");
		return 77;
	}
	plain_frames("p0");
	pump_enter(p->far);
	if (pump_shell("echo 0 >/proc/sys/net/ipv6/conf/p1/accept_dad; ip link set lo up && ip link set p1 address 02:00:00:00:00:0a mtu %u up &&"
	               "ip addr add 10.9.0.1/24 dev p1 && ip addr add fd09::1/64 dev p1 nodad", config->mtu_bytes))
		abort();
	plain_frames("p1");
	pump_enter(p->near);
	struct net_config c = *config;
	c.has_twin = p->has_twin = with_twin;
	if (net_init(&p->host, &c, now_ns(), &why)) {
		printf("%s\n", why);
		abort();
	}
	net_port_open(&p->host, 7400);
	if (with_twin && twin_open(&p->twin, "twin0", &c, error, sizeof(error))) {
		printf("SKIP: %s\n", error);
		return 77;
	}
	return 0;
}

void pump_close(struct pump *p)
{
	twin_close(&p->twin);
	const int fds[] = {p->port, p->near, p->far};
	for (int i = 0; i < 3; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

/* With a VLAN the far kernel sits behind a switch's access port: the tag ends here. */
static void port_send(struct pump *p, const uint8_t *frame, size_t bytes)
{
	uint8_t plain[FRAME_ROOM];

	if (p->host.config.vlan) {
		if (bytes < 18 || frame[12] != 0x81 || frame[13] || ((frame[14] & 15) << 8 | frame[15]) != p->host.config.vlan) {
			p->failed++;
			return;
		}
		memcpy(plain, frame, 12);
		memcpy(plain + 12, frame + 16, bytes - 16);
		frame = plain;
		bytes -= 4;
	}
	if (send(p->port, frame, bytes, 0) != (ssize_t)bytes)
		p->failed++;
}

static size_t port_tag(const struct pump *p, uint8_t *frame, size_t bytes)
{
	if (!p->host.config.vlan)
		return bytes;
	memmove(frame + 16, frame + 12, bytes - 12);
	memcpy(frame + 12, (uint8_t[4]){0x81, 0, (uint8_t)(p->host.config.vlan >> 8), (uint8_t)p->host.config.vlan}, 4);
	return bytes + 4;
}

/* Sends a datagram's payload back where it came from. */
static void echo_back(struct pump *p, const uint8_t *frame, const struct net_packet *packet, uint64_t now)
{
	struct net_flow_config c = {.remote = packet->from, .port = 7400, .ecn = packet->ecn};
	struct net_flow flow;
	uint8_t out[FRAME_ROOM];
	struct frame_seg seg = {.addr = out, .bytes = packet->payload_bytes};

	if (net_flow_init(&p->host, &c, &flow))
		return;
	if (net_flow_ready(&p->host, &flow, now))
		return; /* asked for: the sender tries again */
	net_udp_header(&flow, out, packet->payload_bytes, (uint16_t)p->echoed);
	seg.addr = out + flow.header_bytes;
	memcpy(seg.addr, frame + packet->payload_at, packet->payload_bytes);
	net_udp_sum(&flow, out, &seg, 1);
	port_send(p, out, flow.header_bytes + packet->payload_bytes);
	p->echoed++;
}

static void frame_in(struct pump *p, const uint8_t *frame, size_t bytes, uint64_t now)
{
	struct net_packet packet;
	uint8_t out[FRAME_ROOM];
	enum net_kind kind = net_parse(&p->host, frame, bytes, 0, &packet);

	net_learn(&p->host, frame, &packet, now);
	if (kind == NET_UDP)
		echo_back(p, frame, &packet, now);
	else if (p->has_twin && (kind == NET_FOREIGN || kind == NET_ARP || kind == NET_ND || kind == NET_ECHO))
		twin_tx(&p->twin, frame, bytes);
	size_t length = net_answer(&p->host, frame, bytes, &packet, out, sizeof(out));
	if (length)
		port_send(p, out, length);
}

static void step(struct pump *p)
{
	uint8_t frame[FRAME_ROOM];
	uint64_t now = now_ns();
	size_t bytes;

	for (int i = 0; i < 64; i++) {
		struct sockaddr_ll from;
		socklen_t length = sizeof(from);
		ssize_t n = recvfrom(p->port, frame, sizeof(frame) - 4, 0, (struct sockaddr *)&from, &length);
		if (n < 0)
			break;
		if (from.sll_pkttype != PACKET_OUTGOING)
			frame_in(p, frame, port_tag(p, frame, (size_t)n), now);
	}
	for (int i = 0; i < 64 && p->has_twin && (bytes = twin_rx(&p->twin, frame, sizeof(frame))); i++)
		port_send(p, frame, bytes);
	for (int i = 0; i < 64 && (bytes = net_poll(&p->host, now, frame, sizeof(frame))); i++)
		port_send(p, frame, bytes);
}

bool pump_until(struct pump *p, int fd, short events, int wait_ms)
{
	uint64_t end = now_ns() + (uint64_t)wait_ms * 1000000;

	for (uint64_t now; (now = now_ns()) < end;) {
		uint64_t next = net_deadline(&p->host) < end ? net_deadline(&p->host) : end;
		int timeout = next > now ? (int)((next - now) / 1000000 + 1) : 0;
		struct pollfd fds[3] = {{.fd = fd, .events = events}, {.fd = p->port, .events = POLLIN}, {.fd = p->twin.fd, .events = POLLIN}};
		poll(fds, 3, timeout);
		step(p);
		if (fd >= 0 && fds[0].revents)
			return true;
	}
	return false;
}
