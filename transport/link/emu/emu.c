/* The emulated link; see emu.h. Called by the loop through link_emu_ops. Every call of tx, reap or rx also hands on what is due; wait gives the time of the next
 * departure. Knows nothing of what the inner link is. */
#include "link/emu/emu.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "link/emu/config.h"
#include "link/sim/line.h"
#include "link/sim/slab.h"
#include "tern/error.h"

/* A frame held until its time, with a copy of its bytes. */
struct emu_item {
	struct line_item item;
	struct frame frame; /* what the inner link gets */
	uint32_t alloc_bytes;
	uint8_t data[];
};

struct emu_path {
	struct link_path base;
	struct link_path *inner;
	struct emu_path *next, **at;
};

struct emu_link {
	struct link base;
	struct link *inner;
	struct link_ops ops; /* inner's, completed */
	struct emu_path *paths;
	struct element element;
	struct line line;
	struct slab slab;
	uint64_t hold_ns, last_now_ns;
	uint32_t out_n;                 /* due, not yet taken by the inner link */
	struct frame *out[EMU_OUT_MAX];
	uint32_t taken_at, taken_n;     /* ring of frames to be reaped */
	struct frame *taken[EMU_TX_MAX];
	struct emu_counters counters;
};

static struct link_ops emu_ops;
static pthread_once_t emu_ops_once = PTHREAD_ONCE_INIT;

static void emu_ops_fill(void)
{
	link_fill(&link_emu_ops, &emu_ops);
}

/* Twice what can be on the way, so that only a wrong configuration meets this bound before the queue's own. A frame of 64 bytes holds 512 of memory. */
static uint64_t memory_bytes(const struct element_config *c)
{
	uint64_t rate = c->rate_bits_per_s, delay = c->delay_ns + c->reorder_extra_ns;

	for (uint32_t i = 0; i < c->rate_steps; i++)
		rate = c->rate_step[i].value > rate ? c->rate_step[i].value : rate;
	for (uint32_t i = 0; i < c->steps; i++)
		delay = c->step[i].value > delay ? c->step[i].value : delay;
	if (!c->rate_bits_per_s && rate < EMU_RATE_GUESS_BITS_PER_S)
		rate = EMU_RATE_GUESS_BITS_PER_S;
	unsigned __int128 flight = (unsigned __int128)rate * delay / 8000000000u;
	unsigned __int128 bytes = 2 * flight + (c->queue_bytes ? c->queue_bytes : flight) + EMU_MEMORY_MIN_BYTES;
	return bytes < EMU_MEMORY_MAX_BYTES ? (uint64_t)bytes : EMU_MEMORY_MAX_BYTES;
}

int emu_wrap(struct link *inner, const struct element_config *config, uint64_t now_ns, struct link **out)
{
	*out = NULL;
	pthread_once(&emu_ops_once, emu_ops_fill);
	if ((inner->caps & LINK_CONNECTS) || !(inner->caps & LINK_BYTES))
		return -TERN_EINVAL;
	struct emu_link *emu = calloc(1, sizeof(*emu));
	if (!emu)
		return -TERN_ENOMEM;
	int rc = element_init(&emu->element, config, 1, now_ns);
	if (rc) {
		free(emu);
		return rc;
	}
	emu->inner = inner;
	link_fill(inner->ops, &emu->ops);
	line_init(&emu->line);
	slab_init(&emu->slab, memory_bytes(config));
	emu->hold_ns = config->delay_ns / EMU_BATCH_SHARE < EMU_BATCH_NS ? config->delay_ns / EMU_BATCH_SHARE : EMU_BATCH_NS;
	emu->last_now_ns = now_ns;
	emu->base.ops = &emu_ops;
	emu->base.caps = inner->caps & ~(uint32_t)(LINK_TX_ZERO_COPY | LINK_PLACES | LINK_PACES | LINK_MAPS | LINK_MAPS_OPS);
	emu->base.max_segments = FRAME_SEGS_MAX; /* two reach the inner link */
	emu->base.local = inner->local;
	*out = &emu->base;
	return 0;
}

