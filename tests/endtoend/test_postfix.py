"""Real next hops: Postfix, and a provider with logins under TLS; what leaves, what waits and why, what comes back."""

from __future__ import annotations

import email
import json
import re
import smtplib
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from tests.certificates import Authority
from tests.endtoend.peers import Daemon, Postfix, folder, free_port, mails, missing, wait
from vmtpd.auth import users

RELAY = """\
[server]
hostname = relay.example.org
data = {folder}/data
admin = ann@example.org

[listener lan]
listen = 127.0.0.1:{port}

[limits]
stop-within = 2s

[local]
domains = example.org
maildir = {folder}/mail
mailboxes = ann printer
"""

PROVIDER = """\
[server]
hostname = smtp.example.net
data = {folder}/data
users = {folder}/users

[listener submission]
listen = 127.0.0.1:{port}
role = submission
tls = starttls
certificate = CERTIFICATE

[limits]
stop-within = 2s

[local]
domains = example.net
maildir = {folder}/mail
catch-all = all
"""

HEADER = b"""\
From: Printer <printer@example.org>\r
To: friend@example.net\r
Date: Mon, 23 Nov 2026 10:00:00 +0000\r
Message-ID: <1@printer.example.org>\r
Subject: scan\r
"""

BODY = b".\r\n..two dots\r\nthe end\r\n"

REFUSES = (
    "smtpd_recipient_restrictions = check_recipient_access"
    " inline:{ { nobody@example.net = 550 5.1.1 no such person here } }\n"
)


class RelayCase(TestCase):
    """A relay whose next hop a test chooses."""

    timeout = 60

    def relay(self, route: str, queue: str = "") -> Daemon:
        """A relay with a route, at work."""
        made = Daemon(folder(self), f"{RELAY}\n[queue]\n{queue}\n\n[route default]\n{route}\n")
        self.addCleanup(made.stop)
        made.start()
        return made

    def send(self, relay: Daemon, *recipients: str, body: bytes = BODY, options: tuple[str, ...] = ()) -> str:
        """Hand in a message. Returns its id."""
        with smtplib.SMTP("127.0.0.1", relay.port, "printer.example.org", timeout=20) as client:
            client.ehlo()
            client.mail("printer@example.org", options)
            for recipient in recipients or ("friend@example.net",):
                client.rcpt(recipient)
            code, text = client.data(HEADER + b"\r\n" + body)
        self.assertEqual(code, 250, text)
        return text.decode().split()[-1]

    def story(self, relay: Daemon, id: str) -> dict[str, Any]:
        """What is known of a message."""
        story: dict[str, Any] = json.loads(relay.ctl("show", id, "--json"))
        return story

    def until(self, relay: Daemon, id: str, action: str, count: int = 1) -> dict[str, Any]:
        """The story, once so many recipients came to an action."""

        def there() -> bool:
            return [one["action"] for one in self.story(relay, id)["recipients"]].count(action) == count

        wait(f"{id} is {action}", there)
        return self.story(relay, id)


class PostfixCase(RelayCase):
    """Postfix, and a relay before it."""

    skip = missing("postfix", "smtp-sink") or None
    settings = ""

    def setUp(self) -> None:
        """Start Postfix."""
        place = folder(self)
        self.postfix = Postfix(place / "postfix", self.settings)
        self.addCleanup(self.stop_postfix)
        self.hop = f"smarthost = smtp://127.0.0.1:{self.postfix.port}"

    def stop_postfix(self) -> None:
        """Stop it, if it runs."""
        if self.postfix.folder.joinpath("queue", "pid", "master.pid").exists():
            self.postfix.stop()

    def arrived(self, count: int = 1) -> list[bytes]:
        """The mail that Postfix has, as many messages as are awaited."""
        wait("mail arrives at Postfix", lambda: len(self.postfix.mails()) >= count)
        found = self.postfix.mails()
        self.assertEqual(len(found), count)
        return found

    def body(self) -> bytes:
        """The body of the one message that arrived."""
        return self.arrived()[0].partition(b"\n\n")[2]


