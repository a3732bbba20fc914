"""Every rule finds what was planted for it, and nothing in a space without faults."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from harness.inspect.lint import Broken, Severity, lint, rules
from harness.inspect.snapshot import Snapshot
from harness.inspect.x86 import lint as of_x86
from harness.inspect.x86.memory_type import AT_RESET, types
from harness.paging.address import Physical, Span
from harness.paging.memory import BufferMemory
from harness.paging.x86.cpu import Cpu, Cr0, Cr4, Mode
from tests.inspect.spaces import PCD, PS, RW, US, XD, A, D, G, P, memory_of
from tests.paging.x86.made import path

TABLE = 0x1000
ROOT, MIDDLE, LOWER, PAGES, HIGH, HIGH_MIDDLE, HIGH_LOWER, HIGH_PAGES, SPARE = range(1, 10)
FREE = 0x20_0000
"""Where no table is: the second 2 MiB of the 8 that there are."""

LATER = 0x40_0000
"""Where the clean space maps nothing: the third."""

FULL = P | RW | US

OF_32_BITS = "large-page-without-pse"
"""A rule about 32-bit paging, with a test of its own."""


def clean() -> list[int]:
    """User text, data and read-only data low, the supervisor's high; every table full of rights
    in the lower half, the upper half the supervisor's."""
    words = [0] * (512 * 10)

    def put(table: int, slot: int, raw: int) -> None:
        words[512 * table + slot] = raw

    for table in (ROOT, MIDDLE, LOWER):
        put(table, 1 if table == LOWER else 0, (table + 1) * TABLE | FULL | A)
    put(ROOT, 256, HIGH_MIDDLE * TABLE | P | RW | A)
    put(HIGH_MIDDLE, 0, HIGH_LOWER * TABLE | P | RW | A)
    put(HIGH_LOWER, 0, HIGH_PAGES * TABLE | P | RW | A)
    put(PAGES, 0, FREE | P | US | A)
    put(PAGES, 1, FREE + 0x1000 | P | RW | US | XD | A | D)
    put(PAGES, 2, FREE + 0x2000 | P | US | XD)
    put(HIGH_PAGES, 0, FREE + 0x3000 | P | G)
    put(HIGH_PAGES, 1, FREE + 0x4000 | P | RW | XD | G)
    return words


LOW_PAGE, HIGH_PAGE = 0x20_0000, 0xFFFF_8000_0000_0000


def planted(changes: dict[tuple[int, int], int]) -> Snapshot:
    words = clean()
    for (table, slot), raw in changes.items():
        words[512 * table + slot] = raw
    octets = np.zeros(8 << 20, np.uint8)
    octets[: 8 * len(words)] = memory_of(words).octets
    memory = BufferMemory(octets)
    cpu = Cpu.long_mode(4, ROOT * TABLE)
    return Snapshot("planted", replace(cpu, cr4=cpu.cr4 | Cr4.CET), memory, (memory.span,))


def found(snapshot: Snapshot) -> dict[str, Broken]:
    broken, cut = lint(snapshot, types(None))
    assert cut == ()
    return {one.rule.name: one for one in broken}


def test_a_space_without_faults_breaks_no_rule() -> None:
    assert found(planted({})) == {}


OF_SPACES = [rule for rule in rules(of_x86) if rule not in of_x86.NEEDS]
"""Those of the processor's needs are planted in test_needs."""

