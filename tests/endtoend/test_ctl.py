"""vmtpctl as an operator uses it: every verb against a daemon at work, in text and JSON, and the exit statuses."""

from __future__ import annotations

import json
import smtplib
import ssl
import subprocess
import sys
from typing import Any

from twisted.trial.unittest import TestCase

from tests.certificates import Authority
from tests.endtoend.peers import ROOT, Daemon, Sink, folder, free_port, mails, missing, wait

CONFIG = """\
[server]
hostname = relay.example.org
data = {folder}/data
admin = ann@example.org
users = {folder}/data/users

[listener lan]
listen = 127.0.0.1:{port}
tls = starttls
certificate = {folder}/localhost.pem

[limits]
stop-within = 2s

[queue]
retry-first = 1h

[local]
domains = example.org
maildir = {folder}/mail
mailboxes = ann

[route default]
smarthost = smtp://127.0.0.1:DEAD

[route live]
domains = live.example.net
smarthost = smtp://127.0.0.1:LIVE
"""


class ControlCase(TestCase):
    """A daemon with a dead smarthost."""

    timeout = 60

    def setUp(self) -> None:
        """Start it."""
        place = folder(self)
        self.authority = Authority(place)
        self.authority.sign("localhost")
        config = CONFIG.replace("DEAD", str(free_port())).replace("LIVE", str(self.live()))
        self.daemon = Daemon(place, config)
        self.addCleanup(self.daemon.stop)
        self.daemon.start()

    def live(self) -> int:
        """The port of a hop that is up."""
        return free_port()

    def send(self, *recipients: str, sender: str = "printer@example.org") -> str:
        """Hand in a message. Returns its id."""
        with smtplib.SMTP("127.0.0.1", self.daemon.port, timeout=20) as client:
            client.ehlo()
            client.mail(sender)
            for recipient in recipients:
                client.rcpt(recipient)
            code, text = client.data(b"Subject: x\r\n\r\nhello\r\n")
        self.assertEqual(code, 250)
        return text.decode().split()[-1]

    def waiting(self, *recipients: str, sender: str = "printer@example.org") -> str:
        """The id of a message that waits, tried once."""
        id = self.send(*recipients, sender=sender)
        wait("it waits", lambda: "queued" in (states := self.states(id)) and "leased" not in states)
        return id

    def states(self, id: str) -> list[str]:
        """Where the recipients of a message stand."""
        return [recipient["state"] for recipient in self.json("show", id)["recipients"]]

    def json(self, *words: str) -> Any:
        """What vmtpctl prints with --json."""
        return json.loads(self.daemon.ctl("--json", *words))


class LookTests(ControlCase):
    """Verbs that only look."""

    def test_status(self) -> None:
        """`status` tells who is asked, how much waits, and which destination is down and why."""
        self.waiting("friend@example.net")
        text = self.daemon.ctl("status")
        self.assertIn("on relay.example.org", text)
        self.assertIn("1 waiting, 0 being delivered, 0 held", text)
        self.assertRegex(text, r"127\.0\.0\.1:\d+ +down until .*connection refused")
        status = self.json("status")
        self.assertEqual((status["hostname"], status["queue"]["queued"]), ("relay.example.org", 1))
        self.assertEqual([one["state"] for one in status["destinations"]], ["down"])

    def test_queue(self) -> None:
        """`queue` lists what waits, oldest first, page by page and by filters."""
        ids = [self.waiting(f"user{n}@example.net", sender=f"s{n % 2}@example.org") for n in range(4)]
        self.assertEqual([row["id"] for row in self.json("queue")["messages"]], ids)
        page = self.json("queue", "--limit", "3")
        self.assertEqual(([row["id"] for row in page["messages"]], page["next"]), (ids[:3], ids[2]))
        self.assertIn(f"more: vmtpctl queue --after {ids[2]}", self.daemon.ctl("queue", "--limit", "3"))
        self.assertEqual([row["id"] for row in self.json("queue", "--after", ids[2])["messages"]], ids[3:])
        for words, found in (
            (("--recipient", "user2@example.net"), ids[2:3]),
            (("--recipient", "@example.net"), ids),
            (("--sender", "s1@example.org"), ids[1::2]),
            (("--client", "127.0.0.1"), ids),
            (("--state", "queued"), ids),
            (("--state", "held"), []),
            (("--destination", "elsewhere:25"), []),
        ):
            self.assertEqual([row["id"] for row in self.json("queue", *words)["messages"]], found, words)
        self.assertEqual(self.daemon.ctl("queue", "--state", "held"), "nothing waits here\n")

    def test_show(self) -> None:
        """`show` tells the story of a message, and says when there is none."""
        id = self.waiting("friend@example.net", "ann@example.org")
        text = self.daemon.ctl("show", id)
        self.assertRegex(text, r"friend@example\.net: waiting .*connection refused")
        self.assertRegex(text, r"ann@example\.org: delivered")
        events = [event["action"] for event in self.json("show", id)["events"]]
        self.assertEqual(sorted(events), ["delayed", "delivered", "received"])
        self.assertIn("vmtpctl: ", self.daemon.ctl("show", "0000000000000", status=1))
        self.assertIn("is no queue id", self.daemon.ctl("show", "what", status=1))


