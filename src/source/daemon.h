/* source/daemon.h - a qemu-storage-daemon of our own, for images of a machine
 * that is off.
 *
 * It stores persistent bitmaps when it closes an image, so it must always end in
 * order: by QMP, else by SIGTERM, which the kernel sends too when we die.  Only
 * one that does not end in time is killed, and then the bitmaps are lost.
 */
#pragma once

#include <stddef.h>

struct daemon;
struct err;
struct qmp;

#define DAEMON_SOCKET "qsd.sock"

/* Start it with a QMP socket in the private directory `dir` and connect.  The
 * program is TIDEMARK_QSD or "qemu-storage-daemon" in PATH. */
int daemon_start(const char *dir, struct daemon **ret, struct qmp **ret_qmp,
                 struct err *err);

/* Ask it to end (over `q`, which may be NULL) and wait.  -1: it ended otherwise
 * than in order; its last words are in *err.  Frees the daemon. */
int daemon_end(struct daemon *d, struct qmp *q, struct err *err);
