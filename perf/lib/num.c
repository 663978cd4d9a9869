/* See num.h. */
#include "num.h"
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

int num_count(const char *text, uint64_t least, uint64_t most, uint64_t *count)
{
	char *end;

	if (!isdigit((unsigned char)*text))
		return -1; /* strtoull takes "-1" */
	errno = 0;
	unsigned long long value = strtoull(text, &end, 10);
	if (errno || *end || value < least || value > most)
		return -1;
	*count = value;
	return 0;
}

int num_bytes(const char *text, uint64_t *bytes)
{
	static const char *const unit[] = {"b", "k", "m", "g"};
	char *end;

	if (!isdigit((unsigned char)*text))
		return -1;
	errno = 0;
	unsigned long long value = strtoull(text, &end, 10);
	if (errno)
		return -1;
	if (!*end) {
		*bytes = value;
		return 0;
	}
	for (unsigned i = 0; i < 4; i++) {
		if (strncasecmp(end, unit[i], 1))
			continue;
		if (end[1] && (!i || (strcasecmp(end + 1, "b") && strcasecmp(end + 1, "ib"))))
			return -1;
		if (value > UINT64_MAX >> (10 * i))
			return -1;
		*bytes = value << (10 * i);
		return 0;
	}
	return -1;
}

int num_time(const char *text, uint64_t *ns)
{
	static const struct {
		const char *name;
		double scale;
	} unit[] = {{"", 1e9}, {"s", 1e9}, {"ms", 1e6}, {"us", 1e3}, {"m", 60e9}};
	char *end;

	if (!isdigit((unsigned char)*text) && *text != '.')
		return -1;
	double value = strtod(text, &end);
	for (unsigned i = 0; i < sizeof(unit) / sizeof(unit[0]); i++)
		if (!strcmp(end, unit[i].name)) {
			value *= unit[i].scale;
			if (!(value >= 1 && value < 9e18))
				return -1;
			*ns = (uint64_t)value;
			return 0;
		}
	return -1;
}

void num_to_hex(const void *data, size_t bytes, char *text)
{
	static const char digit[] = "0123456789abcdef";
	const uint8_t *in = data;

	for (size_t i = 0; i < bytes; i++) {
		text[2 * i] = digit[in[i] >> 4];
		text[2 * i + 1] = digit[in[i] & 15];
	}
	text[2 * bytes] = 0;
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int num_from_hex(const char *text, void *data, size_t *bytes)
{
	uint8_t *out = data;
	size_t n = strlen(text);

	if (n % 2 || n / 2 > *bytes)
		return -1;
	for (size_t i = 0; i < n / 2; i++) {
		int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
		if (high < 0 || low < 0)
			return -1;
		out[i] = (uint8_t)(high << 4 | low);
	}
	*bytes = n / 2;
	return 0;
}
