/* Collection: what is not forgotten stays readable, what is forgotten goes, and
 * whatever is wrong or running is noticed before anything is deleted. */
#include "tap.h"

#include <fcntl.h>

#include "gc_model.h"

/* Merging small packs only from `small_worth` of them on. */
static void
collect_with(struct model *m, unsigned small_worth, struct repo_gc_report *rep)
{
    struct model_clock clock = {0};
    struct repo_gc_opts opts = {
        .now_ns = model_now, .sleep_ns = model_sleep, .arg = &clock};
    struct gc_limits limits = model_limits;

    limits.small_worth = small_worth;
    CHECK_OK(repo_gc_limited(m->r, &opts, &limits, rep, ERR_ABORT), ERR_ABORT);
}

/* -- what goes and what stays -----------------------------------------------*/

static void
test_forgotten_point_goes(void)
{
    struct repo_gc_report rep;
    struct model m;

    model_chain(&m);
    model_forget(&m, 1);
    CHECK(model_check(&m));
    model_collect(&m, NULL, &rep);
    CHECK(rep.points_removed == 1 && rep.points_live == 3);
    CHECK(rep.packs_removed > 0 && rep.bytes_removed > 0);
    CHECK(model_check(&m) && model_clean(&m));
    CHECK(model_count(&m, "commit") == 4); /* three points, one collector */
    model_end(&m);
}

static void
test_second_run_does_nothing(void)
{
    struct repo_gc_report rep;
    struct model m;
    unsigned files;

    model_chain(&m);
    model_forget(&m, 0);
    model_collect(&m, NULL, &rep);
    files = model_count(&m, "commit") + model_count(&m, "data");
    for (unsigned i = 0; i < 2; i++) {
        model_collect(&m, NULL, &rep);
        CHECK(rep.points_removed == 0 && rep.packs_removed == 0);
        CHECK(rep.bytes_copied == 0 && rep.resumed == 0);
        CHECK(model_count(&m, "commit") + model_count(&m, "data") == files);
        model_reopen(&m);
    }
    CHECK(model_check(&m) && model_clean(&m));
    model_end(&m);
}

static void
test_half_dead_packs_are_rewritten(void)
{
    struct repo_gc_report rep;
    struct model m;

    model_begin(&m);
    model_backup(&m, "vm", 0, 1, MODEL_CHUNKS);
    model_backup(&m, "vm", 0, 2, MODEL_CHUNKS / 2); /* every other one */
    model_forget(&m, 0);
    model_collect(&m, NULL, &rep);
    CHECK(rep.packs_rewritten > 0 && rep.bytes_copied > 0);
    CHECK(rep.bytes_copied < rep.bytes_removed);
    CHECK(model_check(&m) && model_clean(&m));
    model_end(&m);
}

static void
test_all_forgotten_leaves_nothing(void)
{
    struct repo_gc_report rep;
    struct model m;

    model_chain(&m);
    for (unsigned i = 0; i < 4; i++)
        model_forget(&m, i);
    model_collect(&m, NULL, &rep);
    CHECK(rep.points_removed == 4 && rep.points_live == 0);
    CHECK(model_count(&m, "data") == 0 && model_count(&m, "meta") == 0);
    CHECK(model_count(&m, "index") == 0 && model_clean(&m));
    model_backup(&m, "vm", 0, 1, MODEL_CHUNKS);
    CHECK(model_check(&m));
    model_end(&m);
}

static int
copy_key(void *arg, const char *key, uint64_t len)
{
    (void)len;
    return buf_printf(arg, "%s\n", NULL, key);
}

static void
test_dry_run_writes_nothing(void)
{
    static const char *const kinds[] = {"commit", "data", "meta",   "index",
                                        "forget", "gc",   "session"};
    struct buf keys[2] = {BUF_INIT, BUF_INIT};
    struct repo_gc_report dry, rep;
    struct model m;

    model_chain(&m);
    model_forget(&m, 0);
    for (unsigned turn = 0; turn < 2; turn++) {
        for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
            CHECK_OK(store_list(m.r->store, kinds[i], copy_key, &keys[turn],
                                ERR_ABORT),
                     ERR_ABORT);
        CHECK_OK(model_gc(&m, NULL, true, &dry, ERR_ABORT), ERR_ABORT);
    }
    CHECK(keys[0].len == keys[1].len);
    model_collect(&m, NULL, &rep);
    CHECK(dry.points_removed == 1 && dry.bytes_removed == rep.bytes_removed);
    buf_done(&keys[0]);
    buf_done(&keys[1]);
    model_end(&m);
}

