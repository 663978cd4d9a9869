/* Which neighbour a destination is behind, what its hardware address is, and the frames that ask and announce. Called by the dpdk link: net_neighbour through
 * net_flow_ready, net_learn for received ARP and ND, net_poll when net_deadline has passed. What may set an address is said in net.h. */
#include "link/dpdk/net_inner.h"
#include "tern/error.h"

enum {
	NONE = NET_NEIGHBOURS_MAX, /* end of a bucket's list */
	UNICAST_TRIES = 2,         /* the old address is asked first when an answer has grown old */
	ANNOUNCE_ROUNDS = 2,
	STEP_ARP = 0,
	STEP_LOCAL6,
	STEP_IP6,
	STEP_LISTENER,
	STEP_END,
};

static const uint64_t second_ns = 1000000000;
static const uint64_t fresh_ns = 30000000000;     /* an answer is believed without asking again: RFC 4861's REACHABLE_TIME */
static const uint64_t first_wait_ns = 250000000;  /* for an answer; doubles */
static const uint64_t last_wait_ns = 30000000000;
static const uint64_t idle_ns = 5000000000;       /* unused for so long: no more requests */

static const char *check_config(const struct net_config *c)
{
	uint32_t ip4 = ntohl(c->ip4.s_addr);

	if (!net_is_station(c->mac))
		return "the hardware address is zero or a group's; give the port's own";
	if (c->vlan > 4094)
		return "the VLAN id is above 4094; 0 means untagged";
	if (c->vlan_priority > 7)
		return "the VLAN priority is above 7";
	if (c->mtu_bytes < NET_MTU_MIN || c->mtu_bytes > NET_MTU_MAX)
		return "the MTU is not within 1280..9216 bytes";
	if (ip4 && (ip4 >> 24 == 127 || ip4 >> 24 == 0 || ip4 >> 28 >= 14))
		return "the IPv4 address is no host's (loopback, multicast or reserved)";
	if (ip4 && (!c->prefix4 || c->prefix4 > 32))
		return "the IPv4 prefix length is not within 1..32";
	if (ip4 && c->prefix4 < 31 && (ip4 == net_broadcast4(c) || !(ip4 & (0xffffffffu >> c->prefix4))))
		return "the IPv4 address is its network's first or last, which no host has";
	if (c->gateway4.s_addr && (c->gateway4.s_addr == c->ip4.s_addr || !ip4))
		return "the IPv4 gateway is the host itself, or there is no IPv4 address to reach it from";
	bool has_ip6 = !net_is_nobody(c->ip6.s6_addr);
	if (has_ip6 ? !c->prefix6 || c->prefix6 > 128 : !net_is_nobody(c->gateway6.s6_addr) && !IN6_IS_ADDR_LINKLOCAL(&c->gateway6))
		return "the IPv6 prefix length is not within 1..128, or there is a gateway without an address";
	if (IN6_IS_ADDR_MULTICAST(&c->ip6) || IN6_IS_ADDR_LOOPBACK(&c->ip6) || IN6_IS_ADDR_LINKLOCAL(&c->ip6) || net_is_mapped4(&c->ip6))
		return "the IPv6 address must be a global or unique local one; the link-local one is made from the hardware address";
	if (!net_is_nobody(c->local6.s6_addr) && !IN6_IS_ADDR_LINKLOCAL(&c->local6))
		return "the IPv6 link-local address is not in fe80::/10";
	return NULL;
}

int net_init(struct net_host *host, const struct net_config *config, uint64_t now_ns, const char **why)
{
	*why = check_config(config);
	if (*why)
		return -TERN_EINVAL;
	memset(host, 0, offsetof(struct net_host, entry));
	host->config = *config;
	host->ether_bytes = NET_ETHER_BYTES + (config->vlan ? NET_VLAN_BYTES : 0);
	host->local6 = config->local6;
	if (net_is_nobody(host->local6.s6_addr)) { /* modified EUI-64, RFC 4291 appendix A */
		const uint8_t *m = config->mac;
		const uint8_t addr[16] = {0xfe, 0x80, [8] = m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]};
		memcpy(&host->local6, addr, 16);
	}
	for (int i = 0; i < NET_BUCKETS; i++)
		host->bucket[i] = NONE;
	host->announce_ns = host->due_ns = now_ns;
	return 0;
}

