/* The index at scale, on a repository of synthetic chunks.
 *
 *     bench-index make DIR N     a new repository of N chunks in packs of 1000
 *     bench-index ask DIR N      open it and look chunks up
 *     bench-index rebuild DIR N  the same without its index segments, which this
 *                                removes: made again from the packs
 *
 * Each writes one line of JSON.  Ids come from a counter and are as random as
 * real ones.  Packs are sparse: header, table and footer are real, the frames
 * are a hole.  The segments are those of one session of N chunks: spills of
 * 1 Mi records, merged by the code that merges real ones.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "buf.h"
#include "bytes.h"
#include "cleanup.h"
#include "err.h"
#include "frame.h"
#include "hash.h"
#include "index_merge.h"
#include "internal.h"
#include "jv.h"
#include "pack.h"
#include "rand.h"
#include "store.h"

#define PER_PACK 1000u
#define FRAME_LEN 30072u
#define SPILL (1u << 20)
#define COLD_LOOKUPS 2000u
#define WARM_LOOKUPS 400000u

static uint8_t sid[REPO_SID_LEN] = {0xbe, 0x9c};

static double
now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t
mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static void
make_id(uint64_t i, struct chunk_id *id)
{
    for (unsigned k = 0; k < 4; k++)
        put_le64(id->b + (size_t)8 * k, mix(4 * i + k));
}

/* -- packs ------------------------------------------------------------------*/

static int
compare_entries(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct chunk_id));
}

static struct pack_name
pack_of(uint64_t seq)
{
    struct pack_name n = {.class = PACK_DATA, .seq = (uint32_t)seq};

    memcpy(n.sid, sid, sizeof n.sid);
    return n;
}

/* Table and footer as pack_finish() makes them (docs/format.md 6). */
static size_t
make_table(uint64_t first, uint32_t n, uint64_t table_off, uint8_t *p)
{
    uint8_t *foot = p + (size_t)n * PACK_ENTRY_LEN;

    for (uint32_t i = 0; i < n; i++) {
        uint8_t *e = p + (size_t)i * PACK_ENTRY_LEN;
        struct chunk_id id;

        make_id(first + i, &id);
        memcpy(e, id.b, sizeof id.b);
        put_le32(e + 32, PACK_HEAD_LEN + i * FRAME_LEN);
        put_le32(e + 36, FRAME_LEN);
        put_le32(e + 40, REPO_CHUNK_DEFAULT);
        put_le32(e + 44, FRAME_DATA);
    }
    qsort(p, n, PACK_ENTRY_LEN, compare_entries);
    memset(foot, 0, PACK_FOOT_LEN);
    memcpy(foot, "TMPACKE", 8);
    put_le32(foot + 8, 1);
    put_le32(foot + 12, n);
    put_le64(foot + 16, table_off);
    if (hash_sha256(p, (size_t)n * PACK_ENTRY_LEN, foot + 24, ERR_ABORT) < 0)
        abort();
    put_le64(foot + 56, XXH64(foot, 56, 0));
    return (size_t)n * PACK_ENTRY_LEN + PACK_FOOT_LEN;
}

static void
write_or_die(int fd, const void *data, size_t len, off_t off)
{
    if (pwrite(fd, data, len, off) != (ssize_t)len) {
        perror("pwrite");
        exit(1);
    }
}

/* Not through the store: 100000 times fsync() is not what is measured. */
static uint64_t
make_pack(const char *dir, uint64_t seq, uint64_t first, uint32_t n)
{
    static uint8_t table[PER_PACK * PACK_ENTRY_LEN + PACK_FOOT_LEN];
    struct pack_name name = pack_of(seq);
    uint64_t table_off = PACK_HEAD_LEN + (uint64_t)n * FRAME_LEN;
    size_t len = make_table(first, n, table_off, table);
    char key[REPO_KEY_MAX], path[4096];
    struct pack *p = NULL;
    int fd;

    pack_key(&name, key);
    (void)snprintf(path, sizeof path, "%s/%s", dir, key);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || pack_new(&name, &p, ERR_ABORT) < 0) {
        perror(path);
        exit(1);
    }
    write_or_die(fd, pack_bytes(p), pack_len(p), 0);
    write_or_die(fd, table, len, (off_t)table_off);
    pack_free(p);
    (void)close(fd);
    return table_off + len;
}

