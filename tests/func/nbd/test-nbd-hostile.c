/* The reader against servers that break the protocol: it may fail, but it must
 * not crash, hang, or believe them. */
#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "hostile.h"
#include "reads.h"

#define SIZE (1u << 20)

static struct nbd_reader_opts
hostile_opts(const struct server *s)
{
    struct nbd_reader_opts o = opts_for(s);

    o.dirty_context = "qemu:dirty-bitmap:b0";
    o.connections = 2;
    return o;
}

static struct nbd_reader *
open_hostile(struct server *s, const struct hostile *h)
{
    struct nbd_reader_opts o;

    server_hostile(s, h);
    o = hostile_opts(s);
    return open_reader(&o);
}

/* Both contexts give this error and nothing else. */
static void
status_fails(const struct hostile *h, enum err_code code)
{
    CLEANUP(nbd_extents_done) struct nbd_extents e = {0};
    struct server s = {0};
    struct nbd_reader *r = open_hostile(&s, h);
    struct err err = ERR_INIT;

    CHECK(nbd_reader_dirty(r, 0, SIZE, &e, &err) == -1);
    CHECK(err.code == code);
    CHECK(e.n == 0);
    err_clear(&err);
    CHECK(nbd_reader_zero(r, 0, SIZE, &e, &err) == -1);
    CHECK(err.code == code);
    CHECK(e.n == 0);
    nbd_reader_close(r);
    server_stop(&s);
}

static void
test_bad_extents_are_protocol_errors(void)
{
    const enum status_mode modes[] = {
        STATUS_EMPTY,  STATUS_NONE,      STATUS_TWICE,    STATUS_WRONG_ID,
        STATUS_BEHIND, STATUS_UNALIGNED, STATUS_HALF_PAIR};

    for (size_t i = 0; i < ARRAY_SIZE(modes); i++)
        status_fails(&(struct hostile){.size = SIZE,
                                       .status = modes[i],
                                       .block_min = 512,
                                       .block_pref = 4096,
                                       .block_max = SIZE},
                     ERR_PROTOCOL);
}

static void
test_extent_error_is_remote(void)
{
    status_fails(&(struct hostile){.size = SIZE, .status = STATUS_ERROR},
                 ERR_REMOTE);
}

static void
test_short_answers_are_put_together(void)
{
    CLEANUP(nbd_extents_done) struct nbd_extents e = {0};
    struct server s = {0};
    struct nbd_reader *r = open_hostile(
        &s, &(struct hostile){.size = SIZE, .status = STATUS_SHORT});

    CHECK_OK(nbd_reader_dirty(r, 1000, SIZE - 1000, &e, ERR_ABORT), ERR_ABORT);
    CHECK(e.n >= 2 && e.v[0].off == 1000);
    CHECK(e.v[e.n - 1].off + e.v[e.n - 1].len == SIZE);
    nbd_reader_close(r);
    server_stop(&s);
}

static void
test_long_answer_is_clipped(void)
{
    CLEANUP(nbd_extents_done) struct nbd_extents e = {0};
    struct server s = {0};
    struct nbd_reader *r = open_hostile(
        &s, &(struct hostile){.size = SIZE + 7, .status = STATUS_LONG});

    CHECK_OK(nbd_reader_dirty(r, 0, SIZE + 7, &e, ERR_ABORT), ERR_ABORT);
    CHECK(e.n == 1 && e.v[0].len == SIZE + 7);
    nbd_reader_close(r);
    server_stop(&s);
}

/* Success without all bytes is no success: the buffer has old bytes in it. */
static void
test_partial_reads_are_errors(void)
{
    const struct {
        enum read_mode mode;
        int error;
    } cases[] = {{READ_HALF, EPROTO},
                 {READ_NOTHING, EPROTO},
                 {READ_DATA_ERROR, EIO},
                 {READ_GOOD, 0}};
    uint8_t buf[4096];

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct server s = {0};
        struct nbd_reader *r = open_hostile(
            &s, &(struct hostile){.size = SIZE, .read = cases[i].mode});

        CHECK(read_now(r, buf, 4096, sizeof buf) == cases[i].error);
        CHECK(read_now(r, buf, 8192, sizeof buf) == cases[i].error);
        nbd_reader_close(r);
        server_stop(&s);
    }
}

