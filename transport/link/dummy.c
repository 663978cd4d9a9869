/* What a link does that has no function of its own: link_fill puts these into the empty slots of its table. Called by find.c; knows no link. */
#include <string.h>
#include "link/link.h"
#include "tern/error.h"

static int dummy_path_open(struct link *link, const struct link_path_config *config, struct link_path **out)
{
	(void)link, (void)config;
	*out = NULL;
	return -TERN_ELIMIT;
}

static void dummy_path_close(struct link *link, struct link_path **path)
{
	(void)link;
	*path = NULL;
}

static void dummy_path_reset(struct link *link, struct link_path *path)
{
	(void)link, (void)path;
}

static int dummy_mem_map(struct link *link, const struct mem_what *what, uint32_t *key, char *why, size_t why_bytes)
{
	(void)link, (void)what, (void)why, (void)why_bytes;
	*key = 0;
	return 0;
}

static void dummy_mem_unmap(struct link *link, uint32_t key)
{
	(void)link, (void)key;
}

static size_t dummy_tx(struct link *link, struct frame *const *frames, size_t n, uint64_t now_ns)
{
	(void)link, (void)frames, (void)n, (void)now_ns;
	return 0;
}

static size_t dummy_reap(struct link *link, struct frame **out, size_t n, uint64_t now_ns)
{
	(void)link, (void)out, (void)n, (void)now_ns;
	return 0;
}

static size_t dummy_rx(struct link *link, struct rx_frame *out, size_t n, uint64_t now_ns)
{
	(void)link, (void)out, (void)n, (void)now_ns;
	return 0;
}

static void dummy_rx_free(struct link *link, struct rx_frame *frames, size_t n)
{
	(void)link, (void)frames, (void)n;
}

static int dummy_from(struct link *link, const struct rx_frame *frame, struct link_addr *out)
{
	(void)link, (void)frame;
	memset(out, 0, sizeof(*out));
	return -TERN_ENOENT;
}

static int dummy_to(struct link *link, const struct rx_frame *frame, struct link_addr *out)
{
	(void)link, (void)frame;
	memset(out, 0, sizeof(*out));
	return -TERN_ENOENT;
}

static int dummy_rx_post(struct link *link, struct link_path *path, const struct link_post *post)
{
	(void)link, (void)path, (void)post;
	return -TERN_EINVAL;
}

static void dummy_rx_revoke(struct link *link, struct link_path *path)
{
	(void)link, (void)path;
}

static int dummy_expose(struct link *link, struct link_path *path, const struct link_expose *what, uint32_t *id)
{
	(void)link, (void)path, (void)what;
	*id = 0;
	return -TERN_EINVAL;
}

static void dummy_hide(struct link *link, uint32_t id)
{
	(void)link, (void)id;
}

static size_t dummy_exposed(struct link *link, struct link_exposed *out, size_t n, uint64_t now_ns)
{
	(void)link, (void)out, (void)n, (void)now_ns;
	return 0;
}

static size_t dummy_done(struct link *link, struct link_done *out, size_t n, uint64_t now_ns)
{
	(void)link, (void)out, (void)n, (void)now_ns;
	return 0;
}

static void dummy_wait(struct link *link, bool armed, struct link_wait *out)
{
	(void)link, (void)armed;
	*out = (struct link_wait){.fd = -1, .deadline_ns = UINT64_MAX};
}

void link_fill(const struct link_ops *ops, struct link_ops *out)
{
	*out = *ops;
#define FILL(slot) out->slot = out->slot ? out->slot : dummy_##slot
	FILL(path_open);
	FILL(path_close);
	FILL(path_reset);
	FILL(mem_map);
	FILL(mem_unmap);
	FILL(tx);
	FILL(reap);
	FILL(rx);
	FILL(rx_free);
	FILL(from);
	FILL(to);
	FILL(rx_post);
	FILL(rx_revoke);
	FILL(expose);
	FILL(hide);
	FILL(exposed);
	FILL(done);
	FILL(wait);
#undef FILL
}
