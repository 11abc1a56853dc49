/* qmp/agent.h - the QEMU guest agent.
 *
 * Whatever comes from this socket was written by the guest and is hostile:
 * answers are limited in size (AGENT_LINE_MAX, AGENT_DEPTH_MAX), time, and
 * type, and no value decides a path or a length.
 * Before each use the stream is brought in step with guest-sync-delimited and
 * a fresh random id: half a line, garbage, and late replies of an earlier
 * (perhaps dead) client are thrown away up to the 0xFF that precedes our echo.
 * After a timeout the connection must be synchronised again; each call does
 * that by itself when the one before failed.
 * Source: QEMU qga/qapi-schema.json, guest-sync-delimited.
 * Threads: an agent belongs to one thread.
 */
#pragma once

#include <stdbool.h>

struct agent;
struct err;
struct jv;

#define AGENT_LINE_MAX (1u << 20)
#define AGENT_DEPTH_MAX 16u

/* Connect and synchronise within `timeout_ms`. */
int agent_open(const char *path, unsigned timeout_ms, struct agent **ret,
               struct err *err);
void agent_close(struct agent *a); /* NULL is fine */

int agent_sync(struct agent *a, unsigned timeout_ms, struct err *err);
int agent_ping(struct agent *a, unsigned timeout_ms, struct err *err);

/* guest-fsfreeze-freeze: *ret_count file systems were frozen.  0 of them is
 * success for the agent; the caller must not call that "consistent". */
int agent_freeze(struct agent *a, unsigned timeout_ms, unsigned *ret_count,
                 struct err *err);
int agent_thaw(struct agent *a, unsigned timeout_ms, unsigned *ret_count,
               struct err *err);
int agent_frozen(struct agent *a, unsigned timeout_ms, bool *ret_frozen,
                 struct err *err);

/* guest-get-fsinfo, guest-get-osinfo as they come; *ret owned by the caller. */
int agent_fsinfo(struct agent *a, unsigned timeout_ms, struct jv **ret,
                 struct err *err);
int agent_osinfo(struct agent *a, unsigned timeout_ms, struct jv **ret,
                 struct err *err);