/* Years of backups and collections: nothing but the points grows. */
static void
test_many_cycles_stay_small(void)
{
    struct repo_gc_report rep;
    struct model m;

    model_chain(&m);
    for (unsigned i = 0; i < 30; i++) {
        model_backup(&m, i % 3 == 0 ? "other" : "vm", i, 3, 12);
        model_forget(&m, i);
        model_collect(&m, NULL, &rep);
        CHECK(model_count(&m, "commit") == 5);
        CHECK(rep.segments_after <= 8);
        CHECK(model_clean(&m));
    }
    CHECK(model_check(&m));
    CHECK(model_count(&m, "data") < 60 && model_count(&m, "packs") == 0);
    model_end(&m);
}

/* Each backup leaves a segment; a collection leaves few, with ranges of their
 * own. */
static bool
overlap(const struct segment *a, const struct segment *b)
{
    const uint8_t *end_a = a->records + (size_t)(a->n_records - 1) * 32;
    const uint8_t *end_b = b->records + (size_t)(b->n_records - 1) * 32;

    return memcmp(a->records, end_b, SEGMENT_PREFIX) <= 0 &&
           memcmp(b->records, end_a, SEGMENT_PREFIX) <= 0;
}

static void
test_segments_are_merged(void)
{
    struct repo_gc_report rep;
    unsigned overlaps = 0;
    struct model m;
    struct gc_view v;

    model_begin(&m);
    for (unsigned i = 0; i < 20; i++)
        model_backup(&m, "vm", i * 3, 1, 20);
    collect_with(&m, UINT32_MAX, &rep);
    CHECK(rep.segments_before == 20 && rep.segments_after <= 10);
    CHECK(rep.points_live == 20 && rep.points_removed == 0);
    CHECK_OK(gc_view_read(&v, m.r, ERR_ABORT), ERR_ABORT);
    CHECK_OK(gc_view_open_segments(&v, ERR_ABORT), ERR_ABORT);
    for (size_t i = 0; i < v.n_segs; i++)
        for (size_t k = 0; k < i; k++)
            overlaps += overlap(&v.segs[i].seg, &v.segs[k].seg);
    CHECK(v.n_segs > 3 && overlaps == 0);
    gc_view_done(&v);
    CHECK(model_check(&m) && model_clean(&m));
    model_end(&m);
}

/* More packs than a commit object lists by itself are taken over. */
static void
test_long_lists_of_packs(void)
{
    static const unsigned n = 4200;
    static uint8_t data[TEMP_CHUNK];
    struct point *p = temp_point("big", (uint64_t)n * TEMP_CHUNK, 1);
    struct repo_session *s;
    struct repo_gc_report rep;
    struct map_writer *w = NULL;
    struct model m;

    model_chain(&m);
    for (unsigned turn = 0; turn < 2; turn++) {
        s = model_session(&m);
        session_set_limits(s, 300, 10000); /* a pack for each chunk */
        CHECK_OK(map_writer_new(s, (uint64_t)n * TEMP_CHUNK, TEMP_CHUNK,
                                &(struct chunk_id){{0}}, &w, ERR_ABORT),
                 ERR_ABORT);
        for (unsigned i = 0; i < n; i++) {
            struct chunk_id id;

            temp_fill(100000 + i, data, sizeof data);
            CHECK_OK(
                repo_put(s, 0, data, sizeof data, NULL, &id, NULL, ERR_ABORT),
                ERR_ABORT);
            CHECK_OK(map_writer_set(w, i, &id, ERR_ABORT), ERR_ABORT);
        }
        CHECK_OK(map_writer_finish(w, &p->disks[0].root, ERR_ABORT), ERR_ABORT);
        map_writer_free(w);
        CHECK_OK(repo_commit(s, p, ERR_ABORT), ERR_ABORT);
        repo_session_free(s);
        if (turn == 0)
            CHECK_OK(repo_forget(m.r, p->id, "test", ERR_ABORT), ERR_ABORT);
        memset(p->id, 0, sizeof p->id);
    }
    for (unsigned i = 0; i < 2; i++) {
        collect_with(&m, UINT32_MAX, &rep);
        CHECK(rep.points_removed == 1);
        CHECK(model_count(&m, "packs") > 0 && model_clean(&m));
        model_forget(&m, i); /* once more, over what was taken over */
    }
    CHECK(model_check(&m));
    CHECK(model_count(&m, "data") > n);
    point_free(p);
    model_end(&m);
}

