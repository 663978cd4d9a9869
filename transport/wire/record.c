/* Records of a MIX frame, encode and decode, as docs/wire.md says in tables. Called by flow (acknowledgements, floors), peer (pings) and msg
 * (all others). Each record has one accepted encoding: reserved bytes are zero and the length is exact. Knows no state: whether a record makes
 * sense now is its reader's question. */
#include <assert.h>
#include "tern/error.h"
#include "wire/bytes.h"
#include "wire/wire.h"

/* Bytes of the part that is always there, record header included. */
enum {
	RECORD_ACK = 24, /* and 16 a range */
	RECORD_FLOOR = 16,
	RECORD_PING = 20,
	RECORD_CREDIT = 28,
	RECORD_HEAD = 36,     /* and remote offset, immediate, shape, data */
	RECORD_ANNOUNCE = 44, /* and 8 a dimension */
	RECORD_GRANT = 16,
	RECORD_RESULT = 20,
	RECORD_REVOKE = 16,
	RECORD_READ = 36,
	RECORD_CANCEL = 12,
	RECORD_BYE = 8,
	RECORD_KEY = 40,
	RECORD_RUN = 40,
	RECORD_RANGE = 16,
	RECORD_SHAPE = 4, /* dtype, dims, 2 reserved; and 8 a dimension */
};

_Static_assert(RECORD_HEAD + 8 + 8 + RECORD_SHAPE + 8 * TERN_DIMS_MAX + WIRE_INLINE_MAX <= WIRE_RECORD_MAX, "the largest HEAD");
_Static_assert(RECORD_ACK + RECORD_RANGE * WIRE_ACK_RANGES_MAX <= WIRE_RECORD_MAX, "the largest ACK");

static const uint8_t fixed_bytes[WIRE_RECORD_END] = {
	[WIRE_PAD] = 1,
	[WIRE_ACK] = RECORD_ACK,
	[WIRE_FLOOR] = RECORD_FLOOR,
	[WIRE_PING] = RECORD_PING,
	[WIRE_PONG] = RECORD_PING,
	[WIRE_CREDIT] = RECORD_CREDIT,
	[WIRE_HEAD] = RECORD_HEAD,
	[WIRE_ANNOUNCE] = RECORD_ANNOUNCE,
	[WIRE_GRANT] = RECORD_GRANT,
	[WIRE_RESULT] = RECORD_RESULT,
	[WIRE_REVOKE] = RECORD_REVOKE,
	[WIRE_READ] = RECORD_READ,
	[WIRE_CANCEL] = RECORD_CANCEL,
	[WIRE_BYE] = RECORD_BYE,
	[WIRE_KEY] = RECORD_KEY,
	[WIRE_RUN] = RECORD_RUN,
};

/* The wire's own copy of the sizes: a pure room does not reach up to the public tern_dtype_bytes. */
static const uint8_t element_bytes[TERN_DTYPE_END] = {
	[TERN_RAW] = 1, [TERN_F64] = 8, [TERN_F32] = 4, [TERN_F16] = 2, [TERN_BF16] = 2, [TERN_F8E4M3] = 1, [TERN_F8E5M2] = 1, [TERN_I64] = 8,
	[TERN_I32] = 4, [TERN_I16] = 2, [TERN_I8] = 1,	[TERN_U8] = 1,	[TERN_BOOL] = 1,    [TERN_U16] = 2,	[TERN_U32] = 4,	   [TERN_U64] = 8,
};

static bool shape_fits(uint32_t dtype, uint32_t dims, const uint64_t *shape, uint64_t bytes)
{
	bool empty = false, over = false;
	uint64_t size = element_bytes[dtype];
	for (uint32_t i = 0; i < dims; i++) {
		empty |= shape[i] == 0;
		over |= __builtin_mul_overflow(size, shape[i], &size);
	}
	return empty ? bytes == 0 : !over && size == bytes; /* a 0 anywhere makes it empty, however large the others */
}

