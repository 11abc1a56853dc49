/* Damage everything, everywhere: each byte of each object of a small repository
 * is changed, each object is cut at each length, removed, exchanged with each
 * other of its kind, and put under another name.
 *
 * For every single one: what reads, reads as it was written; and the check finds
 * it, unless nothing that a point needs depends on it.  Those places are listed
 * here (harmless()) and nowhere else: a field that nobody checks cannot hide.
 */
#include "scene.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "tmpdir.h"

#define FILES_MAX 64
#define WORKERS 2
#define LABELS_MAX 16

/* -- the objects ------------------------------------------------------------*/

struct file {
    char key[REPO_KEY_MAX];
    uint8_t *bytes;
    size_t len;
};

struct repository {
    struct scene scene;
    char top[TMPDIR_MAX];       /* removed at the end */
    char path[TMPDIR_MAX + 16]; /* undamaged */
    struct file files[FILES_MAX];
    unsigned n;
};

static struct repository *collecting; /* nftw() has no argument */

static int
collect_file(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    struct file *f = &collecting->files[collecting->n];
    FILE *in;

    if (type != FTW_F)
        return 0;
    if (collecting->n == FILES_MAX)
        abort();
    (void)snprintf(f->key, sizeof f->key, "%s",
                   path + strlen(collecting->path) + 1);
    f->len = (size_t)st->st_size;
    f->bytes = malloc(f->len + 1);
    in = fopen(path, "rb");
    if (in == NULL || f->bytes == NULL ||
        fread(f->bytes, 1, f->len, in) != f->len || fclose(in) != 0)
        abort();
    collecting->n++;
    return 0;
}

static void
make(struct repository *r, void (*scene)(const char *, struct scene *))
{
    memset(r, 0, sizeof *r);
    /* in memory where that is possible: it is written a hundred thousand times */
    (void)snprintf(r->top, sizeof r->top, "/dev/shm/tidemark-test-XXXXXX");
    if (mkdtemp(r->top) == NULL) {
        tmpdir_make(r->top);
    }
    (void)snprintf(r->path, sizeof r->path, "%s/whole", r->top);
    scene(r->path, &r->scene);
    collecting = r;
    CHECK(nftw(r->path, collect_file, 16, FTW_PHYS) == 0);
}

static void
unmake(struct repository *r)
{
    for (unsigned i = 0; i < r->n; i++)
        free(r->files[i].bytes);
    tmpdir_remove(r->top);
}

/* -- one worker -------------------------------------------------------------*/

struct tally {
    unsigned long tried, found, harmless, lost;
    unsigned failures;
    struct {
        const char *label;
        unsigned long n;
    } labels[LABELS_MAX];
};

struct worker {
    const struct repository *r;
    struct tally *t;
    char path[TMPDIR_MAX + 16]; /* its own copy */
    unsigned no;
    unsigned long turn;
};

static void
path_of(const struct worker *w, const char *key, char path[512])
{
    (void)snprintf(path, 512, "%s/%s", w->path, key);
}

static void
put(const struct worker *w, const char *key, const void *bytes, size_t len)
{
    char path[512];
    int fd;

    path_of(w, key, path);
    for (char *p = path + strlen(w->path) + 1; (p = strchr(p, '/')) != NULL;
         p++) {
        *p = '\0';
        (void)mkdir(path, 0700);
        *p = '/';
    }
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, bytes, len) != (ssize_t)len || close(fd) != 0)
        abort();
}

static void
take_away(const struct worker *w, const char *key)
{
    char path[512];

    path_of(w, key, path);
    if (unlink(path) != 0)
        abort();
}

static void
restore(const struct worker *w, const struct file *f)
{
    put(w, f->key, f->bytes, f->len);
}

/* Every worker takes its share of the turns. */
static bool
my_turn(struct worker *w)
{
    return w->turn++ % WORKERS == w->no;
}

