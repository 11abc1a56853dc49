/* source/recover.c - what a run that died left behind.
 *
 * Whoever gets here holds the machine's lock and the only connection of its QMP
 * socket, so everything in QEMU that carries a run's name belongs to a run that
 * is dead.  Names of other repositories' bitmaps, of other programs, and their
 * NBD server are not touched.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "block.h"
#include "cleanup.h"
#include "err.h"
#include "io.h"
#include "jv.h"
#include "log.h"
#include "rand.h"
#include "source_internal.h"

bool
is_run_object(const char *name)
{
    char id[RUN_ID_LEN + 1];
    uint8_t bytes[RUN_ID_LEN / 2];

    if (name == NULL || strncmp(name, PREFIX, strlen(PREFIX)) != 0)
        return false;
    name += strlen(PREFIX);
    if (strlen(name) <= RUN_ID_LEN || name[RUN_ID_LEN] != '-')
        return false;
    memcpy(id, name, RUN_ID_LEN);
    id[RUN_ID_LEN] = '\0';
    return hex_decode(id, bytes, sizeof bytes);
}

/* Names under `key` of the objects in a query's answer that are a run's. */
static int
find_named(struct source *s, const char *query, const char *key,
           struct jv *list, struct err *err)
{
    CLEANUP_JV struct jv *all = NULL;

    if (qmp_call(s->qmp, query, NULL, QMP_TIMEOUT_MS, &all, err) < 0)
        return -1;
    for (size_t i = 0; i < jv_size(all); i++) {
        const char *name = jv_get_str(jv_at(all, i), key);

        if (is_run_object(name) && jv_add(list, jv_string(name)) < 0)
            return err_set_errno(err, ENOMEM, "list of leftovers");
    }
    return 0;
}

static int
find_nodes(struct source *s, struct leftovers *l, struct err *err)
{
    for (size_t i = 0; i < jv_size(s->nodes); i++) {
        const struct jv *n = jv_at(s->nodes, i);
        const char *node = jv_get_str(n, "node-name");
        const struct jv *bitmaps = jv_get(n, "dirty-bitmaps");
        int r = 0;

        if (is_run_object(node))
            r |= jv_add(l->nodes, jv_string(node));
        for (size_t k = 0; k < jv_size(bitmaps); k++) {
            const char *name = jv_get_str(jv_at(bitmaps, k), "name");

            if (is_run_object(name))
                r |= jv_add(l->bitmaps,
                            jv_build("{s:s, s:s}", "node", node, "name", name));
        }
        if (r < 0)
            return err_set_errno(err, ENOMEM, "list of leftovers");
    }
    return 0;
}

/* The journal names the socket of the dead run's server, a name no other
 * server has: if somebody listens there, it is that server. */
static bool
server_is_ours(const struct source *s)
{
    const char *path = s->run ? jv_get_str(rundir_dead(s->run), "nbd") : NULL;
    int fd;

    if (path == NULL)
        return false;
    fd = io_connect_unix(path, 2000, NULL);
    if (fd < 0)
        return false;
    (void)close(fd);
    return true;
}

int
leftovers_find(struct source *s, struct leftovers *ret, struct err *err)
{
    struct leftovers l = {jv_array(), jv_array(), jv_array(), jv_array(),
                          false};

    if (!l.exports || !l.jobs || !l.nodes || !l.bitmaps) {
        leftovers_done(&l);
        return err_set_errno(err, ENOMEM, "list of leftovers");
    }
    if (find_named(s, "query-block-exports", "id", l.exports, err) < 0 ||
        find_named(s, "query-jobs", "id", l.jobs, err) < 0 ||
        find_nodes(s, &l, err) < 0) {
        leftovers_done(&l);
        return -1;
    }
    l.server = server_is_ours(s);
    *ret = l;
    return 0;
}

void
leftovers_done(struct leftovers *l)
{
    jv_free(l->exports);
    jv_free(l->jobs);
    jv_free(l->nodes);
    jv_free(l->bitmaps);
    memset(l, 0, sizeof *l);
}

size_t
leftovers_count(const struct leftovers *l)
{
    return jv_size(l->exports) + jv_size(l->jobs) + jv_size(l->nodes) +
           jv_size(l->bitmaps) + l->server;
}

static void
tell(struct jv *done, const char *what, const char *name)
{
    CLEANUP_FREE char *text = NULL;

    log_debug("recover: %s '%s'", what, name);
    if (asprintf(&text, "%s '%s'", what, name) >= 0)
        (void)jv_add(done, jv_string(text));
}

/* A node can only go when nobody uses it: snapshots before filters' scratch,
 * an overlay before the file below it.  Names sort that way by their part
 * after the run id. */
static int
end_nodes(struct source *s, const struct jv *nodes, const char *kind,
          struct jv *done, struct err *err)
{
    for (size_t i = 0; i < jv_size(nodes); i++) {
        const char *name = jv_str(jv_at(nodes, i));

        if (strncmp(name + strlen(PREFIX) + RUN_ID_LEN + 1, kind,
                    strlen(kind)) != 0)
            continue;
        if (qmp_node_end(s->qmp, name, END_TIMEOUT_MS, err) < 0)
            return -1;
        tell(done, "removed node", name);
    }
    return 0;
}

