/* Opening and closing a context; the lock, the wake-up, the log, remembered failures. Called by users and by the rest of api/. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>
#include "api/context.h"
#include "base/clock.h"
#include "base/err.h"
#include "cc/cc.h"

enum { EXTENTS = 32768, RANGES = 16384, INBOUND = 8192 };
#define TIMEOUT_NS 10000000000ull

unsigned api_fork_count;

static void api_after_fork(void)
{
	api_fork_count++;
}

int api_fork_refuse(void)
{
	return ERR(TERN_EFORK, "the context was opened before fork; open one in the child");
}

__attribute__((constructor)) static void api_watch_forks(void)
{
	pthread_atfork(NULL, NULL, api_after_fork);
}

void tern_config_init(tern_config *config, size_t size_bytes)
{
	tern_config c = {.size_bytes = size_bytes, .max_peers = 1024, .max_ops = 4096, .unmatched_bytes = 16 << 20, .peer_timeout_ns = TIMEOUT_NS,
		.connect_timeout_ns = TIMEOUT_NS};
	const char *mtu = getenv("TERN_MTU");
	c.mtu_bytes = mtu ? (uint32_t)strtoul(mtu, NULL, 10) : 0;
	c.contract_file = getenv("TERN_CONTRACT");
	c.cc = getenv("TERN_CC");
	memset(config, 0, size_bytes);
	memcpy(config, &c, size_bytes < sizeof(c) ? size_bytes : sizeof(c));
}

void api_log(tern_ctx *ctx, int level, const char *file, int line, const char *fmt, ...)
{
	char text[CONTROL_TEXT_MAX];
	va_list args;
	if (!ctx->config.log)
		return;
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	ctx->config.log(ctx->config.log_arg, level, file, line, text);
}

void api_note(tern_ctx *ctx, uint64_t what, int err, const char *text)
{
	pthread_mutex_lock(&ctx->note_lock);
	struct api_note_text *n = &ctx->note[ctx->notes++ % API_NOTES];
	n->what = what;
	n->err = err;
	snprintf(n->text, sizeof(n->text), "%s", text);
	pthread_mutex_unlock(&ctx->note_lock);
}

int tern_error_detail(tern_ctx *ctx, uint64_t what, char *text, size_t bytes)
{
	if (!text || !bytes)
		return -TERN_EINVAL;
	*text = 0;
	if (!ctx || !what) {
		snprintf(text, bytes, "%s", err_text());
		return *text ? 0 : -TERN_ENOENT;
	}
	int err = -TERN_ENOENT;
	pthread_mutex_lock(&ctx->note_lock);
	for (uint32_t i = 0; i < API_NOTES && err; i++) {
		const struct api_note_text *n = &ctx->note[(ctx->notes - 1 - i) % API_NOTES];
		if (n->what == what && n->text[0]) {
			snprintf(text, bytes, "%s", n->text);
			err = 0;
		}
	}
	pthread_mutex_unlock(&ctx->note_lock);
	return err;
}

void api_lock(tern_ctx *ctx)
{
	atomic_fetch_add(&ctx->waiters, 1);
	api_mutex_take(&ctx->lock);
	atomic_fetch_sub(&ctx->waiters, 1);
	ctx->now_ns = clock_now_ns();
	ctx->loop->now_ns = ctx->now_ns;
}

void api_unlock(tern_ctx *ctx)
{
	api_mutex_drop(&ctx->lock);
	api_wake(ctx);
}

void api_wake(tern_ctx *ctx)
{
	uint64_t one = 1;
	if (!atomic_load(&ctx->sleeping))
		return;
	if (write(ctx->wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		LOG(ctx, TERN_LOG_WARN, "wake-up failed: %s", strerror(errno));
	atomic_store(&ctx->woken, true);
}

/* The caller's struct may be older or newer than ours: what it does not have keeps its default. */
static int api_config(tern_ctx *ctx, const tern_config *config)
{
	tern_config_init(&ctx->config, sizeof(ctx->config));
	if (config) {
		if (config->size_bytes < offsetof(tern_config, unmatched_bytes))
			return ERR(TERN_EINVAL, "config.size_bytes is %zu; call tern_config_init first", config->size_bytes);
		memcpy(&ctx->config, config, config->size_bytes < sizeof(*config) ? config->size_bytes : sizeof(*config));
	}
	/* a struct of zeros asks for no peer that dies at once */
	if (!ctx->config.peer_timeout_ns)
		ctx->config.peer_timeout_ns = TIMEOUT_NS;
	if (!ctx->config.connect_timeout_ns)
		ctx->config.connect_timeout_ns = TIMEOUT_NS;
	const tern_config *c = &ctx->config;
	if (!c->max_ops || c->max_ops > 4 << 20)
		return ERR(TERN_EINVAL, "config.max_ops is %u; must be 1 to 4194304", c->max_ops);
	if (!c->max_peers || c->max_peers > 32768)
		return ERR(TERN_EINVAL, "config.max_peers is %u; must be 1 to 32768", c->max_peers);
	if (c->mtu_bytes && (c->mtu_bytes < 1280 || c->mtu_bytes > 65535))
		return ERR(TERN_EINVAL, "config.mtu_bytes (or $TERN_MTU) is %u; must be 1280 to 65535, or 0 to find it", c->mtu_bytes);
	if (c->unmatched_bytes < 65536)
		return ERR(TERN_EINVAL, "config.unmatched_bytes is %llu; must be at least 65536", (unsigned long long)c->unmatched_bytes);
	ctx->cc = cc_find(c->cc ? c->cc : "lightpath");
	if (!ctx->cc)
		return ERR(TERN_EINVAL, "congestion control \"%s\": unknown; there are lightpath, cubic and fixed", c->cc);
	ctx->config.size_bytes = sizeof(ctx->config);
	return 0;
}

