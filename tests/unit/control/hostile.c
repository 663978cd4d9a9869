/* What strangers and broken peers can do to a listener: bytes that are not TLS, silence, too many of them, hellos and messages that break the
 * protocol. The TLS client here is the test's own, so that it can say what control never would. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>
#include "ends.h"
#include "wire/bytes.h"

static uint8_t key[CONTROL_KEY_BYTES] = {42};
static struct end callee;
static uint16_t port;

static void open_listener(uint64_t accept_timeout_ns, uint64_t keepalive_ns)
{
	struct control_config config = end_config(&callee, key, 2);

	config.accept_timeout_ns = accept_timeout_ns;
	config.keepalive_ns = keepalive_ns;
	end_open(&callee, &config);
	port = end_listen(&callee, "127.0.0.1", false);
}

static int tcp_connect(void)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct timeval limit = {.tv_sec = WAIT_S};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	CU_ASSERT_EQUAL_FATAL(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	return fd;
}

/* Waits until the listener hangs up; whatever it says before is dropped. */
static void wait_hang_up(int fd)
{
	uint8_t waste[4096];
	ssize_t n;

	while ((n = recv(fd, waste, sizeof(waste), 0)) > 0)
		;
	CU_ASSERT(n == 0 || errno == ECONNRESET);
}

static int psk_offer(SSL *ssl, const EVP_MD *md, const unsigned char **id, size_t *id_bytes, SSL_SESSION **session)
{
	static const unsigned char suite[] = {0x13, 0x02}, name[] = "tern-site-v1";

	(void)md;
	*id = name;
	*id_bytes = sizeof(name) - 1;
	*session = SSL_SESSION_new();
	return SSL_SESSION_set1_master_key(*session, key, sizeof(key)) && SSL_SESSION_set_cipher(*session, SSL_CIPHER_find(ssl, suite)) &&
	       SSL_SESSION_set_protocol_version(*session, TLS1_3_VERSION);
}

/* A blocking TLS client that holds the site key. */
static SSL *tls_connect(SSL_CTX **ctx, int fd)
{
	*ctx = SSL_CTX_new(TLS_client_method());
	SSL_CTX_set_ciphersuites(*ctx, "TLS_AES_256_GCM_SHA384");
	SSL_CTX_set_psk_use_session_callback(*ctx, psk_offer);
	SSL *ssl = SSL_new(*ctx);
	SSL_set_fd(ssl, fd);
	CU_ASSERT_EQUAL_FATAL(SSL_connect(ssl), 1);
	return ssl;
}

static void tls_end(SSL *ssl, SSL_CTX *ctx, int fd)
{
	SSL_free(ssl);
	SSL_CTX_free(ctx);
	close(fd);
}

static size_t good_hello(uint8_t *out)
{
	struct wire_hello h;

	wire_hello_init(&h);
	h.epoch = 9;
	h.paths = 1;
	h.path[0] = (struct wire_hello_path){.path_id = 0, .flow_id = 5, .udp_port = 99};
	return wire_hello_encode(&h, out, WIRE_HELLO_MAX);
}

/* Sends the bytes through TLS, in pieces of `piece`; then the listener must end it with `type`, and `words` in its text. */
static void check_after_tls(const uint8_t *bytes, size_t n, size_t piece, enum note_type type, const char *words)
{
	SSL_CTX *ctx;
	uint8_t waste[8192];

	open_listener(0, 0);
	int fd = tcp_connect();
	SSL *ssl = tls_connect(&ctx, fd);
	for (size_t at = 0; at < n; at += piece)
		if (SSL_write(ssl, bytes + at, (int)(n - at < piece ? n - at : piece)) <= 0)
			break; /* it may have had enough already */
	const struct note *note = end_wait(&callee, type);
	if (!strstr(note->text, words))
		printf("\n    %d \"%s\"", note->status, note->text);
	CU_ASSERT_PTR_NOT_NULL(strstr(note->text, words));
	if (type == NOTE_FAILED)
		CU_ASSERT_EQUAL(note->status, -TERN_EPROTO);
	while (SSL_read(ssl, waste, sizeof(waste)) > 0)
		;
	tls_end(ssl, ctx, fd);
	end_close(&callee);
}

