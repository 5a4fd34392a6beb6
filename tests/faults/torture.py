"""The torture: vmtpd under load, killed again and again, and a judge that counts what became of each message.

    python -m tests.faults.torture [--kills 20] [--seed 1] [--hop-kills 5] [--delay MS] [--defer RATE] [--cut RATE] [--sabotage KIND]

A client, vmtpd and a next hop run as processes of their own; client and hop keep ledgers (ledger.py), which nothing of vmtpd's touches.
vmtpd is killed by SIGKILL at instants drawn by the seed, every fourth within 0.3 seconds after it took its port, when it takes up the
queue. Then the load ends, the queue drains, and the ledgers are compared.

A kill tests what the process holds back; the machine, and what its kernel holds, live on. What is synced when is another test's matter.

*Failures*: exit status 1 where anything was lost or changed, came too often, or was still queued in the end; the folder is kept then.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.endtoend.peers import Daemon, Process, answers, free_port, wait
from tests.faults import sabotaged
from tests.faults.ledger import Verdict, judge

DELIVERIES = 10
RECIPIENTS = 3
"""The most that the client gives one message."""

EARLY = 0.3
"""Seconds in which the daemon takes up its queue, roughly."""

CONFIG = """\
[server]
hostname = relay.example
data = {{folder}}/data

[listener lan]
listen = 127.0.0.1:{{port}}

[limits]
stop-within = {stop_within}

[queue]
retry-first = 1s
retry-max = 3s
window = 200
deliveries = {deliveries}
deliveries-per-destination = {deliveries}
messages-per-connection = 20

