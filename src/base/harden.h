/* base/harden.h - keep this process's memory to itself. */
#pragma once

/* No core file, and no other process of the same user may attach or read our
 * memory, from now on.  Children do not inherit the second across exec().  Any
 * number of calls; never fails in a way that matters. */
void harden_process(void);
