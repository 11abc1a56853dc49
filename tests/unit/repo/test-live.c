/* Many at once: registrations and heartbeats, fences, pins, forgotten points,
 * and what collectors and verifications leave for others to read. */
#include "tap.h"

#include <poll.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "index.h"
#include "repo_fixture.h"

#define LEN 4096

static struct pack_name
a_pack(uint8_t sid, enum pack_class class, uint32_t seq)
{
    struct pack_name n = {.class = class, .seq = seq};

    memset(n.sid, sid, sizeof n.sid);
    return n;
}

/* -- sets of packs ----------------------------------------------------------*/

static void
test_pack_set(void)
{
    struct pack_set *s = pack_set_new(), *back = pack_set_new();
    CLEANUP_JV struct jv *j = NULL;
    struct pack_name n = a_pack(7, PACK_DATA, 5000);
    unsigned missing = 0;

    for (uint32_t seq = 1; seq < 2000; seq += seq % 100 == 0 ? 50 : 1)
        for (uint8_t sid = 1; sid < 4; sid++) {
            n = a_pack(sid, seq % 7 == 0 ? PACK_META : PACK_DATA, seq);
            CHECK_OK(pack_set_add(s, &n, ERR_ABORT), ERR_ABORT);
            CHECK_OK(pack_set_add(s, &n, ERR_ABORT), ERR_ABORT);
        }
    j = pack_set_to_json(s);
    CHECK_OK(pack_set_from_json(back, j, ERR_ABORT), ERR_ABORT);
    CHECK(pack_set_n(back) == pack_set_n(s) && pack_set_n(s) > 3000);
    for (size_t i = 0; i < pack_set_n(s); i++)
        missing += !pack_set_has(back, pack_set_at(s, i));
    CHECK(missing == 0);
    n = a_pack(9, PACK_DATA, 1);
    CHECK(!pack_set_has(s, &n));
    pack_set_free(s);
    pack_set_free(back);
}

static void
test_pack_set_refuses(void)
{
#define SID "{\"0123456789abcdef0123456789abcdef\":"
    static const char *const bad[] = {
        "[]",
        "{\"x\":{}}",
        SID "[]}",
        SID "{\"data\":{}}}",
        SID "{\"data\":[[2,1]]}}",
        SID "{\"data\":[[1,2],[2,3]]}}",
        SID "{\"data\":[[1]]}}",
        SID "{\"data\":[[-1,2]]}}",
        SID "{\"data\":[[1,4294967296]]}}",
        SID "{\"data\":[[0,4294967295]]}}", /* 4 Gi packs from 20 bytes */
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct pack_set *s = pack_set_new();
        CLEANUP_JV struct jv *j = NULL;
        struct err err = ERR_INIT;

        CHECK_OK(jv_parse(bad[i], strlen(bad[i]), 8, &j, ERR_ABORT), ERR_ABORT);
        CHECK(pack_set_from_json(s, j, &err) < 0);
        CHECK(err.code == ERR_CORRUPT);
        pack_set_free(s);
    }
}

static void
test_pack_names(void)
{
    struct pack_name n = a_pack(0xab, PACK_META, 0x1f), back;
    char key[REPO_KEY_MAX];

    pack_key(&n, key);
    CHECK(pack_name_parse(key, &back));
    CHECK(back.class == n.class && back.seq == n.seq &&
          memcmp(back.sid, n.sid, sizeof n.sid) == 0);
    key[0] = 'x';
    CHECK(!pack_name_parse(key, &back));
    CHECK(!pack_name_parse("data/abcd/1", &back));
    CHECK(!pack_name_parse("data/ABABABABABABABABABABABABABABABAB/0000001f",
                           &back));
}

/* -- sessions ---------------------------------------------------------------*/

static void
wait_ms(unsigned ms)
{
    (void)poll(NULL, 0, (int)ms);
}

static void
test_beats(void)
{
    struct registration *g = NULL;
    struct session_list l = {NULL, 0};
    struct deadline d = deadline_in(20000);
    struct fixture f;
    uint64_t beat = 0;

    fixture_begin(&f);
    repo_beat_ns = 20 * 1000 * 1000;
    CHECK_OK(registration_new(f.r, "put", "web1", NULL, true, &g, ERR_ABORT),
             ERR_ABORT);
    while (beat < 3 && deadline_left(d) > 0) {
        CHECK_OK(session_list_read(f.r, &l, ERR_ABORT), ERR_ABORT);
        CHECK(l.n == 1);
        beat = l.v[0].beat;
        CHECK_STR(l.v[0].sid, registration_sid(g));
        CHECK_STR(l.v[0].what, "put");
        CHECK_STR(l.v[0].machine, "web1");
        CHECK(l.v[0].pid == getpid() && !l.v[0].ended);
        session_list_done(&l);
        wait_ms(10);
    }
    CHECK(beat >= 3);
    registration_free(g, false);
    repo_beat_ns = 20ull * 1000000000;
    CHECK(tmpdir_count(f.dir, "session") == 0);
    CHECK(tmpdir_count(f.dir, "beat") == 0);
    fixture_end(&f);
}

