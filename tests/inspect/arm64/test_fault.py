"""Why accesses fault on arm64, that each remedy helps and needs all of its bits, and that aborts
that were seen are recognised."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from harness.inspect import architecture
from harness.inspect.arm64.fault import compare, seen, status_text
from harness.inspect.arm64.remedy import remedies
from harness.inspect.fault import explain, explain_all
from harness.inspect.overlay import Overlay
from harness.inspect.remedy import Remedy
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.paging.address import Virtual
from harness.paging.arm64.access import Access, Allowed, Fault, Kind, Reason, outcome
from harness.paging.arm64.cpu import Cpu, Features, Half, Sctlr
from harness.paging.memory import BufferMemory
from harness.report.fault import explanation_lines, remedy_lines

TABLE = 0x10000
LOW, HIGH = Virtual(0x40_5123), Virtual(0xFFFF_FF80_0040_5123)
ACCESSES = [Access(kind, el0) for kind in Kind for el0 in (False, True)]
LEAF = 0x8000_0000 | 1 << 10 | 3
"""A page of EL1's that it may write and both may execute: AF set, and nothing else."""

GOOD_TABLE = 3


def tables(cpu: Cpu, address: int, *raws: int) -> BufferMemory:
    """Tables 64K apart from TABLE on, each with one of the descriptors on the way of an address;
    those that are left out are as they should be."""
    part = architecture.of(cpu).part(cpu, address)
    format = part.format
    octets = np.zeros(TABLE * (len(format.levels) + 2), np.uint8)
    words = octets.view("<u8")
    raws = (*raws, *[-1] * (len(format.levels) - len(raws)))
    for number, level in enumerate(reversed(range(len(format.levels)))):
        table = TABLE * (number + 1)
        raw = raws[number]
        if raw < 0:
            raw = table + TABLE | GOOD_TABLE if level else LEAF
        words[table // 8 + format.levels[level].index(address)] = raw
    return BufferMemory(octets)


def states() -> Iterator[tuple[Cpu, Virtual]]:
    """Every combination of five settings, each of one granule and half in turn."""
    granules = (("4K", 39), ("16K", 36), ("64K", 42))
    for flags in range(32):
        granule, bits = granules[flags % 3]
        address = HIGH if flags & 1 else LOW
        half = Half(granule, bits, TABLE, hpd=bool(flags & 2))
        cpu = Cpu.of(
            None if flags & 1 else half,
            half if flags & 1 else None,
            output_bits=36,
            ha=bool(flags & 4),
            hd=bool(flags & 4),
            wxn=bool(flags & 8),
            pan=bool(flags & 16),
            epan=bool(flags & 16) and bool(flags & 2),
        )
        yield cpu, Virtual(address if granule == "4K" or flags & 1 == 0 else 2**64 - 0x1000)


def ways(cpu: Cpu, count: int) -> Iterator[tuple[int, ...]]:
    """Descriptors on the way of which the last is of any kind."""
    source, levels = random.Random(f"{cpu} {count}"), len(cpu.format.levels)
    for _ in range(count):
        depth = source.randrange(levels)
        raw = source.getrandbits(12) | 0x8000_0000 | source.getrandbits(5) << 50
        raw |= source.choice((3, 3, 3, 1, 0)) | (source.random() < 0.2) << 36
        if source.random() < 0.5 and depth < levels - 1:
            raw = TABLE * (depth + 2) | 3 | source.getrandbits(5) << 59
        good = [TABLE * (number + 2) | GOOD_TABLE for number in range(depth)]
        if good and source.random() < 0.4:
            good[0] |= source.getrandbits(4) << 59
        yield (*good, raw)


def applied(cpu: Cpu, memory: BufferMemory, one: Remedy) -> tuple[Cpu, Overlay]:
    words: dict[int, int] = {
        slot.address: change.new for change in one.entries for slot in change.slots
    }
    return one.applied_to(cpu), Overlay(memory, words)


def lessened(memory: BufferMemory, one: Remedy) -> Iterator[Remedy]:
    """The remedy without one of its bits."""
    for number, change in enumerate(one.entries):
        for bit in range(64):
            if (change.old ^ change.new) >> bit & 1:
                entries = list(one.entries)
                entries[number] = replace(change, new=change.new ^ 1 << bit)
                yield replace(one, entries=tuple(entries))
    for number, setting in enumerate(one.settings):
        settings = [*one.settings]
        settings[number] = replace(setting, new=setting.old)
        yield replace(one, settings=tuple(settings))


def test_every_remedy_helps_and_needs_all_of_its_bits() -> None:
    tried = set[Reason]()
    for cpu, address in states():
        for raws in ways(cpu, 8):
            memory = tables(cpu, address, *raws)
            for access in ACCESSES:
                answer = outcome(cpu, memory, address, access)
                if isinstance(answer, Allowed):
                    continue
                for one in remedies(cpu, memory, address, access):
                    if one.missing is not None:
                        continue
                    after = applied(cpu, memory, one)
                    there = outcome(*after, address, access)
                    assert isinstance(there, Allowed), (cpu, raws, access, one)
                    assert there.physical == one.reaches
                    for less in lessened(memory, one):
                        changed = outcome(*applied(cpu, memory, less), address, access)
                        assert isinstance(changed, Fault), (cpu, raws, access, less)
                    tried.add(answer.reason)
    assert tried >= {
        *(Reason.ADDRESS_SIZE, Reason.ACCESS_FLAG, Reason.READ_DENIED, Reason.WRITE_DENIED),
        *(Reason.PAN, Reason.EXECUTE_DENIED, Reason.EL0_WRITABLE, Reason.WXN),
    }


def test_what_is_not_aligned_passes_once_a_is_clear_and_nothing_else_denies_it() -> None:
    told = set[str]()
    for plain, address in states():
        cpu, odd = replace(plain, sctlr=plain.sctlr | Sctlr.A), Virtual(address | 1)
        for raws in ways(cpu, 2):
            memory = tables(cpu, address, *raws)
            for usual in (one for one in ACCESSES if one.kind is not Kind.FETCH):
                access = replace(usual, aligned=False)
                answer = outcome(cpu, memory, odd, access)
                assert isinstance(answer, Fault) and answer.reason is Reason.UNALIGNED
                found = explain(Snapshot("made", cpu, memory, None), odd, access)
                lines = [" ".join(one.split()) for one in explanation_lines(cpu, found)]
                for one in found.remedies:
                    if one.missing is None:  # whose entries are made up
                        assert isinstance(outcome(*applied(cpu, memory, one), odd, access), Allowed)
                    assert not one.applied_to(cpu).aligns
                    told.update(setting.name for setting in one.settings)
                assert not any(one.startswith("because") for one in lines)
                none = any(one.startswith("change none of the tables: with") for one in lines)
                assert none == (not found.remedies)
    assert told >= {"SCTLR_EL1.A", "SCTLR_EL1.A EPAN"}


def test_there_is_a_remedy_for_what_entries_deny() -> None:
    """All but what is about the address, or about memory that the root does not lead to."""
    for cpu, address in states():
        for raws in ways(cpu, 2):
            memory = tables(cpu, address, *raws)
            for access in ACCESSES:
                answer = outcome(cpu, memory, address, access)
                if isinstance(answer, Fault) and answer.reason is not Reason.NO_MEMORY:
                    assert remedies(cpu, memory, address, access), (cpu, raws, access, answer)


def test_missing_entries_are_made_so_that_the_access_passes() -> None:
    for cpu, address in states():
        memory = tables(cpu, address, 0)
        for access in ACCESSES:
            (one,) = remedies(cpu, memory, address, access)
            assert one.missing is not None and one.missing.slot is not None
            *above, page = one.missing.entries
            assert page.page and page.bits & 3 == 3
            assert all(not entry.page and entry.bits & 3 == 3 for entry in above)
            words, place = dict[int, int](), one.missing.slot
            for number, entry in enumerate(above):
                table = 0x4000_0000 + TABLE * number
                words[place.address] = entry.bits | table
                format = place.table.format
                below = place.table.__class__(format, table, place.level - 1)  # type: ignore[arg-type]
                place = below.slot_for(address)
            words[place.address] = page.bits | 0x8000_0000
            there = outcome(cpu, Overlay(memory, words), address, access)
            assert isinstance(there, Allowed), (cpu, access)


def test_a_new_page_is_of_normal_memory() -> None:
    """Whichever of the eight types of MAIR_EL1 is the first such."""
    for index in range(8):
        mair = 0xFF << 8 * index | 0x0404_0404_0404_0404 & (1 << 8 * index) - 1
        cpu = replace(Cpu.of(Half("4K", 39, TABLE), None), mair=mair)
        for access in ACCESSES:
            (one,) = remedies(cpu, tables(cpu, LOW, 0), LOW, access)
            assert one.missing is not None
            assert one.missing.entries[-1].bits >> 2 & 7 == index
            assert one.missing.entries[-1].bits >> 8 & 3 == 3  # SH: inner shareable


@pytest.mark.parametrize(
    ("raw", "changed"), [(LEAF, 1 << 54), (LEAF | 1 << 6 | 1 << 54, 1 << 6)], ids=["EPAN", "PAN"]
)
def test_what_pan_keeps_away_is_taken_from_el0(raw: int, changed: int) -> None:
    """AP[1] of what EL0 reaches; UXN, by EPAN, of what it can only execute."""
    cpu = Cpu.of(Half("4K", 39, TABLE), None, pan=True, epan=True)
    read = Access(Kind.READ, el0=False)
    found = remedies(cpu, tables(cpu, LOW, -1, -1, raw), LOW, read)
    entries = [[change.old ^ change.new for change in one.entries] for one in found if one.entries]
    assert entries == [[changed]]
    settings = [[setting.name for setting in one.settings] for one in found if one.settings]
    assert settings == [["PSTATE.PAN"], ["SCTLR_EL1.EPAN"]][: 1 + (raw == LEAF)]


def test_a_new_page_of_52_bits_has_no_bits_of_another_s_address() -> None:
    """With TCR_EL1.DS=1 bits 9:8, which are SH, hold bits 51:50 of it."""
    cpu = Cpu.of(Half("4K", 52, TABLE), None, output_bits=52, ds=True)
    (one,) = remedies(cpu, tables(cpu, LOW, 0), LOW, Access(Kind.READ, el0=False))
    assert one.missing is not None and not one.missing.entries[-1].bits >> 8 & 3


@pytest.mark.parametrize("hafdbs", [0, 1, 2])
def test_the_access_flag_is_set_by_software_or_by_a_processor_that_can(hafdbs: int) -> None:
    cpu = Cpu.of(Half("4K", 39, TABLE), None, features=Features(hafdbs=hafdbs))
    first, *others = remedies(cpu, tables(cpu, LOW, -1, -1, LEAF & ~(1 << 10)), LOW, ACCESSES[0])
    assert [change.old ^ change.new for change in first.entries] == [1 << 10]
    assert [(s.name, s.new ^ cpu.tcr) for one in others for s in one.settings] == (
        [("TCR_EL1.HA", 1 << 39)] if hafdbs else []
    )


@pytest.mark.parametrize("keeps", [False, True])
def test_a_page_is_made_read_only_by_the_bits_that_make_it_so(keeps: bool) -> None:
    """Where hardware keeps the dirty state, a page with DBM=1 is writable whatever AP[2] says."""
    cpu = Cpu.of(Half("4K", 39, TABLE), None, wxn=True, ha=keeps, hd=keeps)
    memory = tables(cpu, LOW, -1, -1, LEAF | 1 << 51)
    first, *_ = remedies(cpu, memory, LOW, Access(Kind.FETCH, el0=False))
    assert [change.old ^ change.new for change in first.entries] == [
        1 << 7 | (1 << 51 if keeps else 0)
    ]


def test_a_tag_counts_where_the_processor_has_it_count() -> None:
    """With TBI0=1 and TBID0=1 in fetches alone: there is no remedy then but the address."""
    cpu = Cpu.of(Half("4K", 39, TABLE, tbi=True, tbid=True), None)
    memory = tables(cpu, LOW, 0)
    for access in ACCESSES:
        plain = remedies(cpu, memory, LOW, access)
        tagged = remedies(cpu, memory, Virtual(LOW | 0x5A << 56), access)
        assert plain and tagged == (() if access.kind is Kind.FETCH else plain)


def test_a_missing_page_of_a_table_of_one_level_is_made() -> None:
    cpu = Cpu.of(Half("64K", 29, TABLE), None)
    address = Virtual(0x12_3456)
    for access in ACCESSES:
        (one,) = remedies(cpu, tables(cpu, address, 0), address, access)
        assert one.missing is not None and one.missing.slot is not None
        [page] = one.missing.entries
        assert page.page and one.missing.slot.table.address == TABLE
        words = {int(one.missing.slot.address): page.bits | 0x8000_0000}
        there = outcome(cpu, Overlay(tables(cpu, address, 0), words), address, access)
        assert isinstance(there, Allowed) and there.physical == 0x8000_3456


def test_a_page_that_el0_may_write_is_never_executed_by_el1() -> None:
    cpu = Cpu.of(Half("4K", 39, TABLE), None)
    memory = tables(cpu, LOW, *[TABLE * n | 3 for n in (2, 3)], LEAF | 1 << 6)
    fetch = explain(Snapshot("", cpu, memory, None), LOW, Access(Kind.FETCH, el0=False))
    assert isinstance(fetch.outcome, Fault)
    assert fetch.outcome.syndrome == 0x21 << 26 | 1 << 25 | 0b1111
    told = "\n".join(explanation_lines(cpu, fetch))
    raised = "instruction abort, permission fault at L3 (ESR 0x8600000f)"
    assert f"EL1 fetch at 0x405123: {raised}" in told
    assert "clears AP[1]: closes this 4K page to EL0" in told
    assert "sets AP[2]: closes this 4K page to writes" in told


def test_what_a_change_switches_off_is_marked() -> None:
    """Another address is suspect, and WXN protects other pages too."""
    cpu = Cpu.of(Half("4K", 39, TABLE), None, output_bits=36)
    read = Access(Kind.READ, el0=False)
    (one,) = remedies(cpu, tables(cpu, LOW, 1 << 36 | 1 << 10 | 1), LOW, read)
    assert [(change.breaks, one.suspect) for change in one.entries] == [(False, True)]
    wxn = Cpu.of(Half("4K", 39, TABLE), None, wxn=True)
    fetch = Access(Kind.FETCH, el0=False)
    first, second = remedies(wxn, tables(wxn, LOW), LOW, fetch)
    assert [change.old ^ change.new for change in first.entries] == [1 << 7]
    assert [(s.name, s.register, s.new) for s in second.settings] == [
        ("SCTLR_EL1.WXN", "sctlr", wxn.sctlr & ~Sctlr.WXN)
    ]
    assert second.unprotects and not first.unprotects


def test_what_the_processor_notes_of_an_access_is_named() -> None:
    """AF is set, and AP[2] cleared where DBM says so and it is set."""
    keeps = Cpu.of(Half("4K", 39, TABLE), None, ha=True, hd=True)
    dbm = LEAF | 1 << 51
    for raw, kind, noted in (
        (dbm | 1 << 7, Kind.WRITE, ["AP[2]=0"]),
        (dbm | 1 << 7, Kind.READ, []),
        (dbm, Kind.WRITE, []),
        ((dbm | 1 << 7) & ~(1 << 10), Kind.WRITE, ["AF", "AP[2]=0"]),
        (LEAF & ~(1 << 10), Kind.READ, ["AF"]),
    ):
        memory = tables(keeps, LOW, -1, -1, raw)
        one = explain(Snapshot("", keeps, memory, None), LOW, Access(kind, el0=False))
        assert isinstance(one.outcome, Allowed)
        assert [name for _, name in one.noted] == noted


# ---- aborts that were seen ----


@pytest.mark.parametrize(
    ("syndrome", "said"),
    [
        (0x9200_0047, "data abort, translation fault at L3"),
        (0x9600_0004, "data abort, translation fault at L0"),
        (0x9600_002B, "data abort, translation fault at L-1"),
        (0x9600_0029, "data abort, address size fault at L-1"),
        (0x8600_000E, "instruction abort, permission fault at L2"),
        (0x8200_000B, "instruction abort, access flag fault at L3"),
        (0x9600_0000, "data abort, address size fault at L0"),
        (0x9600_0021, "data abort, alignment fault"),
        (0x9600_0010, "data abort, synchronous external abort"),
        (0x9600_0013, "data abort, external abort on the walk at L-1"),
        (0x9600_0016, "data abort, external abort on the walk at L2"),
        (0x9600_001F, "data abort, parity or ECC error on the walk at L3"),
        (0x9600_0030, "data abort, TLB conflict abort"),
        (0x9600_003F, "data abort, reserved fault status code 0b111111"),
    ],
)
def test_a_syndrome_is_told_in_words(syndrome: int, said: str) -> None:
    assert status_text(syndrome) == said
    assert seen(f"{syndrome:#x}").syndrome == syndrome


DFSC = {
    **{0b000000 | level: f"address size fault at L{level}" for level in range(4)},
    **{0b000100 | level: f"translation fault at L{level}" for level in range(4)},
    **{0b001000 | level: f"access flag fault at L{level}" for level in range(4)},
    **{0b001100 | level: f"permission fault at L{level}" for level in range(4)},
    0b010000: "synchronous external abort",
    0b010001: "tag check fault",
    0b010011: "external abort on the walk at L-1",
    **{0b010100 | level: f"external abort on the walk at L{level}" for level in range(4)},
    0b011000: "parity or ECC error",
    0b011011: "parity or ECC error on the walk at L-1",
    **{0b011100 | level: f"parity or ECC error on the walk at L{level}" for level in range(4)},
    0b100001: "alignment fault",
    0b101000: "granule protection fault",
    0b101001: "address size fault at L-1",
    0b101011: "translation fault at L-1",
    0b110000: "TLB conflict abort",
    0b110001: "unsupported atomic hardware update of a descriptor",
    0b110100: "implementation defined fault (lockdown)",
    0b110101: "unsupported exclusive or atomic access",
}
"""The codes of "ISS encoding for an exception from a Data Abort"."""


def test_every_fault_status_code_is_told_as_the_manual_has_it() -> None:
    for code in range(64):
        said = DFSC.get(code, f"reserved fault status code {code:#b}")
        assert status_text(0x25 << 26 | code) == f"data abort, {said}"
        assert status_text(0x20 << 26 | code) == f"instruction abort, {said}"


@pytest.mark.parametrize("exception", [0x20, 0x21, 0x24, 0x25])
@pytest.mark.parametrize("flags", range(4))
def test_whether_it_was_a_write_is_told_of_data_that_no_maintenance_touched(
    exception: int, flags: int
) -> None:
    """WnR is bit 6 of ESR_EL1 and CM bit 8, both of data aborts alone."""
    write, maintained = flags & 1, flags >> 1
    first, *said = seen(hex(exception << 26 | 1 << 25 | write << 6 | maintained << 8 | 7)).said
    assert first == f"EC {exception:#x}: taken from EL{exception & 1}"
    if exception < 0x24:
        assert not said
    elif maintained:
        assert said == ["CM=1: an instruction that maintains caches, or AT; WnR says nothing of it"]
    else:
        assert said == [f"WnR={write}: a {'write' if write else 'read'}"]


def test_flags_of_a_syndrome_are_told() -> None:
    assert seen("9600004f").syndrome == seen("0x9600004f").syndrome == 0x9600_004F
    maintained = seen("0x96000147")
    assert [str(one) for one in maintained.accesses] == ["EL1 read", "EL1 write"]
    assert any(one.startswith("CM=1") for one in maintained.said)
    assert any("S1PTW=1: stage 2" in one for one in seen("0x960000c7").said)
    assert any(one.startswith("FnV=1") for one in seen("0x96000410").said)
    assert [str(one) for one in seen("9600004f").accesses] == ["EL1 write", "EL1 AMO", "EL1 STTR"]
    assert [str(one) for one in seen("9200000f").accesses] == ["EL0 read", "EL0 AMO"]
    assert [str(one) for one in seen("82000007").accesses] == ["EL0 fetch"]


def told_of(plain: int, bit: int, name: str) -> bool:
    """Whether a bit of ESR_EL1 has a sentence, which nothing else says."""
    with_bit, without = (
        [one for one in seen(hex(esr)).said if one.startswith(name)]
        for esr in (plain | 1 << bit, plain)
    )
    assert len(with_bit) <= 1 and not without, hex(plain)
    return bool(with_bit)


@pytest.mark.parametrize("exception", [0x20, 0x21, 0x24, 0x25])
def test_why_a_permission_fault_came_is_told_of_permission_faults_alone(exception: int) -> None:
    """ISS2.Overlay and ISS2.DirtyBit, bits 38 and 37 of ESR_EL1, are RES0 in others."""
    denied = {0b001100, 0b001101, 0b001110, 0b001111}
    plain = [exception << 26 | 1 << 25 | status for status in range(64)]
    for bit, name in ((38, "Overlay=1"), (37, "DirtyBit=1")):
        assert {status for status in range(64) if told_of(plain[status], bit, name)} == denied


def test_ea_is_told_of_external_aborts_alone() -> None:
    """At the page, or on the walk at levels -1 to 3."""
    external = {0b010000, 0b010011, 0b010100, 0b010101, 0b010110, 0b010111}
    plain = 0x25 << 26 | 1 << 25
    assert {status for status in range(64) if told_of(plain | status, 9, "EA=1")} == external


def test_what_tables_deny_otherwise_is_not_said_to_have_been_given_since() -> None:
    cpu = Cpu.of(Half("4K", 39, TABLE), None)
    absent = Snapshot("", cpu, tables(cpu, LOW, -1, -1, 0), None)
    said = compare(absent, seen("0x9600000f"), LOW).explanations
    assert not any("rights were given since" in s for s in said)
    external = compare(absent, seen("0x96000010"), LOW).explanations
    assert "memory refused it, at a table on the way, of which tables say nothing" in external


@pytest.mark.parametrize("status", range(64))
def test_what_no_table_gives_is_put_down_to_what_can_give_it(status: int) -> None:
    """Of a page that the access may reach: memory, the TLB, or nothing that is known."""
    cpu = Cpu.of(Half("4K", 39, TABLE), None)
    snapshot = Snapshot("", cpu, tables(cpu, LOW, -1, -1, LEAF), None)
    said = compare(snapshot, seen(hex(0x25 << 26 | 1 << 25 | status)), LOW).explanations
    memory = status in (
        0b010000,
        0b010001,
        0b011000,
        0b011011,
        *range(0b011100, 0b100000),
        0b101000,
    )
    assert any("memory refused it, at 0x80000123" in one for one in said) == memory
    assert any("break-before-make" in one for one in said) == (status == 0b110000)
    unknown = status not in DFSC or status in (0b110001, 0b110100, 0b110101)
    assert any("no tables give" in one for one in said) == unknown


def test_an_overlay_that_withheld_a_right_is_why_tables_do_not_give_the_abort() -> None:
    cpu = Cpu.of(Half("4K", 39, TABLE), None)
    snapshot = Snapshot("", cpu, tables(cpu, LOW, -1, -1, LEAF | 1 << 6 | 5 << 60), None)
    found = compare(snapshot, seen("0x409200004f"), LOW)
    assert not found.giving
    assert any("POR_EL0 and POR_EL1 are not applied here" in s for s in found.explanations)
    assert not any("until TLBI" in s for s in found.explanations)
    without = compare(snapshot, seen("0x9200004f"), LOW)
    assert not any("POR_EL0" in s for s in without.explanations)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("0x56000000", "has EC 0x15, SVC, a system call: aborts have 0x20 and 0x21"),
        ("0xbe000011", "has EC 0x2f, an SError"),
        ("0x0", "has EC 0x0, an exception of unknown reason"),
        ("0x88000000", "has EC 0x22, a PC that is not aligned"),
        ("0x98000000", "has EC 0x26, an SP that is not aligned"),
        ("0xf2000000", "has EC 0x3c, BRK"),
        ("0x1f00000000", "has EC 0x0, an exception of unknown reason"),
        ("0x7e000000", "has EC 0x1f, another exception"),
        ("0x8c000000", "has EC 0x23, another exception"),
        ("0x1ffffffff00000000", "which is no number of 64 bits"),
        ("x", "no number"),
    ],
)
def test_what_is_no_abort_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(QuestionError, match=sentence):
        seen(text)


