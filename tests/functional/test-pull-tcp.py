#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: a pull is read over TCP, by many clients at once; whatever clients do there (never
negotiating, never reading), the guest goes on and `end` is quick and puts them out;
and the process that carries their bytes ends with the job, with QEMU, and where begin is killed."""
import os
import re
import signal
import socket
import time

import run
from lab import Guest, Lab, main, soak, test, wait_until
from pull import Pull, RawClient, pull_disk

SERVER = "<server transport='tcp' name='127.0.0.1'/>"


class TcpClient(RawClient):
    """A RawClient on a port of this host."""

    def __init__(self, port: int) -> None:  # pylint: disable=super-init-not-called
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)


def relays() -> list[int]:
    """The pids of the relays among our children, orphans included."""
    found = []
    for pid in run.children():
        with open(f"/proc/{pid}/comm", encoding="ascii") as name:
            if name.read().strip() == "tidemark-relay":
                found.append(pid)
    return found


class TcpPull(Pull):
    """Pulls on TCP, each on the port that was free."""
    port = 0

    def begin_tcp(self, checkpoint: str, *options: str, server: str = SERVER, **how):
        disks = [pull_disk(disk.name, self.scratch(disk.name)) for disk in self.vm.disks]
        begun = self.run(disks, *options, server=server, checkpoint=checkpoint, **how)
        if begun.rc == 0:
            self.port = int(re.search(r"port='(\d+)'", begun.out).group(1))
        return begun

    def uri(self, name: str) -> str:
        return f"nbd://127.0.0.1:{self.port}/{name}"

    def is_closed(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) != 0


def machine(lab: Lab, **how):
    lab.need("nbdcopy", "nbdinfo")
    vda = lab.disk("vda", "32M")
    lab.writer(vda).write_random(0, 8 << 20, lab.rng)
    vm = lab.vm([vda], guest=Guest(slots=512, base=16 << 20, pause_us=0, **how))
    vm.guest.wait(20)
    return vm, TcpPull(lab, vm)


def timed(action) -> float:
    begun = time.monotonic()
    action()
    return time.monotonic() - begun


@test(timeout=120)
def test_sixteen_clients_at_once(lab: Lab) -> None:
    vm, pull = machine(lab)
    begun = pull.begin_tcp("c1")
    assert f"port='{pull.port}'" in lab.tidemark("dumpxml", "--qmp", vm.address).out, begun.out
    outs = [lab.fresh(".raw") for _ in range(16)]
    with vm.guest.watch() as watch:
        clients = [lab.tool_popen("nbdcopy", pull.uri("vda"), out) for out in outs]
        vm.guest.wait(50)
        for client in clients:
            assert client.wait(60) == 0
    assert watch.longest < 5, watch.longest
    heads = {vm.guest.check_cut([out]).heads[0] for out in outs}
    assert len(heads) == 1, heads
    silent = TcpClient(pull.port)
    wait_until(lambda: lab.tidemark_json("status", "--qmp", vm.address)["clients"] == 1, 5)
    assert timed(pull.end) < 3
    assert silent.is_cut_off() and pull.is_closed()
    assert vm.guest.errors() == 0 and relays() == []


@test(timeout=120)
def test_clients_that_misbehave(lab: Lab) -> None:
    vm, pull = machine(lab)
    for name, finish in (("c1", pull.end), ("c2", pull.abort)):
        pull.begin_tcp(name)
        silent, half, stuck, other = (TcpClient(pull.port) for _ in range(4))
        half.socket.sendall(b"\0\0\0\3IHAVE")
        stuck.negotiate("vda")
        for number in range(8):
            stuck.ask(number << 20, 1 << 20)
        other.negotiate("vda")
        with vm.guest.watch() as watch:
            lab.tool("nbdcopy", pull.uri("vda"), "null:")  # the others keep nobody
            took = timed(finish)
        assert took < 3, took
        assert watch.longest < 3, watch.longest
        assert all(client.is_cut_off() for client in (silent, half, stuck, other))
    assert vm.guest.errors() == 0 and relays() == []


@test(timeout=60)
def test_clients_that_come_and_go(lab: Lab) -> None:
    """The relay keeps nothing of them, and rests when there is nothing to carry."""
    vm, pull = machine(lab)
    pull.begin_tcp("c1")
    for number in range(soak(50, 1000)):
        coming = TcpClient(pull.port)
        if number % 2:
            coming.negotiate("vda")
            coming.ask(0, 1 << 20)
        coming.close()
    (relay,) = relays()
    wait_until(lambda: len(os.listdir(f"/proc/{relay}/fd")) < 12, 5, "connections that stay")
    with open(f"/proc/{relay}/stat", encoding="ascii") as stat:
        used = stat.read().split()[13:15]
    time.sleep(1)
    with open(f"/proc/{relay}/stat", encoding="ascii") as stat:
        now = stat.read().split()[13:15]
    assert sum(map(int, now)) - sum(map(int, used)) < 20, (used, now)  # ticks: it does not spin
    pull.end()


@test(timeout=60)
def test_relay_ends_with_qemu_and_with_its_file(lab: Lab) -> None:
    vm, pull = machine(lab)
    pull.begin_tcp("c1")
    (relay,) = relays()
    for descriptor in os.listdir(f"/proc/{relay}/fd"):
        target = os.readlink(f"/proc/{relay}/fd/{descriptor}")
        assert target.startswith(("socket:", "pipe:", "/dev/null")) or target.endswith("/relay"), \
            target
    vm.kill()
    wait_until(lambda: not relays(), 5, "the relay lives on without QEMU")
    lab.tidemark("end", "--qmp", vm.address, rc=1)
    pull.assert_no_files()
    vm.start()
    pull.begin_tcp("c2")
    (relay,) = relays()
    os.kill(relay, signal.SIGKILL)  # somebody ends it: there are no clients any more, no more
    wait_until(pull.is_closed, 5)
    pull.end()
    pull.begin_tcp("c3")
    for where, _, names in os.walk(lab.state):
        if "relay" in names:
            os.unlink(os.path.join(where, "relay"))
    wait_until(lambda: not relays(), 10, "the relay lives on without its file")
    pull.end()


@test(timeout=240)
def test_begin_killed_at_each_step(lab: Lab) -> None:
    vm, pull = machine(lab)
    before = vm.inventory()
    traced = pull.begin_tcp("c2", "--no-guard", env={"TIDEMARK_TEST_TRACE": "1"})
    pull.abort()
    names = re.findall(r"^testpoint \d+ (\S+)", traced.err, re.M)
    first, last = names.index("relay") + 1, names.index("qmp:nbd-server-start:done") + 2
    for number in range(first, last):
        where = f"step {number} {names[number - 1]}"
        pull.begin_tcp("c2", "--no-guard", rc=-9, env={"TIDEMARK_TEST_KILL_AT": str(number)})
        lab.tidemark("abort", "--qmp", vm.address)
        wait_until(lambda: not relays(), 1, where)
        vm.assert_clean()
        pull.assert_no_files()
        assert vm.inventory() == before, where
    # The end, killed anywhere.
    number = 1
    killed = True
    while killed:
        pull.begin_tcp(f"p{number}", "--no-guard")
        killed = lab.tidemark("end", "--qmp", vm.address, rc=(0, -9),
                              env={"TIDEMARK_TEST_KILL_AT": str(number)}).rc != 0
        lab.tidemark("end", "--qmp", vm.address)
        vm.assert_clean()
        assert relays() == [], number
        number += soak(4, 1)
    assert number > 20, number


@test(timeout=60)
def test_addresses(lab: Lab) -> None:
    vm, pull = machine(lab)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        before = vm.inventory()
        for server, words in ((f"name='127.0.0.1' port='{port}'", (str(port), "in use")),
                              ("name='192.0.2.1'", ("192.0.2.1",)),
                              ("name='no.such.name.invalid'", ("no.such.name.invalid",))):
            said = pull.begin_tcp("no", server=f"<server transport='tcp' {server}/>", rc=1).err
            assert all(word in said for word in (*words, "\nhint: ")), said
            assert vm.inventory() == before
            pull.assert_no_files()
    # All addresses of a name, and the port is free again at once.
    for name in ("c1", "c2"):
        pull.begin_tcp(name, server=f"<server transport='tcp' name='localhost' port='{port}'/>")
        for address in {row[4][0] for row in socket.getaddrinfo("localhost", port)}:
            try:
                probe = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
                probe.bind((address, 0))
            except OSError:
                continue  # no address of this host today
            probe.close()
            socket.create_connection((address, port)).close()
        pull.end()


main()
