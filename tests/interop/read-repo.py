#!/usr/bin/python3
"""Read disks out of a repository: written from docs/format.md alone.

    read-repo.py REPOSITORY                      list points
    read-repo.py REPOSITORY POINT DISK OUTPUT    write a disk (sparse)
    read-repo.py REPOSITORY POINT --config       print the configuration
    read-repo.py REPOSITORY --check              look at the chains of points
With --no-index behind REPOSITORY it reads the tables of packs instead of index
segments; with --paper FILE it opens an encrypted repository with its paper key,
with --passphrase FILE with the passphrase that is all of FILE (needs libsodium).

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

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
import aesgcm  # noqa: E402  (AES-GCM in plain Python)

M = (1 << 64) - 1
P1, P2, P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
P4, P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5
ZERO = bytes(32)
DATA, MAP, BLOB, RECORD = 1, 2, 3, 0
LABELS = {DATA: b"data id", MAP: b"map id", BLOB: b"blob id"}
SEAL_LABELS = {k: b"tidemark %s encryption\1" % v for k, v in
               {DATA: b"data", MAP: b"map", BLOB: b"blob",
                RECORD: b"record"}.items()}


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
        """All records: an id may have several."""
        slot = int.from_bytes(ident[:2], "big") >> (16 - self.bits)
        lo = self.fan[slot - 1] if slot else 0
        i = bisect.bisect_left(self.recs, ident[:16], lo, self.fan[slot])
        while i < self.fan[slot] and self.recs[i][:16] == ident[:16]:
            pack, off, length, kind_raw = struct.unpack("<4I",
                                                        self.recs[i][16:])
            yield (self.packs[pack], off, length, kind_raw >> 28,
                   kind_raw & 0xFFFFFFF)
            i += 1


# -- 6 packs -----------------------------------------------------------------

class Tables:
    """The tables of packs in the place of a segment."""

    def __init__(self):
        self.recs = {}

    def add(self, key, b):
        check(128 <= len(b) <= 1 << 30 and b[:8] == b"TMPACK\0\0" and
              b[-64:-56] == b"TMPACKE\0", key, "is no pack")
        ver, cls, sid, seq = struct.unpack_from("<II16sI", b, 8)
        check(struct.unpack_from("<Q", b, 56)[0] == xxh64(b[:56]) and ver == 1,
              key, "header")
        check(key == "%s/%s/%08x" % ({1: "data", 2: "meta"}[cls], sid.hex(),
                                     seq), key, "has another's name")
        ver, n, off, sha, xxh = struct.unpack_from("<IIQ32sQ", b, len(b) - 56)
        check(xxh == xxh64(b[-64:-8]) and ver == 1 and off >= 64 and
              off + 48 * n + 64 == len(b), key, "footer")
        check(hashlib.sha256(b[off:-64]).digest() == sha, key, "table")
        for i in range(n):
            ident, at, length, raw, kind = struct.unpack_from(
                "<32s4I", b, off + 48 * i)
            check(at >= 64 and at + length <= off and
                  (kind == DATA) == (cls == 1), key, "entry", i)
            self.recs.setdefault(ident, []).append((key, at, length, kind,
                                                    raw))

    def find(self, ident):
        return self.recs.get(ident, [])


# -- the repository ----------------------------------------------------------

def unseal(key, nonce, aad, sealed, *where):
    try:
        return aesgcm.open_(key, nonce, aad, sealed)
    except ValueError as e:
        raise Bad(" ".join(map(str, where + (e,)))) from e


def paper_key(text, repo):                                          # 4.2
    """The master key, from the lines of a paper key."""
    def bits(data, width):
        return [int(c) for v in data for c in format(v, "0%db" % width)]

    def number(b):
        return int("".join(map(str, b)), 2)
    alphabet, prefix = "qpzry9x8gf2tvdw0s3jn54khce6mua7l", b"tidemark"
    words = [line.split() for line in text.lower().splitlines()]
    check(["repository", repo] in words, "paper key of another repository")
    ident = bits(bytes.fromhex(repo), 8) + [0, 0]
    key = b""
    for line in words:
        if not line or line[0] not in ("1", "2", "3", "4"):
            continue
        values = [alphabet.index(c) for c in "".join(line[1:])]
        check(len(values) == 19 and int(line[0]) == len(key) // 8 + 1,
              "paper key: line", line[0])
        c = 1
        for v in ([x >> 5 for x in prefix] + [0] + [x & 31 for x in prefix] +
                  [int(line[0])] +
                  [number(ident[i:i + 5]) for i in range(0, 130, 5)] + values):
            top, c = c >> 25, (c & 0x1ffffff) << 5 ^ v
            for k, g in enumerate((0x3b6a57b2, 0x26508e6d, 0x1ea119fa,
                                   0x3d4233dd, 0x2a1462b3)):
                c ^= g if top >> k & 1 else 0
        check(c == 0x2bc830a3, "paper key: typing error in line", line[0])
        key += number(bits(values[:13], 5)[:64]).to_bytes(8, "big")
    check(len(key) == 32, "paper key: lines are missing")
    return key


def two_lines(b, what):                                             # 3
    """The JSON object of a text with a sum, and that sum."""
    line, rest = b.split(b"\n", 1)
    digest = hashlib.sha256(line + b"\n").hexdigest()
    check(rest == b"sha256 %s\n" % digest.encode(), what, "sum")
    return json.loads(line), digest


def argon2id(passphrase, salt, ops, mem):
    """32 bytes, by libsodium."""
    out = ctypes.create_string_buffer(32)
    name = ctypes.util.find_library("sodium")
    check(name, "libsodium is needed for a passphrase")
    check(ctypes.CDLL(name).crypto_pwhash(
        out, ctypes.c_ulonglong(32), passphrase,
        ctypes.c_ulonglong(len(passphrase)), salt, ctypes.c_ulonglong(ops),
        ctypes.c_size_t(mem), 2) == 0, "Argon2id")
    return out.raw


def slot_key(b, name, repo, format_sum, passphrase):                # 4.1
    """The master key in a key slot; Bad with another passphrase."""
    s, _ = two_lines(b, name)
    check(s["magic"] == "tidemark key" and s["version"] == 1 and
          s["kdf"] == "argon2id13" and s["cipher"] == "aes-256-gcm", name,
          "unknown")
    check(s["slot"] == name and s["repository"] == repo and
          s["format"] == format_sum, name, "is of another place")
    ops, mem, label = s["ops"], s["mem"], s["label"].encode()
    check(1 <= ops <= 16 and 8192 <= mem <= 1 << 30 and mem % 1024 == 0 and
          len(label) <= 64, name, "limits")
    salt = bytes.fromhex(s["salt"])
    aad = (b"tidemark key slot\0" + bytes.fromhex(repo) + name.encode() +
           struct.pack("<QQ", ops, mem) + salt + bytes.fromhex(format_sum) +
           struct.pack("<Q", s["time_ns"]) + label)
    return unseal(argon2id(passphrase, salt, ops, mem),
                  bytes.fromhex(s["nonce"]), aad, bytes.fromhex(s["wrapped"]),
                  "key slot", name)


def pack_set(j):                                                    # 9.1
    """The keys of a set of packs."""
    return {"%s/%s/%08x" % (kind, sid, seq)
            for sid, kinds in j.items() for kind in ("data", "meta")
            for first, last in kinds.get(kind, [])
            for seq in range(first, last + 1)}


SID = "[0-9a-f]{32}"


class Repository:
    def __init__(self, path, use_index=True, paper=None, passphrase=None):
        self.paper, self.passphrase = paper, passphrase
        self.path, self.use_index = path, use_index
        self.read_format()
        for _ in range(10):
            try:
                self.read_commits()
                return
            except FileNotFoundError:   # a collector has just removed it
                continue
        raise Bad("commit objects vanish while they are read")

    def list(self, kind):
        try:
            return sorted(os.listdir(os.path.join(self.path, kind)))
        except FileNotFoundError:
            return []

    def read_commits(self):                                      # 11, 13.4
        self.points, self.segments, self.sums, self.bad = {}, [], {}, []
        self.gone, self.removed = set(), set()
        gone_index, commits = set(), {}
        # This first: a point whose commit object is found must not have been
        # forgotten and collected in between.
        self.forgotten = {n for n in self.list("forget")
                          if re.fullmatch(SID, n)}
        for name in self.list("commit"):
            if not re.fullmatch(SID + r"\.[1-9][0-9]*", name):
                continue
            try:
                payload = self.read_commit("commit/" + name)
            except Bad as e:
                self.bad.append(str(e))
                continue
            if payload is None:
                continue
            commits[name] = payload
            gone = payload.get("gone", {})
            self.gone |= pack_set(gone.get("packs", {}))
            gone_index |= set(gone.get("index", []))
            self.removed |= set(gone.get("removed", []))
        tables = Tables()
        for name, payload in commits.items():
            if name[:32] in self.removed:
                continue
            if "point" in payload:
                self.points[name[:32]] = payload["point"]
            if self.use_index:
                self.open_segments(payload, gone_index)
            else:
                self.open_packs(payload, tables)
        if not self.use_index:
            self.segments.append(tables)

    def living(self):
        return [p for i, p in self.points.items()
                if i not in self.forgotten and not p.get("partial")]    # 10.3

    def open_segments(self, payload, gone_index):                   # 7
        for part in payload["index"]:
            if part["key"] not in gone_index:
                self.segments.append(Segment(self.named(part)))

    def open_packs(self, payload, tables):                          # 12
        parts = list(payload["packs"])
        for more in payload.get("pack_lists", []):
            self.named(more)
            found = self.record(more["key"], 6)["packs"]
            check(len(found) == more["n"], more["key"], "has", len(found))
            parts += found
        for part in parts:
            if part["key"] not in self.gone:
                tables.add(part["key"], self.named(part))

    def named(self, part):
        """An object that a commit object names, with its length and sum."""
        b = self.get(part["key"])
        check(len(b) == part["len"] and part["sha256"] ==
              hashlib.sha256(b).hexdigest(), part["key"], "was changed")
        return b

    def get(self, key, off=0, length=None):
        with open(os.path.join(self.path, key), "rb") as f:
            f.seek(off)
            b = f.read() if length is None else f.read(length)
        check(length is None or len(b) == length, key, "is too short")
        return b

    def read_format(self):                                          # 3
        f, digest = two_lines(self.get("format"), "format")
        check(f["magic"] == "tidemark repository" and f["major"] == 1 and
              f["hash"] == "hmac-sha256" and
              f["cipher"] in ("none", "aes-256-gcm") and
              f["incompat"] == [], "unknown format", f)
        features = os.path.join(self.path, "feature")
        for name in os.listdir(features) if os.path.isdir(features) else ():
            check(name.startswith(("compat.", "ro-compat.")), "feature", name)
        self.sealed = f["cipher"] != "none"
        self.id = bytes.fromhex(f["id"])
        if self.sealed:
            secret = self.master_key(f, digest)
            check(mac(secret, b"tidemark key check\1")[:16].hex() == f["check"],
                  "the key is another repository's")
        else:
            secret = bytes.fromhex(f["secret"])
        self.seal = {k: mac(secret, SEAL_LABELS[k]) for k in SEAL_LABELS}
        self.keys = {k: mac(secret, b"tidemark " + v + b"\1")       # 4
                     for k, v in LABELS.items()}
        self.commit_key = mac(secret, b"tidemark commit\1")

    def master_key(self, f, digest):
        if self.paper is not None:
            return paper_key(self.paper, f["id"])
        check(self.passphrase is not None,
              "encrypted: use --paper FILE or --passphrase FILE")
        why = "no key slot"
        for name in sorted(os.listdir(os.path.join(self.path, "key"))):
            if not re.fullmatch("[0-9a-f]{16}", name):
                continue
            try:
                return slot_key(self.get("key/" + name), name, f["id"], digest,
                                self.passphrase)
            except Bad as e:
                why = e
        raise Bad("no key slot opens: %s" % why)

    def open_frame(self, key):                                      # 9
        b = self.get(key)
        check(len(b) >= 56 and b[:8] == b"TMCOMMIT", key, "is no commit")
        check(hmac.compare_digest(mac(self.commit_key, b[:-32]), b[-32:]),
              key, "fails its authentication")
        ver, kind, n, cipher = struct.unpack_from("<4I", b, 8)
        check(ver == 1 and cipher == self.sealed and n == len(b) - 56, key,
              "header")
        self.sums[key] = hashlib.sha256(b).hexdigest()
        payload = b[24:-32]
        if self.sealed:
            payload = unseal(self.seal[RECORD], payload[:12],
                             self.id + b[:24], payload[12:], key)
        return kind, json.loads(unzstd(payload))

    def record(self, key, want):                                    # 9.1
        kind, payload = self.open_frame(key)
        check(kind == want and payload["object"] == key, key,
              "is in the place of another")
        return payload

    def read_commit(self, key):
        """The payload of a COMMIT, None of a fence."""
        kind, payload = self.open_frame(key)
        check(kind in (1, 2), key, "is of type", kind)
        check(payload["session"] == key[7:39], key, "is another session's")
        if kind == 2:
            return None
        check("point" not in payload or
              key == "commit/%s.1" % payload["point"]["id"], key,
              "has another's point")
        return payload

    def problems(self):                                     # 10.1, 13.4
        yield from self.bad
        for ident, p in self.points.items():
            parent = self.points.get(p["parent"])
            if parent is None:
                if p["parent"] not in self.removed | {""}:
                    yield "%s: its parent %s is missing" % (ident, p["parent"])
            elif (p["prev"] != self.sums["commit/%s.1" % p["parent"]] or
                  parent["machine"] != p["machine"] or
                  parent["seq"] >= p["seq"]):
                yield "%s: its parent %s is not what it was" % (ident,
                                                                p["parent"])

    def fetch(self, kind, ident, length):
        if ident == ZERO:
            return bytes(length)
        why = Bad("%s is in no index" % ident.hex())
        for s in reversed(self.segments):
            for where in s.find(ident):
                try:
                    check(where[0] not in self.gone, where[0], "is gone")
                    return self.frame(kind, ident, length, where)
                except (Bad, FileNotFoundError) as e:   # try the next one
                    why = Bad(str(e))
        raise why

    def frame(self, kind, ident, length, where):                    # 5
        key, off, size, rec_kind, raw = where
        f = self.get(key, off, size)
        (magic, ver, fkind, codec, flags, raw_len, stored, fid, nonce, slot,
         res, xxh) = struct.unpack("<4s4BII32s12sB3sQ", f[:72])
        check(magic == b"TMFR" and xxh == xxh64(f[:64]), key, off, "header")
        check(ver == 1 and flags == 0 and slot == self.sealed and
              not any(res) and (self.sealed or not any(nonce)),
              key, off, "needs a newer reader")
        check(fkind == rec_kind == kind and raw_len == raw == length and
              stored == size - 72 and fid == ident, key, off, "differs")
        check(codec in (0, 1), key, off, "codec", codec)
        data = f[72:]
        if self.sealed:                                             # 5.1
            aad = self.id + struct.pack("<BBII32sB", kind, codec, raw_len,
                                        stored, fid, slot)
            data = unseal(mac(self.seal[kind], fid), nonce, aad, data,
                          key, off)
        if codec == 1:
            data = unzstd(data, raw_len)
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
    use_index = "--no-index" not in argv
    argv = [a for a in argv if a != "--no-index"]
    secrets = {"--paper": None, "--passphrase": None}
    for how in secrets:
        if how in argv:
            at = argv.index(how)
            with open(argv[at + 1], "rb") as f:
                secrets[how] = f.read()
            del argv[at:at + 2]
    paper = secrets["--paper"]
    r = Repository(argv[1], use_index,
                   paper.decode() if paper is not None else None,
                   secrets["--passphrase"])
    for problem in r.bad:
        print("read-repo: %s" % problem, file=sys.stderr)
    if len(argv) == 2:
        for p in sorted(r.living(),
                        key=lambda p: (p["machine"], p["seq"], p["id"])):
            print(p["id"], p["machine"], p["seq"],
                  *("%s:%d" % (d["name"], d["size"]) for d in p["disks"]))
        return
    if argv[2] == "--check":
        problems = list(r.problems())
        check(not problems, "; ".join(problems))
        return
    check(argv[2] in (p["id"] for p in r.living()), "no point", argv[2])
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
