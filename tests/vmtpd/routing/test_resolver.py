"""Names, asked once and remembered."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.names import dns
from twisted.names.error import DNSNameError, DNSServerError
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from vmtpd.interfaces import IResolver, NoSuchDomain, ResolverTrouble
from vmtpd.routing.resolver import MX, Resolver


def records(*exchangers: tuple[int, str], ttl: int = 600) -> Any:
    """An answer of twisted.names."""
    found = [
        dns.RRHeader(b"d", dns.MX, ttl=ttl, payload=dns.Record_MX(preference, name)) for preference, name in exchangers
    ]
    return found, [], []


class ResolverTests(SynchronousTestCase):
    """Questions and answers."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[str] = []
        self.answers: dict[str, Any] = {}
        self.resolver = Resolver(self.clock, lambda: self, self.system, lambda hosts: hosts.reverse())

    def lookupMailExchange(self, domain: str, timeout: Any) -> Deferred[Any]:
        """As twisted.names has it."""
        self.asked.append(domain)
        answer = self.answers[domain]
        if isinstance(answer, Deferred):
            return answer
        return fail(answer) if isinstance(answer, Exception) else succeed(answer)

    def system(self, host: str) -> Deferred[list[str]]:
        """As getaddrinfo has it."""
        self.asked.append(host)
        answer = self.answers[host]
        return fail(answer) if isinstance(answer, Exception) else succeed(answer)

    def test_is_a_resolver(self) -> None:
        """It does what the rooms ask of a resolver."""
        verifyObject(IResolver, self.resolver)
        self.assertEqual(MX, dns.MX)

    def test_order(self) -> None:
        """Lower preference comes first, equals are shuffled."""
        self.answers["d.example"] = records((20, "c.example"), (10, "a.example"), (10, "b.example"))
        self.assertEqual(
            self.successResultOf(self.resolver.mx("d.example")),
            [(10, "b.example"), (10, "a.example"), (20, "c.example")],
        )

    def test_none_and_null(self) -> None:
        """A domain without MX takes its mail itself (RFC 5321 section 5.1); a null MX takes none (RFC 7505)."""
        self.answers |= {"none.example": records(), "null.example": records((0, ""))}
        self.assertEqual(self.successResultOf(self.resolver.mx("none.example")), [(0, "none.example")])
        self.assertEqual(self.successResultOf(self.resolver.mx("null.example")), [])

    def test_remembered_for_the_ttl(self) -> None:
        """An answer is kept as long as it says, between five seconds and an hour."""
        for ttl, kept in [(0, 5), (600, 600), (10**6, 3600)]:
            self.asked.clear()
            name = f"d{ttl}.example"
            self.answers[name] = records((0, "a.example"), ttl=ttl)
            self.successResultOf(self.resolver.mx(name))
            self.clock.advance(kept - 1)
            self.successResultOf(self.resolver.mx(name))
            self.assertEqual(self.asked, [name])
            self.clock.advance(1)
            self.successResultOf(self.resolver.mx(name))
            self.assertEqual(self.asked, [name, name])

    def test_one_question_at_a_time(self) -> None:
        """A thousand messages to one domain ask once."""
        waiting: Deferred[Any] = Deferred()
        self.answers["d.example"] = waiting
        answers: list[Deferred[Any]] = [self.resolver.mx("d.example") for _ in range(1000)]
        self.assertEqual(self.asked, ["d.example"])
        waiting.callback(records((0, "a.example")))
        self.assertEqual({tuple(self.successResultOf(answer)) for answer in answers}, {((0, "a.example"),)})

    def test_trouble(self) -> None:
        """A name that does not exist is told from servers that do not answer; both are remembered, the second not for long."""
        self.answers |= {"no.example": DNSNameError(None), "broken.example": DNSServerError(None)}
        for _ in range(2):
            self.failureResultOf(self.resolver.mx("no.example"), NoSuchDomain)
            self.failureResultOf(self.resolver.mx("broken.example"), ResolverTrouble)
        self.assertEqual(len(self.asked), 2)
        self.clock.advance(5)
        self.failureResultOf(self.resolver.mx("broken.example"), ResolverTrouble)
        self.failureResultOf(self.resolver.mx("no.example"), NoSuchDomain)
        self.assertEqual(len(self.asked), 3)

    def test_addresses(self) -> None:
        """An address is its own answer; a host's are asked of the system, and its silence is trouble, not a bounce."""
        self.assertEqual(self.successResultOf(self.resolver.addresses("::1")), ["::1"])
        self.answers |= {"a.example": ["192.0.2.1"], "b.example": OSError("no")}
        self.assertEqual(self.successResultOf(self.resolver.addresses("a.example")), ["192.0.2.1"])
        self.failureResultOf(self.resolver.addresses("b.example"), ResolverTrouble)

    def test_bounded(self) -> None:
        """However many names are asked for, memory has a bound."""
        self.patch(__import__("vmtpd.routing.resolver", fromlist=["x"]), "MAX_NAMES", 10)
        for n in range(50):
            self.answers[f"d{n}.example"] = records((0, "a.example"))
            self.successResultOf(self.resolver.mx(f"d{n}.example"))
        self.assertLessEqual(len(self.resolver._exchangers._known), 10)
