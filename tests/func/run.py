#!/usr/bin/env python3
"""`tidemark run`: all machines of a configuration, and what surrounds them."""

import os
import signal

import images
import tap
from fleet import Fleet, results, summary
from tap import check, equal, need, test, wait_for
from tidemark import BUSY, FAILED, OK, UNREACHABLE, USAGE, WARNING
from vm import slow_disk

SOME_FAILED = 8
STOPPED = 130
PARTIAL = (OK, WARNING)  # without an agent some setups warn


def read(path):
    try:
        with open(path) as f:
            return f.read()
    except FileNotFoundError:
        return ""


def restored(f, name, fill):
    """The newest point holds what the guest wrote."""
    to = "%s/out-%s-%d" % (f.dir, name, len(os.listdir(f.dir)))
    f.tm.ok("restore", name + "@latest", "--to", to, "--format", "raw")
    with open(to + "/vda.raw", "rb") as disk:
        check(disk.read(256 << 10) == bytes([fill]) * (256 << 10),
              "%s restores what was written" % name)


@test("of 20 machines two fail: 18 commit, the summary and the status say so")
def twenty_machines():
    f = Fleet(20)
    f.start(*[n for n in f.vms if n != "vm07"])  # vm07 has no socket
    f.extra["vm13"] = "before = echo the database is stuck >&2; exit 3"
    f.write("parallel = 4\nkeep-last = 2")
    r = f.run("--json")
    equal(r.code, SOME_FAILED, "exit status", r)
    s, m = summary(r), results(r)
    equal((s["committed"], s["failed"], s["exit_status"]),
          (18, 2, SOME_FAILED), "the summary", r)
    equal(sorted(n for n in m if m[n]["result"] == "failed"),
          ["vm07", "vm13"], "who failed", r)
    equal(m["vm07"]["exit_status"], UNREACHABLE, "vm07 cannot be reached")
    check("No such file" in m["vm07"]["error"], "and why", m["vm07"])
    equal(m["vm13"]["exit_status"], FAILED, "vm13's hook failed")
    check("the hook 'before' failed with exit status 3" in m["vm13"]["error"],
          "and why", m["vm13"])
    check("vm13: the database is stuck" in r.err, "what a hook says is seen", r)
    have = {p["machine"] for p in f.points()}
    equal(have, set(f.vms) - {"vm07", "vm13"}, "machines with a point")
    for name in have:
        equal(m[name]["point"], f.points(name)[-1]["point"], "its point")
    equal({e["for"] for e in r.events if e["event"] == "committed"}, have,
          "events name their machine")
    equal(f.leftovers(), {}, "leftovers")
    restored(f, "vm01", 1)
    restored(f, "vm20", 20)
    # the same again for people, now incremental, and those two alone
    r = f.run()
    equal(r.code, SOME_FAILED, "exit status", r)
    check("18 of 20 machines committed, 2 failed" in r.out, "the last line", r)
    equal(r.out.count(" incremental "), 18, "incremental ones", r)
    r = f.run("vm07", "vm13")
    equal(r.code, FAILED, "nothing committed at all", r)


@test("backup NAME takes its section; the command line wins; hooks in order")
def section_and_hooks():
    f = Fleet(1)
    log = f.dir + "/log"
    hook = ("echo $TIDEMARK_HOOK $TIDEMARK_MACHINE $TIDEMARK_REPOSITORY "
            "${TIDEMARK_RESULT-unset} ${TIDEMARK_POINT-unset} >>" + log)
    f.extra["vm01"] = ("name = renamed\ntag = nightly\nquiesce = off\n"
                       "before = %s\nafter = %s" % (hook, hook))
    f.start()
    f.write()
    r = f.tm.ok("backup", "vm01", "--json", codes=PARTIAL)
    p = r.committed
    equal((p["machine"], p["tags"]), ("renamed", ["nightly"]), "from the file")
    equal(read(log).splitlines(),
          ["before vm01 %s unset unset" % f.tm.repo,
           "after vm01 %s ok %s" % (f.tm.repo, p["point"])], "hooks", r)
    r = f.tm.ok("backup", "vm01", "--json", "--name", "other", "--tag", "mine",
                "--config", f.conf, codes=PARTIAL)
    equal((r.committed["machine"], r.committed["tags"]), ("other", ["mine"]),
          "the command line wins")
    equal(len(f.tm.ok("points", "renamed", "--json").json()["points"]), 1,
          "points finds the repository in the configuration")
    r = f.tm.run("backup", "vm1")
    equal(r.code, USAGE, "exit status", r)
    check("did you mean 'vm01'?" in r.err, "a name that is not there", r)


