/* repo/quick.h - one look-up for many small index segments.
 *
 * Every backup leaves a segment, mostly a small one; after a year of hourly
 * backups there are thousands, and asking each of them about a new chunk would
 * take longer than storing it.  So the records of small segments are entered in
 * one hash table, of 16 to 32 bytes per record and 64 MiB at most.  What is not
 * entered is searched segment by segment.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "index.h"

#define QUICK_SEGMENT_MAX 65535u     /* records of a segment that is entered */
#define QUICK_RECORDS_MAX (4u << 20) /* of all of them */

struct quick;

int quick_new(struct quick **ret, struct err *err);
void quick_free(struct quick *q); /* NULL is fine */

/* Enter the records of segment number `no`, whose bytes must not move.  1
 * entered, 0 left out (too large, damaged, no room), -1. */
int quick_add(struct quick *q, uint32_t no, const struct segment *s,
              struct err *err);

/* 1 and where, 0 not in any entered segment. */
int quick_find(const struct quick *q, const struct chunk_id *id,
               uint32_t *ret_segment, uint32_t *ret_no);
