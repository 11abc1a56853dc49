#include "opts.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "err.h"
#include "size.h"

#define HELP_COLUMN 24

const struct opt opts_common[] = {
    OPT(json, 0, NULL, opt_set_flag, "one JSON object per line"),
    OPT(quiet, 'q', NULL, opt_set_flag,
        "no progress and no summary; warnings and errors still"),
    OPT_NAMED("passphrase-fd", passphrase_fd, "N", opt_set_fd,
              "read the passphrase from descriptor N"),
    OPT_NAMED("passphrase-command", passphrase_command, "CMD", opt_set_text,
              "run CMD, its first line is the passphrase\n"
              "(TIDEMARK_PASSPHRASE_COMMAND)"),
    OPT_NAMED("paper-key-fd", paper_key_fd, "N", opt_set_fd,
              "read the paper key from descriptor N"),
    OPT(debug, 0, NULL, opt_set_flag, "trace what is done to standard error"),
    OPT(help, 'h', NULL, opt_set_flag, "print this and stop"),
    OPT_END,
};

/* -- setters ----------------------------------------------------------------*/

int
opt_set_text(void *field, const char *value, struct err *err)
{
    if (*value == '\0')
        return err_set(err, ERR_USAGE, "needs a value that is not empty");
    *(const char **)field = value;
    return 0;
}

int
opt_set_flag(void *field, const char *value, struct err *err)
{
    *(bool *)field = true;
    return 0;
}

int
opt_set_list(void *field, const char *value, struct err *err)
{
    struct opt_list *l = field;

    if (*value == '\0')
        return err_set(err, ERR_USAGE, "needs a value that is not empty");
    if (l->n == OPTS_LIST_MAX)
        return err_set(err, ERR_USAGE, "is given more than %u times",
                       OPTS_LIST_MAX);
    l->v[l->n++] = value;
    l->v[l->n] = NULL;
    return 0;
}

int
opt_set_chunk_size(void *field, const char *value, struct err *err)
{
    uint64_t v;

    if (size_parse(value, &v) != 0 || v < (16u << 10) || v > (4u << 20) ||
        (v & (v - 1)) != 0)
        return err_set(err, ERR_USAGE,
                       "'%s' is no power of two from 16K to 4M; 64K suits "
                       "nearly everybody",
                       value);
    *(uint64_t *)field = v;
    return 0;
}

int
opt_set_quiesce(void *field, const char *value, struct err *err)
{
    static const char *const names[] = {[QUIESCE_AUTO] = "auto",
                                        [QUIESCE_REQUIRE] = "require",
                                        [QUIESCE_OFF] = "off"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (strcmp(value, names[i]) == 0) {
            *(enum quiesce *)field = (enum quiesce)i;
            return 0;
        }
    return err_set(err, ERR_USAGE, "'%s' is none of auto, require, off", value);
}

static int
parse_number(const char *text, unsigned long least, unsigned long most,
             unsigned long *ret, struct err *err)
{
    unsigned long v = 0;
    char *end;

    errno = 0;
    v = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || v < least ||
        v > most)
        return err_set(err, ERR_USAGE, "'%s' is no number from %lu to %lu",
                       text, least, most);
    *ret = v;
    return 0;
}

int
opt_set_compress(void *field, const char *value, struct err *err)
{
    unsigned long v = 0;

    if (parse_number(value, 0, 19, &v, err) != 0)
        return -1;
    *(int *)field = (int)v;
    return 0;
}

int
opt_set_threads(void *field, const char *value, struct err *err)
{
    unsigned long v = 0;

    if (parse_number(value, 1, OPTS_THREADS_MAX, &v, err) != 0)
        return -1;
    *(unsigned *)field = (unsigned)v;
    return 0;
}

/* "5%", "0.5%": in hundredths of a percent. */
int
opt_set_share(void *field, const char *value, struct err *err)
{
    char *end;
    double v;

    errno = 0;
    v = *value >= '0' && *value <= '9' ? strtod(value, &end) : 0;
    if (!(v >= 0.01 && v <= 100) || errno != 0 || strcmp(end, "%") != 0)
        return err_set(err, ERR_USAGE,
                       "'%s' is no share from 0.01%% to 100%%, like 5%%",
                       value);
    *(unsigned *)field = (unsigned)(v * 100 + 0.5);
    return 0;
}

