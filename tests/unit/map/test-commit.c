/* Committing points, and the chain that they make. */
#include <errno.h>

#include "buf.h"
#include "io.h"
#include "points.h"
#include "store.h"
#include "temp_repo.h"

DEFINE_CLEANUP(struct repo *, repo_close)
DEFINE_CLEANUP(struct repo_session *, repo_session_free)
DEFINE_CLEANUP(struct point *, point_free)

static const uint64_t values[3] = {1, 0, 2};
#define SIZE (3 * (uint64_t)TEMP_CHUNK)

static struct repo_session *
begin(struct repo *r)
{
    struct repo_session_opts opts = REPO_SESSION_OPTS;
    struct repo_session *s;

    (void)repo_session_begin(r, &opts, &s, ERR_ABORT);
    return s;
}

static void
backup(struct repo *r, const char *machine)
{
    struct chunk_id zero = {0}, root;

    temp_backup(r, machine, values, SIZE, &zero, &root);
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

/* The commit fills in who the point is; numbers, parents and lineages are per
 * machine. */
static void
test_chain(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(point_list_done) struct point_list l = {0}, web = {0};
    struct err err = ERR_INIT;

    temp_repo_init(&t);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    backup(r, "web");
    backup(r, "db");
    backup(r, "web");
    backup(r, "web");
    CHECK_OK(repo_points(r, NULL, &l, NULL, &err), &err);
    CHECK(l.n == 4);
    if (l.n != 4)
        return;
    CHECK_STR(l.v[0]->machine, "db");
    CHECK(l.v[0]->seq == 1 && l.v[0]->parent[0] == '\0');
    for (unsigned i = 1; i < 4; i++) {
        CHECK_STR(l.v[i]->machine, "web");
        CHECK(l.v[i]->seq == i && strlen(l.v[i]->id) == 32);
        CHECK_STR(l.v[i]->parent, i == 1 ? "" : l.v[i - 1]->id);
        CHECK_STR(l.v[i]->lineage, l.v[1]->lineage);
    }
    CHECK(strcmp(l.v[0]->lineage, l.v[1]->lineage) != 0);
    CHECK_OK(repo_points(r, "web", &web, NULL, &err), &err);
    CHECK(web.n == 3);
    CHECK(n_objects(r, "session") == 0);
}

/* A second process that has the repository open sees and reads new points. */
static void
test_seen_by_others(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL, *other = NULL;
    CLEANUP(point_list_done) struct point_list l = {0};
    CLEANUP_FREE uint8_t *config = NULL;
    struct repo_verify_report rep = {0};
    struct err err = ERR_INIT;

    temp_repo_init(&t);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    (void)repo_open(t.path, temp_ops(), &other, ERR_ABORT);
    backup(r, "web");
    CHECK_OK(repo_points(other, NULL, &l, NULL, &err), &err);
    CHECK(l.n == 1);
    CHECK_OK(repo_get_blob(other, &l.v[0]->config, l.v[0]->config_len, &config,
                           &err),
             &err);
    CHECK_OK(repo_verify(other, &l, 1, NULL, NULL, NULL, &rep, &err), &err);
    CHECK(rep.chunks == 2 && jv_size(rep.problems) == 0);
    jv_free(rep.problems);
}

/* -- refused ----------------------------------------------------------------*/

static void
refused(struct repo *r, struct repo_session *s, struct point *p,
        enum err_code code, const char *word)
{
    CLEANUP(point_list_done) struct point_list l = {0};
    struct err err = ERR_INIT;

    CHECK(repo_commit(s, p, &err) < 0);
    CHECK(err.code == code);
    if (strstr(err.msg, word) == NULL)
        CHECK_STR(err.msg, word);
    CHECK(p->id[0] == '\0' && p->seq == 0);
    CHECK(repo_points(r, NULL, &l, NULL, NULL) == 0 && l.n == 0);
}

/* What could not be read back is never committed, and leaves nothing. */
static void
test_refused(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    struct chunk_id zero = {0};

    temp_repo_init(&t);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    for (unsigned i = 0; i < 5; i++) {
        CLEANUP(repo_session_freep) struct repo_session *s = begin(r);
        CLEANUP(point_freep) struct point *p = temp_point("web", SIZE, 2);

        (void)temp_put_disk(s, values, SIZE, &zero, &p->disks[0].root,
                            ERR_ABORT);
        if (i == 0) {
            p->machine[1] = '/';
            refused(r, s, p, ERR_USAGE, "machine's name");
        } else if (i == 1) {
            p->disks[1].root.b[5] = 1;
            refused(r, s, p, ERR_NOT_FOUND, "map of disk 'vdb'");
        } else if (i == 2) {
            p->disks[1].name[2] = 'a';
            refused(r, s, p, ERR_FORMAT, "two disks are named 'vda'");
        } else if (i == 3) {
            p->config.b[7] = 7;
            p->config_len = 100;
            refused(r, s, p, ERR_NOT_FOUND, "configuration");
        } else {
            struct jv *deep = jv_object();

            for (unsigned k = 0; k < 100; k++)
                deep = jv_build("{s:o}", "deeper", deep);
            p->disks[0].source = deep;
            refused(r, s, p, ERR_FORMAT, "read back");
        }
    }
    CHECK(n_objects(r, "data") == 0 && n_objects(r, "meta") == 0);
    CHECK(n_objects(r, "index") == 0 && n_objects(r, "session") == 0);
}

/* A collector that fenced the session wins: no point, and nothing is left. */
static void
test_fenced(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(buf_done) struct buf fence = BUF_INIT;
    struct point *p = temp_point("web", SIZE, 1);
    struct repo_session *s;
    struct chunk_id zero = {0};
    char key[REPO_KEY_MAX];
    struct jv *j;

    temp_repo_init(&t);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    s = begin(r);
    (void)temp_put_disk(s, values, SIZE, &zero, &p->disks[0].root, ERR_ABORT);
    j = jv_build("{s:s, s:s}", "type", "abort", "session", session_sid(s));
    (void)commit_encode(repo_key_commit(r), COMMIT_ABORT, j, &fence, ERR_ABORT);
    commit_key(session_sid(s), 1, key);
    (void)store_put(r->store, key, fence.data, fence.len, ERR_ABORT);
    refused(r, s, p, ERR_EXISTS, "this session was fenced");
    repo_session_free(s);
    CHECK(n_objects(r, "data") == 0 && n_objects(r, "commit") == 1);
    jv_free(j);
    point_free(p);
}

/* A point that its successor knows cannot be exchanged unseen, not even by one
 * who has the key; that it was deleted is nothing to report. */
static void
exchanged(bool gone)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(point_list_done) struct point_list l = {0}, again = {0};
    CLEANUP(buf_done) struct buf object = BUF_INIT;
    CLEANUP_JV struct jv *payload = NULL, *bad = NULL;
    struct err err = ERR_INIT;
    enum commit_type type;
    char key[REPO_KEY_MAX];

    temp_repo_init(&t);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    backup(r, "web");
    backup(r, "web");
    (void)repo_points(r, NULL, &l, NULL, ERR_ABORT);
    commit_key(l.v[0]->id, 1, key);
    (void)commit_read(r, key, &type, &payload, NULL, ERR_ABORT);
    (void)store_delete(r->store, key, ERR_ABORT);
    if (!gone) { /* the same point with another time, by one who has the key */
        struct jv *point = jv_ref(jv_get(payload, "point"));

        (void)jv_set_int(point, "time_ns", 5);
        jv_free(point);
        (void)commit_encode(repo_key_commit(r), type, payload, &object,
                            ERR_ABORT);
        (void)store_put(r->store, key, object.data, object.len, ERR_ABORT);
    }
    CHECK_OK(repo_points(r, NULL, &again, &bad, &err), &err);
    CHECK(again.n == (gone ? 1 : 2) && jv_size(bad) == (gone ? 0 : 1));
    if (!gone) {
        CHECK(strstr(jv_str(jv_at(bad, 0)), "exchanged") != NULL);
        point_list_done(&again);
        CHECK(repo_points(r, NULL, &again, NULL, &err) < 0);
        CHECK(err.code == ERR_CORRUPT);
    }
}

