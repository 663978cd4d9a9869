/* A port's place in the network: addresses, MTU and the kernel's half of it, as its first link says and the others have to agree to. Called by share.c when a link comes;
 * knows nothing of queues and frames. */
#include <ifaddrs.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "link/dpdk/dpdk.h"
#include "tern/tern.h"

/* Does the kernel have this address on some interface? */
static bool host_kernel_has(const struct net_config *net)
{
	union net_addr a = {.v6 = {.sin6_family = AF_INET6, .sin6_addr = net->ip6}};
	socklen_t bytes = sizeof(a.v6);
	if (net->ip4.s_addr) {
		a.v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = net->ip4};
		bytes = sizeof(a.v4);
	}
	int fd = socket(a.sa.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool has = fd >= 0 && !bind(fd, &a.sa, bytes);
	if (fd >= 0)
		close(fd);
	return has;
}

/* Does this interface have it? */
static bool host_interface_has(const char *name, const struct net_config *net)
{
	struct ifaddrs *all = NULL;
	bool has = false;
	union net_addr a;
	if (!*name || getifaddrs(&all))
		return false;
	for (struct ifaddrs *i = all; i && !has; i = i->ifa_next) {
		if (!i->ifa_addr || strcmp(i->ifa_name, name))
			continue;
		memcpy(&a, i->ifa_addr, i->ifa_addr->sa_family == AF_INET6 ? sizeof(a.v6) : sizeof(a.v4));
		if (net->ip4.s_addr)
			has = a.sa.sa_family == AF_INET && a.v4.sin_addr.s_addr == net->ip4.s_addr;
		else
			has = a.sa.sa_family == AF_INET6 && !memcmp(&a.v6.sin6_addr, &net->ip6, sizeof(net->ip6));
	}
	freeifaddrs(all);
	return has;
}

int dpdk_host_first(struct dpdk_link *l, const struct link_config *config)
{
	struct net_config *net = &l->options.net;

	memcpy(net->mac, &l->port.mac, sizeof(net->mac));
	net->mtu_bytes = l->port.mtu_bytes;
	net->has_twin = l->port.driver.is_shared && host_interface_has(l->options.host_if, net);
	if (l->options.twin && !net->has_twin && !host_kernel_has(net)) {
		int err = twin_open(&l->share->twin, NULL, net, config->error, config->error_bytes);
		if (err)
			return err;
		net->has_twin = true;
		dpdk_log(l, TERN_LOG_INFO, "dpdk port %s: the kernel has its address at interface %s", l->port.name, l->share->twin.name);
	}
	l->share->net = *net;
	l->share->options = l->options;
	return 0;
}

int dpdk_host_join(struct dpdk_link *l, const struct link_config *config)
{
	struct dpdk_share *s = l->share;
	bool has_own_twin = s->twin.fd >= 0 || s->net.has_twin;

	if (l->options.twin && !has_own_twin && !host_kernel_has(&s->net)) {
		snprintf(config->error, config->error_bytes,
		        "dpdk: port %s is open without an interface of the kernel's, as its first link wanted (ctl= or twin=0): "
		        "give ctl= here too, or open this link first",
		        s->port.name);
		return -TERN_EADDR;
	}
	if (l->options.mtu_bytes > s->port.mtu_bytes) {
		snprintf(config->error, config->error_bytes, "dpdk: mtu=%u: port %s is open with %u; give no more, or give the first link this MTU",
		         l->options.mtu_bytes, s->port.name, s->port.mtu_bytes);
		return -TERN_EADDR;
	}
	l->options.net = s->net;
	if (l->options.mtu_bytes)
		l->port.mtu_bytes = l->options.mtu_bytes;
	return 0;
}
