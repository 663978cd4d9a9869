/* Receiving, the part that both engines share: buffers, control messages, and one GRO buffer that becomes many frames.
 * Called by udp.c and the engines; makes no system call but the mapping at open. */
#include <errno.h>
#include <netinet/udp.h>
#include <string.h>
#include <sys/mman.h>
#include "link/udp/udp.h"
#include "tern/error.h"

int udp_bufs_open(struct udp_link *l)
{
	size_t bytes = (size_t)UDP_BUFS * UDP_BUF_BYTES;
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return -TERN_ENOMEM;
	l->memory = memory;
	for (uint32_t i = 0; i < UDP_BUFS; i++) {
		l->bufs[i].data = l->memory + (size_t)i * UDP_BUF_BYTES + UDP_BUF_ROOM;
		l->bufs[i].index = i;
		l->idle[UDP_BUFS - 1 - i] = &l->bufs[i];
	}
	l->n_idle = UDP_BUFS;
	return 0;
}

void udp_bufs_close(struct udp_link *l)
{
	if (l->memory)
		munmap(l->memory, (size_t)UDP_BUFS * UDP_BUF_BYTES);
	l->memory = NULL;
}

struct udp_buf *udp_buf_get(struct udp_link *l)
{
	if (!l->n_idle)
		return NULL;
	struct udp_buf *b = l->idle[--l->n_idle];
	b->refs = 1;
	return b;
}

void udp_buf_put(struct udp_link *l, struct udp_buf *b)
{
	if (--b->refs == 0)
		l->idle[l->n_idle++] = b;
}

void udp_bufs_forget(struct udp_link *l, struct udp_path *p)
{
	for (uint32_t i = 0; i < UDP_BUFS; i++)
		if (l->bufs[i].path == p) {
			l->bufs[i].path = NULL;
			memcpy(&l->bufs[i].from, p->base.remote.data, p->base.remote.bytes);
		}
	if (l->rest.bytes && l->rest.path == p) {
		l->base.rx_dropped += (l->rest.bytes + l->rest.stride - 1) / l->rest.stride;
		udp_buf_put(l, l->rest.buf);
		l->rest.bytes = 0;
	}
}

/* Which of our addresses it came to. */
static void message_to(struct udp_buf *b, const struct cmsghdr *c)
{
	struct in_pktinfo four;
	struct in6_pktinfo six;
	if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
		memcpy(&four, CMSG_DATA(c), sizeof(four));
		*(struct sockaddr_in *)&b->to = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = four.ipi_addr};
	} else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
		memcpy(&six, CMSG_DATA(c), sizeof(six));
		*(struct sockaddr_in6 *)&b->to = (struct sockaddr_in6){
		        .sin6_family = AF_INET6, .sin6_addr = six.ipi6_addr,
		        .sin6_scope_id = IN6_IS_ADDR_LINKLOCAL(&six.ipi6_addr) ? six.ipi6_ifindex : 0};
	}
}

void udp_message_control(struct udp_message *m, struct msghdr *msg)
{
	m->stride = m->bytes;
	m->ecn = 0;
	m->buf->to.ss_family = 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		int value = 0;
		if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
			memcpy(&value, CMSG_DATA(c), sizeof(value));
			if (value > 0 && (uint32_t)value < m->bytes)
				m->stride = (uint32_t)value;
		} else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS) {
			m->ecn = *CMSG_DATA(c) & 3;
		} else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS) {
			memcpy(&value, CMSG_DATA(c), sizeof(value));
			m->ecn = (uint8_t)(value & 3);
		} else if (!m->path) {
			message_to(m->buf, c);
		}
	}
}

void udp_split_start(struct udp_link *l, const struct udp_message *m)
{
	l->rest = *m;
	m->buf->path = m->path;
	l->base.rx_bytes += m->bytes;
	if (m->bytes == 0) { /* an empty datagram carries nothing: not worth a frame */
		l->base.rx_dropped++;
		udp_buf_put(l, m->buf);
	}
}

/* A frame of a scattered receive: header here, payload where it was posted. */
static void udp_split_pair(struct udp_message *m, struct rx_frame *f)
{
	if (f->head_bytes > m->header_bytes) {
		f->body = m->body;
		f->body_bytes = f->head_bytes - m->header_bytes;
		f->head_bytes = m->header_bytes;
	}
	m->body += m->payload_bytes;
	m->data = --m->pairs ? m->data + m->header_bytes : m->overflow;
}

size_t udp_split_next(struct udp_link *l, struct rx_frame *out, size_t n)
{
	struct udp_message *m = &l->rest;
	struct udp_buf *buf = m->buf;
	size_t got = 0;

	if (!m->bytes)
		return 0;
	while (got < n && m->bytes) {
		uint32_t bytes = m->bytes < m->stride ? m->bytes : m->stride;
		struct rx_frame *f = &out[got++];
		*f = (struct rx_frame){
		    .head = m->data, .head_bytes = bytes, .path = m->path ? &m->path->base : NULL, .lent = buf, .from = buf->index, .ecn = m->ecn};
		if (m->pairs)
			udp_split_pair(m, f);
		else
			m->data += bytes;
		m->bytes -= bytes;
	}
	buf->refs += (uint32_t)got;
	l->base.rx_frames += got;
	if (!m->bytes)
		udp_buf_put(l, buf);
	return got;
}
