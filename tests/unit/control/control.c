/* Session set-up between two controls over loopback: what both ends derive, and every way of not agreeing, seen from both ends. */
#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <sys/wait.h>
#include <unistd.h>
#include "ends.h"

static uint8_t key_a[CONTROL_KEY_BYTES], key_b[CONTROL_KEY_BYTES];
static struct end caller, callee;

static void open_both(const uint8_t *caller_key, const uint8_t *callee_key)
{
	struct control_config config = end_config(&caller, caller_key, 1);
	end_open(&caller, &config);
	config = end_config(&callee, callee_key, 2);
	end_open(&callee, &config);
}

static void close_both(void)
{
	end_close(&caller);
	end_close(&callee);
}

static size_t open_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	size_t n = 0;

	while (dir && readdir(dir))
		n++;
	if (dir)
		closedir(dir);
	return n;
}

/* Two sessions of one connection, seen from its two ends. */
static void check_pair(const struct session *a, const struct session *b)
{
	static const uint8_t zero[SESSION_SECRET_BYTES];

	CU_ASSERT_EQUAL_FATAL(a->paths, b->paths);
	CU_ASSERT_NOT_EQUAL(a->is_initiator, b->is_initiator);
	CU_ASSERT_EQUAL(a->is_private, b->is_private);
	CU_ASSERT_EQUAL(a->version, b->version);
	for (int i = 0; i < a->paths; i++) {
		const struct session_path *p = &a->path[i], *q = &b->path[i];
		CU_ASSERT_EQUAL(p->path_id, q->path_id);
		CU_ASSERT_EQUAL(p->local_flow_id, q->remote_flow_id);
		CU_ASSERT_EQUAL(p->remote_flow_id, q->local_flow_id);
		CU_ASSERT_EQUAL(p->mtu_bytes, q->mtu_bytes);
		CU_ASSERT_EQUAL(memcmp(p->tx_secret, q->rx_secret, SESSION_SECRET_BYTES), 0);
		CU_ASSERT_EQUAL(memcmp(p->rx_secret, q->tx_secret, SESSION_SECRET_BYTES), 0);
		if (a->is_private) {
			CU_ASSERT_EQUAL(memcmp(p->tx_secret, zero, SESSION_SECRET_BYTES), 0);
			continue;
		}
		CU_ASSERT_NOT_EQUAL(memcmp(p->tx_secret, zero, SESSION_SECRET_BYTES), 0);
		CU_ASSERT_NOT_EQUAL(memcmp(p->tx_secret, p->rx_secret, SESSION_SECRET_BYTES), 0);
		for (int j = 0; j < i; j++) {
			CU_ASSERT_NOT_EQUAL(memcmp(p->tx_secret, a->path[j].tx_secret, SESSION_SECRET_BYTES), 0);
			CU_ASSERT_NOT_EQUAL(memcmp(p->tx_secret, a->path[j].rx_secret, SESSION_SECRET_BYTES), 0);
		}
	}
}

