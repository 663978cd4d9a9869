/* The control thread and its door: commands come in through a locked list and an eventfd, everything else happens on the thread, in turns over epoll.
 * Called by api/ and loop/. The only lock is held for a list operation; no callback runs under it. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include "control/inner.h"
#include "wire/wire.h"

enum { EVENTS_A_TURN = 64, WAIT_MAX_MS = 60000 };

uint64_t control_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void control_log(struct control *ct, int level, int line, const char *text)
{
	if (ct->config.log)
		ct->config.log(ct->config.log_arg, level, "control", line, text);
}

void control_wake(struct control *ct)
{
	uint64_t one = 1;

	while (write(ct->wakefd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

static void command_run(struct control *ct, struct command *cmd)
{
	struct conn *c;

	switch (cmd->type) {
	case COMMAND_LISTEN:
		listener_add(ct, cmd->listener);
		break;
	case COMMAND_UNLISTEN: {
		int rc = listener_remove(ct, cmd->id);
		pthread_mutex_lock(&ct->lock);
		*cmd->answer = rc;
		pthread_cond_broadcast(&ct->answered);
		pthread_mutex_unlock(&ct->lock);
		break;
	}
	case COMMAND_CONNECT:
		conn_add(ct, cmd->conn);
		if (ct->conn_count > ct->config.max_conns)
			conn_fail(ct, cmd->conn, -TERN_ELIMIT, "%u control connections are open: more are not allowed", ct->config.max_conns);
		else
			dial_start(ct, cmd->conn);
		break;
	case COMMAND_BYE:
		c = conn_find(ct, cmd->id);
		if (c)
			conn_bye(ct, c, cmd->status);
		break;
	}
	free(cmd);
}

/* @return true: the context is being closed */
static bool commands_take(struct control *ct)
{
	pthread_mutex_lock(&ct->lock);
	struct command *list = ct->first;
	bool stop = ct->stop;
	ct->first = NULL;
	ct->last = &ct->first;
	pthread_mutex_unlock(&ct->lock);
	while (list) {
		struct command *cmd = list;
		list = cmd->next;
		command_run(ct, cmd);
	}
	return stop;
}

static void wake_ready(struct control *ct, struct watch *w, uint32_t events)
{
	uint64_t count;

	(void)w, (void)events;
	if (read(ct->wakefd, &count, sizeof(count)) < 0)
		return;
	resolver_take(ct);
}

static void timers_run(struct control *ct, uint64_t now_ns)
{
	if (now_ns < ct->timer_ns)
		return;
	ct->timer_ns = UINT64_MAX;
	for (struct conn *c = ct->conns, *next; c; c = next) {
		next = c->next;
		if (c->timer_ns <= now_ns)
			conn_timer(ct, c, now_ns);
		else if (c->timer_ns < ct->timer_ns)
			ct->timer_ns = c->timer_ns;
	}
	if (ct->accept_at_ns && now_ns >= ct->accept_at_ns)
		listeners_resume(ct);
	else if (ct->accept_at_ns && ct->accept_at_ns < ct->timer_ns)
		ct->timer_ns = ct->accept_at_ns;
}

static void dead_bury(struct control *ct)
{
	while (ct->dead) {
		struct conn *c = ct->dead;
		ct->dead = c->next;
		conn_free(c);
	}
	listeners_bury(ct);
}

static void turn(struct control *ct, uint64_t until_ns)
{
	struct epoll_event ev[EVENTS_A_TURN];
	uint64_t now_ns = control_now_ns(), due = ct->timer_ns < until_ns ? ct->timer_ns : until_ns;
	int wait_ms = WAIT_MAX_MS;

	if (due <= now_ns)
		wait_ms = 0;
	else if (due - now_ns < WAIT_MAX_MS * 1000000ull)
		wait_ms = (int)((due - now_ns + 999999) / 1000000);
	int n = epoll_wait(ct->epfd, ev, EVENTS_A_TURN, wait_ms);
	for (int i = 0; i < n; i++) {
		struct watch *w = ev[i].data.ptr;
		w->ready(ct, w, ev[i].events);
	}
	timers_run(ct, control_now_ns());
	dead_bury(ct);
}

