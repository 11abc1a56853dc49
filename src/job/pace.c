#include "pace.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "backoff.h"
#include "clock.h"
#include "err.h"
#include "log.h"
#include "rate.h"

#define NICE 10

struct pace {
    uint64_t limit; /* never changes */
    pthread_mutex_t lock;
    pthread_cond_t turn; /* stopped */
    /* protected by lock */
    struct rate rate;
    uint64_t guest;   /* bytes per second, or BACKOFF_FREE */
    uint64_t bytes;   /* that passed */
    unsigned n_held;  /* threads that wait because of the guest */
    uint64_t held_at; /* us: when the first of them began */
    uint64_t held_us; /* before that */
};

int
pace_new(uint64_t limit, struct pace **ret, struct err *err)
{
    struct pace *p = calloc(1, sizeof *p);
    pthread_condattr_t attr;

    if (p == NULL)
        return err_set_errno(err, ENOMEM, "limit of the rate");
    p->limit = limit > 0 ? limit : BACKOFF_FREE;
    p->guest = BACKOFF_FREE;
    (void)pthread_mutex_init(&p->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&p->turn, &attr);
    (void)pthread_condattr_destroy(&attr);
    *ret = p;
    return 0;
}

void
pace_free(struct pace *p)
{
    if (p == NULL)
        return;
    (void)pthread_cond_destroy(&p->turn);
    (void)pthread_mutex_destroy(&p->lock);
    free(p);
}

void
pace_set(struct pace *p, uint64_t rate)
{
    (void)pthread_mutex_lock(&p->lock);
    p->guest = rate;
    (void)pthread_mutex_unlock(&p->lock);
}

uint64_t
pace_turn(struct pace *p, size_t len)
{
    uint64_t now = clock_us(), at = 0, per_second;

    (void)pthread_mutex_lock(&p->lock);
    p->bytes += len;
    per_second = p->guest < p->limit ? p->guest : p->limit;
    if (per_second != BACKOFF_FREE)
        at = rate_turn(&p->rate, now, len, per_second);
    (void)pthread_mutex_unlock(&p->lock);
    return at > now ? at : 0;
}

static void
hold_locked(struct pace *p)
{
    if (p->n_held++ == 0)
        p->held_at = clock_us();
}

static void
unhold_locked(struct pace *p)
{
    if (--p->n_held == 0)
        p->held_us += clock_us() - p->held_at;
}

bool
pace_wait(struct pace *p, uint64_t at_us, const atomic_bool *stop)
{
    const struct timespec until = {.tv_sec = (time_t)(at_us / 1000000u),
                                   .tv_nsec = (long)(at_us % 1000000u) * 1000};
    bool held;

    (void)pthread_mutex_lock(&p->lock);
    held = p->guest < p->limit;
    if (held)
        hold_locked(p);
    while (!atomic_load(stop) && clock_us() < at_us)
        (void)pthread_cond_timedwait(&p->turn, &p->lock, &until);
    if (held)
        unhold_locked(p);
    (void)pthread_mutex_unlock(&p->lock);
    return !atomic_load(stop);
}

void
pace_wake(struct pace *p)
{
    (void)pthread_mutex_lock(&p->lock);
    (void)pthread_cond_broadcast(&p->turn);
    (void)pthread_mutex_unlock(&p->lock);
}

uint64_t
pace_bytes(struct pace *p)
{
    uint64_t n;

    (void)pthread_mutex_lock(&p->lock);
    n = p->bytes;
    (void)pthread_mutex_unlock(&p->lock);
    return n;
}

uint64_t
pace_backoff_ms(struct pace *p)
{
    uint64_t us;

    (void)pthread_mutex_lock(&p->lock);
    us = p->held_us + (p->n_held > 0 ? clock_us() - p->held_at : 0);
    (void)pthread_mutex_unlock(&p->lock);
    return us / 1000;
}

/* Linux keeps the nice value per thread.  The main thread keeps its own, for a
 * guest may be waiting for it. */
void
pace_yield_cpu(void)
{
    if (setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICE) < 0)
        log_debug("nice %d is not allowed", NICE);
}
