/* The rdma link: frames over RC or UC queue pairs, payloads straight into the peer's exposed memory. Loaded as libtern-rdma.so when an rdma://
 * address is used; called by the loop through link_rdma_ops. This file opens, closes, steps and waits; the rest is listed in rdma.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>
#include "link/option.h"
#include "link/rdma/rdma.h"
#include "tern/error.h"
#include "tern/tern.h"

extern const struct link_ops link_rdma_ops;

void rdma_trouble(struct rdma_link *l, const char *format, ...)
{
	va_list list;
	va_start(list, format);
	vsnprintf(l->base.trouble, sizeof(l->base.trouble), format, list);
	va_end(list);
}

const char *rdma_addr_text(const void *sockaddr, char *out, size_t room)
{
	struct sockaddr_storage a;
	char host[64];

	memcpy(&a, sockaddr, sizeof(((struct link_addr *)0)->data));
	if (a.ss_family == AF_INET6) {
		const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)&a;
		snprintf(out, room, "[%s]:%u", inet_ntop(AF_INET6, &six->sin6_addr, host, sizeof(host)), ntohs(six->sin6_port));
	} else {
		const struct sockaddr_in *four = (const struct sockaddr_in *)&a;
		snprintf(out, room, "%s:%u", inet_ntop(AF_INET, &four->sin_addr, host, sizeof(host)), ntohs(four->sin_port));
	}
	return out;
}

uint64_t rdma_now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int rdma_option_number(const struct link_config *config, const char *name, uint32_t least, uint32_t most, uint32_t *out)
{
	char text[16], *end;

	if (!link_option(config->options, name, text, sizeof(text)))
		return 0;
	unsigned long value = strtoul(text, &end, 10);
	if (!*text || *text == '-' || *end || value < least || value > most) {
		snprintf(config->error, config->error_bytes, "rdma: %s=%s: give %u to %u", name, text, least, most);
		return -TERN_EINVAL;
	}
	*out = (uint32_t)value;
	return 0;
}

static int rdma_option_word(const struct link_config *config, const char *name, const char *no, const char *yes, bool *out)
{
	char text[16];

	if (!link_option(config->options, name, text, sizeof(text)))
		return 0;
	*out = !strcmp(text, yes);
	if (*out || !strcmp(text, no))
		return 0;
	snprintf(config->error, config->error_bytes, "rdma: %s=%s: give %s or %s", name, text, no, yes);
	return -TERN_EINVAL;
}

static int rdma_option_mode(const struct link_config *config, uint8_t *out)
{
	static const char *const names[] = {[RDMA_MODE_AUTO] = "auto", [RDMA_MODE_RC] = "rc", [RDMA_MODE_UC] = "uc"};
	char text[16];

	*out = RDMA_MODE_AUTO;
	if (!link_option(config->options, "mode", text, sizeof(text)))
		return 0;
	for (uint8_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(text, names[i])) {
			*out = i;
			return 0;
		}
	snprintf(config->error, config->error_bytes, "rdma: mode=%s: give auto, rc or uc", text);
	return -TERN_EINVAL;
}

static uint32_t rdma_power_of_two(uint32_t n)
{
	while (n & (n - 1))
		n += n & -n;
	return n;
}

/* ctl is of the control connection, which the API tells every link. */
static int rdma_options(struct rdma_link *l, const struct link_config *config)
{
	static const char *const names = "dev gid mode lanes sq rq timeout odp isolation mtu ctl";
	struct rdma_options *o = &l->options;
	uint32_t gid = UINT32_MAX;
	size_t bytes;
	int err;

	const char *other = link_option_unknown(config->options, names, &bytes);
	if (other) {
		snprintf(config->error, config->error_bytes, "rdma: option %.*s: unknown; there are %s",
		         (int)(bytes < 64 ? bytes : 64), other, names);
		return -TERN_EINVAL;
	}
	*o = (struct rdma_options){.lanes = 1, .timeout = RDMA_TIMEOUT_DEFAULT};
	link_option(config->options, "dev", o->dev, sizeof(o->dev));
	if ((err = rdma_option_number(config, "gid", 0, 65535, &gid)) || (err = rdma_option_number(config, "lanes", 1, RDMA_LANES_MAX, &o->lanes)) ||
	        (err = rdma_option_number(config, "sq", 16, 32768, &o->sq)) || (err = rdma_option_number(config, "rq", 16, 32768, &o->rq)) ||
	        (err = rdma_option_number(config, "timeout", 8, 21, &o->timeout)) ||
	        (err = rdma_option_mode(config, &o->mode)) || (err = rdma_option_word(config, "odp", "0", "1", &o->odp)) ||
	        (err = rdma_option_word(config, "isolation", "window", "mr", &o->isolation_mr)))
		return err;
	o->gid = gid == UINT32_MAX ? -1 : (int)gid;
	if (o->sq)
		o->sq = rdma_power_of_two(o->sq);
	return 0;
}

