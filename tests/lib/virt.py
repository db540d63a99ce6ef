# SPDX-License-Identifier: LGPL-2.1-or-later
"""libvirt in the lab: a libvirtd of the test's own, and domains that look like the lab's machines.

    host = Libvirt(lab)                  # skips where that cannot be
    vm = host.vm([lab.disk("vda")])      # defined and started
    repo.backup(vm)                      # -c URI -d NAME
    host.virsh("checkpoint-list", vm.name)

It is the system's libvirtd, with the system's QEMU driver: QEMU runs as a user of its own and gets
its images from libvirtd. What it would share with the host lies in the lab's folder, which a mount
namespace of the test process shows in the place of /run, /etc/libvirt and so on. So does every
program that the test runs see it, and the default URI works too. There is no D-Bus, and no /dev/kvm
(it would be root's, which makes libvirtd probe QEMU again and again). Domains are of type qemu.

The lab reaches QEMU over a monitor of its own beside libvirt's, so that a Writer works as on a Vm.
"""
from __future__ import annotations

import json
import os
import pwd
import shlex
import shutil
import signal
import stat
import subprocess
import tempfile
import xml.etree.ElementTree as ElementTree
from typing import TYPE_CHECKING

import run
from qmp import Qmp
from tap import Skip
from vm import Disk, Vm

if TYPE_CHECKING:
    from lab import Lab
    from repository import Repository

DAEMON = "/usr/sbin/libvirtd"
# What a libvirtd keeps, and the folder of ours that stands for it.
FOLDERS = {"/run": "run", "/etc/libvirt": "etc", "/var/lib/libvirt": "lib",
           "/var/log/libvirt": "log", "/var/cache/libvirt": "cache"}
QEMU_CONF = """stdio_handler = "file"
security_driver = "none"
cgroup_controllers = []
namespaces = []
"""
DAEMON_CONF = """unix_sock_dir = "{dir}/sock"
unix_sock_rw_perms = "0700"
auth_unix_rw = "none"
auth_unix_ro = "none"
log_outputs = "3:file:{log}"
"""
QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
# What libvirt found out about QEMU takes seconds to find out again. It checks by itself whether
# that is still true.
CAPABILITIES = "qemu/capabilities"


def _known_capabilities() -> str:
    return os.path.join(tempfile.gettempdir(), f"tidemark-test-libvirt-{os.getuid()}")


