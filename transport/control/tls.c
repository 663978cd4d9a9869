/* TLS 1.3 with the site key as external PSK: contexts, handshake, reading and writing, data keys by the exporter. Called by conn.c and exchange.c;
 * the only file here that calls OpenSSL. Only psk_dhe_ke (a stolen key opens no recorded session), one cipher suite, no tickets, no early data.
 * Certificates for fleets will be set up in tls_context beside the PSK; what follows does not care which of them spoke. OpenSSL writes to the socket
 * without MSG_NOSIGNAL: the control thread blocks SIGPIPE, which is sent to the writing thread only. */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>
#include "control/inner.h"

static const unsigned char psk_identity[] = "tern-site-v1";
static const unsigned char psk_suite[] = {0x13, 0x02}; /* TLS_AES_256_GCM_SHA384 */
static const char exporter_label[] = "EXPORTER-tern-data";

/* A fresh session for each handshake: OpenSSL gives an external PSK the lifetime of a session ticket, counted from its making. */
static SSL_SESSION *psk_session(SSL *ssl)
{
	const struct control *ct = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
	const SSL_CIPHER *suite = SSL_CIPHER_find(ssl, psk_suite);
	SSL_SESSION *session = SSL_SESSION_new();

	if (session && suite && SSL_SESSION_set1_master_key(session, ct->key, CONTROL_KEY_BYTES) && SSL_SESSION_set_cipher(session, suite) &&
	    SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION))
		return session;
	SSL_SESSION_free(session);
	return NULL;
}

static int psk_offer(SSL *ssl, const EVP_MD *md, const unsigned char **id, size_t *id_bytes, SSL_SESSION **session)
{
	*session = NULL;
	*id = psk_identity;
	*id_bytes = sizeof(psk_identity) - 1;
	if (md && EVP_MD_get_type(md) != NID_sha384) /* after a HelloRetryRequest: the server chose a suite that our key is not for */
		return 1;
	*session = psk_session(ssl);
	return *session != NULL;
}

static int psk_find(SSL *ssl, const unsigned char *id, size_t id_bytes, SSL_SESSION **session)
{
	*session = NULL;
	if (id_bytes != sizeof(psk_identity) - 1 || memcmp(id, psk_identity, id_bytes) != 0)
		return 1;
	*session = psk_session(ssl);
	return *session != NULL;
}

static SSL_CTX *tls_context(struct control *ct, const SSL_METHOD *method)
{
	SSL_CTX *ctx = SSL_CTX_new(method);

	if (!ctx)
		return NULL;
	SSL_CTX_set_app_data(ctx, ct);
	SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
	SSL_CTX_clear_options(ctx, SSL_OP_ALLOW_NO_DHE_KEX);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	if (SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) != 1 || SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) != 1 ||
	    SSL_CTX_set_ciphersuites(ctx, "TLS_AES_256_GCM_SHA384") != 1 || SSL_CTX_set_num_tickets(ctx, 0) != 1) {
		SSL_CTX_free(ctx);
		return NULL;
	}
	return ctx;
}

int tls_open(struct control *ct)
{
	/* a program may end while our threads run: OpenSSL must not be taken apart under them */
	OPENSSL_init_ssl(OPENSSL_INIT_NO_ATEXIT, NULL);
	ct->tls_client = tls_context(ct, TLS_client_method());
	ct->tls_server = tls_context(ct, TLS_server_method());
	ERR_clear_error();
	if (!ct->tls_client || !ct->tls_server)
		return -TERN_ENOMEM;
	SSL_CTX_set_psk_use_session_callback(ct->tls_client, psk_offer);
	SSL_CTX_set_psk_find_session_callback(ct->tls_server, psk_find);
	/* A server that knows no site key would answer with a certificate: nobody vouches for one here, so that is refused. */
	SSL_CTX_set_verify(ct->tls_client, SSL_VERIFY_PEER, NULL);
	return 0;
}

void tls_close(struct control *ct)
{
	SSL_CTX_free(ct->tls_client);
	SSL_CTX_free(ct->tls_server);
}

SSL *tls_new(struct control *ct, int fd, bool is_initiator)
{
	SSL *ssl = SSL_new(is_initiator ? ct->tls_client : ct->tls_server);

	if (!ssl)
		return NULL;
	if (SSL_set_fd(ssl, fd) != 1) {
		SSL_free(ssl);
		return NULL;
	}
	if (is_initiator)
		SSL_set_connect_state(ssl);
	else
		SSL_set_accept_state(ssl);
	return ssl;
}

/* What an alert during the handshake means to a person; the peer has the better words in its own log. */
static int alert_means(int alert, struct control_error *why)
{
	switch (alert) {
	case SSL_AD_ILLEGAL_PARAMETER: /* OpenSSL's answer to a binder made with another key */
	case SSL_AD_DECRYPT_ERROR:
	case SSL_AD_HANDSHAKE_FAILURE:
	case SSL_AD_UNKNOWN_PSK_IDENTITY:
	case SSL_AD_ACCESS_DENIED:
		return control_say(why, -TERN_EAUTH, "site keys differ: the peer refused ours (TLS alert %d); copy one site's key file to the other",
		                   alert);
	case SSL_AD_PROTOCOL_VERSION:
		return control_say(why, -TERN_EPROTO, "the peer does not speak TLS 1.3");
	default:
		return control_say(why, -TERN_EPROTO, "the peer broke off the TLS handshake: %s", SSL_alert_desc_string_long(alert));
	}
}

