/* repo/table.h - the records a session has made and not yet written out.
 *
 * A hash table of bounded size over a dense array, because the array is what
 * becomes an index segment when the table is full.  About 45 bytes per record.
 *
 * Threads: none of its own; the session's lock protects it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "index.h"

struct record_table;

int record_table_new(uint32_t max, struct record_table **ret, struct err *err);
void record_table_free(struct record_table *t); /* NULL is fine */

/* The record whose prefix is that of `id`, or NULL. */
const struct index_record *record_table_find(const struct record_table *t,
                                             const struct chunk_id *id);
/* Add a record that is not there; the table must not be full. */
int record_table_add(struct record_table *t, const struct index_record *r,
                     struct err *err);
bool record_table_full(const struct record_table *t);

/* The records, which the caller may sort if it clears the table next. */
struct index_record *record_table_all(struct record_table *t, uint32_t *ret_n);
void record_table_clear(struct record_table *t);
