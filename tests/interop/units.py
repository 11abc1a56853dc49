#!/usr/bin/env python3
"""systemd's own checker reads the units, and says how tight the sandbox is."""

import os
import re
import shutil
import subprocess

import tap
from fleet import Fleet, summary
from tap import check, equal, need, skip, test
from tidemark import BINARY, BUILD, Tidemark

SRC = os.path.normpath(os.path.dirname(os.path.abspath(__file__)) + "/../..")
CONTRIB = SRC + "/contrib/systemd/"
# systemd's exposure level: 9.6 is no sandbox at all, 0 is perfect.
EXPOSED = {"tidemark.service": 5.0, "tidemark-verify@.service": 4.0}


def analyze(*args):
    r = subprocess.run(["systemd-analyze"] + list(args), text=True, timeout=120,
                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT,
                       env=dict(os.environ, SYSTEMD_PAGER="", LC_ALL="C"))
    return r.returncode, r.stdout


def units():
    """The units as they are installed, but with the program of this build."""
    if shutil.which("systemd-analyze") is None:
        skip("no systemd-analyze here")
    to = tap.tempdir("units")
    os.mkdir(to + "/bin")
    os.symlink(BINARY, to + "/bin/tidemark")
    for name in os.listdir(CONTRIB):
        made = name[:-3] if name.endswith(".in") else None
        with open(BUILD + "/contrib/" + made if made else CONTRIB + name) as f:
            text = re.sub(r"(?<=[=-])/\S*/tidemark(?= )", to + "/bin/tidemark",
                          f.read())
        with open(to + "/" + (made or name), "w") as f:
            f.write(text)
    return to


@test("systemd understands every line of the units")
def verify():
    to = units()
    for name in ("tidemark.service", "tidemark.timer",
                 "tidemark-verify@main.service", "tidemark-verify@main.timer"):
        source = to + "/" + name.replace("main", "")
        if not os.path.exists(to + "/" + name):
            shutil.copy(source, to + "/" + name)
        code, said = analyze("verify", "--man=no", to + "/" + name)
        equal((code, said.strip()), (0, ""), name)
    # it would say so if it did not
    with open(to + "/tidemark.service", "a") as f:
        f.write("[Service]\nProtectSystm=strict\n")
    _, said = analyze("verify", "--man=no", to + "/tidemark.service")
    check("ProtectSystm" in said, "a typing error is found", said)


@test("the sandbox is as tight as it was")
def security():
    to = units()
    for name, limit in EXPOSED.items():
        code, said = analyze("security", "--offline=yes", "--no-pager",
                             to + "/" + name)
        m = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
        need(m, "an exposure level", said)
        check(float(m.group(1)) <= limit, "%s: %s" % (name, m.group(1)), said)


def filter_set(name, groups, seen):
    """All system calls of a group and the groups in it."""
    if name in seen:
        return set()
    seen.add(name)
    calls = set()
    for word in groups[name]:
        calls |= filter_set(word, groups, seen) if word[0] == "@" else {word}
    return calls


def allowed():
    _, said = analyze("syscall-filter", "--no-pager")
    groups, now = {}, None
    for line in said.splitlines():
        if line.startswith("@"):
            now = line.strip()
            groups[now] = []
        elif line.startswith("    ") and now and line.strip()[0] != "#":
            groups[now].append(line.split()[0])
        elif not line.strip():
            now = None
    need("@system-service" in groups, "systemd's groups", said[:500])
    return (filter_set("@system-service", groups, set())
            | filter_set("@default", groups, set()))


@test("all that a run asks of the kernel is what the unit lets through")
def system_calls():
    units()
    if shutil.which("strace") is None:
        skip("no strace here")
    f = Fleet(1)
    f.start()
    trace = f.dir + "/trace"
    f.extra["vm01"] = "before = true\nkeep-last = 1"
    f.write(repository="gc = after-run\nverify = 100%")
    r = f.tm.run("run", "--json", wrap=["strace", "-f", "-qq", "-o", trace],
                 timeout=300)
    equal(r.code, 0, "exit status", r)
    equal(len(summary(r)["chores"]), 3, "prune, gc and verify ran", r)
    with open(trace) as t:
        used = set(re.findall(r"(?m)^\d+ +(?:<\.\.\. )?(\w+)[( ]", t.read()))
    check("clone" in used or "clone3" in used, "children were traced", used)
    check("pidfd_open" in used and "fsync" in used, "the trace is whole", used)
    equal(used - allowed() - {"resumed"}, set(), "not let through")


@test("a run needs no capability that the unit takes away")
def capabilities():
    to = units()
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        skip("needs root and setpriv")
    with open(to + "/tidemark.service") as u:
        caps = re.search(r"(?m)^CapabilityBoundingSet=(.*)$", u.read())
    need(caps, "a bounding set")
    some = ",".join("+" + c[4:].lower() for c in caps.group(1).split())
    f = Fleet(1)
    f.start()
    f.extra["vm01"] = "before = grep CapBnd /proc/self/status\nkeep-last = 1"
    f.write(repository="gc = after-run\nverify = 100%")
    r = f.tm.run("run", "--json",
                 wrap=["setpriv", "--no-new-privs", "--bounding-set",
                       "-all," + some, "--"])
    equal(r.code, 0, "exit status", r)
    bits = re.search(r"CapBnd:(?:\\t|\s)*([0-9a-f]+)", r.err)
    need(bits, "the hook tells what is left", r)
    equal(bin(int(bits.group(1), 16)).count("1"), len(some.split(",")),
          "capabilities that were left", r)


@test("nothing kills the process that thaws, and what is written may be")
def promises():
    to = units()
    with open(to + "/tidemark.service") as f:
        text = f.read()
    for line in ("KillMode=process", "OOMPolicy=continue",
                 "RuntimeDirectoryPreserve=yes", "ProtectSystem=strict",
                 "NoNewPrivileges=yes"):
        check("\n%s\n" % line in text, line)
    check("\nPrivateTmp" not in text, "QEMU sees the same scratch directory")


@test("the example is a configuration that the program takes")
def example():
    tm = Tidemark()
    conf = tm.dir + "/t.conf"
    shutil.copy(SRC + "/contrib/tidemark.conf.example", conf)
    os.chmod(conf, 0o644)
    r = tm.run("run", "--dry-run", "--json", "--config", conf)
    equal(r.code, 0, "exit status", r)
    equal([m["machine"] for m in r.json()["machines"]], ["web1", "db1"],
          "machines", r)
    # with what is commented out, too
    with open(conf) as f:
        text = re.sub(r"(?m)^#(\w[\w-]* = )", r"\1", f.read())
    with open(conf, "w") as f:
        f.write(text)
    check("disks = " in text and "passphrase-command = " in text, "all of it")
    r = tm.run("run", "--dry-run", "--config", conf)
    equal(r.code, 0, "exit status", r)


tap.main()
