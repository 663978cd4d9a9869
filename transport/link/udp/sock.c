/* The link's kernel sockets: binding, connecting, options. Called by udp.c at open and path_open; never on the hot path (but for the MTU after
 * EMSGSIZE). */
#include <errno.h>
#include <linux/filter.h>
#include <netdb.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "link/udp/udp.h"
#include "tern/tern.h"

static int sock_set(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof(value)) ? -errno : 0;
}

static socklen_t sock_length(const struct sockaddr_storage *a)
{
	return a->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

static uint16_t *sock_port(const struct sockaddr_storage *a)
{
	return a->ss_family == AF_INET6 ? &((struct sockaddr_in6 *)(uintptr_t)a)->sin6_port : &((struct sockaddr_in *)(uintptr_t)a)->sin_port;
}

/* FORCE goes past rmem_max and wmem_max, for root only. */
static int sock_buffer(int fd, int force, int name, int bytes)
{
	socklen_t n = sizeof(bytes);
	if (sock_set(fd, SOL_SOCKET, force, bytes))
		sock_set(fd, SOL_SOCKET, name, bytes);
	return getsockopt(fd, SOL_SOCKET, name, &bytes, &n) ? 0 : bytes / 2; /* the kernel doubles it for its own use */
}

/* Options that every socket of the link has. What an old kernel lacks is done without. */
static void sock_options(struct udp_link *l, int fd, int family, bool report)
{
	int tos = l->options.dscp << 2 | (l->options.ecn ? 2 : 0);
	int rcv = sock_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, UDP_RCVBUF_BYTES);
	int snd = sock_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, UDP_SNDBUF_BYTES);

	sock_set(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE);
	sock_set(fd, IPPROTO_IP, IP_RECVTOS, 1);
	sock_set(fd, IPPROTO_IP, IP_TOS, tos);
	if (family == AF_INET6) {
		sock_set(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE);
		sock_set(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
		sock_set(fd, IPPROTO_IPV6, IPV6_TCLASS, tos);
	}
	if (l->options.gro && sock_set(fd, SOL_UDP, UDP_GRO, 1) && report)
		udp_log(l, TERN_LOG_INFO, "no UDP_GRO in this kernel: one datagram a receive");
	if (report && rcv < UDP_RCVBUF_BYTES)
		udp_log(l, TERN_LOG_WARN, "receive buffer is %d KiB of the %d KiB wanted: raise net.core.rmem_max, or bursts are lost on fast links",
		        rcv >> 10, UDP_RCVBUF_BYTES >> 10);
	if (report)
		udp_log(l, TERN_LOG_INFO, "socket buffers: receive %d KiB, send %d KiB", rcv >> 10, snd >> 10);
}

/* Numeric first, so that an address never waits for a name server. */
static int sock_resolve(const char *host, uint16_t port, struct sockaddr_storage *out)
{
	struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_DGRAM}, *list = NULL;
	char service[8];

	snprintf(service, sizeof(service), "%u", port);
	int err = getaddrinfo(host, service, &hints, &list);
	if (err == EAI_NONAME) {
		hints.ai_flags &= ~AI_NUMERICHOST;
		err = getaddrinfo(host, service, &hints, &list);
	}
	if (err)
		return err;
	memset(out, 0, sizeof(*out));
	memcpy(out, list->ai_addr, list->ai_addrlen);
	freeaddrinfo(list);
	return 0;
}

static int sock_bind_error(const struct link_config *config, int err)
{
	const char *host = config->host && *config->host ? config->host : "*";
	if (err == EADDRINUSE)
		snprintf(config->error, config->error_bytes, "udp: port %u of %s is in use by another program; choose another port, or 0 for any",
		         config->port, host);
	else if (err == EADDRNOTAVAIL)
		snprintf(config->error, config->error_bytes, "udp: %s is no address of this machine (port %u); bind to one that is, or to none", host,
		         config->port);
	else if (err == EACCES)
		snprintf(config->error, config->error_bytes, "udp: port %u needs privileges; choose one above 1023", config->port);
	else
		snprintf(config->error, config->error_bytes, "udp: cannot bind %s port %u: %s", host, config->port, strerror(err));
	return err == EADDRINUSE || err == EADDRNOTAVAIL || err == EACCES ? -TERN_EADDR : -TERN_EIO;
}

/* Where to bind: the host given, or both families, or IPv4 where IPv6 is absent. */
static int sock_open_bound(struct udp_link *l, const struct link_config *config)
{
	struct sockaddr_storage *a = &l->bound;
	bool any = !config->host || !*config->host;
	int err = any ? sock_resolve("::", config->port, a) : sock_resolve(config->host, config->port, a);

	if (err) {
		snprintf(config->error, config->error_bytes, "udp: \"%s\" is no address or known name: %s", any ? "::" : config->host,
		         gai_strerror(err));
		return -TERN_EADDR;
	}
	l->any = a->ss_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&((struct sockaddr_in6 *)a)->sin6_addr);
	int fd = socket(a->ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 && errno == EAFNOSUPPORT && any) {
		sock_resolve("0.0.0.0", config->port, a);
		fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	}
	if (fd < 0) {
		snprintf(config->error, config->error_bytes, "udp: no socket: %s", strerror(errno));
		return -TERN_EIO;
	}
	if (a->ss_family == AF_INET6)
		sock_set(fd, IPPROTO_IPV6, IPV6_V6ONLY, !l->any);
	return fd;
}

