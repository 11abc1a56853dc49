/* The reader when its server dies, stops, or the user has had enough: every
 * read that was started ends exactly once. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include "cleanup.h"
#include "reads.h"

#define N_SLOW 12

static void
start_slow_reads(struct nbd_reader *r, struct one_read *reads)
{
    struct err err = ERR_INIT;

    for (int i = 0; i < N_SLOW; i++)
        CHECK_OK(start_read(r, &reads[i], (uint64_t)i * 65536, 65536, &err),
                 &err);
}

static void
check_all_failed_once(struct one_read *reads, int error)
{
    for (int i = 0; i < N_SLOW; i++) {
        CHECK(reads[i].n_done == 1);
        CHECK(reads[i].error == error);
        free(reads[i].buf);
    }
}

/* Nothing works on a dead reader, and it keeps saying why. */
static void
check_dead(struct nbd_reader *r, enum err_code code)
{
    struct nbd_extents e = {0};
    struct one_read o = {0};
    uint8_t buf[16];
    struct err err = ERR_INIT;

    CHECK(nbd_reader_wait(r, 0, &err) == -1 && err.code == code);
    err_clear(&err);
    CHECK(nbd_reader_zero(r, 0, 512, &e, &err) == -1 && err.code == code);
    err_clear(&err);
    CHECK(nbd_reader_read(r, buf, 0, 16, on_read, &o, &err) == -1);
    CHECK(err.code == code);
    CHECK(o.n_done == 0);
}

static void
test_killed_server_ends_every_read_once(void)
{
    struct server s = {0};
    struct nbd_reader_opts o;
    struct nbd_reader *r;
    struct one_read reads[N_SLOW];
    struct err err = ERR_INIT;

    server_nbdkit(&s, "--filter=delay pattern 1M rdelay=1000");
    o = opts_for(&s);
    r = open_reader(&o);
    start_slow_reads(r, reads);
    server_signal(&s, SIGKILL);
    CHECK(nbd_reader_wait(r, 0, &err) == -1);
    CHECK(err.code == ERR_CLOSED);
    check_all_failed_once(reads, ENOTCONN);
    check_dead(r, ERR_CLOSED);
    nbd_reader_close(r);
    server_stop(&s);
}

static void
test_stopped_server_meets_the_deadline(void)
{
    CLEANUP(nbd_extents_done) struct nbd_extents e = {0};
    struct server s = {0};
    struct nbd_reader_opts o;
    struct nbd_reader *r, *r2;
    struct one_read reads[N_SLOW];
    struct err err = ERR_INIT;

    server_nbdkit(&s, "pattern 1M");
    o = opts_for(&s);
    o.timeout_ms = 300;
    r = open_reader(&o);
    r2 = open_reader(&o);
    server_signal(&s, SIGSTOP);
    start_slow_reads(r, reads);
    CHECK(nbd_reader_wait(r, 0, &err) == -1);
    CHECK(err.code == ERR_TIMEOUT);
    check_all_failed_once(reads, ETIMEDOUT);
    check_dead(r, ERR_TIMEOUT);
    nbd_reader_close(r);
    err_clear(&err);
    CHECK(nbd_reader_zero(r2, 0, 1 << 20, &e, &err) == -1);
    CHECK(err.code == ERR_TIMEOUT);
    nbd_reader_close(r2);
    CHECK(open_fails(&o, &err) == ERR_TIMEOUT);
    server_stop(&s);
}

/* A reader that is left in good health says goodbye, but not for ever. */
static void
test_close_of_a_stopped_server_returns(void)
{
    struct server s = {0};
    struct nbd_reader_opts o;
    struct nbd_reader *r;

    server_nbdkit(&s, "pattern 1M");
    o = opts_for(&s);
    r = open_reader(&o);
    server_signal(&s, SIGSTOP);
    nbd_reader_close(r);
    server_stop(&s);
}

static void
test_close_ends_reads_under_way(void)
{
    struct server s = {0};
    struct nbd_reader_opts o;
    struct nbd_reader *r;
    struct one_read reads[N_SLOW];

    server_nbdkit(&s, "--filter=delay pattern 1M rdelay=1000");
    o = opts_for(&s);
    r = open_reader(&o);
    start_slow_reads(r, reads);
    nbd_reader_close(r);
    check_all_failed_once(reads, ECANCELED);
    server_stop(&s);
}

static void *
cancel_thread(void *arg)
{
    nbd_reader_cancel(arg);
    return NULL;
}

static void
test_cancel_from_another_thread(void)
{
    struct server s = {0};
    struct nbd_reader_opts o;
    struct nbd_reader *r;
    struct one_read reads[N_SLOW];
    struct err err = ERR_INIT;
    pthread_t thread;

    server_nbdkit(&s, "--filter=delay pattern 1M rdelay=1000");
    o = opts_for(&s);
    r = open_reader(&o);
    start_slow_reads(r, reads);
    CHECK(pthread_create(&thread, NULL, cancel_thread, r) == 0);
    CHECK(nbd_reader_wait(r, 0, &err) == -1);
    CHECK(err.code == ERR_CANCELED);
    CHECK(pthread_join(thread, NULL) == 0);
    check_all_failed_once(reads, ECANCELED);
    check_dead(r, ERR_CANCELED);
    nbd_reader_close(r);
    server_stop(&s);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_killed_server_ends_every_read_once),
        TEST(test_stopped_server_meets_the_deadline),
        TEST(test_close_of_a_stopped_server_returns),
        TEST(test_close_ends_reads_under_way),
        TEST(test_cancel_from_another_thread),
    };

    if (!have_program("nbdkit")) {
        printf("1..0 # SKIP nbdkit is not installed\n");
        return 0;
    }
    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