static void
test_parent_exchanged(void)
{
    exchanged(false);
}

static void
test_parent_deleted(void)
{
    exchanged(true);
}

/* Commit objects that are none, and what is said of them. */
static void
test_bad_objects(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(point_list_done) struct point_list l = {0};
    CLEANUP(buf_done) struct buf bytes = BUF_INIT;
    CLEANUP_JV struct jv *bad = NULL;
    struct err err = ERR_INIT;
    char from[512];

    temp_repo_init(&t);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    backup(r, "web");
    (void)repo_points(r, NULL, &l, NULL, ERR_ABORT);
    (void)snprintf(from, sizeof from, "%s/commit/%s.1", t.path, l.v[0]->id);
    (void)io_read_file(from, 1 << 20, &bytes, ERR_ABORT);
    point_list_done(&l);
    /* the same bytes under another session's name */
    (void)store_put(r->store, "commit/00000000000000000000000000000000.1",
                    bytes.data, bytes.len, ERR_ABORT);
    (void)store_put(r->store, "commit/readme", "hello", 5, ERR_ABORT);
    (void)store_put(r->store, "commit/11111111111111111111111111111111.1",
                    "hello", 5, ERR_ABORT);
    CHECK(repo_points(r, NULL, &l, NULL, &err) < 0);
    CHECK(l.n == 0 && strstr(err.msg, "commit/") != NULL);
    CHECK(repo_points(r, NULL, &l, &bad, NULL) == 0);
    CHECK(l.n == 1 && jv_size(bad) == 3);
    for (size_t i = 0; i < jv_size(bad); i++)
        CHECK(strncmp(jv_str(jv_at(bad, i)), "commit/", 7) == 0);
    /* and none of that stops the next backup */
    backup(r, "web");
    point_list_done(&l);
    jv_free(bad);
    bad = NULL;
    CHECK(repo_points(r, NULL, &l, &bad, NULL) == 0);
    CHECK(l.n == 2 && l.v[1]->seq == 2);
}

