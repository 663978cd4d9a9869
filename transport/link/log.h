/* What a link says through its context's log hook. In a header, as option.h: links that are modules take nothing else from the library. */
#ifndef LINK_LOG_H
#define LINK_LOG_H
#include <stdarg.h>
#include <stdio.h>
#include "link/link.h"

enum { LINK_LOG_BYTES = 320 };

/** The hook and its argument, from open on. */
static inline void link_log_open(struct link *link, const struct link_config *config)
{
	link->log = config->log;
	link->log_arg = config->log_arg;
}

/** One line, cut to LINK_LOG_BYTES; nothing without a hook. @param level enum tern_log_level */
__attribute__((format(printf, 5, 6))) static inline void link_log_at(
        const struct link *link, int level, const char *file, int line, const char *format, ...)
{
	char text[LINK_LOG_BYTES];
	va_list args;

	if (!link->log)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	link->log(link->log_arg, level, file, line, text);
}

#define link_log(link, level, ...) link_log_at(link, level, __FILE__, __LINE__, __VA_ARGS__)

#endif
