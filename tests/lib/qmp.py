# SPDX-License-Identifier: LGPL-2.1-or-later
"""A small QMP client for tests. One thread, blocking, replies matched by id, events kept.

It shares no code with the product's client, on purpose.
"""
from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable


class QmpError(Exception):
    """QEMU refused a command."""

    def __init__(self, command: str, error: dict) -> None:
        super().__init__(f"{command}: {error['class']}: {error['desc']}")
        self.cls = error["class"]
        self.desc = error["desc"]


def action(kind: str, /, **data) -> dict:
    """One action of a transaction; underscores in names become dashes."""
    return {"type": kind, "data": _dashes(data)}


def bitmap_add(node: str, name: str, *, persistent: bool = True, **more) -> dict:
    """The action that adds a bitmap."""
    return action("block-dirty-bitmap-add", node=node, name=name, persistent=persistent, **more)


def _dashes(names: dict) -> dict:
    return {name.replace("_", "-"): value for name, value in names.items()}


class Qmp:
    """A connection to a QMP unix socket, negotiated and ready.

    `transcript` is a file to which every message is written, for the logs of a failed test.
    """

    def __init__(self, path: str, *, timeout: float = 30, transcript: str | None = None,
                 alive: Callable[[], bool] = lambda: True) -> None:
        self.events: list[dict] = []
        self._buffer = b""
        self._id = 0
        self._log = open(transcript, "a", encoding="utf-8") if transcript else None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        limit = time.monotonic() + timeout
        while True:
            try:
                self._socket.connect(path)
                break
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > limit or not alive():
                    raise
                time.sleep(0.01)
        self.greeting = self._receive(timeout)["QMP"]
        self.command("qmp_capabilities")

    def close(self) -> None:
        self._socket.close()
        if self._log:
            self._log.close()
            self._log = None

    @property
    def version(self) -> tuple[int, int, int]:
        qemu = self.greeting["version"]["qemu"]
        return qemu["major"], qemu["minor"], qemu["micro"]

    def command(self, name: str, args: dict | None = None, /, *, timeout: float = 60, **more):
        """Runs a command and returns its value. `more` are arguments too, with _ for -."""
        arguments = {**(args or {}), **_dashes(more)}
        self._id += 1
        message = {"execute": name, "id": self._id}
        if arguments:
            message["arguments"] = arguments
        self._note(">", json.dumps(message))
        self._socket.settimeout(timeout)
        self._socket.sendall(json.dumps(message).encode() + b"\n")
        limit = time.monotonic() + timeout
        while True:
            reply = self._receive(limit - time.monotonic())
            if "event" in reply:
                self.events.append(reply)
            elif reply.get("id") != self._id:
                raise AssertionError(f"reply to nobody: {reply}")
            elif "error" in reply:
                raise QmpError(name, reply["error"])
            else:
                return reply["return"]

    def try_command(self, name: str, args: dict | None = None, /, **more) -> QmpError | None:
        """Runs a command that may be refused: None, or the refusal."""
        try:
            self.command(name, args, **more)
            return None
        except QmpError as why:
            return why

    def transaction(self, *actions: dict):
        """Runs actions (see `action`) as one."""
        return self.command("transaction", actions=list(actions))

    def hmp(self, line: str) -> str:
        """Runs a command of the human monitor."""
        return self.command("human-monitor-command", command_line=line)

    def poll(self) -> list[dict]:
        """Takes in what has arrived, and returns (and forgets) all events so far."""
        while True:
            try:
                self.events.append(self._receive(0.001))
            except TimeoutError:
                break
        found, self.events = self.events, []
        return found

    def wait_event(self, name: str, /, timeout: float = 30, **data) -> dict:
        """Waits for an event whose data contain `data`; returns and forgets it, keeps others."""
        wanted = _dashes(data).items()
        limit = time.monotonic() + timeout
        seen = 0
        while True:
            for index in range(seen, len(self.events)):
                event = self.events[index]
                if event["event"] == name and wanted <= _hashable(event.get("data", {})):
                    return self.events.pop(index)
            seen = len(self.events)
            left = limit - time.monotonic()
            if left <= 0:
                raise AssertionError(f"no event {name} {data} within {timeout} s")
            try:
                self.events.append(self._receive(left))
            except TimeoutError:
                continue

    def wait_job(self, job: str, timeout: float = 60) -> dict | None:
        """Waits until a job has concluded (returns its row) or is gone (None)."""
        limit = time.monotonic() + timeout
        while True:
            rows = [row for row in self.command("query-jobs") if row["id"] == job]
            if not rows:
                return None
            if rows[0]["status"] == "concluded":
                return rows[0]
            if time.monotonic() > limit:
                raise AssertionError(f"job not concluded within {timeout} s: {rows[0]}")
            time.sleep(0.02)

    def _receive(self, timeout: float) -> dict:
        limit = time.monotonic() + timeout
        while b"\n" not in self._buffer:
            self._socket.settimeout(max(0.001, limit - time.monotonic()))
            data = self._socket.recv(1 << 16)
            if not data:
                raise EOFError("QEMU closed its monitor")
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        self._note("<", line.decode())
        return json.loads(line)

    def _note(self, direction: str, text: str) -> None:
        if self._log:
            self._log.write(f"{time.time():.3f} {direction} {text.strip()}\n")
            self._log.flush()


def _hashable(data: dict):
    return {key: value for key, value in data.items()
            if isinstance(value, (str, int, bool))}.items()
