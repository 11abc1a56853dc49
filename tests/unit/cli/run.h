/* Run the program under test and keep what it said. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#define RUN_OUTPUT_MAX 65536

struct run {
    int status;    /* exit status; 128 + signal when killed */
    char *out;     /* standard output; NUL-terminated, run_done() frees */
    char *err;     /* standard error */
    bool terminal; /* set before: standard error is a terminal of 100 columns */
    const char *out_file;   /* set before: standard output goes there instead */
    const char *const *env; /* set before: NAME=VALUE ..., NULL */
    /* Of a run that was started and not yet waited for. */
    pid_t pid;
    int out_fd, err_fd;
};

#define RUN_INIT \
    {            \
        .pid = 0 \
    }

/* `line`: arguments separated by single spaces. */
void run_start(struct run *r, const char *line);
void run_wait(struct run *r);
void run_done(struct run *r);

/* Start and wait, with an environment of at most one variable (or NULL). */
void run_line(struct run *r, const char *line, const char *env);

/* A fresh private directory, removed at exit with the files in it. */
const char *run_dir(void);
