/* Two flows over a channel that loses, delays, repeats and goes dark, in virtual time: one sends a message of equal chunks and some records, the other acknowledges.
 * Every rule of flow.h is checked at every step. Used by the flow and cc unit tests; all randomness comes from one seed. */
#ifndef TESTS_UNIT_FLOW_MODEL_H
#define TESTS_UNIT_FLOW_MODEL_H
#include <string.h>
#include "unit.h"
#include "cc/cc.h"
#include "flow/state.h"
#include "tern/error.h"

enum { MODEL_STRIDE = 1400, MODEL_WIRE = 1460, MODEL_RUN = 44, MODEL_RECORDS = 3, MODEL_REPORTS = 7 };
enum { KIND_BULK = 1, KIND_RECORD = 2 };

struct model_config {
	uint64_t rate, rtt_ns;      /* contract; rate also of the sender's link unless bottleneck is set */
	uint64_t bottleneck, queue_bytes; /* bytes/s and buffer of a queue on the way; 0: none */
	double loss, ack_loss, repeat;
	uint64_t jitter_ns;         /* each frame's delay varies by up to this: reordering */
	uint64_t dark_from_ns, dark_ns;
	uint64_t step_from_ns, step_ns; /* another route: frames to the receiver take this much longer */
	uint32_t chunks;
	uint32_t extents, ranges;
	const char *cc;
	uint64_t contract;          /* what cc is told; 0: rate; UINT64_MAX: nothing */
	uint32_t dedicated;
	uint64_t protection_ns;
	uint64_t buffer_bytes;      /* contract's, 0: not known */
	bool late;                  /* the sender's loop comes up to 30 us late */
};

struct model_frame {
	uint64_t when_ns, number, floor;
	uint32_t chunk;             /* UINT32_MAX: none */
	bool to_sender, elicits, repeated, has_floor, now, records;
	uint8_t ecn;
	struct wire_ack ack;        /* to_sender */
};

struct model {
	struct model_config cfg;
	struct flow tx, rx;
	struct flow_shared *shared;
	void *memory;
	uint64_t now_ns, seed;
	struct model_frame **heap;  /* by when_ns */
	size_t frames, room;
	uint8_t *state;             /* chunk: 0 waiting, 1 in flight, 2 acknowledged */
	uint8_t *got;               /* chunk arrived */
	uint8_t *lost;              /* times that this chunk was lost on the way */
	uint32_t lost_most;         /* of any chunk */
	uint8_t *taken;             /* number accepted by the receiver */
	size_t taken_room;
	uint32_t *resend, resend_head, resend_tail; /* ring of chunks that were lost */
	uint32_t fresh, acked;
	uint8_t record_state[MODEL_RECORDS];
	bool record_frame_up;
	double level;               /* pacer check: bytes above pace */
	double level_pace;
	uint64_t level_ns;
	uint64_t ack_number;
	uint64_t queue_free_ns;     /* bottleneck */
	uint64_t queue_peak_ns, drops, sent_frames, arrived_frames;
	uint64_t done_ns;
	uint64_t max_over_window;
};

static inline uint64_t model_random(struct model *m)
{
	m->seed ^= m->seed << 13;
	m->seed ^= m->seed >> 7;
	m->seed ^= m->seed << 17;
	return m->seed;
}

static inline double model_chance(struct model *m)
{
	return (double)(model_random(m) >> 11) / 9007199254740992.0;
}

/* What repair may take: an RTT for each time that one chunk was lost, and once another, until a timeout or the acknowledgement of some later frame shows it: the last
 * chunk of all has none behind it. */
static inline uint64_t model_repair_ns(const struct model_config *c, uint32_t lost_most)
{
	return lost_most ? (lost_most + 1) * c->rtt_ns + c->rtt_ns / 4 : 0;
}

static inline void model_push(struct model *m, const struct model_frame *frame)
{
	struct model_frame *copy = malloc(sizeof(*copy));
	size_t i;

	*copy = *frame;
	if (m->frames == m->room) {
		m->room = m->room ? 2 * m->room : 1024;
		m->heap = realloc(m->heap, m->room * sizeof(*m->heap));
	}
	for (i = m->frames++; i && m->heap[(i - 1) / 2]->when_ns > copy->when_ns; i = (i - 1) / 2)
		m->heap[i] = m->heap[(i - 1) / 2];
	m->heap[i] = copy;
}

