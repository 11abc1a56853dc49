/* job/publish.c - the end of a restore: names, configuration, report. */
#include "restore.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common.h"
#include "image.h"
#include "io.h"
#include "job.h"
#include "jv.h"
#include "outfile.h"

static void
finish_images(struct restore *r)
{
    for (size_t i = 0; i < r->n; i++) {
        struct target *t = &r->targets[i];

        if (atomic_load(&t->failed))
            continue;
        if (image_finish(t->image, &t->err) == 0)
            continue;
        (void)err_side(&t->err, ERR_SIDE_TARGET);
        atomic_store(&t->failed, true);
    }
}

/* The first disk that failed, and how many more. */
static int
report_failures(struct restore *r, struct err *err)
{
    size_t n_failed = 0;

    for (size_t i = 0; i < r->n; i++)
        if (atomic_load(&r->targets[i].failed)) {
            n_failed++;
            (void)err_copy(err, &r->targets[i].err);
        }
    if (n_failed == 0)
        return 0;
    return err_wrap(err, "%zu of %zu disks could not be restored", n_failed,
                    r->n);
}

static int
write_config(struct restore *r, struct err *err)
{
    CLEANUP_JV struct jv *config = NULL;
    CLEANUP_FREE char *text = NULL;
    CLEANUP(outfile_done) struct outfile f = OUTFILE_INIT;

    if (point_config(r->repo, r->point, &config, err) < 0) {
        (void)err_side(err, ERR_SIDE_REPO);
        return err_wrap(err, "all disks are restored, but");
    }
    if (!jv_is_object(config)) {
        struct jv *o = jv_build("{s:o}", "config", config);

        config = o;
    }
    if (jv_set(config, "point", point_json(r->point, true)) < 0 ||
        (text = jv_pretty(config)) == NULL)
        return err_set_errno(err, ENOMEM, "'%s'", CONFIG_FILE);
    if (outfile_make(r->dir_fd, CONFIG_FILE, r->opts->overwrite, &f, err) < 0)
        return err_side(err, ERR_SIDE_TARGET);
    if (io_write_full(f.fd, text, strlen(text)) < 0 ||
        io_write_full(f.fd, "\n", 1) < 0)
        (void)err_set_errno(err, errno, "write '%s'", CONFIG_FILE);
    else if (outfile_publish(&f, err) == 0)
        return 0;
    return err_side(err, ERR_SIDE_TARGET);
}

static struct jv *
file_json(const struct restore *r, const struct target *t)
{
    uint64_t virtual_size = image_virtual_size(t->image);
    CLEANUP_FREE char *path = NULL;
    struct jv *o;

    if (asprintf(&path, "%s/%s", r->dir, t->file) < 0)
        return NULL;
    o = jv_build("{s:s, s:s, s:s, s:I, s:I, s:I}", "disk", t->disk->name,
                 "file", path, "format", r->opts->format, "size",
                 (int64_t)t->disk->size, "virtual_size", (int64_t)virtual_size,
                 "written_bytes", (int64_t)atomic_load(&t->written));
    if (virtual_size != t->disk->size)
        (void)jv_set_str(o, "note",
                         "the disk's size is no multiple of 512, which qcow2 "
                         "needs: the image was rounded up with zeroes");
    return o;
}

static int
make_result(struct restore *r, struct jv **ret, struct err *err)
{
    CLEANUP_FREE char *path = NULL;
    CLEANUP_JV struct jv *files = jv_array();
    CLEANUP_JV struct jv *o =
        jv_build("{s:s, s:s, s:s, s:s, s:I}", "event", "restored", "machine",
                 r->point->machine, "point", r->point->id, "to", r->dir, "seq",
                 (int64_t)r->point->seq);

    for (size_t i = 0; i < r->n; i++)
        if (jv_add(files, file_json(r, &r->targets[i])) < 0)
            return err_set_errno(err, ENOMEM, "report");
    if (asprintf(&path, "%s/%s", r->dir, CONFIG_FILE) < 0 ||
        jv_set_str(o, "config", path) < 0 ||
        jv_set(o, "disks", TAKE_PTR(files)) < 0)
        return err_set_errno(err, ENOMEM, "report");
    *ret = TAKE_PTR(o);
    return 0;
}

int
restore_publish(struct restore *r, struct jv **ret_result, struct err *err)
{
    finish_images(r);
    if (report_failures(r, err) < 0 || write_config(r, err) < 0)
        return -1;
    hooks_progress(r->hooks, "restore", r->total, r->total);
    return make_result(r, ret_result, err);
}
