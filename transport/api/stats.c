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

static void stats_peer(const struct api_peer *peer, struct stats_out *o)
{
	if (!peer->lp || !peer->lp->peer.paths)
		return;
	const struct peer_path *pp = &peer->lp->path[0]->pp;
	const struct flow_counters *c = flow_count(&pp->flow);
	const struct tern_cc_out *cc = flow_cc(&pp->flow);
	uint64_t srtt = flow_srtt_ns(&pp->flow), min = flow_min_rtt_ns(&pp->flow);
	COUNTER(o, "copied_bytes", "bytes", peer->lp->peer.copied_bytes);
	COUNTER(o, "tx_frames", "frames", c->tx_frames);
	COUNTER(o, "tx_bytes", "bytes", c->tx_bytes);
	COUNTER(o, "rx_frames", "frames", c->rx_frames);
	COUNTER(o, "rx_bytes", "bytes", c->rx_bytes);
	COUNTER(o, "lost_frames", "frames", c->lost_frames);
	COUNTER(o, "lost_bytes", "bytes", c->lost_bytes);
	COUNTER(o, "spurious_frames", "frames", c->spurious_frames);
	COUNTER(o, "duplicate_frames", "frames", c->rx_duplicates);
	COUNTER(o, "ce_frames", "frames", c->rx_ce);
	COUNTER(o, "probes", "1", c->probes);
	COUNTER(o, "acks_sent", "1", c->acks_tx);
	COUNTER(o, "acks_received", "1", c->acks_rx);
	GAUGE(o, "srtt_ns", "ns", srtt == UINT64_MAX ? 0 : srtt);
	GAUGE(o, "min_rtt_ns", "ns", min == UINT64_MAX ? 0 : min);
	GAUGE(o, "in_flight_bytes", "bytes", flow_in_flight_bytes(&pp->flow));
	GAUGE(o, "window_bytes", "bytes", cc->window_bytes);
	GAUGE(o, "pace_bytes_per_s", "bytes_per_s", cc->pace_bytes_per_s);
	GAUGE(o, "frame_bytes", "bytes", pp->frame_max);
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
		struct api_peer *peer = api_peer_find(ctx, strtoull(scope + 5, NULL, 10));
		if (peer)
			stats_peer(peer, &o);
		else
			err = -TERN_ENOENT;
	} else {
		err = -TERN_ENOENT;
	}
	api_unlock(ctx);
	*n = o.n;
	return err ? ERR(err, "scope \"%s\": there are \"\" and \"peer/<number>\"", scope) : 0;
}
