#include "scene.h"

#include "gc.h"
#include "kdf.h"
#include "rand.h"
#include "secret.h"
#include "store.h"

DEFINE_CLEANUP(struct repo *, repo_close)
DEFINE_CLEANUP(struct repo_fetch *, repo_fetch_free)
DEFINE_CLEANUP(struct map_reader *, map_reader_free)

static const char config[] = "{\"memory\": 512}"; /* as temp_backup() stores */

/* -- making -----------------------------------------------------------------*/

static int
passphrase(void *arg, const struct secret_ask *ask, struct secret *ret,
           struct err *err)
{
    static const char text[] = "a passphrase of the test";

    if (ask->attempt > 0)
        return 1;
    ret->kind = SECRET_PASSPHRASE;
    ret->len = sizeof text - 1;
    memcpy(ret->text, text, ret->len);
    return 0;
}

static int
open_repo(const char *path, struct repo **ret, struct err *err)
{
    struct repo_open_opts opts = {.ops = temp_ops(), .unlock = passphrase};

    return repo_open_with(path, &opts, ret, err);
}

static struct repo *
make_repo(const char *path, bool encrypt)
{
    struct repo_init_opts opts = {.chunk_size = TEMP_CHUNK,
                                  .ops = temp_ops(),
                                  .encrypt = encrypt,
                                  .passphrase = passphrase,
                                  .kdf_ops = KDF_OPS_MIN,
                                  .kdf_mem = KDF_MEM_MIN};
    struct repo *r = NULL;
    char id[33];

    (void)repo_init_with(path, &opts, id, ERR_ABORT);
    (void)open_repo(path, &r, ERR_ABORT);
    return r;
}

/* One more point of `machine`; `points[n]` says what it holds. */
static void
backup(struct repo *r, struct scene_point *p, const char *machine,
       struct chunk_id *root)
{
    CLEANUP(point_list_done) struct point_list l = {0};

    p->machine = machine;
    temp_backup(r, machine, p->values, SCENE_SIZE, root, root);
    (void)repo_points(r, machine, &l, NULL, ERR_ABORT);
    memcpy(p->id, l.v[l.n - 1]->id, sizeof p->id);
}

static void
random_id(char id[33])
{
    uint8_t bytes[16];

    rand_bytes(bytes, sizeof bytes);
    hex_encode(bytes, sizeof bytes, id);
}

/* Three live points and, before them, one that is forgotten. */
static struct repo *
make_points(const char *path, bool encrypt, struct scene *s)
{
    struct chunk_id a = {{0}}, b = {{0}};
    struct scene_point old = {.values = {1, 0, 2, [65] = 3}};
    struct repo *r = make_repo(path, encrypt);

    memset(s, 0, sizeof *s);
    backup(r, &old, "a", &a);
    s->n = 3;
    memcpy(s->points[0].values, old.values, sizeof old.values);
    s->points[0].values[1] = 4;
    s->points[0].values[2] = 5; /* value 2 is only in the old one */
    backup(r, &s->points[0], "a", &a);
    memcpy(s->points[1].values, s->points[0].values, sizeof old.values);
    s->points[1].values[0] = 0;
    backup(r, &s->points[1], "a", &a);
    s->points[2].values[0] = 3;
    s->points[2].values[64] = 6;
    backup(r, &s->points[2], "b", &b);
    (void)repo_forget(r, old.id, "a test", ERR_ABORT);
    return r;
}

static void
put_record(struct repo *r, const char *format, enum commit_type type,
           struct jv *payload)
{
    char id[33], key[REPO_KEY_MAX];

    random_id(id);
    (void)snprintf(key, sizeof key, "%s%s%s", format, id,
                   type == COMMIT_CONDEMNED ? ".condemned" : "");
    (void)record_write(r, key, type, payload, ERR_ABORT);
    jv_free(payload);
}

/* What a session that was killed leaves, and what others note. */
static void
put_others(struct repo *r)
{
    static const char session[] = "{\"what\":\"pin\",\"points\":[]}";
    char id[33], key[REPO_KEY_MAX];

    random_id(id);
    (void)session_fence(r, id, "a test", ERR_ABORT);
    (void)snprintf(key, sizeof key, "session/%s", id);
    (void)store_put(r->store, key, session, sizeof session - 1, ERR_ABORT);
    (void)snprintf(key, sizeof key, "beat/%s.12", id);
    (void)store_put(r->store, key, "x", 1, ERR_ABORT);
    put_record(r, "gc/", COMMIT_CONDEMNED,
               jv_build("{s:{s:{s:[[I,I]]}}}", "packs", id, "data", (int64_t)1,
                        (int64_t)3));
    (void)snprintf(key, sizeof key, "data/%s/00000001", id);
    put_record(r, "bad/", COMMIT_BAD,
               jv_build("{s:{}, s:[{s:s, s:[I]}]}", "packs", "frames", "pack",
                        key, "at", (int64_t)64));
    put_record(r, "verified/", COMMIT_VERIFIED,
               jv_build("{s:I, s:I, s:s, s:[[I,{s:{s:[[I,I]]}}]]}", "run",
                        (int64_t)1, "time_ns", (int64_t)1795197607000000000,
                        "level", "data", "packs", (int64_t)1, id, "data",
                        (int64_t)1, (int64_t)3));
}

