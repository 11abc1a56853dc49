#include "rundir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"
#include "err.h"
#include "io.h"
#include "jv.h"
#include "log.h"
#include "rand.h"

#define PREFIX "tidemark-"
#define JOURNAL_MAX 65536
#define SERVER_MS 2000

struct rundir {
    char *base;     /* the run directory of this host */
    char *sockets;  /* <base>/<id>, or NULL */
    char *scratch;  /* <scratch>/tidemark-<id>, or NULL */
    int lock_fd;    /* the machine's lock and journal */
    int scratch_fd; /* lock of the scratch directory, or -1 */
    int pid_fd;     /* lock of the QEMU process, or -1 */
    char *pid_path;
    struct jv *dead;    /* journal of a dead run, or NULL */
    struct jv *journal; /* ours */
    char id[RUN_ID_LEN + 1];
};

DEFINE_CLEANUP(DIR *, closedir)

const char *
rundir_default(const char *option)
{
    static char path[PATH_MAX];
    const char *env = getenv("TIDEMARK_RUN_DIR");

    if (option != NULL)
        return option;
    if (env != NULL && env[0] == '/')
        return env;
    if (geteuid() == 0)
        return "/run/tidemark";
    env = getenv("XDG_RUNTIME_DIR");
    if (env != NULL && env[0] == '/')
        (void)snprintf(path, sizeof path, "%s/tidemark", env);
    else
        (void)snprintf(path, sizeof path, "/tmp/tidemark-%u", geteuid());
    return path;
}

const char *
rundir_scratch_default(const char *option)
{
    const char *env = getenv("TIDEMARK_SCRATCH");

    if (option != NULL)
        return option;
    return env != NULL && env[0] == '/' ? env : "/var/tmp";
}

/* FNV-1a, 64 bit: only a file name for a path, nothing depends on its being
 * hard to collide but that two machines would share a lock. */
static uint64_t
path_key(const char *path)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);

    for (; *path != '\0'; path++)
        h = (h ^ (uint8_t)*path) * UINT64_C(0x100000001b3);
    return h;
}

/* Ours, a directory, and nobody else may write: what lies in it decides what
 * we remove. */
static int
check_private(const char *path, struct err *err)
{
    struct stat st;

    if (lstat(path, &st) < 0)
        return err_set_errno(err, errno, "run directory '%s'", path);
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() ||
        (st.st_mode & 022) != 0)
        return err_set(err, ERR_SYSTEM,
                       "run directory '%s' must be a directory of uid %u that "
                       "nobody else can write; remove it or set "
                       "TIDEMARK_RUN_DIR",
                       path, geteuid());
    return 0;
}

static int
make_base(const char *path, struct err *err)
{
    if (mkdir(path, 0711) < 0 && errno != EEXIST)
        return err_set_errno(err, errno, "make run directory '%s'", path);
    if (check_private(path, err) < 0)
        return -1;
    /* QEMU under another user passes through to its socket's directory. */
    if (chmod(path, 0711) < 0)
        return err_set_errno(err, errno, "run directory '%s'", path);
    return 0;
}

static struct jv *
read_journal(int fd)
{
    static char text[JOURNAL_MAX];
    struct jv *j = NULL;
    ssize_t n = io_pread_full(fd, text, sizeof text, 0);

    if (n <= 0)
        return NULL;
    if (jv_parse(text, (size_t)n, 8, &j, NULL) < 0)
        return jv_object(); /* torn by a kill: a dead run, nothing known */
    return j;
}

/* One write over what is there: a kill in the middle must not lose the facts
 * that stand in it.  White space covers the end of a longer one. */
static int
write_journal(struct rundir *r, struct err *err)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    CLEANUP_FREE char *text = jv_text(r->journal, true);
    struct stat st;

    if (text == NULL)
        return err_set_errno(err, ENOMEM, "journal of this run");
    if (fstat(r->lock_fd, &st) < 0)
        return err_set_errno(err, errno, "journal in '%s'", r->base);
    if (buf_append(&b, text, strlen(text), err) < 0)
        return -1;
    while (b.len < (size_t)st.st_size)
        if (buf_append(&b, "\n", 1, err) < 0)
            return -1;
    if (io_pwrite_full(r->lock_fd, b.data, b.len, 0) < 0)
        return err_set_errno(err, errno, "write the journal in '%s'", r->base);
    return 0;
}

