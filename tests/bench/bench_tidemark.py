"""Tidemark's side: a paused QEMU with one disk, and the commands.

The machine has two QMP sockets, because a QMP socket serves one client at a
time: one is Tidemark's, the other is ours, to write to the disk.
"""
import json
import shutil
import socket
import subprocess
from pathlib import Path

from bench_data import same_contents
from measure import Case, Failed, Job, check, stop, wait_for

QEMU = "qemu-system-x86_64"
NAME = "bench"


class Qmp:
    """A minimal QMP client: one command at a time, events dropped."""

    def __init__(self, path, timeout=60):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(timeout)
        self.sock.connect(str(path))
        self.lines = self.sock.makefile("r", encoding="utf-8")
        self.lines.readline()
        self.call("qmp_capabilities")

    def call(self, command, **arguments):
        request = {"execute": command, "arguments": arguments}
        self.sock.sendall(json.dumps(request).encode() + b"\n")
        for line in self.lines:
            answer = json.loads(line)
            if "error" in answer:
                raise Failed(f"QMP {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        raise Failed(f"QMP {command}: QEMU closed the connection")

    def close(self):
        self.lines.close()
        self.sock.close()


class Machine:
    """A paused QEMU (TCG, no guest) with `image` as its disk vda."""

    def __init__(self, folder, name, image, image_format="qcow2"):
        self.image, self.format = image, image_format
        self.socket = Path(folder) / f"{name}.qmp"
        ours = Path(folder) / f"{name}.ours"
        self.log = Path(folder) / f"{name}.log"
        self.scratch = Path(folder) / f"{name}.scratch"
        self.scratch.mkdir()
        with open(self.log, "ab") as out:
            self.qemu = subprocess.Popen(
                self.arguments(name, ours), stdin=subprocess.DEVNULL,
                stdout=out, stderr=out)
        try:
            wait_for(lambda: self.started(ours), f"QEMU {name}")
            self.qmp = Qmp(ours)
        except BaseException:
            stop(self.qemu)
            raise

    def arguments(self, name, ours):
        return [
            QEMU, "-name", name, "-machine", "q35", "-accel", "tcg", "-m",
            "64", "-nodefaults", "-display", "none", "-S",
            "-qmp", f"unix:{self.socket},server=on,wait=off",
            "-qmp", f"unix:{ours},server=on,wait=off",
            "-blockdev", f"driver=file,node-name=file0,filename={self.image},"
            "discard=unmap",
            "-blockdev", f"driver={self.format},node-name=disk0,file=file0,"
            "discard=unmap",
            "-device", "virtio-blk-pci,drive=disk0,id=vda"]

    def started(self, ours):
        if self.qemu.poll() is not None:
            raise Failed(f"QEMU ended: {self.log.read_text()}")
        return ours.exists() and self.socket.exists()

    def servers(self):
        return {"qemu": self.qemu.pid}

    def write(self, writes):
        """Do the round's writes the guest's way, through its device."""
        device = "/machine/peripheral/vda/virtio-backend"
        for command in writes.commands():
            self.qmp.call("human-monitor-command", **{
                "command-line": f'qemu-io -d {device} "{command}"'})

    def bitmaps(self):
        """{(node, name)} of Tidemark's bitmaps."""
        return {(node["node-name"], bitmap["name"])
                for node in self.qmp.call("query-named-block-nodes")
                for bitmap in node.get("dirty-bitmaps", [])
                if bitmap.get("name", "").startswith("tidemark-")}

    def drop_bitmaps(self, names):
        """Forget the tracking of a repository that is gone."""
        for node, name in names & self.bitmaps():
            self.qmp.call("block-dirty-bitmap-remove", node=node, name=name)

    def close(self):
        if hasattr(self, "qmp"):
            self.qmp.close()
        stop(self.qemu)


class Repository:
    """One Tidemark repository, filled from one machine."""

    def __init__(self, program, path, machine, level=None, init=(), env=None):
        self.path, self.machine, self.init = path, machine, init
        self.program = program
        self.prefix = ["env", *(f"{k}={v}" for k, v in env.items()),
                       program] if env else [program]
        self.options = [] if level is None else ["--compress", str(level)]

    @property
    def repo(self):
        return self.path

    def create(self):
        shutil.rmtree(self.path, ignore_errors=True)
        check([*self.prefix, "init", *self.init, self.path])

    def backup(self, _image=None):
        return [*self.prefix, "backup", f"qmp:{self.machine.socket}",
                "--name", NAME, "--repo", self.path, "--json",
                "--scratch", self.machine.scratch, *self.options]

    def restore(self, target, image_format, spec=f"{NAME}@latest"):
        return [*self.prefix, "restore", spec, "--repo",
                self.path, "--to", target, "--format", image_format]

    def verify(self):
        return [*self.prefix, "verify", "--repo", self.path]


class TidemarkDisk:
    """One paused QEMU, and its repositories by their level of zstd."""

    def __init__(self, bench, name, image, labels):
        self.bench, self.image = bench, image
        self.machine = bench.opened(Machine(bench.sockets, name, image))
        self.write = self.machine.write
        self.repositories = {
            label: Repository(bench.options.program,
                              bench.work / f"repo-{name}-{level}",
                              self.machine, level)
            for label, level in labels.items()}
        self.bitmaps = {}       # of the repositories that have a full backup

    def full_case(self, label):
        repository = self.repositories[label]
        before = set()

        def prepare(_):
            self.machine.drop_bitmaps(self.bitmaps.pop(label, set()))
            repository.create()
            before.update(self.machine.bitmaps())
            return self.backup_job(repository)

        def finish(_round, _job, sample, log):
            self.bitmaps[label] = self.machine.bitmaps() - before
            note_backup(sample, log)
        return Case(label, prepare, finish)

    def full_cases(self):
        return [self.full_case(label) for label in self.repositories]

    def ensure_full(self):
        for label in self.repositories:
            if label not in self.bitmaps:
                self.bench.once("base", self.full_case(label))

    def inc_cases(self, writes):
        def finish(number, _job, sample, log):
            note_backup(sample, log)
            if sample.extra["dirty_bytes"] < writes(number).bytes:
                raise Failed("fewer dirty bytes than were written: "
                             f"{sample.extra}")
        return [Case(label, lambda _, r=repository: self.backup_job(r), finish)
                for label, repository in self.repositories.items()]

    def backup_job(self, repository):
        return Job(repository.backup(), repository.path,
                   self.machine.servers(), self.image)

    def restore_cases(self, formats=("qcow2",)):
        return [self.restore_case(label, image_format)
                for label in self.repositories for image_format in formats]

    def restore_case(self, label, image_format):
        def prepare(_):
            target = self.bench.folder("restored")
            return Job(self.repositories[label].restore(target, image_format),
                       target)

        def finish(number, job, sample, _log):
            if number == 0:
                same_contents(self.image, restored_image(job.target),
                              image_format)
                sample.extra["verified"] = True
        return Case(f"{label}, to {image_format}", prepare, finish)


def note_backup(sample, log):
    """Keep what the backup said of itself."""
    event = committed(log)
    keys = ("read_bytes", "dirty_bytes", "new_bytes", "stored_bytes")
    sample.extra.update({key: event["disks"][0].get(key) for key in keys})
    sample.extra["warnings"] = event.get("warnings", [])


def committed(log):
    """The "committed" event of the backup that wrote `log`."""
    for line in reversed(Path(log).read_text(errors="replace").splitlines()):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and event.get("event") == "committed":
            return event
    raise Failed(f"{log}: no line says that the backup was committed")


def restored_image(target):
    """The one disk image that a restore left in `target`."""
    found = [p for p in Path(target).iterdir()
             if p.suffix in (".qcow2", ".raw", ".img")]
    if len(found) != 1:
        raise Failed(f"{target}: {len(found)} images, 1 expected")
    return found[0]
