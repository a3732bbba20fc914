"""Program interruptions of s390: what accesses end in, what helps, and those that were seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.inspect import last
from harness.inspect.fault import explain_all
from harness.inspect.s390 import fault
from harness.inspect.s390.remedy import remedies
from harness.inspect.snapshot import QuestionError
from harness.paging.address import Virtual
from harness.paging.s390.access import Access, Allowed, Code, Kind, outcome
from harness.paging.s390.cpu import AddressSpace, Cpu, Cr0
from tests.cli.commands import run
from tests.inspect.s390.spaces import CPU, PAGES, SEGMENTS, memory, snapshot

READ, WRITE, FETCH = (Access(kind) for kind in Kind)
SHORT = replace(CPU, asce=CPU.asce & ~3)
PRIVATE = replace(CPU, asce=CPU.asce | 0x100)
LOW = replace(CPU, cr0=CPU.cr0 | Cr0.LOW_ADDRESS_PROTECTION)


@pytest.mark.parametrize(
    ("cpu", "changed", "address", "access", "code", "change"),
    [
        (CPU, {}, 0x1000, WRITE, 4, [(PAGES + 8, 0xA000)]),
        (CPU, {"s0": PAGES | 0x200}, 0x0, WRITE, 4, [(SEGMENTS, PAGES)]),
        (CPU, {}, 0x2000, FETCH, 4, [(PAGES + 16, 0xB000)]),
        (CPU, {}, 0x3000, READ, 0x11, [(PAGES + 24, 0xC000)]),
        (
            replace(CPU, cr0=CPU.cr0 | Cr0.EDAT, edat1=True),
            {"s1": PAGES | 0x20},
            1 << 20,
            READ,
            0x10,
            [(SEGMENTS + 8, PAGES)],
        ),
        (CPU, {"p0": 0x9800}, 0x0, READ, 0x12, [(PAGES, 0x9000)]),
        (CPU, {"s0": PAGES | 8}, 0x0, READ, 0x12, [(SEGMENTS, PAGES)]),
        (CPU, {"r0": SEGMENTS | 0}, 0x0, READ, 0x12, [(0, SEGMENTS | 4)]),
        (PRIVATE, {"s0": PAGES | 0x10}, 0x0, READ, 0x12, [(SEGMENTS, PAGES)]),
        # TF and TL, by the fewest bits: quarters 2 and 0 of the segment table.
        (CPU, {"s1024": PAGES}, 1024 << 20, READ, 0x10, [(0, SEGMENTS | 6)]),
        (CPU, {"r0": SEGMENTS | 0xC7}, 0x0, READ, 0x10, [(0, SEGMENTS | 7)]),
        (
            CPU,
            {"r0": SEGMENTS | 0xC7, "s1024": PAGES},
            1024 << 20,
            READ,
            0x10,
            [(0, SEGMENTS | 0x47)],
        ),
        (CPU, {"r0": SEGMENTS | 0x87, "s512": PAGES}, 512 << 20, READ, 0x10, [(0, SEGMENTS | 7)]),
    ],
)
def test_the_least_change_of_an_entry_is_found(
    cpu: Cpu,
    changed: dict[str, int],
    address: int,
    access: Access,
    code: int,
    change: list[tuple[int, int]],
) -> None:
    held = memory(**changed)
    assert outcome(cpu, held, Virtual(address), access).code == code  # type: ignore[union-attr]
    best = remedies(cpu, held, Virtual(address), access)[0]
    assert [(one.slot.address, one.new) for one in best.entries] == change
    for where, raw in change:
        held.store(where, 8, raw)  # type: ignore[arg-type]
    assert isinstance(outcome(cpu, held, Virtual(address), access), Allowed)


@pytest.mark.parametrize(
    ("changed", "address", "made"),
    [
        ({"p0": 0x400}, 0x0, [(0, 0, True)]),
        ({"s1": 0x20}, 1 << 20, [(1, 0, False), (0, 0, True)]),
        ({"r1": 0x20}, 1 << 31, [(2, 7, False), (1, 0, False), (0, 0, True)]),
        ({"r1": 0x24}, 1 << 31, [(2, 7, False), (1, 0, False), (0, 0, True)]),
    ],
)
def test_what_says_no_more_than_i_is_made_anew_down_to_a_page(
    changed: dict[str, int], address: int, made: list[tuple[int, int, bool]]
) -> None:
    """A region-third entry has TT=1, and TL=3 for all of its table."""
    (found,) = remedies(CPU, memory(**changed), Virtual(address), READ)
    assert not found.entries and found.missing is not None
    assert [(one.level, one.bits, one.page) for one in found.missing.entries] == made


def test_the_least_change_of_a_register_is_found() -> None:
    held = memory(r512=SEGMENTS | 4)
    found, *_ = remedies(SHORT, held, Virtual(512 << 31), READ)
    assert [(one.name, one.new) for one in found.settings] == [("ASCE.TL", SHORT.asce | 1)]
    (found,) = remedies(LOW, held, Virtual(0x10), WRITE)
    assert [(one.name, one.new) for one in found.settings] == [
        ("CR0.low-address-protection", CPU.cr0)
    ]
    *_, found = remedies(CPU, held, Virtual(0x2000), FETCH)
    assert ([one.name for one in found.settings], found.unprotects) == (["CR0.IEP"], True)


def test_what_the_table_of_the_asce_does_not_serve_no_change_helps() -> None:
    (found,) = explain_all(snapshot(), Virtual(1 << 42), [READ])
    assert (found.outcome.code, found.remedies) == (Code.ASCE_TYPE, ())


@pytest.mark.parametrize("text", ["4", "04", "0x4", "0004", "84"])
def test_a_code_is_read_as_it_is_printed(text: str) -> None:
    assert fault.seen(text).code is Code.PROTECTION


@pytest.mark.parametrize("text", ["1", "13", "3c", "10004", "page"])
def test_what_no_access_ends_in_is_refused(text: str) -> None:
    with pytest.raises(QuestionError):
        fault.seen(text)


@pytest.mark.parametrize(
    ("code", "teid", "kinds"),
    [
        ("4", 0x1404, [Kind.WRITE]),
        ("4", 0x2884, [Kind.FETCH]),
        ("4", 0x480, [Kind.WRITE]),
        ("11", 0x3400, [Kind.WRITE]),
        ("11", 0x3800, [Kind.READ, Kind.FETCH]),
        ("11", 0x3000, list(Kind)),
        ("12", 0x3400, list(Kind)),
        ("4", None, [Kind.WRITE, Kind.FETCH]),
    ],
)
def test_a_teid_says_which_access_it_was(code: str, teid: int | None, kinds: list[Kind]) -> None:
    found = fault.seen(code, teid).accesses
    assert [one.kind for one in found] == kinds
    assert {one.space for one in found} == {AddressSpace.PRIMARY}


@pytest.mark.parametrize(
    ("code", "teid", "address", "given"),
    [
        ("4", 0x1404, 0x1000, True),
        ("4", 0x1406, 0x1000, True),  # in the secondary space
        ("4", 0x2884, 0x2000, True),
        ("11", 0x3C00 & ~0x400, 0x3000, True),
        ("11", 0x3000, 0x3000, True),
        ("4", 0x404, 0x0, False),
        ("11", 0x1400, 0x1000, False),
        ("4", 0x1480, 0x1000, False),  # low-address protection
        ("10", 0x3400, 0x3000, False),
    ],
)
def test_tables_give_a_fault_that_was_seen_or_do_not(
    code: str, teid: int, address: int, given: bool
) -> None:
    _, _, found = fault.reproduced(snapshot(), code, Virtual(address), teid, False, ())
    assert bool(found.giving) == given
    assert given or found.explanations
    space = AddressSpace(teid & 3)
    assert {one.access.space for one in found.giving} <= {space}


def test_each_interruption_that_tables_give_is_reproduced_by_its_code_and_its_teid() -> None:
    codes = set[Code]()
    for cpu in (CPU, LOW, SHORT):
        for address in (0, 0x1000, 0x2000, 0x3000, 1 << 20, 1 << 30, 1 << 31, 512 << 31, 1 << 42):
            for access in (READ, WRITE, FETCH):
                where = snapshot(cpu, s1=PAGES | 8)
                raised = outcome(cpu, where.memory, Virtual(address), access)
                if isinstance(raised, Allowed):
                    continue
                codes.add(raised.code)
                for teid in {None, raised.teid}:
                    code = f"{raised.code:#x}"
                    _, told, found = fault.reproduced(
                        where, code, Virtual(address), teid, False, ()
                    )
                    assert access.kind in [one.access.kind for one in found.giving]
                    assert access.kind in [one.kind for one in told.accesses]
    assert len(codes) == 6


def test_an_access_that_is_named_and_does_not_end_in_it_is_said_what_it_comes_to() -> None:
    for named, given in ((READ, True), (FETCH, True), (WRITE, False)):
        _, _, found = fault.reproduced(snapshot(), "4", Virtual(0x2000), None, False, [named])
        assert [one.access.kind for one in found.giving] == [Kind.FETCH] * given
        others = [one for one in found.explanations if "another access ended in this" in one]
        assert len(others) == (named is READ)
        assert not others or others[0].endswith(
            "read in the primary space is allowed there, so that another access ended in this"
        )
    _, _, found = fault.reproduced(snapshot(), "11", Virtual(0x2000), None, False, [FETCH])
    assert [one.access.kind for one in found.instead] == [Kind.FETCH]
    assert "a storage key" not in "".join(found.explanations)
    _, _, found = fault.reproduced(snapshot(), "4", Virtual(0x3000), None, False, [READ])
    assert "ends in code 0x11 there" in found.explanations[0]
    assert any("a storage key forbade it" in one for one in found.explanations)
    assert not any("IPTE" in one for one in found.explanations), "nothing is allowed there"
    _, _, found = fault.reproduced(snapshot(), "5", Virtual(0), None, False, ())
    assert any("no memory at the frame" in one for one in found.explanations)
    assert any("IPTE, IDTE or PTLB" in one for one in found.explanations)


@pytest.mark.parametrize(
    ("teid", "kinds", "said"),
    [
        (0x1400, [Kind.WRITE], "a storage key forbade it"),
        (0x1408, [Kind.WRITE], "a storage key forbade it"),
        (0x1808, [Kind.READ, Kind.FETCH], "a storage key forbade it"),
        (0x140C, [Kind.WRITE], "an access-list entry allowed no stores"),
        (0x1480, [Kind.WRITE], "with CR0.low-address-protection=1, and here it is 0"),
        (0x5480, [Kind.WRITE], "low-address protection is of the first two pages"),
        (0x1484, [], "no access has such a TEID"),
        (0x1880, [], "no access has such a TEID"),
        (0x1488, [], "no access has such a TEID"),
        (0x148C, [], "no access has such a TEID"),
        (0x180C, [], "no access has such a TEID"),
        (0x1C04, [], "no access has such a TEID"),
    ],
)
def test_bits_56_60_and_61_of_a_teid_say_which_protection_it_was(
    teid: int, kinds: list[Kind], said: str
) -> None:
    where = snapshot(CPU, p5=0xF200)  # a store is denied by P at 0x1000 and 0x5000
    _, told, found = fault.reproduced(where, "4", Virtual(teid & -0x1000), teid, False, ())
    assert [one.kind for one in told.accesses] == kinds
    assert not found.giving
    assert any(said in one for one in found.explanations), found.explanations
    keys = [one for one in found.explanations if "a storage key" in one]
    assert bool(keys) == (teid & 0x84 == 0)


def test_low_address_protection_may_be_stored_without_its_bit() -> None:
    for teid, given in ((0x1480, True), (0x1400, True), (0x1408, False), (0x1404, False)):
        _, _, found = fault.reproduced(snapshot(LOW), "4", Virtual(0x1000), teid, False, ())
        assert bool(found.giving) == given, hex(teid)


@pytest.mark.parametrize(
    ("code", "alone"), [("38", True), ("39", True), ("3a", True), ("3b", False)]
)
def test_what_is_decided_above_the_tables_is_put_down_to_the_asce_alone(
    code: str, alone: bool
) -> None:
    _, _, found = fault.reproduced(snapshot(), code, Virtual(0x2000), None, False, ())
    assert not found.giving
    assert (len(found.explanations) == 1) == alone
    assert any("IPTE" in one for one in found.explanations) != alone
    assert found.explanations[-1].startswith("another address space: ")


def test_a_fault_that_another_register_gives_says_so() -> None:
    off = replace(CPU, cr0=0)
    _, _, found = fault.reproduced(snapshot(off), "4", Virtual(0x2000), 0x2884, False, ())
    assert "CR0.IEP=1, and here it is 0 (--cr0)" in found.explanations[0]


def test_a_teid_is_of_one_page_and_of_a_known_space() -> None:
    with pytest.raises(QuestionError, match="is of the page at 0x1000, and not of 0x2000"):
        fault.reproduced(snapshot(), "4", Virtual(0x2000), 0x1404, False, ())
    with pytest.raises(QuestionError, match="an access register chose"):
        fault.seen("4", 0x1405)


def test_the_command_takes_code_and_teid(tmp_path: Path) -> None:
    where = ("--layout", "s390/rights")
    code, out, errors = run("fault", "--code", "4", "--teid", "0x500404", *where, cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert "The tables as they are give this fault." in out
    assert "STE at 0x200c028: 0x0000000002010a00 -> 0x0000000002010800" in out
    code, out, _ = run("fault", "--code", "3b", "--teid", "0x80000400", cwd=tmp_path)
    assert (code, out.splitlines()[0]) == (
        0,
        "region-third-translation exception (code 0x3b), TEID 0x80000400, address 0x80000000",
    )
    for code_of_one in Code:
        stores = code_of_one not in (Code.ADDRESSING, Code.TRANSLATION_SPECIFICATION)
        given = ("fault", "--code", hex(code_of_one), "--teid", "0x1000400")
        code, out, errors = run(*given, cwd=tmp_path)
        assert (code, errors) == (0, "")
        assert (", address 0x1000000" in out) == stores
        assert ("TEID      0x1000400 is of an earlier one" in out) == (not stores)
        code, out, errors = run(*given, *where, cwd=tmp_path)
        assert (code, "stores no TEID" in errors) == ((0, False) if stores else (2, True))
        code, out, errors = run(*given, "0x40c000", *where, cwd=tmp_path)
        other = "is of the page at 0x1000000" in errors
        assert (code, other) == ((2, True) if stores else (0, False))
    for wrong, said in (
        (("--teid", "1"), "a TEID belongs to a program interruption"),
        (("--code", "4", "--teid", "1", "--rip", "2"), "--cr2 and --rip are of x86"),
        (("--code", "4", "--teid", "0x500404", "--layout", "rights"), "where --teid means nothing"),
    ):
        code, out, errors = run("fault", *wrong, cwd=tmp_path)
        assert (code, out) == (2, "") and said in errors


def test_the_last_interruption_is_not_looked_for() -> None:
    with pytest.raises(QuestionError, match="of s390 the last fault is not looked for: name the"):
        last.raised(snapshot(), 0)