static void
count_label(struct tally *t, const char *label)
{
    unsigned i = 0;

    while (t->labels[i].label != NULL && t->labels[i].label != label)
        if (++i == LABELS_MAX)
            abort();
    t->labels[i].label = label;
    t->labels[i].n++;
}

static bool
is(const struct file *f, const char *kind)
{
    return strncmp(f->key, kind, strlen(kind)) == 0;
}

/* Judge the copy as it is now.  `allowed`: what may be said when nothing was found
 * and all reads, `lost`: when a point is not there. */
static void
judge(struct worker *w, const char *what, const struct file *f, size_t at,
      const char *allowed, const char *lost)
{
    struct verdict v;

    scene_judge(&w->r->scene, w->path, &v);
    w->t->tried++;
    w->t->found += v.found;
    if (!v.found)
        count_label(w->t, v.complete && allowed != NULL ? allowed
                          : !v.complete && lost != NULL ? lost
                                                        : "NOTHING ALLOWS IT");
    w->t->harmless += v.complete;
    if (v.wrong == 0 && (v.found || (v.complete ? allowed : lost) != NULL))
        return;
    if (w->t->failures++ < 20)
        printf("# %s %s at %zu of %zu: %u wrong bytes, %s, %s\n", what, f->key,
               at, f->len, v.wrong, v.found ? "found" : "not found",
               v.complete ? "all reads" : "not all reads");
    (void)fflush(stdout);
}

/* -- what does not matter ---------------------------------------------------*/

static const char *
harmless(const struct file *f, bool removed)
{
    if (is(f, "session/"))
        return "session: writers do not read it, a collector expects the worst";
    if (is(f, "beat/"))
        return "beat: its bytes do not matter";
    if (is(f, "forget/"))
        return "forget: the name counts, a collector refuses it";
    if (is(f, "verified/"))
        return "verified: is only made again";
    if (removed && is(f, "gc/"))
        return "condemned: no session depends on it";
    if (removed && is(f, "bad/"))
        return "bad: the frames prove themselves";
    if (removed && is(f, "commit/") && f->bytes[12] == COMMIT_ABORT)
        return "fence: nobody waits for it";
    return NULL;
}

/* -- flip -------------------------------------------------------------------*/

/* Headers and what is in every object: all bits. */
static bool
every_bit(const struct file *f, size_t at)
{
    return is(f, "format") || at < 64 || at + 64 >= f->len;
}

static void
flip_one(struct worker *w, const struct file *f, size_t at, unsigned bit)
{
    uint8_t flipped = f->bytes[at] ^ (uint8_t)(1u << bit);

    if (!my_turn(w))
        return;
    tmpdir_poke(w->path, f->key, at, &flipped, 1);
    judge(w, "flip", f, at, harmless(f, false), NULL);
    tmpdir_poke(w->path, f->key, at, &f->bytes[at], 1);
}

static void
flip(struct worker *w, const struct file *f)
{
    for (size_t at = 0; at < f->len; at++) {
        if (!every_bit(f, at))
            flip_one(w, f, at, at % 8);
        for (unsigned bit = 0; every_bit(f, at) && bit < 8; bit++)
            flip_one(w, f, at, bit);
    }
}

/* -- cut --------------------------------------------------------------------*/

static void
cut(struct worker *w, const struct file *f)
{
    char path[512];

    path_of(w, f->key, path);
    for (size_t len = 0; len < f->len; len++) {
        if (!my_turn(w))
            continue;
        if (truncate(path, (off_t)len) != 0)
            abort();
        judge(w, "cut", f, len, harmless(f, false), NULL);
        restore(w, f);
    }
    if (my_turn(w)) { /* and one byte more */
        put(w, f->key, f->bytes, f->len + 1);
        judge(w, "lengthen", f, f->len, harmless(f, false), NULL);
        restore(w, f);
    }
}

/* -- remove -----------------------------------------------------------------*/

/* A machine's newest point can be taken away and nothing that is left knows of
 * it; of any other, the next one does. */
