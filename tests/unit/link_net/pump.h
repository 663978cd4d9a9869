/* A veth pair between two network namespaces of this process: at the far end the kernel, at the near end a packet socket that stands for a port, pumped by the
 * test through the small IP host, with or without a kernel twin. Everything ends with the process. */
#ifndef TESTS_LINK_NET_PUMP_H
#define TESTS_LINK_NET_PUMP_H
#include <stdbool.h>
#include "link/dpdk/net.h"
#include "link/dpdk/twin.h"

struct pump {
	int far, near;   /* namespaces */
	int port;        /* packet socket on the near end */
	bool has_twin;
	struct net_host host;
	struct twin twin;
	uint64_t echoed; /* datagrams to 7400 that were sent back */
	uint64_t failed; /* frames the port did not take */
};

/** @return 0; 77 with the reason printed: the machine refuses namespaces or veth */
int pump_open(struct pump *p, const struct net_config *config, bool with_twin);
void pump_close(struct pump *p);

/** Enters one of the namespaces: sockets made afterwards belong to it. */
void pump_enter(int ns);

/** Runs the host until fd is readable (or writable), or the time is over. @return whether it is */
bool pump_until(struct pump *p, int fd, short events, int wait_ms);

/** A shell command in the current namespace. @return its exit status */
int pump_shell(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
