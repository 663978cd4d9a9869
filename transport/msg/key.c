/* Direct placement: memory of receives, reads and exports that a peer's link may write (keys), and what peers have exposed to us (rkeys). Called by
 * the loop through msg.h, by announce, match and onesided when an operation's memory is worth it. Knows no link: exposing and hiding are the loop's,
 * in its own time.
 *
 * A key keeps its operation (op->held): it ends only after nothing can land in its memory any more. */
#include "msg/state.h"

enum {
	KEY_RUN_UNIT = 4096,
	KEY_RUN_LEAST = 2048,              /* bytes of a run, on average, from which gathering pays */
	KEY_RUNS_MAX = FRAME_SEGS_MAX - 2, /* as direct_frames of peer/tx.c */
};

static struct msg_key *key_at(struct msg *m, uint64_t ref)
{
	uint32_t i = (uint32_t)ref;
	struct msg_key *key = pool_is_used(&m->keys, i) ? pool_at(&m->keys, i) : NULL;
	return key && key->gen == ref >> 32 ? key : NULL;
}

static uint64_t key_ref(const struct msg *m, const struct msg_key *key)
{
	return (uint64_t)key->gen << 32 | pool_index_of(&m->keys, key);
}

bool key_wants(const struct msg_pair *pair, const struct msg_op *op)
{
	return pair->connected && !op->exposed && op->layout.kind == LAYOUT_FLAT && op->layout.mem &&
	       layout_bytes(&op->layout) >= MSG_ANNOUNCE_BYTES && pool_used(&pair->m->keys) < pair->m->keys.n;
}

static struct msg_key *key_new(struct msg_pair *pair, uint8_t kind, uint64_t id, unsigned path)
{
	struct msg *m = pair->m;
	struct msg_key *key = pool_get(&m->keys);
	if (!key)
		return NULL;
	uint32_t gen = key->gen + 1;
	*key = (struct msg_key){.pair = pair, .kind = kind, .id = id, .gen = gen, .state = KEY_WANTED, .path = (uint8_t)path};
	list_push_back(&m->expose, &key->link);
	list_push_back(&pair->keys, &key->by_pair);
	return key;
}

/* The operation's whole memory, to be reached over one more path. */
static bool key_over(struct msg_op *op, uint8_t kind, uint64_t id, unsigned path)
{
	struct msg_key *key = key_new(op->pair, kind, id, path);
	if (!key)
		return false;
	key->op = op;
	key->addr = op->layout.addr;
	key->bytes = layout_bytes(&op->layout);
	key->mem = op->layout.mem;
	key->next = op->exposed;
	op->exposed = key;
	op->held++;
	return true;
}

/* The path to begin with: each that is connected in turn. Turns of ids that are not would all go to the next one that is, and most memory be exposed there. */
static unsigned key_first(struct msg_pair *pair)
{
	unsigned left = pair->connected;
	if (!left)
		return 0;
	for (unsigned skip = pair->expose_next++ % (unsigned)__builtin_popcount(left); skip; skip--)
		left &= left - 1;
	return (unsigned)__builtin_ctz(left);
}

bool key_open(struct msg_op *op, uint8_t kind, uint64_t id)
{
	struct msg_pair *pair = op->pair;
	unsigned n = 0, at = key_first(pair);
	for (unsigned i = 0; i < MSG_PATHS_MAX && n < MSG_TARGETS; i++, at++)
		if (pair->connected & 1u << at % MSG_PATHS_MAX)
			n += key_over(op, kind, id, at % MSG_PATHS_MAX);
	return n;
}

void key_add(struct msg_op *op, uint8_t kind, uint64_t id, unsigned path)
{
	unsigned n = 0;
	for (const struct msg_key *key = op->exposed; key; key = key->next, n++)
		if (key->path == path && key->state != KEY_ENDING)
			return;
	if (n < MSG_TARGETS && op->layout.mem)
		key_over(op, kind, id, path);
}

