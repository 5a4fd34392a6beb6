"""TLS towards a next hop: what each posture of a route asks of a handshake.

    none             no TLS
    opportunistic    TLS where it is offered; the certificate is not looked at (RFC 7435)
    required         TLS, or no mail; the certificate is not looked at
    verified         TLS with a certificate for the host's name, of the system's authorities or of the route's own (`ca`)

*Failures*: a file of authorities that cannot be read raises OSError, one without a certificate `TLSFailed`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from OpenSSL import SSL, crypto
from twisted.internet._sslverify import IOpenSSLTrustRoot
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import Certificate, CertificateOptions, optionsForClientTLS, trustRootFromCertificates
from zope.interface import implementer

from vmtp.errors import TLSFailed

Run = Callable[..., Deferred[Any]]
"""Calls a function with arguments in a thread, and gives a Deferred of its result."""

MAX_CA = 4 * 1024 * 1024
_MARK = b"-----BEGIN CERTIFICATE-----"


class Handshake(NamedTuple):
    """How to make a handshake, and whether it checks the certificate."""

    options: IOpenSSLClientConnectionCreator
    verified: bool


class Handshakes:
    """Makes the options of handshakes. Files are read through `run`, and read again for each new connection."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._unverified: CertificateOptions | None = None

    async def to(self, host: str, verified: bool, ca: str = "") -> Handshake:
        """How to speak TLS with a host. `ca` is the path of a PEM file, "" for the authorities of the system."""
        if verified:
            authorities = _authorities(await self._run(_read, ca)) if ca else None
            return Handshake(optionsForClientTLS(host, trustRoot=authorities), True)
        if self._unverified is None:
            self._unverified = CertificateOptions(verify=False)
        return Handshake(_Unverified(self._unverified.getContext(), host), False)


@implementer(IOpenSSLClientConnectionCreator)
class _Unverified:
    """Takes any certificate, and names the host all the same (RFC 6066 section 3): some servers choose by it."""

    def __init__(self, context: SSL.Context, host: str) -> None:
        self._context = context
        self._host = host

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        if not (isIPAddress(self._host) or isIPv6Address(self._host)):
            connection.set_tlsext_host_name(self._host.encode("idna"))
        return connection


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(MAX_CA)


def _authorities(pem: bytes) -> IOpenSSLTrustRoot:
    try:
        certificates = [Certificate.loadPEM(_MARK + part) for part in pem.split(_MARK)[1:]]
    except crypto.Error:
        certificates = []
    if not certificates:
        raise TLSFailed("the file of authorities holds no certificate that can be read", "STARTTLS")
    return trustRootFromCertificates(certificates)
