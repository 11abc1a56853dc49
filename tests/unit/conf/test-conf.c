/* Sections, keys and what holds them together. */
#include <string.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "conf.h"
#include "err.h"
#include "tap.h"
#include "tmpdir.h"

static int
check_any(const void *arg, const char *value, struct err *err)
{
    return 0;
}

static int
check_word(const void *arg, const char *value, struct err *err)
{
    if (strcmp(value, arg) != 0)
        return err_set(err, ERR_USAGE, "'%s' is not %s", value,
                       (const char *)arg);
    return 0;
}

#define IN_MACHINE (CONF_IN(CONF_MACHINE) | CONF_IN(CONF_DEFAULTS))

static const struct conf_key keys[] = {
    {"path", CONF_IN(CONF_REPOSITORY), false, check_any, NULL},
    {"source", CONF_IN(CONF_MACHINE), false, check_any, NULL},
    {"disks", CONF_IN(CONF_MACHINE), false, check_any, NULL},
    {"repository", IN_MACHINE, false, check_any, NULL},
    {"exclude", IN_MACHINE, true, check_any, NULL},
    {"name", CONF_IN(CONF_MACHINE), false, check_any, NULL},
    {"quiesce", IN_MACHINE, false, check_word, "auto"},
    {"parallel", CONF_IN(CONF_DEFAULTS), false, check_any, NULL},
    {NULL, 0, false, NULL, NULL},
};

#define REPO "[repository main]\npath = /r\n"
#define MACHINE "[machine web1]\nsource = qmp:/s\n"

static int
parse(const char *text, struct conf **ret, struct err *err)
{
    err_clear(err);
    return conf_parse("t.conf", text, strlen(text), keys, ret, err);
}

static void
test_machine_inherits_defaults(void)
{
    CLEANUP(conf_freep) struct conf *c = NULL;
    struct err err = ERR_INIT;
    const struct conf_section *a, *b;

    CHECK_OK(parse("[defaults]\nrepository = main\nexclude = x\nexclude = y\n"
                   "quiesce = auto\n" REPO MACHINE
                   "exclude = z\n[machine db1]\ndisks = file:/d\n",
                   &c, &err),
             &err);
    a = conf_find(c, CONF_MACHINE, "web1");
    b = conf_at(c, CONF_MACHINE, 1);
    CHECK_STR(conf_name(a), "web1");
    CHECK_STR(conf_name(b), "db1");
    CHECK(conf_at(c, CONF_MACHINE, 2) == NULL);
    /* A list of its own replaces the defaults' list, and is not added to it. */
    CHECK_STR(conf_nth(a, "exclude", 0), "z");
    CHECK(conf_nth(a, "exclude", 1) == NULL);
    CHECK_STR(conf_nth(b, "exclude", 1), "y");
    CHECK_STR(conf_get(a, "quiesce"), "auto");
    CHECK(conf_get(b, "source") == NULL);
    CHECK(conf_repository_of(a) == conf_find(c, CONF_REPOSITORY, "main"));
    CHECK_STR(conf_get(conf_repository_of(b), "path"), "/r");
    CHECK(conf_find(c, CONF_MACHINE, "main") == NULL);
}

static void
test_one_name_in_two_repositories(void)
{
    CLEANUP(conf_freep) struct conf *c = NULL;
    struct err err = ERR_INIT;

    CHECK_OK(parse(REPO "[repository r2]\npath = /s\n" MACHINE
                        "repository = main\n[machine copy]\nname = web1\n"
                        "source = qmp:/s\nrepository = r2\n",
                   &c, &err),
             &err);
}

static void
test_order_does_not_matter(void)
{
    CLEANUP(conf_freep) struct conf *c = NULL;
    struct err err = ERR_INIT;

    CHECK_OK(parse(MACHINE REPO "[defaults]\nrepository = main\n", &c, &err),
             &err);
    CHECK(conf_repository_of(conf_at(c, CONF_MACHINE, 0)) != NULL);
}

