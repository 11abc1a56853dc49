/* Make a repository for the independent reader: make-sample DIR [collected].
 *
 * DIR/repo gets one machine with two points: a full one and one that changes a
 * few chunks; and before them a COMMIT without a point, whose packs are in a list
 * of their own.  DIR/<point id>.<disk> are the disks as they must be read back,
 * DIR/config the configuration.
 *
 * With "collected", there is a third point, the first one is forgotten and
 * collected, and the second one is forgotten only. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "cleanup.h"
#include "err.h"
#include "gc.h"
#include "hash.h"
#include "internal.h"
#include "jv.h"
#include "keyring.h"
#include "passphrase.h"
#include "rand.h"
#include "store.h"

DEFINE_CLEANUP(struct repo *, repo_close)
DEFINE_CLEANUP(struct repo_session *, repo_session_free)
DEFINE_CLEANUP(struct point *, point_free)
DEFINE_CLEANUP(struct map_writer *, map_writer_free)

#define CHUNK REPO_CHUNK_MIN
static const char config[] = "{\"name\":\"web1\",\"disks\":2}";

struct disk {
    const char *name;
    uint8_t *bytes;
    uint64_t size;
    struct chunk_id root;
};

static void
check(int r)
{
    if (r < 0)
        abort(); /* ERR_ABORT has printed why */
}

/* Text, noise and holes, by the chunk. */
static void
fill(struct disk *d)
{
    d->bytes = calloc(1, d->size);
    if (d->bytes == NULL)
        abort();
    for (uint64_t off = 0; off < d->size; off += CHUNK) {
        uint64_t left = d->size - off;
        size_t len = left < CHUNK ? left : CHUNK;

        if (off / CHUNK % 5 < 2)
            rand_bytes(d->bytes + off, len);
        else if (off / CHUNK % 5 == 2)
            memset(d->bytes + off, 'a' + (int)(off / CHUNK % 20), len);
    }
}

static void
put_disk(struct repo_session *s, struct disk *d)
{
    CLEANUP(map_writer_freep) struct map_writer *w = NULL;

    check(map_writer_new(s, d->size, CHUNK, &d->root, &w, ERR_ABORT));
    for (uint64_t off = 0; off < d->size; off += CHUNK) {
        uint64_t left = d->size - off;
        struct chunk_id id;

        check(repo_put(s, 0, d->bytes + off, left < CHUNK ? left : CHUNK, NULL,
                       &id, NULL, ERR_ABORT));
        check(map_writer_set(w, off / CHUNK, &id, ERR_ABORT));
    }
    check(map_writer_finish(w, &d->root, ERR_ABORT));
}

static char *
copy(const char *text)
{
    char *p = strdup(text);

    if (p == NULL)
        abort();
    return p;
}

static void
fill_point(struct point *p, const struct disk *disks, size_t n)
{
    p->machine = copy("web1");
    p->consistency = copy("crash");
    p->capture = copy("pull");
    p->disks = calloc(n, sizeof *p->disks);
    if (p->disks == NULL)
        abort();
    p->n_disks = n;
    for (size_t i = 0; i < n; i++) {
        p->disks[i].name = copy(disks[i].name);
        p->disks[i].size = disks[i].size;
        p->disks[i].chunk_size = CHUNK;
        p->disks[i].root = disks[i].root;
        p->disks[i].format = copy("raw");
        p->disks[i].tracking = copy("full");
        p->disks[i].reason = copy("new disk");
    }
}

static void
save(const char *dir, const char *name, const void *data, size_t len)
{
    char path[4096];
    FILE *f;

    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, "wb");
    if (f == NULL || fwrite(data, 1, len, f) != len || fclose(f) != 0)
        abort();
}

static void
put_chunks(struct repo_session *s, const struct disk *d)
{
    for (uint64_t off = 0; off + CHUNK <= d->size / 2; off += CHUNK) {
        struct chunk_id id;

        check(
            repo_put(s, 0, d->bytes + off, CHUNK, NULL, &id, NULL, ERR_ABORT));
    }
}

/* What a collector does when its packs are too many for its COMMIT. */
static void
move_packs_to_list(struct repo *r, const char *sid, struct jv *parts)
{
    CLEANUP_JV struct jv *list =
        jv_build("{s:o}", "packs", jv_ref(jv_get(parts, "packs")));
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    uint8_t sum[HASH_LEN];
    char key[REPO_KEY_MAX], hex[2 * HASH_LEN + 1];

    (void)snprintf(key, sizeof key, "packs/%s-1", sid);
    check(record_write(r, key, COMMIT_PACKS, list, ERR_ABORT));
    check(commit_load(r, key, &b, ERR_ABORT));
    check(hash_sha256(b.data, b.len, sum, ERR_ABORT));
    hex_encode(sum, sizeof sum, hex);
    check(jv_set(parts, "pack_lists",
                 jv_build("[{s:s, s:I, s:s, s:I}]", "key", key, "len",
                          (int64_t)b.len, "sha256", hex, "n",
                          (int64_t)jv_size(jv_get(list, "packs")))));
    check(jv_set(parts, "packs", jv_array()));
}

