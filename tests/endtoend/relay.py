"""A small SMTP server in a thread, with TLS and a login, for the transports of the client to speak to; and its certificate."""

from __future__ import annotations

import datetime
import socketserver
import ssl
import threading
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a self-signed certificate for a name and 127.0.0.1. Returns the paths of certificate and key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    pem, secret = folder / f"{name}.pem", folder / f"{name}.key"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pem, secret


class Relay(socketserver.ThreadingTCPServer):
    """Listens on a free port of 127.0.0.1. `messages` are (recipients, content), `logins` what AUTH PLAIN said."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, context: ssl.SSLContext | None = None, implicit: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), Session)
        self.context = context
        self.implicit = implicit
        self.messages: list[tuple[list[str], bytes]] = []
        self.logins: list[str] = []
        self.sessions = 0
        self.port: int = self.server_address[1]
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """A session ended by an error, as a refused handshake does."""

    def close(self) -> None:
        """Stop listening."""
        self.shutdown()
        self.server_close()


class Session(socketserver.StreamRequestHandler):
    """One session. It refuses the recipient nobody@example.org."""

    server: Relay

    def handle(self) -> None:
        self.server.sessions += 1
        self.secured = False
        if self.server.implicit:
            self.secure()
        self.say("220 relay ESMTP")
        self.recipients: list[str] = []
        while line := self.rfile.readline():
            verb, _, argument = line.decode().strip().partition(" ")
            getattr(self, f"do_{verb.upper()}", self.unknown)(argument)
            if verb.upper() == "QUIT":
                return

    def secure(self) -> None:
        """Make the handshake."""
        assert self.server.context is not None
        self.request = self.server.context.wrap_socket(self.request, server_side=True)
        self.setup()
        self.secured = True

    def say(self, *lines: str) -> None:
        """Send a reply."""
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())

    def unknown(self, argument: str) -> None:
        """Any other command."""
        self.say("500 what")

    def do_EHLO(self, argument: str) -> None:
        """What is offered."""
        tls = ["250-STARTTLS"] if self.server.context and not self.secured else []
        login = ["250-AUTH PLAIN"] if self.secured else []
        self.say("250-relay", *tls, *login, "250-PIPELINING", "250 SIZE 50000000")

    def do_STARTTLS(self, argument: str) -> None:
        """TLS from here on."""
        self.say("220 go")
        self.secure()

    def do_AUTH(self, argument: str) -> None:
        """Any login is right."""
        self.server.logins.append(argument)
        self.say("235 2.7.0 welcome")

    def do_MAIL(self, argument: str) -> None:
        """Begin."""
        self.recipients = []
        self.say("250 2.1.0 ok")

    def do_RCPT(self, argument: str) -> None:
        """Take a recipient."""
        address = argument[argument.index("<") + 1 : argument.index(">")]
        if address == "nobody@example.org":
            self.say("550 5.1.1 nobody")
        else:
            self.recipients.append(address)
            self.say("250 2.1.5 ok")

    def do_DATA(self, argument: str) -> None:
        """Take the content."""
        self.say("354 go")
        lines = []
        while (line := self.rfile.readline()) != b".\r\n":
            lines.append(line[1:] if line.startswith(b".") else line)
        self.server.messages.append((self.recipients, b"".join(lines)))
        self.say("250 2.0.0 queued")

    def do_QUIT(self, argument: str) -> None:
        """The end."""
        self.say("221 2.0.0 bye")
