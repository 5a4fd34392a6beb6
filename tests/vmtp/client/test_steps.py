"""Tests of the client's procedures, against a server that follows a script."""

import io
from concurrent.futures import Future

from twisted.trial.unittest import SynchronousTestCase

from tests.vmtp.client.peer import EHLO, GREETING, PLAIN_EHLO, Peer, Turn
from vmtp.client import steps
from vmtp.client.engine import TLSFacts
from vmtp.client.states import State
from vmtp.client.steps import SendResult
from vmtp.envelope import Envelope, Recipient
from vmtp.errors import (
    AuthenticationFailed,
    ConnectionClosed,
    Error,
    ExtensionUnavailable,
    InvalidInput,
    MalformedReply,
    TimedOut,
    TLSFailed,
    UnexpectedReply,
)
from vmtp.replies import Reply

TEXT = b"Subject: test\r\n\r\n.dot\r\n"
STUFFED = b"Subject: test\r\n\r\n..dot\r\n.\r\n"
MAIL = b"MAIL FROM:<a@b.example>\r\n"
ANN = b"RCPT TO:<ann@d.example>\r\n"
BOB = b"RCPT TO:<bob@d.example>\r\n"


def envelope(*recipients: str, sender: str = "a@b.example", **params: str) -> Envelope:
    """An envelope for these local parts at d.example."""
    return Envelope(sender, tuple(Recipient(f"{local}@d.example") for local in recipients), params)


def connected(*script: Turn, ehlo: Turn = EHLO, step: int = 0) -> Peer:
    """A peer behind EHLO, with the rest of its script to come."""
    peer = Peer(GREETING, ehlo, *script, step=step)
    peer.run(steps.connect(peer.engine, "me.example", "none"))
    return peer


def secured(*script: Turn, mechanisms: bytes = b"PLAIN LOGIN") -> Peer:
    """A peer with TLS from the first octet that offers mechanisms."""
    peer = Peer(GREETING, (b"EHLO me.example\r\n", b"250-relay\r\n250 AUTH " + mechanisms + b"\r\n"), *script)
    peer.run(steps.connect(peer.engine, "me.example", implicit=True))
    return peer


