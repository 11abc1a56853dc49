#!/usr/bin/python3
"""Read disks out of a repository: written from docs/format.md alone.

    read-repo.py REPOSITORY                      list points
    read-repo.py REPOSITORY POINT DISK OUTPUT    write a disk (sparse)
    read-repo.py REPOSITORY POINT --config       print the configuration

It shares no code with the program, is slow, and checks everything that the page
asks a reader to check.  Section numbers below are those of the page.
"""
import bisect
import ctypes
import ctypes.util
import hashlib
import hmac
import json
import os
import re
import struct
import sys

M = (1 << 64) - 1
P1, P2, P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
P4, P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5
ZERO = bytes(32)
DATA, MAP, BLOB = 1, 2, 3
LABELS = {DATA: b"data id", MAP: b"map id", BLOB: b"blob id"}


class Bad(Exception):
    pass


def check(ok, *words):
    if not ok:
        raise Bad(" ".join(str(w) for w in words))


# -- 1 conventions -----------------------------------------------------------

def rotl(x, n):
    return ((x << n) | (x >> (64 - n))) & M


def xxh_round(acc, lane):
    return rotl((acc + lane * P2) & M, 31) * P1 & M


def xxh64(b):
    n, i = len(b), 0
    if n >= 32:
        v = [(P1 + P2) & M, P2, 0, -P1 & M]
        while i + 32 <= n:
            for k, lane in enumerate(struct.unpack_from("<4Q", b, i)):
                v[k] = xxh_round(v[k], lane)
            i += 32
        h = sum(rotl(v[k], r) for k, r in enumerate((1, 7, 12, 18))) & M
        for lane in v:
            h = ((h ^ xxh_round(0, lane)) * P1 + P4) & M
    else:
        h = P5
    h = (h + n) & M
    while i + 8 <= n:
        h ^= xxh_round(0, struct.unpack_from("<Q", b, i)[0])
        h = (rotl(h, 27) * P1 + P4) & M
        i += 8
    if i + 4 <= n:
        h ^= struct.unpack_from("<I", b, i)[0] * P1 & M
        h = (rotl(h, 23) * P2 + P3) & M
        i += 4
    for byte in b[i:]:
        h = rotl(h ^ byte * P5 & M, 11) * P1 & M
    for shift, mul in ((33, P2), (29, P3), (32, 1)):
        h = (h ^ h >> shift) * mul & M
    return h


