/* The guest agent's client against agents that lie, stall and drip. */
#include "agent.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent_proto.h"
#include "cleanup.h"
#include "clock.h"
#include "err.h"
#include "fake.h"
#include "frame.h"
#include "jv.h"
#include "tap.h"

#define SHORT_MS 300u
#define LONG_MS 20000u

/* -- the peer's side --------------------------------------------------------*/

/* Hear guest-sync-delimited and give its id. */
static bool
hear_sync(int fd, long long *id)
{
    char line[1024];
    const char *p;

    if (!fake_hear(fd, line, sizeof line) ||
        strstr(line, "guest-sync-delimited") == NULL)
        return false;
    p = strstr(line, "\"id\":");
    return p != NULL && sscanf(p + 5, "%lld", id) == 1;
}

static void
say_sync(int fd, long long id)
{
    char text[80];

    (void)snprintf(text, sizeof text, "\xff{\"return\": %lld}\n", id);
    fake_say(fd, text);
}

/* What the scripts below answer to the command after a good synchronisation;
 * set before the peer is forked. */
static const char *answer;
static size_t answer_len;

static void
serve_answer(struct fake *f, int fd)
{
    char line[1024];
    long long id;

    while (hear_sync(fd, &id)) {
        say_sync(fd, id);
        if (!fake_hear(fd, line, sizeof line))
            return;
        fake_say_bytes(fd, answer, answer_len);
    }
}

/* -- the test's side --------------------------------------------------------*/

/* Ask for the freeze status of an agent that answers `text`. */
static int
status_of(const char *text, struct err *err)
{
    struct agent *a = NULL;
    bool frozen = false;
    struct fake f;
    int r;

    answer = text;
    answer_len = strlen(text);
    fake_start(&f, serve_answer);
    CHECK(agent_open(f.path, LONG_MS, &a, ERR_ABORT) == 0);
    r = agent_frozen(a, LONG_MS, &frozen, err);
    agent_close(a);
    fake_stop(&f);
    return r < 0 ? -1 : frozen;
}

static int
count_of(const char *text, unsigned *n, struct err *err)
{
    struct agent *a = NULL;
    struct fake f;
    int r;

    answer = text;
    answer_len = strlen(text);
    fake_start(&f, serve_answer);
    CHECK(agent_open(f.path, LONG_MS, &a, ERR_ABORT) == 0);
    r = agent_freeze(a, LONG_MS, n, err);
    agent_close(a);
    fake_stop(&f);
    return r;
}

static void
test_normal_life(void)
{
    CLEANUP_JV struct jv *fs = NULL, *os = NULL;
    struct agent *a = NULL;
    bool frozen = true;
    unsigned n = 9;
    struct fake f;

    fake_start(&f, fake_agent);
    CHECK(agent_open(f.path, LONG_MS, &a, ERR_ABORT) == 0);
    CHECK(agent_ping(a, LONG_MS, ERR_ABORT) == 0);
    CHECK(agent_frozen(a, LONG_MS, &frozen, ERR_ABORT) == 0 && !frozen);
    CHECK(agent_freeze(a, LONG_MS, &n, ERR_ABORT) == 0 && n == 2);
    CHECK(agent_frozen(a, LONG_MS, &frozen, ERR_ABORT) == 0 && frozen);
    CHECK(agent_thaw(a, LONG_MS, &n, ERR_ABORT) == 0 && n == 2);
    CHECK(agent_thaw(a, LONG_MS, &n, ERR_ABORT) == 0 && n == 0);
    CHECK(agent_fsinfo(a, LONG_MS, &fs, ERR_ABORT) == 0 && jv_size(fs) == 1);
    CHECK(agent_osinfo(a, LONG_MS, &os, ERR_ABORT) == 0 && jv_is_object(os));
    /* In step all the time: one synchronisation was enough. */
    CHECK(fake_count(&f, "guest-sync-delimited") == 1);
    agent_close(a);
    fake_stop(&f);
}

static void
test_zero_file_systems_is_an_answer(void)
{
    unsigned n = 9;

    CHECK(count_of("{\"return\": 0}\n", &n, ERR_ABORT) == 0 && n == 0);
}

