/* The base of a disk is the newest point whose bitmap can be believed; without
 * one the disk is read in full, with the reason that fits. */
#include "plan.h"

#include "err.h"
#include "fake-source.h"
#include "job.h"
#include "repo.h"
#include "tap.h"

#define GEN_OLD "0123456789abcdef0123456789abcdef"
#define GEN_NEW "fedcba9876543210fedcba9876543210"
#define GEN_OTHER "11111111111111111111111111111111"
#define SIZE (1u << 20)
#define CHUNK REPO_CHUNK_DEFAULT

static char name_vda[] = "vda", gen_old[] = GEN_OLD, gen_new[] = GEN_NEW;

/* Two points of disk "vda": an old and a new one; cases change them. */
struct case_ {
    const char *what;
    size_t n_points;   /* 2: both; 1: only the old; 0 */
    bool other_disk;   /* the points are of another disk */
    uint64_t size;     /* of the disk at the points */
    uint32_t chunk;    /* at the points */
    bool untracked;    /* the new point has no generation */
    bool persistent;   /* the new point's bitmap */
    const char *in_vm; /* generation of the bitmap in QEMU, or NULL */
    enum tracking state;
    bool foreign; /* some other bitmap of this repository */
    const char *format;
    bool full; /* --full */
    /* expected */
    const char *base; /* generation, or NULL */
    const char *reason;
    bool lost;
};

static const struct case_ cases[] = {
    {"nothing yet", 0, 0, SIZE, CHUNK, 0, 1, NULL, 0, 0, "qcow2", 0, NULL,
     "first backup", 0},
    {"newest bitmap", 2, 0, SIZE, CHUNK, 0, 1, GEN_NEW, TRACKING_OK, 0, "qcow2",
     0, GEN_NEW, "", 0},
    {"older bitmap still there", 2, 0, SIZE, CHUNK, 0, 1, GEN_OLD, TRACKING_OK,
     0, "qcow2", 0, GEN_OLD, "", 0},
    {"newest untracked, older there", 2, 0, SIZE, CHUNK, 1, 1, GEN_OLD,
     TRACKING_OK, 0, "qcow2", 0, GEN_OLD, "", 0},
    {"asked for", 2, 0, SIZE, CHUNK, 0, 1, GEN_NEW, TRACKING_OK, 0, "qcow2", 1,
     NULL, "asked for", 0},
    {"asked for the first time", 0, 0, SIZE, CHUNK, 0, 1, NULL, 0, 0, "qcow2",
     1, NULL, "asked for", 0},
    {"new disk", 2, 1, SIZE, CHUNK, 0, 1, NULL, 0, 0, "qcow2", 0, NULL,
     "new disk", 0},
    {"resized, bitmap healthy", 2, 0, SIZE / 2, CHUNK, 0, 1, GEN_NEW,
     TRACKING_OK, 0, "qcow2", 0, NULL, "resized", 1},
    {"chunk size", 2, 0, SIZE, CHUNK * 2, 0, 1, GEN_NEW, TRACKING_OK, 0,
     "qcow2", 0, NULL, "chunk size changed", 1},
    {"crash", 2, 0, SIZE, CHUNK, 0, 1, GEN_NEW, TRACKING_INCONSISTENT, 0,
     "qcow2", 0, NULL, "bitmap inconsistent after crash", 1},
    {"disabled by somebody", 2, 0, SIZE, CHUNK, 0, 1, GEN_NEW,
     TRACKING_NOT_RECORDING, 0, "qcow2", 0, NULL, "bitmap is not recording", 1},
    {"busy", 2, 0, SIZE, CHUNK, 0, 1, GEN_NEW, TRACKING_BUSY, 0, "qcow2", 0,
     NULL, "bitmap is in use by another job", 1},
    {"granularity", 2, 0, SIZE, CHUNK, 0, 1, GEN_NEW, TRACKING_GRANULARITY, 0,
     "qcow2", 0, NULL, "bitmap granularity cannot be used", 1},
    {"raw after restart", 2, 0, SIZE, CHUNK, 0, 0, NULL, 0, 0, "raw", 0, NULL,
     "raw disk after restart", 1},
    {"qcow2 without persistence", 2, 0, SIZE, CHUNK, 0, 0, NULL, 0, 0, "qcow2",
     0, NULL, "machine restarted; its bitmap was not persistent", 1},
    {"persistent and gone", 2, 0, SIZE, CHUNK, 0, 1, NULL, 0, 0, "qcow2", 0,
     NULL,
     "bitmap missing after restart: the machine crashed, its image had no "
     "room at the shutdown, or an older or other image took its place",
     1},
    {"repository is an older copy", 2, 0, SIZE, CHUNK, 0, 1, GEN_OTHER,
     TRACKING_OK, 1, "qcow2", 0, NULL, "point not in this repository", 1},
    {"points are gone, bitmap is there", 0, 0, SIZE, CHUNK, 0, 1, GEN_OTHER,
     TRACKING_OK, 1, "qcow2", 0, NULL, "point not in this repository", 0},
    {"tracking had not begun", 1, 0, SIZE, CHUNK, 1, 0, NULL, 0, 0, "qcow2", 0,
     NULL, "tracking had not begun at the previous point", 0},
};

