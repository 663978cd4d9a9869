/* What the line below a path asks of its connections: RC or UC, and how many writes may be under way. From the contract, before anything is
 * sent, and, with mode=auto, from what is seen: a RC card that misses a packet repeats everything behind it, a round trip later, so writes
 * complete late, and the device counts it. Called by path.c and tx.c. */
#include <stdio.h>
#include <string.h>
#include "link/rdma/rdma.h"
#include "tern/tern.h"

enum {
	LINE_PACKET_BYTES = 4096,
	LINE_WRITE_BYTES = 32768, /* a write of a path that always has something to send, at least (PEER_WRITE_UNIT) */
	LINE_DEPTH_MAX = 32768,
	LINE_LATE_LEAST = 4,
	LINE_WINDOW = 256, /* requests timed before the sums begin anew */
	LINE_VAIN_MAX = 7,
};
#define LINE_COST 0.1               /* part of the time that may go to repeating */
#define LINE_SHORT_NS 1000000ull    /* below, going back costs little */
#define LINE_SLACK_NS 1000000ull    /* a host may be so late in looking */
#define LINE_PAUSE_NS 500000000ull  /* doubled each time */

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

/* Bytes that the contract has in flight, in writes of at least 32 KiB. */
static double line_wanted(const struct rdma_path *p)
{
	return (double)p->line.bytes_per_s * (double)p->line.rtt_ns / 1e9 / LINE_WRITE_BYTES;
}

/* The completion queue must hold what all lanes have under way, beside their ends for windows, queue pair 0 and what is received. */
uint32_t rdma_line_depth(const struct rdma_path *p)
{
	const struct rdma_link *l = (const struct rdma_link *)p->base.link;
	const struct ibv_device_attr *device = &p->port->device->attr;
	uint32_t depth = RDMA_SQ_DEFAULT, most = (uint32_t)device->max_cqe / (2 * p->base.lanes);

	if (l->options.sq)
		return l->options.sq;
	if (p->is_uc) /* a write is over when it has left: the queue need not hold the path */
		return depth;
	most = most < (uint32_t)device->max_qp_wr ? most : (uint32_t)device->max_qp_wr;
	most = p->depth_most && p->depth_most < most ? p->depth_most : most;
	while (depth < line_wanted(p) && depth < LINE_DEPTH_MAX && 2 * depth <= most)
		depth *= 2;
	return depth;
}

/* max_qp_wr is for the smallest requests: drivers refuse as many larger ones (mlx5: EINVAL). */
bool rdma_line_shallower(struct rdma_leg *leg)
{
	const struct rdma_link *l = (const struct rdma_link *)leg->path->base.link;
	struct rdma_sq *sq = &leg->sq;

	if (l->options.sq || sq->depth <= RDMA_SQ_DEFAULT || sq->reported != sq->head)
		return false;
	sq->depth /= 2; /* it is empty: its records may lie elsewhere from now on */
	leg->path->depth_most = sq->depth;
	return true;
}

void rdma_line_no_uc(struct rdma_path *p)
{
	const struct rdma_link *l = (const struct rdma_link *)p->base.link;

	if (l->options.mode != RDMA_MODE_AUTO)
		return;
	p->wants_uc = false;
	p->is_bound = p->has_no_uc = true;
}

void rdma_line_start(struct rdma_path *p)
{
	const struct rdma_link *l = (const struct rdma_link *)p->base.link;
	uint32_t depth = rdma_path_out(p, 1)->sq.depth;

	if (p->watch.device != p->port->device)
		p->watch = (struct rdma_watch){.device = p->port->device};
	p->watch.leg = NULL;
	if (!p->is_uc && !l->options.sq && depth * 2.0 < line_wanted(p))
		rdma_log(l, TERN_LOG_WARN, "rdma: the contract has %.0f MiB in flight, a queue of %s holds %u writes, which are %u to %u MiB",
		        line_wanted(p) / 32, p->port->device->name, depth, depth / 32, depth / 16);
}

static bool line_is_watched(const struct rdma_path *p)
{
	const struct rdma_link *l = (const struct rdma_link *)p->base.link;
	return l->options.mode == RDMA_MODE_AUTO && !p->is_uc && !p->is_bound;
}

void rdma_line_sent(struct rdma_leg *leg, uint64_t now_ns)
{
	struct rdma_watch *w = &leg->path->watch;

	if (w->leg || now_ns < w->pause_ns || !line_is_watched(leg->path))
		return;
	w->leg = leg;
	w->index = leg->sq.head - 1;
	w->since_ns = now_ns;
}

