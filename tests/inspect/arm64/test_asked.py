"""What questions about tables are told of arm64."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.inspect.arm64.asked import ASKED
from harness.inspect.arm64.decode import GROUP
from harness.inspect.expect import expectations, unmet
from harness.inspect.snapshot import QuestionError
from harness.inspect.sources import layout
from harness.paging import bulk
from harness.paging.address import Span, Virtual
from harness.paging.arm64.access import Access, Allowed, Fault, Kind, Reason, outcome
from harness.paging.arm64.bulk import REASONS
from harness.paging.arm64.cpu import Cpu, Half
from harness.paging.arm64.formats import GRANULES
from tests.inspect.arm64.test_fault import ACCESSES, states, tables, ways

CPU = Cpu.of(Half("4K", 39, 0), Half("64K", 52, 0), output_bits=52)


def test_tables_have_one_to_five_levels_and_pages_of_4k_at_least() -> None:
    assert ASKED.levels == {1, 2, 3, 4, 5} and ASKED.smallest_page == 4096


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (0x18, "a null pointer, with a member's offset of 0x18"),
        ((1 << 64) - 14, "an error code in place of a pointer, -14"),
        # KASAN_SHADOW_OFFSET of arm64 with addresses of 48 bits (arch/arm64/Makefile)
        (0xDFFF_8000_0000_0000, "the shadow that KASAN keeps of 0x0: a null pointer"),
        (0xDFFF_8000_0000_0002, "the shadow that KASAN keeps of 0x10: a null pointer"),
        (0x2068_7461_7020_6F6E, "the letters 'no path ': text was written over a pointer"),
    ],
)
def test_pointers_that_mean_something_are_of_64_bits(address: int, said: str) -> None:
    assert ASKED.pointer(CPU, Virtual(address)) == said


def test_an_address_has_64_bits() -> None:
    ASKED.check_address(CPU, Virtual((1 << 64) - 1))
    with pytest.raises(QuestionError, match="no address 0x10000000000000000 of 64 bits"):
        ASKED.check_address(CPU, Virtual(1 << 64))


def test_contiguous_groups_are_the_manual_s() -> None:
    """By granule and the manual's level: "The Contiguous bit"."""
    manual = {
        **{("4K", 1): 16, ("4K", 2): 16, ("4K", 3): 16},
        **{("16K", 2): 32, ("16K", 3): 128},
        **{("64K", 2): 32, ("64K", 3): 32},
    }
    found = {(GRANULES[name].page, 3 - level): count for (name, level), count in manual.items()}
    assert found == GROUP


def test_each_half_has_the_addresses_of_its_size() -> None:
    low, high = Span.of(0, 1 << 39), Span.of((1 << 64) - (1 << 52), 1 << 52)
    assert list(ASKED.addresses(CPU)) == [low, high]
    assert list(ASKED.addresses(Cpu.of(CPU.low, None))) == [low]
    assert list(ASKED.addresses(Cpu.of(None, CPU.high, output_bits=52))) == [high]


@pytest.mark.parametrize(
    ("address", "canonical", "said"),
    [
        (0x7F_FFFF_FFFF, True, "bit 55 is 0, the lower half, of 39 bits, and bits 63:39 equal it"),
        (0x80_0000_0000, False, "the lower half, of 39 bits, and bit 39 differs from it"),
        (1 << 63, False, "bit 55 is 0, the lower half, of 39 bits, and bit 63 differs from it"),
        (0xFFF0 << 48, True, "bit 55 is 1, the upper half, of 52 bits, and bits 63:52 equal it"),
        (0xFFE0 << 48, False, "the upper half, of 52 bits, and bit 52 differs from it"),
        (0x0080 << 48, False, "the upper half, of 52 bits, and bit 63 differs from it"),
    ],
)
def test_the_bits_above_those_of_a_half_are_all_bit_55(
    address: int, canonical: bool, said: str
) -> None:
    found, why = ASKED.canonical(CPU, address)
    assert found is canonical and why.endswith(said)


def test_the_part_of_an_address_is_that_with_its_half() -> None:
    low, high = CPU.parts
    assert (low.high, high.low) == (None, None)
    for address, part in ((0, low), (1 << 54, low), (1 << 55, high), ((1 << 64) - 1, high)):
        assert ASKED.part(CPU, address) == part
    alone = Cpu.of(CPU.low, None)
    assert ASKED.part(alone, 1 << 55) == alone


@pytest.mark.parametrize(("tbi", "tbid"), [(False, False), (True, False), (True, True)])
def test_a_state_for_fetches_has_tags_where_they_are_none_of_code(tbi: bool, tbid: bool) -> None:
    for high in (False, True):
        tagged, plain = Half("4K", 39, 0, tbi=tbi, tbid=tbid), Half("4K", 39, 0, tbi=True)
        cpu = Cpu.of(*((plain, tagged) if high else (tagged, plain)))
        for kind in Kind:
            used = ASKED.using(cpu, Access(kind, el0=False))
            clear = 1 << (38 if high else 37) if kind is Kind.FETCH and tbid and tbi else 0
            assert used.tcr == cpu.tcr & ~clear