def test_an_abort_that_tables_give_is_recognised() -> None:
    for cpu, address in states():
        for raws in ways(cpu, 2):
            snapshot = Snapshot("", cpu, tables(cpu, address, *raws), None)
            for one in explain_all(snapshot, address, ACCESSES):
                # An unprivileged instruction is a plain one at EL0.
                plain = not (one.access.el0 and one.access.kind.unprivileged)
                if isinstance(one.outcome, Fault) and plain:
                    fault = seen(hex(one.outcome.syndrome))
                    assert one.access in fault.accesses
                    assert compare(snapshot, fault, one.outcome.far).giving


def test_why_an_abort_is_not_given_is_said() -> None:
    cpu = Cpu.of(Half("4K", 39, TABLE), None)
    snapshot = Snapshot("", cpu, tables(cpu, LOW, -1, -1, LEAF | 1 << 6), None)
    read = seen("0x9600000f")
    said = compare(snapshot, read, LOW).explanations
    pan = "EL1 read gives it with PSTATE.PAN=1, and here it is 0 (--pstate)"
    assert any(pan in s for s in said)
    assert any("until TLBI" in s for s in said)
    assert any("here TTBR0_EL1 is 0x10000" in s for s in said)
    assert "the tables were changed since" in said
    assert len([s for s in said if " gives it with " in s]) == 1
    upper = Cpu.of(Half("4K", 39, TABLE), Half("4K", 39, TABLE + 0x1000))
    far = Virtual((1 << 64) - 0x1000)
    said = compare(Snapshot("", upper, BufferMemory(bytes(8)), None), read, far).explanations
    assert any("here TTBR1_EL1 is 0x11000" in s for s in said)
    external = compare(snapshot, seen("0x96000010"), LOW).explanations
    assert any("memory refused it, at 0x80000123" in s for s in external)
    hypervisor = compare(snapshot, seen("0x96000087"), LOW).explanations
    assert any("stage 2 denied the walk a table" in s for s in hypervisor)
    write = compare(snapshot, seen("0x9600004f"), LOW, named=[Access(Kind.READ, el0=False)])
    assert write.explanations[0].startswith("EL1 read is allowed there, so that another access")


