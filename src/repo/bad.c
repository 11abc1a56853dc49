/* Noting packs and frames that failed, so that nothing is built on them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "catalog.h"
#include "cleanup.h"
#include "err.h"
#include "jv.h"
#include "rand.h"
#include "verify.h"

static bool
known(const struct verify *v, const struct vbad *b)
{
    struct repo *r = v->repo;
    bool yes;

    (void)pthread_rwlock_rdlock(&r->index_lock);
    yes = notes_frame_noted(r->catalog, &b->pack, b->at) ||
          pack_set_has(r->catalog->bad, &b->pack);
    (void)pthread_rwlock_unlock(&r->index_lock);
    return yes;
}

/* A pack that vanished was removed by a collector, and one that is bad as a
 * whole needs no list. */
static bool
worth(const struct verify *v, const struct vbad *b)
{
    const struct vpack *p = verify_pack_named(v, &b->pack);

    return (p == NULL || (p->found > 0 && !p->whole_bad)) && !known(v, b);
}

static int
compare_bad(const void *a, const void *b)
{
    const struct vbad *x = a, *y = b;
    int c = memcmp(x->pack.sid, y->pack.sid, sizeof x->pack.sid);

    if (c == 0)
        c = (x->pack.class > y->pack.class) - (x->pack.class < y->pack.class);
    if (c == 0)
        c = (x->pack.seq > y->pack.seq) - (x->pack.seq < y->pack.seq);
    return c != 0 ? c : (x->at > y->at) - (x->at < y->at);
}

static int
add_frame(struct jv *frames, struct jv **at, char last[REPO_KEY_MAX],
          const struct vbad *b)
{
    char key[REPO_KEY_MAX];

    pack_key(&b->pack, key);
    if (strcmp(key, last) != 0) {
        *at = jv_array();
        if (jv_add(frames, jv_build("{s:s, s:o}", "pack", key, "at",
                                    jv_ref(*at))) < 0) {
            jv_free(TAKE_PTR(*at));
            return -1;
        }
        jv_free(*at); /* borrowed from `frames` from now on */
        (void)strcpy(last, key);
    }
    return jv_add(*at, jv_int((int64_t)b->at));
}

static struct jv *
frames_json(const struct verify *v)
{
    CLEANUP_JV struct jv *frames = jv_array();
    char last[REPO_KEY_MAX] = "";
    struct jv *at = NULL;

    if (v->n_bad_frames > v->n_bad_kept)
        qsort(v->bad_frames + v->n_bad_kept, v->n_bad_frames - v->n_bad_kept,
              sizeof *v->bad_frames, compare_bad);
    for (size_t i = v->n_bad_kept; i < v->n_bad_frames; i++)
        if ((i == v->n_bad_kept ||
             compare_bad(&v->bad_frames[i - 1], &v->bad_frames[i]) != 0) &&
            worth(v, &v->bad_frames[i]) &&
            add_frame(frames, &at, last, &v->bad_frames[i]) < 0)
            return NULL;
    return TAKE_PTR(frames);
}

static int
collect_packs(struct verify *v, struct pack_set *set, struct err *err)
{
    for (size_t i = 0; i < v->n_packs; i++) {
        struct vpack *p = &v->packs[i];
        bool listed;

        if (!p->failed || !p->whole_bad || p->kept)
            continue;
        p->kept = true;
        (void)pthread_rwlock_rdlock(&v->repo->index_lock);
        listed = pack_set_has(v->repo->catalog->bad, &p->name);
        (void)pthread_rwlock_unlock(&v->repo->index_lock);
        if (!listed && pack_set_add(set, &p->name, err) < 0)
            return -1;
    }
    return 0;
}

static int
write_list(struct verify *v, const struct pack_set *set, struct jv *frames,
           struct err *err)
{
    CLEANUP_JV struct jv *payload = jv_build(
        "{s:o, s:o}", "packs", pack_set_to_json(set), "frames", jv_ref(frames));
    bool missing = !v->missing_kept && v->n_missing > 0;
    char key[REPO_KEY_MAX], sid[REPO_SID_TEXT];
    uint8_t random[REPO_SID_LEN];

    if (payload == NULL)
        return err_set_errno(err, ENOMEM, "list of what is bad");
    if (missing && jv_set_int(payload, "missing", (int64_t)v->n_missing) < 0)
        return err_set_errno(err, ENOMEM, "list of what is bad");
    v->missing_kept |= missing;
    rand_bytes(random, sizeof random);
    hex_encode(random, sizeof random, sid);
    (void)snprintf(key, sizeof key, "bad/%s", sid);
    return record_write(v->repo, key, COMMIT_BAD, payload, err);
}

int
bad_keep(struct verify *v, struct err *err)
{
    struct pack_set *set = pack_set_new();
    CLEANUP_JV struct jv *frames = NULL;
    int rc = -1;

    if (set != NULL && collect_packs(v, set, err) == 0) {
        frames = frames_json(v);
        rc = frames != NULL ? 0 : -1;
    }
    if (rc < 0)
        (void)err_set_errno(err, ENOMEM, "list of what is bad");
    else if (pack_set_n(set) > 0 || jv_size(frames) > 0 ||
             (v->n_missing > 0 && !v->repo->catalog->bad_missing))
        rc = write_list(v, set, frames, err);
    pack_set_free(set);
    v->n_bad_kept = v->n_bad_frames;
    /* so that this process knows it, too */
    return rc < 0 ? -1 : index_reload(v->repo, err);
}
