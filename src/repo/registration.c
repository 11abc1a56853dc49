/* Registering a session and keeping its heart beating.
 *
 * A heartbeat is a new object each time, so that nothing is ever modified.  A
 * beat that fails is only logged: the worst that follows is a fence, and a
 * fenced session loses its work and never anybody's data.
 */
#include "internal.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "err.h"
#include "jv.h"
#include "log.h"
#include "rand.h"
#include "store.h"

uint64_t repo_beat_ns = 20ull * 1000000000;

struct registration {
    /* never changed after registration_new() */
    struct store *store;
    char sid[REPO_SID_TEXT];
    bool beating;
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t stop;
    /* protected by lock */
    bool stopped;

    uint64_t n_beats; /* the thread's; the owner's when it has ended */
};

static void
beat_key(const struct registration *g, uint64_t n, char key[REPO_KEY_MAX])
{
    (void)snprintf(key, REPO_KEY_MAX, "beat/%s.%llu", g->sid,
                   (unsigned long long)n);
}

static void
remove_beat(struct registration *g, uint64_t n)
{
    char key[REPO_KEY_MAX];

    if (n == 0)
        return;
    beat_key(g, n, key);
    (void)store_delete(g->store, key, NULL);
}

static void
beat(struct registration *g)
{
    struct err err = ERR_INIT;
    char key[REPO_KEY_MAX];

    g->n_beats++; /* also when it fails: the name is used up */
    beat_key(g, g->n_beats, key);
    if (store_put(g->store, key, "\n", 1, &err) < 0)
        log_debug("session: %s: %s", key, err.msg);
    remove_beat(g, g->n_beats - 1);
}

static void
add_ns(struct timespec *t, uint64_t ns)
{
    ns += (uint64_t)t->tv_nsec;
    t->tv_sec += (time_t)(ns / 1000000000u);
    t->tv_nsec = (long)(ns % 1000000000u);
}

static void *
beat_main(void *arg)
{
    struct registration *g = arg;
    struct timespec next;
    bool stopped;

    for (;;) {
        (void)clock_gettime(CLOCK_MONOTONIC, &next);
        add_ns(&next, repo_beat_ns);
        (void)pthread_mutex_lock(&g->lock);
        while (!g->stopped &&
               pthread_cond_timedwait(&g->stop, &g->lock, &next) == 0)
            ;
        stopped = g->stopped;
        (void)pthread_mutex_unlock(&g->lock);
        if (stopped)
            return NULL;
        beat(g);
    }
}

static int
start_beating(struct registration *g, struct err *err)
{
    sigset_t all, old;
    int sys;

    /* Signals are the main thread's. */
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    sys = pthread_create(&g->thread, NULL, beat_main, g);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (sys != 0)
        return err_set_errno(err, sys, "start the heartbeat");
    g->beating = true;
    return 0;
}

static struct jv *
describe(const char *what, const char *machine, const struct id_list *pins)
{
    char host[256] = "", time[CLOCK_TEXT_MAX], scope[128];
    CLEANUP_JV struct jv *list = jv_array();
    struct jv *j;

    (void)gethostname(host, sizeof host - 1);
    clock_text(clock_wall_ns(), time, sizeof time);
    session_scope(scope, sizeof scope);
    j = jv_build("{s:o, s:I, s:s, s:s, s:s, s:s}", "host", jv_string(host),
                 "pid", (int64_t)getpid(), "scope", scope, "tool",
                 "tidemark " TIDEMARK_VERSION, "what", what, "time", time);
    if (machine != NULL)
        (void)jv_set_str(j, "machine", machine);
    for (size_t i = 0; pins != NULL && i < pins->n; i++)
        if (jv_add(list, jv_string(pins->v[i])) < 0)
            jv_free(TAKE_PTR(j));
    if (pins != NULL && jv_set(j, "points", jv_ref(list)) < 0)
        jv_free(TAKE_PTR(j));
    return j;
}

static struct registration *
make(struct repo *r)
{
    struct registration *g = calloc(1, sizeof *g);
    uint8_t sid[REPO_SID_LEN];
    pthread_condattr_t attr;

    if (g == NULL)
        return NULL;
    rand_bytes(sid, sizeof sid);
    hex_encode(sid, sizeof sid, g->sid);
    g->store = r->store;
    (void)pthread_mutex_init(&g->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&g->stop, &attr);
    (void)pthread_condattr_destroy(&attr);
    return g;
}

int
registration_new(struct repo *r, const char *what, const char *machine,
                 const struct id_list *pins, bool beats,
                 struct registration **ret, struct err *err)
{
    CLEANUP_JV struct jv *j = describe(what, machine, pins);
    CLEANUP_FREE char *text = j != NULL ? jv_text(j, true) : NULL;
    struct registration *g = text != NULL ? make(r) : NULL;
    char key[REPO_KEY_MAX];

    if (g == NULL)
        return err_set_errno(err, ENOMEM, "session");
    (void)snprintf(key, sizeof key, "session/%s", g->sid);
    if (store_put(r->store, key, text, strlen(text), err) < 0 ||
        (beats && start_beating(g, err) < 0)) {
        registration_free(g, false); /* it may be there after an error, too */
        return -1;
    }
    *ret = g;
    return 0;
}

const char *
registration_sid(const struct registration *g)
{
    return g->sid;
}

static void
remove_session(struct registration *g)
{
    struct err err = ERR_INIT;
    char key[REPO_KEY_MAX];

    (void)snprintf(key, sizeof key, "session/%s", g->sid);
    if (store_delete(g->store, key, &err) < 0)
        log_debug("session: leftover '%s': %s", key, err.msg);
}

void
registration_free(struct registration *g, bool keep)
{
    if (g == NULL)
        return;
    if (g->beating) {
        (void)pthread_mutex_lock(&g->lock);
        g->stopped = true;
        (void)pthread_cond_signal(&g->stop);
        (void)pthread_mutex_unlock(&g->lock);
        (void)pthread_join(g->thread, NULL);
    }
    if (!keep)
        remove_session(g);
    remove_beat(g, g->n_beats);
    (void)pthread_cond_destroy(&g->stop);
    (void)pthread_mutex_destroy(&g->lock);
    free(g);
}
