"""Which states a processor can be asked to take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from harness.machine.errors import Misuse
from harness.machine.ram import ARENA, MIB, RAM_UNIT
from harness.machine.x86.guest import Guest
from harness.machine.x86.processor import (
    FEATURES,
    MachineInfo,
    State,
    changeable,
    check_change,
    check_state,
)
from tests.machine.handmade import (
    CR0,
    CR0_WP,
    CR4_LA57,
    CR4_LASS,
    CR4_PAE,
    CR4_PCIDE,
    CR4_PGE,
    CR4_PKE,
    CR4_PKS,
    CR4_PSE,
    CR4_SMAP,
    CR4_SMEP,
    EFER,
    EFER_LMA,
    EFER_LME,
    EFER_NXE,
    MODES,
    PAGE,
    HandMade,
)

RAM = 64 * MIB
LONG = State(CR0, 40 * MIB, CR4_PAE | CR4_PGE, EFER, window=1 << 40, entry_cr3=41 * MIB)
UPPER = 0xFFFF_9000_0000_0000
PAE = replace(LONG, efer=EFER_NXE, window=1 << 30)
BITS_32 = replace(PAE, cr4=CR4_PSE, efer=0)


def processor(*features: str) -> MachineInfo:
    """One with these features alone."""
    leaves = {leaf: [0, 0, 0, 0] for leaf in (0, 0x8000_0000, 0x8000_0008)}
    leaves |= {leaf: [0, 0, 0, 0] for leaf, _, _ in FEATURES.values()}
    for feature in features:
        leaf, register, bit = FEATURES[feature]
        leaves[leaf]["abcd".index(register)] |= 1 << bit
    return MachineInfo({leaf: (a, b, c, d) for leaf, (a, b, c, d) in leaves.items()})


EVERYTHING = processor(*FEATURES)


@pytest.mark.parametrize("state", [LONG, PAE, BITS_32], ids=["long", "pae", "32"])
def test_a_state_of_every_mode_is_taken(state: State) -> None:
    check_state(state, EVERYTHING, RAM)
    check_state(replace(state, window=0), EVERYTHING, RAM)


NEEDED = {
    "pse": (CR4_PSE, BITS_32),
    "pae": (CR4_PAE, PAE),
    "pge": (CR4_PGE, LONG),
    "la57": (CR4_LA57, LONG),
    "pcid": (CR4_PCIDE, LONG),
    "smep": (CR4_SMEP, BITS_32),
    "smap": (CR4_SMAP, PAE),
    "pku": (CR4_PKE, LONG),
    "pks": (CR4_PKS, LONG),
    "lass": (CR4_LASS, replace(LONG, window=UPPER, user_window=1 << 40)),
}


@pytest.mark.parametrize(("feature", "bit", "state"), [(f, *n) for f, n in NEEDED.items()])
def test_a_bit_of_cr4_needs_its_feature(feature: str, bit: int, state: State) -> None:
    state = replace(state, cr4=state.cr4 | bit)
    check_state(state, EVERYTHING, RAM)
    lacking = processor(*(name for name in FEATURES if name != feature))
    with pytest.raises(Misuse, match=f"CR4 has bit .*no {feature}"):
        check_state(state, lacking, RAM)


def test_nxe_needs_its_feature() -> None:
    lacking = processor(*(name for name in FEATURES if name != "nx"))
    check_state(replace(PAE, efer=0), lacking, RAM)
    with pytest.raises(Misuse, match="no nx"):
        check_state(PAE, lacking, RAM)


LASS_LOW = replace(LONG, cr4=LONG.cr4 | CR4_LASS)
REFUSED = {
    "no paging": (replace(LONG, cr0=CR0 & ~(1 << 31)), "CR0 has no PG"),
    "no protection": (replace(LONG, cr0=CR0 & ~1), "CR0 has no PE"),
    "unknown bit of CR0": (replace(LONG, cr0=CR0 | 1 << 29), "CR0 has bit 29"),
    "beyond CR0": (replace(LONG, cr0=CR0 | 1 << 32), "CR0 has bit 32"),
    "reserved bit of CR4": (replace(LONG, cr4=LONG.cr4 | 1 << 15), "CR4 has bit 15"),
    "beyond CR4": (replace(BITS_32, cr4=1 << 63), "CR4 has bit 63"),
    "unknown bit of EFER": (replace(LONG, efer=EFER | 1 << 12), "EFER has bit 12"),
    "LMA without LME": (replace(PAE, efer=EFER_LMA), "LMA without LME"),
    "LME without PAE": (replace(LONG, cr4=CR4_PGE), "LME, but CR4 no PAE"),
    "LASS and a window in the lower half": (LASS_LOW, "CR4 has LASS, which wants the window in"),
    "LASS and one window": (replace(LASS_LOW, window=UPPER), "CR4 has LASS, which wants"),
    "LASS the other way round": (
        replace(LASS_LOW, user_window=UPPER),
        "CR4 has LASS, which wants the window in the upper half and the user's in the lower",
    ),
    "PCIDE without LME": (replace(PAE, cr4=PAE.cr4 | CR4_PCIDE), "PCIDE, which PAE paging"),
    "CR3 at the end of RAM": (replace(LONG, cr3=RAM), "CR3 is 0x4000000, outside RAM"),
    "CR3 beyond the address width": (replace(LONG, cr3=LONG.cr3 | 1 << 40), "outside RAM"),
    "CR3 with its uppermost bit": (replace(LONG, cr3=LONG.cr3 | 1 << 63), "outside RAM"),
    "entry tables outside RAM": (replace(LONG, entry_cr3=1 << 32), "the entry tables' CR3"),
    "window over the end": (replace(BITS_32, window=(1 << 32) - RAM + PAGE), "no room"),
    "window above 4 GiB": (replace(PAE, window=1 << 40), "no room for the window"),
}


@pytest.mark.parametrize(("state", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_no_processor_takes_is_refused(state: State, reason: str) -> None:
    with pytest.raises(Misuse, match=reason):
        check_state(state, EVERYTHING, RAM)


@pytest.mark.parametrize(
    "change",
    [
        {"cr4": LONG.cr4 | CR4_LA57},
        {"cr4": LONG.cr4 | CR4_PSE},
        {"cr4": LONG.cr4 | CR4_PCIDE},
        {"efer": 0},
        {"cr3": LONG.cr3 + PAGE},
        {"window": 1 << 41},
        {"user_window": 1 << 41},
        {"entry_cr3": LONG.entry_cr3 + PAGE},
        {"then": LONG},
    ],
    ids=str,
)
def test_between_jobs_only_rights_can_change(change: dict[str, Any]) -> None:
    check_change(LONG, replace(LONG, cr0=LONG.cr0 ^ CR0_WP, efer=LONG.efer ^ EFER_NXE, pkru=1))
    with pytest.raises(Misuse, match="only rights can change"):
        check_change(LONG, replace(LONG, **change))


@pytest.mark.parametrize(
    ("state", "refuses", "register", "bits", "fine"),
    [
        (LONG, False, "cr4", CR4_LA57 | CR4_PSE, True),
        (LONG, False, "cr4", CR4_PAE, False),
        (LONG, False, "cr4", CR4_PKE, False),
        (LONG, True, "cr4", CR4_PAE | 1 << 63, True),
        (LONG, False, "cr0", CR0_WP, True),
        (LONG, False, "cr0", 1 << 31, False),
        (LONG, True, "cr0", 1 << 31, True),
        (LONG, False, "cr3", 0xFFF, True),
        (LONG, False, "cr3", 1 << 45, False),
        (LONG, True, "cr3", 1 << 45, True),
        (LONG, True, "cr3", 1 << 20, False),
        (PAE, True, "cr0", 1, True),
        (PAE, True, "cr0", 0b11 << 29, True),
        (PAE, False, "cr0", 1 << 30, False),
        (PAE, True, "cr0", 1 << 31, False),
        (PAE, True, "cr3", 0x18, True),
        (PAE, True, "cr3", 0x20, False),
        (PAE, True, "cr4", CR4_PCIDE, True),
        (PAE, False, "cr4", CR4_PCIDE, False),
        (PAE, True, "cr4", CR4_PAE, False),
        (BITS_32, True, "cr4", CR4_PSE, False),
        (LONG, True, "cr4", CR4_LASS, False),
        (LONG, False, "cr4", CR4_LASS, False),
        (replace(LONG, window=UPPER), True, "cr4", CR4_LASS, False),
        (replace(LONG, window=UPPER, user_window=1 << 40), True, "cr4", CR4_LASS, True),
        (PAE, True, "cr4", CR4_LASS, True),
    ],
)
def test_a_change_is_tried_only_where_the_stub_survives_it(
    state: State, refuses: bool, register: str, bits: int, fine: bool
) -> None:
    """An engine that refuses what a processor does is told to change anything by which the stub
    would not lose its own memory."""
    info = processor("pse", "pae", "pge", "la57", "pcid", "lass")
    info = MachineInfo({**info.leaves, 0x8000_0008: (40, 0, 0, 0)})
    assert (bits & ~changeable(state, info, refuses)[register] == 0) == fine


def test_the_last_window_below_4_gib_is_taken() -> None:
    check_state(replace(BITS_32, window=(1 << 32) - RAM), EVERYTHING, RAM)
    check_state(replace(LONG, efer=EFER_LME | EFER_LMA, cr3=RAM - PAGE), EVERYTHING, RAM)


def test_high_ram_can_hold_root_tables_as_far_as_the_processor_reaches() -> None:
    high = range(1 << 32, 1 << 40)  # beyond the 36 bits of this processor
    check_state(replace(LONG, cr3=(1 << 36) - PAGE), EVERYTHING, RAM, high)
    for state in (
        replace(LONG, cr3=1 << 36),
        replace(LONG, cr3=1 << 31),
        replace(PAE, cr3=1 << 32),
        replace(LONG, entry_cr3=1 << 32),
    ):
        with pytest.raises(Misuse, match=r"CR3 is .*outside RAM"):
            check_state(state, EVERYTHING, RAM, high)


@pytest.fixture(scope="module")
def small() -> Iterator[HandMade]:
    size = ARENA.stop + 4 * RAM_UNIT
    with Guest("tcg", ram_bytes=size, cpu="max,-smep", deadline=5) as guest:
        yield HandMade(guest, MODES["4"], iter(range(ARENA.stop, size, PAGE)))


@pytest.mark.hw
class TestRefusedBeforeTheGuestSeesIt:
    """The guest runs on: TCG would hang in these states."""

    @pytest.mark.parametrize("register", ["cr3", "entry_cr3"])
    def test_a_register_beyond_the_address_width(self, small: HandMade, register: str) -> None:
        wide = getattr(small.state, register) | 1 << small.guest.info.physical_bits
        with pytest.raises(Misuse, match="outside RAM"):
            small.ask(small.job("none", 0), **{register: wide})
        assert small.ask(small.job("none", 0))["completed"] == 1

    @pytest.mark.parametrize("how", ["run", "start", "parked"])
    def test_a_feature_that_the_processor_lacks(self, small: HandMade, how: str) -> None:
        guest, state = small.guest, replace(small.state, cr4=small.state.cr4 | CR4_SMEP)
        with pytest.raises(Misuse, match="no smep"):
            if how == "parked":
                with guest.parked(state):
                    pass
            else:
                getattr(guest, how)(state, small.job("none", 0))
        assert small.ask(small.job("none", 0))["completed"] == 1