static void
test_refusal_in_frozen_state(void)
{
    struct err err = ERR_INIT;
    struct agent *a = NULL;
    unsigned n = 0;
    struct fake f;

    fake_start(&f, fake_agent);
    CHECK(agent_open(f.path, LONG_MS, &a, ERR_ABORT) == 0);
    CHECK(agent_freeze(a, LONG_MS, &n, ERR_ABORT) == 0);
    CHECK(agent_freeze(a, LONG_MS, &n, &err) == -1);
    CHECK(err.code == ERR_REMOTE);
    CHECK(strstr(err.msg, "the agent is in frozen state") != NULL);
    /* A refusal is an answer: still in step. */
    CHECK(agent_thaw(a, LONG_MS, &n, ERR_ABORT) == 0);
    CHECK(fake_count(&f, "guest-sync-delimited") == 1);
    f.shared->refuse_thaw = 1;
    err_clear(&err);
    CHECK(agent_thaw(a, LONG_MS, &n, &err) == -1 && err.code == ERR_REMOTE);
    agent_close(a);
    fake_stop(&f);
}

static void
serve_stale(struct fake *f, int fd)
{
    long long id;

    fake_say(fd, "{\"return\": \"frozen\"}\n{\"error\"");
    fake_say(fd, "\xff{\"return\": 12345}\nnoise\xff\xff{\"return\": \xff");
    if (!hear_sync(fd, &id))
        return;
    fake_say(fd, "{\"return\": 1}\n");
    say_sync(fd, id ^ 1); /* another client's */
    /* The right number without the mark is no answer. */
    fake_say(fd, "{\"return\": 7}\n");
    say_sync(fd, id);
    while (fake_hear(fd, (char[1024]){0}, 1024))
        fake_say(fd, "{\"return\": \"thawed\"}\n");
}

static void
test_stale_replies_are_thrown_away(void)
{
    struct agent *a = NULL;
    bool frozen = true;
    struct fake f;

    fake_start(&f, serve_stale);
    CHECK(agent_open(f.path, LONG_MS, &a, ERR_ABORT) == 0);
    CHECK(agent_frozen(a, LONG_MS, &frozen, ERR_ABORT) == 0 && !frozen);
    agent_close(a);
    fake_stop(&f);
}

static void
serve_huge_then_sync(struct fake *f, int fd)
{
    static char x[1 << 20];
    long long id;

    memset(x, 'x', sizeof x);
    if (!hear_sync(fd, &id))
        return;
    fake_say(fd, "\xff");
    for (int i = 0; i < 4; i++)
        fake_say_bytes(fd, x, sizeof x);
    say_sync(fd, id);
    fake_hold(fd);
}

static void
test_4_mib_of_noise_before_the_answer(void)
{
    struct agent *a = NULL;
    struct fake f;

    fake_start(&f, serve_huge_then_sync);
    CHECK(agent_open(f.path, LONG_MS, &a, ERR_ABORT) == 0);
    agent_close(a);
    fake_stop(&f);
}

static void
serve_noise(struct fake *f, int fd)
{
    static char x[1 << 16];

    memset(x, 'x', sizeof x);
    while (write(fd, x, sizeof x) > 0)
        continue;
}

static void
test_noise_without_end(void)
{
    struct err err = ERR_INIT;
    struct agent *a = NULL;
    struct fake f;

    fake_start(&f, serve_noise);
    CHECK(agent_open(f.path, LONG_MS, &a, &err) == -1 && a == NULL);
    CHECK(err.code == ERR_PROTOCOL);
    CHECK(strstr(err.msg, "sends without end") != NULL);
    fake_stop(&f);
}

static void
serve_huge_answer(struct fake *f, int fd)
{
    static char x[1 << 20];
    char line[1024];
    long long id;

    memset(x, 'x', sizeof x);
    while (hear_sync(fd, &id)) {
        say_sync(fd, id);
        if (!fake_hear(fd, line, sizeof line))
            return;
        if (strstr(line, "status") != NULL)
            fake_say(fd, "{\"return\": \"frozen\"}\n");
        else
            for (int i = 0; i < 4; i++)
                fake_say_bytes(fd, x, sizeof x);
    }
}

