/* Paths of a peer: opening, validation and size search by padded pings (RFC 8899's idea: a size counts once its ping was answered), liveness.
 * Called by loop/. The pings of one round go out together, largest first, so that the size is known after one round trip. */
#include <string.h>
#include "base/list.h"
#include "peer/peer.h"
#include "tern/error.h"

/* Datagram sizes tried, largest first: loopback, 9000 over IPv4 and IPv6, 4 KiB RDMA fabrics' Ethernet, 1500 over both, tunnels, the floor. */
static const uint32_t ladder[] = {65507, 32768, 8972, 8952, 4068, 1472, 1452, 1372, PEER_FRAME_MIN};

enum {
	LADDER_STEPS = sizeof(ladder) / sizeof(ladder[0]),
	PING_GAP_MAX_NS = 500000000,
	SEARCH_AGAIN_S = 60,
	UNANSWERED_SHRINK = 3,             /* probes without answer before a smaller size is used (a black hole) */
};
#define SECOND_NS 1000000000ull
#define PING_GAP_DEAD_NS 5000000000ull /* of a path that nobody waits for: a failed optic may last for hours */

void peer_init(struct peer *peer, uint64_t id, struct msg *msg, struct msg_pair *pair, uint64_t timeout_ns)
{
	memset(peer, 0, sizeof(*peer));
	peer->id = id;
	peer->msg = msg;
	peer->pair = pair;
	peer->timeout_ns = timeout_ns;
	peer->owed_ns = UINT64_MAX;
}

void peer_frame_size(struct peer_path *path, uint32_t frame_max, uint64_t now_ns)
{
	uint32_t frame = frame_max + path->overhead_bytes, unit = 0;
	path->frame_max = frame_max;
	if (path->direct && path->direct->is_reliable)
		unit = PEER_WRITE_UNIT;
	else if (path->direct && frame < PEER_WRITE_UNIT)
		frame = PEER_WRITE_UNIT;
	flow_frame(&path->flow, frame, unit, now_ns);
}

static void peer_search_start(struct peer_path *path, uint64_t now_ns)
{
	path->searching = true;
	path->search_step = 0;
	path->ping_when_ns = now_ns;
}

int peer_path_init(struct peer_path *path, struct peer *peer, const struct peer_path_config *config)
{
	uint64_t now = config->flow.now_ns;
	if (peer->paths >= PEER_PATHS_MAX || config->path_id >= PEER_PATHS_MAX)
		return -TERN_ELIMIT;
	memset(path, 0, sizeof(*path));
	int err = flow_init(&path->flow, &config->flow);
	if (err)
		return err;
	path->peer = peer;
	path->id = config->path_id;
	path->sealed = config->sealed;
	path->initiator = config->initiator;
	path->remote_flow_id = config->remote_flow_id;
	path->frame_max = path->frame_min = PEER_FRAME_MIN;
	path->direct = config->direct;
	path->frame_limit = config->frame_limit;
	path->overhead_bytes = config->overhead_bytes;
	path->opened_ns = path->heard_ns = now;
	path->ping_gap_ns = PEER_PING_GAP_FIRST_NS;
	path->ping_when_ns = UINT64_MAX;
	path->search_when_ns = UINT64_MAX;
	if (config->initiator)
		peer_path_found(path, config->frame_limit, now);
	peer->path[peer->paths++] = path;
	return 0;
}

void peer_path_forget(struct peer_path *path)
{
	peer_path_close(path);
	path->peer->path[--path->peer->paths] = NULL;
}

void peer_path_found(struct peer_path *path, uint32_t frame_limit, uint64_t now_ns)
{
	path->state = PEER_PATH_VALIDATING;
	path->frame_limit = frame_limit;
	path->frame_min = frame_limit < PEER_FRAME_MIN ? frame_limit : PEER_FRAME_MIN;
	if (path->frame_max > frame_limit)
		peer_frame_size(path, frame_limit, now_ns);
	peer_search_start(path, now_ns);
}

void peer_path_shrunk(struct peer_path *path, uint32_t frame_limit, uint64_t now_ns)
{
	path->frame_limit = frame_limit;
	path->frame_min = frame_limit < PEER_FRAME_MIN ? frame_limit : PEER_FRAME_MIN;
	if (path->frame_max > frame_limit)
		peer_frame_size(path, frame_limit, now_ns);
	peer_search_start(path, now_ns);
}

