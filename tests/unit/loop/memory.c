/* loop/memory.c: links of three kinds in one loop, each with keys of its own. Each finds its key by a region's number; what one cannot map costs only it; links that
 * come late, or go while a registration uses them; memory in use is not given back. The links are this file's and count what they are asked. */
#include <string.h>
#include "loop/loop.h"
#include "tern/error.h"
#include "unit.h"

enum { BYTES = 65536, MAPS = 64 };

struct fake {
	struct link link; /* first */
	struct mem_what mapped[MAPS];
	uint32_t first_key;
	int live, calls; /* mappings now, and in all */
	bool refuses, closed;
};

static uint8_t memory[4][BYTES];
static struct loop *lp;

static void fake_close(struct link **link)
{
	((struct fake *)*link)->closed = true;
	*link = NULL;
}

static int fake_map(struct link *link, const struct mem_what *what, uint32_t *key, char *why, size_t why_bytes)
{
	struct fake *f = (struct fake *)link;
	*key = 0;
	if (f->refuses) {
		snprintf(why, why_bytes, "%s cannot", (const char *)f->link.mem_scope);
		return -TERN_ENOMEM;
	}
	CU_ASSERT_FATAL(f->calls < MAPS);
	f->mapped[f->calls] = *what;
	*key = f->first_key + (uint32_t)f->calls++;
	f->live++;
	return 0;
}

static void fake_unmap(struct link *link, uint32_t key)
{
	struct fake *f = (struct fake *)link;
	CU_ASSERT(key >= f->first_key && key < f->first_key + MAPS); /* of its kind, whoever mapped */
	f->live--;
}

static const struct link_ops some_ops = {.name = "fake", .close = fake_close, .mem_map = fake_map, .mem_unmap = fake_unmap};
static struct link_ops ops;

static void fake_add(struct fake *f, const char *kind, uint32_t caps, uint32_t first_key, char *why)
{
	*f = (struct fake){.link = {.ops = &ops, .caps = LINK_BYTES | caps, .mem_scope = kind}, .first_key = first_key, .refuses = f->refuses};
	CU_ASSERT_EQUAL_FATAL(loop_link_add(lp, &f->link, why, 320), 0);
}

static void start(void)
{
	struct loop_config lc = {.max_peers = 4, .max_paths = 4, .max_inbound = 64, .unmatched_bytes = 1 << 20, .extents = 1024, .ranges = 1024};
	link_fill(&some_ops, &ops);
	CU_ASSERT_EQUAL_FATAL(loop_open(&lc, &lp), 0);
}

static const char writer[] = "writer", reader[] = "reader";
enum { WRITER = LINK_MAPS | LINK_MAPS_OPS | LINK_WRITES };

