/* A random valid record of a given type, and comparison field by field; for the record test. */
#ifndef TESTS_WIRE_RECORD_MAKE_H
#define TESTS_WIRE_RECORD_MAKE_H
#include <stdbool.h>
#include <string.h>
#include "random.h"
#include "wire/wire.h"

static const uint8_t make_dtype_bytes[TERN_DTYPE_END] = {1, 8, 4, 2, 2, 1, 1, 8, 4, 2, 1, 1, 1, 2, 4, 8};

/* A shape whose elements take at most `max` bytes. @return its bytes */
static inline uint64_t make_shape(uint64_t *seed, uint64_t max, uint8_t *dtype, uint8_t *dims, uint64_t *shape)
{
	*dtype = (uint8_t)random_below(seed, TERN_DTYPE_END);
	*dims = (uint8_t)random_below(seed, TERN_DIMS_MAX + 1);
	uint64_t bytes = make_dtype_bytes[*dtype], room = max / bytes;
	for (int i = 0; i < *dims; i++) {
		shape[i] = random_below(seed, 16) ? 1 + random_below(seed, room < 1000 ? room : 1000) : 0;
		bytes *= shape[i];
		room /= shape[i] ? shape[i] : 1;
	}
	return bytes;
}

static inline void make_ack(uint64_t *seed, struct wire_ack *a)
{
	a->path_id = (uint8_t)random_next(seed);
	a->ranges = (uint8_t)(1 + random_below(seed, WIRE_ACK_RANGES_MAX));
	a->delay_ns = (uint32_t)random_edge(seed);
	a->ce_frames = (uint32_t)random_edge(seed);
	a->arrival_ns = random_edge(seed);
	uint64_t at = random_below(seed, 4) ? UINT64_MAX - random_below(seed, 1u << 20) : 1u << 20;
	for (int i = 0; i < a->ranges; i++) {
		a->range[i].last = at;
		a->range[i].first = at - random_below(seed, 1000);
		at = a->range[i].first - 2 - random_below(seed, 3);
	}
}

static inline void make_head(uint64_t *seed, struct wire_head *h, const uint8_t *data)
{
	*h = (struct wire_head){.channel = (uint16_t)random_edge(seed), .kind = (uint8_t)random_below(seed, 3), .seq = (uint32_t)random_edge(seed)};
	h->flags = (uint8_t)random_below(seed, WIRE_HEAD_FLAGS_ALL + 1);
	if (h->flags & WIRE_HEAD_INLINE)
		h->flags &= (uint8_t)~WIRE_HEAD_CLAIM;
	h->hold_seq = (uint32_t)random_edge(seed);
	h->recv_id = (uint32_t)random_edge(seed);
	h->tag = random_edge(seed);
	h->bytes = h->flags & WIRE_HEAD_INLINE ? random_below(seed, WIRE_INLINE_MAX + 1) : random_edge(seed);
	if (h->flags & WIRE_HEAD_SHAPE)
		h->bytes = make_shape(seed, h->flags & WIRE_HEAD_INLINE ? WIRE_INLINE_MAX : 1ull << 60, &h->dtype, &h->dims, h->shape);
	if (h->kind == WIRE_KIND_WRITE)
		h->remote_offset = h->bytes == UINT64_MAX ? 0 : random_below(seed, UINT64_MAX - h->bytes);
	if (h->flags & WIRE_HEAD_IMM)
		h->imm = random_edge(seed);
	if (h->flags & WIRE_HEAD_INLINE)
		h->data = data;
}

static inline void make_announce(uint64_t *seed, struct wire_announce *a)
{
	*a = (struct wire_announce){.channel = (uint16_t)random_edge(seed), .order = (uint32_t)random_edge(seed), .tag = random_edge(seed)};
	a->recv_id = (uint32_t)random_below(seed, WIRE_NONE32);
	a->matched_seq = (uint32_t)random_edge(seed);
	a->ignore = random_edge(seed);
	a->bytes = random_below(seed, 3) ? make_shape(seed, 1ull << 60, &a->dtype, &a->dims, a->shape) : random_edge(seed);
	if (a->dtype == TERN_RAW && a->dims == 0)
		a->bytes = random_edge(seed);
	else if (!a->dims)
		a->bytes = make_dtype_bytes[a->dtype];
}

