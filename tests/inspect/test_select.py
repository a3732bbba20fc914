import numpy as np
import pytest

from harness.inspect import graph, select
from harness.inspect.ranges import dump
from harness.inspect.select import condition, fields
from harness.inspect.snapshot import QuestionError
from harness.inspect.x86.memory_type import types
from harness.paging.x86.cpu import Cpu, Cr4, Mode
from tests.inspect.spaces import PCD, PS, PWT, RW, US, XD, A, D, G, P, memory_of

PAT = 1 << 7
KEY = 59

# Eleven level-0 pages below tables that withhold nothing, then one of 2M, one malformed, and one
# page below a table that withholds the right to write.
ENTRIES = [
    P,
    P | RW,
    P | US,
    P | RW | US | XD,
    P | A,
    P | A | D | RW,
    P | G | XD,
    P | PCD | XD,
    P | PWT | XD,
    P | PAT | XD,
    P | 5 << KEY | XD,
]


def space() -> list[int]:
    words = [0] * 512 * 5
    words[0], words[512] = 0x1007, 0x2007
    words[1024:1028] = [0x3007, 0x20_0000 | P | PS | XD, 1 << 51 | P | RW, 0x4005]
    words[1536 : 1536 + len(ENTRIES)] = [n << 12 | raw for n, raw in enumerate(ENTRIES)]
    words[2048] = 0x5000 | P | RW | XD
    return words


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("w", [1, 3, 5, "bad"]),
        ("write and not user", [1, 5, "bad"]),
        ("u", [2, 3]),
        ("x", [0, 1, 2, 4, 5, "bad"]),
        ("w and x and not user", [1, 5, "bad"]),
        ("own-w", [1, 3, 5, "below"]),
        ("own-w and not w", ["below"]),
        ("A", [4, 5]),
        ("A and not D", [4]),
        ("G", [6]),
        ("KEY=5", [10]),
        ("KEY>0", [10]),
        ("size=2M", ["2M", "bad"]),
        ("size=2M and kind=page", ["2M"]),
        ("kind=malformed", ["bad"]),
        ("level=1", ["2M", "bad"]),
        ("type=UC-", [7]),
        ("type=WT", [8]),
        ("type in (WT, UC-)", [7, 8]),
        ("PAT", [9]),
        ("shared", []),
    ],
)
def test_a_condition_chooses_the_pages_that_it_says(text: str, chosen: list[object]) -> None:
    assert selected(Cpu.long_mode(4, 0), text) == placed(chosen)


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("w", [*range(len(ENTRIES)), "2M", "bad", "below"]),
        ("write and user", [2, 3]),
        ("granted-w", [1, 3, 5, "bad"]),
        ("own-w", [1, 3, 5, "below"]),
        ("not w", []),
    ],
)
def test_the_supervisor_writes_everywhere_without_write_protection(
    text: str, chosen: list[object]
) -> None:
    """SDM 4.6.1: with CR0.WP=0 no entry keeps it from that; what entries say has other names."""
    assert selected(Cpu.in_mode(Mode.LEVEL_4, 0, cr0=0), text) == placed(chosen)


def placed(names: list[object]) -> list[int]:
    place: dict[object, int] = {"2M": 1 << 21, "bad": 2 << 21, "below": 3 << 21}
    return [place.get(name) or int(str(name)) << 12 for name in names]


def selected(state: Cpu, text: str) -> list[int]:
    """The addresses of what a condition chooses."""
    chosen = condition(state, types(None), text)
    memory = memory_of(space())
    found = dump(memory, state.format, state.roots, exact=True, chosen=chosen)
    return [one.first + n * one.size for one in found.ranges for n in range(one.pages)]


@pytest.mark.parametrize(
    ("mode", "names"),
    [
        (Mode.LEVEL_4, {"PWT", "PCD", "PAT", "G", "KEY"}),
        (Mode.PAE, {"PWT", "PCD", "PAT", "G"}),
        (Mode.BITS_32, {"PWT", "PCD", "PAT", "G"}),
    ],
)
def test_the_fields_of_a_page_are_what_is_neither_a_right_nor_its_use(
    mode: Mode, names: set[str]
) -> None:
    """SDM tables 4-4, 4-6, 4-10, 4-11, 4-16, 4-18 and 4-20: all but P, R/W, U/S, XD, A, D, PS."""
    format = Cpu.in_mode(mode, 0, cr4=Cr4.PSE).format
    for level in format.page_levels():
        found = fields(format, level)
        assert set(found) == names
        assert found["PAT"] == (1 << 12 if level else 1 << 7)


def test_every_row_has_a_value_that_its_name_may_have() -> None:
    state = Cpu.long_mode(4, 0)
    columns, axes = select._columns(state, types(None))
    space_ = graph.read(memory_of(space()), state.format, state.roots)
    for rows in graph.rows(space_):
        values = select._Values(columns, rows)
        assert set(values) == set(axes) and len(values) == len(axes)
        for name, column in values.items():
            assert set(np.atleast_1d(column).tolist()) <= axes[name] | {""}, name


@pytest.mark.parametrize("text", ["w and", "colour=3", "KEY=16", "type=UD", "level=4"])
def test_what_is_no_condition_is_refused_with_a_question(text: str) -> None:
    with pytest.raises(QuestionError):
        condition(Cpu.long_mode(4, 0), types(None), text)


def test_a_pat_gives_the_types_their_names() -> None:
    state = Cpu.long_mode(4, 0)
    chosen = condition(state, types(0x0407_0506_0007_0106), "type in (WC, WP)")
    found = dump(memory_of(space()), state.format, state.roots, chosen=chosen)
    # PWT alone chooses PA1, which is WC here; none chooses PA6, which is WP.
    assert [one.first for one in found.ranges] == [8 << 12]
    assert types(0x0407_0506_0007_0106) == ("WB", "WC", "UC-", "UC", "WB", "WP", "UC-", "WT")


def test_a_pat_that_no_processor_takes_is_refused() -> None:
    with pytest.raises(ValueError, match="0x2 as PA1, which is no type"):
        types(0x0206)


def test_shared_pages_are_those_at_several_addresses() -> None:
    words = np.zeros(512 * 5, np.uint64)
    words[0], words[512], words[513] = 0x1007, 0x2007, 0x3007
    words[1024:1026] = 0x4007
    words[1536] = 0x9083
    words[2048] = 0x8007
    state = Cpu.long_mode(4, 0)
    chosen = condition(state, types(None), "shared")
    found = dump(memory_of(words.tolist()), state.format, state.roots, chosen=chosen)
    assert [(one.first, one.paths) for one in found.ranges] == [(0, 2)]
