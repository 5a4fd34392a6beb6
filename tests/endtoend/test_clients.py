"""Programs that people send mail with, against vmtpd as they meet it: what they say, and the octets that arrive."""

from __future__ import annotations

import smtplib
import socket
import ssl
import subprocess

from twisted.trial.unittest import TestCase

from tests.certificates import Authority
from tests.endtoend.peers import Daemon, find, folder, free_port, mails, missing, wait
from vmtpd.auth import users

CONFIG = """\
[server]
hostname = mx.example.org
data = {folder}/data
users = {folder}/users

[policy]
networks = 127.0.0.0/8

[listener lan]
listen = 127.0.0.1:{port}
tls = starttls
certificate = {folder}/localhost.pem

[listener tls]
listen = 127.0.0.1:TLS_PORT
role = submission
tls = implicit
certificate = {folder}/localhost.pem

[local]
domains = example.org
maildir = {folder}/mail
mailboxes = ann bob
"""

MESSAGE = b"""\
From: Printer <printer@example.org>\r
To: ann@example.org\r
Date: Mon, 23 Nov 2026 10:00:00 +0000\r
Message-ID: <1@printer.example.org>\r
Subject: scan\r
\r
.a line with a dot\r
..two of them\r
\r
.\r
the end\r
"""

PASSWORD = "correct horse battery"


class ClientCase(TestCase):
    """A relay with TLS and one login, and a mailbox to look into."""

    timeout = 60

    def setUp(self) -> None:
        """Start it."""
        place = folder(self)
        self.authority = Authority(place)
        self.authority.sign("localhost", "127.0.0.1")
        users.add(str(place / "users"), "printer", PASSWORD)
        self.tls_port = free_port()
        self.daemon = Daemon(place, CONFIG.replace("TLS_PORT", str(self.tls_port)))
        self.addCleanup(self.daemon.stop)
        self.daemon.start()
        self.file = place / "message"
        self.file.write_bytes(MESSAGE)

    def arrived(self, mailbox: str = "ann", count: int = 1) -> list[bytes]:
        """The messages in a mailbox, as many as are awaited."""
        maildir = self.daemon.folder / "mail" / mailbox
        wait(f"mail arrives for {mailbox}", lambda: len(mails(maildir)) >= count)
        found = mails(maildir)
        self.assertEqual(len(found), count)
        return found

    def assert_arrived(self, protocol: str, message: bytes = MESSAGE, mailbox: str = "ann") -> bytes:
        """One message arrived, octet for octet as it was sent, behind our trace. Returns the trace."""
        (found,) = self.arrived(mailbox)
        expected = message.replace(b"\r\n", b"\n")
        self.assertEqual(found.replace(b"\r\n", b"\n")[-len(expected) :], expected)
        trace = found[: -len(message)] if found.endswith(message) else found[: -len(expected)]
        self.assertIn(b" with %s id " % protocol.encode(), trace)
        return trace

    def run_program(self, *command: str, given: bytes = b"") -> tuple[int, str]:
        """Status and output of a program."""
        done = subprocess.run(
            [find(command[0]), *command[1:]], input=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30
        )
        return done.returncode, done.stdout.decode("utf-8", "replace")

    def nothing_arrived(self) -> None:
        """No mailbox holds mail, and none waits."""
        self.assertEqual(mails(self.daemon.folder / "mail" / "ann"), [])
        self.assertIn("nothing waits here", self.daemon.ctl("queue"))


