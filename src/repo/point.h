/* repo/point.h - points as JSON, inside the repo folder.
 *
 * Fields and limits: docs/format.md, "Points".  What is read back was written by
 * any host that may write to the repository, so every field is checked here,
 * once, and the same check stands before every commit: what cannot be read
 * back is never written.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct jv;
struct point;

#define POINT_NAME_MAX 255   /* bytes of a machine's or disk's name */
#define POINT_TEXT_MAX 1024  /* bytes of a reason */
#define POINT_LABEL_MAX 32   /* "crash", "pull", "qcow2" */
#define POINT_DISKS_MAX 1024 /* per machine */
#define POINT_SEQ_MAX INT64_MAX
#define POINT_CONFIG_MAX (16u << 20)

/* Printable UTF-8 of 1 .. 255 bytes without '/', and not "." or "..". */
bool point_name_ok(const char *name);

/* All limits, of a point as read or about to be written. */
int point_check(const struct point *p, struct err *err);

/* The "point" object of a commit; `prev` is the SHA-256 of the parent's commit
 * object, NULL for the first point of a machine.  NULL: *err is set. */
struct jv *point_to_json(const struct point *p, const uint8_t *prev,
                         struct err *err);

/* And back.  *ret_has_prev says whether `ret_prev` (32 bytes) was filled. */
int point_from_json(const struct jv *j, struct point **ret, uint8_t *ret_prev,
                    bool *ret_has_prev, struct err *err);