static void
make_packs(const char *dir, uint64_t n, struct jv *list)
{
    char path[4096], hex[65], text[REPO_SID_TEXT];

    hex_encode(sid, sizeof sid, text);
    (void)snprintf(path, sizeof path, "%s/data", dir);
    (void)mkdir(path, 0700);
    (void)snprintf(path, sizeof path, "%s/data/%s", dir, text);
    (void)mkdir(path, 0700);
    for (uint64_t first = 0; first < n; first += PER_PACK) {
        uint32_t count =
            n - first < PER_PACK ? (uint32_t)(n - first) : PER_PACK;
        struct pack_name name = pack_of(first / PER_PACK + 1);
        uint64_t len = make_pack(dir, name.seq, first, count);
        char key[REPO_KEY_MAX];
        struct chunk_id sha;

        pack_key(&name, key);
        make_id(~first, &sha);
        hex_encode(sha.b, sizeof sha.b, hex);
        (void)jv_add(list, jv_build("{s:s, s:I, s:s}", "key", key, "len",
                                    (int64_t)len, "sha256", hex));
    }
}

/* -- segments ---------------------------------------------------------------*/

struct maker {
    struct repo *r;
    struct jv *list;
    uint64_t bytes;
};

static int
keep_segment(void *arg, const struct segment_name *name, const uint8_t *bytes,
             size_t len, struct err *err)
{
    struct maker *m = arg;
    char key[REPO_KEY_MAX], hex[65];
    struct segment s;
    struct jv *part;

    segment_key(name, key);
    if (segment_open(bytes, len, &s, err) < 0 ||
        store_put(m->r->store, key, bytes, len, err) < 0)
        return -1;
    hex_encode(bytes + len - SEGMENT_SHA_LEN, SEGMENT_SHA_LEN, hex);
    part = jv_build("{s:s, s:I, s:s}", "key", key, "len", (int64_t)len,
                    "sha256", hex);
    (void)jv_set_int(part, "records", s.n_records);
    m->bytes += len;
    return jv_add(m->list, part);
}

static void
spill(uint64_t first, uint32_t n, struct buf *ret)
{
    struct index_record *recs = calloc(n, sizeof *recs);
    uint32_t n_packs = (n + PER_PACK - 1) / PER_PACK + 1;
    struct pack_name *packs = calloc(n_packs, sizeof *packs);
    struct segment_name name = {.k = 0};

    if (recs == NULL || packs == NULL)
        abort();
    for (uint32_t i = 0; i < n_packs; i++)
        packs[i] = pack_of(first / PER_PACK + 1 + i);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t no = first + i;
        struct chunk_id id;

        make_id(no, &id);
        memcpy(recs[i].prefix, id.b, SEGMENT_PREFIX);
        recs[i].pack = (uint32_t)(no / PER_PACK - first / PER_PACK);
        recs[i].offset = PACK_HEAD_LEN + (uint32_t)(no % PER_PACK) * FRAME_LEN;
        recs[i].frame_len = FRAME_LEN;
        recs[i].raw_len = REPO_CHUNK_DEFAULT;
        recs[i].kind = FRAME_DATA;
    }
    if (segment_build(&name, packs, n_packs, recs, n, ret, ERR_ABORT) < 0)
        abort();
    free(recs);
    free(packs);
}

