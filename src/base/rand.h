/* base/rand.h - random bytes from the kernel, and hexadecimal text. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Fill `buf`; aborts if the kernel has no random numbers, which no supported
 * kernel does after boot. */
void rand_bytes(void *buf, size_t len);

/* 2 * len lower-case digits and a NUL. */
void hex_encode(const void *data, size_t len, char *text);

/* True when `text` is exactly 2 * len digits (either case); then `data` is
 * filled. */
bool hex_decode(const char *text, void *data, size_t len);