class Connecting(SynchronousTestCase):
    """Greeting, EHLO, STARTTLS."""

    OFFER = (b"EHLO me.example\r\n", b"250-relay\r\n250-STARTTLS\r\n250 X-OLD\r\n")
    GO = (b"STARTTLS\r\n", b"220 go\r\n")

    def connect(self, peer: Peer, tls: steps.Posture) -> None:
        """Run the procedure."""
        peer.run(steps.connect(peer.engine, "me.example", tls))

    def test_byte_by_byte(self) -> None:
        """However the replies are cut, we are connected and know the capabilities."""
        for step in range(12):
            peer = connected(step=step)
            self.assertEqual(dict(peer.engine.capabilities), {"PIPELINING": "", "SIZE": "1000000", "8BITMIME": ""})

    def test_starttls_when_offered(self) -> None:
        """TLS is used where it is offered, and what was offered in clear is forgotten."""
        peer = Peer(GREETING, self.OFFER, self.GO, PLAIN_EHLO)
        self.connect(peer, "opportunistic")
        assert peer.engine.tls is not None
        self.assertEqual((peer.engine.tls.version, dict(peer.engine.capabilities)), ("TLSv1.3", {}))

    def test_starttls_whatever_its_case(self) -> None:
        """A server that writes starttls is understood: we do not go on in clear."""
        peer = Peer(GREETING, (b"EHLO me.example\r\n", b"250-relay\r\n250 starttls\r\n"), self.GO, PLAIN_EHLO)
        self.connect(peer, "required")
        self.assertIsNotNone(peer.engine.tls)

    def test_starttls_not_offered(self) -> None:
        """Where TLS must be and is not offered, we end before anything else is said."""
        for tls in ("required", "verified"):
            peer = Peer(GREETING, PLAIN_EHLO)
            with self.assertRaises(ExtensionUnavailable):
                peer.run(steps.connect(peer.engine, "me.example", "required" if tls == "required" else "verified"))
            self.assertEqual(peer.writes, [b"EHLO me.example\r\n"])

    def test_starttls_refused(self) -> None:
        """A refused STARTTLS ends a session that must have TLS, and leaves one in clear that need not."""
        refusal = (b"STARTTLS\r\n", b"454 4.7.0 not now\r\n")
        with self.assertRaises(UnexpectedReply):
            self.connect(Peer(GREETING, self.OFFER, refusal), "required")
        peer = Peer(GREETING, self.OFFER, refusal)
        self.connect(peer, "opportunistic")
        self.assertEqual((peer.engine.tls, peer.engine.state), (None, State.READY))

    def test_injected_reply(self) -> None:
        """A reply injected behind the 220 to STARTTLS is never believed."""
        peer = Peer(GREETING, self.OFFER, (b"STARTTLS\r\n", b"220 go\r\n250-relay\r\n250 AUTH PLAIN\r\n"))
        with self.assertRaises(TLSFailed):
            self.connect(peer, "opportunistic")

    def test_failed_handshake(self) -> None:
        """A handshake that fails is the end of this session, also where TLS is only opportunistic."""
        peer = Peer(GREETING, self.OFFER, self.GO, handshake=False)
        with self.assertRaises(TLSFailed):
            self.connect(peer, "opportunistic")

    def test_helo(self) -> None:
        """HELO follows where EHLO is not known, and where EHLO is refused for another reason nothing does."""
        hello = (b"HELO me.example\r\n", b"250 relay\r\n")
        for refusal in (b"500 what\r\n", b"502 no\r\n"):
            peer = Peer(GREETING, (EHLO[0], refusal), hello)
            self.connect(peer, "opportunistic")
            self.assertEqual(peer.engine.state, State.READY)
        for refusal in (b"550 go away\r\n", b"421 later\r\n", b"451 later\r\n"):
            with self.assertRaises(UnexpectedReply) as caught:
                self.connect(Peer(GREETING, (EHLO[0], refusal)), "none")
            self.assertEqual(caught.exception.operation, "EHLO")

    def test_refusing_greeting(self) -> None:
        """A greeting that refuses, is none, or never comes, says so as an error of the greeting."""
        cases: list[tuple[list[Turn], type[Error]]] = [
            ([(b"", b"554 5.7.1 no\r\n")], UnexpectedReply),
            ([(b"", b"SSH-2.0-OpenSSH\r\n")], MalformedReply),
            ([(b"", None)], ConnectionClosed),
            ([], TimedOut),
        ]
        for script, kind in cases:
            with self.assertRaises(kind) as caught:
                self.connect(Peer(*script), "none")
            self.assertEqual(caught.exception.operation, "greeting")

    def test_bad_host_names(self) -> None:
        """A host name that could break a line is refused before anything is sent."""
        for name in ("", "a b", "a\r\nQUIT", "ä", "x" * 256):
            peer = Peer(GREETING)
            with self.assertRaises(InvalidInput):
                peer.run(steps.connect(peer.engine, name))
            self.assertEqual(peer.writes, [])


