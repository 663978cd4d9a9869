/* rtnetlink by hand; see rtnl.h. Called while a port is opened, never later. */
#include "link/dpdk/rtnl.h"
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { REPLIES_MAX = 100000, BUFFER_BYTES = 32768 };

int rtnl_open(void)
{
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
	struct timeval patience = {.tv_sec = 1};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) || connect(fd, (struct sockaddr *)&kernel, sizeof(kernel))) {
		int err = errno;
		close(fd);
		return -err;
	}
	return fd;
}

void rtnl_begin(struct rtnl_request *r, uint16_t type, uint16_t flags, const void *fixed, size_t bytes)
{
	memset(r, 0, sizeof(*r));
	r->head.nlmsg_type = type;
	r->head.nlmsg_flags = NLM_F_REQUEST | flags;
	r->head.nlmsg_seq = 1;
	r->head.nlmsg_len = (uint32_t)NLMSG_LENGTH(bytes);
	memcpy(r->body, fixed, bytes);
}

struct rtattr *rtnl_put(struct rtnl_request *r, uint16_t type, const void *data, size_t bytes)
{
	size_t at = NLMSG_ALIGN(r->head.nlmsg_len);
	struct rtattr *a = (struct rtattr *)((uint8_t *)r + at);

	if (at + RTA_SPACE(bytes) > sizeof(*r)) /* the kernel refuses what is cut */
		return a;
	a->rta_type = type;
	a->rta_len = (uint16_t)RTA_LENGTH(bytes);
	if (data)
		memcpy(RTA_DATA(a), data, bytes);
	r->head.nlmsg_len = (uint32_t)(at + RTA_SPACE(bytes));
	return a;
}

void rtnl_end_nest(struct rtnl_request *r, struct rtattr *nest)
{
	nest->rta_len = (uint16_t)((uint8_t *)r + r->head.nlmsg_len - (uint8_t *)nest);
}

static ssize_t receive(int fd, void *buffer, size_t bytes)
{
	for (int tries = 0; tries < 16; tries++) {
		ssize_t n = recv(fd, buffer, bytes, 0);
		if (n >= 0 || errno != EINTR)
			return n < 0 ? -errno : n;
	}
	return -EINTR;
}

int rtnl_ask(int fd, struct rtnl_request *r)
{
	_Alignas(struct nlmsghdr) char buffer[1024];

	r->head.nlmsg_flags |= NLM_F_ACK;
	if (send(fd, r, r->head.nlmsg_len, MSG_NOSIGNAL) < 0)
		return -errno;
	ssize_t n = receive(fd, buffer, sizeof(buffer));
	if (n < 0)
		return (int)n;
	const struct nlmsghdr *m = (const struct nlmsghdr *)buffer;
	if ((size_t)n < NLMSG_LENGTH(sizeof(struct nlmsgerr)) || m->nlmsg_type != NLMSG_ERROR)
		return -EPROTO;
	return ((const struct nlmsgerr *)NLMSG_DATA(m))->error;
}

int rtnl_dump(int fd, uint16_t type, uint8_t family, void (*each)(const struct nlmsghdr *message, void *arg), void *arg)
{
	_Alignas(struct nlmsghdr) static _Thread_local char buffer[BUFFER_BYTES];
	struct rtnl_request r;
	struct rtmsg fixed = {.rtm_family = family}; /* the family comes first in every kind */

	rtnl_begin(&r, type, NLM_F_DUMP, &fixed, sizeof(fixed));
	if (send(fd, &r, r.head.nlmsg_len, MSG_NOSIGNAL) < 0)
		return -errno;
	for (int replies = 0; replies < REPLIES_MAX; replies++) {
		ssize_t n = receive(fd, buffer, sizeof(buffer));
		if (n < 0)
			return (int)n;
		const struct nlmsghdr *m = (const struct nlmsghdr *)buffer;
		for (size_t left = (size_t)n; NLMSG_OK(m, left); m = NLMSG_NEXT(m, left)) {
			if (m->nlmsg_type == NLMSG_DONE)
				return 0;
			if (m->nlmsg_type == NLMSG_ERROR)
				return ((const struct nlmsgerr *)NLMSG_DATA(m))->error;
			each(m, arg);
		}
	}
	return -EPROTO;
}
