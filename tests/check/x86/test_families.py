"""The declared cases are those that the matrix promises, and their words say what they declare."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from harness.check.x86.matrix import families as declared
from harness.check.x86.matrix import run as matrix
from harness.check.x86.matrix.chain import INVPCID, Chain, Lanes
from harness.check.x86.matrix.families import Family, families
from harness.check.x86.matrix.stage import UPPER_WINDOW_SLOT, WINDOW_SLOT, Control, Model
from harness.check.x86.matrix.warm import PVM_KEEPS_XD, sequences
from harness.check.x86.quirks import ENDS_AT_LAST_BYTE, PVM_KEEPS_XD_PAGE
from harness.check.x86.window import Window
from harness.machine.ram import ARENA, LARGEST_RAM
from harness.machine.x86.guest import State
from harness.machine.x86.processor import FEATURES, MachineInfo
from harness.machine.x86.registry import ENGINES, engine_named
from harness.paging.address import Physical, Span
from harness.paging.memory import BufferMemory
from harness.paging.table import Table
from tests.check.x86.test_matrix import processor

MIB, GIB = 1 << 20, 1 << 30
EVERYTHING = MachineInfo(
    dict.fromkeys({0, *(leaf for leaf, _, _ in FEATURES.values())}, ((1 << 32) - 1,) * 4)
)
MODELS = [Model("4"), Model("5")]
EVERY_MODE = [*MODELS, Model("pae"), Model("32"), Model("32", pse=False)]
DATA, CODE = [32 * MIB, 34 * MIB, GIB], [33 * MIB, 36 * MIB, 2 * GIB]
BITS = {"P": 0, "RW": 1, "US": 2, "A": 5, "D": 6, "PS": 7, "G": 8, "XD": 63}


def chain(model: Model) -> Chain:
    """A chain with its tables at 4 MiB, 5 MiB, ... by level; no guest is behind it."""
    cpu = model.cpu(Control())
    tables = [Table(cpu.format, Physical((4 + n) * MIB), n) for n in range(model.levels)]
    memory = BufferMemory(np.zeros(8, np.uint8))
    memory.span = Span(0, LARGEST_RAM - 1)
    window = Window((Span(0, 0),), State(0, 0, 0, 0, 0, 0), (tables[0].slot(0),), ARENA)
    data, code = np.array(DATA, np.uint64), np.array(CODE, np.uint64)
    return Chain(memory, cpu, tuple(tables), data, code, code, window)


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


@pytest.mark.parametrize("model", EVERY_MODE, ids=str)
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


@pytest.mark.parametrize("model", EVERY_MODE, ids=str)
def test_every_level_carries_every_combination_of_its_bits(model: Model) -> None:
    for level in range(model.levels):
        lanes, _ = lanes_of(family(model, "entry", level=level))
        low = {word & 0x1E7 | word >> 63 << 9 for word in lanes.words[level].tolist()}
        places = (0, 1, 2, 5, 6, 7, 8, 9) if model.mode != "32" else (0, 1, 2, 5, 6, 7, 8)
        every = {
            sum(bit << place for place, bit in zip(places, bits, strict=True))
            for bits in product((0, 1), repeat=len(places))
        }
        assert low == every


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.mode)
def test_the_other_levels_permit_everything(model: Model) -> None:
    level = 2
    lanes, _ = lanes_of(family(model, "entry", level=level))
    others = [words for n, words in enumerate(lanes.words) if n != level]
    assert all(((words & np.uint64(1 << 63 | 7)) == 7).all() for words in others)


@pytest.mark.parametrize("model", EVERY_MODE, ids=str)
def test_every_two_levels_vary_together(model: Model) -> None:
    pairs = [one.varied for one in families("full", [model], ()) if one.name == "pair"]
    assert len(pairs) == model.levels * (model.levels - 1) // 2
    assert len({frozenset(varied) for varied in pairs}) == len(pairs)


@pytest.mark.parametrize("model", EVERY_MODE, ids=str)
def test_a_and_d_vary_in_every_two_entries_at_once(model: Model) -> None:
    some = [one for one in families("quick", [model], ()) if one.name == "accessed"]
    assert len(some) == model.levels * (model.levels - 1) // 2
    for one in some:
        lanes, _ = lanes_of(one)
        (upper, _), (lower, _) = one.varied.items()
        marked = lanes.words[upper] >> np.uint64(5) & np.uint64(3)
        marked = marked << np.uint64(2) | lanes.words[lower] >> np.uint64(5) & np.uint64(3)
        assert set(marked.tolist()) == set(range(16))


def test_a_page_with_any_right_of_keys_is_below_every_entry_that_withholds() -> None:
    found = {}
    for one in families("quick", [MODELS[0]], ()):
        if one.name == "locked":
            lanes, values = lanes_of(one)
            (upper, _), (lower, _) = one.varied.items()
            assert np.array_equal(
                lanes.words[lower] >> np.uint64(59) & np.uint64(15), values["lower.key"]
            )
            assert (lanes.page == lower).all()
            found[upper, lower] = set((lanes.words[upper] & np.uint64(7)).tolist())
    assert set(found) == {(1, 0), (2, 0), (3, 0), (2, 1), (3, 1), (3, 2)}
    assert all(rights == {1, 3, 5, 7} for rights in found.values())
    for value in declared.KEY_RIGHTS[:4]:
        assert {value >> 2 * key & 3 for key in (4, 5, 6, 7)} == {0, 1, 2, 3}


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


@pytest.mark.parametrize("model", EVERY_MODE, ids=str)
def test_bits_that_are_ignored_are_tried_below_and_above_the_address(model: Model) -> None:
    """SDM volume 3A, 4.3 to 4.5: bit 11 everywhere, in long mode bits 62:52 but for keys."""
    for level in range(model.levels):
        axes = {axis.name: axis.values for axis in family(model, "entry", level=level).product.axes}
        assert {"none", "11", *(("52", "58") if model.long else ())} <= set(axes["set"])
        if level > 2:  # where no page is, all of an address is a table's
            assert set(axes["set"]) == {"none", "11", "52", "58", "40", "51", "40+51"}


@pytest.mark.parametrize("model", EVERY_MODE, ids=str)
def test_each_way_to_flush_is_tried_with_and_without_global_pages(model: Model) -> None:
    """And INVPCID with PCIDs, which long mode alone has (SDM volume 3A, 4.10.1)."""
    found: dict[tuple[object, ...], set[tuple[bool, bool]]] = {}
    for one in families("quick", [model], ()):
        if one.name == "flush":
            ways = next(axis.values for axis in one.product.axes if axis.name == "flush")
            states = {(control.first.pge, control.first.pcide) for control in one.controls}
            found[ways] = found.get(ways, set()) | states
            assert (one.feature == "invpcid") == (ways == INVPCID)
    both = {(True, False), (False, False)}
    with_pcids = {(True, True)} if model.long else set()
    assert found == {("all", "page", "global"): both, INVPCID: both | with_pcids}


@pytest.mark.parametrize("model", EVERY_MODE, ids=str)
def test_the_usual_address_is_in_the_middle_of_a_page_and_has_another_index_at_each_level(
    model: Model,
) -> None:
    home = declared.home(model)
    assert home & 0xFFF == 0x800
    indices = [level.index(home) for level in model.format.levels]
    assert len({*indices}) == len(indices) and 0 not in indices


ADDRESSED = {
    (model, level)
    for model in EVERY_MODE
    for level in range(model.levels)
    if declared.maps_pages(model, level)
}


@pytest.mark.parametrize(("model", "level"), sorted(ADDRESSED), ids=str)
def test_a_page_has_memory_where_its_address_is_below_its_end(model: Model, level: int) -> None:
    """SDM volume 3A, tables 4-4 to 4-20; of a 4M page bits 20:13 are bits 39:32 of the address."""
    lanes, _ = lanes_of(family(model, "bits", level=level))
    word = lanes.words[level]
    page = (word & np.uint64(0x80) != 0) | (level == 0)
    lowest = {0: 12, 1: 22 if model.mode == "32" else 21, 2: 30}[level]
    highest = 32 if model.mode == "32" else 40
    address = word & np.uint64((1 << highest) - (1 << lowest))
    if model.mode == "32" and level:
        address |= (word >> np.uint64(13) & np.uint64(0xFF)) << np.uint64(32)
    there, present = ~page | (address < np.uint64(model.ram_bytes)), word & np.uint64(1) != 0
    assert np.array_equal(lanes.backed[present], there[present]) and not there[present].all()


CLASSES = {
    (Model("32", 36), 1): "17 21 17+21",
    (Model("32", pse36=False), 1): "13 21 13+21",
    (Model("pae", 36), 0): "36 62 36+62",
    (Model("pae"), 1): "40 62 40+62 13 20 13+20 20+40 13+62 13+40 20+62",
    (Model("4", 52), 1): "13 20 13+20",
    (Model("4", 46), 0): "46 51 46+51",
    (Model("5"), 2): "40 51 40+51 13 29 13+29 29+40 13+51 13+40 29+51",
    (Model("5", 39), 4): "39 51 39+51",
}


@pytest.mark.parametrize(("model", "level"), CLASSES, ids=str)
def test_each_class_of_reserved_bits_is_tried_at_both_ends_and_with_another(
    model: Model, level: int
) -> None:
    axes = {axis.name: axis.values for axis in family(model, "entry", level=level).product.axes}
    assert set(CLASSES[model, level].split()) <= set(axes["set"])


def test_every_bit_of_a_pdpte_but_its_address_is_tried_in_three_registers() -> None:
    registers = set()
    for one in families("quick", [Model("pae", 36)], ()):
        if one.name == "pdpte":
            axes = {axis.name: axis.values for axis in one.product.axes}
            assert {*map(str, range(1, 12)), *map(str, range(36, 64))} <= set(axes["pdpte.set"])
            lanes, values = lanes_of(one)
            registers |= set(lanes.register[0].tolist())
            assert np.array_equal(lanes.pdpte[0] & np.uint64(1), values["pdpte.P"])
            high = np.array([1 << 63 if bits == "63" else 0 for bits in values["pdpte.set"]])
            assert np.array_equal(lanes.pdpte[0] >> np.uint64(63) << np.uint64(63), high)
    assert registers == {0, 2, 3}


def test_a_key_is_in_bits_62_to_59() -> None:
    lanes, values = lanes_of(family(MODELS[0], "key", level=0))
    assert np.array_equal(lanes.words[0] >> np.uint64(59), values["key"])
    assert set(values["key"].tolist()) == set(range(16))


def test_every_key_has_every_right_and_no_two_have_the_same_throughout() -> None:
    rights = [[value >> 2 * key & 3 for value in declared.KEY_RIGHTS] for key in range(16)]
    assert all(set(one) == {0, 1, 2, 3} for one in rights)
    assert len({tuple(one) for one in rights}) == 16


def test_pkrs_never_denies_the_window_its_key() -> None:
    for one in families("full", [MODELS[0]], ()):
        assert all(control.first.pkrs & 3 == 0 for control in one.controls)


@pytest.mark.parametrize("model", EVERY_MODE, ids=str)
def test_an_access_is_as_wide_as_its_kind_and_mode_have_it(model: Model) -> None:
    lanes, values = lanes_of(family(model, "place", level=0))
    for access, offset, width in set(
        zip(values["access"].tolist(), values["offset"].tolist(), lanes.width.tolist(), strict=True)
    ):
        word = 8 if access == "descriptor" or model.long else 4
        assert width == (1 if offset == "last-byte" else word)
    last = values["offset"] == "last-word"
    ends = (lanes.address[last] & np.uint64(4095)) + lanes.width[last]
    assert (ends == 4096).all()


def test_a_descriptor_is_read_whoever_is_the_cause() -> None:
    lanes, values = lanes_of(family(MODELS[0], "rights"))
    assert np.array_equal(lanes.implicit, values["access"] == "descriptor")
    assert set(lanes.user[lanes.implicit].tolist()) == {False, True}


def test_no_mode_puts_code_where_another_in_the_same_guest_has_data() -> None:
    frames = {mode: Model(mode).frames for mode in ("32", "pae", "4", "5")}
    assert frames["32"].clip(frames["pae"]) is None
    assert frames["4"] == frames["5"]
    sizes = {mode: [level.size for level in Model(mode).format.levels[:3]] for mode in ("4", "5")}
    assert sizes["4"] == sizes["5"]


def test_what_no_engine_can_be_asked_is_declared_all_the_same() -> None:
    unasked = {(one.name, one.unasked) for one in families("quick", [MODELS[0]], ())}
    assert {one for one in unasked if one[1]} == {
        ("lam", "no engine can mask metadata in pointers (LAM)")
    }
    plan = matrix.plan("quick", ["4"], "bochs", processor(), "family in (lam, rights)")
    assert plan.left_out["no engine can mask metadata in pointers (LAM)"] == 36


def test_what_another_engine_can_is_said_to_be_its() -> None:
    needing = [one for one in families("quick", [MODELS[0]], ()) if one.name == "shadow"]
    for one in needing:
        assert one.lacks("bochs", processor()) is None
        for engine in ("tcg", "kvm"):
            assert one.lacks(engine, processor()) == (
                f"{engine} is not asked to execute shadow-stack accesses (CET): bochs is"
            )
    plan = matrix.plan("quick", ["4"], "tcg", processor(), "family in (shadow, rights)")
    assert {part.family.name for part in plan.work} == {"rights"}
    assert sum(plan.skipped.values()) > 100_000


def test_a_processor_with_shadow_stacks_is_one_that_bochs_alone_can_be() -> None:
    processors = {one.model.processor for one in families("quick", MODELS, ()) if one.needs}
    for wanted in (one for one in processors if one.shadow_stacks):
        assert engine_named("bochs").processor(wanted) == "model=tigerlake"
        assert engine_named("tcg").processor(wanted) is None


def test_halves_are_asked_about_where_an_engine_tells_them_apart() -> None:
    needing = [one for one in families("quick", MODELS, ()) if one.name == "halves"]
    assert {one.model.mode for one in needing} == {"4", "5"}
    cannot = "tell apart addresses of the user's and the supervisor's by bit 63 (LASS)"
    for one in needing:
        wanted = one.model.processor
        assert [n for n, e in ENGINES.items() if e.processor(wanted) is not None] == ["bochs"]
        assert one.lacks("bochs", processor()) is one.lacks("bochs", processor(), (3, 0)) is None
        assert one.lacks("bochs", processor(), (2, 7)) == f"bochs 2.7 cannot {cannot}: 3.0 can"
        assert one.lacks("tcg", processor()) == f"tcg is not asked to {cannot}: bochs is"


def test_a_bit_of_cr4_that_the_processor_lacks_is_never_sent() -> None:
    found = (one for one in families("quick", [MODELS[0]], ()) if one.feature == "la57")
    (one,) = found
    lacking = processor("la57")
    assert one.lacks("tcg", processor()) is None
    for engine in ("tcg", "kvm"):
        assert one.lacks(engine, lacking) == (
            f"the engine's processor has no LA57, and {engine} is not asked to refuse what CR0, CR3"
            " and CR4 cannot hold"
        )
    assert one.lacks("bochs", lacking) == "the engine's processor has no LA57"
    plan = matrix.plan("quick", ["4"], "tcg", lacking, "family=load or family=rights")
    changed = {part.family.case(part.controls[0], 0) for part in plan.work}
    assert any("flush=cr3" in case for case in changed)
    assert not any("flush=cr4" in case for case in changed)
    assert any("no LA57" in reason for reason in plan.skipped)


def test_cr3_is_not_said_to_be_refused_for_a_bit_of_cr4() -> None:
    some = [one for one in families("quick", [MODELS[0]], ()) if one.feature == "pcid"]
    of_cr3 = [one for one in some if next(iter(one.axes["flush"])) == "cr3" and not one.needs]
    assert of_cr3
    for one in of_cr3:
        for engine in ("tcg", "kvm", "bochs"):
            assert one.lacks(engine, processor("pcid")) == "the engine's processor has no PCID"


def changes(model: Model, register: str, engine: str) -> set[tuple[str, int]]:
    """The bits of a register that an engine with every feature changes, and CR4.PCIDE there."""
    return {
        (bits, control.first.values()["PCIDE"])
        for one in families("quick", [model], ())
        if one.name == "load" and one.lacks(engine, EVERYTHING) is None
        for control in one.controls
        if next(iter(one.axes["flush"])) == register
        for bits in map(str, one.axes["changed"])
    }


def test_what_every_engine_survives_is_asked_of_each() -> None:
    """With PCIDs bit 63 of CR3 is taken, but an engine need not take it back."""
    of_bochs = changes(MODELS[0], "cr3", "bochs")
    assert {("0", 1), ("3+4+11", 1), ("63", 1), ("0", 0)} <= of_bochs
    for engine in ("tcg", "kvm"):
        found = {one for one in changes(MODELS[0], "cr3", engine) if one[1]}
        assert found == {("0", 1), ("3+4+11", 1)}


OF_ALL = {
    ("4", "cr0"): {("16", 0)},
    ("4", "cr4"): {("12", 0), ("4+12", 0), ("17", 0)},
    ("pae", "cr0"): {("16", 0)},
    ("pae", "cr3"): {("3", 0), ("4", 0)},
    ("pae", "cr4"): set[tuple[str, int]](),
    ("32", "cr4"): set[tuple[str, int]](),
}
"""By mode and register, the bits whose change even an engine survives that refuses nothing; and
whether PCIDE is set."""


@pytest.mark.parametrize(("mode", "register"), OF_ALL)
def test_what_must_be_refused_is_asked_of_none_that_may_not(mode: str, register: str) -> None:
    for engine in ("tcg", "kvm"):
        assert changes(Model(mode), register, engine) == OF_ALL[mode, register]
    assert OF_ALL[mode, register] <= changes(Model(mode), register, "bochs")


@pytest.mark.parametrize("mode", ["pae", "32"])
def test_outside_long_mode_cr3_has_no_bit_that_is_refused(mode: str) -> None:
    """SDM volume 3A, tables 4-3 and 4-7: its 32 bits are an address, PCD and PWT, or ignored."""
    assert changes(Model(mode), "cr3", "bochs") == {("3", 0), ("4", 0)}


IN_VALUES = {
    Model("32"): {"mode", "maxphyaddr", "pse36", "PSE"},
    Model("pae"): {"mode", "maxphyaddr", "PSE"},
    Model("4"): {"mode", "maxphyaddr", "page1gb", "amd", "PSE"},
    Model("5"): {"mode", "maxphyaddr", "page1gb", "amd", "PSE"},
}


@pytest.mark.parametrize("model", IN_VALUES, ids=str)
def test_a_case_prints_of_a_processor_what_plays_a_part_in_its_mode(model: Model) -> None:
    assert set(model.values()) == IN_VALUES[model]


def test_cd_and_nw_are_changed_alone_and_together() -> None:
    for model in EVERY_MODE[:4]:
        assert {("29", 0), ("30", 0), ("29+30", 0)} <= changes(model, "cr0", "bochs")


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.mode)
def test_paging_and_protection_are_left_alone_and_together(model: Model) -> None:
    assert {("0", 0), ("31", 0), ("0+31", 0)} <= changes(model, "cr0", "bochs")


CONTROL_BITS = {
    "wp": ("cr0", 16),
    "nxe": ("efer", 11),
    "smep": ("cr4", 20),
    "smap": ("cr4", 21),
    "pge": ("cr4", 7),
    "pke": ("cr4", 22),
    "pks": ("cr4", 24),
    "cet": ("cr4", 23),
    "lass": ("cr4", 27),
    "pcide": ("cr4", 17),
    "pcd": ("cr3", 4),
}
"""Where each part of a control state stands (SDM volume 3A, 2.2.1, 2.5 and 4.2)."""


@pytest.mark.parametrize("model", EVERY_MODE, ids=str)
def test_every_part_of_a_control_state_is_one_bit_of_a_register(model: Model) -> None:
    nothing = Control(**dict.fromkeys(CONTROL_BITS, False))
    usual = model.cpu(nothing)
    for name, (register, bit) in CONTROL_BITS.items():
        changed = model.cpu(replace(nothing, **{name: True}))
        assert getattr(changed, register) ^ getattr(usual, register) == 1 << bit
        assert replace(changed, **{register: getattr(usual, register)}) == usual
    rights = model.cpu(replace(nothing, pkru=0x1234, pkrs=0x5678))
    assert (rights.pkru, rights.pkrs) == (0x1234, 0x5678)
    assert replace(rights, pkru=0, pkrs=0) == usual
    assert {*CONTROL_BITS, "pkru", "pkrs"} == {*vars(Control())}


MORE_IN_FULL = {
    "locked": {"upper.XD", "lower.US"},
    "shadow": {"upper.D", "lower.A", "lower.XD"},
}
"""The bits that vary in the full preset alone."""


@pytest.mark.parametrize("name", MORE_IN_FULL)
def test_full_varies_more_bits_of_two_entries_than_quick(name: str) -> None:
    found: dict[str, list[dict[str, tuple[object, ...]]]] = {}
    for preset in ("quick", "full"):
        axes = [one.product.axes for one in families(preset, [MODELS[0]], ()) if one.name == name]
        found[preset] = [{axis.name: axis.values for axis in some} for some in axes]
    assert len(found["quick"]) == len(found["full"])
    more = set[str]()
    for quick, full in zip(found["quick"], found["full"], strict=True):
        assert all({*values} <= {*full[axis]} for axis, values in quick.items())
        assert full["ac"] == (0, 1)
        more |= {*full} - {*quick}
    assert more == MORE_IN_FULL[name]


def test_full_tries_every_control_state_at_every_level() -> None:
    for one in families("full", [MODELS[0]], ()):
        if one.name in ("entry", "pair", "rights", "place"):
            controls = [control.first for control in one.controls]
            states = {(c.wp, c.nxe, c.smep, c.smap) for c in controls}
            assert len(states) == 16
            assert {c.pge for c in controls} == {False, True}


BESIDE: dict[str, tuple[tuple[Control, ...], Control, set[str]]] = {
    "entry": (
        declared.ONE_OFF,
        Control(),
        {"", "wp", "nxe", "smep", "smap", "wp nxe smep smap pge"},
    ),
    "shadow": (declared.SHADOW_CONTROLS, Control(cet=True), {"", "smap", "nxe", "smep smap"}),
    "halves": (declared.HALVES_CONTROLS, Control(lass=True), {"", "smap", "smep", "smep smap"}),
    "locked": (
        *(declared.LOCKED_CONTROLS, declared.KEYED),
        {"", "wp", "nxe", "smep", "smap", "pks", "pke"},
    ),
    "locked stacks": (
        *(declared.LOCKED_SHADOW_CONTROLS, replace(declared.KEYED, cet=True)),
        {"", "smap", "pks", "pke"},
    ),
    "key": (declared.KEY_CONTROLS[5:], declared.KEYED, {"wp", "smap", "pks", "pke"}),
}
"""Control states, one of them, and the bits in which the others differ from it."""


@pytest.mark.parametrize("name", BESIDE)
def test_each_control_bit_that_plays_a_part_is_changed_alone(name: str) -> None:
    states, usual, expected = BESIDE[name]
    bits = [
        " ".join(bit for bit in vars(Control()) if getattr(one, bit) != getattr(usual, bit))
        for one in states
    ]
    assert len(bits) == len({*bits}) and {*bits} == expected


def test_full_tries_keys_of_users_and_supervisors_alone_and_together() -> None:
    """Under every state of WP and SMAP, with all rights of one beside all of the other."""
    (one, *_) = (one for one in families("full", [MODELS[0]], ()) if one.name == "key")
    states = [control.first for control in one.controls]
    heeded = ((True, True), (True, False), (False, True))
    every = set(product((False, True), (False, True), heeded))
    assert {(c.wp, c.smap, (c.pke, c.pks)) for c in states} == every
    assert len({(c.pkru, c.pkrs) for c in states}) == len(declared.KEY_RIGHTS) ** 2
    assert len(states) == len({*states}) == len(every) * len(declared.KEY_RIGHTS) ** 2


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.mode)
def test_both_sides_of_every_canonical_edge_are_tried_and_the_window_is_not(model: Model) -> None:
    pages = declared.places(model)
    for bits in (48, 57):
        low, high = 1 << bits - 1, (1 << 64) - (1 << bits - 1)
        assert {low - 4096, low, high - 4096, high} <= set(pages)
    assert {0, (1 << 64) - 4096} <= set(pages)
    top = model.format.levels[-1]
    assert WINDOW_SLOT not in {top.index(page) for page in (*pages, declared.home(model))}
    assert [top.index(window.first) for window in model.windows] == [WINDOW_SLOT]
    lower, upper = replace(model, lass=True).windows
    assert [lower] == [*model.windows]
    assert (top.index(upper.first), upper.size) == (UPPER_WINDOW_SLOT, top.size)
    assert upper.first >> (9 * model.levels + 11) == (1 << 64) - 1 >> (9 * model.levels + 11)


def test_the_last_byte_is_accessed_as_a_byte() -> None:
    lanes, values = lanes_of(family(MODELS[0], "place", level=0))
    last = values["offset"] == "last-byte"
    assert ((lanes.address[last] & np.uint64(4095)) == 4095).all()
    assert (lanes.width[last] == 1).all()
    assert (lanes.width[~last] == 8).all()
    for offset, begins in ("first", 0), ("middle", 0x800), ("last-word", 0xFF8):
        there = values["offset"] == offset
        assert there.any() and ((lanes.address[there] & np.uint64(4095)) == begins).all()


def test_code_is_where_cases_fetch_from_and_a_single_byte_at_the_end_of_a_page() -> None:
    one = family(MODELS[0], "place", level=0)
    lanes, values = lanes_of(one)
    places, single = declared.code_places(one)
    fetched = lanes.address[values["access"] == "fetch"]
    assert {*places.tolist()} == {*fetched.tolist()}
    assert np.array_equal(single, places & np.uint64(0xFFF) == 0xFFF)


def test_no_access_straddles_two_pages() -> None:
    lanes, _ = lanes_of(family(MODELS[0], "place", level=0))
    assert ((lanes.address & np.uint64(4095)) + lanes.width <= 4096).all()


def test_a_page_beyond_memory_is_marked_so_and_never_fetched_from() -> None:
    lanes, values = lanes_of(family(MODELS[0], "entry", level=0))
    beyond = (lanes.words[0] >> np.uint64(39) & np.uint64(1)) == 1
    assert np.array_equal(~lanes.backed, beyond)
    assert not ((values["access"] == "fetch") & beyond & (values["P"] == 1)).any()


@pytest.mark.parametrize("model", MODELS, ids=str)
@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_a_present_entry_that_leads_elsewhere_or_code_to_no_memory_is_left_out_and_no_other(
    model: Model, level: int
) -> None:
    """By the entry: P, PS above the lowest level, and its address, of which bits 39:32 lead a page
    to no memory.  Bit 12 is PAT of a large page, and of a pointer's address."""
    one = family(model, "entry", level=level)
    numbers = np.arange(math.prod(one.product.shape))
    places = one.product.places(numbers)
    values = {axis.name: axis.array[places[axis.name]] for axis in one.product.axes}
    word = declared.lanes(one, chain(model), numbers).words[level]
    present, fetch = word & np.uint64(1) != 0, values["access"] == "fetch"
    page = (word & np.uint64(0x80) != 0) | (level == 0)  # or none that there can be
    maps = level < 3
    beyond = word & np.uint64((1 << 40) - (1 << 32)) != 0
    frame = np.where(fetch, np.uint64(CODE[level % 3]), np.uint64(DATA[level % 3]))
    moved = (word ^ frame) & np.uint64((1 << 32) - (1 << min(12 + 9 * level, 32))) != 0
    table = (3 + level) * MIB
    left_out = {
        "there is no code": maps & page & beyond & (fetch | (values["access"] == "descriptor")),
        "the page's address": maps & page & moved,
        "the table's address": ~page & (word & np.uint64((1 << 40) - (1 << 12)) != table),
    }
    met = set[str]()
    for begins, expected in left_out.items():
        (rule,) = (rule for rule in one.product.rules if rule.reason.startswith(begins))
        out = np.broadcast_to(rule.leaves_out(one.product.grid), one.product.shape).ravel()
        assert np.array_equal(out, present & expected), begins
        met |= {begins} if out.any() else set()
    pointers = {"the table's address"} if level in (1, 2) else set()
    assert met == pointers | ({"there is no code"} if maps else set())


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_pointers_carry_metadata_in_all_bits_that_each_width_leaves_to_it(model: Model) -> None:
    """LAM48 leaves bits 62:48 and LAM57 bits 62:57; bit 63 tells the halves apart."""
    (one,) = (one for one in families("quick", [model], ()) if one.name == "lam")
    (tagged,) = (axis.values for axis in one.product.axes if axis.name == "address")
    assert {*tagged} == {declared.home(model) | tag for tag in (0x7FFF << 48, 0x3F << 57, 1 << 62)}