@test("a run is in the history, with the backups that it started")
def in_history():
    f = Fleet(2)
    f.extra["vm02"] = "before = exit 7"
    f.write()
    f.start()
    r = f.run()
    equal(r.code, SOME_FAILED, "exit status", r)
    runs = f.tm.ok("history", "--json").json()["runs"]
    run = [x for x in runs if x["command"] == "run"]
    equal([x["state"] for x in run], ["failed"], "one run", runs)
    run = f.tm.ok("history", "--run", str(run[0]["id"]), "--json").json()
    equal(run["exit_status"], SOME_FAILED, "its end", run)
    equal({x["machine"]: x["state"] for x in run["children"]
           if x["command"] == "backup"},
          {"vm01": "done", "vm02": "failed"}, "its children", run)
    equal((run["result"]["committed"], run["result"]["failed"]), (1, 1),
          "its summary", run)
    check(any("exit status 7" in x["text"] for x in run["log"]), "its log", run)


@test("--resume: disks of the section do not contradict it, those given do")
def resume_by_name():
    f = Fleet(1)
    f.extra["vm01"] = "disk = vda"
    f.write()
    f.start()
    r = f.tm.run("backup", "vm01", "--resume")
    equal(r.code, FAILED, "nothing to resume", r)
    check("no instant can be finished" in r.err, "it says so", r)
    r = f.tm.run("backup", "vm01", "--resume", "--disk", "vda")
    equal(r.code, USAGE, "both", r)


@test("a hook that fails: before prevents the backup, after only warns")
def failing_hooks():
    f = Fleet(1)
    f.start()
    log = f.dir + "/log"
    f.extra["vm01"] = ("before = exit 7\nafter = "
                       "echo $TIDEMARK_RESULT: $TIDEMARK_ERROR >" + log)
    f.write()
    r = f.tm.run("backup", "vm01")
    equal(r.code, FAILED, "exit status", r)
    check("nothing was backed up: the hook 'before' failed with exit status 7"
          in r.err, "it says so", r)
    check(read(log).startswith("failed: nothing was backed up: the hook"),
          "after runs all the same, and knows", read(log))
    equal(f.vms["vm01"].bitmaps(), {}, "the machine was not touched")
    r = f.run("--json", wrap=["env", "--ignore-signal=CHLD"])
    equal(results(r)["vm01"]["result"], "failed",
          "also where whoever starts it ignores the ends of children", r)
    f.extra["vm01"] = "after = kill -9 $$"
    f.write()
    r = f.tm.run("backup", "vm01", "--json")
    equal(r.code, WARNING, "exit status", r)
    check(r.committed, "the point is committed", r)
    check(any(e["event"] == "warning" and "the hook 'after' failed with signal 9"
              in e["message"] for e in r.events), "the warning is an event", r)
    r = f.run("--json")
    equal(r.code, WARNING, "exit status of a run that only warned", r)
    equal(results(r)["vm01"]["result"], "warning", "its result", r)


def alive(pid):
    """Not counting a process that is dead and nobody waited for yet."""
    try:
        with open("/proc/%d/stat" % pid) as s:
            return s.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@test("a hook that never ends is killed with its children at its deadline")
def endless_hook():
    f = Fleet(1)
    f.start()
    pids = f.dir + "/pids"
    f.extra["vm01"] = ("hook-timeout = 1s\nbefore = trap '' TERM; sleep 1000 & "
                       "echo $! $$ >%s; wait; sleep 1000" % pids)
    f.write()
    r = f.tm.run("backup", "vm01")
    equal(r.code, FAILED, "exit status", r)
    check("the hook 'before' did not end within 1 s and was killed" in r.err,
          "it says so", r)
    for pid in map(int, read(pids).split()):
        wait_for("the end of %d" % pid, lambda p=pid: not alive(p))
    check(True, "nothing of the hook is left")


