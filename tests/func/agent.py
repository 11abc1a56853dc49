#!/usr/bin/env python3
"""Guest agents, from well-behaved to hostile.  Two rules: nothing that was not
frozen is called consistent, and nothing stays frozen."""

import signal

import tap
from fakeagent import FakeAgent
from lab import Lab
from tap import check, equal, test, wait_for
from tidemark import FAILED, OK, UNREACHABLE, WARNING


def run(mode, *args):
    lab = Lab([("vda", "qcow2", "16M"), ("vdb", "raw", "16M")])
    lab.vm.io("vda", "write -P 0x11 0 1M")
    fake = FakeAgent(mode)
    r = lab.tm.run("backup", "qmp:%s,agent=%s" % (lab.vm.qmp_path, fake.path),
                   "--json", *args)
    equal(lab.vm.leftovers(), [], "leftovers")
    return lab, fake, r


def thawed(fake):
    if "guest-fsfreeze-freeze" in fake.seen:
        freeze = fake.seen.index("guest-fsfreeze-freeze")
        check("guest-fsfreeze-thaw" in fake.seen[freeze:],
              "a thaw follows the freeze", fake.seen)
    equal(fake.frozen, False, "frozen at the end")


def crash_consistent(mode):
    """The point is taken all the same, and says what it is."""
    lab, fake, r = run(mode)
    equal(r.code, WARNING, "exit status: committed with a warning", r)
    if check(r.committed, "committed", r):
        equal(r.committed["consistency"], "crash", "consistency")
        check(r.committed["warnings"], "the warning is in the result", r)
    thawed(fake)


def required(mode):
    lab, fake, r = run(mode, "--quiesce", "require")
    equal(r.code, FAILED, "exit status: nothing committed", r)
    equal(lab.tm.points(), [], "points")
    thawed(fake)


@test("a good agent: one freeze, one thaw, consistency is filesystem")
def good():
    lab, fake, r = run("good")
    equal(r.code, OK, "exit status", r)
    equal(r.committed["consistency"], "filesystem", "consistency")
    equal(fake.seen.count("guest-fsfreeze-freeze"), 1, "freezes")
    check(isinstance(r.committed["freeze_ms"], int), "freeze_ms is a number")
    thawed(fake)


@test("--quiesce off: the agent is left alone")
def off():
    lab, fake, r = run("good", "--quiesce", "off")
    check(r.code in (OK, WARNING), "committed", r)
    check("guest-fsfreeze-freeze" not in fake.seen, "no freeze", fake.seen)
    equal(r.committed["consistency"], "crash", "consistency")


@test("an agent that froze nothing: not called consistent")
def zero():
    crash_consistent("zero")
    required("zero")


@test("an agent whose freeze fails")
def error():
    crash_consistent("error")
    required("error")


@test("an agent that freezes and goes silent: thawed over a new connection")
def silent():
    crash_consistent("silent")


@test("an agent whose freeze takes too long: thawed when it can be")
def late():
    lab, fake, r = run("late")
    equal(r.code, WARNING, "exit status: committed with a warning", r)
    equal(r.committed["consistency"], "crash", "consistency")
    wait_for("the thaw", lambda: not fake.frozen)
    thawed(fake)


@test("an agent that answers with binary noise")
def garbage():
    crash_consistent("garbage")


@test("an agent that answers with an endless line")
def huge():
    crash_consistent("huge")


@test("a thaw that always fails is reported and does not hang the program")
def no_thaw():
    lab, fake, r = run("nothaw")
    check(r.code in (WARNING, FAILED), "not an ordinary success", r)
    check("thaw" in (r.out + r.err).lower(), "it says that the thaw failed", r)


@test("no agent at the other end of the socket")
def nobody():
    lab = Lab([("vda", "qcow2", "16M")])
    address = "qmp:%s,agent=%s/none.sock" % (lab.vm.qmp_path, lab.dir)
    r = lab.tm.run("backup", address, "--json")
    equal(r.code, WARNING, "exit status: committed with a warning", r)
    equal(r.committed["consistency"], "crash", "consistency")
    r = lab.tm.run("backup", address, "--json", "--quiesce", "require")
    check(r.code in (FAILED, UNREACHABLE), "required: nothing committed", r)
    equal(len(lab.tm.points()), 1, "points")


@test("killed while the guest is frozen: the guard thaws")
def killed_frozen():
    lab = Lab([("vda", "qcow2", "16M")])
    fake = FakeAgent("late", late=1)
    run = lab.tm.start("backup", "qmp:%s,agent=%s" % (lab.vm.qmp_path,
                                                      fake.path))
    wait_for("the freeze", lambda: fake.frozen)
    run.kill(signal.SIGKILL)
    wait_for("the thaw", lambda: not fake.frozen)
    check("guest-fsfreeze-thaw" in fake.seen, "thawed", fake.seen)
    lab.backup()
    lab.restores()


tap.main()