/* A commit object that cannot be read costs its own point, nothing else. */
static ssize_t
bad_sector(int fd, void *buf, size_t len, off_t off)
{
    char link[64], path[512] = "";

    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (readlink(link, path, sizeof path - 1) > 0 &&
        strstr(path, "/commit/") != NULL) {
        errno = EIO;
        return -1;
    }
    return pread(fd, buf, len, off);
}

static void
test_unreadable(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(point_list_done) struct point_list l = {0};
    CLEANUP_JV struct jv *bad = NULL;
    struct file_ops ops = file_ops_system;
    struct repo *r = NULL;
    struct err err = ERR_INIT;

    temp_repo_init(&t);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    backup(r, "web");
    repo_close(r);
    ops.pread = bad_sector;
    CHECK_OK(repo_open(t.path, &ops, &r, &err), &err);
    CHECK_OK(repo_points(r, NULL, &l, &bad, &err), &err);
    CHECK(l.n == 0 && jv_size(bad) == 1);
    repo_close(r);
}

/* A commit object may have no point: what a collector or a long session adds to
 * the index.  It is no damage, and its segments count. */
static void
test_without_point(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(point_list_done) struct point_list l = {0};
    CLEANUP(buf_done) struct buf object = BUF_INIT;
    CLEANUP_JV struct jv *parts = NULL;
    struct repo_session *s;
    struct chunk_id id;
    struct locator loc;
    struct err err = ERR_INIT;
    char key[REPO_KEY_MAX];

    temp_repo_init(&t);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    backup(r, "web");
    s = begin(r);
    (void)repo_put(s, 0, "only here", 9, NULL, &id, NULL, ERR_ABORT);
    (void)session_seal(s, &parts, ERR_ABORT);
    (void)jv_set_str(parts, "session", session_sid(s));
    (void)commit_encode(repo_key_commit(r), COMMIT_COMMIT, parts, &object,
                        ERR_ABORT);
    commit_key(session_sid(s), 1, key);
    (void)store_put(r->store, key, object.data, object.len, ERR_ABORT);
    session_set_fate(s, SESSION_COMMITTED);
    repo_session_free(s);
    CHECK_OK(repo_points(r, NULL, &l, NULL, &err), &err);
    CHECK(l.n == 1);
    CHECK(index_find(r, &id, &loc, ERR_ABORT) == 1);
}

/* A session commits once. */
static void
test_not_twice(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(point_list_done) struct point_list l = {0};
    struct point *p = temp_point("web", SIZE, 1);
    struct repo_verify_report rep = {0};
    struct chunk_id zero = {0};
    struct repo_session *s;
    struct err err = ERR_INIT;

    temp_repo_init(&t);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    s = begin(r);
    (void)temp_put_disk(s, values, SIZE, &zero, &p->disks[0].root, ERR_ABORT);
    CHECK_OK(repo_commit(s, p, &err), &err);
    CHECK(repo_commit(s, p, &err) < 0);
    repo_session_free(s); /* must not take away what the point needs */
    point_free(p);
    err_clear(&err);
    CHECK_OK(repo_points(r, NULL, &l, NULL, &err), &err);
    CHECK_OK(repo_verify(r, &l, 1, NULL, NULL, NULL, &rep, &err), &err);
    CHECK(l.n == 1 && rep.chunks == 2 && jv_size(rep.problems) == 0);
    jv_free(rep.problems);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_chain),
        TEST(test_seen_by_others),
        TEST(test_refused),
        TEST(test_fenced),
        TEST(test_parent_exchanged),
        TEST(test_parent_deleted),
        TEST(test_bad_objects),
        TEST(test_unreadable),
        TEST(test_without_point),
        TEST(test_not_twice),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