@test("a hook inherits no descriptor, and one that leaves a daemon holds up nobody")
def hook_descriptors():
    f = Fleet(1)
    f.start()
    pid, fds = f.dir + "/pid", f.dir + "/fds"
    f.extra["vm01"] = ("before = ls /proc/self/fd >%s; "
                       "after = sleep 1000 & echo $! >%s" % (fds, pid)
                       ).replace("; after", "\nafter")
    f.write()
    r = f.run("--json")
    equal(r.code, OK, "exit status", r)
    daemon = int(read(pid))
    check(alive(daemon), "what a hook leaves behind on purpose stays")
    os.kill(daemon, signal.SIGKILL)
    equal(read(fds).split(), ["0", "1", "2", "3"], "descriptors: 3 is ls's own")


@test("a backup that is stopped during its hook ends the hook; after still runs")
def stopped_in_hook():
    f = Fleet(1)
    f.start()
    pid = f.dir + "/pid"
    f.extra["vm01"] = ("before = echo $$ >%s; sleep 1000\n"
                       "after = echo $TIDEMARK_RESULT >%s/after"
                       % (pid, f.dir))
    f.write()
    run = f.tm.start("backup", "vm01")
    hook = int(wait_for("the hook", lambda: read(pid)))
    os.kill(run.proc.pid, signal.SIGTERM)
    r = run.wait()
    equal(r.code, STOPPED, "exit status", r)
    check(not alive(hook), "the hook is gone")
    equal(read(f.dir + "/after"), "failed\n", "after")
    equal(f.vms["vm01"].bitmaps(), {}, "the machine was not touched")


@test("a backup whose time is over is stopped and has failed")
def late():
    f = slow_fleet(1)
    f.extra["vm01"] = "timeout = 2s"
    f.write()
    r = f.run("--json")
    equal(r.code, FAILED, "exit status", r)
    m = results(r)["vm01"]
    equal(m["result"], "failed", "result", r)
    check("did not end within" in m["error"], "and why", m)
    equal(f.leftovers(), {}, "the machine is clean")


def slow_fleet(n):
    """Machines whose backups last: what is in flight when one is stopped is
    read to its end, so the disks are not as slow as they could be."""
    f = Fleet(0)
    for i in range(1, n + 1):
        name = "vm%02d" % i
        path = images.make("%s/%s.qcow2" % (f.dir, name), "qcow2", "16M")
        disk, args = slow_disk("vda", path, "qcow2", 1 << 19)
        vm = f.add(name, disk=disk, args=args)
        vm.start()
        vm.io("vda", "write -P 0x11 0 12M")
    return f


