/* The parser behind config.h. Values are read by integer arithmetic ("1.5ms" is 1500000 ns exactly); everything that cannot be meant is refused, with the line
 * and what to write instead. */
#include "link/emu/config.h"
#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tern/error.h"

enum { WORDS_MAX = 4, TEXT_MAX = 256 };

struct unit {
	const char *name;
	uint64_t scale;
};

/* Digits, perhaps a point and up to 9 more, a unit from the list. Zero needs no unit. */
static int parse_scaled(const char *text, const struct unit *units, uint64_t *out)
{
	unsigned __int128 value = 0;
	uint64_t divisor = 1;
	const char *at = text;

	if (!isdigit((unsigned char)*at))
		return -TERN_EINVAL; /* signs, too */
	for (; isdigit((unsigned char)*at); at++) {
		value = value * 10 + (unsigned)(*at - '0');
		if (value > UINT64_MAX)
			return -TERN_EINVAL;
	}
	if (*at == '.')
		for (at++; isdigit((unsigned char)*at); at++) {
			if (divisor == 1000000000)
				return -TERN_EINVAL;
			value = value * 10 + (unsigned)(*at - '0');
			divisor *= 10;
		}
	for (; units->name; units++)
		if (!strcasecmp(units->name, at) && (at[0] || !value)) {
			value *= units->scale;
			if (value / divisor > UINT64_MAX || value % divisor)
				return -TERN_EINVAL;
			*out = (uint64_t)(value / divisor);
			return 0;
		}
	return -TERN_EINVAL;
}

int emu_parse_time(const char *text, uint64_t *ns, const char **remedy)
{
	static const struct unit units[] = {{"ns", 1}, {"us", 1000}, {"ms", 1000000}, {"s", 1000000000}, {"", 1}, {NULL, 0}};

	*remedy = "write a time as a number and ns, us, ms or s, for example 15ms";
	return parse_scaled(text, units, ns);
}

int emu_parse_rate(const char *text, uint64_t *bits_per_s, const char **remedy)
{
	static const struct unit units[] = {{"bit", 1}, {"kbit", 1000}, {"mbit", 1000000}, {"gbit", 1000000000}, {NULL, 0}};

	*remedy = "write a rate as a number and bit, kbit, mbit or gbit (a second), for example 10gbit";
	return parse_scaled(text, units, bits_per_s);
}

int emu_parse_size(const char *text, uint64_t *bytes, const char **remedy)
{
	static const struct unit units[] = {{"b", 1}, {"kib", 1 << 10}, {"mib", 1 << 20}, {"", 1}, {NULL, 0}};

	*remedy = "write a size as a number and b, kib or mib, for example 512kib";
	return parse_scaled(text, units, bytes);
}

int emu_parse_probability(const char *text, double *p, const char **remedy)
{
	char *end;

	*remedy = "write a probability as 0.1% or as 0.001; a bare number is below 1";
	if (!isdigit((unsigned char)*text) && *text != '.')
		return -TERN_EINVAL;
	for (const char *at = text; *at; at++)
		if (!strchr("0123456789.eE+-%", *at)) /* strtod would take 0x1p3 */
			return -TERN_EINVAL;
	double value = strtod(text, &end);
	if (!strcmp(end, "%"))
		value /= 100;
	else if (*end || value >= 1)
		return -TERN_EINVAL;
	if (!(value >= 0 && value <= 1))
		return -TERN_EINVAL;
	*p = value;
	return 0;
}

/* One key of one direction. words are the value's, up to WORDS_MAX. @return 0, or -TERN_EINVAL with remedy */
struct key {
	const char *name;
	int words_min, words_max;
	int (*set)(struct element_config *c, char *const *word, int words, const char **remedy);
	const char *form;
};

static int set_delay(struct element_config *c, char *const *word, int words, const char **remedy)
{
	(void)words;
	return emu_parse_time(word[0], &c->delay_ns, remedy);
}

static int set_rate(struct element_config *c, char *const *word, int words, const char **remedy)
{
	uint64_t overhead = c->overhead_bytes;

	if (emu_parse_rate(word[0], &c->rate_bits_per_s, remedy) || (words > 1 && emu_parse_size(word[1], &overhead, remedy)))
		return -TERN_EINVAL;
	*remedy = "a rate is 1kbit to 10000gbit, the overhead of a datagram at most 1024b; without rate there is no limit";
	if (c->rate_bits_per_s < ELEMENT_RATE_MIN || overhead > ELEMENT_OVERHEAD_MAX)
		return -TERN_EINVAL;
	c->overhead_bytes = (uint32_t)overhead;
	return 0;
}