/* The next name of a list with commas. @return where the one behind it begins, NULL: there was none */
static const char *rdma_device_next(const char *at, char *name, size_t room)
{
	size_t bytes = strcspn(at, ",");
	if (!*at)
		return NULL;
	snprintf(name, room, "%.*s", (int)bytes, at);
	return at + bytes + (at[bytes] == ',');
}

static bool rdma_names(const char *list, const char *wanted)
{
	char name[160];
	while ((list = rdma_device_next(list, name, sizeof(name))))
		if (!strcmp(name, wanted))
			return true;
	return false;
}

bool rdma_uses_device(const struct rdma_link *l, const char *name)
{
	return !*l->options.dev || rdma_names(l->options.dev, name);
}

/* Asked before librdmacm is touched: it would write to stderr. */
static int rdma_devices(struct rdma_link *l, const struct link_config *config)
{
	int n = 0;
	struct ibv_device **list = ibv_get_device_list(&n);
	char names[160] = "", name[sizeof(l->options.dev)];

	l->base.max_segments = FRAME_SEGS_MAX;
	for (int i = 0; list && i < n; i++) {
		struct ibv_device_attr attr;
		struct ibv_context *verbs = ibv_open_device(list[i]);
		if (verbs && !ibv_query_device(verbs, &attr) && (uint32_t)attr.max_sge + 1 < l->base.max_segments)
			l->base.max_segments = (uint32_t)attr.max_sge + 1;
		if (verbs)
			ibv_close_device(verbs);
		size_t used = strlen(names);
		snprintf(names + used, sizeof(names) - used, "%s%s", used ? "," : "", ibv_get_device_name(list[i]));
	}
	if (list)
		ibv_free_device_list(list);
	for (const char *at = l->options.dev; n && (at = rdma_device_next(at, name, sizeof(name)));)
		if (!rdma_names(names, name)) {
			snprintf(config->error, config->error_bytes, "rdma: dev=%s: no such device; there are %s", name, names);
			return -TERN_EADDR;
		}
	if (n)
		return 0;
	snprintf(config->error, config->error_bytes,
	        "rdma: this machine has no RDMA device (`ibv_devices` lists none): load the NIC's driver and install "
	        "ibverbs-providers; without an RDMA NIC: modprobe rdma_rxe; rdma link add rxe0 type rxe netdev <interface>");
	return -TERN_EIO;
}

static int rdma_host(struct rdma_link *l, const struct link_config *config)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;

	if (config->host && *config->host) {
		int err = getaddrinfo(config->host, NULL, &hints, &found);
		if (err) {
			snprintf(config->error, config->error_bytes, "rdma: %.64s: %s", config->host, gai_strerror(err));
			return -TERN_EADDR;
		}
		memcpy(&l->host, found->ai_addr, found->ai_addrlen);
		freeaddrinfo(found);
		return 0;
	}
	char name[sizeof(l->options.dev)];
	for (const char *at = l->options.dev; (at = rdma_device_next(at, name, sizeof(name))); l->n_device_hosts++) {
		struct sockaddr_storage *to = &l->device_host[l->n_device_hosts];
		if (l->n_device_hosts == RDMA_PORTS_MAX) {
			snprintf(config->error, config->error_bytes, "rdma: dev=%s: a link uses at most %d devices", l->options.dev, RDMA_PORTS_MAX);
			return -TERN_EADDR;
		}
		if (!rdma_cm_device_address(name, l->options.gid, to, config->error, config->error_bytes))
			return -TERN_EADDR;
	}
	if (l->n_device_hosts == 1) /* a listener of several listens on all and looks where a request comes in */
		l->host = l->device_host[0];
	return 0;
}

