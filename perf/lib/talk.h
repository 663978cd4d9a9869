/* What client and server tell each other besides the measurement: JSON objects, sent as Tern messages under a tag of their own, always a question of
 * the client and an answer of the server. Called by tern-lat and tern-bw. */
#ifndef PERF_TALK_H
#define PERF_TALK_H
#include <jansson.h>
#include "node.h"

#define TALK_TAG 0x7065726600000000u /* messages of a measurement use tags below */
enum { TALK_BYTES_MAX = 256 << 10, TALK_VERSION = 1 };

/** Client: asks and waits for the answer. Takes `question` over. @return NODE_OK and *answer (the caller's); an answer with "error" is NODE_FAILED */
int talk_ask(struct node *n, json_t *question, json_t **answer);
/** Server: waits for the next question. @return NODE_OK and *question (the caller's), NODE_GONE when the client is done */
int talk_hear(struct node *n, json_t **question);
/** Client: a sign of life while a server has nothing to do but to be written to or read from. No answer; never waits. */
int talk_tick(struct node *n);
/** Server: answers. Takes `answer` over. */
int talk_answer(struct node *n, json_t *answer);
/** Server: refuses, in words. */
int talk_refuse(struct node *n, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** Client: the first question: same program, same version? */
int talk_hello(struct node *n, const char *tool);
/** Server: the first answer. @return NODE_FAILED after refusing */
int talk_welcome(struct node *n, const char *tool);

/** A whole number of an object, `otherwise` when it has none. */
uint64_t talk_number(const json_t *object, const char *name, uint64_t otherwise);
const char *talk_text(const json_t *object, const char *name);

#endif