/* -- beside others ----------------------------------------------------------*/

struct beater {
    struct model *m;
    char sid[REPO_SID_TEXT];
    unsigned n;
};

static void
beat(void *arg, unsigned sleep)
{
    struct beater *b = arg;
    char key[REPO_KEY_MAX];

    if (sleep % 5 != 0)
        return;
    (void)snprintf(key, sizeof key, "beat/%s.%u", b->sid, ++b->n);
    CHECK_OK(store_put(b->m->r->store, key, "", 0, ERR_ABORT), ERR_ABORT);
}

/* A reader that lives keeps what it reads, through any number of collections;
 * one that is dead does not keep it for ever. */
static void
test_pins(void)
{
    struct beater b = {.n = 0};
    struct model_clock clock = {.each = beat, .arg = &b};
    struct registration *reg = NULL;
    struct id_list ids = {0};
    struct repo_gc_report rep;
    struct model m;

    model_chain(&m);
    b.m = &m;
    CHECK_OK(id_list_add(&ids, m.points[0].id, ERR_ABORT), ERR_ABORT);
    CHECK_OK(registration_new(m.r, "pin", NULL, &ids, false, &reg, ERR_ABORT),
             ERR_ABORT);
    (void)strcpy(b.sid, registration_sid(reg));
    model_forget(&m, 0);
    model_forget(&m, 1);
    for (unsigned i = 0; i < 2; i++) {
        model_collect(&m, &clock, &rep);
        CHECK(rep.points_removed == (i == 0) && rep.points_live == 3);
        CHECK(rep.sessions_fenced == 0);
        CHECK(model_count(&m, "forget") == 1);
    }
    clock.each = NULL; /* dies */
    model_backup(&m, "vm", 5, 1, 3);
    model_forget(&m, 2);
    model_collect(&m, &clock, &rep);
    CHECK(rep.sessions_fenced == 1 && rep.points_removed == 1);
    model_collect(&m, &clock, &rep);
    CHECK(rep.points_removed == 1);
    registration_free(reg, true);
    CHECK(model_check(&m) && model_clean(&m));
    id_list_done(&ids);
    model_end(&m);
}

struct writer {
    struct model *m;
    struct repo_session *s;
    uint64_t values[MODEL_CHUNKS];
    unsigned at;
    int rc;
    struct err err;
};

static void
commit_later(void *arg, unsigned sleep)
{
    struct writer *w = arg;

    if (sleep == w->at)
        w->rc = model_commit(w->m, w->s, "vm", w->values, &w->err);
}

/* A writer that began before the collection reuses what nobody else needs any
 * more; it is waited for, and what it reuses is copied. */
static void
test_writer_is_waited_for(void)
{
    struct writer w = {.at = 3, .rc = -1};
    struct model_clock clock = {.each = commit_later, .arg = &w};
    struct repo_gc_report rep;
    struct model m;

    model_chain(&m);
    w.m = &m;
    w.s = model_session(&m);
    memcpy(w.values, m.points[0].values, sizeof w.values);
    for (unsigned i = 0; i < 4; i++)
        model_forget(&m, i);
    model_collect(&m, &clock, &rep);
    CHECK_OK(w.rc, &w.err);
    CHECK(clock.n_sleeps == 3 && rep.sessions_fenced == 0);
    CHECK(rep.bytes_copied > 0);
    repo_session_free(w.s);
    CHECK(m.n == 5 && model_check(&m) && model_clean(&m));
    model_end(&m);
}

