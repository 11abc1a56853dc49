/* source/identity.h - which process of which host has which files.
 *
 * A bitmap that is gone says nothing about where it went.  What tells is whether
 * the same process still runs, on the same host, on the same image: this is
 * kept with every point (docs/format.md, `source`) and compared by the next run.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct err;
struct jv;
struct source;

/* Adds to each disk's info "instance": {"host", "boot", "pid", "start", "uuid"}
 * and to its chain "bytes", "mtime_ns" and "inode" of files that are here.  What
 * cannot be found out is left away. */
int identity_fill(struct source *s, struct err *err);

/* Pure: start time (clock ticks since boot) in the text of /proc/PID/stat, whose
 * second field is whatever the process calls itself.  -1: not found. */
int identity_start(const char *stat, size_t len, uint64_t *ret);

/* Pure: 16 hex digits that stand for the text of /etc/machine-id and do not give
 * it away; "" for an empty one. */
void identity_host(const char *id, size_t len, char out[17]);