class SwaksTests(ClientCase):
    """swaks, the tool of the trade."""

    skip = missing("swaks") or None

    def swaks(self, *options: str, port: int = 0) -> tuple[int, str]:
        """Send the message."""
        server = ("--server", "127.0.0.1", "--port", str(port or self.daemon.port))
        envelope = ("--from", "printer@example.org", "--to", "ann@example.org", "--ehlo", "printer.example.org")
        # swaks ends the data with a line end of its own.
        self.file.write_bytes(MESSAGE.removesuffix(b"\r\n"))
        return self.run_program("swaks", *server, *envelope, "--data", f"@{self.file}", *options)

    def login(self, mechanism: str, password: str = PASSWORD) -> tuple[str, ...]:
        """The options for a login."""
        return ("--auth", mechanism, "--auth-user", "printer", "--auth-password", password)

    def test_plain(self) -> None:
        """A device in the network hands in mail without TLS or login."""
        status, said = self.swaks()
        self.assertEqual(status, 0, said)
        self.assertRegex(said, r"<-  250 2\.0\.0 queued as [0-9a-z]{13}")
        trace = self.assert_arrived("ESMTP")
        self.assertIn(b"from printer.example.org ([127.0.0.1])", trace)
        self.assertIn(b"for <ann@example.org>", trace)

    def test_starttls(self) -> None:
        """The same under STARTTLS, which the trace tells."""
        status, said = self.swaks("--tls", "--tls-verify", "--tls-ca-path", str(self.authority.file))
        self.assertEqual(status, 0, said)
        self.assertIn(b"(TLSv1.3)", self.assert_arrived("ESMTPS"))

    def test_implicit_tls(self) -> None:
        """A port that begins with TLS, and a login there."""
        status, said = self.swaks("--tls-on-connect", *self.login("PLAIN"), port=self.tls_port)
        self.assertEqual(status, 0, said)
        self.assert_arrived("ESMTPSA")

    def test_submission_wants_login(self) -> None:
        """A port for logins takes no mail without one."""
        status, said = self.swaks("--tls-on-connect", port=self.tls_port)
        self.assertNotEqual(status, 0, said)
        self.assertRegex(said, r"<~\* 530 5\.7\.0 ")
        self.nothing_arrived()

    def test_auth_plain(self) -> None:
        """A login by PLAIN."""
        status, said = self.swaks("--tls", *self.login("PLAIN"))
        self.assertEqual(status, 0, said)
        self.assert_arrived("ESMTPSA")

    def test_auth_login(self) -> None:
        """A login by LOGIN, as many devices do it."""
        status, said = self.swaks("--tls", *self.login("LOGIN"))
        self.assertEqual(status, 0, said)
        self.assertIn(" ~> ", said)
        self.assert_arrived("ESMTPSA")

    def test_wrong_password(self) -> None:
        """A wrong password is refused by either mechanism, and stands in no log."""
        for mechanism in ("PLAIN", "LOGIN"):
            status, said = self.swaks("--tls", *self.login(mechanism, "wrong password 1"))
            self.assertNotEqual(status, 0, said)
            self.assertRegex(said, r"<~\* 535 5\.7\.8 ")
        self.nothing_arrived()
        assert self.daemon.process is not None
        logged = self.daemon.process.output()
        self.assertIn("user=printer", logged)
        self.assertNotIn("wrong password", logged)

    def test_no_login_in_clear(self) -> None:
        """Without TLS no login is offered."""
        status, said = self.swaks(*self.login("PLAIN"))
        self.assertNotEqual(status, 0, said)
        self.assertNotIn("AUTH PLAIN", said)

    def test_pipelining(self) -> None:
        """A client that sends sender and recipients at once."""
        _, said = self.swaks("--pipeline", "--to", "ann@example.org,nobody@example.org,bob@example.org")
        self.assertRegex(said, r"<\*\* 550 5\.1\.1 ")
        self.assertRegex(said, r"250 2\.0\.0 queued as", said)
        self.assertEqual((len(self.arrived("ann")), len(self.arrived("bob"))), (1, 1))


