/* A schema of anybody's making, and walks through it. */
#include <string.h>

#include "jv.h"
#include "qmp.h"

/* More variants than a walk keeps open. */
#define DEEP_4 "t=v/t=v/t=v/t=v/"
#define DEEP DEEP_4 DEEP_4 DEEP_4 DEEP_4 DEEP_4

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
ask(const struct qmp_schema *s, const char *command)
{
    static const char *const paths[] = {
        "",       "a",   "a/b",   DEEP "a", "[]",         "a/[]",
        "a/[]/b", "t=v", "t=v/a", "a/t=v",  "=",          "t=",
        "=v",     "/",   "//",    "a/",     "a/a/a/a/a/a"};

    (void)qmp_schema_command(s, command);
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        (void)qmp_schema_has(s, command, paths[i]);
        (void)qmp_schema_meta(s, command, paths[i]);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct qmp_schema *s = NULL;
    CLEANUP_JV struct jv *j = NULL;

    if (jv_parse(data, size, JV_DEPTH_MAX, &j, NULL) < 0 ||
        qmp_schema_parse(jv_ref(j), &s, NULL) < 0)
        return 0;
    for (size_t i = 0; i < jv_size(j); i++)
        ask(s, jv_get_str(jv_at(j, i), "name"));
    qmp_schema_free(s);
    return 0;
}
