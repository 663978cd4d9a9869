/* What the two bare UDP programs share: a pair of connected sockets, a core to run on, a clock. They are the floor that perf/versus/samehost.sh holds
 * tern against, so there is nothing here but system calls. Knows nothing of Tern. */
#ifndef MICRO_UDP_COMMON_H
#define MICRO_UDP_COMMON_H
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { UDP_BUFFER_BYTES = 8 << 20 };

static inline void udp_die(const char *what)
{
	perror(what);
	exit(1);
}

static inline uint64_t udp_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void udp_pin(int core)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(core, &set);
	if (core >= 0 && sched_setaffinity(0, sizeof(set), &set))
		udp_die("sched_setaffinity");
}

static inline int udp_bound(struct sockaddr_in *name)
{
	socklen_t bytes = sizeof(*name);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), room = UDP_BUFFER_BYTES;

	memset(name, 0, sizeof(*name));
	name->sin_family = AF_INET;
	name->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || bind(fd, (struct sockaddr *)name, sizeof(*name)) || getsockname(fd, (struct sockaddr *)name, &bytes))
		udp_die("socket");
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)))
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room)); /* without root: what net.core.rmem_max allows */
	return fd;
}

/* Two sockets on the loopback address, each connected to the other. */
static inline void udp_pair(int fd[2])
{
	struct sockaddr_in name[2];

	fd[0] = udp_bound(&name[0]);
	fd[1] = udp_bound(&name[1]);
	if (connect(fd[0], (struct sockaddr *)&name[1], sizeof(name[1])) || connect(fd[1], (struct sockaddr *)&name[0], sizeof(name[0])))
		udp_die("connect");
}

#endif
