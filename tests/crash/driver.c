/* A program to be killed: backups of synthetic machines, without QEMU.
 *
 *     driver [OPTION...] init|check|gc|leftovers REPO
 *     driver [OPTION...] put REPO MACHINE SEED
 *     driver [OPTION...] forget REPO ID...
 *     driver [OPTION...] settle REPO MACHINE SEED
 *
 * `settle` is what has to work after any accident: check, put, check, gc, gc
 * again with nothing left to do, check, leftovers.
 */
#include "driver.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "err.h"
#include "fileops.h"
#include "internal.h"
#include "model.h"

/* -- output -----------------------------------------------------------------*/

void
say(const char *fmt, ...)
{
    char line[2048];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(line, sizeof line - 1, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof line - 1)
        n = (int)sizeof line - 2;
    line[n++] = '\n';
    if (write(STDOUT_FILENO, line, (size_t)n) != n)
        _exit(DRIVER_FAILED);
}

int
driver_error(const struct err *err)
{
    (void)fprintf(stderr, "driver: %s\n", err->msg);
    if (err->code == ERR_EXISTS || err->code == ERR_LOCKED)
        return DRIVER_REFUSED;
    if (err->code == ERR_CORRUPT || err->code == ERR_FORMAT)
        return DRIVER_DAMAGE;
    return DRIVER_FAILED;
}

/* -- file operations --------------------------------------------------------*/

static struct file_ops ops;
static long stop_at;
static atomic_long n_ops;

/* Operations that change something are those at which it matters to stop. */
static void
step(void)
{
    if (atomic_fetch_add(&n_ops, 1) + 1 == stop_at)
        (void)kill(getpid(), SIGSTOP);
}

static int
step_open(const char *path, int flags, mode_t mode)
{
    step();
    return file_ops_system.open(path, flags, mode);
}

static ssize_t
step_pwrite(int fd, const void *buf, size_t len, off_t off)
{
    step();
    return file_ops_system.pwrite(fd, buf, len, off);
}

static int
step_link(const char *from, const char *to)
{
    step();
    return file_ops_system.link(from, to);
}

static int
step_unlink(const char *path)
{
    step();
    return file_ops_system.unlink(path);
}

static int
step_rmdir(const char *path)
{
    step();
    return file_ops_system.rmdir(path);
}

static int
step_stat(const char *path, struct stat *st)
{
    step();
    return file_ops_system.stat(path, st);
}

static int
no_fsync(int fd)
{
    (void)fd;
    return 0;
}

const struct file_ops *
driver_ops(const struct driver_opts *o)
{
    ops = file_ops_system;
    ops.open = step_open;
    ops.pwrite = step_pwrite;
    ops.link = step_link;
    ops.unlink = step_unlink;
    ops.rmdir = step_rmdir;
    ops.stat = step_stat;
    if (o->no_fsync)
        ops.fsync = no_fsync;
    stop_at = o->stop_at;
    return &ops;
}

long
driver_n_ops(void)
{
    return atomic_load(&n_ops);
}

/* -- commands ---------------------------------------------------------------*/

static int
init(const struct driver_opts *o)
{
    struct err err = ERR_INIT;

    if (repo_init(o->repo, MODEL_CHUNK, o->ops, &err) < 0)
        return driver_error(&err);
    say("made");
    return DRIVER_OK;
}

static int
settle(const struct driver_opts *o, const char *machine, uint64_t seed)
{
    int rc = driver_check(o);

    if (rc == 0)
        rc = driver_put(o, machine, seed);
    if (rc == 0)
        rc = driver_gc(o);
    if (rc == 0)
        rc = driver_leftovers(o);
    if (rc == 0)
        rc = driver_check(o);
    if (rc == 0)
        say("settled");
    return rc;
}

static int
usage(void)
{
    (void)fprintf(
        stderr,
        "usage: driver [--full] [--slow MS] [--stop-at N] "
        "[--no-fsync] [--pin] [--fence MS] [--beat MS] COMMAND REPO ...\n");
    return 64;
}

static int
run(const struct driver_opts *o, const char *cmd, int argc, char **argv)
{
    if (strcmp(cmd, "init") == 0 && argc == 0)
        return init(o);
    if (strcmp(cmd, "check") == 0 && argc == 0)
        return driver_check(o);
    if (strcmp(cmd, "gc") == 0 && argc == 0)
        return driver_gc(o);
    if (strcmp(cmd, "leftovers") == 0 && argc == 0)
        return driver_leftovers(o);
    if (strcmp(cmd, "forget") == 0)
        return driver_forget(o, argv, argc);
    if (strcmp(cmd, "put") == 0 && argc == 2)
        return driver_put(o, argv[0], strtoull(argv[1], NULL, 10));
    if (strcmp(cmd, "settle") == 0 && argc == 2)
        return settle(o, argv[0], strtoull(argv[1], NULL, 10));
    return usage();
}

int
main(int argc, char **argv)
{
    static const struct option options[] = {
        {"full", no_argument, NULL, 'f'},
        {"slow", required_argument, NULL, 's'},
        {"stop-at", required_argument, NULL, 't'},
        {"no-fsync", no_argument, NULL, 'n'},
        {"pin", no_argument, NULL, 'p'},
        {"fence", required_argument, NULL, 'F'},
        {"beat", required_argument, NULL, 'b'},
        {NULL, 0, NULL, 0},
    };
    struct driver_opts o = {0};
    int c, rc;

    while ((c = getopt_long(argc, argv, "+", options, NULL)) != -1) {
        if (c == 'f')
            o.full = true;
        else if (c == 's')
            o.slow_ms = (unsigned)strtoul(optarg, NULL, 10);
        else if (c == 't')
            o.stop_at = strtol(optarg, NULL, 10);
        else if (c == 'n')
            o.no_fsync = true;
        else if (c == 'p')
            o.pin = true;
        else if (c == 'b')
            repo_beat_ns = strtoull(optarg, NULL, 10) * 1000000;
        else if (c == 'F')
            o.fence_ms = strtoull(optarg, NULL, 10);
        else
            return usage();
    }
    if (argc - optind < 2)
        return usage();
    o.ops = driver_ops(&o);
    o.repo = argv[optind + 1];
    rc = run(&o, argv[optind], argc - optind - 2, argv + optind + 2);
    say("operations %ld", driver_n_ops());
    return rc;
}
