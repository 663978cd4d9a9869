/* What tern-copy tells the person or program that runs it: bar or lines on standard error, with --json one object a line on standard output. Main thread only. */
#ifndef COPY_REPORT_H
#define COPY_REPORT_H
#include "copy.h"
#include "progress.h"

struct report {
	const struct copy_options *o;
	const char *role;           /* "send" or "receive" */
	struct progress progress;
	uint64_t json_ns;           /* when the last progress object went out */
	uint64_t start_ns;
	bool started;
};

struct report_totals {
	uint64_t files, bytes;       /* of the transfer */
	uint64_t moved_bytes;        /* that went over the link */
	uint64_t move_ns;            /* from the first piece posted to the last one acknowledged (sender) or arrived */
	uint64_t limit_bytes_per_s;  /* 0: no contract */
};

void report_open(struct report *r, const struct copy_options *o, const char *role);
void report_start(struct report *r, uint64_t files, uint64_t bytes, uint64_t limit_bytes_per_s, uint64_t now_ns);
void report_step(struct report *r, const char *name, uint64_t bytes, uint64_t now_ns);
/** The last line or object: what was done, or the error. @return the exit code */
int report_end(struct report *r, const struct report_totals *t, const struct copy_error *error);
/** A line for -v (level 1) and -vv (level 2). */
__attribute__((format(printf, 3, 4))) void report_say(struct report *r, int level, const char *format, ...);
/** A log hook for tern_config. */
void report_log(void *arg, int level, const char *file, int line, const char *text);

#endif
