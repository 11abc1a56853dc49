/* Many points of a large disk, and what it costs to forget and collect them.
 *
 *     bench-points make DIR POINTS GIB   a new repository
 *     bench-points gc DIR KEEP           forget all but the last KEEP, collect
 *
 * Each writes one line of JSON.  Maps are real: every page is stored, and the
 * collector walks all of them.  Each point changes a hundredth of the disk's
 * chunks, in runs of 64 (4 MiB), a leaf page each: with single chunks all over
 * the disk, 1000 maps alone would take 250 GB.  Every point has OWN chunks that
 * no other has, and all other entries name chunks of a set of SHARED ones: so
 * packs die, but the index has no record for each of the entries.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "bytes.h"
#include "cleanup.h"
#include "err.h"
#include "fileops.h"
#include "internal.h"
#include "repo.h"

#define CHUNK REPO_CHUNK_DEFAULT
#define RUN 64u /* entries of a leaf */
#define SHARED 16384u
#define OWN 128u

DEFINE_CLEANUP(struct point *, point_free)

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

/* Thousands of times fsync() are not what is measured. */
static int
no_fsync(int fd)
{
    (void)fd;
    return 0;
}

static const struct file_ops *
quick_ops(void)
{
    static struct file_ops ops;

    ops = file_ops_system;
    ops.fsync = no_fsync;
    return &ops;
}

static void
die(const struct err *err)
{
    fprintf(stderr, "%s\n", err->msg);
    exit(1);
}

/* -- making -----------------------------------------------------------------*/

struct maker {
    struct repo *r;
    uint64_t size, n_entries;
    struct chunk_id shared[SHARED], own[OWN];
    struct chunk_id root;
    uint64_t n_changed;
};

static void
put_chunk(struct repo_session *s, uint64_t value, struct chunk_id *ret)
{
    static uint8_t data[CHUNK];
    struct err err = ERR_INIT;

    put_le64(data, value + 1);
    if (repo_put(s, 0, data, sizeof data, NULL, ret, NULL, &err) < 0)
        die(&err);
}

/* Entries first .. first+n-1 get chunks by chance, all of the own ones once. */
static void
change(struct maker *m, struct map_writer *w, uint64_t point, uint64_t first,
       uint64_t n, uint32_t *own)
{
    struct err err = ERR_INIT;

    for (uint64_t i = first; i < first + n && i < m->n_entries; i++) {
        const struct chunk_id *id =
            *own < OWN ? &m->own[(*own)++]
                       : &m->shared[mix(point << 40 ^ i) % SHARED];

        if (map_writer_set(w, i, id, &err) < 0)
            die(&err);
        m->n_changed++;
    }
}

static void
fill_map(struct maker *m, struct map_writer *w, uint64_t point)
{
    uint64_t n_runs = m->n_entries / RUN;
    uint32_t own = 0;

    for (uint64_t run = 0; run < n_runs; run++)
        if (point == 0 || mix(point << 40 ^ run) % 100 == 0)
            change(m, w, point, run * RUN, RUN, &own);
}

static void
fill_point(struct point *p, const struct maker *m)
{
    p->machine = strdup("vm");
    p->consistency = strdup("crash");
    p->capture = strdup("pull");
    p->disks = calloc(1, sizeof *p->disks);
    if (p->disks == NULL)
        abort();
    p->n_disks = 1;
    p->disks[0].name = strdup("vda");
    p->disks[0].size = m->size;
    p->disks[0].chunk_size = CHUNK;
    p->disks[0].format = strdup("raw");
    p->disks[0].tracking = strdup("full");
    p->disks[0].reason = strdup("synthetic");
}

