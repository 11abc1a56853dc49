/* tests/func/nbd/hostile.h - an NBD server that breaks the protocol on order.
 *
 * Written from the protocol's document, so that no library corrects it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct server;

enum status_mode {
    STATUS_GOOD,      /* one extent, all data */
    STATUS_SHORT,     /* 64 KiB for each request: allowed */
    STATUS_LONG,      /* one extent of 4 GiB - 1: allowed */
    STATUS_EMPTY,     /* an extent of length 0 */
    STATUS_NONE,      /* success without any extent */
    STATUS_TWICE,     /* two answers to one request */
    STATUS_WRONG_ID,  /* for a context that was not negotiated */
    STATUS_BEHIND,    /* an extent that begins behind the request */
    STATUS_UNALIGNED, /* 100 bytes, whatever the block size */
    STATUS_HALF_PAIR, /* a length without flags */
    STATUS_ERROR,     /* EIO */
};

enum read_mode {
    READ_GOOD,         /* zeroes */
    READ_HALF,         /* success, but only half of the bytes */
    READ_NOTHING,      /* success without data */
    READ_DATA_ERROR,   /* all bytes, then EIO */
    READ_OUTSIDE,      /* bytes before the request */
    READ_WRONG_COOKIE, /* for a request that was never made */
    READ_AFTER_DONE,   /* goes on after its last chunk */
    READ_TOO_LONG,     /* a chunk of 4 GiB - 1 */
    READ_SIMPLE,       /* a simple reply where structured ones were agreed */
    READ_BAD_MAGIC,
    READ_SILENT, /* never answers */
};

enum greet_mode {
    GREET_GOOD,
    GREET_SILENT,    /* accepts and says nothing */
    GREET_GARBAGE,   /* is no NBD server */
    GREET_HANG_UP,   /* closes in the middle of the options */
    GREET_OTHER_CTX, /* grants a context that was not asked for */
};

struct hostile {
    enum greet_mode greet;
    enum status_mode status;
    enum read_mode read;
    uint64_t size;
    uint64_t later_size; /* of every connection but the first; 0: the same */
    uint32_t block_min, block_pref, block_max; /* 0: not said */
};

void server_hostile(struct server *s, const struct hostile *h);
