/* Takes acknowledgements in: what they cover leaves the list of extents and is reported, then RTT, queue and rate are sampled and the congestion control hears of it.
 * Costs per extent touched; the loss-free path only looks at the head of the list. */
#include "flow/state.h"
#include "tern/error.h"

static void news_add(struct flow_news *news, const struct flow_extent *e)
{
	news->wire_bytes += e->wire_bytes;
	news->end = e->first + e->frames;
	news->sent_ns = e->sent_ns + e->span_ns;
	news->delivered_64 = e->delivered_64;
	news->app_limited = e->flags & FLOW_EXTENT_APP_LIMITED;
}

/* An acknowledgement that ends inside an extent: the common case of a burst that is still arriving. */
static void ack_front(struct flow *f, uint32_t i, uint32_t frames, struct flow_news *news, struct flow_sink *sink)
{
	struct flow_extent *e = &f->shared->extent[i];
	uint64_t sent_ns = e->sent_ns + (e->span_ns ? (uint64_t)e->span_ns * frames / e->frames : 0);
	uint32_t wire = flow_extent_take_head(f, i, frames, FLOW_ACKED, sink);

	if (!wire)
		return;
	news->wire_bytes += wire;
	news->end = e->first;
	news->sent_ns = sent_ns;
	news->delivered_64 = e->delivered_64;
	news->app_limited = e->flags & FLOW_EXTENT_APP_LIMITED;
}

/* Takes all of [first, last] off the list from extent *at on, whose predecessor is *prev; leaves both at the first extent behind it. */
static void ack_range(struct flow *f, const struct wire_range *range, uint32_t cursor[2], struct flow_news *news, struct flow_sink *sink)
{
	uint32_t prev = cursor[0], i = cursor[1];

	while (i != FLOW_NONE) {
		struct flow_extent *e = &f->shared->extent[i];
		uint64_t last = e->first + e->frames - 1;

		if (e->first > range->last)
			break;
		if (last < range->first) { /* in a gap: lost, or late */
			prev = i;
			i = e->next;
			continue;
		}
		if (e->first < range->first) {
			uint32_t rest = flow_extent_split(f, i, (uint32_t)(range->first - e->first));

			prev = i;
			i = rest == FLOW_NONE ? f->shared->extent[i].next : rest; /* no extent to split with: the next acknowledgement says it again */
			continue;
		}
		if (last > range->last) {
			ack_front(f, i, (uint32_t)(range->last + 1 - e->first), news, sink);
			break;
		}
		news_add(news, e);
		flow_extent_unlink(f, prev, i);
		last = e->next;
		flow_extent_report(f, i, FLOW_ACKED, sink);
		i = (uint32_t)last;
	}
	cursor[0] = prev;
	cursor[1] = i;
}

static void ack_collect(struct flow *f, const struct wire_ack *ack, struct flow_news *news, struct flow_sink *sink)
{
	uint32_t cursor[2] = {FLOW_NONE, f->head};

	for (uint32_t r = ack->ranges; r-- > 0 && cursor[1] != FLOW_NONE;)
		if (ack->range[r].last >= f->shared->extent[cursor[1]].first)
			ack_range(f, &ack->range[r], cursor, news, sink);
}

void flow_news_tell(struct flow *f, const struct wire_ack *ack, const struct flow_news *news, uint64_t now_ns)
{
	struct tern_cc_ack ev;
	uint32_t behind = (uint32_t)(f->delivered_bytes / 64) - news->delivered_64;
	int32_t marked = (int32_t)(ack->ce_frames - f->ce_seen);

	ev.acked_bytes = news->wire_bytes;
	ev.sent_ns = news->sent_ns;
	ev.round_bytes = f->delivered_bytes - (uint64_t)behind * 64;
	ev.ce_frames = marked > 0 ? (uint32_t)marked : 0;
	f->ce_seen += ev.ce_frames;
	ev.app_limited = news->app_limited;
	ev.rtt_ns = ev.queue_ns = ev.delivery_bytes_per_s = UINT64_MAX;
	if (news->end == ack->range[0].last + 1 && now_ns > news->sent_ns) { /* the record's times are those of the newest number */
		ev.rtt_ns = flow_rtt_sample(f, ack, news->sent_ns, now_ns);
		if (!f->has_done || ack->arrival_ns == now_ns)
			ev.queue_ns = flow_queue_sample(f, ack, news->sent_ns, ev.rtt_ns, now_ns);
		ev.delivery_bytes_per_s = flow_rate_sample(f, ack, news->sent_ns);
	}
	flow_cc_facts(f, now_ns, &ev.flow);
	flow_pacer_settle(f, now_ns);
	f->cc->on_ack(f->cc_state, &ev, &f->out);
	flow_pacer_retune(f);
}

long flow_on_ack(struct flow *f, const struct wire_ack *ack, uint64_t now_ns, struct flow_report *out, size_t max)
{
	struct flow_news news = {0};
	struct flow_sink sink = {out, 0, max};

	if (ack->range[0].last >= f->next_number)
		return -TERN_EPROTO;
	f->count.acks_rx++;
	f->heard_ns = now_ns;
	ack_collect(f, ack, &news, &sink);
	if (f->losts)
		flow_loss_unlearn(f, ack, now_ns);
	if (!news.end)
		return (long)sink.n;
	f->in_flight_bytes -= news.wire_bytes;
	f->delivered_bytes += news.wire_bytes;
	if (f->delivered_bytes > f->app_limited_until)
		f->app_limited_until = 0;
	f->probes = 0;
	f->probe_due = false;
	if (f->head == FLOW_NONE)
		f->owed_since_ns = 0;
	if (news.end > f->newest_acked) {
		f->newest_acked = news.end;
		f->newest_sent_ns = news.sent_ns;
		f->rack_ns = now_ns > news.sent_ns ? now_ns - news.sent_ns : 0;
	}
	flow_news_tell(f, ack, &news, now_ns);
	flow_loss_detect(f, now_ns, &sink);
	return (long)sink.n;
}
