"""What single accesses come to, written from the manual's lists: program interruptions, the
translation-exception identification, low addresses, and how the program calls them."""

from __future__ import annotations

import pytest

from harness.paging.address import Virtual
from harness.paging.memory import BigEndianMemory
from harness.paging.s390 import Access, AddressSpace, Allowed, Cpu, Fault, Kind, Mode, outcome
from harness.paging.s390.access import Code, Reason

READ, WRITE, FETCH = Kind.READ, Kind.WRITE, Kind.FETCH
P, IEP, INVALID, PAGE_INVALID = 1 << 63 - 54, 1 << 63 - 55, 1 << 63 - 58, 1 << 63 - 53
PAGES = 0x4000


def memory(segment: int, page: int) -> BigEndianMemory:
    """A segment table, the first entry of which leads to a page table, with these bits in both."""
    made = BigEndianMemory(bytearray(0x5000))
    for address, word in (0, PAGES | segment), (PAGES + 8 * 5, 0x7_6543_0000 | page):
        made.octets[address : address + 8] = list(word.to_bytes(8, "big"))
    return made


def comes_to(cpu: Cpu, made: BigEndianMemory, address: int, access: Access) -> str:
    found = outcome(cpu, made, Virtual(address), access)
    if isinstance(found, Fault):
        teid = "none" if found.teid is None else f"{found.teid:#x}"
        return f"{found.code:#x} {teid} {found.level} {found.reason.name}"
    assert isinstance(found, Allowed)
    return f"reaches {found.physical:#x}{' and changes' if found.changes else ''}"


WIDE = 1 << 31
SPACES = (AddressSpace.PRIMARY, AddressSpace.SECONDARY, AddressSpace.HOME)


@pytest.mark.parametrize(
    ("segment", "page", "address", "kind", "text"),
    [
        (0, 0, 0x5678, READ, "reaches 0x765430678"),
        (0, 0, 0x5678, WRITE, "reaches 0x765430678 and changes"),
        (0, 0, 0x5678, FETCH, "reaches 0x765430678"),
        (0, P, 0x5678, READ, "reaches 0x765430678"),
        (0, P, 0x5678, WRITE, "0x4 0x5404 0 WRITE_DENIED"),
        (P, 0, 0x5678, WRITE, "0x4 0x5404 0 WRITE_DENIED"),
        (0, P, 0x5678, FETCH, "reaches 0x765430678"),
        (0, IEP, 0x5678, FETCH, "0x4 0x5884 0 EXECUTE_DENIED"),
        (0, IEP, 0x5678, WRITE, "reaches 0x765430678 and changes"),
        (0, PAGE_INVALID, 0x5678, READ, "0x11 0x5800 0 NOT_PRESENT"),
        (0, PAGE_INVALID, 0x5678, WRITE, "0x11 0x5400 0 NOT_PRESENT"),
        (INVALID, 0, 0x5678, READ, "0x10 0x5800 1 NOT_PRESENT"),
        (0, 0x800, 0x5678, READ, "0x12 none 0 RESERVED"),
        (4, 0, 0x5678, READ, "0x12 none 1 RESERVED"),
        (0x10_0000, 0, 0x5678, READ, "0x5 none 0 NO_MEMORY"),
        (0, 0, WIDE | 0x5678, READ, "0x38 0x80005800 None ASCE_TYPE"),
        (0, 0, WIDE // 2 | 0x678, FETCH, "0x10 0x40000800 1 OUTSIDE"),
        (0, 0, 0, WRITE, "0x4 0x480 None LOW_ADDRESS"),
        (0, 0, 511, WRITE, "0x4 0x480 None LOW_ADDRESS"),
        (0, 0, 4607, WRITE, "0x4 0x1480 None LOW_ADDRESS"),
    ],
)
@pytest.mark.parametrize("space", SPACES)
def test_an_access_comes_to_what_the_manual_says(
    segment: int, page: int, address: int, kind: Kind, text: str, space: AddressSpace
) -> None:
    cpu = Cpu.in_mode(Mode.SEGMENT, 0, quarters=2, iep=True, low_address_protection=True)
    number = {"PRIMARY": 0, "SECONDARY": 2, "HOME": 3}[space.name]  # bits 62-63 of a TEID
    words = text.split()
    if words[1].startswith("0x") and words[0] != "reaches":
        words[1] = hex(int(words[1], 16) | number)
    access = Access(kind, space=space)
    assert comes_to(cpu, memory(segment, page), address, access) == " ".join(words)


@pytest.mark.parametrize("address", [0, 511, 512, 4095, 4096, 4607, 4608, 1 << 20])
def test_only_stores_are_kept_from_low_addresses(address: int) -> None:
    low = address in (0, 511, 4096, 4607)
    made = memory(0, 0)
    made.octets[PAGES : PAGES + 16] = 0
    for protected in (False, True):
        cpu = Cpu.in_mode(Mode.SEGMENT, 0, low_address_protection=protected)
        for kind in Kind:
            found = outcome(cpu, made, Virtual(address), Access(kind))
            denied = isinstance(found, Fault) and found.reason is Reason.LOW_ADDRESS
            assert denied == (protected and low and kind is WRITE), (protected, kind)


@pytest.mark.parametrize(
    ("mode", "level", "code"),
    [
        (Mode.SEGMENT, 1, 0x10),
        (Mode.REGION_THIRD, 2, 0x3B),
        (Mode.REGION_SECOND, 3, 0x3A),
        (Mode.REGION_FIRST, 4, 0x39),
    ],
)
def test_what_the_first_table_lacks_is_reported_by_its_exception(
    mode: Mode, level: int, code: int
) -> None:
    made = BigEndianMemory(bytearray(0x4000))
    made.octets[7] = INVALID
    absent = outcome(Cpu.in_mode(mode, 0), made, Virtual(0x1000), Access(READ))
    assert absent == Fault(Code(code), 0x1800, level, Reason.NOT_PRESENT)
    part = Cpu.in_mode(mode, 0, quarters=3)
    beyond = Virtual(3 << mode.address_bits - 2)
    assert outcome(part, made, beyond, Access(READ)) == Fault(
        Code(code), beyond | 0x800, level, Reason.OUTSIDE
    )


def test_an_address_of_more_than_64_bits_is_refused() -> None:
    cpu = Cpu.in_mode(Mode.REGION_FIRST, 0)
    for address in (-1, 1 << 64):
        with pytest.raises(ValueError, match="it has 64 bits"):
            outcome(cpu, memory(0, 0), Virtual(address), Access(READ))
    last = outcome(cpu, BigEndianMemory(bytearray(8)), Virtual((1 << 64) - 1), Access(READ))
    assert last == Fault(Code.ADDRESSING, None, 4, Reason.NO_MEMORY)


def test_exceptions_and_accesses_are_called_as_in_the_manual() -> None:
    assert [code.called for code in Code] == [
        "protection exception",
        "addressing exception",
        "segment-translation exception",
        "page-translation exception",
        "translation-specification exception",
        "ASCE-type exception",
        "region-first-translation exception",
        "region-second-translation exception",
        "region-third-translation exception",
    ]
    home = Access(WRITE, True, AddressSpace.HOME)
    assert str(home) == "problem-state write in the home space"
    assert str(Access(READ)) == "supervisor-state read in the primary space"