static void
test_4_mib_line_is_refused_and_the_next_call_works(void)
{
    struct err err = ERR_INIT;
    struct agent *a = NULL;
    struct jv *j = NULL;
    bool frozen = false;
    struct fake f;

    fake_start(&f, serve_huge_answer);
    CHECK(agent_open(f.path, LONG_MS, &a, ERR_ABORT) == 0);
    CHECK(agent_fsinfo(a, LONG_MS, &j, &err) == -1 && j == NULL);
    CHECK(err.code == ERR_PROTOCOL);
    CHECK(strstr(err.msg, "longer than 1048576") != NULL);
    CHECK(agent_frozen(a, LONG_MS, &frozen, ERR_ABORT) == 0 && frozen);
    agent_close(a);
    fake_stop(&f);
}

static void
refused(const char *text, enum err_code code)
{
    struct err err = ERR_INIT;

    CHECK(status_of(text, &err) == -1);
    CHECK(err.code == code);
    if (err.code != code)
        printf("# %s -> %s\n", text, err.msg);
}

static void
test_answers_that_are_none(void)
{
    refused("nonsense\n", ERR_PROTOCOL);
    refused("{\"return\": \"fro\xffzen\"}\n", ERR_PROTOCOL);
    refused("{\"return\": \"fro\xc0\x80zen\"}\n", ERR_PROTOCOL);
    refused("{\"return\": \"melted\"}\n", ERR_PROTOCOL);
    refused("{\"return\": 1}\n", ERR_PROTOCOL);
    refused("{\"return\": 1e999}\n", ERR_PROTOCOL);
    refused("[]\n", ERR_PROTOCOL);
    refused("5\n", ERR_PROTOCOL);
    refused("{}\n", ERR_PROTOCOL);
    refused("{\"return\": \"frozen\", \"error\": {}}\n", ERR_PROTOCOL);
    refused("{\"error\": \"x\"}\n", ERR_PROTOCOL);
    refused("{\"error\": {}}\n", ERR_REMOTE);
    refused("{\"return\": \"a\", \"return\": \"frozen\"}\n", ERR_PROTOCOL);
    CHECK(status_of("\r\n{\"return\": \"frozen\"}\r\n", ERR_ABORT) == 1);
}

static void
test_numbers_that_cannot_be(void)
{
    static const char *const bad[] = {
        "-1",   "65537", "9223372036854775807",    "1e3", "1.0", "\"2\"",
        "null", "true",  "99999999999999999999999"};
    unsigned n;

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct err err = ERR_INIT;
        char text[80];

        (void)snprintf(text, sizeof text, "{\"return\": %s}\n", bad[i]);
        CHECK(count_of(text, &n, &err) == -1);
        CHECK(err.code == ERR_PROTOCOL);
    }
}

static void
test_depth_bomb(void)
{
    static char bomb[100002];

    memset(bomb, '[', sizeof bomb - 2);
    bomb[sizeof bomb - 2] = '\n';
    refused(bomb, ERR_PROTOCOL);
}

static void
test_error_text_is_made_harmless(void)
{
    struct err err = ERR_INIT;

    CHECK(status_of("{\"error\": {\"class\": \"G\", \"desc\": "
                    "\"\\u001b]0;x\\u0007\"}}\n",
                    &err) == -1);
    CHECK(strchr(err.msg, 0x1b) == NULL && strchr(err.msg, 7) == NULL);
    CHECK(strstr(err.msg, "?]0;x?") != NULL);
}

static void
test_silence(void)
{
    struct err err = ERR_INIT;
    struct agent *a = NULL;
    struct fake f;

    fake_start(&f, fake_agent);
    f.shared->silent = 1;
    CHECK(agent_open(f.path, SHORT_MS, &a, &err) == -1 && a == NULL);
    CHECK(err.code == ERR_TIMEOUT);
    CHECK(strstr(err.msg, "is it running in the guest") != NULL);
    fake_stop(&f);
}

static void
serve_drip(struct fake *f, int fd)
{
    while (write(fd, "\xff{", 2) > 0)
        (void)poll(NULL, 0, 5);
}

