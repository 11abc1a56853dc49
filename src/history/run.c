/* One run on its way into the database: its beginning, its log while it goes on,
 * its result the moment it exists, its end. */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "err.h"
#include "jv.h"

#define ROW_MAX (32u << 10) /* of log text; the ring drops whole rows */
#define FLUSH_WAIT_MS 250u
#define END_TRIES_MS 2000u

/* -- the beginning ----------------------------------------------------------*/

/* A machine that cannot be reached does not say its name; the one that was found
 * there the last time will be it. */
static int
insert(struct history *h, const struct history_start *s, struct err *err)
{
    const struct history_process *p = &h->self;
    int64_t now = clock_wall_ns();

    if (db_run(h, err,
               "INSERT INTO run (command, target, machine, repository, parent,"
               " version, pid, pid_start, scope, start_ns, alive_ns,"
               " duration_ms, state) VALUES (?1, ?2, coalesce(?3, (SELECT"
               " machine FROM run WHERE target = ?2 AND command = ?1 AND"
               " machine IS NOT NULL ORDER BY id DESC LIMIT 1)), ?4, ?5, ?6,"
               " ?7, ?8, ?9, ?10, ?10, 0, 'running')",
               "ttttttiiti", s->command, s->target, s->machine, s->repo,
               s->parent, TIDEMARK_VERSION, p->pid, p->start, p->scope,
               now) < 0)
        return -1;
    h->id = sqlite3_last_insert_rowid(h->db);
    return 0;
}

int
history_begin(struct history *h, const struct history_start *s, struct err *err)
{
    int r;

    h->start_ms = h->flushed_ms = clock_ms();
    if (db_begin(h, h->opts.wait_ms, err) < 0)
        return -1;
    r = keep_settle(h, err);
    if (r == 0)
        r = insert(h, s, err);
    if (r == 0)
        r = keep_forget(h, err);
    if (db_end(h, r, err) == 0)
        return 0;
    h->id = 0;
    return -1;
}

int64_t
history_id(const struct history *h)
{
    return h->id;
}

/* -- the log: the first half stays, the last half is a ring -----------------*/

static int
drop_oldest(struct history *h, struct err *err)
{
    CLEANUP_STMT sqlite3_stmt *s =
        db_prepare(h,
                   "SELECT seq, length(CAST(text AS BLOB)), n_lines FROM log"
                   " WHERE run = ?1 AND seq >= ?2 ORDER BY seq LIMIT 1",
                   err);
    int64_t seq, lines;
    uint64_t len;

    if (s == NULL || db_bind(h, s, err, "ii", h->id, h->ring.tail_seq) < 0)
        return -1;
    if (db_step(h, s, err) <= 0)
        return -1;
    seq = sqlite3_column_int64(s, 0);
    len = (uint64_t)sqlite3_column_int64(s, 1);
    lines = sqlite3_column_int64(s, 2);
    (void)sqlite3_reset(s);
    h->ring.tail_bytes -= len < h->ring.tail_bytes ? len : h->ring.tail_bytes;
    if (db_run(h, err, "DELETE FROM log WHERE run = ?1 AND seq = ?2", "ii",
               h->id, seq) < 0)
        return -1;
    return db_run(h, err,
                  "UPDATE run SET log_dropped = log_dropped + ?2 WHERE id = ?1",
                  "ii", h->id, lines);
}

static int
add_row(struct history *h, const uint8_t *text, size_t len, struct err *err)
{
    const struct buf b = {.data = (uint8_t *)(uintptr_t)text, .len = len};
    uint64_t half = h->opts.log_bytes / 2;
    bool head = h->ring.tail_seq == 0 && h->ring.head_bytes + len <= half;
    int64_t lines = 0;

    for (size_t i = 0; i < len; i++)
        lines += text[i] == '\n';
    if (!head && h->ring.tail_seq == 0)
        h->ring.tail_seq = h->ring.next_seq;
    if (db_run(h, err,
               "INSERT INTO log (run, seq, n_lines, text) VALUES"
               " (?1, ?2, ?3, ?4)",
               "iiib", h->id, h->ring.next_seq, lines, &b) < 0)
        return -1;
    h->ring.next_seq++;
    if (head)
        h->ring.head_bytes += len;
    else
        h->ring.tail_bytes += len;
    while (h->ring.tail_bytes > half && h->ring.tail_bytes > len)
        if (drop_oldest(h, err) < 0)
            return -1;
    return 0;
}

