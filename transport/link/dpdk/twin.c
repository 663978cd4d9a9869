/* The tap twin; see twin.h. */
#include "link/dpdk/twin.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>
#include "link/dpdk/rtnl.h"
#include "tern/error.h"

enum { ROUTE_METRIC = 4096, ETHER_TAG = 0x8100, ADDR_GEN_NONE = 1 };

static int twin_device(struct twin *twin, const char *name, char *error, size_t error_bytes)
{
	static const char other_way[] = "or name a control address of another interface with ctl=";
	struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI};

	if (name && strlen(name) >= sizeof(ifr.ifr_name)) {
		snprintf(error, error_bytes, "twin %s: an interface name has at most %zu characters", name, sizeof(ifr.ifr_name) - 1);
		return -TERN_EADDR;
	}
	twin->fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (twin->fd < 0) {
		snprintf(error, error_bytes, "the kernel twin of the port needs /dev/net/tun: %s; load the module `tun`, %s",
		         strerror(errno), other_way);
		return -TERN_EIO;
	}
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name ? name : "tern%d");
	if (ioctl(twin->fd, TUNSETIFF, &ifr)) {
		bool is_right = errno == EPERM || errno == EACCES;
		snprintf(error, error_bytes, "the kernel twin %s cannot be made: %s; %s %s", ifr.ifr_name, strerror(errno),
		         is_right ? "run with CAP_NET_ADMIN (as root, or setcap cap_net_admin+ep PROGRAM),"
		                  : "end the program that holds the name,", other_way);
		return is_right ? -TERN_EIO : -TERN_EADDR;
	}
	memcpy(twin->name, ifr.ifr_name, sizeof(twin->name) - 1);
	return 0;
}

static int twin_link(int fd, uint32_t index, const struct net_config *net)
{
	struct ifinfomsg m = {.ifi_index = (int)index};
	struct rtnl_request r;
	uint32_t mtu = net->mtu_bytes;
	uint8_t mode = ADDR_GEN_NONE;

	rtnl_begin(&r, RTM_NEWLINK, 0, &m, sizeof(m));
	rtnl_put(&r, IFLA_ADDRESS, net->mac, NET_MAC_BYTES);
	rtnl_put(&r, IFLA_MTU, &mtu, sizeof(mtu));
	int err = rtnl_ask(fd, &r);
	if (err)
		return err;
	/* the link-local address is put there by hand, so that it is the host's; refused where the kernel has no IPv6 */
	rtnl_begin(&r, RTM_NEWLINK, 0, &m, sizeof(m));
	struct rtattr *spec = rtnl_put(&r, IFLA_AF_SPEC, NULL, 0), *family = rtnl_put(&r, AF_INET6, NULL, 0);
	rtnl_put(&r, IFLA_INET6_ADDR_GEN_MODE, &mode, sizeof(mode));
	rtnl_end_nest(&r, family);
	rtnl_end_nest(&r, spec);
	rtnl_ask(fd, &r);
	m.ifi_flags = m.ifi_change = IFF_UP;
	rtnl_begin(&r, RTM_NEWLINK, 0, &m, sizeof(m));
	return rtnl_ask(fd, &r);
}

static int twin_address(int fd, uint32_t index, uint8_t family, const void *addr, uint8_t prefix)
{
	/* no duplicate address detection: the port has owned the address, and until it ends nothing could be sent from it */
	struct ifaddrmsg m = {.ifa_family = family, .ifa_prefixlen = prefix, .ifa_index = index};
	m.ifa_flags = family == AF_INET6 ? IFA_F_NODAD : 0;
	size_t bytes = family == AF_INET6 ? 16 : 4;
	struct rtnl_request r;

	rtnl_begin(&r, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &m, sizeof(m));
	rtnl_put(&r, IFA_LOCAL, addr, bytes);
	rtnl_put(&r, IFA_ADDRESS, addr, bytes);
	if (family == AF_INET && prefix < 31) {
		uint32_t all;
		memcpy(&all, addr, 4);
		all |= htonl(0xffffffffu >> prefix);
		rtnl_put(&r, IFA_BROADCAST, &all, 4);
	}
	return rtnl_ask(fd, &r);
}

static int twin_route(int fd, uint32_t index, uint8_t family, const void *gateway)
{
	struct rtmsg m = {.rtm_family = family, .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_STATIC, .rtm_type = RTN_UNICAST};
	m.rtm_flags = RTNH_F_ONLINK;
	uint32_t metric = ROUTE_METRIC;
	struct rtnl_request r;

	rtnl_begin(&r, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &m, sizeof(m));
	rtnl_put(&r, RTA_OIF, &index, sizeof(index));
	rtnl_put(&r, RTA_GATEWAY, gateway, family == AF_INET6 ? 16 : 4);
	rtnl_put(&r, RTA_PRIORITY, &metric, sizeof(metric));
	int err = rtnl_ask(fd, &r);
	return err == -EEXIST ? 0 : err;
}

