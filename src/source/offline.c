/* source/offline.c - a machine that is off.
 *
 * Its images are opened in a storage daemon of our own, and from there on all
 * is as with a machine that runs but has no guest: the same bitmaps, the same
 * transaction, the same exports.  So a machine may go on, off and on again and
 * its persistent bitmaps tell what changed all the time.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block.h"
#include "cleanup.h"
#include "daemon.h"
#include "err.h"
#include "holder.h"
#include "jv.h"
#include "log.h"
#include "source_internal.h"

struct image {
    char *path; /* as stated */
    char *real; /* links resolved */
    char *format;
    char *name; /* of the disk */
    char node[NAME_MAX_LEN];
};

struct offline {
    struct image *v;
    size_t n;
    struct daemon *daemon;
    char *dir; /* for the socket when there is no run directory, or NULL */
    int *fds;  /* locks of images that are only read */
    size_t n_fds;
};

/* -- which images -----------------------------------------------------------*/

static int
resolve(const struct address_image *a, struct image *im, struct err *err)
{
    struct stat st;

    im->path = strdup(a->path);
    im->format = strdup(a->format);
    im->name = a->name != NULL ? strdup(a->name) : NULL;
    if (im->path == NULL || im->format == NULL ||
        (a->name != NULL && im->name == NULL))
        return err_set_errno(err, ENOMEM, "image '%s'", a->path);
    im->real = realpath(a->path, NULL);
    if (im->real == NULL || stat(im->real, &st) < 0)
        return err_set_errno(err, errno, "image '%s'", a->path);
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return err_set(err, ERR_USAGE,
                       "image '%s' is neither a file nor a block device",
                       a->path);
    /* Bitmaps are kept in the image.  A raw one is only read. */
    if (strcmp(a->format, "qcow2") == 0 && access(im->real, W_OK) < 0)
        return err_set_errno(err, errno,
                             "image '%s' keeps its bitmaps in itself and must "
                             "be writable; run as its owner",
                             a->path);
    return 0;
}

static bool
name_taken(const struct offline *o, const char *name)
{
    for (size_t i = 0; i < o->n; i++)
        if (o->v[i].name != NULL && strcmp(o->v[i].name, name) == 0)
            return true;
    return false;
}

/* What was not stated: as an earlier point called it, else by number. */
static int
name_images(struct source *s, struct err *err)
{
    struct offline *o = s->off;

    for (size_t i = 0; i < o->n; i++)
        for (size_t k = 0; o->v[i].name == NULL && k < s->opts.n_known; k++)
            if (strcmp(o->v[i].real, s->opts.known[k].file) == 0 &&
                !name_taken(o, s->opts.known[k].name) &&
                (o->v[i].name = strdup(s->opts.known[k].name)) == NULL)
                return err_set_errno(err, ENOMEM, "names of disks");
    for (size_t i = 0; i < o->n; i++)
        for (size_t no = i; o->v[i].name == NULL; no++) {
            CLEANUP_FREE char *name = NULL;

            if (asprintf(&name, "disk%zu", no) < 0)
                return err_set_errno(err, ENOMEM, "names of disks");
            if (!name_taken(o, name))
                o->v[i].name = TAKE_PTR(name);
        }
    return 0;
}

static int
resolve_all(struct source *s, const struct address *at, struct err *err)
{
    struct offline *o = s->off;

    o->v = calloc(at->n_images, sizeof *o->v);
    if (o->v == NULL)
        return err_set_errno(err, ENOMEM, "images");
    for (size_t i = 0; i < at->n_images; i++) {
        o->n++;
        if (resolve(&at->images[i], &o->v[i], err) < 0)
            return -1;
        (void)snprintf(o->v[i].node, NAME_MAX_LEN, "image%zu", i);
        for (size_t k = 0; k < i; k++)
            if (strcmp(o->v[i].real, o->v[k].real) == 0)
                return err_set(err, ERR_USAGE, "'%s' and '%s' are one image",
                               o->v[k].path, o->v[i].path);
    }
    return name_images(s, err);
}

