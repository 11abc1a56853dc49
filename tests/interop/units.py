#!/usr/bin/env python3
"""systemd's own checker reads the units, and says how tight the sandbox is."""

import os
import re
import shutil
import subprocess

import tap
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
        with open(CONTRIB + name) as f:
            text = f.read().replace("@bindir@", to + "/bin")
        with open(to + "/" + name.replace(".in", ""), "w") as f:
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
