/* The clear header, inline because it is on the path of every frame: field by field, so that a caller's struct stays in registers and a BULK
 * header is six stores, or six loads and two compares. Included by wire.h only. */
#ifndef WIRE_HEADER_H
#define WIRE_HEADER_H
#include "wire/bytes.h"

static inline size_t wire_header_encode(const struct wire_header *h, uint8_t *out)
{
	wire_put32(out, h->version | (uint32_t)h->type << 8 | (uint32_t)h->flags << 16 | (uint32_t)h->path_id << 24);
	wire_put32(out + 4, h->flow_id);
	wire_put64(out + 8, h->number);
	if (h->type != WIRE_BULK)
		return WIRE_HEADER_BYTES;
	wire_put32(out + 16, h->channel); /* and 2 reserved bytes */
	wire_put32(out + 20, h->seq);
	wire_put64(out + 24, h->offset);
	return WIRE_BULK_HEADER_BYTES;
}

/** The first 8 bytes of every BULK header of a flow but the flags, as one number: what a receiver compares and a sender begins with. Never 0. */
static inline uint64_t wire_bulk_prefix(uint8_t path_id, uint32_t flow_id)
{
	return WIRE_VERSION | WIRE_BULK << 8 | (uint64_t)path_id << 24 | (uint64_t)flow_id << 32;
}

/** A BULK header of channel 0 in four stores. */
static inline void wire_bulk_encode(uint64_t prefix, const struct wire_header *h, uint8_t *out)
{
	wire_put64(out, prefix | (uint64_t)h->flags << 16);
	wire_put64(out + 8, h->number);
	wire_put64(out + 16, (uint64_t)h->seq << 32);
	wire_put64(out + 24, h->offset);
}

static inline size_t wire_header_decode(const uint8_t *in, size_t bytes, struct wire_header *out)
{
	if (bytes < WIRE_HEADER_BYTES)
		return 0;
	uint32_t first = wire_get32(in);
	out->version = (uint8_t)first;
	out->type = (uint8_t)(first >> 8);
	out->flags = (uint8_t)(first >> 16);
	out->path_id = (uint8_t)(first >> 24);
	out->flow_id = wire_get32(in + 4);
	out->number = wire_get64(in + 8);
	out->channel = 0;
	out->seq = 0;
	out->offset = 0;
	if (out->version < WIRE_VERSION_MIN || out->version > WIRE_VERSION || (first & (uint32_t)(uint8_t)~WIRE_FLAGS_ALL << 16))
		return 0;
	if (out->type != WIRE_BULK)
		return out->type == WIRE_MIX ? WIRE_HEADER_BYTES : 0;
	uint32_t place = bytes < WIRE_BULK_HEADER_BYTES ? UINT32_MAX : wire_get32(in + 16); /* channel, and 2 reserved bytes */
	if (place > UINT16_MAX)
		return 0;
	out->channel = (uint16_t)place;
	out->seq = wire_get32(in + 20);
	out->offset = wire_get64(in + 24);
	return WIRE_BULK_HEADER_BYTES;
}

#endif