/* A COMMIT without a point. */
static void
make_packs(struct repo *r, const struct disk *d)
{
    struct repo_session_opts opts = REPO_SESSION_OPTS;
    CLEANUP(repo_session_freep) struct repo_session *s = NULL;
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    CLEANUP_JV struct jv *parts = NULL;
    char key[REPO_KEY_MAX];

    check(repo_session_begin(r, &opts, &s, ERR_ABORT));
    session_set_limits(s, 64 * 1024, 100);
    put_chunks(s, d);
    check(session_seal(s, &parts, ERR_ABORT));
    move_packs_to_list(r, session_sid(s), parts);
    check(jv_set_str(parts, "type", "commit"));
    check(jv_set_str(parts, "session", session_sid(s)));
    check(
        commit_encode(repo_key_commit(r), COMMIT_COMMIT, parts, &b, ERR_ABORT));
    commit_key(session_sid(s), 1, key);
    check(store_put(r->store, key, b.data, b.len, ERR_ABORT));
    session_set_fate(s, SESSION_COMMITTED);
}

static void
forget(struct repo *r, size_t which)
{
    struct point_list l;

    check(repo_points(r, NULL, &l, NULL, ERR_ABORT));
    check(repo_forget(r, l.v[which]->id, "a test", ERR_ABORT));
    point_list_done(&l);
}

/* Much is rewritten, all segments are merged. */
static void
collect(struct repo *r)
{
    static const struct gc_limits limits = {.pack_target = 128 * 1024,
                                            .segment_max = 1000,
                                            .segment_fold = 1000,
                                            .fold_worth = 2,
                                            .small_worth = 4};
    const struct repo_gc_opts opts = {.rewrite = 10};
    struct repo_gc_report rep;

    check(repo_gc_limited(r, &opts, &limits, &rep, ERR_ABORT));
    if (rep.points_removed != 1 || rep.packs_rewritten == 0)
        abort();
}

static void
make_point(struct repo *r, const char *dir, struct disk *disks, size_t n)
{
    struct repo_session_opts opts = REPO_SESSION_OPTS;
    CLEANUP(repo_session_freep) struct repo_session *s = NULL;
    CLEANUP(point_freep) struct point *p = point_new();

    if (p == NULL)
        abort();
    check(repo_session_begin(r, &opts, &s, ERR_ABORT));
    /* Several packs and several index segments. */
    session_set_limits(s, 256 * 1024, 100);
    for (size_t i = 0; i < n; i++)
        put_disk(s, &disks[i]);
    check(repo_put_blob(s, config, sizeof config - 1, &p->config, ERR_ABORT));
    p->config_len = sizeof config - 1;
    fill_point(p, disks, n);
    check(repo_commit(s, p, ERR_ABORT));
    for (size_t i = 0; i < n; i++) {
        char name[300];

        (void)snprintf(name, sizeof name, "%s.%s", p->id, disks[i].name);
        save(dir, name, disks[i].bytes, disks[i].size);
    }
}

/* The paper key, with which the reader opens an encrypted sample. */
static void
save_paper(const char *dir, const char *repo)
{
    struct answers a = {.first = "sample"};
    static struct secret paper;
    struct keyring *k = NULL;

    check(keyring_open(repo, NULL, &k, ERR_ABORT));
    check(keyring_unlock(k, answer_with, &a, ERR_ABORT));
    keyring_export(k, &paper);
    save(dir, "paper", paper.text, paper.len);
    keyring_close(k);
}

int
main(int argc, char **argv)
{
    /* Not a multiple of the chunk size; two and three levels of map. */
    struct disk disks[] = {
        {.name = "vda", .size = 5000000},
        {.name = "vdb", .size = (uint64_t)CHUNK * 4097 + 512},
        {.name = "empty", .size = 1000000},
    };
    CLEANUP(repo_closep) struct repo *r = NULL;
    bool sealed = argc > 2 && strcmp(argv[2], "encrypted") == 0;
    char path[4096];

    if (argc < 2)
        return 2;
    (void)snprintf(path, sizeof path, "%s/repo", argv[1]);
    if (sealed) {
        check(encrypted_init(path, CHUNK, "sample", ERR_ABORT));
        check(encrypted_open(path, "sample", &r, ERR_ABORT));
        save_paper(argv[1], path);
    } else {
        check(repo_init(path, CHUNK, NULL, ERR_ABORT));
        check(repo_open(path, NULL, &r, ERR_ABORT));
    }
    fill(&disks[0]);
    disks[1].bytes = calloc(1, disks[1].size);
    disks[2].bytes = calloc(1, disks[2].size);
    if (disks[1].bytes == NULL || disks[2].bytes == NULL)
        abort();
    memset(disks[1].bytes + disks[1].size - 300, 'z', 300);
    make_packs(r, &disks[0]);
    make_point(r, argv[1], disks, ARRAY_SIZE(disks));
    rand_bytes(disks[0].bytes + 1000000, 50000);
    rand_bytes(disks[1].bytes + 7 * CHUNK, 10);
    make_point(r, argv[1], disks, ARRAY_SIZE(disks));
    save(argv[1], "config", config, sizeof config - 1);
    if (argc > 2 && !sealed) {
        rand_bytes(disks[0].bytes + 2000000, 500000);
        make_point(r, argv[1], disks, ARRAY_SIZE(disks));
        forget(r, 0);
        collect(r);
        forget(r, 0);
    }
    for (size_t i = 0; i < ARRAY_SIZE(disks); i++)
        free(disks[i].bytes);
    return 0;
}
