#include "crew.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"
#include "clock.h"
#include "err.h"
#include "exitcode.h"
#include "jv.h"

#define TICK_MS 500
/* For the output of an ended child that what it left behind holds open. */
#define DRAIN_MS 2000u
#define DEAD_MS 30000u /* from SIGKILL to giving up on it */
/* Bytes of one line: the objects of large machines. */
#define TEXT_MAX (4u << 20)
#define READ_LEN 65536u

enum { OUT, ERR, N_PIPES };

struct worker {
    struct task *task; /* NULL: free */
    pid_t pid;         /* 0: ended and reaped */
    int pid_fd;
    int fd[N_PIPES]; /* -1: at its end */
    struct buf text[N_PIPES];
    uint64_t began_ms;
    struct deadline limit; /* for all of it */
    struct deadline next;  /* what to do when SIGTERM did not help */
    enum { GOES, TOLD, KILLED } stage;
    struct deadline drain; /* once it has ended */
};

struct crew {
    const atomic_bool *cancel;
    const struct crew_hooks *hooks;
    struct worker *workers;
    struct pollfd *polls;
    unsigned n;
    uint64_t stop_ms;
    bool stopping;
};

void
task_done(struct task *t)
{
    jv_free(t->result);
    free(t->error);
    t->result = NULL;
    t->error = NULL;
}

/* -- starting ---------------------------------------------------------------*/

/* In the child: only async-signal-safe calls. */
static void __attribute__((noreturn))
exec_self(char *const *args, const int *fds, pid_t parent)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    static const int ours[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction sa = {.sa_handler = SIG_DFL};

    (void)sigemptyset(&sa.sa_mask);
    for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
        (void)sigaction(ours[i], &sa, NULL);
    if (setsid() < 0 || prctl(PR_SET_PDEATHSIG, SIGTERM) != 0 ||
        getppid() != parent)
        _exit(126);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0 ||
        dup2(fds[OUT], STDOUT_FILENO) < 0 || dup2(fds[ERR], STDERR_FILENO) < 0)
        _exit(126);
    (void)close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
    (void)execv("/proc/self/exe", args);
    _exit(127);
}

static int
make_pipes(int (*pipes)[2], struct err *err)
{
    if (pipe2(pipes[OUT], O_CLOEXEC) < 0)
        return err_set_errno(err, errno, "pipe");
    if (pipe2(pipes[ERR], O_CLOEXEC) < 0) {
        (void)err_set_errno(err, errno, "pipe");
        (void)close(pipes[OUT][0]);
        (void)close(pipes[OUT][1]);
        return -1;
    }
    for (size_t i = 0; i < N_PIPES; i++)
        (void)fcntl(pipes[i][0], F_SETFL, O_NONBLOCK);
    return 0;
}