static bool range_ends(uint64_t offset, uint64_t bytes)
{
	return bytes <= UINT64_MAX - offset;
}

static size_t head_bytes(const struct wire_head *h)
{
	size_t bytes = RECORD_HEAD;
	if (h->kind == WIRE_KIND_WRITE)
		bytes += 8;
	if (h->flags & WIRE_HEAD_IMM)
		bytes += 8;
	if (h->flags & WIRE_HEAD_SHAPE) {
		assert(h->dims <= TERN_DIMS_MAX);
		bytes += RECORD_SHAPE + 8u * h->dims;
	}
	if (h->flags & WIRE_HEAD_INLINE) {
		assert(h->bytes <= WIRE_INLINE_MAX);
		bytes += h->bytes;
	}
	return bytes;
}

static size_t ack_bytes(const struct wire_ack *a)
{
	assert(a->ranges >= 1 && a->ranges <= WIRE_ACK_RANGES_MAX);
	return RECORD_ACK + (size_t)RECORD_RANGE * a->ranges;
}

size_t wire_record_bytes(const struct wire_record *r)
{
	assert(r->type < WIRE_RECORD_END);
	switch (r->type) {
	case WIRE_ACK:
		return ack_bytes(&r->ack);
	case WIRE_HEAD:
		return head_bytes(&r->head);
	case WIRE_ANNOUNCE:
		assert(r->announce.dims <= TERN_DIMS_MAX);
		return RECORD_ANNOUNCE + 8u * r->announce.dims;
	default:
		return fixed_bytes[r->type];
	}
}

static void put_shape(uint8_t *out, const uint64_t *shape, uint32_t dims)
{
	for (uint32_t i = 0; i < dims; i++)
		wire_put64(out + 8 * i, shape[i]);
}

static void get_shape(const uint8_t *in, uint64_t *shape, uint32_t dims)
{
	for (uint32_t i = 0; i < dims; i++)
		shape[i] = wire_get64(in + 8 * i);
}

/* Type, no flags, length. @return false: it does not fit */
static bool record_begin(uint8_t type, size_t bytes, uint8_t *out, size_t room)
{
	if (bytes > room)
		return false;
	wire_put32(out, type | (uint32_t)bytes << 16);
	return true;
}

static void ack_encode(const struct wire_ack *a, uint8_t *out)
{
	out[4] = a->path_id;
	out[5] = a->ranges;
	wire_put16(out + 6, 0);
	wire_put32(out + 8, a->delay_ns);
	wire_put32(out + 12, a->ce_frames);
	wire_put64(out + 16, a->arrival_ns);
	for (uint32_t i = 0; i < a->ranges; i++) {
		wire_put64(out + RECORD_ACK + RECORD_RANGE * i, a->range[i].first);
		wire_put64(out + RECORD_ACK + RECORD_RANGE * i + 8, a->range[i].last);
	}
}

static void head_encode(const struct wire_head *h, uint8_t *out)
{
	wire_put16(out + 4, h->channel);
	out[6] = h->kind;
	out[7] = h->flags;
	wire_put32(out + 8, h->seq);
	wire_put32(out + 12, h->hold_seq);
	wire_put32(out + 16, h->recv_id);
	wire_put64(out + 20, h->tag);
	wire_put64(out + 28, h->bytes);
	out += RECORD_HEAD;
	if (h->kind == WIRE_KIND_WRITE) {
		wire_put64(out, h->remote_offset);
		out += 8;
	}
	if (h->flags & WIRE_HEAD_IMM) {
		wire_put64(out, h->imm);
		out += 8;
	}
	if (h->flags & WIRE_HEAD_SHAPE) {
		out[0] = h->dtype;
		out[1] = h->dims;
		wire_put16(out + 2, 0);
		put_shape(out + RECORD_SHAPE, h->shape, h->dims);
		out += RECORD_SHAPE + 8u * h->dims;
	}
	if ((h->flags & WIRE_HEAD_INLINE) && h->data)
		memcpy(out, h->data, h->bytes);
}