bool key_pending(const struct msg_op *op)
{
	for (const struct msg_key *key = op->exposed; key; key = key->next)
		if (key->state == KEY_WANTED || key->state == KEY_ASKED)
			return true;
	return false;
}

static struct mem_export *key_export(const struct msg *m, const struct msg_key *key)
{
	return key->op || !m->config.exports ? NULL : mem_table_find(m->config.exports, key->id, key->pair->peer);
}

/* A link has room again, or a key has come free: for an export that had none. */
static void key_again(struct msg *m)
{
	struct list *at = list_pop_front(&m->refused);
	if (at)
		list_push_back(&m->expose, at);
}

static void key_put(struct msg *m, struct msg_key *key)
{
	struct msg_op *op = key->op;
	struct msg_key *next = key->next;
	if (key->state > KEY_RESTS)
		key_again(m);
	struct mem_export *e = key_export(m, key);
	if (e && e->keys)
		e->keys--;
	list_remove(&key->link);
	list_remove(&key->by_pair);
	key->gen++;
	uint32_t gen = key->gen;
	pool_put(&m->keys, key);
	key->gen = gen;
	if (!op)
		return;
	struct msg_key **at = &op->exposed;
	while (*at != key)
		at = &(*at)->next;
	*at = next;
	if (--op->held == 0)
		msg_reaped(m, op);
}

/* Whoever waits to say that memory is there may do so, with keys or without, once none is under way any more. */
static void key_release(struct msg_op *op, uint8_t kind)
{
	if (!op || op->state == OP_ENDED || key_pending(op))
		return;
	if (kind == WIRE_KEY_RECV)
		announce_key(op);
	else if (kind == WIRE_KEY_CLAIM)
		in_key(op);
	else if (kind == WIRE_KEY_READ)
		read_key(op);
}

static void key_due(struct msg_key *key)
{
	list_remove(&key->link);
	list_push_back(&key->pair->keys_due, &key->link);
	msg_wake(key->pair);
}

void key_renamed(struct msg_op *op, uint8_t kind, uint64_t id)
{
	for (struct msg_key *key = op->exposed; key; key = key->next) {
		key->kind = kind;
		key->id = id;
		if (key->state == KEY_READY)
			key_due(key);
	}
}

/* Its memory is to be out of reach. */
static void key_end(struct msg *m, struct msg_key *key)
{
	if (key->state == KEY_ENDING)
		return;
	list_remove(&key->link);
	if (key->state <= KEY_RESTS) {
		key_put(m, key);
		return;
	}
	key->state = KEY_ENDING;
	list_push_back(&m->hide, &key->link);
}

void keys_end(struct msg *m, struct msg_op *op)
{
	for (struct msg_key *key = op->exposed, *next; key; key = next) {
		next = key->next;
		key_end(m, key);
	}
}

static void rkey_put(struct msg *m, struct msg_rkey *r);

void keys_close(struct msg_pair *pair)
{
	struct msg *m = pair->m;
	struct list *at;
	while ((at = list_first(&pair->keys)))
		key_put(m, list_entry(at, struct msg_key, by_pair));
	while ((at = list_first(&pair->rkey_age)))
		rkey_put(m, list_entry(at, struct msg_rkey, age));
}

/* ---- the loop's side ---- */

static void export_over(struct msg_pair *pair, uint64_t id, unsigned path)
{
	struct mem_export *e = mem_table_find(pair->m->config.exports, id, pair->peer);
	/* only where no frame can land twice or late: an export is in reach longer than any one write */
	if (!e || !e->mem || !(e->rights & TERN_REMOTE_WRITE) || !(pair->reliable & 1u << path))
		return;
	struct msg_key *key = key_new(pair, WIRE_KEY_EXPORT, id, path);
	pair->m->exports_missed |= !key;
	if (!key)
		return; /* writes go the long way, until there is one */
	key->addr = e->addr;
	key->bytes = e->bytes;
	key->mem = e->mem;
	e->keys++;
}