static inline void make_key(uint64_t *seed, struct wire_key *k)
{
	*k = (struct wire_key){.channel = (uint16_t)random_edge(seed), .kind = (uint8_t)random_below(seed, WIRE_KEY_KINDS), .id = random_edge(seed)};
	k->lane = (uint8_t)(1 + random_below(seed, 255));
	k->connection = (uint8_t)random_next(seed);
	k->key = (uint32_t)random_edge(seed);
	k->addr = random_edge(seed);
	k->bytes = k->addr == UINT64_MAX ? 0 : random_below(seed, UINT64_MAX - k->addr);
}

static inline void make_run(uint64_t *seed, struct wire_run *r)
{
	*r = (struct wire_run){.channel = (uint16_t)random_edge(seed), .lane = (uint8_t)(1 + random_below(seed, 255)), .seq = (uint32_t)random_edge(seed)};
	r->first = random_below(seed, UINT64_MAX / 2);
	r->offset = random_below(seed, UINT64_MAX / 2);
	if (!random_below(seed, 3))
		return;
	r->ack_last = (uint8_t)random_below(seed, 2);
	r->frames = 1 + (uint32_t)random_below(seed, 65535);
	r->stride_bytes = 1 + (uint32_t)random_below(seed, 65535);
	r->bytes = r->frames * r->stride_bytes - (uint32_t)random_below(seed, r->stride_bytes);
}

/* @param data  WIRE_INLINE_MAX bytes for an inline HEAD to point to */
static inline struct wire_record make_record(uint64_t *seed, uint8_t type, const uint8_t *data)
{
	struct wire_record r = {.type = type};
	uint16_t channel = (uint16_t)random_edge(seed);
	uint32_t seq = (uint32_t)random_edge(seed), id = (uint32_t)random_edge(seed);
	uint64_t a = random_edge(seed), b = random_edge(seed), c = random_edge(seed);
	uint8_t path_id = (uint8_t)random_next(seed);
	bool answer = random_below(seed, 2), taken = random_below(seed, 2);
	switch (type) {
	case WIRE_ACK: make_ack(seed, &r.ack); break;
	case WIRE_FLOOR: r.floor = (struct wire_floor){path_id, a}; break;
	case WIRE_PING:
	case WIRE_PONG: r.ping = (struct wire_ping){path_id, seq, a}; break;
	case WIRE_CREDIT: r.credit = (struct wire_credit){channel, seq, a, b}; break;
	case WIRE_HEAD: make_head(seed, &r.head, data); break;
	case WIRE_ANNOUNCE: make_announce(seed, &r.announce); break;
	case WIRE_GRANT: r.grant = (struct wire_grant){channel, seq, id}; break;
	case WIRE_RESULT: r.result = (struct wire_result){channel, path_id, seq, a}; break;
	case WIRE_REVOKE: r.revoke = (struct wire_revoke){channel, answer, answer && taken, seq, id}; break;
	case WIRE_READ: r.read = (struct wire_read){channel, seq, a, b, c < UINT64_MAX - b ? c : UINT64_MAX - b}; break;
	case WIRE_CANCEL: r.cancel = (struct wire_cancel){channel, seq}; break;
	case WIRE_BYE: r.bye = (struct wire_bye){path_id}; break;
	case WIRE_KEY: make_key(seed, &r.key); break;
	case WIRE_RUN: make_run(seed, &r.run); break;
	}
	return r;
}

static inline bool same_ack(const struct wire_ack *a, const struct wire_ack *b)
{
	return a->path_id == b->path_id && a->ranges == b->ranges && a->delay_ns == b->delay_ns && a->ce_frames == b->ce_frames &&
	       a->arrival_ns == b->arrival_ns && !memcmp(a->range, b->range, sizeof(a->range[0]) * a->ranges);
}