int
opt_set_audit(void *field, const char *value, struct err *err)
{
    if (strcmp(value, "off") == 0)
        *(unsigned *)field = 0;
    else if (strcmp(value, "all") == 0)
        *(unsigned *)field = 10000;
    else if (opt_set_share(field, value, NULL) < 0)
        return err_set(err, ERR_USAGE,
                       "'%s' is not off, all or a share from 0.01%% to 100%%, "
                       "like 5%%",
                       value);
    return 0;
}

int
opt_set_rate(void *field, const char *value, struct err *err)
{
    uint64_t v;

    if (size_parse(value, &v) != 0 || v < 1024)
        return err_set(err, ERR_USAGE,
                       "'%s' is no number of bytes per second from 1K on",
                       value);
    *(uint64_t *)field = v;
    return 0;
}

int
opt_set_keep(void *field, const char *value, struct err *err)
{
    unsigned long v = 0;

    if (strcmp(value, "all") == 0)
        v = RETENTION_ALL;
    else if (parse_number(value, 1, 1000000, &v, err) != 0)
        return -1;
    *(unsigned *)field = (unsigned)v;
    return 0;
}

int
opt_set_percent(void *field, const char *value, struct err *err)
{
    unsigned long v = 0;

    if (parse_number(value, 1, 100, &v, err) != 0)
        return -1;
    *(unsigned *)field = (unsigned)v;
    return 0;
}