int udp_sock_bind(struct udp_link *l, const struct link_config *config)
{
	int fd = sock_open_bound(l, config);
	socklen_t n = sizeof(l->bound);

	if (fd < 0)
		return fd;
	/* SO_REUSEADDR only after the bind: so a port that anybody holds is an error, and still the paths can share it. */
	if (bind(fd, (struct sockaddr *)&l->bound, sock_length(&l->bound))) {
		int err = sock_bind_error(config, errno);
		close(fd);
		return err;
	}
	sock_set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	getsockname(fd, (struct sockaddr *)&l->bound, &n);
	l->base.local.bytes = n;
	memcpy(l->base.local.data, &l->bound, n);
	sock_options(l, fd, l->bound.ss_family, true);
	if (l->listening) { /* a path answers from the address that it was asked at: several may be ours */
		sock_set(fd, IPPROTO_IP, IP_PKTINFO, 1);
		if (l->bound.ss_family == AF_INET6)
			sock_set(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
	}
	l->shared.fd = fd;
	return 0;
}

/* The listening port belongs to the first path to a remote; further ones (spread) need another, or both ends could not tell them apart. */
static bool sock_port_taken(const struct udp_link *l, const struct udp_path *p)
{
	for (uint32_t i = 0; i < l->n_paths; i++) {
		const struct link_addr *other = &l->paths[i]->base.remote;
		if (l->paths[i] != p && other->bytes == p->base.remote.bytes && !memcmp(other->data, p->base.remote.data, other->bytes))
			return true;
	}
	return false;
}

/* Where the path's socket is bound, in the remote's family. */
static int sock_path_local(const struct udp_link *l, const struct udp_path *p, int family, struct sockaddr_storage *out)
{
	struct sockaddr_storage bound = l->bound;
	memset(out, 0, sizeof(*out));
	out->ss_family = (sa_family_t)family;
	if (bound.ss_family == family)
		*out = bound;
	else if (!l->any)
		return -TERN_EADDR;
	if (p->local.bytes >= sizeof(struct sockaddr_in) && ((const struct sockaddr *)p->local.data)->sa_family == family)
		memcpy(out, p->local.data, p->local.bytes);
	*sock_port(out) = l->listening && !sock_port_taken(l, p) ? *sock_port(&bound) : 0;
	return 0;
}

/* Between bind and connect the kernel would give the socket anybody's datagrams: a filter keeps all out until it is connected. */
static int sock_bind_connect(int fd, const struct sockaddr_storage *local, const struct sockaddr_storage *remote)
{
	struct sock_filter none = BPF_STMT(BPF_RET | BPF_K, 0);
	struct sock_fprog filter = {.len = 1, .filter = &none};

	if (*sock_port(local)) /* only to share the listening port: with it, a port the kernel chooses could be another path's */
		sock_set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)) || bind(fd, (const struct sockaddr *)local, sock_length(local)) ||
	    connect(fd, (const struct sockaddr *)remote, sock_length(remote)))
		return -errno;
	return sock_set(fd, SOL_SOCKET, SO_DETACH_FILTER, 0);
}

int udp_sock_connect(struct udp_link *l, struct udp_path *p)
{
	struct sockaddr_storage remote = {0}, local;

	memcpy(&remote, p->base.remote.data, p->base.remote.bytes);
	if ((remote.ss_family != AF_INET && remote.ss_family != AF_INET6) || p->base.remote.bytes < sock_length(&remote) || !*sock_port(&remote))
		return -TERN_EADDR;
	if (sock_path_local(l, p, remote.ss_family, &local))
		return -TERN_EADDR;
	int fd = socket(remote.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -TERN_EIO;
	if (remote.ss_family == AF_INET6)
		sock_set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	sock_options(l, fd, remote.ss_family, false);
	int err = sock_bind_connect(fd, &local, &remote);
	if (err) {
		udp_log(l, TERN_LOG_WARN, "path not opened: %s", strerror(-err));
		close(fd);
		return err == -ENETUNREACH || err == -EHOSTUNREACH || err == -EINVAL || err == -EADDRNOTAVAIL ? -TERN_EADDR : -TERN_EIO;
	}
	p->sock.fd = fd;
	p->base.overhead_bytes = remote.ss_family == AF_INET6 ? 48 : 28;
	return 0;
}

uint32_t udp_sock_max_bytes(const struct udp_path *p)
{
	int mtu = 0;
	socklen_t n = sizeof(mtu);
	bool v6 = p->base.overhead_bytes == 48;

	if (getsockopt(p->sock.fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_MTU : IP_MTU, &mtu, &n) || mtu < 576)
		mtu = v6 ? 1280 : 1500;
	uint32_t max = (uint32_t)mtu - p->base.overhead_bytes;
	return max < UDP_FRAME_MAX ? max : UDP_FRAME_MAX;
}

void udp_addr_from(const struct sockaddr_storage *from, struct link_addr *out)
{
	const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)from;
	memset(out, 0, sizeof(*out));
	if (from->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&six->sin6_addr)) { /* the dual-stack socket's way to say IPv4 */
		struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = six->sin6_port};
		memcpy(&four.sin_addr, &six->sin6_addr.s6_addr[12], 4);
		out->bytes = sizeof(four);
		memcpy(out->data, &four, sizeof(four));
		return;
	}
	out->bytes = sock_length(from);
	memcpy(out->data, from, out->bytes);
}
