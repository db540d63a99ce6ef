# SPDX-License-Identifier: LGPL-2.1-or-later
"""Virtual machines for tests: disks, a builder for QEMU's command line, and questions to it.

A Disk is a description plus the model of its bytes; a Vm puts disks on buses, starts QEMU and
talks to it over a monitor of its own. The product gets another socket (Vm.address), since
a QMP socket serves one client at a time. Kill, quit and start may follow one another: the command
line and the files stay the same.
"""
from __future__ import annotations

import json
import os
import signal
import subprocess
import uuid as uuids
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import run
from guest import Guest
from model import Model, Writer
from qmp import Qmp, QmpError, action, bitmap_add

if TYPE_CHECKING:
    from lab import Lab

BUSES = {"virtio": "virtio-blk-pci", "scsi": "scsi-hd", "ide": "ide-hd", "nvme": "nvme"}


@dataclass
class Disk:
    """One disk of a Vm; made by Lab.disk, which also makes the image.

    name    the id of the device: what the product calls the disk
    bus     virtio, scsi, ide or nvme
    style   how QEMU is told: 'blockdev' (-blockdev and -device), 'drive' (-drive if=none and
            -device) or 'drive-if' (-drive if=virtio alone, id on the drive)
    node    the node name of the format layer; None leaves it to QEMU ('drive…' only)
    iothread   run the device in the machine's iothread (virtio only; for scsi the controller is)
    device, options   more properties of -device, and of -blockdev or -drive
    """
    name: str
    path: str
    model: Model
    fmt: str = "qcow2"
    bus: str = "virtio"
    style: str = "blockdev"
    node: str | None = None
    iothread: bool = False
    discard: str = "unmap"
    device: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)

    def blockdev(self) -> dict:
        """The arguments of blockdev-add for this disk."""
        assert self.node
        file = {"driver": "file", "node-name": f"{self.node.removesuffix('-fmt')}-file",
                "filename": self.path, "discard": self.discard}
        return {"driver": self.fmt, "node-name": self.node, "discard": self.discard, "file": file,
                **self.options}

    def drive(self) -> str:
        """The value of -drive for this disk."""
        values = {"file": self.path, "format": self.fmt, "discard": self.discard, **self.options}
        if self.node:
            values["node-name"] = self.node
        if self.style == "drive-if":
            values |= {"if": "virtio", "id": self.name}
        else:
            values |= {"if": "none", "id": f"drive-{self.name}"}
        return ",".join(f"{key}={str(value).replace(',', ',,')}" for key, value in values.items())