/* The same writer, but it does not come back before the collection is over. */
static void
test_stalled_writer_is_fenced(void)
{
    struct writer w = {.rc = -1};
    struct model_clock clock = {0};
    struct repo_gc_report rep;
    struct model m;

    model_chain(&m);
    w.m = &m;
    w.s = model_session(&m);
    memcpy(w.values, m.points[0].values, sizeof w.values);
    for (unsigned i = 5; i < 40; i++)
        w.values[i] = 1000 + i;
    for (unsigned i = 0; i < 3; i++)
        model_forget(&m, i);
    for (unsigned i = 0; i < 40; i++)
        model_put(w.s, 2000 + i); /* when it stalls, it has written already */
    model_collect(&m, &clock, &rep);
    CHECK(clock.now >= REPO_FENCE_AFTER_NS);
    CHECK(rep.sessions_fenced == 1 && rep.leftovers > 0);
    CHECK(model_check(&m) && model_clean(&m));
    CHECK(model_commit(&m, w.s, "vm", w.values, &w.err) < 0);
    repo_session_free(w.s);
    CHECK(m.n == 4 && model_check(&m));
    model_collect(&m, &clock, &rep);
    CHECK(model_clean(&m));
    model_end(&m);
}

/* A writer that beats is waited for, however long it takes. */
static void
beat_and_commit(void *arg, unsigned sleep)
{
    struct writer *w = arg;
    struct beater b = {.m = w->m, .n = sleep / 5};

    (void)strcpy(b.sid, session_sid(w->s));
    beat(&b, sleep);
    commit_later(w, sleep);
}

static void
test_slow_writer_is_not_fenced(void)
{
    struct writer w = {.at = 2000, .rc = -1};
    struct model_clock clock = {.each = beat_and_commit, .arg = &w};
    struct repo_gc_report rep;
    struct model m;

    model_chain(&m);
    w.m = &m;
    w.s = model_session(&m);
    memcpy(w.values, m.points[1].values, sizeof w.values);
    model_forget(&m, 0);
    model_forget(&m, 1);
    model_collect(&m, &clock, &rep);
    CHECK(clock.now > 2 * REPO_FENCE_AFTER_NS && rep.sessions_fenced == 0);
    CHECK_OK(w.rc, &w.err);
    repo_session_free(w.s);
    model_collect(&m, NULL, &rep);
    CHECK(model_check(&m) && model_clean(&m));
    model_end(&m);
}

/* One that begins while the collection waits knows what is condemned. */
struct latecomer {
    struct writer first, late;
};

static void
begin_late(void *arg, unsigned sleep)
{
    struct latecomer *l = arg;

    if (sleep == 1)
        l->late.s = model_session(l->late.m);
    if (sleep == 2)
        l->first.rc = model_commit(l->first.m, l->first.s, "other",
                                   l->first.values, &l->first.err);
}

static void
test_latecomer_reuses_nothing_condemned(void)
{
    struct latecomer l = {.first = {.rc = -1}, .late = {.rc = -1}};
    struct model_clock clock = {.each = begin_late, .arg = &l};
    struct repo_gc_report rep;
    struct model m;

    model_chain(&m);
    l.first.m = l.late.m = &m;
    l.first.s = model_session(&m);
    for (unsigned i = 0; i < MODEL_CHUNKS; i++)
        l.first.values[i] = 5000 + i;
    memcpy(l.late.values, m.points[0].values, sizeof l.late.values);
    for (unsigned i = 0; i < 4; i++)
        model_forget(&m, i);
    model_collect(&m, &clock, &rep);
    CHECK_OK(l.first.rc, &l.first.err);
    CHECK(rep.points_removed == 4 && rep.points_live == 1);
    repo_session_free(l.first.s);
    CHECK_OK(model_commit(&m, l.late.s, "vm", l.late.values, ERR_ABORT),
             ERR_ABORT);
    repo_session_free(l.late.s);
    CHECK(m.n == 6 && model_check(&m));
    model_collect(&m, NULL, &rep);
    CHECK(model_check(&m) && model_clean(&m));
    model_end(&m);
}

