/* Records that arrive, each to the file it is for. Called by peer/ for everything that is not the flow's. Every handler may see a record twice and in
 * any order. */
#include "msg/state.h"

int msg_rx_record(struct msg_pair *pair, const struct wire_record *r, uint64_t now_ns)
{
	(void)now_ns;
	switch (r->type) {
	case WIRE_HEAD:
		return r->head.channel ? -TERN_EPROTO : in_rx_head(pair, &r->head);
	case WIRE_ANNOUNCE:
		return r->announce.channel ? -TERN_EPROTO : offer_rx_announce(pair, &r->announce);
	case WIRE_GRANT:
		return r->grant.channel ? -TERN_EPROTO : send_rx_grant(pair, &r->grant);
	case WIRE_RESULT:
		return r->result.channel ? -TERN_EPROTO : send_rx_result(pair, &r->result);
	case WIRE_REVOKE:
		if (r->revoke.channel)
			return -TERN_EPROTO;
		return r->revoke.answer ? announce_rx_answer(pair, &r->revoke) : offer_rx_revoke(pair, &r->revoke);
	case WIRE_READ:
		return r->read.channel ? -TERN_EPROTO : read_rx(pair, &r->read);
	case WIRE_CANCEL:
		return r->cancel.channel ? -TERN_EPROTO : in_rx_cancel(pair, &r->cancel);
	case WIRE_CREDIT:
		return r->credit.channel ? -TERN_EPROTO : credit_rx(pair, &r->credit);
	case WIRE_KEY:
		return r->key.channel ? -TERN_EPROTO : rkey_rx(pair, &r->key);
	default:
		return -TERN_EPROTO;
	}
}