class Libvirt:
    """A libvirtd that ends with the lab, and with it all domains. One at a time in a process."""

    _mounted = False

    def __init__(self, lab: Lab, *, conf: str = "") -> None:
        """`conf` is more of qemu.conf."""
        if os.geteuid() != 0:
            raise Skip("not root: no libvirtd of our own")
        if not os.access(DAEMON, os.X_OK) or not shutil.which("virsh"):
            raise Skip("no libvirtd or no virsh")
        self.lab = lab
        self.dir = os.path.join(lab.sockets, "virt")
        self.user = self._qemu_user()
        self.monitors = os.path.join(self.dir, "monitors")
        self.socket = os.path.join(self.dir, "sock", "libvirt-sock")
        self.uri = f"qemu+unix:///system?socket={self.socket}"
        self._keeper: subprocess.Popen | None = None
        self._make_folders(conf)
        lab.on_close(self.close)
        self.start()

    # Life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts libvirtd and returns once it answers; domains that run are found again."""
        assert self._keeper is None or not self.alive()
        keeper = os.path.join(os.path.dirname(os.path.abspath(__file__)), "virtkeeper.py")
        with open(self.lab.path("libvirtd-says.log"), "ab") as log:
            # One that looks after QEMUs of a libvirtd before goes on until they are gone.
            self._keeper = self.lab.tool_popen(
                "/usr/bin/python3", keeper, DAEMON, "-f", f"{self.dir}/libvirtd.conf", "-p",
                self._pid_file, stdout=log, stderr=log,
                env={**self.lab.env(), "PATH": f"{self.dir}/bin:{os.environ['PATH']}"})
        run.wait_until(lambda: self.virsh("version", check=False).rc == 0, 60, "libvirtd answers")
        if not os.path.islink("/run/libvirt/libvirt-sock"):  # for the default URI
            os.symlink(self.socket, "/run/libvirt/libvirt-sock")
        self._save_capabilities()

    @property
    def pid(self) -> int:
        """libvirtd's process."""
        with open(self._pid_file, encoding="ascii") as file:
            return int(file.read())

    def alive(self) -> bool:
        return _pid_in(self._pid_file) is not None

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Ends libvirtd, as a crash or (SIGTERM) as an upgrade does; its domains go on."""
        pid = self.pid
        os.kill(pid, number)
        run.wait_until(lambda: not os.path.exists(f"/proc/{pid}"), what="libvirtd's end")

    def restart(self, number: int = signal.SIGKILL) -> None:
        """kill and start."""
        self.kill(number)
        self.start()

    def close(self) -> None:
        """Ends libvirtd and all domains."""
        for child in self.lab.children():
            if "virtkeeper.py" in " ".join(map(str, child.args)):
                run.end(child, grace=10)
        for mount in reversed(FOLDERS):
            subprocess.run(["umount", "-l", mount], check=False, stderr=subprocess.DEVNULL)

    # Programs ---------------------------------------------------------------------------------

    def virsh(self, *args: object, **how) -> run.Result:
        """Runs virsh on this libvirtd; `how` as for Lab.tool."""
        return self.lab.tool("virsh", "-q", "-c", self.uri, *args, **how)

    def vm(self, disks: list[Disk], *, start: bool = True, **options) -> VirtVm:
        """A domain (see VirtVm for the options), defined, and started unless start=False."""
        options.setdefault("name", f"dom{self.lab.count_vms()}")
        vm = VirtVm(self, disks, **options)
        self.lab.add_vm(vm)
        if not vm.transient:
            vm.define()
        return vm.start() if start else vm

    def public(self, path: str, mode: int = 0o755) -> str:
        """A file or folder of the lab that QEMU's user may use; returns its path."""
        os.chmod(path, mode)
        os.chown(path, self.user.pw_uid, self.user.pw_gid)
        return path

    # Making it --------------------------------------------------------------------------------

    @property
    def _pid_file(self) -> str:
        return os.path.join(self.dir, "libvirtd.pid")

    @staticmethod
    def _qemu_user() -> pwd.struct_passwd:
        for name in ("libvirt-qemu", "qemu"):
            try:
                return pwd.getpwnam(name)
            except KeyError:
                continue
        raise Skip("no user for libvirt's QEMU")

    def _make_folders(self, conf: str) -> None:
        for folder in {self.lab.dir, self.lab.sockets}:
            os.chmod(folder, 0o755)
        more = ("run/libvirt", "sock", "bin", "monitors", "log/qemu", f"cache/{CAPABILITIES}")
        for name in (*FOLDERS.values(), *more):
            os.makedirs(os.path.join(self.dir, name))
        self.public(self.monitors)
        self._write("etc/qemu.conf", QEMU_CONF + conf)
        self._write("libvirtd.conf",
                    DAEMON_CONF.format(dir=self.dir, log=self.lab.path("libvirtd.log")))
        if self.lab.root:
            self._write("bin/qemu-system-x86_64", self._wrapper())
            os.chmod(self.emulator, 0o755)
        if os.path.isdir(_known_capabilities()):
            shutil.copytree(_known_capabilities(), self._capabilities, dirs_exist_ok=True)
        self._mount()

    @property
    def emulator(self) -> str:
        name = "qemu-system-x86_64"
        return os.path.join(self.dir, "bin", name) if self.lab.root else shutil.which(name)

    def _wrapper(self) -> str:
        words = self.lab.argv("qemu-system-x86_64") + self.lab.firmware()
        return f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n'

    def _mount(self) -> None:
        if not Libvirt._mounted:
            run.own_mounts()
            Libvirt._mounted = True
            if os.path.exists("/dev/kvm") and os.stat("/dev/kvm").st_rdev != os.makedev(1, 3):
                none = os.path.join(self.dir, "kvm")
                os.mknod(none, stat.S_IFCHR | 0o600, os.makedev(1, 3))
                run.run(["mount", "--bind", none, "/dev/kvm"])
            # A QEMU that finds modules of another build while libvirt probes it aborts.
            modules = "/usr/lib/x86_64-linux-gnu/qemu"
            if self.lab.root and os.path.isdir(modules):
                run.run(["mount", "--bind", self.lab.root + modules, modules])
        for place, ours in FOLDERS.items():
            os.makedirs(place, exist_ok=True)
            run.run(["mount", "--bind", os.path.join(self.dir, ours), place])

    def _write(self, name: str, text: str) -> None:
        with open(os.path.join(self.dir, name), "w", encoding="utf-8") as file:
            file.write(text)

    @property
    def _capabilities(self) -> str:
        return os.path.join(self.dir, "cache", CAPABILITIES)

    def _save_capabilities(self) -> None:
        """Keeps what was found out, for the next test; renamed in place, so always whole."""
        known = _known_capabilities()
        os.makedirs(known, mode=0o700, exist_ok=True)
        for name in os.listdir(self._capabilities):
            new = os.path.join(self._capabilities, name)
            if name.endswith(".xml") and not _same(new, os.path.join(known, name)):
                copy = os.path.join(known, f".{name}.{os.getpid()}")
                shutil.copyfile(new, copy)
                os.rename(copy, os.path.join(known, name))


