#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"

static void
fail(const char *what)
{
    printf("Bail out! %s: %s\n", what, strerror(errno));
    exit(99);
}

bool
have_program(const char *name)
{
    char command[128];

    (void)snprintf(command, sizeof command, "command -v %s >/dev/null", name);
    return system(command) == 0;
}

void
server_dir(struct server *s)
{
    if (s->dir[0] != '\0')
        return;
    (void)snprintf(s->dir, sizeof s->dir, "/tmp/tidemark-nbd-XXXXXX");
    if (mkdtemp(s->dir) == NULL)
        fail("mkdtemp");
    (void)snprintf(s->sock, sizeof s->sock, "%s/sock", s->dir);
}

/* Listening is when a connection works; qemu-nbd serves one client only, so
 * connecting to try would use it up. */
static bool
listening(const struct server *s)
{
    CLEANUP_FREE char *line = NULL;
    size_t cap = 0;
    bool found = false;
    FILE *f = fopen("/proc/net/unix", "r");

    if (f == NULL)
        fail("/proc/net/unix");
    while (!found && getline(&line, &cap, f) > 0)
        found = strstr(line, " 00010000 ") && strstr(line, s->sock);
    (void)fclose(f);
    return found;
}

static void
wait_listening(struct server *s)
{
    struct deadline until = deadline_in(PATIENCE_MS);

    while (!listening(s)) {
        if (waitpid(s->pid, NULL, WNOHANG) != 0 || deadline_left(until) == 0)
            fail("the server does not listen");
        (void)poll(NULL, 0, 5);
    }
}

/* A copy of `text` with @SOCK@ and @DIR@ filled in. */
static char *
fill_in(const struct server *s, const char *text)
{
    char *out = calloc(1, 4096), *p = out;

    while (*text) {
        const char *with = NULL;

        if (strncmp(text, "@SOCK@", 6) == 0) {
            with = s->sock;
            text += 6;
        } else if (strncmp(text, "@DIR@", 5) == 0) {
            with = s->dir;
            text += 5;
        }
        if (with != NULL)
            p = stpcpy(p, with);
        else
            *p++ = *text++;
    }
    return out;
}

/* In the child: die with the parent, and keep TAP clean. */
static void
child_set_up(const struct server *s, pid_t parent)
{
    (void)setenv("TMPDIR", s->dir, 1);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(99);
    (void)dup2(STDERR_FILENO, STDOUT_FILENO);
}

void
server_start(struct server *s, const char *const *argv)
{
    pid_t parent = getpid();
    char *args[64];
    size_t n = 0;

    server_dir(s);
    for (; argv[n] != NULL && n < 63; n++)
        args[n] = fill_in(s, argv[n]);
    args[n] = NULL;
    s->pid = fork();
    if (s->pid < 0)
        fail("fork");
    if (s->pid == 0) {
        child_set_up(s, parent);
        (void)execvp(args[0], args);
        _exit(98);
    }
    for (size_t i = 0; i < n; i++)
        free(args[i]);
    s->end_signal = SIGTERM; /* it may have files to remove */
    wait_listening(s);
}

void
server_fork(struct server *s, void (*fn)(int listener, void *arg), void *arg)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    pid_t parent = getpid();
    int fd;

    server_dir(s);
    (void)snprintf(sa.sun_path, sizeof sa.sun_path, "%s", s->sock);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof sa) < 0 ||
        listen(fd, 20) < 0)
        fail("listen");
    (void)fflush(stdout);
    s->pid = fork();
    if (s->pid < 0)
        fail("fork");
    if (s->pid == 0) {
        child_set_up(s, parent);
        fn(fd, arg);
        _exit(0);
    }
    s->end_signal = SIGKILL;
    (void)close(fd);
}

void
server_nbdkit(struct server *s, const char *words)
{
    CLEANUP_FREE char *copy = strdup(words);
    const char *argv[40] = {"nbdkit", "-f", "-U", "@SOCK@"};
    size_t n = 4;

    for (char *w = strtok(copy, " "); w != NULL && n < 39;
         w = strtok(NULL, " "))
        argv[n++] = w;
    server_start(s, argv);
}

void
server_signal(struct server *s, int sig)
{
    struct deadline until = deadline_in(PATIENCE_MS);

    if (s->pid <= 0)
        return;
    (void)kill(s->pid, sig);
    while (sig == SIGSTOP && waitpid(s->pid, NULL, WUNTRACED | WNOHANG) == 0 &&
           deadline_left(until) > 0)
        (void)poll(NULL, 0, 1);
}

void
server_wait_end(struct server *s)
{
    struct deadline until = deadline_in(PATIENCE_MS);

    if (s->pid <= 0)
        return;
    while (waitpid(s->pid, NULL, WNOHANG) == 0) {
        if (deadline_left(until) == 0)
            server_signal(s, SIGKILL);
        (void)poll(NULL, 0, 5);
    }
    s->pid = 0;
}

void
server_stop(struct server *s)
{
    server_signal(s, s->end_signal);
    server_signal(s, SIGCONT);
    server_wait_end(s);
    if (s->dir[0] != '\0') {
        char command[128];

        (void)snprintf(command, sizeof command, "rm -rf -- '%s'", s->dir);
        if (system(command) != 0)
            fail(command);
    }
    *s = (struct server){0};
}

int
run_in(struct server *s, const char *command)
{
    char text[4096];

    server_dir(s);
    (void)snprintf(text, sizeof text, "cd '%s' && { %s; } >&2", s->dir,
                   command);
    return system(text);
}
