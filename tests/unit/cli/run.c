#include "run.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"

#define ARGS_MAX 64
#define RUN_TIMEOUT_MS 30000u

static void
die(const char *what)
{
    printf("Bail out! %s: %s\n", what, strerror(errno));
    exit(1);
}

static void
child(struct run *r, char **args, int out, int err, const char *state)
{
    const char *program = getenv("TIDEMARK_FAKE");

    (void)clearenv();
    (void)setenv("LC_ALL", "C.UTF-8", 1);
    (void)setenv("TIDEMARK_RUN_DIR", "/run/test", 1);
    (void)setenv("TIDEMARK_STATE", state, 1);
    for (const char *const *e = r->env; e != NULL && *e != NULL; e++)
        (void)putenv(strdup(*e));
    if (dup2(out, STDOUT_FILENO) < 0 || dup2(err, STDERR_FILENO) < 0)
        _exit(127);
    (void)execv(program != NULL ? program : "./tidemark-fake", args);
    _exit(127);
}

void
run_start(struct run *r, const char *line)
{
    static char words[4096];
    char *args[ARGS_MAX + 2] = {NULL}, *rest = words;
    const char *state = run_dir(); /* its end is this process's business */
    struct winsize ws = {.ws_row = 25, .ws_col = 100};
    int slave = -1;
    size_t n = 0;

    (void)snprintf(words, sizeof words, "tidemark %s", line);
    while (rest != NULL && n < ARGS_MAX)
        args[n++] = strsep(&rest, " ");
    if (*line == '\0')
        args[1] = NULL;
    r->out_fd = r->out_file ? open(r->out_file, O_WRONLY | O_CLOEXEC)
                            : memfd_create("out", MFD_CLOEXEC);
    if (r->terminal) {
        if (openpty(&r->err_fd, &slave, NULL, NULL, &ws) != 0)
            die("openpty");
    } else {
        slave = r->err_fd = memfd_create("err", MFD_CLOEXEC);
    }
    if (r->out_fd < 0 || slave < 0)
        die("memfd_create");
    (void)fflush(stdout);
    r->pid = fork();
    if (r->pid < 0)
        die("fork");
    if (r->pid == 0)
        child(r, args, r->out_fd, slave, state);
    if (r->terminal)
        (void)close(slave);
}

static char *
slurp_file(int fd)
{
    char *buf = calloc(1, RUN_OUTPUT_MAX);
    ssize_t n;

    if (buf == NULL)
        die("calloc");
    n = pread(fd, buf, RUN_OUTPUT_MAX - 1, 0);
    buf[n > 0 ? n : 0] = '\0';
    return buf;
}

/* A terminal ends with EIO when the last writer is gone. */
static char *
slurp_terminal(int fd)
{
    char *buf = calloc(1, RUN_OUTPUT_MAX);
    struct deadline d = deadline_in(RUN_TIMEOUT_MS);
    size_t len = 0;

    if (buf == NULL)
        die("calloc");
    while (len < RUN_OUTPUT_MAX - 1 && deadline_left(d) > 0) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        ssize_t n = 0;

        if (poll(&p, 1, deadline_left(d)) > 0)
            n = read(fd, buf + len, RUN_OUTPUT_MAX - 1 - len);
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    return buf;
}

void
run_wait(struct run *r)
{
    struct deadline d = deadline_in(RUN_TIMEOUT_MS);
    pid_t got = 0;
    int st = 0;

    if (r->terminal)
        r->err = slurp_terminal(r->err_fd);
    while (got == 0 && deadline_left(d) > 0) {
        got = waitpid(r->pid, &st, WNOHANG);
        if (got == 0)
            (void)poll(NULL, 0, 2);
    }
    if (got == 0) {
        (void)kill(r->pid, SIGKILL);
        (void)waitpid(r->pid, &st, 0);
    }
    r->status = WIFEXITED(st) ? WEXITSTATUS(st) : 128 + WTERMSIG(st);
    if (!r->terminal)
        r->err = slurp_file(r->err_fd);
    r->out = r->out_file ? strdup("") : slurp_file(r->out_fd);
    (void)close(r->out_fd);
    (void)close(r->err_fd);
}

void
run_done(struct run *r)
{
    free(r->out);
    free(r->err);
    *r = (struct run)RUN_INIT;
}

void
run_line(struct run *r, const char *line, const char *env)
{
    const char *const list[] = {env, NULL};

    if (env != NULL)
        r->env = list;
    run_start(r, line);
    run_wait(r);
    if (env != NULL)
        r->env = NULL;
}

static char dir[64];

static void
remove_dir(void)
{
    DIR *d = opendir(dir);
    struct dirent *e;

    while (d != NULL && (e = readdir(d)) != NULL)
        if (e->d_name[0] != '.')
            (void)unlinkat(dirfd(d), e->d_name, 0);
    if (d != NULL)
        (void)closedir(d);
    (void)rmdir(dir);
}

const char *
run_dir(void)
{
    if (dir[0] == '\0') {
        (void)snprintf(dir, sizeof dir, "/tmp/tidemark-cli-XXXXXX");
        if (mkdtemp(dir) == NULL)
            die("mkdtemp");
        (void)atexit(remove_dir);
    }
    return dir;
}