/* A missing default key is no failure yet: only listening and connecting need one. A bad one, or a named one that is missing, is. */
static int api_key(tern_ctx *ctx, uint8_t *key)
{
	struct control_error why;
	bool named = ctx->config.key_file || getenv("TERN_KEY");
	int err = control_key_path(ctx->config.key_file, ctx->key_file, sizeof(ctx->key_file), &why);
	if (!err)
		err = control_key_read(ctx->key_file, key, &why);
	ctx->has_key = !err;
	if (!err)
		return 0;
	snprintf(ctx->key_trouble, sizeof(ctx->key_trouble), "%s", why.text);
	if (err == -TERN_ENOENT && !named)
		return 0;
	return ERR(TERN_EKEY, "%s", why.text);
}

static int api_open_control(tern_ctx *ctx, const uint8_t *key)
{
	struct control_error why;
	struct control_config cc = {.site_key = ctx->has_key ? key : NULL,
	                            .epoch = ctx->epoch,
	                            /* strangers that do not finish their handshake must not take the peers' places */
	                            .max_conns = ctx->config.max_peers * 2 + 2 * CONTROL_HANDSHAKES_MAX,
	                            .accept_timeout_ns = ctx->config.connect_timeout_ns,
	                            .events = &api_control_events,
	                            .arg = ctx,
	                            .log = ctx->config.log,
	                            .log_arg = ctx->config.log_arg};
	memcpy(cc.node_id, ctx->node_id, sizeof(cc.node_id));
	int err = control_open(&cc, &ctx->control, &why);
	return err ? ERR(err, "%s", why.text) : 0;
}

/* Each peer may have all its paths, as long as flow ids reach; thousands of peers share what there is. */
static uint32_t api_paths(const tern_config *c)
{
	return c->max_peers <= 65536 / PEER_PATHS_MAX ? c->max_peers * PEER_PATHS_MAX : 65536;
}

static int api_open_pools(tern_ctx *ctx)
{
	const tern_config *c = &ctx->config;
	struct loop_config lc = {.max_peers = c->max_peers,
	                         .max_paths = api_paths(c),
	                         .max_inbound = INBOUND,
	                         .max_ops = c->max_ops,
	                         .unmatched_bytes = c->unmatched_bytes,
	                         .extents = EXTENTS,
	                         .ranges = RANGES,
	                         .peer_timeout_ns = c->peer_timeout_ns,
	                         .seed = ctx->epoch ^ 0x7465726e,
	                         .now_ns = clock_now_ns()};
	if (api_slab_open(&ctx->ops, sizeof(struct api_op), c->max_ops) ||
	    api_slab_open(&ctx->lists, sizeof(struct api_list), API_LIST_SLOTS) ||
	    api_slab_open(&ctx->injects, API_INJECT_BYTES, API_INJECT_SLOTS) || api_slab_open(&ctx->nodes, sizeof(struct api_node), api_nodes(ctx)))
		return ERR(TERN_ENOMEM, "no memory for %u operations", c->max_ops);
	ctx->lists.on_put = api_list_put;
	ctx->command_slots = api_ring_open(&ctx->commands, c->max_ops * 3);
	ctx->peers = calloc(c->max_peers, sizeof(*ctx->peers));
	ctx->peer_gen = calloc(c->max_peers, sizeof(*ctx->peer_gen));
	ctx->peer_ep = calloc(c->max_peers, sizeof(*ctx->peer_ep));
	if (!ctx->command_slots || !ctx->peers || !ctx->peer_gen || !ctx->peer_ep || loop_open(&lc, &ctx->loop))
		return ERR(TERN_ENOMEM, "no memory for %u peers and %llu bytes of unmatched messages", c->max_peers,
		           (unsigned long long)c->unmatched_bytes);
	return 0;
}

