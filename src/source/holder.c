#include "holder.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"
#include "clock.h"
#include "daemon.h"
#include "err.h"
#include "io.h"
#include "log.h"

#define LOCK_USED 100
#define LOCK_SHUT 200
#define PERM_WRITE 1
#define PERM_RESIZE 3

#define DEAD_MS 30000u /* for a dead run's daemon to store its bitmaps */
#define POLL_MS 50
#define CMDLINE_MAX (1u << 20)

DEFINE_CLEANUP(DIR *, closedir)

struct holder {
    int pid; /* 0: not found */
    bool writes;
    char comm[32];
    struct buf words; /* command line */
};

/* -- the lock bytes ---------------------------------------------------------*/

static bool
byte_locked(int fd, off_t byte)
{
    struct flock l = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

    return fcntl(fd, F_OFD_GETLK, &l) == 0 && l.l_type != F_UNLCK;
}

static bool
locked(int fd, bool write)
{
    if (byte_locked(fd, LOCK_USED + PERM_WRITE) ||
        byte_locked(fd, LOCK_USED + PERM_RESIZE))
        return true;
    return write && (byte_locked(fd, LOCK_SHUT + PERM_WRITE) ||
                     byte_locked(fd, LOCK_SHUT + PERM_RESIZE));
}

/* "Others must not write or resize."  A file system without such locks has no
 * protection to offer, to QEMU neither. */
static void
shut(int fd)
{
    static const int perms[] = {PERM_WRITE, PERM_RESIZE};

    for (size_t i = 0; i < ARRAY_SIZE(perms); i++) {
        struct flock l = {.l_type = F_RDLCK,
                          .l_whence = SEEK_SET,
                          .l_start = LOCK_SHUT + perms[i],
                          .l_len = 1};

        if (fcntl(fd, F_OFD_SETLK, &l) < 0)
            log_debug("image lock: %s", strerror(errno));
    }
}

/* -- who ------------------------------------------------------------------- */

/* Without asking the server of a network file system, which may be gone: it is
 * anybody's descriptors that we look at. */
static bool
is_image(const struct stat *image, int dir, const char *fd)
{
    struct statx x;

    if (statx(dir, fd, AT_STATX_DONT_SYNC, STATX_TYPE | STATX_INO, &x) < 0)
        return false;
    if (S_ISBLK(image->st_mode))
        return S_ISBLK(x.stx_mode) &&
               makedev(x.stx_rdev_major, x.stx_rdev_minor) == image->st_rdev;
    return makedev(x.stx_dev_major, x.stx_dev_minor) == image->st_dev &&
           x.stx_ino == image->st_ino;
}

static bool
opened_for_writing(int pid, const char *fd)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    char path[64];
    const char *flags;

    (void)snprintf(path, sizeof path, "/proc/%d/fdinfo/%.20s", pid, fd);
    if (io_read_file(path, CMDLINE_MAX, &b, NULL) < 0 || buf_str(&b) == NULL)
        return false;
    flags = strstr(buf_str(&b), "flags:");
    return flags != NULL &&
           (strtoul(flags + strlen("flags:"), NULL, 8) & O_ACCMODE) != O_RDONLY;
}

/* 0: not open; 1: open; 2: open for writing. */
static int
has_open(int pid, const struct stat *image)
{
    char path[64];
    CLEANUP(closedirp) DIR *d = NULL;
    struct dirent *e;
    int found = 0;

    (void)snprintf(path, sizeof path, "/proc/%d/fd", pid);
    d = opendir(path);
    while (d != NULL && found < 2 && (e = readdir(d)) != NULL) {
        if (!is_image(image, dirfd(d), e->d_name))
            continue;
        found = opened_for_writing(pid, e->d_name) ? 2 : 1;
    }
    return found;
}

static void
describe(struct holder *h, int pid)
{
    CLEANUP(buf_done) struct buf comm = BUF_INIT;
    char path[64];

    buf_done(&h->words);
    h->words = (struct buf)BUF_INIT;
    h->pid = pid;
    (void)snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
    (void)io_read_file(path, CMDLINE_MAX, &h->words, NULL);
    (void)snprintf(path, sizeof path, "/proc/%d/comm", pid);
    h->comm[0] = '\0';
    if (io_read_file(path, 256, &comm, NULL) == 0 && buf_str(&comm) != NULL)
        (void)snprintf(h->comm, sizeof h->comm, "%.*s",
                       (int)strcspn(buf_str(&comm), "\n"), buf_str(&comm));
}

