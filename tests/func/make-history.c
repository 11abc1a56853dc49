/* Make points without a machine: make-history REPO < SCRIPT.
 *
 * One point per line, oldest first:
 *
 *     MACHINE TIME TAGS SIZE [FIRST+COUNT=VALUE ...]
 *
 * TIME is in seconds since 1970 UTC, TAGS are joined by ',' or are '-', SIZE is
 * in bytes.  The machine has one disk, vda, that begins with zeroes and keeps
 * what earlier lines wrote: chunks FIRST .. FIRST+COUNT-1 get the contents VALUE,
 * VALUE+1, ... (0: all of them zeroes).  What a value looks like is in
 * tests/lib/history.py, too.  Prints the id of each point. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "err.h"
#include "fileops.h"
#include "internal.h"

#define CHUNK REPO_CHUNK_MIN
#define CHUNKS_MAX 65536u
#define MACHINES_MAX 16
#define TAGS_MAX 8

struct machine {
    char name[64];
    uint64_t value[CHUNKS_MAX];
};

static struct machine machines[MACHINES_MAX];

/* These tests cut no power. */
static int
no_fsync(int fd)
{
    return 0;
}

static void
check(int r)
{
    if (r < 0)
        abort(); /* ERR_ABORT has printed why */
}

static char *
copy(const char *text)
{
    char *p = strdup(text);

    if (p == NULL)
        abort();
    return p;
}

static struct machine *
machine_named(const char *name)
{
    for (size_t i = 0; i < MACHINES_MAX; i++) {
        struct machine *m = &machines[i];

        if (m->name[0] == '\0')
            (void)snprintf(m->name, sizeof m->name, "%s", name);
        if (strcmp(m->name, name) == 0)
            return m;
    }
    abort();
}

static void
fill(uint64_t value, uint64_t *words)
{
    uint64_t x = value * 0x9e3779b97f4a7c15u | 1;

    for (size_t i = 0; i < CHUNK / sizeof *words; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        words[i] = value == 0 ? 0 : x;
    }
}

static void
put_disk(struct repo_session *s, const struct machine *m,
         struct point_disk *disk)
{
    static uint64_t words[CHUNK / sizeof(uint64_t)];
    struct chunk_id none = {0}, id;
    struct map_writer *w;

    check(map_writer_new(s, disk->size, CHUNK, &none, &w, ERR_ABORT));
    for (uint64_t i = 0; i * CHUNK < disk->size; i++) {
        uint64_t left = disk->size - i * CHUNK;

        if (m->value[i] == 0)
            continue;
        fill(m->value[i], words);
        check(repo_put(s, 0, words, left < CHUNK ? left : CHUNK, NULL, &id,
                       NULL, ERR_ABORT));
        check(map_writer_set(w, i, &id, ERR_ABORT));
    }
    check(map_writer_finish(w, &disk->root, ERR_ABORT));
    map_writer_free(w);
}

static void
set_tags(struct point *p, char *tags)
{
    char *tag;

    if (strcmp(tags, "-") == 0)
        return;
    p->tags = calloc(TAGS_MAX, sizeof *p->tags);
    while (p->tags != NULL && p->n_tags < TAGS_MAX &&
           (tag = strsep(&tags, ",")) != NULL)
        p->tags[p->n_tags++] = copy(tag);
}

static struct point *
new_point(const char *machine, int64_t time_s, char *tags, uint64_t size)
{
    struct point *p = point_new();

    if (p == NULL)
        abort();
    p->machine = copy(machine);
    p->consistency = copy("crash");
    p->capture = copy("pull");
    p->time_ns = time_s * 1000000000;
    set_tags(p, tags);
    p->disks = calloc(1, sizeof *p->disks);
    if (p->disks == NULL)
        abort();
    p->n_disks = 1;
    p->disks[0] = (struct point_disk){.name = copy("vda"),
                                      .size = size,
                                      .chunk_size = CHUNK,
                                      .format = copy("raw"),
                                      .tracking = copy("full"),
                                      .reason = copy("")};
    return p;
}

static void
commit(struct repo *r, struct point *p, const struct machine *m)
{
    struct repo_session_opts opts = REPO_SESSION_OPTS;
    struct repo_session *s;
    char config[96];

    (void)snprintf(config, sizeof config, "{\"name\":\"%.63s\"}", m->name);
    check(repo_session_begin(r, &opts, &s, ERR_ABORT));
    put_disk(s, m, &p->disks[0]);
    p->config_len = strlen(config);
    check(repo_put_blob(s, config, strlen(config), &p->config, ERR_ABORT));
    check(repo_commit(s, p, ERR_ABORT));
    repo_session_free(s);
    printf("%s\n", p->id);
}

static void
line(struct repo *r, char *text)
{
    const char *name = strsep(&text, " "), *time_s = strsep(&text, " ");
    char *tags = strsep(&text, " "), *size = strsep(&text, " ");
    struct machine *m = machine_named(name);
    struct point *p;
    char *range;

    if (size == NULL)
        abort();
    while ((range = strsep(&text, " ")) != NULL) {
        uint64_t first, n, value;

        if (sscanf(range, "%" SCNu64 "+%" SCNu64 "=%" SCNu64, &first, &n,
                   &value) != 3 ||
            n > CHUNKS_MAX || first > CHUNKS_MAX - n)
            abort();
        for (uint64_t i = 0; i < n; i++)
            m->value[first + i] = value == 0 ? 0 : value + i;
    }
    p = new_point(name, strtoll(time_s, NULL, 10), tags,
                  strtoull(size, NULL, 10));
    commit(r, p, m);
    point_free(p);
}

int
main(int argc, char **argv)
{
    struct file_ops ops = file_ops_system;
    struct repo *r;
    char text[4096];

    if (argc != 2)
        return 2;
    ops.fsync = no_fsync;
    check(repo_open(argv[1], &ops, &r, ERR_ABORT));
    while (fgets(text, sizeof text, stdin) != NULL) {
        text[strcspn(text, "\n")] = '\0';
        line(r, text);
    }
    repo_close(r);
    return 0;
}
