"""What is shipped beside the code says what the code says."""

import io
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from vmtpd.config import SECTIONS, load
from vmtpd.options import options
from vmtpd.reference import full_ini, main, markdown

ROOT = Path(__file__).resolve().parent.parent.parent
REMEDY = "make reference writes it anew"


class ReferenceTests(SynchronousTestCase):
    """etc/ and docs/ against the declarations."""

    def test_full_ini(self) -> None:
        """etc/vmtpd.full.ini lists every option with its default and reason."""
        self.assertEqual((ROOT / "etc/vmtpd.full.ini").read_text(encoding="utf-8"), full_ini(), REMEDY)

    def test_docs(self) -> None:
        """docs/configuration.md lists every option with its default and reason."""
        self.assertEqual((ROOT / "docs/configuration.md").read_text(encoding="utf-8"), markdown(), REMEDY)

    def test_shipped_files_work(self) -> None:
        """Every configuration that is shipped can be used as it stands."""
        for name in ("demo.ini", "vmtpd.ini", "vmtpd.full.ini"):
            config = load(str(ROOT / "etc" / name), fqdn=lambda: "relay.example.org")
            self.assertEqual(config.server.hostname, "relay.example.org")

    def test_every_option_is_explained(self) -> None:
        """Each option has a sentence, and each default is one that its own kind can read."""
        for section in SECTIONS.values():
            for name, (_, declared) in options(section).items():
                self.assertTrue(declared.about.endswith("."), name)
                for text in filter(None, (declared.default, declared.example)):
                    declared.kind.parse(text)

    def test_demo_keeps_everything_here(self) -> None:
        """The demonstration sends nothing away: all mail goes to the Maildir var/inbox."""
        config = load(str(ROOT / "etc/demo.ini"))
        self.assertEqual((config.local.domains, config.local.catch_all, config.routes), (("*",), "inbox", ()))
        self.assertEqual(config.local.maildir, str(ROOT / "var"))
        self.assertEqual([str(item) for item in config.listeners[0].listen], ["127.0.0.1:2525"])

    def test_wrong_argument(self) -> None:
        """A document that is not known is a usage error."""
        said = io.StringIO()
        self.patch(sys, "stderr", said)
        self.assertEqual(main(["pdf"]), 2)
        self.assertIn("ini|markdown", said.getvalue())
