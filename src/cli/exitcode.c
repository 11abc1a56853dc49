#include "exitcode.h"

#include <stddef.h>

#include "cleanup.h"
#include "err.h"

#define BIT(x) (1u << (x))
#define ANY (~0u)

/* Connections that fail, end, stall or talk nonsense: nobody there to back
 * up.  A QEMU that answers "no" is reached, so that is not among them. */
#define UNREACHABLE                                           \
    (BIT(ERR_SYSTEM) | BIT(ERR_FORMAT) | BIT(ERR_NOT_FOUND) | \
     BIT(ERR_PROTOCOL) | BIT(ERR_TIMEOUT) | BIT(ERR_CLOSED))

#define REPO_COMMANDS                                                    \
    (BIT(CMD_INIT) | BIT(CMD_POINTS) | BIT(CMD_SHOW) | BIT(CMD_VERIFY) | \
     BIT(CMD_CHECK) | BIT(CMD_PRUNE) | BIT(CMD_GC) | BIT(CMD_DIFF) |     \
     BIT(CMD_STATS) | BIT(CMD_KEY) | BIT(CMD_STATUS))

/* The first row that fits decides. */
static const struct rule {
    unsigned commands, sides, codes; /* bit sets */
    enum exit_status status;
} rules[] = {
    {ANY, ANY, BIT(ERR_CANCELED), EXIT_INTERRUPTED},
    {ANY, ANY, BIT(ERR_LOCKED), EXIT_BUSY},
    {ANY, ANY, BIT(ERR_USAGE), EXIT_USAGE},
    {ANY, ANY, BIT(ERR_KEY), EXIT_KEY},
    {ANY, BIT(ERR_SIDE_MACHINE), UNREACHABLE, EXIT_MACHINE},
    {ANY, BIT(ERR_SIDE_MACHINE), ANY, EXIT_FAILED},
    {ANY, BIT(ERR_SIDE_REPO), ANY, EXIT_REPO},
    {ANY, BIT(ERR_SIDE_TARGET), ANY, EXIT_FAILED},
    /* From here on no side was said. */
    {BIT(CMD_DOCTOR), ANY, UNREACHABLE, EXIT_MACHINE},
    {BIT(CMD_HISTORY), ANY, ANY, EXIT_FAILED},
    {REPO_COMMANDS, ANY, ANY, EXIT_REPO},
    /* Only a repository holds data with hashes. */
    {ANY, ANY, BIT(ERR_CORRUPT), EXIT_REPO},
    {BIT(CMD_RESTORE), ANY, BIT(ERR_NOT_FOUND), EXIT_REPO},
    {ANY, ANY, ANY, EXIT_FAILED},
};

enum exit_status
exit_status_of(enum command_id command, const struct err *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
        if ((rules[i].commands & BIT(command)) != 0 &&
            (rules[i].sides & BIT(err->side)) != 0 &&
            (rules[i].codes & BIT(err->code)) != 0)
            return rules[i].status;
    return EXIT_FAILED;
}
