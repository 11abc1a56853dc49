/* Lines of the log between the threads that say them and the main thread that
 * writes them.  Whoever logs may stand between the freeze and the thaw of a guest,
 * so nothing here waits for a disk, and memory is bounded. */
#include "internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "err.h"
#include "jv.h"

#define LINE_MAX_LEN 1024u       /* of one line; the rest is cut */
#define WAITING_MAX (512u << 10) /* bytes until the next flush */

void
lines_init(struct history_lines *l)
{
    *l = (struct history_lines){.start_ms = clock_ms()};
    (void)pthread_mutex_init(&l->lock, NULL);
}

void
lines_done(struct history_lines *l)
{
    buf_done(&l->text);
    (void)pthread_mutex_destroy(&l->lock);
}

/* One line stays one line, and the text stays free of NULs. */
static size_t
one_line(const char *line, char *out, size_t size)
{
    size_t n = 0;

    for (; *line != '\0' && n + 5 < size; line++)
        out[n++] = *line == '\n' || *line == '\r' ? ' ' : *line;
    if (*line != '\0') {
        memcpy(out + n, " ...", 4);
        n += 4;
    }
    return n;
}

void
lines_add(struct history_lines *l, const char *line)
{
    char text[LINE_MAX_LEN + 32];
    int head =
        snprintf(text, sizeof text, "%" PRIu64 " ", clock_ms() - l->start_ms);
    size_t n = (size_t)head;

    n += one_line(line, text + n, LINE_MAX_LEN);
    text[n++] = '\n';
    (void)pthread_mutex_lock(&l->lock);
    if (l->text.len + n > WAITING_MAX ||
        buf_append(&l->text, text, n, NULL) < 0)
        l->n_lost++;
    (void)pthread_mutex_unlock(&l->lock);
}

void
lines_take(struct history_lines *l, struct buf *ret)
{
    char text[96];

    (void)pthread_mutex_lock(&l->lock);
    if (l->n_lost > 0) {
        int n = snprintf(text, sizeof text,
                         "%" PRIu64 " (%" PRIu64
                         " lines left out: too many at once)\n",
                         clock_ms() - l->start_ms, l->n_lost);

        (void)buf_append(&l->text, text, (size_t)n, NULL);
    }
    *ret = l->text;
    l->text = (struct buf)BUF_INIT;
    l->n_lost = 0;
    (void)pthread_mutex_unlock(&l->lock);
}

/* Those that came meanwhile belong behind. */
void
lines_return(struct history_lines *l, struct buf *text)
{
    (void)pthread_mutex_lock(&l->lock);
    if (l->text.len > 0 &&
        (text->len + l->text.len > WAITING_MAX ||
         buf_append(text, l->text.data, l->text.len, NULL) < 0))
        for (size_t i = 0; i < l->text.len; i++)
            l->n_lost += l->text.data[i] == '\n';
    buf_done(&l->text);
    l->text = *text;
    *text = (struct buf)BUF_INIT;
    (void)pthread_mutex_unlock(&l->lock);
}

/* -- back to JSON -----------------------------------------------------------*/

static int
add_line(const char *line, size_t len, struct jv *array)
{
    CLEANUP_FREE char *copy = strndup(line, len);
    char *text = copy;
    int64_t ms = 0;

    if (copy == NULL)
        return -1;
    while (*text >= '0' && *text <= '9' && ms < INT64_MAX / 100)
        ms = ms * 10 + (*text++ - '0');
    if (text == copy || *text != ' ')
        return jv_add(array,
                      jv_build("{s:n, s:o}", "ms", "text", jv_string(copy)));
    return jv_add(
        array, jv_build("{s:I, s:o}", "ms", ms, "text", jv_string(text + 1)));
}

int
lines_parse(const char *text, size_t len, struct jv *array)
{
    while (len > 0) {
        const char *end = memchr(text, '\n', len);
        size_t n = end != NULL ? (size_t)(end - text) : len;

        if (add_line(text, n, array) < 0)
            return -1;
        n += end != NULL;
        text += n;
        len -= n;
    }
    return 0;
}
