"""Certificates and keys of listeners."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.ssl import CertificateOptions
from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import Authority
from vmtpd.smtpd import tls


class ContextTests(SynchronousTestCase):
    """What makes TLS possible, and the sentences where it is not."""

    def setUp(self) -> None:
        self.authority = Authority(Path(self.mktemp()))
        self.good = str(self.authority.sign("mx.example.org"))

    def file(self, octets: bytes) -> str:
        """A file of the test."""
        path = self.authority.folder / f"file{len(list(self.authority.folder.iterdir()))}"
        path.write_bytes(octets)
        return str(path)

    def refused(self, certificate: str, key: str) -> str:
        """Why a pair is not usable."""
        return str(self.assertRaises(tls.Unusable, tls.context, certificate, key))

    def test_good(self) -> None:
        """One file may hold the key and the certificate with its chain."""
        chained = self.file(Path(self.good).read_bytes() + self.authority.file.read_bytes())
        self.assertIsInstance(tls.context(chained, chained), CertificateOptions)

    def test_not_there(self) -> None:
        """A missing file is named."""
        self.assertIn("/nowhere.pem cannot be read", self.refused("/nowhere.pem", self.good))
        self.assertIn("/nowhere.pem cannot be read", self.refused(self.good, "/nowhere.pem"))

    def test_something_else(self) -> None:
        """A file that holds no certificate or no key says so, and shows nothing of what it holds."""
        junk = self.file(b"-----BEGIN CERTIFICATE-----\nc2VjcmV0\n-----END CERTIFICATE-----\n")
        for told in (
            self.refused(self.file(b"secret"), self.good),
            self.refused(self.good, self.file(b"secret")),
            self.refused(junk, self.good),
        ):
            self.assertRegex(told, "holds (no|a) ")
            self.assertNotIn("secret", told)

    def test_another_key(self) -> None:
        """A key that does not belong to the certificate is found at the start, not by the first client."""
        other = str(self.authority.sign("other.example.org"))
        self.assertIn("is not the key of the certificate", self.refused(self.good, other))
