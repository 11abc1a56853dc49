/* qmp/guard_impl.h - what guard.c (the parent) and guard_child.c (the guard)
 * share; for them and for the tests.
 *
 * They talk over a SOCK_SEQPACKET pair: one struct is one message, and nobody
 * ever sees half of one.  Requests carry a number that the answer repeats,
 * because the parent may have given up waiting for an earlier one.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "err.h"

struct agent;

/* All times of the guard, so that tests need not wait for the real ones. */
struct guard_times {
    unsigned agent_ms; /* one question to the agent, synchronisation included */
    unsigned hold_ms;  /* start of the freeze to the thaw */
    unsigned try_ms;   /* one attempt to thaw */
    unsigned pause_ms; /* between two attempts */
    unsigned thaw_ms;  /* all attempts */
    unsigned reply_ms; /* how long guard_thaw() waits for a thaw */
};

#define GUARD_TRY_MS 5000u
#define GUARD_PAUSE_MS 200u
#define GUARD_REPLY_MS 15000u

enum guard_op {
    GUARD_OP_READY, /* the guard's first message; the others are requests */
    GUARD_OP_FROZEN,
    GUARD_OP_FREEZE,
    GUARD_OP_THAW,
    GUARD_OP_INFO,
};

/* A part of the answer to GUARD_OP_INFO, or an error text. */
#define GUARD_DATA_MAX 4096u
/* Two answers of the agent, written again by us. */
#define GUARD_INFO_MAX (4u << 20)

struct guard_request {
    uint32_t op;
    uint32_t seq;
};

struct guard_reply {
    uint32_t op;
    uint32_t seq;
    uint32_t code;   /* enum err_code; ERR_NONE: it worked */
    uint32_t frozen; /* FROZEN: 0 or 1; errors: a freeze is to be undone */
    uint32_t filesystems, thawed, held, confirmed;
    uint64_t freeze_ms;
    uint32_t more; /* INFO: another part follows */
    uint32_t len;  /* bytes of `data` */
    char data[GUARD_DATA_MAX];
};

/* The guard process: never returns.  `sock` is its end of the pair. */
_Noreturn void guard_child(const char *agent_path,
                           const struct guard_times *times, int sock);

/* One attempt to thaw.  0: the guest is thawed; *ret_thawed is the agent's
 * number and `note` (256 bytes) what it complained about, or "".  `touched`:
 * a freeze may have happened; without it an agent that knows neither thaw nor
 * status counts as thawed. */
int guard_thaw_once(struct agent *a, unsigned timeout_ms, bool touched,
                    unsigned *ret_thawed, char *note, struct err *err);

/* guard_start() with times of the test's choice. */
struct guard;
int guard_start_times(const char *agent_path, const struct guard_times *times,
                      struct guard **ret, struct err *err);
