#!/usr/bin/env python3
"""What becomes of a disk between a backup's first look and its instant: the
point is of the disk that the guest has at the instant, or there is none."""

import images
import tap
from fakeagent import FakeAgent
from qmpsock import QmpError
from tap import check, equal, test
from tidemark import FAILED, OK, WARNING
from tracklab import incremental, one_disk, ours, overlay, top


class Meddler(FakeAgent):
    """Does something once, when the guest is to be frozen: the last moment
    before the instant."""

    def __init__(self, action):
        super().__init__()
        self.action = action

    def _answer(self, name, args):
        if name == "guest-fsfreeze-freeze" and self.action:
            action, self.action = self.action, None
            try:
                action()
            except QmpError as e:  # then nothing happened
                tap.diag("QEMU refuses: %s" % e)
        return super()._answer(name, args)


def race(lab, action, say):
    """A backup that meets `action`: right, or refused with `say`; the next one
    commits and is right."""
    fake = Meddler(action)
    lab.vm.agent_path = fake.path
    r = lab.tm.run("backup", lab.vm.address, "--json")
    check(fake.action is None, "it happened in time", r)
    refs = lab.reference()
    if r.code in (OK, WARNING):
        lab.refs[r.committed["point"]] = refs
        lab.order.append(r.committed["point"])
        lab.restores()
    else:
        equal(r.code, FAILED, "exit status", r)
        check(say in r.err, "it says why", r)
    equal(lab.vm.leftovers(), [], "leftovers")
    equal(fake.frozen, False, "frozen")
    lab.backup()
    lab.vm.io("vda", "write -P 0x41 12M 64k")
    incremental(lab)
    lab.all_restore()


def both_ways():
    for env in ({}, {"TIDEMARK_PULL": "overlay"}):
        lab = one_disk()
        lab.tm.env.update(env)
        yield lab


@test("a snapshot is taken of the disk: its point is not that of the image below")
def snapshot():
    for lab in both_ways():
        def action():
            overlay(lab)
            lab.vm.io("vda", "write -P 0x33 3M 64k")
        race(lab, action, "vda")


@test("the disk is resized")
def resized():
    for lab in both_ways():
        race(lab, lambda: lab.vm.qmp.call(
            "block_resize", node_name="vda-node", size=20 << 20), "vda")


@test("our bitmap is removed")
def removed():
    for lab in both_ways():
        name = ours(lab)
        race(lab, lambda: lab.vm.qmp.call(
            "block-dirty-bitmap-remove", node="vda-node", name=name), name)


@test("our bitmap is disabled")
def disabled():
    for lab in both_ways():
        name = ours(lab)

        def action():
            lab.vm.qmp.call("block-dirty-bitmap-disable", node="vda-node",
                            name=name)
            lab.vm.io("vda", "write -P 0x33 3M 64k")
        race(lab, action, "vda")


@test("the medium is another one")
def another_medium():
    """As a mirror with a pivot does it, only at once."""
    lab = one_disk()
    path = images.make(lab.dir + "/new.qcow2", "qcow2", "16M")

    def action():
        call = lab.vm.qmp.call
        call("blockdev-add", driver="qcow2", node_name="new",
             file={"driver": "file", "filename": path})
        call("blockdev-mirror", job_id="mirror", device=top(lab),
             target="new", sync="full", auto_dismiss=False)
        tap.wait_for("the mirror", lambda: any(
            j["status"] == "ready" for j in call("query-jobs")
            if j["id"] == "mirror"))
        call("job-complete", id="mirror")
        tap.wait_for("the pivot", lambda: any(
            j["status"] == "concluded" for j in call("query-jobs")
            if j["id"] == "mirror"))
        call("job-dismiss", id="mirror")
        lab.disk("vda").path = path
        lab.vm.io("vda", "write -P 0x33 3M 64k")
    race(lab, action, "vda")


tap.main()
