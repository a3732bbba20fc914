"""`pagetable decode`: an entry, bit by bit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Annotated, NamedTuple

import typer

from harness.cli.complete import one_of
from harness.cli.ending import sentences
from harness.cli.output import Json, piped, say, show
from harness.cli.source import number


class ModeName(StrEnum):
    """The paging modes, by the names that `Mode` of each architecture has for them."""

    BITS_32 = "32"
    PAE = "pae"
    LEVEL_4 = "4"
    LEVEL_5 = "5"
    SV32 = "sv32"
    SV39 = "sv39"
    SV48 = "sv48"
    SV57 = "sv57"
    KIB_4 = "4k"
    KIB_16 = "16k"
    KIB_64 = "64k"
    KIB_4_52 = "4k-52"
    KIB_16_52 = "16k-52"
    KIB_64_52 = "64k-52"
    SEGMENT = "segment"
    REGION_THIRD = "region-third"
    REGION_SECOND = "region-second"
    REGION_FIRST = "region-first"
    RADIX_4K = "radix-4k"
    RADIX_64K = "radix-64k"

    @property
    def architecture(self) -> str:
        """Whose mode it is."""
        for name, begins in _WHOSE.items():
            if self.name.startswith(begins):
                return name
        return "x86"


_WHOSE = {"riscv": ("SV",), "arm64": ("KIB",), "s390": ("SEGMENT", "REGION"), "power": ("RADIX",)}
"""How the names of modes begin, by architectures that have some of their own."""


def decode(
    values: Annotated[
        list[str],
        typer.Argument(
            metavar="VALUE",
            help="Raw entries, like 0x2067 or pmd=0x2067, CR3 as cr3=0x1000, or satp, or ttbr0,"
            " ttbr1, tcr and mair, or asce, or ptcr, quadrant0 and quadrant3; or what WinDbg's"
            " !pte prints; - reads them from standard input, a line each.",
        ),
    ],
    level: Annotated[
        str | None,
        typer.Option(
            metavar="LEVEL",
            help="Of the table that holds it, as the manual counts: 0 is the lowest, on arm64 the"
            " highest of four; or a name, like PDE or pmd; cr3,"
            " satp, ttbr0, ttbr1, tcr, mair, asce, ptcr, quadrant0 or quadrant3 of the register."
            " By default all of them.",
            show_default=False,
            autocompletion=one_of(
                *("0", "1", "2", "3", "4", "PTE", "PDE", "PDPTE", "PML4E", "PML5E"),
                *("pte", "pmd", "pud", "p4d", "pgd", "L3", "L2", "L1", "L0", "L-1"),
                *("STE", "RTTE", "RSTE", "RFTE"),
                *("cr3", "satp", "ttbr0", "ttbr1", "tcr", "mair", "asce"),
                *("ptcr", "quadrant0", "quadrant3"),
            ),
        ),
    ] = None,
    mode: Annotated[
        ModeName | None,
        typer.Option(
            metavar="MODE",
            help="The paging mode; by default that of a register among the values, else 4. Of x86"
            " 32, pae, 4 or 5; of RISC-V sv32, sv39, sv48 or sv57; of arm64 the granule, 4k, 16k or"
            " 64k, and -52 after it where addresses have 52 bits; of s390 the table at which walks"
            " begin, segment, region-third, region-second or region-first; of POWER radix-4k or"
            " radix-64k.",
            show_default=False,
            case_sensitive=False,
        ),
    ] = None,
    linux: Annotated[
        bool,
        typer.Option(
            "--linux",
            help="Also show what Linux keeps in it (not in the modes 32, pae and sv32).",
        ),
    ] = False,
    maxphyaddr: Annotated[
        int | None,
        typer.Option(
            help="Width of physical addresses in bits; by default 40.", show_default=False
        ),
    ] = None,
    no_nxe: Annotated[bool, typer.Option("--no-nxe", help="With EFER.NXE=0.")] = False,
    no_pge: Annotated[bool, typer.Option("--no-pge", help="With CR4.PGE=0.")] = False,
    no_keys: Annotated[bool, typer.Option("--no-keys", help="With CR4.PKE=0 and PKS=0.")] = False,
    no_pse: Annotated[bool, typer.Option("--no-pse", help="With CR4.PSE=0 (mode 32).")] = False,
    no_pse36: Annotated[bool, typer.Option("--no-pse36", help="On a CPU without PSE-36.")] = False,
    no_page1gb: Annotated[
        bool, typer.Option("--no-page1gb", help="On a CPU without 1G pages.")
    ] = False,
    amd: Annotated[bool, typer.Option("--amd", help="As AMD's processors read it.")] = False,
    c_bit: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="The bit that marks encrypted memory: SME, SEV.", show_default=False
        ),
    ] = None,
    shared_bit: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="The bit that marks shared memory: TDX.", show_default=False
        ),
    ] = None,
    mair: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="MAIR_EL1, arm64's memory types; by default Linux's.",
            show_default=False,
        ),
    ] = None,
    tcr: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="TCR_EL1 of arm64, for HA, HD, HPDn, A1 and AS; by default these are 0.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what raw entries, or the registers of their root, mean, bit by bit.

    Each bit has its name, and the reason where it is reserved or ignored; several entries get a
    line each.

    Sections and tables are those of volume 3A of the Intel SDM, of the RISC-V privileged
    specification, of the Power ISA, Book III, of the z/Architecture Principles of Operation (bits
    are counted from the lowest up for all), or of the Arm ARM, which counts levels from the root
    down: L3 holds pages.  In mode pae, level 2 is that of the PDPTE registers.

    Example: pagetable decode 0x80000000401008e7 --level 1 --linux

    Example: pagetable decode pmd=19f063 pte=8000000000193163
    """
    with sentences():
        from harness.inspect import architecture
        from harness.inspect import decode as entries
        from harness.inspect.names import level_named
        from harness.inspect.snapshot import QuestionError
        from harness.machine.errors import Misuse
        from harness.report import decode as reports
        from harness.report.objects import bare, cpu_object
        from harness.report.text import assumed_lines

        options = {
            "maxphyaddr": maxphyaddr,
            "no_nxe": no_nxe or None,
            "no_pge": no_pge or None,
            "no_keys": no_keys or None,
            "no_pse": no_pse or None,
            "no_pse36": no_pse36 or None,
            "no_page1gb": no_page1gb or None,
            "amd": amd or None,
            "c_bit": c_bit,
            "shared_bit": shared_bit,
            "mair": None if mair is None else number("--mair", mair),
            "tcr": None if tcr is None else number("--tcr", tcr),
        }
        given = {name: value for name, value in options.items() if value is not None}
        words = list(_words(values))
        chosen, assumed = (mode, []) if mode is not None else _mode_of(words, level)
        machine = architecture.named(chosen.architecture)
        named_words = [(level if one.level is None else one.level, one) for one in words]
        for option in machine.mode_options.intersection(machine.roots) - given.keys():
            named = {_raw(one) for name, one in named_words if name and name.lower() == option}
            if len(named) == 1:
                given |= {option: named.pop()}
        cpu = architecture.in_mode(machine, chosen.value, given)
        known = entries.levels_of(cpu)
        asked: list[tuple[int, Sequence[int] | str]] = []
        for name, one in named_words:
            raw = _raw(one)
            register = None if name is None else name.lower()
            if register in machine.roots:
                asked.append((raw, register))
            elif register == "esr":
                raise Misuse(f"ESR_EL1 is no entry: an abort is explained by fault --esr {raw:#x}")
            elif register in _ROOTS:
                raise Misuse(
                    f"{name} is no register of {machine.called}: name a mode that has it, like"
                    f" --mode {_ROOTS[register]}"
                )
            elif name is None:
                asked.append((raw, known))
            else:
                try:
                    asked.append((raw, [level_named(cpu, name)]))
                except QuestionError as error:
                    if mode is not None:
                        raise
                    raise QuestionError(f"{error}; --mode names another mode") from None
        readings, registers = [], []
        for raw, levels in asked[:MOST_VALUES]:
            if isinstance(levels, str):
                registers.append(machine.read_root(cpu, levels, raw))
                continue
            found = [entries.read(cpu, raw, each) for each in levels]
            kept = [machine.linux(cpu, each) if linux else None for each in found]
            readings.append(
                [
                    (each, to_linux, machine.likely(cpu, each, to_linux))
                    for each, to_linux in zip(found, kept, strict=True)
                ]
            )
        read = [each.entry for of in readings for each, *_ in of]
        assumed += machine.assumed(cpu, given, read)
        if as_json:
            content = {
                "cpu": cpu_object(cpu),
                "assumed": assumed,
                "readings": [reports.as_object(*each) for of in readings for each in of],
                "registers": [reports.register_object(one) for one in registers],
                "cut": list(_cut(asked)),
            }
            say(json.dumps(bare("decode", **content)))
            return
        assumed += dict.fromkeys(one.assumed for one in registers if one.assumed)
        lines = [*reports.decoded_lines(readings, registers, machine.manual), *_cut(asked)]
        for line in (*lines, *assumed_lines(assumed)):
            show(line)


