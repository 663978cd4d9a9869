/* Every byte of a datagram, encode and decode; docs/wire.md says the same in tables. Called by flow, msg, peer and loop. Pure: no state, no
 * clock, no allocation; decoding never reads outside the bytes given, whatever is in them. All integers little-endian.
 *
 * A datagram is one frame: a 16-byte header in clear (authenticated), for BULK 16 bytes more, then the payload, then a 16-byte tag when sealed.
 *   MIX   payload: records one after another (acknowledgements, message heads with small messages inside, announcements ...)
 *   BULK  payload: a run of bytes of one message
 *   PARITY reserved: repair symbols over a run of numbers
 */
#ifndef WIRE_WIRE_H
#define WIRE_WIRE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "tern/tensor.h"

enum { WIRE_VERSION = 1, WIRE_VERSION_MIN = 1 };
enum wire_type { WIRE_MIX = 1, WIRE_BULK = 2, WIRE_PARITY = 3 };
enum wire_flags {
	WIRE_KEY_PHASE = 1, /* which of the two live keys sealed it */
	WIRE_SEALED = 2,
	WIRE_ACK_NOW = 4,   /* the sender would like an acknowledgement at once */
	WIRE_FLAGS_ALL = 7,
};
enum {
	WIRE_HEADER_BYTES = 16,
	WIRE_BULK_HEADER_BYTES = 32,
	WIRE_TAG_BYTES = 16,
	WIRE_RECORD_HEADER_BYTES = 4, /* type u8, flags u8, length u16 (whole record) */
	WIRE_ACK_RANGES_MAX = 32,
	WIRE_INLINE_MAX = 4096,       /* largest message inside a HEAD record */
	WIRE_RECORD_MAX = 4096 + 256,
	WIRE_NONE32 = 0xffffffff,
};

/* The clear header. */
struct wire_header {
	uint8_t version, type, flags, path_id;
	uint32_t flow_id; /* chosen by the receiver; routes the frame to its flow */
	uint64_t number;
	/* BULK only */
	uint16_t channel;
	uint32_t seq;
	uint64_t offset;
};

/** Writes the header. @return its length: 16, or 32 for BULK */
static inline size_t wire_header_encode(const struct wire_header *h, uint8_t *out);

/**
 * Fields of BULK are 0 after any other type. PARITY is refused: nobody may send it yet.
 * @return the header's length, or 0: too short, unknown version or type, reserved bits set
 */
static inline size_t wire_header_decode(const uint8_t *in, size_t bytes, struct wire_header *out);

#include "wire/header.h"

enum wire_record_type {
	WIRE_PAD = 0,      /* a single zero byte, no record header; to the end of the payload */
	WIRE_ACK = 1,
	WIRE_FLOOR = 2,
	WIRE_PING = 3,
	WIRE_PONG = 4,
	WIRE_CREDIT = 5,
	WIRE_HEAD = 6,
	WIRE_ANNOUNCE = 7,
	WIRE_GRANT = 8,
	WIRE_RESULT = 9,
	WIRE_REVOKE = 10,
	WIRE_READ = 11,
	WIRE_CANCEL = 12,
	WIRE_BYE = 13,
	WIRE_KEY = 14,
	WIRE_RUN = 15,
	WIRE_RECORD_END
};
enum { WIRE_RECORD_OPTIONAL = 0x80 }; /* in the record's flags: a receiver that does not know the type skips it; otherwise the frame is refused */

struct wire_range {
	uint64_t first, last; /* both included */
};

/* Received numbers of one path, newest first; ranges do not touch. */
struct wire_ack {
	uint8_t path_id;        /* the path whose numbers these are */
	uint8_t ranges;         /* 1..32 */
	uint32_t delay_ns;      /* from the arrival of the newest number to this record's leaving */
	uint32_t ce_frames;     /* frames with CE since the path began, modulo 2^32 */
	uint64_t arrival_ns;    /* receiver's clock when the newest number arrived: for one-way delay differences */
	struct wire_range range[WIRE_ACK_RANGES_MAX];
};
/* The sender will never ask again for a number below this: the receiver forgets and refuses them. */
struct wire_floor { uint8_t path_id; uint64_t number; };
/* Path validation, liveness and path MTU (padded to the size that is tried). PONG returns what it got. */
struct wire_ping { uint8_t path_id; uint32_t size_bytes; uint64_t token; };
/* Limits since the channel began; the newest wins. */
struct wire_credit { uint16_t channel; uint32_t heads; uint64_t bytes; uint64_t order; };

