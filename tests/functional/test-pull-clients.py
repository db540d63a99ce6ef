#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: whatever NBD clients do (many at once, never negotiating, never reading their answers,
coming and going), the guest's writes go on, and `end` completes in bounded time and puts them out.

QEMU before 10 freezes, guest and all, when its NBD server is stopped over a client that has not
negotiated: `end` must wait that client out instead."""
import os
import time

from lab import Guest, Lab, main, soak, test, wait_until
from pull import Pull, RawClient


def machine(lab: Lab, size: str = "32M", **how):
    lab.need("nbdcopy", "nbdinfo")
    vda = lab.disk("vda", size)
    lab.writer(vda).write_random(0, 8 << 20, lab.rng)
    vm = lab.vm([vda], guest=Guest(slots=512, base=16 << 20, pause_us=0, **how))
    vm.guest.wait(20)
    return vm, Pull(lab, vm)


def timed(action) -> float:
    begun = time.monotonic()
    action()
    return time.monotonic() - begun


@test(timeout=120)
def test_sixteen_clients_at_once(lab: Lab) -> None:
    vm, pull = machine(lab)
    pull.begin("c1")
    with vm.guest.watch() as watch:
        outs = [lab.fresh(".raw") for _ in range(16)]
        clients = [lab.tool_popen("nbdcopy", pull.uri("vda"), out) for out in outs]
        vm.guest.wait(50)
        for client in clients:
            assert client.wait(60) == 0
    assert watch.longest < 5, watch.longest
    heads = {vm.guest.check_cut([out]).heads[0] for out in outs}
    assert len(heads) == 1, heads  # all saw the same instant
    took = timed(pull.end)
    assert took < 5, took
    assert vm.guest.errors() == 0


@test(timeout=120)
def test_end_and_abort_under_reading_clients(lab: Lab) -> None:
    vm, pull = machine(lab)
    for name, finish in (("c1", pull.end), ("c2", pull.abort)):
        pull.begin(name)
        clients = [RawClient(pull.socket) for _ in range(16)]
        for client in clients:
            client.negotiate("vda")
            for number in range(4):
                client.ask(number << 20, 1 << 20)
        with vm.guest.watch() as watch:
            took = timed(finish)
        assert took < 10, took
        assert watch.longest < 3, watch.longest
        assert all(client.is_cut_off() for client in clients)
    assert vm.guest.errors() == 0


@test(timeout=120)
def test_client_that_never_negotiates(lab: Lab) -> None:
    vm, pull = machine(lab)
    for name, finish in (("c1", pull.end), ("c2", pull.abort)):
        pull.begin(name)
        # One that says nothing at all, one that stops half way.
        silent, half = RawClient(pull.socket), RawClient(pull.socket)
        half.socket.sendall(b"\0\0\0\3IHAVE")
        with vm.guest.watch() as watch:
            took = timed(finish)
        assert took < 15, took
        # Above all no freeze: without the remedy the guest would stand until the client leaves.
        assert watch.longest < 3, watch.longest
        assert silent.is_cut_off() and half.is_cut_off()
    assert vm.guest.errors() == 0


@test(timeout=120)
def test_client_that_stops_reading(lab: Lab) -> None:
    vm, pull = machine(lab)
    pull.begin("c1")
    stuck = RawClient(pull.socket)
    stuck.negotiate("vda")
    for number in range(8):  # far more than a socket's buffer takes
        stuck.ask(number << 20, 1 << 20)
    with vm.guest.watch() as watch:
        vm.guest.wait(300)
        lab.tool("nbdcopy", pull.uri("vda"), "null:")  # others are served meanwhile
        took = timed(pull.end)
    assert took < 5, took
    assert watch.longest < 3, watch.longest
    assert stuck.is_cut_off()
    assert vm.guest.errors() == 0


@test(timeout=120)
def test_all_of_them_at_once(lab: Lab) -> None:
    vm, pull = machine(lab)
    pull.begin("c1")
    readers = [lab.tool_popen("nbdcopy", pull.uri("vda"), "null:") for _ in range(8)]
    odd = [RawClient(pull.socket) for _ in range(4)]
    odd[0].negotiate("vda")
    odd[0].ask(0, 8 << 20)
    odd[1].negotiate("vda")
    odd[2].socket.sendall(b"\0\0")
    with vm.guest.watch() as watch:
        vm.guest.wait(50)
        took = timed(pull.end)
    for reader in readers:
        reader.wait(20)
    assert took < 15, took
    assert watch.longest < 3, watch.longest
    assert all(client.is_cut_off() for client in odd)
    assert vm.guest.errors() == 0


@test(timeout=120)
def test_clients_that_come_and_go(lab: Lab) -> None:
    vm, pull = machine(lab)
    model = lab.raw(vm["vda"].path, shared=True)
    pull.begin("c1")
    with vm.guest.watch() as watch:
        for number in range(soak(60, 1000)):
            client = RawClient(pull.socket)
            if number % 3:
                client.negotiate("vda")
            if number % 3 == 2:
                client.ask(number % 8 << 20, 1 << 20)
            client.close()
        vm.guest.wait(20)
    assert watch.longest < 3, watch.longest
    raw = lab.fresh(".raw")
    lab.tool("nbdcopy", pull.uri("vda"), raw)
    with open(raw, "rb") as copied, open(model, "rb") as before:
        assert copied.read(8 << 20) == before.read(8 << 20)
    vm.guest.check_cut([raw])
    refused = lab.tool("nbdinfo", pull.uri("nothing"), rc=1)
    assert "nothing" in refused.err, refused.err
    pull.end()
    assert vm.guest.errors() == 0


@test(timeout=60)
def test_end_without_clients_is_quick(lab: Lab) -> None:
    vm, pull = machine(lab)
    best = 60.0
    for number in range(3):
        pull.begin(f"c{number}")
        lab.tool("nbdcopy", pull.uri("vda"), "null:")
        best = min(best, timed(lambda: lab.tidemark("end", "--qmp", vm.address)))
        vm.assert_clean()
    assert best < 1, best
    # Who comes after the end finds nobody.
    assert not os.path.exists(pull.socket)


@test(timeout=60)
def test_socket_with_a_space_in_its_name(lab: Lab) -> None:
    vm, pull = machine(lab)
    pull.socket = os.path.join(lab.sockets, "an nbd socket")
    pull.begin("c1")
    silent = RawClient(pull.socket)
    with vm.guest.watch() as watch:
        took = timed(pull.end)
    assert took < 15 and watch.longest < 3, (took, watch.longest)
    assert silent.is_cut_off()


@test(timeout=60)
def test_socket_removed_by_somebody(lab: Lab) -> None:
    vm, pull = machine(lab)
    pull.begin("c1")
    os.unlink(pull.socket)
    pull.end()
    wait_until(lambda: not vm.nbd_server_runs(), 10)


main()
