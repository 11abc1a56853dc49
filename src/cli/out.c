#include "out.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "err.h"
#include "jv.h"
#include "text.h"

#define LINE_MAX_BYTES 4096u

void
out_init(struct out *o)
{
    *o = (struct out){.result = stdout, .notes = stderr};
    meter_init(&o->meter, METER_NONE, stderr);
}

void
out_done(struct out *o)
{
    jv_free(o->warned);
    o->warned = NULL;
    free(TAKE_PTR(o->complaint));
}

void
out_progress(struct out *o, bool debug, bool json_events)
{
    enum meter_style style = METER_LINES;

    if (o->json)
        style = json_events && !o->quiet ? METER_JSON : METER_NONE;
    else if (o->quiet)
        style = METER_NONE;
    else if (!debug && isatty(fileno(o->notes)))
        style = METER_BAR; /* with a trace in between it would be torn */
    meter_init(&o->meter, style, o->json ? o->result : o->notes);
}

static void
note(struct out *o, const char *kind, const char *text)
{
    char line[LINE_MAX_BYTES];

    meter_clear(&o->meter);
    (void)fprintf(o->notes, "tidemark: %s: %s\n", kind,
                  text_escape_to(text, line, sizeof line));
    (void)fflush(o->notes);
}

static bool
warned_before(const struct out *o, const char *text)
{
    for (size_t i = 0; i < jv_size(o->warned); i++)
        if (strcmp(jv_str(jv_at(o->warned, i)), text) == 0)
            return true;
    return false;
}

void
out_warning(struct out *o, const char *text)
{
    struct jv *copy = jv_string(text);

    if (o->warned == NULL)
        o->warned = jv_array();
    /* Compare what is kept: bytes that are no UTF-8 are replaced there. */
    if (copy != NULL && warned_before(o, jv_str(copy))) {
        jv_free(copy);
        return;
    }
    (void)jv_add(o->warned, copy);
    o->n_warnings++;
    note(o, "warning", text);
}

void
out_warnings(struct out *o, const struct jv *texts)
{
    for (size_t i = 0; i < jv_size(texts); i++) {
        const char *text = jv_str(jv_at(texts, i));

        if (text != NULL)
            out_warning(o, text);
    }
}

int
out_json(struct out *o, const struct jv *value, struct err *err)
{
    CLEANUP_FREE char *text = value == NULL ? NULL : jv_text(value, false);

    if (text == NULL)
        return err_set(err, ERR_SYSTEM, "out of memory for the JSON output");
    (void)fprintf(o->result, "%s\n", text);
    if (fflush(o->result) != 0 && o->write_errno == 0)
        o->write_errno = errno;
    return 0;
}

void
out_complain(struct out *o, const char *text)
{
    free(o->complaint);
    o->complaint = strdup(text); /* NULL without memory: nobody misses it */
    note(o, "error", text);
}

void
out_error(struct out *o, const struct err *err, int status)
{
    CLEANUP_JV struct jv *e = NULL;

    out_complain(o, err->msg);
    if (!o->json)
        return;
    e = jv_object();
    (void)jv_set_str(e, "event", "error");
    (void)jv_set_str(e, "code", err_code_name(err->code));
    (void)jv_set_str(e, "message", err->msg);
    (void)jv_set_int(e, "exit_status", status);
    (void)out_json(o, e, NULL);
}

void
out_field(struct out *o, const char *label, const char *value)
{
    char line[LINE_MAX_BYTES];

    (void)fprintf(o->result, "%-13s %s\n", label,
                  text_escape_to(value, line, sizeof line));
}

void
out_line(struct out *o, const char *fmt, ...)
{
    char raw[LINE_MAX_BYTES], line[LINE_MAX_BYTES];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(raw, sizeof raw, fmt, ap);
    va_end(ap);
    (void)fprintf(o->result, "%s\n", text_escape_to(raw, line, sizeof line));
}

void
out_trace(void *arg, const char *line)
{
    struct out *o = arg;
    char text[LINE_MAX_BYTES];

    (void)fprintf(o->notes, "tidemark: debug: %s\n",
                  text_escape_to(line, text, sizeof text));
}

int
out_flush(struct out *o, struct err *err)
{
    if (fflush(o->result) != 0 && o->write_errno == 0)
        o->write_errno = errno;
    if (ferror(o->result) && o->write_errno == 0)
        o->write_errno = EIO;
    if (o->write_errno == 0)
        return 0;
    return err_set_errno(err, o->write_errno,
                         "the result could not be written to standard output");
}