static void
test_session_texts(void)
{
    static const char *const odd[] = {
        "", "{", "[]", "{\"what\":7}", "{\"what\":\"later\"}", "\xff",
    };
    static const char pin[] =
        "{\"what\":\"pin\",\"points\":[\"ffffffffffffffffffffffffffffffff\",7,"
        "\"x\",\"00000000000000000000000000000000\"]}";
    struct session_info s;

    for (size_t i = 0; i < ARRAY_SIZE(odd); i++) {
        CHECK_OK(session_info_parse("a", odd[i], strlen(odd[i]), &s, ERR_ABORT),
                 ERR_ABORT);
        CHECK_STR(s.what, "put"); /* what nobody understands is a writer */
        id_list_done(&s.pins);
    }
    CHECK_OK(session_info_parse("a", pin, strlen(pin), &s, ERR_ABORT),
             ERR_ABORT);
    CHECK_STR(s.what, "pin");
    CHECK(s.pins.n == 2);
    CHECK(id_list_has(&s.pins, "ffffffffffffffffffffffffffffffff"));
    id_list_done(&s.pins);
}

/* A process that has ended, here and elsewhere. */
static void
test_dead(void)
{
    struct session_info s = {.pid = 0};
    pid_t pid = fork();

    CHECK(pid >= 0);
    if (pid == 0)
        _exit(0);
    session_scope(s.scope, sizeof s.scope);
    CHECK(s.scope[0] != '\0');
    s.pid = pid;
    CHECK(!session_is_dead(&s)); /* a zombie is still a process */
    CHECK(waitpid(pid, NULL, 0) == pid);
    CHECK(session_is_dead(&s));
    s.scope[0] ^= 1;
    CHECK(!session_is_dead(&s));
    s.scope[0] ^= 1;
    s.pid = getpid();
    CHECK(!session_is_dead(&s));
}

static int
begin_for(struct repo *r, const char *machine, struct err *err)
{
    struct repo_session_opts opts = REPO_SESSION_OPTS;
    struct repo_session *s = NULL;
    int result;

    opts.machine = machine;
    result = repo_session_begin(r, &opts, &s, err);
    repo_session_free(s);
    return result;
}

static void
test_one_writer(void)
{
    struct registration *g = NULL;
    struct err err = ERR_INIT;
    struct fixture f;
    char sid[REPO_SID_TEXT];

    fixture_begin(&f);
    repo_beat_ns = 100 * 1000 * 1000;
    CHECK_OK(registration_new(f.r, "put", "web1", NULL, true, &g, ERR_ABORT),
             ERR_ABORT);
    CHECK(begin_for(f.r, "web1", &err) < 0);
    CHECK(err.code == ERR_LOCKED);
    CHECK(strstr(err.msg, "another backup of machine 'web1'") != NULL);
    CHECK_OK(begin_for(f.r, "web2", ERR_ABORT), ERR_ABORT);

    /* One that has committed, or whose heart stands still, is in nobody's way. */
    (void)strcpy(sid, registration_sid(g));
    registration_free(g, true);
    CHECK_OK(begin_for(f.r, "web1", ERR_ABORT), ERR_ABORT);
    CHECK(session_fence(f.r, sid, "test", ERR_ABORT) == 1);
    CHECK_OK(begin_for(f.r, "web1", ERR_ABORT), ERR_ABORT);
    repo_beat_ns = 20ull * 1000000000;
    fixture_end(&f);
}

static void
test_fence(void)
{
    struct fixture f;
    struct repo_session *s;
    struct chunk_id id;
    uint8_t data[LEN];
    struct err err = ERR_INIT;
    char sid[REPO_SID_TEXT];

    fixture_begin(&f);
    s = fixture_session(f.r, 1);
    fixture_fill(data, sizeof data, 1, true);
    CHECK_OK(repo_put(s, 0, data, sizeof data, NULL, &id, NULL, ERR_ABORT),
             ERR_ABORT);
    (void)strcpy(sid, session_sid(s));
    CHECK(session_fence(f.r, sid, "test", ERR_ABORT) == 1);
    CHECK(session_fence(f.r, sid, "test", ERR_ABORT) == 1); /* still fenced */
    CHECK(fixture_commit(s, &err) < 0);
    CHECK(err.code == ERR_EXISTS);
    repo_session_free(s);
    CHECK(tmpdir_count(f.dir, "data") == 0);

    s = fixture_session(f.r, 1);
    CHECK_OK(repo_put(s, 0, data, sizeof data, NULL, &id, NULL, ERR_ABORT),
             ERR_ABORT);
    (void)strcpy(sid, session_sid(s));
    CHECK_OK(fixture_commit(s, ERR_ABORT), ERR_ABORT);
    repo_session_free(s);
    CHECK(session_fence(f.r, sid, "test", ERR_ABORT) == 0); /* too late */
    fixture_end(&f);
}

