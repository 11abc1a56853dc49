/* tests/func/nbd/server.h - real NBD servers in a directory of their own.
 *
 * Each server is a child that dies with the test program; only its own process
 * id is ever signalled.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct server {
    pid_t pid;
    int end_signal;
    char dir[64];
    char sock[96];
};

/* Generous, so that only what is stuck fails. */
#define PATIENCE_MS 20000

/* Whether a program can be run. */
bool have_program(const char *name);

/* Start `argv`, in which "@SOCK@" and "@DIR@" are replaced, and wait until it
 * listens.  `s->dir` is made if it is empty.  Aborts when it cannot. */
void server_start(struct server *s, const char *const *argv);

/* Run `fn` in a child with a listening socket. */
void server_fork(struct server *s, void (*fn)(int listener, void *arg),
                 void *arg);

/* nbdkit with these arguments (words split at blanks). */
void server_nbdkit(struct server *s, const char *words);

/* Signal it; after SIGSTOP all of its threads stand still.  wait_end reaps. */
void server_signal(struct server *s, int sig);
void server_wait_end(struct server *s);

/* End it and remove the directory; safe after server_wait_end(). */
void server_stop(struct server *s);

/* Make `s->dir` before the server needs it. */
void server_dir(struct server *s);

/* Run a shell command in the server's directory; its exit status. */
int run_in(struct server *s, const char *command);
