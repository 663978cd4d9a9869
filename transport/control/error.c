/* Writes errors in words. Called all over control/. */
#include <stdarg.h>
#include <stdio.h>
#include "control/error.h"

int control_say(struct control_error *error, int err, const char *format, ...)
{
	va_list args;

	if (!error)
		return err;
	va_start(args, format);
	vsnprintf(error->text, sizeof(error->text), format, args);
	va_end(args);
	return err;
}