/* -- what others have noted -------------------------------------------------*/

static void
put_one(struct repo *r, uint64_t seed, bool want_new)
{
    struct repo_session *s = fixture_session(r, 1);
    struct put_stat stat;
    struct chunk_id id;
    uint8_t data[LEN];

    fixture_fill(data, sizeof data, seed, true);
    CHECK_OK(repo_put(s, 0, data, sizeof data, NULL, &id, &stat, ERR_ABORT),
             ERR_ABORT);
    CHECK(stat.is_new == want_new);
    CHECK_OK(fixture_commit(s, ERR_ABORT), ERR_ABORT);
    repo_session_free(s);
}

static void
locate_seed(struct repo *r, uint64_t seed, struct locator *l,
            struct pack_name *pack)
{
    struct repo_session *s = fixture_session(r, 1);
    char key[REPO_KEY_MAX];
    struct chunk_id id;
    uint8_t data[LEN];

    fixture_fill(data, sizeof data, seed, true);
    CHECK_OK(repo_put(s, 0, data, sizeof data, NULL, &id, NULL, ERR_ABORT),
             ERR_ABORT);
    CHECK(index_find(r, &id, l, ERR_ABORT) == 1);
    CHECK_OK(locator_pack_key(r, l, key), ERR_ABORT);
    CHECK(pack_name_parse(key, pack));
    repo_session_free(s);
}

static struct jv *
set_of(const struct pack_name *n)
{
    struct pack_set *s = pack_set_new();
    struct jv *j;

    CHECK_OK(pack_set_add(s, n, ERR_ABORT), ERR_ABORT);
    j = pack_set_to_json(s);
    pack_set_free(s);
    return j;
}

#define NAME "00112233445566778899aabbccddeeff"

/* A condemned pack is still read and never reused. */
static void
test_condemned(void)
{
    CLEANUP_JV struct jv *j = NULL;
    struct pack_name pack;
    struct fixture f;
    struct locator l;

    fixture_begin(&f);
    put_one(f.r, 1, true);
    put_one(f.r, 1, false);
    locate_seed(f.r, 1, &l, &pack);
    j = jv_build("{s:o}", "packs", set_of(&pack));
    CHECK_OK(record_write(f.r, "gc/" NAME ".condemned", COMMIT_CONDEMNED, j,
                          ERR_ABORT),
             ERR_ABORT);
    put_one(f.r, 1, true);
    put_one(f.r, 1, false); /* the new copy is reused */
    fixture_end(&f);
}

/* Nothing is reused while a condemned list cannot be read. */
static void
test_condemned_damaged(void)
{
    struct fixture f;

    fixture_begin(&f);
    put_one(f.r, 1, true);
    CHECK_OK(store_put(f.r->store, "gc/" NAME ".condemned", "x", 1, ERR_ABORT),
             ERR_ABORT);
    put_one(f.r, 1, true);
    fixture_end(&f);
}

static void
test_bad(void)
{
    CLEANUP_JV struct jv *j = NULL;
    struct pack_name pack;
    struct fixture f;
    struct locator l;
    char key[REPO_KEY_MAX];

    fixture_begin(&f);
    put_one(f.r, 1, true);
    locate_seed(f.r, 1, &l, &pack);
    pack_key(&pack, key);
    j = jv_build("{s:[{s:s, s:[I]}]}", "frames", "pack", key, "at",
                 (int64_t)l.offset);
    CHECK_OK(record_write(f.r, "bad/" NAME, COMMIT_BAD, j, ERR_ABORT),
             ERR_ABORT);
    put_one(f.r, 1, true);
    put_one(f.r, 1, false);
    fixture_reopen(&f);
    put_one(f.r, 1, false);
    fixture_end(&f);
}

