/* Rings and stacks of pointers between threads: Concurrency Kit's, under names that say who may be at either end. Called by api/. Its barriers are written in assembly, which
 * ThreadSanitizer does not see: a build for that tells it what they order, and nothing else differs. */
#ifndef BASE_RING_H
#define BASE_RING_H
#include <ck_ring.h>
#include <ck_stack.h>
#include <stdbool.h>

#ifdef __SANITIZE_THREAD__
void __tsan_acquire(void *addr);
void __tsan_release(void *addr);
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);
static inline void ring_enter(void)
{
	AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
	AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
}
static inline void ring_leave(void)
{
	AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
	AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
}
static inline void ring_release(ck_ring_t *ring)
{
	__tsan_release(ring);
}
static inline void ring_acquire(ck_ring_t *ring)
{
	__tsan_acquire(ring);
}
static inline void stack_release(ck_stack_t *stack)
{
	__tsan_release(stack);
}
static inline void stack_acquire(ck_stack_t *stack)
{
	__tsan_acquire(stack);
}
#else
static inline void stack_release(ck_stack_t *stack) { (void)stack; }
static inline void stack_acquire(ck_stack_t *stack) { (void)stack; }
static inline void ring_enter(void) {}
static inline void ring_leave(void) {}
static inline void ring_release(ck_ring_t *ring) { (void)ring; }
static inline void ring_acquire(ck_ring_t *ring) { (void)ring; }
#endif

/** One thread puts. @return false: full */
static inline bool ring_put(ck_ring_t *ring, ck_ring_buffer_t *slots, void *entry)
{
	ring_release(ring);
	ring_enter();
	bool done = ck_ring_enqueue_spsc(ring, slots, entry);
	ring_leave();
	return done;
}

/** Any thread puts; a ring is filled by this or by ring_put, never by both. @return false: full */
static inline bool ring_put_any(ck_ring_t *ring, ck_ring_buffer_t *slots, void *entry)
{
	ring_release(ring);
	ring_enter();
	bool done = ck_ring_enqueue_mpmc(ring, slots, entry);
	ring_leave();
	return done;
}

/** One thread takes. @return NULL: empty */
static inline void *ring_get(ck_ring_t *ring, ck_ring_buffer_t *slots)
{
	void *entry = NULL;
	ring_enter();
	bool done = ck_ring_dequeue_spsc(ring, slots, &entry);
	ring_leave();
	ring_acquire(ring);
	return done ? entry : NULL;
}

/** A stack of entries that any thread pushes and pops; no thread ever waits for another (a ring's taker does, for one that was put to sleep inside). */
static inline void stack_push(ck_stack_t *stack, ck_stack_entry_t *entry)
{
	stack_release(stack);
	ring_enter();
	ck_stack_push_mpmc(stack, entry);
	ring_leave();
}

/** @return NULL: empty */
static inline ck_stack_entry_t *stack_pop(ck_stack_t *stack)
{
	ring_enter();
	ck_stack_entry_t *entry = ck_stack_pop_mpmc(stack);
	ring_leave();
	stack_acquire(stack);
	return entry;
}

/** What is in it, about. */
static inline unsigned ring_entries(ck_ring_t *ring)
{
	ring_enter();
	unsigned n = ck_ring_size(ring);
	ring_leave();
	return n;
}

#endif