_ROOTS = {
    "cr3": ModeName.LEVEL_4,
    "satp": ModeName.SV39,
    **dict.fromkeys(("ttbr0", "ttbr1", "tcr", "mair"), ModeName.KIB_4),
    "asce": ModeName.REGION_THIRD,
    **dict.fromkeys(("ptcr", "quadrant0", "quadrant3"), ModeName.RADIX_4K),
}
"""The registers that say where tables are, each with a mode that has it."""


def _mode_of(words: Sequence[_Word], level: str | None) -> tuple[ModeName, list[str]]:
    """The mode where none is named, by the first register among the values, and what is assumed in
    that; `level` is that of values without one."""
    from harness.inspect import architecture

    chosen = ModeName.LEVEL_4
    for one in words:
        name = (one.level or level or "").lower()
        if name in _ROOTS:
            chosen = _ROOTS[name]
            told = architecture.named(chosen.architecture).told_mode(_raw(one))
            if told is not None:
                return ModeName(told), []
            break
    what = "paging has 4 levels" if chosen is ModeName.LEVEL_4 else f"the mode is {chosen.value}"
    return chosen, [f"{what} (--mode names another)"]


MOST_VALUES = 1024
"""Values that are decoded: a table has half as many."""


class _Word(NamedTuple):
    """A value as it was written: what it is for people, its level if that was named."""

    what: str
    level: str | None
    raw: str