static int rdma_watch(struct rdma_link *l, int fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
	int flags = fcntl(fd, F_GETFL);

	return fcntl(fd, F_SETFL, flags | O_NONBLOCK) || fcntl(fd, F_SETFD, FD_CLOEXEC) || epoll_ctl(l->epoll, EPOLL_CTL_ADD, fd, &event) ? -1 : 0;
}

static int rdma_channels(struct rdma_link *l, const struct link_config *config)
{
	l->epoll = epoll_create1(EPOLL_CLOEXEC);
	l->events = rdma_create_event_channel();
	if (!l->events) {
		snprintf(config->error, config->error_bytes, "rdma: no connection manager: %s; modprobe rdma_ucm", strerror(errno));
		return -TERN_EIO;
	}
	if (l->epoll < 0 || rdma_watch(l, l->events->fd)) {
		snprintf(config->error, config->error_bytes, "rdma: no descriptor to wait on: %s", strerror(errno));
		return -TERN_EIO;
	}
	return 0;
}

static void rdma_port_close(struct rdma_link *l, struct rdma_port *port)
{
	rdma_windows_close(port);
	if (port->frames)
		rdma_rq_free(port->frames);
	if (port->lanes)
		rdma_rq_free(port->lanes);
	if (port->channel)
		ibv_destroy_comp_channel(port->channel);
	rdma_device_put(l->domain, port->device);
}

struct rdma_port *rdma_port_get(struct rdma_link *l, const char *name)
{
	char why[200] = "";

	for (uint32_t i = 0; i < l->n_ports; i++)
		if (!strcmp(l->port[i].device->name, name))
			return &l->port[i];
	if (l->n_ports == RDMA_PORTS_MAX) {
		rdma_trouble(l, "rdma: a link uses at most %d devices", RDMA_PORTS_MAX);
		return NULL;
	}
	struct rdma_port *port = &l->port[l->n_ports];
	memset(port, 0, sizeof(*port));
	if (rdma_device_get(l->domain, name, &port->device, why, sizeof(why))) {
		rdma_trouble(l, "rdma: %s", why);
		return NULL;
	}
	port->channel = ibv_create_comp_channel(port->device->verbs);
	if (!port->channel || rdma_watch(l, port->channel->fd)) {
		rdma_trouble(l, "rdma: device %s gives no completion channel: %s", name, strerror(errno));
		rdma_port_close(l, port);
		return NULL;
	}
	l->n_ports++;
	return port;
}

int rdma_port_share(struct rdma_link *l, struct rdma_port *port)
{
	if (!port->frames)
		port->frames = rdma_rq_open(l, port, l->options.rq ? l->options.rq : RDMA_RQ_RC, RDMA_FRAME_BYTES, true);
	if (port->frames && !port->lanes)
		port->lanes = rdma_rq_open(l, port, RDMA_LANE_RQ, RDMA_LANE_FRAME_BYTES, true);
	return port->lanes ? 0 : -TERN_ENOMEM;
}

static void rdma_close(struct link **link)
{
	struct rdma_link *l = (struct rdma_link *)*link;

	if (!l)
		return;
	while (l->n_paths) {
		struct link_path *p = &l->paths[l->n_paths - 1]->base;
		rdma_path_close(*link, &p);
	}
	if (l->listener)
		rdma_destroy_id(l->listener);
	while (l->dead) {
		struct rdma_rq *rq = l->dead;
		l->dead = rq->next_dead;
		rdma_rq_free(rq);
	}
	while (l->n_ports)
		rdma_port_close(l, &l->port[--l->n_ports]);
	if (l->events)
		rdma_destroy_event_channel(l->events);
	if (l->epoll >= 0)
		close(l->epoll);
	if (l->domain)
		rdma_domain_put(l->domain);
	free(l->paths);
	free(l->back);
	free(l->exposures);
	free(l);
	*link = NULL;
}

