/* The block layer commands that Tidemark uses.
 *
 * The four *_end() functions have one shape: look whether the thing is there;
 * not there is the goal; else push and wait a moment.  Looking comes first,
 * because after a crash of ours nobody knows in which state it is, and because
 * QEMU's refusals ("is not found", "is in use") differ only in their text,
 * which is for people.
 */
#include "block.h"

#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "err.h"
#include "jv.h"
#include "qmp.h"

#define POLL_MS 50u

/* One run of an *_end() function. */
struct ending {
    struct qmp *q;
    const char *what, *name; /* for messages */
    unsigned timeout_ms;     /* of the whole, and of each command in it: one
                                that is cut short costs the connection */
    struct deadline until;
    bool pushed;    /* QEMU accepted the command that ends it */
    struct err why; /* QEMU's last refusal */
};

static struct ending
begin(struct qmp *q, const char *what, const char *name, unsigned timeout_ms)
{
    struct ending e = {.q = q,
                       .what = what,
                       .name = name,
                       .timeout_ms = timeout_ms,
                       .until = deadline_in(timeout_ms)};

    return e;
}

static int
ask(const struct ending *e, const char *command, struct jv **ret,
    struct err *err)
{
    return qmp_call(e->q, command, NULL, e->timeout_ms, ret, err);
}

/* Send a command that may be refused: the refusal is kept, and told only if
 * nothing helps.  -1 for every other failure. */
static int
push(struct ending *e, const char *command, struct jv *args, struct err *err)
{
    err_clear(&e->why);
    e->pushed = false;
    if (args == NULL)
        return err_set_errno(err, ENOMEM, "command '%s'", command);
    e->pushed =
        qmp_call(e->q, command, args, e->timeout_ms, NULL, &e->why) == 0;
    if (!e->pushed && e->why.code != ERR_REMOTE)
        return err_copy(err, &e->why);
    return 0;
}

/* Wait a moment, or for the next event.  -1 when the time is over. */
static int
moment(const struct ending *e, const char *state, struct err *err)
{
    if (deadline_left(e->until) > 0)
        return qmp_pump(e->q, POLL_MS, err);
    if (e->why.code != ERR_NONE)
        return err_copy(err, &e->why);
    return err_set(err, ERR_TIMEOUT, "%s '%s' is still %s after %u ms", e->what,
                   e->name, state, e->timeout_ms);
}

static int
still_listed(const struct ending *e, struct err *err)
{
    return err_set(err, ERR_PROTOCOL, "QEMU removed %s '%s' but still lists it",
                   e->what, e->name);
}

/* The element of `array` whose `key` is `value`, borrowed. */
static const struct jv *
pick(const struct jv *array, const char *key, const char *value)
{
    for (size_t i = 0; i < jv_size(array); i++) {
        const char *s = jv_str(jv_get(jv_at(array, i), key));

        if (s != NULL && strcmp(s, value) == 0)
            return jv_at(array, i);
    }
    return NULL;
}

/* -- nodes and bitmaps ----------------------------------------------------- */

static int
nodes(struct qmp *q, unsigned timeout_ms, struct jv **ret, struct err *err)
{
    CLEANUP_JV struct jv *j = NULL;
    struct jv *args = jv_build("{s:b}", "flat", 1);

    if (args == NULL)
        return err_set_errno(err, ENOMEM, "list of block nodes");
    if (qmp_call(q, "query-named-block-nodes", args, timeout_ms, &j, err) < 0)
        return -1;
    if (!jv_is_array(j))
        return err_set(err, ERR_PROTOCOL, "QEMU's list of block nodes is none");
    *ret = TAKE_PTR(j);
    return 0;
}

int
qmp_block_nodes(struct qmp *q, struct jv **ret, struct err *err)
{
    return nodes(q, QMP_TIMEOUT_MS, ret, err);
}

const struct jv *
qmp_block_find(const struct jv *array, const char *name)
{
    return pick(array, "node-name", name);
}

const struct jv *
qmp_block_bitmap(const struct jv *node, const char *name)
{
    return pick(jv_get(node, "dirty-bitmaps"), "name", name);
}

int
qmp_node_end(struct qmp *q, const char *node, unsigned timeout_ms,
             struct err *err)
{
    struct ending e = begin(q, "node", node, timeout_ms);

    for (;;) {
        CLEANUP_JV struct jv *all = NULL;

        if (nodes(q, timeout_ms, &all, err) < 0)
            return -1;
        if (qmp_block_find(all, node) == NULL)
            return 0;
        if (e.pushed)
            return still_listed(&e, err);
        if (push(&e, "blockdev-del", jv_build("{s:s}", "node-name", node),
                 err) < 0)
            return -1;
        if (!e.pushed && moment(&e, "there", err) < 0)
            return -1;
    }
}

