# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: a reader made from the documented format alone gets from a repository what was on the disks;
the verbs that look at a repository say what is true of it; `tidemark verify` finds a bit that changed
anywhere, names what it touches, exits with 4, and a backup heals it."""
from __future__ import annotations

import json
import os
import random

from lab import Lab, main, test
from repository import Repository
from stranger import Stranger, text

K, M = 1 << 10, 1 << 20
CHUNK = 64 * K


def make(lab: Lab, *options: object):
    """A machine and a repository with three points: full, and two incrementals."""
    vm = lab.vm([lab.disk("vda", "48M"), lab.disk("vdb", 5 * M + 512)])
    repo = Repository(lab, "repo", *options)
    vm.writer(vm["vda"]).random_ops(lab.rng, 40)
    vm.writer(vm["vdb"]).write_random(0, M, lab.rng)
    repo.backup(vm, "--name", "vm")
    vm.writer(vm["vda"]).write_random(5 * M, 3 * CHUNK, lab.rng)
    vm.writer(vm["vda"]).write(40 * M, 512, 7)
    repo.backup(vm, "--name", "vm")
    vm.writer(vm["vda"]).zero(5 * M, M)
    vm.writer(vm["vdb"]).write_random(5 * M, 512, lab.rng)
    repo.backup(vm, "--name", "vm")
    return vm, repo


def flip(path: str, offset: int, bit: int = 0) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


def read_as_stranger(lab: Lab, *options: object) -> None:
    _, repo = make(lab, *options)
    stranger = Stranger(repo.path)
    assert set(stranger.points) == {point.id for point in repo.points}
    for point in repo.points:
        manifest = stranger.points[point.id]
        assert text(manifest["domain"]) == b"vm"
        for name, model in point.models.items():
            assert stranger.disk(point.id, name) == bytes(model.data), (point.id, name)
    assert any(disk["mode"] == "incremental" for disk in manifest["disks"])


@test
def test_strangers_reader(lab: Lab) -> None:
    read_as_stranger(lab)


@test
def test_strangers_reader_with_options(lab: Lab) -> None:
    read_as_stranger(lab, "--chunk-size", "128K", "--compression", "none")


@test
def test_verbs_tell_the_truth(lab: Lab) -> None:
    vm, repo = make(lab)
    first, second, third = repo.points
    run = lambda *args, **how: lab.tidemark_json(*args, "-r", repo.path, **how)

    rows = run("list", "vm")["points"]
    assert [row["id"] for row in rows] == [first.id, second.id, third.id]
    assert run("list", "nobody") == {"points": [], "damaged": []}
    lines = repo.run("list").out.splitlines()
    assert len(lines) == 4 and third.id in lines[3] and "vda incremental" in lines[3], lines
    spec = "vm/" + lines[3].split()[1]  # a time as it is shown names a point
    assert run("show", spec)["id"] == third.id or rows[1]["time"] == rows[2]["time"]
    assert run("show", "vm/latest")["id"] == third.id

    for old, new in ((first, second), (second, third), (third, first)):
        shown = {row["name"]: [(e["offset"], e["length"]) for e in row["extents"]]
                 for row in run("diff", old.id, new.id)["disks"]}
        for name, model in new.models.items():
            wanted = old.models[name].differs(model)
            spread = [(at, min(CHUNK, model.size - at)) for offset, length in shown.get(name, [])
                      for at in range(offset, offset + length, CHUNK)]
            assert [at for at, _ in spread] == [at for offset, length in wanted
                                                for at in range(offset, offset + length, CHUNK)]
    zero = [row for row in repo.run("diff", second.id, third.id, "--disk", "vda").out.splitlines()]
    assert all(row.endswith(" zero") for row in zero) and zero, zero
    repo.run("diff", second.id, third.id, "--disk", "vdz", rc=1)

    stats = run("stats")
    files = [os.path.join(base, name) for base, _, names in os.walk(repo.path) for name in names]
    assert stats["bytes"] == sum(os.path.getsize(name) for name in files)
    assert (stats["points"], stats["domains"], stats["disks"]) == (3, 1, 6)
    assert stats["objects"] == len(Stranger(repo.path).objects)

    verified = run("verify")
    assert verified["damaged"] == 0 and verified["damage"] == [] and verified["points"] == 3
    assert verified["objects"] == stats["objects"], (verified, stats)
    assert "sound: 3 points" in repo.run("verify").out
    assert repo.run("verify", "-q").out == ""
    assert run("verify", "--sample", "1%")["objects"] < stats["objects"]
    for wrong in ("0", "101", "x", "-3"):
        repo.run("verify", "--sample", wrong, rc=2)
    repo.run("verify", "ffff", rc=1)


@test
def test_init(lab: Lab) -> None:
    path = lab.path("new")
    made = lab.tidemark_json("init", "-r", path, "--chunk-size", "1M", "--compression", "none")
    assert made["chunk_size"] == M and made["compression"] == "none"
    assert os.stat(path).st_mode & 0o077 == 0
    assert lab.tidemark_json("stats", env={"TIDEMARK_REPO": path})["id"] == made["id"]
    lab.tidemark("init", "-r", path, rc=1)
    assert lab.tidemark_json("stats", "-r", path)["id"] == made["id"]
    lab.tidemark("init", rc=2)
    for wrong in (["--chunk-size", "100K"], ["--chunk-size", "8M"], ["--compression", "zstd:0"],
                  ["--chunk-size", "K"], ["--chunk-size", "-64K"]):
        lab.tidemark("init", "-r", lab.path("wrong"), *wrong, rc=2)
        assert not os.path.exists(lab.path("wrong"))
    os.mkdir(lab.path("taken"))
    lab.file("taken/file", "mine")
    lab.tidemark("init", "-r", lab.path("taken"), rc=1)
    assert os.listdir(lab.path("taken")) == ["file"]


@test
def test_verify_finds_a_flipped_chunk(lab: Lab) -> None:
    """In the payload of a chunk that two points share, and that the disk still holds."""
    vm, repo = make(lab)
    first, second, third = repo.points
    stranger = Stranger(repo.path)
    disk, = [d for d in stranger.points[third.id]["disks"] if d["name"] == "vdb"]
    chunks = dict(stranger.chunks(bytes.fromhex(disk["root"]), 0))
    ident = chunks[3]
    path, offset, length = stranger.objects[ident]
    flip(path, offset + length // 2)

    report = lab.tidemark_json("verify", "-r", repo.path, rc=4)
    assert report["damaged"] == 1, report
    assert {(row["point"], row["disk"], row["offset"], row["length"])
            for row in report["damage"]} == {(point.id, "vdb", 3 * CHUNK, CHUNK)
                                             for point in repo.points}, report
    said = repo.run("verify", third.id, rc=4).out
    assert f"point {third.id}, disk 'vdb', {CHUNK} bytes at {3 * CHUNK}: " in said, said
    assert "1 damaged" in said
    assert stranger.notes() == {ident}
    repo.run("restore", third.id, "--disk", "vdb", "--to", lab.path("x.raw"), rc=4)

    repo.backup(vm, "--name", "vm", "--mode", "full")
    assert repo.verify()["damaged"] == 0
    repo.check_all()


@test
def test_verify_finds_flips_anywhere(lab: Lab) -> None:
    """In every region of every file; what is not touched can still be restored."""
    vm, repo = make(lab)
    vm.stop()
    rng = random.Random(7)
    whole = repo.path
    lab.tool("cp", "-r", whole, lab.path("whole"))
    files = sorted(os.path.relpath(os.path.join(base, name), whole)
                   for base, _, names in os.walk(whole) for name in names)
    for name in files:
        size = os.path.getsize(os.path.join(whole, name))
        for number, place in enumerate((0, 20, size - 1, size - 40, rng.randrange(size))):
            lab.tool("rm", "-rf", whole)
            lab.tool("cp", "-r", lab.path("whole"), whole)
            flip(os.path.join(whole, name), place, rng.randrange(8))
            said = lab.tidemark("verify", "-r", whole, "--json", rc=4)
            report = json.loads(said.out)
            if name == "config":
                assert report["error"]["code"] == "damaged" and "config" in said.err, said
                continue
            assert report["damaged"] == 1 and report["damage"], (name, place, report)
            told = json.dumps(report["damage"])
            if name.startswith("points/"):
                damaged = os.path.basename(name)
                assert damaged in told and report["points"] == 2
                shown = lab.tidemark("list", "-r", whole, rc=4)
                assert damaged in shown.err and len(shown.out.splitlines()) == 3
            elif name.startswith("index/"):
                assert name in told
                assert lab.tidemark_json("verify", "-r", whole)["damaged"] == 0  # made anew
            else:
                assert os.path.basename(name) in told
            touched = {row["point"] for row in report["damage"]}
            for point in repo.points if number == 4 else []:
                lab.tidemark("verify", "-r", whole, point.id, "-q",
                             rc=4 if point.id in touched else 0)


main()