static int
end_list(struct source *s, const struct jv *list,
         int (*end)(struct qmp *, const char *, unsigned, struct err *),
         const char *what, struct jv *done, struct err *err)
{
    for (size_t i = 0; i < jv_size(list); i++) {
        const char *name = jv_str(jv_at(list, i));

        if (end(s->qmp, name, END_TIMEOUT_MS, err) < 0)
            return -1;
        tell(done, what, name);
    }
    return 0;
}

static int
end_bitmaps(struct source *s, const struct jv *bitmaps, struct jv *done,
            struct err *err)
{
    for (size_t i = 0; i < jv_size(bitmaps); i++) {
        const char *name = jv_get_str(jv_at(bitmaps, i), "name");

        if (qmp_bitmap_end(s->qmp, jv_get_str(jv_at(bitmaps, i), "node"), name,
                           END_TIMEOUT_MS, err) < 0)
            return -1;
        tell(done, "removed bitmap", name);
    }
    return 0;
}

static int
end_all(struct source *s, const struct leftovers *l, struct jv *done,
        struct err *err)
{
    if (end_list(s, l->exports, qmp_export_end, "removed export", done, err) <
            0 ||
        end_nodes(s, l->nodes, "snap", done, err) < 0 ||
        end_nodes(s, l->nodes, "pnt", done, err) < 0 ||
        end_list(s, l->jobs, qmp_job_end, "ended job", done, err) < 0 ||
        end_nodes(s, l->nodes, "scr", done, err) < 0 ||
        end_nodes(s, l->nodes, "file", done, err) < 0 ||
        end_bitmaps(s, l->bitmaps, done, err) < 0)
        return -1;
    if (l->server && source_qmp(s, "nbd-server-stop", NULL, err) < 0)
        return -1;
    if (l->server)
        tell(done, "stopped the NBD server of", "a dead run");
    return 0;
}

/* Frozen by a run that died: thawed before anything else.  Frozen by somebody
 * else: not ours to thaw, but the journal tells us apart. */
static int
thaw_guest(struct source *s, struct jv *done, struct err *err)
{
    const struct jv *dead = rundir_dead(s->run);
    const char *note = jv_get_str(dead, "frozen");
    struct guard_report report = {0};
    bool frozen = false;

    if (note == NULL || strcmp(note, "perhaps") != 0 || s->off != NULL)
        return 0;
    if (s->guard == NULL) {
        tell(done,
             "could not ask whether the guest is still frozen by a dead "
             "run, because",
             s->agent_note);
        return 0;
    }
    if (guard_frozen(s->guard, &frozen, err) < 0)
        return err_wrap(err, "a run that died may have left the guest frozen");
    if (!frozen)
        return 0;
    if (guard_thaw(s->guard, &report, err) < 0)
        return err_wrap(err, "thaw the guest that a dead run left frozen");
    tell(done, "thawed the guest of", "a dead run");
    return 0;
}

/* Stopped by the scratch of the dead run, which is gone now. */
static int
continue_stopped(struct source *s, struct jv *done, struct err *err)
{
    CLEANUP_JV struct jv *status = NULL;
    const char *text;

    if (s->off != NULL)
        return 0;
    if (qmp_call(s->qmp, "query-status", NULL, QMP_TIMEOUT_MS, &status, err) <
        0)
        return -1;
    text = jv_get_str(status, "status");
    if (text == NULL || strcmp(text, "io-error") != 0)
        return 0;
    if (source_qmp(s, "cont", NULL, err) < 0)
        return -1;
    tell(done, "continued the machine, stopped by",
         "the scratch of a dead run");
    return 0;
}

/* With more or less room an earlier run may have chosen another place. */
static void
sweep_places(struct source *s, struct jv *done)
{
    struct scratch_places p = {0};

    if (rundir_scratch_default(s->opts.scratch) != NULL ||
        scratch_look(&s->inv, &p, NULL) < 0)
        return;
    for (size_t i = 0; i < p.n; i++)
        if (p.v[i].usable && strcmp(p.v[i].dir, s->scratch) != 0)
            rundir_sweep(s->run, p.v[i].dir, done);
    scratch_places_done(&p);
}

static int
recover(struct source *s, struct jv *done, struct err *err)
{
    struct leftovers l = {0};
    size_t n;
    int r;

    if (thaw_guest(s, done, err) < 0 || leftovers_find(s, &l, err) < 0)
        return -1;
    n = leftovers_count(&l);
    r = n > 0 ? end_all(s, &l, done, err) : 0;
    leftovers_done(&l);
    if (r < 0)
        return err_wrap(err, "remove what a dead run left in QEMU");
    if (histograms_remove(s) > 0)
        tell(done, "removed the latency histograms of", "a dead run");
    rundir_sweep(s->run, s->scratch, done);
    sweep_places(s, done);
    /* Also when the run died between its last removal and this. */
    if ((n > 0 || rundir_dead(s->run) != NULL) &&
        continue_stopped(s, done, err) < 0)
        return -1;
    rundir_recovered(s->run);
    return n > 0 ? source_look(s, err) : 0;
}

int
source_recover(struct source *s, struct jv **ret_done, struct err *err)
{
    CLEANUP_JV struct jv *done = jv_array();

    if (done == NULL)
        return err_set_errno(err, ENOMEM, "recovery");
    if (recover(s, done, err) < 0)
        return -1;
    *ret_done = TAKE_PTR(done);
    return 0;
}
