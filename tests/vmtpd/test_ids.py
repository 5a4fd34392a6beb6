"""Queue ids: unique, rising, readable."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from vmtpd.ids import EPOCH, Ids, decode, encode

ids = st.integers(0, (1 << 63) - 1)


class Making(SynchronousTestCase):
    """Ids.next."""

    @given(st.lists(st.floats(EPOCH - 10.0, EPOCH + 1e9), min_size=1, max_size=50), st.integers(0, 1023))
    def test_rises_whatever_the_clock_does(self, times: list[float], node: int) -> None:
        """An id is greater than all before it, even when the clock is set back."""
        clock = iter(times)
        made = Ids(lambda: next(clock), node)
        given_out = [made.next() for _ in times]
        self.assertEqual(given_out, sorted(set(given_out)))
        self.assertEqual({id >> 12 & 1023 for id in given_out}, {node})

    def test_more_than_fit_in_a_millisecond(self) -> None:
        """Ids made faster than 4096 a millisecond run into the next one and stay unique."""
        made = Ids(lambda: EPOCH + 1.0)
        given_out = [made.next() for _ in range(10_000)]
        self.assertEqual(len(set(given_out)), 10_000)
        self.assertEqual([given_out[n] >> 22 for n in (0, 4095, 4096, 9999)], [1000, 1000, 1001, 1002])

    @given(ids.filter(lambda id: id >> 22 < (1 << 41) - 1), st.integers(0, 1023))
    def test_goes_on_above_the_last(self, last: int, node: int) -> None:
        """After a restart with a clock set back, new ids are above those of before, whichever node gave them."""
        self.assertGreater(Ids(lambda: float(EPOCH), node, last).next(), last)

    def test_time_is_in_it(self) -> None:
        """An id tells the millisecond in which it was made."""
        self.assertEqual(Ids(lambda: EPOCH + 12.345).next() >> 22, 12345)

    def test_ends(self) -> None:
        """A clock beyond the last year is an error, not an id that is given twice."""
        self.assertRaises(OverflowError, Ids(lambda: EPOCH + float(1 << 41)).next)

    def test_node(self) -> None:
        """A node beyond 1023 would be another's."""
        self.assertRaises(ValueError, Ids, lambda: 0.0, 1024)


class Letters(SynchronousTestCase):
    """encode and decode."""

    @given(ids)
    def test_round_trip(self, id: int) -> None:
        """An id reads back, in small and in capital letters."""
        letters = encode(id)
        self.assertEqual(len(letters), 13)
        self.assertEqual(decode(letters), id)
        self.assertEqual(decode(letters.upper()), id)

    @given(ids, ids)
    def test_letters_sort_as_ids(self, one: int, other: int) -> None:
        """A listing that is sorted by letters is sorted by age."""
        self.assertEqual(encode(one) < encode(other), one < other)

    def test_confusables(self) -> None:
        """What was misread from paper as o, i or l is understood."""
        self.assertEqual(decode("0oOiIlL000000"), decode("0001111000000"))

    @given(st.text(max_size=14))
    def test_anything_else_is_refused(self, text: str) -> None:
        """Whatever an operator types is an id or a ValueError."""
        try:
            id = decode(text)
        except ValueError:
            return
        self.assertEqual(decode(encode(id)), id)

    def test_refused(self) -> None:
        """Too short, too long, u, signs, spaces, letters beyond ASCII that look right, and numbers of 64 bits are no ids."""
        for letters in ("", "0" * 12, "0" * 14, "000000000000u", "-000000000001", " 000000000001", "000000000000\u212a",
                        "000000000000\u0660", "8000000000000", "zzzzzzzzzzzzz"):  # fmt: skip
            self.assertRaises(ValueError, decode, letters)
        self.assertRaises(ValueError, encode, -1)
        self.assertRaises(ValueError, encode, 1 << 63)