static inline struct model_frame *model_pop(struct model *m)
{
	struct model_frame *top = m->heap[0], *last = m->heap[--m->frames];
	size_t i = 0, child;

	while ((child = 2 * i + 1) < m->frames) {
		if (child + 1 < m->frames && m->heap[child + 1]->when_ns < m->heap[child]->when_ns)
			child++;
		if (last->when_ns <= m->heap[child]->when_ns)
			break;
		m->heap[i] = m->heap[child];
		i = child;
	}
	if (m->frames)
		m->heap[i] = last;
	return top;
}

/* Puts a frame on its way; `at_ns` is when it leaves the sender. */
static inline void model_carry(struct model *m, struct model_frame *frame, uint64_t at_ns)
{
	const struct model_config *c = &m->cfg;
	double loss = frame->to_sender ? c->ack_loss : c->loss;

	m->sent_frames += !frame->to_sender;
	if (c->dark_ns && at_ns >= c->dark_from_ns && at_ns < c->dark_from_ns + c->dark_ns)
		return;
	if (loss > 0 && model_chance(m) < loss) {
		if (frame->chunk != UINT32_MAX && ++m->lost[frame->chunk] > m->lost_most)
			m->lost_most = m->lost[frame->chunk];
		return;
	}
	if (!frame->to_sender && c->bottleneck) {
		uint64_t start = m->queue_free_ns > at_ns ? m->queue_free_ns : at_ns;

		if ((start - at_ns) / 1e9 * (double)c->bottleneck > (double)c->queue_bytes) {
			m->drops++;
			return;
		}
		if (start - at_ns > m->queue_peak_ns)
			m->queue_peak_ns = start - at_ns;
		m->queue_free_ns = start + MODEL_WIRE * 1000000000ull / c->bottleneck;
		at_ns = m->queue_free_ns;
	}
	frame->when_ns = at_ns + c->rtt_ns / 2 + (c->jitter_ns ? model_random(m) % c->jitter_ns : 0);
	if (c->step_ns && !frame->to_sender && at_ns >= c->step_from_ns)
		frame->when_ns += c->step_ns;
	model_push(m, frame);
	if (c->repeat > 0 && model_chance(m) < c->repeat) {
		frame->repeated = true;
		frame->when_ns += 1 + model_random(m) % (c->rtt_ns / 2 + 1000);
		model_push(m, frame);
	}
}

static inline void model_open(struct model *m, const struct model_config *cfg, uint64_t seed)
{
	uint64_t contract = cfg->contract ? cfg->contract : cfg->rate;
	struct flow_config fc = {
		.path_id = 3, .cc = cc_find(cfg->cc ? cfg->cc : "fixed"), .peer_ack_delay_ns = FLOW_ACK_HOLD_NS, .now_ns = 1000000,
		.cc_init = {.contract_bytes_per_s = contract, .contract_rtt_ns = contract == UINT64_MAX ? UINT64_MAX : cfg->rtt_ns,
			    .buffer_bytes = cfg->buffer_bytes ? cfg->buffer_bytes : UINT64_MAX, .frame_bytes = MODEL_WIRE,
				.dedicated = cfg->dedicated,
			    .protection_ns = cfg->protection_ns},
	};

	memset(m, 0, sizeof(*m));
	m->cfg = *cfg;
	m->seed = seed ? seed : 1;
	m->memory = aligned_alloc(64, (flow_shared_bytes(cfg->extents, cfg->ranges) + 63) / 64 * 64);
	m->shared = fc.shared = flow_shared_init(m->memory, cfg->extents, cfg->ranges);
	m->now_ns = fc.now_ns;
	m->level_ns = fc.now_ns;
	CU_ASSERT_EQUAL_FATAL(flow_init(&m->tx, &fc), 0);
	CU_ASSERT_EQUAL_FATAL(flow_init(&m->rx, &fc), 0);
	m->level_pace = (double)m->tx.pace_bytes_per_s;
	m->state = calloc(cfg->chunks, 1);
	m->got = calloc(cfg->chunks, 1);
	m->lost = calloc(cfg->chunks, 1);
	m->resend = calloc(cfg->chunks + 1, sizeof(*m->resend));
	m->taken_room = 1 << 16;
	m->taken = calloc(m->taken_room, 1);
}