void net_port_open(struct net_host *host, uint16_t port)
{
	host->ports[port >> 6] |= 1ull << (port & 63);
}

void net_port_close(struct net_host *host, uint16_t port)
{
	host->ports[port >> 6] &= ~(1ull << (port & 63));
}

static bool route_is_near6(const uint8_t *a, const uint8_t *b, unsigned prefix)
{
	return !memcmp(a, b, prefix / 8) && (prefix % 8 == 0 || !((a[prefix / 8] ^ b[prefix / 8]) >> (8 - prefix % 8)));
}

static int route4(const struct net_host *host, struct in_addr remote, struct in6_addr *hop, struct in6_addr *source)
{
	const struct net_config *c = &host->config;
	uint32_t to = ntohl(remote.s_addr), own = ntohl(c->ip4.s_addr);

	if (!own || !to || to >> 24 == 127 || to >> 28 >= 14 || to == own || to == net_broadcast4(c))
		return -TERN_EADDR;
	bool is_near = !((to ^ own) >> (32 - c->prefix4)) || remote.s_addr == c->gateway4.s_addr;
	if (is_near && c->prefix4 < 31 && !(to & (0xffffffffu >> c->prefix4))) /* the network's own address */
		return -TERN_EADDR;
	if (!is_near && !c->gateway4.s_addr)
		return -TERN_EADDR;
	*hop = net_map4(is_near ? remote : c->gateway4);
	*source = net_map4(c->ip4);
	return 0;
}

int net_route(const struct net_host *host, const union net_addr *remote, struct in6_addr *hop, struct in6_addr *source)
{
	const struct net_config *c = &host->config;

	if (remote->sa.sa_family == AF_INET)
		return route4(host, remote->v4.sin_addr, hop, source);
	if (remote->sa.sa_family != AF_INET6)
		return -TERN_EADDR;
	struct in6_addr to = remote->v6.sin6_addr;
	if (net_is_mapped4(&to)) {
		struct in_addr to4;
		memcpy(&to4, to.s6_addr + 12, 4);
		return route4(host, to4, hop, source);
	}
	if (IN6_IS_ADDR_MULTICAST(&to) || IN6_IS_ADDR_LOOPBACK(&to) || net_is_nobody(to.s6_addr) || net_is_ours6(host, to.s6_addr))
		return -TERN_EADDR;
	bool is_local = IN6_IS_ADDR_LINKLOCAL(&to);
	if (!is_local && !net_has_ip6(host))
		return -TERN_EADDR;
	*source = is_local ? host->local6 : c->ip6;
	*hop = to;
	if (is_local || route_is_near6(to.s6_addr, c->ip6.s6_addr, c->prefix6) || net_same(&to, &c->gateway6))
		return 0;
	if (net_is_nobody(c->gateway6.s6_addr))
		return -TERN_EADDR;
	*hop = c->gateway6;
	return 0;
}

static uint16_t *entry_bucket(struct net_host *host, const struct in6_addr *addr)
{
	uint32_t h = 2166136261u;

	for (int i = 0; i < 16; i++)
		h = (h ^ addr->s6_addr[i]) * 16777619u;
	return &host->bucket[(h ^ h >> 8 ^ h >> 16) % NET_BUCKETS];
}

static struct net_neighbour_entry *entry_find(struct net_host *host, const struct in6_addr *addr)
{
	uint16_t at = *entry_bucket(host, addr);

	for (int n = 0; n < NET_NEIGHBOURS_MAX && at != NONE; n++, at = host->entry[at].next)
		if (net_same(&host->entry[at].addr, addr))
			return &host->entry[at];
	return NULL;
}

static void entry_due(struct net_host *host, struct net_neighbour_entry *e, uint64_t due_ns)
{
	e->due_ns = due_ns;
	if (due_ns < host->due_ns)
		host->due_ns = due_ns;
}

