/* job/key.c - passphrases: who can open an encrypted repository. */
#include <errno.h>

#include "cleanup.h"
#include "clock.h"
#include "common.h"
#include "err.h"
#include "job.h"
#include "jv.h"
#include "keyring.h"

DEFINE_CLEANUP(struct keyring *, keyring_close)

static struct jv *
info_json(const struct key_info *i)
{
    char time[CLOCK_TEXT_MAX] = "";

    if (i->problem[0] == '\0')
        clock_text(i->time_ns, time, sizeof time);
    return jv_build("{s:s, s:o, s:s, s:I, s:I, s:b, s:o}", "slot", i->slot,
                    "label", jv_string(i->label), "time", time, "ops",
                    (int64_t)i->ops, "mem", (int64_t)i->mem, "removing",
                    (int)i->going, "problem", jv_string(i->problem));
}

static struct jv *
list_json(const struct keyring *k)
{
    CLEANUP_JV struct jv *a = jv_array();

    for (size_t i = 0; i < keyring_size(k); i++)
        if (jv_add(a, info_json(keyring_at(k, i))) < 0)
            return NULL;
    return TAKE_PTR(a);
}

static int
change(struct keyring *k, const struct job_key_opts *o, struct jv *result,
       struct err *err)
{
    const struct key_new new = {.passphrase = o->passphrase,
                                .label = o->label,
                                .kdf_mem = o->kdf_memory};
    char slot[17];

    if (o->action == JOB_KEY_REMOVE) {
        if (keyring_remove(k, o->slot, slot, err) < 0)
            return -1;
    } else if (o->action == JOB_KEY_ADD) {
        if (keyring_add(k, &new, slot, err) < 0)
            return -1;
    } else if (keyring_passwd(k, &new, slot, err) < 0) {
        return -1;
    }
    return jv_set_str(result, "slot", slot) < 0
               ? err_set_errno(err, ENOMEM, "report")
               : 0;
}

static int
unlocked(const char *repo, struct keyring **ret, struct err *err)
{
    CLEANUP(keyring_closep) struct keyring *k = NULL;

    if (keyring_open(repo, NULL, &k, err) < 0 || unlock_keyring(k, err) < 0)
        return -1;
    *ret = TAKE_PTR(k);
    return 0;
}

static int
run(const struct job_key_opts *o, struct jv *result, struct err *err)
{
    CLEANUP(keyring_closep) struct keyring *k = NULL;

    if ((o->action == JOB_KEY_LIST ? keyring_open(o->repo, NULL, &k, err)
                                   : unlocked(o->repo, &k, err)) < 0)
        return -1;
    if (jv_set_str(result, "repository", keyring_repo_id(k)) < 0 ||
        (o->action == JOB_KEY_LIST && jv_set(result, "keys", list_json(k)) < 0))
        return err_set_errno(err, ENOMEM, "report");
    return o->action == JOB_KEY_LIST ? 0 : change(k, o, result, err);
}

int
job_key(const struct job_key_opts *opts, struct jv **ret_result,
        struct err *err)
{
    CLEANUP_JV struct jv *result = jv_object();

    if (run(opts, result, err) < 0)
        return err_side(err, ERR_SIDE_REPO);
    *ret_result = TAKE_PTR(result);
    return 0;
}

int
job_key_export(const char *repo, struct secret *ret, struct err *err)
{
    CLEANUP(keyring_closep) struct keyring *k = NULL;

    if (unlocked(repo, &k, err) < 0)
        return err_side(err, ERR_SIDE_REPO);
    keyring_export(k, ret);
    return 0;
}
