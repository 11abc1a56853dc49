#include "common.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "cleanup.h"
#include "clock.h"
#include "err.h"
#include "job.h"
#include "jv.h"
#include "keyring.h"
#include "rand.h"

bool
hooks_canceled(const struct job_hooks *h)
{
    return h != NULL && h->cancel != NULL && atomic_load(h->cancel);
}

void
hooks_progress(const struct job_hooks *h, const char *phase, uint64_t done,
               uint64_t total)
{
    if (h != NULL && h->progress != NULL)
        h->progress(h->arg, phase, done, total);
}

void
hooks_event(const struct job_hooks *h, struct jv *event)
{
    if (event != NULL && h != NULL && h->event != NULL)
        h->event(h->arg, event);
    jv_free(event);
}

void
hooks_note(const struct job_hooks *h, const char *fmt, ...)
{
    char text[ERR_MSG_MAX];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    hooks_event(
        h, jv_build("{s:s, s:o}", "event", "note", "message", jv_string(text)));
}

static bool
name_printable(const char *name)
{
    for (; *name != '\0'; name++)
        if ((unsigned char)*name < 0x20 || *name == 0x7f)
            return false;
    return true;
}

int
name_check_machine(const char *name, struct err *err)
{
    if (name[0] == '\0' || strlen(name) > NAME_LEN_MAX)
        return err_set(err, ERR_USAGE,
                       "a machine's name has 1 to %d bytes; give one with "
                       "--name",
                       NAME_LEN_MAX);
    if (!name_printable(name))
        return err_set(err, ERR_USAGE,
                       "the machine's name has control characters; give "
                       "another with --name");
    if (strpbrk(name, "/@") != NULL)
        return err_set(err, ERR_USAGE,
                       "machine name '%s' has a '/' or '@'; give another "
                       "with --name",
                       name);
    return 0;
}

