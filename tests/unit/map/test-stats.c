/* What points take and hold alone, against counting every reference; and which
 * points are known to be damaged. */
#include "map_page.h"
#include "pack.h"
#include "rand.h"
#include "store.h"
#include "temp_repo.h"

DEFINE_CLEANUP(struct repo *, repo_close)

#define POINTS_MAX 12
#define CHUNKS 300 /* two levels of pages */
#define IDS_MAX (POINTS_MAX * 2 * (CHUNKS + 8))

/* -- counting every reference -----------------------------------------------*/

struct known {
    struct chunk_id id;
    struct locator l;
    bool by[POINTS_MAX];
};

static struct known known[IDS_MAX];
static size_t n_known;

static void
refer(struct repo *r, const struct chunk_id *id, size_t point)
{
    for (size_t i = 0; i < n_known; i++)
        if (chunk_id_equal(&known[i].id, id)) {
            known[i].by[point] = true;
            return;
        }
    memset(&known[n_known], 0, sizeof known[0]);
    known[n_known].id = *id;
    known[n_known].by[point] = true;
    CHECK(index_find(r, id, &known[n_known].l, ERR_ABORT) == 1);
    n_known++;
}

static void
refer_all(struct repo *r, unsigned level, const struct chunk_id *id,
          size_t point)
{
    struct map_page page;

    if (chunk_id_zero(id))
        return;
    refer(r, id, point);
    if (level == 0)
        return;
    (void)page_get(r, id, &page, sizeof page, ERR_ABORT);
    for (unsigned i = 0; i < MAP_PAGE_ENTRIES; i++)
        refer_all(r, level - 1, &page.entry[i], point);
}

/* Only points of machine `m` refer to it (all: NULL), or only point `p`. */
static bool
only(const struct known *k, const struct point_list *l, const char *m, size_t p)
{
    bool any = false;

    for (size_t i = 0; i < l->n; i++) {
        bool inside = m != NULL ? strcmp(l->v[i]->machine, m) == 0 : i == p;

        if (k->by[i] && !inside)
            return false;
        any |= k->by[i];
    }
    return any;
}

static uint64_t
freed(const struct point_list *l, const char *m, size_t p)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < n_known; i++)
        if (only(&known[i], l, m, p))
            sum += known[i].l.frame_len;
    return sum;
}

static struct repo_stat
first_in(size_t point)
{
    struct repo_stat s = {.points = 1};

    for (size_t i = 0; i < n_known; i++) {
        const struct known *k = &known[i];
        bool before = false;

        for (size_t p = 0; p < point; p++)
            before |= k->by[p];
        if (before || !k->by[point])
            continue;
        if (k->l.kind == FRAME_DATA) {
            s.unique += k->l.raw_len;
            s.stored += k->l.frame_len;
        } else {
            s.meta += k->l.frame_len;
        }
    }
    return s;
}

static uint64_t
data_of(struct repo *r, const struct point_disk *d)
{
    struct map_reader *m;
    struct chunk_id id;
    uint64_t sum = 0;

    (void)map_reader_new(r, d->size, d->chunk_size, &d->root, &m, ERR_ABORT);
    for (uint64_t i = 0; i * TEMP_CHUNK < d->size; i++) {
        (void)map_reader_get(m, i, &id, ERR_ABORT);
        sum += chunk_id_zero(&id) ? 0 : temp_len(d->size, i);
    }
    map_reader_free(m);
    return sum;
}

static void
check_stat(const struct repo_stat *got, const struct repo_stat *want,
           const char *what, size_t i)
{
    if (memcmp(got, want, sizeof *got) == 0)
        return;
    printf("# %s %zu: points %" PRIu64 "/%" PRIu64 " size %" PRIu64 "/%" PRIu64
           " data %" PRIu64 "/%" PRIu64 " unique %" PRIu64 "/%" PRIu64
           " stored %" PRIu64 "/%" PRIu64 " meta %" PRIu64 "/%" PRIu64
           " freed %" PRIu64 "/%" PRIu64 "\n",
           what, i, got->points, want->points, got->size, want->size, got->data,
           want->data, got->unique, want->unique, got->stored, want->stored,
           got->meta, want->meta, got->freed, want->freed);
    CHECK(!"figures as counted");
}