static void each_its_key(void)
{
	struct fake w = {0}, w2 = {0}, r = {0}, cpu = {0};
	char why[320] = "";
	uint32_t early, late;

	start();
	CU_ASSERT_EQUAL(loop_map(lp, memory[0], BYTES, &early), 0);
	CU_ASSERT(early);
	fake_add(&w, writer, WRITER, 1000, why);
	fake_add(&r, reader, LINK_MAPS, 2000, why);
	fake_add(&cpu, NULL, 0, 3000, why);
	CU_ASSERT_STRING_EQUAL(why, "");
	CU_ASSERT_EQUAL(loop_map(lp, memory[1], BYTES, &late), 0);
	CU_ASSERT_NOT_EQUAL(late, early);
	CU_ASSERT(link_mem_key(&w.link, early) >= 1000 && link_mem_key(&w.link, early) < 2000);
	CU_ASSERT(link_mem_key(&w.link, late) >= 1000 && link_mem_key(&w.link, late) != link_mem_key(&w.link, early));
	CU_ASSERT(link_mem_key(&r.link, early) >= 2000 && link_mem_key(&r.link, late) >= 2000);
	CU_ASSERT_EQUAL(link_mem_key(&w.link, 0), 0);
	CU_ASSERT(!cpu.calls && !cpu.link.mem_keys);
	/* the loop's own frames: read from where they are, but by links that write, which have a ring for them */
	CU_ASSERT(link_mem_key(&r.link, lp->chunk_mem) >= 2000);
	CU_ASSERT_EQUAL(link_mem_key(&w.link, lp->chunk_mem), 0);
	/* another link of a kind shares its keys and is asked nothing; they outlive the first */
	fake_add(&w2, writer, WRITER, 1000, why);
	CU_ASSERT(!w2.calls && link_mem_key(&w2.link, early) == link_mem_key(&w.link, early));
	loop_link_remove(lp, &w.link);
	CU_ASSERT(w.closed && w.live == 2 && link_mem_key(&w2.link, late));
	/* registered twice: once */
	uint32_t again;
	int calls = r.calls;
	CU_ASSERT_EQUAL(loop_map(lp, memory[1], BYTES, &again), 0);
	CU_ASSERT(again == late && r.calls == calls);
	CU_ASSERT_EQUAL(loop_unmap(lp, late), 0);
	CU_ASSERT(link_mem_key(&r.link, late));
	CU_ASSERT_EQUAL(loop_unmap(lp, late), 0);
	CU_ASSERT_EQUAL(link_mem_key(&r.link, late), 0);
	loop_link_remove(lp, &r.link);
	CU_ASSERT_EQUAL(r.live, 0); /* the last of a kind gives everything back */
	loop_close(&lp);
	CU_ASSERT(w2.closed && cpu.closed && w.live + w2.live == 0);
}

static void one_refuses(void)
{
	struct fake w = {0}, r = {.refuses = true};
	char why[320] = "";
	uint32_t number;

	start();
	fake_add(&w, writer, WRITER, 1000, why);
	fake_add(&r, reader, LINK_MAPS, 2000, why);
	CU_ASSERT_STRING_EQUAL(why, "reader cannot"); /* the loop's own pool */
	struct loop_mapping job = {.what = mem_what_host(memory[0], BYTES, true)};
	loop_map_begin(lp, &job);
	loop_map_run(&job);
	CU_ASSERT_EQUAL(loop_map_end(lp, &job), 0); /* it copies */
	CU_ASSERT_STRING_EQUAL(job.why, "reader cannot");
	CU_ASSERT(link_mem_key(&w.link, job.number) && !link_mem_key(&r.link, job.number));
	w.refuses = true;
	r.refuses = false;
	int live = r.live;
	job = (struct loop_mapping){.what = mem_what_host(memory[1], BYTES, true)};
	loop_map_begin(lp, &job);
	loop_map_run(&job);
	CU_ASSERT_EQUAL(loop_map_end(lp, &job), -TERN_ENOMEM); /* what peers should write into */
	CU_ASSERT(!job.number && r.live == live);
	CU_ASSERT_STRING_EQUAL(job.why, "writer cannot");
	CU_ASSERT_EQUAL(loop_map(lp, memory[1], BYTES, &number), -TERN_ENOMEM);
	loop_close(&lp);
	CU_ASSERT(w.live == 0 && r.live == 0);
}

/* Links that come and go between begin and end, as they may: that is another thread's time. */
static void links_change_meanwhile(void)
{
	struct fake w = {0}, r = {0}, late = {0};
	char why[320] = "";

	start();
	fake_add(&w, writer, WRITER, 1000, why);
	fake_add(&r, reader, LINK_MAPS, 2000, why);
	struct loop_mapping job = {.what = mem_what_host(memory[0], BYTES, true)}, same = job;
	loop_map_begin(lp, &job);
	loop_map_begin(lp, &same);
	loop_link_remove(lp, &r.link);
	CU_ASSERT_FALSE(r.closed);
	fake_add(&late, "late", LINK_MAPS, 4000, why);
	loop_map_run(&job);
	loop_map_run(&same);
	CU_ASSERT_EQUAL(loop_map_end(lp, &job), 0);
	CU_ASSERT_FALSE(r.closed);
	CU_ASSERT_EQUAL(loop_map_end(lp, &same), 0);
	CU_ASSERT(r.closed && r.live == 0);
	CU_ASSERT_EQUAL(job.number, same.number);
	CU_ASSERT_EQUAL(w.live, 1); /* two at once: the second's is given back */
	CU_ASSERT(link_mem_key(&late.link, job.number));
	CU_ASSERT_EQUAL(loop_unmap(lp, job.number), 0);
	CU_ASSERT_EQUAL(loop_unmap(lp, job.number), 0);
	CU_ASSERT_EQUAL(w.live, 0);
	loop_close(&lp);
}