bool
offline_has(const struct source *s, const char *path)
{
    CLEANUP_FREE char *real = realpath(path, NULL);

    for (size_t i = 0; real != NULL && i < s->off->n; i++)
        if (strcmp(s->off->v[i].real, real) == 0)
            return true;
    return false;
}

/* -- locks ------------------------------------------------------------------*/

static int
by_path(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* All images, in one order.  Without another name for the machine the first one
 * stands for it. */
static int
lock_images(struct source *s, struct err *err)
{
    struct offline *o = s->off;
    CLEANUP_FREE const char **paths = calloc(o->n, sizeof *paths);
    size_t i = 0;

    if (paths == NULL)
        return err_set_errno(err, ENOMEM, "locks of images");
    for (size_t k = 0; k < o->n; k++)
        paths[k] = o->v[k].real;
    qsort(paths, o->n, sizeof *paths, by_path);
    if (s->run == NULL &&
        rundir_open(s->opts.run_dir, paths[i++], &s->run, err) < 0)
        return -1;
    for (; i < o->n; i++)
        if (rundir_lock_image(s->run, paths[i], err) < 0)
            return -1;
    return 0;
}

int
offline_keep(struct source *s, int fd, struct err *err)
{
    struct offline *o = s->off;
    int *fds = realloc(o->fds, (o->n_fds + 1) * sizeof *fds);

    if (fds == NULL)
        return err_set_errno(err, ENOMEM, "locks of images");
    o->fds = fds;
    fds[o->n_fds++] = fd;
    return 0;
}

/* Before anything is opened: is any of them in use? */
static int
check_free(struct source *s, struct err *err)
{
    const char *base = s->run != NULL ? rundir_base(s->run) : NULL;

    for (size_t i = 0; i < s->off->n; i++) {
        CLEANUP_CLOSE int fd = -1;
        const struct image *im = &s->off->v[i];

        if (holder_check(im->real,
                         s->opts.look_only || strcmp(im->format, "qcow2") == 0,
                         base, &fd, err) < 0)
            return -1;
    }
    return 0;
}

/* A machine may be started just after the check: then QEMU's own lock says no,
 * and the check knows who. */
static int
open_images(struct source *s, struct err *err)
{
    struct err why = ERR_INIT;

    for (size_t i = 0; i < s->off->n; i++) {
        const struct image *im = &s->off->v[i];

        if (images_open(s, im->path, im->format, im->node, !s->opts.look_only,
                        &why) == 0)
            continue;
        if (why.code == ERR_REMOTE &&
            strstr(qmp_error_desc(s->qmp), "lock") != NULL &&
            check_free(s, err) < 0)
            return -1;
        return err_copy(err, &why);
    }
    return 0;
}

/* -- the storage daemon -----------------------------------------------------*/

static int
start(struct source *s, struct err *err)
{
    struct offline *o = s->off;
    const char *dir;

    if (s->run != NULL) {
        if (rundir_sockets(s->run, geteuid(), getegid(), &dir, err) < 0)
            return -1;
    } else {
        o->dir = strdup("/tmp/tidemark-XXXXXX");
        if (o->dir == NULL || mkdtemp(o->dir) == NULL) {
            free(TAKE_PTR(o->dir));
            return err_set_errno(err, errno, "directory for a socket");
        }
        dir = o->dir;
    }
    return daemon_start(dir, &o->daemon, &s->qmp, err);
}

int
offline_open(struct source *s, const struct address *at, struct err *err)
{
    s->off = calloc(1, sizeof *s->off);
    if (s->off == NULL)
        return err_set_errno(err, ENOMEM, "machine that is off");
    (void)snprintf(s->agent_note, sizeof s->agent_note, "the machine is off");
    if (resolve_all(s, at, err) < 0)
        return -1;
    if (!s->opts.look_only && lock_images(s, err) < 0)
        return -1;
    if (check_free(s, err) < 0 || start(s, err) < 0 || source_probe(s, err) < 0)
        return -1;
    if (!s->features.nodes_flat)
        return err_set(err, ERR_UNSUPPORTED, "storage daemon: %s", s->refusal);
    return open_images(s, err) < 0 ? -1 : source_look(s, err);
}

void
offline_close(struct source *s)
{
    struct offline *o = s->off;
    struct err why = ERR_INIT;

    if (o == NULL)
        return;
    if (o->daemon != NULL && daemon_end(o->daemon, s->qmp, &why) < 0)
        log_debug("%s", why.msg);
    if (o->dir != NULL)
        (void)rmdir(o->dir);
    while (o->n_fds > 0)
        (void)close(o->fds[--o->n_fds]);
    for (size_t i = 0; i < o->n; i++) {
        free(o->v[i].path);
        free(o->v[i].real);
        free(o->v[i].format);
        free(o->v[i].name);
    }
    free(o->fds);
    free(o->v);
    free(o->dir);
    free(o);
    s->off = NULL;
}

/* -- inventory --------------------------------------------------------------*/

/* For doctor the images are open to be read only, which is no fact about the
 * disks. */
static void
undo_look_only(const struct source *s, struct jv *nodes)
{
    for (size_t i = 0; s->opts.look_only && i < jv_size(nodes); i++) {
        const struct jv *n = jv_at(nodes, i);
        const char *name = jv_get_str(n, "node-name");

        for (size_t k = 0; name != NULL && k < s->off->n; k++)
            if (strcmp(s->off->v[k].node, name) == 0)
                (void)jv_set_bool((struct jv *)(uintptr_t)n, "ro", false);
    }
}

struct jv *
offline_blocks(const struct source *s, struct jv *nodes)
{
    CLEANUP_JV struct jv *blocks = jv_array();

    undo_look_only(s, nodes);
    for (size_t i = 0; i < s->off->n; i++)
        if (jv_add(blocks, jv_build("{s:s, s:{s:s, s:b}}", "device",
                                    s->off->v[i].name, "inserted", "node-name",
                                    s->off->v[i].node, "ro", 0)) < 0)
            return NULL;
    return TAKE_PTR(blocks);
}

int
offline_files(struct source *s, struct err *err)
{
    for (size_t i = 0; i < s->inv.n; i++) {
        struct disk *d = &s->inv.disks[i];

        free(d->file);
        d->file = strdup(s->off->v[i].path);
        if (d->file == NULL || jv_set_str(d->info, "file", d->file) < 0)
            return err_set_errno(err, ENOMEM, "disk '%s'", d->name);
    }
    return 0;
}

/* -- the end ----------------------------------------------------------------*/

/* Closing an image stores its bitmaps, and says nothing when it cannot. */
static int
check_stored(struct source *s, const struct capture_disk *d, struct err *err)
{
    const struct image *im = &s->off->v[d->disk];
    bool stored = false;

    if (qmp_node_end(s->qmp, im->node, END_TIMEOUT_MS, err) < 0 ||
        images_has_bitmap(s, im->path, d->fresh, &stored, err) < 0)
        return err_wrap(err, "disk '%s'", im->name);
    if (!stored)
        return err_set(err, ERR_REMOTE,
                       "disk '%s': its new bitmap could not be stored in '%s' "
                       "(is the file system full?); the next backup will read "
                       "the whole disk",
                       im->name, im->path);
    return 0;
}

int
source_finish(struct source *s, struct err *err)
{
    struct err first = ERR_INIT, e = ERR_INIT;
    bool settled = !s->cap.taken && !s->dirty && s->qmp != NULL;

    if (s->off == NULL || s->off->daemon == NULL)
        return 0;
    for (size_t i = 0; settled && i < s->cap.n; i++) {
        if (s->cap.v[i].persistent && s->cap.committed &&
            check_stored(s, &s->cap.v[i], &e) < 0 && first.code == ERR_NONE)
            (void)err_copy(&first, &e);
        err_clear(&e);
    }
    if (daemon_end(TAKE_PTR(s->off->daemon), s->qmp, &e) < 0)
        (void)err_copy(&first, &e);
    qmp_close(TAKE_PTR(s->qmp));
    return first.code != ERR_NONE ? err_copy(err, &first) : 0;
}
