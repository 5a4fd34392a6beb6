"""The control socket: HTTP to the operator's verbs."""

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.vmtpd.stubs import ID, NEXT, NOW, Rooms, administration
from vmtpd.gateway.control import MAX_BODY, ControlSite
from vmtpd.interfaces import StoreBroken, TooMuch
from vmtpd.mail import QueueFilter


class ControlTests(SynchronousTestCase):
    """What is answered to what."""

    def setUp(self) -> None:
        """A site on no socket."""
        self.rooms = Rooms()
        admin, self.log = administration(self.rooms)
        self.site = ControlSite(admin, Clock())

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        """Send a request; the status and the JSON of the answer."""
        octets = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(octets)}\r\n\r\n"
        answer = self.exchange(head.encode() + octets)
        status, _, text = answer.partition(b"\r\n\r\n")
        self.kind = status.lower().partition(b"content-type: ")[2].split(b"\r\n")[0].decode()
        return int(status.split()[1]), json.loads(text)

    def exchange(self, octets: bytes) -> bytes:
        """Send octets over a connection; what came back."""
        transport = StringTransport()
        protocol = self.site.buildProtocol(None)
        protocol.makeConnection(transport)
        protocol.dataReceived(octets)
        return transport.value()

    def test_looking(self) -> None:
        """Status, queue and story are JSON."""
        status, row = self.ask("GET", "/v1/status")
        self.assertEqual((status, row["hostname"], self.kind), (200, "relay.example.org", "application/json"))
        status, row = self.ask("GET", "/v1/queue?state=queued&recipient=%40example.net&client=&limit=1")
        self.assertEqual((status, len(row["messages"]), row["next"]), (200, 1, ID))
        self.assertEqual(self.rooms.asked, [("queue", QueueFilter(state="queued", recipient="@example.net"), 2, 0)])
        status, row = self.ask("GET", f"/v1/messages/{ID}")
        self.assertEqual((status, row["id"], len(row["events"])), (200, ID, 2))

    def test_changes(self) -> None:
        """A change is POSTed, to one message or to what filters mean."""
        self.assertEqual(self.ask("POST", f"/v1/messages/{ID}/hold"), (200, {"verb": "hold", "recipients": 1}))
        self.assertEqual(self.rooms.asked[-1], ("hold", QueueFilter(id=7 << 40), NOW))
        self.assertEqual(self.ask("POST", "/v1/queue/delete", {"sender": "@example.org"})[0], 200)
        self.assertEqual(self.rooms.asked[-1], ("delete", QueueFilter(sender="@example.org"), NOW))

    def test_everything_must_be_meant(self) -> None:
        """An empty filter changes nothing, unless everything is meant."""
        for body in (None, {}, {"all": False}, {"all": "yes"}, {"sender": ""}):
            self.assertEqual(self.ask("POST", "/v1/queue/delete", body)[0], 400)
        self.assertEqual(self.rooms.asked, [])
        self.assertEqual(self.ask("POST", "/v1/queue/delete", {"all": True})[0], 200)
        self.assertEqual(self.rooms.asked, [("delete", QueueFilter(), NOW)])

    def test_send_test(self) -> None:
        """A test message is handed in, and its id told."""
        status, row = self.ask("POST", "/v1/send-test", {"to": "bob@example.net"})
        self.assertEqual((status, len(row["id"]), len(self.rooms.submitted)), (200, 13, 1))
        for body in ({}, {"to": 5}, {"to": "bob"}):
            self.assertEqual(self.ask("POST", "/v1/send-test", body)[0], 400)

    def test_problems(self) -> None:
        """What cannot be done is a problem in words, with the fitting status."""
        for method, path, body, want in (
            ("GET", "/", None, 404),
            ("GET", "/v1/messages/x", None, 400),
            ("GET", f"/v1/messages/{NEXT}", None, 404),
            ("POST", f"/v1/messages/{NEXT}/hold", None, 404),
            ("GET", f"/v1/messages/{ID}/hold", None, 405),
            ("POST", f"/v1/messages/{ID}/burn", None, 404),
            ("POST", "/v1/queue", None, 405),
            ("DELETE", "/v1/status", None, 405),
            ("GET", "/v1/queue?state=lost", None, 400),
            ("GET", "/v1/queue?limit=x", None, 400),
            ("GET", "/v1/queue?sender=a&sender=b", None, 400),
            ("GET", "/v1/queue?after=x", None, 400),
            ("POST", "/v1/queue/hold", b"{", 400),
            ("POST", "/v1/queue/hold", b"[1]", 400),
            ("POST", "/v1/queue/hold", b"[" * 60000, 400),
            ("POST", "/v1/queue/hold", b"\xff\xfe", 400),
            ("POST", "/v1/queue/hold", {"id": "1"}, 400),
        ):
            status, row = self.ask(method, path, body)
            self.assertEqual(
                (status, row["status"], self.kind), (want, want, "application/problem+json"), (method, path)
            )
            self.assertTrue(row["detail"])
        self.assertEqual(self.rooms.asked, [])

    def test_trouble_of_the_store(self) -> None:
        """Trouble of the store is told as such; a bug is told as one, without its text."""
        for failure, status, words in (
            (TooMuch(), 503, "ask for less"),
            (StoreBroken(), 503, "the disk of the queue failed"),
            (RuntimeError("secret detail"), 500, "its log says how"),
        ):
            self.rooms.failure = failure
            found, row = self.ask("GET", "/v1/queue")
            self.assertEqual(found, status)
            self.assertIn(words, row["detail"])
            self.assertNotIn("secret", str(row))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_large_body(self) -> None:
        """A body beyond its bound is not kept, and refused."""
        self.assertEqual(self.ask("POST", "/v1/queue/hold", b" " * (MAX_BODY + 1))[0], 413)
        self.assertEqual(self.rooms.asked, [])

    def test_endless_body(self) -> None:
        """Who goes on sending beyond all bounds is cut off."""
        transport = StringTransport()
        protocol = self.site.buildProtocol(None)
        protocol.makeConnection(transport)
        protocol.dataReceived(b"POST /v1/queue/hold HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(20):
            protocol.dataReceived(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            if transport.disconnecting or transport.disconnected:
                break
        self.assertTrue(transport.disconnecting or transport.disconnected)
        self.assertEqual(self.rooms.asked, [])

    def test_operator_who_left(self) -> None:
        """An operator who goes before the answer harms nothing, and what was asked for is done and logged."""
        waiting: Deferred[int] = Deferred()
        self.rooms.changed = waiting
        protocol = self.site.buildProtocol(None)
        protocol.makeConnection(StringTransport())
        protocol.dataReceived(
            b"POST /v1/queue/retry HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n" + b'{"all": true}'
        )
        protocol.connectionLost(Failure(ConnectionDone()))
        waiting.callback(5)
        self.assertEqual(self.rooms.asked[-1], ("kick",))
        self.rooms.lines.flush()
        self.assertIn("operator-retry by=control recipients=5", self.log.getvalue())
