/* For the tests of control/: an end is a control with callbacks that note what they are told, and waits for such a note. No test sleeps: it waits for
 * the event. */
#ifndef TESTS_ENDS_H
#define TESTS_ENDS_H
#include <pthread.h>
#include <string.h>
#include <time.h>
#include "control/control.h"
#include "tern/error.h"
#include "unit.h"

enum note_type { NOTE_ESTABLISHED = 1, NOTE_FAILED, NOTE_CLOSED, NOTE_LOST };
enum { NOTES_MAX = 1024, WAIT_S = 20 };

struct note {
	enum note_type type;
	uint64_t id;
	int status;
	char text[CONTROL_TEXT_MAX];
	struct session session;
};

struct end {
	struct control *ct;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct note *note;
	size_t notes;
	uint32_t paths;           /* offered in prepare */
	uint8_t first_path;       /* their ids count from here */
	int refuse;               /* prepare's answer */
	struct control_ask asked; /* last one; theirs is not valid any more */
	bool saw_theirs;
	bool unlistens; /* in prepare */
};

static inline void end_note(struct end *e, enum note_type type, uint64_t id, int status, const char *text, const struct session *s)
{
	pthread_mutex_lock(&e->lock);
	if (e->notes < NOTES_MAX) {
		struct note *n = &e->note[e->notes++];
		n->type = type;
		n->id = id;
		n->status = status;
		snprintf(n->text, sizeof(n->text), "%s", text ? text : "");
		if (s)
			n->session = *s;
	}
	pthread_cond_broadcast(&e->changed);
	pthread_mutex_unlock(&e->lock);
}

static inline int end_prepare(void *arg, const struct control_ask *ask, struct wire_hello *mine)
{
	struct end *e = arg;

	pthread_mutex_lock(&e->lock);
	e->asked = *ask;
	e->saw_theirs = ask->theirs != NULL;
	pthread_mutex_unlock(&e->lock);
	mine->paths = (uint8_t)e->paths;
	for (uint32_t i = 0; i < e->paths; i++)
		mine->path[i] = (struct wire_hello_path){.path_id = (uint8_t)(e->first_path + i),
		                                         .udp_port = (uint16_t)(4000 + i),
		                                         .flow_id = (uint32_t)(ask->id * 100 + i),
		                                         .mtu_bytes = ask->is_initiator ? 9000
		                                                      : i               ? 1500
		                                                                        : 0};
	mine->credit_bytes = ask->is_initiator ? 111 : 222;
	mine->credit_heads = 7;
	mine->capabilities = ask->is_initiator ? 3 : 6;
	snprintf(mine->name, sizeof(mine->name), "%s", ask->is_initiator ? "caller" : "callee");
	if (e->unlistens)
		CU_ASSERT_EQUAL(control_unlisten(e->ct, ask->listener), 0);
	return e->refuse;
}

static inline void end_established(void *arg, uint64_t id, const struct session *s)
{
	end_note(arg, NOTE_ESTABLISHED, id, 0, NULL, s);
}

static inline void end_failed(void *arg, uint64_t id, int err, const char *text)
{
	end_note(arg, NOTE_FAILED, id, err, text, NULL);
}

static inline void end_closed(void *arg, uint64_t id, int status)
{
	end_note(arg, NOTE_CLOSED, id, status, NULL, NULL);
}

static inline void end_lost(void *arg, uint64_t id, const char *text)
{
	end_note(arg, NOTE_LOST, id, 0, text, NULL);
}

static const struct control_events end_events = {end_prepare, end_established, end_failed, end_closed, end_lost};

/* The n-th note (from 0) of a type; waits for it. */
static inline const struct note *end_wait_nth(struct end *e, enum note_type type, size_t nth)
{
	struct timespec until;
	const struct note *found = NULL;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += WAIT_S;
	pthread_mutex_lock(&e->lock);
	for (int rc = 0; !found && rc == 0;) {
		size_t seen = 0;
		for (size_t i = 0; i < e->notes && !found; i++)
			if (e->note[i].type == type && seen++ == nth)
				found = &e->note[i];
		if (!found)
			rc = pthread_cond_timedwait(&e->changed, &e->lock, &until);
	}
	pthread_mutex_unlock(&e->lock);
	if (!found)
		printf("no note of type %d came within %d s; ", type, WAIT_S);
	CU_ASSERT_PTR_NOT_NULL_FATAL(found);
	return found;
}

static inline const struct note *end_wait(struct end *e, enum note_type type)
{
	return end_wait_nth(e, type, 0);
}

static inline size_t end_count(struct end *e, enum note_type type)
{
	size_t n = 0;

	pthread_mutex_lock(&e->lock);
	for (size_t i = 0; i < e->notes; i++)
		n += e->note[i].type == type;
	pthread_mutex_unlock(&e->lock);
	return n;
}

static inline void end_log(void *arg, int level, const char *file, int line, const char *text)
{
	(void)arg;
	if (getenv("TERN_TEST_LOG"))
		printf("\n    [%d] %s:%d %s", level, file, line, text);
}

/* A config with a key, an identity, and the callbacks; change it, then end_open. */
static inline struct control_config end_config(struct end *e, const uint8_t *key, uint8_t who)
{
	struct control_config config = {.site_key = key, .epoch = 1000u + who, .events = &end_events, .arg = e, .log = end_log};

	memset(config.node_id, who, sizeof(config.node_id));
	memset(e, 0, sizeof(*e));
	pthread_mutex_init(&e->lock, NULL);
	pthread_cond_init(&e->changed, NULL);
	e->note = calloc(NOTES_MAX, sizeof(*e->note));
	e->paths = 3;
	return config;
}

static inline void end_open(struct end *e, const struct control_config *config)
{
	struct control_error error = {""};

	CU_ASSERT_EQUAL_FATAL(control_open(config, &e->ct, &error), 0);
}

static inline void end_close(struct end *e)
{
	control_close(&e->ct);
	CU_ASSERT_PTR_NULL(e->ct);
	free(e->note);
	pthread_cond_destroy(&e->changed);
	pthread_mutex_destroy(&e->lock);
}

static inline uint16_t end_listen(struct end *e, const char *host, bool is_private)
{
	struct control_error error = {""};
	uint16_t port = 0;
	int rc = control_listen(e->ct, &(struct control_listen){.host = host, .is_private = is_private, .id = 77}, &port, &error);

	if (rc)
		printf("%s; ", error.text);
	CU_ASSERT_EQUAL_FATAL(rc, 0);
	CU_ASSERT_NOT_EQUAL_FATAL(port, 0);
	return port;
}

static inline void end_connect(struct end *e, const char *host, uint16_t port, bool is_private, uint64_t id)
{
	struct control_error error = {""};

	CU_ASSERT_EQUAL_FATAL(
	    control_connect(e->ct, &(struct control_connect){.host = host, .port = port, .is_private = is_private, .id = id}, &error), 0);
}

#endif
