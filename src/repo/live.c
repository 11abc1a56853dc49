/* Who works on the repository now: the objects below session/, what their
 * heartbeats say, and fencing.
 */
#include "internal.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"
#include "err.h"
#include "jv.h"
#include "points.h"
#include "store.h"

#define SESSION_LEN_MAX (4u << 20) /* of a session object: 100,000 pins */
#define SESSIONS_MAX 100000u

void
session_list_done(struct session_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        id_list_done(&l->v[i].pins);
    free(l->v);
    l->v = NULL;
    l->n = 0;
}

/* -- session objects --------------------------------------------------------*/

static void
copy_text(char *to, size_t size, const char *from)
{
    (void)snprintf(to, size, "%s", from != NULL ? from : "");
}

/* Pure.  What cannot be understood leaves an entry that counts as a writer. */
static int
parse_session(const void *text, size_t len, struct session_info *s,
              struct err *err)
{
    CLEANUP_JV struct jv *j = NULL;
    const struct jv *points;

    copy_text(s->what, sizeof s->what, "put");
    if (jv_parse(text, len, 8, &j, NULL) < 0 || !jv_is_object(j))
        return 0;
    points = jv_get(j, "points");
    copy_text(s->what, sizeof s->what, jv_get_str(j, "what"));
    copy_text(s->scope, sizeof s->scope, jv_get_str(j, "scope"));
    copy_text(s->host, sizeof s->host, jv_get_str(j, "host"));
    copy_text(s->machine, sizeof s->machine, jv_get_str(j, "machine"));
    (void)jv_get_int(j, "pid", &s->pid);
    for (size_t i = 0; i < jv_size(points); i++)
        if (id_text_valid(jv_str(jv_at(points, i))) &&
            id_list_add(&s->pins, jv_str(jv_at(points, i)), err) < 0)
            return -1;
    id_list_sort(&s->pins);
    if (strcmp(s->what, "pin") != 0 && strcmp(s->what, "gc") != 0)
        copy_text(s->what, sizeof s->what, "put");
    return 0;
}

int
session_info_parse(const char *sid, const void *text, size_t len,
                   struct session_info *ret, struct err *err)
{
    memset(ret, 0, sizeof *ret);
    copy_text(ret->sid, sizeof ret->sid, sid);
    return parse_session(text, len, ret, err);
}

struct live_walk {
    struct repo *r;
    struct session_list *l;
    struct err *err;
};

static int
read_session(struct repo *r, const char *key, size_t len,
             struct session_info *s, struct err *err)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    struct err why = ERR_INIT;

    if (len > SESSION_LEN_MAX)
        return session_info_parse(strchr(key, '/') + 1, "", 0, s, err);
    if (buf_reserve(&b, len + 1, err) < 0)
        return -1;
    if (store_get(r->store, key, 0, len, b.data, &why) == 0)
        return session_info_parse(strchr(key, '/') + 1, b.data, len, s, err);
    if (why.code == ERR_NOT_FOUND)
        return 1; /* ended since it was listed */
    return err_copy(err, &why);
}

static int
take_session(void *arg, const char *key, uint64_t len)
{
    struct live_walk *w = arg;
    struct session_info s, *v;
    int r;

    if (!id_text_valid(strchr(key, '/') + 1))
        return 0;
    if (w->l->n >= SESSIONS_MAX)
        return err_set(w->err, ERR_UNSUPPORTED, "more than %u sessions",
                       SESSIONS_MAX);
    r = read_session(w->r, key, (size_t)len, &s, w->err);
    if (r != 0)
        return r < 0 ? -1 : 0;
    v = realloc(w->l->v, (w->l->n + 1) * sizeof *v);
    if (v == NULL) {
        id_list_done(&s.pins);
        return err_set_errno(w->err, ENOMEM, "list of sessions");
    }
    w->l->v = v;
    v[w->l->n++] = s;
    return 0;
}

static int
compare_sessions(const void *a, const void *b)
{
    return strcmp(((const struct session_info *)a)->sid,
                  ((const struct session_info *)b)->sid);
}

/* "beat/<sid>.<n>" */
static int
take_beat(void *arg, const char *key, uint64_t len)
{
    struct live_walk *w = arg;
    struct session_info k = {.beat = 0}, *s;
    const char *name = strchr(key, '/') + 1;
    char *end;
    unsigned long long n;

    (void)len;
    if (strlen(name) < 34 || name[32] != '.' || w->l->n == 0)
        return 0;
    memcpy(k.sid, name, 32);
    s = bsearch(&k, w->l->v, w->l->n, sizeof k, compare_sessions);
    n = strtoull(name + 33, &end, 10);
    if (s != NULL && *end == '\0' && n > s->beat)
        s->beat = n;
    return 0;
}

static int
note_ended(struct repo *r, struct session_list *l, struct err *err)
{
    for (size_t i = 0; i < l->n; i++) {
        char key[REPO_KEY_MAX];
        uint64_t len;
        int found;

        commit_key(l->v[i].sid, 1, key);
        found = store_size(r->store, key, &len, err);
        if (found < 0)
            return -1;
        l->v[i].ended = found > 0;
    }
    return 0;
}

