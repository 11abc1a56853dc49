/* job/outfile.h - a file that appears under its name only when it is complete.
 *
 * Written as ".NAME.tidemark-partial" in the same directory, then fsync, rename,
 * fsync of the directory.  NAME has been checked by the caller (no '/'); links
 * are never followed.  Two programs must not make the same file at once: the
 * partial name is the same.
 */
#pragma once

#include <stdbool.h>

struct err;

struct outfile {
    int dir_fd; /* borrowed */
    int fd;     /* -1 once published */
    bool overwrite;
    char *name;
    char *partial;
};
#define OUTFILE_INIT           \
    {                          \
        .dir_fd = -1, .fd = -1 \
    }

/* Make the partial file, mode 0600; a stale one is removed first. */
int outfile_make(int dir_fd, const char *name, bool overwrite,
                 struct outfile *ret, struct err *err);

/* Make it durable under its name.  ERR_EXISTS when the name is taken and
 * overwriting was not asked for. */
int outfile_publish(struct outfile *f, struct err *err);

/* Release; removes what was not published. */
void outfile_done(struct outfile *f);
