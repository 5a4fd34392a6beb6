"""Reading the configuration."""

import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from vmtpd.config import Config, load, load_server
from vmtpd.ini import ConfigError

LEAST = "[listener a]\nlisten = 127.0.0.1:2525\n[route default]\nsmarthost = smtp.example.net\n"


class Written(SynchronousTestCase):
    """Writes a configuration into a folder of its own."""

    def setUp(self) -> None:
        """Make the folder."""
        # Not mktemp(): the path of a unix socket is short.
        self.folder = Path(tempfile.mkdtemp()).resolve()
        self.addCleanup(shutil.rmtree, self.folder)

    def load(self, text: str) -> Config:
        """What a file with this text means."""
        path = self.folder / "test.ini"
        path.write_text(text, encoding="utf-8")
        return load(str(path), fqdn=lambda: "relay.example.org")

    def refused(self, text: str) -> list[str]:
        """The mistakes of a file with this text, a line for each, without the file's name."""
        error = self.assertRaises(ConfigError, self.load, text)
        return [line.removeprefix(str(self.folder / "test.ini")) for line in str(error).splitlines()]

    def secret(self, name: str, text: str = "x\n", mode: int = 0o600) -> str:
        """A file of secrets."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)
        return name

    def certificate(self) -> str:
        """A certificate with its key in one file."""
        path = self.folder / "test.pem"
        key = self.folder / "test.key"
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]
        subprocess.run([*command, "-keyout", key, "-out", path], check=True, capture_output=True, timeout=60)
        path.write_bytes(path.read_bytes() + key.read_bytes())
        return path.name


class LoadTests(Written):
    """What a good file means."""

    def test_least(self) -> None:
        """A listener and a way out are enough; all else has its default."""
        config = self.load(LEAST)
        self.assertEqual((config.server.hostname, config.server.origin), ("relay.example.org", "relay.example.org"))
        self.assertEqual(config.server.control, "/var/lib/vmtpd/control")
        self.assertEqual([str(one) for one in config.listeners[0].networks], ["127.0.0.0/8", "::1/128"])
        self.assertEqual((config.limits.message_size, config.queue.lifetime), (50 << 20, 5 * 86400.0))
        self.assertEqual(
            (config.routes[0].name, config.routes[0].domains, config.routes[0].mx), ("default", ("*",), False)
        )

    def test_paths_are_meant_from_the_files_folder(self) -> None:
        """A relative path does not depend on where the daemon was started."""
        config = self.load(LEAST + "[server]\ndata = ../var\nusers = /etc/users\n")
        self.assertEqual(config.server.data, str(self.folder.parent / "var"))
        self.assertEqual(config.server.control, str(self.folder.parent / "var" / "control"))
        self.assertEqual(config.server.users, "/etc/users")

    def test_machine_without_a_full_name(self) -> None:
        """A machine without a domain takes the one that is kept for private networks."""
        path = self.folder / "test.ini"
        path.write_text(LEAST)
        for name in ("box", "localhost.localdomain", "1.0.0.127.in-addr.arpa", "a_b .x"):
            self.assertRegex(load(str(path), fqdn=partial(str, name)).server.hostname, r"\A[a-z0-9-]+\.internal\Z")

    def test_percent_and_comments(self) -> None:
        """A percent sign is a percent sign, and a longer value goes on in indented lines, with comments between."""
        text = (
            "[listener a]\nlisten =\n  127.0.0.1:2525\n  # the other\n  [::1]:2525\n[route r]\nsmarthost = smtps://h\n"
            f"user = 50%off\npassword-file = {self.secret('pw')}\n"
        )
        config = self.load("\ufeff" + text)
        self.assertEqual([str(one) for one in config.listeners[0].listen], ["127.0.0.1:2525", "[::1]:2525"])
        self.assertEqual((config.routes[0].user, config.routes[0].password_file), ("50%off", str(self.folder / "pw")))

    def test_tls_of_a_route_overrides_its_urls(self) -> None:
        """`tls` says for all hosts of a route what TLS must be."""
        config = self.load(LEAST + "tls = required\n[route b]\ndomains = example.org\nmx = yes\n")
        self.assertEqual(config.routes[0].smarthost[0].tls, "required")
        self.assertEqual(config.routes[1].tls, "opportunistic")

    def test_listener_with_tls(self) -> None:
        """With TLS and a users file logins are offered, and the key may be in the certificate's file."""
        text = f"[listener s]\nlisten = *:587\nrole = submission\ntls = starttls\ncertificate = {self.certificate()}\n"
        config = self.load(LEAST + text + "[server]\nusers = users\n")
        self.assertEqual((config.listeners[1].auth, config.listeners[1].key), (True, str(self.folder / "test.pem")))
        self.assertFalse(config.listeners[0].auth)

    def test_server_alone(self) -> None:
        """vmtpctl finds the socket even where it may not read the daemon's secrets."""
        path = self.folder / "test.ini"
        path.write_text("[server]\ndata = d\n[route r]\nsmarthost = smtps://h\nuser = u\npassword-file = missing\n")
        self.assertEqual(load_server(str(path)).control, str(self.folder / "d" / "control"))