static void test_garbage(void)
{
	static const char *const says[] = {"GET / HTTP/1.1\r\nHost: tern\r\n\r\n", "\x16\x03\x01\x00\x05hello and more that is no TLS",
	                                   "SSH-2.0-OpenSSH_9.2\r\n"};
	uint64_t seed = unit_seed();

	open_listener(0, 0);
	for (size_t i = 0; i < 3; i++) {
		int fd = tcp_connect();
		CU_ASSERT(send(fd, says[i], strlen(says[i]), MSG_NOSIGNAL) > 0);
		shutdown(fd, SHUT_WR); /* the second looks like TLS that goes on */
		wait_hang_up(fd);
		close(fd);
		CU_ASSERT_EQUAL(end_wait_nth(&callee, NOTE_FAILED, i)->status, -TERN_EPROTO);
	}
	srand((unsigned)seed);
	for (size_t i = 3; i < 40; i++) {
		uint8_t bytes[600];
		for (size_t j = 0; j < sizeof(bytes); j++)
			bytes[j] = (uint8_t)(rand() >> 5);
		int fd = tcp_connect();
		CU_ASSERT(send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL) > 0);
		shutdown(fd, SHUT_WR);
		wait_hang_up(fd);
		close(fd);
		CU_ASSERT_EQUAL(end_wait_nth(&callee, NOTE_FAILED, i)->status, -TERN_EPROTO);
	}
	end_close(&callee);
}

static void test_hang_up(void)
{
	open_listener(0, 0);
	close(tcp_connect());
	CU_ASSERT_EQUAL(end_wait(&callee, NOTE_FAILED)->status, -TERN_EPROTO);
	end_close(&callee);
}

/* A client with TLS but without the key. */
static void test_no_psk(void)
{
	open_listener(0, 0);
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	int fd = tcp_connect();
	SSL *ssl = SSL_new(ctx);
	SSL_set_fd(ssl, fd);
	CU_ASSERT(SSL_connect(ssl) <= 0);
	const struct note *n = end_wait(&callee, NOTE_FAILED);
	CU_ASSERT_EQUAL(n->status, -TERN_EAUTH);
	CU_ASSERT_PTR_NOT_NULL(strstr(n->text, "offers no site key"));
	tls_end(ssl, ctx, fd);
	end_close(&callee);
}

/* Says one byte and then nothing. */
static void test_slow(void)
{
	open_listener(150000000, 0);
	int fd = tcp_connect();
	CU_ASSERT_EQUAL(send(fd, "\x16", 1, 0), 1);
	wait_hang_up(fd);
	const struct note *n = end_wait(&callee, NOTE_FAILED);
	CU_ASSERT_EQUAL(n->status, -TERN_ETIMEDOUT);
	CU_ASSERT_PTR_NOT_NULL(strstr(n->text, "TLS handshake did not finish within 150 ms"));
	close(fd);

	SSL_CTX *ctx;
	fd = tcp_connect(); /* TLS, but then no hello */
	SSL *ssl = tls_connect(&ctx, fd);
	wait_hang_up(fd);
	n = end_wait_nth(&callee, NOTE_FAILED, 1);
	CU_ASSERT_EQUAL(n->status, -TERN_ETIMEDOUT);
	CU_ASSERT_PTR_NOT_NULL(strstr(n->text, "no hello"));
	tls_end(ssl, ctx, fd);
	end_close(&callee);
}

/* A peer that takes TCP but never answers: the connecting end gives up in its time. */
static void test_silent_listener(void)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t bytes = sizeof(at);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CU_ASSERT_EQUAL_FATAL(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	CU_ASSERT_EQUAL_FATAL(listen(fd, 4), 0);
	getsockname(fd, (struct sockaddr *)&at, &bytes);
	open_listener(0, 0);
	struct control_connect opts = {.host = "127.0.0.1", .port = ntohs(at.sin_port), .id = 4, .timeout_ns = 100000000};
	CU_ASSERT_EQUAL_FATAL(control_connect(callee.ct, &opts, NULL), 0);
	const struct note *n = end_wait(&callee, NOTE_FAILED);
	CU_ASSERT_EQUAL(n->status, -TERN_ETIMEDOUT);
	CU_ASSERT_EQUAL(n->id, 4);
	close(fd);
	end_close(&callee);
}

