/* The value of one name in a link's options, "a=b&c=d". Used by links at open; names that a link does not know are none of its business. */
#ifndef LINK_OPTION_H
#define LINK_OPTION_H
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/** Copies the value to out, cut to fit. @return false: the name is not there */
static inline bool link_option(const char *options, const char *name, char *out, size_t room)
{
	size_t length = strlen(name);
	for (const char *at = options; at && *at; at = strchr(at, '&') ? strchr(at, '&') + 1 : NULL)
		if (!strncmp(at, name, length) && at[length] == '=') {
			size_t value = strcspn(at + length + 1, "&");
			snprintf(out, room, "%.*s", (int)value, at + length + 1);
			return true;
		}
	return false;
}

#endif
