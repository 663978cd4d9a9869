/* memif's own ways, as read in DPDK 22.11: its connections are made and torn down by DPDK's interrupt thread, without a lock against the threads that move frames. So
 * a peer that dies has its memory unmapped under them. Called by port.c and share.c at open and close, by eal.c for each line that DPDK logs, by rx.c now and then.
 *
 * The guard: before the driver touches a connection it logs what came ("Received msg type", "Invalid message size", at debug level, which is switched on). That line
 * is written by the interrupt thread, through us: there the port is taken away from its links, as any of them takes it for a burst, and given back by an alarm,
 * which the same thread runs after the driver has returned. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <rte_alarm.h>
#include <rte_dev.h>
#include <rte_devargs.h>
#include <rte_interrupts.h>
#include "link/dpdk/dpdk.h"
#include "tern/tern.h"

enum { MEMIF_KEEPERS_MAX = 8 };
static const uint64_t memif_take_ns = 200000000;    /* how long a burst may take; a holder that logs waits for us, so this must end */
static const uint64_t memif_refused_ns = 100000000; /* nobody listened: again */
static const uint64_t memif_busy_ns = 200000000;    /* the connection is being made, or was lost just now */
static const uint64_t memif_silent_ns = 10000000000; /* somebody listens and says nothing */

struct dpdk_memif {
	struct dpdk_share *share;
	struct dpdk_memif *next;
	bool is_client;
	bool has_rx, has_tx;   /* interrupt thread only */
	atomic_bool is_due;    /* memif_again is on its way */
	_Atomic uint64_t again_ns;
};

static pthread_mutex_t memif_lock = PTHREAD_MUTEX_INITIALIZER; /* the list; nobody who has it waits for the interrupt thread */
static struct dpdk_memif *memifs;
static atomic_uint memif_ports;
static bool memif_is_trying; /* interrupt thread only */

static uint64_t memif_now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static bool memif_take(struct dpdk_token *t)
{
	uint64_t end = memif_now_ns() + memif_take_ns;
	while (!dpdk_token_try(t)) {
		if (memif_now_ns() > end)
			return false;
		sched_yield();
	}
	return true;
}

static void memif_hold(struct dpdk_memif *m)
{
	if (!m->has_rx)
		m->has_rx = memif_take(&m->share->rx);
	if (!m->has_tx)
		m->has_tx = memif_take(&m->share->tx[0]); /* it has one queue */
}

static void memif_give(struct dpdk_memif *m)
{
	if (m->has_rx)
		dpdk_token_give(&m->share->rx);
	if (m->has_tx)
		dpdk_token_give(&m->share->tx[0]);
	m->has_rx = m->has_tx = false;
}

static void memif_give_all(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&memif_lock);
	for (struct dpdk_memif *m = memifs; m; m = m->next) {
		if (!m->share->is_stopped) /* something came, or went: what follows takes a moment */
			atomic_store(&m->again_ns, memif_now_ns() + memif_busy_ns);
		memif_give(m);
	}
	pthread_mutex_unlock(&memif_lock);
}

void dpdk_memif_heard(void)
{
	static bool is_inside; /* the alarm may log, too */

	if (!atomic_load(&memif_ports) || !rte_thread_is_intr() || is_inside)
		return;
	is_inside = true;
	if (!rte_eal_alarm_set(1, memif_give_all, NULL)) {
		pthread_mutex_lock(&memif_lock);
		for (struct dpdk_memif *m = memifs; m; m = m->next)
			memif_hold(m);
		pthread_mutex_unlock(&memif_lock);
	}
	is_inside = false;
}

bool dpdk_memif_is_trying(void)
{
	return atomic_load(&memif_ports) && rte_thread_is_intr() && memif_is_trying;
}

/* The driver connects when it is started, and never again by itself. In the interrupt thread, so that nothing of the old connection runs beside it. */
static void memif_again(void *arg)
{
	struct dpdk_memif *m = arg;
	struct dpdk_share *s = m->share;
	struct rte_eth_link state = {0};

	/* a connection that is being made is left alone: DPDK 22.11 ends a server whose client leaves before it has been greeted */
	bool is_late = memif_now_ns() >= atomic_load(&m->again_ns);
	memif_hold(m);
	if (is_late && m->has_rx && m->has_tx && !rte_eth_link_get_nowait(s->port.id, &state) && !state.link_status) {
		memif_is_trying = true;
		if (!s->is_stopped)
			rte_eth_dev_stop(s->port.id);
		s->is_stopped = rte_eth_dev_start(s->port.id) != 0;
		memif_is_trying = false;
		atomic_store(&m->again_ns, memif_now_ns() + (s->is_stopped ? memif_refused_ns : memif_silent_ns));
	}
	memif_give(m);
	atomic_store(&m->is_due, false);
}

void dpdk_memif_tend(struct dpdk_link *l, uint64_t now_ns)
{
	struct dpdk_memif *m = l->share->memif;
	struct rte_eth_link state = {0};
	uint64_t again = atomic_load_explicit(&m->again_ns, memory_order_relaxed);

	if (!m->is_client || now_ns < again || atomic_load(&m->is_due) || rte_eth_link_get_nowait(l->port.id, &state) || state.link_status)
		return;
	if (!atomic_exchange(&m->is_due, true) && rte_eal_alarm_set(1, memif_again, m))
		atomic_store(&m->is_due, false);
}

