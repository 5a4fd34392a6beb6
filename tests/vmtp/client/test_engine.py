"""Tests of the client's engine: what may be sent when, and what is made of what the peer says."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from vmtp.client.engine import Answer, Ended, Engine, Event, TLSFacts
from vmtp.client.states import REPLIES, SENDS, State
from vmtp.errors import (
    ConnectionClosed,
    InvalidInput,
    MalformedReply,
    TimedOut,
    TLSFailed,
    UnexpectedReply,
)
from vmtp.framing import DataReader
from vmtp.replies import Reply


def ready(capabilities: bytes = b"250-relay\r\n250 PIPELINING\r\n") -> Engine:
    """An engine behind greeting and EHLO."""
    engine = Engine()
    engine.receive(b"220 relay\r\n")
    engine.send("EHLO me.example")
    engine.receive(capabilities)
    engine.bytes_to_send()
    return engine


def in_body() -> Engine:
    """An engine behind 354."""
    engine = ready()
    for command in ("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA"):
        engine.send(command)
    engine.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
    engine.bytes_to_send()
    return engine


class Sending(SynchronousTestCase):
    """What we may send."""

    def test_tables_are_whole(self) -> None:
        """Every state says what may be sent in it, and every command that may be sent says what its replies do."""
        self.assertEqual(set(SENDS), set(State))
        commands = {command for sends in SENDS.values() for command in sends} - {"response"}
        self.assertEqual(commands | {"greeting"}, set(REPLIES))

    def test_nothing_before_the_greeting(self) -> None:
        """Before the greeting nothing may be sent, and nothing is."""
        engine = Engine()
        with self.assertRaises(InvalidInput):
            engine.send("EHLO me.example")
        self.assertEqual(engine.bytes_to_send(), b"")

    def test_line_ends_are_refused(self) -> None:
        """A line end, NUL or other control in a command is refused before anything is sent."""
        for control in "\r\n\0\t\x7f\x85\u2028":
            engine = ready()
            with self.assertRaises(InvalidInput):
                engine.send(f"MAIL FROM:<a{control}@b.example>")
            self.assertEqual(engine.bytes_to_send(), b"")
            self.assertEqual(engine.state, State.READY)

    def test_other_alphabets_need_smtputf8(self) -> None:
        """Characters outside of ASCII are sent only where SMTPUTF8 is offered."""
        with self.assertRaises(InvalidInput):
            ready().send("MAIL FROM:<jörg@b.example>")
        engine = ready(b"250-relay\r\n250 SMTPUTF8\r\n")
        engine.send("MAIL FROM:<jörg@b.example> SMTPUTF8")
        self.assertEqual(engine.bytes_to_send(), "MAIL FROM:<jörg@b.example> SMTPUTF8\r\n".encode())

    def test_no_pipelining_unless_offered(self) -> None:
        """Where PIPELINING is not offered, a command waits for the reply to the one before."""
        engine = ready(b"250 relay\r\n")
        engine.send("MAIL FROM:<a@b.example>")
        with self.assertRaises(InvalidInput):
            engine.send("RCPT TO:<c@d.example>")

    def test_nothing_behind_the_last_of_a_group(self) -> None:
        """Behind DATA nothing is sent before its reply, even where PIPELINING is offered."""
        engine = ready()
        for command in ("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA"):
            engine.send(command)
        with self.assertRaises(InvalidInput):
            engine.body(b"text\r\n", last=True)

    def test_out_of_turn(self) -> None:
        """A command out of turn is refused: RCPT without MAIL, DATA without RCPT, a body without 354."""
        for command in ("RCPT TO:<c@d.example>", "DATA", "FROB"):
            with self.assertRaises(InvalidInput):
                ready().send(command)
        with self.assertRaises(InvalidInput):
            ready().body(b"x\r\n")

    def test_too_long(self) -> None:
        """A command line above 2048 octets is refused."""
        with self.assertRaises(InvalidInput):
            ready().send("RCPT TO:<" + "a" * 2048 + "@d.example>")

    def test_bare_line_ends_in_content(self) -> None:
        """A bare CR or LF, or a NUL, never leaves in a content, however the content is cut."""
        for text in (b"a\nb\r\n", b"a\rb\r\n", b"a\r\r\n", b"\n.\r\n", b"\0\r\n", b"a\r"):
            for cut in range(len(text) + 1):
                engine = in_body()
                with self.assertRaises(InvalidInput):
                    engine.body(text[:cut])
                    engine.body(text[cut:], last=True)

    @given(st.lists(st.sampled_from([b".", b"a", b"\r\n", b"..", b"\r\n.", b"\r\n.\r\n"])), st.data())
    @settings(max_examples=300, deadline=None)
    def test_content_arrives_as_it_was(self, parts: list[bytes], data: st.DataObject) -> None:
        """Whatever dots a content has, and wherever it is cut, a server reads the same content and nothing behind it."""
        content = b"".join(parts) + b"\r\n"
        cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=3)))
        engine = in_body()
        for start, end in zip([0, *cuts], cuts, strict=False):
            engine.body(content[start:end])
        engine.body(content[cuts[-1] if cuts else 0 :], last=True)
        piece, behind = DataReader().receive(engine.bytes_to_send())
        self.assertEqual((piece, behind), (content, b""))

    def test_content_of_one_message_does_not_touch_the_next(self) -> None:
        """The content behind a message that ended without CRLF begins at a line's begin again."""
        engine = in_body()
        engine.body(b"no line end", last=True)
        engine.receive(b"250 ok\r\n")
        for command in ("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA"):
            engine.send(command)
        engine.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
        engine.bytes_to_send()
        engine.body(b".dot\r\n", last=True)
        self.assertEqual(engine.bytes_to_send(), b"..dot\r\n.\r\n")


