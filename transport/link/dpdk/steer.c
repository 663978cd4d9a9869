/* Receive queues of their own for the links of a port: rules (rte_flow) bring the datagrams of a link's UDP ports to its queue. Everything without a rule stays on queue
 * 0, which all links read (share.c): ARP and the like, strangers, the frames of the first link, of links for which no queue is left and of ports that got no rule. So a
 * rule that is refused costs a hand-over, never a frame. Called by port.c and share.c at open and close, and when a UDP port is taken or given; never for frames. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <rte_errno.h>
#include "link/dpdk/dpdk.h"
#include "tern/tern.h"

enum { STEER_TRIAL_PORT = 1 }; /* tcpmux: none of ours, and no queue is read yet */

static const struct rte_flow_attr steer_attr = {.ingress = 1};

/* What a rule is for: the datagrams of one IP version to a UDP port. */
struct steer_what {
	uint16_t vlan, port, queue;
	bool is_ip6;
};

/* @return the rule; NULL: refused, *refusal says why if the driver does */
static struct rte_flow *steer_rule(const struct dpdk_port *p, const struct steer_what *w, struct rte_flow_error *refusal)
{
	const struct rte_flow_item_vlan tag = {.tci = htons(w->vlan)}, tag_mask = {.tci = htons(0x0fff)};
	const struct rte_flow_item_udp udp = {.hdr.dst_port = htons(w->port)}, udp_mask = {.hdr.dst_port = 0xffff};
	const struct rte_flow_action_queue to = {.index = w->queue};
	const struct rte_flow_action actions[] = {{.type = RTE_FLOW_ACTION_TYPE_QUEUE, .conf = &to}, {.type = RTE_FLOW_ACTION_TYPE_END}};
	struct rte_flow_item items[5] = {{.type = RTE_FLOW_ITEM_TYPE_ETH}};
	unsigned n = 1;

	if (w->vlan)
		items[n++] = (struct rte_flow_item){.type = RTE_FLOW_ITEM_TYPE_VLAN, .spec = &tag, .mask = &tag_mask};
	items[n++].type = w->is_ip6 ? RTE_FLOW_ITEM_TYPE_IPV6 : RTE_FLOW_ITEM_TYPE_IPV4;
	items[n++] = (struct rte_flow_item){.type = RTE_FLOW_ITEM_TYPE_UDP, .spec = &udp, .mask = &udp_mask};
	items[n].type = RTE_FLOW_ITEM_TYPE_END;
	memset(refusal, 0, sizeof(*refusal));
	if (rte_flow_validate(p->id, &steer_attr, items, actions, refusal))
		return NULL;
	return rte_flow_create(p->id, &steer_attr, items, actions, refusal);
}

/* Everything that has no rule goes to queue 0. */
static struct rte_flow *steer_rest(const struct dpdk_port *p, struct rte_flow_error *refusal)
{
	const struct rte_flow_attr last = {.ingress = 1, .priority = 1};
	const struct rte_flow_item items[] = {{.type = RTE_FLOW_ITEM_TYPE_ETH}, {.type = RTE_FLOW_ITEM_TYPE_END}};
	const struct rte_flow_action_queue to = {.index = 0};
	const struct rte_flow_action actions[] = {{.type = RTE_FLOW_ACTION_TYPE_QUEUE, .conf = &to}, {.type = RTE_FLOW_ACTION_TYPE_END}};
	return rte_flow_create(p->id, &last, items, actions, refusal);
}

static const char *steer_words(const struct rte_flow_error *refusal)
{
	return refusal->message ? refusal->message : rte_strerror(rte_errno);
}

static bool steer_has(const struct net_config *net, bool is_ip6)
{
	return is_ip6 ? !IN6_IS_ADDR_UNSPECIFIED(&net->ip6) : net->ip4.s_addr != 0;
}

void dpdk_steer_one(struct dpdk_link *l, const char *why)
{
	snprintf(l->share->one_why, sizeof(l->share->one_why), "%s", why);
}

uint16_t dpdk_steer_queues(struct dpdk_link *l, const struct rte_eth_dev_info *info)
{
	unsigned want = l->options.queues ? l->options.queues : DPDK_QUEUES, most = info->max_rx_queues;

	if (l->port.driver.queues_max && l->port.driver.queues_max < most)
		most = l->port.driver.queues_max;
	if (l->port.driver.pairs && info->max_tx_queues < most)
		most = info->max_tx_queues;
	if (want == 1)
		dpdk_steer_one(l, "queues=1");
	else if (l->port.driver.one_queue)
		dpdk_steer_one(l, "ports of its kind take no rules");
	else if (!l->port.driver.keeps && !l->port.driver.spreads)
		dpdk_steer_one(l, "its driver is not known to keep to queue 0 what no rule is for");
	else if (most < 2)
		dpdk_steer_one(l, "it has one receive queue");
	else
		return (uint16_t)RTE_MIN(want, most);
	return 1;
}

