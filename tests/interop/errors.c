/* What can be wrong with keys, addresses, contracts and the way to a peer: each gives its number, and a text that names the value and what to do. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "inter.h"

#define KEY_HEX "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

/* ---- keys ---------------------------------------------------------------------------------------------------------------------------- */

static void key_refused(const char *path, const char *says)
{
	char text[TERN_TEXT_MAX];
	tern_ctx *ctx = (tern_ctx *)1;
	tern_config c = inter_config();
	c.key_file = path;
	CHECK_EQ(tern_open(&c, &ctx), -TERN_EKEY);
	CHECK(!ctx);
	CHECK_EQ(tern_error_detail(NULL, 0, text, sizeof(text)), 0);
	CHECK_SAYS(text, path);
	CHECK_SAYS(text, says);
}

static void keys(void)
{
	char missing[256], folder[256];
	key_refused(inter_file("wide.key", "tern-site-key-v1 " KEY_HEX "\n", 0644), "chmod 600");
	key_refused(inter_file("group.key", "tern-site-key-v1 " KEY_HEX "\n", 0640), "0640");
	key_refused(inter_file("short.key", "tern-site-key-v1 0011\n", 0600), "4 hex digits");
	key_refused(inter_file("word.key", "ssh-rsa " KEY_HEX "\n", 0600), "tern-key");
	key_refused(inter_file("digit.key", "tern-site-key-v1 0g" KEY_HEX "\n", 0600), "hex digits");
	key_refused(inter_file("long.key", "tern-site-key-v1 " KEY_HEX " more\n", 0600), "one line");
	key_refused(inter_file("empty.key", "", 0600), "tern-key");
	snprintf(missing, sizeof(missing), "%s/nobody.key", inter_dir());
	key_refused(missing, "make one with tern-key");
	snprintf(folder, sizeof(folder), "%s", inter_dir());
	key_refused(folder, "not a file");
	/* the same by $TERN_KEY */
	setenv("TERN_KEY", missing, 1);
	tern_ctx *ctx;
	tern_config c = inter_config();
	c.key_file = NULL;
	CHECK_EQ(tern_open(&c, &ctx), -TERN_EKEY);
	unsetenv("TERN_KEY");
}

/* No key at the standard place: the context opens, for who only wants to look; listening and connecting say what is missing. */
static void no_key(void)
{
	static struct inter_node n;
	tern_config c = inter_config();
	tern_peer peer;
	c.key_file = NULL;
	inter_open(&n, &c);
	CHECK_EQ(tern_listen(n.ep, "udp://127.0.0.1:0"), -TERN_EKEY);
	CHECK_SAYS(inter_detail(&n, 0), "/.config/tern/site.key");
	CHECK_SAYS(inter_detail(&n, 0), "tern-key");
	CHECK_EQ(tern_connect_text(n.ep, "udp://127.0.0.1:7400", NULL, &peer), -TERN_EKEY);
	CHECK_SAYS(inter_detail(&n, 0), "tern-key");
	inter_close(&n);
}

/* Both contexts, each with its own key and address options; the connection must fail at a with `err`, everything posted with it. */
static void connect_fails(struct inter_node *a, struct inter_node *b, const char *query, int err, const char *says)
{
	char x;
	tern_event e;
	tern_peer peer = inter_connect(a, "127.0.0.1", b->port, query);
	tern_op s = inter_send(a, peer, "x", 1, 1, 0), r = inter_recv(a, peer, &x, 1, 1, 0);
	e = inter_await(a, TERN_EV_CONNECTED, 0);
	CHECK_EQ(e.peer, peer);
	CHECK_EQ(e.status, err);
	CHECK_SAYS(inter_detail(a, peer), says);
	CHECK_EQ(inter_await(a, TERN_EV_SEND, s).status, -TERN_EPEER);
	CHECK_EQ(inter_await(a, TERN_EV_RECV, r).status, -TERN_EPEER);
	/* the listener's user is not bothered, and one that fits still gets in */
	CHECK(!inter_take(b, TERN_EV_CONNECTED, 0, &e));
}

