/* Collection: removing what no point needs, beside writers and readers.
 *
 * docs/format.md 13 has the steps and why their order is what it is.  The short
 * of it: packs are condemned before sessions are listed, so that each writer is
 * either waited for or knows; nothing is deleted before the collector's own
 * COMMIT says so; and whoever comes later can end what that COMMIT says.
 */
#include "gc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "format.h"
#include "jv.h"
#include "mark.h"
#include "rand.h"
#include "session.h"
#include "store.h"

#ifdef TIDEMARK_MUTANTS
unsigned repo_mutant;
#endif

int
gc_canceled(const struct gc *g, struct err *err)
{
    if (g->opts->cancel == NULL || !*(const volatile bool *)g->opts->cancel)
        return 0;
    return err_set(err, ERR_CANCELED, "collection ended by request");
}

void
gc_progress(const struct gc *g, const char *phase, uint64_t done,
            uint64_t total)
{
    if (g->opts->progress != NULL)
        g->opts->progress(g->opts->arg, phase, done, total);
}

/* -- step 1: register -------------------------------------------------------*/

/* Old programs must not write any more once points can be removed. */
static int
announce(struct repo *r, struct err *err)
{
    static const char key[] = "feature/ro-compat." FORMAT_COLLECT;
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    struct err why = ERR_INIT;
    struct repo_format f;
    uint64_t len;
    int found = store_size(r->store, FORMAT_KEY, &len, err);

    if (found <= 0 || len > FORMAT_LEN_MAX)
        return found < 0
                   ? -1
                   : err_set(err, ERR_CORRUPT, "no format object any more");
    if (buf_reserve(&b, (size_t)len + 1, err) < 0 ||
        store_get(r->store, FORMAT_KEY, 0, (size_t)len, b.data, err) < 0 ||
        format_decode(b.data, (size_t)len, &f, err) < 0)
        return -1;
    if (f.collect)
        return 0;
    found = store_size(r->store, key, &len, err);
    if (found != 0)
        return found < 0 ? -1 : 0;
    if (store_put(r->store, key, "", 0, &why) == 0 || why.code == ERR_EXISTS)
        return 0;
    return err_copy(err, &why);
}

static int
begin(struct gc *g, struct err *err)
{
    if (repo_may_write(g->r, err) < 0)
        return -1;
    /* With a test's clock, time does not pass by itself: nothing beats. */
    if (registration_new(g->r, "gc", NULL, NULL, g->opts->now_ns == NULL,
                         &g->reg, err) < 0)
        return -1;
    g->sid = registration_sid(g->reg);
    (void)hex_decode(g->sid, g->sid_bytes, sizeof g->sid_bytes);
    if (repo_check_features(g->r, err) < 0 || repo_may_write(g->r, err) < 0 ||
        announce(g->r, err) < 0)
        return -1;
    return gc_exclude_others(g, err);
}

/* -- step 2: what is there, and what is needed ------------------------------*/

/* A view is not freed before the next one was read: keys point into it. */
static int
look(struct gc *g, struct err *err)
{
    mark_free(TAKE_PTR(g->mark));
    gc_view_done(&g->view);
    if (gc_view_read(&g->view, g->r, err) < 0)
        return -1;
    return gc_view_open_segments(&g->view, err);
}

/* What an earlier collection committed and did not come to remove. */
static int
resume(struct gc *g, struct err *err)
{
    uint64_t n = 0;

    if (look(g, err) < 0)
        return -1;
    if (g->opts->dry_run)
        return 0;
    if (gc_delete(g, &g->view, &n, err) < 0)
        return -1;
    if (n == 0)
        return 0;
    g->rep.resumed = 1;
    return look(g, err);
}

/* A forget is believed only when it is authentic: it costs a point. */
static int
note_forgotten(struct gc *g, struct err *err)
{
    for (size_t i = 0; i < g->view.forgets.n; i++) {
        const struct gc_object *o = &g->view.forgets.v[i];
        const struct gc_commit *c = gc_view_commit(&g->view, o->sid);
        CLEANUP_JV struct jv *payload = NULL;

        if (c == NULL || c->point == NULL || c->fate != GC_STAYS)
            continue;
        if (record_read(g->r, o->key, COMMIT_FORGET, &payload, err) < 0)
            return err_wrap(err, "collection refused (nothing was deleted)");
        if (id_list_add(&g->forgotten, o->sid, err) < 0)
            return -1;
    }
    id_list_sort(&g->forgotten);
    return 0;
}