class MistakeTests(Written):
    """What is refused, and how it is told."""

    def test_all_at_once(self) -> None:
        """All mistakes are told together, each with its line."""
        found = self.refused(
            "[server]\nhostnam = x\n[polcy]\n[limits]\nerrors = many\n[queue]\nretry-max = 4 hours\n[listener a]\nlisten=x:25\n"
        )
        self.assertEqual(
            found,
            [
                ":2: [server] hostnam: there is no such option; did you mean hostname?",
                ":3: [polcy]: there is no such section; did you mean policy?",
                ':5: [limits] errors: found "many"; write a whole number from 1 to 10000',
                ':7: [queue] retry-max: found "4 hours"; write a number and its unit: 30s, 5m, 4h or 5d; a plain number means seconds',
                ':9: [listener a] listen: found "x:25"; write the IP address to listen on, or * for all of them',
            ],
        )

    def test_many(self) -> None:
        """A file that is wrong throughout gives twenty lines, not a thousand."""
        found = self.refused("[server]\n" + "".join(f"x{i} = 1\n" for i in range(100)))
        self.assertEqual((len(found), found[-1]), (21, ": and 80 more"))
        self.assertEqual(len(self.refused("[server]\n" + "".join(f"x{i} = 1\n" for i in range(50000)))), 21)

    def test_syntax(self) -> None:
        """What is no INI file is told by its line, without its text."""
        self.assertEqual(
            self.refused("[server]\npassword secret\n"), [":2: is neither [section], name = value, nor a comment"]
        )
        self.assertIn("begin with a line such as [server]", self.refused("a = b\n")[0])
        self.assertIn(":3: [server] admin: stands there twice", self.refused("[server]\nadmin=a@b.c\nadmin=a@b.c\n")[0])
        self.assertIn(":2: [server]: stands there twice", self.refused("[server]\n[server]\n")[0])

    def test_files_that_cannot_be_read(self) -> None:
        """A file that is absent, too large or not UTF-8 is told so."""
        self.assertIn(
            "cannot be read: No such file", str(self.assertRaises(ConfigError, load, str(self.folder / "absent")))
        )
        path = self.folder / "odd.ini"
        path.write_bytes(b"#" * ((1 << 20) + 1))
        self.assertIn("larger than 1 MiB", str(self.assertRaises(ConfigError, load, str(path))))
        path.write_bytes(b"[server]\nadmin = \xff\n")
        self.assertIn("odd.ini:2: is not UTF-8", str(self.assertRaises(ConfigError, load, str(path))))

    def test_open_relay(self) -> None:
        """A network so large that everybody is in it is refused, here and at a listener."""
        for network in ("0.0.0.0/0", "::/0", "0.0.0.0/1", "2000::/3"):
            self.assertIn("open relay", self.refused(LEAST + f"[policy]\nnetworks = {network}\n")[0])
            text = f"[route r]\nmx = yes\n[listener a]\nlisten = *:25\nnetworks = {network}\n"
            self.assertIn("open relay", self.refused(text)[0])

    def test_listener_needs(self) -> None:
        """A listener says where, has a certificate for TLS, and logins under TLS alone."""
        route = "[route r]\nmx = yes\n"
        self.assertIn("must be set", self.refused(route + "[listener a]\n")[0])
        door = route + "[listener a]\nlisten = *:25\n"
        self.assertIn("certificate: must be set", self.refused(door + "tls = starttls\n")[0])
        self.assertIn("cannot be read", self.refused(door + "tls = starttls\ncertificate = absent\n")[0])
        self.assertIn("under TLS alone", self.refused(door + "auth = yes\n")[0])
        self.assertIn("submission is for logins", self.refused(door + "role = submission\n")[0])
        self.assertIn(
            "needs users", self.refused(door + f"tls = starttls\ncertificate = {self.certificate()}\nauth = yes\n")[0]
        )
        self.secret("not.pem", "hello")
        self.assertIn("cannot be used", self.refused(door + "tls = implicit\ncertificate = not.pem\n")[0])

    def test_nothing_to_do(self) -> None:
        """A relay without a door, or without a way out, is no relay."""
        self.assertIn("no listener", self.refused("[route r]\nmx = yes\n")[0])
        self.assertIn("no way out", self.refused("[listener a]\nlisten = *:25\n")[0])

    def test_route_needs_one_way(self) -> None:
        """A route has smarthosts or uses MX, one of them."""
        door = "[listener a]\nlisten = *:2525\n"
        self.assertIn("set smarthost", self.refused(door + "[route r]\n")[0])
        self.assertIn("not both", self.refused(door + "[route r]\nmx = yes\nsmarthost = h\n")[0])
        self.assertIn("contradicts", self.refused(door + "[route r]\nsmarthost = smtps://h\ntls = none\n")[0])

    def test_passwords(self) -> None:
        """A password needs its file, TLS, and nobody else who can read it."""
        route = LEAST.replace("smtp.example.net", "smtps://smtp.example.net")
        self.assertIn("needs password-file", self.refused(route + "user = a\n")[0])
        self.assertIn("needs user", self.refused(route + f"password-file = {self.secret('pw')}\n")[0])
        login = f"user = a\npassword-file = {self.secret('pw')}\n"
        self.assertIn("never travels in clear", self.refused(LEAST + login)[0])
        self.assertIn("never travels in clear", self.refused(LEAST + login + "tls = none\n")[0])
        self.secret("pw", mode=0o644)
        self.assertIn("can be read by others; say chmod", self.refused(route + login)[0])
        self.secret("pw", "", mode=0o640)
        self.assertIn("is empty", self.refused(route + login)[0])
        os.unlink(self.folder / "pw")
        self.assertIn("cannot be read", self.refused(route + login)[0])

    def test_login_in_the_url(self) -> None:
        """A password in a URL is refused and not shown."""
        found = self.refused("[listener a]\nlisten = *:25\n[route r]\nsmarthost = smtps://ann:secret@h\n")
        self.assertIn("a login does not belong in the URL", found[0])
        self.assertNotIn("secret", "".join(found))

    def test_twice(self) -> None:
        """A domain has one way, and an address one listener."""
        self.assertIn("* stands in [route default] too", self.refused(LEAST + "[route b]\nmx = yes\n")[0])
        self.assertIn("stands in [listener a] too", self.refused(LEAST + "[listener b]\nlisten = 127.0.0.1:2525\n")[0])

    def test_circle(self) -> None:
        """A smarthost that is this relay is refused."""
        for door, host in (
            ("*:25", "localhost"),
            ("127.0.0.1:2525", "127.0.0.1:2525"),
            ("192.0.2.1:25", "192.0.2.1"),
            ("*:25", "relay.example.org"),
        ):
            found = self.refused(f"[listener a]\nlisten = {door}\n[route r]\nsmarthost = {host}\n")
            self.assertIn("a circle", found[0])
        self.load("[listener a]\nlisten = 127.0.0.1:2525\n[route r]\nsmarthost = 127.0.0.1:2526\n")

    def test_local(self) -> None:
        """Local mail has somebody who gets it, and `*` leaves nothing for routes."""
        self.assertIn(
            "no [route] is ever used", self.refused(LEAST + "[local]\ndomains=*\nmaildir=m\ncatch-all=a\n")[0]
        )
        self.assertIn("nobody could get this mail", self.refused(LEAST + "[local]\ndomains = example.org\n")[0])
        self.assertIn(
            "maildir: must be set", self.refused(LEAST + "[local]\ndomains = example.org\ncatch-all = a\n")[0]
        )
        self.assertIn("domains: must be set", self.refused(LEAST + "[local]\nmaildir = m\ncatch-all = a\n")[0])
        both = LEAST + "domains = example.org\n[local]\ndomains = example.org\nmaildir = m\ncatch-all = a\n"
        self.assertIn("example.org ends here by [local]", self.refused(both)[0])
        circle = "[server]\nadmin = me@example.org\n[local]\ndomains = example.org\n"
        self.assertIn("local domain that has no mailbox", self.refused(LEAST + circle)[0])

    def test_times(self) -> None:
        """Times that contradict each other are refused."""
        self.assertIn("at most retry-max", self.refused(LEAST + "[queue]\nretry-first = 5h\n")[0])
        self.assertIn("longer than retry-first", self.refused(LEAST + "[queue]\nlifetime = 1m\nwarn-after = 0\n")[0])
        self.assertIn("0 for no warning", self.refused(LEAST + "[queue]\nwarn-after = 6d\n")[0])
        self.assertEqual(self.load(LEAST + "[queue]\nlifetime = 2h\n").queue.lifetime, 7200)
        self.assertIn("1s to 1d", self.refused(LEAST + "[limits]\ntimeout = 0\n")[0])

    def test_names_of_sections(self) -> None:
        """Listeners and routes have names, other sections none."""
        self.assertIn("such as [listener main]", self.refused(LEAST + "[listener]\nlisten = *:26\n")[0])
        self.assertIn("write [limits]", self.refused(LEAST + "[limits x]\n")[0])

    def test_socket_path(self) -> None:
        """A control socket whose path no system call takes is refused before it is tried."""
        self.assertIn("shorter", self.refused(LEAST + f"[server]\ncontrol = /{'x' * 110}\n")[0])

    def test_from_the_command_line(self) -> None:
        """A bad file ends `vmtpctl check-config` with status 78 and the mistakes, no traceback."""
        path = self.folder / "bad.ini"
        path.write_text("[server]\nadmin = me\n")
        command = [sys.executable, "-m", "vmtpd.ctl", "check-config", str(path)]
        root = Path(__file__).resolve().parent.parent.parent
        result = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=60)
        self.assertEqual((result.returncode, result.stdout), (78, ""))
        self.assertIn('bad.ini:2: [server] admin: found "me"', result.stderr)
        self.assertNotIn("Traceback", result.stderr)
