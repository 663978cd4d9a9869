/* Links of one port with a receive queue each, at the NICs of dpdk_model.h, whose driver takes rules: what comes by which queue, who is woken, what becomes of a
 * queue whose reader changes. The kernel's rules are in tests/interop/dpdk_queues.c; here no tap is needed, and frames come exactly when they are to. */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include "dpdk_ends.h"

enum { BYTES = 500 };

static struct model_datagram sent[2]; /* to end 1, which has the common queue, and to end 2, which has one of its own */

/* The same datagram may come as often as it is wanted. */
static void catch(unsigned which, struct link_path *path)
{
	model_logged = 0;
	model[0].is_lost = true;
	ends_frame(0, path, BYTES, 0);
	ends_send(0, 1);
	ends_reap(1);
	model[0].is_lost = false;
	MUST(model_logged == 1);
	sent[which] = model_log[0];
}

static void capable(void)
{
	memset(model, 0, sizeof(model));
	for (int i = 0; i < 2; i++) {
		ends_capable(&model[i]);
		model[i].driver = "mlx5_pci";
	}
	model[1].takes_rules = true;
}

static void several_open(void)
{
	capable();
	ends_open(1500, 3);
	MUST(strstr(ends_said, "link 1 has receive queue 1 of its own"));
	for (unsigned which = 0; which < 2; which++)
		catch(which, to[which][0]);
}

/* ---- asleep: a frame comes by one queue while the other is armed */

static uint16_t when_armed, comes_by;

static void comes(uint16_t queue)
{
	if (queue == when_armed)
		model_deliver(&model[1], sent[comes_by].bytes, sent[comes_by].n);
}

static void wakes(void)
{
	struct link_wait w;
	struct rx_frame in;
	several_open();
	for (int round = 0; round < ENDS_ROUNDS; round++) {
		ops->wait(ends[1], true, &w); /* nobody else is awake: both queues are armed */
		when_armed = (uint16_t)rand_below(2);
		comes_by = (uint16_t)rand_below(2);
		model[1].armed = comes;
		ops->wait(ends[2], true, &w);
		model[1].armed = NULL;
		struct pollfd fd = {.fd = w.fd, .events = POLLIN};
		MUST(w.deadline_ns <= model_now_ns() || poll(&fd, 1, 0) == 1);
		ends_look(2, &in, comes_by);
		ends_look(1, &in, 0);
		if (comes_by)
			ops->rx_free(ends[2], &in, 1);
		else
			ends_expect(1, memory, BYTES);
	}
	ends_close();
}

int main(void)
{
	uint64_t seed;
	int err = ends_start(&seed);
	if (err)
		return err;
	rand_start(seed);
	wakes();
	printf("as it should be\n");
	return 0;
}