void msg_export(struct msg_pair *pair, uint64_t id)
{
	for (unsigned path = 0; path < MSG_PATHS_MAX; path++)
		if (pair->connected & 1u << path)
			export_over(pair, id, path);
}

void msg_unexport(struct msg *m, uint64_t id)
{
	for (uint32_t i = 0; i < m->keys.fresh; i++) {
		struct msg_key *key = pool_at(&m->keys, i);
		if (pool_is_used(&m->keys, i) && !key->op && key->id == id)
			key_end(m, key);
	}
}

/* Keys that the peer gave for a path's earlier connections. Those for this one may be here already: the peer may have had it sooner, and said them over another path. */
static void rkeys_void(struct msg_pair *pair, unsigned path)
{
	uint32_t now = pair->connection[path];
	for (struct list *at = list_first(&pair->rkey_age), *next; at; at = next) {
		struct msg_rkey *r = list_entry(at, struct msg_rkey, age);
		next = list_next(&pair->rkey_age, at);
		if (r->target.path == path && (!now || r->target.connection != (uint8_t)now))
			rkey_put(pair->m, r);
	}
}

/* Those that wait for a window over a connection that is no more. */
static void refused_void(struct msg_pair *pair, unsigned path)
{
	struct msg *m = pair->m;
	for (struct list *at = list_first(&m->refused), *next; at; at = next) {
		struct msg_key *key = list_entry(at, struct msg_key, link);
		next = list_next(&m->refused, at);
		if (key->pair == pair && key->path == path)
			key_put(m, key);
	}
}

/* Is it worth a key on the next connection? A message is on its way there, of which much is still to come. What was announced and not met is
 * announced again by itself, a READ named its key when it was asked. */
static bool key_may_rest(const struct msg_key *key)
{
	const struct msg_in *in = key->op ? key->op->in : NULL;
	return in && in->op == key->op && in->state == IN_FILLING && key->kind != WIRE_KEY_READ && in->limit >= in->front + MSG_ANNOUNCE_BYTES;
}

/* The bytes that have not left yet can go directly once more. */
static void keys_rested(struct msg_pair *pair, unsigned path)
{
	struct msg *m = pair->m;
	for (struct list *at = list_first(&pair->keys_rest), *next; at; at = next) {
		struct msg_key *key = list_entry(at, struct msg_key, link);
		next = list_next(&pair->keys_rest, at);
		if (key->path != path)
			continue;
		key->kind = WIRE_KEY_CLAIM;
		key->id = (uint32_t)key->op->in->seq;
		key->state = KEY_WANTED;
		key->again = true;
		list_remove(at);
		list_push_back(&m->expose, at);
	}
}

void msg_pair_direct(struct msg_pair *pair, unsigned path, uint32_t connection, bool is_reliable)
{
	const struct mem_table *exports = pair->m->config.exports;
	connection = pair->m->config.max_keys ? connection : 0;
	pair->connection[path] = connection;
	pair->connected = (pair->connected & ~(1u << path)) | (connection ? 1u << path : 0);
	pair->reliable = (pair->reliable & ~(1u << path)) | (is_reliable ? 1u << path : 0);
	rkeys_void(pair, path);
	refused_void(pair, path);
	msg_wake(pair); /* what was left to this path, or what it may take now */
	if (!connection)
		return;
	announce_again(pair, path);
	keys_rested(pair, path);
	for (uint32_t i = 0; exports && exports->used && i < sizeof(exports->slot) / sizeof(exports->slot[0]); i++)
		if (exports->slot[i].key && exports->slot[i].peer == pair->peer)
			export_over(pair, exports->slot[i].key, path);
}

