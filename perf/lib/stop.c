/* See stop.h. */
#include "stop.h"
#include <string.h>
#include "clock.h"

volatile sig_atomic_t stop_asked;

#define IMPATIENT_NS 300000000u /* timeout(1) sends its signal twice, to the process and to its group: that is one wish */

static volatile uint64_t asked_ns;

static void on_signal(int number)
{
	uint64_t now = clock_ns();

	if (stop_asked && now - asked_ns > IMPATIENT_NS) {
		signal(number, SIG_DFL);
		raise(number);
	}
	if (!stop_asked)
		asked_ns = now;
	stop_asked = 1;
}

void stop_install(void)
{
	struct sigaction action;

	memset(&action, 0, sizeof(action));
	action.sa_handler = on_signal; /* no SA_RESTART: a sleeping wait returns */
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}
