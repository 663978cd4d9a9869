/* The examples of docs/wire.md, byte for byte: encoding what their comments say gives them, decoding gives the values back. meson copies the
 * text of the examples into wire_examples.h. */
#include <string.h>
#include "unit.h"
#include "wire/hello.h"
#include "wire/wire.h"
#include "wire/wire_examples.h"

/* Hex of an example; lines are split by '|', what follows ';' is comment. */
static size_t example(const char *text, uint8_t *out, size_t room)
{
	size_t n = 0;
	while (*text) {
		if (*text == ';') {
			text += strcspn(text, "|");
		} else if (*text == ' ' || *text == '|') {
			text++;
		} else {
			char *end;
			unsigned long byte = strtoul(text, &end, 16);
			CU_ASSERT_FATAL(end == text + 2 && byte < 256 && n < room);
			out[n++] = (uint8_t)byte;
			text = end;
		}
	}
	return n;
}

static void mix(void)
{
	static const uint8_t elements[] = {0x80, 0x3f, 0x00, 0x40, 0x40, 0x40, 0x80, 0x40};
	struct wire_header h = {WIRE_VERSION, WIRE_MIX, WIRE_SEALED | WIRE_ACK_NOW, 1, 0xa1b2c3d4, 1000, 0, 0, 0}, got;
	struct wire_record ack = {.type = WIRE_ACK, .ack = {.path_id = 1, .ranges = 2, .delay_ns = 25000, .arrival_ns = 5000000000,
							    .range = {{900, 950}, {1, 890}}}};
	struct wire_record head = {.type = WIRE_HEAD, .head = {.channel = 2, .flags = WIRE_HEAD_SHAPE | WIRE_HEAD_INLINE, .seq = 7,
							       .hold_seq = WIRE_NONE32, .recv_id = WIRE_NONE32, .tag = 0x42, .bytes = 8,
							       .dtype = TERN_BF16, .dims = 2, .shape = {2, 2}, .data = elements}}, r;
	uint8_t doc[512], out[512] = {0};
	size_t bytes = example(WIRE_EXAMPLE_MIX, doc, sizeof(doc)), at = wire_header_encode(&h, out);
	at += wire_record_encode(&ack, out + at, sizeof(out) - at);
	at += wire_record_encode(&head, out + at, sizeof(out) - at);
	CU_ASSERT_EQUAL_FATAL(bytes, at + 3); /* and padding */
	CU_ASSERT_EQUAL(memcmp(doc, out, bytes), 0);
	at = wire_header_decode(doc, bytes, &got);
	CU_ASSERT_EQUAL_FATAL(at, WIRE_HEADER_BYTES);
	CU_ASSERT(got.number == 1000 && got.flow_id == 0xa1b2c3d4);
	at += (size_t)wire_record_decode(doc + at, bytes - at, &r);
	CU_ASSERT(r.type == WIRE_ACK && r.ack.range[1].last == 890);
	at += (size_t)wire_record_decode(doc + at, bytes - at, &r);
	CU_ASSERT(r.type == WIRE_HEAD && r.head.shape[1] == 2 && !memcmp(r.head.data, elements, 8));
	CU_ASSERT_EQUAL(wire_record_decode(doc + at, bytes - at, &r), 0);
}

static void bulk(void)
{
	struct wire_header h = {WIRE_VERSION, WIRE_BULK, WIRE_SEALED | WIRE_KEY_PHASE, 1, 0xa1b2c3d4, 1001, 2, 8, 1 << 20}, got;
	uint8_t doc[64], out[64];
	CU_ASSERT_EQUAL_FATAL(example(WIRE_EXAMPLE_BULK, doc, sizeof(doc)), wire_header_encode(&h, out));
	CU_ASSERT_EQUAL(memcmp(doc, out, WIRE_BULK_HEADER_BYTES), 0);
	CU_ASSERT_EQUAL(wire_header_decode(doc, WIRE_BULK_HEADER_BYTES, &got), WIRE_BULK_HEADER_BYTES);
	CU_ASSERT(got.channel == 2 && got.seq == 8 && got.offset == 1 << 20 && got.flags == h.flags);
}

static void hello(void)
{
	struct wire_hello h, got;
	wire_hello_init(&h);
	for (uint8_t i = 0; i < WIRE_NODE_ID_BYTES; i++)
		h.node_id[i] = i;
	h.epoch = 0x1122334455667788;
	h.credit_bytes = 16 << 20;
	h.credit_heads = 256;
	h.paths = 1;
	h.path[0] = (struct wire_hello_path){.path_id = 1, .flow_id = 0xa1b2c3d4, .udp_port = 7400, .mtu_bytes = 1472};
	strcpy(h.name, "lyon");
	uint8_t doc[512], out[512];
	size_t bytes = example(WIRE_EXAMPLE_HELLO, doc, sizeof(doc));
	CU_ASSERT_EQUAL_FATAL(wire_hello_encode(&h, out, sizeof(out)), bytes);
	CU_ASSERT_EQUAL(memcmp(doc, out, bytes), 0);
	CU_ASSERT_EQUAL(wire_hello_decode(doc, bytes, &got), (long)bytes);
	CU_ASSERT(got.epoch == h.epoch && got.path[0].udp_port == 7400 && !strcmp(got.name, "lyon"));
}

static const struct unit_case cases[] = {
	{"mix", mix},
	{"bulk", bulk},
	{"hello", hello},
};
UNIT_MAIN("wire doc", cases)
