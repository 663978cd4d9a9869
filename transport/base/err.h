/* The last error of this thread in words, for tern_error_detail. Called on cold paths of api, loop, control, mem and links; hot paths count instead, and pure rooms
 * return bare numbers. Text that a person reads says what was wrong, with the value, and what to do. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

/**
 * Records an error of this thread; the last one wins. Text beyond 511 bytes is cut.
 * @param err  TERN_E number, positive or negative
 * @return the negative of it: `return err_set(TERN_EINVAL, __func__, __LINE__, "tag %d: ...", tag)`
 */
int err_set(int err, const char *func, int line, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* err_set with the place filled in: `return ERR(TERN_EADDR, "port %u: in use; choose another", port);` */
#define ERR(err, ...) err_set(err, __func__, __LINE__, __VA_ARGS__)

/** @return "text [function:line]" of this thread's last error, "" if there is none; valid until the thread's next err_set or err_clear */
const char *err_text(void);
/** @return the last error's negative number, 0 if there is none */
int err_last(void);
void err_clear(void);

#endif