static const char *
newest(const struct worker *w, const struct file *f)
{
    const struct scene *s = &w->r->scene;
    unsigned i = 0;

    if (!is(f, "commit/"))
        return NULL;
    while (i < s->n && strncmp(f->key + 7, s->points[i].id, 32) != 0)
        i++;
    if (i == s->n)
        return NULL;
    for (unsigned k = i + 1; k < s->n; k++)
        if (strcmp(s->points[k].machine, s->points[i].machine) == 0)
            return NULL;
    return "commit: the newest point of a machine";
}

static void
lose(struct worker *w, const struct file *f)
{
    if (!my_turn(w))
        return;
    take_away(w, f->key);
    judge(w, "remove", f, 0, harmless(f, true), newest(w, f));
    restore(w, f);
}

/* -- exchange ---------------------------------------------------------------*/

static bool
same_kind(const struct file *a, const struct file *b)
{
    size_t n = strcspn(a->key, "/");

    return strncmp(a->key, b->key, n) == 0 && b->key[n] == a->key[n];
}

static void
exchange(struct worker *w, const struct file *f)
{
    for (const struct file *g = f + 1; g < w->r->files + w->r->n; g++) {
        if (!same_kind(f, g) || !my_turn(w))
            continue;
        put(w, f->key, g->bytes, g->len);
        put(w, g->key, f->bytes, f->len);
        judge(w, "exchange", f, 0, harmless(f, false), NULL);
        restore(w, f);
        restore(w, g);
    }
}

/* An older object of another name in the place of this one. */
static void
replace(struct worker *w, const struct file *f)
{
    for (unsigned i = 0; i < w->r->n; i++) {
        const struct file *g = &w->r->files[i];

        if (g == f || !my_turn(w))
            continue;
        put(w, f->key, g->bytes, g->len);
        judge(w, "replace", f, 0, harmless(f, false), NULL);
        restore(w, f);
    }
}

/* -- put under another name -------------------------------------------------*/

/* Another key that is valid for the kind: another session's, or the next
 * number. */
static bool
other_key(const struct file *f, bool next, char key[REPO_KEY_MAX])
{
    static const char digits[] = "0123456789abcdef";
    char *slash;

    (void)snprintf(key, REPO_KEY_MAX, "%s", f->key);
    slash = strchr(key, '/');
    if (slash == NULL || is(f, "feature/"))
        return false;
    if (next) { /* 00000001 -> 00000009, .1 -> .9, -1 -> -9 */
        char *last = key + strlen(key) - 1;

        if (strlen(slash) <= 33 || *last == '9' || *last < '0' || *last > '9')
            return false;
        *last = '9';
        return true;
    }
    slash[5] = digits[(strchr(digits, slash[5]) - digits + 7) % 16];
    return true;
}

static bool
makes_a_point(const struct worker *w, const struct file *f)
{
    const struct scene *s = &w->r->scene;

    for (unsigned i = 0; i < s->n; i++)
        if (strncmp(f->key + strlen("commit/"), s->points[i].id, 32) == 0)
            return true;
    return false;
}

static const char *
copied(const struct worker *w, const struct file *f, bool next)
{
    if (!is(f, "commit/"))
        return "copy: nothing names it";
    if (f->bytes[12] == COMMIT_ABORT)
        return "copy: a fence for nobody";
    return next && !makes_a_point(w, f) ? "copy: a collector, twice" : NULL;
}

static void
copy(struct worker *w, const struct file *f)
{
    for (unsigned next = 0; next < 2; next++) {
        char key[REPO_KEY_MAX];

        if (!other_key(f, next > 0, key) || !my_turn(w))
            continue;
        put(w, key, f->bytes, f->len);
        judge(w, "copy", f, next, copied(w, f, next > 0), NULL);
        take_away(w, key);
    }
}

/* -- all workers ------------------------------------------------------------*/

typedef void (*damage_fn)(struct worker *w, const struct file *f);