static void entry_unlink(struct net_host *host, struct net_neighbour_entry *e)
{
	uint16_t *at = entry_bucket(host, &e->addr), index = (uint16_t)(e - host->entry);

	for (int n = 0; n < NET_NEIGHBOURS_MAX && *at != index; n++)
		at = &host->entry[*at].next;
	*at = e->next;
}

/* The least recently used one that no flow holds makes room. @return NULL: all are held */
static struct net_neighbour_entry *entry_make(struct net_host *host, const struct in6_addr *addr)
{
	struct net_neighbour_entry *e = &host->entry[host->neighbours];

	if (host->neighbours < NET_NEIGHBOURS_MAX)
		host->neighbours++;
	else {
		e = NULL;
		for (int i = 0; i < NET_NEIGHBOURS_MAX; i++)
			if (!host->entry[i].flows && (!e || host->entry[i].used_ns < e->used_ns))
				e = &host->entry[i];
		if (!e)
			return NULL;
		entry_unlink(host, e);
		host->evictions++;
		host->version++;
	}
	uint16_t *bucket = entry_bucket(host, addr);
	*e = (struct net_neighbour_entry){.addr = *addr, .state = NET_INCOMPLETE, .next = *bucket, .due_ns = UINT64_MAX};
	*bucket = (uint16_t)(e - host->entry);
	return e;
}

static uint64_t entry_wait_ns(const struct net_neighbour_entry *e)
{
	uint64_t wait = first_wait_ns << (e->tries > 8 ? 8 : e->tries ? e->tries - 1 : 0);
	return wait < last_wait_ns ? wait : last_wait_ns;
}

/* Enough requests have not been answered: its hardware address is not to be used any more. */
static void entry_lose(struct net_host *host, struct net_neighbour_entry *e)
{
	if (e->state != NET_INCOMPLETE)
		host->version++;
	e->state = NET_INCOMPLETE;
	e->is_lost = true;
}

/* @return -TERN_EADDR, -TERN_ELIMIT */
static int entry_get(struct net_host *host, const union net_addr *remote, struct net_neighbour_entry **out)
{
	struct in6_addr hop, source;
	int err = net_route(host, remote, &hop, &source);

	if (err)
		return err;
	*out = entry_find(host, &hop);
	if (!*out)
		*out = entry_make(host, &hop);
	return *out ? 0 : -TERN_ELIMIT;
}

int net_flow_hold(struct net_host *host, struct net_flow *flow, uint64_t now_ns)
{
	struct net_neighbour_entry *e;
	int err = entry_get(host, &flow->remote, &e);

	if (err)
		return err;
	e->flows++;
	e->used_ns = now_ns;
	flow->neighbour = (uint16_t)(e - host->entry + 1);
	return 0;
}

void net_flow_release(struct net_host *host, struct net_flow *flow)
{
	if (flow->neighbour)
		host->entry[flow->neighbour - 1].flows--;
	flow->neighbour = 0;
}

int net_neighbour(struct net_host *host, const union net_addr *remote, uint64_t now_ns, uint8_t mac[NET_MAC_BYTES])
{
	struct net_neighbour_entry *e;
	int err = entry_get(host, remote, &e);

	if (err)
		return err;
	e->used_ns = now_ns;
	if (e->state == NET_REACHABLE && now_ns - e->heard_ns >= fresh_ns) {
		e->state = NET_STALE;
		e->is_moved = false;
	}
	if (e->state != NET_REACHABLE && e->due_ns == UINT64_MAX)
		entry_due(host, e, e->tries ? e->asked_ns + entry_wait_ns(e) : now_ns);
	if (e->tries >= NET_TRIES && now_ns >= e->due_ns)
		entry_lose(host, e);
	if (e->state == NET_INCOMPLETE)
		return e->is_lost ? -TERN_EADDR : -TERN_EAGAIN;
	memcpy(mac, e->mac, NET_MAC_BYTES);
	return 0;
}

