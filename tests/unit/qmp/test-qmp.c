/* The QMP transport against a peer that plays scripts. */
#include "qmp.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "block.h"
#include "cleanup.h"
#include "clock.h"
#include "err.h"
#include "fake.h"
#include "frame.h"
#include "jv.h"
#include "tap.h"
#include "text.h"

#define GREETING                                                        \
    "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, " \
    "\"major\": 7}, \"package\": \"\"}, \"capabilities\": [\"oob\"]}}\r\n"
#define EVENT \
    "{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": "
#define SHORT_MS 300u
#define LONG_MS 20000u

/* -- the peer's side --------------------------------------------------------*/

/* Hear a command, give its id; false when the client left. */
static bool
hear_command(struct fake *f, int fd, char *id, size_t size)
{
    CLEANUP_JV struct jv *j = NULL;
    char line[4096];

    if (!fake_hear(fd, line, sizeof line) ||
        jv_parse(line, strlen(line), 16, &j, NULL) < 0)
        return false;
    fake_record(f, jv_get_str(j, "execute"));
    (void)snprintf(id, size, "%s", jv_get_str(j, "id"));
    return true;
}

static void
reply(int fd, const char *id, const char *what)
{
    char text[1024];

    (void)snprintf(text, sizeof text, "{%s, \"id\": \"%s\"}\r\n", what, id);
    fake_say(fd, text);
}

/* Greeting and capabilities, then the id of the next command. */
static bool
hello(struct fake *f, int fd, char *id, size_t size)
{
    fake_say(fd, GREETING);
    if (!hear_command(f, fd, id, size))
        return false;
    reply(fd, id, "\"return\": {}");
    return hear_command(f, fd, id, size);
}

static struct qmp *
connected(struct fake *f, fake_fn fn)
{
    struct qmp *q = NULL;

    fake_start(f, fn);
    CHECK(qmp_connect(f->path, LONG_MS, &q, ERR_ABORT) == 0);
    return q;
}

/* -- connecting -------------------------------------------------------------*/

static void
serve_slow(struct fake *f, int fd)
{
    char id[64];

    fake_say_slowly(fd, GREETING);
    (void)hear_command(f, fd, id, sizeof id);
    reply(fd, id, "\"return\": {}");
    fake_hold(fd);
}

static void
test_greeting_byte_by_byte(void)
{
    struct fake f;
    struct qmp *q = connected(&f, serve_slow);
    unsigned uid = 1, gid = 1;
    int pid = 0;

    CHECK(qmp_version(q).major == 7 && qmp_version(q).minor == 2 &&
          qmp_version(q).micro == 22);
    CHECK(qmp_older(q, 8, 0, 0) && qmp_older(q, 7, 2, 23));
    CHECK(!qmp_older(q, 7, 2, 22) && !qmp_older(q, 6, 9, 99));
    qmp_peer(q, &uid, &gid, &pid);
    CHECK(uid == getuid() && gid == getgid() && pid == (int)getpid());
    qmp_close(q);
    fake_stop(&f);
}

static void
serve_silence(struct fake *f, int fd)
{
    fake_hold(fd);
}

static void
test_silence_is_a_timeout(void)
{
    struct err err = ERR_INIT;
    struct qmp *q = NULL;
    struct fake f;

    fake_start(&f, serve_silence);
    CHECK(qmp_connect(f.path, SHORT_MS, &q, &err) == -1 && q == NULL);
    CHECK(err.code == ERR_TIMEOUT);
    CHECK(strstr(err.msg, f.path) != NULL);
    CHECK(strstr(err.msg, "is another program connected") != NULL);
    fake_stop(&f);
}

static void
serve_nbd(struct fake *f, int fd)
{
    fake_say_bytes(fd, "NBDMAGICIHAVEOPT\0\3", 18);
    fake_hold(fd);
}

static void
test_nbd_server_is_told_at_once(void)
{
    struct err err = ERR_INIT;
    struct qmp *q = NULL;
    struct fake f;

    fake_start(&f, serve_nbd);
    CHECK(qmp_connect(f.path, LONG_MS, &q, &err) == -1);
    CHECK(err.code == ERR_PROTOCOL);
    CHECK(strstr(err.msg, "NBD server") != NULL);
    fake_stop(&f);
}

static void
serve_other_json(struct fake *f, int fd)
{
    fake_say(fd, "{\"return\": 5}\n");
    fake_hold(fd);
}

