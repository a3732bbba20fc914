"""The guest's processor: what it is, and the state that a batch asks it to take."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.machine.errors import Misuse

RAM_BASE: Final = 0x8000_0000
"""Where `virt` has RAM."""

MODES: Final = {"sv32": 1, "sv39": 8, "sv48": 9, "sv57": 10}
"""The modes of translation by name: MODE of satp (privileged specification 1.13, "Supervisor
Address Translation and Protection (satp) Register")."""

PAGE: Final = 4096

MENVCFG: Final = {"ADUE": 1 << 61, "PBMTE": 1 << 62}
"""The bits of menvcfg that concern paging, without the field PMM."""
PMM: Final = 32
"""The lowest bit of PMM in menvcfg and senvcfg ("Pointer Masking"): 0, 2 for 7 bits, 3 for 16."""


@dataclass(frozen=True)
class State:
    """What a batch runs under: plain numbers of CSRs.

    satp    MODE, ASID and the root's page number, of 32 or of 64 bits as the processor's are
    window  the virtual address of two pages that lead to the stub's `user` section and may be
            executed: the first by the supervisor, the second by the user; 0 where all jobs have
            MPRV
    """

    satp: int
    window: int = 0
    menvcfg: int = 0
    senvcfg: int = 0
    xlen: int = 64

    @property
    def word_bytes(self) -> int:
        """The size of an entry."""
        return self.xlen // 8

    @property
    def mode(self) -> int:
        """MODE of satp."""
        return self.satp >> (60 if self.xlen == 64 else 31)

    @property
    def root(self) -> int:
        """The physical address of the root."""
        return (self.satp & ((1 << (44 if self.xlen == 64 else 22)) - 1)) * PAGE

    @classmethod
    def of(
        cls,
        mode: str,
        root: int,
        window: int = 0,
        *,
        asid: int = 0,
        menvcfg: int = 0,
        senvcfg: int = 0,
    ) -> State:
        """The state for a mode of `MODES` and the physical address of a root."""
        xlen = 32 if mode == "sv32" else 64
        mode_at, asid_at = (60, 44) if xlen == 64 else (31, 22)
        satp = MODES[mode] << mode_at | asid << asid_at | root // PAGE
        return cls(satp, window, menvcfg, senvcfg, xlen)


@dataclass(frozen=True)
class MachineInfo:
    """The guest's processor, by its own CSRs and the machine's device tree.

    xlen       32 or 64
    modes      which of `MODES` it has
    asid_bits  how many bits an ASID has
    menvcfg    the bits that can be set; 0 where there is no such register
    senvcfg    the same
    isa        what the device tree calls it, such as rv64imac_zicsr_svnapot
    """

    xlen: int
    modes: frozenset[str]
    asid_bits: int
    menvcfg: int
    senvcfg: int
    isa: str

    def has(self, extension: str) -> bool:
        """Whether it has an extension of more than one letter, such as svnapot."""
        return extension in self.isa.split("_")[1:]


def check_state(state: State, info: MachineInfo, ram: range) -> None:
    """Raise `Misuse` for a state that this processor, with this RAM, cannot take."""
    for reason in _refusals(state, info, ram):
        raise Misuse(f"{reason}: {state}")


def _refusals(state: State, info: MachineInfo, ram: range) -> Iterator[str]:
    if state.xlen != info.xlen:
        yield f"the state is of {state.xlen} bits, and the processor has {info.xlen}"
    elif state.satp >> info.xlen:
        yield f"satp has more than {info.xlen} bits"
    elif state.mode not in {MODES[name] for name in info.modes}:
        yield f"satp has MODE {state.mode}, and the processor has {', '.join(sorted(info.modes))}"
    if not ram.start <= state.root <= ram.stop - PAGE:
        yield f"the root is at {state.root:#x}, outside RAM"
    for name in ("menvcfg", "senvcfg"):
        if (rest := getattr(state, name) & ~getattr(info, name)) != 0:
            yield f"{name} has bits that the processor does not keep, {rest:#x}"
    if state.window % PAGE or state.window >> info.xlen:
        yield f"the window is at {state.window:#x}, which is no page's address"


_MAGIC: Final = 0xD00DFEED
_BEGIN, _END, _PROPERTY, _NOTHING = _TOKENS = 1, 2, 3, 4


def isa_in(tree: npt.NDArray[np.uint8]) -> str:
    """What a device tree calls the processor: its property riscv,isa.

    `tree` begins with the flattened tree (Devicetree Specification 0.4, chapter 5). Raises
    ValueError for what is none, or says nothing of it.
    """
    octets = tree[: 1 << 20].tobytes()
    if len(octets) < 40 or int.from_bytes(octets[:4], "big") != _MAGIC:
        raise ValueError("there is no device tree")
    total, structure, strings = struct.unpack_from(">3I", octets, 4)
    octets, at = octets[:total], structure
    try:
        while (token := struct.unpack_from(">I", octets, at)[0]) in _TOKENS:
            at += 4
            if token == _BEGIN:
                at = octets.index(b"\0", at) + 4 & ~3
            elif token == _PROPERTY:
                length, name = struct.unpack_from(">2I", octets, at)
                at += 8
                if octets[strings + name :].startswith(b"riscv,isa\0"):
                    return octets[at : at + length].rstrip(b"\0").decode("ascii")
                at = at + length + 3 & ~3
    except (struct.error, ValueError):
        raise ValueError("its device tree is damaged") from None
    raise ValueError("its device tree has no riscv,isa")