/* Exports without any key, in all of the table: so not before a good part of the keys has come free. */
static void exports_missed(struct msg *m)
{
	const struct mem_table *exports = m->config.exports;
	if (!m->exports_missed || pool_used(&m->keys) > m->keys.n - m->keys.n / 8)
		return;
	m->exports_missed = false;
	for (struct list *at = list_first(&m->all_pairs); at; at = list_next(&m->all_pairs, at)) {
		struct msg_pair *pair = list_entry(at, struct msg_pair, link);
		for (uint32_t i = 0; pair->connected && i < sizeof(exports->slot) / sizeof(exports->slot[0]); i++)
			if (exports->slot[i].key && exports->slot[i].peer == pair->peer && !exports->slot[i].keys)
				msg_export(pair, exports->slot[i].key);
	}
}

bool msg_expose_next(struct msg *m, struct msg_expose *out)
{
	exports_missed(m);
	struct list *at = list_pop_front(&m->expose);
	if (!at)
		return false;
	struct msg_key *key = list_entry(at, struct msg_key, link);
	key->state = KEY_ASKED;
	*out = (struct msg_expose){.ref = key_ref(m, key), .pair = key->pair, .addr = key->addr, .bytes = key->bytes,
		.mem = key->mem, .path = key->path};
	return true;
}

void msg_expose_asked(struct msg *m, uint64_t ref, uint32_t id)
{
	struct msg_key *key = key_at(m, ref);
	if (key)
		key->expose_id = id;
}

void msg_expose_refused(struct msg *m, uint64_t ref, bool is_full)
{
	struct msg_key *key = key_at(m, ref);
	if (!is_full || !key || key->op) {
		msg_exposed(m, ref, NULL);
		return;
	}
	key->state = KEY_WANTED;
	list_push_back(&m->refused, &key->link);
}

void msg_exposed(struct msg *m, uint64_t ref, const struct frame_target *target)
{
	struct msg_key *key = key_at(m, ref);
	if (!key || key->state != KEY_ASKED)
		return; /* it has ended meanwhile; if it is exposed, hiding is asked for */
	struct msg_op *op = key->again ? NULL : key->op;
	uint8_t kind = key->kind;
	if (!target) {
		key_put(m, key);
	} else {
		key->state = KEY_READY;
		key->target = *target;
		if (kind != WIRE_KEY_READ) /* it goes with its READ */
			key_due(key);
	}
	key_release(op, kind);
}

bool msg_hide_next(struct msg *m, struct msg_hide *out)
{
	struct list *at = list_pop_front(&m->hide);
	if (!at)
		return false;
	const struct msg_key *key = list_entry(at, struct msg_key, link);
	*out = (struct msg_hide){.pair = key->pair, .id = key->expose_id, .path = key->path};
	return true;
}

void msg_hidden(struct msg *m, uint64_t ref)
{
	struct msg_key *key = key_at(m, ref);
	if (!key)
		return;
	bool asked = key->state == KEY_ASKED && !key->again;
	struct msg_op *op = key->op;
	uint8_t kind = key->kind;
	if (key->state < KEY_ENDING && key_may_rest(key)) {
		key->state = KEY_RESTS;
		list_remove(&key->link);
		list_push_back(&key->pair->keys_rest, &key->link);
		return;
	}
	key_put(m, key);
	if (asked)
		key_release(op, kind);
}

/* ---- said ---- */

bool key_say(struct msg_mix *x, struct msg_key *key)
{
	struct msg *m = x->pair->m;
	struct wire_record r = {.type = WIRE_KEY, .key = {.kind = key->kind, .lane = key->target.lane, .connection = key->target.connection,
		.path_id = key->path, .key = key->target.key, .id = key->id, .addr = key->target.addr, .bytes = key->bytes}};
	struct flow_item item = {.ref = key_ref(m, key), .kind = MSG_ITEM_KEY};
	return msg_mix_put(x, &r, &item);
}

void key_tx(struct msg_mix *x)
{
	struct list *at;
	while ((at = list_first(&x->pair->keys_due))) {
		if (!key_say(x, list_entry(at, struct msg_key, link)))
			return;
		list_remove(at);
	}
}

