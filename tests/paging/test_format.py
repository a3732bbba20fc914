"""What holds of every format: decode, encode and their refusals."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.paging.entry import Absent, Leaf, Malformed, Pointer
from harness.paging.format import Format, Level, Reserved, Shape
from harness.paging.x86 import formats
from tests.paging.machines import READERS, cpu_of
from tests.paging.rules import Machine
from tests.paging.toys import MIXED, SCATTERED

X86 = [cpu_of(machine).format for machine in READERS]
FORMATS = [MIXED, SCATTERED, *X86]
SLOTS = [(format, level) for format in FORMATS for level in range(len(format.levels))]


def named(value: object) -> str:
    return value.name.replace(" ", "-") if isinstance(value, Format) else str(value)


def every_slot(test: Callable[[Format, int], None]) -> Callable[[Format], None]:
    """A test for each format, made at each of its levels."""

    @pytest.mark.parametrize("format", FORMATS, ids=named)
    def made(format: Format) -> None:
        for level in range(len(format.levels)):
            test(format, level)

    return made


@every_slot
def test_zero_is_absent_at_every_level(format: Format, level: int) -> None:
    assert format.decode(0, level) == Absent()


@every_slot
def test_a_pointer_leads_one_level_down(format: Format, level: int) -> None:
    if level == 0:
        assert format.levels[0].pointer is None
        with pytest.raises(ValueError, match="has no pointer at level 0"):
            format.pointer(0, 0, 0)
        return
    entry = format.decode(format.pointer(0x3000, level, 0), level)
    assert isinstance(entry, Pointer)
    assert (entry.table.address, entry.table.level) == (0x3000, level - 1)
    assert entry.table.format is format


@every_slot
def test_a_leaf_holds_its_address_and_spans_what_its_level_does(format: Format, level: int) -> None:
    if level not in format.page_levels():
        with pytest.raises(ValueError, match=f"has no leaf at level {level}"):
            format.leaf(0, level, 0)
        return
    address = 3 << format.levels[level].shift
    leaf = Leaf(address, 1 << format.levels[level].shift)  # type: ignore[arg-type]
    assert format.decode(format.leaf(address, level, 0), level) == leaf


@every_slot
def test_every_address_bit_is_held_exactly_once(format: Format, level: int) -> None:
    here = format.levels[level]
    for shape in here.shapes:
        held = [field.mask << field.shift for field in shape.address]
        assert sum(held) == held[0] | (held[-1] if len(held) > 1 else 0)
        sources = [field.mask for field in shape.address]
        assert len({bit for mask in sources for bit in range(64) if mask >> bit & 1}) == sum(
            mask.bit_count() for mask in sources
        )
        for bit in range(8 * format.entry_bytes):
            assert shape.address_of(1 << bit).bit_count() == any(m >> bit & 1 for m in sources)


@every_slot
def test_every_address_that_an_entry_can_hold_comes_back_bit_by_bit(
    format: Format, level: int
) -> None:
    here = format.levels[level]
    for make, shape in ((format.pointer, here.pointer), (format.leaf, here.leaf)):
        if shape is None:
            continue
        for field in shape.address:
            for bit in range(64):
                address = 1 << bit
                if field.mask << field.shift & address:
                    entry = format.decode(make(address, level, 0), level)
                    assert not isinstance(entry, Absent | Malformed)
                    got = entry.table if isinstance(entry, Pointer) else entry
                    assert got.address == address


@pytest.mark.parametrize(
    ("raw", "address"),
    [
        (0x0000_0081, 0),
        (0x0040_0081, 0x40_0000),
        (0xFFC0_0081, 0xFFC0_0000),
        (0x0000_2081, 1 << 32),
        (0x0010_0081, 1 << 39),
        (0x101F_F0E3 & ~0x1000 | 0x1E000, 0xFF_1000_0000),
    ],
)
def test_an_address_scattered_over_two_fields_is_put_together(raw: int, address: int) -> None:
    assert SCATTERED.decode(raw, 1) == Leaf(address, 1 << 22)  # type: ignore[arg-type]


def test_a_shape_says_what_it_cannot_hold() -> None:
    with pytest.raises(ValueError, match="can hold physical address 0x10000000000"):
        SCATTERED.leaf(1 << 40, 1, 0)
    with pytest.raises(ValueError, match="can hold physical address 0x1000"):
        SCATTERED.leaf(0x1000, 1, 0)
    with pytest.raises(ValueError, match="can hold physical address 0x100000000"):
        SCATTERED.leaf(1 << 32, 0, 0)


def test_bits_that_are_taken_or_reserved_are_refused_by_number() -> None:
    wide = formats.long_mode(4, 40, False, True)
    with pytest.raises(ValueError, match="are not free in a PTE leaf"):
        wide.leaf(0, 0, 1 << 64)
    for bits in (1, 1 << 12, 1 << 40, 1 << 63):
        with pytest.raises(ValueError, match=f"bits {bits:#x} are not free in a PTE leaf"):
            wide.leaf(0, 0, bits)
    with pytest.raises(ValueError, match="bits 0x80 are not free in a PDE pointer"):
        wide.pointer(0, 1, 1 << 7)
    with pytest.raises(ValueError, match="bits 0x80 are not free in a PML4E pointer"):
        wide.pointer(0, 3, 1 << 7)


@given(st.integers(0, (1 << 64) - 1), st.sampled_from(SLOTS))
def test_malformed_holds_exactly_the_bits_that_its_parts_name(
    raw: int, slot: tuple[Format, int]
) -> None:
    format, level = slot
    raw |= 1
    raw = raw & (1 << 8 * format.entry_bytes) - 1
    entry, parts = format.decode(raw, level), format.malformed(raw, level)
    if isinstance(entry, Malformed):
        assert sum(part.mask for part in parts) == entry.bits
        assert all(part.mask and part.reason for part in parts)
        clean = format.decode(raw & ~entry.bits, level)
        assert not isinstance(clean, Malformed)
    elif not isinstance(entry, Absent):
        assert parts == []


def test_mixed_tells_pointers_leaves_and_absence_apart() -> None:
    assert isinstance(MIXED.decode(0b110, 1), Pointer)
    assert MIXED.decode(0b010, 1) == Leaf(0, 2048)  # type: ignore[arg-type]
    assert MIXED.decode(0b110, 0) == Leaf(0, 256)  # type: ignore[arg-type]
    for raw in (0b00, 0b01, 0b11, 0b111, 0xFFFF00):
        assert MIXED.decode(raw, 1) == Absent()
    assert MIXED.decode(0b010 | 0x300 | 1 << 41, 1) == Malformed(0x300 | 1 << 41)
    assert MIXED.decode(0b110 | 0x300 | 1 << 41, 1) == Malformed(1 << 41)


@pytest.mark.parametrize("format", FORMATS, ids=named)
def test_granting_and_rights_of_are_inverse_for_every_subset(format: Format) -> None:
    names = list(format.rights)
    for choice in product((False, True), repeat=len(names)):
        chosen = tuple(name for name, taken in zip(names, choice, strict=True) if taken)
        bits = format.granting(*chosen)
        assert format.rights_of(format.granted(bits, 0)) == chosen


def test_a_denying_bit_takes_its_right_away() -> None:
    x86 = cpu_of(Machine()).format
    assert x86.granting("write", "user", "execute") == 6
    assert x86.granting("write") == 2 | 1 << 63
    assert x86.rights_of(x86.granted(0, 0)) == ("execute",)
    assert x86.rights_of(x86.granted(7 | 1 << 63, 0)) == ("write", "user")
    assert x86.granted((1 << 64) - 1, 0) == 0b110, "nothing but rights"
    assert x86.granted(0, 0) == 1 << 63


def test_an_unknown_right_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ValueError, match="mixed has no right 'exec'; it has write, open"):
        MIXED.granting("exec")


def test_a_reader_that_checks_no_reserved_bits_sees_none() -> None:
    strict = formats.long_mode(5, 40, False, False)
    lax = strict.without_reserved()
    for level in range(5):
        assert not isinstance(lax.decode(0xFFFF_FFFF_FFFF_FFFF, level), Malformed)
        assert lax.decode(0x8000_0000_0000_1001, level) != Malformed(1 << 63)
        assert isinstance(strict.decode(0x8000_0000_0000_1001, level), Malformed)


def test_pointers_and_leaves_may_be_read_in_one_shape() -> None:
    low, middle, top = MIXED.levels
    pointer, leaf = middle.shapes
    alike = replace(pointer, when=leaf.when, points=False)
    same = replace(MIXED, levels=(low, replace(middle, shapes=(pointer, alike)), top))
    assert isinstance(same.decode(same.pointer(0x800, 1, 0), 1), Pointer)
    assert isinstance(same.decode(same.leaf(0x800, 1, 0), 1), Leaf)


def test_a_format_goes_by_its_name_and_what_is_reserved_by_its_bits_and_why() -> None:
    assert repr(MIXED) == "<mixed>"
    (part,) = MIXED.malformed(0b110 | 1 << 41, 0)
    assert str(part) == "0x20000000000 beyond 40 bits"


@every_slot
def test_no_mask_is_wider_than_an_entry(format: Format, level: int) -> None:
    here, width = format.levels[level], 8 * format.entry_bytes
    masks = [field.mask for shape in here.shapes for field in shape.address]
    masks += [part.mask for shape in here.shapes for part in shape.reserved]
    for mask in (*masks, here.telling, here.presence, *here.bits.values()):
        assert 0 <= mask < 1 << width


@every_slot
def test_no_bit_of_an_address_is_reserved(format: Format, level: int) -> None:
    for shape in format.levels[level].shapes:
        assert not any(field.mask & shape.reserved_mask for field in shape.address)


def test_what_tells_pages_from_tables_is_free_where_there_are_no_pages() -> None:
    assert MIXED.pointer(0x800, 1, 0) == 0x806 and MIXED.pointer(0x800, 2, 0) == 0x802
    # PS of 32-bit paging with CR4.PSE=0 is ignored (SDM 4.3).
    assert formats.paging32(40, False, False).pointer(0x1000, 1, 0x80) == 0x1081
    with pytest.raises(ValueError, match="bits 0x80 are not free in a PDE pointer"):
        formats.paging32(40, True, False).pointer(0x1000, 1, 0x80)


@pytest.mark.parametrize("maxphyaddr", [32, 40, 52])
def test_what_is_reserved_in_a_pdpte_is_what_the_manual_says(maxphyaddr: int) -> None:
    """SDM volume 3A, table 4-8: bits 2:1, 8:5 and 63:M."""
    low, middle, *high = [part.mask for part in formats.pdpte(maxphyaddr).reserved]
    assert (low, middle) == (0b110, 0b1_1110_0000)
    assert sum(high) == (1 << 64) - (1 << maxphyaddr)
    assert high[-1] == (1 << 64) - (1 << 52)  # whatever the processor has


def test_a_format_whose_levels_do_not_fit_together_is_refused() -> None:
    low, middle, top = MIXED.levels
    with pytest.raises(ValueError, match="level 0 cannot hold pointers"):
        replace(MIXED, levels=(middle, top))
    with pytest.raises(ValueError, match="ML2 does not span one ML0 table"):
        replace(MIXED, levels=(low, top))
    with pytest.raises(ValueError, match="ML1 cannot point"):
        leaf = middle.changed(lambda shape: None if shape.points else shape)
        replace(MIXED, levels=(low, leaf, top))
    with pytest.raises(ValueError, match="level number has no room"):
        replace(SCATTERED, levels=tuple(_stack(5)))
    assert len(replace(SCATTERED, levels=tuple(_stack(4))).levels) == 4


def _stack(count: int) -> list[Level]:
    page, (pointer, _) = SCATTERED.levels[0].shapes, SCATTERED.levels[1].shapes
    low = replace(SCATTERED.levels[0], index_bits=2)
    return [
        replace(low, shift=12 + 2 * number, shapes=(pointer,) if number else page)
        for number in range(count)
    ]


@pytest.mark.parametrize("format", FORMATS, ids=named)
def test_the_levels_tile_the_address(format: Format) -> None:
    for bit in range(64):
        users = [n for n, here in enumerate(format.levels) if here.index(1 << bit)]
        first, top = format.levels[0], format.levels[-1]
        translated = first.shift <= bit < top.shift + top.index_bits
        assert len(users) == translated


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (
            lambda shape: replace(shape, when=MIXED.levels[0].absent[0]),
            "a shape that is absent too",
        ),
        (lambda shape: replace(shape, reserved=(Reserved(1, ""),)), "reserves bits that tell"),
        (lambda shape: None, "has no shape"),
        (lambda shape: replace(shape, points=True), "level 0 cannot hold pointers"),
        (lambda shape: replace(shape, size=13), "has no page as large as its slot"),
    ],
)
def test_shapes_that_contradict_each_other_are_no_format(
    change: Callable[[Shape], Shape | None], wrong: str
) -> None:
    bottom, *above = MIXED.levels
    with pytest.raises(ValueError, match=wrong):
        replace(MIXED, levels=(bottom.changed(change), *above))
