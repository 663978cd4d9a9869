/* Statistics by name. Any thread, under the lock. */
#include <stdlib.h>
#include <string.h>
#include "api/context.h"
#include "base/err.h"

struct stats_out {
	tern_stat *out;
	size_t room, n;
};

static void stats_put(struct stats_out *o, const char *name, const char *unit, uint32_t kind, uint64_t value)
{
	if (o->n < o->room)
		o->out[o->n] = (tern_stat){.name = name, .unit = unit, .kind = kind, .value = value};
	o->n++;
}

#define COUNTER(o, name, unit, value) stats_put(o, name, unit, TERN_STAT_COUNTER, value)
#define GAUGE(o, name, unit, value) stats_put(o, name, unit, TERN_STAT_GAUGE, value)

static void stats_context(tern_ctx *ctx, struct stats_out *o)
{
	const struct loop_counters *c = &ctx->loop->count;
	uint64_t copied = c->copied_bytes + msg_copied_bytes(ctx->loop->msg), peers = 0, rx = 0, tx = 0, rx_bytes = 0, tx_bytes = 0, calls = 0;
	for (uint32_t i = 0; i < ctx->config.max_peers; i++)
		if (ctx->peers[i] && ctx->peers[i]->lp) {
			copied += ctx->peers[i]->lp->peer.copied_bytes;
			peers += !ctx->peers[i]->closed;
		}
	for (size_t i = 0; i < ctx->loop->links; i++) {
		const struct link *l = ctx->loop->link[i];
		rx += l->rx_frames;
		tx += l->tx_frames;
		rx_bytes += l->rx_bytes;
		tx_bytes += l->tx_bytes;
		calls += l->rx_calls + l->tx_calls;
		copied += l->copied_bytes;
	}
	COUNTER(o, "copied_bytes", "bytes", copied);
	COUNTER(o, "sealed_bytes", "bytes", c->sealed_bytes);
	COUNTER(o, "opened_bytes", "bytes", c->opened_bytes);
	COUNTER(o, "placed_bytes", "bytes", c->rx_placed_bytes);
	COUNTER(o, "direct_bytes", "bytes", c->tx_direct_bytes);
	COUNTER(o, "rx_frames", "frames", rx);
	COUNTER(o, "tx_frames", "frames", tx);
	COUNTER(o, "rx_bytes", "bytes", rx_bytes);
	COUNTER(o, "tx_bytes", "bytes", tx_bytes);
	COUNTER(o, "link_calls", "1", calls);
	COUNTER(o, "rx_malformed_frames", "frames", c->rx_malformed);
	COUNTER(o, "rx_stranger_frames", "frames", c->rx_strangers);
	COUNTER(o, "rx_forged_frames", "frames", c->rx_forged);
	COUNTER(o, "rx_refused_frames", "frames", c->rx_refused);
	COUNTER(o, "loop_steps", "1", c->steps);
	GAUGE(o, "peers", "1", peers);
}

static void flow_counters_add(struct flow_counters *sum, const struct flow_counters *c)
{
	sum->tx_frames += c->tx_frames;
	sum->tx_bytes += c->tx_bytes;
	sum->rx_frames += c->rx_frames;
	sum->rx_bytes += c->rx_bytes;
	sum->lost_frames += c->lost_frames;
	sum->lost_bytes += c->lost_bytes;
	sum->spurious_frames += c->spurious_frames;
	sum->rx_duplicates += c->rx_duplicates;
	sum->rx_ce += c->rx_ce;
	sum->probes += c->probes;
	sum->acks_tx += c->acks_tx;
	sum->acks_rx += c->acks_rx;
}

