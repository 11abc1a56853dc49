#include "address.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "err.h"

static const char usage[] =
    "write qmp:/path.sock or qmp:/path.sock,agent=/path.sock, or for a machine "
    "that is off file:/disk0.qcow2,/disk1.raw";

/* One piece up to a single comma; "**p" is left behind it. */
static char *
take_piece(const char **p)
{
    char *piece = malloc(strlen(*p) + 1), *to = piece;
    const char *s = *p;

    if (piece == NULL)
        return NULL;
    while (*s != '\0') {
        if (*s == ',') {
            if (s[1] != ',')
                break;
            s++;
        }
        *to++ = *s++;
    }
    *to = '\0';
    *p = s;
    return piece;
}

static int
take_path(const char **p, const char *text, char **ret, struct err *err)
{
    CLEANUP_FREE char *path = take_piece(p);

    if (path == NULL)
        return err_set_errno(err, ENOMEM, "machine '%s'", text);
    if (path[0] != '/')
        return err_set(err, ERR_USAGE,
                       "machine '%s': '%s' is not an absolute path; %s", text,
                       path, usage);
    *ret = TAKE_PTR(path);
    return 0;
}

static int
not_understood(const char *text, const char *what, struct err *err)
{
    if (strncmp(what, "format=", 7) == 0)
        return err_set(err, ERR_USAGE,
                       "machine '%s': '%s' is not understood; write format=raw "
                       "or format=qcow2, once, behind its image (%s)",
                       text, what, usage);
    return err_set(err, ERR_USAGE, "machine '%s': '%s' is not understood; %s",
                   text, what, usage);
}

/* -- a machine that runs ----------------------------------------------------*/

static int
parse_qmp(const char *text, const char *p, struct address *a, struct err *err)
{
    if (take_path(&p, text, &a->qmp, err) < 0)
        return -1;
    while (*p == ',') {
        p++;
        if (strncmp(p, "agent=", 6) != 0 || a->agent != NULL)
            return not_understood(text, p, err);
        p += 6;
        if (take_path(&p, text, &a->agent, err) < 0)
            return -1;
    }
    return 0;
}

/* -- a machine that is off --------------------------------------------------*/

static const char *
format_of_name(const char *path)
{
    static const char *const known[] = {"qcow2", "raw"};
    const char *dot = strrchr(path, '.');

    for (size_t i = 0; dot != NULL && i < ARRAY_SIZE(known); i++)
        if (strcmp(dot + 1, known[i]) == 0 && dot[-1] != '/')
            return known[i];
    return NULL;
}

static bool
name_ok(const char *name)
{
    for (const char *p = name; *p != '\0'; p++)
        if (*p == '/' || (unsigned char)*p <= ' ' || (unsigned char)*p > '~')
            return false;
    return *name != '\0';
}

/* "format=raw" or "disk=NAME" of the image before it. */
static int
take_option(struct address_image *image, const char **p, const char *text,
            struct err *err)
{
    CLEANUP_FREE char *piece = take_piece(p);

    if (piece == NULL)
        return err_set_errno(err, ENOMEM, "machine '%s'", text);
    if (image == NULL)
        return err_set(err, ERR_USAGE,
                       "machine '%s': '%s' is not an absolute path; %s", text,
                       piece, usage);
    if (strncmp(piece, "format=", 7) == 0 && image->format == NULL &&
        (strcmp(piece + 7, "raw") == 0 || strcmp(piece + 7, "qcow2") == 0)) {
        image->format = strdup(piece + 7);
        return image->format != NULL
                   ? 0
                   : err_set_errno(err, ENOMEM, "machine '%s'", text);
    }
    if (strncmp(piece, "disk=", 5) == 0 && image->name == NULL &&
        name_ok(piece + 5)) {
        image->name = strdup(piece + 5);
        return image->name != NULL
                   ? 0
                   : err_set_errno(err, ENOMEM, "machine '%s'", text);
    }
    return not_understood(text, piece, err);
}

static int
take_image(struct address *a, const char **p, const char *text, struct err *err)
{
    if (a->n_images == ADDRESS_IMAGES_MAX)
        return err_set(err, ERR_USAGE, "more than %d images",
                       ADDRESS_IMAGES_MAX);
    a->n_images++;
    return take_path(p, text, &a->images[a->n_images - 1].path, err);
}

/* Every image has a format, and no two the same name or path. */
static int
check_images(struct address *a, const char *text, struct err *err)
{
    for (size_t i = 0; i < a->n_images; i++) {
        struct address_image *v = &a->images[i];
        const char *format = v->format ? v->format : format_of_name(v->path);

        if (format == NULL)
            return err_set(err, ERR_USAGE,
                           "machine '%s': the format of '%s' must be stated, "
                           "its name does not end in .qcow2 or .raw: write "
                           "%s,format=raw or %s,format=qcow2",
                           text, v->path, v->path, v->path);
        if (v->format == NULL && (v->format = strdup(format)) == NULL)
            return err_set_errno(err, ENOMEM, "machine '%s'", text);
        for (size_t k = 0; k < i; k++)
            if (strcmp(a->images[k].path, v->path) == 0 ||
                (v->name != NULL && a->images[k].name != NULL &&
                 strcmp(a->images[k].name, v->name) == 0))
                return err_set(
                    err, ERR_USAGE, "machine '%s': '%s' is there twice", text,
                    strcmp(a->images[k].path, v->path) == 0 ? v->path
                                                            : v->name);
    }
    return 0;
}

static int
parse_file(const char *text, const char *p, struct address *a, struct err *err)
{
    a->images = calloc(ADDRESS_IMAGES_MAX, sizeof *a->images);
    if (a->images == NULL)
        return err_set_errno(err, ENOMEM, "machine '%s'", text);
    for (;; p++) {
        struct address_image *last =
            a->n_images > 0 ? &a->images[a->n_images - 1] : NULL;

        if ((*p == '/' ? take_image(a, &p, text, err)
                       : take_option(last, &p, text, err)) < 0)
            return -1;
        if (*p == '\0')
            return check_images(a, text, err);
    }
}

int
address_parse(const char *text, struct address *ret, struct err *err)
{
    struct address a = {0};
    int r;

    if (strncmp(text, "qmp:", 4) == 0)
        r = parse_qmp(text, text + 4, &a, err);
    else if (strncmp(text, "file:", 5) == 0)
        r = parse_file(text, text + 5, &a, err);
    else
        r = err_set(err, ERR_USAGE, "machine '%s' is not understood; %s", text,
                    usage);
    if (r < 0) {
        address_done(&a);
        return -1;
    }
    *ret = a;
    return 0;
}

void
address_done(struct address *a)
{
    free(a->qmp);
    free(a->agent);
    for (size_t i = 0; i < a->n_images; i++) {
        free(a->images[i].path);
        free(a->images[i].format);
        free(a->images[i].name);
    }
    free(a->images);
    *a = (struct address){0};
}