static int
take_lock(struct rundir *r, const char *qmp_path, struct err *err)
{
    CLEANUP_FREE char *real = realpath(qmp_path, NULL);
    CLEANUP_FREE char *path = NULL;

    if (asprintf(&path, "%s/%016" PRIx64 ".lock", r->base,
                 path_key(real != NULL ? real : qmp_path)) < 0)
        return err_set_errno(err, ENOMEM, "lock path");
    r->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (r->lock_fd < 0)
        return err_set_errno(err, errno, "open lock file '%s'", path);
    if (flock(r->lock_fd, LOCK_EX | LOCK_NB) < 0) {
        CLEANUP_JV struct jv *other = NULL;
        int64_t pid = 0;

        if (errno != EWOULDBLOCK)
            return err_set_errno(err, errno, "lock '%s'", path);
        other = read_journal(r->lock_fd);
        (void)jv_get_int(other, "pid", &pid);
        if (pid <= 0) /* has the lock, and has not written its journal yet */
            return err_set(err, ERR_LOCKED,
                           "another run is working on the machine at '%s'; "
                           "wait for it to end",
                           qmp_path);
        return err_set(err, ERR_LOCKED,
                       "another run (pid %" PRId64
                       ") is working on the machine at '%s'; wait for it to "
                       "end",
                       pid, qmp_path);
    }
    r->dead = read_journal(r->lock_fd);
    return 0;
}

