/* One command at a time over a QMP socket.
 *
 * A reply is ours only when it carries our id.  The id has a random part of
 * this connection: QEMU may still owe an answer to an earlier client, and that
 * client counted from 1 too.
 *
 * q->dead is the one place that says whether the connection can be used: it is
 * set where something goes wrong, and bury() closes the socket, so that QEMU
 * can serve somebody else (it serves one client).
 */
#include "qmp.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "clock.h"
#include "err.h"
#include "frame.h"
#include "io.h"
#include "jv.h"
#include "rand.h"
#include "text.h"
#include "wire.h"

#define READ_SIZE 32768u
#define CLASS_MAX 64

struct qmp {
    int fd;
    char *path;
    struct frame in;
    struct qmp_version version;
    struct ucred peer;
    char nonce[17];
    uint64_t n_sent;
    char id[40]; /* of the command under way */
    struct err dead;
    char error_class[CLASS_MAX];
    char error_desc[ERR_MSG_MAX];
    qmp_event_fn on_event;
    void *on_event_arg;
};

DEFINE_CLEANUP(struct qmp *, qmp_close)

/* q->dead was set: close, and tell the caller.  Returns -1. */
static int
bury(struct qmp *q, struct err *err)
{
    if (q->fd >= 0)
        (void)close(q->fd);
    q->fd = -1;
    return err_copy(err, &q->dead);
}

/* Say in q->dead what became of the socket during `what`. */
static int
broken(struct qmp *q, enum wire w, const char *what, unsigned timeout_ms)
{
    if (w == WIRE_TIMEOUT)
        return err_set(&q->dead, ERR_TIMEOUT,
                       "'%s' on '%s': QEMU gave no answer within %u ms; is it "
                       "stopped or busy?",
                       what, q->path, timeout_ms);
    if (w == WIRE_CLOSED)
        return err_set(&q->dead, ERR_CLOSED,
                       "QEMU closed the connection '%s' during '%s'; did it "
                       "end?",
                       q->path, what);
    return err_set_errno(&q->dead, errno, "'%s' on '%s'", what, q->path);
}

/* -- messages ---------------------------------------------------------------*/

/* Is this line, which is not readable as JSON for us, an event?  QEMU's numbers
 * go up to 2^64 - 1 and ours to 2^63 - 1; a crash of a Windows guest sends
 * such ones in GUEST_PANICKED.  A guest must not be able to end the connection
 * with that, and an event may be lost anyway. */
static bool
unreadable_event(const struct qmp *q, const char *line, size_t len)
{
    return memmem(line, len, "\"event\"", 7) != NULL &&
           memmem(line, len, q->id, strlen(q->id)) == NULL && line[0] == '{';
}

/* The next message of the buffer: 1, 0 when there is no complete one, -1 with
 * q->dead set. */
static int
next_message(struct qmp *q, struct jv **ret)
{
    struct err e = ERR_INIT;
    struct jv *j = NULL;
    const char *line = "";
    size_t len = 0;
    int r;

    while ((r = frame_line(&q->in, &line, &len, &e)) == 1) {
        if (len == 0)
            continue;
        text_trace("qmp <-", line, len);
        if (jv_parse(line, len, JV_DEPTH_MAX, &j, &e) == 0)
            break;
        if (!unreadable_event(q, line, len))
            return err_set(&q->dead, ERR_PROTOCOL,
                           "'%s' sent a line that is no QMP message: %s",
                           q->path, e.msg);
        err_clear(&e);
    }
    if (r < 0)
        return err_set(&q->dead, ERR_PROTOCOL, "QEMU at '%s': %s", q->path,
                       e.msg);
    if (r == 0)
        return 0;
    *ret = j;
    return 1;
}

/* Hand an event on; false when the message is none. */
static bool
take_event(struct qmp *q, const struct jv *m)
{
    const char *name = jv_str(jv_get(m, "event"));

    if (name == NULL)
        return false;
    if (q->on_event != NULL)
        q->on_event(q->on_event_arg, name, jv_get(m, "data"));
    return true;
}

/* Read what the socket has into the buffer. */
static int
fill(struct qmp *q, const char *what, unsigned timeout_ms,
     struct deadline until)
{
    uint8_t data[READ_SIZE];
    struct err e = ERR_INIT;
    size_t len = 0;
    enum wire w = wire_recv(q->fd, data, sizeof data, &len, until);

