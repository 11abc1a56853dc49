/* Making a repository whole again from its own bytes: in the order of a writer,
 * so that nothing that exists gets worse when it ends half-way. */
#include "repair.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "err.h"
#include "jv.h"
#include "points.h"
#include "rand.h"
#include "store.h"

int
repair_canceled(const struct repair *p, struct err *err)
{
    if (p->opts.cancel == NULL ||
        !__atomic_load_n(p->opts.cancel, __ATOMIC_RELAXED))
        return 0;
    return err_set(err, ERR_CANCELED, "the repair was canceled");
}

int
repair_say(struct repair *p, struct err *err, const char *fmt, ...)
{
    char text[ERR_MSG_MAX];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (jv_add(p->rep.actions, jv_string(text)) < 0)
        return err_set_errno(err, ENOMEM, "list of actions");
    return 0;
}

/* -- commit objects ---------------------------------------------------------*/

static int
collect_key(void *arg, const char *key, uint64_t len)
{
    (void)len;
    return strlen(key) < REPO_KEY_MAX ? names_add(arg, key, NULL) : 0;
}

static int
visit(struct repair *p, const char *key, commit_fn fn, void *arg,
      struct err *err)
{
    CLEANUP_JV struct jv *payload = NULL;
    char sid[REPO_SID_TEXT];
    enum commit_type type;

    (void)snprintf(sid, sizeof sid, "%.32s", key + strlen("commit/"));
    /* One that cannot be read is reported by the check; nothing can be made of
     * it. */
    if (id_list_has(&p->removed, sid) ||
        commit_read(p->repo, key, &type, &payload, NULL, NULL) < 0 ||
        type != COMMIT_COMMIT)
        return 0;
    return fn(arg, key, payload, err);
}

int
repair_commits(struct repair *p, commit_fn fn, void *arg, struct err *err)
{
    CLEANUP(names_done) struct names keys = {NULL, 0, 0};

    if (store_list(p->repo->store, "commit", collect_key, &keys, err) != 0)
        return err_wrap(err, "list the commit objects");
    names_sort(&keys);
    for (size_t i = 0; i < keys.n; i++)
        if (repair_canceled(p, err) < 0 ||
            visit(p, keys.v[i].key, fn, arg, err) < 0)
            return -1;
    return 0;
}

static int
visit_parts(struct repair *p, const struct jv *list, part_fn fn, void *arg,
            struct err *err)
{
    for (size_t i = 0; i < jv_size(list); i++) {
        const char *key = jv_get_str(jv_at(list, i), "key");
        struct pack_name name;

        if (key == NULL || !pack_name_parse(key, &name) ||
            pack_set_has(p->gone, &name))
            continue;
        if (fn(arg, &name, jv_at(list, i), err) < 0)
            return -1;
    }
    return 0;
}

int
repair_parts(struct repair *p, const struct jv *payload, part_fn fn, void *arg,
             struct err *err)
{
    const struct jv *lists = jv_get(payload, "pack_lists");

    if (visit_parts(p, jv_get(payload, "packs"), fn, arg, err) < 0)
        return -1;
    for (size_t i = 0; i < jv_size(lists); i++) {
        const char *key = jv_get_str(jv_at(lists, i), "key");
        CLEANUP_JV struct jv *more = NULL;

        if (key == NULL ||
            record_read(p->repo, key, COMMIT_PACKS, &more, NULL) < 0)
            continue;
        if (visit_parts(p, jv_get(more, "packs"), fn, arg, err) < 0)
            return -1;
    }
    return 0;
}

/* -- records that nobody can read -------------------------------------------*/

/* Once its collector can never commit, or has committed and said there what is
 * gone, a condemned list has no meaning any more. */
