/* Links of a context, opened once for each way of use; contracts and what a path takes from them. Under the lock. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include "api/context.h"
#include "base/err.h"
#include "cc/cc.h"

_Static_assert(CONTRACT_NONE == TERN_CC_NONE, "both mean not known");

/* Whoever holds the same key trusts each other. */
static uint64_t link_domain(const tern_ctx *ctx)
{
	uint64_t h = 0xcbf29ce484222325u; /* FNV-1a (RFC 9923) */
	for (const char *at = ctx->key_file; *at; at++)
		h = (h ^ (uint8_t)*at) * 0x100000001b3u;
	return h;
}

static struct api_link *link_known(tern_ctx *ctx, const struct api_address *a)
{
	for (size_t i = 0; i < ctx->links_n; i++) {
		struct api_link *l = ctx->links[i];
		if (l->use == API_LINK_DIAL && !strcmp(l->address.scheme, a->scheme) && !strcmp(l->address.emu, a->emu) &&
		    !strcmp(l->address.options, a->options))
			return l;
	}
	return NULL;
}

/* "emu" wraps the scheme's link: it opens the inner one itself. */
static int link_start(tern_ctx *ctx, const struct api_address *a, const struct link_config *base, struct link **out)
{
	const struct link_ops *ops;
	struct link_config config = *base;
	char own[API_OPTIONS_MAX + 32], options[API_OPTIONS_MAX * 3 + sizeof(a->emu)];
	int err = link_find(a->scheme, &ops, config.error, config.error_bytes);
	snprintf(own, sizeof(own), a->mtu_bytes ? "%s%smtu=%u" : "%s", a->options, *a->options ? "&" : "", a->mtu_bytes); /* a port of its own may need it */
	size_t used = strlen(own);
	if (*a->ctl) /* that the address need not be the kernel's */
		snprintf(own + used, sizeof(own) - used, "%sctl=1", used ? "&" : "");
	snprintf(options, sizeof(options), "%s", own);
	if (!err && *a->emu) {
		snprintf(options, sizeof(options), "link=%s&emu=%s&emu_direction=%s%s%s", a->scheme, a->emu, config.listening ? "reverse" : "forward",
		         *own ? "&" : "", own);
		err = link_find("emu", &ops, config.error, config.error_bytes);
	}
	config.options = options;
	if (!err)
		err = ops->open(&config, out);
	(void)ctx;
	return err;
}

int api_watch(int set, int fd, bool is_edge)
{
	struct epoll_event ev = {.events = EPOLLIN | (is_edge ? EPOLLET : 0u), .data.fd = fd};
	/* asked again and again: a closed one leaves the set by itself, and its number may come back as another */
	return epoll_ctl(set, EPOLL_CTL_ADD, fd, &ev) && errno != EEXIST ? -1 : 0;
}

static void link_watch(tern_ctx *ctx, int set, const struct link_wait *wait)
{
	for (unsigned i = 0; i < (wait->parts ? wait->parts : 1u); i++) {
		int fd = wait->parts ? wait->part[i] : wait->fd;
		if (fd >= 0 && api_watch(set, fd, wait->parts && wait->edges >> i & 1))
			LOG(ctx, TERN_LOG_WARN, "epoll: %s", strerror(errno));
	}
}

void api_link_watch(tern_ctx *ctx, const struct link_wait *wait)
{
	if (ctx->has_thread) {
		link_watch(ctx, ctx->epoll_fd, wait);
		return;
	}
	for (struct list *at = list_first(&ctx->eps); at; at = list_next(&ctx->eps, at))
		link_watch(ctx, list_entry(at, tern_ep, link)->poll_fd, wait);
}