[route all]
smarthost = smtp://127.0.0.1:{hop}
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do: restarts by a kill of the daemon and of the hop, the load, the hop's manners (hop.py), seconds for the queue
    to drain and for an orderly stop."""

    kills: int = 20
    hop_kills: int = 0
    seed: int = 1
    sessions: int = 10
    messages_per_second: float = 40.0
    delay: float = 0.0
    defer: float = 0.0
    cut: float = 0.0
    sabotage: str = ""
    drain: float = 90.0
    stop_within: float = 10.0


@dataclass(slots=True)
class Report:
    """What came of it. `queued` recipients were left in the end, `files` are contents that no message needs, `faults` tracebacks."""

    plan: Plan
    verdict: Verdict
    kills: int
    """Of the daemon and of the hop."""
    restarts: list[float] = field(default_factory=list)
    queued: int = 0
    files: int = 0
    faults: int = 0
    status: int = 0
    drained_in: float = 0.0

    @property
    def bound(self) -> int:
        """Recipients that may have come twice: what was in flight at a kill. A cut adds to it, and is not counted."""
        return self.kills * DELIVERIES * RECIPIENTS

    @property
    def good(self) -> bool:
        """Whether the daemon kept its word."""
        verdict, few = self.verdict, bool(self.plan.cut) or self.verdict.duplicates <= self.bound
        return verdict.clean and verdict.acknowledged > 0 and few and not (self.queued or self.faults or self.status)

    def __str__(self) -> str:
        plan, verdict = self.plan, self.verdict
        median = statistics.median(self.restarts) if self.restarts else 0.0
        lines = [
            f"plan          seed {plan.seed}, {plan.kills} restarts, {plan.hop_kills} of the hop; {self.kills} kills in all",
            f"hop           {plan.delay:g} ms, {plan.defer:.0%} deferred, {plan.cut:.0%} cut",
            f"sabotage      {plan.sabotage or 'none'}",
            f"offered       {verdict.offered} messages",
            f"acknowledged  {verdict.acknowledged} recipients",
            f"arrived       {verdict.arrived}, of which {verdict.unpromised} were not acknowledged",
            f"lost          {_some(verdict.lost)}",
            f"corrupt       {_some(verdict.corrupt)}",
            f"duplicates    {verdict.duplicates}, {verdict.duplicates / max(self.kills, 1):.1f} a kill (at most {self.bound})",
            f"still queued  {self.queued} after {self.drained_in:.1f} s; files left over: {self.files}",
            f"restart       {median:.2f} s (median of {len(self.restarts)}), longest {max(self.restarts, default=0):.2f} s",
            f"daemon        {self.faults} tracebacks in its log, exit status {self.status}",
            "good" if self.good else "NOT GOOD",
        ]
        return "\n".join(lines)


class Torture:
    """One run in a folder of its own."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._folder = folder
        self._plan = plan
        self._chance = random.Random(plan.seed)
        self._hop_port = free_port()
        config = CONFIG.format(hop=self._hop_port, deliveries=DELIVERIES, stop_within=f"{plan.stop_within:.0f}s")
        program = ["-m", "tests.faults.sabotaged", plan.sabotage] if plan.sabotage else ["-m", "twisted"]
        self.daemon = Daemon(folder, config, program=[*program, "--log-format=text", "vmtpd"])
        self._kills = 0
        self._restarts: list[float] = []
        self.hop: Process | None = None
        self._client: Process | None = None

    def run(self) -> Report:
        """Do it all. Raises AssertionError where a process does not do its part."""
        with self.ending():
            self.start_hop()
            self.start_daemon()
            self.start_client()
            self._kill_again_and_again()
            time.sleep(0.5)
            self.stop_client()
            queued, seconds = self.drain()
            assert self.daemon.process is not None
            status = self.daemon.process.stop()
            if status == -signal.SIGTERM:
                # So does Twisted, once all is closed: its parent is to know what ended it.
                status = 0
        return Report(
            self._plan,
            self.verdict(),
            self._kills,
            self._restarts,
            queued,
            sum(path.is_file() for path in self.daemon.data.glob("content/*/*")),
            (self._folder / "log").read_text("utf-8", "replace").count("Traceback (most recent call last)"),
            status,
            seconds,
        )

    def verdict(self) -> Verdict:
        """Judge what the ledgers say now."""
        return judge(*((self._folder / name).read_text().splitlines() for name in ("sent", "arrived")))

    def _kill_again_and_again(self) -> None:
        plan, chance = self._plan, self._chance
        hop_dies_at = set(chance.sample(range(plan.kills), min(plan.hop_kills, plan.kills)))
        for number in range(plan.kills):
            time.sleep(chance.uniform(0.1, 2.0))
            if number in hop_dies_at:
                self.kill(self.hop)
                time.sleep(chance.uniform(0.0, 1.0))
                self.start_hop()
            self.kill(self.daemon.process)
            if number % 4 == 3:
                # Once more, while it takes up what the last one left.
                self.daemon.start(wait_for_it=False)
                wait("vmtpd takes its port", self._is_bound)
                time.sleep(chance.uniform(0, EARLY))
                self.kill(self.daemon.process)
            self.start_daemon()

    def kill(self, process: Process | None) -> None:
        """End a process as a crash would."""
        assert process is not None
        process.kill()
        self._kills += 1

    def drain(self) -> tuple[int, float]:
        """Wait until nothing is queued. Returns how many recipients are, and the seconds it took."""
        begun = time.monotonic()
        while True:
            queue = json.loads(self.daemon.ctl("--json", "status"))["queue"]
            queued = queue["queued"] + queue["leased"] + queue["held"]
            seconds = time.monotonic() - begun
            if not queued or seconds > self._plan.drain:
                return queued, seconds
            self.daemon.ctl("retry", "--all", status=None)
            time.sleep(0.5)

    def start_daemon(self) -> None:
        """Start vmtpd, and note how long it took."""
        begun = time.monotonic()
        self.daemon.start()
        self._restarts.append(time.monotonic() - begun)

    def _is_bound(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.daemon.port)) == 0

    def start_hop(self) -> None:
        """Start the hop, with another chance each time."""
        plan = self._plan
        manners = ("--delay", plan.delay, "--defer", plan.defer, "--cut", plan.cut, "--seed", self._chance.random())
        self.hop = self._python("hop", "--port", self._hop_port, "--ledger", self._folder / "arrived", *manners)
        wait("the hop greets", lambda: answers(self._hop_port))

    def start_client(self) -> None:
        """Begin the load."""
        plan = self._plan
        ledger = ("--ledger", self._folder / "sent", "--seed", plan.seed)
        load = ("--sessions", plan.sessions, "--messages-per-second", plan.messages_per_second)
        self._client = self._python("client", "--port", self.daemon.port, *ledger, *load)

    def stop_client(self) -> None:
        """End the load, behind the messages under way."""
        assert self._client is not None
        if self._client.stop():
            raise AssertionError(f"the client failed:\n{self._client.output()[-2000:]}")

    def _python(self, module: str, *arguments: object) -> Process:
        command = [sys.executable, "-m", f"tests.faults.{module}", *map(str, arguments)]
        return Process(command, self._folder / f"{module}.log")

    @contextlib.contextmanager
    def ending(self) -> Iterator[None]:
        """End all processes, whatever happens."""
        try:
            yield
        finally:
            for process in (self._client, self.daemon.process, self.hop):
                if process is not None:
                    process.kill()


def _some(pairs: list[str]) -> str:
    return f"{len(pairs)}{': ' if pairs else ''}{', '.join(pairs[:5])}"


def main() -> int:
    """Run by the command line. Returns the exit status."""
    parser = argparse.ArgumentParser()
    for name, default in Plan.__dataclass_fields__.items():
        value = default.default
        choices = sorted(sabotaged.KINDS) if name == "sabotage" else None
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, choices=choices)
    plan = Plan(**vars(parser.parse_args()))
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    report = Torture(folder, plan).run()
    print(report)
    if report.good:
        shutil.rmtree(folder)
    else:
        print(f"kept: {folder}")
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
