/* job/common.h - what every job needs: hooks, names, points as JSON. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "repo.h"

struct err;
struct job_hooks;
struct jv;

/* -- hooks; `h` and each of its members may be NULL --------------------------*/

bool hooks_canceled(const struct job_hooks *h);
void hooks_progress(const struct job_hooks *h, const char *phase, uint64_t done,
                    uint64_t total);
/* Reference stolen; NULL (no memory) is dropped, for an event is not a result. */
void hooks_event(const struct job_hooks *h, struct jv *event);
/* {"event":"note","message":...}: worth reading, nothing to act upon. */
void hooks_note(const struct job_hooks *h, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* -- names ------------------------------------------------------------------*/

#define NAME_LEN_MAX 255

/* A machine's name is the part of a point's name before '@' and a directory
 * name for people: printable, without '/' and '@'. */
int name_check_machine(const char *name, struct err *err);

/* A disk's name becomes a file name at restore, with up to 30 bytes around it.
 * Names come from QEMU, and later from a repository that somebody may have
 * written to: both ways are checked. */
int name_check_disk(const char *name, struct err *err);

/* True when the NULL-terminated list has `name`; a NULL list has nothing. */
bool name_in(const char *const *list, const char *name);

/* -- points -----------------------------------------------------------------*/

/* The summary of a point; `all` adds what only a close look needs (roots,
 * generations, captured source).  NULL when there is no memory. */
struct jv *point_json(const struct point *p, bool all);

/* Find the one point that `spec` means and all points of its machine, which
 * the caller releases with point_list_done().  A relative name is refused when a
 * commit object of the machine is damaged, because then nobody can say whether
 * "latest" is the latest. */
int point_pick(struct repo *r, const char *spec, struct point_list *ret_list,
               const struct point **ret, struct err *err);

/* The machine's configuration as it was stored with the point. */
int point_config(struct repo *r, const struct point *p, struct jv **ret,
                 struct err *err);
