/* Scattered receives: the iovec of a receive alternates between a header in the link's buffer and a payload in the posted memory, at the stride that
 * the next datagrams are expected to have, so that the kernel's own copy is the placing one (DESIGN "Scatter receive"). Called by plain.c and udp.c.
 * Memory is written inside recvmsg only, so after a revoke nothing can be. What does not fit the guess is copied together into a buffer of the link.
 */
#include <string.h>
#include "link/udp/udp.h"
#include "tern/error.h"

/* Copies `bytes` bytes of the layout, in the order of the wire, and moves on. */
static void scatter_copy(struct udp_message *m, uint8_t *out, uint32_t bytes)
{
	while (bytes && m->pairs) {
		uint32_t head = bytes < m->header_bytes ? bytes : m->header_bytes;
		uint32_t room = m->pairs == 1 ? m->last_bytes : m->payload_bytes, body = bytes - head < room ? bytes - head : room;
		memcpy(out, m->data, head);
		memcpy(out + head, m->body, body);
		out += head + body;
		bytes -= head + body;
		m->body += m->payload_bytes;
		m->data = --m->pairs ? m->data + m->header_bytes : m->overflow;
	}
	memcpy(out, m->data, bytes);
}

/* The message, or what is left of it, into another buffer; without one it is lost on the way. */
static void scatter_gather(struct udp_link *l, struct udp_message *m)
{
	struct udp_buf *old = m->buf, *b = udp_buf_get(l);
	if (!b) {
		l->base.rx_dropped += (m->bytes + m->stride - 1) / m->stride;
		m->bytes = 0;
		m->pairs = 0;
		return;
	}
	scatter_copy(m, b->data, m->bytes);
	b->path = old->path;
	b->from = old->from;
	b->to = old->to;
	m->buf = b;
	m->data = b->data;
	m->pairs = 0;
	udp_buf_put(l, old);
}

/* Before posted memory is the caller's again: frames not yet given out must not point into it. */
static void scatter_leave(struct udp_link *l, struct udp_path *p)
{
	struct udp_message *m = &l->rest;
	if (!m->bytes || m->path != p || !m->pairs)
		return;
	struct udp_buf *held = m->buf;
	scatter_gather(l, m);
	if (!m->bytes)
		udp_buf_put(l, held);
}

int udp_scatter_post(struct udp_link *l, struct udp_path *p, const struct link_post *post)
{
	udp_scatter_revoke(l, p);
	if (!post->addr || !post->bytes || !post->header_bytes || post->header_bytes > FRAME_HEAD_MAX || post->payload_bytes < UDP_POST_PAYLOAD_MIN ||
	    post->payload_bytes > UDP_FRAME_MAX - post->header_bytes)
		return -TERN_EINVAL;
	p->post = *post;
	p->posted_at = 0;
	return 0;
}

void udp_scatter_revoke(struct udp_link *l, struct udp_path *p)
{
	scatter_leave(l, p);
	p->post.bytes = 0;
}

size_t udp_scatter_iov(struct udp_link *l, struct udp_path *p, struct udp_message *m, struct iovec *iov)
{
	uint32_t h = p->post.header_bytes, stride = h + p->post.payload_bytes, room = UDP_BUF_DATA;
	uint64_t left = p->post.bytes - p->posted_at;
	uint8_t *head = m->data, *body = p->post.addr + p->posted_at;
	size_t n = 0;

	if (!l->n_idle || !left) /* the spare buffer is for what does not fit the guess */
		return 0;
	m->header_bytes = h;
	m->payload_bytes = p->post.payload_bytes;
	m->body = body;
	while (m->pairs < UDP_BATCH_FRAMES_MAX && left && m->pairs * stride < UDP_BUF_DATA) {
		uint32_t payload = left < p->post.payload_bytes ? (uint32_t)left : p->post.payload_bytes;
		iov[n++] = (struct iovec){.iov_base = head, .iov_len = h};
		iov[n++] = (struct iovec){.iov_base = body, .iov_len = payload};
		head += h;
		body += payload;
		room -= h;
		left -= payload;
		m->last_bytes = payload;
		m->pairs++;
	}
	m->overflow = head;
	iov[n++] = (struct iovec){.iov_base = head, .iov_len = room};
	return n;
}

/* Bytes of the datagram with this index. */
static uint32_t scatter_datagram(const struct udp_message *m, uint32_t index)
{
	uint64_t at = (uint64_t)index * m->stride;
	return at >= m->bytes ? 0 : m->bytes - at < m->stride ? m->bytes - (uint32_t)at : m->stride;
}

/* One datagram shorter than expected, such as an acknowledgement: joined in its own buffer, and the next one may use the place. */
static void scatter_join(struct udp_message *m)
{
	if (m->bytes > m->header_bytes)
		memmove(m->data + m->header_bytes, m->body, m->bytes - m->header_bytes);
	m->pairs = 0;
}

void udp_scatter_settle(struct udp_link *l, struct udp_path *p, struct udp_message *m)
{
	uint32_t h = m->header_bytes, expected = h + m->payload_bytes, n = (m->bytes + m->stride - 1) / (m->stride ? m->stride : 1);
	bool tail = m->pairs == 1 && m->bytes == h + m->last_bytes, fits = scatter_datagram(m, m->pairs - 1) <= h + m->last_bytes;

	if (m->bytes == 0) {
		m->pairs = 0;
	} else if (n == 1 && m->bytes < expected && !tail && fits) {
		scatter_join(m);
	} else if (!fits || !(m->stride == expected || (n == 1 && m->bytes <= expected))) {
		scatter_gather(l, m);
	} else {
		for (uint32_t i = 0; i < n && i < m->pairs; i++) {
			uint32_t bytes = scatter_datagram(m, i);
			p->posted_at += bytes > h ? bytes - h : 0;
		}
	}
}