class VirtVm(Vm):
    """A domain of libvirt with the manners of a Vm, of which what asks QEMU works unchanged.

    `devices` is more XML for <devices>; `transient` leaves it undefined; `iothreads` is how many
    there are (a disk with iothread=True is in the first).
    """

    def __init__(self, host: Libvirt, disks: list[Disk], *, devices: str = "",
                 transient: bool = False, **options) -> None:
        super().__init__(host.lab, disks, accel="tcg", **options)
        self.host = host
        self.devices = devices
        self.transient = transient
        self._monitor = os.path.join(host.monitors, self.name)

    @property
    def domain(self) -> list[str]:
        return ["-c", self.host.uri, "-d", self.name]

    @property
    def sockets(self) -> str:
        return self.host.monitors

    def virsh(self, verb: str, *args: object, **how) -> run.Result:
        """`virsh VERB NAME ARGS…`."""
        return self.host.virsh(verb, self.name, *args, **how)

    # Life -------------------------------------------------------------------------------------

    def define(self) -> None:
        self.host.virsh("define", self.lab.file(f"{self.name}.xml", self.xml()))

    def start(self) -> VirtVm:
        """Starts the domain as it is defined (a transient one as its disks are now)."""
        assert not self.alive()
        self._next_boot()
        if self.transient or self.guest:  # the guest's number and log are new in each boot
            self._redefine()
        if not self.transient:
            self.virsh("start", *(["--paused"] if self.paused else []))
        self.connect()
        return self

    def _redefine(self) -> None:
        if self.transient:
            self.host.virsh("create", self.lab.file(f"{self.name}.xml", self.xml()),
                            *(["--paused"] if self.paused else []))
            return
        self.define()

    def connect(self) -> None:
        """Takes the lab's own monitor, of which QEMU serves one client at a time."""
        if not os.path.islink(self.lab.path(f"{self.name}.qemu.log")):
            os.symlink(self._log, self.lab.path(f"{self.name}.qemu.log"))
        self.qmp = Qmp(self._monitor, transcript=self.lab.path(f"{self.name}.qmp.log"),
                       alive=self.alive)

    def alive(self) -> bool:
        return _pid_in(self._pid_file) is not None

    @property
    def pid(self) -> int:
        pid = _pid_in(self._pid_file)
        assert pid is not None, f"{self.name} does not run"
        return pid

    def kill(self) -> None:
        """SIGKILL of QEMU; returns once libvirtd, where it runs, has seen it."""
        if self.alive():
            pid = self.pid
            os.kill(pid, signal.SIGKILL)
            run.wait_until(lambda: not os.path.exists(f"/proc/{pid}"), what="QEMU's end")
        self._gone()
        if self.host.alive():
            run.wait_until(lambda: self.state() in ("shut off", ""), what="libvirt sees the end")

    def quit(self) -> None:
        """Ends QEMU in order, as a guest's shutdown does."""
        self._gone()
        self.virsh("destroy", "--graceful")
        assert not self.alive()

    def wait_end(self, timeout: float) -> None:
        run.wait_until(lambda: not self.alive(), timeout, f"the end of {self.name}")
        self._gone()

    def close(self) -> None:
        self._gone()

    def state(self) -> str:
        """What libvirt says of it: 'running', 'shut off', …; '' if it knows no such domain."""
        return self.virsh("domstate", check=False).out.strip()

    @property
    def _log(self) -> str:
        return os.path.join(self.host.dir, "log", "qemu", f"{self.name}.log")

    @property
    def _pid_file(self) -> str:
        return os.path.join(self.host.dir, "run", "libvirt", "qemu", f"{self.name}.pid")

    # Description ------------------------------------------------------------------------------

    def xml(self) -> str:
        """The domain as it shall be started."""
        words = "".join(f"<qemu:arg value='{word}'/>" for word in self._command_line())
        disks = "".join(self.disk_xml(disk, 2 + n) for n, disk in enumerate(self.disks))
        return (f"<domain type='qemu' xmlns:qemu='{QEMU_NAMESPACE}'><name>{self.name}</name>"
                f"<uuid>{self.uuid}</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu>"
                f"<iothreads>1</iothreads><os><type arch='x86_64' machine='pc'>hvm</type></os>"
                f"<features><acpi/></features><devices><emulator>{self.host.emulator}</emulator>"
                f"{disks}{self.devices}<controller type='scsi' model='virtio-scsi'/>"
                f"<controller type='usb' model='none'/><memballoon model='none'/></devices>"
                f"<qemu:commandline>{words}</qemu:commandline></domain>")

    @staticmethod
    def disk_xml(disk: Disk, order: int = 0) -> str:
        """One <disk>; `order` is its place in the order of booting, so of the BIOS's drives. The
        option 'inside' is XML for its <source>."""
        kind, source = ("block", "dev") if disk.path.startswith("/dev/") else ("file", "file")
        thread = " iothread='1'" if disk.iothread else ""
        boot = f"<boot order='{order}'/>" if order else ""
        return (f"<disk type='{kind}' device='disk'><driver name='qemu' type='{disk.fmt}' "
                f"discard='{disk.discard}'{thread}/>"
                f"<source {source}='{disk.path}'>{disk.options.get('inside', '')}</source>"
                f"<target dev='{disk.name}' bus='{disk.bus}'/>{boot}</disk>")

    def _command_line(self) -> list[str]:
        words = ["-qmp", f"unix:{self._monitor},server=on,wait=off"]
        if self.guest:
            boot = self.host.public(self.guest.make_boot_disk(self.lab.dir))
            serial = self.guest.serial or self.lab.path(f"{self.name}-1.serial")
            with open(serial, "ab"):
                self.host.public(serial)
            words += ["-serial", f"file:{serial}", "-blockdev", _quoted({
                "driver": "raw", "node-name": "boot", "read-only": True,
                "file": {"driver": "file", "filename": boot, "read-only": True}})]
            words += ["-device", _quoted({"driver": "virtio-blk-pci", "id": "boot",
                                          "drive": "boot", "bootindex": 1, "addr": "0x1e"})]
        return words + self.extra

    # Disks ------------------------------------------------------------------------------------

    def live_xml(self) -> ElementTree.Element:
        """The domain as libvirt sees it now."""
        return ElementTree.fromstring(self.virsh("dumpxml").out)

    def _disk_now(self, disk: Disk) -> ElementTree.Element:
        for found in self.live_xml().iter("disk"):
            if found.find("target").get("dev") == disk.name:
                return found
        raise AssertionError(f"{self.name} has no disk {disk.name}")

    def entry(self, disk: Disk) -> dict:
        assert self.qmp
        alias = self._disk_now(disk).find("alias").get("name")
        for row in self.qmp.command("query-block"):
            if f"/{alias}/" in f"/{row.get('qdev', '')}/":
                return row
        raise AssertionError(f"QEMU has no disk {disk.name} ({alias})")

    def plug(self, disk: Disk) -> None:
        """Hot-plugs a disk, or adds it to the description of a domain that is shut off."""
        where = ["--live"] if self.alive() else ["--config"]
        self.virsh("attach-device", self.lab.file(f"{disk.name}.plug.xml", self.disk_xml(disk)),
                   *where)
        self.disks.append(disk)

    def unplug(self, disk: Disk) -> None:
        """Takes a disk away. A scsi disk goes at once; for others the machine is reset, since the
        guest has no driver for that."""
        where = ["--live"] if self.alive() else ["--config"]
        self.virsh("detach-disk", disk.name, *where)
        if self.alive() and disk.bus != "scsi":
            self.virsh("reset")
        run.wait_until(lambda: disk.name not in self.targets(), 15, f"{disk.name} is gone")
        self.disks.remove(disk)

    def targets(self) -> list[str]:
        return [disk.find("target").get("dev") for disk in self.live_xml().iter("disk")]

    def change(self, count: int = 5, disks: list[Disk] | None = None) -> None:
        """Random writes to all disks, or those; through QEMU where the domain runs."""
        for disk in self.disks if disks is None else disks:
            writer = self.writer(disk) if self.alive() else self.lab.writer(disk)
            writer.random_ops(self.lab.rng, count, longest=1 << 18)

    def resize(self, disk: Disk, size: int) -> None:
        self.virsh("blockresize", disk.name, f"{size}B")
        disk.model.resize(size)

    def snapshot(self, disk: Disk, bitmaps: list[str] | None = None) -> None:
        """An external snapshot of one disk. libvirt carries its checkpoints over by itself."""
        assert bitmaps is None
        overlay = self.lab.fresh(".qcow2")
        disks = "".join(
            f"<disk name='{one.name}' snapshot='external'><source file='{overlay}'/></disk>"
            if one is disk else f"<disk name='{one.name}' snapshot='no'/>" for one in self.disks)
        self.virsh("snapshot-create", self.lab.file(
            "snapshot.xml", f"<domainsnapshot><disks>{disks}</disks></domainsnapshot>"),
            "--disk-only", "--no-metadata")
        disk.path, disk.fmt = overlay, "qcow2"
        disk.model.discard_unit = 1 << 16 if disk.discard == "unmap" else None

    # Checkpoints ------------------------------------------------------------------------------

    def checkpoints(self) -> list[str]:
        """The names of libvirt's checkpoints."""
        return self.virsh("checkpoint-list", "--name").out.split()

    def checkpoint_disks(self, name: str) -> list[str]:
        """The disks that a checkpoint of libvirt's covers."""
        root = ElementTree.fromstring(self.virsh("checkpoint-dumpxml", name, "--no-domain").out)
        return [disk.get("name") for disk in root.iter("disk")
                if disk.get("checkpoint") == "bitmap"]

    def bitmap_names(self, disk: Disk) -> list[str]:
        """The names of the bitmaps on a disk's image, in use or not."""
        if self.alive():
            return sorted(self.bitmaps(disk))
        if disk.fmt != "qcow2":
            return []
        specific = self.lab.info(disk.path)["format-specific"]["data"]
        return sorted(one["name"] for one in specific.get("bitmaps", []))

    def assert_tidy(self, repo: Repository) -> None:
        """Nothing is left of a job; libvirt's checkpoints and the bitmaps say the same; no disk
        has more than one checkpoint of this repository."""
        if self.alive():
            repo.assert_tidy(self)
        covered = {name: self.checkpoint_disks(name) for name in self.checkpoints()}
        for disk in self.disks:
            bitmaps = self.bitmap_names(disk)
            for name in bitmaps:
                assert not name.startswith(("tmk-", "backup-")), f"disk {disk.name} has {bitmaps}"
                assert disk.name in covered.get(name, []), f"libvirt misses {name}: {covered}"
            known = [name for name, disks in covered.items() if disk.name in disks]
            assert set(known) <= set(bitmaps), f"disk {disk.name} has {bitmaps}, libvirt {known}"
            ours = [name for name in bitmaps if name.startswith(repo.prefix)]
            assert len(ours) <= 1, f"disk {disk.name} has {ours}"
            if not self.alive() and disk.fmt == "qcow2":
                self.lab.check_image(disk.path)

    # State ------------------------------------------------------------------------------------

    def job(self) -> str:
        """What virsh says of the job that runs; '' if none does."""
        return self.virsh("backup-dumpxml", check=False).out

    def leftovers(self, prefix: str = "backup-") -> list[str]:
        """What must not be there when no job runs, in QEMU and in libvirt."""
        inventory = self.inventory()
        found = [f"job {name}" for name in inventory["jobs"]]
        found += [f"export {name}" for name in inventory["exports"]]
        known = [f"libvirt-{part.get('index')}-" for disk in self.live_xml().iter("disk")
                 for part in disk.iter() if part.tag in ("source", "backingStore")]
        found += [f"node {name}" for name in inventory["nodes"] if name != "boot"
                  and not name.startswith("#") and not name.startswith(tuple(known))]
        for text in inventory["bitmaps"]:
            name, *flags = text.split(" ")
            if name.split("/", 1)[-1].startswith((prefix, "tmk-")) or "busy" in flags:
                found.append(f"bitmap {text}")
        if self.job():
            found.append("libvirt's backup job")
        return found + ["nbd server"] * len(inventory["nbd server"])


def _quoted(value: dict) -> str:
    return json.dumps(value).replace("&", "&amp;").replace("'", "&apos;")


def _same(one: str, other: str) -> bool:
    try:
        with open(one, "rb") as left, open(other, "rb") as right:
            return left.read() == right.read()
    except FileNotFoundError:
        return False


def _pid_in(path: str) -> int | None:
    """The process that a pid file names, if it lives."""
    try:
        with open(path, encoding="ascii") as file:
            pid = int(file.read())
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return None if file.read().rpartition(")")[2].split()[0] == "Z" else pid
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
