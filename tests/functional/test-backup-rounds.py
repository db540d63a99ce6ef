# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: whatever happens to a machine between backups (writes, zeroes, discards, disks plugged,
unplugged and resized, bitmaps lost, external snapshots, restarts), every point ever made restores
to what the disks contained, to the byte; and no disk ever has more than one checkpoint of a
repository. Two repositories that back the machine up in turn do not disturb each other."""
from __future__ import annotations

from lab import Disk, Lab, Vm, diag, main, soak, test
from repository import Repository

SIZE = 12 << 20
ODD = SIZE + 5 * 512


class Rounds:
    """A machine to which things happen. `expect` says of each disk why it must be full next time
    in a repository, or nothing where it has to be incremental."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.rng = lab, lab.rng
        self.vm: Vm = lab.vm([lab.disk("vda", SIZE, bus="scsi"), lab.disk("vdb", ODD, bus="scsi")])
        self.plugged = 0
        self.full: dict[str, set[str]] = {}

    def everywhere(self, disk: Disk) -> None:
        """No repository can be incremental on this disk."""
        for disks in self.full.values():
            disks.add(disk.name)

    def pick(self) -> Disk:
        return self.rng.choice(self.vm.disks)

    def write(self) -> None:
        for disk in self.vm.disks:
            self.vm.writer(disk).random_ops(self.rng, self.rng.randrange(6), longest=1 << 19)

    def plug(self) -> None:
        if len(self.vm.disks) >= 4:
            return
        self.plugged += 1
        disk = self.lab.disk(f"hot{self.plugged}", self.rng.choice((SIZE // 2, SIZE // 2 + 1536)),
                             bus="scsi")
        self.vm.plug(disk)
        self.everywhere(disk)

    def unplug(self) -> None:
        if len(self.vm.disks) > 2:
            disk = self.vm.disks[-1]
            self.vm.unplug(disk)
            for disks in self.full.values():
                disks.discard(disk.name)

    def resize(self) -> None:
        disk = self.pick()
        self.vm.resize(disk, disk.model.size + self.rng.choice((512, 65536, 1 << 20)))
        self.everywhere(disk)

    def lose_bitmap(self) -> None:
        disk = self.pick()
        for name in self.vm.bitmaps(disk):
            if name.startswith("tidemark-"):
                self.vm.qmp.command("block-dirty-bitmap-remove", node=self.vm.node(disk), name=name)
                self.everywhere(disk)

    def snapshot(self) -> None:
        disk = self.pick()
        names = [name for name in self.vm.bitmaps(disk) if name.startswith("tidemark-")]
        if self.rng.random() < 0.5:
            self.vm.snapshot(disk, names)
        else:
            self.vm.snapshot(disk)
            self.everywhere(disk)

    def restart(self) -> None:
        self.vm.restart()

    def happen(self) -> str:
        actions = [self.write] * 6 + [self.plug, self.unplug, self.resize, self.lose_bitmap,
                                      self.snapshot, self.restart]
        action = self.rng.choice(actions)
        action()
        self.write()
        return action.__name__

    def backup(self, repo: Repository) -> None:
        names = {disk.name for disk in self.vm.disks}
        full = self.full[repo.path]
        point = repo.backup(self.vm)
        assert set(point.modes) == names, point.modes
        for disk in point.report["disks"]:
            expected = "full" if disk["name"] in full else "incremental"
            assert disk["mode"] == expected, f"{disk['name']}: {disk['mode']}: {disk['reason']}"
            assert disk["reason"], disk
        full.clear()
        repo.assert_tidy(self.vm)

    def add(self, name: str) -> Repository:
        repo = Repository(self.lab, name)
        self.full[repo.path] = {disk.name for disk in self.vm.disks}
        return repo


@test(timeout=240)
def test_every_point_is_what_the_disks_were(lab: Lab) -> None:
    rounds = Rounds(lab)
    repo = rounds.add("repo")
    rounds.write()
    for number in range(soak(14, 50)):
        what = rounds.happen() if number else "start"
        rounds.backup(repo)
        repo.check(repo.points[-1])
        diag(f"round {number}: {what}: {repo.points[-1].modes}")
    repo.check_all()
    assert repo.verify()["damaged"] == 0


@test(timeout=240)
def test_two_repositories_in_turn(lab: Lab) -> None:
    rounds = Rounds(lab)
    repos = [rounds.add("one"), rounds.add("two")]
    rounds.write()
    for number in range(soak(8, 30)):
        rounds.happen()
        repo = repos[lab.rng.randrange(2) if number > 1 else number]
        rounds.backup(repo)
        for other in repos:
            other.assert_tidy(rounds.vm)
    for repo in repos:
        repo.check_all()
        assert repo.verify()["damaged"] == 0


main()
