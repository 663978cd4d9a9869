/* Strangers and vandals: rubbish at the UDP and TCP ports, real frames changed or sent again, while a transfer runs. The transfer stays intact,
 * counters tell. Rubbish comes from a stranger's socket and, by a duplicate of the library's own socket, from the peer's very address. Real frames
 * are read off the loopback interface, which needs CAP_NET_RAW; without it that case is skipped with its reason. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "inter.h"

static struct inter_pair p;
enum { ROUNDS = 12, BYTES = 2 << 20 };

static struct sockaddr_in loopback(uint16_t port)
{
	return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static int stranger(int type, uint16_t port)
{
	struct sockaddr_in to = loopback(port);
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
	CHECK(fd >= 0);
	CHECK_EQ(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	return fd;
}

/* Duplicates of this process' UDP sockets that are connected to `port`, or come from it: whoever sends through one has the library's address. */
static size_t own_sockets(uint16_t port, int *out, size_t max)
{
	size_t n = 0;
	for (int fd = 3; fd < 1024 && n < max; fd++) {
		struct sockaddr_in local, remote;
		socklen_t type_bytes = sizeof(int), a = sizeof(local), b = sizeof(remote);
		int type;
		if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_bytes) || type != SOCK_DGRAM || getsockname(fd, (struct sockaddr *)&local, &a) ||
		        getpeername(fd, (struct sockaddr *)&remote, &b))
			continue;
		if (ntohs(remote.sin_port) == port || ntohs(local.sin_port) == port)
			out[n++] = dup(fd);
	}
	return n;
}

static void scribble(uint8_t *out, size_t n)
{
	for (size_t i = 0; i < n; i++)
		out[i] = (uint8_t)lrand48();
}

static uint64_t counted(struct inter_node *n)
{
	return inter_stat(n, 0, "rx_malformed_frames") + inter_stat(n, 0, "rx_stranger_frames") + inter_stat(n, 0, "rx_forged_frames");
}

/* One transfer in both directions; `harm` is called between the steps. */
static void transfer(uint64_t seed, void (*harm)(void))
{
	static uint8_t from[BYTES], to[BYTES], back[BYTES];
	inter_fill(from, BYTES, seed);
	memset(to, 0, BYTES);
	memset(back, 0, BYTES);
	tern_op r = inter_recv(&p.b, p.ba, to, BYTES, 1, 0), q = inter_recv(&p.a, p.ab, back, BYTES, 1, 0);
	tern_op s = inter_send(&p.a, p.ab, from, BYTES, 1, 0), u = inter_send(&p.b, p.ba, from, BYTES, 1, 0);
	tern_event e[4];
	unsigned have = 0;
	uint64_t end = inter_now_ns() + 60000000000ull;
	while (have != 15) {
		CHECK(inter_now_ns() < end);
		harm();
		inter_pump(200000);
		have |= inter_take(&p.b, TERN_EV_RECV, r, &e[0]) ? 1 : 0;
		have |= inter_take(&p.a, TERN_EV_RECV, q, &e[1]) ? 2 : 0;
		have |= inter_take(&p.a, TERN_EV_SEND, s, &e[2]) ? 4 : 0;
		have |= inter_take(&p.b, TERN_EV_SEND, u, &e[3]) ? 8 : 0;
	}
	for (int i = 0; i < 4; i++)
		CHECK_EQ(e[i].status, 0);
	CHECK(inter_filled(to, BYTES, seed));
	CHECK(inter_filled(back, BYTES, seed));
}

/* ---- rubbish ------------------------------------------------------------------------------------------------------------------------- */

static int vandal[16];
static size_t vandals;