@pytest.mark.parametrize("model", [MODELS[0], Model("32")], ids=str)
def test_where_ps_does_not_vary_it_makes_large_pages_and_sets_no_pat_of_small_ones(
    model: Model,
) -> None:
    found = set[tuple[str, int]]()
    for one in (*families("quick", [model], ()), *sequences("quick", [model])):
        axes = {axis.name: axis.values for axis in one.product.axes}
        for level, prefix in one.varied.items():
            if len(axes.get(f"{prefix}PS", ())) == 1:
                assert axes[f"{prefix}PS"] == (int(level > 0),)
                found.add((one.name, int(level > 0)))
    assert {("alias", 0), ("alias", 1), ("change", 0), ("change", 1)} <= found


OTHER_THAN_WRUSS = {"shadow-read", "return", "call", "read", "write", "fetch"}
LEFT_OUT: dict[str, tuple[tuple[str, ...], set[tuple[str | int, ...]]]] = {
    "WRUSS does": (("access", "by"), {(access, "wruss") for access in OTHER_THAN_WRUSS}),
    "the user has no stack": (("access", "by"), {("call", "user")}),
    "outside long mode the stub": (
        ("access", "by"),
        {("shadow-read", "supervisor"), ("shadow-write", "supervisor")},
    ),
    "the user's stack, which RET": (("access", "by"), {("return", "user")}),
    "no descriptor table": (
        ("access", "address"),
        {
            ("descriptor", address)
            for address in declared.places(MODELS[0])
            if 1 << 47 <= address < (1 << 64) - (1 << 47)
        },
    ),
    ENDS_AT_LAST_BYTE.departs.removesuffix("."): (
        ("offset", "access", "address"),
        {("last-byte", "fetch", (1 << 64) - 0x1000)},
    ),
    "the code that a fetch": (("offset", "access"), {("last-word", "fetch")}),
    "a push or a descriptor": (
        ("offset", "access"),
        {("last-byte", "push"), ("last-byte", "descriptor")},
    ),
    "EFLAGS.AC plays no part in an access by the user": (
        ("by", "ac", "first.by", "first.ac"),
        {
            (by, ac, first_by, first_ac)
            for by, first_by in product(("supervisor", "user"), repeat=2)
            for ac, first_ac in product((0, 1), repeat=2)
            if ("user", 1) in ((by, ac), (first_by, first_ac))
        },
    ),
    "a translation made with NXE=1": (("XD", "flush"), {(1, "none")}),
    PVM_KEEPS_XD.reason: (
        ("XD", "US", "by", "flush", "access"),
        {(1, 1, "user", "page", access) for access in ("read", "write")},
    ),
    "a translation made with PKE=0": (("flush",), {("none",)}),
    "MOV CR3 may leave": (("G", "flush"), {(1, "all")}),
    "INVPCID may leave": (
        ("G", "flush"),
        {(1, "invpcid-address"), (1, "invpcid-context"), (1, "invpcid-rest")},
    ),
}
"""What rules leave out, by how each begins: the values of these axes, whatever the others have."""


def test_a_rule_leaves_out_what_it_says_and_nothing_else() -> None:
    met: dict[str, set[tuple[str | int, ...]]] = {begins: set() for begins in LEFT_OUT}
    legacy, long = Model("32"), MODELS[0]
    for one in (
        *families("quick", [long, legacy], (), [ENDS_AT_LAST_BYTE]),
        *sequences("quick", [long], [PVM_KEEPS_XD_PAGE]),
    ):
        for rule in one.product.rules:
            for begins in filter(rule.reason.startswith, LEFT_OUT):
                names, listed = LEFT_OUT[begins]
                axes = [axis for axis in one.product.axes if axis.name in names]
                out = rule.leaves_out({axis.name: one.product.grid[axis.name] for axis in axes})
                place = [[axis.name for axis in axes].index(name) for name in names]
                cases = [
                    tuple(case[n] for n in place)
                    for case in product(*(axis.values for axis in axes))
                ]
                left_out = {cases[n] for n in np.flatnonzero(out)}
                assert left_out == listed & {*cases}, rule.reason
                met[begins] |= left_out
    assert met == {begins: listed for begins, (_, listed) in LEFT_OUT.items()}


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