void key_said(struct msg *m, const struct flow_item *item, bool acked)
{
	struct msg_key *key = key_at(m, item->ref);
	if (key && !acked && key->state == KEY_READY)
		key_due(key);
}

/* ---- the peer's ---- */

static struct list *rkey_bucket(struct msg_pair *pair, uint8_t kind, uint64_t id)
{
	return &pair->m->rkey_hash[msg_hash_ptr(pair, id * WIRE_KEY_KINDS + kind) % MSG_RKEY_BUCKETS];
}

static struct msg_rkey *rkey_find(struct msg_pair *pair, uint8_t kind, uint64_t id, unsigned path)
{
	struct list *head = rkey_bucket(pair, kind, id);
	for (struct list *at = list_first(head); at; at = list_next(head, at)) {
		struct msg_rkey *r = list_entry(at, struct msg_rkey, hash);
		if (r->pair == pair && r->kind == kind && r->id == id && r->target.path == path)
			return r;
	}
	return NULL;
}

static void rkey_put(struct msg *m, struct msg_rkey *r)
{
	r->pair->rkeys--;
	list_remove(&r->age);
	list_remove(&r->hash);
	pool_put(&m->rkeys, r);
}

/* The oldest of this peer's gives way, exports last: those are said once a connection. No peer takes room from another. */
static struct msg_rkey *rkey_new(struct msg_pair *pair)
{
	struct msg *m = pair->m;
	struct msg_rkey *k = pair->rkeys < MSG_RKEYS_PAIR ? pool_get(&m->rkeys) : NULL;
	struct list *at = list_first(&pair->rkey_age);
	if (k || !at)
		return k;
	struct msg_rkey *oldest = list_entry(at, struct msg_rkey, age);
	for (unsigned i = 0; at && i < MSG_SCAN_MAX && oldest->kind == WIRE_KEY_EXPORT; i++, at = list_next(&pair->rkey_age, at))
		oldest = list_entry(at, struct msg_rkey, age);
	rkey_put(m, oldest);
	return pool_get(&m->rkeys);
}

static void rkey_give(const struct frame_target *target, uint64_t bytes, struct msg_op *op)
{
	uint64_t skip = op->type == MSG_OP_WRITE ? op->remote_offset : 0;
	if (skip > bytes)
		return;
	unsigned at = 0; /* the path's last one, or a free one */
	while (at < MSG_TARGETS && op->to[at].lane && op->to[at].path != target->path)
		at++;
	if (at == MSG_TARGETS)
		return;
	op->to[at] = *target;
	op->to[at].addr += skip;
	op->to_bytes = bytes - skip;
}

int rkey_rx(struct msg_pair *pair, const struct wire_key *r)
{
	struct msg *m = pair->m;
	struct frame_target target = {.addr = r->addr, .key = r->key, .lane = r->lane, .connection = r->connection,
		.path = r->path_id};
	if (!m->config.max_keys || r->path_id >= MSG_PATHS_MAX)
		return 0;
	if (r->kind == WIRE_KEY_CLAIM) {
		struct msg_op *op = r->id <= UINT32_MAX ? send_find(pair, (uint32_t)r->id) : NULL;
		if (op)
			rkey_give(&target, r->bytes, op);
		return 0;
	}
	struct msg_rkey *k = rkey_find(pair, r->kind, r->id, r->path_id);
	if (k)
		rkey_put(m, k);
	k = rkey_new(pair);
	if (!k)
		return 0;
	pair->rkeys++;
	*k = (struct msg_rkey){.pair = pair, .kind = r->kind, .id = r->id, .bytes = r->bytes, .target = target};
	list_push_back(&pair->rkey_age, &k->age);
	list_push_back(rkey_bucket(pair, r->kind, r->id), &k->hash);
	return 0;
}