    if (w != WIRE_OK)
        return broken(q, w, what, timeout_ms);
    if (frame_add(&q->in, data, len, &e) < 0)
        return err_set(&q->dead, e.code, "QEMU at '%s': %s", q->path, e.msg);
    return 0;
}

/* Wait for a message that is no event. */
static int
wait_message(struct qmp *q, const char *what, unsigned timeout_ms,
             struct deadline until, struct jv **ret)
{
    for (;;) {
        CLEANUP_JV struct jv *m = NULL;
        int r = next_message(q, &m);

        if (r < 0)
            return -1;
        if (r == 1) {
            if (take_event(q, m))
                continue;
            *ret = TAKE_PTR(m);
            return 0;
        }
        /* Asked here too: a flood of events must not push the deadline. */
        if (deadline_left(until) == 0)
            return broken(q, WIRE_TIMEOUT, what, timeout_ms);
        if (fill(q, what, timeout_ms, until) < 0)
            return -1;
    }
}

/* -- commands -------------------------------------------------------------- */

static int
send_command(struct qmp *q, const char *command, struct jv *args,
             unsigned timeout_ms, struct deadline until, struct err *err)
{
    CLEANUP_JV struct jv *arguments = args;
    CLEANUP_JV struct jv *j = jv_object();
    CLEANUP_FREE char *text = NULL;
    size_t len;
    enum wire w;

    (void)snprintf(q->id, sizeof q->id, "tm-%s-%" PRIu64, q->nonce,
                   ++q->n_sent);
    if (jv_set_str(j, "execute", command) < 0 ||
        (arguments != NULL &&
         jv_set(j, "arguments", TAKE_PTR(arguments)) < 0) ||
        jv_set_str(j, "id", q->id) < 0 || (text = jv_text(j, false)) == NULL)
        return err_set_errno(err, ENOMEM, "command '%s'", command);
    len = strlen(text);
    text_trace("qmp ->", text, len);
    text[len] = '\n'; /* in place of the NUL: from here on it is no string */
    w = wire_send(q->fd, text, len + 1, until);
    if (w == WIRE_OK)
        return 0;
    (void)broken(q, w, command, timeout_ms);
    return bury(q, err);
}

/* Is `m` the answer to the command under way? */
static int
check_reply(struct qmp *q, const char *command, const struct jv *m)
{
    const char *id = jv_str(jv_get(m, "id"));
    const char *desc = jv_get_str(m, "error.desc");
    char text[256];

    if (id == NULL || strcmp(id, q->id) != 0)
        return err_set(&q->dead, ERR_PROTOCOL,
                       "'%s' on '%s': QEMU sent a reply that is not to this "
                       "command%s%s",
                       command, q->path, desc != NULL ? ": " : "",
                       desc != NULL
                           ? text_clean(desc, strlen(desc), text, sizeof text)
                           : "");
    if ((jv_get(m, "return") != NULL) == jv_is_object(jv_get(m, "error")))
        return err_set(&q->dead, ERR_PROTOCOL,
                       "'%s' on '%s': QEMU sent a reply that is neither a "
                       "result nor an error",
                       command, q->path);
    return 0;
}

static int
remote_error(struct qmp *q, const char *command, const struct jv *m,
             struct err *err)
{
    const char *cls = jv_get_str(m, "error.class");
    const char *desc = jv_get_str(m, "error.desc");

    cls = cls != NULL ? cls : "GenericError";
    desc = desc != NULL ? desc : "no reason given";
    (void)text_clean(cls, strlen(cls), q->error_class, sizeof q->error_class);
    (void)text_clean(desc, strlen(desc), q->error_desc, sizeof q->error_desc);
    return err_set(err, ERR_REMOTE, "QEMU refused '%s': %s (%s)", command,
                   q->error_desc, q->error_class);
}

int
qmp_call(struct qmp *q, const char *command, struct jv *args,
         unsigned timeout_ms, struct jv **ret, struct err *err)
{
    struct deadline until = deadline_in(timeout_ms);
    CLEANUP_JV struct jv *m = NULL;

    if (q->dead.code != ERR_NONE) {
        jv_free(args);
        return err_copy(err, &q->dead);
    }
    q->error_class[0] = q->error_desc[0] = '\0';
    if (send_command(q, command, args, timeout_ms, until, err) < 0)
        return -1;
    if (wait_message(q, command, timeout_ms, until, &m) < 0 ||
        check_reply(q, command, m) < 0)
        return bury(q, err);
    if (jv_get(m, "error") != NULL)
        return remote_error(q, command, m, err);
    if (ret != NULL)
        *ret = jv_ref(jv_get(m, "return"));
    return 0;
}

