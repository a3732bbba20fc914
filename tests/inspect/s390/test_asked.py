"""What questions about tables ask of s390: of addresses, roots, words that make no sense."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.inspect import architecture
from harness.inspect.decode import read
from harness.inspect.snapshot import QuestionError
from harness.paging.address import Virtual
from harness.paging.bulk import End
from harness.paging.memory import BigEndianMemory
from harness.paging.s390.access import Access, Code, Fault, Kind, Reason, outcome
from harness.paging.s390.cpu import Cpu, Cr0, Mode
from tests.inspect.s390.spaces import CPU, MEMORY, memory

ASKED = architecture.of(CPU)
WIDTHS = {
    Mode.SEGMENT: 31,
    Mode.REGION_THIRD: 42,
    Mode.REGION_SECOND: 53,
    Mode.REGION_FIRST: 64,
}
"""How wide the addresses are that a table serves ("Virtual Address")."""


@pytest.mark.parametrize(("mode", "width"), WIDTHS.items())
def test_an_address_is_one_of_the_table_or_wider(mode: Mode, width: int) -> None:
    cpu = Cpu.in_mode(mode, 0)
    served, said = ASKED.canonical(cpu, (1 << width) - 1)
    assert served
    assert said == (f"bits 63:{width} are all 0" if width < 64 else said)
    assert ("region-first" in said) == (width == 64)
    for wide in [1 << bit for bit in range(width, 64)]:
        served, said = ASKED.canonical(cpu, wide)
        assert not served and f"bits 63:{width} are not all 0" in said
        assert ASKED.reason(cpu, Virtual(wide), End.NO_ROOT) is Reason.ASCE_TYPE
    ASKED.check_address(cpu, Virtual((1 << 64) - 1))
    with pytest.raises(QuestionError, match="it has 64 bits"):
        ASKED.check_address(cpu, Virtual(1 << 64))


def test_every_access_to_an_address_faults_by_the_end_of_its_walk() -> None:
    short = replace(CPU, asce=CPU.asce & ~3)
    for address, cpu, changed, end in (
        (512 << 31, short, {}, End.NO_ROOT),
        (0x3000, CPU, {}, End.ABSENT),
        (0, CPU, {"p0": 0x9800}, End.MALFORMED),
        (1 << 30, CPU, {}, End.OUTSIDE),
        (0, CPU, {"s0": MEMORY}, End.UNBACKED),
    ):
        found = outcome(cpu, memory(**changed), Virtual(address), Access(Kind.READ))
        assert isinstance(found, Fault)
        assert ASKED.reason(cpu, Virtual(address), end) is found.reason
    assert ASKED.reason(CPU, Virtual(0), End.LEAF) is None


def test_a_root_that_leads_nowhere_is_doubted() -> None:
    assert ASKED.doubt(CPU, memory()) is None
    for words, said in (
        ({"r0": 0x20}, "no entry of the root's table leads anywhere"),
        ({"r0": 0x20, "r1": 0x4008}, "no entry of the root's table leads anywhere"),
    ):
        assert said in (ASKED.doubt(CPU, memory(**words)) or "")
    beyond = replace(CPU, asce=CPU.asce | 1 << 20)
    said = ASKED.doubt(beyond, memory()) or ""
    assert said == (
        "ASCE 0x100007 belongs to this memory,"
        " though there is no memory where the root's table would be"
    )
    # Of entries that are not there nothing is asked: those of the first quarter are absent.
    short = replace(CPU, asce=CPU.asce & ~3)
    assert ASKED.doubt(short, memory(r0=0x20, r512=0x4004)) is not None
    assert ASKED.doubt(CPU, memory(r0=0x20, r512=0x4004)) is None


def test_text_is_read_with_the_highest_byte_first() -> None:
    word = int.from_bytes(b"/dev/sda")
    assert "'/dev/sda'" in (ASKED.pointer(CPU, Virtual(word)) or "")
    assert (ASKED.pointer(CPU, Virtual(0x10)) or "").startswith("a null pointer, with a member")
    assert ASKED.pointer(CPU, Virtual(0x1000)) is None
    for raw, level, likely in (
        (
            int.from_bytes(b"/dev/sdA"),
            2,
            ("the letters '/dev/sdA': text was written over the table",),
        ),
        (0x6B6B_6B6B_6B6B_6B6B, 0, None),
        (0x4008, 2, ()),
        (0x20, 1, ()),
        (0x9000, 0, ()),
    ):
        found = ASKED.likely(CPU, read(CPU, raw, level))
        assert found == likely if likely is not None else "POISON_FREE" in found[0]


def test_accesses_are_the_supervisors_unless_it_is_said() -> None:
    def told(*asked: object) -> list[tuple[Kind, bool]]:
        return [(one.kind, one.user) for one in ASKED.accesses(*asked)]  # type: ignore[arg-type]

    assert told(None, None, False) == [(kind, False) for kind in Kind]
    assert told("write", None, False) == [(Kind.WRITE, False)]
    assert told("fetch", True, False) == [(Kind.FETCH, True)]
    for wrong in (("jump", None, False), (None, None, True)):
        with pytest.raises(QuestionError):
            told(*wrong)


def test_which_accesses_a_page_denies_is_what_they_end_in() -> None:
    """Bits 54 and 55 of a page-table entry; low addresses are those to 511, and 4096 to 4607."""
    low = replace(CPU, cr0=CPU.cr0 | Cr0.LOW_ADDRESS_PROTECTION)
    held = memory(p0=0x9000, p1=0xA000)
    addresses = (0, 511, 512, 4096, 4607, 4608, 0x2000)
    for cpu in (low, CPU, replace(CPU, cr0=0), replace(CPU, iep=False)):
        for raw in (0x9000, 0x9200, 0x9100, 0x9300):
            for kind in Kind:
                access = Access(kind)
                granted = cpu.format.granted(raw, 0)
                for address in addresses:
                    for page in (0, 1, 2):
                        held.store(0x8000 + 8 * page, 8, raw)  # type: ignore[arg-type]
                    found = outcome(cpu, held, Virtual(address), access)
                    reason = found.reason if isinstance(found, Fault) else None
                    assert ASKED.denied(cpu, access, granted, Virtual(address)) is reason
                    assert reason is None or found.code is Code.PROTECTION  # type: ignore[union-attr]
                anywhere = outcome(cpu, held, Virtual(0x2000), access)
                wanted = anywhere.reason if isinstance(anywhere, Fault) else None
                assert ASKED.denied(cpu, access, granted, None) is wanted
                if isinstance(anywhere, Fault):
                    named = {Kind.WRITE: "write", Kind.FETCH: "execute"}[kind]
                    assert ASKED.withheld(access, anywhere) == named
                    assert not ASKED.of_address(anywhere)
    blocked = outcome(low, held, Virtual(0), Access(Kind.WRITE))
    assert isinstance(blocked, Fault) and ASKED.of_address(blocked)


@pytest.mark.parametrize("mode", Mode)
def test_a_mode_is_of_a_processor_with_every_facility(mode: Mode) -> None:
    cpu = ASKED.in_mode(mode.value, {})
    assert (cpu.mode, cpu.edat1, cpu.edat2, cpu.iep) == (mode, True, True, True)
    assert len(list(ASKED.assumed(cpu, {}, ()))) == 1


def test_memory_that_ends_within_the_roots_table_is_no_doubt() -> None:
    octets = np.frombuffer(memory().octets.tobytes()[:0x2000], np.uint8).copy()
    assert ASKED.doubt(CPU, BigEndianMemory(octets)) is None