static void
test_json_without_greeting(void)
{
    struct err err = ERR_INIT;
    struct qmp *q = NULL;
    struct fake f;

    fake_start(&f, serve_other_json);
    CHECK(qmp_connect(f.path, LONG_MS, &q, &err) == -1);
    CHECK(err.code == ERR_PROTOCOL);
    CHECK(strstr(err.msg, "is no QMP socket") != NULL);
    fake_stop(&f);
}

static void
test_no_socket(void)
{
    struct err err = ERR_INIT;
    struct qmp *q = NULL;

    CHECK(qmp_connect("/nonexistent/s", SHORT_MS, &q, &err) == -1);
    CHECK(err.code == ERR_SYSTEM);
    CHECK(strstr(err.msg, "/nonexistent/s") != NULL);
}

/* -- replies ----------------------------------------------------------------*/

static char seen[128];

static void
on_event(void *arg, const char *name, const struct jv *data)
{
    const char *id = jv_get_str(data, "id");

    strcat(seen, name);
    strcat(seen, id != NULL ? id : "-");
    strcat(seen, " ");
}

static void
serve_events(struct fake *f, int fd)
{
    char id[64];

    if (!hello(f, fd, id, sizeof id))
        return;
    fake_say(fd, EVENT "\"A\", \"data\": {\"id\": \"x\"}}\r\n"
                       "\r\n" EVENT "\"B\"}\r\n");
    /* 2^64 - 1: QEMU's, and more than our JSON numbers hold. */
    fake_say(fd, EVENT "\"C\", \"data\": {\"a\": 18446744073709551615}}\r\n");
    reply(fd, id, "\"return\": {\"n\": 7}");
    fake_say(fd, EVENT "\"D\"}\r\n");
    if (!hear_command(f, fd, id, sizeof id))
        return;
    reply(fd, id, "\"return\": []");
    fake_hold(fd);
}

static void
test_events_between_command_and_reply(void)
{
    CLEANUP_JV struct jv *j = NULL;
    struct fake f;
    struct qmp *q = connected(&f, serve_events);
    int64_t n = 0;

    seen[0] = '\0';
    qmp_on_event(q, on_event, NULL);
    CHECK(qmp_call(q, "query-x", NULL, LONG_MS, &j, ERR_ABORT) == 0);
    CHECK(jv_get_int(j, "n", &n) && n == 7);
    CHECK(strncmp(seen, "Ax B- ", 6) == 0);
    while (strstr(seen, "D") == NULL)
        CHECK(qmp_pump(q, LONG_MS, ERR_ABORT) == 0);
    CHECK_STR(seen, "Ax B- D- ");
    CHECK(qmp_pump(q, 0, ERR_ABORT) == 0);
    CHECK(qmp_call(q, "query-y", NULL, LONG_MS, NULL, ERR_ABORT) == 0);
    CHECK(fake_count(&f, "query-y") == 1);
    qmp_close(q);
    fake_stop(&f);
}

static void
serve_error(struct fake *f, int fd)
{
    char id[64];

    if (!hello(f, fd, id, sizeof id))
        return;
    reply(fd, id,
          "\"error\": {\"class\": \"DeviceNotFound\", "
          "\"desc\": \"no \\u001b[31m x\"}");
    if (!hear_command(f, fd, id, sizeof id))
        return;
    reply(fd, id, "\"return\": {}");
    fake_hold(fd);
}

static void
test_refusal_leaves_the_connection_alive(void)
{
    struct err err = ERR_INIT;
    struct fake f;
    struct qmp *q = connected(&f, serve_error);

    CHECK(qmp_call(q, "eject", jv_build("{s:s}", "id", "x"), LONG_MS, NULL,
                   &err) == -1);
    CHECK(err.code == ERR_REMOTE);
    CHECK_STR(err.msg, "QEMU refused 'eject': no ?[31m x (DeviceNotFound)");
    CHECK_STR(qmp_error_class(q), "DeviceNotFound");
    CHECK_STR(qmp_error_desc(q), "no ?[31m x");
    CHECK(qmp_call(q, "query-x", NULL, LONG_MS, NULL, ERR_ABORT) == 0);
    CHECK_STR(qmp_error_class(q), "");
    qmp_close(q);
    fake_stop(&f);
}

/* -- a dead connection stays dead --------------------------------------------*/

