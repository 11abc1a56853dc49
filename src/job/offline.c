#include "offline.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "address.h"
#include "cleanup.h"
#include "err.h"
#include "job.h"
#include "jv.h"
#include "log.h"
#include "repo.h"

#define DEPTH_MAX 32 /* of a file name that QEMU wrote as JSON */

/* The first path in QEMU's description of a node; innermost "file". */
static const char *
path_in(const struct jv *node)
{
    const char *path = jv_get_str(node, "filename");

    for (unsigned i = 0; path == NULL && node != NULL && i < DEPTH_MAX; i++) {
        node = jv_get(node, "file");
        path = jv_get_str(node, "filename");
    }
    return path;
}

/* The file of a disk, links resolved; NULL when there is none on this host. */
static char *
file_of(const struct point_disk *d)
{
    const char *text = jv_get_str(d->source, "file");
    CLEANUP_JV struct jv *node = NULL;

    if (text != NULL && strncmp(text, "json:", 5) == 0 &&
        jv_parse(text + 5, strlen(text + 5), DEPTH_MAX, &node, NULL) == 0)
        text = path_in(node);
    return text != NULL && text[0] == '/' ? realpath(text, NULL) : NULL;
}

static bool
point_has(const struct point *p, const char *real)
{
    for (size_t i = 0; i < p->n_disks; i++) {
        CLEANUP_FREE char *file = file_of(&p->disks[i]);

        if (file != NULL && strcmp(file, real) == 0)
            return true;
    }
    return false;
}

/* All images of the address are disks of this point. */
static bool
point_has_all(const struct point *p, const struct address *at)
{
    for (size_t i = 0; i < at->n_images; i++) {
        CLEANUP_FREE char *real = realpath(at->images[i].path, NULL);

        if (real == NULL || !point_has(p, real))
            return false;
    }
    return at->n_images > 0;
}

/* Points are sorted by machine; the last one of each is its newest. */
static int
find_machine(const struct point_list *l, const struct address *at,
             struct offline_known *k, struct err *err)
{
    for (size_t i = 0; i < l->n; i++) {
        const struct point *p = l->v[i];

        if (i + 1 < l->n && strcmp(l->v[i + 1]->machine, p->machine) == 0)
            continue;
        if (!point_has_all(p, at))
            continue;
        k->several = k->machine != NULL;
        if (k->several)
            break;
        k->machine = strdup(p->machine);
        if (k->machine == NULL)
            return err_set_errno(err, ENOMEM, "name of the machine");
    }
    if (k->several)
        free(TAKE_PTR(k->machine));
    return 0;
}

static bool
is_known(const struct offline_known *k, const char *file, const char *name)
{
    for (size_t i = 0; i < k->n; i++)
        if (strcmp(k->v[i].file, file) == 0 || strcmp(k->v[i].name, name) == 0)
            return true;
    return false;
}

static int
add_known(struct offline_known *k, const struct point_disk *d, struct err *err)
{
    CLEANUP_FREE char *file = file_of(d);
    struct source_known *v;

    if (file == NULL || is_known(k, file, d->name))
        return 0;
    v = realloc(k->v, (k->n + 1) * sizeof *v);
    if (v == NULL)
        return err_set_errno(err, ENOMEM, "names of disks");
    k->v = v;
    v[k->n].name = strdup(d->name);
    if (v[k->n].name == NULL)
        return err_set_errno(err, ENOMEM, "names of disks");
    v[k->n++].file = TAKE_PTR(file);
    return 0;
}

/* Newest first: what a disk was called last counts. */
static int
know_names(const struct point_list *l, struct offline_known *k,
           const char *machine, struct err *err)
{
    for (size_t i = l->n; i > 0; i--) {
        const struct point *p = l->v[i - 1];

        if (strcmp(p->machine, machine) != 0)
            continue;
        for (size_t n = 0; n < p->n_disks; n++)
            if (add_known(k, &p->disks[n], err) < 0)
                return -1;
    }
    return 0;
}

int
offline_know(struct repo *r, const struct job_backup_opts *opts,
             struct offline_known *ret, struct err *err)
{
    CLEANUP(address_done) struct address at = {0};
    CLEANUP(point_list_done) struct point_list list = {0};
    CLEANUP_JV struct jv *bad = NULL;
    const char *text = opts->source.offline;
    const char *name;

    if (text == NULL)
        text = opts->machine;
    if (strncmp(text, "file:", 5) != 0)
        return 0;
    if (address_parse(text, &at, err) < 0)
        return err_side(err, ERR_SIDE_MACHINE);
    if (repo_points(r, opts->name, &list, &bad, err) < 0)
        return err_side(err, ERR_SIDE_REPO);
    if (opts->name == NULL && find_machine(&list, &at, ret, err) < 0)
        return -1;
    name = opts->name != NULL ? opts->name : ret->machine;
    return name != NULL ? know_names(&list, ret, name, err) : 0;
}

void
offline_known_done(struct offline_known *k)
{
    for (size_t i = 0; i < k->n; i++) {
        free((char *)(uintptr_t)k->v[i].file);
        free((char *)(uintptr_t)k->v[i].name);
    }
    free(k->v);
    free(k->machine);
    *k = (struct offline_known){0};
}

const char *
offline_machine(const struct offline_known *k, const char *address,
                struct err *err)
{
    if (k->machine == NULL)
        (void)err_set(
            err, ERR_USAGE,
            "machine '%s' is off and cannot tell its name, and all of "
            "these images are in the newest point of %s: give the "
            "name with --name",
            address, k->several ? "more than one machine" : "no machine");
    return k->machine;
}

int
offline_config(struct repo *r, struct repo_session *session,
               const struct point_list *points, struct chunk_id *ret,
               uint64_t *ret_len, struct err *err)
{
    *ret_len = 0;
    for (size_t i = points->n; i > 0; i--) {
        const struct point *p = points->v[i - 1];
        CLEANUP_FREE uint8_t *text = NULL;
        struct err why = ERR_INIT;

        if (p->config_len == 0)
            continue;
        if (repo_get_blob(r, &p->config, p->config_len, &text, &why) < 0) {
            log_debug("configuration of point %s: %s", p->id, why.msg);
            continue;
        }
        if (repo_put_blob(session, text, p->config_len, ret, err) < 0)
            return err_side(err, ERR_SIDE_REPO);
        *ret_len = p->config_len;
        return 0;
    }
    return 0;
}
