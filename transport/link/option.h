/* A link's options, "a=b&c=d": the value of one name, and the first name that the link does not know. Used by links at open. */
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

/** @param names what the link knows, between blanks. @return the first other name, the whole length of it in *bytes; NULL: there is none. What the emu
 * link adds for itself is known everywhere. */
static inline const char *link_option_unknown(const char *options, const char *names, size_t *bytes)
{
	static const char *const of_emu = "link emu emu_direction";
	for (const char *at = options; at && *at; at = strchr(at, '&') ? strchr(at, '&') + 1 : NULL) {
		const char *const lists[] = {names, of_emu};
		bool known = false;
		*bytes = strcspn(at, "=&");
		for (int i = 0; i < 2; i++)
			for (const char *name = lists[i]; *name && !known; name += strcspn(name, " "), name += strspn(name, " "))
				known = strcspn(name, " ") == *bytes && !strncmp(name, at, *bytes);
		if (!known)
			return at;
	}
	return NULL;
}

#endif
