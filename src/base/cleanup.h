/* base/cleanup.h - release by scope.
 *
 * Hand-written goto ladders are where even careful C leaks or frees twice, so
 * memory, descriptors and our own objects are released by the compiler at the
 * end of their scope, and ownership is handed on in words: TAKE_PTR(), TAKE_FD().
 */
#pragma once

#include <stdlib.h>
#include <unistd.h>

#define CLEANUP(fn) __attribute__((cleanup(fn)))

/* DEFINE_CLEANUP(struct repo *, repo_close) makes repo_closep() for CLEANUP().
 * `fn` must take a `type` that is not NULL; NULL is skipped here. */
#define DEFINE_CLEANUP(type, fn)      \
    static inline void fn##p(type *p) \
    {                                 \
        if (*p)                       \
            fn(*p);                   \
    }

static inline void
cleanup_freep(void *p)
{
    free(*(void **)p);
}

static inline void
cleanup_closep(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
}

#define CLEANUP_FREE CLEANUP(cleanup_freep)
#define CLEANUP_CLOSE CLEANUP(cleanup_closep) /* int fd = -1 */

/* Hand a pointer on: yields it and leaves NULL behind. */
#define TAKE_PTR(p)             \
    ({                          \
        __typeof__(p) p_ = (p); \
        (p) = NULL;             \
        p_;                     \
    })

/* Hand a descriptor on: yields it and leaves -1 behind. */
#define TAKE_FD(fd)     \
    ({                  \
        int fd_ = (fd); \
        (fd) = -1;      \
        fd_;            \
    })

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