static void op_of(struct msg_op *op, void *addr, uint64_t bytes)
{
	memset(op, 0, sizeof(*op));
	layout_flat(&op->layout, addr, bytes);
	loop_memory_op(lp, op);
}

static void operations(void)
{
	struct fake w = {0}, r = {0};
	char why[320] = "";
	struct msg_op op, list;
	uint32_t number;

	start();
	fake_add(&w, writer, WRITER, 1000, why);
	fake_add(&r, reader, LINK_MAPS, 2000, why);
	CU_ASSERT_EQUAL(loop_map(lp, memory[0], BYTES, &number), 0);
	int calls = w.calls;
	op_of(&op, memory[0] + 5000, 5000); /* inside: found, for every kind */
	CU_ASSERT(op.layout.mem == number && w.calls == calls);
	CU_ASSERT_EQUAL(loop_unmap(lp, number), -TERN_EBUSY);
	loop_memory_done(lp, &op);
	op_of(&op, memory[1], 5000); /* elsewhere and small */
	CU_ASSERT_EQUAL(op.layout.mem, 0);
	op_of(&op, memory[1], 20000); /* large: for those that want it */
	CU_ASSERT(link_mem_key(&w.link, op.layout.mem) && !link_mem_key(&r.link, op.layout.mem));
	CU_ASSERT(!w.mapped[w.calls - 1].lasts);
	int live = w.live;
	loop_memory_done(lp, &op);
	CU_ASSERT(w.live == live - 1 && !op.layout.mem);
	/* a list: each range by itself */
	struct layout_range range[] = {{.addr = memory[0], .end = 100}, {.addr = memory[2], .end = 30100}, {.addr = memory[3], .end = 30200}};
	memset(&list, 0, sizeof(list));
	list.layout = (struct layout){.bytes = 30200, .run = 100, .kind = LAYOUT_LIST, .n = 3, .range = range};
	loop_memory_op(lp, &list);
	CU_ASSERT(range[0].mem == number && link_mem_key(&w.link, range[1].mem) && !range[2].mem);
	loop_memory_done(lp, &list);
	CU_ASSERT(!range[0].mem && !range[1].mem);
	/* a strided tensor: its span, from below where strides are negative */
	memset(&op, 0, sizeof(op));
	op.layout = (struct layout){.bytes = 32768, .run = 4096, .kind = LAYOUT_STRIDED, .n = 1,
		.dim = {.base = memory[2] + 7 * 8192, .shape = {8}, .stride = {-8192}}};
	loop_memory_op(lp, &op);
	CU_ASSERT(op.layout.mem && w.mapped[w.calls - 1].addr == memory[2]);
	CU_ASSERT_EQUAL(w.mapped[w.calls - 1].bytes, 7 * 8192 + 4096);
	loop_memory_done(lp, &op);
	CU_ASSERT_EQUAL(loop_unmap(lp, number), 0);
	CU_ASSERT(w.live == 0 && r.live == 1); /* the loop's pool */
	loop_close(&lp);
}

static const struct unit_case cases[] = {
        {"each_its_key", each_its_key},
        {"one_refuses", one_refuses},
        {"links_change_meanwhile", links_change_meanwhile},
        {"operations", operations},
};
UNIT_MAIN("loop_memory", cases)
