/* The connection manager's side: a listener, requests and answers with the session's token in their private data, events. One event channel a link.
 * Called by module.c and path.c. A request with a token that no open path has leaves no state. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "link/rdma/rdma.h"
#include "tern/error.h"

enum { CM_MAGIC = 0x7465726e, CM_VERSION = 2, CM_DATA_MAX = 256 };

/* Private data of a request; what rdma_cm leaves of it is 56 bytes. Numbers in network order. */
struct cm_hello {
	uint32_t magic;
	uint8_t version, leg, lanes, mode; /* enum cm_mode */
	uint32_t attempt, connection;
	uint16_t mtu, unused;
	uint8_t token[LINK_TOKEN_BYTES];
};

/* UC, or RC; FIXED: the address says so, otherwise it may be the other as well. */
enum cm_mode { CM_UC = 1, CM_FIXED = 2 };

enum cm_reason { CM_ACCEPTED, CM_TOKEN, CM_MODE, CM_VERSION_WRONG, CM_FAILED, CM_LATER };

/* Private data of an answer or a refusal. */
struct cm_answer {
	uint32_t magic;
	uint8_t version, reason, mode, unused;
	uint16_t mtu, unused2;
};

struct cm_event {
	struct rdma_cm_event of;
	uint8_t data[CM_DATA_MAX];
	uint32_t bytes;
};

static uint8_t cm_mode(const struct rdma_path *p, bool is_uc)
{
	const struct rdma_link *l = (const struct rdma_link *)p->base.link;
	return (uint8_t)((is_uc ? CM_UC : 0) | (l->options.mode == RDMA_MODE_AUTO && !p->is_bound ? 0 : CM_FIXED));
}

static struct rdma_conn_param cm_param(const struct rdma_leg *leg, const void *data, uint8_t bytes)
{
	return (struct rdma_conn_param){
	        .private_data = data,
	        .private_data_len = bytes,
	        .responder_resources = 1,
	        .initiator_depth = 1,
	        .flow_control = 1,
	        .retry_count = RDMA_RETRIES,
	        .rnr_retry_count = RDMA_RETRIES,
	        .srq = leg->rq == NULL,
	        .qp_num = leg->qp->qp_num,
	};
}

