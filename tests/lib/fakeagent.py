"""A guest agent that behaves as badly as a test wants.

    fake = FakeAgent("silent")
    tm.run("backup", "qmp:...,agent=" + fake.path)
    fake.seen                   # commands, in order, over all connections

Modes: good; zero (freezes nothing); error (freeze fails); silent (freezes and
never answers again on that connection); late (the answer to the freeze takes
LATE seconds, everything else waits behind it, as with the real agent); garbage
(binary noise for an answer); huge (an endless line); nothaw (every thaw fails).
"""

import json
import os
import socket
import threading
import time

import images
import tap
from qmpsock import check_path


LATE = 14  # longer than the 10 s that Tidemark holds a freeze


class FakeAgent:
    def __init__(self, mode="good", late=LATE):
        self.late = late
        self.mode = mode
        self.seen = []
        self.frozen = False
        self.path = check_path(tap.tempdir("ga") + "/ga.sock")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(8)
        self.connections = []
        self.lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()
        tap.cleanup(self.close)

    def close(self):
        for s in [self.listener] + self.connections:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            s.close()
        if os.path.exists(self.path):
            os.unlink(self.path)

    def _accept(self):
        while True:
            try:
                conn, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(conn)
            threading.Thread(target=self._serve, args=(conn,),
                             daemon=True).start()

    def _serve(self, conn):
        silent, buf = False, b""
        try:
            while True:
                data = conn.recv(65536)
                if not data:
                    return
                buf += data
                while b"\n" in buf:
                    line, buf = buf.split(b"\n", 1)
                    silent |= self._line(conn, line.strip(b"\xff \r"), silent)
        except OSError:
            return

    def _line(self, conn, line, silent):
        """Answer one command; true: say no more on this connection."""
        try:
            msg = json.loads(line)
        except ValueError:
            return False
        name = msg.get("execute")
        with self.lock:
            self.seen.append(name)
            if name == "guest-fsfreeze-freeze" and self.mode in (
                    "good", "silent", "late", "garbage", "huge",
                    "nothaw"):
                self.frozen = True
            if name == "guest-fsfreeze-thaw" and self.mode != "nothaw":
                self.frozen = False
        if silent:
            return True
        if name == "guest-fsfreeze-freeze" and self.mode == "silent":
            return True
        if name == "guest-fsfreeze-freeze" and self.mode == "late":
            time.sleep(self.late)
        conn.sendall(self._answer(name, msg.get("arguments", {})))
        return False

    def _answer(self, name, args):
        bad = name == "guest-fsfreeze-freeze"
        if bad and self.mode == "garbage":
            return images.noise("agent", 100000) + b"\n"
        if bad and self.mode == "huge":
            return b'{"return": "' + b"x" * (8 << 20)
        if (bad and self.mode == "error") or (
                name == "guest-fsfreeze-thaw" and self.mode == "nothaw"):
            return self._json({"error": {"class": "GenericError",
                                         "desc": "not today"}})
        value = {
            "guest-sync-delimited": args.get("id"),
            "guest-sync": args.get("id"),
            "guest-fsfreeze-status": "frozen" if self.frozen else "thawed",
            "guest-fsfreeze-freeze": 0 if self.mode == "zero" else 1,
            "guest-fsfreeze-thaw": 1,
            "guest-get-fsinfo": [],
        }.get(name, {})
        head = b"\xff" if name == "guest-sync-delimited" else b""
        return head + self._json({"return": value})

    @staticmethod
    def _json(value):
        return json.dumps(value).encode() + b"\n"
