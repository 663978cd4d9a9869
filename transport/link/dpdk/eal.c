/* DPDK's environment (EAL): started once a process, by us or found running; its log; its per-thread state. Called by dpdk.c and port.c at open, by
 * the loop's thread
 * for its caches. It is never stopped: other links and the host program may use it until the process ends. */
#include <ctype.h>
#include <dirent.h>
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include "link/dpdk/dpdk.h"
#include "tern/tern.h"

enum { EAL_ARGS_MAX = 64, EAL_TEXT_MAX = 2048 };

static pthread_mutex_t eal_lock = PTHREAD_MUTEX_INITIALIZER;
static bool eal_runs;
static bool eal_is_hosts; /* the host program has started it */
static char eal_failure[512]; /* DPDK does not start a second time: the words are given again */

/* The log's state has a lock of its own: lines come from DPDK's threads too. */
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static void (*log_to)(void *arg, int level, const char *file, int line, const char *text);
static void *log_arg;
static char log_words[192];

/* Lines that memif.c wants to hear, and what was to be seen of them before. */
static struct {
	unsigned uses;
	int type, level;       /* of that type, before */
	uint32_t global_level;
	FILE *before, *own;    /* the host program's stream, and ours in its place; own is kept for ever: another thread may be in it */
} overheard = {.type = -1};

/* Said only because we asked for it? */
static bool eal_is_asked(int level)
{
	return overheard.uses && (level > (int)overheard.global_level || (rte_log_cur_msg_logtype() == overheard.type && level > overheard.level));
}

static ssize_t eal_log_write(void *cookie, const char *bytes, size_t n)
{
	/* DPDK's drivers call many things an error that are none for us: they are warnings here */
	int level = (int)rte_log_cur_msg_loglevel();
	char text[256];
	int length = (int)(n < sizeof(text) ? n : sizeof(text) - 1);

	(void)cookie;
	dpdk_memif_heard();
	if (dpdk_memif_is_trying() || eal_is_asked(level))
		level = (int)RTE_LOG_DEBUG;
	while (length > 0 && isspace((unsigned char)bytes[length - 1]))
		length--;
	if (!length)
		return (ssize_t)n;
	snprintf(text, sizeof(text), "dpdk: %.*s", length, bytes);
	pthread_mutex_lock(&log_lock);
	if (level <= (int)RTE_LOG_ERR)
		snprintf(log_words, sizeof(log_words), "%.*s", length, bytes);
	if (log_to)
		log_to(log_arg, level <= (int)RTE_LOG_WARNING ? TERN_LOG_WARN : TERN_LOG_DEBUG, __FILE__, __LINE__, text);
	pthread_mutex_unlock(&log_lock);
	return (ssize_t)n;
}

void dpdk_eal_log(struct dpdk_link *l, bool on)
{
	pthread_mutex_lock(&log_lock);
	if (on) {
		log_to = l->base.log;
		log_arg = l->base.log_arg;
	} else if (log_arg == l->base.log_arg) {
		log_to = NULL;
	}
	pthread_mutex_unlock(&log_lock);
}

/* The same where the log is the host program's: it gets what it would have got. */
static ssize_t eal_overhear_write(void *cookie, const char *bytes, size_t n)
{
	(void)cookie;
	dpdk_memif_heard();
	if (!eal_is_asked((int)rte_log_cur_msg_loglevel()) && fwrite(bytes, 1, n, overheard.before) == n)
		fflush(overheard.before);
	return (ssize_t)n;
}

void dpdk_eal_overhear(const char *type, bool on)
{
	cookie_io_functions_t io = {.write = eal_overhear_write};

	if (on && !overheard.uses++) {
		overheard.type = rte_log_register(type); /* known already: its number */
		overheard.level = rte_log_get_level((uint32_t)overheard.type);
		overheard.global_level = rte_log_get_global_level();
		if (eal_is_hosts) {
			overheard.before = rte_log_get_stream();
			overheard.own = overheard.own ? overheard.own : fopencookie(NULL, "w", io);
			rte_openlog_stream(overheard.own ? overheard.own : overheard.before);
		}
		rte_log_set_level((uint32_t)overheard.type, RTE_LOG_DEBUG);
		if (overheard.global_level < RTE_LOG_DEBUG)
			rte_log_set_global_level(RTE_LOG_DEBUG);
	} else if (!on && !--overheard.uses) {
		rte_log_set_level((uint32_t)overheard.type, (uint32_t)overheard.level);
		rte_log_set_global_level(overheard.global_level);
		if (eal_is_hosts && rte_log_get_stream() == overheard.own)
			rte_openlog_stream(overheard.before);
	}
}

void dpdk_eal_words(char *out, size_t bytes)
{
	pthread_mutex_lock(&log_lock);
	snprintf(out, bytes, "%s", log_words);
	*log_words = 0;
	pthread_mutex_unlock(&log_lock);
}

