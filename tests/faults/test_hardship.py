"""What a machine does to a daemon: stops under load, a full disk, two daemons for one place, a bad configuration, files that are gone."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.endtoend.peers import Daemon, folder, wait
from tests.faults.client import Refused, Session
from tests.faults.ledger import MARK
from tests.faults.torture import Plan, Torture

TWISTD = ("-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile=", "vmtpd")

LARGE = 200_000
"""Octets of a message whose content is a file."""


class Hardship(SynchronousTestCase):
    """A scene of daemon and hop in a folder of trial's; all processes are ended in the end."""

    def scene(self, plan: Plan, folder: Path | None = None) -> Torture:
        """Nothing runs yet."""
        folder = folder or self.folder()
        scene = Torture(folder, plan)
        ending = scene.ending()
        ending.__enter__()
        self.addCleanup(ending.__exit__, None, None, None)
        return scene

    def folder(self) -> Path:
        """A folder for one scene."""
        return folder(self)

    def ended(self, daemon: Daemon, seconds: float = 10.0) -> tuple[int, str]:
        """The status and the words of a daemon that cannot start."""
        daemon.start(wait_for_it=False)
        process = daemon.process
        assert process is not None
        self.addCleanup(process.kill)
        wait("vmtpd ends", lambda: not process.alive, seconds)
        return process.stop(), process.output()

    def twistd(self, config: str, port: int = 0) -> Daemon:
        """A daemon as a service manager runs it."""
        return Daemon(self.folder(), config, port, TWISTD)

    def sentence(self, output: str) -> str:
        """The one line that is not twistd's; more than one, or a traceback, fails the test."""
        self.assertNotIn("Traceback", output)
        lines = [line for line in output.splitlines() if "vmtpd: " in line]
        self.assertEqual(len(lines), 1, output)
        return "vmtpd: " + lines[0].partition("vmtpd: ")[2]