static void
dies(fake_fn fn, unsigned timeout_ms, enum err_code code, const char *text)
{
    struct err err = ERR_INIT, again = ERR_INIT, third = ERR_INIT;
    struct fake f;
    struct qmp *q = connected(&f, fn);

    CHECK(qmp_call(q, "query-x", NULL, timeout_ms, NULL, &err) == -1);
    CHECK(err.code == code);
    if (strstr(err.msg, text) == NULL) {
        printf("# '%s' has no '%s'\n", err.msg, text);
        CHECK(!"the error's text");
    }
    CHECK(qmp_call(q, "query-y", jv_object(), LONG_MS, NULL, &again) == -1);
    CHECK_STR(again.msg, err.msg);
    CHECK(again.code == code);
    CHECK(qmp_pump(q, LONG_MS, &third) == -1);
    CHECK_STR(third.msg, err.msg);
    CHECK(fake_count(&f, "query-y") == 0);
    qmp_close(q);
    fake_stop(&f);
}

static void
serve_wrong_id(struct fake *f, int fd)
{
    char id[64];

    if (hello(f, fd, id, sizeof id))
        reply(fd, "tm-0000-2", "\"return\": {}");
    fake_hold(fd);
}

static void
serve_no_id(struct fake *f, int fd)
{
    char id[64];

    if (hello(f, fd, id, sizeof id))
        fake_say(fd, "{\"error\": {\"class\": \"GenericError\", "
                     "\"desc\": \"JSON parse error\"}}\n");
    fake_hold(fd);
}

static void
serve_neither(struct fake *f, int fd)
{
    char id[64];

    if (hello(f, fd, id, sizeof id))
        reply(fd, id, "\"result\": {}");
    fake_hold(fd);
}

static void
serve_half(struct fake *f, int fd)
{
    char id[64];

    if (hello(f, fd, id, sizeof id))
        fake_say(fd, "{\"return\": {\"a\": ");
}

static void
serve_then_silence(struct fake *f, int fd)
{
    char id[64];

    (void)hello(f, fd, id, sizeof id);
    fake_hold(fd);
}

static void
serve_depth(struct fake *f, int fd)
{
    char id[64];

    if (hello(f, fd, id, sizeof id)) {
        fake_say(fd, "{\"return\": ");
        for (int i = 0; i < 100000; i++)
            fake_say(fd, "[");
        fake_say(fd, "\n");
    }
    fake_hold(fd);
}

static void
serve_oversize(struct fake *f, int fd)
{
    static char x[1 << 20];
    char id[64];

    memset(x, 'x', sizeof x);
    if (hello(f, fd, id, sizeof id))
        for (unsigned i = 0; i < QMP_LINE_MAX / sizeof x + 1; i++)
            fake_say_bytes(fd, x, sizeof x);
    fake_hold(fd);
}

/* Events without end, and never the reply. */
static void
serve_flood(struct fake *f, int fd)
{
    char id[64];

    if (!hello(f, fd, id, sizeof id))
        return;
    while (write(fd, EVENT "\"A\"}\n", sizeof EVENT "\"A\"}\n" - 1) > 0)
        continue;
}

static void
test_wrong_id(void)
{
    dies(serve_wrong_id, LONG_MS, ERR_PROTOCOL, "not to this command");
    dies(serve_no_id, LONG_MS, ERR_PROTOCOL, "JSON parse error");
}

static void
test_neither_result_nor_error(void)
{
    dies(serve_neither, LONG_MS, ERR_PROTOCOL, "neither a result");
}

static void
test_end_of_file_in_a_reply(void)
{
    dies(serve_half, LONG_MS, ERR_CLOSED, "QEMU closed the connection");
    dies(serve_half, LONG_MS, ERR_CLOSED, "during 'query-x'");
}

static void
test_no_reply_in_time(void)
{
    dies(serve_then_silence, SHORT_MS, ERR_TIMEOUT, "'query-x' on '/tmp/");
}

static void
test_too_deep(void)
{
    dies(serve_depth, LONG_MS, ERR_PROTOCOL, "deeper than 64");
}

static void
test_oversize_line(void)
{
    dies(serve_oversize, LONG_MS, ERR_PROTOCOL, "longer than");
}

static void
test_flood_of_events_does_not_move_the_deadline(void)
{
    dies(serve_flood, SHORT_MS, ERR_TIMEOUT, "query-x");
}

/* A peer that does not read: the command does not fit the socket's buffer. */
static void
serve_deaf(struct fake *f, int fd)
{
    char id[64];

    fake_say(fd, GREETING);
    (void)hear_command(f, fd, id, sizeof id);
    reply(fd, id, "\"return\": {}");
    (void)fake_await_value(&f->shared->silent, 1);
}