static void goodbye(struct control *ct)
{
	while (ct->listeners)
		listener_remove(ct, ct->listeners->id);
	for (struct conn *c = ct->conns, *next; c; c = next) {
		next = c->next;
		if (c->state == CONN_OPEN)
			conn_bye(ct, c, 0);
		else if (c->state != CONN_LINGER)
			conn_drop(ct, c);
	}
	uint64_t until_ns = control_now_ns() + CONTROL_CLOSE_NS;
	while (ct->conns && control_now_ns() < until_ns)
		turn(ct, until_ns);
	while (ct->conns)
		conn_drop(ct, ct->conns);
	dead_bury(ct);
}

static void *control_thread(void *arg)
{
	struct control *ct = arg;

	while (!commands_take(ct)) {
		turn(ct, UINT64_MAX);
	}
	goodbye(ct);
	return NULL;
}

static int thread_start(struct control *ct)
{
	sigset_t all, old;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int rc = pthread_create(&ct->thread, NULL, control_thread, ct);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc)
		return -TERN_EIO;
	pthread_setname_np(ct->thread, "tern-control");
	return 0;
}

static void config_take(struct control *ct, const struct control_config *config)
{
	struct control_config *c = &ct->config;

	*c = *config;
	c->site_key = NULL;
	if (config->site_key) {
		memcpy(ct->key, config->site_key, CONTROL_KEY_BYTES);
		ct->has_key = true;
	}
	c->version_min = c->version_min ? c->version_min : WIRE_VERSION_MIN;
	c->version_max = c->version_max ? c->version_max : WIRE_VERSION;
	c->max_conns = c->max_conns ? c->max_conns : CONTROL_CONNS_MAX;
	c->accept_timeout_ns = c->accept_timeout_ns ? c->accept_timeout_ns : CONTROL_SETUP_NS;
	c->keepalive_ns = c->keepalive_ns ? c->keepalive_ns : CONTROL_KEEPALIVE_NS;
}

static void control_free(struct control *ct)
{
	resolver_close(ct);
	tls_close(ct);
	if (ct->wakefd >= 0)
		close(ct->wakefd);
	if (ct->epfd >= 0)
		close(ct->epfd);
	pthread_cond_destroy(&ct->answered);
	pthread_mutex_destroy(&ct->lock);
	explicit_bzero(ct, sizeof(*ct));
	free(ct);
}

int control_open(const struct control_config *config, struct control **out, struct control_error *error)
{
	struct epoll_event ev = {.events = EPOLLIN};
	struct control *ct;
	int err;

	*out = NULL;
	if (!config->events || !config->events->prepare || !config->events->established || !config->events->failed || !config->events->closed ||
	    !config->events->lost || config->version_min > config->version_max)
		return control_say(error, -TERN_EINVAL, "control needs all its callbacks, and versions in order");
	ct = calloc(1, sizeof(*ct));
	if (!ct)
		return control_say(error, -TERN_ENOMEM, "no memory for the control thread");
	config_take(ct, config);
	pthread_mutex_init(&ct->lock, NULL);
	pthread_cond_init(&ct->answered, NULL);
	ct->last = &ct->first;
	ct->pid = getpid();
	ct->timer_ns = UINT64_MAX;
	ct->wake.ready = wake_ready;
	ct->epfd = epoll_create1(EPOLL_CLOEXEC);
	ct->wakefd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ev.data.ptr = &ct->wake;
	err = ct->epfd < 0 || ct->wakefd < 0 || epoll_ctl(ct->epfd, EPOLL_CTL_ADD, ct->wakefd, &ev) != 0 ? -TERN_EIO : 0;
	if (err)
		control_say(error, err, "the system refused epoll or eventfd: %s", strerror(errno));
	if (!err && (err = tls_open(ct)) != 0)
		control_say(error, err, "OpenSSL refused TLS 1.3 with TLS_AES_256_GCM_SHA384");
	if (!err && (err = resolver_open(ct)) != 0)
		control_say(error, err, "no memory");
	if (!err && (err = thread_start(ct)) != 0)
		control_say(error, err, "the system refused the control thread");
	if (err) {
		control_free(ct);
		return err;
	}
	*out = ct;
	return 0;
}

