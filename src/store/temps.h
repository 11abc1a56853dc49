/* store/temps.h - the temporary files of a directory store; for dir.c. */
#pragma once

#include <stdbool.h>

#include "dir.h"
#include "store.h"

#define TMP_DIGITS 16 /* random ones behind it */

/* "a/b/.tmp-0123456789abcdef", with nothing odd before it. */
bool temp_name_valid(const char *name);

/* Call `fn` for each below `root`, as store_list() does. */
int temps_list(const char *root, store_list_fn fn, void *arg, struct err *err);