static void test_success(void)
{
	open_both(key_a, key_a);
	uint16_t port = end_listen(&callee, "127.0.0.1", false);
	end_connect(&caller, "127.0.0.1", port, false, 5);
	const struct note *a = end_wait(&caller, NOTE_ESTABLISHED), *b = end_wait(&callee, NOTE_ESTABLISHED);

	CU_ASSERT_EQUAL(a->id, 5);
	CU_ASSERT((b->id & CONTROL_ID_ACCEPTED) != 0);
	check_pair(&a->session, &b->session);
	CU_ASSERT_EQUAL(a->session.paths, 3);
	CU_ASSERT(a->session.is_initiator);
	CU_ASSERT_EQUAL(a->session.peer_node[0], 2);
	CU_ASSERT_EQUAL(a->session.peer_epoch, 1002);
	CU_ASSERT_EQUAL(b->session.peer_epoch, 1001);
	CU_ASSERT_EQUAL(a->session.credit_bytes, 222);
	CU_ASSERT_EQUAL(b->session.credit_bytes, 111);
	CU_ASSERT_EQUAL(a->session.capabilities, 2);
	CU_ASSERT_STRING_EQUAL(a->session.peer_name, "callee");
	CU_ASSERT_EQUAL(a->session.path[0].mtu_bytes, 9000); /* 0 means not known */
	CU_ASSERT_EQUAL(a->session.path[1].mtu_bytes, 1500);
	CU_ASSERT_EQUAL(callee.asked.listener, 77);
	CU_ASSERT(callee.saw_theirs && !caller.saw_theirs);

	struct sockaddr_in to;
	CU_ASSERT_EQUAL_FATAL(a->session.path[2].remote.bytes, sizeof(to));
	memcpy(&to, a->session.path[2].remote.data, sizeof(to));
	CU_ASSERT_EQUAL(to.sin_family, AF_INET);
	CU_ASSERT_EQUAL(ntohs(to.sin_port), 4002);
	CU_ASSERT_EQUAL(ntohl(to.sin_addr.s_addr), INADDR_LOOPBACK);
	CU_ASSERT_EQUAL(memcmp(&a->session.control_local, &b->session.control_peer, sizeof(struct link_addr)), 0);
	close_both();
}

/* Two set-ups between the same two ends share no key. */
static void test_fresh(void)
{
	open_both(key_a, key_a);
	uint16_t port = end_listen(&callee, "127.0.0.1", false);
	end_connect(&caller, "127.0.0.1", port, false, 1);
	const struct note *a = end_wait(&caller, NOTE_ESTABLISHED);
	end_connect(&caller, "127.0.0.1", port, false, 2);
	const struct note *b = end_wait_nth(&caller, NOTE_ESTABLISHED, 1);
	CU_ASSERT_NOT_EQUAL(memcmp(a->session.path[0].tx_secret, b->session.path[0].tx_secret, SESSION_SECRET_BYTES), 0);
	close_both();
}

static void test_private(void)
{
	open_both(key_a, key_a);
	uint16_t port = end_listen(&callee, "127.0.0.1", true);
	end_connect(&caller, "127.0.0.1", port, true, 5);
	const struct note *a = end_wait(&caller, NOTE_ESTABLISHED), *b = end_wait(&callee, NOTE_ESTABLISHED);
	CU_ASSERT(a->session.is_private);
	check_pair(&a->session, &b->session);
	close_both();
}

/* Both ends fail with the same number, and the words hold what a person needs. */
static void check_both_fail(int err, const char *caller_words, const char *callee_words)
{
	const struct note *a = end_wait(&caller, NOTE_FAILED), *b = end_wait(&callee, NOTE_FAILED);

	CU_ASSERT_EQUAL(a->status, err);
	CU_ASSERT_EQUAL(b->status, err);
	if (a->status != err || b->status != err || !strstr(a->text, caller_words) || !strstr(b->text, callee_words))
		printf("\n    caller %d \"%s\"\n    callee %d \"%s\"", a->status, a->text, b->status, b->text);
	CU_ASSERT_PTR_NOT_NULL(strstr(a->text, caller_words));
	CU_ASSERT_PTR_NOT_NULL(strstr(b->text, callee_words));
	CU_ASSERT_EQUAL(end_count(&caller, NOTE_ESTABLISHED), 0);
	CU_ASSERT_EQUAL(end_count(&callee, NOTE_ESTABLISHED), 0);
}

static void test_wrong_key(void)
{
	open_both(key_a, key_b);
	end_connect(&caller, "127.0.0.1", end_listen(&callee, "127.0.0.1", false), false, 5);
	check_both_fail(-TERN_EAUTH, "site keys differ", "site keys differ");
	close_both();
}