/* @return the text behind "key=" in a query string, or NULL without it or when it does not fit */
static const char *option(const char *options, const char *key, char *out, size_t room)
{
	size_t n = strlen(key);

	for (const char *at = options; at && *at; at = strchr(at, '&') ? strchr(at, '&') + 1 : NULL)
		if (!strncmp(at, key, n) && at[n] == '=') {
			size_t length = strcspn(at + n + 1, "&");
			if (length >= room)
				return NULL;
			memcpy(out, at + n + 1, length);
			out[length] = 0;
			return out;
		}
	return NULL;
}

static int emu_open(const struct link_config *config, struct link **out)
{
	char none[1], name[32], file[1024], direction[16];
	char *error = config->error && config->error_bytes ? config->error : none;
	size_t error_bytes = error == none ? sizeof(none) : config->error_bytes;
	struct emu_config described = {0};
	const struct link_ops *ops;
	struct link *inner;

	*out = NULL;
	if (option(config->options, "emu", file, sizeof(file))) {
		int rc = emu_config_load(file, &described, error, error_bytes);
		if (rc)
			return rc == -TERN_EINVAL ? -TERN_EADDR : rc;
	}
	if (option(config->options, "emu_direction", direction, sizeof(direction)) && strcmp(direction, "forward") && strcmp(direction, "reverse")) {
		snprintf(error, error_bytes, "emu: emu_direction=%s; write forward or reverse", direction);
		return -TERN_EADDR;
	} else if (!option(config->options, "emu_direction", direction, sizeof(direction))) {
		snprintf(direction, sizeof(direction), "forward");
	}
	const char *link = option(config->options, "link", name, sizeof(name));
	if (link && !strcmp(link, "emu")) {
		snprintf(error, error_bytes, "emu: link=emu; name the link to wrap, for example link=udp");
		return -TERN_EADDR;
	}
	int rc = link_find(link ? link : "udp", &ops, error, error_bytes);
	if (rc)
		return rc;
	rc = ops->open(config, &inner);
	if (rc)
		return rc;
	rc = emu_wrap(inner, strcmp(direction, "reverse") ? &described.forward : &described.reverse, config->now_ns, out);
	if (rc) {
		ops->close(&inner);
		snprintf(error, error_bytes, "emu: link %s cannot be wrapped: it is reliable or does not carry datagrams, or there is no memory",
		         link ? link : "udp");
	}
	return rc;
}

static void free_item(struct emu_link *emu, struct frame *frame)
{
	struct emu_item *item = (struct emu_item *)((char *)frame - offsetof(struct emu_item, frame));

	slab_put(&emu->slab, item, item->alloc_bytes);
}

static void emu_close(struct link **out)
{
	struct emu_link *emu = (struct emu_link *)*out;

	*out = NULL;
	if (!emu)
		return;
	emu->ops.close(&emu->inner);
	while (emu->paths) {
		struct emu_path *path = emu->paths;
		emu->paths = path->next;
		free(path);
	}
	line_fini(&emu->line);
	slab_fini(&emu->slab);
	free(emu);
}

static int emu_path_open(struct link *base, const struct link_path_config *config, struct link_path **out)
{
	struct emu_link *emu = (struct emu_link *)base;
	struct emu_path *path = calloc(1, sizeof(*path));

	*out = NULL;
	if (!path)
		return -TERN_EIO;
	int rc = emu->ops.path_open(emu->inner, config, &path->inner);
	if (rc) {
		free(path);
		return rc;
	}
	path->base = *path->inner;
	path->base.link = base;
	path->base.owner = NULL;
	path->inner->owner = path;
	path->next = emu->paths;
	path->at = &emu->paths;
	if (path->next)
		path->next->at = &path->next;
	emu->paths = path;
	*out = &path->base;
	return 0;
}

static bool is_of_path(const struct line_item *item, const void *path)
{
	return ((const struct emu_item *)item)->frame.path == path;
}

/* Frames of the path were reapable since they were taken; those still held are lost. */
static void emu_path_close(struct link *base, struct link_path **out)
{
	struct emu_link *emu = (struct emu_link *)base;
	struct emu_path *path = (struct emu_path *)*out;
	uint32_t kept = 0;

	*out = NULL;
	if (!path)
		return;
	for (struct line_item *item = line_remove(&emu->line, is_of_path, path->inner), *next; item; item = next) {
		next = item->next;
		slab_put(&emu->slab, item, ((struct emu_item *)item)->alloc_bytes);
	}
	for (uint32_t i = 0; i < emu->out_n; i++) {
		if (emu->out[i]->path == path->inner)
			free_item(emu, emu->out[i]);
		else
			emu->out[kept++] = emu->out[i];
	}
	emu->out_n = kept;
	emu->ops.path_close(emu->inner, &path->inner);
	*path->at = path->next;
	if (path->next)
		path->next->at = path->at;
	free(path);
}

