/* A terminal that stays without echo after Ctrl-C is a nuisance: signals are
 * caught while the echo is off, and raised again when it is back. */
#include "terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "err.h"
#include "secret.h"

#define DEADLINE_MS 300000u
#define TICK_MS 500 /* how long a signal between check and poll may wait */

static const int caught[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
static volatile sig_atomic_t came;

static void
note(int signum)
{
    came = signum;
}

struct quiet {
    int fd;
    struct termios before;
    struct sigaction old[ARRAY_SIZE(caught)];
    struct sigaction old_stop;
};

static int
silence(struct quiet *q)
{
    struct sigaction a = {.sa_handler = note};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    struct termios t;

    if (tcgetattr(q->fd, &q->before) < 0)
        return -1;
    came = 0;
    for (size_t i = 0; i < ARRAY_SIZE(caught); i++)
        (void)sigaction(caught[i], &a, &q->old[i]);
    (void)sigaction(SIGTSTP, &ignore, &q->old_stop);
    t = q->before;
    t.c_lflag &= ~(tcflag_t)ECHO;
    t.c_lflag |= ICANON | ECHONL;
    (void)tcsetattr(q->fd, TCSAFLUSH, &t);
    return 0;
}

static void
restore(struct quiet *q)
{
    (void)tcsetattr(q->fd, TCSAFLUSH, &q->before);
    (void)sigaction(SIGTSTP, &q->old_stop, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(caught); i++)
        (void)sigaction(caught[i], &q->old[i], NULL);
}

/* Cut, it would be another one than the same from a descriptor. */
static int
too_long(struct err *err)
{
    return err_set(err, ERR_USAGE, "the passphrase is longer than %d bytes",
                   SECRET_PASSPHRASE_MAX);
}

static int
read_line(int fd, struct secret *ret, struct err *err)
{
    struct deadline until = deadline_in(DEADLINE_MS);

    for (ret->len = 0; came == 0;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        char c;

        if (deadline_left(until) == 0)
            return err_set(err, ERR_KEY,
                           "nobody typed a passphrase within 5 "
                           "minutes");
        if (poll(&p, 1, TICK_MS) <= 0)
            continue;
        if (read(fd, &c, 1) != 1)
            return err_set(err, ERR_KEY, "the terminal was closed");
        if (c == '\n')
            return ret->len <= SECRET_PASSPHRASE_MAX ? 0 : too_long(err);
        if (ret->len <= SECRET_PASSPHRASE_MAX)
            ret->text[ret->len++] = c;
    }
    return err_set(err, ERR_CANCELED, "stopped by a signal");
}

int
terminal_ask(const char *prompt, const char *what, struct secret *ret,
             struct err *err)
{
    CLEANUP_CLOSE int fd = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
    struct quiet q = {.fd = fd};
    int r;

    ret->kind = SECRET_PASSPHRASE;
    if (fd < 0)
        return 1;
    if (silence(&q) < 0)
        return 1;
    (void)dprintf(fd, "%s repository '%s': ", prompt, what);
    r = read_line(fd, ret, err);
    restore(&q);
    if (came != 0)
        (void)raise(came);
    if (r == 0 && ret->len == 0)
        return err_set(err, ERR_KEY, "no passphrase was typed");
    return r;
}

void
terminal_say(const char *line)
{
    CLEANUP_CLOSE int fd = open("/dev/tty", O_WRONLY | O_CLOEXEC | O_NOCTTY);

    if (fd >= 0)
        (void)dprintf(fd, "%s\n", line);
}
