/* cli/table.h - a small table for people: left or right aligned columns.
 *
 * Cells are filled row by row.  Memory that runs out is remembered and told by
 * table_print(), so that filling needs no checks.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct err;
struct table;

#define TABLE_COLUMNS_MAX 16

/* `heads`: titles separated by '|'; a leading '>' aligns right: "DISK|>SIZE".
 * They are escaped like cells. */
struct table *table_new(const char *heads);
void table_free(struct table *t); /* NULL is fine */

/* The next cell.  The text is copied and escaped (text.h); NULL is "-". */
void table_text(struct table *t, const char *text);
void table_size(struct table *t, uint64_t bytes); /* "1.5 GiB" */
void table_count(struct table *t, uint64_t n);

size_t table_rows(const struct table *t);

/* Print, each line after `indent` spaces, no space at line ends. */
int table_print(const struct table *t, unsigned indent, FILE *to,
                struct err *err);

#include "cleanup.h"
DEFINE_CLEANUP(struct table *, table_free)
