/* Bare UDP bulk on one host: one process sends bursts of up to 64 KiB by UDP_SEGMENT, another takes them by UDP_GRO and throws them away. No numbers
 * and no acknowledgements; a counter in shared memory keeps the sender from overrunning the receive buffer, because dropping costs both sides more
 * than waiting does. The floor under any protocol on datagrams. Counts what arrived. Usage: udp-loop FRAME_BYTES SECONDS [CORE_TX CORE_RX]; prints
 * "FRAME_BYTES bits_per_second lost_ratio". Knows nothing of Tern. */
#include <netinet/udp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include "udp_common.h"

enum { BURST_BYTES = 65507, SEGMENTS_MAX = 64, MESSAGE_BYTES = 1 << 20, WINDOW_BYTES = 1 << 20 };
#define STUCK_NS 20000000u /* bytes in flight for so long were dropped after all */

struct shared {
	_Alignas(64) _Atomic uint64_t sent_bytes; /* written by the sender */
	_Alignas(64) _Atomic uint64_t got_bytes;  /* written by the receiver */
	_Alignas(64) _Atomic int ready, stop;
};

/* Waits until the window has room. @return what is to be taken for sent so far */
static uint64_t window_wait(struct shared *shared, uint64_t sent)
{
	uint64_t since = 0;

	while (sent - shared->got_bytes > WINDOW_BYTES && !shared->stop) {
		uint64_t now = udp_now_ns();
		if (!since)
			since = now;
		if (now - since > STUCK_NS)
			return shared->got_bytes;
	}
	return sent;
}

/* Bursts out of a message of 1 MiB, again and again, as tern-bw sends from one buffer. */
static void transmit(int fd, uint32_t frame, struct shared *shared)
{
	uint8_t *message = malloc(MESSAGE_BYTES);
	uint32_t segments = BURST_BYTES / frame > SEGMENTS_MAX ? SEGMENTS_MAX : BURST_BYTES / frame;
	uint32_t burst = segments * frame, at = 0;
	uint64_t in_window = 0;
	int stride = (int)frame;

	if (!message)
		udp_die("malloc");
	memset(message, 0x5a, MESSAGE_BYTES);
	if (segments > 1 && setsockopt(fd, SOL_UDP, UDP_SEGMENT, &stride, sizeof(stride)))
		udp_die("UDP_SEGMENT");
	while (!shared->ready)
		sched_yield();
	while (!shared->stop) {
		in_window = window_wait(shared, in_window);
		ssize_t n = send(fd, message + at, burst, 0);
		if (n > 0) {
			shared->sent_bytes += (uint64_t)n;
			in_window += (uint64_t)n;
		} else if (errno != ECONNREFUSED && errno != ENOBUFS && errno != EINTR) {
			udp_die("send");
		}
		at = at + 2 * burst > MESSAGE_BYTES ? 0 : at + burst;
	}
}

/* Goodput from the first byte on, for so many seconds. */
static double take(int fd, double seconds, struct shared *shared, double *lost)
{
	static uint8_t room[1 << 16];
	int on = 1;
	uint64_t got = 0, start, end;

	if (setsockopt(fd, SOL_UDP, UDP_GRO, &on, sizeof(on)))
		udp_die("UDP_GRO");
	shared->ready = 1;
	start = udp_now_ns();
	end = start + (uint64_t)(seconds * 1e9);
	for (unsigned i = 0; i % 64 || udp_now_ns() < end; i++) {
		ssize_t n = recv(fd, room, sizeof(room), MSG_DONTWAIT);
		if (n > 0)
			shared->got_bytes = got += (uint64_t)n;
		else if (n < 0 && errno != EAGAIN && errno != EINTR)
			udp_die("recv");
	}
	double elapsed = (double)(udp_now_ns() - start) / 1e9;
	shared->stop = 1;
	*lost = shared->sent_bytes > got ? 1 - (double)got / (double)shared->sent_bytes : 0;
	return (double)got * 8 / elapsed;
}

int main(int argc, char **argv)
{
	uint32_t frame = argc > 2 ? (uint32_t)atoi(argv[1]) : 0;
	double seconds = argc > 2 ? atof(argv[2]) : 0, lost;
	int fd[2];

	if (frame < 64 || frame > BURST_BYTES || seconds <= 0 || seconds > 60 || (argc != 3 && argc != 5)) {
		fprintf(stderr, "usage: udp-loop FRAME_BYTES(64..65507) SECONDS [CORE_TX CORE_RX]\n");
		return 2;
	}
	struct shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		udp_die("mmap");
	udp_pair(fd);
	pid_t child = fork();
	if (child < 0)
		udp_die("fork");
	if (!child) {
		udp_pin(argc == 5 ? atoi(argv[3]) : -1);
		transmit(fd[0], frame, shared);
		_exit(0);
	}
	udp_pin(argc == 5 ? atoi(argv[4]) : -1);
	double rate = take(fd[1], seconds, shared, &lost);
	waitpid(child, NULL, 0);
	printf("%u %.0f %.4f\n", frame, rate, lost);
	return 0;
}