/* Spills in files that are mapped, as a session has them. */
static struct segment *
make_spills(struct repo *r, uint64_t n, size_t *ret_n)
{
    struct segment *in = calloc((size_t)(n / SPILL + 1), sizeof *in);
    size_t n_in = 0, len;
    const uint8_t *map;

    if (in == NULL)
        abort();
    for (uint64_t first = 0; first < n; first += SPILL, n_in++) {
        CLEANUP(buf_done) struct buf b = BUF_INIT;
        char key[REPO_KEY_MAX];

        spill(first, n - first < SPILL ? (uint32_t)(n - first) : SPILL, &b);
        (void)snprintf(key, sizeof key, "spill/%zu", n_in);
        if (store_put(r->store, key, b.data, b.len, ERR_ABORT) < 0 ||
            store_map(r->store, key, &map, &len, ERR_ABORT) < 0 ||
            segment_open(map, len, &in[n_in], ERR_ABORT) < 0 ||
            store_delete(r->store, key, ERR_ABORT) < 0)
            abort();
    }
    *ret_n = n_in;
    return in;
}

static double
make_index(struct maker *m, uint64_t n)
{
    uint32_t last_k = 0;
    struct merge_opts opts = {
        .last_k = &last_k, .emit = keep_segment, .arg = m};
    double start, end;
    size_t n_in;
    struct segment *in = make_spills(m->r, n, &n_in);

    memcpy(opts.sid, sid, sizeof opts.sid);
    start = now();
    if (index_merge(in, n_in, &opts, ERR_ABORT) < 0)
        abort();
    end = now();
    for (size_t i = 0; i < n_in; i++)
        store_unmap(m->r->store, in[i].bytes, in[i].len);
    free(in);
    return end - start;
}

static int
make(const char *dir, uint64_t n)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    CLEANUP_JV struct jv *packs = jv_array(), *index = jv_array();
    CLEANUP_JV struct jv *payload = NULL;
    char key[REPO_KEY_MAX], text[REPO_SID_TEXT];
    struct maker m = {.list = index};
    double merge_s;

    if (repo_init(dir, REPO_CHUNK_DEFAULT, NULL, ERR_ABORT) < 0 ||
        repo_open(dir, NULL, &m.r, ERR_ABORT) < 0)
        return 1;
    merge_s = make_index(&m, n);
    make_packs(dir, n, packs);
    hex_encode(sid, sizeof sid, text);
    payload = jv_build("{s:s, s:s, s:o, s:o}", "type", "commit", "session",
                       text, "packs", jv_ref(packs), "index", jv_ref(index));
    commit_key(text, 1, key);
    if (commit_encode(repo_key_commit(m.r), COMMIT_COMMIT, payload, &b,
                      ERR_ABORT) < 0 ||
        store_put(m.r->store, key, b.data, b.len, ERR_ABORT) < 0)
        return 1;
    printf("{\"merge_s\": %.3f, \"segments\": %zu, \"bytes_per_chunk\": %.2f, "
           "\"commit_bytes\": %zu}\n",
           merge_s, jv_size(index), (double)m.bytes / (double)n, b.len);
    repo_close(m.r);
    return 0;
}

/* -- asking -----------------------------------------------------------------*/

static long
resident_kib(const char *what)
{
    char line[256];
    FILE *f = fopen("/proc/self/status", "r");
    long kib = -1;

    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (strncmp(line, what, strlen(what)) == 0)
            kib = strtol(line + strlen(what), NULL, 10);
    if (f != NULL)
        (void)fclose(f);
    return kib;
}

/* Drop an index segment from the page cache, as far as the kernel lets us. */
static int
drop_one(void *arg, const char *key, uint64_t len)
{
    char path[4096];
    int fd;

    (void)len;
    (void)snprintf(path, sizeof path, "%s/%s", (const char *)arg, key);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        (void)close(fd);
    }
    return 0;
}

