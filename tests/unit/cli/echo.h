/* tests/unit/cli/echo.h - what of a command line reached the job. */
#pragma once

#include "cleanup.h"
#include "err.h"
#include "jv.h"
#include "run.h"
#include "tap.h"

/* The options as the job got them. */
static inline struct jv *
echo_of(const char *line, int *ret_status)
{
    char file[128], env[160], text[4096] = "";
    struct run r = RUN_INIT;
    struct jv *v = NULL;
    struct err err = ERR_INIT;
    FILE *f;

    (void)snprintf(file, sizeof file, "%s/echo", run_dir());
    (void)snprintf(env, sizeof env, "FAKE_ECHO=%s", file);
    (void)remove(file);
    run_line(&r, line, env);
    *ret_status = r.status;
    run_done(&r);
    f = fopen(file, "re");
    if (f == NULL)
        return NULL;
    (void)!fread(text, 1, sizeof text - 1, f);
    (void)fclose(f);
    CHECK_OK(jv_parse(text, strlen(text), 8, &v, &err), &err);
    return v;
}

static inline void
check_echo(const char *line, const char *want)
{
    CLEANUP_JV struct jv *got = NULL, *expected = NULL;
    CLEANUP_FREE char *text = NULL;
    struct err err = ERR_INIT;
    int status = -1;

    got = echo_of(line, &status);
    CHECK_OK(jv_parse(want, strlen(want), 8, &expected, &err), &err);
    CHECK(status == 0);
    CHECK(jv_equal(got, expected));
    text = got != NULL ? jv_text(got, true) : NULL;
    if (!jv_equal(got, expected))
        printf("# %s: %s\n", line, text);
}
