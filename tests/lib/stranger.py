# SPDX-License-Identifier: LGPL-2.1-or-later
"""A reader of repositories made from docs/format/repository.rst alone: it shares nothing with the
program but zstd and xxHash, the libraries. Slow, and without mercy: whatever is not as the document
says is an AssertionError.

    repo = Stranger("/srv/repo")
    repo.points["3f…"]["disks"]
    data = repo.disk("3f…", "vda")       # bytes

Packs are read through their tables, index files are checked against those.
"""
from __future__ import annotations

import base64
import ctypes
import hashlib
import json
import os
import re
import struct

KINDS = {"chunk": 1, "node": 2, "delta": 3, "blob": 4, "config": 16, "point": 17, "lease": 18,
         "damage": 19}
ZERO = bytes(32)


class Libraries:
    """zstd and xxHash."""

    def __init__(self) -> None:
        self.zstd = ctypes.CDLL("libzstd.so.1")
        self.xxhash = ctypes.CDLL("libxxhash.so.0")
        self.zstd.ZSTD_decompress.restype = ctypes.c_size_t
        self.xxhash.XXH3_64bits.restype = ctypes.c_uint64

    def decompress(self, data: bytes, size: int) -> bytes:
        out = ctypes.create_string_buffer(size)
        length = self.zstd.ZSTD_decompress(out, ctypes.c_size_t(size), data,
                                           ctypes.c_size_t(len(data)))
        assert length == size, f"decompressed to {length} bytes, not {size}"
        return out.raw

    def xxh3(self, data: bytes) -> int:
        return self.xxhash.XXH3_64bits(data, ctypes.c_size_t(len(data)))


def object_id(kind: int, plain: bytes) -> bytes:
    inner = hashlib.sha256(plain).digest()
    return inner if kind == KINDS["chunk"] else hashlib.sha256(inner + bytes([kind])).digest()