static inline bool same_head(const struct wire_head *a, const struct wire_head *b)
{
	return a->channel == b->channel && a->kind == b->kind && a->flags == b->flags && a->seq == b->seq && a->hold_seq == b->hold_seq &&
	       a->recv_id == b->recv_id && a->tag == b->tag && a->bytes == b->bytes && a->remote_offset == b->remote_offset && a->imm == b->imm &&
	       a->dtype == b->dtype && a->dims == b->dims && !memcmp(a->shape, b->shape, 8u * a->dims) && !a->data == !b->data &&
	       (!a->data || !memcmp(a->data, b->data, a->bytes));
}

static inline bool same_announce(const struct wire_announce *a, const struct wire_announce *b)
{
	return a->channel == b->channel && a->dtype == b->dtype && a->dims == b->dims && a->order == b->order && a->recv_id == b->recv_id &&
	       a->matched_seq == b->matched_seq && a->tag == b->tag && a->ignore == b->ignore && a->bytes == b->bytes &&
	       !memcmp(a->shape, b->shape, 8u * a->dims);
}

static inline bool same_record(const struct wire_record *x, const struct wire_record *y)
{
	if (x->type != y->type)
		return false;
	switch (x->type) {
	case WIRE_ACK: return same_ack(&x->ack, &y->ack);
	case WIRE_FLOOR: return x->floor.path_id == y->floor.path_id && x->floor.number == y->floor.number;
	case WIRE_PING:
	case WIRE_PONG: return x->ping.path_id == y->ping.path_id && x->ping.size_bytes == y->ping.size_bytes && x->ping.token == y->ping.token;
	case WIRE_CREDIT:
		return x->credit.channel == y->credit.channel && x->credit.heads == y->credit.heads && x->credit.bytes == y->credit.bytes &&
		       x->credit.order == y->credit.order;
	case WIRE_HEAD: return same_head(&x->head, &y->head);
	case WIRE_ANNOUNCE: return same_announce(&x->announce, &y->announce);
	case WIRE_GRANT: return x->grant.channel == y->grant.channel && x->grant.seq == y->grant.seq && x->grant.recv_id == y->grant.recv_id;
	case WIRE_RESULT:
		return x->result.channel == y->result.channel && x->result.status == y->result.status && x->result.seq == y->result.seq &&
		       x->result.tag == y->result.tag;
	case WIRE_REVOKE:
		return x->revoke.channel == y->revoke.channel && x->revoke.answer == y->revoke.answer && x->revoke.taken == y->revoke.taken &&
		       x->revoke.order == y->revoke.order && x->revoke.recv_id == y->revoke.recv_id;
	case WIRE_READ:
		return x->read.channel == y->read.channel && x->read.req_id == y->read.req_id && x->read.key == y->read.key &&
		       x->read.remote_offset == y->read.remote_offset && x->read.bytes == y->read.bytes;
	case WIRE_CANCEL: return x->cancel.channel == y->cancel.channel && x->cancel.seq == y->cancel.seq;
	case WIRE_BYE: return x->bye.status == y->bye.status;
	case WIRE_KEY:
		return x->key.channel == y->key.channel && x->key.kind == y->key.kind && x->key.lane == y->key.lane && x->key.id == y->key.id &&
		       x->key.connection == y->key.connection && x->key.path_id == y->key.path_id &&
		       x->key.key == y->key.key && x->key.addr == y->key.addr &&
		       x->key.bytes == y->key.bytes;
	case WIRE_RUN:
		return x->run.channel == y->run.channel && x->run.lane == y->run.lane && x->run.seq == y->run.seq && x->run.frames == y->run.frames &&
		       x->run.ack_last == y->run.ack_last &&
		       x->run.first == y->run.first && x->run.offset == y->run.offset && x->run.stride_bytes == y->run.stride_bytes &&
		       x->run.bytes == y->run.bytes;
	default: return true;
	}
}

#endif
