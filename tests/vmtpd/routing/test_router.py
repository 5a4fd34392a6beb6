"""Which way a recipient leaves."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from vmtpd.config import RouteRule
from vmtpd.interfaces import IResolver, IRouter, NoSuchDomain, ResolverTrouble
from vmtpd.local import Local
from vmtpd.mail import Hop, Route, Unroutable
from vmtpd.routing.router import Router

SMART = (Hop("smtp.provider.example", 587, "verified"), Hop("backup.provider.example", 587, "verified"))


@implementer(IResolver)
class Names:
    """Mail exchangers by domain; an exception is trouble."""

    def __init__(self, **known: Any) -> None:
        self.known = {name.replace("_", "."): value for name, value in known.items()}

    def mx(self, domain: str) -> Deferred[list[tuple[int, str]]]:
        found = self.known.get(domain, [(0, domain)])
        return fail(found) if isinstance(found, Exception) else succeed(found)

    def addresses(self, host: str) -> Deferred[list[str]]:
        return succeed(["192.0.2.1"])


class RouterTests(SynchronousTestCase):
    """Rules, mailboxes, mail exchangers."""

    def router(self, *rules: RouteRule, names: Names | None = None, **local: Any) -> Router:
        """A router at nas.home.example."""
        local = {"hostname": "nas.home.example", "origin": "home.example"} | local
        return Router(Local(**local), "/mail", rules, names)

    def route(self, router: Router, address: str) -> Route | Unroutable:
        """The route of an address."""
        found = router.route(address)
        return self.successResultOf(found) if isinstance(found, Deferred) else found

    def test_is_a_router(self) -> None:
        """It does what qmgr asks of a router."""
        verifyObject(IRouter, self.router())

    def test_smarthost(self) -> None:
        """Everything leaves by the smarthosts, in their order, and waits at the first one's name."""
        router = self.router(RouteRule(name="default", smarthost=SMART, user="me", sender="me@provider.example"))
        route = self.route(router, "friend@example.net")
        assert isinstance(route, Route)
        self.assertEqual(
            (route.agent, route.hosts, route.user, route.sender), ("smtp", SMART, "me", "me@provider.example")
        )
        self.assertEqual(route.destination, "smtp.provider.example:587")
        self.assertEqual(router.destination("friend@example.net"), route.destination)

    def test_most_precise_rule(self) -> None:
        """The rule with the most precise domain wins, in whatever order they stand."""
        hop = (Hop("h.example", 25, "none"),)
        router = self.router(
            RouteRule(name="rest", domains=("*",), smarthost=hop),
            RouteRule(name="below", domains=(".example.net",), smarthost=hop),
            RouteRule(name="deep", domains=(".a.example.net",), smarthost=hop),
            RouteRule(name="one", domains=("example.net", "xn--bcher-kva.example"), smarthost=hop),
        )
        for domain, name in {
            "example.net": "one",
            "bücher.example": "one",
            "x.example.net": "below",
            "x.a.example.net": "deep",
            "notexample.net": "rest",
        }.items():
            route = self.route(router, f"a@{domain}")
            assert isinstance(route, Route)
            self.assertEqual(route.name, name, domain)

    def test_no_rule(self) -> None:
        """A domain that no rule covers has no way out, and the sender is told."""
        router = self.router(RouteRule(name="one", domains=("example.net",), smarthost=SMART))
        self.assertEqual(
            self.route(router, "a@other.example"), Unroutable("failed", "5.4.4", "no route leads to this domain")
        )

    def test_mailbox_and_administrator(self) -> None:
        """Mail for a mailbox stays here; root's goes to the administrator, by his own route."""
        router = self.router(
            RouteRule(name="default", smarthost=SMART),
            domains=frozenset({"home.example"}),
            mailboxes=frozenset({"ann"}),
            admin="me@provider.example",
        )
        mailbox, root = self.route(router, "ann@home.example"), self.route(router, "root@home.example")
        assert isinstance(mailbox, Route) and isinstance(root, Route)
        self.assertEqual((mailbox.agent, mailbox.folder, mailbox.recipient), ("maildir", "/mail/ann", ""))
        self.assertEqual((root.agent, root.recipient, root.hosts), ("smtp", "me@provider.example", SMART))
        self.assertIn("administrator", root.why)
        self.assertEqual(router.destination("root@home.example"), "smtp.provider.example:587")
        self.assertEqual(router.destination("ann@home.example"), "local")

    def test_administrator_with_a_mailbox(self) -> None:
        """An administrator who reads here gets root's mail in his own mailbox."""
        router = self.router(
            domains=frozenset({"home.example"}), mailboxes=frozenset({"ann"}), admin="ann@home.example"
        )
        route = self.route(router, "postmaster@home.example")
        assert isinstance(route, Route)
        self.assertEqual((route.folder, route.recipient), ("/mail/ann", "ann@home.example"))

    def test_unknown_here(self) -> None:
        """A name that is nobody's fails."""
        router = self.router(domains=frozenset({"home.example"}), mailboxes=frozenset({"ann"}))
        self.assertEqual(self.route(router, "bob@home.example"), Unroutable("failed", "5.1.1", "no such mailbox here"))

    def mx(self, address: str, **known: Any) -> Route | Unroutable:
        """The route of an address by MX."""
        return self.route(self.router(RouteRule(name="direct", mx=True), names=Names(**known)), address)

    def test_by_mx(self) -> None:
        """Mail exchangers in their order, at most five, each with TLS where it offers it."""
        route = self.mx("a@example.net", example_net=[(n, f"mx{n}.example.net") for n in range(9)])
        assert isinstance(route, Route)
        self.assertEqual(route.hosts, tuple(Hop(f"mx{n}.example.net", 25, "opportunistic") for n in range(5)))
        self.assertEqual(route.destination, "example.net")

    def test_mx_of_a_literal(self) -> None:
        """An address literal names the host itself."""
        route = self.mx("a@[IPv6:2001:db8::1]")
        assert isinstance(route, Route)
        self.assertEqual(route.hosts[0].host, "2001:db8::1")

    def test_mx_troubles(self) -> None:
        """No domain and a null MX fail; silent name servers delay, and never bounce mail."""
        self.assertEqual(self.mx("a@b.example", b_example=NoSuchDomain())[:2], ("failed", "5.1.2"))  # type: ignore[index]
        self.assertEqual(self.mx("a@b.example", b_example=[])[:2], ("failed", "5.1.10"))  # type: ignore[index]
        self.assertEqual(self.mx("a@b.example", b_example=ResolverTrouble())[:2], ("delayed", "4.4.3"))  # type: ignore[index]

    def test_mx_that_is_us(self) -> None:
        """Mail goes only to hosts preferred to ourselves; where there is none, it would go in circles and fails."""
        known = [(10, "mx1.example.net"), (20, "nas.home.example"), (30, "mx3.example.net")]
        route = self.mx("a@example.net", example_net=known)
        assert isinstance(route, Route)
        self.assertEqual([hop.host for hop in route.hosts], ["mx1.example.net"])
        self.assertEqual(self.mx("a@example.net", example_net=known[1:])[:2], ("failed", "5.4.6"))  # type: ignore[index]
