/* prune, gc, diff and stats from outside: options, tables, exit statuses. */
#include "echo.h"

static void
test_prune_options(void)
{
    check_echo("prune --repo /r --keep-last 3",
               "{\"last\":3,\"hourly\":0,\"daily\":0,\"weekly\":0,"
               "\"monthly\":0,\"yearly\":0,\"within\":null,\"tags\":null,"
               "\"ignore_clock\":false,\"remove_last\":false,"
               "\"remove\":false,\"dry_run\":false,\"names\":null,"
               "\"repo\":\"/r\"}");
    check_echo("prune a b --repo /r --keep-hourly 1 --keep-daily 2 "
               "--keep-weekly 3 --keep-monthly 4 --keep-yearly all "
               "--keep-within 1y2d --keep-tag x --keep-tag y --ignore-clock "
               "--remove-last --remove --dry-run",
               "{\"last\":0,\"hourly\":1,\"daily\":2,\"weekly\":3,"
               "\"monthly\":4,\"yearly\":4294967295,\"within\":\"1y2d\","
               "\"tags\":[\"x\",\"y\"],\"ignore_clock\":true,"
               "\"remove_last\":true,\"remove\":true,\"dry_run\":true,"
               "\"names\":[\"a\",\"b\"],\"repo\":\"/r\"}");
}

static void
test_gc_and_diff_options(void)
{
    check_echo("gc --repo /r", "{\"repo\":\"/r\",\"dry_run\":false,"
                               "\"rewrite\":0,\"fence_after\":0}");
    check_echo("gc --repo /r --dry-run --rewrite 25 --fence-after 90s",
               "{\"repo\":\"/r\",\"dry_run\":true,\"rewrite\":25,"
               "\"fence_after\":90000000000}");
    check_echo("diff a@1 a@2 --repo /r --disk d",
               "{\"repo\":\"/r\",\"from\":\"a@1\",\"to\":\"a@2\","
               "\"disks\":[\"d\"]}");
}

/* What became of the collection does not hide what was pruned. */
static void
test_prune_then_gc(void)
{
    static const struct {
        const char *env, *out, *err;
        int status;
    } cases[] = {
        {"X=", "space         2.0 MiB of 3.0 MiB removed", "", 0},
        {"FAKE_GC_BUSY=1", "2 removed", "another collector works", 1},
        {"FAKE_GC_ERROR=1", "2 removed",
         "the points are pruned, but gc: collection failed", 4},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct run r = RUN_INIT;

        run_line(&r, "prune --repo /r --keep-last 1 --gc", cases[i].env);
        CHECK(r.status == cases[i].status);
        CHECK(strstr(r.out, "web1: 1 point stays, 2 removed") != NULL);
        CHECK(strstr(r.out, cases[i].out) != NULL);
        CHECK(strstr(r.err, cases[i].err) != NULL);
        run_done(&r);
    }
}

static void
test_tables_of_the_repository(void)
{
    struct run r = RUN_INIT;

    run_line(&r, "prune --repo /r --keep-last 1", NULL);
    CHECK_STR(r.out,
              "POINT        TAKEN                 TAGS  ACTION  WHY\n"
              "web1@1f3a9c  2026-11-20T18:00:00Z  a b   remove  -\n"
              "web1@1f3a9c  2026-11-20T18:00:00Z  a b   remove  damaged\n"
              "web1@1f3a9c  2026-11-20T18:00:00Z  a b   keep    last, daily "
              "2026-11-20\n"
              "web1: 1 point stays, 2 removed\n"
              "the space is freed by: tidemark gc\n");
    run_done(&r);
    run_line(&r, "gc --repo /r", NULL);
    CHECK_STR(r.out,
              "points        2 removed, 1 stay\n"
              "packs         4 of 10 removed, 1 of them rewritten\n"
              "space         2.0 MiB of 3.0 MiB removed, 1.0 KiB copied\n"
              "index         2 segments, 5 before\n"
              "leftovers     3 packs and segments of dead runs\n"
              "fenced        1 run without a heartbeat\n"
              "resumed       an unfinished collection was brought to its end\n"
              "nothing was changed (--dry-run)\n");
    run_done(&r);
    run_line(&r, "gc --repo /r", "FAKE_GC_BUSY=1");
    CHECK(r.status == 6);
    CHECK_STR(r.out, "");
    run_done(&r);
    run_line(&r, "diff a@1 a@2 --repo /r",
             "FAKE_EVENTS=[{\"event\":\"extent\",\"disk\":\"vda\","
             "\"offset\":65536,\"length\":4096,\"zero\":true}]");
    CHECK_STR(r.out, "DISK                   OFFSET          BYTES\n"
                     "vda                     65536           4096  zeroes\n\n"
                     "DISK     SIZE   BEFORE  EXTENTS    CHANGED    ZEROED\n"
                     "vda   2.0 MiB  1.0 MiB        2  128.0 KiB  64.0 KiB\n"
                     "only in the second point: vdb\n");
    run_done(&r);
    run_line(&r, "stats --repo /r", NULL);
    CHECK_STR(
        r.out,
        "POINT        TAKEN                     SIZE     DATA     UNIQUE     "
        "STORED     MAPS  DEDUP  COMPR    FREES\n"
        "web1@1f3a9c  2026-11-20T18:00:00Z  20.0 GiB  1.0 GiB  512.0 MiB  "
        "256.0 MiB  1.0 MiB    2.0    2.0  4.0 KiB\n\n"
        "MACHINE  POINTS      SIZE     DATA     UNIQUE     STORED     MAPS  "
        "DEDUP  COMPR    FREES\n"
        "web1          1  20.0 GiB  1.0 GiB  512.0 MiB  256.0 MiB  1.0 MiB    "
        "2.0    2.0  4.0 KiB\n"
        "(all)         1  20.0 GiB  1.0 GiB  512.0 MiB  256.0 MiB  1.0 MiB    "
        "2.0    2.0  4.0 KiB\n"
        "packs take 3.0 MiB, of which no point needs 1.0 MiB\n");
    run_done(&r);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_prune_options),
        TEST(test_gc_and_diff_options),
        TEST(test_prune_then_gc),
        TEST(test_tables_of_the_repository),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
