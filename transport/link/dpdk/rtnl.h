/* As much of rtnetlink as the twin and a taken-over interface need: one request with its acknowledgement, one dump. Knows nothing of ports or packets. */
#ifndef LINK_DPDK_RTNL_H
#define LINK_DPDK_RTNL_H
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stddef.h>
#include <stdint.h>

enum { RTNL_REQUEST_BYTES = 512 };

struct rtnl_request {
	struct nlmsghdr head;
	uint8_t body[RTNL_REQUEST_BYTES];
};

/** @return a descriptor, or -errno */
int rtnl_open(void);

/** Begins a request; fixed is the family's header (struct ifinfomsg, ifaddrmsg, rtmsg). */
void rtnl_begin(struct rtnl_request *r, uint16_t type, uint16_t flags, const void *fixed, size_t bytes);
/** Appends an attribute. @return it, for rtnl_end_nest; data NULL: begins a nest */
struct rtattr *rtnl_put(struct rtnl_request *r, uint16_t type, const void *data, size_t bytes);
void rtnl_end_nest(struct rtnl_request *r, struct rtattr *nest);

/** Sends and waits for the acknowledgement, for at most a second. @return 0, -errno of the kernel */
int rtnl_ask(int fd, struct rtnl_request *r);

/** Asks for all objects of `type` (RTM_GETADDR, RTM_GETROUTE) of a family; each is handed to `each`. @return 0, -errno */
int rtnl_dump(int fd, uint16_t type, uint8_t family, void (*each)(const struct nlmsghdr *message, void *arg), void *arg);

#endif
