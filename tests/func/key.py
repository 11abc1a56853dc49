#!/usr/bin/env python3
"""Encrypted repositories from the command line: every source of a passphrase,
every action on keys, a backup that comes back, and no secret in any output."""

import os
import pty
import re
import select
import signal
import subprocess
import tempfile
import termios
import time

import tap
from lab import Lab
from tap import check, equal, test
from tidemark import BINARY, OK, USAGE, Tidemark

KEY = 7             # exit status: passphrase wrong or missing
CHEAP = ("--kdf-memory", "64M")
PASS = "correct horse battery"


def command(text):
    return ("--passphrase-command", "printf '%%s\\n' '%s'" % text)


def new_command(text):
    return ("--new-passphrase-command", "printf '%%s\\n' '%s'" % text)


def make(passphrase=PASS):
    tm = Tidemark()
    tm.init("--encrypt", "--label", "first", *CHEAP, *command(passphrase))
    return tm


def with_fds(tm, args, *texts):
    """Run with each text on a descriptor of its own, "@0", "@1" in args."""
    files = []
    for text in texts:
        f = tempfile.TemporaryFile()
        f.write(text.encode())
        f.seek(0)
        files.append(f)
    for i, f in enumerate(files):
        args = [str(f.fileno()) if a == "@%d" % i else a for a in args]
    r = subprocess.run([BINARY] + args, env=tm.env, capture_output=True,
                       text=True, stdin=subprocess.DEVNULL, timeout=120,
                       pass_fds=[f.fileno() for f in files])
    return r