class CurlTests(ClientCase):
    """curl, in scripts of all kinds."""

    skip = missing("curl") or None

    def curl(self, url: str, *options: str) -> tuple[int, str]:
        """Upload the message."""
        envelope = ("--mail-from", "printer@example.org", "--mail-rcpt", "ann@example.org")
        authority = ("--cacert", str(self.authority.file))
        return self.run_program(
            "curl", "--silent", "--show-error", url, *envelope, *authority, "--upload-file", str(self.file), *options
        )

    def test_smtp(self) -> None:
        """curl smtp:// with a file."""
        self.assertEqual(self.curl(f"smtp://127.0.0.1:{self.daemon.port}/host"), (0, ""))
        self.assertIn(b"from host ([127.0.0.1])", self.assert_arrived("ESMTP"))

    def test_smtps(self) -> None:
        """curl smtps:// with a login, the certificate verified."""
        url = f"smtps://localhost:{self.tls_port}"
        self.assertEqual(self.curl(url, "--user", f"printer:{PASSWORD}"), (0, ""))
        self.assert_arrived("ESMTPSA")

    def test_required_starttls(self) -> None:
        """curl --ssl-reqd with a login."""
        url = f"smtp://localhost:{self.daemon.port}"
        self.assertEqual(self.curl(url, "--ssl-reqd", "--user", f"printer:{PASSWORD}"), (0, ""))
        self.assert_arrived("ESMTPSA")

    def test_wrong_password(self) -> None:
        """curl tells that the login was denied."""
        status, said = self.curl(f"smtps://localhost:{self.tls_port}", "--user", "printer:wrong password 1")
        self.assertEqual(status, 67, said)
        self.nothing_arrived()

    def test_large_file(self) -> None:
        """A scan of 5 MiB arrives as it was sent."""
        large = MESSAGE + b"".join(b"%070d\r\n" % line for line in range(72_000))
        self.file.write_bytes(large)
        self.assertEqual(self.curl(f"smtp://127.0.0.1:{self.daemon.port}"), (0, ""))
        self.assert_arrived("ESMTP", large)


class SmtplibTests(ClientCase):
    """Python's smtplib."""

    def client(self) -> smtplib.SMTP:
        """A session."""
        client = smtplib.SMTP("localhost", self.daemon.port, "app.example.org", timeout=20)
        self.addCleanup(client.close)
        return client

    def test_several_recipients(self) -> None:
        """Each recipient gets the message, and neither is named to the other by us."""
        client = self.client()
        refused = client.sendmail("printer@example.org", ["ann@example.org", "bob@example.org"], MESSAGE)
        self.assertEqual(refused, {})
        self.assertNotIn(b"bob", self.assert_arrived("ESMTP", mailbox="ann"))
        self.assertNotIn(b"for <", self.assert_arrived("ESMTP", mailbox="bob"))

    def test_refused_recipient(self) -> None:
        """A recipient whom we do not know is refused at once; the others get the message."""
        refused = self.client().sendmail("printer@example.org", ["nobody@example.org", "ann@example.org"], MESSAGE)
        self.assertEqual({address: reply[0] for address, reply in refused.items()}, {"nobody@example.org": 550})
        self.assert_arrived("ESMTP")

    def test_all_refused(self) -> None:
        """Where every recipient is refused, nothing is sent, and the session goes on."""
        client = self.client()
        with self.assertRaises(smtplib.SMTPRecipientsRefused):
            client.sendmail("printer@example.org", ["nobody@example.org"], MESSAGE)
        client.sendmail("printer@example.org", ["ann@example.org"], MESSAGE)
        self.assert_arrived("ESMTP")

    def test_eight_bits(self) -> None:
        """Octets above 127 arrive as they were sent, whatever they mean."""
        message = MESSAGE + bytes(range(128, 256)) + "\r\nGrüße, Ωμέγα\r\n".encode()
        self.client().sendmail("printer@example.org", ["ann@example.org"], message, ["BODY=8BITMIME"])
        self.assert_arrived("ESMTP", message)

    def test_starttls_and_login(self) -> None:
        """STARTTLS with the certificate verified, then a login."""
        client = self.client()
        client.starttls(context=ssl.create_default_context(cafile=str(self.authority.file)))
        self.assertEqual(client.login("printer", PASSWORD)[0], 235)
        client.sendmail("printer@example.org", ["ann@example.org"], MESSAGE)
        self.assert_arrived("ESMTPSA")

    def test_many_in_one_session(self) -> None:
        """A hundred messages over one connection."""
        client = self.client()
        for number in range(100):
            client.sendmail("printer@example.org", ["ann@example.org"], MESSAGE + b"%d\r\n" % number)
        last = {found.rstrip().rpartition(b"\n")[2] for found in self.arrived(count=100)}
        self.assertEqual(last, {b"%d" % number for number in range(100)})

    def test_missing_fields(self) -> None:
        """A device that knows neither Date nor Message-ID gets them added."""
        self.client().sendmail("printer@example.org", ["ann@example.org"], b"Subject: toner\r\n\r\nlow\r\n")
        (found,) = self.arrived()
        header = found.replace(b"\r\n", b"\n").partition(b"\n\n")[0].decode()
        self.assertRegex(header, r"\nDate: .*\nMessage-ID: <.*@mx\.example\.org>\nFrom: <printer@example\.org>\n")