static void
test_every_mistake_has_its_words(void)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"path = /r\n", "t.conf:1: 'path' stands before the first [section]"},
        {"[machin web1]\n",
         "t.conf:1: unknown section [machin]; did you mean [machine]?"},
        {"[global]\n",
         "t.conf:1: unknown section [global]; there are [repository NAME], "
         "[machine NAME] and [defaults]"},
        {"[defaults x]\n", "t.conf:1: [defaults] takes no name"},
        {"[machine]\n", "t.conf:1: write [machine NAME]"},
        {"[machine a/b]\n", "t.conf:1: the name 'a/b' has a '/', '@' or ':', "
                            "or begins with '-'"},
        {"[machine a:b]\n", "t.conf:1: the name 'a:b' has a '/', '@' or ':', "
                            "or begins with '-'"},
        {"[machine -x]\n", "t.conf:1: the name '-x' has a '/', '@' or ':', or "
                           "begins with '-'"},
        {MACHINE MACHINE, "t.conf:3: there is a [machine web1] in line 1 "
                          "already"},
        {"[defaults]\n[defaults]\n",
         "t.conf:2: there is a [defaults] in line 1 already"},
        {MACHINE "exlude = a\n",
         "t.conf:3: unknown key 'exlude'; did you mean 'exclude'?"},
        {MACHINE "colour = a\n", "t.conf:3: unknown key 'colour' in [machine]; "
                                 "see tidemark.conf(5)"},
        {MACHINE "parallel = 2\n",
         "t.conf:3: 'parallel' has no meaning in a [machine] section"},
        {MACHINE "quiesce = maybe\n",
         "t.conf:3: 'quiesce': 'maybe' is not auto"},
        {MACHINE "quiesce =\n", "t.conf:3: 'quiesce' has no value"},
        {MACHINE "source = qmp:/t\n",
         "t.conf:3: 'source' stands in line 2 of this section already"},
        {"\n[repository r]\n",
         "t.conf:2: [repository r] needs 'path = /directory'"},
        {"[machine m]\nexclude = a\n",
         "t.conf:1: [machine m] needs 'source = qmp:/path.sock' or 'disks = "
         "file:/image.qcow2'"},
        {REPO MACHINE "repository = mian\n",
         "t.conf:5: no repository 'mian' in 't.conf'; did you mean 'main'?"},
        {REPO "[defaults]\nrepository = other\n",
         "t.conf:4: no repository 'other' in 't.conf'; there is: main"},
        {REPO "[repository r2]\npath = /r\n" MACHINE,
         "t.conf:5: [machine web1] needs 'repository = NAME': there is more "
         "than one"},
        {MACHINE "name = n\n[machine a]\nsource = qmp:/a\n[machine n]\n"
                 "source = qmp:/n\n",
         "t.conf:6: [machine n] has the name 'n' in the repository, as has "
         "[machine web1] in line 1"},
        {MACHINE "repository = r\n", "t.conf:3: no repository 'r': 't.conf' "
                                     "has no [repository NAME]"},
    };
    struct err err = ERR_INIT;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct conf *c = NULL;

        CHECK(parse(cases[i].text, &c, &err) == -1 && c == NULL);
        CHECK(err.code == ERR_USAGE);
        CHECK_STR(err.msg, cases[i].words);
    }
}

static void
test_unknown_names_list_what_there_is(void)
{
    CLEANUP(conf_freep) struct conf *c = NULL;
    struct err err = ERR_INIT;
    char text[8192] = "";

    CHECK_OK(parse(MACHINE "[machine database]\nsource = qmp:/d\n", &c, &err),
             &err);
    CHECK(conf_unknown(c, CONF_MACHINE, "zzzz", &err) == -1);
    CHECK_STR(err.msg, "no machine 'zzzz' in 't.conf'; there are: web1, "
                       "database");
    err_clear(&err);
    CHECK(conf_unknown(c, CONF_MACHINE, "databse", &err) == -1);
    CHECK_STR(err.msg,
              "no machine 'databse' in 't.conf'; did you mean 'database'?");
    conf_free(TAKE_PTR(c));
    for (unsigned i = 0; i < 100; i++)
        (void)snprintf(text + strlen(text), sizeof text - strlen(text),
                       "[machine longer-name-%02u]\nsource = qmp:/s\n", i);
    CHECK_OK(parse(text, &c, &err), &err);
    err_clear(&err);
    CHECK(conf_unknown(c, CONF_MACHINE, "x", &err) == -1);
    CHECK(strstr(err.msg, "longer-name-00, longer-name-01, ") != NULL);
    CHECK(strcmp(err.msg + strlen(err.msg) - 5, ", ...") == 0);
}