static int
note_pins(struct gc *g, struct err *err)
{
    if (MUTANT(MUTANT_GC_NO_PINS))
        return 0;
    for (size_t i = 0; i < g->view.sessions.n; i++) {
        const struct session_info *s = &g->view.sessions.v[i];

        if (s->ended || strcmp(s->what, "pin") != 0)
            continue;
        for (size_t k = 0; k < s->pins.n; k++)
            if (id_list_add(&g->pinned, s->pins.v[k], err) < 0)
                return -1;
    }
    id_list_sort(&g->pinned);
    return 0;
}

static void
note_kept(struct gc_view *v, const struct jv *list)
{
    for (size_t i = 0; i < jv_size(list); i++) {
        const char *key = jv_get_str(jv_at(list, i), "key");
        struct pack_name name;
        uint32_t no = GC_NONE;

        if (key != NULL && pack_name_parse(key, &name))
            no = gc_packs_find(&v->packs, &name);
        if (no != GC_NONE)
            v->packs.v[no].kept_named = true;
    }
}

/* Points that are forgotten and not pinned go, and so do commit objects without
 * a point: this collection takes over what they hold. */
static void
decide_fates(struct gc *g)
{
    struct gc_view *v = &g->view;

    for (size_t i = 0; i < v->n_commits; i++) {
        struct gc_commit *c = &v->commits[i];

        if (c->fate != GC_STAYS)
            continue;
        if (c->point == NULL || (id_list_has(&g->forgotten, c->sid) &&
                                 !id_list_has(&g->pinned, c->sid))) {
            c->fate = GC_GOES;
            continue;
        }
        note_kept(v, jv_get(c->payload, "packs"));
        for (size_t k = 0; k < jv_size(c->lists); k++)
            note_kept(v, jv_get(jv_at(c->lists, k), "packs"));
    }
}

/* -- steps 3 and 7: mark ----------------------------------------------------*/

static int
mark(struct gc *g, struct err *err)
{
    if (mark_new(&g->view, &g->mark, err) < 0)
        return -1;
    for (size_t i = 0; i < g->view.n_commits; i++) {
        const struct gc_commit *c = &g->view.commits[i];

        if (c->fate == GC_STAYS && c->point != NULL &&
            mark_add(g->mark, c->point, err) < 0)
            return -1;
    }
    return mark_run(g->mark, g, err);
}

static void
report_points(struct gc *g)
{
    const struct gc_view *v = &g->view;

    g->rep.points_live = g->rep.points_removed = 0;
    for (size_t i = 0; i < v->n_commits; i++) {
        if (v->commits[i].point == NULL)
            continue;
        g->rep.points_live += v->commits[i].fate == GC_STAYS;
        g->rep.points_removed += v->commits[i].fate == GC_GOES;
    }
    g->rep.chunks_live = mark_n_chunks(g->mark);
}

static void
report_packs(struct gc *g)
{
    const struct gc_view *v = &g->view;

    for (size_t i = 0; i < v->packs.n; i++) {
        g->rep.packs += v->packs.v[i].len > 0;
        g->rep.bytes_before += v->packs.v[i].len;
    }
    g->rep.segments_before = g->rep.segments_after = v->n_segs;
}

/* The first look: steps 2 to 4. */
static int
first_look(struct gc *g, struct err *err)
{
    if (resume(g, err) < 0 || note_forgotten(g, err) < 0 ||
        note_pins(g, err) < 0)
        return -1;
    decide_fates(g);
    if (mark(g, err) < 0 || gc_choose(g, err) < 0)
        return -1;
    for (size_t i = 0; i < g->view.packs.n; i++)
        if (g->view.packs.v[i].condemned &&
            pack_set_add(g->old_condemned, &g->view.packs.v[i].name, err) < 0)
            return -1;
    report_packs(g);
    report_points(g);
    return 0;
}

/* A reader holds what is forgotten: if he is dead, somebody must find out, or it
 * stays until there is something else to remove. */
static bool
is_held(const struct gc *g)
{
    for (size_t i = 0; i < g->view.n_commits; i++) {
        const struct gc_commit *c = &g->view.commits[i];

        if (c->fate == GC_STAYS && id_list_has(&g->forgotten, c->sid))
            return true;
    }
    return false;
}

