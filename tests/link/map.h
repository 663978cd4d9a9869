/* Memory mapped for a link by hand, as the loop does it; words about a failure go where the link's others go. For tests of links. */
#ifndef TESTS_LINK_MAP_H
#define TESTS_LINK_MAP_H
#include "link/link.h"

static inline int link_map(const struct link_ops *ops, struct link *link, void *addr, uint64_t bytes, uint32_t *key)
{
	struct mem_what what = mem_what_host(addr, bytes, true);
	return ops->mem_map(link, &what, key, link->trouble, sizeof(link->trouble));
}

#endif
