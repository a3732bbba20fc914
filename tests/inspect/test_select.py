import numpy as np
import pytest

from harness.inspect.memory_type import types
from harness.inspect.ranges import dump
from harness.inspect.select import condition
from harness.paging.x86.cpu import Cpu
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
    words[1024:1028] = [0x3007, 0x20_0000 | P | PS | XD, 1 << 51 | P, 0x4005]
    words[1536 : 1536 + len(ENTRIES)] = [n << 12 | raw for n, raw in enumerate(ENTRIES)]
    words[2048] = 0x5000 | P | RW | XD
    return words


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("w", [1, 3, 5]),
        ("write and not user", [1, 5]),
        ("u", [2, 3]),
        ("x", [0, 1, 2, 4, 5, "bad"]),
        ("w and x and not user", [1, 5]),
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
    state = Cpu.long_mode(4, 0)
    place: dict[object, int] = {"2M": 1 << 21, "bad": 2 << 21, "below": 3 << 21}
    want = [place.get(name) or int(str(name)) << 12 for name in chosen]
    found = dump(
        memory_of(space()),
        state.format,
        state.roots,
        exact=True,
        chosen=condition(state, types(None), text),
    )
    got = [one.first + n * one.size for one in found.ranges for n in range(one.pages)]
    assert got == want


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
