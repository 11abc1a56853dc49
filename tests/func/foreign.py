#!/usr/bin/env python3
"""What other programs have in QEMU is theirs: not touched, not trusted."""

import images
import tap
from lab import Lab
from tap import check, equal, test
from tidemark import BUSY, FAILED, OK, WARNING


def lab_with_data():
    lab = Lab([("vda", "qcow2", "16M"), ("vdb", "raw", "16M")])
    lab.vm.io("vda", "write -P 0x11 0 1M")
    return lab


def names(lab, node):
    return sorted(b["name"] for b in lab.vm.bitmaps().get(node, []))


@test("bitmaps of other programs stay as they are")
def bitmaps():
    lab = lab_with_data()
    call = lab.vm.qmp.call
    call("block-dirty-bitmap-add", node="vda-node", name="other",
         persistent=True)
    call("block-dirty-bitmap-add", node="vdb-node", name="tidemarkish")
    lab.vm.io("vda", "write -P 0x12 2M 64k")
    for _ in range(3):
        lab.backup()
        check("other" in names(lab, "vda-node"), "other is there")
        check("tidemarkish" in names(lab, "vdb-node"), "tidemarkish is there")
    count = [b["count"] for b in lab.vm.bitmaps()["vda-node"]
             if b["name"] == "other"]
    equal(count, [65536], "its count")
    equal(len(names(lab, "vda-node")), 2, "other and ours")
    lab.all_restore()


@test("bitmaps of another Tidemark repository stay as they are")
def other_repository():
    lab = lab_with_data()
    name = "tidemark-0123456789abcdef-0123456789abcdef0123456789abcdef"
    lab.vm.qmp.call("block-dirty-bitmap-add", node="vda-node", name=name)
    lab.backup()
    lab.backup()
    check(name in names(lab, "vda-node"), "it is there", names(lab,
                                                               "vda-node"))


@test("nodes, exports and jobs of other programs stay as they are")
def nodes():
    lab = lab_with_data()
    call = lab.vm.qmp.call
    call("blockdev-add", driver="null-co", node_name="theirs", size=1 << 20)
    call("blockdev-add", driver="null-co", node_name="target", size=16 << 20)
    call("blockdev-mirror", job_id="their-job", device="vdb-node",
         target="target", sync="none", auto_dismiss=False)
    r = lab.tm.run("backup", lab.vm.address, "--json")
    there = [n["node-name"] for n in lab.vm.nodes()]
    check("theirs" in there and "target" in there, "their nodes", there)
    equal([j["id"] for j in call("query-jobs")], ["their-job"], "jobs")
    check(r.code in (OK, WARNING, FAILED), "a backup or a clear refusal", r)
    if r.code == FAILED:
        check("vdb" in r.err + r.out, "the refusal names the disk", r)
    call("job-cancel", id="their-job")
    lab.vm.qmp.wait("JOB_STATUS_CHANGE",
                    lambda d: d["id"] == "their-job"
                    and d["status"] == "concluded")
    call("job-dismiss", id="their-job")
    lab.backup()
    lab.all_restore()


@test("another program's NBD server: a clear refusal, and it goes on serving")
def nbd_server():
    lab = lab_with_data()
    call = lab.vm.qmp.call
    path = lab.vm.dir + "/theirs.sock"
    call("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
    call("block-export-add", type="nbd", id="theirs", node_name="vdb-node",
         name="theirs")
    r = lab.tm.run("backup", lab.vm.address, "--json")
    check(r.code in (FAILED, BUSY), "refused", r)
    check("NBD" in r.err + r.out, "it says why", r)
    equal([e["id"] for e in call("query-block-exports")], ["theirs"],
          "exports")
    equal(lab.vm.bitmaps(), {}, "bitmaps")
    info = images.sh("nbdinfo", "--size", "nbd+unix:///theirs?socket=" + path)
    equal(info.strip(), str(16 << 20), "their export still serves")
    call("nbd-server-stop")
    tap.wait_for("the end of their export",
                 lambda: not call("query-block-exports"))
    lab.backup()
    lab.restores()


tap.main()
