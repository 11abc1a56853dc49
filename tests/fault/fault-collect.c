/* Fail the Nth file operation, or cut the power there, in a backup, in
 * forgetting, in a collection and under a pin; FAULT_EVERY=1 for every N.
 *
 * Afterwards every point that was said to be committed is what its machine was,
 * byte for byte, none is there that was not, work goes on, and a collection
 * brings the repository to what it names.
 */
#include "tap.h"

#include <ftw.h>
#include <stdarg.h>

#include "../crash/driver.h"
#include "cleanup.h"
#include "cut_ops.h"
#include "err.h"
#include "internal.h"

#define IDS_MAX 64
#define N_MAX 20000

/* What the commands said since the last forget_words(). */
static struct {
    char committed[IDS_MAX][REPO_SID_TEXT], points[IDS_MAX][REPO_SID_TEXT];
    unsigned n_committed, n_points, n_left;
    char last[ERR_MSG_MAX]; /* error */
} words;

void
say(const char *fmt, ...)
{
    char line[2048], id[REPO_SID_TEXT];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    if (words.n_committed == IDS_MAX || words.n_points == IDS_MAX)
        abort();
    if (sscanf(line, "committed %32s", id) == 1)
        (void)strcpy(words.committed[words.n_committed++], id);
    else if (sscanf(line, "point %32s", id) == 1)
        (void)strcpy(words.points[words.n_points++], id);
    else if (strncmp(line, "left over", 9) == 0 && words.n_left++ < 5)
        printf("# %s\n", line);
}

int
driver_error(const struct err *err)
{
    (void)snprintf(words.last, sizeof words.last, "%s", err->msg);
    return err->code == ERR_CORRUPT ? DRIVER_DAMAGE : DRIVER_FAILED;
}

static bool
is_listed(const char *id)
{
    for (unsigned i = 0; i < words.n_points; i++)
        if (strcmp(words.points[i], id) == 0)
            return true;
    return false;
}

/* -- the repository that every run begins with ------------------------------*/

static struct {
    char dir[TMPDIR_MAX], template[TMPDIR_MAX + 16], path[TMPDIR_MAX + 16];
    char ids[IDS_MAX][REPO_SID_TEXT]; /* its points, in order */
    bool forgotten[IDS_MAX];
    unsigned n;
} base;

static struct driver_opts
opts_of(const char *path)
{
    return (struct driver_opts){
        .repo = path, .ops = &cut_ops, .synchronous = true};
}

static void
must(int rc)
{
    if (rc == DRIVER_OK)
        return;
    printf("Bail out! %s\n", words.last);
    exit(1);
}

static void
base_put(const char *machine, uint64_t seed)
{
    struct driver_opts o = opts_of(base.template);

    words.n_committed = 0;
    must(driver_put(&o, machine, seed));
    (void)strcpy(base.ids[base.n++], words.committed[0]);
}

static void
base_forget(unsigned i)
{
    struct driver_opts o = opts_of(base.template);
    char *id = base.ids[i];

    must(driver_forget(&o, &id, 1));
    base.forgotten[i] = true;
}

static void
base_make(void)
{
    tmpdir_make(base.dir);
    (void)snprintf(base.template, sizeof base.template, "%s/base", base.dir);
    (void)snprintf(base.path, sizeof base.path, "%s/repo", base.dir);
    (void)snprintf(cut.graves, sizeof cut.graves, "%.200s/graves", base.dir);
    cut_empty_graves();
    cut_start(CUT_NEVER, 0);
    must(repo_init(base.template, REPO_CHUNK_MIN, &cut_ops, ERR_ABORT));
    for (uint64_t seed = 1; seed <= 3; seed++)
        base_put("m", seed);
    base_put("n", 1);
}

/* Objects are never modified, so that a copy may share them. */
static int
copy_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    char to[2 * TMPDIR_MAX];

    (void)flag;
    (void)ftw;
    (void)snprintf(to, sizeof to, "%s%s", base.path,
                   path + strlen(base.template));
    return S_ISDIR(st->st_mode) ? mkdir(to, 0700) : link(path, to);
}

static void
base_copy(void)
{
    if (nftw(base.template, copy_one, 16, FTW_PHYS) != 0)
        abort();
}

