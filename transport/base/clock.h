/* The clock. Read once a step by loop, and by link set-up and control where they wait; pure rooms get now_ns as an argument and must never include this. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H
#include <stdint.h>

/** CLOCK_MONOTONIC in nanoseconds. Any thread; about 20 ns (vDSO, no system call). */
uint64_t clock_now_ns(void);

#endif
