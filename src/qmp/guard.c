/* The parent's side of the guard: requests, and what to do when it is gone. */
#include "guard.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent.h"
#include "buf.h"
#include "cleanup.h"
#include "clock.h"
#include "err.h"
#include "guard_impl.h"
#include "jv.h"
#include "log.h"

/* What the guard itself may need on top of the agent's time. */
#define SLACK_MS 2000u

struct guard {
    char *path;
    struct guard_times times;
    int sock; /* -1: the guard is gone */
    pid_t pid;
    bool reaped;
    uint32_t seq;
    bool touched; /* the guest may be frozen by us */
    unsigned filesystems;
    uint64_t freeze_at;
};

/* -- messages ---------------------------------------------------------------*/

static int
gone(struct guard *g, struct err *err)
{
    if (g->sock >= 0)
        (void)close(g->sock);
    g->sock = -1;
    return err_set(err, ERR_CLOSED, "the guard process %d ended", (int)g->pid);
}

/* The answer to request `g->seq`; older ones are dropped. */
static int
receive(struct guard *g, struct guard_reply *r, struct deadline until,
        struct err *err)
{
    for (;;) {
        struct pollfd p = {.fd = g->sock, .events = POLLIN};
        ssize_t n;

        n = poll(&p, 1, deadline_left(until));
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            return err_set(err, ERR_TIMEOUT,
                           "the guard process %d gave no answer", (int)g->pid);
        n = recv(g->sock, r, sizeof *r, MSG_DONTWAIT);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n != (ssize_t)sizeof *r || r->len > sizeof r->data)
            return gone(g, err);
        if (r->seq == g->seq)
            return 0;
    }
}

static int
request(struct guard *g, enum guard_op op, unsigned wait_ms,
        struct guard_reply *r, struct err *err)
{
    struct guard_request q = {.op = op, .seq = ++g->seq};

    if (g->sock < 0)
        return gone(g, err);
    /* A few bytes fit the socket's buffer; if not, the guard is stuck. */
    if (send(g->sock, &q, sizeof q, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        return gone(g, err);
    if (receive(g, r, deadline_in(wait_ms), err) < 0)
        return -1;
    if (r->code != ERR_NONE)
        return err_set(err, (enum err_code)r->code, "%.*s", (int)r->len,
                       r->data);
    return 0;
}

/* -- start ------------------------------------------------------------------*/

static int
reap(struct guard *g, unsigned wait_ms)
{
    struct deadline until = deadline_in(wait_ms);

    while (!g->reaped) {
        pid_t p = waitpid(g->pid, NULL, WNOHANG);

        /* ECHILD: somebody else's wait() took it, which is as good. */
        g->reaped = p == g->pid || (p < 0 && errno == ECHILD);
        if (g->reaped)
            break;
        if (deadline_left(until) == 0)
            return -1;
        (void)poll(NULL, 0, 5);
    }
    return 0;
}

static int
spawn(struct guard *g, struct err *err)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_set_errno(err, errno, "socket pair for the guard");
    g->pid = fork();
    if (g->pid == 0)
        guard_child(g->path, &g->times, pair[1]);
    (void)close(pair[1]);
    g->sock = pair[0];
    if (g->pid < 0)
        return err_set_errno(err, errno, "fork the guard");
    g->reaped = false;
    return 0;
}

/* The guard tells that the agent answered, or why not. */
static int
await_ready(struct guard *g, struct err *err)
{
    struct guard_reply r;

    if (receive(g, &r, deadline_in((uint64_t)g->times.agent_ms + SLACK_MS),
                err) < 0)
        return -1;
    if (r.code != ERR_NONE)
        return err_set(err, (enum err_code)r.code, "%.*s", (int)r.len, r.data);
    return 0;
}

/* End a guard that has frozen nothing. */
static void
discard(struct guard *g)
{
    if (g->sock >= 0)
        (void)close(g->sock);
    if (!g->reaped && reap(g, SLACK_MS) < 0) {
        (void)kill(g->pid, SIGKILL);
        (void)reap(g, SLACK_MS);
    }
    free(g->path);
    free(g);
}

int
guard_start_times(const char *agent_path, const struct guard_times *times,
                  struct guard **ret, struct err *err)
{
    struct guard *g = calloc(1, sizeof *g);

