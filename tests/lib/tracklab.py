"""What the tests of tracking share: one disk, its bitmap, and what became of
both, as the JSON of the plan and of the committed point tell it."""

import images
from lab import Lab
from tap import check, equal, wait_for

SIZE = "16M"


def one_disk(fmt="qcow2", **kw):
    """A disk "vda" with data and one point."""
    lab = Lab([("vda", fmt)], size=SIZE, **kw)
    lab.vm.io("vda", "write -P 0x11 0 4M", "write -P 0x12 9M 1M")
    lab.backup()
    return lab


def ours(lab, node="vda-node"):
    """Our bitmap on a node: its name."""
    return next(b["name"] for b in lab.vm.bitmaps()[node]
                if b["name"].startswith("tidemark-"))


def plan_of(r, name="vda"):
    plan = next(e for e in r.events if e.get("event") == "plan")
    return next(d for d in plan["disks"] if d["disk"] == name)


def read_in_full(lab, reason, name="vda", planned=True, **kw):
    """A backup that reads all of a disk for this reason and restores."""
    r = lab.backup(**kw)
    d = r.disk(name)
    equal(d["tracking"], "full", "tracking", r)
    equal(d["reason"], reason, "reason", r)
    equal((d["base"], d["note"]), ("", ""), "base and note", r)
    if planned:
        p = plan_of(r, name)
        equal((p["tracking"], p["reason"]), ("full", reason), "plan", r)
    check(r.code == 1, "lost tracking is a warning", r)
    lab.restores()
    return r


def incremental(lab, base=None, note="", name="vda", **kw):
    """A backup on top of `base` (default: the point before), restored."""
    base = base or lab.order[-1]
    r = lab.backup(**kw)
    d = r.disk(name)
    equal((d["tracking"], d["reason"]), ("incremental", ""), "tracking", r)
    equal(d["base"], base, "base", r)
    p = plan_of(r, name)
    equal((p["tracking"], p["base"]), ("incremental", base), "plan", r)
    check(note in d["note"] and bool(note) == bool(d["note"]), "note", r)
    check(d["read_bytes"] < 16 << 20, "an incremental does not read all", r)
    lab.restores()
    return r


def goes_on(lab):
    """And the next run is incremental again."""
    lab.vm.io("vda", "write -P 0x71 11M 64k")
    incremental(lab)
    lab.all_restore()


def job_ends(lab, id):
    """Wait for a block job and take its result away."""
    def ended():
        for j in lab.vm.qmp.call("query-jobs"):
            if j["id"] == id:
                return j if j["status"] == "concluded" else None
        return {"error": "gone"}
    j = wait_for("the end of job " + id, ended)
    check("error" not in j, "job %s succeeds" % id, j)
    lab.vm.qmp.call("job-dismiss", id=id)


def job_ready(lab, id):
    wait_for("job %s to be ready" % id, lambda: any(
        j["id"] == id and j["status"] == "ready"
        for j in lab.vm.qmp.call("query-jobs")))


def overlay(lab, name="ov1"):
    """An external snapshot: a new image takes the guest's writes."""
    path = "%s/%s.qcow2" % (lab.dir, name)
    d = lab.disk("vda")
    images.sh("qemu-img", "create", "-q", "-f", "qcow2", "-b", d.path, "-F",
              d.format, path)
    lab.vm.qmp.call("blockdev-add", driver="qcow2", node_name=name,
                    file={"driver": "file", "filename": path}, backing=None)
    lab.vm.qmp.call("blockdev-snapshot", node=top(lab), overlay=name)
    d.path, d.format = path, "qcow2"
    return path


def top(lab):
    """Node name at the root of vda."""
    b = next(b for b in lab.vm.qmp.call("query-block")
             if "/vda/" in b.get("qdev", ""))
    return b["inserted"]["node-name"]


def commit_back(lab, path, fmt="qcow2"):
    """Commit the overlay into the image below it and pivot."""
    lab.vm.qmp.call("block-commit", job_id="commit", device=top(lab),
                    auto_dismiss=False)
    job_ready(lab, "commit")
    lab.vm.qmp.call("job-complete", id="commit")
    job_ends(lab, "commit")
    d = lab.disk("vda")
    d.path, d.format = path, fmt