const char *
qmp_error_class(const struct qmp *q)
{
    return q->error_class;
}

const char *
qmp_error_desc(const struct qmp *q)
{
    return q->error_desc;
}

/* -- events ---------------------------------------------------------------- */

void
qmp_on_event(struct qmp *q, qmp_event_fn fn, void *arg)
{
    q->on_event = fn;
    q->on_event_arg = arg;
}

/* Hand on all events of the buffer; the number of them, or -1. */
static int
drain_events(struct qmp *q)
{
    int n = 0, r;

    for (;;) {
        CLEANUP_JV struct jv *m = NULL;

        r = next_message(q, &m);
        if (r <= 0)
            return r < 0 ? -1 : n;
        if (!take_event(q, m))
            return err_set(&q->dead, ERR_PROTOCOL,
                           "QEMU at '%s' sent a reply to no command", q->path);
        n++;
    }
}

int
qmp_pump(struct qmp *q, unsigned timeout_ms, struct err *err)
{
    struct deadline until = deadline_in(timeout_ms);
    struct pollfd p = {.fd = q->fd, .events = POLLIN};

    if (q->dead.code != ERR_NONE)
        return err_copy(err, &q->dead);
    for (;;) {
        int n = drain_events(q);

        if (n < 0)
            return bury(q, err);
        if (n > 0)
            return 0;
        n = poll(&p, 1, deadline_left(until));
        if (n < 0 && errno != EINTR)
            return err_set_errno(err, errno, "wait for events on '%s'",
                                 q->path);
        if (n == 0)
            return 0;
        if (n > 0 && fill(q, "wait for events", timeout_ms, until) < 0)
            return bury(q, err);
    }
}

/* -- connecting ------------------------------------------------------------ */

/* A QMP server's first byte is '{'.  Everything else is told at once: an NBD
 * server, for one, sends no end of a line and would look like silence. */
static int
check_first_byte(struct qmp *q)
{
    const uint8_t *p = NULL;
    size_t n = frame_pending(&q->in, &p), i = 0;
    const char *guess = "";
    char text[24];

    while (i < n && (p[i] == '\r' || p[i] == '\n' || p[i] == ' '))
        i++;
    if (i == n || p[i] == '{')
        return 0;
    if (n - i >= 3 && memcmp(p + i, "NBD", 3) == 0)
        guess = " (an NBD server)";
    else if (n - i >= 4 && memcmp(p + i, "QEMU", 4) == 0)
        guess = " (the human monitor)";
    return err_set(&q->dead, ERR_PROTOCOL,
                   "'%s' is no QMP socket: it sent '%s'%s; give the socket of "
                   "QEMU's -qmp option",
                   q->path,
                   text_clean((const char *)p + i, n - i, text, sizeof text),
                   guess);
}

static int
no_greeting(struct qmp *q, unsigned timeout_ms)
{
    err_clear(&q->dead);
    return err_set(&q->dead, ERR_TIMEOUT,
                   "'%s' sent no QMP greeting within %u ms; is another program "
                   "connected to it (QEMU serves one), is QEMU stopped, or is "
                   "it the guest agent's socket?",
                   q->path, timeout_ms);
}

static int
parse_greeting(struct qmp *q, const struct jv *m)
{
    uint64_t v[3] = {0};
    const struct jv *version = jv_path(m, "QMP.version.qemu");

    if (jv_get(m, "QMP") == NULL)
        return err_set(&q->dead, ERR_PROTOCOL,
                       "'%s' is no QMP socket: it began with something that is "
                       "no greeting; is it the guest agent's socket?",
                       q->path);
    if (!jv_get_uint(version, "major", &v[0]) ||
        !jv_get_uint(version, "minor", &v[1]) ||
        !jv_get_uint(version, "micro", &v[2]) || v[0] > 10000 || v[1] > 10000 ||
        v[2] > 10000)
        return err_set(&q->dead, ERR_PROTOCOL,
                       "the QMP greeting of '%s' has no version", q->path);
    q->version.major = (unsigned)v[0];
    q->version.minor = (unsigned)v[1];
    q->version.micro = (unsigned)v[2];
    return 0;
}

