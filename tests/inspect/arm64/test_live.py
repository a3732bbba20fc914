"""From what QEMU's gdb stub shows of a processor to the registers by which it translates."""

from __future__ import annotations

import numpy as np
import pytest

from harness.check.held import HeldMemory, Octets
from harness.inspect.arm64.live import (
    authenticates_pointers,
    last_exception,
    processor,
    seen,
)
from harness.inspect.arm64.processor import PSTATE_PAN, PSTATE_UAO
from harness.inspect.held import refuse
from harness.inspect.snapshot import SourceError
from harness.machine.arm64.registers import NAMES, registers_of
from harness.machine.errors import ProtocolError
from harness.paging.address import Physical
from harness.paging.memory import BufferMemory, Mask, Words

EL1H, EL2H, EL3H = 0x5, 0x9, 0xD
SPAN = 1 << 23
VM, TGE, E2H = 1, 1 << 27, 1 << 34

SHOWN = {
    "cpsr": 0x6000_0000,
    "TTBR0_EL1": 0x4369_8181,
    "TTBR1_EL1": 0x2_0000_41F2_8001,
    "TCR_EL1": 0x0950_01F6_B54C_350C,
    "MAIR_EL1": 0x4_0044_FFFF,
    "SCTLR_EL1": 0x0200_0018_FC74_791D,
    "ID_AA64MMFR0_EL1": 0x323_1020_1126,
    "ID_AA64MMFR1_EL1": 0x110_1021_1122,
    "ID_AA64MMFR2_EL1": 0x1021_0110_1001_1011,
}
"""Those of Linux on QEMU 7.2's `max`, at EL0."""

HOST = {
    name.replace("_EL1", "_EL2"): value + 1 for name, value in SHOWN.items() if "MMFR" not in name
}


class Stub:
    """A monitor whose gdb stub describes these registers."""

    def __init__(self, described: dict[str, int]) -> None:
        self.described = described
        self.asked: tuple[str, ...] = ()

    def described_registers(self, wanted: object, vcpu: int | None = None) -> dict[str, int]:
        assert isinstance(wanted, tuple)
        self.asked = wanted
        return {name: value for name, value in self.described.items() if name in wanted}


def test_each_register_is_that_of_el1() -> None:
    found, notes = processor(SHOWN)
    assert (found.ttbr0, found.ttbr1) == (SHOWN["TTBR0_EL1"], SHOWN["TTBR1_EL1"])
    assert (found.tcr, found.mair) == (SHOWN["TCR_EL1"], SHOWN["MAIR_EL1"])
    assert found.sctlr == SHOWN["SCTLR_EL1"]
    ids = [SHOWN[f"ID_AA64MMFR{number}_EL1"] for number in range(3)]
    assert [found.mmfr0, found.mmfr1, found.mmfr2] == ids
    assert notes == ()


@pytest.mark.parametrize(
    ("state", "span", "pan", "uao"),
    [
        (0, 0, True, False),  # an exception to EL1 sets PAN, and clears UAO
        (0, SPAN, False, False),
        (PSTATE_PAN | PSTATE_UAO, SPAN, True, False),
        (EL1H, 0, False, False),
        (EL1H | PSTATE_PAN, 0, True, False),
        (EL1H | PSTATE_UAO, 0, False, True),
        (EL1H & ~1 | PSTATE_UAO, 0, False, True),  # with SP_EL0
    ],
)
def test_pan_and_uao_are_as_el1_has_them(state: int, span: int, pan: bool, uao: bool) -> None:
    sctlr = SHOWN["SCTLR_EL1"] & ~SPAN | span
    found, _ = processor({**SHOWN, "cpsr": state, "SCTLR_EL1": sctlr})
    assert found.pstate is not None
    assert (bool(found.pstate & PSTATE_PAN), bool(found.pstate & PSTATE_UAO)) == (pan, uao)


def test_a_processor_without_pan_has_none() -> None:
    """ID_AA64MMFR1_EL1.PAN is bits 23:20."""
    for bit in range(64):
        found, _ = processor({**SHOWN, "ID_AA64MMFR1_EL1": 1 << bit, "cpsr": 0})
        assert found.pstate == (PSTATE_PAN if 20 <= bit <= 23 else 0)