static void wrong_key(void)
{
	static struct inter_node a, b;
	tern_config c = inter_config();
	c.key_file = inter_file("other.key", "tern-site-key-v1 " KEY_HEX "\n", 0600);
	inter_open(&a, &c);
	inter_open(&b, NULL);
	inter_listen(&b, "127.0.0.1", "");
	connect_fails(&a, &b, "", -TERN_EAUTH, "copy one site's key file to the other");
	inter_close(&a);
	inter_open(&a, NULL);
	inter_connect(&a, "127.0.0.1", b.port, "");
	CHECK_EQ(inter_await(&a, TERN_EV_CONNECTED, 0).status, 0);
	inter_close(&a);
	inter_close(&b);
}

static void private_at_one_end(void)
{
	static struct inter_node a, b;
	inter_open(&a, NULL);
	inter_open(&b, NULL);
	inter_listen(&b, "127.0.0.1", "");
	connect_fails(&a, &b, "?private=1", -TERN_EPRIVATE, "private=1");
	inter_close(&b);
	inter_open(&b, NULL);
	inter_listen(&b, "127.0.0.1", "?private=1");
	connect_fails(&a, &b, "", -TERN_EPRIVATE, "private=1");
	inter_close(&a);
	inter_close(&b);
}

/* ---- addresses ----------------------------------------------------------------------------------------------------------------------- */

static void addresses(void)
{
	static struct inter_node n;
	static const struct {
		const char *text;
		int err;
		const char *says;
	} bad[] = {
	        {"", -TERN_EADDR, "scheme"},
	        {"127.0.0.1:7400", -TERN_EADDR, "udp://host:7400"},
	        {"://127.0.0.1:7400", -TERN_EADDR, "scheme"},
	        {"udp://127.0.0.1", -TERN_EADDR, "port is missing"},
	        {"udp://127.0.0.1:", -TERN_EADDR, "0 to 65535"},
	        {"udp://127.0.0.1:65536", -TERN_EADDR, "65536"},
	        {"udp://127.0.0.1:-1", -TERN_EADDR, "-1"},
	        {"udp://127.0.0.1:80x", -TERN_EADDR, "80x"},
	        {"udp://127.0.0.1: 80", -TERN_EADDR, "0 to 65535"},
	        {"udp://127.0.0.1:+80", -TERN_EADDR, "0 to 65535"},
	        {"udp://::1:7400", -TERN_EADDR, "[address]:port"},
	        {"udp://[::1:7400", -TERN_EADDR, "[address]:port"},
	        {"udp://[::1]7400", -TERN_EADDR, "[address]:port"},
	        {"udp://127.0.0.1:0?private=2", -TERN_EINVAL, "0 or 1"},
	        {"udp://127.0.0.1:0?private", -TERN_EINVAL, "private=1"},
	        {"udp://127.0.0.1:0?colour=red", -TERN_EINVAL, "colour"},
	        {"udp://127.0.0.1:0?mtu=12", -TERN_EINVAL, "1280 to 65535"},
	        {"udp://127.0.0.1:0?mtu=", -TERN_EINVAL, "1280 to 65535"},
	        {"udp://127.0.0.1:9?cc=warp", -TERN_EINVAL, "warp"},
	        {"udp://127.0.0.1:0?emu=", -TERN_EINVAL, "emu"},
	        {"warp://127.0.0.1:0", -TERN_ESCHEME, "warp"},
	        {"../../x://127.0.0.1:0", -TERN_ESCHEME, "scheme"},
	};
	inter_open(&n, NULL);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int err = tern_listen(n.ep, bad[i].text);
		if (err != bad[i].err)
			inter_fail(__FILE__, __LINE__, "\"%s\" gives %d, must give %d", bad[i].text, err, bad[i].err);
		CHECK_SAYS(inter_detail(&n, 0), bad[i].says);
		tern_peer peer;
		err = tern_connect_text(n.ep, bad[i].text, NULL, &peer);
		if (err != bad[i].err)
			inter_fail(__FILE__, __LINE__, "connecting to \"%s\" gives %d, must give %d", bad[i].text, err, bad[i].err);
	}
	char text[64];
	size_t bytes = sizeof(text);
	CHECK_EQ(tern_ep_address(n.ep, text, &bytes), -TERN_ENOENT);
	CHECK_SAYS(inter_detail(&n, 0), "tern_listen");
	CHECK_EQ(tern_listen(n.ep, NULL), -TERN_EADDR);
	CHECK_EQ(tern_listen(n.ep, "udp://192.0.2.7:0"), -TERN_EADDR); /* of nobody here */
	CHECK_SAYS(inter_detail(&n, 0), "192.0.2.7");
	CHECK_EQ(tern_listen(n.ep, "udp://no-such-host.invalid:0"), -TERN_EADDR);
	CHECK_SAYS(inter_detail(&n, 0), "no-such-host.invalid");
	/* a name of this machine works, and stays a name in the address for others */
	char name[TERN_ADDR_MAX + 1] = "";
	bytes = TERN_ADDR_MAX;
	CHECK_EQ(tern_listen(n.ep, "udp://localhost:0"), 0);
	CHECK_EQ(tern_ep_address(n.ep, name, &bytes), 0);
	CHECK_SAYS(name + 2, "udp://localhost:");
	tern_peer self;
	CHECK_EQ(tern_connect(n.ep, name, bytes, NULL, &self), 0);
	CHECK_EQ(inter_await(&n, TERN_EV_CONNECTED, 0).status, 0);
	inter_close(&n);
}

