/* What a verification keeps, what a repair makes whole, and that both survive a
 * disk that fails under them. */
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>

#include "map_page.h"
#include "rand.h"
#include "store.h"
#include "temp_repo.h"

DEFINE_CLEANUP(struct repo *, repo_close)
DEFINE_CLEANUP(struct map_reader *, map_reader_free)
DEFINE_CLEANUP(struct repo_verified *, repo_verified_free)

#define CHUNKS 40
#define SIZE (CHUNKS * (uint64_t)TEMP_CHUNK)

/* -- a repository -----------------------------------------------------------*/

/* `n` points of one machine, each with some chunks of its own. */
static void
make_points(struct temp_repo *t, unsigned n)
{
    CLEANUP(repo_closep) struct repo *r = NULL;
    struct chunk_id root = {0}, zero = {0};
    uint64_t values[CHUNKS];

    temp_repo_init(t);
    (void)repo_open(t->path, temp_ops(), &r, ERR_ABORT);
    for (unsigned i = 0; i < CHUNKS; i++)
        values[i] = i + 1;
    for (unsigned k = 0; k < n; k++) {
        values[k] += 1000;
        values[CHUNKS - 1 - k] += 2000;
        temp_backup(r, "m", values, SIZE, k == 0 ? &zero : &root, &root);
    }
}

struct found {
    struct repo_verify_report rep;
    struct point_list points;
    size_t n_problems, n_notes;
    int rc;
    struct err err;
};

static void
found_done(struct found *f)
{
    repo_verify_report_done(&f->rep);
    point_list_done(&f->points);
}

static void
prove(struct repo *r, struct repo_verify_opts opts, struct found *ret)
{
    *ret = (struct found){.rc = -1};
    opts.n_workers = 2;
    opts.whole = true;
    if (repo_points(r, NULL, &ret->points, NULL, &ret->err) < 0)
        return;
    ret->rc = repo_verify_run(r, &ret->points, &opts, &ret->rep, &ret->err);
    if (ret->rc < 0)
        return;
    ret->n_problems = jv_size(ret->rep.problems);
    ret->n_notes = jv_size(ret->rep.notes);
}

/* In a process of its own, as far as the repository can tell. */
static void
prove_anew(const struct temp_repo *t, struct repo_verify_opts opts,
           struct found *ret)
{
    CLEANUP(repo_closep) struct repo *r = NULL;

    (void)repo_open(t->path, temp_ops(), &r, ERR_ABORT);
    prove(r, opts, ret);
}

static int
count(void *arg, const char *key, uint64_t len)
{
    *(size_t *)arg += 1;
    return 0;
}

static size_t
objects(struct repo *r, const char *kind)
{
    size_t n = 0;

    CHECK(store_list(r->store, kind, count, &n, NULL) == 0);
    return n;
}

static struct locator
locate(struct repo *r, const struct point_disk *d, uint64_t index,
       char key[REPO_KEY_MAX])
{
    CLEANUP(map_reader_freep) struct map_reader *m = NULL;
    struct chunk_id id;
    struct locator l = {0};

    (void)map_reader_new(r, d->size, d->chunk_size, &d->root, &m, ERR_ABORT);
    (void)map_reader_get(m, index, &id, ERR_ABORT);
    CHECK(index_find(r, &id, &l, NULL) == 1);
    CHECK(locator_pack_key(r, &l, key) == 0);
    return l;
}

static void
overwrite(const struct temp_repo *t, const char *key, off_t at)
{
    char path[512];
    int fd;

    (void)snprintf(path, sizeof path, "%s/%s", t->path, key);
    fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK(pwrite(fd, "\x5a\xa5\x5a\xa5", 4, at) == 4);
    (void)close(fd);
}

/* Chunk `index` of the newest point. */
static void
break_chunk(const struct temp_repo *t, uint64_t index)
{
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(point_list_done) struct point_list l = {0};
    char key[REPO_KEY_MAX];
    struct locator at;

    (void)repo_open(t->path, temp_ops(), &r, ERR_ABORT);
    (void)repo_points(r, NULL, &l, NULL, ERR_ABORT);
    at = locate(r, &l.v[l.n - 1]->disks[0], index, key);
    overwrite(t, key, at.offset + at.frame_len - 4);
}

/* -- records ----------------------------------------------------------------*/

static const struct repo_verify_opts all;

