"""The peers' side: virtnbdbackup under a private libvirtd, and QEMU's tools.

libvirtd runs in a mount namespace of its own, with its configuration, state
and sockets in one temporary directory, so that it meets no libvirtd of the
machine.  It listens on Unix sockets only.
"""
import os
import shlex
import shutil
import subprocess
from pathlib import Path

from bench_data import same_contents
from bench_tidemark import restored_image
from measure import Case, Failed, Job, check, stop, supervised, wait_for

LIBVIRTD = shutil.which("libvirtd", path=os.environ["PATH"] + ":/usr/sbin")
VIRTNBD = ("virtnbdbackup", "virtnbdrestore")

LIBVIRTD_CONF = """\
unix_sock_dir = "{dir}/sock"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "3:file:{dir}/libvirtd.log"
"""
QEMU_CONF = """\
stdio_handler = "file"
security_driver = "none"
user = "+0"
group = "+0"
dynamic_ownership = 0
remember_owner = 0
namespaces = [ ]
cgroup_controllers = [ ]
"""
PRIVATE = {"run": "/run/libvirt", "lib": "/var/lib/libvirt",
           "cache": "/var/cache/libvirt", "log": "/var/log/libvirt",
           "etc": "/etc/libvirt"}
START = "".join(f'mount --bind "$0/{ours}" {theirs} || exit 1\n'
                for ours, theirs in PRIVATE.items()) + """\
exec "$1" -p "$0/libvirtd.pid"
"""
DOMAIN = """\
<domain type='qemu'><name>{name}</name>
 <memory unit='MiB'>64</memory><vcpu>1</vcpu>
 <os><type arch='x86_64' machine='q35'>hvm</type></os>
 <features><acpi/></features>
 <devices><emulator>{qemu}</emulator>
  <disk type='file' device='disk'>
   <driver name='qemu' type='qcow2' discard='unmap'/>
   <source file='{image}'/><target dev='vda' bus='virtio'/></disk>
  <controller type='usb' model='none'/><memballoon model='none'/>
 </devices></domain>
"""


def missing_for_virtnbd():
    """Why virtnbdbackup cannot be measured here; None if it can."""
    if os.geteuid() != 0:
        return "a private libvirtd needs root"
    for program in (*VIRTNBD, "virsh", "unshare", "qemu-system-x86_64"):
        if not shutil.which(program):
            return f"{program} is not installed"
    return None if LIBVIRTD else "libvirtd is not installed"


class Libvirt:
    """A private libvirtd.

    It runs under a supervisor too, as its QEMUs are daemons that somebody has
    to reap: libvirtd waits 40 s for one that stays a zombie.
    """

    def __init__(self, folder):
        self.dir = Path(folder) / "lv"
        for name in (*PRIVATE, "sock"):
            (self.dir / name).mkdir(parents=True)
        self.made = [p for p in PRIVATE.values() if not Path(p).exists()]
        for path in self.made:
            Path(path).mkdir()
        (self.dir / "etc/libvirtd.conf").write_text(
            LIBVIRTD_CONF.format(dir=self.dir))
        (self.dir / "etc/qemu.conf").write_text(QEMU_CONF)
        sock = self.dir / "sock/libvirt-sock"
        self.uri = f"qemu:///system?socket={sock}"
        with open(self.dir / "out", "wb") as out:
            self.init = subprocess.Popen(
                supervised(["unshare", "-m", "--propagation", "private",
                            "sh", "-c", START, self.dir, LIBVIRTD],
                           out.fileno(), 0),
                pass_fds=[out.fileno()], stdin=subprocess.DEVNULL,
                stdout=out, stderr=out, start_new_session=True)
        try:
            wait_for(lambda: self.started(sock), "libvirtd")
            self.pid = int((self.dir / "libvirtd.pid").read_text())
            self.virsh("list")
        except BaseException:
            self.close()
            raise

    def started(self, sock):
        if self.init.poll() is not None:
            raise Failed("libvirtd ended: " + (self.dir / "out").read_text())
        return sock.exists()

    def virsh(self, *arguments, stdin=None):
        return check(["virsh", "-q", "-c", self.uri, *arguments],
                     stdin=stdin)

    def close(self):
        stop(self.init)
        for path in self.made:
            Path(path).rmdir()