/* A process that has the image open; one that may write comes first. */
static void
find(const struct stat *image, struct holder *h)
{
    CLEANUP(closedirp) DIR *proc = opendir("/proc");
    struct dirent *e;

    while (proc != NULL && !h->writes && (e = readdir(proc)) != NULL) {
        int pid = isdigit((unsigned char)e->d_name[0]) ? atoi(e->d_name) : 0;
        int how = pid > 0 && pid != getpid() ? has_open(pid, image) : 0;

        if (how == 0 || (how == 1 && h->pid != 0))
            continue;
        h->writes = how == 2;
        describe(h, pid);
    }
}

static bool
is_qemu(const struct holder *h)
{
    return strncmp(h->comm, "qemu-system", 11) == 0 ||
           strncmp(h->comm, "qemu-kvm", 8) == 0 || strcmp(h->comm, "kvm") == 0;
}

static bool
is_daemon(const struct holder *h)
{
    return strncmp(h->comm, "qemu-storage-da", 15) == 0;
}

/* The storage daemon of a run under this directory: we hold the image's lock
 * there, so its run is dead and it is about to end. */
static bool
is_dead_run(const struct holder *h, const char *run_base)
{
    return run_base != NULL && is_daemon(h) &&
           memmem(h->words.data, h->words.len, run_base, strlen(run_base)) &&
           memmem(h->words.data, h->words.len, "/" DAEMON_SOCKET,
                  strlen("/" DAEMON_SOCKET));
}

static int
tell(const char *path, const struct holder *h, struct err *err)
{
    CLEANUP_FREE char *qmp =
        h->words.len > 0 ? holder_qmp((const char *)h->words.data, h->words.len)
                         : NULL;

    if (h->pid == 0)
        return err_set(err, ERR_LOCKED,
                       "image '%s' is in use by another process that cannot be "
                       "seen from here; if its machine runs, back it up over "
                       "its QMP socket as qmp:/path.sock",
                       path);
    if (is_qemu(h) && qmp != NULL)
        return err_set(err, ERR_LOCKED,
                       "image '%s' is in use by QEMU (pid %d): the machine "
                       "runs; back it up as qmp:%s",
                       path, h->pid, qmp);
    if (is_qemu(h))
        return err_set(err, ERR_LOCKED,
                       "image '%s' is in use by QEMU (pid %d): the machine "
                       "runs; back it up over its QMP socket as "
                       "qmp:/path.sock",
                       path, h->pid);
    return err_set(err, ERR_LOCKED,
                   "image '%s' is in use by '%s' (pid %d)%s; wait until that "
                   "has ended",
                   path, h->comm, h->pid,
                   is_daemon(h) ? ", perhaps of another backup" : "");
}

/* Locked, or without locks (locking=off) written to by a QEMU.  0: free; 1: a
 * dead run has it; -1. */
static int
look(const char *path, int fd, bool write, const char *run_base,
     struct err *err)
{
    struct holder h = {.words = BUF_INIT};
    bool busy = locked(fd, write);
    struct stat st;
    int r = 0;

    if (fstat(fd, &st) < 0)
        return err_set_errno(err, errno, "image '%s'", path);
    find(&st, &h);
    if (busy || (h.writes && (is_qemu(&h) || is_daemon(&h))))
        r = is_dead_run(&h, run_base) ? 1 : tell(path, &h, err);
    buf_done(&h.words);
    return r;
}

int
holder_check(const char *path, bool write, const char *run_base, int *ret_fd,
             struct err *err)
{
    struct deadline until = deadline_in(DEAD_MS);
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int r;

    if (fd < 0)
        return err_set_errno(err, errno, "open image '%s'", path);
    if (!write)
        shut(fd);
    while ((r = look(path, fd, write, run_base, err)) == 1) {
        if (deadline_left(until) == 0)
            return err_set(err, ERR_LOCKED,
                           "image '%s' is still held by the storage daemon of "
                           "a run that was killed; end that process",
                           path);
        (void)poll(NULL, 0, POLL_MS);
    }
    if (r < 0)
        return -1;
    *ret_fd = TAKE_FD(fd);
    return 0;
}