/* A bitmap of a node that is gone is gone with it. */
int
qmp_bitmap_end(struct qmp *q, const char *node, const char *name,
               unsigned timeout_ms, struct err *err)
{
    struct ending e = begin(q, "bitmap", name, timeout_ms);

    for (;;) {
        CLEANUP_JV struct jv *all = NULL;

        if (nodes(q, timeout_ms, &all, err) < 0)
            return -1;
        if (qmp_block_bitmap(qmp_block_find(all, node), name) == NULL)
            return 0;
        if (e.pushed)
            return still_listed(&e, err);
        if (push(&e, "block-dirty-bitmap-remove",
                 jv_build("{s:s,s:s}", "node", node, "name", name), err) < 0)
            return -1;
        if (!e.pushed && moment(&e, "there", err) < 0)
            return -1;
    }
}

/* -- exports --------------------------------------------------------------- */

int
qmp_export_end(struct qmp *q, const char *id, unsigned timeout_ms,
               struct err *err)
{
    struct ending e = begin(q, "export", id, timeout_ms);

    for (;;) {
        CLEANUP_JV struct jv *all = NULL;
        const struct jv *x;

        if (ask(&e, "query-block-exports", &all, err) < 0)
            return -1;
        x = pick(all, "id", id);
        if (x == NULL)
            return 0;
        if (!e.pushed && !jv_get_bool(x, "shutting-down", false)) {
            if (push(&e, "block-export-del",
                     jv_build("{s:s,s:s}", "id", id, "mode", "hard"), err) < 0)
                return -1;
            if (e.pushed && deadline_left(e.until) > 0)
                continue;
        }
        if (moment(&e, "there", err) < 0)
            return -1;
    }
}

/* -- jobs ------------------------------------------------------------------ */

/* The command that brings a job of this state nearer to its end, NULL when
 * there is nothing to do but wait.  "null" and "undefined" are never shown for
 * long: such a job is being made or freed. */
static const char *
job_command(const struct ending *e, const char *status)
{
    if (strcmp(status, "concluded") == 0)
        return "job-dismiss";
    if (strcmp(status, "aborting") == 0 || strcmp(status, "null") == 0 ||
        strcmp(status, "undefined") == 0)
        return NULL;
    return e->pushed ? NULL : "job-cancel";
}

int
qmp_job_end(struct qmp *q, const char *id, unsigned timeout_ms, struct err *err)
{
    struct ending e = begin(q, "job", id, timeout_ms);

    for (;;) {
        CLEANUP_JV struct jv *all = NULL;
        const char *status, *command;

        if (ask(&e, "query-jobs", &all, err) < 0)
            return -1;
        status = jv_str(jv_get(pick(all, "id", id), "status"));
        if (status == NULL)
            return 0;
        command = job_command(&e, status);
        if (command != NULL) {
            if (push(&e, command, jv_build("{s:s}", "id", id), err) < 0)
                return -1;
            if (e.pushed && deadline_left(e.until) > 0)
                continue;
        }
        if (moment(&e, status, err) < 0)
            return -1;
    }
}

struct jv *
qmp_action(const char *type, struct jv *data)
{
    CLEANUP_JV struct jv *owned = data;
    CLEANUP_JV struct jv *j = jv_object();

    if (jv_set_str(j, "type", type) < 0 ||
        jv_set(j, "data", TAKE_PTR(owned)) < 0)
        return NULL;
    return TAKE_PTR(j);
}

/* Dismisses a concluded job and gives its own error, if it had one. */
static int
job_result(struct ending *e, const struct jv *job, struct err *err)
{
    const char *why = jv_str(jv_get(job, "error"));
    CLEANUP_FREE char *text = strdup(why != NULL ? why : "");

    if (text == NULL)
        return err_set_errno(err, ENOMEM, "job '%s'", e->name);
    if (push(e, "job-dismiss", jv_build("{s:s}", "id", e->name), err) < 0)
        return -1;
    if (text[0] != '\0')
        return err_set(err, ERR_REMOTE, "job '%s': %s", e->name, text);
    return 0;
}

int
qmp_job_wait(struct qmp *q, const char *id, unsigned timeout_ms,
             struct err *err)
{
    struct ending e = begin(q, "job", id, timeout_ms);

    for (;;) {
        CLEANUP_JV struct jv *all = NULL;
        const struct jv *job;
        const char *status;

        if (ask(&e, "query-jobs", &all, err) < 0)
            return -1;
        job = pick(all, "id", id);
        status = jv_str(jv_get(job, "status"));
        if (status == NULL)
            return err_set(err, ERR_REMOTE, "job '%s' is gone", id);
        if (strcmp(status, "concluded") == 0)
            return job_result(&e, job, err);
        if (moment(&e, status, err) < 0)
            return -1;
    }
}
