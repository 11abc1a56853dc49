#include "pool.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>

#include "err.h"

struct job {
    pool_fn fn;
    void *arg;
};

struct worker {
    struct pool *pool;
    pthread_t thread;
    unsigned no;
};

struct pool {
    /* never changed after pool_new() */
    struct worker *workers;
    unsigned queue_max;

    pthread_mutex_t lock;
    pthread_cond_t not_empty; /* a job came or the end */
    pthread_cond_t not_full;  /* a job was taken */
    pthread_cond_t idle;      /* nothing queued, nothing running */
    /* protected by lock */
    struct job *queue; /* ring of queue_max */
    unsigned head, n_queued, n_running, n_threads;
    bool ending;
};

static void *
work(void *arg)
{
    struct worker *w = arg;
    struct pool *p = w->pool;

    (void)pthread_mutex_lock(&p->lock);
    for (;;) {
        struct job job;

        while (p->n_queued == 0 && !p->ending)
            (void)pthread_cond_wait(&p->not_empty, &p->lock);
        if (p->n_queued == 0)
            break;
        job = p->queue[p->head];
        p->head = (p->head + 1) % p->queue_max;
        p->n_queued--;
        p->n_running++;
        (void)pthread_cond_signal(&p->not_full);
        (void)pthread_mutex_unlock(&p->lock);
        job.fn(job.arg, w->no);
        (void)pthread_mutex_lock(&p->lock);
        p->n_running--;
        if (p->n_running == 0 && p->n_queued == 0)
            (void)pthread_cond_broadcast(&p->idle);
    }
    (void)pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* Workers block all signals, so that the main thread gets them. */
static int
start_worker(struct pool *p, unsigned i)
{
    sigset_t all, old;
    int r;

    p->workers[i].pool = p;
    p->workers[i].no = i;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    r = pthread_create(&p->workers[i].thread, NULL, work, &p->workers[i]);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return r;
}

int
pool_new(unsigned n_threads, unsigned queue_max, struct pool **ret,
         struct err *err)
{
    struct pool *p = calloc(1, sizeof *p);

    if (p == NULL)
        return err_set_errno(err, ENOMEM, "worker pool");
    (void)pthread_mutex_init(&p->lock, NULL);
    (void)pthread_cond_init(&p->not_empty, NULL);
    (void)pthread_cond_init(&p->not_full, NULL);
    (void)pthread_cond_init(&p->idle, NULL);
    p->queue_max = queue_max;
    p->queue = calloc(queue_max, sizeof *p->queue);
    p->workers = calloc(n_threads, sizeof *p->workers);
    if (p->queue == NULL || p->workers == NULL) {
        pool_free(p);
        return err_set_errno(err, ENOMEM, "worker pool of %u", n_threads);
    }
    for (unsigned i = 0; i < n_threads; i++) {
        int r = start_worker(p, i);

        if (r != 0) {
            pool_free(p);
            return err_set_errno(err, r, "start worker thread %u", i);
        }
        p->n_threads++;
    }
    *ret = p;
    return 0;
}

void
pool_submit(struct pool *p, pool_fn fn, void *arg)
{
    (void)pthread_mutex_lock(&p->lock);
    while (p->n_queued == p->queue_max)
        (void)pthread_cond_wait(&p->not_full, &p->lock);
    p->queue[(p->head + p->n_queued) % p->queue_max] = (struct job){fn, arg};
    p->n_queued++;
    (void)pthread_cond_signal(&p->not_empty);
    (void)pthread_mutex_unlock(&p->lock);
}

void
pool_drain(struct pool *p)
{
    (void)pthread_mutex_lock(&p->lock);
    while (p->n_queued > 0 || p->n_running > 0)
        (void)pthread_cond_wait(&p->idle, &p->lock);
    (void)pthread_mutex_unlock(&p->lock);
}

void
pool_free(struct pool *p)
{
    if (p == NULL)
        return;
    (void)pthread_mutex_lock(&p->lock);
    p->ending = true;
    (void)pthread_cond_broadcast(&p->not_empty);
    (void)pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->n_threads; i++)
        (void)pthread_join(p->workers[i].thread, NULL);
    (void)pthread_mutex_destroy(&p->lock);
    (void)pthread_cond_destroy(&p->not_empty);
    (void)pthread_cond_destroy(&p->not_full);
    (void)pthread_cond_destroy(&p->idle);
    free(p->queue);
    free(p->workers);
    free(p);
}

unsigned
pool_cpus(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return (unsigned)CPU_COUNT(&set);
    return 1;
}