static void
test_record_names(void)
{
    CLEANUP_JV struct jv *j = jv_build("{s:s}", "why", "test");
    CLEANUP_JV struct jv *back = NULL;
    struct err err = ERR_INIT;
    struct fixture f;
    char from[2 * TMPDIR_MAX], to[2 * TMPDIR_MAX];

    fixture_begin(&f);
    CHECK_OK(record_write(f.r, "forget/" NAME, COMMIT_FORGET, j, ERR_ABORT),
             ERR_ABORT);
    CHECK_OK(record_read(f.r, "forget/" NAME, COMMIT_FORGET, &back, ERR_ABORT),
             ERR_ABORT);
    jv_free(TAKE_PTR(back));
    CHECK(record_read(f.r, "forget/" NAME, COMMIT_BAD, &back, &err) < 0);
    CHECK(err.code == ERR_CORRUPT);
    err_clear(&err);
    (void)snprintf(from, sizeof from, "%s/forget/" NAME, f.dir);
    (void)snprintf(to, sizeof to, "%s/forget/f0112233445566778899aabbccddeeff",
                   f.dir);
    CHECK(rename(from, to) == 0);
    CHECK(record_read(f.r, "forget/f0112233445566778899aabbccddeeff",
                      COMMIT_FORGET, &back, &err) < 0);
    CHECK(err.code == ERR_CORRUPT);
    CHECK(strstr(err.msg, "under a wrong name") != NULL);
    fixture_end(&f);
}

/* -- forgotten and pinned points --------------------------------------------*/

static void
add_point(struct repo *r, const char *machine, char id[REPO_SID_TEXT])
{
    struct repo_session *s = fixture_session(r, 1);
    struct point *p = point_new();

    p->machine = strdup(machine);
    p->consistency = strdup("crash");
    p->capture = strdup("pull");
    CHECK_OK(repo_commit(s, p, ERR_ABORT), ERR_ABORT);
    memcpy(id, p->id, REPO_SID_TEXT);
    point_free(p);
    repo_session_free(s);
}

static void
test_forget(void)
{
    char a[REPO_SID_TEXT], b[REPO_SID_TEXT], c[REPO_SID_TEXT];
    struct point_list l = {0};
    struct err err = ERR_INIT;
    struct fixture f;

    fixture_begin(&f);
    add_point(f.r, "web1", a);
    add_point(f.r, "web1", b);
    CHECK_OK(repo_forget(f.r, b, "test", ERR_ABORT), ERR_ABORT);
    CHECK_OK(repo_forget(f.r, b, "test", ERR_ABORT), ERR_ABORT);
    CHECK(repo_forget(f.r, NAME, "test", &err) < 0);
    CHECK(err.code == ERR_NOT_FOUND);
    CHECK_OK(repo_points(f.r, "web1", &l, NULL, ERR_ABORT), ERR_ABORT);
    CHECK(l.n == 1);
    CHECK_STR(l.v[0]->id, a);
    point_list_done(&l);

    /* Its number is not used again: the chain goes on behind it. */
    add_point(f.r, "web1", c);
    CHECK_OK(repo_points(f.r, "web1", &l, NULL, ERR_ABORT), ERR_ABORT);
    CHECK(l.n == 2 && l.v[1]->seq == 3);
    CHECK_STR(l.v[1]->parent, b);
    point_list_done(&l);
    fixture_end(&f);
}

static void
test_pin(void)
{
    char a[REPO_SID_TEXT];
    const char *ids[1] = {a};
    struct session_list l = {NULL, 0};
    struct repo_pin *p = NULL, *q = NULL;
    struct err err = ERR_INIT;
    struct fixture f;

    fixture_begin(&f);
    add_point(f.r, "web1", a);
    CHECK_OK(repo_pin_new(f.r, ids, 1, &p, ERR_ABORT), ERR_ABORT);
    CHECK_OK(session_list_read(f.r, &l, ERR_ABORT), ERR_ABORT);
    CHECK(l.n == 1 && id_list_has(&l.v[0].pins, a));
    CHECK_STR(l.v[0].what, "pin");
    session_list_done(&l);
    CHECK_OK(repo_forget(f.r, a, "test", ERR_ABORT), ERR_ABORT);
    CHECK(repo_pin_new(f.r, ids, 1, &q, &err) < 0);
    CHECK(err.code == ERR_NOT_FOUND && q == NULL);
    repo_pin_free(p);
    CHECK(tmpdir_count(f.dir, "session") == 0);
    fixture_end(&f);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_pack_set),      TEST(test_pack_set_refuses),
        TEST(test_pack_names),    TEST(test_beats),
        TEST(test_session_texts), TEST(test_one_writer),
        TEST(test_fence),         TEST(test_dead),
        TEST(test_condemned),     TEST(test_condemned_damaged),
        TEST(test_bad),           TEST(test_record_names),
        TEST(test_forget),        TEST(test_pin),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
