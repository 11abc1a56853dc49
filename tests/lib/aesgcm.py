"""AES-256-GCM in plain Python, from FIPS 197 and NIST SP 800-38D.

Slow, and independent of the libraries that the program uses: what the tests
compare it with.  The vectors at the end are those of the GCM specification
(test cases 13 to 16).

    seal(key, nonce, aad, plain) -> cipher || tag
    open_(key, nonce, aad, sealed) -> plain, or ValueError
"""


def _tables():
    """S-box, from inverses in GF(2^8)."""
    exp, log = [0] * 512, [0] * 256
    x = 1
    for i in range(255):
        exp[i] = exp[i + 255] = x
        log[x] = i
        x ^= (x << 1) ^ (0x11b if x & 0x80 else 0)
        x &= 0xff
    box = []
    for v in range(256):
        b = exp[255 - log[v]] if v else 0
        s = 0x63
        for k in range(5):
            s ^= ((b << k) | (b >> (8 - k))) & 0xff
        box.append(s)
    return box


SBOX = _tables()


def _double(x):
    return ((x << 1) ^ (0x1b if x & 0x80 else 0)) & 0xff


def _expand(key):
    words = [list(key[4 * i:4 * i + 4]) for i in range(8)]
    rcon = 1
    for i in range(8, 60):
        t = list(words[-1])
        if i % 8 == 0:
            t = [SBOX[b] for b in t[1:] + t[:1]]
            t[0] ^= rcon
            rcon = _double(rcon)
        elif i % 8 == 4:
            t = [SBOX[b] for b in t]
        words.append([a ^ b for a, b in zip(words[-8], t)])
    return [sum(words[4 * r:4 * r + 4], []) for r in range(15)]


def _encrypt(rounds, block):
    s = [a ^ b for a, b in zip(block, rounds[0])]
    for r in range(1, 15):
        s = [SBOX[s[(i + 4 * (i % 4)) % 16]] for i in range(16)]
        if r < 14:
            mixed = []
            for c in range(0, 16, 4):
                col = s[c:c + 4]
                total = col[0] ^ col[1] ^ col[2] ^ col[3]
                for k in range(4):
                    mixed.append(col[k] ^ total
                                 ^ _double(col[k] ^ col[(k + 1) % 4]))
            s = mixed
        s = [a ^ b for a, b in zip(s, rounds[r])]
    return bytes(s)


def _times(x, y):
    """Product in GF(2^128), GCM's order of bits."""
    z = 0
    for i in range(127, -1, -1):
        if x >> i & 1:
            z ^= y
        y = (y >> 1) ^ (0xe1 << 120 if y & 1 else 0)
    return z


def _ghash(h, aad, cipher):
    table = []          # h times each value of each byte's place, by need
    y = 0

    def pad(b):
        return b + bytes(-len(b) % 16)
    lengths = (8 * len(aad)).to_bytes(8, "big") \
        + (8 * len(cipher)).to_bytes(8, "big")
    data = pad(aad) + pad(cipher) + lengths
    for place in range(16):
        base = [_times(1 << (8 * place + bit), h) for bit in range(8)]
        row = [0] * 256
        for v in range(1, 256):
            low = v & -v
            row[v] = row[v ^ low] ^ base[low.bit_length() - 1]
        table.append(row)
    for i in range(0, len(data), 16):
        y ^= int.from_bytes(data[i:i + 16], "big")
        z = 0
        for place in range(16):
            z ^= table[place][y >> (8 * place) & 0xff]
        y = z
    return y.to_bytes(16, "big")


def _crypt(rounds, nonce, data):
    out = bytearray()
    for i in range(0, len(data), 16):
        pad = _encrypt(rounds, nonce + (i // 16 + 2).to_bytes(4, "big"))
        out += bytes(a ^ b for a, b in zip(data[i:i + 16], pad))
    return bytes(out)


def _tag(rounds, nonce, aad, cipher):
    h = int.from_bytes(_encrypt(rounds, bytes(16)), "big")
    mask = _encrypt(rounds, nonce + b"\0\0\0\1")
    return bytes(a ^ b for a, b in zip(_ghash(h, aad, cipher), mask))


def seal(key, nonce, aad, plain):
    rounds = _expand(key)
    cipher = _crypt(rounds, nonce, plain)
    return cipher + _tag(rounds, nonce, aad, cipher)


def open_(key, nonce, aad, sealed):
    rounds = _expand(key)
    cipher, tag = sealed[:-16], sealed[-16:]
    if _tag(rounds, nonce, aad, cipher) != tag:
        raise ValueError("the tag does not fit")
    return _crypt(rounds, nonce, cipher)


def self_test():
    key = bytes.fromhex("feffe9928665731c6d6a8f9467308308") * 2
    nonce = bytes.fromhex("cafebabefacedbaddecaf888")
    plain = bytes.fromhex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255")
    aad = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
    cipher = bytes.fromhex(
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
        "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad")
    zero = bytes(32)
    assert seal(zero, bytes(12), b"", b"").hex() == \
        "530f8afbc74536b9a963b4f1c4cb738b"
    assert seal(zero, bytes(12), b"", bytes(16)).hex() == \
        "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"
    assert seal(key, nonce, b"", plain) == cipher + bytes.fromhex(
        "b094dac5d93471bdec1a502270e3cc6c")
    assert seal(key, nonce, aad, plain[:60]) == cipher[:60] + bytes.fromhex(
        "76fc6ece0f4e1768cddf8853bb2d551b")
    assert open_(key, nonce, aad, seal(key, nonce, aad, plain)) == plain


self_test()