static size_t
row_len(const struct history *h, const uint8_t *text, size_t len)
{
    size_t max = ROW_MAX;
    const uint8_t *end;

    if (max > h->opts.log_bytes / 4 + 1)
        max = (size_t)(h->opts.log_bytes / 4 + 1); /* tests have small ones */
    if (text == NULL || len <= max)
        return len;
    end = memrchr(text, '\n', max);
    if (end == NULL)
        end = memchr(text, '\n', len);
    return end != NULL ? (size_t)(end - text) + 1 : len;
}

static int
add_text(struct history *h, const struct buf *b, struct err *err)
{
    for (size_t at = 0; at < b->len;) {
        size_t n = row_len(h, b->data + at, b->len - at);

        if (add_row(h, b->data + at, n, err) < 0)
            return -1;
        at += n;
    }
    return 0;
}

/* -- while it runs ----------------------------------------------------------*/

void
history_log(struct history *h, const char *line)
{
    lines_add(&h->lines, line);
}

void
history_progress(struct history *h, const char *phase, uint64_t done,
                 uint64_t total)
{
    (void)snprintf(h->phase, sizeof h->phase, "%s", phase);
    h->done = done;
    h->total = total;
}

/* Without memory it is not known, that is all. */
void
history_about(struct history *h, const char *machine, const char *repo)
{
    if (machine != NULL) {
        free(h->machine);
        h->machine = strdup(machine);
    }
    if (repo != NULL) {
        free(h->repo);
        h->repo = strdup(repo);
    }
}

void
history_plan(struct history *h, const struct jv *plan)
{
    jv_free(h->plan);
    h->plan = jv_ref(plan);
}

/* "incremental", "full", or "mixed"; NULL when no disk says. */
static const char *
tracking_of(const struct jv *disks)
{
    const char *all = NULL;

    for (size_t i = 0; i < jv_size(disks); i++) {
        const char *one = jv_get_str(jv_at(disks, i), "tracking");

        if (one == NULL)
            continue;
        if (all != NULL && strcmp(all, one) != 0)
            return "mixed";
        all = one;
    }
    return all;
}

static int
write_plan(struct history *h, struct err *err)
{
    CLEANUP_FREE char *text = NULL;

    if (h->plan == NULL)
        return 0;
    text = jv_text(h->plan, false);
    if (text != NULL && strlen(text) > HISTORY_JSON_MAX)
        free(TAKE_PTR(text));
    return db_run(h, err,
                  "UPDATE run SET plan = ?2, tracking = coalesce(?3, tracking),"
                  " machine = coalesce(?4, machine) WHERE id = ?1",
                  "ittt", h->id, text, tracking_of(jv_get(h->plan, "disks")),
                  jv_get_str(h->plan, "machine"));
}

static int
write_state(struct history *h, struct err *err)
{
    return db_run(h, err,
                  "UPDATE run SET alive_ns = ?2, duration_ms = ?3,"
                  " phase = nullif(?4, ''), done = iif(?4 = '', NULL, ?5),"
                  " total = iif(?4 = '', NULL, ?6),"
                  " has_log = (?7 > 0), machine = coalesce(?8, machine),"
                  " repository = coalesce(?9, repository) WHERE id = ?1",
                  "iiitiiitt", h->id, clock_wall_ns(),
                  (int64_t)(clock_ms() - h->start_ms), h->phase,
                  (int64_t)h->done, (int64_t)h->total, h->ring.next_seq,
                  h->machine, h->repo);
}

typedef int (*more_fn)(struct history *h, const void *arg, struct err *err);

