/* Encode and decode of the hello, see hello.h. Called by control/ and the simulator. Entries come in any order; what an entry may hold is
 * checked here, whether two hellos agree (versions, private, identity) is control's question. */
#include "tern/error.h"
#include "wire/bytes.h"
#include "wire/hello.h"
#include "wire/wire.h"

enum { HELLO_MAGIC = 0x4e524554 }; /* "TERN" as bytes */
enum hello_type {
	HELLO_VERSION = 1,
	HELLO_NODE = 2,
	HELLO_FLAGS = 3,
	HELLO_LIMITS = 4,
	HELLO_CAPABILITIES = 5,
	HELLO_PATH = 6,
	HELLO_NAME = 7,
	HELLO_ERROR = 8,
	HELLO_TYPE_END
};
enum { ENTRY_HEADER_BYTES = 4, PATH_BYTES = 12 };

/* Every hello is at most this long: see hello_write. */
_Static_assert(WIRE_HELLO_HEADER_BYTES + 8 * ENTRY_HEADER_BYTES + 2 + 24 + 4 + 20 + 8 + WIRE_HELLO_NAME_MAX + 1 + WIRE_HELLO_TEXT_MAX +
	       WIRE_HELLO_PATHS_MAX * (ENTRY_HEADER_BYTES + PATH_BYTES + WIRE_HELLO_LINK_MAX) <= WIRE_HELLO_MAX, "the largest hello");

void wire_hello_init(struct wire_hello *h)
{
	memset(h, 0, sizeof(*h));
	h->version_min = WIRE_VERSION_MIN;
	h->version_max = WIRE_VERSION;
	h->max_message_bytes = UINT64_MAX;
}

/* Names and texts end in logs and on terminals: no control bytes, nothing to decode. */
static bool text_printable(const uint8_t *text, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		if (text[i] < 0x20 || text[i] > 0x7e)
			return false;
	return true;
}

/* What holds of a hello whatever its bytes were; both directions ask it. */
static bool hello_holds(const struct wire_hello *h)
{
	if (h->version_min < 1 || h->version_min > h->version_max || h->paths > WIRE_HELLO_PATHS_MAX)
		return false;
	if (!memchr(h->name, 0, sizeof(h->name)) || !text_printable((const uint8_t *)h->name, strlen(h->name)))
		return false;
	if (!memchr(h->error_text, 0, sizeof(h->error_text)) || !text_printable((const uint8_t *)h->error_text, strlen(h->error_text)))
		return false;
	if (h->error_text[0] && !h->status)
		return false;
	for (uint32_t i = 0; i < h->paths; i++) {
		if (h->path[i].link_bytes > WIRE_HELLO_LINK_MAX)
			return false;
		for (uint32_t j = 0; j < i; j++)
			if (h->path[i].path_id == h->path[j].path_id || h->path[i].flow_id == h->path[j].flow_id)
				return false;
	}
	return true;
}

/* Appends an entry's header. @return where its value goes, or NULL: no room */
static uint8_t *entry_open(uint8_t *out, size_t room, size_t *at, uint16_t type, size_t bytes)
{
	if (room - *at < ENTRY_HEADER_BYTES + bytes)
		return NULL;
	uint8_t *entry = out + *at;
	wire_put16(entry, type);
	wire_put16(entry + 2, (uint16_t)bytes);
	*at += ENTRY_HEADER_BYTES + bytes;
	return entry + ENTRY_HEADER_BYTES;
}

/* The entries of fixed length; always written, so that a reader needs no default of ours. */
static bool fixed_write(const struct wire_hello *h, uint8_t *out, size_t room, size_t *at)
{
	uint8_t *v = entry_open(out, room, at, HELLO_VERSION, 2);
	if (!v)
		return false;
	v[0] = h->version_min;
	v[1] = h->version_max;
	v = entry_open(out, room, at, HELLO_NODE, WIRE_NODE_ID_BYTES + 8);
	if (!v)
		return false;
	memcpy(v, h->node_id, WIRE_NODE_ID_BYTES);
	wire_put64(v + WIRE_NODE_ID_BYTES, h->epoch);
	v = entry_open(out, room, at, HELLO_FLAGS, 4);
	if (!v)
		return false;
	wire_put32(v, h->flags & WIRE_HELLO_FLAGS_ALL);
	v = entry_open(out, room, at, HELLO_LIMITS, 20);
	if (!v)
		return false;
	wire_put64(v, h->credit_bytes);
	wire_put32(v + 8, h->credit_heads);
	wire_put64(v + 12, h->max_message_bytes);
	v = entry_open(out, room, at, HELLO_CAPABILITIES, 8);
	if (!v)
		return false;
	wire_put64(v, h->capabilities);
	return true;
}

static bool path_write(const struct wire_hello_path *p, uint8_t *out, size_t room, size_t *at)
{
	uint8_t *v = entry_open(out, room, at, HELLO_PATH, PATH_BYTES + (size_t)p->link_bytes);
	if (!v)
		return false;
	v[0] = p->path_id;
	v[1] = 0;
	wire_put16(v + 2, p->udp_port);
	wire_put32(v + 4, p->flow_id);
	wire_put32(v + 8, p->mtu_bytes);
	memcpy(v + PATH_BYTES, p->link, p->link_bytes);
	return true;
}

static bool texts_write(const struct wire_hello *h, uint8_t *out, size_t room, size_t *at)
{
	size_t bytes = strlen(h->name);
	if (bytes) {
		uint8_t *v = entry_open(out, room, at, HELLO_NAME, bytes);
		if (!v)
			return false;
		memcpy(v, h->name, bytes);
	}
	if (h->status) {
		bytes = strlen(h->error_text);
		uint8_t *v = entry_open(out, room, at, HELLO_ERROR, 1 + bytes);
		if (!v)
			return false;
		v[0] = h->status;
		memcpy(v + 1, h->error_text, bytes);
	}
	return true;
}

