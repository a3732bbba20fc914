"""What each bit of each entry means, as the privileged specification has it (1.13: "Sv32", "Sv39",
"Sv48", "Sv57", "Virtual Address Translation Process", and the extensions Svnapot, Svpbmt and
Svrsw60t59b), bit by bit."""

from __future__ import annotations

import numpy as np
import pytest

from harness.paging import bulk
from harness.paging.address import Physical, Span, Virtual
from harness.paging.entry import Absent, Leaf, Malformed, Pointer
from harness.paging.format import Format
from harness.paging.memory import BufferMemory
from harness.paging.riscv.formats import RSW, sv
from harness.paging.table import Root, Table
from harness.paging.walk import walk
from tests.paging.tables import KIND, RESERVED, RIGHT, Entry, complaints

V, R, W, X, U, G, A, D = (1 << bit for bit in range(8))
HIGH = {(63, 63): RESERVED, (62, 61): RESERVED, (60, 54): RESERVED}
LEAF = {(4, 4): RIGHT, (0, 0): KIND}
READ_ONLY = {**LEAF, (3, 2): RIGHT, (1, 1): KIND}
"""Of a page with R alone: without R it is a pointer, or malformed."""

POINTS = {(7, 6): RESERVED, (4, 4): RESERVED, (3, 0): KIND}

