#include "fake.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "jv.h"

#define AWAIT_MS 20000u

static int
listen_at(struct fake *f)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strcpy(f->dir, "/tmp/tidemark-XXXXXX");
    if (mkdtemp(f->dir) == NULL)
        abort();
    (void)snprintf(f->path, sizeof f->path, "%s/s", f->dir);
    strcpy(sa.sun_path, f->path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof sa) < 0 ||
        listen(fd, 5) < 0)
        abort();
    return fd;
}

_Noreturn static void
peer(struct fake *f, int listener, fake_fn fn)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)signal(SIGPIPE, SIG_IGN);
    for (;;) {
        int fd = accept(listener, NULL, NULL);

        if (fd < 0)
            _exit(1);
        f->shared->n_clients++;
        fn(f, fd);
        (void)close(fd);
    }
}

void
fake_start(struct fake *f, fake_fn fn)
{
    int listener;

    memset(f, 0, sizeof *f);
    f->shared = mmap(NULL, sizeof *f->shared, PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (f->shared == MAP_FAILED)
        abort();
    f->shared->n_filesystems = 2;
    listener = listen_at(f);
    (void)fflush(NULL);
    f->pid = fork();
    if (f->pid < 0)
        abort();
    if (f->pid == 0)
        peer(f, listener, fn);
    (void)close(listener);
}

void
fake_stop(struct fake *f)
{
    (void)kill(f->pid, SIGKILL);
    (void)waitpid(f->pid, NULL, 0);
    (void)munmap(f->shared, sizeof *f->shared);
    (void)unlink(f->path);
    (void)rmdir(f->dir);
}

/* -- the peer's side --------------------------------------------------------*/

void
fake_say_bytes(int fd, const void *data, size_t len)
{
    const char *p = data;

    while (len > 0) {
        ssize_t n = write(fd, p, len);

        if (n <= 0)
            return;
        p += n;
        len -= (size_t)n;
    }
}

void
fake_say(int fd, const char *text)
{
    fake_say_bytes(fd, text, strlen(text));
}

void
fake_say_slowly(int fd, const char *text)
{
    for (; *text != '\0'; text++) {
        fake_say_bytes(fd, text, 1);
        (void)poll(NULL, 0, 1);
    }
}

bool
fake_hear(int fd, char *line, size_t size)
{
    size_t n = 0;
    char c;

    while (read(fd, &c, 1) == 1) {
        if (c == '\n') {
            line[n] = '\0';
            return true;
        }
        if (n + 1 < size)
            line[n++] = c;
    }
    return false;
}

void
fake_hold(int fd)
{
    char c;

    while (read(fd, &c, 1) == 1)
        continue;
}

void
fake_record(struct fake *f, const char *command)
{
    int n = f->shared->n_commands;

    if (n == FAKE_COMMANDS_MAX)
        return;
    (void)snprintf(f->shared->command[n], sizeof f->shared->command[n], "%s",
                   command);
    f->shared->n_commands = n + 1;
}

/* -- the agent --------------------------------------------------------------*/

static void
say_int(int fd, const char *before, long long v)
{
    char text[80];

    (void)snprintf(text, sizeof text, "%s{\"return\": %lld}\n", before, v);
    fake_say(fd, text);
}

static void
say_refused(int fd, const char *desc)
{
    char text[200];

    (void)snprintf(text, sizeof text,
                   "{\"error\": {\"class\": \"CommandNotFound\", "
                   "\"desc\": \"%s\"}}\n",
                   desc);
    fake_say(fd, text);
}

static void
agent_freeze_reply(struct fake_shared *s, int fd)
{
    if (s->refuse_freeze) {
        say_refused(fd, "hook failed");
        return;
    }
    if (s->frozen) {
        say_refused(fd, "Command guest-fsfreeze-freeze has been disabled: "
                        "the agent is in frozen state");
        return;
    }
    s->frozen = 1;
    if (s->late_ms > 0)
        (void)poll(NULL, 0, s->late_ms);
    if (!s->silent_freeze)
        say_int(fd, "", s->n_filesystems);
}

static void
agent_thaw_reply(struct fake_shared *s, int fd)
{
    int n = s->frozen ? s->n_filesystems : 0;

    if (s->refuse_thaw > 0) {
        s->refuse_thaw--;
        say_refused(fd, "cannot thaw");
        return;
    }
    s->frozen = 0;
    say_int(fd, "", n);
}

static void
agent_reply(struct fake_shared *s, int fd, const char *c, const struct jv *j)
{
    int64_t id = 0;

    if (strcmp(c, "guest-sync-delimited") == 0) {
        (void)jv_get_int(j, "arguments.id", &id);
        say_int(fd, "\xff", id);
    } else if (strncmp(c, "guest-fsfreeze", 14) == 0 && s->no_fsfreeze) {
        say_refused(fd, "The command has not been found");
    } else if (strcmp(c, "guest-fsfreeze-freeze") == 0) {
        agent_freeze_reply(s, fd);
    } else if (strcmp(c, "guest-fsfreeze-thaw") == 0) {
        agent_thaw_reply(s, fd);
    } else if (strcmp(c, "guest-fsfreeze-status") == 0) {
        fake_say(fd, s->frozen ? "{\"return\": \"frozen\"}\n"
                               : "{\"return\": \"thawed\"}\n");
    } else if (strcmp(c, "guest-get-fsinfo") == 0) {
        fake_say(fd, "{\"return\": [{\"name\": \"vda\"}]}\n");
    } else {
        fake_say(fd, "{\"return\": {}}\n");
    }
}

void
fake_agent(struct fake *f, int fd)
{
    char line[1024];

    while (fake_hear(fd, line, sizeof line)) {
        CLEANUP_JV struct jv *j = NULL;
        const char *text = line, *c;

        while ((unsigned char)*text == 0xff)
            text++;
        if (jv_parse(text, strlen(text), 8, &j, NULL) < 0 ||
            (c = jv_get_str(j, "execute")) == NULL)
            continue;
        if (!f->shared->silent)
            agent_reply(f->shared, fd, c, j);
        /* After the answer: who sees the record may rely on its effect. */
        fake_record(f, c);
        if (f->shared->stop_after_one)
            return;
    }
}

/* -- the test's side --------------------------------------------------------*/

int
fake_count(const struct fake *f, const char *command)
{
    int n = 0;

    for (int i = 0; i < f->shared->n_commands; i++)
        n += strcmp(f->shared->command[i], command) == 0;
    return n;
}

bool
fake_await(const struct fake *f, const char *command, int n)
{
    struct deadline until = deadline_in(AWAIT_MS);

    while (fake_count(f, command) < n) {
        if (deadline_left(until) == 0)
            return false;
        (void)poll(NULL, 0, 2);
    }
    return true;
}

bool
fake_await_value(const atomic_int *value, int wanted)
{
    struct deadline until = deadline_in(AWAIT_MS);

    while (*value != wanted) {
        if (deadline_left(until) == 0)
            return false;
        (void)poll(NULL, 0, 2);
    }
    return true;
}
