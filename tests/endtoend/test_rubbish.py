"""What nobody should send: the daemon answers or hangs up, keeps its memory, says no word of Python, and serves the next client."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import smtplib
import socket
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.endtoend.peers import Daemon, folder, mails, wait

CONFIG = """\
[server]
hostname = mx.example.org
data = {folder}/data

[listener lan]
listen = 127.0.0.1:{port}

[limits]
timeout = 2s
stop-within = 2s

[local]
domains = example.org
maildir = {folder}/mail
mailboxes = ann
"""

OPEN = b"EHLO x\r\nMAIL FROM:<nas@example.org>\r\nRCPT TO:<ann@example.org>\r\n"

GROWTH = 32 << 10
"""KiB that the daemon may grow by in a test."""


class RubbishTests(TestCase):
    """One daemon, one kind of rubbish."""

    timeout = 60

    def setUp(self) -> None:
        """Start it."""
        self.daemon = Daemon(folder(self), CONFIG)
        self.addCleanup(self.daemon.stop)
        self.daemon.start()
        self.memory = self.peak()

    def peak(self) -> int:
        """KiB of memory that the daemon had at most."""
        assert self.daemon.process is not None
        status = Path(f"/proc/{self.daemon.process.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+)", status)[0])

    def send(self, octets: bytes) -> bytes:
        """The last of what comes back, once the daemon hung up."""
        with socket.create_connection(("127.0.0.1", self.daemon.port), 20) as made:
            came = b""
            # Whoever is hung up on while he speaks can still read what he was told.
            with contextlib.suppress(ConnectionError):
                made.sendall(octets)
            with contextlib.suppress(ConnectionError):
                while part := made.recv(65536):
                    came = (came + part)[-2000:]
            return came

    def unharmed(self) -> None:
        """The next client is served, no session is left, and nothing unforeseen happened."""
        with smtplib.SMTP("127.0.0.1", self.daemon.port, timeout=20) as client:
            client.sendmail("nas@example.org", ["ann@example.org"], b"Subject: next\r\n\r\nhello\r\n")
        mailbox = self.daemon.folder / "mail" / "ann"
        wait("mail arrives", lambda: any(b"Subject: next" in mail for mail in mails(mailbox)))
        wait("the sessions end", lambda: self.sessions() == 0, 30)
        assert self.daemon.process is not None
        self.assertNotIn("Traceback", self.daemon.process.output())
        self.assertLess(self.peak() - self.memory, GROWTH)

    def sessions(self) -> int:
        """Sessions that are open."""
        count: int = json.loads(self.daemon.ctl("status", "--json"))["metrics"]["sessions"]
        return count

    def contents(self) -> list[Path]:
        """The files of large contents."""
        return [path for path in (self.daemon.data / "content").rglob("*") if path.is_file()]

    def test_noise(self) -> None:
        """10 MiB of noise end with 421."""
        self.assertIn(b"421 4.7.0 too many errors\r\n", self.send(random.Random(1).randbytes(10 << 20)))
        self.unharmed()

    def test_one_endless_line(self) -> None:
        """A line of 10 MiB is one error, of which no octet is kept."""
        came = self.send(b"A" * (10 << 20) + b"\r\nQUIT\r\n")
        self.assertEqual(came.splitlines()[1:], [b"500 5.5.2 line too long", b"221 2.0.0 bye"])
        self.unharmed()

    def test_no_line_at_all(self) -> None:
        """10 MiB without a line end are ended by the time-out."""
        self.assertIn(b"421 4.4.2 ", self.send(bytes(10 << 20)))
        self.unharmed()

    def test_other_languages(self) -> None:
        """A browser and a client that begins with TLS are sent away, at the latest by the time-out."""
        self.assertIn(b"421 4.7.0 this is SMTP", self.send(b"GET / HTTP/1.1\r\nHost: mx.example.org\r\n\r\n"))
        hello = bytes.fromhex("16030100c8010000c40303") + random.Random(2).randbytes(189)
        self.assertIn(b"421 ", self.send(hello))
        self.unharmed()

    def test_thousands_of_recipients(self) -> None:
        """Of 5000 recipients the first 1000 are taken, the others put off."""
        recipients = b"".join(b"RCPT TO:<ann+%d@example.org>\r\n" % n for n in range(5000))
        came = self.send(b"EHLO x\r\nMAIL FROM:<>\r\n" + recipients + b"DATA\r\nSubject: all\r\n\r\n.\r\nQUIT\r\n")
        self.assertIn(b"452 4.5.3 ", came)
        self.assertRegex(came, rb"\r\n354 .*\r\n250 2\.0\.0 queued as .*\r\n221 ")
        mailbox = self.daemon.folder / "mail" / "ann"
        wait("all are delivered", lambda: len(mails(mailbox)) == 1000, 40)
        self.unharmed()

    def test_unknown_recipients(self) -> None:
        """Who guesses names is sent away."""
        guesses = b"".join(b"RCPT TO:<name%d@example.org>\r\n" % n for n in range(5000))
        self.assertIn(b"421 4.7.0 too many errors\r\n", self.send(OPEN + guesses))
        self.unharmed()

    def test_endless_header(self) -> None:
        """A header of 10 MiB and a line of 10 MiB are taken as they are."""
        field = b"X-Field: " + b"y" * 60 + b"\r\n"
        for message in (field * 150_000 + b"\r\n", b"Subject: x\r\n\r\n" + b"z" * (10 << 20) + b"\r\n"):
            self.assertIn(b"250 2.0.0 queued as", self.send(OPEN + b"DATA\r\n" + message + b".\r\nQUIT\r\n"))
        self.unharmed()

    def test_too_large(self) -> None:
        """60 MiB are read to their end and refused."""
        message = b"z" * 1022 + b"\r\n"
        came = self.send(OPEN + b"DATA\r\n" + message * (60 << 10) + b".\r\nQUIT\r\n")
        self.assertRegex(came, rb"552 5\.3\.4 .*\r\n221 ")
        wait("what was refused is removed", lambda: not self.contents())
        self.unharmed()

    def test_half_sessions(self) -> None:
        """Clients that stop in the middle of anything are told 421 in time, and what they began is not kept."""
        beginnings = (b"", b"EHLO x", OPEN, OPEN + b"DATA\r\nhello", OPEN + b"DATA\r\n" + b"z" * 100_000)
        clients = [socket.create_connection(("127.0.0.1", self.daemon.port), 20) for _ in range(100)]
        for n, client in enumerate(clients):
            client.sendall(beginnings[n % len(beginnings)])
        for client in clients:
            with client:
                came = b""
                while part := client.recv(65536):
                    came += part
                self.assertRegex(came, rb"(?s)\r\n421 4\.4\.2 [^\r]*\r\n\Z")
        wait("what was begun is removed", lambda: not self.contents())
        self.unharmed()

    def test_gone_without_a_word(self) -> None:
        """Clients that break off the connection leave nothing behind."""
        for n in range(200):
            with socket.create_connection(("127.0.0.1", self.daemon.port), 20) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                client.sendall((OPEN + b"DATA\r\n" + os.urandom(2000))[: n * 11])
        self.unharmed()

    def test_never_reads(self) -> None:
        """A client that sends and never reads is not read any more, and cut off in the end."""
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            client.connect(("127.0.0.1", self.daemon.port))
            client.settimeout(1)
            with self.assertRaises(OSError):
                while True:
                    client.sendall(b"EHLO x\r\n" * 1000)
            wait("it is cut off", lambda: self.sessions() == 0, 25)
        self.unharmed()
