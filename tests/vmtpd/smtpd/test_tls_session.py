"""Sessions under TLS: the real handshake, in memory."""

from __future__ import annotations

import ssl
from ipaddress import ip_network
from pathlib import Path

from twisted.internet.address import IPv4Address
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import Authority
from tests.vmtpd.smtpd.house import TestHouse
from vmtpd.smtpd import tls

LAN = (ip_network("192.168.1.0/24"),)


class ImplicitTests(SynchronousTestCase):
    """A listener that begins with TLS."""

    def setUp(self) -> None:
        """A client at the door, which has sent nothing yet."""
        authority = Authority(Path(self.mktemp()))
        file = str(authority.sign("mx.example.org"))
        context = tls.context(file, file)
        self.house = TestHouse()
        door = self.house.door(LAN, implicit=True, context=context)
        factory = TLSMemoryBIOFactory(context, False, door, self.house.clock)
        layer = factory.buildProtocol(IPv4Address("TCP", "192.168.1.9", 4242))
        assert layer is not None
        self.layer = layer
        self.transport = StringTransport()
        self.layer.makeConnection(self.transport)
        self.came, self.sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        trust = ssl.create_default_context(cafile=str(authority.file))
        self.client = trust.wrap_bio(self.came, self.sent, server_hostname="mx.example.org")

    def exchange(self) -> None:
        """Carry octets both ways."""
        if sent := self.sent.read():
            self.layer.dataReceived(sent)
        self.house.clock.advance(0)
        self.came.write(self.transport.value())
        self.transport.clear()

    def test_handshake_is_read(self) -> None:
        """The greeting waits for the handshake, and the handshake does not wait for the greeting."""
        self.exchange()
        self.assertEqual(self.transport.producerState, "producing")
        for _ in range(5):
            try:
                self.client.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.exchange()
        self.exchange()
        self.assertEqual(self.client.read(100)[:4], b"220 ")
        self.assertEqual(self.transport.producerState, "producing")
