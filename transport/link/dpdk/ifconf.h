/* What the kernel knows of an interface that the dpdk link takes over (address query if=eth0). Called once while a port is opened. */
#ifndef LINK_DPDK_IFCONF_H
#define LINK_DPDK_IFCONF_H
#include "link/dpdk/net.h"

/**
 * Reads hardware address, MTU, VLAN id, the first permanent IPv4 and global IPv6 address with prefix, the link-local address, and the default routes' gateways.
 * @param name   an Ethernet interface of this network namespace, or a VLAN on one; it need not be up
 * @param error  gets words on failure
 * @return 0, -TERN_EADDR (no such interface, or it is not Ethernet), -TERN_EIO
 */
int net_from_interface(const char *name, struct net_config *config, char *error, size_t error_bytes);

#endif