static int set_limit(struct element_config *c, char *const *word, int words, const char **remedy)
{
	(void)words;
	return emu_parse_size(word[0], &c->queue_bytes, remedy);
}

static int set_ecn(struct element_config *c, char *const *word, int words, const char **remedy)
{
	(void)words;
	return emu_parse_size(word[0], &c->ce_bytes, remedy);
}

static int set_loss(struct element_config *c, char *const *word, int words, const char **remedy)
{
	(void)words;
	return emu_parse_probability(word[0], &c->loss, remedy);
}

static int set_gemodel(struct element_config *c, char *const *word, int words, const char **remedy)
{
	double *p[] = {&c->p_good_to_bad, &c->p_bad_to_good, &c->loss_bad, &c->loss_good};

	c->loss_bad = 1;
	c->loss_good = 0;
	for (int i = 0; i < words; i++)
		if (emu_parse_probability(word[i], p[i], remedy))
			return -TERN_EINVAL;
	return 0;
}

static int set_reorder(struct element_config *c, char *const *word, int words, const char **remedy)
{
	(void)words;
	return emu_parse_probability(word[0], &c->reorder, remedy) || emu_parse_time(word[1], &c->reorder_extra_ns, remedy) ? -TERN_EINVAL : 0;
}

static int set_duplicate(struct element_config *c, char *const *word, int words, const char **remedy)
{
	(void)words;
	return emu_parse_probability(word[0], &c->duplicate, remedy);
}

static int set_outage(struct element_config *c, char *const *word, int words, const char **remedy)
{
	struct element_outage o;

	(void)words;
	if (emu_parse_time(word[0], &o.start_ns, remedy) || emu_parse_time(word[1], &o.length_ns, remedy))
		return -TERN_EINVAL;
	*remedy = "at most 16 outages a direction; leave some out";
	if (c->outages == ELEMENT_STEPS_MAX)
		return -TERN_EINVAL;
	c->outage[c->outages++] = o;
	return 0;
}

static int set_step(struct element_config *c, char *const *word, int words, const char **remedy)
{
	struct element_step s;

	(void)words;
	if (emu_parse_time(word[0], &s.at_ns, remedy) || emu_parse_time(word[1], &s.value, remedy))
		return -TERN_EINVAL;
	*remedy = "at most 16 steps a direction; leave some out";
	if (c->steps == ELEMENT_STEPS_MAX)
		return -TERN_EINVAL;
	c->step[c->steps++] = s;
	return 0;
}

static int set_rate_step(struct element_config *c, char *const *word, int words, const char **remedy)
{
	struct element_step s;

	(void)words;
	if (emu_parse_time(word[0], &s.at_ns, remedy) || emu_parse_rate(word[1], &s.value, remedy))
		return -TERN_EINVAL;
	*remedy = "at most 16 rate steps a direction; leave some out";
	if (c->rate_steps == ELEMENT_STEPS_MAX)
		return -TERN_EINVAL;
	c->rate_step[c->rate_steps++] = s;
	return 0;
}

static int set_seed(struct element_config *c, char *const *word, int words, const char **remedy)
{
	char *end;

	(void)words;
	*remedy = "write a seed as a whole number";
	errno = 0;
	c->seed = isdigit((unsigned char)*word[0]) ? strtoull(word[0], &end, 0) : 0;
	return !isdigit((unsigned char)*word[0]) || *end || errno ? -TERN_EINVAL : 0;
}

static const struct key keys[] = {
	{"delay", 1, 1, set_delay, "delay = 15ms"},
	{"rate", 1, 2, set_rate, "rate = 1gbit, or with the overhead of a datagram rate = 1gbit 66b"},
	{"limit", 1, 1, set_limit, "limit = 4mib"},
	{"ecn", 1, 1, set_ecn, "ecn = 128kib"},
	{"loss", 1, 1, set_loss, "loss = 0.01%"},
	{"gemodel", 2, 4, set_gemodel, "gemodel = 0.01% 2%, into and out of a burst, then perhaps the loss within and outside"},
	{"reorder", 2, 2, set_reorder, "reorder = 1% 2ms"},
	{"duplicate", 1, 1, set_duplicate, "duplicate = 0.1%"},
	{"outage", 2, 2, set_outage, "outage = 10s 50ms, start and length"},
	{"step", 2, 2, set_step, "step = 10s 25ms, time and new delay"},
	{"rate_step", 2, 2, set_rate_step, "rate_step = 10s 500mbit, time and new rate"},
	{"seed", 1, 1, set_seed, "seed = 7"},
};

struct reader {
	const char *name;
	FILE *file;       /* or */
	const char *text; /* what is left of a string */
	struct emu_config *config;
	char *error;
	size_t error_bytes;
	int line;
	bool partial; /* the last read ended within a line */
	bool failed;
};