static inline void model_report(struct model *m, const struct flow_report *r)
{
	uint32_t first = (uint32_t)(r->item.offset / MODEL_STRIDE);

	if (r->item.kind == KIND_RECORD) {
		CU_ASSERT_FATAL(r->item.ref < MODEL_RECORDS && m->record_state[r->item.ref] == 1);
		m->record_state[r->item.ref] = r->kind == FLOW_ACKED ? 2 : 0;
		return;
	}
	CU_ASSERT_FATAL(r->item.ref == 77 && r->item.kind == KIND_BULK && r->item.bytes && r->item.offset % MODEL_STRIDE == 0);
	CU_ASSERT_FATAL(r->item.bytes % MODEL_STRIDE == 0 && first + r->item.bytes / MODEL_STRIDE <= m->cfg.chunks);
	for (uint32_t c = first; c < first + r->item.bytes / MODEL_STRIDE; c++) {
		CU_ASSERT_FATAL(m->state[c] == 1); /* once for each transmission */
		if (r->kind == FLOW_ACKED) {
			CU_ASSERT_FATAL(m->got[c] == 1); /* nothing is acknowledged that did not arrive */
			m->state[c] = 2;
			m->acked++;
		} else {
			m->state[c] = 0;
			m->resend[m->resend_tail] = c;
			m->resend_tail = (m->resend_tail + 1) % (m->cfg.chunks + 1);
		}
	}
}

static inline void model_reports(struct model *m, long n, struct flow_report *out)
{
	CU_ASSERT_FATAL(n >= 0);
	for (;;) {
		for (long i = 0; i < n; i++)
			model_report(m, &out[i]);
		if (n < MODEL_REPORTS)
			return;
		n = (long)flow_reports(&m->tx, out, MODEL_REPORTS);
	}
}

/* The formula of the pacer: a bucket drained at pace never holds more than a burst. With an on-time caller there is no exception. */
static inline void model_pacer(struct model *m, uint32_t bytes, bool paced)
{
	double slack = m->cfg.late ? m->level_pace * 1e-9 * FLOW_LATE_NS : 0;

	m->level -= m->level_pace * (double)(m->now_ns - m->level_ns) * 1e-9;
	if (m->level < 0)
		m->level = 0;
	m->level_ns = m->now_ns;
	m->level_pace = (double)m->tx.pace_bytes_per_s;
	if (!paced)
		return;
	m->level += bytes;
	CU_ASSERT_FATAL(m->level <= (double)flow_burst_bytes(&m->tx) + slack + 1);
}

/* A caller may send while there is room, whole frames; the room counts bytes, so nothing is sent that does not fit. */
static inline bool model_send_run(struct model *m, uint64_t room)
{
	struct flow_run run = {.stride_bytes = MODEL_STRIDE, .ack_eliciting = true};
	uint32_t max = (uint32_t)(room / MODEL_WIRE), first, n = 0;
	uint64_t number;

	if (max > MODEL_RUN)
		max = MODEL_RUN;
	if (!max)
		return false;
	if (m->resend_head != m->resend_tail) {
		first = m->resend[m->resend_head];
		while (n < max && m->resend_head != m->resend_tail && m->resend[m->resend_head] == first + n) {
			n++;
			m->resend_head = (m->resend_head + 1) % (m->cfg.chunks + 1);
		}
	} else {
		first = m->fresh;
		n = m->cfg.chunks - first < max ? m->cfg.chunks - first : max;
		m->fresh += n;
	}
	if (!n)
		return false;
	run.item = (struct flow_item){77, (uint64_t)first * MODEL_STRIDE, n * MODEL_STRIDE, KIND_BULK};
	run.frames = n;
	run.wire_bytes = n * MODEL_WIRE;
	run.app_limited = m->fresh == m->cfg.chunks && m->resend_head == m->resend_tail;
	CU_ASSERT_FATAL(m->tx.in_flight_bytes < m->tx.out.window_bytes);
	model_pacer(m, run.wire_bytes, true);
	number = flow_tx_commit(&m->tx, &run, m->now_ns);
	m->level_pace = (double)m->tx.pace_bytes_per_s;
	if (number == UINT64_MAX) { /* the pool is empty: nothing was recorded, all of it waits */
		m->level -= run.wire_bytes;
		for (uint32_t i = 0; i < n; i++) {
			m->resend[m->resend_tail] = first + i;
			m->resend_tail = (m->resend_tail + 1) % (m->cfg.chunks + 1);
		}
		return false;
	}
	for (uint32_t i = 0; i < n; i++) {
		struct model_frame frame = {.number = number + i, .chunk = first + i, .elicits = true};

		CU_ASSERT_FATAL(m->state[first + i] == 0);
		m->state[first + i] = 1;
		model_carry(m, &frame, m->now_ns);
	}
	return true;
}

