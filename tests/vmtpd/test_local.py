"""Which addresses are ours."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from vmtpd.local import Local, Mailbox, Redirect, Unknown

HOME = Local(
    hostname="nas.home.example",
    origin="home.example",
    domains=frozenset({"home.example", "xn--bcher-kva.example"}),
    mailboxes=frozenset({"ann", "bob"}),
    admin="admin@provider.example",
)


class LocalTests(SynchronousTestCase):
    """Mailboxes, the administrator, and what is not ours."""

    def test_bare_names(self) -> None:
        """A bare name gets the origin; the null return path and whole addresses stay."""
        self.assertEqual(
            [HOME.complete(name) for name in ("root", "", "a@b.example")], ["root@home.example", "", "a@b.example"]
        )

    def test_mailboxes(self) -> None:
        """A mailbox is found by its name in any case, and by a name with a plus behind it."""
        for address in ["ann@home.example", "ANN@home.example", "ann+shop@home.example", "ann@nas.home.example"]:
            self.assertEqual(HOME.find(address), Mailbox("ann"), address)
        self.assertEqual(HOME.find("bob@bücher.example"), Mailbox("bob"))

    def test_the_administrator(self) -> None:
        """Postmaster, root and names without a mailbox go to the administrator."""
        for name in ["postmaster", "root", "Root", "nobody"]:
            self.assertEqual(HOME.find(f"{name}@home.example"), Redirect("admin@provider.example"))
        self.assertEqual(HOME.find("root@localhost"), Redirect("admin@provider.example"))

    def test_elsewhere(self) -> None:
        """Other domains are not ours."""
        for address in ["ann@provider.example", "ann@[192.0.2.1]", "ann@sub.home.example"]:
            self.assertIsNone(HOME.find(address))

    def test_catch_all(self) -> None:
        """A catch-all takes every other name; the roles still go to the administrator."""
        local = Local("h.example", "h.example", frozenset({"*"}), catch_all="inbox", admin="ann@p.example")
        self.assertEqual(local.find("whoever@anywhere.example"), Mailbox("inbox"))
        self.assertEqual(local.find("postmaster@h.example"), Redirect("ann@p.example"))

    def test_nobody(self) -> None:
        """Without administrator and catch-all an unknown name is unknown."""
        local = Local("h.example", "h.example", frozenset({"h.example"}), frozenset({"ann"}))
        self.assertEqual(local.find("bob@h.example"), Unknown())

    def test_no_circle(self) -> None:
        """The administrator's own address is never redirected to itself."""
        local = Local("h.example", "h.example", frozenset({"h.example"}), admin="root@h.example")
        self.assertEqual(local.find("root@h.example"), Unknown())
        self.assertEqual(local.find("postmaster@h.example"), Redirect("root@h.example"))

    def test_a_relay_without_readers(self) -> None:
        """Where nobody reads mail here, root at the origin leaves by the route, as everything does."""
        local = Local("nas.provider.example", "provider.example")
        self.assertIsNone(local.find("root@provider.example"))
        self.assertIsNone(local.find("root@nas.provider.example"))

    def test_roles_of_the_origin(self) -> None:
        """With an administrator, root at the origin is his although the domain is at the provider; others are not."""
        local = Local("nas.lan", "provider.example", admin="me@provider.example")
        self.assertEqual(local.find("root@provider.example"), Redirect("me@provider.example"))
        self.assertIsNone(local.find("friend@provider.example"))
