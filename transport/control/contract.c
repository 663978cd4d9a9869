/* Contract files: INI by inih, one table of keys, each checked where it stands, then what keys must say together. Called by api/. A contract that is
 * wrong paces wrongly, so nothing is guessed: unknown keys, second mentions and numbers without units are refused, with the line and what would be
 * right. */
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "control/contract.h"
#include "control/units.h"
#include "tern/error.h"

enum { KEYS_MAX = 32, VALUE_SHOWN = 60, KEY_SHOWN = 40, WORD_MAX = 32 };
static const uint64_t rate_max = 100000000000000ull / 8, time_max_ns = 10000000000ull, buffer_max = 1ull << 40;

struct key;

/* The reader's and handler's state over one file. */
struct parse {
	const char *text, *end;
	const char *name;
	int line;
	int said[KEYS_MAX]; /* line of each key, 0: not there */
	int err;            /* first error; ends the reading */
	struct contract *out;
	struct control_error *error;
};

struct key {
	const char *name;
	const char *allowed;
	bool (*take)(struct contract *c, const char *value);
};

void contract_init(struct contract *c)
{
	memset(c, 0, sizeof(*c));
	c->rtt_ns = c->buffer_bytes = c->policer_cir_bytes_per_s = c->policer_cbs_bytes = c->other_rtt_ns = CONTRACT_NONE;
	c->share = 1;
	c->dscp = c->vlan = -1;
	c->valid_from_s = INT64_MIN;
	c->valid_to_s = INT64_MAX;
}

static bool take_rate(const char *value, uint64_t *out)
{
	return units_rate(value, out) && *out > 0 && *out <= rate_max;
}

static bool take_time(const char *value, uint64_t *out)
{
	return units_time(value, out) && *out > 0 && *out <= time_max_ns;
}

static bool take_both(struct contract *c, const char *value)
{
	if (!take_rate(value, &c->up_bytes_per_s))
		return false;
	c->down_bytes_per_s = c->up_bytes_per_s;
	return true;
}

static bool take_up(struct contract *c, const char *value)
{
	return take_rate(value, &c->up_bytes_per_s);
}

static bool take_down(struct contract *c, const char *value)
{
	return take_rate(value, &c->down_bytes_per_s);
}

static bool take_rtt(struct contract *c, const char *value)
{
	return take_time(value, &c->rtt_ns);
}

/* The place of a word in a NULL-ended list, -1: not there. */
static int word_find(const char *const *words, const char *value)
{
	for (int i = 0; words[i]; i++)
		if (strcmp(words[i], value) == 0)
			return i;
	return -1;
}

static bool take_layer(struct contract *c, const char *value)
{
	static const char *const words[] = {
	    [CONTRACT_IP] = "ip", [CONTRACT_ETHERNET] = "ethernet", [CONTRACT_LINE] = "line", [CONTRACT_PAYLOAD] = "payload", NULL};
	int i = word_find(words, value);

	c->layer = (uint32_t)i;
	return i >= 0;
}

static bool take_share(struct contract *c, const char *value)
{
	return units_ratio(value, &c->share) && c->share > 0 && c->share <= 1;
}

static bool take_dedicated(struct contract *c, const char *value)
{
	static const char *const words[] = {"no", "yes", "false", "true", "0", "1", NULL};
	int i = word_find(words, value);

	c->dedicated = i & 1;
	return i >= 0;
}

static bool take_buffer(struct contract *c, const char *value)
{
	return units_bytes(value, &c->buffer_bytes) && c->buffer_bytes > 0 && c->buffer_bytes <= buffer_max;
}

static bool take_mtu(struct contract *c, const char *value)
{
	uint64_t n;

	if (!units_whole(value, 65535, &n) || n < 576)
		return false;
	c->mtu_bytes = (uint32_t)n;
	return true;
}

