"""The declared cases are those that the matrix promises, and their words say what they declare."""

from itertools import product

import numpy as np
import pytest

from harness.check import families as declared
from harness.check.chain import Chain, Lanes
from harness.check.families import Family, families
from harness.check.stage import Control, Model
from harness.check.window import Window
from harness.machine.guest import State
from harness.machine.ram import LARGEST_RAM
from harness.paging.address import Physical, Span
from harness.paging.memory import BufferMemory
from harness.paging.table import Table

MIB, GIB = 1 << 20, 1 << 30
MODELS = [Model("4"), Model("5")]
DATA, CODE = [32 * MIB, 34 * MIB, GIB], [33 * MIB, 36 * MIB, 2 * GIB]
BITS = {"P": 0, "RW": 1, "US": 2, "A": 5, "D": 6, "PS": 7, "G": 8, "XD": 63}


def chain(model: Model) -> Chain:
    """A chain with its tables at 4 MiB, 5 MiB, ... by level; no guest is behind it."""
    cpu = model.cpu(Control())
    tables = [Table(cpu.format, Physical((4 + n) * MIB), n) for n in range(model.levels)]
    memory = BufferMemory(np.zeros(8, np.uint8))
    memory.span = Span(0, LARGEST_RAM - 1)
    window = Window(Span(0, 0), State(0, 0, 0, 0, 0, 0), (tables[0].slot(0),))
    data, code = np.array(DATA, np.uint64), np.array(CODE, np.uint64)
    return Chain(memory, cpu, tuple(tables), data, code, window)


def family(model: Model, name: str, **fixed: int) -> Family:
    """The one family of the full preset with this name and these values."""
    for one in families("full", [model], ()):
        axes = {axis.name: axis.values for axis in one.product.axes}
        if one.name == name and all(axes[key] == (value,) for key, value in fixed.items()):
            return one
    raise LookupError(name)


def lanes_of(one: Family) -> tuple[Lanes, dict[str, np.ndarray]]:
    """All legal cases of a family as lanes, and their values by axis."""
    numbers = np.flatnonzero(one.product.legal())
    places = one.product.places(numbers)
    values = {axis.name: axis.array[places[axis.name]] for axis in one.product.axes}
    return declared.lanes(one, chain(one.model), numbers), values


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.mode)
def test_every_named_bit_of_an_entry_stands_in_its_place_and_nowhere_else(model: Model) -> None:
    for level in range(model.levels):
        lanes, values = lanes_of(family(model, "entry", level=level))
        words = lanes.words[level]
        for name, bit in BITS.items():
            if name in values:
                assert np.array_equal(words >> np.uint64(bit) & np.uint64(1), values[name])
        if "PAT" in values:
            bit = 12 if level else 7
            assert np.array_equal(words >> np.uint64(bit) & np.uint64(1), values["PAT"])


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.mode)
def test_every_level_carries_every_combination_of_its_bits(model: Model) -> None:
    for level in range(model.levels):
        lanes, _ = lanes_of(family(model, "entry", level=level))
        low = {word & 0x1E7 | word >> 63 << 9 for word in lanes.words[level].tolist()}
        every = {
            sum(bit << place for place, bit in zip((0, 1, 2, 5, 6, 7, 8, 9), bits, strict=True))
            for bits in product((0, 1), repeat=8)
        }
        assert low == every


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.mode)
def test_the_other_levels_permit_everything(model: Model) -> None:
    level = 2
    lanes, _ = lanes_of(family(model, "entry", level=level))
    others = [words for n, words in enumerate(lanes.words) if n != level]
    assert all(((words & np.uint64(1 << 63 | 7)) == 7).all() for words in others)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.mode)
def test_every_two_levels_vary_together(model: Model) -> None:
    pairs = [one.varied for one in families("full", [model], ()) if one.name == "pair"]
    assert len(pairs) == model.levels * (model.levels - 1) // 2
    assert len({frozenset(varied) for varied in pairs}) == len(pairs)


