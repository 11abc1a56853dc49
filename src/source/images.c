/* source/images.c - the images of a machine that is off, opened in our storage
 * daemon.
 *
 * Nothing is ever probed.  The format of an image is stated by its owner; that
 * of a backing file by the header of the qcow2 image above it, which no guest
 * can write.  Each node is opened with its backing file given explicitly, so
 * that what QEMU opens is what was looked at.
 *
 * A raw image is opened to be read only (it can keep no bitmap), and so are
 * backing files; the lock bytes that keep others from writing to them are ours.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block.h"
#include "cleanup.h"
#include "err.h"
#include "holder.h"
#include "jv.h"
#include "source_internal.h"

#define CHAIN_MAX 64 /* images; a longer chain is a loop */
#define LOOK_NODE "look"

/* The protocol layer; an object without a node name of its own. */
static struct jv *
file_options(const char *path)
{
    struct stat st;
    bool block = stat(path, &st) == 0 && S_ISBLK(st.st_mode);

    return jv_build("{s:s, s:s}", "driver", block ? "host_device" : "file",
                    "filename", path);
}

/* backing: name of a node, or NULL for none. */
static int
add_node(struct source *s, const char *path, const char *format,
         const char *node, bool write, const char *backing, struct err *err)
{
    struct jv *args =
        jv_build("{s:s, s:s, s:b, s:o}", "driver", format, "node-name", node,
                 "read-only", (int)!write, "file", file_options(path));
    int r = 0;

    /* A look must not keep a machine from starting. */
    if (s->opts.look_only)
        r = jv_set_bool(args, "force-share", true);
    if (strcmp(format, "qcow2") == 0)
        r |= jv_set(args, "backing",
                    backing != NULL ? jv_string(backing) : jv_null());
    if (args == NULL || r < 0) {
        jv_free(args);
        return err_set_errno(err, ENOMEM, "image '%s'", path);
    }
    if (source_qmp(s, "blockdev-add", args, err) < 0)
        return err_wrap(err, "open image '%s' as %s", path, format);
    return 0;
}

/* What the header of a qcow2 image says: opened alone, asked, closed. */
static int
look(struct source *s, const char *path, struct jv **ret, struct err *err)
{
    CLEANUP_JV struct jv *nodes = NULL;
    const struct jv *node;

    if (add_node(s, path, "qcow2", LOOK_NODE, false, NULL, err) < 0 ||
        qmp_block_nodes(s->qmp, &nodes, err) < 0 ||
        qmp_node_end(s->qmp, LOOK_NODE, END_TIMEOUT_MS, err) < 0)
        return -1;
    node = qmp_block_find(nodes, LOOK_NODE);
    if (node == NULL)
        return err_set(err, ERR_PROTOCOL,
                       "image '%s': the storage daemon does not tell about it",
                       path);
    *ret = jv_ref(node);
    return 0;
}

static int
check_backing(const struct source *s, const char *path, const char *file,
              const char *format, struct err *err)
{
    if (format == NULL)
        return err_set(err, ERR_UNSUPPORTED,
                       "image '%s' does not state the format of its backing "
                       "file '%s', and guessing it would trust what a guest "
                       "wrote; state it: qemu-img rebase -u -f qcow2 -F FORMAT "
                       "-b '%s' '%s'",
                       path, file, file, path);
    if (strcmp(format, "raw") != 0 && strcmp(format, "qcow2") != 0)
        return err_set(err, ERR_UNSUPPORTED,
                       "image '%s': backing file '%s' has the format '%s'; "
                       "only raw and qcow2 can be read while the machine is "
                       "off",
                       path, file, format);
    if (file[0] != '/')
        return err_set(err, ERR_UNSUPPORTED,
                       "image '%s': backing file '%s' is no local file; back "
                       "the machine up while it runs",
                       path, file);
    if (offline_has(s, file))
        return err_set(err, ERR_USAGE,
                       "image '%s' is the backing file of '%s', which is "
                       "another disk of the machine",
                       file, path);
    return 0;
}

struct layers {
    struct {
        char *path, *format;
    } v[CHAIN_MAX];
    size_t n;
};

static void
layers_done(struct layers *l)
{
    for (size_t i = 0; i < l->n; i++) {
        free(l->v[i].path);
        free(l->v[i].format);
    }
}

static int
add_layer(struct layers *l, const char *path, const char *format,
          struct err *err)
{
    if (l->n == CHAIN_MAX)
        return err_set(err, ERR_UNSUPPORTED,
                       "image '%s' has more than %d backing files",
                       l->v[0].path, CHAIN_MAX - 1);
    l->v[l->n].path = strdup(path);
    l->v[l->n].format = strdup(format);
    l->n++;
    return l->v[l->n - 1].path != NULL && l->v[l->n - 1].format != NULL
               ? 0
               : err_set_errno(err, ENOMEM, "image '%s'", path);
}

/* The first one is there; adds what lies below it. */
static int
find_layers(struct source *s, struct layers *l, struct err *err)
{
    while (strcmp(l->v[l->n - 1].format, "qcow2") == 0) {
        CLEANUP_JV struct jv *node = NULL;
        const char *path = l->v[l->n - 1].path, *file, *format;

        if (look(s, path, &node, err) < 0)
            return -1;
        file = jv_get_str(node, "image.full-backing-filename");
        if (file == NULL)
            file = jv_get_str(node, "image.backing-filename");
        format = jv_get_str(node, "image.backing-filename-format");
        if (file == NULL)
            break;
        if (check_backing(s, path, file, format, err) < 0 ||
            add_layer(l, file, format, err) < 0)
            return -1;
    }
    return 0;
}

/* Nobody may write to what is read here without a lock of its own. */
static int
hold(struct source *s, const char *path, struct err *err)
{
    CLEANUP_CLOSE int fd = -1;
    const char *base = s->run != NULL ? rundir_base(s->run) : NULL;

    if (s->opts.look_only)
        return 0;
    if (holder_check(path, false, base, &fd, err) < 0 ||
        offline_keep(s, fd, err) < 0)
        return -1;
    (void)TAKE_FD(fd);
    return 0;
}

int
images_open(struct source *s, const char *path, const char *format,
            const char *node, bool write, struct err *err)
{
    CLEANUP(layers_done) struct layers l = {0};
    char below[64] = "", name[64];

    if (add_layer(&l, path, format, err) < 0 || find_layers(s, &l, err) < 0)
        return -1;
    for (size_t i = l.n; i > 0; i--) {
        bool top = i == 1, rw = top && write && strcmp(format, "qcow2") == 0;

        (void)snprintf(name, sizeof name, "%s", node);
        if (!top)
            (void)snprintf(name, sizeof name, "%s.%zu", node, i - 1);
        if (!rw && hold(s, l.v[i - 1].path, err) < 0)
            return -1;
        if (add_node(s, l.v[i - 1].path, l.v[i - 1].format, name, rw,
                     below[0] != '\0' ? below : NULL, err) < 0)
            return -1;
        memcpy(below, name, sizeof below);
    }
    return 0;
}

int
images_has_bitmap(struct source *s, const char *path, const char *bitmap,
                  bool *ret, struct err *err)
{
    CLEANUP_JV struct jv *node = NULL;
    const struct jv *b;

    if (look(s, path, &node, err) < 0)
        return -1;
    b = qmp_block_bitmap(node, bitmap);
    *ret = b != NULL && !jv_get_bool(b, "inconsistent", false);
    return 0;
}