int
name_check_disk(const char *name, struct err *err)
{
    if (name == NULL || name[0] == '\0' || strlen(name) > NAME_LEN_MAX - 32)
        return err_set(err, ERR_FORMAT, "a disk's name has 1 to %d bytes",
                       NAME_LEN_MAX - 32);
    if (!name_printable(name) || strchr(name, '/') != NULL ||
        strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return err_set(err, ERR_FORMAT,
                       "a disk's name cannot be used as a file's name: no "
                       "'/', no control characters, not '.' or '..'");
    return 0;
}

int
name_check_tags(const char *const *tags, struct err *err)
{
    size_t n = 0;

    for (; tags != NULL && *tags != NULL; tags++, n++)
        if (!point_tag_ok(*tags))
            return err_set(err, ERR_USAGE,
                           "tag '%.80s' is no word of 1 to 32 of a-z 0-9 - _ .",
                           *tags);
    if (n > POINT_TAGS_MAX)
        return err_set(err, ERR_USAGE, "%zu tags, a point has at most %d", n,
                       POINT_TAGS_MAX);
    return 0;
}

bool
name_in(const char *const *list, const char *name)
{
    for (; list != NULL && *list != NULL; list++)
        if (strcmp(*list, name) == 0)
            return true;
    return false;
}

static int
disk_json_all(struct jv *o, const struct point_disk *d)
{
    char root[2 * sizeof d->root.b + 1];

    hex_encode(d->root.b, sizeof d->root.b, root);
    if (jv_set_int(o, "chunk_size", d->chunk_size) < 0 ||
        jv_set_str(o, "root", root) < 0 ||
        jv_set_bool(o, "persistent", d->persistent) < 0)
        return -1;
    if (jv_set(o, "generation",
               d->generation != NULL ? jv_string(d->generation) : jv_null()) <
        0)
        return -1;
    return d->source == NULL ? 0 : jv_set(o, "source", jv_ref(d->source));
}

static struct jv *
disk_json(const struct point_disk *d, bool all)
{
    CLEANUP_JV struct jv *o = jv_build(
        "{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "disk",
        d->name, "format", d->format != NULL ? d->format : "", "tracking",
        d->tracking != NULL ? d->tracking : "", "reason",
        d->reason != NULL ? d->reason : "", "size", (int64_t)d->size,
        "read_bytes", (int64_t)d->read_bytes, "dirty_bytes",
        (int64_t)d->dirty_bytes, "new_bytes", (int64_t)d->new_bytes,
        "stored_bytes", (int64_t)d->stored_bytes, "audited_chunks",
        (int64_t)d->audit.chunks, "audit_bytes", (int64_t)d->audit.bytes,
        "audit_bound", (int64_t)d->audit.bound);

    if (o == NULL || (all && disk_json_all(o, d) < 0))
        return NULL;
    return TAKE_PTR(o);
}

static struct jv *
tags_json(const struct point *p)
{
    CLEANUP_JV struct jv *a = jv_array();

    for (size_t i = 0; i < p->n_tags; i++)
        if (jv_add(a, jv_string(p->tags[i])) < 0)
            return NULL;
    return TAKE_PTR(a);
}

struct jv *
point_json_short(const struct point *p)
{
    char time[CLOCK_TEXT_MAX];

    clock_text(p->time_ns, time, sizeof time);
    return jv_build("{s:s, s:s, s:I, s:s, s:o}", "machine", p->machine, "point",
                    p->id, "seq", (int64_t)p->seq, "time", time, "tags",
                    tags_json(p));
}

static int
point_json_all(struct jv *o, const struct point *p)
{
    return jv_set_str(o, "parent", p->parent) < 0 ||
                   jv_set_str(o, "lineage",
                              p->lineage != NULL ? p->lineage : "") < 0 ||
                   jv_set_str(o, "capture",
                              p->capture != NULL ? p->capture : "") < 0 ||
                   jv_set_int(o, "time_ns", p->time_ns) < 0
               ? -1
               : 0;
}

struct jv *
point_json(const struct point *p, bool all)
{
    char time[CLOCK_TEXT_MAX];
    CLEANUP_JV struct jv *o = NULL;
    CLEANUP_JV struct jv *disks = jv_array();

    clock_text(p->time_ns, time, sizeof time);
    o = jv_build("{s:s, s:s, s:I, s:s, s:s, s:I, s:o}", "machine", p->machine,
                 "point", p->id, "seq", (int64_t)p->seq, "time", time,
                 "consistency", p->consistency != NULL ? p->consistency : "",
                 "freeze_ms", (int64_t)p->freeze_ms, "tags", tags_json(p));
    if (o == NULL || (all && point_json_all(o, p) < 0))
        return NULL;
    for (size_t i = 0; i < p->n_disks; i++)
        if (jv_add(disks, disk_json(&p->disks[i], all)) < 0)
            return NULL;
    if (jv_set(o, "disks", TAKE_PTR(disks)) < 0)
        return NULL;
    return TAKE_PTR(o);
}

struct jv *
verified_json(const struct repo_verified *d, const char *point_id)
{
    int64_t ns = repo_verified_time(d, point_id);
    char time[CLOCK_TEXT_MAX];

    if (ns <= 0)
        return jv_null();
    clock_text(ns, time, sizeof time);
    return jv_string(time);
}

/* Set before there are threads. */
static secret_fn unlock_fn;
static void *unlock_arg;
static bool unlock_required;

void
job_set_unlock(secret_fn fn, void *arg, bool required)
{
    unlock_fn = fn;
    unlock_arg = arg;
    unlock_required = required;
}

int
open_repo(const char *path, struct repo **ret, struct err *err)
{
    const struct repo_open_opts opts = {
        .unlock = unlock_fn, .arg = unlock_arg, .encrypted = unlock_required};

    if (repo_open_with(path, &opts, ret, err) < 0)
        return err_side(err, ERR_SIDE_REPO);
    return 0;
}

int
unlock_keyring(struct keyring *k, struct err *err)
{
    return keyring_unlock(k, unlock_fn, unlock_arg, err);
}

void
unlock_for_init(struct repo_init_opts *opts)
{
    opts->passphrase = unlock_fn;
    opts->arg = unlock_arg;
}

/* "web1@1f3a" names its point by id, anything else says where to look. */
static bool
names_by_id(const char *spec, const struct point *p)
{
    const char *rev = strchr(spec, '@');

    return rev != NULL && strlen(rev + 1) >= 4 &&
           strncasecmp(rev + 1, p->id, strlen(rev + 1)) == 0;
}

int
point_pick(struct repo *r, const char *spec, struct point_list *ret_list,
           const struct point **ret, struct err *err)
{
    CLEANUP_FREE char *machine = strndup(spec, strcspn(spec, "@"));
    CLEANUP_JV struct jv *bad = NULL;
    struct point_list list = {0};

    if (machine == NULL)
        return err_set_errno(err, ENOMEM, "point '%s'", spec);
    if (repo_points(r, machine, &list, &bad, err) < 0)
        return -1;
    if (list.n == 0) { /* so that the error says which machines there are */
        point_list_done(&list);
        jv_free(TAKE_PTR(bad));
        if (repo_points(r, NULL, &list, &bad, err) < 0)
            return -1;
    }
    if (point_find(&list, spec, ret, err) < 0) {
        point_list_done(&list);
        if (jv_size(bad) > 0)
            return err_wrap(err, "%s", jv_str(jv_at(bad, 0)));
        return -1;
    }
    if (jv_size(bad) > 0 && !names_by_id(spec, *ret)) {
        (void)err_set(err, ERR_CORRUPT,
                      "%s; so '%s' may not be what it says: name the point by "
                      "its id (the last good one is %s@%.8s)",
                      jv_str(jv_at(bad, 0)), spec, machine,
                      list.v[list.n - 1]->id);
        point_list_done(&list);
        return -1;
    }
    *ret_list = list;
    return 0;
}

int
point_config(struct repo *r, const struct point *p, struct jv **ret,
             struct err *err)
{
    CLEANUP_FREE uint8_t *text = NULL;

    if (p->config_len == 0) { /* allowed, and no reason to fail a restore */
        *ret = jv_null();
        return 0;
    }
    if (repo_get_blob(r, &p->config, p->config_len, &text, err) < 0 ||
        jv_parse(text, p->config_len, JV_DEPTH_MAX, ret, err) < 0)
        return err_wrap(err, "configuration of point '%s@%.8s'", p->machine,
                        p->id);
    return 0;
}
