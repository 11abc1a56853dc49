/* The agent's stream: coming in step, then one reply; and every text of it
 * made fit for a terminal. */
#include <stdlib.h>
#include <string.h>

#include "agent_proto.h"
#include "err.h"
#include "frame.h"
#include "jv.h"
#include "text.h"

#define LINE_MAX_ 512
#define SYNC_ID 42

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
reply(const char *line, size_t len)
{
    CLEANUP_JV struct jv *j = NULL;
    struct err err = ERR_INIT;
    bool frozen;
    unsigned n;

    if (agent_parse_reply(line, len, "x", &j, &err) == 0) {
        if (agent_parse_count(j, "x", &n, NULL) == 0 && n > AGENT_COUNT_MAX)
            abort();
        (void)agent_parse_status(j, &frozen, NULL);
    } else if (err.code != ERR_PROTOCOL && err.code != ERR_REMOTE) {
        abort();
    }
    for (const char *p = err.msg; *p != '\0'; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            abort();
}

static void
text(const uint8_t *data, size_t size)
{
    char out[40];

    (void)text_clean((const char *)data, size, out, sizeof out);
    if (strlen(out) >= sizeof out || strpbrk(out, "\x1b\n\r\x7f") != NULL)
        abort();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bool in_step = false;
    struct frame f;

    text(data, size);
    frame_init(&f, LINE_MAX_);
    for (size_t done = 0; done < size;) {
        size_t piece = 1 + data[done] % 37, len;
        const char *line;
        int r = 0;

        if (piece > size - done)
            piece = size - done;
        if (frame_add(&f, data + done, piece, NULL) < 0)
            abort();
        done += piece;
        if (!in_step)
            in_step = agent_find_sync(&f, SYNC_ID);
        while (in_step && (r = frame_line(&f, &line, &len, NULL)) == 1)
            reply(line, len);
        if (r < 0) { /* as the client: out of step again */
            frame_reset(&f);
            in_step = false;
        }
        if (frame_pending(&f, NULL) > LINE_MAX_ + 1)
            abort();
    }
    frame_done(&f);
    return 0;
}