/* Hands the reports of a flow call to msg, until there are no more. */
void peer_reports(struct peer_path *path, struct flow_report *r, long n)
{
	while (n > 0) {
		for (long i = 0; i < n; i++) {
			if (r[i].kind == FLOW_ACKED)
				msg_acked(path->peer->msg, &r[i].item);
			else
				msg_lost(path->peer->msg, &r[i].item);
		}
		n = n < PEER_ITEMS_MAX ? 0 : (long)flow_reports(&path->flow, r, PEER_ITEMS_MAX);
	}
}

void peer_path_close(struct peer_path *path)
{
	struct flow_report r[PEER_ITEMS_MAX];
	size_t n;
	while ((n = flow_close(&path->flow, r, PEER_ITEMS_MAX)))
		for (size_t i = 0; i < n; i++)
			msg_lost(path->peer->msg, &r[i].item);
	path->state = PEER_PATH_DEAD;
}

void peer_end(struct peer *peer, int status)
{
	if (peer->state == PEER_GONE)
		return;
	peer->state = PEER_GONE;
	peer->status = status;
	for (unsigned i = 0; i < peer->paths; i++)
		peer_path_close(peer->path[i]);
	/* why is the peer's to say; its operations only know that it is gone, or that we ended them */
	msg_pair_close(peer->msg, peer->pair, status == -TERN_ECANCELED ? status : -TERN_EPEER);
}

void peer_heard(struct peer_path *path, uint64_t now_ns)
{
	path->heard_ns = now_ns;
	if (path->state == PEER_PATH_UP && !path->searching) {
		path->ping_unanswered = 0;
		path->ping_when_ns = now_ns + PEER_KEEPALIVE_S * SECOND_NS;
	}
}

static void peer_pong(struct peer_path *path, const struct wire_ping *pong, uint64_t now_ns)
{
	/* tokens are numbers of our own pings: what we never sent validates nothing */
	if (pong->token == 0 || pong->token > path->ping_token || pong->size_bytes > path->frame_limit)
		return;
	if (pong->size_bytes > path->frame_max)
		peer_frame_size(path, pong->size_bytes, now_ns);
	if (path->state == PEER_PATH_VALIDATING || path->state == PEER_PATH_DEAD) {
		bool returns = path->state == PEER_PATH_DEAD;
		path->state = PEER_PATH_UP;
		path->first_rtt_ns = now_ns - path->round_ns[pong->token < path->round_token[0]];
		if (!returns)
			flow_rtt_hint(&path->flow, path->first_rtt_ns);
		if (path->peer->state == PEER_OPENING)
			path->peer->state = PEER_UP;
		path->ping_when_ns = now_ns + PEER_KEEPALIVE_S * SECOND_NS;
		path->ping_gap_ns = PING_GAP_MAX_NS;
		path->ping_unanswered = 0;
		path->searching = false;
		path->search_when_ns = now_ns + SEARCH_AGAIN_S * SECOND_NS;
		if (returns)
			peer_search_start(path, now_ns);
	}
}

static void peer_ping(struct peer_path *path, const struct wire_ping *ping)
{
	if (path->pongs < PEER_PONGS_MAX)
		path->pong[path->pongs++] = *ping;
}

static int peer_ack(struct peer_path *path, const struct wire_ack *ack, uint64_t now_ns)
{
	struct peer *peer = path->peer;
	for (unsigned i = 0; i < peer->paths; i++) {
		struct peer_path *p = peer->path[i];
		if (p->id != ack->path_id)
			continue;
		struct flow_report r[PEER_ITEMS_MAX];
		long n = flow_on_ack(&p->flow, ack, now_ns, r, PEER_ITEMS_MAX);
		if (n < 0)
			return (int)n;
		peer_reports(p, r, n);
		return 0;
	}
	return 0; /* a path closed here; its peer does not know yet */
}

