/* Making a repository, plain or encrypted, dies at its Nth file operation, for
 * every N: the next one works in the same directory, whatever was left there. */
#include "tap.h"

#include <limits.h>

#include "faulty_ops.h"
#include "kdf.h"
#include "repo_fixture.h"
#include "secret.h"

#define N_MAX 1000

static int
passphrase(void *arg, const struct secret_ask *ask, struct secret *ret,
           struct err *err)
{
    if (ask->attempt > 0)
        return 1;
    ret->kind = SECRET_PASSPHRASE;
    ret->len = 8;
    memcpy(ret->text, "a secret", ret->len);
    return 0;
}

static int
make(const char *path, bool encrypt, struct err *err)
{
    struct repo_init_opts opts = {.chunk_size = REPO_CHUNK_DEFAULT,
                                  .ops = &faulty_ops,
                                  .encrypt = encrypt,
                                  .passphrase = passphrase,
                                  .kdf_ops = KDF_OPS_MIN,
                                  .kdf_mem = KDF_MEM_MIN};
    char id[33];

    return repo_init_with(path, &opts, id, err);
}

static void
check_opens(const char *path, bool encrypt)
{
    struct repo_open_opts opts = {.ops = &faulty_ops, .unlock = passphrase};
    CLEANUP(repo_closep) struct repo *r = NULL;
    struct err err = ERR_INIT;

    CHECK_OK(repo_open_with(path, &opts, &r, &err), &err);
    CHECK(r != NULL && repo_encrypted(r) == encrypt);
}

/* Whether a fault was met at all. */
static bool
one(enum faulty_mode mode, unsigned n, bool first_encrypted, bool encrypted)
{
    char dir[TMPDIR_MAX], path[2 * TMPDIR_MAX];
    struct err err = ERR_INIT;
    bool made, hit;

    tmpdir_make(dir);
    (void)snprintf(path, sizeof path, "%s/repo", dir);
    faulty_start(mode, n);
    made = make(path, first_encrypted, &err) == 0;
    hit = faulty.hit;
    faulty_start(FAULTY_EIO, UINT_MAX); /* from here on all is well */
    err_clear(&err);
    if (!made && make(path, encrypted, &err) == 0)
        check_opens(path, encrypted);
    else /* its last step worked, whatever was said of it */
        check_opens(path, first_encrypted);
    if (err.code != ERR_NONE)
        CHECK(strstr(err.msg, "is a Tidemark repository already") != NULL);
    if (tap_failures > 0)
        printf("# operation %u: %s\n", n, err.msg);
    tmpdir_remove(dir);
    return hit;
}

static void
sweep(enum faulty_mode mode)
{
    for (unsigned turn = 0; turn < 3; turn++) {
        unsigned n = 1;

        while (n < N_MAX && tap_failures == 0 &&
               one(mode, n, turn > 0, turn == 1))
            n++;
        printf("# %u operations\n", n);
        CHECK(n > 30 && n < N_MAX);
    }
}

static void
test_killed(void)
{
    sweep(FAULTY_CRASH);
}

static void
test_failed(void)
{
    sweep(FAULTY_EIO);
}

static void
test_no_space(void)
{
    sweep(FAULTY_ENOSPC);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_killed),
        TEST(test_failed),
        TEST(test_no_space),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
