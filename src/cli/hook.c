#include "hook.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "err.h"

#define TICK_MS 200    /* how long a signal between check and poll may wait */
#define GRACE_MS 5000u /* from SIGTERM to SIGKILL */

/* -- starting ---------------------------------------------------------------*/

/* Our environment and then the hook's: names that are in both count as the last
 * one says, so the hook's are put first.  Only the array is new. */
static char **
join_environment(const char *const *env)
{
    size_t n = 0, m = 0, k = 0;
    char **all;

    while (environ[n] != NULL)
        n++;
    while (env != NULL && env[m] != NULL)
        m++;
    all = calloc(n + m + 1, sizeof *all);
    if (all == NULL)
        return NULL;
    for (size_t i = 0; i < m; i++)
        memcpy(&all[k++], &env[i], sizeof *all);
    for (size_t i = 0; i < n; i++) {
        size_t len = strcspn(environ[i], "=") + 1, j = 0;

        while (j < m && strncmp(env[j], environ[i], len) != 0)
            j++;
        if (j == m)
            all[k++] = environ[i];
    }
    return all;
}

/* In the child: only async-signal-safe calls. */
static void __attribute__((noreturn))
exec_hook(char *command, char *const *env, pid_t parent)
{
    char shell[] = "/bin/sh", option[] = "-c";
    char *args[] = {shell, option, command, NULL};
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    struct sigaction sa = {.sa_handler = SIG_DFL};
    static const int ours[] = {SIGPIPE, SIGINT, SIGTERM, SIGHUP};
    struct pollfd said = {.fd = STDERR_FILENO};
    sigset_t none;

    (void)setpgid(0, 0);
    (void)sigemptyset(&none);
    for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
        (void)sigaction(ours[i], &sa, NULL);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    /* Killed ourselves, nobody is left to watch its deadline. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
        _exit(126);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0 ||
        dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
        _exit(126);
    /* With nobody left to read it, a first word would end the hook by SIGPIPE before
     * it did its work. */
    null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (poll(&said, 1, 0) > 0 && (said.revents & POLLERR) != 0 &&
        (null < 0 || dup2(null, STDOUT_FILENO) < 0 ||
         dup2(null, STDERR_FILENO) < 0))
        _exit(126);
    /* Whoever gave us a descriptor gave it to us. */
    (void)close_range(STDERR_FILENO + 1, ~0U, 0);
    (void)execve(shell, args, env);
    _exit(127);
}

static int
start(const struct hook *h, pid_t *ret_pid, int *ret_fd, struct err *err)
{
    CLEANUP_FREE char **env = join_environment(h->env);
    CLEANUP_FREE char *command = strdup(h->command);
    pid_t parent = getpid(), pid;
    int fd;

    if (env == NULL || command == NULL)
        return err_set_errno(err, ENOMEM, "hook '%s'", h->what);
    pid = fork();
    if (pid == 0)
        exec_hook(command, env, parent);
    if (pid < 0)
        return err_set_errno(err, errno, "start the hook '%s'", h->what);
    (void)setpgid(pid, pid); /* the child does the same: whoever is first */
    fd = pidfd_open(pid, 0);
    if (fd < 0) {
        (void)err_set_errno(err, errno, "watch the hook '%s'", h->what);
        (void)kill(-pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
        return -1;
    }
    (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    *ret_pid = pid;
    *ret_fd = fd;
    return 0;
}

/* -- waiting ----------------------------------------------------------------*/

enum ended { ENDED, LATE, STOPPED };

static enum ended
wait_end(int fd, struct deadline until, const atomic_bool *cancel)
{
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int left = deadline_left(until);

        if (poll(&p, 1, left < TICK_MS ? left : TICK_MS) > 0)
            return ENDED;
        if (cancel != NULL && atomic_load(cancel))
            return STOPPED;
        if (deadline_left(until) == 0)
            return LATE;
    }
}

/* Its children are in its group; one that outlives the shell is ended, too. */
static void
end_group(pid_t pid, int fd)
{
    (void)kill(-pid, SIGTERM);
    (void)wait_end(fd, deadline_in(GRACE_MS), NULL);
    (void)kill(-pid, SIGKILL);
}

int
hook_run(const struct hook *h, struct err *err)
{
    CLEANUP_CLOSE int fd = -1;
    enum ended how;
    pid_t pid = 0;
    int status = 0, r;

    if (start(h, &pid, &fd, err) != 0)
        return -1;
    how = wait_end(fd, deadline_in(h->timeout_ms), h->cancel);
    if (how != ENDED)
        end_group(pid, fd);
    while ((r = waitpid(pid, &status, 0)) < 0 && errno == EINTR)
        ;
    if (r < 0) /* unknown is not good */
        return err_set_errno(err, errno, "the end of the hook '%s'", h->what);
    if (how == STOPPED)
        return err_set(err, ERR_CANCELED, "stopped during the hook '%s'",
                       h->what);
    if (how == LATE)
        return err_set(err, ERR_TIMEOUT,
                       "the hook '%s' did not end within %llu s and was "
                       "killed; see hook-timeout",
                       h->what, (unsigned long long)h->timeout_ms / 1000);
    if (status == 0)
        return 0;
    return err_set(err, ERR_REMOTE, "the hook '%s' failed with %s %d", h->what,
                   WIFEXITED(status) ? "exit status" : "signal",
                   WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
}