/* By number, or by the names of RFC 2474, 2597, 3246. */
static bool take_dscp(struct contract *c, const char *value)
{
	uint64_t n;
	size_t bytes = strlen(value);

	if (strcmp(value, "ef") == 0)
		c->dscp = 46;
	else if (bytes == 3 && memcmp(value, "cs", 2) == 0 && value[2] >= '0' && value[2] <= '7')
		c->dscp = (value[2] - '0') * 8;
	else if (bytes == 4 && memcmp(value, "af", 2) == 0 && value[2] >= '1' && value[2] <= '4' && value[3] >= '1' && value[3] <= '3')
		c->dscp = (value[2] - '0') * 8 + (value[3] - '0') * 2;
	else if (units_whole(value, 63, &n))
		c->dscp = (int32_t)n;
	else
		return false;
	return true;
}

static bool take_vlan(struct contract *c, const char *value)
{
	uint64_t n;

	if (!units_whole(value, 4094, &n) || n < 1)
		return false;
	c->vlan = (int32_t)n;
	return true;
}

static bool take_cir(struct contract *c, const char *value)
{
	return take_rate(value, &c->policer_cir_bytes_per_s);
}

static bool take_cbs(struct contract *c, const char *value)
{
	return units_bytes(value, &c->policer_cbs_bytes) && c->policer_cbs_bytes > 0 && c->policer_cbs_bytes <= buffer_max;
}

static bool take_loss(struct contract *c, const char *value)
{
	return units_ratio(value, &c->loss_ceiling) && c->loss_ceiling > 0 && c->loss_ceiling <= 0.5;
}

static bool take_srlg(struct contract *c, const char *value)
{
	char word[WORD_MAX];
	uint64_t n;

	for (const char *at = value;; at++) {
		at += strspn(at, " \t");
		size_t bytes = strcspn(at, ", \t");
		if (bytes == 0 || bytes >= sizeof(word) || c->srlgs == CONTRACT_SRLG_MAX)
			return false;
		memcpy(word, at, bytes);
		word[bytes] = 0;
		if (!units_whole(word, UINT32_MAX, &n))
			return false;
		for (uint32_t i = 0; i < c->srlgs; i++)
			if (c->srlg[i] == n)
				return false;
		c->srlg[c->srlgs++] = (uint32_t)n;
		at += bytes;
		at += strspn(at, " \t");
		if (*at == 0)
			return true;
		if (*at != ',')
			return false;
	}
}

static bool take_protection(struct contract *c, const char *value)
{
	static const char *const words[] = {[CONTRACT_UNPROTECTED] = "none", [CONTRACT_1PLUS1] = "1+1",        [CONTRACT_1TO1] = "1:1",
	                                    [CONTRACT_1TON] = "1:n",         [CONTRACT_RESTORED] = "restored", NULL};
	int i = word_find(words, value);

	c->protection = (uint32_t)i;
	return i >= 0;
}

static bool take_switch(struct contract *c, const char *value)
{
	return take_time(value, &c->switch_ns);
}

static bool take_other_rtt(struct contract *c, const char *value)
{
	return take_time(value, &c->other_rtt_ns);
}

static bool take_name(const char *value, char *out, size_t room, bool blanks)
{
	size_t bytes = strlen(value);

	if (bytes == 0 || bytes >= room)
		return false;
	for (size_t i = 0; i < bytes; i++)
		if (value[i] < ' ' || value[i] > '~' || (!blanks && (value[i] == ' ' || value[i] == '/')))
			return false;
	memcpy(out, value, bytes + 1);
	return true;
}

static bool take_circuit(struct contract *c, const char *value)
{
	return take_name(value, c->circuit, sizeof(c->circuit), true);
}

static bool take_interface(struct contract *c, const char *value)
{
	return take_name(value, c->interface, sizeof(c->interface), false);
}

static bool take_from(struct contract *c, const char *value)
{
	return units_date(value, &c->valid_from_s);
}

static bool take_to(struct contract *c, const char *value)
{
	return units_date(value, &c->valid_to_s);
}