/* Another station, or the same unasked, says where a known neighbour is: reason to ask, no more. */
static void entry_rumour(struct net_host *host, struct net_neighbour_entry *e, const uint8_t *mac, uint64_t now_ns)
{
	if (e->state != NET_INCOMPLETE && (!mac || net_same_mac(mac, e->mac)))
		return;
	bool was_asked = e->tries || e->heard_ns;
	uint64_t due = was_asked && e->asked_ns + second_ns > now_ns ? e->asked_ns + second_ns : now_ns;
	if (e->state == NET_REACHABLE) {
		e->state = NET_STALE;
		e->tries = 0;
	}
	e->is_moved = true;
	if (due < e->due_ns)
		entry_due(host, e, due);
}

/* mac NULL: the answer carried none, which confirms the one we have. */
static void entry_answer(struct net_host *host, struct net_neighbour_entry *e, const uint8_t *mac, uint64_t now_ns)
{
	if (!mac && e->state == NET_INCOMPLETE)
		return;
	if (mac && (e->state == NET_INCOMPLETE || !net_same_mac(mac, e->mac))) {
		memcpy(e->mac, mac, NET_MAC_BYTES);
		host->version++;
	}
	e->state = NET_REACHABLE;
	e->heard_ns = now_ns;
	e->tries = 0;
	e->is_asked = e->is_lost = e->is_moved = false;
	e->due_ns = UINT64_MAX;
}

static void learn(struct net_host *host, const struct in6_addr *addr, const uint8_t *mac, bool is_answer, uint64_t now_ns)
{
	struct net_neighbour_entry *e = entry_find(host, addr);

	if (!e || (mac && (!net_is_station(mac) || net_same_mac(mac, host->config.mac))))
		return;
	if (is_answer && e->is_asked)
		entry_answer(host, e, mac, now_ns);
	else
		entry_rumour(host, e, mac, now_ns);
}

static void learn_arp(struct net_host *host, const uint8_t *frame, const uint8_t *arp, uint64_t now_ns)
{
	const uint8_t *own = host->config.mac;
	struct in_addr sender;

	memcpy(&sender, arp + 14, 4);
	if (sender.s_addr == host->config.ip4.s_addr) {
		host->conflicts += !net_same_mac(arp + 8, own);
		return;
	}
	bool is_to_us = net_same_mac(frame, own) && net_same_mac(arp + 18, own) && !memcmp(arp + 24, &host->config.ip4, 4);
	struct in6_addr addr = net_map4(sender);
	learn(host, &addr, arp + 8, is_to_us && net_get16(arp + 6) == ARP_REPLY, now_ns);
}

static void learn_nd(struct net_host *host, const uint8_t *frame, const struct net_packet *p, uint64_t now_ns)
{
	const uint8_t *nd = frame + p->payload_at, *ip = frame + p->ip_at;
	struct in6_addr addr;
	bool is_well, is_advert = nd[0] == ICMP6_ADVERTISE;

	if (nd[0] == ICMP6_LISTENER_QUERY) { /* a switch asks who listens; with a twin the kernel says it */
		if (!host->config.has_twin && host->announce_ns == UINT64_MAX) {
			host->announced = ANNOUNCE_ROUNDS - 1;
			host->announce_step = STEP_LISTENER;
			host->announce_ns = now_ns + second_ns / 10;
			if (host->announce_ns < host->due_ns)
				host->due_ns = host->announce_ns;
		}
		return;
	}
	const uint8_t *mac = net_nd_option(nd + ND_BYTES, p->payload_bytes - ND_BYTES, is_advert ? ND_TARGET : ND_SOURCE, &is_well);
	memcpy(&addr, is_advert ? nd + 8 : ip + 8, 16);
	if (net_is_ours6(host, addr.s6_addr)) {
		host->conflicts += is_advert;
		return;
	}
	struct net_neighbour_entry *e = entry_find(host, &addr);
	bool is_answer = is_advert && nd[4] & ND_SOLICITED && net_same_mac(frame, host->config.mac) && net_is_ours6(host, ip + 24);
	/* without the override flag an answer does not replace another address (RFC 4861 section 7.2.5): proxies say it so */
	if (is_answer && e && e->state != NET_INCOMPLETE && mac && !(nd[4] & ND_OVERRIDE) && !net_same_mac(mac, e->mac))
		is_answer = false;
	if (is_advert || mac)
		learn(host, &addr, mac, is_answer, now_ns);
}