static void
test_stopped_peer_blocks_no_write(void)
{
    struct err err = ERR_INIT;
    struct fake f;
    struct qmp *q = connected(&f, serve_deaf);
    char *big = malloc(4 << 20);

    memset(big, 'x', (4 << 20) - 1);
    big[(4 << 20) - 1] = '\0';
    CHECK(qmp_call(q, "query-x", jv_build("{s:s}", "a", big), SHORT_MS, NULL,
                   &err) == -1);
    CHECK(err.code == ERR_TIMEOUT);
    f.shared->silent = 1;
    free(big);
    qmp_close(q);
    fake_stop(&f);
}

/* -- block.h ----------------------------------------------------------------*/

/* A job that goes through every state, one per question. */
static void
serve_job(struct fake *f, int fd)
{
    static const char *const status[] = {"running", "running", "aborting",
                                         "concluded"};
    char id[64], text[200];
    unsigned n = 0;
    bool more = hello(f, fd, id, sizeof id);

    while (more) {
        const char *c = f->shared->command[f->shared->n_commands - 1];

        if (strcmp(c, "query-jobs") != 0) {
            reply(fd, id, "\"return\": {}");
        } else if (n < ARRAY_SIZE(status)) {
            (void)snprintf(text, sizeof text,
                           "\"return\": [{\"id\": \"other\", \"status\": "
                           "\"ready\"}, {\"id\": \"j\", \"status\": \"%s\"}]",
                           status[n++]);
            reply(fd, id, text);
        } else {
            reply(fd, id, "\"return\": []");
        }
        more = hear_command(f, fd, id, sizeof id);
    }
}

static void
test_job_is_cancelled_once_and_dismissed(void)
{
    struct fake f;
    struct qmp *q = connected(&f, serve_job);

    CHECK(qmp_job_end(q, "j", LONG_MS, ERR_ABORT) == 0);
    CHECK(fake_count(&f, "job-cancel") == 1);
    CHECK(fake_count(&f, "job-dismiss") == 1);
    CHECK(fake_count(&f, "query-jobs") == 5);
    qmp_close(q);
    fake_stop(&f);
}

/* A thing that never goes away, and every push is refused. */
static void
serve_stuck(struct fake *f, int fd)
{
    char id[64];
    bool more = hello(f, fd, id, sizeof id);

    while (more) {
        const char *c = f->shared->command[f->shared->n_commands - 1];

        if (strcmp(c, "query-jobs") == 0)
            reply(fd, id,
                  "\"return\": [{\"id\": \"j\", \"status\": \"aborting\"}]");
        else if (strcmp(c, "query-block-exports") == 0)
            reply(fd, id, "\"return\": [{\"id\": \"e\"}]");
        else if (strcmp(c, "query-named-block-nodes") == 0)
            reply(fd, id,
                  "\"return\": [{\"node-name\": \"n\", \"dirty-bitmaps\": "
                  "[{\"name\": \"b\"}]}]");
        else
            reply(fd, id,
                  "\"error\": {\"class\": \"GenericError\", \"desc\": "
                  "\"is busy\"}");
        more = hear_command(f, fd, id, sizeof id);
    }
}

static void
test_endings_have_a_deadline(void)
{
    struct err err = ERR_INIT;
    struct fake f;
    struct qmp *q = connected(&f, serve_stuck);

    CHECK(qmp_job_end(q, "j", SHORT_MS, &err) == -1);
    CHECK(err.code == ERR_TIMEOUT);
    CHECK(strstr(err.msg, "job 'j' is still aborting") != NULL);
    err_clear(&err);
    CHECK(qmp_export_end(q, "e", SHORT_MS, &err) == -1);
    CHECK(err.code == ERR_REMOTE && strstr(err.msg, "is busy") != NULL);
    err_clear(&err);
    CHECK(qmp_node_end(q, "n", SHORT_MS, &err) == -1);
    CHECK(err.code == ERR_REMOTE);
    err_clear(&err);
    CHECK(qmp_bitmap_end(q, "n", "b", SHORT_MS, &err) == -1);
    CHECK(err.code == ERR_REMOTE);
    /* The connection is alive: nothing was cut short. */
    CHECK(qmp_bitmap_end(q, "n", "other", SHORT_MS, ERR_ABORT) == 0);
    CHECK(qmp_job_end(q, "other", SHORT_MS, ERR_ABORT) == 0);
    qmp_close(q);
    fake_stop(&f);
}

