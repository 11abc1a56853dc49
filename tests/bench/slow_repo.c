/* tests/bench/slow_repo.c - a repository that answers in SLOW_MS, preloaded.
 *
 *     SLOW_DIR=/repo SLOW_MS=100 LD_PRELOAD=slow_repo.so tidemark backup ...
 *
 * Every operation on a file below SLOW_DIR sleeps first: what a repository far
 * away does to a program that waits for each answer.  An operation under way
 * holds up nobody but its own thread.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define FDS 4096

static atomic_bool far_fd[FDS]; /* opened below SLOW_DIR */

static void
answer(void)
{
    const char *ms = getenv("SLOW_MS");
    long v = ms != NULL ? strtol(ms, NULL, 10) : 100;
    struct timespec t = {v / 1000, v % 1000 * 1000000};

    (void)nanosleep(&t, NULL);
}

static bool
is_far(const char *path)
{
    const char *dir = getenv("SLOW_DIR");

    return dir != NULL && path != NULL && strncmp(path, dir, strlen(dir)) == 0;
}

static bool
is_far_fd(int fd)
{
    return fd >= 0 && fd < FDS && atomic_load(&far_fd[fd]);
}

#define REAL(ret, name, ...)         \
    static ret (*real)(__VA_ARGS__); \
    if (real == NULL)                \
    real = (ret(*)(__VA_ARGS__))(uintptr_t)dlsym(RTLD_NEXT, #name)

static int
opened(int fd, const char *path)
{
    if (fd >= 0 && fd < FDS)
        atomic_store(&far_fd[fd], is_far(path));
    return fd;
}

#define OPEN(name)                                                       \
    int name(const char *path, int flags, ...)                           \
    {                                                                    \
        va_list ap;                                                      \
        mode_t mode;                                                     \
        REAL(int, name, const char *, int, ...);                         \
        va_start(ap, flags);                                             \
        mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(ap, mode_t) : 0; \
        va_end(ap);                                                      \
        if (is_far(path))                                                \
            answer();                                                    \
        return opened(real(path, flags, mode), path);                    \
    }
OPEN(open)
OPEN(open64)

int
close(int fd)
{
    REAL(int, close, int);
    if (fd >= 0 && fd < FDS)
        atomic_store(&far_fd[fd], false);
    return real(fd);
}

#define ON_FD(ret, name, params, args, types) \
    ret name params                           \
    {                                         \
        REAL(ret, name, types);               \
        if (is_far_fd(fd))                    \
            answer();                         \
        return real args;                     \
    }
#define T(...) __VA_ARGS__
ON_FD(int, fsync, (int fd), (fd), int)
ON_FD(int, fdatasync, (int fd), (fd), int)
ON_FD(ssize_t, write, (int fd, const void *b, size_t n), (fd, b, n),
      T(int, const void *, size_t))
ON_FD(ssize_t, read, (int fd, void *b, size_t n), (fd, b, n),
      T(int, void *, size_t))
ON_FD(ssize_t, pread, (int fd, void *b, size_t n, off_t o), (fd, b, n, o),
      T(int, void *, size_t, off_t))
ON_FD(ssize_t, pread64, (int fd, void *b, size_t n, off64_t o), (fd, b, n, o),
      T(int, void *, size_t, off64_t))
ON_FD(ssize_t, pwrite, (int fd, const void *b, size_t n, off_t o),
      (fd, b, n, o), T(int, const void *, size_t, off_t))
ON_FD(ssize_t, pwrite64, (int fd, const void *b, size_t n, off64_t o),
      (fd, b, n, o), T(int, const void *, size_t, off64_t))

#define ON_PATH(ret, name, params, args, types) \
    ret name params                             \
    {                                           \
        REAL(ret, name, types);                 \
        if (is_far(path))                       \
            answer();                           \
        return real args;                       \
    }
ON_PATH(int, link, (const char *path, const char *to), (path, to),
        T(const char *, const char *))
ON_PATH(int, rename, (const char *path, const char *to), (path, to),
        T(const char *, const char *))
ON_PATH(int, unlink, (const char *path), (path), const char *)
ON_PATH(int, mkdir, (const char *path, mode_t m), (path, m),
        T(const char *, mode_t))
ON_PATH(int, access, (const char *path, int m), (path, m), T(const char *, int))
ON_PATH(int, stat64, (const char *path, struct stat64 *st), (path, st),
        T(const char *, struct stat64 *))
ON_PATH(DIR *, opendir, (const char *path), (path), const char *)
