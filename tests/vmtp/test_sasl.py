"""Tests of logins: both sides of PLAIN and LOGIN."""

from base64 import b64decode, b64encode

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from vmtp.errors import CommandError, InvalidInput, MalformedReply
from vmtp.sasl import Challenge, Credentials, ServerExchange, choose, exchange, server_exchange

NAMES = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1, max_size=30)


def server(mechanism: str) -> ServerExchange:
    """The server's side, which must exist."""
    found = server_exchange(mechanism)
    assert found is not None
    return found


class Client(SynchronousTestCase):
    """The client's side."""

    def test_choice(self) -> None:
        """The best allowed mechanism is chosen whatever its case; without one nothing is."""
        self.assertEqual(choose(["login", "plain"]), "PLAIN")
        self.assertEqual(choose(["CRAM-MD5", "LOGIN"]), "LOGIN")
        self.assertIsNone(choose(["XOAUTH2"]))
        self.assertEqual(choose(["PLAIN", "LOGIN"], ("LOGIN",)), "LOGIN")

    def test_plain(self) -> None:
        """PLAIN says all at once, and has nothing to say to a challenge."""
        plain = exchange("plain", "ann", "secret")
        self.assertEqual(plain.initial, b"\0ann\0secret")
        with self.assertRaises(MalformedReply):
            plain.respond(b"more")

    def test_login(self) -> None:
        """LOGIN says name and password in turn, whatever the prompts, and nothing more."""
        login = exchange("LOGIN", "ann", "secret")
        self.assertIsNone(login.initial)
        self.assertEqual([login.respond(b"Password:"), login.respond(b"")], [b"ann", b"secret"])
        with self.assertRaises(MalformedReply):
            login.respond(b"Again:")

    def test_bad_logins(self) -> None:
        """Empty names and passwords, NULs and unknown mechanisms are refused, and the text tells no password."""
        for args in (
            ("PLAIN", "", "x"),
            ("PLAIN", "a", ""),
            ("LOGIN", "a\0b", "x"),
            ("LOGIN", "a", "geheim\0"),
            ("X", "a", "b"),
        ):
            with self.assertRaises(InvalidInput) as caught:
                exchange(*args)
            self.assertNotIn("geheim", str(caught.exception))


class Server(SynchronousTestCase):
    """The server's side."""

    def refused(self, code: int, enhanced: str, initial: bytes | None, *lines: bytes, mechanism: str = "PLAIN") -> None:
        """Assert that a login ends with this reply."""
        side = server(mechanism)
        with self.assertRaises(CommandError) as caught:
            side.start(initial)
            for line in lines:
                side.respond(line)
        self.assertEqual((caught.exception.code, caught.exception.enhanced), (code, enhanced))

    def test_unknown(self) -> None:
        """A mechanism that is not known has no exchange."""
        self.assertIsNone(server_exchange("CRAM-MD5"))

    def test_plain_at_once(self) -> None:
        """PLAIN with an initial response needs no challenge."""
        self.assertEqual(server("plain").start(b64encode(b"\0ann\0secret")), Credentials("", "ann", "secret"))

    def test_plain_in_two_lines(self) -> None:
        """PLAIN without an initial response is asked for it by an empty challenge."""
        side = server("PLAIN")
        self.assertEqual(side.start(None), Challenge(b""))
        self.assertEqual(side.respond(b64encode(b"bob\0ann\0secret")), Credentials("bob", "ann", "secret"))

    def test_login_prompts(self) -> None:
        """LOGIN asks with the two prompts that its clients know."""
        side = server("LOGIN")
        self.assertEqual(side.start(None), Challenge(b"VXNlcm5hbWU6"))
        self.assertEqual(side.respond(b64encode(b"ann")), Challenge(b"UGFzc3dvcmQ6"))
        self.assertEqual(side.respond(b64encode(b"secret")), Credentials("", "ann", "secret"))

    def test_login_with_name(self) -> None:
        """LOGIN takes the name with AUTH."""
        side = server("LOGIN")
        self.assertEqual(side.start(b64encode(b"ann")), Challenge(b"UGFzc3dvcmQ6"))
        self.assertEqual(side.respond(b64encode(b"secret")), Credentials("", "ann", "secret"))

    def test_cancelled(self) -> None:
        """A "*" cancels the login."""
        self.refused(501, "5.7.0", None, b"*")
        self.refused(501, "5.7.0", None, b64encode(b"ann"), b"*", mechanism="LOGIN")

    def test_too_long(self) -> None:
        """A line above 12288 octets is refused for its length."""
        self.refused(500, "5.5.6", None, b"A" * 12289)

    def test_no_base64(self) -> None:
        """What is no base64 is refused: foreign characters, bad padding, octets behind it."""
        for line in (b"!!!!", b"YQ", b"YQ==YQ==", b"Y Q==", "Ä".encode(), b"=YQ="):
            self.refused(501, "5.5.2", line)

    def test_bad_credentials(self) -> None:
        """NULs out of place, empty names and octets that are no UTF-8 are refused; "=" is an empty response."""
        for message in (b"ann\0secret", b"\0ann\0se\0cret", b"\0\0secret", b"\0ann\0\xff", b"\xff\0ann\0x", b""):
            self.refused(501, "5.5.2", None, b64encode(message))
        self.refused(501, "5.5.2", b"=")
        self.refused(501, "5.5.2", b"=", b64encode(b"secret"), mechanism="LOGIN")

    def test_passwords_are_not_shown(self) -> None:
        """The repr of credentials tells who, and no password."""
        self.assertNotIn("secret", repr(Credentials("", "ann", "secret")))


class Together(SynchronousTestCase):
    """Both sides."""

    @given(NAMES, NAMES, st.sampled_from(["PLAIN", "LOGIN"]), st.booleans())
    def test_both_sides_agree(self, user: str, password: str, mechanism: str, first: bool) -> None:
        """What the client's side says, the server's side understands, with and without an initial response."""
        client, side = exchange(mechanism, user, password), server(mechanism)
        pending = client.initial
        if first and pending is not None:
            step, pending = side.start(b64encode(pending)), None
        else:
            step = side.start(None)
        while isinstance(step, Challenge):
            response, pending = (pending, None) if pending is not None else (client.respond(b64decode(step.text)), None)
            step = side.respond(b64encode(response))
        self.assertEqual(step, Credentials("", user, password))
