"""The daemon as a process: how it starts and does not start, how it ends, and what it says of itself."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import time
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.endtoend.peers import ROOT, Daemon, answers, folder, mails, wait
from vmtpd import machine

CONFIG = """\
[server]
hostname = mx.example.org
data = {folder}/data
OPTIONS

[listener lan]
listen = 127.0.0.1:{port}

[limits]
stop-within = STOPs

[local]
domains = example.org
maildir = {folder}/mail
mailboxes = ann
"""

MESSAGE = b"From: <nas@example.org>\r\nSubject: x\r\n\r\nhello\r\n"

ENDED = -signal.SIGTERM
"""twistd ends by the signal that it was sent, after all is done: for a service manager that is a success."""

MEMORY = Path("/dev/shm")


class ServiceCase(TestCase):
    """A daemon under twistd."""

    timeout = 60

    def make(self, options: str = "", stop: int = 10, place: Path | None = None) -> Daemon:
        """A daemon, not yet started."""
        config = CONFIG.replace("OPTIONS", options).replace("STOP", str(stop))
        made = Daemon(place or folder(self), config)
        made.command = [
            *(sys.executable, "-c", "from twisted.scripts.twistd import run; run()"),
            *("-n", "--pidfile=", "vmtpd", "--config", str(made.config)),
        ]
        self.addCleanup(made.stop)
        return made

    def log(self, daemon: Daemon) -> str:
        """What it printed."""
        assert daemon.process is not None
        return daemon.process.output()

    def end(self, daemon: Daemon) -> int:
        """Wait for its end. Returns its status."""
        process = daemon.process
        assert process is not None
        wait("it ends", lambda: not process.alive)
        return process.stop()

    def send(self, daemon: Daemon) -> None:
        """Hand in a message."""
        with smtplib.SMTP("127.0.0.1", daemon.port, timeout=20) as client:
            client.sendmail("nas@example.org", ["ann@example.org"], MESSAGE)


class StopTests(ServiceCase):
    """SIGTERM."""

    def test_idle_clients(self) -> None:
        """Clients that are idle are told 421, and the daemon ends at once, in good order."""
        daemon = self.make()
        daemon.start()
        with socket.create_connection(("127.0.0.1", daemon.port), 10) as silent:
            stream = silent.makefile("rb")
            self.assertEqual(stream.readline()[:4], b"220 ")
            silent.sendall(b"EHLO nas.example.org\r\n")
            while stream.readline()[:4] != b"250 ":
                pass
            began = time.monotonic()
            assert daemon.process is not None
            os.kill(daemon.process.pid, signal.SIGTERM)
            self.assertEqual(stream.readline()[:10], b"421 4.3.2 ")
            self.assertEqual(stream.read(), b"")
        self.assertEqual(self.end(daemon), ENDED)
        self.assertLess(time.monotonic() - began, 5)
        self.assertFalse((daemon.data / "control").exists())

    def test_transaction(self) -> None:
        """A message on its way in is taken to its end and kept; new clients find the door closed."""
        daemon = self.make()
        daemon.start()
        with socket.create_connection(("127.0.0.1", daemon.port), 10) as busy:
            stream = busy.makefile("rb")
            busy.sendall(b"HELO nas\r\nMAIL FROM:<nas@example.org>\r\nRCPT TO:<ann@example.org>\r\nDATA\r\n")
            while stream.readline()[:3] != b"354":
                pass
            assert daemon.process is not None
            os.kill(daemon.process.pid, signal.SIGTERM)
            wait("the door closes", lambda: not answers(daemon.port))
            self.assertTrue(daemon.process.alive)
            busy.sendall(MESSAGE + b".\r\n")
            self.assertEqual(stream.readline()[:10], b"250 2.0.0 ")
            self.assertEqual(stream.readline()[:10], b"421 4.3.2 ")
        self.assertEqual(self.end(daemon), ENDED)
        daemon.start()
        wait("it arrives", lambda: len(mails(daemon.folder / "mail" / "ann")) == 1)

    def test_slow_client(self) -> None:
        """Who does not come to an end within `stop-within` is cut off; what was not answered is not kept."""
        daemon = self.make(stop=1)
        daemon.start()
        with socket.create_connection(("127.0.0.1", daemon.port), 10) as slow:
            slow.sendall(b"HELO nas\r\nMAIL FROM:<nas@example.org>\r\nRCPT TO:<ann@example.org>\r\nDATA\r\nhello\r\n")
            while b"354" not in slow.recv(1000):
                pass
            began = time.monotonic()
            assert daemon.process is not None
            os.kill(daemon.process.pid, signal.SIGTERM)
            self.assertEqual(self.end(daemon), ENDED)
            self.assertLess(time.monotonic() - began, 5)
        daemon.start()
        self.assertIn("nothing waits here", daemon.ctl("queue"))


class StartTests(ServiceCase):
    """What it needs, and what it says where that is missing."""

    def refused(self, daemon: Daemon) -> str:
        """What it says when it does not start, with status 1."""
        daemon.start(wait_for_it=False)
        self.assertEqual(self.end(daemon), 1, self.log(daemon))
        return self.log(daemon)

    def test_bad_configuration(self) -> None:
        """A mistake in the configuration is told with its line."""
        said = self.refused(self.make("colour = blue"))
        self.assertIn("vmtpd.ini:4: [server] colour", said)
        self.assertNotIn("Traceback", said)

    def test_port_taken(self) -> None:
        """A port that another program has is named."""
        daemon = self.make()
        with socket.create_server(("127.0.0.1", daemon.port)):
            said = self.refused(daemon)
        self.assertRegex(said, rf"vmtpd: .*127\.0\.0\.1:{daemon.port}.*in use")
        self.assertNotIn("Traceback", said)

    def test_port_taken_in_the_background(self) -> None:
        """A twistd that goes to the background comes back to the shell, and its log names the port."""
        daemon = self.make()
        pidfile, log = daemon.folder / "pid", daemon.folder / "twistd.log"
        place = ("-n", "--pidfile=")
        command = [word for word in daemon.command if word not in place]
        command[3:3] = [f"--pidfile={pidfile}", f"--logfile={log}"]
        with socket.create_server(("127.0.0.1", daemon.port)):
            subprocess.run(command, cwd=ROOT, timeout=20, check=True)
            wait("it ends", lambda: not pidfile.exists())
        self.assertRegex(log.read_text(), rf"vmtpd: .*127\.0\.0\.1:{daemon.port}.*in use")

    def test_second_daemon(self) -> None:
        """A second daemon on the same folder is refused, and the first goes on."""
        first = self.make()
        first.start()
        second = self.make(f"control = {first.folder}/other")
        second.config.write_text(second.config.read_text().replace(str(second.data), str(first.data)))
        said = self.refused(second)
        self.assertRegex(said, r"vmtpd: .*(another|in use)")
        self.assertNotIn("Traceback", said)
        self.send(first)

    def test_file_limit(self) -> None:
        """The limit of open files is raised as far as is allowed; where that is too little, the log says so."""
        daemon = self.make()
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        daemon.command = ["prlimit", f"--nofile=256:{hard}", *daemon.command]
        daemon.start()
        assert daemon.process is not None
        soft = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)[0]
        self.assertGreaterEqual(soft, min(hard, 4600))
        daemon.stop()
        daemon.command[1] = "--nofile=256:1024"
        daemon.start()
        self.assertIn("files may be open", self.log(daemon))

    def test_fleeting_disk(self) -> None:
        """A queue in memory is warned of, with the remedy."""
        daemon = self.make(place=folder(self, str(MEMORY)))
        daemon.start()
        self.assertRegex(self.log(daemon), r"data is on tmpfs, which does not outlive .* Set data in \[server\]")

    if not MEMORY.is_dir() or machine.file_system(str(MEMORY)) != "tmpfs":
        test_fleeting_disk.skip = "/dev/shm is no tmpfs"  # type: ignore[attr-defined]


class LogTests(ServiceCase):
    """The log."""

    def test_json(self) -> None:
        """With `log = json` what happens to messages is one JSON object a line."""
        daemon = self.make("log = json")
        daemon.start()
        self.send(daemon)
        wait("it is logged", lambda: '"delivered"' in self.log(daemon))
        rows = [json.loads(line) for line in self.log(daemon).splitlines() if line.startswith("{")]
        self.assertEqual([row["event"] for row in rows], ["received", "delivered"])
        self.assertEqual({row["id"] for row in rows if "id" in row}, {rows[0]["id"]})
        self.assertEqual(rows[0]["client"], "127.0.0.1")

    def test_text(self) -> None:
        """Else it is a line of words, and no content ever stands in it."""
        daemon = self.make()
        daemon.start()
        self.send(daemon)
        wait("it is logged", lambda: " delivered to=" in self.log(daemon))
        self.assertRegex(
            self.log(daemon), r"\n\S+Z [0-9a-z]{13} received client=127\.0\.0\.1 .*sender=<nas@example\.org>"
        )
        self.assertNotIn("hello\n", self.log(daemon))


class WheelTests(ServiceCase):
    """What people install."""

    timeout = 300

    def run_here(self, place: Path, *command: str) -> str:
        """Run a program in a folder. Skips the test where it fails, as without a package index."""
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=200)
        if done.returncode:
            raise self.skipTest(f"{Path(command[0]).name} {' '.join(command[1:4])}: {done.stderr.strip()[-300:]}")
        return done.stdout

    def test_wheel(self) -> None:
        """A wheel in an environment of its own gives twistd and vmtpctl, which work from any folder."""
        place = folder(self)
        # What a build leaves behind, it leaves in a copy.
        unwanted = shutil.ignore_patterns(".*", "__pycache__", "_trial_temp*", "build", "var")
        shutil.copytree(ROOT, place / "source", ignore=unwanted)
        pip = ("-m", "pip", "--quiet", "--disable-pip-version-check")
        self.run_here(place, sys.executable, *pip, "wheel", "--no-deps", "--wheel-dir", str(place), "./source")
        (wheel,) = place.glob("vmtpd-*.whl")
        self.run_here(place, sys.executable, "-m", "venv", str(place / "venv"))
        self.run_here(place, str(place / "venv" / "bin" / "python"), *pip, "install", str(wheel))
        daemon = self.make()
        twistd, vmtpctl = (str(place / "venv" / "bin" / name) for name in ("twistd", "vmtpctl"))
        # From a folder of its own, without our source tree on the path.
        daemon.command = ["env", "-u", "PYTHONPATH", "-C", str(place), twistd, *daemon.command[3:]]
        daemon.start()
        done = subprocess.run(
            [vmtpctl, "--config", str(daemon.config), "send-test", "ann@example.org", "--wait"],
            cwd=place,
            capture_output=True,
            text=True,
            timeout=30,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("ann@example.org: delivered", done.stdout)
        daemon.stop()
        self.assertNotIn("Traceback", self.log(daemon))
