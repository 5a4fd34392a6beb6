"""Real programs to talk to: vmtpd itself, Postfix and its smtp-sink, each in a folder of its own on ports of loopback.

Everything is started here by its pid and ended by its pid. What the machine lacks is said in a sentence (`missing`), so that a test can be
skipped with its reason.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent.parent
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
PATIENCE = 20.0


def find(program: str) -> str:
    """Where a program is, "" where it is missing."""
    return shutil.which(program, path=PATH) or ""


def missing(*programs: str) -> str:
    """One sentence that says what has to be installed, "" where all is there."""
    absent = [program for program in programs if not find(program)]
    return f"not installed: {', '.join(absent)}" if absent else ""


def free_port() -> int:
    """A port of loopback that is free now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def folder(case: SynchronousTestCase, below: str | None = None) -> Path:
    """A folder for one test, with a path short enough for sockets in it. It is removed at the end."""
    made = tempfile.mkdtemp(prefix="vmtpd-", dir=below)
    case.addCleanup(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


def wait(what: str, ready: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait until something is so. Raises AssertionError where it does not become so."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds:.0f} seconds")
        time.sleep(0.02)


def answers(port: int) -> bool:
    """Whether a server greets on a port."""
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as probe:
            return probe.recv(4) == b"220 "
    except OSError:
        return False


class Process:
    """A program that runs until it is ended. What it prints goes to a file."""

    def __init__(self, command: list[str], log: Path, cwd: Path = ROOT, env: dict[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env={**os.environ, "PATH": PATH, **(env or {})},
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    def output(self) -> str:
        """What it printed so far."""
        return self.log.read_text("utf-8", "replace")

    def kill(self) -> None:
        """End it as a crash would."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.kill()
        self._popen.wait(PATIENCE)

    def stop(self, seconds: float = PATIENCE) -> int:
        """Ask it to end. Returns its status."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.send_signal(signal.SIGTERM)
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"process {self.pid} did not end:\n{self.output()[-2000:]}") from None


class Daemon:
    """vmtpd with a configuration of its own."""

    def __init__(
        self,
        folder: Path,
        config: str,
        port: int = 0,
        program: Sequence[str] = ("-m", "twisted", "--log-format=text", "vmtpd"),
    ) -> None:
        """`config` may name {port} and {folder}; `program` is what Python runs."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = port or free_port()
        self.data = folder / "data"
        self.config = folder / "vmtpd.ini"
        self.config.write_text(config.format(port=self.port, folder=folder))
        self.command = [sys.executable, *program, "--config", str(self.config)]
        self.process: Process | None = None

    def start(self, wait_for_it: bool = True) -> None:
        """Start it, and wait until it greets."""
        self.process = Process(
            self.command, self.folder / "log", env={"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        )
        if wait_for_it:
            wait(f"vmtpd greets:\n{self.folder / 'log'}", self.is_up)

    def is_up(self) -> bool:
        """Whether it greets; raises where it has ended."""
        assert self.process is not None
        if not self.process.alive:
            raise AssertionError(f"vmtpd ended:\n{self.process.output()[-3000:]}")
        return answers(self.port) and self.data.joinpath("control").exists()

    def ctl(self, *words: str, status: int | None = 0) -> str:
        """What vmtpctl prints."""
        done = subprocess.run(
            [sys.executable, "-m", "vmtpd.ctl", "--config", str(self.config), *words],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
        )
        if status is not None and done.returncode != status:
            raise AssertionError(f"vmtpctl {words}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout if status == 0 else done.stdout + done.stderr

    def stop(self) -> None:
        """Stop it, if it runs."""
        if self.process is not None and self.process.alive:
            self.process.stop()


class Sink:
    """Postfix's smtp-sink: takes mail and forgets it."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        command = [find("smtp-sink"), *_as_nobody(), *options, f"127.0.0.1:{self.port}", "1000"]
        self.process = Process(command, folder / "sink.log", cwd=folder)
        wait("smtp-sink greets", lambda: answers(self.port))

    def stop(self) -> None:
        """End it."""
        self.process.kill()


_POSTFIX_MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = postfix.example.net
mydestination =
inet_interfaces = loopback-only
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_peername_lookup = no
maillog_file_prefixes = {folder}
maillog_file = {folder}/maillog
virtual_mailbox_domains = example.net
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = static:all/
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
alias_maps =
alias_database =
message_size_limit = 60000000
mailbox_size_limit = 0
virtual_mailbox_limit = 0
"""

_POSTFIX_MASTER = """\
127.0.0.1:{port} inet n - n - {limit} smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - {limit} smtp
relay unix - - n - {limit} smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """A Postfix of its own, which keeps mail for example.net in the Maildir `mail/all` and relays what `settings` say."""

    def __init__(self, folder: Path, settings: str = "", limit: int = 50) -> None:
        self.folder = folder
        self.port = free_port()
        user = pwd.getpwnam("postfix")
        for name in ("queue", "data", "mail", "etc"):
            (folder / name).mkdir(parents=True)
        os.chown(folder / "data", user.pw_uid, user.pw_gid)
        os.chown(folder / "mail", user.pw_uid, user.pw_gid)
        for path in (folder, folder.parent):
            path.chmod(0o755)
        main = _POSTFIX_MAIN.format(folder=folder, uid=user.pw_uid, gid=user.pw_gid) + settings
        (folder / "etc" / "main.cf").write_text(main)
        (folder / "etc" / "master.cf").write_text(_POSTFIX_MASTER.format(port=self.port, limit=limit))
        self.start()

    def start(self) -> None:
        """Start it."""
        self._postfix("start")
        wait("Postfix greets", lambda: answers(self.port))

    def stop(self) -> None:
        """Stop it."""
        self._postfix("stop")

    def _postfix(self, verb: str) -> None:
        command = [find("postfix"), "-c", str(self.folder / "etc"), verb]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "PATH": PATH})
        if done.returncode:
            raise AssertionError(f"postfix {verb}: {done.stdout}{done.stderr}")

    def mails(self) -> list[bytes]:
        """What has arrived."""
        return [path.read_bytes() for path in sorted((self.folder / "mail" / "all" / "new").glob("*"))]


def _as_nobody() -> list[str]:
    return ["-u", "nobody"] if os.geteuid() == 0 else []


def mails(maildir: Path) -> list[bytes]:
    """The messages in a Maildir."""
    return [path.read_bytes() for path in sorted((maildir / "new").glob("*"))]


@contextlib.contextmanager
def running(*peers: Daemon | Sink | Postfix) -> Iterator[None]:
    """End peers at the end, whatever happens."""
    try:
        yield
    finally:
        for peer in peers:
            peer.stop()
