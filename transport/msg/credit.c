/* Credit for unannounced messages, and the memory behind it. Called when pairs open and close, when a message needs memory or frees it, and for
 * CREDIT records.
 *
 * Invariant: the chunks that all pairs' credit can ever hold at once, heads + bytes / MSG_CHUNK_BYTES each (a message wastes less than one chunk),
 * never exceed the chunks there are, so a peer that keeps to its credit always finds memory (DESIGN 5.8). Half is divided among max_pairs, the other
 * half goes to whom comes first, an eighth of what is left each time. */
#include "msg/state.h"

enum { HEADS_MOST = 256 };

static uint32_t chunks_of(const struct msg_config *c)
{
	return (uint32_t)(c->unmatched_bytes / MSG_CHUNK_BYTES);
}

size_t credit_chunks_bytes(const struct msg_config *config)
{
	return chunks_of(config) * sizeof(uint32_t);
}

void credit_init(struct msg *m, void *memory, void *unmatched)
{
	m->chunk_next = memory;
	m->chunks = unmatched;
	m->chunk_total = chunks_of(&m->config);
	m->chunk_head = POOL_NONE;
	m->heads_total = m->config.max_inbound / 2 + m->config.max_pairs;
}

/* A pair's part of what is left: its equal part of one half, and an eighth of the rest of the other. */
static uint32_t part_of(uint32_t total, uint32_t granted, uint32_t pairs)
{
	uint32_t equal = total / 2 / pairs, left = total > granted ? total - granted : 0;
	uint32_t kept = equal * pairs; /* nobody's eighth may touch it */
	uint32_t rest = left > kept ? left - kept : 0;
	uint32_t part = equal + rest / 8;
	return part < left ? part : left;
}

void msg_pair_grant(struct msg *m, struct msg_pair *pair, struct msg_limits *out)
{
	uint32_t chunks = part_of(m->chunk_total, m->chunks_granted, m->config.max_pairs);
	uint32_t heads = part_of(m->heads_total, m->heads_granted, m->config.max_pairs);
	heads = heads > HEADS_MOST ? HEADS_MOST : heads ? heads : 1; /* one at least: claims must get through, and max_pairs of them are there */
	uint32_t for_heads = heads < chunks / 2 ? heads : chunks / 2;
	if (for_heads < heads && for_heads)
		heads = for_heads;
	pair->grant_heads = heads;
	pair->grant_bytes = for_heads ? (uint64_t)(chunks - heads) * MSG_CHUNK_BYTES : 0;
	pair->grant_chunks = for_heads ? chunks : 0;
	pair->said_heads = heads;
	pair->said_bytes = pair->grant_bytes;
	m->chunks_granted += pair->grant_chunks;
	m->heads_granted += heads;
	*out = (struct msg_limits){.credit_bytes = pair->grant_bytes, .credit_heads = heads};
}

void credit_close(struct msg_pair *pair)
{
	pair->m->chunks_granted -= pair->grant_chunks;
	pair->m->heads_granted -= pair->grant_heads;
}

/* @return 0, -TERN_EPROTO: more than was granted */
static int credit_see(struct msg_pair *pair, uint64_t bytes)
{
	uint64_t limit = pair->grant_bytes + pair->freed_bytes;
	if (pair->seen_heads == pair->grant_heads + pair->freed_heads || bytes > limit - pair->seen_bytes)
		return -TERN_EPROTO;
	if ((bytes + MSG_CHUNK_BYTES - 1) / MSG_CHUNK_BYTES > pair->m->chunk_total - pair->m->chunks_used)
		return -TERN_EPROTO;
	pair->seen_heads++;
	pair->seen_bytes += bytes;
	return 0;
}

int credit_take(struct msg_in *in)
{
	struct msg_pair *pair = in->pair;
	if (credit_see(pair, in->flags & WIRE_HEAD_CLAIM ? 0 : in->bytes))
		return -TERN_EPROTO;
	pair->m->ins_credited++;
	in->credited = true;
	return 0;
}

/* News is worth a record when a quarter of the window was freed, or the peer has less than a quarter left. */
static void credit_check(struct msg_pair *pair)
{
	uint32_t heads = pair->grant_heads + pair->freed_heads, more_heads = heads - pair->said_heads;
	uint64_t bytes = pair->grant_bytes + pair->freed_bytes, more_bytes = bytes - pair->said_bytes;
	bool few_heads = more_heads && (more_heads * 4 >= pair->grant_heads || (pair->said_heads - pair->seen_heads) * 4 < pair->grant_heads);
	bool few_bytes = more_bytes && (more_bytes * 4 >= pair->grant_bytes || (pair->said_bytes - pair->seen_bytes) * 4 < pair->grant_bytes);
	if (!few_heads && !few_bytes)
		return;
	pair->credit_due = true;
	msg_wake(pair);
}

