"""The certificate of a listener, made into what Twisted needs for a handshake.

*Failures*: `Unusable`, one sentence that names the file; the key's content never stands in it.
"""

from __future__ import annotations

import re

from OpenSSL import SSL, crypto
from twisted.internet.ssl import CertificateOptions, TLSVersion

MAX_PEM = 1024 * 1024

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class Unusable(Exception):
    """A certificate or key that TLS cannot be done with."""


def context(certificate: str, key: str) -> CertificateOptions:
    """What makes TLS connections with a certificate and its chain, and a key, both PEM files. Raises `Unusable`."""
    blocks = _BLOCK.findall(_read(certificate))
    if not blocks:
        raise Unusable(f"{certificate} holds no certificate in PEM form")
    try:
        chain = [crypto.load_certificate(crypto.FILETYPE_PEM, block) for block in blocks]
    except crypto.Error:
        raise Unusable(f"{certificate} holds a certificate that cannot be read") from None
    try:
        private = crypto.load_privatekey(crypto.FILETYPE_PEM, _read(key), passphrase=b"")
    except (crypto.Error, ValueError, TypeError):
        raise Unusable(f"{key} holds no private key in PEM form without a passphrase") from None
    options = CertificateOptions(
        privateKey=private,
        certificate=chain[0],
        extraCertChain=chain[1:],
        raiseMinimumTo=TLSVersion.TLSv1_2,
    )
    try:
        options.getContext().check_privatekey()
    except SSL.Error:
        raise Unusable(f"{key} is not the key of the certificate in {certificate}") from None
    return options


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_PEM)
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}") from None
