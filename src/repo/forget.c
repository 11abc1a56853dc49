/* Forgetting points, and holding those that are being read. */
#include "internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "err.h"
#include "jv.h"
#include "points.h"
#include "session.h"
#include "store.h"

/* -- lists of ids -----------------------------------------------------------*/

void
id_list_done(struct id_list *l)
{
    free(l->v);
    l->v = NULL;
    l->n = l->cap = 0;
}

static int
compare_ids(const void *a, const void *b)
{
    return strcmp(a, b);
}

int
id_list_add(struct id_list *l, const char *id, struct err *err)
{
    if (l->n == l->cap) {
        size_t cap = l->cap == 0 ? 16 : 2 * l->cap;
        char(*v)[REPO_SID_TEXT] = realloc(l->v, cap * sizeof *v);

        if (v == NULL)
            return err_set_errno(err, ENOMEM, "list of %zu points", cap);
        l->v = v;
        l->cap = cap;
    }
    (void)snprintf(l->v[l->n++], REPO_SID_TEXT, "%s", id);
    return 0;
}

void
id_list_sort(struct id_list *l)
{
    size_t n = 0;

    if (l->n > 0)
        qsort(l->v, l->n, sizeof *l->v, compare_ids);
    for (size_t i = 0; i < l->n; i++)
        if (n == 0 || strcmp(l->v[n - 1], l->v[i]) != 0)
            memmove(l->v[n++], l->v[i], sizeof *l->v);
    l->n = n;
}

bool
id_list_has(const struct id_list *l, const char *id)
{
    return l->n > 0 &&
           bsearch(id, l->v, l->n, sizeof *l->v, compare_ids) != NULL;
}

bool
id_text_valid(const char *s)
{
    return s != NULL && strlen(s) == 2 * REPO_SID_LEN &&
           strspn(s, "0123456789abcdef") == 2 * REPO_SID_LEN;
}

/* -- forgetting -------------------------------------------------------------*/

struct forget_walk {
    struct id_list *l;
    struct err *err;
};

static int
take_forget(void *arg, const char *key, uint64_t len)
{
    struct forget_walk *w = arg;
    const char *id = key + strlen("forget/");

    (void)len;
    return id_text_valid(id) ? id_list_add(w->l, id, w->err) : 0;
}

/* The name alone counts: an object that can be put there could be deleted as
 * well, and a damaged one must not bring a half-removed point back. */
int
forgotten_list(struct repo *r, struct id_list *ret, struct err *err)
{
    CLEANUP(id_list_done) struct id_list l = {0};
    struct forget_walk w = {&l, err};

    if (store_list(r->store, "forget", take_forget, &w, err) != 0 ||
        index_gone(r, NULL, NULL, &l, err) < 0)
        return err_wrap(err, "list the forgotten points");
    id_list_sort(&l);
    *ret = l;
    l = (struct id_list){0};
    return 0;
}

int
repo_forget(struct repo *r, const char *id, const char *why, struct err *err)
{
    CLEANUP_JV struct jv *j = jv_build("{s:s}", "why", why);
    char key[REPO_KEY_MAX], commit[REPO_KEY_MAX];
    struct err failed = ERR_INIT;
    uint64_t len;
    int found;

    if (!id_text_valid(id))
        return err_set(err, ERR_USAGE, "'%.40s' is no id of a point", id);
    if (j == NULL)
        return err_set_errno(err, ENOMEM, "point %s", id);
    if (repo_may_write(r, err) < 0)
        return -1;
    commit_key(id, 1, commit);
    found = store_size(r->store, commit, &len, err);
    if (found < 0)
        return -1;
    if (found == 0)
        return err_set(err, ERR_NOT_FOUND, "there is no point %s", id);
    (void)snprintf(key, sizeof key, "forget/%s", id);
    if (record_write(r, key, COMMIT_FORGET, j, &failed) == 0 ||
        failed.code == ERR_EXISTS)
        return 0;
    return err_copy(err, &failed);
}

/* -- pins -------------------------------------------------------------------*/

struct repo_pin {
    struct registration *reg;
};

/* The store cannot be written: then nobody collects through it, either. */
static bool
cannot_write(const struct err *why)
{
    return why->sys == EROFS || why->sys == EACCES || why->sys == EPERM ||
           why->code == ERR_NO_SPACE;
}

static int
check_pinned(struct repo *r, const struct id_list *ids, struct err *err)
{
    CLEANUP(id_list_done) struct id_list gone = {0};

    if (forgotten_list(r, &gone, err) < 0)
        return -1;
    for (size_t i = 0; i < ids->n; i++) {
        char key[REPO_KEY_MAX];
        uint64_t len;
        int found;

        commit_key(ids->v[i], 1, key);
        found = store_size(r->store, key, &len, err);
        if (found < 0)
            return -1;
        if (found == 0 || id_list_has(&gone, ids->v[i]))
            return err_set(err, ERR_NOT_FOUND,
                           "point %s was removed just now; see: tidemark "
                           "points",
                           ids->v[i]);
    }
    return 0;
}

int
repo_pin_new(struct repo *r, const char *const *ids, size_t n,
             struct repo_pin **ret, struct err *err)
{
    CLEANUP(id_list_done) struct id_list l = {0};
    struct registration *reg = NULL;
    struct err why = ERR_INIT;
    struct repo_pin *p;

    *ret = NULL;
    for (size_t i = 0; i < n; i++)
        if (id_list_add(&l, ids[i], err) < 0)
            return -1;
    id_list_sort(&l);
    if (repo_may_write(r, NULL) == 0 &&
        registration_new(r, "pin", NULL, &l, true, &reg, &why) < 0 &&
        !cannot_write(&why))
        return err_copy(err, &why);
    p = reg != NULL ? calloc(1, sizeof *p) : NULL;
    if (reg != NULL && p == NULL)
        (void)err_set_errno(err, ENOMEM, "pin");
    if ((reg != NULL && p == NULL) || check_pinned(r, &l, err) < 0) {
        registration_free(reg, false);
        free(p);
        return -1;
    }
    if (p != NULL)
        p->reg = reg;
    *ret = p;
    return 0;
}

void
repo_pin_free(struct repo_pin *p)
{
    if (p == NULL)
        return;
    registration_free(p->reg, false);
    free(p);
}
