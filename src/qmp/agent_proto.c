#include "agent_proto.h"

#include <string.h>

#include "agent.h"
#include "err.h"
#include "frame.h"
#include "jv.h"
#include "text.h"

bool
agent_find_sync(struct frame *f, int64_t id)
{
    const char *line;
    size_t len;

    while (frame_marked(f, &line, &len) == 1) {
        CLEANUP_JV struct jv *j = NULL;
        int64_t got;

        if (jv_parse(line, len, AGENT_DEPTH_MAX, &j, NULL) == 0 &&
            jv_get_int(j, "return", &got) && got == id)
            return true;
    }
    return false;
}

/* The agent's own words, cut and made harmless. */
static int
remote_error(const struct jv *error, const char *command, struct err *err)
{
    const char *desc = jv_str(jv_get(error, "desc"));
    const char *cls = jv_str(jv_get(error, "class"));
    char d[300], c[64];

    if (desc == NULL)
        desc = "no reason given";
    if (cls == NULL)
        cls = "GenericError";
    return err_set(err, ERR_REMOTE, "the guest agent refused '%s': %s (%s)",
                   command, text_clean(desc, strlen(desc), d, sizeof d),
                   text_clean(cls, strlen(cls), c, sizeof c));
}

int
agent_parse_reply(const char *line, size_t len, const char *command,
                  struct jv **ret, struct err *err)
{
    CLEANUP_JV struct jv *j = NULL;
    struct err e = ERR_INIT;
    char text[200];

    if (jv_parse(line, len, AGENT_DEPTH_MAX, &j, &e) < 0)
        return err_set(err, ERR_PROTOCOL,
                       "the guest agent answered '%s' with what is no message: "
                       "%s",
                       command,
                       text_clean(e.msg, strlen(e.msg), text, sizeof text));
    if (jv_is_object(jv_get(j, "error")) && jv_get(j, "return") == NULL)
        return remote_error(jv_get(j, "error"), command, err);
    if (jv_get(j, "return") == NULL || jv_get(j, "error") != NULL)
        return err_set(err, ERR_PROTOCOL,
                       "the guest agent's answer to '%s' is neither a result "
                       "nor an error",
                       command);
    *ret = jv_ref(jv_get(j, "return"));
    return 0;
}

int
agent_parse_count(const struct jv *value, const char *command, unsigned *ret,
                  struct err *err)
{
    CLEANUP_JV struct jv *box = jv_build("{s:o}", "n", jv_ref(value));
    int64_t n;

    if (!jv_get_int(box, "n", &n))
        return err_set(err, ERR_PROTOCOL,
                       "the guest agent answered '%s' with no number", command);
    if (n < 0 || n > AGENT_COUNT_MAX)
        return err_set(err, ERR_PROTOCOL,
                       "the guest agent answered '%s' with a number that "
                       "cannot be",
                       command);
    *ret = (unsigned)n;
    return 0;
}

int
agent_parse_status(const struct jv *value, bool *ret_frozen, struct err *err)
{
    const char *s = jv_str(value);

    if (s != NULL && strcmp(s, "frozen") == 0)
        *ret_frozen = true;
    else if (s != NULL && strcmp(s, "thawed") == 0)
        *ret_frozen = false;
    else
        return err_set(err, ERR_PROTOCOL,
                       "the guest agent's freeze status is neither 'frozen' "
                       "nor 'thawed'");
    return 0;
}