static socklen_t cm_addr_bytes(const struct sockaddr_storage *a)
{
	return a->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

int rdma_cm_dial(struct rdma_leg *leg)
{
	struct rdma_path *p = leg->path;
	struct rdma_link *l = (struct rdma_link *)p->base.link;
	struct sockaddr_storage from = p->from;
	struct sockaddr *source = from.ss_family ? (struct sockaddr *)&from : NULL;

	if (from.ss_family == AF_INET)
		((struct sockaddr_in *)&from)->sin_port = 0;
	else if (from.ss_family == AF_INET6)
		((struct sockaddr_in6 *)&from)->sin6_port = 0;
	if (rdma_create_id(l->events, &leg->id, leg, RDMA_PS_TCP)) {
		leg->id = NULL;
		rdma_path_fail(p, "the connection manager gives no id: %s", strerror(errno));
		return -TERN_EIO;
	}
	if (rdma_resolve_addr(leg->id, source, (struct sockaddr *)&p->to, RDMA_RESOLVE_MS)) {
		rdma_path_fail(p, "no RDMA device leads there: %s; look at `ip route get` and `rdma link`, or name one with dev=", strerror(errno));
		return -TERN_EIO;
	}
	return 0;
}

static void cm_connect(struct rdma_leg *leg)
{
	struct rdma_path *p = leg->path;
	struct cm_hello hello = {
	        .magic = htonl(CM_MAGIC),
	        .version = CM_VERSION,
	        .leg = (uint8_t)leg->index,
	        .lanes = (uint8_t)p->base.lanes,
	        .mode = cm_mode(p, p->is_uc),
	        .attempt = htonl(p->attempt),
	        .connection = htonl(p->base.connection + 1),
	        .mtu = htons((uint16_t)p->mtu_bytes),
	};

	memcpy(hello.token, p->token, sizeof(hello.token));
	if (rdma_path_attach(p, ibv_get_device_name(leg->id->verbs->device), p->base.lanes)) {
		rdma_path_fail(p, "its queue pairs would be on two devices");
		return;
	}
	if (rdma_leg_create(leg) || rdma_leg_init(leg))
		return;
	struct rdma_conn_param param = cm_param(leg, &hello, sizeof(hello));
	if (rdma_connect(leg->id, &param))
		rdma_path_fail(p, "connecting: %s", strerror(errno));
}

static bool cm_answer(const struct cm_event *e, struct cm_answer *out)
{
	if (e->bytes < sizeof(*out))
		return false;
	memcpy(out, e->data, sizeof(*out));
	return out->magic == htonl(CM_MAGIC);
}

static void cm_accepted(struct rdma_leg *leg, const struct cm_event *e)
{
	struct rdma_path *p = leg->path;
	struct cm_answer answer;

	if (!cm_answer(e, &answer) || answer.version != CM_VERSION) {
		rdma_path_fail(p, "what listens there is no tern");
		return;
	}
	p->mtu_agreed = ntohs(answer.mtu);
	if (rdma_leg_ready(leg))
		return;
	if (rdma_establish(leg->id))
		rdma_path_fail(p, "establishing: %s", strerror(errno));
	else
		rdma_path_leg_up(leg);
}

/* The peer wants the other kind of connection, or has no other. */
static void cm_other_mode(struct rdma_path *p, uint8_t mode)
{
	bool is_uc = mode & CM_UC;

	if (cm_mode(p, p->is_uc) & CM_FIXED) {
		if (p->has_no_uc)
			rdma_path_fail(p, "the peer's link is in mode uc, and our device makes no UC queue pairs: give mode=rc or auto there");
		else
			rdma_path_fail(p, "the peer's link is in mode %s, ours in %s: give mode= the same value at both ends, or auto",
			        is_uc ? "uc" : "rc", p->is_uc ? "uc" : "rc");
		p->base.fault = -TERN_EINVAL;
		return;
	}
	rdma_path_fail(p, "the peer %s mode %s", mode & CM_FIXED ? "has only" : "asks for", is_uc ? "uc" : "rc");
	p->wants_uc = is_uc;
	p->is_bound = mode & CM_FIXED;
	p->backoff_ns = RDMA_BACKOFF_NS;
}

/* A peer whose path is not open yet refuses the token: tried again. What cannot become right ends the path. */
static void cm_rejected(struct rdma_leg *leg, const struct cm_event *e)
{
	struct rdma_path *p = leg->path;
	struct cm_answer answer;

	if (p->is_failing) /* its other queue pairs were refused with it */
		return;
	if (!cm_answer(e, &answer)) {
		rdma_path_fail(p, "refused (reason %d): nobody listens on that port, or the peer has no RDMA device there", e->of.status);
		return;
	}
	if (answer.reason == CM_MODE) {
		cm_other_mode(p, answer.mode);
	} else if (answer.reason == CM_VERSION_WRONG || answer.version != CM_VERSION) {
		rdma_path_fail(p, "the peer speaks version %u of RDMA set-up, we %d: bring both to the same release", answer.version, CM_VERSION);
		p->base.fault = -TERN_EVERSION;
	} else {
		rdma_path_fail(p, "%s", answer.reason == CM_TOKEN ? "the peer does not expect this path yet" :
		        answer.reason == CM_LATER ? "the peer still reads what came over the last connection" : "the peer has no queue pair for us");
	}
}

static struct rdma_path *cm_path_of(struct rdma_link *l, const uint8_t *token)
{
	for (uint32_t i = 0; i < l->n_paths; i++) {
		const struct rdma_path *p = l->paths[i];
		uint8_t differs = 0; /* the time taken says nothing of how much of a guess was right */
		for (int k = 0; k < LINK_TOKEN_BYTES; k++)
			differs |= p->token[k] ^ token[k];
		if (p->is_acceptor && !differs)
			return l->paths[i];
	}
	return NULL;
}

/* The leg of a connection that is being set up: every word is as in the first leg's hello, and the leg is still missing. */
static bool cm_joins(const struct rdma_path *p, const struct cm_hello *hello, const struct rdma_cm_id *id)
{
	const struct rdma_leg *leg = &p->leg[hello->leg];

	return hello->lanes == p->base.lanes && (hello->mode & CM_UC) == p->is_uc && hello->leg < p->n_legs && !leg->id && !leg->qp &&
	        !leg->is_up && !p->is_failing &&
	        ntohl(hello->connection) == p->base.connection + 1 && hello->mtu == p->mtu_wanted &&
	        !strcmp(ibv_get_device_name(id->verbs->device), p->port->device->name);
}

/* @return why not */
static enum cm_reason cm_check(struct rdma_link *l, const struct cm_event *e, struct cm_hello *hello, struct rdma_path **p)
{
	if (e->bytes < sizeof(*hello))
		return CM_VERSION_WRONG;
	memcpy(hello, e->data, sizeof(*hello));
	if (hello->magic != htonl(CM_MAGIC) || hello->version != CM_VERSION)
		return CM_VERSION_WRONG;
	*p = cm_path_of(l, hello->token);
	if (!*p)
		return CM_TOKEN;
	bool is_uc = hello->mode & CM_UC, is_free = !(hello->mode & CM_FIXED);
	if (cm_mode(*p, false) & CM_FIXED ? is_uc != (*p)->wants_uc : is_free && (*p)->wants_uc && !is_uc)
		return CM_MODE;
	if (!rdma_uses_device(l, ibv_get_device_name(e->of.id->verbs->device)))
		return CM_FAILED;
	uint32_t mtu = ntohs(hello->mtu);
	if (!hello->lanes || hello->lanes > RDMA_LANES_MAX || hello->leg > 2 * hello->lanes || !hello->connection || (mtu && mtu < 256) ||
	        hello->mode & ~(CM_UC | CM_FIXED))
		return CM_FAILED;
	return CM_ACCEPTED;
}

static uint32_t cm_mtu(const struct rdma_path *p, const struct cm_hello *hello)
{
	uint32_t theirs = ntohs(hello->mtu);
	return theirs && (!p->mtu_bytes || theirs < p->mtu_bytes) ? theirs : p->mtu_bytes;
}

/* A new attempt of the initiator means that it has given up the connection before: its queue pairs go first. */
static int cm_begin(struct rdma_path *p, const struct cm_hello *hello, const struct rdma_cm_id *id, uint64_t now_ns)
{
	if (p->state == RDMA_PATH_SETUP && p->attempt == hello->attempt)
		return cm_joins(p, hello, id) ? 0 : -TERN_EINVAL;
	if (p->state != RDMA_PATH_DOWN) {
		rdma_path_fail(p, "the peer connects anew");
		rdma_path_down(p, now_ns);
	}
	if (!rdma_path_kind(p, hello->mode & CM_UC))
		return -TERN_EAGAIN;
	if ((hello->mode & CM_FIXED) || p->is_uc)
		p->wants_uc = p->is_uc; /* it has no other, or has reasons */
	p->is_bound |= hello->mode & CM_FIXED;
	p->state = RDMA_PATH_SETUP;
	p->attempt = hello->attempt;
	p->mtu_wanted = hello->mtu;
	p->mtu_agreed = cm_mtu(p, hello);
	p->next_ns = now_ns + RDMA_ACCEPT_NS;
	p->base.connection = ntohl(hello->connection) - 1;
	const struct sockaddr *from = &id->route.addr.dst_addr;
	p->base.remote.bytes = from->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
	memcpy(p->base.remote.data, from, p->base.remote.bytes);
	return rdma_path_attach(p, ibv_get_device_name(id->verbs->device), hello->lanes);
}

static int cm_accept(struct rdma_leg *leg, struct rdma_cm_id *id)
{
	struct rdma_path *p = leg->path;

	leg->id = id;
	id->context = leg;
	if (rdma_leg_create(leg) || rdma_leg_init(leg) || rdma_leg_ready(leg))
		return -1;
	struct cm_answer answer = {.magic = htonl(CM_MAGIC), .version = CM_VERSION, .reason = CM_ACCEPTED, .mtu = htons((uint16_t)p->mtu_agreed)};
	struct rdma_conn_param param = cm_param(leg, &answer, sizeof(answer));
	if (!rdma_accept(id, &param))
		return 0;
	rdma_path_fail(p, "accepting: %s", strerror(errno));
	return -1;
}

/* @param p  NULL: unknown */
static void cm_refuse(const struct rdma_path *p, struct rdma_cm_id *id, enum cm_reason reason)
{
	struct cm_answer answer = {.magic = htonl(CM_MAGIC), .version = CM_VERSION, .reason = (uint8_t)reason};
	answer.mode = p ? cm_mode(p, p->wants_uc) : 0;
	rdma_reject(id, &answer, sizeof(answer));
}

static void cm_requested(struct rdma_link *l, const struct cm_event *e, uint64_t now_ns)
{
	struct rdma_cm_id *id = e->of.id;
	struct rdma_path *p = NULL;
	struct cm_hello hello;
	enum cm_reason reason = cm_check(l, e, &hello, &p);

	int err = reason == CM_ACCEPTED ? cm_begin(p, &hello, id, now_ns) : 0;
	if (err)
		reason = err == -TERN_EAGAIN ? CM_LATER : CM_FAILED;
	if (reason != CM_ACCEPTED) {
		cm_refuse(p, id, reason);
		rdma_destroy_id(id);
	} else if (cm_accept(&p->leg[hello.leg], id)) {
		cm_refuse(p, id, CM_FAILED); /* the id goes with the path's connection */
	}
}

static void cm_event(struct rdma_link *l, const struct cm_event *e, uint64_t now_ns)
{
	struct rdma_leg *leg = e->of.id->context;

	if (e->of.event == RDMA_CM_EVENT_CONNECT_REQUEST) {
		cm_requested(l, e, now_ns);
		return;
	}
	if (!leg || leg->id != e->of.id)
		return;
	switch (e->of.event) {
	case RDMA_CM_EVENT_ADDR_RESOLVED:
		if (rdma_resolve_route(leg->id, RDMA_RESOLVE_MS))
			rdma_path_fail(leg->path, "no route on %s: %s", ibv_get_device_name(leg->id->verbs->device), strerror(errno));
		break;
	case RDMA_CM_EVENT_ROUTE_RESOLVED:
		cm_connect(leg);
		break;
	case RDMA_CM_EVENT_CONNECT_RESPONSE:
		cm_accepted(leg, e);
		break;
	case RDMA_CM_EVENT_ESTABLISHED:
		rdma_path_leg_up(leg);
		break;
	case RDMA_CM_EVENT_REJECTED:
		cm_rejected(leg, e);
		break;
	case RDMA_CM_EVENT_ADDR_ERROR:
		rdma_path_fail(
		        leg->path, "the address does not resolve on an RDMA device: %s", strerror(e->of.status < 0 ? -e->of.status : e->of.status));
		break;
	case RDMA_CM_EVENT_DEVICE_REMOVAL:
		rdma_path_fail(leg->path, "the RDMA device is gone");
		break;
	case RDMA_CM_EVENT_DISCONNECTED:
		rdma_path_fail(leg->path, "the peer has disconnected");
		break;
	case RDMA_CM_EVENT_TIMEWAIT_EXIT:
	case RDMA_CM_EVENT_ADDR_CHANGE: /* the queue pairs hold the old one and fail by themselves */
		break;
	default:
		rdma_path_fail(leg->path, "%s (%d)", rdma_event_str(e->of.event), e->of.status);
		break;
	}
}

void rdma_cm_events(struct rdma_link *l, uint64_t now_ns)
{
	struct rdma_cm_event *event;
	struct cm_event e;

	for (int i = 0; i < RDMA_EVENTS_MAX && !rdma_get_cm_event(l->events, &event); i++) {
		e.of = *event;
		e.bytes = event->param.conn.private_data ? event->param.conn.private_data_len : 0;
		memcpy(e.data, event->param.conn.private_data ? event->param.conn.private_data : "", e.bytes);
		rdma_ack_cm_event(event); /* before its id may be destroyed, which waits for this */
		cm_event(l, &e, now_ns);
	}
}

int rdma_cm_listen(struct rdma_link *l, uint16_t port, char *error, size_t room)
{
	struct sockaddr_storage at = l->host;
	char text[80];

	if (!at.ss_family)
		at.ss_family = AF_INET;
	if (at.ss_family == AF_INET6)
		((struct sockaddr_in6 *)&at)->sin6_port = htons(port);
	else
		((struct sockaddr_in *)&at)->sin_port = htons(port);
	rdma_addr_text(&at, text, sizeof(text));
	if (rdma_create_id(l->events, &l->listener, NULL, RDMA_PS_TCP)) {
		l->listener = NULL;
		snprintf(error, room, "rdma: the connection manager gives no id: %s; modprobe rdma_ucm", strerror(errno));
		return -TERN_EIO;
	}
	if (rdma_bind_addr(l->listener, (struct sockaddr *)&at) || rdma_listen(l->listener, RDMA_BACKLOG)) {
		int err = errno;
		const char *hint = err == EADDRINUSE                       ? "the port is in use"
		                   : err == ENODEV || err == EADDRNOTAVAIL ? "no RDMA device has this address: look at `rdma link` and `ip addr`"
		                                                           : strerror(err);
		snprintf(error, room, "rdma: cannot listen on %s: %s", text, hint);
		return -TERN_EADDR;
	}
	const struct sockaddr *bound = rdma_get_local_addr(l->listener);
	l->base.local.bytes = cm_addr_bytes(&at);
	memcpy(l->base.local.data, bound, l->base.local.bytes);
	if (at.ss_family == AF_INET6)
		((struct sockaddr_in6 *)l->base.local.data)->sin6_port = rdma_get_src_port(l->listener);
	else
		((struct sockaddr_in *)l->base.local.data)->sin_port = rdma_get_src_port(l->listener);
	return 0;
}

static bool cm_gid_address(const union ibv_gid *gid, struct sockaddr_storage *out)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff}, none[16];
	struct sockaddr_in *four = (struct sockaddr_in *)out;
	struct sockaddr_in6 *six = (struct sockaddr_in6 *)out;

	if (!memcmp(gid->raw, none, 16) ||
	        (gid->raw[0] == 0xfe && (gid->raw[1] & 0xc0) == 0x80)) /* unused, or link-local: the interface's, not an address of a site */
		return false;
	memset(out, 0, sizeof(*out));
	if (!memcmp(gid->raw, mapped, sizeof(mapped))) {
		four->sin_family = AF_INET;
		memcpy(&four->sin_addr, gid->raw + 12, 4);
	} else {
		six->sin6_family = AF_INET6;
		memcpy(&six->sin6_addr, gid->raw, 16);
	}
	return true;
}

