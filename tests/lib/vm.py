"""QEMU machines for tests.

    vm = QemuVM([Disk("vda", path, "qcow2")])     # -S: no guest, starts at once
    vm.start()
    vm.io("vda", "write -P 0x11 0 1M")            # through the device
    vm.address                                    # for `tidemark backup`
    vm.quit(), vm.kill(), vm.start()

Each machine has two QMP sockets: one for Tidemark, one for the test.  It is
ended by its own process id when the test ends, in whatever state it is.
"""

import os
import shlex
import signal
import subprocess
import time

import tap
from qmpsock import Qmp, check_path

QEMU = os.environ.get("TIDEMARK_TEST_QEMU", "qemu-system-x86_64")


class Disk:
    """One disk: the name is the device's id, `node` that of the format node."""

    def __init__(self, name, path, fmt, device="virtio-blk-pci",
                 options="", file="driver=file"):
        self.name, self.path, self.format = name, path, fmt
        self.device = device
        self.options = options  # more -blockdev options, "a=b,c=d"
        self.file = file        # the protocol layer, as "driver=..., ..."
        self.node = name + "-node"

    def args(self):
        low = ["file." + o for o in self.file.split(",")]
        if self.file == "driver=file":
            low += ["file.filename=" + self.path, "file.discard=unmap"]
        block = ["driver=" + self.format, "node-name=" + self.node,
                 "discard=unmap"] + low
        if self.options:
            block.append(self.options)
        return ["-blockdev", ",".join(block), "-device",
                "%s,drive=%s,id=%s" % (self.device, self.node, self.name)]


def slow_disk(name, path, fmt, rate):
    """A disk that is read with `rate` bytes per second, and the arguments that
    the machine needs for it: a backup that lasts, without a sleep."""
    group = "slow-" + name
    disk = Disk(name, path, fmt,
                file="driver=throttle,throttle-group=%s,file.driver=file,"
                "file.filename=%s,file.discard=unmap" % (group, path))
    return disk, ["-object", "throttle-group,id=%s,x-bps-read=%d,"
                  "x-bps-read-max=%d" % (group, rate, rate)]