static void
sum_up(struct repo_stat *to, const struct repo_stat *s)
{
    to->points += s->points;
    to->size += s->size;
    to->data += s->data;
    to->unique += s->unique;
    to->stored += s->stored;
    to->meta += s->meta;
}

static void
check_stats(struct repo *r)
{
    CLEANUP(point_list_done) struct point_list l = {0};
    struct repo_stats st;
    struct repo_stat machine = {0}, all = {0};
    size_t m = 0;

    n_known = 0;
    (void)repo_points(r, NULL, &l, NULL, ERR_ABORT);
    CHECK(repo_stats(r, &l, NULL, &st, ERR_ABORT) == 0);
    for (size_t i = 0; i < l.n; i++) {
        for (size_t d = 0; d < l.v[i]->n_disks; d++)
            refer_all(r, l.v[i]->disks[d].size > 64 * TEMP_CHUNK ? 2 : 1,
                      &l.v[i]->disks[d].root, i);
        refer(r, &l.v[i]->config, i);
    }
    for (size_t i = 0; i < l.n; i++) {
        struct repo_stat want = first_in(i);

        want.freed = freed(&l, NULL, i);
        for (size_t d = 0; d < l.v[i]->n_disks; d++) {
            want.size += l.v[i]->disks[d].size;
            want.data += data_of(r, &l.v[i]->disks[d]);
        }
        check_stat(&st.points[i], &want, "point", i);
        sum_up(&machine, &want);
        sum_up(&all, &want);
        if (i + 1 < l.n && strcmp(l.v[i]->machine, l.v[i + 1]->machine) == 0)
            continue;
        machine.freed = freed(&l, l.v[i]->machine, 0);
        check_stat(&st.machines[m], &machine, "machine", m);
        machine = (struct repo_stat){0};
        m++;
    }
    all.freed = all.stored + all.meta;
    check_stat(&st.all, &all, "all", 0);
    CHECK(st.n_machines == m);
    CHECK(st.pack_bytes > all.freed);
    repo_stats_done(&st);
}

/* -- repositories -----------------------------------------------------------*/

static uint64_t seed = 1;

static unsigned
pick(unsigned n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(seed >> 33) % n;
}

struct history {
    uint64_t values[2][CHUNKS];
    uint64_t size;
};

static void
change(struct history *h, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        unsigned at = pick(CHUNKS), d = pick(2);

        for (unsigned k = at; k < CHUNKS && k < at + 1 + pick(40); k++)
            h->values[d][k] = pick(3) == 0 ? 0 : 1 + pick(500);
    }
}

static void
commit(struct repo *r, const char *machine, const struct history *h)
{
    struct repo_session_opts opts = REPO_SESSION_OPTS;
    struct point *p = temp_point(machine, h->size, 2);
    struct chunk_id none = {0};
    struct repo_session *s;
    char config[32];

    (void)repo_session_begin(r, &opts, &s, ERR_ABORT);
    for (size_t d = 0; d < 2; d++)
        (void)temp_put_disk(s, h->values[d], h->size, &none, &p->disks[d].root,
                            ERR_ABORT);
    (void)snprintf(config, sizeof config, "{\"n\":%u}", pick(3));
    p->config_len = strlen(config);
    (void)repo_put_blob(s, config, strlen(config), &p->config, ERR_ABORT);
    (void)repo_commit(s, p, ERR_ABORT);
    repo_session_free(s);
    point_free(p);
}

