#include "signals.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <unistd.h>

#include "cleanup.h"

static atomic_bool stop;
static atomic_int first_signal;

static void
on_signal(int sig)
{
    static const char msg[] =
        "\ntidemark: already stopping: cleaning up, please wait\n";
    int saved = errno, none = 0;

    if (!atomic_compare_exchange_strong(&first_signal, &none, sig)) {
        ssize_t n = write(STDERR_FILENO, msg, sizeof msg - 1);

        (void)n;
    }
    atomic_store(&stop, true);
    errno = saved;
}

void
signals_ignore_pipe(void)
{
    struct sigaction sa = {.sa_handler = SIG_IGN};

    (void)sigemptyset(&sa.sa_mask);
    (void)sigaction(SIGPIPE, &sa, NULL);
}

void
signals_keep_children(void)
{
    struct sigaction sa = {.sa_handler = SIG_DFL};

    (void)sigemptyset(&sa.sa_mask);
    (void)sigaction(SIGCHLD, &sa, NULL);
}

const atomic_bool *
signals_catch(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    /* No SA_RESTART: a wait must end when somebody asks to stop. */
    struct sigaction sa = {.sa_handler = on_signal}, old;

    (void)sigemptyset(&sa.sa_mask);
    for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
        if (sigaction(signals[i], NULL, &old) == 0 && old.sa_handler == SIG_IGN)
            continue;
        (void)sigaction(signals[i], &sa, NULL);
    }
    return &stop;
}

int
signals_caught(void)
{
    return atomic_load(&first_signal);
}
