"""The server engine by itself: decisions that come late, order, limits, and what TLS and logins change.

The plain conversations stand in tests/dialogs; here is what needs a hand on the engine.
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from vmtp.replies import Reply
from vmtp.server import (
    BEGIN,
    Content,
    Data,
    End,
    Engine,
    Event,
    Hello,
    Limits,
    Login,
    Mail,
    Rcpt,
    Reset,
    StartTLS,
)

OK = Reply(250, "2.0.0", "ok")
NO = Reply(550, "5.7.1", "no")
LATER = Reply(421, "4.3.2", "going down")
OPEN = b"EHLO a\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"


def agree(event: Event) -> Reply | None:
    """A positive answer to everything that asks."""
    if isinstance(event, Data):
        return BEGIN
    if isinstance(event, StartTLS):
        return Reply(220, "2.0.0", "begin")
    if isinstance(event, Login):
        return Reply(235, "2.7.0", "welcome")
    return OK if hasattr(event, "slot") else None


def run(engine: Engine, data: bytes, decide: Callable[[Event], Reply | None] = agree) -> list[Event]:
    """Feed octets and answer at once; where `decide` gives None, the answer waits."""
    engine.receive(data)
    events = []
    while (event := engine.next_event()) is not None:
        events.append(event)
        reply = decide(event)
        if reply is not None and isinstance(event, Hello):
            reply = engine.hello(event, "greets you")
        if reply is not None and not isinstance(event, Content | Reset):
            engine.answer(event.slot, reply)
    return events


def codes(octets: bytes) -> list[int]:
    """The codes of replies, one a line."""
    return [int(line[:3]) for line in octets.split(b"\r\n") if line and line[3:4] != b"-"]


class LateTests(SynchronousTestCase):
    """Decisions that take their time."""

    def test_parsing_waits_for_a_decision(self) -> None:
        """What is pipelined behind an open question is not looked at until it is answered."""
        engine = Engine("mx.example")
        run(engine, b"HELO a\r\n")
        engine.bytes_to_send()
        (mail,) = run(engine, b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n", lambda event: None)
        assert isinstance(mail, Mail)
        self.assertEqual(engine.bytes_to_send(), b"")
        engine.answer(mail.slot, NO)
        self.assertIsNone(engine.next_event())
        self.assertEqual(codes(engine.bytes_to_send()), [550, 503])

    def test_a_commit_does_not_stop_the_next_message(self) -> None:
        """While a message is being stored the next one comes in; replies keep the order of the commands."""
        engine = Engine("mx.example")
        ends = []

        def decide(event: Event) -> Reply | None:
            if isinstance(event, End):
                ends.append(event)
                return None
            return agree(event)

        run(engine, OPEN, decide)
        engine.bytes_to_send()
        run(engine, b"one\r\n.\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\ntwo\r\n.\r\n", decide)
        self.assertEqual(len(ends), 2)
        engine.answer(ends[1].slot, OK)
        self.assertEqual(engine.bytes_to_send(), b"")
        engine.answer(ends[0].slot, Reply(451, "4.3.0", "no"))
        self.assertEqual(codes(engine.bytes_to_send()), [451, 250, 250, 354, 250])

    def test_replies_that_wait_are_bounded(self) -> None:
        """A client that pipelines faster than the disk writes is made to wait."""
        engine = Engine("mx.example", Limits(junk=1000))
        run(engine, OPEN, lambda event: None if isinstance(event, End) else agree(event))
        run(engine, b"x\r\n.\r\n" + b"NOOP\r\n" * 20000, lambda event: None)
        self.assertFalse(engine.wants_input)

    def test_waiting_content_is_bounded(self) -> None:
        """Contents that wait for the disk hold up the session when they grow large."""
        engine = Engine("mx.example")
        hold = lambda event: None if isinstance(event, End) else agree(event)  # noqa: E731
        run(engine, OPEN, hold)
        events = run(engine, b"x" * 300_000 + b"\r\n.\r\n" + b"MAIL FROM:<a@b.example>\r\n" * 1000, hold)
        self.assertNotIn(Mail, {type(event) for event in events})
        self.assertFalse(engine.wants_input)


class TLSTests(SynchronousTestCase):
    """STARTTLS (RFC 3207)."""

    def test_nothing_sent_in_clear_behind_starttls_is_obeyed(self) -> None:
        """Commands that came with STARTTLS in one packet, whole or begun, are forgotten."""
        for behind in [b"MAIL FROM:<evil@b.example>\r\n", b"EHLO a\r\nMAIL FR", b"X"]:
            engine = Engine("mx.example", starttls=True)
            events = run(engine, b"EHLO a\r\nSTARTTLS\r\n" + behind)
            self.assertIsInstance(events[-1], StartTLS)
            engine.tls_established()
            engine.bytes_to_send()
            self.assertEqual(run(engine, b"MAIL FROM:<a@b.example>\r\n"), [])
            self.assertEqual(codes(engine.bytes_to_send()), [503])

    def test_offered_once(self) -> None:
        """STARTTLS is offered in clear alone, and refused under TLS."""
        engine = Engine("mx.example", starttls=True)
        run(engine, b"EHLO a\r\n")
        self.assertIn(b"250-STARTTLS\r\n", engine.bytes_to_send())
        run(engine, b"STARTTLS\r\n")
        engine.tls_established()
        engine.bytes_to_send()
        run(engine, b"EHLO a\r\n")
        self.assertNotIn(b"STARTTLS", engine.bytes_to_send())
        run(engine, b"STARTTLS\r\n")
        self.assertEqual(codes(engine.bytes_to_send()), [502])

    def test_waits_for_what_is_under_way(self) -> None:
        """STARTTLS does not overtake the answer to a message."""
        engine = Engine("mx.example", starttls=True)
        ends: list[End] = []
        run(engine, OPEN)
        run(
            engine,
            b"x\r\n.\r\nSTARTTLS\r\n",
            lambda event: ends.append(event) if isinstance(event, End) else agree(event),
        )
        engine.bytes_to_send()
        self.assertIsNone(engine.next_event())
        engine.answer(ends[0].slot, OK)
        self.assertIsInstance(engine.next_event(), StartTLS)


class LoginTests(SynchronousTestCase):
    """AUTH (RFC 4954)."""

    def engine(self) -> Engine:
        """A session under TLS, greeted."""
        engine = Engine("mx.example", starttls=True, tls=True, mechanisms=("PLAIN", "LOGIN"))
        run(engine, b"EHLO a\r\n")
        self.assertIn(b"AUTH PLAIN LOGIN", engine.bytes_to_send())
        return engine

    def test_plain(self) -> None:
        """A login in one line, and in two."""
        for octets in [b"AUTH PLAIN AGFubgBzZWNyZXQ=\r\n", b"auth plain\r\nAGFubgBzZWNyZXQ=\r\n"]:
            engine = self.engine()
            (login,) = run(engine, octets)
            assert isinstance(login, Login)
            self.assertEqual((login.credentials.username, login.credentials.password), ("ann", "secret"))
            self.assertEqual(codes(engine.bytes_to_send())[-1], 235)

    def test_login_prompts(self) -> None:
        """The prompts are those that old devices look for, to the letter."""
        engine = self.engine()
        run(engine, b"AUTH LOGIN\r\n")
        self.assertEqual(engine.bytes_to_send(), b"334 VXNlcm5hbWU6\r\n")
        run(engine, b"YW5u\r\n")
        self.assertEqual(engine.bytes_to_send(), b"334 UGFzc3dvcmQ6\r\n")
        (login,) = run(engine, b"c2VjcmV0\r\n")
        assert isinstance(login, Login)
        self.assertEqual(login.credentials.username, "ann")

    def test_refusals(self) -> None:
        """Bare AUTH, unknown mechanisms, bad base64, and a client that gives up each get an answer, and the session goes on."""
        for octets, code in [
            (b"AUTH\r\n", 501),
            (b"AUTH GSSAPI\r\n", 504),
            (b"AUTH PLAIN !\r\n", 501),
            (b"AUTH PLAIN\r\n*\r\n", 501),
            (b"AUTH PLAIN\r\n" + b"A" * 13000 + b"\r\n", 500),
        ]:
            engine = self.engine()
            run(engine, octets)
            self.assertEqual(codes(engine.bytes_to_send())[-1], code, octets[:40])
            run(engine, b"NOOP\r\n")
            self.assertEqual(codes(engine.bytes_to_send()), [250])

    def test_in_clear(self) -> None:
        """A login in clear is refused before the password is read, and not offered."""
        engine = Engine("mx.example", starttls=True, mechanisms=("PLAIN",))
        run(engine, b"EHLO a\r\n")
        self.assertNotIn(b"AUTH", engine.bytes_to_send())
        self.assertEqual(run(engine, b"AUTH PLAIN AGFubgBzZWNyZXQ=\r\n"), [])
        self.assertEqual(codes(engine.bytes_to_send()), [530])

    def test_once(self) -> None:
        """A client that is logged in is not offered another login."""
        engine = self.engine()
        run(engine, b"AUTH PLAIN AGFubgBzZWNyZXQ=\r\nAUTH PLAIN AGFubgBzZWNyZXQ=\r\nEHLO a\r\n")
        out = engine.bytes_to_send()
        self.assertEqual(codes(out), [235, 503, 250])
        self.assertNotIn(b"AUTH", out)


class LongListTests(SynchronousTestCase):
    """More recipients than a message may have."""

    def send(self, count: int) -> Engine:
        """A transaction with so many recipients, of which one is taken."""
        engine = Engine("mx.example.org", Limits(errors=3))
        taken: list[Rcpt] = []

        def decide(event: Event) -> Reply | None:
            if not isinstance(event, Rcpt):
                return agree(event)
            taken.append(event)
            return OK if len(taken) == 1 else Reply(452, "4.5.3", "too many recipients")

        run(engine, b"EHLO a\r\nMAIL FROM:<a@b.example>\r\n", decide)
        run(engine, b"RCPT TO:<c@d.example>\r\n" * count, decide)
        run(engine, b"DATA\r\nhello\r\n.\r\n", decide)
        return engine

    def test_the_first_part_is_taken(self) -> None:
        """A client that sends a long list at once is not sent away for it: what fits is taken."""
        engine = self.send(5000)
        self.assertEqual(engine.bytes_to_send()[-14:], b"250 2.0.0 ok\r\n")
        self.assertFalse(engine.closed)

    def test_without_end(self) -> None:
        """One that goes on without end is."""
        self.assertTrue(self.send(10_010).closed)


class EndTests(SynchronousTestCase):
    """How a session ends."""

    def test_retire(self) -> None:
        """At a stop an idle client is told to go; one in a transaction may end it first."""
        idle, busy = Engine("mx.example"), Engine("mx.example")
        idle.retire(LATER)
        self.assertTrue(idle.closed)
        run(busy, OPEN)
        busy.bytes_to_send()
        busy.retire(LATER)
        self.assertFalse(busy.closed)
        run(busy, b"x\r\n.\r\n")
        self.assertEqual(codes(busy.bytes_to_send()), [250, 421])
        self.assertTrue(busy.closed)

    def test_junk(self) -> None:
        """A client that says nothing of use for too long is sent away."""
        engine = Engine("mx.example", Limits(junk=5))
        run(engine, b"NOOP\r\n" * 7)
        self.assertEqual(codes(engine.bytes_to_send()), [250] * 5 + [421])
        self.assertTrue(engine.closed)

    def test_quit_waits_for_the_answer_to_a_message(self) -> None:
        """QUIT behind a message is answered after it, and the connection stays until then."""
        engine = Engine("mx.example")
        ends: list[End] = []
        run(engine, OPEN)
        run(engine, b"x\r\n.\r\nQUIT\r\n", lambda event: ends.append(event) if isinstance(event, End) else agree(event))
        engine.bytes_to_send()
        self.assertFalse(engine.closed)
        engine.answer(ends[0].slot, OK)
        self.assertEqual(codes(engine.bytes_to_send()), [250, 221])
        self.assertTrue(engine.closed)


WORDS = [
    b"EHLO a\r\n",
    b"MAIL FROM:<a@b.example>\r\n",
    b"RCPT TO:<c@d.example>\r\n",
    b"DATA\r\n",
    b"x\r\n",
    b".\r\n",
    b"RSET\r\n",
    b"AUTH LOGIN\r\n",
    b"YW5u\r\n",
    b"STARTTLS\r\n",
    b"QUIT\r\n",
    b"\n",
    b"\r",
    b"\xff",
    b"y" * 600,
]


class TotalTests(SynchronousTestCase):
    """Whatever a client sends."""

    @settings(max_examples=500, deadline=None)
    @given(st.lists(st.sampled_from(WORDS), max_size=25), st.integers(1, 50))
    def test_cuts_change_nothing(self, words: list[bytes], size: int) -> None:
        """Any octets give the same replies however they are cut, and never an exception."""
        data = b"".join(words)
        # What STARTTLS forgets depends on what has arrived: that is its purpose.
        whole = Engine("mx.example", Limits(line=500, size=50), tls=True, mechanisms=("LOGIN",))
        split = Engine("mx.example", Limits(line=500, size=50), tls=True, mechanisms=("LOGIN",))
        run(whole, data)
        for start in range(0, len(data), size):
            run(split, data[start : start + size])
        self.assertEqual(split.bytes_to_send(), whole.bytes_to_send())
        self.assertEqual(split.closed, whole.closed)

    def test_every_accepted_message_has_recipients(self) -> None:
        """Content is never taken for nobody."""
        engine = Engine("mx.example")
        refuse = lambda event: NO if isinstance(event, Rcpt) else agree(event)  # noqa: E731
        events = run(engine, OPEN + b"x\r\n.\r\n", refuse)
        self.assertNotIn(Data, {type(event) for event in events})
        self.assertIn(554, codes(engine.bytes_to_send()))