static void
kill_now(struct worker *w)
{
    if (w->pid <= 0)
        return;
    (void)kill(w->pid, SIGKILL);
    while (waitpid(w->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    w->pid = 0;
}

static void
worker_done(struct worker *w)
{
    kill_now(w);
    for (size_t i = 0; i < N_PIPES; i++) {
        if (w->fd[i] >= 0)
            (void)close(w->fd[i]);
        buf_done(&w->text[i]);
    }
    if (w->pid_fd >= 0)
        (void)close(w->pid_fd);
    *w = (struct worker){.pid_fd = -1, .fd = {-1, -1}};
}

static int
start(struct worker *w, struct task *t, struct err *err)
{
    char name[] = "tidemark", *args[TASK_ARGS_MAX + 2] = {name};
    int pipes[N_PIPES][2];
    pid_t parent = getpid();
    int ends[N_PIPES];

    for (size_t i = 0; t->argv[i] != NULL; i++)
        memcpy(&args[i + 1], &t->argv[i], sizeof *args);
    if (make_pipes(pipes, err) != 0)
        return -1;
    for (size_t i = 0; i < N_PIPES; i++) {
        w->fd[i] = pipes[i][0];
        ends[i] = pipes[i][1];
    }
    w->task = t;
    w->began_ms = clock_ms();
    w->limit = deadline_in(t->timeout_ms);
    w->stage = GOES;
    w->pid = fork();
    if (w->pid == 0)
        exec_self(args, ends, parent);
    (void)close(ends[OUT]);
    (void)close(ends[ERR]);
    if (w->pid < 0)
        (void)err_set_errno(err, errno, "start 'tidemark %s'", t->argv[0]);
    else if ((w->pid_fd = pidfd_open(w->pid, 0)) < 0)
        (void)err_set_errno(err, errno, "watch 'tidemark %s'", t->argv[0]);
    if (w->pid_fd < 0) {
        worker_done(w);
        return -1;
    }
    (void)fcntl(w->pid_fd, F_SETFD, FD_CLOEXEC);
    t->state = TASK_RUNS;
    return 0;
}

/* -- what they say ----------------------------------------------------------*/

static void
take_object(struct crew *k, struct worker *w, const char *line)
{
    CLEANUP_JV struct jv *v = NULL;
    struct task *t = w->task;
    const char *event, *message;

    if (jv_parse(line, strlen(line), JV_DEPTH_MAX, &v, NULL) != 0) {
        k->hooks->line(k->hooks->arg, t, line);
        return;
    }
    event = jv_get_str(v, "event");
    message = jv_get_str(v, "message");
    if (event != NULL && strcmp(event, "error") == 0 && message != NULL) {
        free(t->error);
        t->error = strdup(message);
    }
    jv_free(t->result);
    t->result = jv_ref(v);
    k->hooks->object(k->hooks->arg, t, v);
}

/* Whole lines, and at the end of the output what is left. */
static void
take_lines(struct crew *k, struct worker *w, size_t which, bool end)
{
    struct buf *b = &w->text[which];
    const char *text;

    for (;;) {
        uint8_t *stop = b->len > 0 ? memchr(b->data, '\n', b->len) : NULL;
        size_t len = stop != NULL ? (size_t)(stop - b->data) + 1 : b->len;

        if (stop == NULL && (b->len == 0 || (!end && b->len < TEXT_MAX)))
            return;
        if (stop != NULL)
            *stop = '\0';
        text = stop != NULL ? (const char *)b->data : buf_str(b);
        if (text != NULL && which == OUT)
            take_object(k, w, text);
        else if (text != NULL)
            k->hooks->line(k->hooks->arg, w->task, text);
        buf_consume(b, len);
    }
}

static void
read_pipe(struct crew *k, struct worker *w, size_t which)
{
    struct buf *b = &w->text[which];
    ssize_t n = -1;

    errno = ENOMEM;
    if (buf_reserve(b, READ_LEN, NULL) == 0)
        n = read(w->fd[which], b->data + b->len, READ_LEN);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0)
        b->len += (size_t)n;
    take_lines(k, w, which, n <= 0);
    if (n <= 0)
        (void)close(TAKE_FD(w->fd[which]));
}

/* -- ending -----------------------------------------------------------------*/

static void
reap(struct worker *w)
{
    struct task *t = w->task;
    int status = 0, r;

    while ((r = waitpid(w->pid, &status, 0)) < 0 && errno == EINTR)
        ;
    if (r < 0) /* unknown is not good */
        status = EXIT_FAILED << 8;
    w->pid = 0;
    t->killed = WIFSIGNALED(status);
    t->status = t->killed ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    t->ms = clock_ms() - w->began_ms;
    w->drain = deadline_in(DRAIN_MS);
}

/* Ended, and everything that it said is read. */
static void
finish(struct crew *k, struct worker *w)
{
    if (w->task == NULL || w->pid > 0)
        return;
    if ((w->fd[OUT] >= 0 || w->fd[ERR] >= 0) && deadline_left(w->drain) > 0)
        return;
    for (size_t i = 0; i < N_PIPES; i++)
        take_lines(k, w, i, true);
    w->task->state = TASK_ENDED;
    k->hooks->ended(k->hooks->arg, w->task);
    worker_done(w);
}

/* One that hangs in the kernel (a dead file server) does not even die: its
 * machine has failed, and the others go on. */
static void
abandon(struct worker *w)
{
    w->pid = 0;
    w->task->killed = true;
    w->task->status = 128 + SIGKILL;
    w->task->ms = clock_ms() - w->began_ms;
    w->drain = deadline_in(0);
}

/* Asked to stop, or too late: SIGTERM, then SIGKILL, then without it. */
static void
push(struct crew *k, struct worker *w)
{
    if (w->pid <= 0)
        return;
    if (w->stage == GOES) {
        w->task->late = deadline_left(w->limit) == 0;
        if (!k->stopping && !w->task->late)
            return;
        (void)kill(w->pid, SIGTERM);
        w->next = deadline_in(k->stop_ms);
        w->stage = TOLD;
    } else if (deadline_left(w->next) == 0 && w->stage == TOLD) {
        (void)kill(w->pid, SIGKILL);
        w->next = deadline_in(DEAD_MS);
        w->stage = KILLED;
    } else if (deadline_left(w->next) == 0) {
        abandon(w);
        finish(k, w);
    }
}

static void
push_all(struct crew *k)
{
    if (k->cancel != NULL && atomic_load(k->cancel))
        k->stopping = true;
    for (unsigned i = 0; i < k->n; i++)
        push(k, &k->workers[i]);
}

/* -- the loop ---------------------------------------------------------------*/

/* Fill free places; true while anything runs. */
static bool
fill(struct crew *k, struct task *tasks, size_t n, size_t *next)
{
    bool any = false;

    for (unsigned i = 0; i < k->n; i++) {
        struct worker *w = &k->workers[i];

        while (w->task == NULL && *next < n) {
            struct task *t = &tasks[(*next)++];
            struct err err = ERR_INIT;

            if (k->stopping) {
                t->state = TASK_SKIPPED;
                continue;
            }
            k->hooks->began(k->hooks->arg, t);
            if (start(w, t, &err) == 0)
                continue;
            t->state = TASK_ENDED;
            t->status = EXIT_FAILED;
            t->error = strdup(err.msg);
            k->hooks->ended(k->hooks->arg, t);
        }
        any |= w->task != NULL;
    }
    return any;
}

/* Three descriptors for each worker; negative ones are skipped by poll(). */
static void
wait_for_any(struct crew *k)
{
    for (unsigned i = 0; i < k->n; i++) {
        const struct worker *w = &k->workers[i];
        struct pollfd *p = &k->polls[3 * i];

        p[OUT] = (struct pollfd){.fd = w->fd[OUT], .events = POLLIN};
        p[ERR] = (struct pollfd){.fd = w->fd[ERR], .events = POLLIN};
        p[N_PIPES] = (struct pollfd){.fd = w->pid > 0 ? w->pid_fd : -1,
                                     .events = POLLIN};
    }
    if (poll(k->polls, 3 * k->n, TICK_MS) < 0)
        for (unsigned i = 0; i < 3 * k->n; i++)
            k->polls[i].revents = 0;
    for (unsigned i = 0; i < k->n; i++) {
        struct worker *w = &k->workers[i];

        for (size_t p = 0; p < N_PIPES; p++)
            if (k->polls[3 * i + p].revents != 0)
                read_pipe(k, w, p);
        if (k->polls[3 * i + N_PIPES].revents != 0)
            reap(w);
        finish(k, w);
    }
}

int
crew_run(struct task *tasks, size_t n, unsigned parallel, uint64_t stop_ms,
         const atomic_bool *cancel, const struct crew_hooks *hooks,
         struct err *err)
{
    CLEANUP_FREE struct worker *workers = calloc(parallel, sizeof *workers);
    CLEANUP_FREE struct pollfd *polls = calloc(parallel, 3 * sizeof *polls);
    struct crew k = {.cancel = cancel,
                     .hooks = hooks,
                     .workers = workers,
                     .polls = polls,
                     .n = parallel,
                     .stop_ms = stop_ms};
    size_t next = 0;

    if (workers == NULL || polls == NULL)
        return err_set_errno(err, ENOMEM, "%u runs at once", parallel);
    for (unsigned i = 0; i < parallel; i++)
        workers[i] = (struct worker){.pid_fd = -1, .fd = {-1, -1}};
    for (;;) {
        push_all(&k);
        if (!fill(&k, tasks, n, &next))
            return 0;
        wait_for_any(&k);
    }
}