static void blobs(void)
{
	static struct inter_node n;
	uint8_t blob[TERN_ADDR_MAX + 8] = {0};
	size_t bytes = TERN_ADDR_MAX;
	tern_peer peer;
	inter_open(&n, NULL);
	CHECK_EQ(tern_connect_text(n.ep, "udp://127.0.0.1:0", NULL, &peer), -TERN_EADDR);
	CHECK_SAYS(inter_detail(&n, 0), "port");
	CHECK_EQ(tern_connect_text(n.ep, "udp://:7400", NULL, &peer), -TERN_EADDR);
	CHECK_EQ(tern_resolve(n.ctx, "udp://localhost:7400?private=1&mtu=1500", blob, &bytes), 0);
	CHECK(bytes <= TERN_ADDR_MAX);
	size_t small = bytes - 1;
	CHECK_EQ(tern_resolve(n.ctx, "udp://localhost:7400?private=1&mtu=1500", blob, &small), -TERN_EINVAL);
	for (size_t n_bytes = 0; n_bytes < 3; n_bytes++)
		CHECK_EQ(tern_connect(n.ep, blob, n_bytes, NULL, &peer), -TERN_EADDR);
	CHECK_EQ(tern_connect(n.ep, blob, TERN_ADDR_MAX + 1, NULL, &peer), -TERN_EADDR);
	blob[1]++;
	CHECK_EQ(tern_connect(n.ep, blob, bytes, NULL, &peer), -TERN_EVERSION);
	blob[1]--;
	blob[0] ^= 0x20;
	CHECK_EQ(tern_connect(n.ep, blob, bytes, NULL, &peer), -TERN_EADDR);
	inter_close(&n);
}

