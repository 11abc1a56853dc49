#include "mapping.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "err.h"

#define BUCKETS 1024u /* a repository has up to 50000 mapped segments */

struct mapping {
    struct mapping *next;
    uintptr_t start;
    size_t len;
    bool failed;
    char name[]; /* for messages */
};

/* A spin lock, because the handler takes it, too: nobody touches mapped memory
 * while he holds it, so that no thread waits for itself. */
static atomic_flag lock = ATOMIC_FLAG_INIT;
/* protected by lock */
static struct mapping *buckets[BUCKETS];

static atomic_uint n_failed; /* 0 nearly always: then nothing is looked up */
static struct sigaction before;
static size_t page_len;

static void
acquire(void)
{
    while (atomic_flag_test_and_set_explicit(&lock, memory_order_acquire)) {
    }
}

static void
release(void)
{
    atomic_flag_clear_explicit(&lock, memory_order_release);
}

static struct mapping **
bucket_of(uintptr_t start)
{
    return &buckets[(start / page_len) % BUCKETS];
}

static struct mapping *
containing_locked(uintptr_t at)
{
    for (unsigned i = 0; i < BUCKETS; i++)
        for (struct mapping *m = buckets[i]; m != NULL; m = m->next)
            if (at >= m->start && at - m->start < m->len)
                return m;
    return NULL;
}

/* In the signal handler: mmap() is a plain system call on Linux. */
static bool
patch(uintptr_t at)
{
    void *page = (void *)(at / page_len * page_len);
    struct mapping *m;

    acquire();
    m = containing_locked(at);
    if (m != NULL) {
        if (mmap(page, page_len, PROT_READ,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
            m = NULL;
        else if (!m->failed)
            atomic_fetch_add(&n_failed, 1);
        if (m != NULL)
            m->failed = true;
    }
    release();
    return m != NULL;
}

/* Only what the kernel sends because of an access by this very thread is ours: a
 * signal of another kind may come while the lock is held. */
static void
on_sigbus(int sig, siginfo_t *info, void *context)
{
    int sys = errno;
    bool access = info->si_code > 0 && info->si_code != BUS_MCEERR_AO;

    (void)context;
    if (access && patch((uintptr_t)info->si_addr)) {
        errno = sys;
        return;
    }
    /* Not ours: the access is repeated, or the signal sent again, and this time
     * happens what would have happened without us. */
    (void)sigaction(SIGBUS, &before, NULL);
    if (!access)
        (void)raise(sig);
    errno = sys;
}

static void
install(void)
{
    struct sigaction sa = {.sa_sigaction = on_sigbus,
                           .sa_flags = SA_SIGINFO | SA_RESTART};

    page_len = (size_t)sysconf(_SC_PAGESIZE);
    (void)sigemptyset(&sa.sa_mask);
    (void)sigaction(SIGBUS, &sa, &before);
}

int
mapping_new(int fd, size_t len, const char *name, const uint8_t **ret,
            struct err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct mapping *m = malloc(sizeof *m + strlen(name) + 1);
    void *p;

    if (m == NULL)
        return err_set_errno(err, ENOMEM, "map '%s'", name);
    (void)pthread_once(&once, install);
    p = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) {
        int sys = errno;

        free(m);
        return err_set_errno(err, sys, "map '%s'", name);
    }
    *m = (struct mapping){.start = (uintptr_t)p, .len = len};
    strcpy(m->name, name);
    acquire();
    m->next = *bucket_of(m->start);
    *bucket_of(m->start) = m;
    release();
    *ret = p;
    return 0;
}

void
mapping_free(const uint8_t *data, size_t len)
{
    uintptr_t start = (uintptr_t)data;
    struct mapping **at, *m;

    acquire();
    for (at = bucket_of(start); *at != NULL && (*at)->start != start;)
        at = &(*at)->next;
    m = *at;
    if (m != NULL) {
        *at = m->next;
        if (m->failed)
            atomic_fetch_sub(&n_failed, 1);
    }
    release();
    free(m);
    (void)munmap((void *)start, len);
}

int
mapping_check(const uint8_t *data, struct err *err)
{
    uintptr_t start = (uintptr_t)data;
    const struct mapping *m;
    bool failed;

    if (atomic_load(&n_failed) == 0)
        return 0;
    acquire();
    m = *bucket_of(start);
    while (m != NULL && m->start != start)
        m = m->next;
    failed = m != NULL && m->failed;
    release();
    if (!failed)
        return 0;
    if (err != NULL)
        err_clear(err);
    return err_set_errno(err, EIO,
                         "read '%s': the storage does not give all of it, or "
                         "it became shorter",
                         m->name);
}