/* Of the paths [first, end): counters and rates are sums, times those of the nearest path, sizes those of the first. */
static void stats_paths(const struct loop_peer *lp, unsigned first, unsigned end, struct stats_out *o)
{
	struct flow_counters c = {0};
	uint64_t srtt = UINT64_MAX, min = UINT64_MAX, in_flight = 0, window = 0, pace = 0, up = 0;
	for (unsigned i = first; i < end; i++) {
		const struct peer_path *pp = &lp->path[i]->pp;
		flow_counters_add(&c, flow_count(&pp->flow));
		srtt = flow_srtt_ns(&pp->flow) < srtt ? flow_srtt_ns(&pp->flow) : srtt;
		min = flow_min_rtt_ns(&pp->flow) < min ? flow_min_rtt_ns(&pp->flow) : min;
		in_flight += flow_in_flight_bytes(&pp->flow);
		window += flow_cc(&pp->flow)->window_bytes;
		pace += flow_cc(&pp->flow)->pace_bytes_per_s;
		up += pp->state == PEER_PATH_UP;
	}
	COUNTER(o, "tx_frames", "frames", c.tx_frames);
	COUNTER(o, "tx_bytes", "bytes", c.tx_bytes);
	COUNTER(o, "rx_frames", "frames", c.rx_frames);
	COUNTER(o, "rx_bytes", "bytes", c.rx_bytes);
	COUNTER(o, "lost_frames", "frames", c.lost_frames);
	COUNTER(o, "lost_bytes", "bytes", c.lost_bytes);
	COUNTER(o, "spurious_frames", "frames", c.spurious_frames);
	COUNTER(o, "duplicate_frames", "frames", c.rx_duplicates);
	COUNTER(o, "ce_frames", "frames", c.rx_ce);
	COUNTER(o, "probes", "1", c.probes);
	COUNTER(o, "acks_sent", "1", c.acks_tx);
	COUNTER(o, "acks_received", "1", c.acks_rx);
	GAUGE(o, "srtt_ns", "ns", srtt == UINT64_MAX ? 0 : srtt);
	GAUGE(o, "min_rtt_ns", "ns", min == UINT64_MAX ? 0 : min);
	GAUGE(o, "in_flight_bytes", "bytes", in_flight);
	GAUGE(o, "window_bytes", "bytes", window);
	GAUGE(o, "pace_bytes_per_s", "bytes_per_s", pace);
	GAUGE(o, "frame_bytes", "bytes", lp->path[first]->pp.frame_max);
	GAUGE(o, "paths_up", "1", up);
}

/* "peer/N", or "peer/N/path/ID" */
static int stats_peer(tern_ctx *ctx, const char *scope, struct stats_out *o)
{
	char *end;
	const struct api_peer *peer = api_peer_find(ctx, strtoull(scope, &end, 10));
	const struct loop_peer *lp = peer ? peer->lp : NULL;
	if (!peer || (*end && strncmp(end, "/path/", 6)))
		return -TERN_ENOENT;
	unsigned paths = lp ? lp->peer.paths : 0;
	if (*end) {
		unsigned long id = strtoul(end + 6, NULL, 10);
		for (unsigned i = 0; i < paths; i++)
			if (lp->path[i]->pp.id == id) {
				stats_paths(lp, i, i + 1, o);
				return 0;
			}
		return -TERN_ENOENT;
	}
	if (!paths)
		return 0;
	COUNTER(o, "copied_bytes", "bytes", lp->peer.copied_bytes);
	COUNTER(o, "failovers", "1", lp->peer.failovers);
	GAUGE(o, "paths", "1", paths);
	stats_paths(lp, 0, paths, o);
	return 0;
}

int tern_stats_get(tern_ctx *ctx, const char *scope, tern_stat *out, size_t *n)
{
	if (!ctx || !n || (*n && !out))
		return ERR(TERN_EINVAL, "tern_stats_get: ctx and n must not be NULL");
	if (api_fork_check(ctx))
		return -TERN_EFORK;
	struct stats_out o = {.out = out, .room = *n};
	int err = 0;
	api_lock(ctx);
	if (!scope || !*scope) {
		stats_context(ctx, &o);
	} else if (!strncmp(scope, "peer/", 5)) {
		err = stats_peer(ctx, scope + 5, &o);
	} else {
		err = -TERN_ENOENT;
	}
	api_unlock(ctx);
	*n = o.n;
	return err ? ERR(err, "scope \"%s\": there are \"\", \"peer/<number>\" and \"peer/<number>/path/<id>\"", scope) : 0;
}