class PostfixTests(PostfixCase):
    """Mail that leaves."""

    settings = REFUSES

    def test_octets(self) -> None:
        """A message arrives octet for octet, its header behind our trace, and its story says so."""
        relay = self.relay(self.hop)
        id = self.send(relay)
        (found,) = self.arrived()
        message = (HEADER + b"\r\n" + BODY).replace(b"\r\n", b"\n")
        self.assertTrue(found.endswith(message), found)
        self.assertIn(b"from relay.example.org", found)
        self.assertIn(b"by relay.example.org with ESMTP id " + id.encode(), found)
        self.assertIn(b"Return-Path: <printer@example.org>", found)
        (one,) = self.until(relay, id, "relayed")["recipients"]
        self.assertEqual(one["state"], "done")
        self.assertRegex(one["reply"], r"^250 2\.0\.0 Ok: queued as ")

    def test_several_recipients(self) -> None:
        """Recipients of one destination share a transaction: Postfix sees one message."""
        relay = self.relay(self.hop)
        id = self.send(relay, "friend@example.net", "other@example.net")
        (first, second) = self.arrived(2)
        queued = {re.findall(rb"\(Postfix\) with E?SMTP id (\w+)", found)[0] for found in (first, second)}
        self.assertEqual(len(queued), 1)
        self.until(relay, id, "relayed", 2)

    def test_eight_bits(self) -> None:
        """8-bit text arrives as it was sent."""
        body = "Grüße, Ωμέγα\r\n".encode() + bytes(range(128, 256)) + b"\r\n"
        self.send(self.relay(self.hop), body=body, options=("BODY=8BITMIME",))
        self.assertEqual(self.body(), body.replace(b"\r\n", b"\n"))

    def test_large(self) -> None:
        """2 MiB arrive octet for octet."""
        body = b"".join(b"%070d\r\n" % line for line in range(29_200))
        self.send(self.relay(self.hop), body=body)
        self.assertEqual(self.body(), body.replace(b"\r\n", b"\n"))

    def test_refused(self) -> None:
        """A recipient whom Postfix refuses is reported to the sender with the reason, and the other gets the message."""
        relay = self.relay(self.hop)
        id = self.send(relay, "nobody@example.net", "friend@example.net")
        self.assertTrue(self.body())
        mailbox = relay.folder / "mail" / "printer"
        wait("the report arrives", lambda: bool(mails(mailbox)))
        report = email.message_from_bytes(mails(mailbox)[0])
        self.assertEqual(report.get_content_type(), "multipart/report")
        text = report.as_string()
        self.assertIn("no such person here", text)
        self.assertIn("Final-Recipient: rfc822; nobody@example.net", text)
        self.assertIn("Action: failed", text)
        self.assertIn("Status: 5.1.1", text)
        self.assertNotIn("friend@example.net", text.partition("message/delivery-status")[2].partition("Content-")[0])
        self.until(relay, id, "failed")

    def test_from(self) -> None:
        """`from` replaces envelope sender and From, and who wrote it stands in Reply-To."""
        self.send(self.relay(f"{self.hop}\nfrom = office@example.org"))
        found = email.message_from_bytes(self.arrived()[0])
        self.assertEqual(found["Return-Path"], "<office@example.org>")
        self.assertEqual(found.get_all("From"), ['"Printer" <office@example.org>'])
        self.assertIn("printer@example.org", str(found["Reply-To"]))

    def test_failover(self) -> None:
        """Where the first smarthost is dead, the second takes the mail at the same try."""
        hops = f"smarthost =\n  smtp://127.0.0.1:{free_port()}\n  smtp://127.0.0.1:{self.postfix.port}"
        relay = self.relay(hops, "retry-first = 1h")
        id = self.send(relay)
        self.assertTrue(self.body())
        self.until(relay, id, "relayed")


class OutageTests(PostfixCase):
    """A next hop that is down."""

    def test_retry(self) -> None:
        """`queue`, `show` and `status` say why mail waits and until when; `retry` sends it when the hop is up again."""
        self.postfix.stop()
        relay = self.relay(self.hop, "retry-first = 1h")
        id = self.send(relay)
        self.until(relay, id, "delayed")
        listed = relay.ctl("queue")
        self.assertIn(id, listed)
        for said in (listed, relay.ctl("show", id), relay.ctl("status")):
            self.assertIn("connection refused", said)
            self.assertRegex(said, r"in (5[0-9]|6[0-6]) min|in 1 h")
        self.postfix.start()
        self.assertEqual(relay.ctl("retry", id), "1 recipient due now\n")
        self.assertEqual(self.body(), BODY.replace(b"\r\n", b"\n"))
        self.assertIn("nothing waits here", relay.ctl("queue"))

    def test_probe(self) -> None:
        """Nobody has to do anything: mail leaves soon after the hop is up, all of it."""
        self.postfix.stop()
        relay = self.relay(self.hop, "retry-first = 2s\nretry-jitter = 0")
        ids = [self.send(relay) for _ in range(5)]
        self.until(relay, ids[-1], "delayed")
        self.postfix.start()
        self.arrived(5)
        for id in ids:
            self.until(relay, id, "relayed")

    def test_stop_in_between(self) -> None:
        """What waited is still there after a restart of the relay, and leaves."""
        self.postfix.stop()
        relay = self.relay(self.hop, "retry-first = 2s\nretry-jitter = 0")
        id = self.send(relay)
        self.until(relay, id, "delayed")
        relay.stop()
        self.postfix.start()
        relay.start()
        self.until(relay, id, "relayed")
        self.assertTrue(self.body())


