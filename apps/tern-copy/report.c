/* Output: see report.h. Called by sender.c and receiver.c. Knows nothing of how a transfer works. */
#include "report.h"
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tern/tern.h"
#include "units.h"

enum { JSON_NS = 500000000, SAY_BYTES = 1024 };

void report_open(struct report *r, const struct copy_options *o, const char *role)
{
	memset(r, 0, sizeof(*r));
	r->o = o;
	r->role = role;
	r->start_ns = copy_now_ns();
}

/* Names are bytes and may not be UTF-8, which JSON needs. */
static json_t *text_json(const char *text)
{
	json_t *value = json_string(text);
	if (value)
		return value;
	char *clean = strdup(text);
	for (char *c = clean; c && *c; c++)
		if (*c & 0x80)
			*c = '?';
	value = json_string(clean ? clean : "?");
	free(clean);
	return value;
}

static void json_put(json_t *object)
{
	char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
	if (text) {
		puts(text);
		fflush(stdout);
	}
	free(text);
	json_decref(object);
}

void report_say(struct report *r, int level, const char *format, ...)
{
	char text[SAY_BYTES];
	va_list args;
	if (r->o->quiet || r->o->verbose < level)
		return;
	progress_clear(&r->progress);
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	fprintf(stderr, "tern-copy: %s\n", units_printable(text));
}

void report_log(void *arg, int level, const char *file, int line, const char *text)
{
	const struct copy_options *o = arg;
	static const char *const names[] = {"error", "warning", "info", "debug"};
	if (level > (o->verbose > 1 ? TERN_LOG_DEBUG : o->verbose ? TERN_LOG_INFO : TERN_LOG_ERROR) || (o->quiet && !o->verbose))
		return;
	char clean[SAY_BYTES];
	snprintf(clean, sizeof(clean), "%s", text);
	fprintf(stderr, "tern: %s: %s (%s:%d)\n", names[level & 3], units_printable(clean), file, line);
}

void report_start(struct report *r, uint64_t files, uint64_t bytes, uint64_t limit_bytes_per_s, uint64_t now_ns)
{
	progress_open(&r->progress, stderr, bytes, now_ns);
	r->progress.limit_bytes_per_s = limit_bytes_per_s;
	r->started = true;
	if (r->o->json)
		json_put(json_pack("{s:s, s:s, s:I, s:I, s:I}", "event", "start", "role", r->role, "files", (json_int_t)files, "bytes",
		        (json_int_t)bytes, "limit_bytes_per_s", (json_int_t)limit_bytes_per_s));
}

static void json_step(struct report *r, const char *name, uint64_t bytes, uint64_t now_ns)
{
	const struct progress *p = &r->progress;
	uint64_t rate = progress_rate(p), left = p->total_bytes > bytes ? p->total_bytes - bytes : 0;
	if (now_ns - r->json_ns < JSON_NS)
		return;
	r->json_ns = now_ns;
	json_put(json_pack("{s:s, s:s, s:o, s:I, s:I, s:I, s:o, s:o}", "event", "progress", "role", r->role, "name", text_json(name), "bytes",
	        (json_int_t)bytes, "total_bytes", (json_int_t)p->total_bytes, "rate_bytes_per_s", (json_int_t)rate, "contract_percent",
	        p->limit_bytes_per_s ? json_real((double)rate * 100 / (double)p->limit_bytes_per_s) : json_null(), "left_s",
	        rate ? json_real((double)left / (double)rate) : json_null()));
}

void report_step(struct report *r, const char *name, uint64_t bytes, uint64_t now_ns)
{
	if (!r->started)
		return;
	if (!r->o->quiet && !r->o->json) {
		progress_step(&r->progress, name, bytes, now_ns);
		return;
	}
	r->progress.plain_ns = UINT64_MAX;
	r->progress.terminal = false;
	progress_step(&r->progress, name, bytes, now_ns); /* keeps the rate; draws nothing */
	if (r->o->json)
		json_step(r, name, bytes, now_ns);
}

static void totals_print(struct report *r, const struct report_totals *t, uint64_t goodput)
{
	char bytes[UNITS_TEXT_MAX], moved[UNITS_TEXT_MAX], rate[UNITS_TEXT_MAX], limit[UNITS_TEXT_MAX], took[UNITS_TEXT_MAX];
	printf("%s %llu file%s, %s, verified", r->role[0] == 's' ? "sent" : "received", (unsigned long long)t->files, t->files == 1 ? "" : "s",
	       units_bytes(bytes, sizeof(bytes), t->bytes));
	if (t->moved_bytes != t->bytes)
		printf(" (%s over the link, the rest was there)", units_bytes(moved, sizeof(moved), t->moved_bytes));
	printf(", in %s", units_time(took, sizeof(took), copy_now_ns() - r->start_ns));
	if (goodput)
		printf("; goodput %s", units_rate(rate, sizeof(rate), goodput));
	if (goodput && t->limit_bytes_per_s)
		printf(", %.1f%% of the contract's limit %s", (double)goodput * 100 / (double)t->limit_bytes_per_s,
		       units_rate(limit, sizeof(limit), t->limit_bytes_per_s));
	printf("\n");
	fflush(stdout);
}

int report_end(struct report *r, const struct report_totals *t, const struct copy_error *error)
{
	int code = atomic_load(&error->exit);
	uint64_t goodput = t->move_ns && t->moved_bytes ? (uint64_t)((double)t->moved_bytes * 1e9 / (double)t->move_ns) : 0;
	progress_clear(&r->progress);
	if (r->o->json)
		json_put(json_pack("{s:s, s:s, s:s, s:i, s:o, s:I, s:I, s:I, s:f, s:f, s:I, s:I}", "event", "end", "role", r->role, "status",
		        code ? "error" : "ok", "exit", code, "error", code ? text_json(error->text) : json_null(), "files", (json_int_t)t->files,
		        "bytes", (json_int_t)t->bytes, "moved_bytes", (json_int_t)t->moved_bytes, "seconds",
		        (double)(copy_now_ns() - r->start_ns) / 1e9, "move_seconds", (double)t->move_ns / 1e9, "goodput_bytes_per_s",
		        (json_int_t)goodput, "limit_bytes_per_s", (json_int_t)t->limit_bytes_per_s));
	else if (!code && !r->o->quiet)
		totals_print(r, t, goodput);
	if (code)
		fprintf(stderr, "tern-copy: %s\n", error->text);
	return code;
}
