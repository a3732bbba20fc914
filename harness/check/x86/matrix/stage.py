"""What a batch runs under: a processor in one of its paging modes, and its control state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Final

from harness.machine.machine import Processor
from harness.machine.ram import ARENA, LARGEST_RAM, MIB
from harness.machine.x86.engines import reads_as_amd
from harness.machine.x86.guest import MachineInfo
from harness.paging.address import Span
from harness.paging.format import Format
from harness.paging.x86 import formats
from harness.paging.x86.cpu import Cpu, Cr0, Cr4, Efer, Mode, canonical_halves

MODES: Final = tuple(mode.value for mode in Mode)
"""Names of paging modes: 32, pae, and those of long mode by their levels."""

SMALL_RAM: Final = 64 * MIB
"""Bytes of a guest without pages of 1 GiB: outside long mode, where the window must leave room for
the cases, and on an engine that has no room for such pages."""

LEGACY_WINDOW: Final = Span.of(1 << 30, 1 << 30)
"""Where it is there: the second GiB, which has a PDPTE of its own."""

WINDOW_KEY: Final = 0b11
"""Rights of the key of the window's pages, which PKRS must not take away."""

WINDOW_SLOT: Final = 170
"""The slot of the top table that is the window's in long mode: one that is the index of no address
that is tried.  One that is not canonical has an index too, and the entry there is patched."""

UPPER_WINDOW_SLOT: Final = 256 + WINDOW_SLOT
"""The same in the upper half of the addresses, where the window is on a processor with LASS; the
stub's code for the user is then in the other."""

CR3_PCD: Final = 1 << 4
"""Whether the top table is read past the caches; with CR4.PCIDE=1 a bit of the PCID (SDM 4.5.2)."""


