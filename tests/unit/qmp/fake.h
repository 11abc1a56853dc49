/* tests/unit/qmp/fake.h - a peer on a Unix socket that plays a script.
 *
 * The peer is a child process: the guard forks, and must not do so in a
 * process with threads.  What it was told is written to memory that is shared
 * with the test, which polls it with a deadline. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define FAKE_COMMANDS_MAX 256

struct fake_shared {
    atomic_int n_clients;
    atomic_int n_commands;
    char command[FAKE_COMMANDS_MAX][40];
    /* How fake_agent() behaves; may be changed while it runs. */
    atomic_int silent;         /* answer nothing at all */
    atomic_int silent_freeze;  /* freeze, but do not say so */
    atomic_int late_ms;        /* wait before the answer to freeze */
    atomic_int refuse_freeze;  /* answer freeze with an error */
    atomic_int refuse_thaw;    /* answer so many thaws with an error */
    atomic_int no_fsfreeze;    /* an agent without these commands */
    atomic_int n_filesystems;  /* what a freeze freezes */
    atomic_int frozen;         /* the state of the guest */
    atomic_int stop_after_one; /* close after one answer */
};

struct fake {
    char dir[32];
    char path[48];
    pid_t pid;
    struct fake_shared *shared;
};

/* Serve one client; the client is closed afterwards. */
typedef void (*fake_fn)(struct fake *f, int fd);

/* Listen in a new directory and serve one client after the other. */
void fake_start(struct fake *f, fake_fn fn);
void fake_stop(struct fake *f);

/* For the peer.  fake_hear() gives one line without its end; false: the client
 * is gone.  fake_record() appends to the shared list. */
void fake_say(int fd, const char *text);
void fake_say_bytes(int fd, const void *data, size_t len);
void fake_say_slowly(int fd, const char *text); /* one byte at a time */
bool fake_hear(int fd, char *line, size_t size);
void fake_record(struct fake *f, const char *command);
/* Keep the connection until the client closes it. */
void fake_hold(int fd);

/* A guest agent as in qemu-ga. */
void fake_agent(struct fake *f, int fd);

/* For the test: how often was `command` recorded?  And wait for it. */
int fake_count(const struct fake *f, const char *command);
bool fake_await(const struct fake *f, const char *command, int n);
bool fake_await_value(const atomic_int *value, int wanted);
