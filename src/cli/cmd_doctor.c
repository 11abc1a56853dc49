#include <stddef.h>
#include <string.h>

#include "cli.h"
#include "config.h"
#include "err.h"
#include "jv.h"

static const struct opt opts[] = {
    OPT_END,
};

static bool
can_be_backed_up(const struct jv *result)
{
    const struct jv *disks = jv_get(result, "disks");

    if (strcmp(report_str(result, "capture", ""), "none") == 0)
        return false;
    for (size_t i = 0; i < jv_size(disks); i++)
        if (jv_get(jv_at(disks, i), "skipped") == NULL)
            return true;
    return disks == NULL;
}

static int
run(struct cli *c, struct err *err)
{
    static const char *const told[] = {"warnings", NULL};
    CLEANUP_JV struct jv *result = NULL;
    struct source_opts o = {.look_only = true};
    const char *address;
    int ret;

    if (config_machine(c, &address, err) != 0 || cli_source(c, &o, err) != 0 ||
        job_doctor(address, &o, &result, err) != 0)
        return -1;
    ret = c->out.json ? out_json(&c->out, result, err)
                      : report_value(&c->out, result, told, err);
    if (ret != 0)
        return -1;
    (void)out_flush(&c->out, NULL); /* before what is wrong */
    out_warnings(&c->out, jv_get(result, "warnings"));
    if (can_be_backed_up(result))
        return cli_status(c);
    out_complain(&c->out, "this machine cannot be backed up as it is");
    return EXIT_FAILED;
}

const struct command command_doctor = {
    .id = CMD_DOCTOR,
    .name = "doctor",
    .operand_name = "MACHINE",
    .operand = OPERAND_REQUIRED,
    .summary = "look at a machine and say how it would be backed up",
    .about = "Looks at MACHINE and changes nothing: QEMU's version, how a "
             "point would be\n"
             "taken, disks, bitmaps, guest agent, what earlier runs left.\n"
             "MACHINE is qmp:/path.sock or "
             "qmp:/path.sock,agent=/path.sock; of a machine that is off\n"
             "file:/disk0.qcow2[,format=raw|qcow2][,disk=NAME],/disk1...; or "
             "a name in\ntidemark.conf.",
    .opts = opts,
    .run = run,
};
