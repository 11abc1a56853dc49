/* repo/catalog.h - all index segments of an open repository.
 *
 * Grows and never shrinks, so that locators stay valid.  Protected by the
 * repository's index lock.
 */
#pragma once

struct catalog;
struct err;
struct store;

int catalog_new(struct catalog **ret, struct err *err);
void catalog_free(struct catalog *c, struct store *st); /* NULL is fine */