def children(pid):
    """The processes that `pid` started, by their parent."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open("/proc/%s/stat" % entry) as s:
                text = s.read()
            with open("/proc/%s/cmdline" % entry) as s:
                line = s.read().replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(text.rsplit(")", 1)[1].split()[1]) == pid:
            found.append((int(entry), line))
    return found


@test("SIGTERM stops the running backups in order and begins no other")
def stopped():
    f = slow_fleet(3)
    f.extra["vm01"] = "after = echo $TIDEMARK_RESULT >%s/after" % f.dir
    f.write("parallel = 2")
    run = f.tm.start("run", "--json")
    for name in ("vm01", "vm02"):
        wait_for("the instant of " + name, f.vms[name].filters)
    os.kill(run.proc.pid, signal.SIGTERM)  # to it alone
    r = run.wait()
    equal(r.code, STOPPED, "exit status", r)
    m = results(r)
    equal([m[n]["result"] for n in sorted(m)], ["stopped"] * 3, "results", r)
    equal(m["vm03"]["error"], "not begun", "the third")
    equal(summary(r)["stopped"], 3, "the summary counts them", r)
    equal(f.leftovers(), {}, "the machines are clean")
    equal(read(f.dir + "/after"), "failed\n", "the hook after still ran")
    equal(f.points(), [], "points")
    equal(os.listdir(f.tm.scratch), [], "scratch files left")


@test("a child that does not stop when asked to is killed, and only it")
def stubborn_child():
    f = slow_fleet(1)
    f.write("stop-timeout = 1s")
    run = f.tm.start("run", "--json")
    wait_for("the instant", f.vms["vm01"].filters)
    kid = [p for p, line in children(run.proc.pid) if " backup " in line][0]
    os.kill(kid, signal.SIGSTOP)
    os.kill(run.proc.pid, signal.SIGTERM)
    r = run.wait()
    equal(r.code, STOPPED, "exit status", r)
    equal(results(r)["vm01"]["error"], "ended by signal 9", "its end", r)
    check(f.vms["vm01"].alive(), "the machine lives")


@test("a child that is killed fails alone, and the next run cleans up")
def killed_child():
    f = slow_fleet(1)
    f.add("vm02")
    f.start("vm02")
    f.write("parallel = 2")
    run = f.tm.start("run", "--json")
    wait_for("the instant", f.vms["vm01"].filters)
    mine = [p for p, line in children(run.proc.pid)
            if " backup vm01 " in line]
    need(len(mine) == 1, "the child of vm01", children(run.proc.pid))
    os.kill(mine[0], signal.SIGKILL)
    r = run.wait()
    equal(r.code, SOME_FAILED, "exit status", r)
    m = results(r)
    equal(m["vm01"]["result"], "failed", "vm01")
    equal(m["vm01"]["error"], "ended by signal 9", "and why")
    check(m["vm02"]["result"] in ("ok", "warning"), "vm02 commits", r)
    # its group may have a hook or a guard; the machine is cleaned by a next run
    f.vms["vm01"].qmp.call("qom-set", path="/objects/slow-vda",
                           property="limits",
                           value={"bps-read": 0, "bps-read-max": 0})
    r = f.run("vm01", "--json")
    check(r.code in PARTIAL, "the next run commits", r)
    equal(f.leftovers(), {}, "leftovers")


@test("when the run itself is killed its children stop in order")
def killed_run():
    f = slow_fleet(1)
    log = f.dir + "/log"
    f.extra["vm01"] = "after = echo nobody reads this; echo ran >" + log
    f.write()
    run = f.tm.start("run")
    wait_for("the instant", f.vms["vm01"].filters)
    kids = [p for p, line in children(run.proc.pid) if " backup " in line]
    os.kill(run.proc.pid, signal.SIGKILL)
    run.wait()
    for pid in kids:
        wait_for("the end of the child", lambda p=pid: not alive(p))
    equal(f.leftovers(), {}, "the machine is clean")
    equal(read(log), "ran\n", "after ran to its end")


@test("a second run says that one is at work; a machine in use is no alarm")
def two_runs():
    f = slow_fleet(1)
    f.add("vm02")
    f.start("vm02")
    f.write("parallel = 2")
    first = f.tm.start("run", "--json")
    wait_for("the instant", f.vms["vm01"].filters)
    r = f.run(timeout=60)
    equal(r.code, BUSY, "exit status", r)
    check("already running: process %d is at work" % first.proc.pid in r.err,
          "who", r)
    # another configuration with the same machine
    with open(f.conf) as old, open(f.conf + "2", "w") as new:
        new.write(old.read())
    os.chmod(f.conf + "2", 0o644)
    r = f.run("--json", "--config", f.conf + "2", timeout=120)
    equal(results(r)["vm01"]["result"], "busy", "the machine in use", r)
    equal(summary(r)["failed"], 0, "nothing failed", r)
    equal(r.code, WARNING, "exit status", r)
    os.kill(first.proc.pid, signal.SIGTERM)
    equal(first.wait().code, STOPPED, "the first one")


@test("afterwards: retention by machine, collection, and proof of a sample")
def chores():
    f = Fleet(3)
    f.start()
    f.extra["vm01"] = "keep-last = 2"
    f.extra["vm02"] = "keep-last = 1"
    f.write(repository="gc = weekly\nverify = 100%")
    for _ in range(2):
        r = f.run("--json")
        need(r.code in PARTIAL, "the run commits", r)
        kinds = [(c["job"], c["for"], c["result"])
                 for c in summary(r)["chores"]]
    # the first run collected; the second is within the week
    equal(kinds, [("prune", "vm01", "ok"), ("prune", "vm02", "ok"),
                  ("verify", "main", "ok")], "what was done", r)
    need(os.path.exists(f.state + "/gc-main"), "when it was is noted")
    os.utime(f.state + "/gc-main", (0, 0))
    f.vms["vm02"].kill()
    r = f.run("--json")
    equal(r.code, SOME_FAILED, "exit status", r)
    equal([(c["job"], c["for"]) for c in summary(r)["chores"]],
          [("prune", "vm01"), ("gc", "main"), ("verify", "main")],
          "a machine that failed keeps what it has", r)
    equal([len(f.points(n)) for n in ("vm01", "vm02", "vm03")], [2, 1, 3],
          "points that stay")
    check(all(p["verified"] for p in f.points()), "all is verified")
    check(os.path.getmtime(f.state + "/gc-main") > 0, "noted again")
    r = f.tm.run("verify", "--json")
    equal(r.code, OK, "the repository is whole", r)


@test("each repository has its passphrase command, for every command")
def encrypted():
    f = Fleet(1, repo="vault")
    path = f.dir + "/vault"
    f.start()
    with open(f.conf, "w") as c:
        c.write("[repository vault]\npath = %s\n"
                "passphrase-command = echo secret\n%s"
                % (path, f.section("vm01")))
    os.chmod(f.conf, 0o644)
    f.tm.ok("init", "vault", "--encrypt")
    r = f.run("--json")
    check(r.code in PARTIAL, "the run commits", r)
    equal(f.tm.ok("points", "--repo", "vault",
                  "--json").json()["points"][0]["machine"], "vm01", "points")
    equal(len(f.tm.ok("key", "list", "vault", "--json").json()["keys"]), 1,
          "key list")
    f.tm.ok("verify", "vm01")
    r = f.tm.run("status", "--json")
    equal(r.json()["machines"][0]["state"], "ok", "status", r)


@test("a configuration that is wrong stops everything, with its line")
def wrong_configuration():
    f = Fleet(1)
    f.write(tail="[machine other]\nsource = qmp:relative\n")
    r = f.run()
    equal(r.code, USAGE, "exit status", r)
    lines = len(read(f.conf).splitlines())
    check("%s:%d: 'source': 'qmp:relative' does not begin with 'qmp:/'"
          % (f.conf, lines) in r.err, "where and what", r)
    cases = [("keep-within = soon", "'soon' is no length of time"),
             ("scratch = tmp", "'tmp' is no absolute path"),
             ("compress = 99", "'99' is no number from 0 to 19"),
             ("hook-timeout = 10", "'10' is no length of time such as"),
             ("tag = Upper", "is no word of"),
             ("paranoid = maybe", "'maybe' is none of yes, no"),
             ("parallel = 0", "'0' is no number from 1 to 64"),
             ("gc = daily", "'daily' is none of never, after-run, weekly"),
             ("verify = 5", "'5' is no share"),
             ("keep-lats = 3", "did you mean 'keep-last'?")]
    for line, words in cases:
        f.write(defaults=line)
        r = f.run("--dry-run")
        equal(r.code, USAGE, line, r)
        check(words in r.err, "words for " + line, r)
    f.write()
    os.chmod(f.conf, 0o666)
    r = f.run("--dry-run")
    equal(r.code, USAGE, "a file that all may write", r)
    check("chmod go-w" in r.err, "the way to repair that", r)
    os.chmod(f.conf, 0o600)
    r = f.run("--dry-run", "--json")
    equal(r.json()["machines"][0]["machine"], "vm01", "dry run", r)
    r = f.run("--config", f.dir + "/none")
    equal(r.code, USAGE, "no such file", r)


tap.main()
