/* Tests of tern-copy's manifest, plan and messages, without files or network: pieces cover every byte once whatever the receiver has, both ends
 * derive the same ones, and nothing that a peer sends is believed unchecked. */
#include <string.h>
#include "plan.h"
#include "proto.h"
#include "unit/unit.h"

static uint64_t state;

static uint64_t rnd(uint64_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % below;
}

static void tensors_make(struct manifest_entry *e)
{
	e->kind = MANIFEST_TENSORS;
	e->header_bytes = 10 + rnd(3000000);
	e->bytes = e->header_bytes;
	e->tensors = (uint32_t)rnd(12);
	e->tensor = calloc(e->tensors + 1, sizeof(*e->tensor));
	for (uint32_t i = 0; i < e->tensors; i++) {
		struct manifest_tensor *t = &e->tensor[i];
		t->dtype = TERN_F64 + (uint32_t)rnd(TERN_DTYPE_END - 1);
		t->dims = (uint32_t)rnd(5);
		uint64_t bytes = tern_dtype_bytes(t->dtype);
		for (uint32_t d = 0; d < t->dims; d++)
			bytes *= t->shape[d] = 1 + rnd(i % 3 == 0 ? 6 : d ? 300 : 40);
		t->begin = e->bytes;
		t->end = e->bytes += bytes;
	}
}

static void manifest_make(struct manifest *m)
{
	char path[64];
	size_t n = 1 + rnd(60);
	memset(m, 0, sizeof(*m));
	for (size_t i = 0; i < n; i++) {
		int length = snprintf(path, sizeof(path), "d%d/f%zu", (int)rnd(3), i);
		struct manifest_entry *e = manifest_add(m, path, (size_t)length);
		uint64_t kind = rnd(8);
		e->mode = 0644;
		e->mtime_ns = rnd(UINT64_C(1) << 60);
		if (kind == 0)
			e->kind = MANIFEST_FOLDER;
		else if (kind == 1)
			tensors_make(e);
		else
			e->bytes = rnd(kind == 2 ? 40000000 : kind == 3 ? 2 : 400000);
		m->total_bytes += e->bytes;
	}
}

static void piece_check(const struct manifest *m, const struct piece *p, uint64_t chunk, uint64_t *covered)
{
	uint64_t bytes = 0;
	CU_ASSERT(p->bytes <= chunk);
	if (!p->small) {
		CU_ASSERT_EQUAL(covered[p->file], p->offset);
		covered[p->file] += p->bytes;
		bytes = p->dtype == TERN_RAW ? p->bytes : tern_dtype_bytes(p->dtype);
		for (uint32_t d = 0; d < p->dims && p->dtype != TERN_RAW; d++)
			bytes *= p->shape[d];
		CU_ASSERT_EQUAL(bytes, p->bytes);
		return;
	}
	for (size_t i = p->file; i < p->files_end; i++)
		if (plan_sends(&m->entry[i])) {
			CU_ASSERT(plan_is_small(&m->entry[i]));
			bytes += m->entry[i].bytes;
			covered[i] += m->entry[i].bytes;
		}
	CU_ASSERT_EQUAL(bytes, p->bytes);
}

static void cover_check(const struct manifest *m, uint64_t chunk)
{
	uint64_t covered[64] = {0}, number = 0;
	struct plan plan;
	struct piece p;
	for (size_t i = 0; i < m->n; i++)
		covered[i] = m->entry[i].have_bytes;
	plan_init(&plan, m, chunk);
	for (; plan_next(&plan, &p); number++) {
		CU_ASSERT_EQUAL(p.number, number);
		piece_check(m, &p, chunk, covered);
	}
	for (size_t i = 0; i < m->n; i++)
		CU_ASSERT_EQUAL(covered[i], m->entry[i].present ? 0 : m->entry[i].bytes);
}

/* As after a cut: some files are there, some partly. What is partly there always leaves something to send. */
static void test_plan(void)
{
	state = unit_seed() | 1;
	for (int round = 0; round < 300; round++) {
		struct manifest m;
		uint64_t chunk = PLAN_CHUNK_MIN + (rnd(3) ? 0 : rnd(4000000) / 4096 * 4096);
		manifest_make(&m);
		cover_check(&m, chunk);
		for (size_t i = 0; i < m.n; i++) {
			struct manifest_entry *e = &m.entry[i];
			if (e->kind == MANIFEST_FOLDER)
				continue;
			e->present = !rnd(4);
			if (!e->present && rnd(2)) {
				e->have_bytes = plan_floor(e, chunk, rnd(e->bytes + 2));
				CU_ASSERT(e->have_bytes < e->bytes || !e->bytes);
				CU_ASSERT_EQUAL(plan_floor(e, chunk, e->have_bytes), e->have_bytes);
			}
		}
		cover_check(&m, chunk);
		manifest_fini(&m);
	}
}

