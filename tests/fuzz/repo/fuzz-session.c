/* Session objects: nobody signs them, and a collector believes nothing but that
 * they are there. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char sid[] = "00112233445566778899aabbccddeeff";
    struct session_info s;

    if (session_info_parse(sid, data, size, &s, NULL) < 0)
        return 0;
    if (strcmp(s.sid, sid) != 0 ||
        (strcmp(s.what, "put") != 0 && strcmp(s.what, "pin") != 0 &&
         strcmp(s.what, "gc") != 0))
        abort();
    for (size_t i = 0; i < s.pins.n; i++)
        if (strlen(s.pins.v[i]) != 32 || !id_list_has(&s.pins, s.pins.v[i]))
            abort();
    id_list_done(&s.pins);
    return 0;
}
