/* tests/lib/repo_fixture.h - a repository in a scratch directory, and a session
 * committed by hand, below the point layer. */
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "buf.h"
#include "cleanup.h"
#include "err.h"
#include "internal.h"
#include "jv.h"
#include "store.h"
#include "tap.h"
#include "tmpdir.h"

DEFINE_CLEANUP(struct repo_session *, repo_session_free)
DEFINE_CLEANUP(struct repo *, repo_close)

struct fixture {
    char dir[TMPDIR_MAX];
    struct repo *r;
};

static inline void
fixture_begin(struct fixture *f)
{
    tmpdir_make(f->dir);
    CHECK_OK(repo_init(f->dir, REPO_CHUNK_DEFAULT, NULL, ERR_ABORT), ERR_ABORT);
    CHECK_OK(repo_open(f->dir, NULL, &f->r, ERR_ABORT), ERR_ABORT);
}

static inline void
fixture_reopen(struct fixture *f)
{
    repo_close(f->r);
    f->r = NULL;
    CHECK_OK(repo_open(f->dir, NULL, &f->r, ERR_ABORT), ERR_ABORT);
}

static inline void
fixture_end(struct fixture *f)
{
    repo_close(f->r);
    tmpdir_remove(f->dir);
}

static inline struct repo_session *
fixture_session(struct repo *r, unsigned n_workers)
{
    struct repo_session_opts opts = REPO_SESSION_OPTS;
    struct repo_session *s = NULL;

    opts.n_workers = n_workers;
    CHECK_OK(repo_session_begin(r, &opts, &s, ERR_ABORT), ERR_ABORT);
    return s;
}

/* Seal and create the commit object, as repo_commit() does. */
static inline int
fixture_commit(struct repo_session *s, struct err *err)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    CLEANUP_JV struct jv *parts = NULL;
    struct repo *r = session_repo(s);
    char key[REPO_KEY_MAX];

    commit_key(session_sid(s), 1, key);
    if (session_seal(s, &parts, err) < 0 ||
        jv_set_str(parts, "session", session_sid(s)) < 0 ||
        commit_encode(repo_key_commit(r), COMMIT_COMMIT, parts, &b, err) < 0)
        return -1;
    session_set_fate(s, SESSION_IN_DOUBT);
    if (store_put(r->store, key, b.data, b.len, err) < 0)
        return -1;
    session_set_fate(s, SESSION_COMMITTED);
    return 0;
}

/* Bytes that depend on `seed` only; `compressible` ones look like text. */
static inline void
fixture_fill(uint8_t *p, size_t len, uint64_t seed, bool compressible)
{
    uint64_t x = seed * 0x9e3779b97f4a7c15u + 1;

    for (size_t i = 0; i < len; i++) {
        if (!compressible || i % 16 == 0) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
        }
        p[i] = compressible ? (uint8_t)('a' + (x + i) % 16) : (uint8_t)(x >> 8);
    }
}

/* Read and prove a data chunk the way a restore does. */
static inline int
fixture_read(struct repo *r, const struct chunk_id *id, uint8_t *out,
             size_t len, struct err *err)
{
    return page_get(r, id, out, len, err);
}