/* One that begins while the collection waits builds on a point that is forgotten
 * only then: that point's maps stay for this run. */
struct heir {
    struct writer first;
    struct repo_session *s;
    struct point *p;
    unsigned base;
};

static void
inherit(void *arg, unsigned sleep)
{
    struct heir *h = arg;
    struct model *m = h->first.m;

    if (sleep == 1) {
        h->s = model_session(m);
        CHECK_OK(repo_forget(m->r, m->points[h->base].id, "test", ERR_ABORT),
                 ERR_ABORT);
    }
    if (sleep == 2)
        commit_later(&h->first, h->first.at);
}

static struct chunk_id
root_of(struct model *m, unsigned no)
{
    struct point_list l = {NULL, 0};
    struct chunk_id root;

    CHECK_OK(repo_points(m->r, NULL, &l, NULL, ERR_ABORT), ERR_ABORT);
    root = model_listed(&l, m->points[no].id)->disks[0].root;
    point_list_done(&l);
    return root;
}

static void
test_base_forgotten_meanwhile(void)
{
    struct heir h = {.first = {.at = 2, .rc = -1}, .base = 1};
    struct model_clock clock = {.each = inherit, .arg = &h};
    struct point_list l = {NULL, 0};
    struct map_writer *w = NULL;
    struct repo_gc_report rep;
    struct chunk_id root, id;
    struct model m;
    uint8_t data[TEMP_CHUNK];

    model_begin(&m);
    model_backup(&m, "vm", 0, 1, MODEL_CHUNKS);
    model_backup(&m, "vm", 0, 2, MODEL_CHUNKS / 2 + 5);
    root = root_of(&m, 1);
    h.first.m = &m;
    h.first.s = model_session(&m);
    for (unsigned i = 0; i < MODEL_CHUNKS; i++)
        h.first.values[i] = 7000 + i;
    model_forget(&m, 0); /* half of its packs is needed by the base */
    model_collect(&m, &clock, &rep);
    CHECK(rep.points_removed == 1 && rep.bytes_copied > 0);
    repo_session_free(h.first.s);
    h.p = temp_point("vm", MODEL_SIZE, 1);
    temp_fill(8000, data, sizeof data);
    CHECK_OK(map_writer_new(h.s, MODEL_SIZE, TEMP_CHUNK, &root, &w, ERR_ABORT),
             ERR_ABORT);
    CHECK_OK(repo_put(h.s, 0, data, sizeof data, NULL, &id, NULL, ERR_ABORT),
             ERR_ABORT);
    CHECK_OK(map_writer_set(w, 3, &id, ERR_ABORT), ERR_ABORT);
    CHECK_OK(map_writer_finish(w, &h.p->disks[0].root, ERR_ABORT), ERR_ABORT);
    map_writer_free(w);
    CHECK_OK(repo_put_blob(h.s, "{}", 2, &h.p->config, ERR_ABORT), ERR_ABORT);
    h.p->config_len = 2;
    CHECK_OK(repo_commit(h.s, h.p, ERR_ABORT), ERR_ABORT);
    repo_session_free(h.s);
    m.points[1].values[3] = 8000; /* is now what the heir must read as */
    model_reopen(&m);
    CHECK_OK(repo_points(m.r, "vm", &l, NULL, ERR_ABORT), ERR_ABORT);
    CHECK(l.n == 2 &&
          model_reads(m.r, model_listed(&l, h.p->id), m.points[1].values));
    point_list_done(&l);
    m.points[1].forgotten = true;
    model_collect(&m, NULL, &rep);
    CHECK(rep.points_removed == 1 && model_check(&m) && model_clean(&m));
    point_free(h.p);
    model_end(&m);
}

