/* Checkpoints: points of unfinished runs, and sessions that go on after them. */
#include "point.h"
#include "rand.h"
#include "store.h"
#include "temp_repo.h"

DEFINE_CLEANUP(struct repo *, repo_close)
DEFINE_CLEANUP(struct repo_session *, repo_session_free)
DEFINE_CLEANUP(struct point *, point_free)

#define N 3
#define SIZE (N * (uint64_t)TEMP_CHUNK)

static struct repo_session *
begin(struct repo *r)
{
    struct repo_session_opts opts = REPO_SESSION_OPTS;
    struct repo_session *s;

    opts.machine = "m";
    (void)repo_session_begin(r, &opts, &s, ERR_ABORT);
    return s;
}

static int
count_object(void *arg, const char *key, uint64_t len)
{
    (*(unsigned *)arg)++;
    return 0;
}

static unsigned
n_objects(struct repo *r, const char *kind)
{
    unsigned n = 0;

    (void)store_list(r->store, kind, count_object, &n, ERR_ABORT);
    return n;
}

/* A partial point with the values of `done` chunks. */
static struct point *
partial(struct repo_session *s, const uint64_t *values, uint64_t done,
        const struct chunk_id *base)
{
    struct point *p = temp_point("m", SIZE, 1);
    uint64_t v[N] = {0};

    p->partial = true;
    p->disks[0].done = done * TEMP_CHUNK;
    p->disks[0].generation = temp_copy("00112233445566778899aabbccddeeff");
    memcpy(v, values, done * sizeof *v);
    (void)temp_put_disk(s, v, SIZE, base, &p->disks[0].root, ERR_ABORT);
    return p;
}

static size_t
n_points(struct repo *r, bool all)
{
    CLEANUP(point_list_done) struct point_list l = {0};
    struct repo_verify_report rep = {0};
    struct err err = ERR_INIT;

    CHECK_OK((all ? repo_points_all : repo_points)(r, NULL, &l, NULL, &err),
             &err);
    CHECK_OK(repo_verify(r, &l, 1, NULL, NULL, NULL, &rep, &err), &err);
    CHECK(jv_size(rep.problems) == 0);
    jv_free(rep.problems);
    return l.n;
}

/* The session goes on; what it put before is stored already, and the whole point
 * comes behind the partial one. */
static void
test_goes_on(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(repo_session_freep) struct repo_session *s = NULL;
    CLEANUP(point_freep) struct point *p = NULL, *whole = NULL;
    static const uint64_t values[N] = {1, 2, 3};
    static uint8_t data[TEMP_CHUNK];
    struct put_stat stat = {.is_new = true};
    struct chunk_id zero = {0}, id;
    struct err err = ERR_INIT;

    temp_repo_init(&t);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    s = begin(r);
    p = partial(s, values, 2, &zero);
    CHECK_OK(repo_session_checkpoint(s, p, &err), &err);
    CHECK(p->seq == 1 && strlen(p->id) == 32);
    CHECK(n_objects(r, "session") == 1);
    CHECK(strcmp(session_sid(s), p->id) != 0);
    CHECK(n_points(r, false) == 0 && n_points(r, true) == 1);
    temp_fill(2, data, sizeof data);
    CHECK_OK(repo_put(s, 0, data, sizeof data, NULL, &id, &stat, &err), &err);
    CHECK(!stat.is_new);
    whole = temp_point("m", SIZE, 1);
    (void)temp_put_disk(s, values, SIZE, &p->disks[0].root,
                        &whole->disks[0].root, ERR_ABORT);
    CHECK_OK(repo_commit(s, whole, &err), &err);
    CHECK(whole->seq == 2);
    CHECK_STR(whole->parent, p->id);
    CHECK_STR(whole->lineage, p->lineage);
    CHECK_OK(repo_forget(r, p->id, "test", &err), &err);
    CHECK(n_points(r, true) == 1);
}

