/* Memory that links have mapped: each region has a number, and each kind of link a column with its own keys by that number. The number is what operations, exports and
 * frame_seg.mem carry; a link finds its key by one load from its column, without a lock and without a search (docs/design/007-memory.md). Filled by loop/, read by links
 * through link_mem_key. Calls no link. Not thread-safe, but columns: those never move, and an entry is constant while its region is in use. */
#ifndef MEM_MAP_H
#define MEM_MAP_H
#include <stdbool.h>
#include <stdint.h>
#include "mem/index.h"
#include "mem/what.h"

enum {
	MEM_NUMBERS_MAX = 1 << 20, /* regions at once, and one more: number 0 is none */
	MEM_KINDS_MAX = 16,        /* kinds of links that want memory mapped at once */
};

struct mem_region {
	struct mem_range range; /* first */
	struct mem_what what;
	uint32_t number;
	uint32_t registered; /* tern_mem_register and the like: each lasts until it is taken back */
	uint32_t uses;       /* operations under way that were found to lie here */
};

struct mem_map {
	struct mem_index index;
	struct mem_region **region; /* by number */
	uint32_t room, free_hint, used;
	uint32_t *column[MEM_KINDS_MAX]; /* by kind: the link's key by number; NULL: no such kind */
	const void *scope[MEM_KINDS_MAX];
	uint32_t kinds;
};

void mem_map_init(struct mem_map *m);
/** Frees regions and columns. No link may look any more. */
void mem_map_fini(struct mem_map *m);

/** The column of the links that share keys (scope is any address that they share); made when it is new, *is_new says so. @return the kind, -1: no room or memory */
int mem_kind_get(struct mem_map *m, const void *scope, bool *is_new);
/** The last link of a kind has gone: its keys are void. */
void mem_kind_put(struct mem_map *m, int kind);

/** A registered region of just this range, or for an operation any that holds it. @return NULL: none */
struct mem_region *mem_region_find(const struct mem_map *m, const struct mem_what *what);
/** A new region, without keys and uses. @return NULL: no memory or no number is left */
struct mem_region *mem_region_new(struct mem_map *m, const struct mem_what *what);
/** Takes it out; the caller has taken its keys back from the links. */
void mem_region_free(struct mem_map *m, struct mem_region *r);
/** @return NULL: no region has this number */
struct mem_region *mem_region_at(const struct mem_map *m, uint32_t number);

#endif