/* A session that was killed: packs, but neither session object nor COMMIT. */
static void
test_leftovers_of_the_dead(void)
{
    struct repo_gc_report rep;
    struct repo_session *s;
    char key[REPO_KEY_MAX];
    struct model m;
    uint64_t values[MODEL_CHUNKS];
    struct err err = ERR_INIT;

    model_chain(&m);
    s = model_session(&m);
    for (unsigned i = 0; i < 40; i++)
        model_put(s, 3000 + i);
    (void)snprintf(key, sizeof key, "session/%s", session_sid(s));
    CHECK_OK(store_delete(m.r->store, key, ERR_ABORT), ERR_ABORT);
    model_collect(&m, NULL, &rep);
    CHECK(rep.leftovers > 0 && rep.sessions_fenced == 1);
    CHECK(model_check(&m) && model_clean(&m));
    /* It was only slow: now it can do no harm. */
    model_values(&m, values, 0, 1, 5);
    CHECK(model_commit(&m, s, "vm", values, &err) < 0);
    CHECK(err.code != ERR_NONE);
    repo_session_free(s);
    CHECK(model_check(&m));
    model_end(&m);
}

/* A running session's packs are left alone. */
static void
test_running_session_is_left_alone(void)
{
    struct beater b = {.n = 0};
    struct model_clock clock = {.each = beat, .arg = &b};
    struct repo_gc_report rep;
    struct repo_session *s;
    struct model m;
    uint64_t values[MODEL_CHUNKS];

    model_chain(&m);
    s = model_session(&m);
    for (unsigned i = 0; i < 40; i++)
        model_put(s, 4000 + i);
    b.m = &m;
    (void)strcpy(b.sid, session_sid(s));
    model_collect(&m, &clock, &rep); /* nothing to do: one beat is enough */
    CHECK(rep.leftovers == 0 && rep.sessions_fenced == 0);
    CHECK(clock.now < REPO_FENCE_AFTER_NS);
    model_values(&m, values, 0, 1, 0);
    for (unsigned i = 0; i < 40; i++)
        values[i] = 4000 + i;
    CHECK_OK(model_commit(&m, s, "vm", values, ERR_ABORT), ERR_ABORT);
    repo_session_free(s);
    model_collect(&m, NULL, &rep); /* the beats that were made for it */
    CHECK(model_check(&m) && model_clean(&m));
    model_end(&m);
}

static void
test_two_collectors(void)
{
    struct beater b = {.n = 0};
    struct model_clock clock = {.each = beat, .arg = &b};
    struct registration *other = NULL;
    struct repo_gc_report rep;
    struct model m;
    unsigned packs;

    model_chain(&m);
    model_forget(&m, 0);
    packs = model_count(&m, "data");
    b.m = &m;
    CHECK_OK(registration_new(m.r, "gc", NULL, NULL, false, &other, ERR_ABORT),
             ERR_ABORT);
    (void)strcpy(b.sid, registration_sid(other));
    model_collect(&m, &clock, &rep);
    CHECK(rep.other_runs && rep.sessions_fenced == 0);
    CHECK(model_count(&m, "data") == packs && model_count(&m, "session") == 1);
    clock.each = NULL; /* the other one dies */
    model_collect(&m, &clock, &rep);
    CHECK(!rep.other_runs && rep.sessions_fenced == 1);
    CHECK(rep.points_removed == 1);
    registration_free(other, true);
    CHECK(model_check(&m) && model_clean(&m));
    model_end(&m);
}

/* -- a reader beside a collector --------------------------------------------*/

static struct {
    struct model *m;
    const char *path; /* a part of the name whose opening starts it */
    struct file_ops ops;
} beside;

static int
collect_and_open(const char *path, int flags, mode_t mode)
{
    struct model *m = beside.m;

    if (m != NULL && strstr(path, beside.path) != NULL) {
        struct model other = {.t = m->t};
        struct repo_gc_report rep;

        beside.m = NULL;
        model_reopen(&other);
        model_collect(&other, NULL, &rep);
        CHECK(rep.points_removed == 1);
        repo_close(other.r);
    }
    return temp_ops()->open(path, flags, mode);
}

/* The collector's COMMIT was not there yet when commit objects were listed, and
 * the segments that it replaces are not there any more when they are opened:
 * nothing is damaged, and nothing has to be made again from packs. */