enum wire_kind { WIRE_KIND_SEND = 0, WIRE_KIND_WRITE = 1, WIRE_KIND_READ_REPLY = 2 };
enum wire_head_flags {
	WIRE_HEAD_IMM = 1,
	WIRE_HEAD_SHAPE = 2,    /* dtype, dims and shape are there */
	WIRE_HEAD_INLINE = 4,   /* the whole message follows in this record */
	WIRE_HEAD_CLAIM = 8,    /* no credit: the bytes come after a GRANT */
	WIRE_HEAD_HOLD_ALL = 16, /* hold: every earlier message, not only those up to hold_seq with the same tag */
	WIRE_HEAD_WANT_RESULT = 32, /* DONE_MATCHED: a RESULT is wanted when matched */
	WIRE_HEAD_FLAGS_ALL = 63,
};
/* A message begins. Repeated with later bursts until acknowledged. */
struct wire_head {
	uint16_t channel;
	uint8_t kind;           /* enum wire_kind */
	uint8_t flags;          /* enum wire_head_flags */
	uint32_t seq;           /* numbers messages of the channel and direction, from 0, modulo 2^32 */
	uint32_t hold_seq;      /* the last earlier message with this tag not known matched; WIRE_NONE32: none */
	uint32_t recv_id;       /* announced receive it goes to, WIRE_NONE32: none; READ_REPLY: the request's id */
	uint64_t tag;           /* WRITE: the remote key */
	uint64_t bytes;         /* of the whole message */
	uint64_t remote_offset; /* WRITE: where it goes */
	uint64_t imm;           /* with IMM */
	uint8_t dtype, dims;    /* with SHAPE */
	uint64_t shape[TERN_DIMS_MAX];
	const uint8_t *data;    /* with INLINE: `bytes` bytes, inside the decoded frame */
};
/* A receive is waiting. dtype TERN_RAW with dims 0: bytes without a shape. order numbers the announcements of a channel, so that the sender takes
 * them in posting order. */
struct wire_announce {
	uint16_t channel;
	uint8_t dtype, dims;
	uint32_t order, recv_id;
	uint32_t matched_seq;   /* every message before this one has met its receive or waits unmatched and does not fit this one */
	uint64_t tag, ignore, bytes;
	uint64_t shape[TERN_DIMS_MAX];
};
struct wire_grant { uint16_t channel; uint32_t seq, recv_id; }; /* a claim has met its receive: send the bytes */
/* How a message ended at the receiver, where that is not plain success by acknowledgement. status 0: matched (WANT_RESULT); otherwise TERN_E,
 * positive. */
struct wire_result { uint16_t channel; uint8_t status; uint32_t seq; uint64_t tag; };
/* An announcement is taken back; answer 1: reply, taken 1: too late, a message uses it (only in an answer). */
struct wire_revoke { uint16_t channel; uint8_t answer; uint8_t taken; uint32_t order, recv_id; };
struct wire_read { uint16_t channel; uint32_t req_id; uint64_t key, remote_offset, bytes; };
struct wire_cancel { uint16_t channel; uint32_t seq; }; /* the sender gives a message up */
struct wire_bye { uint8_t status; }; /* the peer closes; TERN_E, positive, or 0 */

enum wire_key_kind { WIRE_KEY_RECV = 0, WIRE_KEY_CLAIM, WIRE_KEY_EXPORT, WIRE_KEY_READ, WIRE_KEY_KINDS };
/* Memory that the peer may write by itself, where a link can: the announced receive, the claim that is about to be granted, the export, or the READ whose order, message
 * number, key or req_id `id` is. Worth speed only: bytes that come as BULK are as good. */
struct wire_key {
	uint16_t channel;
	uint8_t kind;       /* enum wire_key_kind */
	uint8_t lane, connection;
	uint8_t path_id;    /* of the path that it holds for */
	uint32_t key;       /* the link's */
	uint64_t id, addr, bytes;
};
/* What frames without a header carry that come next on this lane: numbers [first, first + frames) have `bytes` bytes of message seq from `offset` on,
 * stride_bytes each but the last. frames 0: every frame on the lane from number `first` on, one behind the other, as long as each is, until another
 * RUN. */
struct wire_run {
	uint16_t channel;
	uint8_t lane, ack_last; /* 1: the sender would like an acknowledgement at once when the last has come */
	uint32_t seq, frames, stride_bytes, bytes;
	uint64_t first, offset;
};

struct wire_record {
	uint8_t type; /* enum wire_record_type */
	union {
		struct wire_ack ack;
		struct wire_floor floor;
		struct wire_ping ping; /* PONG too */
		struct wire_credit credit;
		struct wire_head head;
		struct wire_announce announce;
		struct wire_grant grant;
		struct wire_result result;
		struct wire_revoke revoke;
		struct wire_read read;
		struct wire_cancel cancel;
		struct wire_bye bye;
		struct wire_key key;
		struct wire_run run;
	};
};

/** Exact length the record takes, at most WIRE_RECORD_MAX. */
size_t wire_record_bytes(const struct wire_record *r);

/**
 * Appends a record. HEAD with INLINE copies `data`, unless data is NULL: then the bytes are left for the caller to fill in. The caller vouches for
 * the fields: a range count, dims or inline length beyond its limit is an assert.
 * @return bytes written; 0 if it does not fit in `room` (nothing was written)
 */
size_t wire_record_encode(const struct wire_record *r, uint8_t *out, size_t room);

/**
 * Takes the next record from a MIX payload, past optional ones of an unknown type. In a HEAD, fields its kind and flags do not ask for come out 0;
 * shape entries from dims on are not written.
 * @return bytes used (> 0), 0 at the end (out->type is WIRE_PAD), or -TERN_EPROTO and *out undefined: malformed (lengths, unknown and not optional,
 *         ranges not descending, dims > 8, shape times dtype overflowing or not `bytes`, INLINE longer than the record, reserved bits set, a remote
 *         range past 2^64; docs/wire.md has them all)
 */
long wire_record_decode(const uint8_t *in, size_t bytes, struct wire_record *out);

#endif
