/* Numbers of sends, and what each has to wait for at the receiver (DESIGN 5.7). Called by send.c. Knows nothing of what happens there.
 *
 * A message must not meet a receive before an earlier one with its tag has. hold_seq names the last earlier send of that tag; the receiver keeps a
 * message back until the one it names has come and is itself free, so one number a message carries the whole chain. Below tx_front every HEAD has
 * come: nothing to wait for. The table keeps the last send of 64 tags. A tag that lost its entry to another may have sends in flight that nobody
 * remembers: if any entry was pushed out since tx_front, the message holds for all earlier ones (HOLD_ALL). */
#include "msg/state.h"

void hold_number(struct msg_pair *pair, struct msg_op *op)
{
	struct msg_tag *t = &pair->tags[msg_hash(op->tag, 0) % MSG_TAGS];
	uint64_t seq = pair->tx_next++, end = t->last_end;
	op->seq = (uint32_t)seq;
	op->hold = WIRE_NONE32;
	if (t->tag == op->tag && end) {
		if (end > pair->tx_front)
			op->hold = (uint32_t)(end - 1);
		/* the one number that means none */
		if (end > pair->tx_front && op->hold == WIRE_NONE32)
			op->state |= OP_HOLD_ALL;
	} else {
		t->other_end = end > t->other_end ? end : t->other_end;
		t->tag = op->tag;
		if (t->other_end > pair->tx_front)
			op->state |= OP_HOLD_ALL;
	}
	t->last_end = seq + 1;
}