@pytest.mark.parametrize("hafdbs", [0, 1, 2])
@pytest.mark.parametrize("pan", [0, 1])
@pytest.mark.parametrize(
    ("raw", "code", "least", "said"),
    [
        (LEAF, "0x8600000f", 0, "EL1 fetch gives it with SCTLR_EL1.WXN=1, and here it is 0"),
        (LEAF & ~(1 << 10), "0x9600000b", 1, "with TCR_EL1.HA=0, and here it is 1 (--tcr)"),
        (LEAF | 3 << 6 | 1 << 51, "0x9600004f", 2, "with TCR_EL1.HD=0, and here it is 1 (--tcr)"),
    ],
    ids=["WXN", "HA", "HD"],
)
def test_with_which_other_bit_the_abort_comes_is_said(
    raw: int, code: str, least: int, said: str, pan: int, hafdbs: int
) -> None:
    """Of bits that the processor has: of others there is no such abort."""
    cpu = Cpu.of(
        Half("4K", 39, TABLE), None, ha=True, hd=True, features=Features(pan=pan, hafdbs=hafdbs)
    )
    found = compare(Snapshot("", cpu, tables(cpu, LOW, -1, -1, raw), None), seen(code), LOW)
    assert any(said in one for one in found.explanations) == (hafdbs >= least)
    assert bool(found.giving) == (hafdbs < least)