/* libbpf and libxdp, which the af_xdp driver brings along, print to stderr of their own. */
static void eal_quiet(void)
{
	static const char *const names[][2] = {{"libbpf.so.1", "libbpf_set_print"}, {"libxdp.so.1", "libxdp_set_print"}};
	for (size_t i = 0; i < 2; i++) {
		void *library = dlopen(names[i][0], RTLD_LAZY | RTLD_NOLOAD);
		if (!library)
			continue;
		void *(*set)(void *) = (void *(*)(void *))dlsym(library, names[i][1]);
		if (set)
			set(NULL);
		dlclose(library);
	}
}

struct eal_start {
	char text[EAL_TEXT_MAX];
	char *argv[EAL_ARGS_MAX + 1];
	int argc;
	char cpu[16];
	int err; /* errno of DPDK */
	char said[160]; /* the first thing it wrote to stderr */
};

static bool eal_has(const struct eal_start *s, const char *name)
{
	size_t n = strlen(name);
	for (int i = 1; i < s->argc; i++)
		if (!strcmp(s->argv[i], name) || (!strncmp(s->argv[i], name, n) && (s->argv[i][n] == '=' || (n == 2 && s->argv[i][n]))))
			return true;
	return false;
}

static void eal_add(struct eal_start *s, const char *arg)
{
	if (s->argc < EAL_ARGS_MAX)
		s->argv[s->argc++] = (char *)(uintptr_t)arg;
}

/* The user's words, then what a library that starts inside of someone's program wants: no files, no sockets, no threads on other cores. */
static int eal_arguments(struct eal_start *s, const char *args)
{
	char *save = NULL;
	cpu_set_t cpus;

	if (snprintf(s->text, sizeof(s->text), "%s", args) >= (int)sizeof(s->text))
		return -TERN_EINVAL;
	eal_add(s, "tern");
	for (char *word = strtok_r(s->text, " \t\n", &save); word; word = strtok_r(NULL, " \t\n", &save)) {
		if (s->argc > EAL_ARGS_MAX - 8)
			return -TERN_EINVAL;
		eal_add(s, word);
	}
	bool no_huge = eal_has(s, "--no-huge");
	if (no_huge && !eal_has(s, "-m"))
		eal_add(s, "-m"), eal_add(s, "256");
	if (no_huge && !eal_has(s, "--no-shconf"))
		eal_add(s, "--no-shconf");
	if (!no_huge && !eal_has(s, "--in-memory") && !eal_has(s, "--file-prefix") && !eal_has(s, "--proc-type") && !eal_has(s, "--legacy-mem"))
		eal_add(s, "--in-memory");
	if (!eal_has(s, "--no-telemetry") && !eal_has(s, "--telemetry"))
		eal_add(s, "--no-telemetry");
	if (!eal_has(s, "-l") && !eal_has(s, "-c") && !eal_has(s, "--lcores")) {
		int cpu = 0;
		if (!sched_getaffinity(0, sizeof(cpus), &cpus))
			while (cpu < CPU_SETSIZE - 1 && !CPU_ISSET(cpu, &cpus))
				cpu++;
		snprintf(s->cpu, sizeof(s->cpu), "%d", cpu);
		eal_add(s, "-l"), eal_add(s, s->cpu);
	}
	return 0;
}

/* Asked before DPDK is, which would print to stderr. */
static bool eal_hugepages(void)
{
	static const char folder[] = "/sys/kernel/mm/hugepages";
	DIR *d = opendir(folder);
	unsigned long pages = 0;
	for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
		char path[512];
		unsigned long n = 0;
		snprintf(path, sizeof(path), "%s/%s/free_hugepages", folder, e->d_name);
		FILE *f = *e->d_name == '.' ? NULL : fopen(path, "re");
		if (f && fscanf(f, "%lu", &n) == 1)
			pages += n;
		if (f)
			fclose(f);
	}
	if (d)
		closedir(d);
	return pages > 0;
}

static __thread bool is_eal_thread; /* runs rte_eal_init */

/* rte_eal_init pins and renames the thread that calls it: one of its own, which ends. What it starts inherits its blocked signals. */
static void *eal_thread(void *arg)
{
	struct eal_start *s = arg;
	sigset_t all;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	is_eal_thread = true;
	s->err = rte_eal_init(s->argc, s->argv) < 0 ? (rte_errno ? rte_errno : EINVAL) : 0;
	return NULL;
}

/* Refused arguments make rte_eal_init print pages to the program's stdout and stderr. For as long as it runs both are these; other threads' text passes. */
struct eal_stream {
	FILE *before, *own; /* own is kept for ever: another thread may be in it */
	struct eal_start *start; /* where the words go, NULL: nowhere */
};

static ssize_t eal_stream_write(void *cookie, const char *bytes, size_t n)
{
	const struct eal_stream *stream = cookie;
	struct eal_start *s = stream->start;
	if (!is_eal_thread)
		return (ssize_t)fwrite(bytes, 1, n, stream->before);
	if (s && !*s->said)
		snprintf(s->said, sizeof(s->said), "%.*s", (int)(n && bytes[n - 1] == '\n' ? n - 1 : n), bytes);
	return (ssize_t)n;
}