class Vm:
    """A machine. `guest` is the writing guest, or None for a machine that boots nothing.

    `paused` starts it with -S; `ports` is how many hotplug ports it has; `extra` goes to QEMU's
    command line as it is.
    """

    def __init__(self, lab: Lab, disks: list[Disk], *, name: str, guest: Guest | None = None,
                 paused: bool = False, uuid: str | None = None, ports: int = 2,
                 extra: list[str] | None = None, accel: str | None = None) -> None:
        self.lab = lab
        self.name = name
        self.uuid = uuid or str(uuids.uuid4())
        self.disks = list(disks)
        self.guest = guest
        self.paused = paused
        self.extra = list(extra or [])
        self.accel = accel or lab.accel()
        self.address = os.path.join(lab.sockets, f"{name}.qmp")
        self.qmp: Qmp | None = None
        self._ports = [f"port{n}" for n in range(ports)]
        self._plugged: dict[str, str] = {}
        self._process: subprocess.Popen | None = None
        self._boots = 0

    @property
    def domain(self) -> list[str]:
        """How the program is told of this machine."""
        return ["--qmp", self.address]

    @property
    def sockets(self) -> str:
        """A folder where QEMU may make sockets."""
        return self.lab.sockets

    # Life -------------------------------------------------------------------------------------

    def start(self) -> Vm:
        """Starts QEMU and returns once it answers. Guests continue above their last number."""
        assert not self.alive()
        self._plugged.clear()
        self._next_boot()
        monitor = os.path.join(self.lab.sockets, f"{self.name}.lab")
        for socket in (monitor, self.address):
            if os.path.exists(socket):
                os.unlink(socket)
        with open(self._log, "ab") as log:
            self._process = run.popen(
                self.lab.argv("qemu-system-x86_64") + self._arguments(monitor),
                stdout=log, stderr=log, env=self.lab.env())
        try:
            self.qmp = Qmp(monitor, transcript=self.lab.path(f"{self.name}.qmp.log"),
                           alive=self.alive)
        except OSError:
            self.kill()
            with open(self._log, encoding="utf-8", errors="replace") as log:
                raise AssertionError(f"QEMU did not start: {log.read()[-2000:]}") from None
        return self

    def _next_boot(self) -> None:
        self._boots += 1
        if self.guest:
            if self._boots > 1:
                raws = [self.lab.raw(disk.path, disk.fmt) for disk in self.disks[:3]]
                self.guest.start = self.guest.last_number(raws) + 1
                for raw in raws:
                    os.unlink(raw)
            self.guest.serial = self.lab.path(f"{self.name}-{self._boots}.serial")

    def alive(self) -> bool:
        """QEMU runs (the guest in it may be paused)."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """QEMU's process."""
        assert self._process
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL: what a crash of QEMU leaves behind."""
        if self._process:
            run.end(self._process)
        self._gone()

    def quit(self) -> None:
        """Ends QEMU in order; its exit code must be 0."""
        assert self.qmp and self._process
        try:
            self.qmp.command("quit")
        except EOFError:
            pass
        rc = self._process.wait(30)
        self._gone()
        assert rc == 0, f"QEMU ended with {rc}; see {self._log}"

    def restart(self) -> Vm:
        """quit and start."""
        self.quit()
        return self.start()

    def wait_end(self, timeout: float) -> None:
        """Waits until the guest has powered off."""
        assert self._process
        rc = self._process.wait(timeout)
        self._gone()
        assert rc == 0, f"QEMU ended with {rc}; see {self._log}"

    def close(self) -> None:
        """Ends QEMU if it still runs."""
        self.kill()

    def __enter__(self) -> Vm:
        return self

    def __exit__(self, *_why) -> None:
        self.close()

    def _gone(self) -> None:
        if self.qmp:
            self.qmp.close()
        self.qmp = None

    @property
    def _log(self) -> str:
        return self.lab.path(f"{self.name}.qemu.log")

    # Command line -----------------------------------------------------------------------------

    def _arguments(self, monitor: str) -> list[str]:
        argv = ["-name", f"guest={self.name}", "-uuid", self.uuid, "-accel", self.accel,
                "-M", "q35", "-m", "64", "-display", "none", "-nodefaults", "-no-user-config",
                "-qmp", f"unix:{monitor},server=on,wait=off",
                "-qmp", f"unix:{self.address},server=on,wait=off"]
        argv += self.lab.firmware()
        if self.paused:
            argv += ["-S"]
        for chassis, port in enumerate(self._ports, 1):
            argv += _device({"driver": "pcie-root-port", "id": port, "chassis": chassis})
        if self._has_iothread():
            argv += ["-object", "iothread,id=iothread0"]
        # A controller also for scsi disks that are plugged in later.
        scsi = {"driver": "virtio-scsi-pci", "id": "scsi"}
        if any(disk.bus == "scsi" and disk.iothread for disk in self.disks):
            scsi["iothread"] = "iothread0"
        argv += _device(scsi)
        if self.guest:
            boot = self.guest.make_boot_disk(self.lab.dir)
            argv += ["-serial", f"file:{self.guest.serial}"]
            argv += ["-blockdev", json.dumps({
                "driver": "raw", "node-name": "boot", "read-only": True,
                "file": {"driver": "file", "filename": boot, "read-only": True}})]
            argv += _device({"driver": "virtio-blk-pci", "id": "boot", "drive": "boot",
                             "bootindex": 1})
        for index, disk in enumerate(self.disks):
            if disk.style == "blockdev":
                argv += ["-blockdev", json.dumps(disk.blockdev())]
            else:
                argv += ["-drive", disk.drive()]
            if disk.style != "drive-if":
                argv += _device(self._device_of(disk) | {"bootindex": 2 + index})
        return argv + self.extra

    def _device_of(self, disk: Disk) -> dict:
        device = {"driver": BUSES[disk.bus], "id": disk.name,
                  "drive": disk.node if disk.style == "blockdev" else f"drive-{disk.name}"}
        if disk.bus == "nvme":
            device["serial"] = disk.name
        elif disk.bus == "scsi":
            device["bus"] = "scsi.0"
        elif disk.bus == "virtio" and disk.iothread:
            device["iothread"] = "iothread0"
        return device | disk.device

    def _has_iothread(self) -> bool:
        return any(disk.iothread for disk in self.disks)

    # Disks ------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Disk:
        return next(disk for disk in self.disks if disk.name == name)

    def plug(self, disk: Disk) -> None:
        """Adds a disk to the running machine."""
        assert self.qmp and disk.style == "blockdev"
        device = self._device_of(disk)
        if disk.bus != "scsi":
            free = [port for port in self._ports if port not in self._plugged.values()]
            device["bus"] = self._plugged[disk.name] = free[0]
        if disk.iothread and not self._has_iothread():
            self.qmp.command("object-add", qom_type="iothread", id="iothread0")
        self.qmp.command("blockdev-add", disk.blockdev())
        self.qmp.command("device_add", device)
        self.disks.append(disk)

    def unplug(self, disk: Disk) -> None:
        """Takes a disk away. The guest has no driver for that, so a scsi disk goes at once, and
        for others the machine is reset, which completes the removal (and reboots the guest)."""
        assert self.qmp
        self.qmp.command("device_del", id=disk.name)
        if disk.bus != "scsi":
            self.qmp.command("system_reset")
        self.qmp.wait_event("DEVICE_DELETED", device=disk.name)
        self.qmp.command("blockdev-del", node_name=disk.node)
        self.disks.remove(disk)
        self._plugged.pop(disk.name, None)

    def entry(self, disk: Disk) -> dict:
        """The row of query-block that is this disk."""
        assert self.qmp
        for row in self.qmp.command("query-block"):
            qdev = row.get("qdev", "")
            if disk.style == "drive-if":
                if row["device"] == disk.name:
                    return row
            elif qdev == disk.name or f"/{disk.name}/" in qdev:
                return row
        raise AssertionError(f"QEMU has no disk {disk.name}")

    def node(self, disk: Disk) -> str:
        """The node that the device is on now."""
        return self.entry(disk)["inserted"]["node-name"]

    def writer(self, disk: Disk) -> Writer:
        """Writes through the device's own backend, as the guest would: job filters, throttling
        and dirty bitmaps all see it. The machine may run or be paused.

        In QEMU before 10, `qemu-io write -z` to a disk in an iothread aborts (7.2: aio_poll in a
        foreign thread; aio_write hangs), so there zeroes go as data. With detect-zeroes in the
        options of such a disk its format driver gets them as zeroes all the same."""
        path = self.entry(disk).get("qdev")
        return Writer(lambda command: self._qemu_io(f"-d {path}", command), disk.model,
                      self.lab.path(f"{self.name}.content"),
                      zero_as_data=disk.iothread and self.lab.qemu_version() < (10, 0))

    def node_writer(self, node: str, model: Model) -> Writer:
        """Writes to a node that no device uses."""
        return Writer(lambda command: self._qemu_io(node, command), model,
                      self.lab.path(f"{self.name}.content"))

    def _qemu_io(self, target: str, command: str) -> str:
        # qemu-io prints to QEMU's standard output, and flushes it before the monitor answers.
        assert self.qmp
        before = os.stat(self._log).st_size
        answer = self.qmp.hmp(f'qemu-io {target} "{command}"')
        with open(self._log, encoding="utf-8", errors="replace") as log:
            log.seek(before)
            return answer + log.read()

    def compare(self, disk: Disk, model: Model | None = None) -> None:
        """The disk's file, in use or not, must contain what the model says. Pause the machine."""
        if self.alive():
            self.writer(disk).flush()
        self.lab.compare(disk.path, model or disk.model, disk.fmt, shared=self.alive())

    def resize(self, disk: Disk, size: int) -> None:
        """Resizes a disk while QEMU runs."""
        assert self.qmp
        self.qmp.command("block_resize", node_name=self.node(disk), size=size)
        disk.model.resize(size)

    def snapshot(self, disk: Disk, bitmaps: list[str] | None = None) -> None:
        """Puts a new qcow2 image over the disk's (an external snapshot); `bitmaps` are added to
        it in the same instant, so that chains of them stay without a gap."""
        assert self.qmp
        below, fmt = self.node(disk), disk.fmt
        overlay = self.lab.fresh(".qcow2")
        self.lab.tool("qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", disk.path, "-F", fmt,
                      overlay, disk.model.size)
        disk.path, disk.fmt = overlay, "qcow2"
        disk.node = f"{disk.name}-{os.path.basename(overlay).removesuffix('.qcow2')}-fmt"
        disk.model.discard_unit = 1 << 16 if disk.discard == "unmap" else None
        self.qmp.command("blockdev-add", {**disk.blockdev(), "backing": None})
        self.qmp.transaction(action("blockdev-snapshot", node=below, overlay=disk.node),
                             *[bitmap_add(disk.node, name) for name in bitmaps or []])

    # State ------------------------------------------------------------------------------------

    def status(self) -> str:
        """query-status: 'running', 'paused', 'io-error', …"""
        assert self.qmp
        return self.qmp.command("query-status")["status"]

    def stop(self) -> None:
        """Pauses the guest."""
        assert self.qmp
        self.qmp.command("stop")

    def cont(self) -> None:
        """Lets the guest go on."""
        assert self.qmp
        self.qmp.command("cont")

    def assert_running(self) -> None:
        """The guest runs, and writes where it is one that writes."""
        assert self.alive(), "QEMU is gone"
        assert self.status() == "running", f"the guest is {self.status()}"
        if self.guest:
            self.guest.wait(5)

    def bitmaps(self, disk: Disk | str) -> dict[str, dict]:
        """The named bitmaps of a disk's top node, or of the node of that name."""
        assert self.qmp
        node = disk if isinstance(disk, str) else self.node(disk)
        for row in self.qmp.command("query-named-block-nodes", flat=True):
            if row["node-name"] == node:
                return {one["name"]: one for one in row.get("dirty-bitmaps", []) if "name" in one}
        raise AssertionError(f"QEMU has no node {node}")

    def inventory(self) -> dict[str, list[str]]:
        """All that a backup could leave behind: compare before and after. Sorted names of jobs,
        nodes, exports, objects, bitmaps ('NODE/NAME', with flags), the node below each disk,
        and whether the built-in NBD server runs."""
        assert self.qmp
        ask = self.qmp.command
        jobs = {row["id"] for row in ask("query-jobs")}
        jobs |= {row["device"] for row in ask("query-block-jobs")}
        nodes, bitmaps = [], []
        for row in ask("query-named-block-nodes", flat=True):
            nodes.append(row["node-name"])
            for one in row.get("dirty-bitmaps", []):
                flags = [flag for flag in ("recording", "busy", "persistent", "inconsistent")
                         if one.get(flag)]
                bitmaps.append(" ".join([f"{row['node-name']}/{one.get('name', '')}", *flags]))
        return {
            "jobs": sorted(jobs),
            "nodes": sorted(nodes),
            "exports": sorted(row["id"] for row in ask("query-block-exports")),
            "objects": sorted(row["name"] for row in ask("qom-list", path="/objects")
                              if row["name"] != "type"),
            "bitmaps": sorted(bitmaps),
            "disks": sorted(f"{row.get('qdev') or row['device']} on "
                            f"{row['inserted']['node-name']}"
                            for row in ask("query-block") if "inserted" in row),
            "nbd server": ["running"] if self.nbd_server_runs() else [],
        }

    def leftovers(self, prefix: str = "tmk-") -> list[str]:
        """What must not be there when no job runs: jobs, nodes, exports, objects and bitmaps with
        the product's prefix, busy bitmaps, disks that are not on their own node, an NBD server."""
        found = []
        inventory = self.inventory()
        for kind in ("jobs", "nodes", "exports", "objects"):
            found += [f"{kind[:-1]} {name}" for name in inventory[kind] if name.startswith(prefix)]
        for text in inventory["bitmaps"]:
            name, *flags = text.split(" ")
            if name.split("/", 1)[-1].startswith(prefix) or "busy" in flags:
                found.append(f"bitmap {text}")
        for disk in self.disks:
            if disk.node and self.node(disk) != disk.node:
                found.append(f"disk {disk.name} on node {self.node(disk)}")
        return found + ["nbd server"] * len(inventory["nbd server"])

    def assert_clean(self, prefix: str = "tmk-") -> None:
        """Nothing is left, and the guest runs unless it was started paused."""
        left = self.leftovers(prefix)
        assert not left, f"left behind: {left}"
        if not self.paused:
            self.assert_running()

    def nbd_server_runs(self) -> bool:
        """QEMU cannot be asked: starting a second server is refused, else ours is stopped again."""
        assert self.qmp
        path = os.path.join(self.sockets, f"{self.name}.probe")
        try:
            self.qmp.command("nbd-server-start",
                             addr={"type": "unix", "data": {"path": path}})
        except QmpError as why:
            assert "already running" in why.desc, why
            return True
        self.qmp.command("nbd-server-stop")
        return False

    # Faults -----------------------------------------------------------------------------------

    def freeze(self) -> None:
        """SIGSTOP: a QEMU that does not answer."""
        run.stop(self.pid)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)


def _device(properties: dict) -> list[str]:
    return ["-device", json.dumps(properties)]