int
opt_set_duration(void *field, const char *value, struct err *err)
{
    static const struct {
        const char *unit;
        uint64_t seconds;
    } units[] = {{"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}};
    char *end;
    unsigned long v = 0;

    errno = 0;
    if (*value >= '0' && *value <= '9')
        v = strtoul(value, &end, 10);
    for (size_t i = 0; v > 0 && errno == 0 && i < ARRAY_SIZE(units); i++)
        if (strcmp(end, units[i].unit) == 0 && v <= 1000000) {
            *(uint64_t *)field = v * units[i].seconds * 1000000000;
            return 0;
        }
    return err_set(err, ERR_USAGE,
                   "'%s' is no length of time such as 90s, 15m, 2h or 1d",
                   value);
}

int
opt_set_fd(void *field, const char *value, struct err *err)
{
    unsigned long v = 0;
    int flags;

    if (parse_number(value, 0, INT_MAX, &v, err) != 0)
        return -1;
    flags = fcntl((int)v, F_GETFD);
    if (flags < 0)
        return err_set(err, ERR_USAGE, "descriptor %lu is not open", v);
    if (v > STDERR_FILENO)
        (void)fcntl((int)v, F_SETFD, flags | FD_CLOEXEC);
    *(int *)field = (int)v;
    return 0;
}

int
opt_set_kdf_memory(void *field, const char *value, struct err *err)
{
    uint64_t v;

    if (size_parse(value, &v) != 0 || v < (64u << 20) || v > (1u << 30) ||
        v % 1024 != 0)
        return err_set(err, ERR_USAGE, "'%s' is no size from 64M to 1G", value);
    *(uint64_t *)field = v;
    return 0;
}

int
opt_set_format(void *field, const char *value, struct err *err)
{
    if (strcmp(value, "qcow2") != 0 && strcmp(value, "raw") != 0)
        return err_set(err, ERR_USAGE, "'%s' is none of qcow2, raw", value);
    *(const char **)field = value;
    return 0;
}

/* -- parsing ----------------------------------------------------------------*/

/* What getopt_long() wants, and the way back from its answers to the rows. */
struct tables {
    const struct opt *row[OPTS_ROWS_MAX];
    struct option longs[OPTS_ROWS_MAX + 1];
    char shorts[2 * OPTS_ROWS_MAX + 3];
    size_t n;
};

/* Values above every letter, so that a row is found by number. */
#define ROW_BASE 1000

static void
add_rows(struct tables *t, const struct opt *rows)
{
    for (; rows->name != NULL && t->n < OPTS_ROWS_MAX; rows++) {
        size_t len = strlen(t->shorts);

        if (rows->letter != 0) {
            t->shorts[len++] = (char)rows->letter;
            if (rows->arg != NULL)
                t->shorts[len++] = ':';
            t->shorts[len] = '\0';
        }
        t->longs[t->n] = (struct option){
            .name = rows->name,
            .has_arg = rows->arg ? required_argument : no_argument,
            .val = ROW_BASE + (int)t->n};
        t->row[t->n++] = rows;
    }
}

static const struct opt *
find_row(const struct tables *t, int answer)
{
    if (answer >= ROW_BASE)
        return t->row[answer - ROW_BASE];
    for (size_t i = 0; i < t->n; i++)
        if (t->row[i]->letter == answer)
            return t->row[i];
    return NULL;
}

/* getopt_long() said '?' or ':'; find words for it. */
static int
explain(const struct tables *t, int answer, char **argv, struct err *err)
{
    const char *word = argv[optind - 1];
    const struct opt *row = optopt != 0 ? find_row(t, optopt) : NULL;

    if (answer == ':')
        return err_set(err, ERR_USAGE, "option '%s' needs a value: %s", word,
                       row != NULL ? row->arg : "");
    if (row != NULL)
        return err_set(err, ERR_USAGE, "option '--%s' takes no value",
                       row->name);
    if (optopt != 0)
        return err_set(err, ERR_USAGE, "unknown option '-%c'; see --help",
                       optopt);
    return err_set(err, ERR_USAGE,
                   "unknown or ambiguous option '%s'; see --help", word);
}

static int
take(const struct opt *row, struct opts *o, struct err *err)
{
    if (row->set((char *)o + row->offset, optarg, err) != 0)
        return err_wrap(err, "option '--%s'", row->name);
    return 0;
}

int
opts_parse(const struct opt *rows, int argc, char **argv, struct opts *ret,
           struct err *err)
{
    struct tables t = {.shorts = ":"};
    int answer;

    add_rows(&t, rows);
    add_rows(&t, opts_common);
    opterr = 0;
    optind = 0; /* makes glibc start over; 1 would keep its inner state */
    while ((answer = getopt_long(argc, argv, t.shorts, t.longs, NULL)) != -1) {
        const struct opt *row =
            answer == '?' || answer == ':' ? NULL : find_row(&t, answer);

        if (row == NULL)
            return explain(&t, answer, argv, err);
        if (take(row, ret, err) != 0)
            return -1;
    }
    for (; optind < argc; optind++) {
        if (ret->operands.n == OPTS_LIST_MAX)
            return err_set(err, ERR_USAGE, "more than %u arguments",
                           OPTS_LIST_MAX);
        ret->operands.v[ret->operands.n++] = argv[optind];
        ret->operands.v[ret->operands.n] = NULL;
    }
    ret->operand = ret->operands.v[0];
    return 0;
}

/* -- help -------------------------------------------------------------------*/

static void
print_row(const struct opt *row, FILE *to)
{
    char left[64];
    const char *p = row->help, *end;
    int n;

    if (row->letter != 0)
        (void)snprintf(left, sizeof left, "  -%c, --%s", row->letter,
                       row->name);
    else
        (void)snprintf(left, sizeof left, "  --%s%s%s", row->name,
                       row->arg ? " " : "", row->arg ? row->arg : "");
    n = (int)strlen(left);
    if (n + 2 > HELP_COLUMN) {
        (void)fprintf(to, "%s\n", left);
        left[0] = '\0';
    }
    for (;; p = end + 1, left[0] = '\0') {
        end = strchrnul(p, '\n');
        (void)fprintf(to, "%-*s%.*s\n", HELP_COLUMN, left, (int)(end - p), p);
        if (*end == '\0')
            return;
    }
}

void
opts_print(const struct opt *rows, FILE *to)
{
    for (; rows->name != NULL; rows++)
        print_row(rows, to);
}
