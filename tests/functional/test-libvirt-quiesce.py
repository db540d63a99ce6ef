# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: with --quiesce the agent that libvirt knows freezes the guest's file systems for the
instant of the backup, and thaws them, also where the backup fails, the program is killed in
between, or the guest freezes after it was given up; and others find the agent as it was. The
guest is a Linux; its agent is a few lines of shell that answer as qemu-ga does."""
from __future__ import annotations

import os
import signal

from lab import Lab, main, test, wait_until
from linux import MODULES, Linux
from repository import Repository
from virt import Libvirt

INIT = """#!/bin/busybox sh
export PATH=/bin
/bin/busybox mkdir -p /dev /proc /sys /a
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
echo 0 > /proc/sys/kernel/printk
for module in MODULES; do insmod /$module.ko || echo "TROUBLE $module"; done
port=
while [ -z "$port" ]; do
  for name in /sys/class/virtio-ports/*/name; do
    grep -q guest_agent $name && port=/dev/$(basename $(dirname $name))
  done
  usleep 100000
done
exec 3<>$port
echo AGENT
slow=0 count=1
while read -r line <&3; do
  case $line in
    *guest-sync*)
      id=$(echo "$line" | sed -n 's/.*"id": *\\([0-9]*\\).*/\\1/p')
      echo "{\\"return\\": $id}" >&3 ;;
    *guest-fsfreeze-freeze*) sleep $slow; echo FROZEN; echo "{\\"return\\": $count}" >&3 ;;
    *guest-fsfreeze-thaw*) echo THAWED; echo "{\\"return\\": $count}" >&3 ;;
    *test-slow*) slow=9; echo '{"return": 0}' >&3 ;;
    *test-empty*) slow=0 count=0; echo '{"return": 0}' >&3 ;;
    *) echo "ASKED $line"; echo '{"error": {"class": "CommandNotFound", "desc": "no"}}' >&3 ;;
  esac
done
"""
XML = """<domain type='qemu'><name>linux</name><uuid>{uuid}</uuid><memory unit='MiB'>192</memory>
<vcpu>1</vcpu><os><type arch='x86_64' machine='pc'>hvm</type><kernel>{kernel}</kernel>
<initrd>{initrd}</initrd><cmdline>console=ttyS0 quiet panic=-1</cmdline></os>
<devices><emulator>{emulator}</emulator>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/>
<target dev='vda' bus='virtio'/></disk>
<serial type='file'><source path='{serial}'/></serial>
<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
<memballoon model='none'/></devices></domain>"""
NO_LIMIT = "-2"  # VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK
UUID = "5e1f3c52-3a51-4d5c-9a67-0b6f1c2d3e4f"


class Guest:
    """The domain, and what its agent was asked for."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.host = lab, Libvirt(lab)
        linux = Linux(lab, INIT, (*MODULES, "virtio_console"))
        disk = lab.disk("vda", "16M")
        self.serial = lab.path("serial")
        for path in (disk.path, linux.initrd):
            self.host.public(path)
        kernel = lab.path("kernel")
        lab.tool("cp", linux.kernel, kernel)
        self.host.public(kernel, 0o644)
        xml = XML.format(uuid=UUID, kernel=kernel, initrd=linux.initrd, disk=disk.path,
                         serial=self.serial, emulator=self.host.emulator)
        self.host.virsh("define", lab.file("linux.xml", xml))
        self.host.virsh("start", "linux")
        wait_until(lambda: "AGENT" in self.said(), 60, "the agent")
        wait_until(lambda: self.host.virsh("qemu-agent-command", "linux",
                                           '{"execute": "guest-sync", "arguments": {"id": 7}}',
                                           check=False).rc == 0, 90, "libvirt sees the agent")

    def ask(self, command: str) -> None:
        """Has the agent carry out a command."""
        self.host.virsh("qemu-agent-command", "linux", f'{{"execute": "{command}"}}')

    def agent_timeout(self) -> str:
        """For how many seconds libvirt waits for its answers, by the status that it keeps."""
        with open("/run/libvirt/qemu/linux.xml", encoding="utf-8") as status:
            return status.read().partition("<agentTimeout>")[2].partition("<")[0]

    def said(self) -> list[str]:
        """The words that the guest has written, in order."""
        with open(self.serial, encoding="latin-1") as port:
            return port.read().split()

    def frozen(self) -> list[str]:
        return [word for word in self.said() if word in ("FROZEN", "THAWED")]


@test(timeout=200)
def test_quiesce(lab: Lab) -> None:
    guest = Guest(lab)
    repo = Repository(lab)
    arguments = ["backup", "-c", guest.host.uri, "-d", "linux", "-r", repo.path]
    report = lab.tidemark_json(*arguments, "--quiesce", rc=0)
    assert report["quiesced"] is True, report
    assert guest.frozen() == ["FROZEN", "THAWED"], guest.said()
    report = lab.tidemark_json(*arguments, rc=0)
    assert report["quiesced"] is False, report
    assert guest.frozen() == ["FROZEN", "THAWED"], guest.said()
    # libvirt refuses the job after the freeze.
    definition = lab.file("b.xml", "<domainbackup><disks><disk name='vda' backup='yes' type='file' "
                          "backupmode='incremental' incremental='nobody'><target "
                          f"file='{lab.path('target')}'/></disk></disks></domainbackup>")
    said = lab.tidemark("begin", "-c", guest.host.uri, "-d", "linux", "--quiesce", definition, rc=1)
    assert "nobody" in said.err, said
    assert guest.frozen() == ["FROZEN", "THAWED"] * 2, guest.said()
    # Killed while it is frozen: the watchdog thaws it.
    traced = lab.tidemark(*arguments, "--quiesce", env={"TIDEMARK_TEST_TRACE": "1"}).err
    step = next(line.split()[1] for line in traced.splitlines() if "libvirt-frozen" in line)
    lab.tidemark(*arguments, "--quiesce", env={"TIDEMARK_TEST_KILL_AT": step}, rc=-signal.SIGKILL)
    wait_until(lambda: guest.frozen() == ["FROZEN", "THAWED"] * 4, 20, "the guest is thawed")
    report = lab.tidemark_json(*arguments, "--quiesce", rc=0)
    assert report["quiesced"] is True, report
    assert guest.frozen() == ["FROZEN", "THAWED"] * 5, guest.said()
    assert guest.agent_timeout() in ("", NO_LIMIT), guest.agent_timeout()
    # Frozen when it was given up, and the first who asked for the thaw had no answer.
    guest.ask("test-slow")
    report = lab.tidemark_json(*arguments, "--quiesce", "--agent-timeout", 1, rc=3)
    assert report["quiesced"] is False, report
    wait_until(lambda: guest.frozen() == ["FROZEN", "THAWED"] * 6, 60, "the guest is thawed")
    wait_until(lambda: guest.agent_timeout() in ("", NO_LIMIT), 20, "the agent's time is back")
    # Nothing to freeze.
    guest.ask("test-empty")
    report = lab.tidemark_json(*arguments, "--quiesce", rc=3)
    assert report["quiesced"] is False, report
    assert guest.frozen() == ["FROZEN", "THAWED"] * 7, guest.said()


main()
