/* Which packs are to be removed.
 *
 * Rewriting a pack costs reading and writing what lives in it, so it must be
 * worth it: much of it is dead, or it is one of many small ones.  Small packs
 * are merged with those of about their size only, so that no frame is moved more
 * than a few times however often collections run.
 */
#include "gc.h"

#include <string.h>

#include "cleanup.h"
#include "rand.h"

#define REWRITE_DEFAULT 50u /* per cent */
#define TIERS 8u

/* -- leftovers --------------------------------------------------------------*/

static void
sid_of(const struct gc_pack *p, char sid[REPO_SID_TEXT])
{
    hex_encode(p->name.sid, sizeof p->name.sid, sid);
}

/* Nothing that this session wrote and that does not count now will ever count.
 * Without a commit object that is so only once it is fenced. */
bool
gc_is_leftover(const struct gc *g, const char *sid)
{
    if (strcmp(sid, g->sid) == 0)
        return false;
    if (gc_view_ended(&g->view, sid) || MUTANT(MUTANT_GC_LEFTOVERS))
        return true;
    return !gc_view_has_session(&g->view, sid);
}

struct fences {
    struct id_list fenced, refused;
};

/* 1 it can never commit, 0 it has committed just now, -1. */
static int
make_sure(struct gc *g, struct fences *f, const char *sid, struct err *err)
{
    int result;

    if (gc_view_ended(&g->view, sid) || g->opts->dry_run ||
        MUTANT(MUTANT_GC_LEFTOVERS) || id_list_has(&f->fenced, sid))
        return 1;
    if (id_list_has(&f->refused, sid))
        return 0;
    result = session_fence(g->r, sid, "its session object is gone", err);
    if (result < 0)
        return err_wrap(err, "fence session %s", sid);
    g->rep.sessions_fenced += result > 0;
    if (id_list_add(result > 0 ? &f->fenced : &f->refused, sid, err) < 0)
        return -1;
    id_list_sort(&f->fenced);
    id_list_sort(&f->refused);
    return result;
}

static int
leftover_packs(struct gc *g, struct fences *f, struct err *err)
{
    for (size_t i = 0; i < g->view.packs.n; i++) {
        struct gc_pack *p = &g->view.packs.v[i];
        char sid[REPO_SID_TEXT];
        int sure;

        sid_of(p, sid);
        if (p->len == 0 || p->counted || p->gone || p->chosen ||
            !gc_is_leftover(g, sid))
            continue;
        sure = make_sure(g, f, sid, err);
        if (sure < 0 ||
            (sure > 0 && pack_set_add(g->removing, &p->name, err) < 0))
            return -1;
        p->chosen = sure > 0;
        g->rep.leftovers += sure > 0;
    }
    return 0;
}

static bool
segment_counts(const struct gc_view *v, const char *key)
{
    for (size_t i = 0; i < v->n_segs; i++)
        if (strcmp(v->segs[i].key, key) == 0)
            return true;
    return false;
}

static int
leftover_segments(struct gc *g, struct fences *f, struct err *err)
{
    const struct gc_objects *o = &g->view.index;

    for (size_t i = 0; i < o->n; i++) {
        int sure;

        /* Those of ended sessions were dealt with when this one began. */
        if (o->v[i].sid[0] == '\0' || gc_view_ended(&g->view, o->v[i].sid) ||
            !gc_is_leftover(g, o->v[i].sid) ||
            segment_counts(&g->view, o->v[i].key))
            continue;
        sure = make_sure(g, f, o->v[i].sid, err);
        if (sure < 0)
            return -1;
        g->rep.leftovers += sure > 0;
    }
    return 0;
}

int
gc_choose_leftovers(struct gc *g, struct err *err)
{
    struct fences f = {{NULL, 0, 0}, {NULL, 0, 0}};
    int result = leftover_packs(g, &f, err);

    if (result == 0)
        result = leftover_segments(g, &f, err);
    id_list_done(&f.fenced);
    id_list_done(&f.refused);
    return result;
}

/* -- packs that count -------------------------------------------------------*/

static bool
mostly_dead(const struct gc *g, const struct gc_pack *p)
{
    unsigned percent =
        g->opts->rewrite != 0 ? g->opts->rewrite : REWRITE_DEFAULT;
    uint64_t used = p->live_bytes + PACK_HEAD_LEN + PACK_FOOT_LEN +
                    (uint64_t)p->n_live * PACK_ENTRY_LEN;

    if (p->n_live == 0)
        return true;
    return used < p->len && (p->len - used) * 100 >= p->len * percent;
}

/* A frame that has only bad copies stays where it is: repairing may need it. */
static bool
may_choose(const struct gc_pack *p)
{
    return p->counted && !p->chosen && !p->bad_live;
}

/* Tier 0 is from an eighth to the half of a pack's size, the next ones are four
 * times smaller each. */
static unsigned
tier_of(const struct gc *g, const struct gc_pack *p)
{
    uint64_t least = g->limits.pack_target / 8;
    unsigned tier = 0;

    if (p->len >= g->limits.pack_target / 2)
        return TIERS;
    while (tier < TIERS - 1 && p->len < least) {
        least /= 4;
        tier++;
    }
    return tier;
}

static void
choose_small(struct gc *g)
{
    unsigned n[PACK_META + 1][TIERS + 1] = {{0}};
    struct gc_packs *packs = &g->view.packs;

    for (int turn = 0; turn < 2; turn++)
        for (size_t i = 0; i < packs->n; i++) {
            struct gc_pack *p = &packs->v[i];
            unsigned tier = tier_of(g, p);

            if (!may_choose(p) || tier == TIERS)
                continue;
            if (turn == 0)
                n[p->name.class][tier]++;
            else
                p->chosen = n[p->name.class][tier] >= g->limits.small_worth;
        }
}

static int
note_chosen(struct gc *g, struct err *err)
{
    for (size_t i = 0; i < g->view.packs.n; i++) {
        const struct gc_pack *p = &g->view.packs.v[i];

        if (!p->chosen)
            continue;
        if (pack_set_add(g->removing, &p->name, err) < 0)
            return -1;
        g->rep.packs_removed += p->len > 0;
        g->rep.packs_rewritten += p->n_live > 0;
        g->rep.bytes_removed += p->len;
    }
    return 0;
}

int
gc_choose(struct gc *g, struct err *err)
{
    struct gc_packs *packs = &g->view.packs;

    for (size_t i = 0; i < packs->n; i++) {
        struct gc_pack *p = &packs->v[i];

        p->chosen = p->condemned && !p->gone;
        if (may_choose(p) && mostly_dead(g, p))
            p->chosen = true;
    }
    choose_small(g);
    if (gc_choose_leftovers(g, err) < 0)
        return -1;
    return note_chosen(g, err);
}