class LoginTests(RelayCase):
    """A provider that wants a login under TLS."""

    PASSWORD = "correct horse battery"

    def setUp(self) -> None:
        """An authority of our own."""
        self.authority = Authority(folder(self))

    def provider(self, *names: str) -> Daemon:
        """A provider that can prove some names."""
        place = folder(self)
        users.add(str(place / "users"), "relay@example.org", self.PASSWORD)
        made = Daemon(place, PROVIDER.replace("CERTIFICATE", str(self.authority.sign(*names))))
        self.addCleanup(made.stop)
        made.start()
        return made

    def route(self, provider: Daemon, password: str = PASSWORD, host: str = "localhost") -> str:
        """The route to it."""
        secret = Path(folder(self)) / "password"
        secret.touch(0o600)
        secret.write_text(f"{password}\n")
        return (
            f"smarthost = submission://{host}:{provider.port}\nca = {self.authority.file}\n"
            f"user = relay@example.org\npassword-file = {secret}"
        )

    def counted(self, daemon: Daemon) -> dict[str, int]:
        """What a daemon counted."""
        metrics: dict[str, int] = json.loads(daemon.ctl("status", "--json"))["metrics"]
        return metrics

    def test_login(self) -> None:
        """Mail goes to the provider under verified TLS with the login; octets are kept."""
        provider = self.provider("localhost")
        relay = self.relay(self.route(provider))
        id = self.send(relay)
        self.until(relay, id, "relayed")
        (found,) = mails(provider.folder / "mail" / "all")
        self.assertIn(b"with ESMTPSA", found)
        self.assertTrue(found.replace(b"\r\n", b"\n").endswith((HEADER + b"\r\n" + BODY).replace(b"\r\n", b"\n")))
        self.assertIn("TLSv1.3", relay.ctl("show", id))

    def test_wrong_password(self) -> None:
        """A wrong password fails no mail: it waits, its story names the refusal, and no log holds the password."""
        provider = self.provider("localhost")
        relay = self.relay(self.route(provider, "wrong password 1"), "retry-first = 1h")
        id = self.send(relay)
        self.until(relay, id, "delayed")
        self.assertIn("535 5.7.8", relay.ctl("show", id))
        self.assertIn("535 5.7.8", relay.ctl("status"))
        assert relay.process is not None
        self.assertNotIn("wrong password", relay.process.output())
        self.assertEqual(self.counted(provider)["accepted"], 0)

    def test_another_name(self) -> None:
        """Where the certificate is for another name, mail waits with that reason; login and mail are not sent in clear."""
        provider = self.provider("other.example.net")
        relay = self.relay(self.route(provider), "retry-first = 1h")
        id = self.send(relay)
        self.until(relay, id, "delayed")
        self.assertIn("the certificate is for another name", relay.ctl("show", id))
        counted = self.counted(provider)
        self.assertEqual((counted["accepted"], counted["logins"], counted["failed_logins"]), (0, 0, 0))

    def test_unknown_authority(self) -> None:
        """So it is where the certificate is of an authority that we do not trust."""
        provider = self.provider("localhost")
        stranger = Authority(folder(self)).file
        route = self.route(provider).replace(str(self.authority.file), str(stranger))
        relay = self.relay(route, "retry-first = 1h")
        id = self.send(relay)
        self.until(relay, id, "delayed")
        self.assertIn("certificate", relay.ctl("show", id))
        self.assertEqual(self.counted(provider)["accepted"], 0)

    def test_address(self) -> None:
        """A smarthost may be named by its address, which the certificate proves."""
        provider = self.provider("smtp.example.net", "127.0.0.1")
        relay = self.relay(self.route(provider, host="127.0.0.1"))
        self.until(relay, self.send(relay), "relayed")
