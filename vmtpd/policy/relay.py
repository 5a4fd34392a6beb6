"""Who may send what to whom: the rules that keep a relay from serving strangers.

A session asks at its begin, at MAIL, at each RCPT and at AUTH. The rule of a relay is one sentence: mail for our own domains is taken
from anybody the listener serves; mail for other domains only from a trusted network or a login.

*Failures*: every answer is a Verdict. What the client may not know, such as the reason for the operator, stands in `reason`.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from zope.interface import implementer

from vmtpd.interfaces import IPolicy
from vmtpd.local import Local, Unknown
from vmtpd.mail import Facts, Verdict
from vmtpd.policy.limits import Sessions

Check = Callable[[str, str], Deferred[str | None]]
"""The user that a name and a password are those of, or None. Fails where that cannot be known now."""

WELCOME = Verdict(220, "", "ready")
SENDER_OK = Verdict(250, "2.1.0", "sender ok")
RECIPIENT_OK = Verdict(250, "2.1.5", "recipient ok")
_LOGIN_FIRST = Verdict(530, "5.7.0", "log in first")
_TLS_AND_LOGIN_FIRST = Verdict(530, "5.7.0", "STARTTLS and a login come first")
_NOBODY = Verdict(550, "5.1.1", "no such mailbox here")
_STRANGER = Verdict(
    550,
    "5.7.1",
    "relaying denied: your address is in no trusted network and you are not logged in",
    "relaying denied",
)
_INBOUND = Verdict(550, "5.7.1", "relaying denied: only mail for our own domains is taken here", "relaying denied")
_FULL = Verdict(452, "4.5.3", "too many recipients: send the message to the others again")
_OTHER_NAME = Verdict(
    535, "5.7.8", "you cannot act for another user", "the authorization identity is not the user's own"
)
_WRONG = Verdict(535, "5.7.8", "user name or password is wrong", "login refused")
_LATER = Verdict(454, "4.7.0", "the login cannot be checked now, try again later", "a login could not be checked")


@implementer(IPolicy)
class RelayPolicy:
    """The rules of one daemon. `check` is None where there are no users; `recipients` is the most a message may have."""

    def __init__(self, local: Local, sessions: Sessions, recipients: int, check: Check | None = None) -> None:
        self._local = local
        self._sessions = sessions
        self._recipients = recipients
        self._check = check

    def connect(self, facts: Facts) -> Verdict:
        return self._sessions.enter(facts.address) or WELCOME

    def disconnect(self, facts: Facts) -> None:
        self._sessions.leave(facts.address)

    def mail(self, facts: Facts, sender: str) -> Verdict:
        if facts.role == "submission" and not facts.login:
            return _LOGIN_FIRST if facts.tls else _TLS_AND_LOGIN_FIRST
        return SENDER_OK

    def rcpt(self, facts: Facts, sender: str, recipient: str, count: int) -> Verdict:
        if count >= self._recipients:
            return _FULL
        place = self._local.find(recipient)
        if isinstance(place, Unknown):
            return _NOBODY
        if place is not None:
            return RECIPIENT_OK
        if facts.role == "inbound":
            return _INBOUND
        if facts.login or (facts.trusted and facts.role == "relay"):
            return RECIPIENT_OK
        return _STRANGER

    def login(self, facts: Facts, authorization: str, username: str, password: str) -> Deferred[Verdict]:
        done: Deferred[Verdict] = Deferred()
        if self._check is None:
            done.callback(_WRONG)
            return done
        if authorization not in ("", username):
            done.callback(_OTHER_NAME)
            return done

        def checked(user: str | None) -> Verdict:
            return Verdict(235, "2.7.0", "welcome", user) if user else _WRONG

        return self._check(username, password).addCallbacks(checked, lambda failure: _LATER)