static int peer_rx_record(struct peer_path *path, const struct wire_record *r, uint64_t now_ns)
{
	switch (r->type) {
	case WIRE_ACK:
		return peer_ack(path, &r->ack, now_ns);
	case WIRE_FLOOR:
		if (r->floor.path_id == path->id)
			flow_rx_floor(&path->flow, r->floor.number);
		return 0;
	case WIRE_PING:
		peer_ping(path, &r->ping);
		return 0;
	case WIRE_PONG:
		peer_pong(path, &r->ping, now_ns);
		return 0;
	case WIRE_BYE:
		path->peer->status = r->bye.status ? -(int)r->bye.status : -TERN_EPEER;
		return -TERN_EPEER;
	case WIRE_RUN:
		return peer_rx_run(path, &r->run);
	default:
		return msg_rx_record(path->peer->pair, r, now_ns);
	}
}

int peer_rx_mix(struct peer_path *path, const uint8_t *payload, size_t bytes, uint64_t now_ns, bool *eliciting)
{
	int result = 0;
	*eliciting = false;
	while (bytes) {
		struct wire_record r;
		long used = wire_record_decode(payload, bytes, &r);
		if (used < 0)
			return -TERN_EPROTO;
		if (used == 0)
			break;
		if (r.type != WIRE_RUN && r.type != WIRE_ACK && r.type != WIRE_FLOOR && r.type != WIRE_PONG)
			*eliciting = true;
		int err = peer_rx_record(path, &r, now_ns);
		if (err == -TERN_EAGAIN)
			result = err; /* the others may go on: records are idempotent */
		else if (err)
			return err;
		payload += used;
		bytes -= (size_t)used;
	}
	if (path->direct && path->direct->waits)
		peer_direct_again(path, now_ns);
	return result;
}

void peer_owe(struct peer *peer, uint64_t now_ns)
{
	bool owed = peer->state == PEER_OPENING, has_path = peer->paths > 1 && peer_has_path(peer);
	for (unsigned i = 0; i < peer->paths; i++) {
		const struct peer_path *p = peer->path[i];
		bool counts = p->state == PEER_PATH_UP || !has_path; /* a path that is down owes nothing while another is up */
		owed |= flow_in_flight_bytes(&p->flow) > 0 || (counts && (p->ping_unanswered > 0 || p->is_broken));
	}
	if (!owed)
		peer->owed_ns = UINT64_MAX;
	else if (peer->owed_ns == UINT64_MAX)
		peer->owed_ns = now_ns;
}

void peer_control_lost(struct peer *peer, uint64_t now_ns)
{
	peer->control_lost = true;
	if (peer->owed_ns != UINT64_MAX)
		peer->owed_ns = now_ns;
	for (unsigned i = 0; i < peer->paths; i++)
		peer->path[i]->ping_when_ns = now_ns;
}

/* When silence has lasted too long; UINT64_MAX: nothing is owed. It is judged against every path of the peer: a silent path of a talking peer is not a dead
 * peer (5.13). */
static uint64_t peer_dead_when_ns(const struct peer *peer)
{
	uint64_t since = peer->owed_ns;
	if (since == UINT64_MAX)
		return UINT64_MAX;
	for (unsigned i = 0; i < peer->paths; i++)
		since = peer->path[i]->heard_ns > since ? peer->path[i]->heard_ns : since;
	return since + (peer->control_lost ? peer->timeout_ns / 10 : peer->timeout_ns);
}

static void peer_ping_timer(struct peer_path *path, uint64_t now_ns)
{
	if (path->search_when_ns <= now_ns) {
		path->search_when_ns = now_ns + SEARCH_AGAIN_S * SECOND_NS;
		if (path->frame_max < path->frame_limit)
			peer_search_start(path, now_ns);
	}
	if (path->ping_unanswered >= UNANSWERED_SHRINK && path->frame_max > path->frame_min && path->state != PEER_PATH_DEAD) {
		peer_frame_size(path, path->frame_min, now_ns);
		peer_search_start(path, now_ns);
	}
}