static void test_manifest(void)
{
	state = unit_seed() | 1;
	for (int round = 0; round < 200; round++) {
		struct manifest m, back = {0};
		struct copy_error error = COPY_ERROR_INIT;
		uint8_t *data;
		uint64_t bytes;
		manifest_make(&m);
		CU_ASSERT_FATAL(!manifest_encode(&m, &data, &bytes, &error));
		CU_ASSERT(!manifest_decode(&back, data, bytes, &error));
		CU_ASSERT_EQUAL(back.n, m.n);
		CU_ASSERT_EQUAL(back.total_bytes, m.total_bytes);
		for (size_t i = 0; i < m.n && i < back.n; i++) {
			CU_ASSERT_STRING_EQUAL(back.entry[i].path, m.entry[i].path);
			CU_ASSERT_EQUAL(back.entry[i].bytes, m.entry[i].bytes);
			CU_ASSERT_EQUAL(back.entry[i].tensors, m.entry[i].tensors);
			for (uint32_t t = 0; t < m.entry[i].tensors && t < back.entry[i].tensors; t++)
				CU_ASSERT(!memcmp(&m.entry[i].tensor[t], &back.entry[i].tensor[t], sizeof(m.entry[i].tensor[t])));
		}
		manifest_fini(&back);
		/* damaged: refused or understood, never read past the end (a sanitizer looks on) */
		uint8_t *cut = malloc(bytes);
		uint64_t n = rnd(bytes);
		memcpy(cut, data, bytes);
		for (int flips = 0; flips < 4; flips++)
			cut[rnd(bytes)] ^= (uint8_t)(1 << rnd(8));
		uint8_t *exact = malloc(n ? n : 1);
		memcpy(exact, cut, n);
		if (!manifest_decode(&back, exact, n, &error))
			cover_check(&back, PLAN_CHUNK_MIN);
		manifest_fini(&back);
		free(exact);
		free(cut);
		free(data);
		manifest_fini(&m);
	}
}

static void test_paths(void)
{
	static const char *const wrong[] = {"", "/etc/passwd", "..", "a/../b", "./a", "a/.", "a//b", "a/", "a/..", ".tern-resume", "a/.tern-resume",
	        ".tern-resume.new", ".a.tern-part", "a/.b.tern-part"};
	static const char *const good[] = {"a", "a/b", "...", ".a", "a/.b/c", "..a", "a..", "tern-part", ".tern-part", "a b\n\303\244"};
	char name[300];
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		CU_ASSERT_PTR_NOT_NULL(manifest_path_wrong(wrong[i]));
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		CU_ASSERT_PTR_NULL(manifest_path_wrong(good[i]));
	memset(name, 'x', sizeof(name));
	name[255] = 0;
	CU_ASSERT_PTR_NULL(manifest_path_wrong(name));
	name[255] = 'x';
	name[256] = 0;
	CU_ASSERT_PTR_NOT_NULL(manifest_path_wrong(name));
}

static void test_unique(void)
{
	static const struct { const char *a, *b; int kind_a, rc;
	} pairs[] = {
	        {"a", "a", MANIFEST_FILE, -1},
	        {"a", "b", MANIFEST_FILE, 0},
	        {"a", "a/b", MANIFEST_FILE, -1},
	        {"a", "a/b", MANIFEST_FOLDER, 0},
	        {"a", "a-b", MANIFEST_FILE, 0},
	        {"a", "a", MANIFEST_FOLDER, -1},
	};
	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
		struct manifest m = {0};
		struct copy_error error = COPY_ERROR_INIT;
		manifest_add(&m, "a-", 2);
		manifest_add(&m, pairs[i].b, strlen(pairs[i].b));
		manifest_add(&m, pairs[i].a, strlen(pairs[i].a))->kind = (uint32_t)pairs[i].kind_a;
		CU_ASSERT_EQUAL(manifest_unique(&m, &error), pairs[i].rc);
		manifest_fini(&m);
	}
}

static void test_messages(void)
{
	static struct proto_msg msg, back;
	uint8_t data[PROTO_BYTES_MAX];
	msg.type = PROTO_HASHES;
	msg.n = PROTO_FILES_MAX;
	for (uint32_t i = 0; i < msg.n; i++) {
		msg.file[i] = i * 77;
		msg.hash[i] = i * UINT64_C(0x123456789);
	}
	size_t n = proto_encode(&msg, data);
	CU_ASSERT(!proto_decode(&back, data, n) && !memcmp(&msg, &back, sizeof(msg)));
	for (size_t cut = 0; cut < n; cut++)
		CU_ASSERT(proto_decode(&back, data, cut));
	memset(&msg, 0, sizeof(msg));
	msg.type = PROTO_HELLO;
	msg.version = PROTO_VERSION;
	msg.list_bytes = 5;
	msg.rtt_ns = UINT64_MAX;
	CU_ASSERT(!proto_decode(&back, data, proto_encode(&msg, data)) && !memcmp(&msg, &back, sizeof(msg)));
	memset(&msg, 0, sizeof(msg));
	msg.type = PROTO_ERROR;
	msg.exit = COPY_TARGET;
	strcpy(msg.text, "disk \033full");
	CU_ASSERT(!proto_decode(&back, data, proto_encode(&msg, data)));
	CU_ASSERT_STRING_EQUAL(back.text, "disk ?full");
	data[0] = 99;
	CU_ASSERT(proto_decode(&back, data, n));
}

static const struct unit_case cases[] = {
	{"plan", test_plan}, {"manifest", test_manifest}, {"paths", test_paths}, {"unique", test_unique}, {"messages", test_messages},
};
UNIT_MAIN("plan", cases)
