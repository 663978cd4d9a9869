/* An open port and the links at it: several of a context, or of several contexts with a thread each. Every link has its own UDP ports. One RX queue for all: whichever
 * link looks takes it for a moment, keeps what is its own and hands the rest over; so nobody depends on another's being polled, and nobody waits. Where the port takes
 * rules, links have queues of their own beside it (steer.c). Called by dpdk.c at open and close, by rx.c and tx.c for frames. Knows nothing of what is in them but
 * net_steer's word. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include <rte_errno.h>
#include "link/dpdk/dpdk.h"
#include "tern/tern.h"

enum share_sleep { SHARE_AWAKE, SHARE_ASLEEP, SHARE_WOKEN };
enum { SHARE_BACK_NS = 100000000, SHARE_NAP_NS = 100000 }; /* closing: how long the port may go on reading, and how often it is asked */

static pthread_mutex_t share_lock = PTHREAD_MUTEX_INITIALIZER; /* opening and closing; never taken by DPDK's threads */
static struct dpdk_share *shares[RTE_MAX_ETHPORTS];

/* For opening and closing only: a holder gives it back after one call of the driver. */
static void share_token_take(struct dpdk_token *t)
{
	while (!dpdk_token_try(t))
		sched_yield();
}

static struct dpdk_share *share_alloc(void)
{
	struct dpdk_share *s = NULL;
	if (posix_memalign((void **)&s, RTE_CACHE_LINE_SIZE, sizeof(*s)))
		return NULL;
	memset(s, 0, sizeof(*s));
	s->twin.fd = -1;
	return s;
}

static int share_new(struct dpdk_link *l, const struct link_config *config)
{
	struct dpdk_share *s = share_alloc();
	if (!s) {
		snprintf(config->error, config->error_bytes, "dpdk: no memory");
		return -TERN_ENOMEM;
	}
	l->share = s;
	int err = dpdk_port_open(l, config);
	if (err)
		goto fail;
	s->port = l->port;
	err = dpdk_host_first(l, config);
	if (err)
		goto fail_port;
	shares[s->port.id] = s;
	return 0;

fail_port:
	if (s->twin.fd >= 0)
		twin_close(&s->twin);
	dpdk_memif_close(s);
	dpdk_port_close(l);
fail:
	dpdk_memif_close(s);
	free(s);
	l->share = NULL;
	return err;
}

static int share_join(struct dpdk_link *l, struct dpdk_share *s, const struct link_config *config)
{
	l->share = s;
	l->port = s->port;
	int err = dpdk_options_join(&l->options, s, config);
	if (!err)
		err = dpdk_host_join(l, config);
	if (err)
		l->share = NULL;
	return err;
}

static bool share_has(const struct dpdk_share *s, const struct dpdk_options *o)
{
	bool same4 = !o->net.ip4.s_addr || o->net.ip4.s_addr == s->net.ip4.s_addr;
	bool same6 = IN6_IS_ADDR_UNSPECIFIED(&o->net.ip6) || !memcmp(&o->net.ip6, &s->net.ip6, sizeof(o->net.ip6));
	return same4 && same6 && (!*o->host_if || !strcmp(o->host_if, s->options.host_if));
}

/* The open port that the options mean: by name; without one, the one that has the address, or any if they say none. */
static struct dpdk_share *share_find(const struct dpdk_options *given, const struct link_config *config)
{
	char name[RTE_ETH_NAME_MAX_LEN];
	struct dpdk_options copy = *given, *o = &copy;
	uint16_t id;

	if (*o->dev) {
		snprintf(name, sizeof(name), "%.*s", (int)strcspn(o->dev, ","), o->dev);
		return rte_eth_dev_get_port_by_name(name, &id) ? NULL : shares[id];
	}
	if (dpdk_options_listen(o, config)) /* said in words by whoever opens the port */
		return NULL;
	for (id = 0; id < RTE_MAX_ETHPORTS; id++)
		if (shares[id] && share_has(shares[id], o))
			return shares[id];
	return NULL;
}

