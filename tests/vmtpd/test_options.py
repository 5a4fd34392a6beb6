"""The kinds of values that options have."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from vmtpd import options
from vmtpd.mail import Hop
from vmtpd.options import Kind, Listen


class KindTests(SynchronousTestCase):
    """What a text in the file means."""

    def refused(self, kind: Kind[Any], *texts: str) -> None:
        """Each text is refused with a remedy."""
        for text in texts:
            self.assertIn("write ", str(self.assertRaises(ValueError, kind.parse, text)), text)

    def test_durations(self) -> None:
        """Durations have units; a plain number means seconds."""
        texts = ("30", "30s", "5m", "4h", "5d", "2w", "0")
        self.assertEqual([options.DURATION.parse(text) for text in texts], [30, 30, 300, 14400, 432000, 1209600, 0])
        self.refused(options.DURATION, "-1", "5 hours", "1.5h", "h", "1e3", "٣m", "5M")

    def test_sizes(self) -> None:
        """Sizes are octets, or in units of 1024."""
        texts = ("512", "64K", "50M", "50MB", "1MiB", "2g")
        want = [512, 65536, 52428800, 52428800, 1048576, 2147483648]
        self.assertEqual([options.SIZE.parse(text) for text in texts], want)
        self.refused(options.SIZE, "-1", "1.5M", "big", "", "10 kilo")

    def test_yes_no(self) -> None:
        """A switch is yes or no, however it is written."""
        self.assertEqual(
            [options.YES_NO.parse(text) for text in ("yes", "On", "no", "FALSE")], [True, True, False, False]
        )
        self.refused(options.YES_NO, "maybe", "2")

    def test_numbers(self) -> None:
        """Numbers stay within their bounds."""
        self.assertEqual(options.whole(1, 10).parse("10"), 10)
        self.refused(options.whole(1, 10), "0", "11", "1.0", "ten", "-1")
        self.assertEqual(options.factor(1, 10).parse("1.5"), 1.5)
        self.refused(options.factor(1, 10), "0.9", "nan", "inf", "10.1")

    def test_networks(self) -> None:
        """Networks of both families, and single addresses."""
        found = options.NETWORKS.parse("192.168.1.0/24, fd00:1::/64\n10.0.0.7")
        self.assertEqual([str(one) for one in found], ["192.168.1.0/24", "fd00:1::/64", "10.0.0.7/32"])

    def test_network_with_host_bits(self) -> None:
        """A network with bits beyond its prefix is refused, and the right one is named."""
        error = self.assertRaises(ValueError, options.NETWORKS.parse, "192.168.1.20/24")
        self.assertIn("write 192.168.1.0/24", str(error))

    def test_listen(self) -> None:
        """A door is an address and a port, or an endpoint of Twisted."""
        for text, want in (
            ("127.0.0.1:2525", Listen("127.0.0.1", 2525, "tcp:2525:interface=127.0.0.1")),
            ("localhost:25", Listen("127.0.0.1", 25, "tcp:25:interface=127.0.0.1")),
            ("[::1]:25", Listen("::1", 25, "tcp:25:interface=\\:\\:1")),
            ("*:25", Listen("*", 25, "")),
            ("systemd:domain=INET:index=0", Listen("", 0, "systemd:domain=INET:index=0")),
            ("/run/smtp", Listen("", 0, "unix:/run/smtp")),
        ):
            self.assertEqual(options.LISTEN.parse(text), (want,))
            if want.port and text != "localhost:25":
                self.assertEqual(str(want), text)
        self.refused(
            options.LISTEN, "25", "mail.example.org:25", "127.0.0.1", "::1:25", "127.0.0.1:0", "127.0.0.1:65536"
        )

    def test_smarthosts(self) -> None:
        """The URL says port and TLS; a bare host is plain SMTP with TLS where it is offered."""
        text = "submission://smtp.example.net smtps://a.example.net\nsmtp://[2001:db8::1]:2525 MX.example.org mail:26"
        want = (
            Hop("smtp.example.net", 587, "verified"),
            Hop("a.example.net", 465, "verified", True),
            Hop("2001:db8::1", 2525, "opportunistic"),
            Hop("mx.example.org", 25, "opportunistic"),
            Hop("mail", 26, "opportunistic"),
        )
        self.assertEqual(options.SMARTHOSTS.parse(text), want)
        self.refused(options.SMARTHOSTS, "http://x", "smtp://", "smtp://a/b", "smtp://a:0", "smtp://a?x", "smtp://[x]")

    def test_login_in_a_url_is_not_repeated(self) -> None:
        """A password that was put into a URL is refused, and not shown."""
        error = self.assertRaises(ValueError, options.SMARTHOSTS.parse, "smtps://ann:secret@smtp.example.net")
        self.assertNotIn("secret", str(error))
        self.assertIn("password-file", str(error))

    def test_domains_and_addresses(self) -> None:
        """Domains are compared in lower case; an address has a domain."""
        self.assertEqual(options.PATTERNS.parse("Example.ORG .example.net *"), ("example.org", ".example.net", "*"))
        self.assertEqual(options.ADDRESS.parse("Ann@Example.org"), "Ann@example.org")
        self.refused(options.ADDRESS, "ann", "@example.org", "a b@example.org", "a\r\n@example.org", "<a@example.org>")
        self.refused(options.DOMAIN, "-a.org", "a..org", "exa mple.org", "bücher.example", "a" * 64 + ".org")

    def test_mailbox_cannot_leave_its_folder(self) -> None:
        """The name of a mailbox becomes a folder's, so that it holds no path."""
        self.assertEqual(options.MAILBOXES.parse("Inbox scans"), ("inbox", "scans"))
        self.refused(options.MAILBOXES, "../etc", "a/b", ".hidden", "..")

    @given(st.text(max_size=80))
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        """No text, however odd, does anything but parse or be refused with a sentence."""
        for kind in (
            options.DURATION,
            options.SIZE,
            options.NETWORKS,
            options.LISTEN,
            options.SMARTHOSTS,
            options.ADDRESS,
        ):
            try:
                kind.parse(text)
            except ValueError as error:
                self.assertLess(len(str(error)), 300)
