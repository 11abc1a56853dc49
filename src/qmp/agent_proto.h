/* qmp/agent_proto.h - what the guest agent's lines mean.
 *
 * Pure: a line in, a value or an error out.  All of it is the guest's text, so
 * every value is checked for type and range here and nowhere else.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct frame;
struct jv;

/* More file systems than any guest mounts; beyond it the agent lies. */
#define AGENT_COUNT_MAX 65536

/* Take lines out of `f` until one is the answer to guest-sync-delimited with
 * `id`; everything before it is dropped, whatever it is.  False: not there
 * yet. */
bool agent_find_sync(struct frame *f, int64_t id);

/* The reply to `command`: 0 with its "return" value, owned by the caller; -1
 * with ERR_REMOTE when the agent reports an error, else ERR_PROTOCOL. */
int agent_parse_reply(const char *line, size_t len, const char *command,
                      struct jv **ret, struct err *err);

/* A number of file systems. */
int agent_parse_count(const struct jv *value, const char *command,
                      unsigned *ret, struct err *err);

/* "frozen" or "thawed". */
int agent_parse_status(const struct jv *value, bool *ret_frozen,
                       struct err *err);
