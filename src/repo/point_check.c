/* Limits of a point.  Names and reasons end on terminals, in file names and in
 * other programs' arguments, and a guest's owner chooses some of them: hence no
 * control characters (escape sequences), no bidirectional overrides, no '/'.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "map_page.h"
#include "point.h"
#include "repo.h"

/* Length of the UTF-8 sequence at `s` and its code point; 0 when it is none:
 * overlong, a surrogate, beyond U+10FFFF or cut off. */
static size_t
utf8_decode(const uint8_t *s, uint32_t *ret)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = s[0] < 0x80   ? 1
               : s[0] < 0xc0 ? 0
               : s[0] < 0xe0 ? 2
               : s[0] < 0xf0 ? 3
               : s[0] < 0xf8 ? 4
                             : 0;
    uint32_t c;

    if (n <= 1) {
        *ret = s[0];
        return n;
    }
    c = s[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0; /* the NUL at the end stops here, too */
        c = c << 6 | (s[i] & 0x3f);
    }
    if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return 0;
    *ret = c;
    return n;
}

/* Control characters, line separators, marks that turn the writing direction,
 * and other signs that cannot be seen. */
static bool
unprintable(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0xad || c == 0x61c ||
           (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
           (c >= 0x2060 && c <= 0x206f) || c == 0xfeff ||
           (c >= 0xfff0 && c <= 0xffff) || (c >= 0xe0000 && c <= 0xe0fff);
}

static bool
text_ok(const char *text, size_t max)
{
    const uint8_t *s = (const uint8_t *)text;

    if (text == NULL || strnlen(text, max + 1) > max)
        return false;
    while (*s != '\0') {
        uint32_t c;
        size_t n = utf8_decode(s, &c);

        if (n == 0 || unprintable(c))
            return false;
        s += n;
    }
    return true;
}

bool
point_name_ok(const char *name)
{
    return text_ok(name, POINT_NAME_MAX) && name[0] != '\0' &&
           strchr(name, '/') == NULL && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}

/* Words of programs: a-z, 0-9, '-', '_', '.'. */
static bool
label_ok(const char *s)
{
    size_t n = s == NULL ? 0
                         : strspn(s, "abcdefghijklmnopqrstuvwxyz"
                                     "0123456789-_.");

    return n > 0 && n <= POINT_LABEL_MAX && s[n] == '\0';
}

static bool
hex32_ok(const char *s)
{
    return s != NULL && strspn(s, "0123456789abcdef") == 32 && s[32] == '\0';
}

static int
bad(struct err *err, const char *field)
{
    return err_set(err, ERR_FORMAT, "'%s' is missing or not valid", field);
}

static bool
counts_ok(const struct point_disk *d)
{
    return d->read_bytes <= MAP_DISK_MAX && d->dirty_bytes <= MAP_DISK_MAX &&
           d->new_bytes <= MAP_DISK_MAX && d->stored_bytes <= MAP_DISK_MAX &&
           d->audit.round <= MAP_DISK_MAX && d->audit.bound <= MAP_DISK_MAX &&
           d->audit.chunks <= MAP_DISK_MAX && d->audit.bytes <= MAP_DISK_MAX;
}

static bool
canaries_ok(const struct point_disk *d, const uint64_t *v, size_t n)
{
    if (n > POINT_CANARIES)
        return false;
    for (size_t i = 0; i < n; i++)
        if (v[i] >=
            d->size / POINT_CANARY_SIZE + (d->size % POINT_CANARY_SIZE != 0))
            return false;
    return true;
}

static int
check_disk(const struct point_disk *d, struct err *err)
{
    struct map_shape shape;

    if (!point_name_ok(d->name))
        return bad(err, "name");
    if (map_shape_init(&shape, d->size, d->chunk_size, err) < 0)
        return -1;
    if (shape.n_chunks == 0 && !chunk_id_zero(&d->root))
        return bad(err, "root");
    if (!label_ok(d->format))
        return bad(err, "format");
    if (d->generation != NULL && !hex32_ok(d->generation))
        return bad(err, "generation");
    if (!canaries_ok(d, d->canaries, d->n_canaries))
        return bad(err, "canaries");
    if (!label_ok(d->tracking))
        return bad(err, "tracking");
    if (!text_ok(d->reason, POINT_TEXT_MAX))
        return bad(err, "reason");
    if (!counts_ok(d))
        return bad(err, "read_bytes, dirty_bytes, new_bytes, "
                        "stored_bytes or audit");
    return 0;
}

/* Whole chunks, or the whole disk. */
static int
check_partial(const struct point_disk *d, struct err *err)
{
    if (d->done > d->size ||
        (d->done != d->size && d->done % d->chunk_size != 0))
        return bad(err, "done");
    if (d->base_generation != NULL && !hex32_ok(d->base_generation))
        return bad(err, "base_generation");
    if (!canaries_ok(d, d->base_canaries, d->n_base_canaries))
        return bad(err, "base_canaries");
    return 0;
}

bool
point_tag_ok(const char *tag)
{
    return label_ok(tag);
}

static int
check_tags(const struct point *p, struct err *err)
{
    if (p->n_tags > POINT_TAGS_MAX)
        return err_set(err, ERR_FORMAT, "%zu tags, at most %d are allowed",
                       p->n_tags, POINT_TAGS_MAX);
    for (size_t i = 0; i < p->n_tags; i++) {
        if (!label_ok(p->tags[i]))
            return bad(err, "tags");
        for (size_t k = 0; k < i; k++)
            if (strcmp(p->tags[i], p->tags[k]) == 0)
                return err_set(err, ERR_FORMAT, "tag '%s' is there twice",
                               p->tags[i]);
    }
    return 0;
}

static int
check_disks(const struct point *p, struct err *err)
{
    if (p->n_disks > POINT_DISKS_MAX)
        return err_set(err, ERR_FORMAT, "%zu disks, at most %d are allowed",
                       p->n_disks, POINT_DISKS_MAX);
    for (size_t i = 0; i < p->n_disks; i++) {
        if (check_disk(&p->disks[i], err) < 0 ||
            (p->partial && check_partial(&p->disks[i], err) < 0))
            return err_wrap(err, "disk %zu", i);
        if (point_disk(p, p->disks[i].name) != &p->disks[i])
            return err_set(err, ERR_FORMAT, "two disks are named '%s'",
                           p->disks[i].name);
    }
    return 0;
}

int
point_check(const struct point *p, struct err *err)
{
    if (!hex32_ok(p->id))
        return bad(err, "id");
    if (p->parent[0] != '\0' &&
        (!hex32_ok(p->parent) || strcmp(p->parent, p->id) == 0))
        return bad(err, "parent");
    if (p->seq < 1 || p->seq > POINT_SEQ_MAX)
        return bad(err, "seq");
    if (!point_name_ok(p->machine))
        return bad(err, "machine");
    if (!hex32_ok(p->lineage))
        return bad(err, "lineage");
    if (!label_ok(p->consistency))
        return bad(err, "consistency");
    if (p->freeze_ms > INT64_MAX)
        return bad(err, "freeze_ms");
    if (!label_ok(p->capture))
        return bad(err, "capture");
    if (p->config_len > POINT_CONFIG_MAX ||
        (p->config_len == 0 && !chunk_id_zero(&p->config)))
        return bad(err, "config");
    if (check_tags(p, err) < 0)
        return -1;
    return check_disks(p, err);
}
