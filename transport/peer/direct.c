/* Direct placement, the receiving end: frames without a header, told by number and length; RUN records say what they carry. Called by peer.c for records and by loop/ for
 * frames. Knows no link: on a reliable one a lane's frames come in order and complete, on others each RUN names its numbers. */
#include <string.h>
#include "peer/peer.h"
#include "tern/error.h"

void peer_direct_start(struct peer_path *path, uint64_t now_ns)
{
	struct peer_direct *d = path->direct;
	if (!d)
		return;
	memset(d->tx_lane, 0, sizeof(d->tx_lane)); /* so a RUN comes first on each lane; until then what still comes in is the last connection's */
	uint32_t kept = 0;
	for (uint32_t i = 0; i < d->waits; i++) /* what nobody has acknowledged comes again; room is for what has been */
		if (d->wait[i].by_link || !d->is_reliable)
			d->wait[kept++] = d->wait[i];
	d->waits = kept;
	peer_frame_size(path, path->frame_max, now_ns);
}

int peer_rx_run(struct peer_path *path, const struct wire_run *r)
{
	struct peer_direct *d = path->direct;
	struct peer_run run = {.first = r->first, .offset = r->offset, .frames = r->frames, .seq = r->seq, .stride_bytes = r->stride_bytes,
		.bytes = r->bytes, .ack_last = r->ack_last};
	if (!d || r->channel || r->lane > PEER_LANES_MAX)
		return -TERN_EPROTO;
	if (d->is_reliable != !r->frames)
		return 0; /* made for the connection before, which was of the other kind, and sent late */
	if (d->is_reliable) {
		run.frames = 1; /* the lane is in use */
		d->rx_lane[r->lane] = run;
		return 0;
	}
	for (uint32_t i = 0; i < PEER_RUNS; i++)
		if (d->run[i].frames && d->run[i].first == run.first)
			return 0; /* said before */
	d->run[d->run_at++ % PEER_RUNS] = run;
	return 0;
}

/* @return false: no RUN that is remembered has this number, or it has another length there */
static bool direct_find(const struct peer_direct *d, uint64_t number, uint32_t bytes, struct peer_run *out)
{
	for (uint32_t n = 1; n <= PEER_RUNS; n++) {
		const struct peer_run *r = &d->run[(d->run_at - n) % PEER_RUNS];
		if (number - r->first >= r->frames)
			continue;
		uint32_t at = (uint32_t)(number - r->first) * r->stride_bytes,
		         want = r->bytes - at < r->stride_bytes ? r->bytes - at : r->stride_bytes;
		bool is_last = number - r->first == r->frames - 1;
		*out = (struct peer_run){.first = number, .offset = r->offset + at, .frames = 1, .seq = r->seq, .bytes = bytes,
			.ack_last = r->ack_last && is_last};
		return want == bytes;
	}
	return false;
}

/* What a lane that keeps order carries next. */
static bool direct_follow(struct peer_direct *d, const struct peer_placed *p, uint64_t number, struct peer_run *out)
{
	struct peer_run *lane = p->lane <= PEER_LANES_MAX ? &d->rx_lane[p->lane] : NULL;
	if (!lane || !lane->frames || number < lane->first)
		return false;
	*out = (struct peer_run){.first = number, .offset = lane->offset, .frames = 1, .seq = lane->seq, .bytes = p->bytes};
	lane->offset += p->bytes;
	return true;
}

static void direct_commit(struct peer_path *path, const struct peer_run *r, uint64_t now_ns)
{
	const struct peer_direct *d = path->direct;
	uint32_t packets = d->packet_bytes ? (r->bytes + d->packet_bytes - 1) / d->packet_bytes : 1;
	struct flow_arrival a = {.number = r->first, .wire_bytes = r->bytes + packets * d->packet_overhead, .ack_eliciting = !d->is_reliable,
		.ack_now = r->ack_last};
	flow_rx_commit(&path->flow, &a, now_ns);
}

/* Its HEAD has not come: kept until it does. A reliable link has acknowledged it already, so there it must not be lost; neighbours of one message become one. */
static int direct_wait(struct peer_direct *d, const struct peer_run *r)
{
	for (uint32_t i = 0; d->is_reliable && i < d->waits; i++) {
		struct peer_run *w = &d->wait[i];
		if (w->by_link && w->seq == r->seq && w->offset + w->bytes == r->offset && w->bytes <= UINT32_MAX - r->bytes) {
			w->bytes += r->bytes;
			return 0;
		}
	}
	if (d->waits == PEER_WAITS)
		return d->is_reliable ? -TERN_EPROTO : -TERN_EAGAIN;
	d->wait[d->waits] = *r;
	d->wait[d->waits++].by_link = d->is_reliable;
	return d->is_reliable ? 0 : -TERN_EAGAIN;
}

static bool direct_waits(const struct peer_direct *d, uint64_t number)
{
	for (uint32_t i = 0; !d->is_reliable && i < d->waits; i++)
		if (!d->wait[i].by_link && d->wait[i].first == number)
			return true;
	return false;
}

int peer_rx_placed(struct peer_path *path, const struct peer_placed *p, uint64_t now_ns)
{
	struct peer_direct *d = path->direct;
	struct peer_run run;
	if (!d || !p->bytes)
		return -TERN_EPROTO;
	uint64_t near = path->flow.rx_newest_end, number = near + (uint64_t)(int64_t)(int32_t)(p->number - (uint32_t)near);
	if (number > INT64_MAX || (!d->is_reliable && (flow_rx_check(&path->flow, number) || direct_waits(d, number))))
		return 0;
	if (!(d->is_reliable ? direct_follow(d, p, number, &run) : direct_find(d, number, p->bytes, &run)))
		return d->is_reliable ? -TERN_EPROTO : -TERN_EAGAIN;
	int err = msg_rx_placed(path->peer->pair, run.seq, run.offset, run.bytes);
	if (err == -TERN_EAGAIN)
		err = direct_wait(d, &run);
	if (!err)
		direct_commit(path, &run, now_ns);
	return err;
}

void peer_direct_again(struct peer_path *path, uint64_t now_ns)
{
	struct peer_direct *d = path->direct;
	uint32_t kept = 0, n = d->waits;
	for (uint32_t i = 0; i < n; i++) {
		struct peer_run run = d->wait[i];
		int err = msg_rx_placed(path->peer->pair, run.seq, run.offset, run.bytes);
		if (err == -TERN_EAGAIN)
			d->wait[kept++] = run;
		else if (!err && !run.by_link && !flow_rx_check(&path->flow, run.first))
			direct_commit(path, &run, now_ns);
	}
	d->waits = kept;
}

void peer_done(struct peer_path *path, const struct flow_done *done, uint64_t now_ns)
{
	struct flow_report r[PEER_ITEMS_MAX];
	long n = flow_on_done(&path->flow, done, now_ns, r, PEER_ITEMS_MAX);
	peer_reports(path, r, n);
	if (!done->is_lost)
		peer_heard(path, now_ns);
}