static void throw_rubbish(void)
{
	uint8_t junk[3000];
	for (int i = 0; i < 8; i++) {
		size_t n = lrand48() % 4 ? (size_t)lrand48() % 200 : (size_t)lrand48() % sizeof(junk);
		scribble(junk, n);
		if (lrand48() % 2 && n >= 4) { /* past the first look: version, a known type, flags */
			junk[0] = 1;
			junk[1] = (uint8_t)(1 + lrand48() % 2);
			junk[2] = (uint8_t)(lrand48() % 8);
			junk[3] = 0;
		}
		send(vandal[(size_t)lrand48() % vandals], junk, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	}
}

static void rubbish(const char *query)
{
	srand48((long)inter_seed());
	inter_pair(&p, query, 0);
	vandal[0] = stranger(SOCK_DGRAM, p.b.port);
	vandals = 1 + own_sockets(p.b.port, vandal + 1, 15);
	CHECK(vandals >= 3); /* the initiator's and the acceptor's */
	uint64_t a = counted(&p.a), b = counted(&p.b);
	for (uint64_t i = 0; i < ROUNDS; i++)
		transfer(i, throw_rubbish);
	CHECK(counted(&p.a) > a);
	CHECK(counted(&p.b) > b);
	CHECK(inter_stat(&p.b, 0, "rx_malformed_frames") > 0);
	CHECK(inter_stat(&p.b, 0, "rx_stranger_frames") > 0);
	for (size_t i = 0; i < vandals; i++)
		close(vandal[i]);
	inter_pair_close(&p);
}

static void rubbish_sealed(void)
{
	rubbish("");
}

static void rubbish_private(void)
{
	rubbish("?private=1");
}

/* ---- rubbish at the TCP port --------------------------------------------------------------------------------------------------------- */

enum { CALLERS = 20 };
static int caller[CALLERS];

static void call_in(void)
{
	uint8_t junk[600];
	int i = (int)(lrand48() % CALLERS);
	if (!caller[i]) {
		caller[i] = stranger(SOCK_STREAM, p.b.port);
		return;
	}
	size_t n = (size_t)lrand48() % sizeof(junk);
	scribble(junk, n);
	if (lrand48() % 2) { /* the head of a TLS record with a ClientHello */
		static const uint8_t hello[] = {22, 3, 1, 1, 0, 1, 0, 0, 252, 3, 3};
		memcpy(junk, hello, n < sizeof(hello) ? n : sizeof(hello));
	}
	if (send(caller[i], junk, n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 || lrand48() % 4 == 0) {
		close(caller[i]);
		caller[i] = 0;
	}
}

static void strange_calls(void)
{
	static struct inter_node c;
	srand48((long)inter_seed());
	inter_pair(&p, "", 0);
	for (uint64_t i = 0; i < ROUNDS; i++)
		transfer(i, call_in);
	/* and while they hold their connections open, one of ours gets in */
	inter_open(&c, NULL);
	inter_connect(&c, "127.0.0.1", p.b.port, "");
	CHECK_EQ(inter_await(&c, TERN_EV_CONNECTED, 0).status, 0);
	for (int i = 0; i < CALLERS; i++)
		if (caller[i])
			close(caller[i]);
	memset(caller, 0, sizeof(caller));
	inter_close(&c);
	inter_pair_close(&p);
}

/* ---- real frames, changed and repeated ----------------------------------------------------------------------------------------------- */

enum { CAUGHT = 512, FRAME = 2048 };
static struct caught {
	uint16_t from, to; /* ports */
	size_t bytes;
	uint8_t data[FRAME];
} caught[CAUGHT];
static size_t catches;
static int tap = -1, sender = -1;
static bool change;

/* One IPv4 datagram off the wire; what the kernel has not cut yet (GSO) is cut here. */
static void tap_take(const uint8_t *packet, size_t bytes, size_t stride)
{
	struct iphdr ip;
	struct udphdr udp;
	if (bytes < sizeof(ip) + sizeof(udp))
		return;
	memcpy(&ip, packet, sizeof(ip));
	size_t head = ip.ihl * 4u;
	if (ip.version != 4 || ip.protocol != IPPROTO_UDP || bytes < head + sizeof(udp))
		return;
	memcpy(&udp, packet + head, sizeof(udp));
	uint16_t from = ntohs(udp.source), to = ntohs(udp.dest);
	if (from != p.b.port && to != p.b.port)
		return;
	packet += head + sizeof(udp);
	bytes -= head + sizeof(udp);
	while (bytes) {
		size_t n = stride && stride < bytes ? stride : bytes;
		struct caught *c = &caught[catches++ % CAUGHT];
		if (n <= FRAME) {
			*c = (struct caught){.from = from, .to = to, .bytes = n};
			memcpy(c->data, packet, n);
		}
		packet += n;
		bytes -= n;
	}
}

static void tap_read(void)
{
	static uint8_t buf[70000];
	struct virtio_net_hdr head;
	ssize_t n;
	while ((n = recv(tap, buf, sizeof(buf), MSG_DONTWAIT)) > (ssize_t)(sizeof(head) + sizeof(struct ethhdr))) {
		memcpy(&head, buf, sizeof(head));
		tap_take(buf + sizeof(head) + sizeof(struct ethhdr), (size_t)n - sizeof(head) - sizeof(struct ethhdr), head.gso_size);
	}
}

/* Sent with the addresses it once had. */
static void resend(const struct caught *c, bool changed)
{
	struct {
		struct iphdr ip;
		struct udphdr udp;
		uint8_t data[FRAME];
	} __attribute__((packed)) d;
	struct sockaddr_in to = loopback(c->to);
	size_t n = c->bytes;
	memset(&d, 0, sizeof(d));
	memcpy(d.data, c->data, n);
	if (changed) {
		int kind = (int)(lrand48() % 4);
		if (kind == 0)
			n = (size_t)lrand48() % (n + 1);
		else if (kind == 1 && n + 100 < FRAME)
			n += (size_t)lrand48() % 100;
		else
			for (int i = 0; i < kind; i++)
				d.data[lrand48() % (lrand48() % 2 ? 40 : (long)n) % (long)n] ^= (uint8_t)(1 + lrand48() % 255);
	}
	d.ip = (struct iphdr){
	        .version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP, .saddr = htonl(INADDR_LOOPBACK), .daddr = htonl(INADDR_LOOPBACK)};
	d.udp = (struct udphdr){.source = htons(c->from), .dest = htons(c->to), .len = htons((uint16_t)(sizeof(d.udp) + n))};
	sendto(sender, &d, sizeof(d.ip) + sizeof(d.udp) + n, MSG_DONTWAIT, (struct sockaddr *)&to, sizeof(to));
}

static void replay(void)
{
	tap_read();
	for (int i = 0; i < 10 && catches; i++)
		resend(&caught[(size_t)lrand48() % (catches < CAUGHT ? catches : CAUGHT)], change && lrand48() % 4);
}

static bool tap_open(void)
{
	int one = 1;
	tap = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_IP));
	sender = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
	struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP), .sll_ifindex = (int)if_nametoindex("lo")};
	if (tap >= 0 && sender >= 0 && !setsockopt(tap, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one)) &&
	        !bind(tap, (struct sockaddr *)&at, sizeof(at)))
		return true;
	printf("\nSKIP: hostile: real frames are not captured: %s (needs CAP_NET_RAW)\n", strerror(errno));
	return false;
}

