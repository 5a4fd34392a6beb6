"""How fast mail is accepted and relayed, beside a tuned Postfix, on this machine.

    python -m bench.relay [--messages 5000] [--rounds 3] [--alone]

Both relays get the same load (`smtp-source -d -s 20 -l 1024`) and have the same next hop (smtp-sink). They take turns, round by round,
since rates of a shared machine drift; what counts is the ratio of the medians. First the next hop is down, and "accept" is the
rate of the 250s. Then it is up: "relay" counts until the last message has left, with accepting and relaying at once. CPU is that of all
processes of a relay, in microseconds a message.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.endtoend.peers import Daemon, Postfix, Sink, find, free_port, missing, wait

CONFIG = """\
[server]
data = {folder}/data
hostname = mx.example.org
[listener lan]
listen = 127.0.0.1:{port}
[limits]
connections-per-client = 4000
[route out]
smarthost = smtp://127.0.0.1:SINK
tls = none
"""

TUNED = """\
relayhost = [127.0.0.1]:{sink}
default_process_limit = 50
smtpd_client_connection_count_limit = 0
smtpd_client_event_limit_exceptions = static:all
in_flow_delay = 0
smtp_connection_cache_on_demand = yes
smtp_connection_cache_destinations = 127.0.0.1
smtp_connection_reuse_count_limit = 1000
default_destination_concurrency_limit = 20
initial_destination_concurrency = 20
smtp_dns_support_level = disabled
smtp_host_lookup = native
smtpd_milters =
non_smtpd_milters =
"""


class Run(NamedTuple):
    """One round: messages a second, and microseconds of CPU a message."""

    rate: float
    cpu: float


def processes(root: int) -> list[int]:
    """A process and all below it."""
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        try:
            waiting += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        except OSError:
            continue
    return found


def cpu(root: int) -> float:
    """Seconds of CPU that a process and those below it have used, ended children included."""
    ticks = 0
    for pid in processes(root):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def load(port: int, messages: int, size: int, sessions: int = 20, recipients: int = 1) -> float:
    """Send messages; seconds until the last 250."""
    command = [find("smtp-source"), "-d", "-s", str(sessions), "-l", str(size), "-m", str(messages)]
    command += ["-r", str(recipients), "-f", "ann@example.org", "-t", "bob@example.net", f"127.0.0.1:{port}"]
    begin = time.monotonic()
    subprocess.run(command, check=True, timeout=600)
    return time.monotonic() - begin


def round_of(port: int, root: int, messages: int, size: int, log: Path, mark: bytes) -> Run:
    """Send messages; where there is a mark, wait until it stands in the log as often."""
    before, used = log.stat().st_size, cpu(root)
    begin = time.monotonic()
    load(port, messages, size)

    def all_left() -> bool:
        with log.open("rb") as file:
            file.seek(before)
            return file.read().count(mark) >= messages

    if mark:
        wait("all has left", all_left, 300)
    took = time.monotonic() - begin
    return Run(messages / took, (cpu(root) - used) / messages * 1e6)


def compare(folder: Path, given: argparse.Namespace, hop: int, what: str) -> None:
    """Rounds of both relays, in turns, and what came of them."""
    daemon = Daemon(folder / "vmtpd", CONFIG.replace("SINK", str(hop)))
    postfix = None if given.alone else Postfix(folder / "postfix", TUNED.format(sink=hop))
    ours: list[Run] = []
    theirs: list[Run] = []
    relaying = what == "relay"
    try:
        daemon.start()
        assert daemon.process is not None
        for _ in range(given.rounds):
            if postfix:
                master = int((postfix.folder / "queue/pid/master.pid").read_text())
                mark = b"status=sent" if relaying else b""
                log = postfix.folder / "maillog"
                theirs.append(round_of(postfix.port, master, given.messages, given.size, log, mark))
            mark = b" relayed " if relaying else b""
            log = daemon.folder / "log"
            ours.append(round_of(daemon.port, daemon.process.pid, given.messages, given.size, log, mark))
    finally:
        daemon.stop()
        if postfix:
            postfix.stop()
    us = shown(f"{what}: vmtpd", ours)
    if theirs:
        them = shown(f"{what}: postfix", theirs)
        print(f"{what}: ratio      {us.rate / them.rate:6.2f}    CPU {us.cpu / them.cpu:5.2f}", flush=True)


def shown(name: str, runs: list[Run]) -> Run:
    """Print the medians of a relay's rounds."""
    medians = Run(*(statistics.median(column) for column in zip(*runs, strict=True)))
    spread = ", ".join(f"{run.rate:.0f}" for run in runs)
    print(f"{name:16} {medians.rate:6.0f}/s  CPU {medians.cpu:5.0f} us  ({spread})", flush=True)
    return medians


def main() -> None:
    """Take turns, and print medians and ratios."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--messages", type=int, default=5000)
    options.add_argument("--size", type=int, default=1024)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--alone", action="store_true", help="without Postfix")
    given = options.parse_args()
    if lack := missing("smtp-source", "smtp-sink", "postfix"):
        raise SystemExit(lack)
    with tempfile.TemporaryDirectory(prefix="vmtpd-bench-", dir=Path.cwd()) as name:
        folder = Path(name)
        folder.chmod(0o755)
        print(
            f"{given.messages} messages of {given.size} octets, 20 sessions, medians of {given.rounds} rounds:",
            flush=True,
        )
        compare(folder / "down", given, free_port(), "accept")
        (folder / "up").mkdir()
        sink = Sink(folder / "up")
        try:
            compare(folder / "up", given, sink.port, "relay")
        finally:
            sink.stop()


if __name__ == "__main__":
    main()
