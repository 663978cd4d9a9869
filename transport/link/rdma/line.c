/* What the line below a path asks of its connections: RC or UC, and how many writes may be under way. From the contract, before anything is
 * sent, and, with mode=auto, from what is seen: a RC card that misses a packet repeats everything behind it, a round trip later, so writes
 * complete late, and the device counts it. Called by path.c and tx.c. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "link/rdma/rdma.h"
#include "tern/tern.h"

enum {
	LINE_PACKET_BYTES = 4096,
	LINE_WRITE_BYTES = 32768, /* a write of a path that always has something to send, at least (PEER_WRITE_UNIT) */
	LINE_DEPTH_MAX = 32768,
	LINE_LATE_LEAST = 4,
	LINE_WINDOW = 256, /* writes timed before the sums begin anew */
};
#define LINE_COST 0.1               /* part of the time that may go to repeating */
#define LINE_SHORT_NS 1000000ull    /* below, going back costs little */
#define LINE_SLACK_NS 1000000ull    /* a host may be so late in looking */

/* Going back repeats what was in flight behind the lost packet: with loss p and n packets in flight the line does 1 + p n times the work. */
void rdma_line_open(struct rdma_path *p)
{
	const struct rdma_link *l = (const struct rdma_link *)p->base.link;
	double flight = (double)p->line.bytes_per_s * (double)p->line.rtt_ns / 1e9;

	p->wants_uc = l->options.mode == RDMA_MODE_UC;
	if (l->options.mode == RDMA_MODE_AUTO)
		p->wants_uc = p->line.rtt_ns >= LINE_SHORT_NS && p->line.loss * flight / LINE_PACKET_BYTES > LINE_COST;
	rdma_path_kind(p, p->wants_uc);
}

uint32_t rdma_line_depth(const struct rdma_path *p)
{
	struct rdma_link *l = (struct rdma_link *)p->base.link;
	const struct ibv_device_attr *device = &p->port->device->attr;
	double flight = (double)p->line.bytes_per_s * (double)p->line.rtt_ns / 1e9, wanted = flight / LINE_WRITE_BYTES;
	uint32_t depth = RDMA_SQ_DEFAULT, most = (uint32_t)(device->max_qp_wr < device->max_cqe / 2 ? device->max_qp_wr : device->max_cqe / 2);

	if (l->options.sq)
		return l->options.sq;
	if (p->is_uc) /* a write is over when it has left: the queue need not hold the path */
		return depth;
	while (depth < wanted && depth < LINE_DEPTH_MAX && 2 * depth <= most)
		depth *= 2;
	if (depth * 2.0 < wanted)
		rdma_log(l, TERN_LOG_WARN, "rdma: the contract has %.0f MiB in flight, a queue of %s holds %u writes, which are %u to %u MiB",
		        flight / (1 << 20), p->port->device->name, depth, depth / 32, depth / 16);
	return depth;
}

void rdma_line_no_uc(struct rdma_path *p)
{
	const struct rdma_link *l = (const struct rdma_link *)p->base.link;

	if (l->options.mode != RDMA_MODE_AUTO)
		return;
	p->wants_uc = false;
	p->is_bound = true;
}

void rdma_line_start(struct rdma_path *p)
{
	memset(&p->watch, 0, sizeof(p->watch));
	p->watch.least_ns = UINT64_MAX;
}

static bool line_is_watched(const struct rdma_path *p)
{
	const struct rdma_link *l = (const struct rdma_link *)p->base.link;
	return l->options.mode == RDMA_MODE_AUTO && !p->is_uc && !p->is_bound;
}

void rdma_line_sent(struct rdma_leg *leg, uint64_t now_ns)
{
	struct rdma_watch *w = &leg->path->watch;

	if (w->leg || !line_is_watched(leg->path))
		return;
	w->leg = leg;
	w->index = leg->sq.head - 1;
	w->since_ns = now_ns;
}

/* What the device has counted of packets that it had to repeat, under the names that drivers have for it (rxe, mlx5, bnxt_re). @return UINT64_MAX: nothing counts them */
static uint64_t line_repeats(const struct rdma_path *p)
{
	static const char *const names[] = {"rcvd_seq_err", "completer_retry_err", "packet_seq_err", "local_ack_timeout_err", "implied_nak_seq_err",
	        "seq_err_naks_rcvd", "to_retransmits"};
	uint64_t sum = UINT64_MAX;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		char file[160];
		unsigned long long n;
		snprintf(file, sizeof(file), "/sys/class/infiniband/%s/ports/%u/hw_counters/%s", p->port->device->name, p->leg[0].id->port_num,
		        names[i]);
		FILE *f = fopen(file, "re");
		if (f && fscanf(f, "%llu", &n) == 1)
			sum = (sum == UINT64_MAX ? 0 : sum) + n;
		if (f)
			fclose(f);
	}
	return sum;
}

static void line_anew(struct rdma_watch *w)
{
	w->busy_ns = w->extra_ns = 0;
	w->timed = w->late = 0;
}

/* Much of the time went to waiting. Because packets were repeated, or because of a queue on the way? */
static void line_judge(struct rdma_path *p)
{
	struct rdma_watch *w = &p->watch;
	uint64_t now = line_repeats(p);

	if (now == UINT64_MAX || w->repeats == UINT64_MAX || now - w->repeats < w->late / 2) {
		line_anew(w);
		return;
	}
	rdma_path_fail(p, "the line loses packets (%llu repeats, %.0f %% of the time): going on with mode uc",
	        (unsigned long long)(now - w->repeats), 100.0 * (double)w->extra_ns / (double)w->busy_ns);
	p->wants_uc = true;
	p->backoff_ns = RDMA_BACKOFF_NS;
}

void rdma_line_completed(struct rdma_leg *leg, uint32_t index, uint64_t now_ns)
{
	struct rdma_path *p = leg->path;
	struct rdma_watch *w = &p->watch;

	if (w->leg != leg || (int32_t)(index - w->index) < 0 || p->is_failing)
		return;
	uint64_t took = now_ns > w->since_ns ? now_ns - w->since_ns : 0;
	w->leg = NULL;
	if (w->timed == LINE_WINDOW || took < LINE_SHORT_NS)
		line_anew(w);
	w->least_ns = took < w->least_ns ? took : w->least_ns;
	w->timed++;
	w->busy_ns += took;
	if (took <= w->least_ns + w->least_ns / 2 + LINE_SLACK_NS)
		return;
	if (!w->late++) /* not before: a line that loses nothing pays nothing */
		w->repeats = line_repeats(p);
	w->extra_ns += took - w->least_ns;
	if (w->late >= LINE_LATE_LEAST && (double)w->extra_ns > LINE_COST * (double)w->busy_ns)
		line_judge(p);
}