static void
base_done(void)
{
    cut_start(CUT_NEVER, 0);
    tmpdir_remove(base.dir);
    memset(&base, 0, sizeof base);
}

/* -- judging ----------------------------------------------------------------*/

/* `maybe`: this point of the base may be there or not. */
static void
check_points(const struct driver_opts *o, const char *maybe)
{
    words.n_points = 0;
    CHECK(driver_check(o) == DRIVER_OK);
    for (unsigned i = 0; i < base.n; i++)
        if (maybe == NULL || strcmp(maybe, base.ids[i]) != 0)
            CHECK(is_listed(base.ids[i]) == !base.forgotten[i]);
    for (unsigned i = 0; i < words.n_committed; i++)
        CHECK(is_listed(words.committed[i]));
}

/* After the accident everything works, and a collection tidies up. */
static void
settle(const char *maybe)
{
    struct driver_opts o = opts_of(base.path);

    words.n_left = 0;
    check_points(&o, maybe);
    CHECK(driver_gc(&o) == DRIVER_OK);
    CHECK(driver_leftovers(&o) == DRIVER_OK);
    CHECK(driver_put(&o, "m", 9) == DRIVER_OK);
    check_points(&o, maybe);
}

/* -- scenarios --------------------------------------------------------------*/

struct scenario {
    int (*run)(const struct driver_opts *o);
    const char *maybe; /* a point that may be gone afterwards */
};

/* One accident at operation `n`; false when the scenario has fewer. */
static bool
accident(const struct scenario *s, enum cut_mode mode, unsigned n)
{
    struct driver_opts o = opts_of(base.path);
    int before = tap_failures, rc;
    bool hit;

    base_copy();
    memset(&words, 0, sizeof words);
    cut_start(mode, n);
    rc = s->run(&o);
    hit = cut.hit;
    if (mode == CUT_SHORT || !hit)
        CHECK(rc == DRIVER_OK);
    cut_power();
    settle(s->maybe);
    if (tap_failures > before)
        printf("# %s at operation %u: %s\n", cut_names[mode], n, words.last);
    tmpdir_remove(base.path);
    cut_empty_graves();
    return hit;
}

/* Every `every`th operation, in each mode others; FAULT_EVERY=1 for all. */
static void
sweep(const struct scenario *s, unsigned every)
{
    const char *env = getenv("FAULT_EVERY");

    if (env != NULL && atoi(env) > 0)
        every = (unsigned)atoi(env);
    for (enum cut_mode mode = CUT_EIO; mode < CUT_N_MODES; mode++) {
        unsigned n = 1 + mode % every, runs = 0;

        for (; n < N_MAX && tap_failures == 0 && accident(s, mode, n);
             n += every)
            runs++;
        printf("# %s: %u of %u operations\n", cut_names[mode], runs, n - 1);
        CHECK(n > 10 && n < N_MAX);
    }
}

static int
run_put(const struct driver_opts *o)
{
    return driver_put(o, "m", 4);
}

static void
test_backup(void)
{
    base_make();
    sweep(&(struct scenario){run_put, NULL}, 2);
    base_done();
}

static int
run_forget(const struct driver_opts *o)
{
    char *id = base.ids[1];

    return driver_forget(o, &id, 1);
}

static void
test_forget(void)
{
    base_make();
    sweep(&(struct scenario){run_forget, base.ids[1]}, 1);
    base_done();
}

static int
run_pin(const struct driver_opts *o)
{
    struct driver_opts pinned = *o;

    pinned.pin = true;
    return driver_check(&pinned);
}

static void
test_pin(void)
{
    base_make();
    sweep(&(struct scenario){run_pin, NULL}, 3);
    base_done();
}

static int
run_gc(const struct driver_opts *o)
{
    return driver_gc(o);
}

/* What a killed backup leaves, too. */
static void
test_collect(void)
{
    struct driver_opts o;

    base_make();
    o = opts_of(base.template);
    cut_start(CUT_DEATH, 90);
    CHECK(driver_put(&o, "m", 7) != DRIVER_OK);
    cut_start(CUT_NEVER, 0);
    base_forget(0);
    base_forget(2);
    sweep(&(struct scenario){run_gc, NULL}, 8);
    base_done();
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_backup),
        TEST(test_forget),
        TEST(test_pin),
        TEST(test_collect),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
