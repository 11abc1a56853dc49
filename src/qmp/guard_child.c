/* The guard process.
 *
 *                 FREEZE worked
 *        IDLE -------------------> FROZEN
 *         ^                          | THAW, end of file, hold time over
 *         | thawed, or thaw_ms over  v
 *         +---------------------- THAWING <--- FREEZE failed (from IDLE)
 *
 * One thread, one loop: whatever the agent does, an attempt to thaw takes
 * try_ms, and between attempts the parent is heard.  End of file on the socket
 * means that the parent is gone: the guard then thaws and ends.
 */
#include "guard_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent.h"
#include "cleanup.h"
#include "clock.h"
#include "jv.h"
#include "log.h"

#define NOTE_MAX 256
#define SOCK_FD 3

enum state {
    STATE_IDLE,
    STATE_FROZEN,
    STATE_THAWING,
};

struct child {
    int sock; /* -1 once the parent is gone */
    const struct guard_times *times;
    struct agent *agent;
    enum state state;
    uint64_t freeze_at;    /* clock_ms() before the freeze command */
    struct deadline hold;  /* FROZEN: thaw then */
    struct deadline until; /* THAWING: give up then */
    struct deadline next;  /* THAWING: next attempt */
    bool touched;          /* a freeze may be in force, by us */
    bool asked;            /* a THAW request waits for its answer */
    uint32_t asked_seq;
    bool held;      /* the thaw began because the parent asked for it */
    bool has_story; /* `story` tells of a freeze the parent has not asked about
                       yet: it ended by itself */
    struct guard_reply story;
};

/* -- messages ---------------------------------------------------------------*/