static void announce_encode(const struct wire_announce *a, uint8_t *out)
{
	wire_put16(out + 4, a->channel);
	out[6] = a->dtype;
	out[7] = a->dims;
	wire_put32(out + 8, a->order);
	wire_put32(out + 12, a->recv_id);
	wire_put32(out + 16, a->matched_seq);
	wire_put64(out + 20, a->tag);
	wire_put64(out + 28, a->ignore);
	wire_put64(out + 36, a->bytes);
	put_shape(out + RECORD_ANNOUNCE, a->shape, a->dims);
}

/* The records that every path has: none names a channel. */
static void path_record_encode(const struct wire_record *r, uint8_t *out)
{
	switch (r->type) {
	case WIRE_FLOOR:
		wire_put32(out + 4, r->floor.path_id); /* and 3 reserved bytes */
		wire_put64(out + 8, r->floor.number);
		break;
	case WIRE_PING:
	case WIRE_PONG:
		wire_put32(out + 4, r->ping.path_id);
		wire_put32(out + 8, r->ping.size_bytes);
		wire_put64(out + 12, r->ping.token);
		break;
	case WIRE_BYE:
		wire_put32(out + 4, r->bye.status);
		break;
	}
}

static void key_encode(const struct wire_key *k, uint8_t *out)
{
	wire_put16(out + 4, k->channel);
	out[6] = k->kind;
	out[7] = k->lane;
	wire_put32(out + 8, k->connection | (uint32_t)k->path_id << 8); /* and 2 reserved bytes */
	wire_put32(out + 12, k->key);
	wire_put64(out + 16, k->id);
	wire_put64(out + 24, k->addr);
	wire_put64(out + 32, k->bytes);
}

static void run_encode(const struct wire_run *r, uint8_t *out)
{
	wire_put16(out + 4, r->channel);
	out[6] = r->lane;
	out[7] = r->ack_last;
	wire_put32(out + 8, r->seq);
	wire_put32(out + 12, r->frames);
	wire_put64(out + 16, r->first);
	wire_put64(out + 24, r->offset);
	wire_put32(out + 32, r->stride_bytes);
	wire_put32(out + 36, r->bytes);
}

static void channel_record_encode(const struct wire_record *r, uint8_t *out)
{
	switch (r->type) {
	case WIRE_CREDIT:
		wire_put32(out + 4, r->credit.channel); /* and 2 reserved bytes */
		wire_put32(out + 8, r->credit.heads);
		wire_put64(out + 12, r->credit.bytes);
		wire_put64(out + 20, r->credit.order);
		break;
	case WIRE_GRANT:
		wire_put32(out + 4, r->grant.channel);
		wire_put32(out + 8, r->grant.seq);
		wire_put32(out + 12, r->grant.recv_id);
		break;
	case WIRE_RESULT:
		wire_put32(out + 4, r->result.channel | (uint32_t)r->result.status << 16);
		wire_put32(out + 8, r->result.seq);
		wire_put64(out + 12, r->result.tag);
		break;
	case WIRE_REVOKE:
		wire_put32(out + 4, r->revoke.channel | (uint32_t)r->revoke.answer << 16 | (uint32_t)r->revoke.taken << 24);
		wire_put32(out + 8, r->revoke.order);
		wire_put32(out + 12, r->revoke.recv_id);
		break;
	case WIRE_READ:
		wire_put32(out + 4, r->read.channel);
		wire_put32(out + 8, r->read.req_id);
		wire_put64(out + 12, r->read.key);
		wire_put64(out + 20, r->read.remote_offset);
		wire_put64(out + 28, r->read.bytes);
		break;
	case WIRE_CANCEL:
		wire_put32(out + 4, r->cancel.channel);
		wire_put32(out + 8, r->cancel.seq);
		break;
	case WIRE_KEY:
		key_encode(&r->key, out);
		break;
	case WIRE_RUN:
		run_encode(&r->run, out);
		break;
	}
}

