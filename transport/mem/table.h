/* Memory exported to peers: a table by key, filled by api/ through the loop, read by msg/ when a peer reads or writes. Plain data, no allocation. */
#ifndef MEM_TABLE_H
#define MEM_TABLE_H
#include <stddef.h>
#include <stdint.h>

enum { MEM_EXPORTS_MAX = 4096 };

struct mem_export {
	uint64_t key;   /* random, never 0; 0: free */
	uint64_t peer;  /* tern_peer that may use it */
	uint8_t *addr;
	uint64_t bytes;
	uint32_t rights; /* enum tern_rights */
	uint32_t mem;    /* the link's key of the memory; 0: not mapped, every byte comes the long way */
	uint32_t uses;   /* operations of the peer that are under way */
	uint32_t keys;   /* links that let the peer write there by itself */
};

struct mem_table {
	uint32_t used;
	struct mem_export slot[MEM_EXPORTS_MAX * 2]; /* open addressing by key; always half empty */
};

/** @return the export that `peer` holds under `key`, or NULL */
struct mem_export *mem_table_find(const struct mem_table *t, uint64_t key, uint64_t peer);
/** @return 0, -TERN_ELIMIT */
int mem_table_add(struct mem_table *t, const struct mem_export *e);
/** Removes; later finds give NULL. The caller has seen uses fall to 0. */
void mem_table_remove(struct mem_table *t, uint64_t key);

#endif
