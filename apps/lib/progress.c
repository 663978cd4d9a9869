/* The progress line. Called by programs of apps/ from their event loop. The terminal's width is asked for at each drawing (an ioctl, ten times a
 * second): so a resize needs no SIGWINCH handler and can race with nothing. */
#include "progress.h"
#include "units.h"
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
	DRAW_NS = 100000000,
	SAMPLE_NS = 250000000,
	BAR_MIN = 10,
	BAR_MAX = 40,
	WIDTH_DEFAULT = 80,
	WIDTH_BOTH_RATES = 110,
	NAME_MAX_WIDTH = 24,
	NAME_MIN_WIDTH = 8
};

void progress_open(struct progress *p, FILE *out, uint64_t total_bytes, uint64_t now_ns)
{
	memset(p, 0, sizeof(*p));
	p->out = out;
	p->terminal = isatty(fileno(out));
	p->total_bytes = total_bytes;
	p->start_ns = p->last_ns = now_ns;
	p->plain_ns = 2000000000u;
	p->sample[0].ns = now_ns;
	p->samples = 1;
}

static void sample_add(struct progress *p, uint64_t bytes, uint64_t now_ns)
{
	unsigned newest = (p->samples - 1) % PROGRESS_SAMPLES;
	if (now_ns - p->sample[newest].ns < SAMPLE_NS)
		return;
	newest = p->samples % PROGRESS_SAMPLES;
	p->sample[newest].ns = now_ns;
	p->sample[newest].bytes = bytes;
	p->samples++;
}

uint64_t progress_rate(const struct progress *p)
{
	if (p->samples < 2)
		return 0;
	unsigned newest = (p->samples - 1) % PROGRESS_SAMPLES;
	unsigned oldest = p->samples <= PROGRESS_SAMPLES ? 0 : p->samples % PROGRESS_SAMPLES;
	uint64_t ns = p->sample[newest].ns - p->sample[oldest].ns, bytes = p->sample[newest].bytes - p->sample[oldest].bytes;
	return ns ? (uint64_t)((double)bytes * 1e9 / (double)ns) : 0;
}

/* Columns a UTF-8 text takes, one a code point: names with wide characters may look ragged, never wrong. */
static unsigned columns(const char *text)
{
	unsigned n = 0;
	for (; *text; text++)
		n += (*text & 0xc0) != 0x80;
	return n;
}

/* Control characters in a file's name must not reach the terminal. */
static void name_fit(char *out, size_t room, const char *name, unsigned width)
{
	unsigned skip = columns(name) > width ? columns(name) - width + 1 : 0;
	size_t n = 0;
	if (skip && room > 1)
		out[n++] = '<';
	for (; *name && n + 1 < room; name++) {
		if ((*name & 0xc0) != 0x80 && skip) {
			skip--;
			while ((name[1] & 0xc0) == 0x80)
				name++;
			continue;
		}
		out[n++] = (unsigned char)*name < 0x20 || *name == 0x7f ? '?' : *name;
	}
	out[n] = 0;
}

static void bar_draw(char *out, unsigned width, double part)
{
	unsigned full = (unsigned)(part * width + 0.5);
	out[0] = '[';
	for (unsigned i = 0; i < width; i++)
		out[1 + i] = i < full ? '#' : '.';
	out[1 + width] = ']';
	out[2 + width] = 0;
}

char *progress_line(const struct progress *p, const char *name, uint64_t bytes, unsigned width, char out[PROGRESS_LINE_MAX])
{
	char done[UNITS_TEXT_MAX], rate[UNITS_TEXT_MAX], eta[UNITS_TEXT_MAX] = "", share[UNITS_TEXT_MAX] = "", percent[16] = "", tail[256], fit[128];
	char bar[BAR_MAX + 3] = "";
	uint64_t now = progress_rate(p);
	double part = p->total_bytes ? (double)bytes / (double)p->total_bytes : 0;
	part = part > 1 ? 1 : part;
	if (width > 200)
		width = 200;
	units_bytes(done, sizeof(done), bytes);
	units_rate(rate, sizeof(rate), now);
	if (width < WIDTH_BOTH_RATES)
		rate[strcspn(rate, "(") - 1] = 0; /* bits alone */
	if (p->total_bytes)
		snprintf(percent, sizeof(percent), "%3u%% ", (unsigned)(part * 100));
	if (p->limit_bytes_per_s)
		snprintf(share, sizeof(share), "  %u%% of contract", (unsigned)((double)now * 100 / (double)p->limit_bytes_per_s + 0.5));
	if (p->total_bytes && now) {
		char left[UNITS_TEXT_MAX];
		uint64_t rest = p->total_bytes > bytes ? p->total_bytes - bytes : 0;
		double seconds = (double)rest / (double)now;
		snprintf(
		        eta, sizeof(eta), "  %.30s left", units_time(left, sizeof(left), seconds > 1e9 ? (uint64_t)1e18 : (uint64_t)(seconds * 1e9)));
	}
	snprintf(tail, sizeof(tail), "%s%.20s  %.40s%.24s%.40s", percent, done, rate, share, eta);
	unsigned used = columns(tail), room = width > used + 2 ? width - used - 2 : 0;
	unsigned bar_room = BAR_MIN + 3;
	unsigned name_width = room > NAME_MAX_WIDTH + bar_room ? NAME_MAX_WIDTH : room > NAME_MIN_WIDTH + bar_room ? room - bar_room : room;
	unsigned bar_width = p->total_bytes && room >= name_width + bar_room ? room - name_width - 3 : 0;
	if (bar_width > BAR_MAX)
		bar_width = BAR_MAX;
	name_fit(fit, sizeof(fit), name, name_width);
	if (bar_width)
		bar_draw(bar, bar_width, part);
	if (!name_width)
		snprintf(out, PROGRESS_LINE_MAX, "%.*s", (int)width, tail);
	else
		snprintf(out, PROGRESS_LINE_MAX, "%s%s%s  %s", fit, bar_width ? " " : "", bar, tail);
	return out;
}

static unsigned terminal_width(FILE *out)
{
	struct winsize size;
	if (ioctl(fileno(out), TIOCGWINSZ, &size) || size.ws_col < 20)
		return WIDTH_DEFAULT;
	return size.ws_col - 1; /* the last column would wrap on some terminals */
}

void progress_step(struct progress *p, const char *name, uint64_t bytes, uint64_t now_ns)
{
	char line[PROGRESS_LINE_MAX];
	sample_add(p, bytes, now_ns);
	if (now_ns - p->last_ns < (p->terminal ? DRAW_NS : p->plain_ns))
		return;
	p->last_ns = now_ns;
	if (p->terminal) {
		fprintf(p->out, "\r%s\033[K", progress_line(p, name, bytes, terminal_width(p->out), line));
		p->drawn = true;
	} else {
		fprintf(p->out, "%s\n", progress_line(p, name, bytes, 120, line));
	}
	fflush(p->out);
}

void progress_clear(struct progress *p)
{
	if (!p->drawn)
		return;
	fputs("\r\033[K", p->out);
	fflush(p->out);
	p->drawn = false;
}