/* A frame of records: the floor, a probe, and now and then several recorded items in one frame. */
static inline void model_send_mix(struct model *m, bool paced)
{
	struct model_frame frame = {.chunk = UINT32_MAX, .elicits = true, .now = true};
	struct flow_run run = {.frames = 1, .wire_bytes = 100, .ack_eliciting = true};
	bool changed, first = true;
	uint64_t number;

	frame.floor = flow_floor(&m->tx, &changed);
	frame.has_floor = changed;
	for (uint32_t i = 0; i < MODEL_RECORDS; i++)
		frame.records |= m->record_state[i] == 0;
	if (frame.records && flow_tx_spare(&m->tx) > MODEL_RECORDS) {
		for (uint32_t i = 0; i < MODEL_RECORDS; i++) {
			struct flow_item item = {i, 0, 0, KIND_RECORD};

			if (m->record_state[i] != 0)
				continue;
			if (first) {
				run.item = item;
				model_pacer(m, 100, paced);
				frame.number = flow_tx_commit(&m->tx, &run, m->now_ns);
			} else {
				CU_ASSERT_EQUAL_FATAL(flow_tx_add(&m->tx, &item), 0);
			}
			first = false;
			m->record_state[i] = 1;
		}
	} else {
		number = flow_tx_commit(&m->tx, &run, m->now_ns);
		model_pacer(m, 100, false);
		if (number == UINT64_MAX)
			return;
		frame.number = number;
	}
	if (changed)
		flow_floor_said(&m->tx);
	m->level_pace = (double)m->tx.pace_bytes_per_s;
	model_carry(m, &frame, m->now_ns);
}

static inline uint64_t model_sender(struct model *m)
{
	uint64_t when = UINT64_MAX, room;
	bool records = false, changed;

	if (flow_probe_due(&m->tx, m->now_ns))
		model_send_mix(m, false);
	for (uint32_t i = 0; i < MODEL_RECORDS; i++)
		records |= m->record_state[i] == 0;
	flow_floor(&m->tx, &changed);
	while ((room = flow_tx_room(&m->tx, m->now_ns, &when)) > 0) {
		if (records || changed) {
			model_send_mix(m, true);
			records = changed = false;
			continue;
		}
		if (!model_send_run(m, room))
			return UINT64_MAX; /* nothing to send, or no extent */
	}
	return when;
}

static inline void model_receive(struct model *m, const struct model_frame *frame)
{
	struct flow_arrival a = {.number = frame->number, .wire_bytes = MODEL_WIRE, .ecn = frame->ecn, .ack_eliciting = frame->elicits,
		.ack_now = frame->now};

	if (frame->number >= m->taken_room) {
		size_t room = frame->number * 2;

		m->taken = realloc(m->taken, room);
		memset(m->taken + m->taken_room, 0, room - m->taken_room);
		m->taken_room = room;
	}
	if (flow_rx_check(&m->rx, frame->number)) {
		CU_ASSERT_FATAL(frame->repeated || m->taken[frame->number] || frame->number < m->rx.rx_floor);
		return;
	}
	CU_ASSERT_FATAL(!m->taken[frame->number]); /* a number is taken once */
	m->taken[frame->number] = 1;
	m->arrived_frames++;
	flow_rx_commit(&m->rx, &a, m->now_ns);
	CU_ASSERT_FATAL(flow_rx_check(&m->rx, frame->number) == -TERN_ESTALE);
	if (frame->chunk != UINT32_MAX)
		m->got[frame->chunk] = 1;
	if (frame->has_floor)
		flow_rx_floor(&m->rx, frame->floor);
}

