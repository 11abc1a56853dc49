/* repo/twoline.h - small objects for people: one line of JSON, and one line with
 * its SHA-256, so that cat and sha256sum are enough to look at and check one. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define TWOLINE_LEN_MAX 65536
#define TWOLINE_DEPTH 8

struct buf;
struct err;
struct jv;

/* Append both lines. */
int twoline_encode(const struct jv *j, struct buf *ret, struct err *err);

/* Pure: check the sum and parse the first line.  ERR_FORMAT when there is no
 * line with `magic` in it, ERR_CORRUPT when there is and it is damaged; `what`
 * ("the format object") begins the message.  `sum` (32 bytes) gets the SHA-256
 * of the first line; NULL if not wanted. */
int twoline_decode(const uint8_t *bytes, size_t len, const char *magic,
                   const char *what, struct jv **ret, uint8_t *sum,
                   struct err *err);