void rkeys_take(struct msg_pair *pair, uint8_t kind, uint64_t id, struct msg_op *op)
{
	for (unsigned path = 0; path < MSG_PATHS_MAX && pair->connected >> path; path++) {
		struct msg_rkey *r = pair->connected & 1u << path ? rkey_find(pair, kind, id, path) : NULL;
		if (!r)
			continue;
		rkey_give(&r->target, r->bytes, op);
		if (kind != WIRE_KEY_EXPORT) /* the others are for one message */
			rkey_put(pair->m, r);
	}
}

/* ---- runs ---- */

static bool target_holds(const struct msg_pair *pair, const struct frame_target *to)
{
	return to->lane && pair->connection[to->path] && to->connection == (uint8_t)pair->connection[to->path];
}

/* Lost bytes are anybody's. So is what nobody can place, or this path can, too. */
enum key_share key_share(const struct msg_op *op, unsigned path)
{
	bool mine = false, others = false;
	if (!rangeset_empty(&op->ranges) || op->sent_bytes >= op->to_bytes)
		return KEY_SHARE_ANY;
	for (unsigned i = 0; i < MSG_TARGETS; i++)
		if (target_holds(op->pair, &op->to[i])) {
			mine |= op->to[i].path == path;
			others |= op->to[i].path != path;
		}
	return mine == others ? KEY_SHARE_ANY : mine ? KEY_SHARE_OWN : KEY_SHARE_NONE;
}

/* Bytes from offset on, at most `most`, that one frame can gather from regions of memory: as many runs as it has segments. *runs: how many they are. None: *apart bytes
 * lie in no region, and go another way. */
static uint64_t key_gather(const struct layout *l, uint64_t offset, uint64_t most, uint32_t *runs, uint64_t *apart)
{
	struct layout_walk walk;
	struct layout_row row;
	uint64_t bytes = 0;
	*runs = 0;
	*apart = 0;
	layout_walk_init(&walk, l, offset, most);
	while (*runs < KEY_RUNS_MAX && layout_walk_next(&walk, &row)) {
		if (!row.mem && !bytes) {
			*apart += row.run * row.n;
			continue;
		}
		if (!row.mem || *apart)
			break;
		uint64_t n = row.n < KEY_RUNS_MAX - *runs ? row.n : KEY_RUNS_MAX - *runs;
		bytes += n * row.run;
		*runs += (uint32_t)n;
	}
	return bytes;
}

/* May the run go to the peer's memory by itself? Then *bytes becomes what may, in one piece of memory a multiple of 4 KiB where more follows: the writes of the next
 * ones begin aligned. Otherwise *bytes becomes what has to go another way. */
bool key_run(const struct msg_op *op, uint64_t offset, uint64_t *bytes, struct frame_target *out)
{
	const struct msg_pair *pair = op->pair;
	const struct layout *l = &op->layout;
	uint64_t apart;
	uint32_t runs;
	if (pair_is_reliable(pair) && !(op->state & (OP_HEAD_ACKED | OP_AHEAD)) && pair->ahead >= MSG_AHEAD)
		return false;
	unsigned at = 0;
	while (at < MSG_TARGETS && !(op->to[at].path == pair->tx_path && target_holds(pair, &op->to[at])))
		at++;
	if (at == MSG_TARGETS || offset >= op->to_bytes)
		return false;
	uint64_t most = op->to_bytes - offset;
	most = *bytes < most ? *bytes : most;
	if (l->kind == LAYOUT_FLAT) {
		if (!l->mem)
			return false;
		if (offset + most < op->total_bytes && most > KEY_RUN_UNIT)
			most -= most % KEY_RUN_UNIT;
	} else {
		most = key_gather(l, offset, most, &runs, &apart);
		if (apart)
			*bytes = apart;
		if (most < (uint64_t)runs * KEY_RUN_LEAST && offset + most < op->total_bytes)
			return false; /* so short that a copy costs less than a segment */
		if (!most)
			return false;
	}
	*bytes = most;
	*out = op->to[at];
	out->addr += offset;
	return true;
}