class QemuVM:
    def __init__(self, disks, args=(), name="web1", memory=64, stopped=True,
                 agent=False, dir=None):
        self.disks = disks
        self.dir = dir or tap.tempdir("vm")
        self.name = name
        self.memory = memory
        self.stopped = stopped
        self.args = list(args)
        self.qmp_path = check_path(self.dir + "/qmp.sock")
        self.test_path = check_path(self.dir + "/test.sock")
        self.agent_path = check_path(self.dir + "/ga.sock") if agent else None
        self.serial_path = self.dir + "/serial.log"
        self.log_path = self.dir + "/qemu.log"
        self.proc = self.qmp = None
        self.runs = 0
        tap.cleanup(self.kill)

    @property
    def address(self):
        a = "qmp:" + self.qmp_path
        return a + ",agent=" + self.agent_path if self.agent_path else a

    def command(self):
        cmd = [QEMU, "-nodefaults", "-display", "none", "-no-user-config",
               "-accel", "tcg,thread=multi", "-m", str(self.memory),
               "-name", self.name, "-serial", "file:" + self.serial_path]
        for path in (self.qmp_path, self.test_path):
            cmd += ["-qmp", "unix:%s,server=on,wait=off" % path]
        if self.stopped:
            cmd.append("-S")
        cmd += self.args  # first: a disk may need a controller from there
        for d in self.disks:
            cmd += d.args()
        if self.agent_path:
            cmd += ["-device", "virtio-serial-pci", "-chardev",
                    "socket,path=%s,server=on,wait=off,id=ga"
                    % self.agent_path,
                    "-device", "virtserialport,chardev=ga,"
                    "name=org.qemu.guest_agent.0"]
        return cmd

    def start(self):
        """Start and connect.  Line-buffered, so that what qemu-io says of a
        write can be read back at once."""
        self.runs += 1
        for path in (self.qmp_path, self.test_path, self.serial_path):
            if os.path.exists(path):
                os.unlink(path)
        with open(self.log_path, "ab") as log:
            log.write(("$ " + shlex.join(self.command()) + "\n").encode())
            log.flush()
            self.log_start = log.tell()
            self.proc = subprocess.Popen(
                ["stdbuf", "-oL"] + self.command(), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True)
        try:
            self.qmp = Qmp(self.test_path,
                           alive=lambda: self.proc.poll() is None)
        except Exception:
            tap.diag(self.log())
            raise
        return self

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def alive(self):
        return self.proc is not None and self.proc.poll() is None

    def _ended(self, timeout):
        status = self.proc.wait(timeout)
        if self.qmp:
            self.qmp.close()
        self.proc = self.qmp = None
        return status

    def quit(self, timeout=60):
        """A clean end: persistent bitmaps are written."""
        try:
            self.qmp.call("quit")
        except EOFError:
            pass
        return self._ended(timeout)

    def kill(self):
        """kill -9; also the clean-up of every machine."""
        if self.proc is None:
            return
        if self.proc.poll() is None:
            self.proc.send_signal(signal.SIGKILL)
        self._ended(30)

    # -- guest-like writes ---------------------------------------------------

    def _backend(self, disk):
        """What HMP calls the device: a virtio-blk-pci device is only the
        proxy of the one that has the backend."""
        for b in self.qmp.call("query-block"):
            qdev = b.get("qdev", "")
            if disk == qdev or "/%s/" % disk in qdev:
                return "-d " + qdev
            if disk == b["device"]:
                return disk
        raise KeyError("no disk %s in this machine" % disk)

    def io(self, disk, *commands, may_fail=False):
        """Run qemu-io commands on a device, as its guest would write.
        Returns what they printed."""
        out = ""
        for c in commands:
            before = os.path.getsize(self.log_path)
            said = self.qmp.call(
                "human-monitor-command", timeout=120,
                command_line='qemu-io %s "%s"' % (self._backend(disk), c))
            with open(self.log_path, errors="replace") as f:
                f.seek(before)
                # what QEMU itself has to say, of an NBD client say, is no answer
                said += "".join(line for line in f
                                if not line.startswith("qemu-system"))
            # nor is it when a client was killed while they shook hands
            said = "".join(line for line in said.splitlines(True)
                           if "option negotiation failed" not in line)
            bad = any(w in said for w in ("failed", "rror", "invalid",
                                          "not found"))
            if bad and not may_fail:
                raise RuntimeError("qemu-io on %s: %s: %s" % (disk, c, said))
            out += said
        return out

    def flush(self):
        for d in self.disks:
            self.io(d.name, "flush")

    # -- what QEMU holds -----------------------------------------------------

    def nodes(self):
        return self.qmp.call("query-named-block-nodes", flat=True)

    def bitmaps(self):
        """{node name: [bitmap objects with a name]}, without empty entries."""
        found = {}
        for n in self.nodes():
            named = [b for b in n.get("dirty-bitmaps", []) if b.get("name")]
            if named:
                found[n["node-name"]] = named
        return found

    def leftovers(self):
        """What a finished (or cleaned-up) backup must not leave behind, as
        texts: jobs, exports, nodes, more than one bitmap per disk."""
        left = ["job " + j["id"] for j in self.qmp.call("query-jobs")]
        left += ["export " + e["id"]
                 for e in self.qmp.call("query-block-exports")]
        left += ["node " + n["node-name"] for n in self.nodes()
                 if "tidemark" in n["node-name"]
                 or n["drv"] in ("copy-before-write", "snapshot-access")]
        for node, maps in self.bitmaps().items():
            ours = [b["name"].rsplit("-", 1)[0] for b in maps
                    if b["name"].startswith("tidemark-")]
            if len(ours) != len(set(ours)):  # one per repository
                left.append("bitmaps of %s: %s" % (node, ", ".join(
                    b["name"] for b in maps)))
            left += ["busy bitmap " + b["name"] for b in maps if b["busy"]]
        return left

    def filters(self):
        """Names of the nodes that copy before a guest's write: while there
        is one, a backup holds its instant."""
        return [n["node-name"] for n in self.nodes()
                if n["drv"] == "copy-before-write"]

    # -- the serial console --------------------------------------------------

    def serial(self):
        try:
            with open(self.serial_path, errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def wait_serial(self, match, timeout=180):
        """Wait until match(text of the console) is true; returns its value."""
        end = time.monotonic() + timeout
        while True:
            value = match(self.serial())
            if value:
                return value
            if not self.alive():
                value = match(self.serial())
                if value:
                    return value
                raise EOFError("the machine ended:\n" + self.serial()[-2000:]
                               + self.log()[-2000:])
            if time.monotonic() > end:
                raise TimeoutError("not on the console in time:\n"
                                   + self.serial()[-2000:])
            time.sleep(0.05)