size_t wire_record_encode(const struct wire_record *r, uint8_t *out, size_t room)
{
	size_t bytes;
	if (r->type == WIRE_HEAD) { /* these two are in nearly every frame of records */
		bytes = head_bytes(&r->head);
		if (!record_begin(WIRE_HEAD, bytes, out, room))
			return 0;
		head_encode(&r->head, out);
		return bytes;
	}
	if (r->type == WIRE_ACK) {
		bytes = ack_bytes(&r->ack);
		if (!record_begin(WIRE_ACK, bytes, out, room))
			return 0;
		ack_encode(&r->ack, out);
		return bytes;
	}
	bytes = wire_record_bytes(r);
	if (r->type == WIRE_PAD && room) {
		out[0] = WIRE_PAD;
		return bytes;
	}
	if (!record_begin(r->type, bytes, out, room))
		return 0;
	if (r->type == WIRE_ANNOUNCE)
		announce_encode(&r->announce, out);
	else if (r->type == WIRE_FLOOR || r->type == WIRE_PING || r->type == WIRE_PONG || r->type == WIRE_BYE)
		path_record_encode(r, out);
	else
		channel_record_encode(r, out);
	return bytes;
}

/* Below, `in` has `bytes` bytes, at least fixed_bytes of its type. False: malformed. */

static bool ack_decode(const uint8_t *in, size_t bytes, struct wire_ack *a)
{
	a->path_id = in[4];
	a->ranges = in[5];
	a->delay_ns = wire_get32(in + 8);
	a->ce_frames = wire_get32(in + 12);
	a->arrival_ns = wire_get64(in + 16);
	if (a->ranges < 1 || a->ranges > WIRE_ACK_RANGES_MAX || wire_get16(in + 6) || bytes != RECORD_ACK + (size_t)RECORD_RANGE * a->ranges)
		return false;
	for (uint32_t i = 0; i < a->ranges; i++) {
		struct wire_range *g = &a->range[i];
		g->first = wire_get64(in + RECORD_ACK + RECORD_RANGE * i);
		g->last = wire_get64(in + RECORD_ACK + RECORD_RANGE * i + 8);
		if (g->first > g->last)
			return false;
		/* a number at least lies between two ranges, or they would be one */
		if (i && (g->last >= g[-1].first || g[-1].first - g->last < 2))
			return false;
	}
	return true;
}

/* The parts of a HEAD that its kind and flags ask for. `left` counts the bytes behind `in`; h has the fixed part. */
static bool head_tail_decode(const uint8_t *in, size_t left, struct wire_head *h)
{
	size_t need = (h->kind == WIRE_KIND_WRITE ? 8 : 0) + (h->flags & WIRE_HEAD_IMM ? 8 : 0) + (h->flags & WIRE_HEAD_SHAPE ? RECORD_SHAPE : 0);
	if (left < need)
		return false;
	left -= need;
	if (h->kind == WIRE_KIND_WRITE) {
		h->remote_offset = wire_get64(in);
		in += 8;
		if (!range_ends(h->remote_offset, h->bytes))
			return false;
	}
	if (h->flags & WIRE_HEAD_IMM) {
		h->imm = wire_get64(in);
		in += 8;
	}
	if (h->flags & WIRE_HEAD_SHAPE) {
		h->dtype = in[0];
		h->dims = in[1];
		if (h->dtype >= TERN_DTYPE_END || h->dims > TERN_DIMS_MAX || wire_get16(in + 2) || left < 8u * h->dims)
			return false;
		get_shape(in + RECORD_SHAPE, h->shape, h->dims);
		in += RECORD_SHAPE + 8u * h->dims;
		left -= 8u * h->dims;
		if (!shape_fits(h->dtype, h->dims, h->shape, h->bytes))
			return false;
	}
	if (!(h->flags & WIRE_HEAD_INLINE))
		return left == 0;
	h->data = in;
	return h->bytes <= WIRE_INLINE_MAX && left == h->bytes;
}