size_t wire_hello_encode(const struct wire_hello *h, uint8_t *out, size_t room)
{
	size_t at = WIRE_HELLO_HEADER_BYTES;
	if (room < at || !hello_holds(h) || !fixed_write(h, out, room, &at))
		return 0;
	for (uint32_t i = 0; i < h->paths; i++)
		if (!path_write(&h->path[i], out, room, &at))
			return 0;
	if (!texts_write(h, out, room, &at))
		return 0;
	wire_put32(out, HELLO_MAGIC);
	wire_put32(out + 4, (uint32_t)at);
	return at;
}

static bool path_read(const uint8_t *v, size_t bytes, struct wire_hello *h)
{
	if (bytes < PATH_BYTES || bytes > PATH_BYTES + WIRE_HELLO_LINK_MAX || v[1] || h->paths == WIRE_HELLO_PATHS_MAX)
		return false;
	struct wire_hello_path *p = &h->path[h->paths++];
	p->path_id = v[0];
	p->udp_port = wire_get16(v + 2);
	p->flow_id = wire_get32(v + 4);
	p->mtu_bytes = wire_get32(v + 8);
	p->link_bytes = (uint8_t)(bytes - PATH_BYTES);
	memcpy(p->link, v + PATH_BYTES, p->link_bytes);
	return true;
}

/* A text of an entry, terminated; out is zeroed and has room for max + 1. */
static bool text_read(const uint8_t *v, size_t bytes, char *out, size_t max)
{
	if (bytes > max || !text_printable(v, bytes))
		return false;
	memcpy(out, v, bytes);
	return true;
}

static bool entry_read(uint16_t type, const uint8_t *v, size_t bytes, struct wire_hello *h)
{
	static const uint8_t fixed[HELLO_TYPE_END] = {
		[HELLO_VERSION] = 2, [HELLO_NODE] = WIRE_NODE_ID_BYTES + 8, [HELLO_FLAGS] = 4, [HELLO_LIMITS] = 20, [HELLO_CAPABILITIES] = 8};
	if (fixed[type] && bytes != fixed[type])
		return false;
	switch (type) {
	case HELLO_VERSION:
		h->version_min = v[0];
		h->version_max = v[1];
		return true;
	case HELLO_NODE:
		memcpy(h->node_id, v, WIRE_NODE_ID_BYTES);
		h->epoch = wire_get64(v + WIRE_NODE_ID_BYTES);
		return true;
	case HELLO_FLAGS:
		h->flags = wire_get32(v) & WIRE_HELLO_FLAGS_ALL;
		return true;
	case HELLO_LIMITS:
		h->credit_bytes = wire_get64(v);
		h->credit_heads = wire_get32(v + 8);
		h->max_message_bytes = wire_get64(v + 12);
		return true;
	case HELLO_CAPABILITIES:
		h->capabilities = wire_get64(v);
		return true;
	case HELLO_PATH:
		return path_read(v, bytes, h);
	case HELLO_NAME:
		return bytes >= 1 && text_read(v, bytes, h->name, WIRE_HELLO_NAME_MAX);
	default: /* HELLO_ERROR */
		if (bytes < 1 || v[0] == 0)
			return false;
		h->status = v[0];
		return text_read(v + 1, bytes - 1, h->error_text, WIRE_HELLO_TEXT_MAX);
	}
}

/* All entries of a whole message. @return the set of types seen, as bits; 0: malformed */
static uint32_t entries_read(const uint8_t *in, size_t bytes, struct wire_hello *h)
{
	uint32_t seen = 0;
	size_t at = WIRE_HELLO_HEADER_BYTES;
	while (at < bytes) {
		if (bytes - at < ENTRY_HEADER_BYTES)
			return 0;
		uint16_t type = wire_get16(in + at);
		size_t length = wire_get16(in + at + 2);
		at += ENTRY_HEADER_BYTES;
		if (length > bytes - at || type == 0)
			return 0;
		if (type < HELLO_TYPE_END) {
			if ((seen & 1u << type) && type != HELLO_PATH)
				return 0;
			seen |= 1u << type;
			if (!entry_read(type, in + at, length, h))
				return 0;
		}
		at += length;
	}
	return seen;
}

long wire_hello_decode(const uint8_t *in, size_t bytes, struct wire_hello *out)
{
	if (bytes < WIRE_HELLO_HEADER_BYTES)
		return 0;
	uint32_t length = wire_get32(in + 4);
	if (wire_get32(in) != HELLO_MAGIC || length < WIRE_HELLO_HEADER_BYTES || length > WIRE_HELLO_MAX)
		return -TERN_EPROTO;
	if (bytes < length)
		return 0;
	wire_hello_init(out);
	uint32_t seen = entries_read(in, length, out);
	if (!(seen & 1u << HELLO_VERSION) || !(seen & (1u << HELLO_NODE | 1u << HELLO_ERROR)) || !hello_holds(out))
		return -TERN_EPROTO;
	return (long)length;
}

uint8_t wire_version_choose(uint8_t a_min, uint8_t a_max, uint8_t b_min, uint8_t b_max)
{
	if (a_min < 1 || b_min < 1 || a_min > a_max || b_min > b_max)
		return 0;
	uint8_t low = a_min > b_min ? a_min : b_min, high = a_max < b_max ? a_max : b_max;
	return low <= high ? high : 0;
}