static int bound(int type, uint16_t *port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof(a);
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
	CHECK(fd >= 0);
	CHECK_EQ(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	if (type == SOCK_STREAM)
		CHECK_EQ(listen(fd, 8), 0);
	CHECK_EQ(getsockname(fd, (struct sockaddr *)&a, &n), 0);
	*port = ntohs(a.sin_port);
	return fd;
}

static void port_in_use(void)
{
	static struct inter_node n;
	char text[64], number[16];
	uint16_t port;
	inter_open(&n, NULL);
	for (int i = 0; i < 2; i++) {
		int fd = bound(i ? SOCK_DGRAM : SOCK_STREAM, &port);
		snprintf(text, sizeof(text), "udp://127.0.0.1:%u", port);
		snprintf(number, sizeof(number), "%u", port);
		CHECK_EQ(tern_listen(n.ep, text), -TERN_EADDR);
		CHECK_SAYS(inter_detail(&n, 0), number);
		CHECK_SAYS(inter_detail(&n, 0), "in use");
		close(fd);
		CHECK_EQ(tern_listen(n.ep, text), 0); /* and nothing of the failure is left */
	}
	inter_close(&n);
}

/* ---- the way to the peer ------------------------------------------------------------------------------------------------------------- */

static void unreachable(struct inter_node *n, const char *text, uint64_t timeout_ns, int err, const char *says)
{
	tern_connopts opts = {.size_bytes = sizeof(opts), .timeout_ns = timeout_ns, .user = n};
	tern_peer peer;
	uint64_t start = inter_now_ns();
	CHECK_EQ(tern_connect_text(n->ep, text, &opts, &peer), 0);
	CHECK(inter_now_ns() - start < 100000000); /* connecting never blocks */
	tern_event e = inter_await(n, TERN_EV_CONNECTED, 0);
	CHECK_EQ(e.status, err);
	CHECK(e.user == n);
	CHECK_SAYS(inter_detail(n, peer), says);
	CHECK_EQ(tern_disconnect(n->ep, peer, 0), -TERN_ESTALE);
}

static void nobody_there(void)
{
	static struct inter_node n;
	char text[64], number[16];
	uint16_t port;
	inter_open(&n, NULL);
	close(bound(SOCK_STREAM, &port));
	snprintf(text, sizeof(text), "udp://127.0.0.1:%u", port);
	snprintf(number, sizeof(number), "%u", port);
	unreachable(&n, text, 0, -TERN_EADDR, number);
	unreachable(&n, text, 0, -TERN_EADDR, "not reachable");
	unreachable(&n, "udp://no-such-host.invalid:7400", 0, -TERN_EADDR, "no-such-host.invalid");
	/* one that takes the connection and says nothing */
	int fd = bound(SOCK_STREAM, &port);
	snprintf(text, sizeof(text), "udp://127.0.0.1:%u", port);
	uint64_t start = inter_now_ns();
	unreachable(&n, text, 300000000, -TERN_ETIMEDOUT, "within 300 ms");
	CHECK(inter_now_ns() - start < 3000000000);
	close(fd);
	inter_close(&n);
}

/* A firewall in the small: every UDP socket of this process that is bound to the port drops what arrives, TCP goes on. */
static unsigned block_udp(uint16_t port)
{
	struct sock_filter drop = BPF_STMT(BPF_RET | BPF_K, 0);
	struct sock_fprog program = {.len = 1, .filter = &drop};
	unsigned blocked = 0;
	for (int fd = 3; fd < 1024; fd++) {
		struct sockaddr_storage a;
		int type;
		socklen_t n = sizeof(type), len = sizeof(a);
		if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) || type != SOCK_DGRAM || getsockname(fd, (struct sockaddr *)&a, &len))
			continue;
		uint16_t at = ntohs(a.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&a)->sin6_port : ((struct sockaddr_in *)&a)->sin_port);
		if (at == port && !setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)))
			blocked++;
	}
	return blocked;
}

static void udp_blocked(void)
{
	static struct inter_node a, b;
	char number[32];
	tern_config c = inter_config();
	c.peer_timeout_ns = c.connect_timeout_ns = 700000000;
	inter_open(&a, &c);
	inter_open(&b, &c);
	inter_listen(&b, "127.0.0.1", "");
	CHECK(block_udp(b.port) > 0);
	snprintf(number, sizeof(number), "UDP port %u", b.port);
	uint64_t start = inter_now_ns();
	connect_fails(&a, &b, "", -TERN_EBLOCKED, number);
	CHECK(inter_now_ns() - start < 5000000000);
	inter_connect(&a, "127.0.0.1", b.port, "");
	tern_event e = inter_await(&a, TERN_EV_CONNECTED, 0);
	CHECK_EQ(e.status, -TERN_EBLOCKED);
	CHECK_SAYS(inter_detail(&a, e.peer), "firewall");
	CHECK_SAYS(inter_detail(&a, e.peer), "127.0.0.1");
	inter_close(&a);
	inter_close(&b);
}

/* ---- contracts ----------------------------------------------------------------------------------------------------------------------- */