static int64_t
verified(struct repo *r, const char *id)
{
    CLEANUP(repo_verified_freep) struct repo_verified *v = NULL;

    (void)repo_verified_read(r, &v, ERR_ABORT);
    return repo_verified_time(v, id);
}

static void
test_records(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(found_done) struct found first, second, structure;
    const struct repo_verify_opts look = {.level = REPO_VERIFY_STRUCTURE};

    make_points(&t, 3);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    prove(r, look, &structure);
    CHECK(structure.rc == 0 && structure.n_problems == 0);
    CHECK(structure.rep.packs_read == 0 && structure.rep.chunks > CHUNKS);
    CHECK(objects(r, "verified") == 0);
    CHECK(verified(r, structure.points.v[0]->id) == 0);
    prove(r, all, &first);
    CHECK(first.rc == 0 && first.n_problems == 0 && first.n_notes == 0);
    CHECK(first.rep.run == 1 && first.rep.packs_read == first.rep.packs);
    for (size_t i = 0; i < first.points.n; i++)
        CHECK(verified(r, first.points.v[i]->id) > 0);
    prove(r, all, &second);
    CHECK(second.rep.run == 2);
    CHECK(objects(r, "verified") == 1 && objects(r, "bad") == 0);
}

struct stopper {
    bool cancel;
    uint64_t at;
};

static void
stop_at(void *arg, uint64_t done, uint64_t total)
{
    struct stopper *s = arg;

    if (done >= s->at)
        __atomic_store_n(&s->cancel, true, __ATOMIC_RELAXED);
}

/* Stopped again and again, it still comes to its end, and reads each pack once. */
static void
test_resume(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    struct found f;
    uint64_t packs = 0, skipped = 0;
    unsigned turns = 0;

    make_points(&t, 6);
    for (int rc = -1; rc < 0 && turns < 100; turns++) {
        struct stopper s = {.at = 3000};
        struct repo_verify_opts opts = {.progress = stop_at,
                                        .arg = &s,
                                        .cancel = &s.cancel,
                                        .checkpoint = 1,
                                        .resume = true};

        prove_anew(&t, opts, &f);
        rc = f.rc;
        CHECK(rc == 0 || f.err.code == ERR_CANCELED);
        packs = f.rep.packs;
        skipped = f.rep.packs_skipped;
        found_done(&f);
    }
    CHECK(turns > 1 && turns < 100);
    CHECK(packs == 12 && skipped > 0);
    prove_anew(&t, (struct repo_verify_opts){.resume = true}, &f);
    CHECK(f.rep.packs_skipped == 0); /* it had ended */
    found_done(&f);
}

/* After as many samples as cover everything, everything is verified. */
static void
test_sample(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    uint64_t read = 0;

    make_points(&t, 5);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    for (unsigned i = 0; i < 5; i++) {
        CLEANUP(found_done) struct found f;

        prove(r, (struct repo_verify_opts){.sample = 2000}, &f);
        CHECK(f.rc == 0 && f.rep.packs_read == 2);
        read += f.rep.packs_read;
        CHECK((verified(r, f.points.v[0]->id) > 0) == (read == 10));
    }
}

static void
test_read_only(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(found_done) struct found f;

    make_points(&t, 1);
    break_chunk(&t, 5);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    prove(r, (struct repo_verify_opts){.read_only = true}, &f);
    CHECK(f.rc == 0 && f.n_problems > 0);
    CHECK(objects(r, "verified") == 0 && objects(r, "bad") == 0);
}

/* -- damage -----------------------------------------------------------------*/

/* What failed is never reused, what is stored again heals, and then there is no
 * damage any more. */
static void
test_bad_is_stored_again(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(found_done) struct found before, after;
    struct chunk_id zero = {0}, root;
    uint64_t values[CHUNKS];

    make_points(&t, 1);
    break_chunk(&t, 5);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    CHECK(repo_has_damage(r, NULL) == 0); /* nobody knows */
    prove(r, all, &before);
    CHECK(before.rep.bad_chunks == 1 && objects(r, "bad") == 1);
    CHECK(verified(r, before.points.v[0]->id) == 0);
    CHECK(repo_has_damage(r, NULL) == 1);
    for (unsigned i = 0; i < CHUNKS; i++)
        values[i] = i + 1;
    temp_backup(r, "n", values, SIZE, &zero, &root);
    CHECK(repo_has_damage(r, NULL) == 0);
    repo_close(r);
    r = NULL;
    prove_anew(&t, all, &after);
    CHECK(after.rc == 0 && after.n_problems == 0 && after.n_notes == 1);
}