static inline void model_acknowledge(struct model *m)
{
	struct model_frame frame = {.to_sender = true, .chunk = UINT32_MAX};
	struct flow_run run = {.frames = 1, .wire_bytes = 80};

	if (!flow_ack_build(&m->rx, m->now_ns, &frame.ack))
		return;
	CU_ASSERT_EQUAL_FATAL(flow_ack_when_ns(&m->rx), UINT64_MAX);
	frame.number = flow_tx_commit(&m->rx, &run, m->now_ns);
	CU_ASSERT_EQUAL_FATAL(frame.number, m->ack_number);
	m->ack_number++;
	model_carry(m, &frame, m->now_ns);
}

static inline bool model_done(const struct model *m)
{
	for (uint32_t i = 0; i < MODEL_RECORDS; i++)
		if (m->record_state[i] != 2)
			return false;
	return m->acked == m->cfg.chunks;
}

/* Runs until everything is acknowledged. @return virtual ns it took; UINT64_MAX: not within limit_ns */
static inline uint64_t model_run(struct model *m, uint64_t limit_ns)
{
	uint64_t begin = m->now_ns, tx_when = m->now_ns, next, was;
	struct flow_report out[MODEL_REPORTS];

	while (!model_done(m)) {
		if (tx_when <= m->now_ns || flow_probe_due(&m->tx, m->now_ns))
			tx_when = model_sender(m);
		next = flow_deadline_ns(&m->tx);
		if (m->cfg.late && next != UINT64_MAX)
			next += 30000;
		was = tx_when == UINT64_MAX || !m->cfg.late ? tx_when : tx_when + model_random(m) % 30000;
		if (was < next)
			next = was;
		if (flow_ack_when_ns(&m->rx) < next)
			next = flow_ack_when_ns(&m->rx);
		if (m->frames && m->heap[0]->when_ns < next)
			next = m->heap[0]->when_ns;
		if (next == UINT64_MAX || next - begin > limit_ns)
			return UINT64_MAX;
		if (next > m->now_ns)
			m->now_ns = next;
		while (m->frames && m->heap[0]->when_ns <= m->now_ns) {
			struct model_frame *frame = model_pop(m);

			if (!frame->to_sender) {
				model_receive(m, frame);
			} else if (!flow_rx_check(&m->tx, frame->number)) {
				struct flow_arrival a = {.number = frame->number, .wire_bytes = 80};

				flow_rx_commit(&m->tx, &a, m->now_ns);
				model_reports(m, flow_on_ack(&m->tx, &frame->ack, m->now_ns, out, MODEL_REPORTS), out);
				model_pacer(m, 0, false);
				tx_when = m->now_ns;
			}
			free(frame);
		}
		if (m->now_ns >= flow_deadline_ns(&m->tx)) {
			model_reports(m, flow_on_timer(&m->tx, m->now_ns, out, MODEL_REPORTS), out);
			model_pacer(m, 0, false);
			tx_when = m->now_ns;
		}
		if (m->now_ns >= flow_ack_when_ns(&m->rx))
			model_acknowledge(m);
	}
	m->done_ns = m->now_ns - begin;
	return m->done_ns;
}

/* Closes both ends: what was in flight comes back once, and both pools are whole again. */
static inline void model_close(struct model *m)
{
	struct flow_report out[MODEL_REPORTS];
	size_t n;

	while ((n = flow_close(&m->tx, out, MODEL_REPORTS)) > 0)
		for (size_t i = 0; i < n; i++)
			model_report(m, &out[i]);
	while (flow_close(&m->rx, out, MODEL_REPORTS) > 0)
		;
	CU_ASSERT_EQUAL(m->tx.in_flight_bytes, 0);
	CU_ASSERT_EQUAL(m->shared->extents_left, m->shared->extents);
	CU_ASSERT_EQUAL(m->shared->ranges.used, 0);
	for (uint32_t c = 0; c < m->cfg.chunks; c++)
		CU_ASSERT_FATAL(m->state[c] != 1);
	while (m->frames)
		free(model_pop(m));
	free(m->heap);
	free(m->state);
	free(m->got);
	free(m->lost);
	free(m->taken);
	free(m->resend);
	free(m->memory);
}
#endif
