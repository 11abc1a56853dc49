/* The manual page and the shell completion know every command and option. */
#include <unistd.h>

#include "cleanup.h"
#include "cli.h"
#include "config.h"
#include "tap.h"

static char *
slurp(const char *path)
{
    const char *src = getenv("SRC");
    char *text = calloc(1, 1 << 20), name[512];
    FILE *f;

    (void)snprintf(name, sizeof name, "%s/%s", src != NULL ? src : ".", path);
    f = fopen(name, "re");
    CHECK(f != NULL && text != NULL);
    if (f != NULL && text != NULL)
        (void)!fread(text, 1, (1 << 20) - 1, f);
    if (f != NULL)
        (void)fclose(f);
    return text;
}

static void
expect(const char *text, const char *what, const char *in)
{
    if (strstr(text, what) == NULL) {
        printf("# '%s' is not in %s\n", what, in);
        CHECK(!"documented");
    }
}

/* The part of the manual page that belongs to a command, owned. */
static char *
section(const char *pod, const char *command)
{
    char head[64];
    const char *start, *end;

    (void)snprintf(head, sizeof head, "\n=head2 tidemark %s", command);
    start = strstr(pod, head);
    if (start == NULL)
        return strdup("");
    end = strstr(start + 1, "\n=head");
    return strndup(start, end != NULL ? (size_t)(end - start) : SIZE_MAX / 2);
}

static void
check_options(const struct opt *rows, const char *text, const char *bash)
{
    char name[64];

    for (; rows->name != NULL; rows++) {
        (void)snprintf(name, sizeof name, "B<--%s>", rows->name);
        expect(text, name, "the manual page");
        (void)snprintf(name, sizeof name, "--%s", rows->name);
        expect(bash, name, "the completion");
    }
}

static void
test_every_option_is_documented(void)
{
    CLEANUP_FREE char *pod = slurp("docs/man/tidemark.pod");
    CLEANUP_FREE char *bash = slurp("contrib/tidemark.bash");
    size_t n;
    const struct command *const *commands = cli_commands(&n);

    for (size_t i = 0; i < n; i++) {
        CLEANUP_FREE char *part = section(pod, commands[i]->name);

        if (*part == '\0')
            printf("# %s has no section\n", commands[i]->name);
        CHECK(*part != '\0');
        expect(bash, commands[i]->name, "the completion");
        check_options(commands[i]->opts, part, bash);
    }
    check_options(opts_common, pod, bash);
}

static void
test_every_exit_status_is_documented(void)
{
    static const int statuses[] = {
        EXIT_DONE,        EXIT_WARNING,    EXIT_USAGE, EXIT_MACHINE,
        EXIT_REPO,        EXIT_FAILED,     EXIT_BUSY,  EXIT_KEY,
        EXIT_SOME_FAILED, EXIT_INTERRUPTED};
    CLEANUP_FREE char *pod = slurp("docs/man/tidemark.pod");
    const char *part = strstr(pod, "=head1 EXIT STATUS");

    CHECK(part != NULL);
    for (size_t i = 0; part != NULL && i < ARRAY_SIZE(statuses); i++) {
        char item[32];

        (void)snprintf(item, sizeof item, "=item B<%d>", statuses[i]);
        expect(part, item, "EXIT STATUS");
    }
}

/* A key in the file that nobody can read about is a key that nobody has. */
static void
test_every_key_is_documented(void)
{
    CLEANUP_FREE char *pod = slurp("docs/man/tidemark.conf.pod");

    for (const struct conf_key *k = config_keys(); k->name != NULL; k++) {
        char name[64];

        (void)snprintf(name, sizeof name, "B<%s>", k->name);
        expect(pod, name, "tidemark.conf(5)");
    }
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_every_option_is_documented),
        TEST(test_every_exit_status_is_documented),
        TEST(test_every_key_is_documented),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