int peer_timers(struct peer_path *path, uint64_t now_ns)
{
	if (path->peer->state == PEER_GONE)
		return 0;
	if (flow_deadline_ns(&path->flow) <= now_ns) {
		struct flow_report r[PEER_ITEMS_MAX];
		peer_reports(path, r, flow_on_timer(&path->flow, now_ns, r, PEER_ITEMS_MAX));
	}
	if (path->direct && path->direct->waits)
		peer_direct_again(path, now_ns);
	peer_ping_timer(path, now_ns);
	if (path->peer->paths > 1)
		peer_path_watch(path, now_ns);
	peer_owe(path->peer, now_ns);
	if (peer_dead_when_ns(path->peer) > now_ns)
		return 0;
	return path->peer->state == PEER_OPENING ? -TERN_EBLOCKED : -TERN_EPEER;
}

/* A round of pings begins: what is answered tells the RTT, unless two more rounds have begun by then. */
static void peer_round(struct peer_path *path, uint64_t now_ns)
{
	path->round_ns[1] = path->round_ns[0];
	path->round_token[1] = path->round_token[0];
	path->round_ns[0] = now_ns;
	path->round_token[0] = path->ping_token + 1;
}

/* The ping that is due: PEER_PING_BARE, or the datagram size it must be padded to; 0: none. A round is the link's limit and each smaller rung of the ladder
 * above the size in use (while validating the floor too), one frame each. */
uint32_t peer_ping_next(struct peer_path *path, uint64_t now_ns)
{
	if (path->state == PEER_PATH_WAITING || path->ping_when_ns > now_ns)
		return 0;
	while (path->searching && path->search_step <= LADDER_STEPS) {
		uint32_t step = path->search_step++;
		if (!step)
			peer_round(path, now_ns);
		uint32_t size = step ? ladder[step - 1] : path->frame_limit;
		bool floor = size == path->frame_min && path->state != PEER_PATH_UP;
		if (step ? size < path->frame_limit && (size > path->frame_max || floor) : size > path->frame_max || size == path->frame_min)
			return size;
	}
	bool bare = !path->searching;
	path->searching = false;
	path->ping_unanswered++;
	path->ping_when_ns = now_ns + path->ping_gap_ns;
	if (path->state == PEER_PATH_UP)
		return bare ? PEER_PING_BARE : 0;
	uint64_t most = path->peer->state == PEER_UP && peer_has_path(path->peer) ? PING_GAP_DEAD_NS : PING_GAP_MAX_NS;
	path->ping_gap_ns = path->ping_gap_ns * 2 < most ? path->ping_gap_ns * 2 : most;
	if (path->state == PEER_PATH_DEAD) {
		peer_round(path, now_ns);
		return PEER_PING_BARE;
	}
	peer_search_start(path, path->ping_when_ns);
	return 0;
}

uint64_t peer_idle_when_ns(struct peer_path *path, uint64_t now_ns)
{
	uint64_t when = path->ping_when_ns, t;
	if (path->peer->state == PEER_GONE)
		return UINT64_MAX;
	if (path->state == PEER_PATH_WAITING)
		return peer_dead_when_ns(path->peer);
	if (path->pongs)
		return 0;
	if (path->direct && path->direct->waits)
		when = now_ns + PEER_WAIT_NS < when ? now_ns + PEER_WAIT_NS : when;
	t = flow_deadline_ns(&path->flow);
	when = t < when ? t : when;
	t = flow_ack_when_ns(&path->flow);
	when = t < when ? t : when;
	t = path->search_when_ns;
	when = t < when ? t : when;
	t = peer_dead_when_ns(path->peer);
	when = t < when ? t : when;
	if (path->peer->paths > 1) {
		t = peer_path_when_ns(path, now_ns);
		when = t < when ? t : when;
	}
	return path->flow.probe_due ? 0 : when; /* one that is due by now only is in the flow's deadline */
}

uint64_t peer_when_ns(struct peer_path *path, uint64_t now_ns)
{
	uint64_t when = peer_idle_when_ns(path, now_ns), open = UINT64_MAX;
	unsigned want = path->state == PEER_PATH_UP && path->peer->state != PEER_GONE ? msg_tx_want(path->peer->pair) : 0;
	if (!want)
		return when;
	if (flow_tx_room(&path->flow, now_ns, &open)) {
		if (path->peer->paths < 2 || peer_path_want(path, want, now_ns))
			return 0;
		open = now_ns + PEER_YIELD_NS; /* others are nearer at the moment */
	}
	return open < when ? open : when;
}
