/* The kernel's half of a port that user space has taken: a tap device with the port's hardware and IP addresses. What is not ours goes into it, what the kernel
 * sends comes out of it and leaves by the port; so TCP (the control connection), ping, and every other program go on as if the kernel still had the port.
 * The kernel then answers ARP, neighbour solicitations and echo; net_answer is silent (net_config.has_twin), and net_learn reads the same packets as they pass.
 * Called by the dpdk link's loops, frames by several threads at once; nothing here blocks but twin_open. */
#ifndef LINK_DPDK_TWIN_H
#define LINK_DPDK_TWIN_H
#include "link/dpdk/net.h"

struct twin {
	int fd;             /* readable when the kernel has a frame */
	uint16_t vlan;      /* the tag is taken off and put on here: the device is untagged */
	uint8_t vlan_priority;
	char name[16];      /* the interface */
	uint64_t rx_frames, tx_frames, tx_dropped, rx_dropped; /* rx: from the kernel; dropped: too long, or the kernel did not take it */
};

/**
 * Makes the device in the calling thread's network namespace, gives it net's addresses and MTU, and brings it up. The gateways become default routes of metric 4096,
 * which give way to any that is there. The device goes when the twin is closed, or the process ends.
 * @param name   of the interface, at most 15 characters; NULL: tern0, tern1, ...
 * @param error  gets words on failure: what was refused and what to do
 * @return 0, -TERN_EIO, -TERN_EADDR (the name or an address is in use or malformed)
 */
int twin_open(struct twin *twin, const char *name, const struct net_config *net, char *error, size_t error_bytes);
void twin_close(struct twin *twin);

/** Takes one frame from the kernel, ready to leave by the port (with tag). Does not block. @return its bytes, 0: none; room should be MTU + 18 */
size_t twin_rx(struct twin *twin, uint8_t *out, size_t room);

/** Hands a frame of the port to the kernel, at most once; what it does not take is counted and lost. @return whether it was taken */
bool twin_tx(struct twin *twin, const uint8_t *frame, size_t bytes);

/** Grows with each frame either way. */
uint64_t twin_moved(const struct twin *twin);

#endif
