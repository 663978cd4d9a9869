/* Bare UDP ping-pong on one host, both processes spinning on a non-blocking receive: the floor under any half RTT over datagrams.
 * Usage: udp-pingpong BYTES ROUNDS [CORE_A CORE_B]; prints "BYTES median_us average_us" of half the round trip. Knows nothing of Tern. */
#include <sys/wait.h>
#include "udp_common.h"

enum { BYTES_MAX = 65507, ROUNDS_MAX = 10000000, WARMUP = 1000 };
#define SILENCE_NS 5000000000u /* a datagram was lost: loopback does that when a buffer is full, which cannot be here */

static uint8_t room[BYTES_MAX + 1];

static void take(int fd, size_t bytes)
{
	uint64_t start = udp_now_ns();

	for (unsigned i = 1;; i++) {
		ssize_t n = recv(fd, room, sizeof(room), MSG_DONTWAIT);
		if (n == (ssize_t)bytes)
			return;
		if (n >= 0 || errno != EAGAIN)
			udp_die("recv");
		if (i % 4096 == 0 && udp_now_ns() - start > SILENCE_NS) {
			fprintf(stderr, "udp-pingpong: no answer for 5 s\n");
			exit(1);
		}
	}
}

static void give(int fd, size_t bytes)
{
	if (send(fd, room, bytes, 0) != (ssize_t)bytes)
		udp_die("send");
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
	int bytes = argc > 2 ? atoi(argv[1]) : 0, rounds = argc > 2 ? atoi(argv[2]) : 0, fd[2];

	if (bytes < 1 || bytes > BYTES_MAX || rounds < 1 || rounds > ROUNDS_MAX || (argc != 3 && argc != 5)) {
		fprintf(stderr, "usage: udp-pingpong BYTES(1..65507) ROUNDS(1..10000000) [CORE_A CORE_B]\n");
		return 2;
	}
	udp_pair(fd);
	pid_t child = fork();
	if (child < 0)
		udp_die("fork");
	if (!child) {
		udp_pin(argc == 5 ? atoi(argv[4]) : -1);
		for (int i = 0; i < rounds + WARMUP; i++) {
			take(fd[1], (size_t)bytes);
			give(fd[1], (size_t)bytes);
		}
		_exit(0);
	}
	udp_pin(argc == 5 ? atoi(argv[3]) : -1);
	uint64_t *ns = calloc((size_t)rounds, sizeof(*ns)), sum = 0, before = udp_now_ns();
	if (!ns)
		udp_die("calloc");
	for (int i = -WARMUP; i < rounds; i++) {
		give(fd[0], (size_t)bytes);
		take(fd[0], (size_t)bytes);
		uint64_t after = udp_now_ns();
		if (i >= 0)
			sum += ns[i] = after - before;
		before = after;
	}
	waitpid(child, NULL, 0);
	qsort(ns, (size_t)rounds, sizeof(*ns), compare);
	printf("%d %.3f %.3f\n", bytes, (double)ns[rounds / 2] / 2000, (double)sum / rounds / 2000);
	return 0;
}
