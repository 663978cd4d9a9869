/* Takes over the configuration of a kernel interface; see ifconf.h. */
#include "link/dpdk/ifconf.h"
#include <errno.h>
#include <linux/if_vlan.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "link/dpdk/rtnl.h"
#include "tern/error.h"

struct taken {
	struct net_config *config;
	uint32_t index;
	uint32_t metric4, metric6; /* of the gateways taken so far */
};

static void ifconf_address(const struct nlmsghdr *message, void *arg)
{
	struct taken *c = arg;
	const struct ifaddrmsg *m = NLMSG_DATA(message);
	size_t left = IFA_PAYLOAD(message);
	uint32_t flags = m->ifa_flags;
	const void *addr = NULL, *local = NULL;

	if (message->nlmsg_type != RTM_NEWADDR || m->ifa_index != c->index)
		return;
	for (const struct rtattr *a = IFA_RTA(m); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		if (a->rta_type == IFA_ADDRESS)
			addr = RTA_DATA(a);
		else if (a->rta_type == IFA_LOCAL)
			local = RTA_DATA(a);
		else if (a->rta_type == IFA_FLAGS)
			memcpy(&flags, RTA_DATA(a), sizeof(flags));
	}
	if (!addr || flags & (IFA_F_TEMPORARY | IFA_F_DEPRECATED | IFA_F_DADFAILED)) /* TEMPORARY is SECONDARY for IPv4 */
		return;
	if (m->ifa_family == AF_INET && !c->config->ip4.s_addr) {
		memcpy(&c->config->ip4, local ? local : addr, 4);
		c->config->prefix4 = m->ifa_prefixlen;
	} else if (m->ifa_family == AF_INET6 && m->ifa_scope == RT_SCOPE_LINK) {
		memcpy(&c->config->local6, addr, 16);
	} else if (m->ifa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&c->config->ip6)) {
		memcpy(&c->config->ip6, local ? local : addr, 16);
		c->config->prefix6 = m->ifa_prefixlen;
	}
}

/* The default route out of this interface with the smallest metric. */
static void ifconf_route(const struct nlmsghdr *message, void *arg)
{
	struct taken *c = arg;
	const struct rtmsg *m = NLMSG_DATA(message);
	size_t left = RTM_PAYLOAD(message);
	uint32_t out = 0, metric = 0;
	const void *gateway = NULL;

	if (message->nlmsg_type != RTM_NEWROUTE || m->rtm_dst_len || m->rtm_type != RTN_UNICAST || m->rtm_table != RT_TABLE_MAIN)
		return;
	for (const struct rtattr *a = RTM_RTA(m); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		if (a->rta_type == RTA_OIF)
			memcpy(&out, RTA_DATA(a), sizeof(out));
		else if (a->rta_type == RTA_GATEWAY)
			gateway = RTA_DATA(a);
		else if (a->rta_type == RTA_PRIORITY)
			memcpy(&metric, RTA_DATA(a), sizeof(metric));
	}
	if (out != c->index || !gateway)
		return;
	if (m->rtm_family == AF_INET && metric < c->metric4) {
		memcpy(&c->config->gateway4, gateway, 4);
		c->metric4 = metric;
	} else if (m->rtm_family == AF_INET6 && metric < c->metric6) {
		memcpy(&c->config->gateway6, gateway, 16);
		c->metric6 = metric;
	}
}

static int ifconf_link(int fd, const char *name, struct net_config *config, char *error, size_t error_bytes)
{
	struct ifreq ifr = {0};
	struct vlan_ioctl_args vlan = {.cmd = GET_VLAN_VID_CMD};

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	snprintf(vlan.device1, sizeof(vlan.device1), "%s", name);
	if (ioctl(fd, SIOCGIFHWADDR, &ifr)) {
		snprintf(error, error_bytes, "if=%s: %s; `ip link` lists the interfaces", name, strerror(errno));
		return -TERN_EADDR;
	}
	if (ifr.ifr_hwaddr.sa_family != ARPHRD_ETHER) {
		snprintf(error, error_bytes, "if=%s: not an Ethernet interface (hardware type %d); name one that is", name, ifr.ifr_hwaddr.sa_family);
		return -TERN_EADDR;
	}
	memcpy(config->mac, ifr.ifr_hwaddr.sa_data, NET_MAC_BYTES);
	if (ioctl(fd, SIOCGIFMTU, &ifr)) {
		snprintf(error, error_bytes, "if=%s: its MTU cannot be read: %s", name, strerror(errno));
		return -TERN_EIO;
	}
	config->mtu_bytes = ifr.ifr_mtu < NET_MTU_MAX ? (uint32_t)ifr.ifr_mtu : NET_MTU_MAX;
	if (!ioctl(fd, SIOCGIFVLAN, &vlan)) /* refused: it is none */
		config->vlan = (uint16_t)vlan.u.VID;
	return 0;
}

int net_from_interface(const char *name, struct net_config *config, char *error, size_t error_bytes)
{
	struct taken c = {.config = config, .metric4 = UINT32_MAX, .metric6 = UINT32_MAX};
	int fd, err;

	memset(config, 0, sizeof(*config));
	if (!*name || strlen(name) >= IFNAMSIZ) {
		snprintf(error, error_bytes, "if=%s: an interface name has 1 to %d characters", name, IFNAMSIZ - 1);
		return -TERN_EADDR;
	}
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		snprintf(error, error_bytes, "if=%s: no socket: %s", name, strerror(errno));
		return -TERN_EIO;
	}
	err = ifconf_link(fd, name, config, error, error_bytes);
	close(fd);
	if (err)
		return err;
	c.index = if_nametoindex(name);
	fd = rtnl_open();
	err = fd < 0 ? fd : rtnl_dump(fd, RTM_GETADDR, AF_UNSPEC, ifconf_address, &c);
	if (!err)
		err = rtnl_dump(fd, RTM_GETROUTE, AF_INET, ifconf_route, &c);
	if (!err)
		err = rtnl_dump(fd, RTM_GETROUTE, AF_INET6, ifconf_route, &c);
	if (fd >= 0)
		close(fd);
	if (err) {
		snprintf(error, error_bytes, "if=%s: its addresses and routes cannot be read: %s", name, strerror(-err));
		return -TERN_EIO;
	}
	return 0;
}