/* What libnbd cannot go on after kills the reader, and each read ends once. */
static void
reader_dies(const struct hostile *h, unsigned timeout_ms, enum err_code code)
{
    struct server s = {0};
    struct nbd_reader_opts o;
    struct nbd_reader *r;
    struct one_read reads[8];
    struct err err = ERR_INIT;
    unsigned n = 0;

    server_hostile(&s, h);
    o = hostile_opts(&s);
    o.timeout_ms = timeout_ms;
    r = open_reader(&o);
    while (n < 8 && start_read(r, &reads[n], 4096 * (n + 1), 4096, &err) == 0)
        n++;
    if (n == 8)
        CHECK(nbd_reader_wait(r, 0, &err) == -1);
    else
        free(reads[n].buf);
    CHECK(err.code == code);
    for (unsigned i = 0; i < n; i++) {
        CHECK(reads[i].n_done == 1);
        CHECK(reads[i].error != 0 || h->read == READ_AFTER_DONE);
        free(reads[i].buf);
    }
    nbd_reader_close(r);
    server_stop(&s);
}

static void
test_broken_replies_kill_the_reader(void)
{
    const enum read_mode modes[] = {READ_OUTSIDE,    READ_WRONG_COOKIE,
                                    READ_AFTER_DONE, READ_TOO_LONG,
                                    READ_SIMPLE,     READ_BAD_MAGIC};

    for (size_t i = 0; i < ARRAY_SIZE(modes); i++)
        reader_dies(&(struct hostile){.size = SIZE, .read = modes[i]},
                    PATIENCE_MS, ERR_PROTOCOL);
}

static void
test_silent_server_meets_the_deadline(void)
{
    reader_dies(&(struct hostile){.size = SIZE, .read = READ_SILENT}, 300,
                ERR_TIMEOUT);
}

static void
opening_fails(const struct hostile *h, unsigned timeout_ms, enum err_code code)
{
    struct server s = {0};
    struct nbd_reader_opts o;
    struct err err = ERR_INIT;

    server_hostile(&s, h);
    o = hostile_opts(&s);
    o.timeout_ms = timeout_ms;
    CHECK(open_fails(&o, &err) == code);
    if (err.code != code)
        printf("# %s: %s\n", err_code_name(err.code), err.msg);
    server_stop(&s);
}

static void
test_absurd_sizes_are_refused(void)
{
    const uint64_t sizes[] = {UINT64_MAX, UINT64_C(1) << 63};

    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
        opening_fails(&(struct hostile){.size = sizes[i]}, PATIENCE_MS,
                      ERR_PROTOCOL);
    opening_fails(&(struct hostile){.size = SIZE, .later_size = SIZE + 512},
                  PATIENCE_MS, ERR_PROTOCOL);
}

/* Nonsense is as good as nothing said. */
static void
test_absurd_block_sizes_do_no_harm(void)
{
    const uint32_t blocks[][3] = {
        {0, 0, 1},       {3, 4096, SIZE},   {1u << 31, 1u << 31, UINT32_MAX},
        {512, 512, 511}, {4096, 512, SIZE}, {1, 4096, UINT32_MAX}};
    uint8_t buf[4096];

    for (size_t i = 0; i < ARRAY_SIZE(blocks); i++) {
        struct server s = {0};
        struct nbd_reader *r =
            open_hostile(&s, &(struct hostile){.size = SIZE,
                                               .block_min = blocks[i][0],
                                               .block_pref = blocks[i][1],
                                               .block_max = blocks[i][2]});

        CHECK(read_now(r, buf, 1, sizeof buf) == 0);
        nbd_reader_close(r);
        server_stop(&s);
    }
}

static void
test_broken_greetings(void)
{
    opening_fails(&(struct hostile){.size = SIZE, .greet = GREET_SILENT}, 300,
                  ERR_TIMEOUT);
    opening_fails(&(struct hostile){.size = SIZE, .greet = GREET_GARBAGE},
                  PATIENCE_MS, ERR_PROTOCOL);
    opening_fails(&(struct hostile){.size = SIZE, .greet = GREET_HANG_UP},
                  PATIENCE_MS, ERR_CLOSED);
    opening_fails(&(struct hostile){.size = SIZE, .greet = GREET_OTHER_CTX},
                  PATIENCE_MS, ERR_UNSUPPORTED);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_bad_extents_are_protocol_errors),
        TEST(test_extent_error_is_remote),
        TEST(test_short_answers_are_put_together),
        TEST(test_long_answer_is_clipped),
        TEST(test_partial_reads_are_errors),
        TEST(test_broken_replies_kill_the_reader),
        TEST(test_silent_server_meets_the_deadline),
        TEST(test_absurd_sizes_are_refused),
        TEST(test_absurd_block_sizes_do_no_harm),
        TEST(test_broken_greetings),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
