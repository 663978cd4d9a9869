/* Texts of the error numbers and of the version. Called by everyone; knows nothing else. */
#include <stddef.h>
#include "tern/error.h"
#include "tern/version.h"

static const char *const error_text[TERN_ERR_END] = {
	"success",
	"try again later",
	"invalid argument",
	"canceled",
	"timed out",
	"receive smaller than the message",
	"stale handle",
	"peer died or closed",
	"not authorised: wrong site key, identity or right",
	"no protocol version in common",
	"still in use",
	"limit reached",
	"called in a forked child",
	"failed, but remote bytes may have landed",
	"failed, memory still in use",
	"dtype or shape differ",
	"out of memory",
	"input or output error",
	"address malformed, in use or not reachable",
	"no such link",
	"site key missing, malformed or readable by others",
	"UDP port blocked",
	"private=1 at one end only",
	"protocol broken by the peer",
	"no such thing",
};

const char *tern_error_text(int err)
{
	if (err <= -TERN_ERR_END || err >= TERN_ERR_END)
		return "unknown error";
	return error_text[err < 0 ? -err : err];
}

const char *tern_version(void)
{
	return TERN_VERSION_TEXT;
}
