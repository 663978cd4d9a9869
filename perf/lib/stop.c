/* See stop.h. */
#include "stop.h"
#include <string.h>

volatile sig_atomic_t stop_asked;

static void on_signal(int number)
{
	if (stop_asked) {
		signal(number, SIG_DFL);
		raise(number);
	}
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