static int
end_collector(struct repair *p, const char *key, struct err *err)
{
    char sid[REPO_SID_TEXT];

    (void)snprintf(sid, sizeof sid, "%.32s", strchr(key, '/') + 1);
    if (strncmp(key, "gc/", 3) != 0 || !id_text_valid(sid))
        return 0;
    return session_fence(p->repo, sid, "its condemned list cannot be read",
                         err);
}

static int
drop_record(struct repair *p, const char *key, struct err *err)
{
    bool is_bad = strncmp(key, "bad/", 4) == 0;
    CLEANUP_JV struct jv *payload = NULL;
    struct err why = ERR_INIT;

    if (record_read(p->repo, key, is_bad ? COMMIT_BAD : COMMIT_CONDEMNED,
                    &payload, &why) == 0 ||
        (why.code != ERR_CORRUPT && why.code != ERR_FORMAT))
        return 0;
    p->rep.records_removed++;
    if (repair_say(p, err, "remove '%s', which nobody can read%s", key,
                   is_bad ? "; verify finds again what it named" : "") < 0)
        return -1;
    if (p->opts.dry_run)
        return 0;
    if (end_collector(p, key, err) < 0 ||
        store_delete(p->repo->store, key, err) < 0)
        return -1;
    return store_sync(p->repo->store, is_bad ? "bad" : "gc", err);
}

static int
drop_records(struct repair *p, struct err *err)
{
    CLEANUP(names_done) struct names keys = {NULL, 0, 0};

    if (store_list(p->repo->store, "gc", collect_key, &keys, err) != 0 ||
        store_list(p->repo->store, "bad", collect_key, &keys, err) != 0)
        return err_wrap(err, "list the records");
    for (size_t i = 0; i < keys.n; i++)
        if (drop_record(p, keys.v[i].key, err) < 0)
            return -1;
    return 0;
}

/* -- the commit -------------------------------------------------------------*/

static struct jv *
gone_json(const struct repair *p)
{
    const struct lost_segment *l = (const void *)p->lost.data;
    CLEANUP_JV struct jv *index = jv_array();

    for (size_t i = 0; i < p->lost.len / sizeof *l; i++)
        if (jv_add(index, jv_string(l[i].key)) < 0)
            return NULL;
    return jv_build("{s:o, s:o, s:o}", "packs", jv_object(), "index",
                    TAKE_PTR(index), "removed", jv_array());
}

static int
add_segments(struct repair *p, struct jv *parts)
{
    struct jv *index = (struct jv *)(uintptr_t)jv_get(parts, "index");

    for (size_t i = 0; i < jv_size(p->segments); i++)
        if (jv_add(index, jv_ref(jv_at(p->segments, i))) < 0)
            return -1;
    return 0;
}

static int
write_commit(struct repair *p, struct jv *parts, struct err *err)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    const char *sid = session_sid(p->session);
    struct err why = ERR_INIT;
    char key[REPO_KEY_MAX];

    commit_key(sid, 1, key);
    if (add_segments(p, parts) < 0 || jv_set_str(parts, "type", "commit") < 0 ||
        jv_set_str(parts, "session", sid) < 0 ||
        jv_set(parts, "gone", gone_json(p)) < 0)
        return err_set_errno(err, ENOMEM, "commit of the repair");
    if (commit_encode(repo_key_commit(p->repo), COMMIT_COMMIT, parts, &b, err) <
        0)
        return -1;
    session_set_fate(p->session, SESSION_IN_DOUBT);
    if (store_put(p->repo->store, key, b.data, b.len, &why) < 0) {
        if (why.code == ERR_EXISTS)
            session_set_fate(p->session, SESSION_OPEN);
        (void)err_copy(err, &why);
        return err_wrap(err, "commit of the repair");
    }
    session_set_fate(p->session, SESSION_COMMITTED);
    return 0;
}

