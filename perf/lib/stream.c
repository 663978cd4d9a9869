/* See stream.h.
 *
 * Verifying: a side that sends has one more source than there are slots, so that a slot never gets the same bytes twice in a row, and what an earlier
 * message left there cannot pass for the present one. A sent message carries its hash in `imm`; reads are held against hashes told before; writes are
 * checked afterwards, by slot. */
#include "stream.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>
#include "clock.h"
#include "stop.h"
#include "talk.h"

#define TAG_DATA (1ull << 60)
#define TAG_LAST (1ull << 59)
#define TAG_INDEX ((1ull << 48) - 1)
#define PEAK_NS 10000000u   /* shorter intervals measure how completions bunch, not the path */
#define TICK_NS 1000000000u /* the other side of a one-sided run hears from us so often */
/* what was in flight when an interval began was partly moved before it: an interval of so many times that overstates by a quarter at most */
enum { PEAK_DEPTHS = 4, PAGE = 4096, LINE = 64 };

static void fill(uint8_t *to, uint64_t bytes, uint64_t seed)
{
	uint64_t x = seed * 0x9e3779b97f4a7c15u | 1;

	for (uint64_t i = 0; i < bytes; i += 8) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(to + i, &x, bytes - i < 8 ? bytes - i : 8);
	}
}

static bool needs_source(const struct stream_plan *p)
{
	return p->mode == STREAM_READ ? p->receives : p->active;
}

static bool needs_target(const struct stream_plan *p)
{
	return p->mode == STREAM_READ ? p->active : p->receives;
}

static int open_source(struct stream *s, uint64_t seed)
{
	void *memory;

	s->sources = s->plan.verify ? s->plan.depth + 1 : 1; /* one, as perftest: the sender's cache is not what is measured */
	int err = tern_mem_alloc(s->node->ctx, s->sources * s->stride_bytes, &memory, &s->source_mem);
	if (err)
		return node_fail(s->node, "no memory for messages", err);
	s->source = memory;
	s->source_hash = calloc(s->sources, sizeof(*s->source_hash));
	if (!s->source_hash)
		return node_error(s->node, "no memory for hashes");
	for (uint64_t i = 0; i < s->sources; i++) {
		fill(s->source + i * s->stride_bytes, s->plan.bytes, (seed << 32) + i + 1);
		if (s->plan.verify)
			s->source_hash[i] = XXH3_64bits(s->source + i * s->stride_bytes, s->plan.bytes);
	}
	return NODE_OK;
}

static int open_target(struct stream *s)
{
	void *memory;
	int err = tern_mem_alloc(s->node->ctx, s->plan.depth * s->stride_bytes, &memory, &s->target_mem);

	if (err)
		return node_fail(s->node, "no memory for messages", err);
	s->target = memory;
	memset(s->target, 0, s->plan.depth * s->stride_bytes); /* page faults now */
	return NODE_OK;
}

int stream_open(struct stream *s, struct node *node, const struct stream_plan *plan, uint64_t seed)
{
	memset(s, 0, sizeof(*s));
	s->node = node;
	s->plan = *plan;
	uint64_t grain = plan->bytes >= PAGE ? PAGE : LINE;
	s->stride_bytes = (plan->bytes + grain - 1) / grain * grain;
	s->total = plan->active ? plan->iterations ? plan->iterations : UINT64_MAX : 0;
	s->in_total = plan->receives && plan->mode == STREAM_SEND ? plan->iterations ? plan->iterations : UINT64_MAX : 0;
	for (uint32_t i = plan->depth; i-- > 0;) {
		s->free[s->frees++] = i;
		s->slot[i].wrote = UINT64_MAX;
	}
	int result = needs_source(plan) ? open_source(s, seed) : NODE_OK;
	if (!result && needs_target(plan))
		result = open_target(s);
	return result;
}

void stream_close(struct stream *s)
{
	if (s->remote)
		tern_rmem_release(&s->remote);
	if (s->node)
		node_release(s->node, &s->source_mem);
	if (s->node)
		node_release(s->node, &s->target_mem);
	free(s->source_hash);
	free(s->remote_hash);
	s->source_hash = s->remote_hash = NULL;
}