/* The same with a machine that is off now. */
static const struct case_ off_cases[] = {
    {"off, newest bitmap", 2, 0, SIZE, CHUNK, 0, 1, GEN_NEW, TRACKING_OK, 0,
     "qcow2", 0, GEN_NEW, "", 0},
    {"off, raw", 2, 0, SIZE, CHUNK, 0, 0, NULL, 0, 0, "raw", 0, NULL,
     "raw disk of a machine that is off", 0},
    {"off, an old qcow2", 2, 0, SIZE, CHUNK, 0, 0, NULL, 0, 0, "qcow2", 0, NULL,
     "image of a machine that is off cannot keep a bitmap", 0},
    {"off, persistent and gone", 2, 0, SIZE, CHUNK, 0, 1, NULL, 0, 0, "qcow2",
     0, NULL,
     "bitmap missing after restart: the machine crashed, its image had no "
     "room at the shutdown, or an older or other image took its place",
     1},
};

/* The machine's newest point has the highest seq; with one point, it is the
 * new one. */
struct world {
    struct point_disk disk[2];
    struct point point[2];
    struct point *v[2];
    struct point_list list;
};

static void
make_world(struct world *w, const struct case_ *c)
{
    static char other[] = "vdb";

    memset(w, 0, sizeof *w);
    for (size_t i = 0; i < 2; i++) {
        bool newest = i + 1 == c->n_points;

        w->disk[i].name = c->other_disk ? other : name_vda;
        w->disk[i].size = c->size;
        w->disk[i].chunk_size = c->chunk;
        w->disk[i].generation = i == 0 ? gen_old : gen_new;
        w->disk[i].persistent = c->persistent;
        if (newest && c->untracked)
            w->disk[i].generation = NULL;
        w->point[i].seq = i + 1;
        w->point[i].disks = &w->disk[i];
        w->point[i].n_disks = 1;
        w->v[i] = &w->point[i];
    }
    w->list = (struct point_list){.v = w->v, .n = c->n_points};
    fake_reset();
    fake.n = 1;
    fake.disks[0] = (struct source_disk){
        .name = "vda", .node = "n0", .format = c->format, .size = SIZE};
    fake.foreign[0] = c->foreign;
    if (c->in_vm != NULL) {
        (void)snprintf(fake.bitmaps[0].generation, 33, "%s", c->in_vm);
        fake.bitmaps[0].state = c->state;
    }
}