static struct ibv_context *cm_open_device(const char *dev, char *error, size_t room)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	struct ibv_context *verbs = NULL;
	size_t n = (size_t)snprintf(error, room, "rdma: dev=%.32s: this machine has", dev);

	for (int i = 0; list && list[i]; i++) {
		if (!strcmp(ibv_get_device_name(list[i]), dev))
			verbs = ibv_open_device(list[i]);
		n += n < room ? (size_t)snprintf(error + n, room - n, " %s", ibv_get_device_name(list[i])) : 0;
	}
	if (list)
		ibv_free_device_list(list);
	return verbs;
}

bool rdma_cm_device_address(const char *dev, int gid, struct sockaddr_storage *out, char *error, size_t room)
{
	struct ibv_context *verbs = cm_open_device(dev, error, room);
	struct ibv_device_attr attr;
	bool found = false;

	if (!verbs)
		return false;
	int ports = ibv_query_device(verbs, &attr) ? 0 : attr.phys_port_cnt;
	for (int port = 1; port <= ports && !found; port++) {
		struct ibv_port_attr of;
		int n = ibv_query_port(verbs, (uint8_t)port, &of) ? 0 : of.gid_tbl_len;
		for (int i = gid < 0 ? 0 : gid; i < n && !found && (gid < 0 || i == gid); i++) {
			union ibv_gid value;
			found = !ibv_query_gid(verbs, (uint8_t)port, i, &value) && cm_gid_address(&value, out);
		}
	}
	ibv_close_device(verbs);
	if (!found && gid >= 0)
		snprintf(
		        error, room, "rdma: GID %d of %s carries no IP address: `ibv_devinfo -v -d %s` lists them, or leave gid= out", gid, dev, dev);
	else if (!found)
		snprintf(error, room, "rdma: no GID of %s carries an IP address: give its interface one (`ip addr add`)", dev);
	return found;
}
