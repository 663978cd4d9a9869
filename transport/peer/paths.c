/* Several paths of one peer (docs/design/008): which of them takes the next bytes, when one is given up, how it comes back. Called by tx.c and peer.c. Each question is
 * answered from what the flows know; nothing is planned ahead, so nothing has to be taken back. */
#include "base/list.h"
#include "peer/peer.h"

#define NANO 1000000000ull
#define PEER_SUSPECT_NS 5000000ull  /* overdue for so long: other paths are asked */
#define PEER_FAILOVER_NS 10000000ull /* DESIGN 6 */

static bool path_works(const struct peer_path *path)
{
	return path->state == PEER_PATH_UP && !path->is_broken;
}

/* Half a round trip, measured or as far as validation tells. While probes are not answered, what is sent now will likely have to be sent again, and the
 * longer that lasts the more so. */
static uint64_t path_owd_ns(const struct peer_path *path, uint64_t now_ns)
{
	uint64_t rtt = flow_srtt_ns(&path->flow);
	if (rtt == UINT64_MAX)
		rtt = path->first_rtt_ns;
	return rtt / 2 + (flow_probes(&path->flow) ? 2 * flow_silent_ns(&path->flow, now_ns) : 0);
}

static uint64_t transfer_ns(uint64_t bytes, uint64_t rate_bytes_per_s)
{
	return rate_bytes_per_s ? (uint64_t)((unsigned __int128)bytes * NANO / rate_bytes_per_s) : 0;
}

bool peer_path_turn(const struct peer_path *path, uint64_t waiting_bytes, uint64_t now_ns)
{
	const struct peer *peer = path->peer;
	uint64_t first = UINT64_MAX, rates = 0;
	for (unsigned i = 0; i < peer->paths; i++) {
		const struct peer_path *p = peer->path[i];
		if (p == path || !path_works(p) || (waiting_bytes && !msg_tx_share(peer->pair, p->id).may))
			continue; /* what it must not take it does not bring */
		uint64_t owd = path_owd_ns(p, now_ns), open = flow_open_ns(&p->flow, now_ns);
		uint64_t arrives = (open == UINT64_MAX ? now_ns + owd : open) + owd; /* a shut window opens within a round trip, half of one on average */
		first = arrives < first ? arrives : first;
		rates += flow_rate_bytes_per_s(&p->flow, false);
	}
	if (first == UINT64_MAX)
		return true;
	uint64_t burst = flow_burst_bytes(&path->flow), part = waiting_bytes < burst ? waiting_bytes : burst;
	uint64_t own = now_ns + path_owd_ns(path, now_ns);
	if (own <= first)
		return true; /* somebody must: of what is less than a burst for each, paths that are as near as each other would each expect the rest to bring it */
	/* at its best: a path whose rate is not known yet would never be found out otherwise */
	return own + transfer_ns(part, flow_rate_bytes_per_s(&path->flow, true)) <= first + transfer_ns(waiting_bytes, rates);
}

/* Records and small messages go where they arrive first; what only this path can place is its own. */
unsigned peer_path_want(const struct peer_path *path, unsigned want, uint64_t now_ns)
{
	const unsigned bytes = MSG_WANT_SMALL | MSG_WANT_BULK;
	const struct msg_pair *pair = path->peer->pair;
	if (path->peer->paths < 2 || !want)
		return want;
	struct msg_share share = want & bytes ? msg_tx_share(pair, path->id) : (struct msg_share){0};
	want &= share.may | MSG_WANT_RECORDS;
	if (!want || peer_path_turn(path, 0, now_ns))
		return want;
	if (!(want & share.own) && (!(want & bytes) || !peer_path_turn(path, msg_tx_waiting(pair, UINT64_MAX), now_ns)))
		return 0;
	return want & bytes;
}

/* ---- failover ---- */

/* Since when something should have happened; UINT64_MAX: nothing is wrong. */
static uint64_t suspect_since_ns(const struct peer_path *path)
{
	uint64_t overdue = flow_overdue_ns(&path->flow);
	return path->blocked_ns && path->blocked_ns < overdue ? path->blocked_ns : overdue;
}

uint64_t peer_path_when_ns(const struct peer_path *path, uint64_t now_ns)
{
	if (path->peer->paths < 2 || !path_works(path))
		return UINT64_MAX;
	uint64_t since = suspect_since_ns(path);
	if (since == UINT64_MAX)
		return UINT64_MAX;
	if (now_ns < since + PEER_SUSPECT_NS)
		return since + PEER_SUSPECT_NS;
	return now_ns < since + PEER_FAILOVER_NS ? since + PEER_FAILOVER_NS : now_ns + PEER_SUSPECT_NS;
}