static void contracts(void)
{
	static struct inter_node n;
	static const struct {
		const char *content, *line, *says;
	} bad[] = {
	        {"rate = -1Gbit\n", ":1:", "-1Gbit"},
	        {"rate = 0\n", ":1:", "rate"},
	        {"rate = 1Gbit\nrtt = -30ms\n", ":2:", "-30ms"},
	        {"rate = 1Gbit\nrtt = 3000s\n", ":2:", "3000s"},
	        {"# x\nrate = 900000Tbit\n", ":2:", "900000Tbit"},
	        {"rate = 1Gbit\nshare = 3\n", ":2:", "share"},
	        {"rate = 1Gbit\nmtu = 12\n", ":2:", "mtu"},
	        {"rate = 1Gbit\nloss_ceiling = 0.9\n", ":2:", "loss_ceiling"},
	        {"rate = 1Gbit\nspeed = 3\n", ":2:", "speed"},
	        {"rate = 1Gbit\nvalid_to = 2001-01-01\n", "", "2001"},
	        {"rtt = 10ms\n", "", "rate"},
	};
	char text[TERN_TEXT_MAX], address[400];
	tern_ctx *ctx;
	tern_peer peer;
	inter_open(&n, NULL);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		tern_config c = inter_config();
		c.contract_file = inter_file("c.ini", bad[i].content, 0600);
		char line[64];
		snprintf(line, sizeof(line), "c.ini%s", bad[i].line);
		int err = tern_open(&c, &ctx);
		if (err != -TERN_EINVAL)
			inter_fail(__FILE__, __LINE__, "the contract \"%s\" gives %d", bad[i].content, err);
		tern_error_detail(NULL, 0, text, sizeof(text));
		CHECK_SAYS(text, line);
		CHECK_SAYS(text, bad[i].says);
		snprintf(address, sizeof(address), "udp://127.0.0.1:0?contract=%s", c.contract_file);
		CHECK_EQ(tern_listen(n.ep, address), -TERN_EINVAL);
		CHECK_SAYS(inter_detail(&n, 0), bad[i].says);
		snprintf(address, sizeof(address), "udp://127.0.0.1:9?contract=%s", c.contract_file);
		CHECK_EQ(tern_connect_text(n.ep, address, NULL, &peer), -TERN_EINVAL);
		CHECK_SAYS(inter_detail(&n, 0), bad[i].says);
	}
	CHECK_EQ(tern_listen(n.ep, "udp://127.0.0.1:0?contract=/nowhere/c.ini"), -TERN_EIO);
	CHECK_SAYS(inter_detail(&n, 0), "/nowhere/c.ini");
	/* a good one works, and says what the limit is */
	snprintf(address, sizeof(address), "?contract=%s", inter_file("c.ini", "rate = 800Mbit\nrtt = 1ms\n", 0600));
	inter_listen(&n, "127.0.0.1", address);
	peer = inter_connect(&n, "127.0.0.1", n.port, address);
	CHECK_EQ(inter_await(&n, TERN_EV_CONNECTED, 0).status, 0);
	uint64_t payload = 0, limit = 0;
	CHECK_EQ(tern_path_limits(n.ep, peer, &payload, &limit), 0);
	CHECK(limit > 80000000 && limit < 98500000);
	CHECK(payload > 1000);
	inter_close(&n);
}

static void emulation_files(void)
{
	static struct inter_node n;
	char address[400];
	inter_open(&n, NULL);
	snprintf(address, sizeof(address), "udp://127.0.0.1:0?emu=%s", inter_file("e.ini", "[link]\ndelay = 5parsecs\n", 0600));
	CHECK_EQ(tern_listen(n.ep, address), -TERN_EADDR);
	CHECK_SAYS(inter_detail(&n, 0), "e.ini:2: delay = 5parsecs");
	CHECK_EQ(tern_listen(n.ep, "udp://127.0.0.1:0?emu=/nowhere/e.ini"), -TERN_EIO);
	CHECK_SAYS(inter_detail(&n, 0), "/nowhere/e.ini");
	inter_close(&n);
}

static void numbers_in_words(void)
{
	for (int i = 0; i < TERN_ERR_END; i++) {
		CHECK(*tern_error_text(i));
		CHECK(strcmp(tern_error_text(i), "unknown error"));
		CHECK(tern_error_text(i) == tern_error_text(-i));
		for (int k = 0; k < i; k++)
			CHECK(strcmp(tern_error_text(i), tern_error_text(k)));
	}
	CHECK(!strcmp(tern_error_text(TERN_ERR_END), "unknown error"));
	CHECK(!strcmp(tern_error_text(-2147483647 - 1), "unknown error"));
	char text[8];
	CHECK_EQ(tern_open(NULL, NULL), -TERN_EINVAL);
	CHECK_EQ(tern_error_detail(NULL, 0, text, sizeof(text)), 0); /* cut, terminated */
	CHECK_EQ(strlen(text), 7);
	CHECK_EQ(tern_error_detail(NULL, 0, NULL, 0), -TERN_EINVAL);
}

static const struct inter_case cases[] = {
        {"keys", keys},
        {"no_key", no_key},
        {"wrong_key", wrong_key},
        {"private_at_one_end", private_at_one_end},
        {"addresses", addresses},
        {"blobs", blobs},
        {"port_in_use", port_in_use},
        {"nobody_there", nobody_there},
        {"udp_blocked", udp_blocked},
        {"contracts", contracts},
        {"emulation_files", emulation_files},
        {"numbers_in_words", numbers_in_words},
};
INTER_MAIN("errors", cases)