GIVEN = {"ttbr0": 0x8000, "ttbr1": 0x9000, "tcr": 5 << 32 | 2 << 30 | 25 << 16 | 25}


def held() -> HeldMemory:
    """A guest's memory: a table at 0x8000 that leads to one at 0xa000, and an empty one."""
    memory = BufferMemory(np.zeros(0x10000, np.uint8))
    memory.store(Physical(0x8000), 8, 0xA003)

    def read(units: Words) -> tuple[Octets, Mask]:
        octets = memory.octets.reshape(-1, 0x1000)[units // np.uint64(0x1000)]
        return octets, np.ones(len(units), np.bool_)

    return HeldMemory(0x1000, read)


def test_registers_that_are_given_whole_are_asked_of_no_one() -> None:
    """Each of the three alone is not enough."""
    memory, nobody = held(), Stub({})
    found = seen(nobody, GIVEN, memory)  # type: ignore[arg-type]
    assert (found.cpu.ttbr0, found.cpu.ttbr1, found.cpu.tcr) == tuple(GIVEN.values())
    assert not nobody.asked and any(
        "QEMU's monitor" in one or "MAIR" in one for one in found.assumed
    )
    memory.read = refuse
    assert memory.load(Physical(0x8000), 8) == 0xA003 and memory.load(Physical(0xA000), 8) == 0
    assert memory.load(Physical(0x9000), 8) == 0
    for name in GIVEN:
        with pytest.raises(ProtocolError):
            rest = {one: value for one, value in GIVEN.items() if one != name}
            seen(nobody, rest, held())  # type: ignore[arg-type]


@pytest.mark.parametrize("pauth", [False, True])
@pytest.mark.parametrize("state", [0, EL1H, EL2H])
def test_a_processor_is_seen_with_its_last_exception_and_what_is_given(
    state: int, pauth: bool
) -> None:
    host, el = state == EL2H, 2 if state == EL2H else 1
    shown = {**SHOWN, **(HOST if host else {}), "cpsr": state, "HCR_EL2": E2H * host}
    shown |= {f"TTBR{n}_EL{el}": place for n, place in enumerate((0x8000, 0x9000))}
    shown |= {f"TCR_EL{el}": GIVEN["tcr"] | 1 << 37 | 1 << 51, f"SCTLR_EL{el}": 1}
    shown |= {"ESR_EL1": 0x96, "FAR_EL1": 0x10, "ESR_EL2": 0x97, "FAR_EL2": 0x11}
    shown |= {"ID_AA64ISAR1_EL1": pauth << 4}
    memory = held()
    found = seen(Stub(shown), {"ttbr1": 0xC000}, memory)  # type: ignore[arg-type]
    assert (found.cpu.ttbr0, found.cpu.ttbr1) == (0x8000, 0xC000)
    assert (found.cpu.features.tbid, found.assumed) == (pauth, ())
    assert found.registers == {"esr": 0x95 + el, "far": 0xF + el}
    assert len(found.notes) == host
    memory.read = refuse
    assert memory.load(Physical(0xC000), 8) == 0


def test_a_stub_that_shows_nothing_of_the_state_is_taken_to_be_at_el0() -> None:
    shown = {name: value for name, value in SHOWN.items() if name != "cpsr"}
    found, _ = processor(shown)
    assert found.pstate == (0 if shown["SCTLR_EL1"] & SPAN else PSTATE_PAN)


@pytest.mark.parametrize(
    ("state", "hcr"), [(EL2H, E2H), (EL2H, E2H | TGE), (0, E2H | TGE), (EL2H, E2H | VM)]
)
def test_the_host_has_registers_of_its_own(state: int, hcr: int) -> None:
    found, notes = processor({**SHOWN, **HOST, "cpsr": state, "HCR_EL2": hcr})
    assert (found.ttbr0, found.tcr) == (SHOWN["TTBR0_EL1"] + 1, SHOWN["TCR_EL1"] + 1)
    assert notes[0].startswith("The host's regime, EL2&0")
    assert found.pstate is not None
    assert bool(found.pstate & PSTATE_PAN) == (state == 0)  # as after an exception from EL0


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"cpsr": 0x1D3}, "is in AArch32 (PSTATE is 0x1d3)"),
        ({"cpsr": EL3H}, "is at EL3"),
        ({"cpsr": EL2H}, "is at EL2 without VHE"),
        ({"cpsr": EL1H, "HCR_EL2": VM}, "the guest of a hypervisor (HCR_EL2 is 0x1)"),
        ({"cpsr": 0, "HCR_EL2": 1 << 12}, "the guest of a hypervisor (HCR_EL2 is 0x1000)"),
        ({"cpsr": EL1H, "HCR_EL2": VM | E2H}, "the guest of a hypervisor"),
        ({"cpsr": 0, "HCR_EL2": TGE}, "paging is off: HCR_EL2 is 0x8000000, TGE=1 without E2H=1"),
        ({"TCR2_EL1": 2}, "TCR2_EL1 0x2 has PIE=1: rights are those that PIR_EL1 and PIRE0_EL1"),
        ({"TCR2_EL1": 1 << 5}, "D128=1"),
    ],
)
def test_what_is_translated_otherwise_is_refused(changed: dict[str, int], said: str) -> None:
    with pytest.raises(SourceError) as raised:
        processor({**SHOWN, **changed})
    assert said in str(raised.value)


