/* base/size.h - sizes as people write them. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* "64K", "1.5GiB", "4096", "2M": powers of 1024, suffix B, K, M, G, T with an
 * optional "iB" or "B".  0 on success, -1 when the text is not a size. */
int size_parse(const char *text, uint64_t *ret);

/* "0 B", "64.0 KiB", "1.5 GiB"; `buf` of at least SIZE_TEXT_MAX bytes, which
 * is also returned. */
#define SIZE_TEXT_MAX 24
char *size_text(uint64_t bytes, char *buf);