/* A run that ends after a checkpoint leaves that and nothing else. */
static void
test_ends_after(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(point_freep) struct point *p = NULL, *q = NULL;
    static const uint64_t values[N] = {1, 2, 3};
    struct chunk_id zero = {0};
    struct repo_session *s;
    struct err err = ERR_INIT;
    unsigned packs;

    temp_repo_init(&t);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    s = begin(r);
    p = partial(s, values, 1, &zero);
    CHECK_OK(repo_session_checkpoint(s, p, &err), &err);
    packs = n_objects(r, "data");
    q = partial(s, values, 3, &p->disks[0].root);
    repo_session_free(s);
    CHECK(n_objects(r, "data") == packs && n_objects(r, "session") == 0);
    CHECK(n_objects(r, "commit") == 1);
    CHECK(n_points(r, true) == 1);
}

/* Each of the two names can be fenced; the session notices, the partial point
 * that was durable before stays. */
static void
test_fenced(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(point_freep) struct point *p = NULL, *q = NULL;
    static const uint64_t values[N] = {1, 2, 3};
    struct chunk_id zero = {0}, id;
    struct repo_session *s;
    struct err err = ERR_INIT;
    uint8_t byte = 1;

    temp_repo_init(&t);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    s = begin(r);
    p = partial(s, values, 1, &zero);
    CHECK_OK(repo_session_checkpoint(s, p, &err), &err);
    q = partial(s, values, 2, &p->disks[0].root);
    CHECK(session_fence(r, session_sid(s), "test", &err) == 1);
    CHECK(repo_session_checkpoint(s, q, &err) < 0);
    CHECK(err.code == ERR_EXISTS && strstr(err.msg, "fenced") != NULL);
    CHECK(repo_put(s, 0, &byte, 1, NULL, &id, NULL, &err) < 0);
    repo_session_free(s);
    CHECK(n_objects(r, "session") == 0);
    CHECK(n_points(r, true) == 1);
}

/* What only partial points have comes back, and nonsense is refused. */
static void
test_json(void)
{
    static const char id[] = "0123456789abcdef0123456789abcdef";
    CLEANUP(point_freep) struct point *p = temp_point("m", SIZE, 1), *q = NULL;
    CLEANUP_JV struct jv *j = NULL;
    struct point_disk *d = &p->disks[0];
    struct err err = ERR_INIT;
    uint8_t prev[32];
    bool has_prev;

    (void)strcpy(p->id, id);
    p->seq = 1;
    p->lineage = temp_copy(id);
    p->partial = true;
    d->done = TEMP_CHUNK;
    d->base_generation = temp_copy(id);
    d->n_base_canaries = 1;
    j = point_to_json(p, NULL, &err);
    CHECK_OK(j == NULL ? -1 : 0, &err);
    CHECK_OK(point_from_json(j, &q, prev, &has_prev, &err), &err);
    CHECK(q->partial && q->disks[0].done == TEMP_CHUNK);
    CHECK_STR(q->disks[0].base_generation, id);
    CHECK(q->disks[0].n_base_canaries == 1);
    d->done = SIZE + TEMP_CHUNK;
    CHECK(point_check(p, &err) < 0);
    d->done = 1;
    CHECK(point_check(p, &err) < 0);
    d->done = SIZE;
    CHECK(point_check(p, NULL) == 0);
    d->base_canaries[0] = 1000;
    CHECK(point_check(p, &err) < 0);
}

/* A point that says nothing of it is whole; one that says it must say how far. */
static void
test_json_incomplete(void)
{
    static const char id[] = "0123456789abcdef0123456789abcdef";
    CLEANUP(point_freep) struct point *p = temp_point("m", SIZE, 1), *q = NULL;
    CLEANUP_JV struct jv *j = NULL;
    struct err err = ERR_INIT;
    uint8_t prev[32];
    bool has_prev;

    (void)strcpy(p->id, id);
    p->seq = 1;
    p->lineage = temp_copy(id);
    j = point_to_json(p, NULL, &err);
    CHECK_OK(point_from_json(j, &q, prev, &has_prev, &err), &err);
    CHECK(!q->partial);
    point_free(TAKE_PTR(q));
    (void)jv_set_bool(j, "partial", true);
    CHECK(point_from_json(j, &q, prev, &has_prev, &err) < 0);
    CHECK(err.code == ERR_FORMAT);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_goes_on), TEST(test_ends_after),      TEST(test_fenced),
        TEST(test_json),    TEST(test_json_incomplete),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