/* Pinged now, and often from now on: somebody waits for it. */
static void path_ask(struct peer_path *path, uint64_t now_ns)
{
	path->ping_when_ns = now_ns;
	if (path->state != PEER_PATH_UP)
		path->ping_gap_ns = PEER_PING_GAP_FIRST_NS;
}

/* Does the peer live, while this path is silent? What another path brings shows that it lived half a round trip of that path ago; this one had to bring something from
 * then on. Who was not heard is asked. */
static bool others_heard(struct peer_path *path, uint64_t since_ns, uint64_t now_ns)
{
	const struct peer *peer = path->peer;
	uint64_t own = path_owd_ns(path, 0);
	for (unsigned i = 0; i < peer->paths; i++) {
		struct peer_path *p = peer->path[i];
		uint64_t owd = path_owd_ns(p, 0), heard = p->heard_ns;
		if (p == path || p->state == PEER_PATH_WAITING)
			continue;
		if (path_works(p) && heard + own >= since_ns + owd + PEER_SUSPECT_NS) {
			if (!path->alive_ns || heard - owd < path->alive_ns)
				path->alive_ns = heard - owd;
		} else if (p->state == PEER_PATH_UP ? p->ping_when_ns > now_ns + PEER_SUSPECT_NS
		                                    : now_ns >= p->round_ns[0] + PEER_PING_GAP_FIRST_NS) {
			path_ask(p, now_ns);
		}
	}
	return path->alive_ns && now_ns >= path->alive_ns + own + PEER_SUSPECT_NS;
}

static void path_give_up(struct peer_path *path, uint64_t now_ns)
{
	struct flow_report r[PEER_ITEMS_MAX];
	size_t n;
	path->state = PEER_PATH_DEAD; /* first: what is lost wakes the others, and not this one */
	path->peer->failovers++;
	while ((n = flow_give_up(&path->flow, r, PEER_ITEMS_MAX)))
		for (size_t i = 0; i < n; i++)
			msg_lost(path->peer->msg, &r[i].item);
	/* smaller frames first when it comes back: its MTU may be what has changed */
	peer_frame_size(path, path->frame_min, now_ns);
	path->searching = false;
	path->ping_unanswered = 0;
	path->ping_gap_ns = PEER_PING_GAP_FIRST_NS;
	path->ping_when_ns = now_ns;
	path->is_given_up = true;
	path->suspect_ns = path->alive_ns = path->blocked_ns = 0;
}

void peer_path_broken(struct peer_path *path, bool is_broken, uint64_t now_ns)
{
	path->is_broken = is_broken;
	flow_on_break(&path->flow, now_ns);
	if (is_broken && path->state == PEER_PATH_UP && peer_has_path(path->peer))
		path_give_up(path, now_ns);
	if (!is_broken && path->state == PEER_PATH_DEAD)
		path_ask(path, now_ns);
	for (unsigned i = 0; is_broken && !peer_has_path(path->peer) && i < path->peer->paths; i++)
		if (path->peer->path[i]->state == PEER_PATH_DEAD)
			path_ask(path->peer->path[i], now_ns);
	if (!is_broken && path->state != PEER_PATH_UP) /* pings that waited for the connection leave now: their answers tell the RTT, not the time to connect */
		path->round_ns[0] = path->round_ns[1] = now_ns;
	peer_owe(path->peer, now_ns);
}

void peer_path_watch(struct peer_path *path, uint64_t now_ns)
{
	if (path->is_broken && path->state == PEER_PATH_UP && peer_has_path(path->peer)) {
		path_give_up(path, now_ns); /* it was the last one when it broke; now there is another */
		return;
	}
	if (path->peer->paths < 2 || !path_works(path))
		return;
	uint64_t since = suspect_since_ns(path);
	if (since == UINT64_MAX || now_ns < since + PEER_SUSPECT_NS) {
		path->suspect_ns = path->alive_ns = 0;
		return;
	}
	/* who has slept through all of it himself asks first, and looks again */
	if (!path->suspect_ns)
		path->suspect_ns = now_ns;
	if (others_heard(path, since, now_ns) && now_ns >= since + PEER_FAILOVER_NS && now_ns >= path->suspect_ns + PEER_SUSPECT_NS)
		path_give_up(path, now_ns);
}

bool peer_has_path(const struct peer *peer)
{
	for (unsigned i = 0; i < peer->paths; i++)
		if (path_works(peer->path[i]))
			return true;
	return false;
}