int
session_list_read(struct repo *r, struct session_list *ret, struct err *err)
{
    CLEANUP(session_list_done) struct session_list l = {NULL, 0};
    struct live_walk w = {r, &l, err};

    if (store_list(r->store, "session", take_session, &w, err) != 0)
        return err_wrap(err, "list the sessions");
    if (l.n > 0)
        qsort(l.v, l.n, sizeof *l.v, compare_sessions);
    if (store_list(r->store, "beat", take_beat, &w, err) != 0 ||
        note_ended(r, &l, err) < 0)
        return err_wrap(err, "list the sessions");
    *ret = l;
    l = (struct session_list){NULL, 0};
    return 0;
}

/* -- dead for certain -------------------------------------------------------*/

void
session_scope(char *ret, size_t size)
{
    char ns[64] = "", boot[64] = "";
    ssize_t n = readlink("/proc/self/ns/pid", ns, sizeof ns - 1);
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");

    if (f != NULL && fgets(boot, sizeof boot, f) == NULL)
        boot[0] = '\0';
    if (f != NULL)
        (void)fclose(f);
    boot[strcspn(boot, "\n")] = '\0';
    if (n > 0 && boot[0] != '\0')
        (void)snprintf(ret, size, "%s %s", boot, ns);
    else
        ret[0] = '\0';
}

bool
session_is_dead(const struct session_info *s)
{
    char scope[sizeof s->scope];

    session_scope(scope, sizeof scope);
    return scope[0] != '\0' && strcmp(scope, s->scope) == 0 && s->pid > 0 &&
           s->pid <= INT_MAX && kill((pid_t)s->pid, 0) < 0 && errno == ESRCH;
}

/* -- fencing ----------------------------------------------------------------*/

/* After a failure: whose object is there? */
static int
who_won(struct repo *r, const char *key, const struct err *why, struct err *err)
{
    CLEANUP_JV struct jv *payload = NULL;
    enum commit_type type;
    struct err second = ERR_INIT;

    if (commit_read(r, key, &type, &payload, NULL, &second) == 0)
        return type == COMMIT_ABORT;
    if (why->code != ERR_EXISTS || second.code == ERR_NOT_FOUND)
        return err_copy(err, why);
    return err_copy(err, &second);
}

int
session_fence(struct repo *r, const char *sid, const char *why, struct err *err)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    CLEANUP_JV struct jv *j = jv_build("{s:s, s:s, s:s}", "type", "abort",
                                       "session", sid, "why", why);
    struct err failed = ERR_INIT;
    char key[REPO_KEY_MAX];

    if (j == NULL)
        return err_set_errno(err, ENOMEM, "fence");
    commit_key(sid, 1, key);
    if (commit_encode(repo_key_commit(r), COMMIT_ABORT, j, &b, err) < 0)
        return -1;
    if (store_put(r->store, key, b.data, b.len, &failed) == 0)
        return 1;
    return who_won(r, key, &failed, err);
}

/* -- one writer per machine -------------------------------------------------*/

static bool
is_rival(const struct session_info *s, const char *sid, const char *machine)
{
    return strcmp(s->what, "put") == 0 && !s->ended &&
           strcmp(s->machine, machine) == 0 && strcmp(s->sid, sid) != 0 &&
           !session_is_dead(s);
}

/* A rival that is alive beats often enough within this many twentieths of a
 * heartbeat.  Of two that began together the one with the greater id gives up at
 * the first beat that it sees, and the other one waits a little for that. */
#define RIVAL_TURNS 80
#define RIVAL_PATIENCE 3 /* beats */

/* Compare with what was seen first: 1 no rival of then is left, 0 look again,
 * -1 one lives.  Those that came later see this session, and end. */
static int
look_at_rivals(const struct session_list *first, const struct session_list *now,
               const char *sid, const char *machine, struct err *err)
{
    bool left = false;

    for (size_t i = 0; i < now->n; i++) {
        const struct session_info *s = &now->v[i], *then;

        if (!is_rival(s, sid, machine))
            continue;
        then = bsearch(s, first->v, first->n, sizeof *s, compare_sessions);
        if (then != NULL &&
            s->beat >=
                then->beat + (strcmp(sid, s->sid) < 0 ? RIVAL_PATIENCE : 1))
            return err_set(err, ERR_LOCKED,
                           "another backup of machine '%s' into this "
                           "repository runs on host '%s' (process %lld); wait "
                           "for its end",
                           machine, s->host, (long long)s->pid);
        left |= then != NULL;
    }
    return left ? 0 : 1;
}

int
session_only_one(struct repo *r, const char *sid, const char *machine,
                 struct err *err)
{
    CLEANUP(session_list_done) struct session_list first = {NULL, 0};
    int result;

    if (session_list_read(r, &first, err) < 0)
        return -1;
    result = look_at_rivals(&first, &first, sid, machine, err);
    for (unsigned turn = 0; result == 0 && turn < RIVAL_TURNS; turn++) {
        CLEANUP(session_list_done) struct session_list now = {NULL, 0};

        (void)usleep((useconds_t)(repo_beat_ns / 20000));
        if (session_list_read(r, &now, err) < 0)
            return -1;
        result = look_at_rivals(&first, &now, sid, machine, err);
    }
    return result < 0 ? -1 : 0; /* the dead are left to a collector */
}
