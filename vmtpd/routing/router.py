"""Which way a recipient leaves: its route, chosen anew at each try, so that a changed configuration reaches mail that waits.

Where it stands: qmgr asks for each leased recipient. In this order: an address of ours goes to its mailbox or to the administrator;
else the rule with the most precise domain decides, which names smarthosts or says "by MX"; what no rule covers has no way out.

*Failures*: none raised. No way out is `Unroutable` "failed"; trouble with the names is "delayed", and a smarthost's name is
not looked up here at all, so that no outage of the DNS can bounce mail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from vmtp.address import split, to_ascii
from vmtp.errors import AddressError
from vmtpd.config import RouteRule
from vmtpd.interfaces import IResolver, IRouter, NoSuchDomain, ResolverTrouble
from vmtpd.local import Local, Mailbox, Redirect, Unknown
from vmtpd.mail import Hop, Route, Unroutable

MAX_HOSTS = 5
"""Mail exchangers that are tried for a domain in one attempt."""

_NOBODY = Unroutable("failed", "5.1.1", "no such mailbox here")
_NO_RULE = Unroutable("failed", "5.4.4", "no route leads to this domain")
_NULL_MX = Unroutable("failed", "5.1.10", "the domain takes no mail (null MX)")
_NO_DOMAIN = Unroutable("failed", "5.1.2", "the domain does not exist")
_NO_ANSWER = Unroutable("delayed", "4.4.3", "the name servers do not answer")
_ITSELF = Unroutable("failed", "5.4.6", "the domain's mail host is this one, which does not take its mail")
_MISPLACED = Unroutable("failed", "5.1.3", "not an address that mail can be routed to")


@implementer(IRouter)
class Router:
    """The routes of one configuration. `maildir` is the folder of mailboxes, `resolver` None where no rule goes by MX."""

    def __init__(
        self, local: Local, maildir: str, rules: Sequence[RouteRule], resolver: IResolver | None, mx_port: int = 25
    ) -> None:
        self._local = local
        self._maildir = maildir
        self._resolver = resolver
        self._mx_port = mx_port
        self._rules = {pattern: rule for rule in rules for pattern in rule.domains}
        self._routes = {rule.name: _smarthost(rule) for rule in rules}
        self._mailboxes: dict[str, Route] = {}

    def route(self, address: str) -> Route | Unroutable | Deferred[Route | Unroutable]:
        place = self._local.find(address)
        if place is None:
            return self._leave(address, "")
        if isinstance(place, Redirect):
            return self._redirected(place.address)
        return _NOBODY if isinstance(place, Unknown) else self._mailbox(place.name, "")

    def destination(self, address: str) -> str:
        place = self._local.find(address)
        if isinstance(place, Redirect):
            address = place.address
            place = self._local.find(address)
        domain = split(address)[1]
        rule = self._rule(domain)
        if place is not None:
            return "local"
        return domain if rule is None or rule.mx else self._routes[rule.name].destination

    def _redirected(self, admin: str) -> Route | Unroutable | Deferred[Route | Unroutable]:
        """The administrator's own way out; a second redirection does not happen."""
        place = self._local.find(admin)
        if isinstance(place, Mailbox):
            return self._mailbox(place.name, admin)
        return self._leave(admin, admin) if place is None else _NOBODY

    def _mailbox(self, name: str, recipient: str) -> Route:
        key = f"{name} {recipient}"
        if (route := self._mailboxes.get(key)) is None:
            if len(self._mailboxes) >= 10000:
                self._mailboxes.clear()
            why = f"redirected to the administrator, whose mailbox is {name}" if recipient else f"mailbox {name}"
            route = self._mailboxes[key] = Route(
                name="local",
                agent="maildir",
                destination="local",
                why=why,
                recipient=recipient,
                folder=f"{self._maildir}/{name}",
            )
        return route

    def _leave(self, address: str, recipient: str) -> Route | Unroutable | Deferred[Route | Unroutable]:
        domain = split(address)[1]
        rule = self._rule(domain)
        if rule is None:
            return _NO_RULE
        if rule.mx:
            return self._by_mx(rule, domain, recipient)
        route = self._routes[rule.name]
        return (
            replace(route, recipient=recipient, why=f"redirected to the administrator; {route.why}")
            if recipient
            else route
        )

    def _rule(self, domain: str) -> RouteRule | None:
        """The rule of the most precise pattern: the domain itself, then `.parent` from the longest, then `*`."""
        rules = self._rules
        if len(rules) > 1:
            try:
                domain = to_ascii(domain)
            except AddressError:
                return rules.get("*")
            if rule := rules.get(domain):
                return rule
            while "." in domain:
                domain = domain.partition(".")[2]
                if rule := rules.get(f".{domain}"):
                    return rule
        return rules.get("*") or rules.get(domain)

    # By MX (RFC 5321 section 5.1).

    def _by_mx(self, rule: RouteRule, domain: str, recipient: str) -> Route | Unroutable | Deferred[Route | Unroutable]:
        if domain.startswith("["):
            host = domain[1:-1].removeprefix("IPv6:")
            return self._mx_route(rule, domain, recipient, [(0, host)])
        if self._resolver is None:
            return _NO_ANSWER
        try:
            name = to_ascii(domain)
        except AddressError:
            return _MISPLACED
        asked: Deferred[list[tuple[int, str]]] = self._resolver.mx(name)
        answered: Deferred[Route | Unroutable] = asked.addCallback(
            lambda hosts: self._mx_route(rule, domain, recipient, hosts)
        )
        return answered.addErrback(_unresolved)

    def _mx_route(
        self, rule: RouteRule, domain: str, recipient: str, hosts: list[tuple[int, str]]
    ) -> Route | Unroutable:
        if not hosts:
            return _NULL_MX
        # Mail goes only to hosts that are preferred to ourselves (RFC 5321 section 5.1); that is what ends loops.
        own = min((preference for preference, host in hosts if host == self._local.hostname), default=None)
        better = [host for preference, host in hosts if own is None or preference < own]
        if not better:
            return _ITSELF
        tls = rule.tls or "opportunistic"
        return Route(
            name=rule.name,
            agent="smtp",
            destination=domain,
            why=f"route {rule.name}, mail hosts of {domain}",
            hosts=tuple(Hop(host, self._mx_port, tls) for host in better[:MAX_HOSTS]),
            ca=rule.ca,
            sender=rule.sender,
            recipient=recipient,
        )


def _unresolved(failure: Failure) -> Unroutable:
    if failure.check(NoSuchDomain):
        return _NO_DOMAIN
    failure.trap(ResolverTrouble)
    return _NO_ANSWER


def _smarthost(rule: RouteRule) -> Route:
    first = rule.smarthost[0] if rule.smarthost else None
    return Route(
        name=rule.name,
        agent="smtp",
        destination=f"{first.host}:{first.port}" if first else "",
        why=f"route {rule.name}, its smarthost",
        hosts=rule.smarthost,
        user=rule.user,
        password_file=rule.password_file,
        ca=rule.ca,
        sender=rule.sender,
    )