static void test_no_key(void)
{
	struct control_error error = {""};
	uint16_t port;

	open_both(NULL, NULL);
	CU_ASSERT_EQUAL(control_listen(callee.ct, &(struct control_listen){.host = "127.0.0.1"}, &port, &error), -TERN_EKEY);
	CU_ASSERT_PTR_NOT_NULL(strstr(error.text, "tern-key"));
	CU_ASSERT_EQUAL(control_connect(caller.ct, &(struct control_connect){.host = "127.0.0.1", .port = 9, .id = 1}, &error), -TERN_EKEY);
	close_both();
}

static void test_private_one_end(void)
{
	for (int which = 0; which < 2; which++) {
		open_both(key_a, key_a);
		end_connect(&caller, "127.0.0.1", end_listen(&callee, "127.0.0.1", which), !which, 5);
		check_both_fail(-TERN_EPRIVATE, which ? "other end only" : "this end only", which ? "this end only" : "other end only");
		close_both();
	}
}

static void test_version(void)
{
	struct control_config config = end_config(&caller, key_a, 1);
	config.version_min = 2;
	config.version_max = 3;
	end_open(&caller, &config);
	config = end_config(&callee, key_a, 2);
	end_open(&callee, &config);
	end_connect(&caller, "127.0.0.1", end_listen(&callee, "127.0.0.1", false), false, 5);
	check_both_fail(-TERN_EVERSION, "this end speaks 2 to 3, the other 1 to 1", "this end speaks 1 to 1, the other 2 to 3");
	close_both();
}

static void test_highest_version(void)
{
	struct control_config config = end_config(&caller, key_a, 1);
	config.version_min = 2;
	config.version_max = 5;
	end_open(&caller, &config);
	config = end_config(&callee, key_a, 2);
	config.version_max = 4;
	end_open(&callee, &config);
	end_connect(&caller, "127.0.0.1", end_listen(&callee, "127.0.0.1", false), false, 5);
	CU_ASSERT_EQUAL(end_wait(&caller, NOTE_ESTABLISHED)->session.version, 4);
	CU_ASSERT_EQUAL(end_wait(&callee, NOTE_ESTABLISHED)->session.version, 4);
	close_both();
}

static void test_refused_by_owner(void)
{
	open_both(key_a, key_a);
	callee.refuse = -TERN_ELIMIT;
	uint16_t port = end_listen(&callee, "127.0.0.1", false);
	end_connect(&caller, "127.0.0.1", port, false, 5);
	check_both_fail(-TERN_ELIMIT, "limit", "limit");
	close_both();

	open_both(key_a, key_a);
	caller.refuse = -TERN_EBUSY;
	port = end_listen(&callee, "127.0.0.1", false);
	end_connect(&caller, "127.0.0.1", port, false, 5);
	CU_ASSERT_EQUAL(end_wait(&caller, NOTE_FAILED)->status, -TERN_EBUSY);
	CU_ASSERT_EQUAL(end_wait(&callee, NOTE_FAILED)->status, -TERN_EPROTO);
	close_both();
}

static void test_paths_in_common(void)
{
	open_both(key_a, key_a);
	caller.first_path = 2; /* 2 3 4 against 0 1 2 */
	end_connect(&caller, "127.0.0.1", end_listen(&callee, "127.0.0.1", false), false, 5);
	const struct note *a = end_wait(&caller, NOTE_ESTABLISHED), *b = end_wait(&callee, NOTE_ESTABLISHED);
	CU_ASSERT_EQUAL(a->session.paths, 1);
	CU_ASSERT_EQUAL(a->session.path[0].path_id, 2);
	check_pair(&a->session, &b->session);
	close_both();

	open_both(key_a, key_a);
	caller.first_path = 9;
	end_connect(&caller, "127.0.0.1", end_listen(&callee, "127.0.0.1", false), false, 5);
	check_both_fail(-TERN_EPROTO, "no path in common", "no path in common");
	close_both();
}