static int
greet(struct qmp *q, unsigned timeout_ms, struct deadline until)
{
    CLEANUP_JV struct jv *m = NULL;

    while (frame_pending(&q->in, NULL) == 0)
        if (fill(q, "greeting", timeout_ms, until) < 0)
            return q->dead.code == ERR_TIMEOUT ? no_greeting(q, timeout_ms)
                                               : -1;
    if (check_first_byte(q) < 0)
        return -1;
    if (wait_message(q, "greeting", timeout_ms, until, &m) < 0)
        return q->dead.code == ERR_TIMEOUT ? no_greeting(q, timeout_ms) : -1;
    return parse_greeting(q, m);
}

static int
new_qmp(const char *path, struct qmp **ret, struct err *err)
{
    struct qmp *q = calloc(1, sizeof *q);
    uint8_t nonce[8];

    if (q != NULL)
        q->path = strdup(path);
    if (q == NULL || q->path == NULL) {
        free(q);
        return err_set_errno(err, ENOMEM, "connection to '%s'", path);
    }
    q->fd = -1;
    frame_init(&q->in, QMP_LINE_MAX);
    rand_bytes(nonce, sizeof nonce);
    hex_encode(nonce, sizeof nonce, q->nonce);
    *ret = q;
    return 0;
}

/* Nobody listens, most often because the machine is off. */
static int
no_socket(const char *path, struct err *err)
{
    struct err why = ERR_INIT;

    (void)err_copy(&why, err);
    if (err == NULL || err == ERR_ABORT)
        return -1;
    err_clear(err);
    (void)err_set(err, why.code,
                  "QMP: %s; is the machine running, and '%s' the socket of "
                  "its -qmp option?",
                  why.msg, path);
    err->sys = why.sys;
    return -1;
}

/* SO_PEERCRED has who called listen(); QEMU may have changed its user since
 * (-runas).  The directory of a process belongs to whom it runs as. */
static void
look_owner(struct ucred *peer)
{
    char path[32];
    struct stat st;

    (void)snprintf(path, sizeof path, "/proc/%d", (int)peer->pid);
    if (peer->pid > 0 && stat(path, &st) == 0) {
        peer->uid = st.st_uid;
        peer->gid = st.st_gid;
    }
}

int
qmp_connect(const char *path, unsigned timeout_ms, struct qmp **ret,
            struct err *err)
{
    struct deadline until = deadline_in(timeout_ms);
    CLEANUP(qmp_closep) struct qmp *q = NULL;
    socklen_t len = sizeof q->peer;

    if (new_qmp(path, &q, err) < 0)
        return -1;
    q->fd = io_connect_unix(path, timeout_ms, err);
    if (q->fd < 0)
        return no_socket(path, err);
    if (getsockopt(q->fd, SOL_SOCKET, SO_PEERCRED, &q->peer, &len) < 0)
        return err_set_errno(err, errno, "ask who serves '%s'", path);
    look_owner(&q->peer);
    if (greet(q, timeout_ms, until) < 0)
        return err_copy(err, &q->dead);
    if (qmp_call(q, "qmp_capabilities", NULL, (unsigned)deadline_left(until),
                 NULL, err) < 0)
        return -1;
    *ret = TAKE_PTR(q);
    return 0;
}

void
qmp_close(struct qmp *q)
{
    if (q == NULL)
        return;
    if (q->fd >= 0)
        (void)close(q->fd);
    frame_done(&q->in);
    free(q->path);
    free(q);
}

struct qmp_version
qmp_version(const struct qmp *q)
{
    return q->version;
}

bool
qmp_older(const struct qmp *q, unsigned major, unsigned minor, unsigned micro)
{
    if (q->version.major != major)
        return q->version.major < major;
    if (q->version.minor != minor)
        return q->version.minor < minor;
    return q->version.micro < micro;
}

void
qmp_peer(const struct qmp *q, unsigned *uid, unsigned *gid, int *pid)
{
    *uid = q->peer.uid;
    *gid = q->peer.gid;
    *pid = q->peer.pid;
}
