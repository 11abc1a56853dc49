#include "table.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "size.h"
#include "text.h"

struct table {
    size_t n_columns;
    bool right[TABLE_COLUMNS_MAX];
    size_t width[TABLE_COLUMNS_MAX];
    char **cell; /* titles first, then row by row */
    size_t n_cells;
    size_t cap;
    bool no_memory;
};

static bool
make_room(struct table *t)
{
    size_t cap = t->cap == 0 ? 64 : t->cap * 2;
    char **cell;

    if (t->n_cells < t->cap)
        return true;
    cell = realloc(t->cell, cap * sizeof *cell);
    if (cell == NULL)
        return false;
    t->cell = cell;
    t->cap = cap;
    return true;
}

void
table_text(struct table *t, const char *text)
{
    size_t column, width;
    char *copy;

    if (t == NULL || t->no_memory)
        return;
    copy = text_escape(text == NULL ? "-" : text);
    if (copy == NULL || !make_room(t)) {
        free(copy);
        t->no_memory = true;
        return;
    }
    column = t->n_cells % t->n_columns;
    width = text_columns(copy);
    if (width > t->width[column])
        t->width[column] = width;
    t->cell[t->n_cells++] = copy;
}

struct table *
table_new(const char *heads)
{
    struct table *t = calloc(1, sizeof *t);
    CLEANUP_FREE char *copy = strdup(heads);
    char *rest = copy, *head;

    if (t == NULL || copy == NULL) {
        free(t);
        return NULL;
    }
    for (const char *p = heads; *p != '\0'; p++)
        t->n_columns += *p == '|';
    t->n_columns++;
    if (t->n_columns > TABLE_COLUMNS_MAX) {
        free(t);
        return NULL;
    }
    for (size_t i = 0; (head = strsep(&rest, "|")) != NULL; i++) {
        t->right[i] = *head == '>';
        table_text(t, head + t->right[i]);
    }
    return t;
}

void
table_free(struct table *t)
{
    if (t == NULL)
        return;
    for (size_t i = 0; i < t->n_cells; i++)
        free(t->cell[i]);
    free(t->cell);
    free(t);
}

void
table_size(struct table *t, uint64_t bytes)
{
    char buf[SIZE_TEXT_MAX];

    table_text(t, size_text(bytes, buf));
}

void
table_count(struct table *t, uint64_t n)
{
    char buf[24];

    (void)snprintf(buf, sizeof buf, "%" PRIu64, n);
    table_text(t, buf);
}

size_t
table_rows(const struct table *t)
{
    return t == NULL ? 0 : t->n_cells / t->n_columns - 1;
}

static void
print_cell(const struct table *t, size_t i, FILE *to)
{
    size_t column = i % t->n_columns;
    bool last = column + 1 == t->n_columns;
    int pad = (int)(t->width[column] - text_columns(t->cell[i]));

    if (t->right[column])
        (void)fprintf(to, "%*s", pad, "");
    (void)fputs(t->cell[i], to);
    if (last)
        (void)fputc('\n', to);
    else
        (void)fprintf(to, "%*s", (t->right[column] ? 0 : pad) + 2, "");
}

int
table_print(const struct table *t, unsigned indent, FILE *to, struct err *err)
{
    if (t == NULL || t->no_memory)
        return err_set(err, ERR_SYSTEM, "out of memory for a table");
    for (size_t i = 0; i < t->n_cells; i++) {
        if (i % t->n_columns == 0)
            (void)fprintf(to, "%*s", (int)indent, "");
        print_cell(t, i, to);
    }
    return 0;
}