class Domain:
    """A paused libvirt domain with `image` as its disk vda."""

    def __init__(self, libvirt, name, image):
        self.libvirt, self.name, self.image = libvirt, name, image
        xml = libvirt.dir / f"{name}.xml"
        xml.write_text(DOMAIN.format(
            name=name, image=image,
            qemu=shutil.which("qemu-system-x86_64")))
        libvirt.virsh("define", xml)
        try:
            libvirt.virsh("start", name, "--paused")
            pid_file = libvirt.dir / f"run/qemu/{name}.pid"
            self.pid = int(pid_file.read_text())
        except BaseException:
            self.close()
            raise

    def servers(self):
        return {"qemu": self.pid, "libvirtd": self.libvirt.pid}

    def write(self, writes):
        """Do the round's writes the guest's way, through its device."""
        device = "/machine/peripheral/virtio-disk0/virtio-backend"
        lines = [shlex.join(["qemu-monitor-command", self.name, "--hmp",
                             f'qemu-io -d {device} "{command}"'])
                 for command in writes.commands()]
        self.libvirt.virsh(stdin="\n".join(lines) + "\n")

    def close(self):
        try:
            if hasattr(self, "pid"):
                self.libvirt.virsh("destroy", self.name)
            self.libvirt.virsh("undefine", self.name,
                               "--checkpoints-metadata")
        except (Failed, subprocess.TimeoutExpired):
            pass  # what still runs ends with the supervisor of libvirtd


class VirtNbd:
    """A directory of virtnbdbackup's, filled from one domain."""

    def __init__(self, path, domain, compress=False):
        self.path, self.domain = path, domain
        self.scratch = domain.libvirt.dir / f"{domain.name}.scratch"
        self.scratch.mkdir(exist_ok=True)
        self.options = ["-z"] if compress else []

    def create(self):
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir()

    def backup(self, level):
        return ["virtnbdbackup", "-U", self.domain.libvirt.uri, "-n",
                "-d", self.domain.name, "-l", level, "-o", self.path,
                "-S", self.scratch, "-f", self.scratch / "nbd", *self.options]

    def restore(self, target):
        return ["virtnbdrestore", "-U", self.domain.libvirt.uri, "-n",
                "-i", self.path, "-o", target, "-f", self.scratch / "nbd.r",
                "-L", self.scratch / "restore.log"]


class VirtNbdDisk:
    """One paused domain on a copy of the image, and its backups."""

    def __init__(self, bench, name, image, label, compress=False):
        self.bench, self.label, self.compress = bench, label, compress
        self.image = bench.work / f"{name}.qcow2"
        check(["cp", "--reflink=auto", "--sparse=always", image, self.image])
        self.domain = bench.opened(Domain(bench.libvirt, name, self.image))
        self.write = self.domain.write
        self.backups = VirtNbd(bench.work / f"virtnbd-{name}", self.domain,
                               compress)
        self.filled = False

    def full_cases(self):
        def prepare(_):
            self.backups.create()
            return self.backup_job("full")

        def finish(*_):
            self.filled = True
        return [Case(self.label, prepare, finish)]

    def ensure_full(self):
        if not self.filled:
            self.bench.once("base", self.full_cases()[0])

    def inc_cases(self, writes):
        def finish(number, _job, sample, _log):
            least = writes(number).bytes // (3 if self.compress else 1)
            if sample.size < least:
                raise Failed(f"{sample.size} bytes more, {least} expected")
        return [Case(self.label, lambda _: self.backup_job("inc"), finish)]

    def backup_job(self, level):
        return Job(self.backups.backup(level), self.backups.path,
                   self.domain.servers(), self.image)

    def restore_cases(self):
        def prepare(_):
            target = self.bench.folder("restored")
            return Job(self.backups.restore(target), target)

        def finish(number, job, sample, _log):
            if number == 0:
                same_contents(self.image, restored_image(job.target), "qcow2")
                sample.extra["verified"] = True
        name = self.label.replace("virtnbdbackup", "virtnbdrestore")
        return [Case(name, prepare, finish)]


class QemuNbd:
    """A read-only NBD export of an image that a QEMU may have open."""

    def __init__(self, folder, image):
        sock = Path(folder) / "qemu-nbd"
        self.uri = f"nbd+unix:///?socket={sock}"
        self.child = subprocess.Popen(
            ["qemu-nbd", "--read-only", "--persistent", "--shared=8",
             f"--socket={sock}", "--image-opts",
             "driver=qcow2,force-share=on,file.driver=file,"
             f"file.filename={image}"], stdin=subprocess.DEVNULL)
        try:
            wait_for(lambda: self.started(sock), "qemu-nbd")
        except BaseException:
            self.close()
            raise

    def started(self, sock):
        if self.child.poll() is not None:
            raise Failed("qemu-nbd ended")
        return sock.exists()

    def servers(self):
        return {"qemu-nbd": self.child.pid}

    def close(self):
        stop(self.child)


def nbdcopy_null(uri):
    return ["nbdcopy", uri, "null:"]


def convert(image, to, image_format, *options):
    return ["qemu-img", "convert", "-U", "-f", "qcow2", "-O", image_format,
            *options, image, to]