class OpensslTests(ClientCase):
    """openssl s_client, with which people look at a server."""

    skip = missing("openssl") or None

    def s_client(self, *options: str) -> str:
        """What it shows."""
        _, said = self.run_program(
            "openssl", "s_client", "-CAfile", str(self.authority.file), *options, given=b"QUIT\r\n"
        )
        return said

    def test_starttls(self) -> None:
        """STARTTLS shows our certificate, which verifies."""
        said = self.s_client("-starttls", "smtp", "-connect", f"127.0.0.1:{self.daemon.port}")
        self.assertIn("subject=CN = localhost", said)
        self.assertIn("Verify return code: 0 (ok)", said)

    def test_implicit(self) -> None:
        """So does a port that begins with TLS, to either version that is offered, and not to older ones."""
        where = ("-connect", f"127.0.0.1:{self.tls_port}")
        for version, name in (("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")):
            self.assertIn(f"New, {name}", self.s_client(version, *where))
        self.assertIn("no peer certificate available", self.s_client("-tls1_1", "-cipher", "ALL:@SECLEVEL=0", *where))


class SocketTests(ClientCase):
    """Octets by hand."""

    def talk(self, sent: bytes) -> bytes:
        """Send octets in one packet; all that comes back until the server closes."""
        with socket.create_connection(("127.0.0.1", self.daemon.port), 20) as made:
            made.sendall(sent)
            came = b""
            while part := made.recv(65536):
                came += part
        return came

    def test_all_in_one_packet(self) -> None:
        """A whole session in one packet is answered in order, each command once."""
        came = self.talk(
            b"EHLO a.example.org\r\nMAIL FROM:<printer@example.org>\r\nRCPT TO:<ann@example.org>\r\nDATA\r\n"
            + b"\r\n".join(b"." + line if line.startswith(b".") else line for line in MESSAGE.split(b"\r\n"))
            + b".\r\nNOOP\r\nQUIT\r\n"
        )
        codes = [line[:4] for line in came.split(b"\r\n")[:-1] if line[3:4] == b" "]
        self.assertEqual(codes, [b"220 ", b"250 ", b"250 ", b"250 ", b"354 ", b"250 ", b"250 ", b"221 "])
        self.assert_arrived("ESMTP")

    def test_nothing_before_tls_is_obeyed_after_it(self) -> None:
        """Commands sent in clear behind STARTTLS are not taken for what comes under TLS."""
        with socket.create_connection(("127.0.0.1", self.daemon.port), 20) as made:
            made.recv(1000)
            made.sendall(b"EHLO a.example.org\r\n")
            while b"250 " not in made.recv(1000):
                pass
            made.sendall(b"STARTTLS\r\nMAIL FROM:<evil@example.org>\r\n")
            self.assertEqual(made.recv(3), b"220")
            while made.recv(1) != b"\n":
                pass
            context = ssl.create_default_context(cafile=str(self.authority.file))
            try:
                with context.wrap_socket(made, server_hostname="localhost") as secure:
                    secure.sendall(b"QUIT\r\n")
                    self.assertEqual(secure.recv(1000)[:3], b"221")
            except OSError:
                pass  # The clear octets made no handshake, or the connection was ended: as good.
        assert self.daemon.process is not None
        self.assertNotIn("Traceback", self.daemon.process.output())
