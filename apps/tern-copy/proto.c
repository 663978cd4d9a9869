/* Messages of tern-copy: see proto.h. Called by sender.c and receiver.c and their threads. Knows no files. */
#include "proto.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "bytes.h"

size_t proto_encode(const struct proto_msg *msg, uint8_t *out)
{
	struct bytes b = {.at = out, .end = out + PROTO_BYTES_MAX};
	bytes_put32(&b, msg->type);
	switch (msg->type) {
	case PROTO_HELLO:
		bytes_put32(&b, msg->version);
		bytes_put32(&b, msg->flags);
		bytes_put64(&b, msg->list_bytes);
		bytes_put64(&b, msg->files);
		bytes_put64(&b, msg->bytes);
		bytes_put64(&b, msg->limit_bytes_per_s);
		bytes_put64(&b, msg->rtt_ns);
		break;
	case PROTO_ANSWER:
		bytes_put64(&b, msg->list_bytes);
		bytes_put64(&b, msg->chunk_bytes);
		bytes_put64(&b, msg->window_bytes);
		break;
	case PROTO_HASHES:
	case PROTO_DONE:
		bytes_put32(&b, msg->n);
		for (uint32_t i = 0; i < msg->n; i++) {
			bytes_put32(&b, msg->file[i]);
			if (msg->type == PROTO_HASHES)
				bytes_put64(&b, msg->hash[i]);
		}
		break;
	case PROTO_FINAL:
		bytes_put64(&b, msg->files);
		bytes_put64(&b, msg->bytes);
		break;
	case PROTO_ERROR:
		bytes_put32(&b, msg->exit);
		bytes_put(&b, msg->text, strnlen(msg->text, sizeof(msg->text) - 1));
		break;
	}
	return (size_t)(b.at - out);
}

static void files_get(struct bytes *b, struct proto_msg *msg)
{
	msg->n = bytes_get32(b);
	if (msg->n > PROTO_FILES_MAX)
		b->bad = true;
	for (uint32_t i = 0; i < msg->n && !b->bad; i++) {
		msg->file[i] = bytes_get32(b);
		if (msg->type == PROTO_HASHES)
			msg->hash[i] = bytes_get64(b);
	}
}

int proto_decode(struct proto_msg *msg, const uint8_t *data, size_t bytes)
{
	struct bytes b = {.at = (uint8_t *)data, .end = (uint8_t *)data + bytes};
	memset(msg, 0, sizeof(*msg));
	msg->type = bytes_get32(&b);
	switch (msg->type) {
	case PROTO_HELLO:
		msg->version = bytes_get32(&b);
		msg->flags = bytes_get32(&b);
		msg->list_bytes = bytes_get64(&b);
		msg->files = bytes_get64(&b);
		msg->bytes = bytes_get64(&b);
		msg->limit_bytes_per_s = bytes_get64(&b);
		msg->rtt_ns = bytes_get64(&b);
		break;
	case PROTO_ANSWER:
		msg->list_bytes = bytes_get64(&b);
		msg->chunk_bytes = bytes_get64(&b);
		msg->window_bytes = bytes_get64(&b);
		break;
	case PROTO_HASHES:
	case PROTO_DONE:
		files_get(&b, msg);
		break;
	case PROTO_FINAL:
		msg->files = bytes_get64(&b);
		msg->bytes = bytes_get64(&b);
		break;
	case PROTO_ERROR:
		msg->exit = bytes_get32(&b);
		if (!b.bad) {
			size_t n = (size_t)(b.end - b.at);
			memcpy(msg->text, b.at, n < sizeof(msg->text) ? n : sizeof(msg->text) - 1);
			for (char *c = msg->text; *c; c++)
				*c = (unsigned char)*c < 0x20 || *c == 0x7f ? '?' : *c; /* a peer's words must not steer our terminal */
		}
		break;
	default:
		return -1;
	}
	return b.bad ? -1 : 0;
}

int proto_post(struct proto_link *link, bool send, const tern_buf *buf, const tern_args *args)
{
	struct timespec pause = {.tv_nsec = 1000000};
	bool owes = !(args->flags & TERN_QUIET);
	atomic_fetch_add(&link->owed, owes); /* before it can end */
	for (;;) {
		int err = send ? tern_send(link->ep, link->peer, buf, args, NULL) : tern_recv(link->ep, link->peer, buf, args, NULL);
		if (!err)
			return 0;
		if (err != -TERN_EAGAIN || atomic_load(&link->gone))
			atomic_fetch_sub(&link->owed, owes);
		if (err != -TERN_EAGAIN)
			return copy_fail_tern(link->error, send ? "cannot send" : "cannot receive", err);
		if (atomic_load(&link->gone))
			return copy_fail(link->error, COPY_FAILED, "the other end is gone");
		nanosleep(&pause, NULL); /* operations end by themselves, in the library's thread and the main one */
	}
}

