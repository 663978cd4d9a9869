/* Errors in words, for everything in control/ that fails in front of a person. */
#ifndef CONTROL_ERROR_H
#define CONTROL_ERROR_H

enum { CONTROL_TEXT_MAX = 512 };

struct control_error {
	char text[CONTROL_TEXT_MAX];
};

/** Writes the words, if error is not NULL. @return err */
int control_say(struct control_error *error, int err, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