static void
check_case(const struct case_ *c, bool off)
{
    struct world w;
    struct plan plan = {0};
    const struct job_backup_opts opts = {.machine = "fake", .full = c->full};
    int before = tap_failures;
    struct err err = ERR_INIT;

    make_world(&w, c);
    fake.offline = off;
    CHECK_OK(plan_make(&opts, NULL, &w.list, "r", CHUNK, &plan, &err), &err);
    CHECK(plan.n == 1);
    if (plan.n == 1) {
        const struct plan_disk *p = &plan.v[0];

        CHECK_STR(p->reason, c->reason);
        CHECK(p->lost == c->lost);
        CHECK((p->base != NULL) == (c->base != NULL));
        if (p->base != NULL && c->base != NULL)
            CHECK_STR(p->base->generation, c->base);
        /* Never a map of another shape to compare with. */
        CHECK(p->older == NULL ||
              (p->older->size == SIZE && p->older->chunk_size == CHUNK));
        CHECK(strlen(p->generation) == 32);
    }
    if (tap_failures != before)
        printf("# in case '%s'\n", c->what);
    plan_done(&plan);
}

static void
test_base_and_reason(void)
{
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check_case(&cases[i], false);
    for (size_t i = 0; i < sizeof off_cases / sizeof off_cases[0]; i++)
        check_case(&off_cases[i], true);
}

static void
three_disks(void)
{
    fake_reset();
    fake.n = 3;
    fake.disks[0] = (struct source_disk){
        .name = "vda", .node = "n0", .format = "qcow2", .size = SIZE};
    fake.disks[1] = (struct source_disk){
        .name = "vdb", .node = "n1", .format = "raw", .size = SIZE};
    fake.disks[2] = (struct source_disk){
        .name = "cd0", .node = "n2", .format = "raw", .skip = "CD-ROM"};
}

static int
choose(const char *const *disks, const char *const *exclude, struct plan *ret,
       struct err *err)
{
    const struct job_backup_opts opts = {
        .machine = "fake", .disks = disks, .exclude = exclude};
    const struct point_list none = {0};

    return plan_make(&opts, NULL, &none, "r", CHUNK, ret, err);
}

static void
test_disks_are_chosen_by_name(void)
{
    const char *vdb[] = {"vdb", NULL}, *cd[] = {"cd0", NULL},
               *typo[] = {"vdz", NULL}, *both[] = {"vda", "vdb", NULL};
    struct plan plan = {0};
    struct err err = ERR_INIT;

    three_disks();
    CHECK_OK(choose(NULL, NULL, &plan, &err), &err);
    CHECK(plan.n == 2 && plan.v[0].source == 0 && plan.v[1].source == 1);
    CHECK(strcmp(plan.v[0].generation, plan.v[1].generation) != 0);
    plan_done(&plan);
    CHECK_OK(choose(vdb, NULL, &plan, &err), &err);
    CHECK(plan.n == 1 && plan.v[0].source == 1);
    plan_done(&plan);
    CHECK_OK(choose(NULL, vdb, &plan, &err), &err);
    CHECK(plan.n == 1 && plan.v[0].source == 0);
    plan_done(&plan);
    CHECK(choose(typo, NULL, &plan, &err) < 0 && err.code == ERR_USAGE);
    CHECK(strstr(err.msg, "vda, vdb, cd0") != NULL);
    err_clear(&err);
    CHECK(choose(NULL, typo, &plan, &err) < 0 && err.code == ERR_USAGE);
    err_clear(&err);
    CHECK(choose(cd, NULL, &plan, &err) < 0 && err.code == ERR_USAGE);
    CHECK(strstr(err.msg, "CD-ROM") != NULL);
    err_clear(&err);
    CHECK(choose(NULL, both, &plan, &err) < 0 && err.code == ERR_USAGE);
}

/* A name that restore could not use as a file is refused before there is a
 * point that nobody can restore. */
static void
test_disk_names_are_checked(void)
{
    static const char *const bad[] = {"a/b", "..", ".", "a\nb", ""};
    struct plan plan = {0};

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct err err = ERR_INIT;

        three_disks();
        fake.disks[1].name = bad[i];
        CHECK(choose(NULL, NULL, &plan, &err) < 0);
    }
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_base_and_reason),
        TEST(test_disks_are_chosen_by_name),
        TEST(test_disk_names_are_checked),
    };

    return tap_run(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
