#!/usr/bin/env python3
"""What a backup does to its guest: it is seen, kept small, and told."""

import json
import os
import signal
import socket
import threading

import images
import tap
from lab import Lab
from qmpsock import Qmp, check_path
from tap import check, cleanup, equal, need, test, wait_for
from tidemark import BUSY, FAILED
from vm import Disk, slow_disk

MIB = 1 << 20
FOREIGN = [1000000, 10000000]


def histograms(vm):
    """{device: boundaries of its write histogram, or None}"""
    found = {}
    for b in vm.qmp.call("query-blockstats"):
        if b.get("qdev"):
            h = b["stats"].get("wr_latency_histogram")
            found[b["qdev"].split("/")[3]] = h and h["boundaries"]
    return found


def slow_lab(rate=2 * MIB, size="32M"):
    """vda is read with `rate` bytes per second: a backup that lasts."""
    dir = tap.tempdir("slow")
    path = images.make(dir + "/vda.qcow2", "qcow2", size)
    disk, args = slow_disk("vda", path, "qcow2", rate)
    lab = Lab([disk, ("vdb", "qcow2")], args)
    lab.vm.io("vda", "write -P 0x11 0 8M")
    return lab


# -- the owner's limit ---------------------------------------------------------

@test("--limit-rate: never faster, over all disks together, and right")
def limit_rate():
    lab = Lab([("vda", "qcow2"), ("vdb", "raw")])
    for name in "vda", "vdb":
        lab.vm.io(name, "write -P 0x11 0 12M")
    r = lab.backup("--limit-rate", "8M")
    read = sum(d["read_bytes"] for d in r.committed["disks"])
    check(read >= 24 * MIB, "it has read all that was written", r)
    # the first reads of each disk are free
    least = (read - 2 * MIB) * 1000 / (8 * MIB)
    check(r.committed["duration_ms"] >= least, "at most 8 MiB a second", r)
    equal(r.committed["backoff_ms"], 0, "nothing was waited for the guest")
    lab.restores()


@test("a backup that waits for its turn ends at once when it is told to")
def limit_rate_canceled():
    lab = Lab([("vda", "qcow2")])
    lab.vm.io("vda", "write -P 0x11 0 12M")
    run = lab.tm.start("backup", lab.vm.address, "--limit-rate", "1K")
    wait_for("the instant", lab.vm.filters)
    os.kill(run.proc.pid, signal.SIGTERM)
    r = run.wait(60)    # the next read would come after 17 minutes
    check(r.code != 0, "not a success", r)
    equal(lab.vm.leftovers(), [], "leftovers")
    equal(histograms(lab.vm), {"vda": None}, "histograms")


# -- backing off -----------------------------------------------------------------

class Writing(threading.Thread):
    """Writes what is there already, so that every instant looks the same.  The
    requests are counted like a guest's; nobody waits for them."""

    def __init__(self, path, device, length):
        super().__init__(daemon=True)
        self.qmp, self.device, self.blocks = Qmp(path), device, length // 4096
        self.done = threading.Event()
        self.n = 0
        cleanup(self.end)

    def run(self):
        while not self.done.wait(0.005):
            self.n += 1
            self.qmp.call("human-monitor-command", command_line=(
                'qemu-io -d %s "aio_write -q -P 0x11 %d 4k"'
                % (self.device, self.n * 7 % self.blocks * 4096)))

    def end(self):
        self.done.set()
        if self.is_alive():
            self.join(30)


def busy_lab(**kw):
    """A disk of 200 operations of 64 KiB a second, reads and writes together,
    and somebody who writes to it."""
    dir = tap.tempdir("busy")
    path = images.make(dir + "/vda.raw", "raw", 48 * MIB)
    disk = Disk("vda", path, "raw", file="driver=throttle,throttle-group=g,"
                "file.driver=file,file.filename=" + path)
    third = check_path(dir + "/third.sock")
    lab = Lab([disk], ["-object", "throttle-group,id=g,x-iops-total=200,"
                       "x-iops-size=65536", "-qmp",
                       "unix:%s,server=on,wait=off" % third], **kw)
    lab.vm.io("vda", "write -P 0x11 0 48M")
    writing = Writing(third, "/machine/peripheral/vda/virtio-backend",
                      8 * MIB)
    writing.start()
    wait_for("some writes", lambda: writing.n >= 100)
    return lab, writing