void control_close(struct control **control)
{
	struct control *ct = *control;

	*control = NULL;
	if (!ct || ct->pid != getpid()) /* a forked child has the memory, but not the thread */
		return;
	pthread_mutex_lock(&ct->lock);
	ct->stop = true;
	pthread_mutex_unlock(&ct->lock);
	control_wake(ct);
	pthread_join(ct->thread, NULL);
	control_free(ct);
}

/* Queues a copy for the thread. @return 0, -TERN_ENOMEM */
static int command_put(struct control *ct, const struct command *cmd)
{
	struct command *copy = malloc(sizeof(*copy));

	if (!copy)
		return -TERN_ENOMEM;
	*copy = *cmd;
	copy->next = NULL;
	pthread_mutex_lock(&ct->lock);
	*ct->last = copy;
	ct->last = &copy->next;
	pthread_mutex_unlock(&ct->lock);
	control_wake(ct);
	return 0;
}

static int control_may(struct control *ct, struct control_error *error)
{
	if (ct->pid != getpid())
		return control_say(error, -TERN_EFORK, "called in a forked child: open a context of its own");
	if (!ct->has_key)
		return control_say(error, -TERN_EKEY, "there is no site key: make one with tern-key and copy it to the other site");
	return 0;
}

int control_listen(struct control *ct, const struct control_listen *opts, uint16_t *port, struct control_error *error)
{
	struct listener *l;
	int err = control_may(ct, error);

	if (!err)
		err = listener_new(opts, &l, port, error);
	if (err)
		return err;
	err = command_put(ct, &(struct command){.type = COMMAND_LISTEN, .listener = l});
	if (err)
		listener_free(l);
	return err;
}

int control_unlisten(struct control *ct, uint64_t id)
{
	int answer = 1; /* not yet */

	if (ct->pid != getpid())
		return -TERN_EFORK;
	if (pthread_equal(pthread_self(), ct->thread)) /* from a callback: waiting for ourselves would be long */
		return listener_remove(ct, id);
	if (command_put(ct, &(struct command){.type = COMMAND_UNLISTEN, .id = id, .answer = &answer}))
		return -TERN_ENOMEM;
	pthread_mutex_lock(&ct->lock);
	while (answer == 1)
		pthread_cond_wait(&ct->answered, &ct->lock);
	pthread_mutex_unlock(&ct->lock);
	return answer;
}

int control_connect(struct control *ct, const struct control_connect *opts, struct control_error *error)
{
	int err = control_may(ct, error);
	struct conn *c;

	if (err)
		return err;
	if (!opts->host || !opts->host[0] || strlen(opts->host) >= CONTROL_HOST_MAX || opts->port == 0 || opts->id & CONTROL_ID_ACCEPTED)
		return control_say(error, -TERN_EINVAL, "connecting needs a host of less than %d bytes and a port", CONTROL_HOST_MAX);
	c = conn_new();
	if (!c)
		return control_say(error, -TERN_ENOMEM, "no memory for a connection");
	c->is_initiator = true;
	c->is_private = opts->is_private;
	c->id = opts->id;
	memcpy(c->setup->host, opts->host, strlen(opts->host));
	c->setup->port = opts->port;
	c->began_ns = control_now_ns();
	c->setup_ns = c->began_ns + (opts->timeout_ns ? opts->timeout_ns : CONTROL_SETUP_NS);
	err = command_put(ct, &(struct command){.type = COMMAND_CONNECT, .conn = c});
	if (err)
		conn_free(c);
	return err;
}

void control_bye(struct control *ct, uint64_t id, int status)
{
	if (ct->pid == getpid())
		command_put(ct, &(struct command){.type = COMMAND_BYE, .id = id, .status = status}); /* without memory: the peer sees it as lost */
}
