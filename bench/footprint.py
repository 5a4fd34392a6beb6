"""What the relay weighs, and how it bears rare loads.

    python -m bench.footprint

Memory is PSS (this process's share of all its pages), in MiB: idle; with 10,000 messages queued behind a dead host; while a message of
25 MiB comes in and leaves; with 2000 idle clients. And the time that one message to 1000 recipients takes.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import smtplib
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from bench.relay import CONFIG, load
from tests.endtoend.peers import Daemon, Sink, free_port, missing, wait


def pss(pid: int, field: str = "Pss") -> float:
    """MiB of a process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise ValueError(field)


class Peak:
    """The greatest PSS of a process while a block runs, looked at every 10 ms."""

    def __init__(self, pid: int) -> None:
        self.mib = 0.0
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            self.mib = max(self.mib, pss(self._pid))

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def left(daemon: Daemon, recipients: int) -> bool:
    """Whether so many recipients have left."""
    return daemon.folder.joinpath("log").read_text().count(" relayed ") >= recipients


@contextlib.contextmanager
def relay(folder: Path, hop: int) -> Iterator[tuple[Daemon, int]]:
    """A relay in front of a hop, and its pid."""
    daemon = Daemon(folder, CONFIG.replace("SINK", str(hop)))
    daemon.start()
    assert daemon.process is not None
    try:
        yield daemon, daemon.process.pid
    finally:
        daemon.stop()


def report(what: str, value: float, unit: str, bound: float = 0.0) -> None:
    """One line."""
    print(f"{what:44} {value:8.1f} {unit}" + (f"   (at most {bound:.0f})" if bound else ""), flush=True)


def queued(folder: Path, messages: int) -> None:
    """A queue behind a dead host."""
    with relay(folder, free_port()) as (daemon, pid):
        report("idle", pss(pid), "MiB", 60)
        took = load(daemon.port, messages, 1024)
        report(f"{messages} queued behind a dead host", pss(pid), "MiB", 80)
        report("  taken, durable, next hop down", messages / took, "messages/s")


def large(folder: Path, mebibytes: int) -> None:
    """One large message."""
    sink = Sink(folder)
    with relay(folder / "relay", sink.port) as (daemon, pid):
        body = b"Subject: scan\r\n\r\n" + (b"x" * 76 + b"\r\n") * (mebibytes * 1024 * 1024 // 78)
        begin = time.monotonic()
        with Peak(pid) as peak:
            with smtplib.SMTP("127.0.0.1", daemon.port) as client:
                client.sendmail("ann@example.org", ["bob@example.net"], body)
            accepted = time.monotonic() - begin
            wait("it has left", lambda: left(daemon, 1), 60)
        report(f"a message of {mebibytes} MiB, peak", peak.mib, "MiB", 120)
        report("  taken at", mebibytes / accepted, "MiB/s")
    sink.stop()


def recipients(folder: Path, number: int) -> None:
    """One message to many."""
    sink = Sink(folder)
    with relay(folder / "relay", sink.port) as (daemon, _):
        begin = time.monotonic()
        with smtplib.SMTP("127.0.0.1", daemon.port) as client:
            client.sendmail(
                "ann@example.org", [f"u{n}@example.net" for n in range(number)], b"Subject: x\r\n\r\nhi\r\n"
            )
        report(f"{number} recipients, until 250", (time.monotonic() - begin) * 1000, "ms")
        wait("all have left", lambda: left(daemon, number), 60)
        report("  until all have left", (time.monotonic() - begin) * 1000, "ms")
    sink.stop()


def idle(folder: Path, clients: int) -> None:
    """Many clients who say nothing."""
    with relay(folder, free_port()) as (daemon, pid), contextlib.ExitStack() as stack:
        begin = time.monotonic()
        connected = [
            stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port), 10)) for _ in range(clients)
        ]
        greeted = sum(client.recv(4) == b"220 " for client in connected)
        report(f"{clients} idle clients, of whom are greeted", greeted, "")
        report("  in", time.monotonic() - begin, "s")
        report("  memory", pss(pid), "MiB", 100)


def main() -> None:
    """All of it."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--messages", type=int, default=10000)
    options.add_argument("--mebibytes", type=int, default=25)
    options.add_argument("--recipients", type=int, default=1000)
    options.add_argument("--clients", type=int, default=2000)
    given = options.parse_args()
    if lack := missing("smtp-source", "smtp-sink"):
        raise SystemExit(lack)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, given.clients + 200), hard))
    with tempfile.TemporaryDirectory(prefix="vmtpd-bench-", dir=Path.cwd()) as name:
        folder = Path(name)
        folder.chmod(0o755)
        for part, measure, size in (
            ("queued", queued, given.messages),
            ("large", large, given.mebibytes),
            ("recipients", recipients, given.recipients),
            ("idle", idle, given.clients),
        ):
            (folder / part).mkdir()
            measure(folder / part, size)


if __name__ == "__main__":
    main()
