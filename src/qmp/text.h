/* qmp/text.h - text of a peer, made fit for a terminal and a log.
 *
 * The guest agent's error texts are the guest's: escape sequences in them must
 * not reach the user's terminal.
 */
#pragma once

#include <stddef.h>

#define TEXT_LOG_MAX 1000u /* bytes of a message in the debug trace */

/* Copy `len` bytes into `out` (`size` bytes with the NUL), cut where it is
 * full.  Control characters, C1 ones and broken UTF-8 become '?'.  Returns
 * `out`. */
char *text_clean(const char *text, size_t len, char *out, size_t size);

/* Trace one message: "who -> line". */
void text_trace(const char *who, const char *line, size_t len);
