"""The options that say where tables come from, shared by every command that looks at some."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, replace
from inspect import Parameter, Signature, signature
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from harness.cli import complete, help
from harness.cli.ending import say_warnings

if TYPE_CHECKING:
    from harness.inspect.snapshot import Snapshot
    from harness.inspect.sources.ram import Placed


def _register(text: str) -> Any:
    """The option by which the value of a register is given."""
    return typer.Option(metavar="N", help=text, show_default=False)


COUNTED = ("maxphyaddr", "c_bit", "shared_bit")
"""Those in decimal."""

REGISTERS = (
    *("cr0", "cr3", "cr4", "efer", *COUNTED),
    *("satp", "mstatus", "menvcfg"),
    "asce",
    *("ttbr0", "ttbr1", "tcr", "mair", "sctlr", "pstate", "mmfr0", "mmfr1", "mmfr2"),
    *("ptcr", "pid", "quadrant0", "quadrant3", "amr", "iamr"),
)
"""The options whose value goes into the CPU state as it is."""

IN_PLACE = (*REGISTERS, "page1gb")
"""The options that take the place of what a source says of the processor."""

KINDS = ("layout", "case", "qmp", "gdb", "core", "ram")
"""The options that name a source."""

KINDS_OF = {
    "levels": ("layout",),
    "vcpu": ("qmp", "gdb", "core"),
    "live": ("qmp",),
    "held": ("gdb",),
    "flat": ("ram",),
}
"""The kinds of sources that an option says something of, where it is not for all."""


@dataclass(frozen=True)
class Source:
    """Where tables come from.  The fields are options; `with_source` gives them to a command."""

    layout: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A layout: one that comes along, by name (of another architecture than x86"
            " riscv/NAME, arm64/NAME, s390/NAME, power/NAME), or a file.",
            show_default=False,
            autocompletion=complete.layouts,
        ),
    ] = None
    levels: Annotated[
        int | None,
        typer.Option(
            help="The number of levels at which a layout is built.",
            show_default=False,
            autocompletion=complete.one_of("2", "3", "4", "5"),
        ),
    ] = None
    case: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A saved case: the tables it describes.", show_default=False
        ),
    ] = None
    qmp: Annotated[
        Path | None,
        typer.Option(
            metavar="SOCKET",
            help="A running QEMU, by its QMP socket, a path or HOST:PORT; its guest stands still"
            " while tables are read.",
            show_default=False,
        ),
    ] = None
    gdb: Annotated[
        Path | None,
        typer.Option(
            metavar="SOCKET",
            help="A running QEMU, by its gdb stub (-s, -gdb), a path or HOST:PORT; its guest runs"
            " on afterwards.",
            show_default=False,
        ),
    ] = None
    held: Annotated[
        bool,
        typer.Option("--held", help="The guest of --gdb stood before, and is left so."),
    ] = False
    core: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A core that QEMU, virsh dump --memory-only, makedumpfile or VirtualBox wrote, in"
            " ELF or kdump-compressed.",
            show_default=False,
        ),
    ] = None
    vcpu: Annotated[int, typer.Option(metavar="N", help="Which processor of a guest or core.")] = 0
    live: Annotated[
        bool, typer.Option("--live", help="Let the guest run while its tables are read.")
    ] = False
    ram: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE[@ADDRESS]",
            help="A file that holds physical memory, from an address on; repeated where there are"
            " holes. Or a capture of LiME or AVML. Needs --cr3, and --cr4 for other than 4-level"
            " paging, or --satp, or --tcr with --ttbr0 or --ttbr1, unless Linux left its VMCOREINFO"
            " there; or --asce, or --ptcr or --quadrant0.",
            show_default=False,
        ),
    ] = None
    flat: Annotated[
        bool,
        typer.Option("--flat", help="Read a file of memory as such, whatever it begins with."),
    ] = False
    cr0: Annotated[str | None, _register("CR0: paging and write protection.")] = None
    cr3: Annotated[str | None, _register("CR3: another root, of another process say.")] = None
    cr4: Annotated[str | None, _register("CR4: PAE, LA57, SMEP, SMAP, LASS, keys.")] = None
    efer: Annotated[str | None, _register("EFER: long mode and execute disable.")] = None
    maxphyaddr: Annotated[
        str | None, _register("How many bits physical addresses have, in decimal.")
    ] = None
    c_bit: Annotated[
        str | None, _register("The bit of entries and CR3 that marks encrypted memory: SME, SEV.")
    ] = None
    shared_bit: Annotated[
        str | None, _register("The bit that marks memory shared with the host: TDX.")
    ] = None
    page1gb: Annotated[
        bool | None,
        typer.Option(
            "--page1gb/--no-page1gb",
            help="Whether the processor has 1G pages.",
            show_default=False,
        ),
    ] = None

    satp: Annotated[
        str | None, _register("RISC-V: satp, which has the mode and the root's table.")
    ] = None
    mstatus: Annotated[str | None, _register("RISC-V: mstatus, with SUM and MXR.")] = None
    menvcfg: Annotated[
        str | None, _register("RISC-V: menvcfg, with PBMTE, ADUE and PMM; menvcfgh is above.")
    ] = None

    ttbr0: Annotated[str | None, _register("arm64: TTBR0_EL1, the root of the lower half.")] = None
    ttbr1: Annotated[str | None, _register("arm64: TTBR1_EL1, the root of the upper half.")] = None
    tcr: Annotated[
        str | None, _register("arm64: TCR_EL1: granules, widths of addresses, HA, HD, HPD.")
    ] = None
    mair: Annotated[
        str | None, _register("arm64: MAIR_EL1, the memory types; by default Linux's.")
    ] = None
    sctlr: Annotated[str | None, _register("arm64: SCTLR_EL1: WXN and EPAN.")] = None
    pstate: Annotated[
        str | None, _register("arm64: PSTATE as SPSR_EL1 and an oops have it: PAN and UAO.")
    ] = None
    mmfr0: Annotated[
        str | None, _register("arm64: ID_AA64MMFR0_EL1: granules, physical addresses.")
    ] = None
    mmfr1: Annotated[str | None, _register("arm64: ID_AA64MMFR1_EL1: HAFDBS, HPDS, PAN.")] = None
    mmfr2: Annotated[str | None, _register("arm64: ID_AA64MMFR2_EL1: LVA, TTST, UAO, E0PD.")] = None

    asce: Annotated[
        str | None, _register("s390: the ASCE, of another space than the PSW's, say; also --cr0.")
    ] = None
    ptcr: Annotated[
        str | None, _register("POWER: PTCR, from which the partition and process tables lead on.")
    ] = None
    pid: Annotated[
        str | None, _register("POWER: PIDR, the process of quadrant 0, with --ptcr.")
    ] = None
    quadrant0: Annotated[
        str | None,
        _register(
            "POWER: in place of --ptcr, the first doubleword of the process table entry whose tree"
            " serves quadrant 0: RTS, RPDB, RPDS."
        ),
    ] = None
    quadrant3: Annotated[
        str | None, _register("POWER: the same of process 0, whose tree serves quadrant 3.")
    ] = None
    amr: Annotated[str | None, _register("POWER: AMR, of whose key 0 reads and writes are.")] = None
    iamr: Annotated[str | None, _register("POWER: IAMR, of whose key 0 fetches are.")] = None

    @classmethod
    def named(cls, text: str) -> Source:
        """The source that one word names: KIND:NAME, then any of these options, each after a comma
        as NAME=VALUE.  The levels of a layout may follow an @.

            layout:linux-5  layout:FILE@4  case:FILE  qmp:SOCKET,vcpu=1,live=1
            core:FILE,efer=0x500  ram:FILE,cr3=0x1000,cr4=0x20
            ram:FILE@0,ram=FILE@0x100000000,cr3=0x1000

        Raises Misuse for a word that is not of this form.
        """
        from harness.machine.errors import Misuse

        kind, colon, rest = text.partition(":")
        if not colon or kind not in KINDS:
            forms = ", ".join(f"{kind}:NAME" for kind in KINDS)
            raise Misuse(f"{text!r} names no source: write one of {forms}")
        given: dict[str, Any] = {}
        options = [field.name for field in fields(cls) if field.name not in KINDS]
        files: list[str] = []
        while match := _OPTION.fullmatch(rest):
            if match["name"] == kind == "ram":
                files.insert(0, match["value"])
            elif match["name"] in options:
                given.setdefault(match["name"], match["value"])
            else:
                break
            rest = match["rest"]
        if kind == "layout" and (match := _AT_LEVELS.fullmatch(rest)):
            rest = match["rest"]
            given.setdefault("levels", match["levels"])
        if not rest:
            raise Misuse(f"{text!r} names no source: nothing stands after {kind}:")
        for name in given.keys() & {"levels", "vcpu", "live", "held", "page1gb", "flat"}:
            given[name] = number(name, given[name], 10)
        given[kind] = {"layout": rest, "ram": [rest, *files]}.get(kind, Path(rest))
        return cls(**given)

    @contextmanager
    def opened(
        self,
        stack: bool = False,
        beside: Mapping[str, int] = MappingProxyType({}),
        others: tuple[str, ...] = (),
        *,
        accesses: bool = False,
    ) -> Iterator[Snapshot]:
        """The snapshot, as long as the block runs.

        stack     whether what the processor pushed at its last page fault is wanted, too, and what
                  it needs for the next
        beside    what else of the CPU state is given in place of the source's own
        others    options of the command by which tables can be given besides
        accesses  whether accesses are asked about, so that what they alone depend on is assumed

        Raises Misuse where the options name no source or several, and what the source raises.
        """
        from harness.machine.errors import Misuse

        named = [kind for kind in KINDS if getattr(self, kind)]
        if len(named) != 1:
            choice = ", ".join(f"--{kind}" for kind in (*KINDS, *others))
            raise Misuse(f"{self._unsuitable(named)}: choose one of {choice}")
        self._refuse_unused(named[0])
        snapshot = self._snapshot({**self.given(), **beside}, stack)
        yield self._doubted(snapshot.for_accesses() if accesses else snapshot)

    def of_entries(
        self, entries: str, address: int, beside: Mapping[str, int] = MappingProxyType({})
    ) -> Snapshot:
        """The entries that are written as PGD=... PTE=..., of the walk of an address; `beside` as
        in `opened`.  Misuse where they cannot be read, or a source is named besides."""
        from harness.cli.decode import is_windows, of_windows
        from harness.inspect.sources import entries as given
        from harness.machine.errors import Misuse

        self.refuse_beside("--entries")
        if is_windows(entries):
            entries = " ".join(line for _, line in of_windows(entries))
        words = re.split(r"[\s,;=:]+", entries.strip())
        if len(words) % 2:
            raise Misuse(f"{entries!r} are no entries: write PGD=... PUD=... PMD=... PTE=...")
        pairs = [
            (name, number(f"the {name}", raw, 16))
            for name, raw in zip(words[::2], words[1::2], strict=True)
        ]
        registers = {**self.given(), **beside}
        return given.snapshot("The entries that were given", pairs, address, registers)

    def refuse_beside(self, option: str) -> None:
        """Raises Misuse where a source of tables is named beside an option that is one."""
        from harness.machine.errors import Misuse

        for kind in KINDS:
            if getattr(self, kind) is not None:
                raise Misuse(f"{option} and --{kind} are two sources: choose one of them")
        self._refuse_unused(option.removeprefix("--"))

    def _unsuitable(self, named: Sequence[str]) -> str:
        """Why no single source can be read."""
        if named:
            return f"{len(named)} sources are named, {self._options(named)}"
        given = [name for name in IN_PLACE if getattr(self, name) is not None]
        if not given:
            return "no source is named"
        say = "says" if len(given) == 1 else "say"
        return f"{self._options(given)} {say} nothing without the memory that holds the tables"

    def _options(self, names: Iterable[str]) -> str:
        """The options of these names, as they are written."""
        from harness.inspect import architecture

        return architecture.options(names, vars(self))

    def _refuse_unused(self, kind: str) -> None:
        """Raises Misuse for an option that says nothing of this kind of source."""
        from harness.machine.errors import Misuse

        for option, kinds in KINDS_OF.items():
            if getattr(self, option) and kind not in kinds:
                raise Misuse(f"--{option} is for {self._options(kinds)}, not for --{kind}")

    def _doubted(self, snapshot: Snapshot) -> Snapshot:
        """The same, with a doubt about its root where that was found by a number."""
        if self.layout is not None or self.case is not None:
            return snapshot
        from harness.inspect import architecture

        found = architecture.of(snapshot.cpu).doubt(snapshot.cpu, snapshot.memory)
        if not found:
            return snapshot
        return replace(snapshot, assumed=(*snapshot.assumed, found), doubted=True)

    def _snapshot(self, given: dict[str, int], stack: bool) -> Snapshot:
        """What the one source that is named gives; no other kind is imported."""
        if self.layout is not None:
            from harness.inspect.sources import layout

            return layout.snapshot(self.layout, self.levels, given)
        if self.case is not None:
            from harness.inspect.sources import case

            return case.snapshot(self.case, given)
        if self.qmp is not None:
            from harness.inspect.sources import qmp

            say_warnings()
            return qmp.snapshot(self.qmp, self.vcpu, self.live, given, stack=stack)
        if self.gdb is not None:
            from harness.inspect.sources import qmp

            return qmp.snapshot_of_stub(self.gdb, self.vcpu, given, held=self.held, stack=stack)
        if self.core is not None:
            from harness.inspect.sources import core

            return core.snapshot(self.core, self.vcpu, given)
        assert self.ram is not None
        from harness.inspect.sources import ram

        return ram.snapshot([_placed(one) for one in self.ram], given, bool(self.flat))

    def given(self) -> dict[str, int]:
        """The registers, and what else of the CPU state, that were given in place of the source's
        own."""
        given = {
            name: number(name, text, 10 if name in COUNTED else None)
            for name in REGISTERS
            if (text := getattr(self, name)) is not None
        }
        return given if self.page1gb is None else {**given, "page1gb": bool(self.page1gb)}


def _placed(text: str) -> Placed:
    """A file of memory, and the address after its name, if it is not itself part of the name."""
    from harness.inspect.sources.ram import Placed

    name, at, address = text.rpartition("@")
    if not at or Path(text).exists():
        return Placed(Path(text))
    return Placed(Path(name), number(f"the address of {name}", address))


_OPTION = re.compile(r"(?P<rest>.*),(?P<name>[a-z0-9_]+)=(?P<value>[^,]*)", re.DOTALL)
_AT_LEVELS = re.compile(r"(?P<rest>.*)@(?P<levels>\d+)", re.DOTALL)


Entries = Annotated[
    str | None,
    typer.Option(
        metavar="ENTRIES",
        help="In place of a source, the entries on the way, as an oops or a debugger prints them:"
        " 'PGD=.. P4D=.. PUD=.. PMD=.. PTE=..', or PML4E and so on.",
        show_default=False,
        rich_help_panel=help.TABLES,
    ),
]


def number(what: str, text: str, bare: int | None = None) -> int:
    """An address, an entry or a register, as tools print it or people write it; Misuse, with what
    it is, where it is none, or where it could be meant in two ways.

    bare  the base of what has no prefix, as in `inspect.number`: 10 of what is counted
    """
    from harness.inspect.number import read
    from harness.machine.errors import Misuse

    try:
        return read(what, text, bare=bare)
    except ValueError as error:
        raise Misuse(str(error)) from None


def with_source(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the options of a source in place of its parameter `source`."""

    def spelled(**given: object) -> None:
        options = {field.name: given.pop(field.name) for field in fields(Source)}
        command(source=Source(**options), **given)  # type: ignore[arg-type]

    hints = get_type_hints(Source, include_extras=True)
    for name, hint in hints.items():
        (option,) = hint.__metadata__
        option.rich_help_panel = help.REGISTERS if name in IN_PLACE else help.TABLES
    options = [
        Parameter(
            field.name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(Source)
    ]
    own = [
        parameter.replace(kind=Parameter.KEYWORD_ONLY)
        for parameter in signature(command, eval_str=True).parameters.values()
        if parameter.name != "source"
    ]
    spelled.__name__, spelled.__doc__ = command.__name__, command.__doc__
    spelled.__annotations__ = {part.name: part.annotation for part in (*own, *options)}
    spelled.__signature__ = Signature([*own, *options])  # type: ignore[attr-defined]
    return spelled
