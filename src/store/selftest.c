/* Does a store keep the promises that everything else rests on?
 *
 * Tried before a repository is made and before anything is deleted from one.  Two
 * handles stand for two programs: what one does, the other must see at once.
 * Two hosts cannot be had here; where hosts keep copies of names and attributes
 * (NFS), the store's own probe looks at how it is mounted.
 */
#include <stdio.h>
#include <string.h>

#include "backend.h"
#include "cleanup.h"
#include "dir.h"
#include "err.h"
#include "rand.h"
#include "store.h"

DEFINE_CLEANUP(struct store *, store_close)

#define TEXT_LEN 64

struct test {
    struct store *one, *two;
    char key[64];
    char text[TEXT_LEN], other[TEXT_LEN];
};

static int
unfit(const struct test *t, const char *what, struct err *err)
{
    return err_set(err, ERR_UNSUPPORTED,
                   "the file system of '%s' cannot hold a repository: %s; "
                   "use another one",
                   store_path(t->one), what);
}

struct seen {
    const char *key;
    unsigned n;
};

static int
is_it_listed(void *arg, const char *key, uint64_t len)
{
    struct seen *s = arg;

    if (strcmp(key, s->key) == 0)
        s->n += len == TEXT_LEN ? 1 : 2;
    return 0;
}

/* The other handle asks, so that what it remembers of that is tested, too. */
static int
check_absent(const struct test *t, struct store *s, const char *what,
             struct err *err)
{
    struct seen seen = {t->key, 0};
    uint64_t len;
    int found = store_size(s, t->key, &len, err);

    if (found < 0 || store_list(s, "session", is_it_listed, &seen, err) < 0)
        return -1;
    return found > 0 || seen.n > 0 ? unfit(t, what, err) : 0;
}

static int
check_content(const struct test *t, struct store *s, struct err *err)
{
    char back[TEXT_LEN] = "";
    struct err why = ERR_INIT;

    if (store_get(s, t->key, 0, sizeof back, back, &why) < 0 &&
        why.code != ERR_NOT_FOUND && why.code != ERR_CORRUPT)
        return err_copy(err, &why);
    if (why.code != ERR_NONE || memcmp(back, t->text, sizeof back) != 0)
        return unfit(t, "it does not give back what was written", err);
    return 0;
}

static int
check_present(const struct test *t, struct store *s, struct err *err)
{
    struct seen seen = {t->key, 0};
    uint64_t len = 0;
    int found = store_size(s, t->key, &len, err);

    if (found < 0 || check_content(t, s, err) < 0 ||
        store_list(s, "session", is_it_listed, &seen, err) < 0)
        return -1;
    if (found == 0 || len != TEXT_LEN)
        return unfit(t, "it does not give back what was written", err);
    return seen.n == 1 ? 0 : unfit(t, "it does not list what was written", err);
}

static int
check_exclusive(const struct test *t, struct store *s, struct err *err)
{
    struct err why = ERR_INIT;

    if (store_put(s, t->key, t->other, sizeof t->other, &why) == 0)
        return unfit(t, "it lets a file be created twice", err);
    return why.code == ERR_EXISTS ? 0 : err_copy(err, &why);
}

static int
run(const struct test *t, struct err *err)
{
    static const char removed[] = "it still shows what was removed";

    if (check_absent(t, t->two, "it shows what was not written", err) < 0 ||
        store_put(t->one, t->key, t->text, sizeof t->text, err) < 0 ||
        check_present(t, t->two, err) < 0 ||
        check_exclusive(t, t->two, err) < 0 ||
        check_exclusive(t, t->one, err) < 0 ||
        check_present(t, t->one, err) < 0 ||
        store_delete(t->two, t->key, err) < 0 ||
        check_absent(t, t->one, removed, err) < 0)
        return -1;
    return check_absent(t, t->two, removed, err);
}

int
store_self_test(struct store *s, struct store *second, struct err *err)
{
    CLEANUP(store_closep) struct store *own = NULL;
    struct test t = {.one = s};
    uint8_t random[16];
    char hex[2 * sizeof random + 1];
    int r;

    if (store_probe(s, err) < 0)
        return -1;
    if (second == NULL && store_reopen(s, &own, err) < 0)
        return -1;
    t.two = second != NULL ? second : own != NULL ? own : s;
    rand_bytes(random, sizeof random);
    hex_encode(random, sizeof random, hex);
    (void)snprintf(t.key, sizeof t.key, "session/" STORE_TEST_PREFIX "%s", hex);
    (void)snprintf(t.text, sizeof t.text, "tidemark tests this: %.16s", hex);
    (void)snprintf(t.other, sizeof t.other, "tidemark tests that: %.16s", hex);
    r = run(&t, err);
    if (r < 0)
        (void)store_delete(s, t.key, NULL);
    return r;
}
