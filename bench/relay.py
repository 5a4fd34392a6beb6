"""How fast mail is accepted and relayed, beside a tuned Postfix, on this machine.

    python -m bench.relay [--messages 5000] [--rounds 3] [--alone]

Both relays get the same load (`smtp-source -d -s 20 -l 1024`) and have the same next hop (smtp-sink). They take turns, round by round,
since rates of a shared machine drift; what counts is the ratio of the medians. "accept" is the rate of the 250s while relaying goes on
as it will; "relay" counts until the last message has left. CPU is that of all processes of a relay, in microseconds a message.
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

from tests.endtoend.peers import Daemon, Postfix, Sink, find, missing, wait

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
    """One round: messages a second and microseconds of CPU a message."""

    accept: float
    relay: float
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


def through_vmtpd(daemon: Daemon, messages: int, size: int) -> Run:
    """A round through vmtpd."""
    assert daemon.process is not None
    log = daemon.folder / "log"
    before, used = log.stat().st_size, cpu(daemon.process.pid)
    begin = time.monotonic()
    accepted = load(daemon.port, messages, size)

    def all_left() -> bool:
        with log.open("rb") as file:
            file.seek(before)
            return file.read().count(b" relayed ") >= messages

    wait("all has left", all_left, 300)
    took = time.monotonic() - begin
    return Run(messages / accepted, messages / took, (cpu(daemon.process.pid) - used) / messages * 1e6)


def through_postfix(postfix: Postfix, messages: int, size: int) -> Run:
    """A round through Postfix."""
    master = int((postfix.folder / "queue/pid/master.pid").read_text())
    log = postfix.folder / "maillog"
    before, used = log.stat().st_size, cpu(master)
    begin = time.monotonic()
    accepted = load(postfix.port, messages, size)

    def all_left() -> bool:
        with log.open("rb") as file:
            file.seek(before)
            return file.read().count(b"status=sent") >= messages

    wait("all has left", all_left, 300)
    took = time.monotonic() - begin
    return Run(messages / accepted, messages / took, (cpu(master) - used) / messages * 1e6)


def shown(name: str, runs: list[Run]) -> Run:
    """Print the medians of a relay's rounds."""
    medians = Run(*(statistics.median(column) for column in zip(*runs, strict=True)))
    spread = ", ".join(f"{run.accept:.0f}/{run.relay:.0f}" for run in runs)
    print(f"{name:8} accept {medians.accept:6.0f}/s  relay {medians.relay:6.0f}/s  {medians.cpu:5.0f} us  ({spread})")
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
        sink = Sink(folder)
        daemon = Daemon(folder / "vmtpd", CONFIG.replace("SINK", str(sink.port)))
        postfix = None if given.alone else Postfix(folder / "postfix", TUNED.format(sink=sink.port))
        try:
            daemon.start()
            ours: list[Run] = []
            theirs: list[Run] = []
            for _ in range(given.rounds):
                if postfix:
                    theirs.append(through_postfix(postfix, given.messages, given.size))
                ours.append(through_vmtpd(daemon, given.messages, given.size))
            print(f"{given.messages} messages of {given.size} octets, {given.rounds} rounds, 20 sessions, medians:")
            us = shown("vmtpd", ours)
            if postfix:
                them = shown("postfix", theirs)
                ratios = f"accept {us.accept / them.accept:.2f}  relay {us.relay / them.relay:.2f}"
                print(f"ratio    {ratios}  CPU {us.cpu / them.cpu:.2f}")
        finally:
            daemon.stop()
            sink.stop()
            if postfix:
                postfix.stop()


if __name__ == "__main__":
    main()