static void
test_drip_does_not_move_the_deadline(void)
{
    struct err err = ERR_INIT;
    struct agent *a = NULL;
    struct fake f;

    fake_start(&f, serve_drip);
    CHECK(agent_open(f.path, SHORT_MS, &a, &err) == -1);
    CHECK(err.code == ERR_TIMEOUT);
    fake_stop(&f);
}

static void
serve_wrong_sync(struct fake *f, int fd)
{
    long long id;

    if (hear_sync(fd, &id))
        say_sync(fd, id + 1);
    fake_hold(fd);
}

static void
test_wrong_sync_id_is_no_answer(void)
{
    struct err err = ERR_INIT;
    struct agent *a = NULL;
    struct fake f;

    fake_start(&f, serve_wrong_sync);
    CHECK(agent_open(f.path, SHORT_MS, &a, &err) == -1);
    CHECK(err.code == ERR_TIMEOUT);
    fake_stop(&f);
}

/* The answer to freeze comes after we gave up: the thaw that follows must get
 * its own answer, not the late one. */
static void
test_late_freeze_answer(void)
{
    struct err err = ERR_INIT;
    struct agent *a = NULL;
    unsigned n = 9;
    struct fake f;

    fake_start(&f, fake_agent);
    f.shared->late_ms = 2 * (int)SHORT_MS;
    f.shared->n_filesystems = 3;
    CHECK(agent_open(f.path, LONG_MS, &a, ERR_ABORT) == 0);
    CHECK(agent_freeze(a, SHORT_MS, &n, &err) == -1);
    CHECK(err.code == ERR_TIMEOUT && n == 9);
    CHECK(agent_thaw(a, LONG_MS, &n, ERR_ABORT) == 0 && n == 3);
    CHECK(agent_thaw(a, LONG_MS, &n, ERR_ABORT) == 0 && n == 0);
    CHECK(fake_count(&f, "guest-sync-delimited") == 2);
    CHECK(f.shared->frozen == 0);
    agent_close(a);
    fake_stop(&f);
}

static void
test_closed_socket_is_opened_again(void)
{
    struct err err = ERR_INIT;
    struct agent *a = NULL;
    struct fake f;
    bool frozen;

    fake_start(&f, fake_agent);
    f.shared->stop_after_one = 1;
    CHECK(agent_open(f.path, LONG_MS, &a, ERR_ABORT) == 0);
    /* The fake closes after each answer; whether that is seen before or
     * during the next command, the one after must find a new connection. */
    f.shared->stop_after_one = 0;
    if (agent_frozen(a, LONG_MS, &frozen, &err) < 0)
        CHECK(err.code == ERR_CLOSED);
    CHECK(agent_frozen(a, LONG_MS, &frozen, ERR_ABORT) == 0);
    agent_close(a);
    fake_stop(&f);
}

static void
test_unasked_line_brings_out_of_step(void)
{
    struct agent *a = NULL;
    bool frozen = false;
    struct fake f;

    answer = "{\"return\": \"frozen\"}\n{\"return\": \"thawed\"}\n";
    answer_len = strlen(answer);
    fake_start(&f, serve_answer);
    CHECK(agent_open(f.path, LONG_MS, &a, ERR_ABORT) == 0);
    /* Each call finds the surplus line and synchronises: never the old one. */
    for (int i = 0; i < 3; i++) {
        frozen = false;
        CHECK(agent_frozen(a, LONG_MS, &frozen, ERR_ABORT) == 0 && frozen);
    }
    agent_close(a);
    fake_stop(&f);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_normal_life),
        TEST(test_zero_file_systems_is_an_answer),
        TEST(test_refusal_in_frozen_state),
        TEST(test_stale_replies_are_thrown_away),
        TEST(test_4_mib_of_noise_before_the_answer),
        TEST(test_noise_without_end),
        TEST(test_4_mib_line_is_refused_and_the_next_call_works),
        TEST(test_answers_that_are_none),
        TEST(test_numbers_that_cannot_be),
        TEST(test_depth_bomb),
        TEST(test_error_text_is_made_harmless),
        TEST(test_silence),
        TEST(test_drip_does_not_move_the_deadline),
        TEST(test_wrong_sync_id_is_no_answer),
        TEST(test_late_freeze_answer),
        TEST(test_closed_socket_is_opened_again),
        TEST(test_unasked_line_brings_out_of_step),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