/* Fills out with what is due, in order. A change of path ends a burst, for a link that sends one path's frames in one batch. */
static void gather(struct emu_link *emu, uint64_t now_ns)
{
	while (emu->out_n < EMU_OUT_MAX && line_next_ns(&emu->line) <= now_ns) {
		struct emu_item *item = (struct emu_item *)line_pop(&emu->line);
		if (emu->out_n)
			emu->out[emu->out_n - 1]->burst_end = emu->out[emu->out_n - 1]->path != item->frame.path;
		item->frame.burst_end = 1;
		emu->out[emu->out_n++] = &item->frame;
	}
}

static void reap_inner(struct emu_link *emu, uint64_t now_ns)
{
	struct frame *back[64];

	for (size_t n; (n = emu->ops.reap(emu->inner, back, 64, now_ns));)
		for (size_t i = 0; i < n; i++)
			free_item(emu, back[i]);
}

/* Hands on what is due, and what the inner link did not take before. Ends when it takes nothing: bounded by what is held. */
static void step(struct emu_link *emu, uint64_t now_ns)
{
	size_t taken = 0;

	if (now_ns > emu->last_now_ns)
		emu->last_now_ns = now_ns;
	uint64_t next = line_next_ns(&emu->line);
	bool due = next <= now_ns && now_ns - next >= emu->hold_ns;
	reap_inner(emu, now_ns);
	do {
		if (due)
			gather(emu, now_ns);
		if (!emu->out_n)
			break;
		taken = emu->ops.tx(emu->inner, emu->out, emu->out_n, now_ns);
		emu->out_n -= (uint32_t)taken;
		memmove(emu->out, emu->out + taken, emu->out_n * sizeof(emu->out[0]));
		emu->counters.inner_calls++;
		emu->counters.inner_frames += taken;
		reap_inner(emu, now_ns);
	} while (taken);
}

static struct emu_item *new_item(struct emu_link *emu, const struct frame *tx)
{
	size_t bytes = sizeof(struct emu_item) + tx->wire_bytes;
	struct emu_item *item = slab_get(&emu->slab, bytes);

	if (!item) {
		emu->counters.memory_drops++;
		return NULL;
	}
	memcpy(&item->frame, tx, offsetof(struct frame, seg));
	item->alloc_bytes = (uint32_t)bytes;
	item->frame.path = ((const struct emu_path *)tx->path)->inner;
	item->frame.chunk = NULL;
	item->frame.room = NULL; /* nothing of the copy is before it */
	item->frame.depart_ns = 0;
	item->frame.segs = tx->segs > 1 ? 2 : 1; /* the header stays a segment of its own, for links that look at it */
	item->frame.seg[0] = (struct frame_seg){item->data, tx->seg[0].bytes, 0};
	item->frame.seg[1] = (struct frame_seg){item->data + tx->seg[0].bytes, tx->wire_bytes - tx->seg[0].bytes, 0};
	uint8_t *to = item->data;
	for (uint32_t i = 0; i < tx->segs; i++) {
		memcpy(to, tx->seg[i].addr, tx->seg[i].bytes);
		to += tx->seg[i].bytes;
	}
	return item;
}

static void send_one(struct emu_link *emu, const struct frame *tx, uint64_t now_ns)
{
	struct emu_path *path = (struct emu_path *)tx->path;
	struct element_verdict v;

	path->base.max_frame_bytes = path->inner->max_frame_bytes; /* the inner link lowers it */
	if (!tx->wire_bytes || tx->wire_bytes > path->base.max_frame_bytes) {
		emu->base.tx_dropped++;
		return;
	}
	element_push(&emu->element, now_ns, tx->wire_bytes, &v);
	emu->counters.ce_unmarked += v.copies && v.ce;
	for (int i = 0; i < v.copies; i++) {
		struct emu_item *item = new_item(emu, tx);
		if (item && line_push(&emu->line, &item->item, v.at_ns[i], !i && v.late)) {
			emu->counters.memory_drops++;
			slab_put(&emu->slab, item, item->alloc_bytes);
		}
	}
}