@pytest.mark.parametrize("bit", [7, 8, 9, 14, 24, 37, 38])
def test_bits_of_a_syndrome_that_no_access_decides_play_no_part(bit: int) -> None:
    """S1PTW, CM, EA, AR, ISV, and ISS2.DirtyBit and Overlay."""
    cpu = Cpu.of(Half("4K", 39, TABLE), None)
    snapshot = Snapshot("", cpu, tables(cpu, LOW, -1, -1, 0), None)
    assert compare(snapshot, seen(hex(0x9600_0007 | 1 << bit)), LOW).giving


def test_a_read_that_read_only_would_deny_is_given_by_no_atomic() -> None:
    """Its fault has WnR=0 where a read has one too: here none has, and that of a write has 1."""
    cpu = Cpu.of(Half("4K", 39, TABLE), None)
    snapshot = Snapshot("", cpu, tables(cpu, LOW, -1, -1, LEAF | 3 << 6), None)
    for kind in (Kind.WRITE, Kind.AMO):
        assert isinstance(outcome(cpu, snapshot.memory, LOW, Access(kind, el0=True)), Fault)
    assert compare(snapshot, seen("0x9200004f"), LOW).giving
    assert not compare(snapshot, seen("0x9200000f"), LOW).giving


def test_an_alignment_fault_of_normal_memory_has_reasons_that_can_be() -> None:
    cpu = Cpu.of(Half("4K", 39, TABLE), None)
    memory = tables(cpu, LOW, -1, -1, LEAF)
    open_ = compare(Snapshot("", cpu, memory, None), seen("0x96000061"), LOW)
    assert not open_.giving
    said = open_.explanations
    assert any("SCTLR_EL1.A was 1, and here it is 0 (--sctlr)" in s for s in said)
    assert any("an exclusive or an atomic" in s for s in said)
    assert any("Device" in s for s in said)
    assert not any("rights" in s for s in said)
    checked = replace(cpu, sctlr=cpu.sctlr | Sctlr.A)
    for code, far in (("0x96000061", LOW), ("0x92000021", Virtual(1 << 60 | 1))):
        (given,) = compare(Snapshot("", checked, memory, None), seen(code), far).giving
        assert isinstance(given.outcome, Fault) and given.outcome.reason is Reason.UNALIGNED


