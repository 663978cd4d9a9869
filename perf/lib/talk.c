/* See talk.h. */
#include "talk.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TALK_INJECT = 4096 };

/* Marks the events of control messages; only the addresses matter. */
static char mark_out, mark_in;

static int wait_for(struct node *n, void *mark, tern_event *event)
{
	do {
		int result = node_next(n, event);
		if (result)
			return result;
	} while (event->user != mark); /* what a run left behind */
	if (event->status)
		return node_error(n, "control message: %s", tern_error_text(event->status));
	return NODE_OK;
}

/* Short messages are handed over by value and not waited for: the answer that starts a run must not swallow the first events of it. Long ones are
 * told in runs that have no receives, or after their end. */
static int talk_send(struct node *n, json_t *object)
{
	tern_args args = {.size_bytes = sizeof(args), .user = &mark_out, .tag = TALK_TAG};
	tern_event event;

	free(n->out); /* its operation has ended, or its peer is gone */
	n->out = json_dumps(object, JSON_COMPACT);
	json_decref(object);
	if (!n->out)
		return node_error(n, "no memory for a control message");
	if (strlen(n->out) <= TALK_INJECT) {
		args.flags = TERN_INJECT | TERN_QUIET;
		return node_send(n, n->out, strlen(n->out), &args);
	}
	int result = node_send(n, n->out, strlen(n->out), &args);
	return result ? result : wait_for(n, &mark_out, &event);
}

static int talk_recv(struct node *n, json_t **out)
{
	tern_args args = {.size_bytes = sizeof(args), .user = &mark_in, .tag = TALK_TAG};
	tern_event event;
	json_error_t why;

	*out = NULL;
	if (!n->in)
		n->in = malloc(TALK_BYTES_MAX);
	if (!n->in)
		return node_error(n, "no memory for a control message");
	int result = node_recv(n, n->in, TALK_BYTES_MAX, &args, NULL);
	if (!result)
		result = wait_for(n, &mark_in, &event);
	if (result)
		return result;
	*out = json_loadb(n->in, event.bytes, 0, &why);
	if (json_is_object(*out))
		return NODE_OK;
	json_decref(*out);
	*out = NULL;
	return node_error(n, "control message of %llu bytes is no JSON object: %s", (unsigned long long)event.bytes, why.text);
}

int talk_ask(struct node *n, json_t *question, json_t **answer)
{
	int result = talk_send(n, question);

	*answer = NULL;
	if (!result)
		result = talk_recv(n, answer);
	if (result)
		return result;
	const char *error = talk_text(*answer, "error");
	if (!error)
		return NODE_OK;
	node_error(n, "the server says: %s", error);
	json_decref(*answer);
	*answer = NULL;
	return NODE_FAILED;
}

int talk_hear(struct node *n, json_t **question)
{
	for (;;) {
		int result = talk_recv(n, question);
		if (result || !json_object_get(*question, "tick"))
			return result;
		json_decref(*question);
	}
}

int talk_tick(struct node *n)
{
	static const char tick[] = "{\"tick\":1}";
	tern_iov iov = {.addr = (void *)tick, .bytes = sizeof(tick) - 1};
	tern_buf buf = {.iov = &iov, .n = 1};
	tern_args args = {.size_bytes = sizeof(args), .flags = TERN_INJECT | TERN_QUIET, .tag = TALK_TAG};
	int err = tern_send(n->ep, n->peer, &buf, &args, NULL);

	return !err || err == -TERN_EAGAIN ? NODE_OK : node_fail(n, "cannot send", err);
}

int talk_answer(struct node *n, json_t *answer)
{
	return talk_send(n, answer);
}

int talk_refuse(struct node *n, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	int result = talk_send(n, json_pack("{s:s}", "error", text));
	return result ? result : node_error(n, "refused the client: %s", text);
}

int talk_hello(struct node *n, const char *tool)
{
	json_t *answer;
	int result = talk_ask(n, json_pack("{s:s, s:i}", "tool", tool, "version", TALK_VERSION), &answer);

	json_decref(answer);
	return result;
}

int talk_welcome(struct node *n, const char *tool)
{
	json_t *question;
	int result = talk_hear(n, &question);

	if (result)
		return result;
	const char *theirs = talk_text(question, "tool");
	uint64_t version = talk_number(question, "version", 0);
	if (!theirs || strcmp(theirs, tool))
		result = talk_refuse(n, "this is %s, and the client is %s", tool, theirs ? theirs : "something else");
	else if (version != TALK_VERSION)
		result = talk_refuse(n, "this %s speaks version %d of the control messages, the client version %llu", tool, TALK_VERSION,
		        (unsigned long long)version);
	else
		result = talk_answer(n, json_pack("{s:s}", "tool", tool));
	json_decref(question);
	return result;
}

uint64_t talk_number(const json_t *object, const char *name, uint64_t otherwise)
{
	const json_t *value = json_object_get(object, name);

	return json_is_integer(value) && json_integer_value(value) >= 0 ? (uint64_t)json_integer_value(value) : otherwise;
}

const char *talk_text(const json_t *object, const char *name)
{
	return json_string_value(json_object_get(object, name));
}
