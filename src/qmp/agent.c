/* The guest agent's connection.
 *
 * `in_step` is true only between a complete reply and the next command: then
 * the stream holds nothing.  Any failure, and any byte that comes unasked,
 * leaves it false, and the next command begins with a synchronisation.  A
 * connection that closed or went silent is opened again by it: the agent's socket is QEMU's
 * and outlives restarts of the agent, but not every proxy in front of it.
 */
#include "agent.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "agent_proto.h"
#include "cleanup.h"
#include "clock.h"
#include "err.h"
#include "frame.h"
#include "io.h"
#include "jv.h"
#include "rand.h"
#include "text.h"
#include "wire.h"

#define READ_SIZE 16384u

/* Old input that a synchronisation throws away.  A guest can have at most its
 * buffers full of it; one that sends more is feeding us. */
#define SKIP_MAX (16u << 20)

struct agent {
    int fd;
    char *path;
    struct frame in;
    bool in_step;
    unsigned timeout_ms; /* of the call under way */
    struct deadline until;
};

DEFINE_CLEANUP(struct agent *, agent_close)

static void
start_clock(struct agent *a, unsigned timeout_ms)
{
    a->timeout_ms = timeout_ms;
    a->until = deadline_in(timeout_ms);
}

static int
broken(struct agent *a, enum wire w, const char *command, struct err *err)
{
    int sys = errno;

    /* Also after a timeout: an agent that hangs in the middle of something
     * often comes back when its port was closed and opened. */
    (void)close(a->fd);
    a->fd = -1;
    if (w == WIRE_TIMEOUT)
        return err_set(err, ERR_TIMEOUT,
                       "'%s': the guest agent at '%s' gave no answer within "
                       "%u ms; is it running in the guest, and is no other "
                       "program connected to its socket?",
                       command, a->path, a->timeout_ms);
    if (w == WIRE_CLOSED)
        return err_set(err, ERR_CLOSED,
                       "'%s': the guest agent's socket '%s' was closed; did "
                       "the machine end?",
                       command, a->path);
    return err_set_errno(err, sys, "'%s' on '%s'", command, a->path);
}

static int
send_line(struct agent *a, const char *command, const char *text, size_t len,
          struct err *err)
{
    enum wire w;

    text_trace("agent ->", text, len - 1);
    w = wire_send(a->fd, text, len, a->until);
    return w == WIRE_OK ? 0 : broken(a, w, command, err);
}

/* Read some input; *ret_len tells how much. */
static int
fill(struct agent *a, const char *command, size_t *ret_len, struct err *err)
{
    uint8_t data[READ_SIZE];
    enum wire w;

    /* Asked before reading: a drip or a flood must not push the deadline. */
    if (deadline_left(a->until) == 0)
        return broken(a, WIRE_TIMEOUT, command, err);
    w = wire_recv(a->fd, data, sizeof data, ret_len, a->until);
    if (w != WIRE_OK)
        return broken(a, w, command, err);
    return frame_add(&a->in, data, *ret_len, err);
}

/* -- coming in step -------------------------------------------------------- */

/* The 0xFF in front resets the agent's parser, should it stand in the middle
 * of a command that never ended. */
static int
send_sync(struct agent *a, int64_t *ret_id, struct err *err)
{
    char text[120];
    uint64_t r;
    int n;

    rand_bytes(&r, sizeof r);
    *ret_id = (int64_t)(r >> 12) + 1; /* fits a double exactly */
    n = snprintf(text, sizeof text,
                 "\xff{\"execute\":\"guest-sync-delimited\","
                 "\"arguments\":{\"id\":%" PRId64 "}}\n",
                 *ret_id);
    return send_line(a, "guest-sync-delimited", text, (size_t)n, err);
}

/* Did anything arrive that nobody asked for?  A socket that was closed behind
 * our back is given up here, so that it is opened anew. */
static bool
has_unasked(struct agent *a)
{
    char c;
    ssize_t n = recv(a->fd, &c, 1, MSG_PEEK | MSG_DONTWAIT);

    if (n == 0 || (n < 0 && errno == ECONNRESET)) {
        (void)close(a->fd);
        a->fd = -1;
    }
    return n >= 0 || a->fd < 0 || frame_pending(&a->in, NULL) > 0;
}

static int
sync_now(struct agent *a, struct err *err)
{
    size_t skipped = 0, len = 0;
    int64_t id = 0;

    a->in_step = false;
    frame_reset(&a->in);
    if (a->fd >= 0)
        (void)has_unasked(a);
    if (a->fd < 0)
        a->fd =
            io_connect_unix(a->path, (unsigned)deadline_left(a->until), err);
    if (a->fd < 0)
        return err_wrap(err, "guest agent");
    if (send_sync(a, &id, err) < 0)
        return -1;
    while (!agent_find_sync(&a->in, id)) {
        if (fill(a, "guest-sync-delimited", &len, err) < 0)
            return -1;
        skipped += len;
        if (skipped > SKIP_MAX)
            return err_set(err, ERR_PROTOCOL,
                           "the guest agent at '%s' sends without end",
                           a->path);
    }
    a->in_step = true;
    return 0;
}