static void
make_point(struct maker *m, uint64_t point)
{
    CLEANUP(point_freep) struct point *p = point_new();
    struct repo_session_opts opts = REPO_SESSION_OPTS;
    struct repo_session *s = NULL;
    struct map_writer *w = NULL;
    struct err err = ERR_INIT;

    if (p == NULL || repo_session_begin(m->r, &opts, &s, &err) < 0)
        die(&err);
    for (uint32_t i = 0; point == 0 && i < SHARED; i++)
        put_chunk(s, i, &m->shared[i]);
    for (uint32_t i = 0; i < OWN; i++)
        put_chunk(s, SHARED + point * OWN + i, &m->own[i]);
    if (map_writer_new(s, m->size, CHUNK, &m->root, &w, &err) < 0)
        die(&err);
    fill_map(m, w, point);
    fill_point(p, m);
    if (map_writer_finish(w, &p->disks[0].root, &err) < 0 ||
        repo_commit(s, p, &err) < 0)
        die(&err);
    m->root = p->disks[0].root;
    map_writer_free(w);
    repo_session_free(s);
}

static int
make(const char *dir, uint64_t n_points, uint64_t gib)
{
    static struct maker m;
    struct err err = ERR_INIT;
    double start = now();

    m.size = gib << 30;
    m.n_entries = m.size / CHUNK;
    if (repo_init(dir, CHUNK, quick_ops(), &err) < 0 ||
        repo_open(dir, quick_ops(), &m.r, &err) < 0)
        die(&err);
    for (uint64_t i = 0; i < n_points; i++)
        make_point(&m, i);
    printf("{\"make_s\": %.1f, \"changed\": %llu, \"records\": %llu}\n",
           now() - start, (unsigned long long)m.n_changed,
           (unsigned long long)(index_reload(m.r, NULL) == 0
                                    ? index_n_records(m.r)
                                    : 0));
    repo_close(m.r);
    return 0;
}

/* -- collecting -------------------------------------------------------------*/

static long
status_kib(const char *what)
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

static double
forget(struct repo *r, uint64_t keep)
{
    struct point_list l = {NULL, 0};
    struct err err = ERR_INIT;
    double start = now();

    if (repo_points(r, NULL, &l, NULL, &err) < 0)
        die(&err);
    for (size_t i = 0; i + keep < l.n; i++)
        if (repo_forget(r, l.v[i]->id, "bench", &err) < 0)
            die(&err);
    point_list_done(&l);
    return now() - start;
}

static long anon_peak;

static void
look(void *arg, const char *phase, uint64_t done, uint64_t total)
{
    long kib = status_kib("RssAnon:");

    if (kib > anon_peak)
        anon_peak = kib;
}

static int
collect(const char *dir, uint64_t keep)
{
    struct repo_gc_opts opts = {.progress = look};
    struct repo_gc_report rep;
    struct repo *r = NULL;
    struct err err = ERR_INIT;
    double forget_s, gc_s;

    if (repo_open(dir, NULL, &r, &err) < 0)
        die(&err);
    forget_s = forget(r, keep);
    gc_s = now();
    if (repo_gc(r, &opts, &rep, &err) < 0)
        die(&err);
    gc_s = now() - gc_s;
    printf("{\"forget_s\": %.2f, \"gc_s\": %.2f, \"removed\": %llu, "
           "\"live\": %llu, \"packs\": %llu, \"packs_removed\": %llu, "
           "\"bytes_before\": %llu, \"bytes_removed\": %llu, "
           "\"bytes_copied\": %llu, \"anon_kib\": %ld, \"peak_kib\": %ld}\n",
           forget_s, gc_s, (unsigned long long)rep.points_removed,
           (unsigned long long)rep.points_live, (unsigned long long)rep.packs,
           (unsigned long long)rep.packs_removed,
           (unsigned long long)rep.bytes_before,
           (unsigned long long)rep.bytes_removed,
           (unsigned long long)rep.bytes_copied, anon_peak,
           status_kib("VmHWM:"));
    repo_close(r);
    return 0;
}

int
main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "make") == 0)
        return make(argv[2], strtoull(argv[3], NULL, 10),
                    strtoull(argv[4], NULL, 10));
    if (argc == 4 && strcmp(argv[1], "gc") == 0)
        return collect(argv[2], strtoull(argv[3], NULL, 10));
    fprintf(stderr, "usage: bench-points make DIR POINTS GIB\n"
                    "       bench-points gc DIR KEEP\n");
    return 2;
}