static void test_bye(void)
{
	open_both(key_a, key_a);
	uint16_t port = end_listen(&callee, "127.0.0.1", false);
	end_connect(&caller, "127.0.0.1", port, false, 5);
	end_connect(&caller, "127.0.0.1", port, false, 6);
	end_wait_nth(&caller, NOTE_ESTABLISHED, 1);
	uint64_t first = end_wait(&callee, NOTE_ESTABLISHED)->id;
	end_wait_nth(&callee, NOTE_ESTABLISHED, 1);
	control_bye(callee.ct, first, -TERN_ECANCELED);
	const struct note *n = end_wait(&caller, NOTE_CLOSED);
	CU_ASSERT_EQUAL(n->status, -TERN_ECANCELED);
	control_bye(caller.ct, n->id == 5 ? 6 : 5, 0);
	n = end_wait(&callee, NOTE_CLOSED);
	CU_ASSERT_EQUAL(n->status, 0);
	CU_ASSERT_NOT_EQUAL(n->id, first); /* who says goodbye hears nothing more */
	control_bye(caller.ct, 12345, 0);  /* nobody: ignored */
	close_both();
}

static void test_close_says_bye(void)
{
	open_both(key_a, key_a);
	end_connect(&caller, "127.0.0.1", end_listen(&callee, "127.0.0.1", false), false, 5);
	end_wait(&caller, NOTE_ESTABLISHED);
	end_wait(&callee, NOTE_ESTABLISHED);
	end_close(&caller);
	CU_ASSERT_EQUAL(end_wait(&callee, NOTE_CLOSED)->status, 0);
	CU_ASSERT_EQUAL(end_count(&callee, NOTE_LOST), 0);
	end_close(&callee);
}

static void test_addresses(void)
{
	struct control_error error = {""};
	uint16_t port = 0, other;

	open_both(key_a, key_a);
	port = end_listen(&callee, NULL, false); /* every address: IPv4 comes in unwrapped */
	end_connect(&caller, "127.0.0.1", port, false, 5);
	CU_ASSERT_EQUAL(end_wait(&callee, NOTE_ESTABLISHED)->session.control_peer.bytes, sizeof(struct sockaddr_in));
	end_wait(&caller, NOTE_ESTABLISHED);
	end_connect(&caller, "localhost", port, false, 6); /* a name: by a thread */
	end_wait_nth(&caller, NOTE_ESTABLISHED, 1);

	CU_ASSERT_EQUAL(control_listen(caller.ct, &(struct control_listen){.port = port}, &other, &error), -TERN_EADDR);
	CU_ASSERT_PTR_NOT_NULL(strstr(error.text, "in use"));
	CU_ASSERT_EQUAL(control_listen(caller.ct, &(struct control_listen){.host = "192.0.2.1"}, &other, &error), -TERN_EADDR);
	CU_ASSERT_EQUAL(control_unlisten(callee.ct, 78), -TERN_ENOENT);
	CU_ASSERT_EQUAL(control_unlisten(callee.ct, 77), 0);
	CU_ASSERT_EQUAL(control_listen(caller.ct, &(struct control_listen){.host = "127.0.0.1", .port = port, .id = 1}, &other, &error), 0);
	CU_ASSERT_EQUAL(control_unlisten(caller.ct, 1), 0);

	end_connect(&caller, "127.0.0.1", port, false, 7); /* nobody listens any more */
	const struct note *n = end_wait(&caller, NOTE_FAILED);
	CU_ASSERT_EQUAL(n->status, -TERN_EADDR);
	CU_ASSERT_PTR_NOT_NULL(strstr(n->text, "nobody listens"));
	CU_ASSERT_EQUAL(control_connect(caller.ct, &(struct control_connect){.host = "", .port = 9, .id = 1}, &error), -TERN_EINVAL);
	CU_ASSERT_EQUAL(control_connect(caller.ct, &(struct control_connect){.host = "a", .id = 1}, &error), -TERN_EINVAL);
	close_both();
}

