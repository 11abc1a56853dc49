#include "words.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "err.h"
#include "secret.h"
#include "signals.h"

#define DEADLINE_MS 120000u /* a person may have to touch a token */
#define TICK_MS 500 /* how long a signal between check and poll may wait */

/* 1: a byte, 0: the end, -1. */
static int
read_byte(int fd, struct deadline until, char *ret, struct err *err)
{
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int left = deadline_left(until);
        ssize_t n;

        if (signals_caught() != 0)
            return err_set(err, ERR_CANCELED, "stopped by a signal");
        if (left == 0)
            return err_set(err, ERR_KEY, "no passphrase came within 2 minutes");
        if (poll(&p, 1, left < TICK_MS ? left : TICK_MS) < 0 && errno != EINTR)
            return err_set_errno(err, errno, "wait for a passphrase");
        if (p.revents == 0)
            continue;
        n = read(fd, ret, 1);
        if (n >= 0)
            return (int)n;
        if (errno != EINTR && errno != EAGAIN)
            return err_set_errno(err, errno, "read a passphrase");
    }
}

static int
read_words(int fd, bool all, struct secret *ret, struct err *err)
{
    struct deadline until = deadline_in(DEADLINE_MS);

    for (ret->len = 0;;) {
        char c;
        int r = read_byte(fd, until, &c, err);

        if (r < 0)
            return -1;
        if (r == 0 || (!all && c == '\n'))
            return 0;
        if (ret->len == (all ? SECRET_MAX : SECRET_PASSPHRASE_MAX))
            return err_set(err, ERR_USAGE,
                           "the passphrase is longer than %d bytes",
                           SECRET_PASSPHRASE_MAX);
        ret->text[ret->len++] = c;
    }
}

int
words_from_fd(int fd, bool all, struct secret *ret, struct err *err)
{
    if (read_words(fd, all, ret, err) < 0)
        return err_wrap(err, "descriptor %d", fd);
    if (ret->len == 0)
        return err_set(err, ERR_KEY, "descriptor %d gave no passphrase", fd);
    return 0;
}

/* -- commands ---------------------------------------------------------------*/

static int
start(const char *command, pid_t *ret_pid, int *ret_fd, struct err *err)
{
    char shell[] = "/bin/sh", option[] = "-c";
    char *argv[] = {shell, option, strdup(command), NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t pipe_ends;
    int fds[2], r;

    if (argv[2] == NULL || pipe2(fds, O_CLOEXEC) < 0) {
        free(argv[2]);
        return err_set_errno(err, errno, "passphrase command");
    }
    (void)posix_spawn_file_actions_init(&actions);
    (void)posix_spawn_file_actions_adddup2(&actions, fds[1], STDOUT_FILENO);
    /* We ignore SIGPIPE, but it must end what has more to say than one line. */
    (void)sigemptyset(&pipe_ends);
    (void)sigaddset(&pipe_ends, SIGPIPE);
    (void)posix_spawnattr_init(&attr);
    (void)posix_spawnattr_setsigdefault(&attr, &pipe_ends);
    (void)posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF);
    r = posix_spawn(ret_pid, shell, &actions, &attr, argv, environ);
    (void)posix_spawnattr_destroy(&attr);
    (void)posix_spawn_file_actions_destroy(&actions);
    free(argv[2]);
    (void)close(fds[1]);
    if (r != 0) {
        (void)close(fds[0]);
        return err_set_errno(err, r, "start the passphrase command");
    }
    *ret_fd = fds[0];
    return 0;
}

/* Itself, or the last of what the shell ran. */
static bool
ended_by_pipe(int status)
{
    return WIFSIGNALED(status) ? WTERMSIG(status) == SIGPIPE
                               : WEXITSTATUS(status) == 128 + SIGPIPE;
}

int
words_from_command(const char *command, struct secret *ret, struct err *err)
{
    CLEANUP_CLOSE int fd = -1;
    pid_t pid;
    int status = 0, r;

    if (start(command, &pid, &fd, err) < 0)
        return -1;
    r = read_words(fd, false, ret, err);
    if (r < 0)
        (void)kill(pid, SIGTERM);
    (void)close(TAKE_FD(fd)); /* it may have more to say and gets SIGPIPE */
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (r < 0)
        return err_wrap(err, "passphrase command");
    if (ended_by_pipe(status))
        status = 0;
    if (status != 0)
        return err_set(err, ERR_KEY, "the passphrase command failed with %s %d",
                       WIFEXITED(status) ? "exit status" : "signal",
                       WIFEXITED(status) ? WEXITSTATUS(status)
                                         : WTERMSIG(status));
    if (ret->len == 0)
        return err_set(err, ERR_KEY, "the passphrase command printed nothing");
    return 0;
}