static bool
worth_it(const struct gc *g)
{
    return g->rep.points_removed > 0 || pack_set_n(g->removing) > 0 ||
           is_held(g) || g->rep.leftovers > 0 ||
           gc_n_foldable(g) >= g->limits.fold_worth;
}

/* With nothing else to do, what killed backups left may be worth it. */
static int
look_for_the_dead(struct gc *g, struct err *err)
{
    uint64_t before = g->rep.sessions_fenced, resumed = g->rep.resumed;

    if (gc_fence_dead(g, err) < 0)
        return -1;
    if (g->rep.sessions_fenced == before)
        return 0;
    g->rep = (struct repo_gc_report){.sessions_fenced = g->rep.sessions_fenced};
    id_list_done(&g->forgotten);
    id_list_done(&g->pinned);
    if (first_look(g, err) < 0)
        return -1;
    g->rep.resumed = resumed; /* ended sessions are no unfinished collection */
    return 0;
}

/* -- step 5: condemn --------------------------------------------------------*/

static int
condemn(struct gc *g, struct err *err)
{
    CLEANUP_JV struct jv *payload = jv_object();
    char key[REPO_KEY_MAX];

    if (pack_set_n(g->removing) == 0)
        return 0;
    if (jv_set(payload, "packs", pack_set_to_json(g->removing)) < 0)
        return err_set_errno(err, ENOMEM, "condemned packs");
    (void)snprintf(key, sizeof key, "gc/%s.condemned", g->sid);
    return record_write(g->r, key, COMMIT_CONDEMNED, payload, err);
}

/* What is chosen does not change any more, whatever was condemned since. */
static void
choose_again(struct gc *g)
{
    for (size_t i = 0; i < g->view.packs.n; i++) {
        struct gc_pack *p = &g->view.packs.v[i];

        p->chosen = !p->gone && pack_set_has(g->removing, &p->name);
        p->condemned = pack_set_has(g->old_condemned, &p->name);
    }
}

/* The second look, when every session that could know less has ended: step 7. */
static int
second_look(struct gc *g, struct err *err)
{
    if (look(g, err) < 0 || note_pins(g, err) < 0)
        return -1;
    if (MUTANT(MUTANT_GC_ROOTS_SHRINK) && note_forgotten(g, err) < 0)
        return -1;
    decide_fates(g);
    choose_again(g);
    if (gc_choose_leftovers(g, err) < 0 || mark(g, err) < 0)
        return -1;
    report_points(g);
    return 0;
}

/* -- all steps --------------------------------------------------------------*/

#ifdef TIDEMARK_MUTANTS
static int
delete_too_early(struct gc *g, struct err *err)
{
    char key[REPO_KEY_MAX];

    for (size_t i = 0; i < g->view.packs.n; i++) {
        if (!g->view.packs.v[i].chosen)
            continue;
        pack_key(&g->view.packs.v[i].name, key);
        if (store_delete(g->r->store, key, err) < 0)
            return -1;
    }
    return 0;
}
#endif

static int
commit_and_delete(struct gc *g, struct err *err)
{
#ifdef TIDEMARK_MUTANTS
    if (MUTANT(MUTANT_GC_DELETE_FIRST) && delete_too_early(g, err) < 0)
        return -1;
#endif
    if (gc_commit(g, err) < 0)
        return -1;
    g->committed = true;
    if (look(g, err) < 0)
        return -1;
    g->rep.segments_after = g->view.n_segs;
    (void)index_reload(g->r, NULL); /* this process knows at once, too */
    return gc_delete(g, &g->view, NULL, err);
}

static int
collect(struct gc *g, struct err *err)
{
    if (gc_note_temps(g, err) < 0 || first_look(g, err) < 0)
        return -1;
    if (g->opts->dry_run)
        return 0;
    if (!worth_it(g) && look_for_the_dead(g, err) < 0)
        return -1;
    if (!worth_it(g))
        return 0;
    if (MUTANT(MUTANT_GC_SESSIONS_FIRST) &&
        session_list_read(g->r, &g->mutant_sessions, err) < 0)
        return -1;
    if (condemn(g, err) < 0 || gc_wait(g, err) < 0 || second_look(g, err) < 0 ||
        gc_copy(g, err) < 0 || gc_write_index(g, err) < 0 ||
        gc_view_check_segments(&g->view, err) < 0 || gc_canceled(g, err) < 0)
        return -1;
    return commit_and_delete(g, err);
}

