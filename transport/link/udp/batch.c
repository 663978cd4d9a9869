/* Sending, the part that both engines share: which frames go out in one sendmsg (UDP_SEGMENT), and what its result means for them.
 * Called by the engines. */
#include <errno.h>
#include <netinet/udp.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "link/udp/udp.h"
#include "tern/tern.h"

/* How many of the frames have one size (the last may be shorter), one path, and fit the limits of one UDP_SEGMENT send. */
static size_t batch_frames(struct frame *const *frames, size_t n, bool single)
{
	const struct frame *first = frames[0];
	uint64_t bytes = first->wire_bytes;
	size_t segs = first->segs, k = 1;

	if (n > UDP_BATCH_FRAMES_MAX)
		n = UDP_BATCH_FRAMES_MAX;
	if (single || !((struct udp_path *)first->path)->gso)
		return 1;
	while (k < n && !frames[k - 1]->burst_end && frames[k]->path == first->path && frames[k]->wire_bytes <= first->wire_bytes) {
		bytes += frames[k]->wire_bytes;
		segs += frames[k]->segs;
		if (bytes > UDP_BATCH_BYTES_MAX || segs > UDP_BATCH_IOV_MAX)
			break;
		k++;
		if (frames[k - 1]->wire_bytes < first->wire_bytes)
			break;
	}
	return k;
}

void udp_batch_build(struct frame *const *frames, size_t n, bool single, struct udp_batch *b)
{
	struct iovec *v = b->iov;

	b->path = (struct udp_path *)frames[0]->path;
	b->frames = batch_frames(frames, n, single);
	b->bytes = 0;
	b->tries = 0;
	for (size_t i = 0; i < b->frames; i++) {
		const struct frame *f = frames[i];
		for (uint32_t s = 0; s < f->segs; s++)
			*v++ = (struct iovec){.iov_base = f->seg[s].addr, .iov_len = f->seg[s].bytes};
		b->bytes += f->wire_bytes;
	}
	b->iovs = (size_t)(v - b->iov);
	b->msg = (struct msghdr){.msg_iov = b->iov, .msg_iovlen = b->iovs};
	if (b->frames > 1) {
		uint16_t stride = (uint16_t)frames[0]->wire_bytes;
		b->control.align = (struct cmsghdr){.cmsg_level = SOL_UDP, .cmsg_type = UDP_SEGMENT, .cmsg_len = CMSG_LEN(sizeof(stride))};
		memcpy(CMSG_DATA(&b->control.align), &stride, sizeof(stride));
		b->msg.msg_control = &b->control;
		b->msg.msg_controllen = sizeof(b->control.bytes);
	}
}

/* The frame is gone, as if lost on the way: the engine above finds out as with any loss. */
static enum udp_verdict batch_drop(struct udp_link *l, struct udp_batch *b, struct frame *const *frames)
{
	l->base.tx_dropped += b->frames;
	for (size_t i = 0; i < b->frames; i++)
		udp_done_put(l, frames[i]);
	return UDP_TAKEN;
}

/* The datagram is larger than the interface lets through: later ones must be smaller, whatever the route's cache says. */
static void batch_lower(struct udp_link *l, struct udp_path *p, uint32_t bytes)
{
	uint32_t max = udp_sock_max_bytes(p);
	if (max >= bytes)
		max = bytes - 1;
	if (max < p->base.max_frame_bytes) {
		udp_log(l, TERN_LOG_INFO, "datagram of %u bytes is too large for the interface; largest frame lowered from %u to %u", bytes,
		        p->base.max_frame_bytes, max);
		p->base.max_frame_bytes = max;
	}
}

enum udp_verdict udp_batch_verdict(struct udp_link *l, struct udp_batch *b, struct frame *const *frames, long result)
{
	l->base.tx_calls++;
	if (result >= 0) {
		l->base.tx_frames += b->frames;
		l->base.tx_bytes += b->bytes;
		for (size_t i = 0; i < b->frames; i++)
			udp_done_put(l, frames[i]);
		return UDP_TAKEN;
	}
	switch (-result) {
	case EAGAIN:
	case ENOBUFS:
	case ENOMEM:
	case EINTR:
		return UDP_AGAIN;
	case ECONNREFUSED: /* an ICMP answer to something earlier; reading it cleared it */
		l->refused++;
		return b->tries++ < 2 ? UDP_RETRY : batch_drop(l, b, frames);
	case EMSGSIZE:
		if (b->frames > 1)
			return UDP_SINGLE;
		batch_lower(l, b->path, frames[0]->wire_bytes);
		return batch_drop(l, b, frames);
	case EINVAL:
	case EIO: /* a device that cannot checksum or segment, a tunnel, or (older kernels, EINVAL) segments above the MTU: one alone tells which */
		if (b->frames > 1)
			return UDP_SINGLE;
		return batch_drop(l, b, frames);
	default: /* no route, a firewall: lost on the way */
		return batch_drop(l, b, frames);
	}
}

static void batch_gso_refused(struct udp_link *l, struct udp_path *p)
{
	l->gso_refused++;
	p->gso = false;
	udp_log(l, TERN_LOG_WARN, "UDP_SEGMENT refused on this path (a device without checksum offload?): one datagram a send, slower");
}

/* One send. @return how many frames were taken; *verdict says why not more */
static size_t batch_send(struct udp_link *l, struct frame *const *frames, size_t n, struct udp_batch *b, enum udp_verdict *verdict)
{
	udp_batch_build(frames, n, *verdict == UDP_SINGLE, b);
	do {
		ssize_t sent = syscall(SYS_sendmsg, b->path->sock.fd, &b->msg, MSG_DONTWAIT | MSG_NOSIGNAL);
		*verdict = udp_batch_verdict(l, b, frames, sent < 0 ? -errno : sent);
	} while (*verdict == UDP_RETRY);
	return *verdict == UDP_TAKEN ? b->frames : 0;
}

size_t udp_send_now(struct udp_link *l, struct frame *const *frames, size_t n, struct iovec *iov)
{
	enum udp_verdict verdict = UDP_TAKEN;
	struct udp_batch b = {.iov = iov};
	size_t done = 0;

	while (done < n && verdict != UDP_AGAIN) {
		bool single = verdict == UDP_SINGLE;
		uint64_t dropped = l->base.tx_dropped;
		done += batch_send(l, frames + done, n - done, &b, &verdict);
		if (single && verdict == UDP_TAKEN && l->base.tx_dropped == dropped)
			batch_gso_refused(l, b.path);
	}
	return done;
}