bool dpdk_steer_open(struct dpdk_link *l)
{
	struct dpdk_port *p = &l->port;
	struct rte_flow_error refusal = {0};

	for (int is_ip6 = 0; is_ip6 < 2; is_ip6++) {
		const struct steer_what what = {.vlan = l->options.net.vlan, .port = STEER_TRIAL_PORT, .queue = 1, .is_ip6 = is_ip6};
		if (!steer_has(&l->options.net, is_ip6))
			continue;
		struct rte_flow *trial = steer_rule(p, &what, &refusal);
		if (!trial)
			goto refused;
		rte_flow_destroy(p->id, trial, NULL);
	}
	p->rest = p->driver.spreads ? steer_rest(p, &refusal) : NULL;
	if (p->driver.spreads && !p->rest)
		goto refused;
	return true;

refused:
	snprintf(l->share->one_why, sizeof(l->share->one_why), "its driver refuses rules by UDP port (%s)", steer_words(&refusal));
	return false;
}

/* What its last reader has left. Nobody reads the queue now, and no rule leads to it. */
static void steer_empty(const struct dpdk_port *p, uint16_t queue)
{
	struct rte_mbuf *old[DPDK_BURST];
	uint16_t n;

	for (int i = 0; i <= p->rx_ring / DPDK_BURST && (n = rte_eth_rx_burst(p->id, queue, old, DPDK_BURST)); i++)
		rte_pktmbuf_free_bulk(old, n);
}

void dpdk_steer_enter(struct dpdk_link *l)
{
	struct dpdk_share *s = l->share;

	if (!atomic_load(&s->links))
		return;
	if (*s->one_why)
		dpdk_log(l, TERN_LOG_INFO, "dpdk port %s: one receive queue for all links, whose frames are told apart in software: %s",
			s->port.name, s->one_why);
	*s->one_why = 0;
	for (uint16_t queue = 1; queue < s->port.rx_queues && !l->rx_queue; queue++)
		if (!s->reader[queue]) {
			steer_empty(&s->port, queue);
			s->reader[queue] = l;
			l->rx_queue = queue;
			dpdk_log(l, TERN_LOG_INFO, "dpdk port %s: link %u has receive queue %u of its own", s->port.name, (unsigned)l->slot,
				(unsigned)queue);
		}
	if (s->port.rx_queues > 1 && !l->rx_queue)
		dpdk_log(l, TERN_LOG_INFO,
			"dpdk port %s: link %u shares receive queue 0: the %u others are taken; the first link's queues= says how many there are",
			s->port.name, (unsigned)l->slot, s->port.rx_queues - 1u);
}

void dpdk_steer_leave(struct dpdk_link *l)
{
	if (l->rx_queue)
		l->share->reader[l->rx_queue] = NULL;
}

void dpdk_steer_tell(struct dpdk_link *l)
{
	if (l->options.queues > l->port.rx_queues)
		dpdk_log(l, TERN_LOG_INFO, "dpdk port %s: queues=%u: it gets %u: %s", l->port.name, (unsigned)l->options.queues,
			(unsigned)l->port.rx_queues, l->port.rx_queues == 1 ? l->share->one_why : "as many as it takes");
}

static void steer_drop(const struct dpdk_link *l, struct dpdk_rule *r)
{
	for (int i = 0; i < 2; i++)
		if (r->flow[i])
			rte_flow_destroy(l->port.id, r->flow[i], NULL);
}

void dpdk_steer_add(struct dpdk_link *l, uint16_t port)
{
	const struct net_config *net = &l->share->net;
	struct rte_flow_error refusal = {.message = "too many UDP ports"};
	struct dpdk_rule r = {.port = port};
	bool is_full = l->n_rules == DPDK_RULES_MAX;

	for (int is_ip6 = 0; is_ip6 < 2 && !is_full; is_ip6++) {
		const struct steer_what what = {.vlan = net->vlan, .port = port, .queue = l->rx_queue, .is_ip6 = is_ip6};
		if (!steer_has(net, is_ip6))
			continue;
		r.flow[is_ip6] = steer_rule(&l->port, &what, &refusal);
		is_full = !r.flow[is_ip6];
	}
	if (is_full && !l->is_unruled)
		dpdk_log(l, TERN_LOG_INFO,
			"dpdk port %s: no rule for UDP port %u (%s): its frames, and those of others that get none, come by the common queue",
			l->port.name, (unsigned)port, steer_words(&refusal));
	l->is_unruled |= is_full;
	if (r.flow[0] || r.flow[1])
		l->rules[l->n_rules++] = r;
}

void dpdk_steer_remove(struct dpdk_link *l, uint16_t port)
{
	for (uint16_t i = 0; i < l->n_rules; i++)
		if (l->rules[i].port == port) {
			steer_drop(l, &l->rules[i]);
			l->rules[i] = l->rules[--l->n_rules];
			return;
		}
}
