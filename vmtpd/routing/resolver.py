"""Names to mail exchangers and addresses, remembered for a while.

MX records come from twisted.names; the addresses of a host from the system (getaddrinfo in a thread), since /etc/hosts and mDNS
count on a local network. One question is in flight for a name at a time; answers are kept for 5 seconds to an hour by
their TTL, a "no" for five minutes, at most 10,000 of each.

*Failures*: `NoSuchDomain` where a name server that knows says no; `ResolverTrouble` for everything else, time-outs included.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from vmtpd.interfaces import IResolver, NoSuchDomain, ResolverTrouble

MAX_NAMES = 10000
SHORTEST, LONGEST, NEGATIVE = 5.0, 3600.0, 300.0
ADDRESS_TTL = 60.0
"""Seconds for which the system's answer is kept: getaddrinfo tells no TTL."""
TIMEOUTS = (2, 5, 10)
"""Seconds for each round over the name servers."""
MAX_EXCHANGERS = 20
MX = 15
"""The type of a mail exchanger's record (RFC 1035 section 3.2.2). twisted.names is imported where MX is used: it costs memory."""

Answer = TypeVar("Answer")
Lookup = Callable[[str], Deferred[list[str]]]
"""Addresses of a host, by the system. Fails with OSError."""


class Remembered(Generic[Answer]):
    """Answers by name, for a time, with one question in flight for a name."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._known: dict[str, tuple[float, Answer | Failure]] = {}
        self._asked: dict[str, list[Deferred[Answer]]] = {}

    def get(self, name: str, ask: Callable[[str], Deferred[tuple[Answer, float]]]) -> Deferred[Answer]:
        """The answer for a name: a remembered one, or that of `ask`, which gives it with the seconds to keep it."""
        waiting: Deferred[Answer] = Deferred()
        known = self._known.get(name)
        if known and known[0] > self._clock.seconds():
            return fail(Failure(known[1].value)) if isinstance(known[1], Failure) else succeed(known[1])
        if name in self._asked:
            self._asked[name].append(waiting)
            return waiting
        self._asked[name] = [waiting]
        ask(name).addCallbacks(self._answered, self._refused, callbackArgs=(name,), errbackArgs=(name,))
        return waiting

    def _answered(self, found: tuple[Answer, float], name: str) -> None:
        answer, ttl = found
        self._keep(name, answer, min(max(ttl, SHORTEST), LONGEST))
        for waiting in self._asked.pop(name):
            waiting.callback(answer)

    def _refused(self, failure: Failure, name: str) -> None:
        failure.cleanFailure()
        self._keep(name, failure, NEGATIVE if failure.check(NoSuchDomain) else SHORTEST)
        for waiting in self._asked.pop(name):
            waiting.errback(failure)

    def _keep(self, name: str, answer: Answer | Failure, seconds: float) -> None:
        if len(self._known) >= MAX_NAMES:
            now = self._clock.seconds()
            self._known = {key: value for key, value in self._known.items() if value[0] > now}
            if len(self._known) >= MAX_NAMES:
                self._known.clear()
        self._known[name] = (self._clock.seconds() + seconds, answer)


@implementer(IResolver)
class Resolver:
    """`names` makes a resolver of twisted.names when one is needed, `system` asks getaddrinfo.

    `shuffle` orders the exchangers of one preference.
    """

    def __init__(
        self,
        clock: IReactorTime,
        names: Callable[[], Any],
        system: Lookup,
        shuffle: Callable[[list[Any]], None] = random.shuffle,
    ) -> None:
        self._make_names = names
        self._names: Any = None
        self._system = system
        self._shuffle = shuffle
        self._exchangers: Remembered[list[tuple[int, str]]] = Remembered(clock)
        self._addresses: Remembered[list[str]] = Remembered(clock)

    def mx(self, domain: str) -> Deferred[list[tuple[int, str]]]:
        return self._exchangers.get(domain, self._ask_mx)

    def addresses(self, host: str) -> Deferred[list[str]]:
        try:
            return succeed([str(ipaddress.ip_address(host))])
        except ValueError:
            return self._addresses.get(host, self._ask_system)

    def _ask_mx(self, domain: str) -> Deferred[tuple[list[tuple[int, str]], float]]:
        self._names = self._names or self._make_names()
        asked: Deferred[Any] = self._names.lookupMailExchange(domain, timeout=TIMEOUTS)
        return asked.addCallbacks(self._found, _not_found, callbackArgs=(domain,))

    def _found(self, sections: Any, domain: str) -> tuple[list[tuple[int, str]], float]:
        records = [record for record in sections[0] if record.type == MX][:MAX_EXCHANGERS]
        hosts = [(r.payload.preference, r.payload.name.name.decode("ascii", "replace").lower()) for r in records]
        ttl = float(min((record.ttl for record in records), default=NEGATIVE))
        if not hosts:
            return [(0, domain)], ttl
        if all(host in ("", ".") for _, host in hosts):
            return [], ttl
        hosts = [(preference, host) for preference, host in hosts if host not in ("", ".")]
        self._shuffle(hosts)
        hosts.sort(key=lambda host: host[0])
        return hosts, ttl

    def _ask_system(self, host: str) -> Deferred[tuple[list[str], float]]:
        return self._system(host).addCallbacks(lambda found: (found, ADDRESS_TTL), _unknown)


def _not_found(failure: Failure) -> Any:
    from twisted.names.error import DNSNameError

    if failure.check(DNSNameError):
        raise NoSuchDomain("the domain does not exist") from None
    raise ResolverTrouble(f"the name servers gave no answer ({type(failure.value).__name__})") from None


def _unknown(failure: Failure) -> Any:
    raise ResolverTrouble("the host's name has no address that can be found now") from None