/* A listener that goes away inside its own callback: connections that it has taken go on. */
static void test_unlisten_in_callback(void)
{
	open_both(key_a, key_a);
	callee.unlistens = true;
	uint16_t port = end_listen(&callee, "127.0.0.1", false);
	end_connect(&caller, "127.0.0.1", port, false, 5);
	end_wait(&caller, NOTE_ESTABLISHED);
	end_connect(&caller, "127.0.0.1", port, false, 6);
	CU_ASSERT_EQUAL(end_wait(&caller, NOTE_FAILED)->status, -TERN_EADDR);
	control_bye(caller.ct, 5, 0);
	end_wait(&callee, NOTE_CLOSED);
	close_both();
}

/* A name server may take its time; neither the caller nor closing waits for it. */
static void test_unknown_name(void)
{
	struct control_error error;

	open_both(key_a, key_a);
	for (uint64_t id = 0; id < 40; id++) /* more than there are threads for */
		CU_ASSERT_EQUAL(control_connect(caller.ct,
		                                &(struct control_connect){.host = "nowhere.invalid", .port = 9, .id = id, .timeout_ns = 3000000000},
		                                &error),
		                0);
	for (size_t i = 0; i < 20; i++) {
		int status = end_wait_nth(&caller, NOTE_FAILED, i)->status;
		CU_ASSERT(status == -TERN_EADDR || status == -TERN_ETIMEDOUT);
	}
	close_both();
}

static void test_ipv6(void)
{
	struct control_error error = {""};
	uint16_t port;

	open_both(key_a, key_a);
	if (control_listen(callee.ct, &(struct control_listen){.host = "::1", .id = 3}, &port, &error)) {
		printf("skipped, no IPv6 here: %s ", error.text);
		close_both();
		return;
	}
	end_connect(&caller, "::1", port, false, 5);
	const struct note *a = end_wait(&caller, NOTE_ESTABLISHED), *b = end_wait(&callee, NOTE_ESTABLISHED);
	check_pair(&a->session, &b->session);
	CU_ASSERT_EQUAL(a->session.path[0].remote.bytes, sizeof(struct sockaddr_in6));
	close_both();
}

static void test_many(void)
{
	enum { MANY = 200 };
	static struct session at_callee[MANY];
	size_t found = 0;

	open_both(key_a, key_a);
	uint16_t port = end_listen(&callee, "127.0.0.1", false);
	for (uint64_t id = 1; id <= MANY; id++)
		end_connect(&caller, "127.0.0.1", port, false, id);
	end_wait_nth(&caller, NOTE_ESTABLISHED, MANY - 1);
	for (size_t i = 0; i < MANY; i++)
		at_callee[i] = end_wait_nth(&callee, NOTE_ESTABLISHED, i)->session;
	for (size_t i = 0; i < MANY; i++) {
		const struct session *s = &end_wait_nth(&caller, NOTE_ESTABLISHED, i)->session;
		for (size_t j = 0; j < MANY; j++)
			if (at_callee[j].path[0].local_flow_id == s->path[0].remote_flow_id &&
			    at_callee[j].path[0].remote_flow_id == s->path[0].local_flow_id) {
				check_pair(s, &at_callee[j]);
				found++;
			}
	}
	CU_ASSERT_EQUAL(found, MANY);
	for (uint64_t id = 1; id <= MANY; id++)
		control_bye(caller.ct, id, 0);
	end_wait_nth(&callee, NOTE_CLOSED, MANY - 1);
	CU_ASSERT_EQUAL(end_count(&callee, NOTE_FAILED), 0);
	close_both();
}

static void test_too_many(void)
{
	struct control_config config = end_config(&caller, key_a, 1);
	config.max_conns = 2;
	end_open(&caller, &config);
	config = end_config(&callee, key_a, 2);
	end_open(&callee, &config);
	uint16_t port = end_listen(&callee, "127.0.0.1", false);
	for (uint64_t id = 1; id <= 3; id++)
		end_connect(&caller, "127.0.0.1", port, false, id);
	CU_ASSERT_EQUAL(end_wait(&caller, NOTE_FAILED)->status, -TERN_ELIMIT);
	end_wait_nth(&caller, NOTE_ESTABLISHED, 1);
	close_both();
}