@pytest.mark.parametrize("syndrome", ["0x86000021", "0x96000161"])
def test_a_fetch_and_maintenance_are_not_held_to_alignment(syndrome: str) -> None:
    cpu = Cpu.of(Half("4K", 39, TABLE), None)
    checked = replace(cpu, sctlr=cpu.sctlr | Sctlr.A)
    snapshot = Snapshot("", checked, tables(cpu, LOW, -1, -1, LEAF), None)
    assert not any("SCTLR_EL1.A" in s for s in compare(snapshot, seen(syndrome), LOW).explanations)


def test_a_tlb_conflict_has_its_reasons() -> None:
    cpu = Cpu.of(Half("4K", 39, TABLE), None)
    snapshot = Snapshot("", cpu, tables(cpu, LOW, -1, -1, LEAF), None)
    said = compare(snapshot, seen("0x96000030"), LOW).explanations
    assert any("without break-before-make" in s for s in said)
    assert any("which lint finds (contiguous-apart)" in s for s in said)
    assert not any("no tables give" in s for s in said)


def test_a_page_of_a_reserved_type_becomes_one_by_its_bit_1() -> None:
    cpu = Cpu.of(Half("4K", 39, TABLE), None)
    read = Access(Kind.READ, el0=False)
    memory = tables(cpu, LOW, -1, -1, LEAF & ~2)
    first, *_ = remedies(cpu, memory, LOW, read)
    assert [change.old ^ change.new for change in first.entries] == [2]
    told = list(explanation_lines(cpu, explain(Snapshot("", cpu, memory, None), LOW, read)))
    assert any("sets bit 1: makes this 4K page valid" in line for line in told)
    assert any("likely" in line and "a page without bit 1" in line for line in told)