static int share_slot(struct dpdk_link *l, const struct link_config *config)
{
	struct dpdk_share *s = l->share;

	while (l->slot < DPDK_LINKS_MAX && s->link[l->slot])
		l->slot++;
	bool is_full = l->slot == DPDK_LINKS_MAX;
	/* a device frees what it has sent when the next frame is given to that queue: whose it was must be on that thread */
	if (is_full || (l->slot >= s->port.tx_queues && s->port.driver.reader == DPDK_READ_DEVICE)) {
		snprintf(config->error, config->error_bytes,
		        "dpdk: port %s has %u links, as many as %s; close one, or use another port, dev=", s->port.name, (unsigned)l->slot,
		        is_full ? "there can be" : "it has transmit queues");
		return -TERN_ELIMIT;
	}
	l->port.tx_queue = l->slot % s->port.tx_queues;
	return 0;
}

/* The link's own things at the port; from the end of this on others hand it frames. */
static int share_enter(struct dpdk_link *l, const struct link_config *config)
{
	struct dpdk_share *s = l->share;
	const char *why = "";
	char name[RTE_RING_NAMESIZE];

	int err = share_slot(l, config);
	if (err)
		return err;
	err = net_init(&l->host, &l->options.net, config->now_ns, &why);
	if (err) {
		snprintf(config->error, config->error_bytes, "dpdk: %s", why);
		return err;
	}
	snprintf(name, sizeof(name), "tern_handed_%u_%u", s->port.id, l->slot);
	l->handed = rte_ring_create(name, DPDK_HANDED_MAX, rte_eth_dev_socket_id(s->port.id), RING_F_SP_ENQ | RING_F_SC_DEQ);
	l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!l->handed || l->wake_fd < 0) {
		snprintf(config->error, config->error_bytes, "dpdk: no %s for a link of port %s: %s", l->handed ? "descriptor" : "memory",
		        s->port.name, l->handed ? strerror(errno) : rte_strerror(rte_errno));
		rte_ring_free(l->handed);
		if (l->wake_fd >= 0)
			close(l->wake_fd);
		return -TERN_ENOMEM;
	}
	dpdk_steer_enter(l);
	share_token_take(&s->rx);
	s->link[l->slot] = l;
	atomic_fetch_add(&s->links, 1);
	dpdk_token_give(&s->rx);
	return 0;
}

static void share_end(struct dpdk_link *l)
{
	struct dpdk_share *s = l->share;
	struct dpdk_link *next;

	if (s->twin.fd >= 0)
		twin_close(&s->twin);
	shares[s->port.id] = NULL;
	dpdk_memif_close(s);
	dpdk_port_close(l);
	for (struct dpdk_link *old = s->leftover; old; old = next) {
		next = old->leftover;
		dpdk_free(old);
	}
	free(s);
	l->share = NULL;
}

int dpdk_share_open(struct dpdk_link *l, const struct link_config *config)
{
	pthread_mutex_lock(&share_lock);
	struct dpdk_share *s = share_find(&l->options, config);
	int err = s ? share_join(l, s, config) : share_new(l, config);
	if (!err) {
		err = share_enter(l, config);
		if (err && !s)
			share_end(l);
	}
	pthread_mutex_unlock(&share_lock);
	return err;
}

/* Another thread may no longer give back this link's memory once it is gone. @return whether the port reads none of it any more */
static bool share_back(struct dpdk_link *l)
{
	const struct timespec nap = {.tv_nsec = SHARE_NAP_NS};
	for (uint64_t waited = 0; l->n_free_slots < DPDK_SLOTS && waited < SHARE_BACK_NS; waited += SHARE_NAP_NS) {
		dpdk_share_clean(l);
		nanosleep(&nap, NULL);
	}
	return l->n_free_slots == DPDK_SLOTS;
}

/* Under rx. */
static void share_interrupt_off(struct dpdk_link *l)
{
	l->is_armed = false;
	if (--l->share->armed == 0)
		rte_eth_dev_rx_intr_disable(l->share->port.id, 0);
}

