#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "cleanup.h"
#include "err.h"
#include "jv.h"
#include "verify.h"

#define PROBLEMS_MAX 10000
#define NOTES_MAX 1000
#define REASONS_MAX 4096
#define MISSING_MAX (1u << 20)

/* -- bad ids ----------------------------------------------------------------*/

static struct chunk_id *
place_of(const struct id_set *s, const struct chunk_id *id)
{
    size_t i = (size_t)get_le64(id->b) & (s->cap - 1); /* ids are hashes */

    while (!chunk_id_zero(&s->v[i]) && !chunk_id_equal(&s->v[i], id))
        i = (i + 1) & (s->cap - 1);
    return &s->v[i];
}

static bool
grow(struct id_set *s)
{
    struct id_set bigger = {.cap = s->cap == 0 ? 256 : 2 * s->cap};

    bigger.v = calloc(bigger.cap, sizeof *bigger.v);
    if (bigger.v == NULL)
        return false;
    for (size_t i = 0; i < s->cap; i++)
        if (!chunk_id_zero(&s->v[i]))
            *place_of(&bigger, &s->v[i]) = s->v[i];
    bigger.n = s->n;
    free(s->v);
    *s = bigger;
    return true;
}

bool
id_set_add(struct id_set *s, const struct chunk_id *id)
{
    struct chunk_id *place;

    if (2 * s->n >= s->cap && (s->n >= MISSING_MAX || !grow(s)))
        return true; /* a count too high then, no problem lost */
    place = place_of(s, id);
    if (!chunk_id_zero(place))
        return false;
    *place = *id;
    s->n++;
    return true;
}

/* -- reasons ----------------------------------------------------------------*/

void
verify_reason_add(struct verify *v, uint64_t record, const char *text)
{
    struct verify_reason *r;

    if (v->reasons == NULL)
        v->reasons = calloc(REASONS_MAX, sizeof *v->reasons);
    if (v->reasons == NULL || v->n_reasons == REASONS_MAX)
        return;
    r = &v->reasons[v->n_reasons++];
    r->record = record;
    (void)snprintf(r->text, sizeof r->text, "%s", text);
}

static int
compare_reasons(const void *a, const void *b)
{
    uint64_t x = ((const struct verify_reason *)a)->record;
    uint64_t y = ((const struct verify_reason *)b)->record;

    return (x > y) - (x < y);
}

void
verify_reason_sort(struct verify *v)
{
    if (v->n_reasons > 0)
        qsort(v->reasons, v->n_reasons, sizeof *v->reasons, compare_reasons);
}

const char *
verify_reason_get(const struct verify *v, uint64_t record)
{
    struct verify_reason key = {.record = record};
    const struct verify_reason *r = NULL;

    if (v->n_reasons > 0)
        r = bsearch(&key, v->reasons, v->n_reasons, sizeof key,
                    compare_reasons);
    return r != NULL ? r->text : "the stored chunk is damaged";
}

/* -- problems ---------------------------------------------------------------*/

static int
add(struct verify *v, struct jv *problem, struct err *err)
{
    size_t n = jv_size(v->rep.problems);

    if (n > PROBLEMS_MAX) {
        jv_free(problem);
        return 0;
    }
    if (n == PROBLEMS_MAX) {
        jv_free(problem);
        problem = jv_build("{s:s}", "problem",
                           "there are more problems than are listed here");
    }
    if (jv_add(v->rep.problems, problem) < 0)
        return err_set_errno(err, ENOMEM, "list of problems");
    return 0;
}

/* "web1@1f3a9c021b7d", as point_find() takes it. */
static void
point_label(const struct point *p, char *text, size_t len)
{
    (void)snprintf(text, len, "%s@%.12s", p->machine, p->id);
}

static bool
named(const struct verify *v, const char *object)
{
    for (size_t i = 0; i < jv_size(v->rep.problems); i++) {
        const char *s = jv_get_str(jv_at(v->rep.problems, i), "object");

        if (s != NULL && strcmp(s, object) == 0)
            return true;
    }
    return false;
}

/* Points come one after the other, so that neighbours are enough to look at. */
static int
note_hit(struct verify *v, const struct point *p, struct err *err)
{
    struct id_list *l = &v->hit;

    if (l->n > 0 && strcmp(l->v[l->n - 1], p->id) == 0)
        return 0;
    return id_list_add(l, p->id, err);
}

int
verify_problem_object(struct verify *v, const char *object,
                      const struct point *p, const char *text, struct err *err)
{
    CLEANUP_JV struct jv *j = jv_object();
    char label[300];

    if (object != NULL && named(v, object))
        return 0;
    if (object != NULL && jv_set_str(j, "object", object) < 0)
        return err_set_errno(err, ENOMEM, "list of problems");
    if (p != NULL) {
        point_label(p, label, sizeof label);
        if (note_hit(v, p, err) < 0 || jv_set_str(j, "point", label) < 0 ||
            jv_set_str(j, "machine", p->machine) < 0)
            return err_set_errno(err, ENOMEM, "list of problems");
    }
    if (jv_set_str(j, "problem", text) < 0)
        return err_set_errno(err, ENOMEM, "list of problems");
    return add(v, TAKE_PTR(j), err);
}

int
verify_problem_end(struct verify *v, struct err *err)
{
    struct open_problem *o = &v->open;
    char text[sizeof o->text + 64], label[300];
    const struct point *p = o->point;

    if (p == NULL)
        return 0;
    o->point = NULL;
    point_label(p, label, sizeof label);
    (void)snprintf(text, sizeof text, "%s", o->text);
    if (o->more > 0)
        (void)snprintf(text, sizeof text, "%s; and %" PRIu64 " more next to it",
                       o->text, o->more);
    return add(v,
               jv_build("{s:s, s:s, s:s, s:I, s:I, s:s}", "point", label,
                        "machine", p->machine, "disk", o->disk->name, "offset",
                        (int64_t)o->start, "length",
                        (int64_t)(o->end - o->start), "problem", text),
               err);
}

int
verify_problem(struct verify *v, const struct point *p,
               const struct point_disk *d, uint64_t start, uint64_t end,
               const char *text, struct err *err)
{
    struct open_problem *o = &v->open;

    if (note_hit(v, p, err) < 0)
        return -1;
    if (o->point == p && o->disk == d && o->end == start) {
        o->end = end;
        o->more++;
        return 0;
    }
    if (verify_problem_end(v, err) < 0)
        return -1;
    *o = (struct open_problem){
        .point = p, .disk = d, .start = start, .end = end};
    (void)snprintf(o->text, sizeof o->text, "%s", text);
    return 0;
}

int
verify_note(struct verify *v, struct err *err, const char *fmt, ...)
{
    char text[ERR_MSG_MAX];
    va_list ap;

    if (jv_size(v->rep.notes) > NOTES_MAX)
        return 0;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (jv_size(v->rep.notes) == NOTES_MAX)
        (void)snprintf(text, sizeof text, "there are more notes");
    if (jv_add(v->rep.notes, jv_string(text)) < 0)
        return err_set_errno(err, ENOMEM, "list of notes");
    return 0;
}
