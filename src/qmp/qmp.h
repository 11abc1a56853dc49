/* qmp/qmp.h - a QMP client over a Unix socket.
 *
 * One connection, one command at a time, events at any time.  Every wait has a
 * deadline.  A connection on which a deadline passed, that closed, or on which
 * QEMU broke the protocol is dead: every later call fails at once with the
 * same error, because a late reply could otherwise be taken for the next one's.
 *
 * Input is limited (QMP_LINE_MAX bytes a message, JV_DEPTH_MAX levels).
 * Errors name the command and carry QEMU's class and text.
 * Specification: QEMU docs/interop/qmp-spec.
 * Threads: a struct qmp belongs to one thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct jv;
struct qmp;

#define QMP_LINE_MAX (64u << 20) /* query-qmp-schema is about 0.2 MiB */
#define QMP_TIMEOUT_MS 30000u    /* what a healthy QEMU never needs */

struct qmp_version {
    unsigned major, minor, micro;
};

/* Connect to `path`, read the greeting, negotiate capabilities; all within
 * `timeout_ms`.  -1 with ERR_TIMEOUT when there is no greeting (another client
 * is connected: QEMU serves one), ERR_PROTOCOL when the peer is no QMP server. */
int qmp_connect(const char *path, unsigned timeout_ms, struct qmp **ret,
                struct err *err);

/* Close and free; NULL is fine. */
void qmp_close(struct qmp *q);

struct qmp_version qmp_version(const struct qmp *q);
/* True when QEMU is older than the given version. */
bool qmp_older(const struct qmp *q, unsigned major, unsigned minor,
               unsigned micro);
/* The socket's peer: uid/gid of the QEMU process, pid; from SO_PEERCRED. */
void qmp_peer(const struct qmp *q, unsigned *uid, unsigned *gid, int *pid);

/* Run one command.  `args` (reference stolen, also on failure) may be NULL.
 * 0: *ret, when asked for, is the "return" value, owned by the caller.
 * -1: ERR_REMOTE when QEMU answered with an error; qmp_error_class() then gives
 * its class.  Events that arrive meanwhile go to the handler. */
int qmp_call(struct qmp *q, const char *command, struct jv *args,
             unsigned timeout_ms, struct jv **ret, struct err *err);

/* Class of the last ERR_REMOTE ("GenericError", "DeviceNotFound", ...), else "". */
const char *qmp_error_class(const struct qmp *q);
/* QEMU's own text of the last ERR_REMOTE without our context, else "". */
const char *qmp_error_desc(const struct qmp *q);

/* Called for every event, from inside qmp_call() and qmp_pump(); `data` may be
 * NULL and is borrowed.  The handler must not call into this qmp. */
typedef void (*qmp_event_fn)(void *arg, const char *name,
                             const struct jv *data);
void qmp_on_event(struct qmp *q, qmp_event_fn fn, void *arg);

/* Wait up to `timeout_ms` (0: only look) for events and hand them on.  0 when
 * the time passed or events were handled, -1 when the connection is dead. */
int qmp_pump(struct qmp *q, unsigned timeout_ms, struct err *err);

/* -- what this QEMU can do: query-qmp-schema, never version numbers --------- */

struct qmp_schema;

/* Ask QEMU for its schema and keep it.  The caller frees. */
int qmp_schema_load(struct qmp *q, struct qmp_schema **ret, struct err *err);
/* The same from a parsed reply (reference stolen); for tests. */
int qmp_schema_parse(struct jv *reply, struct qmp_schema **ret,
                     struct err *err);
void qmp_schema_free(struct qmp_schema *s);

/* Is there a command or event of this name? */
bool qmp_schema_command(const struct qmp_schema *s, const char *command);

/* Walk from a command's arguments.  Each step of `path`, divided by '/', is a
 * member name; "name=value" selects the variant of the union that `name` tells
 * apart (and the step fails when there is no such variant).  "[]" steps into
 * an array's element.  Examples:
 *   qmp_schema_has(s, "blockdev-backup", "on-cbw-error")
 *   qmp_schema_has(s, "blockdev-add", "driver=snapshot-access")
 *   qmp_schema_has(s, "blockdev-add", "driver=copy-before-write/bitmap")
 *   qmp_schema_has(s, "query-named-block-nodes", "flat") */
bool qmp_schema_has(const struct qmp_schema *s, const char *command,
                    const char *path);

/* Meta type ("builtin", "enum", "array", "object", "alternate") of the thing
 * the path leads to, or NULL.  The elements of block-export-add's
 * "type=nbd/bitmaps/[]" are an alternate since QEMU 7.1. */
const char *qmp_schema_meta(const struct qmp_schema *s, const char *command,
                            const char *path);
