/* Ages are judged, and metrics written, as monitoring expects them. */
#include <string.h>

#include "buf.h"
#include "cleanup.h"
#include "err.h"
#include "jv.h"
#include "status.h"
#include "tap.h"
#include "tmpdir.h"

#define HOUR (INT64_C(3600) * 1000000000)
#define NOW (INT64_C(1800000000) * 1000000000)

static struct jv *
machine(int64_t age_ns, int64_t damaged)
{
    return jv_build("{s:I, s:I, s:I}", "time_ns", NOW - age_ns, "damaged",
                    damaged, "points", INT64_C(3));
}

static void
test_age_decides(void)
{
    static const struct {
        int64_t age, damaged;
        enum health want;
    } cases[] = {
        {0, 0, HEALTH_OK},
        {26 * HOUR, 0, HEALTH_OK},
        {26 * HOUR + 1, 0, HEALTH_WARNING},
        {52 * HOUR - 1, 0, HEALTH_WARNING},
        {52 * HOUR, 0, HEALTH_CRITICAL},
        {100 * 365 * 24 * HOUR, 0, HEALTH_CRITICAL},
        {HOUR, 1, HEALTH_WARNING},
        {-HOUR / 60, 0, HEALTH_OK}, /* clocks differ a little */
        {-HOUR, 0, HEALTH_WARNING},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_JV struct jv *m = machine(cases[i].age, cases[i].damaged);
        CLEANUP_JV struct jv *o = jv_object();
        int64_t age = -1;

        CHECK(status_judge(o, m, NOW, 26 * (uint64_t)HOUR) == cases[i].want);
        CHECK_STR(jv_get_str(o, "state"), health_name(cases[i].want));
        if (cases[i].age >= 0)
            CHECK(jv_get_int(o, "age_s", &age) &&
                  age == cases[i].age / 1000000000);
    }
}

static void
test_no_good_point_is_critical(void)
{
    CLEANUP_JV struct jv *o = jv_object();
    CLEANUP_JV struct jv *m =
        jv_build("{s:I, s:I}", "points", INT64_C(2), "damaged", INT64_C(2));

    CHECK(status_judge(o, NULL, NOW, 1) == HEALTH_CRITICAL);
    CHECK_STR(jv_get_str(o, "text"), "no point");
    CHECK(status_judge(o, m, NOW, 1) == HEALTH_CRITICAL);
    CHECK_STR(jv_get_str(o, "text"), "no good point: all are damaged");
}

static void
test_labels_are_escaped(void)
{
    static const char text[] =
        "{\"machines\":[{\"machine\":\"a\\\"b\\\\c\\nd}\","
        "\"repository\":\"\",\"state\":\"warning\",\"time_ns\":5000000000,"
        "\"disks\":[{\"disk\":\"x=\\\"1\\\",\",\"tracked\":true,"
        "\"persistent\":false}]}],\"repositories\":[{\"repository\":\"r\","
        "\"error\":\"gone\"}]}";
    CLEANUP_JV struct jv *v = NULL;
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    struct err err = ERR_INIT;
    const char *out;

    CHECK_OK(jv_parse(text, strlen(text), 8, &v, &err), &err);
    CHECK_OK(prometheus_text(v, NOW, &b, &err), &err);
    out = buf_str(&b);
    CHECK(strstr(out, "\ntidemark_machine_state{machine=\"a\\\"b\\\\c\\nd}\","
                      "repository=\"\"} 1\n") != NULL);
    CHECK(strstr(out, "_point_timestamp_seconds{machine=\"a\\\"b\\\\c\\nd}\","
                      "repository=\"\"} 5\n") != NULL);
    CHECK(strstr(out, ",disk=\"x=\\\"1\\\",\"} 1\n") != NULL);
    CHECK(strstr(out, "tidemark_repository_readable{repository=\"r\"} 0\n") !=
          NULL);
    CHECK(strstr(out, "tidemark_verified_timestamp_seconds{") == NULL);
    CHECK(strstr(out, "\ntidemark_status_timestamp_seconds 1800000000\n") !=
          NULL);
}

static void
test_file_is_replaced_or_left_alone(void)
{
    char dir[TMPDIR_MAX], file[2 * TMPDIR_MAX], text[8] = "";
    struct err err = ERR_INIT;
    struct stat st;
    FILE *f;

    tmpdir_make(dir);
    (void)snprintf(file, sizeof file, "%s/x.prom", dir);
    CHECK_OK(prometheus_write(file, "one\n", 4, &err), &err);
    CHECK_OK(prometheus_write(file, "2\n", 2, &err), &err);
    f = fopen(file, "re");
    CHECK(f != NULL && fread(text, 1, 7, f) == 2 && fclose(f) == 0);
    CHECK_STR(text, "2\n");
    CHECK(stat(file, &st) == 0 && (st.st_mode & 0777) == 0644);
    CHECK(tmpdir_count(dir, "x.prom") == 1);
    /* It cannot be renamed onto a directory. */
    (void)snprintf(file, sizeof file, "%s/d.prom", dir);
    CHECK(mkdir(file, 0700) == 0);
    CHECK(prometheus_write(file, "3\n", 2, &err) == -1);
    CHECK(strstr(err.msg, "d.prom") != NULL);
    CHECK(tmpdir_count(dir, "d.prom.") == 0);
    tmpdir_remove(dir);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_age_decides),
        TEST(test_no_good_point_is_critical),
        TEST(test_labels_are_escaped),
        TEST(test_file_is_replaced_or_left_alone),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