    if (g == NULL)
        return err_set_errno(err, ENOMEM, "guard");
    g->times = *times;
    g->sock = -1;
    g->reaped = true; /* until there is one */
    g->path = strdup(agent_path);
    if (g->path == NULL)
        (void)err_set_errno(err, ENOMEM, "guard");
    if (g->path == NULL || spawn(g, err) < 0 || await_ready(g, err) < 0) {
        discard(g);
        return -1;
    }
    log_debug("guard %d watches over '%s'", (int)g->pid, agent_path);
    *ret = g;
    return 0;
}

int
guard_start(const char *agent_path, unsigned agent_timeout_ms, unsigned hold_ms,
            struct guard **ret, struct err *err)
{
    struct guard_times t = {.agent_ms = agent_timeout_ms,
                            .hold_ms = hold_ms,
                            .try_ms = GUARD_TRY_MS,
                            .pause_ms = GUARD_PAUSE_MS,
                            .thaw_ms = GUARD_THAW_MS,
                            .reply_ms = GUARD_REPLY_MS};

    return guard_start_times(agent_path, &t, ret, err);
}

int
guard_pid(const struct guard *g)
{
    return (int)g->pid;
}

/* -- freeze and thaw --------------------------------------------------------*/

/* Longest time until the guard hears us: it may be in an attempt to thaw. */
static unsigned
patience(const struct guard *g, unsigned ms)
{
    return ms + g->times.try_ms + SLACK_MS;
}

int
guard_frozen(struct guard *g, bool *ret_frozen, struct err *err)
{
    struct guard_reply r;

    if (request(g, GUARD_OP_FROZEN, patience(g, g->times.agent_ms), &r, err) <
        0)
        return -1;
    *ret_frozen = r.frozen != 0;
    return 0;
}

/* The guard is gone: thaw over a connection of our own. */
static int
thaw_directly(struct guard *g, struct guard_report *rep, struct err *err)
{
    struct deadline until = deadline_in(g->times.reply_ms);
    struct err e = ERR_INIT;

    for (;;) {
        struct agent *a = NULL;
        unsigned left = (unsigned)deadline_left(until);
        int r;

        err_clear(&e);
        if (left > g->times.try_ms)
            left = g->times.try_ms;
        r = agent_open(g->path, left, &a, &e);
        if (r == 0)
            r = guard_thaw_once(a, left, g->touched, &rep->thawed, rep->note,
                                &e);
        agent_close(a);
        if (r == 0)
            return 0;
        if (deadline_left(until) <= (int)g->times.pause_ms)
            return err_copy(err, &e);
        (void)poll(NULL, 0, (int)g->times.pause_ms);
    }
}

/* As thaw_directly(), with the report.  The number of file systems that were
 * still frozen is the proof that nobody thawed them before. */
static int
thaw_without_guard(struct guard *g, struct guard_report *rep, struct err *err)
{
    struct err e = ERR_INIT;

    log_debug("guard %d is gone; thawing without it", (int)g->pid);
    rep->filesystems = g->filesystems;
    if (thaw_directly(g, rep, &e) < 0) {
        (void)snprintf(rep->note, sizeof rep->note,
                       "the guard process was killed and the guest may still "
                       "be frozen: %.150s",
                       e.msg);
        return err_copy(err, &e);
    }
    rep->thaw_confirmed = true;
    if (g->freeze_at != 0)
        rep->freeze_ms = clock_ms() - g->freeze_at;
    rep->held = rep->note[0] == '\0' && g->filesystems > 0 &&
                rep->thawed >= g->filesystems;
    if (!rep->held && rep->note[0] == '\0')
        (void)snprintf(rep->note, sizeof rep->note,
                       "the guard process was killed; %u of %u file systems "
                       "were still frozen",
                       rep->thawed, g->filesystems);
    return 0;
}

int
guard_freeze(struct guard *g, unsigned *ret_count, struct err *err)
{
    struct guard_report ignored = {0};
    struct guard_reply r = {0};
    struct err e = ERR_INIT;
    uint64_t now = clock_ms();

    if (request(g, GUARD_OP_FREEZE,
                patience(g, g->times.agent_ms + g->times.hold_ms), &r,
                &e) == 0) {
        g->touched = true;
        g->freeze_at = now;
        g->filesystems = *ret_count = r.filesystems;
        return 0;
    }
    /* Without an answer to this very request the guest may be frozen. */
    g->touched = r.seq != g->seq || r.frozen != 0;
    if (g->sock < 0 && thaw_without_guard(g, &ignored, NULL) == 0)
        g->touched = false;
    return err_copy(err, &e);
}

static void
take_report(struct guard_report *rep, const struct guard_reply *r)
{
    rep->held = r->held != 0;
    rep->filesystems = r->filesystems;
    rep->thawed = r->thawed;
    rep->freeze_ms = r->freeze_ms;
    rep->thaw_confirmed = r->confirmed != 0;
    (void)snprintf(
        rep->note, sizeof rep->note, "%.*s",
        (int)(r->len < sizeof rep->note ? r->len : sizeof rep->note - 1),
        r->data);
}

int
guard_thaw(struct guard *g, struct guard_report *ret_report, struct err *err)
{
    struct guard_report rep = {0};
    struct err e = ERR_INIT;
    struct guard_reply r;
    int result = 0;

    if (request(g, GUARD_OP_THAW, g->times.reply_ms, &r, &e) == 0) {
        take_report(&rep, &r);
        if (!rep.thaw_confirmed)
            result = err_set(err, ERR_TIMEOUT, "%s", rep.note);
    } else if (g->sock < 0) {
        result = thaw_without_guard(g, &rep, err);
    } else {
        rep.filesystems = g->filesystems;
        (void)snprintf(rep.note, sizeof rep.note,
                       "no answer to the thaw within %u ms: the guest may "
                       "still be frozen; the guard goes on trying",
                       g->times.reply_ms);
        result = err_set(err, ERR_TIMEOUT, "guest agent '%s': %s", g->path,
                         rep.note);
    }
    if (rep.thaw_confirmed)
        g->touched = false;
    *ret_report = rep;
    return result;
}

/* -- the rest ---------------------------------------------------------------*/

int
guard_guest_info(struct guard *g, struct jv **ret, struct err *err)
{
    struct deadline until = deadline_in(patience(g, 2 * g->times.agent_ms));
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    struct guard_reply r;

    if (request(g, GUARD_OP_INFO, (unsigned)deadline_left(until), &r, err) < 0)
        return -1;
    for (;;) {
        if (text.len + r.len > GUARD_INFO_MAX)
            return err_set(err, ERR_PROTOCOL,
                           "the guest agent's answers are too long");
        if (buf_append(&text, r.data, r.len, err) < 0)
            return -1;
        if (!r.more)
            break;
        if (receive(g, &r, until, err) < 0)
            return -1;
    }
    if (text.len == 0)
        return err_set(err, ERR_PROTOCOL,
                       "the guest agent's answers are too long");
    return jv_parse(text.data, text.len, AGENT_DEPTH_MAX + 2, ret, err);
}

void
guard_stop(struct guard *g)
{
    struct guard_report ignored;

    if (g == NULL)
        return;
    if (g->touched)
        (void)guard_thaw(g, &ignored, NULL);
    if (g->sock >= 0)
        (void)close(g->sock);
    /* A guard that is still trying to thaw belongs to itself from here on. */
    if (!g->reaped && reap(g, g->touched ? 0 : SLACK_MS) < 0)
        log_debug("guard %d goes on by itself", (int)g->pid);
    free(g->path);
    free(g);
}
