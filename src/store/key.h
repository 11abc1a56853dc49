/* store/key.h - what a key may look like.
 *
 * Keys become file names, and some of them come out of objects that somebody
 * else wrote, so each is checked before it is joined to a path.
 */
#pragma once

#include <stdbool.h>

#define STORE_KEY_MAX 200 /* bytes */

/* Lower-case letters, digits, '-', '.', in parts between single '/'; no part is
 * empty or begins with '.'. */
bool store_key_valid(const char *key);