static void tap_close(void)
{
	close(tap);
	close(sender);
	tap = sender = -1;
	catches = 0;
}

static void real_frames(const char *query, bool changed)
{
	if (!tap_open())
		return;
	srand48((long)inter_seed());
	change = changed;
	inter_pair(&p, query, 0);
	for (uint64_t i = 0; i < ROUNDS; i++)
		transfer(i, replay);
	CHECK(catches > 100);
	uint64_t same = inter_stat(&p.a, p.ab, "duplicate_frames") + inter_stat(&p.b, p.ba, "duplicate_frames");
	CHECK(same > 0);
	if (changed)
		CHECK(counted(&p.a) + counted(&p.b) > 0);
	/* on their own, when nothing is under way, they do nothing at all */
	for (int i = 0; i < 200; i++) {
		replay();
		inter_pump(0);
	}
	CHECK_EQ(p.a.events + p.b.events, 0);
	transfer(99, replay);
	inter_pair_close(&p);
	tap_close();
}

static void replayed(void)
{
	real_frames("?mtu=1500", false);
}

static void replayed_private(void)
{
	real_frames("?mtu=1500&private=1", false);
}

static void changed(void)
{
	real_frames("?mtu=1500", true);
}

/* Frames of an earlier session at a new one on the same ports: keys and flow ids are others. */
static void old_session(void)
{
	static struct caught old[CAUGHT];
	if (!tap_open())
		return;
	srand48((long)inter_seed());
	change = false;
	inter_pair(&p, "?mtu=1500", 0);
	transfer(1, replay);
	tap_read();
	memcpy(old, caught, sizeof(old));
	size_t n = catches < CAUGHT ? catches : CAUGHT;
	CHECK_EQ(tern_disconnect(p.a.ep, p.ab, 1), 0);
	inter_await(&p.b, TERN_EV_PEER_CLOSED, 0);
	inter_await(&p.a, TERN_EV_PEER_CLOSED, 0);
	p.ab = inter_connect(&p.a, "127.0.0.1", p.b.port, "?mtu=1500");
	CHECK_EQ(inter_await(&p.a, TERN_EV_CONNECTED, 0).status, 0);
	p.ba = inter_await(&p.b, TERN_EV_CONNECTED, 0).peer;
	uint64_t before = counted(&p.b);
	for (size_t i = 0; i < n; i++)
		if (old[i].to == p.b.port)
			resend(&old[i], false);
	transfer(2, replay);
	CHECK(counted(&p.b) > before);
	inter_pair_close(&p);
	tap_close();
}

static const struct inter_case cases[] = {
        {"rubbish_sealed", rubbish_sealed},
        {"rubbish_private", rubbish_private},
        {"strange_calls", strange_calls},
        {"replayed", replayed},
        {"replayed_private", replayed_private},
        {"changed", changed},
        {"old_session", old_session},
};
INTER_MAIN("hostile", cases)
