/* job/canary.h - does a bitmap still have the bits it was born with? */
#pragma once

#include <stdbool.h>

struct err;
struct point_disk;
struct source_got;

/* Ask the export for the blocks that `base` remembers.  0: *ret_alive false
 * when one of them is clean.  -1: the export does not answer. */
int canary_check(const struct source_got *got, const struct point_disk *base,
                 bool *ret_alive, struct err *err);