int stream_export(struct stream *s, void *handle, size_t *bytes)
{
	bool read = s->plan.mode == STREAM_READ;
	int err = tern_mem_export(
	        s->node->ep, read ? s->source_mem : s->target_mem, s->node->peer, read ? TERN_REMOTE_READ : TERN_REMOTE_WRITE, handle, bytes);

	return err ? node_fail(s->node, "cannot export memory", err) : NODE_OK;
}

int stream_import(struct stream *s, const void *handle, size_t bytes)
{
	int err = tern_mem_import(s->node->ep, s->node->peer, handle, bytes, &s->remote);

	return err ? node_fail(s->node, "cannot import the other side's memory", err) : NODE_OK;
}

uint64_t stream_target_hash(const struct stream *s, uint32_t slot)
{
	return XXH3_64bits(s->target + slot * s->stride_bytes, s->plan.bytes);
}

/* ---- receiving ------------------------------------------------------------------------------------------------------------------------- */

static int post_receive(struct stream *s, uint32_t i)
{
	tern_iov iov = {.addr = s->target + i * s->stride_bytes, .bytes = s->plan.bytes, .mem = s->target_mem};
	tern_buf buf = {.iov = &iov, .n = 1};
	tern_args args = {.size_bytes = sizeof(args), .user = &s->receive[i], .tag = TAG_DATA, .ignore = TAG_LAST | TAG_INDEX};
	int err = tern_recv(s->node->ep, s->node->peer, &buf, &args, &s->receive[i].op);

	if (err)
		return node_fail(s->node, "cannot receive", err);
	s->receive[i].posted = true;
	s->in_posted++;
	return NODE_OK;
}

int stream_announce(struct stream *s)
{
	int result = NODE_OK;

	for (uint32_t i = 0; i < s->plan.depth && i < s->in_total && !result; i++)
		result = post_receive(s, i);
	return result;
}

/* The last message has told how many there are, and all are here: receives that wait for more are taken back. */
static int cancel_receives(struct stream *s)
{
	if (s->cancelled || s->result.in < s->in_total)
		return NODE_OK;
	s->cancelled = true;
	for (uint32_t i = 0; i < s->plan.depth; i++) {
		int err = s->receive[i].posted ? tern_cancel(s->node->ep, s->receive[i].op) : 0;
		if (err && err != -TERN_ESTALE)
			return node_fail(s->node, "cannot take a receive back", err);
	}
	return NODE_OK;
}

static int received(struct stream *s, const tern_event *e)
{
	struct stream_slot *slot = e->user;
	uint32_t i = (uint32_t)(slot - s->receive);

	slot->posted = false;
	s->in_ended++;
	if (e->status == -TERN_ECANCELED && s->cancelled)
		return NODE_OK;
	if (e->status)
		return node_error(s->node, "receive: %s", tern_error_text(e->status));
	if (e->bytes != s->plan.bytes)
		return node_error(s->node, "a message of %llu bytes came where one of %llu was expected", (unsigned long long)e->bytes,
		        (unsigned long long)s->plan.bytes);
	s->result.in++;
	if (s->plan.verify && stream_target_hash(s, i) != e->imm)
		s->result.bad++;
	if (e->tag & TAG_LAST)
		s->in_total = (e->tag & TAG_INDEX) + 1;
	if (s->result.in < s->in_total && s->in_posted < s->in_total && !s->cancelled)
		return post_receive(s, i);
	return s->plan.iterations ? NODE_OK : cancel_receives(s);
}

/* ---- starting -------------------------------------------------------------------------------------------------------------------------- */

static int start_send(struct stream *s, uint64_t index, bool last, struct stream_slot *slot)
{
	uint64_t source = index % s->sources;
	tern_iov iov = {.addr = s->source + source * s->stride_bytes, .bytes = s->plan.bytes, .mem = s->source_mem};
	tern_buf buf = {.iov = &iov, .n = 1};
	tern_args args = {.size_bytes = sizeof(args), .user = slot, .tag = TAG_DATA | (last ? TAG_LAST : 0) | (index & TAG_INDEX)};

	if (s->plan.verify) {
		args.flags |= TERN_IMM;
		args.imm = s->source_hash[source];
	}
	return tern_send(s->node->ep, s->node->peer, &buf, &args, &slot->op);
}