@test("a guest that becomes slow: reading waits for it, ends, and is right")
def backs_off():
    lab, writing = busy_lab()
    r = lab.backup("--debug")
    c = r.committed
    check(c["backoff_ms"] > 0, "reading waited", r)
    check("the guest has become slow" in r.err, "and says why", r)
    check(c["guest_write_p99_us"]["during"] > 0, "p99 is told", c)
    check(c["guest_write_mean_us"]["during"] > 0, "so is the mean", c)
    equal(histograms(lab.vm), {"vda": None}, "histograms")
    check(writing.is_alive(), "the writer writes on")
    writing.end()
    lab.restores()


@test("--resume waits for the guest, too")
def resumed():
    lab, writing = busy_lab()
    refs = lab.reference()
    run = lab.tm.start("backup", lab.vm.address, "--json")
    wait_for("the instant", lambda: '"instant"' in run.line())
    run.kill()
    r = None

    def not_busy():
        nonlocal r
        r = lab.tm.run("backup", lab.vm.address, "--json", "--resume")
        return r.code != BUSY
    wait_for("the lock of the dead run", not_busy, 60)
    need(r.committed, "it commits", r)
    check(r.committed["backoff_ms"] > 0, "reading waited", r)
    equal(histograms(lab.vm), {"vda": None}, "histograms")
    writing.end()
    lab.refs[r.committed["point"]] = refs
    lab.restores(r.committed["point"])


@test("--no-backoff: the guest is not even looked at")
def no_backoff():
    lab, writing = busy_lab()
    r = lab.backup("--no-backoff", "--debug")
    equal(r.committed["backoff_ms"], 0, "nothing was waited for")
    check("guest_write_p99_us" not in r.committed, "nothing is known", r)
    check("histogram-set" not in r.err, "nothing was set", r)
    writing.end()
    lab.restores()


# -- histograms ------------------------------------------------------------------

@test("somebody else's histogram is used and left as it was")
def foreign_histogram():
    lab = Lab([("vda", "qcow2"), ("vdb", "qcow2")])
    lab.vm.qmp.call("block-latency-histogram-set", boundaries=FOREIGN,
                    id="/machine/peripheral/vda/virtio-backend")
    lab.vm.io("vda", "aio_write -P 0x11 0 1M", "aio_flush")
    lab.backup()
    equal(histograms(lab.vm), {"vda": FOREIGN, "vdb": None}, "afterwards")
    stats = [b["stats"] for b in lab.vm.qmp.call("query-blockstats")
             if "vda" in b.get("qdev", "")]
    equal(sum(stats[0]["wr_latency_histogram"]["bins"]), 1,
          "what it had counted")


@test("ours is there during a backup; a dead run's is removed by the next")
def histogram_of_a_dead_run():
    lab = slow_lab()
    run = lab.tm.start("backup", lab.vm.address)
    wait_for("the instant", lab.vm.filters)
    check(all(histograms(lab.vm).values()), "all disks have one")
    run.kill()
    check(all(histograms(lab.vm).values()), "killed: they stay")
    # its guard may need a moment to see that the parent is gone
    r = None

    def not_busy():
        nonlocal r
        r = lab.tm.run("backup", lab.vm.address, "--json")
        return r.code != 6
    wait_for("the lock of the dead run", not_busy, 30)
    check(r.committed, "the next run commits", r)
    check(any("histograms" in e.get("action", "") for e in r.events),
          "and tells what it removed", r)
    equal(histograms(lab.vm), {"vda": None, "vdb": None}, "afterwards")


