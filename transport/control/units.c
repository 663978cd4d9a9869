/* Numbers with units, see units.h. Called by contract.c. Decimal numbers are read here and not by strtod, which also takes "inf", hexadecimal and, in
 * some countries, only commas. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include "control/units.h"

struct unit {
	const char *name;
	double factor;
};

enum { DIGITS_MAX = 18, EXPONENT_MAX = 30 };

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static double power_of_ten(int n)
{
	double p = 1;

	while (n-- > 0)
		p *= 10; /* exact to 22 */
	return p;
}

/* 12, 1.5, .5, 1e-4: at most 18 digits. @return the first byte behind it, NULL: no number */
static const char *number_read(const char *text, double *out)
{
	uint64_t value = 0;
	int digits = 0, places = 0, exponent = 0;
	bool minus = false;

	for (; is_digit(*text) || (*text == '.' && places == 0); text++) {
		if (*text == '.') {
			places = 1; /* one more than there are */
			continue;
		}
		if (++digits > DIGITS_MAX)
			return NULL;
		value = value * 10 + (uint64_t)(*text - '0');
		places += places > 0;
	}
	if (!digits)
		return NULL;
	if ((*text == 'e' || *text == 'E') && (is_digit(text[1]) || ((text[1] == '-' || text[1] == '+') && is_digit(text[2])))) {
		minus = text[1] == '-';
		for (text += is_digit(text[1]) ? 1 : 2; is_digit(*text); text++) {
			exponent = exponent * 10 + (*text - '0');
			if (exponent > EXPONENT_MAX)
				return NULL;
		}
	}
	exponent = (minus ? -exponent : exponent) - (places ? places - 1 : 0);
	*out = exponent < 0 ? (double)value / power_of_ten(-exponent) : (double)value * power_of_ten(exponent);
	return text;
}

static bool unit_read(const char *text, const struct unit *units, size_t n, double *out)
{
	double value;
	const char *at = number_read(text, &value);

	if (!at)
		return false;
	at += strspn(at, " \t");
	for (size_t i = 0; i < n; i++)
		if (strcmp(at, units[i].name) == 0) {
			*out = value * units[i].factor;
			return true;
		}
	return false;
}

static bool whole_fit(double value, uint64_t *out)
{
	if (!(value >= 0 && value < 9.2e18))
		return false;
	*out = (uint64_t)(value + 0.5);
	return true;
}

bool units_rate(const char *text, uint64_t *bytes_per_s)
{
	static const struct unit scale[] = {{"", 1}, {"k", 1e3}, {"K", 1e3}, {"M", 1e6}, {"G", 1e9}, {"T", 1e12}};
	static const struct unit of[] = {{"bit", 8}, {"bit/s", 8}, {"bps", 8}, {"b/s", 8}, {"B/s", 1}};
	double value;
	const char *at = number_read(text, &value);

	if (!at)
		return false;
	at += strspn(at, " \t");
	for (size_t i = 0; i < sizeof(scale) / sizeof(scale[0]); i++)
		for (size_t j = 0; j < sizeof(of) / sizeof(of[0]); j++) {
			size_t n = strlen(scale[i].name);
			if (strncmp(at, scale[i].name, n) == 0 && strcmp(at + n, of[j].name) == 0)
				return whole_fit(value * scale[i].factor / of[j].factor, bytes_per_s);
		}
	return false;
}

bool units_time(const char *text, uint64_t *ns)
{
	static const struct unit units[] = {{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}};
	double value;

	return unit_read(text, units, sizeof(units) / sizeof(units[0]), &value) && whole_fit(value, ns);
}

bool units_bytes(const char *text, uint64_t *bytes)
{
	static const struct unit units[] = {{"", 1},     {"B", 1},      {"kB", 1e3},      {"KB", 1e3},         {"MB", 1e6},
	                                    {"GB", 1e9}, {"KiB", 1024}, {"MiB", 1048576}, {"GiB", 1073741824}, {"TiB", 1099511627776}};
	double value;

	return unit_read(text, units, sizeof(units) / sizeof(units[0]), &value) && whole_fit(value, bytes);
}

bool units_ratio(const char *text, double *ratio)
{
	static const struct unit units[] = {{"", 1}, {"%", 0.01}};

	return unit_read(text, units, sizeof(units) / sizeof(units[0]), ratio);
}

bool units_whole(const char *text, uint64_t max, uint64_t *out)
{
	uint64_t value = 0;

	if (!*text || strlen(text) > DIGITS_MAX)
		return false;
	for (; *text; text++) {
		if (!is_digit(*text))
			return false;
		value = value * 10 + (uint64_t)(*text - '0');
	}
	*out = value;
	return value <= max;
}

/* Days since 1970-01-01 in the Gregorian calendar; Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms". */
static int64_t days_from_civil(int y, int m, int d)
{
	y -= m <= 2;
	int era = y / 400, year = y - era * 400, day = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;

	return (int64_t)era * 146097 + year * 365 + year / 4 - year / 100 + day - 719468;
}

/* Exactly `n` digits. */
static bool digits_read(const char **at, int n, int *out)
{
	*out = 0;
	for (int i = 0; i < n; i++, (*at)++) {
		if (!is_digit(**at))
			return false;
		*out = *out * 10 + (**at - '0');
	}
	return true;
}

static bool char_read(const char **at, char c)
{
	if (**at != c)
		return false;
	(*at)++;
	return true;
}

bool units_date(const char *text, int64_t *unix_s)
{
	static const int month_days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	int y, m, d, hour = 0, min = 0, sec = 0;

	if (!digits_read(&text, 4, &y) || !char_read(&text, '-') || !digits_read(&text, 2, &m) || !char_read(&text, '-') ||
	    !digits_read(&text, 2, &d))
		return false;
	bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
	if (y < 1970 || m < 1 || m > 12 || d < 1 || d > month_days[m - 1] + (leap && m == 2))
		return false;
	if (char_read(&text, 'T')) {
		if (!digits_read(&text, 2, &hour) || !char_read(&text, ':') || !digits_read(&text, 2, &min))
			return false;
		if (char_read(&text, ':') && !digits_read(&text, 2, &sec))
			return false;
		if (!char_read(&text, 'Z') || hour > 23 || min > 59 || sec > 59)
			return false;
	}
	*unix_s = days_from_civil(y, m, d) * 86400 + hour * 3600 + min * 60 + sec;
	return *text == 0;
}