/* More silent strangers than there is room for: a peer with the key still gets in. */
static void test_crowd(void)
{
	enum { CROWD = CONTROL_HANDSHAKES_MAX + 10 };
	struct end caller;
	int fd[CROWD];

	open_listener(0, 0);
	for (int i = 0; i < CROWD; i++)
		fd[i] = tcp_connect();
	struct control_config config = end_config(&caller, key, 1);
	end_open(&caller, &config);
	end_connect(&caller, "127.0.0.1", port, false, 1);
	end_wait(&caller, NOTE_ESTABLISHED);
	end_wait(&callee, NOTE_ESTABLISHED);
	CU_ASSERT_EQUAL(end_wait(&callee, NOTE_FAILED)->status, -TERN_ELIMIT);
	for (int i = 0; i < CROWD; i++)
		close(fd[i]);
	end_close(&caller);
	end_close(&callee);
}

static void test_bad_hello(void)
{
	uint8_t hello[WIRE_HELLO_MAX + 16] = {0}, noise[64];
	size_t n = good_hello(hello);

	memset(noise, 0x5a, sizeof(noise));
	check_after_tls(noise, sizeof(noise), sizeof(noise), NOTE_FAILED, "malformed");
	wire_put32(hello + 4, WIRE_HELLO_MAX + 1);
	check_after_tls(hello, sizeof(hello), 1000, NOTE_FAILED, "longer than");
	n = good_hello(hello);
	wire_put32(hello + 4, (uint32_t)n - 1);
	check_after_tls(hello, n, n, NOTE_FAILED, "malformed");
}

static void test_bad_messages(void)
{
	static const uint8_t too_short[] = {2, 0, 1}, too_long[] = {1, 2, 1}, unknown[] = {3, 0, 9}, half_bye[] = {3, 0, 2};
	static const struct {
		const uint8_t *bytes;
		const char *words;
	} tries[] = {{too_short, "2 bytes"}, {too_long, "513 bytes"}, {unknown, "type 9"}, {half_bye, "type 2"}};

	for (size_t i = 0; i < sizeof(tries) / sizeof(tries[0]); i++) {
		uint8_t bytes[WIRE_HELLO_MAX];
		size_t n = good_hello(bytes);
		memcpy(bytes + n, tries[i].bytes, 3);
		check_after_tls(bytes, n + 3, 7, NOTE_LOST, tries[i].words);
		check_after_tls(bytes, n + 3, n + 3, NOTE_LOST, tries[i].words);
	}
}

static void test_flood(void)
{
	static uint8_t bytes[WIRE_HELLO_MAX + 3 * 2000];
	size_t n = good_hello(bytes);

	for (int i = 0; i < 2000; i++, n += 3)
		memcpy(bytes + n, "\x03\x00\x01", 3);
	check_after_tls(bytes, n, n, NOTE_LOST, "at once");
}

/* Everything in one piece: hello, a message of a newer version that may be skipped, a ping, goodbye. */
static void test_optional(void)
{
	static const uint8_t more[] = {5, 0, 0x84, 1, 2, 3, 0, 1, 4, 0, 2, TERN_EPEER};
	uint8_t bytes[WIRE_HELLO_MAX];
	SSL_CTX *ctx;

	open_listener(0, 0);
	int fd = tcp_connect();
	SSL *ssl = tls_connect(&ctx, fd);
	size_t n = good_hello(bytes);
	memcpy(bytes + n, more, sizeof(more));
	CU_ASSERT_EQUAL(SSL_write(ssl, bytes, (int)(n + sizeof(more))), (int)(n + sizeof(more)));
	end_wait(&callee, NOTE_ESTABLISHED);
	CU_ASSERT_EQUAL(end_wait(&callee, NOTE_CLOSED)->status, -TERN_EPEER);
	CU_ASSERT_EQUAL(end_count(&callee, NOTE_LOST), 0);
	tls_end(ssl, ctx, fd);
	end_close(&callee);
}