static int
add_run(void *arg, uint64_t index, uint64_t n, struct err *err)
{
    uint64_t *sum = arg;

    sum[0]++;
    sum[1] += n;
    sum[2] = index;
    return 0;
}

static void
test_damaged_ranges(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(found_done) struct found f;
    uint64_t sum[3] = {0};

    make_points(&t, 1);
    break_chunk(&t, 5);
    break_chunk(&t, 6);
    break_chunk(&t, 20);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    prove(r, all, &f);
    CHECK(repo_damaged(r, &f.points.v[0]->disks[0], add_run, sum, NULL) == 0);
    CHECK(sum[0] == 2 && sum[1] == 3 && sum[2] == 20);
}

/* A pack that claims to be of any size costs no memory and no time. */
static void
test_huge_pack(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(found_done) struct found f;
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(point_list_done) struct point_list l = {0};
    char key[REPO_KEY_MAX], path[512];
    struct rusage u;

    make_points(&t, 1);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    (void)repo_points(r, NULL, &l, NULL, ERR_ABORT);
    (void)locate(r, &l.v[0]->disks[0], 3, key);
    (void)snprintf(path, sizeof path, "%s/%s", t.path, key);
    if (truncate(path, (off_t)1 << 40) != 0)
        SKIP("no sparse files of 1 TiB here");
    prove_anew(&t, all, &f);
    CHECK(f.rc == 0 && f.n_problems == 1);
    CHECK(f.rep.bad_chunks == 0); /* its frames are where they were */
    CHECK(getrusage(RUSAGE_SELF, &u) == 0 && u.ru_maxrss < 512 << 10);
}

/* A point that somebody took away is missed. */
static void
test_taken_away(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(point_list_done) struct point_list l = {0};
    CLEANUP(found_done) struct found f;
    char key[REPO_KEY_MAX];
    bool said = false;

    make_points(&t, 3);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    (void)repo_points(r, NULL, &l, NULL, ERR_ABORT);
    commit_key(l.v[1]->id, 1, key);
    (void)store_delete(r->store, key, ERR_ABORT);
    prove_anew(&t, (struct repo_verify_opts){.level = REPO_VERIFY_STRUCTURE},
               &f);
    CHECK(f.rc == 0);
    for (size_t i = 0; i < f.n_problems; i++)
        said |= strstr(jv_get_str(jv_at(f.rep.problems, i), "problem"),
                       "taken away") != NULL;
    CHECK(said);
}

/* -- I/O errors -------------------------------------------------------------*/

/* The Nth read meets a bad sector, and so does every other read of it. */
static struct {
    pthread_mutex_t lock;
    unsigned at, n;
    bool hit;
    ino_t file;
    off_t off;
} broken = {.lock = PTHREAD_MUTEX_INITIALIZER};

static ssize_t
broken_pread(int fd, void *buf, size_t len, off_t off)
{
    struct stat st;
    bool bad;

    if (fstat(fd, &st) != 0)
        abort();
    (void)pthread_mutex_lock(&broken.lock);
    if (++broken.n == broken.at) {
        broken.hit = true;
        broken.file = st.st_ino;
        broken.off = off + (off_t)len / 2;
    }
    bad = broken.hit && st.st_ino == broken.file && off <= broken.off &&
          broken.off < off + (off_t)len;
    (void)pthread_mutex_unlock(&broken.lock);
    if (!bad)
        return pread(fd, buf, len, off);
    errno = EIO;
    return -1;
}

/* Whichever read fails: it is an error, a problem or a note, never silence. */
static void
test_read_errors(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    struct file_ops ops = *temp_ops();
    unsigned silent = 0;

    make_points(&t, 2);
    ops.pread = broken_pread;
    broken.at = 0;
    broken.hit = true;
    for (unsigned at = 1; broken.hit && at < 1000; at++) {
        CLEANUP(repo_closep) struct repo *r = NULL;
        CLEANUP(found_done) struct found f = {.rc = -1};

        broken.at = 0; /* nothing fails while it is opened */
        broken.hit = false;
        (void)repo_open(t.path, &ops, &r, ERR_ABORT);
        broken.n = 0;
        broken.at = at;
        prove(r, (struct repo_verify_opts){.read_only = true}, &f);
        silent += broken.hit && f.rc == 0 && f.n_problems + f.n_notes == 0;
    }
    CHECK(!broken.hit);
    CHECK(silent == 0);
}