int dpdk_memif_open(struct dpdk_link *l)
{
	const struct rte_devargs *args = rte_dev_devargs(l->port.device);
	struct dpdk_memif *m = calloc(1, sizeof(*m));

	if (!m)
		return -TERN_ENOMEM;
	m->share = l->share;
	m->is_client = !args || !args->args || !(strstr(args->args, "role=server") || strstr(args->args, "role=master"));
	atomic_store(&m->again_ns, memif_now_ns() + memif_silent_ns);
	l->share->memif = m;
	pthread_mutex_lock(&memif_lock);
	m->next = memifs;
	memifs = m;
	atomic_fetch_add(&memif_ports, 1);
	dpdk_eal_overhear("pmd.net.memif", true);
	pthread_mutex_unlock(&memif_lock);
	return 0;
}

void dpdk_memif_close(struct dpdk_share *s)
{
	struct dpdk_memif *m = s->memif, **at = &memifs;

	if (!m)
		return;
	pthread_mutex_lock(&memif_lock);
	while (*at != m)
		at = &(*at)->next;
	*at = m->next;
	atomic_fetch_sub(&memif_ports, 1);
	dpdk_eal_overhear("pmd.net.memif", false);
	pthread_mutex_unlock(&memif_lock);
	rte_eal_alarm_cancel(memif_again, m); /* waits for one that runs */
	s->memif = NULL;
	free(m);
}

/* When a memif listener's last device goes, DPDK 22.11 frees the socket but neither closes its descriptor nor takes its callback from the interrupt thread,
 * which then accepts at whatever has that memory next, and hangs. A device that is never started stays with each socket: the listener lives as long as the
 * process, and the next server takes it up. */
struct memif_keeper {
	char args[256];
	char path[108];
};

static struct memif_keeper memif_keepers[MEMIF_KEEPERS_MAX];
static unsigned memif_n_keepers;

const char *dpdk_port_arg(const char *args, const char *key, size_t *bytes)
{
	size_t n = strlen(key);
	for (const char *at = args; at; at = strchr(at, ',')) {
		at += *at == ',';
		if (!strncmp(at, key, n) && at[n] == '=') {
			*bytes = strcspn(at + n + 1, ",");
			return at + n + 1;
		}
	}
	return NULL;
}

static bool memif_is_server(const char *dev)
{
	size_t role = 0;
	const char *at = dpdk_port_arg(dev, "role", &role);
	return !strncmp(dev, "net_memif", 9) && at && role == 6 && (!strncmp(at, "server", 6) || !strncmp(at, "master", 6));
}

/* The socket's path, "" if it has none in the file system. */
static void memif_path(const char *dev, char out[108])
{
	size_t path = 0, kind = 0;
	const char *at = dpdk_port_arg(dev, "socket-abstract", &kind);
	bool is_file = at && !strncmp(at, "no", 2);

	at = dpdk_port_arg(dev, "socket", &path);
	*out = 0;
	if (at && is_file && path < 108)
		snprintf(out, 108, "%.*s", (int)path, at);
}

void dpdk_memif_remedy(const char *dev, char *out, size_t bytes)
{
	char path[108] = "";

	if (memif_is_server(dev))
		memif_path(dev, path);
	/* not removed by us: only connecting tells whether somebody listens, and DPDK 22.11 ends a server whose client leaves before it has been greeted */
	if (*path && !access(path, F_OK))
		snprintf(out, bytes, "; if its server was killed and left the file, remove %s", path);
	else
		*out = 0;
}

void dpdk_memif_keep(const char *dev)
{
	struct memif_keeper *k = &memif_keepers[memif_n_keepers];
	const char *args = strchr(dev, ',');
	struct rte_eth_dev_owner owner = {.name = "tern"};
	char text[320];
	uint16_t id;

	if (!memif_is_server(dev) || memif_n_keepers == MEMIF_KEEPERS_MAX || strlen(args) >= sizeof(k->args))
		return;
	for (unsigned i = 0; i < memif_n_keepers; i++)
		if (!strcmp(memif_keepers[i].args, args))
			return;
	/* the last id counts; where the socket has its keeper already, by other arguments, this one is refused */
	snprintf(text, sizeof(text), "net_memif_tern%u%s,id=%u", memif_n_keepers, args, UINT32_MAX);
	if (rte_dev_probe(text))
		return;
	snprintf(k->args, sizeof(k->args), "%s", args);
	memif_path(dev, k->path);
	memif_n_keepers++;
	text[strcspn(text, ",")] = 0;
	if (!rte_eth_dev_get_port_by_name(text, &id) && !rte_eth_dev_owner_new(&owner.id))
		rte_eth_dev_owner_set(id, &owner);
}

__attribute__((destructor)) static void memif_keepers_end(void)
{
	for (unsigned i = 0; i < memif_n_keepers; i++)
		if (*memif_keepers[i].path)
			unlink(memif_keepers[i].path);
}