static int api_open_fds(tern_ctx *ctx)
{
	ctx->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (ctx->wake_fd >= 0 && ctx->config.flags & TERN_OWN_THREAD)
		ctx->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (ctx->wake_fd < 0 || (ctx->config.flags & TERN_OWN_THREAD && (ctx->epoll_fd < 0 || api_watch(ctx->epoll_fd, ctx->wake_fd, false))))
		return ERR(TERN_EIO, "eventfd or epoll: %s; raise `ulimit -n`", strerror(errno));
	return 0;
}

static int api_open_all(tern_ctx *ctx, const tern_config *config)
{
	uint8_t key[CONTROL_KEY_BYTES];
	int err = api_config(ctx, config);
	if (err)
		return err;
	if (getrandom(ctx->node_id, sizeof(ctx->node_id), 0) < 0 || getrandom(&ctx->epoch, sizeof(ctx->epoch), 0) < 0)
		return ERR(TERN_EIO, "getrandom: %s", strerror(errno));
	err = api_key(ctx, key);
	if (!err)
		err = api_contract_load(ctx, NULL, &ctx->contract, &ctx->has_contract);
	if (!err)
		err = api_open_fds(ctx);
	if (!err)
		err = api_open_pools(ctx);
	if (!err)
		err = api_open_control(ctx, key);
	explicit_bzero(key, sizeof(key));
	if (err || !(ctx->config.flags & TERN_OWN_THREAD))
		return err;
	if (pthread_create(&ctx->thread, NULL, api_thread, ctx))
		return ERR(TERN_ENOMEM, "no thread: %s", strerror(errno));
	ctx->has_thread = true;
	return 0;
}

static void api_free(tern_ctx *ctx)
{
	loop_close(&ctx->loop);
	for (size_t i = 0; i < ctx->links_n; i++)
		free(ctx->links[i]);
	api_slab_close(&ctx->ops);
	api_slab_close(&ctx->lists);
	api_slab_close(&ctx->injects);
	api_slab_close(&ctx->nodes);
	free(ctx->command_slots);
	free(ctx->peers);
	free(ctx->peer_gen);
	free(ctx->peer_ep);
	const int fds[] = {ctx->wake_fd, ctx->epoll_fd};
	for (size_t i = 0; i < 2; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	pthread_mutex_destroy(&ctx->note_lock);
	free(ctx);
}

int tern_open(const tern_config *config, tern_ctx **out)
{
	if (!out)
		return ERR(TERN_EINVAL, "tern_open: out must not be NULL");
	*out = NULL;
	tern_ctx *ctx = calloc(1, sizeof(*ctx));
	if (!ctx)
		return ERR(TERN_ENOMEM, "no memory for a context");
	ctx->wake_fd = ctx->epoll_fd = -1;
	ctx->fork_count = api_fork_count;
	ctx->next_id = 1;
	list_init(&ctx->eps);
	list_init(&ctx->revokes);
	list_init(&ctx->mems);
	pthread_mutex_init(&ctx->note_lock, NULL);
	int err = api_open_all(ctx, config);
	if (err) {
		control_close(&ctx->control);
		api_free(ctx);
		return err;
	}
	*out = ctx;
	return 0;
}

int tern_close(tern_ctx **ctxp)
{
	if (!ctxp || !*ctxp)
		return -TERN_EINVAL;
	tern_ctx *ctx = *ctxp;
	*ctxp = NULL;
	if (api_forked(ctx))
		return -TERN_EFORK; /* the parent's threads and locks are not here: nothing can be taken down safely */
	struct list *at;
	while ((at = list_first(&ctx->eps))) {
		tern_ep *ep = list_entry(at, tern_ep, link);
		tern_ep_close(&ep);
	}
	atomic_store(&ctx->stop, true);
	if (ctx->has_thread) {
		uint64_t one = 1;
		if (write(ctx->wake_fd, &one, sizeof(one)) < 0)
			LOG(ctx, TERN_LOG_WARN, "wake-up failed: %s", strerror(errno));
		pthread_join(ctx->thread, NULL);
	}
	control_close(&ctx->control);
	for (uint32_t i = 0; i < ctx->config.max_peers; i++)
		if (ctx->peers[i])
			api_peer_forget(ctx->peers[i]);
	api_free(ctx);
	return 0;
}