class Hearing(SynchronousTestCase):
    """What the peer says."""

    def error(self, events: list[Event]) -> Exception:
        """The error that ended the session."""
        last = events[-1]
        assert isinstance(last, Ended), events
        return last.error

    def test_replies_are_matched_in_order(self) -> None:
        """Replies belong to the commands in the order in which these were sent, however the octets are cut."""
        for step in (1, 2, 5, 100):
            engine = ready()
            for command in ("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "RCPT TO:<e@f.example>", "DATA"):
                engine.send(command)
            octets = b"250 2.1.0 ok\r\n550-5.1.1 no\r\n550 5.1.1 such\r\n250 ok\r\n354 go\r\n"
            events = [event for n in range(0, len(octets), step) for event in engine.receive(octets[n : n + step])]
            self.assertEqual(
                events,
                [
                    Answer("MAIL", Reply(250, "2.1.0", "ok")),
                    Answer("RCPT", Reply(550, "5.1.1", "no\nsuch")),
                    Answer("RCPT", Reply(250, "", "ok")),
                    Answer("DATA", Reply(354, "", "go")),
                ],
            )
            self.assertFalse(engine.wants_input)

    def test_capabilities(self) -> None:
        """Keywords are read without regard to case, with their parameters; both forms of AUTH count."""
        engine = ready(b"250-relay\r\n250-size 1000\r\n250-auth=LOGIN\r\n250-AUTH PLAIN xoauth2\r\n250 StartTLS\r\n")
        self.assertEqual(engine.size_limit, 1000)
        self.assertTrue(engine.offers("STARTTLS"))
        self.assertEqual(sorted(engine.mechanisms), ["LOGIN", "PLAIN", "XOAUTH2"])

    def test_odd_sizes(self) -> None:
        """A SIZE that is no plain number of at most 20 digits is as good as none."""
        for size in ("", "0", "1_0", "-5", "٣", "9" * 21, "0x10"):
            engine = ready(f"250-relay\r\n250 SIZE {size}\r\n".encode())
            self.assertIsNone(engine.size_limit, size)

    def test_hello_forgets(self) -> None:
        """After HELO, what an EHLO before it offered is forgotten."""
        engine = ready()
        engine.send("HELO me.example")
        engine.receive(b"250 relay\r\n")
        self.assertEqual(dict(engine.capabilities), {})

    def test_octets_behind_starttls(self) -> None:
        """Octets behind the 220 to STARTTLS, a whole reply or a part of one, in the same piece or later, end the session."""
        for behind in (b"250 injected\r\n", b"2", b"\x16\x03"):
            for apart in (False, True):
                engine = ready(b"250-relay\r\n250 STARTTLS\r\n")
                engine.send("STARTTLS")
                events = engine.receive(b"220 go\r\n" + (b"" if apart else behind))
                if apart:
                    events = engine.receive(behind)
                self.assertIsInstance(self.error(events), TLSFailed)
                self.assertTrue(engine.closed)
                with self.assertRaises(InvalidInput):
                    engine.tls_established(TLSFacts("TLSv1.3"))

    def test_handshake_forgets(self) -> None:
        """After the handshake, capabilities are unknown until EHLO is said again."""
        engine = ready(b"250-relay\r\n250 STARTTLS\r\n")
        engine.send("STARTTLS")
        engine.receive(b"220 go\r\n")
        engine.tls_established(TLSFacts("TLSv1.3"))
        self.assertEqual((dict(engine.capabilities), engine.state), ({}, State.GREETED))

    def test_unasked_reply(self) -> None:
        """A reply that nobody asked for ends the session."""
        self.assertIsInstance(self.error(ready().receive(b"250 hello?\r\n")), MalformedReply)

    def test_more_replies_than_commands(self) -> None:
        """The reply that was asked for counts, the one behind it ends the session."""
        engine = ready()
        engine.send("NOOP")
        events = engine.receive(b"250 ok\r\n250 ok\r\n")
        self.assertEqual(events[0], Answer("NOOP", Reply(250, "", "ok")))
        self.assertIsInstance(self.error(events), MalformedReply)

    def test_no_reply_at_all(self) -> None:
        """Codes that differ, no code, no end of line: the session ends, and names the command that waited."""
        for octets in (
            b"250-a\r\n251 b\r\n",
            b"hello\r\n",
            b"999 x\r\n",
            b"\0\0\0\r\n",
            b"2" * 5000,
            b"250-x\r\n" * 300,
        ):
            engine = ready()
            engine.send("NOOP")
            error = self.error(engine.receive(octets))
            self.assertIsInstance(error, MalformedReply, octets[:20])
            self.assertEqual(getattr(error, "operation", None), "NOOP")

    def test_positive_reply_of_another_class(self) -> None:
        """354 to MAIL, and 220 to DATA, end the session: the peer is out of step."""
        engine = ready()
        engine.send("MAIL FROM:<>")
        self.assertIsInstance(self.error(engine.receive(b"354 go\r\n")), UnexpectedReply)
        engine = ready()
        for command in ("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA"):
            engine.send(command)
        self.assertIsInstance(self.error(engine.receive(b"250 ok\r\n250 ok\r\n220 relay\r\n")), UnexpectedReply)

    def test_closing_by_421(self) -> None:
        """421 ends the session: asked for or not."""
        engine = ready()
        self.assertIsInstance(self.error(engine.receive(b"421 4.3.2 going down\r\n")), UnexpectedReply)
        engine = ready()
        engine.send("MAIL FROM:<a@b.example>")
        engine.send("RCPT TO:<c@d.example>")
        events = engine.receive(b"250 ok\r\n421 4.3.2 going down\r\n")
        self.assertEqual([type(event) for event in events], [Answer, Answer, Ended])
        self.assertTrue(engine.closed)

    def test_refusal_in_the_midst_of_the_content(self) -> None:
        """A refusal while the content is being sent ends the session with that verdict; a 250 then is out of step."""
        engine = in_body()
        engine.body(b"first part\r\n")
        error = self.error(engine.receive(b"552 5.3.4 too large\r\n"))
        assert isinstance(error, UnexpectedReply)
        self.assertEqual((error.reply.code, error.operation, error.ambiguous), (552, "body", False))
        self.assertIsInstance(self.error(in_body().receive(b"250 thanks\r\n")), MalformedReply)

    def test_ambiguous_only_behind_the_last_octet(self) -> None:
        """A cut is ambiguous where the whole content was sent and no reply came, and nowhere else."""
        engine = in_body()
        engine.body(b"part\r\n")
        error = self.error(engine.receive(b""))
        self.assertIsInstance(error, ConnectionClosed)
        self.assertFalse(getattr(error, "ambiguous", None))
        for end in (lambda engine: engine.receive(b"")[0], lambda engine: engine.expire(), _garbage):
            engine = in_body()
            engine.body(b"all\r\n", last=True)
            self.assertTrue(end(engine).error.ambiguous)

    def test_answered_content_is_not_ambiguous(self) -> None:
        """421 in answer to the content is a refusal of it."""
        engine = in_body()
        engine.body(b"all\r\n", last=True)
        self.assertFalse(getattr(self.error(engine.receive(b"421 no\r\n")), "ambiguous", None))

    def test_patience(self) -> None:
        """We wait five minutes for most replies, two for DATA, ten for the content, three for a block of it to be read."""
        self.assertEqual(Engine().patience, 300)
        engine = in_body()
        self.assertEqual(engine.patience, 180)
        engine.body(b"x\r\n", last=True)
        self.assertEqual(engine.patience, 600)
        ended = engine.expire()
        self.assertIsInstance(ended.error, TimedOut)
        self.assertEqual(ended.error.operation, "body")

    def test_refused_greeting(self) -> None:
        """Behind a refusing greeting only QUIT may be sent."""
        engine = Engine()
        self.assertEqual(engine.receive(b"554 no\r\n"), [Answer("greeting", Reply(554, "", "no"))])
        with self.assertRaises(InvalidInput):
            engine.send("EHLO me.example")
        engine.send("QUIT")
        self.assertEqual(engine.bytes_to_send(), b"QUIT\r\n")

    @given(st.lists(st.binary(max_size=40) | st.sampled_from([b"250 ok\r\n", b"354 x\r\n", b"220 a\r\n", b"-\r\n"])))
    @settings(max_examples=300, deadline=None)
    def test_never_raises_and_ends_once(self, pieces: list[bytes]) -> None:
        """Whatever a peer sends, the engine raises nothing, and behind the end of a session no answer comes any more."""
        engine = ready()
        engine.send("MAIL FROM:<a@b.example>")
        engine.send("RCPT TO:<c@d.example>")
        ended = False
        for piece in pieces:
            events = engine.receive(piece)
            self.assertFalse(ended and any(isinstance(event, Answer) for event in events))
            ended = ended or any(isinstance(event, Ended) for event in events)
        self.assertEqual(engine.closed, ended)


def _garbage(engine: Engine) -> Ended:
    event = engine.receive(b"garbage\r\n")[-1]
    assert isinstance(event, Ended)
    return event
