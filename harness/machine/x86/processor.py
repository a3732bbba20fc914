"""The guest's processor: what it is, and the state that a batch asks it to take.

A state that the processor cannot take is refused here, because not every engine survives the
attempt: a move to CR4 of an unsupported bit, or to CR3 of a bit beyond the physical address width,
hangs QEMU's TCG instead of raising an exception.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from harness.machine.errors import Misuse

CR0_NEEDED: Final = {0: "PE", 31: "PG"}
CR0_KNOWN: Final = {**CR0_NEEDED, 1: "MP", 4: "ET", 5: "NE", 16: "WP", 18: "AM"}
CR4_KNOWN: Final = {
    4: "pse",
    5: "pae",
    7: "pge",
    11: "umip",
    12: "la57",
    17: "pcid",
    20: "smep",
    21: "smap",
    22: "pku",
    23: "cet_ss",
    24: "pks",
    27: "lass",
}
"""The feature that each bit of CR4 enables (SDM 3A, 2.5)."""
EFER_KNOWN: Final = {0: "SCE", 8: "LME", 10: "LMA", 11: "NXE"}

CR4_PSE: Final = 1 << 4
CR4_PAE: Final = 1 << 5
CR4_LA57: Final = 1 << 12
CR4_PCIDE: Final = 1 << 17
CR4_CET: Final = 1 << 23
CR4_LASS: Final = 1 << 27
CR0_WP: Final = 1 << 16
EFER_LME: Final = 1 << 8
EFER_LMA: Final = 1 << 10
EFER_NXE: Final = 1 << 11


class Mode(Enum):
    """How the processor executes and translates; long mode has 4 levels or 5, as CR4 says."""

    BITS_32 = "32-bit paging"
    PAE = "PAE paging"
    LONG = "long mode"


@dataclass(frozen=True)
class State:
    """What a batch runs under: plain numbers of control registers and MSRs.

    They tell the mode. `window` is the virtual address at which both the tested tables (`cr3`) and
    the entry tables (`entry_cr3`) map all RAM; protocol.h says what they have to map. PKRU and PKRS
    are loaded only where CR4 has PKE and PKS. `then` is the state that jobs can change to and back
    from, without a load of CR3. `user_window` is where the tested tables map the stub's code of CPL
    3, if that is not in the window: with CR4.LASS it must be in the lower half of the addresses,
    and the window in the upper.
    """

    cr0: int
    cr3: int
    cr4: int
    efer: int
    window: int
    entry_cr3: int
    pkru: int = 0
    pkrs: int = 0
    then: State | None = None
    user_window: int | None = None

    @property
    def control(self) -> tuple[int, int, int, int, int]:
        """The registers in the order of `struct control` in protocol.h."""
        return self.cr0, self.cr4, self.efer, self.pkru, self.pkrs

    @property
    def mode(self) -> Mode:
        if self.efer & EFER_LME:
            return Mode.LONG
        return Mode.PAE if self.cr4 & CR4_PAE else Mode.BITS_32

    @property
    def stack_bytes(self) -> int:
        """The size of what a stack holds."""
        return 8 if self.mode is Mode.LONG else 4

    @property
    def word_bytes(self) -> int:
        """The size of an entry, and so of the words that jobs patch and watch."""
        return 4 if self.mode is Mode.BITS_32 else 8


@dataclass(frozen=True)
class MachineInfo:
    """The guest's processor, by its own CPUID (SDM 2A, CPUID)."""

    leaves: Mapping[int, tuple[int, int, int, int]]
    """EAX, EBX, ECX, EDX by leaf, with the subleaf in bits 63:32."""

    @property
    def vendor(self) -> str:
        _, ebx, ecx, edx = self.leaves[0]
        return b"".join(word.to_bytes(4, "little") for word in (ebx, edx, ecx)).decode("ascii")

    @property
    def physical_bits(self) -> int:
        """MAXPHYADDR; without the leaf that tells it, 36, which every processor has."""
        return self.leaves[0x8000_0008][0] & 0xFF or 36

    def has(self, feature: str) -> bool:
        """Whether CPUID shows a feature of `FEATURES`."""
        leaf, register, bit = FEATURES[feature]
        return bool(self.leaves[leaf]["abcd".index(register)] >> bit & 1)


FEATURES: Final[Mapping[str, tuple[int, str, int]]] = {
    "pse": (1, "d", 3),
    "pae": (1, "d", 6),
    "pge": (1, "d", 13),
    "pat": (1, "d", 16),
    "pse36": (1, "d", 17),
    "pcid": (1, "c", 17),
    "smep": (7, "b", 7),
    "invpcid": (7, "b", 10),
    "smap": (7, "b", 20),
    "umip": (7, "c", 2),
    "pku": (7, "c", 3),
    "cet_ss": (7, "c", 7),
    "la57": (7, "c", 16),
    "pks": (7, "c", 31),
    "lass": (1 << 32 | 7, "a", 6),
    "nx": (0x8000_0001, "d", 20),
    "gigabyte_pages": (0x8000_0001, "d", 26),
}
"""What concerns paging: leaf, register and bit by name."""