def _raw(word: _Word) -> int:
    """The number that was written; Misuse for what is none."""
    return number(word.what, word.raw, None if word.level is None else 16)


_NAMED = re.compile(r"(?P<level>\*?[A-Za-z0-9]*[A-Za-z][A-Za-z0-9]*)(?:\s*[=:]\s*|\s+)(?P<raw>\S+)")
"""A value with its level before it, as tools print it, in hexadecimal: `PTE 2067`, `pmd:2067` or
`*pde = 2067`."""


def _words(values: Sequence[str]) -> Iterator[_Word]:
    """The values that were given, those of standard input in place of -; Misuse where there are
    none in it."""
    from harness.machine.errors import Misuse

    for value in values:
        if is_windows(value):
            yield from (_word("the value", line) for _, line in of_windows(value))
            continue
        if value != "-":
            yield _word("the value", value)
            continue
        lines = [*of_windows(piped())]
        for count, line in lines:
            yield _word(f"the value in line {count}", line)
        if not lines:
            raise Misuse("standard input holds no value")


_AT = re.compile(r"\b(P[XPDT]E) (?:at [0-9A-Fa-f`]+|(?=contains ))")
_CONTAINS = re.compile(r"\bcontains ([0-9A-Fa-f`]+)")


def is_windows(text: str) -> bool:
    """Whether a text is what !pte of Windows' debuggers prints."""
    return _AT.search(text) is not None and _CONTAINS.search(text) is not None


def of_windows(text: str) -> Iterator[tuple[int, str]]:
    """The lines with their numbers, but for those that are empty; what !pte of Windows' debuggers
    prints, names in one line and what stands there in the next, is a line for each entry."""
    names: list[str] = []
    windows = is_windows(text)
    for count, line in enumerate(text.splitlines(), 1):
        if not windows:
            if stripped := line.strip():
                yield count, stripped
            continue
        names += _AT.findall(line)
        for name, raw in zip(names, held := _CONTAINS.findall(line), strict=False):
            yield count, f"{name}={raw}"
        del names[: len(held)]


def _word(what: str, text: str) -> _Word:
    named = _NAMED.fullmatch(text)
    return _Word(what, named["level"], named["raw"]) if named else _Word(what, None, text)


def _cut(asked: Sequence[object]) -> Iterator[str]:
    """That not all were decoded, where that is so."""
    if len(asked) > MOST_VALUES:
        yield f"Only the first {MOST_VALUES:,} of {len(asked):,} values are shown."
