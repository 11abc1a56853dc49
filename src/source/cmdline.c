/* source/cmdline.c - where a QEMU listens for QMP, from its command line. */
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "holder.h"

/* The next word behind *p, NULL at the end; a last one that does not end in NUL
 * is none. */
static const char *
next_word(const char **p, const char *end)
{
    const char *word = *p;
    const char *nul =
        word < end ? memchr(word, '\0', (size_t)(end - word)) : NULL;

    if (nul == NULL)
        return NULL;
    *p = nul + 1;
    return word;
}

/* Up to a single comma, in which two stand for one. */
static char *
value_at(const char *s)
{
    char *value = malloc(strlen(s) + 1), *to = value;

    while (value != NULL && *s != '\0') {
        if (*s == ',' && *++s != ',')
            break;
        *to++ = *s++;
    }
    if (value != NULL)
        *to = '\0';
    return value;
}

/* The value of "key=" in "first,key=value,..."; malloc'd or NULL. */
static char *
option(const char *list, const char *key)
{
    size_t len = strlen(key);

    for (const char *s = list; *s != '\0'; s++) {
        if ((s == list || s[-1] == ',') && strncmp(s, key, len) == 0 &&
            s[len] == '=')
            return value_at(s + len + 1);
        if (s[0] == ',' && s[1] == ',')
            s++;
    }
    return NULL;
}

/* "-name" or "--name" */
static bool
is_option(const char *word, const char *name)
{
    if (word[0] != '-')
        return false;
    word += word[1] == '-' ? 2 : 1;
    return strcmp(word, name) == 0;
}

static char *
absolute(char *path)
{
    if (path != NULL && path[0] == '/')
        return path;
    free(path);
    return NULL;
}

/* The socket of the chardev `id`. */
static char *
chardev_path(const char *words, const char *end, const char *id)
{
    const char *p = words, *word;

    while ((word = next_word(&p, end)) != NULL) {
        CLEANUP_FREE char *name = NULL;

        if (!is_option(word, "chardev") || (word = next_word(&p, end)) == NULL)
            continue;
        name = option(word, "id");
        if (strncmp(word, "socket,", 7) == 0 && name != NULL &&
            strcmp(name, id) == 0)
            return absolute(option(word, "path"));
    }
    return NULL;
}

char *
holder_qmp(const char *words, size_t len)
{
    const char *p = words, *end = words + len, *word;

    while ((word = next_word(&p, end)) != NULL) {
        bool qmp = is_option(word, "qmp") || is_option(word, "qmp-pretty");
        CLEANUP_FREE char *mode = NULL;
        CLEANUP_FREE char *id = NULL;
        char *path = NULL;

        if ((!qmp && !is_option(word, "mon")) ||
            (word = next_word(&p, end)) == NULL)
            continue;
        if (qmp && strncmp(word, "unix:", 5) == 0)
            path = absolute(value_at(word + 5));
        mode = qmp ? NULL : option(word, "mode");
        id = qmp ? NULL : option(word, "chardev");
        if (mode != NULL && id != NULL && strcmp(mode, "control") == 0)
            path = chardev_path(words, end, id);
        if (path != NULL)
            return path;
    }
    return NULL;
}