static void
test_random_repositories(void)
{
    static const char *const machines[] = {"a", "b", "c"};

    for (int turn = 0; turn < 12; turn++) {
        static struct history h[3];
        CLEANUP(repo_closep) struct repo *r = NULL;
        struct temp_repo t;

        temp_repo_init(&t);
        (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
        memset(h, 0, sizeof h);
        h[0].size = (uint64_t)CHUNKS * TEMP_CHUNK;
        change(&h[0], 10);
        h[1] = h[2] = h[0];
        h[1].size -= 100;
        for (int i = 0, n = 1 + (int)pick(POINTS_MAX); i < n; i++) {
            unsigned m = pick(3);

            change(&h[m], pick(4));
            commit(r, machines[m], &h[m]);
        }
        check_stats(r);
        repo_close(TAKE_PTR(r));
        (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
        check_stats(r);
        temp_repo_done(&t);
    }
}

static void
test_empty_repository(void)
{
    CLEANUP(repo_closep) struct repo *r = NULL;
    struct point_list l = {0};
    struct repo_stats st;
    struct temp_repo t;

    temp_repo_init(&t);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    CHECK(repo_stats(r, &l, NULL, &st, ERR_ABORT) == 0);
    CHECK(st.all.points == 0 && st.n_machines == 0 && st.pack_bytes == 0);
    repo_stats_done(&st);
    temp_repo_done(&t);
}

/* -- damage that is known ---------------------------------------------------*/

/* As a verification notes it that found one frame bad. */
static void
note_bad(struct repo *r, const struct locator *l)
{
    char key[REPO_KEY_MAX], pack[REPO_KEY_MAX], sid[33];
    struct jv *payload, *at = jv_array();
    uint8_t raw[16];

    rand_bytes(raw, sizeof raw);
    hex_encode(raw, sizeof raw, sid);
    (void)snprintf(key, sizeof key, "bad/%s", sid);
    (void)locator_pack_key(r, l, pack);
    (void)jv_add(at, jv_int(l->offset));
    payload = jv_build("{s:{}, s:[{s:s, s:o}]}", "packs", "frames", "pack",
                       pack, "at", at);
    CHECK(record_write(r, key, COMMIT_BAD, payload, ERR_ABORT) == 0);
    jv_free(payload);
}

static int
damaged(const struct temp_repo *t, size_t point, bool *known_at_all,
        struct err *why)
{
    CLEANUP(point_list_done) struct point_list l = {0};
    CLEANUP(repo_closep) struct repo *r = NULL;

    (void)repo_open(t->path, temp_ops(), &r, ERR_ABORT);
    (void)repo_points(r, "a", &l, NULL, ERR_ABORT);
    *known_at_all = repo_damage_known(r);
    return repo_point_damaged(r, l.v[point], NULL, why, ERR_ABORT);
}

static void
test_known_damage(void)
{
    static struct history h;
    CLEANUP(point_list_done) struct point_list l = {0};
    CLEANUP(repo_closep) struct repo *r = NULL;
    struct err why = ERR_INIT;
    struct map_reader *m;
    struct chunk_id id;
    struct locator loc;
    struct temp_repo t;
    char key[REPO_KEY_MAX];
    bool any;

    temp_repo_init(&t);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    h.size = (uint64_t)CHUNKS * TEMP_CHUNK;
    h.values[0][7] = 1;
    h.values[1][200] = 2;
    commit(r, "a", &h);
    h.values[1][200] = 3;
    commit(r, "a", &h);
    CHECK(damaged(&t, 0, &any, NULL) == 0 && !any);
    CHECK(damaged(&t, 1, &any, NULL) == 0 && !any);

    /* A chunk of the newer point only; then one pack of both. */
    (void)repo_points(r, "a", &l, NULL, ERR_ABORT);
    (void)map_reader_new(r, h.size, TEMP_CHUNK, &l.v[1]->disks[1].root, &m,
                         ERR_ABORT);
    (void)map_reader_get(m, 200, &id, ERR_ABORT);
    map_reader_free(m);
    CHECK(index_find(r, &id, &loc, ERR_ABORT) == 1);
    note_bad(r, &loc);
    CHECK(damaged(&t, 0, &any, NULL) == 0 && any);
    CHECK(damaged(&t, 1, &any, &why) == 1 && any);
    CHECK(strstr(why.msg, "disk 'vdb': ") != NULL &&
          strstr(why.msg, "chunk 200") != NULL);
    CHECK(index_find(r, &l.v[0]->config, &loc, ERR_ABORT) == 1);
    (void)locator_pack_key(r, &loc, key);
    CHECK(store_delete(r->store, key, ERR_ABORT) == 0);
    CHECK(damaged(&t, 0, &any, NULL) == 1);
    CHECK(damaged(&t, 1, &any, NULL) == 1);
    temp_repo_done(&t);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_random_repositories),
        TEST(test_empty_repository),
        TEST(test_known_damage),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