/* -- commands -------------------------------------------------------------- */

static int
wait_line(struct agent *a, const char *command, const char **ret,
          size_t *ret_len, struct err *err)
{
    size_t len;

    for (;;) {
        int r = frame_line(&a->in, ret, ret_len, err);

        if (r < 0)
            return err_wrap(err, "guest agent, '%s'", command);
        if (r == 1 && *ret_len > 0)
            return 0;
        if (r == 0 && fill(a, command, &len, err) < 0)
            return -1;
    }
}

static int
call(struct agent *a, const char *command, struct jv **ret, struct err *err)
{
    struct err e = ERR_INIT;
    const char *line = NULL;
    char text[80];
    size_t len = 0;
    int n;

    if ((a->fd < 0 || !a->in_step || has_unasked(a)) && sync_now(a, err) < 0)
        return -1;
    a->in_step = false;
    n = snprintf(text, sizeof text, "{\"execute\":\"%s\"}\n", command);
    if (send_line(a, command, text, (size_t)n, err) < 0 ||
        wait_line(a, command, &line, &len, err) < 0)
        return -1;
    text_trace("agent <-", line, len);
    if (agent_parse_reply(line, len, command, ret, &e) == 0) {
        a->in_step = true;
        return 0;
    }
    a->in_step = e.code == ERR_REMOTE;
    return err_copy(err, &e);
}

int
agent_open(const char *path, unsigned timeout_ms, struct agent **ret,
           struct err *err)
{
    CLEANUP(agent_closep) struct agent *a = calloc(1, sizeof *a);

    if (a == NULL)
        return err_set_errno(err, ENOMEM, "guest agent '%s'", path);
    a->fd = -1;
    frame_init(&a->in, AGENT_LINE_MAX);
    a->path = strdup(path);
    if (a->path == NULL)
        return err_set_errno(err, ENOMEM, "guest agent '%s'", path);
    if (agent_sync(a, timeout_ms, err) < 0)
        return -1;
    *ret = TAKE_PTR(a);
    return 0;
}

void
agent_close(struct agent *a)
{
    if (a == NULL)
        return;
    if (a->fd >= 0)
        (void)close(a->fd);
    frame_done(&a->in);
    free(a->path);
    free(a);
}

int
agent_sync(struct agent *a, unsigned timeout_ms, struct err *err)
{
    start_clock(a, timeout_ms);
    return sync_now(a, err);
}

int
agent_ping(struct agent *a, unsigned timeout_ms, struct err *err)
{
    CLEANUP_JV struct jv *j = NULL;

    start_clock(a, timeout_ms);
    return call(a, "guest-ping", &j, err);
}

static int
count(struct agent *a, const char *command, unsigned timeout_ms, unsigned *ret,
      struct err *err)
{
    CLEANUP_JV struct jv *j = NULL;

    start_clock(a, timeout_ms);
    if (call(a, command, &j, err) < 0)
        return -1;
    return agent_parse_count(j, command, ret, err);
}

int
agent_freeze(struct agent *a, unsigned timeout_ms, unsigned *ret_count,
             struct err *err)
{
    return count(a, "guest-fsfreeze-freeze", timeout_ms, ret_count, err);
}

int
agent_thaw(struct agent *a, unsigned timeout_ms, unsigned *ret_count,
           struct err *err)
{
    return count(a, "guest-fsfreeze-thaw", timeout_ms, ret_count, err);
}

int
agent_frozen(struct agent *a, unsigned timeout_ms, bool *ret_frozen,
             struct err *err)
{
    CLEANUP_JV struct jv *j = NULL;

    start_clock(a, timeout_ms);
    if (call(a, "guest-fsfreeze-status", &j, err) < 0)
        return -1;
    return agent_parse_status(j, ret_frozen, err);
}

static int
info(struct agent *a, const char *command, bool (*is_kind)(const struct jv *),
     unsigned timeout_ms, struct jv **ret, struct err *err)
{
    CLEANUP_JV struct jv *j = NULL;

    start_clock(a, timeout_ms);
    if (call(a, command, &j, err) < 0)
        return -1;
    if (!is_kind(j))
        return err_set(err, ERR_PROTOCOL,
                       "the guest agent's answer to '%s' has the wrong type",
                       command);
    *ret = TAKE_PTR(j);
    return 0;
}

int
agent_fsinfo(struct agent *a, unsigned timeout_ms, struct jv **ret,
             struct err *err)
{
    return info(a, "guest-get-fsinfo", jv_is_array, timeout_ms, ret, err);
}

int
agent_osinfo(struct agent *a, unsigned timeout_ms, struct jv **ret,
             struct err *err)
{
    return info(a, "guest-get-osinfo", jv_is_object, timeout_ms, ret, err);
}