static void eal_stream_take(struct eal_stream *stream, FILE **standard)
{
	cookie_io_functions_t io = {.write = eal_stream_write};
	stream->before = *standard;
	stream->own = fopencookie(stream, "w", io);
	if (!stream->own)
		return;
	setvbuf(stream->own, NULL, _IONBF, 0);
	*standard = stream->own;
}

static void eal_stream_give(const struct eal_stream *stream, FILE **standard)
{
	if (stream->own && *standard == stream->own)
		*standard = stream->before;
}

static void eal_init(struct eal_start *s)
{
	static struct eal_stream out, err_out;
	cookie_io_functions_t io = {.write = eal_log_write};
	FILE *stream = fopencookie(NULL, "w", io);
	sigset_t all, old;
	pthread_t thread;

	if (stream)
		rte_openlog_stream(stream);
	err_out.start = s;
	eal_stream_take(&out, &stdout);
	eal_stream_take(&err_out, &stderr);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int err = pthread_create(&thread, NULL, eal_thread, s);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (err)
		s->err = err;
	else
		pthread_join(thread, NULL);
	eal_stream_give(&err_out, &stderr);
	eal_stream_give(&out, &stdout);
	if (!s->err)
		eal_quiet();
}

/* A secondary shares the memory of another process, ports, pools and locks included, and dies with it. */
static int eal_is_secondary(const struct link_config *config, const char *how)
{
	snprintf(config->error, config->error_bytes,
	        "dpdk: this process is a secondary of another DPDK process (%s): Tern runs in primaries only; leave --proc-type out, so that the "
	        "process has memory of its own, and give it a port of its own (an SR-IOV function, a memif or vhost device)", how);
	return -TERN_EIO;
}

static int eal_start_locked(const struct link_config *config, const char *args)
{
	static struct eal_start s; /* DPDK keeps pointers into its arguments */
	char words[192];
	const char *given = *args ? args : secure_getenv("TERN_DPDK_EAL");

	memset(&s, 0, sizeof(s));
	if (eal_arguments(&s, given ? given : "")) {
		snprintf(config->error, config->error_bytes, "dpdk: more than %d EAL arguments or %d bytes of them", EAL_ARGS_MAX - 8,
			EAL_TEXT_MAX - 1);
		return -TERN_EINVAL;
	}
	for (int i = 1; i < s.argc; i++) /* asked before it is started, which is for good */
		if (!strcmp(s.argv[i], "--proc-type=secondary") || (!strcmp(s.argv[i], "secondary") && !strcmp(s.argv[i - 1], "--proc-type")))
			return eal_is_secondary(config, "--proc-type=secondary");
	if (!eal_has(&s, "--no-huge") && !eal_hugepages()) {
		snprintf(config->error, config->error_bytes, "dpdk: no free hugepages; reserve some (echo 256 > /proc/sys/vm/nr_hugepages), "
		         "or do without: TERN_DPDK_EAL=\"--no-huge\"");
		return -TERN_EIO;
	}
	dpdk_eal_words(words, sizeof(words));
	eal_init(&s);
	dpdk_eal_words(words, sizeof(words));
	if (s.err) {
		const char *said = *s.said && !strstr(s.said, "FATAL") ? s.said : words;
		snprintf(eal_failure, sizeof(eal_failure), "dpdk: EAL does not start (%s%s%s); its arguments come from TERN_DPDK_EAL or eal=; "
		         "a process can start it once: mend them and run the program again", rte_strerror(s.err), *said ? "; " : "", said);
		snprintf(config->error, config->error_bytes, "%s", eal_failure);
		return -TERN_EIO;
	}
	eal_runs = true;
	return 0;
}

int dpdk_eal_start(const struct link_config *config, const char *args)
{
	int err = 0;
	pthread_mutex_lock(&eal_lock);
	if (*eal_failure) {
		snprintf(config->error, config->error_bytes, "%s", eal_failure);
		err = -TERN_EIO;
	} else if (!eal_runs && rte_lcore_count()) { /* asked before our own call, which also leaves cores when it fails: the host program has started it */
		eal_runs = eal_is_hosts = true;
	} else if (!eal_runs) {
		err = eal_start_locked(config, args);
	}
	if (!err && rte_eal_process_type() == RTE_PROC_SECONDARY)
		err = eal_is_secondary(config, eal_is_hosts ? "the program has started it so" : "--proc-type=auto");
	pthread_mutex_unlock(&eal_lock);
	return err;
}

static pthread_key_t thread_key;
static pthread_once_t thread_once = PTHREAD_ONCE_INIT;
static __thread bool thread_known;

static void eal_thread_end(void *arg)
{
	(void)arg;
	rte_thread_unregister();
}

static void eal_thread_key(void)
{
	if (pthread_key_create(&thread_key, eal_thread_end))
		thread_key = 0;
}

void dpdk_eal_thread(void)
{
	if (thread_known)
		return;
	thread_known = true;
	pthread_once(&thread_once, eal_thread_key);
	if (rte_lcore_id() == LCORE_ID_ANY && !rte_thread_register())
		pthread_setspecific(thread_key, &thread_known);
}