struct proto_op *proto_event(struct proto_link *link, const tern_event *ev)
{
	struct proto_op *op = ev->user;
	switch (ev->type) {
	case TERN_EV_SEND:
	case TERN_EV_RECV:
		if (!op)
			return NULL;
		atomic_fetch_sub(&link->owed, 1);
		if (op->kind == PROTO_OP_CTRL_SEND)
			atomic_store(&link->farewell_done, true);
		return op;
	case TERN_EV_PEER_DEAD:
	case TERN_EV_PEER_CLOSED:
		if (ev->peer == link->peer)
			atomic_store(&link->gone, true);
		return NULL;
	case TERN_EV_MISMATCH:
		if (ev->peer == link->peer)
			copy_fail(link->error, COPY_FAILED,
			        "a piece did not fit the other end's list of tensors; use the same version of tern-copy at both ends");
		return NULL;
	default:
		return NULL;
	}
}

static int recv_post(struct proto_link *link, uint32_t i)
{
	tern_iov iov = {.addr = link->recv_buf[i], .bytes = PROTO_BYTES_MAX};
	tern_args args = {.size_bytes = sizeof(args), .user = &link->recv[i], .tag = PROTO_TAG_CTRL};
	link->recv[i] = (struct proto_op){.kind = PROTO_OP_CTRL_RECV, .index = i};
	return proto_post(link, false, &(tern_buf){.iov = &iov, .n = 1}, &args);
}

int proto_open(struct proto_link *link, tern_ctx *ctx, tern_ep *ep, tern_peer peer, struct copy_error *error)
{
	memset(link, 0, sizeof(*link));
	link->ctx = ctx;
	link->ep = ep;
	link->peer = peer;
	link->error = error;
	for (uint32_t i = 0; i < PROTO_RECEIVES; i++)
		if (recv_post(link, i))
			return -1;
	return 0;
}

int proto_take(struct proto_link *link, const struct proto_op *op, size_t bytes, struct proto_msg *msg)
{
	if (proto_decode(msg, link->recv_buf[op->index], bytes))
		return copy_fail(link->error, COPY_REFUSED,
		        "the other end sent a message that is not tern-copy's (version %d here); use the same version at both ends", PROTO_VERSION);
	if (msg->type == PROTO_ERROR) {
		if (!copy_failed(link->error)) {
			int code = msg->exit && msg->exit < 256 ? (int)msg->exit : COPY_FAILED;
			link->error->from_peer = true;
			copy_fail(
			        link->error, code == COPY_INTERRUPTED ? COPY_FAILED : (enum copy_exit)code, "the other end says: %.700s", msg->text);
		}
		return -1;
	}
	return recv_post(link, op->index);
}

int proto_send(struct proto_link *link, const struct proto_msg *msg, bool farewell)
{
	uint8_t data[PROTO_BYTES_MAX];
	tern_iov iov = {.addr = data, .bytes = proto_encode(msg, data)};
	tern_args args = {.size_bytes = sizeof(args), .flags = TERN_INJECT, .tag = PROTO_TAG_CTRL};
	link->farewell.kind = PROTO_OP_CTRL_SEND;
	if (farewell)
		args.user = &link->farewell;
	else
		args.flags |= TERN_QUIET; /* its failure follows the peer's, which is seen anyway */
	return proto_post(link, true, &(tern_buf){.iov = &iov, .n = 1}, &args);
}

int proto_list(struct proto_link *link, bool send, void *data, size_t bytes)
{
	tern_iov iov = {.addr = data, .bytes = bytes};
	tern_args args = {.size_bytes = sizeof(args), .user = &link->list, .tag = PROTO_TAG_LIST};
	link->list.kind = PROTO_OP_LIST;
	return proto_post(link, send, &(tern_buf){.iov = &iov, .n = bytes ? 1 : 0}, &args);
}

void proto_tell(struct proto_link *link)
{
	struct proto_msg *msg = calloc(1, sizeof(*msg));
	if (!msg || atomic_load(&link->gone) || link->error->from_peer || !copy_failed(link->error)) {
		atomic_store(&link->farewell_done, true);
	} else {
		msg->type = PROTO_ERROR;
		msg->exit = (uint32_t)atomic_load(&link->error->exit);
		snprintf(msg->text, sizeof(msg->text), "%s", link->error->text);
		if (proto_send(link, msg, true))
			atomic_store(&link->farewell_done, true);
	}
	free(msg);
}

uint64_t proto_stat(const struct proto_link *link, const char *name)
{
	char scope[40];
	tern_stat stat[128];
	size_t n = 128;
	snprintf(scope, sizeof(scope), "peer/%llu", (unsigned long long)link->peer);
	if (tern_stats_get(link->ctx, scope, stat, &n))
		return 0;
	for (size_t i = 0; i < n && i < 128; i++)
		if (!strcmp(stat[i].name, name))
			return stat[i].value;
	return 0;
}
