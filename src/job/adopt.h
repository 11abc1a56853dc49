/* job/adopt.h - finishing the instant that a dead run has left in QEMU
 * (`backup --resume`).  Inside of backup.c. */
#pragma once

struct backup;
struct err;

/* Instead of a plan of our own: the dead run's, as far as its journal, QEMU and the
 * repository agree.  Changes nothing. */
int adopt_choose(struct backup *b, struct err *err);

/* Instead of a new instant. */
int adopt_instant(struct backup *b, struct err *err);