def test_a_page_leads_to_the_frame_of_its_size_data_apart_from_code() -> None:
    for level in (0, 1, 2):
        one = family(MODELS[0], "place", level=level)
        lanes, values = lanes_of(one)
        frame = np.where(values["access"] == "fetch", np.uint64(CODE[level]), DATA[level])
        sizes = np.uint64((4096, 2 * MIB, GIB)[level] - 1)
        assert np.array_equal(lanes.words[level] & ~np.uint64(0xFFF), frame & ~np.uint64(0xFFF))
        assert ((lanes.words[level] & sizes) < 0x1000).all()
        assert (lanes.page == level).all()


def test_every_reserved_and_every_free_bit_is_tried_alone_and_with_each_other() -> None:
    for level in range(4):
        one = family(MODELS[0], "bits", level=level)
        _, values = lanes_of(one)
        sets = set(values["set"].tolist())
        # Bits 12 to 39 are a pointer's address, or the frame's.
        free = {*range(9, 12), *range(40, 63)}
        assert {str(bit) for bit in free} <= sets
        assert {f"{a}+{b}" for a in free for b in free if a < b} <= sets


def test_full_tries_every_control_state_at_every_level() -> None:
    for one in families("full", [MODELS[0]], ()):
        if one.name in ("entry", "pair", "rights", "place"):
            states = {(c.wp, c.nxe, c.smep, c.smap) for c in one.controls}
            assert len(states) == 16
            assert {c.pge for c in one.controls} == {False, True}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.mode)
def test_both_sides_of_every_canonical_edge_are_tried_and_the_window_is_not(model: Model) -> None:
    pages = declared.places(model)
    for bits in (48, 57):
        low, high = 1 << bits - 1, (1 << 64) - (1 << bits - 1)
        assert {low - 4096, low, high - 4096, high} <= set(pages)
    assert {0, (1 << 64) - 4096} <= set(pages)
    assert not any(page in model.window for page in pages)


def test_the_last_byte_is_accessed_as_a_byte() -> None:
    lanes, values = lanes_of(family(MODELS[0], "place", level=0))
    last = values["offset"] == "last-byte"
    assert ((lanes.address[last] & np.uint64(4095)) == 4095).all()
    assert (lanes.width[last] == 1).all()
    assert (lanes.width[~last] == 8).all()


def test_no_access_straddles_two_pages() -> None:
    lanes, _ = lanes_of(family(MODELS[0], "place", level=0))
    assert ((lanes.address & np.uint64(4095)) + lanes.width <= 4096).all()


def test_a_page_beyond_memory_is_marked_so_and_never_fetched_from() -> None:
    lanes, values = lanes_of(family(MODELS[0], "entry", level=0))
    beyond = (lanes.words[0] >> np.uint64(39) & np.uint64(1)) == 1
    assert np.array_equal(~lanes.backed, beyond)
    assert not ((values["access"] == "fetch") & beyond & (values["P"] == 1)).any()


def test_a_case_prints_keys_where_they_play_a_part() -> None:
    one = family(MODELS[0], "key", level=0)
    case = one.case(Control(pke=True, pkru=0x2A), 0)
    assert " PGE=1 PKE=1 PKS=0 PKRU=0x2a PKRS=0 level=0 " in case


def test_a_case_prints_all_that_makes_it() -> None:
    one = family(MODELS[1], "entry", level=4)
    assert one.case(Control(wp=False), 0) == (
        "family=entry mode=5 maxphyaddr=40 page1gb=1 amd=0 PSE=1"
        " WP=0 NXE=1 SMEP=1 SMAP=1 PGE=1"
        " level=4 P=0 RW=0 US=0 A=0 D=0 PS=0 G=0 XD=0 set=none"
        f" address={declared.home(MODELS[1]):#x} access=read by=supervisor ac=0"
    )