ENTRIES = {
    "Sv32 page": Entry(sv(32), 0, V | R, Leaf, 1 << 12, {**READ_ONLY, (31, 10): 2}),
    "Sv32 pointer": Entry(sv(32), 1, V, Pointer, None, {**POINTS, (31, 10): 2}),
    "Sv32 megapage": Entry(
        *(sv(32), 1, V | R, Leaf, 1 << 22),
        {**READ_ONLY, (31, 20): 2, (19, 10): RESERVED},
    ),
    "Sv39 page": Entry(sv(39), 0, V | R, Leaf, 1 << 12, {**READ_ONLY, **HIGH, (53, 10): 2}),
    "Sv39 pointer": Entry(sv(39), 1, V, Pointer, None, {**POINTS, **HIGH, (53, 10): 2}),
    "Sv39 root pointer": Entry(sv(39), 2, V, Pointer, None, {**POINTS, **HIGH, (53, 10): 2}),
    "Sv39 megapage": Entry(
        *(sv(39), 1, V | R, Leaf, 1 << 21),
        {**READ_ONLY, **HIGH, (53, 19): 2, (18, 10): RESERVED},
    ),
    "Sv39 gigapage": Entry(
        *(sv(39), 2, V | R, Leaf, 1 << 30),
        {**READ_ONLY, **HIGH, (53, 28): 2, (27, 10): RESERVED},
    ),
    "Sv48 terapage": Entry(
        *(sv(48), 3, V | R, Leaf, 1 << 39),
        {**READ_ONLY, **HIGH, (53, 37): 2, (36, 10): RESERVED},
    ),
    "Sv57 petapage": Entry(
        *(sv(57), 4, V | R, Leaf, 1 << 48),
        {**READ_ONLY, **HIGH, (53, 46): 2, (45, 10): RESERVED},
    ),
    "page with Svpbmt": Entry(
        *(sv(48, svpbmt=True), 0, V | R, Leaf, 1 << 12),
        {**READ_ONLY, (63, 63): RESERVED, (60, 54): RESERVED, (53, 10): 2},
    ),
    "pointer with Svpbmt": Entry(
        *(sv(48, svpbmt=True), 3, V, Pointer, None),
        {**POINTS, **HIGH, (53, 10): 2},
    ),
    "page with Svrsw60t59b": Entry(
        *(sv(48, svrsw60t59b=True), 0, V | R, Leaf, 1 << 12),
        {**READ_ONLY, (63, 61): RESERVED, (58, 54): RESERVED, (53, 10): 2},
    ),
    "pointer with Svrsw60t59b": Entry(
        *(sv(48, svrsw60t59b=True), 1, V, Pointer, None),
        {**POINTS, (63, 61): RESERVED, (58, 54): RESERVED, (53, 10): 2},
    ),
    "page with Svnapot": Entry(
        *(sv(39, svnapot=True), 0, V | R, Leaf, 1 << 12),
        {**READ_ONLY, (63, 63): KIND, (62, 54): RESERVED, (53, 10): 2},
    ),
    "64K page": Entry(
        *(sv(39, svnapot=True), 0, 1 << 63 | 8 << 10 | V | R, Leaf, 1 << 16),
        {**READ_ONLY, (63, 63): KIND, (62, 54): RESERVED, (53, 14): 2, (13, 10): RESERVED},
    ),
    "megapage with Svnapot": Entry(
        *(sv(39, svnapot=True), 1, V | R, Leaf, 1 << 21),
        {**READ_ONLY, **HIGH, (53, 19): 2, (18, 10): RESERVED},
    ),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_bit_of_an_entry_means_what_the_manual_says(entry: str) -> None:
    assert not complaints(ENTRIES[entry])


@pytest.mark.parametrize("bits", [32, 39, 48, 57])
@pytest.mark.parametrize("user", [0, U])
def test_r_w_and_x_tell_pointers_pages_and_what_is_reserved(bits: int, user: int) -> None:
    """The encodings of the field X, W and R, of which 010 and 110 are reserved."""
    format = sv(bits)
    for number in range(len(format.levels)):
        for rights in range(0, 16, 2):
            raw, entry = V | rights | user, format.decode(V | rights | user, number)
            if rights in (W, W | X):
                assert entry == Malformed(R | W), hex(raw)
            elif rights == 0 and number and not user:
                assert isinstance(entry, Pointer), hex(raw)
            elif rights == 0:
                assert isinstance(entry, Malformed), hex(raw)
            else:
                assert isinstance(entry, Leaf), hex(raw)
                assert format.granted(raw, number) == rights | user


@pytest.mark.parametrize("bits", [32, 39, 48, 57])
def test_without_v_nothing_else_counts(bits: int) -> None:
    format = sv(bits)
    for number in range(len(format.levels)):
        for raw in (0, *(1 << bit for bit in range(1, 8 * format.entry_bytes))):
            assert format.decode(raw, number) == Absent()


def test_a_memory_type_is_one_of_three() -> None:
    format = sv(48, svpbmt=True)
    for number in range(4):
        for type in range(4):
            entry = format.decode(V | R | type << 61, number)
            assert entry == (
                Malformed(3 << 61) if type == 3 else Leaf(Physical(0), 4096 << 9 * number)
            )


def test_of_napot_sizes_there_is_one() -> None:
    format = sv(57, svnapot=True)
    for low in range(16):
        entry = format.decode(1 << 63 | (0x1230 | low) << 10 | V | R, 0)
        if low == 8:
            assert entry == Leaf(Physical(0x1230000), 1 << 16)
        else:
            assert isinstance(entry, Malformed)


def test_a_pointer_gives_no_rights_and_takes_none() -> None:
    format = sv(39)
    assert format.rights_of(format.granted(V, 2)) == ("read", "write", "execute", "user")
    memory = BufferMemory(bytearray(0x3000))
    root = Root(Table(format, Physical(0), 2), Span(0, (1 << 38) - 1))
    memory.store(Physical(0), 8, 0x1000 >> 2 | V)
    memory.store(Physical(0x1000), 8, 0x2000 >> 2 | V)
    memory.store(Physical(0x2008), 8, 0x5000 >> 2 | V | R | X)
    found = walk(memory, root, Virtual(0x1234))
    assert found.physical == 0x5234
    assert format.rights_of(found.granted) == ("read", "execute")


def test_the_sixteen_entries_of_a_64k_page_lead_to_all_of_it() -> None:
    format = sv(39, svnapot=True)
    memory = BufferMemory(
        np.full(512, 1 << 63 | (0x50000 >> 2) | 8 << 10 | V | R, np.uint64).view(np.uint8)
    )
    root = Root(Table(format, Physical(0), 0), Span(0, 0xFFFF))
    addresses = np.arange(0x123, 0x10000, 0x1000, dtype=np.uint64)
    found = bulk.walk(memory, [root], addresses).physical.tolist()
    assert found == [0x50000 + address for address in addresses.tolist()]
    assert found == [walk(memory, root, Virtual(one)).physical for one in addresses.tolist()]
    assert bulk.leaves(memory, [root]).physical.tolist() == [
        0x50000 + n * 0x1000 for n in range(16)
    ]


def test_tables_have_the_geometry_of_the_manual() -> None:
    def geometry(format: Format) -> list[tuple[int, int]]:
        return [(one.shift, one.entries) for one in format.levels]

    assert geometry(sv(32)) == [(12, 1024), (22, 1024)]
    assert geometry(sv(57)) == [(12, 512), (21, 512), (30, 512), (39, 512), (48, 512)]
    assert geometry(sv(48)) == geometry(sv(57))[:4] and geometry(sv(39)) == geometry(sv(57))[:3]
    assert sv(32).table_bytes(1) == sv(39).table_bytes(2) == 4096


def test_what_would_be_another_shape_or_is_reserved_is_not_encoded() -> None:
    format = sv(39)
    assert format.leaf(0x5000, 0, R | X) == 0x5000 >> 2 | V | R | X
    with pytest.raises(ValueError, match="with bits 0x0 a PTE of Sv39 is no leaf"):
        format.leaf(1 << 30, 2, 0)
    with pytest.raises(ValueError, match="bits 0x2 are not free in a PTE pointer"):
        format.pointer(0x1000, 1, R)
    with pytest.raises(ValueError, match="cannot have bits 0x4: W without R"):
        format.leaf(0x1000, 0, W)
    with pytest.raises(ValueError, match="cannot have bits 0x0: R=W=X=0 at level 0"):
        format.leaf(0x1000, 0, 0)
    with pytest.raises(ValueError, match="bits 0x40 are not free in a PTE pointer"):
        format.pointer(0x1000, 1, A)
    assert format.granting("read", "user") == R | U


def test_a_width_or_extension_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="32, 39, 48 or 57 bits, not 64"):
        sv(64)
    for extension in ("svnapot", "svpbmt", "svrsw60t59b"):
        with pytest.raises(ValueError, match="Sv32 have no bits for Svnapot"):
            sv(32, **{extension: True})


def test_what_is_reserved_for_supervisor_software_is_two_bits() -> None:
    """Bits 9:8 of a PTE ("Addressing and Memory Protection")."""
    assert RSW == 0x300
