"""The users file."""

import os
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from vmtpd.auth import users
from vmtpd.auth.users import UsersError


class UsersTests(SynchronousTestCase):
    """Logins come, change and go, and their passwords cannot be read."""

    def setUp(self) -> None:
        """A path in a folder of its own, and cheap hashes."""
        folder = Path(self.mktemp())
        folder.mkdir()
        self.path = str(folder / "users")
        self.patch(users, "N", 1 << 10)

    def test_life_of_a_login(self) -> None:
        """A login is added, gets another password, and is removed."""
        users.add(self.path, "Printer@Example.org", "first password")
        known = users.read(self.path)
        self.assertEqual(list(known), ["printer@example.org"])
        self.assertTrue(users.verify(known, "PRINTER@example.org", "first password"))
        users.passwd(self.path, "printer@example.org", "second password")
        known = users.read(self.path)
        self.assertFalse(users.verify(known, "printer@example.org", "first password"))
        self.assertTrue(users.verify(known, "printer@example.org", "second password"))
        users.remove(self.path, "printer@example.org")
        self.assertEqual(users.read(self.path), {})

    def test_what_is_kept(self) -> None:
        """The file holds no password, is its owner's alone, and nothing is left beside it."""
        users.add(self.path, "ann", "correct horse")
        users.add(self.path, "bob", "correct horse")
        lines = Path(self.path).read_text().splitlines()
        self.assertNotIn("horse", "".join(lines))
        self.assertRegex(lines[0], r"\Aann:scrypt\$1024\$8\$1\$[^$]+\$[^$]+\Z")
        self.assertNotEqual(lines[0].split("$")[4:], lines[1].split("$")[4:])
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        self.assertEqual(os.listdir(os.path.dirname(self.path)), ["users"])

    def test_mode_stays(self) -> None:
        """A file that the daemon's group may read stays so, but is never opened to others."""
        users.add(self.path, "ann", "correct horse")
        os.chmod(self.path, 0o644)
        users.add(self.path, "bob", "correct horse")
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o640)

    def test_unknown_and_empty(self) -> None:
        """An unknown login, and an empty password, are wrong."""
        users.add(self.path, "ann", "correct horse")
        known = users.read(self.path)
        for name, password in (
            ("bob", "correct horse"),
            ("", ""),
            ("ann", ""),
            ("ann", "Correct horse"),
            ("ann", "x" * 9999),
        ):
            self.assertFalse(users.verify(known, name, password))

    def test_an_unknown_login_costs_as_much(self) -> None:
        """Nobody learns from the work that is done which logins there are."""
        users.add(self.path, "ann", "correct horse")
        known, costs = users.read(self.path), []

        def scrypt(password: str, salt: bytes, n: int, r: int, p: int, length: int) -> bytes:
            costs.append((r, p, len(salt), length))
            return bytes(length)

        self.patch(users, "_scrypt", scrypt)
        self.assertFalse(users.verify(known, "ann", "wrong"))
        self.assertFalse(users.verify(known, "nobody", "wrong"))
        self.assertEqual(costs[0], costs[1])
        self.assertEqual((users._NOBODY.n, users._NOBODY.r, users._NOBODY.p), (1 << 14, 8, 1))

    def test_refused(self) -> None:
        """Odd names, short passwords, logins that are there or are not, are refused with a sentence."""
        users.add(self.path, "ann", "correct horse")
        for name in ("", "a:b", "a b", "../x", "a\nb", "x" * 200, "-a"):
            self.assertRaises(UsersError, users.add, self.path, name, "correct horse")
        for password in ("short", "x" * 2000, "line\nend password", "null\0character"):
            self.assertRaises(UsersError, users.add, self.path, "bob", password)
        self.assertIn("there already", str(self.assertRaises(UsersError, users.add, self.path, "ANN", "correct horse")))
        self.assertIn(
            "no login bob", str(self.assertRaises(UsersError, users.passwd, self.path, "bob", "correct horse"))
        )
        self.assertIn("no login bob", str(self.assertRaises(UsersError, users.remove, self.path, "bob")))
        self.assertEqual(list(users.read(self.path)), ["ann"])

    def test_damaged_file(self) -> None:
        """A line that is no login is named by its number and never shown; costs beyond reason are refused."""
        salt, digest = "A" * 24, "A" * 44
        for line in (
            "ann",
            "ann:secret",
            f"ann:scrypt$1048576$8$1${salt}${digest}",
            f"ann:scrypt$16383$8$1${salt}${digest}",
            f"ann:scrypt$16384$8$99${salt}${digest}",
            f"ann:scrypt$16384$8$1${salt}$AAAA",
            f"Ann:scrypt$16384$8$1${salt}${digest}",
        ):
            Path(self.path).write_text(f"# logins\n\n{line}\n")
            error = str(self.assertRaises(UsersError, users.read, self.path))
            self.assertIn("users:3:", error)
            self.assertNotIn("secret", error)
        Path(self.path).write_text(f"ann:scrypt$16384$8$1${salt}${digest}\n" * 2)
        self.assertRaises(UsersError, users.read, self.path)

    def test_unreadable(self) -> None:
        """A file that is not there, or has no end, is told so."""
        self.assertIn("cannot be read", str(self.assertRaises(UsersError, users.read, self.path)))
        Path(self.path).write_bytes(b"#" * (users.MAX_FILE + 1))
        self.assertIn("more than", str(self.assertRaises(UsersError, users.read, self.path)))

    def test_failed_write_leaves_the_old_file(self) -> None:
        """Where the new file cannot be written the old one stays, and nothing is left beside it."""
        users.add(self.path, "ann", "correct horse")

        def fsync(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        self.patch(os, "fsync", fsync)
        error = self.assertRaises(UsersError, users.add, self.path, "bob", "correct horse")
        self.assertIn("No space left", str(error))
        self.assertEqual(list(users.read(self.path)), ["ann"])
        self.assertEqual(os.listdir(os.path.dirname(self.path)), ["users"])