@pytest.mark.parametrize("seed", range(40))
def test_every_change_has_words_where_a_walk_comes_through_an_entry_twice(seed: int) -> None:
    """A root in itself: a bit of the entry may mean something at one level alone."""
    source = random.Random(seed)
    octets = np.zeros(TABLE * 3, np.uint8)
    words = octets.view("<u8")
    own = TABLE | 3 | source.getrandbits(10) << 2 & 0x4C0 | source.getrandbits(4) << 51
    own |= source.getrandbits(4) << 59
    words[TABLE // 8 + 7] = own
    address = Virtual(7 << 30 | 7 << 21 | 7 << 12)
    cpu = Cpu.of(Half("4K", 39, TABLE), None, hd=seed % 3 == 0, ha=seed % 3 == 0, output_bits=36)
    snapshot = Snapshot("", cpu, BufferMemory(octets), None)
    told = faults = 0
    for access in ACCESSES:
        one = explain(snapshot, address, access)
        faults += isinstance(one.outcome, Fault)
        for remedy in one.remedies:
            lines = list(remedy_lines(cpu, one.translation, remedy))
            assert all(line.strip() for line in lines), lines
            for entry in remedy.entries:
                assert len(entry.slots) == 3
                named = "; ".join(lines)
                for name, bit in BITS.items():
                    if (entry.old ^ entry.new) & bit:
                        assert f" {name}: " in named, (name, lines)
                        told += 1
    assert told or not faults


AF_BIT = 1 << 10
BITS = {
    "AF": AF_BIT,
    "AP[1]": 1 << 6,
    "AP[2]": 1 << 7,
    "PXN": 1 << 53,
    "UXN": 1 << 54,
    "PXNTable": 1 << 59,
    "UXNTable": 1 << 60,
    "APTable[0]": 1 << 61,
    "APTable[1]": 1 << 62,
}
