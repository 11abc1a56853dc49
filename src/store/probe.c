/* Some promises of a directory store rest on the file system: link() fails when
 * the name is taken, and the link count tells whose name it is after an answer
 * was lost.  And hosts that share a directory over NFS must not remember names
 * and attributes: by default they do so for up to a minute, and a collector that
 * does not see a session deletes what it needs.
 */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "cleanup.h"
#include "dir.h"
#include "err.h"
#include "fileops.h"
#include "rand.h"
#include "temps.h"

#define NFS_MAGIC 0x6969
#define MOUNTINFO_MAX (4u << 20)

/* -- hard links -------------------------------------------------------------*/

static int
unfit(const char *path, const char *what, struct err *err)
{
    return err_set(err, ERR_UNSUPPORTED,
                   "the file system of '%s' cannot hold a repository: %s; "
                   "use another one",
                   path, what);
}

static int
check_count(const char *path, const char *name, const struct file_ops *ops,
            unsigned want, struct err *err)
{
    struct stat st;

    if (ops->stat(name, &st) < 0)
        return err_set_errno(err, errno, "look at '%s'", name);
    if (st.st_nlink != want)
        return unfit(path, "it does not count the names of a file", err);
    return 0;
}

static int
check_links(const char *path, const char *a, const char *b,
            const struct file_ops *ops, struct err *err)
{
    if (check_count(path, a, ops, 1, err) < 0)
        return -1;
    if (ops->link(a, b) < 0) {
        if (errno == EPERM || errno == EOPNOTSUPP || errno == ENOSYS)
            return unfit(path, "it has no hard links", err);
        return err_set_errno(err, errno, "link '%s'", b);
    }
    if (check_count(path, a, ops, 2, err) < 0 ||
        check_count(path, b, ops, 2, err) < 0)
        return -1;
    if (ops->link(a, b) == 0)
        return unfit(path, "it gives a name that is taken away twice", err);
    if (errno != EEXIST)
        return err_set_errno(err, errno, "link '%s' again", b);
    if (ops->unlink(b) < 0)
        return err_set_errno(err, errno, "remove '%s'", b);
    return check_count(path, a, ops, 1, err);
}

/* As dir.c names them, so that a collector removes those that were left. */
static char *
temp_name(const char *path)
{
    uint8_t random[TMP_DIGITS / 2];
    char hex[2 * sizeof random + 1];
    char *name;

    rand_bytes(random, sizeof random);
    hex_encode(random, sizeof random, hex);
    return asprintf(&name, "%s/" DIR_TMP_PREFIX "%s", path, hex) < 0 ? NULL
                                                                     : name;
}

static int
probe_once(const char *path, const struct file_ops *ops, struct err *err)
{
    CLEANUP_FREE char *a = NULL;
    CLEANUP_FREE char *b = NULL;
    int fd, r;

    a = temp_name(path);
    b = temp_name(path);
    if (a == NULL || b == NULL)
        return err_set_errno(err, ENOMEM, "'%s'", path);
    fd = ops->open(a, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_set_errno(err, errno, "create '%s'", a);
    (void)ops->close(fd);
    r = check_links(path, a, b, ops, err);
    (void)ops->unlink(b);
    (void)ops->unlink(a);
    return r;
}

#define PROBES 3

/* A collector that tidies up may take the files of a probe that slept. */
static int
probe_links(const char *path, const struct file_ops *ops, struct err *err)
{
    struct err why = ERR_INIT;
    int r = -1;

    for (int i = 0; i < PROBES && r < 0; i++) {
        err_clear(&why);
        r = probe_once(path, ops, &why);
        if (why.sys != ENOENT)
            break;
    }
    return r < 0 ? err_copy(err, &why) : 0;
}

/* -- NFS --------------------------------------------------------------------*/

static bool
has_option(const char *options, const char *want)
{
    size_t len = strlen(want);

    for (const char *p = options; (p = strstr(p, want)) != NULL; p += len)
        if ((p == options || p[-1] == ',') && (p[len] == '\0' || p[len] == ','))
            return true;
    return false;
}

const char *
probe_nfs_options(const char *options)
{
    bool names = has_option(options, "lookupcache=none");
    bool attributes = has_option(options, "noac") ||
                      has_option(options, "actimeo=0") ||
                      (has_option(options, "acregmin=0") &&
                       has_option(options, "acregmax=0") &&
                       has_option(options, "acdirmin=0") &&
                       has_option(options, "acdirmax=0"));

    if (names)
        return attributes ? "" : "actimeo=0";
    return attributes ? "lookupcache=none" : "lookupcache=none,actimeo=0";
}

/* A line: id parent major:minor root mount-point options [tags...] - type source
 * super-options */
char *
probe_mount_options(const char *mountinfo, unsigned major_no, unsigned minor_no)
{
    for (const char *line = mountinfo; *line != '\0';) {
        size_t len = strcspn(line, "\n");
        CLEANUP_FREE char *copy = strndup(line, len);
        char *rest = copy != NULL ? strstr(copy, " - nfs") : NULL;
        unsigned ma, mi;

        line += len + (line[len] == '\n');
        if (rest == NULL || sscanf(copy, "%*d %*d %u:%u ", &ma, &mi) != 2 ||
            ma != major_no || mi != minor_no)
            continue;
        rest = strchr(rest + 3, ' '); /* behind the type */
        rest = rest != NULL ? strchr(rest + 1, ' ') : NULL;
        if (rest != NULL)
            return strdup(rest + 1);
    }
    return NULL;
}

static char *
read_mountinfo(void)
{
    FILE *f = fopen("/proc/self/mountinfo", "re");
    char *text = malloc(MOUNTINFO_MAX);
    size_t n = 0;

    if (f != NULL && text != NULL)
        n = fread(text, 1, MOUNTINFO_MAX - 1, f);
    if (f != NULL)
        (void)fclose(f);
    if (text != NULL)
        text[n] = '\0';
    return text;
}

static int
probe_nfs(const char *path, const struct file_ops *ops, struct err *err)
{
    CLEANUP_FREE char *mounts = NULL;
    CLEANUP_FREE char *options = NULL;
    const char *missing;
    struct statfs fs;
    struct stat st;

    if (statfs(path, &fs) < 0)
        return err_set_errno(err, errno, "look at the file system of '%s'",
                             path);
    if (fs.f_type != NFS_MAGIC)
        return 0;
    if (ops->stat(path, &st) < 0)
        return err_set_errno(err, errno, "look at '%s'", path);
    mounts = read_mountinfo();
    if (mounts != NULL)
        options =
            probe_mount_options(mounts, major(st.st_dev), minor(st.st_dev));
    missing = probe_nfs_options(options != NULL ? options : "");
    if (*missing == '\0')
        return 0;
    return err_set(err, ERR_UNSUPPORTED,
                   "'%s' is on NFS, where hosts remember names and attributes "
                   "of files for a while, and one would delete what another "
                   "has just begun to use; mount it with '%s' on every host",
                   path, missing);
}

int
probe_dir(const char *path, const struct file_ops *ops, struct err *err)
{
    if (probe_nfs(path, ops, err) < 0)
        return -1;
    return probe_links(path, ops, err);
}
