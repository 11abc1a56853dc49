#include "daemon.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "child.h"
#include "cleanup.h"
#include "clock.h"
#include "err.h"
#include "qmp.h"

#define START_MS 20000u
#define POLL_MS 20u
#define CONNECT_MS 10000u
#define QUIT_MS 30000u
#define END_MS 60000u  /* many bitmaps on a slow disk */
#define STOP_MS 20000u /* of one that does not talk any more */

struct daemon {
    struct child child;
    char *path; /* socket */
};

static void
daemon_free(struct daemon *d)
{
    child_done(&d->child);
    if (d->path != NULL)
        (void)unlink(d->path);
    free(d->path);
    free(d);
}

/* The socket is there a moment after the start. */
static int
wait_connect(struct daemon *d, struct qmp **ret, struct err *err)
{
    struct deadline until = deadline_in(START_MS);

    for (;;) {
        struct err why = ERR_INIT;

        if (qmp_connect(d->path, CONNECT_MS, ret, &why) == 0)
            return 0;
        /* Who connects before the monitor is complete is greeted once more in
         * the middle of the first command; the next connection is not. */
        if (why.code != ERR_PROTOCOL &&
            (why.code != ERR_SYSTEM ||
             (why.sys != ENOENT && why.sys != ECONNREFUSED)))
            return err_copy(err, &why);
        if (child_ended(&d->child, POLL_MS)) {
            if (child_wait(&d->child, 0, err) == 0)
                (void)err_set(err, ERR_CLOSED, "it ended at once");
            return -1;
        }
        if (deadline_left(until) == 0 && why.code == ERR_PROTOCOL)
            return err_copy(err, &why);
        if (deadline_left(until) == 0)
            return err_set(err, ERR_TIMEOUT,
                           "it did not open its socket within %u s",
                           START_MS / 1000);
    }
}

static int
start_child(struct daemon *d, struct err *err)
{
    const char *program = getenv("TIDEMARK_QSD");
    CLEANUP_FREE char *chardev = NULL;

    if (program == NULL || program[0] == '\0')
        program = "qemu-storage-daemon";
    if (strchr(d->path, ',') != NULL)
        return err_set(err, ERR_USAGE,
                       "the run directory's name must have no comma: '%s'",
                       d->path);
    if (asprintf(&chardev, "socket,id=qmp,path=%s,server=on,wait=off",
                 d->path) < 0)
        return err_set_errno(err, ENOMEM, "storage daemon");
    return child_start_signal((const char *const[]){program, "--chardev",
                                                    chardev, "--monitor",
                                                    "chardev=qmp", NULL},
                              SIGTERM, &d->child, err);
}

int
daemon_start(const char *dir, struct daemon **ret, struct qmp **ret_qmp,
             struct err *err)
{
    struct daemon *d = calloc(1, sizeof *d);

    if (d == NULL)
        return err_set_errno(err, ENOMEM, "storage daemon");
    d->child = (struct child)CHILD_INIT;
    if (asprintf(&d->path, "%s/" DAEMON_SOCKET, dir) < 0) {
        d->path = NULL;
        (void)err_set_errno(err, ENOMEM, "storage daemon");
    } else if (start_child(d, err) == 0 && wait_connect(d, ret_qmp, err) == 0) {
        *ret = d;
        return 0;
    }
    daemon_free(d);
    return err_wrap(err, "start the storage daemon for the images of a machine "
                         "that is off");
}

int
daemon_end(struct daemon *d, struct qmp *q, struct err *err)
{
    bool asked =
        q != NULL && qmp_call(q, "quit", NULL, QUIT_MS, NULL, NULL) == 0;
    int r;

    r = asked ? child_wait(&d->child, END_MS, err)
              : child_stop(&d->child, STOP_MS, err);
    daemon_free(d);
    return r < 0 ? err_wrap(err, "end the storage daemon") : 0;
}