/* -- end --------------------------------------------------------------------*/

/* What was written for a COMMIT that was not tried. */
static void
take_back(struct gc *g)
{
    char key[REPO_KEY_MAX];

    for (uint32_t seq = 1; seq <= g->last_seq; seq++) {
        struct pack_name name = {.class = g->classes[seq - 1], .seq = seq};

        memcpy(name.sid, g->sid_bytes, sizeof name.sid);
        pack_key(&name, key);
        (void)store_delete(g->r->store, key, NULL);
    }
    for (uint32_t k = 1; k <= g->last_k; k++) {
        (void)snprintf(key, sizeof key, "index/%s-%u", g->sid, k);
        (void)store_delete(g->r->store, key, NULL);
    }
    for (uint32_t k = 1; k <= g->last_list; k++) {
        (void)snprintf(key, sizeof key, "packs/%s-%u", g->sid, k);
        (void)store_delete(g->r->store, key, NULL);
    }
}

static void
gc_done(struct gc *g)
{
    if (!g->in_doubt)
        take_back(g);
    mark_free(g->mark);
    gc_view_done(&g->view);
    session_list_done(&g->mutant_sessions);
    id_list_done(&g->forgotten);
    id_list_done(&g->pinned);
    jv_free(g->packs);
    jv_free(g->index);
    jv_free(g->pack_lists);
    jv_free(g->temps);
    jv_free(g->taken_over);
    jv_free(g->gone_index);
    pack_set_free(g->removing);
    pack_set_free(g->old_condemned);
    buf_done(&g->copies);
    free(g->classes);
    registration_free(g->reg, g->in_doubt && !g->committed);
}

static int
gc_init(struct gc *g, struct err *err)
{
    g->packs = jv_array();
    g->index = jv_array();
    g->pack_lists = jv_array();
    g->taken_over = jv_array();
    g->gone_index = jv_array();
    g->removing = pack_set_new();
    g->old_condemned = pack_set_new();
    if (g->packs == NULL || g->index == NULL || g->pack_lists == NULL ||
        g->taken_over == NULL || g->gone_index == NULL || g->removing == NULL ||
        g->old_condemned == NULL)
        return err_set_errno(err, ENOMEM, "collection");
    return 0;
}

/* A collector that slept finds the work of the one that overtook it, which looks
 * like damage to what it has read before. */
static void
name_the_fence(struct gc *g, struct err *err)
{
    char key[REPO_KEY_MAX];
    uint64_t len;

    commit_key(g->sid, 1, key);
    if (g->in_doubt || g->sid[0] == '\0' ||
        store_size(g->r->store, key, &len, NULL) != 1)
        return;
    err_clear(err);
    (void)err_set(err, ERR_EXISTS,
                  "%s: this collection was fenced: another one took it for "
                  "dead; nothing was deleted",
                  key);
}

int
repo_gc_limited(struct repo *r, const struct repo_gc_opts *opts,
                const struct gc_limits *limits, struct repo_gc_report *ret,
                struct err *err)
{
    CLEANUP(gc_done)
    struct gc g = {.r = r, .opts = opts, .limits = *limits, .sid = ""};
    struct err why = ERR_INIT;
    int go_on;

    if (opts->rewrite > 100)
        return err_set(err, ERR_USAGE, "packs of which %u%% are dead",
                       opts->rewrite);
    if (gc_init(&g, err) < 0)
        return -1;
    go_on = opts->dry_run ? 1 : begin(&g, err);
    g.rep.other_runs = go_on == 0;
    if (go_on > 0 && collect(&g, &why) < 0) {
        name_the_fence(&g, &why);
        go_on = err_copy(err, &why);
    }
    if (go_on < 0)
        return err_wrap(err, "collect '%s'", repo_path(r));
    if (go_on > 0 && !opts->dry_run)
        gc_remove_temps(&g);
    *ret = g.rep;
    return 0;
}

int
repo_gc(struct repo *r, const struct repo_gc_opts *opts,
        struct repo_gc_report *ret, struct err *err)
{
    static const struct gc_limits limits = GC_LIMITS;

    /* Nothing is deleted through a store that does not show it to others. */
    if (!opts->dry_run && (repo_may_write(r, err) < 0 ||
                           store_self_test(r->store, NULL, err) < 0))
        return err_wrap(err, "collection refused (nothing was deleted)");
    return repo_gc_limited(r, opts, &limits, ret, err);
}