def message(id: str, size: int) -> bytes:
    """A message of about a size."""
    head = MARK + id.encode() + b"\r\nFrom: <client@client.example>\r\n\r\n"
    return head + b"0123456789abcdef\r\n" * (size // 18 + 1)


def send(scene: Torture, id: str, size: int) -> None:
    """Send one message. Raises Refused."""
    session = Session(scene.daemon.port, pipelined=False)
    try:
        session.send("client@client.example", [f"{id}@one.example"], message(id, size))
    finally:
        session.close()


def arrived(scene: Torture) -> set[str]:
    """The ids in the hop's ledger."""
    path = scene.daemon.folder / "arrived"
    return {line.split()[0] for line in path.read_text().splitlines()} if path.exists() else set()


class StopTests(Hardship):
    """SIGTERM."""

    def test_under_load(self) -> None:
        """Stopped and started again under load, vmtpd loses nothing and sends nothing twice."""
        scene = self.scene(Plan(delay=100.0))
        scene.start_hop()
        scene.start_daemon()
        scene.start_client()
        for _ in range(3):
            time.sleep(1.2)
            assert scene.daemon.process is not None
            begun = time.monotonic()
            self.assertIn(scene.daemon.process.stop(), (0, -signal.SIGTERM))
            self.assertLess(time.monotonic() - begun, 3.0)
            scene.start_daemon()
        scene.stop_client()
        self.assertEqual(scene.drain()[0], 0)
        verdict = scene.verdict()
        self.assertGreater(verdict.acknowledged, 50)
        self.assertEqual((verdict.lost, verdict.corrupt, verdict.duplicates), ([], [], 0))

    def test_nobody_moves(self) -> None:
        """A client that stalls and a hop that does not answer hold a stop up for `stop-within` together, and no longer."""
        scene = self.scene(Plan(delay=60_000.0, stop_within=2.0))
        scene.start_hop()
        scene.start_daemon()
        send(scene, "m1", 500)
        wait("the hop has it", lambda: arrived(scene) == {"m1"})
        with socket.create_connection(("127.0.0.1", scene.daemon.port), 5) as stalled:
            stalled.sendall(b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<ann@one.example>\r\nDATA\r\nhalf a mess")
            time.sleep(0.3)
            assert scene.daemon.process is not None
            begun = time.monotonic()
            scene.daemon.process.stop()
            self.assertLess(time.monotonic() - begun, 3.5)


class DiskTests(Hardship):
    """A disk without room."""

    def mounted(self) -> Path:
        """A disk of 64 MiB. Skips where none may be mounted."""
        folder = self.folder()
        mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(folder)]
        done = subprocess.run(mount, capture_output=True, text=True)
        if done.returncode:
            raise SkipTest(f"no disk may be mounted here: {done.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", "-l", str(folder)], check=True)
        return folder

    def test_full(self) -> None:
        """On a full disk new mail gets 452 and what waits still leaves; with room again, mail is taken again."""
        folder = self.mounted()
        scene = self.scene(Plan(), folder)
        ini = scene.daemon.config
        ini.write_text(ini.read_text().replace("[queue]\n", "[queue]\nmin-free = 1M\n"))
        scene.start_daemon()
        kept = {f"m{n}" for n in range(20)}
        for n in range(20):
            send(scene, f"m{n}", LARGE if n % 2 else 500)
        with (folder / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(bytes(4096))
        for id in ("full1", "full2"):
            for size in (500, LARGE):
                with self.assertRaises(Refused) as raised:
                    send(scene, id, size)
                self.assertEqual(raised.exception.args[0][:10], b"452 4.3.1 ")
        scene.start_hop()
        self.assertEqual(scene.drain()[0], 0)
        self.assertEqual(arrived(scene), kept)
        (folder / "filler").unlink()
        wait("vmtpd takes mail again", lambda: self.takes(scene), 5)
        wait("it arrives", lambda: arrived(scene) == kept | {"again"}, 5)

    def takes(self, scene: Torture) -> bool:
        """Whether a message is taken."""
        try:
            send(scene, "again", 500)
        except Refused:
            time.sleep(0.2)
            return False
        return True


class PlaceTests(Hardship):
    """One place, two daemons."""

    def test_same_folder(self) -> None:
        """A second daemon on a data folder says so in one sentence, and ends with status 1; the first one goes on."""
        scene = self.scene(Plan())
        scene.start_daemon()
        assert scene.daemon.process is not None
        config = scene.daemon.config.read_text().replace(f":{scene.daemon.port}\n", ":{port}\n")
        status, output = self.ended(self.twistd(config))
        self.assertEqual(status, 1, output)
        self.assertIn(f"is in use by another daemon (process {scene.daemon.process.pid})", self.sentence(output))
        send(scene, "m1", 500)

    def test_same_port(self) -> None:
        """A port that is taken is named in one sentence, and the status is 1."""
        scene = self.scene(Plan())
        scene.start_daemon()
        config = scene.daemon.config.read_text().replace(str(scene.daemon.data), "{folder}/data")
        status, output = self.ended(self.twistd(config))
        self.assertEqual(status, 1, output)
        port = scene.daemon.port
        self.assertEqual(self.sentence(output), f"vmtpd: cannot listen on 127.0.0.1:{port}: Address already in use")

    def test_bad_configuration(self) -> None:
        """Each mistake of a configuration has its line, with the file and where in it, and the status is 1."""
        bad = "[server]\ndata = {folder}/data\n[listener lan]\nlisten = nonsense:port\n[queue]\nretry-first = soon\n"
        daemon = self.twistd(bad)
        status, output = self.ended(daemon)
        self.assertEqual(status, 1, output)
        self.assertNotIn("Traceback", output)
        for line, option in ((4, "listen"), (6, "retry-first")):
            self.assertRegex(output, rf"vmtpd\.ini:{line}: .*{option}")
        self.assertFalse(daemon.data.exists())


class FileTests(Hardship):
    """Contents that the disk lost or cut while the daemon was down."""

    def queued(self) -> tuple[Torture, list[Path]]:
        """A daemon that is down and holds m0 to m5, half of them large; the files of the large ones."""
        scene = self.scene(Plan())
        scene.start_daemon()
        for n in range(6):
            send(scene, f"m{n}", LARGE if n % 2 else 500)
        assert scene.daemon.process is not None
        scene.daemon.process.stop()
        files = sorted(scene.daemon.data.glob("content/*/*"))
        self.assertEqual(len(files), 3)
        return scene, files

    def restarted(self, scene: Torture, why: str) -> None:
        """Start all again: five messages arrive, and the operator reads why the sixth does not."""
        scene.start_hop()
        scene.start_daemon()
        scene.daemon.ctl("retry", "--all", status=None)
        wait("the others arrive", lambda: len(arrived(scene)) == 5, 10)
        wait(f"the queue says {why}", lambda: f": {why}" in scene.daemon.ctl("queue"), 10)
        self.assertEqual(len(arrived(scene)), 5)

    def test_missing(self) -> None:
        """A content that is gone delays its message, and says why; all others go out."""
        scene, files = self.queued()
        files[0].unlink()
        self.restarted(scene, "No such file or directory")

    def test_cut(self) -> None:
        """A content that is shorter than it was is never sent as if it were whole."""
        scene, files = self.queued()
        os.truncate(files[0], LARGE // 2)
        self.restarted(scene, "the content was cut or changed on the disk")