int api_link_open(tern_ctx *ctx, const struct api_address *a, uint8_t use, uint16_t port, struct api_link **out)
{
	char why[CONTROL_TEXT_MAX] = "";
	struct link_config config = {.host = use == API_LINK_LISTEN ? a->host : "",
	                             .port = port,
	                             .listening = use == API_LINK_LISTEN,
	                             .now_ns = ctx->now_ns,
	                             .domain = link_domain(ctx),
	                             .log = ctx->config.log,
	                             .log_arg = ctx->config.log_arg,
	                             .error = why,
	                             .error_bytes = sizeof(why)};
	*out = use == API_LINK_DIAL ? link_known(ctx, a) : NULL;
	if (*out) {
		(*out)->peers++;
		return 0;
	}
	if (ctx->links_n == LOOP_LINKS_MAX)
		return ERR(TERN_ELIMIT,
		           "%d links are open, one for each listener, emu and engine: close endpoints, or let peers share theirs",
		           LOOP_LINKS_MAX);
	struct api_link *l = calloc(1, sizeof(*l));
	if (!l)
		return ERR(TERN_ENOMEM, "no memory for a link");
	int err = link_start(ctx, a, &config, &l->link);
	if (!err && (l->link->caps & LINK_PLAIN) && !a->is_private) {
		snprintf(why, sizeof(why),
		        "%s:// carries payload unsealed: say private=1 in the address at both ends, if nobody else can read the network between",
		        a->scheme);
		l->link->ops->close(&l->link);
		err = -TERN_EPRIVATE;
	}
	if (err) {
		free(l);
		return ERR(err, "%s", *why ? why : tern_error_text(err));
	}
	l->use = use;
	l->peers = 1;
	l->address = *a;
	*why = 0;
	loop_link_add(ctx->loop, l->link, why, sizeof(why));
	if (*why)
		LOG(ctx, TERN_LOG_WARN, "%s", why);
	ctx->links[ctx->links_n++] = l;
	*out = l;
	return 0;
}

void api_link_close(tern_ctx *ctx, struct api_link **link)
{
	size_t i = 0;
	while (i < ctx->links_n && ctx->links[i] != *link)
		i++;
	if (i == ctx->links_n)
		return;
	ctx->links[i] = ctx->links[--ctx->links_n];
	loop_link_remove(ctx->loop, (*link)->link); /* closes the descriptor: epoll forgets it */
	free(*link);
	*link = NULL;
}

void api_link_drop(tern_ctx *ctx, struct api_link **link)
{
	if (--(*link)->peers == 0)
		api_link_close(ctx, link);
}

int api_contract_load(tern_ctx *ctx, const struct api_address *a, struct contract *out, bool *has)
{
	const char *file = a && *a->contract ? a->contract : a ? NULL : ctx->config.contract_file;
	struct control_error why;
	*has = false;
	if (!file) {
		*out = ctx->contract;
		*has = a && ctx->has_contract;
		return 0;
	}
	int err = contract_read(file, out, &why);
	if (err)
		return ERR(err, "%s", why.text);
	err = contract_valid(out, time(NULL), &why);
	if (err)
		return ERR(err, "%s: %s", file, why.text);
	*has = true;
	return 0;
}

/* One contract for all paths to an address. Whoever accepts does not know which paths share one, unless its own address says it: then all do (5.11). */
static unsigned api_contract_parts(const struct api_peer *peer)
{
	if (peer->address.paths)
		return peer->address.paths;
	return peer->accepted && peer->offered ? peer->offered : 1;
}

void api_path_params(tern_ctx *ctx, const struct api_peer *peer, struct loop_path_params *out)
{
	const struct contract *c = &peer->contract;
	uint32_t mtu = peer->address.mtu_bytes ? peer->address.mtu_bytes : ctx->config.mtu_bytes;
	*out = (struct loop_path_params){.cc = *peer->address.cc ? cc_find(peer->address.cc) : ctx->cc, .mtu_bytes = mtu};
	struct tern_cc_init *init = &out->cc_init;
	*init = (struct tern_cc_init){.contract_bytes_per_s = TERN_CC_NONE, .contract_rtt_ns = TERN_CC_NONE, .buffer_bytes = TERN_CC_NONE,
		.frame_bytes = mtu ? mtu : 1500};
	if (!peer->has_contract)
		return;
	/* each end's file says "up" of its own direction */
	unsigned parts = api_contract_parts(peer);
	init->contract_bytes_per_s = (uint64_t)((double)c->up_bytes_per_s * c->share) / parts;
	init->contract_rtt_ns = c->rtt_ns; /* CONTRACT_NONE is TERN_CC_NONE */
	init->buffer_bytes = c->buffer_bytes == CONTRACT_NONE ? CONTRACT_NONE : c->buffer_bytes / parts;
	init->protection_ns = c->switch_ns;
	init->loss_ceiling = c->loss_ceiling;
	init->dedicated = c->dedicated;
	out->layer_bytes = contract_layer_bytes(c, 28);
	if (!mtu)
		out->mtu_bytes = c->mtu_bytes;
}