class LoggingIn(SynchronousTestCase):
    """AUTH."""

    def login(self, peer: Peer, **more: str) -> Reply:
        """Log in as ann."""
        return peer.run(steps.login(peer.engine, "ann", "secret", **more))

    def test_plain(self) -> None:
        """PLAIN goes in one command."""
        peer = secured((b"AUTH PLAIN AGFubgBzZWNyZXQ=\r\n", b"235 2.7.0 welcome\r\n"))
        self.assertEqual(self.login(peer).code, 235)
        self.assertTrue(peer.engine.authenticated)

    def test_login(self) -> None:
        """LOGIN answers two prompts."""
        peer = secured(
            (b"AUTH LOGIN\r\n", b"334 VXNlcm5hbWU6\r\n"),
            (b"YW5u\r\n", b"334 UGFzc3dvcmQ6\r\n"),
            (b"c2VjcmV0\r\n", b"235 ok\r\n"),
            mechanisms=b"LOGIN",
        )
        self.assertEqual(self.login(peer).code, 235)

    def test_long_password(self) -> None:
        """A response too long for a command line waits for a challenge."""
        peer = secured((b"AUTH PLAIN\r\n", b"334 \r\n"), (b"AGFubgB4eHh4", b"235 ok\r\n"))
        self.assertEqual(peer.run(steps.login(peer.engine, "ann", "x" * 500)).code, 235)

    def test_never_in_clear(self) -> None:
        """Without TLS no password is sent, whatever the server offers."""
        peer = connected(ehlo=(b"EHLO me.example\r\n", b"250-relay\r\n250 AUTH PLAIN\r\n"))
        sent = len(peer.writes)
        with self.assertRaises(InvalidInput):
            self.login(peer)
        self.assertEqual(len(peer.writes), sent)

    def test_nothing_in_common(self) -> None:
        """Where no mechanism is in common, or the one that is wanted is not offered, nothing is sent."""
        for more in ({}, {"mechanism": "PLAIN"}):
            peer = secured(mechanisms=b"GSSAPI")
            with self.assertRaises(ExtensionUnavailable):
                self.login(peer, **more)
            self.assertEqual(len(peer.writes), 1)

    def test_refused(self) -> None:
        """A wrong password is an AuthenticationFailed that shows the server's words and not ours."""
        with self.assertRaises(AuthenticationFailed) as caught:
            self.login(secured((b"AUTH PLAIN", b"535 5.7.8 no\r\n")))
        self.assertEqual(caught.exception.reply, Reply(535, "5.7.8", "no"))
        self.assertNotIn("secret", str(caught.exception))

    def test_endless_challenges(self) -> None:
        """A server that asks on and on gets no third answer."""
        prompts: list[Turn] = [(b"AUTH LOGIN\r\n", b"334 YQ==\r\n"), *[(b"", b"334 not base64!\r\n")] * 10]
        with self.assertRaises(MalformedReply):
            self.login(secured(*prompts, mechanisms=b"LOGIN"))


