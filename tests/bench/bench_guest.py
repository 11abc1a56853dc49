"""What a backup does to its guest: the latency of the guest's writes.

The guest is a small Linux with fio in it, in a QEMU of its own (TCG: the same
on every machine).  fio writes at random places at a fixed, moderate rate, and
each window of it is one figure: nothing else, our backup, QEMU's own.
"""
import json
import random
import shutil
import socket
import statistics
import subprocess
import time
from pathlib import Path

from bench_data import GIB, MIB, SEED
from bench_tidemark import NAME, QEMU, Qmp, committed
from measure import Failed, check, stop, wait_for, wait_until_quiet

HERE = Path(__file__).resolve().parent
WARM_S, IDLE_S, LONGEST_S = 2, 20, 60
SLOW_MS = 100
FIO = ("start --name=w --filename=/dev/vda --rw=randwrite "
       "--bssplit=4k/90:64k/10 --direct=1 --ioengine=libaio --iodepth=8 "
       "--rate_iops={iops} --rate_process=poisson --time_based "
       "--runtime=3600 --ramp_time={warm} --size={size} --randrepeat=0 "
       "--norandommap=1\n")
IOPS = 100
POINTS = ("50.000000", "99.000000", "99.900000")


class Guest:
    """A running machine: disk vda for fio, and a port to tell it what to do."""

    def __init__(self, folder, out, disk, size):
        self.size, self.disk = size, disk
        self.socket, ours = folder / "guest.qmp", folder / "guest.ours"
        port, self.log = folder / "guest.port", folder / "guest.log"
        self.scratch = folder / "guest.scratch"
        self.scratch.mkdir()
        with open(self.log, "ab") as log:
            self.qemu = subprocess.Popen(
                [QEMU, "-name", NAME, "-machine", "q35", "-accel",
                 "tcg,thread=multi", "-m", "512", "-nodefaults", "-display",
                 "none", "-no-reboot", "-kernel", out / "vmlinuz", "-initrd",
                 out / "fio.gz", "-append", "console=ttyS0 quiet panic=-1",
                 "-serial", f"file:{folder / 'guest.serial'}",
                 "-qmp", f"unix:{self.socket},server=on,wait=off",
                 "-qmp", f"unix:{ours},server=on,wait=off",
                 "-device", "virtio-serial-pci", "-chardev",
                 f"socket,path={port},server=on,wait=off,id=p",
                 "-device", "virtserialport,chardev=p,name=tidemark.bench",
                 "-blockdev", f"driver=file,node-name=file0,filename={disk},"
                 "cache.direct=on,discard=unmap",
                 "-blockdev", "driver=raw,node-name=disk0,file=file0",
                 "-device", "virtio-blk-pci,drive=disk0,id=vda"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_for(lambda: self.alive() and ours.exists() and
                     port.exists(), "QEMU with the guest")
            self.qmp = Qmp(ours)
            self.port = socket.socket(socket.AF_UNIX)
            self.port.settimeout(300)
            self.port.connect(str(port))
            self.lines = self.port.makefile("r", encoding="utf-8")
            self.until("READY")
        except BaseException:
            stop(self.qemu)
            raise

    def alive(self):
        if self.qemu.poll() is not None:
            raise Failed(f"QEMU ended: {self.log.read_text()[-600:]}")
        return True

    def until(self, word):
        """The lines before the one that begins with `word`."""
        found = []
        for line in self.lines:
            if line.startswith(word):
                return "".join(found)
            found.append(line)
        raise Failed(f"the guest ended before it said {word}")

    def start(self):
        self.port.sendall(FIO.format(iops=IOPS, warm=WARM_S,
                                     size=self.size).encode())
        self.until("STARTED")

    def stop(self):
        """End fio; its figures in ms, and how many writes there were."""
        self.port.sendall(b"stop\n")
        self.until("REPORT")
        text = self.until("END")
        write = json.loads(text[text.index("{"):])["jobs"][0]["write"]
        values = write["clat_ns"]["percentile"]
        return ({p: values[p] / 1e6 for p in POINTS} |
                {"n": write["clat_ns"]["N"]})

    def forget(self):
        """Remove what backups left for a next one: there is none."""
        for node in self.qmp.call("query-named-block-nodes", flat=True):
            for bitmap in node.get("dirty-bitmaps", []):
                if bitmap.get("name", "").startswith("tidemark-"):
                    self.qmp.call("block-dirty-bitmap-remove",
                                  node=node["node-name"], name=bitmap["name"])

    def close(self):
        stop(self.qemu)


class Ours:
    """A full backup into a new repository, perhaps one far away."""

    def __init__(self, guest, options, work, slow=None, args=()):
        self.guest, self.args = guest, [str(a) for a in args]
        self.program, self.repo = options.program, work / "repo-guest"
        self.log, self.env = work / "guest.backup", []
        if slow:
            self.env = [f"LD_PRELOAD={slow}", f"SLOW_DIR={self.repo}",
                        f"SLOW_MS={SLOW_MS}"]

    def prepare(self):
        shutil.rmtree(self.repo, ignore_errors=True)
        check([self.program, "init", self.repo])

    def begin(self):
        with open(self.log, "wb") as log:
            self.child = subprocess.Popen(
                ["env", *self.env, self.program, "backup",
                 f"qmp:{self.guest.socket}", "--repo", self.repo, "--json",
                 "--scratch", self.guest.scratch, *self.args],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def running(self):
        return self.child.poll() is None

    def end(self):
        """Ended before it was done: what was measured counts all the same."""
        done = not self.running()
        stop(self.child, 60)
        self.guest.forget()
        shutil.rmtree(self.repo, ignore_errors=True)
        if not done:
            return {}
        if self.child.returncode not in (0, 1):
            raise Failed(f"backup: exit status {self.child.returncode}: "
                         f"{self.log.read_text()[-600:]}")
        event = committed(self.log)
        return {"backoff_ms": event["backoff_ms"],
                "seconds": event["duration_ms"] / 1000}


class Qemus:
    """QEMU's own backup job (what drive-backup is) onto a file, or onto an NBD
    server that answers in SLOW_MS."""

    def __init__(self, guest, work, sockets, slow):
        self.guest, self.slow = guest, slow
        self.file, self.sock = work / "peer.raw", sockets / "peer.nbd"
        self.server = None

    def prepare(self):
        self.file.unlink(missing_ok=True)
        with open(self.file, "wb") as f:
            f.truncate(self.guest.size)
        if self.slow:
            self.server = subprocess.Popen(
                ["nbdkit", "-f", "-U", str(self.sock), "--filter=delay",
                 "file", str(self.file), f"rdelay={SLOW_MS}ms",
                 f"wdelay={SLOW_MS}ms"], stdin=subprocess.DEVNULL)
            wait_for(self.sock.exists, "nbdkit")
        node = ({"driver": "nbd", "server": {"type": "unix",
                                             "path": str(self.sock)}}
                if self.slow else
                {"driver": "file", "filename": str(self.file)})
        self.guest.qmp.call("blockdev-add", **node, **{"node-name": "peer"})

    def begin(self):
        self.guest.qmp.call("blockdev-backup", **{
            "job-id": "peer", "device": "disk0", "target": "peer",
            "sync": "full", "auto-dismiss": False})

    def status(self):
        return next((j["status"] for j in self.guest.qmp.call("query-jobs")
                     if j["id"] == "peer"), "null")

    def running(self):
        return self.status() not in ("concluded", "null")

    def end(self):
        if self.running():
            self.guest.qmp.call("job-cancel", id="peer")
        wait_for(lambda: self.status() == "concluded", "end of the job", 120)
        self.guest.qmp.call("job-dismiss", id="peer")
        self.guest.qmp.call("blockdev-del", **{"node-name": "peer"})
        if self.server:
            stop(self.server)
        self.sock.unlink(missing_ok=True)
        self.file.unlink(missing_ok=True)
        return {}


class Nothing:
    def prepare(self):
        pass

    def begin(self):
        self.until = time.monotonic() + IDLE_S

    def running(self):
        return time.monotonic() < self.until

    def end(self):
        return {}


class GuestLatency:
    """Part "guest": one table, and the quotients that were promised."""

    LIMIT = 2.0     # p99 with our backup to p99 without any

    def __init__(self, bench):
        self.bench, options = bench, bench.options
        if shutil.which("fio") is None:
            raise Failed("guest: fio is not installed; see install-packages")
        self.size = GIB if options.quick else 4 * GIB
        out = options.out.resolve() / "guest"
        options.progress("guest: making the guest and its disk")
        check([HERE / "guest/build", out])
        disk = bench.work / "guest.raw"
        self.fill(disk)
        self.guest = bench.opened(Guest(bench.sockets, out, disk, self.size))
        self.cases = self.make_cases()

    def fill(self, disk):
        rng = random.Random(f"{SEED} guest")
        with open(disk, "wb") as f:
            for _ in range(self.size // MIB):
                f.write(rng.randbytes(MIB))

    def make_cases(self):
        b, guest = self.bench, self.guest
        slow = b.work / "slow_repo.so"
        check(["cc", "-shared", "-fPIC", "-O2", "-o", slow,
               HERE / "slow_repo.c", "-ldl"])
        cases = {"no backup": Nothing()}
        if not b.no_tidemark:
            cases["tidemark"] = Ours(guest, b.options, b.work)
            cases[f"tidemark, repository {SLOW_MS} ms"] = Ours(
                guest, b.options, b.work, slow)
            cases["tidemark --no-backoff"] = Ours(
                guest, b.options, b.work, args=["--no-backoff"])
        cases["QEMU backup job, file"] = Qemus(guest, b.work, b.sockets, False)
        if shutil.which("nbdkit"):
            cases[f"QEMU backup job, target {SLOW_MS} ms"] = Qemus(
                guest, b.work, b.sockets, True)
        else:
            b.skip("guest: a target that answers late", "nbdkit is missing")
        return cases

    def window(self, case):
        """fio runs from shortly before the backup begins to its end."""
        case.prepare()
        wait_until_quiet(self.bench.options.settle)
        self.guest.start()
        try:
            time.sleep(WARM_S + 1)
            until = time.monotonic() + LONGEST_S
            case.begin()
            while case.running() and time.monotonic() < until:
                time.sleep(0.05)
        finally:
            found = self.guest.stop()
            found |= case.end()
        return found

    def measure(self):
        found = {name: [] for name in self.cases}
        for number in range(self.bench.options.runs):
            names = list(self.cases)
            for name in names[::-1] if number % 2 else names:
                one = self.window(self.cases[name])
                found[name].append(one)
                self.bench.options.progress(
                    f"guest, round {number + 1}: {name}: p99 "
                    f"{one[POINTS[1]]:.2f} ms of {one['n']} writes")
        self.table(found)

    def table(self, found):
        def middle(name, key):
            values = [one[key] for one in found[name] if key in one]
            return statistics.median(values) if values else None
        def to_none(name):
            """Round by round: what else the machine does changes slowly."""
            return statistics.median(
                one[POINTS[1]] / none[POINTS[1]]
                for one, none in zip(found[name], found["no backup"]))
        rows = [["guest writes, ms", "p50", "p99", "p99.9", "p99 to none",
                 "p99 (min - max)", "waited, s", "backup, s"]]
        for name, runs in found.items():
            p99 = [one[POINTS[1]] for one in runs]
            ratio = to_none(name)
            waited, took = middle(name, "backoff_ms"), middle(name, "seconds")
            rows.append(
                [name, *(f"{middle(name, p):.2f}" for p in POINTS),
                 f"{ratio:.2f}", f"{min(p99):.2f} - {max(p99):.2f}",
                 "-" if waited is None else f"{waited / 1000:.1f}",
                 "-" if took is None else f"{took:.1f}"])
            if name.startswith("tidemark") and "--" not in name and \
                    ratio > self.LIMIT:
                self.bench.problems.append(
                    f"guest: {name}: p99 of its writes is {ratio:.2f} times "
                    f"that without a backup, the limit is {self.LIMIT:.0f}")
        self.bench.tables["guest"] = rows
        self.bench.options.progress(json.dumps({"guest": found}))
