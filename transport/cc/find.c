/* The table of built-in congestion controls. */
#include "cc/cc.h"

static const struct tern_cc *const controls[] = {&cc_lightpath, &cc_cubic, &cc_fixed};

static int same(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

const struct tern_cc *cc_find(const char *name)
{
	for (size_t i = 0; i < sizeof(controls) / sizeof(controls[0]); i++)
		if (same(controls[i]->name, name))
			return controls[i];
	return NULL;
}