/* The parent may be stopped or gone; the guard never waits long for it. */
static int
send_reply(struct child *c, const struct guard_reply *r)
{
    struct pollfd p = {.fd = c->sock, .events = POLLOUT};

    if (c->sock < 0 || poll(&p, 1, 1000) != 1)
        return -1;
    return send(c->sock, r, sizeof *r, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -1
                                                                        : 0;
}

static void
set_text(struct guard_reply *r, const char *text)
{
    (void)snprintf(r->data, sizeof r->data, "%s", text);
    r->len = (uint32_t)strlen(r->data);
}

static void
send_error(struct child *c, const struct guard_request *q, const struct err *e)
{
    struct guard_reply r = {.op = q->op, .seq = q->seq, .code = e->code};

    r.frozen = c->state != STATE_IDLE;
    set_text(&r, e->msg);
    (void)send_reply(c, &r);
}

/* -- thawing ----------------------------------------------------------------*/

int
guard_thaw_once(struct agent *a, unsigned timeout_ms, bool touched,
                unsigned *ret_thawed, char *note, struct err *err)
{
    struct deadline until = deadline_in(timeout_ms);
    struct err e = ERR_INIT, status = ERR_INIT;
    bool frozen = true;

    note[0] = '\0';
    if (agent_thaw(a, timeout_ms, ret_thawed, &e) == 0)
        return 0;
    if (e.code != ERR_REMOTE)
        return err_copy(err, &e);
    /* Refused: a hook in the guest failed after the thaw, VSS had ended the
     * freeze before, or nothing was thawed.  The status tells. */
    *ret_thawed = 0;
    if (agent_frozen(a, (unsigned)deadline_left(until), &frozen, &status) < 0)
        frozen = touched || status.code != ERR_REMOTE;
    if (frozen)
        return err_copy(err, &e);
    (void)snprintf(note, NOTE_MAX, "%.*s", NOTE_MAX - 1, e.msg);
    return 0;
}

/* Fill the story's note, unless it has one: the first cause counts. */
__attribute__((format(printf, 2, 3))) static void
note(struct child *c, const char *fmt, ...)
{
    char text[NOTE_MAX];
    va_list ap;

    if (c->story.len != 0)
        return;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    set_text(&c->story, text);
}

static void
begin_thaw(struct child *c)
{
    c->state = STATE_THAWING;
    c->until = deadline_in(c->times->thaw_ms);
    c->next = deadline_in(0);
}

/* The thaw is over, one way or the other: tell the parent, now if it waits. */
static void
end_thaw(struct child *c, bool confirmed)
{
    struct guard_reply *r = &c->story;

    c->state = STATE_IDLE;
    if (confirmed)
        c->touched = false;
    r->op = GUARD_OP_THAW;
    r->confirmed = confirmed;
    r->held = c->held && confirmed && r->len == 0;
    if (c->freeze_at != 0)
        r->freeze_ms = clock_ms() - c->freeze_at;
    c->has_story = !c->asked;
    if (c->asked) {
        r->seq = c->asked_seq;
        (void)send_reply(c, r);
        c->asked = false;
    }
}

static void
try_thaw(struct child *c)
{
    struct err e = ERR_INIT;
    char text[NOTE_MAX];
    unsigned n = 0;

    if (guard_thaw_once(c->agent, c->times->try_ms, c->touched, &n, text, &e) ==
        0) {
        c->story.thawed = n;
        if (text[0] != '\0')
            note(c, "%s", text);
        else if (n < c->story.filesystems)
            note(c, "only %u of %u file systems were still frozen", n,
                 c->story.filesystems);
        end_thaw(c, true);
        return;
    }
    if (deadline_left(c->until) > 0) {
        c->next = deadline_in(c->times->pause_ms);
        return;
    }
    c->story.len = 0; /* this matters more than what was noted before */
    note(c, "the guest may still be frozen: %s", e.msg);
    end_thaw(c, false);
}

/* -- requests ---------------------------------------------------------------*/

/* A new freeze: forget the old one's story. */
static void
new_story(struct child *c, uint64_t freeze_at)
{
    memset(&c->story, 0, sizeof c->story);
    c->has_story = false;
    c->held = false;
    c->freeze_at = freeze_at;
}

static void
do_freeze(struct child *c, const struct guard_request *q)
{
    struct guard_reply r = {.op = q->op, .seq = q->seq};
    struct err e = ERR_INIT;
    unsigned n = 0;

    /* In step first: an agent that is gone is noticed before it has a freeze
     * command in its queue, and outside of the time that is measured. */
    if (agent_sync(c->agent, c->times->agent_ms, &e) < 0) {
        send_error(c, q, &e);
        return;
    }
    new_story(c, clock_ms());
    c->hold = deadline_in(c->times->hold_ms);
    if (agent_freeze(c->agent, c->times->hold_ms, &n, &e) < 0) {
        c->touched = e.code != ERR_REMOTE;
        note(c, "the freeze failed");
        begin_thaw(c);
        send_error(c, q, &e);
        return;
    }
    c->state = STATE_FROZEN;
    c->touched = true;
    c->story.filesystems = r.filesystems = n;
    (void)send_reply(c, &r);
}

static void
do_thaw(struct child *c, const struct guard_request *q)
{
    c->asked = true;
    c->asked_seq = q->seq;
    if (c->state == STATE_THAWING)
        return; /* the answer comes when it is known */
    if (c->state == STATE_FROZEN) {
        c->held = true;
        begin_thaw(c);
    } else if (c->has_story && c->story.confirmed) {
        c->story.seq = q->seq;
        (void)send_reply(c, &c->story);
        new_story(c, 0);
        c->asked = false;
    } else {
        /* Not frozen by us, or not known to be thawed: always safe to try. */
        c->story.len = 0;
        if (c->touched)
            note(c, "the thaw was confirmed only at the second request");
        else
            note(c, "the guest was not frozen by this run");
        begin_thaw(c);
    }
}

static void
do_frozen(struct child *c, const struct guard_request *q)
{
    struct guard_reply r = {.op = q->op, .seq = q->seq};
    struct err e = ERR_INIT;
    bool frozen = c->state == STATE_FROZEN;

    if (!frozen &&
        agent_frozen(c->agent, c->times->agent_ms, &frozen, &e) < 0) {
        send_error(c, q, &e);
        return;
    }
    r.frozen = frozen;
    (void)send_reply(c, &r);
}

static void
do_info(struct child *c, const struct guard_request *q)
{
    CLEANUP_JV struct jv *all = jv_object();
    CLEANUP_FREE char *text = NULL;
    struct guard_reply r = {.op = q->op, .seq = q->seq};
    struct jv *fs = NULL, *os = NULL;
    size_t len, off = 0;

    if (agent_fsinfo(c->agent, c->times->agent_ms, &fs, NULL) == 0)
        (void)jv_set(all, "fsinfo", fs);
    if (agent_osinfo(c->agent, c->times->agent_ms, &os, NULL) == 0)
        (void)jv_set(all, "osinfo", os);
    text = jv_text(all, false);
    len = text != NULL ? strlen(text) : 0;
    if (len > GUARD_INFO_MAX)
        len = 0; /* an empty answer: parsed as none */
    do {
        r.len =
            (uint32_t)(len - off < sizeof r.data ? len - off : sizeof r.data);
        if (r.len > 0)
            memcpy(r.data, text + off, r.len);
        off += r.len;
        r.more = off < len;
        if (send_reply(c, &r) < 0)
            return;
    } while (off < len);
}

static void
serve(struct child *c, const struct guard_request *q)
{
    struct err e = ERR_INIT;

    if (q->op == GUARD_OP_THAW) {
        do_thaw(c, q);
        return;
    }
    if (c->state == STATE_THAWING) {
        (void)err_set(&e, ERR_TIMEOUT,
                      "the guest agent is silent; the guard still tries to "
                      "thaw the guest");
        send_error(c, q, &e);
        return;
    }
    if (q->op == GUARD_OP_FROZEN) {
        do_frozen(c, q);
    } else if (c->state == STATE_FROZEN) {
        /* A question may take the agent longer than the hold time. */
        (void)err_set(&e, ERR_USAGE, "the guest is frozen; thaw it first");
        send_error(c, q, &e);
    } else if (q->op == GUARD_OP_FREEZE) {
        do_freeze(c, q);
    } else {
        do_info(c, q);
    }
}

/* -- the loop ---------------------------------------------------------------*/

static void
hear_parent(struct child *c)
{
    struct guard_request q;
    ssize_t n = recv(c->sock, &q, sizeof q, MSG_DONTWAIT);

    if (n == (ssize_t)sizeof q) {
        serve(c, &q);
        return;
    }
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    (void)close(c->sock);
    c->sock = -1;
    c->asked = false;
    if (c->state == STATE_FROZEN) {
        note(c, "the program that asked for the freeze ended");
        begin_thaw(c);
    }
}

static int
wait_ms(const struct child *c)
{
    switch (c->state) {
    case STATE_FROZEN:
        return deadline_left(c->hold);
    case STATE_THAWING:
        return deadline_left(c->next);
    case STATE_IDLE:
        break;
    }
    return -1; /* the parent's life is the deadline */
}

static void
run(struct child *c)
{
    while (c->sock >= 0 || c->state != STATE_IDLE) {
        struct pollfd p = {.fd = c->sock, .events = POLLIN};

        /* The parent first: a thaw that it asked for in time is its own. */
        if (poll(&p, 1, wait_ms(c)) == 1) {
            hear_parent(c);
            continue;
        }
        if (c->state == STATE_FROZEN && deadline_left(c->hold) == 0) {
            note(c, "the guard thawed the guest after the hold time of %u ms",
                 c->times->hold_ms);
            begin_thaw(c);
        }
        if (c->state == STATE_THAWING && deadline_left(c->next) == 0)
            try_thaw(c);
    }
}

/* Let go of everything of the parent: its pipes (whoever reads them waits for
 * our end too), its locks, its terminal. */
static int
isolate(int sock)
{
    static const int ignored[] = {SIGINT,  SIGTERM, SIGHUP,  SIGQUIT, SIGPIPE,
                                  SIGTSTP, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2};
    sigset_t none;

    log_to(NULL, NULL);
    for (int s = 1; s < NSIG; s++)
        (void)signal(s, SIG_DFL);
    for (size_t i = 0; i < ARRAY_SIZE(ignored); i++)
        (void)signal(ignored[i], SIG_IGN);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)prctl(PR_SET_NAME, "tidemark-guard");
    (void)setsid();
    if (sock != SOCK_FD && dup2(sock, SOCK_FD) < 0)
        return -1;
    if (close_range(SOCK_FD + 1, UINT_MAX, 0) < 0)
        for (int fd = SOCK_FD + 1; fd < 65536; fd++)
            (void)close(fd);
    for (int fd = 0; fd < SOCK_FD; fd++)
        (void)close(fd);
    for (int fd = 0; fd < SOCK_FD; fd++)
        if (open("/dev/null", O_RDWR) < 0)
            return -1;
    return fcntl(SOCK_FD, F_SETFD, FD_CLOEXEC);
}

void
guard_child(const char *agent_path, const struct guard_times *times, int sock)
{
    struct child c = {.sock = SOCK_FD, .times = times};
    struct guard_request ready = {.op = GUARD_OP_READY};
    struct guard_reply r = {.op = GUARD_OP_READY};
    struct err e = ERR_INIT;

    if (isolate(sock) < 0)
        _exit(2); /* the parent sees the end of file */
    if (agent_open(agent_path, times->agent_ms, &c.agent, &e) < 0) {
        send_error(&c, &ready, &e);
        _exit(1);
    }
    (void)send_reply(&c, &r);
    run(&c);
    agent_close(c.agent);
    _exit(0);
}
