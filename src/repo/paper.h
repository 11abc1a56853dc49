/* repo/paper.h - the master key as text for paper.
 *
 *     tidemark paper key 1
 *     repository 0123456789abcdef0123456789abcdef
 *     1  qpzr y9x8 gf2t vdw0 s3j
 *     ...                            (4 lines)
 *
 * Each line has 8 bytes of the key and a checksum of its own (bech32m's code,
 * BIP 350: it finds any four wrong characters) over the line, its number and
 * the repository's id, so that a typing error is known by its line and a line
 * of another repository's paper is none of ours.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "keyslot.h"

struct err;
struct secret;

#define PAPER_TEXT_MAX 512

/* The text, with its NUL; *ret_len without. */
void paper_encode(const char repo[33], const uint8_t master[KEY_MASTER_LEN],
                  char text[PAPER_TEXT_MAX], size_t *ret_len);

/* Pure.  Case, blanks and hyphens do not matter, lines come in any order, and
 * lines that begin otherwise are comments.  ERR_FORMAT names the line. */
int paper_decode(const char *text, size_t len, char repo[33],
                 uint8_t master[KEY_MASTER_LEN], struct err *err);
