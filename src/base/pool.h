/* base/pool.h - a fixed set of worker threads with a bounded queue.
 *
 * Bounded, because a reader that is faster than the workers must wait instead
 * of filling memory.  Jobs run in any order on any worker.
 */
#pragma once

struct err;
struct pool;

typedef void (*pool_fn)(void *arg, unsigned worker); /* worker: 0 .. n-1 */

/* Start `n_threads` (>= 1) workers; at most `queue_max` (>= 1) jobs wait.
 * 0: *ret is set and the caller frees it.  -1: *err says why. */
int pool_new(unsigned n_threads, unsigned queue_max, struct pool **ret,
             struct err *err);

/* Queue a job; waits while the queue is full.  Any thread but a worker. */
void pool_submit(struct pool *p, pool_fn fn, void *arg);

/* Wait until every job queued so far has ended. */
void pool_drain(struct pool *p);

/* Drain, then end the threads. */
void pool_free(struct pool *p);

/* Number of CPUs this process may use, at least 1. */
unsigned pool_cpus(void);