static struct rdma_link *rdma_alloc(const struct link_config *config)
{
	struct rdma_link *l = calloc(1, sizeof(*l));
	if (!l)
		return NULL;
	l->base.ops = &link_rdma_ops;
	l->listening = config->listening;
	link_log_open(&l->base, config);
	l->epoll = -1;
	l->pending_end = &l->pending;
	l->telling_end = &l->telling;
	l->step_ns = UINT64_MAX;
	l->paths = calloc(RDMA_PATHS_MAX, sizeof(*l->paths));
	l->back = calloc(RDMA_TAKEN_MAX, sizeof(*l->back));
	l->exposures = calloc(RDMA_EXPOSED_MAX, sizeof(*l->exposures));
	struct link *base = &l->base;
	if (!l->paths || !l->back || !l->exposures)
		rdma_close(&base);
	return base ? l : NULL;
}

static int rdma_open(const struct link_config *given, struct link **out)
{
	struct link_config config = *given;
	char none[1];
	int err;

	*out = NULL;
	if (!config.error || !config.error_bytes) {
		config.error = none;
		config.error_bytes = sizeof(none);
	}
	struct rdma_link *l = rdma_alloc(&config);
	if (!l) {
		snprintf(config.error, config.error_bytes, "rdma: no memory");
		return -TERN_ENOMEM;
	}
	if ((err = rdma_options(l, &config)) || (err = rdma_devices(l, &config)) || (err = rdma_host(l, &config)) ||
	        (err = rdma_channels(l, &config)))
		goto fail;
	err = rdma_domain_get(config.domain, l->options.odp, &l->domain);
	if (!err && l->listening)
		err = rdma_cm_listen(l, config.port, config.error, config.error_bytes);
	if (err)
		goto fail;
	l->base.mem_scope = l->domain;
	l->base.caps = LINK_BYTES | LINK_MAPS | LINK_MAPS_OPS | LINK_WRITES | LINK_CONNECTS | LINK_PLAIN | LINK_TX_ZERO_COPY;
	*out = &l->base;
	return 0;
fail:;
	struct link *base = &l->base;
	rdma_close(&base);
	return err;
}

static int rdma_mem_map(struct link *link, const struct mem_what *what, uint32_t *key, char *why, size_t why_bytes)
{
	char words[320] = "";
	int err = rdma_region_get(((struct rdma_link *)link)->domain, what, key, words, sizeof(words));
	if (err)
		snprintf(why, why_bytes, "rdma: %s", words);
	return err;
}

static void rdma_mem_unmap(struct link *link, uint32_t key)
{
	rdma_region_put(((struct rdma_link *)link)->domain, key);
}

static int rdma_from(struct link *link, const struct rx_frame *frame, struct link_addr *out)
{
	const struct rdma_link *l = (const struct rdma_link *)link;
	const struct rdma_recv *recv = frame->lent;
	const struct rdma_path *p = recv ? recv->path : NULL;

	for (uint32_t i = 0; !recv && i < l->n_paths; i++) /* nothing is lent of a placed frame: its path may be closed */
		if (&l->paths[i]->base == frame->path)
			p = l->paths[i];
	if (!p)
		return -TERN_ENOENT;
	*out = p->base.remote;
	return 0;
}

static int rdma_rx_post(struct link *link, struct link_path *path, const struct link_post *post)
{
	(void)link, (void)path, (void)post;
	return -TERN_EINVAL;
}

static void rdma_rx_revoke(struct link *link, struct link_path *path)
{
	(void)link, (void)path;
}

/* The descriptors fired, or may have: which completion queues have to be armed again. @return false: none */
static bool rdma_disarm(struct rdma_link *l)
{
	struct ibv_cq *cq;
	void *context;
	bool took = false;

	for (uint32_t i = 0; i < l->n_ports; i++) {
		uint32_t armed = 0; /* no more events than queues that are armed: a look that must fail costs a system call as well */
		for (uint32_t k = 0; k < l->n_paths; k++)
			armed += l->paths[k]->port == &l->port[i] && l->paths[k]->cq_armed != RDMA_UNARMED;
		for (; armed && !ibv_get_cq_event(l->port[i].channel, &cq, &context); armed--) {
			struct rdma_path *p = context;
			p->cq_armed = RDMA_UNARMED;
			if (++p->cq_unacked == RDMA_UNACKED_MAX) {
				ibv_ack_cq_events(cq, p->cq_unacked);
				p->cq_unacked = 0;
			}
			took = true;
		}
	}
	l->is_armed = false;
	return took;
}

