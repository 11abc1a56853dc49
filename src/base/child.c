#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"
#include "clock.h"
#include "err.h"
#include "io.h"

#define ARGS_MAX 32
#define LAST_WORDS 300 /* bytes of output that fit into an error */

/* The absolute path of a program in PATH; the caller frees it. */
static char *
find_program(const char *name)
{
    const char *path = getenv("PATH");

    if (strchr(name, '/') != NULL)
        return access(name, X_OK) == 0 ? strdup(name) : NULL;
    if (path == NULL || path[0] == '\0')
        path = "/usr/local/bin:/usr/bin:/bin";
    while (*path != '\0') {
        int len = (int)strcspn(path, ":");
        char *file = NULL;

        if (len > 0 && asprintf(&file, "%.*s/%s", len, path, name) >= 0) {
            if (access(file, X_OK) == 0)
                return file;
            free(file);
        }
        path += (size_t)len + (path[len] == ':');
    }
    return NULL;
}

/* In the child: only async-signal-safe calls, for the parent may have threads. */
static void __attribute__((noreturn))
run_program(const char *path, char *const *args, int log_fd, pid_t parent,
            int death_signal)
{
    static const char words[] = "cannot be executed\n";
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    sigset_t none;

    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGPIPE, SIG_DFL);
    /* Its own group: Ctrl-C is for us, who then end it in order. */
    (void)setpgid(0, 0);
    if (prctl(PR_SET_PDEATHSIG, death_signal) != 0 || getppid() != parent)
        _exit(126);
    if (null < 0 || dup2(null, 0) < 0 || dup2(log_fd, 1) < 0 ||
        dup2(log_fd, 2) < 0)
        _exit(126);
    (void)close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
    (void)execv(path, args);
    (void)!write(2, words, sizeof words - 1);
    _exit(127);
}

int
child_start(const char *const *argv, struct child *ret, struct err *err)
{
    return child_start_signal(argv, SIGKILL, ret, err);
}

int
child_start_signal(const char *const *argv, int death_signal, struct child *ret,
                   struct err *err)
{
    struct child c = CHILD_INIT;
    CLEANUP_FREE char *path = find_program(argv[0]);
    char *args[ARGS_MAX] = {0};
    pid_t parent = getpid();
    size_t n = 0;

    (void)snprintf(c.name, sizeof c.name, "%s", argv[0]);
    if (path == NULL)
        return err_set(err, ERR_NOT_FOUND,
                       "program '%s' is not %s: install QEMU's tools", argv[0],
                       strchr(argv[0], '/') != NULL ? "there" : "in PATH");
    while (argv[n] != NULL)
        n++;
    if (n >= ARGS_MAX)
        return err_set(err, ERR_USAGE, "too many arguments for '%s'", argv[0]);
    memcpy(args, argv, n * sizeof *args);
    c.log_fd = memfd_create("child", MFD_CLOEXEC);
    if (c.log_fd < 0)
        return err_set_errno(err, errno, "start '%s'", argv[0]);
    c.pid = fork();
    if (c.pid == 0)
        run_program(path, args, c.log_fd, parent, death_signal);
    if (c.pid < 0)
        (void)err_set_errno(err, errno, "start '%s'", argv[0]);
    else if ((c.pid_fd = pidfd_open(c.pid, 0)) < 0)
        (void)err_set_errno(err, errno, "watch '%s'", argv[0]);
    if (c.pid_fd < 0) {
        child_done(&c);
        return -1;
    }
    *ret = c;
    return 0;
}

bool
child_ended(const struct child *c, unsigned timeout_ms)
{
    struct deadline d = deadline_in(timeout_ms);
    struct pollfd p = {.fd = c->pid_fd, .events = POLLIN};

    for (;;) {
        int r = poll(&p, 1, deadline_left(d));

        if (r >= 0 || errno != EINTR)
            return r > 0;
    }
}

/* The end of its output on one line, "" without any. */
static void
last_words(const struct child *c, char *text, size_t size)
{
    off_t end = lseek(c->log_fd, 0, SEEK_END);
    off_t start = end > (off_t)size - 1 ? end - ((off_t)size - 1) : 0;
    ssize_t n = end <= 0
                    ? 0
                    : io_pread_full(c->log_fd, text, size - 1, (uint64_t)start);

    n = n < 0 ? 0 : n;
    while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == ' '))
        n--;
    text[n] = '\0';
    for (ssize_t i = 0; i < n; i++)
        if ((unsigned char)text[i] < 0x20)
            text[i] = ' ';
}

static int
reap(struct child *c)
{
    int status = 0;
    pid_t r;

    do
        r = waitpid(c->pid, &status, 0);
    while (r < 0 && errno == EINTR);
    c->pid = 0;
    return r < 0 ? -1 : status;
}

int
child_wait(struct child *c, unsigned timeout_ms, struct err *err)
{
    char words[LAST_WORDS];
    int status;

    if (c->pid == 0)
        return err_set(err, ERR_CLOSED, "'%s' does not run", c->name);
    if (!child_ended(c, timeout_ms)) {
        child_done(c);
        return err_set(err, ERR_TIMEOUT,
                       "'%s' did not end within %u s and was killed", c->name,
                       timeout_ms / 1000);
    }
    status = reap(c);
    if (status == 0)
        return 0;
    last_words(c, words, sizeof words);
    if (status > 0 && WIFSIGNALED(status))
        return err_set(err, ERR_REMOTE, "'%s' was ended by signal %d%s%s",
                       c->name, WTERMSIG(status), words[0] ? ": " : "", words);
    return err_set(err, ERR_REMOTE, "'%s' failed with status %d%s%s", c->name,
                   status > 0 ? WEXITSTATUS(status) : -1, words[0] ? ": " : "",
                   words);
}

int
child_stop(struct child *c, unsigned timeout_ms, struct err *err)
{
    if (c->pid > 0)
        (void)kill(c->pid, SIGTERM);
    return child_wait(c, timeout_ms, err);
}

void
child_done(struct child *c)
{
    if (c->pid > 0) {
        (void)kill(c->pid, SIGKILL);
        (void)reap(c);
    }
    if (c->pid_fd >= 0)
        (void)close(c->pid_fd);
    if (c->log_fd >= 0)
        (void)close(c->log_fd);
    *c = (struct child)CHILD_INIT;
}