bool dpdk_share_close(struct dpdk_link *l)
{
	struct dpdk_share *s = l->share;
	struct rte_mbuf *m[DPDK_BURST];
	unsigned n;
	bool is_back = true;

	pthread_mutex_lock(&share_lock);
	if (l->is_own_armed)
		rte_eth_dev_rx_intr_disable(l->port.id, l->rx_queue);
	share_token_take(&s->rx);
	s->link[l->slot] = NULL;
	if (l->is_armed)
		share_interrupt_off(l);
	bool is_last = atomic_fetch_sub(&s->links, 1) == 1;
	dpdk_token_give(&s->rx);
	for (unsigned port = 0; port < 65536; port++)
		if (atomic_load_explicit(&s->owner[port], memory_order_relaxed) == l->slot + 1)
			dpdk_share_give(l, (uint16_t)port);
	dpdk_steer_leave(l);
	while ((n = rte_ring_dequeue_burst(l->handed, (void **)m, DPDK_BURST, NULL)))
		rte_pktmbuf_free_bulk(m, n);
	rte_ring_free(l->handed);
	close(l->wake_fd);
	if (l->set_fd >= 0)
		close(l->set_fd);
	if (is_last) {
		share_end(l);
	} else if (!share_back(l)) {
		l->leftover = s->leftover;
		s->leftover = l;
		is_back = false;
	}
	pthread_mutex_unlock(&share_lock);
	return is_back;
}

bool dpdk_share_take(struct dpdk_link *l, uint16_t port)
{
	uint8_t nobody = 0;
	if (!atomic_compare_exchange_strong(&l->share->owner[port], &nobody, (uint8_t)(l->slot + 1)))
		return false;
	if (l->rx_queue)
		dpdk_steer_add(l, port);
	return true;
}

void dpdk_share_give(struct dpdk_link *l, uint16_t port)
{
	if (l->rx_queue)
		dpdk_steer_remove(l, port);
	atomic_store(&l->share->owner[port], 0);
}

/* Under rx. @return whether it has room for it; the frame is its own then */
static bool share_hand(struct dpdk_link *to, struct rte_mbuf *m, uint32_t links)
{
	return rte_ring_count(to->handed) < DPDK_HANDED_MAX / links && !rte_ring_sp_enqueue(to->handed, m);
}

/* What everybody learns from. The reader has it, too, so it is never freed here. */
static unsigned share_hand_all(struct dpdk_link *l, struct rte_mbuf *m, uint32_t links)
{
	unsigned touched = 0;
	for (unsigned i = 0; i < DPDK_LINKS_MAX; i++) {
		struct dpdk_link *to = l->share->link[i];
		if (!to || to == l)
			continue;
		rte_mbuf_refcnt_update(m, 1);
		if (share_hand(to, m, links))
			touched |= 1u << i;
		else
			rte_mbuf_refcnt_update(m, -1);
	}
	return touched;
}

static void share_wake(struct dpdk_link *l)
{
	const uint64_t one = 1;
	int asleep = SHARE_ASLEEP;
	atomic_thread_fence(memory_order_seq_cst); /* S0 pairs with S1: either the sleeper sees the frame, or we see that it sleeps */
	if (atomic_load_explicit(&l->sleep, memory_order_relaxed) == SHARE_ASLEEP &&
	        atomic_compare_exchange_strong(&l->sleep, &asleep, SHARE_WOKEN) && write(l->wake_fd, &one, sizeof(one)) < 0)
		dpdk_log(l, TERN_LOG_DEBUG, "dpdk port %s: eventfd: %s", l->port.name, strerror(errno));
}

