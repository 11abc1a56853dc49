"""A small QMP client for tests; every wait has a deadline."""

import json
import os
import socket
import time


class QmpError(Exception):
    """QEMU answered with an error; .cls is its class."""

    def __init__(self, command, error):
        super().__init__("%s: %s" % (command, error.get("desc")))
        self.cls = error.get("class")
        self.desc = error.get("desc")


class Qmp:
    def __init__(self, path, timeout=30, alive=lambda: True):
        """Connect to `path`, waiting for it to appear while alive()."""
        self.buf = b""
        self.events = []
        self.timeout = timeout
        end = time.monotonic() + timeout
        while True:
            self.sock = socket.socket(socket.AF_UNIX)
            try:
                self.sock.connect(path)
                break
            except OSError:
                self.sock.close()
                if not alive():
                    raise EOFError("QEMU ended before its socket was there")
                if time.monotonic() > end:
                    raise TimeoutError("no QMP socket at " + path)
                time.sleep(0.02)
        self._message(end)
        self.call("qmp_capabilities")

    def close(self):
        self.sock.close()

    def _message(self, end):
        while b"\n" not in self.buf:
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError("QMP: no answer in time")
            self.sock.settimeout(left)
            data = self.sock.recv(1 << 16)
            if not data:
                raise EOFError("QMP: the connection ended")
            self.buf += data
        line, self.buf = self.buf.split(b"\n", 1)
        return json.loads(line)

    def call(self, command, timeout=None, **args):
        """Send; underscores in argument names become hyphens.  Events that
        arrive meanwhile are kept for wait()."""
        end = time.monotonic() + (timeout or self.timeout)
        args = {k.replace("_", "-"): v for k, v in args.items()}
        msg = {"execute": command}
        if args:
            msg["arguments"] = args
        self.sock.sendall(json.dumps(msg).encode() + b"\n")
        while True:
            m = self._message(end)
            if "event" in m:
                self.events.append(m)
            elif "error" in m:
                raise QmpError(command, m["error"])
            else:
                return m["return"]

    def wait(self, event, match=lambda data: True, timeout=None):
        """The data of the next (or an already received) event."""
        end = time.monotonic() + (timeout or self.timeout)
        while True:
            for i, e in enumerate(self.events):
                if e["event"] == event and match(e.get("data", {})):
                    return self.events.pop(i).get("data", {})
            m = self._message(end)
            if "event" in m:
                self.events.append(m)


def check_path(path):
    """Unix socket addresses hold 107 characters."""
    if len(os.fsencode(path)) > 107:
        raise ValueError("socket path too long: " + path)
    return path