/* Look-ups per second; every answer is checked. */
static double
look_up(struct repo *r, uint64_t n, bool hits, uint32_t count, uint64_t seed)
{
    double start = now();

    for (uint32_t i = 0; i < count; i++) {
        uint64_t no = mix(seed + i) % n;
        struct chunk_id id;
        struct locator l;
        int found;

        make_id(hits ? no : n + no, &id);
        found = index_find_reusable(r, &id, &l, ERR_ABORT);
        if (found != hits ||
            (hits && l.offset != PACK_HEAD_LEN + no % PER_PACK * FRAME_LEN)) {
            fprintf(stderr, "a wrong answer\n");
            exit(1);
        }
    }
    return count / (now() - start);
}

static int
ask(const char *dir, uint64_t n)
{
    double open_s, cold_miss, cold_hit, first_hit, miss, hit;
    struct repo *r = NULL;
    struct store *st = NULL;

    if (store_dir_open(dir, NULL, &st, ERR_ABORT) < 0 ||
        store_list(st, "index", drop_one, (void *)(uintptr_t)dir, ERR_ABORT) <
            0)
        return 1;
    store_close(st);
    open_s = now();
    if (repo_open(dir, NULL, &r, ERR_ABORT) < 0 ||
        index_reload(r, ERR_ABORT) < 0)
        return 1;
    open_s = now() - open_s;
    cold_miss = look_up(r, n, false, COLD_LOOKUPS, 1);
    cold_hit = look_up(r, n, true, COLD_LOOKUPS, 2000000);
    (void)look_up(r, n, false, WARM_LOOKUPS, 3);
    miss = look_up(r, n, false, WARM_LOOKUPS, 4000000000);
    first_hit = look_up(r, n, true, WARM_LOOKUPS, 5);
    hit = look_up(r, n, true, WARM_LOOKUPS, 5);
    printf("{\"open_s\": %.4f, \"cold_miss\": %.0f, \"cold_hit\": %.0f, "
           "\"miss\": %.0f, \"first_hit\": %.0f, \"hit\": %.0f, "
           "\"anon_kib\": %ld, \"file_kib\": %ld, \"records\": %llu}\n",
           open_s, cold_miss, cold_hit, miss, first_hit, hit,
           resident_kib("RssAnon:"), resident_kib("RssFile:"),
           (unsigned long long)index_n_records(r));
    repo_close(r);
    return 0;
}

/* -- rebuilding -------------------------------------------------------------*/

static int
remove_one(void *arg, const char *key, uint64_t len)
{
    (void)len;
    return store_delete(arg, key, ERR_ABORT);
}

static int
rebuild(const char *dir, uint64_t n)
{
    struct repo *r = NULL;
    struct store *st = NULL;
    double start;

    if (store_dir_open(dir, NULL, &st, ERR_ABORT) < 0 ||
        store_list(st, "index", remove_one, st, ERR_ABORT) < 0)
        return 1;
    store_close(st);
    start = now();
    if (repo_open(dir, NULL, &r, ERR_ABORT) < 0 ||
        index_reload(r, ERR_ABORT) < 0)
        return 1;
    printf("{\"rebuild_s\": %.3f, ", now() - start);
    printf("\"miss\": %.0f, \"peak_kib\": %ld, \"anon_kib\": %ld, "
           "\"records\": %llu}\n",
           look_up(r, n, false, COLD_LOOKUPS, 1), resident_kib("VmHWM:"),
           resident_kib("RssAnon:"), (unsigned long long)index_n_records(r));
    repo_close(r);
    return 0;
}

int
main(int argc, char **argv)
{
    uint64_t n = argc == 4 ? strtoull(argv[3], NULL, 10) : 0;

    if (n > 0 && strcmp(argv[1], "make") == 0)
        return make(argv[2], n);
    if (n > 0 && strcmp(argv[1], "ask") == 0)
        return ask(argv[2], n);
    if (n > 0 && strcmp(argv[1], "rebuild") == 0)
        return rebuild(argv[2], n);
    fprintf(stderr, "usage: bench-index make|ask|rebuild DIR CHUNKS\n");
    return 2;
}