/* Under rx: others get theirs. @return how many are left in l->in */
static uint16_t share_sort(struct dpdk_link *l, uint16_t n, uint32_t links)
{
	struct dpdk_share *s = l->share;
	unsigned touched = 0;
	uint16_t own = 0;

	n = dpdk_rx_whole(l, n); /* before others see them: several may get one */
	for (uint16_t i = 0; i < n; i++)
		rte_prefetch0(rte_pktmbuf_mtod(l->in[i], void *));
	for (uint16_t i = 0; i < n; i++) {
		struct rte_mbuf *m = l->in[i];
		int port = net_steer(rte_pktmbuf_mtod(m, const uint8_t *), m->data_len);
		unsigned owner = port > 0 ? atomic_load_explicit(&s->owner[port], memory_order_relaxed) : 0;
		struct dpdk_link *to = owner ? s->link[owner - 1] : NULL;
		if (port == NET_STEER_ALL)
			touched |= share_hand_all(l, m, links);
		if (!to || to == l) {
			l->in[own++] = m;
		} else if (share_hand(to, m, links)) {
			touched |= 1u << (owner - 1);
		} else {
			l->base.rx_dropped++; /* it does not come for what it has: lost, as where a NIC's queue is full */
			rte_pktmbuf_free(m);
		}
	}
	for (unsigned i = 0; touched; i++, touched >>= 1)
		if (touched & 1)
			share_wake(s->link[i]);
	return own;
}

/* What comes without a rule, and the frames of links that have no queue: whoever looks takes the queue for a moment. */
static inline __attribute__((always_inline)) uint16_t share_common(struct dpdk_link *l)
{
	struct dpdk_share *s = l->share;

	if (!dpdk_token_try(&s->rx))
		return 0;
	uint16_t n = s->is_stopped ? 0 : rte_eth_rx_burst(s->port.id, 0, l->in, s->port.rx_take);
	uint32_t links = atomic_load_explicit(&s->links, memory_order_relaxed);
	if (n && links > 1)
		n = share_sort(l, n, links);
	dpdk_token_give(&s->rx);
	return n;
}

/* The link's own queue: nobody else reads it, and all there is its own. */
static uint16_t share_own(struct dpdk_link *l)
{
	uint16_t n = rte_eth_rx_burst(l->port.id, l->rx_queue, l->in, l->port.rx_take);
	l->own_frames += n;
	return n;
}

/* What others have read for the link. */
static inline __attribute__((always_inline)) uint16_t share_handed(struct dpdk_link *l)
{
	uint16_t n = (uint16_t)rte_ring_sc_dequeue_burst(l->handed, (void **)l->in, DPDK_BURST, NULL);

	l->in_handed = n > 0;
	if (n)
		l->handed_frames += n;
	return n;
}

/* For a link that has a queue. What was handed over may be older than what its own has, the common one mostly is somebody else's; but each has its turn at the front:
 * neighbours must be answered, whoever else is polled, and what is handed over may never end. */
static __attribute__((noinline)) uint16_t share_all(struct dpdk_link *l)
{
	uint32_t turn = l->turn++;
	bool own_first = turn % DPDK_OWN_TURNS == DPDK_OWN_TURNS / 2, common_first = turn % DPDK_REST_TURNS == 0;
	uint16_t n = own_first ? share_own(l) : 0;

	l->in_handed = false;
	n = n ? n : share_handed(l);
	n = n || !common_first ? n : share_common(l);
	n = n || own_first ? n : share_own(l);
	return n || common_first ? n : share_common(l);
}

uint16_t dpdk_share_rx(struct dpdk_link *l)
{
	if (l->rx_queue)
		return share_all(l);
	uint16_t n = share_handed(l);
	return n ? n : share_common(l);
}

bool dpdk_share_arm(struct dpdk_link *l)
{
	uint64_t count;
	atomic_store(&l->sleep, SHARE_AWAKE);
	if (read(l->wake_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return false;
	atomic_store_explicit(&l->sleep, SHARE_ASLEEP, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst); /* S1 */
	return rte_ring_empty(l->handed);
}

/* One descriptor for the port's interrupt and for what other links hand over. The interrupt's is looked at for news only: a vhost port's is a set around the peer's
 * kicks, which nobody takes out of it. */
static bool share_watch(struct dpdk_link *l, int fd)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET, .data.fd = fd}, own = {.events = EPOLLIN, .data.fd = l->wake_fd}, old[2];

	if (l->set_fd < 0) {
		l->set_fd = epoll_create1(EPOLL_CLOEXEC);
		if (l->set_fd < 0 || epoll_ctl(l->set_fd, EPOLL_CTL_ADD, l->wake_fd, &own))
			return false;
	}
	/* asked each time: a peer that came back may have brought another one */
	if (epoll_ctl(l->set_fd, EPOLL_CTL_ADD, fd, &ev) && errno != EEXIST)
		return false;
	return epoll_wait(l->set_fd, old, 2, 0) >= 0;
}