static uint64_t line_count(const struct rdma_path *p, const char *const *names, bool *known)
{
	uint64_t sum = 0;

	for (; *names; names++) {
		char file[160];
		unsigned long long n;
		snprintf(file, sizeof(file), "/sys/class/infiniband/%s/ports/%u/hw_counters/%s", p->port->device->name, p->leg[0].id->port_num,
		        *names);
		FILE *f = fopen(file, "re");
		if (f && fscanf(f, "%llu", &n) == 1) {
			sum += n;
			*known = true;
		}
		if (f)
			fclose(f);
	}
	return sum;
}

/* What the device has counted of packets that it had to repeat, because they were lost, and because the receiver was not ready; under the names that drivers have for
 * it (rxe, mlx5, bnxt_re). */
static struct rdma_repeats line_repeats(const struct rdma_path *p)
{
	static const char *const lost[] = {"rcvd_seq_err", "completer_retry_err", "packet_seq_err", "local_ack_timeout_err", "implied_nak_seq_err",
	        "seq_err_naks_rcvd", "to_retransmits", NULL}, *const unready[] = {"rcvd_rnr_err", "rnr_nak_retry_err", "rnr_naks_rcvd", NULL};
	struct rdma_repeats r = {0};
	bool any = false;

	if (!p->leg[0].id)
		return r;
	r.lost = line_count(p, lost, &r.known);
	r.unready = line_count(p, unready, &any);
	return r;
}

static void line_anew(struct rdma_watch *w)
{
	w->busy_ns = w->extra_ns = 0;
	w->timed = w->late = 0;
}

/* Much of the time went to waiting. Because packets were repeated, or because of a queue on the way, a late host, a slow receiver? Each time in
 * vain it is looked at later again: a look costs a dozen system calls. @return it is the line; *repeats how often */
static bool line_judge(struct rdma_path *p, uint64_t now_ns, uint64_t *repeats)
{
	struct rdma_watch *w = &p->watch;
	const struct rdma_repeats before = w->repeats, now = line_repeats(p);
	uint32_t late = w->late;

	*repeats = now.lost - before.lost;
	if (now.known && before.known && now.lost >= before.lost && *repeats >= late / 2 && now.unready == before.unready)
		return true;
	line_anew(w);
	w->pause_ns = now_ns + (LINE_PAUSE_NS << w->vain);
	w->vain += w->vain < LINE_VAIN_MAX;
	return false;
}

/* A timed request took so long, or longer. @return it is the line */
static bool line_took(struct rdma_path *p, uint64_t took, bool is_over, uint64_t now_ns, uint64_t *repeats)
{
	struct rdma_watch *w = &p->watch;

	if (is_over && (!w->least_ns || took < w->least_ns))
		w->least_ns = took;
	if (!w->least_ns || w->least_ns < LINE_SHORT_NS)
		return false;
	if (w->timed == LINE_WINDOW)
		line_anew(w);
	uint64_t least = w->least_ns > p->line.rtt_ns ? w->least_ns : p->line.rtt_ns;
	w->timed++;
	w->busy_ns += took;
	if (took <= least + least / 2 + (least / 4 < LINE_SLACK_NS ? least / 4 : LINE_SLACK_NS))
		return false;
	if (!w->late++) /* not before: a line that loses nothing pays nothing */
		w->repeats = line_repeats(p);
	w->extra_ns += took - least;
	return w->late >= LINE_LATE_LEAST && (double)w->extra_ns > LINE_COST * (double)w->busy_ns && line_judge(p, now_ns, repeats);
}

void rdma_line_completed(struct rdma_leg *leg, uint32_t index)
{
	struct rdma_path *p = leg->path;
	struct rdma_watch *w = &p->watch;

	if (w->leg != leg || (int32_t)(index - w->index) < 0 || p->is_failing)
		return;
	uint64_t now = rdma_now_ns(), repeats; /* not the step's, which may be from before the host was late: that would make it short */
	w->leg = NULL;
	if (!line_took(p, now > w->since_ns ? now - w->since_ns : 0, true, now, &repeats))
		return;
	rdma_path_fail(p, "the line loses packets (%.0f %% of the time went to waiting, the device repeated %llu): going on with mode uc",
	        100.0 * (double)w->extra_ns / (double)w->busy_ns, (unsigned long long)repeats);
	p->wants_uc = true;
	p->backoff_ns = RDMA_BACKOFF_NS;
}

/* Other paths of the peer may end a connection that is repeating before its requests complete. */
void rdma_line_end(struct rdma_path *p)
{
	struct rdma_watch *w = &p->watch;
	uint64_t now = rdma_now_ns(), repeats;

	if (w->leg && now > w->since_ns && line_took(p, now - w->since_ns, false, now, &repeats)) {
		p->wants_uc = true;
		rdma_log((struct rdma_link *)p->base.link, TERN_LOG_WARN,
		        "rdma: the line loses packets (the device repeated %llu): going on with mode uc", (unsigned long long)repeats);
	}
	w->leg = NULL;
}