void
scene_plain(const char *path, struct scene *ret)
{
    struct repo *r = make_points(path, false, ret);

    put_others(r);
    repo_close(r);
}

static void
collected(const char *path, bool encrypt, struct scene *ret)
{
    static const struct gc_limits limits = {.pack_target = 1024,
                                            .segment_max = 64,
                                            .segment_fold = 64,
                                            .fold_worth = 2,
                                            .small_worth = 100};
    struct repo_gc_opts opts = {.rewrite = 20};
    struct repo_gc_report rep;
    struct repo *r = make_points(path, encrypt, ret);

    (void)repo_gc_limited(r, &opts, &limits, &rep, ERR_ABORT);
    CHECK(rep.points_removed == 1 && rep.packs_rewritten > 0);
    repo_close(r);
}

void
scene_collected(const char *path, struct scene *ret)
{
    collected(path, false, ret);
}

void
scene_encrypted(const char *path, struct scene *ret)
{
    collected(path, true, ret);
}

/* -- reading ----------------------------------------------------------------*/

struct reading {
    const uint64_t *values;
    unsigned good, wrong;
};

/* One worker, so nothing here is shared. */
static int
compare(void *arg, unsigned worker, uint64_t tag, const struct chunk_id *id,
        const void *data, size_t len, const struct err *why, struct err *err)
{
    static uint8_t want[TEMP_CHUNK];
    struct reading *o = arg;

    if (data == NULL)
        return 0;
    temp_fill(o->values[tag], want, len);
    if (memcmp(data, want, len) == 0)
        o->good++;
    else
        o->wrong++;
    return 0;
}

/* As a restore does it: walk the map, fetch in pack order.  True when all of it
 * reads as written. */
static bool
read_disk(struct repo *r, const struct point_disk *d,
          const struct scene_point *p, struct verdict *v)
{
    struct reading o = {.values = p->values};
    struct repo_fetch_opts opts = {.n_workers = 1, .fn = compare, .arg = &o};
    CLEANUP(repo_fetch_freep) struct repo_fetch *f = NULL;
    CLEANUP(map_reader_freep) struct map_reader *m = NULL;
    struct chunk_id id;
    bool zeroes = true;

    if (d->size != SCENE_SIZE ||
        map_reader_new(r, d->size, d->chunk_size, &d->root, &m, NULL) < 0 ||
        repo_fetch_new(r, &opts, &f, NULL) < 0)
        return false;
    for (uint64_t i = 0; i < SCENE_CHUNKS; i++) {
        if (map_reader_get(m, i, &id, NULL) < 0)
            return false;
        if (chunk_id_zero(&id)) {
            o.good++;
            zeroes &= p->values[i] == 0;
        } else if (repo_fetch_add(f, i, &id, temp_len(d->size, i), NULL) < 0) {
            return false;
        }
    }
    if (repo_fetch_finish(f, NULL) < 0)
        return false;
    v->wrong += o.wrong + !zeroes;
    return o.good == SCENE_CHUNKS && zeroes;
}

static bool
read_point(struct repo *r, const struct point *have,
           const struct scene_point *want, struct verdict *v)
{
    CLEANUP_FREE uint8_t *blob = NULL;

    if (have->n_disks != 1 || strcmp(have->machine, want->machine) != 0) {
        v->wrong++;
        return false;
    }
    if (!read_disk(r, &have->disks[0], want, v) ||
        repo_get_blob(r, &have->config, have->config_len, &blob, NULL) < 0)
        return false;
    if (have->config_len != sizeof config ||
        memcmp(blob, config, sizeof config) != 0) {
        v->wrong++;
        return false;
    }
    return true;
}

static bool
verify_says_something(struct repo *r, const struct point_list *l)
{
    struct repo_verify_opts opts = {
        .whole = true, .read_only = true, .n_workers = 1};
    struct repo_verify_report rep;
    bool found;

    if (repo_verify_run(r, l, &opts, &rep, NULL) < 0)
        return true;
    found = jv_size(rep.problems) > 0 || jv_size(rep.notes) > 0;
    repo_verify_report_done(&rep);
    return found;
}

void
scene_judge(const struct scene *s, const char *path, struct verdict *ret)
{
    CLEANUP(point_list_done) struct point_list l = {0};
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP_JV struct jv *bad = NULL;

    *ret = (struct verdict){.complete = true};
    if (open_repo(path, &r, NULL) < 0 ||
        repo_points(r, NULL, &l, &bad, NULL) < 0) {
        *ret = (struct verdict){.found = true};
        return;
    }
    for (unsigned i = 0; i < s->n; i++) {
        const struct point *have = NULL;

        for (size_t k = 0; k < l.n; k++)
            if (strcmp(l.v[k]->id, s->points[i].id) == 0)
                have = l.v[k];
        if (have == NULL || !read_point(r, have, &s->points[i], ret))
            ret->complete = false;
    }
    ret->found = jv_size(bad) > 0 || verify_says_something(r, &l);
}