static void test_lost(void)
{
	struct linger hard = {.l_onoff = 1};
	uint8_t bytes[WIRE_HELLO_MAX];
	SSL_CTX *ctx;

	open_listener(0, 0);
	for (size_t i = 0; i < 2; i++) {
		int fd = tcp_connect();
		SSL *ssl = tls_connect(&ctx, fd);
		CU_ASSERT(SSL_write(ssl, bytes, (int)good_hello(bytes)) > 0);
		end_wait_nth(&callee, NOTE_ESTABLISHED, i);
		if (i) /* a reset instead of an end */
			setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
		tls_end(ssl, ctx, fd);
		end_wait_nth(&callee, NOTE_LOST, i);
	}
	CU_ASSERT_EQUAL(end_count(&callee, NOTE_CLOSED), 0);
	end_close(&callee);
}

/* A silent peer gets pings, then is given up; one that pings stays. */
static void test_keepalive(void)
{
	struct control_config config;
	struct end caller;
	uint8_t bytes[WIRE_HELLO_MAX];
	struct wire_hello theirs;
	SSL_CTX *ctx;
	size_t have = 0;
	long hello = 0;

	open_listener(0, 30000000);
	config = end_config(&caller, key, 1);
	config.keepalive_ns = 30000000;
	end_open(&caller, &config);
	end_connect(&caller, "127.0.0.1", port, false, 1);
	end_wait(&caller, NOTE_ESTABLISHED);
	uint64_t kept = end_wait(&callee, NOTE_ESTABLISHED)->id;

	int fd = tcp_connect();
	SSL *ssl = tls_connect(&ctx, fd);
	CU_ASSERT(SSL_write(ssl, bytes, (int)good_hello(bytes)) > 0);
	for (;;) { /* until the listener hangs up */
		int n = SSL_read(ssl, bytes + have, (int)(sizeof(bytes) - have));
		if (n <= 0)
			break;
		have += (size_t)n;
	}
	hello = wire_hello_decode(bytes, have, &theirs);
	CU_ASSERT_FATAL(hello > 0 && have >= (size_t)hello + 3);
	CU_ASSERT_EQUAL(memcmp(bytes + hello, "\x03\x00\x01", 3), 0);
	const struct note *n = end_wait(&callee, NOTE_LOST);
	CU_ASSERT_NOT_EQUAL(n->id, kept);
	CU_ASSERT_PTR_NOT_NULL(strstr(n->text, "nothing was heard"));
	CU_ASSERT_EQUAL(end_count(&callee, NOTE_LOST), 1);
	CU_ASSERT_EQUAL(end_count(&caller, NOTE_LOST), 0);
	tls_end(ssl, ctx, fd);
	end_close(&caller);
	end_close(&callee);
}

/* Giving up while the other end is still silent frees the connection at once and says nothing more about it. */
static void test_abandon(void)
{
	struct end caller;
	struct control_config config = end_config(&caller, key, 1);

	end_open(&caller, &config);
	open_listener(0, 0);
	for (uint64_t id = 1; id <= 50; id++) {
		end_connect(&caller, "127.0.0.1", port, false, id);
		if (id != 50)
			control_bye(caller.ct, id, 0);
	}
	size_t n = 0;
	while (end_wait_nth(&caller, NOTE_ESTABLISHED, n)->id != 50) /* one may have been faster than its goodbye */
		n++;
	CU_ASSERT_EQUAL(end_count(&caller, NOTE_FAILED) + end_count(&caller, NOTE_CLOSED) + end_count(&caller, NOTE_LOST), 0);
	end_close(&caller);
	end_close(&callee);
}

static const struct unit_case cases[] = {
    {"bytes that are not TLS", test_garbage},
    {"hanging up at once", test_hang_up},
    {"TLS without the key", test_no_psk},
    {"silence in the handshake", test_slow},
    {"a listener that says nothing", test_silent_listener},
    {"a crowd of silent strangers", test_crowd},
    {"broken hellos", test_bad_hello},
    {"broken messages", test_bad_messages},
    {"too many messages", test_flood},
    {"messages that may be skipped", test_optional},
    {"lost", test_lost},
    {"keepalive", test_keepalive},
    {"abandoned", test_abandon},
};

int main(void)
{
	setbuf(stdout, NULL);
	signal(SIGPIPE, SIG_IGN); /* the test's own writes to sockets that the listener has closed */
	return unit_main("control_hostile", cases, sizeof(cases) / sizeof(cases[0]));
}