@dataclass(frozen=True, order=True)
class Model:
    """A processor in one of its paging modes.

    page1gb  1-GByte pages, in long mode
    pse36    4-MByte pages above 4 GiB, in 32-bit paging
    amd      AMD's, not Intel's
    pse      CR4.PSE, which decides in 32-bit paging what an entry is
    shadow_stacks  shadow stacks, which it heeds while CR4 has CET
    lass     halves of addresses, which it tells apart while CR4 has LASS
    """

    mode: str
    maxphyaddr: int = 40
    page1gb: bool = True
    pse36: bool = True
    amd: bool = False
    pse: bool = True
    shadow_stacks: bool = False
    lass: bool = False

    @cached_property
    def long(self) -> bool:
        """Whether it is in long mode."""
        return Mode(self.mode) in (Mode.LEVEL_4, Mode.LEVEL_5)

    @cached_property
    def format(self) -> Format:
        """Its format with every size of page and every address bit that an engine may take for
        its own, whether CPUID shows it or not."""
        if self.mode == Mode.BITS_32.value:
            return formats.paging32(52, self.pse, True)
        return replace(self, page1gb=True, amd=False).cpu(Control()).format

    @property
    def levels(self) -> int:
        """Levels of tables."""
        return len(self.format.levels)

    @property
    def ram_bytes(self) -> int:
        """Memory of its guest, where the engine can have it: in long mode enough for pages of 1
        GiB."""
        return LARGEST_RAM if self.long else SMALL_RAM

    @property
    def guest(self) -> tuple[Processor, int]:
        """What a guest has to be for it: its processor, and its bytes of memory."""
        return self.processor, self.ram_bytes

    @property
    def frames(self) -> Span:
        """The memory for what pages lead to.

        Modes that divide it in the same way share it.  In others the code of one would be the
        data of the next, which is put there while the guest still executes.
        """
        above = Span(ARENA.stop, self.ram_bytes - 1)
        if self.long:
            return above
        half = above.size // 2
        return Span.of(above.first + half * (Mode(self.mode) is Mode.PAE), half)

    @property
    def windows(self) -> tuple[Span, ...]:
        """The addresses that no case may use: those of the stub."""
        if not self.long:
            return (LEGACY_WINDOW,)
        top, (_, upper) = self.format.levels[-1], canonical_halves(self.levels)
        windows: tuple[Span, ...] = (Span.of(WINDOW_SLOT << top.shift, top.size),)
        if self.lass:
            above = (UPPER_WINDOW_SLOT - top.entries // 2) << top.shift
            windows += (Span.of(upper.first + above, top.size),)
        return windows

    @property
    def processor(self) -> Processor:
        """What an engine is asked to be."""
        la57 = self.mode == Mode.LEVEL_5.value
        return Processor(
            self.maxphyaddr, self.page1gb, self.pse36, self.amd, la57, self.shadow_stacks, self.lass
        )

    def on(self, info: MachineInfo) -> Model:
        """The same on the processor that a guest has, where an engine cannot choose."""
        return replace(
            self,
            maxphyaddr=info.physical_bits,
            page1gb=info.has("gigabyte_pages"),
            pse36=info.has("pse36"),
            amd=reads_as_amd(info),
        )

    def values(self) -> dict[str, str | int]:
        """What it has on its axes: those that play a part in its mode."""
        values: dict[str, str | int] = {"mode": self.mode, "maxphyaddr": self.maxphyaddr}
        if self.long:
            values |= {"page1gb": int(self.page1gb), "amd": int(self.amd)}
        elif self.mode == Mode.BITS_32.value:
            values["pse36"] = int(self.pse36)
        return {**values, "PSE": int(self.pse)}

    def cpu(self, control: Control, like: Cpu | None = None) -> Cpu:
        """Its state under `control`, with its root and its PDPTEs as in `like`."""
        flags = {Cr4.PSE: self.pse, Cr4.PGE: control.pge, Cr4.SMEP: control.smep}
        flags |= {Cr4.SMAP: control.smap, Cr4.PKE: control.pke, Cr4.PKS: control.pks}
        flags |= {Cr4.CET: control.cet, Cr4.LASS: control.lass, Cr4.PCIDE: control.pcide}
        cpu = Cpu.in_mode(
            Mode(self.mode),
            (like.cr3 if like else 0) | control.pcd * CR3_PCD,
            cr0=Cr0.WP if control.wp else 0,
            cr4=sum(flag for flag, there in flags.items() if there),
            efer=Efer.NXE if control.nxe else 0,
        )
        return replace(
            cpu,
            maxphyaddr=self.maxphyaddr,
            page1gb=self.page1gb,
            pse36=self.pse36,
            amd=self.amd,
            pkru=control.pkru,
            pkrs=control.pkrs,
            pdptes=like.pdptes if like else cpu.pdptes,
        )

    def lacks(self, info: MachineInfo) -> str | None:
        """Why a guest's processor cannot be this one, as a reason; None if it can."""
        if self.mode == Mode.LEVEL_5.value and not info.has("la57"):
            return "the engine's processor has no five-level paging (LA57)"
        if self.mode == Mode.PAE.value and not info.has("pae"):
            return "the engine's processor has no PAE paging"
        if self.pse and not info.has("pse"):
            return "the engine's processor has no PSE"
        if self.shadow_stacks and not info.has("cet_ss"):
            return "the engine's processor has no shadow stacks (CET)"
        if self.lass and not info.has("lass"):
            return "the engine's processor does not tell halves of addresses apart (LASS)"
        return None


@dataclass(frozen=True)
class Control:
    """The control state that cases are tried under: each field an axis, its name in capitals.

    pcd  that of CR3, which is a bit of a PCID as soon as there are any
    """

    wp: bool = True
    nxe: bool = True
    smep: bool = True
    smap: bool = True
    pge: bool = True
    pke: bool = False
    pks: bool = False
    cet: bool = False
    lass: bool = False
    pcide: bool = False
    pcd: bool = False
    pkru: int = 0
    pkrs: int = 0

    @cached_property
    def _values(self) -> dict[str, int]:
        return {axis: int(getattr(self, name)) for name, axis in _AXES}

    def values(self) -> Mapping[str, int]:
        """What it has on its axes."""
        return self._values

    def shown(self) -> dict[str, str]:
        """The same for people, without keys, CET, LASS, PCIDs and PCD where they play no part."""
        usual, shown = Control().values(), self.values()
        for names in (("PKE", "PKS", "PKRU", "PKRS"), ("CET",), ("LASS",), ("PCIDE",), ("PCD",)):
            if all(shown[name] == usual[name] for name in names):
                shown = {name: value for name, value in shown.items() if name not in names}
        return {name: _number(value) for name, value in shown.items()}

    @property
    def first(self) -> Control:
        """Itself: it does not change."""
        return self

    @property
    def then(self) -> Control:
        """Itself: it does not change."""
        return self

    def lacks(self, info: MachineInfo) -> str | None:
        """Why it cannot be loaded into a guest's processor, as a reason; None if it can.

        Loading it all the same costs the guest.
        """
        needed = {"nx": self.nxe, "smep": self.smep, "smap": self.smap}
        needed |= {"pge": self.pge, "pku": self.pke, "pks": self.pks, "pcid": self.pcide}
        lacking = [name.upper() for name, wanted in needed.items() if wanted and not info.has(name)]
        return f"the engine's processor has no {', '.join(lacking)}" if lacking else None


_AXES = tuple((one.name, one.name.upper()) for one in fields(Control))
"""The fields of a control state, and what their axes are called."""


@dataclass(frozen=True)
class Change:
    """Two control states between which the accesses of a sequence change, without MOV CR3: each
    field of the second is an axis too, its name after `then.`."""

    first: Control
    then: Control

    def values(self) -> Mapping[str, int]:
        """What it has on its axes."""
        then = self.then.values()
        return {**self.first.values(), **{f"then.{name}": value for name, value in then.items()}}

    def shown(self) -> dict[str, str]:
        """The same for people: of the second state, what is another."""
        first, then = self.first.values(), self.then.values()
        changed = {f"then.{n}": value for n, value in then.items() if value != first[n]}
        return self.first.shown() | {n: _number(value) for n, value in changed.items()}

    def lacks(self, info: MachineInfo) -> str | None:
        """Why one of them cannot be loaded into a guest's processor, as a reason; None if both
        can."""
        return self.first.lacks(info) or self.then.lacks(info)


@dataclass(frozen=True)
class Step:
    """One access of those that make a case.

    access  the prefix of the names of the axes that say what it is
    there   whether it is at the other address
    then    whether it is under the control state that is changed to
    """

    access: str = ""
    there: bool = False
    then: bool = False


def _number(value: int) -> str:
    return format(value, "#x" if value > 1 else "")