def check_state(state: State, info: MachineInfo, ram_bytes: int, high: range = range(0)) -> None:
    """Raise `Misuse` for a state that this processor, with this much RAM, cannot take.

    `high` are the addresses of RAM above 4 GiB.
    """
    for reason in _refusals(state, info, ram_bytes, high):
        raise Misuse(f"{reason}: {state}")


def check_change(state: State, then: State) -> None:
    """Raise `Misuse` for a state that jobs can not change to: where entries have another format, or
    the tables are others."""
    another_mode = (state.cr4 ^ then.cr4) & (CR4_PSE | CR4_PAE | CR4_LA57 | CR4_PCIDE)
    another_mode |= (state.efer ^ then.efer) & ~EFER_NXE
    tables = [(one.cr3, one.window, one.user_window, one.entry_cr3) for one in (state, then)]
    if another_mode or tables[0] != tables[1] or then.then is not None:
        raise Misuse(f"between jobs, only rights can change: {state}")


def changeable(state: State, info: MachineInfo, refuses: bool) -> dict[str, int]:
    """By register, the bits that a job can try to change, and back: none by which the stub would
    lose its memory, nor, unless the engine refuses them as a processor does, what is refused."""
    long, all_bits = state.mode is Mode.LONG, (1 << 64) - 1
    apart = CR4_LASS if long and info.has("lass") and not _in_halves(state) else 0
    if refuses and long:
        above = (1 << 64) - (1 << info.physical_bits)
        return {"cr0": all_bits, "cr3": above | 0xFFF, "cr4": all_bits & ~apart}
    cr4 = sum(1 << bit for bit, name in CR4_KNOWN.items() if info.has(name)) & ~apart
    cr4 &= ~(0 if long else CR4_PSE | CR4_PAE | CR4_PCIDE)
    cr0, cr3 = CR0_WP, 0xFFF if long else 0x18
    if refuses:
        cr0, cr4 = cr0 | 1 | 3 << 29, 0xFFFF_FFFF & ~(CR4_PSE | CR4_PAE)
    elif long:
        cr4 &= ~(CR4_PAE | CR4_CET)
    return {"cr0": cr0, "cr3": cr3, "cr4": cr4}


def _refusals(state: State, info: MachineInfo, ram_bytes: int, high: range) -> Iterator[str]:
    for bit, name in CR0_NEEDED.items():
        if not state.cr0 >> bit & 1:
            yield f"CR0 has no {name}, without which there is no paging"
    for bit in _bits(state.cr0):
        if bit not in CR0_KNOWN:
            yield f"CR0 has bit {bit}, which is not supported"
    for bit in _bits(state.cr4):
        if bit not in CR4_KNOWN:
            yield f"CR4 has bit {bit}, which is not supported"
        elif not info.has(CR4_KNOWN[bit]):
            yield f"CR4 has bit {bit}, but the guest's processor has no {CR4_KNOWN[bit]}"
    for bit in _bits(state.efer):
        if bit not in EFER_KNOWN:
            yield f"EFER has bit {bit}, which is not supported"
    if state.efer & EFER_NXE and not info.has("nx"):
        yield "EFER has NXE, but the guest's processor has no nx"
    yield from _contradictions(state)
    reach = info.physical_bits if state.mode is Mode.LONG else 32
    above = high.start <= state.cr3 < high.stop  # `in` counts up to a number that is no plain int
    if state.cr3 >= ram_bytes and (not above or state.cr3 >> reach):
        yield f"CR3 is {state.cr3:#x}, outside RAM"
    if state.entry_cr3 >= ram_bytes:
        yield f"the entry tables' CR3 is {state.entry_cr3:#x}, outside RAM"
    if state.mode is not Mode.LONG and state.window + ram_bytes > 1 << 32:
        yield f"{state.mode.value} has no room for the window at {state.window:#x}"


def _contradictions(state: State) -> Iterator[str]:
    """What no processor takes together (SDM 3A, 2.5 and 9.8.5)."""
    if state.mode is Mode.LONG:
        if not state.cr4 & CR4_PAE:
            yield "EFER has LME, but CR4 no PAE"
    elif state.efer & EFER_LMA:
        yield "EFER has LMA without LME"
    elif state.cr4 & CR4_PCIDE:
        yield f"CR4 has PCIDE, which {state.mode.value} does not allow"
    if state.cr4 & CR4_LASS and state.mode is Mode.LONG and not _in_halves(state):
        yield "CR4 has LASS, which wants the window in the upper half and the user's in the lower"
    if state.cr4 & CR4_CET and not state.cr0 & CR0_WP:
        yield "CR4 has CET, but CR0 no WP"


def _in_halves(state: State) -> bool:
    """Whether the stub's code for the supervisor is in the upper half of the addresses, and that
    for the user in the lower."""
    user = state.window if state.user_window is None else state.user_window
    return bool(state.window >> 63) and not user >> 63


def _bits(value: int) -> Iterator[int]:
    """The bits that are set."""
    return (bit for bit in range(value.bit_length()) if value >> bit & 1)