/* All that waits, and `more`, in one transaction; what was not written waits on. */
static int
write_all(struct history *h, unsigned wait_ms, more_fn more, const void *arg,
          struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    const struct log_ring before = h->ring;
    int r;

    if (db_begin(h, wait_ms, err) < 0)
        return -1;
    lines_take(&h->lines, &text);
    r = add_text(h, &text, err);
    if (r == 0)
        r = write_plan(h, err);
    if (r == 0)
        r = write_state(h, err);
    if (r == 0 && more != NULL)
        r = more(h, arg, err);
    if (db_end(h, r, err) == 0) {
        jv_free(TAKE_PTR(h->plan));
        return 0;
    }
    h->ring = before;
    lines_return(&h->lines, &text);
    return -1;
}

int
history_flush(struct history *h, unsigned every_ms, struct err *err)
{
    uint64_t now = clock_ms();
    struct err why = ERR_INIT;

    if (h->id == 0 || now - h->flushed_ms < every_ms)
        return 0;
    h->flushed_ms = now;
    if (write_all(h, FLUSH_WAIT_MS, NULL, NULL, &why) == 0 ||
        why.code == ERR_TIMEOUT)
        return 0;
    return err_copy(err, &why);
}

/* -- the result -------------------------------------------------------------*/

struct figures {
    const char *point, *machine, *repository, *tracking;
    char *text;
    bool known; /* any figure */
    uint64_t read, fresh, stored;
};

static void
add_up(struct figures *f, const struct jv *disks)
{
    for (size_t i = 0; i < jv_size(disks); i++) {
        const struct jv *d = jv_at(disks, i);
        uint64_t v;

        if (jv_get_uint(d, "read_bytes", &v)) {
            f->read += v;
            f->known = true;
        }
        if (jv_get_uint(d, "new_bytes", &v))
            f->fresh += v;
        if (jv_get_uint(d, "stored_bytes", &v))
            f->stored += v;
    }
}

static int
write_figures(struct history *h, const void *arg, struct err *err)
{
    const struct figures *f = arg;

    if (f->known && db_run(h, err,
                           "UPDATE run SET read_bytes = ?2, new_bytes = ?3,"
                           " stored_bytes = ?4 WHERE id = ?1",
                           "iiii", h->id, (int64_t)f->read, (int64_t)f->fresh,
                           (int64_t)f->stored) < 0)
        return -1;
    return db_run(h, err,
                  "UPDATE run SET result = ?2, point = coalesce(?3, point),"
                  " machine = coalesce(?4, machine), repository_id ="
                  " coalesce(?5, repository_id), tracking ="
                  " coalesce(?6, tracking) WHERE id = ?1",
                  "ittttt", h->id, f->text, f->point, f->machine, f->repository,
                  f->tracking);
}

int
history_result(struct history *h, const struct jv *result, struct err *err)
{
    CLEANUP_FREE char *text = jv_text(result, false);
    struct figures f = {.point = jv_get_str(result, "point"),
                        .machine = jv_get_str(result, "machine"),
                        .repository = jv_get_str(result, "repository"),
                        .tracking = tracking_of(jv_get(result, "disks"))};

    if (h->id == 0)
        return 0;
    if (text != NULL && strlen(text) <= HISTORY_JSON_MAX)
        f.text = text;
    add_up(&f, jv_get(result, "disks"));
    return write_all(h, h->opts.wait_ms, write_figures, &f, err);
}

/* -- the end ----------------------------------------------------------------*/

static int
write_end(struct history *h, const void *arg, struct err *err)
{
    const struct history_end *e = arg;
    CLEANUP_FREE char *warnings =
        e->warnings != NULL ? jv_text(e->warnings, false) : NULL;

    return db_run(h, err,
                  "UPDATE run SET state = ?2, exit_status = ?3, error = ?4,"
                  " error_code = ?5, warnings = ?6, end_ns = ?7 WHERE id = ?1",
                  "itittti", h->id, e->state, (int64_t)e->exit_status, e->error,
                  e->error_code, warnings, clock_wall_ns());
}

int
history_end(struct history *h, const struct history_end *e, struct err *err)
{
    if (h->id == 0)
        return 0;
    if (write_all(h, END_TRIES_MS, write_end, e, err) < 0)
        return -1;
    /* Now there is time to make it durable; the last one who closes does it anyway. */
    (void)sqlite3_wal_checkpoint_v2(h->db, NULL, SQLITE_CHECKPOINT_PASSIVE,
                                    NULL, NULL);
    return 0;
}