static void
test_segment_that_is_collected_while_it_is_opened(void)
{
    struct jv *problems;
    struct model m;

    model_chain(&m);
    model_forget(&m, 0);
    beside.ops = *temp_ops();
    beside.ops.open = collect_and_open;
    beside.path = "/index/";
    beside.m = &m;
    m.ops = &beside.ops;
    model_reopen(&m);
    CHECK(beside.m == NULL);
    problems = index_problems(m.r);
    CHECK(jv_size(problems) == 0);
    jv_free(problems);
    CHECK(model_check(&m) && model_clean(&m));
    model_end(&m);
}

/* -- many points ------------------------------------------------------------*/

static unsigned n_commits_opened;

static int
count_commits(const char *path, int flags, mode_t mode)
{
    n_commits_opened +=
        strstr(path, "/commit/") != NULL && (flags & O_CREAT) == 0;
    return temp_ops()->open(path, flags, mode);
}

/* A commit looks for the machine's newest point without reading all of them
 * again; the newest is passed over when it is damaged or gone. */
static void
test_commit_reads_few_commit_objects(void)
{
    struct file_ops ops = *temp_ops();
    struct repo_session *s;
    struct point_list l;
    struct model m;
    char path[512];
    uint64_t values[MODEL_CHUNKS];

    model_begin(&m);
    for (unsigned i = 0; i < 10; i++)
        model_backup(&m, i % 2 != 0 ? "vm" : "other", 0, 1, 3);
    ops.open = count_commits;
    m.ops = &ops;
    model_reopen(&m);
    s = model_session(&m);
    model_values(&m, values, 0, 1, 3);
    (void)snprintf(path, sizeof path, "%s/commit/%s.1", m.t.path,
                   m.points[9].id);
    CHECK(unlink(path) == 0);
    n_commits_opened = 0;
    CHECK_OK(model_commit(&m, s, "vm", values, ERR_ABORT), ERR_ABORT);
    printf("# %u opened\n", n_commits_opened);
    CHECK(n_commits_opened <=
          4); /* gone, its parent, the new one, a directory */
    repo_session_free(s);
    CHECK_OK(repo_points(m.r, "vm", &l, NULL, ERR_ABORT), ERR_ABORT);
    CHECK(l.n == 5 && l.v[4]->seq == 5);
    CHECK(strcmp(l.v[4]->id, m.points[10].id) == 0);
    CHECK(strcmp(l.v[4]->parent, m.points[7].id) == 0);
    point_list_done(&l);
    model_end(&m);
}

/* What is under the commit object's name is no fence, or nobody can tell: the
 * point may exist, so its packs stay. */
static void
test_packs_stay_when_the_name_is_taken_by_no_fence(void)
{
    struct repo_session *s;
    struct err err = ERR_INIT;
    char key[REPO_KEY_MAX];
    struct model m;
    uint64_t values[MODEL_CHUNKS];

    model_begin(&m);
    s = model_session(&m);
    model_values(&m, values, 0, 1, 3);
    commit_key(session_sid(s), 1, key);
    CHECK_OK(store_put(m.r->store, key, "?", 1, ERR_ABORT), ERR_ABORT);
    CHECK(model_commit(&m, s, "vm", values, &err) < 0);
    repo_session_free(s);
    CHECK(model_count(&m, "data") > 0 && model_count(&m, "meta") > 0);
    model_end(&m);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_forgotten_point_goes),
        TEST(test_second_run_does_nothing),
        TEST(test_half_dead_packs_are_rewritten),
        TEST(test_all_forgotten_leaves_nothing),
        TEST(test_dry_run_writes_nothing),
        TEST(test_many_cycles_stay_small),
        TEST(test_segments_are_merged),
        TEST(test_long_lists_of_packs),
        TEST(test_pins),
        TEST(test_writer_is_waited_for),
        TEST(test_stalled_writer_is_fenced),
        TEST(test_slow_writer_is_not_fenced),
        TEST(test_latecomer_reuses_nothing_condemned),
        TEST(test_base_forgotten_meanwhile),
        TEST(test_leftovers_of_the_dead),
        TEST(test_running_session_is_left_alone),
        TEST(test_two_collectors),
        TEST(test_segment_that_is_collected_while_it_is_opened),
        TEST(test_commit_reads_few_commit_objects),
        TEST(test_packs_stay_when_the_name_is_taken_by_no_fence),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
