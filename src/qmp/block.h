/* qmp/block.h - the block layer commands that Tidemark uses, typed.
 *
 * Each waits for the end of what it starts (job concluded, export deleted),
 * by asking again, not by believing that an event will come: events are lost
 * when our program was restarted in between.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct err;
struct jv;
struct qmp;

/* query-named-block-nodes, flat.  *ret is an array owned by the caller. */
int qmp_block_nodes(struct qmp *q, struct jv **ret, struct err *err);

/* The node object of `name` in such an array (borrowed), or NULL. */
const struct jv *qmp_block_find(const struct jv *nodes, const char *name);

/* The bitmap object `name` of a node object (borrowed), or NULL. */
const struct jv *qmp_block_bitmap(const struct jv *node, const char *name);

/* Delete an export (mode hard) and wait until it is gone.  An export that does
 * not exist is no error. */
int qmp_export_end(struct qmp *q, const char *id, unsigned timeout_ms,
                   struct err *err);

/* Wait until a job is concluded, dismiss it, and fail with the job's own error
 * if it had one. */
int qmp_job_wait(struct qmp *q, const char *id, unsigned timeout_ms,
                 struct err *err);

/* Cancel a job in whatever state, wait for "concluded", dismiss it.  A job that
 * does not exist is no error. */
int qmp_job_end(struct qmp *q, const char *id, unsigned timeout_ms,
                struct err *err);

/* blockdev-del; a node that does not exist is no error. */
int qmp_node_end(struct qmp *q, const char *node, unsigned timeout_ms,
                 struct err *err);

/* Remove a bitmap and check that it is gone; one that does not exist is no
 * error. */
int qmp_bitmap_end(struct qmp *q, const char *node, const char *name,
                   unsigned timeout_ms, struct err *err);

/* One action for `transaction`: {"type": type, "data": data}; steals data. */
struct jv *qmp_action(const char *type, struct jv *data);
