"""Addresses as clients write them, and what is made of them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from vmtp.address import parse_mailbox, parse_path, split, to_ascii
from vmtp.errors import AddressError


class PathTests(SynchronousTestCase):
    """What stands between < and >."""

    def test_forms(self) -> None:
        """Every form of RFC 5321 is read, and given back in its plainest form."""
        for written, read in {
            "<ann@example.org>": "ann@example.org",
            "<Ann@EXAMPLE.Org.>": "Ann@example.org",
            "<>": "",
            "<postmaster>": "postmaster",
            '<"ann"@example.org>': "ann@example.org",
            '<"an\\n"@example.org>': "ann@example.org",
            '<"a b"@example.org>': '"a b"@example.org',
            '<"a@b"@example.org>': '"a@b"@example.org',
            '<"a>b"@example.org>': '"a>b"@example.org',
            "<@one.example,@two.example:ann@example.org>": "ann@example.org",
            "<ann@[192.0.2.1]>": "ann@[192.0.2.1]",
            "<ann@[IPv6:2001:DB8::1]>": "ann@[IPv6:2001:db8::1]",
            "<printer@my_host.lan>": "printer@my_host.lan",
        }.items():
            self.assertEqual(parse_path(written), (read, len(written)), written)

    def test_refused(self) -> None:
        """What is no address is refused with a sentence."""
        for written in [
            "ann@example.org",
            "<ann@example.org",
            "<ann@>",
            "<@example.org>",
            "<a..b@example.org>",
            "<.a@example.org>",
            "<a b@example.org>",
            "<a@b@example.org>",
            "<ann@example..org>",
            "<ann@-example.org>",
            "<ann@[192.0.2.999]>",
            "<ann@[example]>",
            '<"a@example.org>',
            "<@one.example:>",
            f"<{'a' * 65}@example.org>",
            f"<a@{'b' * 64}.example>",
            f"<a@{'b.' * 130}example>",
            "<ann@example.org\r\n>",
            "<a\x00@example.org>",
        ]:
            with self.assertRaises(AddressError, msg=written) as caught:
                parse_path(written)
            self.assertTrue(str(caught.exception).isprintable())

    def test_what_follows_is_left(self) -> None:
        """The place behind the path is told, for the parameters."""
        self.assertEqual(parse_path("FROM:<a@b.example> SIZE=1", 5), ("a@b.example", 18))

    @settings(max_examples=500, deadline=None)
    @given(st.text(alphabet='<>@."\\ab[]:, -\x00\u00e9', max_size=40))
    def test_total(self, text: str) -> None:
        """Any text is an address or is refused; what was read once is read the same again."""
        try:
            address, _ = parse_path(text)
        except AddressError:
            return
        if address:
            self.assertEqual(parse_mailbox(address), address)
            self.assertEqual(parse_path(f"<{address}>")[0], address)


class DomainTests(SynchronousTestCase):
    """The domain of an address."""

    def test_quoted_at_sign(self) -> None:
        """An @ inside quotes does not change the domain that the mail goes to."""
        self.assertEqual(split('"ann@evil.example"@example.org'), ('"ann@evil.example"', "example.org"))

    def test_international(self) -> None:
        """A domain beyond ASCII is looked up as its A-labels."""
        self.assertEqual(to_ascii("bücher.example"), "xn--bcher-kva.example")

    def test_impossible(self) -> None:
        """A name that has no A-label form is refused, not looked up."""
        self.assertRaises(AddressError, to_ascii, "\u200d" * 70 + ".example")