class ChangeTests(ControlCase):
    """Verbs that change the queue."""

    def test_hold_and_release(self) -> None:
        """What is held stays until it is released, whoever retries in between."""
        id = self.waiting("friend@example.net")
        self.assertEqual(self.daemon.ctl("hold", id), "1 recipient held\n")
        self.assertEqual(self.states(id), ["held"])
        self.assertIn("nothing of it waits", self.daemon.ctl("retry", id, status=1))
        self.assertIn("held", self.daemon.ctl("queue"))
        self.assertEqual(self.json("release", id), {"verb": "release", "recipients": 1})
        wait("it is tried again", lambda: self.json("show", id)["recipients"][0]["tries"] == 2)
        self.assertEqual(self.states(id), ["queued"])

    def test_delete(self) -> None:
        """What is deleted is gone, without a report, and its story says by whose hand."""
        id = self.waiting("friend@example.net", "other@example.net")
        self.assertEqual(self.daemon.ctl("delete", id), "2 recipients deleted\n")
        self.assertEqual(self.daemon.ctl("queue"), "nothing waits here\n")
        self.assertIn("deleted", self.daemon.ctl("show", id))
        self.assertIn("nothing of it", self.daemon.ctl("delete", id, status=1))
        self.assertEqual(mails(self.daemon.folder / "mail" / "ann"), [])

    def test_filters(self) -> None:
        """A change may name a domain, a sender or everything, and must name something."""
        first, second = self.waiting("a@one.example"), self.waiting("b@two.example", sender="nas@example.org")
        self.assertEqual(self.daemon.ctl("hold", "--recipient", "@one.example"), "1 recipient held\n")
        self.assertEqual((self.states(first), self.states(second)), (["held"], ["queued"]))
        self.assertEqual(self.daemon.ctl("hold", "--sender", "nas@example.org"), "1 recipient held\n")
        self.assertEqual(self.daemon.ctl("delete", "--all"), "2 recipients deleted\n")
        self.assertIn("say what to delete", self.daemon.ctl("delete", status=2))
        self.assertIn("say what to delete", self.daemon.ctl("delete", first, "--all", status=2))

    def test_log(self) -> None:
        """Who changed what stands in the log."""
        id = self.waiting("friend@example.net")
        self.daemon.ctl("hold", id)
        assert self.daemon.process is not None
        self.assertRegex(self.daemon.process.output(), rf"{id} operator-hold by=\S+ recipients=1")


class SendTests(ControlCase):
    """`send-test`."""

    skip = missing("smtp-sink") or None

    def live(self) -> int:
        """A hop that takes all."""
        sink = Sink(folder(self))
        self.addCleanup(sink.stop)
        return sink.port

    def test_good(self) -> None:
        """`send-test --wait` tells that the way works, local or not."""
        self.assertIn("ann@example.org: delivered", self.daemon.ctl("send-test", "ann@example.org", "--wait"))
        self.assertIn("you@live.example.net: relayed", self.daemon.ctl("send-test", "you@live.example.net", "--wait"))
        (found,) = mails(self.daemon.folder / "mail" / "ann")
        self.assertIn(b"Subject: Test of the mail relay relay.example.org", found)

    def test_bad(self) -> None:
        """Where it does not, the reason is shown and the status is 1."""
        self.assertIn("connection refused", self.daemon.ctl("send-test", "you@example.net", "--wait", status=1))

    def test_not_waited_for(self) -> None:
        """Without --wait it names the message."""
        said = self.daemon.ctl("send-test", "ann@example.org")
        self.assertRegex(said, r"^sent as [0-9a-z]{13}; its way: vmtpctl show [0-9a-z]{13}\n$")
        self.assertIn("vmtpctl: ", self.daemon.ctl("send-test", "not an address", status=1))