static int handshake_means(const struct conn *c, struct control_error *why)
{
	unsigned long e = ERR_peek_error();
	int reason = ERR_GET_REASON(e);

	if (ERR_GET_LIB(e) != ERR_LIB_SSL)
		return control_say(why, -TERN_EPROTO, "the TLS handshake failed: %s", e ? ERR_reason_error_string(e) : "no reason given");
	if (reason > SSL_AD_REASON_OFFSET)
		return alert_means(reason - SSL_AD_REASON_OFFSET, why);
	switch (reason) {
	case SSL_R_BINDER_DOES_NOT_VERIFY:
	case SSL_R_BAD_PSK:
		return control_say(why, -TERN_EAUTH, "site keys differ: the peer's is not ours; copy one site's key file to the other");
	case SSL_R_NO_SHARED_CIPHER:
	case SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM:
		return control_say(why, -TERN_EAUTH, "the peer offers no site key");
	case SSL_R_CERTIFICATE_VERIFY_FAILED:
		return control_say(why, -TERN_EAUTH, "the peer knows no site key: it shows a certificate instead; is it Tern that listens there?");
	default:
		return control_say(why, -TERN_EPROTO, "the peer does not speak Tern's TLS (%s)%s", ERR_reason_error_string(e),
		                   c->is_initiator ? "; is it Tern that listens there?" : "");
	}
}

enum tls_result tls_handshake(struct conn *c, struct control_error *why, int *err)
{
	ERR_clear_error();
	errno = 0;
	int rc = SSL_do_handshake(c->ssl), saved = errno, reason = SSL_get_error(c->ssl, rc);

	c->want_write = rc != 1 && reason == SSL_ERROR_WANT_WRITE;
	if (rc == 1) {
		if (SSL_session_reused(c->ssl) && SSL_version(c->ssl) == TLS1_3_VERSION) /* "reused" is how OpenSSL says that the PSK was taken */
			return TLS_DONE;
		*err = control_say(why, -TERN_EAUTH, "the TLS handshake ended without the site key");
	} else if (reason == SSL_ERROR_WANT_READ || reason == SSL_ERROR_WANT_WRITE) {
		return TLS_WAIT;
	} else if (reason == SSL_ERROR_SSL && ERR_GET_REASON(ERR_peek_error()) != SSL_R_UNEXPECTED_EOF_WHILE_READING) {
		*err = handshake_means(c, why);
	} else {
		*err = control_say(why, -TERN_EPROTO, "the peer hung up during the TLS handshake (%s)%s", saved ? strerror(saved) : "end of stream",
		                   c->is_initiator ? "; is it Tern that listens there?" : "");
	}
	ERR_clear_error();
	return TLS_FAIL;
}

/* After the handshake: rc is what SSL_read or SSL_write gave. @return 0: try later, -1: gone */
static long tls_broken(struct conn *c, int rc, int saved, struct control_error *why)
{
	int reason = SSL_get_error(c->ssl, rc);

	c->want_write = reason == SSL_ERROR_WANT_WRITE;
	if (reason == SSL_ERROR_WANT_READ || reason == SSL_ERROR_WANT_WRITE)
		return 0;
	if (reason == SSL_ERROR_ZERO_RETURN)
		control_say(why, 0, "the peer ended the control connection");
	else if (reason == SSL_ERROR_SYSCALL || ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
		control_say(why, 0, "the control connection broke (%s)", saved ? strerror(saved) : "end of stream");
	else
		control_say(why, 0, "the control connection broke: TLS says %s", ERR_reason_error_string(ERR_peek_error()));
	ERR_clear_error();
	return -1;
}

long tls_read(struct conn *c, uint8_t *out, size_t bytes, struct control_error *why)
{
	ERR_clear_error();
	errno = 0;
	int rc = SSL_read(c->ssl, out, (int)bytes);

	return rc > 0 ? rc : tls_broken(c, rc, errno, why);
}

long tls_write(struct conn *c, const uint8_t *in, size_t bytes, struct control_error *why)
{
	ERR_clear_error();
	errno = 0;
	int rc = SSL_write(c->ssl, in, (int)bytes);

	return rc > 0 ? rc : tls_broken(c, rc, errno, why);
}

void tls_shutdown(struct conn *c)
{
	ERR_clear_error();
	if (c->ssl && SSL_is_init_finished(c->ssl))
		SSL_shutdown(c->ssl);
	ERR_clear_error();
}

void tls_free(struct conn *c)
{
	SSL_free(c->ssl);
	c->ssl = NULL;
}

int tls_secret(SSL *ssl, uint8_t path_id, uint8_t direction, uint8_t phase, uint8_t *out)
{
	const uint8_t context[] = {path_id, direction, phase};

	if (SSL_export_keying_material(ssl, out, SESSION_SECRET_BYTES, exporter_label, sizeof(exporter_label) - 1, context, sizeof(context), 1) == 1)
		return 0;
	ERR_clear_error();
	return -TERN_EIO;
}