static bool head_decode(const uint8_t *in, size_t bytes, struct wire_head *h)
{
	h->channel = wire_get16(in + 4);
	h->kind = in[6];
	h->flags = in[7];
	h->seq = wire_get32(in + 8);
	h->hold_seq = wire_get32(in + 12);
	h->recv_id = wire_get32(in + 16);
	h->tag = wire_get64(in + 20);
	h->bytes = wire_get64(in + 28);
	h->remote_offset = 0;
	h->imm = 0;
	h->dtype = 0;
	h->dims = 0;
	h->data = NULL;
	if (h->kind > WIRE_KIND_READ_REPLY || (h->flags & ~WIRE_HEAD_FLAGS_ALL))
		return false;
	if ((h->flags & WIRE_HEAD_INLINE) && (h->flags & WIRE_HEAD_CLAIM))
		return false; /* the bytes are here, or they wait for a GRANT */
	return head_tail_decode(in + RECORD_HEAD, bytes - RECORD_HEAD, h);
}

static bool announce_decode(const uint8_t *in, size_t bytes, struct wire_announce *a)
{
	a->channel = wire_get16(in + 4);
	a->dtype = in[6];
	a->dims = in[7];
	a->order = wire_get32(in + 8);
	a->recv_id = wire_get32(in + 12);
	a->matched_seq = wire_get32(in + 16);
	a->tag = wire_get64(in + 20);
	a->ignore = wire_get64(in + 28);
	a->bytes = wire_get64(in + 36);
	if (a->recv_id == WIRE_NONE32 || a->dtype >= TERN_DTYPE_END || a->dims > TERN_DIMS_MAX || bytes != RECORD_ANNOUNCE + 8u * a->dims)
		return false;
	get_shape(in + RECORD_ANNOUNCE, a->shape, a->dims);
	return (a->dtype == TERN_RAW && a->dims == 0) || shape_fits(a->dtype, a->dims, a->shape, a->bytes);
}

static bool path_record_decode(const uint8_t *in, struct wire_record *out)
{
	uint32_t first = wire_get32(in + 4); /* path id or status, and 3 reserved bytes */
	if (first > UINT8_MAX)
		return false;
	switch (out->type) {
	case WIRE_FLOOR:
		out->floor.path_id = (uint8_t)first;
		out->floor.number = wire_get64(in + 8);
		return true;
	case WIRE_PING:
	case WIRE_PONG:
		out->ping.path_id = (uint8_t)first;
		out->ping.size_bytes = wire_get32(in + 8);
		out->ping.token = wire_get64(in + 12);
		return true;
	default:
		out->bye.status = (uint8_t)first;
		return true;
	}
}

static bool result_decode(const uint8_t *in, struct wire_result *r)
{
	r->channel = wire_get16(in + 4);
	r->status = in[6];
	r->seq = wire_get32(in + 8);
	r->tag = wire_get64(in + 12);
	return in[7] == 0;
}

static bool revoke_decode(const uint8_t *in, struct wire_revoke *r)
{
	r->channel = wire_get16(in + 4);
	r->answer = in[6];
	r->taken = in[7];
	r->order = wire_get32(in + 8);
	r->recv_id = wire_get32(in + 12);
	return r->answer <= 1 && r->taken <= r->answer; /* only an answer says taken */
}

static bool read_decode(const uint8_t *in, struct wire_read *r)
{
	r->channel = wire_get16(in + 4);
	r->req_id = wire_get32(in + 8);
	r->key = wire_get64(in + 12);
	r->remote_offset = wire_get64(in + 20);
	r->bytes = wire_get64(in + 28);
	return wire_get16(in + 6) == 0 && range_ends(r->remote_offset, r->bytes);
}

static bool credit_decode(const uint8_t *in, struct wire_credit *c)
{
	c->channel = wire_get16(in + 4);
	c->heads = wire_get32(in + 8);
	c->bytes = wire_get64(in + 12);
	c->order = wire_get64(in + 20);
	return wire_get16(in + 6) == 0;
}