static void credit_free(struct msg_pair *pair, uint64_t bytes)
{
	pair->freed_heads++;
	pair->freed_bytes += bytes;
	credit_check(pair);
}

void credit_return(struct msg_in *in)
{
	struct msg_pair *pair = in->pair;
	if (!in->credited)
		return;
	in->credited = false;
	pair->m->ins_credited--;
	credit_free(pair, in->flags & WIRE_HEAD_CLAIM ? 0 : in->bytes);
}

int credit_pass(struct msg_pair *pair, uint64_t bytes)
{
	if (credit_see(pair, bytes))
		return -TERN_EPROTO;
	credit_free(pair, bytes);
	return 0;
}

void credit_tx(struct msg_mix *x)
{
	struct msg_pair *pair = x->pair;
	struct wire_record r = {.type = WIRE_CREDIT, .credit = {.heads = pair->grant_heads + pair->freed_heads,
		.bytes = pair->grant_bytes + pair->freed_bytes, .order = pair->said_order + 1}};
	struct flow_item item = {.ref = msg_pair_ref(pair->m, pair), .offset = r.credit.order, .kind = MSG_ITEM_CREDIT};
	if (!msg_mix_put(x, &r, &item))
		return;
	pair->said_order++;
	pair->said_heads = r.credit.heads;
	pair->said_bytes = r.credit.bytes;
	pair->said_flying++;
	pair->credit_due = false;
}

/* A lost one is said again, with the values of then, unless a newer one is out. */
void credit_said(struct msg_pair *pair, const struct flow_item *item, bool acked)
{
	pair->said_flying--;
	if (!acked && item->offset == pair->said_order)
		pair->credit_due = true;
}

int credit_rx(struct msg_pair *pair, const struct wire_credit *r)
{
	if (r->order <= pair->credit_order)
		return 0;
	if ((int32_t)(r->heads - pair->credit_heads) < 0 || r->bytes < pair->credit_bytes)
		return -TERN_EPROTO; /* limits never shrink */
	pair->credit_order = r->order;
	pair->credit_heads = r->heads;
	pair->credit_bytes = r->bytes;
	msg_wake(pair);
	return 0;
}

/* ---- unmatched memory: chains of chunks ---- */

bool chunks_get(struct msg_in *in)
{
	struct msg *m = in->pair->m;
	uint64_t n = (in->bytes + MSG_CHUNK_BYTES - 1) / MSG_CHUNK_BYTES;
	uint32_t *link = &in->chunk;
	if (n > m->chunk_total - m->chunks_used)
		return false;
	m->chunks_used += (uint32_t)n;
	for (; n; n--) {
		uint32_t c = m->chunk_head;
		if (c != POOL_NONE)
			m->chunk_head = m->chunk_next[c];
		else
			c = m->chunk_fresh++;
		*link = c;
		link = &m->chunk_next[c];
	}
	*link = POOL_NONE;
	in->at = in->chunk;
	in->at_index = 0;
	return true;
}

void chunks_put(struct msg_in *in)
{
	struct msg *m = in->pair->m;
	for (uint32_t c = in->chunk, next; c != POOL_NONE; c = next) {
		next = m->chunk_next[c];
		m->chunk_next[c] = m->chunk_head;
		m->chunk_head = c;
		m->chunks_used--;
	}
	in->chunk = in->at = POOL_NONE;
}

size_t chunks_segs(struct msg_in *in, uint64_t offset, uint64_t bytes, struct frame_seg *out, size_t max)
{
	struct msg *m = in->pair->m;
	uint32_t index = (uint32_t)(offset / MSG_CHUNK_BYTES);
	size_t n = 0;
	if (index < in->at_index) {
		in->at = in->chunk;
		in->at_index = 0;
	}
	for (; in->at_index < index; in->at_index++)
		in->at = m->chunk_next[in->at];
	for (uint32_t c = in->at; bytes; c = m->chunk_next[c]) {
		uint32_t skip = (uint32_t)(offset % MSG_CHUNK_BYTES), part = MSG_CHUNK_BYTES - skip;
		uint8_t *addr = m->chunks + (uint64_t)c * MSG_CHUNK_BYTES + skip;
		part = part < bytes ? part : (uint32_t)bytes;
		if (n && out[n - 1].addr + out[n - 1].bytes == addr)
			out[n - 1].bytes += part;
		else if (n == max)
			return 0;
		else
			out[n++] = (struct frame_seg){.addr = addr, .bytes = part};
		offset += part;
		bytes -= part;
	}
	return n;
}
