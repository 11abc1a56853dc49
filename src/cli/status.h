/* cli/status.h - how the machines are: judged from what a repository says.
 *
 * Pure, but for files: the present comes in as a number.  The whole status is one
 * JSON object (tidemark(1), "status"), from which the table, the line for
 * monitoring and the text for Prometheus are made.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct err;
struct jv;
struct out;

enum health { HEALTH_OK, HEALTH_WARNING, HEALTH_CRITICAL };
const char *health_name(enum health h); /* "ok", "warning", "critical" */

/* Of a machine of job_status() (NULL: it has no point), at `now_ns`: adds
 * "state", "text" and "age_s" to `o`.  Older than `max_age_ns`: a warning; than
 * twice that: critical. */
enum health status_judge(struct jv *o, const struct jv *machine, int64_t now_ns,
                         uint64_t max_age_ns);

/* "machines" of the status for people; `plain`: no configuration says which of
 * them count. */
int status_table(struct out *o, const struct jv *machines, bool plain,
                 struct err *err);

/* The status object in Prometheus' text format, for node_exporter's textfile
 * collector. */
int prometheus_text(const struct jv *status, int64_t now_ns, struct buf *b,
                    struct err *err);

/* Write `len` bytes to the file in one step, readable by all: whoever reads it
 * sees the old text or the new one. */
int prometheus_write(const char *file, const void *text, size_t len,
                     struct err *err);