def mac(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


zstd = ctypes.CDLL(ctypes.util.find_library("zstd") or "libzstd.so.1")
zstd.ZSTD_decompress.restype = ctypes.c_size_t
zstd.ZSTD_getFrameContentSize.restype = ctypes.c_ulonglong


def unzstd(data, size=None, limit=1 << 28):
    if size is None:
        size = zstd.ZSTD_getFrameContentSize(data, ctypes.c_size_t(len(data)))
        check(size <= limit, "compressed text claims", size, "bytes")
    out = ctypes.create_string_buffer(size + 1)
    n = zstd.ZSTD_decompress(out, ctypes.c_size_t(size), data,
                             ctypes.c_size_t(len(data)))
    check(n == size, "does not decompress to", size, "bytes")
    return out.raw[:size]


# -- 7 index segments --------------------------------------------------------

class Segment:
    def __init__(self, b):
        check(len(b) >= 96 and b[:8] == b"TMINDEX\0", "no index segment")
        (ver, bits, _, _, n_packs, self.n, _, tables,
         head) = struct.unpack_from("<II16sIIIIQQ", b, 8)
        check(head == xxh64(b[:56]), "header checksum")
        check(ver == 1 and bits in (8, 16), "version", ver, "bits", bits)
        check(n_packs <= 1 << 24 and self.n <= 1 << 28, "counts")
        fan = 64 + 32 * n_packs
        sums = fan + (4 << bits)
        recs = sums + 8 * ((self.n + 127) // 128)
        check(len(b) == recs + 32 * self.n + 32, "length")
        check(tables == xxh64(b[64:recs]), "tables checksum")
        check(hashlib.sha256(b[:-32]).digest() == b[-32:], "SHA-256")
        self.packs = []
        for i in range(n_packs):
            sid, cls, seq = struct.unpack_from("<16sII", b, 64 + 32 * i)
            kind = {1: "data", 2: "meta"}[cls]
            self.packs.append("%s/%s/%08x" % (kind, sid.hex(), seq))
        self.fan = struct.unpack_from("<%dI" % (1 << bits), b, fan)
        check(list(self.fan) == sorted(self.fan) and self.fan[-1] == self.n,
              "fan-out")
        for i in range(0, self.n, 128):
            end = recs + 32 * min(i + 128, self.n)
            check(xxh64(b[recs + 32 * i:end]) ==
                  struct.unpack_from("<Q", b, sums + i // 16)[0], "block sum")
        self.bits = bits
        self.recs = [b[recs + 32 * i:recs + 32 * i + 32]
                     for i in range(self.n)]

    def find(self, ident):
        slot = int.from_bytes(ident[:2], "big") >> (16 - self.bits)
        lo = self.fan[slot - 1] if slot else 0
        i = bisect.bisect_left(self.recs, ident[:16], lo, self.fan[slot])
        if i == self.fan[slot] or self.recs[i][:16] != ident[:16]:
            return None
        pack, off, length, kind_raw = struct.unpack("<4I", self.recs[i][16:])
        return (self.packs[pack], off, length, kind_raw >> 28,
                kind_raw & 0xFFFFFFF)


# -- the repository ----------------------------------------------------------

class Repository:
    def __init__(self, path):
        self.path = path
        self.read_format()
        self.points, self.segments = {}, []
        for name in sorted(os.listdir(path + "/commit")):
            if re.fullmatch(r"[0-9a-f]{32}\.[1-9][0-9]*", name):
                self.read_commit("commit/" + name)

    def get(self, key, off=0, length=None):
        with open(os.path.join(self.path, key), "rb") as f:
            f.seek(off)
            b = f.read() if length is None else f.read(length)
        check(length is None or len(b) == length, key, "is too short")
        return b

    def read_format(self):                                          # 3
        b = self.get("format")
        line, rest = b.split(b"\n", 1)
        check(rest == b"sha256 %s\n" %
              hashlib.sha256(line + b"\n").hexdigest().encode(), "format sum")
        f = json.loads(line)
        check(f["magic"] == "tidemark repository" and f["major"] == 1 and
              f["hash"] == "hmac-sha256" and f["cipher"] == "none" and
              f["incompat"] == [], "unknown format", f)
        features = os.path.join(self.path, "feature")
        for name in os.listdir(features) if os.path.isdir(features) else ():
            check(name.startswith(("compat.", "ro-compat.")), "feature", name)
        secret = bytes.fromhex(f["secret"])
        self.keys = {k: mac(secret, b"tidemark " + v + b"\1")       # 4
                     for k, v in LABELS.items()}
        self.commit_key = mac(secret, b"tidemark commit\1")

    def read_commit(self, key):                                     # 9
        b = self.get(key)
        check(len(b) >= 56 and b[:8] == b"TMCOMMIT", key, "is no commit")
        check(hmac.compare_digest(mac(self.commit_key, b[:-32]), b[-32:]),
              key, "fails its authentication")
        ver, kind, n, zero = struct.unpack_from("<4I", b, 8)
        check(ver == 1 and zero == 0 and n == len(b) - 56, key, "header")
        payload = json.loads(unzstd(b[24:-32]))
        if kind != 1:
            return
        for part in payload["index"]:
            s = self.get(part["key"])
            check(len(s) == part["len"] and part["sha256"] ==
                  hashlib.sha256(s).hexdigest(), part["key"], "was changed")
            self.segments.append(Segment(s))
        point = payload["point"]
        check(key == "commit/%s.1" % point["id"], key, "has another id")
        self.points[point["id"]] = point

    def fetch(self, kind, ident, length):                           # 5
        if ident == ZERO:
            return bytes(length)
        for s in reversed(self.segments):
            where = s.find(ident)
            if where:
                break
        else:
            raise Bad("%s is in no index" % ident.hex())
        key, off, size, rec_kind, raw = where
        f = self.get(key, off, size)
        (magic, ver, fkind, codec, flags, raw_len, stored, fid, nonce, slot,
         res, xxh) = struct.unpack("<4s4BII32s12sB3sQ", f[:72])
        check(magic == b"TMFR" and xxh == xxh64(f[:64]), key, off, "header")
        check(ver == 1 and flags == 0 and slot == 0 and not any(nonce + res),
              key, off, "needs a newer reader")
        check(fkind == rec_kind == kind and raw_len == raw == length and
              stored == size - 72 and fid == ident, key, off, "differs")
        check(codec in (0, 1), key, off, "codec", codec)
        data = f[72:] if codec == 0 else unzstd(f[72:], raw_len)
        check(len(data) == length and mac(self.keys[kind], data) == ident,
              key, off, "does not match its id")
        return data

    def walk(self, page, level, no, n_chunks):                      # 8
        """(index, id) of each chunk that is not zero."""
        if page == ZERO:
            return
        b = self.fetch(MAP, page, 2048)
        check(any(b), "empty page")
        for slot in range(64):
            ident, sub = b[32 * slot:32 * slot + 32], no * 64 + slot
            check(ident == ZERO or sub * 64 ** level < n_chunks, "map too big")
            if level:
                yield from self.walk(ident, level - 1, sub, n_chunks)
            elif ident != ZERO:
                yield sub, ident

    def write_disk(self, disk, output):
        size, cs = disk["size"], disk["chunk_size"]
        n_chunks, height = -(-size // cs), 1
        while 64 ** height < n_chunks:
            height += 1
        with open(output, "wb") as out:
            out.truncate(size)
            for i, ident in self.walk(bytes.fromhex(disk["root"]), height - 1,
                                      0, n_chunks):
                out.seek(i * cs)
                out.write(self.fetch(DATA, ident, min(cs, size - i * cs)))


def main(argv):
    r = Repository(argv[1])
    if len(argv) == 2:
        for p in sorted(r.points.values(),
                        key=lambda p: (p["machine"], p["seq"], p["id"])):
            print(p["id"], p["machine"], p["seq"],
                  *("%s:%d" % (d["name"], d["size"]) for d in p["disks"]))
        return
    p = r.points[argv[2]]
    if argv[3] == "--config":
        blob = r.fetch(BLOB, bytes.fromhex(p["config"]), p["config_len"])
        sys.stdout.buffer.write(blob)
        return
    disk = next(d for d in p["disks"] if d["name"] == argv[3])
    r.write_disk(disk, argv[4])


if __name__ == "__main__":
    try:
        main(sys.argv)
    except Bad as e:
        sys.exit("read-repo: %s" % e)