void net_learn(struct net_host *host, const uint8_t *frame, const struct net_packet *packet, uint64_t now_ns)
{
	if (packet->kind == NET_ARP)
		learn_arp(host, frame, frame + packet->ip_at, now_ns);
	else if (packet->kind == NET_ND)
		learn_nd(host, frame, packet, now_ns);
}

static size_t ask_arp(const struct net_host *host, const uint8_t *mac, struct in_addr target, uint8_t *out)
{
	static const uint8_t head[8] = {0, 1, 8, 0, 6, 4, 0, ARP_REQUEST};
	size_t at = net_put_ether(host, out, mac, ETHER_ARP);

	memcpy(out + at, head, 8);
	memcpy(out + at + 8, host->config.mac, NET_MAC_BYTES);
	memcpy(out + at + 14, &host->config.ip4, 4);
	memset(out + at + 18, 0, NET_MAC_BYTES);
	memcpy(out + at + 24, &target, 4);
	return at + ARP_BYTES;
}

/* A solicitation, or an unsolicited advertisement; both carry our hardware address. */
static size_t put_nd(const struct net_host *host, const uint8_t *mac, const struct in6_addr addrs[2], const struct in6_addr *target, uint8_t *out)
{
	bool is_solicit = !net_same(target, &addrs[0]);
	size_t at = net_put_ether(host, out, mac, ETHER_IP6), length = ND_BYTES + ND_OPTION_BYTES;

	net_put_ip6(out + at, (uint32_t)length, IP6_ICMP, ND_HOPS, addrs);
	uint8_t *nd = out + at + NET_IP6_BYTES;
	memset(nd, 0, ND_BYTES);
	nd[0] = is_solicit ? ICMP6_SOLICIT : ICMP6_ADVERTISE;
	nd[4] = is_solicit ? 0 : ND_OVERRIDE;
	memcpy(nd + 8, target, 16);
	nd[24] = is_solicit ? ND_SOURCE : ND_TARGET;
	nd[25] = 1;
	memcpy(nd + 26, host->config.mac, NET_MAC_BYTES);
	net_put_raw16(nd + 2, net_checksum(nd, length, net_pseudo6(out + at + 8, (uint32_t)length, IP6_ICMP)));
	return at + NET_IP6_BYTES + length;
}

static void group_mac(const struct in6_addr *group, uint8_t *mac)
{
	mac[0] = mac[1] = 0x33;
	memcpy(mac + 2, group->s6_addr + 12, 4);
}

static size_t ask(const struct net_host *host, const struct net_neighbour_entry *e, uint8_t *out)
{
	static const uint8_t everyone[NET_MAC_BYTES] = {255, 255, 255, 255, 255, 255};
	bool is_unicast = e->state == NET_STALE && !e->is_moved && e->tries < UNICAST_TRIES;

	if (net_is_mapped4(&e->addr)) {
		struct in_addr target;
		memcpy(&target, e->addr.s6_addr + 12, 4);
		return ask_arp(host, is_unicast ? e->mac : everyone, target, out);
	}
	struct in6_addr addrs[2] = {IN6_IS_ADDR_LINKLOCAL(&e->addr) ? host->local6 : host->config.ip6, e->addr};
	uint8_t mac[NET_MAC_BYTES];
	if (is_unicast)
		memcpy(mac, e->mac, NET_MAC_BYTES);
	else {
		addrs[1] = net_solicited(e->addr.s6_addr);
		group_mac(&addrs[1], mac);
	}
	return put_nd(host, mac, addrs, &e->addr, out);
}

/* @return the request's bytes, 0: the entry is not in use, nothing more is asked */
static size_t entry_ask(struct net_host *host, struct net_neighbour_entry *e, uint64_t now_ns, uint8_t *out)
{
	if (e->tries >= NET_TRIES)
		entry_lose(host, e);
	if (now_ns - e->used_ns > idle_ns) {
		e->due_ns = UINT64_MAX;
		e->is_asked = false;
		return 0;
	}
	size_t length = ask(host, e, out);
	e->tries += e->tries < UINT8_MAX;
	e->is_asked = true;
	e->asked_ns = now_ns;
	e->due_ns = now_ns + entry_wait_ns(e);
	host->requests++;
	return length;
}