/* @return 0, -errno; *what: at which step */
static int twin_configure(int fd, uint32_t index, const struct net_config *net, const char **what)
{
	struct in6_addr local6 = net->local6;
	int err;

	if (IN6_IS_ADDR_UNSPECIFIED(&local6)) {
		const uint8_t *m = net->mac;
		const uint8_t addr[16] = {0xfe, 0x80, [8] = m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]};
		memcpy(&local6, addr, 16);
	}
	*what = "its hardware address and MTU";
	err = twin_link(fd, index, net);
	*what = "the IPv4 address";
	if (!err && net->ip4.s_addr)
		err = twin_address(fd, index, AF_INET, &net->ip4, net->prefix4);
	bool has_ip6 = !IN6_IS_ADDR_UNSPECIFIED(&net->ip6);
	if (!err) {
		*what = "the IPv6 address";
		int refused = twin_address(fd, index, AF_INET6, &local6, 64);
		if (has_ip6)
			err = refused ? refused : twin_address(fd, index, AF_INET6, &net->ip6, net->prefix6);
	}
	if (!err && net->gateway4.s_addr) {
		*what = "the IPv4 gateway";
		err = twin_route(fd, index, AF_INET, &net->gateway4);
	}
	if (!err && has_ip6 && !IN6_IS_ADDR_UNSPECIFIED(&net->gateway6)) {
		*what = "the IPv6 gateway";
		err = twin_route(fd, index, AF_INET6, &net->gateway6);
	}
	return err;
}

int twin_open(struct twin *twin, const char *name, const struct net_config *net, char *error, size_t error_bytes)
{
	const char *what = "a netlink socket";
	struct ifreq ifr = {0};

	*twin = (struct twin){.fd = -1, .vlan = net->vlan, .vlan_priority = net->vlan_priority};
	int err = twin_device(twin, name, error, error_bytes);
	if (err) {
		twin_close(twin);
		return err;
	}
	int fd = rtnl_open(), any = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	memcpy(ifr.ifr_name, twin->name, sizeof(twin->name));
	err = fd < 0 ? fd : any < 0 || ioctl(any, SIOCGIFINDEX, &ifr) ? -errno : twin_configure(fd, (uint32_t)ifr.ifr_ifindex, net, &what);
	if (fd >= 0)
		close(fd);
	if (any >= 0)
		close(any);
	if (!err)
		return 0;
	snprintf(error, error_bytes, "the kernel twin %s was refused %s: %s; %s", twin->name, what, strerror(-err),
	         err == -EPERM ? "run with CAP_NET_ADMIN" : "see `ip address` and `ip route` for what is in the way");
	twin_close(twin);
	return err == -EEXIST || err == -EADDRNOTAVAIL ? -TERN_EADDR : -TERN_EIO;
}

void twin_close(struct twin *twin)
{
	if (twin->fd >= 0)
		close(twin->fd);
	twin->fd = -1;
}

/* Whichever thread has a frame for the kernel writes it: the descriptor takes whole frames. */
static void twin_count(uint64_t *counter)
{
	__atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

size_t twin_rx(struct twin *twin, uint8_t *out, size_t room)
{
	size_t tag = twin->vlan ? NET_VLAN_BYTES : 0;

	if (room < NET_ETHER_BYTES + tag)
		return 0;
	/* one byte of room that no frame may need tells a frame that was cut */
	uint8_t beyond;
	struct iovec iov[3] = {{out, 12}, {out + 12 + tag, room - 12 - tag}, {&beyond, 1}};
	ssize_t n = readv(twin->fd, iov, 3);
	if (n < 0)
		return 0;
	if (n < NET_ETHER_BYTES || (size_t)n + tag > room) {
		twin_count(&twin->rx_dropped);
		return 0;
	}
	if (tag) {
		out[12] = ETHER_TAG >> 8;
		out[13] = ETHER_TAG & 0xff;
		out[14] = (uint8_t)(twin->vlan_priority << 5 | twin->vlan >> 8);
		out[15] = (uint8_t)twin->vlan;
	}
	twin_count(&twin->rx_frames);
	return (size_t)n + tag;
}

bool twin_tx(struct twin *twin, const uint8_t *frame, size_t bytes)
{
	bool is_tagged = bytes >= NET_ETHER_BYTES + NET_VLAN_BYTES && frame[12] == ETHER_TAG >> 8 && frame[13] == (ETHER_TAG & 0xff);
	size_t skip = is_tagged ? NET_VLAN_BYTES : 0;

	if (bytes < NET_ETHER_BYTES)
		return false;
	struct iovec iov[2] = {{(uint8_t *)(uintptr_t)frame, 12}, {(uint8_t *)(uintptr_t)frame + 12 + skip, bytes - 12 - skip}};
	if (writev(twin->fd, iov, 2) < 0) {
		twin_count(&twin->tx_dropped);
		return false;
	}
	twin_count(&twin->tx_frames);
	return true;
}

uint64_t twin_moved(const struct twin *twin)
{
	return __atomic_load_n(&twin->rx_frames, __ATOMIC_RELAXED) + __atomic_load_n(&twin->tx_frames, __ATOMIC_RELAXED);
}