#define RATE_WORDS "a rate above 0, to 100 Tbit, with its unit, such as 10Gbit, 2.5Gbit/s or 1.25GB/s"
#define TIME_WORDS "a time above 0, to 10 s, with its unit, such as 30ms or 250us"
#define SIZE_WORDS "a size above 0, to 1 TiB, such as 65536, 64KiB or 2MB"
#define DATE_WORDS "a date, such as 2026-11-20 or 2026-11-20T12:00Z"
enum { KEY_RATE, KEY_RATE_UP, KEY_RATE_DOWN, KEY_CIR, KEY_CBS, KEY_PROTECTION, KEY_SWITCH, KEY_OTHER_RTT, KEY_FROM, KEY_TO };
static const struct key keys[] = {
    [KEY_RATE] = {"rate", RATE_WORDS, take_both},
    [KEY_RATE_UP] = {"rate_up", RATE_WORDS, take_up},
    [KEY_RATE_DOWN] = {"rate_down", RATE_WORDS, take_down},
    [KEY_CIR] = {"policer_cir", RATE_WORDS, take_cir},
    [KEY_CBS] = {"policer_cbs", SIZE_WORDS, take_cbs},
    [KEY_PROTECTION] = {"protection", "none, 1+1, 1:1, 1:n or restored", take_protection},
    [KEY_SWITCH] = {"protection_switch", TIME_WORDS, take_switch},
    [KEY_OTHER_RTT] = {"protection_rtt", TIME_WORDS, take_other_rtt},
    [KEY_FROM] = {"valid_from", DATE_WORDS, take_from},
    [KEY_TO] = {"valid_to", DATE_WORDS, take_to},
    {"rtt", TIME_WORDS, take_rtt},
    {"layer", "ip, ethernet, line or payload", take_layer},
    {"share", "a ratio above 0, to 1, such as 0.5 or 50%", take_share},
    {"dedicated", "yes or no", take_dedicated},
    {"buffer", SIZE_WORDS, take_buffer},
    {"mtu", "576 to 65535", take_mtu},
    {"dscp", "0 to 63, ef, cs0 to cs7, af11 to af43", take_dscp},
    {"vlan", "1 to 4094", take_vlan},
    {"loss_ceiling", "a ratio above 0, to 0.5, such as 1e-4 or 0.01%", take_loss},
    {"srlg", "up to 32 different whole numbers with commas between", take_srlg},
    {"circuit", "up to 63 printable ASCII characters", take_circuit},
    {"interface", "a network interface's name, up to 15 characters", take_interface},
};
enum { KEYS = sizeof(keys) / sizeof(keys[0]) };
_Static_assert((int)KEYS <= (int)KEYS_MAX, "lines of keys");

/* Edit distance (Levenshtein) of two short words. */
static size_t words_apart(const char *a, const char *b)
{
	size_t row[WORD_MAX + 1], m = strlen(a), n = strlen(b);

	if (m > WORD_MAX || n > WORD_MAX)
		return WORD_MAX;
	for (size_t j = 0; j <= n; j++)
		row[j] = j;
	for (size_t i = 1; i <= m; i++) {
		size_t corner = row[0];
		row[0] = i;
		for (size_t j = 1; j <= n; j++) {
			size_t swap = corner + (a[i - 1] != b[j - 1]), up = row[j] + 1, left = row[j - 1] + 1;
			corner = row[j];
			row[j] = swap < up ? swap : up;
			row[j] = left < row[j] ? left : row[j];
		}
	}
	return row[n];
}

static int key_unknown(struct parse *p, const char *name)
{
	const char *nearest = NULL;
	size_t best = 4; /* farther is no slip of the finger */

	for (int i = 0; i < KEYS; i++) {
		size_t apart = words_apart(name, keys[i].name);
		if (apart < best && apart < strlen(keys[i].name)) {
			best = apart;
			nearest = keys[i].name;
		}
	}
	if (nearest)
		return control_say(p->error, -TERN_EINVAL, "%s:%d: %.*s: unknown key; did you mean \"%s\"?", p->name, p->line, KEY_SHOWN, name,
		                   nearest);
	return control_say(p->error, -TERN_EINVAL, "%s:%d: %.*s: unknown key; docs/contract.md lists all", p->name, p->line, KEY_SHOWN, name);
}

