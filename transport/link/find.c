/* From a scheme's name to its link: built in, or a module loaded at run time. Called by control and api when a link is opened, from any thread.
 * A module is a shared object libtern-<name>.so that exports `const struct link_ops link_<name>_ops`. */
#include <ctype.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "link/link.h"
#include "tern/error.h"
#include "tern_config.h"

enum { FIND_LINKS_MAX = 16, FIND_NAME_MAX = 15 };

extern const struct link_ops link_udp_ops, link_sim_ops, link_emu_ops;

static const struct link_ops *const built_in[] = {
	&link_udp_ops,
	&link_sim_ops,
	&link_emu_ops,
};
enum { BUILT_IN = sizeof(built_in) / sizeof(built_in[0]) };

static pthread_mutex_t find_lock = PTHREAD_MUTEX_INITIALIZER;
static struct link_ops found[FIND_LINKS_MAX]; /* completed tables, never taken back: links of them are open */
static size_t n_found;

static const struct link_ops *find_known(const char *name)
{
	for (size_t i = 0; i < n_found; i++)
		if (!strcmp(found[i].name, name))
			return &found[i];
	return NULL;
}

static const struct link_ops *find_add(const struct link_ops *ops)
{
	if (n_found == FIND_LINKS_MAX)
		return NULL;
	link_fill(ops, &found[n_found]);
	return &found[n_found++];
}

/* The name becomes part of a file name: nothing but letters and digits. */
static bool find_name_fits(const char *name)
{
	size_t n = strlen(name);
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)name[i]))
			return false;
	return n > 0 && n <= FIND_NAME_MAX;
}

/* secure_getenv: a setuid program loads nothing from a folder its caller names. */
static const struct link_ops *find_module(const char *name, char *why, size_t why_bytes)
{
	const char *folder = secure_getenv("TERN_MODULES");
	char path[512], symbol[64];

	snprintf(path, sizeof(path), "%s/libtern-%s.so", folder && *folder ? folder : TERN_MODULE_DIR, name);
	snprintf(symbol, sizeof(symbol), "link_%s_ops", name);
	void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!module) {
		snprintf(why, why_bytes, "%s", dlerror());
		return NULL;
	}
	const struct link_ops *ops = dlsym(module, symbol);
	const struct link_ops *out = ops && ops->name && ops->open && ops->close && !strcmp(ops->name, name) ? find_add(ops) : NULL;
	if (!out) {
		snprintf(why, why_bytes, "%s is no link module: it has no usable %s", path, symbol);
		dlclose(module);
	}
	return out;
}

/* What to install when a module does not load. */
static const char *find_remedy(const char *name)
{
	if (!strcmp(name, "rdma"))
		return "; for rdma install rdma-core's libraries (Debian: librdmacm1 libibverbs1 ibverbs-providers) and a tern with -Drdma=enabled, "
		       "or name its folder in TERN_MODULES";
	return "";
}

static void find_unknown(const char *name, const char *why, char *error, size_t error_bytes)
{
	char known[128] = "";
	size_t n = 0;
	for (size_t i = 0; i < n_found && n < sizeof(known); i++)
		n += (size_t)snprintf(known + n, sizeof(known) - n, "%s%s", i ? ", " : "", found[i].name);
	snprintf(error, error_bytes, "no link for scheme \"%.32s\" (known: %s)%s%s%s", name, known, *why ? "; " : "", why, find_remedy(name));
}

int link_find(const char *name, const struct link_ops **out, char *error, size_t error_bytes)
{
	char why[640] = "";

	pthread_mutex_lock(&find_lock);
	for (size_t i = 0; i < BUILT_IN && n_found < BUILT_IN; i++)
		find_add(built_in[i]);
	*out = find_known(name);
	if (!*out && find_name_fits(name))
		*out = find_module(name, why, sizeof(why));
	if (!*out && error && error_bytes)
		find_unknown(name, why, error, error_bytes);
	pthread_mutex_unlock(&find_lock);
	return *out ? 0 : -TERN_ESCHEME;
}