static void
test_action(void)
{
    CLEANUP_JV struct jv *j = qmp_action("x", jv_build("{s:i}", "n", 1));
    int64_t n = 0;

    CHECK_STR(jv_get_str(j, "type"), "x");
    CHECK(jv_get_int(j, "data.n", &n) && n == 1);
    CHECK(qmp_action("x", NULL) == NULL);
}

/* -- pure parts -------------------------------------------------------------*/

static void
test_frame_limits(void)
{
    struct err err = ERR_INIT;
    const char *line;
    struct frame f;
    size_t len;

    frame_init(&f, 4);
    CHECK(frame_add(&f, "abcd\r\nab", 8, ERR_ABORT) == 0);
    CHECK(frame_line(&f, &line, &len, ERR_ABORT) == 1);
    CHECK(len == 4 && memcmp(line, "abcd", 4) == 0);
    CHECK(frame_line(&f, &line, &len, ERR_ABORT) == 0);
    CHECK(frame_add(&f, "cde\n", 4, ERR_ABORT) == 0);
    CHECK(frame_line(&f, &line, &len, &err) == -1);
    CHECK(err.code == ERR_PROTOCOL);
    frame_reset(&f);
    err_clear(&err);
    CHECK(frame_add(&f, "abcdef", 6, ERR_ABORT) == 0);
    CHECK(frame_line(&f, &line, &len, &err) == -1);
    frame_done(&f);
}

static void
test_frame_marked_drops_what_is_before_the_mark(void)
{
    const char *line;
    struct frame f;
    size_t len;

    frame_init(&f, 8);
    CHECK(frame_add(&f,
                    "old\nx\xff"
                    "half\xff"
                    "ab",
                    13, ERR_ABORT) == 0);
    CHECK(frame_marked(&f, &line, &len) == 0);
    CHECK(frame_add(&f, "c\nrest\n", 7, ERR_ABORT) == 0);
    CHECK(frame_marked(&f, &line, &len) == 1);
    CHECK(len == 3 && memcmp(line, "abc", 3) == 0);
    CHECK(frame_marked(&f, &line, &len) == 0);
    /* A marked line without end is dropped too, and costs no memory. */
    CHECK(frame_add(&f, "\xff", 1, ERR_ABORT) == 0);
    for (int i = 0; i < 100; i++) {
        CHECK(frame_add(&f, "xxxxx", 5, ERR_ABORT) == 0);
        CHECK(frame_marked(&f, &line, &len) == 0);
        CHECK(frame_pending(&f, NULL) <= 10);
    }
    CHECK(frame_add(&f,
                    "\n\xff"
                    "z\n",
                    4, ERR_ABORT) == 0);
    CHECK(frame_marked(&f, &line, &len) == 1 && len == 1);
    frame_done(&f);
}

static void
test_text_is_harmless(void)
{
    char out[16];

    CHECK_STR(text_clean("a\x1b[1mb", 6, out, sizeof out), "a?[1mb");
    CHECK_STR(text_clean("\xc2\x9b|\xff|", 5, out, sizeof out), "??|?|");
    CHECK_STR(text_clean("\xc3\xa4\xe2\x80\xae", 5, out, sizeof out),
              "\xc3\xa4???");
    CHECK_STR(text_clean("0123456789", 10, out, 5), "0123");
    CHECK_STR(text_clean("012\xc3\xa4", 5, out, 5), "012");
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_greeting_byte_by_byte),
        TEST(test_silence_is_a_timeout),
        TEST(test_nbd_server_is_told_at_once),
        TEST(test_json_without_greeting),
        TEST(test_no_socket),
        TEST(test_events_between_command_and_reply),
        TEST(test_refusal_leaves_the_connection_alive),
        TEST(test_wrong_id),
        TEST(test_neither_result_nor_error),
        TEST(test_end_of_file_in_a_reply),
        TEST(test_no_reply_in_time),
        TEST(test_too_deep),
        TEST(test_oversize_line),
        TEST(test_flood_of_events_does_not_move_the_deadline),
        TEST(test_stopped_peer_blocks_no_write),
        TEST(test_job_is_cancelled_once_and_dismissed),
        TEST(test_endings_have_a_deadline),
        TEST(test_action),
        TEST(test_frame_limits),
        TEST(test_frame_marked_drops_what_is_before_the_mark),
        TEST(test_text_is_harmless),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
