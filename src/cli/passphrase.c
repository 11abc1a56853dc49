/* A job may open a repository more than once (prune, then gc), but a descriptor
 * can be read and a person asked only once: what was given is remembered until
 * the end, in memory that is locked, in no core file, and wiped. */
#include "passphrase.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cleanup.h"
#include "err.h"
#include "job.h"
#include "opts.h"
#include "terminal.h"
#include "words.h"

#define ATTEMPTS 3 /* of a person */

static struct {
    const struct opts *o;
    const char *command; /* of the options or the environment */
    bool init;
    struct secret
        *known; /* mapped; kind and text of the last answer, or len 0 */
} source;

static int
nothing(struct err *err)
{
    return err_set(err, ERR_KEY,
                   "no passphrase was given, and there is no terminal to ask "
                   "for it: use --passphrase-fd N, "
                   "--passphrase-command CMD%s TIDEMARK_PASSPHRASE_COMMAND%s",
                   source.init ? " or" : ",",
                   source.init ? "" : ", or --paper-key-fd N");
}

static int
nothing_new(struct err *err)
{
    return err_set(err, ERR_KEY,
                   "there is no terminal to ask for the new passphrase: use "
                   "--new-passphrase-fd N or --new-passphrase-command CMD");
}

/* -- the secret that is remembered -------------------------------------------*/

static void
remember(const struct secret *s)
{
    void *p = source.known;

    if (p == NULL) {
        p = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
            return; /* will be asked again */
        (void)mlock(p, sizeof *s);
        (void)madvise(p, sizeof *s, MADV_DONTDUMP);
        /* The guard lives on when we are killed, and locks no memory. */
        (void)madvise(p, sizeof *s, MADV_WIPEONFORK);
        source.known = p;
    }
    memcpy(p, s, sizeof *s);
}

void
passphrase_forget(void)
{
    if (source.known == NULL)
        return;
    explicit_bzero(source.known, sizeof *source.known);
    (void)munmap(source.known, sizeof *source.known);
    source.known = NULL;
}

/* -- answers ----------------------------------------------------------------*/

static int
ask_twice(const char *what, struct secret *ret, struct err *err)
{
    CLEANUP_FREE struct secret *again = calloc(1, sizeof *again);
    bool same;

    if (again == NULL)
        return err_set_errno(err, ENOMEM, "passphrase");
    for (unsigned i = 0; i < ATTEMPTS; i++) {
        int r = terminal_ask("New passphrase for", what, ret, err);

        if (r == 0)
            r = terminal_ask("The same again for", what, again, err);
        same = r == 0 && ret->len == again->len &&
               memcmp(ret->text, again->text, ret->len) == 0;
        explicit_bzero(again, sizeof *again);
        if (r != 0 || same)
            return r;
        terminal_say("The two differ.");
    }
    return err_set(err, ERR_KEY, "the two passphrases differ");
}

static int
from_options(int fd, const char *command, struct secret *ret, struct err *err)
{
    ret->kind = SECRET_PASSPHRASE;
    if (fd >= 0)
        return words_from_fd(fd, false, ret, err);
    if (command != NULL)
        return words_from_command(command, ret, err);
    return 1;
}

int
passphrase_new(void *arg, const struct secret_ask *ask, struct secret *ret,
               struct err *err)
{
    int fd = source.o->new_passphrase_fd, r;
    const char *command = source.o->new_passphrase_command;

    (void)arg;
    if (source.init && fd < 0 && command == NULL) {
        fd = source.o->passphrase_fd;
        command = source.command;
    }
    r = from_options(fd, command, ret, err);
    if (r == 1)
        r = ask_twice(ask->what, ret, err);
    if (r != 1)
        return r;
    return source.init ? nothing(err) : nothing_new(err);
}

/* The first answer; 1 when there is no source at all. */
static int
first_answer(const struct secret_ask *ask, struct secret *ret, struct err *err)
{
    int r;

    if (source.known != NULL) {
        memcpy(ret, source.known, sizeof *ret);
        return 0;
    }
    if (source.o->paper_key_fd >= 0) {
        ret->kind = SECRET_PAPER_KEY;
        return words_from_fd(source.o->paper_key_fd, true, ret, err);
    }
    if (ask->no_passphrase)
        return 1; /* whose words say what is wrong with the slots */
    r = from_options(source.o->passphrase_fd, source.command, ret, err);
    if (r == 1)
        r = terminal_ask("Passphrase of", ask->what, ret, err);
    return r == 1 ? nothing(err) : r;
}

static bool
is_terminal(void)
{
    return source.o->paper_key_fd < 0 && source.o->passphrase_fd < 0 &&
           source.command == NULL;
}

static int
answer(void *arg, const struct secret_ask *ask, struct secret *ret,
       struct err *err)
{
    int r;

    if (ask->fresh)
        return passphrase_new(arg, ask, ret, err);
    if (ask->attempt == 0) {
        r = first_answer(ask, ret, err);
    } else {
        if (!is_terminal() || ask->attempt >= ATTEMPTS)
            return 1;
        terminal_say("That was wrong.");
        r = terminal_ask("Passphrase of", ask->what, ret, err);
    }
    if (r == 0)
        remember(ret);
    return r;
}

void
passphrase_set_up(const struct opts *o, bool init)
{
    const char *command = getenv("TIDEMARK_PASSPHRASE_COMMAND");

    source.o = o;
    source.init = init;
    source.command = o->passphrase_command;
    if (source.command == NULL && command != NULL && *command != '\0')
        source.command = command;
    job_set_unlock(answer, NULL, !is_terminal());
}