static bool key_decode(const uint8_t *in, struct wire_key *k)
{
	k->channel = wire_get16(in + 4);
	k->kind = in[6];
	k->lane = in[7];
	k->connection = in[8];
	k->path_id = in[9];
	k->key = wire_get32(in + 12);
	k->id = wire_get64(in + 16);
	k->addr = wire_get64(in + 24);
	k->bytes = wire_get64(in + 32);
	return k->kind < WIRE_KEY_KINDS && k->lane && !wire_get16(in + 10) && range_ends(k->addr, k->bytes);
}

static bool run_decode(const uint8_t *in, struct wire_run *r)
{
	r->channel = wire_get16(in + 4);
	r->lane = in[6];
	r->ack_last = in[7];
	r->seq = wire_get32(in + 8);
	r->frames = wire_get32(in + 12);
	r->first = wire_get64(in + 16);
	r->offset = wire_get64(in + 24);
	r->stride_bytes = wire_get32(in + 32);
	r->bytes = wire_get32(in + 36);
	if (!r->lane || r->ack_last > 1 || !range_ends(r->first, r->frames) || !range_ends(r->offset, r->bytes))
		return false;
	if (!r->frames)
		return !r->stride_bytes && !r->bytes && !r->ack_last;
	uint64_t most = (uint64_t)r->frames * r->stride_bytes;
	return r->stride_bytes && r->bytes <= most && r->bytes > most - r->stride_bytes;
}

static bool fixed_decode(const uint8_t *in, struct wire_record *out)
{
	switch (out->type) {
	case WIRE_CREDIT:
		return credit_decode(in, &out->credit);
	case WIRE_RESULT:
		return result_decode(in, &out->result);
	case WIRE_REVOKE:
		return revoke_decode(in, &out->revoke);
	case WIRE_READ:
		return read_decode(in, &out->read);
	case WIRE_GRANT:
		out->grant.channel = wire_get16(in + 4);
		out->grant.seq = wire_get32(in + 8);
		out->grant.recv_id = wire_get32(in + 12);
		return wire_get16(in + 6) == 0;
	case WIRE_CANCEL:
		out->cancel.channel = wire_get16(in + 4);
		out->cancel.seq = wire_get32(in + 8);
		return wire_get16(in + 6) == 0;
	case WIRE_KEY:
		return key_decode(in, &out->key);
	case WIRE_RUN:
		return run_decode(in, &out->run);
	default:
		return path_record_decode(in, out);
	}
}

static bool record_decode(const uint8_t *in, size_t bytes, struct wire_record *out)
{
	out->type = in[0];
	if (in[1] != 0 || bytes < fixed_bytes[out->type])
		return false;
	switch (out->type) {
	case WIRE_ACK:
		return ack_decode(in, bytes, &out->ack);
	case WIRE_HEAD:
		return head_decode(in, bytes, &out->head);
	case WIRE_ANNOUNCE:
		return announce_decode(in, bytes, &out->announce);
	default:
		return bytes == fixed_bytes[out->type] && fixed_decode(in, out);
	}
}

long wire_record_decode(const uint8_t *in, size_t bytes, struct wire_record *out)
{
	size_t at = 0; /* moves only over optional records of an unknown type, at least 4 bytes each */
	while (at < bytes && in[at] != WIRE_PAD) {
		size_t left = bytes - at, length;
		if (left < WIRE_RECORD_HEADER_BYTES)
			return -TERN_EPROTO;
		length = wire_get16(in + at + 2);
		if (length < WIRE_RECORD_HEADER_BYTES || length > left)
			return -TERN_EPROTO;
		if (in[at] < WIRE_RECORD_END)
			return record_decode(in + at, length, out) ? (long)(at + length) : -TERN_EPROTO;
		if (!(in[at + 1] & WIRE_RECORD_OPTIONAL))
			return -TERN_EPROTO;
		at += length;
	}
	out->type = WIRE_PAD;
	return 0;
}
