/* Text addresses: see address.h. Called by sender.c and receiver.c; the library checks the rest. */
#include "address.h"
#include <stdio.h>
#include <string.h>

int address_make(char out[COPY_ADDRESS_MAX], const char *text, bool private_link, struct copy_error *error)
{
	const char *query = strchr(text, '?');
	int n = snprintf(out, COPY_ADDRESS_MAX, "%s%s%s", strstr(text, "://") ? "" : "udp://", text,
	        !private_link ? ""
	        : query       ? "&private=1"
	                      : "?private=1");
	if (n < COPY_ADDRESS_MAX)
		return 0;
	return copy_fail(error, COPY_USAGE, "the address is longer than %d bytes: '%.60s...'", COPY_ADDRESS_MAX - 1, text);
}