/* -- beside others ----------------------------------------------------------*/

/* When an object with this in its path is opened, `then` happens first, once;
 * opening one with `refused` in it is not allowed. */
static struct {
    const char *trigger, *refused;
    void (*then)(void *arg);
    void *arg;
} opening;

static int
watched_open(const char *path, int flags, mode_t mode)
{
    void (*then)(void *arg) = opening.then;

    if (then != NULL && strstr(path, opening.trigger) != NULL) {
        opening.then = NULL;
        then(opening.arg);
    }
    if (opening.refused != NULL && strstr(path, opening.refused) != NULL) {
        errno = EACCES;
        return -1;
    }
    return open(path, flags, mode);
}

static struct repo *
open_watched(const struct temp_repo *t)
{
    static struct file_ops ops;
    struct repo *r = NULL;

    ops = *temp_ops();
    ops.open = watched_open;
    (void)repo_open(t->path, &ops, &r, ERR_ABORT);
    return r;
}

/* Rewrites every pack that has something dead in it. */
static void
collect_now(void *arg)
{
    CLEANUP(repo_closep) struct repo *r = NULL;
    const struct temp_repo *t = arg;
    const struct repo_gc_opts opts = {.rewrite = 1};
    struct repo_gc_report rep = {0};

    (void)repo_open(t->path, temp_ops(), &r, ERR_ABORT);
    CHECK_OK(repo_gc(r, &opts, &rep, ERR_ABORT), ERR_ABORT);
    CHECK(rep.packs_rewritten > 0);
}

static void
forget_first(const struct temp_repo *t, char id[33])
{
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(point_list_done) struct point_list l = {0};

    (void)repo_open(t->path, temp_ops(), &r, ERR_ABORT);
    (void)repo_points(r, NULL, &l, NULL, ERR_ABORT);
    (void)snprintf(id, 33, "%s", l.v[0]->id);
    (void)repo_forget(r, id, "test", ERR_ABORT);
}

static void
say_problems(const struct found *f)
{
    for (size_t i = 0; i < f->n_problems; i++)
        printf("# %s: %s\n",
               jv_get_str(jv_at(f->rep.problems, i), "object") != NULL
                   ? jv_get_str(jv_at(f->rep.problems, i), "object")
                   : "-",
               jv_get_str(jv_at(f->rep.problems, i), "problem"));
}

/* Points that have a leaf of their maps in common. */
static void
make_wide_points(struct temp_repo *t)
{
    CLEANUP(repo_closep) struct repo *r = NULL;
    struct chunk_id root = {0}, zero = {0};
    uint64_t values[2 * MAP_PAGE_ENTRIES];

    temp_repo_init(t);
    (void)repo_open(t->path, temp_ops(), &r, ERR_ABORT);
    for (unsigned i = 0; i < ARRAY_SIZE(values); i++)
        values[i] = i + 1;
    for (unsigned k = 0; k < 3; k++) {
        values[k] += 1000;
        temp_backup(r, "m", values, sizeof values / sizeof *values * TEMP_CHUNK,
                    k == 0 ? &zero : &root, &root);
    }
}

/* A collector that moves what is being proven is no damage, and what it has
 * written is not called bad. */
static void
collect_while_proving(const char *trigger, bool of_first)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(found_done) struct found f;
    char id[33], text[64];

    make_wide_points(&t);
    prove_anew(&t, all, &f); /* makes a record of what was verified */
    CHECK(f.rc == 0 && f.n_problems == 0);
    found_done(&f);
    forget_first(&t, id);
    r = open_watched(&t);
    (void)snprintf(text, sizeof text, "%s%s", trigger, of_first ? id : "");
    opening.trigger = text;
    opening.then = collect_now;
    opening.arg = &t;
    prove(r, all, &f);
    CHECK(opening.then == NULL);
    opening.then = NULL;
    say_problems(&f);
    CHECK(f.rc == 0 && f.n_problems == 0);
    CHECK(objects(r, "bad") == 0);
}

static void
test_collector_moves_packs(void)
{
    collect_while_proving("/verified/", false);
}

static void
test_collector_removes_segments(void)
{
    collect_while_proving("/index/", true);
}

/* What this program may not read is a problem, and nothing that is noted for
 * ever: a writer would store all of it again. */