@pytest.mark.parametrize(
    ("reason", "el0", "right"),
    [
        (Reason.EXECUTE_DENIED, True, "user execute"),
        (Reason.EXECUTE_DENIED, False, "supervisor execute"),
        (Reason.READ_DENIED, True, "user"),
        (Reason.READ_DENIED, False, "user"),
        (Reason.WRITE_DENIED, True, "write"),
        (Reason.WRITE_DENIED, False, "write"),
        *((reason, False, None) for reason in (Reason.PAN, Reason.WXN, Reason.INVALID)),
    ],
)
def test_the_right_that_is_withheld_is_named(reason: Reason, el0: bool, right: str | None) -> None:
    fault: Any = SimpleNamespace(reason=reason)
    assert ASKED.withheld(Access(Kind.READ, el0), fault) == right


def test_what_is_about_the_address_is_no_entry_s() -> None:
    of = {reason for reason in Reason if ASKED.of_address(SimpleNamespace(reason=reason))}
    assert of == {
        *(Reason.UNALIGNED, Reason.OUT_OF_RANGE, Reason.EL0_KEPT_OUT),
        *(Reason.HALF_OFF, Reason.ROOT_SIZE),
    }


def test_a_pointer_to_data_is_asked_about_without_its_tag() -> None:
    cpu = Cpu.of(Half("4K", 39, 0, tbi=True, tbid=True), Half("4K", 39, 0))
    assert ASKED.pointed(cpu, Virtual(0x5A00_0000_0000_1234)) == 0x1234
    assert ASKED.pointed(cpu, Virtual(0x5A80 << 48 | 0x1234)) == 0x5A80 << 48 | 0x1234


@pytest.mark.parametrize("mair", [(1 << 64) - 1, 0], ids=["Normal", "Device"])
def test_all_rows_are_judged_as_one_access_is(mair: int) -> None:
    seen = set[bool]()
    for plain, address in states():
        cpu = replace(plain, mair=mair)
        for raws in ways(cpu, 2):
            memory = tables(cpu, address, *raws)
            walks = bulk.walk(memory, cpu.roots, np.array([address], np.uint64))
            for usual in ACCESSES:
                for aligned in (True,) if usual.kind is Kind.FETCH else (True, False):
                    access = replace(usual, aligned=aligned)
                    pointer = Virtual(address if aligned else address | 1)
                    answer = outcome(cpu, memory, pointer, access)
                    [allowed], _, [reason] = ASKED.judged(cpu, walks, access)
                    assert allowed == isinstance(answer, Allowed), (cpu, raws, access)
                    told = REASONS[reason]
                    assert told == (answer.reason if isinstance(answer, Fault) else None)
                    seen.add(told is Reason.ALIGNMENT)
    assert seen == ({False} if mair else {False, True})


@pytest.mark.parametrize("e0pd", [False, True])
def test_why_there_is_no_walk_is_said_of_whoever_asks(e0pd: bool) -> None:
    """Of EL1, too, so that it is not for E0PDx."""
    low, beyond = Half("4K", 39, 0, e0pd=e0pd), Half("4K", 39, 1 << 40, e0pd=e0pd)
    cpu = Cpu.of(low, beyond, output_bits=36)
    high = Virtual((1 << 64) - (1 << 39))
    for state, address, reason in (
        (cpu, high, Reason.ROOT_SIZE),
        (cpu, Virtual(1 << 39), Reason.OUT_OF_RANGE),
        (Cpu.of(low, None), high, Reason.HALF_OFF),
        (cpu, Virtual(0), None),
    ):
        assert ASKED.reason(state, address, bulk.End.NO_ROOT) is reason
    for end, why in (
        (bulk.End.MALFORMED, Reason.ADDRESS_SIZE),
        (bulk.End.ABSENT, Reason.INVALID),
        (bulk.End.UNBACKED, Reason.NO_MEMORY),
        (bulk.End.LEAF, None),
    ):
        assert ASKED.reason(cpu, Virtual(0), end) is why


def test_what_is_expected_of_one_half_is_not_asked_of_the_other() -> None:
    made = layout.snapshot("arm64/smallest", 4, {})
    high, page = 0xFFFF_0000_0000_0000, {"physical": 0x4300_0000}
    for low, other, places in ((page, None, []), (None, None, [0x40_0000]), (page, page, [high])):
        found = unmet(made, expectations({0x40_0000: low, high: other}, False, "arm64"))
        assert [one.address for one in found] == places
