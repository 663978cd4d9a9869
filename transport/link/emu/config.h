/* Reads the file that says what a link is like (emu=FILE): INI, words like netem's. docs/tuning.md describes it. Called by emu's open, programs and tests; knows
 * nothing of links. */
#ifndef EMU_CONFIG_H
#define EMU_CONFIG_H
#include "link/sim/element.h"

struct emu_config {
	struct element_config forward, reverse;
};

/** @param error  "FILE:LINE: key = value: what is wrong; what to write"
 *  @return 0, -TERN_EIO (cannot be read), -TERN_EINVAL */
int emu_config_load(const char *file, struct emu_config *out, char *error, size_t error_bytes);
/** The same from a string; name stands for the file in errors. */
int emu_config_parse(const char *text, const char *name, struct emu_config *out, char *error, size_t error_bytes);

/* Single values, for command lines: "1.5ms", "10gbit", "64kib", "0.1%" or "1e-3". @return 0, -TERN_EINVAL with remedy pointing to a static text */
int emu_parse_time(const char *text, uint64_t *ns, const char **remedy);
int emu_parse_rate(const char *text, uint64_t *bits_per_s, const char **remedy);
int emu_parse_size(const char *text, uint64_t *bytes, const char **remedy);
int emu_parse_probability(const char *text, double *p, const char **remedy);

#endif
