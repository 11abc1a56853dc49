/* The status as metrics.  The format: one HELP and TYPE per name, then all its
 * samples; in label values \, " and newline are escaped. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"
#include "cli.h"
#include "err.h"
#include "io.h"
#include "jv.h"
#include "status.h"

#define NS_PER_S INT64_C(1000000000)

static int
put(struct buf *b, const char *text, struct err *err)
{
    return buf_append(b, text, strlen(text), err);
}

static int
put_label(struct buf *b, const char *name, const char *value, bool first,
          struct err *err)
{
    if (buf_printf(b, "%s%s=\"", err, first ? "" : ",", name) != 0)
        return -1;
    for (; *value != '\0'; value++) {
        const char *escaped = *value == '\\'   ? "\\\\"
                              : *value == '"'  ? "\\\""
                              : *value == '\n' ? "\\n"
                                               : NULL;

        if ((escaped != NULL ? put(b, escaped, err)
                             : buf_append(b, value, 1, err)) != 0)
            return -1;
    }
    return put(b, "\"", err);
}

static int
put_head(struct buf *b, const char *name, const char *help, struct err *err)
{
    return buf_printf(b, "# HELP %s %s\n# TYPE %s gauge\n", err, name, help,
                      name);
}

static int
put_sample(struct buf *b, const char *name, const struct jv *machine,
           const struct jv *disk, int64_t value, struct err *err)
{
    if (put(b, name, err) != 0 || put(b, "{", err) != 0 ||
        put_label(b, "machine", report_str(machine, "machine", ""), true,
                  err) != 0 ||
        put_label(b, "repository", report_str(machine, "repository", ""), false,
                  err) != 0)
        return -1;
    if (disk != NULL &&
        put_label(b, "disk", report_str(disk, "disk", ""), false, err) != 0)
        return -1;
    return buf_printf(b, "} %" PRId64 "\n", err, value);
}

/* -- values; false: this machine (disk) has none ------------------------------*/

static bool
value_state(const struct jv *m, int64_t *ret)
{
    const char *state = report_str(m, "state", "");

    *ret = strcmp(state, health_name(HEALTH_OK)) == 0        ? HEALTH_OK
           : strcmp(state, health_name(HEALTH_WARNING)) == 0 ? HEALTH_WARNING
                                                             : HEALTH_CRITICAL;
    return true;
}

static bool
value_seconds(const struct jv *m, const char *key, int64_t *ret)
{
    int64_t ns;

    if (!jv_get_int(m, key, &ns))
        return false;
    *ret = ns / NS_PER_S;
    return true;
}

static bool
value_point(const struct jv *m, int64_t *ret)
{
    return value_seconds(m, "time_ns", ret);
}

static bool
value_verified(const struct jv *m, int64_t *ret)
{
    return value_seconds(m, "verified_ns", ret);
}

static bool
value_points(const struct jv *m, int64_t *ret)
{
    return jv_get_int(m, "points", ret);
}

static bool
value_max_age(const struct jv *m, int64_t *ret)
{
    return jv_get_int(m, "max_age_s", ret);
}

static const struct {
    const char *name, *help;
    bool (*value)(const struct jv *machine, int64_t *ret);
} of_machines[] = {
    {"tidemark_machine_state",
     "0: ok, 1: the last good point is too old or needs a look, 2: critical.",
     value_state},
    {"tidemark_last_good_point_timestamp_seconds",
     "When the newest point that is not known to be damaged was taken.",
     value_point},
    {"tidemark_max_age_seconds",
     "How old the last good point may be before that is a warning.",
     value_max_age},
    {"tidemark_points", "Points of the machine in the repository.",
     value_points},
    {"tidemark_verified_timestamp_seconds",
     "When all that a point of the machine needs was last found good.",
     value_verified},
};