static size_t emu_tx(struct link *base, struct frame *const *frames, size_t n, uint64_t now_ns)
{
	struct emu_link *emu = (struct emu_link *)base;
	size_t i;

	base->tx_calls++;
	if (now_ns < emu->last_now_ns)
		now_ns = emu->last_now_ns;
	for (i = 0; i < n && emu->taken_n < EMU_TX_MAX; i++) {
		send_one(emu, frames[i], now_ns);
		emu->taken[(emu->taken_at + emu->taken_n++) % EMU_TX_MAX] = frames[i];
		base->tx_frames++;
		base->tx_bytes += frames[i]->wire_bytes;
	}
	if (emu->slab.used_bytes > emu->counters.held_bytes_max)
		emu->counters.held_bytes_max = emu->slab.used_bytes;
	step(emu, now_ns);
	return i;
}

static size_t emu_reap(struct link *base, struct frame **out, size_t n, uint64_t now_ns)
{
	struct emu_link *emu = (struct emu_link *)base;
	size_t i;

	step(emu, now_ns);
	for (i = 0; i < n && emu->taken_n; i++) {
		out[i] = emu->taken[emu->taken_at];
		emu->taken_at = (emu->taken_at + 1) % EMU_TX_MAX;
		emu->taken_n--;
	}
	return i;
}

static size_t emu_rx(struct link *base, struct rx_frame *out, size_t n, uint64_t now_ns)
{
	struct emu_link *emu = (struct emu_link *)base;
	size_t got;

	step(emu, now_ns);
	got = emu->ops.rx(emu->inner, out, n, now_ns);
	for (size_t i = 0; i < got; i++)
		if (out[i].path)
			out[i].path = &((struct emu_path *)out[i].path->owner)->base;
	base->rx_calls++;
	base->rx_frames = emu->inner->rx_frames;
	base->rx_bytes = emu->inner->rx_bytes;
	base->rx_dropped = emu->inner->rx_dropped;
	return got;
}

static void emu_rx_free(struct link *base, struct rx_frame *frames, size_t n)
{
	struct emu_link *emu = (struct emu_link *)base;

	emu->ops.rx_free(emu->inner, frames, n);
}

static int emu_from(struct link *base, const struct rx_frame *frame, struct link_addr *out)
{
	struct emu_link *emu = (struct emu_link *)base;

	return emu->ops.from(emu->inner, frame, out);
}

static void emu_path_reset(struct link *base, struct link_path *path)
{
	struct emu_link *emu = (struct emu_link *)base;

	emu->ops.path_reset(emu->inner, ((struct emu_path *)path)->inner);
}

static int emu_to(struct link *base, const struct rx_frame *frame, struct link_addr *out)
{
	struct emu_link *emu = (struct emu_link *)base;

	return emu->ops.to(emu->inner, frame, out);
}

static void emu_wait(struct link *base, bool armed, struct link_wait *out)
{
	struct emu_link *emu = (struct emu_link *)base;
	uint64_t next = line_next_ns(&emu->line);

	emu->ops.wait(emu->inner, armed, out);
	if (next != UINT64_MAX && next + emu->hold_ns < out->deadline_ns)
		out->deadline_ns = next + emu->hold_ns;
	if (emu->out_n && emu->last_now_ns + EMU_RETRY_NS < out->deadline_ns)
		out->deadline_ns = emu->last_now_ns + EMU_RETRY_NS;
}

void emu_counters(const struct link *link, struct emu_counters *out)
{
	const struct emu_link *emu = (const struct emu_link *)link;

	*out = emu->counters;
	element_counters(&emu->element, &out->element);
	out->held_frames = emu->line.n + emu->out_n;
}

const struct link_ops link_emu_ops = {
	.name = "emu",
	.open = emu_open,
	.close = emu_close,
	.path_open = emu_path_open,
	.path_close = emu_path_close,
	.path_reset = emu_path_reset,
	.tx = emu_tx,
	.reap = emu_reap,
	.rx = emu_rx,
	.rx_free = emu_rx_free,
	.from = emu_from,
	.to = emu_to,
	.wait = emu_wait,
};
