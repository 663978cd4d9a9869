/* Bytes, rates and times as text, and back. Called by every program of apps/. Decimal units in output, as networks and disks are sold; binary ones
 * are accepted. Must not know what the numbers mean. */
#include "units.h"
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct unit {
	const char *name;
	double factor;
};

static const struct unit byte_units[] = {
        {"", 1},
        {"B", 1},
        {"k", 1e3},
        {"kB", 1e3},
        {"KB", 1e3},
        {"K", 1e3},
        {"M", 1e6},
        {"MB", 1e6},
        {"G", 1e9},
        {"GB", 1e9},
        {"T", 1e12},
        {"TB", 1e12},
        {"Ki", 1024.0},
        {"KiB", 1024.0},
        {"Mi", 1048576.0},
        {"MiB", 1048576.0},
        {"Gi", 1073741824.0},
        {"GiB", 1073741824.0},
        {"Ti", 1099511627776.0},
        {"TiB", 1099511627776.0},
        {NULL, 0},
};
static const struct unit rate_units[] = {
	{"b/s", 0.125}, {"bit/s", 0.125}, {"kb/s", 125}, {"kbit/s", 125}, {"Mb/s", 125e3}, {"Mbit/s", 125e3}, {"Gb/s", 125e6}, {"Gbit/s", 125e6},
	{"Tb/s", 125e9}, {"Tbit/s", 125e9}, {"", 1}, {"B/s", 1}, {"kB/s", 1e3}, {"MB/s", 1e6}, {"GB/s", 1e9}, {"TB/s", 1e12}, {"KiB/s", 1024.0},
	{"MiB/s", 1048576.0}, {"GiB/s", 1073741824.0}, {NULL, 0},
};
static const struct unit time_units[] = {
	{"", 1}, {"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"min", 60e9}, {"h", 3600e9}, {NULL, 0},
};

static int parse(const char *text, const struct unit *units, uint64_t *out)
{
	char *end;
	if (!isdigit((unsigned char)text[0]) && text[0] != '.')
		return -1;
	double value = strtod(text, &end);
	if (end == text || !isfinite(value))
		return -1;
	while (*end == ' ')
		end++;
	for (; units->name; units++)
		if (!strcmp(end, units->name))
			break;
	value *= units->factor;
	if (!units->name || value >= 1.8e19)
		return -1;
	*out = (uint64_t)(value + 0.5);
	return 0;
}

int units_parse_bytes(const char *text, uint64_t *bytes)
{
	return parse(text, byte_units, bytes);
}

int units_parse_rate(const char *text, uint64_t *bytes_per_s)
{
	return parse(text, rate_units, bytes_per_s);
}

int units_parse_time(const char *text, uint64_t *ns)
{
	return parse(text, time_units, ns);
}

/* Three significant digits below 1000, with the decimal prefix that makes it so. */
static void scaled(char *out, size_t room, double value, const char *unit)
{
	static const char prefix[] = " kMGTPE";
	unsigned p = 0;
	while (value >= 999.5 && p + 2 < sizeof(prefix)) {
		value /= 1000;
		p++;
	}
	int digits = p == 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
	if (p)
		snprintf(out, room, "%.*f %c%s", digits, value, prefix[p], unit);
	else
		snprintf(out, room, "%.*f %s", digits, value, unit);
}

char *units_bytes(char *out, size_t room, uint64_t bytes)
{
	scaled(out, room, (double)bytes, "B");
	return out;
}

char *units_rate(char *out, size_t room, uint64_t bytes_per_s)
{
	char bits[UNITS_TEXT_MAX], bytes[UNITS_TEXT_MAX];
	scaled(bits, sizeof(bits), (double)bytes_per_s * 8, "b/s");
	scaled(bytes, sizeof(bytes), (double)bytes_per_s, "B/s");
	snprintf(out, room, "%.20s (%.20s)", bits, bytes);
	return out;
}

char *units_time(char *out, size_t room, uint64_t ns)
{
	uint64_t s = ns / 1000000000u;
	if (ns < 1000000)
		snprintf(out, room, "%llu us", (unsigned long long)(ns / 1000));
	else if (ns < 1000000000u)
		snprintf(out, room, "%.3g ms", (double)ns / 1e6);
	else if (s < 60)
		snprintf(out, room, "%.*f s", s < 10 ? 2 : 1, (double)ns / 1e9);
	else if (s < 3600)
		snprintf(out, room, "%llum %02us", (unsigned long long)(s / 60), (unsigned)(s % 60));
	else if (s < 86400)
		snprintf(out, room, "%lluh %02um", (unsigned long long)(s / 3600), (unsigned)(s / 60 % 60));
	else
		snprintf(out, room, "%llud %02uh", (unsigned long long)(s / 86400), (unsigned)(s / 3600 % 24));
	return out;
}

char *units_printable(char *text)
{
	for (char *c = text; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
	return text;
}