int
rundir_lock_process(struct rundir *r, int pid, struct err *err)
{
    if (pid <= 0)
        return 0;
    if (asprintf(&r->pid_path, "%s/pid-%d.lock", r->base, pid) < 0) {
        r->pid_path = NULL;
        return err_set_errno(err, ENOMEM, "lock path");
    }
    r->pid_fd =
        open(r->pid_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (r->pid_fd < 0)
        return err_set_errno(err, errno, "open lock file '%s'", r->pid_path);
    if (flock(r->pid_fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    (void)close(TAKE_FD(r->pid_fd)); /* and leave the owner its file */
    return err_set(err, ERR_LOCKED,
                   "another run is working on this machine (QEMU process %d) "
                   "over another QMP socket; wait for it to end",
                   pid);
}

int
rundir_open(const char *run_dir, const char *qmp_path, struct rundir **ret,
            struct err *err)
{
    struct rundir *r = calloc(1, sizeof *r);
    uint8_t id[RUN_ID_LEN / 2];

    if (r == NULL)
        return err_set_errno(err, ENOMEM, "run directory");
    r->lock_fd = r->scratch_fd = r->pid_fd = -1;
    rand_bytes(id, sizeof id);
    hex_encode(id, sizeof id, r->id);
    r->base = strdup(rundir_default(run_dir));
    r->journal = jv_build("{s:s, s:I, s:s}", "run", r->id, "pid",
                          (int64_t)getpid(), "qmp", qmp_path);
    if (r->base == NULL || r->journal == NULL || make_base(r->base, err) < 0 ||
        take_lock(r, qmp_path, err) < 0) {
        rundir_close(r, false);
        return err_set_errno(err, ENOMEM, "run directory");
    }
    *ret = r;
    return 0;
}

/* Through a descriptor that does not follow a link: scratch areas are often
 * world-writable. */
static void
remove_tree(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    CLEANUP(closedirp) DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *e;

    while (d != NULL && (e = readdir(d)) != NULL)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            (void)unlinkat(dirfd(d), e->d_name, 0);
    (void)rmdir(path);
}

void
rundir_close(struct rundir *r, bool clean)
{
    if (r == NULL)
        return;
    rundir_scratch_end(r);
    if (clean && r->sockets != NULL)
        remove_tree(r->sockets);
    if (clean && r->dead == NULL && r->lock_fd >= 0)
        (void)!ftruncate(r->lock_fd, 0);
    if (r->lock_fd >= 0)
        (void)close(r->lock_fd);
    if (r->pid_fd >= 0) {
        (void)unlink(r->pid_path);
        (void)close(r->pid_fd);
    }
    free(r->pid_path);
    jv_free(r->dead);
    jv_free(r->journal);
    free(r->base);
    free(r->sockets);
    free(r);
}

void
rundir_recovered(struct rundir *r)
{
    jv_free(TAKE_PTR(r->dead));
}

const char *
rundir_id(const struct rundir *r)
{
    return r->id;
}

const struct jv *
rundir_dead(const struct rundir *r)
{
    return r->dead;
}

static bool
is_run_id(const char *text)
{
    uint8_t id[RUN_ID_LEN / 2];

    return hex_decode(text, id, sizeof id);
}

int
rundir_adopt(struct rundir *r, const char **ret_dir, struct err *err)
{
    const char *id = jv_get_str(r->dead, "run");
    const char *scratch = jv_get_str(r->dead, "scratch");
    const char *sockets = jv_get_str(r->dead, "sockets");
    CLEANUP_CLOSE int fd = -1;

    if (id == NULL || !is_run_id(id) || scratch == NULL || sockets == NULL)
        return err_set(err, ERR_NOT_FOUND,
                       "the journal of the dead run cannot be read");
    fd = open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
        return err_set_errno(err, errno, "lock scratch directory '%s'",
                             scratch);
    r->scratch = strdup(scratch);
    r->sockets = strdup(sockets);
    if (r->scratch == NULL || r->sockets == NULL ||
        jv_set_int(r->dead, "pid", getpid()) < 0)
        return err_set_errno(err, ENOMEM, "run directory");
    memcpy(r->id, id, sizeof r->id);
    r->scratch_fd = TAKE_FD(fd);
    jv_free(r->journal);
    r->journal = TAKE_PTR(r->dead);
    *ret_dir = r->scratch;
    return write_journal(r, err);
}

void
rundir_hold(struct rundir *r)
{
    free(TAKE_PTR(r->scratch)); /* the directory stays, its lock goes */
}

int
rundir_note(struct rundir *r, const char *key, const char *value,
            struct err *err)
{
    if (jv_set_str(r->journal, key, value) < 0)
        return err_set_errno(err, ENOMEM, "journal of this run");
    return write_journal(r, err);
}

/* A fresh directory that only we and QEMU's user can enter. */
__attribute__((nonnull(1))) static int
make_private(const char *path, unsigned uid, unsigned gid, struct err *err)
{
    if (mkdir(path, 0700) < 0)
        return err_set_errno(err, errno, "make directory '%s'", path);
    if (uid != geteuid() && chown(path, uid, gid) < 0) {
        (void)err_set_errno(err, errno,
                            "give '%s' to QEMU's user %u; run as root or as "
                            "that user",
                            path, uid);
        (void)rmdir(path);
        return -1;
    }
    return 0;
}

int
rundir_sockets(struct rundir *r, unsigned uid, unsigned gid,
               const char **ret_dir, struct err *err)
{
    CLEANUP_FREE char *path = NULL;

    if (asprintf(&path, "%s/%s", r->base, r->id) < 0)
        return err_set_errno(err, ENOMEM, "socket directory");
    if (rundir_note(r, "sockets", path, err) < 0 ||
        make_private(path, uid, gid, err) < 0)
        return -1;
    r->sockets = TAKE_PTR(path);
    *ret_dir = r->sockets;
    return 0;
}

int
rundir_scratch(struct rundir *r, const char *scratch, unsigned uid,
               const char **ret_dir, struct err *err)
{
    CLEANUP_FREE char *path = NULL;
    CLEANUP_FREE char *fresh = NULL;

    /* Locked under a name that no sweep looks at, then renamed: nobody can
     * take it for a dead run's in between. */
    if (asprintf(&path, "%s/" PREFIX "%s", scratch, r->id) < 0 ||
        asprintf(&fresh, "%s/." PREFIX "%s", scratch, r->id) < 0)
        return err_set_errno(err, ENOMEM, "scratch directory");
    if (rundir_note(r, "scratch", path, err) < 0 ||
        make_private(fresh, geteuid(), getegid(), err) < 0)
        return err_wrap(err, "scratch area '%s'", scratch);
    /* QEMU's user passes through to its files.  It does not own the directory:
     * in a sticky area it could put a link in its place, and we, perhaps root,
     * would make files behind it. */
    if (uid != geteuid() && chmod(fresh, 0711) < 0) {
        (void)err_set_errno(err, errno, "scratch directory '%s'", fresh);
        (void)rmdir(fresh);
        return -1;
    }
    r->scratch_fd = open(fresh, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r->scratch_fd < 0 || flock(r->scratch_fd, LOCK_EX | LOCK_NB) < 0 ||
        rename(fresh, path) < 0) {
        (void)err_set_errno(err, errno, "lock scratch directory '%s'", path);
        (void)rmdir(fresh);
        return -1;
    }
    r->scratch = TAKE_PTR(path);
    *ret_dir = r->scratch;
    return 0;
}

void
rundir_scratch_end(struct rundir *r)
{
    if (r->scratch != NULL)
        remove_tree(r->scratch);
    if (r->scratch_fd >= 0)
        (void)close(r->scratch_fd);
    r->scratch_fd = -1;
    free(r->scratch);
    r->scratch = NULL;
}

/* The journal `name` is of a run that has this scratch directory, and the machine's
 * QEMU still serves what that run exported. */
static bool
holds(const struct rundir *r, const char *name, const char *scratch)
{
    CLEANUP_FREE char *path = NULL;
    CLEANUP_CLOSE int fd = -1;
    CLEANUP_CLOSE int server = -1;
    CLEANUP_JV struct jv *j = NULL;
    const char *other;

    if (asprintf(&path, "%s/%s", r->base, name) < 0) {
        path = NULL;
        return true;
    }
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return false;
    j = read_journal(fd);
    other = jv_get_str(j, "scratch");
    if (other == NULL || strcmp(other, scratch) != 0 ||
        jv_get_str(j, "nbd") == NULL)
        return false;
    server = io_connect_unix(jv_get_str(j, "nbd"), SERVER_MS, NULL);
    return server >= 0;
}

/* An instant that stands in QEMU without a run can be taken over (rundir_adopt());
 * only a run on that machine may end it. */
static bool
stands(const struct rundir *r, const char *scratch)
{
    CLEANUP(closedirp) DIR *d = opendir(r->base);
    struct dirent *e;

    while (d != NULL && (e = readdir(d)) != NULL) {
        size_t len = strlen(e->d_name);

        if (len > strlen(".lock") &&
            strcmp(e->d_name + len - strlen(".lock"), ".lock") == 0 &&
            holds(r, e->d_name, scratch))
            return true;
    }
    return false;
}

static void
sweep_one(const struct rundir *r, const char *path, struct jv *done)
{
    CLEANUP_CLOSE int fd =
        open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    CLEANUP_FREE char *text = NULL;

    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
        return; /* its run lives */
    if (stands(r, path))
        return;
    remove_tree(path);
    log_debug("removed '%s' of a dead run", path);
    if (asprintf(&text, "removed '%s'", path) >= 0)
        (void)jv_add(done, jv_string(text));
}

/* Socket directories carry no lock of their own: they belong to the machine
 * whose lock we hold, by the journal of its dead run. */
static void
sweep_sockets(struct rundir *r)
{
    const char *path = jv_get_str(r->dead, "sockets");
    const char *name = path != NULL ? strrchr(path, '/') : NULL;

    if (name != NULL && is_run_id(name + 1) &&
        strncmp(path, r->base, strlen(r->base)) == 0)
        remove_tree(path);
}

/* Killed before its directory `path` had got its name: it is empty. */
static void
remove_unlocked(const char *path)
{
    CLEANUP_FREE char *fresh = NULL;
    int dir = (int)(strrchr(path, '/') - path);

    if (asprintf(&fresh, "%.*s/.%s", dir, path, path + dir + 1) >= 0)
        (void)rmdir(fresh);
}

void
rundir_sweep(struct rundir *r, const char *scratch, struct jv *done)
{
    CLEANUP(closedirp) DIR *d = opendir(scratch);
    const char *dead = jv_get_str(r->dead, "scratch");
    struct dirent *e;

    sweep_sockets(r);
    while (d != NULL && (e = readdir(d)) != NULL) {
        CLEANUP_FREE char *path = NULL;

        if (strncmp(e->d_name, PREFIX, strlen(PREFIX)) != 0 ||
            !is_run_id(e->d_name + strlen(PREFIX)))
            continue;
        if (asprintf(&path, "%s/%s", scratch, e->d_name) >= 0)
            sweep_one(r, path, done);
    }
    /* The dead run may have used another scratch area than this one. */
    if (dead != NULL && strstr(dead, "/" PREFIX) != NULL) {
        sweep_one(r, dead, done);
        remove_unlocked(dead);
    }
}
