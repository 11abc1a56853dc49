"""What the tests of lost tracking share: one disk with a history, and the
question what a backup said of it."""

import tap
from lab import Lab
from tap import check, equal

FULL, INCREMENTAL = "full", "incremental"

# How much of a disk of 16 MiB an incremental may read here.
LITTLE = 8 << 20


def one_disk(fmt="qcow2", size="16M", backup=True, **kw):
    """A machine with disk vda, data on it, and one point."""
    lab = Lab([("vda", fmt, size)], **kw)
    lab.vm.io("vda", "write -P 0x11 0 4M", "write -P 0x12 12M 1M")
    if backup:
        lab.backup()
    return lab


def backup(lab, tracking, reason="", note="", base=None, disk="vda", **kw):
    """A backup that reads `disk` so, for this reason, with this note, says the
    same in its plan, its point and its warnings, and restores to what the disk
    held.  Words are parts of what is said; "" means that nothing is."""
    r = lab.backup(**kw)
    d = r.disk(disk)
    plan = [e for e in r.events if e.get("event") == "plan"][0]
    said = next(p for p in plan["disks"] if p["disk"] == disk)
    shown = lab.tm.ok("show", "web1@" + r.point, "--json").json()
    kept = next(p for p in shown["disks"] if p["disk"] == disk)
    equal(d["tracking"], tracking, "tracking", r)
    for what, text, want in (("reason", d["reason"], reason),
                             ("note", d["note"], note)):
        check(want in text if want else text == "",
              "%s %r: want %r" % (what, text, want), r)
    for key in ("tracking", "reason", "note", "base"):
        equal(kept[key], d[key], key + " in the point")
    equal(d["base"] != "", tracking == INCREMENTAL, "has a base", r)
    if base:
        equal(d["base"], base, "base", r)
    warned = [w for w in r.committed["warnings"] if disk in w]
    if tracking == FULL:
        check(any(reason in w for w in warned), "the owner is told", r)
    else:
        check(d["read_bytes"] <= LITTLE, "reads little", r)
        equal(warned, [], "nothing to warn of")
    # canaries are looked at after the plan was told
    if "cleared" not in d["reason"]:
        equal({k: said[k] for k in ("tracking", "reason", "note", "base")},
              {k: d[k] for k in ("tracking", "reason", "note", "base")},
              "what the plan says")
    lab.restores()
    return r


def goes_on(lab):
    """From here tracking is as good as ever."""
    lab.vm.io("vda", "write -P 0x77 3M 64k", "write -z 1M 64k")
    backup(lab, INCREMENTAL, base=lab.order[-1])
    lab.all_restore()


def ours(lab, node="vda-node"):
    """The bitmap that the newest point began, by name."""
    names = [b["name"] for b in lab.vm.bitmaps().get(node, [])
             if b["name"].startswith("tidemark-")]
    tap.need(len(names) == 1, "one bitmap of ours on " + node, names)
    return names[0]


def finish(lab, job, pivot=False):
    """Wait for a block job that the test started; with `pivot` until it is
    ready, and complete it."""
    qmp = lab.vm.qmp

    def state():
        return {j["id"]: j["status"]
                for j in qmp.call("query-jobs")}.get(job, "gone")
    if pivot:
        tap.wait_for(job + " to be ready", lambda: state() == "ready")
        qmp.call("job-complete", id=job)
    tap.wait_for("the end of " + job,
                 lambda: state() in ("concluded", "gone"))
    if state() == "concluded":
        errors = [j.get("error") for j in qmp.call("query-jobs")
                  if j["id"] == job]
        equal(errors, [None], job)
        qmp.call("job-dismiss", id=job)