static int entry_take(struct parse *p, const char *name, const char *value)
{
	int i = 0;

	while (i < KEYS && strcmp(keys[i].name, name) != 0)
		i++;
	if (i == KEYS)
		return key_unknown(p, name);
	if (p->said[i])
		return control_say(p->error, -TERN_EINVAL, "%s:%d: %s: said before in line %d; say it once", p->name, p->line, name, p->said[i]);
	p->said[i] = p->line;
	if (keys[i].take(p->out, value))
		return 0;
	return control_say(p->error, -TERN_EINVAL, "%s:%d: %s = %.*s: not allowed; allowed: %s", p->name, p->line, name, VALUE_SHOWN, value,
	                   keys[i].allowed);
}

static int entry_handler(void *user, const char *section, const char *name, const char *value)
{
	struct parse *p = user;

	(void)section; /* line_read has looked at it */
	if (!p->err)
		p->err = entry_take(p, name, value);
	return 1;
}

/* What inih would read in its own way: lines that are too long (it would cut them in two) and sections. */
static int line_check(const struct parse *p, const char *line, size_t bytes, size_t room)
{
	static const char section[] = "[contract]";

	if (bytes > room)
		return control_say(p->error, -TERN_EINVAL, "%s:%d: the line has %zu characters; %zu are allowed", p->name, p->line, bytes, room);
	for (size_t i = 0; i < bytes; i++)
		if ((unsigned char)line[i] < ' ' && line[i] != '\t' && line[i] != '\r')
			return control_say(p->error, -TERN_EINVAL, "%s:%d: byte %u is no text", p->name, p->line, (unsigned char)line[i]);
	if (bytes && line[0] == '[' && (bytes < sizeof(section) - 1 || memcmp(line, section, sizeof(section) - 1) != 0))
		return control_say(p->error, -TERN_EINVAL, "%s:%d: %.*s: unknown section; allowed: %s, or none", p->name, p->line,
		                   (int)(bytes < KEY_SHOWN ? bytes : KEY_SHOWN), line, section);
	return 0;
}

/* inih's fgets. Counts lines, and takes leading blanks away, by which inih would take a line for a continuation of the last. */
static char *line_read(char *out, int room, void *stream)
{
	struct parse *p = stream;

	if (p->err || p->text == p->end)
		return NULL;
	const char *newline = memchr(p->text, '\n', (size_t)(p->end - p->text));
	const char *stop = newline ? newline : p->end, *line = p->text;
	p->text = newline ? newline + 1 : p->end;
	p->line++;
	while (line < stop && (*line == ' ' || *line == '\t'))
		line++;
	p->err = line_check(p, line, (size_t)(stop - line), (size_t)room - 2);
	if (p->err)
		return NULL;
	memcpy(out, line, (size_t)(stop - line));
	memcpy(out + (stop - line), "\n", 2);
	return out;
}

/* What one key alone cannot know. @return the line to blame, 0: all is well */
static int contract_agree(const struct parse *p, const char **words)
{
	const struct contract *c = p->out;
	const int *said = p->said;

	*words = "rate stands beside rate_up or rate_down; say one for both directions or one for each";
	if (said[KEY_RATE] && (said[KEY_RATE_UP] || said[KEY_RATE_DOWN]))
		return said[KEY_RATE];
	*words = "rate_up and rate_down come together";
	if (!said[KEY_RATE_UP] != !said[KEY_RATE_DOWN])
		return said[KEY_RATE_UP] + said[KEY_RATE_DOWN];
	*words = "policer_cir and policer_cbs come together";
	if (!said[KEY_CIR] != !said[KEY_CBS])
		return said[KEY_CIR] + said[KEY_CBS];
	*words = "there is nothing to switch to: say protection = 1+1, 1:1, 1:n or restored too";
	if (c->protection == CONTRACT_UNPROTECTED && (said[KEY_SWITCH] || said[KEY_OTHER_RTT]))
		return said[KEY_SWITCH] ? said[KEY_SWITCH] : said[KEY_OTHER_RTT];
	*words = "valid_to must be later than valid_from";
	if (c->valid_to_s <= c->valid_from_s)
		return said[KEY_TO];
	return 0;
}

