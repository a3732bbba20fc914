"""Numbers as tools print them are read as they are meant, and what could be meant otherwise is not
read at all."""

from __future__ import annotations

import random

import pytest

from harness.inspect.number import read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0x1000", 0x1000),
        ("0XfF", 0xFF),
        ("0o17", 0o17),
        ("0x0b11", 0xB11),
        ("0003", 3),  # Oops: 0003, QEMU's e=0003
        ("000b", 11),
        ("0b", 11),
        ("0000", 0),
        ("010", 0x10),
        ("1d", 0x1D),
        ("7", 7),
        ("800fffffa7598063", 0x800F_FFFF_A759_8063),  # a PTE in an oops
        ("8000000005000181", 0x8000_0000_0500_0181),  # no letter, but all 16 digits
        ("1000000000000000", 1 << 60),
        ("fffff800`03a1c000", 0xFFFF_F800_03A1_C000),  # WinDbg
        ("00000010`00000000", 1 << 36),
        ("10`00000000", 1 << 36),
        ("0xfffff800`03a1c000", 0xFFFF_F800_03A1_C000),
        ("ffff_8000_0000_0000", 0xFFFF_8000_0000_0000),
        ("0xffff_ffff_8500_0000", 0xFFFF_FFFF_8500_0000),
        (" ffffffff85000000\n", 0xFFFF_FFFF_8500_0000),
    ],
)
def test_what_has_one_meaning_is_read(text: str, value: int) -> None:
    assert read("it", text) == value


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("10", "it is 10: write 0x10, or 0xa if that is decimal"),
        ("67", "it is 67: write 0x67, or 0x43 if that is decimal"),
        ("1_000", "it is 1_000: write 0x1000, or 0x3e8 if that is decimal"),
        ("0b11", "it is 0b11: write 0x0b11, or 0x3 if that is binary"),
        ("18446603336221196288", "too long for hexadecimal: write 0xffff800000000000 if that is"),
        ("98446603336221196288", "which is no number of 64 bits"),
        ("0b" + 14 * "1", "write 0x0b11111111111111, or 0x3fff if that is binary"),
        ("0b" + 15 * "1", "too long for hexadecimal: write 0x7fff if that is binary"),
        ("0b" + 64 * "1", "too long for hexadecimal: write 0xffffffffffffffff if that is binary"),
        ("0b" + 65 * "1", "it has 67 digits, which is no number of 64 bits"),
    ],
)
def test_what_has_two_meanings_is_asked_about(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read("it", text)


@pytest.mark.parametrize(
    "text", ["", "x", "0x", "-1", "+1", "1 2", "0xg", "0n10", "1e-3", "`", "_1"]
)
def test_what_is_no_number_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"no number: write it like 0x1000"):
        read("it", text)


@pytest.mark.parametrize("text", ["1ffffffffffffffff", "0x10000000000000000", "f" * 5000])
def test_what_is_wider_than_64_bits_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="no number of 64 bits"):
        read("it", text)


def test_where_all_is_hexadecimal_nothing_is_asked() -> None:
    assert read("it", "10", bare=16) == 0x10
    assert read("it", "0b11", bare=16) == 0xB11


def test_what_is_counted_is_decimal() -> None:
    assert [read("it", text, bare=10) for text in ("39", "0x27", "010", "1_000")] == [
        *(39, 39, 10, 1000)
    ]
    for text in ("3f", "-1", "", "\u0663"):
        with pytest.raises(ValueError, match=r"it is .*, no number: write it like 12"):
            read("it", text, bare=10)


@pytest.mark.parametrize("form", ["016x", "#x", "#018x", "08x", "016X"])
def test_every_value_is_read_back_as_tools_print_it(form: str) -> None:
    """A value is never read as another: what is printed with fewer digits may be asked about."""
    source = random.Random(form)
    for _ in range(2000):
        value = source.getrandbits(source.randrange(1, 65))
        printed = format(value, form)
        try:
            found = read("it", printed)
        except ValueError as error:
            assert "if that is" in str(error) and form == "08x"
        else:
            assert found == value
