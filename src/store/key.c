#include "key.h"

#include <string.h>

static bool
plain(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
}

bool
store_key_valid(const char *key)
{
    size_t len = strlen(key);

    if (len == 0 || len > STORE_KEY_MAX || key[len - 1] == '/')
        return false;
    for (size_t i = 0; i < len; i++) {
        bool starts = i == 0 || key[i - 1] == '/';

        if (plain(key[i]) || (!starts && (key[i] == '.' || key[i] == '/')))
            continue;
        return false;
    }
    return true;
}