def test_other_bits_of_tcr2_change_nothing() -> None:
    assert processor({**SHOWN, "TCR2_EL1": 1}) == processor(SHOWN)


@pytest.mark.parametrize("bits", [1 << 2, 1 << 3, 3 << 2])
@pytest.mark.parametrize("host", [False, True])
def test_overlays_are_said_not_to_be_applied(bits: int, host: bool) -> None:
    """TCR2_EL1.E0POE and POE: what tables give is the most that is left."""
    shown = {
        **SHOWN,
        **(HOST if host else {}),
        "cpsr": EL2H if host else EL1H,
        "HCR_EL2": E2H * host,
    }
    el = 2 if host else 1
    found, notes = processor({**shown, f"TCR2_EL{el}": bits, f"TCR2_EL{3 - el}": 0})
    assert found == processor(shown)[0]
    assert notes[-1].startswith(f"TCR2_EL{el} has overlays on (FEAT_S1POE)")
    assert len(notes) == len(processor(shown)[1]) + 1


def test_a_register_that_is_missing_is_named() -> None:
    shown = {name: value for name, value in SHOWN.items() if "TTBR" not in name}
    with pytest.raises(ProtocolError, match=r"does not show TTBR0_EL1, TTBR1_EL1$"):
        processor(shown)


def test_registers_have_the_names_of_the_manual() -> None:
    stub = Stub({"SCTLR": 1, "ID_AA64ISAR2_EL1_RESERVED": 2, "TCR_EL1": 3, "VBAR": 4})
    assert registers_of(stub) == {"SCTLR_EL1": 1, "ID_AA64ISAR2_EL1": 2, "TCR_EL1": 3}
    assert set(stub.asked) > set(NAMES)


def test_pointers_are_authenticated_by_any_of_three_algorithms() -> None:
    assert not authenticates_pointers({})
    for register, low in ((1, 4), (1, 8), (2, 12)):
        assert authenticates_pointers({f"ID_AA64ISAR{register}_EL1": 1 << low})
    assert not authenticates_pointers({"ID_AA64ISAR1_EL1": ~0xFF0, "ID_AA64ISAR2_EL1": ~0xF000})


def test_the_last_exception_is_that_of_the_regime() -> None:
    shown = {"ESR_EL1": 1, "FAR_EL1": 2, "ELR_EL1": 3, "SPSR_EL1": 4, "ESR_EL2": 5}
    assert last_exception(shown, 1) == {"esr": 1, "far": 2, "elr": 3, "spsr": 4}
    assert last_exception(shown, 2) == {"esr": 5}
