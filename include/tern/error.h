/* Tern error numbers. Every call returns 0 or the negative of one of these; events carry the same in `status`. Numbers never change meaning. */
#ifndef TERN_ERROR_H
#define TERN_ERROR_H
#ifdef __cplusplus
extern "C" {
#endif

enum tern_err {
	TERN_EAGAIN = 1,    /* flow control: nothing was done, try again later */
	TERN_EINVAL = 2,    /* an argument cannot be right; nothing was done */
	TERN_ECANCELED = 3, /* ended by tern_cancel or by closing the endpoint */
	TERN_ETIMEDOUT = 4, /* the time given for it has passed */
	TERN_ETRUNC = 5,    /* the receive was smaller than the message; what fits was placed, `bytes` is the message's size */
	TERN_ESTALE = 6,    /* a handle of something closed, or of an earlier life of the peer */
	TERN_EPEER = 7,     /* the peer died or closed before the operation ended */
	TERN_EAUTH = 8,     /* wrong site key, refused identity, or a right that was not granted */
	TERN_EVERSION = 9,  /* no protocol version in common */
	TERN_EBUSY = 10,    /* still in use */
	TERN_ELIMIT = 11,   /* a configured limit is reached; raise it or finish something first */
	TERN_EFORK = 12,    /* called in a forked child */
	TERN_EMAYBE = 13,   /* failed, but remote bytes may have landed */
	TERN_EHELD = 14,    /* failed, and the memory stays in use until a later event */
	TERN_ESHAPE = 15,   /* dtype or shape of the two tensors differ */
	TERN_ENOMEM = 16,   /* no memory */
	TERN_EIO = 17,      /* the system refused a file, socket or device; the text names it */
	TERN_EADDR = 18,    /* the address is malformed, in use or not reachable */
	TERN_ESCHEME = 19,  /* no such link in this build, or its module is missing */
	TERN_EKEY = 20,     /* key file missing, malformed, or readable by others */
	TERN_EBLOCKED = 21, /* the control connection stands but no datagram passes: a firewall holds the UDP port */
	TERN_EPRIVATE = 22, /* private=1 at one end only */
	TERN_EPROTO = 23,   /* the peer broke the protocol */
	TERN_ENOENT = 24,   /* no such thing */
	TERN_ERR_END
};

/**
 * Says what an error number means, in a few words, for example "receive smaller than the message".
 * @param err  a TERN_E number, positive or negative; 0 gives "success"
 * @return a static string, never NULL; safe from any thread
 */
const char *tern_error_text(int err);

#ifdef __cplusplus
}
#endif
#endif