class UserTests(ControlCase):
    """`user`."""

    def user(self, *words: str, given: str = "") -> tuple[int, str]:
        """Status and output of `vmtpctl user`, with a password on its input."""
        command = [sys.executable, "-m", "vmtpd.ctl", "--config", str(self.daemon.config), "user", *words]
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=20, cwd=ROOT)
        return done.returncode, done.stdout + done.stderr

    def login(self, password: str) -> int:
        """The code of the answer to a login."""
        with smtplib.SMTP("localhost", self.daemon.port, timeout=20) as client:
            client.starttls(context=ssl.create_default_context(cafile=str(self.authority.file)))
            try:
                return client.login("nas", password)[0]
            except smtplib.SMTPAuthenticationError as error:
                return error.smtp_code

    def test_life_of_a_login(self) -> None:
        """A login works as soon as it is made, and ends with its password or its removal, without a restart."""
        self.assertEqual(self.login("correct horse 1"), 454)
        self.assertEqual(self.user("add", "nas", given="correct horse 1\n"), (0, ""))
        self.assertEqual(self.login("correct horse 1"), 235)
        self.assertEqual(self.user("list"), (0, "nas\n"))
        self.assertEqual(self.user("passwd", "nas", given="correct horse 2\n"), (0, ""))
        self.assertEqual((self.login("correct horse 1"), self.login("correct horse 2")), (535, 235))
        self.assertEqual(self.user("remove", "nas"), (0, ""))
        self.assertEqual(self.login("correct horse 2"), 535)

    def test_refusals(self) -> None:
        """A short password, a second login of a name and an unknown name are refused with a sentence."""
        status, said = self.user("add", "nas", given="short\n")
        self.assertEqual((status, said[:9]), (1, "vmtpctl: "))
        self.assertEqual(self.user("add", "nas", given="correct horse 1\n")[0], 0)
        for words in (("add", "nas"), ("remove", "who"), ("passwd", "who"), ("add", "a:b")):
            status, said = self.user(*words, given="correct horse 1\n")
            self.assertEqual((status, said[:9]), (1, "vmtpctl: "), words)


class ConfigTests(ControlCase):
    """`check-config`, and a daemon that is not there."""

    def test_good(self) -> None:
        """A good file is told in sentences, as are the files that we ship."""
        self.assertIn("listener lan: 127.0.0.1:", self.daemon.ctl("check-config"))
        self.assertEqual(self.json("check-config")["ok"], True)
        for name in ("demo.ini", "vmtpd.ini", "vmtpd.full.ini"):
            self.assertIn(": ok", self.daemon.ctl("check-config", str(ROOT / "etc" / name)))

    def test_bad(self) -> None:
        """A bad one is 78, and each mistake is told with its line and a remedy."""
        bad = self.daemon.folder / "bad.ini"
        bad.write_text("[listener a]\nlisten = nowhere:port\nrole = king\n[policy]\nnetworks = 0.0.0.0/0\n[what]\n")
        said = self.daemon.ctl("check-config", str(bad), status=78)
        for line in ("bad.ini:2: [listener a] listen", "bad.ini:3: [listener a] role", "open relay", "bad.ini:6:"):
            self.assertIn(line, said)
        self.assertIn("No such file", self.daemon.ctl("check-config", str(bad) + ".not", status=78))

    def test_no_daemon(self) -> None:
        """Where no daemon runs, every verb that needs it says so and ends with 69."""
        self.daemon.stop()
        for words in (("status",), ("queue",), ("retry", "--all"), ("send-test", "ann@example.org")):
            self.assertIn("vmtpctl: ", self.daemon.ctl(*words, status=69))

    def test_usage(self) -> None:
        """Wrong arguments are 2; help and version are 0."""
        self.assertIn("usage: vmtpctl", self.daemon.ctl("dance", status=2))
        self.assertIn("usage: vmtpctl", self.daemon.ctl("--help"))
        self.assertRegex(self.daemon.ctl("--version"), r"^vmtpctl \d")