def on_terminal(tm, args, answers):
    """Run on a terminal of its own; what the terminal showed, and the status."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(BINARY, [BINARY] + args, tm.env)
    shown, answers = b"", list(answers)
    while True:
        ready, _, _ = select.select([fd], [], [], 120)
        tap.need(ready, "the program says something within 2 minutes", shown)
        try:
            more = os.read(fd, 4096)
        except OSError:
            more = b""
        if not more:
            break
        shown += more
        if answers and shown.endswith(b"': "):
            os.write(fd, answers.pop(0).encode() + b"\n")
    _, status = os.waitpid(pid, 0)
    os.close(fd)
    return shown.decode(), os.waitstatus_to_exitcode(status)


@test("a passphrase from a descriptor, a command, the environment")
def sources():
    tm = make()
    r = with_fds(tm, ["points", "--passphrase-fd", "@0"], PASS + "\nmore\n")
    check(r.returncode == OK, "descriptor", r.stderr)
    r = with_fds(tm, ["points", "--passphrase-fd", "@0"], PASS)
    check(r.returncode == OK, "descriptor without a newline", r.stderr)
    tm.ok("points", *command(PASS))
    r = tm.run("points", env={"TIDEMARK_PASSPHRASE_COMMAND":
                              "echo '%s'" % PASS})
    check(r.code == OK, "environment", r)
    r = tm.run("points", "--passphrase-fd", "99")
    check(r.code == USAGE and "99 is not open" in r.err, "closed one", r)
    r = tm.run("points", "--passphrase-command", "exit 3")
    check(r.code == KEY and "exit status 3" in r.err, "failing command", r)
    r = tm.run("points", "--passphrase-command", "true")
    check(r.code == KEY and "printed nothing" in r.err, "silent command", r)
    for more in ("sleep 0.3; echo more", "seq 99999", "seq 99999; exit $?"):
        r = tm.run("points", "--passphrase-command",
                   "echo '%s'; %s" % (PASS, more))
        check(r.code == OK and r.err == "", "only its first line counts", r)


@test("wrong and missing passphrases have an exit status and words of their own")
def wrong():
    tm = make()
    r = tm.run("points", "--json", *command("wrong"))
    check(r.code == KEY and "none of the 1 key slots" in r.err, "wrong", r)
    check('"code":"key"' in r.out.replace(" ", ""), "code of the error", r)
    r = tm.run("points")
    check(r.code == KEY, "none", r)
    for word in ("--passphrase-fd", "--passphrase-command",
                 "TIDEMARK_PASSPHRASE_COMMAND", "--paper-key-fd"):
        check(word in r.err, "says " + word, r)
    plain = Tidemark()
    r = plain.run("init", plain.repo, *command(PASS))
    check(r.code == USAGE and "not --encrypt" in r.err
          and not os.path.exists(plain.repo + "/format"),
          "none for what is not encrypted", r)
    plain.init()
    r = plain.run("points", *command(PASS))
    check(r.code == KEY and "is not encrypted" in r.err, "not encrypted", r)


@test("the terminal asks twice for a new one, and shows none")
def terminal():
    tm = Tidemark()
    args = ["init", tm.repo, "--encrypt"] + list(CHEAP)
    shown, code = on_terminal(tm, args, ["one", "two", PASS, PASS])
    check(code == OK and "The two differ" in shown, "asked again", shown)
    shown2, code = on_terminal(tm, ["points"], ["wrong", PASS])
    check(code == OK and "That was wrong" in shown2, "asked again", shown2)
    check(PASS not in shown + shown2, "no echo", shown + shown2)
    shown, code = on_terminal(tm, ["points"], ["a", "b", "c", "d"])
    check(code == KEY and shown.count("Passphrase of") == 3, "three times",
          shown)
    shown, code = on_terminal(tm, ["key", "add", tm.repo] + list(CHEAP),
                              [PASS, "l" * 1025, "l" * 1025])
    check(code == USAGE and "longer than 1024" in shown, "none is cut", shown)


@test("Ctrl-C at the question ends it, and the terminal has its echo again")
def interrupted():
    tm = make()
    pid, fd = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        code = subprocess.call(
            [BINARY, "points"], env=tm.env,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        echo = termios.tcgetattr(0)[3] & termios.ECHO
        os._exit(-code if echo else 99)
    shown = b""
    while not shown.endswith(b"': "):
        shown += os.read(fd, 4096)
    check(not termios.tcgetattr(fd)[3] & termios.ECHO, "no echo meanwhile")
    os.write(fd, b"\x03")
    _, status = os.waitpid(pid, 0)
    os.close(fd)
    equal(os.waitstatus_to_exitcode(status), signal.SIGINT, "its end")


def caught(pid):
    """The signals that a process catches, SIGTERM as bit 14."""
    with open("/proc/%d/status" % pid) as f:
        return int(re.search(r"SigCgt:\s*(\w+)", f.read()).group(1), 16)


@test("a signal ends the wait for a passphrase")
def stopped():
    tm = make()
    r, w = os.pipe()
    p = subprocess.Popen([BINARY, "verify", "--passphrase-fd", str(r)],
                         env=tm.env, pass_fds=[r], stderr=subprocess.PIPE)
    end = time.monotonic() + 30
    while time.monotonic() < end and not caught(p.pid) >> 14 & 1:
        time.sleep(0.05)
    time.sleep(0.3)
    p.terminate()
    try:
        p.wait(60)
    except subprocess.TimeoutExpired:
        p.kill()
    text = p.communicate()[1]
    equal(p.returncode, 130, "exit status", text)
    os.close(r)
    os.close(w)


@test("what is remembered of a passphrase is no child's")
def forked():
    if os.geteuid() != 0:
        return          # nobody else may look
    tm = make()
    seen = tempfile.NamedTemporaryFile()
    tm.ok("key", "add", tm.repo, *CHEAP, *command(PASS),
          "--new-passphrase-command",
          "cat /proc/$PPID/smaps > %s; echo new" % seen.name)
    flags = [line.split() for line in open(seen.name)
             if line.startswith("VmFlags:")]
    check(any({"wf", "dd"} <= set(f) for f in flags), "wiped at a fork", flags)


@test("key add, list, passwd, remove")
def keys():
    tm = make()
    tm.ok("key", "add", tm.repo, "--label", "second", *CHEAP, *command(PASS),
          *new_command("two"))
    r = tm.ok("key", "list", tm.repo, "--json").json()
    labels = sorted(k["label"] for k in r["keys"])
    check(labels == ["first", "second"], "both are listed", r)
    check(not any(k["problem"] for k in r["keys"]), "and good", r)
    first = [k["slot"] for k in r["keys"] if k["label"] == "first"][0]
    tm.ok("key", "passwd", tm.repo, *CHEAP, *command("two"),
          *new_command("three"))
    check(tm.run("points", *command("two")).code == KEY, "the old one is gone")
    tm.ok("points", *command("three"))
    tm.ok("points", *command(PASS))
    r = tm.run("key", "remove", tm.repo, first, *command(PASS))
    check(r.code == USAGE and "one that stays" in r.err, "not its own", r)
    tm.ok("key", "remove", tm.repo, first[:6], *command("three"))
    check(tm.run("points", *command(PASS)).code == KEY, "it is removed")
    last = tm.ok("key", "list", tm.repo, "--json").json()["keys"]
    check(len(last) == 1 and last[0]["label"] == "second", "one is left", last)
    r = tm.run("key", "remove", tm.repo, last[0]["slot"], *command("three"))
    check(r.code == USAGE and "the last one" in r.err, "not the last", r)
    r = tm.ok("key", "list", "--json").json()
    equal(r["keys"], last, "the repository of the environment", r)
    r = tm.ok("key", "list", "--repo", tm.repo, "--json").json()
    equal(r["keys"], last, "and that of --repo", r)
    r = tm.run("key", "remove", last[0]["slot"], *command("three"))
    check(r.code == USAGE and "the last one" in r.err, "one word is SLOT", r)
    for args in (["frob", tm.repo], ["list", "--repo", tm.repo, tm.repo],
                 ["remove"], ["add", tm.repo, first]):
        r = tm.run("key", *args, *command("three"))
        check(r.code == USAGE, "usage: %s" % args, r)


@test("the paper key opens when all passphrases are lost")
def paper():
    tm = make()
    text = tm.ok("key", "export", tm.repo, *command(PASS)).out
    check(len(re.findall(r"(?m)^[1-4]  [a-z0-9 ]{23}$", text)) == 4,
          "four lines", text)
    for name in os.listdir(tm.repo + "/key"):
        os.unlink(tm.repo + "/key/" + name)
    r = tm.run("points", *command(PASS))
    check(r.code == KEY and "--paper-key-fd" in r.err, "names the way out", r)
    r = with_fds(tm, ["key", "add", tm.repo, "--paper-key-fd", "@0",
                      "--new-passphrase-fd", "@1"] + list(CHEAP), text, "new")
    check(r.returncode == OK, "a new slot", r.stderr)
    tm.ok("points", *command("new"))
    typo = text[:-3] + ("q" if text[-3] != "q" else "p") + text[-2:]
    r = with_fds(tm, ["points", "--paper-key-fd", "@0"], typo)
    check(r.returncode == KEY and "line 4 of the paper key" in r.stderr,
          "a typing error is known by its line", r.stderr)


@test("backups of an encrypted repository come back, and tell nothing")
def backup():
    lab = Lab([("vda", "qcow2", 8 << 20), ("vdb", "raw", 4 << 20)])
    tm = lab.tm
    tm.repo += "-encrypted"
    tm.env["TIDEMARK_REPO"] = tm.repo
    tm.env["TIDEMARK_PASSPHRASE_COMMAND"] = "echo '%s'" % PASS
    tm.init("--encrypt", *CHEAP)
    lab.vm.io("vda", "write -P 0x41 1M 2M")
    lab.backup()
    lab.vm.io("vda", "write -P 0x42 2M 64k")
    lab.tracking(lab.backup(), vda="incremental", vdb="incremental")
    lab.all_restore()
    out = ""
    for args in (["points"], ["verify"], ["stats"],
                 ["prune", "--keep-last", "1", "--gc"]):
        r = tm.ok(*args, "--debug")
        out += r.out + r.err
    check(PASS not in out, "no passphrase in the trace")
    name = tm.points()[0]["machine"].encode()
    for root, _, files in os.walk(tm.repo):
        for f in files:
            data = open(os.path.join(root, f), "rb").read()
            check(name not in data and b"A" * 64 not in data
                  and PASS.encode() not in data, "nothing readable in " + f)
    r = tm.ok("verify")
    lab.vm.kill()


tap.main()