int contract_parse(const char *text, size_t bytes, const char *name, struct contract *out, struct control_error *error)
{
	struct parse p = {.text = text, .end = text + bytes, .name = name, .out = out, .error = error};
	const char *words;

	contract_init(out);
	int line = ini_parse_stream(line_read, &p, entry_handler, &p);
	if (line > 0 && (!p.err || line < p.line)) /* inih goes on after such a line */
		return control_say(error, -TERN_EINVAL, "%s:%d: neither \"key = value\" nor a comment", name, line);
	if (p.err)
		return p.err;
	if (line < 0)
		return control_say(error, -TERN_ENOMEM, "no memory to read %s", name);
	line = contract_agree(&p, &words);
	if (line)
		return control_say(error, -TERN_EINVAL, "%s:%d: %s", name, line, words);
	if (!out->up_bytes_per_s)
		return control_say(error, -TERN_EINVAL, "%s:%d: ends without a rate; say rate = 10Gbit, or rate_up and rate_down", name,
		                   p.line ? p.line : 1);
	if (out->protection != CONTRACT_UNPROTECTED && !p.said[KEY_SWITCH])
		out->switch_ns = 50000000; /* G.841: a protection switch is done in 50 ms */
	return 0;
}

int contract_read(const char *path, struct contract *out, struct control_error *error)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), err = 0;
	size_t have = 0;
	ssize_t n = 1;

	contract_init(out);
	if (fd < 0)
		return control_say(error, -TERN_EIO, "cannot read the contract %s: %s", path, strerror(errno));
	char *text = malloc(CONTRACT_FILE_MAX + 1);
	if (!text)
		err = control_say(error, -TERN_ENOMEM, "no memory to read the contract %s", path);
	while (!err && have <= CONTRACT_FILE_MAX && (n = read(fd, text + have, CONTRACT_FILE_MAX + 1 - have)) != 0) {
		if (n > 0)
			have += (size_t)n;
		else if (errno != EINTR)
			err = control_say(error, -TERN_EIO, "cannot read the contract %s: %s", path, strerror(errno));
	}
	close(fd);
	if (!err && have > CONTRACT_FILE_MAX)
		err = control_say(error, -TERN_EIO, "the contract %s is larger than %d bytes", path, CONTRACT_FILE_MAX);
	if (!err)
		err = contract_parse(text, have, path, out, error);
	free(text);
	return err;
}

int contract_valid(const struct contract *c, int64_t unix_s, struct control_error *error)
{
	bool early = unix_s < c->valid_from_s;
	time_t when = (time_t)(early ? c->valid_from_s : c->valid_to_s);
	char date[32];
	struct tm tm;

	if (!early && unix_s < c->valid_to_s)
		return 0;
	gmtime_r(&when, &tm);
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%MZ", &tm);
	return control_say(error, -TERN_EINVAL, "contract %s is %s valid: %s is %s", c->circuit, early ? "not yet" : "no longer",
	                   early ? "valid_from" : "valid_to", date);
}

int32_t contract_layer_bytes(const struct contract *c, uint32_t below_bytes)
{
	enum { ETHERNET = 18, PREAMBLE_AND_GAP = 20, TAG = 4 };
	int32_t tag = c->vlan >= 0 ? TAG : 0;

	switch (c->layer) {
	case CONTRACT_ETHERNET:
		return ETHERNET + tag;
	case CONTRACT_LINE:
		return ETHERNET + PREAMBLE_AND_GAP + tag;
	case CONTRACT_PAYLOAD:
		return -(int32_t)below_bytes;
	default:
		return 0;
	}
}
