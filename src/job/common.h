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
void hooks_scratch(const struct job_hooks *h, uint64_t bytes);
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

/* Tags of a point: few enough words, NULL-terminated; NULL is fine. */
int name_check_tags(const char *const *tags, struct err *err);

/* True when the NULL-terminated list has `name`; a NULL list has nothing. */
bool name_in(const char *const *list, const char *name);

/* -- repositories ------------------------------------------------------------*/

/* Its errors are the repository's. */
int open_repo(const char *path, struct repo **ret, struct err *err);

/* With whom job_set_unlock() named. */
struct keyring;
int unlock_keyring(struct keyring *k, struct err *err);
/* The same for the first passphrase of a new repository. */
struct repo_init_opts;
void unlock_for_init(struct repo_init_opts *opts);

/* -- points -----------------------------------------------------------------*/

/* The summary of a point; `all` adds what only a close look needs (roots,
 * generations, captured source).  NULL when there is no memory. */
struct jv *point_json(const struct point *p, bool all);

/* What names a point in a report: machine, id, number, time, tags. */
struct jv *point_json_short(const struct point *p);

/* When all that the point needs was last read and found good, or null. */
struct jv *verified_json(const struct repo_verified *d, const char *point_id);

/* Find the one point that `spec` means and all points of its machine, which
 * the caller releases with point_list_done().  A relative name is refused when a
 * commit object of the machine is damaged, because then nobody can say whether
 * "latest" is the latest. */
int point_pick(struct repo *r, const char *spec, struct point_list *ret_list,
               const struct point **ret, struct err *err);

/* The machine's configuration as it was stored with the point. */
int point_config(struct repo *r, const struct point *p, struct jv **ret,
                 struct err *err);