/* Multicast listener report, RFC 3810 section 5.2: switches that snoop forward solicitations to us only after it. */
static size_t announce_listener(const struct net_host *host, uint8_t *out)
{
	static const struct in6_addr routers = {.s6_addr = {0xff, 2, [15] = 0x16}};
	static const uint8_t alert[8] = {IP6_ICMP, 0, 5, 2, 0, 0, 1, 0};
	struct in6_addr addrs[2] = {host->local6, routers}, group[2] = {net_solicited(host->local6.s6_addr), net_solicited(host->config.ip6.s6_addr)};
	int groups = net_has_ip6(host) && !net_same(&group[0], &group[1]) ? 2 : 1;
	uint32_t length = 8 + 20 * (uint32_t)groups;
	uint8_t mac[NET_MAC_BYTES];

	group_mac(&routers, mac);
	size_t at = net_put_ether(host, out, mac, ETHER_IP6);
	net_put_ip6(out + at, 8 + length, IP6_HOP_BY_HOP, 1, addrs);
	memcpy(out + at + NET_IP6_BYTES, alert, 8);
	uint8_t *report = out + at + NET_IP6_BYTES + 8;
	memset(report, 0, length);
	report[0] = ICMP6_LISTENER_REPORT;
	report[7] = (uint8_t)groups;
	for (int i = 0; i < groups; i++) {
		report[8 + 20 * i] = 4; /* from now on everything sent to it is wanted */
		memcpy(report + 8 + 20 * i + 4, &group[i], 16);
	}
	net_put_raw16(report + 2, net_checksum(report, length, net_pseudo6(out + at + 8, length, IP6_ICMP)));
	return at + NET_IP6_BYTES + 8 + length;
}

static size_t announce(const struct net_host *host, int step, uint8_t *out)
{
	static const uint8_t everyone[NET_MAC_BYTES] = {255, 255, 255, 255, 255, 255}, all_nodes_mac[NET_MAC_BYTES] = {0x33, 0x33, 0, 0, 0, 1};
	struct in6_addr addrs[2] = {host->local6, {.s6_addr = {0xff, 2, [15] = 1}}};

	if (step == STEP_ARP)
		return host->config.ip4.s_addr ? ask_arp(host, everyone, host->config.ip4, out) : 0;
	if (step == STEP_LISTENER)
		return host->config.has_twin ? 0 : announce_listener(host, out);
	if (step == STEP_IP6) {
		if (!net_has_ip6(host))
			return 0;
		addrs[0] = host->config.ip6;
	}
	return put_nd(host, all_nodes_mac, addrs, &addrs[0], out);
}

static size_t announce_next(struct net_host *host, uint64_t now_ns, uint8_t *out)
{
	size_t length = 0;

	while (!length && host->announce_step < STEP_END)
		length = announce(host, host->announce_step++, out);
	if (host->announce_step == STEP_END) {
		host->announce_step = 0;
		host->announced++;
		host->announce_ns = host->announced < ANNOUNCE_ROUNDS ? now_ns + second_ns : UINT64_MAX;
	}
	return length;
}

size_t net_poll(struct net_host *host, uint64_t now_ns, uint8_t *out, size_t room)
{
	size_t length = 0;

	if (now_ns < host->due_ns || room < NET_POLL_MAX)
		return 0;
	if (now_ns >= host->announce_ns)
		length = announce_next(host, now_ns, out);
	for (int i = 0; i < host->neighbours && !length; i++) { /* on from the last: a round over all is one look at each */
		host->polled = host->polled + 1 < host->neighbours ? host->polled + 1 : 0;
		if (now_ns >= host->entry[host->polled].due_ns)
			length = entry_ask(host, &host->entry[host->polled], now_ns, out);
	}
	if (length)
		return length;
	host->due_ns = host->announce_ns;
	for (int i = 0; i < host->neighbours; i++)
		if (host->entry[i].due_ns < host->due_ns)
			host->due_ns = host->entry[i].due_ns;
	return 0;
}