static void
test_unreadable_is_not_bad(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(found_done) struct found f, after;

    make_points(&t, 2);
    r = open_watched(&t);
    opening.refused = "/data/";
    prove(r, all, &f);
    opening.refused = NULL;
    CHECK(f.rc == 0 && f.n_problems > 0);
    CHECK(objects(r, "bad") == 0);
    CHECK(verified(r, f.points.v[0]->id) == 0);
    prove_anew(&t, all, &after);
    CHECK(after.rc == 0 && after.n_problems == 0 && after.n_notes == 0);
    CHECK(verified(r, after.points.v[0]->id) > 0);
}

/* Stopped when all is read, but not yet said what it touches: what was found is
 * kept. */
static void
test_stopped_late(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(found_done) struct found f;
    struct stopper s = {.at = 0};
    struct repo_verify_opts opts = {
        .progress = stop_at, .arg = &s, .cancel = &s.cancel};

    make_points(&t, 2);
    break_chunk(&t, 5);
    prove_anew(&t, (struct repo_verify_opts){.read_only = true}, &f);
    CHECK(f.rc == 0 && f.n_problems > 0);
    s.at = f.rep.packs_bytes;
    found_done(&f);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    prove(r, opts, &f);
    CHECK(f.rc < 0 && f.err.code == ERR_CANCELED);
    CHECK(objects(r, "bad") == 1 && objects(r, "verified") == 1);
}

/* -- repair -----------------------------------------------------------------*/

static int
repair(const struct temp_repo *t, bool dry_run, struct repo_repair_report *rep)
{
    CLEANUP(repo_closep) struct repo *r = NULL;
    const struct repo_repair_opts opts = {.dry_run = dry_run};
    struct err err = ERR_INIT;
    int rc;

    (void)repo_open(t->path, temp_ops(), &r, ERR_ABORT);
    rc = repo_repair(r, &opts, rep, &err);
    if (rc < 0)
        printf("# %s\n", err.msg);
    else
        jv_free(rep->actions);
    return rc;
}

static int
lose(void *arg, const char *key, uint64_t len)
{
    char path[512];

    (void)snprintf(path, sizeof path, "%s/%s", (const char *)arg, key);
    return truncate(path, (off_t)len / 2) == 0 ? 0 : 1;
}

static int
lose_foot(void *arg, const char *key, uint64_t len)
{
    overwrite(arg, key, (off_t)len - 30);
    return 0;
}

/* Every segment cut, every table of a pack destroyed: all is found again. */
static void
test_repair_index(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    struct repo_repair_report rep;
    struct found f;

    make_points(&t, 3);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    CHECK(store_list(r->store, "index", lose, t.path, NULL) == 0);
    CHECK(store_list(r->store, "data", lose_foot, &t, NULL) == 0);
    CHECK(store_list(r->store, "meta", lose_foot, &t, NULL) == 0);
    prove_anew(&t, all, &f);
    CHECK(f.n_problems > 0 && f.rep.bad_pages > 0);
    found_done(&f);
    CHECK(repair(&t, true, &rep) == 0 && rep.segments_rebuilt == 1);
    CHECK(objects(r, "index") == 3);
    CHECK(repair(&t, false, &rep) == 0 && rep.segments_rebuilt == 1);
    CHECK(objects(r, "index") >= 4); /* nothing was removed */
    prove_anew(&t, (struct repo_verify_opts){.level = REPO_VERIFY_STRUCTURE},
               &f);
    CHECK(f.rc == 0 && f.n_problems == 0);
    found_done(&f);
    prove_anew(&t, all, &f); /* sets the packs aside */
    CHECK(f.rc == 0 && f.rep.bad_chunks == 0 && f.rep.bad_pages == 0);
    found_done(&f);
    CHECK(repair(&t, false, &rep) == 0);
    prove_anew(&t, all, &f);
    CHECK(f.rc == 0 && f.n_problems == 0);
    found_done(&f);
    CHECK(repair(&t, false, &rep) == 0 && rep.frames_copied == 0 &&
          rep.segments_rebuilt == 0);
}

static void
test_repair_packs(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    struct repo_repair_report rep;
    struct found f;

    make_points(&t, 1);
    break_chunk(&t, 7);
    prove_anew(&t, all, &f);
    CHECK(f.rep.bad_chunks == 1);
    found_done(&f);
    CHECK(repair(&t, true, &rep) == 0 && rep.frames_copied == CHUNKS - 1);
    CHECK(repair(&t, false, &rep) == 0 && rep.frames_copied == CHUNKS - 1);
    CHECK(rep.frames_lost == 1 && rep.packs_damaged == 1);
    prove_anew(&t, all, &f);
    CHECK(f.rep.bad_chunks == 1);
    found_done(&f);
    CHECK(repair(&t, false, &rep) == 0 && rep.frames_copied == 0);
}