static void test_fork(void)
{
	struct control_error error = {""};
	uint16_t port;
	int status = 1;

	open_both(key_a, key_a);
	pid_t pid = fork();
	if (pid == 0) {
		int bad = control_listen(caller.ct, &(struct control_listen){.host = "127.0.0.1"}, &port, &error) != -TERN_EFORK;
		bad |= control_connect(caller.ct, &(struct control_connect){.host = "127.0.0.1", .port = 9}, &error) != -TERN_EFORK;
		bad |= control_unlisten(caller.ct, 1) != -TERN_EFORK;
		control_bye(caller.ct, 1, 0);
		control_close(&caller.ct);
		_exit(bad);
	}
	CU_ASSERT_EQUAL_FATAL(waitpid(pid, &status, 0), pid);
	CU_ASSERT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	end_connect(&caller, "127.0.0.1", end_listen(&callee, "127.0.0.1", false), false, 5);
	end_wait(&caller, NOTE_ESTABLISHED); /* the parent is as it was */
	close_both();
}

/* The thread leaves every signal to the program's own threads. */
static void test_signals(void)
{
	char path[300], line[256];
	unsigned found = 0;

	open_both(key_a, key_a);
	DIR *dir = opendir("/proc/self/task");
	CU_ASSERT_PTR_NOT_NULL_FATAL(dir);
	for (struct dirent *d; (d = readdir(dir)) != NULL;) {
		snprintf(path, sizeof(path), "/proc/self/task/%s/status", d->d_name);
		FILE *f = fopen(path, "r");
		unsigned long long blocked = 0;
		bool ours = false;
		while (f && fgets(line, sizeof(line), f)) {
			ours |= strstr(line, "Name:\ttern-") != NULL;
			sscanf(line, "SigBlk: %llx", &blocked);
		}
		if (f)
			fclose(f);
		if (!ours)
			continue;
		found++;
		CU_ASSERT_EQUAL(blocked & 0x7fff, 0x7fffull & ~(1ull << 8)); /* 1 to 15; SIGKILL cannot be */
	}
	closedir(dir);
	CU_ASSERT(found >= 2); /* and threads that still look up a name */
	close_both();
}

static void test_nothing_left(void)
{
	size_t before = open_descriptors();

	for (int round = 0; round < 3; round++) {
		open_both(key_a, round == 1 ? key_b : key_a);
		end_connect(&caller, "127.0.0.1", end_listen(&callee, "127.0.0.1", false), round == 2, 5);
		end_wait(&caller, round ? NOTE_FAILED : NOTE_ESTABLISHED);
		close_both();
	}
	CU_ASSERT_EQUAL(open_descriptors(), before);
}

static const struct unit_case cases[] = {
    {"both ends derive the same", test_success},
    {"every set-up has fresh keys", test_fresh},
    {"private at both ends", test_private},
    {"wrong site key", test_wrong_key},
    {"no site key", test_no_key},
    {"private at one end", test_private_one_end},
    {"no version in common", test_version},
    {"highest version in common", test_highest_version},
    {"refused by the owner", test_refused_by_owner},
    {"paths in common", test_paths_in_common},
    {"goodbye", test_bye},
    {"closing says goodbye", test_close_says_bye},
    {"addresses", test_addresses},
    {"listening ends in a callback", test_unlisten_in_callback},
    {"unknown name", test_unknown_name},
    {"IPv6", test_ipv6},
    {"200 connections", test_many},
    {"too many connections", test_too_many},
    {"forked child", test_fork},
    {"signals are blocked", test_signals},
    {"no descriptor is left", test_nothing_left},
};

int main(void)
{
	setbuf(stdout, NULL);
	for (int i = 0; i < CONTROL_KEY_BYTES; i++) {
		key_a[i] = (uint8_t)(i * 7 + 1);
		key_b[i] = (uint8_t)(i * 5 + 2);
	}
	return unit_main("control", cases, sizeof(cases) / sizeof(cases[0]));
}
