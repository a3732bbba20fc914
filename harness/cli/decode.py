"""`pagetable decode`: an entry, bit by bit."""

from __future__ import annotations

import json
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.complete import one_of
from harness.cli.ending import sentences
from harness.cli.output import Json, say
from harness.cli.source import number

if TYPE_CHECKING:
    from harness.paging.x86.cpu import Cpu


class ModeName(StrEnum):
    """The paging modes, by the names that `harness.paging.x86.cpu.Mode` has for them."""

    BITS_32 = "32"
    PAE = "pae"
    LEVEL_4 = "4"
    LEVEL_5 = "5"


def decode(
    value: Annotated[str, typer.Argument(metavar="VALUE", help="A raw entry, like 0x2067.")],
    level: Annotated[
        int | None,
        typer.Option(
            help="Of the table that holds it: 0 is the lowest. All of them unless said.",
            show_default=False,
            autocompletion=one_of("0", "1", "2", "3", "4"),
        ),
    ] = None,
    mode: Annotated[
        ModeName | None,
        typer.Option(help="The paging mode; 4 unless said.", show_default=False),
    ] = None,
    linux: Annotated[
        bool, typer.Option("--linux", help="Also tell what Linux keeps in it (modes 4 and 5).")
    ] = False,
    maxphyaddr: Annotated[
        int | None,
        typer.Option(
            help="Width of physical addresses in bits; 40 unless said.", show_default=False
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
    as_json: Json = False,
) -> None:
    """Say what a raw entry means: each bit, its name, and why it is reserved or ignored.

    Sections and tables are those of volume 3A of the Intel SDM. In mode pae, level 2 is that of
    the PDPTE registers.

    Example: pagetable decode 0x80000000401008e7 --level 1 --linux
    """
    with sentences():
        from harness.inspect import decode as entries
        from harness.inspect import linux as dialect
        from harness.inspect.likely import highest_bit, likely, narrower
        from harness.machine.errors import Misuse
        from harness.report import decode as reports
        from harness.report.objects import bare, cpu_object
        from harness.report.text import assumed_lines

        off = {"nxe": no_nxe, "pge": no_pge, "keys": no_keys, "pse": no_pse}
        cpu = _cpu((mode or ModeName.LEVEL_4).value, {name for name, one in off.items() if one})
        cpu = replace(cpu, page1gb=not no_page1gb, pse36=not no_pse36, amd=amd)
        assumed = []
        if mode is None:
            assumed.append("paging has 4 levels (--mode names another)")
        if maxphyaddr is not None:
            cpu = replace(cpu, maxphyaddr=maxphyaddr)
        raw = number("the value", value)
        try:
            known = entries.levels_of(cpu)
        except ValueError as error:  # the format's, about MAXPHYADDR
            raise Misuse(str(error)) from None
        levels = known if level is None else [level]
        found = [entries.read(cpu, raw, one) for one in levels]
        if maxphyaddr is None:
            wide = highest_bit(*(one.entry for one in found))
            assumed.append(f"MAXPHYADDR is {cpu.maxphyaddr} (--maxphyaddr){narrower(wide)}")
        kept = [dialect.read(cpu, one) if linux else None for one in found]
        readings = [
            (one, to_linux, likely(cpu, one, to_linux))
            for one, to_linux in zip(found, kept, strict=True)
        ]
        if as_json:
            content = {
                "cpu": cpu_object(cpu),
                "assumed": assumed,
                "readings": [reports.as_object(*one) for one in readings],
            }
            say(json.dumps(bare("decode", **content)))
            return
        one = level is not None
        lines = reports.reading_lines(*readings[0]) if one else reports.readings_lines(readings)
        for line in (*lines, *assumed_lines(assumed)):
            say(line)


def _cpu(mode: str, off: set[str]) -> Cpu:
    """A CPU in the mode, with all that changes how entries read but what is off."""
    from harness.paging.x86.cpu import Cpu, Cr4, Efer, Mode

    long = mode in (Mode.LEVEL_4.value, Mode.LEVEL_5.value)
    cr4 = {"pge": Cr4.PGE, "pse": Cr4.PSE, "keys": Cr4.PKE | Cr4.PKS if long else Cr4(0)}
    on = sum(bit for name, bit in cr4.items() if name not in off)
    return Cpu.in_mode(Mode(mode), 0, cr4=on, efer=0 if "nxe" in off else Efer.NXE)