static const struct {
    const char *name, *help, *key;
} of_disks[] = {
    {"tidemark_disk_tracked",
     "1: changes are recorded since the last good point.", "tracked"},
    {"tidemark_disk_tracking_persistent",
     "1: the record of changes survives a shutdown of the machine.",
     "persistent"},
};

/* -- all --------------------------------------------------------------------*/

static int
put_machines(struct buf *b, size_t metric, const struct jv *machines,
             struct err *err)
{
    int64_t v;

    if (put_head(b, of_machines[metric].name, of_machines[metric].help, err) !=
        0)
        return -1;
    for (size_t i = 0; i < jv_size(machines); i++)
        if (of_machines[metric].value(jv_at(machines, i), &v) &&
            put_sample(b, of_machines[metric].name, jv_at(machines, i), NULL, v,
                       err) != 0)
            return -1;
    return 0;
}

static int
put_disks(struct buf *b, size_t metric, const struct jv *machines,
          struct err *err)
{
    if (put_head(b, of_disks[metric].name, of_disks[metric].help, err) != 0)
        return -1;
    for (size_t i = 0; i < jv_size(machines); i++) {
        const struct jv *m = jv_at(machines, i), *disks = jv_get(m, "disks");

        for (size_t k = 0; k < jv_size(disks); k++)
            if (put_sample(
                    b, of_disks[metric].name, m, jv_at(disks, k),
                    jv_get_bool(jv_at(disks, k), of_disks[metric].key, false),
                    err) != 0)
                return -1;
    }
    return 0;
}

static int
put_repositories(struct buf *b, const struct jv *repos, struct err *err)
{
    static const char name[] = "tidemark_repository_readable";

    if (put_head(b, name, "1: the repository could be read.", err) != 0)
        return -1;
    for (size_t i = 0; i < jv_size(repos); i++) {
        const struct jv *r = jv_at(repos, i);

        if (put(b, name, err) != 0 || put(b, "{", err) != 0 ||
            put_label(b, "repository", report_str(r, "repository", ""), true,
                      err) != 0 ||
            buf_printf(b, "} %d\n", err, *report_str(r, "error", "") == '\0') !=
                0)
            return -1;
    }
    return 0;
}

int
prometheus_text(const struct jv *status, int64_t now_ns, struct buf *b,
                struct err *err)
{
    static const char name[] = "tidemark_status_timestamp_seconds";
    const struct jv *machines = jv_get(status, "machines");

    for (size_t i = 0; i < ARRAY_SIZE(of_machines); i++)
        if (put_machines(b, i, machines, err) != 0)
            return -1;
    for (size_t i = 0; i < ARRAY_SIZE(of_disks); i++)
        if (put_disks(b, i, machines, err) != 0)
            return -1;
    if (put_repositories(b, jv_get(status, "repositories"), err) != 0 ||
        put_head(b, name, "When this file was written.", err) != 0)
        return -1;
    return buf_printf(b, "%s %" PRId64 "\n", err, name, now_ns / NS_PER_S);
}

int
prometheus_write(const char *file, const void *text, size_t len,
                 struct err *err)
{
    CLEANUP_FREE char *temp = NULL;
    CLEANUP_CLOSE int fd = -1;

    /* The collector takes only names that end with .prom; this one does not. */
    if (asprintf(&temp, "%s.XXXXXX", file) < 0) {
        temp = NULL;
        return err_set_errno(err, ENOMEM, "'%s'", file);
    }
    fd = mkostemp(temp, O_CLOEXEC);
    if (fd < 0) {
        (void)err_set_errno(err, errno, "make a file beside '%s'", file);
        return err_side(err, ERR_SIDE_TARGET);
    }
    if (io_write_full(fd, text, len) == 0 && fchmod(fd, 0644) == 0 &&
        fsync(fd) == 0 && rename(temp, file) == 0)
        return 0;
    (void)err_set_errno(err, errno, "write '%s'", file);
    (void)unlink(temp);
    return err_side(err, ERR_SIDE_TARGET);
}