static int start_remote(struct stream *s, uint64_t index, struct stream_slot *slot)
{
	bool read = s->plan.mode == STREAM_READ;
	uint32_t i = (uint32_t)(slot - s->slot);
	tern_args args = {.size_bytes = sizeof(args), .user = slot};

	slot->source = index % (read ? s->remote_sources : s->sources);
	tern_iov iov = {.addr = read ? s->target + i * s->stride_bytes : s->source + slot->source * s->stride_bytes,
	        .bytes = s->plan.bytes,
	        .mem = read ? s->target_mem : s->source_mem};
	tern_buf buf = {.iov = &iov, .n = 1};
	if (read)
		return tern_read(s->node->ep, s->remote, slot->source * s->stride_bytes, &buf, &args, &slot->op);
	return tern_write(s->node->ep, s->remote, i * s->stride_bytes, &buf, &args, &slot->op);
}

/* As many operations as may be in flight. */
static int start_more(struct stream *s, uint64_t now)
{
	while (s->frees && s->posted < s->total) {
		struct stream_slot *slot = &s->slot[s->free[s->frees - 1]];
		bool last = s->posted + 1 == s->total || now >= s->until_ns;
		int err = s->plan.mode == STREAM_SEND ? start_send(s, s->posted, last, slot) : start_remote(s, s->posted, slot);
		if (err == -TERN_EAGAIN)
			return NODE_OK;
		if (err)
			return node_fail(s->node, "cannot start an operation", err);
		s->frees--;
		s->posted++;
		if (last)
			s->total = s->posted;
	}
	return NODE_OK;
}

static int started_ended(struct stream *s, const tern_event *e)
{
	static const char *const name[] = {"send", "write", "read"};
	struct stream_slot *slot = e->user;
	uint32_t i = (uint32_t)(slot - s->slot);

	if (e->status)
		return node_error(s->node, "%s: %s", name[s->plan.mode], tern_error_text(e->status));
	s->result.out++;
	slot->wrote = slot->source;
	s->free[s->frees++] = i;
	if (s->plan.verify && s->plan.mode == STREAM_READ && stream_target_hash(s, i) != s->remote_hash[slot->source])
		s->result.bad++;
	return NODE_OK;
}

/* ---- the loop -------------------------------------------------------------------------------------------------------------------------- */

static int dispatch(struct stream *s, const tern_event *e)
{
	struct stream_slot *slot = e->user;

	if (slot >= s->receive && slot < s->receive + STREAM_DEPTH_MAX)
		return received(s, e);
	if (slot >= s->slot && slot < s->slot + STREAM_DEPTH_MAX)
		return started_ended(s, e);
	return NODE_OK;
}

static void note_peak(struct stream *s, uint64_t now)
{
	uint64_t bytes = (s->result.out + s->result.in) * s->plan.bytes - s->interval_bytes, ns = now - s->interval_ns;

	if (ns < PEAK_NS || bytes < PEAK_DEPTHS * s->plan.depth * s->plan.bytes)
		return;
	if (!s->result.peak_ns || (double)bytes / (double)ns > (double)s->result.peak_bytes / (double)s->result.peak_ns) {
		s->result.peak_bytes = bytes;
		s->result.peak_ns = ns;
	}
	s->interval_bytes += bytes;
	s->interval_ns = now;
}

static int tick(struct stream *s, uint64_t now)
{
	if (s->plan.mode == STREAM_SEND || now < s->tick_ns)
		return NODE_OK;
	s->tick_ns = now + TICK_NS;
	return talk_tick(s->node);
}

static bool ended(const struct stream *s)
{
	return s->result.out == s->total && s->result.in == s->in_total && s->in_ended == s->in_posted;
}

int stream_run(struct stream *s)
{
	tern_event events[NODE_EVENTS];
	int result = NODE_OK;
	uint64_t now = clock_ns();

	s->start_ns = s->interval_ns = now;
	s->tick_ns = now + TICK_NS;
	s->until_ns = s->plan.iterations ? UINT64_MAX : now + s->plan.duration_ns;
	while (!result && !ended(s)) {
		size_t got = 0;
		if (stop_asked)
			result = NODE_STOPPED;
		if (!result)
			result = start_more(s, now);
		if (!result)
			result = node_poll(s->node, events, &got);
		for (size_t i = 0; i < got && !result; i++)
			result = dispatch(s, &events[i]);
		if (!got)
			continue;
		now = clock_ns();
		note_peak(s, now);
		if (!result && s->plan.active)
			result = tick(s, now);
	}
	s->result.elapsed_ns = clock_ns() - s->start_ns;
	return result;
}