__attribute__((format(printf, 2, 3))) static void say(struct reader *r, const char *format, ...)
{
	va_list args;

	if (r->failed)
		return; /* the first error is the one to mend */
	r->failed = true;
	if (!r->error || !r->error_bytes)
		return;
	va_start(args, format);
	int n = snprintf(r->error, r->error_bytes, "%s:%d: ", r->name, r->line);
	if (n > 0 && (size_t)n < r->error_bytes)
		vsnprintf(r->error + n, r->error_bytes - (size_t)n, format, args);
	va_end(args);
}

/* inih tells handlers no line numbers in the build that distributions ship, so they are counted where lines are read. */
static char *read_line(char *out, int size, void *arg)
{
	struct reader *r = arg;
	int n = 0;

	if (r->file) {
		if (!fgets(out, size, r->file))
			return NULL;
		n = (int)strlen(out);
	} else {
		while (n < size - 1 && *r->text && (!n || out[n - 1] != '\n'))
			out[n++] = *r->text++;
		out[n] = 0;
		if (!n)
			return NULL;
	}
	if (!r->partial)
		r->line++;
	r->partial = n && out[n - 1] != '\n';
	if (r->partial && n == size - 1)
		say(r, "the line is longer than %d characters; split it, outage and step may be given several times", size - 2);
	return out;
}

static const struct key *find_key(const char *name)
{
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		if (!strcmp(keys[i].name, name))
			return &keys[i];
	return NULL;
}

static void set_one(struct reader *r, const struct key *key, struct element_config *c, const char *value)
{
	char copy[TEXT_MAX], why[TEXT_MAX], *word[WORDS_MAX + 1], *state = NULL;
	const char *remedy = "";
	int words = 0;

	snprintf(copy, sizeof(copy), "%s", value);
	for (char *w = strtok_r(copy, " \t", &state); w && words <= WORDS_MAX; w = strtok_r(NULL, " \t", &state))
		word[words++] = w;
	if (words < key->words_min || words > key->words_max) {
		say(r, "%s = %s: %s; write for example %s", key->name, value, words ? "too many or too few words" : "no value", key->form);
		return;
	}
	if (key->set(c, word, words, &remedy)) {
		say(r, "%s = %s: not understood or out of range; %s", key->name, value, remedy);
		return;
	}
	if (element_config_check(c, why, sizeof(why)))
		say(r, "%s = %s: out of range; %s", key->name, value, why);
}

static int on_key(void *arg, const char *section, const char *name, const char *value)
{
	struct reader *r = arg;
	bool both = !strcmp(section, "link");
	const struct key *key = find_key(name);

	if (!both && strcmp(section, "forward") && strcmp(section, "reverse")) {
		say(r, "%s = %s: in section [%s]; put it into [link] (both directions), [forward] or [reverse]", name, value, section);
		return 0;
	}
	if (!key) {
		say(r, "%s = %s: no such key; there are delay rate limit ecn loss gemodel reorder duplicate outage step rate_step seed", name, value);
		return 0;
	}
	if (both || !strcmp(section, "forward"))
		set_one(r, key, &r->config->forward, value);
	if (both || !strcmp(section, "reverse"))
		set_one(r, key, &r->config->reverse, value);
	return 1;
}

static int parse(struct reader *r)
{
	memset(r->config, 0, sizeof(*r->config));
	int line = ini_parse_stream(read_line, r, on_key, r);

	if (!r->failed && line > 0) {
		r->line = line;
		say(r, "neither [section] nor key = value; write for example delay = 15ms");
	}
	if (!r->failed && line < 0)
		say(r, "no memory to read it");
	return r->failed ? -TERN_EINVAL : 0;
}

int emu_config_parse(const char *text, const char *name, struct emu_config *out, char *error, size_t error_bytes)
{
	struct reader r = {.name = name, .text = text, .config = out, .error = error, .error_bytes = error_bytes};

	return parse(&r);
}

int emu_config_load(const char *file, struct emu_config *out, char *error, size_t error_bytes)
{
	struct reader r = {.name = file, .file = fopen(file, "re"), .config = out, .error = error, .error_bytes = error_bytes};

	if (!r.file) {
		if (error && error_bytes)
			snprintf(error, error_bytes, "%s: %s; name a readable file in emu=FILE", file, strerror(errno));
		return -TERN_EIO;
	}
	int rc = parse(&r);
	if (ferror(r.file)) {
		if (error && error_bytes)
			snprintf(error, error_bytes, "%s: cannot be read; name a readable file in emu=FILE", file);
		rc = -TERN_EIO;
	}
	fclose(r.file);
	return rc;
}