/* Once a loop's step: reap, rx, done and exposed ask for it if they have nothing and the time is another. */
void rdma_step(struct rdma_link *l, uint64_t now_ns)
{
	if (now_ns == l->step_ns && !l->is_armed)
		return;
	l->step_ns = now_ns;
	if (l->is_armed)
		l->looks_cm |= !rdma_disarm(l); /* then it is the connection manager that has woken us */
	uint64_t since_ns = now_ns - l->cm_ns;
	if (since_ns >= RDMA_CM_SETTLED_NS || (l->looks_cm && !l->is_settled) || (since_ns >= RDMA_CM_PERIOD_NS && (l->looks_cm || !l->is_settled))) {
		l->looks_cm = false;
		l->cm_ns = now_ns;
		rdma_cm_events(l, now_ns);
	}
	l->is_settled = true;
	for (uint32_t i = 0; i < l->n_paths; i++) {
		rdma_path_step(l->paths[i], now_ns);
		l->is_settled &= l->paths[i]->state == RDMA_PATH_UP;
	}
	for (uint32_t i = 0; i < l->n_ports; i++) {
		if (l->port[i].frames && rdma_rq_is_low(l->port[i].frames))
			rdma_rq_post(l->port[i].frames);
		if (l->port[i].lanes && rdma_rq_is_low(l->port[i].lanes))
			rdma_rq_post(l->port[i].lanes);
	}
}

static bool rdma_armed(const struct rdma_link *l)
{
	for (uint32_t i = 0; i < l->n_paths; i++)
		if (l->paths[i]->cq_armed != RDMA_UNARMED)
			return true;
	return false;
}

/* Arms, then looks once more: what came between the last look and the arming would not fire. A queue that is armed already may have fired, and another sleeper may
 * have been told instead of this one: its event is taken first. So each arming stands for one event to come, and the channels are watched for edges. */
static void rdma_wait(struct link *link, bool armed, struct link_wait *out)
{
	struct rdma_link *l = (struct rdma_link *)link;

	*out = (struct link_wait){.fd = l->epoll, .deadline_ns = UINT64_MAX};
	if (armed) {
		if (rdma_armed(l))
			rdma_disarm(l);
		for (uint32_t i = 0; i < l->n_paths && !l->pending; i++)
			if (l->paths[i]->cq)
				rdma_path_arm(l->paths[i]);
		out->is_same = l->said_ports == l->n_ports + 1;
		l->said_ports = l->n_ports + 1;
		l->is_armed = !l->pending;
		if (l->n_ports < LINK_PARTS_MAX) {
			for (uint32_t i = 0; i < l->n_ports; i++)
				out->part[out->parts++] = l->port[i].channel->fd;
			out->edges = (uint8_t)((1u << l->n_ports) - 1);
			out->part[out->parts++] = l->events->fd;
		}
	}
	bool failing = false;
	for (uint32_t i = 0; i < l->n_paths; i++) {
		failing |= l->paths[i]->is_failing;
		if (l->paths[i]->next_ns < out->deadline_ns)
			out->deadline_ns = l->paths[i]->next_ns;
	}
	if (failing || l->pending || l->telling || l->back_head != l->back_tail || l->untold)
		out->deadline_ns = 0;
}

const struct link_ops link_rdma_ops = {
        .name = "rdma",
        .open = rdma_open,
        .close = rdma_close,
        .path_open = rdma_path_open,
        .path_close = rdma_path_close,
        .path_reset = rdma_path_reset,
        .mem_map = rdma_mem_map,
        .mem_unmap = rdma_mem_unmap,
        .tx = rdma_tx,
        .reap = rdma_reap,
        .rx = rdma_rx,
        .rx_free = rdma_rx_free,
        .from = rdma_from,
        .rx_post = rdma_rx_post,
        .rx_revoke = rdma_rx_revoke,
        .expose = rdma_expose,
        .hide = rdma_hide,
        .exposed = rdma_exposed,
        .done = rdma_done,
        .wait = rdma_wait,
};