static void
work(const struct repository *r, unsigned no, damage_fn fn, struct tally *t)
{
    struct worker w = {.r = r, .t = t, .no = no};
    struct verdict v;

    (void)snprintf(w.path, sizeof w.path, "%s/copy%u", r->top, no);
    if (mkdir(w.path, 0700) != 0)
        abort();
    for (unsigned i = 0; i < r->n; i++)
        restore(&w, &r->files[i]);
    for (unsigned i = 0; i < r->n; i++)
        fn(&w, &r->files[i]);
    /* all is as it was */
    scene_judge(&r->scene, w.path, &v);
    if (v.found || v.wrong > 0 || !v.complete)
        t->failures++;
    tmpdir_remove(w.path);
}

static void
report(const struct tally *all, unsigned n)
{
    struct tally sum = {0};

    for (unsigned k = 0; k < n; k++) {
        sum.tried += all[k].tried;
        sum.found += all[k].found;
        sum.harmless += all[k].harmless;
        sum.failures += all[k].failures;
    }
    printf("# %lu tried, %lu found, %lu read in full\n", sum.tried, sum.found,
           sum.harmless);
    for (unsigned i = 0; i < LABELS_MAX; i++)
        for (unsigned k = 0; k < n; k++)
            if (all[k].labels[i].label != NULL)
                printf("# not found: %lu %s\n", all[k].labels[i].n,
                       all[k].labels[i].label);
    CHECK(sum.tried > 0);
    CHECK(sum.failures == 0);
}

static void
damage(void (*scene)(const char *, struct scene *), damage_fn fn)
{
    static struct repository r;
    struct tally *t = mmap(NULL, WORKERS * sizeof *t, PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pid[WORKERS];

    if (t == MAP_FAILED)
        abort();
    make(&r, scene);
    (void)fflush(stdout);
    for (unsigned i = 0; i < WORKERS; i++) {
        pid[i] = fork();
        if (pid[i] == 0) {
            (void)alarm(600);
            work(&r, i, fn, &t[i]);
            (void)fflush(stdout);
            _exit(0);
        }
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        int status = -1;

        CHECK(pid[i] > 0 && waitpid(pid[i], &status, 0) == pid[i]);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    report(t, WORKERS);
    unmake(&r);
    (void)munmap(t, WORKERS * sizeof *t);
}

#define DAMAGE_TEST(scene, what)            \
    static void test_##scene##_##what(void) \
    {                                       \
        damage(scene_##scene, what);        \
    }
DAMAGE_TEST(plain, flip)
DAMAGE_TEST(plain, cut)
DAMAGE_TEST(plain, lose)
DAMAGE_TEST(plain, exchange)
DAMAGE_TEST(plain, replace)
DAMAGE_TEST(plain, copy)
DAMAGE_TEST(collected, flip)
DAMAGE_TEST(collected, cut)
DAMAGE_TEST(collected, lose)
DAMAGE_TEST(collected, exchange)
DAMAGE_TEST(collected, replace)
DAMAGE_TEST(collected, copy)
DAMAGE_TEST(encrypted, flip)
DAMAGE_TEST(encrypted, cut)
DAMAGE_TEST(encrypted, lose)
DAMAGE_TEST(encrypted, exchange)
DAMAGE_TEST(encrypted, replace)
DAMAGE_TEST(encrypted, copy)

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_plain_flip),        TEST(test_plain_cut),
        TEST(test_plain_lose),        TEST(test_plain_exchange),
        TEST(test_plain_replace),     TEST(test_plain_copy),
        TEST(test_collected_flip),    TEST(test_collected_cut),
        TEST(test_collected_lose),    TEST(test_collected_exchange),
        TEST(test_collected_replace), TEST(test_collected_copy),
        TEST(test_encrypted_flip),    TEST(test_encrypted_cut),
        TEST(test_encrypted_lose),    TEST(test_encrypted_exchange),
        TEST(test_encrypted_replace), TEST(test_encrypted_copy),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
