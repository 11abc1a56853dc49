"""Several machines and the configuration that names them.

    f = Fleet(3)                      # vm01, vm02, vm03, each with one disk
    f.write("[defaults]\\nparallel = 2\\n")
    f.tm.run("run", "--json", env=f.env)
"""

import os

import images
import tap
from tidemark import Tidemark
from vm import Disk, QemuVM


class Fleet:
    def __init__(self, n, size="8M", repo="main"):
        self.dir = tap.tempdir("fleet")
        self.tm = Tidemark()
        self.repo = repo
        self.conf = self.dir + "/tidemark.conf"
        self.state = self.dir + "/state"
        self.extra = {}  # machine -> more lines of its section
        self.tm.env.pop("TIDEMARK_REPO")
        self.tm.env["TIDEMARK_CONFIG"] = self.conf
        self.tm.env["TIDEMARK_STATE"] = self.state
        self.tm.init()
        self.vms = {}
        for i in range(1, n + 1):
            self.add("vm%02d" % i, size)

    def add(self, name, size="8M", disk=None, args=()):
        path = "%s/%s.qcow2" % (self.dir, name)
        if disk is None:
            images.make(path, "qcow2", size)
            disk = Disk("vda", path, "qcow2")
        vm = QemuVM([disk], args, name=name, memory=16)
        self.vms[name] = vm
        return vm

    def start(self, *names):
        """Start them; each disk begins with something of its own."""
        for name in names or self.vms:
            vm = self.vms[name].start()
            vm.io("vda", "write -P 0x%02x 0 256k"
                  % (1 + sorted(self.vms).index(name)))

    def section(self, name):
        vm = self.vms[name]
        return "[machine %s]\nsource = %s\n%s\n" % (name, vm.address,
                                                    self.extra.get(name, ""))

    def write(self, defaults="", repository="", tail=""):
        with open(self.conf, "w") as f:
            f.write("[defaults]\nrepository = %s\n%s\n" % (self.repo, defaults))
            f.write("[repository %s]\npath = %s\n%s\n"
                    % (self.repo, self.tm.repo, repository))
            f.write("\n".join(self.section(n) for n in self.vms) + "\n" + tail)
        os.chmod(self.conf, 0o644)

    def run(self, *args, **kw):
        return self.tm.run("run", *args, **kw)

    def points(self, name=None):
        return self.tm.points(name)

    def leftovers(self):
        return {n: vm.leftovers() for n, vm in self.vms.items()
                if vm.alive() and vm.leftovers()}


def summary(r):
    """The last line of `run --json`."""
    last = r.events[-1] if r.events else {}
    tap.need(last.get("event") == "summary", "the last line is the summary", r)
    return last


def results(r):
    return {m["for"]: m for m in summary(r)["machines"]}