class Stranger:
    def __init__(self, path: str) -> None:
        self.path = path
        self.lib = Libraries()
        self.objects: dict[bytes, tuple[str, int, int]] = {}  # id: file, offset, length
        config = json.loads(self.alone("config", "config"))
        assert config["format"] == 1 and config["requires"] == [] and config["encryption"] is None
        assert config["hash"] == "sha-256" and re.fullmatch("[0-9a-f]{32}", config["id"])
        self.config = config
        self.id = bytes.fromhex(config["id"])
        tables = {name: self.pack(name) for name in self.names("packs")}
        for name in self.names("index"):
            self.index(name, tables)
        self.points = {}
        for name in self.names("points"):
            point = json.loads(self.alone("point", f"points/{name}"))
            assert point["id"] == name and point["format"] == 1
            self.points[name] = point

    def names(self, folder: str) -> list[str]:
        found = []
        for base, _, names in os.walk(os.path.join(self.path, folder)):
            found += names
            for name in names if folder == "packs" else []:
                assert os.path.basename(base) == name[:2]
        return sorted(found)

    def read(self, *parts: str) -> bytes:
        with open(os.path.join(self.path, *parts), "rb") as file:
            return file.read()

    # --- records

    def record(self, data: bytes, kind: int | None = None) -> tuple[int, bytes, bytes]:
        """Kind, id and plain bytes of the record that `data` is."""
        checksum, magic, found, codec, seal, reserved, stored, plain, ident = struct.unpack_from(
            "<QIBBBBII32s", data)
        assert self.lib.xxh3(data[8:]) == checksum
        assert struct.pack("<I", magic) == b"TMKR" and (seal, reserved) == (0, 0)
        assert kind in (None, found) and found in KINDS.values() and codec in (0, 1)
        assert len(data) == 56 + stored and stored <= plain <= 16 << 20
        payload = data[56:]
        if codec == 1:
            payload = self.lib.decompress(payload, plain)
        assert len(payload) == plain and object_id(found, payload) == ident
        return found, ident, payload

    def alone(self, kind: str, name: str) -> bytes:
        return self.record(self.read(name), KINDS[kind])[2]

    def object(self, ident: bytes) -> tuple[int, bytes]:
        name, offset, length = self.objects[ident]
        with open(name, "rb") as pack:
            pack.seek(offset)
            kind, found, plain = self.record(pack.read(length))
        assert found == ident
        return kind, plain

    # --- packs and index files

    def pack(self, name: str) -> dict[bytes, tuple[int, int, int]]:
        """Of each object in the pack: where it begins, its length and kind."""
        path = os.path.join(self.path, "packs", name[:2], name)
        data = self.read(path)
        assert data[:16] == b"TMKPACK\n" + struct.pack("<II", 1, 0) and data[16:32] == self.id
        end = data[-64:]
        checksum, magic, at, entries, version, table_checksum, size, repo = struct.unpack(
            "<Q8sQIIQQ16s", end)
        assert checksum == self.lib.xxh3(end[8:]) and magic == b"TMKPEND\n" and version == 1
        assert size == len(data) and repo == self.id and at + entries * 48 + 64 == size
        table = data[at:-64]
        assert self.lib.xxh3(table) == table_checksum
        assert hashlib.sha256(table).hexdigest()[:32] == name[:32] and len(name) == 48
        found, begin = {}, 32
        for ident, offset, length, kind, codec, reserved in struct.iter_unpack("<32sQIBBH", table):
            assert offset == begin and reserved == 0
            begin += length
            assert self.record(data[offset:begin], kind)[1] == ident and data[offset + 13] == codec
            found[ident] = (offset, length, kind)
            self.objects[ident] = (path, offset, length)
        assert begin == at
        return found

    def index(self, name: str, tables: dict) -> None:
        data = self.read("index", name)
        checksum, magic, version, n_packs, entries, blocks, rest, repo = struct.unpack_from(
            "<Q8sIIQQQ16s", data)
        assert checksum == self.lib.xxh3(data[8:64]) and magic == b"TMKINDX\n" and version == 1
        assert rest == self.lib.xxh3(data[64:]) and repo == self.id
        at = 64 + 32 * n_packs
        packs = [(raw.hex(), size) for raw, size in struct.iter_unpack("<24sQ", data[64:at])]
        behind = at + 48 * entries
        filters = -(-behind // 64) * 64
        assert data[behind:filters] == bytes(filters - behind)
        assert len(data) == filters + 64 * blocks and blocks == max(1, -(-entries // 40))
        before = ZERO
        for ident, pack, length, place in struct.iter_unpack("<32sIIQ", data[at:behind]):
            assert before < ident
            before = ident
            block = struct.unpack_from("<Q", ident, 8)[0] * blocks >> 64
            bits = int.from_bytes(data[filters + 64 * block:][:64], "little")
            word, last = struct.unpack_from("<QQ", ident, 16)
            for bit in [word >> 9 * i & 511 for i in range(7)] + [last & 511]:
                assert bits >> bit & 1
            found = tables[packs[pack][0]][ident]
            assert found == (place & (1 << 56) - 1, length, place >> 56)

    # --- disks

    def node(self, ident: bytes, level: int) -> list[bytes]:
        """The 256 ids in a node."""
        kind, data = self.object(ident)
        assert data[0] == level and data[1] == 0 and data[4:8] == bytes(4)
        n = struct.unpack_from("<H", data, 2)[0]
        if kind == KINDS["delta"]:
            base, slots = data[8:40], data[40:40 + n]
            assert self.object(base)[0] == KINDS["node"] and 1 <= n <= 128
            assert list(slots) == sorted(set(slots)) and len(data) == 40 + 33 * n
            ids = self.node(base, level)
            for i, slot in enumerate(slots):
                ids[slot] = data[40 + n + 32 * i:][:32]
            return ids
        assert kind == KINDS["node"] and len(data) == 40 + 32 * n and n > 0
        present = int.from_bytes(data[8:40], "little")
        assert bin(present).count("1") == n
        rest = iter([data[at:at + 32] for at in range(40, len(data), 32)])
        return [next(rest) if present >> slot & 1 else ZERO for slot in range(256)]

    def chunks(self, root: bytes, level: int, first: int = 0):
        """Numbers and ids of the chunks that are not zero."""
        if root == ZERO:
            return
        for slot, ident in enumerate(self.node(root, level)):
            number = first + (slot << 8 * level)
            if ident == ZERO:
                continue
            if level == 0:
                yield number, ident
            else:
                yield from self.chunks(ident, level - 1, number)

    def disk(self, point: str, name: str) -> bytes:
        disk, = [disk for disk in self.points[point]["disks"] if disk["name"] == name]
        return self.tree(disk["root"], disk["size"], disk["chunk_size"])

    def file(self, point: str, role: str, name: str) -> bytes:
        """A file that belongs to the domain."""
        file, = [file for file in self.points[point].get("files") or []
                 if file["role"] == role and text(file["name"]).decode() == name]
        assert re.fullmatch("[a-z0-9][a-z0-9-]*", role) and 0 <= file["mode"] <= 0o7777
        assert not {"", ".", ".."} & set(name.split("/"))
        data = self.tree(file["root"], -(-file["size"] // 512) * 512, file["chunk_size"])
        assert not any(data[file["size"]:])
        return data[:file["size"]]

    def tree(self, root: str, size: int, chunk_size: int) -> bytes:
        """What hangs on a root."""
        count, levels = -(-size // chunk_size), 1
        while 256 ** levels < count:
            levels += 1
        data = bytearray(size)
        for number, ident in self.chunks(bytes.fromhex(root), levels - 1):
            kind, plain = self.object(ident)
            offset = number * chunk_size
            assert kind == KINDS["chunk"] and len(plain) == min(chunk_size, size - offset)
            assert any(plain), "a chunk of zeroes is stored"
            data[offset:offset + len(plain)] = plain
        return bytes(data)

    def notes(self) -> set[bytes]:
        """Ids of the objects that are noted as damaged."""
        noted = set()
        for name in self.names("damaged"):
            data = self.alone("damage", f"damaged/{name}")
            assert len(data) % 56 == 0
            noted |= {data[at:at + 32] for at in range(0, len(data), 56)}
        return noted


def text(value: str | dict | None) -> bytes | None:
    """A string of a manifest."""
    if isinstance(value, dict):
        return base64.b64decode(value["base64"])
    return value if value is None else value.encode()