class OldQemu(threading.Thread):
    """Stands between: QEMU's schema loses one command."""

    def __init__(self, vm, gone):
        super().__init__(daemon=True)
        self.path = check_path(tap.tempdir("old") + "/qmp.sock")
        self.vm, self.gone = vm, gone
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(1)
        cleanup(self.listener.close)

    def run(self):
        client, _ = self.listener.accept()
        server = socket.socket(socket.AF_UNIX)
        server.connect(self.vm.qmp_path)
        back = threading.Thread(target=self.answers, args=(server, client),
                                daemon=True)
        back.start()
        while data := client.recv(65536):
            server.sendall(data)
        server.shutdown(socket.SHUT_RDWR)
        back.join(30)
        client.close()
        server.close()

    def answers(self, server, client):
        for line in server.makefile("rb"):
            if self.gone.encode() in line:
                m = json.loads(line)
                m["return"] = [e for e in m["return"]
                               if e["name"] != self.gone]
                line = json.dumps(m).encode() + b"\r\n"
            try:
                client.sendall(line)
            except OSError:
                return


@test("a QEMU that cannot make histograms: counts and times do")
def without_histograms():
    lab, writing = busy_lab()
    old = OldQemu(lab.vm, "block-latency-histogram-set")
    old.start()
    r = lab.tm.ok("backup", "qmp:" + old.path, "--name", "web1", "--json",
                  "--debug", codes=(0, 1))
    writing.end()
    check("guest_write_p99_us" not in r.committed, "no tail is known", r)
    check(r.committed["guest_write_mean_us"]["during"] > 0, "but a mean", r)
    check(r.committed["backoff_ms"] > 0, "reading waited", r)
    equal(histograms(lab.vm), {"vda": None}, "histograms")


# -- scratch -----------------------------------------------------------------------

@test("--scratch-max: the backup ends, the guest goes on, the next is incremental")
def scratch_max():
    lab = slow_lab()
    lab.backup()
    lab.vm.io("vda", "write -P 0x12 0 8M")
    lab.vm.io("vdb", "write -P 0x13 0 8M")
    run = lab.tm.start("backup", lab.vm.address, "--scratch-max", "2M",
                       "--json")
    wait_for("the instant", lab.vm.filters)
    lab.vm.io("vdb", "write -P 0x14 0 8M")
    r = run.wait(60)
    equal(r.code, FAILED, "exit status", r)
    check("--scratch-max" in r.err, "the error names the bound", r)
    equal(lab.vm.leftovers(), [], "leftovers")
    equal(os.listdir(lab.tm.scratch), [], "scratch files")
    lab.vm.io("vdb", "write -P 0x15 1M 1M")
    r = lab.backup()
    lab.tracking(r, vda="incremental", vdb="incremental")
    lab.restores()


@test("scratch files are told while they grow, and their peak at the end")
def scratch_told():
    lab = slow_lab(1 * MIB)
    lab.vm.io("vdb", "write -P 0x13 0 8M")
    run = lab.tm.start("backup", lab.vm.address, "--json")
    wait_for("the instant", lab.vm.filters)
    lab.vm.io("vdb", "write -P 0x14 0 4M")
    r = run.wait()
    check(any(e.get("scratch_bytes", 0) >= 4 * MIB for e in r.events
              if e["event"] == "progress"), "in the progress", r)
    check(r.committed["scratch_peak_bytes"] >= 4 * MIB, "the peak", r)
    lab.backup("--scratch-max", "64M")
    lab.restores()


@test("without a place given the plan names one that is there")
def scratch_default():
    lab = Lab([("vda", "qcow2")])
    r = lab.tm.ok("backup", lab.vm.address, "--json",
                  env={"TIDEMARK_SCRATCH": ""}, codes=(0, 1))
    plan = next(e for e in r.events if e["event"] == "plan")
    check(plan["scratch"] in ("/var/tmp", lab.dir), "where", plan)
    r = lab.backup()
    plan = next(e for e in r.events if e["event"] == "plan")
    equal(plan["scratch"], lab.tm.scratch, "what was given is taken")


tap.main()