static void
test_limits(void)
{
    CLEANUP(conf_freep) struct conf *c = NULL;
    CLEANUP_FREE char *text = calloc(1, 1 << 19);
    struct err err = ERR_INIT;
    size_t n = 0;

    n = (size_t)sprintf(text, MACHINE);
    for (unsigned i = 0; i < CONF_VALUES_MAX - 1; i++)
        n += (size_t)sprintf(text + n, "exclude = %u\n", i);
    CHECK_OK(parse(text, &c, &err), &err);
    (void)sprintf(text + n, "exclude = x\n");
    conf_free(TAKE_PTR(c));
    CHECK(parse(text, &c, &err) == -1);
    CHECK_STR(err.msg, "t.conf:258: more than 256 keys in one section");
    n = (size_t)sprintf(text, "[machine ");
    memset(text + n, 'x', CONF_NAME_MAX + 1);
    (void)sprintf(text + n + CONF_NAME_MAX, "]\nsource = qmp:/s\n");
    CHECK_OK(parse(text, &c, &err), &err);
    conf_free(TAKE_PTR(c));
    (void)sprintf(text + n + CONF_NAME_MAX, "x]\nsource = qmp:/s\n");
    CHECK(parse(text, &c, &err) == -1);
    CHECK_STR(err.msg, "t.conf:1: the name is longer than 255 bytes");
}

/* It names commands that run as root. */
static void
test_file_that_others_may_write_is_refused(void)
{
    char dir[TMPDIR_MAX], file[2 * TMPDIR_MAX];
    struct conf *c = NULL;
    struct err err = ERR_INIT;
    FILE *f;

    tmpdir_make(dir);
    (void)snprintf(file, sizeof file, "%s/t.conf", dir);
    CHECK(conf_load(file, keys, &c, &err) == -1);
    CHECK(err.code == ERR_NOT_FOUND);
    f = fopen(file, "we");
    CHECK(f != NULL && fputs(MACHINE, f) >= 0 && fclose(f) == 0);
    CHECK(chmod(file, 0644) == 0);
    err_clear(&err);
    CHECK_OK(conf_load(file, keys, &c, &err), &err);
    CHECK_STR(conf_file(c), file);
    conf_free(TAKE_PTR(c));
    CHECK(chmod(file, 0664) == 0);
    CHECK(conf_load(file, keys, &c, &err) == -1 && err.code == ERR_USAGE);
    CHECK(strstr(err.msg, "can be written by others") != NULL);
    CHECK(strstr(err.msg, "chmod go-w") != NULL);
    CHECK(chmod(file, 0602) == 0);
    err_clear(&err);
    CHECK(conf_load(file, keys, &c, &err) == -1 && err.code == ERR_USAGE);
    if (geteuid() == 0 && chmod(file, 0600) == 0 &&
        chown(file, 65534, 65534) == 0) {
        err_clear(&err);
        CHECK(conf_load(file, keys, &c, &err) == -1);
        CHECK(strstr(err.msg, "belongs to another user (65534)") != NULL);
    }
    err_clear(&err);
    CHECK(conf_load(dir, keys, &c, &err) == -1);
    CHECK(strstr(err.msg, "is no regular file") != NULL);
    tmpdir_remove(dir);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_machine_inherits_defaults),
        TEST(test_one_name_in_two_repositories),
        TEST(test_order_does_not_matter),
        TEST(test_every_mistake_has_its_words),
        TEST(test_unknown_names_list_what_there_is),
        TEST(test_limits),
        TEST(test_file_that_others_may_write_is_refused),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