class Sending(SynchronousTestCase):
    """Transactions."""

    def send(self, peer: Peer, which: Envelope, content: bytes = TEXT, size: int = 0) -> SendResult:
        """Send a message."""
        return peer.run(steps.send(peer.engine, which, io.BytesIO(content), size))

    def codes(self, result: SendResult) -> list[int | None]:
        """The code for each recipient."""
        return [reply.code if reply else None for reply in result.replies]

    def test_pipelined(self) -> None:
        """With PIPELINING, MAIL, RCPT and DATA leave in one write, and the content with its dot in another."""
        for step in (0, 1, 3):
            peer = connected(
                (MAIL[:-2] + b" SIZE=24\r\n" + ANN + b"DATA\r\n", b"250 ok\r\n250 ok\r\n354 go\r\n"),
                (STUFFED, b"250 2.0.0 queued\r\n"),
                step=step,
            )
            result = self.send(peer, envelope("ann"), size=24)
            self.assertEqual(result.replies, (Reply(250, "2.0.0", "queued"),))
            self.assertEqual((result.final, result.error), (Reply(250, "2.0.0", "queued"), None))
            self.assertEqual(len(peer.writes), 3)

    def test_lockstep(self) -> None:
        """Without PIPELINING each command waits for its reply."""
        peer = connected(
            (MAIL, b"250 ok\r\n"),
            (ANN, b"250 ok\r\n"),
            (BOB, b"550 5.1.1 who\r\n"),
            (b"DATA\r\n", b"354 go\r\n"),
            (STUFFED, b"250 ok\r\n"),
            ehlo=PLAIN_EHLO,
        )
        self.assertEqual(self.codes(self.send(peer, envelope("ann", "bob"))), [250, 550])

    def test_both_ways_agree(self) -> None:
        """Pipelined or not, the same replies give the same result."""
        for mail, ann, bob, data, body, expected in (
            (b"250", b"250", b"250", b"354", b"250", [250, 250]),
            (b"250", b"550", b"250", b"354", b"250", [550, 250]),
            (b"250", b"450", b"552", b"554", b"", [450, 552]),
            (b"250", b"450", b"250", b"451", b"", [450, 451]),
            (b"250", b"250", b"250", b"354", b"554", [554, 554]),
            (b"451", b"503", b"503", b"503", b"", [451, 451]),
            (b"550", b"503", b"503", b"503", b"", [550, 550]),
        ):
            commands = (MAIL, ANN, BOB, b"DATA\r\n")
            replies = tuple(code + b" x\r\n" for code in (mail, ann, bob, data))
            piped = connected((b"".join(commands), b"".join(replies)), (STUFFED, body + b" x\r\n"))
            script = [(command, reply) for command, reply in zip(commands, replies, strict=True) if reply]
            if mail != b"250":
                script = script[:1]
            elif data == b"554":
                script = script[:3]
            slow = connected(*script, (STUFFED, body + b" x\r\n"), ehlo=PLAIN_EHLO)
            for peer in (piped, slow):
                result = self.send(peer, envelope("ann", "bob"))
                self.assertEqual(self.codes(result), expected)
                self.assertIsNone(result.error)
                self.assertFalse(peer.engine.closed)

    def test_next_message(self) -> None:
        """Behind refused recipients the session goes on: what is left of the transaction is reset with the next one."""
        peer = connected(
            (MAIL + ANN + b"DATA\r\n", b"250 ok\r\n550 no\r\n503 no\r\n"),
            (b"RSET\r\n" + MAIL + BOB + b"DATA\r\n", b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n"),
            (STUFFED, b"250 ok\r\n"),
        )
        self.assertEqual(self.codes(self.send(peer, envelope("ann"))), [550])
        self.assertEqual(self.codes(self.send(peer, envelope("bob"))), [250])

    def test_data_taken_without_recipients(self) -> None:
        """Where no recipient was taken but DATA was, a lone dot ends it, and the session goes on."""
        for mail, ann, expected in ((b"250", b"550", 550), (b"451", b"503", 451)):
            peer = connected(
                (MAIL + ANN + b"DATA\r\n", mail + b" x\r\n" + ann + b" x\r\n354 go\r\n"), (b".\r\n", b"554 no\r\n")
            )
            self.assertEqual(self.codes(self.send(peer, envelope("ann"))), [expected])
            self.assertEqual((peer.writes[-1], peer.engine.state), (b".\r\n", State.READY))

    def test_many_recipients(self) -> None:
        """Very many recipients go in groups, each of which is answered before the next, with DATA in the last."""
        count = 1000
        locals_ = [f"recipient{n}" for n in range(count)]
        peer = Peer(GREETING, EHLO)
        peer.run(steps.connect(peer.engine, "me.example", "none"))
        procedure = steps.send(peer.engine, envelope(*locals_), io.BytesIO(TEXT))
        need, groups = next(procedure), 0
        while True:
            octets = peer.engine.bytes_to_send()
            self.assertLess(len(octets), steps.GROUP + 100)
            groups += 1
            self.assertIs(need, steps.Need.RECEIVE)
            if octets == STUFFED:
                break
            replies = {b"MAIL": b"250 ok\r\n", b"RCPT": b"250 ok\r\n", b"DATA": b"354 go\r\n"}
            events = peer.engine.receive(b"".join(replies[line[:4]] for line in octets.splitlines()))
            need = procedure.send(events)
        with self.assertRaises(StopIteration) as stop:
            procedure.send(peer.engine.receive(b"250 ok\r\n"))
        self.assertEqual(self.codes(stop.exception.value), [250] * count)
        self.assertGreater(groups, 3)

    def test_refused_mail_saves_the_rest(self) -> None:
        """When MAIL is refused, the groups behind the first are not sent."""
        peer = connected()
        which = envelope(*(f"recipient{n}" for n in range(1000)))
        procedure = steps.send(peer.engine, which, io.BytesIO(TEXT))
        next(procedure)
        commands = peer.engine.bytes_to_send().count(b"\r\n")
        self.assertLess(commands, 1000)
        with self.assertRaises(StopIteration) as stop:
            procedure.send(peer.engine.receive(b"550 no\r\n" + b"503 no\r\n" * (commands - 1)))
        self.assertEqual(self.codes(stop.exception.value), [550] * 1000)
        self.assertEqual(peer.engine.bytes_to_send(), b"")

    def test_too_large(self) -> None:
        """A message above the server's limit is answered here, and nothing is sent."""
        peer = connected()
        sent = len(peer.writes)
        result = self.send(peer, envelope("ann", "bob"), size=1000001)
        self.assertEqual([(reply.code, reply.enhanced) for reply in result.replies if reply], [(552, "5.3.4")] * 2)
        self.assertEqual(len(peer.writes), sent)

    def test_large_content(self) -> None:
        """A large content leaves block by block, and waits for the peer to read between them."""
        content = b"x" * 62 + b"\r\n"
        content *= 4096
        peer = connected(
            (MAIL + ANN + b"DATA\r\n", b"250 ok\r\n250 ok\r\n354 go\r\n"), (content + b".\r\n", b"250 ok\r\n")
        )
        result = self.send(peer, envelope("ann"), content)
        self.assertEqual(self.codes(result), [250])
        self.assertEqual(max(len(write) for write in peer.writes), 65536 + 3)

    def test_content_to_wait_for(self) -> None:
        """A content may give its octets later."""

        class Slow:
            def __init__(self) -> None:
                self.pieces = [TEXT, b""]

            def read(self, n: int) -> Future[bytes]:
                piece: Future[bytes] = Future()
                piece.set_result(self.pieces.pop(0))
                return piece

        peer = connected((MAIL + ANN + b"DATA\r\n", b"250 ok\r\n250 ok\r\n354 go\r\n"), (STUFFED, b"250 ok\r\n"))
        result = peer.run(steps.send(peer.engine, envelope("ann"), Slow()))  # type: ignore[arg-type]
        self.assertEqual(self.codes(result), [250])

    def test_cut_behind_the_last_octet(self) -> None:
        """Where the connection ends behind the content, nobody knows whether it arrived, and the error says so."""
        for end in ((STUFFED, None), None):
            script: list[Turn] = [(MAIL + ANN + b"DATA\r\n", b"250 ok\r\n250 ok\r\n354 go\r\n")]
            result = self.send(connected(*script, *([end] if end else [])), envelope("ann"))
            assert result.error is not None
            self.assertEqual((self.codes(result), result.error.ambiguous), ([None], True))

    def test_cut_before(self) -> None:
        """A connection that ends before the content leaves the verdicts that were said, and is not ambiguous."""
        peer = connected((MAIL + ANN + BOB + b"DATA\r\n", b"250 ok\r\n550 no\r\n250 ok\r\n"), (b"", None))
        result = self.send(peer, envelope("ann", "bob"))
        assert isinstance(result.error, ConnectionClosed)
        self.assertEqual((self.codes(result), result.error.ambiguous), ([550, None], False))

    def test_closing_by_421(self) -> None:
        """A 421 at any stage answers for all that have no verdict yet."""
        stages: list[tuple[list[Turn], list[int]]] = [
            ([(MAIL, b"421 bye\r\n")], [421, 421]),
            ([(MAIL, b"250 ok\r\n550 no\r\n421 bye\r\n")], [550, 421]),
            ([(MAIL, b"250 ok\r\n250 ok\r\n550 no\r\n421 bye\r\n")], [421, 550]),
            (
                [
                    (MAIL + ANN + BOB + b"DATA\r\n", b"250 ok\r\n250 ok\r\n550 no\r\n354 go\r\n"),
                    (STUFFED, b"421 bye\r\n"),
                ],
                [421, 550],
            ),
        ]
        for script, expected in stages:
            result = self.send(connected(*script), envelope("ann", "bob"))
            self.assertEqual(self.codes(result), expected)
            assert isinstance(result.error, UnexpectedReply)
            self.assertFalse(result.error.ambiguous)

    def test_verdict_and_end_together(self) -> None:
        """A 250 to the content counts, whatever comes behind it."""
        for behind in (b"421 bye\r\n", b"250 unasked\r\n", b"rubbish\r\n"):
            peer = connected(
                (MAIL + ANN + b"DATA\r\n", b"250 ok\r\n250 ok\r\n354 go\r\n"), (STUFFED, b"250 ok\r\n" + behind)
            )
            result = self.send(peer, envelope("ann"))
            self.assertEqual(self.codes(result), [250])
            self.assertIsNotNone(result.error)

    def test_parameters(self) -> None:
        """Parameters go where they are offered, and nowhere else."""
        which = Envelope(
            "a@b.example",
            (Recipient("ann@d.example", {"NOTIFY": "NEVER", "ORCPT": "rfc822;x@y"}),),
            {"BODY": "8BITMIME", "RET": "HDRS", "ENVID": "q+2B1", "SIZE": "5", "X-FOO": "1"},
        )
        all_ = connected(
            (
                b"MAIL FROM:<a@b.example> BODY=8BITMIME RET=HDRS ENVID=q+2B1\r\n"
                b"RCPT TO:<ann@d.example> NOTIFY=NEVER ORCPT=rfc822;x@y\r\nDATA\r\n",
                b"250 ok\r\n250 ok\r\n354 go\r\n",
            ),
            (STUFFED, b"250 ok\r\n"),
            ehlo=(EHLO[0], b"250-relay\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 DSN\r\n"),
        )
        none = connected(
            (MAIL, b"250 ok\r\n"),
            (ANN, b"250 ok\r\n"),
            (b"DATA\r\n", b"354 go\r\n"),
            (STUFFED, b"250 ok\r\n"),
            ehlo=PLAIN_EHLO,
        )
        for peer in (all_, none):
            self.assertEqual(self.codes(self.send(peer, which)), [250])

    def test_null_return_path(self) -> None:
        """A report with the null return path can be sent."""
        peer = connected(
            (b"MAIL FROM:<>\r\n" + ANN + b"DATA\r\n", b"250 ok\r\n250 ok\r\n354 go\r\n"), (STUFFED, b"250 x\r\n")
        )
        self.assertEqual(self.codes(self.send(peer, envelope("ann", sender=""))), [250])

    def test_injection(self) -> None:
        """Line ends, controls, blanks and brackets in addresses and values are refused before anything is sent."""
        bad = [envelope("ann", sender=f"a{octet}@b.example") for octet in "\r\n\0\t <>\x7f\x85"]
        bad += [Envelope("a@b.example", (Recipient(f"x@d{octet}.example"),)) for octet in "\r\n\0 >\u2028"]
        bad += [
            Envelope("a@b.example", (Recipient("x@d.example", {"ORCPT": value}),))
            for value in ("a\r\nb", "a b", "a=b", "ä")
        ]
        bad += [envelope("ann", ENVID="x\n"), Envelope("a@b.example", ()), envelope("ann", sender='"a\r\n"@b.example')]
        for which in bad:
            peer = connected(ehlo=(EHLO[0], b"250-relay\r\n250-DSN\r\n250-SMTPUTF8\r\n250 PIPELINING\r\n"))
            sent = len(peer.writes)
            with self.assertRaises(InvalidInput, msg=repr(which)):
                self.send(peer, which)
            self.assertEqual((len(peer.writes), peer.engine.bytes_to_send()), (sent, b""), which)

    def test_smtputf8(self) -> None:
        """A message that needs SMTPUTF8 is not sent where it is not offered; one that only asked for it is."""
        refused = Reply(550, "5.6.7", "the message needs SMTPUTF8, which the server does not offer")
        self.assertEqual(self.send(connected(), envelope("jörg")).replies, (refused,))
        header = "Subject: schön\r\n\r\n".encode()
        self.assertEqual(self.send(connected(), envelope("ann", SMTPUTF8=""), header).replies, (refused,))
        script = (MAIL + ANN + b"DATA\r\n", b"250 ok\r\n250 ok\r\n354 go\r\n"), (STUFFED, b"250 ok\r\n")
        self.assertEqual(self.codes(self.send(connected(*script), envelope("ann", SMTPUTF8=""))), [250])
        peer = connected(
            (
                "MAIL FROM:<a@b.example> SMTPUTF8\r\nRCPT TO:<jörg@d.example>\r\nDATA\r\n".encode(),
                b"250 x\r\n250 x\r\n354 x\r\n",
            ),
            (STUFFED, b"250 ok\r\n"),
            ehlo=(EHLO[0], b"250-relay\r\n250-SMTPUTF8\r\n250 PIPELINING\r\n"),
        )
        self.assertEqual(self.codes(self.send(peer, envelope("jörg"))), [250])

    def test_international_domain(self) -> None:
        """A domain in another alphabet goes as A-labels where the server knows no SMTPUTF8."""
        peer = connected(
            (MAIL + b"RCPT TO:<ann@xn--bcher-kva.example>\r\nDATA\r\n", b"250 ok\r\n250 ok\r\n354 go\r\n"),
            (STUFFED, b"250 ok\r\n"),
        )
        result = self.send(peer, Envelope("a@b.example", (Recipient("ann@bücher.example"),)))
        self.assertEqual(self.codes(result), [250])

    def test_bare_lf_in_content(self) -> None:
        """A content with a bare line feed is refused, and the session cannot be used again."""
        peer = connected((MAIL + ANN + b"DATA\r\n", b"250 ok\r\n250 ok\r\n354 go\r\n"))
        with self.assertRaises(InvalidInput):
            self.send(peer, envelope("ann"), b"a\n.\nMAIL FROM:<x@y>\r\n")
        self.assertEqual(peer.engine.state, State.BODY)
        self.assertNotIn(b"MAIL FROM:<x@y>", b"".join(peer.writes))


class Small(SynchronousTestCase):
    """RSET, NOOP, QUIT."""

    def test_reset_and_noop(self) -> None:
        """RSET and NOOP give the reply, or raise what came instead."""
        peer = connected((b"NOOP\r\n", b"250 ok\r\n"), (b"RSET\r\n", b"250 ok\r\n"), (b"NOOP\r\n", b"500 what\r\n"))
        self.assertEqual(peer.run(steps.noop(peer.engine)).code, 250)
        self.assertEqual(peer.run(steps.reset(peer.engine)).code, 250)
        with self.assertRaises(UnexpectedReply):
            peer.run(steps.noop(peer.engine))

    def test_quit(self) -> None:
        """QUIT never raises: with a reply, without one, and where the session is over."""
        for script in ([(b"QUIT\r\n", b"221 bye\r\n")], [(b"QUIT\r\n", None)], []):
            peer = connected(*script)
            peer.run(steps.quit(peer.engine))
            self.assertTrue(peer.engine.closed)
            peer.run(steps.quit(peer.engine))

    def test_tls_facts(self) -> None:
        """What the handshake brought can be asked for."""
        self.assertEqual(secured().engine.tls, TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", True))