/* Only now, when the copies exist: nothing is built on these packs any more. */
static int
set_aside(struct repair *p, struct err *err)
{
    CLEANUP_JV struct jv *payload =
        jv_build("{s:o, s:o}", "packs", pack_set_to_json(p->damaged), "frames",
                 jv_array());
    char key[REPO_KEY_MAX], sid[REPO_SID_TEXT];
    uint8_t random[REPO_SID_LEN];

    if (payload == NULL)
        return err_set_errno(err, ENOMEM, "list of damaged packs");
    rand_bytes(random, sizeof random);
    hex_encode(random, sizeof random, sid);
    (void)snprintf(key, sizeof key, "bad/%s", sid);
    return record_write(p->repo, key, COMMIT_BAD, payload, err);
}

static bool
all_known(const struct repair *p)
{
    bool known = true;

    (void)pthread_rwlock_rdlock(&p->repo->index_lock);
    for (size_t i = 0; i < pack_set_n(p->damaged); i++)
        known &=
            pack_set_has(p->repo->catalog->bad, pack_set_at(p->damaged, i));
    (void)pthread_rwlock_unlock(&p->repo->index_lock);
    return known;
}

static int
begin(struct repair *p, struct err *err)
{
    struct repo_session_opts opts = REPO_SESSION_OPTS;

    return p->opts.dry_run
               ? 0
               : repo_session_begin(p->repo, &opts, &p->session, err);
}

static int
repair_all(struct repair *p, struct err *err)
{
    CLEANUP_JV struct jv *parts = NULL;

    if (repair_packs(p, err) < 0)
        return -1;
    if (p->session != NULL && session_seal(p->session, &parts, err) < 0)
        return -1;
    if (repair_segments(p, err) < 0)
        return -1;
    if (p->session == NULL || (p->rep.frames_copied == 0 && p->lost.len == 0 &&
                               jv_size(p->segments) == 0))
        return 0;
    return write_commit(p, parts, err);
}

static int
find(struct repair *p, struct err *err)
{
    if (index_reload(p->repo, err) < 0 ||
        index_gone(p->repo, p->gone, NULL, &p->removed, err) < 0)
        return -1;
    id_list_sort(&p->removed);
    return repair_find_segments(p, err) < 0 || repair_find_packs(p, err) < 0
               ? -1
               : 0;
}

static int
run(struct repair *p, struct err *err)
{
    if (!p->opts.dry_run && repo_may_write(p->repo, err) < 0)
        return -1;
    if (drop_records(p, err) < 0 || begin(p, err) < 0 || find(p, err) < 0 ||
        repair_all(p, err) < 0)
        return -1;
    if (!p->opts.dry_run && pack_set_n(p->damaged) > 0 && !all_known(p) &&
        set_aside(p, err) < 0)
        return -1;
    return index_reload(p->repo, err) < 0 ||
                   damage_count(p->repo, &p->rep.frames_lost, err) < 0
               ? -1
               : 0;
}

static int
prepare(struct repair *p, struct err *err)
{
    p->rep.actions = jv_array();
    p->segments = jv_array();
    p->damaged = pack_set_new();
    p->gone = pack_set_new();
    if (p->rep.actions == NULL || p->segments == NULL || p->damaged == NULL ||
        p->gone == NULL)
        return err_set_errno(err, ENOMEM, "repair");
    return frame_ctx_new(&p->repo->keys, 0, &p->ctx, err);
}

int
repo_repair(struct repo *r, const struct repo_repair_opts *opts,
            struct repo_repair_report *ret, struct err *err)
{
    struct repair p = {.repo = r, .opts = *opts};
    int rc = prepare(&p, err);

    if (rc == 0)
        rc = run(&p, err);
    repo_session_free(p.session);
    buf_done(&p.lost);
    pack_set_free(p.damaged);
    pack_set_free(p.gone);
    id_list_done(&p.removed);
    frame_ctx_free(p.ctx);
    jv_free(p.segments);
    if (rc < 0) {
        jv_free(p.rep.actions);
        return err_wrap(err, "repair of '%s'", repo_path(r));
    }
    *ret = p.rep;
    return 0;
}
