/* SIGINT and SIGTERM ask a run to end, with the results so far; a second one ends the program at once. Called by the mains; loops look at stop_asked.
 */
#ifndef PERF_STOP_H
#define PERF_STOP_H
#include <signal.h>

extern volatile sig_atomic_t stop_asked;
void stop_install(void);

#endif