PLANTED = {
    # What is planted, the rules it breaks, the first address of each and its number of entries.
    "reserved-bits": ({(PAGES, 7): FREE | P | 1 << 51}, {"reserved-bits": (LOW_PAGE + 0x7000, 1)}),
    "reserved bits of a table": (
        {(LOWER, 5): SPARE * TABLE | P | 1 << 45},
        {"reserved-bits": (5 << 21, 1)},
    ),
    "table-without-memory": (
        {(LOWER, 5): 0x80_0000 | P | RW},
        {"table-without-memory": (5 << 21, 512)},
    ),
    "reserved bits of the highest table": (
        {(ROOT, 5): SPARE * TABLE | P | 1 << 45},
        {"reserved-bits": (5 << 39, 1)},
    ),
    "a table without memory below the highest": (
        {(ROOT, 5): 0x80_0000 | P | RW},
        {"table-without-memory": (5 << 39, 512)},
    ),
    "table-user-writable": (
        {(PAGES, 7): LOWER * TABLE | P | RW | US | XD},
        {"table-user-writable": (LOW_PAGE + 0x7000, 1)},
    ),
    "table-user-readable": (
        {(PAGES, 7): LOWER * TABLE | P | US | XD},
        {"table-user-readable": (LOW_PAGE + 0x7000, 1)},
    ),
    "table-mapped": (
        {(HIGH_PAGES, 7): LOWER * TABLE | P | RW | XD},
        {"table-mapped": (HIGH_PAGE + 0x7000, 1)},
    ),
    "table in a large page": (
        {(HIGH_LOWER, 7): P | RW | XD | PS},
        {"table-mapped": (HIGH_PAGE + (7 << 21), 1)},
    ),
    "self-map": (
        {(ROOT, 300): ROOT * TABLE | P | RW | XD},
        {"self-map": (0xFFFF_9600_0000_0000, 1)},
    ),
    "self-map-executable": (
        {(ROOT, 300): ROOT * TABLE | P | RW},
        dict.fromkeys(("self-map", "self-map-executable"), (0xFFFF_9600_0000_0000, 1)),
    ),
    "self-map that is executed alone": (
        {(ROOT, 300): ROOT * TABLE | P},
        {"self-map": (0xFFFF_9600_0000_0000, 1)},
    ),
    # The tables of the lower half, all but the root, and the root itself.
    "self-map for the user": (
        {(ROOT, 300): ROOT * TABLE | FULL | XD},
        {"self-map": (0xFFFF_9600_0000_0000, 1), "table-user-writable": (0xFFFF_9600_0000_1000, 4)},
    ),
    "write-execute": (
        {(HIGH_PAGES, 7): FREE + 0x7000 | P | RW},
        {"write-execute": (HIGH_PAGE + 0x7000, 1)},
    ),
    "user-in-kernel-half": (
        {
            (ROOT, 300): SPARE * TABLE | FULL,
            (SPARE, 3): 0xC000_0000 | P | US | XD | PS | PCD,
        },
        {"user-in-kernel-half": (0xFFFF_9600_C000_0000, 1), "device": (0xFFFF_9600_C000_0000, 1)},
    ),
    "address-zero": (
        {(LOWER, 0): SPARE * TABLE | P | RW, (SPARE, 0): FREE + 0x8000 | P | XD},
        {"address-zero": (0, 1)},
    ),
    "global-user": (
        {(PAGES, 7): FREE + 0x7000 | P | US | XD | G},
        {"global-user": (LOW_PAGE + 0x7000, 1)},
    ),
    "cached-outside-ram": (
        {(HIGH_PAGES, 7): 0x80_0000 | P | XD},
        {"cached-outside-ram": (HIGH_PAGE + 0x7000, 1)},
    ),
    "a page that begins in memory and ends outside": (
        {(MIDDLE, 5): P | XD | PS | US},
        {"cached-outside-ram": (5 << 30, 1), "table-user-readable": (5 << 30, 1)},
    ),
    "device": ({(HIGH_PAGES, 7): 0x80_0000 | P | XD | PCD}, {"device": (HIGH_PAGE + 0x7000, 1)}),
    "empty-table": ({(LOWER, 5): SPARE * TABLE | P}, {"empty-table": (5 << 21, 1)}),
    "empty tables": (
        {(LOWER, slot): SPARE * TABLE | P for slot in (5, 6, 9)},
        {"empty-table": (5 << 21, 3)},
    ),
    "shadow-stack": (
        {(PAGES, 7): FREE + 0x7000 | P | US | XD | D},
        {"shadow-stack": (LOW_PAGE + 0x7000, 1)},
    ),
    "a table whose entry would be a shadow stack": (
        {
            (LOWER, 5): SPARE * TABLE | P | US | D,
            (SPARE, 0): FREE + 0x7000 | P | US | XD,
        },
        {},
    ),
    "withheld-above": (
        {(HIGH_PAGES, 7): FREE + 0x7000 | P | US | XD},
        {"withheld-above": (HIGH_PAGE + 0x7000, 1)},
    ),
    "table-at-zero": (
        {(HIGH_LOWER, 7): P | RW, (0, 3): FREE + 0x7000 | P | RW | XD},
        {"table-at-zero": (HIGH_PAGE + (7 << 21), 1)},
    ),
    "addresses-in-table": (
        {(HIGH_PAGES, 100 + n): 0xFFFF_8000_3F00_0000 + n * 0x1238 for n in range(3)},
        {"addresses-in-table": (HIGH_PAGE, 1)},
    ),
    "garbage-table": (
        {
            (LOWER, 9): SPARE * TABLE | P,
            **{(SPARE, n): 0xFFFF_8000_3F00_0000 + n * 0x1238 for n in range(40)},
        },
        {"garbage-table": (9 << 21, 1)},
    ),
    "garbage below a table of the upper levels": (
        {
            (MIDDLE, 9): SPARE * TABLE | P,
            **{(SPARE, n): 0x9E37_79B9_7F4A_7C15 * (n + 1) % (1 << 64) for n in range(512)},
        },
        {"garbage-table": (9 << 30, 1)},
    ),
    "mixed-types": (
        {(HIGH_PAGES, 7): FREE + 0x4000 | P | RW | XD | PCD},
        {"mixed-types": (FREE + 0x4000, 1)},
    ),
    "writable-code": (
        {(PAGES, 7): FREE | P | RW | US | XD},
        {"writable-code": (FREE, 1)},
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_found_and_nothing_else(name: str) -> None:
    changes, expected = PLANTED[name]
    got = {
        rule: (one.findings[0].where or one.findings[0].physical, one.count)
        for rule, one in found(planted(changes)).items()
    }
    assert {rule: (span and span.first, count) for rule, (span, count) in got.items()} == expected


@pytest.mark.parametrize("name", [name for name in PLANTED if (ROOT, 300) not in PLANTED[name][0]])
def test_what_a_self_map_shows_again_is_not_found_again(name: str) -> None:
    changes, expected = PLANTED[name]
    window = {(ROOT, 300): ROOT * TABLE | P | RW | XD}
    got = {rule: one.count for rule, one in found(planted(changes | window)).items()}
    assert got == {rule: count for rule, (_, count) in expected.items()} | {"self-map": 1}


# What Linux writes for a page that is swapped out, and for one that nobody may touch.
@pytest.mark.parametrize("frame", [ROOT - 1, SPARE + 1])
def test_a_page_beside_the_tables_shows_none(frame: int) -> None:
    """Not even by its last byte, nor by the first one after it."""
    assert found(planted({(PAGES, 7): frame * TABLE | P | RW | US | XD})) == {}
    assert found(planted({(HIGH_PAGES, 7): frame * TABLE | P | RW | XD})) == {}


@pytest.mark.parametrize("raw", [0x7FFF_FFFF_FFFB_F000, 0x8000_0FFF_FFFF_F100, 1 << 9])
def test_a_table_whose_entries_are_kept_but_not_present_is_not_empty(raw: int) -> None:
    assert found(planted({(LOWER, 5): SPARE * TABLE | P, (SPARE, 511): raw})) == {}


def test_of_a_chain_of_tables_that_leads_to_an_empty_one_the_last_is_found() -> None:
    chain = {(MIDDLE, 5): SPARE * TABLE | P, (SPARE, 3): FREE | P}
    (finding,) = found(planted(chain))["empty-table"].findings
    assert (finding.where, finding.detail) == (
        Span((5 << 30) + (3 << 21), (5 << 30) + (4 << 21) - 1),
        f"the table at {FREE:#x}",
    )


def test_every_rule_has_something_planted_for_it() -> None:
    assert {rule.name for rule in OF_SPACES} <= PLANTED.keys() | {OF_32_BITS}


@pytest.mark.parametrize("name", [rule.name for rule in OF_SPACES if rule.name != OF_32_BITS])
def test_a_rule_that_is_ignored_finds_nothing(name: str) -> None:
    broken, _ = lint(planted(PLANTED[name][0]), types(None), [name])
    assert name not in {one.rule.name for one in broken}


def test_a_rule_that_there_is_not_cannot_be_ignored() -> None:
    with pytest.raises(ValueError, match="there is no rule 'all': choose one of reserved-bits, "):
        lint(planted({}), types(None), ["all"])


def test_a_finding_names_its_slot_and_what_else_there_is_to_say() -> None:
    (finding,) = found(planted({(PAGES, 7): FREE | P | 1 << 51}))["reserved-bits"].findings
    assert str(finding.slot) == f"slot 7 of the level-0 table at {PAGES * TABLE:#x}"
    assert finding.detail == "0x8000000000000 beyond MAXPHYADDR 40"
    changes, _ = PLANTED["mixed-types"]
    (finding,) = found(planted(changes))["mixed-types"].findings
    assert finding.detail == "UC- at 0xffff800000007000 and WB at 0xffff800000001000"
    assert finding.physical == Span(FREE + 0x4000, FREE + 0x4FFF)


def test_types_of_one_name_are_not_mixed() -> None:
    # PAT alone chooses PA4, which is WB as PA0 is.
    changes = {(HIGH_PAGES, 7): FREE + 0x4000 | P | RW | XD | 1 << 7}
    assert found(planted(changes)) == {}


def test_neighbours_are_one_finding_and_the_first_are_kept() -> None:
    changes = {(PAGES, slot): FREE | P | 1 << 51 for slot in (10, 11, 12, 20, 30)}
    broken, _ = lint(planted(changes), types(None), limit=2)
    (one,) = broken
    assert (one.total, one.count, len(one.findings)) == (3, 5, 2)
    assert one.findings[0].where == Span(LOW_PAGE + 0xA000, LOW_PAGE + 0xCFFF)


def test_the_memory_of_pages_is_named_where_there_are_any_in_a_row() -> None:
    def memory(step: int) -> Span | None:
        frames = range(FREE, FREE + 16 * step, step) if step else [FREE] * 16
        changes = {(PAGES, 99 + n): raw | P | US | XD | G for n, raw in enumerate(frames)}
        (finding,) = found(planted(changes))["global-user"].findings
        return finding.physical

    assert memory(0x1000) == Span.of(FREE, 16 * 0x1000)
    assert memory(0) == Span.of(FREE, 0x1000)  # all of them one page
    (finding,) = found(planted({(PAGES, 7): FREE | P | 1 << 51}))["reserved-bits"].findings
    assert finding.physical is None


def test_every_alias_counts() -> None:
    changes = {(LOWER, slot): PAGES * TABLE | FULL for slot in range(2, 12)}
    changes[PAGES, 7] = FREE | P | 1 << 51
    assert found(planted(changes))["reserved-bits"].count == 11


def test_of_aliases_a_rule_about_addresses_counts_those_that_it_is_about() -> None:
    """The lower half's tables again, further up and in the upper half."""
    lower = MIDDLE * TABLE | FULL | A
    zero = {(LOWER, 0): PAGES * TABLE | FULL | A}
    told = found(planted(zero))
    assert (told["address-zero"].count, told["address-zero"].total) == (1, 1)
    assert found(planted({**zero, (ROOT, 7): lower}))["address-zero"].count == 1
    told = found(planted({(ROOT, 300): lower}))
    first, *_ = told["user-in-kernel-half"].findings
    assert first.where == Span.of(0xFFFF_9600_0000_0000 + LOW_PAGE, TABLE)
    assert (first.count, told["user-in-kernel-half"].count) == (1, 3)
    told = found(planted({(ROOT, 300): lower, (ROOT, 301): lower}))
    assert told["user-in-kernel-half"].findings[0].where == Span.of(
        0xFFFF_9680_0000_0000 + LOW_PAGE, TABLE
    )
    apart = planted({(ROOT, 300): lower})
    apart = replace(apart, cpu=replace(apart.cpu, cr4=apart.cpu.cr4 | Cr4.LASS | Cr4.SMAP))
    assert "user-in-kernel-half" not in found(apart)


def test_the_worst_comes_first() -> None:
    changes = {key: raw for name in ("self-map", "write-execute", "reserved-bits")
               for key, raw in PLANTED[name][0].items()}  # fmt: skip
    broken, _ = lint(planted(changes), types(None))
    assert [one.rule.severity for one in broken] == list(Severity)


@pytest.mark.parametrize(("rule", "bit"), [("shadow-stack", Cr4.CET), ("global-user", Cr4.PGE)])
def test_a_rule_about_what_is_switched_off_finds_nothing(rule: str, bit: Cr4) -> None:
    snapshot = planted(PLANTED[rule][0])
    cpu = replace(snapshot.cpu, cr4=snapshot.cpu.cr4 & ~bit)
    assert found(replace(snapshot, cpu=cpu)) == {}


def test_with_lass_the_user_reaches_nothing_of_the_upper_half() -> None:
    for rule, where in (
        ("user-in-kernel-half", "user-in-kernel-half"),
        ("table-user-writable", "self-map for the user"),
    ):
        snapshot = planted(PLANTED[where][0])
        lass = replace(snapshot, cpu=replace(snapshot.cpu, cr4=snapshot.cpu.cr4 | Cr4.LASS))
        assert rule in found(snapshot) and rule not in found(lass)
    low = planted(PLANTED["table-user-writable"][0])
    lass = replace(low, cpu=replace(low.cpu, cr4=low.cpu.cr4 | Cr4.LASS))
    assert found(lass).keys() == found(low).keys()


def test_where_it_is_not_known_what_is_memory_nothing_is_outside() -> None:
    snapshot = replace(planted({(HIGH_PAGES, 7): 0x80_0000 | P | XD}), backed=None)
    assert found(snapshot) == {}


def test_a_page_may_lie_in_pieces_of_memory_that_touch() -> None:
    snapshot = planted({(HIGH_LOWER, 7): 0x40_0000 | P | XD | PS})
    upper, lower = Span(0x50_0000, 0x7F_FFFF), Span(0, 0x4F_FFFF)
    assert found(replace(snapshot, backed=(upper, lower))) == {}
    torn = found(replace(snapshot, backed=(upper, Span(0, 0x4F_FFFE))))
    assert torn.keys() == {"cached-outside-ram"}
    # Of a source that holds no page at all, but tables alone, that says nothing.
    assert found(replace(snapshot, backed=())) == {}


def test_a_root_outside_memory_is_an_error() -> None:
    snapshot = planted({})
    broken = found(replace(snapshot, cpu=Cpu.long_mode(4, 1 << 30)))
    assert {name: one.count for name, one in broken.items()} == {"table-without-memory": 512}


def details(snapshot: Snapshot, rule: str) -> set[str]:
    return {one.detail for one in found(snapshot)[rule].findings}


@pytest.mark.parametrize(
    ("changes", "rule", "detail"),
    [
        ({(ROOT, 300): ROOT * TABLE | P | RW | XD}, "self-map", "the root at 0x1000"),
        ({(MIDDLE, 300): MIDDLE * TABLE | FULL | XD}, "self-map", "the table at 0x2000"),
        ({(LOWER, 5): 0x80_0000 | P | RW}, "table-without-memory", "the table at 0x800000"),
        (
            {(PAGES, 7): FREE | P | 1 << 51},
            "reserved-bits",
            "0x8000000000000 beyond MAXPHYADDR 40",
        ),
        ({(HIGH_PAGES, 7): FREE + 0x7000 | P | RW}, "write-execute", ""),
    ],
)
def test_a_finding_says_where_it_leads_or_what_is_wrong(
    changes: dict[tuple[int, int], int], rule: str, detail: str
) -> None:
    assert details(planted(changes), rule) == {detail}


def test_who_writes_to_code_is_said_where_entries_do_not_let_anyone() -> None:
    """With CR0.WP=0 the supervisor writes to all pages (SDM 4.6.1)."""
    snapshot = planted({(HIGH_PAGES, 7): FREE + 0x7000 | P | RW})
    unprotected = replace(snapshot, cpu=replace(snapshot.cpu, cr0=snapshot.cpu.cr0 & ~Cr0.WP))
    findings = found(unprotected)["write-execute"].findings
    said = {one.where.first: one.detail for one in findings if one.where is not None}
    alone = "written to by the supervisor alone: CR0.WP=0"
    assert said == {LOW_PAGE: alone, HIGH_PAGE: alone, HIGH_PAGE + 0x7000: ""}


def test_what_matters_most_comes_first() -> None:
    changes = {
        (ROOT, 300): ROOT * TABLE | P | RW | XD,
        (PAGES, 7): FREE | P | US | 1 << 51,
        (HIGH_PAGES, 7): FREE + 0x3000 | P | PCD | XD,
        (HIGH_PAGES, 9): FREE + 0x9000 | P | RW,
    }
    severities = [one.rule.severity for one in lint(planted(changes), types(None))[0]]
    assert severities == sorted(severities, key=list(Severity).index)
    assert set(severities) == set(Severity)


def test_a_space_of_self_maps_ends() -> None:
    memory = memory_of([FULL] * 512)
    snapshot = Snapshot("loops", Cpu.long_mode(5, 0), memory, (memory.span,))
    broken = found(snapshot)
    assert broken["self-map"].count == 512
    assert broken["table-user-writable"].count == 512**5


@pytest.mark.parametrize("seed", range(4))
def test_code_that_can_be_written_is_what_two_kinds_of_pages_have_in_common(seed: int) -> None:
    source = random.Random(seed)
    changes, kinds = {}, {P: set[int](), P | RW | XD: set[int]()}
    slot = 100
    while slot < 400:
        # Runs of pages, most of them of one, on frames that follow each other.
        raw, frame = source.choice(list(kinds)), FREE // TABLE + 16 + source.randrange(200)
        for step in range(source.choice((1, 1, 1, 2, 5, 17))):
            kinds[raw].add(frame + step)
            changes[HIGH_PAGES, slot + step] = (frame + step) * TABLE | raw
        slot += step + 1
    code, data = kinds.values()
    broken = found(planted(changes))["writable-code"]
    broken_all, _ = lint(planted(changes), types(None), limit=1000)
    (every,) = [one for one in broken_all if one.rule is broken.rule]
    frames = [
        frame
        for one in every.findings
        if one.physical
        for frame in range(one.physical.first // TABLE, one.physical.last // TABLE + 1)
    ]
    assert frames == sorted(code & data)
    assert broken.total == len(every.findings) > len(broken.findings)
    for one in every.findings:
        assert one.physical is not None
        first = one.physical.first
        for way, raw in zip(one.detail.split(" and "), (P, P | RW | XD), strict=True):
            start = (int(way.split()[-1], 16) - HIGH_PAGE) // TABLE
            for step in range(one.physical.size // TABLE):
                assert changes[HIGH_PAGES, start + step] == first + step * TABLE | raw
        here = [raw for raw in changes.values() if raw & ~(0xFFF | XD) == first]
        assert one.count == len(here)


def test_addresses_of_code_that_can_be_written_are_none_of_a_self_maps() -> None:
    # Code in 4K pages, the same memory in a 2M page above it, and a self-map below both, by which
    # the code is writable too.
    changes = {(HIGH_PAGES, 100 + step): LATER + step * TABLE | P for step in range(16)}
    changes |= {(HIGH_LOWER, 9): LATER | P | RW | XD | PS, (ROOT, 255): ROOT * TABLE | P | RW}
    (finding,) = found(planted(changes))["writable-code"].findings
    assert finding.physical == Span.of(LATER, 16 * TABLE)
    code, data = HIGH_PAGE + 100 * TABLE, HIGH_PAGE + (9 << 21)
    assert finding.detail == f"executable at {code:#x} and writable at {data:#x}"
    assert finding.count == 2


def test_code_that_lies_apart_in_addresses_is_a_piece_for_each_run() -> None:
    changes = {
        (HIGH_PAGES, slot): LATER + frame * TABLE | P for frame, slot in enumerate((50, 51, 7))
    }
    changes[HIGH_LOWER, 9] = LATER | P | RW | XD | PS
    findings = found(planted(changes))["writable-code"].findings
    assert [(one.physical, one.detail) for one in findings] == [
        (
            Span.of(LATER + first * TABLE, count * TABLE),
            f"executable at {HIGH_PAGE + slot * TABLE:#x}"
            f" and writable at {HIGH_PAGE + (9 << 21) + first * TABLE:#x}",
        )
        for first, count, slot in ((0, 2, 50), (2, 1, 7))
    ]


def odd(words: list[int], levels: int = 4) -> dict[str, Broken]:
    """What breaks rules where a root at 0x1000 holds these words, in 64 MiB of memory."""
    memory = BufferMemory(np.zeros(64 << 20, np.uint8))
    memory.octets[0x1000:][: 8 * len(words)] = np.array(words, np.uint64).view(np.uint8)
    return found(Snapshot("odd", Cpu.long_mode(levels, 0x1000), memory, (memory.span,)))


def test_a_root_of_garbage_is_one_finding_whatever_it_leads_to() -> None:
    source = random.Random(1)
    (broken,) = odd([source.getrandbits(64) for _ in range(512)]).values()
    (finding,) = broken.findings
    assert (broken.rule.name, broken.total, broken.count) == ("garbage-table", 1, 1)
    assert finding.where == Span(0, (1 << 64) - 1)
    assert (finding.physical, finding.detail) == (Span.of(0x1000, 0x1000), "the root")
    assert (finding.count, finding.slot) == (1, None)


def test_pointers_of_a_program_are_no_tables() -> None:
    # What memory holds that is no table: addresses of the upper half, here and there.
    source = random.Random(2)
    words = [0] * 512
    for slot in source.sample(range(512), 100):
        words[slot] = 0xFFFF_8880_0000_0000 + 8 * source.randrange(1 << 30)
    assert odd(words).keys() == {"garbage-table"}


def in_the_lowest_table(raw: dict[int, int]) -> dict[str, Broken]:
    return found(planted({(HIGH_PAGES, slot): value for slot, value in raw.items()}))


@pytest.mark.parametrize(
    ("raw", "rules"),
    [
        # The same mistake in every entry is the code's, and what is wrong is told.
        (dict.fromkeys(range(64, 128), LATER | P | 1 << 51), {"reserved-bits"}),
        ({slot: LATER + slot * TABLE | P | XD | 1 << 51 for slot in range(9, 511)},
         {"reserved-bits"}),
        # Linux: pages that are swapped out, markers, pages of a file in PROT_NONE, inverted.
        ({slot: ~(slot << 9) & (1 << 59) - 0x200 for slot in range(64, 511)}, set()),
        (dict.fromkeys(range(64, 511), (1 << 64) - 1024), set()),
        ({slot: ~(LATER + slot * TABLE) & (1 << 52) - TABLE | 0x100 for slot in range(9, 511)},
         set()),
        # Devices, each a page of its own and none beside another.
        ({slot: 0xFEC0_0000 + slot * 0x1_7000 | P | XD | PCD for slot in range(64, 511, 2)},
         {"device"}),
        # What firmware maps in one piece without a look at what is there.
        ({slot: 0x1_0000_0000 + slot * TABLE | P | XD for slot in range(9, 511)},
         {"cached-outside-ram"}),
        # One entry that goes astray is told by what it is.
        ({9: LATER | P | 1 << 50}, {"reserved-bits"}),
        ({9: 0xFFFF_FFFF_8123_4560}, {"addresses-in-table"}),
    ],
)  # fmt: skip
def test_what_software_makes_is_no_garbage(raw: dict[int, int], rules: set[str]) -> None:
    assert in_the_lowest_table(raw).keys() == rules


@pytest.mark.parametrize("level", range(1, 4))
@pytest.mark.parametrize("seed", range(3))
def test_random_words_are_garbage_at_any_level_and_found_once(level: int, seed: int) -> None:
    source = random.Random(seed)
    table = (ROOT, HIGH_MIDDLE, HIGH_LOWER)[3 - level]
    changes = {(table, 300): SPARE * TABLE | P | RW}
    changes |= {(SPARE, slot): source.getrandbits(64) for slot in range(512)}
    broken = found(planted(changes))
    assert {name: one.count for name, one in broken.items()} == {"garbage-table": 1}
    (finding,) = broken["garbage-table"].findings
    assert finding.detail == f"the table at {SPARE * TABLE:#x}"


def test_a_table_that_follows_no_order_outside_memory_is_garbage_in_32_bit_paging() -> None:
    source, memory = random.Random(3), BufferMemory(np.zeros(8 << 20, np.uint8))
    words = memory.octets.view(np.uint32)
    words[0x400] = 0x2000 | P
    words[0x800:0xC00] = [source.getrandbits(32) for _ in range(0x400)]
    cpu = Cpu.in_mode(Mode.BITS_32, 0x1000, cr4=0)
    broken = found(Snapshot("odd", cpu, memory, (memory.span,)))
    assert {name: one.count for name, one in broken.items()} == {"garbage-table": 1}


@pytest.mark.parametrize(("cr4", "found"), [(0, 1), (Cr4.PSE, 0)])
def test_ps_that_cr4_pse_leaves_without_meaning_is_odd(cr4: int, found: int) -> None:
    cpu, memory = path(Cpu.in_mode(Mode.BITS_32, 0, cr4=cr4), 0x83, 7)
    broken, _ = lint(Snapshot("made", cpu, memory, (memory.span,)), types(None))
    assert [one.count for one in broken if one.rule.name == OF_32_BITS] == [1] * found
    broken, _ = lint(Snapshot("made", cpu, memory, (memory.span,)), types(None), [OF_32_BITS])
    assert OF_32_BITS not in {one.rule.name for one in broken}
    for long in (7, 7, 7, 7), (7, 7, 0x87):
        cpu, memory = path(Cpu.in_mode(Mode.LEVEL_4, 0, cr4=cr4), *long)
        broken, _ = lint(Snapshot("made", cpu, memory, (memory.span,)), types(None))
        assert OF_32_BITS not in {one.rule.name for one in broken}


@pytest.mark.parametrize("size", [1 << 16, 0x3000 + 64 * 8], ids=hex)
@pytest.mark.parametrize("pages", [4, 64])
def test_a_cr3_that_is_one_table_too_low_is_named(pages: int, size: int) -> None:
    """The PDPT in place of the PML4: few of its large pages are reserved bits, many are garbage;
    also where the file ends in the middle of the table that has them."""
    memory = BufferMemory(np.zeros(size, np.uint8))
    memory.store(Physical(0x1000), 8, 0x2007)
    memory.store(Physical(0x2000), 8, 0x3007)
    for index in range(pages):
        memory.store(Physical(0x3000 + 8 * index), 8, index << 21 | 0x83)

    def said(cr3: int) -> list[str]:
        snapshot = Snapshot("", Cpu.long_mode(4, cr3), memory, None)
        broken, _ = lint(snapshot, AT_RESET)
        return [finding.detail for one in broken for finding in one.findings]

    off = "by a PDE: then this table is one of PDEs, and CR3, or the entry that leads to it, is off"
    assert any(off in detail for detail in said(0x2000))
    assert not any("off by a table" in detail for detail in said(0x1000))


@pytest.mark.parametrize(
    ("executes", "writes", "odd_"),
    [(0, 0, True), (0, US, True), (US, US, True), (US, 0, False)],
    ids=["supervisor's", "supervisor's by the user", "user's", "user's by the supervisor"],
)
def test_the_supervisor_may_write_what_the_user_alone_executes(
    executes: int, writes: int, odd_: bool
) -> None:
    """As every kernel does that loads a program."""
    changes = {
        (PAGES, 100): LATER | P | executes,
        (PAGES, 200): LATER | P | RW | XD | writes,
    }
    assert ("writable-code" in found(planted(changes))) == odd_


@pytest.mark.parametrize("user", [0, US], ids=["supervisor's", "user's"])
def test_a_page_that_is_written_and_executed_is_no_writable_data_besides(user: int) -> None:
    changes = {(PAGES, 100): LATER | P | user, (PAGES, 200): LATER | P | RW | user}
    broken = found(planted(changes))
    assert "write-execute" in broken and "writable-code" not in broken
