/* cli/text.h - text of others, made fit for a terminal.
 *
 * Names and messages come from repositories, QEMU and guests.  A terminal
 * obeys escape sequences, so whoever names a disk could otherwise retitle the
 * window, hide lines or answer for the user.  Everything that a terminal could
 * take for a command, and everything that reorders or hides text, is shown as
 * \x1b, \n and so on instead.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* False (the default) escapes every byte above ASCII too: right for terminals
 * that do not speak UTF-8.  Once, before threads start. */
void text_utf8(bool on);

/* The longest escape of one input byte, "\x1b". */
#define TEXT_ESCAPE_MAX 4

/* `s` with everything escaped that is no plain text; NULL without memory. */
char *text_escape(const char *s);

/* The same into `buf`, cut at a whole character when it does not fit; `buf` of
 * at least one byte, which is also returned. */
char *text_escape_to(const char *s, char *buf, size_t len);

/* Columns that escaped text takes: one per character. */
size_t text_columns(const char *s);

/* "0:07", "12:34", "1:02:03", "3 days". */
#define TEXT_DURATION_MAX 32
char *text_duration(uint64_t seconds, char *buf);

/* How old something is, where "0:07" could be minutes or hours: "7 s",
 * "12 min", "26:30 h", "3 days 4 h". */
char *text_age(uint64_t seconds, char *buf);