/* Lists that nobody can read are taken away, and whoever wrote one is fenced. */
static void
test_repair_records(void)
{
    static const char sid[] = "00112233445566778899aabbccddeeff";
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    struct repo_repair_report rep;
    char key[REPO_KEY_MAX];
    uint64_t len;

    make_points(&t, 1);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    (void)snprintf(key, sizeof key, "gc/%s.condemned", sid);
    (void)store_put(r->store, key, "rubbish", 7, ERR_ABORT);
    (void)snprintf(key, sizeof key, "bad/%s", sid);
    (void)store_put(r->store, key, "rubbish", 7, ERR_ABORT);
    CHECK(repair(&t, true, &rep) == 0 && rep.records_removed == 2);
    CHECK(objects(r, "gc") == 1 && objects(r, "bad") == 1);
    CHECK(repair(&t, false, &rep) == 0 && rep.records_removed == 2);
    CHECK(objects(r, "gc") == 0 && objects(r, "bad") == 0);
    commit_key(sid, 1, key);
    CHECK(store_size(r->store, key, &len, NULL) == 1);
}

/* A pack that is there and cannot be read now: its records must not be given up
 * with the segment that has them. */
static void
test_repair_unreadable_pack(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    const struct repo_repair_opts opts = {0};
    struct repo_repair_report rep = {0};
    struct err err = ERR_INIT;
    struct found f;

    make_points(&t, 2);
    r = open_watched(&t);
    CHECK(store_list(r->store, "index", lose, t.path, NULL) == 0);
    opening.refused = "/data/";
    CHECK(repo_repair(r, &opts, &rep, &err) < 0);
    opening.refused = NULL;
    CHECK(err.sys == EACCES);
    CHECK(repair(&t, false, &rep) == 0 && rep.segments_rebuilt == 1);
    prove_anew(&t, all, &f);
    CHECK(f.rc == 0 && f.n_problems == 0);
    found_done(&f);
}

/* A pack that was missing while the index was made again, and that somebody has
 * brought back from another copy of the repository. */
static void
test_repair_pack_is_back(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(point_list_done) struct point_list l = {0};
    char key[REPO_KEY_MAX], path[512], aside[512];
    struct repo_repair_report rep;
    struct found f;

    make_points(&t, 2);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    (void)repo_points(r, NULL, &l, NULL, ERR_ABORT);
    (void)locate(r, &l.v[0]->disks[0], 3, key);
    (void)snprintf(path, sizeof path, "%s/%s", t.path, key);
    (void)snprintf(aside, sizeof aside, "%s/pack", t.dir);
    CHECK(rename(path, aside) == 0);
    CHECK(store_list(r->store, "index", lose, t.path, NULL) == 0);
    CHECK(repair(&t, false, &rep) == 0 && rep.segments_rebuilt == 1);
    prove_anew(&t, all, &f);
    CHECK(f.rc == 0 && f.n_problems > 0);
    found_done(&f);
    repo_close(r);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    CHECK(repo_damage_known(r)); /* prune must not take a whole point for it */
    CHECK(rename(aside, path) == 0);
    CHECK(repair(&t, false, &rep) == 0 && rep.segments_rebuilt == 1);
    prove_anew(&t, all, &f);
    say_problems(&f);
    CHECK(f.rc == 0 && f.n_problems == 0);
    found_done(&f);
    CHECK(repair(&t, false, &rep) == 0 && rep.segments_rebuilt == 0);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_records),
        TEST(test_resume),
        TEST(test_sample),
        TEST(test_read_only),
        TEST(test_damaged_ranges),
        TEST(test_bad_is_stored_again),
        TEST(test_huge_pack),
        TEST(test_taken_away),
        TEST(test_read_errors),
        TEST(test_repair_index),
        TEST(test_repair_packs),
        TEST(test_repair_records),
        TEST(test_collector_moves_packs),
        TEST(test_unreadable_is_not_bad),
        TEST(test_collector_removes_segments),
        TEST(test_stopped_late),
        TEST(test_repair_unreadable_pack),
        TEST(test_repair_pack_is_back),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