/* Switches a queue's interrupt on. @return it is, and watched */
static bool share_interrupt_on(struct dpdk_link *l, uint16_t queue)
{
	int fd = rte_eth_dev_rx_intr_ctl_q_get_fd(l->port.id, queue);
	if (fd < 0 || rte_eth_dev_rx_intr_enable(l->port.id, queue))
		return false;
	if (queue) {
		l->is_own_armed = true;
	} else {
		l->share->armed += !l->is_armed;
		l->is_armed = true;
	}
	return share_watch(l, fd);
}

/* Under rx: is another link awake? It looks at the common queue then; one that nobody polls seems awake, too. */
static bool share_is_tended(const struct dpdk_link *l)
{
	for (unsigned i = 0; i < DPDK_LINKS_MAX; i++) {
		const struct dpdk_link *other = l->share->link[i];
		if (other && other != l && atomic_load_explicit(&other->sleep, memory_order_relaxed) == SHARE_AWAKE)
			return true;
	}
	return false;
}

/* The common queue's, under rx. */
static int share_interrupt_common(struct dpdk_link *l)
{
	const struct dpdk_share *s = l->share;
	struct rte_eth_link state = {0};

	bool is_up = !rte_eth_link_get_nowait(s->port.id, &state) && state.link_status; /* a vhost port without a peer has a descriptor that never fires */
	if (!is_up || !share_interrupt_on(l, 0))
		return -1;
	return rte_eth_rx_queue_count(s->port.id, 0) > 0 ? -2 : l->set_fd; /* after what was watched is armed: nothing comes in between */
}

/* share_watch takes out what both queues' interrupts have told by then, so neither queue is counted before both are watched. */
int dpdk_share_interrupt(struct dpdk_link *l)
{
	struct dpdk_share *s = l->share;
	int fd;

	l->dozes = false;
	if (!l->port.driver.has_interrupt || (l->rx_queue && !share_interrupt_on(l, l->rx_queue)))
		return -1;
	bool has_token = dpdk_token_try(&s->rx);
	if (!has_token && !l->rx_queue)
		return -1;
	/* who has a queue is not woken by the frames of those who are awake; should nobody poll them, it wakes by itself now and then */
	l->dozes = l->rx_queue && (!has_token || share_is_tended(l));
	fd = l->dozes ? l->wake_fd : share_interrupt_common(l);
	if (has_token)
		dpdk_token_give(&s->rx);
	if (fd < 0 || !l->rx_queue)
		return fd;
	return rte_eth_rx_queue_count(l->port.id, l->rx_queue) > 0 ? -2 : l->set_fd;
}

void dpdk_share_disarm(struct dpdk_link *l)
{
	if (atomic_load_explicit(&l->sleep, memory_order_relaxed) != SHARE_AWAKE)
		atomic_store_explicit(&l->sleep, SHARE_AWAKE, memory_order_relaxed);
	if (l->is_own_armed) {
		l->is_own_armed = false;
		rte_eth_dev_rx_intr_disable(l->port.id, l->rx_queue);
	}
	if (l->is_armed && dpdk_token_try(&l->share->rx)) { /* otherwise the next time */
		share_interrupt_off(l);
		dpdk_token_give(&l->share->rx);
	}
}

void dpdk_share_clean(struct dpdk_link *l)
{
	struct dpdk_token *t = &l->share->tx[l->port.tx_queue];
	if (!dpdk_token_try(t))
		return;
	/* most drivers look for what the wire has taken only when they are given more */
	bool wants_more = !l->share->is_stopped && !dpdk_mem_clean(l);
	dpdk_token_give(t);
	if (wants_more)
		dpdk_mem_kick(l);
}
